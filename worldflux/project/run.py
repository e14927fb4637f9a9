"""A run wired together: worldflux.toml -> environment, model, replay -> one Trainer -> outputs/."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from worldflux import clock
from worldflux.backends.program import NATIVE
from worldflux.core.learning import bytes_of
from worldflux.data.sources import DataSource
from worldflux.envs.namespaces import NO_ENVIRONMENT
from worldflux.errors import ConfigurationError, StorageError, TrainingError, WorldFluxError
from worldflux.evaluation.episodes import EvaluationStopped
from worldflux.files import disk_error, require_free, sha256_of
from worldflux.layout import EVALUATIONS, METRICS, WEIGHTS_FILE
from worldflux.progress import SILENT, LostOutput, Progress, counted, duration, lasting_output
from worldflux.run_log import keep_until
from worldflux.training.callbacks import Callback, ProgressCallback
from worldflux.training.result import TrainingResult
from worldflux.training.shards import ShardGroup
from worldflux.training.trainer import LAST, Trainer

from . import run_parts
from .document import shown_path
from .loader import Project, load_project
from .manifest import RunManifest, first_content, holds_a_run, read_manifest
from .plan import RunPlan, Say, columns, header, plan_run
from .processes import Processes
from .recorder import PrecisionRecorder, RunRecorder, StopAtReturn, warn
from .resumption import Resumption, is_complete, resume_command, resumed
from .run_folder import RESUME, RunFolder
from .sharding import (
    SharedEvaluation,
    agreed_signal,
    follow,
    open_group,
    open_sharded,
    own_device,
    require_divisible,
    require_rows,
)
from .signals import Interrupted, graceful_stop, interrupt


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended: its folder, the trainer's counters, and the exit code of the command."""

    folder: Path
    result: TrainingResult
    exit_code: int


def train_project(
    root: Path | str | Project = ".",
    *,
    overrides: Sequence[str] = (),
    resume: bool | Literal["auto"] = False,
    overwrite: bool = False,
    strict: bool = False,
    callbacks: Sequence[Callback] = (),
    say: Say = print,
    progress: Progress = SILENT,
) -> RunOutcome:
    """Train a project until it is done or interrupted.

    A resumed run continues with the settings that it recorded; `overrides` change those that may
    change. Meanwhile output that nobody reads any more is dropped, and ends nothing.

    Args:
        root: the folder or worldflux.toml of the project; or the project itself, as it was loaded
            with `overrides`, for a run that is not resumed.
        overrides: `section.key=value` texts over worldflux.toml, or over the run's own settings.
        resume: continue from the newest valid checkpoint of the output folder; "auto" starts a run
            where there is none yet.
        overwrite: start again where the folder holds a run, which is kept as a copy next to it.
        strict: fail instead of degrading, such as to the CPU.
        callbacks: called at every step besides the run's own log and manifest.
        say: receives one line for each thing that the user should know.
        progress: shows the phase of the run at every moment.

    Raises:
        ConfigurationError: for a mistake in the project, or a setting that a resumed run cannot
            change, before anything is written.
        RunFolderError: when the output folder cannot be used.
        TrainingError: when training had to stop; the manifest then says failed, and why.
    """
    if resume and overwrite:
        raise ConfigurationError(
            "a run is either resumed or started over", hint="leave out --resume or --overwrite"
        )
    places = [text for text in overrides if text.partition("=")[0].strip() == "training.output_dir"]
    chosen = places if resume else overrides
    project = root if isinstance(root, Project) else load_project(root, chosen)
    folder = project.root / project.training_config().output_dir
    if resume == "auto":
        resume = holds_a_run(folder)
        project = project if resume else load_project(project, overrides)
    if project.training_config().backend != NATIVE:
        return _follow_official(project, resume, strict, say)
    processes = Processes()
    if processes.rank:  # the first one speaks, and writes the run folder
        say, progress, callbacks = _silent, SILENT, ()
    command = resume_command(project, strict=strict)
    try:
        processes.meet(project.sections.distributed.timeout_s)
        name = project.sections.project_name
        claim = RunFolder(folder, name, resume=resume, overwrite=overwrite, command=command)
        start = Resumption(project)
        if resume:
            earlier = read_manifest(folder)
            start = resumed(project, folder, earlier, overrides, say)
            if is_complete(start, earlier):
                with claim if not processes.rank else nullcontext():  # unless a trainer is at work
                    reached = f"the run is complete at update {start.reached}"
                    say(f"{reached}; train on: {command} --steps N")
                return RunOutcome(folder, TrainingResult(start.reached, earlier["env_steps"]), 0)
        require_divisible(start.project, processes)
        return _train(start, folder, claim, resume, strict, processes, callbacks, say, progress)
    except WorldFluxError as error:
        error.hint = error.hint and error.hint.replace(RESUME, command)
        if processes.tells_first():
            raise
        return RunOutcome(folder, TrainingResult(0, 0), error.exit_code)


