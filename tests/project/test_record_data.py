"""`worldflux data record` and `convert`, and folders of npz episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pygame
import pytest
from typer.testing import CliRunner

from worldflux.cli.data import data as command
from worldflux.data.offline import replay_of
from worldflux.data.recorded import open_offline
from worldflux.data.replay import ReplayBuffer
from worldflux.errors import ConfigurationError
from worldflux.project.data_record import Keyboard, policy_named, record


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def rows_of(source: str, location: str) -> dict[str, np.ndarray]:
    buffer = replay_of(open_offline(source, location), ReplayBuffer, 0)
    return buffer.rows(0, buffer.steps_written)


def test_recorded_as_npz_and_as_minari_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lean.py").write_text("def act(obs):\n    return int(obs[2] > 0)\n")
    where = ("record", "out", "--env", "CartPole-v1", "--episodes", "3", "--seed", "5")
    said = invoke(*where, "--policy", "lean:act", "--minari", "lean/cartpole-v0")
    assert said.count("episode ") == 3
    npz, minari = rows_of("npz", "out"), rows_of("minari", "lean/cartpole-v0")
    assert npz.keys() == minari.keys()
    assert all(np.array_equal(npz[name], minari[name]) for name in npz)
    first = gymnasium.make("CartPole-v1").reset(seed=5)[0]
    assert np.array_equal(npz["obs/"][0, 0], first)
    assert npz["is_terminal"].sum() == 3
    invoke("convert", "out", "one.npz")
    one = rows_of("npz", "one.npz")
    assert all(np.array_equal(npz[name], one[name]) for name in npz)
    with pytest.raises(ConfigurationError, match="exists already"):
        invoke("convert", "out", "one.npz")
    with pytest.raises(ConfigurationError, match="not empty"):
        invoke(*where)
    with pytest.raises(ConfigurationError, match="there is a Minari data set"):
        invoke("record", "new", "--env", "CartPole-v1", "--minari", "lean/cartpole-v0")
    assert not (tmp_path / "new").exists()


def test_held_keys_decide_until_the_window_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = gymnasium.make("CartPole-v1", render_mode="rgb_array", max_episode_steps=4)
    env.metadata["render_fps"] = 1000
    keyboard = Keyboard(env, ["left=0", "right=1", "left+up=1", "none=1"])
    held: set[int] = {pygame.K_LEFT}
    asked: list[int] = []

    class Held:
        def __getitem__(self, key: int) -> bool:
            return key in held

    def pressed() -> Held:
        asked.append(len(asked))
        if len(asked) == 3:
            held.add(pygame.K_UP)
        if len(asked) == 4:
            held.clear()
        if len(asked) == 6:
            pygame.event.post(pygame.event.Event(pygame.QUIT))
        return Held()

    monkeypatch.setattr(pygame.key, "get_pressed", pressed)
    played = record(env, keyboard.act, tmp_path / "mine", episodes=5, seed=0, say=lambda _: None)
    assert [episode.actions.tolist() for episode in played] == [[0, 0, 1, 1]]
    assert not played[0].terminated
    assert len(list((tmp_path / "mine").iterdir())) == 1
    env.close()


@pytest.mark.parametrize(
    ("policy", "keys", "message"),
    [
        ("nothing:act", [], "No module named"),
        ("random_walk", [], "No module named"),
        ("human", [], "the environment does not name any"),
        ("human", ["left"], "KEY=ACTION"),
        ("human", ["left=7"], "no action of"),
        ("human", ["lft=0"], "unknown key"),
    ],
)
def test_who_cannot_play(policy: str, keys: list[str], message: str) -> None:
    env = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    with pytest.raises(ConfigurationError, match=message):
        policy_named(policy, env, 0, keys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": np.zeros((5, 2))}, "columns differ"),
        ({"actions": np.zeros((3, 1))}, "other numbers of rows"),
        ({"rewards": np.zeros(0)}, "an episode needs"),
    ],
)
def test_a_folder_names_the_file_that_does_not_fit(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    good = {
        "observations": np.zeros((6, 2)),
        "actions": np.zeros((5, 1)),
        "rewards": np.zeros(5),
        "terminals": np.array(True),
    }
    np.savez(tmp_path / "a.npz", **good)
    np.savez(tmp_path / "b.npz", **(good | changes))
    with pytest.raises(ConfigurationError, match=message) as refused:
        open_offline("npz", str(tmp_path))
    assert "b.npz" in str(refused.value.where)
