"""Where batches come from: the agent's own experience, a filled replay, or a plain iterable.

The Trainer asks a source for two things an update: to collect what is due, and for a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.world_model import WorldModel
from worldflux.errors import ConfigurationError

from .collector import Collector, Episode
from .replay import ReplayBuffer
from .sealed_files import SealedFiles


def never() -> bool:
    """Nobody asks to stop."""
    return False


class DataSource(Protocol):
    """What the Trainer needs of its data."""

    env_steps: int

    def collect(
        self, model: WorldModel, update: int, stop: Callable[[], bool] = never
    ) -> list[Episode]:
        """Gather whatever is due before gradient update `update` (0-based).

        `stop` is asked before the first step and after each one: when it says so, what is missing
        is gathered by the next call for the same update.
        """
        ...

    def sample(self, batch_size: int, seq_len: int, device: torch.device) -> Batch:
        """The next batch `[B, T, ...]`, on the device."""
        ...

    def write_back(self, batch: Batch, columns: Mapping[str, Tensor]) -> None:
        """Put a family's fresh columns `[B, T, ...]` back where the batch came from."""
        ...

    def save(self, folder: Path) -> dict[str, Any]:
        """Write new data below `folder`; return the JSON-ready state that names it."""
        ...

    def restore(self, state: dict[str, Any], folder: Path) -> None:
        """Continue from a state that `save` returned."""
        ...


class ReplaySource:
    """Batches from a buffer that somebody else has filled."""

    def __init__(self, buffer: ReplayBuffer, *, within_episode: bool = True) -> None:
        self.buffer = buffer
        self.within_episode = within_episode
        self.env_steps = 0
        self._sealed = SealedFiles(buffer)

    def collect(
        self, model: WorldModel, update: int, stop: Callable[[], bool] = never
    ) -> list[Episode]:
        """Nothing is due."""
        return []

    def sample(self, batch_size: int, seq_len: int, device: torch.device) -> Batch:
        """Sequences uniform over the buffer."""
        return self.buffer.sample(batch_size, seq_len, device, within_episode=self.within_episode)

    def write_back(self, batch: Batch, columns: Mapping[str, Tensor]) -> None:
        """Replace extra columns `[B, T, ...]` of the rows that the batch came from."""
        if columns:
            self.buffer.write_back(batch.extras["replay_index"], columns)

    def save(self, folder: Path) -> dict[str, Any]:
        """Seal what is new since the last save; name every file still needed."""
        return self._sealed.save(folder)

    def restore(self, state: dict[str, Any], folder: Path) -> None:
        """Read the sealed files back, each checked against its hash first.

        Raises:
            CheckpointError: naming the file that is missing, damaged or out of order.
        """
        self._sealed.restore(state, folder)


@dataclass(frozen=True)
class CollectionSchedule:
    """How experience and updates alternate.

    `warmup_transitions` random steps come first, then `pretrain_updates` updates without a step,
    then `steps_per_update` environment steps before each update.
    """

    warmup_transitions: int
    pretrain_updates: int
    steps_per_update: float

    def due(self, update: int) -> int:
        """Environment steps that must have been taken before update `update` (0-based)."""
        further = max(0, update - self.pretrain_updates)
        return self.warmup_transitions + int(further * self.steps_per_update)


class OnlineSource(ReplaySource):
    """The agent's own experience: collected on schedule, stored, sampled."""

    def __init__(
        self,
        collector: Collector,
        schedule: CollectionSchedule,
        *,
        within_episode: bool = True,
    ) -> None:
        super().__init__(collector.buffer, within_episode=within_episode)
        self.collector = collector
        self.schedule = schedule

    def collect(
        self, model: WorldModel, update: int, stop: Callable[[], bool] = never
    ) -> list[Episode]:
        """Step the environments until what is due before this update has been taken."""
        ended: list[Episode] = []
        while True:
            self.env_steps = self.collector.env_steps
            if stop() or self.env_steps >= self.schedule.due(update):
                return ended
            if self.env_steps < self.schedule.warmup_transitions:
                ended += self.collector.collect_random()
            else:
                ended += self.collector.collect(model)

    def save(self, folder: Path) -> dict[str, Any]:
        """The replay's state with the collector's."""
        return {**super().save(folder), "collector": self.collector.state_dict()}

    def restore(self, state: dict[str, Any], folder: Path) -> None:
        """Continue the replay and the counters; environments begin a new episode."""
        super().restore(state, folder)
        self.collector.load_state_dict(state["collector"])
        self.env_steps = self.collector.env_steps


class BatchSource:
    """Batches from any iterable; one that can be iterated again is repeated."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = batches
        self._iterator: Iterator[Batch] = iter(batches)
        self.env_steps = 0

    def collect(
        self, model: WorldModel, update: int, stop: Callable[[], bool] = never
    ) -> list[Episode]:
        """Nothing is due."""
        return []

    def sample(self, batch_size: int, seq_len: int, device: torch.device) -> Batch:
        """The next batch as it comes; its own size and length stand.

        Raises:
            ConfigurationError: when the iterable ran out and cannot begin anew.
        """
        batch = next(self._iterator, None)
        if batch is None:
            self._iterator = iter(self._batches)
            batch = next(self._iterator, None)
        if batch is None:
            raise ConfigurationError("the data ran out: give a list of batches or an endless one")
        return batch.to(device)

    def write_back(self, batch: Batch, columns: Mapping[str, Tensor]) -> None:
        """An iterable keeps nothing of columns `[B, T, ...]`."""

    def save(self, folder: Path) -> dict[str, Any]:
        """An iterable has no position to save."""
        return {}

    def restore(self, state: dict[str, Any], folder: Path) -> None:
        """Begin the iterable anew."""
        self._iterator = iter(self._batches)


Data = ReplayBuffer | DataSource | Iterable[Batch]
"""What a Trainer takes as data."""


def as_source(data: Data) -> DataSource:
    """The data source for whatever `train` was given.

    Raises:
        ConfigurationError: for what is no data.
    """
    if isinstance(data, ReplayBuffer):
        return ReplaySource(data)
    if hasattr(data, "collect") and hasattr(data, "sample"):
        return cast("DataSource", data)
    if isinstance(data, Iterable):
        return BatchSource(data)
    raise ConfigurationError(
        f"train takes a ReplayBuffer, a data source or batches, not {type(data).__name__}"
    )
