"""The pages of runs on many machines: what became of each, why, at what gate; retried, run again, without what failed."""

from __future__ import annotations

import re
import uuid
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

from patching.rollout import Gate
from patching.terms import Classification, InstallationPlan, OperationKind
from tests.factories import ConnectionFactory, OperationFactory, PatchFactory, VirtualMachineFactory
from tests.forms import fields_of
from tests.updates.rollouts import PLAN, make
from tests.updates.world import hand_out, lacking
from updates.choices import RunPart
from updates.models import (
    BulkBlock,
    BulkOutcome,
    BulkRequest,
    MemberState,
    Operation,
    Patch,
    PatchResult,
    Rollout,
    RolloutMember,
)
from updates.pictures import gate_words
from updates.plans import plan_to_json
from updates.selectors.bulk import load_bulk
from updates.selectors.rollouts import load_rollout
from updates.selectors.runs import expected_end
from updates.selectors.waits import StartWait
from updates.titles import plan_title, title_of
from vms.models import ResourceGroup, RoleAssignment, VirtualMachine

pytestmark = pytest.mark.django_db
NOW = timezone.now()


def text_of(response: Any) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", response.content.decode())))


def machines(group: ResourceGroup, count: int) -> list[VirtualMachine]:
    row = ConnectionFactory()
    return [VirtualMachineFactory(resource_group=group, connection=row, power_state="running") for _ in range(count)]


def bulk(
    user: User, vms: list[VirtualMachine], *states: tuple[str, str, str], kind: str = "installation"
) -> BulkRequest:
    """A request that has been handed out: for each machine verdict, state and verification."""
    row = BulkRequest.objects.create(
        kind=kind,
        plan=plan_to_json(PLAN) if kind == "installation" else None,
        requested_by=user,
        vm_count=len(vms),
        is_handed_out=True,
    )
    BulkBlock.objects.create(request=row, number=0, vm_ids=[vm.pk for vm in vms])
    for vm, (verdict, state, verification) in zip(vms, states, strict=True):
        operation = None
        if state:
            ended = state in {"succeeded", "completed_with_warnings", "failed", "cancelled"}
            operation = OperationFactory(
                vm=vm,
                kind=kind,
                state=state,
                verification=verification,
                started_at=NOW - timedelta(minutes=12),
                finished_at=NOW if ended else None,
                next_step_at=None if ended else NOW,
                payload=plan_to_json(PLAN) | {"v": 1} if kind == "installation" else None,
            )
        BulkOutcome.objects.create(request=row, vm=vm, verdict=verdict, operation=operation, code="")
    return row


def break_down(operation: Operation | None, kb: str = "", code: str = "") -> None:
    """The operation failed; with a KB, on this update with this code."""
    assert operation is not None
    Operation.objects.filter(pk=operation.pk).update(error_code="patch.failed" if kb else code)
    if kb:
        patch = Patch.objects.filter(kb_number=kb).first() or PatchFactory(kb_number=kb)
        PatchResult.objects.create(operation=operation, patch=patch, state="Failed", error_code=code)


OK, FAILED = ("accepted", "succeeded", "confirmed"), ("accepted", "failed", "not_verifiable")


# --- titles ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "plan", "count", "title"),
    [
        ("installation", InstallationPlan(kb_numbers_to_include=("5087424",)), 12, "Install KB5087424 on 12 machines"),
        (
            "installation",
            InstallationPlan(kb_numbers_to_include=("1", "2", "3", "4")),
            1,
            "Install KB1, KB2 and 2 more on 1 machine",
        ),
        ("installation", PLAN, 1_200, "Install Security updates on 1,200 machines"),
        (
            "installation",
            InstallationPlan(classifications=frozenset(Classification)),
            2,
            "Install all updates on 2 machines",
        ),
        (
            "installation",
            InstallationPlan(classifications=frozenset({Classification.SECURITY}), kb_numbers_to_include=("7",)),
            2,
            "Install Security updates and KB7 on 2 machines",
        ),
        ("installation", None, 2, "Install updates on 2 machines"),
        ("assessment", None, 1, "Assess 1 machine"),
        ("rollback", None, 3, "Roll back 3 machines"),
        ("restart", None, 3, "Restart 3 machines"),
        ("settings", None, 3, "Change settings of 3 machines"),
    ],
)
def test_a_run_is_called_by_its_plan(kind: str, plan: InstallationPlan | None, count: int, title: str) -> None:
    assert plan_title(kind, plan, count) == title


