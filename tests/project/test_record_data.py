"""`worldflux data record` and `convert`, and folders of npz episodes."""

from __future__ import annotations

import re
import sys
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
from worldflux.errors import ConfigurationError, EnvironmentFault
from worldflux.project import data_record
from worldflux.project.data_record import record
from worldflux.project.recording_policy import Keyboard, policy_named


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


POLICIES = """
import numpy as np

not_callable = 3
calls = []

def divides(obs):
    return 1 / 0

def takes_none():
    return 0

def exits(obs):
    raise SystemExit("no licence")

def nothing(obs):
    pass

def late(obs):
    calls.append(obs)
    return np.array([9.0 if len(calls) > 6 else 0.0])

def gives(value):
    return lambda obs: value

ranked = gives(np.zeros((1, 1)))
outside = gives(np.array([2.5]))
not_finite = gives(np.array([np.nan]))
real = gives(0.5)
fine = gives([1.9999999999])
"""


@pytest.mark.parametrize(
    ("env_id", "policy", "message"),
    [
        ("Pendulum-v1", "divides", r"flawed\.py:8: .*raised ZeroDivisionError: division by zero"),
        ("Pendulum-v1", "takes_none", r"flawed\.py:10: .*raised TypeError: takes_none\(\) takes 0"),
        ("Pendulum-v1", "not_callable", r"flawed:not_callable: no function \(int\)"),
        ("Pendulum-v1", "exits", r"flawed\.py:14: .*raised SystemExit: no licence"),
        ("Pendulum-v1", "nothing", "at step 0 of episode 0 has the shape .*: None"),
        ("Pendulum-v1", "ranked", r"at step 0 of episode 0 has the shape \(1, 1\), and Box"),
        ("Pendulum-v1", "outside", r"at step 0 of episode 0 is array\(\[2.5\]\), and Box"),
        ("Pendulum-v1", "not_finite", "at step 0 of episode 0 is not finite: array"),
        ("CartPole-v1", "real", r"at step 0 of episode 0 is 0.5, and Discrete\(2\) is allowed"),
        ("CartPole-v1", "nothing", r"at step 0 of episode 0 is None, and Discrete\(2\)"),
    ],
)
def test_a_policy_that_errs_is_blamed_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env_id: str, policy: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "flawed", raising=False)
    (tmp_path / "flawed.py").write_text(POLICIES)
    with pytest.raises(ConfigurationError) as caught:
        invoke("record", "a/b", "--env", env_id, "--policy", f"flawed:{policy}")
    assert re.search(message, str(caught.value)), caught.value
    assert not (tmp_path / "a").exists()


