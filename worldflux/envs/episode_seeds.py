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

Array = NDArray[Any]

REPLAY = "worldflux/replay"


@dataclass(frozen=True)
class EpisodePosition:
    """Where one environment stands: its episode since the reset, and the actions `[n, A]` in it."""

    episode: int
    actions: Array


def episode_seed(seed: int, index: int, episode: int) -> int:
    """Seed of episode `episode` of environment `index`: `seed + index` for the first one.

    Later ones are 31 bits mixed from all three numbers.
    """
    if episode == 0:
        return seed + index
    return int(np.random.SeedSequence([seed, index, episode]).generate_state(1)[0] >> 1)


class SeededEpisodes(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Gives each episode of environment `index` its seed, and plays one again on request.

    `reset(seed=seed + index)` begins episode 0; a reset without a seed begins the next one. The
    option `REPLAY`, a pair of the seed and one `(episode, actions)` for each environment, plays
    that episode up to that action. The info then says `reward`, `terminated`, `truncated` of the
    last step, and whether the episode was `complete`: that it did not end before.
    """

    def __init__(self, env: Env, index: int) -> None:
        super().__init__(env)
        self._index = index
        self._seed: int | None = None
        self._episode = 0
        self._begin_next = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin the episode that is next, or play one again (see the class)."""
        self._begin_next = False
        if options is not None and REPLAY in options:
            run_seed, positions = options[REPLAY]
            return self._replay(run_seed, *positions[self._index])
        if seed is not None:
            self._seed, self._episode = seed - self._index, 0
        elif self._seed is not None:
            self._episode += 1
            seed = episode_seed(self._seed, self._index, self._episode)
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step; after a replay that went to an episode's end, the next one begins instead."""
        if self._begin_next:
            obs, info = self.reset()
            return obs, 0.0, False, False, info
        return self.env.step(action)

    def _replay(self, seed: int, episode: int, actions: Array) -> tuple[Any, dict[str, Any]]:
        self._seed, self._episode = seed, episode
        obs, _ = self.env.reset(seed=episode_seed(seed, self._index, episode))
        reward, terminated, truncated, taken = 0.0, False, False, 0
        for action in actions:
            if terminated or truncated:
                break
            obs, given, terminated, truncated, _ = self.env.step(action)
            reward, taken = float(given), taken + 1
        self._begin_next = terminated or truncated
        return obs, {
            "reward": reward,
            "terminated": bool(terminated),
            "truncated": bool(truncated),
            "complete": taken == len(actions),
        }
