"""The parts of a run: environments, evaluator, data source, and the callbacks that show it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from worldflux.data.collector import Collector
from worldflux.data.demonstrations import OfflineThenOnlineSource, RecordedSource
from worldflux.data.offline import copy_episodes, read_through, tally_of
from worldflux.data.replay import ReplayBuffer
from worldflux.data.sequence_draw import sequence_hint
from worldflux.data.sources import CollectionSchedule, DataSource, OnlineSource, ReplaySource
from worldflux.envs.vector import VectorEnvironment
from worldflux.errors import ConfigurationError, EnvironmentFault, EnvironmentSetupError
from worldflux.evaluation.episodes import evaluation_seed
from worldflux.layout import REPLAY
from worldflux.progress import Progress, duration
from worldflux.training.callbacks import Callback, LoggingCallback
from worldflux.training.data import fill_with_noise
from worldflux.training.progress_callback import Expected, Heartbeat
from worldflux.training.sharded import ShardedSource

from .diagnose import DiagnosisRecorder
from .environments import (
    environment_maker,
    native_environment,
    played_at_once,
    vector_environment,
)
from .evaluate import ProjectEvaluator
from .gameplay import GameplayStream
from .manifest import RunManifest
from .plan import RunPlan, Say
from .plan_data import OFFLINE_ONLINE
from .provenance import environment_name
from .recorder import ImaginationRecorder
from .resources import MAPPED, Needs, Pace, choose_storage, measure, model_bytes, replay_bytes
from .signals import Interrupted

_NOISE_ROWS = 10_000
_PATIENCE_S = 3.0
_LONG_S = 24 * 3600.0  # the user confirms a run that takes longer

# Of the manifest, what loggers compare runs by.
_TRACKED = (
    "project_name", "environment", "model", "parameters", "data_mode", "offline_data", "seeds",
    "device", "resolved_training", "configuration", "machine", "software", "git",
)  # fmt: skip


class Environments:
    """Makes the environments of a run, which `opened` closes; restarts go into the manifest."""

    def __init__(self, plan: RunPlan, manifest: RunManifest, opened: ExitStack, say: Say) -> None:
        self._plan, self._manifest, self._opened, self._say = plan, manifest, opened, say
        arguments = dict(plan.sections.environment_kwargs)
        root, env_id = plan.project.root, plan.spec.env_id
        self._make: Any = environment_maker(root, env_id, arguments)
        if plan.tasks is not None:
            bounds = plan.sections.online_collection.check_bounds
            self._make = plan.tasks.makers(partial(environment_maker, root), bounds)
        self._name = environment_name(root, env_id)

    def collecting(self, draws: bool = True) -> VectorEnvironment:
        online, shown = self._plan.sections.online_collection, self._plan.sections.gameplay.enabled
        if online.vector != "native":
            return self._copies(online.num_envs, draws and shown, online.vector)
        envs = native_environment(self._plan.project, self._restarted)
        self._opened.callback(envs.close)
        return envs

    def evaluating(self, draws: bool) -> VectorEnvironment:
        """Copies that evaluation episodes are played in."""
        try:
            plan = self._plan
            return self._copies(
                played_at_once(plan.sections.evaluation.episodes, plan.tasks), draws
            )
        except (EnvironmentFault, EnvironmentSetupError) as error:
            # The training environments exist by now.
            error.hint = (
                "evaluation makes further environments; where only one can exist, evaluate in the "
                "training environment: worldflux train --set evaluation.environment=training, or "
                "not at all: --set evaluation.episodes=0"
            )
            raise

    def _copies(
        self, count: int, draws: bool, mode: Literal["sync", "async"] = "sync"
    ) -> VectorEnvironment:
        envs = vector_environment(
            self._make,
            self._plan.spec.env_id,
            count,
            name=self._name,
            render_first=draws,
            online=self._plan.sections.online_collection,
            mode=mode,
            on_restart=self._restarted,
            tasks=self._plan.tasks,
        )
        self._opened.callback(envs.close)
        return envs

    def _restarted(self, fault: EnvironmentFault) -> None:
        """On screen at once; in the manifest with its next update."""
        self._manifest.append("env_restarts", str(fault.message))
        self._say(f"warning: {fault.message}; its process was restarted")


def find_needs(plan: RunPlan, done: int) -> tuple[Needs, Expected]:
    """What the run needs from update `done` on, and how long any of its updates should take.

    Raises ConfigurationError when it cannot fit.
    """
    columns = {name: shape for name, (shape, _) in plan.model.replay_columns().items()}
    rows = plan.capacity + (plan.recorded_rows if plan.data_mode == OFFLINE_ONLINE else 0)
    size, weight = replay_bytes(plan.spec, columns, rows), model_bytes(plan.model)
    storage = choose_storage(plan.sections.data.storage, size, weight, plan.folder)
    acting = plan.streams if plan.schedule is not None else 0
    began, worked = time.perf_counter(), time.process_time()
    update_s, policy_s = measure(plan.model, plan.config, plan.spec, acting)
    cores = (time.process_time() - worked) / max(time.perf_counter() - began, 1e-9)
    threads = torch.get_num_threads() if plan.model.device.type == "cpu" else 1
    online = plan.sections.online_collection
    processes = (online.processes or os.cpu_count() or 1) if online.vector == "async" else 1
    # One process steps its environments one after the other.
    pace = Pace(update_s, policy_s, plan.env_step_s * max(1.0, acting / processes))
    expected: Expected = partial(pace.seconds, plan.schedule, plan.streams)
    total_s = expected(done, plan.config.total_steps)
    key = "training.threads" if plan.sections.distributed.shards == 1 else "distributed.threads"
    used = {"threads": threads, "cores": cores, "threads_key": key}
    measured = {**vars(pace), "compiled": plan.config.compile, **used}
    return Needs(plan.capacity, size, storage, weight, total_s, **measured), expected


def confirm_long(needs: Needs, progress: Progress) -> None:
    """Ask before a run of more than a day."""
    if needs.expected_s > _LONG_S:
        progress.confirm(
            f"this run takes about {duration(needs.expected_s)} on this machine; fewer "
            "updates (--steps N), a smaller model or a GPU shorten it",
            "start it?",
        )


def open_source(
    plan: RunPlan, needs: Needs, envs: Environments, manifest: RunManifest, say: Say, resume: bool
) -> DataSource:
    """The run's data; recorded data is copied, unless a checkpoint (`resume`) holds it."""
    within = not plan.model.config.training_recipe().crosses_episodes
    recorded = None
    if plan.offline is not None:
        recorded = RecordedSource(
            replay(plan, needs, plan.recorded_rows, 1), plan.imitation, within_episode=within
        )
        if not resume:
            _copy(plan, recorded.buffer, within, manifest, say)
    if recorded is not None and plan.schedule is None:
        return recorded
    buffer = replay(plan, needs, needs.replay_rows, plan.streams)
    if plan.schedule is None:
        rows, steps = min(buffer.capacity, _NOISE_ROWS), max(50, plan.sequence_length)
        fill_with_noise(buffer, plan.spec, rows, plan.config.seed, steps)
        return ReplaySource(buffer, within_episode=within)
    if recorded is None:
        return online_source(plan, buffer, envs.collecting(), plan.schedule, plan.config.seed)
    return OfflineThenOnlineSource(
        recorded,
        _collector(plan, buffer, envs.collecting(), plan.config.seed),
        plan.schedule,
        recorded_share=plan.sections.data.recorded_share,
        within_episode=within,
    )


