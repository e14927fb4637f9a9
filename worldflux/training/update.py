"""One gradient update: each phase's loss, backward, clip and step; all of it or nothing."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from worldflux.core.batch import Batch
from worldflux.core.compilation import Fallback
from worldflux.core.learning import LearningOverrides, Phase, Scratch
from worldflux.core.outputs import LossOutput
from worldflux.core.precision import COMPUTE_TYPES
from worldflux.core.world_model import WorldModel
from worldflux.errors import NonFiniteError, TrainingError

from .config import TrainingConfig
from .cuda_graphs import CudaGraphs
from .divergence import culprit

# What a phase reports besides its losses: its name in the log.
LOGGED_AS = {
    "policy_entropy": "policy/entropy",
    "policy_scaled_entropy": "policy/scaled_entropy",
    "policy_scale": "value/scale",
    "policy_log_std": "policy/log_std",
    "imagined_return": "value/imagined_return",
    "imagined_reward": "value/imagined_reward",
    "advantage_size": "value/advantage_size",
}
_LOWER = "lower training.learning_rate or training.grad_clip, then: worldflux train --resume"


def learning_overrides(config: TrainingConfig) -> LearningOverrides:
    """What the user set of a configuration, which overrides the family's recipe."""
    numbers = {"learning_rate", "grad_clip", "weight_decay"} & config.set_fields
    optimizer = None if config.optimizer == "auto" else config.optimizer
    return LearningOverrides(**{n: getattr(config, n) for n in numbers}, optimizer=optimizer)


def learning_rate_factor(config: TrainingConfig, total_steps: int) -> Callable[[int], float]:
    """The factor on every learning rate at update n (0-based).

    Linear warmup `(n + 1) / warmup_steps`, then over the rest of the run: none (1), linear
    (down to 0) or cosine `(1 + cos(pi * progress)) / 2`.
    """
    warmup, schedule = config.warmup_steps, config.scheduler

    def factor(update: int) -> float:
        if update < warmup:
            return (update + 1) / warmup
        if schedule == "none":
            return 1.0
        progress = min(1.0, (update - warmup) / max(1, total_steps - warmup))
        return 1.0 - progress if schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2

    return factor


