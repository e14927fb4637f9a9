"""Learning behaviour: imagined rollouts, and the losses of actor and critic.

Legend: N starts, H horizon, F features, A action. Imagined sequences have H + 1 states; index 0 is
the replayed state that they start from. Source: Nature 2025, "Critic learning" and "Actor
learning"; the losses are pure functions of the heads' outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from worldflux.models.dreamerv3.heads import ActionDistribution
from worldflux.models.dreamerv3.maths import ReturnNormalizer, ScalarPrediction, lambda_returns
from worldflux.models.dreamerv3.rssm import Latent


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
