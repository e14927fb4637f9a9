"""The networks of a configuration: the one place where fields become layer sizes."""

from __future__ import annotations

from collections.abc import Sequence

from worldflux.core.config import DreamerV3Config
from worldflux.errors import ConfigurationError
from worldflux.models.dreamerv3.heads import ContinueHead, Policy, ScalarHead
from worldflux.models.dreamerv3.maths import ReturnNormalizer
from worldflux.models.dreamerv3.networks import Decoder, Encoder
from worldflux.models.dreamerv3.rssm import RSSM
from worldflux.models.dreamerv3.spaces import ActionPart, ObservationKey


def feature_width(config: DreamerV3Config) -> int:
    """Width of the input of every head: deter and flattened stoch."""
    return config.deter_dim + config.stoch_discrete * config.stoch_classes


def build_encoder(config: DreamerV3Config, keys: Sequence[ObservationKey]) -> Encoder:
    """The encoder of every observation key."""
    return Encoder(
        keys,
        width=config.hidden_dim,
        num_layers=config.num_mlp_layers,
        depth=config.cnn_depth,
        mults=config.cnn_mults,
        kernels=config.cnn_kernels,
        downsample=config.cnn_downsample,
        images_to_mlp=config.encoder_type == "mlp",
        use_symlog=config.use_symlog,
    )


def build_rssm(config: DreamerV3Config, token_width: int) -> RSSM:
    """The recurrent state-space model over tokens of that width."""
    return RSSM(
        deter=config.deter_dim,
        groups=config.stoch_discrete,
        classes=config.stoch_classes,
        hidden=config.hidden_dim,
        blocks=config.blocks,
        action_width=config.action_dim,
        token_width=token_width,
        dynamics_layers=config.num_dynamics_layers,
        prior_layers=config.num_prior_layers,
        posterior_layers=config.num_posterior_layers,
        unimix=config.unimix,
    )


def build_decoder(config: DreamerV3Config, keys: Sequence[ObservationKey]) -> Decoder:
    """Raises ConfigurationError when the decoder's blocks do not divide its sizes."""
    images_to_mlp = config.decoder_type == "mlp"
    if any(key.kind == "image" for key in keys) and not images_to_mlp:
        channels = config.cnn_depth * config.cnn_mults[-1]
        for name, width in (("deter_dim", config.deter_dim), ("cnn_depth * mult", channels)):
            if width % config.decoder_blocks:
                raise ConfigurationError(
                    f"{name} = {width} is not a multiple of decoder_blocks={config.decoder_blocks}",
                    where="DreamerV3Config.decoder_blocks",
                )
    return Decoder(
        keys,
        deter=config.deter_dim,
        stoch=config.stoch_discrete * config.stoch_classes,
        width=config.hidden_dim,
        num_layers=config.num_mlp_layers,
        depth=config.cnn_depth,
        mults=config.cnn_mults,
        kernels=config.cnn_kernels,
        upsample=config.cnn_downsample,
        images_to_mlp=images_to_mlp,
        blocks=config.decoder_blocks,
    )


def build_reward_head(config: DreamerV3Config) -> ScalarHead:
    """The reward predictor, zero at first where `reward_outscale` is 0."""
    return _scalar_head(config, config.num_reward_layers, config.reward_outscale)


def build_critic(config: DreamerV3Config) -> ScalarHead:
    """The critic, zero at first where `critic_outscale` is 0."""
    return _scalar_head(config, config.num_mlp_layers, config.critic_outscale)


def _scalar_head(config: DreamerV3Config, num_layers: int, outscale: float) -> ScalarHead:
    return ScalarHead(
        feature_width(config),
        config.hidden_dim,
        num_layers,
        outscale=outscale,
        num_bins=config.reward_num_bins,
        bin_range=(config.reward_bin_min, config.reward_bin_max),
        use_twohot=config.use_twohot,
        use_symlog=config.use_symlog,
    )


def build_continue_head(config: DreamerV3Config) -> ContinueHead:
    """The predictor of the episode going on."""
    return ContinueHead(feature_width(config), config.hidden_dim, config.num_continue_layers)


def build_actor(config: DreamerV3Config, parts: Sequence[ActionPart]) -> Policy:
    """The policy over every action part."""
    return Policy(
        feature_width(config),
        config.hidden_dim,
        config.num_mlp_layers,
        parts,
        outscale=config.actor_outscale,
        unimix=config.actor_unimix,
        std_range=(config.actor_std_min, config.actor_std_max),
    )


def build_return_normalizer(config: DreamerV3Config) -> ReturnNormalizer:
    """The moving percentiles of the imagined returns."""
    return ReturnNormalizer(
        rate=1 - config.return_decay,
        low=config.return_percentile_low,
        high=config.return_percentile_high,
        limit=config.return_limit,
    )
