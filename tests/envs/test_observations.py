"""What environments observe: which axis holds the channels, named parts, and hints that work."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from worldflux.envs.faults import Failure
from worldflux.envs.observations import ObservationReader
from worldflux.envs.spaces import channel_axis
from worldflux.envs.spec import spec_of
from worldflux.envs.wrappers import ResizedImage, StackedFrames
from worldflux.errors import EnvironmentSetupError


class Shows(gymnasium.Env):
    """Observes samples of a space; `buffer` is one array that is overwritten every step."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space, buffer: bool = False) -> None:
        self.observation_space = space
        self.buffer = np.zeros(space.shape, space.dtype) if buffer else None
        self.t = 0

    def observe(self) -> Any:
        if self.buffer is None:
            return self.observation_space.sample()
        self.buffer[...] = self.t
        return self.buffer

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self.observe(), 0.0, False, False, {}


def bytes_of(*shape: int, dtype: Any = np.uint8) -> spaces.Box:
    return spaces.Box(0, 1 if dtype == np.bool_ else 255, shape, dtype)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7, 9, 12])
@pytest.mark.parametrize("size", [(64, 64), (64, 48), (96, 128), (13, 14), (40, 160), (210, 160)])
def test_channels_are_found_first_and_last(channels: int, size: tuple[int, int]) -> None:
    assert channel_axis(bytes_of(*size, channels)) == 2
    assert channel_axis(bytes_of(channels, *size)) == 0


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((8, 8, 111), 2), ((119, 8, 8), 0), ((12, 10, 10), 0), ((10, 10, 12), 2), ((10, 10, 10), 2)],
)
def test_boards_of_many_planes(shape: tuple[int, int, int], axis: int) -> None:
    assert channel_axis(bytes_of(*shape)) == axis


@pytest.mark.parametrize(
    ("shape", "size", "count", "seen"),
    [
        ((3, 96, 128), 64, 1, (3, 64, 64)),
        ((3, 64, 64), 64, 1, (3, 64, 64)),
        ((3, 96, 128), None, 3, (9, 96, 128)),
        ((3, 96, 128), 64, 3, (9, 64, 64)),
        ((96, 128, 3), 64, 3, (9, 64, 64)),
        ((64, 48, 6), 32, 2, (12, 32, 32)),
        ((84, 84), None, 4, (4, 84, 84)),
        ((84, 84), 4, 2, (2, 4, 4)),
        ((3, 84, 84), 4, 2, (6, 4, 4)),
        ((84, 84, 6), (4, 8), 1, (6, 4, 8)),
    ],
)
def test_sizes_and_stacks_keep_the_channels(
    shape: tuple[int, ...], size: Any, count: int, seen: tuple[int, ...]
) -> None:
    env: Any = Shows(bytes_of(*shape))
    if size is not None:
        env = ResizedImage(env, size if isinstance(size, tuple) else (size, size))
    if count > 1:
        env = StackedFrames(env, count)
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    encoded = ObservationReader("My-v0", env.observation_space).read_one(obs)[""]
    assert encoded.shape == (1, *seen)
    assert encoded.dtype == np.uint8


def test_an_image_is_resized_the_same_with_its_channels_first() -> None:
    last = Shows(bytes_of(96, 128, 3))
    last.observation_space.seed(0)
    image = last.observation_space.sample()
    first = ResizedImage(Shows(bytes_of(3, 96, 128)), (64, 64))
    expected = ResizedImage(last, (64, 64)).observation(image)
    resized = first.observation(image.transpose(2, 0, 1))
    assert np.array_equal(resized.transpose(1, 2, 0), expected)


def test_a_stack_keeps_frames_that_are_drawn_into_one_buffer() -> None:
    env = StackedFrames(Shows(bytes_of(3, 16, 16), buffer=True), 3)
    env.reset()
    env.step(0)
    obs = env.step(0)[0]
    assert obs[::3, 0, 0].tolist() == [0, 1, 2]


def test_the_images_of_a_dict_are_resized_and_stacked() -> None:
    space = spaces.Dict(
        eyes=spaces.Tuple([bytes_of(48, 64, 3), bytes_of(1, 32, 32)]),
        joints=spaces.Box(-1, 1, (2,)),
    )
    env = StackedFrames(ResizedImage(Shows(space), (16, 16)), 2)
    shapes = ObservationReader("My-v0", env.observation_space).shapes
    assert shapes == {"eyes/0": (6, 16, 16), "eyes/1": (2, 16, 16), "joints": (2,)}
    assert env.observation_space.contains(env.reset()[0])
    assert env.observation_space.contains(env.step(0)[0])


@pytest.mark.parametrize(
    ("space", "value", "encoded"),
    [
        (bytes_of(2, 2, 1, dtype=np.bool_), [[[0], [1]], [[1], [0]]], [[0, 255], [255, 0]]),
        (spaces.Box(0, 9, (2, 2, 1), np.int64), [[[0], [1]], [[9], [4]]], [[0, 1], [9, 4]]),
        (spaces.Box(0, 1, (2, 2, 1)), [[[0], [1]], [[0.5], [0.2]]], [[0, 255], [128, 51]]),
    ],
)
def test_boards_and_shares_become_bytes(space: spaces.Box, value: Any, encoded: Any) -> None:
    given = np.array(value, space.dtype)
    assert ObservationReader("My-v0", space).read_one(given)[""].tolist() == [[encoded]]


