"""A replay in one npz file: written whole, and read back into a buffer or as one; no pickle."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from worldflux.errors import CheckpointError
from worldflux.files import replacing

from .columns import EXTRA, OBS

if TYPE_CHECKING:
    from .replay import ReplayBuffer

MAX_NPZ_BYTES = 64 << 30  # of a file whose size nothing else limits
STEPS_WRITTEN, CAPACITY = "steps_written", "capacity"  # the cursor and the size, next to columns
_SEPARATOR = "|"  # instead of the "/" of column names inside the file
_SLACK_BYTES = 1 << 20  # headers and the cursor, over the arrays of a full buffer


def read_npz(path: Path, what: str, max_bytes: int) -> dict[str, np.ndarray]:
    """The arrays of an npz file by name, of any shape; `what` it should be is for messages.

    Raises CheckpointError for one that is missing, damaged, too large, or holds Python objects.
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


def write_replay(buffer: ReplayBuffer, target: Path) -> None:
    """Write every row that is held, aside first and then renamed."""
    arrays = buffer.rows(buffer.oldest_step, buffer.steps_written)
    named: dict[str, Any] = {n.replace("/", _SEPARATOR): v for n, v in arrays.items()}
    named |= {
        STEPS_WRITTEN: np.asarray(buffer.steps_written),
        CAPACITY: np.asarray(buffer.capacity),
    }
    with replacing(target) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **named)


def plain_columns(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns `[K, N, ...]` of a saved replay by their own names, without cursor and size."""
    others = (STEPS_WRITTEN, CAPACITY)
    return {n.replace(_SEPARATOR, "/"): v for n, v in found.items() if n not in others}


class Load:
    """`buffer.load(path)` reads rows that `save` wrote into that buffer; `ReplayBuffer.load(path)`
    makes a buffer of such a file or of recorded steps (docs/data.md), whose lone `dones` count as
    terminations, as those of `add_episode` do."""

    def __get__(self, buffer: ReplayBuffer | None, kind: type[ReplayBuffer]) -> Callable[..., Any]:
        return partial(_made_of, kind) if buffer is None else partial(_read_into, buffer)


def _read_into(buffer: ReplayBuffer, path: str | Path) -> None:
    """Read rows that `save` wrote into a buffer."""
    found = read_npz(Path(path), "a saved replay", buffer.size_bytes + _SLACK_BYTES)
    _restore(buffer, found, path)


def _restore(buffer: ReplayBuffer, found: dict[str, np.ndarray], path: str | Path) -> None:
    written = int(found.get(STEPS_WRITTEN, np.asarray(0)))
    arrays = plain_columns(found)
    if "reward" not in arrays or written < len(arrays["reward"]):
        raise CheckpointError(
            "not a saved replay",
            where=str(path),
            hint="ReplayBuffer.load(path), of the class, also takes recorded steps",
        )
    buffer.restore_rows(written - len(arrays["reward"]), arrays)


def _made_of(kind: type[ReplayBuffer], path: str | Path) -> ReplayBuffer:
    """A buffer of what a file holds; its sampler is seeded with 0."""
    found = read_npz(Path(path), "a saved replay", MAX_NPZ_BYTES)
    if STEPS_WRITTEN not in found:
        from .offline import replay_of
        from .recorded import NPZ, open_offline

        capacity = int(np.max(found.get(CAPACITY, 0)))
        return replay_of(open_offline(NPZ, str(path), dones="open"), kind, capacity)
    arrays = plain_columns(found)
    shapes = {n.removeprefix(OBS): v.shape[2:] for n, v in arrays.items() if n.startswith(OBS)}
    extras = {n.removeprefix(EXTRA): v.shape[2:] for n, v in arrays.items() if n.startswith(EXTRA)}
    if not shapes or "action" not in arrays or arrays["action"].ndim != 3:
        raise CheckpointError("not a saved replay", where=str(path))
    rows, streams, action_dim = arrays["action"].shape
    buffer = kind(
        int(found.get(CAPACITY, np.asarray(max(2, rows) * streams))),
        shapes[""] if shapes.keys() == {""} else shapes,
        action_dim,
        num_envs=streams,
        extra_columns=extras,
    )
    _restore(buffer, found, path)
    return buffer
