"""The families of world models, a row each: ours, and those of installed packages. No torch.

A package registers its family with an entry point of the group `worldflux.models` that names a
WorldModel subclass with a `config_class`; docs/examples/latent_mlp is one to copy.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from worldflux.core.config import WorldModelConfig
from worldflux.errors import (
    CapabilityError,
    ConfigurationError,
    WorldFluxError,
    described,
    did_you_mean,
    place,
)
from worldflux.files import read_json_object
from worldflux.layout import CONFIG_FILE

from . import FAMILY_CLASSES

ENTRY_POINTS = "worldflux.models"


@dataclass(frozen=True)
class Preset:
    """A row of the catalogue.

    Attributes:
        params: the documented label; it does not agree with `parameters` everywhere.
        parameters: learnable ones, without frozen targets; None where nobody has counted them.
        rank: listings are sorted by it, and by family within a rank.
    """

    params: str
    parameters: int | None
    description: str
    tier: str = "supported"
    role: str = "reference_family"
    rank: int = 0


@dataclass(frozen=True)
class Family:
    """Everything that the rest of worldflux needs to know about a family.

    Attributes:
        name: `model_type` of its configurations.
        title: how a person calls it.
        config_class: its configuration.
        load_model: imports and returns its WorldModel subclass.
        presets: catalogue id -> row.
        aliases: other names -> catalogue id.
        prefixes: what may come before the colon of an id; each is tried with any of them.
        observation: what its presets take by default, "image" or "vector".
        action_types: the actions that its agents take.
        picks: what `init` picks of it: an environment's id, the beginning of one or a kind of
            actions -> the preset and what it is for. The longest that fits counts.
        also_quick: an environment's id -> another preset that its quick numbers of `init` suit.
        episodic_key: the configuration field to set where episodes end before their time limit.
        importer: "module:function" that turns an official checkpoint into a model folder,
            `(file, directory, **overrides) -> WorldModel`.
        import_name: what `models import --family` calls it.
        exporter: "module:function" that writes a model folder as an official checkpoint,
            `(directory, file)`.
        import_files: the kind of official file, in words.
        backends: names of delegated backends that run its official program.
        program: "module:name" of that program.
        variants: a configuration field and its value -> how publications call the agent with it.
    """

    name: str
    title: str
    config_class: type[WorldModelConfig]
    load_model: Callable[[], Any]
    presets: Mapping[str, Preset]
    prefixes: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    maturity: str = "reference"
    observation: str = "vector"
    action_types: tuple[str, ...] = ("continuous", "discrete")
    picks: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    also_quick: Mapping[str, str] = field(default_factory=dict)
    episodic_key: str | None = None
    importer: str | None = None
    import_name: str = ""
    import_files: str = ""
    exporter: str | None = None
    backends: tuple[str, ...] = ()
    program: str = ""
    variants: Mapping[tuple[str, Any], str] = field(default_factory=dict)


def attribute(path: str) -> Any:
    """What `module:name` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


@functools.cache
def our_families() -> dict[str, Family]:
    """The families of this package, by `model_type`, in the order of listings."""
    folders = dict.fromkeys(FAMILY_CLASSES.values())
    rows = [importlib.import_module(f"{folder}.family").FAMILY for folder in folders]
    return {row.name: row for row in rows}


def families() -> dict[str, Family]:
    """Every family: ours, and those that entry points register (which imports them).

    One that cannot be used is left out, with a warning.
    """
    rows: dict[str, Family] = {}
    for name in outside_names():
        try:
            row = outside_family(name)
        except WorldFluxError as error:
            warnings.warn(f"left out: {error}", stacklevel=1)
        else:
            rows |= {name: row} if row else {}
    return {**rows, **our_families()}


def advice_for(action_type: str) -> str | None:
    """Which of our families to take for such actions, with a model of it; None where none does."""
    rows = [row for row in our_families().values() if action_type in row.action_types]
    names = [
        f'use {row.title} for them, such as model = "{next(iter(row.aliases))}"' for row in rows
    ]
    return names[0] if names else None


def find_family(model_type: str) -> Family | None:
    """The family of a configuration's `model_type`; imports no other package than its own."""
    return our_families().get(model_type) or outside_family(model_type)


