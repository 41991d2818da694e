"""Rollouts: a frozen plan on many VMs in waves. One way for automatic patching, schedules and on-demand work.

Each step is one transaction over the rollout's row; a worker that dies leaves it due, and the next one goes on. What runs
on the machines is the engine's: here installations are asked for, never sent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import structlog
from django.db import connection, transaction
from django.db.models import Count, QuerySet, TextField
from django.db.models.functions import Cast, Lower

from audit.context import acting
from db.arrays import array
from db.locks import Lock, hold
from patching.codes import ErrorCode, RolloutReason
from patching.rollout import (
    LaneState,
    Machine,
    Progress,
    ProgressError,
    RegionLane,
    WaveResult,
    groups_of,
    may_start,
    must_pause,
    plan_rings,
)
from patching.terms import InstallationPlan, OperationKind, OperationState, RebootSetting, Verification
from updates.models import (
    WELL_ENDED_STATES,
    MaintenanceConfiguration,
    MemberState,
    Operation,
    Rollout,
    RolloutMember,
    RolloutSource,
    RolloutState,
)
from updates.plans import PlanError, Promise, plan_from_json, plan_to_json, promise_from_json, promise_to_json
from updates.selectors.automation import times_off_peak
from updates.selectors.freezes import freezes_near, times_to_freezes
from updates.selectors.maintenance import UnreadableError, read_configuration
from updates.selectors.rollouts import proven_kbs, unhealthy_in
from updates.services.bulk import Share
from updates.services.health import judge_before
from updates.services.operations import RequestOutcome, RequestVerdict, cancel_operations, request_installations
from updates.services.restarts import request_restarts
from updates.services.rollback import request_rollbacks
from vms.choices import PowerState, Role
from vms.models import VirtualMachine
from vms.regions import clock_of, every_clock, region_pairs
from vms.selection import VmSelection
from vms.tags import HasTag, TagValue, tag_value

if TYPE_CHECKING:
    from django.contrib.auth.models import User

log = structlog.get_logger(__name__)
# A blackout is near: what has less time than this does not start (an update takes ten minutes, docs/rules.md).
LEAST_BEFORE_BLACKOUT = timedelta(minutes=10)
# What is asked for ends this long before a freeze: a worker takes it a while later, and asks again then.
WAY_THROUGH_THE_QUEUE = timedelta(minutes=5)
LOOK_AGAIN = timedelta(seconds=5)
LOOK_AGAIN_WHILE_WAITING = timedelta(minutes=1)
# A refusal that passes by itself: the VM waits for its turn. (A machine that owes an assessment may owe it for days; it
# is skipped, and a later rollout takes it on.)
_PASSING = frozenset({ErrorCode.CONFLICT_INSTALLATION_OPEN, ErrorCode.FREEZE_HELD})
ANTI_AFFINITY_TAG = "anti-affinity"


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """What a rollout is made of. `most_failures` and `most_percent` are its budget; see docs/rules.md.

    Without a plan it rolls back, or restarts where `is_restart` says so. `rings`: the values of the tag `ring_tag`, in order; machines with none of them go last.
    `clock`: that of its machines (IANA), where its window opened on each machine's own.
    """

    name: str
    source: RolloutSource
    plan: InstallationPlan | None
    is_restart: bool = False
    is_availability_first: bool = True
    is_off_peak_only: bool = False
    window_ends_at: datetime | None = None
    catch_up_until: datetime | None = None
    most_failures: int = 2
    most_percent: int = 5
    soak_minutes: int = 0
    ring_tag: str = ""
    rings: tuple[str, ...] = ()
    ring_soak_minutes: int = 0
    configuration: MaintenanceConfiguration | None = None
    clock: str = ""

    @property
    def kind(self) -> OperationKind:
        """What it does on each machine."""
        if self.plan is not None:
            return OperationKind.INSTALLATION
        return OperationKind.RESTART if self.is_restart else OperationKind.ROLLBACK


@transaction.atomic
def create_rollout(
    *,
    what: RolloutPlan,
    selection: VmSelection,
    now: datetime,
    created_by: User | None,
    rollout_id: UUID | None = None,
    shares: Sequence[Share] = (),
) -> Rollout:
    """Freeze plan and members and put them in waves. The same `rollout_id` again is the same rollout.

    `created_by`: who asked for it, and must hold the role on each machine when its wave comes. None: nobody, it acts with
    the portal's right. `shares`: what a review promised of which machines, all that are selected; those on which nothing is
    to be started are members that were skipped, each with its reason.
    """
    if rollout_id and (existing := Rollout.objects.filter(pk=rollout_id).first()):
        return existing
    places = {pk: place for place, share in enumerate(shares) for pk in VmSelection(share.packed, 0).ids}
    left_out = {pk: shares[place].promise.code for pk, place in places.items() if shares[place].promise.plan is None}
    vm_ids = [pk for pk in selection.ids if pk not in left_out]
    lanes = plan_rings(_rings(what, vm_ids), is_availability_first=what.is_availability_first, pairs=region_pairs())
    waves = [wave for lane in lanes for wave in lane.waves]
    rollout = Rollout(
        name=what.name[:150],
        source=what.source,
        configuration=what.configuration,
        clock=what.clock,
        kind=what.kind.value,
        plan=plan_to_json(what.plan) if what.plan else {},
        promises=[promise_to_json(share.promise) for share in shares],
        rings=[*what.rings, ""] if what.rings else [],
        ring=min((lane.ring for lane in lanes), default=0),  # rings without machines prove nothing and stop nobody
        ring_soak_minutes=what.ring_soak_minutes,
        is_off_peak_only=what.is_off_peak_only,
        window_ends_at=what.window_ends_at,
        catch_up_until=what.catch_up_until,
        most_failures=what.most_failures,
        most_percent=what.most_percent,
        soak_minutes=what.soak_minutes,
        is_availability_first=what.is_availability_first,
        wave_count=len(waves),
        vm_count=sum(map(len, waves)) + len(left_out),
        lanes=Progress(_lane_states(lanes)).lanes_json,
        next_step_at=now,
        created_at=now,
        created_by=created_by,
    )
    if rollout_id:
        rollout.pk = rollout_id
    with acting(person=created_by):
        rollout.save(force_insert=True)
    waiting, skipped = MemberState.WAITING.value, MemberState.SKIPPED.value
    members: list[_NewMember] = [
        (vm, number, waiting, "", places.get(vm)) for number, wave in enumerate(waves) for vm in wave
    ]
    members += [(vm, 0, skipped, code, places[vm]) for vm, code in left_out.items()]
    _write_members(rollout.pk, members)
    return rollout


# The VM, its wave, its state, the code of why, and the place of what was promised of it.
_NewMember = tuple[int, int, str, str, int | None]


def _write_members(rollout_id: UUID, members: Sequence[_NewMember]) -> None:
    """Write the members of a new rollout; a VM that is no more there is none."""
    if not members:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO updates_rolloutmember (rollout_id, vm_id, wave, status, code, promise)
            SELECT %s, r.vm_id, r.wave, r.status, r.code, r.promise
            FROM unnest(%s::bigint[], %s::int[], %s::text[], %s::text[], %s::smallint[])
                AS r(vm_id, wave, status, code, promise)
            JOIN vms_virtualmachine v ON v.id = r.vm_id
            """,
            [rollout_id, *map(list, zip(*members, strict=True))],
        )


