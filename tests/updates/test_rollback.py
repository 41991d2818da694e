"""Rolling back: the run, the history, what Get-HotFix says afterwards, the hold, the pages."""

from __future__ import annotations

import json
import re
import uuid
from datetime import timedelta
from html import unescape
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from patching.rollback import RollbackOrder, RollbackRefusal
from patching.terms import Classification, InstallationPlan
from tests.factories import ConnectionFactory, VirtualMachineFactory
from updates.engine.sweep import sweep
from updates.models import InstalledPatch, KbHold, Operation, Rollout, RolloutSource, VmUpdateState
from updates.selectors.blade import load_picture
from updates.services.operations import RequestVerdict, request_assessments, request_installations
from updates.services.rollback import request_rollback
from updates.services.rollouts import RolloutPlan, advance_rollouts, create_rollout
from vms.models import ResourceGroup, VirtualMachine
from vms.selection import VmSelection

pytestmark = pytest.mark.django_db
EVERYTHING = InstallationPlan(classifications=frozenset(Classification))


@pytest.fixture
def vm(resource_group: ResourceGroup) -> VirtualMachine:
    """On the April 2026 baseline, with the May hotpatch installed on it."""
    call_command("seed_catalogue", verbosity=0)
    connection = ConnectionFactory(clock_factor=1e9, catalogue_date="2026-05-20")
    vm = VirtualMachineFactory(
        name="web-001", resource_group=resource_group, connection=connection, enable_hotpatching=True
    )
    VmUpdateState.objects.create(vm=vm, os_build="20348.5020")
    request_assessments(vm_ids=[vm.pk], requested_by=None)
    run()
    plan = InstallationPlan(classifications=frozenset({Classification.SECURITY}))
    request_installations(vm_ids=[vm.pk], plan=plan, requested_by=None)
    run()
    assert VmUpdateState.objects.get(vm=vm).os_build == "20348.5074"
    return vm


def run() -> None:
    for _ in range(20):
        sweep(seconds=5)
        if not Operation.objects.open().exists():
            return
    raise AssertionError("it does not end")


def text_of(response: Any) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", response.content.decode())))


def hotfixes(vm: VirtualMachine) -> set[str]:
    out = StringIO()
    call_command("get_hotfix", vm.name, "--json", stdout=out)
    return {line["HotFixID"] for line in json.loads(out.getvalue())}


def order_of(user: User, vm: VirtualMachine) -> RollbackOrder:
    found = load_picture(user, vm.pk, now=timezone.now()).rollback
    assert isinstance(found, RollbackOrder)
    return found


def test_a_hotpatch_goes_and_its_baseline_stays(operator: User, vm: VirtualMachine) -> None:
    assert "KB5087424" in hotfixes(vm)
    pk = uuid.uuid4()
    for _ in range(2):  # a double click
        request_rollback(vm_id=vm.pk, order=order_of(operator, vm), requested_by=operator, operation_id=pk)
    assert Operation.objects.filter(kind="rollback").count() == 1
    refused = request_rollback(
        vm_id=vm.pk, order=order_of(operator, vm), requested_by=operator, operation_id=uuid.uuid4()
    )
    assert refused.verdict is RequestVerdict.REFUSED
    run()
    operation = Operation.objects.get(pk=pk)
    assert (operation.state, operation.verification, operation.reboot_status) == ("succeeded", "confirmed", "Completed")
    assert (operation.build_before, operation.build_after) == ("20348.5074", "20348.5020")
    assert list(operation.events.values_list("code", flat=True)) == [
        "operation.requested",
        "operation.starting",
        "operation.started",
        "operation.finished",
    ]
    assert "KB5087424" not in hotfixes(vm)
    assert "KB5082142" in hotfixes(vm)
    assert load_picture(operator, vm.pk, now=timezone.now()).hotpatch_status == "Enabled"


