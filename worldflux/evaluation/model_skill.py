"""Does the model predict: open-loop rewards of real episodes against what really happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldflux.core.world_model import WorldModel
from worldflux.envs.vector import VectorEnvironment

Array = NDArray[Any]


@dataclass(frozen=True)
class RewardPrediction:
    """Mean absolute error of predicted rewards by horizon, beside two simple predictors.

    Index k - 1 is the reward k steps ahead. `mean_error` predicts the mean reward of the episodes,
    `persistence_error` the last reward that was seen.
    """

    model_error: Array
    mean_error: Array
    persistence_error: Array
    windows: int


def reward_prediction(
    model: WorldModel, envs: VectorEnvironment, horizon: int, seed: int
) -> RewardPrediction:
    """Play one episode in each environment, then predict it open loop from every start.

    Raises:
        CapabilityError: when the model does not predict rewards.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        obs, actions, rewards = _episodes(model, envs, seed)
        errors: list[Array] = []
        naive: list[Array] = []
        persistent: list[Array] = []
        mean = float(np.concatenate(rewards).mean())
        for o, a, r in zip(obs, actions, rewards, strict=True):
            # r[t] came with a[t]: the reward of the action taken at o[t].
            starts = np.arange(1, len(a) - horizon + 1)
            if len(starts) == 0:
                continue
            window = starts[None, :] + np.arange(horizon)[:, None]
            state = model.encode(torch.from_numpy(o[starts]), deterministic=True)
            predicted = model.rollout(state, torch.from_numpy(a[window]), deterministic=True)
            assert predicted.rewards is not None
            errors.append(np.abs(predicted.rewards.numpy() - r[window]))
            naive.append(np.abs(mean - r[window]))
            persistent.append(np.abs(r[starts - 1][None, :] - r[window]))
    if not errors:
        raise ValueError(f"no episode is longer than the horizon {horizon}")
    return RewardPrediction(
        model_error=np.concatenate(errors, 1).mean(1),
        mean_error=np.concatenate(naive, 1).mean(1),
        persistence_error=np.concatenate(persistent, 1).mean(1),
        windows=sum(error.shape[1] for error in errors),
    )


def _episodes(
    model: WorldModel, envs: VectorEnvironment, seed: int
) -> tuple[list[Array], list[Array], list[Array]]:
    """One episode of the agent in each environment: observations, actions, their rewards."""
    step, carry = envs.reset(seed), model.initial_carry(envs.num_envs)
    running = np.ones(envs.num_envs, bool)
    obs: list[list[Array]] = [[] for _ in running]
    actions: list[list[Array]] = [[] for _ in running]
    rewards: list[list[float]] = [[] for _ in running]
    while running.any():
        chosen, carry = model.policy(
            torch.from_numpy(step.obs), carry, torch.from_numpy(step.is_first), explore=False
        )
        before, step = step, envs.step(chosen.numpy())
        for i in np.flatnonzero(running):
            obs[i].append(before.obs[i])
            actions[i].append(chosen[i].numpy())
            rewards[i].append(float(step.reward[i]))
        running &= ~step.is_last
    return (
        [np.stack(rows) for rows in obs],
        [np.stack(rows) for rows in actions],
        [np.array(rows, np.float32) for rows in rewards],
    )
