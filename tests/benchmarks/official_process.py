"""The official code in its own process, timed in turn with ours.

The program is not part of this repository. It may be any command that builds the official agent
with the same numbers, prints one line when it is ready, and from then on answers each line "plan"
or "update" on its standard input with the milliseconds that one such call took.
"""

from __future__ import annotations

import shlex
import subprocess
from types import TracebackType


class OfficialProcess:
    """A running program that speaks the protocol above."""

    def __init__(self, command: str) -> None:
        self.process = subprocess.Popen(
            shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.greeting = self._line()

    def cost(self, what: str) -> float:
        """Milliseconds of one call of "plan" or "update"."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args} ended with code {self.process.wait()}")
        return line.strip()

    def __enter__(self) -> OfficialProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
