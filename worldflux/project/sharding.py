"""A run over several shards: what each process hosts, and what the first one does for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from worldflux.core.world_model import WorldModel
from worldflux.data.sources import CollectionSchedule
from worldflux.errors import ConfigurationError
from worldflux.evaluation.episodes import EpisodeResults, EvaluationStopped
from worldflux.training.callbacks import Callback
from worldflux.training.config import TrainingConfig
from worldflux.training.device import resolve_device
from worldflux.training.experience import STOP
from worldflux.training.result import TrainingResult
from worldflux.training.sharded import ShardedSource
from worldflux.training.shards import ShardGroup
from worldflux.training.threads import computing_with, threads_of
from worldflux.training.trainer import LAST, Trainer

from . import run_parts
from .loader import Project
from .manifest import RunManifest, read_manifest
from .plan import RunPlan
from .processes import Processes, train_command
from .resources import Needs
from .signals import graceful_stop

_STREAM = 1  # of torch's numbers, apart from the seed of a shard's environments


def shard_seed(seed: int, shard: int, *more: int) -> int:
    """The seed of a shard's environments and replay; of the first shard, the run's own."""
    if shard == 0 and not more:
        return seed
    return int(np.random.SeedSequence([seed, shard, *more]).generate_state(1)[0] >> 1)


def require_divisible(project: Project, processes: Processes) -> None:
    """Refuse settings that shards cannot keep; each refusal names the setting to change."""
    shards, training = project.sections.distributed.shards, project.training_config()
    world = processes.world
    problems = {
        f"{world} processes cannot host {shards} shards evenly": (
            shards % world > 0,
            "distributed.shards",
            f"{train_command()} --set distributed.shards={world}",
        ),
        'shards collect their own data, data.source = "gym"': (
            shards > 1 and project.sections.data.source != "gym",
            "data.source",
            "leave [distributed] out",
        ),
        "evaluation episodes are not played in the training environments of shards": (
            shards > 1 and project.sections.evaluation.environment == "training",
            "evaluation.environment",
            'set evaluation.environment = "separate"',
        ),
        "shards accumulate gradients already": (
            shards > 1 and training.gradient_accumulation_steps > 1,
            "training.gradient_accumulation_steps",
            "leave it out; one process hosts any number of shards",
        ),
        "precision is not measured over shards, whose processes might differ": (
            shards > 1 and training.precision == "auto",
            "training.precision",
            'set training.precision = "bfloat16" or "float32"',
        ),
        "distributed.threads says how many threads a process of shards has": (
            shards > 1 and training.threads is not None,
            "training.threads",
            f"set distributed.threads = {training.threads}",
        ),
        "losses over shards are not compiled": (
            shards > 1 and training.compile,
            "training.compile",
            "leave it out",
        ),
    }
    for message, (refused, key, hint) in problems.items():
        if refused:
            where = project.where(*key.split("."))
            raise ConfigurationError(message, where=where, hint=hint)


def require_rows(plan: RunPlan) -> None:
    """Refuse a batch or a replay that cannot be divided among the shards."""
    shards = plan.sections.distributed.shards
    rows = plan.config.resolve(plan.model.config).batch_size
    if rows % shards:
        raise ConfigurationError(
            f"a batch of {rows} sequences cannot be divided among {shards} shards",
            where=plan.project.where("distributed", "shards"),
            hint=f"{train_command()} --set training.batch_size={(rows // shards + 1) * shards}",
        )
    kept = plan.capacity // shards // plan.streams
    if kept < plan.sequence_length:
        raise ConfigurationError(
            f"data.buffer_capacity = {plan.capacity:,} keeps {kept} steps of each environment of "
            f"{shards} shards; one training sequence has {plan.sequence_length}",
            where=plan.project.where("data", "buffer_capacity"),
            hint=f"{train_command()} --set data.buffer_capacity="
            f"{plan.sequence_length * plan.streams * shards}, or more",
        )


def own_device(config: TrainingConfig, processes: Processes) -> TrainingConfig:
    """The configuration with this process's GPU, where there are several processes."""
    if processes.world == 1 or resolve_device(config.device).type != "cuda":
        return config
    return config.with_overrides(device=f"cuda:{processes.local_rank}")


