"""Recorded data: columns checked at once, cut into episodes, copied in the one alignment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from gymnasium import spaces

from worldflux.data.offline import check_fits, copy_episodes, replay_of
from worldflux.data.recorded import KnownEnvironment, OfflineData, open_offline
from worldflux.data.replay import ReplayBuffer
from worldflux.envs.actions import action_rows, environment_actions
from worldflux.envs.faults import Failure
from worldflux.envs.spec import EnvironmentSpec
from worldflux.errors import ConfigurationError, ShapeMismatchError, TrainingError


def columns(lengths: tuple[int, ...] = (4, 6), **changes: Any) -> dict[str, np.ndarray]:
    """Steps end to end; each number tells its episode and step. Even episodes terminate."""
    parts: dict[str, list[np.ndarray]] = {}
    for number, length in enumerate(lengths):
        steps = np.arange(length + 1, dtype=np.float32) + 100 * (number + 1)
        ends = np.zeros(length, bool)
        ends[-1] = True
        never = np.zeros(length, bool)
        episode = {
            "observations": np.stack([steps, -steps], 1)[:-1],
            "next_observations": np.stack([steps, -steps], 1)[1:],
            "actions": steps[:-1, None] / 1000,
            "rewards": steps[:-1] * 10,
            "terminals": ends if number % 2 == 0 else never,
            "timeouts": never if number % 2 == 0 else ends,
        }
        for name, values in episode.items():
            parts.setdefault(name, []).append(values)
    made = {name: np.concatenate(values) for name, values in parts.items()}
    made |= changes
    return {name: values for name, values in made.items() if values is not None}


def write(path: Path, found: dict[str, np.ndarray]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **found)
    else:
        with h5py.File(path, "w") as file:
            for name, values in found.items():
                file[name] = values
    return path


def opened(path: Path, **options: Any) -> OfflineData:
    return open_offline("npz" if path.suffix == ".npz" else "hdf5", str(path), **options)


def copied(data: OfflineData) -> ReplayBuffer:
    return replay_of(data, ReplayBuffer, 0)


def known(action: spaces.Space, limit: int | None = None) -> KnownEnvironment:
    return KnownEnvironment("Env-v0", spaces.Box(-np.inf, np.inf, (2,)), action, limit)


ACTION = spaces.Box(-1.0, 1.0, (1,))


@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
def test_a_file_comes_back_row_by_row(tmp_path: Path, suffix: str) -> None:
    data = opened(write(tmp_path / f"steps{suffix}", columns()))
    assert data.lengths.tolist() == [4, 6]
    buffer = copied(data)
    assert len(buffer) == data.num_rows == 12
    rows = buffer.rows(0, 12)
    assert rows["obs/"][:, 0, 0].tolist() == [100, 101, 102, 103, 104, *range(200, 207)]
    assert rows["is_first"][:, 0].nonzero()[0].tolist() == [0, 5]
    assert rows["is_last"][:, 0].nonzero()[0].tolist() == [4, 11]
    assert rows["is_terminal"][:, 0].nonzero()[0].tolist() == [4]
    assert rows["reward"][1:5, 0].tolist() == [1000, 1010, 1020, 1030]
    assert np.allclose(rows["action"][:4, 0, 0], [0.1, 0.101, 0.102, 0.103])


@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
def test_a_true_end_needs_no_next_observation_and_a_time_limit_does(
    tmp_path: Path, suffix: str
) -> None:
    data = opened(write(tmp_path / f"steps{suffix}", columns(next_observations=None)))
    buffer = ReplayBuffer(data.num_rows, (2,), 1)
    told = copy_episodes(data, buffer)
    assert told.recorded.rewards - told.replay.rewards == 2050  # of the time limit's last step
    assert (told.recorded.transitions, told.replay.transitions) == (10, 9)
    assert (told.replay.true_ends, told.replay.time_limits) == (1, 1)
    assert "last observation repeated, without the one after a true end: 1" in told.notes
    rows = buffer.rows(0, data.num_rows)
    assert data.num_rows == 5 + 6
    assert rows["reward"][1:5, 0].tolist() == [1000, 1010, 1020, 1030]
    assert rows["is_terminal"][:, 0].nonzero()[0].tolist() == [4]
    assert rows["obs/"][4, 0].tolist() == rows["obs/"][3, 0].tolist()  # repeated
    assert rows["is_last"][:, 0].nonzero()[0].tolist() == [4, 10]


def test_a_time_limit_that_was_not_recorded_shows_as_a_jump(tmp_path: Path) -> None:
    data = opened(write(tmp_path / "steps.npz", columns((4, 6, 5), timeouts=None)))
    assert data.lengths.tolist() == [4, 6, 5]


def test_the_words_of_gymnasium_and_named_observations_are_taken(tmp_path: Path) -> None:
    found = columns()
    found["terminations"], found["truncations"] = found.pop("terminals"), found.pop("timeouts")
    found["observations/position"] = found.pop("observations")
    found["next_observations/position"] = found.pop("next_observations")
    camera = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 20, 20, 3), np.uint8)
    found["observations/camera"], found["next_observations/camera"] = camera, camera + 1
    for suffix in (".npz", ".h5"):
        data = opened(write(tmp_path / f"steps{suffix}", found))
        assert data.spec("test").modalities == {"camera": (3, 20, 20), "position": (2,)}
        assert copied(data).num_episodes == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": None, "terminals": None}, "columns are missing: rewards, terminals"),
        ({"rewards": np.zeros(9, np.float32)}, "rewards 9"),
        ({"rewards": np.array(["a"] * 10)}, "not numbers"),
        ({"terminals": np.zeros((10, 2), bool)}, "one number a step"),
        ({"rewards": np.zeros((10, 2))}, r"'rewards' has shape \(10, 2\), expected one number"),
        ({"timeouts": np.full(10, 2)}, "'timeouts' is 2 at step 0: expected 0 or 1"),
        ({"next_observations": np.zeros((10, 3))}, "are not of the shapes of"),
        ({"obs": np.zeros((10, 2))}, "observations and obs are the same column"),
        ({"rewards": None, "reward": np.zeros(10)}, "should 'reward' be 'rewards'"),
        ({"terminals": None, "terminal": np.zeros(10)}, "should 'terminal' be 'terminals'"),
        ({name: np.zeros((0, 1), np.float32) for name in columns()}, "at least one"),
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
def test_a_column_that_does_not_fit_is_told_when_opened(
    tmp_path: Path, suffix: str, changes: dict[str, Any], message: str
) -> None:
    found = columns(**changes)
    if suffix == ".hdf5" and "not numbers" in message:
        found["rewards"] = found["rewards"].astype("S1")
    path = write(tmp_path / f"steps{suffix}", found)
    with pytest.raises(ConfigurationError, match=message) as caught:
        opened(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("observations", np.nan, "episode 1, row 2: observation is not finite"),
        ("actions", np.nan, "episode 1, row 2: action is nan"),
        ("actions", 1.5, r"episode 1, row 2: action is 1.5, outside its bounds -1.0 and 1.0 by m"),
        ("rewards", np.inf, "episode 1, row 2: reward is not finite"),
    ],
)
def test_a_bad_value_is_told_with_its_row(
    tmp_path: Path, name: str, value: float, message: str
) -> None:
    found = columns()
    found[name].reshape(10, -1)[6, 0] = value
    with pytest.raises(ConfigurationError, match=message):
        copied(opened(write(tmp_path / "steps.npz", found), known=known(ACTION)))


def test_the_environment_says_what_the_numbers_mean(tmp_path: Path) -> None:
    found = columns(actions=np.linspace(-2, 2, 10, dtype=np.float32)[:, None])
    path = write(tmp_path / "steps.npz", found)
    data = opened(path, known=known(spaces.Box(-2.0, 2.0, (1,))))
    rows = copied(data).rows(0, 12)["action"][:, 0, 0]
    acted = np.concatenate([rows[:4], rows[5:11]])
    assert np.allclose(acted * 2, found["actions"][:, 0], atol=1e-6)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 10.0]), dtype=np.float64),
        spaces.Discrete(5, start=2),
        spaces.MultiDiscrete([3, 2, 4]),
    ],
)
def test_action_rows_reverse_acting(space: spaces.Space) -> None:
    space.seed(0)
    actions = np.array([space.sample() for _ in range(50)])
    again = environment_actions(space, action_rows(space, actions))
    assert np.allclose(again, actions, atol=1e-5)


@pytest.mark.parametrize("action", [-1, 5, 1.5])
def test_an_action_outside_a_discrete_space_is_refused(action: float) -> None:
    with pytest.raises(Failure, match="outside"):
        action_rows(spaces.Discrete(5), np.array([0, action]))


def test_data_of_another_environment_is_refused(tmp_path: Path) -> None:
    data = opened(write(tmp_path / "steps.npz", columns()))
    other = EnvironmentSpec("Other-v0", (3,), 1, "continuous", None)
    with pytest.raises(ConfigurationError, match=r"observations \(\(2,\)\) are not those of Other"):
        check_fits(data, other)


def test_a_saved_replay_is_read_as_the_episodes_it_holds(tmp_path: Path) -> None:
    buffer = ReplayBuffer(40, (2,), 3, num_envs=2)
    rng = np.random.default_rng(0)
    for step in range(12):
        last = np.array([step % 4 == 3, step == 11])
        action = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 2)] * ~last[:, None]
        obs, reward = rng.standard_normal((2, 2)), rng.standard_normal(2)
        first = np.array([step % 4 == 0, step == 0])
        buffer.add(obs, action, reward, first, last, last)
    buffer.save(tmp_path / "replay.npz")
    (note,) = opened(tmp_path / "replay.npz", dones="time_limits").notes
    assert note.startswith("data.dones is not used")
    data = opened(tmp_path / "replay.npz")
    assert data.lengths.tolist() == [3, 3, 3, 11]
    assert data.spec("test").action_type == "discrete"
    again, rows = copied(data).rows(0, 24), buffer.rows(0, 12)
    for name in ("obs/", "action", "is_first", "is_last", "is_terminal"):
        assert np.array_equal(again[name][:12, 0], rows[name][:, 0])
    assert np.array_equal(again["reward"][1:4, 0], rows["reward"][1:4, 0])


@pytest.mark.parametrize("image", [(16, 4, 4), (4, 16, 3)])
def test_images_of_a_saved_replay_keep_their_channels(
    tmp_path: Path, image: tuple[int, ...]
) -> None:
    buffer = ReplayBuffer(20, image, 3)
    frames = np.random.default_rng(0).integers(0, 256, (5, *image), np.uint8)
    buffer.add_episode(frames, np.arange(4) % 3, np.ones(4), np.arange(4) == 3)
    buffer.save(tmp_path / "replay.npz")
    again = copied(opened(tmp_path / "replay.npz"))
    assert np.array_equal(again.rows(0, 5, "obs/")["obs/"], buffer.rows(0, 5, "obs/")["obs/"])


@pytest.mark.parametrize(
    ("space", "kind"),
    [
        (spaces.MultiDiscrete([3, 2]), "discrete"),
        (spaces.MultiBinary(3), "discrete"),
        (spaces.Discrete(4, start=2), "discrete"),
        (spaces.Box(0.0, 2.0, (2,)), "continuous"),
    ],
)
def test_actions_of_a_saved_replay_are_those_of_its_environment(
    tmp_path: Path, space: spaces.Space, kind: str
) -> None:
    space.seed(0)
    played = np.array([space.sample() for _ in range(4)])
    if kind == "continuous":
        played = np.array([[1.0, 2.0]] * 4, np.float32)  # encoded as 0 and 1: as one-hot rows
    rows = action_rows(space, played)
    buffer = ReplayBuffer(20, (2,), rows.shape[1])
    buffer.add_episode(np.zeros((5, 2)), rows, np.ones(4), np.arange(4) == 3)
    buffer.save(tmp_path / "replay.npz")
    data = opened(tmp_path / "replay.npz", known=known(space))
    assert data.spec("test").action_type == kind
    assert np.array_equal(copied(data).rows(0, 4, "action")["action"][:, 0], rows)


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n torn", b"PK\x03\x04 torn"])
@pytest.mark.parametrize("source", ["npz", "hdf5"])
def test_a_damaged_file_is_told(tmp_path: Path, source: str, content: bytes) -> None:
    path = tmp_path / "steps"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="not an"):
        open_offline(source, str(path))


def test_objects_in_an_npz_file_are_not_opened(tmp_path: Path) -> None:
    found = columns()
    np.savez(tmp_path / "steps.npz", **{**found, "rewards": np.array([{}] * 10, object)})
    with pytest.raises(ConfigurationError, match="Object arrays"):
        opened(tmp_path / "steps.npz")


def test_links_of_an_hdf5_file_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "secret.hdf5", columns())
    with h5py.File(tmp_path / "steps.hdf5", "w") as file:
        for name in columns():
            file[name] = h5py.ExternalLink("secret.hdf5", name)
    with pytest.raises(ConfigurationError, match="columns are missing"):
        opened(tmp_path / "steps.hdf5")


def test_a_data_set_of_an_hdf5_file_is_found_under_each_of_its_names(tmp_path: Path) -> None:
    path = write(tmp_path / "steps.hdf5", columns())
    with h5py.File(path, "a") as file:
        file["a_copy"] = file["rewards"]
        file["actions_abs"] = file["actions"]
        file["a/group"] = file["/"]
        file["a/type"] = np.dtype("f4")
    data = opened(path)
    assert data.lengths.tolist() == [4, 6]
    assert data.notes[0].startswith("not read: ")
    assert "actions_abs" in data.notes[0]


def test_an_episode_of_one_step_without_what_followed_is_left_out(tmp_path: Path) -> None:
    found = columns((1, 1, 3), next_observations=None)
    result = copy_episodes(opened(write(tmp_path / "steps.npz", found)), ReplayBuffer(9, (2,), 1))
    assert (result.recorded.episodes, result.recorded.time_limits) == (3, 1)
    assert (result.replay.episodes, result.replay.true_ends) == (2, 2)


def test_copied_data_is_sampled_as_any_replay(tmp_path: Path) -> None:
    batch = copied(opened(write(tmp_path / "steps.npz", columns()))).sample(64, 4)
    assert isinstance(batch.obs, torch.Tensor)
    assert torch.equal(batch.rewards[:, 1:], batch.obs[:, :-1, 0] * 10)


@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
def test_bounds_that_are_equal_and_rounding_beyond_bounds(tmp_path: Path, suffix: str) -> None:
    low, high = np.array([-2.0, 0.5, 0.0]), np.array([2.0, 0.5, 1.0])
    space = spaces.Box(low, high, dtype=np.float64)
    played = np.linspace(low, high, 10)
    played[9, 0] += 1e-7
    data = opened(write(tmp_path / f"steps{suffix}", columns(actions=played)), known=known(space))
    buffer = ReplayBuffer(data.num_rows, (2,), 3)
    told = copy_episodes(data, buffer)
    assert "action numbers clipped to their bounds, beyond by a rounding error: 1" in told.notes
    rows = np.delete(buffer.rows(0, 12)["action"][:, 0], [4, 11], axis=0)
    assert np.allclose(environment_actions(space, rows), played, atol=1e-6)
    assert not rows[:, 1].any()
    played[8, 1] += 0.01
    data = opened(write(tmp_path / f"more{suffix}", columns(actions=played)), known=known(space))
    with pytest.raises(ConfigurationError, match=r"episode 1, row 4: action is 0\.51, outside"):
        copy_episodes(data, buffer)


def test_one_hot_actions_of_a_discrete_environment_are_taken(tmp_path: Path) -> None:
    one_hot = np.eye(3)[np.arange(10) % 3]
    path = write(tmp_path / "steps.npz", columns(actions=one_hot))
    data = opened(path, known=known(spaces.Discrete(3)))
    buffer = ReplayBuffer(data.num_rows, (2,), 3)
    copy_episodes(data, buffer)
    assert np.array_equal(buffer.rows(0, 4)["action"][:, 0], one_hot[:4])
    path = write(tmp_path / "soft.npz", columns(actions=np.full((10, 3), 1 / 3)))
    with pytest.raises(ConfigurationError, match="row 0: action is not one-hot"):
        copy_episodes(opened(path, known=known(spaces.Discrete(3))), buffer)


def test_images_from_0_to_1_are_read_and_others_need_their_environment(tmp_path: Path) -> None:
    bytes_ = np.random.default_rng(0).integers(0, 256, (10, 3, 16, 16))
    unit = columns(observations=bytes_ / 255, next_observations=bytes_ / 255, terminals=np.ones(10))
    buffer = copied(opened(write(tmp_path / "unit.npz", unit)))
    assert np.array_equal(buffer.rows(0, 20, "obs/")["obs/"][::2, 0], bytes_)
    whole = columns(observations=bytes_, next_observations=bytes_, terminals=np.ones(10))
    buffer = copied(opened(write(tmp_path / "whole.npz", whole)))
    assert np.array_equal(buffer.rows(0, 20, "obs/")["obs/"][::2, 0], bytes_)
    found = columns(observations=bytes_ * 1.0, next_observations=bytes_ * 1.0)
    with pytest.raises(ConfigurationError, match="images are float64 from 0 to 255, not uint8"):
        copied(opened(write(tmp_path / "wide.npz", found)))


@pytest.mark.parametrize(("kind", "scale"), [(bool, 255), (np.int8, 1), (np.uint16, 1)])
def test_images_of_small_types_are_read(tmp_path: Path, kind: Any, scale: int) -> None:
    shades = np.arange(10)[:, None, None, None] % 2 * np.ones((1, 3, 16, 16))
    seen = shades.astype(kind)
    found = columns(observations=seen, next_observations=seen, terminals=np.ones(10))
    buffer = copied(opened(write(tmp_path / "steps.npz", found)))
    assert np.array_equal(buffer.rows(0, 20, "obs/")["obs/"][::2, 0], shades * scale)


def test_the_replay_is_held_against_what_was_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = opened(write(tmp_path / "steps.npz", columns()))
    buffer = ReplayBuffer(12, (2,), 1)
    lose = lambda self, rewards, **rest: ReplayBuffer.add_episode(  # noqa: E731
        self, rewards=rewards * (np.arange(len(rewards)) < 3), **rest
    )
    monkeypatch.setattr(buffer, "add_episode", lose.__get__(buffer))
    with pytest.raises(TrainingError, match="does not hold episode 0 as it was recorded"):
        copy_episodes(data, buffer)


def test_parts_of_nested_spaces_are_read_by_their_names(tmp_path: Path) -> None:
    steps = np.arange(10)
    found = columns(observations=None, next_observations=None)
    found |= {"observations/0": steps % 3, "observations/1/x": np.stack([steps, -steps], 1)}
    box = spaces.Box(-np.inf, np.inf, (2,))
    inside = spaces.Tuple((spaces.Discrete(3), spaces.Dict(x=box)))
    environment = KnownEnvironment("Env-v0", inside, ACTION, None)
    data = opened(write(tmp_path / "steps.npz", found), known=environment)
    buffer = copied(data)
    rows = buffer.rows(0, 4, "obs/0", "obs/1/x")
    assert rows["obs/0"][:, 0].argmax(-1).tolist() == [0, 1, 2, 0]
    assert rows["obs/1/x"][:, 0, 1].tolist() == [0, -1, -2, -3]


def test_one_named_part_is_the_observation_and_others_are_named(tmp_path: Path) -> None:
    found = columns(next_observations=None)
    found["observations/state"] = state = found.pop("observations")
    data = opened(write(tmp_path / "one.npz", found), known=known(ACTION))
    assert np.array_equal(next(data.episodes()).obs, state[:4])
    found["observations/goal"] = state
    with pytest.raises(ConfigurationError, match="as the parts goal, state, expected one array"):
        copied(opened(write(tmp_path / "two.npz", found), known=known(ACTION)))
    parts = spaces.Dict(state=spaces.Box(-np.inf, np.inf, (2,)))
    environment = KnownEnvironment("Env-v0", parts, ACTION, None)
    with pytest.raises(ConfigurationError, match="as one array, expected the parts state"):
        copied(opened(write(tmp_path / "whole.npz", columns()), known=environment))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"actions": np.zeros((10, 0))}, "actions"),
        ({"observations": np.zeros((10, 4, 16, 16, 3), np.uint8)}, "next_observations"),
        ({"rewards": np.full(10, 1e39)}, "does not fit float32: 1e"),
        ({"timeouts": None, "next_observations": np.full((10, 2), 7.0)}, "no next observation"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_columns_that_teach_nothing_are_refused(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        copied(opened(write(tmp_path / "steps.npz", columns(**changes))))


def test_a_hint_moves_flags_of_first_steps_and_joins_groups(tmp_path: Path) -> None:
    firsts = np.isin(np.arange(10), (0, 4))
    found = columns(terminals=None, timeouts=None, next_observations=None, is_first=firsts)
    with pytest.raises(ConfigurationError) as caught:
        opened(write(tmp_path / "firsts.npz", found))
    assert "'is_first' (one row earlier, True in the last one) be 'timeouts'" in caught.value.hint
    grouped = {f"demo_0/{name}": values for name, values in columns().items()}
    with pytest.raises(ConfigurationError) as caught:
        opened(write(tmp_path / "groups.hdf5", grouped))
    assert caught.value.hint == "join the groups (demo_0) end to end, with timeouts"


@pytest.mark.parametrize("name", ["obs", "actions", "rewards"])
@pytest.mark.parametrize("value", [np.nan, 1e39])
@pytest.mark.filterwarnings("error")
def test_an_episode_with_numbers_that_are_not_finite_is_refused(name: str, value: float) -> None:
    episode = {"obs": np.zeros((5, 2)), "actions": np.zeros((4, 1)), "rewards": np.zeros(4)}
    episode[name][3] = value
    buffer = ReplayBuffer(100, (2,), 1)
    with pytest.raises(ShapeMismatchError, match=f"{name}.* row 3"):
        buffer.add_episode(**episode, dones=np.zeros(4))
    assert len(buffer) == 0
