"""Ways to spoil a run so that its files still hold: for tests and the study of verify.

tampering.py train PROJECT SEED [UPDATES]    train; with UPDATES that many, on shuffled actions
tampering.py KIND OUTPUTS                    spoil a finished run
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from worldflux.core.saved_model import save_model
from worldflux.core.world_model import WorldModel
from worldflux.factory import build_model
from worldflux.files import sha256_of
from worldflux.project import run as project_run
from worldflux.project.open_run import open_run
from worldflux.training.checkpoints import MANIFEST, CheckpointStore


def untrained(outputs: Path) -> None:
    """Fresh weights in every checkpoint, hashed again."""
    _change_models(outputs, lambda model: build_model(model.config))


def biased_reward(outputs: Path) -> None:
    """A reward head whose every prediction lies one unit of symlog space higher."""

    def bias(model: WorldModel) -> WorldModel:
        config: Any = model.config
        bins = round((config.num_bins - 1) / (config.vmax - config.vmin))
        layer: Any = model.networks.reward.output  # type: ignore[union-attr]
        with torch.no_grad():
            layer.weight.copy_(layer.weight.roll(bins, 0))
            layer.bias.copy_(layer.bias.roll(bins, 0))
        return model

    _change_models(outputs, bias)


def flipped_bit(outputs: Path) -> None:
    """One bit of the newest weight file."""
    store = CheckpointStore(outputs / "checkpoints")
    file = store.path(store.steps()[-1]) / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def other_claim(outputs: Path) -> None:
    """A manifest that claims another environment."""
    path = outputs / "run_manifest.json"
    content = json.loads(path.read_text())
    content["environment"] = {"id": "MountainCarContinuous-v0", "time_limit": 999}
    path.write_text(json.dumps(content))


def train(project: Path, seed: int, shuffled_updates: int | None) -> None:
    """Train a project as it is; or for some updates, every batch with the actions of other rows."""
    overrides = [f"training.seed={seed}"]
    if shuffled_updates is not None:
        shuffle_sampled_actions()
        overrides += [f"training.total_steps={shuffled_updates}", "gameplay.enabled=false"]
    project_run.train_project(project, overrides=overrides, say=lambda line: None)


def shuffle_sampled_actions() -> None:
    from worldflux.data import sources

    original = sources.OnlineSource.sample

    def sample(self: Any, *args: Any, **kwargs: Any) -> Any:
        batch = original(self, *args, **kwargs)
        flat = batch.actions.flatten(0, 1)
        batch.actions = flat[torch.randperm(len(flat))].view_as(batch.actions)
        return batch

    sources.OnlineSource.sample = sample  # type: ignore[method-assign]


def _change_models(outputs: Path, change: Callable[[WorldModel], WorldModel]) -> None:
    """Rewrite every checkpoint with another model, so that all hashes match."""
    store = CheckpointStore(outputs / "checkpoints")
    for step in store.steps():
        folder = store.path(step)
        model = change(open_run(outputs, str(folder.absolute())).model)

        def write(place: Path, folder: Path = folder, model: WorldModel = model) -> None:
            for file in folder.iterdir():
                if file.name != MANIFEST:
                    shutil.copyfile(file, place / file.name)
            save_model(model, place)

        store.save(step, write, {"model": model.config.model_name})
    manifest = outputs / "run_manifest.json"
    content = json.loads(manifest.read_text())
    final = outputs / "checkpoints" / content["final_checkpoint"] / "model.safetensors"
    content["weights_sha256"] = sha256_of(final)
    manifest.write_text(json.dumps(content))


KINDS = {
    "untrained": untrained,
    "biased reward": biased_reward,
    "flipped bit": flipped_bit,
    "other claim": other_claim,
}

if __name__ == "__main__":
    if sys.argv[1] == "train":
        updates = int(sys.argv[4]) if sys.argv[4:] else None
        train(Path(sys.argv[2]), int(sys.argv[3]), updates)
    else:
        KINDS[sys.argv[1]](Path(sys.argv[2]))
