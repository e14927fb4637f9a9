"""Several tasks behind one contract: observations and actions padded, and which task it is.

Vectors are padded with zeros to the longest, actions to the most numbers; what is beyond a task's
own is not used (Hansen et al. 2024, section 3.3). The task is one more observation, one-hot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from worldflux.core.config.base import OBSERVATION, TASK
from worldflux.errors import EnvironmentSetupError

from .actions import action_layout, environment_actions
from .faults import values_of
from .observations import ObservationReader
from .spaces import ImageSpace
from .spec import EnvironmentSpec


@dataclass(frozen=True)
class Padding:
    """What every one of `count` tasks is padded to; `discrete` actions are all the same."""

    count: int
    obs_shape: tuple[int, ...]
    action_dim: int
    discrete: bool

    def spaces(self) -> tuple[spaces.Dict, spaces.Space]:
        """Observations (by the names "obs" and "task") and actions."""
        is_image = len(self.obs_shape) == 3
        seen = spaces.Box(-np.inf, np.inf, self.obs_shape, np.float32)
        obs = ImageSpace(self.obs_shape, 0) if is_image else seen
        action = spaces.Box(-1.0, 1.0, (self.action_dim,), np.float32)
        observed = spaces.Dict({OBSERVATION: obs, TASK: spaces.Discrete(self.count)})
        return observed, spaces.Discrete(self.action_dim) if self.discrete else action

    def obs(self, rows: np.ndarray) -> np.ndarray:
        """Rows `[N, ...]` of one task's observation, padded."""
        if rows.shape[1:] == self.obs_shape:
            return rows
        return np.pad(rows, ((0, 0), (0, self.obs_shape[0] - rows.shape[1])))

    def actions(self, rows: np.ndarray) -> np.ndarray:
        """Rows `[N, A]` of one task's actions, padded."""
        return np.pad(rows, ((0, 0), (0, self.action_dim - rows.shape[1])))


def padding_of(names: Sequence[str], specs: Sequence[EnvironmentSpec]) -> Padding:
    """What tasks of these contracts are padded to; EnvironmentSetupError where they differ more."""
    first = specs[0]
    for name, spec in zip(names, specs, strict=True):
        problem = None
        if spec.modalities is not None or spec.action_parts:
            problem = "names its observations or takes several actions; a task has one of each"
        elif spec.action_type != first.action_type:
            problem = f"takes {spec.action_type} actions, and {names[0]} {first.action_type} ones"
        elif spec.action_type == "discrete" and spec.action_dim != first.action_dim:
            problem = f"takes {spec.action_dim} discrete actions, and {names[0]} {first.action_dim}"
        elif len(spec.obs_shape) != 1 and spec.obs_shape != first.obs_shape:
            problem = f"observes images {spec.obs_shape}, and {names[0]} {first.obs_shape}"
        elif len(spec.obs_shape) != len(first.obs_shape):
            problem = f"observes {spec.obs_shape}, and {names[0]} {first.obs_shape}"
        if problem is not None:
            raise EnvironmentSetupError(f"task {name} {problem}")
    longest = max(specs, key=lambda spec: spec.obs_shape).obs_shape
    widest = max(spec.action_dim for spec in specs)
    return Padding(len(specs), longest, widest, first.action_type == "discrete")


class PaddedTask(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Task number `index`, whose episodes are cut after `limit` steps."""

    def __init__(
        self,
        env: gymnasium.Env,
        padding: Padding,
        index: int,
        limit: int | None = None,
        check_bounds: bool = True,
    ) -> None:
        super().__init__(env)
        self._own = env.action_space
        self._reader = ObservationReader("task", env.observation_space, check_bounds=check_bounds)
        self._size = sum(action_layout("task", env.action_space).widths)
        self._padding, self._index, self._limit, self._taken = padding, index, limit, 0
        self.observation_space, self.action_space = padding.spaces()

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self._taken = 0
        obs, info = values_of("reset", self.env.reset(**kwargs), 2)
        return self._observed(obs), info

    def step(self, action: Any) -> Any:
        discrete = self._padding.discrete
        row = np.arange(self._size) == action if discrete else np.asarray(action)
        action = environment_actions(self._own, row[None, : self._size])[0]
        obs, reward, terminated, truncated, info = values_of("step", self.env.step(action), 5)
        self._taken += 1
        truncated = bool(truncated) or self._taken == self._limit
        return self._observed(obs), reward, terminated, truncated, info

    def _observed(self, obs: Any) -> dict[str, Any]:
        rows = self._reader.read_one(obs)[""]
        return {OBSERVATION: self._padding.obs(rows)[0], TASK: self._index}
