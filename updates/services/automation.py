"""The scheduler: periodic assessments, automatic guest patching, maintenance windows. One tick, all of it set-based."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import structlog
from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from audit.context import acting
from db.arrays import array
from patching.orchestrator import Patcher
from patching.own_clocks import OnClock
from patching.recurrence import EarlyMonth
from patching.terms import InstallationPlan
from updates.models import MaintenanceConfiguration, Rollout, RolloutSource
from updates.selectors.automation import (
    kbs_lacking,
    members_of,
    scheduled,
    times_off_peak,
    vms_due_for_assessment,
    vms_to_patch_automatically,
    was_patching_lately,
)
from updates.selectors.freezes import times_to_freezes
from updates.selectors.maintenance import Content, Trouble, UnreadableError, read_configuration
from updates.selectors.members import Members, members_for
from updates.selectors.own_clocks import clocks_in, places_by_clock, vms_at
from updates.selectors.scopes import scope_lines
from updates.selectors.window_dates import WindowDate, dates_of
from updates.services.fleet import take_snapshot
from updates.services.health import ask_probes
from updates.services.operations import request_assessments
from updates.services.rollouts import RolloutPlan, advance_rollouts, create_rollout
from updates.services.words import refresh_words
from updates.texts import Text
from vms.models import Connection, VirtualMachine, VirtualMachineQuerySet
from vms.regions import clock_of, every_clock
from vms.selection import NOTHING, VmSelection
from vms.selectors import ListTooSlowError, connections_in_charge, patcher_of
from vms.services.summaries import refresh_patchers

if TYPE_CHECKING:
    from django.contrib.auth.models import User

log = structlog.get_logger(__name__)
# A tick comes every minute: 2,000 of them an hour would cover a million VMs a day four times over.
ASSESSMENTS_PER_TICK = 2_000
SMALLEST_TICK = 50


def tick(*, now: datetime, minutes: int = 1) -> None:
    """Everything that is due at this minute. `minutes`: how long it has been since the tick before."""
    refresh_words(now=now)
    take_snapshot(now=now)
    request_due_assessments(now=now, minutes=minutes)
    if now.minute % 10 == 0:
        follow_schedules()
        start_automatic_patching(now=now)
    open_windows(now=now)
    ask_probes(now=now)
    advance_rollouts(now=now)


def request_due_assessments(*, now: datetime, minutes: int = 1) -> int:
    """Queue periodic assessments that are due, the longest waiting first; how many.

    Each tick takes no more than its share of the fleet, so that they spread over the day by themselves.
    """
    share = max(SMALLEST_TICK, minutes * min(ASSESSMENTS_PER_TICK, VirtualMachine.objects.count() // 720))
    vm_ids = vms_due_for_assessment(now, limit=share, with_never=now.minute % 5 == 0)
    if vm_ids:
        request_assessments(vm_ids=vm_ids, requested_by=None, is_bulk=True)
    return len(vm_ids)


def follow_schedules() -> int:
    """Record who patches each VM, as the enabled configurations and the facts are now; how many VMs changed.

    Changes of a configuration do it at once; so do changes of a VM's settings and connection, by what is recorded of
    schedules. Whether a dynamic scope means a VM whose tags, location, group or image changed follows at the next tick
    that does it, within ten minutes.
    """
    return refresh_patchers(scheduled=scheduled())


# --- automatic guest patching ------------------------------------------------------------------------------------


def start_automatic_patching(*, now: datetime) -> list[Rollout]:
    """For each connection that this portal is in charge of, a rollout for the VMs that lack Critical or Security updates.

    VMs that were off, or failed, are in a later one; there is one a day. Only when off-peak hours have come for one of
    them.
    """
    made = []
    somebody = VirtualMachine.objects.filter(connection_id=OuterRef("pk"), critical_and_security_count__gt=0)
    in_charge = Connection.objects.filter(connections_in_charge(), Exists(somebody), is_patching_automatically=True)
    for row in in_charge.order_by("pk"):
        with transaction.atomic():
            # Two schedulers at once: the second finds the VMs in the rollout of the first.
            Connection.objects.select_for_update(no_key=True).get(pk=row.pk)
            if was_patching_lately(row.pk, now):
                continue
            vm_ids = vms_to_patch_automatically(row.pk, now)
            frozen = times_to_freezes(vm_ids, now=now)
            vm_ids = [pk for pk in vm_ids if frozen.get(pk) != timedelta(0)]
            if not vm_ids or not times_off_peak(vm_ids, now):
                continue
            kbs = kbs_lacking(vm_ids)
            if not kbs:
                continue
            plan = InstallationPlan(classifications=frozenset(), kb_numbers_to_include=kbs)
            what = RolloutPlan(
                name=f"{row.name} · {now:%Y-%m-%d}",
                source=RolloutSource.AUTOMATIC,
                plan=plan,
                is_off_peak_only=True,
            )
            made.append(create_rollout(what=what, selection=VmSelection.of(vm_ids), now=now, created_by=None))
            log.info("automatic_patching_started", connection_id=row.pk, vms=len(vm_ids))
    return made


# --- maintenance windows -----------------------------------------------------------------------------------------


def plan_next_run(*, configuration: MaintenanceConfiguration, now: datetime) -> None:
    """Write when its window opens next; none does while it is off, or while it cannot be read."""
    configuration.next_run_at = _next_run(configuration, now)
    configuration.save(update_fields=["next_run_at"])


def _next_run(configuration: MaintenanceConfiguration, now: datetime) -> datetime | None:
    if not configuration.is_enabled:
        return None
    try:
        timing = read_configuration(configuration).timing
    except UnreadableError as error:
        log.warning("configuration_unreadable", configuration_id=configuration.pk, error=str(error))
        return None
    # On any clock there is: which clocks its machines have may change until then.
    opening = timing.next_opening(every_clock(), after=now)
    return opening.window.opens_at if opening else None


def open_windows(*, now: datetime) -> list[Rollout]:
    """Open every window that is due: a rollout over the members whose prerequisites hold, for each clock that it opens on.

    A window that ended before anybody looked is skipped. One of a configuration that cannot be read stays shut, and no
    other waits for it.
    """
    made = []
    due = MaintenanceConfiguration.objects.filter(is_enabled=True, next_run_at__lte=now).values_list("pk", flat=True)
    for pk in list(due):
        with transaction.atomic():
            configuration = (
                MaintenanceConfiguration.objects.select_for_update(skip_locked=True)
                .filter(pk=pk, is_enabled=True, next_run_at__lte=now)
                .first()
            )
            if configuration is None or configuration.next_run_at is None:
                continue
            opened_at = configuration.next_run_at
            plan_next_run(configuration=configuration, now=now)
            try:
                content = read_configuration(configuration)
            except UnreadableError:
                continue
            # As the blackouts stand now, which may have changed since it was planned. What opened longer ago is over.
            since = max(opened_at, now - content.timing.duration)
            recent = content.timing.between(every_clock(), first=since, last=now)
            ahead = [on for on in recent if on.window.is_open and on.window.ends_at > now]
            if not ahead:
                is_missed = opened_at + content.timing.duration <= now
                what = "window_missed" if is_missed else "window_shut"
                log.warning(what, configuration_id=pk, opened_at=opened_at.isoformat())
            made += _open(configuration, content, ahead)
    return made


def _open(configuration: MaintenanceConfiguration, content: Content, due: Sequence[OnClock]) -> list[Rollout]:
    """A rollout for each of these windows; on a clock of machines only where one of its machines has this clock."""
    vms = members_of(configuration, VirtualMachine.objects.all())
    if content.timing.zone is None and due:
        places = places_by_clock(vms)
        due = [on for on in due if on.clock.key in places]
        vms = vms_at(vms, [place for on in due for place in places[on.clock.key]])
    if not due:
        return []
    ready = defaultdict[str, list[int]](list)
    for vm in vms.order_by("pk").select_related("connection"):
        clock = content.timing.zone or clock_of(vm.time_zone, vm.location)
        if clock and patcher_of(vm, has_schedule=True).patcher is Patcher.PORTAL_BY_SCHEDULE:
            ready[clock.key].append(vm.pk)
    return [_open_on(configuration, content, on, ready[on.clock.key]) for on in due]


def _open_on(
    configuration: MaintenanceConfiguration, content: Content, on: OnClock, vm_ids: Collection[int]
) -> Rollout:
    opened_at, ends_at = on.window.opens_at, on.window.ends_at
    what = RolloutPlan(
        name=f"{configuration.name} · {on.wall:%Y-%m-%d %H:%M} ({on.clock.key})",
        source=RolloutSource.SCHEDULE,
        plan=replace(content.plan, maximum_duration=ends_at - opened_at),
        is_availability_first=configuration.is_availability_first,
        window_ends_at=ends_at,
        catch_up_until=ends_at + timedelta(hours=configuration.catch_up_hours)
        if configuration.catch_up_hours
        else None,
        configuration=configuration,
        clock="" if content.timing.zone else on.clock.key,
    )
    # A configuration belongs to nobody: who made it may be gone, or hold no role any more.
    return create_rollout(what=what, selection=VmSelection.of(vm_ids), now=opened_at, created_by=None)


# --- people ------------------------------------------------------------------------------------------------------

PREVIEWED_RUNS, PREVIEWED_VMS = 12, 1_000
LEAD = timedelta(minutes=15)  # as Azure asks: between a change and the window that it is for


@dataclass(frozen=True, slots=True)
class Preview:
    """What a configuration would do: its next windows, and its members by what stands in the way of a schedule.

    `zone`: the clock that its windows are told in; None: each machine's own, `clocks` are those of its machines. `dates`: the
    windows with what they meet. `early`: months whose windows open before that month's release, of the next 24, on the
    clock `lead`, which comes first; `are_all_early`: it is so in every month in which one opens.
    """

    zone: ZoneInfo | None
    clocks: tuple[ZoneInfo, ...]
    lead: ZoneInfo | None
    dates: tuple[WindowDate, ...]
    early: tuple[EarlyMonth, ...]
    are_all_early: bool
    members: Members

    @property
    def is_elsewhere(self) -> bool:
        """Whether the reader's clock shows another time than that of the configuration, which has one."""
        mine, zone = timezone.get_current_timezone(), self.zone
        openings = [date.window.opens_at for date in self.dates]
        return zone is not None and any(
            at.astimezone(mine).utcoffset() != at.astimezone(zone).utcoffset() for at in openings
        )


