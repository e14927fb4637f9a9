"""Recorded data as demonstrations, and next to experience that the agent collects later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldflux.core.batch import DEMONSTRATION, Batch
from worldflux.core.world_model import WorldModel

from .collector import Collector, Episode
from .replay import ReplayBuffer
from .sources import CollectionSchedule, OnlineSource, ReplaySource, never

_RECORDED = "recorded"  # of a saved state: that of the recorded rows


@dataclass(frozen=True)
class Imitation:
    """How much the policy imitates recorded actions: `weight`, which falls to 0 over
    `decay_updates` from update `start` on (None: it stays)."""

    weight: float = 0.0
    decay_updates: int | None = None
    start: int = 0

    def at(self, update: int) -> float:
        """The weight at update `update` (0-based)."""
        if self.decay_updates is None:
            return self.weight
        return self.weight * max(0.0, 1 - max(0, update - self.start) / self.decay_updates)


class RecordedSource(ReplaySource):
    """Batches of recorded data; `extras` hold the weight of each step's action in a loss of
    behaviour cloning, where there is one."""

    def __init__(
        self, buffer: ReplayBuffer, imitation: Imitation, *, within_episode: bool = True
    ) -> None:
        super().__init__(buffer, within_episode=within_episode)
        self._imitation, self._weight = imitation, 0.0

    def collect(
        self, model: WorldModel, update: int, stop: Callable[[], bool] = never
    ) -> list[Episode]:
        self._weight = self._imitation.at(update)
        return []

    def sample(self, batch_size: int, seq_len: int, device: torch.device) -> Batch:
        batch = super().sample(batch_size, seq_len, device)
        if self._weight:
            batch.extras[DEMONSTRATION] = torch.full_like(batch.rewards, self._weight)
        return batch


class OfflineThenOnlineSource(OnlineSource):
    """Recorded data alone until the agent has collected a sequence; then both.

    Args:
        recorded_share: of the sequences of each batch, recorded ones from then on.

    Attributes:
        recorded: the source of the recorded ones.
        buffers: of the collected and of the recorded ones.
    """

    def __init__(
        self,
        recorded: RecordedSource,
        collector: Collector,
        schedule: CollectionSchedule,
        *,
        recorded_share: float,
        within_episode: bool = True,
    ) -> None:
        super().__init__(collector, schedule, within_episode=within_episode)
        self.recorded, self._share = recorded, recorded_share
        self.buffers = [self.buffer, recorded.buffer]
        self._holds_a_sequence = False  # until one was seen

    def collect(
        self, model: WorldModel, update: int, stop: Callable[[], bool] = never
    ) -> list[Episode]:
        """Collect what is due; nothing random, because the agent has learned already."""
        self.recorded.collect(model, update, stop)
        return super().collect(model, update, stop)

    def _warms_up_further(self, update: int) -> bool:
        return False

    def sample(self, batch_size: int, seq_len: int, device: torch.device) -> Batch:
        """Recorded sequences, then collected ones; `replay_index` is -1 - n for recorded row n."""
        within = self.within_episode
        if not self._holds_a_sequence and len(self.buffer):
            self._holds_a_sequence = self.buffer.can_sample(seq_len, within_episode=within)
        count = round(self._share * batch_size) if self._holds_a_sequence else batch_size
        parts = []
        if count:
            parts.append(self.recorded.sample(count, seq_len, device))
            parts[0].extras["replay_index"] = -1 - parts[0].extras["replay_index"]
        if count < batch_size:
            parts.append(super().sample(batch_size - count, seq_len, device))
            if parts[0].extras.keys() > parts[-1].extras.keys():
                parts[-1].extras[DEMONSTRATION] = torch.zeros_like(parts[-1].rewards)
        return parts[0] if len(parts) == 1 else Batch.joined(parts)

    def write_back(self, batch: Batch, columns: Mapping[str, Tensor]) -> None:
        fresh = dict(columns)
        index = fresh.pop("replay_index", batch.extras["replay_index"])
        recorded = index[:, 0] < 0
        numbers = torch.where(index < 0, -1 - index, index)
        for buffer, rows in ((self.recorded.buffer, recorded), (self.buffer, ~recorded)):
            if fresh and rows.any():
                own = {name: value[rows] for name, value in fresh.items()}
                buffer.write_back(numbers[rows], own)

    def save(self, folder: Path) -> dict[str, Any]:
        return {**super().save(folder), _RECORDED: self.recorded.save(folder)}

    def restore(self, state: dict[str, Any], folder: Path) -> None:
        self.recorded.restore(state[_RECORDED], folder)
        super().restore(state, folder)
