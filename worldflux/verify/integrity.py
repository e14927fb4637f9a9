"""Is a run what it claims: its manifest against its files, and its files against their hashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from worldflux.configuration_hash import hash_holds
from worldflux.core.saved_model import load_tensors
from worldflux.errors import WorldFluxError
from worldflux.files import read_json_object, sha256_of
from worldflux.layout import CHECKPOINT_HASHES, CHECKPOINTS, WEIGHTS_FILE
from worldflux.progress import counted
from worldflux.project import manifest as manifests
from worldflux.project.start import changed_tensors
from worldflux.run_log import EVALUATIONS, read_rows
from worldflux.training.checkpoints import CheckpointStore, check, steps_of
from worldflux.training.experience import UNFIT

from .verdict import Check


class _Environment(BaseModel, strict=True):
    id: str
    kwargs: dict[str, Any] | None = None
    time_limit: float | None = None
    action_repeat: float | None = None
    frames_per_env_step: float | None = None


@dataclass
class _Manifest:
    """The entries that every run has."""

    status: Literal["running", "completed", "interrupted", "failed"]
    run_classification: Literal["contract_smoke", "meaningful_local_training", "advanced_evidence"]
    data_mode: Literal["random", "offline", "online", "offline_online"]
    environment: _Environment
    project_name: Any
    degraded_modes: Any
    model: Any
    parameters: Any
    config_hash: Any
    model_config: Any
    training_config: Any
    seeds: Any
    global_step: Any
    env_steps: Any
    machine: Any
    software: Any


def is_delegated(folder: Path, manifest: dict[str, Any]) -> bool:
    """Whether an official program ran: such a run has no checkpoints of ours."""
    return "delegated" in manifest and not (folder / CHECKPOINTS).exists()


def check_integrity(folder: Path, manifest: dict[str, Any]) -> list[Check]:
    """Every check of a run without playing it; only the manifest's where that one fails."""
    checks = [check_manifest(manifest)]
    if checks[0].status == "fail":
        return checks
    if not is_delegated(folder, manifest):
        checks += [check_files(folder, manifest), check_contents(folder, manifest)]
        checks += check_start(folder, manifest)
    return [*checks, check_data(manifest)]


def check_start(folder: Path, manifest: dict[str, Any]) -> list[Check]:
    """Whose weights the run began with; what was frozen is as it was. Nothing without either."""
    start = manifest.get("start")
    if not isinstance(start, dict):
        return []
    words, frozen = [], start.get("frozen") or {}
    if start.get("source") is not None:
        kinds = {
            "taken": "taken",
            "extended": "extended",
            "new": "new",
            "unfit": "of another shape",
        }
        amounts = [f"{len(start.get(kind, ()))} {word}" for kind, word in kinds.items()]
        sha256 = str(start.get("weights_sha256"))[:12]
        words.append(f"weights of {start['source']} ({sha256}), tensors: {', '.join(amounts)}")
    problems = []
    if frozen:
        words.append(f"frozen: {', '.join(manifest['training_config']['freeze'])}, unchanged")
        store = CheckpointStore(folder / CHECKPOINTS)
        for step in store.steps():
            try:
                weights = load_tensors(store.path(step) / WEIGHTS_FILE)
            except WorldFluxError:
                continue  # reported with the files
            changed = changed_tensors(frozen, weights)
            problems += [f"{name} was frozen and changed by update {step}" for name in changed]
    return [Check.unless(problems, "start", "; ".join(words))]


def check_manifest(manifest: dict[str, Any]) -> Check:
    """The manifest has every entry, with values that exist, and its own hash."""
    problems = []
    try:
        TypeAdapter(_Manifest).validate_python(manifest)
        manifests.classification(manifest)
        if not hash_holds(manifest):
            problems.append("config_hash is not the hash of the configuration next to it")
    except ValidationError as error:
        problems = _damage(error)
    except (KeyError, TypeError, ValueError, AttributeError):
        problems.append("configuration or sessions are damaged")
    return Check.unless(problems, "manifest", f"complete; the run is {manifest.get('status')}")


def _damage(error: ValidationError) -> list[str]:
    """What is missing in a manifest; where nothing is, what has a value that cannot be."""
    errors = [(".".join(map(str, entry["loc"])), entry) for entry in error.errors()]
    missing = [name for name, entry in errors if entry["type"] == "missing"]
    if missing:
        return [f"entries are missing: {', '.join(missing)}"]
    return [f"{name} is {entry['input']!r:.80}" for name, entry in errors]


