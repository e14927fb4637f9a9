"""Checkpoints on disk: written aside, flushed, renamed; each file's hash in a manifest.

The last checkpoint is computed (highest step whose hashes hold): there is no pointer to tear.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from worldflux.alpha import refuse_saved
from worldflux.core.saved_model import load_tensors, save_tensors
from worldflux.errors import CheckpointError, ConfigurationError
from worldflux.files import (
    finite,
    read_json_object,
    require_free,
    sha256_of,
    sync_file,
    write_json,
    written_or_told,
)
from worldflux.layout import CHECKPOINTS, RUN_MANIFEST

FORMAT = 1
MANIFEST = "manifest.json"
STATE_FILE = "state.json"
BEST, LAST = "best", "last"
MIN_KEPT = 2
_NAME = re.compile(r"step-(\d{9})")
_REPLACED = re.compile(r"\.tmp-replaced-(step-\d{9})-")
_MAX_MANIFEST_BYTES = 16 << 20
_TENSOR = "tensor"
_OWN_HASH = "sha256"
_FIRST_ENTRIES = {"format", "step", "files", "model"}
_MOST_LISTED = 8


def steps_of(names: Iterable[str]) -> list[int]:
    """The steps, ascending, of those names that are checkpoints'."""
    matches = (_NAME.fullmatch(name) for name in names)
    return sorted(int(match.group(1)) for match in matches if match)