def _lane_states(lanes: Iterable[RegionLane]) -> tuple[LaneState, ...]:
    """Each lane before its first wave; waves are numbered one after the other, lane by lane."""
    states, first = [], 0
    for lane in lanes:
        last = first + len(lane.waves) - 1
        states.append(LaneState(phase=lane.phase, first=first, last=last, wave=first, ring=lane.ring))
        first = last + 1
    return tuple(states)


def _rings(what: RolloutPlan, vm_ids: Collection[int]) -> list[list[Machine]]:
    """The machines of each ring in its order, those of no ring last; all in one where there are no rings."""
    machines = _machines(vm_ids, with_clocks=what.is_off_peak_only)
    if not what.rings:
        return [machines]
    rows = VirtualMachine.objects.filter(HasTag(what.ring_tag), pk__any=array(vm_ids)).order_by()
    values = {pk: str(tag_value(tags, what.ring_tag)).casefold() for pk, tags in rows.values_list("pk", "tags")}
    places = {name.casefold(): number for number, name in enumerate(what.rings)}
    rings: list[list[Machine]] = [[] for _ in range(len(what.rings) + 1)]
    for machine in machines:
        rings[places.get(values.get(machine.vm_id, ""), -1)].append(machine)
    return rings


def _machines(vm_ids: Iterable[int], *, with_clocks: bool = False) -> list[Machine]:
    """Where these VMs stand (one query)."""
    rows = (
        VirtualMachine.objects.filter(pk__in=list(vm_ids))
        .order_by("pk")
        .values_list(
            "pk", "location", "zones", "availability_set", "resource_group__subscription_id", "tags", "time_zone"
        )
    )
    return [
        Machine(
            vm_id=pk,
            region=location,
            zone=str(zones[0]) if zones else "",
            availability_set=availability_set.lower(),
            subscription=str(subscription),
            group=tag_value(tags, ANTI_AFFINITY_TAG) or "",
            clock=str(clock_of(time_zone, location) or "unknown") if with_clocks else "",
        )
        for pk, location, zones, availability_set, subscription, tags, time_zone in rows
    ]


