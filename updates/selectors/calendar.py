"""The hotpatch calendar: a year of a product line, with where each release was read, and what it means for one's machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from django.db.models import Case, Exists, When
from django.utils import timezone

from patching.forecast import Outlook
from patching.releases import (
    END_OF_HOTPATCHING,
    PACIFIC,
    CalendarMonth,
    YearCounts,
    calendar_year,
    next_baseline_of,
    out_at,
    patch_tuesday,
    timetable,
    year_counts,
)
from patching.terms import HOTPATCH_TYPES, ProductLine, ReleaseType
from patching.terms import Release as ReleaseFacts
from updates.models import MaintenanceConfiguration, Release
from updates.selectors.automation import members_of
from updates.selectors.fleet import FleetScope, count_fleet, load_pending, moments_of_connections, place_of
from updates.selectors.fleet_forecast import Restarts, count_restarts, reboots_in
from updates.selectors.maintenance import open_days_of
from updates.selectors.own_clocks import clocks_meant
from vms.models import Grants, VirtualMachine
from vms.selectors import ListTooSlowError, fetch_bounded

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User

MAX_CONFIGURATIONS = 12  # whose windows are shown
MAX_WINDOWS = 400  # of each


@dataclass(frozen=True, slots=True)
class CalendarRelease:
    """One release as the calendar shows it."""

    facts: ReleaseFacts
    type_label: str
    source: str
    evidence: str
    note: str

    @property
    def is_hotpatch(self) -> bool:
        """Whether it changes code in memory; everything else restarts."""
        return self.facts.type in HOTPATCH_TYPES

    @property
    def is_out_of_band(self) -> bool:
        """Whether it came between the monthly releases."""
        return self.facts.type in {ReleaseType.OOB_HOTPATCH, ReleaseType.OOB_LCU}

    @property
    def day(self) -> date:
        """Its day on the reader's clock; of what is out of band nobody recorded the hour, so Microsoft's."""
        if self.is_out_of_band:
            return self.facts.released_on
        return timezone.localtime(out_at(self.facts.released_on)).date()


@dataclass(frozen=True, slots=True)
class CalendarCell:
    """One month: what happened (None: nothing recorded) and what the rule of the quarters expects."""

    month: CalendarMonth
    releases: tuple[CalendarRelease, ...]
    is_missing: bool = False  # its Patch Tuesday has passed, and no baseline or hotpatch is recorded
    is_before_all: bool = False  # the line's first recorded release came later
    is_after_end: bool = False  # the line's hotpatching is over: every month brings a cumulative update
    restarts: Restarts = field(default_factory=Restarts)  # how many of the reader's machines restart

    @property
    def will(self) -> int:
        """How many machines will restart; the list shows them at `reboots_in`."""
        return self.restarts[Outlook.WILL]

    @property
    def may(self) -> int:
        """How many machines may restart."""
        return self.restarts[Outlook.MAY]

    @property
    def asked(self) -> dict[str, str]:
        """The values of the list's filter of these machines."""
        return {outlook.value: reboots_in(self.month.month, outlook) for outlook in (Outlook.WILL, Outlook.MAY)}

    @property
    def main(self) -> CalendarRelease | None:
        """What the month is about, with its source."""
        return next((release for release in self.releases if release.facts is self.month.main), None)

    @property
    def at(self) -> datetime:
        """From when on its release is offered; by the rule, the second Tuesday."""
        return out_at(self.month.main.released_on) if self.month.main else patch_tuesday(self.month.month)

    @property
    def kind(self) -> str:
        """The month's look: unplanned, baseline, hotpatch, or empty."""
        if self.month.main is None:
            return "empty"
        if self.month.is_unplanned_baseline:
            return "unplanned"
        return "baseline" if self.month.main.type is ReleaseType.BASELINE else "hotpatch"


