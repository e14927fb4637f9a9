"""How sequences are drawn, where rows are kept, and what a buffer refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldflux.data.replay import ReplayBuffer
from worldflux.data.sequence_draw import draw_ages
from worldflux.errors import CheckpointError, ConfigurationError, ShapeMismatchError
from worldflux.models.dreamerv3.losses import experience_of
from worldflux.models.dreamerv3.rssm import Latent


def counting(steps: int, num_envs: int = 1, **options: Any) -> ReplayBuffer:
    """One long episode a stream; the observation is the step."""
    buffer = ReplayBuffer(400, (1,), 1, num_envs=num_envs, **options)
    for step in range(steps):
        column, flags = np.full((num_envs, 1), step), np.zeros(num_envs, bool)
        first = flags | (step == 0)
        buffer.add(column, column * 0, column[:, 0], first, flags, flags)
    return buffer


@pytest.mark.parametrize("num_envs", [1, 2])
def test_recency_halves_at_the_half_life_in_transitions(num_envs: int) -> None:
    buffer = counting(600, num_envs, half_life=50.0)
    newest = buffer.sample(60_000, 4).obs[:, -1, 0].numpy()
    ages = (599 - newest) * num_envs
    for age in (0, 50, 100):
        near = ((ages >= age) & (ages < age + 10)).sum()
        far = ((ages >= age + 50) & (ages < age + 60)).sum()
        assert near / far == pytest.approx(2.0, rel=0.15)


@settings(max_examples=100, deadline=None)
@given(held=st.integers(1, 10**7), half_life=st.floats(1e-3, 1e9), seed=st.integers(0, 99))
def test_ages_are_of_rows_that_are_held(held: int, half_life: float, seed: int) -> None:
    ages = draw_ages(np.random.default_rng(seed), 200, held, half_life)
    assert 0 <= ages.min() <= ages.max() < held


@pytest.mark.parametrize("half_life", [None, 1e9])
@pytest.mark.parametrize("seq_len", [3, 10])  # most sequences hold; nearly none: from the list
def test_every_sequence_of_every_stream_is_as_likely_once_the_ring_is_full(
    seq_len: int, half_life: float | None
) -> None:
    buffer = ReplayBuffer(3 * 60, (1,), 1, num_envs=3, half_life=half_life)
    for step in range(100):
        column, flags = np.full((3, 1), step), np.zeros(3, bool)
        begun = (step + np.arange(3)) % 11 == 0
        buffer.add(column, column * 0, column[:, 0], begun | (step == 0), flags, flags)
    batch = buffer.sample(40_000, seq_len)
    places, counts = np.unique(batch.extras["replay_index"][:, -1], return_counts=True)
    valid = [
        step * 3 + stream
        for step in range(40 + seq_len - 1, 100)
        for stream in range(3)
        if (step + stream) % 11 >= seq_len - 1
    ]
    assert places.tolist() == valid
    assert counts.min() > 40_000 / len(valid) * 0.75
    assert counts.max() < 40_000 / len(valid) * 1.25


def test_a_very_long_half_life_is_uniform() -> None:
    ages = draw_ages(np.random.default_rng(0), 100_000, 10, 1e9)
    assert np.bincount(ages, minlength=10).min() > 9_500


def test_recency_holds_where_few_sequences_are_valid() -> None:
    buffer = ReplayBuffer(2000, (1,), 1, half_life=100.0)
    for number in range(100):  # only every fortieth episode is long enough
        length = 9 if number % 40 == 0 else 1
        column = np.full((length + 1, 1), number)
        ends = np.zeros(length, bool)
        ends[-1] = True
        buffer.add_episode(column, column[1:] * 0.0, column[1:, 0], ends)
    chosen = buffer.sample(20_000, 10).obs[:, 0, 0].numpy()
    ends = [9, 10 + 39 * 2 + 9, 20 + 78 * 2 + 9]  # last rows of episodes 0, 40 and 80
    assert (chosen == 80).sum() / (chosen == 40).sum() == pytest.approx(
        2 ** ((ends[2] - ends[1]) / 100), rel=0.15
    )


def test_a_mapped_replay_does_what_one_in_memory_does(tmp_path: Path) -> None:
    mapped, plain = counting(900, 2, scratch=tmp_path), counting(900, 2)
    for _ in range(5):
        one, other = mapped.sample(16, 5), plain.sample(16, 5)
        assert torch.equal(one.rewards, other.rewards)
        assert torch.equal(one.obs, other.obs)
    assert list(tmp_path.iterdir()) == []  # nothing is left for a later run to find


def test_a_mapped_replay_larger_than_the_disk_is_refused_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="bytes") as caught:
        ReplayBuffer(10**13, (64,), 8, scratch=tmp_path)
    assert "buffer_capacity" in (caught.value.hint or "")


@settings(max_examples=50, deadline=None)
@given(
    num_envs=st.integers(1, 3),
    capacity=st.integers(12, 40),
    steps=st.integers(5, 120),
    seq_len=st.integers(2, 5),
    half_life=st.none() | st.floats(1.0, 100.0),
    data=st.data(),
)
def test_sequences_follow_one_stream_and_cross_only_where_it_is_told(
    num_envs: int,
    capacity: int,
    steps: int,
    seq_len: int,
    half_life: float | None,
    data: st.DataObject,
) -> None:
    buffer = ReplayBuffer(capacity, (2,), 1, num_envs=num_envs, half_life=half_life)
    firsts = data.draw(st.lists(st.integers(0, 99), min_size=steps, max_size=steps))
    for step in range(steps):
        stream = np.arange(num_envs)
        first = (np.full(num_envs, firsts[step]) + stream * 7) % 5 == 0
        obs = np.stack([np.full(num_envs, step), stream], 1)
        flags = np.zeros(num_envs, bool)
        buffer.add(obs, obs[:, :1], obs[:, 0], first | (step == 0), flags, flags)
    for within in (False, True):
        if not buffer.can_sample(seq_len, within_episode=within):
            continue
        batch = buffer.sample(40, seq_len, within_episode=within)
        assert isinstance(batch.obs, torch.Tensor)
        assert (batch.obs[:, 1:, 0] - batch.obs[:, :-1, 0] == 1).all()
        assert (batch.obs[:, 1:, 1] == batch.obs[:, :-1, 1]).all()
        assert batch.obs[..., 0].min() >= steps - buffer.rows_per_env
        numbers = batch.obs[..., 0] * num_envs + batch.obs[..., 1]
        assert torch.equal(numbers.long(), batch.extras["replay_index"])
        if within:
            assert not batch.firsts[:, 1:].any()
        assert torch.equal(batch.lasts[:, :-1], batch.firsts[:, 1:])


@pytest.mark.parametrize("drop", ["extras", "obs"])
def test_a_row_without_one_of_its_columns_is_refused(drop: str) -> None:
    buffer = ReplayBuffer(20, {"a": (1,), "b": (1,)}, 1, extra_columns={"latent": (2,)})
    one, flag = np.zeros((1, 1)), np.zeros(1, bool)
    obs = {"a": one} if drop == "obs" else {"a": one, "b": one}
    extras = None if drop == "extras" else {"latent": np.zeros((1, 2))}
    missing = "b" if drop == "obs" else "latent"
    with pytest.raises(ShapeMismatchError, match=f"is missing '{missing}'"):
        buffer.add(obs, one, one[0], flag, flag, flag, extras)
    assert len(buffer) == 0


def test_a_real_image_is_refused_and_not_cut_to_zeros() -> None:
    buffer = ReplayBuffer(20, (3, 4, 4), 1)
    flag = np.zeros(1, bool)
    with pytest.raises(ShapeMismatchError, match="uint8"):
        buffer.add(np.full((1, 3, 4, 4), 0.5), np.zeros((1, 1)), np.zeros(1), flag, flag, flag)
    with pytest.raises(ShapeMismatchError, match="uint8"):
        buffer.add_episode(
            np.full((3, 3, 4, 4), 0.5), np.zeros((2, 1)), np.zeros(2), np.array([False, True])
        )
    assert len(buffer) == 0


def test_an_episode_of_named_observations_is_added_whole() -> None:
    buffer = ReplayBuffer(20, {"camera": (3, 4, 4), "joints": (2,)}, 1)
    obs = {
        "camera": np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 4, 4), "u1"),
        "joints": np.arange(8.0).reshape(4, 2),
    }
    buffer.add_episode(obs, np.zeros((3, 1)), np.arange(3.0), np.array([False, False, True]))
    batch = buffer.sample(2, 4)
    assert isinstance(batch.obs, dict)
    assert batch.obs["camera"][0, :, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert batch.rewards[0].tolist() == [0, 0, 1, 2]


def test_an_npz_file_that_unpacks_to_more_than_the_buffer_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", reward=np.zeros(10_000_000))
    with pytest.raises(CheckpointError, match="unpacks to"):
        ReplayBuffer(20, (2,), 1).load(tmp_path / "bomb.npz")


def test_len_and_num_episodes_follow_the_ring() -> None:
    buffer = ReplayBuffer(10, (1,), 1)
    for _ in range(4):
        ends = np.array([False, False, True])
        buffer.add_episode(np.zeros((4, 1)), np.zeros((3, 1)), np.zeros(3), ends)
    assert (len(buffer), buffer.capacity, buffer.num_episodes) == (10, 10, 3)


@pytest.mark.parametrize("width", [1, 4, 6])
@pytest.mark.parametrize("capacity", [200, 400])  # the ring goes round, or not
def test_every_step_is_sampled_with_its_own_previous_action(width: int, capacity: int) -> None:
    """Actions hold their stream and step; a shift in place would overwrite what it still reads."""
    buffer = ReplayBuffer(capacity, (2,), width, num_envs=2)
    places = np.stack([np.arange(2), np.zeros(2)], 1)
    for step in range(150):
        places[:, 1] = step
        row = places.astype(np.float32)
        actions = (1000 * row[:, :1] + row[:, 1:]) + np.arange(width) / 8
        flags = np.full(2, step % 7 == 6)
        buffer.add(row, actions, row[:, 1], np.full(2, step % 7 == 0), flags, flags)
    for _ in range(20):
        batch = buffer.sample(16, 20, within_episode=False)
        zero = Latent(torch.zeros(16, 1), torch.zeros(16, 1, 1))
        actions = batch.actions.clone()
        found = experience_of(batch, {"obs": batch.obs}, batch.actions, 0, zero)
        assert torch.equal(batch.actions, actions)
        seen, previous = found.observations["obs"], found.previous_actions
        expected = 1000 * seen[..., :1] + seen[..., 1:] - 1 + torch.arange(width) / 8
        assert torch.equal(previous[:, 1:], expected[:, 1:])
        assert not previous[:, 0].any()
