"""SIGKILLs sweep workers at random and compares their study with an undisturbed one.

    sweeps.py --kills 20              real runs, one worker with TPE and a pruner
    sweeps.py --kills 20 --workers 2  two workers on one study, random sampler, nothing pruned
    sweeps.py --fake                  runs of milliseconds, as tests/runs/test_sweep.py does

Every other kill also takes the run that the worker started. Prints what it found as JSON; exit code
0 when no trial was lost and both studies have the same trials, values and best.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FAKE = (sys.executable, str(Path(__file__).parents[1] / "runs" / "fake_train.py"))
PROJECT = """\
project_name = "kills"
environment = "Pendulum-v1"
model = "tdmpc2:ci"

[environment_kwargs]
max_episode_steps = 30

[architecture]
hidden_dim = 16
latent_dim = 16
num_samples = 8
num_elites = 4
num_pi_trajs = 2
iterations = 1

[training]
total_steps = 40
batch_size = 8
eval_interval = 20
save_interval = 5

[online_collection]
warmup_transitions = 60
pretrain = false

[evaluation]
episodes = 1

[gameplay]
enabled = false

[sweep]
trials = {trials}
sampler = "{sampler}"
pruner = "{pruner}"
sampler_options = {{ {sampler_options} }}
pruner_options = {{ {pruner_options} }}

[sweep.parameters]
"training.learning_rate" = {{ low = 1e-4, high = 1e-2, log = true }}
"training.batch_size" = {{ choices = [4, 8] }}
"""


def write_sweep(root: Path, trials: int, workers: int, storage: str | None = None) -> Path:
    """A project whose study ends the same for so many workers: several finish in any order."""
    alone = workers == 1
    text = PROJECT.format(
        trials=trials,
        sampler="tpe" if alone else "random",
        sampler_options="n_startup_trials = 4" if alone else "",
        pruner="median" if alone else "none",
        pruner_options="n_startup_trials = 3" if alone else "",
    )
    if storage is not None:
        text = text.replace("[sweep]\n", f'[sweep]\nstorage = "{storage}"\n')
    root.mkdir(parents=True, exist_ok=True)
    file = root / "worldflux.toml"
    file.write_text(text, encoding="utf-8")
    return file


def work(file: Path, fake: bool) -> int:
    """A worker, in this process."""
    from worldflux.progress import Progress
    from worldflux.runs import processes
    from worldflux.runs.sweep import sweep

    if fake:
        processes.POLL_S = 0.02
    return sweep(file, screen=Progress(sys.stderr), **({"command": FAKE} if fake else {}))[1]


def trials_of(file: Path) -> list[dict[str, Any]]:
    """Every trial of a project's study, as far as it has to be the same."""
    from worldflux.project.loader import load_project
    from worldflux.runs.study import Study
    from worldflux.runs.sweep import _definition

    project = load_project(file)
    study = Study(project, file.parent / "outputs", _definition(project))
    return [
        {
            "number": trial.number,
            "state": trial.state.name,
            "value": trial.value,
            "params": trial.params,
            "evaluations": trial.intermediate_values,
        }
        for trial in study.study.get_trials()
    ]


def run_study(file: Path, workers: int, kills: int, seed: int, fake: bool) -> dict[str, Any]:
    """Let workers end a study, killing one of them at a time until `kills` are dead."""
    rng, most_s = random.Random(seed), (0.3 if fake else 12.0)
    outputs = file.parent / "outputs"
    log = (file.parent / "workers.log").open("ab")

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, __file__, "--worker", str(file), *(["--fake"] if fake else [])]
        return subprocess.Popen(command, stdout=log, stderr=log)

    def evaluated() -> int:
        """Bytes of evaluations; they grow once a worker is at work."""
        return sum(path.stat().st_size for path in outputs.glob("trial-*/eval.jsonl"))

    alive = [start() for _ in range(workers)]
    killed = 0
    while killed < kills and any(worker.poll() is None for worker in alive):
        before = evaluated()
        while evaluated() == before and any(worker.poll() is None for worker in alive):
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, most_s))
        victim = rng.choice(alive)
        if victim.poll() is None:
            children = Path(f"/proc/{victim.pid}/task/{victim.pid}/children")
            runs = children.read_text().split()
            victim.kill()
            killed += 1
            for pid in runs if killed % 2 else []:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            victim.wait()
            alive[alive.index(victim)] = start()
    while any(worker.wait() != 0 for worker in alive):
        raise AssertionError((file.parent / "workers.log").read_text())
    code = work(file, fake)  # what the last one left, if anything
    return {"kills": killed, "exit": code, "trials": trials_of(file)}


def compared(root: Path, trials: int, workers: int, kills: int, seed: int, fake: bool) -> Any:
    """What a killed study has in common with an undisturbed one."""
    files = [write_sweep(root / name, trials, workers) for name in ("undisturbed", "killed")]
    whole = {"exit": work(files[0], fake), "trials": trials_of(files[0])}
    began = time.monotonic()
    killed = run_study(files[1], workers, kills, seed, fake)
    states = [trial["state"] for trial in killed["trials"]]
    folders = [files[1].parent / "outputs" / f"trial-{n:04d}" for n in range(trials)]
    return {
        "kills": killed["kills"],
        "trials": len(states),
        "states": {state: states.count(state) for state in sorted(set(states))},
        "lost": trials - sum(state in ("COMPLETE", "PRUNED") for state in states),
        "with_checkpoint": sum(any((f / "checkpoints").glob("step-*")) for f in folders),
        "same": killed["trials"] == whole["trials"],
        "best": [
            max((t["value"], t["number"]) for t in study["trials"] if t["state"] == "COMPLETE")
            for study in (whole, killed)
        ],
        "seconds": round(time.monotonic() - began),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--fake", action="store_true")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker, arguments.fake)
    with tempfile.TemporaryDirectory() as folder:
        found = compared(
            Path(folder),
            arguments.trials,
            arguments.workers,
            arguments.kills,
            arguments.seed,
            arguments.fake,
        )
    print(json.dumps(found, indent=1))
    return 0 if found["same"] and not found["lost"] else 1


if __name__ == "__main__":
    sys.exit(main())
