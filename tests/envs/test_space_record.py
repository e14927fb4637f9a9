"""A space that a run recorded is the space again, whatever JSON can hold of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from worldflux.envs.space_record import space_of, space_record
from worldflux.envs.spaces import ImageSpace, channel_axis
from worldflux.files import read_json_object, write_json

SPACES = [
    spaces.Box(-np.inf, np.inf, (3,), np.float32),
    spaces.Box(np.array([-1.1, -np.inf]), np.array([0.3, 7.0]), dtype=np.float64),
    spaces.Box(-1.2, 0.7, (), np.float32),
    spaces.Box(0, 255, (16, 16, 3), np.uint8),
    spaces.Box(-(2**62), 2**62 + 1, (2,), np.int64),
    spaces.Discrete(5, start=-2),
    spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [2, 3]]),
    spaces.MultiBinary((2, 3)),
    spaces.Dict(
        {"z": spaces.Discrete(2), "a": spaces.Tuple((spaces.MultiBinary(2), spaces.Discrete(3)))}
    ),
]


def again(space: spaces.Space, folder: Path) -> spaces.Space:
    write_json(folder / "space.json", space_record(space))
    return space_of(read_json_object(folder / "space.json", "space"))


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_a_space_is_the_same_again(space: spaces.Space, tmp_path: Path) -> None:
    assert again(space, tmp_path) == space
    if isinstance(space, spaces.Dict):
        assert list(again(space, tmp_path)) == list(space)  # type: ignore[call-overload]


def test_an_image_keeps_the_axis_of_its_channels(tmp_path: Path) -> None:
    image = ImageSpace((9, 16, 16), 0)
    found = again(image, tmp_path)
    assert found == image
    assert isinstance(found, ImageSpace)
    assert channel_axis(found) == 0


def test_bounds_that_are_equal_are_one_number() -> None:
    assert space_record(spaces.Box(-1.0, 1.0, (400,), np.float32))["low"] == -1.0


def test_what_is_no_record_is_refused() -> None:
    with pytest.raises(ValueError, match="no space"):
        space_of({"type": "Graph", "dtype": "float32", "shape": []})
