"""Open a finished (or running) run folder: its manifest, a checkpoint's model, its environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldflux.core.config import WorldModelConfig
from worldflux.core.saved_model import CONFIG_FILE, WEIGHTS_FILE, load_weights
from worldflux.core.world_model import WorldModel
from worldflux.envs.vector import VectorEnvironment
from worldflux.errors import CheckpointError, ConfigurationError
from worldflux.factory import build_model, require_weights_of
from worldflux.training.checkpoints import CheckpointStore, check

from .environments import environment_maker, vector_environment
from .loader import load_project
from .manifest import read_manifest

BEST, LAST = "best", "last"


@dataclass(frozen=True)
class OpenRun:
    """A run folder with one of its checkpoints opened."""

    folder: Path
    manifest: dict[str, Any]
    checkpoint: Path
    model: WorldModel

    def environment(self, num_envs: int, *, render_first: bool = False) -> VectorEnvironment:
        """N copies of the environment that the run learned in."""
        environment = self.manifest["environment"]
        env_id, arguments = str(environment["id"]), environment.get("kwargs", {})
        make = environment_maker(project_root(self.folder), env_id, arguments)
        return vector_environment(make, env_id, num_envs, render_first=render_first)


def open_run(folder: Path, checkpoint: str = BEST) -> OpenRun:
    """Open a run folder with its best checkpoint, its last one, or one named by its folder.

    Raises:
        RunFolderError: when there is no run.
        CheckpointError: when the checkpoint is missing or damaged.
        ConfigurationError: when its environment is not the one that the manifest names.
    """
    manifest = read_manifest(folder)
    path = checkpoint_folder(folder, manifest, checkpoint)
    check(path)
    config = WorldModelConfig.load(path / CONFIG_FILE)
    require_weights_of(config, path)
    model = build_model(config)
    load_weights(model, path / WEIGHTS_FILE)
    return OpenRun(folder, manifest, path, model.eval())


def checkpoint_folder(folder: Path, manifest: dict[str, Any], checkpoint: str) -> Path:
    """The folder that "best", "last" or a path means for this run.

    Raises:
        CheckpointError: when the run has no such checkpoint.
    """
    store = CheckpointStore(folder / "checkpoints")
    if checkpoint == BEST and manifest.get("best"):
        try:
            return store.path(int(manifest["best"]["step"]))
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(
                "run_manifest.json names no step as the best", where=str(folder)
            ) from None
    if checkpoint in (BEST, LAST):
        path, problems = store.newest_valid()
        if path is None:
            found = "; ".join(problems) or "none was written yet"
            raise CheckpointError(f"the run has no valid checkpoint: {found}", where=str(folder))
        return path
    path = Path(checkpoint)
    return path if path.is_absolute() else folder / path


def project_root(folder: Path) -> Path | None:
    """The project that a run folder lies in: the nearest parent whose worldflux.toml agrees."""
    name = read_manifest(folder).get("project_name")
    for parent in folder.absolute().parents:
        if (parent / "worldflux.toml").is_file():
            try:
                project = load_project(parent)
            except ConfigurationError:
                return None  # the run is read with its own manifest, not with a broken project
            return parent if project.sections.project_name == name else None
    return None
