"""The status line of a run: what it is, how far it is, how well it does, and what degraded."""

from __future__ import annotations

import json
from typing import Any

from worldflux.dashboard.history import EvaluationHistory, MetricsHistory, to_count, to_number
from worldflux.dashboard.trainer_process import TrainerProcess

MAX_TEXT = 300
MAX_CONFIGURATION_ROWS = 500
ENDED = ("completed", "interrupted", "failed")


def summarize(
    manifest: dict[str, Any],
    metrics: MetricsHistory,
    evaluations: EvaluationHistory,
    trainer: TrainerProcess | None,
) -> dict[str, Any]:
    """The numbers of one run, every one of them finite or None.

    The logs are newer than the manifest while a run goes, so steps come from the logs where they
    have them.
    """
    last = metrics.last
    step = last.step if last else to_count(manifest.get("global_step"))
    total = _total_steps(manifest)
    status = _status(manifest, metrics, trainer is not None)
    speed = metrics.updates_per_s()
    left = None
    if status == "running" and speed and total is not None and step is not None:
        left = max(0.0, (total - step) / speed)
    last_evaluation = evaluations.rows[-1] if evaluations.rows else None
    env_steps = last.env_steps if last and last.env_steps is not None else None
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
        "env_steps": env_steps if env_steps is not None else to_count(manifest.get("env_steps")),
        "updates_per_s": speed,
        "time_left_s": left,
        "wall_s": last.wall_s if last else to_number(manifest.get("wall_s")),
        "memory_bytes": trainer.memory_bytes if trainer else None,
        "machine_memory_bytes": trainer.machine_memory_bytes if trainer else None,
        "random_return": to_number(manifest.get("random_return_mean")),
        "last_evaluation": last_evaluation,
        "best_evaluation": evaluations.best,
        "evaluations": len(evaluations.rows),
        "non_finite": sum(seen["count"] for seen in metrics.non_finite.values()),
        "rows": metrics.rows,
    }


def _status(manifest: dict[str, Any], metrics: MetricsHistory, is_alive: bool) -> str:
    """The manifest's word, but `stale` where it says running and nobody holds the lock."""
    written = manifest.get("status")
    if written == "running":
        return "running" if is_alive else "stale"
    if written in ENDED:
        return str(written)
    if is_alive:
        return "running"
    return "unknown" if metrics.rows else "waiting"


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


def flatten(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """Every value of the manifest as (dotted name, text), in the order of the file."""
    rows: list[tuple[str, str]] = []
    _flatten_into(rows, "", manifest)
    return rows


def _flatten_into(rows: list[tuple[str, str]], prefix: str, value: Any, depth: int = 0) -> None:
    if len(rows) >= MAX_CONFIGURATION_ROWS:
        return
    if isinstance(value, dict) and value and depth < 8:
        for name, item in value.items():
            _flatten_into(rows, f"{prefix}.{name}" if prefix else str(name), item, depth + 1)
        return
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    rows.append((prefix[:MAX_TEXT], text[:MAX_TEXT]))
