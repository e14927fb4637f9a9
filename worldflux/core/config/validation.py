"""Checks shared by every configuration dataclass: types, bounds, unknown and older names."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import types
import typing
import warnings
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, TypeVar, cast

from worldflux.errors import ConfigurationError, did_you_mean

T = TypeVar("T")


@functools.cache
def field_types(cls: Any) -> dict[str, Any]:
    """The resolved annotation of each dataclass field of `cls`."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def fail(
    cls: type, name: str, value: object, allowed: str, hint: str | None = None
) -> typing.NoReturn:
    """Raise the one error shape that all fields share: field, value, what is allowed.

    Raises:
        ConfigurationError: always.
    """
    raise ConfigurationError(
        f"{cls.__name__}.{name} = {value!r} is not allowed: expected {allowed}", hint=hint
    )


@typing.dataclass_transform(kw_only_default=False)
def strict_dataclass(cls: type[T]) -> type[T]:
    """`@dataclass` whose constructor knows which fields were set and refuses unknown ones.

    A class may offer `canonical_fields(given) -> given`, which maps older spellings to today's
    names. The names that the caller set are kept in `set_fields`: a default that nobody chose must
    not override a family's own recipe. `to_dict`, `dataclasses.replace`, assignment, copy and
    pickle keep that record; fields in `RECIPE_FIELDS` are equal only when both or neither are set.
    The constructor raises ConfigurationError for an unknown field, with the nearest name, and for
    one given twice.
    """
    data_class: Any = dataclasses.dataclass(cls)
    plain_init: Callable[..., None] = data_class.__init__
    plain_equal: Callable[..., bool] = data_class.__eq__
    data_class.__dataclass_fields__ = _FieldsWithRecord(data_class.__dataclass_fields__)
    fields = dataclasses.fields(data_class)
    names = tuple(field.name for field in fields if field.init)
    positional = tuple(field.name for field in fields if field.init and not field.kw_only)

    @functools.wraps(plain_init)
    def init(self: Any, *args: Any, **given: Any) -> None:
        if len(args) > len(positional):
            limit = f"at most {len(positional)} values by place"
            raise ConfigurationError(f"{cls.__name__} takes {limit}")
        values = dict(zip(positional, args, strict=False))
        repeated = values.keys() & given.keys()
        if repeated:
            raise ConfigurationError(f"{cls.__name__}.{sorted(repeated)[0]} was given twice")
        values.update(given)
        record = values.pop(_RECORD, None)
        if isinstance(record, frozenset):
            # `dataclasses.replace` passes its changes first; what was not set is derived again.
            changed = list(given)[: list(given).index(_RECORD)]
            values = {name: values[name] for name in values if name in record or name in changed}
        canonical = getattr(cls, "canonical_fields", None)
        if canonical is not None:
            values = canonical(values)
        for name in values:
            if name not in names:
                raise ConfigurationError(
                    f"{cls.__name__} has no field {name!r}", hint=did_you_mean(name, names)
                )
        self._given_fields = self._set_fields = frozenset(values)
        if record is not None and not isinstance(record, frozenset):  # as a file holds it
            self._set_fields &= _named_fields(cls, record)
        plain_init(self, **values)
        self._complete = True

    def assign(self: Any, name: str, value: Any) -> None:
        if name.startswith("_") or "_complete" not in vars(self):
            object.__setattr__(self, name, value)
            return
        chosen = {field: getattr(self, field) for field in self._set_fields}
        vars(self).update(vars(type(self)(**{**chosen, name: value})))

    def equal(self: Any, other: Any) -> bool:
        same = plain_equal(self, other)
        if same is not True:
            return same
        recipe: frozenset[str] = getattr(cls, "RECIPE_FIELDS", frozenset())
        return not (self._set_fields ^ other._set_fields) & recipe

    data_class.__init__, data_class.__setattr__, data_class.__eq__ = init, assign, equal
    return cast("type[T]", data_class)


_RECORD = "set_fields"


@dataclasses.dataclass
class _Record:
    set_fields: dataclasses.InitVar[frozenset[str] | None] = None


