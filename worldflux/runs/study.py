"""An Optuna study of runs: it survives the death of any process that works on it, at any moment.

A trial is claimed by a lock of the operating system (flock) on a file next to its folder, which is
free as soon as its worker is gone. Whoever asks for work next takes the trial up again. The sampler
of a trial is seeded by the trial's number, so that a restarted worker draws what the first one
would have drawn.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import socket
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from worldflux.dashboard.summary import find_trainer
from worldflux.errors import ConfigurationError, MissingDependencyError, WorldFluxError
from worldflux.files import require_place
from worldflux.optional import is_installed
from worldflux.project.loader import Project
from worldflux.project.scaffold import to_toml
from worldflux.project.sections import SweptSection

JOURNAL = "study.journal"
RUN, DEFINITION = (
    "run",
    "definition",
)  # attributes: of a trial its folder, of the study its settings
_SAMPLERS: dict[str, tuple[str, str | None]] = {
    "tpe": ("TPESampler", None),
    "random": ("RandomSampler", None),
    "gp": ("GPSampler", "scipy"),
    "cmaes": ("CmaEsSampler", "cmaes"),
}
_PRUNERS = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
}
_PACKAGES = {"psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}  # by what is imported
# On another machine a trial has its attribute within this time of its number.
_UNSIGNED = datetime.timedelta(seconds=60)


class Study:
    """The study of a project in a folder, whose trials are the run folders `trial-N` in it.

    Args:
        definition: what every worker has to agree on, by name.

    Raises:
        ConfigurationError: the study was begun with another definition, or the storage, the
            sampler or the pruner cannot be made.
    """

    def __init__(self, project: Project, folder: Path, definition: Mapping[str, Any]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder, self.section = folder.resolve(), project.sections.sweep
        self.trials = self.section.trials
        _try_draw(project)  # what is wrong is reported before a file is made
        _pruner(project)
        _require_database(project)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._turn():
            self.study = optuna.create_study(
                study_name=f"{project.sections.project_name}/{folder.name}",
                storage=_storage(project, self.folder),
                sampler=_ByNumber(project),
                pruner=_pruner(project),
                direction="maximize",
                load_if_exists=True,
            )
            known = self.study.user_attrs.get(DEFINITION)
            if known is None:
                self.study.set_user_attr(DEFINITION, dict(definition))
                known = definition
        changed = [n for n in {**known, **definition} if known.get(n) != definition.get(n)]
        if changed:
            raise ConfigurationError(
                f"this study was begun with other settings: {', '.join(sorted(changed))}",
                where=str(folder),
                hint="set them back, or begin another study: --output-dir DIR",
            )

    def claim(self) -> tuple[Trial, TextIO] | None:
        """A trial that nobody works on, or a new one, and its lock; None where there is none now.

        Its parameters are drawn, or those that it has.
        """
        with self._turn():
            for left in self._running():
                lock = _lock(self.claim_file(left.number), wait=False)
                if lock is None:
                    continue
                state = self.study._storage.get_trial(left._trial_id).state
                is_open = state == TrialState.RUNNING  # still, now that it is locked
                if is_open and find_trainer(self.place(left.number)) is None:
                    return self._drawn(Trial(self.study, left._trial_id)), lock
                lock.close()
            if len(self.study.get_trials(deepcopy=False)) >= self.trials:
                return None
            trial = self.study.ask()
            if trial.number >= self.trials:  # another machine was faster
                self.study.tell(trial, state=TrialState.FAIL)
                return None
            lock = _lock(self.claim_file(trial.number), wait=True)
            assert lock is not None
            trial.set_user_attr(RUN, f"{socket.gethostname()}:{self.place(trial.number)}")
            return self._drawn(trial), lock

    def begun(self) -> list[FrozenTrial]:
        """Every trial of the study, also those beyond the number that is asked for now; not the
        numbers that were given back when another machine was faster."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.number < self.trials or RUN in trial.user_attrs]

    def is_handed_out(self) -> bool:
        """Whether every trial has ended, or is at work on another machine or in another process."""
        trials = self.study.get_trials(deepcopy=False)
        return len(trials) >= self.trials and not self._abandoned()

    def _abandoned(self) -> bool:
        """Whether a trial of this folder is without a worker; its trainer may still be saving."""
        for left in self._running():
            lock = _lock(self.claim_file(left.number), wait=False)
            if lock is not None:
                lock.close()
                return True
        return False

    def _running(self) -> list[FrozenTrial]:
        """The trials of this folder that have not ended."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial for trial in running if self._is_here(trial)]

    def _is_here(self, trial: FrozenTrial) -> bool:
        place, host = self.place(trial.number), socket.gethostname()
        signed = trial.user_attrs.get(RUN)
        if signed is None:  # its worker died before it signed; that of another machine may not have
            begun = trial.datetime_start or datetime.datetime.min
            alone = self.section.storage is None
            return alone or datetime.datetime.now() - begun > _UNSIGNED
        return signed == f"{host}:{place}" or (signed.endswith(f":{place}") and place.exists())

    def reported(self, trial: Trial) -> set[int]:
        """The updates whose evaluations the study has of a trial."""
        return set(self.study._storage.get_trial(trial._trial_id).intermediate_values)

    def place(self, number: int) -> Path:
        """The run folder of a trial."""
        return self.folder / f"trial-{number:04d}"

    def claim_file(self, number: int) -> Path:
        """What is locked while somebody works on the trial."""
        return self.folder / f".trial-{number:04d}.lock"

    def _drawn(self, trial: Trial) -> Trial:
        """The trial with all of its parameters; those that it has stay."""
        for name, swept in self.section.parameters.items():
            _suggest(trial, name, swept)
        return trial

    @contextmanager
    def _turn(self) -> Iterator[None]:
        lock = _lock(self.folder / ".study.lock", wait=True)
        assert lock is not None
        with lock:
            yield


def _suggest(trial: Trial, name: str, swept: SweptSection) -> Any:
    if swept.choices:
        return trial.suggest_categorical(name, [_choice(value) for value in swept.choices])
    low, high, step = swept.low, swept.high, swept.step
    if _is_whole(swept):
        return trial.suggest_int(name, low, high, log=swept.log, step=step or 1)
    return trial.suggest_float(name, low, high, log=swept.log, step=step)


def _is_whole(swept: SweptSection) -> bool:
    return all(isinstance(value, int | None) for value in (swept.low, swept.high, swept.step))


def tried(swept: SweptSection) -> tuple[Any, ...]:
    """Values as they are drawn: the choices, or a range's ends and the one next to its low."""
    if swept.choices:
        return swept.choices
    low, high, step = swept.low, swept.high, swept.step
    if _is_whole(swept):
        return low, low + (step or 1), high
    return float(low), float(low + (step or 0)), float(high)


