"""Model predictive path integral planning (TD-MPC2, section 3.2), and the returns that it imagines.

Legend: N environments, S candidate sequences of H actions, R rows (candidates of all of them), E
elites, M policy sequences among the candidates, A action, L latent. Candidates run [H, N, S, A], so
that one step of all of them is contiguous. For N = 1 the random numbers are drawn in exactly the
official order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from worldflux.core.learning import Carry
from worldflux.core.state import State
from worldflux.core.world_model import WorldModel

from .config import TDMPC2Config
from .layers import Heads
from .networks import Networks, Task, latent_state


@dataclass
class Imagination:
    """What the planner asks of a world model; `estimate` is `imagined_returns`, compiled or not."""

    networks: Networks
    estimate: Callable[..., Tensor]

    def start(self, z: Tensor) -> Any:
        """The state of latents [R, L], with "latent" in it."""
        return {"latent": z}

    def step(self, state: Any, action: Tensor, task: Task) -> Any:
        """The state after actions [R, A]."""
        rows = self.networks.rows(state["latent"], action, task)
        return {"latent": self.networks.dynamics(rows)}

    def policy_action(self, state_rows: Tensor, task: Task) -> Tensor:
        """The policy's sampled action [R, A], at rows `[z, task embedding]`."""
        return self.networks.policy_action(state_rows, task)

    def policy_actions(self, z: Tensor, task: Task, horizon: int) -> Tensor:
        """`horizon` sampled policy actions from z [R, L] through the dynamics: [H, R, A]."""
        actions, state = [], self.start(z)
        for step in range(horizon):
            rows = self.networks.state_rows(state["latent"], task)
            actions.append(self.policy_action(rows, task))
            if step < horizon - 1:
                state = self.step(state, actions[-1], task)
        return torch.stack(actions)

    def candidate_noise(self, shape: torch.Size, like: Tensor) -> Tensor:
        """Standard normal noise [H, N, S, A] of an iteration's candidates."""
        return torch.randn(shape, dtype=like.dtype, device=like.device)

    def returns(self, z: Tensor, actions: Tensor, task: Task) -> Tensor:
        """Discounted return [R] of actions [H, R, A], with a value at the end.

        `z` is [N, L] and `task` of N rows: environment n starts the rows from n R/N on.
        """
        noise, heads = self.networks.draw_last_action(actions[0]), self.networks.draw_heads()
        samples = actions.shape[1] // len(z)
        size = _chunk_environments(z, samples, self.networks.q.hidden_width)
        if size >= len(z):
            return self.estimate(self.networks, z, actions, task, noise, heads)
        chunks = []
        for start in range(0, len(z), size):
            envs = slice(start, start + size)
            rows = slice(start * samples, (start + size) * samples)
            last = None if noise is None else noise[rows]
            given = z[envs], actions[:, rows], task.rows(envs), last
            chunks.append(self.estimate(self.networks, *given, heads))
        return torch.cat(chunks)


