"""`worldflux data record` keeps the values of each step; what it cannot keep is refused first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from typer.testing import CliRunner

from worldflux.cli.data import data as command
from worldflux.errors import ConfigurationError
from worldflux.project.data_record import record
from worldflux.project.recording_policy import policy_named


class Reusing(gymnasium.Env[Any, Any]):
    """Counts its steps in one array, which it returns each time; ends after three."""

    observation_space = spaces.Box(0, 10, (2,), np.float32)

    def __init__(self, action_space: spaces.Space[Any]) -> None:
        self.action_space = action_space
        self.count = np.zeros(2, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.count[:] = 0
        return self.count, {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return self.count, 0.0, bool(self.count[0] == 3), False, {}


def test_observations_of_an_array_that_is_used_again_are_those_of_their_steps(
    tmp_path: Path,
) -> None:
    env = Reusing(spaces.Discrete(2))
    (episode,) = record(env, lambda obs: 0, tmp_path / "out", episodes=1, seed=0)
    assert episode.observations[""][:, 0].tolist() == [0, 1, 2, 3]


def test_actions_have_the_type_of_their_space_whatever_the_policy_returns(tmp_path: Path) -> None:
    env = Reusing(spaces.Box(-1, 1, (1,), np.float32))
    (episode,) = record(env, lambda obs: [1], tmp_path / "out", episodes=1, seed=0)
    assert episode.actions.dtype == np.float32


def test_random_actions_of_several_parts_follow_the_mask() -> None:
    env = Reusing(spaces.MultiDiscrete([2, 3]))
    act = policy_named("random", env, 0)
    mask = np.array([0, 1, 0, 0, 1], bool)
    assert {tuple(act({"action_mask": mask})) for _ in range(20)} == {(1, 2)}


NESTED = """
import gymnasium
from gymnasium import spaces
import numpy as np
class Nested(gymnasium.Env):
    observation_space = spaces.Box(0, 1, (2,), np.float32)
    action_space = spaces.Dict({"name": spaces.Text(4)})
    def reset(self, *, seed=None, options=None):
        raise AssertionError("it must not be played")
gymnasium.register("Nested-v0", Nested)
"""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--env", "nested_env:Nested-v0"), "name"),
        (("--env", "CartPole-v1", "--minari", "bad id"), "not the id of a Minari data set"),
        (("--env", "CartPole-v1", "--minari", "versionless"), "not the id of a Minari data set"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_it_is_played(
    given: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "nested_env.py").write_text(NESTED)
    result = CliRunner().invoke(command, ("record", "out", "--episodes", "1", *given))
    assert isinstance(result.exception, ConfigurationError)
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()
    assert not any((tmp_path / "datasets").glob("*"))
