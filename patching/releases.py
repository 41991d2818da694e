"""Releases and the calendar: what is released when, which baseline counts, what a year looks like (docs/rules.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from patching.terms import ProductLine, Release, ReleaseType

PACIFIC = ZoneInfo("America/Los_Angeles")
OFFERED_FROM = time(10, 0)  # Pacific time, on the day of the release
BASELINE_MONTHS = frozenset({1, 4, 7, 10})

# Two releases of one day: what a VM off hotpatch gets comes after what a VM on the train gets.
_TYPE_ORDER = {
    ReleaseType.BASELINE: 0,
    ReleaseType.HOTPATCH: 1,
    ReleaseType.OOB_HOTPATCH: 2,
    ReleaseType.LCU: 3,
    ReleaseType.OOB_LCU: 4,
}


def release_order(release: Release) -> tuple[date, int, str]:
    """Sort key: oldest first; on one day by type."""
    return release.released_on, _TYPE_ORDER[release.type], release.kb_number


def second_tuesday(month: date) -> date:
    """The second Tuesday of the month that the day is in."""
    first = month.replace(day=1)
    return first + timedelta(days=(1 - first.weekday()) % 7 + 7)


@lru_cache(maxsize=64)  # asked for each of many VMs that share day and moment
def as_of(catalogue_date: date | None, now: datetime) -> datetime:
    """The moment up to which releases count: the end of the catalogue's day in Pacific time, or now without one."""
    if catalogue_date is None:
        return now
    midnight = datetime.combine(catalogue_date + timedelta(days=1), time(), PACIFIC)
    return midnight.astimezone(UTC) - timedelta(microseconds=1)


def is_released(release: Release, moment: datetime) -> bool:
    """Whether it is out: from 10:00 Pacific time on its day. What is only announced never is."""
    if release.is_scheduled:
        return False
    return moment >= datetime.combine(release.released_on, OFFERED_FROM, PACIFIC)


def is_offered(release: Release, moment: datetime) -> bool:
    """Whether Windows Update offers it: released, and its KB is known."""
    return bool(release.kb_number) and is_released(release, moment)


def newest_baseline(releases: Iterable[Release], line: ProductLine, moment: datetime) -> Release | None:
    """B: the newest released baseline of the line that has a KB, planned or not."""
    baselines = (
        release
        for release in releases
        if release.product_line is line and release.type is ReleaseType.BASELINE and is_offered(release, moment)
    )
    return max(baselines, key=release_order, default=None)


@lru_cache(maxsize=1_024)
def next_planned_baseline_month(moment: datetime) -> date:
    """The first day of the month of the next planned baseline, by the rule of the calendar quarters.

    The baseline of this month is the next one until its second Tuesday, 10:00 Pacific time.
    """
    month = moment.astimezone(PACIFIC).date().replace(day=1)
    while True:
        out_at = datetime.combine(second_tuesday(month), OFFERED_FROM, PACIFIC)
        if month.month in BASELINE_MONTHS and moment < out_at:
            return month
        month = next_month(month)


def next_month(month: date) -> date:
    """The first day of the month after."""
    return (month.replace(day=1) + timedelta(days=32)).replace(day=1)


# --- a year on one page ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CalendarMonth:
    """One month of a product line.

    `main` is the baseline or hotpatch (None: nothing recorded), `lcu` what VMs off hotpatch get besides, `expected`
    what the rule of the quarters says.
    """

    month: date
    main: Release | None
    lcu: Release | None
    out_of_band: tuple[Release, ...]
    expected: ReleaseType

    @property
    def is_unplanned_baseline(self) -> bool:
        """True where an unplanned baseline replaced the month's hotpatch."""
        return self.main is not None and self.main.type is ReleaseType.BASELINE and self.main.is_planned is False


@dataclass(frozen=True, slots=True)
class YearCounts:
    """How many of each a year has, counting what is recorded as released."""

    planned_baselines: int
    unplanned_baselines: int
    hotpatches: int


def expected_type(month: date) -> ReleaseType:
    """What the rule of the quarters says: a baseline in January, April, July and October, else a hotpatch."""
    return ReleaseType.BASELINE if month.month in BASELINE_MONTHS else ReleaseType.HOTPATCH


def calendar_year(releases: Iterable[Release], line: ProductLine, year: int) -> tuple[CalendarMonth, ...]:
    """The twelve months of a product line's year. Months with nothing recorded stay empty: nothing is invented."""
    by_month: dict[date, list[Release]] = {date(year, number, 1): [] for number in range(1, 13)}
    for release in releases:
        if release.product_line is line and release.month in by_month:
            by_month[release.month].append(release)
    return tuple(_calendar_month(month, rows) for month, rows in by_month.items())


def _calendar_month(month: date, rows: Sequence[Release]) -> CalendarMonth:
    ordered = sorted(rows, key=release_order)
    main = [r for r in ordered if r.type in {ReleaseType.BASELINE, ReleaseType.HOTPATCH}]
    lcus = [r for r in ordered if r.type is ReleaseType.LCU]
    out_of_band = [r for r in ordered if r.type in {ReleaseType.OOB_HOTPATCH, ReleaseType.OOB_LCU}]
    # A baseline replaces a hotpatch that was announced for the same month.
    baselines = [r for r in main if r.type is ReleaseType.BASELINE]
    return CalendarMonth(
        month=month,
        main=next(iter(baselines or main), None),
        lcu=next(iter(lcus), None),
        out_of_band=tuple(out_of_band),
        expected=expected_type(month),
    )


def year_counts(months: Iterable[CalendarMonth]) -> YearCounts:
    """Count what was released in a year."""
    mains = [m.main for m in months if m.main is not None and not m.main.is_scheduled]
    baselines = [r for r in mains if r.type is ReleaseType.BASELINE]
    unplanned = sum(r.is_planned is False for r in baselines)
    return YearCounts(
        planned_baselines=len(baselines) - unplanned,
        unplanned_baselines=unplanned,
        hotpatches=len(mains) - len(baselines),
    )
