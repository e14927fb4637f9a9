"""What a save leaves when the process dies in it, a bit turns over or the disk is full."""

from __future__ import annotations

import copy
import errno
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any

from projects import copied, finished, in_parallel, name_of, run, write_project

from worldflux.data.replay import ReplayBuffer
from worldflux.envs.make import make_environment
from worldflux.envs.vector import VectorEnvironment
from worldflux.errors import CheckpointError
from worldflux.factory import create_world_model
from worldflux.training import Trainer, TrainingConfig
from worldflux.training.checkpoints import CheckpointStore, check
from worldflux.training.data import fill_with_noise

_EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"}
_DIED = 77


def small_trainer(output: Path, updates: int = 1) -> Trainer:
    """A TD-MPC2 trainer on noise that has saved after each of `updates` updates."""
    overrides = {"obs_shape": (3,), "action_dim": 1, "horizon": 2}
    config = TrainingConfig(
        total_steps=10,
        batch_size=4,
        save_interval=1,
        output_dir=str(output),
        device="cpu",
    )
    trainer = Trainer(create_world_model("tdmpc2:ci", **overrides), config)
    trainer.train(noise(), num_steps=updates)
    return trainer


def noise() -> ReplayBuffer:
    """A replay of random rows of Pendulum, the same each time."""
    return copy.deepcopy(_noise())


@cache
def _noise() -> ReplayBuffer:
    buffer = ReplayBuffer(200, (3,), 1, seed=0)
    envs = VectorEnvironment("Pendulum-v1", lambda i: make_environment("Pendulum-v1"), 1)
    fill_with_noise(buffer, envs.spec, 150, seed=0)
    envs.close()
    return buffer


# ------------------------------------------------------------------ crash at every event


def crash_at_every_event(folder: Path, short: bool = False, jobs: int = 1) -> list[dict[str, bool]]:
    """Die at the n-th file-system event of a save, for each n; what held after each crash.

    In the short form only every eighth crash is followed by a resume and another save.
    """
    trainer = small_trainer(folder / "run", updates=3)  # the next save removes the oldest one too
    counted = copied(folder / "run", folder / "counted")
    trainer.store.root = counted / "checkpoints"
    log = folder / "count.txt"
    assert finished(lambda: _save_and_die(trainer, None), log) == 0, log.read_text()
    events = int(log.read_text().split()[-1])

    def crash(number: int) -> dict[str, bool]:
        root = copied(folder / "run", folder / f"event-{number}")
        trainer.store.root = root / "checkpoints"
        log = folder / f"event-{number}.log"
        code = finished(lambda: _save_and_die(trainer, number), log)
        assert code == _DIED, log.read_text()
        store = CheckpointStore(root / "checkpoints")
        newest, problems = store.newest_valid()
        again = True
        if not short or number % 8 == 0:
            again = finished(lambda: _resume_and_save(root), log) == 0
        found = {
            "a valid checkpoint remains": newest is not None and not problems,
            "two valid ones remain": sum(map(_valid, store.steps(), repeat(store))) >= 2,
            "the next save works": again,
        }
        shutil.rmtree(root)
        return found

    return in_parallel(crash, events, jobs, folder, "events")


def _valid(step: int, store: CheckpointStore) -> bool:
    try:
        check(store.path(step))
    except CheckpointError:
        return False
    return True


def _save_and_die(trainer: Trainer, at: int | None) -> None:
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(arguments[1], str) and arguments[1][0] in "wax"
        if writes or event in _EVENTS:
            if seen == at:
                os._exit(_DIED)
            seen += 1

    fsync = os.fsync

    def flush(descriptor: int) -> None:  # a flush raises no audit event
        hook("os.truncate", ())
        fsync(descriptor)

    os.fsync = flush  # type: ignore[assignment]
    sys.addaudithook(hook)
    trainer.train(noise(), num_steps=1)
    print(seen)


def _resume_and_save(root: Path) -> int:
    config = TrainingConfig(total_steps=10, batch_size=4, output_dir=str(root), device="cpu")
    model = create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=1, horizon=2)
    trainer = Trainer(model, config)
    trainer.train(noise(), num_steps=1, resume_from="last")
    left = list((root / "checkpoints").glob(".tmp-*"))
    return 0 if trainer.store.steps()[-1] == trainer.step and not left else 1


# ------------------------------------------------------------------ bit flips


def bit_flips(folder: Path, trials: int) -> dict[str, int]:
    """Turn one bit of a random file of the newest checkpoint: refused by name, the other used."""
    trainer = small_trainer(folder / "flips", updates=3)
    store, rng = trainer.store, random.Random(3)
    newest, before = store.path(3), store.path(2)
    files = sorted(newest.iterdir())
    named = fell_back = 0
    for _ in range(trials):
        path = rng.choice(files)
        data = bytearray(path.read_bytes())
        place = rng.randrange(len(data))
        bit = 1 << rng.randrange(8)
        data[place] ^= bit
        path.write_bytes(data)
        try:
            check(newest)
        except CheckpointError as error:
            named += path.name in str(error)
        found, problems = store.newest_valid()
        fell_back += found == before and len(problems) == 1
        data[place] ^= bit
        path.write_bytes(data)
    check(newest)
    return {"flips": trials, "named": named, "fell_back": fell_back}


