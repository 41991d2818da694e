"""Compliance within days of release, by the table of docs/rules.md."""

from __future__ import annotations

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from patching.compliance import COMPLIANT, ClassStanding, is_late, judge_class
from tests.patching.tables import Row, flag, table, words

DAY = date(2026, 5, 20)


def missing_for(cell: str) -> list[date | None]:
    """The days of publication of what a cell says is missing: for how many days, or ? for nobody knows."""
    return [None if age == "?" else DAY - timedelta(days=int(age)) for age in words(cell)]


@table("class-standing")
def test_class_standing(row: Row) -> None:
    standing = judge_class(
        missing_for(row["out for days"]), is_assessed=flag(row["assessed"]), day=DAY, days=int(row["days"])
    )
    assert standing == row["standing"]
    assert (standing in COMPLIANT) == (row["compliant"] == "yes")


AGES = st.lists(st.none() | st.integers(-5, 60), max_size=4)


@given(ages=AGES, days=st.integers(1, 60), more=st.integers(0, 30))
def test_more_days_never_make_a_machine_overdue(ages: list[int | None], days: int, more: int) -> None:
    missing = [None if age is None else DAY - timedelta(days=age) for age in ages]
    strict = judge_class(missing, is_assessed=True, day=DAY, days=days)
    lenient = judge_class(missing, is_assessed=True, day=DAY, days=days + more)
    assert (strict is ClassStanding.OVERDUE) == any(is_late(each, day=DAY, days=days) for each in missing)
    assert lenient is not ClassStanding.OVERDUE or strict is ClassStanding.OVERDUE
