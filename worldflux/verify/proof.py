"""The proof verdict: several seeds of a run against a published learning curve.

"proven" takes every one of these: enough intact runs of one configuration with seeds of their own,
measured as the published curve was, as many environment frames, and a lower confidence bound of
the difference above minus the margin. Whatever is missing is named; nothing is proven by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldflux.errors import WorldFluxError
from worldflux.progress import SILENT, Progress

from .bootstrap import Comparison, TaskScores, compare
from .curves import Curve, Source, built_in_curves
from .delegated import is_delegated, play_random
from .run_scores import RunScores, collect_runs
from .verdict import Check, Verdict

PROVEN, NOT_PROVEN, INSUFFICIENT = "proven", "not proven", "insufficient evidence"
# A published curve that gained less than this share of its own level over random shows nothing.
_LEAST_GAIN = 0.05
RANDOM_EPISODES = 20
_FRAMES_PER_STEP_TOLERANCE = 1e-6


@dataclass(frozen=True)
class ProofSettings:
    """What is asked of a proof.

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
    """The runs of one environment beside the published curve of the same."""

    curve: Curve
    runs: list[RunScores]
    frames: int
    scores: TaskScores


def verify_proof(
    targets: Sequence[Path],
    settings: ProofSettings | None = None,
    *,
    references: Sequence[Curve] = (),
    seed: int = 0,
    progress: Progress = SILENT,
) -> Verdict:
    """Compare runs with published curves.

    Args:
        targets: run folders, or folders that hold some.
        references: further curves; they come before those that worldflux carries.
        progress: shows how many runs have been checked.

    Raises:
        RunFolderError: when there is no run, or a manifest cannot be read.
    """
    asked = settings or ProofSettings()
    runs = collect_runs(targets)
    checks = [_check_intact(runs, progress)]
    progress.phase("comparing")
    curves = [*references, *built_in_curves()]
    tasks: list[Task] = []
    warnings = [
        f"{run.folder} records no [data], [online_collection] and [evaluation] (an earlier "
        "version): that they are the same is not known"
        for run in runs
        if not run.records_configuration and not is_delegated(run.folder, run.manifest)
    ]
    if checks[0].status == "pass":
        checks += [_check_ended(runs), _check_seeds(runs, asked.min_seeds)]
        for environment in dict.fromkeys(run.environment for run in runs):
            group = [run for run in runs if run.environment == environment]
            found, task = _match(environment, group, curves)
            checks += found
            if task is not None:
                tasks.append(task)
                warnings += _warnings(task)
    target = ", ".join(str(path) for path in targets)
    if any(check.status == "fail" for check in checks):
        return Verdict(target, "proof", checks, INSUFFICIENT, list(dict.fromkeys(warnings)))
    result = compare([task.scores for task in tasks], asked.alpha, seed)
    checks.append(_check_margin(result, asked, tasks))
    conclusion = PROVEN if checks[-1].status == "pass" else NOT_PROVEN
    return Verdict(target, "proof", checks, conclusion, list(dict.fromkeys(warnings)))


def proof_tasks(targets: Sequence[Path], references: Sequence[Curve] = ()) -> list[Task]:
    """The tasks that a verdict is about, for its plots; those that cannot be compared are left out.

    A task whose runs are too few is shown all the same.
    """
    runs = collect_runs(targets)
    if _check_intact(runs).status == "fail":
        return []
    curves = [*references, *built_in_curves()]
    found = []
    for environment in dict.fromkeys(run.environment for run in runs):
        group = [run for run in runs if run.environment == environment]
        task = _match(environment, group, curves)[1]
        if task is not None:
            found.append(task)
    return found


def _check_intact(runs: Sequence[RunScores], progress: Progress = SILENT) -> Check:
    problems = []
    progress.phase("checking", len(runs), "runs")
    for number, run in enumerate(runs):
        progress.show(number)
        problems += [f"{run.folder}: {problem}" for problem in run.problems()]
    if problems:
        return Check("runs", "fail", "; ".join(problems))
    return Check("runs", "pass", f"{len(runs)} runs, intact, nothing degraded", {"runs": len(runs)})


def _check_ended(runs: Sequence[RunScores]) -> Check:
    """A run that goes on, or that failed, may be left out for how it did."""
    found = [(run.folder, run.manifest["status"]) for run in runs]
    open_ones = [f"{folder}: the run is {s}" for folder, s in found if s in ("running", "failed")]
    if open_ones:
        return Check("ended", "fail", "; ".join(open_ones))
    return Check("ended", "pass", "every run came to its end")


