"""A replay on disk: sealed files that checkpoints name, or one npz file of a user.

Sealed files are append-only, each written and hashed once. New rows become `chunk` files. What a
family wrote back into rows that are sealed already (the latents of DreamerV3) becomes
`written-back` files, read over the chunks in their order: one holds each row that changed since the
save before, once. When these would hold more than twice the rows of the replay, one file with every
sealed row takes their place; so what is written stays within twice what is new, and what is kept
within twice the replay.

A file's name ends with the start of its hash: a run that continues from an older checkpoint never
overwrites a file that a newer checkpoint names.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from worldflux.core.saved_model import load_tensors
from worldflux.errors import CheckpointError
from worldflux.files import replacing, sha256_of, sync_file
from worldflux.layout import SHARD

from .columns import EXTRA, OBS

if TYPE_CHECKING:
    from .replay import ReplayBuffer

CHUNK_BYTES = 128 << 20  # a larger piece of new rows becomes several files, read one at a time
_SUFFIX = ".safetensors"
_INDEX = "index"  # [K, 2]: step and stream of each row of a written-back file
MAX_NPZ_BYTES = 64 << 30  # of a file whose size nothing else limits
SHARDS = "shards"  # of a saved state: those of each shard's replay
STEPS_WRITTEN, CAPACITY = "steps_written", "capacity"  # the cursor and the size, next to columns
_SEPARATOR = "|"  # instead of the "/" of column names inside the file
_SLACK_BYTES = 1 << 20  # headers and the cursor, over the arrays of a full buffer


class SealedFiles:
    """The sealed files of one buffer, in one folder at a time."""

    def __init__(self, buffer: ReplayBuffer) -> None:
        self.buffer = buffer
        self._chunks: list[dict[str, Any]] = []
        self._written_back: list[dict[str, Any]] = []

    def save(self, folder: Path) -> dict[str, Any]:
        """Seal what is new; returns the JSON-ready state that names every file still needed."""
        folder.mkdir(parents=True, exist_ok=True)
        buffer = self.buffer
        oldest, written = buffer.oldest_step, buffer.steps_written
        chunks = [chunk for chunk in self._chunks if chunk["stop"] > oldest]
        start = max(chunks[-1]["stop"] if chunks else 0, oldest)
        back = [entry for entry in self._written_back if entry["newest"] >= oldest]
        back += self._seal_written_back(folder, back, start)
        piece = max(1, CHUNK_BYTES * buffer.rows_per_env // buffer.size_bytes)
        for first in range(start, written, piece):
            stop = min(first + piece, written)
            sealed = _seal(folder, f"chunk-{first:012d}-{stop:012d}", buffer.rows(first, stop))
            chunks.append({**sealed, "start": first, "stop": stop})
        sync_file(folder)
        self._chunks, self._written_back = chunks, back
        buffer.written_back[:] = False
        return {
            "chunks": list(self._chunks),
            "written_back": list(self._written_back),
            "cursor": written,
            "sampler": dict(buffer.rng.bit_generator.state),
        }

    def restore(self, state: Mapping[str, Any], folder: Path) -> None:
        """Read the files back, each checked against its hash first, or raise CheckpointError."""
        buffer = self.buffer
        buffer.clear()
        try:
            chunks, back = list(state["chunks"]), list(state["written_back"])
            for chunk in chunks:
                if chunk is not chunks[0] and chunk["start"] != buffer.steps_written:
                    raise CheckpointError(
                        "saved replay chunks are out of order", where=str(chunk["file"])
                    )
                buffer.restore_rows(chunk["start"], _open(chunk, folder))
            for entry in back:
                rows = _open(entry, folder)
                _restore_extras(buffer, rows.pop(_INDEX), rows)
            whole = buffer.steps_written == state["cursor"]
            buffer.rng.bit_generator.state = dict(state["sampler"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"the saved state of the replay is damaged: {error!r}", where=str(folder)
            ) from None
        if not whole:
            raise CheckpointError("saved replay chunks are missing at the end", where=str(folder))
        self._chunks, self._written_back = chunks, back
        buffer.written_back[:] = False

    def _seal_written_back(
        self, folder: Path, kept: list[dict[str, Any]], sealed_until: int
    ) -> list[dict[str, Any]]:
        """Seal the rows that changed before `sealed_until` (later ones go into chunks); empties
        `kept` if the new file replaces them all."""
        buffer = self.buffer
        place, stream = np.nonzero(buffer.written_back)
        step = buffer.oldest_step + (place - buffer.oldest_step) % buffer.rows_per_env
        index = np.stack([step, stream], axis=-1)[step < sealed_until]
        if len(index) == 0:
            return []
        if sum(entry["rows"] for entry in kept) + len(index) > 2 * len(buffer):
            kept.clear()
            steps, streams = np.arange(buffer.oldest_step, sealed_until), np.arange(buffer.num_envs)
            index = np.stack(np.meshgrid(steps, streams, indexing="ij"), -1).reshape(-1, 2)
        newest = int(index[:, 0].max())
        cells = index[:, 0] % buffer.rows_per_env, index[:, 1]
        extras = {name: buffer.columns[EXTRA + name][cells] for name in buffer.extra_columns}
        sealed = _seal(folder, f"written-back-{newest:012d}", {_INDEX: index, **extras})
        return [{**sealed, "newest": newest, "rows": len(index)}]


def remove_unnamed(folder: Path, states: Iterable[Mapping[str, Any]]) -> None:
    """Delete the files below `folder` that none of these saved states names."""
    states = list(states)
    if not folder.is_dir():
        return
    for shard, _ in enumerate(states[0].get(SHARDS, ()) if states else ()):
        remove_unnamed(folder / SHARD.format(shard), [state[SHARDS][shard] for state in states])
    named = {name for state in states for name in named_files(state)}
    for path in folder.glob(f"*{_SUFFIX}*"):
        if path.name not in named:
            path.unlink()


def named_files(state: Mapping[str, Any]) -> list[str]:
    """Names of the sealed files that a saved state needs; none for a source without a replay."""
    parts = [state, state.get("recorded") or {}]  # of data that was recorded, next to collected
    kinds = [part.get(kind, []) for part in parts for kind in ("chunks", "written_back")]
    return [str(entry["file"]) for entries in kinds for entry in entries]


def _restore_extras(
    buffer: ReplayBuffer, index: np.ndarray, values: Mapping[str, np.ndarray]
) -> None:
    """Put back extra columns `[K, ...]` of the steps and streams `[K, 2]` that are still held."""
    expected = {n: (len(index), *shape) for n, shape in buffer.extra_columns.items()}
    if {name: value.shape for name, value in values.items()} != expected or (
        index.size and not 0 <= index[:, 1].min() <= index[:, 1].max() < buffer.num_envs
    ):
        raise CheckpointError("saved extra columns are not those of this buffer")
    held = (index[:, 0] >= buffer.oldest_step) & (index[:, 0] < buffer.steps_written)
    cells = index[held, 0] % buffer.rows_per_env, index[held, 1]
    for name, value in values.items():
        buffer.columns[EXTRA + name][cells] = value[held]


def _seal(folder: Path, stem: str, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    partial = folder / f".{stem}.{os.getpid()}{_SUFFIX}.tmp"
    try:
        save_file({name: np.ascontiguousarray(v) for name, v in columns.items()}, partial)
        sync_file(partial)
        digest = sha256_of(partial)
        name = f"{stem}-{digest[:16]}{_SUFFIX}"
        os.replace(partial, folder / name)
    finally:
        partial.unlink(missing_ok=True)
    return {"file": name, "sha256": digest}


def _open(entry: Mapping[str, Any], folder: Path) -> dict[str, np.ndarray]:
    name = str(entry["file"])
    path = folder / name
    if Path(name).name != name or path.is_symlink() or not path.is_file():
        raise CheckpointError("a replay file that the checkpoint names is missing", where=str(path))
    if sha256_of(path) != entry["sha256"]:
        raise CheckpointError("a replay file is damaged: its hash differs", where=str(path))
    return {key: value.numpy() for key, value in load_tensors(path).items()}


# --------------------------------------------------------------------------- npz files


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