def test_a_plan_that_cannot_be_read_has_a_title_too() -> None:
    assert (
        title_of(BulkRequest(kind="installation", plan={"classifications": 7}, vm_count=2))
        == "Install updates on 2 machines"
    )
    assert title_of(Rollout(kind="installation", plan={}, name="Night of the pilots")) == "Night of the pilots"


# --- a bulk run --------------------------------------------------------------------------------------------------


def test_each_machine_is_in_one_part(operator: User, resource_group: ResourceGroup) -> None:
    states = [
        OK,
        ("joined", "succeeded", "confirmed"),
        ("accepted", "completed_with_warnings", "confirmed"),
        ("accepted", "succeeded", "contradicted"),
        ("accepted", "completed_with_warnings", "contradicted"),
        FAILED,
        ("accepted", "in_progress", ""),
        ("accepted", "rebooting", ""),
        ("accepted", "queued", ""),
        ("accepted", "cancelled", ""),
        ("refused", "", ""),
        ("refused", "in_progress", ""),  # what stands in its way is somebody else's
        ("accepted", "", ""),  # its operation is kept no more
    ]
    row = bulk(operator, machines(resource_group, len(states)), *states)
    page = load_bulk(operator, row.pk, show="", after=0, now=NOW)
    assert page.parts == {
        RunPart.SUCCEEDED: 2,
        RunPart.WITH_WARNINGS: 1,
        RunPart.CONTRADICTED: 2,
        RunPart.FAILED: 1,
        RunPart.RUNNING: 2,
        RunPart.WAITING: 1,
        RunPart.SKIPPED: 4,
    }
    assert page.total == len(states)
    assert (page.refused, page.joined, page.cancelled, page.open) == (2, 1, 1, 3)


def test_a_bulk_run_tells_its_plan_its_machines_and_its_failures(
    page: Client, operator: User, resource_group: ResourceGroup
) -> None:
    row = bulk(operator, machines(resource_group, 4), OK, FAILED, FAILED, ("refused", "", ""))
    good, first, second, refused = (
        BulkOutcome.objects.filter(request=row).order_by("pk").select_related("operation", "vm")
    )
    assert good.operation is not None
    PatchResult.objects.create(operation=good.operation, patch=PatchFactory(kb_number="5087424"), state="Installed")
    Operation.objects.filter(pk=good.operation.pk).update(reboot_status="Completed")
    for outcome in (first, second):
        break_down(outcome.operation, "5082142", "0x80070643")
    BulkOutcome.objects.filter(pk=refused.pk).update(code="vm.unsupported")
    response = page.get(row.get_absolute_url())
    told = text_of(response)
    assert "<title>Install Security updates on 4 machines" in response.content.decode()
    assert "Succeeded 1 Failed 2 Skipped 1" in told
    assert "12 min KB5087424 Completed" in told
    assert "This operating system is not supported." in told
    assert "KB5082142 2 ×" in told
    assert ["Security", "IfRequired"][0] in told
    assert "The plan" in told
    only = {
        row.vm.pk
        for row in page.get(row.get_absolute_url(), {"reason": "0x80070643", "kb": "5082142"}).context["page"].rows
    }
    assert only == {first.vm_id, second.vm_id}
    assert not page.get(row.get_absolute_url(), {"reason": "0x80070643", "kb": "1"}).context["page"].rows
    assert page.get(row.get_absolute_url(), {"reason": "\x00", "kb": "x" * 90}).status_code in {200, 400}
    linked = page.get(reverse("updates:operation", args=[first.operation_id]))
    assert row.get_absolute_url() in linked.content.decode()
    assert "Install Security updates on 4 machines" in text_of(linked)
    assert row.get_absolute_url() in page.get(reverse("updates:history-runs")).content.decode()


def test_only_machines_that_the_reader_sees_are_counted(
    page: Client, operator: User, resource_group: ResourceGroup
) -> None:
    hidden = machines(VirtualMachineFactory().resource_group, 2)
    row = bulk(operator, [*machines(resource_group, 1), *hidden], OK, FAILED, FAILED)
    seen = load_bulk(operator, row.pk, show="", after=0, now=NOW)
    assert (seen.total, seen.failed, seen.reasons, seen.retry) == (1, 0, (), None)
    rollout = make([*machines(resource_group, 1), *hidden], operator, is_availability_first=False)
    told = load_rollout(operator, rollout.pk, state="", now=NOW)
    assert (sum(told.parts.values()), told.removed, len(told.rows)) == (1, 0, 1)
    assert page.get(rollout.get_absolute_url()).status_code == 200


