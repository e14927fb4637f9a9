"""The tasks of a project, as [[tasks]] names them: measured, recorded, and made again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from worldflux.envs.spec import EnvironmentSpec
from worldflux.envs.tasks import PaddedTask, Padding, padding_of
from worldflux.errors import RunFolderError

from .loader import Project

Maker = Callable[[str | None], Any]


@dataclass(frozen=True)
class Task:
    """One task of a run, at its place among all that the model knows."""

    name: str
    index: int
    env_id: str
    kwargs: Mapping[str, Any]
    action_dim: int
    time_limit: int | None
    weight: float = 1.0
    reference_return: float | None = None
    cut: int | None = None  # episode_length, where it was set


@dataclass(frozen=True)
class TaskSet:
    """The tasks that are played; environment number i plays task i % N."""

    tasks: tuple[Task, ...]
    padding: Padding

    @classmethod
    def of(cls, project: Project, specs: Sequence[EnvironmentSpec]) -> TaskSet:
        """The tasks of [[tasks]], each with its environment's contract."""
        sections = project.sections.tasks
        tasks = [
            Task(
                name=section.name,
                index=index,
                env_id=environment_of(project, index)[0],
                kwargs=environment_of(project, index)[1],
                action_dim=spec.action_dim,
                time_limit=_shorter(section.episode_length, spec.time_limit),
                weight=section.weight,
                reference_return=section.reference_return,
                cut=section.episode_length,
            )
            for index, (section, spec) in enumerate(zip(sections, specs, strict=True))
        ]
        return cls(tuple(tasks), padding_of([task.name for task in tasks], specs))

    @classmethod
    def recorded(cls, entry: Any) -> TaskSet | None:
        """The tasks that a manifest records; None for a run of one."""
        if entry is None:
            return None
        try:
            padding = {**entry["padding"], "obs_shape": tuple(entry["padding"]["obs_shape"])}
            return cls(tuple(Task(**task) for task in entry["tasks"]), Padding(**padding))
        except (TypeError, KeyError) as error:
            raise RunFolderError(f"run_manifest.json is damaged: tasks: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        return {"tasks": [asdict(task) for task in self.tasks], "padding": asdict(self.padding)}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)

    def makers(
        self, maker: Callable[[str, Mapping[str, Any]], Maker], check_bounds: bool
    ) -> list[Maker]:
        """What makes each task's environment, padded; `maker` takes an id and arguments."""

        def padded(make: Maker, task: Task, render_mode: str | None) -> Any:
            return PaddedTask(make(render_mode), self.padding, task.index, task.cut, check_bounds)

        return [partial(padded, maker(task.env_id, task.kwargs), task) for task in self.tasks]

    def spec(self, spec: EnvironmentSpec) -> EnvironmentSpec:
        """The contract of the environments that play all of them."""
        limits = [task.time_limit for task in self.tasks]
        known = [limit for limit in limits if limit is not None]
        return replace(
            spec,
            time_limit=max(known) if len(known) == len(limits) else None,
            tasks=self.names,
            task_actions=self.action_dims,
        )

    @property
    def action_dims(self) -> tuple[int, ...]:
        """Numbers of an action by the index of the task."""
        sizes = {task.index: task.action_dim for task in self.tasks}
        return tuple(sizes.get(i, self.padding.action_dim) for i in range(self.padding.count))

    @property
    def references(self) -> dict[str, float | None]:
        """The return that counts as 1 in the normalised score of each task."""
        return {task.name: task.reference_return for task in self.tasks}

    @property
    def time_limits(self) -> tuple[int | None, ...]:
        """In agent steps."""
        return tuple(task.time_limit for task in self.tasks)

    def shares(self, rows: Sequence[int]) -> np.ndarray:
        """How likely a drawn sequence of each task is kept, where the replay holds `rows` `[N]` of
        each, so that batches hold the tasks by their weights."""
        wanted = np.array([task.weight for task in self.tasks]) / np.maximum(rows, 1)
        return np.asarray(wanted / wanted.max())


def environment_of(project: Project, index: int) -> tuple[str, dict[str, Any]]:
    """Id and arguments of a task's environment: its own over the project's."""
    sections = project.sections
    task = sections.tasks[index]
    arguments = {**sections.environment_kwargs, **task.environment_kwargs}
    return task.environment or sections.environment, arguments


def alone(project: Project, index: int) -> Project:
    """The project of one task alone."""
    env_id, arguments = environment_of(project, index)
    sections = replace(project.sections, environment=env_id, environment_kwargs=arguments, tasks=())
    return replace(project, sections=sections)


def task_entries(
    names: Sequence[str],
    returns: np.ndarray,
    random: Mapping[str, float],
    references: Mapping[str, float | None],
) -> dict[str, dict[str, float]]:
    """Returns by task of episodes `[E]` that tasks play in turn.

    `normalized` is 0 for a random policy's return and 1 for the task's reference return.
    """
    entries: dict[str, dict[str, float]] = {}
    for index, name in enumerate(names):
        own = returns[index :: len(names)]
        entry = {"return_mean": float(own.mean()), "return_std": float(own.std())}
        baseline, reference = random.get(name), references.get(name)
        if baseline is not None:
            entry["random_return_mean"] = baseline
            if reference is not None and reference != baseline:
                entry["normalized"] = (entry["return_mean"] - baseline) / (reference - baseline)
        entries[name] = entry
    return entries


def _shorter(one: int | None, other: int | None) -> int | None:
    known = [limit for limit in (one, other) if limit is not None]
    return min(known, default=None)


def random_returns(names: Sequence[str], returns: np.ndarray) -> dict[str, float]:
    """Mean return of a random policy by task."""
    return {name: float(returns[i :: len(names)].mean()) for i, name in enumerate(names)}
