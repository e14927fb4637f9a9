"""`worldflux imagine --from`: recorded episodes with other actions, in reality and imagined."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from worldflux.cli.completion import moment_names
from worldflux.errors import ConfigurationError, EnvironmentFault
from worldflux.evaluation.episodes import RecordedEpisode
from worldflux.evaluation.imagination import imagine
from worldflux.evaluation.recordings import StoredEpisode, read_episodes, write_episodes
from worldflux.project import what_if_session
from worldflux.project.controls import controls_of
from worldflux.project.open_run import open_run
from worldflux.project.what_if import AgentChoice, Moment, Reality, moment_of, what_if_run
from worldflux.project.what_if_session import Session

from ..warm import Warm
from ..what_if_runs import DREAMER, TDMPC2, changed, differences, recorded_run

CASES = {
    "Pendulum-v1": TDMPC2,
    "CartPole-v1": DREAMER,
    "worldflux/Catch-v0": DREAMER,
    "dm_control/cartpole-balance-v0": TDMPC2,
}


@pytest.fixture(scope="module")
def catch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded_run(tmp_path_factory.mktemp("catch"), "worldflux/Catch-v0", DREAMER)


@pytest.mark.parametrize("env", CASES)
def test_reality_is_a_fresh_rollout_bit_for_bit(tmp_path: Path, env: str) -> None:
    if env.startswith("dm_control") and importlib.util.find_spec("dm_control") is None:
        pytest.skip("dm_control is not installed")
    folder = recorded_run(tmp_path, env, CASES[env])
    run, rng = open_run(folder, "last"), np.random.default_rng(0)
    for number in range(3):
        assert differences(run, number, rng) == []


def test_from_the_command_line(catch: Path, python: Warm) -> None:
    command = ["-m", "worldflux", "imagine", str(catch), "--from", "1:2", "--action", "2x2"]
    command += ["--action", "agent", "--horizon", "4", "--json"]
    done = python.run(*command, cwd=catch.parent)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["moment"] == "fresh/1:2"
    assert report["context"] == 3
    assert report["actions"][:2] == [[0, 0, 1], [0, 0, 1]]
    assert len(report["actions"]) == len(report["rewards"]) == report["skill"]["horizon"] == 4
    for name in ("picture", "video", "numbers"):
        written = Path(report[name])
        assert written.stem == "fresh-what-if-1-2"
        assert (catch.parent / written).stat().st_size > 100
    numbers = json.loads((catch.parent / report["numbers"]).read_text())
    assert numbers["actions"] == report["actions"]


@pytest.mark.parametrize(
    ("moment", "actions", "says"),
    [
        ("now", [], "'now' is not EPISODE:STEP"),
        ("3:0", [], "fresh has no episode 3.*EPISODE is from 0 to 2"),
        ("0:7", [], "episode 0 of fresh has 7 steps.*STEP is from 0 to 6"),
        ("stale/0:0", [], "there is no recording 'stale'.*fresh"),
        ("0:0", ["3"], r"'3' is outside Discrete\(3\)"),
        ("0:0", ["0.5"], "'0.5' is outside"),
        ("0:0", ["1,1"], "has 2 numbers, expected 1"),
        ("0:0", ["jump"], "'jump' is no action.*--action 2, --action 2x10, --action agent"),
        ("0:0", ["nan"], "'nan' is outside"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(
    catch: Path, moment: str, actions: list[str], says: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        what_if_run(catch, moment, actions, checkpoint="last")
    assert re.search(says, f"{raised.value.message} {raised.value.hint}")


def test_actions_belong_to_a_moment(catch: Path, python: Warm) -> None:
    done = python.run("-m", "worldflux", "imagine", str(catch), "--action", "1", cwd=catch.parent)
    assert done.returncode == 2
    assert "--from EPISODE:STEP" in done.stderr


def test_a_run_without_recorded_episodes_says_what_records_them(
    catch: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="no episodes are recorded") as raised:
        moment_of(tmp_path, "0:0")
    assert raised.value.hint == "worldflux imagine records fresh ones"


@pytest.mark.parametrize("what", ["observation", "reward"])
def test_an_environment_that_does_not_reproduce_the_episode_is_reported_with_the_step(
    catch: Path, what: str
) -> None:
    run, moment = open_run(catch, "last"), moment_of(catch, "0:5")
    stored = vars(moment.episode)
    name = {"observation": "digests", "reward": "rewards"}[what]
    other = stored[name].copy()
    other[3 if what == "observation" else 2] += 1
    false = Moment("fresh", 0, 5, StoredEpisode(**{**stored, name: other}))
    with pytest.raises(EnvironmentFault, match=f"the {what} at step 3"):
        changed(run, false, np.zeros((0, 3), np.float32))


def test_the_agents_own_choice_repeats_an_agent_without_chance(catch: Path) -> None:
    run = open_run(catch, "last")
    reality, choice = Reality(run, 0), AgentChoice(run)
    moment = moment_of(catch, "2:3")
    reality.go(moment)
    while not reality.is_over:
        reality.act(choice.row(reality.episode()))
    reality.envs.close()
    assert np.array_equal(reality.episode().actions, moment.episode.actions)


def test_the_agent_knows_of_actions_that_were_not_its_own(catch: Path) -> None:
    """Two pasts that differ in an action only: its memory differs, whatever it then does."""
    run, moment = open_run(catch, "last"), moment_of(catch, "0:2")
    kept = []
    for index in (0, 2):
        other = np.eye(3, dtype=np.float32)[[index]]
        episode, choice = changed(run, moment, other).episode(), AgentChoice(run)
        choice.row(episode)
        kept.append(choice._carry["deter"].numpy())
    assert not np.array_equal(*kept)


def test_the_pages_steps_are_those_of_the_command(catch: Path) -> None:
    run, moment = open_run(catch, "last"), moment_of(catch, "0:2")
    actions = np.eye(3, dtype=np.float32)[[0, 2, 2]]
    episode = changed(run, moment, actions).episode()
    (scene,) = imagine(run.model, [episode], 3, start=2).scenes
    session = Session(catch)
    session.go("fresh/0:2")
    answers = [session.act([index]) for index in (0, 2, 2)]
    session.close()
    assert [a["lines"]["reward"][0] for a in answers] == episode.rewards[2:].tolist()
    imagined = [a["lines"]["reward"][1] for a in answers]
    assert np.allclose(imagined, scene.imagined["reward"][-3:].ravel(), atol=1e-5)
    assert all(frame.startswith("data:image/") for a in answers for frame in a["frames"])


def test_a_file_of_episodes_comes_back_as_it_was(tmp_path: Path) -> None:
    obs = {"a": np.arange(6, dtype=np.uint8).reshape(3, 2), "b": np.zeros((3, 1), np.float32)}
    actions, rewards = np.ones((2, 1), np.float32), np.array([0.5, -1], np.float32)
    for seed in (11, None):
        episode = RecordedEpisode(obs, actions, rewards, seed, 4)
        write_episodes(tmp_path / "some.npz", [episode, episode])
        first, second = read_episodes(tmp_path / "some.npz")
        assert (first.seed, first.index, len(first)) == (seed, 4, 2)
        assert np.array_equal(second.rewards, rewards)
        assert len(set(first.digests.tolist())) == 3


class Keyed:
    """An environment that names its keys and actions as ALE's and pygame's do."""

    unwrapped: Any

    def __init__(self) -> None:
        self.unwrapped = self

    def get_keys_to_action(self) -> dict[Any, int]:
        return {("e",): 0, (276,): 1, (" ", "d"): 2, (ord("w"), 1073741903): 3, (): 0}

    def get_action_meanings(self) -> list[str]:
        return ["NOOP", "LEFT", "FIRE", "UP"]


def test_actions_have_the_names_and_keys_of_the_environment() -> None:
    controls = controls_of(Keyed(), spaces.Discrete(4))  # type: ignore[arg-type]
    assert controls.keys == {"e": [0], "left": [1], "d+space": [2], "right+w": [3]}
    rows = controls.parse(["noop", "FIREx2", "d+space", "agent", "3"])
    assert [None if row is None else int(row.argmax()) for row in rows] == [0, 2, 2, 2, None, 3]
    assert controls.to_json()["names"] == {"noop": [0], "fire": [2], "up": [3]}


def test_an_environment_without_names_has_the_arrow_keys() -> None:
    box = controls_of(None, spaces.Box(np.array([-2, 0], np.float32), np.array([2, 1], np.float32)))
    keys = box.to_json()["keys"]
    assert keys["left"] == [-2, 0.5]
    assert keys["up"] == [0, 1]
    assert controls_of(None, spaces.Discrete(3)).to_json()["keys"] == {"left": [0], "right": [2]}
    several = controls_of(None, spaces.MultiDiscrete([2, 3]))
    assert [part["choices"] for part in several.to_json()["parts"]] == [[0, 1], [0, 1, 2]]
    assert several.row([1, 2], "1,2").tolist() == [0, 1, 0, 0, 1]


def test_completion_offers_the_recorded_episodes(
    catch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(catch.parent)
    assert {"fresh/0:0", "fresh/1:0", "fresh/2:0"} <= set(moment_names(""))


def test_a_session_ends_when_nothing_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(what_if_session, "IDLE_S", 0.05)
    with os.fdopen(reading) as silent, os.fdopen(writing, "w"):
        monkeypatch.setattr("sys.stdin", silent)
        what_if_session.main(io.BytesIO())


def test_a_session_goes_on_after_an_environment_that_failed(catch: Path) -> None:
    session = Session(catch)
    session.go("fresh/0:1")
    assert session._reality is not None
    session._reality.envs.kill()
    with pytest.raises(EnvironmentFault):
        session.act([1])
    session.close()
    assert session.go("fresh/0:2")["step"] == 2
    session.close()
