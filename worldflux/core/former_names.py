"""Names of earlier versions: asking for one says what to write today."""

from __future__ import annotations

from typing import Any

_TODAY = {
    ("ModelOutput", "preds"): "predictions",
    ("WorldModel", "update"): "observe(observations, actions)",
    ("WorldModel", "initial_state"): "encode(observation) of an episode's first observation",
    ("WorldModel", "io_contract"): "modalities, action_spec and capabilities",
    ("TrainingConfig", "with_updates"): "with_overrides",
    ("TrainingConfig", "resolve_device"): "device; the Trainer resolves it",
}


def missing(owner: Any, name: str) -> AttributeError:
    """The error for an attribute that `owner` does not have; a former name gets today's."""
    told = f"{type(owner).__name__!r} object has no attribute {name!r}"
    for kind in type(owner).__mro__:
        today = _TODAY.get((kind.__name__, name))
        if today is not None:
            return AttributeError(f"{told}: it is now {today}")
    return AttributeError(told)
