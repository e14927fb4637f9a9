"""The quick verdict: is the run intact, does its model predict, does its agent beat chance.

Deterministic for a given seed: the same episodes, the same resampling.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from worldflux.core.config import WorldModelConfig
from worldflux.core.learning import learned_count
from worldflux.envs.namespaces import NO_ENVIRONMENT
from worldflux.envs.vector import VectorEnvironment
from worldflux.errors import CheckpointError, ConfigurationError, EnvironmentFault, WorldFluxError
from worldflux.evaluation.episodes import VERIFY, EpisodeResults, play_episodes
from worldflux.progress import SILENT, Progress, counted
from worldflux.project.environments import (
    environment_maker,
    episode_limit,
    vector_environment,
)
from worldflux.project.evaluate import cut_notes
from worldflux.project.manifest import read_manifest
from worldflux.project.open_run import OpenRun, open_run
from worldflux.project.trust import calibration_of
from worldflux.run_log import EVALUATIONS, is_number, read_rows

from .bootstrap import difference_lower_bound, mean_lower_bound
from .integrity import check_integrity, is_delegated
from .model_checks import check_contract, check_predictions
from .verdict import Check, Status, Verdict

# Episodes of the agent, and as many of a random policy, that the model has to predict.
RECORDED, RECORDED_STEPS = 4, 256
LEAST_SCORES = 3  # of a delegated run
_MAX_PARALLEL = 8
_CHANCE = 5.0  # standard errors that chance may explain
_RARE = 0.1  # share of the agent's gain that a random policy's rare success may explain
_CHOSEN = 0.25  # what choosing the best of many evaluations may explain


@dataclass(frozen=True)
class QuickSettings:
    """What a quick check requires.

    Attributes:
        episodes: fresh episodes of the agent, and as many of a random policy.
        alpha: probability of passing an agent that is no better than random.
        threshold: the mean return that the agent must reach as well, at the same confidence.
    """

    episodes: int = 20
    alpha: float = 0.05
    threshold: float | None = None


def verify_quick(
    folder: Path,
    settings: QuickSettings | None = None,
    *,
    seed: int | None = None,
    progress: Progress = SILENT,
) -> Verdict:
    """Check a run folder; `seed` is by default one whose episodes the agent has not met."""
    settings = settings or QuickSettings()
    manifest = read_manifest(folder)
    found: list[Check] = []
    notes: list[str] = []
    progress.phase("checking files")
    checks = check_integrity(folder, manifest)
    intact = all(check.status != "fail" for check in checks if check.name != "data")
    if intact and is_delegated(folder, manifest):
        found = _check_scores(folder, manifest, settings, VERIFY if seed is None else seed)
        notes.append("the scores are the official program's own; its agent cannot act here")
    elif intact:
        found, notes = _check_agent(folder, settings, seed, progress)
    return Verdict(str(folder), "quick", [*checks, *found], warnings=notes)


def _check_agent(
    folder: Path, settings: QuickSettings, seed: int | None, progress: Progress
) -> tuple[list[Check], list[str]]:
    """The checks that play fresh episodes, and notes on these."""
    try:
        run = open_run(folder)
        if run.manifest["environment"]["id"] == NO_ENVIRONMENT:
            words = "recorded data was learned without an environment: its agent cannot be played"
            return [Check("environment", "fail", words)], []
        envs = run.environments(settings.episodes)
    except (CheckpointError, ConfigurationError) as error:
        return [Check("model", "fail", str(error))], []
    except WorldFluxError as error:
        return [Check("environment", "fail", str(error))], []
    try:
        if seed is None:
            seed = run.fresh_seed(VERIFY, settings.episodes, envs.num_envs)
        with run.computing():
            return _check_on(run, envs, settings, seed, progress)
    except EnvironmentFault as error:
        return [Check("environment", "fail", str(error))], []
    finally:
        envs.close()


def _check_on(
    run: OpenRun, envs: VectorEnvironment, settings: QuickSettings, seed: int, progress: Progress
) -> tuple[list[Check], list[str]]:
    checks = [_check_model(run, envs.spec.obs_shape, envs.spec.action_dim)]
    if checks[-1].status != "fail":
        checks.append(check_contract(run.model, envs.spec, seed))
    if checks[-1].status == "fail":
        return checks, []
    kept: dict[str, Any] = {"record_episodes": RECORDED, "record_steps": RECORDED_STEPS}
    agent = run.play(envs, settings.episodes, seed, progress, **kept)
    random = run.play(envs, settings.episodes, seed, progress, randomly=True, **kept)
    progress.phase("checking predictions")
    recorded = [*agent.recorded, *random.recorded]
    checks.append(_check_recorded(run.manifest, agent, random))
    checks += check_predictions(run.model, recorded, settings.alpha, seed)
    checks += _check_trust(run)
    further = {
        "episodes": settings.episodes,
        "returns": agent.returns.tolist(),
        "random_returns": random.returns.tolist(),
    }
    returns = (agent.returns, random.returns)
    checks.append(_check_policy("return", *returns, settings, seed, **further))
    for index, name in enumerate(envs.spec.tasks):
        each = len(envs.spec.tasks)
        own = (agent.returns[index::each], random.returns[index::each])
        found = _check_policy("return", *own, settings, seed)
        checks.append(replace(found, name=f"task {name}"))
    if settings.threshold is not None:
        threshold = settings.threshold
        checks.append(_check_threshold(agent.returns, threshold, settings.alpha, seed))
    return checks, [*cut_notes(run.max_steps(envs), agent=agent, random=random), *run.restarts]


def _check_trust(run: OpenRun) -> list[Check]:
    """For how many steps the model is trusted, where `worldflux trust` has measured it."""
    found = calibration_of(run.checkpoint)
    if found is None:
        return []
    kinds = ", ".join(f"{name} {kind.horizon}" for name, kind in found.kinds.items())
    words = f"predictions hold for {counted(found.horizon, 'step')} at {found.level:.0%} ({kinds})"
    horizons = {name: kind.horizon for name, kind in found.kinds.items()}
    numbers = {"horizon": found.horizon, "horizons": horizons, "episodes": found.episodes}
    return [Check("trust", "pass" if found.horizon else "warn", words, numbers)]


def _check_recorded(
    manifest: dict[str, Any], agent: EpisodeResults, random: EpisodeResults
) -> Check:
    """Whether the returns that the manifest records could come from this agent and environment.

    Random returns may differ by chance alone. The best evaluation was chosen from many, so it may
    be better than a fresh one by a share of what the agent gained over random.
    """
    problems, numbers = [], {}
    entry = manifest.get("best") or {}
    count = max(1, int(entry.get("episodes", 1)))
    fresh = random.return_mean
    recorded, best = manifest.get("random_return_mean"), entry.get("return_mean")
    if isinstance(recorded, int | float):
        numbers["random_recorded"], numbers["random_fresh"] = float(recorded), fresh
        allowed = _CHANCE * _deviation(random) * np.sqrt(1 / count + 1 / len(random.returns))
        allowed += _RARE * abs(agent.return_mean - fresh)
        if abs(recorded - fresh) > allowed:
            problems.append(f"a random policy's return is {fresh:.1f}, recorded {recorded:.1f}")
    if isinstance(best, int | float):
        numbers["best_recorded"], numbers["best_fresh"] = float(best), agent.return_mean
        spread = max(_deviation(agent), float(entry.get("return_std") or 0.0))
        allowed = _CHANCE * spread * np.sqrt(1 / count + 1 / len(agent.returns))
        allowed += _CHOSEN * abs(best - fresh)
        if best - agent.return_mean > allowed:
            problems.append(f"the agent's return is {agent.return_mean:.1f}, recorded {best:.1f}")
    if not numbers:
        return Check("recorded returns", "not_applicable", "the manifest records none")
    status: Status = "fail" if problems else "pass"
    words = "; ".join(problems) or "fresh episodes agree with the manifest"
    return Check("recorded returns", status, words, numbers)


def _deviation(results: EpisodeResults) -> float:
    """Standard deviation of the returns; never zero, so that rounding is forgiven."""
    return max(results.return_std, 1e-6 * abs(results.return_mean), 1e-9)


def _check_model(run: OpenRun, obs_shape: tuple[int, ...], action_dim: int) -> Check:
    config, manifest = run.model.config, run.manifest
    if (config.obs_shape, config.action_dim) != (obs_shape, action_dim):
        return Check(
            "model",
            "fail",
            f"the model takes {config.obs_shape} and {config.action_dim} actions; "
            f"{manifest['environment']['id']} has {obs_shape} and {action_dim}",
        )
    count = learned_count(run.model)
    if count != manifest["parameters"] or not _is_described(config, manifest["model_config"]):
        return Check("model", "fail", "the checkpoint is not the model that the manifest describes")
    detail = f"{manifest['model']}, {count:,} parameters, loads and fits its environment"
    return Check("model", "pass", detail, {"parameters": count})


def _is_described(config: WorldModelConfig, recorded: Any) -> bool:
    """Whether the manifest describes this configuration; fields newer than it have defaults."""
    try:
        marked = {**recorded, "set_fields": sorted(config.set_fields)}
        return WorldModelConfig.from_dict(marked) == config
    except (ConfigurationError, TypeError, AttributeError):
        return False


def _check_policy(
    words: str, ours: Any, random: Any, settings: QuickSettings, seed: int, **further: Any
) -> Check:
    """Whether our mean return is above a random policy's."""
    bound = difference_lower_bound(ours, random, settings.alpha, seed)
    numbers = {
        "return_mean": float(np.mean(ours)),
        "random_return_mean": float(np.mean(random)),
        "difference_lower_bound": bound,
        "alpha": settings.alpha,
        **further,
    }
    words += f" {np.mean(ours):.1f}, random {np.mean(random):.1f}; the difference is at least "
    words += f"{bound:.1f} at {1 - settings.alpha:.0%} confidence"
    return Check("policy", "pass" if bound > 0 else "fail", words, numbers)


