"""`TrainingConfig`: how long, how large and how often. No torch.

A field that the user did not set takes the family's own recipe: explicitly set > the model's
configuration > recipe (`resolve`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le, Lt

from worldflux.alpha import missing_attribute
from worldflux.core.config.base import WorldModelConfig
from worldflux.core.config.validation import (
    Count,
    Natural,
    NotNegative,
    Positive,
    Settings,
    strict_dataclass,
)

from .loggers import LOGGERS

if TYPE_CHECKING:
    LoggerName = str
else:
    LoggerName = Literal[tuple(LOGGERS)]


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
class TrainingConfig(Settings):
    """Settings of one training run; what is not set follows the model's own recipe.

    `learning_rate` is multiplied by the warmup (n + 1) / warmup_steps, then by the schedule over
    the rest of the run. One NaN more than `max_rollbacks` ends the run with an error.

    Raises:
        ConfigurationError: naming the field, the value and what is allowed.
    """

    total_steps: Count = 100_000  #: gradient updates of the run
    batch_size: Count = 16  #: sequences in a batch; unset: the model's recipe
    #: steps of a sequence; unset: the model's recipe
    sequence_length: Annotated[int, Ge(2)] = 50
    learning_rate: Positive = 3e-4  #: unset: the model's recipe
    grad_clip: Positive = 100.0  #: largest gradient norm; unset: the model's recipe
    weight_decay: NotNegative = 0.0  #: weight decay of the optimiser
    warmup_steps: Natural = 0  #: updates in which the learning rate rises
    log_interval: Count = 100  #: updates between rows of metrics.jsonl
    eval_interval: Count = 1000  #: updates between evaluations
    save_interval: Count = 10_000  #: updates between checkpoints
    #: folder of the run, relative to the project
    output_dir: str = "./outputs"
    #: "auto", "cpu", "cuda", "cuda:1" or "mps"
    device: str = "auto"
    #: of every random stream, before the first update
    seed: Annotated[int, Ge(0), Lt(2**32)] = 42
    #: precision = "bfloat16", or "float16" with loss scaling where the device has no bfloat16
    mixed_precision: bool = False
    backend: str = "native_torch"  #: "native_torch", or an official program that runs as a job
    backend_profile: str = ""  #: preset that a delegated backend runs
    optimizer: Literal["auto", "adam", "adamw", "laprop"] = "auto"  #: "auto": the model's own
    #: how the learning rate falls over the run
    scheduler: Literal["none", "linear", "cosine"] = "none"
    gradient_accumulation_steps: Count = 1  #: batches whose gradients make one update
    #: average of the weights that is evaluated and saved, for example 0.97
    ema_decay: Annotated[float, Ge(0), Lt(1)] | None = None
    #: fields of the model's configuration, where Python names a model; projects: [architecture]
    model_overrides: dict[str, Any] = field(default_factory=dict)
    #: times that a NaN sends the run back to its last checkpoint at half the learning rate
    max_rollbacks: Natural = 0
    #: loggers besides metrics.jsonl: "tensorboard", "wandb", "trackio"
    log_to: tuple[LoggerName, ...] = field(default=(), kw_only=True)
    #: compile the costly functions (torch.compile); where that fails, training continues without
    compile: bool = field(default=False, kw_only=True)
    #: what networks compute in while learning and acting: "auto" times float32 and bfloat16 before
    #: the first update, and takes the faster one for each
    precision: Literal["float32", "bfloat16", "float16", "auto"] = field(
        default="float32", kw_only=True
    )
    #: threads of the CPU; unset: few for a small model, at most OMP_NUM_THREADS
    threads: Annotated[int, Ge(1), Le(1024)] | None = field(default=None, kw_only=True)
    #: where the model cannot learn what it is given (terminations without `episodic`, values beyond
    #: its range): "stop", the default of `worldflux train`, or "warn" with their number
    on_unfit_data: Literal["stop", "warn"] | None = field(default=None, kw_only=True)
    #: parts of the model that do not learn, such as ["encoder", "dynamics"]
    freeze: tuple[str, ...] = field(default=(), kw_only=True)

    RECIPE_FIELDS: ClassVar[frozenset[str]] = frozenset(
        {"batch_size", "sequence_length", "learning_rate", "grad_clip"}
    )

    @classmethod
    def canonical_fields(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """`values` with paths as text, and `~` in that of the run as the home folder."""
        paths = {k: os.fspath(v) for k, v in values.items() if isinstance(v, os.PathLike)}
        found = {**values, **paths}
        if isinstance(found.get("output_dir"), str):
            found["output_dir"] = os.path.expanduser(found["output_dir"])
        return found

    def __post_init__(self) -> None:
        if not re.fullmatch(r"(auto|cpu|cuda|mps)(:\d+)?", self.device):
            self.refuse("device", '"auto", "cpu", "mps", "cuda" or "cuda:N"')
        if self.mixed_precision and self.precision != "float32":
            self.refuse("precision", "left out with mixed_precision, which is a choice of it")
        if not self.output_dir.strip() or "\0" in self.output_dir:
            self.refuse("output_dir", "the path of a folder")

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise missing_attribute(self, name)

    def resolve(self, model: WorldModelConfig) -> ResolvedTraining:
        """The numbers to train `model` with: set here > the model's configuration > recipe."""
        recipe = model.training_recipe()
        numbers: dict[str, Any] = {
            name: getattr(self if name in self.set_fields else recipe, name)
            for name in self.RECIPE_FIELDS
        }
        ratio = model.update_ratio(numbers["batch_size"], numbers["sequence_length"])
        return ResolvedTraining(**numbers, update_ratio=ratio)
