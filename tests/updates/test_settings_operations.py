"""A change of patch settings is an operation: it ends at the machine, and what the machine reports is kept beside it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from connectors.protocol import Capability
from connectors.registry import KINDS
from patching.terms import Classification, InstallationPlan, OperationKind, RebootSetting
from tests.factories import ConnectionFactory, VirtualMachineFactory
from tests.forms import text_of
from tests.updates.world import make_due
from updates.engine.claim import claim_due
from updates.engine.sweep import sweep
from updates.models import Operation, OperationEvent
from updates.payloads import decode
from updates.selectors.activity import load_activity
from updates.services.operations import (
    RequestVerdict,
    cancel_operations,
    request_assessments,
    request_installations,
)
from updates.services.settings import apply_settings_again, change_settings
from vms.models import ResourceGroup, SettingsEvent, VirtualMachine
from vms.selection import VmSelection
from vms.services.settings import Refusal, SettingsChange, SettingsVerdict, accept_settings, record_settings

pytestmark = pytest.mark.django_db
NEVER = SettingsChange(reboot_setting=RebootSetting.NEVER)
ALWAYS = SettingsChange(reboot_setting=RebootSetting.ALWAYS)
HOTPATCH_OFF = SettingsChange(enable_hotpatching=False)


@pytest.fixture
def vm(resource_group: ResourceGroup) -> VirtualMachine:
    return VirtualMachineFactory(
        name="web-001", resource_group=resource_group, connection=ConnectionFactory(clock_factor=1e9)
    )


def change(user: User, what: SettingsChange, *vms: VirtualMachine) -> list[Any]:
    return change_settings(selection=VmSelection.of([vm.pk for vm in vms]), change=what, changed_by=user)


def settle() -> None:
    """Let everything that is open end."""
    for _ in range(12):
        make_due()
        sweep(seconds=5)
        if not Operation.objects.open().exists():
            return
    raise AssertionError("something never ends")


def operations(vm: VirtualMachine) -> list[Operation]:
    return list(Operation.objects.filter(vm=vm, kind=OperationKind.SETTINGS.value).order_by("created_at"))


# --- it ends at the machine -------------------------------------------------------------------------------------------


def test_a_change_ends_at_the_machine_and_not_before(owner: User, vm: VirtualMachine) -> None:
    (outcome,) = change(owner, HOTPATCH_OFF, vm)
    assert outcome.verdict is SettingsVerdict.CHANGED
    vm.refresh_from_db()
    assert vm.enable_hotpatching is True, "nothing has reached the machine yet"
    assert vm.desired.enable_hotpatching is False
    (operation,) = operations(vm)
    assert (operation.state, operation.requested_by) == ("queued", owner)
    settle()
    vm.refresh_from_db()
    operation.refresh_from_db()
    assert (operation.state, operation.error_code) == ("succeeded", "")
    assert vm.enable_hotpatching is False
    assert vm.desired_settings is None
    assert vm.hotpatch_status == "Disabled" or vm.hotpatch_status == "PendingEvaluation"
    assert vm.are_words_due
    codes = list(OperationEvent.objects.filter(operation=operation).values_list("code", flat=True))
    assert codes[0] == "operation.requested"
    assert codes[-1] == "operation.finished"
    assert SettingsEvent.objects.filter(pgh_obj=vm).count() == 1


def test_what_changes_at_a_machine_is_told_of_the_person_who_asked(
    owner: User, chief: User, vm: VirtualMachine
) -> None:
    other = VirtualMachineFactory(resource_group=vm.resource_group, connection=vm.connection)
    change(owner, HOTPATCH_OFF, vm)
    change(chief, NEVER, other)
    settle()
    nobody = replace(vm.patch_settings, reboot_setting=RebootSetting.ALWAYS)
    record_settings(reported={other.pk: nobody})
    for row, people in ((vm, ["owner"]), (other, ["", "chief"])):
        row.refresh_from_db()
        assert [entry.by for entry in load_activity(row) if entry.kind == "settings"] == people, row.name


def test_a_stopped_machine_takes_its_settings_too(owner: User, vm: VirtualMachine) -> None:
    VirtualMachine.objects.update(power_state="deallocated", update_status="unsupported")
    change(owner, NEVER, vm)
    settle()
    vm.refresh_from_db()
    assert vm.reboot_setting == "Never"


def test_a_second_change_while_one_waits_is_what_it_sends(owner: User, chief: User, vm: VirtualMachine) -> None:
    change(owner, NEVER, vm)
    (outcome,) = change(chief, HOTPATCH_OFF, vm)
    assert outcome.verdict is SettingsVerdict.CHANGED
    assert outcome.before.reboot_setting is RebootSetting.NEVER, "it changes what the machine shall have"
    (operation,) = operations(vm)
    assert decode(OperationKind.SETTINGS, operation.payload) == outcome.after
    assert operation.requested_by == chief
    assert OperationEvent.objects.filter(operation=operation, code="settings.replaced").exists()
    (again,) = change(chief, HOTPATCH_OFF, vm)
    assert again.verdict is SettingsVerdict.UNCHANGED
    settle()
    vm.refresh_from_db()
    assert (vm.reboot_setting, vm.enable_hotpatching, vm.desired_settings) == ("Never", False, None)


def test_a_change_back_while_one_waits_leaves_the_machine_as_it_was(owner: User, vm: VirtualMachine) -> None:
    change(owner, NEVER, vm)
    change(owner, SettingsChange(reboot_setting=RebootSetting.IF_REQUIRED), vm)
    vm.refresh_from_db()
    assert vm.desired_settings is None
    settle()
    vm.refresh_from_db()
    assert vm.reboot_setting == "IfRequired"


def test_a_change_while_another_is_sent_is_refused_and_changes_nothing(owner: User, vm: VirtualMachine) -> None:
    change(owner, NEVER, vm)
    make_due()
    claim_due(priorities=[0, 1, 2])
    (outcome,) = change(owner, HOTPATCH_OFF, vm)
    assert (outcome.verdict, outcome.refusal) == (SettingsVerdict.REFUSED, Refusal.OPERATION_OPEN)
    vm.refresh_from_db()
    assert vm.desired.enable_hotpatching is True


def test_it_conflicts_and_waits_as_an_installation_does(owner: User, vm: VirtualMachine) -> None:
    plan = InstallationPlan(classifications=frozenset({Classification.SECURITY}))
    request_installations(vm_ids=[vm.pk], plan=plan, requested_by=owner)
    (outcome,) = change(owner, NEVER, vm)
    assert outcome.refusal is Refusal.OPERATION_OPEN
    cancel_operations(operation_ids=list(Operation.objects.values_list("pk", flat=True)), requested_by=owner)
    (queued,) = request_assessments(vm_ids=[vm.pk], requested_by=owner)
    (outcome,) = change(owner, NEVER, vm)
    assert outcome.verdict is SettingsVerdict.CHANGED
    assert Operation.objects.get(pk=queued.operation_id).state == "cancelled"
    (refused,) = request_installations(vm_ids=[vm.pk], plan=plan, requested_by=owner)
    assert (refused.verdict, refused.code) == (RequestVerdict.REFUSED, "conflict.installation_open")


def test_a_killed_worker_sends_it_again_and_it_ends_once(owner: User, vm: VirtualMachine) -> None:
    change(owner, NEVER, vm)
    make_due()
    claim_due(priorities=[0, 1, 2])  # and the worker dies
    (operation,) = operations(vm)
    assert operation.state == "starting"
    settle()
    operation.refresh_from_db()
    vm.refresh_from_db()
    assert (operation.state, vm.reboot_setting, vm.desired_settings) == ("succeeded", "Never", None)


@pytest.mark.parametrize("misfortune", ["agent-not-ready", "unreachable"])
def test_a_change_that_does_not_arrive_stays_wanted(owner: User, vm: VirtualMachine, misfortune: str) -> None:
    VirtualMachine.objects.update(tags={"simulate": misfortune})
    change(owner, NEVER, vm)
    settle()
    (operation,) = operations(vm)
    vm.refresh_from_db()
    assert operation.state == "failed"
    assert (vm.reboot_setting, vm.desired.reboot_setting) == ("IfRequired", RebootSetting.NEVER)
    VirtualMachine.objects.update(tags={})
    outcome = apply_settings_again(vm_id=vm.pk, requested_by=owner)
    assert outcome is not None
    assert outcome.verdict is RequestVerdict.ACCEPTED
    settle()
    vm.refresh_from_db()
    assert (vm.reboot_setting, vm.desired_settings) == ("Never", None)
    assert apply_settings_again(vm_id=vm.pk, requested_by=owner) is None


def test_a_run_that_never_ends_is_silent_and_the_machine_is_looked_at(owner: User, vm: VirtualMachine) -> None:
    VirtualMachine.objects.update(tags={"simulate": "silent"})
    change(owner, NEVER, vm)
    make_due()
    sweep(seconds=5)
    (operation,) = operations(vm)
    assert operation.state == "in_progress"
    Operation.objects.update(deadline_at=timezone.now() - timedelta(minutes=1))
    make_due()
    sweep(seconds=5)
    operation.refresh_from_db()
    assert (operation.state, operation.error_code) == ("failed", "connector.silent")
    (outcome,) = change(owner, ALWAYS, vm)
    assert outcome.refusal is Refusal.AWAITING_ASSESSMENT
    assert Operation.objects.open().filter(vm=vm, kind="assessment").exists()


def test_a_connection_without_the_capability_says_so(
    owner: User, vm: VirtualMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = KINDS["simulator"]
    able = simulator.capabilities - {Capability.SETTINGS}
    monkeypatch.setitem(KINDS, "simulator", replace(simulator, capabilities=able))
    (outcome,) = change(owner, NEVER, vm)
    assert outcome.refusal is Refusal.NOT_SUPPORTED
    record_settings(reported={vm.pk: replace(vm.patch_settings, reboot_setting=RebootSetting.NEVER)})
    assert apply_settings_again(vm_id=vm.pk, requested_by=owner) is None
    assert not Operation.objects.exists()


# --- changes behind our back ------------------------------------------------------------------------------------------


def drifted(vm: VirtualMachine) -> None:
    """Somebody changes the reboot setting on the machine, and an assessment sees it."""
    VirtualMachine.objects.filter(pk=vm.pk).update(tags={"simulate": "settings-changed"})
    request_assessments(vm_ids=[vm.pk], requested_by=None)
    settle()
    VirtualMachine.objects.filter(pk=vm.pk).update(tags={})
    vm.refresh_from_db()


def test_a_change_behind_our_back_shows_as_a_difference_until_it_is_applied_again(
    owner: User, vm: VirtualMachine
) -> None:
    drifted(vm)
    assert (vm.reboot_setting, vm.desired.reboot_setting) == ("Never", RebootSetting.IF_REQUIRED)
    request_assessments(vm_ids=[vm.pk], requested_by=None)
    settle()
    vm.refresh_from_db()
    assert vm.desired.reboot_setting is RebootSetting.IF_REQUIRED, "what is wanted is not forgotten"
    apply_settings_again(vm_id=vm.pk, requested_by=owner)
    settle()
    vm.refresh_from_db()
    assert (vm.reboot_setting, vm.desired_settings) == ("IfRequired", None)


def test_what_a_machine_reports_can_be_accepted(owner: User, vm: VirtualMachine) -> None:
    drifted(vm)
    assert accept_settings(vm_id=vm.pk, accepted_by=owner)
    vm.refresh_from_db()
    assert (vm.reboot_setting, vm.desired_settings) == ("Never", None)
    assert not accept_settings(vm_id=vm.pk, accepted_by=owner)


def test_an_inventory_that_reports_what_is_wanted_ends_the_difference(vm: VirtualMachine) -> None:
    drifted(vm)
    VirtualMachine.objects.filter(pk=vm.pk).update(reboot_setting="IfRequired")  # as an import writes it
    vm.refresh_from_db()
    assert vm.desired_settings is None


def test_on_azure_stack_hci_the_machine_is_always_right(resource_group: ResourceGroup) -> None:
    site = ConnectionFactory(azure_stack_hci=True, clock_factor=1e9)
    vm = VirtualMachineFactory(resource_group=resource_group, connection=site)
    drifted(vm)
    assert (vm.reboot_setting, vm.desired_settings) == ("Never", None)


def test_reports_cost_the_same_however_many(resource_group: ResourceGroup) -> None:
    site = ConnectionFactory()
    costs = []
    for count in (2, 50):
        vms = [VirtualMachineFactory(resource_group=resource_group, connection=site) for _ in range(count)]
        reported = {vm.pk: replace(vm.patch_settings, reboot_setting=RebootSetting.NEVER) for vm in vms}
        with CaptureQueriesContext(connection) as captured:
            record_settings(reported=reported)
        costs.append(len(captured))
    assert costs[0] == costs[1]
    assert VirtualMachine.objects.filter(desired_settings__isnull=False).count() == 52


def test_an_assessment_that_reports_what_is_known_writes_nothing(vm: VirtualMachine) -> None:
    with CaptureQueriesContext(connection) as captured:
        record_settings(reported={vm.pk: vm.patch_settings})
    assert len([query for query in captured if "desired_settings" in query["sql"]]) == 1
    assert not SettingsEvent.objects.exists()


# --- pages ------------------------------------------------------------------------------------------------------------


def test_the_difference_is_on_blade_settings_and_list_and_can_be_filtered(
    client: Client, owner: User, reader: User, vm: VirtualMachine
) -> None:
    other = VirtualMachineFactory(name="web-002", resource_group=vm.resource_group, connection=vm.connection)
    drifted(vm)
    client.force_login(owner)
    for name in ("updates:blade", "vms:vm-settings"):
        page = text_of(client.get(reverse(name, args=[vm.pk])))
        assert "Reboot setting: reported Never reboot, wanted Reboot if required" in page
        assert "Apply again" in page
        assert "does not have the settings" not in text_of(client.get(reverse(name, args=[other.pk])))
    everything = text_of(client.get(reverse("vms:vm-list")))
    assert everything.count("Settings not as wanted") == 1
    filtered = text_of(client.get(reverse("vms:vm-list"), {"settings": "differ"}))
    assert "web-001" in filtered
    assert "web-002" not in filtered
    assert "ignores part" in text_of(client.get(reverse("vms:vm-list"), {"settings": "odd"}))
    wizard = client.get(reverse("updates:settings-change"), {"all": "1", "settings": "differ"}).context["wizard"]
    assert [each.name for each in wizard.vms] == ["web-001"]
    client.force_login(reader)
    assert "Apply again" not in text_of(client.get(reverse("updates:blade", args=[vm.pk])))


def test_apply_again_and_accept_in_the_page(
    client: Client, owner: User, operator: User, outsider: User, vm: VirtualMachine
) -> None:
    drifted(vm)
    apply, accept = (reverse(f"updates:settings-{name}", args=[vm.pk]) for name in ("apply", "accept"))
    for user, status in ((operator, 403), (outsider, 404)):
        client.force_login(user)
        assert client.post(apply).status_code == client.post(accept).status_code == status
    client.force_login(owner)
    first, second = client.post(apply), client.post(apply)
    (operation,) = operations(vm)
    assert first["Location"] == second["Location"] == reverse("updates:operation", args=[operation.pk])
    page = text_of(client.get(first["Location"]))
    assert "Reboot setting Reboot if required" in page
    settle()
    assert "Succeeded" in text_of(client.get(first["Location"]))
    assert "Settings" in text_of(client.get(reverse("updates:blade", args=[vm.pk]), {"tab": "history"}))
    assert "Settings" in text_of(client.get(reverse("updates:activity", args=[vm.pk])))
    assert "nothing to apply" in text_of(client.post(apply, follow=True))
    drifted(vm)
    assert "wanted ones from now on" in text_of(client.post(accept, follow=True))


def test_only_an_owner_cancels_a_change_of_settings(
    client: Client, owner: User, operator: User, vm: VirtualMachine
) -> None:
    change(owner, NEVER, vm)
    (operation,) = operations(vm)
    cancel = reverse("updates:cancel", args=[operation.pk])
    client.force_login(operator)
    assert cancel not in client.get(reverse("updates:operation", args=[operation.pk])).content.decode()
    assert client.post(cancel).status_code == 403
    client.force_login(owner)
    assert client.post(cancel).status_code == 302
    operation.refresh_from_db()
    assert operation.state == "cancelled"
