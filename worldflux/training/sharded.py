"""Training over shards: where their batches come from, and the one step that they take together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.learning import Phase, Scratch
from worldflux.core.world_model import WorldModel
from worldflux.data.collector import Episode
from worldflux.data.replay import ReplayBuffer
from worldflux.data.replay_storage import SHARDS
from worldflux.data.sources import DataSource, OnlineSource, never
from worldflux.errors import NonFiniteError
from worldflux.layout import SHARD

from .config import TrainingConfig
from .divergence import culprit
from .shards import ShardGroup
from .update import Updater

_STREAM = "torch"


class ShardedSource(DataSource):
    """The sources of the local shards; counters, episodes and saved states are of all shards.

    A batch holds the rows of the local shards end to end, each drawn by its own replay buffer.
    """

    def __init__(self, group: ShardGroup, sources: list[OnlineSource]) -> None:
        self.group, self.sources = group, sources
        self.restarted: list[list[int]] = []

    @property
    def buffers(self) -> list[ReplayBuffer]:
        """The replay buffers of the local shards."""
        return [source.buffer for source in self.sources]

    def collect(
        self, model: WorldModel, update: int, stop: Callable[[], bool] = never
    ) -> list[Episode]:
        ended: list[list[list[float]]] = []
        error = None
        try:
            for source, stream in zip(self.sources, self.group.streams, strict=True):
                with stream.active():
                    episodes = source.collect(model, update, stop)
                ended.append([[each.episode_return, each.length] for each in episodes])
        except Exception as raised:
            error = raised
        steps = sum(source.env_steps for source in self.sources)
        reports = self.group.exchange([steps, ended], error)
        self.env_steps = sum(steps for steps, _ in reports)
        shards = [episodes for _, shards in reports for episodes in shards]
        return [Episode(total, int(length)) for shard in shards for total, length in shard]

    def sample(self, batch_size: int, seq_len: int, device: torch.device) -> Batch:
        """The local rows `[k * batch_size / K, T, ...]` of the next batch."""
        rows = batch_size // self.group.shards
        return Batch.joined([source.sample(rows, seq_len, device) for source in self.sources])

    def write_back(self, batch: Batch, columns: Mapping[str, Tensor]) -> None:
        rows = batch.batch_size // len(self.sources)
        axis = 1 if "replay_index" in columns else 0  # planned rows come time first
        for number, source in enumerate(self.sources):
            own = {n: v.chunk(len(self.sources), axis)[number] for n, v in columns.items()}
            source.write_back(batch.rows(number * rows, (number + 1) * rows), own)

    def pretrains(self, update: int) -> bool:
        return self.sources[0].pretrains(update)

    def save(self, folder: Path) -> dict[str, Any]:
        """Each shard writes its replay below `folder`; the state of all of them."""
        states, error = [], None
        try:
            for shard, source, stream in self._local():
                states.append({**source.save(folder / shard), _STREAM: stream.states})
        except Exception as raised:
            error = raised
        reports = self.group.exchange(states, error)
        return {SHARDS: [state for process in reports for state in process]}

    def restore(self, state: dict[str, Any], folder: Path) -> None:
        error = None
        try:
            for number, (shard, source, stream) in zip(
                self.group.local, self._local(), strict=True
            ):
                saved = state[SHARDS][number]
                source.restore(saved, folder / shard)
                stream.states = dict(saved[_STREAM])
        except Exception as raised:
            error = raised
        steps = sum(source.env_steps for source in self.sources)
        reports = self.group.exchange([steps, [s.collector.restarted for s in self.sources]], error)
        self.env_steps = sum(steps for steps, _ in reports)
        self.restarted = [restarted for _, process in reports for restarted in process]

    def _local(self) -> list[Any]:
        names = [SHARD.format(number) for number in self.group.local]
        return list(zip(names, self.sources, self.group.streams, strict=True))


class ShardedUpdater(Updater):
    """Gradients of each shard's rows, gathered and added up in the order of the shards."""

    def __init__(
        self, model: WorldModel, phases: list[Phase], config: TrainingConfig, group: ShardGroup
    ) -> None:
        super().__init__(model, phases, config)
        self.group = group

    def _parts(self, batch: Batch) -> list[Batch]:
        rows, count = batch.batch_size, len(self.group.local)
        edges = range(0, rows, rows // count)
        # Copies: how a library multiplies may depend on where in memory the numbers begin.
        return [batch.rows(edge, edge + rows // count).copy() for edge in edges]

    def _backward(
        self, phase: Phase, parts: list[Batch], scratches: list[Scratch]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Gradients of the mean loss over all shards; its components and its plain numbers."""
        pairs = zip(parts, scratches, strict=True)
        jobs = [partial(self._of_shard, phase, part, scratch) for part, scratch in pairs]
        rows, done = self.group.in_turns(phase.name, jobs)
        total = reduce(torch.add, rows).div_(self.group.shards)
        learned, names, plain_names = done[0]
        sizes = [parameter.numel() for parameter in learned]
        *gradients, named, plain = total.split([*sizes, len(names), len(plain_names)])
        for parameter, gradient in zip(learned, gradients, strict=True):
            parameter.grad = gradient.view_as(parameter)
        return (
            dict(zip(names, named.unbind(), strict=True)),
            dict(zip(plain_names, plain.tolist(), strict=True)),
        )

    def _of_shard(self, phase: Phase, part: Batch, scratch: Scratch) -> Any:
        """One shard's gradients, losses and numbers as a row, and what is in it."""
        try:
            named, plain = super()._backward(phase, [part], [scratch])
        except RuntimeError as error:
            found = culprit(part, self.model)
            if found is None:
                raise
            raise NonFiniteError(f"{found} is not finite: {error}") from None
        learned = [p for p in phase.parameters if p.grad is not None]
        numbers = [
            x.float().reshape(1) if isinstance(x, Tensor) else torch.tensor([x], device=part.device)
            for x in plain.values()
        ]
        values = [value.float().reshape(1) for value in named.values()]
        gradients = [p.grad.flatten() for p in learned if p.grad is not None]
        row = torch.cat([*gradients, *values, *numbers])
        phase.optimizer.zero_grad(set_to_none=True)  # the next shard begins without them
        return row, (learned, list(named), list(plain))

    def _joined(self, scratches: list[Scratch]) -> Scratch:
        """The rows `[B, ...]` of the local shards end to end; scalars are the same in all."""
        return {
            name: first if first.dim() == 0 else torch.cat([each[name] for each in scratches])
            for name, first in scratches[0].items()
        }


def updater_of(
    model: WorldModel, phases: list[Phase], config: TrainingConfig, group: ShardGroup | None
) -> Updater:
    """What updates a model: from whole batches, or over shards."""
    if group is None:
        return Updater(model, phases, config)
    return ShardedUpdater(model, phases, config, group)
