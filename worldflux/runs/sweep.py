"""`worldflux sweep`: the trials of a study, each an ordinary run in its own process and folder."""

from __future__ import annotations

import json
import math
import shlex
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, Trial, TrialState

from worldflux.configuration_hash import decides_result, flattened
from worldflux.envs.namespaces import NO_ENVIRONMENT
from worldflux.errors import ConfigurationError, StorageError
from worldflux.layout import EVALUATIONS
from worldflux.progress import Progress, counted
from worldflux.project.document import shown_path
from worldflux.project.loader import Project, load_project
from worldflux.project.problems import ProjectFileError
from worldflux.project.swept import PARAMETERS
from worldflux.run_log import is_number, read_evaluations

from .processes import TRAIN, Job, run_jobs
from .seeds import check_parent, run_arguments
from .study import Study, assignment, tried

_MAX_KILLS = 5  # of one trial by somebody else, such as the system when memory runs out
_ENTRIES = {"last": "final", "best": "best"}  # of the manifest, by `sweep.score`
_NOT_OF_RUNS = ("sweep.", "training.output_dir")
_NOT_SHARED = ("trials", "storage", "parameters")  # of [sweep]; the parameters have a name each
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass
class _Work:
    """A trial that this process works on; `decided`: the update up to which it is not pruned."""

    trial: Trial
    lock: TextIO
    job: Job
    reported: set[int] = field(default_factory=set)
    decided: int = -1
    pruned: bool = False
    kills: int = 0


class _Worker:
    """The trials of one process; see `processes.Source`."""

    def __init__(
        self,
        study: Study,
        project: Project,
        start: Sequence[str],
        overrides: Sequence[str],
        say: Callable[[str], None],
    ) -> None:
        self.study, self.project = study, project
        self.start, self.say = start, say
        self.overrides = [text for text in overrides if not text.startswith(_NOT_OF_RUNS)]
        self.works: dict[str, _Work] = {}
        self.killed: list[_Work] = []

    def next(self) -> Job | None:
        if self.killed:
            return self.killed.pop().job
        while (claimed := self.study.claim()) is not None:
            work = self._work(*claimed)
            self.works[work.job.name] = work
            self.watch(work.job)
            if not work.pruned:
                return work.job
            self._tell(work, TrialState.PRUNED)  # whoever decided it died before the study had it
        return None

    def is_exhausted(self) -> bool:
        return not self.killed and self.study.is_handed_out()

    def _work(self, trial: Trial, lock: TextIO) -> _Work:
        folder, parameters = self.study.place(trial.number), self.study.section.parameters
        chosen = [assignment(name, trial.params[name], parameters[name]) for name in parameters]
        arguments = run_arguments(self.project, [*self.overrides, *chosen], folder)
        job = Job(folder, [*self.start, *arguments, "--resume=auto"])
        return _Work(trial, lock, job, self.study.reported(trial))

    def watch(self, job: Job) -> None:
        """Report new evaluations in their order, up to the one at which the trial is pruned.

        So it does not matter how far the run is by the time that this process looks, and a trial
        that is taken up again is decided as it would have been.
        """
        work = self.works[job.name]
        total = self.project.training_config().total_steps
        total = work.trial.params.get("training.total_steps", total)
        rows = [] if work.pruned else [*read_evaluations(job.folder / EVALUATIONS)]
        for row in rows:
            step, mean = row["step"], float(row["return_mean"])
            if step <= work.decided or not math.isfinite(mean):
                continue
            if step not in work.reported:
                work.trial.report(mean, step)
                work.reported.add(step)
            work.decided = step
            # A run at its end is complete. Optuna decides by the last step that was reported.
            is_last = step == max(work.reported)
            if is_last and step < total and work.trial.should_prune():
                work.pruned = True
                job.send(signal.SIGTERM)
                return

    def ended(self, job: Job, code: int, stopping: bool) -> None:
        work = self.works[job.name]
        if work.pruned:
            self._tell(work, TrialState.PRUNED)
        elif code == 0:
            entry = job.manifest().get(_ENTRIES[self.study.section.score]) or {}
            mean = entry.get("return_mean")
            if is_number(mean) and math.isfinite(mean):
                self._tell(work, TrialState.COMPLETE, value=float(mean))
            else:
                self._tell(work, TrialState.FAIL, reason="no finite return")
        elif stopping:  # the trial stays open: the next worker continues it
            self._leave(work)
        elif code > 128 and work.kills < _MAX_KILLS:
            work.kills += 1
            self.say(f"warning: {job.name} was killed (exit code {code}); it continues")
            self.killed.append(work)
        else:
            self._tell(work, TrialState.FAIL, reason=f"exit code {code}: {job.error()}")

    def _leave(self, work: _Work) -> None:
        del self.works[work.job.name]
        work.lock.close()

    def _tell(
        self, work: _Work, state: TrialState, value: float | None = None, reason: str = ""
    ) -> None:
        if reason:
            work.trial.set_user_attr("reason", reason)
        self.study.study.tell(work.trial, value, state)
        self.study.claim_file(work.trial.number).unlink(missing_ok=True)
        self._leave(work)
        became = f"failed: {reason}; {work.job.log}" if reason else "pruned"
        became = became if value is None else f"return {value:.1f}"
        parameters = ", ".join(f"{name} = {shown(v)}" for name, v in work.trial.params.items())
        self.say(f"{work.job.name}: {became}  {parameters}")

    def progress(self) -> tuple[int, list[str]]:
        trials = [trial for trial in self.study.begun() if trial.state in _ENDED]
        best = best_of(trials)
        return len(trials), [] if best is None else [f"best {best.value:.1f}"]


