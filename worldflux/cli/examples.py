"""What `--help` of each command ends with: calls to copy."""

from __future__ import annotations

from typing import Any

EXAMPLES: dict[str, tuple[str, ...]] = {
    "": ("worldflux init pendulum --yes", "cd pendulum", "worldflux train", "worldflux verify"),
    "init": (
        "worldflux init pendulum --yes",
        "worldflux init walker --env dm_control/walker-walk-v0",
        "worldflux init robot --answers pendulum/.worldflux/answers.toml --name robot",
        "worldflux init robot --template ../our-templates",
    ),
    "update": (
        "worldflux update --check",
        "worldflux update --dry-run",
        "worldflux update",
        "worldflux update --from-alpha",
    ),
    "config": ("worldflux config show --origin", "worldflux config set training.seed 7"),
    "config show": (
        "worldflux config show --origin",
        "worldflux config show --set training.seed=7",
    ),
    "config set": (
        "worldflux config set training.total_steps 20000",
        "worldflux config set environment_kwargs.image_size '[64, 64]'",
    ),
    "train": (
        "worldflux train",
        "worldflux train --seed 7 --output-dir runs/seed-7",
        "worldflux train --set training.learning_rate=1e-3",
        "worldflux train --resume",
        "worldflux train --seeds 5 --jobs 2 --output-dir runs --name baseline",
        "worldflux train --from ../walker/outputs --freeze encoder,dynamics",
        "worldflux train --nproc 2 --set distributed.shards=2",
        "worldflux train --serve",
    ),
    "submit": (
        "worldflux submit --slurm --minutes 240 --gpus 1 --partition gpu",
        "worldflux submit --slurm --nodes 2 --nproc 4 --gpus 4 --dry-run",
    ),
    "sweep": ("worldflux sweep", "worldflux sweep --trials 50 --jobs 2 --output-dir rates"),
    "runs": ("worldflux runs list", "worldflux runs compare baseline small-batch"),
    "runs list": ("worldflux runs list", "worldflux runs list runs --json"),
    "runs compare": (
        "worldflux runs compare",
        "worldflux runs compare baseline small-batch --picture compared.png",
    ),
    "runs diff": ("worldflux runs diff runs/seed-0 runs/seed-1",),
    "runs export": ("worldflux runs export runs --out evaluations.csv",),
    "eval": (
        "worldflux eval",
        "worldflux eval runs/seed-7 --episodes 100 --no-video --json",
        "worldflux eval --checkpoint last --seed 7 --policy prior --csv episodes.csv",
        "worldflux eval --render human",
        "worldflux eval --model walker --env dm_control/walker-walk-v0",
    ),
    "play": ("worldflux play", "worldflux play runs/seed-7 --browser --policy prior"),
    "imagine": (
        "worldflux imagine",
        "worldflux imagine --horizon 30 --out imagined.png",
        "worldflux imagine --from 3:40 --action 1x10 --action agent",
    ),
    "trust": ("worldflux trust", "worldflux trust runs/seed-7 --episodes 200 --horizon 30"),
    "verify": (
        "worldflux verify",
        "worldflux verify runs/seed-* --mode proof --report proof.html",
    ),
    "report": ("worldflux report", "worldflux report runs/seed-* --out seeds.html"),
    "why": ("worldflux why", "worldflux why runs/seed-7 --no-play --json"),
    "models": ("worldflux models list", "worldflux models info MODEL"),
    "models list": ("worldflux models list", "worldflux models list --surface public --json"),
    "models info": ("worldflux models info MODEL",),
    "models compare": ("worldflux models compare --actions continuous --minutes 10",),
    "models import": ("worldflux models import walker-walk-1.pt --family FAMILY --to walker",),
    "models export": ("worldflux models export runs/seed-7 --to walker.pt",),
    "data": ("worldflux data info demonstrations.npz",),
    "data convert": ("worldflux data convert ./lerobot-data steps.npz --image-size 64",),
    "data record": (
        "worldflux data record episodes --env Pendulum-v1 --episodes 20",
        "worldflux data record mine --policy human --key left=0 --key right=1",
    ),
    "data info": ("worldflux data info demonstrations.npz", "worldflux data info --json"),
    "jobs": ("worldflux jobs list",),
    "jobs list": ("worldflux jobs list", "worldflux jobs list --json"),
    "jobs logs": ("worldflux jobs logs JOB --follow",),
    "jobs wait": ("worldflux jobs wait JOB",),
    "jobs cancel": ("worldflux jobs cancel JOB",),
    "serve": (
        "worldflux serve",
        "worldflux serve runs/seed-7 --hz 50 --socket agent.sock --log answers",
        "worldflux serve runs/seed-7 --replay answers",
    ),
    "export": (
        "worldflux export --to onnx",
        "worldflux export runs/seed-7 --to torch --policy plan --output planner.pt2",
        "worldflux export --check outputs/exports/prior.onnx",
    ),
    "dashboard": ("worldflux dashboard", "worldflux dashboard runs --port 8800 --open"),
    "doctor": ("worldflux doctor",),
}


def epilog(name: str) -> str:
    """The examples of a command as click shows them, without filling lines."""
    return "\b\n" + "\n  ".join(("Examples:", *EXAMPLES[name]))


def add_examples(command: Any, name: str) -> None:
    """Put the examples under the help of a command and of its subcommands."""
    if name in EXAMPLES:
        command.epilog = epilog(name)
    for part, below in getattr(command, "commands", {}).items():
        add_examples(below, f"{name} {part}")
