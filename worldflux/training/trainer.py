"""`Trainer`: act, store, learn, log, evaluate, save."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from worldflux import clock
from worldflux.backends.handle import NATIVE, OfficialBackendHandle
from worldflux.backends.jobs import JobHandle
from worldflux.core.batch import Batch
from worldflux.core.learning import set_seed
from worldflux.core.world_model import WorldModel
from worldflux.data.sealed_files import remove_unnamed
from worldflux.data.sources import Data, DataSource, as_source
from worldflux.errors import CheckpointError, ConfigurationError, NonFiniteError
from worldflux.evaluation.episodes import EpisodeResults, EvaluationStopped
from worldflux.files import written_or_told

from .callback import (
    COLLECTING,
    EVALUATING,
    SAVING,
    Callback,
    callback_states,
    reports_warnings,
    require_hooks,
    restore_callbacks,
)
from .checkpoints import LAST, STATE_FILE, CheckpointStore, read_state, write_state
from .config import TrainingConfig
from .devices import resolve_device
from .divergence import culprit, keep_evidence, optimizer_tensors, require_finite
from .experience import WARN, ExperienceCheck
from .result import TrainingResult
from .snapshot import read_snapshot, write_snapshot
from .update import Updater, learning_overrides, learning_rate_factor
from .weight_average import WeightAverage

Evaluator = Callable[[WorldModel], EpisodeResults]

# What reading the state of a checkpoint raises that holds other parts, types or numbers.
_OTHER_STATE = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)


class Trainer:
    """Trains any family through its phases (see `worldflux.core.learning`).

    Args:
        model: a local world model.
        config: how long, how large and how often; what is not set follows the family's recipe.
        callbacks: told of every step, evaluation, checkpoint and episode.
        evaluator: plays evaluation episodes of the model; without it none take place.
        seed_streams: seed every random stream with `config.seed` before the first update; False
            where that was done before the model was built, as `worldflux train` does.

    Raises:
        ConfigurationError: when the device is not there, or `config.backend` is a delegated one.
    """

    def __new__(cls, model: Any, *args: Any, **kwargs: Any) -> Trainer:
        """A handle of a delegated backend gives the trainer whose `submit` starts it."""
        if isinstance(model, OfficialBackendHandle):
            from .delegated import DelegatedTrainer

            return super().__new__(DelegatedTrainer)
        return super().__new__(cls)

    def __init__(
        self,
        model: WorldModel | OfficialBackendHandle,
        config: TrainingConfig | None = None,
        callbacks: Sequence[Callback] | None = None,
        *,
        evaluator: Evaluator | None = None,
        seed_streams: bool = True,
    ) -> None:
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
        for callback in callbacks or ():
            self.add_callback(callback)
        self.evaluator = evaluator
        self.seed_streams = seed_streams
        self.phases = self.model.phases(learning_overrides(self.config))
        if self.config.compile:
            told = "compile_fallback: training goes on uncompiled"
            self.model.compile_for_training(lambda why: self._tell("on_warning", f"{told} ({why})"))
        decay = self.config.ema_decay
        self.average = None if decay is None else WeightAverage(self.model, decay)
        self.updater = Updater(self.model, self.phases, self.config)
        self.store = CheckpointStore(Path(self.config.output_dir) / "checkpoints")
        self.step = self.env_steps = 0
        self.rollbacks: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.stop_requested = self.checkpoint_requested = False
        self.metrics: dict[str, float] = {}
        self.source: DataSource | None = None
        how = self.config.on_unfit_data or WARN
        self.experience = ExperienceCheck(self.model.experience_limits(), how)
        self._batch: Batch | None = None
        self._evaluation_due = False
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
        self._tell("on_train_begin")
        self._evaluate_when_due()  # one that a signal broke off before this call
        while self.step < goal and not self.stop_requested:
            try:
                if not self._act_and_learn(source, rate):
                    break
                self._evaluation_due = self._due(self.config.eval_interval, goal)
                self._evaluate_when_due()
                if self._due(self.config.save_interval, goal) or self.checkpoint_requested:
                    self.save_checkpoint()
            except NonFiniteError as error:
                self._go_back(error)
        if self.stop_requested:
            self.save_checkpoint()
        for told in self.experience.last_report():
            self._tell("on_warning", told)
        self._tell("on_train_end")
        best = None if self.best is None else float(self.best["return_mean"])
        done = self.step, self.env_steps, dict(self.metrics), best, self.stop_requested
        return TrainingResult(*done, model=self.model)

    def _act_and_learn(self, source: DataSource, rate: Callable[[int], float]) -> bool:
        """One update, and the experience due before it; False where a stop came in between."""
        self._tell("on_step_begin")
        for episode in source.collect(self.model, self.step, self._between_steps):
            self._tell("on_episode_end", episode)
        self.env_steps = source.env_steps
        if self.stop_requested:
            return False
        self._look_at_experience()
        rows, length = self.resolved.batch_size, self.resolved.sequence_length
        self._batch = batch = source.sample(rows, length, self.model.device)
        self._look_at_experience(batch)
        factor = rate(self.step) * 0.5 ** len(self.rollbacks)
        self.metrics, scratch = self.updater.update(batch, factor)
        source.write_back(batch, self.model.after_update(scratch))
        if self.average is not None:
            self.average.update(self.model)
        self.step += 1
        self._tell("on_step_end", self.metrics)
        return True

    def _between_steps(self) -> bool:
        """Asked before and after each environment step: whether to stop collecting."""
        if self.source is not None:
            self.env_steps = self.source.env_steps
            self._look_at_experience()
        self._tell("on_stage", COLLECTING)
        return self.stop_requested

    def _look_at_experience(self, batch: Batch | None = None) -> None:
        try:
            news = self.experience.look(self.source, batch, before_learning=self.step == 0)
        except ConfigurationError:
            if self.step:
                self.save_checkpoint()
            raise
        for told in news:
            self._tell("on_warning", told)
            if not any(map(reports_warnings, self.callbacks)):
                logging.getLogger(__name__).warning(told)

    def _go_back(self, error: NonFiniteError) -> None:
        """Keep what was not finite; then go back to the last checkpoint, or give up."""
        batch, loss = self._batch, error.where
        found = None if batch is None else culprit(batch, self.model, loss)
        tensor = found or loss or "the weights"
        root = self.store.root.parent
        kept = keep_evidence(root, self.step, error.message, tensor, batch, self.model)
        last, _ = self.store.newest_valid()
        told = f"update {self.step + 1}: {error.message} (first in {tensor}; see {kept})"
        if last is None or len(self.rollbacks) >= self.config.max_rollbacks:
            good = "none was written yet" if last is None else last.name
            raise NonFiniteError(
                f"{told}; last good checkpoint: {good}", where=tensor, hint=error.hint
            ) from None
        entry = {"step": self.step, "to": last.name, "tensor": tensor, "reason": error.message}
        rollbacks = [*self.rollbacks, entry]
        self.updater.precision.finish()
        self.load_checkpoint(last)
        self.rollbacks = rollbacks
        self._tell("on_warning", f"{told}; back to {last.name} with half the learning rate")

    def submit(self) -> JobHandle:
        """Start a delegated run as a job; only the trainer of a handle can.

        Raises:
            ConfigurationError: for a local model, which `train` trains here.
        """
        raise ConfigurationError(
            "submit starts an official implementation; a local model is trained here",
            hint="trainer.train(data), or create_world_model(..., backend=...) for a handle",
        )

    def attach(self, data: Data) -> DataSource:
        """Take data as this trainer's own: checkpoints save and restore it too."""
        self.source = as_source(data, self.model)
        return self.source

    def _due(self, interval: int, goal: int) -> bool:
        return self.step % interval == 0 or self.step == goal

    # ------------------------------------------------------------------ evaluation

    def evaluate(self, data: object = None, num_batches: int | None = None) -> EpisodeResults:
        """Play evaluation episodes (with the weight average where there is one).

        A new best mean return is saved at once, so that the best agent is never lost.

        Raises:
            ConfigurationError: when the trainer was given no evaluator, or data to evaluate on.
        """
        if data is not None or num_batches is not None:
            hint = "the loss of held-out data: model.loss(buffer.sample(16, 50)).loss"
            raise ConfigurationError("evaluate plays episodes; it takes no data", hint=hint)
        self._evaluation_due = False
        if self.evaluator is None:
            raise ConfigurationError("this trainer has no evaluator: give Trainer(evaluator=...)")
        self._tell("on_stage", EVALUATING)
        if self.average is None:
            results = self.evaluator(self.model)
        else:
            with self.average.applied(self.model):
                results = self.evaluator(self.model)
        improved = self.best is None or results.return_mean > self.best["return_mean"]
        if improved:
            self.best = {"step": self.step, "return_mean": results.return_mean}
        self._tell("on_eval_end", results)
        if improved:
            self.save_checkpoint()
        return results

    def _evaluate_when_due(self) -> None:
        """Evaluate; a stop breaks it off, and the run that goes on evaluates first."""
        if self.evaluator is None or not self._evaluation_due:
            return
        try:
            self.evaluate()
        except EvaluationStopped:
            self._evaluation_due = True

    # ------------------------------------------------------------------ checkpoints

    def save_checkpoint(self) -> Path:
        """Write a checkpoint of everything below `output_dir`, and prune old ones.

        Called again at the same update, it leaves the one that it wrote.
        """
        self.checkpoint_requested = False
        if self._saved_step == self.step:
            return self.store.path(self.step)
        self._tell("on_stage", SAVING)
        require_finite(self._saved_tensors(), self.step)
        data_folder = self.store.root.parent / "replay"
        with written_or_told(data_folder):
            source_state = {} if self.source is None else self.source.save(data_folder)

        def write(folder: Path) -> None:
            state = write_snapshot(folder, self.model, self.phases, self.average)
            state |= {
                "step": self.step,
                "env_steps": self.env_steps,
                "best": self.best,
                "rollbacks": self.rollbacks,
                "evaluation_due": self._evaluation_due,
                "callbacks": callback_states(self.callbacks),
                "data": source_state,
                "training_config": {**self.config.to_dict(), "on_unfit_data": self.experience.how},
                "precision": self.updater.precision.state_dict(),
                "saved_at": clock.now(),
            }
            write_state(folder / STATE_FILE, state)

        needed = sum(t.numel() * t.element_size() for _, t in self._saved_tensors())
        details = {"model": self.model.config.model_name}
        path = self.store.save(self.step, write, details, needed_bytes=needed)
        self.store.prune(keep={int(self.best["step"])} if self.best else set())
        self._remove_unnamed_files(data_folder)
        self._saved_step = self.step
        self._tell("on_checkpoint", path)
        return path

    def load_checkpoint(self, path: str | Path = LAST) -> Path:
        """Restore weights, optimisers, random streams, counters and data; returns the folder.

        `path` "last" takes the newest checkpoint whose hashes hold; damaged newer ones are passed
        over and told to the callbacks (`on_warning`).

        Raises:
            CheckpointError: when there is none, or the one named is damaged.
        """
        folder = self.store.chosen(path, lambda told: self._tell("on_warning", told))
        state = read_state(folder / STATE_FILE)
        try:
            self._restore(folder, state)
        except _OTHER_STATE as error:
            raise CheckpointError(
                f"the checkpoint's state is of another version: {error!r}", where=str(folder)
            ) from error
        self._tell("on_restore", folder)
        return folder

    def _restore(self, folder: Path, state: dict[str, Any]) -> None:
        if self.source is not None and state["data"]:
            self.source.restore(state["data"], self.store.root.parent / "replay")
        read_snapshot(folder, state, self.model, self.phases, self.average)
        self.step, self.env_steps = int(state["step"]), int(state["env_steps"])
        best = state["best"]
        self.best = best and {
            "step": int(best["step"]),
            "return_mean": float(best["return_mean"]),
        }
        self.rollbacks = list(state["rollbacks"])
        self._evaluation_due = bool(state["evaluation_due"])
        self._saved_step = None
        self.updater.precision.load_state_dict(state["precision"])
        restore_callbacks(self.callbacks, state["callbacks"])
        self.experience.start_over(self.config.on_unfit_data or state["training_config"])

    def _saved_tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.model.state_dict().items()
        yield from optimizer_tensors(self.phases)
        if self.average is not None:
            yield from self.average.tensors.items()

    def _remove_unnamed_files(self, data_folder: Path) -> None:
        """Delete replay files that no kept checkpoint names (they left the ring)."""
        with suppress(CheckpointError):  # of a damaged one: what it names is not known
            remove_unnamed(data_folder, [state["data"] for state in self.store.states()])

    # ------------------------------------------------------------------ callbacks

    def add_callback(self, callback: Callback) -> None:
        """Tell one more callback from now on.

        Raises:
            ConfigurationError: when a hook of it takes other arguments.
        """
        require_hooks(callback)
        self.callbacks.append(callback)

    def request_stop(self) -> None:
        """Finish the current update, save and return."""
        self.stop_requested = True

    def request_checkpoint(self) -> None:
        """Finish the current update, save and go on."""
        self.checkpoint_requested = True

    def _tell(self, hook: str, *details: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self, *details)