def _copy(
    plan: RunPlan, buffer: ReplayBuffer, within: bool, manifest: RunManifest, say: Say
) -> None:
    """Copy the recorded data, and report what was read."""
    assert plan.offline is not None
    counts = copy_episodes(plan.offline, buffer)
    notes = [*counts.notes, *(_never_sampled(plan, buffer) if within else [])]
    counts = replace(counts, notes=tuple(notes))
    manifest.content["offline_data"] = {**counts.to_dict(), **manifest.content["offline_data"]}
    for line in (f"recorded: {counts.recorded}", f"replay: {counts.replay}"):
        say(line)
    for note in notes:
        say(f"note: {note}")


def online_source(
    plan: RunPlan,
    buffer: ReplayBuffer,
    envs: VectorEnvironment,
    schedule: CollectionSchedule,
    seed: int,
) -> OnlineSource:
    """What an agent collects in these environments into this replay."""
    return OnlineSource(
        _collector(plan, buffer, envs, seed),
        schedule,
        within_episode=not plan.model.config.training_recipe().crosses_episodes,
        sequence_length=plan.sequence_length,
    )


def _collector(
    plan: RunPlan, buffer: ReplayBuffer, envs: VectorEnvironment, seed: int
) -> Collector:
    replays = plan.sections.online_collection.env_resume == "replay"
    return Collector(envs, buffer, seed, replays=replays)


