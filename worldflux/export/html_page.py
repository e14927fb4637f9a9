"""A policy and its world model as one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from math import prod
from string import Template
from typing import Any

import numpy as np
from gymnasium import spaces

from worldflux.envs.actions import action_layout

from .flat_program import FlatProgram
from .source import JAVASCRIPT, statements


@dataclass(frozen=True)
class Episode:
    """A recorded episode of T steps, in the environment's own values.

    Attributes:
        observations: `[T, ...]` of each input "observation..." of the policy.
        rows: the actions as the model's rows `[T, A]`.
        rewards: `[T]`, each received with the observation of its step.
    """

    observations: Mapping[str, np.ndarray]
    rows: np.ndarray
    rewards: np.ndarray


def runtime(networks: Mapping[str, FlatProgram]) -> str:
    """JavaScript of the networks "act", "begin" and "imagine", and of what runs them.

    The programs share their constants.
    """
    constants = {name: v for program in networks.values() for name, v in program.constants.items()}
    values = np.concatenate([np.zeros(0), *constants.values()]).astype("<f4")
    lines = [f'const weights = numbers("{base64.b64encode(values.tobytes()).decode()}");']
    start = 0
    for name, constant in constants.items():
        lines.append(f"const {name} = weights.subarray({start}, {start + len(constant)});")
        start += len(constant)
    for name, program in networks.items():
        lines += [f"const {name} = (() => {{", *_network(program), "})();"]
    lines.append(f"return {{ {', '.join(networks)} }};")
    text = _file("runtime.js")
    return Template(text).substitute(networks="\n".join("  " + line for line in lines))


def _network(program: FlatProgram) -> Iterator[str]:
    for name, size in program.sizes.items():
        yield f"  const {name} = new Float32Array({size});"
    sizes = {
        kind: ", ".join(f"{name}: {prod(shape)}" for name, shape in ports.items())
        for kind, ports in (("inputs", program.inputs), ("outputs", program.outputs))
    }
    yield f"  const inputs = {{ {sizes['inputs']} }};"
    yield f"  const outputs = {{ {sizes['outputs']} }};"
    arguments = f"{{ {', '.join(program.inputs)} }}, {{ {', '.join(program.outputs)} }}"
    yield f"  function run({arguments}) {{"
    yield from ("    " + line for line in statements(program, JAVASCRIPT))
    yield "  }"
    yield "  return { inputs, outputs, run };"


def html_page(
    title: str,
    facts: Mapping[str, str],
    networks: Mapping[str, FlatProgram],
    observation_spaces: Mapping[str, spaces.Space],
    action_space: spaces.Space,
    episode: Episode,
) -> str:
    """The page as text.

    Args:
        facts: what the page says about the export.
        observation_spaces: of each input "observation..." of the policy.
    """
    begun = networks["begin"].outputs
    channels = list(_channels(observation_spaces, begun))
    data = {
        "facts": list(facts.items()),
        "channels": channels,
        "decodes": any(channel["predicted"] for channel in channels),
        "action": _action(action_space),
        "episode": {
            "observations": {
                name: _rounded(values.reshape(len(values), -1))
                for name, values in episode.observations.items()
            },
            "rows": _rounded(episode.rows),
            "rewards": _rounded(episode.rewards),
        },
    }
    return Template(_file("page.html")).substitute(
        title=html.escape(title),
        style=_file("page.css"),
        numbers=", ".join("0" for _ in channels) if len(observation_spaces) == 1 else "...",
        data=json.dumps(data).replace("<", "\\u003c"),
        runtime=runtime(networks),
        page=_file("page.js"),
    )


def _channels(
    observed: Mapping[str, spaces.Space], predictions: Mapping[str, tuple[int, ...]]
) -> Iterator[dict[str, Any]]:
    """Each number of an observation: where it goes in, its label, and its prediction if any."""
    for name, space in observed.items():
        size = int(np.prod(space.shape or (), dtype=int))
        part = name.removeprefix("observation").removeprefix("_")
        predicted = f"predicted_{part or 'obs'}"
        known = isinstance(space, spaces.Box) and prod(predictions.get(predicted, (0,))) == size
        for index in range(size):
            label = f"{part or 'observation'} {index}" if size > 1 else part or "observation"
            yield {
                "input": name,
                "index": index,
                "label": label,
                "predicted": predicted if known else None,
            }


def _action(space: spaces.Space) -> dict[str, Any]:
    """The columns of the model's rows, and the bounds (or first choices) of the actions."""
    layout = action_layout("the environment", space)
    low = space.low if isinstance(space, spaces.Box) else getattr(space, "start", 0)
    high = space.high if isinstance(space, spaces.Box) else 0
    parts = len(layout.widths) if layout.discrete else layout.widths[0]
    bounds = {"low": low, "high": high}
    return {
        "discrete": layout.discrete,
        "widths": layout.widths,
        **{name: np.broadcast_to(np.ravel(v), (parts,)).tolist() for name, v in bounds.items()},
    }


def _rounded(values: np.ndarray) -> list[Any]:
    """As short as float32 reads back exactly."""
    if values.ndim > 1:
        return [_rounded(row) for row in values]
    return [float(f"{value:.9g}") for value in values.astype(np.float32)]


def _file(name: str) -> str:
    return (resources.files("worldflux.export") / "page" / name).read_text(encoding="utf-8")