def test_whole_episodes_before_a_bad_action_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "flawed", raising=False)
    (tmp_path / "flawed.py").write_text(POLICIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    env = gymnasium.make("Pendulum-v1", max_episode_steps=4)
    said: list[str] = []
    late = policy_named("flawed:late", env, 0)
    with pytest.raises(ConfigurationError, match="at step 2 of episode 1 is array"):
        record(env, late, tmp_path / "out", episodes=3, seed=0, say=said.append)
    assert said[-1].startswith("1 whole episode before it")
    assert len(list((tmp_path / "out").iterdir())) == 1
    fine = policy_named("flawed:fine", env, 0)
    assert len(record(env, fine, tmp_path / "fine", episodes=1, seed=0, say=said.append)) == 1


def test_a_fault_of_the_environment_is_called_one(tmp_path: Path) -> None:
    class Broken(gymnasium.Wrapper):
        def step(self, action):  # type: ignore[no-untyped-def]
            raise OSError("no licence")

    env = Broken(gymnasium.make("Pendulum-v1"))
    act = policy_named("random", env, 0)
    with pytest.raises(EnvironmentFault, match="step raised OSError: no licence") as caught:
        record(env, act, tmp_path / "out", episodes=1, seed=0)
    assert __file__ in str(caught.value.where)
    assert not (tmp_path / "out").exists()


class Odd(gymnasium.Env):
    """Ends after three steps; `odd` replaces what its steps return."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, **odd: Any) -> None:
        self.odd = odd

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.odd.get("exits"):
            raise SystemExit("no licence")
        usual = {"obs": np.zeros(2, np.float32), "reward": 1.0, "terminated": self.steps == 3}
        return *(usual | self.odd).values(), False, {}


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"exits": True}, r"episode 0, step 1: the environment's step called exit\('no licence'\)"),
        (
            {"reward": None},
            "episode 0, step 1: the environment's reward is None, expected a number",
        ),
        ({"reward": np.nan}, "reward is not finite: nan"),
        ({"obs": np.full(2, np.nan, np.float32)}, "step 1: the environment's observation is not f"),
        ({"obs": np.zeros(3, np.float32)}, r"observation has shape \(3,\), expected \(2,\)"),
        ({"terminated": "no"}, "terminated is 'no', expected True or False"),
    ],
)
def test_what_training_would_refuse_is_not_recorded(
    tmp_path: Path, odd: dict[str, Any], message: str
) -> None:
    with pytest.raises(EnvironmentFault, match=message):
        record(Odd(**odd), lambda obs: 0, tmp_path / "out", episodes=1, seed=0)
    assert not (tmp_path / "out").exists()


def test_a_reward_may_be_an_array_of_one_as_in_training(tmp_path: Path) -> None:
    env = Odd(reward=np.array([2.0]))
    (episode,) = record(env, lambda obs: 0, tmp_path / "out", episodes=1, seed=0)
    assert episode.rewards.tolist() == [2.0, 2.0, 2.0]


def test_an_episode_without_an_end_is_cut_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_record, "LONGEST", 7)
    said: list[str] = []
    (episode,) = record(
        Odd(terminated=False), lambda obs: 0, tmp_path / "out", episodes=1, seed=0, say=said.append
    )
    assert (len(episode.rewards), episode.terminated) == (7, False)
    assert "in 7 steps; cut there: the environment has no time limit" in said[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("raise RuntimeError('no sim')", r"dataset\.py:4: .*make raised RuntimeError: no sim"),
        ("raise SystemExit('no licence')", r"dataset\.py:4: .*make called exit\('no licence'\)"),
        ("return None", "dataset.py:make_env: .* returned None, expected a gymnasium.Env"),
        ("return 'Pendulum-v1'", "returned a builtins.str, expected a gymnasium.Env"),
    ],
)
def test_a_make_env_that_makes_nothing_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    head = 'project_name = "p"\nenvironment = "Pendulum-v1"\nmodel = "tdmpc2:ci"\n'
    (tmp_path / "worldflux.toml").write_text(head)
    (tmp_path / "dataset.py").write_text(
        f"import gymnasium\n\ndef make_env(render_mode=None):\n    {line}\n"
    )
    with pytest.raises(EnvironmentFault) as caught:
        invoke("record", "out")
    assert re.search(message, str(caught.value)), caught.value
    assert not (tmp_path / "out").exists()


def test_a_close_that_raises_costs_no_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "slammed", raising=False)
    (tmp_path / "slammed.py").write_text(
        "import gymnasium\nfrom gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Slammed(CartPoleEnv):\n    def close(self):\n        raise OSError('gone')\n"
        "gymnasium.register('Slammed-v0', Slammed, max_episode_steps=5)\n"
    )
    invoke("record", "out", "--env", "slammed:Slammed-v0", "--episodes", "1")
    assert "slammed:Slammed-v0: close raised OSError: gone" in capfd.readouterr().err
    assert (tmp_path / "out" / "episode-000000.npz").exists()


def test_actions_with_other_bounds_are_converted_by_their_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    invoke("record", "wide", "--env", "Pendulum-v1", "--episodes", "1")
    with pytest.raises(ConfigurationError, match="the folder nodir does not exist") as caught:
        invoke("convert", "nothing-is-read", "nodir/one.npz")
    assert caught.value.hint == "make it: mkdir -p nodir"
    with pytest.raises(ConfigurationError, match="recorded in: --env ID"):
        invoke("convert", "wide", "one.npz")
    with pytest.raises(ConfigurationError, match=r"shape \(3,\), expected \(4,\)"):
        invoke("convert", "wide", "one.npz", "--env", "CartPole-v1")
    invoke("convert", "wide", "one.npz", "--env", "Pendulum-v1")
    recorded = np.load("wide/episode-000000.npz")["actions"]
    assert np.allclose(rows_of("npz", "one.npz")["action"][: len(recorded), 0], recorded / 2)


@pytest.mark.parametrize(
    ("target", "option", "value", "kind"),
    [
        ("", "env", "CartPole-v1", "a project"),
        ("", "dones", "time_limits", "a project"),
        ("", "image-size", "64", "a project"),
        ("steps.npz", "image-size", "64", "npz data"),
        ("D4RL/pen/human-v2", "dones", "time_limits", "minari data"),
    ],
)
def test_an_option_that_convert_does_not_read_is_refused(
    tiny_project: Path, target: str, option: str, value: str, kind: str
) -> None:
    (tiny_project / "steps.npz").touch()
    target = str(tiny_project / target) if not target or target.endswith("npz") else target
    out = tiny_project / "out.npz"
    with pytest.raises(ConfigurationError, match=f"--{option} {value} is not read: .* is {kind}"):
        invoke("convert", target, str(out), f"--{option}", value)
    assert not out.exists()


def test_keys_without_a_person_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--key left=0 is of --policy human"):
        invoke("record", str(tmp_path / "out"), "--env", "CartPole-v1", "--key", "left=0")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": np.zeros((5, 2))}, "columns differ"),
        ({"actions": np.zeros((3, 1))}, "other numbers of rows"),
        ({"rewards": np.zeros(0)}, "an episode needs"),
        ({"observations": np.float32(1)}, r"numbers of rows: observations \(\)"),
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


def test_columns_of_a_folder_that_are_not_read_may_have_any_form(tmp_path: Path) -> None:
    for number, words in enumerate((["a"] * 5, ["long"] * 3)):
        np.savez(
            tmp_path / f"{number}.npz",
            observations=np.zeros((6, 2)),
            actions=np.zeros((5, 1)),
            rewards=np.zeros(5),
            terminals=True,
            seed=number,
            **{"names" if number else "words": words},
        )
    data = open_offline("npz", str(tmp_path))
    assert data.lengths.tolist() == [5, 5]
    assert "not read: names, seed, words" in data.notes
