"""`TrainingConfig`: how long, how large and how often. No torch.

A field that the user did not set takes the family's own recipe: explicitly set > the model's
configuration > recipe (`resolve`).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from worldflux.alpha import missing_attribute, refuse_training_fields
from worldflux.core.config.base import WorldModelConfig
from worldflux.core.config.validation import (
    check_bounds,
    check_choice,
    check_positive,
    check_types,
    fail,
    strict_dataclass,
)
from worldflux.errors import did_you_mean
from worldflux.files import read_json_object, write_json

OPTIMIZERS = ("auto", "adam", "adamw", "laprop")
SCHEDULERS = ("none", "linear", "cosine")
LOGGERS = ("tensorboard", "wandb", "trackio")


@dataclass(frozen=True)
class ResolvedTraining:
    """The numbers a run really uses, after the family's recipe has filled what was not set.

    `grad_clip` is None where the family's optimiser clips by itself; `update_ratio` is gradient
    updates per environment step.
    """

    batch_size: int
    sequence_length: int
    learning_rate: float
    grad_clip: float | None
    update_ratio: float


@strict_dataclass
class TrainingConfig:
    """Settings of one training run; what is not set follows the model's own recipe.

    `learning_rate` is multiplied by the warmup (n + 1) / warmup_steps, then by the schedule over
    the rest of the run. One NaN more than `max_rollbacks` ends the run with an error.

    Raises:
        ConfigurationError: naming the field, the value and what is allowed.
    """

    total_steps: int = 100_000  #: gradient updates of the run
    batch_size: int = 16  #: sequences in a batch; unset: the model's recipe
    sequence_length: int = 50  #: steps of a sequence; unset: the model's recipe
    learning_rate: float = 3e-4  #: unset: the model's recipe
    grad_clip: float = 100.0  #: largest gradient norm; unset: the model's recipe
    weight_decay: float = 0.0  #: weight decay of the optimiser
    warmup_steps: int = 0  #: updates in which the learning rate rises
    log_interval: int = 100  #: updates between rows of metrics.jsonl
    eval_interval: int = 1000  #: updates between evaluations
    save_interval: int = 10_000  #: updates between checkpoints
    output_dir: str = "./outputs"  #: folder of the run, relative to the project
    device: str = "auto"  #: "auto", "cpu", "cuda", "cuda:1" or "mps"
    seed: int = 42  #: of every random stream, before the first update
    #: compute in bfloat16, or in float16 with loss scaling where the device has no bfloat16
    mixed_precision: bool = False
    backend: str = "native_torch"  #: "native_torch", or an official program that runs as a job
    backend_profile: str = ""  #: preset that a delegated backend runs
    optimizer: str = "auto"  #: "auto": the model's own, "adam", "adamw" or "laprop"
    #: how the learning rate falls over the run
    scheduler: Literal["none", "linear", "cosine"] = "none"
    gradient_accumulation_steps: int = 1  #: batches whose gradients make one update
    #: average of the weights that is evaluated and saved, for example 0.97
    ema_decay: float | None = None
    #: fields of the model's configuration
    model_overrides: dict[str, Any] = field(default_factory=dict)
    #: times that a NaN sends the run back to its last checkpoint at half the learning rate
    max_rollbacks: int = 0
    #: loggers beside metrics.jsonl: "tensorboard", "wandb", "trackio"
    log_to: tuple[str, ...] = field(default=(), kw_only=True)
    #: compile the costly functions (torch.compile); where that fails, training continues without
    compile: bool = field(default=False, kw_only=True)
    #: where the model cannot learn what it is given (terminations without `episodic`, values beyond
    #: its range): "stop", as `worldflux train` does unless told, or "warn" with their number
    on_unfit_data: Literal["stop", "warn"] | None = field(default=None, kw_only=True)

    RECIPE_FIELDS: ClassVar[frozenset[str]] = frozenset(
        {"batch_size", "sequence_length", "learning_rate", "grad_clip"}
    )

    def __post_init__(self) -> None:
        if isinstance(self.output_dir, os.PathLike):
            self.output_dir = os.fspath(self.output_dir)
        check_types(self)
        check_positive(self, "total_steps", "batch_size", "sequence_length", "learning_rate")
        check_positive(self, "grad_clip", "log_interval", "eval_interval", "save_interval")
        check_positive(self, "gradient_accumulation_steps")
        check_bounds(
            self,
            {
                "weight_decay": (0.0, None),
                "warmup_steps": (0, None),
                "max_rollbacks": (0, None),
                "seed": (0, 2**32 - 1),
                "ema_decay": (0.0, 0.999999999),
                "sequence_length": (2, None),
            },
        )
        check_choice(self, "optimizer", OPTIMIZERS)
        check_device_name(type(self), self.device)
        for name in self.log_to:
            if name not in LOGGERS:
                near = did_you_mean(name, LOGGERS)
                fail(type(self), "log_to", name, f"names among {', '.join(LOGGERS)}", near)
        if not self.output_dir.strip() or "\0" in self.output_dir:
            fail(type(self), "output_dir", self.output_dir, "the path of a folder")

    @property
    def set_fields(self) -> frozenset[str]:
        """Names of the fields that the caller set, as against defaults."""
        fields: frozenset[str] = self._set_fields  # type: ignore[attr-defined]
        return fields

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise missing_attribute(self, name)

    def resolve(self, model: WorldModelConfig) -> ResolvedTraining:
        """The numbers to train `model` with: set here > the model's configuration > recipe."""
        recipe = model.training_recipe()
        chosen = self.set_fields
        batch_size = self.batch_size if "batch_size" in chosen else recipe.batch_size
        length = self.sequence_length if "sequence_length" in chosen else recipe.sequence_length
        return ResolvedTraining(
            batch_size=batch_size,
            sequence_length=length,
            learning_rate=self.learning_rate if "learning_rate" in chosen else recipe.learning_rate,
            grad_clip=self.grad_clip if "grad_clip" in chosen else recipe.grad_clip,
            update_ratio=model.update_ratio(batch_size, length),
        )

    def with_overrides(self, **kwargs: Any) -> TrainingConfig:
        """A copy with other values, which keeps the record of what was set."""
        values = {name: getattr(self, name) for name in self.set_fields}
        return TrainingConfig(**{**values, **kwargs})

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON-ready values, and `set_fields`."""
        return {"set_fields": sorted(self.set_fields), **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> TrainingConfig:
        """The configuration that `to_dict` wrote; an unknown key is an error."""
        return cls(**d)

    def save(self, path: str | Path) -> None:
        """Write the configuration as JSON, with the names of the fields that were set."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> TrainingConfig:
        """Read a configuration that `save` wrote.

        Raises:
            ConfigurationError: when the file is missing, too large or not a configuration.
        """
        data = read_json_object(Path(path), "training configuration")
        refuse_training_fields(data, [f.name for f in dataclasses.fields(cls)], str(path))
        return cls.from_dict(data)


def check_device_name(cls: type, device: str) -> None:
    """Accept "auto", "cpu", "mps", "cuda" and "cuda:N"; whether it exists is asked at the start."""
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (":" in device and not index.isdigit()):
        fail(cls, "device", device, '"auto", "cpu", "mps", "cuda" or "cuda:N"')
