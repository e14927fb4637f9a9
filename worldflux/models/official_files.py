"""Official checkpoints in and out of saved-model folders, for any family that offers it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldflux.core.config import WorldModelConfig
from worldflux.errors import CapabilityError, ConfigurationError, did_you_mean

from .registry import attribute, families, family_of

if TYPE_CHECKING:
    from worldflux.core.world_model import WorldModel


def import_file(family: str, file: Path, directory: Path, overrides: dict[str, Any]) -> WorldModel:
    """Read an official checkpoint and save it as a model folder, which must not exist yet.

    Args:
        overrides: configuration fields that the file does not tell, such as `horizon`.

    Raises:
        ConfigurationError: for an unknown family, a wrong override, or a folder with content.
        CheckpointError: saying what in the file is not as it must be.
    """
    importers = {row.import_name: row.importer for row in families().values() if row.importer}
    importer = importers.get(family)
    if importer is None:
        raise ConfigurationError(
            f"there is no family {family!r}: the values are {', '.join(sorted(importers))}",
            hint=did_you_mean(family, importers),
        )
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigurationError(
            "this folder is not empty", where=str(directory), hint="choose a new folder with --to"
        )
    model: WorldModel = attribute(importer)(file, directory, **overrides)
    return model


def export_file(directory: Path, file: Path) -> None:
    """Write a saved model as a file that the family's official code loads.

    Raises:
        CapabilityError: for a family whose official code has no such file.
        ConfigurationError: when the file exists already, or the folder holds no configuration.
        CheckpointError: when the saved model is damaged.
    """
    row = family_of(WorldModelConfig.load(directory))
    if row.exporter is None:
        raise CapabilityError(f"{row.title} models cannot be exported", where=str(directory))
    if file.exists():
        raise ConfigurationError("this file exists already", where=str(file))
    attribute(row.exporter)(directory, file)