# --- stepping ----------------------------------------------------------------------------------------------------


def advance_rollouts(*, now: datetime) -> int:
    """Step every rollout that is due; how many were stepped. Two workers never step the same one at once."""
    due = list(
        # The oldest first: of two that stand in each other's way, it goes on.
        Rollout.objects.filter(next_step_at__lte=now)
        .order_by("created_at", "name", "pk")
        .values_list("pk", flat=True)[:200]
    )
    return sum(_advance(pk, now) for pk in due)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a rollout keeps as JSON and its configuration says, read for one step. `plan` None: it rolls back or restarts.

    `left`: how long until a blackout begins, in whole minutes; None: none comes. `shut`: what to say while it is too short.
    """

    plan: InstallationPlan | None
    progress: Progress
    left: timedelta | None
    shut: RolloutReason = RolloutReason.BLACKOUT
    promises: tuple[Promise, ...] = ()


def _read(rollout: Rollout, now: datetime) -> _Kept | None:
    """What this rollout keeps; None: some of it cannot be read. While its configuration cannot be, nothing may start."""
    try:
        plan = plan_from_json(rollout.plan) if rollout.kind == OperationKind.INSTALLATION else None
        progress = Progress.from_json(rollout.lanes, rollout.rings, rollout.proven)
        promises = tuple(promise_from_json(document) for document in rollout.promises)
    except (PlanError, ProgressError) as error:
        log.warning("rollout_unreadable", rollout_id=str(rollout.pk), error=str(error))
        return None
    try:
        return _Kept(plan, progress, _time_to_blackout(rollout, now), promises=promises)
    except (UnreadableError, ZoneInfoNotFoundError) as error:
        log.warning("configuration_unreadable", configuration_id=rollout.configuration_id, error=str(error))
        return _Kept(plan, progress, timedelta(0), RolloutReason.CONFIGURATION_UNREADABLE, promises)


def _time_to_blackout(rollout: Rollout, now: datetime) -> timedelta | None:
    """On the clock of its machines, else on that of its configuration; on any there is where it has lost that since."""
    if rollout.configuration is None:
        return None
    timing = read_configuration(rollout.configuration).timing
    if rollout.clock:
        timing = replace(timing, zone=ZoneInfo(rollout.clock))
    left = timing.time_to_blackout(every_clock(), now)
    return None if left is None else timedelta(minutes=left // timedelta(minutes=1))


# What ended well on a machine with a health probe stays started until the probe answers (updates.services.health).
_SYNC = """
UPDATE updates_rolloutmember m
SET status = CASE WHEN o.state = %(cancelled)s THEN %(skipped)s
                 WHEN o.state <> ALL(%(ended_well)s) THEN %(failed)s
                 WHEN o.verification = %(contradicted)s THEN %(failed)s
                 WHEN v.health_probe = '' THEN %(succeeded)s ELSE m.status END,
    code = CASE WHEN o.state <> ALL(%(ended_well)s) THEN o.error_code
                WHEN o.verification = %(contradicted)s THEN %(contradicted_code)s
                WHEN v.health_probe <> '' THEN %(probe_waiting_code)s ELSE o.error_code END,
    probe_due_at = CASE WHEN o.state = ANY(%(ended_well)s) AND v.health_probe <> ''
                             AND o.verification <> %(contradicted)s
                        THEN %(now)s::timestamptz END
FROM updates_operation o JOIN vms_virtualmachine v ON v.id = o.vm_id
WHERE m.rollout_id = %(rollout)s AND m.status = %(started)s AND m.probe_due_at IS NULL
  AND o.id = m.operation_id AND o.finished_at IS NOT NULL
