"""The supervisor of a delegated job: `python -m worldflux.project.delegated_run JOB_FOLDER`.

It runs in a session of its own. It starts the official program as a process group, copies the
program's scores into metrics.jsonl and eval.jsonl, keeps run_manifest.json and job.json current,
and writes down how it ended: also when the disk is full, or when it is told to stop.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from worldflux.backends.jobs import (
    CANCEL,
    GRACE_S,
    JOB,
    LOG,
    RESERVE,
    JobStatus,
    disk_problem,
    last_words,
)
from worldflux.backends.processes import ProcessIdentity, end_group
from worldflux.backends.program import program_of
from worldflux.backends.scores import NewRows, ScoreReader
from worldflux.errors import WorldFluxError
from worldflux.files import read_json_object, write_json
from worldflux.run_log import EVALUATIONS, METRICS, append_row

from . import manifest as manifests
from .manifest import RunManifest
from .provenance import git_state
from .run_folder import RunFolder

SECONDS_BETWEEN_READS = 0.25
_SIGNALS = {signal.SIGKILL: "killed (SIGKILL; the system does so when memory runs out)"}
# How the job ended -> what the run's manifest calls that.
_RUN_STATUS = {
    JobStatus.COMPLETED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "interrupted",
}


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
                status, reason = self._supervise()
                self._end(status, reason)
        except WorldFluxError as error:
            self._end(JobStatus.FAILED, str(error))
        except OSError as error:
            full = disk_problem(self.output)
            words = f"its files cannot be written: {error}"
            self._end(JobStatus.FAILED, f"{full}; {words}" if full else words)

    def _stop(self, number: int, frame: Any) -> None:
        self.stopping = True

    def _supervise(self) -> tuple[JobStatus, str | None]:
        self.manifest = RunManifest(self.output, self._first_manifest())
        self.manifest.begin()
        if self._is_cancelled():
            return JobStatus.CANCELLED, "cancelled before it started"
        began = time.monotonic()
        try:
            process = self.process = self._start()
        except OSError as error:
            return JobStatus.FAILED, f"the program cannot be started: {error}"
        self._note(program=_identity(process.pid), status=JobStatus.RUNNING)
        reader = self._reader()
        while process.poll() is None and not self._is_cancelled():
            self._take(reader.read())
            time.sleep(SECONDS_BETWEEN_READS)
        cancelled = process.poll() is None or self._is_cancelled()
        self._end_program()
        self._take(reader.read())
        self.manifest.content["wall_s"] = time.monotonic() - began
        if cancelled and process.returncode != 0:
            told = (self.folder / CANCEL).exists()
            return JobStatus.CANCELLED, "cancelled" if told else "its supervisor got SIGTERM"
        return self._outcome(process.returncode, time.monotonic() - began)

    def _is_cancelled(self) -> bool:
        return self.stopping or (self.folder / CANCEL).exists()

    def _start(self) -> subprocess.Popen[bytes]:
        folder = Path(self.record["program_folder"])
        folder.mkdir(parents=True, exist_ok=True)
        with (self.output / LOG).open("ab") as log:
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
        """End the program, where it still runs, and every process that it left in its group."""
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
        if code < 0:
            name = signal.Signals(-code).name
            words = _SIGNALS.get(signal.Signals(-code), f"ended by {name}")
            said = f"the program was {words} after {seconds:.1f} s"
        else:
            said = f"the program ended with exit code {code} after {seconds:.1f} s"
        last = last_words(self.output / LOG)
        full = disk_problem(self.output)
        parts = [*([full] if full else []), said, *([f"its last words: {last}"] if last else [])]
        return JobStatus.FAILED, "; ".join(parts)

    # ------------------------------------------------------------------ what is written down

    def _take(self, rows: NewRows) -> None:
        """Append rows to the run's logs, and bring its manifest up to date."""
        now = time.time()
        for row in rows.metrics:
            append_row(self.output / METRICS, {**row, "time": now})
        for row in rows.evaluations:
            append_row(self.output / EVALUATIONS, {**row, "time": now})
            if self.best is None or row["return_mean"] > self.best["return_mean"]:
                self.best = row
        if rows.parameters is not None and self.manifest is not None:
            self.manifest.update(parameters=rows.parameters)
        newest = [*rows.metrics, *rows.evaluations]
        if newest and self.manifest is not None:
            content = self.manifest.content
            step = max(content["global_step"], *(row["step"] for row in newest))
            final = rows.evaluations[-1] if rows.evaluations else content["final"]
            self.manifest.update(global_step=step, env_steps=step, final=final, best=self.best)

    def _end(self, status: JobStatus, reason: str | None) -> None:
        """Write the last word. Room is made for it first, where the disk is full."""
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

    def _reader(self) -> ScoreReader:
        program = program_of(self.record["backend"])
        scores, log = Path(self.record["scores"]), self.output / LOG
        return program.scores(scores, log, self.record["command"])

    def _first_manifest(self) -> dict[str, Any]:
        planned = self.record["manifest"]
        return {
            "schema_version": manifests.SCHEMA_VERSION,
            "status": "running",
            "project_name": f"job {self.record['id']}",
            "data_mode": "online",
            **planned,
            "delegated": {
                "backend": self.record["backend"],
                "job": self.record["id"],
                "profile": self.record["profile"],
                "command": self.record["command"],
                "git": git_state(Path(self.record["checkout"])),
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


def _identity(pid: int) -> dict[str, Any] | None:
    identity = ProcessIdentity.of(pid)
    return None if identity is None else dict(identity.to_dict())


if __name__ == "__main__":
    Supervisor(Path(sys.argv[1])).run()