def test_parts_are_named_by_the_way_to_them() -> None:
    space = spaces.Dict(
        body=spaces.Dict(speed=spaces.Box(-1, 1, (1,)), side=spaces.Discrete(2)),
        hand=spaces.Tuple([spaces.Discrete(3), spaces.MultiBinary(2)]),
    )
    obs = {"body": {"speed": [0.5], "side": 1}, "hand": (2, [0, 1])}
    reader = ObservationReader("My-v0", space)
    encoded = reader.read_one(obs)
    assert {name: value[0].tolist() for name, value in encoded.items()} == {
        "body/side": [0, 1],
        "body/speed": [0.5],
        "hand/0": [0, 0, 1],
        "hand/1": [0, 1],
    }
    spec = spec_of("My-v0", space, spaces.Discrete(2), None)
    assert spec.modalities == reader.shapes
    with pytest.raises(Failure, match="expected 2") as caught:
        reader.read_one({**obs, "hand": (2,)})
    assert caught.value.key == "observation['hand']"
    with pytest.raises(Failure, match="has keys") as caught:
        reader.read_one({**obs, "body": {"speed": [0.5]}})
    assert caught.value.key == "observation['body']"


@pytest.mark.parametrize(
    ("space", "value", "said"),
    [
        (spaces.Box(-np.inf, np.inf, (2,), np.float64), [0.0, 1e39], "does not fit float32: 1e+39"),
        (spaces.Box(0, 1, (1, 1, 1)), [[[1.5]]], "is no pixel of its space: 1.5"),
        (spaces.Box(0, 9, (1, 1, 1), np.int64), [[[256]]], "is no pixel of its space: 256"),
        (spaces.Box(0, 9, (1, 1, 1), np.int64), [[[-1]]], "is no pixel of its space: -1"),
    ],
)
def test_what_cannot_be_stored_is_refused_without_bounds_too(
    space: spaces.Space, value: Any, said: str
) -> None:
    reader = ObservationReader("My-v0", space, check_bounds=False)
    with pytest.raises(Failure) as caught:
        reader.read_one(np.array(value, space.dtype))
    assert said in caught.value.problem


class Mission(spaces.Text):
    """As Minigrid's: it cannot be flattened."""

    @property
    def is_np_flattenable(self) -> bool:
        return False


TEXT = spaces.Text(8)
REFUSED: dict[str, tuple[spaces.Space, Any]] = {
    "minigrid": (
        spaces.Dict(image=bytes_of(7, 7, 3), direction=spaces.Discrete(4), mission=Mission(40)),
        {"image": (3, 7, 7), "direction": (4,)},
    ),
    "nested text": (
        spaces.Dict(a=spaces.Dict(x=spaces.Box(-1, 1, (2,)), t=TEXT), b=spaces.Discrete(2)),
        {"a_x": (2,), "b": (2,)},
    ),
    "text in a tuple": (spaces.Tuple([bytes_of(16, 16, 3), TEXT]), {"0": (3, 16, 16)}),
    "text": (TEXT, (8,)),
    "one of two": (spaces.OneOf([spaces.Discrete(2), spaces.Box(-1, 1, (2,))]), (3,)),
    "an empty part": (
        spaces.Dict(rest=spaces.Box(-1, 1, (0,)), joints=spaces.Box(-1, 1, (2,))),
        {"joints": (2,)},
    ),
    "nothing": (spaces.Box(-1, 1, (0,)), (1,)),
    "many classes": (spaces.Discrete(10**6, start=5), (1,)),
    "many classes in a dict": (
        spaces.Dict(cell=spaces.MultiDiscrete([10**6, 3]), joints=spaces.Box(-1, 1, (2,))),
        {"cell": (2,), "joints": (2,)},
    ),
    "pixels as floats": (spaces.Box(0, 255, (20, 20, 3)), (3, 20, 20)),
    "a field": (spaces.Box(-1, 1, (4, 4, 2)), (32,)),
    "a field in a dict": (
        spaces.Dict(map=spaces.Box(-1, 1, (4, 4, 2)), joints=spaces.Box(-1, 1, (2,))),
        {"map": (32,), "joints": (2,)},
    ),
    "frames": (bytes_of(4, 20, 30, 3), (12, 20, 30)),
    "frames, channels first": (bytes_of(4, 3, 20, 30), (12, 20, 30)),
    "two of one name": (
        spaces.Dict({"a": spaces.Dict(b=spaces.Discrete(2)), "a/b": spaces.Discrete(3)}),
        None,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_hint_for_refused_observations_works_on_that_space(name: str) -> None:
    space, seen = REFUSED[name]
    with pytest.raises(EnvironmentSetupError) as caught:
        ObservationReader("My-v0", space)
    assert "My-v0" in caught.value.message
    line = (caught.value.hint or "").partition("in make_env of dataset.py: ")[2]
    scope: dict[str, Any] = {"gymnasium": gymnasium, "np": np, "env": Shows(space)}
    exec(line, scope)
    env = scope["env"]
    reader = ObservationReader("My-v0", env.observation_space)
    assert seen is None or reader.shapes == (seen if isinstance(seen, dict) else {"": seen})
    obs, _ = env.reset(seed=0)
    reader.read_one(obs)
    for _ in range(5):
        reader.read_one(env.step(0)[0])


@pytest.mark.parametrize("space", [Mission(8), spaces.Sequence(spaces.Discrete(2))])
def test_what_has_no_fixed_size_is_refused(space: spaces.Space) -> None:
    with pytest.raises(EnvironmentSetupError, match=type(space).__name__) as caught:
        ObservationReader("My-v0", space)
    assert "TransformObservation(env, function, a Box space)" in (caught.value.hint or "")
