"""What automation needs to know: who patches which VM, who is off-peak now, who is due."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from functools import reduce
from itertools import islice, takewhile
from operator import or_
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import connection
from django.db.models import Exists, Func, JSONField, OuterRef, Q

from patching.orchestrator import Patcher
from patching.recurrence import parse_hours, time_off_peak
from patching.terms import (
    CRITICAL_AND_SECURITY,
    LCU_TYPES,
    AssessmentMode,
    HotpatchTrack,
    OperationKind,
    Verification,
)
from updates.models import (
    KbHold,
    MaintenanceConfiguration,
    MemberState,
    PatchSetMember,
    Rollout,
    RolloutMember,
    RolloutSource,
    RolloutState,
)
from updates.selectors.maintenance import open_windows_on
from updates.selectors.scopes import NOBODY, kept_scope_filter, kept_scope_means
from vms.choices import PowerState
from vms.models import VirtualMachine, VirtualMachineQuerySet
from vms.regions import clock_of
from vms.selectors import shortest_names, vms_patched_by, with_stale_patchers

ASSESSMENT_PERIOD = timedelta(hours=24)


def times_off_peak(vm_ids: Collection[int], now: datetime) -> dict[int, timedelta]:
    """How long an installation may take that begins now on these VMs; only those that may begin (one query).

    A VM whose clock nobody knows is never among them: it waits (`vms_without_a_clock`).
    """
    rows = VirtualMachine.objects.filter(pk__in=list(vm_ids)).order_by("pk").values_list("pk", "time_zone", "location")
    begins, ends = parse_hours(settings.OFF_PEAK)
    times: dict[tuple[str, str], timedelta] = {}
    found = {}
    for pk, time_zone, location in rows:
        key = (time_zone, location)
        if key not in times:
            clock = clock_of(*key)
            times[key] = time_off_peak(now, clock, begins=begins, ends=ends) if clock else timedelta(0)
        if times[key]:
            found[pk] = times[key]
    return found


def vms_that_wait_for_a_clock() -> VirtualMachineQuerySet:
    """The machines that nothing patches because nobody knows their clock (a query for configurations, one for places).

    Those that automatic patching would take on, and those of configurations that open on each machine's own clock.
    """
    automatic = Q(patcher=Patcher.PORTAL_AUTOMATICALLY.value)
    rows = MaintenanceConfiguration.objects.filter(is_enabled=True, is_own_clock=True)
    return vms_without_a_clock(VirtualMachine.objects.filter(reduce(or_, map(means, rows), automatic)))


def vms_without_a_clock(vms: VirtualMachineQuerySet) -> VirtualMachineQuerySet:
    """Those of these VMs whose time zone and region name no clock (one query over the places that occur)."""
    places = vms.order_by().values_list("time_zone", "location").distinct()
    unknown = [Q(time_zone=zone, location=location) for zone, location in places if clock_of(zone, location) is None]
    return vms.filter(reduce(or_, unknown)) if unknown else vms.none()


# --- maintenance configurations ----------------------------------------------------------------------------------


def names_of_machines(configuration: MaintenanceConfiguration) -> list[str]:
    """The shortest names by which the static members of a configuration can be told apart."""
    return shortest_names(list(configuration.vms.order_by().values_list("pk", flat=True)))


def members_of(
    configuration: MaintenanceConfiguration, vms: VirtualMachineQuerySet, *, vm_ids: Collection[int] | None = None
) -> VirtualMachineQuerySet:
    """Those of these VMs that a configuration means, static and dynamic. `vm_ids` stand in for its static members."""
    return vms.filter(means(configuration, vm_ids=vm_ids))


def means(configuration: MaintenanceConfiguration, *, vm_ids: Collection[int] | None = None) -> Q:
    """What is true of the VMs that a configuration means. `vm_ids` stand in for its static members."""
    through = MaintenanceConfiguration.vms.through.objects.filter(maintenanceconfiguration_id=configuration.pk)
    static = Q(pk__in=through.values("virtualmachine_id") if vm_ids is None else list(vm_ids))
    dynamic = kept_scope_filter(configuration.scope)
    return static | dynamic if dynamic else static


def scheduled() -> Q:
    """The VMs that any enabled configuration means (one query for their scopes).

    One that cannot be read keeps the machines that it names: nobody else patches them while no window of it opens.
    Machines that are recorded as scheduled stay so while any scope cannot be read: they may have been meant by it, and then
    automatic patching on another night would be more than anybody asked for.
    """
    scopes = [
        Q(is_scheduled=True) if found is NOBODY else found
        for scope in MaintenanceConfiguration.objects.filter(is_enabled=True).values_list("scope", flat=True)
        if (found := kept_scope_filter(scope))
    ]
    attached = MaintenanceConfiguration.vms.through.objects.filter(
        maintenanceconfiguration__is_enabled=True, virtualmachine_id=OuterRef("pk")
    )
    return reduce(or_, scopes, Q(Exists(attached)))


# The enabled configurations as JSON, to annotate a VM with: a page pays no statement for them.
SCHEDULE_ROWS = Func(
    template="""ARRAY(
        SELECT jsonb_build_object(
            'name', schedule.name, 'scope', schedule.scope, 'next_run_at', schedule.next_run_at,
            'starts_on', schedule.starts_on, 'starts_at', schedule.starts_at, 'expires_on', schedule.expires_on,
            'duration_minutes', schedule.duration_minutes, 'time_zone', schedule.time_zone,
            'is_own_clock', schedule.is_own_clock, 'recur_every', schedule.recur_every, 'blackouts', schedule.blackouts, 'plan', schedule.plan,
            'is_static', EXISTS (
                SELECT 1 FROM updates_maintenanceconfiguration_vms attached
                WHERE attached.maintenanceconfiguration_id = schedule.id
                    AND attached.virtualmachine_id = vms_virtualmachine.id
            )
        )
        FROM updates_maintenanceconfiguration schedule WHERE schedule.is_enabled
        ORDER BY schedule.next_run_at, schedule.name
    )""",
    output_field=ArrayField(JSONField()),
)


class ScheduleOf(NamedTuple):
    """A configuration that means a VM, and when it opens next for it. `waits`: never, while nobody knows the VM's clock."""

    name: str
    opens_at: datetime | None
    waits: bool


