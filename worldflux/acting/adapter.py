"""Between an environment's own values and the arrays of a model; what worldflux does around an
environment, done to observations that come from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, iterate

from worldflux.core.config.base import TASK
from worldflux.core.world_model import WorldModel
from worldflux.envs.actions import action_rows, environment_actions
from worldflux.envs.faults import Failure
from worldflux.envs.observations import ObservationReader
from worldflux.envs.spaces import ImageSpace
from worldflux.envs.spec import spec_of
from worldflux.envs.wrappers import Preparation
from worldflux.errors import EnvironmentFault, EnvironmentSetupError

Arrays = np.ndarray | dict[str, np.ndarray]
"""What a model observes, `[N, ...]`; by name where the environment names its observations."""


class SpaceAdapter:
    """Encodes observations of an environment's space, and decodes a model's action rows into its
    actions, exactly as the environments of training do.

    Args:
        name: what errors call the environment.
        check_bounds: whether an observation outside of its declared bounds is refused.

    Raises:
        EnvironmentSetupError: when worldflux does not support a space.
    """

    def __init__(
        self,
        name: str,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        *,
        check_bounds: bool = True,
    ) -> None:
        self.name = name
        self.observation_space, self.action_space = observation_space, action_space
        self.spec = spec_of(name, observation_space, action_space, None)
        self._reader = ObservationReader(name, observation_space, check_bounds=check_bounds)

    def require_model(self, model: WorldModel) -> None:
        """Raise EnvironmentSetupError where a model has other observations or actions."""
        shapes = self.spec.modalities or {"": self.spec.obs_shape}
        expected = {name: modality.shape for name, modality in model.modalities.items()}
        if self.spec.modalities is None and len(expected) == 1:
            shapes = {next(iter(expected)): self.spec.obs_shape}
        if shapes.keys() - expected.keys() == {TASK}:  # a model with task embeddings takes it apart
            shapes = {name: shape for name, shape in shapes.items() if name != TASK}
        ours = (shapes, self.spec.action_type, self.spec.action_dim)
        learned = (expected, model.config.action_type, model.config.action_dim)
        for what, here, there in zip(
            ("observations", "action type", "action size"), ours, learned, strict=True
        ):
            if here != there:
                raise EnvironmentSetupError(
                    f"{self.name} has {what} {here}, and the agent learned with {there}",
                    hint="give the environment that it learned in, or one with equal spaces",
                )

    def encode(self, *observations: Any) -> Arrays:
        """N single observations as the model's input `[N, ...]`.

        Raises:
            EnvironmentFault: for a value that is not of the space.
        """
        with self._as_fault():
            rows = [self._reader.read_one(observation) for observation in observations]
        return self._by_name({n: np.concatenate([row[n] for row in rows]) for n in rows[0]})

    def encode_batch(self, observations: Any, count: int) -> Arrays:
        """The same of `count` observations as a vector environment gives them."""
        with self._as_fault():
            return self._by_name(self._reader.read(observations, count))

    def actions(self, rows: np.ndarray) -> np.ndarray:
        """The environment's own actions `[N, ...]` of the model's action rows `[N, A]`."""
        return environment_actions(self.action_space, rows)

    def rows(self, actions: Any) -> np.ndarray:
        """The model's action rows `[T, A]` of the environment's own actions `[T, ...]`.

        Raises:
            EnvironmentFault: for the first action that is not of the space.
        """
        with self._as_fault():
            return action_rows(self.action_space, np.asarray(actions))

    def _by_name(self, encoded: dict[str, np.ndarray]) -> Arrays:
        return encoded if self.spec.modalities is not None else encoded[""]

    @contextmanager
    def _as_fault(self) -> Iterator[None]:
        try:
            yield
        except Failure as failure:
            message = f"{self.name}: row {failure.row}: {failure.key} {failure.problem}"
            fault = EnvironmentFault(message, where=failure.where, hint=failure.hint)
            fault.env_id, fault.index, fault.key = self.name, failure.row, failure.key
            raise fault from None


def model_spaces(model: WorldModel) -> tuple[spaces.Space, spaces.Space]:
    """The observations and actions of a model that no environment comes with.

    Images are bytes `[C, H, W]`, everything else float32; numbers of actions are in [-1, 1].
    """
    named: dict[str, spaces.Space] = {
        name: ImageSpace(modality.shape, 0)
        if modality.kind == "image"
        else spaces.Box(-np.inf, np.inf, modality.shape, np.float32)
        for name, modality in model.modalities.items()
    }
    observation = spaces.Dict(named) if len(named) > 1 else next(iter(named.values()))
    size, parts = model.config.action_dim, model.config.action_spec.get("parts") or {}
    if model.config.action_type == "continuous":
        return observation, spaces.Box(-1.0, 1.0, (size,), np.float32)
    widths = [part["dim"] for part in parts.values()]
    return observation, spaces.MultiDiscrete(widths) if widths else spaces.Discrete(size)


class _Given(gymnasium.Env[Any, Any]):
    """An environment that observes, and draws, what it was given last."""

    render_mode = "rgb_array"

    def __init__(self, raw: SpaceAdapter) -> None:
        self.observation_space, self.action_space = raw.observation_space, raw.action_space
        self.observed: Any = None

    def reset(self, **how: Any) -> tuple[Any, dict[str, Any]]:
        return self.observed, {}

    def step(self, action: Any) -> Any:
        return self.observed, 0.0, False, False, {}

    def render(self) -> Any:
        return self.observed


class Preparations:
    """Resizes and stacks the observations of N environments as those of a run are.

    Where the run observes what its environment draws, they are frames `[H, W, 3]` of any size.

    Args:
        raw: of the environment that the observations come from.

    Attributes:
        adapter: of the prepared observations.
        observation_space: of those that are given.
    """

    def __init__(self, prepared: Preparation, raw: SpaceAdapter) -> None:
        self._prepared, self._raw = prepared, raw
        self._envs: list[tuple[_Given, gymnasium.Env]] = []
        space = self._made()[1].observation_space
        self.adapter = SpaceAdapter(raw.name, space, raw.action_space)
        self.observation_space = space if prepared.pixels else raw.observation_space

    def split(self, observations: Any, count: int) -> list[Any]:
        """The single observations of a batch, as a vector environment gives it."""
        if self._prepared.pixels:
            return list(observations)
        return list(iterate(batch_space(self._raw.observation_space, count), observations))

    def encode(self, rows: Sequence[Any], is_first: Sequence[bool]) -> Arrays:
        """One observation of each environment as the model's input `[N, ...]`; one that begins an
        episode is stacked with itself.

        Raises:
            EnvironmentFault: for a value that is not of the space; the frames before stay.
        """
        if not self._prepared.pixels:
            self._raw.encode(*rows)
        if len(self._envs) != len(rows):
            self._envs = [self._made() for _ in rows]
        prepared = []
        for (given, env), row, first in zip(self._envs, rows, is_first, strict=True):
            given.observed = row
            prepared.append(env.reset()[0] if first else env.step(None)[0])
        return self.adapter.encode(*prepared)

    def _made(self) -> tuple[_Given, gymnasium.Env]:
        given = _Given(self._raw)
        return given, self._prepared.stack(self._prepared.apply(given))
