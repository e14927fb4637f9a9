"""The operations of a `FlatProgram` as statements of C or JavaScript."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .flat_program import FlatProgram, Loop, Nest, Product, nest_of

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