def _check_threshold(agent: Any, threshold: float, alpha: float, seed: int) -> Check:
    bound = mean_lower_bound(agent, alpha, seed)
    numbers = {"threshold": threshold, "return_lower_bound": bound}
    detail = f"return at least {bound:.1f} at {1 - alpha:.0%} confidence; required: {threshold:g}"
    return Check("threshold", "pass" if bound >= threshold else "fail", detail, numbers)


def _check_scores(
    folder: Path, manifest: dict[str, Any], settings: QuickSettings, seed: int
) -> list[Check]:
    """The last quarter of a delegated run's recorded scores against fresh random episodes."""
    elsewhere = "weights and model stay with the official program"
    checks = [Check(name, "not_applicable", elsewhere) for name in ("files", "model")]
    recorded = [row.get("return_mean") for row in read_rows(folder / EVALUATIONS)]
    returns = [value for value in recorded if is_number(value)]
    final = manifest.get("final") or {}
    if returns and final.get("return_mean") != returns[-1]:
        return [*checks, Check("scores", "fail", "the last score is not the manifest's")]
    if len(returns) < LEAST_SCORES:
        words = f"{len(returns)} scores; at least {LEAST_SCORES} are needed"
        return [*checks, Check("scores", "fail", words)]
    last = np.array(returns[-max(LEAST_SCORES, len(returns) // 4) :])
    try:
        random = play_random(manifest, settings.episodes, seed)
    except WorldFluxError as error:
        words = f"nothing to compare with: its environment cannot be made here ({error.message})"
        return [*checks, Check("policy", "fail", words)]
    words = f"its last {len(last)} scores average"
    policy = _check_policy(words, last, random.returns, settings, seed, scores=len(last))
    return [*checks, policy]


def play_random(manifest: dict[str, Any], episodes: int, seed: int) -> EpisodeResults:
    """Fresh episodes of a random policy in the environment that a manifest names."""
    entry = manifest["environment"]
    env_id, arguments = str(entry["id"]), dict(entry.get("kwargs") or {})
    if env_id.startswith("dm_control/") and entry.get("action_repeat"):
        arguments["action_repeat"] = int(entry["action_repeat"])
    make = environment_maker(None, env_id, arguments)
    envs = vector_environment(make, env_id, min(episodes, _MAX_PARALLEL))
    try:
        limit = episode_limit(envs.spec, None)
        return play_episodes(None, envs, episodes, seed, max_steps=limit)
    finally:
        envs.close()
