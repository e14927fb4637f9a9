"""Weights of the official agent, read from their flat names: `enc/mlp0/kernel`, `dyn/dyngru/bias`.

The official layouts are Linear (in, out), block-linear (g, in/g, out/g), Conv HWIO and norm scale
(C); all of an agent's shape but its horizon and rates can be read off the names and shapes.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldflux.core.config import DreamerV3Config
from worldflux.errors import CheckpointError
from worldflux.models.dreamerv3.spaces import module_name
from worldflux.models.dreamerv3.world_model import DreamerV3WorldModel

Array = NDArray[Any]
MAX_FILE_BYTES = 16 << 30


@dataclass(frozen=True)
class OfficialTensor:
    """Where one of our tensors stands in the official agent; `axes` takes theirs to ours."""

    name: str
    axes: tuple[int, ...] | None = None


_LINEAR_AXES = (1, 0)
_CONV_AXES = (3, 2, 0, 1)


def read_official(path: str | Path) -> dict[str, Array]:
    """The arrays of an npz file by their flat names, without a prefix such as `agent/`.

    Of a recording with several sets of weights (`param0:`, `state0:`, ...) the last is taken.

    Raises:
        CheckpointError: when the file is missing, damaged or needs pickle.
    """
    target = Path(path)
    if not target.is_file() or target.stat().st_size > MAX_FILE_BYTES:
        raise CheckpointError("no npz file of under 16 GiB here", where=str(target))
    try:
        with np.load(target, allow_pickle=False) as file:
            ordered = sorted((name for name in file.files if "/" in name), key=_set_number)
            matches = {name: _NAME.fullmatch(name) for name in ordered}
            return {m["name"]: file[name] for name, m in matches.items() if m is not None}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"not a readable npz file: {error}", where=str(target)) from None


def recorded_classes(path: str | Path) -> int | None:
    """Classes of a latent where the file holds latents `[..., S, C]` beside the weights."""
    with np.load(Path(path), allow_pickle=False) as file:
        for name in file.files:
            if re.split("[:/]", name)[-1] == "stoch" and file[name].ndim >= 2:
                return int(file[name].shape[-1])
    return None


_NAME = re.compile(r"(?:(?:param|state)(?P<number>\d*):)?(?:agent/)?(?P<name>[^:]+)")


def _set_number(name: str) -> int:
    match = _NAME.fullmatch(name)
    return int(match["number"] or 0) if match else -1


def import_official(path: str | Path, **overrides: Any) -> DreamerV3WorldModel:
    """A model with the weights of an official agent; `overrides` set configuration fields.

    Raises:
        CheckpointError: naming the first tensor that is missing or of another shape.
    """
    arrays = read_official(path)
    classes = recorded_classes(path)
    if classes is not None:
        overrides.setdefault("stoch_classes", classes)
    try:
        config = official_config(arrays, **overrides)
        model = DreamerV3WorldModel(config)
        load_official(model, arrays)
    except CheckpointError as error:
        raise CheckpointError(error.message, where=str(path), hint=error.hint) from None
    return model


# --------------------------------------------------------------------------- configuration


def import_checkpoint(
    path: str | Path, directory: str | Path, **overrides: Any
) -> DreamerV3WorldModel:
    """`import_official`, saved as a model folder."""
    model = import_official(path, **overrides)
    model.save_pretrained(directory)
    return model


def official_config(arrays: Mapping[str, Array], **overrides: Any) -> DreamerV3Config:
    """The official recipe at the sizes that the arrays show; `overrides` win.

    A vector's shape is not in the weights: it is taken as flat. Images are taken as square.
    """
    gru = _need(arrays, "dyn/dyngru/bias").shape[0] // 3
    observations = _observations(arrays)
    actions = _actions(arrays)
    logits = _need(arrays, "dyn/priorlogit/bias").shape[0]
    classes = overrides.pop("stoch_classes", None) or _classes(logits)
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
        "deter_dim": gru,
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
    }
    return DreamerV3Config(**{**fields, **overrides})


def _need(arrays: Mapping[str, Array], name: str) -> Array:
    if name not in arrays:
        raise CheckpointError(f"tensor {name!r} is missing: not a DreamerV3 agent")
    return arrays[name]


def _count(arrays: Mapping[str, Array], pattern: str) -> int:
    number = 0
    while pattern.format(number) in arrays:
        number += 1
    if not number:
        raise CheckpointError(f"tensor {pattern.format(0)!r} is missing: not a DreamerV3 agent")
    return number


def _classes(logits: int) -> int:
    # The weights alone show only groups * classes; every official size has 32 groups.
    if logits % 32:
        raise CheckpointError(
            f"the latents have {logits} logits, not a multiple of the official 32 groups",
            hint="give stoch_classes",
        )
    return logits // 32


def _observations(arrays: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
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
    if not found:
        raise CheckpointError("no decoder of vectors or images: not a DreamerV3 agent")
    return found


def _actions(arrays: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        parts = name.split("/")
        if parts[:2] == ["pol", "head"] and parts[-1] == "bias" and parts[3] != "stddev":
            kind = "discrete" if parts[3] == "logits" else "continuous"
            found[parts[2]] = {"kind": kind, "dim": array.shape[0]}
    if not found:
        raise CheckpointError("no policy head: not a DreamerV3 agent")
    return found


def _convolutions(arrays: Mapping[str, Array]) -> dict[str, Any]:
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
        "decoder_blocks": _need(arrays, "dec/sp0/kernel").shape[0],
    }


# --------------------------------------------------------------------------- weights


def load_official(model: DreamerV3WorldModel, arrays: Mapping[str, Array]) -> None:
    """Copy official arrays into `model`, names and shapes checked before anything is changed.

    Without `slowval/...` the slow critic becomes a copy of the critic; the return normaliser is
    read from `retnorm/...` where that is present.

    Raises:
        CheckpointError: naming the first tensor that is missing or of another shape.
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


