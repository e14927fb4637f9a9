"""One gradient update: each phase of the family's losses, backward, clip, step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.learning import LearningOverrides, Phase, Scratch
from worldflux.core.outputs import LossOutput
from worldflux.core.world_model import WorldModel
from worldflux.errors import NonFiniteError, TrainingError

from .config import TrainingConfig
from .divergence import culprit
from .kept_phases import KeptPhases
from .precision import Precision, compute_dtype

# What a phase reports beside its losses, under the name of what it is.
LOGGED_AS = {
    "policy_entropy": "policy/entropy",
    "policy_scaled_entropy": "policy/scaled_entropy",
    "policy_scale": "value/scale",
    "imagined_return": "value/imagined_return",
    "imagined_reward": "value/imagined_reward",
    "advantage_size": "value/advantage_size",
}


def learning_overrides(config: TrainingConfig) -> LearningOverrides:
    """What of a configuration was set and goes before the family's recipe."""
    chosen = config.set_fields
    return LearningOverrides(
        learning_rate=config.learning_rate if "learning_rate" in chosen else None,
        grad_clip=config.grad_clip if "grad_clip" in chosen else None,
        weight_decay=config.weight_decay if "weight_decay" in chosen else None,
        optimizer=None if config.optimizer == "auto" else config.optimizer,
    )


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
    """Runs every phase of one update, with gradient accumulation and mixed precision.

    A non-finite loss or gradient stops before the optimiser's step: the weights stay as they were.
    Only a gradient that overflowed under float16's loss scale is passed over (`Precision`). When a
    later phase stops, what the earlier ones changed is put back.
    """

    def __init__(self, model: WorldModel, phases: list[Phase], config: TrainingConfig) -> None:
        self.model = model
        self.phases = phases
        self.accumulation = config.gradient_accumulation_steps
        dtype = compute_dtype(config.mixed_precision, model.config.dtype, model.device)
        self.precision = Precision(dtype, model.device)
        self.kept = KeptPhases(phases[:-1])
        self.base_rates = [[g["lr"] for g in phase.optimizer.param_groups] for phase in phases]

    def update(self, batch: Batch, rate_factor: float) -> tuple[dict[str, float], Scratch]:
        """One update on a batch `[B, T, ...]`; returns metrics and the family's scratch values.

        Raises:
            NonFiniteError: naming the value that is not finite; weights, optimisers and the model's
                buffers are then as before this update.
        """
        self.kept.keep()
        try:
            return self._update(batch, rate_factor)
        except NonFiniteError:
            self.kept.put_back()
            raise
        except RuntimeError as error:  # a distribution refuses NaN before there is a loss
            self.kept.put_back()
            found = culprit(batch, self.model)
            if found is None:
                raise
            raise NonFiniteError(f"{found} is not finite: {error}") from None

    def _update(self, batch: Batch, rate_factor: float) -> tuple[dict[str, float], Scratch]:
        parts = self._parts(batch)
        scratches: list[Scratch] = [{} for _ in parts]
        metrics: dict[str, float] = {}
        for phase, rates in zip(self.phases, self.base_rates, strict=True):
            for group, rate in zip(phase.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * rate_factor
            metrics.update(self._run_phase(phase, parts, scratches))
        metrics.update(self.precision.finish())
        return metrics, _joined(scratches)

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
        total = sum(part.batch_size for part in parts)
        named: dict[str, Tensor] = {}
        plain: dict[str, float] = {}
        for part, scratch in zip(parts, scratches, strict=True):
            share = part.batch_size / total
            with self.precision.autocast():
                output = phase.loss(part, scratch)
            if not isinstance(output, LossOutput):
                raise TrainingError(
                    f"the loss {phase.name!r} returned a {type(output).__name__}, expected a "
                    "LossOutput",
                    hint="return worldflux.LossOutput(loss)",
                )
            self.precision.backward(output.loss * share)
            values = {phase.name: output.loss, **output.components}
            for name, value in values.items():
                logged = LOGGED_AS.get(name, f"loss/{name}")
                named[logged] = named.get(logged, 0.0) + value.detach() * share
            for name, number in output.metrics.items():
                logged = LOGGED_AS.get(name, name)
                plain[logged] = plain.get(logged, 0.0) + number * share
        # x * 0 is NaN where x is not finite: a loss that clamps would hide an infinite reward.
        named["batch"] = torch.stack([x.sum() * 0 for part in parts for x in _numbers(part)]).sum()
        self.precision.unscale(phase.optimizer)
        gradients = [p.grad for p in phase.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        # One transfer from the device for all numbers.
        scalars = torch.stack([value.float().reshape(()) for value in (*named.values(), norm)])
        *numbers, norm_value = scalars.tolist()
        metrics = dict(zip(named, numbers, strict=True))
        _require_finite(metrics)
        del metrics["batch"]
        if phase.grad_clip is not None and math.isfinite(norm_value):
            # After the check: clipping by a norm of NaN would hide which gradient it came from.
            torch.nn.utils.clip_grads_with_norm_(phase.parameters, phase.grad_clip, norm)
        stepped = self.precision.step(phase.optimizer, phase.name, norm_value)
        metrics[f"grad_norm/{phase.name}"] = norm_value
        if self.precision.scaler is not None:
            metrics[f"skipped/{phase.name}"] = float(not stepped)
        return {**metrics, **plain}


def _numbers(batch: Batch) -> list[Tensor]:
    """The floating tensors that come from the environment and the agent."""
    obs = list(batch.obs.values()) if isinstance(batch.obs, dict) else [batch.obs]
    return [x.float() for x in (batch.rewards, batch.actions, *obs) if x.is_floating_point()]


def _require_finite(metrics: dict[str, float]) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise NonFiniteError(
                f"{name} became {value}; the weights are as before this update",
                where=name,
                hint="lower training.learning_rate or training.grad_clip, then: "
                "worldflux train --resume",
            )


def _joined(scratches: list[Scratch]) -> Scratch:
    """One scratch for the whole batch: `[B, ...]` values end to end, scalars averaged."""
    if len(scratches) == 1:
        return scratches[0]
    joined: Scratch = {}
    for name, first in scratches[0].items():
        values = [scratch[name] for scratch in scratches]
        joined[name] = torch.stack(values).mean(0) if first.dim() == 0 else torch.cat(values)
    return joined
