"""Weights of the official agent, read from their flat names: `enc/mlp0/kernel`, `dyn/dyngru/bias`.

All of an agent's shape but its horizon and rates can be read off the names and shapes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldflux.errors import CheckpointError

from .config import DreamerV3Config
from .networks import module_name
from .world_model import DreamerV3WorldModel

MAX_FILE_BYTES = 16 << 30
_NAME = re.compile(r"(?:(?:param|state)(?P<number>\d*):)?(?:agent/)?(?P<name>[^:]+)")


def read_official(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file by their flat names, without a prefix such as `agent/`.

    Of a recording with several sets of weights (`param0:`, `state0:`, ...) the last is taken.
    """
    target = Path(path)
    if not target.is_file() or target.stat().st_size > MAX_FILE_BYTES:
        raise CheckpointError("no npz file of under 16 GiB here", where=str(target))
    try:
        with np.load(target, allow_pickle=False) as file:
            ordered = sorted((name for name in file.files if "/" in name), key=_set_number)
            matches = {name: _NAME.fullmatch(name) for name in ordered}
            return {m["name"]: file[name] for name, m in matches.items() if m is not None}
    except Exception as error:  # a damaged or foreign file raises almost any
        raise CheckpointError(f"not a readable npz file: {error}", where=str(target)) from None


def recorded_classes(path: str | Path) -> int | None:
    """Classes of a latent where the file holds latents `[..., S, C]` next to the weights."""
    with np.load(Path(path), allow_pickle=False) as file:
        for name in file.files:
            if re.split("[:/]", name)[-1] == "stoch" and file[name].ndim >= 2:
                return int(file[name].shape[-1])
    return None


def _set_number(name: str) -> int:
    match = _NAME.fullmatch(name)
    return int(match["number"] or 0) if match else -1


def import_official(path: str | Path, /, **overrides: Any) -> DreamerV3WorldModel:
    """A model with the weights of an official agent; `overrides` set configuration fields."""
    arrays = read_official(path)
    overrides.setdefault("stoch_classes", recorded_classes(path))
    try:
        model = DreamerV3WorldModel(official_config(arrays, **overrides))
        load_official(model, arrays)
    except CheckpointError as error:
        raise CheckpointError(error.message, where=str(path), hint=error.hint) from None
    return model


def import_checkpoint(
    path: str | Path, directory: str | Path, /, **overrides: Any
) -> DreamerV3WorldModel:
    """`import_official`, saved as a model folder."""
    model = import_official(path, **overrides)
    model.save_pretrained(directory)
    return model


# --------------------------------------------------------------------------- configuration


def official_config(arrays: Mapping[str, np.ndarray], /, **overrides: Any) -> DreamerV3Config:
    """The official recipe at the sizes that the arrays show; `overrides` win.

    A vector's shape is not in the weights: it is taken as flat. Images are taken as square. An
    agent without a decoder does not show its observations: give `observation_modalities`.
    """
    observations = overrides.pop("observation_modalities", None) or _observations(arrays)
    actions = _actions(arrays)
    logits = _need(arrays, "dyn/priorlogit/bias").shape[0]
    classes = overrides.pop("stoch_classes", None)
    if classes is None and logits % 32:
        raise CheckpointError(
            f"the latents have {logits} logits, not a multiple of the official 32 groups",
            hint="give stoch_classes",
        )
    # The weights alone show only groups * classes; every official size has 32 groups.
    classes = classes or logits // 32
    kinds = {part["kind"] for part in actions.values()}
    kind = "discrete" if kinds == {"discrete"} else "continuous"
    width = sum(part["dim"] for part in actions.values())
    first = next(iter(observations.values()))
    fields: dict[str, Any] = {
        "recipe": "official",
        "model_name": "official_import",
        "obs_shape": tuple(first["shape"]),
        "observation_modalities": observations,
        "action_type": kind,
        "action_dim": width,
        "action_spec": {"kind": kind, "dim": width, "parts": actions},
        "deter_dim": _need(arrays, "dyn/dyngru/bias").shape[0] // 3,
        "stoch_discrete": logits // classes,
        "stoch_classes": classes,
        "hidden_dim": _need(arrays, "dyn/dynin0/bias").shape[0],
        "blocks": _need(arrays, "dyn/dyngru/kernel").shape[0],
        "num_dynamics_layers": _count(arrays, "dyn/dynhid{}/bias"),
        "num_prior_layers": _count(arrays, "dyn/prior{}/bias"),
        "num_posterior_layers": _count(arrays, "dyn/obs{}/bias"),
        "num_mlp_layers": _count(arrays, "val/mlp/linear{}/bias"),
        "num_reward_layers": _count(arrays, "rew/mlp/linear{}/bias"),
        "num_continue_layers": _count(arrays, "con/mlp/linear{}/bias"),
        "reward_num_bins": _need(arrays, "rew/head/logits/bias").shape[0],
        **_convolutions(arrays),
        **({"representation": "barlow"} if "prj/kernel" in arrays else {}),
    }
    return DreamerV3Config(**{**fields, **overrides})


