"""The example package of docs/examples, as pip installs it: a third family that learns."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ..warm import Warm

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "latent_mlp"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that finds the installed package."""
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "target"))
    shutil.copytree(EXAMPLE, source, dirs_exist_ok=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--disable-pip-version-check", "--target", str(target)]
    subprocess.run([*command, str(source)], check=True, capture_output=True, timeout=300)
    assert (target / "worldflux_latent_mlp.py").read_bytes() == (
        EXAMPLE / "worldflux_latent_mlp.py"
    ).read_bytes()
    path = os.pathsep.join([str(target), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}


Run = Callable[..., str]
CODE = ("-W", "error", "-c")


@pytest.fixture
def run(tmp_path: Path, installed: dict[str, str], python: Warm) -> Run:
    """What `python ARGUMENTS` prints in a process that finds the package."""

    def run(*arguments: str, folder: Path = tmp_path, code: int = 0) -> str:
        done = python.run(*arguments, cwd=folder, env=installed)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout or done.stderr

    return run


def test_a_family_from_outside_learns_pendulum(run: Run) -> None:
    """The README's own block: data, the unchanged Trainer, a falling loss, saving, reopening."""
    (block,) = re.findall(r"```python\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.S)
    shown = run(*CODE, block)
    lines = shown.splitlines()
    first, last = map(float, re.findall(r"[0-9.]+", lines[0]))
    assert last < 0.5 * first
    assert lines[1:] == ["RepeatFirstAction", "LatentMLP"]
    weights = "from worldflux import create_world_model; create_world_model('./latent-mlp')"
    run(*CODE, weights)  # in a process that has not seen the family before


ACTS = """
import torch
from worldflux import create_world_model
from worldflux.data.collector import Collector
from worldflux.envs.make import make_environment
from worldflux.envs.vector import VectorEnvironment
from worldflux.training import ReplayBuffer, Trainer, TrainingConfig
from worldflux.data.sources import CollectionSchedule, OnlineSource

envs = VectorEnvironment("Pendulum-v1", lambda i: make_environment("Pendulum-v1"), 2)
buffer = ReplayBuffer(500, (3,), 1, num_envs=2)
source = OnlineSource(Collector(envs, buffer, 0), CollectionSchedule(40, 0, 2.0))
model = create_world_model("latent-mlp")
result = Trainer(model, TrainingConfig(total_steps=10, device="cpu")).train(source)
print(result.step, result.env_steps)
envs.close()
"""


def test_a_family_from_outside_acts_and_collects(run: Run) -> None:
    assert run(*CODE, ACTS) == "10 58\n"


def test_without_the_package_the_saved_model_says_what_is_missing(tmp_path: Path) -> None:
    from worldflux import ConfigurationError, create_world_model

    (tmp_path / "config.json").write_text('{"model_type": "latent-mlp"}')
    with pytest.raises(ConfigurationError, match="latent-mlp"):
        create_world_model(tmp_path)


def test_the_command_line_knows_a_family_from_outside(tmp_path: Path, run: Run) -> None:
    def worldflux(*words: str, folder: Path = tmp_path / "p", code: int = 0) -> str:
        return run("-m", "worldflux", *words, folder=folder, code=code)

    listed = json.loads(worldflux("models", "list", "--surface", "all", "--json", folder=tmp_path))
    assert listed["models"]["latent-mlp:small"]["parameters"] == 21_444
    chosen = ("--model", "latent-mlp:small", "--steps", "20", "--yes")
    worldflux("init", "p", *chosen, folder=tmp_path)
    schema = json.loads((tmp_path / "p/.worldflux/schema.json").read_text())
    assert "candidates" in schema["$defs"]["LatentMLPConfig"]["properties"]
    file = tmp_path / "p/worldflux.toml"
    numbers = {"episodes = 10": "episodes = 2", "episodes = 20": "episodes = 3"}
    text = file.read_text().replace("[architecture]", "[architecture]\ncandidates = 8")
    text += "[environment_kwargs]\nmax_episode_steps = 50\n"
    for old, new in {**numbers, "max_frames = 512": "max_frames = 8"}.items():
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    worldflux("train", "--set", "training.eval_interval=20")
    assert worldflux("eval", "--episodes", "2", "--json")
    report = json.loads((tmp_path / "p/outputs/run_manifest.json").read_text())
    assert (report["model"], report["model_config"]["candidates"]) == ("latent-mlp:small", 8)
    assert "verdict" in worldflux("verify", code=3)  # intact, and as bad as random after 20 updates


def test_a_key_that_the_family_from_outside_lacks_is_refused(tmp_path: Path, run: Run) -> None:
    text = 'project_name = "p"\nenvironment = "Pendulum-v1"\nmodel = "latent-mlp:small"\n'
    (tmp_path / "worldflux.toml").write_text(f"{text}[architecture]\nkandidates = 3\n")
    refused = run("-m", "worldflux", "train", code=2)
    assert "worldflux.toml:5:1" in refused
    assert "did you mean 'candidates'" in refused