def schedules_meaning(vm: VirtualMachine, *, now: datetime) -> list[ScheduleOf]:
    """Those of `schedule_rows` that mean this VM, whose group must be loaded; the next to open for it first."""
    clock = clock_of(vm.time_zone, vm.location)
    found = []
    for row in rows_meaning(vm):
        opens_at = datetime.fromisoformat(row["next_run_at"]) if row["next_run_at"] else None
        if row["is_own_clock"] and opens_at is not None:
            windows = open_windows_on(configuration_of(row), clock, after=now)
            opens_at = next((window.opens_at for window in windows), None)
        found.append(ScheduleOf(row["name"], opens_at, row["is_own_clock"] and clock is None))
    return sorted(found, key=lambda one: (one.opens_at is None, one.opens_at or now, one.name))


def openings_meaning(
    vm: VirtualMachine, *, after: datetime, until: datetime, most: int = 400
) -> list[tuple[str, datetime]]:
    """Name and time of the windows between two moments that mean this VM, in order; `most` of each configuration."""
    clock = clock_of(vm.time_zone, vm.location)
    found = []
    for row in rows_meaning(vm):
        windows = islice(open_windows_on(configuration_of(row), clock, after=after), most)
        found += [(row["name"], w.opens_at) for w in takewhile(lambda window: window.opens_at < until, windows)]
    return sorted(found, key=lambda opening: opening[1])


def configuration_of(row: Mapping[str, Any]) -> MaintenanceConfiguration:
    """The configuration that one of `schedule_rows` tells of, as far as its windows rest on it; not to be saved."""
    return MaintenanceConfiguration(
        starts_on=date.fromisoformat(row["starts_on"]),
        starts_at=time.fromisoformat(row["starts_at"]),
        expires_on=date.fromisoformat(row["expires_on"]) if row["expires_on"] else None,
        duration_minutes=row["duration_minutes"],
        time_zone=row["time_zone"],
        is_own_clock=row["is_own_clock"],
        recur_every=row["recur_every"],
        blackouts=row["blackouts"],
        plan=row["plan"],
        scope=row["scope"],
    )