def _need(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in arrays:
        raise CheckpointError(f"tensor {name!r} is missing: not a DreamerV3 agent")
    return arrays[name]


def _count(arrays: Mapping[str, np.ndarray], pattern: str) -> int:
    number = 0
    while pattern.format(number) in arrays:
        number += 1
    if not number:
        raise CheckpointError(f"tensor {pattern.format(0)!r} is missing: not a DreamerV3 agent")
    return number


def _observations(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        parts = name.split("/")
        if parts[:2] == ["dec", "vec"] and parts[-1] == "bias":
            if parts[3] == "logits":
                found[parts[2]] = {"kind": "discrete", "shape": [1], "classes": array.shape[0]}
            else:
                found[parts[2]] = {"kind": "vector", "shape": [array.shape[0]]}
    if "dec/imgout/bias" in arrays:
        stages = _count(arrays, "enc/cnn{}/bias")
        area = _need(arrays, "dec/sp2/bias").shape[0] // _need(arrays, "dec/spnorm/scale").shape[0]
        side = math.isqrt(area) * 2**stages
        shape = [arrays["dec/imgout/bias"].shape[0], side, side]
        found["image"] = {"kind": "image", "shape": shape}
    if not found and "prj/kernel" in arrays:
        raise CheckpointError(
            "an agent without a decoder does not show what it observes",
            hint="give observation_modalities",
        )
    if not found:
        raise CheckpointError("no decoder of vectors or images: not a DreamerV3 agent")
    return found


def _actions(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        parts = name.split("/")
        if parts[:2] == ["pol", "head"] and parts[-1] == "bias" and parts[3] != "stddev":
            kind = "discrete" if parts[3] == "logits" else "continuous"
            found[parts[2]] = {"kind": kind, "dim": array.shape[0]}
    if not found:
        raise CheckpointError("no policy head: not a DreamerV3 agent")
    return found


def _convolutions(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    if "enc/cnn0/bias" not in arrays:
        return {}
    stages = _count(arrays, "enc/cnn{}/bias")
    kernels = [arrays[f"enc/cnn{i}/kernel"] for i in range(stages)]
    channels = [kernel.shape[-1] for kernel in kernels]
    depth = math.gcd(*channels)
    return {
        "cnn_depth": depth,
        "cnn_mults": tuple(channel // depth for channel in channels),
        "cnn_kernels": tuple(kernel.shape[0] for kernel in kernels),
        **({"decoder_blocks": len(arrays["dec/sp0/kernel"])} if "dec/sp0/kernel" in arrays else {}),
    }


# --------------------------------------------------------------------------- weights


def load_official(model: DreamerV3WorldModel, arrays: Mapping[str, np.ndarray]) -> None:
    """Copy official arrays into `model`, names and shapes checked before anything is changed.

    Without `slowval/...` the slow critic becomes a copy of the critic; the return normaliser is
    read from `retnorm/...` where that is present.
    """
    tensors = {}
    for name, source in official_names(model).items():
        array = arrays.get(source.name)
        if array is None and source.name.startswith("slowval/"):
            array = arrays.get(source.name.removeprefix("slow"))
        if array is None and source.name.startswith("retnorm/"):
            continue
        if array is None:
            raise CheckpointError(f"tensor {source.name!r} is missing")
        tensors[name] = _ours(array, source, model.state_dict()[name])
    model.load_state_dict(tensors, strict=False)


def _ours(array: np.ndarray, source: OfficialTensor, like: Tensor) -> Tensor:
    tensor = torch.from_numpy(np.array(array, dtype=np.float32))
    if source.axes is not None and tensor.ndim == len(source.axes):
        tensor = tensor.permute(source.axes)
    if tensor.shape != like.shape:
        raise CheckpointError(
            f"tensor {source.name!r} gives {tuple(tensor.shape)}, expected {tuple(like.shape)}"
        )
    return tensor.contiguous()


@dataclass(frozen=True)
class OfficialTensor:
    """The place of one of our tensors in the official agent; `axes` takes theirs to ours."""

    name: str
    axes: tuple[int, ...] | None = None


# By the number of axes of our weight: Linear, and convolution. Block-linear weights are the same.
_KERNEL_AXES = {2: (1, 0), 4: (3, 2, 0, 1)}
_HEADS = {
    "reward": ("rew", "logits"),
    "continuation": ("con", "logit"),
    "critic": ("val", "logits"),
    "slow_critic": ("slowval", "logits"),
}
# Pattern of our layers -> official layer; {0} is the index in ours, {1} the one after it.
_LAYERS = {
    r"encoder\.mlp\.(\d+)": "enc/mlp{0}",
    r"encoder\.convs\.(\d+)": "enc/cnn{0}",
    r"rssm\.deter_in": "dyn/dynin0",
    r"rssm\.stoch_in": "dyn/dynin1",
    r"rssm\.action_in": "dyn/dynin2",
    r"rssm\.dynamics_in(?:_norm)?": "dyn/dynhid0",
    r"rssm\.dynamics(?:_norms)?\.(\d+)": "dyn/dynhid{1}",
    r"rssm\.gates": "dyn/dyngru",
    r"rssm\.prior\.(\d+)": "dyn/prior{0}",
    r"rssm\.prior_out": "dyn/priorlogit",
    r"rssm\.posterior_in": "dyn/obs0",
    r"rssm\.posterior\.(\d+)": "dyn/obs{1}",
    r"rssm\.posterior_out": "dyn/obslogit",
    r"projector": "prj",
    r"decoder\.mlp\.(\d+)": "dec/mlp/linear{0}",
    r"decoder\.canvas\.from_deter": "dec/sp0",
    r"decoder\.canvas\.hidden": "dec/sp1",
    r"decoder\.canvas\.from_stoch": "dec/sp2",
    r"decoder\.canvas": "dec/sp",
    r"actor\.mlp\.(\d+)": "pol/mlp/linear{0}",
    **{rf"{ours}\.mlp\.(\d+)": f"{theirs}/mlp/linear{{0}}" for ours, (theirs, _) in _HEADS.items()},
    **{rf"{ours}\.out": f"{theirs}/head/{out}" for ours, (theirs, out) in _HEADS.items()},
}


def official_names(model: DreamerV3WorldModel) -> dict[str, OfficialTensor]:
    """For each tensor of our state dict, the official one it corresponds to."""
    named = _named_layers(model)
    names = {
        "return_normalizer.low_value": OfficialTensor("retnorm/lo/value"),
        "return_normalizer.high_value": OfficialTensor("retnorm/hi/value"),
    }
    for name, tensor in model.state_dict().items():
        module, _, kind = name.rpartition(".")
        layer = re.sub(r"\.(linear|conv|norm)$", "", module)
        place = named.get(module) or named.get(layer) or _official_layer(layer)
        if place is None:
            continue
        if kind == "scale":  # of a layer's norm
            place = place.replace("linear", "norm") if "linear" in place else f"{place}norm"
            names[name] = OfficialTensor(f"{place}/scale")
        elif kind == "weight":
            names[name] = OfficialTensor(f"{place}/kernel", _KERNEL_AXES.get(tensor.ndim))
        else:
            names[name] = OfficialTensor(f"{place}/{kind}")
    return names


def _official_layer(layer: str) -> str | None:
    for pattern, place in _LAYERS.items():
        match = re.fullmatch(pattern, layer)
        if match:
            index = int(match[1]) if match.groups() else 0
            return place.format(index, index + 1)
    return None


def _named_layers(model: DreamerV3WorldModel) -> dict[str, str]:
    """The layers whose official name holds a key of the model, or counts the other way."""
    layers = {}
    decoder = model.decoder
    for key in decoder.vectors if decoder else ():
        out = "logits" if key.kind == "discrete" else "pred"
        layers[f"decoder.heads.{module_name(key.name)}"] = f"dec/vec/{key.name}/{out}"
    for part in model.parts:
        for ours, theirs in (("mean", "mean"), ("std", "stddev"), ("logits", "logits")):
            head = f"actor.heads.{module_name(part.name)}.{ours}"
            layers[head] = f"pol/head/{part.name}/{theirs}"
    last = len(decoder.convs) - 1 if decoder and decoder.images else 0
    for i in range(last):
        layers[f"decoder.convs.{i}"] = f"dec/conv{last - 1 - i}"
    layers[f"decoder.convs.{last}"] = "dec/imgout"
    return layers
