"""`load_agent`: from a run, a checkpoint, a saved model or a hub to an `Agent`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from worldflux.core import hub
from worldflux.data.recorded import NO_ENVIRONMENT
from worldflux.errors import ConfigurationError
from worldflux.factory import create_world_model, saved_folder
from worldflux.layout import CHECKPOINTS
from worldflux.project.manifest import holds_a_run
from worldflux.project.open_run import OpenRun, open_run
from worldflux.project.places import run_folder
from worldflux.training.checkpoints import BEST
from worldflux.training.device import resolve_device

from .adapter import SpaceAdapter, model_spaces
from .agent import Agent

AGENT = "the agent"


def load_agent(
    source: str | os.PathLike[str],
    *,
    env: Any = None,
    checkpoint: str | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> Agent:
    """An agent that acts as `worldflux eval` of the same checkpoint and seed does.

    Args:
        source: a run or project folder, a checkpoint or another saved model, or
            `hf://owner/name[@revision]`.
        env: anything with the observation_space and action_space that the agent is to take and to
            give. By default those of the run's environment; a saved model takes what it was built
            for, and gives numbers in [-1, 1] or indices.
        checkpoint: of a run: "best" (the default), "last", an update such as "3000", or a folder.
        device: "cpu", "cuda", "cuda:N", "mps" or "auto".
        seed: of its random numbers.

    Raises:
        ConfigurationError: for a `checkpoint` of what is no run.
        ModelNotFoundError: when there is nothing of that name.
        CheckpointError: for a damaged checkpoint or model.
        EnvironmentSetupError: when the environment does not fit the agent, or cannot be built.
    """
    run = _run_of(source, checkpoint)
    if run is not None:
        adapter = _adapter_of(run) if env is None else _adapter(env, run.collection.check_bounds)
        model = run.model.to(resolve_device(device))
        return Agent(model, adapter, seed=seed, folder=run.folder, checkpoint=run.checkpoint)
    if checkpoint is not None:
        raise ConfigurationError(
            f"checkpoint = {checkpoint!r} needs a run, and {os.fspath(source)} is a saved model"
        )
    name, folder = os.fspath(source), None
    if not hub.is_reference(name):
        folder = saved_folder(Path(name).expanduser())
        name = str(folder)
    model = create_world_model(Path(name) if folder else name, device=device)
    adapter = SpaceAdapter(AGENT, *model_spaces(model)) if env is None else _adapter(env, True)
    return Agent(model, adapter, seed=seed, checkpoint=folder)


def _run_of(source: str | os.PathLike[str], checkpoint: str | None) -> OpenRun | None:
    """The run that is meant, opened; None for a model without one."""
    if hub.is_reference(os.fspath(source)):
        return None
    path = Path(source).expanduser()
    if path.parent.name == CHECKPOINTS and holds_a_run(path.parent.parent) and not checkpoint:
        return open_run(path.parent.parent, str(path.absolute()))
    folder = run_folder(path)
    is_run = folder != path or holds_a_run(folder)  # of a project, a run is missing
    return open_run(folder, checkpoint or BEST) if is_run else None


def _adapter_of(run: OpenRun) -> SpaceAdapter:
    """The spaces of the environment that the run learned in."""
    name = str(run.manifest["environment"]["id"])
    if name == NO_ENVIRONMENT:
        return SpaceAdapter(AGENT, *model_spaces(run.model))
    envs = run.environments(1)
    try:
        observation, action, *_ = envs.spaces
    finally:
        envs.close()
    bounds = run.collection.check_bounds
    return SpaceAdapter(name, observation, action, check_bounds=bounds)


def _adapter(env: Any, check_bounds: bool) -> SpaceAdapter:
    """Those of an environment that the user has."""
    name = getattr(getattr(env, "spec", None), "id", None) or type(env).__name__
    observation = getattr(env, "single_observation_space", env.observation_space)
    action = getattr(env, "single_action_space", env.action_space)
    return SpaceAdapter(name, observation, action, check_bounds=check_bounds)
