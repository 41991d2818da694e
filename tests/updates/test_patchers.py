"""What lists show of who patches a VM: the rule's own answer, written where it changed, at every change and by the clock."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from connectors.protocol import Traits
from connectors.registry import KINDS
from patching.orchestrator import Patcher, who_patches
from patching.terms import Classification, ImageReference, InstallationPlan, PatchMode, Platform
from tests.factories import ConnectionFactory, PatchFactory, VirtualMachineFactory
from tests.forms import fields_of
from tests.patching.tables import flag, rows
from tests.updates.world import make_due
from tests.vms.importing import import_file
from updates.engine.sweep import sweep
from updates.models import BulkRequest, MaintenanceConfiguration, Operation, PatchSet, PatchSetMember, VmUpdateState
from updates.plans import plan_to_json
from updates.selectors.automation import vms_to_patch_automatically
from updates.services.automation import (
    change_configuration,
    create_configuration,
    follow_schedules,
    remove_configuration,
    switch_configuration,
    tick,
)
from updates.services.settings import change_settings
from vms.models import Connection, ListColumns, ResourceGroup, VirtualMachine
from vms.selection import VmSelection
from vms.selectors import connections_in_charge
from vms.services.connections import save_connection
from vms.services.records import NewVm, VmRecord, change_record, create_vm
from vms.services.settings import SettingsChange

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 24, 3, tzinfo=UTC)


def configuration(**fields: Any) -> MaintenanceConfiguration:
    values: dict[str, Any] = {
        "name": f"m{MaintenanceConfiguration.objects.count()}",
        "starts_on": date(2026, 11, 24),
        "starts_at": time(22),
        "time_zone": "Tokyo Standard Time",
        "recur_every": "Month Second Tuesday Offset4",
        "duration_minutes": 120,
        "plan": plan_to_json(InstallationPlan(classifications=frozenset({Classification.SECURITY}))),
    }
    return MaintenanceConfiguration(**(values | fields))


def patcher(vm: VirtualMachine) -> str:
    vm.refresh_from_db()
    return vm.patcher


# --- the rule and its set-based writer ---------------------------------------------------------------------------


def fleet_of_the_table(group: ResourceGroup) -> list[tuple[VirtualMachine, dict[str, str]]]:
    """A VM for every row of the table, attached to an enabled configuration or to none."""
    behind = {
        "portal": ConnectionFactory(),
        "off": ConnectionFactory(is_patching_automatically=False),
        "platform": ConnectionFactory(kind="azure_arm", platform=Platform.AZURE.value),
    }
    row = configuration()
    row.save()
    switched_off = configuration(is_enabled=False, scope={"location": "japaneast"})
    switched_off.save()
    made = []
    for facts in rows("who-patches"):
        vm = VirtualMachineFactory(
            resource_group=group,
            connection=behind["off" if facts["switch"] == "off" else facts["in charge"]],
            patch_mode=facts["patch mode"],
            bypass_platform_safety_checks=flag(facts["bypass"]),
            provision_vm_agent=flag(facts["agent"]),
        )
        (row if flag(facts["schedule"]) else switched_off).vms.add(vm)
        made.append((vm, facts))
    return made


def test_every_row_of_the_table_is_written_as_the_rule_says(resource_group: ResourceGroup) -> None:
    made = fleet_of_the_table(resource_group)
    VirtualMachine.objects.update(patcher="")
    assert follow_schedules() == len(made) == 49
    for vm, facts in made:
        verdict = who_patches(
            patch_mode=PatchMode(facts["patch mode"]),
            is_bypassing=flag(facts["bypass"]),
            has_schedule=flag(facts["schedule"]),
            is_portal_in_charge=facts["in charge"] == "portal",
            is_automatic_on=facts["switch"] != "off",
            has_agent=flag(facts["agent"]),
        )
        assert (patcher(vm), vm.is_scheduled) == (verdict.patcher.value, flag(facts["schedule"])), facts
        assert vm.patcher == facts["who"], facts


def places() -> dict[int, str]:
    """Where PostgreSQL keeps each row: somewhere else once it was written."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, ctid::text FROM vms_virtualmachine")
        return dict(cursor.fetchall())