def check_files(folder: Path, manifest: dict[str, Any]) -> Check:
    """Every checkpoint file matches its hash, and the final weights are the named ones."""
    if (folder / CHECKPOINT_HASHES).is_file():
        return _check_left_out(folder, manifest)
    store = CheckpointStore(folder / CHECKPOINTS)
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
        weights = folder / CHECKPOINTS / str(final) / WEIGHTS_FILE
        if not weights.is_file() or sha256_of(weights) != manifest.get("weights_sha256"):
            problems.append("the final weights are not the ones that the manifest names")
    elif manifest["status"] in ("completed", "interrupted"):
        problems.append("the manifest names no final checkpoint")
    numbers = {"checkpoints": len(steps), "newest_step": steps[-1]}
    good = f"{counted(len(steps), 'checkpoint')}, all hashes match"
    return Check.unless(problems, "files", good, numbers)


def _check_left_out(folder: Path, manifest: dict[str, Any]) -> Check:
    """Of evidence without weights: the hashes that it keeps have those of the final weights."""
    kept = read_json_object(folder / CHECKPOINT_HASHES, "list of hashes")
    final = f"{manifest.get('final_checkpoint')}/{WEIGHTS_FILE}"
    problems = []
    if final not in kept or kept[final] != manifest.get("weights_sha256"):
        problems.append("the final weights are not the ones that the manifest names")
    checkpoints = {name.partition("/")[0] for name in kept}
    words = f"{counted(len(checkpoints), 'checkpoint')}, left out of this evidence but for hashes"
    return Check.unless(problems, "files", words)


def _kept_steps(folder: Path) -> list[int]:
    """The updates of the run's checkpoints, also of those that evidence left out."""
    if not (folder / CHECKPOINT_HASHES).is_file():
        return CheckpointStore(folder / CHECKPOINTS).steps()
    kept = read_json_object(folder / CHECKPOINT_HASHES, "list of hashes")
    return steps_of({name.partition("/")[0] for name in kept})


def check_contents(folder: Path, manifest: dict[str, Any]) -> Check:
    """The manifest's counters agree with the checkpoints and the evaluations that it names."""
    steps = _kept_steps(folder)
    problems = []
    if manifest["status"] == "completed" and steps and manifest["global_step"] != steps[-1]:
        problems.append(f"global_step {manifest['global_step']} is not the last one, {steps[-1]}")
    best = manifest.get("best")
    if best and best["step"] not in steps:
        problems.append(f"the best checkpoint (update {best['step']}) is missing")
    if manifest["status"] in ("completed", "interrupted"):
        problems += _contradictions(folder, manifest)
    return Check.unless(problems, "counters", _counts(manifest))


def _counts(manifest: dict[str, Any]) -> str:
    updates = counted(manifest["global_step"], "update")
    return f"{updates}, {counted(manifest['env_steps'], 'environment step')}"


def _contradictions(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Evaluations in the manifest that differ from eval.jsonl, which proof mode reads."""
    returns = {row.get("step"): row.get("return_mean") for row in read_rows(folder / EVALUATIONS)}
    named = {name: manifest.get(name) for name in ("best", "final")}
    return [
        f"the {name} evaluation (update {entry['step']}) is another one in {EVALUATIONS}"
        for name, entry in named.items()
        if returns and entry and returns.get(entry["step"]) != entry["return_mean"]
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
        reason = (
            "nothing was learned"
            if manifest["global_step"] < 1
            else "all of them random: the agent collected nothing itself"
        )
        return Check("data", "fail", f"{_counts(manifest)}, {reason}")
    if manifest["run_classification"] not in (expected, "advanced_evidence"):
        return Check("data", "fail", f"run_classification is not {expected}")
    warnings = manifest.get("warnings")
    texts = [str(text) for text in warnings] if isinstance(warnings, list) else []
    unfit = [text for text in texts if text.startswith(UNFIT)]
    if unfit:
        return Check("data", "warn", unfit[-1].removeprefix(f"{UNFIT}: "))
    return Check("data", "pass", f"{manifest['data_mode']}, nothing degraded")
