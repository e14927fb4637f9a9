"""`ReplayBuffer`: a numpy ring of steps, one stream an environment, sampled as sequences.

Row t of a stream holds (o_t, a_t, r_t, flags_t): the observation, the action taken after seeing
it, and the reward and flags that came with it. A sampled sequence never crosses a write cursor.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldflux.core.batch import Batch
from worldflux.errors import CheckpointError, ConfigurationError, ShapeMismatchError

from .columns import (
    EXTRA,
    OBS,
    SINCE_FIRST,
    Array,
    Shapes,
    allocate,
    column_specs,
    image_bytes,
    row_bytes,
)
from .episode_rows import episode_rows, one_hot_rows
from .replay_file import Load, write_replay
from .sequence_draw import SequenceDraw, sequence_hint


class ReplayBuffer:
    """Steps of one or more environments, oldest overwritten first.

    `buffer.load(path)` reads back what `buffer.save(path)` wrote; `ReplayBuffer.load(path)` makes a
    buffer of that file, or of recorded steps (docs/data.md).

    Args:
        capacity: rows kept, over all environments.
        obs_shape: shape of one observation, or a dict of shapes for named observations. Images
            (rank 3) are stored as uint8, everything else as float32.
        action_dim: size of an action.
        num_envs: parallel streams; `add` takes one row for each.
        extra_columns: further float columns a step, name -> shape (a family's latents).
        seed: seed of the sampler.
        half_life: sample newer sequences more often: one that ended this many transitions (over
            all environments) before the newest is half as likely as it. None: all alike.
        scratch: keep the rows in a memory-mapped file in this folder instead of in memory.

    Raises:
        ConfigurationError: for a capacity, size, number of streams or half-life that cannot be.
    """

    def __init__(
        self,
        capacity: int,
        obs_shape: Shapes,
        action_dim: int,
        *,
        num_envs: int = 1,
        extra_columns: Mapping[str, tuple[int, ...]] | None = None,
        seed: int = 0,
        half_life: float | None = None,
        scratch: Path | None = None,
    ) -> None:
        if half_life is not None and not half_life > 0:
            raise ConfigurationError(f"half_life = {half_life} is not allowed: expected above 0")
        if not isinstance(capacity, (int, np.integer)) or num_envs < 1 or capacity < num_envs * 2:
            raise ConfigurationError(
                f"a replay of capacity {capacity} cannot hold two steps of {num_envs} environments"
            )
        self.num_envs = num_envs
        self.rows_per_env = capacity // num_envs
        self.named_obs = isinstance(obs_shape, Mapping)
        self.obs_shape = obs_shape
        self.action_dim = action_dim
        self.extra_columns = dict(extra_columns or {})
        specs = column_specs(obs_shape, action_dim, self.extra_columns)
        rows = allocate(specs, self.rows_per_env, num_envs, scratch)
        self._columns, self._flat_rows = rows.columns(), rows.flat()
        self._flat = self._flat_rows.columns()
        self._row_shapes = {name: column.shape[1:] for name, column in self._columns.items()}
        self._row_bytes = row_bytes(specs)
        # Rows whose extra columns were written back since `forget_rewritten`.
        self._rewritten = np.zeros((self.rows_per_env, num_envs if extra_columns else 0), bool)
        self.steps_written = 0  # rows a stream since the start: row k stands at k % rows_per_env
        self._since_first = np.full(num_envs, -1, np.int32)  # of the newest row
        self._draw = SequenceDraw(self._flat[SINCE_FIRST], num_envs, seed, half_life)
        self._obs_names = list(obs_shape) if isinstance(obs_shape, Mapping) else [""]
        self._sampled = [name for name in self._flat if name != SINCE_FIRST]

    # ------------------------------------------------------------------ size

    def __len__(self) -> int:
        """Rows held, over all environments."""
        return min(self.steps_written, self.rows_per_env) * self.num_envs

    @property
    def capacity(self) -> int:
        """Rows that fit."""
        return self.rows_per_env * self.num_envs

    @property
    def num_episodes(self) -> int:
        """Episodes whose end is held."""
        held = min(self.steps_written, self.rows_per_env)
        return int(self._columns["is_last"][:held].sum())

    @property
    def size_bytes(self) -> int:
        """Memory of a full buffer."""
        return self.capacity * self._row_bytes

    # ------------------------------------------------------------------ writing

    def add(
        self,
        obs: Array | Mapping[str, Array],
        action: Array,
        reward: Array,
        is_first: Array,
        is_last: Array,
        is_terminal: Array,
        extras: Mapping[str, Array] | None = None,
    ) -> None:
        """Append one row to every stream; each argument has the leading axis N = num_envs.

        Actions are rows `[N, A]`, or indices `[N]` of A discrete actions.

        Raises:
            ShapeMismatchError: naming the column, the shape expected and the one given; nothing is
                written then.
        """
        row = {
            "action": one_hot_rows(np.asarray(action), self.action_dim),
            "reward": np.asarray(reward),
            "is_first": np.asarray(is_first),
            "is_last": np.asarray(is_last),
            "is_terminal": np.asarray(is_terminal),
        }
        for name, value in (obs if isinstance(obs, Mapping) else {"": obs}).items():
            row[OBS + name] = self._stored(OBS + name, np.asarray(value))
        for name, value in (extras or {}).items():
            row[EXTRA + name] = np.asarray(value)
        since = self._since_first + 1
        if row["is_first"].shape == since.shape:
            since[row["is_first"].astype(bool)] = 0
        row[SINCE_FIRST] = since
        self._check(row, self._row_shapes)
        index = self.steps_written % self.rows_per_env
        for name, value in row.items():
            self._columns[name][index] = value
        if self.extra_columns:
            self._rewritten[index] = False
        self._since_first = since
        self.steps_written += 1

    def add_episode(
        self,
        obs: Array | Mapping[str, Array],
        actions: Array,
        rewards: Array,
        dones: Array | None = None,
        *,
        truncations: Array | None = None,
    ) -> None:
        """Append one episode in the order that users have it.

        `actions[t]`, taken at `obs[t]`, gave `rewards[t]` and `dones[t]`; actions are rows
        `[T, A]`, or indices `[T]` of A discrete actions. `obs` (or each of the named ones) has
        T + 1 rows, or T where the last one was not kept: with a warning, a true end then repeats
        the observation before it, and any other last step is left out. Without `truncations`,
        `dones` counts as termination; without `dones`, the episode was cut off. Extra columns are
        zero.

        Raises:
            ShapeMismatchError: when lengths, shapes or values disagree; nothing is written then.
            ConfigurationError: when the buffer has several streams, or the episode does not fit.
        """
        if self.num_envs != 1:
            raise ConfigurationError("add_episode needs a buffer with one stream (num_envs = 1)")
        rows = episode_rows(obs, actions, rewards, dones, truncations, self.action_dim)
        rows = {name: self._stored(name, column) for name, column in rows.items()}
        count = len(rows["reward"])
        if count > self.rows_per_env:
            raise ConfigurationError(f"an episode of {count} rows does not fit {self.rows_per_env}")
        rows[SINCE_FIRST] = np.arange(count, dtype=np.int32)
        for name, shape in self.extra_columns.items():
            rows[EXTRA + name] = np.zeros((count, *shape), np.float32)
        self._check(rows, {name: (count, *shape[1:]) for name, shape in self._row_shapes.items()})
        index = np.arange(self.steps_written, self.steps_written + count) % self.rows_per_env
        for name, column in rows.items():
            self._flat[name][index] = column
        self._rewritten[index] = False
        self._since_first[:] = count - 1
        self.steps_written += count

    def _check(self, given: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Every column is there, and of its shape.

        Raises:
            ShapeMismatchError: naming the column.
        """
        if given.keys() != shapes.keys():
            missing, foreign = shapes.keys() - given.keys(), given.keys() - shapes.keys()
            told = [f"is missing {_plain(name)!r}" for name in sorted(missing)]
            told += [f"has no column {_plain(name)!r}" for name in sorted(foreign)]
            raise ShapeMismatchError(f"the replay {' and '.join(told)}")
        for name, value in given.items():
            if value.shape != shapes[name]:
                raise ShapeMismatchError(
                    f"replay column {_plain(name)!r} got shape {value.shape}, expected "
                    f"{shapes[name]}"
                )

    def _stored(self, name: str, value: Array) -> Array:
        """A column as it is kept: whole numbers of an image as bytes."""
        is_image = name in self._flat and self._flat[name].dtype == np.uint8
        return image_bytes(_plain(name), value) if is_image else value

    # ------------------------------------------------------------------ sampling

    def can_sample(self, seq_len: int, *, within_episode: bool = True) -> bool:
        """Whether at least one sequence of `seq_len` rows is held."""
        valid = self._draw.valid_last_rows(
            seq_len, self.steps_written, within_episode=within_episode
        )
        return len(valid) > 0

    def sample(
        self,
        batch_size: int,
        seq_len: int,
        device: torch.device | str = "cpu",
        *,
        within_episode: bool = True,
    ) -> Batch:
        """`batch_size` sequences of `seq_len` rows, uniform over all that are held.

        With `within_episode` a sequence stays in one episode; without, it may cross an end, where
        `is_first` says so. `extras` holds the extra columns and `replay_index` [B, T] (the number
        of each row since the start: step * num_envs + stream), which `write_back` takes.

        Raises:
            ConfigurationError: when no sequence of that length is held.
        """
        last_rows = self._draw.last_rows(
            batch_size, seq_len, self.steps_written, within_episode=within_episode
        )
        if last_rows is None:
            longest = self._draw.longest(self.steps_written, within_episode)
            raise ConfigurationError(
                f"the replay holds no sequence of {seq_len} steps yet ({len(self)} rows, "
                f"{self.num_episodes} whole episodes)",
                hint=sequence_hint(longest) if longest else None,
            )
        numbers = last_rows[:, None] + np.arange((1 - seq_len) * self.num_envs, 1, self.num_envs)
        columns = self._flat_rows.take(numbers % self.capacity, self._sampled)
        if not within_episode:  # an abandoned episode ends where the next one starts
            is_last = columns["is_last"]
            np.logical_or(is_last[:, :-1], columns["is_first"][:, 1:], out=is_last[:, :-1])
        found = {name: torch.from_numpy(column) for name, column in columns.items()}
        if device != "cpu":
            found = {name: tensor.to(device) for name, tensor in found.items()}
        obs = {name: found[OBS + name] for name in self._obs_names}
        extras = {name: found[EXTRA + name] for name in self.extra_columns}
        extras["replay_index"] = torch.from_numpy(numbers)
        return Batch(
            obs=obs if self.named_obs else obs[""],
            actions=found["action"],
            rewards=found["reward"],
            terminations=found["is_terminal"],
            is_first=found["is_first"],
            is_last=found["is_last"],
            extras=extras,
        )

    def write_back(self, replay_index: torch.Tensor, values: Mapping[str, torch.Tensor]) -> None:
        """Replace extra columns of the rows still held.

        `replay_index` `[B, T]` as `sample` gave it, values `[B, T', ...]` of the last T' steps
        (a family that only warms up on the first ones has nothing new to say of them).
        """
        steps = max((value.shape[1] for value in values.values()), default=0)
        numbers = replay_index[:, replay_index.shape[1] - steps :].cpu().numpy()
        held = numbers >= self.oldest_step * self.num_envs
        places = numbers[held] % self.capacity
        for name, value in values.items():
            self._flat[EXTRA + name][places] = value.detach().cpu().numpy()[held]
        self._rewritten.reshape(-1)[places] = bool(values)

    # ------------------------------------------------------------------ saving

    @property
    def oldest_step(self) -> int:
        """The first step that is still held."""
        return max(0, self.steps_written - self.rows_per_env)

    def rewritten(self, before: int) -> Array:
        """Steps and streams `[K, 2]` of held rows before step `before` that `write_back` changed
        since `forget_rewritten`."""
        place, stream = np.nonzero(self._rewritten)
        oldest = self.oldest_step
        step = oldest + (place - oldest) % self.rows_per_env
        return np.stack([step, stream], axis=-1)[step < before]

    def forget_rewritten(self) -> None:
        """What was written back until now is saved."""
        self._rewritten[:] = False

    def extra_rows(self, index: Array) -> dict[str, Array]:
        """Copies of the extra columns `[K, ...]` of the steps and streams `[K, 2]`."""
        return {name: self._flat[EXTRA + name][self._places(index)] for name in self.extra_columns}

    def restore_extra_rows(self, index: Array, values: Mapping[str, Array]) -> None:
        """Put back what `extra_rows` gave, where the rows are still held.

        Raises:
            CheckpointError: when columns or shapes are not those of this buffer.
        """
        expected = {n: (len(index), *shape) for n, shape in self.extra_columns.items()}
        if {name: value.shape for name, value in values.items()} != expected or (
            index.size and not 0 <= index[:, 1].min() <= index[:, 1].max() < self.num_envs
        ):
            raise CheckpointError("saved extra columns are not those of this buffer")
        held = (index[:, 0] >= self.oldest_step) & (index[:, 0] < self.steps_written)
        for name, value in values.items():
            self._flat[EXTRA + name][self._places(index[held])] = value[held]

    def _places(self, index: Array) -> Array:
        """Places on the one axis of steps and streams."""
        return index[:, 0] % self.rows_per_env * self.num_envs + index[:, 1]

    def clear(self) -> None:
        """Hold nothing, and begin at step 0 again."""
        self.steps_written = 0
        self._since_first[:] = -1
        self._rewritten[:] = False

    def rows(self, start: int, stop: int, *names: str) -> dict[str, Array]:
        """Copies of the rows of steps start..stop of every stream, `[stop - start, N, ...]`; all
        columns, or those named.

        Raises:
            ConfigurationError: when those steps are not held.
        """
        if not self.oldest_step <= start <= stop <= self.steps_written:
            raise ConfigurationError(f"steps {start}..{stop} are not held any more")
        index = np.arange(start, stop) % self.rows_per_env
        return {name: self._columns[name][index] for name in names or self._columns}

    def restore_rows(self, start: int, rows: Mapping[str, Array]) -> None:
        """Put back rows that `rows` gave, in order; the next row is `start + len(rows)`.

        Raises:
            CheckpointError: when columns or shapes are not those of this buffer.
        """
        if rows.keys() != self._columns.keys():
            raise CheckpointError(f"the saved replay has columns {sorted(rows)}, not this buffer's")
        length = len(rows["reward"])
        for name, value in rows.items():
            expected = (length, *self._columns[name].shape[1:])
            if value.shape != expected or value.dtype != self._columns[name].dtype:
                raise CheckpointError(
                    f"saved replay column {name!r} is {value.dtype}{value.shape}, expected "
                    f"{self._columns[name].dtype}{expected}"
                )
        kept = min(length, self.rows_per_env)
        index = np.arange(start + length - kept, start + length) % self.rows_per_env
        for name, value in rows.items():
            self._columns[name][index] = value[length - kept :]
        self.steps_written = start + length
        if kept:
            self._since_first = self._columns[SINCE_FIRST][index[-1]].copy()

    def rng_state(self) -> dict[str, Any]:
        """State of the sampler, JSON-ready."""
        return dict(self._draw.rng.bit_generator.state)

    def set_rng_state(self, state: Mapping[str, Any]) -> None:
        """Put the sampler back where `rng_state` found it."""
        self._draw.rng.bit_generator.state = dict(state)

    def save(self, path: str | Path) -> None:
        """Write every row that is held as one npz file, aside first and then renamed."""
        write_replay(self, Path(path))

    load = Load()


def _plain(name: str) -> str:
    """A column's name as users know it."""
    return name.removeprefix(OBS).removeprefix(EXTRA) or "obs"
