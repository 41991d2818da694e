"""Whether a machine has the updates of a class within a number of days of their release (docs/rules.md)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, timedelta
from enum import StrEnum


class ClassStanding(StrEnum):
    """Where a machine stands with one class of updates; it has just one of them."""

    UP_TO_DATE = "up_to_date"  # nothing of the class is missing
    IN_TIME = "in_time"  # something is, and none of it for too long
    OVERDUE = "overdue"
    NOT_KNOWN = "not_known"


COMPLIANT = (ClassStanding.UP_TO_DATE, ClassStanding.IN_TIME)


def is_late(published_on: date | None, *, day: date, days: int) -> bool:
    """Whether what is missing on this day was published more than `days` days before; without a date nobody knows."""
    return published_on is not None and published_on + timedelta(days=days) < day


def judge_class(missing: Collection[date | None], *, is_assessed: bool, day: date, days: int) -> ClassStanding:
    """Where a machine stands that lacks updates published on these days (None: nobody knows when).

    `is_assessed`: whether an assessment of the last week says what is missing. The first line of the table that applies wins.
    """
    if not is_assessed:
        return ClassStanding.NOT_KNOWN
    if not missing:
        return ClassStanding.UP_TO_DATE
    if any(is_late(published_on, day=day, days=days) for published_on in missing):
        return ClassStanding.OVERDUE
    return ClassStanding.NOT_KNOWN if None in missing else ClassStanding.IN_TIME
