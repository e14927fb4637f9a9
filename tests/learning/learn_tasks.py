"""Three pendulums of different mass: one agent for all, beside a single agent for each.

    make learn-tasks        (four runs, one at a time)

Every run takes the same environment steps of each of its tasks and the same updates; the table has
the returns of fresh episodes of the last checkpoint. A finished run is not repeated.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from learn_finetune import MAKE_ENV, PROJECT, train, worldflux

MASSES = {"light": 0.7, "ordinary": 1.0, "heavy": 1.3}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("learn-tasks"))
    given = parser.parse_args()
    common = ["--steps", str(given.updates), "--set", "training.eval_interval=1000"]
    returns: dict[str, dict[str, float]] = {}
    for name in (*MASSES, "all"):
        root = (given.out / name).resolve()
        root.mkdir(parents=True, exist_ok=True)
        (root / "dataset.py").write_text(MAKE_ENV)
        chosen = MASSES.items() if name == "all" else [(name, MASSES[name])]
        tasks = [
            f'[[tasks]]\nname = "{n}"\nenvironment_kwargs = {{ mass = {m} }}' for n, m in chosen
        ]
        text = PROJECT.replace("[architecture]", "\n".join([*tasks, "[architecture]"]))
        # Warm-up and later steps count all tasks.
        text = text.replace("warmup_transitions = 600", f"warmup_transitions = {600 * len(tasks)}")
        text = text.replace(
            "collect_steps_per_update = 1.0", f"collect_steps_per_update = {len(tasks)}"
        )
        text = text.replace("pretrain = true", "pretrain = false")
        (root / "worldflux.toml").write_text(text)
        manifest = train(root, "outputs", *common)
        options = [
            "--checkpoint",
            "last",
            "--episodes",
            str(given.episodes),
            "--no-video",
            "--json",
        ]
        report = json.loads(worldflux(root, "eval", *options))
        returns[name] = {task: entry["return_mean"] for task, entry in report["tasks"].items()}
        print(f"{name}: {manifest['env_steps']} steps, {returns[name]}", flush=True)
    print("\n| task | one agent | single agent |\n|---|---|---|")
    for name in MASSES:
        print(f"| {name} | {returns['all'][name]:.1f} | {returns[name][name]:.1f} |")


if __name__ == "__main__":
    main()
