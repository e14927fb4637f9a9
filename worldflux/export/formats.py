"""The formats of an export, one row each: how a file is written, and how it is run. No torch."""

from __future__ import annotations

import io
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldflux.errors import MissingDependencyError
from worldflux.optional import require

if TYPE_CHECKING:
    import numpy as np

    from worldflux.acting.agent import Agent

    from .policy_graph import PolicyGraph

Runner = Callable[["dict[str, np.ndarray]"], "dict[str, np.ndarray]"]
"""One step: inputs by name -> outputs by name."""


INSTALL = {
    "cc": "install a C compiler, for example: apt-get install gcc",
    "node": "install Node.js: https://nodejs.org",
}


@dataclass(frozen=True)
class Format:
    """A format: what its file names end with, and its two functions.

    Attributes:
        write: puts a graph into a file, with facts about it where the format has room for them.
        open: makes a file run.
        packages: what both need besides worldflux, of the extra "export".
        command: the program that runs such a file.
    """

    suffix: str
    write: Callable[[PolicyGraph, Path, dict[str, str], Agent], None]
    open: Callable[[Path, PolicyGraph], AbstractContextManager[Runner]]
    packages: tuple[str, ...] = ()
    command: str | None = None

    def require(self) -> None:
        """Raise MissingDependencyError where a package or the command is not installed."""
        require(f"an export to {self.suffix}", "export", *self.packages)
        if self.command is not None and shutil.which(self.command) is None:
            raise MissingDependencyError(
                f"an export to {self.suffix} is compared with its agent by running it with "
                f"{self.command}, which is not installed",
                hint=INSTALL[self.command],
            )


def write_onnx(graph: PolicyGraph, path: Path, facts: dict[str, str], agent: Agent) -> None:
    """An ONNX model with the graph's names; `facts` are its metadata_props."""
    import torch

    with _quiet():
        program: Any = torch.onnx.export(
            graph.program,
            dynamo=True,
            input_names=[port.name for port in graph.inputs],
            output_names=[port.name for port in graph.outputs],
            external_data=False,
            verbose=False,
        )
        program.model.metadata_props.update(facts)
        program.save(path)


@contextmanager
def open_onnx(path: Path, graph: PolicyGraph) -> Iterator[Runner]:
    """onnxruntime on one thread of the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    yield lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def write_torch(graph: PolicyGraph, path: Path, facts: dict[str, str], agent: Agent) -> None:
    """A torch.export program of keyword arguments; `facts` are its extra file worldflux.json."""
    import torch

    buffer = io.BytesIO()
    torch.export.save(graph.program, buffer, extra_files={"worldflux.json": json.dumps(facts)})
    path.write_bytes(buffer.getvalue())


@contextmanager
def open_torch(path: Path, graph: PolicyGraph) -> Iterator[Runner]:
    """The program as a module."""
    import torch

    step = torch.export.load(io.BytesIO(path.read_bytes())).module()

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            outputs = step(**{name: torch.from_numpy(value) for name, value in inputs.items()})
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    yield run


def write_c(graph: PolicyGraph, path: Path, facts: dict[str, str], agent: Agent) -> None:
    """A C file; `facts` are its first comment."""
    from .source import write_c

    write_c(graph, path, facts)


def open_c(path: Path, graph: PolicyGraph) -> AbstractContextManager[Runner]:
    """The file compiled as a library."""
    from .source import open_c

    return open_c(path, graph)


def write_html(graph: PolicyGraph, path: Path, facts: dict[str, str], agent: Agent) -> None:
    """A page that shows some of the facts."""
    from .html_page import write_html

    write_html(graph, path, facts, agent)


def open_html(path: Path, graph: PolicyGraph) -> AbstractContextManager[Runner]:
    """The page's script in node."""
    from .html_page import open_html

    return open_html(path, graph)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports on itself, which says nothing to a user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(level)


FORMATS = {
    "onnx": Format(".onnx", write_onnx, open_onnx, ("onnx", "onnxscript", "onnxruntime")),
    "torch": Format(".pt2", write_torch, open_torch),
    "html": Format(".html", write_html, open_html, command="node"),
    "c": Format(".c", write_c, open_c, command="cc"),
}
