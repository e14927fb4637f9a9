"""The parts of a DreamerV3 model: the one place where configuration fields become layer sizes, and
what fills the component slots.

Each slot's part is a thin face over the model's own networks, so that a replacement can stand in
its place. What a replacement must return is said at each class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from worldflux.core.config import DreamerV3Config
from worldflux.core.outputs import ModelOutput, prediction_of
from worldflux.core.payloads import ConditionPayload
from worldflux.core.state import State
from worldflux.errors import ConfigurationError
from worldflux.models.dreamerv3.heads import ContinueHead, Policy, ScalarHead
from worldflux.models.dreamerv3.maths import ReturnNormalizer
from worldflux.models.dreamerv3.networks import Decoder, Encoder
from worldflux.models.dreamerv3.rssm import RSSM, Latent, Posterior, squashed
from worldflux.models.dreamerv3.spaces import ActionPart, ObservationKey
from worldflux.nn.scalars import symexp


def latent_of(state: State) -> Latent:
    """The latent of a state that holds `deter` and `stoch`."""
    return Latent(state["deter"], state["stoch"])


def dreamer_state(latent: Latent, logits: Tensor) -> State:
    """deter `[B, D]`, stoch `[B, S, C]` and the raw logits it was drawn from `[B, S, C]`."""
    return State({"deter": latent.deter, "stoch": latent.stoch, "logits": logits})


class TokenEncoder:
    """Slot `observation_encoder`: observations -> State with `tokens` `[B, E]`.

    The posterior joins tokens with the recurrent state, so a replacement returns tokens of the
    same width and the model does the rest (encode, loss, acting).
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def encode(self, observations: dict[str, Tensor], deterministic: bool = False) -> State:
        return State({"tokens": self.encoder(observations)})


class ActionSquash:
    """Slot `action_conditioner`: a / max(1, |a|) per element; no action is a zero action."""

    def __init__(self, action_width: int) -> None:
        self.action_width = action_width

    def condition(
        self, state: State, action: Tensor | None, conditions: ConditionPayload
    ) -> Tensor | None:
        if action is None:
            return state["deter"].new_zeros(state.batch_size, self.action_width)
        return squashed(action)


class RSSMDynamics:
    """Slot `dynamics_model`: one step of the sequence model and the prior.

    A replacement returns a State with `deter` `[B, D]`, `stoch` and `logits` `[B, S, C]`.
    """

    def __init__(self, rssm: RSSM) -> None:
        self.rssm = rssm

    def transition(
        self, state: State, conditioned: Tensor | None, deterministic: bool = False
    ) -> State:
        assert conditioned is not None
        deter = self.rssm.next_deter(latent_of(state), conditioned)
        logits = self.rssm.prior_logits(deter)
        noise = None if deterministic else self.rssm.noise(state.batch_size)
        return dreamer_state(Latent(deter, self.rssm.draw(logits, noise)), logits)


def observe_by_steps(
    transition: Callable[..., State],
    rssm: RSSM,
    tokens: Tensor,
    actions: Tensor,
    is_first: Tensor,
    initial: Latent,
    noise: Tensor | None,
) -> Posterior:
    """`RSSM.observe` with any `transition` of the slots, one step after the other.

    Args:
        transition: `WorldModel.transition`; it conditions the actions itself.
        actions: `[B, T, A]`, the ones before each step, as the environment takes them.
    """
    latent, steps = initial, []
    for t in range(tokens.shape[1]):
        keep = (~is_first[:, t]).to(tokens.dtype).unsqueeze(-1)
        kept = State({"deter": latent.deter * keep, "stoch": latent.stoch * keep.unsqueeze(-1)})
        predicted = transition(kept, actions[:, t] * keep, deterministic=noise is None)
        logits = rssm.posterior_logits(predicted["deter"], tokens[:, t])
        stoch = rssm.draw(logits, None if noise is None else noise[:, t])
        latent = Latent(predicted["deter"], stoch)
        steps.append((latent.deter, stoch, logits, predicted["logits"]))
    deter, stoch, logits, prior = (torch.stack(column, 1) for column in zip(*steps, strict=True))
    return Posterior(Latent(deter, stoch), logits, prior)


class HeadsDecoder:
    """Slot `decoder_module`: predictions of observations, reward, continuation and value.

    Predictions are in the units of the environment: vectors after symexp, images in [0, 1],
    discrete observations as probabilities `[B, *shape, classes]`, `continue` as a probability.
    One observation is called "obs"; several go by their names.

    A replacement is trained by its predictions: squared error of observations (in symlog space
    for vectors) and of rewards, cross entropy of `continue`.
    """

    def __init__(
        self,
        keys: tuple[ObservationKey, ...],
        decoder: Decoder,
        reward: ScalarHead,
        continuation: ContinueHead,
        critic: ScalarHead,
        use_symlog: bool,
    ) -> None:
        self.keys, self.decoder, self.use_symlog = keys, decoder, use_symlog
        self.reward, self.continuation, self.critic = reward, continuation, critic

    def decode(self, state: State, conditions: ConditionPayload) -> ModelOutput:
        latent = latent_of(state)
        features = latent.features()
        raw = self.decoder(latent.deter, latent.stoch.flatten(-2))
        predictions = {
            prediction_name(key, self.keys): in_units(raw[key.name], key, self.use_symlog)
            for key in self.keys
        }
        predictions["reward"] = self.reward(features).pred()
        predictions["continue"] = torch.sigmoid(self.continuation(features).float())
        predictions["value"] = self.critic(features).pred()
        return ModelOutput(predictions=predictions, state=state)


def prediction_name(key: ObservationKey, keys: tuple[ObservationKey, ...]) -> str:
    """The name that `decode` gives an observation."""
    return prediction_of(key.name, len(keys))


def in_units(raw: Tensor, key: ObservationKey, use_symlog: bool) -> Tensor:
    """A decoder output `[B, ...]` in the units of the observation."""
    if key.kind == "discrete":
        return torch.softmax(raw.float(), -1)
    if key.kind == "vector" and use_symlog:
        return symexp(raw.float())
    return raw.float()


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
