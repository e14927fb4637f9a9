"""What TD-MPC2 can do with a configuration, and which ones it refuses."""

from __future__ import annotations

from worldflux.core.limits import ExperienceLimits, symexp_number
from worldflux.core.specs import Capability
from worldflux.errors import ConfigurationError
from worldflux.models.registry import advice_for

from .config import TDMPC2Config


def capabilities_of(config: TDMPC2Config) -> set[Capability]:
    """What a model of this configuration can do."""
    has = {
        Capability.LATENT_DYNAMICS,
        Capability.REPRESENTATION,
        Capability.REWARD_PRED,
        Capability.POLICY,
        Capability.VALUE,
    }
    if config.mpc:
        has.add(Capability.PLANNING)
    if config.episodic:
        has.add(Capability.CONTINUE_PRED)
    if config.use_decoder:
        has.add(Capability.OBS_DECODER)
    return has


def limits_of(config: TDMPC2Config) -> ExperienceLimits:
    """Values lie between the outer bins; without a termination head no end is a true one."""
    return ExperienceLimits(
        low=symexp_number(config.vmin),
        high=symexp_number(config.vmax),
        discount=max(config.discounts),
        terminations=config.episodic,
        ends_setting="architecture.episodic = true" if config.num_tasks == 1 else "",
        low_key="vmin",
        high_key="vmax",
    )


def require_possible(config: TDMPC2Config) -> None:
    """Refuse what this family cannot learn.

    Raises:
        ConfigurationError: for discrete actions, several modalities, or images with several tasks.
    """
    if config.action_type != "continuous":
        raise ConfigurationError(
            f"TD-MPC2 plans over continuous actions in [-1, 1], not {config.action_type!r} ones",
            hint=advice_for(config.action_type),
        )
    if len(config.observation_modalities) != 1:
        raise ConfigurationError(
            f"TD-MPC2 takes one observation, not {sorted(config.observation_modalities)}",
            hint=f"in make_env of dataset.py: env = gymnasium.wrappers.{_one_of(config)} (or "
            "choose a model that takes them all: worldflux models list)",
        )
    if len(config.obs_shape) not in (1, 3):
        raise ConfigurationError(
            f"TD-MPC2 takes vectors (D,) or images (C, 64, 64), not {config.obs_shape}"
        )
    if config.is_image and config.num_tasks > 1:
        raise ConfigurationError("TD-MPC2 learns several tasks from vectors only, not from images")


def _one_of(config: TDMPC2Config) -> str:
    """Gymnasium's wrapper that makes one observation of several: all numbers, or one image."""
    kinds = {name: entry.get("kind") for name, entry in config.observation_modalities.items()}
    image = next((name for name, kind in kinds.items() if kind == "image"), None)
    if image is None:
        return "FlattenObservation(env)"
    keys = [int(key) if key.isdigit() else key for key in image.split("/")]  # numbers: of a Tuple
    at = "".join(f"[{key!r}]" for key in keys)
    return f"TransformObservation(env, lambda o: o{at}, env.observation_space{at})"
