"""What the alpha (0.1.x) wrote is recognised as such, once, with every change to make."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from worldflux import WorldModelConfig, create_world_model
from worldflux.cli.app import main
from worldflux.errors import CheckpointError, ConfigurationError, RunFolderError
from worldflux.project.loader import load_project
from worldflux.project.manifest import read_manifest
from worldflux.project.problems import ProjectFileError
from worldflux.training import Trainer, TrainingConfig

# As `worldflux init` of the alpha wrote it for MuJoCo.
PROJECT = """\
project_name = "cheetah"
environment = "mujoco"
model = "tdmpc2:ci"
model_type = "tdmpc2"

[architecture]
obs_shape = [39]
action_dim = 6
hidden_dim = 32

[data]
source = "gym"
num_episodes = 100
episode_length = 100
gym_env = "HalfCheetah-v5"

[online_collection]
enabled = true
max_episode_steps = 100

[inference]
horizon = 15
checkpoint = "./outputs/checkpoint_best.pt"

[visualization]
history_max_points = 2000

[verify]
baseline = "official/tdmpc2"
env = "mujoco/halfcheetah"
backend = "native_torch"
proof_claim = "compare"
allow_official_only = false

[cloud]
gpu_type = "a100"

[flywheel]
opt_in = false
"""


def test_a_project_is_told_once_with_every_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "worldflux.toml").write_text(PROJECT)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProjectFileError) as caught:
        load_project(Path())
    (problem,) = caught.value.problems
    assert problem.message == "the alpha (worldflux 0.1.x) wrote this file"
    lines = str(problem.hint).splitlines()
    assert lines[0].startswith("worldflux update --from-alpha writes ")
    assert "    worldflux.toml:2:1: environment: write a Gymnasium id" in lines
    assert "    worldflux.toml:15:1: data.gym_env: write it as environment, at the top" in lines
    changed = PROJECT.splitlines()
    for line in lines[2:]:  # following every line leaves a file that loads
        number, key = int(line.split(":")[1]), line.split(": ")[1]
        old = changed[number - 1]
        changed[number - 1] = {"environment": 'environment = "HalfCheetah-v5"'}.get(key, "")
        if key in ("cloud", "flywheel"):
            assert old == f"[{key}]"
            changed[number] = ""
    (tmp_path / "worldflux.toml").write_text("\n".join(changed))
    assert load_project(Path()).sections.environment == "HalfCheetah-v5"


def test_init_force_writes_todays_project_and_keeps_the_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "worldflux.toml").write_text(PROJECT)
    (tmp_path / "dataset.py").write_text("from worldflux.training.data import x\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["init", ".", "--force", "--yes", "--name", "cheetah", "--env", "HalfCheetah-v5"])
    assert caught.value.code == 0
    assert load_project(tmp_path).sections.environment == "HalfCheetah-v5"
    assert (tmp_path / "worldflux.toml.bak").read_text() == PROJECT


@pytest.mark.parametrize("files", [("config.json", "model.pt"), ("checkpoint_best.pt",)])
def test_a_saved_model_and_a_checkpoint_are_told(files: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    folder.mkdir()
    for name in files:
        (folder / name).write_bytes(b"{}")
    paths = [folder] if len(files) == 2 else [folder, folder / files[0]]
    model = create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=1)
    trainer = Trainer(model, TrainingConfig(device="cpu", output_dir=str(tmp_path / "new")))
    for path in paths:
        for opened in (create_world_model, trainer.load_checkpoint):
            with pytest.raises(CheckpointError, match=r"the alpha .* saved this") as caught:
                opened(path)  # type: ignore[operator]
            assert "docs/migration.md" in str(caught.value.hint)
    assert torch.isfinite(next(model.parameters())).all()


def test_configurations_are_told_with_every_key(tmp_path: Path) -> None:
    old = {
        "model_type": "tdmpc2",
        "training_tier": "reference",
        "target_q_tau": 0.01,
        "action_spec": {"kind": "continuous", "dim": 6, "discrete": False},
    }
    (tmp_path / "config.json").write_text(json.dumps(old))
    with pytest.raises(ConfigurationError, match=r"the alpha .* wrote this configuration") as one:
        WorldModelConfig.load(tmp_path)
    assert str(one.value.hint).startswith(
        "target_q_tau is tau today; delete training_tier, action_spec"
    )
    training = {"total_steps": 5, "instant_mode": False, "compile_model": True, "rank": None}
    (tmp_path / "training.json").write_text(json.dumps(training))
    with pytest.raises(ConfigurationError, match="the alpha") as two:
        TrainingConfig.load(tmp_path / "training.json")
    assert str(two.value.hint).startswith(
        "compile_model is compile today; delete instant_mode, rank"
    )


def test_a_run_is_told(tmp_path: Path) -> None:
    written = {"schema_version": "worldflux.training.run_manifest.v1", "global_step": 5}
    (tmp_path / "run_manifest.json").write_text(json.dumps(written))
    with pytest.raises(RunFolderError, match=r"the alpha .* wrote this run") as caught:
        read_manifest(tmp_path)
    assert "train again" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("arguments", "today"),
    [
        ("eval --format text", "--json"),
        ("train --resume-from x.pt", "worldflux train --resume"),
        ("verify --demo", "worldflux verify --mode quick"),
        ("-V", "--version"),
        ("parity run", "worldflux verify --mode proof"),
    ],
)
def test_its_command_lines_are_answered_with_todays(
    arguments: str, today: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("hint: ")
    assert last.endswith(f"today: {today}")


@pytest.mark.parametrize("spelling", ["--format json", "--format=json", "--json"])
def test_its_json_is_todays(spelling: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["models", "list", "--surface", "public", *spelling.split()])
    assert caught.value.code == 0
    assert "tdmpc2:proof_5m" in json.loads(capsys.readouterr().out)["models"]


def test_the_command_names_the_folder_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "an old one"
    folder.mkdir()
    (folder / "worldflux.toml").write_text(PROJECT)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProjectFileError) as caught:
        load_project(Path("an old one"))
    assert str(caught.value.problems[0].hint).startswith("worldflux update 'an old one' --from")


def test_a_command_of_today_is_not_called_the_alphas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["report", str(tmp_path / "none")])
    assert caught.value.code == 2
    assert "alpha" not in capsys.readouterr().err