def _choice(value: Any) -> Any:
    """A choice as Optuna takes it; a list or table is the text that TOML writes."""
    return value if isinstance(value, bool | int | float | str) else to_toml(value)


def assignment(name: str, value: Any, swept: SweptSection) -> str:
    """A parameter of a trial as `--set` takes it."""
    is_text = isinstance(value, str) and value in swept.choices
    return f"{name}={to_toml(value) if is_text or not isinstance(value, str) else value}"


class _ByNumber(BaseSampler):
    """The chosen sampler, made again for each draw with a seed of its trial and parameter.

    So a draw does not depend on those that this process made before.
    """

    def __init__(self, project: Project) -> None:
        self.project = project

    def _of(self, trial: FrozenTrial, parameter: str = "") -> BaseSampler:
        return _seeded_sampler(self.project, f"{trial.number} {parameter}")

    def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Any, trial: Any, param_name: str, param_distribution: Any
    ) -> Any:
        sampler = self._of(trial, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        self._of(trial).after_trial(study, trial, state, values)


def _seeded_sampler(project: Project, draw: str) -> BaseSampler:
    section = project.sections.sweep
    name, package = _SAMPLERS[section.sampler]
    if package is not None and not is_installed(package):
        message = f'sweep.sampler = "{section.sampler}" needs {package}, which is not installed'
        raise MissingDependencyError(message, hint=f"pip install {package}")
    if "seed" in section.sampler_options:
        raise ConfigurationError(
            "sampler_options.seed would give every trial the same values",
            where=project.where("sweep", "sampler_options"),
            hint=f"write sampler_seed = {section.sampler_options['seed']} under [sweep]",
        )
    seed = zlib.crc32(f"{section.sampler_seed} {draw}".encode())
    options = {"seed": seed, **section.sampler_options}
    return _made(project, "sampler_options", getattr(optuna.samplers, name), options)


def _try_draw(project: Project) -> None:
    """Draw a trial of a study in memory: what is wrong with the sampler is an error of it."""
    section = project.sections.sweep
    study = optuna.create_study(sampler=_ByNumber(project), direction="maximize")
    try:
        trial = study.ask()
        for name, swept in section.parameters.items():
            _suggest(trial, name, swept)
    except WorldFluxError:
        raise
    except Exception as error:  # an option that its class takes and cannot use
        where = project.where("sweep", "sampler_options")
        kind = _SAMPLERS[section.sampler][0]
        raise ConfigurationError(f"Optuna's {kind}: {error}", where=where) from None


def _pruner(project: Project) -> Any:
    section = project.sections.sweep
    kind = getattr(optuna.pruners, _PRUNERS[section.pruner])
    return _made(project, "pruner_options", kind, section.pruner_options)


def _made(project: Project, key: str, kind: Any, options: Mapping[str, Any]) -> Any:
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        where = project.where("sweep", key)
        raise ConfigurationError(f"Optuna's {kind.__name__}: {error}", where=where) from None


def _storage(project: Project, folder: Path) -> BaseStorage:
    url = project.sections.sweep.storage
    if url is None:
        lock = _JournalLock(folder / f".{JOURNAL}.lock", folder / JOURNAL)
        return JournalStorage(JournalFileBackend(str(folder / JOURNAL), lock))
    with _database_errors(project):
        return RDBStorage(url)


def _require_database(project: Project) -> None:
    """Open the study's database and look into it; nothing is written anywhere."""
    import sqlalchemy

    if (url := project.sections.sweep.storage) is None:
        return
    with _database_errors(project):
        engine = sqlalchemy.create_engine(url)
        name = engine.url.database
        # SQLite makes a file where there is none; what is left is whether it could.
        if engine.dialect.name == "sqlite" and name and not Path(name).exists():
            require_place(Path(name), "sweep.storage")
            return
        try:
            sqlalchemy.inspect(engine).get_table_names()
        finally:
            engine.dispose()


@contextmanager
def _database_errors(project: Project) -> Iterator[None]:
    """What a database or its driver says, at the place of `sweep.storage`."""
    import sqlalchemy

    where = project.where("sweep", "storage")
    try:
        yield
    except ConfigurationError:
        raise
    except ImportError as error:
        origin = error.__cause__ or error.__context__ or error
        driver = getattr(origin, "name", None) or "its driver"
        message = f"the study's database needs {driver}, which is not installed"
        hint = f"pip install {_PACKAGES.get(driver, driver)}"
        raise MissingDependencyError(message, where=where, hint=hint) from None
    except Exception as error:
        message = str(error).strip().splitlines()[0]
        hint = "the same command, once the database is there"
        if isinstance(error, sqlalchemy.exc.ArgumentError):  # the URL itself
            hint = (
                "write a URL of SQLAlchemy: sqlite:///study.db or postgresql+psycopg2://me@host/db"
            )
        raise ConfigurationError(
            f"the study's database: {message}", where=where, hint=hint
        ) from None


class _JournalLock(JournalFileOpenLock):
    """flock instead of a file that a killed process would leave; cuts a line that one left."""

    def __init__(self, path: Path, journal: Path) -> None:
        self.path, self.journal = path, journal
        self._held: TextIO | None = None

    def acquire(self) -> bool:
        self._held = _lock(self.path, wait=True)
        with self.journal.open("r+b") as file:
            content_end = file.seek(0, os.SEEK_END)
            if content_end and os.pread(file.fileno(), 1, content_end - 1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        assert self._held is not None
        self._held.close()


def _lock(path: Path, *, wait: bool) -> TextIO | None:
    """The file, locked until it is closed; None where somebody else holds it."""
    file = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.close()
        return None
    return file
