"""Whole episodes of an agent, or of uniformly random actions, in a real environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldflux.core.world_model import WorldModel
from worldflux.envs.vector import VectorEnvironment

Array = NDArray[Any]


@dataclass
class EpisodeResults:
    """Undiscounted returns and lengths (agent steps) of finished episodes, and frames of one.

    `random_return_mean` is a random policy's mean return beside them, where it was measured.
    """

    returns: Array
    lengths: Array
    frames: list[Array] = field(default_factory=list)
    random_return_mean: float | None = None

    @property
    def return_mean(self) -> float:
        """Mean return over the episodes."""
        return float(self.returns.mean())

    @property
    def return_std(self) -> float:
        """Population standard deviation of the returns."""
        return float(self.returns.std())


def play_episodes(
    model: WorldModel | None,
    envs: VectorEnvironment,
    episodes: int,
    seed: int,
    *,
    max_frames: int = 0,
) -> EpisodeResults:
    """Play `episodes` whole episodes, the environments in parallel, without exploration.

    Environment i plays episodes i, i + N, i + 2N, ...: each a fixed share, because taking the first
    to finish would favour short episodes. The random streams of the caller are left as they were.

    Args:
        model: the agent, or None for uniformly random actions.
        max_frames: record up to that many frames of environment 0's first episode (its
            render_mode must be "rgb_array").
    """
    with torch.random.fork_rng(devices=[] if model is None else _cuda_of(model)):
        torch.manual_seed(seed)
        return _play(model, envs, episodes, seed, max_frames)


def _cuda_of(model: WorldModel) -> list[int]:
    device = model.device
    return [device.index or 0] if device.type == "cuda" else []


def _play(
    model: WorldModel | None, envs: VectorEnvironment, episodes: int, seed: int, max_frames: int
) -> EpisodeResults:
    count, spec = envs.num_envs, envs.spec
    shares = np.array([len(range(i, episodes, count)) for i in range(count)])
    rng = np.random.default_rng(seed)
    finished: list[list[tuple[float, int]]] = [[] for _ in range(count)]
    returns, lengths = np.zeros(count), np.zeros(count, np.int64)
    frames: list[Array] = []
    step = envs.reset(seed)
    carry = None if model is None else model.initial_carry(count)
    while any(len(done) < share for done, share in zip(finished, shares, strict=True)):
        if len(frames) < max_frames and not finished[0]:
            frames.append(envs.render_first())
        if model is None or carry is None:
            actions = _random_actions(rng, count, spec.action_dim, spec.action_type)
        else:
            device = model.device
            obs = torch.from_numpy(step.obs).to(device)
            first = torch.from_numpy(step.is_first).to(device)
            chosen, carry = model.policy(obs, carry, first, explore=False)
            actions = chosen.cpu().numpy()
        step = envs.step(actions)
        returns, lengths = returns + step.reward, lengths + ~step.is_first
        for i in np.flatnonzero(step.is_last):
            if len(finished[i]) < shares[i]:
                finished[i].append((float(returns[i]), int(lengths[i])))
            returns[i], lengths[i] = 0.0, 0
    pairs = [finished[k % count][k // count] for k in range(episodes)]
    return EpisodeResults(np.array([r for r, _ in pairs]), np.array([n for _, n in pairs]), frames)


def _random_actions(rng: np.random.Generator, count: int, size: int, kind: str) -> Array:
    if kind == "discrete":
        return np.eye(size, dtype=np.float32)[rng.integers(0, size, count)]
    return rng.uniform(-1.0, 1.0, (count, size)).astype(np.float32)
