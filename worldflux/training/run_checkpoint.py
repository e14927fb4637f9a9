"""Which checkpoint of a run is meant: one rule for every command and for `create_world_model`."""

from __future__ import annotations

from pathlib import Path

from worldflux.errors import CheckpointError, ConfigurationError
from worldflux.files import read_json_object

from .checkpoints import LAST, CheckpointStore, check, checkpoint_name

BEST = "best"
_MAX_MANIFEST_BYTES = 16 << 20
_MOST_NAMED = 8


def store_of(run: Path) -> CheckpointStore:
    """The checkpoints of a run folder, or of a folder that itself holds them."""
    inner = run / "checkpoints"
    return CheckpointStore(inner if inner.is_dir() else run)


def checkpoint_of(run: Path, wanted: str = BEST) -> Path:
    """The folder of the checkpoint that is meant, its hashes checked.

    In Python the folder itself can be opened instead: `create_world_model(".../step-000003000")`.

    Args:
        wanted: "best" by evaluation return (the newest where no evaluation named one), "last" for
            the newest intact one, an update (3000), the name of a checkpoint, or its path.

    Raises:
        CheckpointError: when it is missing or damaged, with those that exist.
    """
    store = store_of(run)
    step = _best_step(run) if wanted == BEST else None
    try:
        if step is not None and step not in store.steps():
            raise CheckpointError(
                f"the best checkpoint, {checkpoint_name(step)}, is missing", where=str(store.root)
            )
        if step is None and wanted in (BEST, LAST):
            return _newest(store)
        path = store.path(step) if step is not None else _named(store, run, wanted)
        check(path)
    except CheckpointError as error:
        if store.steps():
            error.hint = f"--checkpoint last, or one of {_listed(store)}"
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
        if place.is_dir():
            return place
    raise CheckpointError(f"there is no checkpoint {wanted!r}", where=str(store.root))


def _listed(store: CheckpointStore) -> str:
    steps = [str(step) for step in store.steps()]
    return ", ".join(["..."] * (len(steps) > _MOST_NAMED) + steps[-_MOST_NAMED:])


def _best_step(run: Path) -> int | None:
    """The update of the best checkpoint, as run_manifest.json names it; None where none is named.

    Raises:
        CheckpointError: when the file names none in a way that it should not.
    """
    manifest = run / "run_manifest.json"
    if not manifest.is_file():
        return None
    try:
        best = read_json_object(manifest, "run manifest", _MAX_MANIFEST_BYTES).get("best")
        return None if not best else int(best["step"])
    except (ConfigurationError, KeyError, TypeError, ValueError):
        raise CheckpointError(
            "run_manifest.json does not say which checkpoint is the best", where=str(manifest)
        ) from None