@pytest.mark.parametrize("is_rollout", [False, True])
def test_a_page_costs_the_same_for_ten_machines_and_a_thousand(
    page: Client, operator: User, resource_group: ResourceGroup, is_rollout: bool
) -> None:
    costs = []
    for count in (10, 1_000):
        row = ConnectionFactory()
        vms = VirtualMachine.objects.bulk_create(
            VirtualMachineFactory.build(resource_group=resource_group, connection=row) for _ in range(count)
        )
        ends = [("failed" if number % 2 else "succeeded") for number in range(count)]
        operations = Operation.objects.bulk_create(
            OperationFactory.build(
                vm=vm, connection=row, kind="installation", state=state, finished_at=NOW, next_step_at=None,
                created_at=NOW, started_at=NOW - timedelta(minutes=3), error_code="patch.failed" if state == "failed" else "",
            )
            for vm, state in zip(vms, ends, strict=True)
        )  # fmt: skip
        run: BulkRequest | Rollout
        if is_rollout:
            run = make(list(vms), operator, is_availability_first=False)
            RolloutMember.objects.filter(rollout=run).delete()
            RolloutMember.objects.bulk_create(
                RolloutMember(
                    rollout=run, vm=operation.vm, wave=number % 5, status=operation.state, operation=operation
                )
                for number, operation in enumerate(operations)
            )
            Rollout.objects.filter(pk=run.pk).update(status="finished", finished_at=NOW, next_step_at=None)
        else:
            run = BulkRequest.objects.create(
                kind="installation", plan=plan_to_json(PLAN), requested_by=operator, vm_count=count, is_handed_out=True
            )
            BulkBlock.objects.create(request=run, number=0, vm_ids=[vm.pk for vm in vms])
            BulkOutcome.objects.bulk_create(
                BulkOutcome(request=run, vm=operation.vm, verdict="accepted", operation=operation)
                for operation in operations
            )
        page.get(run.get_absolute_url())
        with CaptureQueriesContext(connection) as captured:
            told = page.get(run.get_absolute_url())
        assert told.context["page"].parts[RunPart.FAILED] == count // 2
        costs.append(len(captured))
    assert costs[0] == costs[1]


# --- a rollout ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        (Gate(1, 4, 0, 5), "1 of 4 = 25 % > 5 %"),
        (Gate(0, 0, 2, 5), "0 of 0 = 0 % ≤ 5 %"),
        (Gate(5, 100, 2, 5), "5 of 100 = 5 % ≤ 5 %"),
        (Gate(51, 1_000, 2, 5), "51 of 1,000 = 5.1 % > 5 %"),
        (Gate(1, 3, 2, 33), "1 of 3 = 33.3 % > 33 %"),
    ],
)
def test_the_arithmetic_of_a_gate_in_words(gate: Gate, words: str) -> None:
    assert gate_words(gate) == words


def settle_members(rollout: Rollout, *statuses: str) -> list[RolloutMember]:
    members = list(RolloutMember.objects.filter(rollout=rollout).order_by("pk"))
    for member, status in zip(members, statuses, strict=True):
        member.status = status
        if status in {"succeeded", "failed"}:
            member.operation = OperationFactory(
                vm=member.vm, kind="installation", state=status, finished_at=NOW, next_step_at=None,
                started_at=NOW - timedelta(minutes=5), error_code="agent.not_ready" if status == "failed" else "",
                payload=plan_to_json(PLAN) | {"v": 1},
            )  # fmt: skip
            member.code = "agent.not_ready" if status == "failed" else ""
        member.save()
    return members


def test_a_paused_rollout_says_why_and_goes_on_without_the_broken_machine(
    page: Client, operator: User, resource_group: ResourceGroup
) -> None:
    rollout = make(machines(resource_group, 5), operator, is_availability_first=False, most_failures=0)
    members = settle_members(rollout, "succeeded", "succeeded", "succeeded", "failed", "waiting")
    Rollout.objects.filter(pk=rollout.pk).update(status="paused", reason="rollout.budget_used", next_step_at=None)
    response = page.get(rollout.get_absolute_url())
    told = text_of(response)
    assert "1 of 4 = 25 % > 5 %" in told
    assert "the rollout stops here" in told
    assert "Resume without 1 machine" in told
    assert "The agent on the machine is not ready." in told or "agent" in told
    assert "Wave 1 3 1 1" in told, "the twin of the picture"
    assert "5 min" in told
    move = reverse("updates:rollout-move", args=[rollout.pk])
    for _ in range(2):  # a double click
        page.post(move, {"go": "resume"})
    rollout.refresh_from_db()
    assert (rollout.status, rollout.forgiven) == ("running", 1)
    told = text_of(page.get(rollout.get_absolute_url()))
    assert "0 of 3 = 0 % ≤ 5 %" in told
    assert "1 more was accepted when it was resumed." in told
    linked = page.get(reverse("updates:operation", args=[members[3].operation_id]))
    assert rollout.get_absolute_url() in linked.content.decode()


