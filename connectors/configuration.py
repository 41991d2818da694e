"""What a connector is made from: a frozen dataclass per kind, read from JSON and checked field by field.

A field says its bounds by `Annotated` and `Bounds`. The same description makes the form of a connection (vms.forms.connections), so that
a form and a stored configuration are judged by one rule.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from connectors.secrets import SecretName, is_secret_name

C = TypeVar("C")
SHOWN = 60  # characters of a wrong value that a message repeats


class FieldType(StrEnum):
    """What a field of a configuration holds."""

    WHOLE = "whole"
    NUMBER = "number"
    FLAG = "flag"
    TEXT = "text"
    DAY = "day"
    CHOICE = "choice"
    SECRET = "secret"  # noqa: S105 (the name of one)


class Wrong(StrEnum):
    """What is wrong with a value."""

    MISSING = "missing"
    UNKNOWN = "unknown"  # the kind has no such field
    NOT_READABLE = "not_readable"  # no number, day, text, … at all
    TOO_SMALL = "too_small"
    TOO_LARGE = "too_large"
    NO_CHOICE = "no_choice"
    NO_SECRET_NAME = "no_secret_name"  # noqa: S105 (a message id)
    NO_OBJECT = "no_object"  # the whole configuration is no JSON object


_SENTENCES = {
    Wrong.MISSING: "{field} is missing",
    Wrong.UNKNOWN: "{field} is no setting of this kind",
    Wrong.NOT_READABLE: "{field} cannot be {value}: it is a {limit}",
    Wrong.TOO_SMALL: "{field} cannot be {value}: it is at least {limit}",
    Wrong.TOO_LARGE: "{field} cannot be {value}: it is at most {limit}",
    Wrong.NO_CHOICE: "{field} cannot be {value}: choose one of {limit}",
    Wrong.NO_SECRET_NAME: "{field} is not the name of a secret: letters, digits and _, beginning with a letter",
    Wrong.NO_OBJECT: "the configuration is no JSON object",
}


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One thing that is wrong. `value` is what was found (never that of a secret), `limit` what would be right."""

    wrong: Wrong
    field: str = ""
    value: str = ""
    limit: str = ""

    def __str__(self) -> str:
        return _SENTENCES[self.wrong].format(field=self.field, value=self.value, limit=self.limit)