def _chunk_environments(z: Tensor, samples: int, width: int) -> int:
    """Environments to imagine at once: what stays in a CPU's cache; all on an accelerator."""
    rows = max(1024, 2**17 // width)
    return max(1, rows // samples) if z.device.type == "cpu" else len(z)


def imagined_returns(
    networks: Networks,
    z: Tensor,
    actions: Tensor,
    task: Task,
    noise: Tensor | None,
    heads: Heads | None,
) -> Tensor:
    """Discounted return [R] of actions [H, R, A] from z [N, L], straight through the networks.

    `noise` [R, A] draws the policy's last action, `heads` are the two that value it.
    """
    horizon, num_rows, _ = actions.shape
    latent = z.shape[-1]
    start, task = networks.state_rows(z, task), task.repeated(num_rows // len(z))
    width = start.shape[-1]
    # rows[t] is [z_{t+1}, task embedding, a_{t+1}]: latents are written where they are read,
    # and the rewards of all steps come from one call. All candidates of an environment share
    # z_0, so its product with the first layer is taken once for them all.
    rows = z.new_empty(horizon, num_rows, width + actions.shape[-1])
    rows[:-1, :, width:] = actions[1:]
    if task.embedding is not None:
        rows[:, :, latent:width] = task.embedding
    rows[0, :, :latent] = networks.dynamics.forward_shared(start, actions[0])
    for step in range(1, horizon):
        rows[step, :, :latent] = networks.dynamics(rows[step - 1])
    first = networks.mean(networks.reward.forward_shared(start, actions[0]))
    later = networks.mean(networks.reward(rows[:-1].flatten(0, 1)))
    ended = None
    if networks.termination is not None:
        ended = networks.termination(rows[:, :, :width]).squeeze(-1).sigmoid() > 0.5
    value = networks.end_value(rows[-1], task, noise, heads)
    rewards = torch.cat([first, later]).view(horizon, num_rows)
    return discounted_return(rewards, value, task.discount, ended)


class SlotImagination(Imagination):
    """What the planner asks, through component slots that hold other parts."""

    def __init__(self, networks: Networks, model: WorldModel, task_index: Tensor | None) -> None:
        super().__init__(networks, imagined_returns)
        self.model, self.task_index = model, task_index

    def start(self, z: Tensor) -> State:
        index = self.task_index
        if index is not None:
            index = index.repeat_interleave(len(z) // len(index))
        return latent_state(z, index)

    def step(self, state: State, action: Tensor, task: Task) -> State:
        return self.model.transition(state, action)

    def returns(self, z: Tensor, actions: Tensor, task: Task) -> Tensor:
        networks, samples = self.networks, actions.shape[1] // len(z)
        task = task.repeated(samples)
        trajectory = self.model.rollout(self.start(z.repeat_interleave(samples, 0)), actions)
        latents = trajectory.to_tensor("latent")
        rewards = trajectory.rewards
        if rewards is None:  # a decoder that predicts no reward leaves it to the reward head
            rewards = networks.mean(networks.reward(networks.rows(latents[:-1], actions, task)))
        ended = None if trajectory.continues is None else trajectory.continues < 0.5
        action = networks.policy_action(networks.state_rows(latents[-1], task), task)
        value = networks.value(networks.rows(latents[-1], action, task), networks.draw_heads())
        return discounted_return(rewards, value, task.discount, ended)


def discounted_return(
    rewards: Tensor, value: Tensor, discount: float | Tensor, ended: Tensor | None
) -> Tensor:
    """`sum_t discount^t alive_t r_t + discount^H alive_H V` [R].

    `rewards` [H, R]; `value` [R] of the last latent; `discount` a number or [R]; `ended` [H, R] is
    whether the successor of each step is predicted to be terminal. The step into it still earns
    its reward; nothing after it does.
    """
    total = torch.zeros_like(value)
    alive = torch.ones_like(value) if ended is not None else None
    factor: float | Tensor = 1.0
    for step, reward in enumerate(rewards):
        weight = factor if alive is None else factor * alive
        total = total + weight * reward
        factor = factor * discount
        if alive is not None and ended is not None:
            alive = alive * (~ended[step])
    return total + (factor if alive is None else factor * alive) * value


class PlanStart(NamedTuple):
    """What a plan starts from: latents z [N, L], and the mean [H, N, A] of the previous plan,
    shifted by one step."""

    imagination: Imagination
    config: TDMPC2Config
    z: Tensor
    task: Task
    warm_start: Tensor


class Refined(NamedTuple):
    """A plan after an iteration: elites [H, N, E, A], best first, with returns and weights [N, E],
    and the mean and standard deviation [H, N, A] of what the next iteration draws."""

    elites: Tensor
    returns: Tensor
    weights: Tensor
    mean: Tensor
    std: Tensor


def num_iterations(config: TDMPC2Config) -> int:
    """Iterations of a whole plan: two more for 20 actions or more, as in the official code."""
    return config.iterations + (2 if config.action_dim >= 20 else 0)


def plan(
    imagination: Imagination,
    config: TDMPC2Config,
    z: Tensor,
    task: Task,
    warm_start: Tensor,
    *,
    explore: bool,
) -> tuple[Tensor, Tensor]:
    """Plan one action for each environment from its latent `z` [N, L].

    Args:
        warm_start: mean of the previous plan, shifted by one step: [H, N, A].
        explore: add the plan's noise to the action. Without it the planner still draws the elite
            at random, as the official evaluation does.

    Returns: actions [N, A] in [-1, 1], and the mean [H, N, A] that starts the next plan.
    """
    *_, refined = refinements(imagination, config, z, task, warm_start)
    return _drawn_action(refined, explore), refined.mean


def proposals(
    imagination: Imagination,
    config: TDMPC2Config,
    z: Tensor,
    task: Task,
    warm_start: Tensor,
    *,
    explore: bool,
) -> Iterator[tuple[Tensor, Tensor, int, int]]:
    """What `plan` returns, each time better: the prior's action, then one after each iteration.

    With each come the iterations done and those of the whole plan. An unfinished plan acts by its
    best elite, without drawing a number; so the last proposal is exactly the plan.
    """
    total = num_iterations(config)
    prior = imagination.networks.policy_sample(z, task, noise=torch.zeros_like(warm_start[0]))
    yield prior.mean, warm_start, 0, total
    steps = refinements(imagination, config, z, task, warm_start)
    for done, refined in enumerate(steps, 1):
        action = refined.elites[0, :, 0].clamp(-1, 1)
        if done == total:
            action = _drawn_action(refined, explore)
        yield action, refined.mean, done, total


def refinements(
    imagination: Imagination, config: TDMPC2Config, z: Tensor, task: Task, warm_start: Tensor
) -> Iterator[Refined]:
    """The plan after each iteration, from what `plan` takes."""
    samples, num_pi = config.num_samples, min(config.num_pi_trajs, config.num_samples)
    horizon, num, action_dim = warm_start.shape
    mask = task.action_mask
    candidates = warm_start.new_empty(horizon, num, samples, action_dim)
    if num_pi:
        starts = z.repeat_interleave(num_pi, 0)
        drawn = imagination.policy_actions(starts, task.repeated(num_pi), horizon)
        candidates[:, :, :num_pi] = drawn.view(horizon, num, num_pi, action_dim)

    mean = warm_start
    std = torch.full_like(mean, config.max_std)
    for _ in range(num_iterations(config)):
        _draw_candidates(imagination, candidates[:, :, num_pi:], mean, std)
        if mask is not None:
            candidates.mul_(mask.unsqueeze(1))
        flat = candidates.view(horizon, num * samples, action_dim)
        # The algorithm counts an undefined return as 0 (official code), not as an error.
        values = torch.nan_to_num(imagination.returns(z, flat, task), nan=0.0)
        elites, best, weights = _elites(candidates, values.view(num, samples), config)
        mean, std = _refit(elites, weights, mean, config)
        if mask is not None:
            mean, std = mean * mask, std * mask
        yield Refined(elites, best, weights, mean, std)


def _drawn_action(refined: Refined, explore: bool) -> Tensor:
    choice = drawn_elite(refined.weights)
    action = refined.elites[0, torch.arange(len(choice), device=choice.device), choice]
    if explore:
        action = action + refined.std[0] * torch.randn_like(action)
    return action.clamp(-1, 1)


def no_plan(config: TDMPC2Config, num_envs: int, device: torch.device) -> Carry:
    """The memory before the first step: `prev_mean` [N, H, A] of zeros, not `valid` [N]."""
    shape = (num_envs, config.horizon, config.action_dim)
    return {
        "prev_mean": torch.zeros(shape, device=device),
        "valid": torch.zeros(num_envs, dtype=torch.bool, device=device),
    }


def shifted(prev_mean: Tensor, keep: Tensor) -> Tensor:
    """The plan [H, N, A] of one step later, from `prev_mean` [N, H, A]; zeros unless `keep` [N]."""
    warm_start = torch.zeros_like(prev_mean.transpose(0, 1))
    warm_start[:-1] = (prev_mean[:, 1:] * keep.view(-1, 1, 1)).transpose(0, 1)
    return warm_start


def remembered(action: Tensor, mean: Tensor) -> tuple[Tensor, Carry]:
    """A planned action, and its plan `mean` [H, N, A] as the memory for the next step."""
    plans = mean.transpose(0, 1).clone(memory_format=torch.contiguous_format)
    valid = torch.ones(len(action), dtype=torch.bool, device=action.device)
    return action.clone(), {"prev_mean": plans, "valid": valid}


def _draw_candidates(imagination: Imagination, out: Tensor, mean: Tensor, std: Tensor) -> None:
    noise = imagination.candidate_noise(out.shape, like=out)
    noise.mul_(std.unsqueeze(2)).add_(mean.unsqueeze(2)).clamp_(-1, 1)
    out.copy_(noise)


def _elites(
    candidates: Tensor, values: Tensor, config: TDMPC2Config
) -> tuple[Tensor, Tensor, Tensor]:
    """The best sequences [H, N, E, A] by value [N, S], their values [N, E], and their weights
    [N, E] summing to 1."""
    horizon, num, samples, action_dim = candidates.shape
    best, index = torch.topk(values, config.num_elites, dim=1)
    weights = torch.exp(config.temperature * (best - best.amax(1, keepdim=True)))
    weights = weights / weights.sum(1, keepdim=True)
    offsets = torch.arange(num, device=index.device).unsqueeze(1) * samples
    flat = candidates.view(horizon, num * samples, action_dim)
    elites = flat.index_select(1, (index + offsets).flatten())
    return elites.view(horizon, num, config.num_elites, action_dim), best, weights


def _refit(
    elites: Tensor, weights: Tensor, previous: Tensor, config: TDMPC2Config
) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation [H, N, A] of the elites.

    Momentum (TD-MPC, Hansen et al. 2022) mixes the previous mean in after the deviation is taken.
    """
    scale = weights.unsqueeze(-1)
    total = scale.sum(1) + 1e-9
    mean = (scale * elites).sum(2) / total
    variance = (scale * (elites - mean.unsqueeze(2)).square()).sum(2) / total
    std = variance.sqrt().clamp(config.min_std, config.max_std)
    if config.momentum > 0:
        mean = config.momentum * previous + (1 - config.momentum) * mean
    return mean, std


def drawn_elite(weights: Tensor) -> Tensor:
    """Index [N] of one elite a row, drawn with probability `weights` [N, E] (Gumbel-max)."""
    gumbel = -torch.empty_like(weights).exponential_().log()
    return (weights.log() + gumbel).argmax(-1)
