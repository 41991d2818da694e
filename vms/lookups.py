"""Lists and rows of any length as a few parameters: `column = ANY(array)` where IN would send one for each member."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from django.db.models import BooleanField, Field, ForeignObject, JSONField, Lookup

_BARE = frozenset({"bigint", "integer", "smallint", "boolean", "uuid"})  # types whose text needs no quotes in an array


def array(members: Iterable[int | UUID | str]) -> str:
    """PostgreSQL's text of an array of numbers or UUIDs (or of their texts), for `%s::bigint[]` or `%s::uuid[]`.

    A driver would look at each member by itself, which for thousands takes longer than the query.
    """
    return "{" + ",".join(map(str, members)) + "}"


def rowset(types: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> tuple[str, list[str | None]]:
    """SQL that selects these rows (at least one), to stand behind FROM with an alias, and its parameters.

    `types`: PostgreSQL's type of each column by its name, the column that tells rows apart first. A column travels as one
    array, and one in which all rows agree as one value: PostgreSQL reads that in a third of the time that JSON takes, and
    knows how many rows there are.
    """
    shared: list[str | None] = []
    arrays: list[str] = []
    selected: list[str] = []
    names: list[str] = []
    kinds: list[str] = []
    for (name, kind), column in zip(types.items(), zip(*rows, strict=True), strict=True):
        if names and column[0] == column[-1] and column.count(column[0]) == len(column):
            selected.append(f"%s::{kind} AS {name}")
            shared.append(None if column[0] is None else _as_text(kind, column[0]))
        else:
            selected.append(f"r.{name}")
            names.append(name)
            kinds.append(f"%s::{kind}[]")
            arrays.append(_array_of(kind, column))
    sql = f"(SELECT {', '.join(selected)} FROM unnest({', '.join(kinds)}) AS r({', '.join(names)}))"  # noqa: S608 (ours)
    return sql, [*shared, *arrays]


def _array_of(kind: str, column: Sequence[Any]) -> str:
    text = str if kind in _BARE else partial(_quoted, kind)
    return "{" + ",".join(["NULL" if value is None else text(value) for value in column]) + "}"


def _as_text(kind: str, value: Any) -> str:
    if kind == "jsonb":
        return json.dumps(value)
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _quoted(kind: str, value: Any) -> str:
    escaped = _as_text(kind, value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@Field.register_lookup
@ForeignObject.register_lookup
class AnyOf(Lookup):
    """`filter(pk__any=array(ids))`; Django, too, would look at each member of a list by itself."""

    lookup_name = "any"
    prepare_rhs = False

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """The comparison with one array."""
        column, params = self.process_lhs(compiler, connection)
        kind = self.lhs.output_field.db_type(connection) or "text"
        return f"{column} = ANY(%s::{kind}[])", (*params, self.rhs)


@JSONField.register_lookup
class HasTag(Lookup):
    """`filter(tags__has_tag="simulate")`: an object with this key, compared without case, as Azure compares tag names.

    The name must consist of letters, since it becomes part of a pattern. An index with this condition serves it.
    """

    lookup_name = "has_tag"
    output_field = BooleanField()
    prepare_rhs = False

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """A path through the object's pairs; what is no object has no tags."""
        if not str(self.rhs).isalpha():
            raise ValueError(f"{self.rhs!r} is no plain word")
        column, params = self.process_lhs(compiler, connection)
        path = f'$.keyvalue() ? (@.key like_regex "^{self.rhs}$" flag "i")'
        return f"jsonb_path_exists({column}, %s::jsonpath, '{{}}', true)", (*params, path)
