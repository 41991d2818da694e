"""The list of machines: search by name, filters, a page at a time."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from django.contrib.postgres.expressions import ArraySubquery
from django.contrib.postgres.search import SearchQuery
from django.core.exceptions import EmptyResultSet
from django.db.models import F, Func, IntegerField, QuerySet, Subquery, TextField, Value
from django.utils.translation import get_language

from db.bounded import fetch_bounded
from db.paging import PAGE_SIZE, Cursor, Order, beyond, cut
from vms.choices import HOTPATCH_STATUSES, HOTPATCH_TRACKS, PATCHERS, POWER_STATES, PRODUCT_LINES, UPDATE_STATUSES
from vms.models import NAME_SEARCH, NEXT_REBOOT, VirtualMachine, VirtualMachineQuerySet

MAX_COUNT = 1_000  # also the number of search matches that are sorted

# Each order is an index of the model read in one direction; the id makes it total.
ORDERS = {
    name: Order.of(VirtualMachine, name, *columns)
    for name, columns in {
        "need": ("-need", "-critical_and_security_count", "name", "id"),
        "-need": ("need", "critical_and_security_count", "-name", "-id"),
        "name": ("name", "id"),
        "-name": ("-name", "-id"),
        "update_status": ("update_status", "name", "id"),
        "-update_status": ("-update_status", "-name", "-id"),
        "critical": ("critical_and_security_count", "-name", "-id"),
        "-critical": ("-critical_and_security_count", "name", "id"),
        "track": ("hotpatch_track", "name", "id"),
        "-track": ("-hotpatch_track", "-name", "-id"),
        "reboot": ("next_reboot", "name", "id"),
        "-reboot": ("-next_reboot", "-name", "-id"),
    }.items()
}
DEFAULT_ORDER = "need"


class ListedVm(NamedTuple):
    """What the list shows of a VM: a part of its columns, and the words for its values in the reader's language."""

    id: int
    name: str
    critical_and_security_count: int
    other_count: int
    resource_group: str
    location: str
    connection: str
    desired_settings: Any  # None: it has the settings that it shall have
    need: int
    next_reboot: str  # the month, or what stands in place of it (`vms.choices`); empty: nobody has told yet
    next_reboot_outlook: str
    next_reboot_cause: str
    # None where nobody asked for them
    image_sku: str | None
    tags: str | None  # as JSON
    assessed_at: datetime | None
    update_status: str
    hotpatch_status: str
    hotpatch_track: str
    power_state: str
    patcher: str
    product_line: str
    update_status_label: str
    hotpatch_status_label: str
    hotpatch_track_label: str
    power_state_label: str
    patcher_label: str
    product_line_label: str


_LABELLED = (UPDATE_STATUSES, HOTPATCH_STATUSES, HOTPATCH_TRACKS, POWER_STATES, PATCHERS, PRODUCT_LINES)
_FIRST = (
    *("id", "name", "critical_and_security_count", "other_count"),
    *("resource_group__name", "location", "connection__name", "desired_settings", "need"),
    *NEXT_REBOOT,
)
# What is read where a column shows it only. The last is what a floor above knows (`tell_assessed`).
EXTRAS = ("image_sku", "tags", "assessed_at")
_LAST = ("update_status", "hotpatch_status", "hotpatch_track", "power_state", "patcher", "product_line")
# The same of the table itself, for rows that stand for it.
_MATCHED = tuple(name.replace("__name", "_id") for name in (*_FIRST, "image_sku", "tags", *_LAST))
_told: dict[str, Subquery[Any]] = {}


def tell_assessed(expression: Subquery[Any]) -> None:
    """Let this expression, over a VM, say when it was assessed last. Once a process, by the floor that knows."""
    _told["assessed_at"] = expression


def assessed_at() -> Subquery[Any] | None:
    """What says of a VM when it was assessed last, if a floor above has told."""
    return _told.get("assessed_at")


def _extra(name: str, extras: Collection[str]) -> Any:
    """What is selected for one of `EXTRAS`."""
    if name not in extras:
        return Value(None, output_field=TextField())
    return _told[name] if name in _told else F(name)


@cache
def _labels(_language: str | None) -> list[dict[str, str]]:
    """The words for the values of the columns of `_LAST`, in the language that is active."""
    return [{value: str(label) for value, label in choices} for choices in _LABELLED]


