"""What DreamerV3 learns from a batch: world-model losses over replayed experience, imagination,
and the losses of actor and critic (Nature 2025, eq. 2-3, "Critic learning", "Actor learning").

Legend: B batch, T time, N starts, H horizon, F features, A action. Imagined sequences have H + 1
states; index 0 is the replayed state that they start from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux.core.batch import DEMONSTRATION, Batch
from worldflux.core.outputs import prediction_of
from worldflux.nn import log_probs_at, symlog

from .barlow import barlow_loss
from .config import DreamerV3Config, ObservationKey
from .imagination import Rollout, imagine, imagined_outcomes
from .maths import (
    MeanSquared,
    ReturnNormalizer,
    ScalarPrediction,
    bernoulli_loss,
    kl_divergence,
    lambda_returns,
    unit_image,
)
from .networks import ActionDistribution
from .rssm import Latent, Posterior, from_codes

if TYPE_CHECKING:
    from .world_model import DreamerV3WorldModel


class Experience(NamedTuple):
    """Steps to learn from, `[B, T, ...]`, after `context` leading steps of the batch."""

    observations: dict[str, Tensor]
    previous_actions: Tensor  # [B, T, A]: taken before each observation
    rewards: Tensor
    terminal: Tensor
    first: Tensor
    last: Tensor
    initial: Latent
    actions: Tensor  # [B, T, A]: taken after each observation
    demonstration: Tensor | None  # weight of imitating them


def experience_of(
    batch: Batch,
    observations: dict[str, Tensor],
    actions: Tensor,
    replay_context: int,
    zero: Latent,
) -> Experience:
    """Cut the replay context off a batch, and shift its actions `[B, T, A]`.

    With a context of one step and stored latents (`extras` "deter" and "stoch"), the first step
    gives only the initial latent and the previous action of the second. Otherwise the sequence
    starts from the `zero` latent `[B, ...]`, and all its steps are learned from.
    """
    stored = {"deter", "stoch"} <= batch.extras.keys() and replay_context < batch.length
    context = replay_context if stored else 0
    if context:
        previous = actions[:, context - 1 : -1]
        codes = batch.extras["stoch"][:, context - 1]
        deter = batch.extras["deter"][:, context - 1].to(zero.deter.dtype)
        initial = Latent(deter, from_codes(codes, zero.stoch.shape[-1]))
    else:
        previous = torch.cat([torch.zeros_like(actions[:, :1]), actions[:, :-1]], 1)
        initial = zero
    imitated = batch.extras.get(DEMONSTRATION)
    return Experience(
        observations={name: value[:, context:] for name, value in observations.items()},
        previous_actions=previous,
        rewards=batch.rewards[:, context:].float(),
        terminal=batch.terminations[:, context:].float(),
        first=batch.firsts[:, context:].bool(),
        last=batch.lasts[:, context:].float(),
        initial=initial,
        actions=actions[:, context:],
        demonstration=None if imitated is None else imitated[:, context:],
    )


def kl_losses(log_q: Tensor, log_p: Tensor, free: float) -> tuple[Tensor, Tensor]:
    """Dynamics and representation loss `[...]` from log-probabilities `[..., S, C]`.

    dyn = max(free, KL(sg(q) | p)), rep = max(free, KL(q | sg(p))). The floor applies to the sum
    over all groups; below it there is no gradient.
    """
    dynamics = kl_divergence(log_q.detach(), log_p).clamp(min=free)
    representation = kl_divergence(log_q, log_p.detach()).clamp(min=free)
    return dynamics, representation


def reconstruction_loss(
    raw: Mapping[str, Tensor],
    observations: Mapping[str, Tensor],
    keys: tuple[ObservationKey, ...],
    use_symlog: bool,
) -> Tensor:
    """The losses `[...]` of all keys, each summed over the key's own axes.

    Images: squared error in [0, 1]; vectors: squared error in symlog space; discrete keys: cross
    entropy. No factor 1/2, no mean over pixels.
    """
    losses = []
    for key in keys:
        target, prediction = observations[key.name], raw[key.name].float()
        axes = tuple(range(-len(key.shape), 0))
        if key.kind == "image":
            error = (prediction - unit_image(target)).square()
        elif key.kind == "discrete":
            known = target >= 0
            index = target.long().clamp(min=0).unsqueeze(-1)
            picked = log_probs_at(prediction, index).squeeze(-1)
            error = -picked * known
        else:
            (error,) = MeanSquared(prediction, use_symlog).loss(target)
        losses.append(error.sum(axes))
    return torch.stack(losses).sum(0)


def decoder_loss(
    model: DreamerV3WorldModel, latent: Latent, observations: Mapping[str, Tensor]
) -> Tensor:
    """`reconstruction_loss` `[B, T]` of what the family's own decoder makes of latents."""
    assert model.decoder is not None
    raw = model.decoder(latent.deter, latent.stoch.flatten(-2))
    return reconstruction_loss(raw, observations, model.keys, model.config.use_symlog)


