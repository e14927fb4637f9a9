"""What a resumed run continues with: the settings it recorded, and what was changed on purpose.

Settings of worldflux.toml and of the environment that differ from the recorded ones are reported
and not taken; those given explicitly (--set, --steps, --device) are taken where a run may change
them, and refused where not (`key_roles.FIXED`). Nothing here writes a file.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from worldflux.configuration_hash import flattened
from worldflux.core.config import WorldModelConfig
from worldflux.envs.spec import EnvironmentSpec
from worldflux.errors import CheckpointError, ConfigurationError
from worldflux.files import sha256_of
from worldflux.layout import CHECKPOINTS, CONFIG_FILE, RUN_MANIFEST
from worldflux.training.checkpoints import CheckpointStore, read_manifest

from .document import shown_path
from .key_roles import why_fixed
from .loader import Project, load_project
from .processes import nproc_option, started_by
from .provenance import environment_identity

Changes = dict[str, tuple[Any, Any]]
_OUTPUT_DIR = ("training", "output_dir")
# Not set, these follow the family's recipe and not the default of TrainingConfig.
_OF_RECIPE = {"batch_size", "sequence_length", "learning_rate", "grad_clip", "weight_decay"}
_MOST_SHOWN = 8


@dataclass(frozen=True)
class Resumption:
    """A run that is taken up again.

    Attributes:
        project: with the settings that the run continues with.
        changed: `section.key` -> (recorded, now), of the settings that were changed on purpose.
        model_config: of the newest checkpoint whose configuration holds; None without one.
        reached: the update of that checkpoint.
    """

    project: Project
    changed: Changes = field(default_factory=dict)
    model_config: WorldModelConfig | None = None
    reached: int = 0


def resumed(
    current: Project,
    folder: Path,
    earlier: Mapping[str, Any],
    overrides: Sequence[str],
    say: Callable[[str], None],
) -> Resumption:
    """The run in a folder, as it continues.

    Args:
        current: the project as its file and the environment have it now.
        earlier: the run's manifest.
        overrides: settings given explicitly.
    """
    settings = earlier.get("settings")
    if isinstance(settings, dict):
        source = str(folder / RUN_MANIFEST)
        recorded = load_project(current, settings=settings, settings_from=source)
        # First, because another family knows other keys.
        models = [t.partition("=")[2].strip("\"' ") for t in overrides if t.startswith("model=")]
        if models and models[-1] != settings.get("model"):
            _refuse(folder, {"model": (settings.get("model"), models[-1])})
        project = load_project(current, overrides, settings=settings, settings_from=source)
        changed = _differences(recorded, project)
        ignored = _differences(recorded, current).items()
        _report_ignored({k: pair for k, pair in ignored if k not in changed}, current, say)
    else:
        project = load_project(current, overrides)
        changed = _differences_from_old(earlier, project)
        say(
            "warning: this run was started by an earlier version, which did not record [data], "
            "[online_collection], [evaluation] and dataset.py: worldflux.toml as it is now is used"
        )
    changed |= _changed_code(earlier, project, say)
    # Those of [architecture] are compared with the model itself, where defaults are known.
    changed = {k: pair for k, pair in changed.items() if not k.startswith("architecture.")}
    _refuse(folder, {key: pair for key, pair in changed.items() if why_fixed(key)})
    reached, config = _newest_configuration(CheckpointStore(folder / CHECKPOINTS))
    total = project.training_config().total_steps
    if total < reached:
        raise ConfigurationError(
            f"training.total_steps = {total:,}, and the run is already at update {reached:,}",
            where=project.where("training", "total_steps"),
            hint=f"ask for more (--steps {2 * reached}), or start a new run: --output-dir DIR",
        )
    return Resumption(project, changed, config, reached)


def is_complete(start: Resumption, earlier: Mapping[str, Any]) -> bool:
    """Whether nothing is left to train: all updates made, or `stop_at_return` reached."""
    settings, counted = earlier.get("settings"), earlier.get("env_steps")
    if earlier.get("status") != "completed" or not isinstance(counted, int):
        return False
    if not isinstance(settings, dict):
        return False
    # Where it was changed, the model's own configuration is to be compared first.
    if start.project.document.data.get("architecture") != settings.get("architecture"):
        return False
    all_made = start.reached == start.project.training_config().total_steps
    return all_made or (bool(earlier.get("stopped_early")) and not start.changed)


def check_model(
    start: Resumption, wanted: WorldModelConfig, spec: EnvironmentSpec, folder: Path
) -> WorldModelConfig:
    """The configuration of the run's model, which the environment and the settings must fit."""
    saved = start.model_config
    if saved is None:
        return wanted
    if type(saved) is not type(wanted):
        pairs = {"model_type": (saved.model_type, wanted.model_type)}
    else:
        before, now = saved.to_dict(), wanted.to_dict()
        pairs = {k: (before[k], now[k]) for k in sorted(wanted.set_fields) if before[k] != now[k]}
    measured = spec.model_fields().keys()
    _refuse(
        folder,
        {
            (f"{name} of the environment" if name in measured else f"architecture.{name}"): pair
            for name, pair in pairs.items()
        },
    )
    return saved


