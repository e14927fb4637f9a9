"""Strict configuration dataclasses: pydantic checks each field, and what was set is remembered."""

from __future__ import annotations

import dataclasses
import functools
import numbers
import re
import typing
import warnings
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, cast

from annotated_types import Ge, Gt, Le

from worldflux.alpha import refuse_configuration
from worldflux.errors import ConfigurationError, did_you_mean
from worldflux.files import read_json_object, write_json

T = TypeVar("T")
SettingsT = TypeVar("SettingsT", bound="Settings")

Natural = Annotated[int, Ge(0)]
Count = Annotated[int, Gt(0)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Rate = Annotated[float, Gt(0), Le(1)]

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text in quotes",
    "tuple_type": "a list of {element}",
    "list_type": "a list of {element}",
    "dict_type": "a table",
    "dataclass_type": "a table",
    "string_too_short": "text that is not empty",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "one line of text without control characters",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "at most {le}",
}
_RECORD = "set_fields"


def expectation(error: Mapping[str, Any], element: str = "names") -> tuple[str, str | None]:
    """What is expected instead, from one of pydantic's errors, and the nearest choice as a hint.

    Args:
        element: what a list holds, where a list is expected.
    """
    template, context = _EXPECTED.get(error["type"]), error.get("ctx", {})
    expected = template.format(element=element, **context) if template else str(error["msg"])
    choices = re.findall(r"'([^']*)'", str(context.get("expected", "")))
    return expected, did_you_mean(str(error["input"]), choices)


def field_types(cls: Any) -> dict[str, Any]:
    """The resolved annotation of each dataclass field of `cls`, without bounds."""
    return _field_types(cls)


