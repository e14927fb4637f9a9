"""Tensor names of official TD-MPC2 checkpoints, brought to their newest layout.

Layouts: L3 (since 2025-01), L2 (L3 with duplicated ensemble views), L1 (2023-10 to 2024-11, the
ensembles as numbered flat lists), L0 (pre-release, layers as numbered plain modules). Official
names in L3 are `_dynamics.<layer>.{weight,bias,ln.weight,ln.bias}` and alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from worldflux.errors import CheckpointError

Tensors = dict[str, Tensor]

_FLAT = ("weight", "bias", "ln.weight", "ln.bias")
_DUPLICATES = ("_detach_Qs.", "_detach_Qs_params.")
SETTINGS = ("log_std_min", "log_std_dif")
_BOOKKEEPING = ("__batch_size", "__device")
_LAYERED = ("_encoder.state", "_dynamics", "_reward", "_termination", "_pi")

# L3 network name -> (our module, whether its last layer has a LayerNorm).
_PERCEPTRONS = {
    "_encoder.state": ("networks.encoder.mlp", True),
    "_dynamics": ("networks.dynamics", True),
    "_reward": ("networks.reward", False),
    "_termination": ("networks.termination", False),
    "_pi": ("networks.policy", False),
}
_ENSEMBLES = {"_Qs.params": "networks.q", "_target_Qs_params": "networks.q_target"}
_PLAIN = {
    "_task_emb.weight": "networks.tasks.embedding",
    "_action_masks": "networks.tasks.action_mask",
}
# Indices of the convolutions among the official encoder's modules.
PIXEL_LAYERS = (2, 4, 6, 8)


def newest_layout(content: Mapping[str, Any]) -> tuple[str, Tensors]:
    """The layout's name and the tensors under their L3 names, duplicates and bookkeeping dropped.

    Raises:
        CheckpointError: when the content is no TD-MPC2 state_dict of a known layout.
    """
    inner = content.get("model")
    state = inner if isinstance(inner, Mapping) else content
    tensors: Tensors = {}
    for name, value in state.items():
        if not isinstance(name, str):
            raise CheckpointError(f"not a state_dict: it has a key {name!r}")
        if name.endswith(_BOOKKEEPING) or name.startswith(_DUPLICATES):
            continue
        if not isinstance(value, Tensor):
            raise CheckpointError(f"not a TD-MPC2 state_dict: {name!r} is a {type(value).__name__}")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise CheckpointError(f"tensor {name!r} claims more numbers than the file holds")
        if name not in SETTINGS and not value.is_floating_point():
            raise CheckpointError(f"tensor {name!r} holds {value.dtype}, expected floats")
        tensors[name] = value
    missing = [
        name
        for name in ("_dynamics", "_reward", "_pi", "_Qs.params", "_encoder")
        if not any(key.startswith(name + ".") for key in tensors)
    ]
    if missing:
        raise CheckpointError(f"not a TD-MPC2 checkpoint: it holds no tensors of {missing}")
    if any(name.startswith("_target_Qs_params.") for name in tensors):
        old_view = [name for name in tensors if name.startswith("_target_Qs.params.")]
        for name in old_view:
            del tensors[name]
        return ("L2" if old_view else "L3"), tensors
    layout = "L0" if "_dynamics.0.0.weight" in tensors else "L1"
    if layout == "L0":
        tensors = _numbered_layers(tensors)
    return layout, _numbered_ensembles(tensors)


def _numbered_ensembles(tensors: Tensors) -> Tensors:
    """L1: `_Qs.params.<i>` is tensor i % 4 of layer i // 4; the target's prefix differs too."""
    renamed = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(_Qs|_target_Qs)\.params\.(\d+)", name)
        if match:
            index = int(match[2])
            prefix = "_Qs.params" if match[1] == "_Qs" else "_target_Qs_params"
            name = f"{prefix}.{index // 4}.{_FLAT[index % 4]}"
        renamed[name] = tensor
    return renamed


def _numbered_layers(tensors: Tensors) -> Tensors:
    """L0: modules in order; a 2-D weight starts a layer, a 1-D weight after it is its norm."""
    moved: dict[str, str] = {}
    for network in _LAYERED:
        modules: dict[tuple[int, ...], str] = {}
        for name in tensors:
            match = re.fullmatch(re.escape(network) + r"\.((?:\d+\.)*\d+)\.weight", name)
            if match:
                path = tuple(int(part) for part in match[1].split("."))
                modules[path] = name.removesuffix(".weight")
        layer = -1
        for path in sorted(modules):
            is_linear = tensors[f"{modules[path]}.weight"].dim() == 2
            layer += is_linear
            for part in ("weight", "bias"):
                target = f"{network}.{layer}.{'' if is_linear else 'ln.'}{part}"
                moved[f"{modules[path]}.{part}"] = target
    return {moved.get(name, name): tensor for name, tensor in tensors.items()}


def num_layers(tensors: Tensors, network: str) -> int:
    """How many layers a network has in an L3 state_dict (0 when it is not there)."""
    pattern = re.compile(re.escape(network) + r"\.(\d+)\.weight")
    return sum(pattern.fullmatch(name) is not None for name in tensors)


def name_table(tensors: Tensors) -> dict[str, str]:
    """Each L3 name that the networks in `tensors` have -> the name in our state_dict.

    `log_std_min` and `log_std_dif` are settings, not weights, and stand in no table.
    """
    table = {name: ours for name, ours in _PLAIN.items() if name in tensors}
    for network, (module, normed_output) in _PERCEPTRONS.items():
        layers = num_layers(tensors, network)
        for layer in range(layers):
            last = layer == layers - 1
            target = f"{module}.output" if last else f"{module}.hidden.{layer}"
            linear = f"{target}.linear" if normed_output or not last else target
            for part in ("weight", "bias"):
                table[f"{network}.{layer}.{part}"] = f"{linear}.{part}"
                if normed_output or not last:
                    table[f"{network}.{layer}.ln.{part}"] = f"{target}.norm.{part}"
    for ensemble, module in _ENSEMBLES.items():
        layers = num_layers(tensors, ensemble)
        for layer in range(layers):
            for part in ("weight", "bias"):
                table[f"{ensemble}.{layer}.{part}"] = f"{module}.layers.{layer}.{part}"
                if layer < layers - 1:
                    ours = f"{module}.layers.{layer}.norm_{part}"
                    table[f"{ensemble}.{layer}.ln.{part}"] = ours
    if any(name.startswith("_encoder.rgb.") for name in tensors):
        for index, official in enumerate(PIXEL_LAYERS):
            for part in ("weight", "bias"):
                ours = f"networks.encoder.convolutions.{index}.{part}"
                table[f"_encoder.rgb.{official}.{part}"] = ours
    return table
