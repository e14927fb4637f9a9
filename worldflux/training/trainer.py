"""`Trainer`: act, store, learn, log, evaluate, save."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, overload

from worldflux import clock
from worldflux.backends.jobs import JobHandle
from worldflux.backends.program import NATIVE, OfficialBackendHandle
from worldflux.core.batch import Batch
from worldflux.core.learning import bytes_of, set_seed
from worldflux.core.precision import COMPUTE_TYPES
from worldflux.core.starting import freeze
from worldflux.core.world_model import WorldModel
from worldflux.data.replay_storage import remove_unnamed
from worldflux.data.sources import Data, DataSource, as_source
from worldflux.errors import CheckpointError, ConfigurationError, NonFiniteError
from worldflux.evaluation.episodes import EpisodeResults, EvaluationStopped
from worldflux.files import written_or_told
from worldflux.layout import CHECKPOINTS, REPLAY

from .callback import COLLECTING, EVALUATING, SAVING, Callback, reports_warnings, require_hooks
from .checkpoints import LAST, STATE_FILE, CheckpointStore, read_state
from .config import TrainingConfig
from .device import resolve_device
from .divergence import require_finite, roll_back
from .experience import ExperienceCheck
from .precision import Precision, faster_precision, precision_of
from .result import TrainingResult, held_out_losses
from .sharded import updater_of
from .shards import OneProcess, ShardGroup
from .snapshot import read_snapshot, saved_tensors, write_snapshot
from .update import WeightAverage, learning_overrides, learning_rate_factor

Evaluator = Callable[[WorldModel], EpisodeResults]


class Trainer:
    """Trains any family through its phases (see `worldflux.core.learning`).

    Args:
        model: a local world model, or the handle of an official program, which `submit` starts.
        config: how long, how large and how often; what is not set follows the family's recipe.
        callbacks: called at every step, evaluation, checkpoint and episode.
        evaluator: plays evaluation episodes of the model; without it none take place.
        seed_streams: seed every random stream with `config.seed` before the first update; False
            if that was done before the model was built.
        shards: of a run with several (`worldflux.training.sharded`): every process has a trainer.

    Raises:
        ConfigurationError: when the device is not available, model and `config.backend`
            contradict each other, or callbacks are given that a delegated run would not call.
    """

    def __init__(
        self,
        model: WorldModel | OfficialBackendHandle,
        config: TrainingConfig | None = None,
        callbacks: Sequence[Callback] | None = None,
        *,
        evaluator: Evaluator | None = None,
        seed_streams: bool = True,
        shards: ShardGroup | None = None,
    ) -> None:
        self.handle = model if isinstance(model, OfficialBackendHandle) else None
        if self.handle is not None:
            self.config = config or TrainingConfig(backend=self.handle.backend)
            if callbacks or evaluator is not None:
                raise ConfigurationError(
                    "a delegated run calls no callbacks and no evaluator",
                    hint="read its metrics.jsonl and eval.jsonl, or JobHandle.logs(follow=True)",
                )
            return
        if not isinstance(model, WorldModel):
            raise ConfigurationError(
                f"Trainer takes a local world model, not {type(model).__name__}",
                hint="create_world_model(..., backend='native_torch')",
            )
        self.config = config or TrainingConfig()
        if self.config.backend != NATIVE:
            raise ConfigurationError(
                f"a local model is trained by {NATIVE!r}, not by {self.config.backend!r}",
                hint=f"create_world_model(..., backend={self.config.backend!r}) gives its handle",
            )
        self.resolved = self.config.resolve(model.config)
        self.model = model.to(resolve_device(self.config.device)).eval()
        self.callbacks: list[Callback] = []
        self._unheard: list[str] = []  # warnings that came before a callback that reports them
        for callback in callbacks or ():
            self.add_callback(callback)
        self.evaluator = evaluator
        self.seed_streams = seed_streams
        freeze(self.model, self.config.freeze)
        self.phases = self.model.phases(learning_overrides(self.config))
        decay = self.config.ema_decay
        self.average = None if decay is None else WeightAverage(self.model, decay)
        self.shards = shards or OneProcess()
        self.updater = updater_of(self.model, self.phases, self.config, shards)
        self.precision = precision_of(self.config, self.model)  # None until it is measured
        if self.precision is not None:
            self.use_precision(self.precision)
        if self.config.compile:
            fallback = "compile_fallback: training continues"
            self.model.compile_for_training(lambda why: self.warn(f"{fallback} uncompiled ({why})"))
            self.updater.use_graphs(lambda why: self.warn(f"{fallback} without graphs ({why})"))
        self.store = CheckpointStore(Path(self.config.output_dir) / CHECKPOINTS)
        self.step = self.env_steps = 0
        self.trained_s = 0.0  # on updates and the collecting between them
        self.rollbacks: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.evaluation_due = False
        self.metrics: dict[str, float] = {}
        self.source: DataSource | None = None
        self.experience = ExperienceCheck(model.experience_limits(), self.config.on_unfit_data)
        self.batch: Batch | None = None
        self._saved_step: int | None = None

    # ------------------------------------------------------------------ the loop

    def train(
        self,
        data: Data,
        num_steps: int | None = None,
        resume_from: str | Path | None = None,
    ) -> TrainingResult:
        """Train until `config.total_steps` gradient updates, or for `num_steps` more.

        Args:
            data: a filled ReplayBuffer, a data source, an iterable of batches `[B, T, ...]` (or of
                dicts of their fields), or an object with `sample(batch_size, seq_len, device)`.
            resume_from: a checkpoint folder, or "last" for the newest valid one.

        Raises:
            NonFiniteError: when a tensor, which it names, is not finite and no rollback is left.
            ConfigurationError: when the model cannot learn the data as it is (`on_unfit_data`).
            CheckpointError: when the checkpoint to resume from is damaged or missing.
            StorageError: when a checkpoint cannot be written.
        """
        source = self.attach(data)
        if resume_from is not None:
            self.load_checkpoint(resume_from)
        elif self.step == 0 and self.seed_streams:
            set_seed(self.config.seed)
        goal = self.config.total_steps if num_steps is None else self.step + num_steps
        rate = learning_rate_factor(self.config, self.config.total_steps)
        self._call("on_train_begin")
        self._evaluate_when_due()  # an evaluation that a stop interrupted
        while self.step < goal and not self.stop_requested:
            try:
                if not self._act_and_learn(source, rate):
                    break
                self.evaluation_due = self._due(self.config.eval_interval, goal)
                self._evaluate_when_due()
                if self._due(self.config.save_interval, goal) or self.shards.checkpoint_agreed:
                    self.save_checkpoint()
            except NonFiniteError as error:
                roll_back(self, error)
            except ConfigurationError:  # experience that the model cannot learn
                if self.step:
                    self.save_checkpoint()
                raise
        if self.stop_requested:
            self.save_checkpoint()
        for report in self.experience.last_report():
            self.warn(report)
        self._call("on_train_end")
        best = None if self.best is None else float(self.best["return_mean"])
        done = self.step, self.env_steps, dict(self.metrics), best, self.stop_requested
        return TrainingResult(*done, model=self.model)

    def submit(self) -> JobHandle:
        """Start the official program of a handle as a job.

        Raises:
            ConfigurationError: for a local model, or a setting that the program cannot be given.
        """
        if self.handle is None:
            raise ConfigurationError(
                "submit starts an official implementation; a local model is trained here",
                hint="trainer.train(data), or create_world_model(..., backend=...) for a handle",
            )
        from worldflux.backends.submission import submit

        return submit(self.handle, self.config)

    def _require_local(self, what: str) -> None:
        if self.handle is not None:
            raise ConfigurationError(
                f"this trainer cannot {what}: {self.handle.backend!r} runs an official program",
                hint="job = trainer.submit(); job.wait()",
            )

    def attach(self, data: Data) -> DataSource:
        """Take data as this trainer's own: checkpoints save and restore it too."""
        self._require_local("train")
        self.source = as_source(data, self.model)
        return self.source

    def _act_and_learn(self, source: DataSource, rate: Callable[[int], float]) -> bool:
        """One update, and the experience due before it; False where a stop came in between."""
        self._call("on_step_begin")
        began = time.monotonic()
        with clock.spent.on(clock.REPLAY):
            ended = source.collect(self.model, self.step, self._between_steps)
        for episode in ended:
            self._call("on_episode_end", episode)
        self.env_steps = source.env_steps
        if self.stop_requested:
            return False
        if self.step == 0:  # what was collected is the warm-up, not training
            began = time.monotonic()
        self._check_experience()
        rows, length = self.resolved.batch_size, self.resolved.sequence_length
        with clock.spent.on(clock.REPLAY):
            self.batch = batch = source.sample(rows, length, self.model.device)
        self._check_experience(batch)
        if self.precision is None:
            self.use_precision(faster_precision(self.model, self.config, batch, source.streams))
        factor = rate(self.step) * 0.5 ** len(self.rollbacks)
        self.model.pretraining = source.pretrains(self.step)
        with clock.spent.on(clock.LEARNING):
            self.metrics, scratch = self.updater.update(batch, factor)
            fresh = self.model.after_update(scratch)
            if self.average is not None:
                self.average.update(self.model)
        with clock.spent.on(clock.REPLAY):
            source.write_back(batch, fresh)
        self.step += 1
        self.trained_s += time.monotonic() - began
        self._call("on_step_end", self.metrics)
        return True

    def use_precision(self, precision: Precision) -> None:
        """Compute in these types from now on."""
        self.precision = precision
        self.updater.compute_in(precision.learning)
        self.model.acting_dtype = COMPUTE_TYPES[precision.acting]

    def _between_steps(self) -> bool:
        """Called before and after each environment step; whether to stop collecting."""
        if self.source is not None:
            self.env_steps = self.source.env_steps
            self._check_experience()
        self._call("on_stage", COLLECTING)
        return self.shards.stop_wanted

    def _check_experience(self, batch: Batch | None = None) -> None:
        for report in self.experience.look(self.source, batch, before_learning=self.step == 0):
            self.warn(report)

    def _due(self, interval: int, goal: int) -> bool:
        return self.step % interval == 0 or self.step == goal

    # ------------------------------------------------------------------ evaluation

    @overload
    def evaluate(self) -> EpisodeResults: ...
    @overload
    def evaluate(self, data: Data, num_batches: int = 10) -> dict[str, float]: ...

    def evaluate(self, data: Data | None = None, num_batches: int = 10) -> Any:
        """Play evaluation episodes (with the weight average if there is one), or with `data` give
        the mean losses of batches of it by name.

        A new best mean return is saved at once, so that the best agent is never lost.

        Raises:
            ConfigurationError: without an evaluator and without data.
        """
        self._require_local("evaluate")
        if data is not None:
            return held_out_losses(self.model, data, self.resolved, num_batches)
        self.evaluation_due = False
        if self.evaluator is None:
            raise ConfigurationError("this trainer has no evaluator: pass Trainer(evaluator=...)")
        self._call("on_stage", EVALUATING)
        average = self.average.applied(self.model) if self.average else nullcontext()
        with clock.spent.on(clock.EVALUATION), average:
            results = self.evaluator(self.model)
        improved = self.best is None or results.return_mean > self.best["return_mean"]
        if improved:
            self.best = {"step": self.step, "return_mean": results.return_mean}
        with clock.spent.on(clock.PICTURES):
            self._call("on_eval_end", results)
        if improved:
            self.save_checkpoint()
        return results

    def _evaluate_when_due(self) -> None:
        """Evaluate; if a stop interrupts it, the resumed run evaluates first."""
        if self.evaluator is not None and self.evaluation_due:
            try:
                self.evaluate()
            except EvaluationStopped:
                self.evaluation_due = True

    # ------------------------------------------------------------------ checkpoints

    def save_checkpoint(self) -> Path:
        """Write a checkpoint of everything below `output_dir`, and prune old ones.

        Called again at the same update, it returns the one that it wrote.
        """
        self._require_local("save a checkpoint")
        self.shards.checkpoint_done()
        if self._saved_step == self.step:
            return self.store.path(self.step)
        self._call("on_stage", SAVING)
        with clock.spent.on(clock.SAVING):
            require_finite(saved_tensors(self), self.step)
            replay = self.store.root.parent / REPLAY
            with written_or_told(replay):
                state = {} if self.source is None else self.source.save(replay)
            path = self.shards.lead(lambda: self._write_checkpoint(state, replay))
        self._saved_step = self.step
        self._call("on_checkpoint", path)
        return path

    def _write_checkpoint(self, state: dict[str, Any], replay: Path) -> Path:
        path = self.store.save(
            self.step,
            lambda folder: write_snapshot(folder, self, state),
            {"model": self.model.config.model_name},
            needed_bytes=bytes_of(tensor for _, tensor in saved_tensors(self)),
        )
        self.store.prune(self.step, {int(self.best["step"])} if self.best else set())
        with suppress(CheckpointError):  # which replay files a damaged one names is unknown
            states = [read_state(self.store.path(s) / STATE_FILE) for s in self.store.steps()]
            remove_unnamed(replay, [each["data"] for each in states])
        return path

    def load_checkpoint(self, path: str | Path = LAST) -> Path:
        """Restore weights, optimisers, random streams, counters and data; returns the folder.

        `path` "last" takes the newest checkpoint whose hashes hold; damaged newer ones are skipped
        and reported to the callbacks (`on_warning`).

        Raises:
            CheckpointError: when there is none, or the one named is damaged.
        """
        self._require_local("load a checkpoint")
        folder = self.shards.lead(lambda: self.store.chosen(path, self.warn))
        read_snapshot(folder, self)
        self._saved_step = None
        self._call("on_restore", folder)
        return folder

    # ------------------------------------------------------------------ callbacks

    def add_callback(self, callback: Callback) -> None:
        """Call one more callback from now on.

        Raises:
            ConfigurationError: when a hook of it takes other arguments.
        """
        require_hooks(callback)
        self.callbacks.append(callback)
        if reports_warnings(callback):
            for message in self._unheard:
                callback.on_warning(self, message)

    def request_stop(self) -> None:
        """Finish the current update, save and return."""
        self.shards.stop_wanted = True

    def request_checkpoint(self) -> None:
        """Finish the current update, save and continue."""
        self.shards.checkpoint_wanted = True

    @property
    def stop_requested(self) -> bool:
        """Whether to stop after this update, which every process of the run knows."""
        return self.shards.stop_agreed

    def warn(self, message: str) -> None:
        """Report something that degraded to the callbacks, or to the log if none reports it."""
        self._call("on_warning", message)
        if not any(map(reports_warnings, self.callbacks)):
            self._unheard.append(message)
            logging.getLogger(__name__).warning(message)

    def _call(self, hook: str, *details: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self, *details)
