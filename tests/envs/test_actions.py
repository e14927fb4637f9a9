"""Actions: rows to an environment's own and back, and hints that work on the space they name."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from worldflux.envs.actions import action_layout, action_rows, environment_actions
from worldflux.envs.faults import Failure
from worldflux.envs.spec import spec_of
from worldflux.errors import EnvironmentSetupError

INT = np.iinfo


class Takes(gymnasium.Env):
    """Takes actions of a space, and nothing else."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, space: spaces.Space) -> None:
        self.action_space = space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        return np.zeros(2, np.float32), 0.0, False, False, {}


WHOLE = st.sampled_from([np.bool_, np.uint8, np.int8, np.int32, np.int64])


@st.composite
def whole_boxes(draw: st.DrawFn) -> spaces.Box:
    dtype = np.dtype(draw(WHOLE))
    least, most = (0, 1) if dtype.kind == "b" else (INT(dtype).min, INT(dtype).max)
    size = draw(st.integers(1, 3))
    low = [draw(st.integers(max(least, -(10**6)), min(most, 10**6))) for _ in range(size)]
    high = [draw(st.integers(one, min(most, one + 2**22 - 1))) for one in low]
    return spaces.Box(np.array(low, dtype), np.array(high, dtype), dtype=dtype.type)


@settings(max_examples=200, deadline=None)
@given(space=whole_boxes(), seed=st.integers(0, 99))
def test_whole_numbers_come_back_exactly(space: spaces.Box, seed: int) -> None:
    low, high = space.low.astype(np.int64), space.high.astype(np.int64)
    drawn = np.random.default_rng(seed).integers(low, high + 1, (50, len(low)))
    actions = np.concatenate([low[None], high[None], drawn])
    rows = action_rows(space, actions)
    assert rows.dtype == np.float32
    again = environment_actions(space, rows)
    assert again.dtype == space.dtype
    assert np.array_equal(again.astype(np.int64), actions)
    assert space.contains(again[0])


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(0, 1, np.bool_), (0, 1, np.int64), (-1, 1, np.int32), (-5, 5, np.int8), (0, 255, np.uint8)],
)
def test_a_random_policy_reaches_each_whole_number_equally(low: int, high: int, dtype: Any) -> None:
    space = spaces.Box(low, high, (1,), dtype)
    count = 2000 * (high - low + 1)
    spec = spec_of("My-v0", spaces.Discrete(2), space, None)
    rows = spec.random_actions(np.random.default_rng(0), count)
    found, shares = np.unique(environment_actions(space, rows).astype(int), return_counts=True)
    assert found.tolist() == list(range(low, high + 1))
    assert (abs(shares - 2000) < 5 * np.sqrt(2000)).all()


FLOATS = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=200, deadline=None)
@given(
    ends=st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=3),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 99),
)
def test_real_numbers_come_back(ends: list[tuple[float, float]], dtype: Any, seed: int) -> None:
    low, high = np.array([sorted(pair) for pair in ends], dtype).T
    space = spaces.Box(low, high, dtype=dtype)  # bounds may be equal
    drawn = low + np.random.default_rng(seed).random((20, len(low))) * (high - low)
    actions = np.concatenate([low[None], high[None], drawn]).astype(dtype)
    again = environment_actions(space, action_rows(space, actions))
    assert (abs(again - actions) <= 1e-6 * (1 + abs(low) + abs(high))).all()


def test_bits_are_actions() -> None:
    space = spaces.MultiBinary(3)
    spec = spec_of("My-v0", spaces.Discrete(2), space, None)
    assert (spec.action_dim, spec.action_type, spec.action_parts) == (6, "discrete", (2, 2, 2))
    actions = np.array([[0, 1, 1], [1, 0, 1]], np.int8)
    again = environment_actions(space, action_rows(space, actions))
    assert again.tolist() == actions.tolist()
    assert space.contains(again[0])


@pytest.mark.parametrize(
    ("space", "action", "said"),
    [
        (spaces.Box(0, 3, (1,), np.int64), 1.5, "1.5, not a whole number"),
        (spaces.Box(0, 3, (1,), np.int64), 4, "4, outside its bounds 0.0 and 3.0"),
        (spaces.Box(2.0, 2.0, (1,)), 2.5, "2.5, outside its bounds 2.0 and 2.0"),
        (spaces.Box(-1.0, 1.0, (1,)), np.nan, "nan, outside"),
        (spaces.MultiBinary(1), 2, "is outside"),
    ],
)
def test_a_recorded_action_outside_its_space_is_refused(
    space: spaces.Space, action: float, said: str
) -> None:
    with pytest.raises(Failure) as caught:
        action_rows(space, np.array([[action]]))
    assert said in caught.value.problem


WIDE = float(np.finfo(np.float32).max)
REFUSED = {
    "no bounds": spaces.Box(-np.inf, np.inf, (2,)),
    "no bounds, a matrix": spaces.Box(-np.inf, np.inf, (2, 3), np.float64),
    "no bounds, one number": spaces.Box(-np.inf, np.inf, ()),
    "the largest floats": spaces.Box(-WIDE, WIDE, (2,)),
    "one bound": spaces.Box(np.float32([5, -np.inf]), np.float32([np.inf, 0.1])),
    "whole, no bounds": spaces.Box(-np.inf, np.inf, (2,), np.int64),
    "whole, one bound": spaces.Box(-np.inf, 5, (2,), np.int32),
    "whole, the largest": spaces.Box(0, INT(np.uint32).max, (1,), np.uint32),
    "whole, many": spaces.Box(0, 10**8, (1,), np.int64),
    "nothing": spaces.Box(-1, 1, (0,)),
    "many classes": spaces.Discrete(10**6),
    "classes": spaces.Dict(gear=spaces.Discrete(3, start=1), lamps=spaces.MultiBinary([2, 2])),
    "numbers": spaces.Tuple([spaces.Box(-2, 2, (2,)), spaces.Box(0, 1, (1, 2), np.float64)]),
    "mixed": spaces.Dict(
        where=spaces.Box(-1.0, 1.0, (2,), np.float16),
        what=spaces.Tuple([spaces.Discrete(4), spaces.MultiDiscrete([2, 3], start=[0, 5])]),
        how=spaces.Box(-3, 3, (1,), np.int16),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_hint_for_refused_actions_works_on_that_space(name: str) -> None:
    space = REFUSED[name]
    with pytest.raises(EnvironmentSetupError) as caught:
        action_layout("My-v0", space)
    assert "My-v0" in caught.value.message
    line = (caught.value.hint or "").partition("in make_env of dataset.py: ")[2]
    scope: dict[str, Any] = {"gymnasium": gymnasium, "np": np, "env": Takes(space)}
    exec(line, scope)
    env = scope["env"]
    env.reset()
    spec = spec_of("My-v0", env.observation_space, env.action_space, None)
    rows = spec.random_actions(np.random.default_rng(0), 200)
    corners = np.sign(rows[:20]) if spec.action_type == "continuous" else rows[:20]
    actions = environment_actions(env.action_space, np.concatenate([rows, corners]))
    for index in range(len(actions)):
        env.step(actions[index, ...])


def test_actions_without_a_fixed_size_are_refused() -> None:
    with pytest.raises(EnvironmentSetupError, match="Sequence") as caught:
        action_layout("My-v0", spaces.Sequence(spaces.Discrete(2)))
    assert "TransformAction" in (caught.value.hint or "")