def _listed(rows: Iterable[tuple[Any, ...]]) -> list[ListedVm]:
    """These rows (of `_FIRST`, `EXTRAS` and `_LAST`) with their labels."""
    labels = _labels(get_language())
    return [
        ListedVm(*row, *(words.get(value, value) for words, value in zip(labels, row[-len(labels) :], strict=True)))
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class VmPage:
    """One page of the list. `count` stops at `MAX_COUNT`; beyond it `is_count_exact` is False."""

    vms: tuple[ListedVm, ...]
    count: int
    is_count_exact: bool
    is_search_cut: bool  # more matches than are sorted
    previous: str
    next: str


def search_by_name(vms: VirtualMachineQuerySet, words: str) -> VirtualMachineQuerySet:
    """VMs whose name has, for every word, a part (names are split at - _ .) that starts with it."""
    lexemes = [
        "'" + word.replace("\\", "\\\\").replace("'", "''") + "':*" for word in re.split(r"[-_.\s]+", words) if word
    ]
    if not lexemes:
        return vms
    query = SearchQuery(" & ".join(lexemes), search_type="raw", config="simple")
    return vms.annotate(name_search=NAME_SEARCH).filter(name_search=query)


def vm_page(
    vms: VirtualMachineQuerySet,
    *,
    words: str = "",
    order: str = DEFAULT_ORDER,
    cursor: str = "",
    extras: Collection[str] = (),
) -> VmPage:
    """One page of these (visible, filtered) VMs, in one statement whose cost does not grow with the page number.

    `extras`: which of `EXTRAS` are read, too. A search sorts no more than its first 1,000 matches. Raises `db.bounded.ListTooSlowError`.
    """
    way = ORDERS[order]
    place = Cursor.parse(cursor, way)
    found = search_by_name(vms.order_by(), words)
    is_search = bool(words.strip())
    rows, count = _read(found, way, place, is_search=is_search, extras=extras)
    page = cut(rows, order=way, place=place, size=PAGE_SIZE)
    return VmPage(
        vms=page.rows,
        count=min(count, MAX_COUNT),
        is_count_exact=count <= MAX_COUNT,
        is_search_cut=is_search and count > MAX_COUNT,
        previous=page.previous,
        next=page.next,
    )


def _read(
    found: VirtualMachineQuerySet, order: Order, place: Cursor | None, *, is_search: bool, extras: Collection[str]
) -> tuple[list[ListedVm], int]:
    """The next rows from this place on, and how many there are in all, up to one more than are counted."""
    try:
        sql, params = page_sql(found, order, place, is_search=is_search, extras=extras)
    except EmptyResultSet:
        return [], 0
    rows = fetch_bounded(sql, params)
    if rows:
        return _listed(row[:-1] for row in rows), rows[0][-1]
    # Where the place lies behind the last row, nothing has said how many there are.
    return [], _read(found, order, None, is_search=is_search, extras=())[1] if place else 0


def page_sql(
    found: VirtualMachineQuerySet, order: Order, place: Cursor | None, *, is_search: bool, extras: Collection[str] = ()
) -> tuple[str, tuple[Any, ...]]:
    """What reads a page: its rows and one more, each followed by how many there are in all.

    Raises `EmptyResultSet` where it is known beforehand that there are none.
    """
    some = found[: MAX_COUNT + 1]
    if not is_search:
        count = Func(ArraySubquery(some.values("pk")), function="cardinality", output_field=IntegerField())
        return _rows_beyond(found, order, place, count=count, extras=extras).query.sql_with_params()
    # A search is sorted where its matches are at hand: for this statement they are the table. PostgreSQL would else walk
    # the index of the names until 51 of a thousand have come by, which is the whole fleet for those at its end.
    sql, params = some.values(*_MATCHED).query.sql_with_params()
    count = Func(template="(SELECT count(*) FROM matches)", output_field=IntegerField())
    every = VirtualMachine.objects.all()
    rows, others = _rows_beyond(every, order, place, count=count, extras=extras).query.sql_with_params()
    table = f"SELECT * FROM matches LIMIT {MAX_COUNT}"  # noqa: S608 (ours)
    return f"WITH matches AS MATERIALIZED ({sql}), vms_virtualmachine AS ({table}) {rows}", (*params, *others)


def _rows_beyond(
    vms: VirtualMachineQuerySet, order: Order, place: Cursor | None, *, count: Func[Any], extras: Collection[str]
) -> QuerySet[VirtualMachine, Any]:
    """The next rows from this place on, one more than a page holds; backwards, nearest first."""
    limit = PAGE_SIZE + 1
    columns = (*_FIRST, *(_extra(name, extras) for name in EXTRAS), *_LAST, count)
    return beyond(vms, order=order, place=place, limit=limit).values_list(*columns)[:limit]
