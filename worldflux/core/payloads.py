"""What goes into a model: actions, conditions and the input object that holds them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from worldflux.errors import ConfigurationError

from .specs import ACTION_KINDS, ActionKind

_EXTRA_NAME = re.compile(r"wf\.[a-z0-9_]+\.[a-z0-9_]+")
_FIELDS = ("tensor", "tokens", "latent", "text")
_FIELD_OF_KIND = dict(zip(("continuous", "token", "latent", "text"), _FIELDS, strict=True))
_FIELD_OF_KIND["discrete"] = "tensor"


@dataclass
class ActionPayload:
    """One action (or a batch of them) of one kind; exactly one primary representation is set."""

    kind: ActionKind = "none"
    tensor: Tensor | None = None
    tokens: Tensor | None = None
    latent: Tensor | None = None
    text: list[str] | None = None
    extras: dict[str, Any] = field(default_factory=dict)

    def primary(self) -> Tensor | None:
        """The primary tensor `[...]`: `tensor`, `tokens` or `latent`, whichever is set first."""
        for candidate in (self.tensor, self.tokens, self.latent):
            if candidate is not None:
                return candidate
        return None

    def validate(self, *, api_version: str = "v0.2", action_dim: int | None = None) -> None:
        """Check that the payload is consistent with its kind (and with the model's action size).

        Discrete actions are whole numbers `[...]` below `action_dim`, or one-hot rows of floats
        `[..., action_dim]`; of every other kind the last axis is `action_dim`.

        Raises:
            ConfigurationError: (a ValueError) saying what contradicts what.
        """
        if not re.fullmatch(r"v[0-9]+(\.[0-9]+)?", api_version):
            raise ConfigurationError(f"api_version {api_version!r} is not of the form 'v3'")
        if self.kind not in ACTION_KINDS:
            known = ", ".join(map(repr, ACTION_KINDS))
            raise ConfigurationError(f"action kind {self.kind!r} is unknown: known are {known}")
        present = [name for name in _FIELDS if getattr(self, name) is not None]
        expected = [] if self.kind == "none" else [_FIELD_OF_KIND[self.kind]]
        if present != expected:
            raise ConfigurationError(
                f"an action of kind {self.kind!r} carries {' and '.join(expected) or 'nothing'}, "
                f"not {' and '.join(present) or 'nothing'}"
            )
        tensor = self.primary()
        if action_dim is None or tensor is None or tensor.numel() == 0:
            return
        if not tensor.is_floating_point():
            is_index = self.kind == "discrete"
            if is_index and not 0 <= int(tensor.min()) <= int(tensor.max()) < action_dim:
                raise ConfigurationError(f"a discrete action is an index below {action_dim}")
            return
        if tensor.dim() == 0 or tensor.shape[-1] != action_dim:
            raise ConfigurationError(
                f"the action has shape {tuple(tensor.shape)}; its last axis must be {action_dim}"
            )


@dataclass
class ActionSequence:
    """Actions over time: a tensor `[T, B, A]`, or one payload a step.

    Raises:
        ConfigurationError: when it is both or neither.
    """

    tensor: Tensor | None = None
    payloads: list[ActionPayload] | None = None

    def __post_init__(self) -> None:
        if (self.tensor is None) == (self.payloads is None):
            raise ConfigurationError("an action sequence is either a tensor or a list of payloads")


@dataclass
class ConditionPayload:
    """Optional side conditions; keys of `extras` have the form `wf.<domain>.<name>`."""

    text_condition: Tensor | list[str] | None = None
    goal: Tensor | None = None
    spatial: Tensor | None = None
    camera_pose: Tensor | None = None
    extras: dict[str, Any] = field(default_factory=dict)

    def given(self) -> list[str]:
        """Names of the conditions that carry a value."""
        names = ("text_condition", "goal", "spatial", "camera_pose")
        return [name for name in names if getattr(self, name) is not None] + sorted(self.extras)

    def validate(self, declared: Iterable[str] = ()) -> None:
        """Check the extras, which the model must have declared; warn about what it does not read.

        Raises:
            ConfigurationError: (a ValueError) naming the extra.
        """
        known = set(declared)
        for name in self.given():
            if name in self.extras and not _EXTRA_NAME.fullmatch(name):
                raise ConfigurationError(
                    f"condition {name!r} must be named 'wf.<domain>.<name>' in lower case"
                )
            if name in self.extras and name not in known:
                raise ConfigurationError(
                    f"this model takes no condition {name!r}; it declares {sorted(known) or 'none'}"
                )
            if name not in known:
                message = f"this model does not read the condition {name!r}: it changes nothing"
                warnings.warn(message, UserWarning, stacklevel=4)


@dataclass
class WorldModelInput:
    """Observations by modality name, with context, action and conditions."""

    observations: dict[str, Tensor] = field(default_factory=dict)
    context: dict[str, Tensor] = field(default_factory=dict)
    action: ActionPayload | None = None
    conditions: ConditionPayload = field(default_factory=ConditionPayload)
