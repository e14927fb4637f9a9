"""When experience is collected: the warm-up, the ratio, and what a resume makes of them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from worldflux.data.collector import Collector
from worldflux.data.replay import ReplayBuffer
from worldflux.data.sources import CollectionSchedule, OnlineSource
from worldflux.envs.vector import VectorEnvironment
from worldflux.errors import ConfigurationError


class Fixed(gymnasium.Env[Any, Any]):
    """Episodes of a fixed length."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, length: int) -> None:
        self.length = length

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.count = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return np.zeros(2, np.float32), 1.0, self.count >= self.length, False, {}


class Acting:
    """Counts how often it is asked to act."""

    device = torch.device("cpu")
    asked = 0

    def initial_carry(self, count: int) -> dict[str, torch.Tensor]:
        return {}

    def policy(self, obs: Any, carry: Any, first: Any, *, explore: bool) -> Any:
        self.asked += 1
        return torch.zeros(len(obs), 1), carry


def source(
    schedule: CollectionSchedule, *, envs: int, sequence: int, length: int = 1000, **more: Any
) -> OnlineSource:
    vector = VectorEnvironment("Fixed", lambda _: Fixed(length), envs)
    buffer = ReplayBuffer(4000, (2,), 1, num_envs=envs)
    collector = Collector(vector, buffer, 0)
    return OnlineSource(collector, schedule, sequence_length=sequence, **more)


def collect(one: OnlineSource, model: Any, first: int, last: int) -> list[int]:
    """Environment steps after each update."""
    steps = []
    for update in range(first, last):
        one.collect(model, update)
        steps.append(one.env_steps)
    return steps


@pytest.mark.parametrize(("warmup", "taken"), [(1024, 1040), (0, 1040), (1040, 1040), (1041, 1056)])
@pytest.mark.parametrize("within", [True, False])
def test_the_warm_up_goes_on_until_one_sequence_is_held(
    warmup: int, taken: int, within: bool
) -> None:
    schedule = CollectionSchedule(warmup, 0, 16.0)
    one = source(schedule, envs=16, sequence=65, within_episode=within)
    model: Any = Acting()
    assert collect(one, model, 0, 1) == [taken]
    assert model.asked == 0
    one.sample(4, 65, torch.device("cpu"))
    assert collect(one, model, 1, 4) == [taken + 16, taken + 32, taken + 48]
    assert model.asked == 3


def test_an_interrupted_warm_up_goes_on(tmp_path: Path) -> None:
    schedule = CollectionSchedule(4, 0, 2.0)
    one, other = (source(schedule, envs=2, sequence=20) for _ in range(2))
    model: Any = Acting()
    asked = iter(range(100))
    one.collect(model, 0, lambda: next(asked) >= 7)
    assert one.env_steps == 14
    other.restore(one.save(tmp_path), tmp_path)
    assert collect(other, model, 0, 3) == [40, 42, 44]


def test_episodes_too_short_for_a_sequence_end_the_warm_up_with_the_reason() -> None:
    one = source(CollectionSchedule(10, 0, 1.0), envs=1, sequence=9, length=3)
    with pytest.raises(ConfigurationError, match="one sequence of 9 steps") as caught:
        one.collect(Acting(), 0)  # type: ignore[arg-type]
    assert "training.sequence_length" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (8.0, [280, 288, 296]),
        (2.0, [274, 276, 278]),
        (40.0, [312, 352, 392]),
        (0.5, [272, 273, 273]),
    ],
)
@pytest.mark.parametrize("knows", [True, False])
def test_another_ratio_counts_from_the_resume_on(
    ratio: float, expected: list[int], knows: bool, tmp_path: Path
) -> None:
    model: Any = Acting()
    one = source(CollectionSchedule(120, 0, 8.0), envs=1, sequence=4)
    assert collect(one, model, 0, 20)[-1] == 272
    state = one.save(tmp_path)
    if not knows:  # a checkpoint of an older version
        del state["schedule"]
    other = source(CollectionSchedule(120, 0, ratio), envs=1, sequence=4)
    other.restore(state, tmp_path)
    assert other.save(tmp_path).get("schedule") == state.get("schedule")
    assert collect(other, model, 20, 23) == expected
    again = source(CollectionSchedule(120, 0, ratio), envs=1, sequence=4)
    again.restore(other.save(tmp_path), tmp_path)
    assert collect(again, model, 23, 25) == collect(other, model, 23, 25)


def test_a_longer_warm_up_than_the_run_had_takes_no_further_random_steps(tmp_path: Path) -> None:
    model: Any = Acting()
    one = source(CollectionSchedule(20, 0, 2.0), envs=1, sequence=4)
    collect(one, model, 0, 10)
    other = source(CollectionSchedule(30, 0, 2.0), envs=1, sequence=4)
    other.restore(one.save(tmp_path), tmp_path)
    asked = model.asked
    assert collect(other, model, 10, 12) == [40, 42]
    assert model.asked - asked == 4


def test_a_schedule_that_stays_is_counted_as_if_never_stopped() -> None:
    schedule = CollectionSchedule(50, 10, 0.3)
    assert schedule.continued(asdict(schedule), 17, schedule.due(16), 4) == schedule
    assert schedule.continued(asdict(schedule), 0, 30, 4) == schedule
    assert schedule.continued(None, 17, schedule.due(16) + 3, 4) == schedule
