"""What a model can learn from as it is configured: whether true ends, and how large values."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ExperienceLimits:
    """Limits of the rewards and returns that a model can represent, and what widens them.

    Attributes:
        low: the smallest reward or discounted return, in the environment's units.
        high: the largest one.
        discount: of a return; 0 where the model learns no values.
        terminations: whether a true end is learned as one.
        ends_setting: what makes it so, where it is not; empty if nothing does.
        low_key, high_key: the fields of the configuration that set the bounds.
        in_symlog: whether those fields are in symlog space.
    """

    low: float = -math.inf
    high: float = math.inf
    discount: float = 0.0
    terminations: bool = True
    ends_setting: str = ""
    low_key: str = ""
    high_key: str = ""
    in_symlog: bool = True

    def farthest(self, reward: float) -> float:
        """The largest return of rewards of this size: all of them, for ever."""
        return reward / (1 - self.discount) if self.discount < 1 else reward

    def settings_for(self, lowest: float, highest: float) -> str:
        """The settings under which values of this range fit."""
        settings = []
        for key, value, fits in (
            (self.low_key, lowest, lowest >= self.low),
            (self.high_key, highest, highest <= self.high),
        ):
            if not fits:
                bound = math.ceil(math.log1p(abs(value)) if self.in_symlog else abs(value))
                settings.append(f"architecture.{key} = {math.copysign(bound, value):.1f}")
        return " and ".join(settings)


def symexp_number(bound: float) -> float:
    """The value of a bound in symlog space."""
    return math.copysign(math.expm1(abs(bound)), bound)
