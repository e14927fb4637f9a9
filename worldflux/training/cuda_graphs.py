"""Losses and their gradients as CUDA graphs: a GPU gets the thousands of small kernels of an update
in one launch, and no longer waits for Python between them."""

from __future__ import annotations

import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worldflux.core.batch import Batch
from worldflux.core.compilation import Fallback
from worldflux.core.learning import Phase, Scratch
from worldflux.core.outputs import LossOutput

Run = Callable[[Batch, Scratch], LossOutput]
"""A phase's loss of a batch and its backward pass."""

WARM_UPS = 3  # runs before the recording, in which libraries choose and compile their kernels


@dataclass
class _Recording:
    """A graph, the tensors that it reads and writes, and what it left behind."""

    graph: torch.cuda.CUDAGraph
    batch: Batch
    gradients: list[tuple[nn.Parameter, Tensor]]
    scratch: Scratch
    output: LossOutput

    def replay(self, batch: Batch, scratch: Scratch) -> LossOutput:
        pairs = zip(self.batch.named_tensors(), batch.named_tensors(), strict=True)
        for (_, own), (_, given) in pairs:
            own.copy_(given, non_blocking=True)
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        scratch.clear()
        scratch.update(self.scratch)
        return self.output


class CudaGraphs:
    """Runs phases, from the fourth update on as recorded graphs.

    A graph repeats the operations that were recorded, so a loss must do the same ones whatever the
    numbers are, and read no number in Python (`WorldModel.steady_updates`). If a loss does read
    one, or a recording fails, training continues without graphs and `on_fallback` gets the reason,
    once. The next run of a phase overwrites what the last one returned.
    """

    def __init__(self, model: nn.Module, on_fallback: Fallback) -> None:
        self._model, self._on_fallback = model, on_fallback
        self._recordings: dict[Any, _Recording] = {}
        self._runs: Counter[Any] = Counter()
        self._aside = torch.cuda.Stream()
        self._possible = True

    def run(self, phase: Phase, batch: Batch, scratch: Scratch, eagerly: Run) -> LossOutput:
        """`eagerly(batch, scratch)`, or the graph of what it did."""
        shapes = tuple((n, t.shape, t.dtype) for n, t in batch.named_tensors())
        key = phase.name, shapes
        if key in self._recordings:
            return self._recordings[key].replay(batch, scratch)
        if not self._possible:
            return eagerly(batch, scratch)
        self._runs[key] += 1
        kept, random = dict(scratch), self._generator().clone_state()
        try:
            if self._runs[key] <= WARM_UPS:
                return self._warmed_up(batch, scratch, eagerly, self._runs[key] == WARM_UPS)
            self._recordings[key] = self._recorded(batch, scratch, eagerly)
        except RuntimeError as error:
            self._possible = False
            self._recordings.clear()
            self._without_gradients()
            self._generator().graphsafe_set_state(random)  # a failed recording still holds the old
            scratch.clear()
            scratch.update(kept)
            self._on_fallback(_told(error))
            return eagerly(batch, scratch)
        return self._recordings[key].replay(batch, scratch)

    def _warmed_up(self, batch: Batch, scratch: Scratch, eagerly: Run, checked: bool) -> LossOutput:
        """A run beside the main stream, as a recording needs it; `checked` for waiting for the
        GPU, which a graph cannot do."""
        main, allowed = torch.cuda.current_stream(), torch.cuda.get_sync_debug_mode()
        self._aside.wait_stream(main)
        try:
            if checked:
                with warnings.catch_warnings(action="ignore"):  # that it does not see everything
                    torch.cuda.set_sync_debug_mode("error")
            with torch.cuda.stream(self._aside):
                return eagerly(batch, scratch)
        finally:
            torch.cuda.set_sync_debug_mode(allowed)
            main.wait_stream(self._aside)

    def _recorded(self, batch: Batch, scratch: Scratch, eagerly: Run) -> _Recording:
        own, left, graph = batch.copy(), dict(scratch), torch.cuda.CUDAGraph()
        self._without_gradients()  # those of other phases, too: the graph's own take their place
        with torch.cuda.graph(graph):
            output = eagerly(own, left)
        gradients = [(p, p.grad) for p in self._model.parameters() if p.grad is not None]
        return _Recording(graph, own, gradients, left, output)

    def _without_gradients(self) -> None:
        for parameter in self._model.parameters():
            parameter.grad = None

    def _generator(self) -> torch.Generator:
        return torch.cuda.default_generators[torch.cuda.current_device()]


def _told(error: RuntimeError) -> str:
    """What happened, and the line of a loss that asked for it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = next((f for f in reversed(frames) if "torch" not in Path(f.filename).parts), frames[-1])
    return f"{str(error).splitlines()[0]}, in {Path(place.filename).name}:{place.lineno}"