def test_it_takes_the_same_statements_for_any_number_and_writes_only_what_changed(
    resource_group: ResourceGroup,
) -> None:
    made = fleet_of_the_table(resource_group)
    follow_schedules()
    odd = made[2][0]
    VirtualMachine.objects.filter(pk=odd.pk).update(patcher="guest_os")
    before = places()
    with CaptureQueriesContext(connection) as captured:
        assert follow_schedules() == 1
    statements = [query["sql"] for query in captured if "SAVEPOINT" not in query["sql"]]
    assert len(statements) == 2, "the scopes, and one that judges and writes"
    assert "UPDATE" in statements[1]
    assert patcher(odd) == "portal_by_schedule"
    after = places()
    assert [pk for pk in after if after[pk] != before[pk]] == [odd.pk]
    assert follow_schedules() == 0
    assert places() == after


def test_the_database_knows_who_is_in_charge_as_the_model_does() -> None:
    for number, (kind, platform) in enumerate(itertools.product(["simulator", "azure_arm", "winrm"], Platform)):
        Connection.objects.create(name=f"c{number}", kind=kind, platform=platform.value)
    in_charge = set(Connection.objects.filter(connections_in_charge()).values_list("pk", flat=True))
    assert in_charge == {row.pk for row in Connection.objects.all() if row.is_portal_in_charge}
    assert 0 < len(in_charge) < Connection.objects.count()


# --- whatever changes --------------------------------------------------------------------------------------------


def reach_the_machines() -> None:
    """Let changes of settings end."""
    for _ in range(3):
        make_due()
        sweep(seconds=5)
    assert not Operation.objects.open().exists()


def test_settings_move_it_once_the_machine_has_them_and_a_schedule_is_remembered(
    owner: User, resource_group: ResourceGroup
) -> None:
    row = ConnectionFactory(clock_factor=1e9)
    plain, attached = (
        VirtualMachineFactory(resource_group=resource_group, connection=row, enable_hotpatching=False) for _ in range(2)
    )
    create_configuration(
        configuration=configuration(), created_by=owner, now=NOON, selection=VmSelection.of([attached.pk])
    )
    assert (patcher(plain), patcher(attached)) == ("portal_automatically", "portal_by_schedule")
    bypass = SettingsChange(bypass_platform_safety_checks=True)
    change_settings(selection=VmSelection.of([plain.pk, attached.pk]), change=bypass, changed_by=owner)
    assert patcher(plain) == "portal_automatically", "it is not there yet"
    reach_the_machines()
    assert (patcher(plain), patcher(attached)) == ("nobody", "portal_by_schedule")
    windows = SettingsChange(patch_mode=PatchMode.AUTOMATIC_BY_OS, bypass_platform_safety_checks=False)
    change_settings(selection=VmSelection.of([plain.pk, attached.pk]), change=windows, changed_by=owner)
    reach_the_machines()
    assert (patcher(plain), patcher(attached)) == ("guest_os", "guest_os")


def test_a_configuration_moves_its_members_when_it_is_made_changed_switched_and_removed(
    owner: User, resource_group: ResourceGroup
) -> None:
    vm, other = (VirtualMachineFactory(resource_group=resource_group, tags={"ring": name}) for name in ("1", "2"))
    row = configuration(scope={"tag_name": "ring", "tag_value": "1"})
    create_configuration(configuration=row, created_by=owner, now=NOON)
    assert (patcher(vm), patcher(other)) == ("portal_by_schedule", "portal_automatically")
    row.scope = {"tag_name": "ring", "tag_value": "2"}
    change_configuration(configuration=row, now=NOON)
    assert (patcher(vm), patcher(other)) == ("portal_automatically", "portal_by_schedule")
    change_configuration(configuration=row, now=NOON, selection=VmSelection.of([vm.pk]))
    assert (patcher(vm), patcher(other)) == ("portal_by_schedule", "portal_by_schedule")
    switch_configuration(configuration_id=row.pk, is_enabled=False, now=NOON)
    assert (patcher(vm), patcher(other)) == ("portal_automatically", "portal_automatically")
    switch_configuration(configuration_id=row.pk, is_enabled=True, now=NOON)
    assert (patcher(vm), patcher(other)) == ("portal_by_schedule", "portal_by_schedule")
    remove_configuration(configuration_id=row.pk)
    assert (patcher(vm), patcher(other)) == ("portal_automatically", "portal_automatically")


