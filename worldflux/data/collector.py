"""The agent collects its own data: act, store, step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldflux.core.inputs import on_device
from worldflux.core.learning import Carry
from worldflux.core.world_model import WorldModel
from worldflux.envs.episode_seeds import EpisodePosition
from worldflux.envs.vector import EnvStep, VectorEnvironment
from worldflux.errors import EnvironmentFault, NonFiniteError

from .columns import OBS
from .env_position import read_step, same_step, step_state
from .replay import ReplayBuffer


@dataclass(frozen=True)
class Episode:
    """An episode that ended while collecting: undiscounted return, and length in agent steps."""

    episode_return: float
    length: int


class Collector:
    """Steps N environments with random actions or the model's policy, into a replay buffer.

    The row of an observation is stored when its action is chosen, so that observation, action,
    reward and flags stand together (see `worldflux.data.replay`).

    Args:
        replays: whether a collector that continues from a saved state plays the present episodes
            again. False begins the next ones instead, as a physical system has to.

    Attributes:
        restarted: the environments that began a new episode when the collector continued.
        told_of_replay: receives the steps played again so far and their total; what it raises ends
            the replay.
    """

    def __init__(
        self, envs: VectorEnvironment, buffer: ReplayBuffer, seed: int, *, replays: bool = True
    ) -> None:
        self.envs = envs
        self.buffer = buffer
        self.replays = replays
        self.told_of_replay: Callable[[int, int], None] | None = None
        self.env_steps = 0
        self.episodes_ended = 0
        self.restarted: list[int] = []
        self._rng = np.random.default_rng(seed)
        self._seed = seed
        self._step: EnvStep | None = None
        self._carry: Carry | None = None
        self._returns = np.zeros(envs.num_envs)
        self._lengths = np.zeros(envs.num_envs, np.int64)
        self._episodes = np.zeros(envs.num_envs, np.int64)  # of each environment, since the reset
        self._taken = np.zeros(envs.num_envs, np.int64)  # rows since its present game began

    def collect_random(self) -> list[Episode]:
        """One step of every environment with uniformly random actions."""
        actions = self.envs.spec.random_actions(self._rng, self.envs.num_envs)
        return self._advance(actions, {})

    def collect(self, model: WorldModel) -> list[Episode]:
        """One step of every environment with the model's exploring policy.

        Raises:
            NonFiniteError: when the policy gives no finite action.
            EnvironmentFault: when an environment breaks its word.
        """
        step = self._current()
        device = model.device
        if self._carry is None:
            self._carry = model.initial_carry(self.envs.num_envs)
        carry = {name: value.to(device) for name, value in self._carry.items()}
        actions, self._carry = model.policy(
            on_device(step.obs, device),
            carry,
            torch.from_numpy(step.is_first).to(device),
            explore=True,
        )
        columns = {name: self._carry[name].cpu().numpy() for name in self.buffer.extra_columns}
        chosen = actions.cpu().numpy()
        if not np.isfinite(chosen).all():  # before an environment is blamed for what it makes of it
            raise NonFiniteError("the policy's action became nan", where="the policy's action")
        return self._advance(chosen, columns)

    def _current(self) -> EnvStep:
        if self._step is None:
            self._step = self.envs.reset(self._seed)
        return self._step

    def _advance(self, actions: Any, columns: dict[str, Any]) -> list[Episode]:
        step = self._current()
        actions = np.where(step.is_last[:, None], 0.0, actions).astype(np.float32)
        following = self.envs.step(actions)
        self._store(step, actions, columns)
        self.env_steps += int((~following.is_first).sum())
        begins = following.begins_after(step)
        self._episodes += begins
        self._taken = np.where(begins, 0, self._taken + 1)
        self._step = following
        return self._ended_episodes(following)

    def _store(self, step: EnvStep, actions: Any, columns: dict[str, Any]) -> None:
        extras = {
            name: columns.get(name, np.zeros((self.envs.num_envs, *shape), np.float32))
            for name, shape in self.buffer.extra_columns.items()
        }
        flags = step.is_first, step.is_last, step.is_terminal
        self.buffer.add(step.obs, actions, step.reward, *flags, extras)

    def break_off(self) -> None:
        """End the present episodes as a time limit does, and begin the next ones.

        For environments that somebody else has played in.
        """
        if self._step is None:
            return
        if self._taken.any():
            cut = replace(self._step, is_last=np.ones_like(self._step.is_last))
            self._store(cut, np.zeros((self.envs.num_envs, self.buffer.action_dim), np.float32), {})
        self._episodes += self._taken > 0
        for counted in (self._taken, self._returns, self._lengths):
            counted[:] = 0
        none = np.zeros((0, self.buffer.action_dim), np.float32)
        self._step, _ = self.envs.replay(
            self._seed, [EpisodePosition(int(episode), none) for episode in self._episodes]
        )

    def _ended_episodes(self, step: EnvStep) -> list[Episode]:
        self._returns[step.restarted], self._lengths[step.restarted] = 0.0, 0  # broken off
        self._returns += step.reward
        self._lengths += ~step.is_first
        ended = []
        for index in np.flatnonzero(step.is_last):
            ended.append(Episode(float(self._returns[index]), int(self._lengths[index])))
            self._returns[index], self._lengths[index] = 0.0, 0
        self.episodes_ended += len(ended)
        return ended

    def state_dict(self) -> dict[str, Any]:
        """Counters, random stream and where every environment and the policy's memory stand.

        JSON-ready but for tensors. The actions of the present episodes are in the replay.
        """
        position = None
        if self._step is not None:
            position = {
                "seed": self._seed,
                "episodes": self._episodes.tolist(),
                "taken": self._taken.tolist(),
                "returns": self._returns.tolist(),
                "lengths": self._lengths.tolist(),
                "step": step_state(self._step),
                "carry": self._carry,
            }
        return {
            "env_steps": self.env_steps,
            "episodes_ended": self.episodes_ended,
            "rng": dict(self._rng.bit_generator.state),
            "position": position,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` stood; the buffer must hold the rows of then.

        Each environment plays its present episode again. One that then begins or ends with
        something else than it did, or whose episode is no longer whole in the replay, drops that
        episode and begins its next one; `restarted` names it. Without `replays` every one does.

        Raises:
            EnvironmentFault: when an environment fails in the meantime.
        """
        self.env_steps = int(state["env_steps"])
        self.episodes_ended = int(state["episodes_ended"])
        self._rng.bit_generator.state = state["rng"]
        self._step, self._carry, self.restarted = None, None, []
        position = state["position"]
        if position is None:  # nothing had been collected
            for name in ("episodes", "taken", "returns", "lengths"):
                getattr(self, f"_{name}")[:] = 0
            return
        self._seed = int(position["seed"])
        for name in ("episodes", "taken", "returns", "lengths"):
            getattr(self, f"_{name}")[:] = position[name]
        if position["carry"] is not None:
            self._carry = dict(position["carry"])
        try:
            self._step = self._played_again(read_step(position["step"]))
        except EnvironmentFault as fault:
            if self.replays:
                fault.hint = (
                    "begin a new episode instead of repeating the present one: worldflux train "
                    '--resume --set online_collection.env_resume="restart"'
                )
            raise

    def _played_again(self, stood: EnvStep) -> EnvStep:
        written = self.buffer.steps_written
        held = min(written, self.buffer.rows_per_env)
        restarted = self._taken > 0
        if self.replays:
            restarted = (self._taken > held) | self._begins_otherwise(held)
        longest = int(self._taken[~restarted].max(initial=0))
        actions = self.buffer.rows(written - longest, written)["action"]
        while True:
            self._episodes[restarted & (self._taken > 0)] += 1
            self._taken[restarted] = self._returns[restarted] = self._lengths[restarted] = 0
            positions = [
                EpisodePosition(int(episode), actions[longest - taken :, index])
                for index, (episode, taken) in enumerate(
                    zip(self._episodes, self._taken, strict=True)
                )
            ]
            told, complete = self.envs.replay(self._seed, positions, self.told_of_replay)
            differs = ~(complete & same_step(told, stood)) & ~restarted
            if not self.replays or not differs.any():
                self.restarted = np.flatnonzero(restarted).tolist()
                return told
            restarted |= differs

    def _begins_otherwise(self, held: int) -> NDArray[np.bool_]:
        """For each environment `[N]`, whether its reset tells another beginning than it did.

        What an episode ends with would not show it: it can be the same from every beginning.
        """
        none = np.zeros((0, self.buffer.action_dim), np.float32)
        told, _ = self.envs.replay(
            self._seed, [EpisodePosition(int(episode), none) for episode in self._episodes]
        )
        named = told.obs if isinstance(told.obs, dict) else {"": told.obs}
        other = np.zeros(self.envs.num_envs, bool)
        for index in np.flatnonzero((self._taken > 0) & (self._taken <= held)):
            first = self.buffer.steps_written - int(self._taken[index])
            began = self.buffer.rows(first, first + 1)
            other[index] = not all(
                np.array_equal(began[OBS + name][0, index], value[index])
                for name, value in named.items()
            )
        return other
