"""Returns of imagined action sequences, for the planner.

Legend: R rows (candidates of all environments), H horizon, L latent, A action.
Two ways to the same numbers: straight through the networks with few kernels, or through the
model's component slots when a user has put another part into one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .components import latent_state
from .networks import Networks, Task

if TYPE_CHECKING:
    from .world_model import TDMPC2WorldModel


class NetworkImagination:
    """The planner's `LatentModel`, straight through the networks."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks

    def policy_actions(self, z: Tensor, task: Task, horizon: int) -> Tensor:
        """`horizon` sampled policy actions from z [R, L] through the dynamics: [H, R, A]."""
        actions = []
        for step in range(horizon):
            action = self.networks.draw_action(self.networks.state_rows(z, task), task)
            actions.append(action)
            if step < horizon - 1:
                z = self.networks.dynamics(self.networks.rows(z, action, task))
        return torch.stack(actions)

    def returns(self, z: Tensor, actions: Tensor, task: Task) -> Tensor:
        """Discounted return [R] of actions [H, R, A] from z [R, L], with a value at the end."""
        noise, heads = torch.randn_like(actions[0]), self.networks.draw_heads()
        size = _chunk_rows(z, self.networks.q.hidden_width)
        if size >= len(z):
            return self._returns(z, actions, task, noise, heads)
        chunks = [slice(start, start + size) for start in range(0, len(z), size)]
        return torch.cat(
            [self._returns(z[at], actions[:, at], task.rows(at), noise[at], heads) for at in chunks]
        )

    def _returns(
        self, z: Tensor, actions: Tensor, task: Task, noise: Tensor, heads: Tensor | None
    ) -> Tensor:
        horizon, num_rows, action_dim = actions.shape
        latent = z.shape[-1]
        # All rows of the rollout in one buffer: the latents are written where they are read, and
        # the rewards of all steps come from one call.
        state_dim = latent if task.embedding is None else latent + task.embedding.shape[-1]
        rows = z.new_empty(horizon + 1, num_rows, state_dim + action_dim)
        rows[0, :, :latent] = z
        rows[:horizon, :, state_dim:] = actions
        if task.embedding is not None:
            rows[:, :, latent:state_dim] = task.embedding
        for step in range(horizon):
            rows[step + 1, :, :latent] = self.networks.dynamics(rows[step])
        logits = self.networks.reward(rows[:horizon].flatten(0, 1))
        rewards = self.networks.mean(logits).view(horizon, num_rows)
        ended = None
        if self.networks.termination is not None:
            ended = self.networks.termination(rows[1:, :, :state_dim]).squeeze(-1).sigmoid() > 0.5
        last = rows[horizon]
        last[:, state_dim:] = self.networks.policy_action(last[:, :state_dim], task, noise)
        return discounted_return(rewards, self.networks.value(last, heads), task.discount, ended)


def _chunk_rows(z: Tensor, width: int) -> int:
    """Rows to imagine at once: what stays in a CPU's cache; everything on an accelerator.

    Measured for 16 environments of tdmpc2:ci: 34 ms an environment in one go, 21 ms in chunks.
    """
    return max(512, 2**17 // width) if z.device.type == "cpu" else len(z)


class ComponentImagination:
    """The planner's `LatentModel` through the model's own component slots."""

    def __init__(self, model: TDMPC2WorldModel, task_index: Tensor | None) -> None:
        self.model = model
        self.networks = model.networks
        self.task_index = task_index

    def policy_actions(self, z: Tensor, task: Task, horizon: int) -> Tensor:
        """As `NetworkImagination.policy_actions`, by `WorldModel.transition`."""
        actions = []
        state = latent_state(z, self._index(z))
        for step in range(horizon):
            action = self.networks.draw_action(
                self.networks.state_rows(state["latent"], task), task
            )
            actions.append(action)
            if step < horizon - 1:
                state = self.model.transition(state, action)
        return torch.stack(actions)

    def returns(self, z: Tensor, actions: Tensor, task: Task) -> Tensor:
        """As `NetworkImagination.returns`, by the attached rollout executor."""
        trajectory = self.model.rollout(latent_state(z, self._index(z)), actions)
        latents = trajectory.to_tensor("latent")
        rewards = trajectory.rewards
        if rewards is None:  # a decoder that predicts no reward leaves it to the reward head
            rewards = self.networks.mean(
                self.networks.reward(self.networks.rows(latents[:-1], actions, task))
            )
        ended = None if trajectory.continues is None else trajectory.continues < 0.5
        last = latents[-1]
        action = self.networks.draw_action(self.networks.state_rows(last, task), task)
        rows = self.networks.rows(last, action, task)
        value = self.networks.value(rows, self.networks.draw_heads())
        return discounted_return(rewards, value, task.discount, ended)

    def _index(self, z: Tensor) -> Tensor | None:
        if self.task_index is None:
            return None
        return self.task_index.repeat_interleave(z.shape[0] // self.task_index.shape[0])


def discounted_return(
    rewards: Tensor, value: Tensor, discount: float | Tensor, ended: Tensor | None
) -> Tensor:
    """`sum_t discount^t alive_t r_t + discount^H alive_H V`.

    Args:
        rewards: [H, R].
        value: of the last latent [R].
        discount: a number or [R].
        ended: [H, R], whether the successor of each step is predicted to be terminal. The step
            into it still earns its reward; nothing after it does.
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
