"""Official TD-MPC2 checkpoints in and out; reading one never executes anything.

Tensor names are brought to their newest layout first. Layouts: L3 (since 2025-01,
`_dynamics.<layer>.{weight,bias,ln.weight,ln.bias}`), L2 (L3 with duplicated ensemble views), L1
(2023-10 to 2024-11, the ensembles as numbered flat lists), L0 (layers as numbered plain modules).
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldflux.core.saved_model import load_weights
from worldflux.errors import CheckpointError
from worldflux.files import replacing
from worldflux.layout import WEIGHTS_FILE

from .config import OFFICIAL, TDMPC2Config
from .world_model import TDMPC2WorldModel

Tensors = dict[str, Tensor]

_FLAT = ("weight", "bias", "ln.weight", "ln.bias")
_DUPLICATES = ("_detach_Qs.", "_detach_Qs_params.")
SETTINGS = ("log_std_min", "log_std_dif")
_BOOKKEEPING = ("__batch_size", "__device")
_LAYERED = ("_encoder.state", "_dynamics", "_reward", "_termination", "_pi")

# Our networks -> their L3 names.
_NETWORKS = {
    "networks.encoder.mlp": "_encoder.state",
    "networks.dynamics": "_dynamics",
    "networks.reward": "_reward",
    "networks.termination": "_termination",
    "networks.policy": "_pi",
    "networks.q": "_Qs.params",
    "networks.q_target": "_target_Qs_params",
}
_LAYER = re.compile(
    r"(?:(?:hidden|layers)\.(?P<index>\d+)|output)\.(?:(?P<kind>linear|norm)[._])?(?P<part>\w+)"
)
# Of ours, what an official file does not hold or may lack.
_OURS_ALONE = {"policy_scale", "networks.tasks.discount", "networks.tasks.leaked_grad"}
_OPTIONAL = {"networks.tasks.action_mask"}
# Indices of the convolutions among the official encoder's modules.
PIXEL_LAYERS = (2, 4, 6, 8)


def newest_layout(content: Mapping[str, Any]) -> tuple[str, Tensors]:
    """The layout's name and the tensors under their L3 names, without duplicates."""
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
    """How many layers a network has in an L3 state_dict; 0 without it."""
    pattern = re.compile(re.escape(network) + r"\.(\d+)\.weight")
    return sum(pattern.fullmatch(name) is not None for name in tensors)


def official_names(model: TDMPC2WorldModel) -> dict[str, str]:
    """Each name of our state dict that the official code has -> its L3 name."""
    names = {
        "networks.tasks.embedding": "_task_emb.weight",
        "networks.tasks.action_mask": "_action_masks",
    }
    for index, official in enumerate(PIXEL_LAYERS):
        for part in ("weight", "bias"):
            ours = f"networks.encoder.convolutions.{index}.{part}"
            names[ours] = f"_encoder.rgb.{official}.{part}"
    own = model.state_dict().keys()
    for network, official_network in _NETWORKS.items():
        for name in (name for name in own if name.startswith(f"{network}.")):
            match = _LAYER.fullmatch(name, len(network) + 1)
            if match:
                layer = match["index"] or len(model.get_submodule(f"{network}.hidden"))  # type: ignore[arg-type]
                norm = "ln." if match["kind"] == "norm" else ""
                names[name] = f"{official_network}.{layer}.{norm}{match['part']}"
    return {ours: official for ours, official in names.items() if ours in own}


def import_checkpoint(
    file: str | Path, directory: str | Path, /, **overrides: Any
) -> TDMPC2WorldModel:
    """Read a checkpoint of any published layout, bare or under "model", and save it as a model.

    `overrides` are fields that tensors do not contain, such as `horizon`, `episode_length`,
    `task_episode_lengths` or (multi-task files before 2025) `task_action_dims`.
    """
    path = Path(file)
    try:
        model = model_from_official(read_official(path), **overrides)
    except CheckpointError as error:
        raise CheckpointError(error.message, where=str(path), hint=error.hint) from None
    model.save_pretrained(directory)
    return model


