"""Whole episodes of an agent, or of uniformly random actions, in a real environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldflux.core.inputs import on_device
from worldflux.core.learning import Policy
from worldflux.core.world_model import WorldModel
from worldflux.envs.episode_seeds import episode_seed
from worldflux.envs.vector import EnvStep, VectorEnvironment
from worldflux.errors import ConfigurationError, EnvironmentSetupError

# What `trust`, `eval` and `imagine`, and what `verify` reset with.
TRUST, EVAL, VERIFY = 1_500_000, 2_000_000, 2_500_000
_FURTHER = 3_000_000
SHORT = 64  # frames; of shorter episodes several are recorded, one after another


# Receives observations, the memory after them, the actions [N, A] and is_first [N].
Watch = Callable[[Any, Any, Tensor, np.ndarray], None]


@dataclass(frozen=True)
class RecordedEpisode:
    """An episode (or its beginning): actions `[T, A]`, their rewards `[T]`, and observations.

    `obs` maps a name to `[T + 1, ...]`; the only observation of an environment is called "obs".
    `seed` begins it again in environment number `index`; None where no seed does.
    """

    obs: dict[str, np.ndarray]
    actions: np.ndarray
    rewards: np.ndarray
    seed: int | None = None
    index: int = 0

    def __len__(self) -> int:
        return len(self.actions)


@dataclass
class EpisodeResults:
    """Undiscounted returns and lengths (agent steps) of finished episodes, and frames of one.

    `undrawn` says why requested frames are missing. `random_return_mean` is a random policy's mean
    return, where it was measured. `cut` of the episodes were cut after `max_steps`. `render_fps` is
    the frame rate that the environment declares. `tasks` has the scores of each of several tasks,
    which episodes play in turn; `policies` are mean returns of further policies in the same ones.
    """

    returns: np.ndarray
    lengths: np.ndarray
    frames: list[np.ndarray] = field(default_factory=list)
    undrawn: str | None = None
    recorded: list[RecordedEpisode] = field(default_factory=list)
    random_return_mean: float | None = None
    cut: int = 0
    render_fps: float | None = None
    tasks: dict[str, dict[str, float]] = field(default_factory=dict)
    policies: dict[str, float] = field(default_factory=dict)

    @property
    def return_mean(self) -> float:
        """Mean return over the episodes."""
        return float(self.returns.mean())

    @property
    def return_std(self) -> float:
        """Population standard deviation of the returns."""
        return float(self.returns.std())


def other_policies(model: WorldModel, policy: str | None) -> list[str]:
    """The ways to act of a model that plans besides this one, or besides planning."""
    names = model.policies() if model.supports_planning else {}
    return [name for name in names if name != (policy or "plan")]


def require_policy(model: WorldModel, policy: str | None) -> None:
    """Refuse a policy that was asked for and that the model has not.

    Raises:
        ConfigurationError: with those that it has.
    """
    known = model.policies()
    if policy in (None, *known):
        return
    family = model.config.model_type
    raise ConfigurationError(
        f"this model ({family}) has no policy {policy!r}; it has {', '.join(known)}",
        where="--policy",
        hint=f"--policy {' or --policy '.join(known)}",
    )


class EvaluationStopped(Exception):
    """An evaluation was stopped between two steps, because the run is to stop."""


def play_episodes(
    model: WorldModel | None,
    envs: VectorEnvironment,
    episodes: int,
    seed: int,
    *,
    max_steps: int | None = None,
    max_frames: int = 0,
    record_episodes: int = 0,
    record_steps: int = 256,
    stop: Callable[[], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
    policy: str | None = None,
    show: Callable[[np.ndarray], None] | None = None,
    watch: Watch | None = None,
) -> EpisodeResults:
    """Play `episodes` whole episodes, the environments in parallel, without exploration; of several
    tasks so many of each, in turn.

    Environment i plays episodes i, i + N, i + 2N, ...: each a fixed share, because taking the first
    to finish would favour short episodes. The random streams of the caller are left as they were.

    Args:
        model: the agent, or None for uniformly random actions.
        max_steps: cut each episode after so many agent steps, as a time limit does.
        max_frames: draw up to that many frames of environment 0's first episodes.
        record_episodes: keep the first `record_steps` steps of that many episodes.
        stop: called between steps; when it returns true, EvaluationStopped is raised.
        progress: receives the numbers of finished episodes and of steps before each step.
        policy: one of the model's `policies`; by default its own.
        show: receives each frame of environment 0.
        watch: called after each choice of actions, before the frame is shown.
    """
    episodes *= max(1, len(envs.spec.tasks))
    act = model and (model.policy if policy is None else model.policy_named(policy))
    tape = _Tape(min(record_episodes, episodes), envs, record_steps)
    film = _Film(envs, max_frames, show)
    with torch.random.fork_rng(devices=[] if model is None else cuda_devices(model)):
        torch.manual_seed(seed)
        results = _play(
            model, act, envs, episodes, seed, max_steps, film, tape, stop, progress, watch
        )
    results.frames, results.undrawn = film.frames, film.undrawn
    results.render_fps = envs.spec.render_fps
    results.recorded = tape.episodes()
    return results


def cuda_devices(model: WorldModel) -> list[int]:
    """The devices, besides the CPU, whose random streams this model draws from."""
    device = model.device
    return [device.index or 0] if device.type == "cuda" else []


class _Film:
    """Frames of environment 0: its first episode, further ones while these are short."""

    def __init__(
        self,
        envs: VectorEnvironment,
        max_frames: int,
        show: Callable[[np.ndarray], None] | None,
    ) -> None:
        self.frames: list[np.ndarray] = []
        self.undrawn: str | None = None
        self._envs, self._most, self._show = envs, max_frames, show

    def add(self, finished: int, share: int) -> None:
        """Draw the present state, if it is still to be shown."""
        is_early = not finished or (len(self.frames) < SHORT and finished < share)
        is_kept = len(self.frames) < self._most and is_early
        if not is_kept and self._show is None:
            return
        try:
            frame = self._envs.render_first()
        except EnvironmentSetupError as error:
            if self._show is not None:
                raise
            self._most, self.undrawn = 0, error.message
            return
        if is_kept:
            self.frames.append(frame)
        if self._show is not None:
            self._show(frame)


class _Tape:
    """The first steps of the first `count` episodes, as `envs` play them."""

    def __init__(self, count: int, envs: VectorEnvironment, steps: int) -> None:
        self._steps, self._envs = steps, envs
        self._playing = list(range(envs.num_envs))  # the episode of each environment
        self._continued = [False] * envs.num_envs  # whether it began in the middle of a game
        self._parts = [_Part([], [], []) for _ in range(count if steps > 0 else 0)]
        self._begun: dict[int, tuple[int | None, int]] = {}  # seed and index of each episode

    def add(self, before: EnvStep, actions: np.ndarray, after: EnvStep) -> None:
        """One step of every environment."""
        for i, episode in enumerate(self._playing):
            if episode >= len(self._parts):
                continue
            part = self._parts[episode]
            if after.restarted[i]:  # a fault ended the episode: it is played again
                self._parts[episode] = _Part([], [], [])
            elif after.is_first[i]:
                continue
            elif len(part.actions) < self._steps:
                if not part.obs:
                    seed = None if self._continued[i] else self._envs.begun_with(i)
                    self._begun[episode] = seed, i
                    part.obs.append(observation_row(before, i))
                part.obs.append(observation_row(after, i))
                part.actions.append(actions[i].copy())
                part.rewards.append(float(after.reward[i]))
            if after.is_last[i]:
                self._playing[i] += self._envs.num_envs
                self._continued[i] = bool(after.continues[i])

    def episodes(self) -> list[RecordedEpisode]:
        """What was recorded."""
        return [
            RecordedEpisode(
                {name: np.stack([step[name] for step in part.obs]) for name in part.obs[0]},
                np.stack(part.actions),
                np.array(part.rewards, np.float32),
                *self._begun[episode],
            )
            for episode, part in enumerate(self._parts)
            if part.actions
        ]


class _Part(NamedTuple):
    obs: list[dict[str, np.ndarray]]
    actions: list[np.ndarray]
    rewards: list[float]


def observation_row(step: EnvStep, index: int) -> dict[str, np.ndarray]:
    """A copy of one environment's observation, by name."""
    named = step.obs if isinstance(step.obs, dict) else {"obs": step.obs}
    return {name: value[index].copy() for name, value in named.items()}


