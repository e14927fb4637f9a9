"""Watching a run's agent: `worldflux play`, and `worldflux eval --render human`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from worldflux.envs.vector import VectorEnvironment
from worldflux.evaluation.episodes import EVAL, EpisodeResults, require_policy
from worldflux.evaluation.trust import LEAST_TRUST, TrustMeter
from worldflux.evaluation.window import DEFAULT_FPS
from worldflux.progress import SILENT, Progress
from worldflux.training.checkpoints import BEST

from .open_run import OpenRun, open_run
from .trust import calibration_of

RED = (220, 40, 40)


class View(Protocol):
    """Where frames are shown; `show` returns when it is time for the next one."""

    def show(self, frame: np.ndarray) -> None: ...

    def close(self) -> None: ...


OpenView = Callable[[str, float], View]
"""A view with a title that shows so many frames a second."""


def play_shown(
    run: OpenRun,
    envs: VectorEnvironment,
    episodes: int,
    seed: int,
    open_view: OpenView,
    progress: Progress,
    **options: Any,
) -> EpisodeResults:
    """The agent's episodes, as they are seen in environment 0.

    Where its checkpoint is calibrated, frames at which the model is not to be trusted have a red
    border.

    Raises:
        EnvironmentSetupError: for an environment that cannot draw.
    """
    title = f"{envs.spec.env_id}, {run.checkpoint.name}"
    view = open_view(title, envs.spec.render_fps or DEFAULT_FPS)
    calibration = calibration_of(run.checkpoint)
    if calibration is not None:
        meter = TrustMeter(run.model, calibration)
        options |= {"watch": meter.add, "show": lambda frame: view.show(marked(frame, meter))}
    try:
        return run.play(envs, episodes, seed, progress, **{"show": view.show, **options})
    finally:
        view.close()


def marked(frame: np.ndarray, meter: TrustMeter) -> np.ndarray:
    """A frame `[H, W, 3]` of environment 0, with a red border where the model is not trusted."""
    if meter.trust()[0] >= LEAST_TRUST:
        return frame
    width = max(2, min(frame.shape[:2]) // 40)
    red = np.full_like(frame, RED)
    red[width:-width, width:-width] = frame[width:-width, width:-width]
    return red


def play_run(
    folder: Path,
    open_view: OpenView,
    *,
    episodes: int,
    checkpoint: str = BEST,
    seed: int | None = None,
    policy: str | None = None,
) -> EpisodeResults:
    """Show episodes of the agent, one after another, as `evaluate_run` of one environment would
    play them.

    Raises:
        ConfigurationError: when the model has no such policy.
        EvaluationStopped: when the user closes the view.
    """
    run = open_run(folder, checkpoint)
    require_policy(run.model, policy)
    envs = run.environments(1, render_first=True)
    if seed is None:
        seed = run.fresh_seed(EVAL, episodes, 1)
    try:
        return play_shown(run, envs, episodes, seed, open_view, SILENT, policy=policy)
    finally:
        envs.close()
