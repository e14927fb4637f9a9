"""`training.threads`: few for small models, as many as are set, and the same after a resume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from worldflux import create_world_model
from worldflux.errors import ConfigurationError
from worldflux.training import TrainingConfig
from worldflux.training.threads import computing_with, threads_of


@pytest.fixture(autouse=True)
def cores() -> Iterator[None]:
    """A machine where torch would take sixteen threads."""
    with computing_with(16):
        yield


def threads(model: str, *, recorded: Any = None, **settings: Any) -> int:
    made = create_world_model(model, obs_shape=(24,), action_dim=6)
    return threads_of(TrainingConfig(device="cpu", **settings), made, recorded)


def test_a_small_model_takes_one_thread_and_a_larger_one_more() -> None:
    assert threads("tdmpc2:ci") == 1
    assert 1 < threads("tdmpc2:laptop") < threads("tdmpc2:official_1m") < 16


def test_a_larger_batch_is_more_work() -> None:
    assert threads("tdmpc2:ci", batch_size=4096) > 1


def test_of_more_than_two_cores_one_stays_free() -> None:
    work = {"batch_size": 2**20}
    assert threads("tdmpc2:ci", **work) == 15
    with computing_with(2):
        assert threads("tdmpc2:ci", **work) == 2


def test_images_take_every_core() -> None:
    made = create_world_model("dreamerv3:ci", obs_shape=(3, 64, 64), action_dim=2)
    assert threads_of(TrainingConfig(device="cpu"), made) == 16


def test_the_setting_decides_up_to_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldflux.training.threads.os.cpu_count", lambda: 6)
    assert threads("tdmpc2:ci", threads=5) == 5
    assert threads("tdmpc2:ci", threads=5, recorded=2) == 5
    assert threads("tdmpc2:ci", threads=1024) == 6


def test_a_resumed_run_keeps_its_threads_where_there_are_as_many() -> None:
    assert threads("tdmpc2:ci", recorded=7) == 7
    assert threads("tdmpc2:ci", recorded=64) == 16
    assert threads("tdmpc2:ci", recorded="many") == 1  # a damaged manifest is refused elsewhere


def test_threads_are_as_before_afterwards() -> None:
    with computing_with(3):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == 16


@pytest.mark.parametrize("count", [0, 1025, 2**63])
def test_a_number_that_no_machine_has_is_refused(count: int) -> None:
    with pytest.raises(ConfigurationError, match="threads"):
        TrainingConfig(threads=count)
