"""The last messages of a run, told from its files: evaluations, checkpoints, troubles, its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from worldflux.dashboard.contained import Entry
from worldflux.dashboard.history import EvaluationHistory

MAX_MESSAGES = 40
MAX_TEXT = 500


def list_messages(
    manifest: dict[str, Any],
    evaluations: EvaluationHistory,
    non_finite: dict[str, dict[str, int]],
    checkpoints: Sequence[Entry],
) -> list[dict[str, Any]]:
    """Messages as {time (unix s or None), level (info | warning | error), text}, newest first.

    Those without a time (troubles of the whole run) come before all others.
    """
    timeless = [*_endings(manifest), *_degraded(manifest), *_broken_numbers(non_finite)]
    timed = [*_evaluated(evaluations), *_saved(checkpoints)]
    timed.sort(key=lambda message: -message["time"])
    return (timeless + timed)[:MAX_MESSAGES]


def _message(text: str, time: float | None = None, level: str = "info") -> dict[str, Any]:
    return {"time": time, "level": level, "text": text[:MAX_TEXT]}


def _endings(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    reason = manifest.get("reason")
    return [_message(f"failed: {reason}", level="error")] if isinstance(reason, str) else []


def _degraded(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    modes = manifest.get("degraded_modes")
    listed = modes if isinstance(modes, list) else []
    return [_message(f"degraded: {mode}", level="warning") for mode in listed[:20]]


def _broken_numbers(non_finite: dict[str, dict[str, int]]) -> list[dict[str, Any]]:
    return [
        _message(
            f"{name} was NaN or infinite {seen['count']} times, last at update {seen['last_step']}",
            level="warning",
        )
        for name, seen in list(non_finite.items())[:20]
    ]


def _evaluated(evaluations: EvaluationHistory) -> list[dict[str, Any]]:
    best = evaluations.best["step"] if evaluations.best else None
    messages = []
    for row in evaluations.rows[-MAX_MESSAGES:]:
        value = row["return_mean"]
        shown = "no finite return" if value is None else f"return {value:.4g}"
        if value is not None and row["return_std"] is not None:
            shown += f" ± {row['return_std']:.3g}"
        if row["episodes"]:
            shown += f" over {row['episodes']} episodes"
        if row["step"] == best:
            shown += ", the best so far"
        text = f"evaluation at update {row['step']:,}: {shown}"
        messages.append(_message(text, row["time"] or 0.0))
    return messages


def _saved(checkpoints: Sequence[Entry]) -> list[dict[str, Any]]:
    newest = sorted(checkpoints, key=lambda entry: entry.modified)[-10:]
    return [_message(f"checkpoint {entry.name} saved", entry.modified) for entry in newest]
