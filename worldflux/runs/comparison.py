"""Groups of seeds compared as the field does it (Agarwal et al. 2021): few runs, all of them used.

The score of a run is the mean return of its last (or best) evaluation. Over several environments
scores are normalised: 0 is a random policy, 1 the best group's mean in that environment.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from worldflux.configuration_hash import configuration_of
from worldflux.errors import ConfigurationError, RunFolderError
from worldflux.progress import counted
from worldflux.project.document import shown_path
from worldflux.project.manifest import sound_manifest
from worldflux.run_log import is_number
from worldflux.verify.bootstrap import (
    Interval,
    improvement_interval,
    profile,
    score_interval,
)

from .listing import runs_below

Score = Literal["last", "best"]
_LEVELS = 101
_ENTRIES: dict[Score, str] = {"last": "final", "best": "best"}


@dataclass
class Group:
    """Runs of one name: their scores by environment, in the order of their folders."""

    name: str
    scores: dict[str, list[float]] = field(default_factory=dict)

    @property
    def strata(self) -> list[np.ndarray]:
        """The scores of each environment, in the order of their names."""
        return [np.array(self.scores[name]) for name in sorted(self.scores)]

    @property
    def runs(self) -> int:
        return sum(map(len, self.scores.values()))


@dataclass(frozen=True)
class GroupComparison:
    """Groups with their intervals at confidence 1 - `alpha`.

    Attributes:
        unit: of the scores: "return", or "normalised score".
        improvements: P(first > second) for each pair of groups.
        warnings: what to know before the numbers are used.
    """

    groups: list[Group]
    alpha: float
    score: Score
    unit: str
    intervals: dict[str, Interval]
    improvements: dict[tuple[str, str], Interval]
    warnings: list[str]

    def profiles(self) -> tuple[np.ndarray, dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
        """Levels `[k]`, and of each group the share of runs above them with its interval."""
        values = np.concatenate([column for group in self.groups for column in group.strata])
        levels = np.linspace(values.min(), values.max(), _LEVELS)
        return levels, {g.name: profile(g.strata, levels, self.alpha) for g in self.groups}

    def rows(self) -> list[dict[str, Any]]:
        """The interquartile means, a row for each group."""
        return [
            {"group": group.name, "runs": group.runs, **vars(self.intervals[group.name])}
            for group in self.groups
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON takes it."""
        levels, profiles = self.profiles()
        return {
            "score": self.score,
            "unit": self.unit,
            "confidence": 1 - self.alpha,
            "warnings": self.warnings,
            "interquartile_mean": self.rows(),
            "probability_of_improvement": [
                {"better": first, "than": second, **vars(interval)}
                for (first, second), interval in self.improvements.items()
            ],
            "scores": {group.name: group.scores for group in self.groups},
            "profile": {
                "level": levels.tolist(),
                **{
                    name: {"share": share.tolist(), "low": low.tolist(), "high": high.tolist()}
                    for name, (share, low, high) in profiles.items()
                },
            },
        }

    def __str__(self) -> str:
        width = max(len("group"), *(len(group.name) for group in self.groups))
        confidence = f"{100 * (1 - self.alpha):g} % interval"
        lines = [f"{'group':<{width}}  runs  {'IQM':>9}  {confidence}"]
        for group in self.groups:
            interval = self.intervals[group.name]
            lines.append(
                f"{group.name:<{width}}  {group.runs:>4}  {interval.value:>9.2f}  "
                + _shown(interval, ".2f")
            )
        for (first, second), interval in self.improvements.items():
            words = f"P({first} > {second}) = {interval.value:.2f}"
            lines.append(f"{words}  {_shown(interval, '.2f')}")
        what = f"mean return of each run's {self.score} evaluation"
        lines.append(f"score: {what}" + (", normalised" if self.unit != "return" else ""))
        return "\n".join(lines)


def _shown(interval: Interval, form: str) -> str:
    if interval.low is None or interval.high is None:
        return "no interval: too few runs"
    return f"[{interval.low:{form}}, {interval.high:{form}}]"