def resume_command(
    project: Project, *, strict: bool = False, processes: Sequence[str] | None = None
) -> str:
    """The command that continues this very run when it is typed in the present folder.

    Args:
        processes: the option that starts as many; as this process was started without it.
    """
    if not project.path.is_file():
        return "worldflux.train(..., resume=True)"
    more = nproc_option() if processes is None else processes
    words = [*started_by(), "train", "--resume", *more]
    if project.path != Path.cwd() / "worldflux.toml":
        words += ["--config", shown_path(project.path)]
    if _OUTPUT_DIR in project.document.labels:
        words += ["--output-dir", shown_path(project.root / project.training_config().output_dir)]
    return shlex.join([*words, "--strict"] if strict else words)


def _settings(project: Project) -> dict[str, Any]:
    sections, config = asdict(project.sections), project.training_config()
    unset = _OF_RECIPE - config.set_fields
    training = {k: None if k in unset else v for k, v in config.to_dict().items()}
    del training["output_dir"], training["set_fields"], sections["sweep"]
    return flattened({**sections, "model": project.model_name, "training": training})


def _differences(before: Project, now: Project) -> Changes:
    one, other = _settings(before), _settings(now)
    keys = sorted(one.keys() | other.keys())
    return {k: (one.get(k), other.get(k)) for k in keys if one.get(k) != other.get(k)}


def _differences_from_old(earlier: Mapping[str, Any], project: Project) -> Changes:
    """What differs from a manifest without settings, as far as it can be seen."""
    sections, environment = project.sections, _environment_of(earlier)
    before: dict[str, Any] = {
        **flattened({"training": earlier.get("training_config") or {}}),
        "environment": environment.get("id"),
        "environment_kwargs": environment.get("kwargs") or {},
        "model": earlier.get("model"),
    }
    now: dict[str, Any] = {
        **flattened({"training": project.training_config().to_dict()}),
        "environment": sections.environment,
        "environment_kwargs": dict(sections.environment_kwargs),
        "model": project.model_name,
    }
    for passing in ("training.output_dir", "training.device"):  # device may be what it fell back to
        before.pop(passing, None)
    for key, value in now.items():
        now[key] = list(value) if isinstance(value, tuple) else value
    return {k: (before[k], now[k]) for k in now if k in before and before[k] != now[k]}


def _environment_of(earlier: Mapping[str, Any]) -> dict[str, Any]:
    entry = earlier.get("environment")
    return entry if isinstance(entry, dict) else {}


def _changed_code(
    earlier: Mapping[str, Any], project: Project, say: Callable[[str], None]
) -> Changes:
    """The project's own files that make the environment and are not what they were."""
    before = _environment_of(earlier).get("code")
    if not isinstance(before, dict):
        return {}
    now = environment_identity(project.root, project.sections.environment)["code"]
    names = sorted(n for n in before.keys() | now.keys() if before.get(n) != now.get(n))
    if names:
        say(
            f"warning: {', '.join(names)} changed since this run began; the run continues in the "
            "environment as it is now, and run_manifest.json says so"
        )
    return {f"code.{name}": (before.get(name), now.get(name)) for name in names}


def _report_ignored(ignored: Changes, current: Project, say: Callable[[str], None]) -> None:
    shown = []
    for key, (recorded, now) in list(ignored.items())[:_MOST_SHOWN]:
        label = current.document.labels.get(tuple(key.split(".", 1)), current.path.name)
        shown.append(f"{key} = {_shown(recorded)} ({label}: {_shown(now)})")
    if shown:
        more = len(ignored) - len(shown)
        say(
            "this run keeps its own settings; --set section.key=value changes one:\n  "
            + "\n  ".join([*shown, *([f"and {more} more"] if more else [])])
        )


def _shown(value: Any) -> str:
    return "not set" if value is None else repr(value)


def _refuse(folder: Path, pairs: Changes) -> None:
    if not pairs:
        return
    words = [
        f"{key} is {_shown(recorded)} in this run, not {_shown(now)}"
        + (f" ({reason})" if (reason := why_fixed(key)) else "")
        for key, (recorded, now) in pairs.items()
    ]
    raise ConfigurationError(
        "a run cannot be resumed with other settings: " + "; ".join(words),
        where=str(folder),
        hint="resume it without them, or start a new run with them: --output-dir DIR",
    )


def _newest_configuration(store: CheckpointStore) -> tuple[int, WorldModelConfig | None]:
    """Update and model configuration of the newest checkpoint whose configuration holds."""
    for step in reversed(store.steps()):
        path = store.path(step)
        with suppress(CheckpointError, ConfigurationError, OSError, KeyError, TypeError):
            if read_manifest(path)["files"][CONFIG_FILE]["sha256"] == sha256_of(path / CONFIG_FILE):
                return step, WorldModelConfig.load(path / CONFIG_FILE)
    return 0, None
