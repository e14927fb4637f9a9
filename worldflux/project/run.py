"""A run wired together: worldflux.toml -> environment, model, replay -> one Trainer -> outputs/."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from worldflux import clock
from worldflux.backends.handle import NATIVE
from worldflux.core.config import WorldModelConfig
from worldflux.core.learning import set_seed
from worldflux.data.sources import DataSource, OnlineSource
from worldflux.envs.spec import EnvironmentSpec
from worldflux.errors import (
    ConfigurationError,
    StorageError,
    TrainingError,
    WorldFluxError,
)
from worldflux.evaluation.episodes import EvaluationStopped
from worldflux.factory import build_model
from worldflux.files import disk_error, require_free, sha256_of
from worldflux.lasting_output import LostOutput, lasting_output
from worldflux.progress import SILENT, Progress
from worldflux.run_log import EVALUATIONS, METRICS, keep_until
from worldflux.training.callbacks import Callback, ProgressCallback
from worldflux.training.experience import STOP
from worldflux.training.loggers import require
from worldflux.training.machine import keep_freed_memory
from worldflux.training.trainer import LAST, Evaluator, Trainer, TrainingResult

from .device import usable_device
from .evaluator import ProjectEvaluator
from .interruption import Interrupted, Interruption, graceful_stop
from .loader import Project, load_project
from .manifest import RunManifest, read_manifest
from .manifest_content import carry_over, manifest_content
from .recorder import RunRecorder, StopAtReturn
from .resumption import Resumption, check_model, is_complete, resume_command, resumed
from .run_data import (
    check_settings,
    data_mode,
    open_project_data,
    run_spec,
)
from .run_folder import RESUME, RunFolder, holds_a_run
from .run_parts import RunParts
from .run_texts import header, summary

Say = Callable[[str], None]


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended: its folder, the trainer's counters, and the exit code of the command."""

    folder: Path
    result: TrainingResult
    exit_code: int


def train_project(
    root: Path | str = ".",
    *,
    overrides: Sequence[str] = (),
    resume: bool | Literal["auto"] = False,
    overwrite: bool = False,
    strict: bool = False,
    callbacks: Sequence[Callback] = (),
    say: Say = print,
    progress: Progress = SILENT,
) -> RunOutcome:
    """Train the project of a folder (or of a worldflux.toml) until it is done or interrupted.

    A resumed run continues with the settings that it recorded; `overrides` change those that may
    change. Meanwhile output that nobody reads any more is dropped, and ends nothing.

    Args:
        overrides: `section.key=value` texts over worldflux.toml, or over the run's own settings.
        resume: continue from the newest valid checkpoint of the output folder; "auto" starts a run
            where there is none yet.
        overwrite: start again where the folder holds a run, which is kept as a copy beside it.
        strict: refuse to degrade (a device that is not there) instead of going on and saying so.
        callbacks: told of every step besides the run's own log and manifest.
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
    project = load_project(Path(root), places if resume else overrides)
    folder = project.root / project.training_config().output_dir
    if resume == "auto":
        resume = holds_a_run(folder)
        project = project if resume else load_project(Path(root), overrides)
    if project.training_config().backend != NATIVE:
        return _follow_official(project, resume, strict, say)
    command = resume_command(project, strict=strict)
    claim = RunFolder(
        folder,
        project.sections.project_name,
        resume=resume,
        overwrite=overwrite,
        command=command,
    )
    start = Resumption(project)
    if resume:
        earlier = read_manifest(folder)
        start = resumed(project, folder, earlier, overrides, say)
        if is_complete(start, earlier):
            with claim:  # unless a trainer is at work
                say(f"the run is complete at update {start.reached}; train on: {command} --steps N")
            return RunOutcome(folder, TrainingResult(start.reached, earlier["env_steps"]), 0)
    with lasting_output() as output:
        run = _Run(start, folder, strict, say, progress)
        try:
            with claim:
                return run.execute(claim, resume, callbacks, output)
        except WorldFluxError as error:
            error.hint = error.hint and error.hint.replace(RESUME, command)
            raise


def model_configuration(project: Project, spec: EnvironmentSpec) -> WorldModelConfig:
    """The model's configuration for an agent in this environment."""
    config = project.model_config(**spec.model_fields())
    return config.for_agent(spec.time_limit)


def _follow_official(project: Project, resume: bool, strict: bool, say: Say) -> RunOutcome:
    """A run of the official program that `training.backend` names, as a job."""
    from .delegated_project import follow

    folder, counters, exit_code = follow(project, resume=resume, strict=strict, say=say)
    return RunOutcome(folder, TrainingResult(*counters), exit_code)