def _ours(array: Array, source: OfficialTensor, like: Tensor) -> Tensor:
    tensor = torch.from_numpy(np.array(array, dtype=np.float32))
    if source.axes is not None and tensor.ndim == len(source.axes):
        tensor = tensor.permute(source.axes)
    if tensor.shape != like.shape:
        raise CheckpointError(
            f"tensor {source.name!r} gives {tuple(tensor.shape)}, expected {tuple(like.shape)}"
        )
    return tensor.contiguous()


def official_names(model: DreamerV3WorldModel) -> dict[str, OfficialTensor]:
    """For each tensor of our state dict, the official one it corresponds to."""
    names: dict[str, OfficialTensor] = {}
    names.update(_encoder_names(model))
    names.update(_rssm_names(model))
    names.update(_decoder_names(model))
    for ours, theirs in (("reward", "rew"), ("continuation", "con"), ("critic", "val")):
        names.update(_head_names(model, ours, theirs))
    names.update(_head_names(model, "slow_critic", "slowval"))
    for i in range(len(model.actor.mlp)):
        names.update(_mlp_names(f"actor.mlp.{i}", "pol/mlp", i))
    for part in model.parts:
        outs = (("mean", "mean"), ("std", "stddev")) if part.kind == "continuous" else ()
        for ours, theirs in outs or (("logits", "logits"),):
            head = f"actor.heads.{module_name(part.name)}.{ours}"
            names.update(_linear_names(head, f"pol/head/{part.name}/{theirs}"))
    names["return_normalizer.low_value"] = OfficialTensor("retnorm/lo/value")
    names["return_normalizer.high_value"] = OfficialTensor("retnorm/hi/value")
    return names


def _linear_names(ours: str, theirs: str) -> dict[str, OfficialTensor]:
    return {
        f"{ours}.weight": OfficialTensor(f"{theirs}/kernel", _LINEAR_AXES),
        f"{ours}.bias": OfficialTensor(f"{theirs}/bias"),
    }


def _dense_names(ours: str, theirs: str, norm: str | None = None) -> dict[str, OfficialTensor]:
    scale = OfficialTensor(f"{norm or theirs + 'norm'}/scale")
    return {**_linear_names(f"{ours}.linear", theirs), f"{ours}.norm.scale": scale}


def _mlp_names(ours: str, theirs: str, index: int) -> dict[str, OfficialTensor]:
    return _dense_names(ours, f"{theirs}/linear{index}", f"{theirs}/norm{index}")