def test_a_rollout_has_the_name_that_it_was_given(page: Client, resource_group: ResourceGroup) -> None:
    vms = machines(resource_group, 2)
    lacking(vms, PatchFactory(kb_number="9000001", classification="Security", product_line="ws2022"))
    address = reverse("updates:bulk-create")
    asked = page.get(address, {"kind": "installation", "vm": [vm.pk for vm in vms]})
    typed = {"go": ["review"], "availability_first": ["on"], "rollout_name": ["<b>Pilots & friends</b>"]}
    review = page.post(address, fields_of(asked, address) | typed)
    page.post(address, fields_of(review, address) | {"go": ["start"]})
    rollout = Rollout.objects.get()
    assert rollout.name == "<b>Pilots & friends</b>"
    for address in (rollout.get_absolute_url(), reverse("updates:rollouts"), reverse("updates:history-runs")):
        content = page.get(address).content.decode()
        assert "&lt;b&gt;Pilots &amp; friends&lt;/b&gt;" in content
        assert "<b>Pilots" not in content


def test_what_may_not_be_done_is_not_offered(client: Client, operator: User, resource_group: ResourceGroup) -> None:
    vms = machines(resource_group, 2)
    row = bulk(operator, vms, FAILED, ("accepted", "queued", ""), kind="assessment")
    rollout = make(vms, operator, is_availability_first=False)
    RoleAssignment.objects.filter(user=operator).update(role="reader")
    client.force_login(operator)
    told = client.get(row.get_absolute_url()).content.decode()
    assert reverse("updates:bulk-cancel", args=[row.pk]) not in told
    assert "retry-failed" not in told
    assert (
        reverse("updates:rollout-move", args=[rollout.pk])
        not in client.get(rollout.get_absolute_url()).content.decode()
    )
    run = client.get(
        reverse("updates:operation", args=[Operation.objects.filter(state="failed").get().pk])
    ).content.decode()
    assert "Run again" not in run


# --- once more ---------------------------------------------------------------------------------------------------


def hidden_fields(content: str, address: str) -> dict[str, list[str]]:
    form = content.split(f'action="{address}"', 1)[1].split("</form>", 1)[0]
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form):
        found.setdefault(name, []).append(value)
    found.pop("csrfmiddlewaretoken", None)
    return found


def test_what_failed_is_asked_for_again_once(page: Client, operator: User, resource_group: ResourceGroup) -> None:
    vms = machines(resource_group, 3)
    row = bulk(operator, vms, OK, FAILED, FAILED, kind="assessment")
    content = page.get(row.get_absolute_url()).content.decode()
    assert "Retry 2 failed" in content
    create = reverse("updates:bulk-create")
    fields = hidden_fields(content, create)
    assert fields == {"kind": ["assessment"], "vm": [str(vms[1].pk), str(vms[2].pk)]}
    review = page.post(create, fields)
    assert review.status_code == 200
    assert BulkRequest.objects.count() == 1, "nothing starts by itself"
    sent = fields | {"request_id": str(uuid.uuid4()), "go": "start"}
    for _ in range(2):  # a double click
        assert page.post(create, sent).status_code == 302
    assert BulkRequest.objects.count() == 2
    hand_out()
    assert Operation.objects.filter(state="queued").count() == 2


def test_installations_that_failed_are_reviewed_with_their_plan(
    page: Client, operator: User, resource_group: ResourceGroup
) -> None:
    row = bulk(operator, machines(resource_group, 2), OK, FAILED)
    content = page.get(row.get_absolute_url()).content.decode()
    fields = hidden_fields(content, reverse("updates:bulk-retry"))
    failed = BulkOutcome.objects.get(request=row, operation__state="failed")
    assert fields == {"operation": [str(failed.operation_id)]}
    assert page.post(reverse("updates:bulk-retry"), fields).status_code == 200


