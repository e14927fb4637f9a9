"""What a model declares about itself: capabilities, modalities, actions, states, predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

ActionKind = Literal["none", "continuous", "discrete", "token", "latent", "text"]
ACTION_KINDS: tuple[ActionKind, ...] = (
    "none",
    "continuous",
    "discrete",
    "token",
    "latent",
    "text",
)


class Capability(StrEnum):
    """What a model can do; a model declares only what is true of it."""

    LATENT_DYNAMICS = "latent_dynamics"
    OBS_DECODER = "obs_decoder"
    REPRESENTATION = "representation"
    REWARD_PRED = "reward_pred"
    CONTINUE_PRED = "continue_pred"
    POLICY = "policy"
    VALUE = "value"
    PLANNING = "planning"


@dataclass(frozen=True)
class ModalitySpec:
    """One named observation: its kind, its shape without batch axes and its dtype by name."""

    kind: Literal["image", "vector"]
    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class ActionSpec:
    """The action space: `dim` entries in [low, high], or `dim` choices when discrete."""

    kind: ActionKind
    dim: int
    low: float = -1.0
    high: float = 1.0


@dataclass(frozen=True)
class StateSpec:
    """Shape of each state tensor without the batch axis."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class PredictionSpec:
    """Shape of each prediction that `decode` returns, without the batch axis."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class SequenceLayout:
    """Names of the leading axes of each tensor, such as {"obs": "BT", "rewards": "TB"}."""

    axes: dict[str, str] = field(default_factory=dict)
