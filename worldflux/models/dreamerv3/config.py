"""`DreamerV3Config`: the documented fields, the official agent's settings, recipes and presets; the
observation keys and action parts that it describes. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt

from worldflux.core.config.base import DynamicsType, LatentType, TrainingRecipe, WorldModelConfig
from worldflux.core.config.validation import (
    Count,
    Natural,
    NotNegative,
    Positive,
    Rate,
    Share,
    fail,
    renamed,
    strict_dataclass,
    warn_renamed,
)
from worldflux.errors import ConfigurationError

DOCUMENTED_LOSS_SCALES: dict[str, float] = {
    "reconstruction": 1.0,
    "kl_dynamics": 0.5,
    "kl_representation": 0.1,
    "reward": 1.0,
    "continue": 1.0,
}
# Read with these values when the dict leaves them out (docs/dreamerv3.md, Losses).
OPTIONAL_LOSS_SCALES: dict[str, dict[str, float]] = {
    "documented": {"actor": 1.0, "critic": 1.0, "replay_critic": 0.0, "barlow": 0.05},
    "official": {"actor": 1.0, "critic": 1.0, "replay_critic": 0.3, "barlow": 0.05},
}

# What the official recipe sets where the caller set nothing (docs/dreamerv3.md, Recipes).
OFFICIAL_RECIPE: dict[str, Any] = {
    "actor_critic": True,
    "learning_rate": 4e-5,
    "actor_lr": 4e-5,
    "critic_lr": 4e-5,
    "optimizer": "laprop",
    "lr_warmup_updates": 1000,
    "loss_scales": {**DOCUMENTED_LOSS_SCALES, "kl_dynamics": 1.0},
    "continue_horizon": 333,
    "cnn_kernels": (5, 5, 5, 5),
    "cnn_downsample": "pool",
    "replay_context": 1,
    "batch_length": 64,
}


def _documented(*sizes: int) -> dict[str, Any]:
    names = ("deter_dim", "stoch_discrete", "stoch_classes", "hidden_dim", "cnn_depth")
    return dict(zip(names, sizes, strict=True))


def _official(deter: int, hidden: int, classes: int, depth: int) -> dict[str, Any]:
    return {"recipe": "official", **_documented(deter, 32, classes, hidden, depth)}


_PRESETS: dict[str, dict[str, Any]] = {
    "ci": _documented(64, 4, 4, 32, 8),
    "size12m": _documented(2048, 16, 16, 256, 48),
    "size25m": _documented(4096, 32, 16, 512, 48),
    "size50m": _documented(4096, 32, 32, 640, 48),
    "size100m": _documented(8192, 32, 32, 768, 48),
    "size200m": _documented(8192, 32, 32, 1024, 48),
    "official_xl": _official(8192, 1024, 64, 64),
    "official_1m": _official(512, 64, 4, 4),
    "official_12m": _official(2048, 256, 16, 16),
    "official_25m": _official(3072, 384, 24, 24),
    "official_50m": _official(4096, 512, 32, 32),
    "official_100m": _official(6144, 768, 48, 48),
    "official_200m": _official(8192, 1024, 64, 64),
    "official_400m": _official(12288, 1536, 96, 96),
    # The official recipe, small and in haste: CartPole-v1 in minutes of one core.
    "laptop": {
        "recipe": "official",
        **_documented(128, 8, 8, 64, 8),
        "cnn_kernels": (4, 4, 4, 4),
        "cnn_downsample": "stride",  # a third of the cost of convolving at full size and pooling
        "learning_rate": 6e-4,  # at 1e-3 a policy that has learned is soon lost again
        "lr_warmup_updates": 100,
        "batch_size": 16,
        "batch_length": 32,
        "train_ratio": 64.0,
    },
}
# R2-Dreamer: the same agents without a decoder, known by their whole id.
_PRESETS |= {
    f"r2dreamer:{size}": {**_PRESETS[size], "representation": "barlow"}
    for size in ("laptop", *(f"official_{n}m" for n in (1, 12, 25, 50, 100, 200, 400)))
}


@strict_dataclass
class DreamerV3Config(WorldModelConfig):
    """DreamerV3 (Hafner et al. 2025): an RSSM with categorical latents and an actor-critic.

    The first block of fields keeps its documented defaults. `recipe` selects numbers and switches
    only, on one code path: "documented", or "official" (what the official code does today); a
    value that the caller sets wins over either.
    """

    model_type: str = "dreamer"
    latent_type: LatentType = LatentType.CATEGORICAL
    dynamics_type: DynamicsType = DynamicsType.RSSM
    stoch_discrete: Count = 32  #: categorical variables in the latent
    stoch_classes: Count = 32  #: classes of each of them
    encoder_type: Literal["cnn", "mlp"] = "cnn"  #: of images: "cnn", or "mlp" over their pixels
    decoder_type: Literal["cnn", "mlp"] = "cnn"  #: of images: "cnn", or "mlp" over their pixels
    cnn_depth: Count = 48  #: channels of the first convolution
    cnn_kernels: tuple[Count, ...] = (4, 4, 4, 4)  #: kernel size of each convolution
    learning_rate: Positive = 1e-4
    grad_clip: Positive = 1000.0
    kl_free: NotNegative = 1.0  #: nats of each KL loss that cost nothing
    #: weight of each loss by name
    loss_scales: dict[str, NotNegative] = field(
        default_factory=lambda: dict(DOCUMENTED_LOSS_SCALES)
    )
    use_symlog: bool = True  #: compress vector observations and targets with symlog
    use_twohot: bool = True  #: predict rewards and values in bins
    reward_num_bins: Annotated[int, Ge(3)] = 255  #: bins of rewards and values
    reward_bin_min: float = -20.0  #: least bin, as symlog
    reward_bin_max: float = 20.0  #: largest bin, as symlog
    actor_critic: bool = False  #: learn a policy in imagination
    imagination_horizon: Count = 15  #: steps imagined to learn the policy
    actor_lr: Positive = 3e-5  #: learning rate of the policy
    critic_lr: Positive = 3e-5  #: learning rate of the value
    gamma: Rate = 0.997  #: discount, where continue_horizon sets none
    lambda_: Share = 0.95  #: lambda of the imagined returns
    slow_critic_fraction: Share = 0.02  #: how fast the slow value follows
    actor_entropy_coef: NotNegative = 3e-4  #: weight of the policy's entropy
    return_normalization: bool = True  #: scale returns by their spread

    _: KW_ONLY
    #: numbers and switches: "documented", or "official" as the official code has them today
    recipe: Literal["documented", "official"] = "documented"
    #: share of the KL loss that trains the dynamics
    kl_balance: Annotated[float, Gt(0), Lt(1)] | None = None
    #: what trains encoder and latents: decoded observations, or "barlow" without a decoder
    representation: Literal["reconstruction", "barlow"] = "reconstruction"
    barlow_lambda: NotNegative = 5e-4  #: weight of the Barlow loss's redundancy
    #: with "barlow": also learn a decoder that shows what the agent imagines, and trains nothing
    probe_decoder: bool = False
    blocks: Count = 8  #: blocks of the recurrent network
    decoder_blocks: Count = 8  #: blocks of the image decoder's first layer
    num_dynamics_layers: Count = 1  #: layers before the recurrent network
    num_prior_layers: Count = 2  #: layers of the prior
    num_posterior_layers: Count = 1  #: layers of the posterior
    num_mlp_layers: Count = 3  #: layers of encoder, decoder, policy and value
    num_reward_layers: Count = 1  #: layers of the reward head
    num_continue_layers: Count = 1  #: layers of the continue head
    cnn_mults: tuple[Count, ...] = (2, 3, 4, 4)  #: channels of each convolution, times cnn_depth
    #: how images shrink: by stride, or by pooling
    cnn_downsample: Literal["stride", "pool"] = "stride"
    #: uniform share in the latent's probabilities
    unimix: Annotated[float, Ge(0), Le(0.999)] = 0.01
    #: uniform share in discrete actions' probabilities
    actor_unimix: Annotated[float, Ge(0), Le(0.999)] = 0.0
    actor_std_min: Positive = 0.1  #: least deviation of continuous actions
    actor_std_max: float = 1.0  #: largest deviation of continuous actions
    reward_outscale: float = 0.0  #: scale of the reward head's first weights
    critic_outscale: float = 0.0  #: scale of the value's first weights
    actor_outscale: float = 0.01  #: scale of the policy's first weights
    optimizer: Literal["adam", "laprop"] = "adam"  #: "adam", or "laprop" with adaptive clipping
    lr_warmup_updates: Natural = 0  #: updates in which the learning rate rises
    agc_clip: Positive = 0.3  #: limit of adaptive gradient clipping (laprop)
    adam_eps: Positive = 1e-8  #: the optimiser's epsilon
    actor_adam_eps: Positive = 1e-5  #: epsilon for policy and value
    actor_grad_clip: Positive = 100.0  #: largest gradient norm of policy and value
    #: steps ahead that count: the discount is 1 - 1 / this, and learned with the ends
    continue_horizon: Annotated[int, Ge(2)] | None = None
    slow_critic_scale: NotNegative = 1.0  #: weight of the slow value's loss
    return_percentile_low: NotNegative = 5.0  #: lower percentile of the returns' spread
    #: upper percentile of the returns' spread
    return_percentile_high: Annotated[float, Ge(0), Le(100)] = 95.0
    return_decay: Share = 0.99  #: how slowly that spread follows
    return_limit: Positive = 1.0  #: least spread that divides returns
    #: steps that start a sequence from saved latents
    replay_context: Annotated[int, Ge(0), Le(1)] = 0
    batch_size: Count = 16  #: sequences in a batch, where [training] sets none
    batch_length: Count = 64  #: steps of a sequence, where [training] sets none
    train_ratio: Positive = 512.0  #: replayed steps for each environment step

    MODEL_TYPES: ClassVar[tuple[str, ...]] = ("dreamer", "dreamerv3")
    UNREAD: ClassVar[frozenset[str]] = frozenset({"latent_type", "dynamics_type", "latent_dim"})
    RECIPE_FIELDS: ClassVar[frozenset[str]] = frozenset({"actor_critic"})
    DECODER_FIELD: ClassVar[str] = "probe_decoder"
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = _PRESETS

    @classmethod
    def canonical_fields(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Older `num_categories`, `mlp_layers` and model_type under today's names, with warnings.

        `num_categories` is the classes of one latent: with `stoch_dim` it gives the groups.
        """
        result = renamed(cls, values, {"mlp_layers": "num_mlp_layers"})
        if result.get("model_type") == "dreamerv3":
            warn_renamed(cls, "model_type = dreamerv3", "model_type = dreamer")
            result["model_type"] = "dreamer"
        if "num_categories" in result:
            warn_renamed(cls, "num_categories", "stoch_classes")
            classes = result.pop("num_categories")
            stoch_dim = result.get("stoch_dim")
            if not isinstance(classes, int) or classes < 1:
                fail(cls, "num_categories", classes, "a whole number of at least 1")
            if stoch_dim is not None and stoch_dim % classes:
                fail(cls, "stoch_dim", stoch_dim, f"a multiple of num_categories={classes}")
            if result.get("stoch_classes", classes) != classes:
                fail(cls, "num_categories", classes, "nothing, because stoch_classes is given too")
            result["stoch_classes"] = classes
            if stoch_dim is not None:
                result["stoch_discrete"] = stoch_dim // classes
        return result

    def __post_init__(self) -> None:
        if self.recipe == "official":
            for name, value in OFFICIAL_RECIPE.items():
                if name not in self._given_fields:  # type: ignore[attr-defined]
                    setattr(self, name, dict(value) if isinstance(value, dict) else value)
        if "stoch_dim" not in self.set_fields:
            self.stoch_dim = self.stoch_discrete * self.stoch_classes
        if len(self.obs_shape) == 1 and not self.observation_modalities:
            for name in {"encoder_type", "decoder_type"} - self.set_fields:
                setattr(self, name, "mlp")
        super().__post_init__()
        product = self.stoch_discrete * self.stoch_classes
        if self.stoch_dim != product:
            self.refuse("stoch_dim", f"stoch_discrete * stoch_classes = {product}")
        if self.deter_dim % self.blocks:
            self.refuse("deter_dim", f"a multiple of blocks={self.blocks}", "blocks")
        self.require_order("reward_bin_min", "reward_bin_max", may_be_equal=False)
        self.require_order("return_percentile_low", "return_percentile_high")
        if not self.cnn_kernels or len(self.cnn_kernels) != len(self.cnn_mults):
            allowed = f"{len(self.cnn_mults)} kernel sizes, as many as cnn_mults"
            self.refuse("cnn_kernels", allowed, "cnn_mults")
        if self.cnn_downsample == "stride" and min(self.cnn_kernels) < 2:
            self.refuse("cnn_kernels", "kernel sizes of at least 2")
        self._check_representation()
        known = {**DOCUMENTED_LOSS_SCALES, **OPTIONAL_LOSS_SCALES[self.recipe]}
        for name in self.loss_scales:
            if name not in known:
                allowed = "keys among " + ", ".join(map(repr, known))
                fail(type(self), "loss_scales", name, allowed)

    def _check_representation(self) -> None:
        if self.representation == "barlow":
            if self.batch_size * self.batch_length < 2:
                self.refuse("batch_size", "2 steps in a batch for representation = 'barlow'")
        elif self.probe_decoder:
            self.refuse("probe_decoder", "false: representation = 'reconstruction' has a decoder")

    @property
    def decodes(self) -> bool:
        """Whether the model has a decoder of observations: its own, or a probe."""
        return self.representation == "reconstruction" or self.probe_decoder

    @property
    def resolved_loss_scales(self) -> dict[str, float]:
        """Every loss's scale: the given ones over the recipe's, `kl_balance` applied."""
        base = OFFICIAL_RECIPE["loss_scales"] if self.recipe == "official" else {}
        scales = {**DOCUMENTED_LOSS_SCALES, **base, **OPTIONAL_LOSS_SCALES[self.recipe]}
        scales |= self.loss_scales
        if self.kl_balance is not None:
            total = scales["kl_dynamics"] + scales["kl_representation"]
            scales["kl_dynamics"] = self.kl_balance * total
            scales["kl_representation"] = (1 - self.kl_balance) * total
        return scales

    @property
    def feature_dim(self) -> int:
        """Width of what the heads read: deter and flattened stoch."""
        return self.deter_dim + self.stoch_dim

    @property
    def discount(self) -> float:
        """`1 - 1 / continue_horizon` where that is set, `gamma` otherwise."""
        return self.gamma if self.continue_horizon is None else 1.0 - 1.0 / self.continue_horizon

    def for_agent(self, time_limit: int | None) -> DreamerV3Config:
        """An agent needs its actor and critic; `loss` alone trains the world model only."""
        return self if "actor_critic" in self.set_fields else self.with_overrides(actor_critic=True)

    def training_recipe(self) -> TrainingRecipe:
        """16 x 64 sequences, `train_ratio` replayed steps per environment step."""
        return TrainingRecipe(
            batch_size=self.batch_size,
            sequence_length=self.batch_length + self.replay_context,
            learning_rate=self.learning_rate,
            grad_clip=None if self.optimizer == "laprop" else self.grad_clip,
            warmup_transitions=1024,
            pretrain=False,
            updates_per_step=self.train_ratio / (self.batch_size * self.batch_length),
            crosses_episodes=True,
        )

    def update_ratio(self, batch_size: int, sequence_length: int) -> float:
        """`train_ratio` over the steps that a batch learns from: all but the replay context."""
        return self.train_ratio / (batch_size * (sequence_length - self.replay_context))


