"""What a run writes into its manifest when it begins, and what it keeps of an earlier part."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from worldflux import clock
from worldflux.core.world_model import WorldModel
from worldflux.data.offline import OfflineData
from worldflux.envs.make import frames_per_step
from worldflux.envs.spec import EnvironmentSpec
from worldflux.errors import RunFolderError
from worldflux.models.catalog import resolve
from worldflux.training.config import TrainingConfig
from worldflux.training.devices import resolve_device

from . import manifest as manifests
from .loader import Project
from .resources import Needs

_NUMBER, _ENTRY = (int, float), (dict, type(None))
_COUNTED: dict[str, Any] = {
    "global_step": int,
    "env_steps": int,
    "best": _ENTRY,
    "final": _ENTRY,
    "started_at": _NUMBER,
    "wall_s": _NUMBER,
}
_TOLD: dict[str, Any] = {"env_resume": str, "warnings": list, "rollbacks": list}
_LISTS: dict[str, Any] = {"env_restarts": list, "degraded_modes": list}


def manifest_content(
    project: Project,
    config: TrainingConfig,
    spec: EnvironmentSpec,
    model: WorldModel,
    needs: Needs,
    offline: OfflineData | None,
    *,
    data_mode: str,
    degraded: list[str],
    restarts: list[str],
    random_return_mean: float | None,
) -> dict[str, Any]:
    """The manifest of a run that begins: what runs, on what data, on what machine.

    Args:
        restarts: of environments; the list itself, which grows as the run goes.
        random_return_mean: of a random policy in the run's evaluation episodes, if there are any.
    """
    sections, arguments = project.sections, dict(project.sections.environment_kwargs)
    model_config = model.config.to_dict()
    training_config = {**config.to_dict(), "output_dir": Path(config.output_dir).name}
    for described in (model_config, training_config):
        del described["set_fields"]
    return {
        "schema_version": manifests.SCHEMA_VERSION,
        "status": "running",
        "project_name": sections.project_name,
        "run_classification": manifests.classification(data_mode, degraded),
        "data_mode": data_mode,
        "offline_data": None if offline is None else offline.summary(),
        "needs": needs.to_dict(),
        "degraded_modes": degraded,
        "model": resolve(sections.model),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "config_hash": manifests.config_hash(model_config, training_config),
        "model_config": model_config,
        "training_config": training_config,
        "resolved_training": vars(config.resolve(model.config)),
        "environment": {
            "id": spec.env_id,
            "kwargs": arguments,
            "time_limit": spec.time_limit,
            "frames_per_env_step": frames_per_step(spec.env_id, arguments.get("action_repeat")),
        },
        "env_restarts": restarts,
        "seeds": {"run": config.seed, "evaluation": config.seed + 1_000_000},
        "device": str(resolve_device(config.device)),
        "threads": torch.get_num_threads(),
        "global_step": 0,
        "env_steps": 0,
        "best": None,
        "final": None,
        "stopped_early": False,
        "random_return_mean": random_return_mean,
        "started_at": clock.now(),
        "wall_s": 0.0,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "machine": manifests.machine(),
        "software": manifests.software(),
    }


def carry_over(earlier: dict[str, Any], content: dict[str, Any]) -> None:
    """Into the manifest of a resumed run: what its earlier manifest counted and told.

    Raises:
        RunFolderError: when that is not what a run writes.
    """
    for name, kind in {**_COUNTED, **_TOLD, **_LISTS}.items():
        if name in earlier and not isinstance(earlier[name], kind):
            raise RunFolderError(f"run_manifest.json is damaged: {name} is {earlier[name]!r:.80}")
    for name in _COUNTED:
        content[name] = earlier.get(name, content[name])
    content["env_restarts"][:0] = earlier.get("env_restarts", [])
    content.update({name: earlier[name] for name in _TOLD if name in earlier})
    degraded = sorted({*map(str, earlier.get("degraded_modes", [])), *content["degraded_modes"]})
    content["degraded_modes"] = degraded
    content["run_classification"] = manifests.classification(content["data_mode"], degraded)