def rows_meaning(vm: VirtualMachine) -> Iterator[dict[str, Any]]:
    """Those of `schedule_rows` that mean this VM, whose group must be loaded."""
    rows = vm.schedule_rows  # type: ignore[attr-defined]  # annotated by the caller
    return (row for row in rows if row["is_static"] or kept_scope_means(row["scope"], vm))


def vms_with_stale_patchers() -> VirtualMachineQuerySet:
    """VMs whose recorded answer to "who patches?" is not what the rule says now."""
    return with_stale_patchers(VirtualMachine.objects.all(), scheduled=scheduled())


# --- who is due --------------------------------------------------------------------------------------------------

# Running VMs whose last assessment, and last try, are a period ago; the longest waiting first, and of those that were
# assessed together always the same ones: a simulation repeats itself to the last machine.
_DUE_ASSESSED = """
SELECT v.id FROM updates_vmupdatestate s JOIN vms_virtualmachine v ON v.id = s.vm_id
WHERE s.last_assessed_at < %(before)s AND {vm}
ORDER BY s.last_assessed_at, s.vm_id LIMIT %(limit)s
"""
_DUE_NEVER = """
SELECT v.id FROM vms_virtualmachine v LEFT JOIN updates_vmupdatestate s ON s.vm_id = v.id
WHERE s.last_assessed_at IS NULL AND {vm}
ORDER BY v.id LIMIT %(limit)s
"""
_DUE_VM = """v.gone_at IS NULL AND v.assessment_mode = %(by_platform)s AND v.provision_vm_agent AND v.power_state = ANY(%(maybe_running)s)
  AND NOT EXISTS (
    SELECT 1 FROM updates_operation o
    WHERE o.vm_id = v.id AND o.created_at > %(before)s
      AND (o.kind = %(assessment)s OR o.finished_at IS NULL))"""


def vms_due_for_assessment(now: datetime, *, limit: int, with_never: bool) -> list[int]:
    """Up to `limit` VMs whose periodic assessment is due. `with_never`: also those that never had one."""
    found: list[int] = []
    parameters: dict[str, datetime | int | str | list[str]] = {
        "before": now - ASSESSMENT_PERIOD,
        "limit": limit,
        "by_platform": AssessmentMode.AUTOMATIC_BY_PLATFORM.value,
        "maybe_running": [PowerState.RUNNING.value, PowerState.UNKNOWN.value],
        "assessment": OperationKind.ASSESSMENT.value,
    }
    with connection.cursor() as cursor:
        for query in (_DUE_ASSESSED, *([_DUE_NEVER] if with_never else [])):
            cursor.execute(query.format(vm=_DUE_VM), parameters)
            found += [row[0] for row in cursor.fetchall()]
    return found[:limit]


MOST_TRIES, TRIES_WITHIN = 5, timedelta(days=30)
# Longer than the off-peak hours of one night: a machine is tried once in each.
NEXT_TRY_AFTER = timedelta(hours=8)


