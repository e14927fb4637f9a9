"""The operations of a `FlatProgram` as statements of C or JavaScript; a policy as one C99 file
without dependencies, and such a file compiled and called."""

from __future__ import annotations

import ctypes
import math
import re
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from math import prod
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from worldflux.errors import ExportError

from .aten import policy_program
from .flat_program import FlatProgram, Loop, Nest, Product, nest_of
from .policy_graph import PolicyGraph

if TYPE_CHECKING:
    from .formats import Runner


def write_c(graph: PolicyGraph, path: Path, facts: dict[str, str]) -> None:
    """The file of a policy; the first comment has the facts."""
    title = "\n   ".join(f"{name}: {value}" for name, value in facts.items())
    path.write_text(c_source(policy_program(graph, "C"), facts["policy"], title), encoding="utf-8")


@contextmanager
def open_c(path: Path, graph: PolicyGraph) -> Iterator[Runner]:
    """The file compiled as a library.

    Raises:
        ExportError: when it does not compile.
    """
    with TemporaryDirectory() as folder:
        library = Path(folder) / "policy.so"
        command = ["cc", "-std=c99", "-O3", "-march=native", "-shared", "-fPIC", "-x", "c"]
        done = subprocess.run(
            [*command, path, "-o", library, "-lm"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ExportError(f"cc does not compile it: {done.stderr.strip()}", where=str(path))
        step = ctypes.CDLL(str(library)).worldflux_step
    memory = [port for port in graph.inputs if port.name.startswith("memory_")]
    observed = [port.name for port in graph.ports.values()]
    action = graph.outputs[0]
    ends = np.cumsum([prod(port.shape) for port in memory])

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        # The struct of the memory is an array of floats.
        fields = [np.ravel(inputs[name]) for name in [*(p.name for p in memory), "is_first"]]
        kept = np.concatenate(fields).astype(np.float32)
        done = np.empty(action.shape, np.float32)
        arguments = [*(np.ravel(inputs[name]).astype(np.float32) for name in observed), done, kept]
        step(*(array.ctypes.data_as(ctypes.c_void_p) for array in arguments))
        parts = [
            part.reshape(p.shape) for part, p in zip(np.split(kept, ends), memory, strict=False)
        ]
        names = [port.name for port in graph.outputs]
        return dict(zip(names, [done, *parts], strict=True))

    yield run


def c_source(program: FlatProgram, name: str, title: str) -> str:
    """The text of the C file NAME.c.

    Args:
        program: a `PolicyGraph`'s, see there for the names of its arguments.
        title: says in the first comment which policy it is.
    """
    observed = [name for name in program.inputs if name.startswith("observation")]
    memory = [name[7:] for name in program.inputs if name.startswith("memory_")]
    sizes = {name: prod(shape) for name, shape in {**program.inputs, **program.outputs}.items()}
    read = {name for operation in program.operations for name in operation.reads}
    inputs = [name for name in program.inputs if name in read]
    kept = {"is_first": "&memory->is_first"}
    for part in memory:
        kept |= {f"memory_{part}": f"memory->{part}", f"next_{part}": f"next.{part}"}
    taken = [f"const float *{name}" for name in inputs]
    given = [f"float *restrict {name}" for name in program.outputs]
    numbers = {name: f"{name}[{sizes[name]}]" for name in [*observed, "action"]}
    *seen, done = numbers.values()
    template = (resources.files("worldflux.export") / "policy.c").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=title.replace("*/", "* /"),
        name=name,
        memory="\n".join(f"    float {name}[{sizes[f'memory_{name}']}];" for name in memory),
        parameters=", ".join([*(f"const float {name}" for name in seen), f"float {done}"]),
        call=", ".join(numbers),
        weights="\n".join(_array(name, values) for name, values in program.constants.items()),
        arguments=", ".join(taken + given),
        arrays="\n".join(f"    float {name}[{size}];" for name, size in program.sizes.items()),
        statements="\n".join("    " + line for line in statements(program, C)),
        passed=", ".join(kept.get(name, name) for name in [*inputs, *program.outputs]),
        locals=", ".join(numbers.values()),
        reading=" || ".join(f"!read_numbers({name}, {sizes[name]})" for name in observed),
        actions=sizes["action"],
    )


def _array(name: str, values: NDArray[np.float32]) -> str:
    numbers = textwrap.fill(", ".join(f"{value:.9e}f" for value in values), 100)
    return f"static const float {name}[{len(values)}] = {{\n{numbers}}};"


BEGINNINGS = {"sum": "#0.0#", "max": "#-inf#", "min": "#inf#", "argmax": "#-inf#"}


@dataclass(frozen=True)
class Language:
    """What C and JavaScript write differently."""

    index: str  # declares an integer that changes
    number: str  # declares a number that changes
    value: str  # declares a number that does not
    infinity: str
    suffix: str = ""  # of a number
    at: str = "{array}, {start}"  # an array from a position on, as an argument

    def literal(self, number: float) -> str:
        if math.isinf(number):
            return self.infinity if number > 0 else f"-{self.infinity}"
        return f"{number!r}{self.suffix}" if number >= 0 else f"({number!r}{self.suffix})"


C = Language("int", "float", "const float", "INFINITY", "f", "{array} + {start}")
JAVASCRIPT = Language("let", "let", "const", "Infinity")


def statements(program: FlatProgram, language: Language) -> Iterator[str]:
    """One line after another, without indentation of the function that they are in."""
    for operation in program.operations:
        if isinstance(operation, Product):
            yield _product(operation, language)
        else:
            yield from _loop(operation, language)


def _product(product: Product, language: Language) -> str:
    arrays = (product.target, product.left, product.right)
    arguments = (*arrays, *map(str, product.sizes))
    return f"product({', '.join(arguments)});"


def _loop(loop: Loop, language: Language) -> Iterator[str]:
    nests = nest_of(loop)
    assert nests is not None
    outer, inner = nests
    names = [operand.array for operand in loop.operands]
    reads = []
    for k, name in enumerate(names, 1):
        terms = _terms(outer, k, "i") + _terms(inner, k, "j")
        reads.append(_element(name, outer.starts[k], terms))
    target = _element(loop.target.array, outer.starts[0], _terms(outer, 0, "i"))
    value = _with_literals(loop.expression.format(*reads), language)
    depth = len(outer.counts)
    yield from _opened(outer, "i", language, 0)
    if loop.reduction is None:
        yield f"{'  ' * depth}{target} = {_bare(value)};"
    else:
        yield from _indented(_reduction(loop, inner, target, value, language), depth)
    yield from _closed(depth)


def _reduction(
    loop: Loop, inner: Nest, target: str, value: str, language: Language
) -> Iterator[str]:
    """Accumulate over the inner loops; braces keep the names to themselves."""
    yield "{"
    beginning = _with_literals(BEGINNINGS[str(loop.reduction)], language)
    yield f"  {language.number} best = {beginning};"
    if loop.reduction == "argmax":
        yield f"  {language.index} where = 0, at = 0;"
    depth = len(inner.counts) + 1
    yield from _indented(_opened(inner, "j", language, 0), 1)
    steps = {
        "sum": f"best += {_bare(value)};",
        "max": f"best = at_least(best, {_bare(value)});",
        "min": f"best = at_most(best, {_bare(value)});",
        "argmax": f"{language.value} next = {_bare(value)}; "
        "if (next > best) { best = next; where = at; } at++;",
    }
    yield "  " * depth + steps[str(loop.reduction)]
    yield from _indented(_closed(len(inner.counts)), 1)
    yield f"  {target} = {'where' if loop.reduction == 'argmax' else 'best'};"
    yield "}"


def _opened(nest: Nest, letter: str, language: Language, depth: int) -> Iterator[str]:
    for level, count in enumerate(nest.counts):
        name = f"{letter}{level}"
        head = f"for ({language.index} {name} = 0; {name} < {count}; {name}++) {{"
        yield "  " * (depth + level) + head


def _closed(depth: int) -> Iterator[str]:
    for level in reversed(range(depth)):
        yield "  " * level + "}"


def _terms(nest: Nest, operand: int, letter: str) -> list[str]:
    terms = []
    for level, stride in enumerate(nest.strides[operand]):
        if stride:
            terms.append(f"{letter}{level}" if stride == 1 else f"{stride} * {letter}{level}")
    return terms


def _element(array: str, start: int, terms: list[str]) -> str:
    parts = [*([str(start)] if start or not terms else []), *terms]
    return f"{array}[{' + '.join(parts)}]"


def _with_literals(text: str, language: Language) -> str:
    return re.sub(r"#([^#]+)#", lambda match: language.literal(float(match[1])), text)


def _bare(text: str) -> str:
    """Without parentheses around the whole."""
    depth = 0
    for position, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and position < len(text) - 1:
            return text
    return text[1:-1] if text.startswith("(") else text


def _indented(lines: Iterator[str], depth: int) -> Iterator[str]:
    return ("  " * depth + line for line in lines)
