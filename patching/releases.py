"""Releases and the calendar: what is released when, which baseline counts, what a year looks like (docs/rules.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property, lru_cache
from types import MappingProxyType
from zoneinfo import ZoneInfo

from patching.outcome import build_order
from patching.terms import (
    Channel,
    ProductLine,
    Release,
    ReleaseType,
)

PACIFIC = ZoneInfo("America/Los_Angeles")
OFFERED_FROM = time(10, 0)  # Pacific time, on the day of the release
BASELINE_MONTHS = frozenset({1, 4, 7, 10})
# The month of the last release of a line's hotpatch train; from the month after on every month is an LCU month.
# WS2022: "hotpatching runs through October 2027" (Windows release health, 2026-06-29).
END_OF_HOTPATCHING: Mapping[ProductLine, date] = MappingProxyType({ProductLine.WS2022: date(2027, 10, 1)})

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
    return not release.is_scheduled and moment >= out_at(release.released_on)


@lru_cache(maxsize=4_096)
def out_at(day: date) -> datetime:
    """The instant from which a release of this day is offered: 10:00 Pacific time."""
    return datetime.combine(day, OFFERED_FROM, PACIFIC).astimezone(UTC)


@lru_cache(maxsize=4_096)
def patch_tuesday(month: date) -> datetime:
    """The instant from which a month's release is offered: its second Tuesday, 10:00 Pacific time."""
    return out_at(second_tuesday(month))


def is_train_over(line: ProductLine, moment: datetime) -> bool:
    """Whether the line's hotpatching has ended: from the first Patch Tuesday after the month of its last release."""
    end = END_OF_HOTPATCHING.get(line)
    return end is not None and moment >= patch_tuesday(next_month(end))


def comes_through_windows_update(release: Release) -> bool:
    """Whether Windows Update is a way by which it reaches machines. Of an out-of-band LCU the channel must be known."""
    if release.type is ReleaseType.OOB_LCU:
        return release.channel is Channel.WINDOWS_UPDATE
    if release.type is ReleaseType.OOB_HOTPATCH:
        return release.channel not in {Channel.CATALOG_ONLY, Channel.WITHDRAWN}
    return True


def is_offered(release: Release, moment: datetime) -> bool:
    """Whether Windows Update offers it: released, and its KB is known."""
    return bool(release.kb_number) and is_released(release, moment)


def newest_baseline(releases: Iterable[Release], line: ProductLine, moment: datetime) -> Release | None:
    """B: the newest released baseline of the line, planned or not, with or without a KB."""
    return timetable(releases, line, moment).baseline


# --- what is known of a line at a moment -------------------------------------------------------------------------