def _play(
    model: WorldModel | None,
    act: Policy | None,
    envs: VectorEnvironment,
    episodes: int,
    seed: int,
    max_steps: int | None,
    film: _Film,
    tape: _Tape,
    stop: Callable[[], bool] | None,
    progress: Callable[[int, int], None] | None,
    watch: Watch | None,
) -> EpisodeResults:
    count, shares = envs.num_envs, shares_of(episodes, envs.num_envs)
    rng = np.random.default_rng(seed)
    finished: list[list[tuple[float, int]]] = [[] for _ in range(count)]
    returns, lengths = np.zeros(count), np.zeros(count, np.int64)
    cut = played = 0
    shortened = max_steps != envs.spec.time_limit  # which itself ends whole episodes
    step = envs.reset(seed, max_steps)
    carry = None if model is None else model.initial_carry(count)
    while any(len(done) < share for done, share in zip(finished, shares, strict=True)):
        if stop is not None and stop():
            raise EvaluationStopped
        if progress is not None:
            progress(sum(map(len, finished)), played)
        if model is None or carry is None or act is None:
            actions: np.ndarray = envs.spec.random_actions(rng, count, step.obs)
        else:
            first = torch.from_numpy(step.is_first).to(model.device)
            obs = on_device(step.obs, model.device)
            chosen, carry = act(obs, carry, first, explore=False)
            actions = chosen.cpu().numpy()
            if watch is not None:
                watch(obs, carry, chosen, step.is_first)
        film.add(len(finished[0]), shares[0])
        before, step, played = step, envs.step(actions), played + 1
        tape.add(before, actions, step)
        returns[step.restarted], lengths[step.restarted] = 0.0, 0  # a fault ended them
        returns, lengths = returns + step.reward, lengths + ~step.is_first
        for i in np.flatnonzero(step.is_last & ~step.continues):  # whole games, not lives
            if len(finished[i]) < shares[i]:
                finished[i].append((float(returns[i]), int(lengths[i])))
                cut += shortened and int(lengths[i] == max_steps and not step.is_terminal[i])
            returns[i], lengths[i] = 0.0, 0
    pairs = [finished[k % count][k // count] for k in range(episodes)]
    return EpisodeResults(np.array([r for r, _ in pairs]), np.array([n for _, n in pairs]), cut=cut)


def evaluation_seed(run_seed: int) -> int:
    """What the evaluations of a run in training reset with."""
    return run_seed + 1_000_000


def shares_of(episodes: int, num_envs: int) -> list[int]:
    """How many of `episodes` each environment plays."""
    return [len(range(i, episodes, num_envs)) for i in range(num_envs)]


def fresh_seed(
    first: int, shares: Sequence[int], run_seed: int, trained: Sequence[int], evaluated: int
) -> int:
    """The seed to reset with: `first`, or a later one where the run met one of its episodes.

    `shares` are the episodes that each environment is going to play, `trained` those that each
    training environment has begun, `evaluated` those of one evaluation in training.
    """
    met = _seeds(run_seed, trained)
    begun = evaluation_seed(run_seed)
    met |= set(range(begun, begun + evaluated))
    for num_envs in {32, max(1, len(trained))}:
        met |= _seeds(begun, shares_of(evaluated, num_envs))
    while not met.isdisjoint(_seeds(first, shares)):
        first += _FURTHER
    return first


def _seeds(seed: int, shares: Sequence[int]) -> set[int]:
    """The seeds of the episodes that environments play after `reset(seed)`."""
    return {episode_seed(seed, i, e) for i, share in enumerate(shares) for e in range(share)}
