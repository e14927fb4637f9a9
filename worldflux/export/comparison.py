"""How far an export's answers are from the agent's, step by step, and which steps rounding decides.

A choice between equal candidates (an argmax, a ranking) falls by the last digit of numbers, which
differs between any two programs. Such a step is recognized by the agent itself: changed in the last
digit of what it is given and of its weights, it makes the export's choice too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from worldflux.acting.agent import Agent
from worldflux.envs.faults import close_environment
from worldflux.errors import ExportError
from worldflux.progress import Progress

from .formats import Runner
from .policy_graph import PolicyGraph
from .states import Values, environment_of, played

TOLERANCE = 1e-5
MOST_BY_ROUNDING = 0.05  # of the steps
_CHANGES = 16  # of the agent's numbers, at a step that differs
_SEED = 4_000_000  # of the states; `eval` and `verify` have others


def compared(
    run: Runner, graph: PolicyGraph, agent: Agent, states: int, progress: Progress
) -> dict[str, Any]:
    """The largest difference of each output from the agent's, the export's memory carried over.

    That of a number is divided by its size where that is above 1. At a step that rounding decides
    it is the difference from the agent's other choice, and the export continues with the agent's
    own memory.
    """
    env = environment_of(agent)
    progress.phase("comparing", states, "states")
    memory = own = {
        port.name: port.zeros().numpy() for port in graph.inputs if port.name.startswith("memory_")
    }
    worst = {port.name: 0.0 for port in graph.outputs}
    by_rounding = 0
    try:
        steps = played(agent, graph, env, states, _SEED)
        for number, (inputs, expected) in enumerate(steps):
            progress.show(number)
            found = run({**inputs, **memory})
            apart = _differences(found, expected)
            # Once an export is refused, it is only measured.
            if max(apart.values()) > TOLERANCE >= max(worst.values()):
                other = _other_choice(graph, {**inputs, **own}, number, found, expected)
                if other is not None:
                    by_rounding, apart, found = by_rounding + 1, other, expected
            worst = {name: max(largest, apart[name]) for name, largest in worst.items()}
            memory = _carried(found, graph)
            own = _carried(expected, graph)
    finally:
        if env is not None:
            close_environment(agent.adapter.name, env)
    return {
        "states": states,
        "states_from": "random observations" if env is None else "the environment",
        "differences": worst,
        "largest_difference": max(worst.values()),
        "decided_by_rounding": {"count": by_rounding, "share": by_rounding / states},
    }


def require_close(file: Path, certificate: dict[str, Any]) -> None:
    """Raise ExportError for what `compared` found, where it is too much."""
    states = f"{certificate['states']:,}"
    if certificate["largest_difference"] > TOLERANCE:
        worst = max(certificate["differences"].items(), key=lambda item: item[1])
        raise ExportError(
            f"the export differs from its agent by {worst[1]:.2g} in {worst[0]!r}, over "
            f"{states} states; {TOLERANCE:.0e} is allowed",
            where=str(file),
        )
    rounding = certificate["decided_by_rounding"]
    if rounding["share"] > MOST_BY_ROUNDING:
        raise ExportError(
            f"rounding decides {rounding['count']:,} of {states} steps ({rounding['share']:.1%}), "
            f"more than {MOST_BY_ROUNDING:.0%}: the export would often act otherwise than its "
            "agent",
            where=str(file),
        )


def _other_choice(
    graph: PolicyGraph, inputs: Values, step: int, found: Values, expected: Values
) -> dict[str, float] | None:
    """How far `found` is from what the agent does otherwise, once its inputs and weights change in
    their last digit; None where it never does that."""
    rng = np.random.default_rng([_SEED, step])
    for _ in range(_CHANGES):
        given = {name: torch.from_numpy(_changed(value, rng)) for name, value in inputs.items()}
        with torch.no_grad(), _weights_changed(graph.model, rng):
            other = {name: output.numpy() for name, output in graph(**given).items()}
        apart = _differences(found, other)
        # Close to both would be a drift, not a choice.
        if max(apart.values()) <= TOLERANCE < max(_differences(other, expected).values()):
            return apart
    return None


@contextmanager
def _weights_changed(model: nn.Module, rng: np.random.Generator) -> Iterator[None]:
    """Every layer then rounds otherwise, as another program's would."""
    weights = list(model.parameters())
    kept = [weight.detach().clone() for weight in weights]
    try:
        for weight in weights:
            weight.copy_(torch.from_numpy(_changed(weight.numpy(force=True), rng)))
        yield
    finally:
        for weight, value in zip(weights, kept, strict=True):
            weight.copy_(value)


def _changed(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each number is the next larger or smaller one; a whole number, which may be a code, stays."""
    if values.dtype.kind != "f":
        return values
    towards = rng.choice([-np.inf, np.inf], values.shape).astype(values.dtype)
    return np.where(np.rint(values) == values, values, np.nextafter(values, towards))


def _carried(outputs: Values, graph: PolicyGraph) -> Values:
    return {f"memory_{name}": outputs[f"next_{name}"] for name in graph.memory}


def _differences(found: Values, expected: Values) -> dict[str, float]:
    return {name: _difference(found[name], value) for name, value in expected.items()}


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        return np.inf
    ours, theirs = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    differences = np.abs(theirs - ours) / np.maximum(1.0, np.abs(ours))
    return float(np.nan_to_num(differences, nan=np.inf).max(initial=0.0))
