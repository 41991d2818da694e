"""Changing patch settings, for one VM and for a selection: the service, the page, and what is kept of it."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from patching.terms import AssessmentMode, PatchMode, Platform, RebootSetting
from tests.factories import ConnectionFactory, VirtualMachineFactory
from tests.forms import text_of
from tests.patching.tables import flag, matches, rows, words
from updates.services.settings import change_settings
from vms.forms.settings import MAX_SELECTED
from vms.models import ResourceGroup, SettingsEvent, VirtualMachine
from vms.selection import VmSelection
from vms.services.settings import Refusal, SettingsChange, SettingsOutcome, SettingsVerdict

pytestmark = pytest.mark.django_db
MANUAL = SettingsChange(patch_mode=PatchMode.MANUAL, bypass_platform_safety_checks=False)
HOTPATCH_OFF = SettingsChange(enable_hotpatching=False)


@pytest.fixture
def vm(resource_group: ResourceGroup) -> VirtualMachine:
    return VirtualMachineFactory(name="web-001", resource_group=resource_group)


def change(owner: User, what: SettingsChange, *vms: VirtualMachine):
    return change_settings(selection=VmSelection.of([vm.pk for vm in vms]), change=what, changed_by=owner)


# --- the service -------------------------------------------------------------------------------------------------


def test_what_the_rules_allow_is_wanted_from_now_on(owner: User, vm: VirtualMachine) -> None:
    (outcome,) = change(owner, HOTPATCH_OFF, vm)
    assert (outcome.verdict, outcome.differing) == (SettingsVerdict.CHANGED, ("enable_hotpatching",))
    vm.refresh_from_db()
    assert vm.desired.enable_hotpatching is False
    (again,) = change(owner, HOTPATCH_OFF, vm)
    assert again.verdict is SettingsVerdict.UNCHANGED


def test_what_the_rules_forbid_is_left_alone_with_every_reason(owner: User, vm: VirtualMachine) -> None:
    (outcome,) = change(owner, MANUAL, vm)
    assert outcome.verdict is SettingsVerdict.REFUSED
    assert {violation.problem.value for violation in outcome.violations} == {
        "hotpatch_needs_platform_mode",
        "manual_needs_automatic_updates_off",
    }
    vm.refresh_from_db()
    assert vm.desired_settings is None


def test_a_role_below_owner_and_a_reported_fact_are_refused(
    owner: User, operator: User, resource_group: ResourceGroup, vm: VirtualMachine
) -> None:
    (outcome,) = change(operator, HOTPATCH_OFF, vm)
    assert outcome.refusal is Refusal.NOT_OWNER
    edge = VirtualMachineFactory(resource_group=resource_group, connection=ConnectionFactory(azure_stack_hci=True))
    (outcome,) = change(owner, HOTPATCH_OFF, edge)
    assert outcome.refusal is Refusal.REPORTED_BY_MACHINE
    assert not VirtualMachine.objects.filter(desired_settings__isnull=False).exists()


def test_what_cannot_be_seen_gets_no_answer(outsider: User, vm: VirtualMachine) -> None:
    assert change(outsider, HOTPATCH_OFF, vm) == []


def test_a_selection_costs_the_same_however_many(owner: User, resource_group: ResourceGroup) -> None:
    row = ConnectionFactory()
    costs = []
    for count in (2, 200):
        vms = [VirtualMachineFactory(resource_group=resource_group, connection=row) for _ in range(count)]
        with CaptureQueriesContext(connection) as captured:
            outcomes = change(owner, HOTPATCH_OFF, *vms)
        assert {outcome.verdict for outcome in outcomes} == {SettingsVerdict.CHANGED}
        costs.append(len(captured))
    assert costs[0] == costs[1]


@pytest.mark.parametrize("row", rows("settings-combinations"), ids=lambda row: " ".join(row.values()))
def test_every_combination_of_the_rules_through_the_service(
    owner: User, resource_group: ResourceGroup, row: dict[str, str]
) -> None:
    """The VM is made with the fixed facts and asked for the rest: the service answers what the table says."""
    vm = vm_of(row, resource_group)
    # The reboot setting moves along, so that there always is a change to judge.
    wanted = SettingsChange(
        patch_mode=PatchMode(row["patch mode"]),
        assessment_mode=AssessmentMode(row["assessment mode"]),
        enable_hotpatching=flag(row["hotpatch"]),
        bypass_platform_safety_checks=flag(row["bypass"]),
        reboot_setting=RebootSetting.NEVER,
    )
    (outcome,) = change(owner, wanted, vm)
    assert_as_the_table_says(row, outcome, vm)


@pytest.mark.parametrize("row", rows("settings-combinations"), ids=lambda row: " ".join(row.values()))
def test_every_combination_of_the_rules_through_the_page(
    client: Client, owner: User, resource_group: ResourceGroup, row: dict[str, str]
) -> None:
    """The same machine in the browser: the review says what the table says, and the change does what the review said."""
    vm = vm_of(row, resource_group)
    client.force_login(owner)
    wanted = {"hotpatch": "on" if flag(row["hotpatch"]) else "off", "reboot_setting": "Never"}
    review = post(client, "review", vm, **wanted)
    (foreseen,) = review.context["wizard"].outcomes
    done = post(client, "apply", vm, **wanted)
    (outcome,) = done.context["wizard"].outcomes
    assert (foreseen.verdict, foreseen.violations, foreseen.refusal) == (
        outcome.verdict,
        outcome.violations,
        outcome.refusal,
    )
    assert_as_the_table_says(row, outcome, vm)
    shown = text_of(review)
    for violation in outcome.violations:
        assert f"{violation.arm_code}: {violation.arm_target}" in shown


ORCHESTRATIONS = {
    "": {},
    "AutomaticByPlatform": {"patch mode": "AutomaticByPlatform", "bypass": "no"},
    "CustomerManaged": {"patch mode": "AutomaticByPlatform", "bypass": "yes"},
    "AutomaticByOS": {"patch mode": "AutomaticByOS", "bypass": "no"},
    "Manual": {"patch mode": "Manual", "bypass": "no"},
}
CHANGES = [
    (orchestration, assessment, hotpatch)
    for orchestration in ORCHESTRATIONS
    for assessment in ("", "AutomaticByPlatform")
    for hotpatch in ("", "on", "off")
    if orchestration or assessment or hotpatch
]


def every_machine(resource_group: ResourceGroup) -> dict[int, dict[str, str]]:
    """One machine for every combination of what a VM may have; by id, with its facts in the words of the table."""
    columns = ("agent", "automatic updates", "patch mode", "hotpatch", "bypass", "eligible", "platform")
    yes_no = ("yes", "no")
    connections = {platform.value: ConnectionFactory(platform=platform.value) for platform in Platform}
    space = itertools.product(yes_no, yes_no, PatchMode, yes_no, yes_no, yes_no, connections)
    all_facts = [dict(zip(columns, values, strict=True)) for values in space]
    made = VirtualMachine.objects.bulk_create(
        VirtualMachineFactory.build(
            resource_group=resource_group,
            connection=connections[facts["platform"]],
            provision_vm_agent=flag(facts["agent"]),
            enable_automatic_updates=flag(facts["automatic updates"]),
            patch_mode=facts["patch mode"],
            assessment_mode="ImageDefault",
            enable_hotpatching=flag(facts["hotpatch"]),
            bypass_platform_safety_checks=flag(facts["bypass"]),
            **({} if flag(facts["eligible"]) else {"image_sku": "2019-datacenter"}),
        )
        for facts in all_facts
    )
    return {vm.pk: facts | {"assessment mode": "ImageDefault"} for vm, facts in zip(made, all_facts, strict=True)}


def test_every_change_of_every_machine_through_the_page_and_the_service(
    client: Client, owner: User, resource_group: ResourceGroup
) -> None:
    """288 machines x 29 changes: table, service and page (its review, its answer, its words) agree on each."""
    machines = every_machine(resource_group)
    assert len(machines) == 288
    client.force_login(owner)
    for orchestration, assessment, hotpatch in CHANGES:
        fields = {"patch_orchestration": orchestration, "assessment_mode": assessment, "hotpatch": hotpatch}
        wanted = dict(ORCHESTRATIONS[orchestration])
        wanted |= {"assessment mode": assessment} if assessment else {}
        wanted |= {"hotpatch": {"on": "yes", "off": "no"}[hotpatch]} if hotpatch else {}
        expected = {pk: expected_of(facts, wanted) for pk, facts in machines.items()}
        with transaction.atomic():
            by_service = change_settings(selection=VmSelection.of(machines), change=change_of(wanted), changed_by=owner)
            transaction.set_rollback(True)
        sent = {"vm": list(machines), **fields}
        review = client.post(URL, sent | {"go": "review"})
        with transaction.atomic():
            done = client.post(URL, sent | {"go": "apply"})
            transaction.set_rollback(True)
        for outcomes in (by_service, review.context["wizard"].outcomes, done.context["wizard"].outcomes):
            assert {outcome.vm.pk: answer_of(outcome) for outcome in outcomes} == expected, fields
        problems = [problem for _verdict, problems in expected.values() for problem in problems]
        for answer in (review, done):
            shown = answer.content.decode()
            refused = sum(verdict is SettingsVerdict.REFUSED for verdict, _problems in expected.values())
            assert f'id="refused"><span class="tile-number">{refused}<' in shown
            assert shown.count("InvalidParameter: ") == len(problems)


def change_of(wanted: dict[str, str]) -> SettingsChange:
    """The words of the table as the service takes them."""
    return SettingsChange(
        patch_mode=PatchMode(wanted["patch mode"]) if "patch mode" in wanted else None,
        bypass_platform_safety_checks=flag(wanted["bypass"]) if "bypass" in wanted else None,
        assessment_mode=AssessmentMode(wanted["assessment mode"]) if "assessment mode" in wanted else None,
        enable_hotpatching=flag(wanted["hotpatch"]) if "hotpatch" in wanted else None,
    )


def expected_of(facts: dict[str, str], wanted: dict[str, str]) -> tuple[SettingsVerdict, tuple[str, ...]]:
    """What docs/rules.md says of a change of one machine."""
    after = facts | wanted
    if after == facts:
        return SettingsVerdict.UNCHANGED, ()
    if facts["platform"] == "azure_stack_hci":
        return SettingsVerdict.REFUSED, ()
    eligible = facts["eligible"] if facts["platform"] == "azure" else "no"  # no other platform can be hotpatched
    judged = after | {"from mode": facts["patch mode"], "eligible": eligible}
    del judged["platform"]
    problems = tuple(row["problem"] for row in rows("settings-problems") if matches(row, judged))
    return (SettingsVerdict.REFUSED if problems else SettingsVerdict.CHANGED), problems


def answer_of(outcome: SettingsOutcome) -> tuple[SettingsVerdict, tuple[str, ...]]:
    """An outcome in the same words; what is refused as a reported fact names no problem."""
    assert (outcome.refusal is Refusal.REPORTED_BY_MACHINE) == (
        outcome.verdict is SettingsVerdict.REFUSED and not outcome.violations
    )
    return outcome.verdict, tuple(violation.problem.value for violation in outcome.violations)


def vm_of(row: dict[str, str], resource_group: ResourceGroup) -> VirtualMachine:
    """A machine with the facts of a row, before hotpatch is asked for."""
    return VirtualMachineFactory(
        resource_group=resource_group,
        connection=ConnectionFactory(platform=row["platform"]),
        provision_vm_agent=flag(row["agent"]),
        enable_automatic_updates=flag(row["automatic updates"]),
        patch_mode=row["patch mode"],
        assessment_mode=row["assessment mode"],
        enable_hotpatching=False,
        bypass_platform_safety_checks=flag(row["bypass"]),
        reboot_setting="IfRequired",
        **({} if flag(row["eligible"]) else {"image_sku": "2019-datacenter"}),
    )


def assert_as_the_table_says(row: dict[str, str], outcome: Any, vm: VirtualMachine) -> None:
    """The verdict, every reason, and what is on the machine's record afterwards."""
    vm.refresh_from_db()
    if row["platform"] == "azure_stack_hci":
        assert outcome.refusal is Refusal.REPORTED_BY_MACHINE
        assert vm.desired_settings is None
        return
    assert tuple(violation.problem.value for violation in outcome.violations) == words(row["problems"])
    assert outcome.verdict is (SettingsVerdict.REFUSED if row["problems"] else SettingsVerdict.CHANGED)
    assert vm.desired.reboot_setting == ("IfRequired" if row["problems"] else "Never")


