"""The scheduler and rollouts: due assessments, off-peak, waves and gates, pause and resume, windows, pages."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, date, datetime, time, timedelta
from importlib import import_module
from itertools import islice
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import override
from hypothesis import given
from hypothesis import strategies as st

from patching.orchestrator import Patcher
from patching.terms import Verification
from tests.factories import OperationFactory, PatchFactory, VirtualMachineFactory
from tests.forms import fields_of, text_of
from tests.updates.rollouts import NIGHT, NOON, PLAN, advance, fleet, make
from updates.forms.maintenance import MaintenanceForm
from updates.models import (
    KbHold,
    MaintenanceConfiguration,
    Operation,
    Patch,
    PatchResult,
    PatchSet,
    PatchSetMember,
    Rollout,
    RolloutMember,
    RolloutSource,
    VmUpdateState,
)
from updates.selectors.automation import (
    members_of,
    scheduled,
    vms_due_for_assessment,
    vms_to_patch_automatically,
)
from updates.selectors.blade import load_picture
from updates.selectors.maintenance import open_windows_on
from updates.selectors.scopes import kept_scope_means
from updates.services.automation import (
    create_configuration,
    open_windows,
    plan_next_run,
    request_due_assessments,
    start_automatic_patching,
    switch_configuration,
    tick,
)
from updates.services.rollouts import (
    RolloutPlan,
    advance_rollouts,
    create_rollout,
    end_rollout,
    pause_rollout,
    resume_rollout,
)
from updates.services.verification import _write_verifications
from updates.templatetags.updates import recurrence_words
from vms.models import Connection, ResourceGroup, VirtualMachine
from vms.selection import VmSelection
from vms.selectors import patcher_of

pytestmark = pytest.mark.django_db


def end_operations(state: str = "succeeded", *, now: datetime = NIGHT, **which: Any) -> None:
    Operation.objects.open().filter(**which).update(
        state=state, finished_at=now, next_step_at=None, error_code="0x80070643" if state == "failed" else ""
    )


# --- periodic assessment -----------------------------------------------------------------------------------------


def test_assessments_come_every_day_on_running_machines_only(resource_group: ResourceGroup) -> None:
    now = timezone.now().replace(minute=0)
    fresh, old, never, off, manual, tried = fleet(resource_group, 6)
    for vm, hours in ((fresh, 3), (old, 25), (off, 30), (manual, 40), (tried, 50)):
        VmUpdateState.objects.create(vm=vm, last_assessed_at=now - timedelta(hours=hours))
    VirtualMachine.objects.filter(pk=off.pk).update(power_state="deallocated")
    VirtualMachine.objects.filter(pk=manual.pk).update(assessment_mode="ImageDefault")
    OperationFactory(vm=tried, kind="assessment")  # failed an hour ago, say: not again today
    end_operations("failed", vm=tried)
    assert vms_due_for_assessment(now, limit=10, with_never=True) == [old.pk, never.pk]
    assert vms_due_for_assessment(now, limit=10, with_never=False) == [old.pk]
    assert request_due_assessments(now=now) == 2
    assert request_due_assessments(now=now) == 0, "what is queued is not asked for again"
    assert set(Operation.objects.open().values_list("vm_id", "is_bulk")) == {(old.pk, True), (never.pk, True)}


def test_the_longest_waiting_go_first_and_a_tick_takes_its_share(resource_group: ResourceGroup) -> None:
    now = timezone.now()
    vms = fleet(resource_group, 5)
    for hours, vm in enumerate(vms):
        VmUpdateState.objects.create(vm=vm, last_assessed_at=now - timedelta(hours=30 + hours))
    assert vms_due_for_assessment(now, limit=2, with_never=False) == [vms[4].pk, vms[3].pk]


# --- rollouts ----------------------------------------------------------------------------------------------------


def test_waves_follow_each_other_and_the_plan_is_frozen(operator: User, resource_group: ResourceGroup) -> None:
    first = fleet(resource_group, 2, location="japaneast", zones=["1"])
    second = fleet(resource_group, 2, location="japanwest", zones=["1"])
    rollout = make([*first, *second], operator)
    assert rollout.wave_count == 4, "a quarter of a subscription at a time"
    seen = []
    for _ in range(20):
        advance(rollout)
        going = list(Operation.objects.open().values_list("vm_id", flat=True))
        if going:
            seen.append(going)
            end_operations()
        if rollout.status == "finished":
            break
    assert sorted(vm for wave in seen for vm in wave) == sorted(vm.pk for vm in [*first, *second])
    assert all(len(wave) == 1 for wave in seen)
    east = {vm.pk for vm in first}
    assert [wave[0] in east for wave in seen] == [True, True, False, False], "paired regions one after the other"
    assert (rollout.status, rollout.next_step_at) == ("finished", None)
    assert advance_rollouts(now=NOON) == 0


def test_failures_pause_it_and_a_person_resumes_or_ends(operator: User, resource_group: ResourceGroup) -> None:
    vms = fleet(resource_group, 8)
    rollout = make(vms, operator, is_availability_first=False, most_failures=2)
    advance(rollout)
    assert Operation.objects.open().count() == 8
    end_operations("failed", vm__in=[vm.pk for vm in vms[:3]])
    advance(rollout)
    assert (rollout.status, rollout.reason, rollout.next_step_at) == ("paused", "rollout.budget_used", None)
    assert resume_rollout(rollout_id=rollout.pk, now=NOON, resumed_by=operator)
    assert not resume_rollout(rollout_id=rollout.pk, now=NOON, resumed_by=operator)
    advance(rollout)
    assert Operation.objects.open().count() == 5, "who had only been queued has another turn"
    end_operations()
    advance(rollout)
    assert rollout.status == "finished", "what was seen is forgiven"
    other = make(vms, operator)
    advance(other)
    assert pause_rollout(rollout_id=other.pk, paused_by=operator)
    assert not Operation.objects.open().exists(), "what was queued is taken back"
    Rollout.objects.filter(pk=other.pk).update(next_step_at=NOON)
    advance_rollouts(now=NOON)
    assert not Operation.objects.open().exists(), "nothing further is started"
    assert resume_rollout(rollout_id=other.pk, now=NOON, resumed_by=operator)
    advance(other)
    Operation.objects.open().update(state="in_progress")
    assert end_rollout(rollout_id=other.pk, now=NOON, ended_by=operator)
    assert not end_rollout(rollout_id=other.pk, now=NOON, ended_by=operator)
    assert set(RolloutMember.objects.filter(rollout=other).values_list("status", flat=True)) == {"started", "skipped"}


def test_a_second_wave_that_turns_unhealthy_pauses_within_one_step(
    operator: User, resource_group: ResourceGroup
) -> None:
    """Nothing further is started, the machines are named, and a crash of every worker in between changes nothing."""
    vms = fleet(resource_group, 8)
    rollout = make(vms, operator, most_failures=1, most_percent=10)
    advance(rollout)
    first = set(Operation.objects.open().values_list("vm_id", flat=True))
    end_operations()
    advance(rollout)
    advance(rollout)
    second = list(Operation.objects.open().values_list("pk", flat=True))
    assert len(second) == 2
    end_operations("failed", pk__in=second)
    advance(rollout)  # whoever takes the row next does the same: nothing was kept in a process
    assert (rollout.status, rollout.reason) == ("paused", "rollout.budget_used")
    assert not Operation.objects.open().exists()
    for later in range(1, 5):
        advance_rollouts(now=NOON + timedelta(hours=later))
    assert Operation.objects.count() == 4
    failed = set(RolloutMember.objects.filter(status="failed").values_list("vm_id", flat=True))
    assert len(failed) == 2
    assert not failed & first


def test_a_role_that_is_taken_away_stops_the_next_wave(operator: User, resource_group: ResourceGroup) -> None:
    rollout = make(fleet(resource_group, 4), operator)
    advance(rollout)
    operator.roleassignment_set.all().delete()
    end_operations()
    for _ in range(10):
        advance(rollout)
    assert Operation.objects.count() == 1
    assert set(RolloutMember.objects.exclude(status="succeeded").values_list("code", flat=True)) == {
        "rollout.role_missing"
    }


def test_an_unhealthy_machine_counts_like_a_failure(operator: User, resource_group: ResourceGroup) -> None:
    vms = fleet(resource_group, 3)
    rollout = make(vms, operator, is_availability_first=False, most_failures=0, most_percent=0)
    advance(rollout)
    end_operations()
    VirtualMachine.objects.filter(pk=vms[0].pk).update(power_state="stopped")  # it did not come back
    advance(rollout)
    assert (rollout.status, rollout.reason) == ("paused", "rollout.budget_used")


def test_machines_that_cannot_take_it_are_skipped_with_their_reason(
    operator: User, resource_group: ResourceGroup
) -> None:
    off, unsupported, busy, good = fleet(resource_group, 4)
    VirtualMachine.objects.filter(pk=off.pk).update(power_state="deallocated")
    VirtualMachine.objects.filter(pk=unsupported.pk).update(update_status="unsupported")
    OperationFactory(vm=busy, kind="installation")
    rollout = make([off, unsupported, busy, good], operator, is_availability_first=False)
    advance(rollout)
    found = dict(RolloutMember.objects.values_list("vm_id", "status"))
    assert found == {off.pk: "skipped", unsupported.pk: "skipped", busy.pk: "waiting", good.pk: "started"}
    codes = set(RolloutMember.objects.filter(status="skipped").values_list("code", flat=True))
    assert codes == {"vm.not_running", "vm.unsupported"}
    end_operations()
    advance(rollout)
    assert RolloutMember.objects.get(vm=busy).status == "started", "a conflict passes by itself"


def test_regions_of_a_phase_go_side_by_side_and_a_clock_of_its_own_holds_nobody_up(
    operator: User, resource_group: ResourceGroup
) -> None:
    tokyo = fleet(resource_group, 2, availability_set="one")
    berlin = fleet(resource_group, 1, time_zone="", location="germanywestcentral")
    odd = fleet(resource_group, 1, time_zone="W. Europe Standard Time")  # in Japan, by Europe's clock
    rollout = make([*tokyo, *berlin, *odd], operator, is_off_peak_only=True)
    assert sorted((lane["phase"], lane["last"] - lane["first"]) for lane in rollout.lanes) == [(0, 0), (0, 0), (0, 1)]
    for hour in (0, 1):
        advance(rollout, NIGHT + timedelta(hours=hour))
        end_operations()
    assert set(Operation.objects.values_list("vm_id", flat=True)) == {vm.pk for vm in tokyo}
    advance(rollout, NIGHT + timedelta(hours=2))
    assert rollout.reason == "rollout.off_peak"
    advance(rollout, NIGHT + timedelta(hours=8))
    assert Operation.objects.count() == 3, "a quarter of the subscription at a time, in the whole world"
    end_operations()
    advance(rollout, NIGHT + timedelta(hours=8))
    assert Operation.objects.count() == 4


def test_two_rollouts_never_change_together_what_one_would_not(operator: User, resource_group: ResourceGroup) -> None:
    (east,), (west,) = fleet(resource_group, 1), fleet(resource_group, 1, location="japanwest")
    first, second = make([east], operator), make([west], operator)
    Rollout.objects.filter(pk=second.pk).update(created_at=NOON + timedelta(minutes=1))
    advance_rollouts(now=NOON)
    second.refresh_from_db()
    assert list(Operation.objects.values_list("vm_id", flat=True)) == [east.pk]
    assert second.reason == "rollout.beside_others"
    end_operations()
    advance(second)
    assert Operation.objects.get(finished_at=None).vm_id == west.pk
    advance(first)
    assert first.status == "finished"


def test_it_waits_for_off_peak_hours(operator: User, resource_group: ResourceGroup) -> None:
    tokyo = fleet(resource_group, 1)
    berlin = fleet(resource_group, 1, time_zone="", location="germanywestcentral")  # the region's clock
    rollout = make([*tokyo, *berlin], operator, is_availability_first=False, is_off_peak_only=True)
    advance(rollout, NOON)
    assert (Operation.objects.count(), rollout.reason) == (0, "rollout.off_peak")
    advance(rollout, NIGHT)
    assert list(Operation.objects.values_list("vm_id", flat=True)) == [tokyo[0].pk]
    advance(rollout, NIGHT + timedelta(hours=8))  # 22:30 in Berlin
    assert Operation.objects.count() == 2


def test_a_wave_soaks_before_the_next(operator: User, resource_group: ResourceGroup) -> None:
    rollout = make(fleet(resource_group, 2), operator, soak_minutes=30)
    advance(rollout)
    end_operations()
    advance(rollout)
    assert (rollout.wave, rollout.reason) == (0, "rollout.soaking")
    advance(rollout, NOON + timedelta(minutes=31))
    assert rollout.wave == 1


def test_the_same_request_is_one_rollout(operator: User, resource_group: ResourceGroup) -> None:
    import uuid

    pk, vms = uuid.uuid4(), fleet(resource_group, 2)
    what = RolloutPlan(name="x", source=RolloutSource.ON_DEMAND, plan=PLAN)
    for _ in range(2):
        create_rollout(
            what=what, selection=VmSelection.of([vm.pk for vm in vms]), now=NOON, created_by=operator, rollout_id=pk
        )
    assert (Rollout.objects.count(), RolloutMember.objects.count()) == (1, 2)


def test_planning_and_stepping_cost_the_same_however_many(operator: User, resource_group: ResourceGroup) -> None:
    costs = []
    for count in (3, 60):
        vms = fleet(resource_group, count)
        with CaptureQueriesContext(connection) as captured:
            rollout = make(vms, operator, is_availability_first=False)
            advance(rollout)
        costs.append(len(captured))
    assert costs[0] == costs[1]


# --- automatic guest patching ------------------------------------------------------------------------------------


def lacking(vms: list[VirtualMachine]) -> None:
    """These machines lack one security update."""
    patch = PatchFactory(kb_number="5087424", classification="Security")
    row = PatchSet.objects.create(digest=b"l" * 32, critical_and_security_count=1)
    PatchSetMember.objects.create(patch_set=row, patch=patch)
    for vm in vms:
        VmUpdateState.objects.create(vm=vm, patch_set=row, last_assessed_at=timezone.now())
    VirtualMachine.objects.filter(pk__in=[vm.pk for vm in vms]).update(critical_and_security_count=1)


def test_it_takes_who_is_eligible_off_peak_and_once(resource_group: ResourceGroup) -> None:
    good, off, manual, bypassing, complete, scheduled = vms = fleet(resource_group, 6)
    lacking([good, off, manual, bypassing, scheduled])
    VirtualMachine.objects.filter(pk=off.pk).update(power_state="deallocated")
    VirtualMachine.objects.filter(pk=manual.pk).update(patch_mode="Manual")
    VirtualMachine.objects.filter(pk=bypassing.pk).update(bypass_platform_safety_checks=True)
    VirtualMachine.objects.filter(pk=scheduled.pk).update(tags={"ring": "one"})
    configure(scope={"tag_name": "ring"})
    assert start_automatic_patching(now=NOON) == []
    (rollout,) = start_automatic_patching(now=NIGHT)
    assert list(RolloutMember.objects.values_list("vm_id", flat=True)) == [good.pk]
    assert rollout.plan["kb_numbers_to_include"] == ["5087424"]
    assert rollout.plan["classifications"] == []
    assert start_automatic_patching(now=NIGHT) == [], "who is in an open rollout is in no second one"
    advance(rollout, NIGHT)
    end_operations("failed")
    Rollout.objects.filter(pk=rollout.pk).update(status="finished", next_step_at=None)
    RolloutMember.objects.update(status="failed")
    (again,) = start_automatic_patching(now=NIGHT + timedelta(days=1))
    assert again.pk != rollout.pk, "failed ones have another try"
    assert start_automatic_patching(now=NIGHT + timedelta(days=1, hours=2)) == [], "once a day"
    Rollout.objects.update(status="finished", next_step_at=None)
    for _ in range(4):
        RolloutMember.objects.create(
            rollout=Rollout.objects.create(name="x", source="automatic", plan={}, status="finished", created_at=NIGHT),
            vm=good,
            wave=0,
            status="failed",
        )
    assert start_automatic_patching(now=NIGHT + timedelta(days=2)) == [], "and an end"
    VirtualMachine.objects.filter(pk=off.pk).update(power_state="running")
    (late,) = start_automatic_patching(now=NIGHT + timedelta(days=2))
    assert list(late.members.values_list("vm_id", flat=True)) == [off.pk], "who was off comes later"
    Connection.objects.update(is_patching_automatically=False)
    assert start_automatic_patching(now=NIGHT + timedelta(days=3)) == []
    assert complete in vms


@pytest.mark.parametrize("track", ["on_track", "on_track_as_far_as_known", "baseline_due", "unknown"])
def test_what_would_take_a_machine_off_the_train_is_nothing_it_lacks(resource_group: ResourceGroup, track: str) -> None:
    guarded, off_track = vms = fleet(resource_group, 2)
    VirtualMachine.objects.filter(pk=guarded.pk).update(hotpatch_track=track)
    lacking(vms)
    PatchSetMember.objects.update(patch=PatchFactory(classification="Security", release_type="oob_lcu"))
    VirtualMachine.objects.filter(pk=off_track.pk).update(hotpatch_track="off_track_since_kb")
    (rollout,) = start_automatic_patching(now=NIGHT)
    assert list(rollout.members.values_list("vm_id", flat=True)) == [off_track.pk]


def test_what_is_held_back_is_nothing_a_machine_lacks(resource_group: ResourceGroup) -> None:
    held, free = vms = fleet(resource_group, 2)
    lacking(vms)
    KbHold.objects.create(vm=held, kb_number="5087424")
    KbHold.objects.create(vm=free, kb_number="5000001")
    (rollout,) = start_automatic_patching(now=NIGHT)
    assert list(rollout.members.values_list("vm_id", flat=True)) == [free.pk]


def test_a_machine_is_tried_once_in_a_night(resource_group: ResourceGroup) -> None:
    (vm,) = fleet(resource_group, 1)
    lacking([vm])
    (rollout,) = start_automatic_patching(now=NIGHT)
    advance(rollout, NIGHT)
    assert Operation.objects.get().payload["maximum_duration_seconds"] == 7_200
    end_operations("failed", now=NIGHT + timedelta(minutes=30))
    advance(rollout, NIGHT + timedelta(hours=1))
    assert rollout.status == "finished"
    Rollout.objects.update(created_at=NIGHT - timedelta(days=2))
    assert start_automatic_patching(now=NIGHT + timedelta(hours=2)) == []
    (again,) = start_automatic_patching(now=NIGHT + timedelta(days=1, hours=4))  # 02:30: an hour and a half is left
    advance(again, NIGHT + timedelta(days=1, hours=4))
    assert Operation.objects.get(finished_at=None).payload["maximum_duration_seconds"] == 75 * 60


def test_the_reboot_setting_of_the_machine_counts(resource_group: ResourceGroup) -> None:
    vms = [*fleet(resource_group, 1, reboot_setting="Never"), *fleet(resource_group, 1, reboot_setting="Always")]
    what = RolloutPlan(name="x", source=RolloutSource.AUTOMATIC, plan=PLAN, is_availability_first=False)
    rollout = create_rollout(what=what, selection=VmSelection.of([vm.pk for vm in vms]), now=NOON, created_by=None)
    advance(rollout)
    found = {row.vm_id: row.payload["reboot_setting"] for row in Operation.objects.all()}
    assert found == {vms[0].pk: "Never", vms[1].pk: "Always"}


# --- maintenance configurations ----------------------------------------------------------------------------------


def configure(**fields: Any) -> MaintenanceConfiguration:
    from updates.plans import plan_to_json

    values: dict[str, Any] = {
        "name": f"m{MaintenanceConfiguration.objects.count()}",
        "starts_on": date(2026, 11, 24),
        "starts_at": time(22),
        "time_zone": "Tokyo Standard Time",
        "recur_every": "Month Second Tuesday Offset4",
        "duration_minutes": 120,
        "plan": plan_to_json(PLAN),
    }
    return MaintenanceConfiguration.objects.create(**(values | fields))


def opened(row: MaintenanceConfiguration, count: int) -> list[datetime]:
    return [window.opens_at for window in islice(open_windows_on(row, None, after=NOON), count)]


def test_second_tuesday_plus_four_in_tokyo() -> None:
    runs = opened(configure(), 12)
    assert [run.isoformat() for run in runs[:3]] == [
        "2026-12-12T13:00:00+00:00",
        "2027-01-16T13:00:00+00:00",
        "2027-02-13T13:00:00+00:00",
    ]
    assert len(runs) == 12
    limited = configure(expires_on=date(2027, 2, 1), blackouts=[["2026-12-12", "2026-12-31"]])
    assert [run.date() for run in opened(limited, 12)] == [date(2027, 1, 16)]
    assert opened(configure(expires_on=date(2026, 1, 1)), 1) == []


def test_a_window_opens_once_and_skips_whose_prerequisites_are_missing(resource_group: ResourceGroup) -> None:
    ready, wrong_mode = fleet(resource_group, 2, tags={"ring": "one"})
    VirtualMachine.objects.filter(pk=wrong_mode.pk).update(patch_mode="AutomaticByOS")
    row = create_configuration(
        configuration=MaintenanceConfiguration(
            **{
                field: getattr(configure(), field)
                for field in ("starts_on", "starts_at", "time_zone", "recur_every", "duration_minutes", "plan")
            },
            name="ring one",
            scope={"tag_name": "ring", "tag_value": "one"},
        ),
        created_by=User.objects.create(username="who"),
        now=NOON,
    )
    opens = datetime(2026, 12, 12, 13, tzinfo=UTC)
    assert row.next_run_at == opens
    assert open_windows(now=opens - timedelta(seconds=1)) == []
    (rollout,) = open_windows(now=opens + timedelta(seconds=20))
    assert open_windows(now=opens + timedelta(seconds=20)) == []
    assert list(rollout.members.values_list("vm_id", flat=True)) == [ready.pk]
    assert rollout.window_ends_at == opens + timedelta(minutes=120)
    advance(rollout, opens + timedelta(minutes=30))
    operation = Operation.objects.get(vm=ready)
    assert operation.payload is not None
    assert operation.payload["maximum_duration_seconds"] == 90 * 60, "no longer than the window"
    row.refresh_from_db()
    assert row.next_run_at == datetime(2027, 1, 16, 13, tzinfo=UTC)


def test_what_a_window_did_not_reach_is_skipped_and_a_missed_window_is_no_window(
    operator: User, resource_group: ResourceGroup
) -> None:
    vms = fleet(resource_group, 2)
    OperationFactory(vm=vms[0], kind="installation")
    rollout = make([vms[0]], operator, window_ends_at=NOON + timedelta(minutes=90))
    advance(rollout)
    advance(rollout, NOON + timedelta(minutes=91))
    assert (rollout.status, rollout.members.get().code) == ("finished", "rollout.window_over")
    row = configure(scope={"location": "japaneast"})
    plan_next_run(configuration=row, now=NOON)
    assert open_windows(now=datetime(2026, 12, 12, 16, tzinfo=UTC)) == []
    row.refresh_from_db()
    assert row.next_run_at == datetime(2027, 1, 16, 13, tzinfo=UTC)
    switch_configuration(configuration_id=row.pk, is_enabled=False, now=NOON)
    row.refresh_from_db()
    assert row.next_run_at is None


def test_a_window_is_cut_by_a_blackout_or_stays_shut(resource_group: ResourceGroup) -> None:
    (vm,) = fleet(resource_group, 1)
    late = configure(starts_at=time(22, 30), blackouts=[["2026-12-13", "2026-12-20"]])
    shut = configure(starts_at=time(22, 31), blackouts=[["2026-12-13", "2026-12-20"]])
    for row in (late, shut):
        row.vms.add(vm)
        plan_next_run(configuration=row, now=NOON)
    assert late.next_run_at == datetime(2026, 12, 12, 13, 30, tzinfo=UTC)
    assert shut.next_run_at == datetime(2027, 1, 16, 13, 31, tzinfo=UTC)
    (rollout,) = open_windows(now=datetime(2026, 12, 12, 13, 30, tzinfo=UTC))
    assert rollout.window_ends_at == datetime(2026, 12, 12, 15, tzinfo=UTC)
    assert rollout.plan["maximum_duration_seconds"] == 90 * 60
    # a blackout that somebody adds after the window was planned holds, too
    late.refresh_from_db()
    assert late.next_run_at is not None
    MaintenanceConfiguration.objects.filter(pk=late.pk).update(blackouts=[["2027-01-16", "2027-01-16"]])
    assert open_windows(now=late.next_run_at) == []


def test_nothing_starts_in_a_blackout(operator: User, resource_group: ResourceGroup) -> None:
    """Neither in a window that is open nor for machines that catch up; what waits in the queue is taken back."""
    (vm, other) = fleet(resource_group, 2)
    row = configure(time_zone="UTC", blackouts=[["2026-12-01", "2026-12-02"]])
    eve = datetime(2026, 11, 30, 22, tzinfo=UTC)
    window = {"window_ends_at": eve + timedelta(hours=3), "catch_up_until": eve + timedelta(hours=99)}
    rollout = make([vm], operator, configuration=row, **window)
    Rollout.objects.filter(pk=rollout.pk).update(next_step_at=eve)
    advance(rollout, eve)
    assert Operation.objects.get(vm=vm).payload["maximum_duration_seconds"] <= 120 * 60, "ends before the blackout"
    assert Operation.objects.get(vm=vm).state == "queued"
    advance(rollout, datetime(2026, 12, 1, tzinfo=UTC))
    assert Operation.objects.get(vm=vm).state == "cancelled", "asked for before the blackout, not begun before it"
    late = make([other], operator, configuration=row, **window)
    VirtualMachine.objects.filter(pk=other.pk).update(power_state="stopped")
    advance(late, eve + timedelta(minutes=1))
    VirtualMachine.objects.filter(pk=other.pk).update(power_state="running")
    advance(late, datetime(2026, 12, 2, 12, tzinfo=UTC))
    assert not Operation.objects.filter(vm=other).exists()
    assert late.reason == "rollout.blackout"
    advance(late, datetime(2026, 12, 3, 0, 1, tzinfo=UTC))
    assert Operation.objects.filter(vm=other).exists(), "the blackout is over, and it still catches up"


def test_what_a_window_left_in_the_queue_does_not_begin_after_it(operator: User, resource_group: ResourceGroup) -> None:
    (vm,) = fleet(resource_group, 1)
    rollout = make([vm], operator, window_ends_at=NOON + timedelta(minutes=90))
    advance(rollout)
    Operation.objects.update(created_at=NOON)
    advance(rollout, NOON + timedelta(minutes=91))
    assert Operation.objects.get(vm=vm).state == "cancelled"
    assert rollout.members.get().code == "rollout.window_over"


def test_a_machine_whose_clock_nobody_knows_is_not_taken_on(resource_group: ResourceGroup) -> None:
    known, unknown = fleet(resource_group, 2)
    lacking([known, unknown])
    assert set(vms_to_patch_automatically(known.connection_id, NIGHT)) == {known.pk, unknown.pk}
    VirtualMachine.objects.filter(pk=unknown.pk).update(location="moonbase", time_zone="")
    assert vms_to_patch_automatically(known.connection_id, NIGHT) == [known.pk]
    VirtualMachine.objects.filter(pk=unknown.pk).update(time_zone="tokyo standard time")
    assert set(vms_to_patch_automatically(known.connection_id, NIGHT)) == {known.pk, unknown.pk}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("starts_on", "9999-12-31", "2100-12-31"),
        ("starts_on", "1999-12-31", "2000-01-01"),
        ("starts_on", "2026-02-30", "valid date"),
        ("expires_on", "2026-11-23", "before the first day"),
        ("expires_on", "9999-12-31", "2100-12-31"),
        ("blackouts", "2026-11-01 to 9999-12-31", "2000 to 2100"),
        ("blackouts", "2026-02-30 to 2026-99-99", "not a date"),
        ("blackouts", "2027-01-01 to 2026-12-01", "ends before it begins"),
        ("recur_every", "12Months day30", "no day that is in any calendar"),
    ],
)
def test_days_that_mean_nothing_are_form_errors(
    client: Client, chief: User, resource_group: ResourceGroup, field: str, value: str, said: str
) -> None:
    client.force_login(chief)
    (vm,) = fleet(resource_group, 1)
    data = {
        "name": "x",
        "starts_on": "2027-02-01" if field == "recur_every" else "2026-11-24",
        "starts_at": "22:00",
        "time_zone": "Tokyo Standard Time",
        "duration_minutes": "120",
        "recur_every": "Day",
        "machines": vm.name,
        "classifications": ["Security"],
        "reboot_setting": "IfRequired",
        "go": "save",
    }
    answer = client.post(reverse("updates:maintenance-create"), data | {field: value})
    assert answer.status_code == 422
    assert said in text_of(answer)
    assert not MaintenanceConfiguration.objects.exists()


def test_the_preview_says_what_opens_before_the_release_and_on_whose_clock(
    client: Client, chief: User, resource_group: ResourceGroup
) -> None:
    client.force_login(chief)
    row = configure(name="early", recur_every="Month Second Tuesday", scope={"location": "japaneast"})
    shown = text_of(client.get(reverse("updates:maintenance", args=[row.pk])))
    assert "On the clock of Asia/Tokyo" in shown
    assert "Each month this window opens before that month" in shown
    assert re.search(r"Tue \d{4}-\d\d-\d\d 22:00", shown)
    some = configure(name="some", recur_every="Month Second Wednesday", scope={"location": "japaneast"})
    assert "of the next 24 months this window opens before" in text_of(
        client.get(reverse("updates:maintenance", args=[some.pk]))
    )
    fine = configure(name="fine", scope={"location": "japaneast"})
    assert "before that month" not in text_of(client.get(reverse("updates:maintenance", args=[fine.pk])))


@pytest.mark.parametrize(
    ("first", "last", "days"),
    [
        ("2026-02-30", "2026-99-99", ("2026-02-28", "2026-12-31")),
        ("2026-11-01", "9999-12-31", ("2026-11-01", "2100-12-31")),
        ("0001-01-01", "2026-04-31", ("2000-01-01", "2026-04-30")),
        ("2026-00-01", "2026-01-00", ("2026-01-01", "2026-01-31")),
    ],
)
def test_blackouts_that_were_kept_before_become_days(first: str, last: str, days: tuple[str, str]) -> None:
    nearest_day = import_module("updates.migrations.0013_blackout_days").nearest_day
    assert (
        nearest_day(first, is_last=False).isoformat(),
        nearest_day(last, is_last=True).isoformat(),
    ) == days


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "subscription": st.sampled_from(["", 0, "ours"]),
            "resource_group": st.sampled_from(["RG-ours", "rg-theirs", ""]),
            "location": st.sampled_from(["Japan East", "westeurope"]),
            "image_sku": st.sampled_from(["2022-DATACENTER-azure-edition-core", "other"]),
            "tag_name": st.sampled_from(["ring", "nothing"]),
            "tag_value": st.sampled_from(["one", "two"]),
            "region": st.just("japaneast"),
        },
    )
)
@pytest.mark.usefixtures("db")
def test_a_scope_means_the_same_in_hand_and_in_the_database(scope: dict[str, str]) -> None:
    vm = VirtualMachine.objects.select_related("resource_group").filter(name="scoped").first()
    if vm is None:
        from tests.factories import ResourceGroupFactory

        group = ResourceGroupFactory(name="rg-ours")
        vm = VirtualMachineFactory(name="scoped", resource_group=group, location="japaneast", tags={"ring": "one"})
    row = MaintenanceConfiguration(scope=scope)
    found = members_of(row, VirtualMachine.objects.filter(pk=vm.pk)).exists()
    assert kept_scope_means(scope, vm) is found


def test_the_blade_says_who_patches_and_what_opens_next(
    client: Client, reader: User, resource_group: ResourceGroup
) -> None:
    (vm,) = fleet(resource_group, 1, tags={"ring": "one"})
    client.force_login(reader)
    assert "This portal, automatically" in text_of(client.get(reverse("updates:blade", args=[vm.pk])))
    row = configure(name="Saturday", scope={"tag_name": "ring"})
    plan_next_run(configuration=row, now=timezone.now())
    shown = text_of(client.get(reverse("updates:blade", args=[vm.pk])))
    assert "This portal, by schedule" in shown
    assert "Saturday:" in shown
    static = configure(name="Static")
    static.vms.add(vm)
    names = [one.name for one in load_picture(reader, vm.pk, now=timezone.now()).schedules]
    assert names == ["Saturday", "Static"]
    assert list(VirtualMachine.objects.filter(scheduled())) == [vm]
    assert patcher_of(vm, has_schedule=False).patcher is Patcher.PORTAL_AUTOMATICALLY


# --- rings -------------------------------------------------------------------------------------------------------


def install_result(vm: VirtualMachine, kb: str, state: str = "Installed") -> None:
    operation = Operation.objects.open().get(vm=vm)
    patch = Patch.objects.filter(kb_number=kb).first() or PatchFactory(kb_number=kb)
    PatchResult.objects.create(operation=operation, patch=patch, state=state)


def test_only_what_a_ring_proved_reaches_the_next(operator: User, resource_group: ResourceGroup) -> None:
    pilot = fleet(resource_group, 2, tags={"ring": "Pilot"})
    (broad,) = fleet(resource_group, 1, tags={"ring": "broad"})
    (rest,) = fleet(resource_group, 1)
    rollout = make(
        [rest, broad, *pilot],
        operator,
        is_availability_first=False,
        ring_tag="ring",
        rings=("pilot", "broad"),
        ring_soak_minutes=60,
    )
    assert rollout.rings == ["pilot", "broad", ""]
    advance(rollout)
    assert set(Operation.objects.open().values_list("vm_id", flat=True)) == {vm.pk for vm in pilot}
    good, bad, lied = "5000001", "5000002", "5000003"
    install_result(pilot[0], good)
    install_result(pilot[0], bad, "Failed")
    install_result(pilot[1], bad)
    end_operations(vm=pilot[0])
    end_operations(vm=pilot[1])
    contradicted = Operation.objects.get(vm=pilot[1])
    PatchResult.objects.create(operation=contradicted, patch=PatchFactory(kb_number=lied), state="Installed")
    Operation.objects.filter(pk=contradicted.pk).update(verification="contradicted")
    advance(rollout)
    assert rollout.reason == "rollout.ring_soaking"
    assert not Operation.objects.open().exists()
    advance(rollout, NOON + timedelta(minutes=61))
    operation = Operation.objects.open().get()
    assert operation.payload is not None
    assert (operation.vm_id, operation.payload["classifications"]) == (broad.pk, [])
    assert operation.payload["kb_numbers_to_include"] == [good]
    install_result(broad, good, "Failed")
    end_operations()
    for hours in (3, 5, 7):
        advance(rollout, NOON + timedelta(hours=hours))
    assert rollout.members.get(vm=rest).code == "rollout.nothing_proven"
    assert rollout.status == "finished"


def test_a_contradicted_run_counts_against_its_rollout(operator: User, resource_group: ResourceGroup) -> None:
    first, second = fleet(resource_group, 2)
    rollout = make([first, second], operator)
    advance(rollout)
    end_operations()
    run = Operation.objects.get(vm=first)
    Operation.objects.filter(pk=run.pk).update(verification="contradicted")
    advance(rollout, NOON + timedelta(minutes=5))
    member = rollout.members.get(vm=first)
    assert (member.status, member.code) == ("failed", "run.contradicted")


def test_a_look_after_the_end_of_a_run_counts_against_its_rollout(
    operator: User, resource_group: ResourceGroup
) -> None:
    (vm,) = fleet(resource_group, 1)
    rollout = make([vm], operator)
    advance(rollout)
    end_operations()
    advance(rollout, NOON + timedelta(minutes=5))
    assert rollout.members.get().status == "succeeded"
    run = Operation.objects.get(vm=vm)
    _write_verifications([(run.pk, Verification.CONTRADICTED, None)])
    member = rollout.members.get()
    assert (member.status, member.code) == ("failed", "run.contradicted")


def test_a_ring_without_machines_stops_nobody(operator: User, resource_group: ResourceGroup) -> None:
    (vm,) = fleet(resource_group, 1)
    rollout = make([vm], operator, ring_tag="ring", rings=("pilot", "broad"), ring_soak_minutes=60)
    advance(rollout)
    operation = Operation.objects.open().get()
    assert operation.payload is not None
    assert operation.payload["classifications"] == ["Security"], "the plan as it was asked for"


def test_rings_follow_availability_inside(operator: User, resource_group: ResourceGroup) -> None:
    pilot = fleet(resource_group, 2, tags={"ring": "pilot"}, location="japaneast")
    pilot += fleet(resource_group, 2, tags={"ring": "pilot"}, location="japanwest")
    rest = fleet(resource_group, 2, location="japaneast")
    rollout = make([*rest, *pilot], operator, ring_tag="ring", rings=("pilot",))
    waves = dict(rollout.members.values_list("vm_id", "wave"))
    assert max(waves[vm.pk] for vm in pilot) < min(waves[vm.pk] for vm in rest)
    assert [lane["ring"] for lane in rollout.lanes] == [0, 0, 1]
    assert [lane["phase"] for lane in rollout.lanes] == [0, 1, 2]


def test_rings_from_the_page(client: Client, operator: User, resource_group: ResourceGroup) -> None:
    vms = fleet(resource_group, 2, tags={"ring": "pilot"})
    client.force_login(operator)
    fields = {
        "kind": "installation",
        "vm": [vm.pk for vm in vms],
        "request_id": str(uuid.uuid4()),
        "classifications": ["Security"],
        "reboot_setting": "IfRequired",
        "maximum_minutes": "120",
        "ring_tag": "ring",
        "ring_hours": "1",
        "go": "start",
    }
    url = reverse("updates:bulk-create")
    assert "A ring is named once." in text_of(client.post(url, fields | {"rings": "pilot, Pilot"}))
    assert "Say which tag has these values." in text_of(client.post(url, fields | {"rings": "pilot", "ring_tag": ""}))
    assert "None of these machines has the tag ring with the value broad." in text_of(
        client.post(url, fields | {"rings": "pilot、broad"})
    )
    assert not Rollout.objects.exists()
    vms += fleet(resource_group, 1, tags={"ring": "Broad"})
    lacking(vms)
    fields["vm"] = [vm.pk for vm in vms]
    review = client.post(url, fields | {"rings": "pilot、broad", "go": "review"})
    answer = client.post(url, fields_of(review, url) | {"go": "start"})
    rollout = Rollout.objects.get()
    assert answer["Location"] == reverse("updates:rollout", args=[rollout.pk])
    assert (rollout.rings, rollout.ring_soak_minutes, rollout.is_availability_first) == (
        ["pilot", "broad", ""],
        60,
        False,
    )
    assert "pilot → broad → the rest" in text_of(client.get(answer["Location"]))


# --- machines that were off, static members, overlaps ------------------------------------------------------------


def test_a_machine_that_was_off_is_caught_up_once_it_runs(operator: User, resource_group: ResourceGroup) -> None:
    """It stops no wave, starts after the window with a window of its own, and is given up on when the time is over."""
    on, back, away = fleet(resource_group, 3)
    VirtualMachine.objects.filter(pk__in=[back.pk, away.pk]).update(power_state="deallocated")
    ends = NOON + timedelta(minutes=90)
    rollout = make(
        [on, back, away],
        operator,
        is_availability_first=False,
        window_ends_at=ends,
        catch_up_until=ends + timedelta(hours=8),
    )
    advance(rollout)
    assert list(Operation.objects.open().values_list("vm_id", flat=True)) == [on.pk]
    end_operations()
    advance(rollout, ends + timedelta(hours=1))
    assert (rollout.status, rollout.reason) == ("running", "rollout.catching_up")
    assert not Operation.objects.open().exists()
    VirtualMachine.objects.filter(pk=back.pk).update(power_state="running")
    advance(rollout, ends + timedelta(hours=2))
    operation = Operation.objects.open().get()
    assert operation.payload is not None
    assert (operation.vm_id, operation.payload["maximum_duration_seconds"]) == (back.pk, 120 * 60)
    end_operations()
    advance(rollout, ends + timedelta(hours=7))
    assert rollout.status == "running"
    advance(rollout, ends + timedelta(hours=8))
    advance(rollout, ends + timedelta(hours=8))
    assert rollout.status == "finished"
    states = dict(rollout.members.values_list("vm_id", "status"))
    assert states == {on.pk: "succeeded", back.pk: "succeeded", away.pk: "skipped"}
    assert rollout.members.get(vm=away).code == "vm.not_running"


def test_availability_first_catches_up_one_at_a_time(resource_group: ResourceGroup) -> None:
    vms = fleet(resource_group, 3, power_state="deallocated")
    row = configure(scope={"location": "japaneast"}, is_availability_first=True, catch_up_hours=24)
    plan_next_run(configuration=row, now=NOON)
    assert row.next_run_at is not None
    (rollout,) = open_windows(now=row.next_run_at)
    at = row.next_run_at
    for minute in range(10):  # every wave finds its machines off
        advance(rollout, at + timedelta(minutes=minute))
    assert set(rollout.members.values_list("status", flat=True)) == {"catching_up"}
    VirtualMachine.objects.update(power_state="running")
    for minute in range(10, 13):
        advance(rollout, at + timedelta(minutes=minute))
        assert Operation.objects.open().count() == 1
        end_operations()
    advance(rollout, at + timedelta(minutes=14))
    assert rollout.status == "finished"
    assert rollout.members.filter(status="succeeded").count() == len(vms)


def test_who_ends_it_ends_the_waiting_for_machines_that_are_off(operator: User, resource_group: ResourceGroup) -> None:
    vms = fleet(resource_group, 1, power_state="deallocated")
    rollout = make(vms, operator, catch_up_until=NOON + timedelta(hours=8))
    advance(rollout)
    assert rollout.members.get().status == "catching_up"
    assert end_rollout(rollout_id=rollout.pk, now=NOON, ended_by=operator)
    assert rollout.members.get().status == "skipped"


def test_of_two_windows_that_overlap_the_second_waits_within_its_own(resource_group: ResourceGroup) -> None:
    fleet(resource_group, 1)
    rows = [configure(scope={"location": "japaneast"}, starts_at=time(22, minute)) for minute in (0, 30)]
    for row in rows:
        plan_next_run(configuration=row, now=NOON)
    at = rows[0].next_run_at
    assert at is not None
    (one,) = open_windows(now=at)
    advance(one, at)
    half_past = at + timedelta(minutes=30)
    (two,) = open_windows(now=half_past)
    advance(two, half_past)
    assert Operation.objects.open().count() == 1
    assert (one.members.get().status, two.members.get().status) == ("started", "waiting")
    end_operations()
    advance(two, at + timedelta(minutes=45))
    assert Operation.objects.open().count() == 1, "what the first window left is the second's, while it lasts"
    assert two.members.get().status == "started"


def test_a_configuration_is_made_with_machines_by_name_changed_and_removed(
    client: Client, chief: User, resource_group: ResourceGroup
) -> None:
    one, two = fleet(resource_group, 2)
    client.force_login(chief)
    fields = {
        "name": "By name",
        "starts_on": "2030-12-08",
        "starts_at": "22:00",
        "time_zone": "Tokyo Standard Time",
        "duration_minutes": "120",
        "recur_every": "Month Second Tuesday Offset4",
        "classifications": ["Security"],
        "reboot_setting": "IfRequired",
        "catch_up_hours": "12",
        "machines": f"{one.name.upper()}\n\n{resource_group.name}/{two.name}",
        "go": "save",
    }
    create = reverse("updates:maintenance-create")
    refused = client.post(create, fields | {"machines": "nobody\nno-one"})
    assert refused.status_code == 422
    assert "There is no machine “nobody”. 1 more entry is wrong." in text_of(refused)
    VirtualMachineFactory(name=one.name)
    assert f"Several machines are called “{one.name.upper()}”" in text_of(client.post(create, fields))
    fields["machines"] = "\n".join(f"{resource_group.name}/{vm.name}" for vm in (one, two))
    made = client.post(create, fields)
    row = MaintenanceConfiguration.objects.get()
    assert made["Location"] == reverse("updates:maintenance", args=[row.pk])
    assert set(row.vms.all()) == {one, two}
    edit = reverse("updates:maintenance-edit", args=[row.pk])
    shown = client.get(edit).content.decode()
    assert f"{resource_group.name}/{two.name}" in shown
    assert 'value="12"' in shown
    changed = fields | {"machines": f"{resource_group.name}/{two.name}", "name": "BY NAME", "starts_at": "23:00"}
    assert client.post(edit, changed).status_code == 302
    row.refresh_from_db()
    assert (row.name, row.starts_at, list(row.vms.all())) == ("BY NAME", time(23), [two])
    assert row.next_run_at == datetime(2030, 12, 14, 14, tzinfo=UTC)
    MaintenanceConfiguration.objects.update(next_run_at=timezone.now() + timedelta(minutes=10))
    late = client.post(edit, changed | {"name": "Late"})
    assert "A window opens within 15 minutes" in text_of(late)
    row.refresh_from_db()
    assert row.name == "BY NAME"
    rollout = make([one])
    Rollout.objects.filter(pk=rollout.pk).update(configuration=row)
    client.post(reverse("updates:maintenance-remove", args=[row.pk]))
    assert not MaintenanceConfiguration.objects.exists()
    assert Rollout.objects.filter(pk=rollout.pk).exists()


# --- pages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recurrence", "english", "japanese"),
    [
        ("Day", "Every day", "毎日"),
        ("3Days", "Every 3 days", "3 日ごと"),
        ("Week", "Every week", "毎週"),
        ("Week Saturday,Sunday", "Every week on Saturday, Sunday", "毎週 土曜日, 日曜日"),
        ("2Weeks Monday", "Every 2 weeks on Monday", "2 週間ごとの 月曜日"),
        ("2Weeks", "Every 2 weeks", "2 週間ごと"),
        ("Month day1,day15", "Every month on day 1, 15", "毎月 1, 15 日"),
        ("3Months day31", "Every 3 months on day 31", "3 か月ごとの 31 日"),
        ("Month Last Sunday", "Every month on the last Sunday", "毎月最終日曜日"),
        ("Month Second Tuesday Offset1", "Every month on the second Tuesday, 1 day later", "毎月第 2 火曜日の 1 日後"),
        (
            "2Months First Friday Offset-2",
            "Every 2 months on the first Friday, 2 days earlier",
            "2 か月ごとの第 1 金曜日の 2 日前",
        ),
    ],
)
def test_how_often_a_window_opens_in_words(recurrence: str, english: str, japanese: str) -> None:
    assert recurrence_words(recurrence) == english
    with override("ja"):
        assert recurrence_words(recurrence) == japanese


def test_the_form_of_a_configuration_has_every_field_once_and_the_readers_zone() -> None:
    with timezone.override("Asia/Tokyo"):
        form = MaintenanceForm()
    assert form.initial["time_zone"] == "Tokyo Standard Time"
    names = [bound.name for _title, fields in form.sections for bound in fields]
    names += [
        "repeats",
        "every",
        *(bound.name for _value, _label, fields in form.recurrence_groups for bound in fields),
    ]
    assert sorted(names) == sorted(form.fields)


def test_a_configuration_from_preview_to_runs(client: Client, chief: User, resource_group: ResourceGroup) -> None:
    fleet(resource_group, 2, tags={"ring": "one"})
    fleet(resource_group, 1, tags={"ring": "one"}, patch_mode="AutomaticByOS", enable_hotpatching=False)
    client.force_login(chief)
    fields = {
        "name": "Ring one",
        "starts_on": "2026-11-24",
        "starts_at": "22:00",
        "time_zone": "Tokyo Standard Time",
        "recur_every": "month second tuesday offset4",
        "duration_minutes": "120",
        "classifications": ["Critical", "Security"],
        "reboot_setting": "IfRequired",
        "tag_name": "ring",
        "tag_value": "one",
        "blackouts": "2026-12-24 to 2027-01-06",
    }
    url = reverse("updates:maintenance-create")
    shown = text_of(client.post(url, fields | {"go": "preview"}))
    assert "3 machines match; 2 of them will be patched." in shown
    assert not MaintenanceConfiguration.objects.exists()
    for bad in (
        {"recur_every": "Fortnightly"},
        {"duration_minutes": "30"},
        {"tag_name": ""},
        {"blackouts": "tomorrow"},
        {"time_zone": "Mars"},
        {"classifications": []},
    ):
        assert client.post(url, fields | {"go": "save"} | bad).status_code == 422, bad
    answer = client.post(url, fields | {"go": "save"})
    assert answer.status_code == 302
    row = MaintenanceConfiguration.objects.get()
    assert (row.recur_every, row.blackouts) == ("Month Second Tuesday Offset4", [["2026-12-24", "2027-01-06"]])
    assert client.post(url, fields | {"go": "save"}).status_code == 422, "the name is taken"
    assert "Ring one" in text_of(client.get(reverse("updates:maintenances")))
    about = text_of(client.get(answer["Location"]))
    assert "Every month on the second Tuesday, 4 days later" in about
    assert "Tag: ring" in about
    assert "Value of the tag: one" in about
    assert "Reboot if required" in about
    for nothing in ({}, {"go": "x"}, {"go": "Disable"}):
        client.post(answer["Location"], nothing)
        row.refresh_from_db()
        assert row.is_enabled, nothing
    client.post(answer["Location"], {"go": "disable"})
    row.refresh_from_db()
    assert not row.is_enabled
    client.post(answer["Location"], {"go": "enable"})
    assert "Next windows" in text_of(client.get(answer["Location"]))


def test_a_rollout_is_watched_paused_resumed_and_ended(
    client: Client, operator: User, outsider: User, resource_group: ResourceGroup
) -> None:
    rollout = make(fleet(resource_group, 4), operator)
    advance(rollout)
    url, move = reverse("updates:rollout", args=[rollout.pk]), reverse("updates:rollout-move", args=[rollout.pk])
    client.force_login(operator)
    assert "Wave 1 of 4" in text_of(client.get(url))
    for asked, status in (("pause", "paused"), ("resume", "running"), ("end", "ended")):
        assert client.post(move, {"go": asked}).status_code == 302
        rollout.refresh_from_db()
        assert rollout.status == status
    assert "in another state already" in text_of(client.post(move, {"go": "pause"}, follow=True))
    part = client.get(url, {"state": "skipped"}, headers={"HX-Request": "true", "HX-Target": "rollout"})
    assert part.content.strip().startswith(b'<div id="rollout"')
    assert "Test" in text_of(client.get(reverse("updates:rollouts")))
    client.force_login(outsider)
    assert "Test" not in text_of(client.get(reverse("updates:rollouts")))
    assert client.get(url).status_code == 404


def test_availability_first_on_demand_is_a_rollout(
    client: Client, operator: User, resource_group: ResourceGroup
) -> None:
    import uuid

    vms = fleet(resource_group, 3)
    client.force_login(operator)
    fields = {
        "kind": "installation",
        "vm": [vm.pk for vm in vms],
        "request_id": str(uuid.uuid4()),
        "classifications": ["Security"],
        "reboot_setting": "IfRequired",
        "maximum_minutes": "60",
        "availability_first": "on",
        "go": "review",
    }
    lacking(vms)
    url = reverse("updates:bulk-create")
    fields = fields_of(client.post(url, fields), url) | {"go": "start"}
    for _ in range(2):
        assert "/rollouts/" in client.post(url, fields)["Location"]
    assert Rollout.objects.count() == 1


def test_a_tick_does_all_of_it(resource_group: ResourceGroup) -> None:
    vms = fleet(resource_group, 2)
    lacking(vms)
    VmUpdateState.objects.update(last_assessed_at=NIGHT - timedelta(hours=30))
    tick(now=NIGHT)
    assert Operation.objects.filter(kind="assessment").count() == 2
    rollout = Rollout.objects.get()
    assert rollout.source == "automatic"
    end_operations()
    advance(rollout, NIGHT)
    assert Operation.objects.filter(kind="installation").exists()
