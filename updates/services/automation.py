"""The scheduler: periodic assessments, automatic guest patching, maintenance windows. One tick, all of it set-based."""

from __future__ import annotations

from collections.abc import Collection
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
from patching.recurrence import EarlyMonth, Window
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
from updates.selectors.members import Members, members_for, members_kept
from updates.selectors.scopes import scope_lines
from updates.selectors.window_dates import WindowDate, dates_of
from updates.services.fleet import take_snapshot
from updates.services.health import ask_probes
from updates.services.operations import request_assessments
from updates.services.rollouts import RolloutPlan, advance_rollouts, create_rollout
from updates.services.words import refresh_words
from updates.texts import Text
from vms.models import Connection, VirtualMachine
from vms.selection import NOTHING, VmSelection
from vms.selectors import connections_in_charge, patcher_of
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
        windows = read_configuration(configuration).schedule.windows(after=now)
    except UnreadableError as error:
        log.warning("configuration_unreadable", configuration_id=configuration.pk, error=str(error))
        return None
    return next((window.opens_at for window in windows if window.is_open), None)


def open_windows(*, now: datetime) -> list[Rollout]:
    """Open every window that is due: a rollout over the members whose prerequisites hold.

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
            # As the blackouts stand now, which may have changed since it was planned.
            window = next(content.schedule.windows(after=opened_at - timedelta(microseconds=1)), None)
            if window is None or window.opens_at != opened_at or not window.is_open:
                log.warning("window_shut", configuration_id=pk, opened_at=opened_at.isoformat())
            elif window.ends_at <= now:
                log.warning("window_missed", configuration_id=pk, opened_at=opened_at.isoformat())
            else:
                made.append(_open(configuration, content, window))
    return made


def _open(configuration: MaintenanceConfiguration, content: Content, window: Window) -> Rollout:
    opened_at, ends_at = window.opens_at, window.ends_at
    zone = content.schedule.zone
    shown = opened_at.astimezone(zone)
    vms = members_of(configuration, VirtualMachine.objects.order_by("pk")).select_related("connection")
    ready = [vm.pk for vm in vms if patcher_of(vm, has_schedule=True).patcher is Patcher.PORTAL_BY_SCHEDULE]
    what = RolloutPlan(
        name=f"{configuration.name} · {shown:%Y-%m-%d %H:%M} ({zone.key})",
        source=RolloutSource.SCHEDULE,
        plan=replace(content.plan, maximum_duration=ends_at - opened_at),
        is_availability_first=configuration.is_availability_first,
        window_ends_at=ends_at,
        catch_up_until=ends_at + timedelta(hours=configuration.catch_up_hours)
        if configuration.catch_up_hours
        else None,
        configuration=configuration,
    )
    # A configuration belongs to nobody: who made it may be gone, or hold no role any more.
    return create_rollout(what=what, selection=VmSelection.of(ready), now=opened_at, created_by=None)


# --- people ------------------------------------------------------------------------------------------------------

PREVIEWED_RUNS, PREVIEWED_VMS = 12, 1_000
LEAD = timedelta(minutes=15)  # as Azure asks: between a change and the window that it is for


@dataclass(frozen=True, slots=True)
class Preview:
    """What a configuration would do: its next windows, and its members by what stands in the way of a schedule.

    `zone`: the clock that its windows are told in; `dates`: the windows with what they meet. `early`: months whose windows open before that month's release, of
    the next 24; `are_all_early`: it is so in every month in which one opens.
    """

    zone: ZoneInfo
    windows: tuple[Window, ...]
    dates: tuple[WindowDate, ...]
    early: tuple[EarlyMonth, ...]
    are_all_early: bool
    members: Members

    @property
    def is_elsewhere(self) -> bool:
        """Whether the reader's clock shows another time than that of the configuration."""
        mine = timezone.get_current_timezone()
        return any(
            w.opens_at.astimezone(mine).utcoffset() != w.opens_at.astimezone(self.zone).utcoffset()
            for w in self.windows
        )


def configuration_preview(
    *, configuration: MaintenanceConfiguration, now: datetime, vm_ids: Collection[int] | None = None
) -> Preview:
    """The next 12 windows (those that a blackout keeps shut included) and the machines it means now.

    `vm_ids`: its static members, of one that is not kept yet. Raises UnreadableError.
    """
    content = read_configuration(configuration)
    schedule, scope = content.schedule, content.scope
    members = members_kept(configuration, scope) if vm_ids is None else members_for(scope, vm_ids)
    early = schedule.early_months(after=now)
    windows = tuple(islice(schedule.windows(after=now), PREVIEWED_RUNS))
    ready = VirtualMachine.objects.filter(pk__any=array(members.ready_ids))
    return Preview(
        zone=schedule.zone,
        windows=windows,
        dates=dates_of(configuration, schedule, windows, early=early, vms=ready, now=now),
        early=early,
        are_all_early=bool(early) and {month.opens_at for month in early} >= {window.opens_at for window in windows},
        members=members,
    )


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
    """Raise WindowIsNearError if a window of this configuration opens within 15 minutes."""
    if kept.is_enabled and kept.next_run_at and now <= kept.next_run_at < now + LEAD:
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
