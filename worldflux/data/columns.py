"""The columns of a replay: names, shapes and bytes, in memory or in a mapped scratch file."""

from __future__ import annotations

import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldflux.errors import ConfigurationError

Array = NDArray[Any]
Shapes = tuple[int, ...] | Mapping[str, tuple[int, ...]]
ColumnSpec = tuple[tuple[int, ...], np.dtype[Any]]

OBS = "obs/"
EXTRA = "extra/"
SINCE_FIRST = "since_first"  # rows since the stream's last is_first
FLAGS = ("is_first", "is_last", "is_terminal")
_ALIGNMENT = 64


def column_specs(
    obs_shape: Shapes, action_dim: int, extra_columns: Mapping[str, tuple[int, ...]]
) -> dict[str, ColumnSpec]:
    """Shape and type of every column of one row; images (rank 3) are uint8, the rest float32."""
    shapes = dict(obs_shape) if isinstance(obs_shape, Mapping) else {"": tuple(obs_shape)}
    flag, real = np.dtype(np.bool_), np.dtype(np.float32)
    specs: dict[str, ColumnSpec] = {}
    for name, shape in shapes.items():
        specs[OBS + name] = (tuple(shape), np.dtype(np.uint8) if len(shape) == 3 else real)
    specs["action"] = ((action_dim,), real)
    specs["reward"] = ((), real)
    specs.update(dict.fromkeys(FLAGS, ((), flag)))
    specs[SINCE_FIRST] = ((), np.dtype(np.int32))
    specs.update({EXTRA + name: (tuple(shape), real) for name, shape in extra_columns.items()})
    return specs


def row_bytes(specs: Mapping[str, ColumnSpec]) -> int:
    """Bytes of one row of one stream."""
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in specs.values())


def allocate(
    specs: Mapping[str, ColumnSpec], rows: int, num_envs: int, folder: Path | None
) -> dict[str, Array]:
    """Zeroed columns `[rows, num_envs, ...]`: in memory, or mapped from a file in `folder`.

    The file has no name: the system frees it with the process, however that ends, so that a
    resumed run never meets rows that are newer than its checkpoint. Its space is claimed at once,
    because a full disk met later, through the mapping, would end the process without a word.

    Raises:
        ConfigurationError: when the disk has no room for it.
    """
    shapes = {name: (rows, num_envs, *shape) for name, (shape, _) in specs.items()}
    if folder is None:
        return {name: np.zeros(shapes[name], dtype) for name, (_, dtype) in specs.items()}
    offsets, total = {}, 0
    for name, (_, dtype) in specs.items():
        offsets[name] = total
        size = math.prod(shapes[name]) * dtype.itemsize
        total += -(-size // _ALIGNMENT) * _ALIGNMENT
    mapped = _map_scratch(folder, total)
    return {
        name: np.frombuffer(
            mapped, dtype, count=math.prod(shapes[name]), offset=offsets[name]
        ).reshape(shapes[name])
        for name, (_, dtype) in specs.items()
    }


def _map_scratch(folder: Path, size: int) -> mmap.mmap:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            free = shutil.disk_usage(folder).free
            raise ConfigurationError(
                f"the memory-mapped replay needs {size:,} bytes; {free:,} are free "
                f"({error.strerror})",
                where=str(folder),
                hint="free disk space, or set a smaller data.buffer_capacity",
            ) from None
        return mmap.mmap(file.fileno(), size)
