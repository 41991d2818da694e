"""Bulk requests: every VM its answer, nothing twice, nothing lost; the pages; upkeep; the doctor."""

from __future__ import annotations

import codecs
import csv
import io
import threading
import uuid
from collections import Counter
from datetime import timedelta

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from connectors.protocol import Capability
from patching.lifecycle import deadline_after
from patching.terms import CRITICAL_AND_SECURITY, InstallationPlan, OperationKind
from tests.factories import ConnectionFactory, OperationFactory, PatchFactory, VirtualMachineFactory
from tests.forms import fields_of
from tests.updates.world import ScriptedConnector, hand_out, in_threads, lacking, make_due, run
from updates.engine.rows import ClaimedRow
from updates.models import (
    BulkOutcome,
    BulkRequest,
    InstalledPatch,
    KbHold,
    Operation,
    OperationEvent,
    PatchResult,
    Priority,
    VmUpdateState,
)
from updates.services import bulk
from updates.services.bulk import cancel_bulk, hand_out_block, prune_assessments, prune_operations, request_bulk
from vms.choices import Role
from vms.models import Connection, ResourceGroup, VirtualMachine
from vms.selection import VmSelection

pytestmark = pytest.mark.django_db
PLAN = InstallationPlan(classifications=CRITICAL_AND_SECURITY)


def fleet(group: ResourceGroup, count: int) -> list[VirtualMachine]:
    row = ConnectionFactory()
    return [VirtualMachineFactory(resource_group=group, connection=row, name=f"web-{n:03}") for n in range(count)]


def all_of(user: User) -> VmSelection:
    return VmSelection.matching(VirtualMachine.objects.visible_to(user, Role.OPERATOR))


def ask(
    user: User, kind: OperationKind = OperationKind.ASSESSMENT, selection: VmSelection | None = None
) -> BulkRequest:
    plan = PLAN if kind is OperationKind.INSTALLATION else None
    return request_bulk(
        request_id=uuid.uuid4(), kind=kind, selection=selection or all_of(user), plan=plan, requested_by=user
    )


def verdicts(row: BulkRequest) -> dict[str, int]:
    found: dict[str, int] = {}
    for outcome in BulkOutcome.objects.filter(request=row):
        found[outcome.verdict] = found.get(outcome.verdict, 0) + 1
    return found


# --- handing out -------------------------------------------------------------------------------------------------


def test_every_machine_gets_its_own_answer(operator: User, resource_group: ResourceGroup) -> None:
    vms = fleet(resource_group, 10)
    VirtualMachine.objects.filter(pk=vms[0].pk).update(update_status="unsupported")
    VmUpdateState.objects.create(vm=vms[1], is_awaiting_assessment=True)
    OperationFactory(vm=vms[2], kind="installation")
    OperationFactory(vm=vms[3], kind="assessment")
    VirtualMachineFactory(name="not-mine")
    row = ask(operator, OperationKind.INSTALLATION)
    assert hand_out() == 10
    assert verdicts(row) == {"accepted": 7, "refused": 3}
    codes = dict(BulkOutcome.objects.filter(verdict="refused").values_list("vm_id", "code"))
    assert codes == {
        vms[0].pk: "vm.unsupported",
        vms[1].pk: "vm.awaiting_assessment",
        vms[2].pk: "conflict.installation_open",
    }
    row.refresh_from_db()
    assert row.is_handed_out
    assert hand_out() == 0


