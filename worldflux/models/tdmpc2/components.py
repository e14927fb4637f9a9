"""TD-MPC2's own parts for the component slots; plain objects over shared `Networks`."""

from __future__ import annotations

import torch
from torch import Tensor

from worldflux.core.outputs import ModelOutput
from worldflux.core.payloads import ConditionPayload
from worldflux.core.state import State
from worldflux.errors import StateError

from .networks import Networks, Task


def task_of(networks: Networks, state: State) -> Task:
    """The task of each row of a state (several tasks: indices [B] under "task")."""
    return networks.task(state.get("task"))


def latent_state(z: Tensor, task: Tensor | None, **further: Tensor) -> State:
    """A state of latents [B, L], with the task indices [B] when there are several tasks."""
    tensors = {"latent": z, **further}
    if task is not None:
        tensors["task"] = task
    return State(tensors)


class LatentEncoder:
    """One observation modality -> `latent` [B, L]. Encoding has no sampling; pixels are shifted."""

    def __init__(self, networks: Networks, modality: str) -> None:
        self.networks = networks
        self.modality = modality

    def encode(self, observations: dict[str, Tensor], deterministic: bool = False) -> State:
        """The latent of each observation [B, ...]; `deterministic` changes nothing here."""
        index = observations.get("task")
        z = self.networks.encode(observations[self.modality], self.networks.task(index))
        return latent_state(z, index)


class RowConditioner:
    """Concatenates latent, task embedding and action: the row that the networks read."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks

    def condition(
        self, state: State, action: Tensor | None, conditions: ConditionPayload
    ) -> Tensor:
        """[B, L], [B, A] -> [B, L + T + A]; no action is a zero action."""
        if action is None:
            action = state["latent"].new_zeros(state.batch_size, self.networks.action_dim)
        return self.networks.rows(state["latent"], action, task_of(self.networks, state))


class LatentDynamics:
    """The next latent, and the reward of the action that led there."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks

    def transition(
        self, state: State, conditioned: Tensor | None, deterministic: bool = False
    ) -> State:
        """z', with `reward` [B] of (z, a): the reward head reads the action, so it is known here.

        `deterministic` changes nothing: the dynamics has no sampling.

        Raises:
            StateError: without the row that the action conditioner gives.
        """
        if conditioned is None:
            raise StateError("TD-MPC2's dynamics needs the row of its action conditioner")
        reward = self.networks.mean(self.networks.reward(conditioned))
        return latent_state(self.networks.dynamics(conditioned), state.get("task"), reward=reward)


class LatentDecoder:
    """What can be read from a latent: value, reward of the step into it, continuation, observation.

    An encoded state was not reached by an action of the model, so it has no reward.
    """

    def __init__(self, networks: Networks) -> None:
        self.networks = networks

    def decode(self, state: State, conditions: ConditionPayload) -> ModelOutput:
        """Predictions "value" [B], and "reward", "continue" [B], "obs" [B, ...] where they exist.

        The value is the mean over all heads at the policy's mean action, so it is deterministic.
        """
        networks, task = self.networks, task_of(self.networks, state)
        z = state["latent"]
        state_rows = networks.state_rows(z, task)
        mean, _ = networks.policy_params(state_rows, task)
        heads = networks.q(networks.rows(z, torch.tanh(mean), task))
        predictions = {"value": networks.mean(heads).mean(0)}
        reward = state.get("reward")
        if reward is not None:
            predictions["reward"] = reward
        if networks.termination is not None:
            predictions["continue"] = 1 - torch.sigmoid(networks.termination(state_rows)).squeeze(
                -1
            )
        if networks.decoder is not None:
            decoded = networks.decoder(state_rows)
            # The pixel decoder works around zero; predictions are in [0, 1].
            predictions["obs"] = decoded + 0.5 if decoded.dim() == 4 else decoded
        return ModelOutput(predictions=predictions, state=state)