@contextmanager
def open_group(plan: RunPlan, processes: Processes, resume: bool) -> Iterator[ShardGroup | None]:
    """The shards of a run, connected; None where it has one. Meanwhile torch has its threads."""
    section, seed = plan.sections.distributed, plan.config.seed
    if section.shards == 1:
        recorded = read_manifest(plan.folder).get("threads") if resume else None
        with computing_with(threads_of(plan.config, plan.model, recorded)):
            yield None
        return
    device = resolve_device(plan.config.device)
    processes.join(section.timeout_s, device.type == "cuda")
    seeds = [shard_seed(seed, shard, _STREAM) for shard in range(section.shards)]
    try:
        with computing_with(section.threads):
            yield ShardGroup(section.shards, seeds, device, section.timeout_s)
    finally:
        processes.leave()


def open_sharded(
    plan: RunPlan, needs: Needs, envs: run_parts.Environments, group: ShardGroup
) -> ShardedSource:
    """The data of the local shards: 1/K of the replay, and of the environment steps, each."""
    schedule = plan.schedule
    assert schedule is not None
    share = CollectionSchedule(
        warmup_transitions=-(-schedule.warmup_transitions // group.shards),
        pretrain_updates=schedule.pretrain_updates,
        steps_per_update=schedule.steps_per_update / group.shards,
    )
    rows = needs.replay_rows // group.shards
    return ShardedSource(
        group,
        [
            run_parts.online_source(
                plan,
                run_parts.replay(
                    plan, needs, rows, plan.streams, shard_seed(plan.config.seed, shard)
                ),
                envs.collecting(draws=shard == 0),
                share,
                shard_seed(plan.config.seed, shard),
            )
            for shard in group.local
        ],
    )


class SharedEvaluation:
    """Evaluations that the first process plays, and all of them know the returns of."""

    def __init__(self, group: ShardGroup, play: Callable[[WorldModel], EpisodeResults]) -> None:
        self.group, self.play = group, play

    def __call__(self, model: WorldModel) -> EpisodeResults:
        results, report, error = None, None, None
        if self.group.leads:
            try:
                results = self.play(model)
                report = [results.returns.tolist(), results.lengths.tolist()]
            except EvaluationStopped:
                pass
            except Exception as raised:
                error = raised
        report = self.group.exchange(report, error)[0]
        if report is None:
            raise EvaluationStopped
        returns, lengths = map(np.asarray, report)
        return results or EpisodeResults(returns, lengths)


class _Notes(Callback):
    """Passes a trainer's warnings on to the first process."""

    def __init__(self, group: ShardGroup) -> None:
        self.group = group

    def on_warning(self, trainer: Trainer, message: str) -> None:
        self.group.notes.append(message)


def follow(plan: RunPlan, group: ShardGroup) -> tuple[TrainingResult, int]:
    """Train the local shards of a run whose folder another process writes.

    Returns the counters and the exit code of the command.
    """

    def nobody(model: WorldModel) -> EpisodeResults:
        raise AssertionError

    with ExitStack() as opened:
        trainer = Trainer(plan.model, plan.config, seed_streams=False, shards=group)
        trainer.experience.how = plan.config.on_unfit_data or STOP
        trainer.add_callback(_Notes(group))
        needs = Needs(**group.exchange()[0])
        envs = run_parts.Environments(
            plan, RunManifest(plan.folder, {}), opened, group.notes.append
        )
        source = open_sharded(plan, needs, envs, group)
        if plan.evaluates:
            trainer.evaluator = SharedEvaluation(group, nobody)
        with graceful_stop(trainer.request_stop, trainer.request_checkpoint) as stop:
            if group.exchange()[0]:  # a checkpoint is restored
                trainer.attach(source)
                trainer.load_checkpoint(LAST)
            result = trainer.train(source)
            number = agreed_signal(group, stop.signal_number)
            group.exchange()  # the first process has written everything
        return result, 0 if number is None else 128 + number


def agreed_signal(group: Any, number: int | None) -> int | None:
    """The signal that stopped any process of the run."""
    return next((given for given in group.exchange(number and int(number)) if given), None)