def _head_names(model: DreamerV3WorldModel, ours: str, theirs: str) -> dict[str, OfficialTensor]:
    head = model.get_submodule(ours)
    out = "logit" if ours == "continuation" else "logits"
    names = _linear_names(f"{ours}.out", f"{theirs}/head/{out}")
    for i in range(len(head.mlp)):  # type: ignore[arg-type]
        names.update(_mlp_names(f"{ours}.mlp.{i}", f"{theirs}/mlp", i))
    return names


def _conv_names(ours: str, theirs: str, *, has_norm: bool) -> dict[str, OfficialTensor]:
    names = {
        f"{ours}.conv.weight": OfficialTensor(f"{theirs}/kernel", _CONV_AXES),
        f"{ours}.conv.bias": OfficialTensor(f"{theirs}/bias"),
    }
    if has_norm:
        names[f"{ours}.norm.scale"] = OfficialTensor(f"{theirs}norm/scale")
    return names


def _encoder_names(model: DreamerV3WorldModel) -> dict[str, OfficialTensor]:
    names: dict[str, OfficialTensor] = {}
    if model.encoder.vectors:
        for i in range(len(model.encoder.mlp)):
            names.update(_dense_names(f"encoder.mlp.{i}", f"enc/mlp{i}"))
    if model.encoder.images:
        for i in range(len(model.encoder.convs)):
            names.update(_conv_names(f"encoder.convs.{i}", f"enc/cnn{i}", has_norm=True))
    return names


def _rssm_names(model: DreamerV3WorldModel) -> dict[str, OfficialTensor]:
    names: dict[str, OfficialTensor] = {}
    for i, part in enumerate(("deter_in", "stoch_in", "action_in")):
        names.update(_dense_names(f"rssm.{part}", f"dyn/dynin{i}"))
    for i in range(len(model.rssm.dynamics) + 1):
        layer, norm = "rssm.dynamics_in", "rssm.dynamics_in_norm"
        if i:
            layer, norm = f"rssm.dynamics.{i - 1}", f"rssm.dynamics_norms.{i - 1}"
        names[f"{layer}.weight"] = OfficialTensor(f"dyn/dynhid{i}/kernel")
        names[f"{layer}.bias"] = OfficialTensor(f"dyn/dynhid{i}/bias")
        names[f"{norm}.scale"] = OfficialTensor(f"dyn/dynhid{i}norm/scale")
    names["rssm.gates.weight"] = OfficialTensor("dyn/dyngru/kernel")
    names["rssm.gates.bias"] = OfficialTensor("dyn/dyngru/bias")
    for i in range(len(model.rssm.prior)):
        names.update(_dense_names(f"rssm.prior.{i}", f"dyn/prior{i}"))
    names.update(_linear_names("rssm.prior_out", "dyn/priorlogit"))
    names.update(_dense_names("rssm.posterior_in", "dyn/obs0"))
    for i in range(len(model.rssm.posterior)):
        names.update(_dense_names(f"rssm.posterior.{i}", f"dyn/obs{i + 1}"))
    names.update(_linear_names("rssm.posterior_out", "dyn/obslogit"))
    return names


def _decoder_names(model: DreamerV3WorldModel) -> dict[str, OfficialTensor]:
    decoder, names = model.decoder, {}
    if decoder.vectors:
        for i in range(len(decoder.mlp)):
            names.update(_mlp_names(f"decoder.mlp.{i}", "dec/mlp", i))
        for key in decoder.vectors:
            out = "logits" if key.kind == "discrete" else "pred"
            head = f"decoder.heads.{module_name(key.name)}"
            names.update(_linear_names(head, f"dec/vec/{key.name}/{out}"))
    if decoder.images:
        canvas = "decoder.canvas"
        names[f"{canvas}.from_deter.weight"] = OfficialTensor("dec/sp0/kernel")
        names[f"{canvas}.from_deter.bias"] = OfficialTensor("dec/sp0/bias")
        names.update(_dense_names(f"{canvas}.hidden", "dec/sp1"))
        names.update(_linear_names(f"{canvas}.from_stoch", "dec/sp2"))
        names[f"{canvas}.norm.scale"] = OfficialTensor("dec/spnorm/scale")
        last = len(decoder.convs) - 1
        for i in range(last):
            names.update(
                _conv_names(f"decoder.convs.{i}", f"dec/conv{last - 1 - i}", has_norm=True)
            )
        names.update(_conv_names(f"decoder.convs.{last}", "dec/imgout", has_norm=False))
    return names
