"""Checkpoints on disk: written aside, flushed, renamed; each file's hash in a manifest.

The last checkpoint is computed (highest step whose hashes hold): there is no pointer to tear.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from worldflux.alpha import refuse_saved
from worldflux.core.saved_model import load_tensors, save_tensors
from worldflux.errors import CheckpointError
from worldflux.files import (
    finite,
    require_free,
    sha256_of,
    sync_file,
    write_json,
    written_or_told,
)

FORMAT = 1
MANIFEST = "manifest.json"
STATE_FILE = "state.json"
LAST = "last"
MIN_KEPT = 2
_NAME = re.compile(r"step-(\d{9})")
_REPLACED = re.compile(r"\.tmp-replaced-(step-\d{9})-")
_MAX_MANIFEST_BYTES = 16 << 20
_TENSOR = "tensor"
_OWN_HASH = "sha256"
_FIRST_ENTRIES = {"format", "step", "files", "model"}


def checkpoint_name(step: int) -> str:
    """Folder name of the checkpoint at a gradient update."""
    return f"step-{step:09d}"


class CheckpointStore:
    """The checkpoints below one folder.

    Args:
        root: folder of the checkpoints; made when the first one is saved.
        keep_last: how many of the newest to keep, at least 2, so that one damaged checkpoint never
            is the only one.
    """

    def __init__(self, root: Path, keep_last: int = 3) -> None:
        self.root = root
        self.keep_last = max(MIN_KEPT, keep_last)

    def save(
        self,
        step: int,
        write: Callable[[Path], None],
        details: dict[str, Any] | None = None,
        *,
        needed_bytes: int = 0,
    ) -> Path:
        """Let `write` fill a folder aside, hash and flush it, and rename it into place.

        Raises:
            StorageError: when the disk does not take it (or has fewer than `needed_bytes` free, in
                which case nothing is written); every earlier checkpoint then stands.
        """
        with written_or_told(self.root, needed_bytes):
            self.root.mkdir(parents=True, exist_ok=True)
            self.remove_partial()
            require_free(self.root, needed_bytes)
            return self._save(step, write, details)

    def _save(
        self, step: int, write: Callable[[Path], None], details: dict[str, Any] | None
    ) -> Path:
        target = self.root / checkpoint_name(step)
        partial = self.root / f".tmp-{target.name}-{os.getpid()}"
        replaced = self.root / f".tmp-replaced-{target.name}-{os.getpid()}"
        try:
            partial.mkdir()
            write(partial)
            files = {}
            for path in sorted(partial.iterdir()):
                files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
                sync_file(path)
            manifest = {"format": FORMAT, "step": step, "files": files, **(details or {})}
            manifest[_OWN_HASH] = _hash_of(manifest)
            write_json(partial / MANIFEST, manifest)
            if target.exists():  # an earlier run of this step; the new one takes its place
                os.rename(target, replaced)
            os.rename(partial, target)
            sync_file(self.root)
        finally:
            self.remove_partial()
        return target

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending (not yet checked)."""
        if not self.root.is_dir():
            return []
        matches = (_NAME.fullmatch(path.name) for path in self.root.iterdir())
        return sorted(int(match.group(1)) for match in matches if match)

    def path(self, step: int) -> Path:
        """Folder of the checkpoint at a step."""
        return self.root / checkpoint_name(step)

    def newest_valid(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint whose files hold, and what was wrong with newer ones."""
        problems: list[str] = []
        for step in reversed(self.steps()):
            try:
                check(self.path(step))
            except CheckpointError as error:
                problems.append(str(error))
                continue
            return self.path(step), problems
        return None, problems

    def chosen(self, path: str | Path, tell: Callable[[str], None]) -> Path:
        """The checkpoint asked for, checked.

        Args:
            path: a checkpoint's folder, or "last" for the newest valid one here.
            tell: is told of each damaged one that is passed over.

        Raises:
            CheckpointError: when there is none, or the one named is damaged.
        """
        self.remove_partial()
        if str(path) != LAST:
            refuse_saved(Path(path))
            check(Path(path))
            return Path(path)
        found, problems = self.newest_valid()
        for problem in problems:
            tell(f"{problem}; the checkpoint before it is used")
        if found is None:
            raise CheckpointError("there is no valid checkpoint", where=str(self.root))
        return found

    def states(self) -> list[dict[str, Any]]:
        """The state of every checkpoint.

        Raises:
            CheckpointError: when one is damaged.
        """
        return [read_state(self.path(step) / STATE_FILE) for step in self.steps()]

    def prune(self, keep: set[int]) -> None:
        """Remove all but the newest `keep_last` and the steps in `keep`."""
        steps = self.steps()
        for step in steps[: -self.keep_last]:
            if step not in keep:
                shutil.rmtree(self.path(step), ignore_errors=True)

    def remove_partial(self) -> None:
        """Remove what a crash left half-written; put back what it was about to replace."""
        if not self.root.is_dir():
            return
        for path in self.root.glob(".tmp-*"):
            replaced = _REPLACED.match(path.name)
            if replaced and not (self.root / replaced.group(1)).exists():
                os.rename(path, self.root / replaced.group(1))
            else:
                shutil.rmtree(path, ignore_errors=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint folder.

    Raises:
        CheckpointError: when it is missing, damaged or of a newer format.
    """
    path = folder / MANIFEST
    try:
        if path.exists() and (path.is_symlink() or not path.is_file()):
            raise CheckpointError("the checkpoint's manifest is no regular file", where=str(path))
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise CheckpointError("the checkpoint's manifest is too large", where=str(path))
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = manifest["format"]
        files = manifest["files"]
        own = manifest.pop(_OWN_HASH, None)
    except OSError as error:
        raise CheckpointError(f"no checkpoint here: {error.strerror}", where=str(path)) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError("the checkpoint's manifest is damaged", where=str(path)) from None
    # The first manifests had no hash of their own; they had these entries and no other.
    if own != _hash_of(manifest) and (own is not None or manifest.keys() - _FIRST_ENTRIES):
        raise CheckpointError("the checkpoint's manifest is damaged", where=str(path))
    if found != FORMAT or not isinstance(files, dict):
        raise CheckpointError(
            f"the checkpoint has format {found!r}; this version reads {FORMAT}", where=str(path)
        )
    return dict(manifest)


def _hash_of(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def check(folder: Path) -> dict[str, Any]:
    """Check every file of a checkpoint against its manifest; returns the manifest.

    Raises:
        CheckpointError: naming the first file that is missing, foreign or damaged.
    """
    manifest = read_manifest(folder)
    files = manifest["files"]
    for name, expected in files.items():
        path = folder / name
        if Path(name).name != name or path.is_symlink() or not path.is_file():
            raise CheckpointError(f"checkpoint file {name!r} is missing", where=str(folder))
        told = expected if isinstance(expected, dict) else {}
        if path.stat().st_size != told.get("bytes") or sha256_of(path) != told.get("sha256"):
            raise CheckpointError(f"checkpoint file {name!r} is damaged", where=str(folder))
    return manifest


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write state inside a checkpoint that is still aside: JSON, its tensors in a file beside it.

    A tensor in the JSON is an object with the one key "tensor": its name in that file.
    """
    tensors: dict[str, Tensor] = {}
    plain = _set_apart(state, "state", tensors)
    if tensors:
        save_tensors(tensors, path.with_suffix(".safetensors"))
    path.write_text(json.dumps(finite(plain), allow_nan=False), encoding="utf-8")


def read_state(path: Path) -> dict[str, Any]:
    """Read the state of a checkpoint.

    Raises:
        CheckpointError: when it is missing or damaged.
    """
    if path.is_symlink() or not path.is_file():
        raise CheckpointError("the checkpoint's state is no regular file", where=str(path))
    beside = path.with_suffix(".safetensors")
    tensors = load_tensors(beside) if beside.exists() else {}
    try:
        return dict(_put_back(json.loads(path.read_text(encoding="utf-8")), tensors))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise CheckpointError("the checkpoint's state is damaged", where=str(path)) from None


def _set_apart(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[name] = value
        return {_TENSOR: name}
    if isinstance(value, dict):
        return {key: _set_apart(item, f"{name}/{key}", tensors) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_set_apart(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]
    return value


def _put_back(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _put_back(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_put_back(item, tensors) for item in value]
    return value
