"""A policy as one C99 file without dependencies, and such a file compiled and called."""

from __future__ import annotations

import ctypes
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
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
from .flat_program import FlatProgram
from .policy_graph import PolicyGraph
from .source import C, statements

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
