"""Runs of official programs, which `training.backend` names: submitted as a job, and supervised.

`python -m worldflux.project.delegated JOB_FOLDER` is the supervisor. It runs in its own session,
starts the official program as a process group, copies the program's scores into metrics.jsonl and
eval.jsonl, keeps run_manifest.json and job.json current, and writes down how the job ended: also
when the disk is full, or when it has to stop.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worldflux.backends.jobs import (
    CANCEL,
    GRACE_S,
    JOB,
    RESERVE,
    JobHandle,
    JobStatus,
    ProcessIdentity,
    disk_problem,
    end_group,
    last_words,
)
from worldflux.backends.program import (
    PASSED_ON,
    OfficialBackendHandle,
    official_task,
    open_handle,
    program_of,
)
from worldflux.backends.scores import NewRows, plain
from worldflux.backends.submission import submit
from worldflux.envs.namespaces import namespace_of
from worldflux.errors import ConfigurationError, TrainingError, WorldFluxError
from worldflux.files import read_json_object, write_json
from worldflux.layout import EVALUATIONS, JOB_LOG, METRICS
from worldflux.models.catalog import family_of_model, resolve
from worldflux.run_log import append_row
from worldflux.training.config import TrainingConfig

from . import manifest as manifests
from .loader import Project
from .manifest import RunManifest, read_manifest
from .provenance import git_state
from .run_folder import RunFolder
from .signals import graceful_stop

SECONDS_BETWEEN_READS = 0.25
# Sections that say how OUR program acts; where one is set, that is named once.
_OUR_SECTIONS = ("data", "online_collection", "evaluation", "gameplay", "visualization")
_SIGNALS = {signal.SIGKILL: "killed (SIGKILL; the system does so when memory runs out)"}
# How the job ended -> what the run's manifest calls that.
_RUN_STATUS = {
    JobStatus.COMPLETED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "interrupted",
}


# ------------------------------------------------------------------ from a project


def follow(
    project: Project, *, resume: bool, strict: bool, say: Callable[[str], None]
) -> tuple[Path, tuple[int, int], int]:
    """Submit the project's job and print its log until it ends; a signal does not end the job."""
    if resume:
        raise ConfigurationError(
            "a delegated run cannot be resumed",
            where=project.where("training", "backend"),
            hint="choose a new folder: --output-dir DIR",
        )
    handle, config, ignored = _request(project)
    if ignored:
        words = f"the official program does not receive {', '.join(ignored)}"
        if strict:
            raise ConfigurationError(words, where=str(project.path), hint="remove them")
        say(f"warning: {words}")
    job = submit(handle, config)
    say(f"job {job.id}: {handle.backend} runs {handle.model_id}; it continues without this command")
    code = _print_log(job, say)
    if not code and job.status is not JobStatus.COMPLETED:
        raise TrainingError(f"the job {job.status}: {job.reason}", where=str(job.output_dir))
    manifest = read_manifest(job.output_dir)
    return job.output_dir, (manifest["global_step"], manifest["env_steps"]), code


def _print_log(job: JobHandle, say: Callable[[str], None]) -> int:
    """Print lines until the job ends (0) or a signal says to stop (its exit code)."""
    stopped: list[bool] = []
    with graceful_stop(lambda: stopped.append(True)) as stop:
        for line in job.logs(follow=True, stop=lambda: bool(stopped)):
            say(line if sys.stderr.isatty() else plain(line))
    if not stopped:
        return 0
    say(f"the job continues: worldflux jobs logs {job.id} --follow")
    say(f"end it with: worldflux jobs cancel {job.id}")
    return stop.exit_code


def _request(project: Project) -> tuple[OfficialBackendHandle, TrainingConfig, list[str]]:
    """The handle, the settings of [training] for its program, and the settings it ignores."""
    sections, config = project.sections, project.training_config()
    model_id, arguments = resolve(sections.model), sections.environment_kwargs
    try:
        family = family_of_model(model_id).name
        handle = open_handle(config.backend, model_id, family, {"device": "auto"})
    except ConfigurationError as error:
        error.where = project.where("training", "backend")
        raise
    program = program_of(config.backend)
    try:
        task = official_task(program, sections.environment, arguments)
    except ConfigurationError as error:
        error.where = project.where("environment")
        raise
    if sections.architecture:
        raise ConfigurationError(
            f"the {program.title} has its own sizes and takes no [architecture]",
            where=project.where("architecture"),
            hint="remove it; training.backend_profile chooses a size",
        )
    is_image = bool(arguments.get("pixels")) or namespace_of(sections.environment).images
    metadata = {**handle.metadata, "task": task, "obs_shape": (3, 64, 64) if is_image else (1,)}
    passed = {name: getattr(config, name) for name in config.set_fields & PASSED_ON}
    passed["output_dir"] = str(project.root / config.output_dir)
    ignored = [f"training.{name}" for name in sorted(config.set_fields - PASSED_ON)]
    ignored += [f"[{name}]" for name in _OUR_SECTIONS if name in project.document.data]
    return (
        OfficialBackendHandle(handle.backend, model_id, metadata),
        TrainingConfig(**passed),
        ignored,
    )


# ------------------------------------------------------------------ the supervisor


