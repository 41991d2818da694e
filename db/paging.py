"""Pages of any table that cost the same however far down they are: each begins at the row where the last one ended.

A list has an `Order` for each way that it sorts, with an index of the same columns. `page_of` reads a page of it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import pairwise
from operator import attrgetter
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

from django.core.exceptions import EmptyResultSet
from django.db.models import F, Field, Func, Model, QuerySet, TextField, Value
from django.db.models.lookups import GreaterThan, LessThan

from db.bounded import fetch_bounded

PAGE_SIZE = 50

T = TypeVar("T")
M = TypeVar("M", bound=Model)

Key = str | int | datetime | date | UUID
# What a field holds, by its class; in a cursor it is text or a number.
_KINDS: dict[str, type[Key]] = {
    **dict.fromkeys(("CharField", "TextField"), str),
    **dict.fromkeys(("AutoField", "BigAutoField", "IntegerField", "BigIntegerField", "SmallIntegerField"), int),
    **dict.fromkeys(("PositiveIntegerField", "PositiveBigIntegerField", "PositiveSmallIntegerField"), int),
    "DateTimeField": datetime,
    "DateField": date,
    "UUIDField": UUID,
}


@dataclass(frozen=True, slots=True)
class Order:
    """Columns that rows are sorted by, a minus before those that descend; the last is the primary key.

    The direction may change once. It says nothing of the table, only of the kinds of the columns: see `of`.
    """

    name: str
    columns: tuple[str, ...]
    kinds: tuple[type[Key], ...]

    @classmethod
    def of(cls, model: type[Model], name: str, *columns: str) -> Self:
        """The order of this model's rows. Raises `ValueError` for columns by which pages cannot be told apart."""
        fields = [_field(model, column.lstrip("-")) for column in columns]
        # Django marks every generated column as nullable.
        may_be_empty = [field.null and not field.generated for field in fields]
        unfit = [
            field.name
            for field, is_empty in zip(fields, may_be_empty, strict=True)
            if is_empty or field.get_internal_type() not in _KINDS
        ]
        if unfit:
            raise ValueError(f"rows of {model.__name__} cannot be paged by {', '.join(unfit)}")
        if not fields or not fields[-1].primary_key:
            raise ValueError(f"the order {name} does not end with the primary key")
        turns = sum(a.startswith("-") != b.startswith("-") for a, b in pairwise(columns))
        if turns > 1:
            raise ValueError(f"the order {name} changes its direction more than once")
        return cls(name, columns, tuple(_KINDS[field.get_internal_type()] for field in fields))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns without their direction."""
        return tuple(column.lstrip("-") for column in self.columns)

    @property
    def reversed(self) -> Order:
        """The same from its end."""
        columns = tuple(column[1:] if column.startswith("-") else f"-{column}" for column in self.columns)
        return Order(self.name, columns, self.kinds)

    def towards(self, place: Cursor | None) -> tuple[str, ...]:
        """The columns in the direction in which rows are read from this place on."""
        return self.columns if place is None or not place.is_backward else self.reversed.columns


def _field(model: type[Model], path: str) -> Field[Any, Any]:
    """The field at the end of a path through foreign keys that are always there."""
    *relations, last = path.split("__")
    for name in relations:
        field = model._meta.get_field(name)
        if not isinstance(field, Field) or field.null or field.related_model is None:
            raise ValueError(f"{model.__name__}.{name} does not always lead to a row")
        model = field.related_model
    found = model._meta.pk if last == "pk" else model._meta.get_field(last)
    if not isinstance(found, Field):
        raise TypeError(f"{path} is no column")
    return found


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place between two rows of one order. Opaque in addresses; anything but our own text is no cursor."""

    order: str
    is_backward: bool
    values: tuple[Key, ...]

    def __str__(self) -> str:
        values = [value if isinstance(value, (str, int)) else str(value) for value in self.values]
        text = json.dumps([self.order, self.is_backward, *values], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def at(cls, row: Any, order: Order, *, is_backward: bool) -> Self:
        """The place after (or before) this row, which has the columns as attributes."""
        names = (name.replace("__", ".") for name in order.names)
        return cls(order.name, is_backward, tuple(attrgetter(name)(row) for name in names))

    @classmethod
    def parse(cls, text: str, order: Order) -> Self | None:
        """The cursor that this text is, or None: then the list starts at its first page."""
        try:
            decoded = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
            name, is_backward, *values = decoded
            if name != order.name or not isinstance(is_backward, bool):
                return None
            read = tuple(_read_key(value, kind) for value, kind in zip(values, order.kinds, strict=True))
        except (ValueError, TypeError, RecursionError):
            return None
        return cls(order.name, is_backward, read)


def _read_key(value: Any, kind: type[Key]) -> Key:
    """A value of a cursor. Raises `ValueError` or `TypeError` for what is none, or what PostgreSQL cannot hold."""
    if kind is int:
        if type(value) is not int or not -(2**63) <= value < 2**63:
            raise ValueError(value)
        return value
    if not isinstance(value, str) or "\x00" in value or value.encode(errors="replace").decode() != value:
        raise ValueError(value)
    if kind is datetime:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError(value)
        return moment
    if kind is date:
        return date.fromisoformat(value)
    return UUID(value) if kind is UUID else value


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows, and the places before and after them (empty: there is nothing there)."""

    rows: tuple[T, ...]
    previous: str = ""
    next: str = ""


def beyond(rows: QuerySet[M, M], *, order: Order, place: Cursor | None, limit: int) -> QuerySet[M, M]:
    """At least `limit` of these rows beyond the place, if there are as many, sorted as they are read from there.

    For one direction it is one range of an index, `(a, b) > (x, y)`, however many ties there are. PostgreSQL compares rows in
    one direction only: where that changes, the rows are two ranges of the same index, first the ties, then the rest,
    instead of an OR that would walk through all ties of a common value.
    """
    columns = order.towards(place)
    ordered = rows.order_by(*columns)
    if place is None:
        return ordered
    descends = [column.startswith("-") for column in columns]
    if len(set(descends)) == 1:
        return ordered.filter(_comparison(columns, place.values))
    turn = descends.index(not descends[0])
    same = dict(zip(order.names[:turn], place.values, strict=False))
    ties = ordered.filter(**same).filter(_comparison(columns[turn:], place.values[turn:]))
    others = ordered.filter(_comparison(columns[:turn], place.values[:turn]))
    return ordered.filter(pk__in=ties.values("pk")[:limit].union(others.values("pk")[:limit], all=True))


def _comparison(columns: tuple[str, ...], values: tuple[Key, ...]) -> GreaterThan | LessThan:
    comparison = LessThan if columns[0].startswith("-") else GreaterThan
    return comparison(_row(*(F(name.lstrip("-")) for name in columns)), _row(*(Value(value) for value in values)))


def _row(*expressions: F | Value) -> Func:
    return Func(*expressions, template="(%(expressions)s)", output_field=TextField())


def cut(rows: Sequence[T], *, order: Order | Callable[[T], Order], place: Cursor | None, size: int) -> Page[T]:
    """The page that these rows are: `size` and one more, in the order in which they were read from the place on.

    `order`: what says it of a row, where rows of several orders follow each other.
    """
    order_of = (lambda _row: order) if isinstance(order, Order) else order
    is_backward = place is not None and place.is_backward
    has_more = len(rows) > size
    kept = list(rows[:size])
    if is_backward:
        kept.reverse()
    has_previous = has_more if is_backward else place is not None
    has_next = is_backward or has_more
    return Page(
        tuple(kept),
        previous=str(Cursor.at(kept[0], order_of(kept[0]), is_backward=True)) if kept and has_previous else "",
        next=str(Cursor.at(kept[-1], order_of(kept[-1]), is_backward=False)) if kept and has_next else "",
    )


def page_of(
    rows: QuerySet[M, M],
    *,
    order: Order,
    cursor: str = "",
    size: int = PAGE_SIZE,
    among: Sequence[QuerySet[M, M]] = (),
) -> Page[M]:
    """One page of these rows in two queries; see `rows_beyond`. Raises `ListTooSlowError`."""
    place = Cursor.parse(cursor, order)
    return cut(
        rows_beyond(rows, order=order, place=place, limit=size + 1, among=among), order=order, place=place, size=size
    )


def rows_beyond(
    rows: QuerySet[M, M],
    *,
    order: Order,
    place: Cursor | None,
    limit: int,
    among: Sequence[QuerySet[M, M]] = (),
) -> list[M]:
    """The next rows beyond a place: their keys within the time that a list has, then the rows with what they join.

    `among`: parts that the rows are in, each with an index of this order, whose heads are merged; none: the rows themselves.
    Raises `ListTooSlowError`.
    """
    columns = order.towards(place)
    keys = {f"key_{number}": F(name) for number, name in enumerate(order.names)}
    heads = [
        beyond(part, order=order, place=place, limit=limit).annotate(**keys).values_list(*keys)[:limit]
        for part in among or (rows,)
    ]
    merged = [f"-{key}" if column.startswith("-") else key for key, column in zip(keys, columns, strict=True)]
    query = heads[0].union(*heads[1:]).order_by(*merged)[:limit] if len(heads) > 1 else heads[0]
    try:
        found = [row[-1] for row in fetch_bounded(*query.query.sql_with_params())]
    except EmptyResultSet:
        return []
    return list(rows.filter(pk__in=found).order_by(*columns))