class ConfigurationError(ValueError):
    """A configuration that its kind does not understand; `problems` names every one."""

    def __init__(self, problems: tuple[FieldProblem, ...]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """A field of a configuration: what it holds and within which bounds. `default` is None where it may be empty."""

    name: str
    holds: FieldType
    is_required: bool
    is_optional: bool  # None is a value: "not set"
    default: Any
    bounds: Bounds
    choices: type[StrEnum] | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a value is at least and at most (characters, for texts): `seed: Annotated[int, Bounds(least=0)] = 1`."""

    least: Any = None
    most: Any = None


_TYPES: dict[type, FieldType] = {
    int: FieldType.WHOLE,
    float: FieldType.NUMBER,
    bool: FieldType.FLAG,
    str: FieldType.TEXT,
    date: FieldType.DAY,
    SecretName: FieldType.SECRET,
}
LONGEST_TEXT = 200


def fields_of(configuration: type) -> tuple[FieldSpec, ...]:
    """The fields of a configuration, in their order. Raises TypeError if one has a type that no form can show."""
    hints = get_type_hints(configuration, include_extras=True)
    return tuple(_spec(field, hints[field.name]) for field in dataclasses.fields(configuration))


def _spec(field: dataclasses.Field[Any], hint: Any) -> FieldSpec:
    bounds = Bounds()
    if get_origin(hint) is Annotated:
        hint, bounds = get_args(hint)
    parts = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    (kept,) = [part for part in parts if part is not NoneType]
    is_choice = issubclass(kept, StrEnum)
    if not is_choice and kept not in _TYPES:
        raise TypeError(f"{field.name}: a configuration cannot hold {kept}")
    is_required = field.default is dataclasses.MISSING
    return FieldSpec(
        name=field.name,
        holds=FieldType.CHOICE if is_choice else _TYPES[kept],
        is_required=is_required,
        is_optional=len(parts) > 1,
        default=None if is_required else field.default,
        bounds=bounds,
        choices=kept if is_choice else None,
    )


def read(configuration: type[C], stored: object) -> C:
    """The configuration that this JSON object says. Raises ConfigurationError with everything that is wrong with it."""
    if not isinstance(stored, Mapping):
        raise ConfigurationError((FieldProblem(Wrong.NO_OBJECT),))
    specs = {spec.name: spec for spec in fields_of(configuration)}
    problems = [FieldProblem(Wrong.UNKNOWN, str(name)[:SHOWN]) for name in stored if name not in specs]
    values: dict[str, Any] = {}
    for name, spec in specs.items():
        if name not in stored:
            if spec.is_required:
                problems.append(FieldProblem(Wrong.MISSING, name))
            continue
        value = _read_value(spec, stored[name])
        if isinstance(value, FieldProblem):
            problems.append(value)
        else:
            values[name] = value
    if problems:
        raise ConfigurationError(tuple(problems))
    return configuration(**values)


def to_json(conf: Any) -> dict[str, Any]:
    """The configuration as JSON keeps it: days as ISO 8601."""
    found = {field.name: getattr(conf, field.name) for field in dataclasses.fields(conf)}
    return {name: value.isoformat() if isinstance(value, date) else value for name, value in found.items()}


def _read_value(spec: FieldSpec, value: Any) -> Any:
    if value is None and spec.is_optional:
        return None
    if spec.holds is FieldType.SECRET:
        is_name = isinstance(value, str) and is_secret_name(value)
        return SecretName(value) if is_name else FieldProblem(Wrong.NO_SECRET_NAME, spec.name)
    found = _readable(spec.holds, value)
    shown = str(value)[:SHOWN]
    if found is None or (found == "" and spec.is_required):
        return FieldProblem(Wrong.NOT_READABLE, spec.name, shown, _WORDS[spec.holds])
    if spec.choices is not None:
        if found in set(spec.choices):
            return spec.choices(found)
        return FieldProblem(Wrong.NO_CHOICE, spec.name, shown, ", ".join(spec.choices))
    size = len(found) if spec.holds is FieldType.TEXT else found
    least, most = spec.bounds.least, spec.bounds.most
    if spec.holds is FieldType.TEXT and most is None:
        most = LONGEST_TEXT
    if least is not None and size < least:
        return FieldProblem(Wrong.TOO_SMALL, spec.name, shown, str(least))
    if most is not None and size > most:
        return FieldProblem(Wrong.TOO_LARGE, spec.name, shown, str(most))
    return found


_WORDS = {
    FieldType.WHOLE: "whole number",
    FieldType.NUMBER: "number",
    FieldType.FLAG: "true or false",
    FieldType.TEXT: "text",
    FieldType.DAY: "day like 2026-05-20",
    FieldType.CHOICE: "word",
}


def _readable(kind: FieldType, value: Any) -> Any:
    """Convert a JSON value to the type of its field; None if it has another type."""
    if kind is FieldType.FLAG:
        return value if isinstance(value, bool) else None
    if kind in {FieldType.TEXT, FieldType.CHOICE}:
        return value if isinstance(value, str) and "\x00" not in value else None
    if kind is FieldType.DAY:
        return day_of(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if kind is FieldType.WHOLE:
        return int(value) if value == value // 1 else None  # neither a fraction nor infinite
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def day_of(value: object) -> date | None:
    """Convert to a day: a date, or text such as 2026-05-20; None for anything else."""
    if isinstance(value, date):
        return None if isinstance(value, datetime) else value
    if not isinstance(value, str) or len(value) != len("2026-05-20"):
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None
