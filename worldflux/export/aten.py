"""From a `torch.export` graph to a `FlatProgram`.

What depends on no input is computed here, by torch; what only moves elements becomes a view. What
remains is element-wise expressions, reductions and matrix products of fixed sizes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._decomp import get_decompositions
from torch.export import ExportedProgram, default_decompositions
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node, map_arg
from torch.utils._pytree import tree_leaves

from worldflux.envs.spaces import is_image
from worldflux.errors import CapabilityError

from .flat_program import FlatProgram, Loop, Place, Product, Reduction
from .policy_graph import PolicyGraph

aten = torch.ops.aten
SPLIT_UP = [
    aten.native_layer_norm,
    aten._softmax,
    aten._log_softmax,
    aten.addmm,
    aten.baddbmm,
    aten.addcmul,
]

# Each operand once, because expressions are put into one another. The functions are those of
# math.h, and the ones that policy.c and page/runtime.js define.
EXPRESSIONS: dict[str, str] = {
    "add": "({0} + {1})",
    "sub": "({0} - {1})",
    "mul": "({0} * {1})",
    "div": "({0} / {1})",
    "maximum": "at_least({0}, {1})",
    "minimum": "at_most({0}, {1})",
    "eq": "({0} == {1})",
    "ne": "({0} != {1})",
    "lt": "({0} < {1})",
    "le": "({0} <= {1})",
    "gt": "({0} > {1})",
    "ge": "({0} >= {1})",
    "logical_and": "({0} && {1})",
    "logical_or": "({0} || {1})",
    "bitwise_and": "({0} && {1})",
    "bitwise_or": "({0} || {1})",
    "logical_not": "!{0}",
    "bitwise_not": "!{0}",
    "where": "({0} ? {1} : {2})",
    "neg": "(-{0})",
    "abs": "fabs({0})",
    "relu": "at_least({0}, 0)",
    "reciprocal": "(1 / {0})",
    "rsqrt": "(1 / sqrt({0}))",
    "pow": "pow({0}, {1})",
}
for _name in ("exp", "log", "log1p", "expm1", "sqrt", "tanh", "sin", "cos", "floor", "ceil"):
    EXPRESSIONS[_name] = f"{_name}({{0}})"
for _name in ("sigmoid", "sign"):
    EXPRESSIONS[_name] = f"{_name}({{0}})"
VIEWS = {
    *(aten.permute, aten.transpose, aten.slice, aten.select, aten.unsqueeze),
    *(aten.squeeze, aten.expand, aten.alias, aten.clone, aten.split_with_sizes),
}
REDUCTIONS: dict[Any, Reduction] = {
    aten.sum: "sum",
    aten.amax: "max",
    aten.amin: "min",
    aten.argmax: "argmax",
}

Value = Place | Tensor


def policy_program(
    graph: PolicyGraph, language: str, constants: dict[bytes, str] | None = None
) -> FlatProgram:
    """The flat program of a policy that sees numbers.

    Raises:
        CapabilityError: when it sees images, draws random numbers, or as `translate`.
    """
    what = None
    if any(map(is_image, graph.leaves.values())):
        what = "a policy that sees images"
    elif graph.noise:
        what = "a policy that draws random numbers"
    if what is not None:
        raise CapabilityError(f"{what} cannot be exported to {language}", hint="use --to onnx")
    return translate(graph.program, language, constants)


def translate(
    program: ExportedProgram, language: str, constants: dict[bytes, str] | None = None
) -> FlatProgram:
    """The flat program of a graph of fixed shapes, from keyword arguments to a dict of tensors.

    Args:
        language: for the message of what is refused.
        constants: names of constants by their bytes, where several programs share them.

    Raises:
        CapabilityError: naming an operation that has no translation.
    """
    table = default_decompositions()
    table.update(get_decompositions(SPLIT_UP))
    names = {} if constants is None else constants
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # torch's own
        split_up = program.run_decompositions(table)
    return _Translation(language, names).run(split_up)


class _Translation:
    def __init__(self, language: str, names: dict[bytes, str]) -> None:
        self.language, self.names = language, names
        self.flat = FlatProgram({}, {})

    def run(self, program: ExportedProgram) -> FlatProgram:
        signature, specs = program.graph_signature, program.call_spec
        stored = {**program.state_dict, **program.constants}
        _, keywords = specs.in_spec.unflatten(signature.user_inputs)
        names = {placeholder: name for name, placeholder in keywords.items()}
        kinds = {spec.arg.name: spec for spec in signature.input_specs}
        _without_checks(program)
        values: dict[Node, Any] = {}
        for node in program.graph.nodes:
            if node.op == "placeholder":
                spec = kinds[node.name]
                if spec.kind is InputKind.USER_INPUT:
                    values[node] = self._port(self.flat.inputs, names[node.name], node.meta["val"])
                else:
                    values[node] = stored[str(spec.target)].detach()
            elif node.op == "call_function":
                given: Any = map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = self._computed(node, *given)
            elif node.op == "output":
                if any(s.kind is not OutputKind.USER_OUTPUT for s in signature.output_specs):
                    raise self._refused("a policy that changes its own weights")
                results = specs.out_spec.unflatten(node.args[0])
                for name, result in results.items():
                    port = self._port(self.flat.outputs, name, result.meta["val"])
                    self._loop(port, "{0}", values[result])
        return self.flat.simplified()

    def _computed(self, node: Node, args: Any, kwargs: dict[str, Any]) -> Any:
        target: Any = node.target
        if getattr(target, "__name__", "") == "getitem":
            return args[0][args[1]]
        if torch.Tag.nondeterministic_seeded in target.tags:
            raise self._refused(f"{target}, which draws random numbers,")
        example = node.meta["val"]
        if isinstance(example, Tensor) and example.dtype in (torch.float16, torch.bfloat16):
            raise self._refused(f"{target} in {example.dtype}")
        if not any(isinstance(value, Place) for value in tree_leaves((args, kwargs))):
            return target(*args, **kwargs)
        operation = target.overloadpacket
        name = operation.__name__.strip("_")
        method = getattr(self, f"aten_{name}", None)
        if operation in VIEWS:
            return _view(target, *args)
        if operation in REDUCTIONS:
            return self._reduced(args[0], REDUCTIONS[operation], *args[1:3])
        if method is not None:
            return method(*args, **kwargs)
        if name in EXPRESSIONS and not kwargs:
            return self._apply(EXPRESSIONS[name], *args)
        raise self._refused(str(target))

    def _refused(self, what: str) -> CapabilityError:
        return CapabilityError(
            f"{what} cannot be exported to {self.language}", hint="use --to onnx"
        )

    # ------------------------------------------------------------------ arrays and loops

    def _port(self, ports: dict[str, tuple[int, ...]], name: str, example: Tensor) -> Place:
        ports[name] = tuple(example.shape)
        return _whole(name, example.shape)

    def _fresh(self, shape: Sequence[int]) -> Place:
        name = f"t{len(self.flat.sizes)}"
        place = _whole(name, shape)
        self.flat.sizes[name] = place.positions.numel()
        return place

    def _constant(self, value: Tensor) -> Place:
        numbers = value.float().contiguous().numpy()
        name = self.names.setdefault(numbers.tobytes(), f"w{len(self.names)}")
        self.flat.constants[name] = numbers.reshape(-1)
        return _whole(name, value.shape)

    def _loop(self, target: Place, expression: str, *operands: Any) -> None:
        """`target = expression` of operands that are broadcast; numbers go into the text."""
        places: list[Place] = []
        texts = []
        for operand in operands:
            number = _number(operand)
            if number is not None:
                texts.append(f"#{number!r}#")
                continue
            texts.append(f"{{{len(places)}}}")
            place = operand if isinstance(operand, Place) else self._constant(operand)
            places.append(place.view(lambda p: p.expand(target.positions.shape)))
        self.flat.operations.append(Loop(target, expression.format(*texts), tuple(places)))

    def _apply(self, expression: str, *operands: Any) -> Place:
        target = self._fresh(torch.broadcast_shapes(*map(_shape, operands)))
        self._loop(target, expression, *operands)
        return target

    def _reduced(
        self, x: Place, reduction: Reduction, axes: Any = None, keepdim: bool = False
    ) -> Place:
        rank = x.positions.dim()
        given = [axes] if isinstance(axes, int) else axes or range(rank)
        reduced = sorted({axis % rank for axis in given})
        kept = [axis for axis in range(rank) if axis not in reduced]
        inner = x.view(lambda p: p.permute(*kept, *reduced).flatten(len(kept)))
        target = self._fresh(inner.positions.shape[:-1])
        self.flat.operations.append(Loop(target, "{0}", (inner,), reduction))
        shape = [1 if axis in reduced else size for axis, size in enumerate(x.positions.shape)]
        return target.view(lambda p: p.reshape(shape)) if keepdim else target

    # ------------------------------------------------------------------ operations

    def aten_view(self, x: Place, shape: Sequence[int]) -> Place:
        try:
            return x.view(lambda p: p.view(list(shape)))
        except RuntimeError:  # of elements that are not equally far apart
            return self._apply("{0}", x).view(lambda p: p.view(list(shape)))

    def aten_flip(self, x: Place, axes: Sequence[int]) -> Place:
        return self._apply("{0}", x.view(lambda p: p.flip(list(axes))))

    def aten_pow(self, base: Any, exponent: Any) -> Place:
        if exponent == 2:
            return self._apply("square({0})", base)
        return self._apply(EXPRESSIONS["pow"], base, exponent)

    def aten_clamp(self, x: Place, low: Any = None, high: Any = None) -> Place:
        bounded = x if low is None else self._apply("at_least({0}, {1})", x, low)
        return bounded if high is None else self._apply("at_most({0}, {1})", bounded, high)

    def aten_to_copy(self, x: Place, dtype: torch.dtype | None = None, **rest: Any) -> Place:
        if dtype is torch.bool:
            return self._apply("({0} != 0)", x)
        whole = dtype is not None and not dtype.is_floating_point
        return self._apply("trunc({0})", x) if whole else x

    def aten_cat(self, parts: Sequence[Value], axis: int = 0) -> Place:
        shape = list(_shape(parts[0]))
        widths = [_shape(part)[axis] for part in parts]
        shape[axis] = sum(widths)
        target = self._fresh(shape)
        for piece, part in zip(target.positions.split(widths, axis), parts, strict=True):
            self._loop(Place(target.array, piece), "{0}", part)
        return target

    def aten_mean(self, x: Place, axes: Any = None, keepdim: bool = False, **dtype: Any) -> Place:
        total = self._reduced(x, "sum", axes, keepdim)
        return self._apply("({0} / {1})", total, x.positions.numel() / total.positions.numel())

    def aten_var(
        self, x: Place, axes: Any = None, *, correction: float = 1, keepdim: bool = False
    ) -> Place:
        squares = self._apply("square({0} - {1})", x, self.aten_mean(x, axes, True))
        total = self._reduced(squares, "sum", axes, keepdim)
        count = x.positions.numel() / total.positions.numel() - correction
        return self._apply("({0} / {1})", total, count)

    def aten_var_mean(self, x: Place, axes: Any = None, **options: Any) -> tuple[Place, Place]:
        mean = self.aten_mean(x, axes, options.get("keepdim", False))
        return self.aten_var(x, axes, **options), mean

    def aten_mm(self, left: Value, right: Value) -> Place:
        """`[..., M, K] @ [..., K, N]`."""
        *leading, rows, inner = _shape(left)
        columns = _shape(right)[-1]
        target = self._fresh((*leading, rows, columns))
        self._loop(target, "{0}", 0.0)
        sizes = (int(np.prod(leading, dtype=int)), rows, inner, columns)
        arrays = (target.array, self._contiguous(left), self._contiguous(right))
        self.flat.operations.append(Product(*arrays, sizes))
        return target

    aten_bmm = aten_mm

    def _contiguous(self, value: Value) -> str:
        if isinstance(value, Tensor):
            return self._constant(value).array
        size = self.flat.sizes.get(value.array)
        if size == value.positions.numel() and (value.flat == np.arange(size)).all():
            return value.array
        return self._apply("{0}", value).array


def _view(move: Any, x: Place, *args: Any) -> Any:
    moved = move(x.positions, *args)
    if isinstance(moved, Tensor):
        return Place(x.array, moved)
    return [Place(x.array, part) for part in moved]


def _without_checks(program: ExportedProgram) -> None:
    for node in program.graph.nodes:
        if "_assert" in str(node.target):
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()


def _whole(name: str, shape: Sequence[int]) -> Place:
    size = int(np.prod(shape, dtype=np.int64))
    return Place(name, torch.arange(size).reshape(tuple(shape)))


def _shape(value: Any) -> torch.Size:
    if isinstance(value, Place):
        return value.positions.shape
    return value.shape if isinstance(value, Tensor) else torch.Size()


def _number(value: Any) -> float | None:
    """The number that all elements of a constant are, if they are."""
    if isinstance(value, Tensor):
        first = value.reshape(-1)[0]
        return float(first) if bool((value == first).all()) else None
    return None if isinstance(value, Place) else float(value)