def configuration_preview(
    *, configuration: MaintenanceConfiguration, now: datetime, vm_ids: Collection[int] | None = None
) -> Preview:
    """The windows of the next 12 days that have one (shut ones included) and the machines it means now.

    `vm_ids`: its static members, of one that is not kept yet. Raises UnreadableError.
    """
    content = read_configuration(configuration)
    timing, scope, is_own = content.timing, content.scope, content.timing.zone is None
    static = configuration.vms.values_list("pk", flat=True) if vm_ids is None else vm_ids
    members = members_for(scope, static, is_own_clock=is_own)
    meant = members_of(configuration, VirtualMachine.objects.filter(gone_at=None), vm_ids=vm_ids)
    clocks = _clocks_in(meant) if is_own else ()
    days = tuple(islice(timing.days(clocks, after=now), PREVIEWED_RUNS))
    schedule = timing.on(days[0].first.clock) if days else None
    early = schedule.early_months(after=now) if schedule else ()
    ready = VirtualMachine.objects.filter(pk__any=array(members.ready_ids))
    return Preview(
        zone=timing.zone,
        clocks=clocks,
        lead=schedule.zone if schedule else None,
        dates=dates_of(configuration, timing, days, early=early, vms=ready, now=now),
        early=early,
        are_all_early=bool(early) and {month.opens_at for month in early} >= {d.first.window.opens_at for d in days},
        members=members,
    )


