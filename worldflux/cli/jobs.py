"""`worldflux jobs`: the delegated runs of official programs."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

jobs = typer.Typer(
    help="List, read, wait for and cancel delegated runs of official programs.",
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
)

JobId = Annotated[str, typer.Argument(metavar="ID", help="As worldflux jobs list shows it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@jobs.command("list")
def list_(as_json: AsJson = False) -> None:
    """List every job, oldest first."""
    from worldflux.backends.jobs import list_jobs

    rows = [_summary(job) for job in list_jobs()]
    if as_json:
        typer.echo(json.dumps({"jobs": rows}, indent=2))
        return
    if not rows:
        typer.echo("no jobs")
    for row in rows:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["submitted_at"]))
        reason = f"  ({row['reason']})" if row["reason"] else ""
        typer.echo(
            f"{row['id']}  {row['status']:<9}  {since}  {row['model']}  {row['output_dir']}{reason}"
        )


@jobs.command("logs")
def logs(
    job_id: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")
    ] = False,
) -> None:
    """Print what the job's program printed."""
    from worldflux.backends.jobs import JobHandle

    for line in JobHandle.find(job_id).logs(follow):
        typer.echo(line)


@jobs.command("wait")
def wait(
    job_id: JobId,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to wait at most; without it, for ever.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Wait until the job has ended; exit code 1 unless it completed."""
    from worldflux.backends.jobs import JobHandle, JobStatus

    job = JobHandle.find(job_id)
    status = job.wait(timeout)
    _show(job, as_json)
    if status is not JobStatus.COMPLETED:
        raise typer.Exit(1)


@jobs.command("cancel")
def cancel(job_id: JobId, as_json: AsJson = False) -> None:
    """End the job and every process of its program."""
    from worldflux.backends.jobs import JobHandle

    job = JobHandle.find(job_id)
    job.cancel()
    _show(job, as_json)


def _show(job: Any, as_json: bool) -> None:
    row = _summary(job)
    if as_json:
        typer.echo(json.dumps(row, indent=2))
    else:
        typer.echo(
            f"{row['id']}  {row['status']}" + (f"  ({row['reason']})" if row["reason"] else "")
        )


def _summary(job: Any) -> dict[str, Any]:
    status, reason = job.standing()
    record = job.record
    shown = {name: record[name] for name in ("backend", "model", "task", "output_dir")}
    return {
        "id": job.id,
        "status": str(status),
        "reason": reason,
        "submitted_at": record["submitted_at"],
        **shown,
    }