def export_checkpoint(directory: str | Path, file: str | Path) -> None:
    """Write a saved model as the newest layout that the official code loads (L3)."""
    source = Path(directory)
    model = TDMPC2WorldModel(TDMPC2Config.load(source))
    load_weights(model, source / WEIGHTS_FILE)
    target = Path(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as partial:
        torch.save({"model": official_state_dict(model)}, partial)


def read_official(path: Path) -> dict[str, Any]:
    """The content of a checkpoint file: tensors and plain containers only, never code."""
    if not path.is_file():
        raise CheckpointError("no regular file here", where=str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch cannot read becomes an error below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        named = f" ({code[1]})" if code else ""
        raise CheckpointError(
            f"no torch checkpoint, or it holds more than tensors{named}, which is never executed",
            where=str(path),
        ) from None
    except Exception as error:  # a damaged or foreign file raises almost any
        raise CheckpointError(f"not a torch checkpoint: {error}", where=str(path)) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"a checkpoint is a dict, not a {type(content).__name__}")
    return dict(content)


def model_from_official(content: Mapping[str, Any], /, **overrides: Any) -> TDMPC2WorldModel:
    """A model whose configuration and weights come from a state_dict of any layout."""
    layout, tensors = newest_layout(content)
    low, width = (tensors.pop(name, None) for name in SETTINGS)
    fields = {**OFFICIAL, **fields_from_tensors(tensors)}
    if low is not None and width is not None:
        fields |= {"log_std_min": float(low), "log_std_max": float(low) + float(width)}
    fields |= overrides
    if not fields["episodic"]:  # files of April 2025 have the head whether it was used or not
        tensors = {k: v for k, v in tensors.items() if not k.startswith("_termination.")}
    if "_task_emb.weight" in tensors and "task_action_dims" not in fields:
        warnings.warn(
            f"a multi-task file of layout {layout} holds no action masks: all dimensions count as "
            "valid for every task (pass task_action_dims to change that)",
            UserWarning,
            stacklevel=2,
        )
    model = TDMPC2WorldModel(TDMPC2Config(**fields))
    load_official(model, tensors)
    return model


def load_official(model: TDMPC2WorldModel, tensors: Tensors) -> None:
    """Load L3 tensors into a model, every name and shape checked before anything changes."""
    own, names = model.state_dict(), official_names(model)
    for official in sorted(tensors.keys() - set(names.values())):
        raise CheckpointError(f"tensor {official!r} has no place in this TD-MPC2 model")
    for ours in sorted(own.keys() - _OURS_ALONE):
        if ours not in names:
            raise CheckpointError(f"the official TD-MPC2 has no place for {ours!r}")
        if names[ours] not in tensors and ours not in _OPTIONAL:
            raise CheckpointError(f"tensor {names[ours]!r} is missing, for {ours!r}")
    loaded = {ours: tensors[name] for ours, name in names.items() if name in tensors}
    for ours, tensor in loaded.items():
        if own[ours].shape != tensor.shape:
            raise CheckpointError(
                f"tensor {names[ours]!r} has shape {tuple(tensor.shape)}, expected "
                f"{tuple(own[ours].shape)}"
            )
    model.load_state_dict({**own, **loaded})


def official_state_dict(model: TDMPC2WorldModel) -> dict[str, Any]:
    """The model under L3 names, with the entries that the official loader expects."""
    names = official_names(model)
    low, high = model.config.log_std_min, model.config.log_std_max
    state: dict[str, Any] = {"log_std_min": _setting(low), "log_std_dif": _setting(high - low)}
    for ours, tensor in model.state_dict().items():
        if ours in _OURS_ALONE:
            continue
        if ours not in names:
            raise CheckpointError(f"the official TD-MPC2 has no place for {ours!r}")
        state[names[ours]] = tensor.detach().cpu().clone()
    for name in [name for name in state if name.startswith("_Qs.params.")]:
        state[name.replace("_Qs.params.", "_detach_Qs_params.", 1)] = state[name]
    for ensemble in ("_Qs.params", "_detach_Qs_params", "_target_Qs_params"):
        state[f"{ensemble}.__batch_size"] = torch.Size([model.config.num_q_networks])
        state[f"{ensemble}.__device"] = None
    return state


def fields_from_tensors(tensors: Tensors) -> dict[str, Any]:
    """Configuration fields that L3 tensors show."""
    multi_task = "_task_emb.weight" in tensors
    num_tasks, task_dim = _need(tensors, "_task_emb.weight", 2).shape if multi_task else (1, 0)
    hidden = num_layers(tensors, "_pi") - 1
    q_weight = _need(tensors, "_Qs.params.0.weight", 3)
    fields: dict[str, Any] = {
        "latent_dim": _need(tensors, f"_dynamics.{hidden}.weight", 2).shape[0],
        "hidden_dim": _need(tensors, "_dynamics.0.weight", 2).shape[0],
        "num_hidden_layers": hidden,
        "num_q_networks": q_weight.shape[0],
        "num_bins": _need(tensors, f"_reward.{hidden}.bias", 1).shape[0],
        "action_dim": _need(tensors, f"_pi.{hidden}.bias", 1).shape[0] // 2,
        "episodic": num_layers(tensors, "_termination") > 0,
    }
    if any(name.startswith("_encoder.rgb.") for name in tensors):
        first = _need(tensors, f"_encoder.rgb.{PIXEL_LAYERS[0]}.weight", 4)
        fields.update(obs_shape=(first.shape[1], 64, 64), num_channels=first.shape[0])
    else:
        first = _need(tensors, "_encoder.state.0.weight", 2)
        fields.update(
            obs_shape=(first.shape[1] - task_dim,),
            enc_dim=first.shape[0],
            num_enc_layers=num_layers(tensors, "_encoder.state"),
        )
    if multi_task:
        fields.update(num_tasks=num_tasks, task_dim=task_dim)
    if "_action_masks" in tensors:
        masks = _need(tensors, "_action_masks", 2)
        fields["task_action_dims"] = tuple(int(count) for count in masks.sum(1))
    return fields


def _need(tensors: Tensors, name: str, axes: int) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None:
        raise CheckpointError(f"tensor {name!r} is missing")
    if tensor.dim() != axes:
        raise CheckpointError(f"tensor {name!r} has {tensor.dim()} axes, expected {axes}")
    return tensor


def _setting(value: float) -> Tensor:
    return torch.tensor(int(value) if value == int(value) else value)
