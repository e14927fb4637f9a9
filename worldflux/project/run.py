"""A run wired together: worldflux.toml -> environment, model, replay -> one Trainer -> outputs/."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worldflux.backends.handle import NATIVE
from worldflux.core.config import WorldModelConfig
from worldflux.core.seeding import set_seed
from worldflux.core.world_model import WorldModel
from worldflux.data.collector import Collector
from worldflux.data.random_data import fill_with_noise
from worldflux.data.replay import ReplayBuffer
from worldflux.data.sources import CollectionSchedule, DataSource, OnlineSource, ReplaySource
from worldflux.envs.spec import EnvironmentSpec
from worldflux.errors import ConfigurationError, StorageError, TrainingError, WorldFluxError
from worldflux.factory import build_model
from worldflux.files import sha256_of
from worldflux.models.catalog import resolve
from worldflux.training.callbacks import Callback, LoggingCallback
from worldflux.training.config import TrainingConfig
from worldflux.training.devices import resolve_device
from worldflux.training.trainer import LAST, Trainer, TrainingResult

from . import manifest as manifests
from .environments import environment_maker, vector_environment
from .gameplay import GameplayStream
from .imagination_recorder import ImaginationRecorder
from .interruption import graceful_stop
from .loader import Project, load_project
from .manifest import RunManifest
from .recorder import ProjectEvaluator, RunRecorder, StopAtReturn
from .run_folder import RunFolder

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
    resume: bool = False,
    strict: bool = False,
    callbacks: Sequence[Callback] = (),
    say: Say = print,
) -> RunOutcome:
    """Train the project of a folder (or of a worldflux.toml) until it is done or interrupted.

    Args:
        overrides: `section.key=value` texts over worldflux.toml.
        resume: go on from the newest valid checkpoint of the output folder.
        strict: refuse to degrade (a device that is not there) instead of going on and saying so.
        callbacks: told of every step besides the run's own log and manifest.
        say: receives one line for each thing that the user should know.

    Raises:
        ConfigurationError: for a mistake in the project, before anything is written.
        RunFolderError: when the output folder cannot be used.
        TrainingError: when training had to stop; the manifest then says failed, and why.
    """
    project = load_project(Path(root), overrides)
    _refuse_delegated(project)
    config, degraded = _usable_device(project, project.training_config(), strict, say)
    folder = project.root / config.output_dir
    config = config.with_overrides(output_dir=str(folder))
    set_seed(config.seed)
    spec = environment_spec(project)
    model = build_model(model_configuration(project, spec))
    with RunFolder(folder, project.sections.project_name, resume=resume):
        data_mode = "online" if project.sections.data.source == "gym" else "random"
        run = _Run(project, config, spec, model, folder, degraded, data_mode, say)
        return run.execute(resume, callbacks)


def model_configuration(project: Project, spec: EnvironmentSpec) -> WorldModelConfig:
    """The model's configuration for an agent in this environment."""
    config = project.model_config(**spec.model_fields())
    return config.for_agent(spec.time_limit)


def environment_spec(project: Project) -> EnvironmentSpec:
    """What the project's environment observes and takes, read off one copy of it."""
    env_id = project.sections.environment
    envs = vector_environment(environment_maker(project.root, env_id), env_id, 1)
    envs.close()
    return envs.spec


def _refuse_delegated(project: Project) -> None:
    backend = project.training_config().backend
    if backend != NATIVE:
        raise ConfigurationError(
            f"backend {backend!r} runs an official implementation; worldflux train runs "
            f"{NATIVE!r} only",
            where=project.where("training", "backend"),
            hint=f'set training.backend = "{NATIVE}"',
        )


def _usable_device(
    project: Project, config: TrainingConfig, strict: bool, say: Say
) -> tuple[TrainingConfig, list[str]]:
    try:
        resolve_device(config.device)
    except ConfigurationError as error:
        if strict:
            raise ConfigurationError(
                error.message, where=project.where("training", "device"), hint=error.hint
            ) from None
        say(f"warning: {error.message}; this run goes on on the CPU (degraded: device_fallback)")
        return config.with_overrides(device="cpu"), [manifests.DEVICE_FALLBACK]
    return config, []


