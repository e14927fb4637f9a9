"""Reading npz files from anywhere: no pickle, and the size checked before anything is unpacked."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldflux.errors import CheckpointError

MAX_NPZ_BYTES = 64 << 30  # of a file whose size nothing else limits


def read_npz(path: Path, what: str, max_bytes: int) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file by name, of any shape.

    Args:
        what: what the file should be, for messages.
        max_bytes: the most that it may unpack to.

    Raises:
        CheckpointError: when the file is missing, damaged, too large, or holds Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > max_bytes:
            raise CheckpointError(
                f"not {what} that fits: it unpacks to {unpacked:,} bytes, not to {max_bytes:,}",
                where=str(path),
            )
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"not {what}: {error}", where=str(path)) from None
