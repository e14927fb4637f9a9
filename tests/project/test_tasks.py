"""One agent, several tasks: padded, drawn by weight, evaluated, verified and resumed by task."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from worldflux.core.saved_model import load_tensors
from worldflux.data.recorded import KnownEnvironment, open_offline
from worldflux.data.replay import ReplayBuffer
from worldflux.data.task_data import joined_tasks
from worldflux.envs.tasks import PaddedTask, Padding
from worldflux.errors import ConfigurationError, EnvironmentSetupError
from worldflux.layout import WEIGHTS_FILE
from worldflux.progress import Progress
from worldflux.project.data_report import report_on
from worldflux.project.evaluate import evaluate_run
from worldflux.project.loader import load_project
from worldflux.project.manifest import read_manifest
from worldflux.project.open_run import open_model
from worldflux.project.problems import ProjectFileError
from worldflux.project.run import train_project
from worldflux.run_log import read_rows
from worldflux.training.callback import Callback
from worldflux.training.trainer import Trainer

OWN = '''
import gymnasium as gym
import numpy as np


class Reach(gym.Env):
    """Moves `size` numbers with as many actions; observes one number more."""

    def __init__(self, size):
        self.observation_space = gym.spaces.Box(-100, 100, (size + 1,), np.float32)
        self.action_space = gym.spaces.Box(-2, 2, (size,), np.float32)
        self.size = size

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.normal(size=self.size)
        return self.seen(), {}

    def seen(self):
        return np.append(self.place, self.size).astype(np.float32)

    def step(self, action):
        assert action.shape == (self.size,)
        self.place += 0.1 * action
        return self.seen(), -float(np.abs(self.place).sum()), False, False, {}


def make_env(render_mode=None, size=1):
    return Reach(size)
'''
TASKS = """
[[tasks]]
name = "one"
environment_kwargs = { size = 1 }
episode_length = 6
reference_return = 0.0

[[tasks]]
name = "three"
environment_kwargs = { size = 3 }
episode_length = 9
weight = 3.0
"""
SHORT = (
    "training.total_steps=4",
    "training.save_interval=2",
    "training.eval_interval=4",
    "training.log_interval=1",
    "online_collection.warmup_transitions=40",
)


class Watch(Callback):
    """Keeps the trainer's last batch and replay; asks for a stop after `stop` updates."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop, self.tasks = stop, []  # type: ignore[var-annotated]

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        assert trainer.batch is not None
        assert isinstance(trainer.batch.obs, dict)
        self.obs, self.actions = trainer.batch.obs, trainer.batch.actions
        self.tasks += self.obs["task"][:, 0].argmax(-1).tolist()
        if trainer.step == self.stop:
            trainer.request_stop()


@pytest.fixture
def project(tiny_project: Path) -> Path:
    file = tiny_project / "worldflux.toml"
    file.write_text(file.read_text() + TASKS)
    (tiny_project / "dataset.py").write_text(OWN)
    return tiny_project


def run(root: Path, name: str, *overrides: str, **how: Any) -> Path:
    chosen = [f"training.output_dir={name}", *(() if how.get("resume") else SHORT), *overrides]
    return train_project(root, overrides=chosen, say=lambda line: None, **how).folder


def weights_of(folder: Path, step: int = 4) -> dict[str, torch.Tensor]:
    return load_tensors(folder / "checkpoints" / f"step-{step:09d}" / WEIGHTS_FILE)


