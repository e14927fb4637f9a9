"""What may happen around a run: a clock that is put back, folders that turn read-only."""

from __future__ import annotations

import errno
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kills import Reference, StopAt
from projects import (
    SAVE_INTERVAL,
    STEPS,
    bytes_below,
    copied,
    fingerprint,
    finished,
    name_of,
    run,
    write_project,
)
from saves import fail_event, final_weights, run_with

from worldflux import clock
from worldflux.core.world_model import WorldModel
from worldflux.factory import create_world_model
from worldflux.run_log import EVALUATIONS, METRICS, read_rows
from worldflux.training.checkpoints import CheckpointStore

# ------------------------------------------------------------------ the clock is put back

HOUR = 3600.0
MIDDLE = 10


def clock_put_back(reference: Reference, folder: Path) -> dict[str, bool]:
    """A run whose clock loses an hour at every look at it, and one resumed the day before it began.

    The clock is this process's `time.time`; that of the file system is put back by file times.
    """
    backwards = write_project(folder / "backwards", reference.family)
    code = finished(lambda: _on_clock(_backwards(), lambda: run(backwards)), folder / "log.txt")
    found = {"clock goes back in a run: the same end": _same(code, backwards, reference)}
    found["clock goes back in a run: its times do not"] = _times_hold(backwards)

    root = write_project(folder / "resumed", reference.family)
    log = folder / "resumed.txt"
    finished(lambda: run(root, callbacks=[StopAt(MIDDLE)]), log)
    _newest_look_oldest(root / "outputs" / "checkpoints")
    yesterday = itertools.repeat(-24 * HOUR)
    code = finished(lambda: _on_clock(yesterday, lambda: run(root, resume=True)), log)
    output = log.read_text()
    resumed = f"resuming at update {MIDDLE} " in output
    found["resumed a day before: from the newest step"] = resumed and _same(code, root, reference)
    found["resumed a day before: its times continue"] = (
        _times_hold(root) and "the clock is" in output
    )
    return found


def _on_clock(offsets: Iterator[float], work: Callable[[], int]) -> int:
    true = time.time
    time.time = lambda: true() + next(offsets)  # type: ignore[assignment]
    fresh = clock.Clock()  # a fork has its parent's, which began before
    clock.now, clock.not_before = fresh.now, fresh.not_before
    return work()


def _backwards() -> Iterator[float]:
    return (-HOUR * count for count in itertools.count())


def _newest_look_oldest(checkpoints: Path) -> None:
    for age, folder in enumerate(sorted(checkpoints.iterdir())):
        for path in (*folder.iterdir(), folder):
            os.utime(path, (1e9 - age, 1e9 - age))


def _same(code: int, root: Path, reference: Reference) -> bool:
    return code == 0 and fingerprint(root) == reference.fingerprint


def _times_hold(root: Path) -> bool:
    """Whether the times that a run wrote ascend, and its durations are none below zero."""
    outputs = root / "outputs"
    manifest = json.loads((outputs / "run_manifest.json").read_text())
    logs = [list(read_rows(outputs / name)) for name in (METRICS, EVALUATIONS)]
    saved = [
        json.loads((outputs / "checkpoints" / name_of(step) / "state.json").read_text())["saved_at"]
        for step in CheckpointStore(outputs / "checkpoints").steps()
    ]
    times = [[row["time"] for row in rows] for rows in logs] + [saved]
    durations = [row["wall_s"] for row in logs[0]]
    begun, ended = manifest["started_at"], manifest["updated_at"]
    return (
        all(one <= other for session in times for one, other in itertools.pairwise(session))
        and all(begun <= moment <= ended for session in times for moment in session)
        and all(0 <= one <= other for one, other in itertools.pairwise(durations))
        and 0 < manifest["wall_s"] < HOUR
    )


