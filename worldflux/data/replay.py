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
from worldflux.core.config.base import TASK
from worldflux.errors import CheckpointError, ConfigurationError, ShapeMismatchError

from .columns import EXTRA, OBS, SINCE_FIRST, Shapes, allocate, column_specs, row_bytes
from .episode_rows import episode_rows, image_bytes, one_hot_rows
from .replay_storage import Load, write_replay
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

    Attributes:
        columns: views of every column `[rows, num_envs, ...]`; step k is row `k % rows_per_env`.
        written_back: `[rows, num_envs]`, which rows `write_back` changed since this was reset.
        steps_written: steps of each stream since the start.

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
        self.columns, self._flat_rows = rows.columns(), rows.flat()
        self._flat = self._flat_rows.columns()
        self._row_bytes = row_bytes(specs)
        self.written_back = np.zeros((self.rows_per_env, num_envs if extra_columns else 0), bool)
        self.steps_written = 0
        self._since_first = np.full(num_envs, -1, np.int32)  # of the newest row
        self._draw = SequenceDraw(self._flat[SINCE_FIRST], num_envs, seed, half_life)
        self._obs_names = list(obs_shape) if isinstance(obs_shape, Mapping) else [""]
        self._sampled = [name for name in self._flat if name != SINCE_FIRST]

    # ------------------------------------------------------------------ size

    def __len__(self) -> int:
        """Rows held, over all environments."""
        return (self.steps_written - self.oldest_step) * self.num_envs

    @property
    def capacity(self) -> int:
        """Rows that fit."""
        return self.rows_per_env * self.num_envs

    @property
    def oldest_step(self) -> int:
        """The first step that is still held."""
        return max(0, self.steps_written - self.rows_per_env)

    @property
    def num_episodes(self) -> int:
        """Episodes whose end is held."""
        held = self.steps_written - self.oldest_step
        return int(self.columns["is_last"][:held].sum())

    @property
    def size_bytes(self) -> int:
        """Memory of a full buffer."""
        return self.capacity * self._row_bytes

    @property
    def rng(self) -> np.random.Generator:
        """The sampler's random stream."""
        return self._draw.rng

    # ------------------------------------------------------------------ writing

    def add(
        self,
        obs: np.ndarray | Mapping[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray,
        is_first: np.ndarray,
        is_last: np.ndarray,
        is_terminal: np.ndarray,
        extras: Mapping[str, np.ndarray] | None = None,
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
            row[OBS + name] = np.asarray(value)
        for name, value in (extras or {}).items():
            row[EXTRA + name] = np.asarray(value)
        since = self._since_first + 1
        if row["is_first"].shape == since.shape:
            since[row["is_first"].astype(bool)] = 0
        row[SINCE_FIRST] = since
        row = self._checked(row, {name: c.shape[1:] for name, c in self.columns.items()})
        index = self.steps_written % self.rows_per_env
        for name, value in row.items():
            self.columns[name][index] = value
        self.written_back[index] = False
        self._since_first = since
        self.steps_written += 1

    def add_episode(
        self,
        obs: np.ndarray | Mapping[str, np.ndarray],
        actions: np.ndarray,
        rewards: np.ndarray,
        dones: np.ndarray | None = None,
        *,
        truncations: np.ndarray | None = None,
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
        count = len(rows["reward"])
        if count > self.rows_per_env:
            raise ConfigurationError(f"an episode of {count} rows does not fit {self.rows_per_env}")
        rows[SINCE_FIRST] = np.arange(count, dtype=np.int32)
        for name, shape in self.extra_columns.items():
            rows[EXTRA + name] = np.zeros((count, *shape), np.float32)
        rows = self._checked(rows, {n: (count, *c.shape[1:]) for n, c in self._flat.items()})
        index = np.arange(self.steps_written, self.steps_written + count) % self.rows_per_env
        for name, column in rows.items():
            self._flat[name][index] = column
        self.written_back[index] = False
        self._since_first[:] = count - 1
        self.steps_written += count

    def _checked(
        self, given: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, np.ndarray]:
        """Every column, if they are all there and of their shapes; images as bytes."""
        checked = {}
        for name, value in given.items():
            is_image = name in shapes and self._flat[name].dtype == np.uint8
            checked[name] = image_bytes(_plain(name), value) if is_image else value
        if given.keys() != shapes.keys():
            missing, foreign = shapes.keys() - given.keys(), given.keys() - shapes.keys()
            problems = [f"is missing {_plain(name)!r}" for name in sorted(missing)]
            problems += [f"has no column {_plain(name)!r}" for name in sorted(foreign)]
            raise ShapeMismatchError(f"the replay {' and '.join(problems)}")
        for name, value in checked.items():
            if value.shape != shapes[name]:
                raise ShapeMismatchError(
                    f"replay column {_plain(name)!r} got shape {value.shape}, expected "
                    f"{shapes[name]}"
                )
        return checked

    def write_back(self, replay_index: torch.Tensor, values: Mapping[str, torch.Tensor]) -> None:
        """Replace extra columns of the rows still held.

        `replay_index` `[B, T]` as `sample` gave it, values `[B, T', ...]` of the last T' steps
        (a family that only warms up on the first ones has nothing new for them).
        """
        steps = max((value.shape[1] for value in values.values()), default=0)
        numbers = replay_index[:, replay_index.shape[1] - steps :].cpu().numpy()
        held = numbers >= self.oldest_step * self.num_envs
        places = numbers[held] % self.capacity
        for name, value in values.items():
            self._flat[EXTRA + name][places] = value.detach().cpu().numpy()[held]
        self.written_back.reshape(-1)[places] = bool(values)

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

    def keep_by_task(self, shares: np.ndarray) -> None:
        """Draw sequences of the task t with `shares[t]` of their probability; the replay has the
        one-hot observation "task"."""
        tasks = self._flat[OBS + TASK]

        def keep(rows: np.ndarray) -> np.ndarray:
            kept: np.ndarray = shares[tasks[rows % self.capacity].argmax(1)]
            return kept

        self._draw.keep = None if (shares == 1).all() else keep

    # ------------------------------------------------------------------ saving

    def clear(self) -> None:
        """Hold nothing, and begin at step 0 again."""
        self.steps_written = 0
        self._since_first[:] = -1
        self.written_back[:] = False

    def rows(self, start: int, stop: int, *names: str) -> dict[str, np.ndarray]:
        """Copies of the rows of steps start..stop of every stream, `[stop - start, N, ...]`; all
        columns, or those named.

        Raises:
            ConfigurationError: when those steps are not held.
        """
        if not self.oldest_step <= start <= stop <= self.steps_written:
            raise ConfigurationError(f"steps {start}..{stop} are not held any more")
        index = np.arange(start, stop) % self.rows_per_env
        return {name: self.columns[name][index] for name in names or self.columns}

    def restore_rows(self, start: int, rows: Mapping[str, np.ndarray]) -> None:
        """Put back what `rows` returned, in order; the next row is `start + len(rows)`.

        Raises:
            CheckpointError: when columns or shapes are not those of this buffer.
        """
        if rows.keys() != self.columns.keys():
            raise CheckpointError(f"the saved replay has columns {sorted(rows)}, not this buffer's")
        length = len(rows["reward"])
        for name, value in rows.items():
            expected = (length, *self.columns[name].shape[1:])
            if value.shape != expected or value.dtype != self.columns[name].dtype:
                raise CheckpointError(
                    f"saved replay column {name!r} is {value.dtype}{value.shape}, expected "
                    f"{self.columns[name].dtype}{expected}"
                )
        kept = min(length, self.rows_per_env)
        index = np.arange(start + length - kept, start + length) % self.rows_per_env
        for name, value in rows.items():
            self.columns[name][index] = value[length - kept :]
        self.steps_written = start + length
        if kept:
            self._since_first = self.columns[SINCE_FIRST][index[-1]].copy()

    def save(self, path: str | Path) -> None:
        """Write every row that is held as one npz file, aside first and then renamed."""
        write_replay(self, Path(path))

    load: Any = Load()


def _plain(name: str) -> str:
    """A column's name as users know it."""
    return name.removeprefix(OBS).removeprefix(EXTRA) or "obs"
