"""Pages of any table: every row once, in order, there and back, whatever its columns are."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db.models import Q

from audit.models import AuditEvent
from db.paging import Cursor, Order, Page, page_of
from tests.factories import VirtualMachineFactory
from updates.models import Operation
from vms.models import VirtualMachine

START = datetime(2026, 5, 12, 3, 4, 5, 678, tzinfo=UTC)

pytestmark = pytest.mark.django_db


@pytest.fixture
def operations() -> list[Operation]:
    """23 operations of 3 machines with many ties: keys are UUIDs, times have microseconds."""
    chance = random.Random(1)
    vms = [VirtualMachineFactory(name=name) for name in ("b", "a", "ガンマ")]
    return Operation.objects.bulk_create(
        [
            Operation(
                pk=UUID(int=chance.getrandbits(128)), vm=vms[number % 3], connection=vms[number % 3].connection,
                kind="assessment", state="failed", finished_at=START, created_at=START + timedelta(microseconds=chance.choice([0, 1, 2])),
            )
            for number in range(23)
        ]
    )  # fmt: skip


ORDERS = [
    Order.of(Operation, "newest", "-created_at", "-id"),
    Order.of(Operation, "by machine", "vm__name", "-created_at", "-id"),
    Order.of(Operation, "two columns, then back", "-vm__name", "-created_at", "id"),
]


def walk(rows: Any, order: Order, **among: Any) -> list[Page[Any]]:
    pages = [page_of(rows, order=order, size=4, **among)]
    while pages[-1].next:
        pages.append(page_of(rows, order=order, size=4, cursor=pages[-1].next, **among))
        assert len(pages) < 50
    return pages


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.name)
def test_every_row_comes_once_there_and_back(operations: list[Operation], order: Order) -> None:
    rows = Operation.objects.select_related("vm")
    pages = walk(rows, order)
    assert [row.pk for page in pages for row in page.rows] == list(
        rows.order_by(*order.columns).values_list("pk", flat=True)
    )
    assert pages[0].previous == ""
    back = [pages[-1]]
    while back[-1].previous:
        back.append(page_of(rows, order=order, size=4, cursor=back[-1].previous))
    assert [page.rows for page in reversed(back)] == [page.rows for page in pages]


def test_a_page_is_two_queries_with_what_its_rows_join(
    operations: list[Operation], django_assert_num_queries: Any
) -> None:
    rows = Operation.objects.select_related("vm")
    order = ORDERS[1]
    cursor = page_of(rows, order=order, size=4).next
    with django_assert_num_queries(2):
        assert [row.vm.name for row in page_of(rows, order=order, size=4, cursor=cursor).rows] == ["a"] * 4


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.name)
def test_the_heads_of_parts_are_merged(operations: list[Operation], order: Order) -> None:
    """Parts may overlap: a row that is in two of them comes once."""
    first, second, third = VirtualMachine.objects.order_by("pk")
    rows = Operation.objects.all()
    parts = [rows.filter(vm=first), rows.filter(vm__in=[first, second])]
    meant = rows.filter(Q(vm=first) | Q(vm=second)).order_by(*order.columns)
    assert [row for page in walk(rows, order, among=parts) for row in page.rows] == list(meant)
    assert not meant.filter(vm=third).exists()


def test_nothing_is_an_empty_page() -> None:
    assert page_of(Operation.objects.none(), order=ORDERS[0]) == Page(())


def test_a_cursor_is_read_back_as_it_was(operations: list[Operation]) -> None:
    for order in ORDERS:
        place = Cursor.at(operations[0], order, is_backward=True)
        assert Cursor.parse(str(place), order) == place
        for other in ORDERS:
            assert other is order or Cursor.parse(str(place), other) is None


@pytest.mark.parametrize(
    "values", [["2026-05-12T03:04:05", str(UUID(int=1))], ["", ""], [START.isoformat(), "x"], [1, 2]]
)
def test_what_is_no_value_of_the_column_is_no_cursor(values: list[Any]) -> None:
    assert Cursor.parse(str(Cursor("newest", False, tuple(values))), ORDERS[0]) is None


@pytest.mark.parametrize(
    "columns",
    [
        (),
        ("created_at",),  # ends with no primary key
        ("started_at", "id"),  # may be empty, and then compares with nothing
        ("requested_by__username", "id"),  # not every one was asked for by a person
        ("payload", "id"),  # has no order that people know
        ("-created_at", "vm__name", "-id"),  # changes its direction twice
    ],
)
def test_columns_by_which_pages_cannot_be_told_apart_are_no_order(columns: tuple[str, ...]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Order.of(Operation, "x", *columns)


def test_events_of_the_record_page_the_same_way() -> None:
    assert page_of(AuditEvent.objects.all(), order=Order.of(AuditEvent, "newest", "-at", "-id")).rows == ()
