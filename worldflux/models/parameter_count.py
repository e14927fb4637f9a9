"""The number of learnable parameters of a configuration, in closed form. No torch.

The catalogue shows it beside the label that the documentation gives a preset, because the two
do not agree everywhere. Frozen copies (TD-MPC2's target ensemble, DreamerV3's slow critic) are
not counted. Sources: shared specs tdmpc2.md 1.7 and dreamerv3.md 1.1-1.6; a test compares every
preset with the sum over the real model on the meta device.
"""

from __future__ import annotations

import math
from itertools import pairwise

from worldflux.core.config import DreamerV3Config, TDMPC2Config, WorldModelConfig
from worldflux.errors import ConfigurationError


def count_parameters(config: WorldModelConfig) -> int:
    """Learnable parameters of the model that `config` describes.

    Raises:
        ConfigurationError: for a configuration of neither family, or of several observations.
    """
    if len(config.observation_modalities) != 1:
        raise ConfigurationError("the closed form counts models of one observation")
    if isinstance(config, TDMPC2Config):
        return sum(tdmpc2_parameters(config).values())
    if isinstance(config, DreamerV3Config):
        return sum(dreamerv3_parameters(config).values())
    raise ConfigurationError(f"no parameter count for model_type {config.model_type!r}")


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _conv(inputs: int, outputs: int, kernel: int) -> int:
    return inputs * outputs * kernel * kernel + outputs


# ---------------------------------------------------------------------------- TD-MPC2


def tdmpc2_parameters(config: TDMPC2Config) -> dict[str, int]:
    """Learnable parameters of each TD-MPC2 network (spec 1.1-1.4)."""
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


# ---------------------------------------------------------------------------- DreamerV3


def dreamerv3_parameters(config: DreamerV3Config) -> dict[str, int]:
    """Learnable parameters of each DreamerV3 module (spec 1.2-1.5).

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