"""


@transaction.atomic
def _advance(pk: UUID, now: datetime) -> bool:
    rollout = (
        Rollout.objects.select_for_update(skip_locked=True)
        .filter(pk=pk, next_step_at__lte=now, status=RolloutState.RUNNING)
        .first()
    )
    if rollout is None:
        return False
    _follow_operations(pk, now)
    kept = _read(rollout, now)
    if kept is None:
        _pause(rollout, RolloutReason.UNREADABLE)
        return True
    _end_times(rollout, kept, now)
    counts = _counts(rollout)
    bad = counts[MemberState.FAILED] + unhealthy_in(rollout)
    result = WaveResult(counts[MemberState.SUCCEEDED], max(0, bad - rollout.forgiven), 0)
    if must_pause(result, most_failures=rollout.most_failures, most_percent=rollout.most_percent):
        log.warning("rollout_paused", rollout_id=str(pk), bad=bad)
        _pause(rollout, RolloutReason.BUDGET_USED)
        return True
    if not counts[MemberState.WAITING] and not counts[MemberState.STARTED]:
        if counts[MemberState.CATCHING_UP]:
            _catch_up(rollout, kept, now)
        else:
            rollout.status, rollout.reason = RolloutState.FINISHED, ""
            rollout.finished_at, rollout.next_step_at = now, None
    else:
        _work_on(rollout, kept, now)
    with acting(person=rollout.created_by):  # the portal goes on for the person who asked for it
        rollout.save()
    return True


def _follow_operations(pk: UUID, now: datetime) -> None:
    """Write of each member what became of its operation, where that has ended."""
    with connection.cursor() as cursor:
        cursor.execute(
            _SYNC,
            {
                "now": now,
                "rollout": pk,
                "cancelled": OperationState.CANCELLED.value,
                "ended_well": WELL_ENDED_STATES,
                "contradicted": Verification.CONTRADICTED.value,
                "contradicted_code": RolloutReason.CONTRADICTED,
                "probe_waiting_code": RolloutReason.PROBE_WAITING,
                "started": MemberState.STARTED.value,
                "succeeded": MemberState.SUCCEEDED.value,
                "failed": MemberState.FAILED.value,
                "skipped": MemberState.SKIPPED.value,
            },
        )


def _end_times(rollout: Rollout, kept: _Kept, now: datetime) -> None:
    """Take back and leave out what may no longer start: its window is over, a freeze or a blackout holds, nothing is caught up."""
    members = RolloutMember.objects.filter(rollout=rollout)
    is_window_over = rollout.window_ends_at is not None and rollout.window_ends_at <= now
    if is_window_over:
        _take_back_queued(rollout.pk, asked_before=rollout.window_ends_at)  # asked for in it, and not begun in it
        left_over = members.filter(status=MemberState.WAITING)
        left_over.filter(code=RolloutReason.FROZEN).update(status=MemberState.SKIPPED)
        left_over.update(status=MemberState.SKIPPED, code=RolloutReason.WINDOW_OVER)
    _take_back_frozen(rollout.pk, now)
    if kept.left == timedelta(0):
        _take_back_queued(rollout.pk)
        if is_window_over:
            members.filter(status=MemberState.WAITING).update(status=MemberState.CATCHING_UP)
    if rollout.catch_up_until and rollout.catch_up_until <= now:
        members.filter(status=MemberState.CATCHING_UP).update(status=MemberState.SKIPPED)


def _pause(rollout: Rollout, reason: RolloutReason) -> None:
    """What has started goes on; nothing further is started."""
    _take_back_queued(rollout.pk)
    rollout.status, rollout.reason, rollout.next_step_at = RolloutState.PAUSED, reason, None
    with acting(person=rollout.created_by):
        # Nothing else has changed; what cannot be read is not written back.
        rollout.save(update_fields=["status", "reason", "next_step_at"])


def _counts(rollout: Rollout) -> dict[str, int]:
    rows = dict(
        RolloutMember.objects.filter(rollout=rollout).values_list("status").annotate(count=Count("pk")).order_by()
    )
    return {state.value: rows.get(state.value, 0) for state in MemberState}


def _work_on(rollout: Rollout, kept: _Kept, now: datetime) -> None:
    """In each lane of the phase start what its wave still has to start; when it has ended and soaked, go to the next."""
    members = RolloutMember.objects.filter(rollout=rollout)
    unfinished = members.filter(status__in=[MemberState.WAITING, MemberState.STARTED])
    open_waves = set(unfinished.values_list("wave", flat=True).distinct().order_by())
    progress = kept.progress.after(open_waves, soak=timedelta(minutes=rollout.soak_minutes), now=now)
    rollout.lanes = progress.lanes_json
    here = progress.here
    rollout.wave = min((lane.wave for lane in here), default=rollout.wave_count)
    if here and here[0].ring > rollout.ring:
        proven = _enter_ring(rollout, progress, here[0].ring, now)
        if proven is None:
            return
        progress = replace(progress, proven=proven)
    current = members.filter(wave__in=[lane.wave for lane in here if lane.ended_at is None])
    waiting = current.filter(status=MemberState.WAITING)
    started, reason = _start(rollout, waiting, replace(kept, progress=progress), now)
    is_soaking = bool(here) and all(lane.ended_at for lane in here)
    is_idle = not started and not current.filter(status=MemberState.STARTED).exists() and waiting.exists()
    rollout.reason = RolloutReason.SOAKING if is_soaking else reason if is_idle else ""
    rollout.next_step_at = now + (LOOK_AGAIN_WHILE_WAITING if is_idle else LOOK_AGAIN)


def _enter_ring(rollout: Rollout, progress: Progress, ring: int, now: datetime) -> tuple[str, ...] | None:
    """Go to the next ring with what the rings before have proven. None: it still waits to see whether they stay well."""
    rollout.ring_ended_at = rollout.ring_ended_at or now
    if now < rollout.ring_ended_at + timedelta(minutes=rollout.ring_soak_minutes):
        rollout.reason, rollout.next_step_at = RolloutReason.RING_SOAKING, now + LOOK_AGAIN_WHILE_WAITING
        return None
    rollout.ring, rollout.ring_ended_at = ring, None
    rollout.proven = proven_kbs(rollout.pk, before_wave=progress.first_wave_of(ring))
    return tuple(rollout.proven)


def _catch_up(rollout: Rollout, kept: _Kept, now: datetime) -> None:
    """All waves have ended: update machines that were off, and run now."""
    back = RolloutMember.objects.filter(
        rollout=rollout,
        status=MemberState.CATCHING_UP,
        vm__power_state__in=[PowerState.RUNNING.value, PowerState.UNKNOWN.value],
    )
    _started, reason = _start(rollout, back, kept, now)
    rollout.reason = reason if reason == kept.shut else RolloutReason.CATCHING_UP
    rollout.next_step_at = now + LOOK_AGAIN_WHILE_WAITING


def _start(rollout: Rollout, waiting: QuerySet[RolloutMember], kept: _Kept, now: datetime) -> tuple[int, str]:
    """Ask for the installations of these members; how many are on their way to one, and why others wait.

    On their way are those accepted or joined, and those whose health probe has to be asked first.
    """
    able = _able(rollout, waiting, now)
    before_freeze = _times_before_freezes(able, now)
    frozen = {vm for vm, time in before_freeze.items() if time < LEAST_BEFORE_BLACKOUT}
    _tell_frozen(waiting, frozen)
    rest = {vm: reboot for vm, reboot in able.items() if vm not in frozen}
    reason = RolloutReason.FROZEN if frozen else ""
    if kept.plan is None:
        return _start_without_plan(rollout, list(rest), reason)
    plan = _plan_in_window(rollout, kept.plan, kept.progress.proven, now)
    if kept.progress.proven == ():
        _settle(rollout, dict.fromkeys(rest, RolloutReason.NOTHING_PROVEN))
        rest = {}
    left = kept.left
    if left is not None and left < LEAST_BEFORE_BLACKOUT:
        rest, reason = {}, kept.shut
    longest = dict.fromkeys(rest, plan.maximum_duration if left is None else min(plan.maximum_duration, left))
    if rollout.is_off_peak_only and rest:
        longest = {vm: min(plan.maximum_duration, time) for vm, time in times_off_peak(list(rest), now).items()}
        reason = RolloutReason.OFF_PEAK
    longest = {vm: min(time, before_freeze.get(vm, time)) for vm, time in longest.items()}
    ready = [vm for vm in rest if longest.get(vm)]
    if rollout.is_availability_first and ready:
        going = _beside_others(ready)
        reason = RolloutReason.BESIDE_OTHERS if not going else reason
        ready = going
    health = judge_before(rollout_id=rollout.pk, vm_ids=ready, now=now)
    _settle(rollout, health.refused)
    # The reboot setting of the VM beats that of a configuration.
    reboots = {vm: plan.reboot_setting.value if _is_on_demand(rollout) else rest[vm] for vm in health.ready}
    outcomes = _install(rollout, waiting, kept, plan, {vm: (reboots[vm], longest[vm]) for vm in health.ready})
    return _record(rollout, outcomes) + health.asked, _frozen_or(reason, outcomes)


def _is_on_demand(rollout: Rollout) -> bool:
    """Whether a person asked for it."""
    return rollout.source == RolloutSource.ON_DEMAND


def _able(rollout: Rollout, waiting: QuerySet[RolloutMember], now: datetime) -> dict[int, str]:
    """The VMs of these members that may be worked on, with their reboot settings; the others are settled with the reason."""
    rows = list(waiting.order_by("wave", "vm_id").values_list("vm_id", "vm__power_state", "vm__reboot_setting"))
    if _is_on_demand(rollout):  # who asked for it must still be allowed to, at every wave
        allowed = set[int]()
        if rollout.created_by is not None:
            mine = VirtualMachine.objects.visible_to(rollout.created_by, Role.OPERATOR)
            allowed = set(mine.filter(pk__in=[vm for vm, _p, _r in rows]).values_list("pk", flat=True))
        _settle(rollout, {vm: RolloutReason.ROLE_MISSING for vm, _p, _r in rows if vm not in allowed})
        rows = [row for row in rows if row[0] in allowed]
    gone = set(waiting.filter(vm__gone_at__isnull=False).order_by().values_list("vm_id", flat=True))
    _settle(rollout, dict.fromkeys(sorted(gone), ErrorCode.VM_GONE))
    rows = [row for row in rows if row[0] not in gone]
    rows = _on_its_clock(rollout, rows)
    off = {vm for vm, power, _reboot in rows if power not in {PowerState.RUNNING, PowerState.UNKNOWN}}
    may_come_back = rollout.catch_up_until is not None and now < rollout.catch_up_until
    _settle(
        rollout,
        dict.fromkeys(sorted(off), ErrorCode.VM_NOT_RUNNING),
        state=MemberState.CATCHING_UP if may_come_back else MemberState.SKIPPED,
    )
    return {vm: reboot for vm, _power, reboot in rows if vm not in off}


def _on_its_clock(rollout: Rollout, rows: Sequence[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
    """Those of these VMs that have the clock on which their window opened still; the others wait for a window of theirs."""
    if not rollout.clock:
        return list(rows)
    places = VirtualMachine.objects.filter(pk__any=array([vm for vm, _power, _reboot in rows])).order_by()
    clocks = {pk: clock_of(*place) for pk, *place in places.values_list("pk", "time_zone", "location")}
    strangers = {pk for pk, clock in clocks.items() if clock is None or clock.key != rollout.clock}
    _settle(rollout, dict.fromkeys(sorted(strangers), RolloutReason.OTHER_CLOCK))
    return [row for row in rows if row[0] not in strangers]


def _tell_frozen(waiting: QuerySet[RolloutMember], frozen: Collection[int]) -> None:
    """Say of these members that a freeze holds them, and of the others no longer."""
    held, told = array(frozen), waiting.filter(code=RolloutReason.FROZEN)
    waiting.filter(vm__any=held).exclude(code=RolloutReason.FROZEN).update(code=RolloutReason.FROZEN)
    told.exclude(vm__any=held).update(code="")


def _start_without_plan(rollout: Rollout, vm_ids: Sequence[int], reason: str) -> tuple[int, str]:
    """Ask for the restarts or rollbacks of these VMs. Their health is not probed: that a machine is not well may be the cause."""
    ready = _beside_others(vm_ids) if vm_ids else []
    if rollout.kind == OperationKind.RESTART:
        outcomes = request_restarts(vm_ids=ready, requested_by=rollout.created_by, is_bulk=True)
    else:
        outcomes = request_rollbacks(vm_ids=ready, requested_by=rollout.created_by)
    reason = reason if not vm_ids else "" if ready else RolloutReason.BESIDE_OTHERS
    return _record(rollout, outcomes), _frozen_or(reason, outcomes)


def _install(
    rollout: Rollout,
    waiting: QuerySet[RolloutMember],
    kept: _Kept,
    plan: InstallationPlan,
    machines: Mapping[int, tuple[str, timedelta]],
) -> list[RequestOutcome]:
    """Ask for the installations of these VMs (with reboot setting and longest duration), as their review promised them."""
    promised = waiting.filter(promise__isnull=False, vm__in=list(machines)).order_by()
    places = {vm: place for vm, place in promised.values_list("vm_id", "promise") if place is not None}
    alike: dict[tuple[str, timedelta, int], list[int]] = defaultdict(list)
    for vm, (reboot, duration) in machines.items():
        alike[reboot, duration, places.get(vm, -1)].append(vm)
    outcomes: list[RequestOutcome] = []
    for (reboot, duration, place), vm_ids in sorted(alike.items()):
        own = replace(plan, reboot_setting=RebootSetting(reboot), maximum_duration=duration)
        promise = kept.promises[place] if 0 <= place < len(kept.promises) else None
        if promise is not None and promise.plan is not None:
            own = _by_name(own, promise.plan, kept.progress.proven)
            if not (own.classifications or own.kb_numbers_to_include):
                _settle(rollout, dict.fromkeys(vm_ids, RolloutReason.NOTHING_PROVEN))
                continue
        said = promise.outlook if promise else None
        outcomes += request_installations(
            vm_ids=vm_ids, plan=own, requested_by=rollout.created_by, is_bulk=True, said=said
        )
    return outcomes


def _frozen_or(reason: str, outcomes: Iterable[RequestOutcome]) -> str:
    """Why others wait: for a freeze, where one has held some that were asked for."""
    return RolloutReason.FROZEN if any(one.code == ErrorCode.FREEZE_HELD for one in outcomes) else reason


def _times_before_freezes(vm_ids: Iterable[int], now: datetime) -> dict[int, timedelta]:
    """How long an installation may take on those of these VMs that a freeze is near of, in whole minutes."""
    spare, minute = WAY_THROUGH_THE_QUEUE, timedelta(minutes=1)
    return {
        vm: max(timedelta(0), minute * ((left - spare) // minute))
        for vm, left in times_to_freezes(list(vm_ids), now=now).items()
    }


def _beside_others(vm_ids: Sequence[int]) -> list[int]:
    """Those of these VMs that may start beside everything that changes a machine now, whoever asked for it."""
    hold(Lock.ROLLOUT_STARTS)  # what the rollout before started is written by then
    changing = Operation.objects.open().exclude(kind=OperationKind.ASSESSMENT.value).values_list("vm_id", flat=True)
    # A machine whose probe has not answered yet is not back.
    watched = RolloutMember.objects.filter(status=MemberState.STARTED, probe_due_at__isnull=False)
    going = changing.order_by().union(watched.order_by().values_list("vm_id", flat=True))
    place = {machine.vm_id: machine for machine in _machines(vm_ids)}
    candidates = [place[vm] for vm in vm_ids if vm in place]
    return may_start(candidates, going=_machines(going), sizes=_sizes(candidates), pairs=region_pairs())


def _sizes(machines: Iterable[Machine]) -> dict[tuple[str, str], int]:
    """How many VMs of the inventory are in the groups of these (one query for each kind of group that occurs)."""
    names: dict[str, set[str]] = defaultdict(set)
    for machine in machines:
        for kind, name in groups_of(machine):
            names[kind].add(name)
    columns = {
        "set": Lower("availability_set"),
        "subscription": Cast("resource_group__subscription_id", TextField()),
        "group": TagValue(ANTI_AFFINITY_TAG),
    }
    sizes = {}
    for kind, wanted in sorted(names.items()):
        rows = VirtualMachine.objects.order_by().annotate(of=columns[kind]).filter(of__in=sorted(wanted))
        for name, count in rows.values_list("of").annotate(count=Count("pk")):
            sizes[kind, str(name)] = count
    return sizes


def _plan_in_window(
    rollout: Rollout, plan: InstallationPlan, proven: tuple[str, ...] | None, now: datetime
) -> InstallationPlan:
    if proven is not None:
        plan = replace(plan, classifications=frozenset(), kb_numbers_to_include=proven)
    if rollout.window_ends_at is None or rollout.window_ends_at <= now:
        return plan  # after a window only those start that catch up: each has a window of its own
    left = max(timedelta(minutes=1), rollout.window_ends_at - now)
    return replace(plan, maximum_duration=min(plan.maximum_duration, timedelta(minutes=left // timedelta(minutes=1))))


def _by_name(plan: InstallationPlan, promised: InstallationPlan, proven: tuple[str, ...] | None) -> InstallationPlan:
    """The plan of this wave with what was promised by name; of that, what is proven, where rings ask for proof."""
    taken = promised.kb_numbers_to_include
    return replace(
        plan,
        classifications=promised.classifications if proven is None else frozenset(),
        kb_numbers_to_include=taken if proven is None else tuple(kb for kb in taken if kb in proven),
        kb_numbers_to_exclude=promised.kb_numbers_to_exclude,
    )


def _record(rollout: Rollout, outcomes: Sequence[RequestOutcome]) -> int:
    going = {o.vm_id: o.operation_id for o in outcomes if o.verdict is not RequestVerdict.REFUSED}
    _settle(
        rollout, {o.vm_id: o.code for o in outcomes if o.verdict is RequestVerdict.REFUSED and o.code not in _PASSING}
    )
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE updates_rolloutmember m
            SET status = %s, code = '', operation_id = r.operation_id, probe_due_at = NULL
            FROM unnest(%s::bigint[], %s::uuid[]) AS r(vm_id, operation_id)
            WHERE m.rollout_id = %s AND m.vm_id = r.vm_id
            """,
            [MemberState.STARTED.value, list(going), list(going.values()), rollout.pk],
        )
    return len(going)


