"""The list of machines: search by name, filters, a page at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from django.contrib.postgres.expressions import ArraySubquery
from django.contrib.postgres.search import SearchQuery
from django.core.exceptions import EmptyResultSet
from django.db.models import Func, IntegerField, QuerySet
from django.utils.translation import get_language

from db.bounded import fetch_bounded
from db.paging import PAGE_SIZE, Cursor, Order, beyond, cut
from vms.choices import HOTPATCH_STATUSES, HOTPATCH_TRACKS, PATCHERS, POWER_STATES, UPDATE_STATUSES
from vms.models import NAME_SEARCH, VirtualMachine, VirtualMachineQuerySet

MAX_COUNT = 1_000  # also the number of search matches that are sorted

# Each order is an index of the model read in one direction; the id makes it total.
ORDERS = {
    name: Order.of(VirtualMachine, name, *columns)
    for name, columns in {
        "name": ("name", "id"),
        "-name": ("-name", "-id"),
        "update_status": ("update_status", "name", "id"),
        "-update_status": ("-update_status", "-name", "-id"),
        "critical": ("critical_and_security_count", "-name", "-id"),
        "-critical": ("-critical_and_security_count", "name", "id"),
    }.items()
}
DEFAULT_ORDER = "name"


class ListedVm(NamedTuple):
    """What the list shows of a VM: a fifth of its columns, and the words for its values in the reader's language."""

    id: int
    name: str
    critical_and_security_count: int
    other_count: int
    resource_group: str
    location: str
    connection: str
    desired_settings: Any  # None: it has the settings that it shall have
    update_status: str
    hotpatch_status: str
    hotpatch_track: str
    power_state: str
    patcher: str
    update_status_label: str
    hotpatch_status_label: str
    hotpatch_track_label: str
    power_state_label: str
    patcher_label: str


_LABELLED = (UPDATE_STATUSES, HOTPATCH_STATUSES, HOTPATCH_TRACKS, POWER_STATES, PATCHERS)
_LISTED = (
    *("id", "name", "critical_and_security_count", "other_count"),
    *("resource_group__name", "location", "connection__name", "desired_settings"),
    *("update_status", "hotpatch_status", "hotpatch_track", "power_state", "patcher"),
)
# The same of the table itself.
_MATCHED = tuple(name.replace("__name", "_id") for name in _LISTED)


@cache
def _labels(_language: str | None) -> list[dict[str, str]]:
    """The words for the values of the last columns of `_LISTED`, in the language that is active."""
    return [{value: str(label) for value, label in choices} for choices in _LABELLED]


def _listed(rows: Iterable[tuple[Any, ...]]) -> list[ListedVm]:
    """These rows (of `_LISTED`) with their labels."""
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


def vm_page(vms: VirtualMachineQuerySet, *, words: str = "", order: str = DEFAULT_ORDER, cursor: str = "") -> VmPage:
    """One page of these (visible, filtered) VMs, in one statement whose cost does not grow with the page number.

    A search sorts no more than its first 1,000 matches. Raises `db.bounded.ListTooSlowError`.
    """
    way = ORDERS[order]
    place = Cursor.parse(cursor, way)
    found = search_by_name(vms.order_by(), words)
    is_search = bool(words.strip())
    rows, count = _read(found, way, place, is_search=is_search)
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
    found: VirtualMachineQuerySet, order: Order, place: Cursor | None, *, is_search: bool
) -> tuple[list[ListedVm], int]:
    """The next rows from this place on, and how many there are in all, up to one more than are counted."""
    try:
        sql, params = page_sql(found, order, place, is_search=is_search)
    except EmptyResultSet:
        return [], 0
    rows = fetch_bounded(sql, params)
    if rows:
        return _listed(row[:-1] for row in rows), rows[0][-1]
    # Where the place lies behind the last row, nothing has said how many there are.
    return [], _read(found, order, None, is_search=is_search)[1] if place else 0


def page_sql(
    found: VirtualMachineQuerySet, order: Order, place: Cursor | None, *, is_search: bool
) -> tuple[str, tuple[Any, ...]]:
    """What reads a page: its rows and one more, each followed by how many there are in all.

    Raises `EmptyResultSet` where it is known beforehand that there are none.
    """
    some = found[: MAX_COUNT + 1]
    if not is_search:
        count = Func(ArraySubquery(some.values("pk")), function="cardinality", output_field=IntegerField())
        return _rows_beyond(found, order, place, count=count).query.sql_with_params()
    # A search is sorted where its matches are at hand: for this statement they are the table. PostgreSQL would else walk
    # the index of the names until 51 of a thousand have come by, which is the whole fleet for those at its end.
    sql, params = some.values(*_MATCHED).query.sql_with_params()
    count = Func(template="(SELECT count(*) FROM matches)", output_field=IntegerField())
    rows, others = _rows_beyond(VirtualMachine.objects.all(), order, place, count=count).query.sql_with_params()
    table = f"SELECT * FROM matches LIMIT {MAX_COUNT}"  # noqa: S608 (ours)
    return f"WITH matches AS MATERIALIZED ({sql}), vms_virtualmachine AS ({table}) {rows}", (*params, *others)


def _rows_beyond(
    vms: VirtualMachineQuerySet, order: Order, place: Cursor | None, *, count: Func[Any]
) -> QuerySet[VirtualMachine, Any]:
    """The next rows from this place on, one more than a page holds; backwards, nearest first."""
    limit = PAGE_SIZE + 1
    return beyond(vms, order=order, place=place, limit=limit).values_list(*_LISTED, count)[:limit]