def replay(
    plan: RunPlan, needs: Needs, rows: int, streams: int, seed: int | None = None
) -> ReplayBuffer:
    """An empty replay of so many rows as [data] says."""
    data = plan.sections.data
    buffer = ReplayBuffer(
        rows,
        plan.spec.replay_shapes,
        plan.spec.action_dim,
        num_envs=streams,
        extra_columns={name: shape for name, (shape, _) in plan.model.replay_columns().items()},
        seed=plan.config.seed if seed is None else seed,
        half_life=data.recency_half_life if data.sampling == "recency" else None,
        scratch=plan.folder / REPLAY if needs.replay_storage == MAPPED else None,
    )
    if plan.tasks is not None:
        are_recorded = plan.offline is not None and streams == 1
        held = plan.task_rows if are_recorded else (1,) * len(plan.task_rows)
        buffer.keep_by_task(plan.tasks.shares(held))
    return buffer


def _never_sampled(plan: RunPlan, buffer: ReplayBuffer) -> list[str]:
    """A note on episodes that are shorter than one sequence; refuses data with no others."""
    steps, length = buffer.steps_written, plan.sequence_length
    starts = np.flatnonzero(buffer.rows(0, steps, "is_first")["is_first"])
    rows = np.diff(starts, append=steps)
    short = int((rows < length).sum())
    if short == len(rows):
        assert plan.offline is not None
        raise ConfigurationError(
            f"no recorded episode is long enough for one sequence of {length} steps",
            where=plan.offline.where,
            hint=sequence_hint(int(rows.max(initial=0))),
        )
    note = f"episodes never sampled, shorter than a sequence of {length} steps: {short:,}"
    return [note] if short else []


def open_evaluator(
    plan: RunPlan,
    source: DataSource,
    envs: Environments,
    stop: Callable[[], bool],
    say: Say,
    progress: Progress,
) -> ProjectEvaluator | None:
    """Plays in copies of the environment, or in the source's; None where nothing is evaluated."""
    evaluation, gameplay = plan.sections.evaluation, plan.sections.gameplay
    if not plan.evaluates:
        return None
    frames = gameplay.max_frames if gameplay.enabled else 0
    shared = evaluation.environment == "training"
    collector = source.collector if shared and isinstance(source, OnlineSource) else None
    return ProjectEvaluator(
        envs.evaluating(frames > 0) if collector is None else collector.envs,
        episodes=evaluation.episodes,
        seed=evaluation_seed(plan.config.seed),
        max_frames=frames,
        limit=evaluation.max_episode_steps,
        references=plan.tasks.references if plan.tasks else {},
        policy=evaluation.policy,
        collector=collector,
        stop=stop,
        say=say,
        progress=progress,
    )


