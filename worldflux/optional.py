"""Packages that only an extra of worldflux brings."""

from __future__ import annotations

import importlib.util

from worldflux.errors import MissingDependencyError


def is_installed(module: str) -> bool:
    """Whether a module could be imported; nothing is imported to find out."""
    return importlib.util.find_spec(module) is not None


def install_command(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'worldflux[{extra}]'"


def require(what: str, extra: str, *modules: str) -> None:
    """Refuse work whose optional packages are not installed.

    Raises:
        MissingDependencyError: naming them and the command that installs the extra.
    """
    missing = [module for module in modules if not is_installed(module)]
    if missing:
        raise MissingDependencyError(
            f"{what} needs {' and '.join(missing)}, which is not installed",
            hint=install_command(extra),
        )