class Updater:
    """Runs every phase of an update, with gradient accumulation and mixed precision.

    A loss or gradient that is not finite raises before the optimiser's step, and what earlier
    phases changed is restored. Weights and optimisers stay in float32. In float16 gradients are
    scaled: one that overflows only skips its step and halves the scale, until the scale is 1.
    """

    def __init__(self, model: WorldModel, phases: list[Phase], config: TrainingConfig) -> None:
        self.model = model
        self.phases = phases
        self.accumulation = config.gradient_accumulation_steps
        self.compute_in(set_type(config, model) or "float32")
        self.backup = _Backup(phases[:-1])
        self.base_rates = [[g["lr"] for g in phase.optimizer.param_groups] for phase in phases]
        self._graphs: CudaGraphs | None = None

    def use_graphs(self, on_fallback: Fallback) -> None:
        """Run losses as CUDA graphs, where the device, the model and the settings allow it."""
        whole = self.accumulation == 1 and not self.scaler.is_enabled()
        if whole and self.model.device.type == "cuda" and self.model.steady_updates:
            self._graphs = CudaGraphs(self.model, on_fallback)

    def compute_in(self, name: str) -> None:
        """Networks compute in the type of that name from now on."""
        self.dtype = COMPUTE_TYPES[name]
        self.load_scaler({})

    def load_scaler(self, state: dict[str, Any]) -> None:
        """Begin loss scaling afresh, at its saved `state` if there is one."""
        self.scaler = GradScaler(self.model.device.type, enabled=self.dtype is torch.float16)
        if state:
            self.scaler.load_state_dict(state)

    def update(self, batch: Batch, rate_factor: float) -> tuple[dict[str, float], Scratch]:
        """One update on a batch `[B, T, ...]`; returns metrics and the family's scratch values.

        Raises NonFiniteError with weights and optimisers as before this update.
        """
        self.backup.save()
        try:
            return self._update(batch, rate_factor)
        except NonFiniteError:
            self.backup.restore()
            raise
        except RuntimeError as error:  # a distribution refuses NaN before there is a loss
            self.backup.restore()
            found = culprit(batch, self.model)
            if found is None:
                raise
            raise NonFiniteError(f"{found} is not finite: {error}") from None

    def _update(self, batch: Batch, rate_factor: float) -> tuple[dict[str, float], Scratch]:
        parts = self._parts(batch)
        scratches: list[Scratch] = [{} for _ in parts]
        metrics: dict[str, float] = {}
        for phase, rates in zip(self.phases, self.base_rates, strict=True):
            if self.model.pretraining and not phase.pretrains:
                continue
            for group, rate in zip(phase.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * rate_factor
            metrics.update(self._run_phase(phase, parts, scratches))
        if self.scaler.is_enabled():
            self.scaler.update()
            metrics["loss_scale"] = float(self.scaler.get_scale())
        return metrics, self._joined(scratches)

    def _autocast(self) -> torch.autocast:
        dtype = self.dtype or torch.bfloat16
        return torch.autocast(self.model.device.type, dtype, enabled=self.dtype is not None)

    def _parts(self, batch: Batch) -> list[Batch]:
        count = min(self.accumulation, batch.batch_size)
        if count == 1:
            return [batch]
        edges = [round(i * batch.batch_size / count) for i in range(count + 1)]
        return [batch.rows(a, b) for a, b in itertools.pairwise(edges)]

    def _run_phase(
        self, phase: Phase, parts: list[Batch], scratches: list[Scratch]
    ) -> dict[str, float]:
        phase.optimizer.zero_grad(set_to_none=True)
        named, plain = self._backward(phase, parts, scratches)
        watched = {name: value for name, value in plain.items() if isinstance(value, Tensor)}
        learns = _learns(phase)
        if learns:
            self.scaler.unscale_(phase.optimizer)  # their true size, to be measured and clipped
        gradients = [p.grad for p in phase.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).to(self.model.device)
        # One transfer from the device for all numbers.
        scalars = [*named.values(), *watched.values(), norm]
        *numbers, norm_value = torch.stack([x.float().reshape(()) for x in scalars]).tolist()
        metrics = dict(zip(named, numbers[: len(named)], strict=True))
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise _non_finite(name, value, where=name)
        del metrics["batch"]
        finite = math.isfinite(norm_value)
        if finite and learns:
            if phase.grad_clip is not None:
                torch.nn.utils.clip_grads_with_norm_(phase.parameters, phase.grad_clip, norm)
            self.scaler.step(phase.optimizer)
        elif not finite and (not self.scaler.is_enabled() or self.scaler.get_scale() <= 1.0):
            raise _non_finite(f"grad_norm/{phase.name}", norm_value)
        metrics[f"grad_norm/{phase.name}"] = norm_value
        if self.scaler.is_enabled():
            metrics[f"skipped/{phase.name}"] = float(not finite)
        fetched = dict(zip(watched, numbers[len(named) :], strict=True))
        return {**metrics, **plain, **fetched}

    def _backward(
        self, phase: Phase, parts: list[Batch], scratches: list[Scratch]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Gradients of the mean loss over all parts; its components and its plain numbers."""
        total = sum(part.batch_size for part in parts)
        named: dict[str, Tensor] = {}
        plain: dict[str, Any] = {}
        for part, scratch in zip(parts, scratches, strict=True):
            share = part.batch_size / total
            if self._graphs is None:
                output = self._of_part(phase, part, scratch, share)
            else:
                run = functools.partial(self._of_part, phase, share=share)
                output = self._graphs.run(phase, part, scratch, run)
            for name, value in {phase.name: output.loss, **output.components}.items():
                logged = LOGGED_AS.get(name, f"loss/{name}")
                named[logged] = named.get(logged, 0.0) + value.detach() * share
            for name, number in output.metrics.items():
                logged = LOGGED_AS.get(name, name)
                plain[logged] = plain.get(logged, 0.0) + number * share
        # x * 0 is NaN where x is not finite: a loss that clamps would hide an infinite reward.
        named["batch"] = torch.stack([x.sum() * 0 for part in parts for x in _numbers(part)]).sum()
        return named, plain

    def _of_part(self, phase: Phase, part: Batch, scratch: Scratch, share: float) -> LossOutput:
        """The loss of a part of a batch; the gradients of its share of the whole are added."""
        with self._autocast():
            output = phase.loss(part, scratch)
        if not isinstance(output, LossOutput):
            raise TrainingError(
                f"the loss {phase.name!r} returned a {type(output).__name__}, expected a "
                "LossOutput",
                hint="return worldflux.LossOutput(loss)",
            )
        if _learns(phase):
            self.scaler.scale(output.loss * share).backward()
        return output

    def _joined(self, scratches: list[Scratch]) -> Scratch:
        """One scratch for the whole batch: `[B, ...]` values end to end, scalars averaged."""
        if len(scratches) == 1:
            return scratches[0]
        joined: Scratch = {}
        for name, first in scratches[0].items():
            values = [scratch[name] for scratch in scratches]
            joined[name] = torch.stack(values).mean(0) if first.dim() == 0 else torch.cat(values)
        return joined


def _learns(phase: Phase) -> bool:
    """Whether any parameter of a phase learns; all of them may be frozen."""
    return any(parameter.requires_grad for parameter in phase.parameters)


def _numbers(batch: Batch) -> list[Tensor]:
    """The floating tensors that come from the environment and the agent."""
    obs = list(batch.obs.values()) if isinstance(batch.obs, dict) else [batch.obs]
    return [x.float() for x in (batch.rewards, batch.actions, *obs) if x.is_floating_point()]


def _non_finite(name: str, value: float, where: str | None = None) -> NonFiniteError:
    message = f"{name} became {value}; the weights are as before this update"
    return NonFiniteError(message, where=where, hint=_LOWER)


class _Backup:
    """Copies of the weights and optimiser states that these phases change.

    A family of one phase copies nothing: its only step comes after every check. The copies cost
    about as much memory traffic as one optimiser step.
    """

    def __init__(self, phases: list[Phase]) -> None:
        self.phases = phases
        self._copies: list[Tensor] = []
        self._groups: list[list[dict[str, Any]]] = []

    @torch.no_grad()
    def save(self) -> None:
        live = self._live()
        if [t.shape for t in live] != [t.shape for t in self._copies]:
            self._copies = [torch.empty_like(tensor) for tensor in live]
        _copy(self._copies, live)
        self._groups = [[_settings(g) for g in p.optimizer.param_groups] for p in self.phases]

    @torch.no_grad()
    def restore(self) -> None:
        if len(self._live()) != len(self._copies):  # the optimisers had not stepped yet
            for phase in self.phases:
                phase.optimizer.state.clear()
        _copy(self._live(), self._copies)
        for phase, groups in zip(self.phases, self._groups, strict=True):
            for group, saved in zip(phase.optimizer.param_groups, groups, strict=True):
                group.update(saved)

    def _live(self) -> list[Tensor]:
        tensors: list[Tensor] = []
        for phase in self.phases:
            tensors += [parameter.detach() for parameter in phase.parameters]
            for state in phase.optimizer.state.values():
                tensors += [value for value in state.values() if isinstance(value, Tensor)]
        return tensors


def _copy(to: list[Tensor], source: list[Tensor]) -> None:
    for device in {tensor.device for tensor in to}:  # step counters may be on the CPU
        pairs = [(a, b) for a, b in zip(to, source, strict=True) if a.device == device]
        torch._foreach_copy_([a for a, _ in pairs], [b for _, b in pairs])


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def set_type(config: TrainingConfig, model: WorldModel) -> str | None:
    """Name of the type to compute in; None where it is to be measured (`precision = "auto"`).

    The model's own `dtype` decides where it is not "float32". Otherwise mixed precision means
    bfloat16, or float16 on a GPU that has no bfloat16 units.
    """
    if model.config.dtype != "float32":
        return model.config.dtype
    if not config.mixed_precision:
        return None if config.precision == "auto" else config.precision
    lacks_bfloat16 = model.device.type == "cuda" and not torch.cuda.is_bf16_supported(
        including_emulation=False
    )
    return "float16" if lacks_bfloat16 else "bfloat16"


class WeightAverage:
    """`average <- decay * average + (1 - decay) * weights` after every update (`ema_decay`)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.start_at(model)

    def start_at(self, model: nn.Module) -> None:
        """Begin the average at the model's weights."""
        self.tensors = _parameters(model)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's weights."""
        averages = [self.tensors[name] for name, _ in model.named_parameters()]
        weights = [parameter.detach() for parameter in model.parameters()]
        torch._foreach_lerp_(averages, weights, 1.0 - self.decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within the block the model holds the average."""
        own = _parameters(model)
        _load(model, self.tensors)
        try:
            yield
        finally:
            _load(model, own)


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@torch.no_grad()
def _load(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(values[name])