# ------------------------------------------------------------------ a full disk


def disk_full(folder: Path, short: bool = False) -> dict[str, bool]:
    """The disk is full at each kind of write: the previous checkpoint stays, and it is reported."""
    reference = write_project(folder / "reference", "tdmpc2", steps=8)
    assert finished(lambda: run(reference), folder / "reference.log") == 0
    results = {}
    for place, fault in list(FAULTS.items())[:: 3 if short else 1]:
        root = write_project(folder / place.replace(" ", "-"), "tdmpc2", steps=8)
        log = root / "log.txt"
        code = finished(lambda r=root, f=fault: run_with(r, f), log)
        output = log.read_text()
        store = CheckpointStore(root / "outputs" / "checkpoints")
        newest, problems = store.newest_valid()
        kept = newest == store.path(4) and not problems
        clean = not [p for p in (root / "outputs").rglob("*") if ".tmp" in p.name]
        words = code == 1 and "StorageError" in output and "free" in output and "No space" in output
        words &= "bytes are needed" in output or place in SIZE_NOT_KNOWN
        went_on = finished(lambda r=root: run(r, resume=True), log) == 0
        same = final_weights(root) == final_weights(reference)
        results[place] = kept and clean and words and went_on and same
    return results


def final_weights(root: Path) -> bytes:
    """The weights after 8 updates; none where the run did not come so far."""
    path = root / "outputs" / "checkpoints" / name_of(8) / "model.safetensors"
    return path.read_bytes() if path.is_file() else b""


def run_with(root: Path, fault: Callable[[Path], None]) -> int:
    """Run with the fault from the first checkpoint on."""
    armed = {"on": False}
    first = root / "outputs" / "checkpoints" / name_of(4)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        manifest = event == "open" and ".run_manifest.json" in str(arguments[0])
        if manifest and not armed["on"] and first.is_dir():
            armed["on"] = True
            fault(root)

    sys.addaudithook(hook)
    return run(root)


def _answer(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def fail_event(wanted: str, part: str, number: int = errno.ENOSPC) -> Callable[[Path], None]:
    """A fault that the system answers with `number` at an event of files named like `part`."""

    def install(root: Path) -> None:
        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event != wanted or part not in str(arguments[0]):
                return
            if wanted != "open" or (isinstance(arguments[1], str) and arguments[1][0] in "wa"):
                raise _answer(number)

        sys.addaudithook(hook)

    return install


def _fail_flush(root: Path) -> None:
    def flush(descriptor: int) -> None:
        if "checkpoints" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise _answer(errno.ENOSPC)

    os.fsync = flush  # type: ignore[assignment]


def _no_bytes_left(root: Path) -> None:
    """A disk that reports nothing free, so that a save is refused before it begins."""
    usage = shutil.disk_usage

    def full(path: Any) -> Any:
        return usage(path)._replace(free=0)

    shutil.disk_usage = full  # type: ignore[assignment]


FAULTS: dict[str, Callable[[Path], None]] = {
    "free space": _no_bytes_left,
    "checkpoint write": fail_event("open", "state.json"),
    "checkpoint flush": _fail_flush,
    "checkpoint rename": fail_event("os.rename", ".tmp-step"),
    "replay rename": fail_event("os.rename", "chunk-"),
    "evaluation picture": fail_event("open", "imagination"),
    "manifest write": fail_event("open", ".run_manifest.json"),
}


# What of a run is written without its size being known before.
SIZE_NOT_KNOWN = {"replay rename", "evaluation picture"}


def metrics_full(folder: Path) -> bool:
    """The log cannot be written: reported, and earlier checkpoints are intact."""
    root = write_project(folder / "metrics", "tdmpc2", steps=8)
    log = root / "log.txt"
    code = finished(lambda: run_with(root, fail_event("open", "metrics.jsonl")), log)
    newest, problems = CheckpointStore(root / "outputs" / "checkpoints").newest_valid()
    manifest = json.loads((root / "outputs" / "run_manifest.json").read_text())
    reported = "metrics.jsonl" in manifest["reason"]
    reported &= all(word in log.read_text() for word in ("StorageError", "needed", "free"))
    return code == 1 and reported and newest is not None and not problems


def tmpfs_full(folder: Path) -> bool | None:
    """A real small file system fills up: None where this machine lets no one mount one."""
    mount = folder / "small"
    mount.mkdir()
    if os.system(f"mount -t tmpfs -o size=6m tmpfs {mount} 2>/dev/null") != 0:
        return None
    try:
        trainer = small_trainer(mount / "run", updates=1)
        (mount / "filler").write_bytes(b"\0" * (shutil.disk_usage(mount).free - 20_000))
        try:
            trainer.train(noise(), num_steps=1)
        except Exception as error:  # its kind is the result
            message = f"{type(error).__name__}: {error}"
        else:
            return False
        newest, problems = trainer.store.newest_valid()
        left = list(trainer.store.root.glob(".tmp-*"))
        whole = newest == trainer.store.path(1) and not problems and not left
        return whole and "StorageError" in message and "free" in message
    finally:
        os.system(f"umount {mount}")
