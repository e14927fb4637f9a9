"""Experience that a model cannot learn as it is: true ends it ignores, values beyond its bins.

With `on_unfit_data = "stop"` a true end stops the run at any time, and such values stop it before
the first update; later ones are clipped, counted and reported. "warn" only counts and reports.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldflux.core.batch import Batch
from worldflux.core.specs import ExperienceLimits
from worldflux.data.columns import SINCE_FIRST
from worldflux.data.replay import ReplayBuffer
from worldflux.errors import ConfigurationError
from worldflux.progress import counted

UNFIT = "unfit_data"
"""What a warning about such experience begins with."""
STOP, WARN = "stop", "warn"
_WINDOW = 1000  # steps of an endless episode whose return is looked at
_WARN_SETTING = f'training.on_unfit_data = "{WARN}"'


class ExperienceCheck:
    """Counts what does not fit `limits` in everything that a model learns from.

    `how` is "stop" or "warn"; `ends`, `rewards` and `returns` count what did not fit.
    """

    def __init__(self, limits: ExperienceLimits | None, how: str | None) -> None:
        self.limits = limits or ExperienceLimits()
        self.watches = limits is not None
        self.how = how or WARN
        self.start_over()

    def start_over(self, how: str | Mapping[str, Any] | None = None) -> None:
        """Forget what was seen: the replay holds other rows now.

        A run that continues as it was started gives its training configuration as `how`; one of an
        earlier version, without that setting, only warned.
        """
        if how is not None:
            self.how = how if isinstance(how, str) else str(how.get("on_unfit_data", WARN))
        self.ends = self.rewards = self.returns = 0
        self._least, self._most = 0.0, 0.0  # of the rewards
        self._lowest, self._highest = 0.0, 0.0  # of the rewards and returns that do not fit
        self._seen: dict[int, int] = {}  # steps of each replay
        self._reports: dict[str, int] = {}

    def look(self, source: object, batch: Batch | None, before_learning: bool) -> list[str]:
        """Look at rows that are new in a source's replays, or at a batch `[B, T, ...]` without any.

        Returns what to report: each count when it is first seen or has grown tenfold. Raises
        ConfigurationError with the right settings where the run has to stop.
        """
        if not self.watches:
            return []
        buffers = getattr(source, "buffers", None) or [getattr(source, "buffer", None)]
        held = [buffer for buffer in buffers if isinstance(buffer, ReplayBuffer)]
        for number, buffer in enumerate(held):
            self._look_at_replay(number, buffer)
        if not held and batch is not None:
            ends = batch.terminations.detach().cpu().numpy() > 0
            self._count(batch.rewards.detach().float().cpu().numpy(), ends)
        seen = self._reports
        due = [n for n, count in self._counts().items() if count and count >= 10 * seen.get(n, 0)]
        if due and self.how == STOP:
            self._refuse(before_learning)
        return self._reported(due)

    def last_report(self) -> list[str]:
        """The counts that grew since they were reported."""
        counts = self._counts()
        return self._reported([n for n in counts if counts[n] != self._reports.get(n, 0)])

    def _look_at_replay(self, number: int, buffer: ReplayBuffer) -> None:
        start, stop = max(self._seen.get(number, 0), buffer.oldest_step), buffer.steps_written
        if start >= stop:
            return
        self._seen[number] = stop
        new = buffer.rows(start, stop, "reward", "is_terminal", "is_last", SINCE_FIRST)
        self._count(new["reward"], new["is_terminal"])
        farthest = self.limits.farthest
        if self.limits.low <= farthest(self._least) and farthest(self._most) <= self.limits.high:
            return  # no return of such rewards can be outside
        length = new[SINCE_FIRST]
        closed = (length > 0) & (new["is_last"] | (length % _WINDOW == 0))
        for row, env in np.argwhere(closed):
            last = start + int(row)
            steps = (int(length[row, env]) - 1) % _WINDOW + 1
            first = max(last - steps + 1, buffer.oldest_step)
            rewards = buffer.rows(first, last + 1, "reward")["reward"][:, env]
            self.returns += self._outside(discounted_returns(rewards, self.limits.discount))

    def _count(self, rewards: NDArray[Any], ends: NDArray[Any]) -> None:
        if not self.limits.terminations:
            self.ends += int(np.count_nonzero(ends))
        self._least = min(self._least, float(rewards.min(initial=0.0)))
        self._most = max(self._most, float(rewards.max(initial=0.0)))
        self.rewards += self._outside(rewards)

    def _outside(self, values: NDArray[Any]) -> int:
        outside = values[(values < self.limits.low) | (values > self.limits.high)]
        self._lowest = min(self._lowest, float(outside.min(initial=0.0)))
        self._highest = max(self._highest, float(outside.max(initial=0.0)))
        return len(outside)

    def _counts(self) -> dict[str, int]:
        return {"ends": self.ends, "values": self.rewards + self.returns}

    def _reported(self, names: list[str]) -> list[str]:
        self._reports |= {name: self._counts()[name] for name in names}
        setting = self.limits.ends_setting
        remedy = f"; a new run learns them as final with {setting}" if setting else ""
        messages = {
            "ends": f"{counted(self.ends, 'episode', ',')} terminated; this model learns as if "
            f"they continued{remedy}",
            "values": f"{self._values()}, clipped; a new run holds them with {self._settings()}",
        }
        return [f"{UNFIT}: {messages[name]}" for name in names]

    def _refuse(self, before_learning: bool) -> None:
        problems, settings = [], []
        if self.ends:
            problems.append(
                "an episode terminated, but this model learns as if no episode ends by itself"
            )
            settings.append(self.limits.ends_setting)
        if self._counts()["values"] and (before_learning or problems):
            problems.append(self._values())
            settings.append(self._settings())
        if problems:
            right = " and ".join(filter(None, settings))
            continues = f"{_WARN_SETTING} to continue all the same"
            raise ConfigurationError(
                "; ".join(problems),
                where="architecture",
                hint=f"set {right}, or {continues}" if right else f"set {continues}",
            )

    def _values(self) -> str:
        limits = self.limits
        counts = {"reward": self.rewards, "discounted return": self.returns}
        found = " and ".join(counted(count, name, ",") for name, count in counts.items() if count)
        return (
            f"{found} beyond {_number(limits.low)} to {_number(limits.high)}, the range that this "
            f"model can represent (largest: {_number(max(self._highest, -self._lowest))})"
        )

    def _settings(self) -> str:
        limits = self.limits
        low, high = self._lowest, self._highest
        if low < limits.low:
            low = min(low, limits.farthest(self._least))
        if high > limits.high:
            high = max(high, limits.farthest(self._most))
        return limits.settings_for(low, high)


def discounted_returns(rewards: NDArray[Any], discount: float) -> NDArray[np.float64]:
    """`G_t = r_t + discount * G_(t + 1)` of rewards `[T]`: `[T]`."""
    backwards = itertools.accumulate(
        rewards[::-1].tolist(), lambda later, reward: reward + discount * later
    )
    return np.fromiter(backwards, np.float64)[::-1]


def _number(value: float) -> str:
    return f"{value:,.1f}" if abs(value) >= 1 else f"{value:.3g}"