def _check_seeds(runs: Sequence[RunScores], least: int) -> Check:
    problems = []
    counts = {}
    for environment in dict.fromkeys(run.environment for run in runs):
        group = [run for run in runs if run.environment == environment]
        seeds = [run.seed for run in group]
        counts[environment] = len(set(seeds))
        if len(set(seeds)) < len(seeds):
            problems.append(f"{environment}: a seed was used twice ({sorted(seeds)})")
        elif len(seeds) < least:
            problems.append(f"{environment}: {len(seeds)} of at least {least} seeds")
        if _configurations(group) > 1:
            problems.append(f"{environment}: the runs are not of one configuration")
    if problems:
        return Check("seeds", "fail", "; ".join(problems), {"seeds": counts})
    return Check("seeds", "pass", f"at least {least} seeds of one configuration a task", counts)


def _configurations(group: Sequence[RunScores]) -> int:
    """How many configurations runs have, as far as each of them tells."""
    if all(run.records_configuration for run in group):
        return len({run.manifest["config_hash"] for run in group})
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
    return [Check(name, "fail", f"measured otherwise than published ({'; '.join(refused)})")], None


def _other_protocol(source: Source, runs: list[RunScores]) -> list[str]:
    """In what the runs were measured otherwise than the source."""
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
    source = curve.source
    for index in reversed(range(len(curve.steps))):
        frames = curve.steps[index]
        returns = [run.score_at(frames, source) for run in runs]
        if frames == 0 or any(value is None for value in returns):
            continue
        try:
            random = _random_return(runs)
        except WorldFluxError as error:
            words = "no run says what a random policy's return is, and its environment cannot be "
            return Check(name, "fail", f"{words}made here ({error.message})"), None
        scores = TaskScores(
            task=curve.task,
            returns=np.array(returns, np.float64),
            random=random,
            published_mean=curve.mean[index],
            published_sd=curve.sd[index],
            published_seeds=curve.seeds,
        )
        if curve.seeds < 2:
            return Check(name, "fail", "the published curve is of one seed"), None
        if scores.scale <= _LEAST_GAIN * max(abs(scores.random), abs(scores.published_mean)):
            words = f"at {frames:,} frames the published agent is no better than a random policy"
            return Check(name, "fail", words), None
        numbers: dict[str, Any] = {
            "frames": frames,
            "returns": [float(value) for value in scores.returns],
            "random_return_mean": scores.random,
            "published_mean": scores.published_mean,
            "published_sd": scores.published_sd,
            "published_seeds": scores.published_seeds,
        }
        words = (
            f"at {frames:,} frames: {np.mean(scores.returns):.1f} over "
            f"{len(runs)} seed{'s' if len(runs) > 1 else ''}; "
            f"published {scores.published_mean:.1f} +- {scores.published_sd:.1f} over "
            f"{curve.seeds}; random {scores.random:.1f}"
        )
        return Check(name, "pass", words, numbers), Task(curve, runs, frames, scores)
    first = next((step for step in curve.steps if step > 0), 0)
    words = (
        f"too short: not every run has a return at {first:,} frames, the first that is published"
    )
    return Check(name, "fail", words), None


def _random_return(runs: list[RunScores]) -> float:
    """A random policy's return as the runs tell it; where none does, as a delegated one, as played.

    Raises:
        WorldFluxError: when no run tells it and the environment cannot be made here.
    """
    told = [run.manifest.get("random_return_mean") for run in runs]
    known = [float(value) for value in told if isinstance(value, (int, float))]
    if known:
        return float(np.mean(known))
    return play_random(runs[0].manifest, RANDOM_EPISODES, seed=0).return_mean


def _check_margin(result: Comparison, asked: ProofSettings, tasks: list[Task]) -> Check:
    proven = result.difference_low > -asked.margin
    numbers = {
        **vars(result),
        "margin": asked.margin,
        "alpha": asked.alpha,
        "tasks": len(tasks),
        "runs": sum(len(task.runs) for task in tasks),
    }
    words = (
        f"interquartile mean {result.score:.3f} of the published gain over random "
        f"({1 - 2 * asked.alpha:.0%} interval {result.low:.3f} to {result.high:.3f}); the "
        f"difference is at least {result.difference_low:+.3f} at {1 - asked.alpha:.0%} "
        f"confidence, the margin {-asked.margin:+.3f}"
    )
    if not proven:
        worse = result.difference_high < -asked.margin
        words += "; it is worse" if worse else "; more seeds may decide it"
    return Check("no worse than published", "pass" if proven else "fail", words, numbers)


def _warnings(task: Task) -> list[str]:
    """What a reader of the verdict must know of the published curve and of our agent."""
    source = task.curve.source
    found = [
        f"{source.algorithm} ({source.source}, {source.licence}): {w}" for w in source.warnings
    ]
    manifest = task.runs[0].manifest
    parameters = manifest.get("parameters")
    size = f", {parameters:,} parameters" if isinstance(parameters, int) else ""
    found.append(f"the runs are of {manifest['model']}{size}")
    if any((run.manifest.get("final") or {}).get("episodes_cut") for run in task.runs):
        found.append("evaluation episodes were cut (evaluation.max_episode_steps)")
    return found
