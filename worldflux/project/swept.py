"""The check of `[sweep.parameters]`: each names a setting, and gives a range or choices for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from fractions import Fraction
from types import NoneType
from typing import Any, get_args

from worldflux.core.config.validation import field_types
from worldflux.errors import did_you_mean
from worldflux.models.registry import our_families
from worldflux.run_log import is_number
from worldflux.training.config import TrainingConfig

from .document import Document
from .problems import Problem
from .sections import ProjectSections, SweptSection
from .toml_positions import KeyPath

PARAMETERS: KeyPath = ("sweep", "parameters")
_TOP_LEVEL = ("environment", "model")
_KEPT = ("training.output_dir",)  # each trial has a folder of its own
_NUMBERS = "{ low = 1e-4, high = 1e-2 } or { choices = [1e-4, 1e-3] }"
_WHOLE_NUMBERS = "{ low = 64, high = 256 } or { choices = [64, 128] }"


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
        message, hint = _wrong_name(name, known)
        if message is None:
            message, hint = _wrong_values(swept), f'write "{name}" = {_range_of(name)}'
        if message is None and any(map(_holds_table, swept.choices)):
            message, hint = "a choice cannot be a table", f'vary one of its keys: "{name}.KEY"'
        if message is None and swept.step is not None:
            message, hint = _missed_end(swept)
        if message is not None:
            yield document.problem((*PARAMETERS, name), f"{name}: {message}", hint=hint)


def unknown_in_swept(document: Document, path: KeyPath) -> Problem:
    """A key that no parameter has; mostly a dotted name that was written without quotes."""
    name, key = path[2], path[-1]
    if "." in str(name):
        hint = did_you_mean(str(key), ("low", "high", "log", "step", "choices"))
        return document.problem(
            path, f"{name}: unknown key {key!r}", hint=hint or _range_of(str(name))
        )
    hint = f'write the name in quotes: "{name}.{key}" = {_range_of(f"{name}.{key}")}'
    return document.problem(path[:3], f"{name!r} is not the name of a setting", hint=hint)


def _wrong_name(name: str, known: Mapping[str, Sequence[str]]) -> tuple[str | None, str | None]:
    """What is wrong with the name of a parameter, if anything, and a hint."""
    section, _, rest = name.partition(".")
    key = rest.partition(".")[0]
    if name in _KEPT or section == "sweep":
        hint = "leave it out; [sweep.parameters] are settings of the runs"
        if name in _KEPT:
            hint = "leave it out; the folder of all trials: worldflux sweep --output-dir DIR"
        return "a sweep cannot vary this setting", hint
    is_setting = name in _TOP_LEVEL or key in known.get(section, ())
    if is_setting or (section == "environment_kwargs" and key):
        return None, None
    can_vary = [f"{s}.{k}" for s, names in known.items() if s != "sweep" for k in names]
    names = [known_name for known_name in (*_TOP_LEVEL, *can_vary) if known_name not in _KEPT]
    return "there is no such setting", did_you_mean(name, names)


def _range_of(name: str) -> str:
    """How the values of a setting are written: whole numbers, where it takes no others."""
    section, _, key = name.partition(".")
    types = [field_types(kind)[key] for kind in _classes_of(section) if key in field_types(kind)]
    is_whole = bool(types) and all({*(get_args(t) or (t,))} <= {int, NoneType} for t in types)
    return _WHOLE_NUMBERS if is_whole else _NUMBERS


def _classes_of(section: str) -> list[Any]:
    """The classes that have the keys of a section as fields."""
    if section == "architecture":
        return [family.config_class for family in our_families().values()]
    kind = TrainingConfig if section == "training" else field_types(ProjectSections).get(section)
    return [kind] if is_dataclass(kind) else []


def _wrong_values(swept: SweptSection) -> str | None:
    bounds = (swept.low, swept.high)
    if swept.choices:
        others = (*bounds, swept.step)
        return "choices go with no range" if any(v is not None for v in others) else None
    if not all(map(_is_finite, bounds)):
        return "low and high have to be finite numbers, or choices a list"
    if swept.low >= swept.high:
        return f"low = {swept.low} is not below high = {swept.high}"
    if swept.log and swept.low <= 0:
        return f"log = true needs a low above 0, not {swept.low}"
    if swept.step is None:
        return None
    if not _is_finite(swept.step) or swept.step <= 0 or swept.log:
        return "step is a number above 0, and goes without log"
    return None


def _is_finite(value: Any) -> bool:
    return is_number(value) and abs(value) < 1e300


def _holds_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and any(map(_holds_table, value)))


def _missed_end(swept: SweptSection) -> tuple[str | None, str | None]:
    """What is wrong with a range whose steps do not lead to its end, and a hint."""
    low, high, step = (Fraction(str(value)) for value in (swept.low, swept.high, swept.step))
    last = high - (high - low) % step
    if last == high:
        return None, None
    end = int(last) if last.denominator == 1 else float(last)
    hint = f"write high = {end}" if last > low else "write a smaller step"
    message = f"steps of {swept.step} from {swept.low} end at {end}"
    return f"high = {swept.high} is never tried: {message}", hint
