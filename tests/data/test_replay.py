"""The replay: alignment, boundaries, the write cursor, and bad input that writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldflux.data.replay import ReplayBuffer
from worldflux.errors import CheckpointError, ConfigurationError, ShapeMismatchError


def counted_episode(length: int, start: float) -> dict[str, np.ndarray]:
    """An episode whose observation, action and reward all tell which step they belong to."""
    steps = np.arange(length + 1, dtype=np.float32) + start
    done = np.zeros(length, bool)
    done[-1] = True
    return {
        "obs": np.stack([steps, -steps], axis=1),
        "actions": (steps[:-1, None] / 1000),
        "rewards": steps[:-1] * 10,
        "dones": done,
    }


def filled(lengths: list[int], capacity: int = 1000) -> ReplayBuffer:
    buffer = ReplayBuffer(capacity, (2,), 1, seed=3)
    for index, length in enumerate(lengths):
        buffer.add_episode(**counted_episode(length, start=100.0 * (index + 1)))
    return buffer


def test_a_reward_stands_beside_the_observation_it_came_with() -> None:
    batch = filled([5]).sample(64, 6)
    for t in range(1, 6):
        acted_in = batch.obs[:, t - 1, 0]
        assert torch.equal(batch.rewards[:, t], acted_in * 10)
        assert torch.allclose(batch.actions[:, t - 1, 0], acted_in / 1000)
    assert torch.equal(batch.rewards[:, 0], torch.zeros(64))
    assert batch.firsts[:, 0].all()
    assert not batch.firsts[:, 1:].any()
    assert batch.terminations[:, 5].all()
    assert not batch.terminations[:, :5].any()


def test_a_time_limit_is_no_termination() -> None:
    buffer = ReplayBuffer(100, (2,), 1)
    episode = counted_episode(4, 0.0)
    buffer.add_episode(**episode, truncations=episode["dones"])
    batch = buffer.sample(8, 5)
    assert batch.lasts[:, 4].all()
    assert not batch.terminations.any()


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=30),
    capacity=st.integers(20, 60),
    seq_len=st.integers(2, 6),
    within=st.booleans(),
)
def test_sequences_are_contiguous_and_never_cross_the_cursor(
    lengths: list[int], capacity: int, seq_len: int, within: bool
) -> None:
    buffer = filled(lengths, capacity)
    if not buffer.can_sample(seq_len, within_episode=within):
        with pytest.raises(ConfigurationError, match="no sequence"):
            buffer.sample(4, seq_len, within_episode=within)
        return
    batch = buffer.sample(50, seq_len, within_episode=within)
    index = batch.extras["replay_index"]
    assert (index[:, 1:] - index[:, :-1] == 1).all()
    assert int(index.min()) >= max(0, buffer.steps_written - buffer.rows_per_env)
    assert int(index.max()) < buffer.steps_written
    inside = ~batch.firsts[:, 1:]
    if within:
        assert inside.all()
    steps = batch.obs[..., 0]
    assert (steps[:, 1:] - steps[:, :-1])[inside].eq(1).all()
    assert (batch.lasts[:, :-1] | inside).all()  # what is not inside an episode ends one


def test_sampling_is_uniform_over_sequences() -> None:
    buffer = filled([9, 9])
    starts = buffer.sample(20_000, 4).obs[:, 0, 0].numpy()
    _, counts = np.unique(starts, return_counts=True)
    assert len(counts) == 14  # ten rows an episode, seven starts each
    assert counts.min() > 20_000 / 14 * 0.85
    assert counts.max() < 20_000 / 14 * 1.15


def test_a_true_end_without_its_observation_keeps_its_reward_and_its_end() -> None:
    buffer = ReplayBuffer(50, (2,), 1)
    episode = counted_episode(5, 0.0)
    episode["obs"] = episode["obs"][:-1]
    with pytest.warns(UserWarning, match="repeated for the true end"):
        buffer.add_episode(**episode)
    rows = buffer.rows(0, 6)
    assert rows["reward"][:, 0].tolist() == [0, 0, 10, 20, 30, 40]
    assert rows["is_terminal"][:, 0].nonzero()[0].tolist() == [5]
    assert rows["obs/"][5, 0].tolist() == [4, -4]


@pytest.mark.parametrize("named", [False, True])
def test_a_cut_off_step_without_its_observation_is_left_out_and_told(named: bool) -> None:
    buffer = ReplayBuffer(50, (2,), 1)
    episode = counted_episode(5, 0.0)
    episode["obs"] = episode["obs"][:-1]
    ended = episode.pop("dones")
    ends = {"dones": ended, "truncations": ended} if named else {}
    with pytest.warns(UserWarning, match="last action and its reward are left out"):
        buffer.add_episode(**episode, **ends)
    batch = buffer.sample(4, 5)
    assert batch.lasts[:, 4].all()
    assert not batch.terminations.any()


def test_actions_may_be_indices() -> None:
    buffer, flags = ReplayBuffer(50, (2,), 3), np.zeros(1, bool)
    buffer.add_episode(np.zeros((4, 2)), np.array([2, 0, 1]), np.zeros(3))
    buffer.add(np.zeros((1, 2)), np.array([2]), np.zeros(1), ~flags, flags, flags)
    assert buffer.rows(0, 5)["action"][:, 0].argmax(-1).tolist() == [2, 0, 1, 0, 2]
    with pytest.raises(ShapeMismatchError, match="action 1 is 3: expected an index from 0 to 2"):
        buffer.add_episode(np.zeros((3, 2)), np.array([0, 3]), np.zeros(2))
    one = ReplayBuffer(50, (2,), 1)
    one.add_episode(np.zeros((3, 2)), np.array([0.5, -0.5]), np.zeros(2))
    assert one.rows(0, 2)["action"].ravel().tolist() == [0.5, -0.5]


def test_whole_numbers_become_image_bytes_and_real_ones_need_their_scale() -> None:
    buffer, images = ReplayBuffer(50, (3, 4, 4), 1), np.arange(3 * 48).reshape(3, 3, 4, 4)
    buffer.add_episode(images, np.zeros((2, 1)), np.zeros(2))
    assert np.array_equal(buffer.rows(0, 3)["obs/"][:, 0], images)
    for real, hint in ((images / 255, "np.rint(255 * obs)"), (images * 2, "scale obs to 0..255")):
        with pytest.raises(ShapeMismatchError, match="images are kept as uint8") as caught:
            buffer.add_episode(real, np.zeros((2, 1)), np.zeros(2))
        assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((8, (0,), 2), r"obs_shape = \(0,\) is not allowed"),
        ((8, 3, 2), "obs_shape = 3 is not allowed"),
        ((8, (3,), 0), "action_dim = 0 is not allowed"),
        ((8, (3,), 1.5), "action_dim = 1.5 is not allowed"),
        ((8, {"camera": (3, -1, 2)}, 1), r"obs_shape\['camera'\]"),
        ((8, {}, 1), "names no observation"),
        ((8.5, (3,), 1), "capacity 8.5"),
    ],
)
def test_sizes_that_cannot_be_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ReplayBuffer(*arguments)


@pytest.mark.parametrize("broken", ["actions", "rewards", "dones", "obs"])
def test_lengths_that_disagree_are_refused_and_nothing_is_written(broken: str) -> None:
    buffer = ReplayBuffer(50, (2,), 1)
    episode = counted_episode(5, 0.0)
    episode[broken] = episode[broken][:-2]
    with pytest.raises(ShapeMismatchError):
        buffer.add_episode(**episode)
    assert len(buffer) == 0


def test_a_row_of_another_shape_is_refused_by_name() -> None:
    buffer = ReplayBuffer(50, (2,), 1, num_envs=2)
    flags = np.zeros(2, bool)
    with pytest.raises(ShapeMismatchError, match="action"):
        buffer.add(np.zeros((2, 2)), np.zeros((2, 3)), np.zeros(2), ~flags, flags, flags)
    assert len(buffer) == 0


def test_named_observations_and_images_keep_their_types() -> None:
    buffer = ReplayBuffer(20, {"camera": (3, 4, 4), "joints": (2,)}, 1)
    flags = np.zeros(1, bool)
    for step in range(4):
        obs = {"camera": np.full((1, 3, 4, 4), step, np.uint8), "joints": np.full((1, 2), step)}
        buffer.add(obs, np.zeros((1, 1)), np.zeros(1), np.array([step == 0]), flags, flags)
    batch = buffer.sample(3, 4)
    assert isinstance(batch.obs, dict)
    assert batch.obs["camera"].dtype == torch.uint8
    assert batch.obs["joints"][0, :, 0].tolist() == [0, 1, 2, 3]


def test_extra_columns_can_be_written_back_where_they_came_from() -> None:
    buffer = ReplayBuffer(20, (2,), 1, extra_columns={"latent": (3,)})
    flags = np.zeros(1, bool)
    for step in range(6):
        first = np.array([step == 0])
        extra = {"latent": np.zeros((1, 3), np.float32)}
        buffer.add(np.zeros((1, 2)), np.zeros((1, 1)), np.zeros(1), first, flags, flags, extra)
    batch = buffer.sample(1, 6)
    fresh = torch.arange(18.0).view(1, 6, 3)
    buffer.write_back(batch.extras["replay_index"], {"latent": fresh})
    assert torch.equal(buffer.sample(1, 6).extras["latent"], fresh)


def test_saved_and_loaded_it_samples_the_same(tmp_path: Path) -> None:
    buffer = filled([7, 9, 4], capacity=15)
    buffer.save(tmp_path / "replay.npz")
    other = ReplayBuffer(15, (2,), 1, seed=3)
    other.load(tmp_path / "replay.npz")
    other.rng.bit_generator.state = buffer.rng.bit_generator.state
    first, second = buffer.sample(16, 3), other.sample(16, 3)
    assert torch.equal(first.rewards, second.rewards)
    assert len(other) == len(buffer)


def test_a_replay_is_made_of_a_file_with_its_capacity_and_named_columns(tmp_path: Path) -> None:
    buffer = ReplayBuffer(20, {"a": (2,), "b": (3,)}, 1, num_envs=2, extra_columns={"z": (4,)})
    flags = np.zeros(2, bool)
    for step in range(3):
        obs = {"a": np.full((2, 2), step), "b": np.zeros((2, 3))}
        extras = {"z": np.full((2, 4), step)}
        buffer.add(obs, np.zeros((2, 1)), np.zeros(2), flags, flags, flags, extras)
    buffer.save(tmp_path / "replay.npz")
    again = ReplayBuffer.load(tmp_path / "replay.npz")
    assert (again.capacity, again.num_envs, len(again)) == (20, 2, 6)
    first, second = buffer.rows(0, 3), again.rows(0, 3)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_replay_is_made_of_recorded_steps(tmp_path: Path) -> None:
    dones = np.arange(60) % 20 == 19
    columns = {"obs": np.zeros((60, 7)), "actions": np.zeros((60, 2)), "rewards": dones * 1.0}
    sizes = {"obs_shape": np.array((7,)), "action_dim": np.array(2), "capacity": np.array(100)}
    np.savez(tmp_path / "steps.npz", **columns, dones=dones * 1.0, **sizes)
    buffer = ReplayBuffer.load(tmp_path / "steps.npz")
    rows = buffer.rows(0, 63)
    assert (buffer.capacity, rows["reward"].sum(), rows["is_terminal"].sum()) == (100, 3, 3)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 torn"])
def test_a_damaged_file_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "replay.npz"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a saved replay"):
        filled([5]).load(path)
    with pytest.raises(CheckpointError, match="not a saved replay"):
        ReplayBuffer.load(path)
