"""`run_manifest.json`: what ran, on what data, how it ended; valid JSON at every moment."""

from __future__ import annotations

import copy
import json
import os
import platform
import shlex
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldflux import alpha, clock
from worldflux.configuration_hash import configuration_hash
from worldflux.errors import RunFolderError
from worldflux.files import write_json
from worldflux.layout import CHECKPOINTS, CONFIG_FILE, RUN_MANIFEST, SAVED_MODEL_USE
from worldflux.progress import counted

from .document import shown_path
from .provenance import environment_identity, git_state

if TYPE_CHECKING:
    from .loader import Project
    from .plan import RunPlan

SCHEMA_VERSION = 1
_MAX_BYTES = 16 << 20
_PACKAGES = ("worldflux", "torch", "numpy", "gymnasium", "safetensors")
_SIMULATORS = (
    *("mujoco", "dm-control", "ale-py", "minari", "box2d", "box2d-py", "pygame", "minigrid"),
    *("gymnasium-robotics", "metaworld", "highway-env", "pybullet", "crafter", "shimmy"),
)
# What a resumed run takes over from its earlier manifest: name -> type.
_NUMBER, _ENTRY = (int, float), (dict, type(None))
_COUNTED: dict[str, Any] = {
    "global_step": int,
    "env_steps": int,
    "best": _ENTRY,
    "final": _ENTRY,
    "start": _ENTRY,
    "started_at": _NUMBER,
    "wall_s": _NUMBER,
    "cpu_s": _NUMBER,
    "spent_s": dict,
}
_REPORTED: dict[str, Any] = {"env_resume": str, "warnings": list, "rollbacks": list}
_LISTS: dict[str, Any] = {"env_restarts": list, "degraded_modes": list, "sessions": list}
# Tables of a manifest, where it has them; what reads it goes into them.
_TABLES = (
    *("configuration", "configuration.logging", "configuration.online_collection"),
    *("environment", "model_config", "training_config", "resolved_training", "settings", "seeds"),
)
_SURROUNDINGS = ("machine", "software", "git")  # a later session has them where they differ


class RunManifest:
    """The manifest of one run folder; every change is written at once and whole.

    Nothing is written before `begin`, so that a start that is refused leaves the folder as it was.
    """

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.path = folder / RUN_MANIFEST
        self.content = content
        self.begun = False

    def begin(self, at_update: int = 0) -> None:
        """Write the file, from now on with every update; the run begins at this gradient update."""
        if "sessions" in self.content:
            self.content["sessions"][-1]["from_update"] = at_update
        self.begun = True
        self.update(config_hash=configuration_hash(self.content))

    def update(self, **changes: Any) -> None:
        """Change entries and, once begun, write the file."""
        self.content.update(changes)
        self.content["run_classification"] = classification(self.content)
        self.content["updated_at"] = clock.now()
        if self.content.get("sessions"):
            is_over = self.content["status"] != "running"
            self.content["sessions"][-1].update(
                status=self.content["status"],
                to_update=self.content["global_step"],
                ended_at=self.content["updated_at"] if is_over else None,
            )
        if self.begun:
            write_json(self.path, self.content)

    def append(self, name: str, entry: Any, most: int | None = None) -> None:
        """Append to a list, of which the newest `most` stay; written with the next update."""
        entries = [*self.content.get(name, []), entry]
        self.content[name] = entries if most is None else entries[-most:]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder."""
    path = folder / RUN_MANIFEST
    if not path.is_file():
        message = "no run here: run_manifest.json is missing"
        hint = "train first (worldflux train), or name the run with --target DIR"
        inside = sorted(folder.glob(f"*/{RUN_MANIFEST}"))
        if inside:
            message = f"not a run, but a folder of {counted(len(inside), 'run')}"
            hint = f"name one: --target {shlex.quote(shown_path(inside[0].parent))}"
        elif (folder / CONFIG_FILE).is_file():
            message = "a saved model, not a run: it names no environment to play in"
            hint = SAVED_MODEL_USE.format(path=folder)
            run = folder.parent.parent
            if folder.parent.name == CHECKPOINTS and holds_a_run(run):
                message = "a checkpoint, not a run"
                hint = f"name its run: --target {shlex.quote(shown_path(run))}"
        raise RunFolderError(message, where=str(folder), hint=hint)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("larger than 16 MiB")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(f"run_manifest.json is damaged: {error}", where=str(path)) from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version == alpha.MANIFEST_VERSION:
        hint = alpha.TRAIN_AGAIN
        raise RunFolderError(f"{alpha.ALPHA} wrote this run", where=str(path), hint=hint)
    if version != SCHEMA_VERSION:
        raise RunFolderError("run_manifest.json is of another version", where=str(path))
    return content


def sound_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder whose tables are tables; verification reads any, and judges."""
    content = read_manifest(folder)
    for name in _TABLES:
        above, _, key = name.rpartition(".")
        table = content.get(above, {}) if above else content
        if not isinstance(table.get(key, {}), dict):
            message = f"run_manifest.json is damaged: {name} is {table[key]!r:.80}"
            raise RunFolderError(message, where=str(folder / RUN_MANIFEST))
    return content


