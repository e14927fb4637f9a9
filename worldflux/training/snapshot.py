"""What a checkpoint holds of a run: weights, optimisers, random streams, counters, callbacks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from worldflux import clock
from worldflux.core.learning import Phase
from worldflux.core.saved_model import (
    WEIGHTS_FILE,
    load_tensors,
    load_weights,
    save_model,
    save_tensors,
)
from worldflux.errors import CheckpointError
from worldflux.layout import REPLAY

from .callback import numbered
from .checkpoints import STATE_FILE, read_state, write_state
from .divergence import optimizer_tensors
from .precision import Precision

if TYPE_CHECKING:
    from .trainer import Trainer

OPTIMIZERS_FILE = "optimizers.safetensors"
RANDOM_FILE = "random.safetensors"
TRAINED_FILE = "trained.safetensors"
# What reading the state of a checkpoint raises that holds other parts, types or numbers.
_OTHER_STATE = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)


def saved_tensors(trainer: Trainer) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a checkpoint that must be finite, by name."""
    yield from trainer.model.state_dict().items()
    yield from optimizer_tensors(trainer.phases)
    if trainer.average is not None:
        yield from trainer.average.tensors.items()


def write_snapshot(folder: Path, trainer: Trainer, source_state: dict[str, Any]) -> None:
    """Write the run into `folder`; `source_state` is what its data source has saved.

    `model.safetensors` is the model that is evaluated: the weight average if there is one, with
    the weights in training in a file of their own.
    """
    if trainer.average is None:
        save_model(trainer.model, folder)
    else:
        save_tensors(dict(trainer.model.named_parameters()), folder / TRAINED_FILE)
        with trainer.average.applied(trainer.model):
            save_model(trainer.model, folder)
    save_tensors(dict(optimizer_tensors(trainer.phases)), folder / OPTIMIZERS_FILE)
    groups = {phase.name: phase.optimizer.state_dict()["param_groups"] for phase in trainer.phases}
    how = trainer.experience.how
    state = {
        "param_groups": groups,
        "step": trainer.step,
        "env_steps": trainer.env_steps,
        "best": trainer.best,
        "rollbacks": trainer.rollbacks,
        "evaluation_due": trainer.evaluation_due,
        "callbacks": {name: c.state_dict() for name, c in numbered(trainer.callbacks).items()},
        "data": source_state,
        "training_config": {**trainer.config.to_dict(), "on_unfit_data": how},
        "precision": trainer.updater.scaler.state_dict(),
        "computes_in": None if trainer.precision is None else vars(trainer.precision),
        "saved_at": clock.now(),
        **_save_random(folder),
    }
    write_state(folder / STATE_FILE, state)


def read_snapshot(folder: Path, trainer: Trainer) -> None:
    """Put a run back to where `write_snapshot` saved it.

    Raises CheckpointError where that is of another version, or does not fit.
    """
    state = read_state(folder / STATE_FILE)
    try:
        _restore(folder, state, trainer)
    except _OTHER_STATE as error:
        raise CheckpointError(
            f"the checkpoint's state is of another version: {error!r}", where=str(folder)
        ) from error


def _restore(folder: Path, state: dict[str, Any], trainer: Trainer) -> None:
    if trainer.source is not None and state["data"]:
        trainer.source.restore(state["data"], trainer.store.root.parent / REPLAY)
    load_weights(trainer.model, folder / WEIGHTS_FILE)
    if trainer.average is not None:
        trainer.average.start_at(trainer.model)
    if (folder / TRAINED_FILE).is_file():
        trainer.model.load_state_dict(load_tensors(folder / TRAINED_FILE), strict=False)
    tensors = load_tensors(folder / OPTIMIZERS_FILE)
    for phase in trainer.phases:
        try:
            _restore_optimizer(phase, tensors, state["param_groups"][phase.name])
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"the state of optimiser {phase.name!r} does not fit: {error}", where=str(folder)
            ) from None
    _restore_random(folder, state)
    trainer.step, trainer.env_steps = int(state["step"]), int(state["env_steps"])
    if best := state["best"]:
        best = {"step": int(best["step"]), "return_mean": float(best["return_mean"])}
    trainer.best = best or None
    trainer.rollbacks = list(state["rollbacks"])
    trainer.evaluation_due = bool(state["evaluation_due"])
    if trainer.config.precision == "auto" and state.get("computes_in"):  # what it began with
        trainer.use_precision(Precision(**state["computes_in"]))
    trainer.updater.load_scaler(state["precision"])
    for name, callback in numbered(trainer.callbacks).items():
        if state["callbacks"].get(name):  # a callback that is new starts afresh
            callback.load_state_dict(state["callbacks"][name])
    trainer.experience.start_over(trainer.config.on_unfit_data or state["training_config"])


def _restore_optimizer(phase: Phase, tensors: dict[str, Tensor], groups: list[Any]) -> None:
    entries: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        name, index, entry = key.split("/", 2)
        if name == phase.name:
            entries.setdefault(int(index), {})[entry] = value
    own = phase.optimizer.param_groups
    if len(groups) != len(own):
        raise ValueError(f"{len(groups)} parameter groups instead of {len(own)}")
    for group, mine in zip(groups, own, strict=True):
        for name, value in group.items():
            if isinstance(mine.get(name), tuple):  # JSON has lists only
                group[name] = tuple(value)
    phase.optimizer.load_state_dict({"state": entries, "param_groups": groups})


def _save_random(folder: Path) -> dict[str, Any]:
    """Write torch's random streams; returns Python's and numpy's, JSON-ready."""
    streams = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        streams |= {f"cuda/{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    save_tensors(streams, folder / RANDOM_FILE)
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    numpy_state["state"] = {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}
    return {"python_random": random.getstate(), "numpy_random": numpy_state}


def _restore_random(folder: Path, state: dict[str, Any]) -> None:
    streams = load_tensors(folder / RANDOM_FILE)
    torch.set_rng_state(streams["torch"])
    cuda = [tensor for name, tensor in sorted(streams.items()) if name.startswith("cuda/")]
    if cuda and torch.cuda.is_available() and len(cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(cuda)
    version, internal, gauss = state["python_random"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(state["numpy_random"])
