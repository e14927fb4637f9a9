"""TD-MPC2 as seen from outside: its row in the registry with presets and aliases, what it can do
with a configuration, which values it can learn, and what it refuses. No torch."""

from __future__ import annotations

from worldflux.core.specs import Capability, ExperienceLimits, symexp_number
from worldflux.errors import ConfigurationError
from worldflux.models.registry import Family, Preset, advice_for, attribute, find_family

from .config import TDMPC2Config


def capabilities_of(config: TDMPC2Config) -> set[Capability]:
    """What a model of this configuration can do."""
    optional = {
        Capability.PLANNING: config.mpc,
        Capability.CONTINUE_PRED: config.episodic,
        Capability.OBS_DECODER: config.use_decoder,
    }
    return {
        Capability.LATENT_DYNAMICS,
        Capability.REPRESENTATION,
        Capability.REWARD_PRED,
        Capability.POLICY,
        Capability.VALUE,
        *(capability for capability, present in optional.items() if present),
    }


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
    """Refuse what this family, or one that plans like it, cannot learn."""
    row = find_family(config.model_type)
    title = row.title if row else FAMILY.title
    if config.action_type != "continuous":
        raise ConfigurationError(
            f"{title} plans over continuous actions in [-1, 1], not {config.action_type!r} ones",
            hint=advice_for(config.action_type),
        )
    if len(config.observation_modalities) != 1:
        raise ConfigurationError(
            f"{title} takes one observation, not {sorted(config.observation_modalities)}",
            hint=f"in make_env of dataset.py: env = gymnasium.wrappers.{_one_of(config)} (or "
            "choose a model that takes them all: worldflux models list; of a LeRobot data set: "
            f"data.features = {list(config.observation_modalities)[-1:]})",
        )
    if len(config.obs_shape) not in (1, 3):
        raise ConfigurationError(
            f"{title} takes vectors (D,) or images (C, 64, 64), not {config.obs_shape}"
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


_DOCUMENTED = "TD-MPC2, documented dimensions"
_EXACT = "TD-MPC2, exact official size and recipe"
# Learnable parameters of each size, for its default observation.
_SIZES = {"19m": 5_106_282, "48m": 14_403_178, "317m": 56_068_714}
_OFFICIAL_SIZES = {"1m": 1_218_491, "5m": 4_964_458, "19m": 18_077_802, "48m": 47_235_178,
                   "317m": 312_656_857}  # fmt: skip

FAMILY = Family(
    name="tdmpc2",
    title="TD-MPC2",
    config_class=TDMPC2Config,
    load_model=lambda: attribute("worldflux.models.tdmpc2.world_model:TDMPC2WorldModel"),
    presets={
        "tdmpc2:5m": Preset("~5M", 1_373_802, "TD-MPC2, documented defaults"),
        "tdmpc2:proof_5m": Preset(
            "~5M", 1_373_802, "TD-MPC2, official algorithm settings, for parity proof",
            "advanced", "proof_canonical",
        ),
        "tdmpc2:5m_legacy": Preset("~5M", 1_373_802, "TD-MPC2, legacy compatibility"),
        "tdmpc2:ci": Preset(
            "~0.1M", 25_947, "TD-MPC2, small, for quick runs and checks", role="ci_only"
        ),
        **{
            f"tdmpc2:{size}": Preset(f"~{size.upper()}", count, _DOCUMENTED)
            for size, count in _SIZES.items()
        },
        **{
            f"tdmpc2:official_{size}": Preset(f"~{size.upper()}", count, _EXACT, "advanced", rank=1)
            for size, count in _OFFICIAL_SIZES.items()
        },
        "tdmpc2:laptop": Preset(
            "~0.3M", 250_299, "TD-MPC2, learns control tasks on a laptop's CPU", "advanced", rank=2
        ),
    },
    aliases={
        "tdmpc": "tdmpc2:5m",
        "tdmpc2": "tdmpc2:5m",
        "tdmpc2-ci": "tdmpc2:ci",
        "tdmpc-small": "tdmpc2:5m",
        "tdmpc-medium": "tdmpc2:48m",
        "tdmpc-large": "tdmpc2:317m",
        "tdmpc-proof": "tdmpc2:proof_5m",
        "tdmpc2:proof": "tdmpc2:proof_5m",
        "tdmpc-legacy": "tdmpc2:5m_legacy",
    },
    prefixes=("tdmpc2", "tdmpc"),
    action_types=("continuous",),
    picks={
        "Pendulum-v1": ("tdmpc2:ci", "Pendulum: minutes on CPU"),
        "dm_control/": ("tdmpc2:laptop", "DeepMind Control on CPU"),
        "continuous": ("tdmpc2:5m", "continuous actions"),
    },
    episodic_key="episodic",
    importer="worldflux.models.tdmpc2.official:import_checkpoint",
    import_name="tdmpc2",
    import_files="a .pt file",
    exporter="worldflux.models.tdmpc2.official:export_checkpoint",
    backends=("official_tdmpc2_torch_subprocess",),
    program="worldflux.backends.tdmpc2:PROGRAM",
)  # fmt: skip
