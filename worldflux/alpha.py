"""What the alpha (worldflux 0.1.x) left on disk: recognised, with what to write today."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from worldflux.errors import CheckpointError, ConfigurationError

ALPHA = "the alpha (worldflux 0.1.x)"
PAGE = "docs/migration.md"
MANIFEST_VERSION = "worldflux.training.run_manifest.v1"
_WEIGHTS = f"{ALPHA} saved this: its networks are not today's, so the weights fit no model"
TRAIN_AGAIN = f"train again; replay files (.npz) can be used as they are: {PAGE}"

# Fields of its model configurations -> today's names, or None where there is no such setting.
_MODEL_FIELDS: dict[str, str | None] = {
    "reference_tier": None,
    "training_tier": None,
    "parity_profile": None,
    "policy_loss_coef": None,
    "target_q_tau": "tau",
    "consistency_loss_coef": "consistency_coef",
    "reward_loss_coef": "reward_coef",
    "td_loss_coef": "value_coef",
}
_TRAINING_FIELDS = {
    "compile_model": "compile",
    "mixed_precision_dtype": "dtype of the model",
    "num_envs": "online_collection.num_envs of worldflux.toml",
    "env_mode": "online_collection.vector of worldflux.toml",
}


def refuse_saved(path: Path) -> None:
    """Refuse a model, checkpoint or output folder that the alpha saved.

    Raises:
        CheckpointError: when it is one.
    """
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else {path.name}
    saved_by_it = any(name.startswith("checkpoint_") and name.endswith(".pt") for name in names)
    model = "worldflux_meta.json" in names or {"model.pt", "config.json"} <= names
    if path.exists() and (saved_by_it or model):
        raise CheckpointError(_WEIGHTS, where=str(path), hint=TRAIN_AGAIN)


def refuse_configuration(data: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Refuse a model's or a training configuration of the alpha, naming every key to change.

    Args:
        known: the fields of today's configuration.
    """
    old = {name: today for name, today in _MODEL_FIELDS.items() if name in data}
    spec = data.get("action_spec")
    if old and isinstance(spec, dict) and "discrete" in spec:
        old["action_spec"] = None
    if "instant_mode" in data:
        old |= {name: _TRAINING_FIELDS.get(name) for name in data if name not in known}
    if not old:
        return
    steps = [f"{name} is {today} today" for name, today in old.items() if today]
    if gone := [name for name, today in old.items() if not today]:
        steps.append(f"delete {', '.join(gone)}")
    raise ConfigurationError(
        f"{ALPHA} wrote this configuration", where=where, hint=f"{'; '.join(steps)}: {PAGE}"
    )


# --------------------------------------------------------------------------- command line

_COMMAND_LINE = {
    "--format": "--json",
    "--resume-from": "worldflux train --resume",
    "--override": "--set section.key=value",
    "--num-envs": "--set online_collection.num_envs=N",
    "--env-mode": "--set online_collection.vector=async",
    "--suite": "worldflux eval --episodes N",
    "--demo": "worldflux verify --mode quick",
    "--baseline": "worldflux verify --mode proof --reference FILE",
    "-V": "--version",
    "parity": "worldflux verify --mode proof",
}


def spelled_today(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command, with `--format json` as `--json`."""
    words = [word if word != "--format=json" else "--json" for word in arguments]
    while "--format" in words[:-1] and words[(at := words.index("--format")) + 1] == "json":
        words[at : at + 2] = ["--json"]
    return words


def command_hint(arguments: Sequence[str]) -> str | None:
    """What a command line of the alpha is today, when it was refused."""
    for word in arguments:
        name = word.partition("=")[0]
        if name in _COMMAND_LINE and (name.startswith("-") or word == arguments[0]):
            return f"{name} was of the alpha; today: {_COMMAND_LINE[name]}"
    return None


# --------------------------------------------------------------------------- worldflux.toml

_SIGNS = {
    "model_type",
    "cloud",
    "flywheel",
    "data.gym_env",
    "verify.baseline",
    "verify.proof_claim",
}
_GONE = "delete it"
_MEASURED = "delete it; it comes from the environment"
PROJECT_KEYS: dict[str, str] = {
    "model_type": "delete it; model names the family",
    "architecture.obs_shape": _MEASURED,
    "architecture.action_dim": _MEASURED,
    "data.gym_env": "write it as environment, at the top",
    **dict.fromkeys(("data.num_episodes", "data.episode_length"), _GONE),
    "online_collection.enabled": 'delete it; data.source = "gym" collects',
    "online_collection.max_episode_steps": "write it under [environment_kwargs]",
    "inference.checkpoint": 'write "best" or "last"',
    "visualization.history_max_points": _GONE,
    **{f"verify.{name}": _GONE for name in ("baseline", "env", "backend", "backend_profile")},
    "verify.proof_claim": "delete it; worldflux verify --mode proof --reference FILE",
    "verify.allow_official_only": _GONE,
    **dict.fromkeys(("cloud", "flywheel"), "delete the section"),
}


def project_changes(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The keys of an alpha's worldflux.toml to change, and how; none for today's files."""
    keys = {
        f"{name}.{key}" for name, table in data.items() if isinstance(table, dict) for key in table
    }
    keys |= data.keys()
    if not keys & _SIGNS:
        return []
    changes = [(key, change) for key, change in PROJECT_KEYS.items() if key in keys]
    if data.get("environment") in ("atari", "mujoco", "custom"):
        changes.insert(0, ("environment", "write a Gymnasium id"))
    return changes


def key_change(path: Sequence[str | int]) -> str | None:
    """What becomes of a key that only the alpha had."""
    change = PROJECT_KEYS.get(".".join(map(str, path)))
    return change and f"a key of the alpha (0.1.x): {change}"


_RENAMED = {
    ("ModelOutput", "preds"): "predictions",
    ("WorldModel", "update"): "observe(observations, actions)",
    ("WorldModel", "initial_state"): "encode(observation) of an episode's first observation",
    ("WorldModel", "io_contract"): "modalities, action_spec and capabilities",
    ("TrainingConfig", "with_updates"): "with_overrides",
    ("TrainingConfig", "resolve_device"): "device; the Trainer resolves it",
}


def missing_attribute(owner: Any, name: str) -> AttributeError:
    """The error for an attribute that `owner` does not have; for a former name it gives today's."""
    message = f"{type(owner).__name__!r} object has no attribute {name!r}"
    for kind in type(owner).__mro__:
        today = _RENAMED.get((kind.__name__, name))
        if today is not None:
            return AttributeError(f"{message}: it is now {today}")
    return AttributeError(message)