def _train(
    start: Resumption,
    folder: Path,
    claim: RunFolder,
    resume: bool,
    strict: bool,
    processes: Processes,
    callbacks: Sequence[Callback],
    say: Say,
    progress: Progress,
) -> RunOutcome:
    with lasting_output() as output, ExitStack() as opened:
        plan = plan_run(start, folder, strict, say)
        plan = replace(plan, config=own_device(plan.config, processes))
        require_rows(plan)
        try:
            group = opened.enter_context(open_group(plan, processes, resume))
            if group is not None and not group.leads:
                return RunOutcome(folder, *follow(plan, group))
            # Every environment is closed, however it ends.
            with claim, ExitStack() as parts:
                with graceful_stop(interrupt) as early:
                    say(header(plan, start.reached))
                    run = _Run(plan, claim, resume, parts, say, progress, group)
                return run.execute(callbacks, output)
        except Interrupted:
            processes.tells_first()
            say("interrupted before training began; nothing was changed")
            return RunOutcome(folder, TrainingResult(0, 0), early.exit_code)


def _silent(line: str) -> None:
    """What processes besides the first one say."""


def _follow_official(project: Project, resume: bool, strict: bool, say: Say) -> RunOutcome:
    """A run of the official program that `training.backend` names, as a job."""
    from .delegated import follow

    folder, counters, exit_code = follow(project, resume=resume, strict=strict, say=say)
    return RunOutcome(folder, TrainingResult(*counters), exit_code)


