"""`worldflux imagine` on a run that trained for real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from worldflux.errors import ConfigurationError
from worldflux.progress import SILENT
from worldflux.project.imagine import imagine_run
from worldflux.project.open_run import open_run
from worldflux.project.run import train_project
from worldflux.verify.model_checks import check_predictions

from ..warm import Warm


def test_a_run_is_imagined_from_the_command_line(tiny_project: Path, python: Warm) -> None:
    folder = train_project(tiny_project, say=lambda line: None).folder
    picture = tiny_project / "seen.png"
    command = ["-m", "worldflux", "imagine", "--target", str(folder), "--json"]
    command += ["--horizon", "6", "--episodes", "2", "--out", str(picture)]
    done = python.run(*command, cwd=tiny_project)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["environment"] == "Pendulum-v1"
    assert report["skill"]["horizon"] == 6
    assert set(report["skill"]["errors"]) == {"reward", "value"}  # TD-MPC2 without a decoder
    for name in ("picture", "video", "numbers"):
        written = Path(report[name])
        assert (written.parent, written.stem) == (tiny_project, "seen")
        assert written.stat().st_size > 100
    with pytest.raises(ConfigurationError, match=r"\.png"):
        imagine_run(folder, out=tiny_project / "seen.jpg")


BARLOW = """
project_name = "barlow"
environment = "worldflux/Catch-v0"
model = "r2dreamer:laptop"

[architecture]
cnn_depth = 2
cnn_mults = [1, 1, 1, 1]
probe_decoder = PROBE
decoder_blocks = 2

[training]
total_steps = 2
batch_size = 2
sequence_length = 6
eval_interval = 2
save_interval = 1
device = "cpu"

[online_collection]
warmup_transitions = 20
num_envs = 1

[evaluation]
episodes = 2

[gameplay]
enabled = false
"""


@pytest.mark.parametrize("probe", [False, True])
def test_an_agent_without_a_decoder_is_imagined_as_far_as_it_can_be(
    tmp_path: Path, probe: bool
) -> None:
    """Pictures come from the probe; without it everything says what is missing and why."""
    text = BARLOW.replace("PROBE", str(probe).lower())
    (tmp_path / "worldflux.toml").write_text(text)
    folder = train_project(tmp_path, say=lambda line: None).folder
    report = imagine_run(folder, horizon=3, episodes=2)
    kinds = set(report.skill.errors)
    advice = "architecture.probe_decoder = true adds one"
    assert kinds == {"reward", "value"} | ({"observation"} if probe else set())
    assert (advice in str(report)) == (advice in Path(report.numbers).read_text()) == (not probe)
    run = open_run(folder, "last")
    played = run.play(run.environments(2), 2, 1, SILENT, record_episodes=2)
    checks = {check.name: check for check in check_predictions(run.model, played.recorded, 0.05, 0)}
    observed = checks["observation model"]
    expected = f"not measured: this model has no decoder; {advice}"
    assert (observed.detail == expected) == (observed.status == "not_applicable") == (not probe)
