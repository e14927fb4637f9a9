"""Output that ends nothing: where its reader has gone away, what is written is dropped."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any


class LostOutput:
    """The names of the streams that were lost ("stdout", "stderr")."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._told: Callable[[str], None] | None = None
        self._process = os.getpid()

    def add(self, name: str) -> None:
        """Note a stream as lost."""
        self.names.append(name)
        if self._told is not None and os.getpid() == self._process:  # a fork has no say in it
            self._told(name)

    def tell(self, told: Callable[[str], None]) -> None:
        """Call `told` with the name of every stream that was or will be lost."""
        self._told = told
        for name in self.names:
            told(name)


class LastingStream:
    """A text stream whose writes never raise OSError; everything else is the stream's own.

    A pipe without a reader, a terminal that is gone and a log file on a full disk are such ends.
    """

    def __init__(self, stream: Any, name: str, lost: LostOutput) -> None:
        self.lost = lost
        self._stream, self._name = stream, name

    def write(self, text: Any) -> int:
        """Write, or drop the text."""
        try:
            return int(self._stream.write(text))
        except OSError:
            self._lose()
            return len(text)

    def flush(self) -> None:
        """Flush, or drop what is buffered."""
        try:
            self._stream.flush()
        except OSError:
            self._lose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self) -> None:
        if self._name in self.lost.names:
            return
        # What is still buffered would be tried again, by the interpreter too when it ends.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()
        self.lost.add(self._name)


@contextmanager
def lasting_output() -> Iterator[LostOutput]:
    """Within the block, nothing that is printed can fail for want of a reader."""
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    if isinstance(sys.stderr, LastingStream):  # such a block within another
        yield sys.stderr.lost
        return
    lost = LostOutput()
    with ExitStack() as opened:
        for number in range(3):  # closed by whoever started us: no file may take its place
            with suppress(OSError):
                os.fstat(number)
                continue
            os.open(os.devnull, os.O_RDWR)
        for name, stream in before.items():
            usable = stream or opened.enter_context(open(os.devnull, "w", encoding="utf-8"))
            setattr(sys, name, LastingStream(usable, name, lost))
        try:
            yield lost
        finally:
            for name, stream in before.items():
                setattr(sys, name, stream)
