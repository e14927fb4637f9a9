"""A delegated run: the official program's own scores beside a random policy's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from worldflux.errors import WorldFluxError
from worldflux.evaluation.episodes import EpisodeResults, play_episodes
from worldflux.project.environments import environment_maker, vector_environment
from worldflux.project.evaluator import episode_limit
from worldflux.run_log import EVALUATIONS, read_rows

from .bootstrap import difference_lower_bound
from .verdict import Check

LEAST_SCORES = 3
UNCHECKED = "the scores are what the official program wrote; its agent cannot be asked to act here"
_MAX_PARALLEL = 8


def is_delegated(folder: Path, manifest: dict[str, Any]) -> bool:
    """Whether an official program ran: such a run has no checkpoints of ours."""
    return "delegated" in manifest and not (folder / "checkpoints").exists()


def check_scores(
    folder: Path, manifest: dict[str, Any], episodes: int, alpha: float, seed: int
) -> list[Check]:
    """The last quarter of the recorded scores against fresh random episodes.

    The agent stays with the official program, so that it cannot be asked to act here.
    """
    untold = "weights and model stay with the official program"
    checks = [Check(name, "not_applicable", untold) for name in ("files", "model")]
    rows = list(read_rows(folder / EVALUATIONS))
    returns = [row["return_mean"] for row in rows if _is_number(row.get("return_mean"))]
    final = manifest.get("final") or {}
    if returns and final.get("return_mean") != returns[-1]:
        return [*checks, Check("scores", "fail", "the last score is not the manifest's")]
    if len(returns) < LEAST_SCORES:
        words = f"{len(returns)} scores; {LEAST_SCORES} are the least that can be judged"
        return [*checks, Check("scores", "fail", words)]
    last = np.array(returns[-max(LEAST_SCORES, len(returns) // 4) :])
    try:
        random = play_random(manifest, episodes, seed)
    except WorldFluxError as error:
        words = f"nothing to compare with: its environment cannot be made here ({error.message})"
        return [*checks, Check("policy", "fail", words)]
    bound = difference_lower_bound(last, random.returns, alpha, seed)
    numbers = {
        "scores": len(last),
        "return_mean": float(last.mean()),
        "random_return_mean": random.return_mean,
        "difference_lower_bound": bound,
        "alpha": alpha,
    }
    words = (
        f"its last {len(last)} scores average {last.mean():.1f}, random "
        f"{random.return_mean:.1f}; the difference is at least {bound:.1f} at "
        f"{1 - alpha:.0%} confidence"
    )
    return [*checks, Check("policy", "pass" if bound > 0 else "fail", words, numbers)]


def play_random(manifest: dict[str, Any], episodes: int, seed: int) -> EpisodeResults:
    """Fresh episodes of a random policy in the environment that a manifest names.

    Raises:
        WorldFluxError: when that environment cannot be made here.
    """
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


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