# --- the page ----------------------------------------------------------------------------------------------------

URL = "/virtual-machines/settings/"


def post(client: Client, go: str, *vms: VirtualMachine, **fields: str):
    return client.post(URL, {"vm": [vm.pk for vm in vms], "go": go} | fields)


def test_thirty_selected_of_which_seven_are_refused(client: Client, owner: User, resource_group: ResourceGroup) -> None:
    row = ConnectionFactory()
    good = [
        VirtualMachineFactory(resource_group=resource_group, connection=row, enable_hotpatching=False)
        for _ in range(23)
    ]
    bad = [VirtualMachineFactory(resource_group=resource_group, connection=row) for _ in range(7)]
    client.force_login(owner)
    review = post(client, "review", *good, *bad, patch_orchestration="AutomaticByOS")
    shown = text_of(review)
    assert "23 will change" in shown
    assert "7 refused" in shown
    assert shown.count("Hotpatch needs the orchestration “Azure Managed - Safe Deployment”.") == 7
    assert "InvalidParameter: windowsConfiguration.patchSettings.enableHotpatching" in shown
    assert not VirtualMachine.objects.filter(desired_settings__isnull=False).exists()
    done = text_of(post(client, "apply", *good, *bad, patch_orchestration="AutomaticByOS"))
    assert "23 on their way" in done
    assert VirtualMachine.objects.filter(desired_settings__patch_mode="AutomaticByOS").count() == 23


