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


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the way that the list sorts: some of the VMs, in the order of an index of their own.

    `is_assessed`: True, those that were assessed, by the moment that a floor above keeps (`tell_assessed`); False, the others;
    None: all of them.
    """

    order: Order
    is_assessed: bool | None = None

    @property
    def reversed(self) -> Stretch:
        """The same from its end."""
        return Stretch(self.order.reversed, self.is_assessed)

    def of(self, vms: VirtualMachineQuerySet) -> VirtualMachineQuerySet:
        """Those of these VMs that are in it."""
        if self.is_assessed is None:
            return vms
        if not self.is_assessed:
            return vms.filter(patch_set=0)
        path = _told["assessed_at"].path
        return vms.exclude(patch_set=0).filter(**{f"{path}__isnull": False}).annotate(assessed_at=F(path))


def _by_assessment(name: str, sign: str) -> tuple[Stretch, Stretch]:
    """Those never assessed by their names, and the others by the moment; the first are older than any of these."""
    never = Order.of(VirtualMachine, f"{name} never", f"{sign}name", f"{sign}id")
    ever = Order(f"{name} ever", (f"{sign}assessed_at", f"{sign}id"), (datetime, int))
    return Stretch(never, is_assessed=False), Stretch(ever, is_assessed=True)


# The ways that the list sorts: the stretches of each, one after the other.
WAYS: dict[str, tuple[Stretch, ...]] = {
    **{name: (Stretch(order),) for name, order in ORDERS.items()},
    "assessed": _by_assessment("assessed", ""),
    "-assessed": _by_assessment("-assessed", "-")[::-1],
}


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
_MATCHED = tuple(name.replace("__name", "_id") for name in (*_FIRST, "image_sku", "tags", *_LAST, "patch_set"))


class _Told(NamedTuple):
    """What a floor above knows of VMs: an expression over one, and the path from one to the same in a column with an index."""

    expression: Subquery[Any]
    path: str


_told: dict[str, _Told] = {}


def tell_assessed(expression: Subquery[Any], *, path: str) -> None:
    """Let this expression, over a VM, say when it was assessed last. Once a process, by the floor that knows.

    `path`: the lookup that leads from a VM to the same moment, in a column with an index. Every VM with a patch set has one.
    """
    _told["assessed_at"] = _Told(expression, path)


def assessed_at() -> Subquery[Any] | None:
    """What says of a VM when it was assessed last, if a floor above has told."""
    return _told["assessed_at"].expression if _told else None


def _extra(name: str, extras: Collection[str]) -> Any:
    """What is selected for one of `EXTRAS`."""
    if name not in extras:
        return Value(None, output_field=TextField())
    return _told[name].expression if name in _told else F(name)


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
    """One page of these (visible, filtered) VMs, in a statement whose cost does not grow with the page number.

    Where a page goes over the end of a stretch there is a statement for each. `extras`: which of `EXTRAS` are read, too.
    A search sorts no more than its first 1,000 matches. Raises `db.bounded.ListTooSlowError`.
    """
    found = search_by_name(vms.order_by(), words)
    is_search = bool(words.strip())
    place, ahead = _ahead(WAYS[order], cursor)
    extras = {*extras, "assessed_at"} if len(WAYS[order]) > 1 else extras
    rows: list[ListedVm] = []
    orders: dict[int, Order] = {}
    count = 0
    for stretch in ahead:
        start = place if stretch is ahead[0] else None
        more, counted = _read(found, stretch, start, is_search=is_search, extras=extras)
        rows, count = [*rows, *more], count or counted
        orders |= dict.fromkeys((row.id for row in more), stretch.order)
        if len(rows) > PAGE_SIZE:
            break
    page = cut(rows, order=lambda row: orders[row.id], place=place, size=PAGE_SIZE)
    return VmPage(
        vms=page.rows,
        count=min(count, MAX_COUNT),
        is_count_exact=count <= MAX_COUNT,
        is_search_cut=is_search and count > MAX_COUNT,
        previous=page.previous,
        next=page.next,
    )


def _ahead(way: tuple[Stretch, ...], cursor: str) -> tuple[Cursor | None, list[Stretch]]:
    """The place that a cursor is, and the stretches from there on, in the direction in which rows are read."""
    for number, stretch in enumerate(way):
        place = Cursor.parse(cursor, stretch.order)
        if place is not None and place.is_backward:
            return place, [stretch, *(before.reversed for before in reversed(way[:number]))]
        if place is not None:
            return place, [*way[number:]]
    return None, [*way]


def _read(
    found: VirtualMachineQuerySet, stretch: Stretch, place: Cursor | None, *, is_search: bool, extras: Collection[str]
) -> tuple[list[ListedVm], int]:
    """The next rows from this place on, and how many there are in all, up to one more than are counted."""
    try:
        sql, params = page_sql(found, stretch, place, is_search=is_search, extras=extras)
    except EmptyResultSet:
        return [], 0
    rows = fetch_bounded(sql, params)
    if rows:
        return _listed(row[:-1] for row in rows), rows[0][-1]
    # Where the place lies behind the last row, nothing has said how many there are.
    return [], _read(found, stretch, None, is_search=is_search, extras=())[1] if place else 0


def page_sql(
    found: VirtualMachineQuerySet,
    stretch: Stretch,
    place: Cursor | None,
    *,
    is_search: bool,
    extras: Collection[str] = (),
) -> tuple[str, tuple[Any, ...]]:
    """What reads a page of a stretch: its rows and one more, each followed by how many there are in all.

    Raises `EmptyResultSet` where it is known beforehand that there are none.
    """
    some = found[: MAX_COUNT + 1]
    if not is_search:
        count = Func(ArraySubquery(some.values("pk")), function="cardinality", output_field=IntegerField())
        return _rows_beyond(found, stretch, place, count=count, extras=extras).query.sql_with_params()
    # A search is sorted where its matches are at hand: for this statement they are the table. PostgreSQL would else walk
    # the index of the names until 51 of a thousand have come by, which is the whole fleet for those at its end.
    sql, params = some.values(*_MATCHED).query.sql_with_params()
    count = Func(template="(SELECT count(*) FROM matches)", output_field=IntegerField())
    every = VirtualMachine.objects.all()
    rows, others = _rows_beyond(every, stretch, place, count=count, extras=extras).query.sql_with_params()
    table = f"SELECT * FROM matches LIMIT {MAX_COUNT}"  # noqa: S608 (ours)
    return f"WITH matches AS MATERIALIZED ({sql}), vms_virtualmachine AS ({table}) {rows}", (*params, *others)


def _rows_beyond(
    vms: VirtualMachineQuerySet, stretch: Stretch, place: Cursor | None, *, count: Func[Any], extras: Collection[str]
) -> QuerySet[VirtualMachine, Any]:
    """The next rows from this place on, one more than a page holds; backwards, nearest first."""
    limit = PAGE_SIZE + 1
    columns = (*_FIRST, *(_extra(name, extras) for name in EXTRAS), *_LAST, count)
    return beyond(stretch.of(vms), order=stretch.order, place=place, limit=limit).values_list(*columns)[:limit]