class _Run:
    """One execution: the parts of a run and the order in which they work.

    Building it checks all that can be refused, and writes nothing.
    """

    def __init__(
        self, start: Resumption, folder: Path, strict: bool, say: Say, progress: Progress
    ) -> None:
        project = self.project = start.project
        self.start, self.folder, self.say, self.progress = start, folder, say, progress
        config, self.degraded = usable_device(project, project.training_config(), strict, say)
        for name in config.log_to:
            require(name)
        self.config = config.with_overrides(output_dir=str(folder))
        keep_freed_memory()
        set_seed(config.seed)
        self.offline = open_project_data(project)
        self.spec = run_spec(project, self.offline)
        asked = model_configuration(project, self.spec)
        self.model = build_model(check_model(start, asked, self.spec, folder))
        check_settings(project, self.model)
        self.data_mode = data_mode(project)
        self.parts = RunParts(
            project, self.config, self.spec, self.model, folder, self.offline, say, progress
        )

    def execute(
        self, claim: RunFolder, resume: bool, callbacks: Sequence[Callback], output: LostOutput
    ) -> RunOutcome:
        self.say(header(self.project, self.config, self.spec, self.model))
        with self.parts.closing:  # every environment, however the run ends
            trainer = Trainer(self.model, self.config, seed_streams=False)
            trainer.experience.how = self.config.on_unfit_data or STOP
            source = self.parts.source(trainer, resume)
            trainer.evaluator = evaluator = self.parts.evaluator(source)
            # Before the manifest says "running".
            with graceful_stop(partial(self._stop, trainer), trainer.request_checkpoint) as stop:
                manifest = self._manifest(resume, evaluator)
                self._add_callbacks(trainer, source, manifest, callbacks)
                output.tell(lambda name: self._output_lost(trainer, name))
                return self._carry_out(trainer, source, manifest, stop, claim, resume)

    def _stop(self, trainer: Trainer) -> None:
        trainer.request_stop()
        self.progress.stopping()

    def _add_callbacks(
        self,
        trainer: Trainer,
        source: DataSource,
        manifest: RunManifest,
        callbacks: Sequence[Callback],
    ) -> None:
        for callback in (
            self.parts.log(manifest.content),
            ProgressCallback(screen=self.progress, expected_s=self.parts.expected_s),
            RunRecorder(manifest, self.folder, self.project.sections.gameplay.fps),
            *self.parts.watchers(source),
            *callbacks,
        ):
            trainer.add_callback(callback)
        target = self.project.sections.evaluation.stop_at_return
        if target is not None:
            trainer.add_callback(StopAtReturn(target, manifest, self.say))

    def _carry_out(
        self,
        trainer: Trainer,
        source: DataSource,
        manifest: RunManifest,
        stop: Interruption,
        claim: RunFolder,
        resume: bool,
    ) -> RunOutcome:
        began = time.monotonic()
        try:
            with self._page():
                self._begin(trainer, source, manifest, claim, resume)
                result = trainer.train(source)
                interrupted = stop.signal_number is not None
                self._finish(manifest, trainer, interrupted, time.monotonic() - began)
        except Interrupted:
            self.say("interrupted while resuming; the run is as it was")
            return RunOutcome(self.folder, TrainingResult(0, 0), stop.exit_code)
        except WorldFluxError as error:
            place = "" if error.where is None else f"{error.where}: "
            self._record_failure(manifest, place + error.message)
            raise
        except BaseException as error:
            self._record_failure(manifest, f"{type(error).__name__}: {error}")
            # A picture, a video or a logger's file; what the run itself writes is told above.
            told = disk_error(error, self.folder) if isinstance(error, OSError) else None
            if told is not None:
                raise told from None
            raise
        if interrupted:
            self.say(f"interrupted at update {result.step}; everything is saved")
            self.say(f"continue with: {claim.command}")
            return RunOutcome(self.folder, result, stop.exit_code)
        self.say(summary(manifest.content, self.folder))
        return RunOutcome(self.folder, result, 0)

    @contextmanager
    def _page(self) -> Iterator[None]:
        """The dashboard in a process of its own, where [visualization] asks for it."""
        page = self.project.sections.visualization
        if not page.enabled:
            yield
            return
        from worldflux.dashboard import start_in_background

        dashboard = start_in_background(
            self.folder,
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

    def _begin(
        self,
        trainer: Trainer,
        source: DataSource,
        manifest: RunManifest,
        claim: RunFolder,
        resume: bool,
    ) -> None:
        """Restore a run that is resumed, which may fail; then the first write into the folder."""
        weights = sum(p.numel() * p.element_size() for p in self.model.parameters())
        require_free(self.folder, 2 * 3 * weights)  # two checkpoints of weights and two moments
        if isinstance(trainer.evaluator, ProjectEvaluator):
            trainer.evaluator.stop = lambda: trainer.stop_requested
        if resume and trainer.store.steps():
            self._measure_random(trainer.evaluator)  # before episodes are played again there
            trainer.attach(source)
            self.parts.watch_replay(source, lambda: trainer.stop_requested)
            trainer.load_checkpoint(LAST)
            claim.begin()
            self.say(f"resuming at update {trainer.step} of {self.config.total_steps}")
            self._record_resume(source, manifest)
            self._record_evaluation(trainer.evaluator, manifest)
            self.parts.restored(source, manifest)
            return
        was_begun = holds_a_run(self.folder)
        moved = claim.begin()
        manifest.begin()
        if resume:
            self.say("no checkpoint was written yet: starting from the beginning")
            for name in (METRICS, EVALUATIONS):
                keep_until(self.folder / name, -1)
        elif moved is not None:
            self.say(f"what this folder held is now in {moved}")
        elif was_begun:
            self.say("an earlier start here ended before its first checkpoint: starting again")
        self._measure_random(trainer.evaluator)
        self._record_evaluation(trainer.evaluator, manifest)

    def _output_lost(self, trainer: Trainer, name: str) -> None:
        """In the manifest: on that stream nobody would read it."""
        for callback in trainer.callbacks:
            callback.on_warning(trainer, f"output_lost: {name} was closed; the run continued")

    def _measure_random(self, evaluator: Evaluator | None) -> None:
        if isinstance(evaluator, ProjectEvaluator):
            with suppress(EvaluationStopped):  # the trainer then stops before its first step
                evaluator.measure_random()

    def _record_evaluation(self, evaluator: Evaluator | None, manifest: RunManifest) -> None:
        if isinstance(evaluator, ProjectEvaluator):
            known = evaluator.random_return_mean
            manifest.update(random_return_mean=known, evaluation=evaluator.settings())

    def _record_resume(self, source: DataSource, manifest: RunManifest) -> None:
        """Whether the environments stand where they stood: "exact", or "restarted" (and said)."""
        if not isinstance(source, OnlineSource):
            return
        restarted = source.collector.restarted
        if restarted:
            why = "did not repeat itself"
            if not source.collector.replays:
                why = "is not replayed (online_collection.env_resume)"
            self.say(
                f"warning: the environment {why}: the present episode of environments "
                f"{restarted} is dropped (env_resume = restarted)"
            )
        exact = not restarted and manifest.content.get("env_resume") != "restarted"
        manifest.update(env_resume="exact" if exact else "restarted")

    def _record_failure(self, manifest: RunManifest, reason: str) -> None:
        """In the manifest; on screen where even that cannot be written."""
        try:
            manifest.update(status="failed", reason=reason)
        except StorageError as error:
            self.say(f"warning: {error}")

    def _manifest(self, resume: bool, evaluator: ProjectEvaluator | None) -> RunManifest:
        earlier = read_manifest(self.folder) if resume else {}
        if evaluator is not None:
            evaluator.recall(earlier)
        content = manifest_content(
            self.project,
            self.config,
            self.spec,
            self.model,
            self.parts.needs,
            self.offline,
            data_mode=self.data_mode,
            degraded=self.degraded,
            restarts=self.parts.restarts,
            random_return_mean=None if evaluator is None else evaluator.random_return_mean,
        )
        content["sessions"][-1]["changed"] = {k: list(v) for k, v in self.start.changed.items()}
        if content["offline_data"]:  # counted when it was copied, which a resumed run need not
            counted = self.parts.offline_counts or earlier.get("offline_data") or {}
            content["offline_data"] = {**counted, **content["offline_data"]}
        if resume:
            carry_over(earlier, content)
            self._keep_time(earlier.get("updated_at"))
        return RunManifest(self.folder, content)

    def _keep_time(self, told: Any) -> None:
        """Times of a run go on after what it told last, whatever the clock was set to since."""
        behind = clock.not_before(told) if isinstance(told, float) else 0.0
        if behind >= 1:
            self.say(
                f"warning: the clock is {behind:,.0f} s behind the run's last entry; the run's "
                "times go on from there"
            )

    def _finish(
        self, manifest: RunManifest, trainer: Trainer, interrupted: bool, wall_s: float
    ) -> None:
        weights = trainer.store.path(trainer.step) / "model.safetensors"
        if not weights.is_file():
            raise TrainingError("the final checkpoint is missing", where=str(weights.parent))
        manifest.update(
            status="interrupted" if interrupted else "completed",
            final_checkpoint=trainer.store.path(trainer.step).name,
            weights_sha256=sha256_of(weights),
            wall_s=manifest.content["wall_s"] + wall_s,
        )
