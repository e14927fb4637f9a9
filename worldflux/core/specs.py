"""What a model declares about itself: abilities, observations, actions, outputs, limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from worldflux.errors import ConfigurationError, StateError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

ActionKind = Literal["none", "continuous", "discrete", "token", "latent", "text"]
ACTION_KINDS: tuple[ActionKind, ...] = get_args(ActionKind)
ModalityKind = Literal["image", "vector", "discrete"]


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
    """One named observation: its kind, its shape without batch axes and its dtype by name.

    Images are (C, H, W), uint8 or float in [0, 1]; a "discrete" one holds whole numbers below
    `classes`.
    """

    kind: ModalityKind
    shape: tuple[int, ...]
    dtype: str = "float32"
    classes: int = 0

    @classmethod
    def of(cls, name: str, entry: Mapping[str, Any]) -> ModalitySpec:
        """The spec that `WorldModelConfig.observation_modalities[name]` describes.

        Raises:
            ConfigurationError: for an unknown key or kind, or a shape that does not fit the kind.
        """
        where = f"observation_modalities[{name!r}]"
        _refuse_unknown_keys(entry, ("kind", "shape", "dtype", "classes"), where)
        kind, shape = entry.get("kind", "vector"), tuple(entry.get("shape", ()))
        if kind not in get_args(ModalityKind):
            allowed = ", ".join(map(repr, get_args(ModalityKind)))
            raise ConfigurationError(
                f"kind {kind!r} is not allowed: expected one of {allowed}", where=where
            )
        if not shape or not all(isinstance(size, int) and size > 0 for size in shape):
            raise ConfigurationError(
                f"shape {shape} is not allowed: sizes of at least 1, such as (1,)", where=where
            )
        if kind == "image" and len(shape) != 3:
            raise ConfigurationError(f"an image has shape (C, H, W), not {shape}", where=where)
        classes = entry.get("classes", 0)
        if kind == "discrete" and (not isinstance(classes, int) or classes < 2):
            raise ConfigurationError("a discrete observation needs classes >= 2", where=where)
        return cls(kind, shape, entry.get("dtype", "float32"), classes)


@dataclass(frozen=True)
class ActionSpec:
    """The action space: `dim` entries in [low, high], or `dim` choices when discrete."""

    kind: ActionKind
    dim: int
    low: float = -1.0
    high: float = 1.0

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> ActionSpec:
        """The spec that `WorldModelConfig.action_spec` describes; "parts" is the family's own.

        Raises:
            ConfigurationError: for an unknown key, or low not below high.
        """
        _refuse_unknown_keys(entry, ("kind", "dim", "low", "high", "parts"), "action_spec")
        low, high = float(entry.get("low", -1.0)), float(entry.get("high", 1.0))
        if not low < high:
            raise ConfigurationError(
                f"low = {low} is not allowed: expected less than high = {high}", where="action_spec"
            )
        return cls(entry["kind"], entry["dim"], low, high)


def _refuse_unknown_keys(entry: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in entry:
        if key not in known:
            raise ConfigurationError(
                f"unknown key {key!r}: known are {', '.join(known)}",
                where=where,
                hint=did_you_mean(str(key), known),
            )


@dataclass(frozen=True)
class StateSpec:
    """Shape of each state tensor without the batch axis, such as {"latent": (512,)}."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The spec of tensors `[B, ...]` by name."""
        return cls({name: tuple(tensor.shape[1:]) for name, tensor in tensors.items()})

    def check(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Check that every tensor of the spec is present, `[B, *shape]`; others are ignored.

        Raises:
            StateError: naming the tensor, the shape expected and the one given.
        """
        for name, shape in self.shapes.items():
            if name not in tensors:
                raise StateError(f"{where} has no {name!r}; it has {sorted(tensors)}")
            given = tuple(tensors[name].shape)
            if given[1:] != shape or not given:
                expected = "[B, " + ", ".join(map(str, shape)) + "]" if shape else "[B]"
                raise StateError(f"{where}[{name!r}] has shape {given}, expected {expected}")


@dataclass(frozen=True)
class PredictionSpec(StateSpec):
    """Shape of each prediction that `decode` returns, without the batch axis."""


@dataclass(frozen=True)
class SequenceLayout:
    """Names of the leading axes of each tensor, such as {"obs": "BT", "rewards": "TB"}."""

    axes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ExperienceLimits:
    """The rewards and returns that a model can represent, and the settings that widen the range."""

    low: float = -math.inf  # of rewards and discounted returns, in the environment's units
    high: float = math.inf
    discount: float = 0.0  # of a return; 0 where the model learns no values
    terminations: bool = True  # whether a true end is learned as one
    ends_setting: str = ""  # the setting that makes it so; empty if none does
    low_key: str = ""  # the fields of the configuration that set the bounds
    high_key: str = ""
    in_symlog: bool = True  # whether those fields are in symlog space

    def farthest(self, reward: float) -> float:
        """The largest return of rewards of this size: the same reward for ever."""
        return reward / (1 - self.discount) if self.discount < 1 else reward

    def settings_for(self, lowest: float, highest: float) -> str:
        """The settings under which values of this range fit."""
        settings = []
        for key, value, fits in (
            (self.low_key, lowest, lowest >= self.low),
            (self.high_key, highest, highest <= self.high),
        ):
            if not fits:
                bound = math.ceil(math.log1p(abs(value)) if self.in_symlog else abs(value))
                settings.append(f"architecture.{key} = {math.copysign(bound, value):.1f}")
        return " and ".join(settings)


def symexp_number(bound: float) -> float:
    """The value of a bound in symlog space."""
    return math.copysign(math.expm1(abs(bound)), bound)
