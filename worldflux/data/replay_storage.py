"""A replay on disk: append-only sealed files that checkpoints name, each written and hashed once.

New rows become `chunk` files. What a family wrote back into rows that are sealed already (the
latents of DreamerV3) becomes `written-back` files, read over the chunks in their order: one holds
each row that changed since the save before, once. When these would hold more than twice the rows
of the replay, one file with every sealed row takes their place; so what is written stays within
twice what is new, and what is kept within twice the replay.

A file's name ends with the start of its hash: a run that continues from an older checkpoint never
overwrites a file that a newer checkpoint names.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from worldflux.core.saved_model import load_tensors
from worldflux.errors import CheckpointError
from worldflux.files import sha256_of, sync_file

from .columns import EXTRA
from .replay import ReplayBuffer

CHUNK_BYTES = 128 << 20  # a larger piece of new rows becomes several files, read one at a time
_SUFFIX = ".safetensors"
_INDEX = "index"  # [K, 2]: step and stream of each row of a written-back file


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
    if not folder.is_dir():
        return
    named = {name for state in states for name in named_files(state)}
    for path in folder.glob(f"*{_SUFFIX}*"):
        if path.name not in named:
            path.unlink()


def named_files(state: Mapping[str, Any]) -> list[str]:
    """Names of the sealed files that a saved state needs; none for a source without a replay."""
    return [str(e["file"]) for kind in ("chunks", "written_back") for e in state.get(kind, [])]


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
