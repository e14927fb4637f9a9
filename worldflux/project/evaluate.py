"""Let a trained agent act: returns beside a random policy's, a video and the return curve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from worldflux.evaluation.episodes import EVAL, EpisodeResults, play_episodes
from worldflux.evaluation.plots import plot_returns, run_title
from worldflux.evaluation.video import watchable, write_video
from worldflux.progress import SILENT, Progress
from worldflux.run_log import EVALUATIONS, read_evaluations
from worldflux.training.checkpoints import BEST
from worldflux.training.config import TrainingConfig
from worldflux.training.machine import resolve_device

from .open_run import open_run

DEFAULT_FPS = 15  # of the video, where the environment does not say


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
    curve: str
    lengths: list[int]  # agent steps of each episode
    notes: list[str]  # what was not as usual: episodes that were cut, restarts

    def __str__(self) -> str:
        lines = [
            f"{self.environment}, {self.episodes} episodes, checkpoint {self.checkpoint}",
            f"  agent   {self.return_mean:10.1f} +- {self.return_std:.1f}",
            f"  random  {self.random_return_mean:10.1f} +- {self.random_return_std:.1f}",
            f"  steps   {sum(self.lengths) / len(self.lengths):10.1f} per episode",
            f"  curve   {self.curve}",
        ]
        if self.video is not None:
            lines.append(f"  video   {self.video}")
        elif self.undrawn is not None:
            lines.append(f"  video   none: {self.undrawn}")
        lines += [f"  note    {note}" for note in self.notes]
        return "\n".join(lines)


def evaluate_run(
    folder: Path,
    *,
    episodes: int = 20,
    checkpoint: str = BEST,
    video: bool = True,
    max_frames: int = 512,
    seed: int | None = None,
    device: str = "cpu",
    progress: Progress = SILENT,
) -> EvaluationReport:
    """Play fresh episodes of the agent and of a random policy in the run's environment.

    Args:
        seed: of the episodes; by default one whose episodes the agent has not met.
        device: to act on, as `training.device` names it.
        progress: shows how far the episodes are.

    Raises:
        RunFolderError: when there is no run.
        CheckpointError: when its checkpoint is missing or damaged.
        ConfigurationError: when the device does not exist here.
    """
    run = open_run(folder, checkpoint)
    run.model.to(resolve_device(TrainingConfig(device=device).device))
    envs = run.environments(episodes, render_first=video)
    if seed is None:
        seed = run.fresh_seed(EVAL, episodes, envs.num_envs)
    limit = run.max_steps(envs)
    progress.phase("evaluating", episodes, "episodes")
    agent = play_episodes(
        run.model,
        envs,
        episodes,
        seed,
        max_steps=limit,
        max_frames=max_frames if video else 0,
        progress=progress.episodes,
    )
    progress.phase("random baseline", episodes, "episodes")
    random = play_episodes(None, envs, episodes, seed, max_steps=limit, progress=progress.episodes)
    envs.close()
    progress.phase("writing video and curve" if agent.frames else "writing the curve")
    written = None
    if agent.frames:
        name = f"eval-{run.checkpoint.name}"
        try:
            fps = agent.render_fps or DEFAULT_FPS
            written = str(write_video(folder / "videos", name, watchable(agent.frames, fps), fps))
        except Exception as error:  # the returns are what was asked for
            agent.undrawn = f"{type(error).__name__}: {error}"
    rows = list(read_evaluations(folder / EVALUATIONS))
    curve = plot_returns(rows, folder / "plots" / "return_curve.png", run_title(run.manifest))
    return EvaluationReport(
        checkpoint=run.checkpoint.name,
        environment=envs.spec.env_id,
        episodes=episodes,
        return_mean=agent.return_mean,
        return_std=agent.return_std,
        returns=[float(value) for value in agent.returns],
        random_return_mean=random.return_mean,
        random_return_std=random.return_std,
        video=written,
        undrawn=agent.undrawn,
        curve=str(curve),
        lengths=[int(length) for length in agent.lengths],
        notes=[*cut_notes(limit, agent=agent, random=random), *run.restarts],
    )


def cut_notes(limit: int | None, **played: EpisodeResults) -> list[str]:
    """A line for each policy that had episodes cut."""
    return [
        f"{results.cut} of {len(results.returns)} episodes of the {policy} policy were cut after "
        f"{limit:,} steps (evaluation.max_episode_steps)"
        for policy, results in played.items()
        if results.cut
    ]
