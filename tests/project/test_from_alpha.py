"""`worldflux update --from-alpha`: a project of the alpha (0.1.x) trains, with its settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from worldflux.cli.app import main
from worldflux.errors import ConfigurationError
from worldflux.project.from_alpha import plan_from_alpha
from worldflux.project.loader import load_project
from worldflux.project.problems import ProjectFileError

# Every key that `worldflux init` of the alpha wrote.
WRITTEN = """\
project_name = "old-one"
environment = "{kind}"
model = "{model}"
model_type = "{family}"

[architecture]
obs_shape = {shape}
action_dim = 6
hidden_dim = 32

[training]
total_steps = 70000
batch_size = 4
sequence_length = 6
learning_rate = 3e-4
device = "cpu"
backend = "native_torch"
backend_profile = ""
output_dir = "./outputs"

[data]
source = "{source}"
num_episodes = 100
episode_length = 100
buffer_capacity = 9000
gym_env = "{gym_env}"

[gameplay]
enabled = false
fps = 8
max_frames = 512

[online_collection]
enabled = true
warmup_transitions = 40
collect_steps_per_update = 1
max_episode_steps = 30

[inference]
horizon = 9
checkpoint = "./outputs/checkpoint_final.pt"

[visualization]
enabled = false
host = "127.0.0.1"
port = 8765
refresh_ms = 1000
history_max_points = 2000
open_browser = false

[verify]
baseline = "official/{family}"
env = "atari/pong"
backend = "official_dreamerv3_jax_subprocess"
backend_profile = "official_xl"
mode = "quick"
proof_claim = "compare"
allow_official_only = false

[cloud]
gpu_type = "a100"
spot = true
region = "us-east-1"
timeout_hours = 24

[flywheel]
opt_in = false
privacy_epsilon = 1.0
privacy_delta = 1e-5
"""
TDMPC2 = {"model": "tdmpc2:ci", "family": "tdmpc2", "shape": "[39]"}
KINDS = {
    "atari": {
        "model": "dreamer:ci",
        "family": "dreamer",
        "shape": "[3, 64, 64]",
        "source": "gym",
        "gym_env": "ALE/Breakout-v5",
    },
    "mujoco": {**TDMPC2, "source": "gym", "gym_env": "HalfCheetah-v5"},
    "custom": {**TDMPC2, "source": "random", "gym_env": ""},
}
ENVIRONMENTS = {
    "atari": "ALE/Breakout-v5",
    "mujoco": "HalfCheetah-v5",
    "custom": "MountainCarContinuous-v0",
}


def an_old_project(folder: Path, kind: str, **changes: str) -> str:
    """Write a project as the alpha did; returns the text of its worldflux.toml."""
    folder.mkdir(exist_ok=True)
    text = WRITTEN.format(kind=kind, **{**KINDS[kind], **changes})
    (folder / "worldflux.toml").write_text(text)
    (folder / "dataset.py").write_text("from worldflux.training.data import of_the_alpha\n")
    return text


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return int(caught.value.code or 0)


@pytest.mark.parametrize("kind", KINDS)
def test_one_message_then_the_update_then_it_trains(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "atari":
        pytest.importorskip("ale_py")
    if kind == "mujoco":
        pytest.importorskip("mujoco")
    old = an_old_project(tmp_path, kind)
    monkeypatch.chdir(tmp_path)

    assert run("train") == 2
    message = capsys.readouterr().err
    assert message.count("error:") == message.count("hint:") == 1
    assert "hint: worldflux update --from-alpha writes today's project" in message

    assert run("update", "--from-alpha") == 0
    assert ("note     MountainCarContinuous-v0" in capsys.readouterr().out) == (kind == "custom")
    assert (tmp_path / "worldflux.toml.bak").read_text() == old
    assert "of_the_alpha" in (tmp_path / "dataset.py.bak").read_text()
    sections = load_project(tmp_path).sections
    assert sections.project_name == "old-one"
    assert (sections.environment, sections.model) == (ENVIRONMENTS[kind], KINDS[kind]["model"])
    frames = 4 if kind == "atari" else 1
    assert sections.environment_kwargs == {"max_episode_steps": 30 * frames}
    training = {"total_steps": 70000, "batch_size": 4, "sequence_length": 6, "device": "cpu"}
    assert training.items() <= sections.training.items()
    assert sections.architecture["hidden_dim"] == 32
    assert (sections.data.source, sections.data.buffer_capacity) == (KINDS[kind]["source"], 9000)
    assert sections.online_collection.warmup_transitions == 40
    assert (sections.inference.horizon, sections.inference.checkpoint) == (9, "last")
    assert run("update", "--check") == 0

    assert run("train", "--quiet", "--steps", "1", "--set", "evaluation.episodes=0") == 0
    assert (tmp_path / "outputs" / "checkpoints" / "step-000000001").is_dir()


def test_what_has_no_home_is_named(tmp_path: Path) -> None:
    old = an_old_project(tmp_path, "mujoco", model="jepa:base", source="parquet")
    (tmp_path / "worldflux.toml").write_text(old.replace("fps = 8", "fps = 8000"))
    planned = plan_from_alpha(tmp_path)
    assert [note.split(":")[0] for note in planned.notes] == [
        "model = 'tdmpc2",
        "data.source was left out",
        "gameplay.fps was left out",
    ]
    assert "'jepa:base'" in planned.notes[0]


def test_a_gitignore_stays_and_a_dry_run_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = an_old_project(tmp_path, "mujoco")
    (tmp_path / ".gitignore").write_text("mine\n")
    monkeypatch.chdir(tmp_path)
    assert run("update", "--from-alpha", "--dry-run") == 0
    assert '+environment = "HalfCheetah-v5"' in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".gitignore",
        "dataset.py",
        "worldflux.toml",
    ]
    assert (tmp_path / "worldflux.toml").read_text() == old
    assert run("update", "--from-alpha") == 0
    assert (tmp_path / ".gitignore").read_text() == "mine\n"


def test_a_project_of_today_is_refused(tmp_path: Path) -> None:
    text = 'project_name = "p"\nenvironment = "Pendulum-v1"\nmodel = "tdmpc2:ci"\n'
    (tmp_path / "worldflux.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"the alpha .* did not write this file"):
        plan_from_alpha(tmp_path)


@pytest.mark.parametrize(
    ("section", "line", "hint"),
    [
        ("verify", 'backend = "official_dreamerv3_jax_subprocess"', "delete it"),
        ("online_collection", "enabled = true", 'delete it; data.source = "gym" collects'),
        ("data", "episode_length = 100", "delete it"),
    ],
)
def test_a_key_that_is_left_is_not_sent_to_another_section(
    section: str, line: str, hint: str, tmp_path: Path
) -> None:
    text = 'project_name = "p"\nenvironment = "Pendulum-v1"\nmodel = "tdmpc2:ci"\n'
    (tmp_path / "worldflux.toml").write_text(f"{text}[{section}]\n{line}\n")
    with pytest.raises(ProjectFileError) as caught:
        load_project(tmp_path)
    (problem,) = caught.value.problems
    assert problem.hint == f"a key of the alpha (0.1.x): {hint}"
