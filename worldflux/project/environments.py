"""The environment of a project: its id, or `make_env` of the project's own dataset.py."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worldflux.envs.make import make_environment
from worldflux.envs.vector import VectorEnvironment
from worldflux.errors import ConfigurationError

MakeEnvironment = Callable[[str | None], Any]


def environment_maker(root: Path | None, env_id: str) -> MakeEnvironment:
    """A function `render_mode -> environment` for a project folder.

    Raises:
        ConfigurationError: when dataset.py cannot be imported.
    """
    own = None if root is None else root / "dataset.py"
    if own is not None and own.is_file():
        make_env = getattr(_import_file(own), "make_env", None)
        if make_env is not None:
            # The id may come from --set; a make_env that builds its own world need not take it.
            takes_id = "environment" in inspect.signature(make_env).parameters
            chosen = {"environment": env_id} if takes_id else {}
            return lambda render_mode: make_env(render_mode=render_mode, **chosen)
    return lambda render_mode: make_environment(env_id, render_mode)


def vector_environment(
    make: MakeEnvironment, env_id: str, num_envs: int, *, render_first: bool = False
) -> VectorEnvironment:
    """N environments; with `render_first` the first one draws frames."""

    def build(index: int) -> Any:
        return make("rgb_array" if render_first and index == 0 else None)

    return VectorEnvironment(env_id, build, num_envs)


def _import_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("worldflux_project_dataset", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError, NameError, AttributeError) as error:
        raise ConfigurationError(
            f"dataset.py cannot be imported: {type(error).__name__}: {error}", where=str(path)
        ) from None
    return module
