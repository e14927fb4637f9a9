"""Is a run what it says: its manifest against its files, and its files against their hashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worldflux.errors import WorldFluxError
from worldflux.files import sha256_of
from worldflux.project import manifest as manifests
from worldflux.run_log import EVALUATIONS, read_rows
from worldflux.training.checkpoints import CheckpointStore, check
from worldflux.training.experience import UNFIT

from .verdict import Check

_REQUIRED = (
    "status",
    "project_name",
    "run_classification",
    "data_mode",
    "degraded_modes",
    "model",
    "parameters",
    "config_hash",
    "model_config",
    "training_config",
    "environment",
    "seeds",
    "global_step",
    "env_steps",
    "machine",
    "software",
)


_NUMBER = (int, float, type(None))
_ENVIRONMENT: dict[str, Any] = {
    "id": str,
    "kwargs": (dict, type(None)),
    "time_limit": _NUMBER,
    "action_repeat": _NUMBER,
    "frames_per_env_step": _NUMBER,
}


def check_manifest(manifest: dict[str, Any]) -> Check:
    """The manifest has every entry, with values that exist, and its own hash."""
    missing = [name for name in _REQUIRED if name not in manifest]
    if missing:
        return Check("manifest", "fail", f"entries are missing: {', '.join(missing)}")
    problems = []
    allowed = {
        "status": manifests.STATUSES,
        "data_mode": manifests.DATA_MODES,
        "run_classification": manifests.CLASSIFICATIONS,
    }
    for name, values in allowed.items():
        if manifest[name] not in values:
            problems.append(f"{name} is {manifest[name]!r}")
    entry = manifest["environment"]
    if not isinstance(entry, dict) or "id" not in entry:
        problems.append(f"environment is {entry!r:.80}")
    else:
        problems += [
            f"environment.{name} is {entry[name]!r:.80}"
            for name, kinds in _ENVIRONMENT.items()
            if name in entry and not isinstance(entry[name], kinds)
        ]
    try:
        manifests.classification(manifest)
        if manifest["config_hash"] != manifests.configuration_hash(manifest):
            problems.append("config_hash is not the hash of the configuration beside it")
    except (KeyError, TypeError, ValueError, AttributeError):
        problems.append("configuration or sessions are damaged")
    if problems:
        return Check("manifest", "fail", "; ".join(problems))
    return Check("manifest", "pass", f"complete; the run is {manifest['status']}")


def check_files(folder: Path, manifest: dict[str, Any]) -> Check:
    """Every checkpoint file holds against its hash, and the final weights are the named ones."""
    store = CheckpointStore(folder / "checkpoints")
    steps = store.steps()
    if not steps:
        return Check("files", "fail", "there is no checkpoint")
    problems = []
    for step in steps:
        try:
            check(store.path(step))
        except WorldFluxError as error:
            problems.append(str(error))
    final = manifest.get("final_checkpoint")
    if final is not None:
        weights = folder / "checkpoints" / str(final) / "model.safetensors"
        if not weights.is_file() or sha256_of(weights) != manifest.get("weights_sha256"):
            problems.append("the final weights are not the ones that the manifest names")
    elif manifest["status"] in ("completed", "interrupted"):
        problems.append("the manifest names no final checkpoint")
    if problems:
        return Check("files", "fail", "; ".join(problems))
    numbers = {"checkpoints": len(steps), "newest_step": steps[-1]}
    return Check("files", "pass", f"{len(steps)} checkpoints, every hash holds", numbers)


def check_contents(folder: Path, manifest: dict[str, Any]) -> Check:
    """Counters of the manifest agree with the checkpoints and the evaluation it names."""
    steps = CheckpointStore(folder / "checkpoints").steps()
    problems = []
    if manifest["status"] == "completed" and steps and manifest["global_step"] != steps[-1]:
        problems.append(f"global_step {manifest['global_step']} is not the last one, {steps[-1]}")
    best = manifest.get("best")
    if best and best["step"] not in steps:
        problems.append(f"the best checkpoint (update {best['step']}) is missing")
    if manifest["status"] in ("completed", "interrupted"):
        problems += _contradictions(folder, manifest)
    if problems:
        return Check("counters", "fail", "; ".join(problems))
    return Check(
        "counters",
        "pass",
        f"{manifest['global_step']} updates, {manifest['env_steps']} environment steps",
    )


def _contradictions(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Evaluations that the manifest names and eval.jsonl, which proof reads, tells otherwise."""
    rows = list(read_rows(folder / EVALUATIONS))
    returns = {row.get("step"): row.get("return_mean") for row in rows}
    named = {name: manifest.get(name) for name in ("best", "final")}
    return [
        f"the {name} evaluation (update {entry['step']}) is another one in {EVALUATIONS}"
        for name, entry in named.items()
        if rows and entry and returns.get(entry["step"]) != entry["return_mean"]
    ]


def check_data(manifest: dict[str, Any]) -> Check:
    """What was learned from: noise or a degraded run cannot pass as learning."""
    degraded = manifest["degraded_modes"]
    if degraded:
        return Check("data", "fail", f"the run degraded: {', '.join(map(str, degraded))}")
    if manifest["data_mode"] == "random":
        return Check("data", "fail", "the data were random: nothing can be learned from them")
    expected = manifests.classification(manifest)
    if expected == "contract_smoke":
        steps = f"{manifest['global_step']} updates, {manifest['env_steps']} environment steps"
        words = f"{steps}, all of them random: the agent collected nothing itself"
        return Check("data", "fail", words)
    if manifest["run_classification"] not in (expected, "advanced_evidence"):
        return Check("data", "fail", f"run_classification is not {expected}")
    told = manifest.get("warnings")
    unfit = [w for w in told if str(w).startswith(UNFIT)] if isinstance(told, list) else []
    if unfit:
        return Check("data", "warn", str(unfit[-1]).removeprefix(f"{UNFIT}: "))
    return Check("data", "pass", f"{manifest['data_mode']}, nothing degraded")