def test_customer_managed_schedules_bypass_and_the_others_do_not(
    client: Client, owner: User, vm: VirtualMachine
) -> None:
    client.force_login(owner)
    post(client, "apply", vm, patch_orchestration="CustomerManaged", hotpatch="off")
    vm.refresh_from_db()
    assert (vm.desired.patch_mode, vm.desired.bypass_platform_safety_checks) == ("AutomaticByPlatform", True)
    post(client, "apply", vm, patch_orchestration="AutomaticByPlatform", hotpatch="on")
    vm.refresh_from_db()
    assert (vm.desired.bypass_platform_safety_checks, vm.desired.enable_hotpatching) == (False, True)


def test_the_form_says_what_the_machines_have_now(client: Client, owner: User, resource_group: ResourceGroup) -> None:
    row = ConnectionFactory()
    on = VirtualMachineFactory(resource_group=resource_group, connection=row)
    off = [
        VirtualMachineFactory(
            resource_group=resource_group, connection=row, enable_hotpatching=False, bypass_platform_safety_checks=True
        )
        for _ in range(2)
    ]
    client.force_login(owner)
    alone = text_of(client.get(URL, {"vm": on.pk}))
    assert "Now: Azure Managed - Safe Deployment. Hotpatch needs" in alone
    assert "Now: On." in alone
    several = text_of(client.get(URL, {"vm": [on.pk, *(vm.pk for vm in off)]}))
    assert "Now: Customer Managed Schedules (2), Azure Managed - Safe Deployment (1)." in several
    assert "Now: Off (2), On (1)." in several
    assert "Now: Reboot if required." in several


