"""The quick verdict: is the run intact, does its model fit, does its agent act better than chance.

Deterministic for a given seed: the same episodes, the same resampling.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from worldflux.errors import CheckpointError, ConfigurationError, WorldFluxError
from worldflux.evaluation.episodes import play_episodes
from worldflux.project.evaluate import FRESH_SEED, MAX_PARALLEL
from worldflux.project.manifest import read_manifest
from worldflux.project.open_run import BEST, OpenRun, open_run

from .bootstrap import difference_lower_bound, mean_lower_bound
from .integrity import check_contents, check_data, check_files, check_manifest
from .verdict import Check, Verdict


def verify_quick(
    folder: Path,
    *,
    episodes: int = 20,
    alpha: float = 0.05,
    threshold: float | None = None,
    seed: int = FRESH_SEED + 500_000,
) -> Verdict:
    """Check a run folder.

    Args:
        episodes: fresh episodes of the agent, and as many of a random policy.
        alpha: probability of passing an agent that is no better than random.
        threshold: the mean return that the agent must reach as well, at the same confidence.

    Raises:
        RunFolderError: when there is no run, or its manifest cannot be read.
    """
    manifest = read_manifest(folder)
    checks = [check_manifest(manifest)]
    if checks[0].status != "fail":
        checks += [check_files(folder, manifest), check_contents(folder, manifest)]
        checks.append(check_data(manifest))
        if all(check.status != "fail" for check in checks[:3]):
            checks += _check_agent(folder, episodes, alpha, threshold, seed)
    return Verdict(str(folder), "quick", checks)


def _check_agent(
    folder: Path, episodes: int, alpha: float, threshold: float | None, seed: int
) -> list[Check]:
    try:
        run = open_run(folder, BEST)
        envs = run.environment(min(episodes, MAX_PARALLEL))
    except (CheckpointError, ConfigurationError) as error:
        return [Check("model", "fail", str(error))]
    except WorldFluxError as error:
        return [Check("environment", "fail", str(error))]
    model = _check_model(run, envs.spec.obs_shape, envs.spec.action_dim)
    if model.status == "fail":
        envs.close()
        return [model]
    agent = play_episodes(run.model, envs, episodes, seed)
    random = play_episodes(None, envs, episodes, seed)
    envs.close()
    checks = [model, _check_policy(agent.returns, random.returns, alpha, seed)]
    if threshold is not None:
        checks.append(_check_threshold(agent.returns, threshold, alpha, seed))
    return checks


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
    if count != manifest["parameters"] or config.to_dict() != manifest["model_config"]:
        return Check("model", "fail", "the checkpoint is not the model that the manifest describes")
    detail = f"{manifest['model']}, {count:,} parameters, loads and fits its environment"
    return Check("model", "pass", detail, {"parameters": count})


def _check_policy(agent: Any, random: Any, alpha: float, seed: int) -> Check:
    bound = difference_lower_bound(agent, random, alpha, seed)
    numbers = {
        "episodes": len(agent),
        "return_mean": float(np.mean(agent)),
        "random_return_mean": float(np.mean(random)),
        "difference_lower_bound": bound,
        "alpha": alpha,
    }
    detail = (
        f"return {np.mean(agent):.1f} beside random {np.mean(random):.1f}; the difference is at "
        f"least {bound:.1f} at {1 - alpha:.0%} confidence"
    )
    return Check("policy", "pass" if bound > 0 else "fail", detail, numbers)


def _check_threshold(agent: Any, threshold: float, alpha: float, seed: int) -> Check:
    bound = mean_lower_bound(agent, alpha, seed)
    numbers = {"threshold": threshold, "return_lower_bound": bound}
    detail = f"return at least {bound:.1f} at {1 - alpha:.0%} confidence; asked is {threshold:g}"
    return Check("threshold", "pass" if bound >= threshold else "fail", detail, numbers)
