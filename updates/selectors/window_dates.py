"""What the next windows of a configuration meet: releases, restarts, freezes, and windows of other configurations."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from django.core.exceptions import EmptyResultSet
from django.db.models import BooleanField, Case, Count, Exists, Q, Value, When

from patching.forecast import Outlook
from patching.orchestrator import Patcher
from patching.own_clocks import DayOfWindows, OnClock, Timing
from patching.recurrence import EarlyMonth, Schedule, Window
from patching.releases import PACIFIC, calendar_year, is_train_over, patch_tuesday
from patching.terms import ProductLine, ReleaseType
from patching.terms import Release as ReleaseFacts
from updates.models import Freeze, MaintenanceConfiguration
from updates.selectors.automation import members_of
from updates.selectors.fleet_forecast import Alike, judge_now
from updates.selectors.freezes import meant_by
from updates.selectors.maintenance import open_windows_on
from vms.models import ALIKE, VirtualMachineQuerySet
from vms.regions import clock_of
from vms.selectors import ListTooSlowError, fetch_bounded

MOST_WINDOWS = 400  # of each other configuration that are looked at


@dataclass(frozen=True, slots=True)
class Meeting:
    """A month's release that a window is the first to meet, and how many of its machines it restarts.

    `is_recorded`: it is recorded, and not only what the rule of the quarters expects.
    """

    line: ProductLine
    month: date
    type: ReleaseType
    is_recorded: bool
    machines: int
    restarts: int
    maybe: int

    def with_more(self, other: Meeting) -> Meeting:
        """The same release with the machines of another window of the day."""
        return replace(
            self,
            machines=self.machines + other.machines,
            restarts=self.restarts + other.restarts,
            maybe=self.maybe + other.maybe,
        )


@dataclass(frozen=True, slots=True)
class FreezeMet:
    """A freeze that a window touches, and how many of its machines it holds, but for exceptions."""

    freeze: Freeze
    machines: int
    is_whole: bool  # it holds all of them from the opening to the end


@dataclass(frozen=True, slots=True)
class WindowDate:
    """The windows of a day with what they meet. `beside`: other configurations with a window at the same time on the same machines."""

    day: DayOfWindows
    early: EarlyMonth | None
    meets: tuple[Meeting, ...]
    frozen: tuple[FreezeMet, ...]
    beside: tuple[MaintenanceConfiguration, ...]

    @property
    def window(self) -> Window:
        """The one that opens first; of one zone it is the only one."""
        return self.day.first.window


Key = tuple[str, datetime]  # a window by the name of its clock and its opening


def dates_of(
    configuration: MaintenanceConfiguration,
    timing: Timing,
    days: Sequence[DayOfWindows],
    *,
    early: Iterable[EarlyMonth],
    vms: VirtualMachineQuerySet,
    now: datetime,
) -> tuple[WindowDate, ...]:
    """What the windows of these days meet on these machines, which the configuration patches (six queries)."""
    if not days:
        return ()
    early_at = {month.opens_at: month for month in early}
    windows = defaultdict[str, list[Window]](list)  # by the names of their clocks
    for on in (on for day in days for on in day.windows):
        windows[on.clock.key].append(on.window)
    frozen = _frozen(timing, windows, vms, now)
    beside = _beside(configuration, days, windows, vms)
    held = {key for key, met in frozen.items() if any(one.is_whole for one in met)}
    meets = _meetings(timing, windows, vms, held, now)
    return tuple(
        WindowDate(
            day,
            early_at.get(day.first.window.opens_at),
            _all_meetings(meets[_key(on)] for on in day.windows),
            _all_frozen([frozen[_key(on)] for on in day.windows]),
            tuple({row.pk: row for on in day.windows for row in beside[_key(on)]}.values()),
        )
        for day in days
    )


def _key(on: OnClock) -> Key:
    return on.clock.key, on.window.opens_at


# --- releases ----------------------------------------------------------------------------------------------------


def _all_meetings(met: Iterable[Iterable[Meeting]]) -> tuple[Meeting, ...]:
    """What the windows of one day meet together."""
    found: dict[tuple[ProductLine, date], Meeting] = {}
    for one in (one for of_window in met for one in of_window):
        other = found.get((one.line, one.month))
        found[one.line, one.month] = one if other is None else other.with_more(one)
    return tuple(sorted(found.values(), key=lambda one: (one.line, one.month)))


def _meetings(
    timing: Timing,
    windows: Mapping[str, Sequence[Window]],
    vms: VirtualMachineQuerySet,
    held: Collection[Key],
    now: datetime,
) -> Mapping[Key, list[Meeting]]:
    """For each window: the releases for which it is the first one on its clock."""
    found: defaultdict[Key, list[Meeting]] = defaultdict(list)
    by_clock = _alike_machines(timing, vms)
    judge = judge_now(now, {alike for machines in by_clock.values() for alike in machines})
    for clock, machines in by_clock.items():
        schedule = timing.on(ZoneInfo(clock))
        firsts = [w for w in windows.get(clock, ()) if w.is_open and (clock, w.opens_at) not in held]
        months = {window.opens_at: _month_out_at(window.opens_at) for window in firsts}
        for line in sorted({ProductLine(alike.product_line) for alike in machines}):
            mine = {alike: count for alike, count in machines.items() if alike.product_line == line}
            releases = [release for release in judge.releases if release.product_line == line]
            met = set[date]()
            for window in firsts:
                month = months[window.opens_at]
                if month in met or schedule is None or _was_met_before(schedule, window, month):
                    continue
                met.add(month)
                outlooks = Counter[Outlook | None]()
                for alike, count in mine.items():
                    outlooks[judge.outlook(alike, month)] += count
                kind, is_recorded = _kind_of(releases, line, month)
                found[clock, window.opens_at].append(
                    Meeting(
                        line,
                        month,
                        kind,
                        is_recorded,
                        sum(mine.values()),
                        outlooks[Outlook.WILL],
                        outlooks[Outlook.MAY],
                    )
                )
    return found


def _alike_machines(timing: Timing, vms: VirtualMachineQuerySet) -> Mapping[str, Counter[Alike]]:
    """These machines as the windows patch them, alike ones counted together, by clock; none where that takes too long (one query)."""
    place = () if timing.zone else ("time_zone", "location")
    asked = vms.filter(gone_at=None).exclude(product_line="").order_by().values_list(*ALIKE, *place)
    try:
        counted = fetch_bounded(*asked.annotate(count=Count("pk")).query.sql_with_params())
    except (EmptyResultSet, ListTooSlowError):
        return {}
    found = defaultdict[str, Counter[Alike]](Counter)
    for *facts, count in counted:
        clock = timing.zone or clock_of(*facts[len(ALIKE) :])
        alike = Alike(*facts[: len(ALIKE)])._replace(patcher=Patcher.PORTAL_BY_SCHEDULE.value)
        if clock is not None:
            found[clock.key][alike] += count
    return found


def _month_out_at(moment: datetime) -> date:
    """The newest month whose Patch Tuesday has come by this moment."""
    month = moment.astimezone(PACIFIC).date().replace(day=1)
    return month if moment >= patch_tuesday(month) else (month - timedelta(days=1)).replace(day=1)


def _was_met_before(schedule: Schedule, window: Window, month: date) -> bool:
    """Whether a window of this schedule opened after that month's release and before this one."""
    before = schedule.windows(after=patch_tuesday(month) - timedelta(microseconds=1))
    first = next((other for other in before if other.is_open), window)
    return first.opens_at < window.opens_at


