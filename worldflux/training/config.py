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

from worldflux.alpha import refuse_training_fields
from worldflux.core.config.base import WorldModelConfig
from worldflux.core.config.validation import (
    check_bounds,
    check_choice,
    check_positive,
    check_types,
    fail,
    strict_dataclass,
)
from worldflux.core.former_names import missing
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
    """Settings of one training run (seed 001). `total_steps` counts gradient updates.

    `learning_rate` is multiplied by the warmup (n + 1) / warmup_steps, then by the schedule over
    the rest of the run. `mixed_precision` computes in bfloat16 where the device can (else in
    float16 with loss scaling; the model's `dtype` may choose). `ema_decay` keeps an average of the
    weights, which is what is evaluated and saved. `seed` seeds every random stream before the
    first update. `backend_profile` names the preset that a delegated backend runs.
    `max_rollbacks` is how often a NaN or infinity sends the run back to its last checkpoint with
    half the learning rate; the next one, and at 0 the first, ends it with an error.
    `log_to` names loggers of `worldflux train`. `compile` compiles the model's costly functions
    (torch.compile); where that fails, training goes on without and says so.

    Raises:
        ConfigurationError: naming the field, the value and what is allowed.
    """

    total_steps: int = 100_000
    batch_size: int = 16
    sequence_length: int = 50
    learning_rate: float = 3e-4
    grad_clip: float = 100.0
    weight_decay: float = 0.0
    warmup_steps: int = 0
    log_interval: int = 100
    eval_interval: int = 1000
    save_interval: int = 10_000
    output_dir: str = "./outputs"
    device: str = "auto"
    seed: int = 42
    mixed_precision: bool = False
    backend: str = "native_torch"
    backend_profile: str = ""
    optimizer: str = "auto"
    scheduler: Literal["none", "linear", "cosine"] = "none"
    gradient_accumulation_steps: int = 1
    ema_decay: float | None = None
    model_overrides: dict[str, Any] = field(default_factory=dict)
    max_rollbacks: int = 0
    log_to: tuple[str, ...] = field(default=(), kw_only=True)
    compile: bool = field(default=False, kw_only=True)

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
            raise missing(self, name)

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
