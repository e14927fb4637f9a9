"""Where batches come from: the agent's own experience, a filled replay, or a plain iterable.

The Trainer asks a source for two things an update: to collect what is due, and for a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.world_model import WorldModel
from worldflux.errors import ConfigurationError

from .collector import Collector, Episode
from .replay import ReplayBuffer
from .replay_storage import SealedFiles

# A warm-up without one sequence of an episode ends after as many steps as so many sequences have.
_MOST_SEQUENCES = 20


def never() -> bool:
    """Nobody asks to stop."""
    return False


class DataSource:
    """What the Trainer needs of its data: a source that collects nothing and has no position."""

    env_steps = 0
    streams = 1  # environments that the agent acts in at once

    def collect(
        self, model: WorldModel, update: int, stop: Callable[[], bool] = never
    ) -> list[Episode]:
        """Collect whatever is due before gradient update `update` (0-based).

        `stop` is called before the first step and after each one; when it is true, the next call
        for the same update collects what is missing.
        """
        return []

    def sample(self, batch_size: int, seq_len: int, device: torch.device) -> Batch:
        """The next batch `[B, T, ...]`, on the device. Every source has its own."""
        raise NotImplementedError

    def write_back(self, batch: Batch, columns: Mapping[str, Tensor]) -> None:
        """Put a family's fresh columns back where the batch came from (`after_update`)."""

    def pretrains(self, update: int) -> bool:
        """Whether gradient update `update` (0-based) comes before the agent acts at all."""
        return False

    def save(self, folder: Path) -> dict[str, Any]:
        """Write new data below `folder`; return the JSON-ready state that names it."""
        return {}

    def restore(self, state: dict[str, Any], folder: Path) -> None:
        """Continue from a state that `save` returned."""


class ReplaySource(DataSource):
    """Batches from a buffer that somebody else has filled."""

    def __init__(self, buffer: ReplayBuffer, *, within_episode: bool = True) -> None:
        self.buffer = buffer
        self.within_episode = within_episode
        self._sealed = SealedFiles(buffer)

    def sample(self, batch_size: int, seq_len: int, device: torch.device) -> Batch:
        return self.buffer.sample(batch_size, seq_len, device, within_episode=self.within_episode)

    def write_back(self, batch: Batch, columns: Mapping[str, Tensor]) -> None:
        if columns:
            fresh = dict(columns)
            self.buffer.write_back(fresh.pop("replay_index", batch.extras["replay_index"]), fresh)

    def save(self, folder: Path) -> dict[str, Any]:
        return self._sealed.save(folder)

    def restore(self, state: dict[str, Any], folder: Path) -> None:
        self._sealed.restore(state, folder)


@dataclass(frozen=True)
class CollectionSchedule:
    """How experience and updates alternate.

    `warmup_transitions` random steps come first, then `pretrain_updates` updates without a step,
    then `steps_per_update` environment steps before each update.

    `counted_from` is an update and the environment steps taken by then, from which they are
    counted after a warm-up that took longer, or a resume with another schedule.
    """

    warmup_transitions: int
    pretrain_updates: int
    steps_per_update: float
    counted_from: tuple[int, int] | None = None

    def due(self, update: int) -> int:
        """Environment steps that must have been taken before update `update` (0-based)."""
        first, taken = self.counted_from or (0, self.warmup_transitions)
        further = self._collecting(update) - self._collecting(first)
        return taken + int(further * self.steps_per_update)

    def warms_up(self, taken: int) -> bool:
        """Whether the next environment step is a random one."""
        return self.counted_from is None and taken < self.warmup_transitions

    def _collecting(self, update: int) -> int:
        """How many updates before this one are preceded by environment steps."""
        return max(0, update - self.pretrain_updates)

    def continued(
        self, saved: Mapping[str, Any] | None, update: int, taken: int, num_envs: int
    ) -> CollectionSchedule:
        """This schedule for a run that continues at `update` with `taken` environment steps.

        `saved` is the schedule until then; if it was not saved, it was another one if this one does
        not lead to `taken` steps.
        """
        if taken < self.warmup_transitions:
            return replace(self, counted_from=None)
        if saved is None:
            same = self.due(update - 1) <= taken <= self.due(update) + num_envs
            start = None
        else:
            start = saved["counted_from"] and tuple(saved["counted_from"])
            same = {**saved, "counted_from": None} == asdict(replace(self, counted_from=None))
        return replace(self, counted_from=start if same else (update - 1, taken))


