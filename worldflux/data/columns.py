"""The columns of a replay: names, shapes and bytes, in memory or in a mapped scratch file."""

from __future__ import annotations

import functools
import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldflux.errors import ConfigurationError, ShapeMismatchError

Array = NDArray[Any]
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
    """Shape and type of every column of one row; images (rank 3) are uint8, the rest float32.

    Raises:
        ConfigurationError: naming a size that is no whole number from 1 on.
    """
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


def image_bytes(name: str, values: Array) -> Array:
    """Images as uint8: bytes, or whole numbers in 0..255.

    Raises:
        ShapeMismatchError: for anything else, with what makes bytes of it.
    """
    if values.dtype == np.uint8:
        return values
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if values.dtype.kind in "iu" and low >= 0 and high <= 255:
        return values.astype(np.uint8)
    hint = f"scale {name} to 0..255, then {name}.astype(np.uint8)"
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        hint = f"np.rint(255 * {name}).astype(np.uint8)"
    raise ShapeMismatchError(
        f"replay column {name!r} got {values.dtype}; images are kept as uint8", hint=hint
    )


def row_bytes(specs: Mapping[str, ColumnSpec]) -> int:
    """Bytes of one row of one stream."""
    small, large = _layout(specs)
    return small.itemsize + sum(math.prod(s) * dtype.itemsize for s, dtype in large.values())


@dataclass(frozen=True)
class Rows:
    """Zeroed rows `[rows, num_envs]`: small columns side by side in a record, large ones apart.

    A sampled row then touches one or two lines of memory, not one for each column; and an image is
    copied once, not twice.
    """

    records: Array
    large: dict[str, Array]

    def columns(self) -> dict[str, Array]:
        """Views of every column `[rows, num_envs, ...]`."""
        return {**{name: self.records[name] for name in self._names()}, **self.large}

    def flat(self) -> Rows:
        """The same memory with one axis over steps and streams, `[rows * num_envs]`."""
        large = {name: column.reshape(-1, *column.shape[2:]) for name, column in self.large.items()}
        return Rows(self.records.reshape(-1), large)

    def take(self, places: NDArray[np.int64], names: Sequence[str]) -> dict[str, Array]:
        """Contiguous copies of these columns at these places of a flat one (as `numpy.take`)."""
        cells = self._cells.take(places)
        found: dict[str, Array] = {}
        for name in names:
            if name in self.large:
                found[name] = self.large[name].take(places, axis=0)
            else:
                found[name] = cells[name].copy().view(self.records.dtype[name])
        return found

    @functools.cached_property
    def _cells(self) -> Array:
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

    def _names(self) -> tuple[str, ...]:
        return self.records.dtype.names or ()


def allocate(
    specs: Mapping[str, ColumnSpec], rows: int, num_envs: int, folder: Path | None
) -> Rows:
    """Rows for these columns: in memory, or mapped from a file in `folder`.

    The file has no name: the system frees it with the process, however that ends, so that a
    resumed run never meets rows that are newer than its checkpoint. Its space is claimed at once,
    because a full disk met later, through the mapping, would end the process without a word.

    Raises:
        ConfigurationError: when the disk has no room for it.
    """
    small, apart = _layout(specs)
    types = {
        "": small,
        **{name: np.dtype((dtype, shape)) for name, (shape, dtype) in apart.items()},
    }
    if folder is None:
        made = {name: np.zeros((rows, num_envs), dtype) for name, dtype in types.items()}
        return Rows(made.pop(""), made)
    offsets, total = {}, 0
    for name, dtype in types.items():
        offsets[name] = total
        total += -(-rows * num_envs * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
    mapped = _map_scratch(folder, total)
    made = {
        name: np.ndarray((rows, num_envs), dtype, buffer=mapped, offset=offsets[name])
        for name, dtype in types.items()
    }
    return Rows(made.pop(""), made)


def _layout(specs: Mapping[str, ColumnSpec]) -> tuple[np.dtype[Any], dict[str, ColumnSpec]]:
    """The record of the small columns, and the columns that stand apart.

    SINCE_FIRST is read of many more rows than are sampled: close together they stay in the cache.
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
            free = shutil.disk_usage(folder).free
            raise ConfigurationError(
                f"the memory-mapped replay needs {size:,} bytes; {free:,} are free "
                f"({error.strerror})",
                where=str(folder),
                hint="free disk space, or set a smaller data.buffer_capacity",
            ) from None
        return mmap.mmap(file.fileno(), size)


def _claim(file: int, size: int) -> None:
    """Take up the space of a file on the disk; where the system has no call for it, with zeros."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    zeros = memoryview(bytes(min(size, _ZEROS_BYTES)))
    while size > 0:  # macOS
        size -= os.write(file, zeros[:size])
