"""`Callback`: the hooks that the Trainer calls, and the state that checkpoints keep of them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldflux.data.collector import Episode
from worldflux.errors import ConfigurationError
from worldflux.evaluation.episodes import EpisodeResults

if TYPE_CHECKING:
    from .trainer import Trainer


# What `on_stage` names: everything a run does besides its updates.
COLLECTING, EVALUATING, SAVING = "collecting", "evaluating", "saving"


class Callback:
    """Base of all callbacks: override the hooks you need."""

    def on_train_begin(self, trainer: Trainer) -> None:
        """Before the first update of this call of `train`."""

    def on_train_end(self, trainer: Trainer) -> None:
        """After the last update."""

    def on_step_begin(self, trainer: Trainer) -> None:
        """Before each gradient update."""

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """After each gradient update, with its metrics ("loss/...", "grad_norm/...")."""

    def on_stage(self, trainer: Trainer, stage: str) -> None:
        """Around each environment step of "collecting"; before "evaluating" and "saving"."""

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        """After each evaluation."""

    def on_media(self, trainer: Trainer, name: str, path: Path) -> None:
        """After a picture or video of an evaluation was written, e.g. "imagination/video"."""

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
        """After each checkpoint has been written."""

    def on_episode_end(self, trainer: Trainer, episode: Episode) -> None:
        """After each episode that the agent collected."""

    def on_restore(self, trainer: Trainer, path: Path) -> None:
        """After a checkpoint has been loaded, on resume or to go back after a NaN."""

    def on_warning(self, trainer: Trainer, message: str) -> None:
        """When something degraded but the run continues."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know, JSON-ready; checkpoints hold it."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""


def require_hooks(callback: Callback) -> None:
    """Refuse a callback with a hook that cannot be called as it will be."""
    for name, hook in vars(Callback).items():
        if not name.startswith("on_"):
            continue
        own, expected = getattr(type(callback), name, None), inspect.signature(hook)
        if own is None:
            raise ConfigurationError(f"{type(callback).__name__} is not a Callback: no {name}()")
        try:
            inspect.signature(own).bind(*[None] * len(expected.parameters))
        except TypeError:
            place = f"{type(callback).__name__}.{name}{inspect.signature(own)}"
            raise ConfigurationError(
                f"{place} does not take the arguments of that hook",
                hint=f"def {name}({', '.join(expected.parameters)})",
            ) from None


def reports_warnings(callback: Callback) -> bool:
    """Whether it does anything with a warning."""
    return type(callback).on_warning is not Callback.on_warning


def numbered(callbacks: list[Callback]) -> dict[str, Callback]:
    """Callbacks by class and order, as checkpoints name them: "LoggingCallback/0"."""
    kinds = [type(callback).__name__ for callback in callbacks]
    return {f"{kinds[i]}/{kinds[:i].count(kinds[i])}": each for i, each in enumerate(callbacks)}