def holds_a_run(folder: Path) -> bool:
    """Whether a folder has the manifest of a run."""
    return (folder / RUN_MANIFEST).is_file()


# ------------------------------------------------------------------ what a run is called


def classification(manifest: dict[str, Any]) -> str:
    """A run counts as training only when it learned from real data, with nothing degraded.

    Online, the agent itself must have acted: random steps of the warm-up alone do not count.
    """
    mode = manifest["data_mode"]
    if mode not in ("online", "offline", "offline_online") or manifest["degraded_modes"]:
        return "contract_smoke"
    if "configuration" in manifest:  # manifests of earlier versions do not have the warm-up
        warmup = manifest["configuration"]["online_collection"]["warmup_transitions"] or 0
        acted = mode != "online" or manifest["env_steps"] > warmup
        if not acted or manifest["global_step"] < 1:
            return "contract_smoke"
    return "meaningful_local_training"


def machine() -> dict[str, Any]:
    """The machine in words: system, processor, cores. Never names, users or variables."""
    return {
        "system": platform.system(),
        "release": platform.release(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
    }


def software() -> dict[str, str]:
    """Versions of Python, of the packages that decide the numbers, and of simulators."""
    versions = {"python": sys.version.split()[0]}
    for name in (*_PACKAGES, *_SIMULATORS):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name in _PACKAGES:
                versions[name] = "not installed as a package"
    return versions


# ------------------------------------------------------------------ what a run begins with


def first_content(plan: RunPlan, earlier: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a run that begins, or that continues the run of the manifest `earlier`."""
    from worldflux.core.learning import learned_count
    from worldflux.envs.namespaces import frames_per_step
    from worldflux.envs.space_record import space_record

    project, config, sections = plan.project, plan.config, plan.sections
    arguments = dict(sections.environment_kwargs)
    model_config = plan.model.config.to_dict()
    training_config = {**config.to_dict(), "output_dir": Path(config.output_dir).name}
    for described in (model_config, training_config):
        del described["set_fields"]
    identity = environment_identity(project.root, plan.spec.env_id)
    session = _session(plan)
    content = {
        "schema_version": SCHEMA_VERSION,
        "status": "running",
        "project_name": sections.project_name,
        "data_mode": plan.data_mode,
        "offline_data": None if plan.offline is None else plan.offline.summary(),
        "needs": None,
        "precision": None,  # until it is known (`PrecisionRecorder`)
        "degraded_modes": plan.degraded,
        "model": project.model_name,
        "start": plan.start,
        **({} if plan.tasks is None else {"tasks": plan.tasks.to_dict()}),
        "parameters": learned_count(plan.model),
        "model_config": model_config,
        "training_config": training_config,
        "resolved_training": vars(config.resolve(plan.model.config)),
        "settings": _settings_of(project),
        "configuration": _configuration(plan),
        "environment": {
            **identity,
            "kwargs": arguments,
            "time_limit": plan.spec.time_limit,
            "frames_per_env_step": frames_per_step(identity["id"], arguments.get("action_repeat")),
        },
        "spaces": {
            "observation": space_record(plan.spaces.observation),
            "action": space_record(plan.spaces.action),
        },
        "env_restarts": [],
        "seeds": {"run": config.seed, "evaluation": config.seed + 1_000_000},
        "device": session["device"],
        "threads": session["threads"],
        "global_step": 0,
        "env_steps": 0,
        "best": None,
        "final": None,
        "stopped_early": False,
        "random_return_mean": None,
        "started_at": session["started_at"],
        "wall_s": 0.0,
        "cpu_s": 0.0,
        "spent_s": {},
        **{name: session[name] for name in ("command", *_SURROUNDINGS)},
        "sessions": [session],
    }
    if earlier:
        _carry_over(earlier, content)
    return content


def typed_command() -> list[str]:
    """What started this process, so that it can be typed again."""
    program = Path(sys.argv[0]).name
    start = ["python", "-m", "worldflux"] if program == "__main__.py" else [program]
    return [*start, *sys.argv[1:]]


def _session(plan: RunPlan) -> dict[str, Any]:
    """This start of the run."""
    import torch

    from worldflux.training.device import resolve_device

    device = resolve_device(plan.config.device)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    session = {
        "command": typed_command(),
        "changed": {key: list(pair) for key, pair in plan.changed.items()},
        "from_update": 0,
        "started_at": clock.now(),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "machine": {**machine(), "gpu": gpu},
        "software": software(),
        "git": git_state(plan.project.root),
    }
    return session


def _settings_of(project: Project) -> dict[str, Any]:
    """What the user set, wherever: a resumed run is built from it, in whatever folder it is."""
    settings = copy.deepcopy(project.document.data)
    settings.get("training", {}).pop("output_dir", None)
    settings.pop("sweep", None)  # of many runs; its storage may hold a password
    return settings


def _configuration(plan: RunPlan) -> dict[str, Any]:
    """The other sections as the run uses them."""
    sections = asdict(plan.sections)
    recorded_elsewhere = ("project_name", "environment", "environment_kwargs", "model")
    for name in (*recorded_elsewhere, "architecture", "training", "sweep"):
        del sections[name]
    if plan.sections.distributed.shards == 1:  # the configuration is as before there were any
        del sections["distributed"]
    if plan.offline is not None:
        recorded = {name: v for name, v in plan.offline.summary().items() if name != "where"}
        sections["data"] |= {"recorded": recorded}
    schedule = plan.schedule
    if schedule is not None:
        sections["online_collection"] |= {
            "warmup_transitions": schedule.warmup_transitions,
            "pretrain": schedule.pretrain_updates > 0,
            "collect_steps_per_update": schedule.steps_per_update,
        }
    return sections


def _carry_over(earlier: dict[str, Any], content: dict[str, Any]) -> None:
    """Into the manifest of a resumed run: what its earlier manifest counted and reported."""
    for name, kind in {**_COUNTED, **_REPORTED, **_LISTS}.items():
        if name in earlier and not _is_sound(earlier[name], kind):
            raise RunFolderError(f"run_manifest.json is damaged: {name} is {earlier[name]!r:.80}")
    for session in earlier.get("sessions", []):
        if not _is_session(session):
            raise RunFolderError(f"run_manifest.json is damaged: a session is {session!r:.80}")
    carried = (*_COUNTED, *_REPORTED, "env_restarts")
    content |= {name: earlier[name] for name in carried if name in earlier}
    if isinstance(earlier.get("threads"), int):  # with which it began; a session has its own
        content["threads"] = earlier["threads"]
    if content["offline_data"]:  # counted when it was copied, which a resumed run need not
        content["offline_data"] = {**(earlier.get("offline_data") or {}), **content["offline_data"]}
    degraded = {*map(str, earlier.get("degraded_modes", [])), *content["degraded_modes"]}
    content["degraded_modes"] = sorted(degraded)
    (new,) = content["sessions"]
    sessions = earlier.get("sessions") or [_only_session(earlier)]
    if sessions[-1].get("status") == "running":  # and nobody holds the folder
        sessions[-1]["status"] = "killed"
    known: dict[str, Any] = {}
    for session in sessions:
        known |= {name: session[name] for name in _SURROUNDINGS if name in session}
    for name in _SURROUNDINGS:
        if name in known and known[name] == new[name]:
            del new[name]
    content["sessions"] = [*sessions, new]


def _is_sound(value: Any, kind: Any) -> bool:
    """Whether a value is of its kind, and its numbers are finite and not negative."""
    numbers = value.values() if isinstance(value, dict) and kind is dict else [value]
    return isinstance(value, kind) and all(
        isinstance(number, _NUMBER) and 0 <= number < 1e300
        for number in numbers
        if kind in (dict, _NUMBER)
    )


def _is_session(session: Any) -> bool:
    if not isinstance(session, dict) or not isinstance(session.get("from_update"), int):
        return False
    changed = session.get("changed")
    return isinstance(changed, dict) and all(
        isinstance(pair, list) and len(pair) == 2 for pair in changed.values()
    )


def _only_session(earlier: dict[str, Any]) -> dict[str, Any]:
    """What a manifest without sessions reports, as one session."""
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
