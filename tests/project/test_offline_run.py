"""A run that learns from recorded data alone, and what it says of its needs beforehand."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from worldflux.errors import ConfigurationError
from worldflux.project.data_report import report_on
from worldflux.project.loader import load_project
from worldflux.project.manifest import read_manifest
from worldflux.project.plan_data import open_project_data
from worldflux.project.run import RunOutcome, train_project
from worldflux.verify.quick import verify_quick

from ..warm import Warm

DATASET = "worldflux/pendulum-random-v0"
QUICK = ("evaluation.episodes=1", "architecture.iterations=1", "training.total_steps=2")


def run(root: Path, *overrides: str, **options: Any) -> RunOutcome:
    return train_project(root, overrides=overrides, say=lambda line: None, **options)


@pytest.fixture
def pendulum_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Two episodes of random actions, as a Minari data set and as columns."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    env = gymnasium.make("Pendulum-v1")
    env.action_space.seed(0)
    buffers, columns = [], []
    for number in range(2):
        obs, told = [env.reset(seed=number)[0]], []
        actions = [env.action_space.sample() for _ in range(200)]
        for action in actions:
            following, *rest = env.step(action)
            obs.append(following)
            told.append(rest[:3])
        rewards, terminations, truncations = zip(*told, strict=True)
        buffers.append(
            EpisodeBuffer(
                id=number,
                observations=np.array(obs),
                actions=np.array(actions),
                rewards=list(rewards),
                terminations=list(terminations),
                truncations=list(truncations),
            )
        )
        columns.append((obs[:-1], actions, rewards, terminations, truncations, obs[1:]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # who recorded it, with which code: not told in a test
        minari.create_dataset_from_buffers(DATASET, buffers, env=env)
    env.close()
    names = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
    parts = zip(*columns, strict=True)
    return {name: np.concatenate(part) for name, part in zip(names, parts, strict=True)}


def test_a_minari_data_set_trains_through_the_command(
    tiny_project: Path, pendulum_data: dict[str, np.ndarray], python: Warm
) -> None:
    toml = tiny_project / "worldflux.toml"
    text = toml.read_text().replace("[data]", f'[data]\nsource = "minari"\ndataset = "{DATASET}"')
    toml.write_text(text.replace("eval_interval = 20", "eval_interval = 200"))
    done = python.run("-m", "worldflux", "train", "--steps", "200", cwd=tiny_project)
    assert done.returncode == 0, done.stderr
    assert "needs: replay" in done.stderr
    manifest = read_manifest(tiny_project / "outputs")
    assert (manifest["status"], manifest["global_step"]) == ("completed", 200)
    assert (manifest["data_mode"], manifest["env_steps"]) == ("offline", 0)
    assert manifest["run_classification"] == "meaningful_local_training"
    assert manifest["offline_data"]["episodes"] == 2
    assert manifest["offline_data"]["recorded_in"] == "Pendulum-v1"
    assert manifest["final"]["return_mean"] < 0  # the environment is known, so it was evaluated


def test_resume_goes_on_from_the_copy_without_the_episodes(
    tiny_project: Path, pendulum_data: dict[str, np.ndarray]
) -> None:
    np.savez(tiny_project / "steps.npz", **pendulum_data)
    source = ('data.source="npz"', 'data.path="steps.npz"')
    run(tiny_project, *source)
    chunks = {p: p.stat().st_mtime_ns for p in (tiny_project / "outputs" / "replay").iterdir()}
    assert len(chunks) == 1
    outcome = run(tiny_project, *source, "training.total_steps=40", resume=True)
    assert outcome.result.step == 40
    after = {p: p.stat().st_mtime_ns for p in (tiny_project / "outputs" / "replay").iterdir()}
    assert after == chunks


def test_data_without_an_environment_trains_and_is_not_evaluated(
    tiny_project: Path, pendulum_data: dict[str, np.ndarray]
) -> None:
    np.savez(tiny_project / "steps.npz", **pendulum_data)
    with pytest.raises(ConfigurationError, match=r"actions are 1 numbers from .* no environment"):
        run(tiny_project, "environment=none", 'data.source="npz"', 'data.path="steps.npz"')
    pendulum_data["actions"] /= 2.0  # nothing else says what the bounds were
    np.savez(tiny_project / "steps.npz", **pendulum_data)
    source = ("environment=none", 'data.source="npz"', 'data.path="steps.npz"')
    printed: list[str] = []
    outcome = train_project(tiny_project, overrides=source, say=printed.append)
    manifest = read_manifest(outcome.folder)
    assert manifest["data_mode"] == "offline"
    assert manifest["environment"]["id"] == "none"
    assert manifest["final"] is None
    assert "worldflux dashboard" in printed[-1]
    assert "worldflux verify" not in printed[-1]  # which says why it cannot be played:
    found = {check.name: check for check in verify_quick(outcome.folder).checks}
    assert found["environment"].status == "fail"
    assert "without an environment" in found["environment"].detail


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (['data.source="minari"'], r"needs data\.dataset"),
        (['data.source="npz"'], r"needs data\.path"),
        (['data.source="minari"', 'data.dataset="no/such-v0"'], "no readable Minari data set"),
        (["environment=none"], "needs recorded data"),
        (['data.source="npz"', 'data.path="steps.npz"', "data.buffer_capacity=100"], "402 rows"),
        (
            ['data.source="npz"', 'data.path="steps.npz"', "environment=MountainCarContinuous-v0"],
            "are not those of|has shape",
        ),
        (['data.storage="ram"', "data.buffer_capacity=1000000000"], "this run cannot fit"),
        (["data.buffer_capacity=1000000000", "environment=Pendulum-v1"], "this run cannot fit"),
    ],
)
def test_what_does_not_fit_is_told_before_the_first_step(
    tiny_project: Path,
    pendulum_data: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    message: str,
) -> None:
    usage = type("Usage", (), {"free": 1 << 30})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    np.savez(tiny_project / "steps.npz", **pendulum_data)
    with pytest.raises(ConfigurationError, match=message) as caught:
        run(tiny_project, *overrides)
    assert caught.value.hint
    assert not (tiny_project / "outputs" / "checkpoints").exists()


def test_the_report_reads_the_data_through(
    tiny_project: Path, pendulum_data: dict[str, np.ndarray]
) -> None:
    np.savez(tiny_project / "steps.npz", **pendulum_data)
    by_file = report_on(str(tiny_project / "steps.npz"))
    assert any("set environment to the one" in note for note in by_file.copied.notes)  # reaches 2
    by_id = report_on(DATASET)
    assert by_id.copied.recorded == by_id.copied.replay == by_file.copied.replay
    assert (by_id.copied.replay.episodes, by_id.copied.replay.time_limits) == (2, 2)
    assert by_id.to_dict()["recorded_in"] == "Pendulum-v1"
    toml = tiny_project / "worldflux.toml"
    toml.write_text(
        toml.read_text().replace("[data]", '[data]\nsource = "npz"\npath = "steps.npz"')
    )
    of_project = report_on(str(tiny_project))
    assert of_project.copied.replay == by_id.copied.replay
    assert json.loads(json.dumps(of_project.to_dict()))["observations"] == {"": [3]}


def test_a_path_may_begin_with_the_home_folder(
    tiny_project: Path, pendulum_data: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tiny_project / "home"
    home.mkdir()
    np.savez(home / "steps.npz", **pendulum_data)
    monkeypatch.setenv("HOME", str(home))
    project = load_project(tiny_project, ["data.source=npz", 'data.path="~/steps.npz"'])
    data = open_project_data(project)
    assert data is not None
    assert data.num_rows == 402


def test_a_mapped_replay_with_recency_trains_like_any(tiny_project: Path) -> None:
    options = ('data.storage="mmap"', 'data.sampling="recency"', "data.recency_half_life=50.0")
    outcome = run(tiny_project, *options)
    needs = read_manifest(outcome.folder)["needs"]
    assert needs["replay_storage"] == "mmap"
    assert needs["replay_rows"] == 5000
    again = run(tiny_project, *options, "training.total_steps=30", resume=True)
    assert again.result.step == 30


def test_telling_the_needs_changes_nothing_of_the_run(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = run(tiny_project, 'training.output_dir="a"').folder
    monkeypatch.setattr("worldflux.project.run_parts.measure", lambda *args: (0.0, 0.0))
    untold = run(tiny_project, 'training.output_dir="b"').folder
    hashes = [read_manifest(folder)["weights_sha256"] for folder in (told, untold)]
    assert hashes[0] == hashes[1]


def test_data_info_and_train_show_the_same_counts(
    tiny_project: Path, pendulum_data: dict[str, np.ndarray]
) -> None:
    ended = pendulum_data.pop("timeouts") | pendulum_data.pop("terminals")
    del pendulum_data["next_observations"]
    np.savez(tiny_project / "steps.npz", **pendulum_data, dones=ended, infos=np.zeros(400))
    toml = tiny_project / "worldflux.toml"
    toml.write_text(
        toml.read_text().replace("[data]", '[data]\nsource = "npz"\npath = "steps.npz"')
    )
    info = [line.split(maxsplit=1) for line in str(report_on(str(tiny_project))).splitlines()]
    said: list[str] = []
    train_project(tiny_project, overrides=QUICK, say=said.append)
    recorded, replay = (
        next(rest for name, rest in info if name == wanted) for wanted in ("recorded", "replay")
    )
    assert recorded.startswith("2 episodes (0 true ends, 2 time limits), 400 transitions, sum of")
    assert replay.startswith("2 episodes (0 true ends, 2 time limits), 398 transitions, sum of")
    assert f"recorded: {recorded}" in said
    assert f"replay: {replay.split(';')[0]}" in said
    notes = [f"note: {rest}" for name, rest in info if name == "note"]
    assert "note: not read: infos" in notes
    assert set(notes) <= set(said)
    counts = read_manifest(tiny_project / "outputs")["offline_data"]
    assert (counts["recorded"]["transitions"], counts["replay"]["transitions"]) == (400, 398)
    again = train_project(tiny_project, overrides=["training.total_steps=3"], resume=True)
    assert read_manifest(again.folder)["offline_data"] == counts


def test_episodes_that_are_never_sampled_are_told_or_refused(
    tiny_project: Path, pendulum_data: dict[str, np.ndarray]
) -> None:
    steps = {name: values[:30] for name, values in pendulum_data.items()}
    source = ('data.source="npz"', 'data.path="steps.npz"', *QUICK)
    steps["timeouts"] = np.isin(np.arange(30), (0, 29))
    np.savez(tiny_project / "steps.npz", **steps)
    said: list[str] = []
    train_project(tiny_project, overrides=source, say=said.append)
    assert any("episodes never sampled, shorter than a sequence" in line for line in said)
    del steps["next_observations"]
    steps["timeouts"] = np.arange(30) % 2 == 1
    np.savez(tiny_project / "steps.npz", **steps)
    with pytest.raises(ConfigurationError, match="no recorded episode is long enough") as caught:
        run(tiny_project, *source, 'training.output_dir="again"')
    assert "at most 2 steps" in str(caught.value.hint)
    assert not (tiny_project / "again" / "run_manifest.json").exists()


def test_a_resumed_run_says_that_its_replay_holds_another_reading(
    tiny_project: Path, pendulum_data: dict[str, np.ndarray]
) -> None:
    ended = pendulum_data.pop("timeouts") | pendulum_data.pop("terminals")
    np.savez(tiny_project / "steps.npz", **pendulum_data, dones=ended)
    source = ('data.source="npz"', 'data.path="steps.npz"', *QUICK, "architecture.episodic=true")
    folder = run(tiny_project, *source, 'data.dones="terminations"').folder
    path = folder / "run_manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest["offline_data"]["replay"]["true_ends"] == 2
    for name in ("recorded", "replay", "notes"):  # as an earlier version wrote it
        del manifest["offline_data"][name]
    path.write_text(json.dumps(manifest))
    said: list[str] = []
    more = ("training.total_steps=3",)
    train_project(tiny_project, overrides=more, resume=True, say=said.append)
    assert not any("another reading" in line for line in said)
    more = ("training.total_steps=4", 'data.dones="time_limits"')
    train_project(tiny_project, overrides=more, resume=True, say=said.append)
    told = next(line for line in said if "another reading" in line)
    assert "(2 true ends, 0 time limits)" in told
    assert "read as 2 episodes (0 true ends, 2 time limits)" in told
    assert told.removeprefix("warning: ") in read_manifest(folder)["warnings"]


@pytest.mark.parametrize(
    ("source", "key"), [("gym", "path"), ("gym", "dataset"), ("npz", "dataset"), ("minari", "path")]
)
def test_data_that_the_source_does_not_read_is_refused(
    tiny_project: Path, source: str, key: str
) -> None:
    project = load_project(tiny_project, overrides=(f"data.source={source}", f"data.{key}=there"))
    with pytest.raises(ConfigurationError, match=rf'data\.{key} is not read .* "{source}"'):
        open_project_data(project)
