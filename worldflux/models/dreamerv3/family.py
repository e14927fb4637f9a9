"""DreamerV3's row in the registry: presets, aliases, and parameter counts in closed form. No torch.

The catalogue shows the count beside the label that the documentation gives a preset, because the
two do not agree everywhere. The frozen slow critic is not counted. A test compares every preset
with the sum over the real model on the meta device.
"""

from __future__ import annotations

import math
from itertools import pairwise

from worldflux.errors import ConfigurationError
from worldflux.models.registry import Family, Preset, attribute

from .config import DreamerV3Config


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _conv(inputs: int, outputs: int, kernel: int) -> int:
    return inputs * outputs * kernel * kernel + outputs


def dreamerv3_parameters(config: DreamerV3Config) -> dict[str, int]:
    """Learnable parameters of each DreamerV3 module.

    The actor and the critic are part of every model; `actor_critic` says whether they are trained.
    """
    stoch = config.stoch_discrete * config.stoch_classes
    feat = config.deter_dim + stoch
    units = config.hidden_dim
    encoder, tokens = _dreamerv3_encoder(config)
    bins = config.reward_num_bins if config.use_twohot else 1
    hidden = [units] * config.num_mlp_layers
    actions = config.action_dim * (1 if config.action_type == "discrete" else 2)
    return {
        "encoder": encoder,
        "rssm": _rssm(config, stoch, tokens),
        "decoder": _dreamerv3_decoder(config, stoch, feat),
        "reward": _rms_head(feat, [units] * config.num_reward_layers, bins),
        "continue": _rms_head(feat, [units] * config.num_continue_layers, 1),
        "actor": _rms_head(feat, hidden, actions),
        "critic": _rms_head(feat, hidden, bins),
    }


def _rms_stack(widths: list[int]) -> int:
    """Linear with bias and an RMSNorm scale, for each pair of widths."""
    return sum(_linear(i, o) + o for i, o in pairwise(widths))


def _rms_head(inputs: int, hidden: list[int], outputs: int) -> int:
    return _rms_stack([inputs, *hidden]) + _linear(hidden[-1], outputs)


def _block_linear(inputs: int, outputs: int, blocks: int) -> int:
    return inputs * outputs // blocks + outputs


def _dreamerv3_encoder(config: DreamerV3Config) -> tuple[int, int]:
    """Parameters, and the width of the tokens that the posterior reads."""
    if not config.is_image or config.encoder_type == "mlp":
        widths = [math.prod(config.obs_shape), *[config.hidden_dim] * config.num_mlp_layers]
        return _rms_stack(widths), config.hidden_dim
    channels = [config.obs_shape[0], *(config.cnn_depth * mult for mult in config.cnn_mults)]
    stages = zip(pairwise(channels), config.cnn_kernels, strict=True)
    count = sum(_conv(i, o, kernel) + o for (i, o), kernel in stages)
    return count, _image_area(config) * channels[-1]


def _image_area(config: DreamerV3Config) -> int:
    """Pixels of the smallest feature map: every stage halves both sides."""
    scale = 2 ** len(config.cnn_mults)
    return (config.obs_shape[1] // scale) * (config.obs_shape[2] // scale)


def _rssm(config: DreamerV3Config, stoch: int, tokens: int) -> int:
    deter, hidden, blocks = config.deter_dim, config.hidden_dim, config.blocks
    count = sum(_rms_stack([width, hidden]) for width in (deter, stoch, config.action_dim))
    inputs = deter + 3 * hidden * blocks
    for _ in range(config.num_dynamics_layers):
        count += _block_linear(inputs, deter, blocks) + deter
        inputs = deter
    count += _block_linear(deter, 3 * deter, blocks)
    count += _rms_head(deter, [hidden] * config.num_prior_layers, stoch)
    return count + _rms_head(deter + tokens, [hidden] * config.num_posterior_layers, stoch)


def _dreamerv3_decoder(config: DreamerV3Config, stoch: int, feat: int) -> int:
    units = config.hidden_dim
    if not config.is_image or config.decoder_type == "mlp":
        return _rms_head(feat, [units] * config.num_mlp_layers, math.prod(config.obs_shape))
    widths = [config.cnn_depth * mult for mult in reversed(config.cnn_mults)]
    area = _image_area(config) * widths[0]
    count = _block_linear(config.deter_dim, area, config.decoder_blocks)
    count += _rms_stack([stoch, 2 * units]) + _linear(2 * units, area) + widths[0]
    kernels = list(reversed(config.cnn_kernels))
    stages = zip(pairwise(widths), kernels[:-1], strict=True)
    count += sum(_conv(i, o, kernel) + o for (i, o), kernel in stages)
    return count + _conv(widths[-1], config.obs_shape[0], kernels[-1])


def count_parameters(config: DreamerV3Config) -> int:
    """Learnable parameters of the model that `config` describes.

    Raises:
        ConfigurationError: for a configuration of several observations.
    """
    if len(config.observation_modalities) != 1:
        raise ConfigurationError("the closed form counts models of one observation")
    return sum(dreamerv3_parameters(config).values())


def _preset(
    params: str,
    description: str,
    tier: str = "supported",
    role: str = "reference_family",
    rank: int = 0,
) -> Preset:
    return Preset(params, f"DreamerV3, {description}", tier, role, rank)


_EXACT = "exact official size and recipe"

FAMILY = Family(
    name="dreamer",
    title="DreamerV3",
    config_class=DreamerV3Config,
    load_model=lambda: attribute("worldflux.models.dreamerv3.world_model:DreamerV3WorldModel"),
    presets={
        "dreamer:ci": _preset("~0.1M", "small, for quick runs and checks", "supported", "ci_only"),
        **{
            f"dreamerv3:size{size}": _preset(f"~{size.upper()}", "documented dimensions")
            for size in ("12m", "25m", "50m", "100m", "200m")
        },
        "dreamerv3:official_xl": _preset(
            "~200-300M", "the official default agent, for parity proof", "advanced",
            "proof_canonical",
        ),
        **{
            f"dreamerv3:official_{size}": _preset(f"~{size.upper()}", _EXACT, "advanced", rank=1)
            for size in ("12m", "25m", "50m", "100m", "200m", "400m")
        },
        "dreamerv3:laptop": _preset(
            "~0.4M", "learns small tasks on a laptop's CPU", "advanced", rank=3
        ),
        "dreamerv3:official_1m": _preset("~0.7M", _EXACT, "advanced", rank=3),
    },
    aliases={
        "dreamer": "dreamerv3:size12m",
        "dreamerv3": "dreamerv3:size12m",
        "dreamer-ci": "dreamer:ci",
        "dreamer-small": "dreamerv3:size12m",
        "dreamer-medium": "dreamerv3:size50m",
        "dreamer-large": "dreamerv3:size200m",
        "dreamerv3:official": "dreamerv3:official_xl",
    },
    prefixes=("dreamer", "dreamerv3"),
    picks={
        "discrete": ("dreamerv3:laptop", "discrete actions on CPU"),
        "ALE/": ("dreamerv3:official_12m", "Atari, needs a GPU"),
    },
    observation="image",
    stand_ins=((3, 64, 64), (39,)),
    count_parameters=count_parameters,
    importer="worldflux.models.dreamerv3.official:import_checkpoint",
    import_name="dreamerv3",
    import_files="an .npz file",
    backends=("official_dreamerv3_jax_subprocess", "worldflux_dreamerv3_jax_subprocess"),
    program="worldflux.backends.dreamerv3.program:PROGRAM",
)  # fmt: skip
