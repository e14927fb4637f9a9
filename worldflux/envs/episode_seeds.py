"""Every episode has its own seed, so that it can be played again.

Simulators cannot save their state in general. A deterministic one is restored by resetting it with
the episode's seed and repeating the actions (docs/reliability.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import Env

EPISODE = "worldflux/episode"
CONTINUES = "worldflux/continues"  # in the info of a step that ended an episode


@dataclass(frozen=True)
class EpisodePosition:
    """The position of one environment: its episode since the reset, and its actions `[n, A]`."""

    episode: int
    actions: np.ndarray


def episode_seed(seed: int, index: int, episode: int) -> int:
    """`seed + index` for the first episode of an environment, then 31 bits mixed of all three."""
    if episode == 0:
        return seed + index
    return int(np.random.SeedSequence([seed, index, episode]).generate_state(1)[0] >> 1)


class SeededEpisodes(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Gives each episode of environment `index` its seed.

    `reset(seed=seed + index)` begins episode 0; a reset without a seed begins the next one. The
    option `EPISODE`, a pair `(seed, episode)`, begins that episode. An environment whose info has
    `CONTINUES` at an end `continues` the same game at the next reset, which gets no seed: episodes
    are counted, and played again, by games.
    """

    def __init__(self, env: Env, index: int) -> None:
        super().__init__(env)
        self._index = index
        self._seed: int | None = None
        self._episode = 0
        self.continues = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        continued, self.continues = self.continues, False
        if options is not None and EPISODE in options:
            self._seed, self._episode = options[EPISODE]
            return self.env.reset(seed=episode_seed(self._seed, self._index, self._episode))
        if seed is not None:
            self._seed, self._episode = seed - self._index, 0
        elif self._seed is not None and not continued:
            self._episode += 1
            seed = episode_seed(self._seed, self._index, self._episode)
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        returned: Any = self.env.step(action)
        info = returned[-1] if isinstance(returned, tuple) and returned else None
        self.continues = isinstance(info, Mapping) and bool(info.get(CONTINUES))
        return returned
