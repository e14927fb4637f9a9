"""The status line of a run: what it is, how far it is, how well it does, and what degraded."""

from __future__ import annotations

import json
from typing import Any

from worldflux.dashboard.history import EvaluationHistory, MetricsHistory, to_count

MAX_TEXT = 300
MAX_CONFIGURATION_ROWS = 500
STATUSES = ("running", "completed", "interrupted", "failed")


def summarize(
    manifest: dict[str, Any],
    metrics: MetricsHistory,
    evaluations: EvaluationHistory,
    lock_held: bool,
) -> dict[str, Any]:
    """The numbers of one run, every one of them finite or None.

    The logs are newer than the manifest while a run goes, so steps come from the logs where they
    have them.
    """
    last = metrics.last
    step = last.step if last else to_count(manifest.get("global_step"))
    total = _total_steps(manifest)
    status = _status(manifest, metrics, lock_held)
    speed = metrics.updates_per_s()
    left = None
    if status == "running" and speed and total is not None and step is not None:
        left = max(0.0, (total - step) / speed)
    last_evaluation = evaluations.rows[-1] if evaluations.rows else None
    env_steps = last.env_steps if last and last.env_steps is not None else None
    return {
        "status": status,
        "model": _text(manifest.get("model_id") or manifest.get("model")),
        "environment": _environment_name(manifest),
        "data_mode": _text(manifest.get("data_mode")),
        "classification": _text(manifest.get("run_classification")),
        "degraded_modes": _texts(manifest.get("degraded_modes")),
        "parameters": to_count(manifest.get("parameter_count")),
        "step": step,
        "total_steps": total,
        "env_steps": env_steps if env_steps is not None else to_count(manifest.get("env_steps")),
        "updates_per_s": speed,
        "time_left_s": left,
        "wall_s": last.wall_s if last else None,
        "last_evaluation": last_evaluation,
        "best_evaluation": evaluations.best,
        "evaluations": len(evaluations.rows),
        "non_finite": sum(seen["count"] for seen in metrics.non_finite.values()),
        "rows": metrics.rows,
    }


def _status(manifest: dict[str, Any], metrics: MetricsHistory, lock_held: bool) -> str:
    """The manifest's word, but `stale` where it says running and nobody holds the lock."""
    written = manifest.get("status")
    if written == "running":
        return "running" if lock_held else "stale"
    if written in STATUSES:
        return str(written)
    if lock_held:
        return "running"
    return "unknown" if metrics.rows else "waiting"


def _total_steps(manifest: dict[str, Any]) -> int | None:
    training = manifest.get("training_config")
    total = to_count(training.get("total_steps")) if isinstance(training, dict) else None
    return total if total and total > 0 else None


def _environment_name(manifest: dict[str, Any]) -> str | None:
    environment = manifest.get("environment")
    if isinstance(environment, dict):
        environment = environment.get("id")
    return _text(environment or manifest.get("environment_id"))


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
