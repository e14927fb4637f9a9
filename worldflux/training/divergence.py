"""What is kept of an update that was not finite: the tensor's name, the batch and the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.learning import Phase
from worldflux.core.saved_model import CONFIG_FILE, WEIGHTS_FILE, save_tensors
from worldflux.core.world_model import WorldModel
from worldflux.errors import NonFiniteError
from worldflux.files import write_json

FOLDER = "failures"
BATCH_FILE = "batch.safetensors"
REPORT_FILE = "report.json"
MAX_BYTES = 50 << 20

Named = tuple[str, Tensor]


def first_non_finite(tensors: Iterable[Named]) -> str | None:
    """Name of the first floating tensor that holds a NaN or an infinity, or None.

    All tensors are asked at once, so that a device is waited for once.
    """
    named = [(name, t) for name, t in tensors if t.is_floating_point() and t.numel()]
    if not named:
        return None
    finite = torch.stack([torch.isfinite(t).all().to(named[0][1].device) for _, t in named])
    broken = (~finite).nonzero().flatten().tolist()
    return named[broken[0]][0] if broken else None


def require_finite(tensors: Iterable[Named], step: int) -> None:
    """Refuse to make a checkpoint of tensors that are not finite.

    Raises:
        NonFiniteError: naming the first such tensor.
    """
    name = first_non_finite(tensors)
    if name is not None:
        raise NonFiniteError(
            f"{name} is not finite after update {step}; no checkpoint is made of it",
            where=name,
            hint="lower training.learning_rate, then: worldflux train --resume",
        )


def batch_tensors(batch: Batch) -> Iterator[Named]:
    """Every tensor of a batch by its field's name."""
    for field in ("obs", "actions", "rewards", "terminations", "is_first", "is_last", "extras"):
        value = getattr(batch, field)
        if isinstance(value, Tensor):
            yield field, value
        elif isinstance(value, dict):
            yield from ((f"{field}.{name}", t) for name, t in value.items())


def weight_tensors(model: WorldModel) -> Iterator[Named]:
    """Every weight and buffer that is saved, by name."""
    yield from model.state_dict().items()


def optimizer_tensors(phases: list[Phase]) -> Iterator[Named]:
    """The state of every optimiser: "phase/parameter index/entry"."""
    for phase in phases:
        for index, entries in phase.optimizer.state_dict()["state"].items():
            for name, value in entries.items():
                yield f"{phase.name}/{index}/{name}", torch.as_tensor(value)


def culprit(batch: Batch, model: WorldModel, loss: str | None = None) -> str | None:
    """Where a non-finite value stands, causes first: the batch, a weight, `loss`, a gradient.

    Args:
        loss: name of the loss that was not finite, where one was.
    """
    broken = first_non_finite(batch_tensors(batch))
    if broken is not None:
        return f"batch {broken}"
    broken = first_non_finite(weight_tensors(model))
    if broken is not None:
        return f"weight {broken}"
    if loss is not None:
        return loss
    gradients = ((name, p.grad) for name, p in model.named_parameters() if p.grad is not None)
    broken = first_non_finite(gradients)
    return None if broken is None else f"gradient of {broken}"


def keep_evidence(
    root: Path, step: int, reason: str, tensor: str, batch: Batch | None, model: WorldModel
) -> Path:
    """Write the offending batch and the weights below `root`; at most 50 MiB, and says what is cut.

    Rows `[B, ...]` of the batch that hold a non-finite value come first; weights that do not fit
    are left out (the last checkpoint has them).
    """
    folder = root / FOLDER / f"step-{step:09d}"
    folder.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"step": step, "reason": reason, "tensor": tensor}
    left = MAX_BYTES
    if batch is not None:
        tensors, kept = _cut(dict(batch_tensors(batch)), left)
        save_tensors(tensors, folder / BATCH_FILE)
        left -= (folder / BATCH_FILE).stat().st_size
        report["batch_rows"] = {"kept": kept, "of": batch.batch_size}
    weights = dict(weight_tensors(model))
    size = sum(t.numel() * t.element_size() for t in weights.values())
    report["weights_kept"] = size < left - (1 << 20)
    if report["weights_kept"]:
        save_tensors(weights, folder / WEIGHTS_FILE)
        model.config.save(folder / CONFIG_FILE)
    write_json(folder / REPORT_FILE, report)
    return folder


def _cut(tensors: dict[str, Tensor], limit: int) -> tuple[dict[str, Tensor], int]:
    rows = next(iter(tensors.values())).shape[0]
    of_rows = {name: t for name, t in tensors.items() if t.dim() and t.shape[0] == rows}
    row_bytes = sum(t[0].numel() * t.element_size() for t in of_rows.values())
    kept = min(rows, math.floor(limit / 2 / max(1, row_bytes)))
    broken = torch.zeros(rows, dtype=torch.bool)
    for tensor in of_rows.values():
        if tensor.is_floating_point():
            broken |= ~torch.isfinite(tensor.reshape(rows, -1)).all(1).cpu()
    order = torch.argsort(broken.logical_not().to(torch.uint8), stable=True)[:kept]
    return {name: t[order.to(t.device)] for name, t in of_rows.items()}, kept
