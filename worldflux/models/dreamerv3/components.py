"""The parts that fill the component slots of a DreamerV3 model.

Each is a thin face over the model's own networks, so that a replacement can stand in its place.
What a replacement must return is said at each class.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from worldflux.core.outputs import ModelOutput, prediction_of
from worldflux.core.payloads import ConditionPayload
from worldflux.core.state import State
from worldflux.models.dreamerv3.heads import ContinueHead, ScalarHead
from worldflux.models.dreamerv3.networks import Decoder, Encoder
from worldflux.models.dreamerv3.rssm import RSSM, Latent, Posterior, squashed
from worldflux.models.dreamerv3.spaces import ObservationKey
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