def test_one_agent_learns_two_tasks_and_resumes_to_the_last_bit(project: Path) -> None:
    watch = Watch()
    whole = run(project, "whole", "training.batch_size=200", callbacks=[watch])
    config = read_manifest(whole)["model_config"]
    assert (config["num_tasks"], config["task_action_dims"]) == (2, [1, 3])
    assert (config["obs_shape"], config["action_dim"]) == ([4], 3)
    obs, task = watch.obs["obs"], watch.obs["task"].argmax(-1)
    assert obs[task == 0][:, 2:].abs().max() == 0
    assert bool((obs[task == 0][:, 1] == 1).all())
    assert bool((obs[task == 1][:, 3] == 3).all())
    assert watch.actions[task == 0][:, 1:].abs().max() == 0
    assert watch.actions[task == 1][:, 1:].abs().max() > 0
    assert 0.69 < np.mean(watch.tasks) < 0.81  # weights of 1 and 3

    (row,) = read_rows(whole / "eval.jsonl")
    assert set(row["tasks"]) == {"one", "three"}
    assert row["tasks"]["one"]["return_mean"] == np.mean(row["returns"][0::2])
    assert "normalized" in row["tasks"]["one"]
    assert "normalized" not in row["tasks"]["three"]
    assert len(row["returns"]) == 2 * 2
    shown = io.StringIO()
    progress = Progress(shown, interval_s=0.0)
    report = evaluate_run(whole, episodes=1, video=False, progress=progress)
    assert report.lengths == [6, 9]
    assert "three" in str(report)
    assert "evaluating 0/2 episodes" in shown.getvalue()

    run(project, "parts", "training.batch_size=200", callbacks=[Watch(stop=2)])
    resumed = weights_of(run(project, "parts", resume=True))
    for name, tensor in weights_of(whole).items():
        assert torch.equal(resumed[name], tensor), name


def test_a_new_task_extends_embedding_and_masks(project: Path) -> None:
    first = run(project, "first")
    with (project / "worldflux.toml").open("a") as file:
        file.write('\n[[tasks]]\nname = "two"\nenvironment_kwargs = { size = 2 }\n')
        file.write("episode_length = 7\n")
    second = run(project, "second", f"start_from={first}", 'training.freeze=["tasks"]')
    start = read_manifest(second)["start"]
    assert {"networks.tasks.embedding", "networks.tasks.action_mask"} <= set(start["extended"])
    before, after = weights_of(first), weights_of(second)
    name = "networks.tasks.embedding"
    assert torch.equal(before[name], after[name][:2])
    assert after["networks.tasks.action_mask"].sum(1).tolist() == [1, 3, 2]
    report = evaluate_run(
        open_model(str(first), "Pendulum-v1", task=1), episodes=1, video=False, seed=1
    )
    assert report.lengths == [200]
    with pytest.raises(ConfigurationError, match=r"learned 2 tasks, from 0 on; --task is None"):
        open_model(str(first), "Pendulum-v1")
    with pytest.raises(EnvironmentSetupError, match=r"has observations \(6,\)"):
        open_model(str(first), "Acrobot-v1", task=0)


REORDERED = """
[[tasks]]
name = "two"
environment_kwargs = { size = 2 }
episode_length = 7

[[tasks]]
name = "three"
environment_kwargs = { size = 3 }
episode_length = 9

[[tasks]]
name = "one"
environment_kwargs = { size = 1 }
episode_length = 6
"""


def test_tasks_of_an_earlier_run_are_matched_by_name(project: Path) -> None:
    first = run(project, "first")
    file, said = project / "worldflux.toml", list[str]()
    file.write_text(file.read_text().replace(TASKS, REORDERED))
    frozen = (f"start_from={first}", 'training.freeze=["tasks"]')
    chosen = ["training.output_dir=second", *SHORT, *frozen]
    second = train_project(project, overrides=chosen, say=said.append).folder
    name = "networks.tasks.embedding"
    before, after = weights_of(first), weights_of(second)
    assert torch.equal(after[name][[2, 1]], before[name])
    assert after["networks.tasks.action_mask"].sum(1).tolist() == [2, 3, 1]
    start = read_manifest(second)["start"]
    assert start["tasks"] == {"two": None, "three": 1, "one": 0}
    assert start["moved"] == [name]
    assert name in start["extended"]
    line = "start: tasks matched by name: two (new), three (1 there, 1 here), one (0 there, 2 here)"
    assert line in said
    lone = REORDERED.partition("[[tasks]]")[2].partition("[[tasks]]")[2]
    file.write_text(file.read_text().replace(REORDERED, "[[tasks]]" + lone))
    third = run(project, "third", f"start_from={second}", 'training.freeze=["tasks"]')
    assert torch.equal(weights_of(third)[name], after[name][1:])  # "two" is left out
    shutil.copytree(second / "checkpoints" / "step-000000004", project / "saved")
    fourth = run(project, "fourth", "start_from=saved", 'training.freeze=["tasks"]')
    assert torch.equal(weights_of(fourth)[name], after[name][:2])  # no names: by their order


