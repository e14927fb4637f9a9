"""The parts of a run: environments, evaluator, data source, watchers, and what they need."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from worldflux.core.world_model import WorldModel
from worldflux.data.offline import Copied, OfflineData, read_through, tally_of
from worldflux.data.sources import DataSource, OnlineSource, ReplaySource
from worldflux.envs.spec import EnvironmentSpec
from worldflux.envs.vector import VectorEnvironment
from worldflux.errors import EnvironmentFault, EnvironmentSetupError
from worldflux.evaluation.episodes import evaluation_seed
from worldflux.progress import SILENT, Progress, duration
from worldflux.training.callbacks import Callback, LoggingCallback
from worldflux.training.config import TrainingConfig
from worldflux.training.progress_callback import Expected, Heartbeat
from worldflux.training.trainer import Trainer

from .environments import collecting_environment, environment_maker, vector_environment
from .evaluator import MAX_PARALLEL, ProjectEvaluator
from .gameplay import GameplayStream
from .imagination_recorder import ImaginationRecorder
from .interruption import Interrupted
from .loader import Project
from .manifest import RunManifest
from .resources import (
    MAPPED,
    Needs,
    choose_storage,
    expected_seconds,
    measure,
    model_bytes,
    replay_bytes,
)
from .run_data import (
    collection_schedule,
    data_mode,
    has_environment,
    make_replay,
    make_source,
    replay_capacity,
    replay_streams,
)

_PATIENCE_S = 3.0
_LONG_S = 24 * 3600.0  # a run that takes longer is asked about

# Of the manifest, what loggers compare runs by.
_TRACKED = (
    "project_name", "environment", "model", "parameters", "data_mode", "offline_data", "seeds",
    "device", "resolved_training", "configuration", "machine", "software", "git",
)  # fmt: skip


class RunParts:
    """Builds the parts of one run; `closing` closes every environment that it opened."""

    def __init__(
        self,
        project: Project,
        config: TrainingConfig,
        spec: EnvironmentSpec,
        model: WorldModel,
        folder: Path,
        offline: OfflineData | None,
        say: Callable[[str], None],
        progress: Progress = SILENT,
    ) -> None:
        self.project, self.config, self.spec, self.model = project, config, spec, model
        self.folder, self.offline, self.say, self.progress = folder, offline, say, progress
        self.data_mode = data_mode(project)
        arguments = dict(project.sections.environment_kwargs)
        self.make = environment_maker(project.root, spec.env_id, arguments)
        self.offline_counts: dict[str, Any] = {}  # once recorded data is copied
        self.restarts: list[str] = []  # of environments that broke their word
        self.closing = ExitStack()
        self.expected_s: Expected = lambda first, last: 0.0  # known once it has been measured

    def evaluator(self, source: DataSource) -> ProjectEvaluator | None:
        """Plays in environments of its own, or in the source's; None where nothing is evaluated.

        Raises:
            EnvironmentFault, EnvironmentSetupError: when no second environment can be made.
        """
        sections = self.project.sections
        acts = self.data_mode != "random" and has_environment(self.project)
        if not acts or sections.evaluation.episodes == 0:
            return None
        frames = sections.gameplay.max_frames if sections.gameplay.enabled else 0
        shared = sections.evaluation.environment == "training"
        collector = source.collector if shared and isinstance(source, OnlineSource) else None
        envs = self._evaluation_environments(frames > 0) if collector is None else collector.envs
        return ProjectEvaluator(
            envs,
            episodes=sections.evaluation.episodes,
            seed=evaluation_seed(self.config.seed),
            max_frames=frames,
            asked=sections.evaluation.max_episode_steps,
            collector=collector,
            say=self.say,
            progress=self.progress,
        )

    def _evaluation_environments(self, draws: bool) -> VectorEnvironment:
        sections = self.project.sections
        try:
            envs = vector_environment(
                self.make,
                self.spec.env_id,
                min(sections.evaluation.episodes, MAX_PARALLEL),
                render_first=draws,
                online=sections.online_collection,
                on_restart=self._restarted,
            )
        except (EnvironmentFault, EnvironmentSetupError) as error:
            # The training environments exist by now.
            error.hint = (
                "evaluation makes further environments; where only one can exist, evaluate in the "
                "training environment: worldflux train --set evaluation.environment=training, or "
                "not at all: --set evaluation.episodes=0"
            )
            raise
        self.closing.callback(envs.close)
        return envs

    def log(self, manifest: Mapping[str, Any]) -> LoggingCallback:
        """The run's own files and the loggers of `training.log_to`, told what the manifest says."""
        return LoggingCallback(
            self.folder,
            log_to_console=False,
            loggers=self.config.log_to,
            tracking=self.project.sections.logging,
            configuration={name: manifest[name] for name in _TRACKED if name in manifest},
        )

    def watchers(self, source: DataSource) -> list[Callback]:
        """What shows the run at work: its phase, the agent's frames, the model's imagination."""
        sections = self.project.sections
        watchers: list[Callback] = [
            Heartbeat(self.folder, self.expected_s),
            ImaginationRecorder(
                self.folder,
                sections.inference.horizon,
                env=self.spec.env_id,
                model=sections.model,
                seed=self.config.seed,
            ),
        ]
        native = sections.online_collection.vector == "native"  # it draws no single environment
        if sections.gameplay.enabled and isinstance(source, OnlineSource) and not native:
            envs = source.collector.envs
            watchers.append(GameplayStream(self.folder, envs, sections.gameplay.fps))
        return watchers

    def watch_replay(self, source: DataSource, stopped: Callable[[], bool]) -> None:
        """Report how far the present episodes have been played again; `stopped` ends it.

        Raises:
            Interrupted: out of the source's `restore`, once it was stopped.
        """
        began, hinted = time.monotonic(), False

        def told(done: int, total: int) -> None:
            nonlocal hinted
            if stopped():
                raise Interrupted
            if done == 0:
                self.progress.phase("repeating the present episode", total, "steps")
            self.progress.show(done)
            if not hinted and time.monotonic() - began > _PATIENCE_S:
                hinted = True
                self.say(
                    f"repeating the {total:,} steps of the present episode; to begin a new one "
                    "instead: worldflux train --resume --set online_collection.env_resume=restart"
                )

        if isinstance(source, OnlineSource):
            source.collector.told_of_replay = told

    def source(self, trainer: Trainer, resume: bool) -> DataSource:
        """The run's data; told first is what the run needs, or that it cannot fit."""
        project, online = self.project, self.data_mode == "online"
        capacity = replay_capacity(project, self.offline)
        columns = {name: shape for name, (shape, _) in self.model.replay_columns().items()}
        size = replay_bytes(self.spec, columns, capacity)
        weight = model_bytes(self.model)
        storage = choose_storage(project.sections.data.storage, size, weight, self.folder)
        done = max(trainer.store.steps(), default=0) if resume else 0
        self.progress.phase("measuring")
        self.needs = self._needs(trainer, done, capacity, size, weight, storage)
        self.say(str(self.needs))
        if not resume and self.needs.expected_s > _LONG_S:
            self.progress.confirm(
                f"this run takes about {duration(self.needs.expected_s)} on this machine; fewer "
                "updates (--steps N), a smaller model or a GPU shorten it",
                "start it?",
            )
        scratch = self.folder / "replay" if storage == MAPPED else None
        buffer = make_replay(project, self.model, self.spec, capacity, scratch)
        return make_source(
            project,
            self.model,
            self.spec,
            buffer,
            offline=self.offline,
            envs=self._environments(project.sections.gameplay.enabled) if online else None,
            copied=self._copied,
            resume=done > 0,  # killed before its first checkpoint, a run copies its data again
        )

    def _copied(self, copied: Copied) -> None:
        """What was recorded and what the replay holds, as `worldflux data info` prints it."""
        self.offline_counts = copied.to_dict()
        self.say(f"recorded: {copied.recorded}")
        self.say(f"replay: {copied.replay}")
        for note in copied.notes:
            self.say(f"note: {note}")

    def restored(self, source: DataSource, manifest: RunManifest) -> None:
        """Say where a resumed replay holds another reading of the data than today's."""
        counted = manifest.content["offline_data"]
        changed = manifest.content["sessions"][-1]["changed"]
        if self.offline is None or not isinstance(source, ReplaySource):
            return
        if "replay" in counted and not any(key.startswith("data.") for key in changed):
            return
        held, today = tally_of(source.buffer), read_through(self.offline).replay
        if replace(held, rewards=0.0) != replace(today, rewards=0.0):
            told = (
                f"this run's replay was filled with another reading of the data: {held}. Now it is "
                f"read as {today}: start a new run to learn from that"
            )
            self.say(f"warning: {told}")
            manifest.update(warnings=[*manifest.content.get("warnings", []), told])
        manifest.update(offline_data={**counted, "replay": asdict(held)})

    def _needs(
        self, trainer: Trainer, done: int, capacity: int, size: int, weight: int, storage: str
    ) -> Needs:
        online = self.data_mode == "online"
        envs = self._environments(draws=False) if online else None
        try:
            costs = measure(trainer.model, self.config, self.spec, envs)
        finally:
            if envs is not None:
                envs.close()
        schedule = collection_schedule(self.project, self.model) if online else None
        streams = replay_streams(self.project)
        self.expected_s = lambda first, last: expected_seconds(
            costs, schedule, streams, first, last
        )
        expected_s = self.expected_s(done, self.config.total_steps)
        return Needs(capacity, size, storage, weight, expected_s, **vars(costs))

    def _environments(self, draws: bool) -> VectorEnvironment:
        envs = collecting_environment(
            self.project, self.make, render_first=draws, on_restart=self._restarted
        )
        self.closing.callback(envs.close)
        return envs

    def _restarted(self, fault: EnvironmentFault) -> None:
        """On screen at once; the manifest, which holds this list, is written with the next log."""
        self.restarts.append(str(fault.message))
        self.say(f"warning: {fault.message}; its process was restarted")