def test_a_running_rollout_offers_no_retry(operator: User, resource_group: ResourceGroup) -> None:
    rollout = make(machines(resource_group, 2), operator, is_availability_first=False)
    settle_members(rollout, "failed", "waiting")
    Rollout.objects.filter(pk=rollout.pk).update(kind=OperationKind.RESTART.value)
    assert load_rollout(operator, rollout.pk, state="", now=NOW).retry is None
    Rollout.objects.filter(pk=rollout.pk).update(status="paused", next_step_at=None)
    retry = load_rollout(operator, rollout.pk, state="", now=NOW).retry
    assert retry is not None
    assert (retry.address, retry.count, retry.left_out) == (reverse("updates:bulk-create"), 1, 0)
    assert MemberState.FAILED in RolloutMember.objects.filter(rollout=rollout).values_list("status", flat=True)


def test_a_run_is_reviewed_again_with_its_plan_and_without_what_failed(
    page: Client, operator: User, recorded_catalogue: None, make_vm: Any
) -> None:
    vm = make_vm()
    plan = InstallationPlan(
        classifications=frozenset({Classification.SECURITY}), kb_numbers_to_include=("5084071", "5087424")
    )
    operation = OperationFactory(
        vm=vm, kind="installation", state="failed", finished_at=NOW, next_step_at=None, error_code="patch.failed",
        payload=plan_to_json(plan) | {"v": 1},
    )  # fmt: skip
    break_down(operation, "5087424", "0x80070643")
    shown = page.get(reverse("updates:operation", args=[operation.pk])).content.decode()
    again = f"{reverse('updates:install', args=[vm.pk])}?again={operation.pk}"
    assert f'href="{again}"' in shown
    assert f'href="{again}&amp;without=5087424"' in shown
    assert "Exclude KB5087424 and run again" in text_of(page.get(reverse("updates:operation", args=[operation.pk])))
    same = page.get(again).context["wizard"]
    assert (same.step, same.plan.kb_numbers_to_include, same.plan.kb_numbers_to_exclude) == (
        "review",
        ("5084071", "5087424"),
        (),
    )
    without = page.get(again, {"again": str(operation.pk), "without": ["5087424", "<x>"]}).context["wizard"]
    assert (without.step, without.plan.kb_numbers_to_include) == ("review", ("5084071",))
    assert without.plan.kb_numbers_to_exclude == ("5087424",)
    assert (
        page.get(reverse("updates:install", args=[vm.pk]), {"again": str(uuid.uuid4())}).context["wizard"].step
        == "updates"
    )


def test_nothing_is_left_of_a_plan_without_its_only_update(page: Client, make_vm: Any) -> None:
    plan = InstallationPlan(kb_numbers_to_include=("5087424",))
    operation = OperationFactory(
        vm=make_vm(), kind="installation", state="failed", finished_at=NOW, next_step_at=None,
        payload=plan_to_json(plan) | {"v": 1},
    )  # fmt: skip
    break_down(operation, "5087424", "0x80070643")
    shown = page.get(reverse("updates:operation", args=[operation.pk])).content.decode()
    assert "exclude-and-run" not in shown


# --- the end in sight --------------------------------------------------------------------------------------------


def test_the_end_follows_the_pace_and_no_sooner_than_the_budgets() -> None:
    began = NOW - timedelta(minutes=10)
    wait = StartWait(NOW + timedelta(hours=1), 3_600.0, is_resting=False)
    found = expected_end(ended=5, left=10, since=began, wait=None, now=NOW)
    assert found is not None
    assert found.seconds == pytest.approx(1_200)
    late = expected_end(ended=5, left=10, since=began, wait=wait, now=NOW)
    assert late is not None
    assert late.seconds == 3_600
    assert expected_end(ended=5, left=0, since=began, wait=wait, now=NOW) is None
    assert expected_end(ended=0, left=3, since=began, wait=None, now=NOW) is None


def test_history_retries_what_failed_for_one_reason(
    page: Client, client: Client, operator: User, reader: User, resource_group: ResourceGroup
) -> None:
    vms = machines(resource_group, 3)
    row = bulk(operator, vms, OK, FAILED, FAILED)
    for outcome in BulkOutcome.objects.filter(request=row, operation__state="failed").select_related("operation"):
        break_down(outcome.operation, "5087424", "0x80070643")
    address = reverse("updates:history")
    asked = {"reason": "0x80070643", "kb": "5087424"}
    told = page.get(address, asked)
    retry = told.context["page"].retry
    assert retry.count == 2
    assert "Retry 2 failed" in text_of(told)
    assert page.get(address).context["page"].retry is None
    client.force_login(reader)
    assert client.get(address, asked).context["page"].retry is None
