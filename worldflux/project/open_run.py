"""Open a finished (or running) run folder: its manifest, a checkpoint's model, its environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldflux.core.config import WorldModelConfig
from worldflux.core.saved_model import CONFIG_FILE, WEIGHTS_FILE, load_weights
from worldflux.core.world_model import WorldModel
from worldflux.envs.vector import VectorEnvironment
from worldflux.errors import ConfigurationError
from worldflux.factory import build_model, require_weights_of
from worldflux.training.run_checkpoint import BEST, checkpoint_of

from .environments import environment_maker, vector_environment
from .loader import load_project
from .manifest import read_manifest


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
    """Open a run folder with one of its checkpoints (see `checkpoint_of`).

    Raises:
        RunFolderError: when there is no run.
        CheckpointError: when the checkpoint is missing or damaged.
        ConfigurationError: when its environment is not the one that the manifest names.
    """
    manifest = read_manifest(folder)
    path = checkpoint_of(folder, checkpoint)
    config = WorldModelConfig.load(path / CONFIG_FILE)
    require_weights_of(config, path)
    model = build_model(config)
    load_weights(model, path / WEIGHTS_FILE)
    return OpenRun(folder, manifest, path, model.eval())


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
