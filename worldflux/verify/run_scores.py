"""What a finished run has for a comparison: its agent, its seed, its returns over frames."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldflux.backends.scores import EVALUATION_EPISODES
from worldflux.dashboard.discovery import all_runs
from worldflux.envs.namespaces import namespace_of
from worldflux.errors import RunFolderError
from worldflux.layout import CHECKPOINT_HASHES, CONFIG_FILE, RUN_MANIFEST
from worldflux.models.catalog import MODEL_CATALOG
from worldflux.models.registry import our_families
from worldflux.project.manifest import read_manifest
from worldflux.run_log import EVALUATIONS, METRICS, is_number, read_rows

from .curves import Source, canonical_environment
from .integrity import check_integrity

# An evaluation counts for a number of frames that it missed by no more than this share.
EARLIEST = 0.9
_READ = (RUN_MANIFEST, EVALUATIONS, METRICS, CHECKPOINT_HASHES)


@dataclass(frozen=True)
class RunScores:
    """One run folder, read for a comparison and not verified yet."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def environment(self) -> str:
        return canonical_environment(str(self.manifest["environment"]["id"]))

    @property
    def seed(self) -> Any:
        return self.manifest["seeds"]["run"]

    @property
    def family(self) -> str:
        """As published curves name it: some settings make another agent of a family."""
        config, entry = (
            self.manifest["model_config"],
            MODEL_CATALOG.get(str(self.manifest["model"])),
        )
        family = str(entry["type"] if entry else config.get("model_type"))
        row = our_families().get(family)
        variants = row.variants.items() if row else ()
        return next((v for (key, value), v in variants if config.get(key) == value), family)

    @property
    def observation(self) -> str:
        """ "state" or "pixels"."""
        recorded = self.manifest["environment"].get("observation")
        is_image = len(self.manifest["model_config"]["obs_shape"]) == 3
        return str(recorded or ("pixels" if is_image else "state"))

    @property
    def frames_per_env_step(self) -> float | None:
        """Environment frames of one step of the run's logs; None where it is not known."""
        entry = self.manifest["environment"]
        if "frames_per_env_step" in entry:
            return float(entry["frames_per_env_step"])
        frames = namespace_of(self.environment).episode_frames
        if frames and entry.get("time_limit"):  # in agent steps: that gives the action repeat
            return frames / float(entry["time_limit"])
        return None

    @property
    def sticky_actions(self) -> bool | None:
        """Whether an Atari console repeated actions by chance, as the v5 games do by default."""
        usual = namespace_of(self.environment).sticky
        if usual is None:
            return None
        arguments = self.manifest["environment"].get("kwargs") or {}
        return bool(arguments.get("repeat_action_probability", usual))

    @property
    def records_configuration(self) -> bool:
        """Whether the run recorded every section; earlier versions kept two of them."""
        return "configuration" in self.manifest

    @property
    def partial_configuration(self) -> str:
        """What every version records of the configuration: the model's and the Trainer's."""
        training = dict(self.manifest["training_config"])
        for name in ("seed", "output_dir", "device"):
            training.pop(name, None)
        return json.dumps([self.manifest["model_config"], training], sort_keys=True, default=str)

    def points(self, source: Source) -> list[tuple[float, float]]:
        """(frames, return) as the source measured them, in order."""
        scale = self.frames_per_env_step
        assert scale is not None
        evaluated = source.evaluation == EVALUATION_EPISODES
        log, name = (EVALUATIONS, "return_mean") if evaluated else (METRICS, "train/episode_return")
        pairs = [
            (row.get("env_steps"), row.get(name))
            for row in read_rows(self.folder / log)
            if row.get("evaluation", EVALUATION_EPISODES) == EVALUATION_EPISODES
        ]
        return sorted((x * scale, float(y)) for x, y in pairs if is_number(x) and is_number(y))

    def score_at(self, frames: int, source: Source) -> float | None:
        """The return at a number of frames, as the source measured it, if there is one.

        The last evaluation since nine tenths of the frames, or the mean over the source's window.
        """
        earliest = frames * EARLIEST if source.window is None else frames - source.window
        found = [y for x, y in self.points(source) if earliest <= x <= frames]
        if not found:
            return None
        return found[-1] if source.window is None else sum(found) / len(found)

    def problems(self) -> list[str]:
        """Why nothing in the run can be relied on: it is damaged or degraded."""
        checks = check_integrity(self.folder, self.manifest)
        return [f"{check.name}: {check.detail}" for check in checks if check.status == "fail"]


def collect_runs(targets: Sequence[Path]) -> list[RunScores]:
    """The runs at or below the targets, each once, in order of their paths."""
    folders: dict[Path, Path] = {}
    for target in targets:
        found = all_runs(target)
        if not found:
            if (target / CONFIG_FILE).is_file():
                read_manifest(target)  # which says what it is instead
            raise RunFolderError(
                f"no run here: neither {RUN_MANIFEST} nor folders with one",
                where=str(target),
                hint="train first (worldflux train), or name the runs with --target DIR",
            )
        for folder in found:
            folders.setdefault(folder.resolve(), folder)
    return [RunScores(folder, read_manifest(folder)) for folder in folders.values()]


def files_of(run: RunScores) -> list[Path]:
    """The files that a comparison reads."""
    return [run.folder / name for name in _READ if (run.folder / name).is_file()]
