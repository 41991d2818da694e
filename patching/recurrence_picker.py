"""How a recurrence is picked: the choices that people think in, each with its own few values (docs/rules.md)."""

from __future__ import annotations

from enum import StrEnum

from patching.recurrence import Frequency, Recurrence

PATCH_TUESDAY = ("Second", 1)  # the ordinal and the weekday, Monday is 0
AZURES_MOST_OFFSET = 6


class Choice(StrEnum):
    """How often a window opens, as one picks it."""

    DAILY = "daily"
    WEEKLY = "weekly"
    PATCH_TUESDAY = "patch_tuesday"
    NTH_WEEKDAY = "nth_weekday"
    MONTH_DAYS = "month_days"


# What each choice counts in.
FREQUENCIES = {
    Choice.DAILY: Frequency.DAY,
    Choice.WEEKLY: Frequency.WEEK,
    Choice.PATCH_TUESDAY: Frequency.MONTH,
    Choice.NTH_WEEKDAY: Frequency.MONTH,
    Choice.MONTH_DAYS: Frequency.MONTH,
}


def choice_of(recurrence: Recurrence) -> Choice:
    """The choice by which this recurrence is picked; every recurrence has one."""
    if recurrence.frequency is Frequency.DAY:
        return Choice.DAILY
    if recurrence.frequency is Frequency.WEEK:
        return Choice.WEEKLY
    if recurrence.days:
        return Choice.MONTH_DAYS
    is_after = (recurrence.ordinal, recurrence.weekday) == PATCH_TUESDAY and recurrence.offset >= 0
    return Choice.PATCH_TUESDAY if is_after else Choice.NTH_WEEKDAY


def after_patch_tuesday(days: int, *, every: int = 1) -> Recurrence:
    """So many days after the second Tuesday of a month."""
    ordinal, weekday = PATCH_TUESDAY
    return Recurrence(Frequency.MONTH, every, ordinal=ordinal, weekday=weekday, offset=days)


def is_for_azure(recurrence: Recurrence) -> bool:
    """Whether Azure takes its text, too: it shifts a weekday by at most six days."""
    return abs(recurrence.offset) <= AZURES_MOST_OFFSET