def saved_config(folder: Path) -> WorldModelConfig:
    """The configuration of the saved model in a folder, of whichever family."""
    data = read_json_object(folder / CONFIG_FILE, "configuration file")
    row = find_family(str(data.get("model_type")))
    return (row.config_class if row else WorldModelConfig).load(folder)


def buildable_config(folder: Path) -> WorldModelConfig:
    """As `saved_config`, of a family that there is."""
    config = saved_config(folder)
    if find_family(config.model_type) is None:
        raise ConfigurationError(
            f"{folder / CONFIG_FILE}: no family builds model_type {config.model_type!r}",
            hint=f"name a folder whose model_type is one of {', '.join(our_families())}",
        )
    return config


def family_of(config: WorldModelConfig) -> Family:
    """The family that builds a configuration."""
    row = find_family(config.model_type)
    if row is None:
        raise ConfigurationError(f"no family builds model_type {config.model_type!r}")
    return row


def outside_names() -> list[str]:
    """The families that installed packages register; imports none."""
    return [point.name for point in metadata.entry_points(group=ENTRY_POINTS)]


def outside_family(name: str) -> Family | None:
    """The family that an installed package registers under this name, or None.

    Raises:
        ConfigurationError: where its entry point cannot be imported, or is none of a family.
    """
    for point in metadata.entry_points(group=ENTRY_POINTS, name=name):
        package = point.dist.name if point.dist else point.module
        try:
            return _row_of(name, point.value, point.load())
        except WorldFluxError:
            raise
        except (Exception, SystemExit) as error:
            raise ConfigurationError(
                f"the model family {name!r} of the package {package!r} cannot be loaded: "
                f"{described(error)}",
                where=place(error),
                hint=f"repair the package, or remove it: pip uninstall {package}",
            ) from None
    return None


def _row_of(name: str, value: str, model_class: Any) -> Family:
    place = f"entry point {value!r} of {ENTRY_POINTS}"
    config_class = getattr(model_class, "config_class", None)
    if config_class is None:
        raise ConfigurationError(f"{place} has no config_class")
    if config_class.model_type != name:
        raise ConfigurationError(
            f"{place} has a config_class of model_type {config_class.model_type!r}",
            hint=f"name the entry point so, or set model_type: str = {name!r}",
        )
    about = (model_class.__doc__ or name).strip().partition("\n")[0]
    presets = {
        f"{name}:{size}": Preset("", None, about, "experimental", rank=100)
        for size in config_class.PRESETS
    }
    return Family(
        name=name,
        title=name,
        config_class=config_class,
        load_model=lambda: model_class,
        presets=presets,
        prefixes=(name,),
        maturity="experimental",
        observation="image" if len(config_class.obs_shape) == 3 else "vector",
        action_types=getattr(config_class, "ACTION_TYPES", Family.action_types),
    )


def import_file(family: str, file: Path, directory: Path, overrides: dict[str, Any]) -> Any:
    """Read an official checkpoint and save it as a model folder, which must not exist yet.

    Args:
        family: as `models import --family` names it.
        overrides: configuration fields that the file does not contain, such as `horizon`.

    Raises:
        ConfigurationError: for an unknown family, a wrong override, or a folder with content.
        CheckpointError: naming what is wrong in the file.
    """
    importers = {row.import_name: row.importer for row in our_families().values() if row.importer}
    if family not in importers:
        raise ConfigurationError(
            f"there is no family {family!r}: the values are {', '.join(sorted(importers))}",
            hint=did_you_mean(family, importers),
        )
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigurationError(
            "this folder is not empty", where=str(directory), hint="choose a new folder with --to"
        )
    return attribute(importers[family])(file, directory, **overrides)


def export_file(directory: Path, file: Path) -> None:
    """Write a saved model as a file that the family's official code loads."""
    row = family_of(WorldModelConfig.load(directory))
    if row.exporter is None:
        raise CapabilityError(f"{row.title} models cannot be exported", where=str(directory))
    if file.exists():
        raise ConfigurationError("this file exists already", where=str(file))
    attribute(row.exporter)(directory, file)