def _clocks_in(vms: VirtualMachineQuerySet) -> tuple[ZoneInfo, ...]:
    """The clocks of these machines; none where finding out takes too long."""
    try:
        return clocks_in(vms)
    except ListTooSlowError:
        return ()


@dataclass(frozen=True, slots=True)
class ConfigurationPage:
    """What the page of a configuration shows. Where `troubles` are, there is neither content nor preview."""

    troubles: tuple[Trouble, ...]
    content: Content | None
    preview: Preview | None
    scope: tuple[tuple[Text, str], ...]
    named: int  # machines by name


def configuration_page(*, configuration: MaintenanceConfiguration, now: datetime) -> ConfigurationPage:
    """What a kept configuration says and would do, or why it cannot be read."""
    named = configuration.vms.count()
    try:
        content = read_configuration(configuration)
    except UnreadableError as error:
        return ConfigurationPage(error.troubles, None, None, (), named)
    preview = configuration_preview(configuration=configuration, now=now)
    return ConfigurationPage((), content, preview, tuple(scope_lines(content.scope)), named)


class WindowIsNearError(ValueError):
    """The next window opens within 15 minutes: too late to change what it does."""


def check_window_is_far(kept: MaintenanceConfiguration, *, now: datetime) -> None:
    """Raise WindowIsNearError if a window of this configuration opens within 15 minutes, for one of its machines."""
    if not (kept.is_enabled and kept.next_run_at and now <= kept.next_run_at < now + LEAD):
        return
    if kept.is_own_clock:
        clocks = places_by_clock(members_of(kept, VirtualMachine.objects.all()))
        near = read_configuration(kept).timing.between(map(ZoneInfo, clocks), first=now, last=now + LEAD)
        if not any(on.window.is_open and on.window.opens_at < now + LEAD for on in near):
            return
    raise WindowIsNearError