def shown(value: object) -> str:
    """A parameter's value, short enough for a line."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def sweep(
    file: Path,
    *,
    overrides: Sequence[str] = (),
    jobs: int = 1,
    screen: Progress,
    command: Sequence[str] = TRAIN,
) -> tuple[Path, int]:
    """Work on the study of a project until its trials have ended, `jobs` of them at a time.

    Any number of processes and machines may work on one study; trials that a killed one left are
    taken up again.

    Args:
        command: what starts a run; `worldflux train`.

    Raises:
        ProjectFileError: a value that the sweep may draw is not allowed.
        StorageError: the study's database failed.

    Returns:
        The folder of the trials, and the exit code: 1 where no trial gave a return.
    """
    project = load_project(file, overrides)
    check_sweep(project, overrides)
    folder = project.root / project.training_config().output_dir
    check_parent(folder, "the runs of a sweep")
    try:
        study = Study(project, folder, _definition(project))
        worker = _Worker(study, project, command, overrides, screen.say)
        screen.phase("sweep", max(study.trials, len(study.begun())), "trials")
        stopped = run_jobs(worker, jobs, screen)
        if stopped is None:
            return folder, _report(study, screen, _start_of(project, worker.overrides))
    except StorageInternalError as error:
        hint = "the same command continues the study once the database is back"
        raise StorageError(f"the study's database failed: {error}", hint=hint) from None
    screen.say("interrupted; everything is saved; the same command continues the study")
    return folder, stopped


def check_sweep(project: Project, overrides: Sequence[str]) -> None:
    """Refuse a sweep of nothing, without a measure, or with values that a run would refuse.

    Raises:
        ProjectFileError: with every such value, at its place.
        ConfigurationError: there is nothing to vary or to measure.
    """
    sections = project.sections
    if not sections.sweep.parameters:
        hint = '[sweep.parameters]\n    "training.learning_rate" = { low = 1e-4, high = 1e-2 }'
        raise ConfigurationError("there is nothing to vary", where=str(project.path), hint=hint)
    if not sections.evaluation.episodes or sections.environment == NO_ENVIRONMENT:
        message = "a sweep compares runs by their evaluations, and these have none"
        raise ConfigurationError(message, where=project.where("evaluation", "episodes"))
    problems = []
    for name, swept in sections.sweep.parameters.items():
        for value in tried(swept):
            try:
                load_project(project, [*overrides, assignment(name, value, swept)])
            except ProjectFileError as error:
                message = error.problems[0].message
                problems.append(project.document.problem((*PARAMETERS, name), message))
                if not swept.choices:
                    break  # of a range, one value says it
    if problems:
        raise ProjectFileError(problems)


def _definition(project: Project) -> dict[str, object]:
    """What the trials of a study share: the sweep, and every setting that decides a result."""
    section = asdict(project.sections.sweep)
    shared = {f"sweep.{name}": v for name, v in section.items() if name not in _NOT_SHARED}
    shared |= {f"sweep.parameters.{name}": swept for name, swept in section["parameters"].items()}
    chosen = flattened(project.document.data).items()
    shared |= {k: v for k, v in chosen if decides_result(k) or k == "training.seed"}
    return dict(json.loads(json.dumps(shared)))


def _start_of(project: Project, overrides: Sequence[str]) -> list[str]:
    """The words that train the project of a sweep with the settings that its trials share."""
    here = project.path == Path.cwd() / "worldflux.toml"
    place = [] if here else ["--config", shown_path(project.path)]
    return ["worldflux", "train", *place, *(w for text in overrides for w in ("--set", text))]


def _report(study: Study, screen: Progress, start: Sequence[str]) -> int:
    """Print how the whole study ended, and what begins as its trials did; returns the exit code."""
    trials = study.begun()
    if len(trials) > study.trials:
        screen.say(f"the study has {len(trials)} trials, and {study.trials} were asked for")
    counts = Counter(trial.state for trial in trials)
    words = [f"{counted(counts[TrialState.COMPLETE], 'trial')} completed"]
    for state, name in (
        (TrialState.PRUNED, "pruned"),
        (TrialState.FAIL, "failed"),
        (TrialState.RUNNING, "at work in other processes"),
    ):
        words += [f"{counts[state]} {name}"] if counts[state] else []
    screen.say(", ".join(words))
    best = best_of(trials)
    if best is None:
        return 0 if counts[TrialState.RUNNING] else 1
    parameters = study.section.parameters
    set_ = [
        word
        for name, value in best.params.items()
        for word in ("--set", assignment(name, value, parameters[name]))
    ]
    screen.say(f"best      trial-{best.number:04d}, return {best.value:.1f}")
    screen.say(f"runs      worldflux runs list {shlex.quote(shown_path(study.folder))}")
    screen.say(f"next      {shlex.join([*start, '--seeds', '5', '--output-dir', 'DIR', *set_])}")
    return 0


def best_of(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The trial with the largest return, the first of equals."""
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return max(done, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)