@pytest.mark.parametrize(
    "scope",
    [
        {"tag_name": "ring"},
        {"location": "Japan East"},
        {"image_sku": "2022-Datacenter-Azure-Edition-Core"},
        {"resource_group": "RG-WEB"},
        {"subscription": ""},
    ],
)
def test_every_kind_of_scope_counts(resource_group: ResourceGroup, scope: dict[str, str]) -> None:
    ResourceGroup.objects.filter(pk=resource_group.pk).update(name="rg-web")
    if "subscription" in scope:
        scope = {"subscription": str(resource_group.subscription_id)}
    vm = VirtualMachineFactory(resource_group=resource_group, tags={"ring": "1"})
    other = VirtualMachineFactory(location="westeurope", image_sku="2025-datacenter-azure-edition-core")
    configuration(scope=scope).save()
    assert follow_schedules() == 1
    assert (patcher(vm), patcher(other)) == ("portal_by_schedule", "portal_automatically")


def test_a_record_has_it_from_its_first_moment_and_follows_its_connection(
    owner: User, resource_group: ResourceGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = replace(KINDS["simulator"], name="azure_arm", traits=Traits())
    monkeypatch.setitem(KINDS, "azure_arm", cloud)
    simulator, azure = ConnectionFactory(), ConnectionFactory(kind="azure_arm")
    image = ImageReference(publisher="MicrosoftWindowsServer", offer="WindowsServer", sku="other")
    record = VmRecord(connection=simulator, location="japaneast", image=image)
    vm = create_vm(new=NewVm(name="new", resource_group=resource_group, record=record))
    assert patcher(vm) == "portal_automatically"
    change_record(vm_id=vm.pk, record=VmRecord(connection=azure, location="japaneast", image=image))
    assert patcher(vm) == "platform"
    azure.platform = Platform.OTHER.value
    save_connection(connection=azure)
    assert patcher(vm) == "portal_automatically"


def test_an_administrator_moves_a_vm_to_another_connection(admin_client: Client) -> None:
    vm, azure = VirtualMachineFactory(), ConnectionFactory(kind="azure_arm")
    answer = admin_client.post(reverse("admin:vms_virtualmachine_change", args=[vm.pk]), {"connection": azure.pk})
    assert answer.status_code == 302
    assert patcher(vm) == "platform"


def test_an_import_writes_it_with_the_facts() -> None:
    simulator = ConnectionFactory()

    def file(mode: str) -> bytes:
        row = {
            "id": "/subscriptions/00000000-0000-4000-8000-000000000001/resourceGroups/rg/providers/"
            "Microsoft.Compute/virtualMachines/web-1",
            "name": "web-1",
            "location": "japaneast",
            "storageProfile": {"osDisk": {"osType": "Windows"}},
            "osProfile": {"windowsConfiguration": {"provisionVMAgent": True, "patchSettings": {"patchMode": mode}}},
        }
        return json.dumps([row]).encode()

    import_file(file("AutomaticByPlatform"), simulator)
    assert VirtualMachine.objects.get().patcher == "portal_automatically"
    VirtualMachine.objects.update(is_scheduled=True)
    import_file(file("Manual"), simulator)
    vm = VirtualMachine.objects.get()
    assert (vm.patcher, vm.is_scheduled) == ("portal_by_schedule", True)
    (report,) = import_file(file("Manual"), simulator).rows
    assert report.outcome.value == "unchanged"


def test_tags_are_followed_by_the_clock(resource_group: ResourceGroup) -> None:
    vm = VirtualMachineFactory(resource_group=resource_group)
    configuration(scope={"tag_name": "ring"}).save()
    assert follow_schedules() == 0
    VirtualMachine.objects.filter(pk=vm.pk).update(tags={"ring": "1"})
    tick(now=NOON + timedelta(minutes=9))
    assert patcher(vm) == "portal_automatically"
    tick(now=NOON + timedelta(minutes=10))
    assert patcher(vm) == "portal_by_schedule"


@pytest.mark.django_db(transaction=True)
def test_what_changes_while_it_is_judged_is_judged_as_it_became() -> None:
    """The writer waits for a change of the same VM and then says what that change led to."""
    import threading

    vm = VirtualMachineFactory(enable_hotpatching=False)
    VirtualMachine.objects.filter(pk=vm.pk).update(patcher="nobody")
    done: list[int] = []

    def write() -> None:
        try:
            done.append(follow_schedules())
        finally:
            connection.close()

    with transaction.atomic():
        VirtualMachine.objects.filter(pk=vm.pk).update(patch_mode="AutomaticByOS")
        writer = threading.Thread(target=write)
        writer.start()
        writer.join(1)
        assert writer.is_alive()
    writer.join(20)
    assert done == [1]
    assert patcher(vm) == "guest_os"


# --- who uses it -------------------------------------------------------------------------------------------------


def test_the_scheduler_never_acts_on_a_stale_answer(resource_group: ResourceGroup) -> None:
    row = ConnectionFactory()
    lacking = PatchSet.objects.create(digest=b"x" * 32, critical_and_security_count=1)
    PatchSetMember.objects.create(patch_set=lacking, patch=PatchFactory())
    made = {
        name: VirtualMachineFactory(
            resource_group=resource_group, connection=row, critical_and_security_count=1, patcher=recorded, **facts
        )
        for name, recorded, facts in (
            ("says nobody, is automatic", "nobody", {}),
            ("says automatic, is manual", "portal_automatically", {"patch_mode": "Manual"}),
            ("says automatic, bypasses", "portal_automatically", {"bypass_platform_safety_checks": True}),
            ("says automatic, has no agent", "portal_automatically", {"provision_vm_agent": False}),
            ("says automatic, is scheduled", "portal_automatically", {"tags": {"ring": "1"}}),
        )
    }
    for vm in made.values():
        VmUpdateState.objects.create(vm=vm, patch_set=lacking, last_assessed_at=timezone.now())
    configuration(scope={"tag_name": "ring"}).save()
    now = timezone.now()
    assert vms_to_patch_automatically(row.pk, now) == [made["says nobody, is automatic"].pk]
    Connection.objects.filter(pk=row.pk).update(kind="azure_arm")
    assert vms_to_patch_automatically(row.pk, now) == [], "Azure does it itself"


def test_the_doctor_finds_an_answer_that_is_not_the_rules(
    resource_group: ResourceGroup, capsys: pytest.CaptureFixture[str]
) -> None:
    vm = VirtualMachineFactory(resource_group=resource_group, name="odd")
    call_command("doctor")
    VirtualMachine.objects.filter(pk=vm.pk).update(patcher="platform")
    with pytest.raises(CommandError, match="1 kind of trouble"):
        call_command("doctor")
    out = capsys.readouterr().out
    assert "patcher_differs (1)" in out
    assert "odd" in out
    follow_schedules()
    configuration(scope={"location": "japaneast"}).save()  # past the service
    with pytest.raises(CommandError, match="1 kind of trouble"):
        call_command("doctor")
    follow_schedules()
    call_command("doctor")


def test_after_an_upgrade_the_doctor_is_content_at_once(resource_group: ResourceGroup) -> None:
    """A column that is new says "nobody" of every machine; `make up` runs this before it serves."""
    VirtualMachineFactory(resource_group=resource_group)
    VirtualMachine.objects.update(patcher="nobody", connection=ConnectionFactory(is_patching_automatically=True))
    with pytest.raises(CommandError, match="1 kind of trouble"):
        call_command("doctor")
    call_command("refresh_words")
    call_command("doctor")


def names(response: Any) -> list[str]:
    return re.findall(r">(vm-\w+)</a>", response.content.decode())


@pytest.fixture
def one_of_each(resource_group: ResourceGroup) -> None:
    for value in Patcher:
        VirtualMachineFactory(resource_group=resource_group, name=f"vm-{value.value}", patcher=value.value)


@pytest.mark.usefixtures("one_of_each")
@pytest.mark.parametrize("value", list(Patcher))
def test_the_list_filters_by_it_in_both_languages(client: Client, reader: User, value: Patcher) -> None:
    client.force_login(reader)
    ListColumns.objects.create(user=reader, columns=["patcher"])
    shown = client.get(reverse("vms:vm-list"), {"patcher": value.value})
    assert names(shown) == [f"vm-{value.value}"]
    words = {
        Patcher.NOBODY: ("Nobody", "自動適用なし"),
        Patcher.GUEST_OS: ("Windows itself", "Windows 自体"),
        Patcher.PLATFORM: ("Azure, automatically", "Azure (自動)"),
        Patcher.PORTAL_AUTOMATICALLY: ("This portal, automatically", "このポータル (自動)"),
        Patcher.PORTAL_BY_SCHEDULE: ("This portal, by schedule", "このポータル (スケジュール)"),
    }[value]
    for language, (word, label) in zip(
        ("en", "ja"), zip(words, ("Patched by", "更新の実行元"), strict=True), strict=True
    ):
        page = client.get(
            reverse("vms:vm-list"), {"patcher": value.value}, headers={"Accept-Language": language}
        ).content.decode()
        assert f'<th scope="col">{label}</th>' in page
        assert re.search(rf"<td[^>]*>{re.escape(word)}<", page)
        assert f'<option value="{value.value}" selected>{word}</option>' in page


def test_the_blade_leads_to_those_that_are_patched_alike(
    client: Client, reader: User, resource_group: ResourceGroup
) -> None:
    vm = VirtualMachineFactory(resource_group=resource_group, patch_mode="Manual", patcher="platform")
    client.force_login(reader)
    blade = client.get(reverse("updates:blade", args=[vm.pk])).content.decode()
    assert f'<a href="{reverse("vms:vm-list")}?patcher=nobody">Nobody</a>' in blade, "judged afresh"


@pytest.mark.usefixtures("one_of_each")
def test_a_value_that_is_none_filters_nothing_and_is_named(client: Client, reader: User) -> None:
    client.force_login(reader)
    shown = client.get(reverse("vms:vm-list"), {"patcher": "elvis"})
    assert len(names(shown)) == len(Patcher)
    assert "elvis" in shown.content.decode()


@pytest.mark.usefixtures("one_of_each")
def test_all_that_match_and_the_export_mean_the_same_vms(client: Client, operator: User) -> None:
    client.force_login(operator)
    page = client.get(reverse("vms:vm-list"), {"patcher": "nobody"}).content.decode()
    assert '<input type="hidden" name="patcher" value="nobody">' in page
    answer = client.get(reverse("vms:vm-export"), {"patcher": "nobody"})
    lines = list(csv.DictReader(io.StringIO(b"".join(answer).decode("utf-8-sig"))))
    assert [(line["name"], line["patcher"]) for line in lines] == [("vm-nobody", "nobody")]
    url = reverse("updates:bulk-create")
    asked = client.get(url, {"kind": "assessment", "patcher": "nobody", "all": "1"})
    client.post(url, fields_of(asked, url) | {"confirm": "1", "go": "start"})
    (block,) = BulkRequest.objects.get().blocks.all()
    assert list(VirtualMachine.objects.filter(pk__in=block.vm_ids).values_list("name", flat=True)) == ["vm-nobody"]


@pytest.mark.usefixtures("one_of_each")
def test_the_filter_reads_its_index_in_order() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_sort = off")
        cursor.execute("DROP INDEX vms_vm_name")  # among a handful of machines its order would do as well
    plan = VirtualMachine.objects.filter(patcher="nobody").order_by("name", "id")[:51].explain()
    assert "vms_vm_patcher_name" in plan
    assert "Sort" not in plan


def test_the_switch_of_a_connection_is_one_answer_everywhere(
    client: Client, operator: User, resource_group: ResourceGroup
) -> None:
    vm = VirtualMachineFactory(resource_group=resource_group, connection=ConnectionFactory())
    patches = [PatchFactory(), PatchFactory(classification="Updates")]
    found = PatchSet.objects.create(digest=b"1", critical_and_security_count=1, other_count=1)
    PatchSetMember.objects.bulk_create(PatchSetMember(patch_set=found, patch=patch) for patch in patches)
    VmUpdateState.objects.create(vm=vm, os_build="20348.5020", last_assessed_at=timezone.now(), patch_set=found)
    client.force_login(operator)

    def shown(tab: str) -> str:
        page = client.get(reverse("updates:blade", args=[vm.pk]) + f"?tab={tab}").content.decode()
        return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))

    follow_schedules()
    assert patcher(vm) == "portal_automatically"
    assert shown("compliance").count("This portal, automatically") == 2  # the strip, and the update of its classes
    assert "Eligible" in shown("recommended")
    row = vm.connection
    row.is_patching_automatically = False
    save_connection(connection=row)
    assert patcher(vm) == "nobody"
    text = shown("compliance")
    assert "This portal, automatically" not in text
    assert "Automatic guest patching is off on its connection" in text
    assert "Not eligible" in shown("recommended")