@dataclass(frozen=True, slots=True)
class Opening:
    """When a window of a maintenance configuration opens."""

    at: datetime
    name: str


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows ahead that mean machines of the reader. `others`: how many configurations are not shown."""

    openings: tuple[Opening, ...] = ()
    names: tuple[str, ...] = ()
    others: int = 0


@dataclass(frozen=True)
class Calendar:
    """A year of a product line. `years` are those that have anything recorded, this one and the next."""

    line: ProductLine
    year: int
    now: datetime
    years: tuple[int, ...]
    cells: tuple[CalendarCell, ...]
    counts: YearCounts
    next_baseline: date | None  # None: the line's hotpatching ends before
    known_until: date | None
    missing: tuple[date, ...]  # months after the newest baseline that are out by the calendar and not recorded
    holes: tuple[date, ...]  # such months of the shown year before that baseline; they matter to no machine any more
    # By month, how many machines of the line that the reader may see restart, or what hinders them; None: too slow to count.
    machines: Mapping[date, Restarts] | None = field(default_factory=dict)
    has_dated_machines: bool = (
        False  # some are behind a connection with a catalogue date: judged by that day's catalogue
    )
    windows: Windows | None = None  # None: finding them took too long

    @property
    def lines(self) -> tuple[ProductLine, ...]:
        """Every product line."""
        return tuple(ProductLine)

    @property
    def next_baseline_at(self) -> datetime | None:
        """From when on the next planned baseline is offered."""
        return patch_tuesday(self.next_baseline) if self.next_baseline else None

    @property
    def next_restarts(self) -> int:
        """How many machines the next planned baseline restarts; 0 where that is not counted."""
        counted = (self.machines or {}).get(self.next_baseline) if self.next_baseline else None
        return counted[Outlook.WILL] if counted else 0

    @cached_property
    def is_on_another_day(self) -> bool:
        """Whether a release comes on another day of the week on the reader's clock than on Microsoft's."""
        return any(timezone.localtime(cell.at).date() != cell.at.astimezone(PACIFIC).date() for cell in self.cells)


def load_calendar(user: User | AnonymousUser, query: Mapping[str, str], now: datetime) -> Calendar:
    """The year that the address asks for; this one if it asks for none that is offered. At most nine queries, whatever the size of the fleet."""
    line = ProductLine(query["line"]) if query.get("line") in set(ProductLine) else ProductLine.WS2022
    rows = {row.facts: row for row in Release.objects.filter(product_line=line)}
    this_year = timezone.localtime(now).year
    years = tuple(sorted({facts.month.year for facts in rows} | {this_year, this_year + 1}))
    asked = query.get("year", "")
    year = int(asked) if asked in {str(known) for known in years} else this_year
    months = calendar_year(rows, line, year)
    known = timetable(rows, line, now)
    newest = known.baseline.month if known.baseline else date.min
    first = min((facts.month for facts in rows), default=date.max)
    end = END_OF_HOTPATCHING.get(line, date.max)
    grants = Grants.of(user)
    restarts, has_dated = _restarts(grants, line, year, now)
    return Calendar(
        line=line,
        year=year,
        now=now,
        years=years,
        cells=tuple(
            CalendarCell(
                m,
                _releases(m, rows),
                is_missing=m.month in known.missing_months,
                is_before_all=m.month < first,
                is_after_end=m.month > end,
                restarts=(restarts or {}).get(m.month, Restarts()),
            )
            for m in months
        ),
        counts=year_counts(months),
        next_baseline=next_baseline_of(line, now),
        known_until=known.ends,
        missing=known.missing_after_baseline,
        holes=tuple(month for month in known.missing_months if month <= newest and month.year == year),
        machines=restarts,
        has_dated_machines=has_dated,
        windows=_windows(grants, year, now),
    )


def _restarts(grants: Grants, line: ProductLine, year: int, now: datetime) -> tuple[dict[date, Restarts] | None, bool]:
    """By month of the year from the present one on, how many machines of the line restart, what hinders them, or of how many nobody knows.

    Second, whether a connection has a catalogue date. None where counting takes too long. Four queries of counters.
    """
    scope = FleetScope(product_line=line.value)
    try:
        counts = count_fleet(place_of(grants), scope)
    except ListTooSlowError:
        return None, False
    if not counts.lines:
        return {}, False
    moments = moments_of_connections(now)
    found = count_restarts(counts, load_pending(counts), moments, now=now, until=date(year, 12, 1))
    present = now.astimezone(PACIFIC).date().replace(day=1)  # what is over restarts nobody any more
    ahead = {month: restarts for month, restarts in found.items() if month.year == year and month >= present}
    return ahead, any(moments.get(pk, now) != now for pk in counts.by("connection_id"))


def _windows(grants: Grants, year: int, now: datetime) -> Windows | None:
    """When windows open from now to the end of the year that mean machines which these grants show."""
    zone = timezone.get_current_timezone()
    start = max(now, datetime(year, 1, 1, tzinfo=zone))
    end = datetime(year + 1, 1, 1, tzinfo=zone)
    if start >= end:
        return Windows()
    try:
        rows = _configurations_meaning(grants)
        clocks = clocks_meant(rows[:MAX_CONFIGURATIONS], VirtualMachine.objects.granted_by(grants))
    except ListTooSlowError:
        return None
    # On each machine's own clock a window is marked where the first of these machines comes to it.
    openings = [
        Opening(opens_at, row.name)
        for row in rows[:MAX_CONFIGURATIONS]
        for day in takewhile(
            lambda day: day.first.wall.date() <= end.date(),
            islice(open_days_of(row, clocks.get(row.pk, ()), after=start), MAX_WINDOWS),
        )
        if (opens_at := day.first.window.opens_at) < end
    ]
    shown = {opening.name for opening in openings}
    names = tuple(row.name for row in rows if row.name in shown)
    return Windows(tuple(openings), names, max(len(rows) - MAX_CONFIGURATIONS, 0))


def _configurations_meaning(grants: Grants) -> list[MaintenanceConfiguration]:
    """The enabled configurations that mean a machine which these grants show, the next to open first."""
    rows = list(MaintenanceConfiguration.objects.filter(is_enabled=True).order_by("next_run_at", "name"))
    if grants.are_of_everything or not rows:
        return rows
    vms = VirtualMachine.objects.granted_by(grants).order_by()
    if vms.query.is_empty():
        return []
    meant = Case(*(When(pk=row.pk, then=Exists(members_of(row, vms))) for row in rows), default=False)
    asked = MaintenanceConfiguration.objects.order_by().filter(meant, pk__in=[row.pk for row in rows]).values_list("pk")
    ids = {pk for (pk,) in fetch_bounded(*asked.query.sql_with_params())}
    return [row for row in rows if row.pk in ids]


def _releases(month: CalendarMonth, rows: Mapping[ReleaseFacts, Release]) -> tuple[CalendarRelease, ...]:
    found = [month.main, month.lcu, *month.out_of_band]
    return tuple(
        CalendarRelease(
            facts, rows[facts].get_type_display(), rows[facts].source, rows[facts].evidence, rows[facts].note
        )
        for facts in found
        if facts is not None
    )
