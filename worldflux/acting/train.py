"""`worldflux.train`: an environment of a script becomes a run folder, and its agent acts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from worldflux.errors import ConfigurationError, RunFolderError
from worldflux.project.dataset_file import GIVEN, give_make_env
from worldflux.project.document import FILE_NAME, Document
from worldflux.project.loader import load_project
from worldflux.project.run import train_project

from .agent import Agent
from .load import load_agent

_CALL = "worldflux.train"


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
        resume: continue the run of that folder, with its own settings, up to `steps`.
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
    name = env if isinstance(env, str) else _given(place, env)
    chosen: dict[str, Any] = {
        key: dict(section) if isinstance(section, Mapping) else [dict(task) for task in section]
        for key, section in sections.items()
    }
    training = {**chosen.pop("training", {}), "output_dir": "."}
    if steps is not None:
        training["total_steps"] = steps
    top = {"project_name": place.name, "environment": name, "model": model}
    settings = {**top, **chosen, "training": training}
    project = load_project(Document(place / FILE_NAME), settings=settings, settings_from=_CALL)
    overrides = [f"training.total_steps={steps}"] if resume and steps is not None else []
    try:
        outcome = train_project(
            project, overrides=overrides, resume=resume, overwrite=overwrite, say=say
        )
    except RunFolderError as error:
        if error.hint is not None:
            error.hint = error.hint.replace("--overwrite", "overwrite=True")
            error.hint = error.hint.replace("--output-dir DIR", "folder=DIR")
        raise
    if outcome.exit_code:
        raise KeyboardInterrupt
    return load_agent(place)


def _given(place: Path, make: Any) -> str:
    """Let the run in `place` make its environments by this function; what it calls them."""
    if not callable(make):
        raise ConfigurationError(
            f"env is a {type(make).__name__}, expected an id or a function that makes one",
            where=_CALL,
            hint="the run makes several: worldflux.train(lambda: gymnasium.make(...), ...)",
        )
    takes_mode = "render_mode" in signature(make).parameters
    give_make_env(place, make if takes_mode else lambda render_mode=None: make())
    named = getattr(make, "__qualname__", type(make).__name__)
    return f"{GIVEN}{named}"
