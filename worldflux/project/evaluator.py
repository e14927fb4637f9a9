"""The evaluations of a run in training: the same episodes each time, and random ones once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from worldflux.core.world_model import WorldModel
from worldflux.data.collector import Collector
from worldflux.envs.spec import EnvironmentSpec
from worldflux.envs.vector import VectorEnvironment
from worldflux.evaluation.episodes import EpisodeResults, EvaluationStopped, play_episodes
from worldflux.progress import SILENT, Progress

MAX_PARALLEL = 32  # environments that play evaluation episodes at the same time
RECORDED_EPISODES = 8  # kept of each evaluation, for open-loop prediction
# Where neither the environment nor the user says how long an episode may last: far more than tasks
# with an end take, and less where random episodes show that there need be none.
LONGEST, LONGEST_ENDLESS = 10_000, 1_000
_OWN_LIMIT = "ALE/"  # the emulator ends each game after 108,000 frames, which no spec declares


def episode_limit(spec: EnvironmentSpec, asked: int | None) -> int | None:
    """Agent steps after which an evaluation episode is cut; None where it ends by itself."""
    if asked is not None:
        return asked
    declared = spec.time_limit is not None or spec.env_id.startswith(_OWN_LIMIT)
    return None if declared else LONGEST


class ProjectEvaluator:
    """Plays the same evaluation episodes each time, and random ones once (`measure_random`).

    Args:
        envs: copies of the environment; the collector's own where `collector` is given.
        asked: `evaluation.max_episode_steps`.
        collector: begins new episodes once its environments were played in.
        say: receives what the user should know of episodes that were cut.

    Attributes:
        max_steps: after which an episode is cut.
        random_return_mean: of a random policy in these episodes, once it is known.
        stop: asked between steps; ends an evaluation.
    """

    def __init__(
        self,
        envs: VectorEnvironment,
        *,
        episodes: int,
        seed: int,
        max_frames: int = 0,
        asked: int | None = None,
        collector: Collector | None = None,
        say: Callable[[str], None] = print,
        progress: Progress = SILENT,
    ) -> None:
        self.envs, self.episodes, self.seed, self.max_frames = envs, episodes, seed, max_frames
        self.max_steps = episode_limit(envs.spec, asked)
        self.random_return_mean: float | None = None
        self.stop: Callable[[], bool] | None = None
        self.progress = progress
        self._asked, self._collector, self._say = asked, collector, say
        self._said_cut = False

    def settings(self) -> dict[str, Any]:
        """For the manifest: how many episodes, and where they are cut."""
        return {"episodes": self.episodes, "max_episode_steps": self.max_steps}

    def recall(self, manifest: Mapping[str, Any]) -> None:
        """Take over what an earlier part of the run measured with the same settings."""
        told, known = manifest.get("evaluation"), manifest.get("random_return_mean")
        if not isinstance(told, dict) or not isinstance(known, float):
            return
        limit = told.get("max_episode_steps")
        if not isinstance(limit, int | None):
            return
        if told.get("episodes") == self.episodes and self._asked in (None, limit):
            self.random_return_mean, self.max_steps = known, limit

    def measure_random(self) -> None:
        """Play random episodes, unless their return is known.

        Raises:
            EvaluationStopped: when `stop` said so.
        """
        if self.random_return_mean is not None:
            return
        chosen = self._asked is None and self.max_steps is not None
        if chosen:
            self._say(
                "the environment declares no time limit: evaluation episodes are cut "
                f"after {self.max_steps:,} steps (evaluation.max_episode_steps)"
            )
        self.progress.phase("random baseline", self.episodes, "episodes")
        random = self._play(None)
        if chosen and random.cut:
            self.max_steps = LONGEST_ENDLESS
            self._say(
                f"{random.cut} of {self.episodes} random episodes did not end: evaluation episodes "
                f"are cut after {self.max_steps:,} steps (evaluation.max_episode_steps)"
            )
            random = self._play(None)
        self.random_return_mean = random.return_mean

    def __call__(self, model: WorldModel) -> EpisodeResults:
        results = self._play(model, max_frames=self.max_frames, record_episodes=RECORDED_EPISODES)
        if results.cut and not self._said_cut:
            self._said_cut = True
            self._say(
                f"{results.cut} of {self.episodes} evaluation episodes were cut after "
                f"{self.max_steps:,} steps (evaluation.max_episode_steps)"
            )
        return replace(results, random_return_mean=self.random_return_mean)

    def _play(self, model: WorldModel | None, **kept: Any) -> EpisodeResults:
        try:
            results = play_episodes(
                model,
                self.envs,
                self.episodes,
                self.seed,
                max_steps=self.max_steps,
                stop=self.stop,
                progress=self.progress.episodes,
                **kept,
            )
        except EvaluationStopped:
            self._give_back()
            raise
        self._give_back()
        return results

    def _give_back(self) -> None:
        """The training environments were played in: their collector begins new episodes."""
        if self._collector is not None:
            self._collector.break_off()
