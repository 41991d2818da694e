"""What the next windows of a configuration meet: releases, restarts, freezes, and windows of other configurations."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice, takewhile

from django.core.exceptions import EmptyResultSet
from django.db.models import BooleanField, Case, Count, Exists, Q, Value, When

from patching.forecast import Outlook
from patching.orchestrator import Patcher
from patching.recurrence import EarlyMonth, Schedule, Window
from patching.releases import PACIFIC, calendar_year, is_train_over, patch_tuesday
from patching.terms import ProductLine, ReleaseType
from patching.terms import Release as ReleaseFacts
from updates.models import Freeze, MaintenanceConfiguration
from updates.selectors.automation import members_of
from updates.selectors.fleet_forecast import Alike, judge_now
from updates.selectors.freezes import meant_by
from updates.selectors.maintenance import open_windows_of
from vms.models import ALIKE, VirtualMachineQuerySet
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


@dataclass(frozen=True, slots=True)
class FreezeMet:
    """A freeze that a window touches, and how many of its machines it holds, but for exceptions."""

    freeze: Freeze
    machines: int
    is_whole: bool  # it holds all of them from the opening to the end


@dataclass(frozen=True, slots=True)
class WindowDate:
    """A window with what it meets. `beside`: other configurations with a window at the same time on the same machines."""

    window: Window
    early: EarlyMonth | None
    meets: tuple[Meeting, ...]
    frozen: tuple[FreezeMet, ...]
    beside: tuple[MaintenanceConfiguration, ...]


def dates_of(
    configuration: MaintenanceConfiguration,
    schedule: Schedule,
    windows: Sequence[Window],
    *,
    early: Iterable[EarlyMonth],
    vms: VirtualMachineQuerySet,
    now: datetime,
) -> tuple[WindowDate, ...]:
    """What these windows of a schedule meet on these machines, which it patches (six queries)."""
    if not windows:
        return ()
    early_at = {month.opens_at: month for month in early}
    frozen = _frozen(windows, vms, now)
    beside = _beside(configuration, windows, vms)
    held = {window.opens_at for window in windows if any(one.is_whole for one in frozen[window.opens_at])}
    meets = _meetings(schedule, windows, vms, held, now)
    return tuple(
        WindowDate(
            window,
            early_at.get(window.opens_at),
            tuple(meets[window.opens_at]),
            tuple(frozen[window.opens_at]),
            tuple(beside[window.opens_at]),
        )
        for window in windows
    )


# --- releases ----------------------------------------------------------------------------------------------------


def _meetings(
    schedule: Schedule,
    windows: Sequence[Window],
    vms: VirtualMachineQuerySet,
    held: Collection[datetime],
    now: datetime,
) -> Mapping[datetime, list[Meeting]]:
    """For each window, by its opening: the releases for which it is the first window."""
    found: defaultdict[datetime, list[Meeting]] = defaultdict(list)
    machines = _alike_machines(vms)
    judge = judge_now(now, machines)
    firsts = [window for window in windows if window.is_open and window.opens_at not in held]
    months = {window.opens_at: _month_out_at(window.opens_at) for window in firsts}
    for line in sorted({ProductLine(alike.product_line) for alike in machines}):
        mine = {alike: count for alike, count in machines.items() if alike.product_line == line}
        releases = [release for release in judge.releases if release.product_line == line]
        met = set[date]()
        for window in firsts:
            month = months[window.opens_at]
            if month in met or _was_met_before(schedule, window, month):
                continue
            met.add(month)
            outlooks = Counter[Outlook | None]()
            for alike, count in mine.items():
                outlooks[judge.outlook(alike, month)] += count
            kind, is_recorded = _kind_of(releases, line, month)
            found[window.opens_at].append(
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


def _alike_machines(vms: VirtualMachineQuerySet) -> Counter[Alike]:
    """These machines as the windows patch them, alike ones counted together; none where that takes too long (one query)."""
    rows = vms.filter(gone_at=None).exclude(product_line="").order_by().values_list(*ALIKE).annotate(count=Count("pk"))
    try:
        counted = fetch_bounded(*rows.query.sql_with_params())
    except (EmptyResultSet, ListTooSlowError):
        return Counter()
    found: Counter[Alike] = Counter()
    for *facts, count in counted:
        found[Alike(*facts)._replace(patcher=Patcher.PORTAL_BY_SCHEDULE.value)] += count
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


def _frozen(
    windows: Sequence[Window], vms: VirtualMachineQuerySet, now: datetime
) -> Mapping[datetime, list[FreezeMet]]:
    rows = list(Freeze.objects.filter(ended_at=None, ends_at__gt=now, begins_at__lt=windows[-1].ends_at))
    found: defaultdict[datetime, list[FreezeMet]] = defaultdict(list)
    if not rows:
        return found
    meant = {f"freeze_{row.pk}": Count("pk", filter=means) for row in rows if (means := meant_by(row)) is not None}
    counted = vms.order_by().aggregate(total=Count("pk"), **meant)
    for window in windows:
        for row in rows:
            machines = counted.get(f"freeze_{row.pk}", counted["total"])
            if machines and row.begins_at < window.ends_at and window.opens_at < row.ends_at:
                is_whole = row.begins_at <= window.opens_at and window.ends_at <= row.ends_at
                found[window.opens_at].append(FreezeMet(row, machines, is_whole and machines == counted["total"]))
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
    configuration: MaintenanceConfiguration, windows: Sequence[Window], vms: VirtualMachineQuerySet
) -> Mapping[datetime, list[MaintenanceConfiguration]]:
    found: defaultdict[datetime, list[MaintenanceConfiguration]] = defaultdict(list)
    for row in configurations_of(vms, but=configuration):
        theirs = islice(open_windows_of(row, after=windows[0].opens_at - timedelta(days=1)), MOST_WINDOWS)
        ahead = list(takewhile(lambda other: other.opens_at < windows[-1].ends_at, theirs))
        for window in windows:
            if any(w.opens_at < window.ends_at and window.opens_at < w.ends_at for w in ahead):
                found[window.opens_at].append(row)
    return found
