"""What if: a recorded episode with other actions from a moment on, in reality and imagined."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from worldflux.core.inputs import on_device
from worldflux.envs.vector import EnvStep
from worldflux.errors import ConfigurationError, EnvironmentFault
from worldflux.evaluation.episodes import RecordedEpisode, cuda_devices, observation_row
from worldflux.evaluation.imagination import imagine
from worldflux.evaluation.recordings import StoredEpisode, digest_of, read_episodes, recordings
from worldflux.layout import IMAGINATION
from worldflux.progress import SILENT, Progress, counted
from worldflux.training.checkpoints import BEST

from .controls import Controls, controls_of
from .imagine import HORIZON, ImaginationReport, require_picture, written
from .open_run import OpenRun, open_run

_MOMENT = re.compile(r"(?:(?P<name>.+)/)?(?P<episode>[0-9]{1,6}):(?P<step>[0-9]{1,9})")
_NAMED = 6  # recordings that an error names


@dataclass(frozen=True)
class Moment:
    """Observation number `step` of an episode that a run recorded."""

    recording: str
    number: int
    step: int
    episode: StoredEpisode

    def __str__(self) -> str:
        return f"{self.recording}/{self.number}:{self.step}"


def moment_of(folder: Path, text: str) -> Moment:
    """The moment that "EPISODE:STEP" or "RECORDING/EPISODE:STEP" names; by default the newest one.

    Raises:
        ConfigurationError: for another form, or a moment that there is not, with what there is.
    """
    match, files = _MOMENT.fullmatch(text), recordings(folder)
    if match is None:
        raise _no_moment(f"{text[:80]!r} is not EPISODE:STEP", "--from 0:10")
    if not files:
        problem = f"no episodes are recorded in {folder / IMAGINATION}"
        raise _no_moment(problem, "worldflux imagine records fresh ones")
    name, number, step = match["name"] or next(iter(files)), int(match[2]), int(match[3])
    if name not in files:
        raise _no_moment(f"there is no recording {name[:80]!r}", f"{', '.join([*files][:_NAMED])}")
    episodes = read_episodes(files[name])
    if number >= len(episodes):
        hint = f"EPISODE is from 0 to {len(episodes) - 1}"
        raise _no_moment(f"{name} has no episode {number}", hint)
    episode = episodes[number]
    if step >= len(episode):
        problem = f"episode {number} of {name} has {counted(len(episode), 'step')}"
        raise _no_moment(problem, f"STEP is from 0 to {len(episode) - 1}")
    if episode.seed is None:
        problem = f"episode {number} of {name} began in the middle of a game"
        raise _no_moment(problem, "choose one that a seed begins, such as --from 0:0")
    return Moment(name, number, step, episode)


def _no_moment(problem: str, hint: str) -> ConfigurationError:
    return ConfigurationError(problem, where="--from", hint=hint)


class Reality:
    """Recorded episodes of a run, played again in a fresh environment, and continued otherwise.

    Attributes:
        envs: the one environment.
        is_over: whether the episode has ended.
    """

    def __init__(self, run: OpenRun, index: int, *, render: bool = False) -> None:
        self.envs = run.environment(index, render_first=render)
        self._limit = run.max_steps(self.envs)
        self._moment: Moment | None = None
        self._obs: list[dict[str, np.ndarray]] = []
        self._actions: list[np.ndarray] = []
        self._rewards: list[float] = []
        self.is_over = False

    def go(self, moment: Moment) -> None:
        """Play the recorded episode up to the moment.

        Raises:
            EnvironmentFault: where an observation or reward is not the recorded one.
        """
        episode = moment.episode
        assert episode.seed is not None
        self._moment, self._obs, self._actions, self._rewards = moment, [], [], []
        self._saw(self.envs.reset(episode.seed, self._limit))
        self._check(moment, 0)
        for t in range(moment.step):
            self.act(episode.actions[t])
            self._check(moment, t + 1)

    def act(self, action: np.ndarray) -> None:
        """Take an action row `[A]`."""
        step = self.envs.step(action[None])
        self._actions.append(action)
        self._rewards.append(float(step.reward[0]))
        self._saw(step)

    def episode(self) -> RecordedEpisode:
        """Everything since the episode began."""
        obs = {name: np.stack([row[name] for row in self._obs]) for name in self._obs[0]}
        actions = np.array(self._actions, np.float32).reshape(-1, self.envs.spec.action_dim)
        return RecordedEpisode(obs, actions, np.array(self._rewards, np.float32))

    def _saw(self, step: EnvStep) -> None:
        self._obs.append(observation_row(step, 0))
        self.is_over = bool(step.is_last[0])

    def _check(self, moment: Moment, step: int) -> None:
        episode, what = moment.episode, None
        if digest_of(self._obs[-1]) != episode.digests[step]:
            what = "observation"
        elif step and np.float32(self._rewards[-1]) != episode.rewards[step - 1]:
            what = "reward"
        elif self.is_over:
            what = "length"
        if what is not None:
            raise EnvironmentFault(
                f"{self.envs.spec.env_id} does not reproduce episode {moment.number} of "
                f"{moment.recording}: the {what} at step {step} is another one",
                hint="only an environment that its seed and actions decide can be played again, on "
                "the machine and with the packages that recorded it",
            )


class AgentChoice:
    """What the agent would do in an episode, also after actions that were not its own."""

    def __init__(self, run: OpenRun) -> None:
        self._model, name = run.model, run.evaluation.policy
        self._act = run.model.policy if name is None else run.model.policy_named(name)
        self.forget()

    def forget(self) -> None:
        """Another episode follows."""
        self._carry, self._next = self._model.initial_carry(1), 0

    def row(self, episode: RecordedEpisode) -> np.ndarray:
        """The action row `[A]` for the last observation, all earlier ones and actions in sight."""
        model = self._model
        for t in range(self._next, len(episode) + 1):
            if t > 0:
                taken = torch.from_numpy(episode.actions[t - 1 : t]).to(model.device)
                self._carry = model.carry_after(self._carry, taken)
            rows = {name: values[t : t + 1] for name, values in episode.obs.items()}
            obs = on_device(rows if len(rows) > 1 else next(iter(rows.values())), model.device)
            first = torch.tensor([t == 0], device=model.device)
            with torch.random.fork_rng(devices=cuda_devices(model)):
                torch.manual_seed(t)
                chosen, self._carry = self._act(obs, self._carry, first, explore=False)
            self._row, self._next = chosen[0].cpu().numpy(), t + 1
        return self._row


def controls(run: OpenRun, reality: Reality, moment: Moment) -> Controls:
    """What can be done in the environment, with the names that it has for it."""
    env = run.maker_of(moment.episode.index)(None)
    try:
        return controls_of(env, reality.envs.spaces.action)
    finally:
        env.close()


@dataclass(frozen=True)
class WhatIfReport(ImaginationReport):
    """What happened after other actions, and what the model imagined of them."""

    moment: str
    actions: list[list[float]]  # rows, as the model takes them
    rewards: list[float]
    is_over: bool

    def __str__(self) -> str:
        steps = counted(len(self.actions), "step")
        end = ", the end of the episode" if self.is_over else ""
        real = f"  real: return {sum(self.rewards):.3f} in {steps}{end}"
        first, *rest = super().__str__().split("\n")
        return "\n".join([f"{first}, from {self.moment}", real, *rest])


def what_if_run(
    folder: Path | OpenRun,
    moment: str,
    actions: Sequence[str] = (),
    *,
    horizon: int = HORIZON,
    out: Path | None = None,
    checkpoint: str = BEST,
    progress: Progress = SILENT,
) -> WhatIfReport:
    """Play a recorded episode up to a moment, then other actions; imagine these from there.

    Args:
        moment: "EPISODE:STEP" (see `moment_of`).
        actions: what is done (see `Controls.parse`); the agent continues up to `horizon` steps.
        out: the picture; by default `imagination/<recording>-what-if-<moment>.png` in the folder.

    Raises:
        ConfigurationError: when there is no such moment or action, or the episode is over first.
        EnvironmentFault: when the environment does not reproduce the episode.
    """
    require_picture(out)
    run = folder if isinstance(folder, OpenRun) else open_run(folder, checkpoint)
    start = moment_of(run.folder, moment)
    reality = Reality(run, start.episode.index)
    with run.computing():
        try:
            rows = controls(run, reality, start).parse(actions)
            progress.phase(f"playing episode {start.number} again")
            reality.go(start)
            choice = AgentChoice(run)
            for row in [*rows, *[None] * (horizon - len(rows))]:
                if reality.is_over:
                    break
                reality.act(choice.row(reality.episode()) if row is None else row)
        finally:
            reality.envs.close()
        return _written(run, start, reality, out, progress)


def _written(
    run: OpenRun, start: Moment, reality: Reality, out: Path | None, progress: Progress
) -> WhatIfReport:
    """Imagine the changed end of the episode, and write what can be seen of it."""
    progress.phase("imagining")
    episode, step = reality.episode(), start.step
    imagination = imagine(run.model, [episode], len(episode) - step, start=step)
    progress.phase("writing picture and video")
    name = f"{start.recording}-what-if-{start.number}-{step}.png"
    picture = run.folder / IMAGINATION / name if out is None else out
    facts = {
        "moment": str(start),
        "actions": episode.actions[step:].tolist(),
        "rewards": episode.rewards[step:].tolist(),
        "is_over": reality.is_over,
    }
    fields = written(run, reality.envs.spec.env_id, imagination, picture, **facts)
    return WhatIfReport(**fields, **facts)