class Supervisor:
    """One job, from its start to its last word."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = read_json_object(folder / JOB, "job")
        self.output = Path(self.record["output_dir"])
        self.manifest: RunManifest | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.stopping = False
        self.best: dict[str, Any] | None = None

    def run(self) -> None:
        """Run the job to its end; whatever happens, job.json says how it ended."""
        signal.signal(signal.SIGTERM, self._stop)
        try:
            with RunFolder(self.output, f"job {self.record['id']}", resume=False) as folder:
                folder.begin()
                self._end(*self._supervise())
        except WorldFluxError as error:
            self._end(JobStatus.FAILED, str(error))
        except OSError as error:
            words = [disk_problem(self.output), f"its files cannot be written: {error}"]
            self._end(JobStatus.FAILED, "; ".join(filter(None, words)))

    def _stop(self, number: int, frame: Any) -> None:
        self.stopping = True

    def _supervise(self) -> tuple[JobStatus, str | None]:
        manifest = self.manifest = RunManifest(self.output, self._first_manifest())
        manifest.begin()
        if self._is_cancelled():
            return JobStatus.CANCELLED, "cancelled before it started"
        began = time.monotonic()
        try:
            process = self.process = self._start()
        except OSError as error:
            return JobStatus.FAILED, f"the program cannot be started: {error}"
        identity = ProcessIdentity.of(process.pid)
        self._note(program=identity and identity.to_dict(), status=JobStatus.RUNNING)
        program, scores = program_of(self.record["backend"]), Path(self.record["scores"])
        read_scores = program.scores(scores, self.output / JOB_LOG, self.record["command"])
        while process.poll() is None and not self._is_cancelled():
            self._take(manifest, read_scores())
            time.sleep(SECONDS_BETWEEN_READS)
        cancelled = process.poll() is None or self._is_cancelled()
        self._end_program()
        self._take(manifest, read_scores())
        seconds = manifest.content["wall_s"] = time.monotonic() - began
        if cancelled and process.returncode != 0:
            asked = (self.folder / CANCEL).exists()
            return JobStatus.CANCELLED, "cancelled" if asked else "its supervisor got SIGTERM"
        return self._outcome(process.returncode, seconds)

    def _is_cancelled(self) -> bool:
        return self.stopping or (self.folder / CANCEL).exists()

    def _start(self) -> subprocess.Popen[bytes]:
        folder = Path(self.record["program_folder"])
        folder.mkdir(parents=True, exist_ok=True)
        with (self.output / JOB_LOG).open("ab") as log:
            return subprocess.Popen(
                self.record["command"],
                cwd=folder,
                env={**os.environ, **self.record["variables"]},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    def _end_program(self) -> None:
        """End the program, if it still runs, and every process that it left in its group."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        leader = ProcessIdentity.of(process.pid)
        if leader is not None:
            end_group(leader, GRACE_S)
        process.wait()

    def _outcome(self, code: int, seconds: float) -> tuple[JobStatus, str | None]:
        if code == 0:
            return JobStatus.COMPLETED, None
        ending = f"ended with exit code {code}"
        if code < 0:
            number = signal.Signals(-code)
            ending = f"was {_SIGNALS.get(number, f'ended by {number.name}')}"
        last = last_words(self.output / JOB_LOG)
        words = [
            disk_problem(self.output),
            f"the program {ending} after {seconds:.1f} s",
            f"its last words: {last}" if last else None,
        ]
        return JobStatus.FAILED, "; ".join(filter(None, words))

    def _take(self, manifest: RunManifest, rows: NewRows) -> None:
        """Append rows to the run's logs, and bring its manifest up to date."""
        now = time.time()
        for row in rows.metrics:
            append_row(self.output / METRICS, {**row, "time": now})
        for row in rows.evaluations:
            append_row(self.output / EVALUATIONS, {**row, "time": now})
            if self.best is None or row["return_mean"] > self.best["return_mean"]:
                self.best = row
        if rows.parameters is not None:
            manifest.update(parameters=rows.parameters)
        newest = [*rows.metrics, *rows.evaluations]
        if newest:
            step = max(manifest.content["global_step"], *(row["step"] for row in newest))
            final = rows.evaluations[-1] if rows.evaluations else manifest.content["final"]
            manifest.update(global_step=step, env_steps=step, final=final, best=self.best)

    def _end(self, status: JobStatus, reason: str | None) -> None:
        """Write the last word; if the disk is full, the reserved space makes room for it."""
        self._end_program()
        (self.folder / RESERVE).unlink(missing_ok=True)
        if self.manifest is not None:
            try:
                self.manifest.update(status=_RUN_STATUS[status], reason=reason)
            except OSError as error:
                reason = f"{reason}; run_manifest.json cannot be written: {error}"
        self._note(status=status, reason=reason, finished_at=time.time())

    def _note(self, **changes: Any) -> None:
        self.record.update(changes)
        write_json(self.folder / JOB, self.record)

    def _first_manifest(self) -> dict[str, Any]:
        job = self.record
        return {
            "schema_version": manifests.SCHEMA_VERSION,
            "status": "running",
            "project_name": f"job {job['id']}",
            "data_mode": "online",
            **job["manifest"],
            "delegated": {
                "backend": job["backend"],
                "job": job["id"],
                "profile": job["profile"],
                "command": job["command"],
                "git": git_state(Path(job["checkout"])),
            },
            "global_step": 0,
            "env_steps": 0,
            "best": None,
            "final": None,
            "random_return_mean": None,
            "started_at": time.time(),
            "wall_s": 0.0,
            "machine": manifests.machine(),
            "software": manifests.software(),
        }


if __name__ == "__main__":
    Supervisor(Path(sys.argv[1])).run()
