"""A replay in one npz file of its own: written whole, and read back into a buffer or as one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from worldflux.errors import CheckpointError
from worldflux.files import replacing

from .columns import EXTRA, OBS
from .npz_file import MAX_NPZ_BYTES, read_npz

if TYPE_CHECKING:
    from .replay import ReplayBuffer

STEPS_WRITTEN, CAPACITY = "steps_written", "capacity"  # the cursor and the size, beside the columns
_SEPARATOR = "|"  # stands for the "/" of column names inside the file
_SLACK_BYTES = 1 << 20  # headers and the cursor, over the arrays of a full buffer


def write_replay(buffer: ReplayBuffer, target: Path) -> None:
    """Write every row that is held, aside first and then renamed."""
    arrays = buffer.rows(buffer.oldest_step, buffer.steps_written)
    named: dict[str, Any] = {n.replace("/", _SEPARATOR): v for n, v in arrays.items()}
    named |= {
        STEPS_WRITTEN: np.asarray(buffer.steps_written),
        CAPACITY: np.asarray(buffer.capacity),
    }
    with replacing(target) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **named)


def plain_columns(found: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Columns `[K, N, ...]` of a saved replay by their own names, without cursor and size."""
    beside = (STEPS_WRITTEN, CAPACITY)
    return {n.replace(_SEPARATOR, "/"): v for n, v in found.items() if n not in beside}


class Load:
    """`buffer.load(path)` reads rows that `save` wrote into that buffer;
    `ReplayBuffer.load(path)` makes a buffer of a file.

    The file is one that `save` wrote, or recorded steps as docs/data.md describes them, whose lone
    `dones` count as terminations, as those of `add_episode` do.
    """

    @overload
    def __get__(
        self, buffer: None, kind: type[ReplayBuffer]
    ) -> Callable[[str | Path], ReplayBuffer]: ...
    @overload
    def __get__(
        self, buffer: ReplayBuffer, kind: type[ReplayBuffer]
    ) -> Callable[[str | Path], None]: ...
    def __get__(self, buffer: ReplayBuffer | None, kind: type[ReplayBuffer]) -> Any:
        return partial(_made_of, kind) if buffer is None else partial(_read_into, buffer)


def _read_into(buffer: ReplayBuffer, path: str | Path) -> None:
    """Read rows that `save` wrote into a buffer (no pickle).

    Raises:
        CheckpointError: when the file is missing, damaged, or of another layout.
    """
    found = read_npz(Path(path), "a saved replay", buffer.size_bytes + _SLACK_BYTES)
    _restore(buffer, found, path)


def _restore(buffer: ReplayBuffer, found: dict[str, NDArray[Any]], path: str | Path) -> None:
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
    """A buffer of what a file holds; its sampler is seeded with 0.

    Raises:
        CheckpointError, ConfigurationError: when the file is missing or damaged, or a column does
            not fit.
    """
    found = read_npz(Path(path), "a saved replay", MAX_NPZ_BYTES)
    if STEPS_WRITTEN not in found:
        from .offline import NPZ, open_offline, replay_of

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
