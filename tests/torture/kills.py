"""SIGKILL at random moments, and the ablations that show that the comparison sees every part."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from projects import (
    STEPS,
    copied,
    fingerprint,
    finished,
    forked,
    in_parallel,
    name_of,
    rehash,
    run,
    wait_for_work,
    write_project,
)

from worldflux.core.saved_model import load_tensors, save_tensors
from worldflux.training.callbacks import Callback
from worldflux.training.checkpoints import CheckpointStore, read_state, write_state
from worldflux.training.trainer import Trainer

# Checkpoints that ablations resume from. Episodes of both environments end before updates 7 and 14
# and rows are logged at 5, 10 and 15, so that each part of the state has something to lose.
MIDDLE, UNLOGGED = 10, 8


class Reference:
    """The uninterrupted run of a family: what it ends with and how much it works."""

    def __init__(self, folder: Path, family: str) -> None:
        self.family = family
        self.root = write_project(folder / f"{family}-reference", family)
        log, worked = folder / f"{family}-reference.log", folder / f"{family}-seconds"

        def timed() -> int:
            code = run(self.root)
            worked.write_text(str(time.process_time()))
            return code

        code = finished(timed, log)
        assert code == 0, log.read_text()
        self.working_s = float(worked.read_text())
        self.fingerprint = fingerprint(self.root)


def kill_trial(reference: Reference, root: Path, seed: int) -> dict[str, Any]:
    """Kill a run up to three times, let it end; what was lost, and whether the end is the same."""
    rng = random.Random(seed)
    write_project(root, reference.family)
    store = CheckpointStore(root / "outputs" / "checkpoints")
    kills, lost, newest = 0, 0, 0
    for _ in range(3):
        pid = forked(lambda: _go_on(root), root / "log.txt")
        wait_for_work(pid, rng.uniform(0.0, reference.working_s))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            break
        kills += 1
        found, problems = store.newest_valid()
        step = 0 if found is None else int(found.name.removeprefix("step-"))
        lost += step < newest or bool(problems)
        newest = step
    code = finished(lambda: _go_on(root), root / "log.txt")
    same = code == 0 and fingerprint(root) == reference.fingerprint
    leftovers = [str(p) for p in (root / "outputs").rglob("*.tmp*")]
    return {"kills": kills, "lost": lost, "exit": code, "same": same, "leftovers": leftovers}


def _go_on(root: Path) -> int:
    if (root / "outputs" / "run_manifest.json").is_file():
        done = (root / "outputs" / "checkpoints" / name_of(STEPS)).is_dir()
        manifest = json.loads((root / "outputs" / "run_manifest.json").read_text())
        return 0 if done and manifest["status"] == "completed" else run(root, resume=True)
    return run(root)


# ------------------------------------------------------------------ ablations


class StopAt(Callback):
    """Asks for a stop after an update, or (0) before the warm-up."""

    def __init__(self, update: int) -> None:
        self.update = update

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if trainer.step == self.update:
            trainer.request_stop()

    def on_step_begin(self, trainer: Trainer) -> None:
        if self.update == trainer.step == 0:
            trainer.request_stop()


def _edit_state(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(checkpoint: Path) -> None:
        state = read_state(checkpoint / "state.json")
        change(state)
        write_state(checkpoint / "state.json", state)

    return edit


def _edit_tensors(name: str, change: Callable[[dict[str, torch.Tensor]], None]) -> Any:
    def edit(checkpoint: Path) -> None:
        tensors = load_tensors(checkpoint / name)
        change(tensors)
        save_tensors(tensors, checkpoint / name)

    return edit


def _fresh_torch(tensors: dict[str, torch.Tensor]) -> None:
    tensors["torch"] = torch.Generator().manual_seed(5).get_state()


def _zero_buffers(tensors: dict[str, torch.Tensor]) -> None:
    for name in ("policy_scale", "return_normalizer.low_value", "return_normalizer.high_value"):
        if name in tensors:
            tensors[name] += 1.0


def _other_projector(tensors: dict[str, torch.Tensor]) -> None:
    tensors["projector.weight"] += 1.0


def _no_probe_moments(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if name.startswith("probe_decoder")]:
        del tensors[name]


def _no_count(tensors: dict[str, torch.Tensor]) -> None:
    tensors["update_count"].zero_()


def _no_experts(checkpoint: Path) -> None:
    state = read_state(checkpoint / "state.json")
    for entry in (*state["data"]["chunks"], *state["data"]["written_back"]):
        file = checkpoint.parents[1] / "replay" / entry["file"]
        tensors = load_tensors(file)
        for name in [name for name in tensors if name.endswith("expert_std")]:
            tensors[name].zero_()
        save_tensors(tensors, file)
        entry["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    write_state(checkpoint / "state.json", state)


def _python(state: dict[str, Any]) -> None:
    version, internal, gauss = random.Random(5).getstate()
    state["python_random"] = [version, list(internal), gauss]


def _numpy(state: dict[str, Any]) -> None:
    state["numpy_random"]["state"]["pos"] = 0


def _no_carry(state: dict[str, Any]) -> None:
    state["data"]["collector"]["position"]["carry"] = None


def _no_position(state: dict[str, Any]) -> None:
    state["data"]["collector"]["position"] = None


def _wrong_sampler(state: dict[str, Any]) -> None:
    state["data"]["sampler"]["state"]["state"] += 1


def _wrong_collector(state: dict[str, Any]) -> None:
    state["data"]["collector"]["rng"]["state"]["state"] += 1


def _no_env_steps(state: dict[str, Any]) -> None:
    state["data"]["collector"]["env_steps"] = 0


def _no_step(state: dict[str, Any]) -> None:
    state["step"] = 0


def _other_best(state: dict[str, Any]) -> None:
    state["best"]["return_mean"] += 1e9  # None would be seen only if the next one were worse


def _no_callbacks(state: dict[str, Any]) -> None:
    state["callbacks"] = {}


def _no_groups(state: dict[str, Any]) -> None:
    for groups in state["param_groups"].values():
        for group in groups:
            group["lr"], group["updates"] = group["lr"] / 2, 0


def _short_replay(state: dict[str, Any]) -> None:
    state["data"]["chunks"] = state["data"]["chunks"][1:]


def _no_written_back(state: dict[str, Any]) -> None:
    state["data"]["written_back"] = []


def _returns_lost(state: dict[str, Any]) -> None:
    position = state["data"]["collector"]["position"]
    position["returns"] = [0.0 for _ in position["returns"]]


# Part of the saved state -> (checkpoint to resume from, how the part is dropped from it).
PARTS: dict[str, tuple[int, Callable[[Path], None]]] = {
    "optimiser state": (MIDDLE, _edit_tensors("optimizers.safetensors", dict.clear)),
    "optimiser settings": (MIDDLE, _edit_state(_no_groups)),
    "torch's random stream": (MIDDLE, _edit_tensors("random.safetensors", _fresh_torch)),
    "Python's random stream": (MIDDLE, _edit_state(_python)),
    "numpy's random stream": (MIDDLE, _edit_state(_numpy)),
    "normaliser state": (MIDDLE, _edit_tensors("model.safetensors", _zero_buffers)),
    "projector": (MIDDLE, _edit_tensors("model.safetensors", _other_projector)),
    "probe's optimiser": (MIDDLE, _edit_tensors("optimizers.safetensors", _no_probe_moments)),
    "replay rows": (MIDDLE, _edit_state(_short_replay)),
    "written-back columns": (MIDDLE, _edit_state(_no_written_back)),
    "planner's experts": (MIDDLE, _no_experts),
    "update count of the model": (MIDDLE, _edit_tensors("model.safetensors", _no_count)),
    "replay sampler": (MIDDLE, _edit_state(_wrong_sampler)),
    "environment position": (MIDDLE, _edit_state(_no_position)),
    "acting memory": (MIDDLE, _edit_state(_no_carry)),
    "episode returns": (MIDDLE, _edit_state(_returns_lost)),
    "collection counter": (MIDDLE, _edit_state(_no_env_steps)),
    "update counter": (MIDDLE, _edit_state(_no_step)),
    "best score": (MIDDLE, _edit_state(_other_best)),
    "loggers": (UNLOGGED, _edit_state(_no_callbacks)),
    "collector's random stream": (0, _edit_state(_wrong_collector)),
}
# A part that other families have not: Adam's rates follow from the configuration at each update,
# LaProp counts its updates beside them.
ONLY = {
    "written-back columns": ("dreamer", "r2dreamer", "bmpc"),
    "optimiser settings": ("dreamer", "r2dreamer"),
    "projector": ("r2dreamer",),
    "probe's optimiser": ("r2dreamer",),
    "planner's experts": ("bmpc",),
    "update count of the model": ("bmpc",),
}


def ablations(reference: Reference, folder: Path, jobs: int = 1) -> dict[str, bool]:
    """For each part: whether a resume without it is seen; and that a resume with all is not."""
    family = reference.family
    stopped = {}
    for step in {step for step, _ in PARTS.values()}:
        root = write_project(folder / f"{family}-stopped-{step}", family)
        log = root / "log.txt"
        assert finished(lambda r=root, s=step: run(r, callbacks=[StopAt(s)]), log) == 0, log
        stopped[step] = root
    whole: list[tuple[str, int, Callable[[Path], None] | None]]
    whole = [(f"nothing dropped at {step}", step, None) for step in stopped]
    parts = [(part, *how) for part, how in PARTS.items() if family in ONLY.get(part, (family,))]
    cases = [*whole, *parts]

    def seen(number: int) -> bool:
        part, step, drop = cases[number]
        root = copied(stopped[step], folder / f"{family}-{part.replace(' ', '-')}")
        if drop is not None:
            checkpoint = root / "outputs" / "checkpoints" / name_of(step)
            drop(checkpoint)
            rehash(checkpoint)
        code = finished(lambda: run(root, resume=True), root / "log.txt")
        same = code == 0 and _same(root, reference)
        return same == (drop is None)

    found = in_parallel(seen, len(cases), jobs, folder, f"ablation {family}")
    return {part: held for (part, _, _), held in zip(cases, found, strict=True)}


def _same(root: Path, reference: Reference) -> bool:
    return fingerprint(root) == reference.fingerprint
