"""The random draws of a policy as tensors: recorded while it acts, or given in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_KINDS: dict[Callable[..., Any], str] = {
    torch.randn: "normal",
    torch.randn_like: "normal",
    Tensor.normal_: "normal",
    torch.rand: "uniform",
    torch.rand_like: "uniform",
    Tensor.exponential_: "exponential",
    torch.randperm: "permutation",
    torch.randint: "integers",
}


@dataclass(frozen=True)
class Draw:
    """One call of a random function: its distribution and shape.

    Kinds are "normal", "uniform" and "exponential" in their standard form, "permutation_of_5" and
    "integers_below_7".
    """

    kind: str
    shape: tuple[int, ...]


class Draws(TorchFunctionMode):
    """Within the block, records every draw in `drawn`, or takes it from `given`.

    Args:
        given: of each kind all numbers of a step, flat and in the order of `schedule`; a kind that
            is left out is zeros.
        schedule: the draws of one step.
    """

    def __init__(
        self, given: Mapping[str, Tensor] | None = None, schedule: Sequence[Draw] = ()
    ) -> None:
        super().__init__()
        self.drawn: list[tuple[Draw, Tensor]] = []
        self._given, self._expected = given, iter(schedule)
        self._used: dict[str, int] = {}

    @property
    def schedule(self) -> tuple[Draw, ...]:
        """What was drawn, in its order."""
        return tuple(draw for draw, _ in self.drawn)

    def by_kind(self) -> dict[str, Tensor]:
        """The recorded numbers `[n]` of each kind, as `given` takes them."""
        kinds: dict[str, list[Tensor]] = {}
        for draw, values in self.drawn:
            kinds.setdefault(draw.kind, []).append(values.flatten())
        return {kind: torch.cat(values) for kind, values in kinds.items()}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        kind = _kind(func, args)
        if kind is None:
            return func(*args, **kwargs)
        if self._given is None:
            values = func(*args, **kwargs)
            self.drawn.append((Draw(kind, tuple(values.shape)), values.clone()))
            return values
        draw = next(self._expected)
        assert draw.kind == kind, (draw, kind)
        start = self._used.get(kind, 0)
        self._used[kind] = start + prod(draw.shape)
        if kind in self._given:  # a copy: what is drawn may be changed in place
            values = self._given[kind][start : self._used[kind]].view(draw.shape).clone()
        else:
            values = torch.zeros(draw.shape)
        return args[0].copy_(values) if func.__name__.endswith("_") else values


def _kind(function: Any, args: tuple[Any, ...]) -> str | None:
    kind = _KINDS.get(function)
    if kind == "permutation":
        return f"permutation_of_{args[0]}"
    if kind == "integers":
        low, high = args[:2] if isinstance(args[1], int) else (0, args[0])
        return f"integers_below_{high}" if low == 0 else None
    is_standard = kind is None or not function.__name__.endswith("_") or len(args) == 1
    return kind if is_standard else None
