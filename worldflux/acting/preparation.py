"""What worldflux does around an environment, done to observations that come from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
from gymnasium.vector.utils import batch_space, iterate

from worldflux.envs.wrappers import Preparation

from .adapter import Arrays, SpaceAdapter


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
