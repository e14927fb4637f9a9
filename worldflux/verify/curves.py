"""Published learning curves: the project's own format, those it carries, and a user's own file.

A file holds one source (who published what, under which licence and protocol, with the warnings
that a verdict must repeat) and its curves: mean and population deviation over seeds at numbers of
environment frames.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from worldflux.errors import ConfigurationError
from worldflux.files import read_json_object

FORMAT = 1
EVALUATION_EPISODES = "evaluation episodes"
TRAINING_EPISODES = "training episodes"
_MAX_BYTES = 16 << 20
_TEXTS = ("id", "algorithm", "family", "suite", "protocol", "source", "licence")
_CHOICES = {
    "observation": ("state", "pixels"),
    "evaluation": (EVALUATION_EPISODES, TRAINING_EPISODES),
}


@dataclass(frozen=True)
class Source:
    """Who published what, how it was measured, and what to know before comparing with it.

    `window` is the width, in frames, of the average over training episodes (None: evaluations are
    taken as they are); `agent_steps_per_episode` None: not fixed; `sticky_actions` None: there is
    no such thing outside Atari.
    """

    id: str
    algorithm: str
    family: str
    suite: str
    observation: str
    frames_per_agent_step: int
    agent_steps_per_episode: int | None
    evaluation: str
    window: int | None
    protocol: str
    source: str
    licence: str
    warnings: tuple[str, ...]
    sticky_actions: bool | None = None


@dataclass(frozen=True)
class Curve:
    """One task of a source: returns over environment frames."""

    source: Source
    task: str
    environment: str
    seeds: int
    steps: tuple[int, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]


def built_in_curves() -> list[Curve]:
    """The curves that worldflux carries."""
    folder = resources.files("worldflux.verify") / "published"
    files = sorted((file for file in folder.iterdir()), key=lambda file: file.name)
    return [
        curve
        for file in files
        if file.name.endswith(".json")
        for curve in _parse(json.loads(file.read_text(encoding="utf-8")), file.name)
    ]


def read_curves(path: Path) -> list[Curve]:
    """The curves of a reference file in the same format.

    Raises:
        ConfigurationError: naming what is missing or not allowed.
    """
    content = read_json_object(path, "reference file of learning curves", _MAX_BYTES)
    return _parse(content, str(path))


def canonical_environment(env_id: str) -> str:
    """One name for the ids that mean the same task: dm_control's papers say cup for ball_in_cup."""
    prefix = "dm_control/cup-"
    if env_id.startswith(prefix):
        return "dm_control/ball_in_cup-" + env_id.removeprefix(prefix)
    return env_id


def _parse(content: dict[str, Any], where: str) -> list[Curve]:
    if content.get("format") != FORMAT:
        raise _wrong(f"format is {content.get('format')!r}; this version reads {FORMAT}", where)
    for name in _TEXTS:
        if not isinstance(content.get(name), str) or not content[name].strip():
            raise _wrong(f"{name} must be a text", where)
    for name, allowed in _CHOICES.items():
        if content.get(name) not in allowed:
            raise _wrong(f"{name} must be one of {', '.join(allowed)}", where)
    steps = content.get("agent_steps_per_episode")
    window = content.get("window")
    for name, value in (("agent_steps_per_episode", steps), ("window", window)):
        if value is not None and not _is_count(value, 1):
            raise _wrong(f"{name} must be a whole number or null", where)
    if not _is_count(content.get("frames_per_agent_step"), 1):
        raise _wrong("frames_per_agent_step must be a whole number", where)
    sticky = content.get("sticky_actions")
    if sticky is not None and not isinstance(sticky, bool):
        raise _wrong("sticky_actions must be true, false or null", where)
    warnings = content.get("warnings", [])
    if not isinstance(warnings, list) or not all(isinstance(text, str) for text in warnings):
        raise _wrong("warnings must be a list of texts", where)
    source = Source(
        **{name: content[name] for name in (*_TEXTS, *_CHOICES)},
        frames_per_agent_step=content["frames_per_agent_step"],
        agent_steps_per_episode=steps,
        window=window,
        warnings=tuple(warnings),
        sticky_actions=sticky,
    )
    curves = content.get("curves")
    if not isinstance(curves, list) or not curves:
        raise _wrong("curves must be a list with at least one curve", where)
    return [_curve(source, entry, f"{where}: curves[{i}]") for i, entry in enumerate(curves)]


def _curve(source: Source, entry: Any, where: str) -> Curve:
    if not isinstance(entry, dict):
        raise _wrong("a curve is an object", where)
    for name in ("task", "environment"):
        if not isinstance(entry.get(name), str) or not entry[name]:
            raise _wrong(f"{name} must be a text", where)
    if not _is_count(entry.get("seeds"), 1):
        raise _wrong("seeds must be a whole number", where)
    columns = [entry.get(name) for name in ("steps", "mean", "sd")]
    if not all(isinstance(column, list) and column for column in columns):
        raise _wrong("steps, mean and sd must be lists", where)
    steps, mean, sd = columns
    assert steps is not None
    assert mean is not None
    assert sd is not None
    if len({len(steps), len(mean), len(sd)}) != 1:
        raise _wrong("steps, mean and sd must be of one length", where)
    if not all(_is_count(step, 0) for step in steps) or sorted(set(steps)) != steps:
        raise _wrong("steps must be whole numbers that grow", where)
    if not _are_numbers(mean) or not _are_numbers(sd) or min(sd) < 0:
        raise _wrong("mean and sd must be finite numbers, sd not negative", where)
    return Curve(
        source,
        entry["task"],
        canonical_environment(entry["environment"]),
        entry["seeds"],
        tuple(steps),
        tuple(map(float, mean)),
        tuple(map(float, sd)),
    )


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        for value in values
    )


def _wrong(message: str, where: str) -> ConfigurationError:
    return ConfigurationError(message, where=where, hint="docs/verify.md shows the format")
