"""What a run writes into its manifest when it begins, and what it keeps of an earlier part."""

from __future__ import annotations

import copy
import sys
from dataclasses import asdict
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
from worldflux.training.machine import resolve_device

from . import manifest as manifests
from .loader import Project
from .provenance import environment_identity, git_state
from .resources import Needs
from .run_data import collection_schedule

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
_SURROUNDINGS = ("machine", "software", "git")  # a later session tells them where they differ
_LISTS: dict[str, Any] = {"env_restarts": list, "degraded_modes": list, "sessions": list}


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
    identity = environment_identity(project.root, spec.env_id)
    device = resolve_device(config.device)
    session = {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "changed": {},
        "from_update": 0,
        "started_at": clock.now(),
        "device": str(device),
        "machine": {**manifests.machine(), "gpu": _gpu_name(device)},
        "software": manifests.software(),
        "git": git_state(project.root),
    }
    return {
        "schema_version": manifests.SCHEMA_VERSION,
        "status": "running",
        "project_name": sections.project_name,
        "data_mode": data_mode,
        "offline_data": None if offline is None else offline.summary(),
        "needs": needs.to_dict(),
        "degraded_modes": degraded,
        "model": resolve(sections.model),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "model_config": model_config,
        "training_config": training_config,
        "resolved_training": vars(config.resolve(model.config)),
        "settings": settings_of(project),
        "configuration": _configuration(project, model, data_mode, offline),
        "environment": {
            **identity,
            "kwargs": arguments,
            "time_limit": spec.time_limit,
            "frames_per_env_step": frames_per_step(identity["id"], arguments.get("action_repeat")),
        },
        "env_restarts": restarts,
        "seeds": {"run": config.seed, "evaluation": config.seed + 1_000_000},
        "device": str(device),
        "threads": torch.get_num_threads(),
        "global_step": 0,
        "env_steps": 0,
        "best": None,
        "final": None,
        "stopped_early": False,
        "random_return_mean": random_return_mean,
        "started_at": session["started_at"],
        "wall_s": 0.0,
        **{name: session[name] for name in ("command", *_SURROUNDINGS)},
        "sessions": [session],
    }


def settings_of(project: Project) -> dict[str, Any]:
    """What the user set, wherever it was set: what a resumed run is built from again.

    The output folder is no part of it, so that a run can be moved.
    """
    settings = copy.deepcopy(project.document.data)
    settings.get("training", {}).pop("output_dir", None)
    return settings


def _configuration(
    project: Project, model: WorldModel, data_mode: str, offline: OfflineData | None
) -> dict[str, Any]:
    """The other sections, beside `model_config` and `training_config`, as the run uses them."""
    sections = asdict(project.sections)
    for told_elsewhere in ("project_name", "environment", "environment_kwargs", "model"):
        del sections[told_elsewhere]
    del sections["architecture"], sections["training"]
    if offline is not None:
        recorded = {name: v for name, v in offline.summary().items() if name != "where"}
        sections["data"] |= {"recorded": recorded}
    if data_mode == "online":
        schedule = collection_schedule(project, model)
        sections["online_collection"] |= {
            "warmup_transitions": schedule.warmup_transitions,
            "pretrain": schedule.pretrain_updates > 0,
            "collect_steps_per_update": schedule.steps_per_update,
        }
    return sections


def _gpu_name(device: torch.device) -> str | None:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def carry_over(earlier: dict[str, Any], content: dict[str, Any]) -> None:
    """Into the manifest of a resumed run: what its earlier manifest counted and told.

    Raises:
        RunFolderError: when that is not what a run writes.
    """
    for name, kind in {**_COUNTED, **_TOLD, **_LISTS}.items():
        if name in earlier and not isinstance(earlier[name], kind):
            raise RunFolderError(f"run_manifest.json is damaged: {name} is {earlier[name]!r:.80}")
    for told in earlier.get("sessions", []):
        if not _is_session(told):
            raise RunFolderError(f"run_manifest.json is damaged: a session is {told!r:.80}")
    for name in _COUNTED:
        content[name] = earlier.get(name, content[name])
    content["env_restarts"][:0] = earlier.get("env_restarts", [])
    content.update({name: earlier[name] for name in _TOLD if name in earlier})
    degraded = sorted({*map(str, earlier.get("degraded_modes", [])), *content["degraded_modes"]})
    content["degraded_modes"] = degraded
    (session,) = content["sessions"]
    sessions = earlier.get("sessions") or [_only_session(earlier)]
    if sessions[-1].get("status") == "running":  # and nobody holds the folder
        sessions[-1]["status"] = "killed"
    known: dict[str, Any] = {}
    for told in sessions:
        known |= {name: told[name] for name in _SURROUNDINGS if name in told}
    for name in _SURROUNDINGS:
        if name in known and known[name] == session[name]:
            del session[name]
    content["sessions"] = [*sessions, session]


def _is_session(told: Any) -> bool:
    if not isinstance(told, dict) or not isinstance(told.get("from_update"), int):
        return False
    changed = told.get("changed")
    return isinstance(changed, dict) and all(
        isinstance(pair, list) and len(pair) == 2 for pair in changed.values()
    )


def _only_session(earlier: dict[str, Any]) -> dict[str, Any]:
    """The sessions of a manifest that kept none: what it tells of them, as one."""
    return {
        "command": earlier.get("command"),
        "changed": {},
        "from_update": 0,
        "to_update": earlier.get("global_step"),
        "started_at": earlier.get("started_at"),
        "ended_at": earlier.get("updated_at"),
        "status": earlier.get("status"),
        **{name: earlier[name] for name in ("device", *_SURROUNDINGS) if name in earlier},
    }