def test_where_a_machine_reports_something_else_a_change_starts_from_what_is_wanted(
    client: Client, owner: User, vm: VirtualMachine
) -> None:
    client.force_login(owner)
    as_wanted = text_of(client.get(URL, {"vm": vm.pk}))
    assert "starts from what is wanted" not in as_wanted
    wanted = replace(vm.patch_settings, enable_hotpatching=False)
    VirtualMachine.objects.filter(pk=vm.pk).update(desired_settings=wanted.as_json)
    shown = text_of(client.get(URL, {"vm": vm.pk}))
    assert "1 machine reports other settings than wanted. A change starts from what is wanted." in shown
    assert "Wanted: Off. Reported: On." in shown
    assert "Now: Reboot if required." in shown, "where both agree it is said once"
    post(client, "apply", vm, reboot_setting="Never")
    vm.refresh_from_db()
    assert (vm.desired.enable_hotpatching, vm.desired.reboot_setting) == (False, "Never")


def test_a_form_that_changes_nothing_or_something_unknown_is_refused(
    client: Client, owner: User, vm: VirtualMachine
) -> None:
    client.force_login(owner)
    nothing = post(client, "review", vm)
    assert nothing.status_code == 422
    assert "Choose at least one setting" in text_of(nothing)
    assert post(client, "apply", vm, hotpatch="perhaps").status_code == 422
    assert post(client, "back", vm, hotpatch="off").status_code == 200


@pytest.mark.parametrize("ids", ["", "x", "-1", "9" * 30, "０"])
def test_a_selection_that_selects_nothing_says_so(client: Client, owner: User, ids: str) -> None:
    client.force_login(owner)
    answer = client.get(URL, {"vm": ids})
    assert answer.status_code == 422
    assert f"“{ids[:20]}" in text_of(answer)
    assert "is no machine" in text_of(answer)