def test_what_observes_the_task_is_matched_by_name_too(project: Path) -> None:
    text = (project / "worldflux.toml").read_text()
    begin, end = text.index("[architecture]"), text.index("[training]")
    text = text[:begin] + text[end:]
    (project / "worldflux.toml").write_text(text)
    small = ("model=dreamer:ci", "training.sequence_length=8", "training.batch_size=8")
    first = run(project, "first", *small)
    (project / "worldflux.toml").write_text(text.replace(TASKS, REORDERED))
    parts = 'training.freeze=["encoder", "decoder"]'
    second = run(project, "second", *small, f"start_from={first}", parts)
    before, after = weights_of(first), weights_of(second)
    columns, rows = "encoder.mlp.0.linear.weight", "decoder.heads.task.weight"
    assert torch.equal(after[columns][:, [6, 5]], before[columns][:, [4, 5]])
    assert torch.equal(after[rows][[2, 1]], before[rows])
    assert torch.equal(after[columns][:, :4], before[columns][:, :4])


def test_a_family_without_embeddings_observes_the_task(project: Path) -> None:
    text = (project / "worldflux.toml").read_text()
    begin, end = text.index("[architecture]"), text.index("[training]")
    (project / "worldflux.toml").write_text(text[:begin] + text[end:])
    watch = Watch()
    small = ("model=dreamer:ci", "training.sequence_length=8", "training.batch_size=8")
    folder = run(project, "dreamer", *small, callbacks=[watch])
    shapes = read_manifest(folder)["model_config"]["observation_modalities"]
    assert {name: entry["shape"] for name, entry in shapes.items()} == {"obs": [4], "task": [2]}
    assert set(watch.tasks) == {0, 1}
    run(project, "parts", *small, callbacks=[Watch(stop=2)])
    resumed = weights_of(run(project, "parts", resume=True))
    for name, tensor in weights_of(folder).items():
        assert torch.equal(resumed[name], tensor), name


def test_recorded_data_of_each_task_is_joined(project: Path) -> None:
    rng = np.random.default_rng(0)
    for name, size, steps, episodes in (("one", 1, 6, 2), ("three", 3, 9, 20)):
        count = episodes * steps
        ends = np.arange(count) % steps == steps - 1
        np.savez(
            project / f"{name}.npz",
            observations=np.pad(rng.normal(size=(count, size)), ((0, 0), (0, 1))),
            actions=rng.uniform(-2, 2, (count, size)),
            rewards=rng.normal(size=count),
            terminations=np.zeros(count, bool),
            truncations=ends,
        )
    file = project / "worldflux.toml"
    text = file.read_text()
    for name in ("one", "three"):
        text = text.replace(f'name = "{name}"', f'name = "{name}"\ndata = "{name}.npz"')
    file.write_text(text.replace("weight = 3.0\n", ""))
    offline = project / "offline.toml"
    offline.write_text(file.read_text().replace("[data]", '[data]\nsource = "npz"'))
    report = report_on(str(offline))
    assert (report.copied.recorded.episodes, report.spec.modalities) == (
        22,
        {"obs": (4,), "task": (2,)},
    )
    watch = Watch()
    folder = run(
        project, "offline", "data.source=npz", "training.batch_size=200", callbacks=[watch]
    )
    assert read_manifest(folder)["offline_data"]["recorded"]["episodes"] == 22
    assert 0.44 < np.mean(watch.tasks) < 0.56  # equal weights, whatever the rows
    task = watch.obs["task"].argmax(-1)
    assert watch.actions[task == 0][:, 1:].abs().max() == 0
    assert 0.9 < float(watch.actions.abs().max()) <= 1
    with pytest.raises(ConfigurationError, match="task one has data, which"):
        run(project, "online")
    with pytest.raises(
        ConfigurationError, match=r"data\.path is not read: \[\[tasks\]\] have each"
    ):
        run(project, "both", "data.source=npz", "data.path=one.npz")
    text = file.read_text()
    file.write_text(text.replace("episode_length = 9", "episode_length = 5"))
    with pytest.raises(
        ConfigurationError, match=r"9 steps, and task three \(episode_len"
    ) as caught:
        run(project, "longer", "data.source=npz")
    assert "set it: episode_length = 9 of task three" in str(caught.value.hint)
    assert not any((project / name).exists() for name in ("online", "both", "longer"))


