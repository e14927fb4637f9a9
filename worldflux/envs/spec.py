"""The contract of an environment: what it shows, what it takes, how long it lasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from worldflux.core.config import ACTION_MASK
from worldflux.core.config.base import TASK

from .action_mask import allowed_one_hot, mask_widths
from .actions import action_layout
from .observations import ObservationReader


@dataclass(frozen=True)
class EnvironmentSpec:
    """The contract of one environment.

    Images have shape (C, H, W) and dtype uint8, vectors float32; discrete observations are one-hot
    vectors. Continuous actions are in [-1, 1] and are rescaled to the environment's own bounds;
    discrete ones are one-hot rows, several at once are concatenated.

    Attributes:
        obs_shape: of the one observation; of the first image (or the first) of several.
        time_limit: in agent steps, None where the environment has none.
        modalities: name -> shape where the environment names its observations, else None.
        action_parts: widths of the one-hot parts of a MultiDiscrete action, else empty.
        render_fps: agent steps in a second of its videos, None where it does not say.
        mask_parts: widths of the one-hot parts that the observation "action_mask" covers, else
            empty.
        tasks: names of the tasks that the environments play in turn, empty for one.
        task_actions: numbers of an action of each task that the model knows.
    """

    env_id: str
    obs_shape: tuple[int, ...]
    action_dim: int
    action_type: Literal["continuous", "discrete"]
    time_limit: int | None
    modalities: dict[str, tuple[int, ...]] | None = None
    action_parts: tuple[int, ...] = ()
    render_fps: float | None = None
    mask_parts: tuple[int, ...] = ()
    tasks: tuple[str, ...] = ()
    task_actions: tuple[int, ...] = ()

    @property
    def replay_shapes(self) -> tuple[int, ...] | Mapping[str, tuple[int, ...]]:
        """What a ReplayBuffer takes as `obs_shape`."""
        return self.obs_shape if self.modalities is None else self.modalities

    def model_fields(self) -> dict[str, Any]:
        """The fields of a model's configuration that this environment decides."""
        fields: dict[str, Any] = {
            "obs_shape": self.obs_shape,
            "action_dim": self.action_dim,
            "action_type": self.action_type,
        }
        if self.modalities is not None:
            fields["observation_modalities"] = {
                name: {"kind": "image" if len(shape) == 3 else "vector", "shape": list(shape)}
                for name, shape in self.modalities.items()
            }
        if self.action_parts:
            parts = {
                f"action_{i:03d}": {"kind": "discrete", "dim": width}
                for i, width in enumerate(self.action_parts)
            }
            fields["action_spec"] = {"kind": "discrete", "dim": self.action_dim, "parts": parts}
        return fields

    def random_actions(
        self,
        rng: np.random.Generator,
        count: int,
        obs: np.ndarray | Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Uniformly random actions `[count, A]`; those that the masks of `obs` `[count, ...]`
        allow."""
        if self.mask_parts and isinstance(obs, Mapping):
            edges = np.cumsum(self.mask_parts)[:-1]
            parts = np.split(obs[ACTION_MASK], edges, axis=1)
            return np.concatenate([allowed_one_hot(rng, part) for part in parts], axis=1)
        if self.action_type == "continuous":
            drawn = rng.uniform(-1.0, 1.0, (count, self.action_dim)).astype(np.float32)
            if self.task_actions and isinstance(obs, Mapping):
                sizes = np.array(self.task_actions)[obs[TASK].argmax(1)]
                drawn *= np.arange(self.action_dim) < sizes[:, None]
            return drawn
        rows = [
            np.eye(width, dtype=np.float32)[rng.integers(0, width, count)]
            for width in self.action_parts or (self.action_dim,)
        ]
        return np.concatenate(rows, axis=1)


def spec_of(
    env_id: str,
    observation_space: spaces.Space,
    action_space: spaces.Space,
    time_limit: int | None,
    render_fps: float | None = None,
) -> EnvironmentSpec:
    """The contract of an environment with these spaces, or EnvironmentSetupError."""
    shapes = ObservationReader(env_id, observation_space).shapes
    actions = action_layout(env_id, action_space)
    several = isinstance(action_space, (spaces.MultiDiscrete, spaces.MultiBinary))
    named = isinstance(observation_space, (spaces.Dict, spaces.Tuple))
    leading = next((s for s in shapes.values() if len(s) == 3), next(iter(shapes.values())))
    return EnvironmentSpec(
        env_id=env_id,
        obs_shape=leading,
        action_dim=sum(actions.widths),
        action_type="discrete" if actions.discrete else "continuous",
        time_limit=time_limit,
        modalities=dict(shapes) if named else None,
        action_parts=actions.widths if several else (),
        render_fps=render_fps,
        mask_parts=mask_widths(env_id, shapes if named else {}, actions),
    )
