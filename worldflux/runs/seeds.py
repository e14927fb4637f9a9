"""`worldflux train --seeds`: one ordinary run a seed, each in its own process and folder."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from worldflux.errors import ConfigurationError, RunFolderError
from worldflux.layout import CHECKPOINTS
from worldflux.progress import Progress, counted, duration
from worldflux.project.document import shown_path
from worldflux.project.loader import Project, load_project
from worldflux.project.manifest import holds_a_run, typed_command
from worldflux.project.run_folder import RunFolder
from worldflux.project.scaffold import to_toml

from .processes import TRAIN, Job, run_jobs

_MOST = 1000
_RESUME, _AUTO = "--resume", "--resume=auto"


def parsed_seeds(text: str) -> list[int]:
    """The seeds that "5" (0 to 4) or "0,1,7" names.

    Raises:
        ConfigurationError: it names none, or one twice.
    """
    listed = [part.strip() for part in text.split(",") if part.strip()]
    if not listed or not all(re.fullmatch(r"\d{1,10}", part) for part in listed):
        hint = "--seeds 5 takes the seeds 0 to 4, --seeds 0,1,7 these three"
        raise ConfigurationError(f"{text!r} names no seeds", where="--seeds", hint=hint)
    numbers = [int(part) for part in listed]
    if "," not in text:
        numbers = list(range(numbers[0])) if numbers[0] <= _MOST else []
    if not numbers or len(set(numbers)) < len(numbers):
        message = f"{text!r} is not 1 to {_MOST} seeds, each of them once"
        raise ConfigurationError(message, where="--seeds")
    return numbers


def run_arguments(project: Project, overrides: Sequence[str], folder: Path) -> list[str]:
    """The arguments of `worldflux train` for one of several runs of a project.

    A name that [logging] gives is the group of all of them, and each run adds its folder's.
    """
    logging = project.sections.logging
    settings = [*overrides]
    if logging.name:
        settings.append(f"logging.name={to_toml(f'{logging.name}-{folder.name}')}")
        settings.append(f"logging.group={to_toml(logging.group or logging.name)}")
    set_ = [word for text in settings for word in ("--set", text)]
    place = ["--config", str(project.path), "--output-dir", str(folder.absolute())]
    return [*place, *set_, "--yes"]


def check_parent(parent: Path, what: str) -> None:
    """Refuse a folder for several runs that is a run itself."""
    if holds_a_run(parent):
        raise RunFolderError(
            f"this folder holds a run; {what} need a folder of their own",
            where=str(parent),
            hint="choose another one with --output-dir DIR",
        )


def check_begun(parent: Path) -> None:
    """Refuse to continue where no seed was ever started.

    A log is enough: whoever was stopped before the first run began may say --resume, too.
    """
    if any(parent.glob("seed-*")):
        return
    start = shlex.join(word for word in typed_command() if word != _RESUME)
    raise RunFolderError(
        "there is no run to resume", where=str(parent), hint=f"start them: {start}"
    )


def continuing(flags: Sequence[str]) -> str:
    """The command that takes the seeds up again: what was typed, with --resume."""
    words = typed_command()
    if _RESUME in flags or _AUTO in flags:
        return shlex.join(words)
    end = words.index("--") if "--" in words else len(words)
    return shlex.join([*words[:end], _RESUME, *words[end:]])


@dataclass
class _Seeds:
    """The jobs of the seeds, in order; see `processes.Source`."""

    waiting: list[Job]
    screen: Progress
    codes: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def next(self) -> Job | None:
        return self.waiting.pop(0) if self.waiting else None

    def is_exhausted(self) -> bool:
        return not self.waiting

    def watch(self, job: Job) -> None:
        pass

    def ended(self, job: Job, code: int, stopping: bool) -> None:
        self.codes[job.name] = code
        manifest = job.manifest()
        if code == 0:
            best = manifest.get("best")
            result = f", best return {best['return_mean']:.1f}" if best else ""
            wall_s = duration(manifest.get("wall_s", 0.0))
            self.screen.say(f"{job.name}: completed in {wall_s}{result}")
        elif stopping and code > 128:
            saved = f"saved at update {manifest.get('global_step', 0)}"
            self.screen.say(f"{job.name}: {saved if manifest else 'stopped before its run began'}")
        else:
            self.failures.append(f"{job.name}: exit code {code}: {job.error()}; {job.log}")
            self.screen.say(f"warning: {self.failures[-1]}")

    def progress(self) -> tuple[int, list[str]]:
        return len(self.codes), []


def train_seeds(
    file: Path,
    seeds: Sequence[int],
    *,
    overrides: Sequence[str] = (),
    jobs: int = 1,
    flags: Sequence[str] = (),
    screen: Progress,
    command: Sequence[str] = TRAIN,
) -> tuple[Path, int]:
    """Train a project with each of the seeds in `OUTPUT_DIR/seed-N`, `jobs` at a time.

    A run that fails stops no other one. Nothing is started before every run's settings and folder
    have been checked.

    Args:
        flags: `--resume` (continue the runs that are not complete, start those that were never
            begun), `--resume=auto` (the same, also where no seed was started yet), `--strict`.

    Returns:
        The folder of all runs, and the exit code: of the first run that failed, or of the signal.
    """
    project = load_project(file, [*overrides, f"training.seed={max(seeds)}"])
    parent = project.root / project.training_config().output_dir
    check_parent(parent, "seeds")
    folders = [parent / f"seed-{seed}" for seed in seeds]
    resume, again = _RESUME in flags or _AUTO in flags, continuing(flags)
    if resume and _AUTO not in flags:
        check_begun(parent)
    kept = [folder.name for folder in folders if any((folder / CHECKPOINTS).glob("step-*"))]
    if kept and not resume:
        hint = f"continue them: {again}; or choose another folder: --output-dir DIR"
        message = f"this folder already holds {', '.join(kept[:3])}"
        raise RunFolderError(message, where=str(parent), hint=hint)
    for folder in folders:  # refuses what this run may not write to
        RunFolder(
            folder,
            project.sections.project_name,
            resume=resume and holds_a_run(folder),
            command=again,
        )
    own = [text for text in overrides if not text.startswith("training.output_dir")]
    words = [_AUTO if flag == _RESUME else flag for flag in flags]
    waiting = [
        Job(folder, [*command, *run_arguments(project, own, folder), "--seed", str(seed), *words])
        for folder, seed in zip(folders, seeds, strict=True)
    ]
    source = _Seeds(waiting, screen)
    screen.phase("training", len(seeds), "seeds")
    stopped = run_jobs(source, jobs, screen)
    if stopped is not None:
        if any(map(holds_a_run, folders)):
            screen.say(f"interrupted; everything is saved; continue with: {again}")
        else:
            same = shlex.join(typed_command())
            screen.say(f"interrupted; no run was begun; start them with: {same}")
        return parent, stopped
    if source.failures:
        count = counted(len(source.failures), "run")
        lines = "\n  ".join(source.failures)
        screen.say(f"warning: {count} of {len(seeds)} failed:\n  {lines}")
        screen.say(f"continue them with: {again}")
    else:
        screen.say(f"next      worldflux runs compare {shlex.quote(shown_path(parent))}")
    return parent, next((code for code in source.codes.values() if code), 0)
