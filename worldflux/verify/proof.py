"""The proof verdict: several seeds of a run against a published learning curve.

"proven" takes every one of these: enough intact runs of one configuration, each with its own seed,
measured as the published curve was, as many environment frames, and a lower confidence bound of
the difference above minus the margin. Whatever is missing is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldflux.configuration_hash import configuration_of
from worldflux.errors import WorldFluxError
from worldflux.progress import SILENT, Progress, counted

from .bootstrap import Comparison, TaskScores, compare
from .curves import Curve, Source, built_in_curves
from .integrity import is_delegated
from .quick import play_random
from .run_scores import RunScores, collect_runs
from .verdict import Check, Verdict

PROVEN, NOT_PROVEN, INSUFFICIENT = "proven", "not proven", "insufficient evidence"
# A published curve that gained less than this share of its level over random proves nothing.
_LEAST_GAIN = 0.05
RANDOM_EPISODES = 20
_FRAMES_PER_STEP_TOLERANCE = 1e-6
_OPEN = ("running", "failed")


@dataclass(frozen=True)
class ProofSettings:
    """What a proof requires.

    Attributes:
        alpha: probability of calling an agent proven that is worse by exactly the margin.
        margin: how much worse is no worse: a share of what the published agent gained over random.
        min_seeds: runs that a task needs at least.
    """

    alpha: float = 0.05
    margin: float = 0.1
    min_seeds: int = 3


@dataclass(frozen=True)
class Task:
    """The runs of one environment and the published curve that they are compared with."""

    curve: Curve
    runs: list[RunScores]
    frames: int
    scores: TaskScores


def verify_proof(
    targets: Sequence[Path],
    settings: ProofSettings | None = None,
    *,
    references: Sequence[Curve] = (),
    progress: Progress = SILENT,
) -> Verdict:
    """Compare runs with published curves; `references` come before those that worldflux carries."""
    settings = settings or ProofSettings()
    runs = collect_runs(targets)
    checks = [_check_intact(runs, progress)]
    progress.phase("comparing")
    tasks: list[Task] = []
    if checks[0].status == "pass":
        checks += [_check_ended(runs), _check_seeds(runs, settings.min_seeds)]
        curves = [*references, *built_in_curves()]
        for environment, group in _by_environment(runs).items():
            found, task = _match(environment, group, curves)
            checks += found
            tasks += [] if task is None else [task]
    conclusion = INSUFFICIENT
    if all(check.status != "fail" for check in checks):
        result = compare([task.scores for task in tasks], settings.alpha)
        checks.append(_check_margin(result, settings, tasks))
        conclusion = PROVEN if checks[-1].status == "pass" else NOT_PROVEN
    target = ", ".join(str(path) for path in targets)
    return Verdict(target, "proof", checks, conclusion, _warnings(runs, tasks), tasks)


def _by_environment(runs: Sequence[RunScores]) -> dict[str, list[RunScores]]:
    groups: dict[str, list[RunScores]] = {}
    for run in runs:
        groups.setdefault(run.environment, []).append(run)
    return groups


def _check_intact(runs: Sequence[RunScores], progress: Progress) -> Check:
    problems = []
    progress.phase("checking", len(runs), "runs")
    for number, run in enumerate(runs):
        progress.show(number)
        problems += [f"{run.folder}: {problem}" for problem in run.problems()]
    words = f"{counted(len(runs), 'run')}, intact, nothing degraded"
    return Check.unless(problems, "runs", words, {"runs": len(runs)})


def _check_ended(runs: Sequence[RunScores]) -> Check:
    """Leaving out a run that continues, or that failed, would select runs by how they did."""
    states = [(run.folder, run.manifest["status"]) for run in runs]
    open_runs = [f"{run}: the run is {state}" for run, state in states if state in _OPEN]
    return Check.unless(open_runs, "ended", "every run has ended")


def _check_seeds(runs: Sequence[RunScores], least: int) -> Check:
    problems = []
    counts = {}
    for environment, group in _by_environment(runs).items():
        seeds = [run.seed for run in group]
        counts[environment] = len(set(seeds))
        if len(set(seeds)) < len(seeds):
            problems.append(f"{environment}: a seed was used twice ({sorted(seeds)})")
        elif len(seeds) < least:
            problems.append(f"{environment}: {len(seeds)} of at least {counted(least, 'seed')}")
        if _configurations(group) > 1:
            problems.append(f"{environment}: the runs are not of one configuration")
    if problems:
        return Check("seeds", "fail", "; ".join(problems), {"seeds": counts})
    return Check(
        "seeds", "pass", f"at least {counted(least, 'seed')} of one configuration per task", counts
    )


def _configurations(group: Sequence[RunScores]) -> int:
    """How many configurations the runs have, as far as all of them record it."""
    if all(run.records_configuration for run in group):
        return len({configuration_of(run.manifest) for run in group})
    return len({run.partial_configuration for run in group})


def _match(
    environment: str, runs: list[RunScores], curves: Sequence[Curve]
) -> tuple[list[Check], Task | None]:
    """The first curve of the same task that was measured as the runs were."""
    name = f"protocol {environment}"
    candidates = [
        curve
        for curve in curves
        if curve.environment == environment and curve.source.family == runs[0].family
    ]
    if not candidates:
        words = f"no published curve of {runs[0].family} in {environment}"
        return [Check(name, "fail", f"{words}; --reference FILE adds one")], None
    refused = []
    for curve in candidates:
        problems = _other_protocol(curve.source, runs)
        if not problems:
            protocol = Check(name, "pass", curve.source.protocol, {"source": curve.source.source})
            length, task = _reached(curve, runs)
            return [protocol, length], task
        refused.append(f"{curve.source.id}: {', '.join(problems)}")
    return [
        Check(name, "fail", f"measured differently from the published curve ({'; '.join(refused)})")
    ], None


def _other_protocol(source: Source, runs: list[RunScores]) -> list[str]:
    """How the runs were measured differently from the source."""
    problems = []
    if any(run.observation != source.observation for run in runs):
        problems.append(f"the published agent saw {source.observation}")
    for run in runs:
        entry = run.manifest["environment"]
        frames = run.frames_per_env_step
        repeat = entry.get("action_repeat", frames)
        if frames is None or repeat is None:
            problems.append("the action repeat of the runs is not known")
        elif abs(repeat - source.frames_per_agent_step) > _FRAMES_PER_STEP_TOLERANCE:
            problems.append(f"action repeat {repeat:g}, published {source.frames_per_agent_step}")
        elif not run.points(source):
            problems.append(f"there are no returns of {source.evaluation}")
        if source.sticky_actions is not None and run.sticky_actions is not source.sticky_actions:
            problems.append(
                "published with sticky actions"
                if source.sticky_actions
                else "published without sticky actions (repeat_action_probability = 0)"
            )
        limit = entry.get("time_limit")
        published = source.agent_steps_per_episode
        if published is not None and limit not in (None, published):
            problems.append(f"episodes of {limit} agent steps, published {published}")
    return list(dict.fromkeys(problems))


def _reached(curve: Curve, runs: list[RunScores]) -> tuple[Check, Task | None]:
    """The largest published number of frames at which every run has a return."""
    name = f"length {curve.environment}"
    for index in reversed(range(len(curve.steps))):
        frames = curve.steps[index]
        returns = [run.score_at(frames, curve.source) for run in runs]
        if frames == 0 or any(value is None for value in returns):
            continue
        try:
            random = _random_return(runs)
        except WorldFluxError as error:
            words = "no run records a random policy's return, and its environment cannot be made "
            return Check(name, "fail", f"{words}here ({error.message})"), None
        scores = TaskScores(
            returns=np.array(returns, np.float64),
            random=random,
            published_mean=curve.mean[index],
            published_sd=curve.sd[index],
            published_seeds=curve.seeds,
        )
        problem = _unusable(scores, frames)
        if problem is not None:
            return Check(name, "fail", problem), None
        return _check_length(name, scores, frames), Task(curve, runs, frames, scores)
    first = next((step for step in curve.steps if step > 0), 0)
    words = f"too short: not every run has a return at {first:,} frames, the first published ones"
    return Check(name, "fail", words), None


def _unusable(scores: TaskScores, frames: int) -> str | None:
    """Why nothing can be compared with the published scores, if so."""
    if scores.published_seeds < 2:
        return "the published curve is of one seed"
    if scores.scale <= _LEAST_GAIN * max(abs(scores.random), abs(scores.published_mean)):
        return f"at {frames:,} frames the published agent is no better than a random policy"
    return None


def _check_length(name: str, scores: TaskScores, frames: int) -> Check:
    numbers = {
        "frames": frames,
        "returns": [float(value) for value in scores.returns],
        "random_return_mean": scores.random,
        "published_mean": scores.published_mean,
        "published_sd": scores.published_sd,
        "published_seeds": scores.published_seeds,
    }
    words = (
        f"at {frames:,} frames: {np.mean(scores.returns):.1f} over "
        f"{counted(len(scores.returns), 'seed')}; "
        f"published {scores.published_mean:.1f} +- {scores.published_sd:.1f} over "
        f"{scores.published_seeds}; random {scores.random:.1f}"
    )
    return Check(name, "pass", words, numbers)


def _random_return(runs: list[RunScores]) -> float:
    """A random policy's return as recorded; played where no run records it, as no delegated one."""
    recorded = [run.manifest.get("random_return_mean") for run in runs]
    known = [float(value) for value in recorded if isinstance(value, int | float)]
    if known:
        return float(np.mean(known))
    return play_random(runs[0].manifest, RANDOM_EPISODES, seed=0).return_mean


