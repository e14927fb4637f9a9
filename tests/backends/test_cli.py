"""`worldflux jobs`: what a person sees of a job, and the exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from .test_jobs import running, submit


def jobs(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "worldflux", "jobs", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_job_is_listed_read_and_waited_for(checkouts: Path) -> None:
    job = submit(environment_steps=200)
    waited = jobs("wait", job.id)
    assert (waited.returncode, waited.stdout) == (0, f"{job.id}  completed\n")
    listed = json.loads(jobs("list", "--json").stdout)["jobs"]
    assert [(row["id"], row["status"]) for row in listed] == [(job.id, "completed")]
    assert "Agent Step 200" in jobs("logs", job.id, "--follow").stdout


def test_a_job_is_cancelled_from_another_process(checkouts: Path) -> None:
    job = running()
    timed_out = jobs("wait", job.id, "--timeout", "0.2")
    assert (timed_out.returncode, timed_out.stdout) == (1, f"{job.id}  running\n")
    done = json.loads(jobs("cancel", job.id, "--json").stdout)
    assert (done["status"], done["reason"]) == ("cancelled", "cancelled")


def test_an_unknown_job_exits_2_and_says_what_there_is(checkouts: Path) -> None:
    done = jobs("logs", "nope")
    assert done.returncode == 2
    assert "worldflux jobs list" in done.stderr
