"""`BMPCConfig`: TD-MPC2's settings with the defaults of BMPC, and what BMPC adds. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from worldflux.core.config.validation import Count, Natural, Share, strict_dataclass
from worldflux.models.tdmpc2.config import LAPTOP, TDMPC2Config

_PRESETS: dict[str, dict[str, Any]] = {
    "ci": {"latent_dim": 32, "hidden_dim": 32, "enc_dim": 32, "reanalyze_batch_size": 2},
    "laptop": {
        "enc_dim": 128,
        "hidden_dim": 128,
        "latent_dim": 128,
        **LAPTOP,
        "reanalyze_batch_size": 10,  # the official share of the batch
    },
    "official_5m": {"init_v": "published"},
}


@strict_dataclass
class BMPCConfig(TDMPC2Config):
    """BMPC (Wang et al. 2025): a V ensemble, and a policy that imitates the planner.

    Every field of `TDMPC2Config` means the same here. The defaults are those of the official code,
    which has one configuration for all of its benchmarks.
    """

    model_type: str = "bmpc"
    latent_dim: Count = 512  #: numbers in a latent state
    num_q_networks: Annotated[int, Ge(2)] = 2  #: value functions V(z) in the ensemble
    horizon: Count = 3  #: steps that are planned, and unrolled in training
    momentum: Share = 0.0  #: how much of the last plan's mean is kept

    _: KW_ONLY
    enc_dim: Count | None = 256  #: width of the encoder; unset: hidden_dim
    log_std_min: float = -3.0  #: least log deviation of the policy
    log_std_max: float = 1.0  #: largest log deviation of the policy
    discount_heuristic: bool = True  #: fill episode_length from the environment's time limit
    expl_log_std_min: float = -2.0  #: least log deviation of the policy in a reanalysing plan
    expl_log_std_max: float = 1.0  #: largest log deviation of the policy in a reanalysing plan
    td_horizon: Count = 1  #: imagined steps of the policy in a value target
    reanalyze_interval: Natural = 10  #: updates between two that plan stored states again; 0: none
    reanalyze_batch_size: Count = 20  #: sequences planned again then; at most the whole batch
    reanalyze_horizon: Count = 3  #: steps that are planned then
    #: initial values: "corrected" is about 0, as in TD-MPC2; "published" repeats the missing
    #: initialisation of the code behind the published curves
    init_v: Literal["corrected", "published"] = "corrected"

    MODEL_TYPES: ClassVar[tuple[str, ...]] = ("bmpc",)
    UNREAD: ClassVar[frozenset[str]] = TDMPC2Config.UNREAD | {
        "task_dim",
        "task_action_dims",
        "task_episode_lengths",
        "leak_task_grad",
    }
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = _PRESETS

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_order("expl_log_std_min", "expl_log_std_max", may_be_equal=False)
        if self.num_tasks > 1:
            self.refuse("num_tasks", "1: BMPC learns one task, TD-MPC2 several")
