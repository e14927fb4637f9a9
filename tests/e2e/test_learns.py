"""The line of the README, with real processes: init, train, eval, verify; the agent learned."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ..warm import Warm


def worldflux(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "worldflux", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=500, check=False
    )


def test_a_short_run_learns_far_beyond_chance(tmp_path: Path) -> None:
    """800 random steps and 450 of its own: random policies are near -1200 (`make learn`: -250)."""
    done = worldflux(tmp_path, "init", "pendulum", "--yes")
    assert done.returncode == 0, done.stderr
    root = tmp_path / "pendulum"
    settings = ["training.eval_interval=1400", "evaluation.episodes=1", "training.batch_size=64"]
    settings += ["online_collection.warmup_transitions=800", "gameplay.enabled=false"]
    planner = ("num_samples=64", "num_elites=16", "num_pi_trajs=12", "iterations=2")
    settings += [f"architecture.{setting}" for setting in planner]
    quick = [part for setting in settings for part in ("--set", setting)]
    done = worldflux(root, "train", "--steps", "1400", *quick)
    assert done.returncode == 0, done.stderr
    assert "evaluation at update 1400" in done.stderr

    done = worldflux(root, "eval", "--episodes", "5", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["return_mean"] > -700
    assert report["return_mean"] > report["random_return_mean"] + 300
    assert Path(root / report["video"]).stat().st_size > 1000
    assert Path(root / report["curve"]).stat().st_size > 1000

    manifest = json.loads((root / "outputs" / "run_manifest.json").read_text())
    assert manifest["run_classification"] == "meaningful_local_training"
    assert manifest["degraded_modes"] == []

    # The template's threshold is for the whole run; here the agent must beat chance alone.
    text = (root / "worldflux.toml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("threshold")]
    (root / "worldflux.toml").write_text("\n".join(lines) + "\n")
    done = worldflux(root, "verify", "--target", "outputs", "--mode", "quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verdict: PASS" in done.stdout


@pytest.mark.parametrize(
    ("environment", "module", "extra"),
    [("ALE/Pong-v5", "ale_py", "atari"), ("dm_control/walker-walk-v0", "dm_control", "dmc")],
)
def test_a_missing_extra_exits_four_and_writes_nothing(
    tiny_project: Path, environment: str, module: str, extra: str, python: Warm
) -> None:
    # The command in a process that cannot find the module, whether it is installed or not.
    hidden = (
        f"import sys; sys.modules[{module!r}] = None\n"
        f"sys.argv = ['worldflux', 'train', '--set', 'environment={environment}']\n"
        "from worldflux.cli.app import main; sys.exit(main())"
    )
    done = python.run("-c", hidden, cwd=tiny_project)
    assert done.returncode == 4
    assert f"pip install 'worldflux[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tiny_project / "outputs").exists()


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("environment=Pendulun-v1", "did you mean 'Pendulum-v1'"),
        ("environment=CartPole-v1", "DreamerV3"),
    ],
)
def test_an_environment_that_does_not_fit_exits_two(
    tiny_project: Path, setting: str, told: str, python: Warm
) -> None:
    done = python.run("-m", "worldflux", "train", "--set", setting, cwd=tiny_project)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tiny_project / "outputs").exists()


def test_a_full_output_folder_exits_two_untouched(tiny_project: Path, python: Warm) -> None:
    folder = tiny_project / "outputs"
    folder.mkdir()
    (folder / "precious.txt").write_text("mine")
    done = python.run("-m", "worldflux", "train", cwd=tiny_project)
    assert done.returncode == 2
    assert "--output-dir" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["precious.txt"]
