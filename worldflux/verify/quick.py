"""The quick verdict: is the run intact, does its model predict, does its agent beat chance.

Deterministic for a given seed: the same episodes, the same resampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldflux.core.config import WorldModelConfig
from worldflux.envs.vector import VectorEnvironment
from worldflux.errors import CheckpointError, ConfigurationError, EnvironmentFault, WorldFluxError
from worldflux.evaluation.episodes import EpisodeResults, play_episodes
from worldflux.evaluation.fresh_seeds import VERIFY
from worldflux.progress import SILENT, Progress
from worldflux.project.evaluate import cut_notes
from worldflux.project.manifest import read_manifest
from worldflux.project.open_run import OpenRun, open_run

from .bootstrap import difference_lower_bound, mean_lower_bound
from .delegated import UNCHECKED, check_scores, is_delegated
from .integrity import check_contents, check_data, check_files, check_manifest
from .model_checks import check_contract, check_predictions
from .verdict import Check, Verdict

# Episodes of the agent, and as many of a random policy, that the model has to predict.
RECORDED, RECORDED_STEPS = 4, 256
_CHANCE = 5.0  # standard errors that chance may explain
_RARE = 0.1  # share of the agent's gain that a random policy's rare success may explain
_CHOSEN = 0.25  # what choosing the best of many evaluations may explain


@dataclass(frozen=True)
class QuickSettings:
    """What is asked of a quick check; the fields are the arguments of `verify_quick`."""

    episodes: int = 20
    alpha: float = 0.05
    threshold: float | None = None


def verify_quick(
    folder: Path,
    *,
    episodes: int = 20,
    alpha: float = 0.05,
    threshold: float | None = None,
    seed: int | None = None,
    progress: Progress = SILENT,
) -> Verdict:
    """Check a run folder.

    Args:
        episodes: fresh episodes of the agent, and as many of a random policy.
        alpha: probability of passing an agent that is no better than random.
        threshold: the mean return that the agent must reach as well, at the same confidence.
        seed: of the episodes and of resampling; by default one whose episodes the agent has not
            met.
        progress: shows what is checked, and how far the episodes are.

    Raises:
        RunFolderError: when there is no run, or its manifest cannot be read.
    """
    manifest = read_manifest(folder)
    notes: list[str] = []
    progress.phase("checking files")
    checks = [check_manifest(manifest)]
    if checks[0].status != "fail" and is_delegated(folder, manifest):
        scores = check_scores(folder, manifest, episodes, alpha, VERIFY if seed is None else seed)
        checks += [check_data(manifest), *scores]
        return Verdict(str(folder), "quick", checks, warnings=[UNCHECKED])
    if checks[0].status != "fail":
        checks += [check_files(folder, manifest), check_contents(folder, manifest)]
        checks.append(check_data(manifest))
        if all(check.status != "fail" for check in checks[:3]):
            checks += _check_agent(folder, episodes, alpha, threshold, seed, progress, notes)
    return Verdict(str(folder), "quick", checks, warnings=notes)


def _check_agent(
    folder: Path,
    episodes: int,
    alpha: float,
    threshold: float | None,
    seed: int | None,
    progress: Progress,
    notes: list[str],
) -> list[Check]:
    try:
        run = open_run(folder)
        envs = run.environments(episodes)
    except (CheckpointError, ConfigurationError) as error:
        return [Check("model", "fail", str(error))]
    except WorldFluxError as error:
        return [Check("environment", "fail", str(error))]
    try:
        if seed is None:
            seed = run.fresh_seed(VERIFY, episodes, envs.num_envs)
        return _check_on(run, envs, episodes, alpha, threshold, seed, progress, notes)
    except EnvironmentFault as error:
        return [Check("environment", "fail", str(error))]
    finally:
        envs.close()


def _check_on(
    run: OpenRun,
    envs: VectorEnvironment,
    episodes: int,
    alpha: float,
    threshold: float | None,
    seed: int,
    progress: Progress,
    notes: list[str],
) -> list[Check]:
    model = _check_model(run, envs.spec.obs_shape, envs.spec.action_dim)
    if model.status == "fail":
        return [model]
    contract = check_contract(run.model, envs.spec, seed)
    if contract.status == "fail":
        return [model, contract]
    kept: dict[str, Any] = {
        "max_steps": run.max_steps(envs),
        "record_episodes": RECORDED,
        "record_steps": RECORDED_STEPS,
        "progress": progress.episodes,
    }
    progress.phase("evaluating", episodes, "episodes")
    agent = play_episodes(run.model, envs, episodes, seed, **kept)
    progress.phase("random baseline", episodes, "episodes")
    random = play_episodes(None, envs, episodes, seed, **kept)
    notes += [*cut_notes(kept["max_steps"], agent=agent, random=random), *run.restarts]
    progress.phase("checking predictions")
    checks = [model, contract, _check_recorded(run.manifest, agent, random)]
    checks += check_predictions(run.model, [*agent.recorded, *random.recorded], alpha, seed)
    checks.append(_check_policy(agent.returns, random.returns, alpha, seed))
    if threshold is not None:
        checks.append(_check_threshold(agent.returns, threshold, alpha, seed))
    return checks


def _check_recorded(
    manifest: dict[str, Any], agent: EpisodeResults, random: EpisodeResults
) -> Check:
    """Whether the returns that the manifest records could come from this agent and environment.

    Random returns may differ by chance alone. The best evaluation was chosen from many, so it may
    be better than a fresh one by a share of what the agent gained over random.
    """
    problems, numbers = [], {}
    count = max(1, int((manifest.get("best") or {}).get("episodes", 1)))
    told = manifest.get("random_return_mean")
    if isinstance(told, (int, float)):
        numbers["random_recorded"], numbers["random_fresh"] = float(told), random.return_mean
        allowed = _CHANCE * _deviation(random) * np.sqrt(1 / count + 1 / len(random.returns))
        allowed += _RARE * abs(agent.return_mean - random.return_mean)
        if abs(told - random.return_mean) > allowed:
            problems.append(
                f"a random policy's return is {random.return_mean:.1f}, recorded {told:.1f}"
            )
    best = (manifest.get("best") or {}).get("return_mean")
    if isinstance(best, (int, float)):
        numbers["best_recorded"], numbers["best_fresh"] = float(best), agent.return_mean
        spread = max(_deviation(agent), float((manifest["best"]).get("return_std") or 0.0))
        allowed = _CHANCE * spread * np.sqrt(1 / count + 1 / len(agent.returns))
        allowed += _CHOSEN * abs(best - random.return_mean)
        if best - agent.return_mean > allowed:
            problems.append(f"the agent's return is {agent.return_mean:.1f}, recorded {best:.1f}")
    if problems:
        return Check("recorded returns", "fail", "; ".join(problems), numbers)
    if not numbers:
        return Check("recorded returns", "not_applicable", "the manifest records none")
    return Check("recorded returns", "pass", "fresh episodes agree with the manifest", numbers)


def _deviation(results: EpisodeResults) -> float:
    """Standard deviation of the returns; never quite nothing, so that rounding is forgiven."""
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
    count = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    if count != manifest["parameters"] or not _is_described(config, manifest["model_config"]):
        return Check("model", "fail", "the checkpoint is not the model that the manifest describes")
    detail = f"{manifest['model']}, {count:,} parameters, loads and fits its environment"
    return Check("model", "pass", detail, {"parameters": count})


def _is_described(config: WorldModelConfig, told: Any) -> bool:
    """Whether the manifest describes this configuration; fields newer than it have defaults."""
    try:
        marked = {**told, "set_fields": sorted(config.set_fields)}
        return WorldModelConfig.from_dict(marked) == config
    except (ConfigurationError, TypeError, AttributeError):
        return False


def _check_policy(agent: Any, random: Any, alpha: float, seed: int) -> Check:
    bound = difference_lower_bound(agent, random, alpha, seed)
    numbers = {
        "episodes": len(agent),
        "return_mean": float(np.mean(agent)),
        "random_return_mean": float(np.mean(random)),
        "difference_lower_bound": bound,
        "alpha": alpha,
        "returns": [float(value) for value in agent],
        "random_returns": [float(value) for value in random],
    }
    detail = (
        f"return {np.mean(agent):.1f}, random {np.mean(random):.1f}; the difference is at "
        f"least {bound:.1f} at {1 - alpha:.0%} confidence"
    )
    return Check("policy", "pass" if bound > 0 else "fail", detail, numbers)


def _check_threshold(agent: Any, threshold: float, alpha: float, seed: int) -> Check:
    bound = mean_lower_bound(agent, alpha, seed)
    numbers = {"threshold": threshold, "return_lower_bound": bound}
    detail = f"return at least {bound:.1f} at {1 - alpha:.0%} confidence; required: {threshold:g}"
    return Check("threshold", "pass" if bound >= threshold else "fail", detail, numbers)
