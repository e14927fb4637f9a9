"""A network as a short list of loops over flat float arrays, for C and JavaScript.

A value is a `Place`: an array and, for each of its elements, the position in that array. So a view
(transposed, sliced, broadcast) costs nothing: the torch operation is applied to the positions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Reduction = Literal["sum", "max", "min", "argmax"]


@dataclass(frozen=True)
class Place:
    """A value of the shape of `positions` (int64), which are positions in a named flat array."""

    array: str
    positions: Tensor

    def view(self, change: Callable[[Tensor], Tensor]) -> Place:
        """The same elements after a torch operation that only moves, drops or repeats them."""
        return Place(self.array, change(self.positions))

    @property
    def flat(self) -> NDArray[np.int64]:
        """The positions in row-major order, `[size]`."""
        positions: NDArray[np.int64] = self.positions.reshape(-1).numpy()
        return positions


@dataclass(frozen=True)
class Loop:
    """`target[i] = expression(operands[i])`, or a reduction of the operands' further axes.

    Attributes:
        target: where each result goes, `[...]`.
        expression: C and JavaScript alike, with `{k}` for the k-th operand.
        operands: places `[...]` of the target's shape, `[..., inner]` for a reduction.
    """

    target: Place
    expression: str
    operands: tuple[Place, ...]
    reduction: Reduction | None = None

    @property
    def writes(self) -> str:
        return self.target.array

    @property
    def reads(self) -> list[str]:
        return [operand.array for operand in self.operands]


@dataclass(frozen=True)
class Product:
    """`target [B, M, N] += left [B, M, K] @ right [B, K, N]`, each array contiguous."""

    target: str
    left: str
    right: str
    sizes: tuple[int, int, int, int]  # B, M, K, N

    @property
    def writes(self) -> str:
        return self.target

    @property
    def reads(self) -> list[str]:
        return [self.left, self.right, self.target]


Operation = Loop | Product


@dataclass
class FlatProgram:
    """Operations in the order of execution.

    Attributes:
        inputs, outputs: names and shapes of the arguments.
        sizes: numbers in each array that is neither an argument nor constant.
        constants: flat float32 arrays.
    """

    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    operations: list[Operation] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    constants: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def simplified(self) -> FlatProgram:
        """The same with each element-wise loop that is read once merged into its reader."""
        operations = _merged(self.operations, set(self.sizes))
        used = {name for op in operations for name in (op.writes, *op.reads)}
        sizes = {name: size for name, size in self.sizes.items() if name in used}
        constants = {name: value for name, value in self.constants.items() if name in used}
        return replace(self, operations=operations, sizes=sizes, constants=constants)


def _merged(operations: Sequence[Operation], own: set[str]) -> list[Operation]:
    writers = Counter(op.writes for op in operations)
    readers = Counter(name for op in operations for name in op.reads)
    loops: dict[str, Loop] = {}  # element-wise, and of one writer and one reader: may be merged
    result: list[Operation] = []
    for op in operations:
        if isinstance(op, Loop):
            op = _with_operands_merged(op, loops)
        name = op.writes
        alone = name in own and writers[name] == readers[name] == 1
        if alone and isinstance(op, Loop) and op.reduction is None:
            loops[name] = op
        else:
            result.append(op)
    # What could not be merged is computed before its reader.
    return list(_with_kept(result, loops))


def _with_kept(operations: Sequence[Operation], loops: dict[str, Loop]) -> Iterator[Operation]:
    for op in operations:
        for name in op.reads:
            if name in loops:
                yield from _with_kept([loops.pop(name)], loops)
        yield op


def _with_operands_merged(loop: Loop, loops: dict[str, Loop]) -> Loop:
    """The loop with the expressions of element-wise loops put in place of their results."""
    index = 0
    while index < len(loop.operands):
        read = loop.operands[index]
        inner = loops.get(read.array)
        # Repeated elements are computed once, and kept.
        if inner is None or inner.target.positions.numel() != read.positions.numel():
            index += 1
            continue
        where = torch.empty(inner.target.positions.numel(), dtype=torch.int64)
        where[inner.target.positions.reshape(-1)] = torch.arange(len(where))
        moved = [
            operand.view(lambda p: p.reshape(-1)[where[read.positions]])  # noqa: B023
            for operand in inner.operands
        ]
        merged = Loop(
            loop.target,
            _substituted(loop.expression, index, inner.expression, len(moved)),
            (*loop.operands[:index], *moved, *loop.operands[index + 1 :]),
            loop.reduction,
        )
        if nest_of(merged) is None:
            index += 1
            continue
        loop = merged
        del loops[read.array]
    return loop


def _substituted(outer: str, index: int, inner: str, count: int) -> str:
    """`outer` with `inner`, whose operands are `count`, in place of its operand `index`."""

    def shifted(match: re.Match[str]) -> str:
        number = int(match[1])
        if number == index:
            return re.sub(r"\{(\d+)\}", lambda m: f"{{{int(m[1]) + index}}}", inner)
        return f"{{{number + count - 1 if number > index else number}}}"

    return re.sub(r"\{(\d+)\}", shifted, outer)


# --------------------------------------------------------------------------- nests


@dataclass(frozen=True)
class Nest:
    """Loops from the outermost to the innermost, that visit the elements in row-major order.

    Attributes:
        counts: iterations of each loop.
        strides: for each operand its step in each loop.
        starts: position of each operand's first element.
    """

    counts: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]


def nest_of(loop: Loop) -> tuple[Nest, Nest] | None:
    """The nests over the results and over what is reduced (target first, then the operands).

    None where the positions of an operand follow no such pattern.
    """
    outer_size = loop.target.positions.numel()
    tables = [operand.flat.reshape(outer_size, -1) for operand in loop.operands]
    inner_size = tables[0].shape[1] if tables else 1
    for table in tables:
        if (table != table[:, :1] + table[:1] - table[0, 0]).any():
            return None
    outer = _nest([loop.target.flat, *(table[:, 0] for table in tables)])
    inner = _nest([np.zeros(inner_size, np.int64), *(table[0] for table in tables)])
    return None if outer is None or inner is None else (outer, inner)


def _nest(columns: Sequence[NDArray[np.int64]]) -> Nest | None:
    starts = tuple(int(column[0]) for column in columns)
    counts: list[int] = []
    strides: list[tuple[int, ...]] = []
    while (size := len(columns[0])) > 1:
        steps = [int(column[1] - column[0]) for column in columns]
        run = size
        for column, step in zip(columns, steps, strict=True):
            broken = np.flatnonzero(np.diff(column) != step)
            run = int(np.gcd(run, broken[0] + 1)) if len(broken) else run
        if run == 1:
            return None
        line = np.arange(run)
        rows = [column.reshape(-1, run) for column in columns]
        for row, step in zip(rows, steps, strict=True):
            if (row != row[:, :1] + line * step).any():
                return None
        counts.append(run)
        strides.append(tuple(steps))
        columns = [row[:, 0] for row in rows]
    by_operand = zip(*reversed(strides), strict=True) if strides else ((),) * len(starts)
    return Nest(tuple(reversed(counts)), tuple(by_operand), starts)