@dataclass(frozen=True)
class Timetable:
    """A product line's releases as they are known at a moment: what is out then, the oldest first, and nothing later.

    `recorded` are all rows of the line by KB, those that come later too: it says what an offered KB is.
    """

    line: ProductLine
    moment: datetime
    out: tuple[Release, ...]
    recorded: Mapping[str, Release]
    announced: tuple[Release, ...]  # recorded as scheduled

    @cached_property
    def baseline(self) -> Release | None:
        """B: the newest baseline, with or without a KB."""
        return next((r for r in reversed(self.out) if r.type is ReleaseType.BASELINE), None)

    @cached_property
    def by_kb(self) -> Mapping[str, Release]:
        """What is out and has a KB."""
        return {release.kb_number: release for release in self.out if release.kb_number}

    @cached_property
    def by_build(self) -> Mapping[str, tuple[Release, ...]]:
        """What is out and has a build; two releases may share one."""
        found: dict[str, tuple[Release, ...]] = {}
        for release in self.out:
            if release.build:
                found[release.build] = (*found.get(release.build, ()), release)
        return found

    @cached_property
    def newest_build(self) -> tuple[int, ...]:
        """The highest build recorded of what is out; empty where there is none."""
        return max((build_order(build) for build in self.by_build), default=())

    @cached_property
    def months(self) -> frozenset[date]:
        """The months whose monthly release is out: a baseline or a hotpatch, an LCU once hotpatching has ended."""
        return frozenset(release.month for release in self.out if _is_monthly(release))

    @cached_property
    def ends(self) -> date | None:
        """The month of the newest recorded monthly release; None where there is none."""
        return max(self.months, default=None)

    @cached_property
    def missing_months(self) -> tuple[date, ...]:
        """The months after the first recorded one whose Patch Tuesday has passed without a recorded monthly release."""
        if not self.months:
            return ()
        found: list[date] = []
        month = next_month(min(self.months))
        while patch_tuesday(month) <= self.moment:
            if month not in self.months:
                found.append(month)
            month = next_month(month)
        return tuple(found)

    @cached_property
    def missing_after_baseline(self) -> tuple[date, ...]:
        """Those of `missing_months` that matter to machines: after the newest baseline's month."""
        baseline = self.baseline
        return tuple(month for month in self.missing_months if baseline is None or month > baseline.month)

    def base_of(self, release: Release) -> Release | None:
        """The newest baseline older than this release."""
        order = release_order(release)
        older = (r for r in reversed(self.out) if r.type is ReleaseType.BASELINE and release_order(r) < order)
        return next(older, None)

    def next_build_after(self, release: Release) -> tuple[int, ...]:
        """The build of the next release with a recorded build; empty where there is none."""
        order = release_order(release)
        return next((build_order(r.build) for r in self.out if r.build and release_order(r) > order), ())

    def newest_build_before(self, release: Release) -> tuple[int, ...]:
        """The highest build recorded of what is older; empty where there is none."""
        order = release_order(release)
        return max((build_order(r.build) for r in self.out if r.build and release_order(r) < order), default=())


def timetable(releases: Iterable[Release], line: ProductLine, moment: datetime) -> Timetable:
    """What is known of a line at a moment. Where many VMs share line and moment, make it once."""
    own = [release for release in releases if release.product_line is line]
    return Timetable(
        line=line,
        moment=moment,
        out=tuple(sorted((r for r in own if is_released(r, moment)), key=release_order)),
        recorded={release.kb_number: release for release in own if release.kb_number},
        announced=tuple(release for release in own if release.is_scheduled),
    )


def _is_monthly(release: Release) -> bool:
    if release.type is ReleaseType.LCU:
        end = END_OF_HOTPATCHING.get(release.product_line)
        return end is not None and release.month > end
    return release.type in {ReleaseType.BASELINE, ReleaseType.HOTPATCH}


def catalogue_ends(releases: Iterable[Release], line: ProductLine, moment: datetime) -> date | None:
    """The month of the newest recorded monthly release of the line at a moment: how far the catalogue is known.

    An LCU alone does not count while the line has hotpatches: it says nothing about the train.
    """
    return timetable(releases, line, moment).ends


def missing_months(releases: Iterable[Release], line: ProductLine, moment: datetime) -> tuple[date, ...]:
    """The months after the first recorded one whose Patch Tuesday has passed, and whose monthly release is not recorded.

    Holes and what follows the catalogue's end are the same. Neither an LCU row alone nor a scheduled row fills one.
    """
    return timetable(releases, line, moment).missing_months


@lru_cache(maxsize=1_024)
def next_planned_baseline_month(moment: datetime) -> date:
    """The first day of the month of the next planned baseline, by the rule of the calendar quarters.

    The baseline of this month is the next one until its second Tuesday, 10:00 Pacific time.
    """
    month = moment.astimezone(PACIFIC).date().replace(day=1)
    while month.month not in BASELINE_MONTHS or moment >= patch_tuesday(month):
        month = next_month(month)
    return month


def next_baseline_of(line: ProductLine, moment: datetime) -> date | None:
    """The month of the line's next planned baseline; None where its hotpatching ends before."""
    month = next_planned_baseline_month(moment)
    end = END_OF_HOTPATCHING.get(line)
    return None if end is not None and month > end else month


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
