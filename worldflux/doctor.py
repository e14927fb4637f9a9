"""Is this machine ready: versions, devices, extras, environments that step and draw.

What can be tried is tried: an environment of each installed namespace is stepped in a process of
its own and draws a frame. What is wrong is told with the command that mends it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from worldflux.envs.requirements import (
    EXTRAS,
    broken_pairs,
    choose_renderer,
    install_command,
    installed_version,
    is_installed,
    missing_renderer,
)
from worldflux.errors import WorldFluxError

CORE_PACKAGES = ("worldflux", "torch", "numpy", "gymnasium", "safetensors", "pydantic", "typer")
# What is tried -> the environment, and the module without which it is no fault not to have it.
TRIALS = {
    "classic control": ("CartPole-v1", "gymnasium"),
    "MuJoCo": ("HalfCheetah-v5", "mujoco"),
    "Atari": ("ALE/Pong-v5", "ale_py"),
    "dm_control": ("dm_control/cartpole-swingup-v0", "dm_control"),
}
_MARKS = {"ok": "ok     ", "absent": "absent ", "failed": "FAILED "}
_STEP_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Check:
    """One finding; `command` mends it, or installs what is absent."""

    name: str
    status: Literal["ok", "absent", "failed"]
    detail: str
    command: str | None = None

    def __str__(self) -> str:
        line = f"{_MARKS[self.status]} {self.name}: {self.detail}"
        return line if self.command is None else f"{line}\n          {self.command}"


@dataclass(frozen=True)
class Diagnosis:
    """Every check, in the order in which they were made."""

    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether no check failed; what is absent is no fault."""
        return all(check.status != "failed" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"healthy": self.healthy, "checks": [asdict(check) for check in self.checks]}

    def __str__(self) -> str:
        failed = [check for check in self.checks if check.status == "failed"]
        lines = [str(check) for check in self.checks]
        lines.append(f"{len(failed)} of {len(self.checks)} checks failed" if failed else "all well")
        return "\n".join(lines)


def diagnose() -> Diagnosis:
    """Make every check; takes some seconds, because environments are really built."""
    return Diagnosis((*_versions(), *_devices(), *_extras(), *_renderer(), *_pairs(), *_trials()))


def _versions() -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    for package in CORE_PACKAGES:
        found = installed_version(package)
        if found is None:
            yield Check(package, "failed", "is not installed", f"pip install {package}")
        else:
            yield Check(package, "ok", found)


def _devices() -> Iterator[Check]:
    yield Check("cpu", "ok", f"{os.cpu_count()} cores")
    if not is_installed("torch"):
        return  # told above
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(index).total_memory / 2**30
            detail = f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB"
            yield Check(f"cuda:{index}", "ok", detail)
    else:
        built = torch.version.cuda
        detail = "torch is built without CUDA" if built is None else "no device answers"
        yield Check("cuda", "absent", detail)
    if torch.backends.mps.is_available():
        yield Check("mps", "ok", "available")


def _extras() -> Iterator[Check]:
    for extra, module in EXTRAS.items():
        if is_installed(module):
            yield Check(f"extra {extra}", "ok", f"{module} is installed")
        else:
            yield Check(f"extra {extra}", "absent", "not installed", install_command(extra))


def _renderer() -> Iterator[Check]:
    if not is_installed("mujoco"):
        return
    choose_renderer()
    chosen = os.environ.get("MUJOCO_GL")
    missing = missing_renderer()
    if missing is not None:
        yield Check("rendering", "failed", missing.problem, missing.command)
    elif chosen is None and not os.environ.get("DISPLAY"):
        detail = "no screen, no EGL and no OSMesa: MuJoCo cannot draw"
        yield Check("rendering", "failed", detail, "apt-get install libegl1")
    else:
        yield Check("rendering", "ok", f"MuJoCo draws through {chosen or 'the screen'}")


def _pairs() -> Iterator[Check]:
    for obstacle in broken_pairs():
        yield Check("packages", "failed", obstacle.problem, obstacle.command)


def _trials() -> Iterator[Check]:
    for name, (env_id, module) in TRIALS.items():
        if is_installed(module):
            yield _trial(name, env_id)


def _trial(name: str, env_id: str) -> Check:
    """Step an environment and let it draw, in a process of its own."""
    import numpy as np

    from worldflux.envs.make import make_environment
    from worldflux.envs.vector import VectorEnvironment

    try:
        envs = VectorEnvironment(
            env_id,
            lambda _: make_environment(env_id, "rgb_array"),
            1,
            step_timeout_s=_STEP_TIMEOUT_S,
        )
        envs.reset(0)
        envs.step(envs.spec.random_actions(np.random.default_rng(0), 1))
        frame = envs.render_first()
        envs.close()
    except WorldFluxError as error:
        return Check(f"try {name}", "failed", error.message, _first_line(error.hint))
    height, width = frame.shape[:2]
    return Check(f"try {name}", "ok", f"{env_id} steps, and draws {height} x {width} pixels")


def _first_line(hint: str | None) -> str | None:
    """A hint that is a command; advice about training is none here."""
    return hint if hint is not None and hint.startswith(("pip ", "apt-get ")) else None