@functools.cache  # a project file asks for the same dozen classes again and again
def _field_types(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def fail(
    cls: type,
    name: str,
    value: object,
    expected: str,
    hint: str | None = None,
    related: tuple[str, ...] = (),
) -> NoReturn:
    """Refuse a field's value; `name` may lead into the field, as in `loss_scales['reward']`.

    Args:
        related: other fields that the value does not fit.
    """
    error = ConfigurationError(
        f"{cls.__name__}.{name} = {value!r} is not allowed: expected {expected}", hint=hint
    )
    error.fields = (name.partition("[")[0], *related)
    raise error


def checked(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of fields as their annotations say, with lists as tuples."""
    from pydantic import ValidationError  # late: `worldflux --help` needs none

    result = {}
    for name, value in values.items():
        try:
            result[name] = _adapter(cls, name).validate_python(_plain(value))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            element = "numbers" if "[int" in str(field_types(cls)[name]) else "names"
            inner = "".join(f"[{part!r}]" for part in first["loc"] if part != "[key]")
            given = first["input"] if inner else value
            fail(cls, name + inner, given, *expectation(cast("dict[str, Any]", first), element))
    return result


@functools.cache
def _adapter(cls: type, name: str) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    hint = _annotations(cls)[name]
    lenient = isinstance(hint, type) and issubclass(hint, Enum)  # by value, as files hold it
    return TypeAdapter(hint, config=ConfigDict(strict=not lenient, allow_inf_nan=False))


@functools.cache
def _annotations(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _plain(value: Any) -> Any:
    """Lists as tuples, and numbers of other libraries (numpy's scalars) as Python's."""
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


class Settings:
    """What configurations share: the record of what was set, and their form in JSON files."""

    _set_fields: frozenset[str]

    @classmethod
    def canonical_fields(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """`values` with older spellings replaced by today's names."""
        return dict(values)

    @property
    def set_fields(self) -> frozenset[str]:
        """Names of the fields that the caller (or the preset) set, as against defaults."""
        return self._set_fields

    def refuse(self, name: str, expected: str, *related: str, hint: str | None = None) -> NoReturn:
        """Refuse a field's value, which does not fit the `related` fields."""
        fail(type(self), name, getattr(self, name), expected, hint, related)

    def require_order(self, lower: str, upper: str, *, may_be_equal: bool = True) -> None:
        """Refuse the field `lower` where its number is above that of `upper`."""
        low, high = getattr(self, lower), getattr(self, upper)
        if low > high or (low == high and not may_be_equal):
            bound = "at most" if may_be_equal else "less than"
            self.refuse(lower, f"{bound} {upper}={high}", upper)

    def with_overrides(self: SettingsT, **kwargs: Any) -> SettingsT:
        """A copy with other values, which keeps the record of what was set.

        What was derived from other fields, such as specs from shapes, is derived again.
        """
        values = {name: getattr(self, name) for name in self.set_fields}
        return type(self)(**{**values, **self.canonical_fields(kwargs)})

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON-ready values (enums by value, tuples as lists), and `set_fields`."""
        fields = dataclasses.fields(cast("Any", self))
        values = {field.name: _json(getattr(self, field.name)) for field in fields}
        return {_RECORD: sorted(self.set_fields), **values}

    @classmethod
    def from_dict(cls: type[SettingsT], d: Mapping[str, Any]) -> SettingsT:
        """The configuration that `to_dict` wrote; an unknown key is an error."""
        return cls(**d)

    def save(self, path: str | Path) -> None:
        """Write the configuration as JSON to `path` (a file, or a model folder's config.json)."""
        target = self._file(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, self.to_dict())

    @classmethod
    def load(cls: type[SettingsT], path: str | Path) -> SettingsT:
        """Read a configuration that `save` wrote, from a file or a model's folder.

        Raises:
            ConfigurationError: when the file is missing, too large or not a configuration.
        """
        target = cls._file(path)
        data = read_json_object(target, "configuration file")
        names = [field.name for field in dataclasses.fields(cast("Any", cls))]
        refuse_configuration(data, names, str(target))
        try:
            return cls.from_dict(data)
        except ConfigurationError as error:
            raise ConfigurationError(error.message, where=str(target), hint=error.hint) from None

    @classmethod
    def _file(cls, path: str | Path) -> Path:
        return Path(path)


@typing.dataclass_transform(kw_only_default=False)
def strict_dataclass(cls: type[T]) -> type[T]:
    """`@dataclass` for `Settings`: every value is checked, and the fields that were set are known.

    A default that nobody chose must not override a family's own recipe, so `set_fields` holds the
    names that the caller set. `to_dict`, `dataclasses.replace`, assignment, copy and pickle keep
    that record; fields in `RECIPE_FIELDS` are equal only when both or neither are set. The
    constructor raises ConfigurationError for an unknown field (with the nearest name), one given
    twice and a value that its annotation does not allow.
    """
    data_class: Any = dataclasses.dataclass(cls)
    plain_init: Callable[..., None] = data_class.__init__
    plain_equal: Callable[..., bool] = data_class.__eq__
    data_class.__dataclass_fields__ = _FieldsWithRecord(data_class.__dataclass_fields__)
    fields = [field for field in dataclasses.fields(data_class) if field.init]
    names = [field.name for field in fields]
    positional = [field.name for field in fields if not field.kw_only]

    @functools.wraps(plain_init)
    def init(self: Any, *args: Any, **given: Any) -> None:
        values = {**dict(zip(positional, args, strict=False)), **given}
        if len(values) < len(args) + len(given):
            raise ConfigurationError(f"{cls.__name__} got a field twice, or too many values")
        record = values.pop(_RECORD, None)
        if isinstance(record, frozenset):
            # `dataclasses.replace` passes its changes first; what was not set is derived again.
            changed = list(given)[: list(given).index(_RECORD)]
            values = {name: values[name] for name in values if name in record or name in changed}
        values = type(self).canonical_fields(values)
        for name in values:
            if name not in names:
                hint = did_you_mean(name, names)
                raise ConfigurationError(f"{cls.__name__} has no field {name!r}", hint=hint)
        self._given_fields = self._set_fields = frozenset(values)
        if record is not None and not isinstance(record, frozenset):  # as a file holds it
            if not isinstance(record, (list, tuple)):
                fail(cls, _RECORD, record, "a list of field names")
            self._set_fields &= frozenset(map(str, record))
        plain_init(self, **checked(type(self), values))
        self._complete = True

    def assign(self: Any, name: str, value: Any) -> None:
        if name.startswith("_") or "_complete" not in vars(self):
            object.__setattr__(self, name, value)
        else:
            vars(self).update(vars(self.with_overrides(**{name: value})))

    def equal(self: Any, other: Any) -> bool:
        same = plain_equal(self, other)
        recipe: frozenset[str] = getattr(cls, "RECIPE_FIELDS", frozenset())
        return same if same is not True else not (self.set_fields ^ other.set_fields) & recipe

    data_class.__init__, data_class.__setattr__, data_class.__eq__ = init, assign, equal
    return cast("type[T]", data_class)


@dataclasses.dataclass
class _Record:
    set_fields: dataclasses.InitVar[frozenset[str] | None] = None


class _FieldsWithRecord:
    """`__dataclass_fields__`; an instance's begin with `set_fields`.

    So `dataclasses.replace`, which fills the constructor from them, passes the record on.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields

    def __get__(self, instance: object | None, owner: type) -> dict[str, Any]:
        return self.fields if instance is None else {**_Record.__dataclass_fields__, **self.fields}


def renamed(cls: type, values: Mapping[str, Any], older: Mapping[str, str]) -> dict[str, Any]:
    """`values` with each older name moved to its canonical one, warned about once each."""
    result = dict(values)
    for old, new in older.items():
        if old in result:
            value = result.pop(old)
            warn_renamed(cls, old, new)
            if result.setdefault(new, value) != value:
                fail(cls, old, value, f"nothing, because {new} = {result[new]!r} is given too")
    return result


def warn_renamed(cls: type, old: str, new: str) -> None:
    """One DeprecationWarning that names the field to write instead."""
    warnings.warn(
        f"{cls.__name__}: {old!r} is the older spelling; write {new!r}",
        DeprecationWarning,
        stacklevel=5,
    )


def _json(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (tuple, list)):
        return [_json(item) for item in value]
    return {key: _json(item) for key, item in value.items()} if isinstance(value, dict) else value