def _settle(rollout: Rollout, codes: Mapping[int, str], *, state: MemberState = MemberState.SKIPPED) -> None:
    """These members are skipped, or wait until they run, each for its reason."""
    if not codes:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE updates_rolloutmember m SET status = %s, code = r.code
            FROM unnest(%s::bigint[], %s::text[]) AS r(vm_id, code)
            WHERE m.rollout_id = %s AND m.vm_id = r.vm_id
            """,
            [state.value, list(codes), list(codes.values()), rollout.pk],
        )


def _take_back_frozen(rollout_id: UUID, now: datetime) -> None:
    """Cancel what has not started on machines that a freeze holds: the window may be over when the freeze ends."""
    if not freezes_near(now).exists():
        return
    queued = RolloutMember.objects.filter(
        rollout_id=rollout_id, status=MemberState.STARTED, operation__state=OperationState.QUEUED.value
    )
    left = times_to_freezes(list(queued.order_by().values_list("vm_id", flat=True)), now=now)
    if frozen := [vm for vm, time in left.items() if not time]:
        _take_back_queued(rollout_id, vm_ids=frozen)


def _take_back_queued(
    rollout_id: UUID, *, asked_before: datetime | None = None, vm_ids: Collection[int] | None = None
) -> None:
    """Cancel what was asked for (before this moment, on these VMs) and has not started: those members wait again."""
    queued = RolloutMember.objects.filter(
        rollout_id=rollout_id, status=MemberState.STARTED, operation__state=OperationState.QUEUED.value
    )
    if asked_before is not None:
        queued = queued.filter(operation__created_at__lt=asked_before)
    if vm_ids is not None:
        queued = queued.filter(vm__any=array(vm_ids))
    # An operation that somebody else asked for, and that this rollout joined, is not ours to cancel.
    own = queued.filter(operation__is_bulk=True).values_list("operation_id", flat=True)
    cancelled = cancel_operations(operation_ids=list(own), requested_by=None)
    RolloutMember.objects.filter(rollout_id=rollout_id, operation_id__in=cancelled).update(
        status=MemberState.WAITING, operation=None
    )


# --- people ------------------------------------------------------------------------------------------------------


@transaction.atomic
def pause_rollout(*, rollout_id: UUID, paused_by: User) -> bool:
    """Start nothing further, what is queued included. False: it was not running."""
    reason = RolloutReason.PAUSED_BY_PERSON
    if not _move(rollout_id, {RolloutState.RUNNING}, RolloutState.PAUSED, reason, None, paused_by):
        return False
    _take_back_queued(rollout_id)
    return True


@transaction.atomic
def resume_rollout(*, rollout_id: UUID, now: datetime, resumed_by: User) -> bool:
    """Go on; the failures so far are forgiven, the budget counts anew. False: it was not paused."""
    rollout = Rollout.objects.filter(pk=rollout_id).first()
    if rollout is None:
        return False
    forgiven = RolloutMember.objects.filter(rollout=rollout, status=MemberState.FAILED).count() + unhealthy_in(rollout)
    with acting(person=resumed_by):
        Rollout.objects.filter(pk=rollout_id, status=RolloutState.PAUSED).update(forgiven=forgiven)
    return _move(rollout_id, {RolloutState.PAUSED}, RolloutState.RUNNING, "", now, resumed_by)


@transaction.atomic
def end_rollout(*, rollout_id: UUID, now: datetime, ended_by: User) -> bool:
    """End it for good: what waits is skipped, what has started goes on. False: it had ended."""
    open_states = {RolloutState.RUNNING, RolloutState.PAUSED}
    if not _move(rollout_id, open_states, RolloutState.ENDED, RolloutReason.ENDED_BY_PERSON, None, ended_by):
        return False
    Rollout.objects.filter(pk=rollout_id).update(finished_at=now)
    _take_back_queued(rollout_id)
    waiting = RolloutMember.objects.filter(
        rollout_id=rollout_id, status__in=[MemberState.WAITING, MemberState.CATCHING_UP]
    )
    waiting.update(status=MemberState.SKIPPED, code=RolloutReason.ENDED_BY_PERSON)
    return True


def _move(
    rollout_id: UUID,
    from_states: Collection[RolloutState],
    to_state: RolloutState,
    reason: str,
    next_step_at: datetime | None,
    by: User,
) -> bool:
    rows = Rollout.objects.filter(pk=rollout_id, status__in=from_states)
    with acting(person=by):
        moved = rows.update(status=to_state, reason=reason, next_step_at=next_step_at)
    log.info("rollout_moved", rollout_id=str(rollout_id), to=to_state.value, by=by.get_username())
    return bool(moved)