class OnlineSource(ReplaySource):
    """The agent's own experience: collected on schedule, stored, sampled.

    The warm-up continues until the replay holds one sequence of `sequence_length` rows.
    """

    def __init__(
        self,
        collector: Collector,
        schedule: CollectionSchedule,
        *,
        within_episode: bool = True,
        sequence_length: int = 1,
    ) -> None:
        super().__init__(collector.buffer, within_episode=within_episode)
        self.collector = collector
        self.streams = collector.buffer.num_envs
        self.schedule = schedule
        self._sequence_length = sequence_length
        self._lacks_a_sequence = True  # until one was seen
        self._restored: dict[str, Any] | None = None

    def collect(
        self, model: WorldModel, update: int, stop: Callable[[], bool] = never
    ) -> list[Episode]:
        """Step the environments until what is due before this update has been taken."""
        if self._restored is not None:
            self.schedule = self.schedule.continued(
                self._restored.get("schedule"), update, self.env_steps, self.buffer.num_envs
            )
            self._restored = None
        ended: list[Episode] = []
        while True:
            self.env_steps = self.collector.env_steps
            if stop():
                return ended
            is_due = self.env_steps < self.schedule.due(update)
            if not is_due and not self._warms_up_further(update):
                return ended
            if is_due and not self.schedule.warms_up(self.env_steps):
                ended += self.collector.collect(model)
            else:
                ended += self.collector.collect_random()

    def pretrains(self, update: int) -> bool:
        return update < self.schedule.pretrain_updates

    def _warms_up_further(self, update: int) -> bool:
        """Whether the replay holds no sequence yet."""
        if not self._lacks_a_sequence:
            return False
        length, due = self._sequence_length, self.schedule.due(update)
        if self.buffer.can_sample(length, within_episode=self.within_episode):
            self._lacks_a_sequence = False
            if self.env_steps >= due + self.buffer.num_envs:
                self.schedule = replace(self.schedule, counted_from=(update, self.env_steps))
            return False
        if self.env_steps > due + _MOST_SEQUENCES * length * self.buffer.num_envs:
            steps = max(1, self.env_steps // max(1, self.collector.episodes_ended))
            raise ConfigurationError(
                f"no episode lasted long enough for one sequence of {length} steps "
                f"({self.collector.episodes_ended:,} episodes in {self.env_steps:,} environment "
                "steps)",
                hint=f"train on shorter sequences: --set architecture.horizon={steps} where the "
                f"model plans, else --set training.sequence_length={steps + 1}",
            )
        return True

    def save(self, folder: Path) -> dict[str, Any]:
        unchanged = self._restored  # nothing was collected since
        return {
            **super().save(folder),
            "collector": self.collector.state_dict(),
            "schedule": unchanged.get("schedule") if unchanged else asdict(self.schedule),
        }

    def restore(self, state: dict[str, Any], folder: Path) -> None:
        """Continue everything; a schedule other than the saved one counts from here on."""
        super().restore(state, folder)
        self.collector.load_state_dict(state["collector"])
        self.env_steps = self.collector.env_steps
        self._restored = state


class BatchProvider(Protocol):
    """Anything that makes batches when asked: a `Batch` `[B, T, ...]`, or a dict of its fields."""

    def sample(self, batch_size: int, seq_len: int, device: torch.device) -> Any: ...


class BatchSource(DataSource):
    """Batches from any iterable, repeated if possible, or from an object with `sample`."""

    def __init__(self, batches: Iterable[Batch | Mapping[str, Any]] | BatchProvider) -> None:
        self._batches = batches
        self._iterator: Iterator[Batch | Mapping[str, Any]] = iter(())

    def sample(self, batch_size: int, seq_len: int, device: torch.device) -> Batch:
        """The next batch of the iterable, whatever its size and length, or ConfigurationError."""
        if isinstance(self._batches, Iterable):
            batch = next(self._iterator, None)
            if batch is None:
                self._iterator = iter(self._batches)
                batch = next(self._iterator, None)
        else:
            batch = self._batches.sample(batch_size, seq_len, device)
        if batch is None:
            raise ConfigurationError("the data ran out: give a list of batches or an endless one")
        if isinstance(batch, Mapping):
            batch = Batch.from_dict(batch)
        if not isinstance(batch, Batch):
            raise ConfigurationError(
                f"the data gave a {type(batch).__name__}, expected a Batch or a dict of its fields",
                hint="worldflux.Batch(obs=..., actions=..., rewards=..., terminations=...)",
            )
        return batch.to(device)

    def restore(self, state: dict[str, Any], folder: Path) -> None:
        """Begin the iterable again: it has no position."""
        self._iterator = iter(())


Data = ReplayBuffer | DataSource | BatchProvider | Iterable[Batch | Mapping[str, Any]]
"""What a Trainer takes as data."""


def as_source(data: Data, model: WorldModel) -> DataSource:
    """The data source for whatever `train` was given; ConfigurationError for what is no data."""
    if isinstance(data, ReplayBuffer):
        crosses = model.config.training_recipe().crosses_episodes
        return ReplaySource(data, within_episode=not crosses)
    if hasattr(data, "collect") and hasattr(data, "sample"):
        return cast("DataSource", data)
    if hasattr(data, "sample") or (isinstance(data, Iterable) and not isinstance(data, Mapping)):
        return BatchSource(cast("BatchProvider | Iterable[Batch]", data))
    raise ConfigurationError(
        "train takes a ReplayBuffer, an iterable of batches, or an object with "
        f"sample(batch_size, seq_len, device), not a {type(data).__name__}"
    )