def test_a_baseline_goes_back_to_the_one_before(operator: User, vm: VirtualMachine) -> None:
    for build in ("20348.5020", "20348.4648"):
        request_rollback(vm_id=vm.pk, order=order_of(operator, vm), requested_by=operator, operation_id=uuid.uuid4())
        run()
        assert VmUpdateState.objects.get(vm=vm).os_build == build
    assert set(KbHold.objects.values_list("kb_number", flat=True)) == {"5087424", "5082142"}


def test_what_is_held_back_is_in_no_plan_until_the_hold_is_lifted(
    client: Client, operator: User, vm: VirtualMachine
) -> None:
    request_rollback(vm_id=vm.pk, order=order_of(operator, vm), requested_by=operator, operation_id=uuid.uuid4())
    run()
    request_installations(vm_ids=[vm.pk], plan=EVERYTHING, requested_by=operator)
    installation = Operation.objects.get(kind="installation", state="queued")
    assert installation.payload is not None
    assert installation.payload["kb_numbers_to_exclude"] == ["5087424"]
    run()
    assert "KB5087424" not in hotfixes(vm)
    client.force_login(operator)
    assert "KB5087424 is held back" in text_of(client.get(reverse("updates:blade", args=[vm.pk])))
    lift = reverse("updates:lift", args=[vm.pk])
    assert "The hold was lifted" in text_of(client.post(lift, {"kb": "5087424"}, follow=True))
    for nothing in ("5087424", "KB5087424x", ""):
        assert f"No hold was lifted: “{nothing}”" in text_of(client.post(lift, {"kb": nothing}, follow=True))
    request_installations(vm_ids=[vm.pk], plan=EVERYTHING, requested_by=operator)
    run()
    assert "KB5087424" in hotfixes(vm)


def test_the_page_plans_confirms_and_shows_the_run(client: Client, operator: User, vm: VirtualMachine) -> None:
    client.force_login(operator)
    url = reverse("updates:rollback", args=[vm.pk])
    page = client.get(url)
    assert "Uninstall KB5087424" in text_of(page)
    assert "20348.5020 (baseline KB5082142)" in text_of(page)
    script = text_of(page).partition("By hand, in PowerShell")[2].replace("&#x27;", "'")
    # each package by what it says of itself, never by a pattern that a baseline could match
    assert script.count("$_.Description -eq 'Fix for KB5087424'") == 1
    assert "-match" not in script
    assert "-like" not in script
    assert "RollupFix" not in script
    assert "Fix for KB5082142" not in script
    assert "$found.Count -ne 1" in script
    fields = {"request_id": str(uuid.uuid4()), "name": "another"}
    assert client.post(url, fields).status_code == 422
    assert not Operation.objects.filter(kind="rollback").exists()
    answer = client.post(url, fields | {"name": "WEB-001"})
    assert answer.status_code == 302
    assert client.post(url, fields | {"name": "web-001", "request_id": str(uuid.uuid4())}).status_code == 409
    run()
    shown = text_of(client.get(answer["Location"]))
    assert "Rollback" in shown
    assert "Confirmed" in shown
    history = text_of(client.get(reverse("updates:blade", args=[vm.pk]), {"tab": "history"}))
    assert "Rollback" in history


def test_a_window_that_ends_before_the_work_leaves_the_rest_pending(vm: VirtualMachine) -> None:
    """A configuration's window has 25 minutes left: 10 for an update, 10 for the reboot, and no more fits."""
    now = timezone.now()
    what = RolloutPlan(
        name="late",
        source=RolloutSource.SCHEDULE,
        plan=EVERYTHING,
        is_availability_first=False,
        window_ends_at=now + timedelta(minutes=25),
    )
    rollout = create_rollout(what=what, selection=VmSelection.of([vm.pk]), now=now, created_by=None)
    advance_rollouts(now=now)
    run()
    advance_rollouts(now=now + timedelta(minutes=26))
    operation = Operation.objects.get(vm=vm, is_bulk=True, kind="installation")
    assert operation.is_maintenance_window_exceeded
    assert (operation.state, operation.error_code) == ("failed", "window.exceeded")
    assert set(operation.results.values_list("state", flat=True)) == {"Installed", "Pending"}
    member = rollout.members.get()
    assert (member.status, member.code) == ("failed", "window.exceeded")