def vms_to_patch_automatically(connection_id: int, now: datetime) -> list[int]:
    """VMs of a connection that automatic guest patching takes on now.

    Not gone, eligible, running, with a clock that is known, lacking something that the guard lets pass, in no open rollout, not tried in these off-peak hours
    already, and not given up on (within 30 days five runs failed, or reported what a later look contradicted).
    """
    waiting = RolloutMember.objects.filter(
        rollout__status__in=[RolloutState.RUNNING, RolloutState.PAUSED],
        status__in=[MemberState.WAITING, MemberState.STARTED],
    )
    vms: VirtualMachineQuerySet = VirtualMachine.objects.filter(
        _lacking(),
        gone_at=None,
        connection_id=connection_id,
        connection__is_patching_automatically=True,
        power_state__in=[PowerState.RUNNING.value, PowerState.UNKNOWN.value],
        update_state__is_awaiting_assessment=False,
        critical_and_security_count__gt=0,
    ).order_by()
    # Judged afresh: what is recorded for lists may be some minutes old.
    vms = vms_patched_by(Patcher.PORTAL_AUTOMATICALLY, vms, scheduled=scheduled())
    vms = vms.exclude(pk__in=waiting.values("vm_id")).exclude(pk__in=vms_without_a_clock(vms).values("pk"))
    found = list(vms.order_by("pk").values_list("pk", flat=True))
    if not found:
        return []
    tried = RolloutMember.objects.order_by().filter(rollout__source=RolloutSource.AUTOMATIC)
    bad = Q(status=MemberState.FAILED) | Q(operation__verification=Verification.CONTRADICTED.value)
    tries = Counter(tried.filter(bad, rollout__created_at__gt=now - TRIES_WITHIN).values_list("vm_id", flat=True))
    tired = {vm_id for vm_id, count in tries.items() if count >= MOST_TRIES}
    tired.update(
        tried.filter(
            operation__finished_at__gt=now - NEXT_TRY_AFTER,
            operation__finished_at__lte=now,
            rollout__created_at__gt=now - TRIES_WITHIN,
        ).values_list("vm_id", flat=True)
    )
    return [pk for pk in found if pk not in tired]


def _lacking() -> Q:
    """VMs whose patch set has a Critical or Security KB; on the train, one that does not take them off (two queries).

    What is held back since a rollback is nothing that a VM lacks.
    """
    urgent = PatchSetMember.objects.filter(patch__classification__in=_CRITICAL_AND_SECURITY).exclude(
        patch__kb_number=""
    )
    for_all = urgent.exclude(patch__release_type__in=_OFF_THE_TRAIN)
    sets, sets_for_all = (
        list(rows.values_list("patch_set_id", flat=True).distinct().order_by()) for rows in (urgent, for_all)
    )
    off_train = Q(update_state__patch_set_id__in=sets, hotpatch_track__in=_NOT_GUARDED)
    holds = KbHold.objects.filter(vm_id=OuterRef("pk"))
    held = KbHold.objects.filter(vm_id=OuterRef(OuterRef("pk")), kb_number=OuterRef("patch__kb_number"))
    not_held = urgent.filter(~Exists(held), patch_set_id=OuterRef("update_state__patch_set_id"))
    return (Q(update_state__patch_set_id__in=sets_for_all) | off_train) & (~Exists(holds) | Exists(not_held))


_CRITICAL_AND_SECURITY = sorted(name.value for name in CRITICAL_AND_SECURITY)
_NOT_GUARDED = [HotpatchTrack.OFF_TRACK_SINCE_KB.value, HotpatchTrack.NOT_ON_TRAIN.value]
_OFF_THE_TRAIN = sorted(name.value for name in LCU_TYPES)


def was_patching_lately(connection_id: int, now: datetime) -> bool:
    """Whether automatic patching took on VMs of this connection within the last day, as its assessments take one."""
    mine = RolloutMember.objects.filter(rollout_id=OuterRef("pk"), vm__connection_id=connection_id)
    return Rollout.objects.filter(
        Exists(mine), source=RolloutSource.AUTOMATIC, created_at__gt=now - AUTOMATIC_EVERY
    ).exists()


AUTOMATIC_EVERY = timedelta(hours=23)


def kbs_lacking(vm_ids: Iterable[int]) -> tuple[str, ...]:
    """The Critical and Security KBs that any of these VMs lacks: what a rollout freezes (one query over patch sets)."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT DISTINCT p.kb_number FROM (
                SELECT DISTINCT patch_set_id FROM updates_vmupdatestate WHERE vm_id = ANY(%s)
            ) s
            JOIN updates_patchsetmember m ON m.patch_set_id = s.patch_set_id
            JOIN updates_patch p ON p.id = m.patch_id
            WHERE p.classification = ANY(%s) AND p.kb_number <> '' ORDER BY 1
            """,
            [list(vm_ids), _CRITICAL_AND_SECURITY],
        )
        return tuple(row[0] for row in cursor.fetchall())
