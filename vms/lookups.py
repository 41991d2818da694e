"""`column = ANY(array)`: membership in a list of any length as one parameter, where IN would send one for each member."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Field, ForeignObject, Lookup


def array(members: Iterable[int | UUID | str]) -> str:
    """PostgreSQL's text of an array of numbers or UUIDs (or of their texts), for `%s::bigint[]` or `%s::uuid[]`.

    A driver would look at each member by itself, which for thousands takes longer than the query.
    """
    return "{" + ",".join(map(str, members)) + "}"


def records(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The JSON of these rows for `json_to_recordset(%s::json)`: one parameter, of any length."""
    return json.dumps([dict(zip(names, row, strict=True)) for row in rows], default=as_json)


def as_json(value: object) -> str:
    """What JSON has no word for, as PostgreSQL reads it: instants and UUIDs."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


@Field.register_lookup
@ForeignObject.register_lookup
class AnyOf(Lookup):
    """`filter(pk__any=ids)`, with numbers or UUIDs of the column's own type; nothing is converted."""

    lookup_name = "any"
    prepare_rhs = False

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """The comparison with one array."""
        column, params = self.process_lhs(compiler, connection)
        kind = self.lhs.output_field.db_type(connection) or "text"
        return f"{column} = ANY(%s::{kind}[])", (*params, array(self.rhs))