class _FieldsWithRecord:
    """`__dataclass_fields__`; an instance's begin with `set_fields`.

    So `dataclasses.replace`, which fills the constructor from them, hands the record on.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields

    def __get__(self, instance: object | None, owner: type) -> dict[str, Any]:
        return self.fields if instance is None else {**_Record.__dataclass_fields__, **self.fields}


def _named_fields(cls: type, record: Any) -> frozenset[str]:
    if not isinstance(record, (list, tuple)) or not all(isinstance(name, str) for name in record):
        fail(cls, _RECORD, record, "a list of field names")
    return frozenset(record)


def renamed(cls: type, values: Mapping[str, Any], older: Mapping[str, str]) -> dict[str, Any]:
    """`values` with each older name moved to its canonical one, warned about once each."""
    result = dict(values)
    for old, new in older.items():
        if old not in result:
            continue
        value = result.pop(old)
        warn_renamed(cls, old, new)
        if new in result and result[new] != value:
            fail(cls, old, value, f"nothing, because {new} = {result[new]!r} is given too")
        result[new] = value
    return result


def warn_renamed(cls: type, old: str, new: str) -> None:
    """One DeprecationWarning that names the field to write instead."""
    warnings.warn(
        f"{cls.__name__}: {old!r} is the older spelling; write {new!r}",
        DeprecationWarning,
        stacklevel=5,
    )


def check_types(config: Any) -> None:
    """Check every field against its annotation, turning lists into tuples and ints into floats.

    Raises:
        ConfigurationError: naming the field, its value and the type that is expected.
    """
    cls: Any = type(config)
    for name, annotation in field_types(cls).items():
        value = getattr(config, name)
        setattr(config, name, _checked(cls, name, value, annotation))


def check_bounds(config: Any, bounds: Mapping[str, tuple[float | None, float | None]]) -> None:
    """Check numeric fields against inclusive (lowest, highest) bounds; None means open."""
    cls = type(config)
    for name, (lowest, highest) in bounds.items():
        value = getattr(config, name)
        if value is None:
            continue
        if (lowest is not None and value < lowest) or (highest is not None and value > highest):
            if highest is None:
                allowed = f"at least {lowest}"
            elif lowest is None:
                allowed = f"at most {highest}"
            else:
                allowed = f"between {lowest} and {highest}"
            fail(cls, name, value, allowed)


def check_choice(config: Any, name: str, choices: tuple[str, ...]) -> None:
    """Check that a text field holds one of `choices`."""
    value = getattr(config, name)
    if value not in choices:
        allowed = "one of " + ", ".join(repr(choice) for choice in choices)
        fail(type(config), name, value, allowed, did_you_mean(str(value), choices))


def check_positive(config: Any, *names: str) -> None:
    """Check that each of these numbers is above zero (None is passed over)."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > 0:
            fail(type(config), name, value, "a number above 0")


def _checked(cls: Any, name: str, value: Any, annotation: Any) -> Any:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return _checked_union(cls, name, value, annotation)
    if annotation is Any:
        return value
    if origin is typing.Literal:
        if value not in typing.get_args(annotation):
            allowed = "one of " + ", ".join(repr(v) for v in typing.get_args(annotation))
            fail(cls, name, value, allowed)
        return value
    if origin is tuple:
        return _checked_tuple(cls, name, value, annotation)
    if origin is dict:
        return _checked_dict(cls, name, value, annotation)
    return _checked_scalar(cls, name, value, annotation)


def _checked_union(cls: type, name: str, value: Any, annotation: Any) -> Any:
    if value is None:
        return None
    members = [member for member in typing.get_args(annotation) if member is not type(None)]
    return _checked(cls, name, value, members[0])


def _checked_tuple(cls: type, name: str, value: Any, annotation: Any) -> tuple[Any, ...]:
    element = typing.get_args(annotation)[0]
    if not isinstance(value, (list, tuple)):
        fail(cls, name, value, f"a list of {'names' if element is str else 'numbers'}")
    return tuple(_checked(cls, name, item, element) for item in value)


def _checked_dict(cls: type, name: str, value: Any, annotation: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        fail(cls, name, value, "a table with text keys")
    element = typing.get_args(annotation)[1]
    return {key: _checked(cls, f"{name}[{key!r}]", item, element) for key, item in value.items()}


def _checked_scalar(cls: type, name: str, value: Any, annotation: type) -> Any:
    if annotation is bool:
        if not isinstance(value, bool):
            fail(cls, name, value, "true or false")
        return value
    if annotation is int:
        if isinstance(value, (bool, float, str)):
            fail(cls, name, value, "a whole number")
        try:
            return operator.index(value)
        except TypeError:
            fail(cls, name, value, "a whole number")
    if annotation is float:
        if isinstance(value, (bool, str)) or not isinstance(value, typing.SupportsFloat):
            fail(cls, name, value, "a number")
        number = float(value)
        if not math.isfinite(number):
            fail(cls, name, value, "a finite number")
        return number
    if annotation is str:
        if isinstance(value, Enum) or not isinstance(value, str):
            fail(cls, name, value, "text")
        return value
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        try:
            return annotation(value.lower() if isinstance(value, str) else value)
        except ValueError:
            fail(cls, name, value, "one of " + ", ".join(repr(m.value) for m in annotation))
    raise AssertionError(f"{cls.__name__}.{name}: no check for {annotation!r}")
