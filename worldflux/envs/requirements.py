"""What environments need besides worldflux, and combinations of packages that do not work.

Nothing is imported to find out: installed versions are read from the packages' metadata.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from dataclasses import dataclass
from importlib import metadata

from worldflux.optional import install_command, is_installed

# Modules -> packages of another name that environments need.
_PACKAGES = {"cv2": "opencv-python", "PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn"}
# What MUJOCO_GL names -> the library that it draws with, and the package that brings it.
_RENDERERS = {"egl": ("libEGL.so.1", "libegl1"), "osmesa": ("libOSMesa.so.8", "libosmesa6")}
_seen_warnings: set[str] = set()


@dataclass(frozen=True)
class Obstacle:
    """Something that is known not to work, and the command that fixes it."""

    problem: str
    command: str


def installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def pip_install(module: str) -> str:
    name = module.partition(".")[0]
    return f"pip install {_PACKAGES.get(name, name)}"


def broken_pairs() -> list[Obstacle]:
    """Installed packages that do not work together."""
    found = []
    mujoco = installed_version("mujoco")
    if installed_version("dm_control") and mujoco and int(mujoco.split(".")[0]) >= 4:
        problem = f"dm_control does not work with mujoco {mujoco}"
        found.append(Obstacle(problem, "pip install 'mujoco<4'"))
    if mujoco and not is_installed("imageio"):
        problem = "Gymnasium's MuJoCo environments need imageio, which mujoco alone does not bring"
        found.append(Obstacle(problem, install_command("mujoco")))
    return found


def has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def missing_renderer() -> Obstacle | None:
    """The library that MUJOCO_GL names, where the system does not have it."""
    chosen = os.environ.get("MUJOCO_GL", "")
    library, package = _RENDERERS.get(chosen, ("", ""))
    if not library or has_library(library):
        return None
    problem = f"MUJOCO_GL={chosen}, and there is no {library}"
    return Obstacle(problem, f"apt-get install {package}")


def choose_renderer() -> None:
    """Make renderers draw without a screen: SDL into memory, MuJoCo through EGL or OSMesa.

    A screen or MUJOCO_GL decides otherwise.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if os.environ.get("DISPLAY") or os.environ.get("MUJOCO_GL"):
        return
    for backend, (library, _) in _RENDERERS.items():
        if has_library(library):
            os.environ["MUJOCO_GL"] = backend
            return


def take_mujoco_warnings() -> None:
    """Print each of MuJoCo's warnings once, where it is imported; it writes no MUJOCO_LOG.TXT."""
    mujoco = sys.modules.get("mujoco")
    if mujoco is not None:
        mujoco.set_mju_user_warning(_print_warning)


def _print_warning(text: str) -> None:
    kind = re.sub(r"[\d.]+", "", text)
    # Deprecations are for authors of environments.
    if kind not in _seen_warnings and "is deprecated" not in text:
        print(f"mujoco: {text}", file=sys.stderr)
    _seen_warnings.add(kind)