def test_no_way_back_says_why(client: Client, operator: User, resource_group: ResourceGroup) -> None:
    call_command("seed_catalogue", verbosity=0)
    new = VirtualMachineFactory(name="new", resource_group=resource_group)
    assert load_picture(operator, new.pk, now=timezone.now()).rollback is RollbackRefusal.UNKNOWN_STATE
    client.force_login(operator)
    url = reverse("updates:rollback", args=[new.pk])
    assert "Which updates are installed is not known" in text_of(client.get(url))
    assert client.post(url, {"name": "new", "request_id": str(uuid.uuid4())}).status_code == 422
    assert not InstalledPatch.objects.filter(vm=new).exists()


def test_many_go_back_in_waves_and_stop_at_the_first_failure(
    client: Client, operator: User, vm: VirtualMachine, resource_group: ResourceGroup
) -> None:
    others = [
        VirtualMachineFactory(
            resource_group=resource_group, connection=vm.connection, enable_hotpatching=True, location=vm.location
        )
        for _ in range(2)
    ]
    new = VirtualMachineFactory(resource_group=resource_group, connection=vm.connection)
    VmUpdateState.objects.bulk_create(VmUpdateState(vm=other, os_build="20348.5074") for other in others)
    request_assessments(vm_ids=[other.pk for other in others], requested_by=None)
    run()
    client.force_login(operator)
    url = reverse("updates:bulk-create")
    fields = {
        "kind": "rollback",
        "vm": [one.pk for one in (vm, *others, new)],
        "request_id": str(uuid.uuid4()),
        "go": "start",
    }
    shown = text_of(client.get(url, {"kind": "rollback", "vm": fields["vm"]}))
    assert "3 KB5087424" in shown
    assert "Which updates are installed is not known, or they do not explain" in shown
    refused = client.post(url, fields | {"confirm": "4"})
    assert refused.status_code == 422
    assert "This is not the number of the machines." in text_of(refused)
    assert not Rollout.objects.exists()
    client.post(url, fields | {"confirm": "3"})
    client.post(url, fields | {"confirm": "3"})  # a double click
    rollout = Rollout.objects.get()
    assert (rollout.kind, rollout.most_failures) == ("rollback", 0)
    now = timezone.now()
    advance_rollouts(now=now)
    assert Operation.objects.filter(kind="rollback").count() == 1, "one at a time of so few"
    run()
    first = Operation.objects.get(kind="rollback")
    assert first.verification == "confirmed"
    for step in range(1, 3):
        advance_rollouts(now=now + timedelta(minutes=step))
    second = Operation.objects.filter(kind="rollback").exclude(pk=first.pk).get()
    Operation.objects.filter(pk=second.pk).update(
        state="failed", finished_at=now, next_step_at=None, error_code="agent.not_ready"
    )
    advance_rollouts(now=now + timedelta(minutes=5))
    rollout.refresh_from_db()
    assert (rollout.status, rollout.reason) == ("paused", "rollout.budget_used")
    assert KbHold.objects.filter(kb_number="5087424").count() == 2
    page = text_of(client.get(reverse("updates:rollout", args=[rollout.pk])))
    assert "Too many machines failed" in page


def test_machines_without_a_way_back_are_skipped_with_their_reason(
    operator: User, vm: VirtualMachine, resource_group: ResourceGroup
) -> None:
    new = VirtualMachineFactory(resource_group=resource_group, connection=vm.connection)
    what = RolloutPlan(name="", source=RolloutSource.ON_DEMAND, plan=None)
    rollout = create_rollout(
        what=what, selection=VmSelection.of([vm.pk, new.pk]), now=timezone.now(), created_by=operator
    )
    for step in range(3):
        advance_rollouts(now=timezone.now() + timedelta(minutes=step))
        run()
    states = dict(rollout.members.values_list("vm_id", "code"))
    assert states == {vm.pk: "", new.pk: "rollback.unknown_state"}