@dataclass(frozen=True)
class ObservationKey:
    """One named observation: an image `[C, H, W]` (uint8 or float in [0, 1]), a vector of real
    numbers, or discrete: whole numbers from 0 to classes - 1, where -1 is missing.
    """

    name: str
    kind: Literal["image", "vector", "discrete"]
    shape: tuple[int, ...]
    classes: int = 0

    @property
    def size(self) -> int:
        """Numbers in one observation, after one-hot encoding."""
        return math.prod(self.shape) * max(self.classes, 1)


def observation_keys(config: DreamerV3Config) -> tuple[ObservationKey, ...]:
    """The observations of `config`, sorted by name as the official code sorts them."""
    keys = []
    for name, spec in sorted(config.observation_modalities.items()):
        where = f"observation_modalities[{name!r}]"
        kind, shape = spec.get("kind", "vector"), tuple(spec.get("shape", ()))
        if kind not in ("image", "vector", "discrete"):
            allowed = "expected 'image', 'vector' or 'discrete'"
            raise ConfigurationError(f"kind {kind!r} is not allowed: {allowed}", where=where)
        if kind == "image" and len(shape) != 3:
            raise ConfigurationError(f"an image has shape (C, H, W), not {shape}", where=where)
        if not shape:
            raise ConfigurationError("shape () is not allowed: write (1,)", where=where)
        classes = int(spec.get("classes", 0)) if kind == "discrete" else 0
        if kind == "discrete" and classes < 2:
            raise ConfigurationError("a discrete observation needs classes >= 2", where=where)
        keys.append(ObservationKey(name, kind, shape, classes))
    return tuple(keys)