# ------------------------------------------------------------------ read-only folders


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A read-only mount of the folder on itself, which binds root too.

    Raises:
        OSError: where this machine lets no one mount.
    """
    if os.system(f"mount --bind {folder} {folder} 2>/dev/null") != 0:
        raise OSError(errno.EPERM, "no mounts here")
    try:
        _system(f"mount -o remount,bind,ro {folder}")
        yield
    finally:
        _system(f"umount {folder}")


def _system(command: str) -> None:
    assert os.system(command) == 0, command


def read_only_folders(folder: Path, short: bool = False) -> dict[str, bool]:
    """A read-only output folder at the start, on resume, for a reader, and at a save."""
    reference = write_project(folder / "reference", "tdmpc2", steps=STEPS // 2)
    assert finished(lambda: run(reference), folder / "reference.log") == 0
    found = _injected(folder, reference, short)
    try:
        with read_only(folder / "reference"):
            pass
    except OSError:
        return found
    return found | _mounted(folder, reference)


def _mounted(folder: Path, reference: Path) -> dict[str, bool]:
    log, found = folder / "log.txt", {}
    fresh = write_project(folder / "fresh", "tdmpc2", steps=STEPS // 2)
    (fresh / "outputs").mkdir()
    with read_only(fresh / "outputs"):
        refused = _refused(finished(lambda: run(fresh), log), log)
        found["mounted, at the start: refused"] = refused and not list(
            (fresh / "outputs").iterdir()
        )

    whole = copied(reference, folder / "whole")
    before = bytes_below(whole)
    with read_only(whole / "outputs"):
        refused = _refused(finished(lambda: run(whole, resume=True), log), log)
        model = create_world_model(whole / "outputs")
    found["mounted, resume: refused, nothing changed"] = refused and bytes_below(whole) == before
    found["mounted, a reader: the model opens"] = isinstance(model, WorldModel)

    for name in ("checkpoints", "replay"):
        root = write_project(folder / name, "tdmpc2", steps=STEPS // 2)
        finished(lambda r=root: run(r, callbacks=[StopAt(SAVE_INTERVAL)]), log)
        with read_only(root / "outputs" / name):
            code = finished(lambda r=root: run(r, resume=True), log)
            found[f"mounted, {name} at a save: reported"] = _stopped(code, root, log)
        found[f"{name} writable again: the same end"] = _goes_on(root, reference, log)
    return found


def _injected(folder: Path, reference: Path, short: bool) -> dict[str, bool]:
    """The same answers of the system at single files, by an audit hook."""
    found = {}
    cases = [(errno.EROFS, ".run_manifest.json"), (errno.EACCES, "state.json")]
    for number, part in (*cases, (errno.EROFS, "metrics.jsonl"))[: 1 if short else None]:
        name = f"{errno.errorcode[number]} at {part.strip('.')}"
        root = write_project(folder / name.replace(" ", "-"), "tdmpc2", steps=STEPS // 2)
        log = folder / "injected.txt"
        fault = fail_event("open", part, number)
        code = finished(lambda r=root, f=fault: run_with(r, f), log)
        found[name] = _stopped(code, root, log) and _goes_on(root, reference, log)
    return found


def _refused(code: int, log: Path) -> bool:
    output = log.read_text()
    return code == 2 and "RunFolderError" in output and "Read-only file system" in output


def _stopped(code: int, root: Path, log: Path) -> bool:
    """Whether the run ended with the reason and the remedy, and the previous checkpoint stays."""
    output = log.read_text()
    newest, problems = CheckpointStore(root / "outputs" / "checkpoints").newest_valid()
    whole = newest is not None and newest.name == name_of(SAVE_INTERVAL) and not problems
    return code == 1 and "StorageError" in output and "folder writable" in output and whole


def _goes_on(root: Path, reference: Path, log: Path) -> bool:
    code = finished(lambda: run(root, resume=True), log)
    return code == 0 and final_weights(root) == final_weights(reference)
