"""`worldflux.train`: an environment of a script becomes a run folder, and its agent acts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from worldflux.errors import ConfigurationError, RunFolderError, WorldFluxError
from worldflux.project.dataset_file import GIVEN, give_make_env
from worldflux.project.document import FILE_NAME, Document
from worldflux.project.loader import load_project
from worldflux.project.manifest import read_manifest
from worldflux.project.run import train_project
from worldflux.project.scaffold import to_toml

from .agent import Agent
from .load import load_agent

_CALL = "worldflux.train"
# What hints say on the command line -> the same for this function.
_IN_PYTHON = {
    "start one: worldflux.train(..., resume=True)": "leave resume=True out",
    'worldflux train --set online_collection.on_env_error="restart"': (
        'online_collection={"on_env_error": "restart"}'
    ),
    "--overwrite": "overwrite=True",
    "--output-dir DIR": "folder=DIR",
}


def train(
    env: str | Callable[..., Any],
    model: str,
    *,
    steps: int | None = None,
    folder: str | os.PathLike[str] = "outputs",
    resume: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
    **sections: Mapping[str, Any] | Sequence[Mapping[str, Any]],
) -> Agent:
    """Train without a project; returns the agent of the best checkpoint (`agent.folder`: its run).

    The run is one as of `worldflux train`: the page shows it, and with an environment by its id
    every command takes it. One that a function makes can be played, verified and resumed where
    this function is given.

    Args:
        env: a Gymnasium id, or a function that makes one copy of the environment; one that takes
            `render_mode` can be filmed.
        model: as in worldflux.toml, such as "tdmpc2:laptop".
        steps: gradient updates (`training.total_steps`).
        folder: of the run.
        resume: continue the run of that folder with its own settings, changed by those given here:
            what cannot change, such as the model, is refused.
        overwrite: start again where the folder holds a run, which is kept as a copy.
        say: receives what `worldflux train` would print.
        sections: those of worldflux.toml: `training={"batch_size": 64}`, `evaluation={...}`,
            `tasks=[{"name": ...}, ...]`.

    Raises:
        ConfigurationError: for a setting that is not allowed, before anything is written.
        RunFolderError: when the folder cannot be used.
        KeyboardInterrupt: when a signal ended it early; everything is saved.
    """
    place = Path(folder).expanduser().resolve()
    make, name = (None, env) if isinstance(env, str) else _given(env)
    given: dict[str, Any] = {"model": model, **({} if make else {"environment": name})}
    given |= {key: _plain(section) for key, section in sections.items()}
    training = given.setdefault("training", {})
    settings = {"project_name": _project_name(place), "environment": name, **given}
    if isinstance(training, dict):  # anything else is refused below
        if steps is not None:
            training["total_steps"] = _plain(steps)
        settings["training"] = {**training, "output_dir": "."}
    before = give_make_env(place, make)
    try:
        project = load_project(Document(place / FILE_NAME), settings=settings, settings_from=_CALL)
        overrides = list(_assignments(given)) if resume else []
        outcome = train_project(
            project, overrides=overrides, resume=resume, overwrite=overwrite, say=say
        )
    except Exception as error:
        give_make_env(place, before)
        if isinstance(error, WorldFluxError) and error.hint is not None:
            for command, argument in _IN_PYTHON.items():
                error.hint = error.hint.replace(command, argument)
        raise
    if outcome.exit_code:
        raise KeyboardInterrupt
    return load_agent(place)


def _project_name(folder: Path) -> str:
    """The name in the manifest of a run, wherever its folder is now; a new run has its folder's."""
    try:
        return read_manifest(folder).get("project_name", folder.name)
    except RunFolderError:
        return folder.name


def _plain(value: Any) -> Any:
    """A setting as worldflux.toml would have it: numpy's numbers are numbers, paths are texts."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if isinstance(value, np.generic) else value


def _assignments(settings: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Settings as `section.key=value` texts, without the list of tasks, which cannot change."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _assignments(value, f"{above}{name}.")
        elif above or isinstance(value, str):
            yield f"{above}{name}={to_toml(value)}"


def _given(make: Any) -> tuple[Callable[..., Any], str]:
    """The function that is to make environments, and what the run calls them."""
    if not callable(make):
        raise ConfigurationError(
            f"env is a {type(make).__name__}, expected an id or a function that makes one",
            where=_CALL,
            hint="the run makes several: worldflux.train(lambda: gymnasium.make(...), ...)",
        )
    takes_mode = "render_mode" in signature(make).parameters
    named = getattr(make, "__qualname__", type(make).__name__)
    return make if takes_mode else lambda render_mode=None: make(), f"{GIVEN}{named}"
