"""`TDMPC2Config`: the documented fields, the official algorithm's settings, and the presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le

from worldflux.core.config.base import (
    TASK,
    DynamicsType,
    LatentType,
    TrainingRecipe,
    WorldModelConfig,
)
from worldflux.core.config.validation import (
    Count,
    Natural,
    NotNegative,
    Positive,
    Rate,
    Share,
    renamed,
    strict_dataclass,
)

# Where the official algorithm (its config.yaml) differs from the documented defaults.
OFFICIAL = {"horizon": 3, "momentum": 0.0, "grad_clip": 20.0, "discount_heuristic": True}

# How a laptop plans and learns, whatever the sizes of the networks.
LAPTOP = {
    "num_samples": 128,
    "num_elites": 16,
    "num_pi_trajs": 16,
    "iterations": 4,
    "tau": 0.02,  # half as many updates: targets follow twice as fast
    "learning_rate": 6e-4,
    "batch_size": 128,
    "updates_per_step": 0.5,
}


def _official(*sizes: int) -> dict[str, Any]:
    names = ("enc_dim", "hidden_dim", "latent_dim", "num_enc_layers", "num_q_networks")
    return {**OFFICIAL, **dict(zip(names, sizes, strict=True))}


_PRESETS: dict[str, dict[str, Any]] = {
    "ci": {"latent_dim": 32, "hidden_dim": 32, "num_q_networks": 2},
    "5m": {"latent_dim": 256, "hidden_dim": 256},
    "proof_5m": {"latent_dim": 256, "hidden_dim": 256, **OFFICIAL},
    "5m_legacy": {"latent_dim": 256, "hidden_dim": 256},
    "19m": {"latent_dim": 512, "hidden_dim": 512},
    "48m": {"latent_dim": 512, "hidden_dim": 1024},
    "317m": {"latent_dim": 1024, "hidden_dim": 2048},
    "laptop": {
        **_official(128, 128, 128, 2, 2),
        **LAPTOP,
    },
    "official_1m": _official(256, 384, 128, 2, 2),
    "official_5m": _official(256, 512, 512, 2, 5),
    "official_19m": _official(1024, 1024, 768, 3, 5),
    "official_48m": _official(1792, 1792, 768, 4, 5),
    "official_317m": _official(4096, 4096, 1376, 5, 8),
}


@strict_dataclass
class TDMPC2Config(WorldModelConfig):
    """TD-MPC2 (Hansen et al. 2024): SimNorm latents, a Q ensemble and MPPI planning.

    The first block of fields keeps its documented defaults; the second names every number of the
    official algorithm, so that no constant hides in the code.
    """

    model_type: str = "tdmpc2"
    obs_shape: tuple[int, ...] = (39,)
    latent_type: LatentType = LatentType.SIMNORM
    dynamics_type: DynamicsType = DynamicsType.MLP
    simnorm_dim: Count = 8  #: numbers in each softmax group of the latent
    num_hidden_layers: Count = 2  #: hidden layers of dynamics, reward, policy and value
    task_dim: Count = 96  #: size of a task embedding
    num_tasks: Count = 1  #: tasks that one model learns
    num_q_networks: Annotated[int, Ge(2)] = 5  #: value functions in the ensemble
    horizon: Count = 5  #: steps that are planned, and unrolled in training
    num_samples: Count = 512  #: action sequences tried in each planning iteration
    num_elites: Count = 64  #: best sequences, from which the next iteration starts
    temperature: Positive = 0.5  #: of the elites' weights; higher trusts the best more
    momentum: Share = 0.1  #: how much of the last plan's mean is kept
    gamma: Rate = 0.99  #: discount, where episode_length sets none
    use_decoder: bool = False  #: also reconstruct observations

    _: KW_ONLY
    enc_dim: Count | None = None  #: width of the encoder; unset: hidden_dim
    num_enc_layers: Count = 2  #: layers of the encoder
    num_channels: Count = 32  #: channels of the image encoder
    num_bins: Annotated[int, Ge(2)] = 101  #: bins of rewards and values
    vmin: float = -10.0  #: least reward or value, as symlog
    vmax: float = 10.0  #: largest reward or value, as symlog
    dropout: Annotated[float, Ge(0), Le(0.999)] = 0.01  #: of the value functions' first layer
    log_std_min: float = -10.0  #: least log deviation of the policy
    log_std_max: float = 2.0  #: largest log deviation of the policy
    entropy_coef: NotNegative = 1e-4  #: weight of the policy's entropy
    #: sequences that the policy proposes to the planner
    num_pi_trajs: Natural = 24
    iterations: Count = 6  #: planning iterations for one action
    min_std: Positive = 0.05  #: least deviation of planned actions
    max_std: Positive = 2.0  #: deviation of planned actions at the start
    rho: Positive = 0.5  #: weight of each later step in the losses
    consistency_coef: NotNegative = 20.0  #: weight of the latent prediction loss
    reward_coef: NotNegative = 0.1  #: weight of the reward loss
    value_coef: NotNegative = 0.1  #: weight of the value loss
    termination_coef: NotNegative = 1.0  #: weight of the termination loss
    reconstruction_coef: NotNegative = 1.0  #: weight of the reconstruction loss
    tau: Rate = 0.01  #: how fast target networks follow
    enc_lr_scale: Positive = 0.3  #: learning rate of the encoder, relative
    pi_adam_eps: Positive = 1e-5  #: Adam's epsilon for the policy
    episode_length: Count | None = None  #: agent steps of an episode; set, it decides the discount
    discount_heuristic: bool = False  #: fill episode_length from the environment's time limit
    discount_denom: Positive = 5.0  #: the discount is 1 - discount_denom / episode_length
    discount_min: NotNegative = 0.95  #: least discount
    discount_max: Share = 0.995  #: largest discount
    episodic: bool = False  #: learn where episodes end before their time limit
    mpc: bool = True  #: plan each action; false: the policy acts alone
    task_action_dims: tuple[int, ...] | None = None  #: action dimensions of each task
    task_episode_lengths: tuple[int, ...] | None = None  #: agent steps of an episode of each task
    leak_task_grad: bool = False  #: the official code's gradient leak between tasks
    batch_size: Count = 256  #: sequences in a batch, where [training] sets none
    updates_per_step: Positive = 1.0  #: gradient updates for each environment step

    MODEL_TYPES: ClassVar[tuple[str, ...]] = ("tdmpc2",)
    UNREAD: ClassVar[frozenset[str]] = frozenset(
        {"latent_type", "dynamics_type", "deter_dim", "stoch_dim"}
    )
    RECIPE_FIELDS: ClassVar[frozenset[str]] = frozenset({"grad_clip", "episode_length"})
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = _PRESETS

    @classmethod
    def canonical_fields(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Older `num_q` and `mlp_layers` under today's names, each with a DeprecationWarning."""
        older = {"num_q": "num_q_networks", "mlp_layers": "num_hidden_layers"}
        return renamed(cls, values, older)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent_dim % self.simnorm_dim:
            allowed = f"a multiple of simnorm_dim={self.simnorm_dim}"
            self.refuse("latent_dim", allowed, "simnorm_dim")
        self.require_order("num_elites", "num_samples")
        self.require_order("min_std", "max_std")
        self.require_order("discount_min", "discount_max")
        self.require_order("vmin", "vmax", may_be_equal=False)
        self.require_order("log_std_min", "log_std_max", may_be_equal=False)
        for name in ("task_action_dims", "task_episode_lengths"):
            values = getattr(self, name)
            if values is not None and len(values) != self.num_tasks:
                self.refuse(name, f"one number for each of num_tasks={self.num_tasks}", "num_tasks")
        if self.task_action_dims and max(self.task_action_dims) > self.action_dim:
            self.refuse("task_action_dims", f"numbers of at most action_dim={self.action_dim}")
        if self.episodic and self.num_tasks > 1:
            allowed = "false for several tasks (the head takes no task)"
            self.refuse("episodic", allowed, "num_tasks")

    @property
    def encoder_dim(self) -> int:
        """Width of the encoder's hidden layers."""
        return self.hidden_dim if self.enc_dim is None else self.enc_dim

    @property
    def effective_task_dim(self) -> int:
        """Size of the task embedding: 0 for one task."""
        return self.task_dim if self.num_tasks > 1 else 0

    @property
    def discounts(self) -> tuple[float, ...]:
        """One discount a task: `gamma`, or the official heuristic from the episode length."""
        if self.task_episode_lengths is not None:
            return tuple(self._heuristic(length) for length in self.task_episode_lengths)
        if self.episode_length is not None:
            return (self._heuristic(self.episode_length),) * self.num_tasks
        return (self.gamma,) * self.num_tasks

    def _heuristic(self, episode_length: int) -> float:
        fraction = episode_length / self.discount_denom
        return min(max((fraction - 1) / fraction, self.discount_min), self.discount_max)

    def for_agent(self, time_limit: int | None) -> TDMPC2Config:
        """With `discount_heuristic` the time limit decides the discount."""
        if not self.discount_heuristic or self.episode_length is not None or time_limit is None:
            return self
        return self.with_overrides(episode_length=time_limit)

    def for_tasks(
        self, action_dims: tuple[int, ...], time_limits: tuple[int | None, ...]
    ) -> TDMPC2Config:
        """With an embedding of each task; `discount_heuristic` gives each its discount."""
        observed = {n: v for n, v in self.observation_modalities.items() if n != TASK}
        fields: dict[str, Any] = {"num_tasks": len(action_dims), "task_action_dims": action_dims}
        if self.discount_heuristic and None not in time_limits:
            fields["task_episode_lengths"] = time_limits
        return self.with_overrides(observation_modalities=observed, **fields)

    def training_recipe(self) -> TrainingRecipe:
        """The official loop: horizon + 1 rows, clip 20, random steps to begin with.

        Where episodes end, sequences run over their ends: inside of episodes only the last of H
        transitions could be an end, and no encoded state would ever have been one step before it.
        """
        seed_steps = max(1000, 5 * self.episode_length) if self.episode_length else 1000
        return TrainingRecipe(
            batch_size=self.batch_size,
            sequence_length=self.horizon + 1,
            learning_rate=self.learning_rate,
            grad_clip=self.grad_clip if "grad_clip" in self.set_fields else 20.0,
            warmup_transitions=seed_steps,
            pretrain=True,
            updates_per_step=self.updates_per_step,
            crosses_episodes=self.episodic,
            least_rows=self.horizon + 1,
        )