def _kind_of(releases: Sequence[ReleaseFacts], line: ProductLine, month: date) -> tuple[ReleaseType, bool]:
    """What a month brings to machines on the train, and whether that is recorded."""
    this = calendar_year(releases, line, month.year)[month.month - 1]
    if this.main is not None:
        return this.main.type, True
    return (ReleaseType.LCU if is_train_over(line, patch_tuesday(month)) else this.expected), False


# --- freezes and other windows -----------------------------------------------------------------------------------


def _all_frozen(met: Sequence[Sequence[FreezeMet]]) -> tuple[FreezeMet, ...]:
    """The freezes that the windows of one day touch together; whole where each of these windows is held whole."""
    rows = {one.freeze.pk: one.freeze for of_window in met for one in of_window}
    found = []
    for pk, row in rows.items():
        mine = [one for of_window in met for one in of_window if one.freeze.pk == pk]
        is_whole = len(mine) == len(met) and all(one.is_whole for one in mine)
        found.append(FreezeMet(row, sum(one.machines for one in mine), is_whole))
    return tuple(found)


def _frozen(
    timing: Timing, windows: Mapping[str, Sequence[Window]], vms: VirtualMachineQuerySet, now: datetime
) -> Mapping[Key, list[FreezeMet]]:
    last = max(window.ends_at for of_clock in windows.values() for window in of_clock)
    rows = list(Freeze.objects.filter(ended_at=None, ends_at__gt=now, begins_at__lt=last))
    found: defaultdict[Key, list[FreezeMet]] = defaultdict(list)
    if not rows:
        return found
    meant = {f"freeze_{row.pk}": Count("pk", filter=means) for row in rows if (means := meant_by(row)) is not None}
    counting = {"total": Count("pk"), **meant}
    by_clock = defaultdict[str, Counter[str]](Counter)
    if timing.zone:
        by_clock[timing.zone.key].update(vms.order_by().aggregate(**counting))
    else:
        for time_zone, location, *counts in vms.order_by().values_list("time_zone", "location").annotate(**counting):
            if here := clock_of(time_zone, location):
                by_clock[here.key].update(dict(zip(counting, counts, strict=True)))
    for clock, of_clock in windows.items():
        numbers = by_clock[clock]
        for window in of_clock:
            for row in rows:
                machines = numbers[f"freeze_{row.pk}" if f"freeze_{row.pk}" in meant else "total"]
                if machines and row.begins_at < window.ends_at and window.opens_at < row.ends_at:
                    is_whole = row.begins_at <= window.opens_at and window.ends_at <= row.ends_at
                    met = FreezeMet(row, machines, is_whole and machines == numbers["total"])
                    found[clock, window.opens_at].append(met)
    return found


