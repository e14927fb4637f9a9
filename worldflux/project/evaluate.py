"""Episodes of a run's agent: its evaluations in training, and `worldflux eval` afterwards."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from worldflux.core.world_model import WorldModel
from worldflux.data.collector import Collector
from worldflux.envs.vector import VectorEnvironment
from worldflux.evaluation.episodes import (
    EVAL,
    EpisodeResults,
    other_policies,
    play_episodes,
    require_policy,
)
from worldflux.evaluation.video import watchable, write_video
from worldflux.evaluation.window import DEFAULT_FPS
from worldflux.files import write_text
from worldflux.layout import VIDEOS
from worldflux.progress import SILENT, Progress, counted
from worldflux.training.checkpoints import BEST
from worldflux.training.config import TrainingConfig
from worldflux.training.device import resolve_device

from . import environments
from .open_run import OpenRun, open_run
from .play import OpenView, play_shown
from .recorder import draw_returns
from .tasks import random_returns, task_entries
from .trust import calibrating, calibration_of

RECORDED_EPISODES = 8  # kept of each evaluation in training, for open-loop prediction
MAX_FRAMES = 512
TRUSTED_STEPS = 256  # of an episode, for the mean of its trust


class ProjectEvaluator:
    """Plays the same evaluation episodes each time, and random ones once (`measure_random`).

    Args:
        envs: copies of the environment; the collector's own where `collector` is given.
        limit: `evaluation.max_episode_steps`.
        references: of each task, the return that counts as 1 in its normalised score.
        policy: `evaluation.policy`; given, the model's other policies are played too.
        collector: begins new episodes once its environments were played in.
        stop: called between steps; True ends an evaluation.
        say: receives what the user should know of episodes that were cut.

    Attributes:
        max_steps: after which an episode is cut.
        random_return_mean: of a random policy in these episodes, once it is known.
        random_by_task: the same of each of several tasks.
    """

    def __init__(
        self,
        envs: VectorEnvironment,
        *,
        episodes: int,
        seed: int,
        max_frames: int = 0,
        limit: int | None = None,
        references: Mapping[str, float | None] | None = None,
        policy: str | None = None,
        collector: Collector | None = None,
        stop: Callable[[], bool] | None = None,
        say: Callable[[str], None] = print,
        progress: Progress = SILENT,
    ) -> None:
        self.envs, self.episodes, self.seed, self.max_frames = envs, episodes, seed, max_frames
        self.max_steps = environments.episode_limit(envs.spec, limit)
        self.random_return_mean: float | None = None
        self.random_by_task: dict[str, float] = {}
        self._references = references or {}
        self._limit, self._collector, self._stop = limit, collector, stop
        self._policy = policy
        self._say, self._progress = say, progress
        self._said_cut = False

    def settings(self) -> dict[str, Any]:
        """For the manifest: how many episodes, and where they are cut."""
        return {"episodes": self.episodes, "max_episode_steps": self.max_steps}

    def recall(self, manifest: Mapping[str, Any]) -> None:
        """Take over what an earlier part of the run measured with the same settings."""
        settings, known = manifest.get("evaluation"), manifest.get("random_return_mean")
        if not isinstance(settings, dict) or not isinstance(known, float):
            return
        limit = settings.get("max_episode_steps")
        if not isinstance(limit, int | None):
            return
        if settings.get("episodes") == self.episodes and self._limit in (None, limit):
            self.random_return_mean, self.max_steps = known, limit
            self.random_by_task = dict(manifest.get("random_by_task") or {})

    def measure_random(self) -> None:
        """Play random episodes, unless their return is known."""
        if self.random_return_mean is not None:
            return
        chosen = self._limit is None and self.max_steps is not None
        if chosen:
            self._say(
                "the environment declares no time limit: evaluation episodes are cut "
                f"after {self.max_steps:,} steps (evaluation.max_episode_steps)"
            )
        self._progress.phase("random baseline", self.total_episodes, "episodes")
        random = self._play(None)
        if chosen and random.cut:
            self.max_steps = environments.LONGEST_ENDLESS
            self._say(
                f"{random.cut} of {self.total_episodes} random episodes did not end: evaluation "
                f"episodes are cut after {self.max_steps:,} steps (evaluation.max_episode_steps)"
            )
            random = self._play(None)
        self.random_return_mean = random.return_mean
        self.random_by_task = random_returns(self.envs.spec.tasks, random.returns)

    @property
    def total_episodes(self) -> int:
        """Episodes of all tasks together."""
        return self.episodes * max(1, len(self.envs.spec.tasks))

    def __call__(self, model: WorldModel) -> EpisodeResults:
        kept = {"max_frames": self.max_frames, "record_episodes": RECORDED_EPISODES}
        results = self._play(model, policy=self._policy, **kept)
        if results.cut and not self._said_cut:
            self._said_cut = True
            self._say(
                f"{results.cut} of {self.total_episodes} evaluation episodes were cut after "
                f"{self.max_steps:,} steps (evaluation.max_episode_steps)"
            )
        names, random = self.envs.spec.tasks, self.random_by_task
        entries = task_entries(names, results.returns, random, self._references)
        others = other_policies(model, self._policy) if self._policy else []
        policies = {name: self._play(model, policy=name).return_mean for name in others}
        if policies:
            policies[str(self._policy)] = results.return_mean
        mean = self.random_return_mean
        return replace(results, random_return_mean=mean, tasks=entries, policies=policies)

    def _play(self, model: WorldModel | None, **kept: Any) -> EpisodeResults:
        try:
            return play_episodes(
                model,
                self.envs,
                self.episodes,
                self.seed,
                max_steps=self.max_steps,
                stop=self._stop,
                progress=self._progress.episodes,
                **kept,
            )
        finally:
            if self._collector is not None:  # its environments were played in
                self._collector.break_off()


@dataclass(frozen=True)
class EvaluationReport:
    """What `worldflux eval` found."""

    checkpoint: str
    environment: str
    episodes: int
    return_mean: float
    return_std: float
    returns: list[float]
    random_return_mean: float
    random_return_std: float
    video: str | None
    undrawn: str | None  # why there is no video, where one was wanted
    curve: str | None  # None for a saved model
    lengths: list[int]  # agent steps of each episode
    seed: int  # that the episodes were reset with
    tasks: dict[str, dict[str, float]]  # scores of each of several tasks
    notes: list[str]  # what was not as usual: episodes that were cut, restarts
    policy: str  # that the agent acted by
    policies: dict[str, list[float]]  # returns of the model's other policies in the same episodes
    trust: list[float] | None  # mean of each episode's first steps; None without a calibration
    trust_note: str  # how far the model was to be trusted, or the command that measures it

    def __str__(self) -> str:
        episodes = counted(self.episodes, "episode")
        lines = [
            f"{self.environment}, {episodes}, checkpoint {self.checkpoint}, policy {self.policy}",
            f"  agent   {self.return_mean:10.1f} +- {self.return_std:.1f}",
            *(f"  {n:<7} {np.mean(r):10.1f} +- {np.std(r):.1f}" for n, r in self.policies.items()),
            f"  random  {self.random_return_mean:10.1f} +- {self.random_return_std:.1f}",
            f"  steps   {sum(self.lengths) / len(self.lengths):10.1f} per episode",
            f"  trust   {self.trust_note}",
        ]
        for name, entry in self.tasks.items():
            shown = f"  {name:<8}{entry['return_mean']:10.1f} +- {entry['return_std']:.1f}, random "
            shown += f"{entry['random_return_mean']:.1f}"
            if "normalized" in entry:
                shown += f", normalised {entry['normalized']:.2f}"
            lines.append(shown)
        if self.curve is not None:
            lines.append(f"  curve   {self.curve}")
        if self.video is not None:
            lines.append(f"  video   {self.video}")
        elif self.undrawn is not None:
            lines.append(f"  video   none: {self.undrawn}")
        return "\n".join([*lines, *(f"  note    {note}" for note in self.notes)])


def evaluate_run(
    folder: Path | OpenRun,
    *,
    episodes: int = 20,
    checkpoint: str = BEST,
    video: bool = True,
    seed: int | None = None,
    device: str = "cpu",
    policy: str | None = None,
    open_view: OpenView | None = None,
    progress: Progress = SILENT,
) -> EvaluationReport:
    """Play fresh episodes of the agent and of a random policy in the run's environment.

    Args:
        folder: of the run; or the run itself, or a saved model (`open_model`).
        seed: of the episodes; by default one whose episodes the agent has not met.
        device: to act on, as `training.device` names it.
        policy: one of the model's `policies`; by default the one that the run's evaluations play,
            and the others too.
        open_view: where to show the agent's episodes, then one after another.
        progress: shows how far the episodes are.

    Raises:
        ConfigurationError: when the model has no such policy.
    """
    run = folder if isinstance(folder, OpenRun) else open_run(folder, checkpoint)
    require_policy(run.model, policy)
    run.model.to(resolve_device(TrainingConfig(device=device).device))
    at_once = episodes if open_view is None else 1
    envs = run.environments(at_once, render_first=video or open_view is not None)
    if seed is None:
        seed = run.fresh_seed(EVAL, episodes, envs.num_envs)
    calibration = calibration_of(run.checkpoint)
    options: dict[str, Any] = {"max_frames": MAX_FRAMES if video else 0, "policy": policy}
    if calibration is not None:
        options |= {"record_episodes": episodes, "record_steps": TRUSTED_STEPS}
    if open_view is None:
        agent = run.play(envs, episodes, seed, progress, **options)
    else:
        agent = play_shown(run, envs, episodes, seed, open_view, progress, **options)
    random = run.play(envs, episodes, seed, progress, randomly=True)
    own = run.evaluation.policy
    others = other_policies(run.model, own) if policy is None and open_view is None else []
    played = {name: run.play(envs, episodes, seed, progress, policy=name) for name in others}
    envs.close()
    progress.phase("writing video and curve" if agent.frames else "writing the curve")
    trust: list[float] | None = None
    if calibration is not None:
        trust = [float(calibration.trust_of(run.model, e).mean()) for e in agent.recorded]
    video_name = f"eval-{Path(run.name).name}" + (f"-{policy}" if policy else "")
    video_path, undrawn = _video(run.folder / VIDEOS, video_name, agent)
    return EvaluationReport(
        checkpoint=run.name,
        environment=envs.spec.env_id,
        episodes=episodes,
        return_mean=agent.return_mean,
        return_std=agent.return_std,
        returns=[float(value) for value in agent.returns],
        random_return_mean=random.return_mean,
        random_return_std=random.return_std,
        video=video_path,
        undrawn=undrawn,
        curve=str(draw_returns(run.folder, run.manifest)) if run.is_run else None,
        lengths=[int(length) for length in agent.lengths],
        seed=seed,
        tasks=task_entries(
            envs.spec.tasks,
            agent.returns,
            random_returns(envs.spec.tasks, random.returns),
            run.tasks.references if run.tasks else {},
        ),
        policy=policy or own or ("plan" if run.model.supports_planning else "prior"),
        policies={name: [float(r) for r in other.returns] for name, other in played.items()},
        notes=[*cut_notes(run.max_steps(envs), agent=agent, random=random), *run.restarts],
        trust=trust,
        trust_note=_trust_note(trust, run),
    )


def _trust_note(trust: list[float] | None, run: OpenRun) -> str:
    if trust is None:
        return f"not measured: {calibrating(run.checkpoint)}" if run.is_run else "not measured"
    least = f"{min(trust):.2f} in the least trusted episode"
    return f"{np.mean(trust):10.2f} per episode, {least}"


def write_csv(path: Path, report: EvaluationReport) -> None:
    """The agent's episodes, one a row."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("environment", "checkpoint", "seed", "episode", "return", "steps"))
    for episode, played in enumerate(zip(report.returns, report.lengths, strict=True)):
        rows.writerow((report.environment, report.checkpoint, report.seed, episode, *played))
    write_text(path, table.getvalue())


def _video(folder: Path, name: str, agent: EpisodeResults) -> tuple[str | None, str | None]:
    """The video's path, or why it was not drawn: it costs the report nothing else."""
    if not agent.frames:
        return None, agent.undrawn
    fps = agent.render_fps or DEFAULT_FPS
    try:
        return str(write_video(folder, name, watchable(agent.frames, fps), fps)), agent.undrawn
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def cut_notes(limit: int | None, **played: EpisodeResults) -> list[str]:
    """A line for each policy that had episodes cut."""
    return [
        f"{results.cut} of {len(results.returns)} episodes of the {policy} policy were cut after "
        f"{limit:,} steps (evaluation.max_episode_steps)"
        for policy, results in played.items()
        if results.cut
    ]
