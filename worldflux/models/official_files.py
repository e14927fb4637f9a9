"""Official checkpoints in and out of saved-model folders, for any family that offers it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldflux.core.config import DreamerV3Config, TDMPC2Config, WorldModelConfig
from worldflux.errors import CapabilityError, ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from worldflux.core.world_model import WorldModel

IMPORTERS = ("tdmpc2", "dreamerv3")


def import_file(family: str, file: Path, directory: Path, overrides: dict[str, Any]) -> WorldModel:
    """Read an official checkpoint and save it as a model folder, which must not exist yet.

    Args:
        overrides: configuration fields that the file does not tell, such as `horizon`.

    Raises:
        ConfigurationError: for an unknown family, a wrong override, or a folder with content.
        CheckpointError: saying what in the file is not as it must be.
    """
    if family not in IMPORTERS:
        raise ConfigurationError(
            f"there is no family {family!r}: the values are {', '.join(IMPORTERS)}",
            hint=did_you_mean(family, IMPORTERS),
        )
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigurationError(
            "this folder is not empty", where=str(directory), hint="choose a new folder with --to"
        )
    if family == "tdmpc2":
        from worldflux.models.tdmpc2.checkpoint_import import import_checkpoint

        return import_checkpoint(file, directory, **overrides)
    from worldflux.models.dreamerv3.checkpoint_import import import_official

    model = import_official(file, **overrides)
    model.save_pretrained(directory)
    return model


def export_file(directory: Path, file: Path) -> None:
    """Write a saved TD-MPC2 model as a file that the official code loads.

    Raises:
        CapabilityError: for a family whose official code has no such file.
        ConfigurationError: when the file exists already, or the folder holds no configuration.
        CheckpointError: when the saved model is damaged.
    """
    config = WorldModelConfig.load(directory)
    if isinstance(config, DreamerV3Config):
        raise CapabilityError("DreamerV3 models cannot be exported", where=str(directory))
    assert isinstance(config, TDMPC2Config), f"no exporter for {type(config).__name__}"
    if file.exists():
        raise ConfigurationError("this file exists already", where=str(file))
    from worldflux.models.tdmpc2.checkpoint_import import export_checkpoint

    export_checkpoint(directory, file)
