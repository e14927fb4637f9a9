"""The status line of a run: what it is, how far it is, how well it does, and what degraded."""

from __future__ import annotations

import time
from typing import Any

from worldflux.dashboard.history import EvaluationHistory, Recent, to_count, to_number
from worldflux.dashboard.settings import MAX_TEXT
from worldflux.dashboard.trainer_process import TrainerProcess

ENDED = ("completed", "interrupted", "failed")


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
    total = _total_steps(manifest)
    status = _status(manifest, recent, trainer is not None)
    beat = _beat(heartbeat, trainer) if status == "running" else {}
    step = _most(beat.get("step"), last.step if last else None, manifest.get("global_step"))
    speed = recent.updates_per_s()
    left, phase = _estimate(beat), _text(beat.get("phase"))
    if status == "running" and trainer is not None and not beat and last is None:
        phase = "measuring"
    if left is None and status == "running" and speed and total is not None and step is not None:
        left = max(0.0, (total - step) / speed)
    last_evaluation = evaluations.rows[-1] if evaluations.rows else None
    reason = manifest.get("reason")
    return {
        "status": status,
        "project": _text(manifest.get("project_name")),
        "model": _text(manifest.get("model")),
        "environment": _environment_name(manifest),
        "device": _text(manifest.get("device")),
        "data_mode": _text(manifest.get("data_mode")),
        "classification": _text(manifest.get("run_classification")),
        "degraded_modes": _texts(manifest.get("degraded_modes")),
        "parameters": to_count(manifest.get("parameters")),
        "step": step,
        "total_steps": total,
        "env_steps": _most(
            beat.get("env_steps"), last.env_steps if last else None, manifest.get("env_steps")
        ),
        "phase": phase,
        "reason": reason[:2000] if isinstance(reason, str) else None,
        "seed": _seed(manifest),
        "started_at": to_number(manifest.get("started_at")),
        "updates_per_s": speed,
        "time_left_s": left,
        "wall_s": _wall_s(manifest, last.wall_s if last else None, beat),
        "memory_bytes": trainer.memory_bytes if trainer else None,
        "machine_memory_bytes": trainer.machine_memory_bytes if trainer else None,
        "random_return": to_number(manifest.get("random_return_mean")),
        "last_evaluation": last_evaluation,
        "best_evaluation": evaluations.best,
        "evaluations": len(evaluations.rows),
        "non_finite": sum(seen["count"] for seen in recent.non_finite.values()),
    }


def _beat(heartbeat: dict[str, Any], trainer: TrainerProcess | None) -> dict[str, Any]:
    """The heartbeat of the living trainer; an older one is of the run before it was resumed."""
    told = to_number(heartbeat.get("time"))
    since = trainer.since if trainer else None
    return heartbeat if told is not None and (since is None or told >= since) else {}


def _estimate(beat: dict[str, Any]) -> float | None:
    """Seconds left by now: an evaluation may have begun a while ago."""
    left, told = to_number(beat.get("left_s")), to_number(beat.get("time"))
    return None if left is None or told is None else max(0.0, left - max(0.0, time.time() - told))


def _most(*values: Any) -> int | None:
    return max((n for value in values if (n := to_count(value)) is not None), default=None)


def _wall_s(manifest: dict[str, Any], logged: float | None, beat: dict[str, Any]) -> float | None:
    beaten = to_number(beat.get("wall_s"))
    if logged is None and beaten is None:
        return to_number(manifest.get("wall_s"))
    return max(logged or 0.0, beaten or 0.0)


def _seed(manifest: dict[str, Any]) -> int | None:
    seeds = manifest.get("seeds")
    return to_count(seeds.get("run")) if isinstance(seeds, dict) else None


def _status(manifest: dict[str, Any], recent: Recent, is_alive: bool) -> str:
    """The manifest's word, but `stale` where it says running and nobody holds the lock."""
    written = manifest.get("status")
    if written == "running":
        return "running" if is_alive else "stale"
    if written in ENDED:
        return str(written)
    if is_alive:
        return "running"
    return "unknown" if recent.last is not None else "waiting"


def _total_steps(manifest: dict[str, Any]) -> int | None:
    training = manifest.get("training_config")
    total = to_count(training.get("total_steps")) if isinstance(training, dict) else None
    return total if total and total > 0 else None


def _environment_name(manifest: dict[str, Any]) -> str | None:
    environment = manifest.get("environment")
    return _text(environment.get("id")) if isinstance(environment, dict) else None


def _text(value: Any) -> str | None:
    return value[:MAX_TEXT] if isinstance(value, str) else None


def _texts(value: Any) -> list[str]:
    listed = value if isinstance(value, list) else []
    return [item[:MAX_TEXT] for item in listed[:50] if isinstance(item, str)]
