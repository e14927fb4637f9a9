"""`worldflux submit`: train as a job of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from worldflux.errors import ConfigurationError

from .config import Overrides


def submit(
    project: Annotated[
        Path | None,
        typer.Argument(help="Project folder. Default: this one or the nearest above it."),
    ] = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="Submit with sbatch.")] = False,
    local: Annotated[
        bool, typer.Option("--local", help="Run the same job in processes of this machine.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the batch script, and submit nothing.")
    ] = False,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    nproc: Annotated[int, typer.Option(min=1, help="Processes on each of them.")] = 1,
    minutes: Annotated[
        int, typer.Option(min=1, help="Time limit, after which the job is queued again.")
    ] = 240,
    cpus: Annotated[int, typer.Option(min=1, help="Cores for each process.")] = 1,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of each machine.")] = 0,
    partition: Annotated[str | None, typer.Option(help="Partition of the cluster.")] = None,
    account: Annotated[str | None, typer.Option(help="Account that is charged.")] = None,
    sbatch: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Another option of sbatch.")
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="Folder of the run (training.output_dir).")
    ] = None,
    set_: Overrides = None,
) -> None:
    """Train on a cluster; preempted or out of time, the job is queued again and resumes."""
    from worldflux.optional import require
    from worldflux.project.loader import load_project
    from worldflux.project.places import project_file
    from worldflux.project.slurm import Resources, require_hosted, script
    from worldflux.project.slurm import submit as submitted

    if slurm == local:
        raise ConfigurationError("choose where to submit", hint="--slurm, or --local to try it")
    pairs = [text.partition("=") for text in sbatch or []]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise ConfigurationError("expected NAME=VALUE", where="--sbatch", hint="qos=high")
    require("worldflux submit", "slurm", "submitit")
    overrides = list(set_ or [])
    if output_dir is not None:
        overrides.append(f"training.output_dir={output_dir.absolute()}")
    file = project_file(project)
    loaded = load_project(file, overrides)
    more = {name: value for name, _, value in pairs}
    resources = Resources(nodes, nproc, minutes, cpus, gpus, partition, account, more)
    require_hosted(loaded, resources)
    if dry_run:
        typer.echo(script(loaded, resources))
        return
    words = ["--config", str(file), *(word for text in overrides for word in ("--set", text))]
    job, log = submitted(loaded, words, resources, "slurm" if slurm else "local")
    typer.echo(f"job {job}; output: {log}")