class _Run:
    """One execution of a plan. Building it opens environments, and writes nothing."""

    def __init__(
        self,
        plan: RunPlan,
        claim: RunFolder,
        resume: bool,
        opened: ExitStack,
        say: Say,
        progress: Progress,
        group: ShardGroup | None,
    ) -> None:
        self.plan, self.claim, self.resume = plan, claim, resume
        self.say, self.progress = say, progress
        earlier = read_manifest(plan.folder) if resume else {}
        self._keep_time(earlier.get("updated_at"))
        self.manifest = RunManifest(plan.folder, first_content(plan, earlier))
        self.trainer = trainer = Trainer(plan.model, plan.config, seed_streams=False, shards=group)
        trainer.experience.how = plan.on_unfit_data
        done = max(trainer.store.steps(), default=0) if resume else 0
        progress.phase("measuring")
        needs, self.expected = run_parts.find_needs(plan, done)
        say(str(needs))
        if not resume:
            run_parts.confirm_long(needs, progress)
        self.manifest.update(needs=needs.to_dict())
        envs = run_parts.Environments(plan, self.manifest, opened, say)
        self.source: DataSource
        if group is None:  # killed before its first checkpoint, a run copies its data again
            self.source = run_parts.open_source(plan, needs, envs, self.manifest, say, done > 0)
        else:
            group.hear = trainer.warn
            group.exchange(needs.to_dict())
            self.source = open_sharded(plan, needs, envs, group)
        self.evaluator = run_parts.open_evaluator(
            plan, self.source, envs, self._is_stopping, say, progress
        )
        if self.evaluator is not None:
            self.evaluator.recall(earlier)
            self.manifest.update(random_return_mean=self.evaluator.random_return_mean)
        trainer.evaluator = self.evaluator
        if group is not None and self.evaluator is not None:
            trainer.evaluator = SharedEvaluation(group, self.evaluator)

    def execute(self, callbacks: Sequence[Callback], output: LostOutput) -> RunOutcome:
        """Train to the end, a signal or a failure, which the manifest then names."""
        # Before the manifest says "running".
        with graceful_stop(self._stop, self.trainer.request_checkpoint) as stop:
            self._add_callbacks(callbacks)
            output.tell(self._output_lost)
            began = time.monotonic(), clock.processor_s()
            try:
                with self._page():
                    self._begin()
                    result = self.trainer.train(self.source)
                    stop.signal_number = agreed_signal(self.trainer.shards, stop.signal_number)
                    interrupted = stop.signal_number is not None
                    self._finish(interrupted, *began)
                    self.trainer.shards.exchange()  # the others end once everything is written
            except Interrupted:
                self.say("interrupted while resuming; the run is as it was")
                return RunOutcome(self.plan.folder, TrainingResult(0, 0), stop.exit_code)
            except WorldFluxError as error:
                place = "" if error.where is None else f"{error.where}: "
                self._record_failure(place + error.message)
                raise
            except BaseException as error:
                self._record_failure(f"{type(error).__name__}: {error}")
                # Of a picture, a video or a logger's file; the run's own files raise StorageError.
                full = disk_error(error, self.plan.folder) if isinstance(error, OSError) else None
                if full is not None:
                    raise full from None
                raise
        if interrupted:
            self.say(f"interrupted at update {result.step}; everything is saved")
            self.say(f"continue with: {self.claim.command}")
            return RunOutcome(self.plan.folder, result, stop.exit_code)
        self.say(_summary(self.manifest.content, self.plan.folder))
        return RunOutcome(self.plan.folder, result, 0)

    def _is_stopping(self) -> bool:
        return self.trainer.shards.stop_wanted

    def _stop(self) -> None:
        self.trainer.request_stop()
        self.progress.stopping()

    def _add_callbacks(self, callbacks: Sequence[Callback]) -> None:
        plan, manifest = self.plan, self.manifest
        for callback in (
            run_parts.run_log(plan, manifest.content),
            ProgressCallback(screen=self.progress, expected_s=self.expected),
            RunRecorder(manifest, plan.folder, plan.sections.gameplay.fps),
            PrecisionRecorder(manifest, self.say),
            *run_parts.watchers(plan, manifest, self.source, self.expected),
            *callbacks,
        ):
            self.trainer.add_callback(callback)
        target = plan.sections.evaluation.stop_at_return
        if target is not None:
            self.trainer.add_callback(StopAtReturn(target, manifest, self.say))

    def _output_lost(self, name: str) -> None:
        """In the manifest: on that stream nobody would read it."""
        warn(self.trainer, f"output_lost: {name} was closed; the run continued")

    @contextmanager
    def _page(self) -> Iterator[None]:
        """The dashboard in another process, where [visualization] enables it."""
        page = self.plan.sections.visualization
        if not page.enabled:
            yield
            return
        from worldflux.dashboard import start_in_background

        dashboard = start_in_background(
            self.plan.folder,
            host=page.host,
            port=page.port,
            refresh_ms=page.refresh_ms,
            open_browser=page.open_browser,
            allow_hosts=page.allow_hosts,
            base_path=page.base_path,
        )
        self.say(f"dashboard: {dashboard.url}")
        try:
            yield
        finally:
            dashboard.leave()  # it ends once the open pages know how the run ended

    def _begin(self) -> None:
        """Restore a run that is resumed, which may fail; then the first write into the folder."""
        plan, trainer = self.plan, self.trainer
        weights = bytes_of(plan.model.parameters())
        require_free(plan.folder, 2 * 3 * weights)  # two checkpoints of weights and two moments
        restores = self.resume and bool(trainer.store.steps())
        trainer.shards.exchange(restores)
        if restores:
            self._measure_random()  # before episodes are played again there
            trainer.attach(self.source)
            run_parts.watch_replay(self.source, self._is_stopping, self.say, self.progress)
            trainer.load_checkpoint(LAST)
            self.claim.begin()
            self.say(f"resuming at update {trainer.step} of {plan.config.total_steps}")
            self._record_evaluation()
            run_parts.record_restored(plan, self.source, self.manifest, self.say)
            return
        was_begun = holds_a_run(plan.folder)
        moved = self.claim.begin()
        self.manifest.begin()
        if self.resume:
            self.say("no checkpoint was written yet: starting from the beginning")
            for name in (METRICS, EVALUATIONS):
                keep_until(plan.folder / name, -1)
        elif moved is not None:
            self.say(f"what this folder held is now in {moved}")
        elif was_begun:
            self.say("an earlier start here ended before its first checkpoint: starting again")
        self._measure_random()
        self._record_evaluation()

    def _measure_random(self) -> None:
        if self.evaluator is not None:
            with suppress(EvaluationStopped):  # the trainer then stops before its first step
                self.evaluator.measure_random()

    def _record_evaluation(self) -> None:
        if self.evaluator is not None:
            known = self.evaluator.random_return_mean
            self.manifest.update(random_return_mean=known, evaluation=self.evaluator.settings())
            if self.evaluator.random_by_task:
                self.manifest.update(random_by_task=self.evaluator.random_by_task)

    def _record_failure(self, reason: str) -> None:
        """In the manifest; on screen where even that cannot be written."""
        try:
            self.manifest.update(status="failed", reason=reason)
        except StorageError as error:
            self.say(f"warning: {error}")

    def _keep_time(self, last: Any) -> None:
        """Times of a run continue after its last entry, whatever the clock was set to since."""
        behind = clock.not_before(last) if isinstance(last, float) else 0.0
        if behind >= 1:
            self.say(
                f"warning: the clock is {behind:,.0f} s behind the run's last entry; the run's "
                "times continue from there"
            )

    def _finish(self, interrupted: bool, began: float, worked: float) -> None:
        checkpoint = self.trainer.store.path(self.trainer.step)
        weights = checkpoint / WEIGHTS_FILE
        if not weights.is_file():
            raise TrainingError("the final checkpoint is missing", where=str(checkpoint))
        self.manifest.update(
            status="interrupted" if interrupted else "completed",
            final_checkpoint=checkpoint.name,
            weights_sha256=sha256_of(weights),
            wall_s=self.manifest.content["wall_s"] + time.monotonic() - began,
            cpu_s=self.manifest.content["cpu_s"] + clock.processor_s() - worked,
        )


def _summary(manifest: Mapping[str, Any], folder: Path) -> str:
    """How a completed run ended, and what to do with it next."""
    best, last, random = (manifest[name] for name in ("best", "final", "random_return_mean"))
    place = shlex.quote(shown_path(folder))
    plays = ("eval", "verify", "imagine") if last else ("verify",)
    there = manifest["environment"]["id"] != NO_ENVIRONMENT
    commands = [f"worldflux {name} --target {place}" for name in plays if there]
    updates, steps = counted(manifest["global_step"], "update"), manifest["env_steps"]
    return columns(
        {
            "finished": f"{updates}, {counted(steps, 'environment step')} in "
            f"{duration(manifest['wall_s'])}",
            "time": clock.shares(manifest["spent_s"]),
            "best return": best and f"{best['return_mean']:.1f} at update {best['step']}",
            "last return": last and f"{last['return_mean']:.1f} at update {last['step']}",
            "random policy": None if random is None else f"{random:.1f}",
            "folder": place,
            "next": "\n".join([*commands, f"worldflux dashboard {place}"]),
        }
    )
