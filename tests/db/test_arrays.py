"""Lists and rows that travel as a few parameters arrive as they were sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from db.arrays import array, rowset
from tests.factories import VirtualMachineFactory
from vms.models import VirtualMachine

TYPES = {
    "number": "bigint", "id": "uuid", "flag": "boolean", "small": "smallint", "word": "text", "at": "timestamptz",
    "detail": "jsonb",
}  # fmt: skip
TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
ROW = st.tuples(
    st.none() | st.uuids(),
    st.none() | st.booleans(),
    st.none() | st.integers(-30_000, 30_000),
    st.none() | TEXT,
    st.none() | st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    st.none() | st.dictionaries(TEXT, st.none() | st.integers(-9, 9) | TEXT | st.lists(TEXT, max_size=2), min_size=1),
)


def read_back(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    sql, parameters = rowset(TYPES, rows)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT r.* FROM {sql} r ORDER BY number", parameters)
        assert [column.name for column in cursor.description] == list(TYPES)
        return cursor.fetchall()


def as_read(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """PostgreSQL's JSON comes back as text here; it is compared as what it says."""
    return (*row[:-1], json.loads(row[-1]) if isinstance(row[-1], str) else row[-1])


@pytest.mark.django_db
@given(st.lists(ROW, min_size=1, max_size=6), st.booleans())
def test_rows_arrive_as_they_were_sent(rows: list[tuple[Any, ...]], is_uniform: bool) -> None:
    sent = [(number, *(rows[0] if is_uniform else row)) for number, row in enumerate(rows)]
    assert [as_read(row) for row in read_back(sent)] == sent


@pytest.mark.django_db
@pytest.mark.parametrize(
    "hostile", ['"', "\\", "{NULL}", "NULL", "", " ", ",", "'; DROP TABLE x --", "%s", "\n", "日本"]
)
def test_no_text_leaves_its_place(hostile: str) -> None:
    at = datetime(2026, 5, 20, 10, tzinfo=UTC)
    sent = [
        (0, UUID(int=1), True, 3, hostile, at, {hostile: hostile}),
        (1, UUID(int=2), None, None, f"{hostile}{hostile}", at + timedelta(hours=9), {"x": [hostile, None, 1.5]}),
    ]
    assert [as_read(row) for row in read_back(sent)] == sent


@pytest.mark.django_db
def test_what_all_rows_share_travels_once() -> None:
    sql, parameters = rowset({"vm_id": "bigint", "verdict": "text", "code": "text"}, [(1, "ok", "a"), (2, "ok", "b")])
    assert parameters == ["ok", "{1,2}", '{"a","b"}']
    assert sql.count("unnest") == 1


@pytest.mark.django_db
def test_members_of_a_list_are_found_by_their_own_type() -> None:
    vms = [VirtualMachineFactory() for _ in range(3)]
    found = VirtualMachine.objects.filter(pk__any=array(vm.pk for vm in vms[:2]))
    assert set(found) == set(vms[:2])
    assert not VirtualMachine.objects.filter(pk__any=array([]))
