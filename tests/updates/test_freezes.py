"""Freezes hold at every door: whatever is asked for, whoever asks, nothing begins in one, nor what could run into one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.protocol import Capability
from patching.codes import ErrorCode, RolloutReason
from patching.freezes import Answer, Frozen, judge_start, longest_act
from patching.rollback import RollbackOrder
from patching.terms import Classification, InstallationPlan, OperationKind
from tests.factories import ConnectionFactory, PatchFactory
from tests.updates.rollouts import NIGHT, fleet
from tests.updates.rollouts import PLAN as SECURITY
from tests.updates.world import ScriptedConnector, make_due, run
from updates.engine.sweep import sweep
from updates.models import (
    BulkOutcome,
    Freeze,
    FreezeException,
    MaintenanceConfiguration,
    MemberState,
    Operation,
    PatchSet,
    PatchSetMember,
    Rollout,
    RolloutMember,
    RolloutSource,
    VmUpdateState,
)
from updates.payloads import readable
from updates.plans import plan_to_json
from updates.selectors.freezes import held, hold_ahead, times_to_freezes
from updates.services.automation import open_windows, start_automatic_patching
from updates.services.bulk import hand_out_block, request_bulk
from updates.services.freezes import end_freeze
from updates.services.operations import database_now, request_assessments, request_installations, request_with_payload
from updates.services.rollouts import RolloutPlan, advance_rollouts, create_rollout
from vms.models import ResourceGroup, VirtualMachine
from vms.selection import VmSelection

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
PLAN = InstallationPlan(classifications=frozenset({Classification.SECURITY}), maximum_duration=HOUR)
ORDER = RollbackOrder(("5034129",), "5034120", "20348.1", must_install_target=False)


def freeze(begins: timedelta, ends: timedelta, **fields: Any) -> Freeze:
    """A freeze of the whole fleet, from and to so long from now."""
    now = database_now()
    values = {"name": "New Year", "time_zone": "UTC", "is_for_all": "scope" not in fields} | fields
    return Freeze.objects.create(begins_at=now + begins, ends_at=now + ends, **values)


def excepted(row: Freeze, *vms: VirtualMachine, expires: timedelta, **fields: Any) -> FreezeException:
    one = FreezeException.objects.create(freeze=row, reason="urgent", expires_at=database_now() + expires, **fields)
    one.vms.set(vms)
    return one


@pytest.fixture
def vm(resource_group: ResourceGroup) -> VirtualMachine:
    (found,) = fleet(resource_group, 1, connection=ConnectionFactory(clock_factor=1e9))
    return found


def refused(vm: VirtualMachine, **fields: Any) -> str:
    (outcome,) = request_installations(vm_ids=[vm.pk], plan=PLAN, requested_by=None, **fields)
    return outcome.code


# --- which machines ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "is_meant"),
    [
        ({"location": "Japan East"}, True),
        ({"location": "westus"}, False),
        ({"tag_name": "Ring", "tag_value": "1"}, True),
        ({"tag_name": "Ring", "tag_value": "2"}, False),
        ({"location": "japaneast", "tag_name": "ring"}, True),
        # what cannot be read holds every machine
        ({"region": "westus"}, True),
        (["westus"], True),
        ({"location": 7}, True),
    ],
)
def test_a_freeze_holds_the_machines_of_its_scope_and_all_where_it_cannot_be_read(
    vm: VirtualMachine, scope: Any, is_meant: bool
) -> None:
    VirtualMachine.objects.filter(pk=vm.pk).update(tags={"ring": "1"})
    freeze(-HOUR, HOUR, scope=scope)
    assert refused(vm) == (ErrorCode.FREEZE_HELD if is_meant else "")


def test_what_only_looks_and_what_only_says_how_are_not_held(vm: VirtualMachine) -> None:
    freeze(-HOUR, HOUR)
    (assessed,) = request_assessments(vm_ids=[vm.pk], requested_by=None)
    assert assessed.code == ""
    (changed,) = request_with_payload(
        kind=OperationKind.SETTINGS, vm_ids=[vm.pk], payload=vm.desired, requested_by=None
    )
    assert changed.code == ""
    make_due()
    sweep(seconds=5)
    assert not Operation.objects.filter(state="queued", kind="assessment").exists()


def test_exceptions_let_through_what_they_name_until_they_expire(
    vm: VirtualMachine, resource_group: ResourceGroup
) -> None:
    (other,) = fleet(resource_group, 1)
    row = freeze(-HOUR, 5 * HOUR)
    one = excepted(row, vm, expires=2 * HOUR)
    assert (refused(vm), refused(other)) == ("", ErrorCode.FREEZE_HELD)
    # what could run beyond the exception is held
    Operation.objects.all().delete()
    FreezeException.objects.filter(pk=one.pk).update(expires_at=database_now() + HOUR / 2)
    assert refused(vm) == ErrorCode.FREEZE_HELD
    hold = hold_ahead(vm.pk, now=database_now())
    assert hold is not None
    assert (hold.answer, hold.names) == (Answer.RUNS_INTO, ("New Year",))
    # one that was ended, or cannot be read, lets nothing through
    FreezeException.objects.filter(pk=one.pk).update(expires_at=row.ends_at, ended_at=database_now())
    assert refused(vm) == ErrorCode.FREEZE_HELD
    excepted(row, expires=5 * HOUR, scope={"region": "japaneast"})
    assert refused(vm) == ErrorCode.FREEZE_HELD
    excepted(row, expires=5 * HOUR, scope={"location": "japaneast"})
    assert refused(vm) == ""


def test_a_freeze_that_was_ended_holds_no_more(vm: VirtualMachine) -> None:
    freeze(-HOUR, HOUR, ended_at=database_now())
    assert refused(vm) == ""


def test_a_machine_that_is_not_there_is_held(vm: VirtualMachine) -> None:
    freeze(-HOUR, HOUR)
    assert held([0], kind=OperationKind.INSTALLATION, payload=PLAN, now=database_now()).keys() == {0}


def test_nothing_is_read_of_the_fleet_while_no_freeze_is_near(
    vm: VirtualMachine, django_assert_num_queries: Callable[[int], Any]
) -> None:
    freeze(30 * HOUR, 40 * HOUR)
    with django_assert_num_queries(1):
        assert times_to_freezes([vm.pk], now=timezone.now()) == {}


# --- every door --------------------------------------------------------------------------------------------------


@pytest.fixture
def actor(operator: User) -> User:
    return operator


def install_now(vm: VirtualMachine, actor: User) -> None:
    request_installations(vm_ids=[vm.pk], plan=PLAN, requested_by=actor, operation_id=uuid4())


def roll_back(vm: VirtualMachine, actor: User) -> None:
    request_with_payload(kind=OperationKind.ROLLBACK, vm_ids=[vm.pk], payload=ORDER, requested_by=actor)


def ask_in_bulk(vm: VirtualMachine, actor: User) -> None:
    request_bulk(
        request_id=uuid4(),
        kind=OperationKind.INSTALLATION,
        selection=VmSelection.of([vm.pk]),
        plan=PLAN,
        requested_by=actor,
    )
    hand_out_block()


def roll_out(vm: VirtualMachine, actor: User) -> None:
    now = database_now()
    what = RolloutPlan(name="r", source=RolloutSource.ON_DEMAND, plan=PLAN)
    create_rollout(what=what, selection=VmSelection.of([vm.pk]), now=now, created_by=actor)
    advance_rollouts(now=now)


def catch_up(vm: VirtualMachine, actor: User) -> None:
    now = database_now()
    what = RolloutPlan(
        name="c",
        source=RolloutSource.SCHEDULE,
        plan=PLAN,
        window_ends_at=now - HOUR,
        catch_up_until=now + 10 * HOUR,
    )
    row = create_rollout(what=what, selection=VmSelection.of([vm.pk]), now=now, created_by=None)
    RolloutMember.objects.filter(rollout=row).update(status=MemberState.CATCHING_UP)
    advance_rollouts(now=now)


def open_a_window(vm: VirtualMachine, actor: User) -> None:
    now = database_now()
    opens_at = now.replace(second=0, microsecond=0)
    row = MaintenanceConfiguration.objects.create(
        name=str(uuid4()),
        starts_on=opens_at.date(),
        starts_at=opens_at.time(),
        time_zone="UTC",
        recur_every="Day",
        plan=plan_to_json(SECURITY),
        next_run_at=opens_at,
    )
    row.vms.add(vm)
    assert open_windows(now=now)
    advance_rollouts(now=now)


def patch_automatically(vm: VirtualMachine, actor: User) -> None:
    now = database_now()
    what = RolloutPlan(name="a", source=RolloutSource.AUTOMATIC, plan=PLAN)
    create_rollout(what=what, selection=VmSelection.of([vm.pk]), now=now, created_by=None)
    advance_rollouts(now=now)


Door = Callable[[VirtualMachine, User], None]
DOORS: list[Door] = [
    install_now,
    roll_back,
    ask_in_bulk,
    roll_out,
    catch_up,
    open_a_window,
    patch_automatically,
]


def take_out_of_the_queue(vm: VirtualMachine) -> None:
    """Play the worker once: what is queued, and what a worker that died has left in `starting`, may begin."""
    make_due()
    sweep(seconds=5)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    begins=st.integers(-300, 300),
    length=st.integers(1, 600),
    excepted_for=st.none() | st.integers(-200, 400),
    is_queued_before=st.booleans(),
)
def test_no_door_begins_an_act_in_a_freeze(
    vm: VirtualMachine,
    actor: User,
    door: Door,
    begins: int,
    length: int,
    excepted_for: int | None,
    is_queued_before: bool,
) -> None:
    """Asked for in a freeze or before it was made: what begins is in no freeze, and has ended when one begins."""
    with transaction.atomic():
        if is_queued_before:
            door(vm, actor)
        row = freeze(begins * MINUTE + MINUTE / 2, (begins + length) * MINUTE + MINUTE / 2)
        if excepted_for is not None:
            excepted(row, vm, expires=excepted_for * MINUTE + MINUTE / 2)
        if not is_queued_before:
            door(vm, actor)
        now = database_now()
        take_out_of_the_queue(vm)
        until = FreezeException.objects.get().expires_at if excepted_for is not None else None
        frozen = [Frozen(row.begins_at, row.ends_at, row.name, until if until and until > now else None)]
        begun = acts().exclude(started_at=None)
        # a bulk request may begin at once what it asks for: that was before the freeze was made
        for one in begun.filter(started_at__gte=row.created_at):
            assert judge_start(frozen, now=one.started_at, longest=longest_act(readable(one.kind, one.payload))) is None
        if judge_start(frozen, now=now, longest=5 * HOUR) is None:
            assert begun.exists(), "nothing is held for nothing"
        transaction.set_rollback(True)


def acts() -> QuerySet[Operation]:
    return Operation.objects.exclude(kind=OperationKind.ASSESSMENT.value)


def test_automatic_patching_takes_no_machine_that_is_frozen(resource_group: ResourceGroup) -> None:
    frozen, free = vms = fleet(resource_group, 2)
    patches = PatchSet.objects.create(digest=b"l" * 32, critical_and_security_count=1)
    PatchSetMember.objects.create(patch_set=patches, patch=PatchFactory(kb_number="5087424", classification="Security"))
    for vm in vms:
        VmUpdateState.objects.create(vm=vm, patch_set=patches, last_assessed_at=timezone.now())
    VirtualMachine.objects.filter(pk__in=[vm.pk for vm in vms]).update(critical_and_security_count=1)
    row = Freeze.objects.create(
        name="x", begins_at=NIGHT - HOUR, ends_at=NIGHT + HOUR, time_zone="UTC", scope={"tag_name": "ring"}
    )
    VirtualMachine.objects.filter(pk=frozen.pk).update(tags={"ring": "1"})
    (rollout,) = start_automatic_patching(now=NIGHT)
    assert list(rollout.members.values_list("vm_id", flat=True)) == [free.pk]
    Rollout.objects.all().delete()
    Freeze.objects.filter(pk=row.pk).update(is_for_all=True, scope={})
    assert start_automatic_patching(now=NIGHT) == []


# --- while it waits ----------------------------------------------------------------------------------------------


def test_what_was_queued_before_waits_and_starts_when_it_may(vm: VirtualMachine, actor: User) -> None:
    install_now(vm, actor)
    row = freeze(HOUR / 2, 9 * HOUR)
    take_out_of_the_queue(vm)
    waiting = acts().get()
    assert waiting.state == "queued"
    assert waiting.next_step_at is not None
    assert MINUTE < waiting.next_step_at - database_now() <= 5 * MINUTE, "it is asked about again soon"
    end_freeze(freeze_id=row.pk, now=database_now(), ended_by=actor)
    take_out_of_the_queue(vm)
    assert acts().get().started_at is not None


@pytest.mark.parametrize(
    "capabilities",
    [
        frozenset({Capability.IDEMPOTENT_START}),
        frozenset({Capability.IDEMPOTENT_START, Capability.FIND_BY_REQUEST}),
        frozenset({Capability.FIND_BY_REQUEST}),
    ],
    ids=lambda found: " ".join(sorted(found)),
)
def test_a_start_of_a_worker_that_died_is_not_sent_again_in_a_freeze(
    vm: VirtualMachine, actor: User, capabilities: frozenset[Capability]
) -> None:
    install_now(vm, actor)
    past = database_now() - HOUR
    acts().update(state="starting", started_at=past, attempts=1, deadline_at=past + 5 * HOUR, next_step_at=past)
    freeze(-HOUR / 2, 9 * HOUR)
    machine = ScriptedConnector(capabilities=capabilities)
    for _ in range(3):
        make_due()
        run(machine)
    assert {request.kind for request in machine.start_order} <= {OperationKind.ASSESSMENT}
    # `find` says that it never arrived: it waits in the queue. A connector without `find`: it ends unconfirmed
    can_find = Capability.FIND_BY_REQUEST in capabilities
    assert acts().get().state == ("queued" if can_find else "failed")


def test_a_rollout_waits_says_why_and_gives_the_time_that_is_left(vm: VirtualMachine, actor: User) -> None:
    row = freeze(-HOUR, 9 * HOUR)
    roll_out(vm, actor)
    rollout, member = Rollout.objects.get(), RolloutMember.objects.get()
    assert (rollout.reason, member.status, member.code) == (
        RolloutReason.FROZEN,
        MemberState.WAITING,
        RolloutReason.FROZEN,
    )
    assert not acts().exists()
    Freeze.objects.filter(pk=row.pk).update(begins_at=database_now() + HOUR / 2 + MINUTE / 2)
    Rollout.objects.update(next_step_at=database_now())
    advance_rollouts(now=database_now())
    (operation,) = acts()
    assert readable(operation.kind, operation.payload).maximum_duration == 25 * MINUTE
    member.refresh_from_db()
    assert (member.status, member.code) == (MemberState.STARTED, "")
    # it has not been sent when the freeze comes: it is taken back, and waits for its turn
    Freeze.objects.filter(pk=row.pk).update(begins_at=database_now() - MINUTE)
    Rollout.objects.update(next_step_at=database_now())
    advance_rollouts(now=database_now())
    member.refresh_from_db()
    assert (member.status, member.code, acts().get().state) == (MemberState.WAITING, RolloutReason.FROZEN, "cancelled")


def test_a_window_that_ends_in_a_freeze_says_so_of_each_machine(vm: VirtualMachine, actor: User) -> None:
    row = freeze(-HOUR, 9 * HOUR)
    open_a_window(vm, actor)
    rollout = Rollout.objects.get()
    assert rollout.window_ends_at is not None
    Rollout.objects.update(next_step_at=rollout.window_ends_at)
    advance_rollouts(now=rollout.window_ends_at)
    advance_rollouts(now=rollout.window_ends_at + HOUR)
    member = RolloutMember.objects.get()
    assert (member.status, member.code) == (MemberState.SKIPPED, RolloutReason.FROZEN)
    assert row.name


def test_a_bulk_request_answers_each_machine_that_is_frozen(vm: VirtualMachine, actor: User) -> None:
    freeze(-HOUR, HOUR, scope={"location": "japaneast"})
    ask_in_bulk(vm, actor)
    (outcome,) = BulkOutcome.objects.all()
    assert (outcome.verdict, outcome.code) == ("refused", ErrorCode.FREEZE_HELD)


def test_a_machine_that_thaws_says_no_more_that_it_is_frozen(vm: VirtualMachine, actor: User) -> None:
    row = freeze(-HOUR, 9 * HOUR)
    roll_out(vm, actor)
    # something else stands in its way by then
    VmUpdateState.objects.create(vm=vm, is_awaiting_assessment=True)
    end_freeze(freeze_id=row.pk, now=database_now(), ended_by=actor)
    Rollout.objects.update(next_step_at=database_now())
    advance_rollouts(now=database_now())
    member = RolloutMember.objects.get()
    assert (member.status, member.code) == (MemberState.SKIPPED, ErrorCode.VM_AWAITING_ASSESSMENT)
