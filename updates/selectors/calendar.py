"""The hotpatch calendar: a year of a product line, with where each release was read, and what it means for one's machines."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from django.db.models import Case, Count, Exists, When
from django.db.models.fields.json import KeyTextTransform
from django.utils import timezone

from connectors.registry import catalogue_day
from patching.forecast import Hindrance, Outlook, forecast_reboots
from patching.orchestrator import Patcher
from patching.releases import (
    END_OF_HOTPATCHING,
    PACIFIC,
    CalendarMonth,
    Timetable,
    YearCounts,
    as_of,
    calendar_year,
    next_baseline_of,
    out_at,
    patch_tuesday,
    timetable,
    year_counts,
)
from patching.selection import OFF_GUARD
from patching.terms import HOTPATCH_TYPES, HotpatchTrack, ProductLine, RebootSetting, ReleaseType
from patching.terms import Release as ReleaseFacts
from patching.track import TrackVerdict
from updates.models import MaintenanceConfiguration, Release
from updates.selectors.automation import members_of
from updates.selectors.maintenance import open_windows_of
from vms.models import Grants, VirtualMachine
from vms.selectors import ListTooSlowError, fetch_bounded

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User

MAX_CONFIGURATIONS = 12  # whose windows are shown
MAX_WINDOWS = 400  # of each
MAX_AHEAD = 36  # months for which restarts are counted


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


Restarts = Counter[Outlook | Hindrance]


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
    """The year that the address asks for; this one if it asks for none that is offered. Four to six queries."""
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
    rows_of_machines = _machines(grants, line)
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
            )
            for m in months
        ),
        counts=year_counts(months),
        next_baseline=next_baseline_of(line, now),
        known_until=known.ends,
        missing=known.missing_after_baseline,
        holes=tuple(month for month in known.missing_months if month <= newest and month.year == year),
        machines=None if rows_of_machines is None else _outlooks(rows_of_machines, tuple(rows), line, year, now),
        has_dated_machines=any(row.day for row in rows_of_machines or ()),
        windows=_windows(grants, year, now),
    )


@dataclass(frozen=True, slots=True)
class _Alike:
    """How many machines are alike in what decides whether they restart."""

    track: HotpatchTrack
    patcher: Patcher
    setting: RebootSetting
    day: date | None  # their connection's catalogue date
    machines: int


def _machines(grants: Grants, line: ProductLine) -> list[_Alike] | None:
    """The machines of a line that these grants show, alike ones counted together; None where that takes too long."""
    rows = (
        VirtualMachine.objects.granted_by(grants)
        .filter(product_line=line, gone_at=None)
        .order_by()
        .values_list(
            "hotpatch_track", "patcher", "reboot_setting", KeyTextTransform("catalogue_date", "connection__config")
        )
        .annotate(machines=Count("pk"))
    )
    if rows.query.is_empty():
        return []
    try:
        found = fetch_bounded(*rows.query.sql_with_params())
    except ListTooSlowError:
        return None
    return [
        _Alike(HotpatchTrack(track), Patcher(patcher), RebootSetting(setting), catalogue_day(day), machines)
        for track, patcher, setting, day, machines in found
    ]


def _outlooks(
    alike: Iterable[_Alike], releases: Sequence[ReleaseFacts], line: ProductLine, year: int, now: datetime
) -> dict[date, Restarts]:
    """By month of the year from the present one on, how many machines restart, what hinders them, or of how many nobody knows."""
    found: defaultdict[date, Restarts] = defaultdict(Counter)
    tables: dict[date | None, Timetable] = {}
    present = now.astimezone(PACIFIC).date().replace(day=1)  # what is over restarts nobody any more
    for row in alike:
        moment = as_of(row.day, now)
        this_month = moment.astimezone(PACIFIC).date().replace(day=1)
        months = min((year - this_month.year) * 12 + 13 - this_month.month, MAX_AHEAD)
        if months < 1:
            continue
        known = tables.setdefault(row.day, timetable(releases, line, moment))
        forecast = forecast_reboots(
            releases,
            line,
            TrackVerdict(row.track, baseline=known.baseline, missing_months=known.missing_after_baseline),
            (),
            is_reboot_pending=False,
            as_of=moment,
            months=months,
            reboot_setting=row.setting,
            patcher=row.patcher,
            guard=OFF_GUARD,
        )
        for month in forecast:
            if month.month.year == year and month.month >= present:
                found[month.month][month.hindrance or month.outlook] += row.machines
    return dict(found)


def _windows(grants: Grants, year: int, now: datetime) -> Windows | None:
    """When windows open from now to the end of the year that mean machines which these grants show."""
    zone = timezone.get_current_timezone()
    start = max(now, datetime(year, 1, 1, tzinfo=zone))
    end = datetime(year + 1, 1, 1, tzinfo=zone)
    if start >= end:
        return Windows()
    try:
        rows = _configurations_meaning(grants)
    except ListTooSlowError:
        return None
    openings = [
        Opening(window.opens_at, row.name)
        for row in rows[:MAX_CONFIGURATIONS]
        for window in takewhile(
            lambda window: window.opens_at < end, islice(open_windows_of(row, after=start), MAX_WINDOWS)
        )
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
