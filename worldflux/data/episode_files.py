"""Columns whose episodes are in files of their own, read one at a time; a folder of npz files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from worldflux.errors import ConfigurationError

from .recorded_columns import NAMES, shown
from .step_files import npz_columns

_FOLLOWING = "next_"


class EpisodeColumn:
    """A column `[N, ...]` of episodes end to end; a slice reads the episodes that it touches.

    Args:
        lengths: rows of each episode.
        shape, dtype: of one row.
        read: the rows `[T, ...]` of an episode by its number.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        shape: tuple[int, ...],
        dtype: Any,
        read: Callable[[int], np.ndarray],
    ) -> None:
        self._stops = np.cumsum(lengths)
        self._starts = self._stops - np.asarray(lengths)
        self._read = read
        self.shape, self.dtype = (int(self._stops[-1]), *shape), np.dtype(dtype)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        start, stop, _ = slice(None).indices(len(self)) if key is ... else key.indices(len(self))
        touched = np.flatnonzero((self._stops > start) & (self._starts < stop)).tolist()
        parts = [
            self._read(number)[max(0, start - self._starts[number]) : stop - self._starts[number]]
            for number in touched
        ]
        return np.concatenate(parts) if parts else np.empty((0, *self.shape[1:]), self.dtype)


def episodes_of_folder(folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """The columns of a folder of npz files, one episode each, in the order of their names; and the
    row after the last of each file.

    A file has the columns of a file of steps (docs/data.md); observations may have one row more
    than there are actions, the last one, and `terminals` may be one flag. An episode that no flag
    ends was cut off.

    Raises:
        ConfigurationError: naming the file that is no episode, or differs from the first one.
    """
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise ConfigurationError("there is no .npz file in this folder", where=str(folder))
    read = lru_cache(maxsize=1)(_columns_of)  # one file's columns are asked for together
    first, lengths = read(files[0]), []
    expected = _rows_of(first)
    unread: dict[str, Any] = {}
    for file in files:
        found = read(file)
        unread |= {name: values for name, values in found.items() if not _is_read(name)}
        if _rows_of(found) != expected:
            raise ConfigurationError(
                f"its columns differ from those of {files[0].name}: {_rows_of(found)}, there "
                f"{expected}",
                where=str(file),
            )
        lengths.append(len(found["rewards"]))

    def reader(name: str) -> Callable[[int], np.ndarray]:
        return lambda number: read(files[number])[name]

    columns = {
        name: EpisodeColumn(lengths, values.shape[1:], values.dtype, reader(name))
        for name, values in first.items()
        if _is_read(name)
    }
    return columns | unread, np.cumsum(lengths)


def _is_read(name: str) -> bool:
    """Whether a column is one of `NAMES`, or a part of it; others may be of any form."""
    return name.partition("/")[0] in NAMES


def _rows_of(columns: dict[str, np.ndarray]) -> dict[str, str]:
    """Type and shape of a row of each column that is read."""
    return {n: f"{v.dtype}{v.shape[1:]}" for n, v in columns.items() if _is_read(n)}


def _columns_of(file: Path) -> dict[str, np.ndarray]:
    """One file's columns, one row a step."""
    found = npz_columns(file, "an npz file of one episode")
    own = {word: name for name, words in NAMES.items() for word in words}
    columns: dict[str, np.ndarray] = {}
    for name, values in found.items():
        word, slash, part = name.partition("/")
        columns[own.get(word, word) + slash + part] = values
    steps = len(np.ravel(columns.get("rewards", ())))
    if not steps:
        raise ConfigurationError(
            f"an episode needs observations, actions, rewards and terminals; it has {shown(found)}",
            where=str(file),
        )
    for name, values in list(columns.items()):
        if name.partition("/")[0] == "observations" and values.shape[:1] == (steps + 1,):
            columns[name], columns[_FOLLOWING + name] = values[:-1], values[1:]
    last = np.arange(steps) == steps - 1
    if "terminals" in columns:
        terminals = columns["terminals"]
        columns["terminals"] = last & terminals.astype(bool) if terminals.size == 1 else terminals
    read = {name: values.shape for name, values in columns.items() if _is_read(name)}
    wrong = [f"{name} {shape}" for name, shape in read.items() if shape[:1] != (steps,)]
    if wrong:
        raise ConfigurationError(
            f"{steps} rewards, and other numbers of rows: {', '.join(wrong)}", where=str(file)
        )
    return columns