def test_blocks_continue_where_a_dead_worker_stopped(
    operator: User, resource_group: ResourceGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet(resource_group, 7)
    monkeypatch.setattr(bulk, "BLOCK", 3)
    row = ask(operator)
    block = hand_out_block()
    assert block is not None
    assert block.count == 3  # and then the worker is killed
    row.refresh_from_db()
    assert not row.is_handed_out
    assert hand_out() == 4
    assert verdicts(row) == {"accepted": 7}
    assert Operation.objects.count() == 7


def test_a_role_that_is_taken_away_meanwhile_counts(
    operator: User, resource_group: ResourceGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet(resource_group, 4)
    monkeypatch.setattr(bulk, "BLOCK", 2)
    row = ask(operator)
    hand_out_block()
    operator.roleassignment_set.all().delete()
    hand_out()
    assert verdicts(row) == {"accepted": 2, "refused": 2}
    assert set(BulkOutcome.objects.filter(verdict="refused").values_list("code", flat=True)) == {"role.missing"}


def test_a_request_that_cannot_be_handed_out_blocks_nobody(operator: User, resource_group: ResourceGroup) -> None:
    fleet(resource_group, 2)
    bad = ask(operator, OperationKind.INSTALLATION)
    BulkRequest.objects.filter(pk=bad.pk).update(plan={"classifications": ["nonsense"]})
    good = ask(operator)
    hand_out()
    bad.refresh_from_db()
    assert (bad.error_code, bad.is_handed_out) == ("bulk.failed", True)
    assert verdicts(good) == {"accepted": 2}


def test_the_same_request_twice_is_one(operator: User, resource_group: ResourceGroup) -> None:
    fleet(resource_group, 2)
    pk = uuid.uuid4()
    for _ in range(2):
        request_bulk(
            request_id=pk,
            kind=OperationKind.ASSESSMENT,
            selection=all_of(operator),
            plan=None,
            requested_by=operator,
        )
        hand_out()
    assert (BulkRequest.objects.count(), Operation.objects.count()) == (1, 2)


def test_a_block_costs_the_same_however_many(operator: User, resource_group: ResourceGroup) -> None:
    costs = []
    for count in (2, 100):
        Operation.objects.all().delete()
        VirtualMachine.objects.all().delete()
        fleet(resource_group, count)
        ask(operator, OperationKind.INSTALLATION)
        with CaptureQueriesContext(connection) as captured:
            hand_out()
        costs.append(len(captured))
    assert costs[0] == costs[1]


def test_cancelling_leaves_what_has_started(operator: User, resource_group: ResourceGroup) -> None:
    fleet(resource_group, 3)
    row = ask(operator)
    hand_out()
    running = Operation.objects.first()
    assert running is not None
    Operation.objects.filter(pk=running.pk).update(state="in_progress")
    assert cancel_bulk(request_id=row.pk, requested_by=operator) == 2
    assert sorted(Operation.objects.values_list("state", flat=True)) == ["cancelled", "cancelled", "in_progress"]


# --- beginning at once -------------------------------------------------------------------------------------------


def begun(**fields: object) -> tuple[ClaimedRow, ...]:
    block = hand_out_block(**fields)  # type: ignore[arg-type]
    assert block is not None
    return block.begun


@pytest.mark.parametrize("kind", [OperationKind.ASSESSMENT, OperationKind.INSTALLATION])
def test_what_nothing_stands_before_begins_at_once_as_far_as_there_is_room(
    operator: User, resource_group: ResourceGroup, kind: OperationKind
) -> None:
    vms = fleet(resource_group, 6)
    VmUpdateState.objects.create(vm=vms[0], os_build="20348.5000")
    Connection.objects.update(max_in_flight=4)
    OperationFactory(vm=vms[5], kind="assessment", state="in_progress")
    row = ask(operator, kind)
    rows = begun()
    assert [item.vm_id for item in rows] == [vm.pk for vm in vms[:3]]  # one of four places is taken
    states = dict(BulkOutcome.objects.filter(verdict="accepted").values_list("vm_id", "operation__state"))
    queued = vms[3:] if kind is OperationKind.INSTALLATION else vms[3:5]  # the running assessment is joined
    assert states == dict.fromkeys([vm.pk for vm in vms[:3]], "starting") | {vm.pk: "queued" for vm in queued}
    first = Operation.objects.get(pk=rows[0].pk)
    assert (first.attempts, first.build_before, first.requested_by) == (1, "20348.5000", row.requested_by)
    assert first.started_at == first.created_at
    assert first.next_step_at is not None
    assert first.deadline_at is not None
    assert first.next_step_at - first.created_at == timedelta(seconds=settings.OPERATION_LEASE_SECONDS)
    assert first.deadline_at - first.started_at == deadline_after(kind, PLAN.maximum_duration)
    lines = list(OperationEvent.objects.filter(operation=first).values_list("code", "state"))
    wanted = [("operation.requested", "queued"), ("operation.starting", "starting")]
    assert lines == (wanted if kind is OperationKind.INSTALLATION else [])


def test_what_begins_spends_the_tokens_of_its_connection(operator: User, resource_group: ResourceGroup) -> None:
    fleet(resource_group, 5)
    Connection.objects.update(starts_per_minute=3)
    ask(operator)
    assert len(begun()) == 3
    ask(operator, OperationKind.INSTALLATION)
    assert not begun()


def test_nothing_begins_before_what_waits_for_its_turn(operator: User, resource_group: ResourceGroup) -> None:
    vms = fleet(resource_group, 3)
    OperationFactory(vm=vms[0], priority=Priority.BULK, is_bulk=True, next_step_at=timezone.now())
    ask(operator)
    assert not begun()
    assert set(Operation.objects.values_list("state", flat=True)) == {"queued"}


def test_nothing_begins_on_a_paused_connection_or_on_one_of_another_kind(
    operator: User, resource_group: ResourceGroup
) -> None:
    fleet(resource_group, 2)
    ask(operator)
    assert not begun(connection_kinds=["azure"])
    Operation.objects.all().delete()
    Connection.objects.update(paused_until=timezone.now() + timedelta(minutes=1))
    ask(operator)
    assert not begun(connection_kinds=["simulator"])
    Operation.objects.all().delete()
    Connection.objects.update(paused_until=None)
    ask(operator)
    assert len(begun(connection_kinds=["simulator"])) == 2


def test_a_queued_assessment_makes_room_for_an_installation_that_is_queued(
    operator: User, resource_group: ResourceGroup
) -> None:
    (vm,) = fleet(resource_group, 1)
    OperationFactory(vm=vm, kind="assessment", next_step_at=timezone.now() + timedelta(minutes=1))
    ask(operator, OperationKind.INSTALLATION)
    assert not begun()
    states = dict(Operation.objects.values_list("kind", "state"))
    assert states == {"assessment": "cancelled", "installation": "queued"}


def test_what_is_held_back_on_a_machine_is_out_of_what_begins(operator: User, resource_group: ResourceGroup) -> None:
    held, free = fleet(resource_group, 2)
    KbHold.objects.create(vm=held, kb_number="5084071")
    ask(operator, OperationKind.INSTALLATION)
    connector = ScriptedConnector()
    run(connector)
    excluded = {
        request.vm.vm_id: request.plan.kb_numbers_to_exclude for request in connector.start_order if request.plan
    }
    assert excluded == {held.pk: ("5084071",), free.pk: ()}


def test_one_sweep_carries_a_request_from_the_click_to_the_end(operator: User, resource_group: ResourceGroup) -> None:
    fleet(resource_group, 5)
    row = ask(operator, OperationKind.INSTALLATION)
    connector = ScriptedConnector()
    run(connector)
    assert verdicts(row) == {"accepted": 5}
    assert set(Operation.objects.values_list("state", flat=True)) == {"succeeded"}
    assert sorted(connector.starts.values()) == [1] * 5
    codes = OperationEvent.objects.filter(operation=Operation.objects.first()).values_list("code", flat=True)
    assert list(codes) == ["operation.requested", "operation.starting", "operation.started", "operation.finished"]


def test_what_a_worker_had_begun_when_it_was_killed_is_recovered(operator: User, resource_group: ResourceGroup) -> None:
    """Nobody knows whether it was sent: by the connector that can be asked it is sent again, else nobody sends it."""
    fleet(resource_group, 3)
    ask(operator)
    assert len(begun()) == 3
    connector = ScriptedConnector(capabilities=frozenset({Capability.IDEMPOTENT_START}))
    run(connector)
    assert not connector.starts  # the lease runs
    make_due(Operation.objects.all()[:1])
    run(connector)
    assert sum(connector.starts.values()) == 1
    make_due()
    run(ScriptedConnector())
    codes = Counter(Operation.objects.values_list("state", "error_code"))
    assert codes == {("succeeded", ""): 1, ("failed", "start.unconfirmed"): 2}


@pytest.mark.django_db(transaction=True)
def test_a_worker_waits_for_its_turn_and_not_for_ever(operator: User, resource_group: ResourceGroup) -> None:
    fleet(resource_group, 2)
    row = ask(operator)
    taken, free = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            BulkRequest.objects.select_for_update().get(pk=row.pk)
            taken.set()
            free.wait(10)

    def turns() -> list[int | None]:
        taken.wait(10)
        blocks = [hand_out_block(), hand_out_block(wait_seconds=0.2)]
        threading.Timer(0.2, free.set).start()
        blocks.append(hand_out_block(wait_seconds=30))
        return [None if block is None else block.count for block in blocks]

    _, found = in_threads(2, lambda n: (hold, turns)[n]())
    assert found == [None, None, 2]


@pytest.mark.django_db(transaction=True)
def test_workers_share_a_request_and_start_nothing_twice(
    operator: User, resource_group: ResourceGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet(resource_group, 60)
    monkeypatch.setattr(bulk, "BLOCK", 5)
    row = ask(operator)
    connector = ScriptedConnector()
    in_threads(4, lambda _n: run(connector))
    assert verdicts(row) == {"accepted": 60}
    assert Counter(Operation.objects.values_list("state", flat=True)) == {"succeeded": 60}
    assert set(connector.starts.values()) == {1}


# --- pages -------------------------------------------------------------------------------------------------------


def test_from_the_list_to_the_answers(client: Client, operator: User, resource_group: ResourceGroup) -> None:
    vms = fleet(resource_group, 3)
    lacking(vms, PatchFactory())
    VirtualMachine.objects.filter(pk=vms[0].pk).update(update_status="unsupported")
    client.force_login(operator)
    url = reverse("updates:bulk-create")
    page = client.get(url, {"kind": "installation", "q": "web", "all": "1"})
    assert "3 virtual machines" in page.content.decode()
    page = client.post(url, fields_of(page, url) | {"maximum_minutes": "60", "go": "review"})
    fields = fields_of(page, url) | {"confirm": "2", "go": "start"}
    assert fields["q"] == ["web"]
    assert client.post(reverse("updates:bulk-create"), fields | {"maximum_minutes": "9999"}).status_code == 422
    for _ in range(2):  # a double click
        answer = client.post(reverse("updates:bulk-create"), fields)
        assert answer.status_code == 302
    (row,) = BulkRequest.objects.all()
    hand_out()
    shown = client.get(answer["Location"], {"show": "refused"}).content.decode()
    assert "web-000" in shown
    assert "web-001" not in shown
    polled = {"HX-Request": "true", "HX-Target": "bulk-progress"}
    part = client.get(answer["Location"], headers=polled).content.decode()
    assert part.strip().startswith("<title>● Install Critical, Security updates on 3 machines")
    assert 'hx-trigger="every' in part
    assert "cancel-command" not in part  # it stays as long as something is queued
    assert client.post(reverse("updates:bulk-cancel", args=[row.pk])).status_code == 302
    assert not Operation.objects.filter(state="queued").exists()
    part = client.get(answer["Location"], headers=polled).content.decode()
    assert part.strip().startswith("<title>Install Critical, Security updates on 3 machines")
    assert 'hx-trigger="every' not in part
    assert '<span id="cancel-command" hx-swap-oob="true"></span>' in part
    assert "Cancel what is queued" not in client.get(answer["Location"]).content.decode()


def test_ticked_machines_alone_and_only_where_one_may(
    client: Client, operator: User, reader: User, resource_group: ResourceGroup
) -> None:
    vms = fleet(resource_group, 3)
    client.force_login(operator)
    fields = {"kind": "assessment", "vm": [vms[0].pk], "request_id": str(uuid.uuid4()), "go": "start"}
    for wrong in ("x", 0, "", "１", 2**63, vms[0].pk + 10_000):
        refused = client.post(reverse("updates:bulk-create"), fields | {"vm": [vms[0].pk, wrong]})
        assert refused.status_code == 422, wrong
        assert str(wrong) in refused.content.decode()
    assert not BulkRequest.objects.exists()
    client.post(reverse("updates:bulk-create"), fields)
    hand_out()
    assert list(Operation.objects.values_list("vm_id", flat=True)) == [vms[0].pk]
    row = BulkRequest.objects.get()
    client.force_login(reader)
    assert client.get(reverse("updates:bulk", args=[row.pk])).status_code == 404
    assert client.post(reverse("updates:bulk-cancel", args=[row.pk])).status_code == 404
    shown = client.get(reverse("updates:bulk-create"), {"kind": "assessment", "vm": vms[0].pk}).content.decode()
    assert "No machine here takes an operation from you" in shown
    assert client.post(reverse("updates:bulk-create"), fields | {"request_id": str(uuid.uuid4())}).status_code == 422


def test_a_request_that_everybody_refused_is_finished_and_says_what_it_was_chosen_by(
    client: Client, operator: User, resource_group: ResourceGroup
) -> None:
    vms = fleet(resource_group, 2)
    VirtualMachine.objects.update(update_status="unsupported")
    row = ask(operator, OperationKind.INSTALLATION)
    chosen = {"connection": str(vms[0].connection_id), "update_status": "unsupported"}
    BulkRequest.objects.update(selection={"filters": chosen})
    hand_out()
    client.force_login(operator)
    answer = client.get(reverse("updates:bulk", args=[row.pk]))
    assert (answer.context["page"].refused, answer.context["page"].percent) == (2, 100)
    shown = answer.content.decode()
    told = shown.split("Chosen by")[1].split("</dd>")[0]
    assert told.endswith(f"Update status: Unsupported, Connection: {vms[0].connection.name}"), told


def test_answers_page_through(client: Client, operator: User, resource_group: ResourceGroup) -> None:
    fleet(resource_group, 60)
    row = ask(operator)
    hand_out()
    client.force_login(operator)
    url = reverse("updates:bulk", args=[row.pk])
    first = client.get(url).context["page"]
    second = client.get(url, {"after": first.next_after}).context["page"]
    assert (len(first.rows), len(second.rows), second.next_after) == (50, 10, None)
    assert {row.vm.pk for row in first.rows} & {row.vm.pk for row in second.rows} == set()
    assert client.get(url, {"after": "x", "show": "everything"}).status_code == 200


def test_export_has_what_the_list_has_and_no_formulas(
    client: Client, reader: User, resource_group: ResourceGroup
) -> None:
    fleet(resource_group, 3)
    VirtualMachineFactory(resource_group=resource_group, name="=cmd|'/c calc'!A1")
    VirtualMachineFactory(resource_group=resource_group, name="web-ウェブ", location=" \t＝cmd")
    VirtualMachineFactory(name="web-not-mine")
    client.force_login(reader)
    answer = client.get(reverse("vms:vm-export"))
    rows = list(csv.DictReader(io.StringIO(b"".join(answer).decode("utf-8-sig"))))
    assert [row["name"] for row in rows][-4:] == ["web-000", "web-001", "web-002", "web-ウェブ"]
    assert rows[0]["name"].startswith("'=cmd")
    assert len(rows) == 5
    assert b"".join(client.get(reverse("vms:vm-export"))).startswith(codecs.BOM_UTF8), "Excel reads it as UTF-8"
    assert next(row for row in rows if row["name"] == "web-ウェブ")["location"] == "' \t＝cmd"
    found = b"".join(client.get(reverse("vms:vm-export"), {"q": "web"})).decode()
    assert found.count("\n") == 5
    assert "attachment" in answer["Content-Disposition"]


# --- upkeep ------------------------------------------------------------------------------------------------------


def test_history_beyond_the_setting_goes_in_batches_and_the_rest_stays(resource_group: ResourceGroup) -> None:
    vm = VirtualMachineFactory(resource_group=resource_group)
    old = timezone.now() - timedelta(days=100)
    ended = {"state": "succeeded", "finished_at": old, "next_step_at": None}
    for _ in range(5):
        Operation.objects.filter(pk=OperationFactory(vm=vm, kind="installation").pk).update(created_at=old, **ended)
    fresh = OperationFactory(vm=vm, kind="installation")
    gone = Operation.objects.exclude(pk=fresh.pk).first()
    OperationEvent.objects.create(operation=gone, at=old, code="operation.requested", state="queued")
    patch = PatchFactory()
    PatchResult.objects.create(operation=gone, patch=patch, state="Installed")
    InstalledPatch.objects.create(vm=vm, patch=patch, installed_on=old, installed_by=gone)
    assert prune_operations(keep_days=90, batch=2) == 5
    assert not PatchResult.objects.exists()
    assert not OperationEvent.objects.exists()
    assert InstalledPatch.objects.get().installed_by is None, "what it installed stays"
    assert list(Operation.objects.values_list("pk", flat=True)) == [fresh.pk]
    Operation.objects.filter(pk=fresh.pk).update(created_at=old)
    assert prune_operations(keep_days=90) == 0, "what is open stays, however old"


def test_the_last_three_assessments_stay_and_the_failed_ones(resource_group: ResourceGroup) -> None:
    vm = VirtualMachineFactory(resource_group=resource_group)
    now = timezone.now()
    made = []
    for number in range(6):
        at = now - timedelta(days=number)
        row = OperationFactory(vm=vm, kind="assessment")
        state = "failed" if number == 5 else "succeeded"
        Operation.objects.filter(pk=row.pk).update(created_at=at, finished_at=at, next_step_at=None, state=state)
        made.append(row.pk)
    assert prune_assessments(slice_of_day=vm.pk % 24 + 1) == 0
    assert prune_assessments(slice_of_day=vm.pk % 24) == 2
    assert set(Operation.objects.values_list("pk", flat=True)) == {*made[:3], made[5]}


def test_the_doctor_names_what_is_wrong(resource_group: ResourceGroup, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("doctor")
    assert "Everything is as it should be" in capsys.readouterr().out
    vm = VirtualMachineFactory(resource_group=resource_group, critical_and_security_count=4)
    long_ago = timezone.now() - timedelta(hours=3)
    VmUpdateState.objects.create(vm=vm, is_awaiting_assessment=True, last_assessed_at=long_ago)
    stuck = OperationFactory(vm=vm, kind="installation")
    Operation.objects.filter(pk=stuck.pk).update(next_step_at=long_ago, deadline_at=long_ago)
    waiting = BulkRequest.objects.create(kind="assessment")
    BulkRequest.objects.filter(pk=waiting.pk).update(created_at=long_ago)
    with pytest.raises(CommandError, match="5 kinds of trouble"):
        call_command("doctor")
    out = capsys.readouterr().out
    for code in (
        "operation_overdue",
        "operation_past_deadline",
        "machine_awaits_assessment",
        "assessed_without_patches",
        "bulk_request_waits",
    ):
        assert code in out
    assert str(stuck.pk) in out


def test_an_answer_whose_machine_is_gone_is_found_and_shown_on_no_page(
    client: Client, operator: User, resource_group: ResourceGroup, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, gone = fleet(resource_group, 2)
    row = ask(operator)
    hand_out()
    VirtualMachine.objects.filter(pk=gone.pk).delete()
    assert not BulkOutcome.objects.filter(vm_id=gone.pk).exists()  # removed with its machine
    BulkOutcome.objects.create(request=row, vm_id=gone.pk, verdict="refused", code="vm.unsupported")
    with pytest.raises(CommandError, match="1 kind of trouble"):
        call_command("doctor")
    assert "bulk_answer_without_machine" in capsys.readouterr().out
    client.force_login(operator)
    shown = client.get(reverse("updates:bulk", args=[row.pk])).context["page"].rows
    assert [row.vm.pk for row in shown] == [kept.pk]


def test_a_summary_that_differs_is_found(resource_group: ResourceGroup, capsys: pytest.CaptureFixture[str]) -> None:
    from updates.models import PatchSet

    vm = VirtualMachineFactory(resource_group=resource_group, name="odd", critical_and_security_count=4)
    patch_set = PatchSet.objects.create(digest=b"x" * 32, critical_and_security_count=1)
    VmUpdateState.objects.create(vm=vm, patch_set=patch_set, last_assessed_at=timezone.now())
    with pytest.raises(CommandError, match="1 kind of trouble"):
        call_command("doctor")
    assert "odd" in capsys.readouterr().out
