"""The score files of official programs, read while they grow, as rows of our own logs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from worldflux.run_log import Row, parse_row, whole_lines

MAX_LINE_BYTES = 1 << 20
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# "Optimizer opt has 17,137 params:" and "Learnable parameters: 1,197,745".
_PARAMETERS = re.compile(r"^(?:Optimizer \w+ has|Learnable parameters:) ([\d,]+)\b")
TRAINING_EPISODES = "training episodes"
EVALUATION_EPISODES = "evaluation episodes"


@dataclass
class NewRows:
    """Rows for metrics.jsonl and eval.jsonl that were not there at the last reading.

    `parameters` is what the program says of the model's size, where it has just said so.
    """

    metrics: list[Row] = field(default_factory=list)
    evaluations: list[Row] = field(default_factory=list)
    parameters: int | None = None


# Called again and again, it reads each row of a program's files once.
ReadScores = Callable[[], NewRows]


class LineTail:
    """The lines of a growing file; one that is not finished waits for the next call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def lines(self) -> Iterator[str]:
        """Lines that were finished since the last call, without their ends."""
        return (line.decode("utf-8", "replace") for line in self._lines())

    def rows(self) -> Iterator[Row]:
        """The JSON objects among these lines."""
        return (row for line in self._lines() if (row := parse_row(line)) is not None)

    def _lines(self) -> Iterator[bytes]:
        at_end = False
        try:
            with self.path.open("rb") as file:
                while not at_end:
                    lines, self._offset, at_end = whole_lines(file.fileno(), self._offset)
                    yield from (line for line in lines if len(line) <= MAX_LINE_BYTES)
        except OSError:
            return

    def rest(self) -> Iterator[str]:
        """What follows the last newline of a file that no longer grows."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(MAX_LINE_BYTES)
        except OSError:
            return
        self._offset += len(data)
        if data:
            yield data.decode("utf-8", "replace")


def plain(text: str) -> str:
    """A terminal's text without its colours."""
    return _COLOUR.sub("", text)


def parameters_in(lines: Iterable[str]) -> int | None:
    """The number of parameters that the last of these lines to do so reports."""
    found = [match[1] for line in lines if (match := _PARAMETERS.match(plain(line)))]
    return int(found[-1].replace(",", "")) if found else None


def evaluation_row(step: int, score: float, episodes: int, kind: str) -> Row:
    """A row of eval.jsonl."""
    return {
        "step": step,
        "env_steps": step,
        "return_mean": score,
        "episodes": episodes,
        "evaluation": kind,
    }
