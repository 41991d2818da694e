"""Lists and rows of any length as a few parameters of a query, where IN or VALUES would send one for each member."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

_BARE = frozenset({"bigint", "integer", "smallint", "boolean", "uuid"})  # types whose text needs no quotes in an array


def array(members: Iterable[int | UUID | str]) -> str:
    """PostgreSQL's text of an array of numbers or UUIDs (or of their texts), for `%s::bigint[]` or `%s::uuid[]`.

    psycopg would adapt each member by itself, which for thousands of members takes longer than the query.
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
