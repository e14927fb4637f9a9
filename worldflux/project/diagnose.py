"""Why a run does not learn: gathers the evidence of a run folder, and looks on during training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from worldflux.configuration_hash import configuration_of
from worldflux.core.config import WorldModelConfig
from worldflux.core.saved_model import load_tensors
from worldflux.dashboard.discovery import find_runs
from worldflux.data.columns import EXTRA
from worldflux.data.replay import ReplayBuffer
from worldflux.data.replay_storage import SHARDS
from worldflux.diagnosis.evidence import (
    TAIL_BYTES,
    TOLD,
    Evidence,
    Experience,
    experience_of,
    read_logs,
    sample_length,
)
from worldflux.diagnosis.finding import Diagnosis
from worldflux.diagnosis.table import diagnose, early_checks, findings
from worldflux.envs.namespaces import NO_ENVIRONMENT, namespace_of
from worldflux.errors import CheckpointError, WorldFluxError
from worldflux.evaluation.episodes import EpisodeResults
from worldflux.factory import build_model
from worldflux.layout import EVALUATIONS, REPLAY, RUN_MANIFEST, SHARD
from worldflux.models.catalog import default_config
from worldflux.progress import SILENT, Progress
from worldflux.run_log import read_evaluations
from worldflux.training.callbacks import Callback
from worldflux.training.checkpoints import LAST, STATE_FILE, checkpoint_of, read_state
from worldflux.training.trainer import Trainer

from .document import shown_path
from .manifest import RunManifest, read_manifest, sound_manifest
from .open_run import OpenRun, open_run, run_with
from .probe import play_run, probe_model

Block = tuple[int, dict[str, np.ndarray]]  # the step that it begins with, and its columns
Budget = Callable[[Mapping[str, Any]], float | None]


def why_run(
    folder: Path, *, play: bool = True, published: Budget | None = None, progress: Progress = SILENT
) -> Diagnosis:
    """Why the run in a folder does not learn.

    Args:
        play: a few short episodes too.
        published: environment steps that the task of a manifest takes, from published curves.

    Raises:
        RunFolderError: there is no run.
    """
    manifest = sound_manifest(folder)
    progress.phase("reading the run")
    missing = [] if play else ["episodes: --no-play"]
    found: dict[str, Any] = {
        **read_logs(folder),
        "preset": preset_numbers(manifest),
        "siblings": _siblings(folder, manifest),
        "budget": _budget(manifest, published),
        "run": shown_path(folder),
    }
    with _noting("replay", missing):
        found["experience"] = _saved_experience(folder, manifest)
    if play:
        with _noting("episodes", missing):
            found |= _played(folder, manifest, progress)
    return diagnose(Evidence(manifest, **found), missing)


@contextmanager
def _noting(what: str, missing: list[str]) -> Iterator[None]:
    """What cannot be read of a run is named in the report, and ends nothing."""
    try:
        yield
    except WorldFluxError as error:
        missing.append(f"{what}: {error}")


def preset_numbers(manifest: Mapping[str, Any]) -> dict[str, float]:
    """What the run's preset sets: learning rate, and updates for each environment step."""
    try:
        config = default_config(str(manifest.get("model")))
    except WorldFluxError:  # a saved model, or a family that is not installed
        return {}
    recipe = config.training_recipe()
    ratio = config.update_ratio(recipe.batch_size, recipe.sequence_length)
    return {"learning_rate": recipe.learning_rate, "update_ratio": ratio}


def _siblings(folder: Path, manifest: dict[str, Any]) -> tuple[float, ...]:
    """Best returns of the runs next to this one that differ in their seed alone."""
    own, found = configuration_of(manifest), []
    near = find_runs(folder.resolve().parent, 1, known_by={RUN_MANIFEST}) if own else []
    for other in near:
        with suppress(WorldFluxError):
            if other == folder.resolve() or configuration_of(read_manifest(other)) != own:
                continue
            returns = [row["return_mean"] for row in read_evaluations(other / EVALUATIONS)]
            found += [float(max(returns))] if returns else []
    return tuple(found)


def _budget(manifest: Mapping[str, Any], published: Budget | None) -> float | None:
    """Environment steps that the task takes, where that is known."""
    environment = str((manifest.get("environment") or {}).get("id"))
    row = namespace_of(environment)
    if row.environment == environment:
        return float(row.environment_steps)
    return None if published is None else published(manifest)


