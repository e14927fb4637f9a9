"""`ReplayBuffer`: a numpy ring of steps, one stream an environment, sampled as sequences.

Row t of a stream holds (o_t, a_t, r_t, flags_t): the observation, the action taken after seeing
it, and the reward and flags that came with it. A sampled sequence never crosses a write cursor.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldflux.core.batch import Batch
from worldflux.errors import CheckpointError, ConfigurationError, ShapeMismatchError

from .episode_rows import episode_rows

Array = NDArray[Any]
Shapes = tuple[int, ...] | Mapping[str, tuple[int, ...]]
ColumnSpec = tuple[tuple[int, ...], np.dtype[Any]]

FLAGS = ("is_first", "is_last", "is_terminal")
_OBS = "obs/"
_REJECTION_ROUNDS = 8


class ReplayBuffer:
    """Steps of one or more environments, oldest overwritten first.

    Args:
        capacity: rows kept, over all environments.
        obs_shape: shape of one observation, or a dict of shapes for named observations. Images
            (rank 3) are stored as uint8, everything else as float32.
        action_dim: size of an action.
        num_envs: parallel streams; `add` takes one row for each.
        extra_columns: further float columns a step, name -> shape (a family's latents).
        seed: seed of the sampler.
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
    ) -> None:
        if capacity < num_envs * 2 or num_envs < 1:
            raise ConfigurationError(
                f"a replay of capacity {capacity} cannot hold two steps of {num_envs} environments"
            )
        self.num_envs = num_envs
        self.rows_per_env = capacity // num_envs
        self.named_obs = isinstance(obs_shape, Mapping)
        shapes = dict(obs_shape) if isinstance(obs_shape, Mapping) else {"": tuple(obs_shape)}
        self.obs_shape = obs_shape
        self.action_dim = action_dim
        self.extra_columns = dict(extra_columns or {})
        self._columns: dict[str, Array] = {}
        for name, (shape, dtype) in self._column_specs(shapes).items():
            self._columns[name] = np.zeros((self.rows_per_env, num_envs, *shape), dtype)
        self.steps_written = 0  # rows a stream since the start: row k stands at k % rows_per_env
        self._rng = np.random.default_rng(seed)

    def _column_specs(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, ColumnSpec]:
        flag, real = np.dtype(np.bool_), np.dtype(np.float32)
        specs: dict[str, ColumnSpec] = {}
        for name, shape in shapes.items():
            specs[_OBS + name] = (tuple(shape), np.dtype(np.uint8) if len(shape) == 3 else real)
        specs["action"] = ((self.action_dim,), real)
        specs["reward"] = ((), real)
        specs.update(dict.fromkeys(FLAGS, ((), flag)))
        specs["since_first"] = ((), np.dtype(np.int64))  # rows since the stream's is_first
        specs.update({f"extra/{k}": (tuple(v), real) for k, v in self.extra_columns.items()})
        return specs

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
        return sum(column.nbytes for column in self._columns.values())

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

        Raises:
            ShapeMismatchError: naming the column, the shape expected and the one given; nothing is
                written then.
        """
        observations = obs if isinstance(obs, Mapping) else {"": obs}
        row: dict[str, Array] = {_OBS + name: np.asarray(v) for name, v in observations.items()}
        row.update({"action": np.asarray(action), "reward": np.asarray(reward)})
        row.update(dict(zip(FLAGS, map(np.asarray, (is_first, is_last, is_terminal)), strict=True)))
        row.update({f"extra/{name}": np.asarray(v) for name, v in (extras or {}).items()})
        row["since_first"] = self._next_since_first(row["is_first"])
        self._check_row(row)
        index = self.steps_written % self.rows_per_env
        for name, value in row.items():
            self._columns[name][index] = value
        self.steps_written += 1

    def add_episode(
        self,
        obs: Array,
        actions: Array,
        rewards: Array,
        dones: Array,
        *,
        truncations: Array | None = None,
    ) -> None:
        """Append one episode in the order that users have it.

        `actions[t]`, taken at `obs[t]`, gave `rewards[t]` and `dones[t]`. `obs` has T + 1 rows, or
        T where the last one was not kept: the last reward then has no row and is left out, with a
        warning. Without `truncations`, `dones` counts as termination.

        Raises:
            ShapeMismatchError: when lengths disagree; nothing is written then.
        """
        if self.num_envs != 1 or self.named_obs:
            raise ConfigurationError("add_episode needs a buffer with one stream of plain arrays")
        rows = episode_rows(obs, actions, rewards, dones, truncations)
        if len(rows["reward"]) > self.rows_per_env:
            raise ConfigurationError(
                f"an episode of {len(rows['reward'])} rows does not fit {self.rows_per_env}"
            )
        self._check_row({_OBS: rows["obs"][:1], "action": rows["action"][:1]})
        for t in range(len(rows["reward"])):
            row = {name: column[t : t + 1] for name, column in rows.items()}
            self.add(
                row["obs"],
                row["action"],
                row["reward"],
                row["is_first"],
                row["is_last"],
                row["is_terminal"],
            )

    def _next_since_first(self, is_first: Array) -> Array:
        if self.steps_written == 0:
            return np.zeros(self.num_envs, np.int64)
        previous = self._columns["since_first"][(self.steps_written - 1) % self.rows_per_env]
        return np.where(is_first.astype(bool), 0, previous + 1)

    def _check_row(self, row: Mapping[str, Array]) -> None:
        for name, value in row.items():
            if name not in self._columns:
                raise ShapeMismatchError(f"the replay has no column {name.removeprefix(_OBS)!r}")
            expected = (self.num_envs, *self._columns[name].shape[2:])
            if value.shape != expected:
                raise ShapeMismatchError(
                    f"replay column {name.rstrip('/')!r} got shape {value.shape}, expected "
                    f"{expected}"
                )

    # ------------------------------------------------------------------ sampling

    def can_sample(self, seq_len: int, *, within_episode: bool = True) -> bool:
        """Whether at least one sequence of `seq_len` rows is held."""
        return len(self._valid_ends(seq_len, within_episode)[0]) > 0

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
        `is_first` says so. `extras` holds the extra columns and `replay_index` [B, T, 2] (step
        since the start, stream), which `write_back` takes.

        Raises:
            ConfigurationError: when no sequence of that length is held.
        """
        ends, streams = self._draw_ends(batch_size, seq_len, within_episode)
        steps = ends[:, None] + np.arange(1 - seq_len, 1)
        return self._gather(steps, streams, torch.device(device))

    def _draw_ends(self, count: int, seq_len: int, within: bool) -> tuple[Array, Array]:
        """Steps and streams of the last rows: by rejection, or from the list of all valid ones."""
        oldest = max(0, self.steps_written - self.rows_per_env)
        lowest = oldest + seq_len - 1
        ends = np.empty(0, np.int64)
        streams = np.empty(0, np.int64)
        if self.steps_written > lowest:
            for _ in range(_REJECTION_ROUNDS):
                step = self._rng.integers(lowest, self.steps_written, count)
                stream = self._rng.integers(0, self.num_envs, count)
                if within:
                    since = self._columns["since_first"][step % self.rows_per_env, stream]
                    step, stream = step[since >= seq_len - 1], stream[since >= seq_len - 1]
                ends, streams = np.concatenate([ends, step]), np.concatenate([streams, stream])
                if len(ends) >= count:
                    return ends[:count], streams[:count]
        valid_ends, valid_streams = self._valid_ends(seq_len, within)
        if len(valid_ends) == 0:
            raise ConfigurationError(
                f"the replay holds no sequence of {seq_len} steps yet ({len(self)} rows, "
                f"{self.num_episodes} whole episodes)"
            )
        chosen = self._rng.integers(0, len(valid_ends), count - len(ends))
        ends = np.concatenate([ends, valid_ends[chosen]])
        return ends, np.concatenate([streams, valid_streams[chosen]])

    def _valid_ends(self, seq_len: int, within: bool) -> tuple[Array, Array]:
        oldest = max(0, self.steps_written - self.rows_per_env)
        steps = np.arange(oldest + seq_len - 1, self.steps_written)
        if not within:
            grid = np.repeat(steps, self.num_envs)
            return grid, np.tile(np.arange(self.num_envs), len(steps))
        since = self._columns["since_first"][steps % self.rows_per_env]
        row, stream = np.nonzero(since >= seq_len - 1)
        return steps[row], stream

    def _gather(self, steps: Array, streams: Array, device: torch.device) -> Batch:
        rows, columns = steps % self.rows_per_env, streams[:, None]

        def take(name: str) -> torch.Tensor:
            return torch.from_numpy(self._columns[name][rows, columns]).to(device)

        obs = {
            name.removeprefix(_OBS): take(name) for name in self._columns if name.startswith(_OBS)
        }
        extras = {name: take(f"extra/{name}") for name in self.extra_columns}
        index = np.stack([steps, np.broadcast_to(columns, steps.shape)], axis=-1)
        extras["replay_index"] = torch.from_numpy(index)
        is_first, is_last = take("is_first"), take("is_last")
        is_last[:, :-1] |= is_first[:, 1:]  # an abandoned episode ends where the next one starts
        return Batch(
            obs=obs if self.named_obs else obs[""],
            actions=take("action"),
            rewards=take("reward"),
            terminations=take("is_terminal"),
            is_first=is_first,
            is_last=is_last,
            extras=extras,
        )

    def write_back(self, replay_index: torch.Tensor, values: Mapping[str, torch.Tensor]) -> None:
        """Replace extra columns of the rows still held.

        `replay_index` `[B, T, 2]` as `sample` gave it, values `[B, T', ...]` of the last T' steps
        (a family that only warms up on the first ones has nothing new to say of them).
        """
        steps = max((value.shape[1] for value in values.values()), default=0)
        index = replay_index[:, replay_index.shape[1] - steps :].cpu().numpy()
        held = index[..., 0] >= self.steps_written - self.rows_per_env
        rows, streams = index[..., 0][held] % self.rows_per_env, index[..., 1][held]
        for name, value in values.items():
            self._columns[f"extra/{name}"][rows, streams] = value.detach().cpu().numpy()[held]

    # ------------------------------------------------------------------ saving

    def rows(self, start: int, stop: int) -> dict[str, Array]:
        """Copies of the rows of steps start..stop of every stream, `[stop - start, N, ...]`."""
        oldest = max(0, self.steps_written - self.rows_per_env)
        if not oldest <= start <= stop <= self.steps_written:
            raise ConfigurationError(f"steps {start}..{stop} are not held any more")
        index = np.arange(start, stop) % self.rows_per_env
        return {name: column[index] for name, column in self._columns.items()}

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

    def rng_state(self) -> dict[str, Any]:
        """State of the sampler, JSON-ready."""
        return dict(self._rng.bit_generator.state)

    def set_rng_state(self, state: Mapping[str, Any]) -> None:
        """Put the sampler back where `rng_state` found it."""
        self._rng.bit_generator.state = dict(state)

    def save(self, path: str | Path) -> None:
        """Write every row that is held as one npz file, aside first and then renamed."""
        target = Path(path)
        oldest = max(0, self.steps_written - self.rows_per_env)
        arrays = self.rows(oldest, self.steps_written)
        arrays["steps_written"] = np.asarray(self.steps_written)
        partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        with partial.open("wb") as file:
            named: dict[str, Any] = {name.replace("/", "|"): v for name, v in arrays.items()}
            np.savez_compressed(file, **named)
        os.replace(partial, target)

    def load(self, path: str | Path) -> None:
        """Read rows that `save` wrote into this buffer (no pickle).

        Raises:
            CheckpointError: when the file is missing, damaged, or of another layout.
        """
        try:
            with np.load(Path(path), allow_pickle=False) as file:
                arrays = {name.replace("|", "/"): file[name] for name in file.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"not a saved replay: {error}", where=str(path)) from None
        written = int(arrays.pop("steps_written", np.asarray(0)))
        if "reward" not in arrays or written < len(arrays["reward"]):
            raise CheckpointError("not a saved replay", where=str(path))
        self.restore_rows(written - len(arrays["reward"]), arrays)
