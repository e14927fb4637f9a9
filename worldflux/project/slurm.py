"""Runs as jobs of a cluster, through submitit: requeued when preempted, resumed where they were."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worldflux.errors import ConfigurationError, TrainingError

from .loader import Project

FOLDER = "slurm"  # of the scripts and logs, in the project's folder
SAVE_S = 120  # seconds before the time limit in which a run saves
_MOST_REQUEUES = 1000  # each of them continues, so that any number makes progress
_STOPPED = {128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
_LOOK_S = 0.2


@dataclass(frozen=True)
class Resources:
    """What a job asks of the cluster; `more` are further sbatch options by name."""

    nodes: int = 1
    nproc: int = 1
    minutes: int = 240
    cpus: int = 1
    gpus: int = 0
    partition: str | None = None
    account: str | None = None
    more: Mapping[str, str] = field(default_factory=dict)

    def parameters(self) -> dict[str, Any]:
        """As submitit's SLURM executor takes them."""
        named = {"gpus_per_node": self.gpus or None, "partition": self.partition}
        given = {"account": self.account, **named}
        return {
            "nodes": self.nodes,
            "ntasks_per_node": self.nproc,
            "cpus_per_task": self.cpus,
            "time": self.minutes,
            "signal_delay_s": SAVE_S,
            "additional_parameters": {"requeue": True, **self.more},
            **{name: value for name, value in given.items() if value is not None},
        }


class TrainJob:
    """One process of a run: `worldflux train --resume=auto`, in a task that submitit started."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Train until the run is complete or stopped; returns the exit code."""
        from submitit.helpers import TorchDistributedEnvironment

        task = TorchDistributedEnvironment()
        if task.world_size > 1:
            task.export(set_cuda_visible_devices=False, overwrite=True)
        command = [sys.executable, "-m", "worldflux", "train", *self.arguments]
        # SLURM may signal a task with all that it started; a run is stopped by `checkpoint`.
        handler = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        signal.signal(signal.SIGUSR2, handler)
        code = self._ended()
        if code and code not in _STOPPED and task.rank == 0:
            raise TrainingError(f"worldflux train ended with exit code {code}")
        return code

    def checkpoint(self) -> Any:
        """Called by submitit before the job loses its place: save, and take part again."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._ended()
        return DelayedSubmission(TrainJob(self.arguments))

    def _ended(self) -> int:
        assert self._process is not None
        while self._process.poll() is None:  # not wait: a signal handler asks meanwhile
            time.sleep(_LOOK_S)
        return int(self._process.returncode)


def require_hosted(project: Project, resources: Resources) -> None:
    """Refuse a job whose processes cannot host the shards of the project evenly."""
    shards, world = project.sections.distributed.shards, resources.nodes * resources.nproc
    if shards % world:
        raise ConfigurationError(
            f"{resources.nodes} nodes with {resources.nproc} processes each cannot host "
            f"{shards} shards evenly",
            where=project.where("distributed", "shards"),
            hint=f"worldflux submit --set distributed.shards={world}",
        )


def script(project: Project, resources: Resources) -> str:
    """The batch script that `submit` would hand to sbatch; nothing is written."""
    from submitit.slurm.slurm import _make_sbatch_string

    folder = project.root / FOLDER
    command = shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", str(folder)])
    text: str = _make_sbatch_string(
        command, folder, job_name=_name(project), **resources.parameters()
    )
    return text


def submit(
    project: Project, arguments: Sequence[str], resources: Resources, cluster: str
) -> tuple[str, Path]:
    """Submit a run; returns the job's id, and the file that the first process writes its output to.

    Args:
        arguments: of `worldflux train`.
        cluster: "slurm", or "local" for processes of this machine.
    """
    import submitit

    kind = submitit.SlurmExecutor if cluster == "slurm" else submitit.LocalExecutor
    try:
        executor = kind(project.root / FOLDER, max_num_timeout=_MOST_REQUEUES)
    except RuntimeError as error:  # no srun
        raise ConfigurationError(
            f"no SLURM cluster here: {error}",
            where="--slurm",
            hint="run it on a login node; --dry-run shows the script, --local tries it here",
        ) from None
    if cluster == "slurm":
        executor.update_parameters(job_name=_name(project), **resources.parameters())
    else:
        executor.update_parameters(
            tasks_per_node=resources.nproc,
            timeout_min=resources.minutes,
            signal_delay_s=min(SAVE_S, 30 * resources.minutes),
        )
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    job = executor.submit(TrainJob([*arguments, "--resume=auto", "--yes"]))
    return job.job_id, Path(job.paths.stdout)


def _name(project: Project) -> str:
    return project.sections.project_name.replace(" ", "-")
