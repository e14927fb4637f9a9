"""What DreamerV3 learns from a batch, in pure functions: the replayed experience, the losses of the
world model, imagined rollouts, and the losses of actor and critic.

Legend: B batch, T time, N starts, H horizon, F features, A action. World-model losses run over
`[B, T, ...]`. Imagined sequences have H + 1 states; index 0 is the replayed state that they start
from. Source: Nature 2025, eq. 2-3, "Critic learning" and "Actor learning".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux.core.batch import Batch
from worldflux.models.dreamerv3.heads import ActionDistribution
from worldflux.models.dreamerv3.maths import (
    MeanSquared,
    ReturnNormalizer,
    ScalarPrediction,
    kl_divergence,
    lambda_returns,
)
from worldflux.models.dreamerv3.rssm import Latent, from_codes
from worldflux.models.dreamerv3.spaces import ObservationKey, unit_image
from worldflux.nn.scalars import symlog


class Experience(NamedTuple):
    """Steps to learn from, `[B, T, ...]`, after `context` leading steps of the batch."""

    observations: dict[str, Tensor]
    previous_actions: Tensor  # [B, T, A]: taken before each observation
    rewards: Tensor
    terminal: Tensor
    first: Tensor
    last: Tensor
    initial: Latent
    context: int


def experience_of(
    batch: Batch,
    observations: dict[str, Tensor],
    actions: Tensor,
    replay_context: int,
    zero: Latent,
) -> Experience:
    """Cut the replay context off a batch and shift its actions.

    With a context of one step and stored latents (`extras` "deter" and "stoch"), the first step
    gives only the initial latent and the previous action of the second. Otherwise the sequence
    starts from zeros, and all its steps are learned from.

    Args:
        observations: named, `[B, T, ...]`; actions: `[B, T, A]`.
        zero: the zero latent `[B, ...]`.
    """
    context = replay_context if {"deter", "stoch"} <= batch.extras.keys() else 0
    if context >= batch.length:
        context = 0
    if context:
        previous = actions[:, context - 1 : -1]
        codes = batch.extras["stoch"][:, context - 1]
        deter = batch.extras["deter"][:, context - 1].to(zero.deter.dtype)
        initial = Latent(deter, from_codes(codes, zero.stoch.shape[-1]))
    else:
        previous = torch.cat([torch.zeros_like(actions[:, :1]), actions[:, :-1]], 1)
        initial = zero
    return Experience(
        observations={name: value[:, context:] for name, value in observations.items()},
        previous_actions=previous,
        rewards=batch.rewards[:, context:].float(),
        terminal=batch.terminations[:, context:].float(),
        first=batch.firsts[:, context:].bool(),
        last=batch.lasts[:, context:].float(),
        initial=initial,
        context=context,
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
) -> dict[str, Tensor]:
    """One loss `[...]` for each key, summed over the key's own axes.

    Images: squared error in [0, 1]; vectors: squared error in symlog space; discrete keys: cross
    entropy. No factor 1/2, no mean over pixels.
    """
    losses = {}
    for key in keys:
        target, prediction = observations[key.name], raw[key.name].float()
        axes = tuple(range(-len(key.shape), 0))
        if key.kind == "image":
            error = (prediction - unit_image(target)).square()
        elif key.kind == "discrete":
            known = target >= 0
            index = target.long().clamp(min=0).unsqueeze(-1)
            picked = F.log_softmax(prediction, -1).gather(-1, index).squeeze(-1)
            error = -picked * known
        else:
            (error,) = MeanSquared(prediction, use_symlog).loss(target)
        losses[key.name] = error.sum(axes)
    return losses


def prediction_losses(
    predictions: Mapping[str, Tensor],
    names: Mapping[str, ObservationKey],
    observations: Mapping[str, Tensor],
    reward: Tensor,
    continues: Tensor,
    use_symlog: bool,
) -> dict[str, Tensor]:
    """Losses `[...]` of a replaced decoder, from its predictions alone; what it lacks is left out.

    Args:
        names: prediction name -> observation key.
        continues: target of the "continue" probability.
    """
    losses = {}
    present = {name: key for name, key in names.items() if name in predictions}
    if present:
        raw = {key.name: _raw(predictions[n], key, use_symlog) for n, key in present.items()}
        parts = reconstruction_loss(raw, observations, tuple(present.values()), use_symlog)
        losses["reconstruction"] = torch.stack(list(parts.values())).sum(0)
    if "reward" in predictions:
        losses["reward"] = (symlog(predictions["reward"]) - symlog(reward)).square()
    if "continue" in predictions:
        # Keeps log(0) out: a replaced decoder may answer exactly 0 or 1.
        probability = predictions["continue"].clamp(1e-6, 1 - 1e-6)
        losses["continue"] = F.binary_cross_entropy(probability, continues, reduction="none")
    return losses


def _raw(prediction: Tensor, key: ObservationKey, use_symlog: bool) -> Tensor:
    if key.kind == "discrete":
        return prediction.clamp(min=1e-6).log()
    return symlog(prediction) if key.kind == "vector" and use_symlog else prediction


class ImaginedStates(NamedTuple):
    """Features `[N, H + 1, F]` and the action taken at each state but the last `[N, H, A]`."""

    features: Tensor
    actions: Tensor


class BehaviorLoss(NamedTuple):
    """Losses per start and step, and what they were made of."""

    actor: Tensor  # [N, H]
    critic: Tensor  # [N, H]
    returns: Tensor  # [N, H]
    percentiles: Tensor  # [2], the return normaliser after this batch
    advantages: Tensor  # [N, H], normalised
    entropy: Tensor  # [N, H], of the policy


@torch.no_grad()
def imagine(
    step: Callable[[Latent, Tensor, int], Latent],
    act: Callable[[Tensor], Tensor],
    start: Latent,
    horizon: int,
) -> ImaginedStates:
    """Roll the policy out in the model, without gradients.

    Args:
        step: (latent, action `[N, A]`, index of the step) -> next latent.
        act: features `[N, F]` -> action `[N, A]`.
        start: latents `[N, ...]`.
    """
    latent = start
    features, actions = [latent.features()], []
    for index in range(horizon):
        actions.append(act(features[-1]))
        latent = step(latent, actions[-1], index)
        features.append(latent.features())
    return ImaginedStates(torch.stack(features, 1), torch.stack(actions, 1))


def imagination_loss(
    *,
    actions: Tensor,
    reward: Tensor,
    continues: Tensor,
    policy: ActionDistribution,
    value: ScalarPrediction,
    slow_value: Tensor,
    normalizer: ReturnNormalizer | None,
    discount: float,
    lambda_: float,
    entropy_coef: float,
    slow_scale: float,
) -> BehaviorLoss:
    """Actor and critic losses on imagined states.

        weight_i = prod_{j <= i} (discount * continue_j) / discount
        actor_i  = weight_i * (-log pi(a_i) * advantage_i - entropy_coef * H_i)
        critic_i = weight_i * (CE(v_i, R_i) + slow_scale * CE(v_i, slow_i))

    The advantage is (R_i - v_i) / scale, with the *fast* critic's value: the slow critic only
    regularises. REINFORCE for discrete and continuous actions alike.

    Args:
        actions: `[N, H, A]`.
        reward, continues, slow_value: predictions `[N, H + 1]`, index 0 included.
        policy: over `[N, H]`; value: over `[N, H + 1]`.
        discount: 1 where `continues` contains the discount already.
    """
    horizon = actions.shape[1]
    with torch.no_grad():
        current = value.pred()
        weight = torch.cumprod(discount * continues, 1)[:, :horizon] / discount
        returns = lambda_returns(
            torch.zeros_like(continues), 1 - continues, reward, current, discount, lambda_
        )
        advantages = returns - current[:, :horizon]
        percentiles = torch.zeros(2, device=returns.device)
        if normalizer is not None:
            percentiles = normalizer.updated(returns)
            advantages = advantages / normalizer.scale(percentiles)
        targets = _padded(returns)
    entropy = policy.entropy()
    score = policy.log_prob(actions) * advantages + entropy_coef * entropy
    to_returns, to_slow = value.loss(targets, slow_value)
    critic = to_returns + slow_scale * to_slow
    return BehaviorLoss(
        actor=-weight * score,
        critic=weight * critic[:, :horizon],
        returns=returns,
        percentiles=percentiles,
        advantages=advantages,
        entropy=entropy.detach(),
    )


def replay_value_loss(
    *,
    last: Tensor,
    terminal: Tensor,
    reward: Tensor,
    bootstrap: Tensor,
    value: ScalarPrediction,
    slow_value: Tensor,
    discount: float,
    lambda_: float,
    slow_scale: float,
) -> tuple[Tensor, Tensor]:
    """Critic loss on replayed states, with returns of replayed rewards.

    `bootstrap` `[B, T]` is the imagined return from each state. Last steps of an episode are left
    out, because the reward after them belongs to the next episode.

    Returns: loss `[B, T - 1]`, returns `[B, T - 1]`.
    """
    with torch.no_grad():
        returns = lambda_returns(last, terminal, reward, bootstrap, discount, lambda_)
        targets = _padded(returns)
    to_returns, to_slow = value.loss(targets, slow_value)
    loss = (1 - last.float()) * (to_returns + slow_scale * to_slow)
    return loss[:, :-1], returns


def _padded(returns: Tensor) -> Tensor:
    """One more column, so that the targets have the length of the values; it is cut off later."""
    return torch.cat([returns, torch.zeros_like(returns[:, -1:])], 1)
