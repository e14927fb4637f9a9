"""The check of `[sweep.parameters]`: each names a setting, and gives a range or choices for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from worldflux.errors import did_you_mean
from worldflux.run_log import is_number

from .document import Document
from .problems import Problem
from .sections import ProjectSections, SweptSection
from .toml_positions import KeyPath

PARAMETERS: KeyPath = ("sweep", "parameters")
_TOP_LEVEL = ("environment", "model")
_KEPT = ("training.output_dir",)  # each trial has a folder of its own
_RANGE = "{ low = 1e-4, high = 1e-2 } or { choices = [64, 128] }"


def swept_problems(
    document: Document,
    sections: ProjectSections | None,
    known_keys: Callable[[Document], Mapping[str, Sequence[str]]],
) -> Iterator[Problem]:
    """What is wrong with the parameters of a sweep, each at its place.

    Args:
        known_keys: the keys of each section.
    """
    parameters = {} if sections is None else sections.sweep.parameters
    known = known_keys(document) if parameters else {}
    for name, swept in parameters.items():
        message, hint = _wrong_name(name, known), None
        if message is None:
            message, hint = _wrong_values(swept), f'write "{name}" = {_RANGE}'
        else:
            keys = [*_TOP_LEVEL, *(f"{s}.{key}" for s, names in known.items() for key in names)]
            hint = did_you_mean(name, keys)
        if message is not None:
            yield document.problem((*PARAMETERS, name), f"{name}: {message}", hint=hint)


def unknown_in_swept(document: Document, path: KeyPath) -> Problem:
    """A key that no parameter has; mostly a dotted name that was written without quotes."""
    name, key = path[2], path[-1]
    if "." in str(name):
        hint = did_you_mean(str(key), ("low", "high", "log", "step", "choices"))
        return document.problem(path, f"{name}: unknown key {key!r}", hint=hint or _RANGE)
    hint = f'write the name in quotes: "{name}.{key}" = {_RANGE}'
    return document.problem(path[:3], f"{name!r} is not the name of a setting", hint=hint)


def _wrong_name(name: str, known: Mapping[str, Sequence[str]]) -> str | None:
    section, _, rest = name.partition(".")
    key = rest.partition(".")[0]
    if section == "sweep" or name in _KEPT:
        return "a sweep cannot vary this setting"
    if name in _TOP_LEVEL or (section == "environment_kwargs" and key):
        return None
    return None if key in known.get(section, ()) else "there is no such setting"


def _wrong_values(swept: SweptSection) -> str | None:
    bounds = (swept.low, swept.high)
    if swept.choices:
        others = (*bounds, swept.step)
        return "choices go with no range" if any(v is not None for v in others) else None
    if not all(map(is_number, bounds)):
        return "low and high have to be numbers, or choices a list"
    if swept.low >= swept.high:
        return f"low = {swept.low} is not below high = {swept.high}"
    if swept.log and swept.low <= 0:
        return f"log = true needs a low above 0, not {swept.low}"
    if swept.step is None:
        return None
    if not is_number(swept.step) or swept.step <= 0 or swept.log:
        return "step is a number above 0, and goes without log"
    return None
