"""The arrays of files of recorded steps, npz and HDF5, by their names there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from worldflux.errors import CheckpointError, ConfigurationError
from worldflux.optional import require

from .replay_storage import MAX_NPZ_BYTES, read_npz


def npz_columns(path: Path, what: str = "an npz file of recorded steps") -> dict[str, Any]:
    """The arrays of an npz file, which should be `what`, by name."""
    try:
        return read_npz(path, what, MAX_NPZ_BYTES)
    except CheckpointError as error:
        raise ConfigurationError(error.message, where=error.where) from None


def hdf5_columns(path: Path) -> dict[str, Any]:
    """The data sets of a file by their paths; they are read one episode at a time."""
    require("an HDF5 file", "hdf5", "h5py")
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ConfigurationError(f"not an HDF5 file: {error}", where=str(path)) from None
    return dict(_data_sets(file, h5py))


def _data_sets(
    group: Any, h5py: Any, path: str = "", above: tuple[Any, ...] = ()
) -> Iterator[tuple[str, Any]]:
    """Those of a group by path, under each name that is no link to another place or file."""
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        item = group[name]
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            yield path + name, item
        elif isinstance(item, h5py.Group) and item not in above:
            yield from _data_sets(item, h5py, f"{path}{name}/", (*above, item))
