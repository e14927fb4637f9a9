"""What `Trainer(handle, config)` is when a handle names an official implementation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from worldflux.backends.handle import OfficialBackendHandle
from worldflux.backends.jobs import JobHandle
from worldflux.backends.submission import submit
from worldflux.errors import ConfigurationError

from .callbacks import Callback
from .config import TrainingConfig
from .trainer import Trainer


class DelegatedTrainer(Trainer):
    """A trainer whose work an official program does: `submit()` starts it.

    Args:
        model: the handle that `create_world_model(..., backend=...)` gave.
        config: what the program is told; a field that it cannot be told is refused by `submit`.

    Raises:
        ConfigurationError: when callbacks or an evaluator are given, which nothing would call.
    """

    def __init__(
        self,
        model: Any,
        config: TrainingConfig | None = None,
        callbacks: Sequence[Callback] = (),
        *,
        evaluator: Any = None,
    ) -> None:
        if callbacks or evaluator is not None:
            raise ConfigurationError(
                "a delegated run calls no callbacks and no evaluator",
                hint="read its metrics.jsonl and eval.jsonl, or JobHandle.logs(follow=True)",
            )
        assert isinstance(model, OfficialBackendHandle)
        self.handle = model
        self.config = config or TrainingConfig(backend=model.backend)

    def submit(self) -> JobHandle:
        """Start the official program; see `worldflux.backends.submission.submit`."""
        return submit(self.handle, self.config)

    def train(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: the official program trains by itself."""
        self._refuse("train")

    def evaluate(self, data: object = None, num_batches: int | None = None) -> NoReturn:
        """Refused: the official program evaluates by itself."""
        self._refuse("evaluate")

    def save_checkpoint(self) -> NoReturn:
        """Refused: the official program saves by itself."""
        self._refuse("save a checkpoint")

    def load_checkpoint(self, path: str | Path = "") -> NoReturn:
        """Refused: the official program loads by itself."""
        self._refuse("load a checkpoint")

    def _refuse(self, what: str) -> NoReturn:
        raise ConfigurationError(
            f"this trainer cannot {what}: {self.handle.backend!r} runs an official program",
            hint="job = trainer.submit(); job.wait()",
        )