def test_all_that_match_are_asked_for_and_no_tick_is_nothing(
    client: Client, owner: User, resource_group: ResourceGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ConnectionFactory()
    web = [VirtualMachineFactory(name=f"web-{n}", resource_group=resource_group, connection=row) for n in range(3)]
    VirtualMachineFactory(name="sql-1", resource_group=resource_group, connection=row)
    VirtualMachineFactory(name="web-theirs")
    client.force_login(owner)
    assert "No virtual machine is selected" in text_of(client.get(URL, {"q": "web"}))
    shown = client.get(URL, {"q": "web", "all": "1"})
    assert shown.context["wizard"].asked.selection.ids == [vm.pk for vm in web]
    assert client.get(URL, {"all": "1"}).context["wizard"].asked.selection.count == 4
    assert "matches Search by name: nothing" in text_of(client.get(URL, {"q": "nothing", "all": "1"}))
    # a form that lost its machines changes none
    lost = client.post(URL, {"q": "web", "go": "apply", "hotpatch": "off"})
    assert (lost.status_code, "No virtual machine is selected" in text_of(lost)) == (422, True)
    assert not VirtualMachine.objects.filter(desired_settings__isnull=False).exists()
    monkeypatch.setattr("vms.forms.settings.MAX_SELECTED", 2)
    assert "3 machines are more than go at once here." in text_of(client.get(URL, {"q": "web", "all": "1"}))


def test_a_thousand_machines_go_in_one_form(client: Client, owner: User, resource_group: ResourceGroup) -> None:
    row = ConnectionFactory()
    vms = VirtualMachine.objects.bulk_create(
        VirtualMachineFactory.build(resource_group=resource_group, connection=row) for _ in range(MAX_SELECTED)
    )
    client.force_login(owner)
    done = post(client, "apply", *vms, hotpatch="off")
    assert done.status_code == 200
    assert VirtualMachine.objects.filter(desired_settings__enable_hotpatching=False).count() == MAX_SELECTED


def test_who_may_open_it(client: Client, owner: User, operator: User, outsider: User, vm: VirtualMachine) -> None:
    for user, status in ((owner, 200), (operator, 403), (outsider, 404)):
        client.force_login(user)
        assert client.get(URL, {"vm": vm.pk}).status_code == status
        assert post(client, "apply", vm, hotpatch="off").status_code == status


def test_links_to_it_are_there_for_owners_only(client: Client, owner: User, operator: User, vm: VirtualMachine) -> None:
    for user, expected in ((owner, True), (operator, False)):
        client.force_login(user)
        link = f'href="{URL}?vm={vm.pk}"'
        assert (link in client.get(reverse("vms:vm-settings", args=[vm.pk])).content.decode()) is expected
        assert (link in client.get(reverse("updates:blade", args=[vm.pk])).content.decode()) is expected


# --- what is kept ------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_the_activity_says_who_changed_what_whatever_the_door(
    client: Client, owner: User, reader: User, outsider: User, vm: VirtualMachine
) -> None:
    client.force_login(owner)
    post(client, "apply", vm, hotpatch="off")
    VirtualMachine.objects.filter(pk=vm.pk).update(enable_hotpatching=False)  # as the machine reports it then
    VirtualMachine.objects.filter(pk=vm.pk).update(reboot_setting="Never")  # another door
    VirtualMachine.objects.filter(pk=vm.pk).update(update_status="reboot_required")  # no setting
    assert SettingsEvent.objects.filter(pgh_obj=vm).count() == 2
    url = reverse("updates:activity", args=[vm.pk])
    client.force_login(reader)
    shown = text_of(client.get(url))
    assert re.search(r"Settings: [^·]*Queued[^·]*owner|Settings .*owner", shown)
    assert "Settings changed Hotpatch : On → Off Hotpatch Portal" in shown
    assert "Reboot setting : Reboot if required → Never reboot Hotpatch Portal" in shown
    client.force_login(outsider)
    assert client.get(url).status_code == 404


def test_no_form_is_offered_for_settings_that_a_machine_only_reports(
    client: Client, owner: User, resource_group: ResourceGroup
) -> None:
    edge = VirtualMachineFactory(resource_group=resource_group, connection=ConnectionFactory(azure_stack_hci=True))
    azure = VirtualMachineFactory(resource_group=resource_group)
    client.force_login(owner)
    change = reverse("updates:settings-change")
    for page in (reverse("vms:vm-settings", args=[edge.pk]), reverse("updates:blade", args=[edge.pk])):
        text = client.get(page).content.decode()
        assert change not in text
        assert "Group Policy, SConfig or this portal" in text
    assert change in client.get(reverse("vms:vm-settings", args=[azure.pk])).content.decode()
    asked = client.get(f"{change}?vm={edge.pk}").content.decode()
    assert "Change them with Group Policy or SConfig" in asked
    assert 'name="go"' not in asked
    client.post(change, {"vm": edge.pk, "reboot_setting": "Never", "go": "apply"})
    edge.refresh_from_db()
    assert edge.desired_settings is None
    both = client.get(f"{change}?vm={edge.pk}&vm={azure.pk}").content.decode()
    assert 'name="go"' in both  # each machine gets its own verdict in the review