def run_log(plan: RunPlan, manifest: Mapping[str, Any]) -> LoggingCallback:
    """The run's own files and the loggers of `training.log_to`, which get the manifest's facts."""
    return LoggingCallback(
        plan.folder,
        log_to_console=False,
        loggers=plan.config.log_to,
        tracking=plan.sections.logging,
        configuration={name: manifest[name] for name in _TRACKED if name in manifest},
    )


def watchers(
    plan: RunPlan, manifest: RunManifest, source: DataSource, expected: Expected
) -> list[Callback]:
    """What watches the run at work: likely causes of not learning; and what shows it: its phase,
    the agent's frames, the model's imagination."""
    sections, folder = plan.sections, plan.folder
    imagination = ImaginationRecorder(
        folder,
        sections.inference.horizon,
        env=plan.spec.env_id,
        model=sections.model,
        seed=plan.config.seed,
    )
    diagnosis = DiagnosisRecorder(manifest, folder)
    found: list[Callback] = [diagnosis, Heartbeat(folder, expected), imagination]
    native = sections.online_collection.vector == "native"  # it draws no single environment
    if sections.gameplay.enabled and not native and (agents := collecting_sources(source)):
        found.append(GameplayStream(folder, agents[0].collector.envs, sections.gameplay.fps))
    return found


def collecting_sources(source: DataSource) -> list[OnlineSource]:
    """Where the agent collects in this process: one source, or one of each local shard."""
    if isinstance(source, ShardedSource):
        return source.sources
    return [source] if isinstance(source, OnlineSource) else []


def watch_replay(
    source: DataSource, stopped: Callable[[], bool], say: Say, progress: Progress
) -> None:
    """Report how far the present episodes have been played again; `stopped` ends it.

    Out of the source's `restore` then comes Interrupted.
    """
    began, hinted = time.monotonic(), False

    def report(done: int, total: int) -> None:
        nonlocal hinted
        if stopped():
            raise Interrupted
        if done == 0:
            progress.phase("repeating the present episode", total, "steps")
        progress.show(done)
        if not hinted and time.monotonic() - began > _PATIENCE_S:
            hinted = True
            say(
                f"repeating the {total:,} steps of the present episode; to begin a new one "
                "instead: worldflux train --resume --set online_collection.env_resume=restart"
            )

    for agent in collecting_sources(source):
        agent.collector.report_replay = report


def record_restored(plan: RunPlan, source: DataSource, manifest: RunManifest, say: Say) -> None:
    """Record how a restored source continues, with a warning where that is not as it was."""
    if agents := collecting_sources(source):
        restarted: Any = agents[0].collector.restarted
        if isinstance(source, ShardedSource):
            names = enumerate(source.restarted)
            restarted = [f"shard {name}: {some}" for name, some in names if some]
        _record_env_resume(restarted, agents[0].collector.replays, manifest, say)
    if plan.offline is None or not isinstance(source, ReplaySource):
        return
    counted = manifest.content["offline_data"]
    if "replay" in counted and not any(key.startswith("data.") for key in plan.changed):
        return
    recorded = source.recorded if isinstance(source, OfflineThenOnlineSource) else source
    held, today = tally_of(recorded.buffer), read_through(plan.offline).replay
    if replace(held, rewards=0.0) != replace(today, rewards=0.0):
        warning = (
            f"this run's replay was filled with another reading of the data: {held}. Now it is "
            f"read as {today}: start a new run to learn from that"
        )
        say(f"warning: {warning}")
        manifest.append("warnings", warning)
    manifest.update(offline_data={**counted, "replay": asdict(held)})


def _record_env_resume(
    restarted: list[Any], replays: bool, manifest: RunManifest, say: Say
) -> None:
    """Whether the environments are where they were: "exact", or "restarted"."""
    if restarted:
        why = "did not repeat itself"
        if not replays:
            why = "is not replayed (online_collection.env_resume)"
        say(
            f"warning: the environment {why}: the present episode of environments "
            f"{restarted} is dropped (env_resume = restarted)"
        )
    exact = not restarted and manifest.content.get("env_resume") != "restarted"
    manifest.update(env_resume="exact" if exact else "restarted")