class CheckpointStore:
    """The checkpoints below one folder, which is made when the first one is saved.

    At least two of the newest are kept, so that one damaged checkpoint is never the only one.
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

        Raises StorageError when the disk is full (nothing is written when fewer than
        `needed_bytes` are free); earlier checkpoints stay intact.
        """
        target = self.path(step)
        partial = self.root / f".tmp-{target.name}-{os.getpid()}"
        replaced = self.root / f".tmp-replaced-{target.name}-{os.getpid()}"
        with written_or_told(self.root, needed_bytes):
            self.root.mkdir(parents=True, exist_ok=True)
            self.remove_partial()
            require_free(self.root, needed_bytes)
            try:
                partial.mkdir()
                write(partial)
                _seal(partial, {"format": FORMAT, "step": step, **(details or {})})
                if target.exists():  # of an earlier run; the new one takes its place
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
        return steps_of(path.name for path in self.root.iterdir())

    def path(self, step: int) -> Path:
        """Folder of the checkpoint at a step."""
        return self.root / f"step-{step:09d}"

    def newest_valid(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint whose hashes hold, and what is wrong with newer ones."""
        problems: list[str] = []
        for step in reversed(self.steps()):
            try:
                check(self.path(step))
            except CheckpointError as error:
                problems.append(str(error))
                continue
            return self.path(step), problems
        return None, problems

    def chosen(self, path: str | Path, report: Callable[[str], None]) -> Path:
        """The checkpoint folder at `path`, checked, or the newest valid one here for "last".

        Each damaged one that is skipped is reported.
        """
        self.remove_partial()
        if str(path) != LAST:
            refuse_saved(Path(path))
            check(Path(path))
            return Path(path)
        found, problems = self.newest_valid()
        for problem in problems:
            report(f"{problem}; the checkpoint before it is used")
        if found is None:
            raise CheckpointError("there is no valid checkpoint", where=str(self.root))
        return found

    def prune(self, step: int, keep: set[int]) -> None:
        """Remove all but the newest `keep_last` up to a step, and those in `keep`.

        What lies ahead of it was abandoned by a return to an earlier checkpoint.
        """
        steps = self.steps()
        newest = [each for each in steps if each <= step][-self.keep_last :]
        for each in set(steps) - keep - set(newest):
            shutil.rmtree(self.path(each), ignore_errors=True)

    def remove_partial(self) -> None:
        """Remove what a crash left half-written; put back what it was about to replace."""
        for path in self.root.glob(".tmp-*"):
            replaced = _REPLACED.match(path.name)
            if replaced and not (self.root / replaced.group(1)).exists():
                os.rename(path, self.root / replaced.group(1))
            else:
                shutil.rmtree(path, ignore_errors=True)


def _seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Flush every file of a folder and write its manifest, with their hashes and its own."""
    manifest["files"] = {path.name: _entry_of(path) for path in sorted(folder.iterdir())}
    _write_manifest(folder, manifest)


def _entry_of(path: Path) -> dict[str, Any]:
    """A file's size and hash, once it is on the disk."""
    sync_file(path)
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    write_json(folder / MANIFEST, {**manifest, _OWN_HASH: _hash_of(manifest)})


def add_state(folder: Path, name: str, state: dict[str, Any]) -> None:
    """Write further state into a finished checkpoint (`write_state`), hashed as its other files.

    While it is written no manifest names it: a crash leaves the checkpoint intact, without it.
    """
    manifest, path = check(folder), folder / name
    places = [path, path.with_suffix(".safetensors")]
    manifest["files"] = {
        known: entry
        for known, entry in manifest["files"].items()
        if known not in [place.name for place in places]
    }
    _write_manifest(folder, manifest)
    with written_or_told(folder):
        write_state(path, state)
        manifest["files"] |= {place.name: _entry_of(place) for place in places if place.exists()}
    _write_manifest(folder, manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint folder; CheckpointError when missing, damaged or newer."""
    path = folder / MANIFEST
    try:
        if path.exists() and (path.is_symlink() or not path.is_file()):
            raise CheckpointError("the manifest is not a regular file", where=str(path))
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
    """Check every file of a checkpoint against its manifest, which is returned.

    Raises CheckpointError for the first file that is missing, foreign or damaged.
    """
    manifest = read_manifest(folder)
    for name, entry in manifest["files"].items():
        path = folder / name
        if Path(name).name != name or path.is_symlink() or not path.is_file():
            raise CheckpointError(f"checkpoint file {name!r} is missing", where=str(folder))
        expected = entry if isinstance(entry, dict) else {}
        size, digest = expected.get("bytes"), expected.get("sha256")
        if path.stat().st_size != size or sha256_of(path) != digest:
            raise CheckpointError(f"checkpoint file {name!r} is damaged", where=str(folder))
    return manifest


# ------------------------------------------------------------------ which checkpoint of a run


def store_of(run: Path) -> CheckpointStore:
    """The checkpoints of a run folder, or of a folder that itself holds them."""
    inner = run / CHECKPOINTS
    return CheckpointStore(inner if inner.is_dir() else run)


def checkpoint_of(run: Path, wanted: str = BEST) -> Path:
    """The folder of a run's checkpoint, its hashes checked: one rule for every command.

    `wanted` is "best" by evaluation return (the newest where no evaluation named one), "last" for
    the newest intact one, an update (3000), the name of a checkpoint, or its path. Raises
    CheckpointError when it is missing or damaged, listing those that exist.
    """
    store = store_of(run)
    step = _best_step(run) if wanted == BEST else None
    try:
        if step is not None and step not in store.steps():
            raise CheckpointError(
                f"the best checkpoint, {store.path(step).name}, is missing", where=str(store.root)
            )
        if step is None and wanted in (BEST, LAST):
            return _newest(store)
        path = store.path(step) if step is not None else _named(store, run, wanted)
        check(path)
    except CheckpointError as error:
        if steps := [str(step) for step in store.steps()]:
            listed = ["..."] * (len(steps) > _MOST_LISTED) + steps[-_MOST_LISTED:]
            error.hint = f"--checkpoint last, or one of {', '.join(listed)}"
        raise
    return path


def _newest(store: CheckpointStore) -> Path:
    path, problems = store.newest_valid()
    if path is not None:
        return path
    found = f"no checkpoint here is intact: {problems[0]}" if problems else "no checkpoint yet"
    raise CheckpointError(found, where=str(store.root))


def _named(store: CheckpointStore, run: Path, wanted: str) -> Path:
    places = [store.root / wanted, Path(wanted), run / wanted]
    number = wanted.removeprefix("step-")
    if number.isdecimal():
        places.insert(0, store.path(int(number)))
    for place in places:
        if place.is_dir() and (_NAME.fullmatch(place.name) or (place / MANIFEST).exists()):
            return place
    refusal = CheckpointError(f"there is no checkpoint {wanted!r}", where=str(store.root))
    refusal.exit_code = ConfigurationError.exit_code  # the name is wrong, and no checkpoint is
    raise refusal


def _best_step(run: Path) -> int | None:
    """The update of the best checkpoint that run_manifest.json names, if it names one."""
    manifest = run / RUN_MANIFEST
    if not manifest.is_file():
        return None
    try:
        best = read_json_object(manifest, "run manifest", _MAX_MANIFEST_BYTES).get("best")
        return None if not best else int(best["step"])
    except (ConfigurationError, KeyError, TypeError, ValueError):
        raise CheckpointError(
            "run_manifest.json does not say which checkpoint is the best", where=str(manifest)
        ) from None


# ------------------------------------------------------------------ the state inside of one


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write state as JSON, and its tensors as safetensors with the same name.

    A tensor in the JSON is an object with the one key "tensor": its name in that file.
    """
    text, tensors = as_json(finite(state), allow_nan=False)
    if tensors:
        save_tensors(tensors, path.with_suffix(".safetensors"))
    path.write_text(text, encoding="utf-8")


def as_json(state: Any, *, allow_nan: bool = True) -> tuple[str, dict[str, Tensor]]:
    """State as JSON, and the tensors that it points to by name."""
    tensors: dict[str, Tensor] = {}

    def pointer(value: Any) -> dict[str, str]:
        if not isinstance(value, Tensor):
            raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")
        tensors[str(len(tensors))] = value
        return {_TENSOR: str(len(tensors) - 1)}

    return json.dumps(state, default=pointer, allow_nan=allow_nan), tensors


def of_json(text: str, tensors: dict[str, Tensor]) -> Any:
    """The state of which `as_json` made a text and tensors."""

    def put_back(value: dict[str, Any]) -> Any:
        return tensors[value[_TENSOR]] if value.keys() == {_TENSOR} else value

    return json.loads(text, object_hook=put_back)


def read_state(path: Path) -> dict[str, Any]:
    """Read what `write_state` wrote; CheckpointError when it is missing or damaged."""
    if path.is_symlink() or not path.is_file():
        raise CheckpointError("the state is not a regular file", where=str(path))
    tensor_file = path.with_suffix(".safetensors")
    tensors = load_tensors(tensor_file) if tensor_file.exists() else {}
    try:
        return dict(of_json(path.read_text(encoding="utf-8"), tensors))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise CheckpointError("the checkpoint's state is damaged", where=str(path)) from None
