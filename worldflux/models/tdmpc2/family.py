"""What is asked about TD-MPC2 from outside: its row in the registry with presets, aliases and
parameter counts in closed form, what it can do with a configuration, and what it refuses. No torch.

The catalogue shows the count beside the label that the documentation gives a preset, because the
two do not agree everywhere. The frozen target ensemble is not counted. A test compares every
preset with the sum over the real model on the meta device.
"""

from __future__ import annotations

from itertools import pairwise

from worldflux.core.specs import Capability, ExperienceLimits, symexp_number
from worldflux.errors import ConfigurationError
from worldflux.models.registry import Family, Preset, advice_for, attribute

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


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _conv(inputs: int, outputs: int, kernel: int) -> int:
    return inputs * outputs * kernel * kernel + outputs


def tdmpc2_parameters(config: TDMPC2Config) -> dict[str, int]:
    """Learnable parameters of each TD-MPC2 network."""
    task, action, latent = config.effective_task_dim, config.action_dim, config.latent_dim
    hidden = [config.hidden_dim] * config.num_hidden_layers
    joint = latent + task + action
    logits = _plain_head(joint, hidden, config.num_bins)
    counts = {
        "encoder": _tdmpc2_encoder(config),
        "dynamics": _layer_norm_stack([joint, *hidden, latent]),
        "reward": logits,
        "policy": _plain_head(latent + task, hidden, 2 * action),
        "q_ensemble": config.num_q_networks * logits,
    }
    if config.num_tasks > 1:
        counts["task_embedding"] = config.num_tasks * config.task_dim
    if config.episodic:
        counts["termination"] = _plain_head(latent + task, hidden, 1)
    if config.use_decoder:
        counts["decoder"] = _tdmpc2_decoder(config, hidden)
    return counts


def _layer_norm_stack(widths: list[int]) -> int:
    """Linear with bias and a LayerNorm with scale and shift, for each pair of widths."""
    return sum(_linear(i, o) + 2 * o for i, o in pairwise(widths))


def _plain_head(inputs: int, hidden: list[int], outputs: int) -> int:
    return _layer_norm_stack([inputs, *hidden]) + _linear(hidden[-1], outputs)


def _tdmpc2_encoder(config: TDMPC2Config) -> int:
    if config.is_image:
        channels, flat = config.num_channels, 16 * config.num_channels
        stages = [(config.obs_shape[0], 7), (channels, 5), (channels, 3), (channels, 3)]
        projection = 0 if flat == config.latent_dim else _linear(flat, config.latent_dim)
        return sum(_conv(i, channels, kernel) for i, kernel in stages) + projection
    hidden = [config.encoder_dim] * max(config.num_enc_layers - 1, 1)
    inputs = config.obs_shape[0] + config.effective_task_dim
    return _layer_norm_stack([inputs, *hidden, config.latent_dim])


def _tdmpc2_decoder(config: TDMPC2Config, hidden: list[int]) -> int:
    if not config.is_image:
        inputs = config.latent_dim + config.effective_task_dim
        return _plain_head(inputs, hidden, config.obs_shape[0])
    channels = config.num_channels
    stages = [(channels, 3), (channels, 3), (channels, 5), (config.obs_shape[0], 7)]
    convolutions = sum(_conv(channels, o, kernel) for o, kernel in stages)
    return _linear(config.latent_dim, 16 * channels) + convolutions


def count_parameters(config: TDMPC2Config) -> int:
    """Learnable parameters of the model that `config` describes.

    Raises:
        ConfigurationError: for a configuration of several observations.
    """
    if len(config.observation_modalities) != 1:
        raise ConfigurationError("the closed form counts models of one observation")
    return sum(tdmpc2_parameters(config).values())


def _preset(
    params: str,
    description: str,
    tier: str = "supported",
    role: str = "reference_family",
    rank: int = 0,
) -> Preset:
    return Preset(params, f"TD-MPC2, {description}", tier, role, rank)


_SIZE = "documented dimensions"
_EXACT = "exact official size and recipe"

FAMILY = Family(
    name="tdmpc2",
    title="TD-MPC2",
    config_class=TDMPC2Config,
    load_model=lambda: attribute("worldflux.models.tdmpc2.world_model:TDMPC2WorldModel"),
    presets={
        "tdmpc2:5m": _preset("~5M", "documented defaults"),
        "tdmpc2:proof_5m": _preset(
            "~5M", "official algorithm settings, for parity proof", "advanced", "proof_canonical"
        ),
        "tdmpc2:5m_legacy": _preset("~5M", "legacy compatibility"),
        "tdmpc2:ci": _preset("~0.1M", "small, for quick runs and checks", "supported", "ci_only"),
        "tdmpc2:19m": _preset("~19M", _SIZE),
        "tdmpc2:48m": _preset("~48M", _SIZE),
        "tdmpc2:317m": _preset("~317M", _SIZE),
        **{
            f"tdmpc2:official_{size}": _preset(f"~{size.upper()}", _EXACT, "advanced", rank=1)
            for size in ("1m", "5m", "19m", "48m", "317m")
        },
        "tdmpc2:laptop": _preset(
            "~0.3M", "learns control tasks on a laptop's CPU", "advanced", rank=2
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
    stand_ins=((39,), (9, 64, 64)),
    count_parameters=count_parameters,
    importer="worldflux.models.tdmpc2.official:import_checkpoint",
    import_name="tdmpc2",
    import_files="a .pt file",
    exporter="worldflux.models.tdmpc2.official:export_checkpoint",
    backends=("official_tdmpc2_torch_subprocess",),
    program="worldflux.backends.tdmpc2.program:PROGRAM",
)
