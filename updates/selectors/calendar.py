"""The hotpatch calendar: a year of a product line, with where each release was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from patching.releases import (
    CalendarMonth,
    YearCounts,
    calendar_year,
    next_planned_baseline_month,
    second_tuesday,
    timetable,
    year_counts,
)
from patching.terms import ProductLine, ReleaseType
from patching.terms import Release as ReleaseFacts
from updates.models import Release


@dataclass(frozen=True, slots=True)
class CalendarRelease:
    """One release as the calendar shows it."""

    facts: ReleaseFacts
    type_label: str
    source: str
    evidence: str
    note: str


@dataclass(frozen=True, slots=True)
class CalendarCell:
    """One month: what happened (None: nothing recorded) and what the rule of the quarters expects."""

    month: CalendarMonth
    releases: tuple[CalendarRelease, ...]
    is_missing: bool = False  # its Patch Tuesday has passed, and no baseline or hotpatch is recorded

    @property
    def kind(self) -> str:
        """The month's look: unplanned, baseline, hotpatch, or empty."""
        if self.month.main is None:
            return "empty"
        if self.month.is_unplanned_baseline:
            return "unplanned"
        return "baseline" if self.month.main.type is ReleaseType.BASELINE else "hotpatch"


@dataclass(frozen=True, slots=True)
class Calendar:
    """A year of a product line. `years` are those that have anything recorded, the newest first."""

    line: ProductLine
    year: int
    years: tuple[int, ...]
    cells: tuple[CalendarCell, ...]
    counts: YearCounts
    next_baseline: date
    known_until: date | None
    missing: tuple[date, ...]  # months after the newest baseline that are out by the calendar and not recorded
    holes: tuple[date, ...]  # such months of the shown year before that baseline; they matter to no machine any more

    @property
    def lines(self) -> tuple[ProductLine, ...]:
        """Every product line."""
        return tuple(ProductLine)


def load_calendar(query: Mapping[str, str], now: datetime) -> Calendar:
    """The year that the address asks for, in one query; the newest recorded one if it asks for none that exists."""
    line = ProductLine(query["line"]) if query.get("line") in set(ProductLine) else ProductLine.WS2022
    rows = {row.facts: row for row in Release.objects.filter(product_line=line)}
    years = tuple(sorted({facts.month.year for facts in rows}, reverse=True)) or (now.year,)
    asked = query.get("year", "")
    year = int(asked) if asked in {str(known) for known in years} else years[0]
    months = calendar_year(rows, line, year)
    known = timetable(rows, line, now)
    newest = known.baseline.month if known.baseline else date.min
    return Calendar(
        line=line,
        year=year,
        years=years,
        cells=tuple(CalendarCell(m, _releases(m, rows), is_missing=m.month in known.missing_months) for m in months),
        counts=year_counts(months),
        next_baseline=second_tuesday(next_planned_baseline_month(now)),
        known_until=known.ends,
        missing=known.missing_after_baseline,
        holes=tuple(month for month in known.missing_months if month <= newest and month.year == year),
    )


def _releases(month: CalendarMonth, rows: Mapping[ReleaseFacts, Release]) -> tuple[CalendarRelease, ...]:
    found = [month.main, month.lcu, *month.out_of_band]
    return tuple(
        CalendarRelease(
            facts, rows[facts].get_type_display(), rows[facts].source, rows[facts].evidence, rows[facts].note
        )
        for facts in found
        if facts is not None
    )
