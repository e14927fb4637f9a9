"""Runs that begin with the weights of a saved model; saved models that are played."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from worldflux import create_world_model
from worldflux.cli.app import main
from worldflux.core.saved_model import load_tensors
from worldflux.errors import ConfigurationError, WorldFluxError
from worldflux.layout import WEIGHTS_FILE
from worldflux.project.manifest import read_manifest
from worldflux.project.open_run import open_model
from worldflux.project.run import train_project
from worldflux.training.callback import Callback
from worldflux.training.trainer import Trainer
from worldflux.verify.integrity import check_start

OFFICIAL = Path(__file__).parents[1] / "golden" / "data" / "tdmpc2" / "ckpt_L3_head.pt"
SHORT = (
    "training.total_steps=4",
    "training.save_interval=2",
    "training.eval_interval=4",
    "online_collection.warmup_transitions=10",
    "evaluation.episodes=1",
    "environment_kwargs.max_episode_steps=8",
)
# What an imported checkpoint of five observations and three actions is played in.
REACH = """
import gymnasium as gym
import numpy as np


class Reach(gym.Env):
    observation_space = gym.spaces.Box(-np.inf, np.inf, (5,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (3,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = self.np_random.normal(size=5).astype(np.float32), 0
        return self.place, {}

    def step(self, action):
        self.steps += 1
        self.place[:3] += 0.1 * np.asarray(action, np.float32)
        reward = -float(np.abs(self.place[:3]).mean())
        return self.place.copy(), reward, False, self.steps == 15, {}


def make_env(render_mode=None):
    return Reach()
"""


def run(root: Path, name: str, *overrides: str, said: list[str] | None = None, **how: Any) -> Path:
    lines: list[str] = [] if said is None else said
    chosen = [f"training.output_dir={name}", *(() if how.get("resume") else SHORT), *overrides]
    return train_project(root, overrides=chosen, say=lines.append, **how).folder


def weights_of(folder: Path, step: int = 4) -> dict[str, torch.Tensor]:
    return load_tensors(folder / "checkpoints" / f"step-{step:09d}" / WEIGHTS_FILE)


class StopAt(Callback):
    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if trainer.step == 2:
            trainer.request_stop()


@pytest.fixture
def saved(tiny_project: Path) -> Path:
    """A saved model that the tiny project's own can begin with, in the project's folder."""
    tiny = {"horizon": 2, "num_samples": 16, "num_elites": 4, "num_pi_trajs": 2, "iterations": 2}
    model = create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=1, **tiny)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    model.save_pretrained(tiny_project / "saved")
    return tiny_project / "saved"


def test_a_run_takes_weights_and_keeps_frozen_parts_to_the_last_bit(
    tiny_project: Path, saved: Path
) -> None:
    said: list[str] = []
    settings = (f"start_from={saved}", 'training.freeze=["encoder", "policy"]')
    whole = run(tiny_project, "whole", *settings, said=said)
    assert any(line.startswith("start: 61 tensors taken from") for line in said)
    before, after = load_tensors(saved / WEIGHTS_FILE), weights_of(whole)
    frozen = {n for n in before if n.startswith(("networks.encoder.", "networks.policy."))}
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    learned = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("networks.dynamics.") for name in learned)
    manifest = read_manifest(whole)
    assert set(manifest["start"]["frozen"]) == frozen
    (check,) = check_start(whole, manifest)
    assert check.status == "pass"
    assert "61 taken, 0 extended, 0 new, 0 of another shape" in check.detail
    assert "frozen: encoder, policy, unchanged" in check.detail
    manifest["start"]["frozen"][min(frozen)] = "0" * 64
    (check,) = check_start(whole, manifest)
    assert check.status == "fail"
    assert f"{min(frozen)} was frozen and changed" in check.detail

    run(tiny_project, "parts", *settings, callbacks=[StopAt()])
    resumed = run(tiny_project, "parts", resume=True)
    assert read_manifest(resumed)["start"] == read_manifest(whole)["start"]
    for name, tensor in weights_of(resumed).items():
        assert torch.equal(tensor, after[name]), name
    with pytest.raises(ConfigurationError, match=r"training\.freeze is \['encoder', 'policy'\]"):
        run(tiny_project, "parts", "training.freeze=[]", resume=True)


def test_what_does_not_fit_is_named_and_new(tiny_project: Path, saved: Path) -> None:
    said: list[str] = []
    other = ("environment=MountainCarContinuous-v0", "architecture.num_q_networks=3")
    folder = run(tiny_project, "other", *other, f"start_from={saved}", said=said)
    start = read_manifest(folder)["start"]
    assert "networks.encoder.mlp.hidden.0.linear.weight" in start["unfit"]
    assert all(".q" in name or "encoder" in name for name in start["unfit"])
    assert any("of another shape, so new: networks.encoder" in line for line in said)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("start_from=nowhere", "this path does not exist"),
        ("training.freeze=['encodr']", "this model has no part 'encodr'; it has encoder, dynamics"),
        ("model=dreamer:ci", "is a model of the family 'tdmpc2'"),
    ],
)
def test_what_cannot_begin_is_refused_before_anything_is_written(
    tiny_project: Path, saved: Path, override: str, said: str
) -> None:
    (tiny_project / "worldflux.toml").write_text(
        re.sub(r"\[architecture\][^[]*", "", (tiny_project / "worldflux.toml").read_text())
    )
    with pytest.raises(WorldFluxError, match=re.escape(said)):
        run(tiny_project, "refused", f"start_from={saved}", override)
    assert not (tiny_project / "refused").exists()


def test_a_saved_model_is_a_model_of_worldflux_toml(tiny_project: Path, saved: Path) -> None:
    folder = run(tiny_project, "on", "model=./saved")
    manifest = read_manifest(folder)
    assert manifest["model"] == "./saved"
    assert manifest["start"]["unfit"] == []
    with pytest.raises(ConfigurationError, match=r"no folder of a saved model.*\n.*--from \./on"):
        run(tiny_project, "again", "model=./on")


def test_a_saved_model_of_no_family_is_named_with_its_file(tiny_project: Path) -> None:
    (tiny_project / "fake").mkdir()
    for name, text in (("config.json", "{}"), ("model.safetensors", "")):
        (tiny_project / "fake" / name).write_text(text)
    said = r"--set model=./fake: .*fake/config\.json: no family builds model_type 'base'"
    with pytest.raises(ConfigurationError, match=said):
        run(tiny_project, "on", "model=./fake")


def test_a_run_alone_says_nothing_of_a_start(tiny_project: Path) -> None:
    folder = run(tiny_project, "plain")
    assert read_manifest(folder)["start"] is None
    assert check_start(folder, read_manifest(folder)) == []


def command(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


def test_an_official_checkpoint_is_imported_played_and_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["horizon=2", "num_samples=16", "num_elites=4", "num_pi_trajs=2", "iterations=2"]
    told = [word for field in small for word in ("--set", field)]
    imports = ["models", "import", str(OFFICIAL), "--family", "tdmpc2", "--to", "official", *told]
    assert command(*imports) == 0
    (tmp_path / "dataset.py").write_text(REACH)
    (tmp_path / "worldflux.toml").write_text(
        'project_name = "reach"\nenvironment = "reach"\nmodel = "./official"\n'
        "[training]\ntotal_steps = 50\nbatch_size = 8\neval_interval = 50\n"
        'device = "cpu"\n[online_collection]\nwarmup_transitions = 20\npretrain = false\n'
        "[data]\nbuffer_capacity = 500\n[evaluation]\nepisodes = 2\n"
        "[gameplay]\nenabled = false\n"
    )
    capsys.readouterr()
    assert command("eval", "--model", "official", "--episodes", "2", "--no-video", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["checkpoint"], report["lengths"]) == ("official", [15, 15])
    assert command("train", "--freeze", "dynamics") == 0
    manifest = read_manifest(tmp_path / "outputs")
    assert (manifest["status"], manifest["global_step"]) == ("completed", 50)
    assert (manifest["start"]["new"], manifest["start"]["unfit"]) == ([], [])
    before, after = load_tensors(Path("official") / WEIGHTS_FILE), weights_of(Path("outputs"), 50)
    moved = {n.split(".")[1] for n in before if "." in n and not torch.equal(before[n], after[n])}
    assert moved == {"encoder", "reward", "policy", "q", "q_target"}
    capsys.readouterr()
    assert command("imagine", "--model", "official", "--episodes", "1", "--horizon", "3") == 0
    assert (tmp_path / "imagination" / "official-imagined.png").is_file()
    assert command("eval", "--model", "official", "--env", "Pendulum-v1") == 2
    assert "Pendulum-v1 has observations (3,), and official learned with (5,)" in (
        capsys.readouterr().err
    )


def test_a_model_and_a_run_are_not_played_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("eval", "outputs", "--model", "m") == 2
    assert "--model plays a saved model" in capsys.readouterr().err


def test_an_environment_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: Path
) -> None:
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(ConfigurationError, match="names no environment to play in"):
        open_model(str(saved))
