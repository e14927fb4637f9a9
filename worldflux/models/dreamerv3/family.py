"""DreamerV3 as seen from outside: its row in the registry with presets and aliases, what it can do
with a configuration, and which values it can learn. No torch."""

from __future__ import annotations

from worldflux.core.specs import Capability, ExperienceLimits, symexp_number
from worldflux.models.registry import Family, Preset, attribute

from .config import DreamerV3Config


def capabilities_of(config: DreamerV3Config) -> set[Capability]:
    """What a model of this configuration can do."""
    return {
        Capability.LATENT_DYNAMICS,
        Capability.REPRESENTATION,
        Capability.REWARD_PRED,
        Capability.CONTINUE_PRED,
        *((Capability.OBS_DECODER,) if config.decodes else ()),
        *((Capability.POLICY, Capability.VALUE) if config.actor_critic else ()),
    }


def limits_of(config: DreamerV3Config) -> ExperienceLimits | None:
    """Rewards, and returns where a critic learns, lie between the bins; none without two-hot."""
    if not config.use_twohot:
        return None
    low, high = config.reward_bin_min, config.reward_bin_max
    return ExperienceLimits(
        low=symexp_number(low) if config.use_symlog else low,
        high=symexp_number(high) if config.use_symlog else high,
        discount=config.discount if config.actor_critic else 0.0,
        low_key="reward_bin_min",
        high_key="reward_bin_max",
        in_symlog=config.use_symlog,
    )


_DOCUMENTED = "DreamerV3, documented dimensions"
_EXACT = "DreamerV3, exact official size and recipe"
# Learnable parameters of each size, for its default observation.
_SIZES = {"12m": 14_082_574, "25m": 42_155_278, "50m": 52_926_862, "100m": 119_718_414,
          "200m": 147_845_902}  # fmt: skip
_OFFICIAL_SIZES = {"12m": 10_494_158, "25m": 23_489_326, "50m": 41_650_062, "100m": 93_468_238,
                   "200m": 165_948_686, "400m": 372_896_398}  # fmt: skip
_NO_DECODER = "R2-Dreamer: DreamerV3 without a decoder, official size and recipe"
_NO_DECODER_SIZES = {"1m": 770_091, "12m": 11_843_595, "25m": 26_529_931, "50m": 47_059_467,
                     "100m": 105_648_139, "200m": 187_609_611, "400m": 421_650_955}  # fmt: skip

FAMILY = Family(
    name="dreamer",
    title="DreamerV3",
    config_class=DreamerV3Config,
    load_model=lambda: attribute("worldflux.models.dreamerv3.world_model:DreamerV3WorldModel"),
    presets={
        "dreamer:ci": Preset(
            "~0.1M", 176_910, "DreamerV3, small, for quick runs and checks", role="ci_only"
        ),
        **{
            f"dreamerv3:size{size}": Preset(f"~{size.upper()}", count, _DOCUMENTED)
            for size, count in _SIZES.items()
        },
        "dreamerv3:official_xl": Preset(
            "~200-300M", 165_948_686, "DreamerV3, the official default agent, for parity proof",
            "advanced", "proof_canonical",
        ),
        **{
            f"dreamerv3:official_{size}": Preset(
                f"~{size.upper()}", count, _EXACT, "advanced", rank=1
            )
            for size, count in _OFFICIAL_SIZES.items()
        },
        "dreamerv3:laptop": Preset(
            "~0.4M", 363_726, "DreamerV3, learns small tasks on a laptop's CPU", "advanced", rank=3
        ),
        "dreamerv3:official_1m": Preset("~0.7M", 686_846, _EXACT, "advanced", rank=3),
        "r2dreamer:laptop": Preset(
            "~0.3M", 343_067, "R2-Dreamer: DreamerV3 without a decoder, for a laptop's CPU",
            "advanced", rank=4,
        ),
        **{
            f"r2dreamer:official_{size}": Preset(
                f"~{size.upper()}", count, _NO_DECODER, "advanced", rank=4
            )
            for size, count in _NO_DECODER_SIZES.items()
        },
    },
    aliases={
        "dreamer": "dreamerv3:size12m",
        "dreamerv3": "dreamerv3:size12m",
        "dreamer-ci": "dreamer:ci",
        "dreamer-small": "dreamerv3:size12m",
        "dreamer-medium": "dreamerv3:size50m",
        "dreamer-large": "dreamerv3:size200m",
        "dreamerv3:official": "dreamerv3:official_xl",
        "r2dreamer": "r2dreamer:official_12m",
    },
    prefixes=("dreamer", "dreamerv3"),
    picks={
        "discrete": ("dreamerv3:laptop", "discrete actions on CPU"),
        "ALE/": ("dreamerv3:official_12m", "Atari, needs a GPU"),
    },
    also_quick={"worldflux/Catch-v0": "r2dreamer:laptop"},
    observation="image",
    importer="worldflux.models.dreamerv3.official:import_checkpoint",
    import_name="dreamerv3",
    import_files="an .npz file",
    backends=("official_dreamerv3_jax_subprocess", "worldflux_dreamerv3_jax_subprocess"),
    program="worldflux.backends.dreamerv3:PROGRAM",
    variants={("representation", "barlow"): "r2dreamer"},
)  # fmt: skip
