"""Builds wheel and sdist, checks them, and goes through the quick start where worldflux is new.

    python tests/packaging/fresh_installs.py [--only NAME ...] [--updates N] [--work DIR]
        [--tools DIR]

Every installation has a separate environment and folder, outside of the checkout, and sees
only the wheel or the sdist. With `--updates` the quick start is shortened: so many updates, and two
episodes an evaluation; verify may then find that the agent has not learned (exit code 3). torch
takes gigabytes: each environment is deleted before the next.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
TORCH = "torch==2.13.0"  # of constraints.txt
TOOLS = ("build", "twine", "uv", "pipx")
SHORT = {
    "WORLDFLUX_EVALUATION__EPISODES": "2",
    "WORLDFLUX_ONLINE_COLLECTION__WARMUP_TRANSITIONS": "500",
    "WORLDFLUX_VERIFY__EPISODES": "2",
}
# Imports everything that the commands import, where each attempt to reach a network is an error.
IMPORTS = """
import importlib, pkgutil, sys

def no_network(event, details):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        raise SystemExit(f"{event} at import: {details}")

sys.addaudithook(no_network)
import worldflux
import torch
names = [m.name for m in pkgutil.walk_packages(worldflux.__path__, "worldflux.")]
for name in names:
    if not name.endswith("__main__"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            assert error.name.partition(".")[0] != "worldflux", error
print(f"{sys.version.split()[0]} {torch.__version__} {len(names)}")
"""


@dataclass(frozen=True)
class Install:
    """One way to install: a tool, a Python, a release of torch."""

    name: str
    tool: str
    python: str
    torch: str
    archive: str = "*.whl"


INSTALLS = (
    Install("uv", "uv", "3.11", TORCH),
    Install("pipx", "pipx", "3.11", TORCH),
    Install("sdist", "pip", "3.11", TORCH, "*.tar.gz"),
    Install("pip-3.12", "pip", "3.12", "torch==2.10.*"),  # the lowest that pyproject.toml allows
    Install("pip-3.13", "pip", "3.13", "torch"),  # the newest
    Install("pip-3.14", "pip", "3.14", "torch"),
)


def run(*command: str | Path, cwd: Path, codes: tuple[int, ...] = (0,), **variables: str) -> str:
    """What a command prints; SystemExit with its output unless it exits with one of `codes`."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**environment, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode not in codes:
        raise SystemExit(
            f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def built(tools: Path, dist: Path) -> None:
    """Build sdist and wheel, and check what they hold."""
    run(tools / "python", "-m", "build", "-q", "-o", dist, CHECKOUT, cwd=dist.parent)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    print(run(tools / "twine", "check", "--strict", wheel, sdist, cwd=dist).strip())
    with zipfile.ZipFile(wheel) as unpacked:
        held = unpacked.namelist()
    strange = {n.split("/")[0] for n in held} - {
        "worldflux",
        "-".join(wheel.name.split("-")[:2]) + ".dist-info",
    }
    assert not strange, f"the wheel also holds {strange}"
    assert "worldflux/py.typed" in held
    assert "worldflux/_templates/worldflux.toml.j2" in held
    with tarfile.open(sdist) as archive:
        inner = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "CITATION.cff", "tests/conftest.py", "docs/migration.md"} <= inner
    for file in (wheel, sdist):
        print(f"{file.name}: {file.stat().st_size / 1e6:.2f} MB")


def installed(install: Install, python: str, archive: Path, tools: Path, place: Path) -> Path:
    """Install into `place`; returns the folder of its programs."""
    if install.tool == "uv":
        rooms = {"UV_TOOL_DIR": f"{place}/tools", "UV_TOOL_BIN_DIR": f"{place}/bin"}
        command = ("tool", "install", "-q", "--python", python, "--with", install.torch, archive)
        run(tools / "uv", *command, cwd=place, **rooms)
        return place / "tools" / "worldflux" / "bin"
    if install.tool == "pipx":
        rooms = {"PIPX_HOME": f"{place}/pipx", "PIPX_BIN_DIR": f"{place}/bin"}
        (place / "pins").write_text(install.torch)
        command = ("install", "--python", python, f"--pip-args=-c {place}/pins", archive)
        run(tools / "pipx", *command, cwd=place, **rooms)
        return place / "pipx" / "venvs" / "worldflux" / "bin"
    run(python, "-m", "venv", place / "venv", cwd=place)
    programs = place / "venv" / "bin"
    pip = ("-m", "pip", "install", "-q", "--no-compile")
    run(programs / "python", *pip, install.torch, archive, cwd=place)
    return programs


def quick_start(programs: Path, place: Path, updates: int | None) -> str:
    """init, train and verify of the default project; a few words on each."""
    command = place / "bin" / "worldflux"  # where uv and pipx put it
    command = command if command.exists() else programs / "worldflux"
    run(command, "init", "agent", "--yes", cwd=place)
    began = time.monotonic()
    short = {} if updates is None else {**SHORT, "WORLDFLUX_TRAINING__TOTAL_STEPS": str(updates)}
    run(command, "train", "--quiet", cwd=place / "agent", **short)
    seconds = time.monotonic() - began
    text = run(command, "verify", cwd=place / "agent", codes=(0, 3) if short else (0,), **short)
    verdict = text.strip().splitlines()[-1]
    return f"{updates or 'all'} updates in {seconds:.0f} s; verify: {verdict}"


def main() -> None:
    """Print a line for each installation; the first that fails ends the program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="*", help=", ".join(one.name for one in INSTALLS))
    parser.add_argument("--updates", type=int, help="instead of the project's own number")
    parser.add_argument("--work", type=Path, help="folder for the environments")
    parser.add_argument("--tools", type=Path, help=f"environment that has {', '.join(TOOLS)}")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.work) as folder:
        work = Path(folder)
        tools = (asked.tools or work / "tools").absolute() / "bin"
        if asked.tools is None:
            run(sys.executable, "-m", "venv", work / "tools", cwd=work)
            run(tools / "python", "-m", "pip", "install", "-q", *TOOLS, cwd=work)
        built(tools, work / "dist")
        for install in INSTALLS:
            if asked.only is not None and install.name not in asked.only:
                continue
            python = shutil.which(f"python{install.python}")
            if python is None or subprocess.run([python, "-V"], capture_output=True).returncode:
                print(f"{install.name}: no python{install.python} here", flush=True)
                continue
            (place := work / install.name).mkdir()
            (archive,) = (work / "dist").glob(install.archive)
            began = time.monotonic()
            programs = installed(install, python, archive, tools, place)
            seconds = time.monotonic() - began
            versions = run(programs / "python", "-c", IMPORTS, cwd=place).split()
            words = quick_start(programs, place, asked.updates)
            print(
                f"{install.name}: Python {versions[0]}, torch {versions[1]}: installed in "
                f"{seconds:.0f} s, {versions[2]} modules imported without a network; {words}",
                flush=True,
            )
            shutil.rmtree(place)


if __name__ == "__main__":
    main()
