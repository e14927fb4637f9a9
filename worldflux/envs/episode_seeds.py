"""Every episode has a seed of its own, so that it can be played again up to where it stood.

No simulator saves its state in general. A deterministic one is put back by resetting it with the
episode's seed and repeating the actions (RELIABILITY B6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import Env
from numpy.typing import NDArray

EPISODE = "worldflux/episode"


@dataclass(frozen=True)
class EpisodePosition:
    """Where one environment stands: its episode since the reset, and the actions `[n, A]` in it."""

    episode: int
    actions: NDArray[Any]


def episode_seed(seed: int, index: int, episode: int) -> int:
    """Seed of episode `episode` of environment `index`: `seed + index` for the first one.

    Later ones are 31 bits mixed from all three numbers.
    """
    if episode == 0:
        return seed + index
    return int(np.random.SeedSequence([seed, index, episode]).generate_state(1)[0] >> 1)


class SeededEpisodes(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Gives each episode of environment `index` its seed.

    `reset(seed=seed + index)` begins episode 0; a reset without a seed begins the next one. The
    option `EPISODE`, a pair `(seed, episode)`, begins that episode.
    """

    def __init__(self, env: Env, index: int) -> None:
        super().__init__(env)
        self._index = index
        self._seed: int | None = None
        self._episode = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin the episode that is next, or the one asked for (see the class)."""
        if options is not None and EPISODE in options:
            self._seed, self._episode = options[EPISODE]
            return self.env.reset(seed=episode_seed(self._seed, self._index, self._episode))
        if seed is not None:
            self._seed, self._episode = seed - self._index, 0
        elif self._seed is not None:
            self._episode += 1
            seed = episode_seed(self._seed, self._index, self._episode)
        return self.env.reset(seed=seed, options=options)
