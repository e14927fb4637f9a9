"""What environments need beside worldflux, and pairs of packages that are known not to work.

Nothing is imported to find out: installed versions are read from the packages' metadata.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from importlib import metadata

from worldflux.optional import install_command, is_installed

# Extra -> a module that it brings.
EXTRAS = {
    "atari": "ale_py",
    "mujoco": "mujoco",
    "dmc": "dm_control",
    "video": "av",
    "dashboard": "starlette",
}


# Modules -> packages of another name that environments need.
_PACKAGES = {"cv2": "opencv-python", "PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn"}
# What MUJOCO_GL names -> the library that it draws with, and the package that brings it.
_RENDERERS = {"egl": ("libEGL.so.1", "libegl1"), "osmesa": ("libOSMesa.so.8", "libosmesa6")}


@dataclass(frozen=True)
class Obstacle:
    """Something that is known not to work, and the command that mends it."""

    problem: str
    command: str


def installed_version(package: str) -> str | None:
    """The version of an installed distribution, None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def pip_install(module: str) -> str:
    """The command that installs the package of a module."""
    name = module.partition(".")[0]
    return f"pip install {_PACKAGES.get(name, name)}"


def broken_pairs() -> list[Obstacle]:
    """Pairs of installed packages that do not work together, found by trying them."""
    found = []
    mujoco = installed_version("mujoco")
    if installed_version("dm_control") and mujoco and int(mujoco.split(".")[0]) >= 4:
        found.append(
            Obstacle(f"dm_control does not work with mujoco {mujoco}", "pip install 'mujoco<4'")
        )
    if mujoco and not is_installed("imageio"):
        found.append(
            Obstacle(
                "Gymnasium's MuJoCo environments need imageio, which mujoco alone does not bring",
                install_command("mujoco"),
            )
        )
    return found


def has_library(name: str) -> bool:
    """Whether the system has a shared library, such as "libEGL.so.1"."""
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
    """Renderers ask for no screen.

    SDL draws into memory, and so does MuJoCo without a screen: through EGL, or OSMesa, unless
    MUJOCO_GL says otherwise.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if os.environ.get("DISPLAY") or os.environ.get("MUJOCO_GL"):
        return
    for backend, (library, _) in _RENDERERS.items():
        if has_library(library):
            os.environ["MUJOCO_GL"] = backend
            return
