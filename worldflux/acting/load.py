"""`load_agent`: from a run, a checkpoint, a saved model or a hub to an `Agent`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from worldflux.core import hub
from worldflux.envs.namespaces import namespace_of
from worldflux.envs.wrappers import PREPARATIONS, Preparation
from worldflux.errors import ConfigurationError, EnvironmentSetupError
from worldflux.factory import create_world_model, saved_folder
from worldflux.layout import CHECKPOINTS
from worldflux.project.manifest import holds_a_run
from worldflux.project.open_run import OpenRun, open_run
from worldflux.project.places import run_folder
from worldflux.training.checkpoints import BEST
from worldflux.training.device import resolve_device

from .adapter import Preparations, SpaceAdapter, model_spaces
from .agent import Agent
from .random_stream import generators_kept


def load_agent(
    source: str | os.PathLike[str],
    *,
    env: Any = None,
    checkpoint: str | int | None = None,
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
        checkpoint: of a run: "best" (the default), "last", an update such as 3000, or a folder.
        device: "cpu", "cuda", "cuda:N", "mps" or "auto".
        seed: of its random numbers.

    Raises:
        ConfigurationError: for a `checkpoint` of what is no run, an `env` without spaces, and a
            seed that is no whole number from 0 to 2**32 - 1.
        ModelNotFoundError: when there is nothing of that name.
        CheckpointError: for a damaged checkpoint or model.
        EnvironmentSetupError: when the environment does not fit the agent, or cannot be built.
    """
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
        raise ConfigurationError(f"seed = {seed!r} is no whole number from 0 to 2**32 - 1")
    checkpoint = None if checkpoint is None else str(checkpoint)
    with generators_kept():  # the weights are drawn before they are loaded
        run = _run_of(source, checkpoint)
    if run is not None:
        adapter, preparations = _of_run(run, env)
        model = run.model.to(resolve_device(device))
        places = {"folder": run.folder, "checkpoint": run.checkpoint}
        return Agent(model, adapter, preparations=preparations, seed=seed, **places)
    is_remote = hub.is_reference(os.fspath(source))
    folder = None if is_remote else saved_folder(Path(source).expanduser())
    if checkpoint is not None:
        raise ConfigurationError(
            f"checkpoint = {checkpoint!r} needs a run, and {os.fspath(source)} is a saved model"
        )
    with generators_kept():
        model = create_world_model(folder or source, device=device)
    adapter = SpaceAdapter("the agent", *model_spaces(model)) if env is None else _adapter(env)
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


def _of_run(run: OpenRun, env: Any) -> tuple[SpaceAdapter, Preparations | None]:
    """The spaces that the run learned in, or those of the user's environment, whose observations
    are prepared as the run's were where they are not so already."""
    environment, bounds = run.manifest["environment"], run.collection.check_bounds
    name, (observation, action) = str(environment["id"]), run.spaces()
    if env is None:
        return SpaceAdapter(name, observation, action, check_bounds=bounds), None
    raw = _adapter(env, bounds)
    given = {k: v for k, v in environment.get("kwargs", {}).items() if k in PREPARATIONS}
    prepared = Preparation(**{**given, "action_repeat": None, "action_mask": False})
    if raw.observation_space == observation:
        return raw, None
    is_masked = given.get("action_mask", False)  # whose masks are not in what is observed
    if prepared == Preparation() and not is_masked:
        return raw, None
    if is_masked or namespace_of(name).protocol is not None:
        raise EnvironmentSetupError(
            f"{name} observes {observation} as worldflux makes it, and not {raw.observation_space}",
            hint=f"worldflux.envs.make_environment({name!r}, **{environment['kwargs']})",
        )
    preparations = Preparations(prepared, raw)
    return preparations.adapter, preparations


def _adapter(env: Any, check_bounds: bool = True) -> SpaceAdapter:
    """The spaces of an environment that the user has."""
    if not hasattr(env, "observation_space") or not hasattr(env, "action_space"):
        raise ConfigurationError(
            f"env is a {type(env).__name__}, without observation_space and action_space",
            hint='give an environment, such as gymnasium.make("Pendulum-v1"), or leave it out',
        )
    name = getattr(getattr(env, "spec", None), "id", None) or type(env).__name__
    observation = getattr(env, "single_observation_space", env.observation_space)
    action = getattr(env, "single_action_space", env.action_space)
    return SpaceAdapter(name, observation, action, check_bounds=check_bounds)