def compare_groups(
    places: Sequence[Path], *, score: Score = "last", alpha: float = 0.05
) -> GroupComparison:
    """Compare the runs below several folders, a group each; or those below one, by configuration.

    A folder that is named twice is one.

    Raises:
        RunFolderError: there is nothing to compare.
    """
    places = list({place.resolve(): place for place in reversed(places)}.values())[::-1]
    runs: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    warnings: list[str] = []
    above = os.path.commonpath([os.path.dirname(os.path.abspath(place)) for place in places])
    for place in places:
        for folder in runs_below([place]):
            try:
                manifest = sound_manifest(folder)
            except RunFolderError as error:
                warnings.append(f"{shown_path(folder)} is left out: {error.message}")
                continue
            same = configuration_of(manifest)
            if len(places) > 1:
                same = os.path.relpath(place, above)
            runs.setdefault(same, []).append((folder, manifest))
    groups: list[Group] = []
    randoms: dict[str, list[float]] = {}
    warnings += _shared({same: [f for f, _ in runs[same]] for same in runs})
    steps: set[int] = set()
    for same, members in runs.items():
        group = Group(same if len(places) > 1 else _name_of(same, members, runs))
        for folder, manifest in members:
            entry = manifest.get(_ENTRIES[score])
            numbers = ("return_mean", "env_steps")
            if not isinstance(entry, Mapping) or not all(is_number(entry.get(n)) for n in numbers):
                warnings.append(f"{shown_path(folder)} is left out: it has no evaluation")
                continue
            if (status := manifest.get("status", "of unknown status")) != "completed":
                warnings.append(f"{shown_path(folder)} is {status}; it counts as it is")
            environment = str(manifest.get("environment", {}).get("id"))
            group.scores.setdefault(environment, []).append(float(entry["return_mean"]))
            steps.add(int(entry["env_steps"]))
            if is_number(random := manifest.get("random_return_mean")):
                randoms.setdefault(environment, []).append(float(random))
        groups += [group] if group.scores else []
    if not groups:
        raise RunFolderError("no run here has an evaluation", where=str(places[0]))
    if score == "last" and len(steps) > 1:
        warnings.append(
            f"the runs were scored after {min(steps)} to {max(steps)} environment steps"
        )
    found, unit = _normalised(groups, randoms)
    intervals = {group.name: score_interval(group.strata, alpha) for group in found}
    improvements = {
        (one.name, other.name): improvement_interval(one.strata, other.strata, alpha)
        for one, other in itertools.combinations(
            sorted(found, key=lambda group: -intervals[group.name].value), 2
        )
    }
    return GroupComparison(found, alpha, score, unit, intervals, improvements, warnings)


def _shared(groups: Mapping[str, Sequence[Path]]) -> Iterator[str]:
    """A warning for each two groups that have runs in common."""
    folders = {name: {folder.resolve() for folder in runs} for name, runs in groups.items()}
    for one, other in itertools.combinations(folders, 2):
        if count := len(folders[one] & folders[other]):
            yield (
                f"{one} and {other} share {counted(count, 'run')}: they are not independent, and "
                "their intervals and P do not hold; name folders that do not overlap"
            )


def _name_of(
    same: str, members: list[tuple[Path, dict[str, Any]]], groups: Mapping[str, Any]
) -> str:
    """What runs of one configuration are called: in [logging], else as their folder is."""
    folder, manifest = members[0]
    logging = manifest.get("configuration", {}).get("logging", {})
    name = logging.get("group") or logging.get("name")
    alone = len(members) == 1
    if len(groups) == 1 or (alone and not name):
        return str(name or (folder if alone else folder.parent).name)
    return f"{name or folder.parent.name} ({same[:8]})"


def _normalised(groups: list[Group], randoms: Mapping[str, list[float]]) -> tuple[list[Group], str]:
    """The groups with scores that can be averaged over environments, and their unit."""
    environments = sorted({name for group in groups for name in group.scores})
    for group in groups:
        if missing := set(environments) - group.scores.keys():
            raise ConfigurationError(
                f"{group.name} has no run in {', '.join(sorted(missing))}; groups are compared "
                f"over the same {counted(len(environments), 'environment')}",
                hint="name folders whose runs share their environments",
            )
    if len(environments) == 1:
        return groups, "return"
    scaled = [Group(group.name) for group in groups]
    for name in environments:
        if not randoms.get(name):
            message = f"no run in {name} recorded a random policy's return, which is the score's 0"
            raise ConfigurationError(message, hint="compare one environment at a time")
        zero = float(np.mean(randoms[name]))
        one = max(float(np.mean(group.scores[name])) for group in groups)
        if one <= zero:
            raise ConfigurationError(f"no group is better than a random policy in {name}")
        for group, target in zip(groups, scaled, strict=True):
            target.scores[name] = [(x - zero) / (one - zero) for x in group.scores[name]]
    return scaled, "normalised score"