@transaction.atomic
def create_configuration(
    *,
    configuration: MaintenanceConfiguration,
    created_by: User,
    now: datetime,
    selection: VmSelection = NOTHING,
) -> MaintenanceConfiguration:
    """Keep a new configuration with its static members; its first window opens 15 minutes from now at the earliest.

    Raises UnreadableError if it says something that could not be read; nothing is kept then.
    """
    read_configuration(configuration)
    configuration.created_by = created_by
    with acting(person=created_by):
        configuration.save(force_insert=True)
        configuration.vms.set(selection.ids)
    plan_next_run(configuration=configuration, now=now + LEAD)
    follow_schedules()
    return configuration


@transaction.atomic
def change_configuration(
    *, configuration: MaintenanceConfiguration, now: datetime, selection: VmSelection = NOTHING
) -> None:
    """Keep what was changed; windows that have opened go on as they were.

    Raises WindowIsNearError if a window opens within 15 minutes, UnreadableError if it says something that could not be
    read; nothing is changed then.
    """
    read_configuration(configuration)
    kept = MaintenanceConfiguration.objects.select_for_update().get(pk=configuration.pk)
    check_window_is_far(kept, now=now)
    configuration.is_enabled = kept.is_enabled
    configuration.save()
    configuration.vms.set(selection.ids)
    plan_next_run(configuration=configuration, now=now + LEAD)
    follow_schedules()


@transaction.atomic
def remove_configuration(*, configuration_id: int) -> None:
    """Remove it; windows that have opened go on, and their rollouts stay in the history."""
    MaintenanceConfiguration.objects.filter(pk=configuration_id).delete()
    follow_schedules()


@transaction.atomic
def switch_configuration(*, configuration_id: int, is_enabled: bool, now: datetime) -> None:
    """Switch it on or off; what has started goes on."""
    configuration = MaintenanceConfiguration.objects.select_for_update().get(pk=configuration_id)
    configuration.is_enabled = is_enabled
    configuration.save(update_fields=["is_enabled"])
    plan_next_run(configuration=configuration, now=now)
    follow_schedules()
