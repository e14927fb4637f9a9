"""`create_world_model` and `get_config`: from a name or a folder to a model. torch comes lazily.

Packages register families as `worldflux.models.registry` says, and components with entry points of
the group `worldflux.components`: a class, a factory or an instance. docs/examples/ holds a package
that does both.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from worldflux.alpha import refuse_saved
from worldflux.backends.program import NATIVE, OfficialBackendHandle, open_handle
from worldflux.core import hub
from worldflux.core.config import WorldModelConfig
from worldflux.errors import CheckpointError, ConfigurationError, ModelNotFoundError, did_you_mean
from worldflux.layout import CONFIG_FILE, WEIGHTS_FILE
from worldflux.models.catalog import (
    count_parameters,
    default_config,
    family_of_model,
    resolve,
)
from worldflux.models.registry import buildable_config, family_of, our_families

if TYPE_CHECKING:
    from worldflux.core.world_model import WorldModel

API_VERSIONS = ("v3",)
COMPONENT_ENTRY_POINTS = "worldflux.components"


@overload
def create_world_model(
    model: str | os.PathLike[str],
    obs_shape: tuple[int, ...] | None = None,
    action_dim: int | None = None,
    device: str = "cpu",
    api_version: str = "v3",
    *,
    backend: Literal["native_torch"] = "native_torch",
    component_overrides: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> WorldModel: ...


@overload
def create_world_model(
    model: str | os.PathLike[str],
    obs_shape: tuple[int, ...] | None = None,
    action_dim: int | None = None,
    device: str = "cpu",
    api_version: str = "v3",
    *,
    backend: str,
    component_overrides: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> WorldModel | OfficialBackendHandle: ...


def create_world_model(
    model: str | os.PathLike[str],
    obs_shape: tuple[int, ...] | None = None,
    action_dim: int | None = None,
    device: str = "cpu",
    api_version: str = "v3",
    *,
    backend: str = NATIVE,
    component_overrides: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> WorldModel | OfficialBackendHandle:
    """Create a world model from a preset, an alias, or a saved model.

    Args:
        model: a catalogue id, an alias, the name of an installed family, the path of a saved
            model, a checkpoint or a whole outputs folder, or `hf://owner/name[@revision]`.
        obs_shape: (C, H, W) of images or (D,) of vectors; the preset's own by default.
        action_dim: number of actions; the preset's own by default.
        device: "cpu", "cuda", "cuda:N", "mps" or "auto".
        api_version: "v3".
        backend: "native_torch", or a delegated backend, which gives an OfficialBackendHandle.
        component_overrides: slot -> entry-point id, class, factory or instance. Classes and
            factories are called with the configuration, or with nothing if they take nothing.
            Of a saved model they keep the weights that were saved with such a part.
        **overrides: fields of the family's configuration.

    Raises:
        ModelNotFoundError: for an unknown name or a missing path.
        ConfigurationError: for an unknown field, backend or component, or a value not allowed.
        CheckpointError: for a damaged saved model.
    """
    if api_version not in API_VERSIONS:
        raise ConfigurationError(f"api_version {api_version!r} is not known: {API_VERSIONS}")
    shapes = _given(obs_shape=obs_shape, action_dim=action_dim)
    if backend != NATIVE:
        model_id, options = resolve(os.fspath(model)), {**shapes, "device": device, **overrides}
        return open_handle(backend, model_id, family_of_model(model_id).name, options)
    from worldflux.core.saved_model import load_weights
    from worldflux.training.device import resolve_device

    device = str(resolve_device(device))
    saved, config = _locate(model, {**shapes, **overrides})
    if saved is not None and not component_overrides:
        require_weights_of(config, saved)
    built = family_of(config).load_model()(config.with_overrides(device=device))
    parts = component_overrides or {}
    for slot, component in parts.items():
        built.replace_component(slot, _component(slot, component, built.config))
    if saved is not None:
        load_weights(built, saved / WEIGHTS_FILE, replaced=parts.keys())
    return built.to(device).eval()


MANY_LAYERS = 100


def require_weights_of(config: WorldModelConfig, folder: Path) -> None:
    """Refuse a configuration of far more weights than its file can hold, before it takes memory."""
    weights = folder / WEIGHTS_FILE
    if config.model_type not in our_families() or not weights.is_file():
        return
    values = vars(config)
    lists = [len(value) for value in values.values() if isinstance(value, tuple)]
    layers = max([*lists, *(values[name] for name in values if name.endswith("_layers"))])
    # Counting the weights builds every layer, which takes time, though no memory.
    if layers > MANY_LAYERS:
        from worldflux.core.saved_model import read_header

        tensors = len(read_header(weights))
        if layers > tensors:
            raise CheckpointError(
                f"the configuration describes {layers:,} layers, its file has {tensors:,} tensors",
                where=str(weights),
            )
    count, size = count_parameters(config), weights.stat().st_size
    if count > size:  # a weight takes more than a byte
        raise CheckpointError(
            f"the configuration describes {count:,} weights, its file holds {size:,} bytes",
            where=str(weights),
        )


def build_model(config: WorldModelConfig) -> WorldModel:
    """The model of a configuration that is already complete, on the CPU, in evaluation mode."""
    model: WorldModel = family_of(config).load_model()(config)
    return model.eval()


def get_config(
    model: str | os.PathLike[str],
    obs_shape: tuple[int, ...] | None = None,
    action_dim: int | None = None,
    **overrides: Any,
) -> WorldModelConfig:
    """The configuration that `create_world_model` would build with. Needs no torch."""
    return _locate(model, {**_given(obs_shape=obs_shape, action_dim=action_dim), **overrides})[1]


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _locate(
    model: str | os.PathLike[str], overrides: dict[str, Any]
) -> tuple[Path | None, WorldModelConfig]:
    """The folder of a saved model (None for a preset) and the configuration to build."""
    name = os.fspath(model)
    if hub.is_reference(name):
        return _opened(hub.download(name), overrides)
    try:
        return None, default_config(name, **overrides)
    except ModelNotFoundError as error:
        unknown = error
    if not _is_path(model):
        raise unknown
    return _opened(saved_folder(Path(name).expanduser()), overrides)


def _opened(folder: Path, overrides: dict[str, Any]) -> tuple[Path, WorldModelConfig]:
    """The folder of a saved model and its configuration, whose shapes no override may change."""
    saved = buildable_config(folder)
    for field in ("obs_shape", "action_dim"):
        stored, wanted = getattr(saved, field), overrides.get(field)
        if wanted is not None and (tuple(wanted) if field == "obs_shape" else wanted) != stored:
            raise ConfigurationError(
                f"the saved model has {field} = {stored}, not {wanted}", where=str(folder)
            )
    return folder, saved.with_overrides(**overrides)


def _is_path(model: str | os.PathLike[str]) -> bool:
    name = os.fspath(model)
    looks_like_one = name.startswith((".", "~")) or os.sep in name
    return not isinstance(model, str) or looks_like_one or Path(name).exists()


def saved_folder(path: Path) -> Path:
    """The folder that holds the weights: the path itself, or a run's best checkpoint."""
    from worldflux.training.checkpoints import MANIFEST, check, checkpoint_of, store_of

    if not path.exists():
        raise ModelNotFoundError("this path does not exist", where=str(path))
    refuse_saved(path)
    if (path / CONFIG_FILE).is_file():
        if (path / MANIFEST).is_file():
            check(path)
        return path
    if store_of(path).steps():
        return checkpoint_of(path)
    raise ModelNotFoundError(
        "no saved model here: a saved model is a folder with config.json and model.safetensors",
        where=str(path),
    )


def _component(slot: str, given: Any, config: WorldModelConfig) -> Any:
    """The component that an id, class, factory or instance stands for."""
    from worldflux.core.components import METHOD_OF_SLOT

    component = _registered_component(given) if isinstance(given, str) else given
    method = METHOD_OF_SLOT.get(slot, "")
    is_class = isinstance(component, type)
    if is_class or (callable(component) and not hasattr(component, method)):
        takes_config = bool(inspect.signature(component).parameters)
        return component(config) if takes_config else component()
    return component


def _registered_component(name: str) -> Any:
    known = {point.name: point for point in metadata.entry_points(group=COMPONENT_ENTRY_POINTS)}
    if name not in known:
        raise ConfigurationError(
            f"no component is registered as {name!r}",
            hint=did_you_mean(name, known)
            or f"packages register components in the entry-point group {COMPONENT_ENTRY_POINTS}",
        )
    return known[name].load()