def _check_margin(result: Comparison, settings: ProofSettings, tasks: list[Task]) -> Check:
    proven = result.difference_low > -settings.margin
    numbers = {
        **vars(result),
        "margin": settings.margin,
        "alpha": settings.alpha,
        "tasks": len(tasks),
        "runs": sum(len(task.runs) for task in tasks),
    }
    words = (
        f"interquartile mean {result.score:.3f} of the published gain over random "
        f"({1 - 2 * settings.alpha:.0%} interval {result.low:.3f} to {result.high:.3f}); the "
        f"difference is at least {result.difference_low:+.3f} at {1 - settings.alpha:.0%} "
        f"confidence, the margin {-settings.margin:+.3f}"
    )
    if not proven:
        worse = result.difference_high < -settings.margin
        words += "; it is worse" if worse else "; inconclusive: more seeds may settle it"
    return Check("no worse than published", "pass" if proven else "fail", words, numbers)


def _warnings(runs: Sequence[RunScores], tasks: Sequence[Task]) -> list[str]:
    """What a reader of the verdict must know of the runs and of the published curves, each once."""
    found = [
        f"{run.folder} records no [data], [online_collection] and [evaluation] (an earlier "
        "version): whether they are the same is not known"
        for run in runs
        if not run.records_configuration and not is_delegated(run.folder, run.manifest)
    ]
    for task in tasks:
        source, manifest = task.curve.source, task.runs[0].manifest
        cited = f"{source.algorithm} ({source.source}, {source.licence})"
        found += [f"{cited}: {warning}" for warning in source.warnings]
        parameters = manifest.get("parameters")
        size = f", {parameters:,} parameters" if isinstance(parameters, int) else ""
        found.append(f"the runs are of {manifest['model']}{size}")
        if any((run.manifest.get("final") or {}).get("episodes_cut") for run in task.runs):
            found.append("evaluation episodes were cut (evaluation.max_episode_steps)")
    return list(dict.fromkeys(found))
