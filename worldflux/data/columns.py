"""The columns of a replay: names, shapes and bytes, in memory or in a mapped scratch file."""

from __future__ import annotations

import functools
import math
import mmap
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldflux.errors import ConfigurationError
from worldflux.files import free_bytes

Shapes = tuple[int, ...] | Mapping[str, tuple[int, ...]]
ColumnSpec = tuple[tuple[int, ...], np.dtype[Any]]

OBS = "obs/"
EXTRA = "extra/"
SINCE_FIRST = "since_first"  # rows since the stream's last is_first
FLAGS = ("is_first", "is_last", "is_terminal")
_ALIGNMENT = 64
_LARGE_BYTES = 1024
_ZEROS_BYTES = 1 << 24


def column_specs(
    obs_shape: Shapes, action_dim: int, extra_columns: Mapping[str, tuple[int, ...]]
) -> dict[str, ColumnSpec]:
    """Shape and type of every column of one row; images (rank 3) are uint8, the rest float32."""
    shapes = dict(obs_shape) if isinstance(obs_shape, Mapping) else {"": obs_shape}
    flag, real = np.dtype(np.bool_), np.dtype(np.float32)
    specs: dict[str, ColumnSpec] = {}
    if not shapes:
        raise ConfigurationError("obs_shape names no observation")
    for name, shape in shapes.items():
        sizes = _sizes(f"obs_shape[{name!r}]" if name else "obs_shape", shape)
        specs[OBS + name] = (sizes, np.dtype(np.uint8) if len(sizes) == 3 else real)
    specs["action"] = (_sizes("action_dim", (action_dim,)), real)
    specs["reward"] = ((), real)
    specs.update(dict.fromkeys(FLAGS, ((), flag)))
    specs[SINCE_FIRST] = ((), np.dtype(np.int32))
    for name, shape in extra_columns.items():
        specs[EXTRA + name] = (_sizes(f"extra_columns[{name!r}]", shape), real)
    return specs


def _sizes(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(shape, Sequence) and all(
        isinstance(n, (int, np.integer)) and n > 0 for n in shape
    ):
        return tuple(shape)
    given = shape[0] if name == "action_dim" else shape
    raise ConfigurationError(f"{name} = {given} is not allowed: expected sizes from 1 on")


def row_bytes(specs: Mapping[str, ColumnSpec]) -> int:
    small, large = _layout(specs)
    return small.itemsize + sum(math.prod(s) * dtype.itemsize for s, dtype in large.values())


@dataclass(frozen=True)
class Rows:
    """Zeroed rows `[rows, num_envs]`: small columns together in a record, large ones apart.

    A sampled row then touches one or two lines of memory, not one for each column; and an image is
    copied once, not twice.
    """

    records: np.ndarray
    large: dict[str, np.ndarray]

    def columns(self) -> dict[str, np.ndarray]:
        """Views of every column `[rows, num_envs, ...]`."""
        names = self.records.dtype.names or ()
        return {**{name: self.records[name] for name in names}, **self.large}

    def flat(self) -> Rows:
        """The same memory with one axis over steps and streams, `[rows * num_envs]`."""
        large = {name: column.reshape(-1, *column.shape[2:]) for name, column in self.large.items()}
        return Rows(self.records.reshape(-1), large)

    def take(self, places: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Contiguous copies of these columns at these places of a flat one (as `numpy.take`)."""
        cells = self._cells.take(places)
        found: dict[str, np.ndarray] = {}
        for name in names:
            if name in self.large:
                found[name] = self.large[name].take(places, axis=0)
            else:
                found[name] = cells[name].copy().view(self.records.dtype[name])
        return found

    @functools.cached_property
    def _cells(self) -> np.ndarray:
        """The records with opaque fields, which numpy copies whole, not number by number."""
        record = self.records.dtype
        fields = dict(record.fields or {})
        opaque = np.dtype(
            {
                "names": list(fields),
                "formats": [f"V{field[0].itemsize}" for field in fields.values()],
                "offsets": [field[1] for field in fields.values()],
                "itemsize": record.itemsize,
            }
        )
        return self.records.view(opaque)


def allocate(
    specs: Mapping[str, ColumnSpec], rows: int, num_envs: int, folder: Path | None
) -> Rows:
    """Rows for these columns: in memory, or mapped from a file in `folder`.

    The file has no name: the system frees it with the process, however that ends, so that a
    resumed run never sees rows that are newer than its checkpoint. Its space is claimed at once,
    because a full disk would end the process without a message later.
    """
    small, apart = _layout(specs)
    types = {name: np.dtype((dtype, shape)) for name, (shape, dtype) in apart.items()}
    offsets, total = {}, 0
    for name, dtype in {"": small, **types}.items():
        offsets[name] = total
        total += -(-rows * num_envs * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
    memory: Any = np.zeros(total, np.uint8) if folder is None else _map_scratch(folder, total)
    shape = rows, num_envs
    large = {n: np.ndarray(shape, t, buffer=memory, offset=offsets[n]) for n, t in types.items()}
    return Rows(np.ndarray(shape, small, buffer=memory), large)


def _layout(specs: Mapping[str, ColumnSpec]) -> tuple[np.dtype[Any], dict[str, ColumnSpec]]:
    """The record of the small columns, and the columns apart from it.

    SINCE_FIRST is read of many more rows than are sampled: apart, it stays in the cache.
    """
    large = {
        name: (shape, dtype)
        for name, (shape, dtype) in specs.items()
        if math.prod(shape) * dtype.itemsize > _LARGE_BYTES or name == SINCE_FIRST
    }
    small = [(name, dtype, shape) for name, (shape, dtype) in specs.items() if name not in large]
    return np.dtype(small, align=True), large


def _map_scratch(folder: Path, size: int) -> mmap.mmap:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            _claim(file.fileno(), size)
        except OSError as error:
            free = free_bytes(folder)
            raise ConfigurationError(
                f"the memory-mapped replay needs {size:,} bytes; {free:,} are free "
                f"({error.strerror})",
                where=str(folder),
                hint="free disk space, or set a smaller data.buffer_capacity",
            ) from None
        return mmap.mmap(file.fileno(), size)


def _claim(file: int, size: int) -> None:
    """Allocate a file on the disk; where the system has no call for it (macOS), with zeros."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    zeros = memoryview(bytes(min(size, _ZEROS_BYTES)))
    while size > 0:
        size -= os.write(file, zeros[:size])
