"""What the page says of a run in words: its status line, and its last messages."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldflux.dashboard.contained import Entry, open_contained
from worldflux.dashboard.history import EvaluationHistory, Recent, to_count, to_number
from worldflux.layout import LOCK
from worldflux.progress import counted
from worldflux.run_log import parse_row

ENDED = ("completed", "interrupted", "failed")
MAX_LOCK_BYTES = 4096
MAX_TEXT = 300
MAX_REASON = 2000
MAX_MESSAGES, MAX_MESSAGE = 40, 500


@dataclass(frozen=True)
class TrainerProcess:
    """A living trainer: memory in bytes, unix time of its start; None where that is unknown."""

    memory_bytes: int | None = None
    machine_memory_bytes: int | None = None
    since: float | None = None


def find_trainer(folder: Path) -> TrainerProcess | None:
    """The process that holds the folder's lock (flock), or None when nobody does."""
    try:
        with open_contained(folder, LOCK) as file:
            try:
                # Asking takes the lock for a moment, but only where nobody holds it.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return _measure(parse_row(file.read(MAX_LOCK_BYTES)) or {})
    except FileNotFoundError:
        pass
    return None


def _measure(owner: dict[str, Any]) -> TrainerProcess:
    pid, since = to_count(owner.get("pid")), to_number(owner.get("since"))
    if pid is None or owner.get("host") != socket.gethostname():
        return TrainerProcess(since=since)
    try:
        page_bytes = os.sysconf("SC_PAGE_SIZE")
        resident_pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        machine_bytes = os.sysconf("SC_PHYS_PAGES") * page_bytes
    except (OSError, ValueError, IndexError):
        return TrainerProcess(since=since)
    return TrainerProcess(resident_pages * page_bytes, machine_bytes, since)


def summarize(
    manifest: dict[str, Any],
    recent: Recent,
    evaluations: EvaluationHistory,
    trainer: TrainerProcess | None,
    heartbeat: dict[str, Any],
) -> dict[str, Any]:
    """The numbers of one run, every one of them finite or None.

    The heartbeat is newer than the logs, and these newer than the manifest: steps come from the
    first that has them.
    """
    last = recent.last
    status = _status(manifest, recent, trainer is not None)
    is_running = status == "running"
    beat = _current_beat(heartbeat, trainer) if is_running else {}
    step = _most(beat.get("step"), last.step if last else None, manifest.get("global_step"))
    total = to_count(_section(manifest, "training_config").get("total_steps")) or 0
    left = _time_left(beat)
    speed = recent.updates_per_s()
    if left is None and is_running and speed and total > 0 and step is not None:
        left = max(0.0, (total - step) / speed)
    is_measuring = is_running and trainer is not None and not beat and last is None
    logged_s, beaten_s = (last.wall_s if last else None), to_number(beat.get("wall_s"))
    known_s = [seconds for seconds in (logged_s, beaten_s) if seconds is not None]
    modes = manifest.get("degraded_modes")
    return {
        "status": status,
        "project": _text(manifest.get("project_name")),
        "model": _text(manifest.get("model")),
        "environment": _text(_section(manifest, "environment").get("id")),
        "device": _text(manifest.get("device")),
        "data_mode": _text(manifest.get("data_mode")),
        "classification": _text(manifest.get("run_classification")),
        "degraded_modes": [_text(m) for m in _list(modes)[:50] if isinstance(m, str)],
        "parameters": to_count(manifest.get("parameters")),
        "step": step,
        "total_steps": total if total > 0 else None,
        "env_steps": _most(
            beat.get("env_steps"), last.env_steps if last else None, manifest.get("env_steps")
        ),
        "phase": "measuring" if is_measuring else _text(beat.get("phase")),
        "reason": _text(manifest.get("reason"), MAX_REASON),
        "seed": to_count(_section(manifest, "seeds").get("run")),
        "started_at": to_number(manifest.get("started_at")),
        "updates_per_s": speed,
        "time_left_s": left,
        "wall_s": max(known_s, default=to_number(manifest.get("wall_s"))),
        "memory_bytes": trainer.memory_bytes if trainer else None,
        "machine_memory_bytes": trainer.machine_memory_bytes if trainer else None,
        "random_return": to_number(manifest.get("random_return_mean")),
        "last_evaluation": evaluations.rows[-1] if evaluations.rows else None,
        "best_evaluation": evaluations.best,
        "evaluations": len(evaluations.rows),
        "non_finite": sum(seen["count"] for seen in recent.non_finite.values()),
    }


