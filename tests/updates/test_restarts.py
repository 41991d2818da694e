"""Restart now: who is restarted and who is told why not, the run, never twice, the pages for one and for many."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from audit.models import AuditEvent
from connectors.protocol import Capability, ConnectorError, Observation, RestartResult, StartOutcome, StartRequest
from connectors.registry import KINDS
from patching.codes import ErrorCode
from patching.terms import OperationKind, RebootStatus, RunStatus
from tests.connectors.scripted import EVERYTHING, Lying, Scripted
from tests.updates.pages import settle
from tests.updates.world import PLAN, found, hand_out, in_threads, make_due, make_vms, waits_for_reboot
from updates.engine.sweep import sweep
from updates.models import BulkRequest, MaintenanceConfiguration, Operation, Rollout, VmUpdateState
from updates.selectors.restarts import judge_restarts
from updates.services.operations import RequestVerdict, request_assessments, request_installations
from updates.services.restarts import request_restarts
from updates.services.rollouts import advance_rollouts
from vms.models import Connection, VirtualMachine

pytestmark = pytest.mark.django_db


@pytest.fixture
def vm(make_vm: Callable[..., VirtualMachine]) -> VirtualMachine:
    """One of our group behind a simulator that is done at once, waiting for its reboot."""
    vm = make_vm(build="")
    waits_for_reboot(vm)
    return vm


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Connection]:
    """A connection of a kind that can do what this connector can."""

    def make(connector: Any) -> Connection:
        kind = replace(KINDS["simulator"], name="scripted", capabilities=connector.capabilities)
        monkeypatch.setitem(KINDS, "scripted", kind)
        return Connection.objects.create(name="lab", kind="scripted")

    return make


@dataclass
class Busy(Scripted):
    """Takes no assessment while it is busy."""

    is_busy: bool = True

    def take(self, request: StartRequest) -> StartOutcome:
        if self.is_busy and request.kind is OperationKind.ASSESSMENT:
            return ConnectorError(ErrorCode.CONNECTOR_THROTTLED, is_retryable=True, nothing_was_sent=True)
        return super().take(request)


def go(connector: Any) -> None:
    sweep(seconds=0.2, connector_factory=lambda _row, _catalogue: connector)
    make_due()


def text_of(response: Any) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", response.content.decode())))


def restarts() -> list[tuple[str, str, str, str]]:
    rows = Operation.objects.filter(kind="restart").order_by("pk")
    return list(rows.values_list("state", "error_code", "reboot_status", "verification"))


# --- who ---------------------------------------------------------------------------------------------------------


def test_only_machines_that_need_nothing_else_are_restarted(
    make_vm: Callable[..., VirtualMachine], owner: User
) -> None:
    needs, never, old, stopped, silent, well = (make_vm(build="") for _ in range(6))
    waits_for_reboot(needs, old, stopped, silent, well)
    rows = VirtualMachine.objects
    rows.filter(pk=old.pk).update(update_status="no_updates_data")
    rows.filter(pk=stopped.pk).update(power_state="deallocated")
    rows.filter(pk=well.pk).update(is_reboot_pending=False, update_status="no_updates_available")
    VmUpdateState.objects.filter(vm=silent).update(is_awaiting_assessment=True)
    outcomes = request_restarts(
        vm_ids=[one.pk for one in (needs, never, old, stopped, silent, well)], requested_by=owner, is_bulk=True
    )
    assert {outcome.vm_id: outcome.code for outcome in outcomes} == {
        needs.pk: "",
        never.pk: "restart.unknown_state",
        old.pk: "restart.unknown_state",
        stopped.pk: "vm.not_running",
        silent.pk: "vm.awaiting_assessment",
        well.pk: "restart.not_needed",
    }
    assert list(Operation.objects.values_list("vm_id", "kind")) == [(needs.pk, "restart")]


def test_updates_come_first(recorded_catalogue: None, make_vm: Callable[..., VirtualMachine], owner: User) -> None:
    vm = make_vm()
    request_assessments(vm_ids=[vm.pk], requested_by=None)
    settle()
    VirtualMachine.objects.filter(pk=vm.pk).update(is_reboot_pending=True, update_status="reboot_required")
    (outcome,) = request_restarts(vm_ids=[vm.pk], requested_by=owner)
    assert (outcome.verdict, outcome.code) == (RequestVerdict.REFUSED, "restart.updates_first")


def test_judging_costs_the_same_however_many(make_vm: Callable[..., VirtualMachine]) -> None:
    costs = []
    for count in (1, 40):
        vms = [make_vm(build="") for _ in range(count)]
        waits_for_reboot(*vms)
        with CaptureQueriesContext(connection) as captured:
            assert set(judge_restarts([vm.pk for vm in vms], now=timezone.now()).values()) == {None}
        costs.append(len(captured))
    assert costs[0] == costs[1]


def test_a_connection_that_cannot_restart_is_neither_asked_nor_offered(
    client: Client, chief: User, lab: Callable[[Any], Connection]
) -> None:
    (vm,) = make_vms(1, connection=lab(Scripted(capabilities=EVERYTHING - {Capability.RESTART})))
    waits_for_reboot(vm)
    (outcome,) = request_restarts(vm_ids=[vm.pk], requested_by=chief)
    assert outcome.code == "restart.not_supported"
    client.force_login(chief)
    address = reverse("updates:restart", args=[vm.pk])
    assert address not in client.get(reverse("updates:blade", args=[vm.pk])).content.decode()
    page = client.get(address)
    assert "This connection cannot restart machines." in text_of(page)
    assert "restart-now" not in page.content.decode()


# --- the run -----------------------------------------------------------------------------------------------------


def test_it_restarts_and_the_word_changes(vm: VirtualMachine, operator: User) -> None:
    (outcome,) = request_restarts(vm_ids=[vm.pk], requested_by=operator)
    settle()
    assert restarts() == [("succeeded", "", "Completed", "confirmed")]
    vm.refresh_from_db()
    assert not vm.is_reboot_pending
    assert vm.update_status != "reboot_required"
    operation = Operation.objects.get(pk=outcome.operation_id)
    assert list(operation.events.values_list("code", flat=True)) == [
        "operation.requested",
        "operation.starting",
        "operation.started",
        "operation.finished",
    ]
    assert AuditEvent.objects.filter(tag="machine:restart:request").count() == 1


def test_a_reboot_that_hangs_fails_and_an_assessment_is_queued(vm: VirtualMachine) -> None:
    VirtualMachine.objects.filter(pk=vm.pk).update(tags={"simulate": "reboot-hangs"})
    request_restarts(vm_ids=[vm.pk], requested_by=None)
    settle()
    assert restarts() == [("failed", "reboot.failed", "Failed", "not_verifiable")]
    assert Operation.objects.filter(kind="assessment", vm=vm, state="succeeded").exists()
    assert request_restarts(vm_ids=[vm.pk], requested_by=None)[0].verdict is RequestVerdict.ACCEPTED


@pytest.mark.parametrize("is_pending", [False, True])
def test_without_a_look_of_its_own_an_assessment_says_whether_it_helped(
    lab: Callable[[Any], Connection], is_pending: bool
) -> None:
    connector = Busy(seconds=0, capabilities=EVERYTHING - {Capability.FINAL_ASSESSMENT})
    connector.assessment = lambda _r: replace(found(), is_reboot_pending=is_pending)  # type: ignore[method-assign]
    (vm,) = make_vms(1, connection=lab(connector))
    waits_for_reboot(vm)
    request_restarts(vm_ids=[vm.pk], requested_by=None)
    go(connector)
    assert restarts() == [("succeeded", "", "Completed", "pending")]
    assert request_restarts(vm_ids=[vm.pk], requested_by=None)[0].code == "vm.awaiting_assessment"
    connector.is_busy = False
    go(connector)
    assert [row[3] for row in restarts()] == ["contradicted" if is_pending else "confirmed"]
    vm.refresh_from_db()
    assert vm.is_reboot_pending is is_pending


def test_a_restart_that_something_else_made_needless_is_not_sent(lab: Callable[[Any], Connection]) -> None:
    connector = Scripted(seconds=0)
    vms = make_vms(2, connection=lab(connector))
    waits_for_reboot(*vms)
    asked = request_restarts(vm_ids=[vm.pk for vm in vms], requested_by=None)
    VirtualMachine.objects.filter(pk=vms[0].pk).update(is_reboot_pending=False)
    go(connector)
    ends = dict(Operation.objects.filter(kind="restart").values_list("vm_id", "error_code"))
    assert ends == {vms[0].pk: "restart.not_needed", vms[1].pk: ""}
    assert [pk for pk in connector.received if pk in {o.operation_id for o in asked}] == [
        o.operation_id for o in asked if o.vm_id == vms[1].pk
    ]


def test_what_ends_otherwise_is_no_end_of_a_restart(lab: Callable[[Any], Connection]) -> None:
    connector = Lying(capabilities=frozenset({Capability.RESTART}))
    connector.ended = lambda _r: Observation(assessment=found())  # type: ignore[method-assign]
    (vm,) = make_vms(1, connection=lab(connector))
    waits_for_reboot(vm)
    request_restarts(vm_ids=[vm.pk], requested_by=None)
    for _ in range(2):
        go(connector)
    assert [row[0] for row in restarts()] == ["in_progress"]
    Operation.objects.open().update(deadline_at=timezone.now() - timedelta(seconds=1))
    go(connector)
    assert [row[:2] for row in restarts()] == [("failed", "connector.garbage")]


def test_an_end_that_nobody_can_read_is_a_failure(lab: Callable[[Any], Connection]) -> None:
    connector = Scripted(seconds=0)
    connector.ended = lambda _r: Observation(restart=RestartResult(RunStatus.UNKNOWN, RebootStatus.UNKNOWN))  # type: ignore[method-assign]
    (vm,) = make_vms(1, connection=lab(connector))
    waits_for_reboot(vm)
    request_restarts(vm_ids=[vm.pk], requested_by=None)
    go(connector)
    assert [row[:2] for row in restarts()] == [("failed", "connector.garbage")]
    assert VmUpdateState.objects.get(vm=vm).is_awaiting_assessment


@pytest.mark.parametrize(
    "capabilities",
    [EVERYTHING, EVERYTHING - {Capability.IDEMPOTENT_START}, frozenset({Capability.RESTART})],
    ids=["resend", "find", "neither"],
)
def test_a_start_whose_worker_died_restarts_the_machine_once(
    lab: Callable[[Any], Connection], capabilities: frozenset[Capability]
) -> None:
    """The machine got it, and nobody wrote that down."""
    connector = Scripted(seconds=0, capabilities=capabilities)
    (vm,) = make_vms(1, connection=lab(connector))
    waits_for_reboot(vm)
    (outcome,) = request_restarts(vm_ids=[vm.pk], requested_by=None)
    assert outcome.operation_id is not None
    if Capability.IDEMPOTENT_START not in capabilities:
        connector.received[outcome.operation_id] = 1
    Operation.objects.update(state="starting", started_at=timezone.now(), attempts=1)
    make_due()
    for _ in range(3):
        go(connector)
    ends = {row[:2] for row in restarts()}
    told = capabilities & {Capability.IDEMPOTENT_START, Capability.FIND_BY_REQUEST}
    assert ends == {("succeeded", "") if told else ("failed", "start.unconfirmed")}
    assert connector.received[outcome.operation_id] == 1


# --- never twice -------------------------------------------------------------------------------------------------


def test_the_second_request_joins_the_first(vm: VirtualMachine, operator: User, owner: User) -> None:
    pk = uuid.uuid4()
    for _ in range(2):
        (first,) = request_restarts(vm_ids=[vm.pk], requested_by=operator, operation_id=pk)
    (other,) = request_restarts(vm_ids=[vm.pk], requested_by=owner, operation_id=uuid.uuid4())
    assert (first.verdict, other.verdict) == (RequestVerdict.JOINED, RequestVerdict.JOINED)
    assert other.operation_id == pk
    settle()
    (late,) = request_restarts(vm_ids=[vm.pk], requested_by=operator, operation_id=pk)
    assert (late.verdict, late.operation_id) == (RequestVerdict.JOINED, pk), "the form was sent once more"
    (again,) = request_restarts(vm_ids=[vm.pk], requested_by=owner)
    assert again.code == "restart.not_needed"
    assert Operation.objects.filter(kind="restart").count() == 1


def test_it_stands_aside_for_what_changes_the_machine(vm: VirtualMachine, operator: User) -> None:
    request_installations(vm_ids=[vm.pk], plan=PLAN, requested_by=operator)
    (outcome,) = request_restarts(vm_ids=[vm.pk], requested_by=operator)
    assert outcome.code == "conflict.installation_open"


@pytest.mark.django_db(transaction=True)
def test_many_at_once_restart_it_once() -> None:
    (vm,) = make_vms(1)
    waits_for_reboot(vm)

    def ask(_number: int) -> object:
        return request_restarts(vm_ids=[vm.pk], requested_by=None)[0].verdict

    assert sorted(in_threads(6, ask)) == ["accepted", *["joined"] * 5]
    assert Operation.objects.filter(kind="restart").count() == 1


# --- pages -------------------------------------------------------------------------------------------------------


def test_one_machine_by_its_page(page: Client, vm: VirtualMachine, operator: User) -> None:
    address = reverse("updates:restart", args=[vm.pk])
    assert address in page.get(reverse("updates:blade", args=[vm.pk])).content.decode()
    configuration = MaintenanceConfiguration.objects.create(
        name="Nights",
        starts_on="2026-01-01",
        starts_at="22:00",
        time_zone="UTC",
        recur_every="Day",
        plan={},
        blackouts=[[timezone.now().date().isoformat()] * 2],
    )
    configuration.vms.add(vm)
    told = text_of(page.get(address))
    assert "“Nights” has a blackout now" in told
    assert "About 10 min" in told
    assert "Restart Windows; what was installed and waits for it takes effect" in told
    assert page.post(address, {}).status_code == 422
    fields = {"request_id": str(uuid.uuid4()), "reason": "a frozen console"}
    answer = page.post(address, fields)
    assert answer.status_code == 302
    assert page.post(address, fields)["Location"] == answer["Location"], "a double click"
    settle()
    run = text_of(page.get(answer["Location"]))
    assert "Restart" in run
    assert "Completed" in run
    assert Operation.objects.filter(kind="restart").count() == 1
    told = page.get(address)
    assert "No reboot is pending on the machine" in text_of(told)
    assert page.post(address, {"request_id": str(uuid.uuid4())}).status_code == 409


def test_a_reader_is_offered_no_restart(client: Client, reader: User, vm: VirtualMachine) -> None:
    client.force_login(reader)
    address = reverse("updates:restart", args=[vm.pk])
    assert address not in client.get(reverse("updates:blade", args=[vm.pk])).content.decode()
    assert client.get(address).status_code == 403
    assert client.post(address, {"request_id": str(uuid.uuid4())}).status_code == 403
    assert not Operation.objects.exists()


@pytest.mark.parametrize("in_waves", [True, False])
def test_many_machines_by_one_page(page: Client, make_vm: Callable[..., VirtualMachine], in_waves: bool) -> None:
    vms = [make_vm(build="", location="japaneast") for _ in range(3)]
    new = make_vm(build="")
    waits_for_reboot(*vms)
    address = reverse("updates:bulk-create")
    fields = {"kind": "restart", "vm": [vm.pk for vm in (*vms, new)], "request_id": str(uuid.uuid4()), "go": "start"}
    if in_waves:
        fields["availability_first"] = "on"
    told = text_of(page.get(address, {"kind": "restart", "vm": fields["vm"]}))
    assert "3 Will restart 10 min" in told
    assert "Whether a reboot is pending is not known" in told
    assert "Restart 3 machines" in told
    assert page.post(address, fields | {"confirm": "4"}).status_code == 422
    for _ in range(2):  # a double click
        assert page.post(address, fields | {"confirm": "3"}).status_code == 302
    now = timezone.now()
    if in_waves:
        rollout = Rollout.objects.get()
        assert (rollout.kind, rollout.most_failures) == ("restart", 0)
        for step in range(8):
            advance_rollouts(now=now + timedelta(minutes=step))
            settle()
        codes = dict(rollout.members.values_list("vm_id", "code"))
        assert page.get(rollout.get_absolute_url()).status_code == 200
    else:
        bulk = BulkRequest.objects.get()
        assert bulk.kind == "restart"
        hand_out()
        settle()
        codes = dict(bulk.outcomes.values_list("vm_id", "code"))
        assert page.get(bulk.get_absolute_url()).status_code == 200
    assert codes == {vm.pk: "" for vm in vms} | {new.pk: "restart.unknown_state"}
    assert Operation.objects.filter(kind="restart", state="succeeded").count() == 3
    assert not VirtualMachine.objects.filter(is_reboot_pending=True).exists()
