"""What a checkpoint holds of a run: weights, optimisers, averages and every random stream."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldflux.core.learning import Phase
from worldflux.core.saved_model import (
    WEIGHTS_FILE,
    load_tensors,
    load_weights,
    save_model,
    save_tensors,
)
from worldflux.core.world_model import WorldModel
from worldflux.errors import CheckpointError

from .weight_average import WeightAverage

OPTIMIZERS_FILE = "optimizers.safetensors"
RANDOM_FILE = "random.safetensors"
TRAINED_FILE = "trained.safetensors"


def write_snapshot(
    folder: Path, model: WorldModel, phases: list[Phase], average: WeightAverage | None
) -> dict[str, Any]:
    """Write the tensors of a run into `folder`; returns the JSON-ready rest.

    `model.safetensors` is the model that is evaluated: the weight average where there is one, and
    the weights in training then stand beside it.
    """
    if average is None:
        save_model(model, folder)
    else:
        save_tensors(dict(model.named_parameters()), folder / TRAINED_FILE)
        with average.applied(model):
            save_model(model, folder)
    tensors: dict[str, Tensor] = {}
    groups: dict[str, Any] = {}
    for phase in phases:
        state = phase.optimizer.state_dict()
        for index, entries in state["state"].items():
            for name, value in entries.items():
                tensors[f"{phase.name}/{index}/{name}"] = torch.as_tensor(value)
        groups[phase.name] = [_plain_group(group) for group in state["param_groups"]]
    save_tensors(tensors, folder / OPTIMIZERS_FILE)
    streams = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        streams |= {f"cuda/{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    save_tensors(streams, folder / RANDOM_FILE)
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    numpy_state["state"] = {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}
    return {
        "param_groups": groups,
        "python_random": random.getstate(),
        "numpy_random": numpy_state,
    }


def read_snapshot(
    folder: Path,
    state: dict[str, Any],
    model: WorldModel,
    phases: list[Phase],
    average: WeightAverage | None,
) -> None:
    """Put a run back where `write_snapshot` found it.

    Raises:
        CheckpointError: when a tensor is missing or of another shape.
    """
    load_weights(model, folder / WEIGHTS_FILE)
    if average is not None:
        average.tensors = {name: p.detach().clone() for name, p in model.named_parameters()}
    if (folder / TRAINED_FILE).is_file():
        model.load_state_dict(load_tensors(folder / TRAINED_FILE), strict=False)
    tensors = load_tensors(folder / OPTIMIZERS_FILE)
    for phase in phases:
        own = phase.optimizer.state_dict()
        entries: dict[int, dict[str, Any]] = {}
        for key, value in tensors.items():
            name, index, field = key.split("/", 2)
            if name == phase.name:
                entries.setdefault(int(index), {})[field] = value
        try:
            groups = _restored_groups(state["param_groups"][phase.name], own["param_groups"])
            phase.optimizer.load_state_dict({"state": entries, "param_groups": groups})
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"the state of optimiser {phase.name!r} does not fit: {error}", where=str(folder)
            ) from None
    _restore_random(folder, state)


def _plain_group(group: dict[str, Any]) -> dict[str, Any]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in group.items()}


def _restored_groups(saved: list[Any], own: list[Any]) -> list[dict[str, Any]]:
    """The saved groups with tuples where the optimiser has tuples (JSON has none)."""
    if len(saved) != len(own):
        raise ValueError(f"{len(saved)} parameter groups instead of {len(own)}")
    return [
        {name: tuple(v) if isinstance(mine.get(name), tuple) else v for name, v in group.items()}
        for group, mine in zip(saved, own, strict=True)
    ]


def _restore_random(folder: Path, state: dict[str, Any]) -> None:
    streams = load_tensors(folder / RANDOM_FILE)
    torch.set_rng_state(streams["torch"])
    cuda = [tensor for name, tensor in sorted(streams.items()) if name.startswith("cuda/")]
    if cuda and torch.cuda.is_available() and len(cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(cuda)
    version, internal, gauss = state["python_random"]
    random.setstate((version, tuple(internal), gauss))
    numpy_state = dict(state["numpy_random"])
    key = np.asarray(numpy_state["state"]["key"], np.uint32)
    numpy_state["state"] = {**numpy_state["state"], "key": key}
    np.random.set_state(numpy_state)
