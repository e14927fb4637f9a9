"""An update that was not finite: what is kept of it, and the way back to the last checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.learning import Phase, bytes_of
from worldflux.core.saved_model import CONFIG_FILE, WEIGHTS_FILE, save_tensors
from worldflux.core.world_model import WorldModel
from worldflux.errors import NonFiniteError
from worldflux.files import write_json

if TYPE_CHECKING:
    from .trainer import Trainer

BATCH_FILE = "batch.safetensors"
MAX_BYTES = 50 << 20

Named = tuple[str, Tensor]


def roll_back(trainer: Trainer, error: NonFiniteError) -> None:
    """Keep the evidence; then load the last checkpoint at half the learning rate, or give up."""
    step, batch = trainer.step, trainer.batch
    found = None if batch is None else culprit(batch, trainer.model, error.where)
    found = next(filter(None, trainer.shards.exchange(found)), None)  # in any process's rows
    tensor = found or error.where or "the weights"
    folder = trainer.store.root.parent / "failures" / f"step-{step:09d}"
    report = {"step": step, "reason": error.message, "tensor": tensor}
    if trainer.shards.leads:
        _keep_evidence(folder, report, batch, trainer.model)
    last, _ = trainer.store.newest_valid()
    message = f"update {step + 1}: {error.message} (first in {tensor}; see {folder})"
    if last is None or len(trainer.rollbacks) >= trainer.config.max_rollbacks:
        good = "none was written yet" if last is None else last.name
        raise NonFiniteError(
            f"{message}; last good checkpoint: {good}", where=tensor, hint=error.hint
        ) from None
    rollbacks = [*trainer.rollbacks, {**report, "to": last.name}]
    trainer.load_checkpoint(last)
    trainer.rollbacks = rollbacks
    trainer.warn(f"{message}; back to {last.name} with half the learning rate")


def require_finite(tensors: Iterable[Named], step: int) -> None:
    """Refuse to make a checkpoint of tensors that are not finite, naming the first."""
    name = _first_non_finite(tensors)
    if name is not None:
        raise NonFiniteError(
            f"{name} is not finite after update {step}; no checkpoint is made of it",
            where=name,
            hint="lower training.learning_rate, then: worldflux train --resume",
        )


def optimizer_tensors(phases: list[Phase]) -> Iterator[Named]:
    """The state of every optimiser: "phase/parameter index/entry"."""
    for phase in phases:
        for index, entries in phase.optimizer.state_dict()["state"].items():
            for name, value in entries.items():
                yield f"{phase.name}/{index}/{name}", torch.as_tensor(value)


def culprit(batch: Batch, model: WorldModel, loss: str | None = None) -> str | None:
    """Where a non-finite value is, causes first: the batch, a weight, `loss`, a gradient."""
    broken = _first_non_finite(batch.named_tensors())
    if broken is not None:
        return f"batch {broken}"
    broken = _first_non_finite(model.state_dict().items())
    if broken is not None:
        return f"weight {broken}"
    if loss is not None:
        return loss
    gradients = ((name, p.grad) for name, p in model.named_parameters() if p.grad is not None)
    broken = _first_non_finite(gradients)
    return None if broken is None else f"gradient of {broken}"


def _first_non_finite(tensors: Iterable[Named]) -> str | None:
    """Name of the first tensor with a NaN or an infinity; waits for the device once."""
    named = [(name, t) for name, t in tensors if t.is_floating_point() and t.numel()]
    if not named:
        return None
    finite = torch.stack([torch.isfinite(t).all().to(named[0][1].device) for _, t in named])
    broken = (~finite).nonzero().flatten().tolist()
    return named[broken[0]][0] if broken else None


def _keep_evidence(
    folder: Path, report: dict[str, Any], batch: Batch | None, model: WorldModel
) -> None:
    """Write report, batch and weights: at most 50 MiB.

    Rows `[B, ...]` of the batch that hold a non-finite value come first; weights that do not fit
    are left out (the last checkpoint has them).
    """
    folder.mkdir(parents=True, exist_ok=True)
    left = MAX_BYTES
    if batch is not None:
        tensors, kept = _cut(dict(batch.named_tensors()), left)
        save_tensors(tensors, folder / BATCH_FILE)
        left -= (folder / BATCH_FILE).stat().st_size
        report = {**report, "batch_rows": {"kept": kept, "of": batch.batch_size}}
    weights = model.state_dict()
    fits = bytes_of(weights.values()) < left - (1 << 20)
    if fits:
        save_tensors(weights, folder / WEIGHTS_FILE)
        model.config.save(folder / CONFIG_FILE)
    write_json(folder / "report.json", {**report, "weights_kept": fits})


def _cut(tensors: dict[str, Tensor], limit: int) -> tuple[dict[str, Tensor], int]:
    """As many rows as fit in half the limit, broken ones first, and their number."""
    rows = next(iter(tensors.values())).shape[0]
    of_rows = {name: t for name, t in tensors.items() if t.dim() and t.shape[0] == rows}
    row_bytes = bytes_of(t[0] for t in of_rows.values())
    kept = min(rows, math.floor(limit / 2 / max(1, row_bytes)))
    broken = torch.zeros(rows, dtype=torch.bool)
    for tensor in of_rows.values():
        if tensor.is_floating_point():
            broken |= ~torch.isfinite(tensor.reshape(rows, -1)).all(1).cpu()
    order = torch.argsort(broken.logical_not().to(torch.uint8), stable=True)[:kept]
    return {name: t[order.to(t.device)] for name, t in of_rows.items()}, kept
