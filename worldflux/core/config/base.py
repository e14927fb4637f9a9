"""`WorldModelConfig`: what every family's configuration shares, and how it is saved."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from annotated_types import Ge, Le

from worldflux.errors import ConfigurationError, did_you_mean

from .validation import Count, Positive, Settings, checked, strict_dataclass

ConfigT = TypeVar("ConfigT", bound="WorldModelConfig")


#: An observation of this name says which discrete actions are allowed (docs/environments.md).
OBSERVATION, TASK = "obs", "task"  # names where several tasks are observed
ACTION_MASK = "action_mask"


class _AnyCase(StrEnum):
    @classmethod
    def _missing_(cls, value: object) -> _AnyCase | None:
        return next((member for member in cls if member == str(value).lower()), None)


class LatentType(_AnyCase):
    """Type of latent space."""

    DETERMINISTIC = "deterministic"
    GAUSSIAN = "gaussian"
    CATEGORICAL = "categorical"
    VQ = "vq"
    SIMNORM = "simnorm"


class DynamicsType(_AnyCase):
    """Architecture of the dynamics model."""

    RSSM = "rssm"
    MLP = "mlp"
    TRANSFORMER = "transformer"
    SSM = "ssm"


@dataclass(frozen=True)
class TrainingRecipe:
    """A family's own training numbers: what holds where the user set nothing.

    `warmup_transitions` are environment steps of random actions before the first update;
    `pretrain` runs one update for each of them at that point (TD-MPC2 paper, appendix).
    `updates_per_step` is gradient updates per environment step. `crosses_episodes` says whether a
    sampled sequence may run over the end of an episode (the family reads `is_first`), and
    `least_rows` how long a sequence has to be.
    """

    batch_size: int
    sequence_length: int
    learning_rate: float
    grad_clip: float | None
    warmup_transitions: int
    pretrain: bool
    updates_per_step: float
    crosses_episodes: bool = False
    least_rows: int = 2


@strict_dataclass
class WorldModelConfig(Settings):
    """Base configuration of all world models.

    Raises:
        ConfigurationError: naming the field, the value and what is allowed.
    """

    model_type: str = "base"  #: family: it chooses the class
    model_name: str = "unnamed"  #: name of the preset, for people
    obs_shape: tuple[int, ...] = (3, 64, 64)  #: shape of one observation, images as (C, H, W)
    #: numbers in an action, or discrete actions
    action_dim: Annotated[int, Ge(0), Le(1_000_000)] = 6
    #: kind of actions
    action_type: Literal["continuous", "discrete", "token", "latent", "text", "none"] = "continuous"
    #: observations by name, each with kind and shape
    observation_modalities: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: kind and dim of the actions, and more for several
    action_spec: dict[str, Any] = field(default_factory=dict)
    latent_type: LatentType = LatentType.DETERMINISTIC  #: kind of latent (informative)
    latent_dim: Count = 256  #: numbers in a latent state
    deter_dim: Count = 256  #: width of the recurrent state
    stoch_dim: Count = 32  #: numbers in the stochastic state
    dynamics_type: DynamicsType = DynamicsType.MLP  #: kind of dynamics (informative)
    hidden_dim: Count = 512  #: width of the hidden layers
    learning_rate: Positive = 3e-4  #: learning rate, where [training] sets none
    grad_clip: Positive = 100.0  #: largest gradient norm, where [training] sets none
    device: str = "cuda"  #: device the model is built for
    #: of mixed precision; "float32": the device decides
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"

    MODEL_TYPES: ClassVar[tuple[str, ...]] = ()
    UNREAD: ClassVar[frozenset[str]] = frozenset()  # documented for every model; not used by this
    RECIPE_FIELDS: ClassVar[frozenset[str]] = frozenset()  # while unset, not their default holds
    DECODER_FIELD: ClassVar[str] = ""  # the switch that adds a decoder of observations
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __post_init__(self) -> None:
        self._take_from_specs()
        if self.MODEL_TYPES and self.model_type not in self.MODEL_TYPES:
            self.refuse("model_type", repr(self.MODEL_TYPES[0]))
        self._check_obs_shape()
        if self.action_dim < 1 and self.action_type != "none":
            self.refuse("action_dim", "at least 1")
        self._fill_specs()

    @property
    def is_image(self) -> bool:
        """Whether the (single) observation is an image of shape (C, H, W)."""
        return len(self.obs_shape) == 3

    def training_recipe(self) -> TrainingRecipe:
        """The family's own training numbers (batch, sequence, rates) for this configuration."""
        return TrainingRecipe(
            batch_size=16,
            sequence_length=50,
            learning_rate=self.learning_rate,
            grad_clip=self.grad_clip,
            warmup_transitions=1000,
            pretrain=False,
            updates_per_step=1.0,
        )

    def update_ratio(self, batch_size: int, sequence_length: int) -> float:
        """Gradient updates per environment step, for batches of that many and that long sequences.

        The recipe's own number, unless the family counts replayed steps.
        """
        return self.training_recipe().updates_per_step

    def for_agent(self: ConfigT, time_limit: int | None) -> ConfigT:
        """The configuration that an agent in an environment needs, where nobody chose otherwise.

        Args:
            time_limit: the environment's limit in agent steps, None where it has none.
        """
        return self

    def for_tasks(
        self: ConfigT, action_dims: tuple[int, ...], time_limits: tuple[int | None, ...]
    ) -> ConfigT:
        """The configuration that learns several tasks, one of `action_dims` and `time_limits` each.

        Here the task, one-hot, is one more observation.
        """
        return self

    # ------------------------------------------------------------------ presets

    @classmethod
    def from_size(cls: type[ConfigT], size: str, **kwargs: Any) -> ConfigT:
        """A configuration from a size preset; `kwargs` override the preset.

        Raises:
            ConfigurationError: (a ValueError) when the preset or a field is unknown.
        """
        if size not in cls.PRESETS:
            raise ConfigurationError(
                f"{cls.__name__} has no size preset {size!r}: known are "
                + ", ".join(repr(name) for name in cls.PRESETS),
                hint=did_you_mean(str(size), cls.PRESETS),
            )
        return cls(**{"model_name": size, **cls.PRESETS[size], **cls.canonical_fields(kwargs)})

    # ------------------------------------------------------------------ serialisation

    @classmethod
    def from_dict(cls: type[ConfigT], d: Mapping[str, Any]) -> ConfigT:
        """The configuration that `to_dict` wrote, or that an older config.json holds.

        Called on a base class it returns the subclass that `model_type` names. Strict: an unknown
        key is an error with the nearest field name.
        """
        if not isinstance(d, Mapping):
            raise ConfigurationError(f"a configuration is a JSON object, not {type(d).__name__}")
        return _class_for(cls, d.get("model_type", cls.model_type))(**d)

    @classmethod
    def _file(cls, path: str | Path) -> Path:
        target = Path(path)
        return target / "config.json" if target.is_dir() else target

    # ------------------------------------------------------------------ checks and derived specs

    def _check_obs_shape(self) -> None:
        shape = self.obs_shape
        if not shape or any(size < 1 for size in shape):
            self.refuse("obs_shape", "sizes of at least 1, as in (39,) or (3, 64, 64)")
        channels_last = len(shape) == 3 and shape[-1] in (1, 3, 4) and shape[0] not in (1, 3, 4, 9)
        if channels_last:
            warnings.warn(
                f"{type(self).__name__}: obs_shape {shape} looks like (H, W, C); "
                f"images are (C, H, W), here ({shape[2]}, {shape[0]}, {shape[1]})",
                UserWarning,
                stacklevel=5,
            )

    def _take_from_specs(self) -> None:
        """Sizes that were not set come from the specs that were, where those name them."""
        for entry in self.observation_modalities.values():
            if isinstance(entry.get("shape"), list):
                entry["shape"] = tuple(entry["shape"])
        named: dict[str, Any] = {}
        if shapes := self._modality_shapes():
            named["obs_shape"] = next((shape for shape in shapes if len(shape) == 3), shapes[0])
        for name, key in (("action_dim", "dim"), ("action_type", "kind")):
            if key in self.action_spec:
                named[name] = self.action_spec[key]
        unset = {name: value for name, value in named.items() if name not in self.set_fields}
        for name, value in checked(type(self), unset).items():
            setattr(self, name, value)

    def _modality_shapes(self) -> list[tuple[int, ...]]:
        given = (entry.get("shape") for entry in self.observation_modalities.values())
        return [shape for shape in given if isinstance(shape, tuple)]

    def _fill_specs(self) -> None:
        """Derive specs that were not set; refuse ones that contradict the sizes."""
        if not self.observation_modalities:
            kind = "image" if self.is_image else "vector"
            self.observation_modalities = {"obs": {"kind": kind, "shape": self.obs_shape}}
        shapes = self._modality_shapes()
        if shapes and self.obs_shape not in shapes:
            allowed = f"a shape of observation_modalities: {', '.join(map(str, shapes))}"
            self.refuse(
                "obs_shape", allowed, "observation_modalities", hint="set only one of the two"
            )
        if not self.action_spec:
            self.action_spec = {"kind": self.action_type, "dim": self.action_dim}
        kind = self.action_spec.get("kind", self.action_type)
        dim = self.action_spec.get("dim", self.action_dim)
        if (kind, dim) != (self.action_type, self.action_dim):
            self.refuse("action_spec", f"kind {self.action_type!r} and dim {self.action_dim}")


def _class_for(cls: type[ConfigT], model_type: object) -> type[ConfigT]:
    from worldflux.models.registry import our_families

    families = [row.config_class for row in our_families().values()]
    candidates = [kind for kind in (cls, *_below(cls), *families) if issubclass(kind, cls)]
    known = {name: one for one in candidates for name in one.MODEL_TYPES or (one.model_type,)}
    if model_type not in known:
        raise ConfigurationError(
            f"{cls.__name__} does not know model_type {model_type!r}: known are "
            + ", ".join(repr(name) for name in sorted(known)),
            hint=did_you_mean(str(model_type), known),
        )
    return known[str(model_type)]


def _below(cls: type[ConfigT]) -> list[type[ConfigT]]:
    """Every class derived from it, as far as they are imported."""
    return [one for child in cls.__subclasses__() for one in (child, *_below(child))]
