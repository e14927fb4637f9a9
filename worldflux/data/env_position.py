"""What environments told last, as a state that a checkpoint holds; and whether it is the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldflux.envs.vector import EnvStep

_TOLD = ("reward", "is_first", "is_last", "is_terminal")
_FLAGS = (*_TOLD, "continues")


def step_state(step: EnvStep) -> dict[str, Any]:
    """The arrays of a step as tensors, by name."""
    named = step.obs if isinstance(step.obs, dict) else {"": step.obs}
    return {
        "obs": {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in named.items()},
        **{name: torch.from_numpy(getattr(step, name)) for name in _FLAGS},
    }


def read_step(state: dict[str, Any]) -> EnvStep:
    """The step that `step_state` was given."""
    named = {name: value.numpy() for name, value in state["obs"].items()}
    none = torch.zeros(len(state["reward"]), dtype=torch.bool)  # of runs that did not know it
    flags = {name: state.get(name, none).numpy() for name in _FLAGS}
    obs = named[""] if named.keys() == {""} else named
    return EnvStep(obs=obs, restarted=np.zeros(len(flags["reward"]), bool), **flags)


def same_step(one: EnvStep, other: EnvStep) -> NDArray[np.bool_]:
    """For each environment `[N]`, whether two steps tell the same to the last bit."""
    ours, theirs = step_state(one), step_state(other)
    pairs = [(ours[name], theirs[name]) for name in _TOLD]
    pairs += [(value, theirs["obs"][name]) for name, value in ours["obs"].items()]
    equal = [(a == b).reshape(len(a), -1).all(1).numpy() for a, b in pairs]
    return np.asarray(np.logical_and.reduce(equal))