def _status(manifest: dict[str, Any], recent: Recent, is_alive: bool) -> str:
    """The manifest's status, but `stale` where it says running and nobody holds the lock."""
    written = manifest.get("status")
    if written == "running":
        return "running" if is_alive else "stale"
    if written in ENDED:
        return str(written)
    if is_alive:
        return "running"
    return "unknown" if recent.last is not None else "waiting"


def _current_beat(heartbeat: dict[str, Any], trainer: TrainerProcess | None) -> dict[str, Any]:
    """The heartbeat, unless it is older than the trainer: of the run before it was resumed."""
    written = to_number(heartbeat.get("time"))
    since = trainer.since if trainer else None
    return heartbeat if written is not None and (since is None or written >= since) else {}


def _time_left(beat: dict[str, Any]) -> float | None:
    """Seconds left by now: an evaluation may have begun a while ago."""
    left, written = to_number(beat.get("left_s")), to_number(beat.get("time"))
    if left is None or written is None:
        return None
    return max(0.0, left - max(0.0, time.time() - written))


def _most(*values: Any) -> int | None:
    return max((n for value in values if (n := to_count(value)) is not None), default=None)


def _text(value: Any, most: int = MAX_TEXT) -> str | None:
    return value[:most] if isinstance(value, str) else None


def _section(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    section = manifest.get(name)
    return section if isinstance(section, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def list_messages(
    manifest: dict[str, Any],
    evaluations: EvaluationHistory,
    non_finite: dict[str, dict[str, int]],
    checkpoints: Sequence[Entry],
) -> list[dict[str, Any]]:
    """Messages as {time (unix s or None), level (info | warning | error), text}, newest first.

    Those without a time (problems of the whole run) come before all others.
    """
    reason = manifest.get("reason")
    timeless = [_message(f"failed: {reason}", level="error")] if isinstance(reason, str) else []
    modes = _list(manifest.get("degraded_modes"))[:20]
    timeless += [_message(f"degraded: {mode}", level="warning") for mode in modes]
    for name, seen in list(non_finite.items())[:20]:
        where = f"{seen['count']} times, last at update {seen['last_step']}"
        timeless.append(_message(f"{name} was NaN or infinite {where}", level="warning"))
    for found in _list(manifest.get("diagnosis"))[:20]:
        if isinstance(found, dict):
            text = f"{found.get('cause')}: {found.get('sentence')}"
            timeless.append(_message(text, level="warning"))
    best = evaluations.best["step"] if evaluations.best else None
    rows = evaluations.rows[-MAX_MESSAGES:]
    timed = [_message(_evaluated(row, row["step"] == best), row["time"] or 0.0) for row in rows]
    for entry in sorted(checkpoints, key=lambda entry: entry.modified)[-10:]:
        timed.append(_message(f"checkpoint {entry.name} saved", entry.modified))
    timed.sort(key=lambda message: -message["time"])
    return (timeless + timed)[:MAX_MESSAGES]


def _message(text: str, time: float | None = None, level: str = "info") -> dict[str, Any]:
    return {"time": time, "level": level, "text": text[:MAX_MESSAGE]}


def _evaluated(row: dict[str, Any], is_best: bool) -> str:
    value = row["return_mean"]
    shown = "no finite return" if value is None else f"return {value:.4g}"
    if value is not None and row["return_std"] is not None:
        shown += f" ± {row['return_std']:.3g}"
    if row["episodes"]:
        shown += f" over {counted(row['episodes'], 'episode')}"
    return f"evaluation at update {row['step']:,}: {shown}{', the best so far' if is_best else ''}"
