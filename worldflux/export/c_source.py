"""A policy as one C99 file without dependencies."""

from __future__ import annotations

import textwrap
from importlib import resources
from math import prod
from string import Template

import numpy as np
from numpy.typing import NDArray

from .flat_program import FlatProgram
from .source import C, statements


def c_source(program: FlatProgram, file: str, title: str) -> str:
    """The text of a C file that is called `file`.

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
    for name in memory:
        kept |= {f"memory_{name}": f"memory->{name}", f"next_{name}": f"next.{name}"}
    taken = [f"const float *{name}" for name in inputs]
    given = [f"float *restrict {name}" for name in program.outputs]
    numbers = {name: f"{name}[{sizes[name]}]" for name in [*observed, "action"]}
    *seen, done = numbers.values()
    template = (resources.files("worldflux.export") / "policy.c").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=title.replace("*/", "* /"),
        file=file,
        object=file.removesuffix(".c") + ".o",
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
