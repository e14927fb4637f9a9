"""Shards in one process: turns, random streams, statistics of the whole batch, and their step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from line_family import LineConfig, LineModel
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.learning import LearningOverrides
from worldflux.core.shards import across_shards
from worldflux.errors import NonFiniteError
from worldflux.models.dreamerv3.maths import ReturnNormalizer
from worldflux.models.tdmpc2.maths import running_scale
from worldflux.training import shared_memory
from worldflux.training.config import TrainingConfig
from worldflux.training.sharded import ShardedUpdater
from worldflux.training.shards import ShardGroup
from worldflux.training.shared_memory import SharedRows
from worldflux.training.update import Updater

CPU = torch.device("cpu")


def group_of(shards: int) -> ShardGroup:
    return ShardGroup(shards, list(range(10, 10 + shards)), CPU)


def results_of(group: ShardGroup, jobs: list[Callable[[], Tensor]]) -> list[Tensor]:
    """What each shard's job returns."""
    rows, nothing = group.in_turns("test", [lambda job=job: (job(), None) for job in jobs])
    assert nothing == [None] * len(jobs)
    return list(rows)


def batch_of(rows: int) -> Batch:
    rng = np.random.default_rng(0)
    made = [torch.from_numpy(rng.standard_normal((rows, 4, size))).float() for size in (3, 2, 1)]
    return Batch(made[0], made[1], made[2][..., 0], torch.zeros(rows, 4))


def test_statistics_are_those_of_the_whole_batch() -> None:
    whole = torch.randn(4, 25)
    normalizer = ReturnNormalizer()
    group = group_of(4)
    low_high = results_of(group, [lambda row=row: normalizer.updated(row) for row in whole])
    scales = results_of(
        group, [lambda row=row: running_scale(torch.ones(()), row, 0.5) for row in whole]
    )
    for one, scale in zip(low_high, scales, strict=True):
        assert torch.equal(one, normalizer.updated(whole))
        assert torch.equal(scale, running_scale(torch.ones(()), whole.flatten(), 0.5))


def test_each_shard_draws_from_its_own_stream_whatever_the_others_do() -> None:
    def job(meetings: int) -> Tensor:
        drawn = [torch.rand(2)]
        for _ in range(meetings):
            across_shards(torch.zeros(1))
            drawn.append(torch.rand(2))
        return torch.cat(drawn)

    torch.manual_seed(0)
    outside = torch.rand(1)
    torch.manual_seed(0)
    group = group_of(3)
    interleaved = results_of(group, [lambda: job(2)] * 3)
    again = results_of(group, [lambda: job(0)] * 3)
    assert torch.equal(torch.rand(1), outside)  # the caller's stream is where it was
    for shard, (first, later) in enumerate(zip(interleaved, again, strict=True)):
        torch.manual_seed(10 + shard)
        assert torch.equal(torch.cat([first, later]), torch.cat([torch.rand(2) for _ in range(4)]))


def test_an_error_of_one_shard_ends_the_turn_of_all() -> None:
    def waits(times: int) -> Tensor:
        for _ in range(times):
            across_shards(torch.zeros(1))
        return torch.zeros(1)

    def fails() -> Tensor:
        waits(1)
        raise NonFiniteError("a loss became nan")

    group = group_of(2)
    with pytest.raises(NonFiniteError, match="became nan"):
        results_of(group, [lambda: waits(2), fails])
    numbers = [torch.ones(1), torch.zeros(1)]
    assert results_of(group, [lambda: numbers[0], lambda: numbers[1]]) == numbers  # still usable


@pytest.mark.parametrize("shards", [2, 3])
def test_the_step_over_shards_is_that_of_the_whole_batch(shards: int) -> None:
    """Up to rounding: the sum is in another order."""
    results = []
    for group in (None, group_of(shards)):
        torch.manual_seed(0)
        model = LineModel(LineConfig(obs_shape=(3,), action_dim=2))
        phases, config = model.phases(LearningOverrides()), TrainingConfig()
        updater = Updater(model, phases, config)
        if group is not None:
            updater = ShardedUpdater(model, phases, config, group)
        for _ in range(3):
            metrics, _ = updater.update(batch_of(12), 1.0)
        results.append((metrics, torch.cat([p.flatten() for p in model.parameters()])))
    (plain, weights), (sharded, same) = results
    torch.testing.assert_close(same, weights)
    assert sharded == pytest.approx(plain, rel=1e-5)


def test_a_batch_that_is_not_finite_in_one_shard_changes_nothing() -> None:
    model = LineModel(LineConfig(obs_shape=(3,), action_dim=2))
    updater = ShardedUpdater(
        model, model.phases(LearningOverrides()), TrainingConfig(), group_of(2)
    )
    before = [p.detach().clone() for p in model.parameters()]
    batch = batch_of(4)
    batch.rewards[3, 2] = float("inf")
    with pytest.raises(NonFiniteError):
        updater.update(batch, 1.0)
    assert all(map(torch.equal, before, model.parameters()))


def shared_rows(rank: int, heard: Callable[[bytes], list[bytes]]) -> SharedRows:
    return SharedRows(3, torch.float32, rank, 2, heard)


def test_rows_in_shared_memory_stay_until_the_call_after_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "_FOLDER", tmp_path)
    first = shared_rows(0, lambda word: [word, word])
    rows = [first.of_all((torch.full((2,), float(n)), torch.ones(1))) for n in range(3)]
    assert rows[1][0].tolist() == [1.0, 1.0, 1.0]
    assert rows[0][0].tolist() == rows[2][0].tolist() == [2.0, 2.0, 1.0]
    assert first.usable
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


@pytest.mark.parametrize("folder", [".", "missing"])
def test_processes_of_several_hosts_share_no_memory(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "_FOLDER", tmp_path / folder)
    other = b"0" if folder == "." else b"1"  # what the other process found
    assert not shared_rows(0, lambda word: [word, other if len(word) == 1 else word]).usable
    assert list(tmp_path.iterdir()) == []