def prediction_losses(
    predictions: Mapping[str, Tensor],
    names: Mapping[str, ObservationKey],
    experience: Experience,
    continues: Tensor,
    use_symlog: bool,
) -> dict[str, Tensor]:
    """Losses `[...]` of a replaced decoder, from its predictions alone; what it lacks is left out.

    `names` are prediction name -> observation key, `continues` the target of "continue".
    """
    losses, raw = {}, {}
    for name, key in names.items():
        if name in predictions:
            raw[key.name] = predictions[name]
            if key.kind == "discrete":
                raw[key.name] = raw[key.name].clamp(min=1e-6).log()
            elif key.kind == "vector" and use_symlog:
                raw[key.name] = symlog(raw[key.name])
    if raw:
        keys = tuple(key for key in names.values() if key.name in raw)
        observed = experience.observations
        losses["reconstruction"] = reconstruction_loss(raw, observed, keys, use_symlog)
    if "reward" in predictions:
        losses["reward"] = (symlog(predictions["reward"]) - symlog(experience.rewards)).square()
    if "continue" in predictions:
        # Keeps log(0) out: a replaced decoder may answer exactly 0 or 1.
        probability = predictions["continue"].clamp(1e-6, 1 - 1e-6)
        losses["continue"] = F.binary_cross_entropy(probability, continues, reduction="none")
    return losses


def model_losses(
    model: DreamerV3WorldModel, tokens: Tensor, posterior: Posterior, experience: Experience
) -> dict[str, Tensor]:
    """World-model losses `[B, T]` by the names of their scales (eq. 2); "barlow" is one number.

    `tokens` `[B, T, E]` are those that the posterior received.
    """
    config, latent, prior_logits = model.config, posterior.latent, posterior.prior_logits
    if prior_logits is None:
        prior_logits = model.rssm.prior_logits(latent.deter)
    log_q, log_p = model.rssm.log_probs(posterior.logits), model.rssm.log_probs(prior_logits)
    dynamics, representation = kl_losses(log_q, log_p, config.kl_free)
    losses = {"kl_dynamics": dynamics, "kl_representation": representation}
    continues = 1 - experience.terminal
    if config.continue_horizon is not None:
        continues = continues * config.discount
    if not model.uses_own("decoder_module"):
        names = {prediction_of(key.name, len(model.keys)): key for key in model.keys}
        decoded = model.decoded(latent)
        return losses | prediction_losses(decoded, names, experience, continues, config.use_symlog)
    features = latent.features()
    if model.projector is not None:
        weight = model.projector.weight
        losses["barlow"] = barlow_loss(features, tokens, weight, config.barlow_lambda)
    else:
        losses["reconstruction"] = decoder_loss(model, latent, experience.observations)
    (losses["reward"],) = model.reward(features).loss(experience.rewards)
    losses["continue"] = bernoulli_loss(model.continuation(features), continues)
    return losses


# --------------------------------------------------------------------------- behaviour


class BehaviorLoss(NamedTuple):
    """Losses `[N, H]`, and what they were made of."""

    actor: Tensor
    critic: Tensor
    returns: Tensor
    percentiles: Tensor  # [2], the return normaliser after this batch
    advantages: Tensor  # normalised
    entropy: Tensor  # of the policy


BehaviorTerms = tuple[dict[str, Tensor], BehaviorLoss, dict[str, Tensor]]


def behavior_losses(
    model: DreamerV3WorldModel, latent: Latent, experience: Experience
) -> BehaviorTerms:
    """Actor, critic and replay-critic losses from posterior latents `[B, T, ...]`.

    The first two losses never reach the world model.

    Returns: the losses by the names of their scales, what they were made of, scalars to watch.
    """
    start = Latent(latent.deter.detach().flatten(0, 1), latent.stoch.detach().flatten(0, 1))
    allowed = model.allowed_actions(experience.observations)
    if allowed is not None:
        allowed = allowed.flatten(0, 1)
    rollout = imagine(model, start, allowed)
    terms: BehaviorTerms = model.functions["behavior"](model, latent, experience, rollout, allowed)
    return terms