def _saved_experience(folder: Path, manifest: Mapping[str, Any]) -> Experience | None:
    """The beginning and the end of the replay that the newest checkpoint names."""
    data: Mapping[str, Any] = read_state(checkpoint_of(folder, LAST) / STATE_FILE)["data"]
    place = folder / REPLAY
    if data.get(SHARDS):
        data, place = data[SHARDS][0], place / SHARD.format(0)
    chunks = data.get("chunks") or (data.get("recorded") or {}).get("chunks")
    if not chunks:
        return None
    blocks = []
    for chunk in (chunks[0], chunks[-1])[: len(chunks)]:
        tensors = load_tensors(place / Path(str(chunk["file"])).name)
        blocks.append((int(chunk["start"]), {n: tensor.numpy() for n, tensor in tensors.items()}))
    return experience_of(_ends(blocks), _random_until(manifest))


def _ends(blocks: list[Block]) -> list[Block]:
    """The first steps of the first block and the last ones of the last."""
    first, last = blocks[0], blocks[-1]
    steps, streams = first[1]["reward"].shape
    size = sum(value.nbytes for value in first[1].values()) / max(1, steps * streams)
    most = sample_length(size, streams)
    if first is last and steps <= most:
        return [first]
    length = len(last[1]["reward"])
    begin = max(0, length - most // 2, most // 2 if first is last else 0)
    return [
        (first[0], {name: value[: most // 2] for name, value in first[1].items()}),
        (last[0] + begin, {name: value[begin:] for name, value in last[1].items()}),
    ]


def _random_until(manifest: Mapping[str, Any]) -> int:
    """The step of each stream until which actions were random ones."""
    online = (manifest.get("configuration") or {}).get("online_collection") or {}
    if manifest.get("data_mode") != "online":
        return 0
    return int(online.get("warmup_transitions") or 0) // max(1, int(online.get("num_envs") or 1))


def _held_experience(buffer: ReplayBuffer, manifest: Mapping[str, Any]) -> Experience | None:
    """The same of a replay in memory."""
    oldest, written = buffer.oldest_step, buffer.steps_written
    if written - oldest < 2:
        return None
    most = sample_length(buffer.size_bytes / buffer.capacity, buffer.num_envs)
    middle = max(oldest, written - most // 2)
    pieces = [(oldest, min(oldest + most // 2, middle)), (middle, written)]
    names = [name for name in buffer.columns if not name.startswith(EXTRA)]
    blocks = [(a, buffer.rows(a, b, *names)) for a, b in pieces if b - a > 1]
    return experience_of(blocks, _random_until(manifest))


def _played(folder: Path, manifest: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """`played` and `model`; without a checkpoint, what random episodes show."""
    has_none = (manifest.get("environment") or {}).get("id") == NO_ENVIRONMENT
    if has_none or "delegated" in manifest:  # its agent cannot act here
        return {}
    run, trained = _opened(folder, manifest)
    with run.computing():
        played, recorded = play_run(run, progress, acts=trained)
        if not recorded:
            return {"played": played}
        progress.phase("looking at the model")
        return {"played": played, "model": probe_model(run.model, recorded)}


def _opened(folder: Path, manifest: dict[str, Any]) -> tuple[OpenRun, bool]:
    """The run with its newest model; one that never saved any has an untrained one, and False."""
    try:
        return open_run(folder, LAST), True
    except CheckpointError:
        model = build_model(WorldModelConfig.from_dict(manifest["model_config"]))
        return run_with(folder, manifest, folder, model), False


class DiagnosisRecorder(Callback):
    """After each evaluation, the checks that need neither a model nor an episode.

    A cause is warned of once; the manifest has those of the last evaluation (`diagnosis`).
    """

    def __init__(self, manifest: RunManifest, folder: Path) -> None:
        self.manifest, self.folder = manifest, folder
        self._checks = early_checks()
        self._preset = preset_numbers(manifest.content)
        self._told = {str(entry["cause"]) for entry in manifest.content.get("diagnosis") or ()}

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        buffers = getattr(trainer.source, "buffers", None) or [
            getattr(trainer.source, "buffer", None)
        ]
        content, experience = self.manifest.content, None
        if isinstance(buffers[0], ReplayBuffer):
            experience = _held_experience(buffers[0], content)
        counted = {"global_step": trainer.step, "env_steps": trainer.env_steps}
        evidence = Evidence(
            {**content, **counted},
            **read_logs(self.folder, TAIL_BYTES),
            preset=self._preset,
            experience=experience,
            run=shown_path(self.folder),
        )
        found = findings(evidence, self._checks)
        self.manifest.update(diagnosis=[vars(finding) for finding in found])
        for finding in found:
            if finding.cause not in self._told:
                self._told.add(finding.cause)
                if any(finding.sentence in note for note in evidence.notes):
                    continue  # the run has warned of it
                trainer.warn(f"{finding.cause}: {finding.sentence}{TOLD}")
