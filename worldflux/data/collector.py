"""The agent collects its own data: act, store, step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from worldflux.clock import ACTING, ENVIRONMENT, spent
from worldflux.core.inputs import on_device
from worldflux.core.learning import Carry
from worldflux.core.world_model import WorldModel
from worldflux.envs.episode_seeds import EpisodePosition
from worldflux.envs.vector import EnvStep, VectorEnvironment
from worldflux.errors import EnvironmentFault, NonFiniteError

from .columns import OBS
from .replay import ReplayBuffer

_COMPARED = ("reward", "is_first", "is_last", "is_terminal")
_SAVED = (*_COMPARED, "continues")
_COUNTED = ("episodes", "taken", "returns", "lengths")


@dataclass(frozen=True)
class Episode:
    """An episode that ended while collecting: undiscounted return, and length in agent steps."""

    episode_return: float
    length: int


class Collector:
    """Steps N environments with random actions or the model's policy, into a replay buffer.

    The row of an observation is stored when its action is chosen, so that observation, action,
    reward and flags are in one row (see `worldflux.data.replay`).

    Args:
        replays: whether a collector that continues from a saved state plays the present episodes
            again. False begins the next ones instead, as a physical system has to.

    Attributes:
        restarted: the environments that began a new episode when the collector continued.
        report_replay: as `report` of `VectorEnvironment.replay`.
    """

    def __init__(
        self, envs: VectorEnvironment, buffer: ReplayBuffer, seed: int, *, replays: bool = True
    ) -> None:
        self.envs, self.buffer, self.replays = envs, buffer, replays
        self.report_replay: Callable[[int, int], None] | None = None
        self.env_steps = self.episodes_ended = 0
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
        count, obs = self.envs.num_envs, self._current().obs
        actions = self.envs.spec.random_actions(self._rng, count, obs)
        return self._advance(actions, {})

    def collect(self, model: WorldModel) -> list[Episode]:
        """One step of every environment with the model's exploring policy."""
        step = self._current()
        device = model.device
        if self._carry is None:
            self._carry = model.initial_carry(self.envs.num_envs)
        carry = {name: value.to(device) for name, value in self._carry.items()}
        with spent.on(ACTING):
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

    def _advance(self, actions: np.ndarray, columns: dict[str, np.ndarray]) -> list[Episode]:
        step = self._current()
        actions = np.where(step.is_last[:, None], 0.0, actions).astype(np.float32)
        with spent.on(ENVIRONMENT):
            following = self.envs.step(actions)
        self._store(step, actions, columns)
        self.env_steps += int((~following.is_first).sum())
        begins = following.begins_after(step)
        self._episodes += begins
        self._taken = np.where(begins, 0, self._taken + 1)
        self._step = following
        return self._ended_episodes(following)

    def _store(self, step: EnvStep, actions: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        extras = {
            name: columns.get(name, np.zeros((self.envs.num_envs, *shape), np.float32))
            for name, shape in self.buffer.extra_columns.items()
        }
        flags = step.is_first, step.is_last, step.is_terminal
        self.buffer.add(step.obs, actions, step.reward, *flags, extras)

    def break_off(self) -> None:
        """End the present episodes as a time limit does, and begin the next ones: somebody else has
        played in these environments."""
        if self._step is None:
            return
        if self._taken.any():
            cut = replace(self._step, is_last=np.ones_like(self._step.is_last))
            self._store(cut, np.zeros((self.envs.num_envs, self.buffer.action_dim), np.float32), {})
        self._episodes += self._taken > 0
        for counted in (self._taken, self._returns, self._lengths):
            counted[:] = 0
        self._step = self._begun()

    def _begun(self) -> EnvStep:
        """The first step of every environment's present episode, begun again."""
        none = np.zeros((0, self.buffer.action_dim), np.float32)
        positions = [EpisodePosition(int(episode), none) for episode in self._episodes]
        return self.envs.replay(self._seed, positions)[0]

    def _ended_episodes(self, step: EnvStep) -> list[Episode]:
        self._returns[step.restarted], self._lengths[step.restarted] = 0.0, 0  # interrupted
        self._returns += step.reward
        self._lengths += ~step.is_first
        ended = []
        for index in np.flatnonzero(step.is_last):
            ended.append(Episode(float(self._returns[index]), int(self._lengths[index])))
            self._returns[index], self._lengths[index] = 0.0, 0
        self.episodes_ended += len(ended)
        return ended

    def state_dict(self) -> dict[str, Any]:
        """Counters, random stream, position of every environment and memory of the policy.

        JSON-ready but for tensors. The actions of the present episodes are in the replay.
        """
        position = None
        if self._step is not None:
            position = {
                "seed": self._seed,
                **{name: getattr(self, f"_{name}").tolist() for name in _COUNTED},
                "step": _step_state(self._step),
                "carry": self._carry,
            }
        return {
            "env_steps": self.env_steps,
            "episodes_ended": self.episodes_ended,
            "rng": dict(self._rng.bit_generator.state),
            "position": position,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`; the buffer must hold the rows of then.

        Each environment plays its present episode again. One that then begins or ends with
        something else than it did, or whose episode is no longer whole in the replay, drops that
        episode and begins its next one; `restarted` names it. Without `replays` every one does.
        """
        self.env_steps = int(state["env_steps"])
        self.episodes_ended = int(state["episodes_ended"])
        self._rng.bit_generator.state = state["rng"]
        self._step, self._carry, self.restarted = None, None, []
        position = state["position"]
        for name in _COUNTED:
            getattr(self, f"_{name}")[:] = 0 if position is None else position[name]
        if position is None:  # nothing had been collected
            return
        self._seed = int(position["seed"])
        if position["carry"] is not None:
            self._carry = dict(position["carry"])
        try:
            self._step = self._played_again(_read_step(position["step"]))
        except EnvironmentFault as fault:
            if self.replays:
                fault.hint = (
                    "begin a new episode instead of repeating the present one: worldflux train "
                    '--resume --set online_collection.env_resume="restart"'
                )
            raise

    def _played_again(self, saved: EnvStep) -> EnvStep:
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
            step, complete = self.envs.replay(self._seed, positions, self.report_replay)
            differs = ~(complete & _same_step(step, saved)) & ~restarted
            if not self.replays or not differs.any():
                self.restarted = np.flatnonzero(restarted).tolist()
                return step
            restarted |= differs

    def _begins_otherwise(self, held: int) -> np.ndarray:
        """For each environment `[N]`, whether its reset now returns another observation: the end of
        an episode can be the same from every beginning."""
        named = _named(self._begun())
        other = np.zeros(self.envs.num_envs, bool)
        for index in np.flatnonzero((self._taken > 0) & (self._taken <= held)):
            first = self.buffer.steps_written - int(self._taken[index])
            began = self.buffer.rows(first, first + 1)
            other[index] = not all(
                np.array_equal(began[OBS + name][0, index], value[index])
                for name, value in named.items()
            )
        return other


def _named(step: EnvStep) -> dict[str, np.ndarray]:
    return step.obs if isinstance(step.obs, dict) else {"": step.obs}


def _step_state(step: EnvStep) -> dict[str, Any]:
    obs = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in _named(step).items()}
    return {"obs": obs, **{name: torch.from_numpy(getattr(step, name)) for name in _SAVED}}


def _read_step(state: dict[str, Any]) -> EnvStep:
    named = {name: value.numpy() for name, value in state["obs"].items()}
    none = torch.zeros(len(state["reward"]), dtype=torch.bool)  # in states of earlier versions
    flags = {name: state.get(name, none).numpy() for name in _SAVED}
    obs = named[""] if named.keys() == {""} else named
    return EnvStep(obs=obs, restarted=np.zeros(len(flags["reward"]), bool), **flags)


def _same_step(one: EnvStep, other: EnvStep) -> np.ndarray:
    """For each environment `[N]`, whether two steps are the same to the last bit."""
    pairs = [(getattr(one, name), getattr(other, name)) for name in _COMPARED]
    pairs += [(value, _named(other)[name]) for name, value in _named(one).items()]
    equal = [(a == b).reshape(len(a), -1).all(1) for a, b in pairs]
    return np.asarray(np.logical_and.reduce(equal))