def behavior_terms(
    model: DreamerV3WorldModel,
    latent: Latent,
    experience: Experience,
    rollout: Rollout,
    allowed: Tensor | None,
) -> BehaviorTerms:
    """`behavior_losses` from posterior latents `[B, T, ...]` and the rollout from them."""
    config, imagined, actions = model.config, rollout.features, rollout.actions
    reward, continues = imagined_outcomes(model, imagined)
    behavior = imagination_loss(
        config,
        actions=actions,
        reward=reward,
        continues=continues,
        policy=model.actor.of_hidden(rollout.hidden, _allowed_along(allowed, actions)),
        value=model.critic(imagined),
        slow_value=model.slow_value(imagined),
        normalizer=model.return_normalizer,
    )
    losses = {"actor": behavior.actor, "critic": behavior.critic}
    if experience.demonstration is not None:
        losses["imitation"] = imitation_loss(model, latent, experience)
    if config.resolved_loss_scales["replay_critic"] and experience.rewards.shape[1] > 1:
        features = latent.features()
        losses["replay_critic"], _ = replay_value_loss(
            config,
            last=experience.last,
            terminal=experience.terminal,
            reward=experience.rewards,
            bootstrap=behavior.returns[:, 0].view_as(experience.rewards),
            value=model.critic(features),
            slow_value=model.slow_value(features),
        )
    watched = {
        "imagined_return": behavior.returns.mean(),
        "imagined_reward": reward.mean(),
        "advantage_size": behavior.advantages.abs().mean(),
        "policy_entropy": behavior.entropy.mean(),
    }
    return losses, behavior, watched


def _allowed_along(first: Tensor | None, actions: Tensor) -> Tensor | None:
    """The actions allowed `[N, H, A]` at imagined states: nobody says which after the first."""
    if first is None:
        return None
    return torch.cat([first.float().unsqueeze(1), torch.ones_like(actions[:, 1:])], 1)


def imitation_loss(model: DreamerV3WorldModel, latent: Latent, experience: Experience) -> Tensor:
    """`-w log pi(a)` `[B, T]` of the actions that were demonstrated; w is the batch's weight.

    An episode's last row has no action. Only the actor learns from it.
    """
    assert experience.demonstration is not None
    features = latent.features().detach()
    policy = model.actor(features, model.allowed_actions(experience.observations))
    weight = experience.demonstration * (1 - experience.last)
    return -weight * policy.log_prob(experience.actions)


def imagination_loss(
    config: DreamerV3Config,
    *,
    actions: Tensor,
    reward: Tensor,
    continues: Tensor,
    policy: ActionDistribution,
    value: ScalarPrediction,
    slow_value: Tensor,
    normalizer: ReturnNormalizer,
) -> BehaviorLoss:
    """Actor and critic losses on imagined states.

        weight_i = prod_{j <= i} (discount * continue_j) / discount
        actor_i  = weight_i * (-log pi(a_i) * advantage_i - entropy_coef * H_i)
        critic_i = weight_i * (CE(v_i, R_i) + slow_scale * CE(v_i, slow_i))

    The advantage is (R_i - v_i) / scale, with the *fast* critic's value: the slow critic only
    regularises. REINFORCE for discrete and continuous actions alike. With `continue_horizon`
    the discount is 1 here: the predicted `continues` contain it already.

    Args:
        actions: `[N, H, A]`.
        reward, continues, slow_value: predictions `[N, H + 1]`, index 0 included.
        policy: over `[N, H]`; value: over `[N, H + 1]`.
    """
    horizon = actions.shape[1]
    discount = config.discount if config.continue_horizon is None else 1.0
    with torch.no_grad():
        current = value.pred()
        weight = torch.cumprod(discount * continues, 1)[:, :horizon] / discount
        returns = lambda_returns(
            torch.zeros_like(continues), 1 - continues, reward, current, discount, config.lambda_
        )
        advantages = returns - current[:, :horizon]
        percentiles = torch.zeros(2, device=returns.device)
        if config.return_normalization:
            percentiles = normalizer.updated(returns)
            advantages = advantages / normalizer.scale(percentiles)
        targets = _padded(returns)
    entropy = policy.entropy()
    score = policy.log_prob(actions) * advantages + config.actor_entropy_coef * entropy
    to_returns, to_slow = value.loss(targets, slow_value)
    critic = to_returns + config.slow_critic_scale * to_slow
    actor, critic = -weight * score, weight * critic[:, :horizon]
    return BehaviorLoss(actor, critic, returns, percentiles, advantages, entropy.detach())


def replay_value_loss(
    config: DreamerV3Config,
    *,
    last: Tensor,
    terminal: Tensor,
    reward: Tensor,
    bootstrap: Tensor,
    value: ScalarPrediction,
    slow_value: Tensor,
) -> tuple[Tensor, Tensor]:
    """Critic loss on replayed states and returns of replayed rewards, `[B, T - 1]` each.

    `bootstrap` `[B, T]` is the imagined return from each state. Last steps of an episode are left
    out, because the reward after them belongs to the next episode.
    """
    with torch.no_grad():
        returns = lambda_returns(last, terminal, reward, bootstrap, config.discount, config.lambda_)
        targets = _padded(returns)
    to_returns, to_slow = value.loss(targets, slow_value)
    loss = (1 - last.float()) * (to_returns + config.slow_critic_scale * to_slow)
    return loss[:, :-1], returns


def _padded(returns: Tensor) -> Tensor:
    """One more column, so that the targets have the length of the values; it is cut off later."""
    return torch.cat([returns, torch.zeros_like(returns[:, -1:])], 1)