def configurations_of(
    vms: VirtualMachineQuerySet, *, but: MaintenanceConfiguration | None = None
) -> list[MaintenanceConfiguration]:
    """The enabled configurations that mean any of these machines (two queries). `but`: one that is left out."""
    enabled = MaintenanceConfiguration.objects.filter(is_enabled=True).order_by("name")
    rows = [row for row in enabled if but is None or row.pk != but.pk]
    if not rows:
        return []
    flags = (When(pk=row.pk, then=Exists(members_of(row, vms.order_by()))) for row in rows)
    means_some = Case(*flags, default=Value(False), output_field=BooleanField())
    ids = MaintenanceConfiguration.objects.annotate(means_some=means_some).filter(Q(means_some=True))
    meaning = set(ids.filter(pk__in=[row.pk for row in rows]).values_list("pk", flat=True))
    return [row for row in rows if row.pk in meaning]


def _beside(
    configuration: MaintenanceConfiguration,
    days: Sequence[DayOfWindows],
    windows: Mapping[str, Sequence[Window]],
    vms: VirtualMachineQuerySet,
) -> Mapping[Key, list[MaintenanceConfiguration]]:
    found: defaultdict[Key, list[MaintenanceConfiguration]] = defaultdict(list)
    clocks = {on.clock.key: on.clock for day in days for on in day.windows}
    for row in configurations_of(vms, but=configuration):
        for name, mine in windows.items():
            ahead = list(_ahead(row, clocks[name], after=mine[0].opens_at, until=mine[-1].ends_at))
            openings = [window.opens_at for window in ahead]
            for window in mine:
                # Of those that open before this one ends, the last one ends last.
                place = bisect_left(openings, window.ends_at)
                if place and window.opens_at < ahead[place - 1].ends_at:
                    found[name, window.opens_at].append(row)
    return found


def _ahead(row: MaintenanceConfiguration, clock: ZoneInfo, *, after: datetime, until: datetime) -> Iterator[Window]:
    """Its windows between two moments, and those of the day before, for machines with this clock."""
    theirs = islice(open_windows_on(row, clock, after=after - timedelta(days=1)), MOST_WINDOWS)
    return takewhile(lambda other: other.opens_at < until, theirs)