@dataclass(frozen=True)
class ActionPart:
    """One named action: `width` columns of the action vector, from `start` on."""

    name: str
    kind: Literal["continuous", "discrete"]
    width: int
    start: int

    @property
    def columns(self) -> slice:
        """Its columns of the action vector `[..., A]`."""
        return slice(self.start, self.start + self.width)


def action_parts(config: DreamerV3Config) -> tuple[ActionPart, ...]:
    """The actions of `config`, sorted by name: one, or several at once, which are written as
    `action_spec={"kind": ..., "dim": total, "parts": {name: {"kind": ..., "dim": width}}}`.
    """
    whole = {"action": {"kind": config.action_type, "dim": config.action_dim}}
    parts, start = [], 0
    for name, spec in sorted((config.action_spec.get("parts") or whole).items()):
        kind, width = spec.get("kind"), spec.get("dim")
        if kind not in ("continuous", "discrete") or not isinstance(width, int) or width < 1:
            raise ConfigurationError(
                f"DreamerV3 takes parts of kind 'continuous' or 'discrete' with a dim >= 1, "
                f"not {dict(spec)!r}",
                where=f"action_spec[{name!r}]",
            )
        parts.append(ActionPart(name, kind, width, start))
        start += width
    if start != config.action_dim:
        raise ConfigurationError(
            f"the parts have {start} columns together, action_dim is {config.action_dim}",
            where="action_spec",
        )
    return tuple(parts)