class Choice(gymnasium.Env):
    """Keeps the actions that it is given."""

    observation_space = spaces.Box(-1, 1, (2,))

    def __init__(self, action_space: spaces.Space) -> None:
        self.action_space, self.taken = action_space, list[Any]()

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.taken.append(np.ravel(action).tolist())
        return np.zeros(2, np.float32), 0.0, False, False, {}


@pytest.mark.parametrize("space", [spaces.Discrete(3, start=5), spaces.MultiDiscrete([3])])
def test_a_task_has_its_own_numbers_for_discrete_actions(
    tmp_path: Path, space: spaces.Space
) -> None:
    padding, env = Padding(2, (2,), 3, discrete=True), Choice(space)
    for action in (2, 0):
        PaddedTask(env, padding, 0).step(np.int64(action))
    low = 5 if isinstance(space, spaces.Discrete) else 0
    assert env.taken == [[low + 2], [low]]
    steps = {"observations": np.zeros((2, 2)), "rewards": np.zeros(2), "terminals": [0, 1]}
    np.savez(tmp_path / "steps.npz", actions=np.array(env.taken), **steps)
    known = KnownEnvironment("Env-v0", env.observation_space, space, None)
    data = joined_tasks([open_offline("npz", str(tmp_path / "steps.npz"), known)], padding)
    assert data.action_space == spaces.Discrete(3)
    assert [episode.actions.tolist() for episode in data.episodes()] == [[2, 0]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('name = "three"', 'name = "one"'), r":44:8: a second task is called 'one'"),
        (("weight = 3.0", "wieght = 3.0"), r":47:1: unknown key 'wieght' in \[tasks\]"),
        (("weight = 3.0", "weight = 0.0"), r":47:10: tasks.1.weight = 0.0 is not allowed"),
        (("horizon = 2", "horizon = 2\nnum_tasks = 2"), "num_tasks = 2 is not allowed"),
        (('name = "one"', 'name = "Übung 1"'), r"expected 1 to 60 of the characters a-z, A-Z, 0-9"),
        ((TASKS, '[tasks]\nname = "one"\n'), r"expected sections, each written \[\[tasks\]\]"),
    ],
)
def test_mistakes_are_named_at_their_place(project: Path, change: Any, said: str) -> None:
    file = project / "worldflux.toml"
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(ProjectFileError, match=said):
        load_project(project)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("online_collection.vector=native", "has copies of one environment"),
        ("distributed.shards=2", "several shards do not share"),
        ("environment_kwargs.speed=2", "task one: .*speed"),
    ],
)
def test_what_tasks_cannot_be_is_refused(project: Path, override: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        run(project, "refused", override)
    assert not (project / "refused").exists()


def test_sequences_are_drawn_by_the_shares_of_their_tasks() -> None:
    buffer = ReplayBuffer(400, {"obs": (1,), "task": (2,)}, 1, seed=3)
    for task, steps in ((0, 20), (1, 300)):
        obs = {"obs": np.zeros((steps + 1, 1)), "task": np.eye(2)[np.full(steps + 1, task)]}
        buffer.add_episode(
            obs, np.zeros((steps, 1)), np.zeros(steps), truncations=np.arange(steps) == steps - 1
        )
    buffer.keep_by_task(np.array([1.0, 21 / 301]))
    batch = buffer.sample(4000, 3)
    assert isinstance(batch.obs, dict)
    assert float(batch.obs["task"][:, 0, 0].mean()) == pytest.approx(19 / 38, abs=0.05)
    buffer.keep_by_task(np.array([1.0, 0.0]))  # the list of all valid rows is weighted too
    only = buffer.sample(50, 3).obs
    assert isinstance(only, dict)
    assert bool((only["task"][:, 0, 0] == 1).all())