class _Run:
    """One execution: the parts of a run and the order in which they work."""

    def __init__(
        self,
        project: Project,
        config: TrainingConfig,
        spec: EnvironmentSpec,
        model: WorldModel,
        folder: Path,
        degraded: list[str],
        data_mode: str,
        say: Say,
    ) -> None:
        self.project, self.config, self.spec, self.model = project, config, spec, model
        self.folder, self.degraded, self.data_mode, self.say = folder, degraded, data_mode, say
        self.make = environment_maker(project.root, spec.env_id)

    def execute(self, resume: bool, callbacks: Sequence[Callback]) -> RunOutcome:
        evaluator = self._evaluator() if self.data_mode == "online" else None
        trainer = Trainer(self.model, self.config, evaluator=evaluator, seed_streams=False)
        source = self._source()
        manifest = self._manifest(resume, evaluator)
        for callback in (
            LoggingCallback(
                self.folder,
                log_to_console=False,
                **{f"log_to_{name}": True for name in self.config.log_to},
            ),
            RunRecorder(manifest, self.folder, evaluator, self.project.sections.gameplay.fps),
            *self._watchers(source),
            *callbacks,
        ):
            trainer.add_callback(callback)
        target = self.project.sections.evaluation.stop_at_return
        if target is not None:
            trainer.add_callback(StopAtReturn(target, manifest, self.say))
        began = time.monotonic()
        try:
            with self._page(), graceful_stop(trainer.request_stop) as stop:
                result = self._train(trainer, source, manifest, resume)
                interrupted = stop.signal_number is not None
                self._finish(manifest, trainer, interrupted, time.monotonic() - began)
        except WorldFluxError as error:
            self._record_failure(manifest, error.message)
            raise
        except BaseException as error:
            self._record_failure(manifest, f"{type(error).__name__}: {error}")
            raise
        if interrupted:
            self.say(f"interrupted at update {result.step}; everything is saved")
            self.say("go on with: worldflux train --resume")
            return RunOutcome(self.folder, result, stop.exit_code)
        return RunOutcome(self.folder, result, 0)

    @contextmanager
    def _page(self) -> Iterator[None]:
        """The dashboard in a process of its own, where [visualization] asks for it."""
        page = self.project.sections.visualization
        if not page.enabled:
            yield
            return
        from worldflux.dashboard import start_in_background

        with start_in_background(
            self.folder,
            host=page.host,
            port=page.port,
            refresh_ms=page.refresh_ms,
            open_browser=page.open_browser,
        ) as dashboard:
            self.say(f"dashboard: {dashboard.url}")
            yield

    def _train(
        self, trainer: Trainer, source: DataSource, manifest: RunManifest, resume: bool
    ) -> TrainingResult:
        if isinstance(trainer.evaluator, ProjectEvaluator):
            trainer.evaluator.stop = lambda: trainer.stop_requested
        if resume:
            trainer.attach(source)
            trainer.load_checkpoint(LAST)
            self.say(f"resuming at update {trainer.step} of {self.config.total_steps}")
            self._record_resume(source, manifest)
        return trainer.train(source)

    def _record_resume(self, source: DataSource, manifest: RunManifest) -> None:
        """Whether the environments stand where they stood: "exact", or "restarted" (and said)."""
        if not isinstance(source, OnlineSource):
            return
        restarted = source.collector.restarted
        if restarted:
            self.say(
                f"warning: {self.spec.env_id} did not repeat itself: the present episode of "
                f"environments {restarted} is dropped (env_resume = restarted)"
            )
        exact = not restarted and manifest.content.get("env_resume") != "restarted"
        manifest.update(env_resume="exact" if exact else "restarted")

    def _record_failure(self, manifest: RunManifest, reason: str) -> None:
        """In the manifest; on screen where even that cannot be written."""
        try:
            manifest.update(status="failed", reason=reason)
        except StorageError as error:
            self.say(f"warning: {error}")

    def _evaluator(self) -> ProjectEvaluator:
        sections = self.project.sections
        frames = sections.gameplay.max_frames if sections.gameplay.enabled else 0
        return ProjectEvaluator(
            vector_environment(
                self.make,
                self.spec.env_id,
                sections.evaluation.episodes,
                render_first=frames > 0,
            ),
            episodes=sections.evaluation.episodes,
            seed=self.config.seed + 1_000_000,
            max_frames=frames,
        )

    def _watchers(self, source: DataSource) -> list[Callback]:
        """What shows the agent at work: its frames, and what its model imagines."""
        sections = self.project.sections
        watchers: list[Callback] = [ImaginationRecorder(self.folder, sections.inference.horizon)]
        if sections.gameplay.enabled and isinstance(source, OnlineSource):
            envs = source.collector.envs
            watchers.append(GameplayStream(self.folder, envs, sections.gameplay.fps))
        return watchers

    def _source(self) -> DataSource:
        online, capacity = (
            self.project.sections.online_collection,
            self.project.sections.data.buffer_capacity,
        )
        recipe = self.model.config.training_recipe()
        columns = {name: shape for name, (shape, _) in self.model.replay_columns().items()}
        num_envs = online.num_envs if self.data_mode == "online" else 1
        buffer = ReplayBuffer(
            capacity,
            self.spec.replay_shapes,
            self.spec.action_dim,
            num_envs=num_envs,
            extra_columns=columns,
            seed=self.config.seed,
        )
        within = not recipe.crosses_episodes
        if self.data_mode == "random":
            fill_with_noise(buffer, self.spec, min(capacity, 10_000), self.config.seed)
            return ReplaySource(buffer, within_episode=within)
        warmup = online.warmup_transitions
        warmup = recipe.warmup_transitions if warmup is None else warmup
        pretrain = recipe.pretrain if online.pretrain is None else online.pretrain
        per_update = online.collect_steps_per_update
        draws = self.project.sections.gameplay.enabled
        envs = vector_environment(self.make, self.spec.env_id, num_envs, render_first=draws)
        return OnlineSource(
            Collector(envs, buffer, self.config.seed),
            CollectionSchedule(
                warmup_transitions=warmup,
                pretrain_updates=warmup if pretrain else 0,
                steps_per_update=1 / recipe.updates_per_step if per_update is None else per_update,
            ),
            within_episode=within,
        )

    def _manifest(self, resume: bool, evaluator: ProjectEvaluator | None) -> RunManifest:
        sections = self.project.sections
        model_config = self.model.config.to_dict()
        training_config = {**self.config.to_dict(), "output_dir": self.folder.name}
        content: dict[str, Any] = {
            "schema_version": manifests.SCHEMA_VERSION,
            "status": "running",
            "project_name": sections.project_name,
            "run_classification": manifests.classification(self.data_mode, self.degraded),
            "data_mode": self.data_mode,
            "degraded_modes": self.degraded,
            "model": resolve(sections.model),
            "parameters": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            "config_hash": manifests.config_hash(model_config, training_config),
            "model_config": model_config,
            "training_config": training_config,
            "resolved_training": vars(self.config.resolve(self.model.config)),
            "environment": {"id": self.spec.env_id, "time_limit": self.spec.time_limit},
            "seeds": {"run": self.config.seed, "evaluation": self.config.seed + 1_000_000},
            "device": str(resolve_device(self.config.device)),
            "threads": torch.get_num_threads(),
            "global_step": 0,
            "env_steps": 0,
            "best": None,
            "final": None,
            "stopped_early": False,
            "random_return_mean": None if evaluator is None else evaluator.random_return_mean,
            "started_at": time.time(),
            "wall_s": 0.0,
            "machine": manifests.machine(),
            "software": manifests.software(),
        }
        if resume:
            earlier = manifests.read_manifest(self.folder)
            for name in ("global_step", "env_steps", "best", "final", "started_at", "wall_s"):
                content[name] = earlier.get(name, content[name])
            for name in ("env_resume", "warnings", "rollbacks"):
                if name in earlier:
                    content[name] = earlier[name]
            content["degraded_modes"] = sorted({*earlier["degraded_modes"], *self.degraded})
            content["run_classification"] = manifests.classification(
                self.data_mode, content["degraded_modes"]
            )
        manifest = RunManifest(self.folder, content)
        manifest.update()
        return manifest

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
