"""`worldflux doctor`: versions, devices, extras, and environments that step and draw.

What can be tried is tried: an environment of each installed namespace is stepped in its own process
and draws a frame. What is wrong is reported with the command that fixes it.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import typer

from worldflux.envs import requirements
from worldflux.envs.namespaces import NAMESPACES
from worldflux.errors import WorldFluxError
from worldflux.models.registry import outside_family, outside_names
from worldflux.optional import install_command, is_installed

CHECK_FAILED = 3
CORE_PACKAGES = ("worldflux", "torch", "numpy", "gymnasium", "safetensors", "pydantic", "typer")
# Extra -> a module that it brings.
_EXTRAS = {
    **{row.extra: row.module for row in NAMESPACES if row.extra},
    "video": "av",
    "dashboard": "starlette",
}
_MARKS = {"ok": "ok     ", "absent": "absent ", "failed": "FAILED "}
_STEP_TIMEOUT_S = 60.0


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check versions, devices, rendering and environments; exit code 3 when a check fails."""
    checks = [
        *_versions(),
        *_devices(),
        *_extras(),
        *_renderer(),
        *_pairs(),
        *_plug_ins(),
        *_trials(),
    ]
    failed = sum(check.status == "failed" for check in checks)
    if as_json:
        report = {"healthy": not failed, "checks": [asdict(check) for check in checks]}
        typer.echo(json.dumps(report, indent=2))
    else:
        for check in checks:
            typer.echo(str(check))
        typer.echo(f"{failed} of {len(checks)} checks failed" if failed else "all well")
    if failed:
        raise typer.Exit(CHECK_FAILED)


@dataclass(frozen=True)
class Check:
    """One finding; `command` fixes it, or installs what is absent."""

    name: str
    status: Literal["ok", "absent", "failed"]
    detail: str
    command: str | None = None

    def __str__(self) -> str:
        line = f"{_MARKS[self.status]} {self.name}: {self.detail}"
        return line if self.command is None else f"{line}\n          {self.command}"


def _versions() -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    for package in CORE_PACKAGES:
        version = requirements.installed_version(package)
        if version is None:
            yield Check(package, "failed", "is not installed", f"pip install {package}")
        else:
            yield Check(package, "ok", version)


def _devices() -> Iterator[Check]:
    yield Check("cpu", "ok", f"{os.cpu_count()} cores")
    if not is_installed("torch"):
        return  # reported above
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
    for extra, module in _EXTRAS.items():
        if is_installed(module):
            yield Check(f"extra {extra}", "ok", f"{module} is installed")
        else:
            yield Check(f"extra {extra}", "absent", "not installed", install_command(extra))


def _renderer() -> Iterator[Check]:
    if not is_installed("mujoco"):
        return
    requirements.choose_renderer()
    chosen = os.environ.get("MUJOCO_GL")
    missing = requirements.missing_renderer()
    if missing is not None:
        yield Check("rendering", "failed", missing.problem, missing.command)
    elif chosen is None and not os.environ.get("DISPLAY"):
        detail = "no screen, no EGL and no OSMesa: MuJoCo cannot draw"
        yield Check("rendering", "failed", detail, "apt-get install libegl1")
    else:
        yield Check("rendering", "ok", f"MuJoCo draws through {chosen or 'the screen'}")


def _pairs() -> Iterator[Check]:
    for obstacle in requirements.broken_pairs():
        yield Check("packages", "failed", obstacle.problem, obstacle.command)


def _plug_ins() -> Iterator[Check]:
    for name in outside_names():
        try:
            outside_family(name)
        except WorldFluxError as error:
            detail = f"{error.where}: {error.message}" if error.where else error.message
            yield Check(f"family {name}", "failed", detail, error.hint)
        else:
            yield Check(f"family {name}", "ok", "can be imported")


def _trials() -> Iterator[Check]:
    for row in NAMESPACES:
        if is_installed(row.module):
            yield _trial(row.title, row.trial)


def _trial(name: str, env_id: str) -> Check:
    """Step an environment and let it draw, in its own process."""
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
        obs = envs.reset(0).obs
        envs.step(envs.spec.random_actions(np.random.default_rng(0), 1, obs))
        frame = envs.render_first()
        envs.close()
    except WorldFluxError as error:
        # A hint that is no command is advice about training, which this is not.
        is_command = error.hint is not None and error.hint.startswith(("pip ", "apt-get "))
        return Check(f"try {name}", "failed", error.message, error.hint if is_command else None)
    height, width = frame.shape[:2]
    return Check(f"try {name}", "ok", f"{env_id} steps, and draws {height} x {width} pixels")
