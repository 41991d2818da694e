"""Importing an inventory into PostgreSQL: what is written, what is reported, what it costs."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection as database
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from patching.terms import Classification, InstallationPlan
from tests.factories import ConnectionFactory, OperationFactory, PatchFactory, VirtualMachineFactory
from tests.patching.tables import rows
from tests.vms.importing import ImportFailedError, Report, import_file
from tests.vms.inventory import ARM_SAMPLE, AZ_ROW, AZ_SAMPLE, DATA, SCALE_SET, az_row, edited
from updates.models import InstalledPatch, KbHold, Operation, VmUpdateState
from updates.services.operations import RequestVerdict, request_installations
from vms.models import Connection, ResourceGroup, Subscription, VirtualMachine
from vms.services.imports import RowOutcome
from vms.services.inventory_rows import ROW_PROBLEMS, RowProblem

pytestmark = pytest.mark.django_db
AZ_ARM_ID = AZ_ROW["id"].lower()
PLAN = InstallationPlan(classifications=frozenset({Classification.SECURITY}))


@pytest.fixture
def simulator() -> Connection:
    return ConnectionFactory(name="Main fleet")


def run(connection: Connection, *rows: object, is_dry_run: bool = False) -> Report:
    return import_file(json.dumps(rows).encode(), connection, is_dry_run=is_dry_run)


def outcomes(report: Report) -> list[str]:
    return [row.outcome.value for row in report.rows]


def test_it_creates_the_samples_vm_with_its_group_and_subscription(simulator: Connection) -> None:
    report = import_file(AZ_SAMPLE, simulator)
    assert outcomes(report) == ["created"]
    vm = VirtualMachine.objects.get()
    assert vm.name == "web-001"
    assert vm.arm_id == vm.arm_id.lower()
    assert vm.vm_id == UUID("0f0f0f0f-0000-4000-8000-000000000001")
    assert vm.connection == simulator
    assert (vm.resource_group.name, vm.location, vm.zones) == ("RG-WEB", "japaneast", ["1"])
    assert str(vm.resource_group.subscription.subscription_id) == "11111111-2222-3333-4444-555555555555"
    assert vm.image_exact_version == "20348.5074.260507"
    assert (vm.patch_mode, vm.assessment_mode) == ("AutomaticByPlatform", "AutomaticByPlatform")
    assert vm.enable_hotpatching
    assert vm.power_state == "unknown"  # the file does not say
    assert (vm.update_status, vm.hotpatch_status, vm.hotpatch_track) == (
        "no_updates_data",
        "PendingEvaluation",
        "unknown",
    )


def test_both_formats_are_the_same_vm_and_a_second_import_changes_nothing(simulator: Connection) -> None:
    import_file(AZ_SAMPLE, simulator)
    before = VirtualMachine.objects.values().get()
    for sample in (AZ_SAMPLE, ARM_SAMPLE):
        assert outcomes(import_file(sample, simulator)) == ["unchanged"]
    assert VirtualMachine.objects.values().get() == before
    assert Subscription.objects.count() == ResourceGroup.objects.count() == 1


def test_it_names_the_fields_that_changed_and_writes_them(simulator: Connection) -> None:
    import_file(AZ_SAMPLE, simulator)
    row = edited("hardwareProfile.vmSize", "Standard_D8s_v5", az_row(tags={"env": "test", "x": "é'\"\\"}))
    report = run(simulator, row | {"powerState": "VM deallocated", "id": row["id"].replace("RG-WEB", "rg-web")})
    assert report.rows[0].outcome is RowOutcome.UPDATED
    assert set(report.rows[0].changed_fields) == {"vm_size", "tags", "power_state"}
    assert "power state" in report.rows[0].explanation
    vm = VirtualMachine.objects.get()
    assert vm.vm_size == "Standard_D8s_v5"
    assert vm.tags == {"env": "test", "x": "é'\"\\"}
    assert vm.power_state == "deallocated"
    assert vm.image_exact_version == "20348.5074.260507"


def test_an_update_keeps_what_assessments_found(simulator: Connection) -> None:
    import_file(AZ_SAMPLE, simulator)
    VirtualMachine.objects.update(
        update_status="updates_available",
        critical_and_security_count=3,
        other_count=2,
        is_reboot_pending=True,
        hotpatch_status="Enabled",
        hotpatch_track="on_track",
    )
    run(simulator, az_row(licenseType="Windows_Server"))
    vm = VirtualMachine.objects.get()
    assert vm.license_type == "Windows_Server"
    assert (vm.update_status, vm.critical_and_security_count, vm.other_count, vm.is_reboot_pending) == (
        "updates_available",
        3,
        2,
        True,
    )
    assert (vm.hotpatch_status, vm.hotpatch_track) == ("Enabled", "on_track")


def test_switching_hotpatch_off_in_azure_shows_at_once(simulator: Connection) -> None:
    import_file(AZ_SAMPLE, simulator)
    VirtualMachine.objects.update(
        update_status="updates_available", hotpatch_status="Enabled", hotpatch_track="on_track"
    )
    path = "osProfile.windowsConfiguration.patchSettings.enableHotpatching"
    report = run(simulator, edited(path, value=False))
    assert set(report.rows[0].changed_fields) == {"enable_hotpatching", "hotpatch_status", "hotpatch_track"}
    vm = VirtualMachine.objects.get()
    assert (vm.hotpatch_status, vm.hotpatch_track) == ("Disabled", "not_on_train")
    run(simulator, az_row())
    vm.refresh_from_db()
    assert (vm.hotpatch_status, vm.hotpatch_track) == ("Enabled", "unknown")


@pytest.mark.parametrize(
    ("image", "update_status"),
    [
        ({"sku": "2022-datacenter-azure-edition", "version": "latest", "exactVersion": "20348.1.2"}, "no_updates_data"),
        ({"sku": "2022-datacenter-azure-edition", "version": "20348.1.2"}, "no_updates_data"),
        ({"sku": "2019-datacenter", "version": "latest", "exactVersion": "17763.1.2"}, "unsupported"),
        (None, "unsupported"),
    ],
)
def test_a_vm_outside_the_catalogue_is_not_available(
    simulator: Connection, image: dict[str, str] | None, update_status: str
) -> None:
    full = image and {"publisher": "MicrosoftWindowsServer", "offer": "WindowsServer", **image}
    run(simulator, edited("storageProfile.imageReference", full))
    vm = VirtualMachine.objects.get()
    assert (vm.update_status, vm.hotpatch_status, vm.hotpatch_track) == (
        update_status,
        "NotAvailable",
        "not_on_train",
    )


def test_another_image_forgets_the_build_of_the_one_before(simulator: Connection) -> None:
    run(simulator, az_row())
    image = {"publisher": "MicrosoftWindowsServer", "offer": "WindowsServer", "sku": "2025-datacenter-azure-edition"}
    report = run(simulator, edited("storageProfile.imageReference", image))
    assert "image_exact_version" in report.rows[0].changed_fields
    assert VirtualMachine.objects.get().image_exact_version == ""


def test_rows_around_a_bad_one_are_imported(simulator: Connection) -> None:
    report = run(
        simulator,
        az_row("web-001"),
        edited("storageProfile.osDisk.osType", "Linux", az_row("lin-001")),
        {},
        az_row("uni-001") | {"id": f"{SCALE_SET}/virtualMachines/0"},
        az_row("web-002"),
    )
    assert outcomes(report) == ["created", "skipped", "skipped", "skipped", "created"]
    assert [row.problem for row in report.rows] == [
        None,
        RowProblem.LINUX,
        RowProblem.NO_ID,
        RowProblem.UNIFORM_WITH_HOTPATCH,
        None,
    ]
    assert [row.number for row in report.rows] == [1, 2, 3, 4, 5]
    assert report.rows[1].name == "lin-001"
    assert report.counts == {
        **dict.fromkeys(RowOutcome, 0),
        RowOutcome.CREATED: 2,
        RowOutcome.SKIPPED: 3,
    }
    assert (report.total, report.page.linux) == (5, 1)
    assert [row.number for row in report.page.rows] == [1, 5, 3, 4, 2], "changes first, Linux last"
    assert set(VirtualMachine.objects.values_list("name", flat=True)) == {"web-001", "web-002"}


def test_every_problem_has_words(simulator: Connection) -> None:
    assert set(ROW_PROBLEMS) == set(RowProblem)
    report = run(simulator, edited("zones", [7]), 5)
    assert [row.explanation for row in report.rows] == [
        "zones has a value of the wrong type.",
        "This row is not a virtual machine but a number.",
    ]


def test_vms_that_the_file_does_not_name_stay(simulator: Connection) -> None:
    other = VirtualMachineFactory(connection=simulator)
    before = VirtualMachine.objects.values().get(pk=other.pk)
    run(simulator, az_row())
    assert VirtualMachine.objects.values().get(pk=other.pk) == before


def test_a_vm_of_another_connection_is_left_where_it_is(simulator: Connection) -> None:
    run(simulator, az_row())
    report = run(ConnectionFactory(name="Second"), az_row(licenseType="x"))
    assert report.rows[0].explanation == "This VM belongs to the connection Main fleet."
    vm = VirtualMachine.objects.get()
    assert (vm.connection, vm.license_type) == (simulator, "")


def test_a_dry_run_reports_the_same_and_changes_nothing(simulator: Connection) -> None:
    run(simulator, az_row("web-001"))
    before = list(VirtualMachine.objects.values())
    rows = [
        az_row("web-001", licenseType="x"),
        az_row("web-002") | {"id": az_row("web-002")["id"].replace("RG", "NEW")},
        {},
    ]
    dry = run(simulator, *rows, is_dry_run=True)
    assert dry.job.is_dry_run
    assert list(VirtualMachine.objects.values()) == before
    assert ResourceGroup.objects.count() == 1
    assert run(simulator, *rows).rows == dry.rows


@pytest.mark.parametrize("data", [b"", b"[", b"nonsense", AZ_SAMPLE[:-40], json.dumps([az_row(), az_row()]).encode()])
def test_an_unusable_file_changes_nothing(simulator: Connection, data: bytes) -> None:
    with pytest.raises(ImportFailedError):
        import_file(data, simulator)
    assert not VirtualMachine.objects.exists()
    assert not Subscription.objects.exists()


def test_groups_differing_in_case_are_one(simulator: Connection) -> None:
    upper, lower = az_row("web-001"), az_row("web-002")
    lower["id"] = lower["id"].lower()
    run(simulator, upper, lower)
    assert ResourceGroup.objects.get().name in {"RG-WEB", "rg-web"}


def test_its_statements_do_not_grow_with_the_rows(simulator: Connection) -> None:
    def cost(count: int, prefix: str, **changes: object) -> int:
        rows = [az_row(f"{prefix}{n}", **changes) for n in range(count)]
        for n, row in enumerate(rows):
            row["id"] = row["id"].replace("RG-WEB", f"{prefix}-{n}")
        with CaptureQueriesContext(database) as queries:
            run(simulator, *rows)
        return len(queries)

    run(simulator, az_row())  # makes the subscription
    assert cost(1, "a") == cost(200, "b")  # all created, in new groups
    assert cost(1, "a", licenseType="x") == cost(200, "b", licenseType="x")  # all updated


# --- who a machine is --------------------------------------------------------------------------------------------

A, B = str(uuid5(NAMESPACE_URL, "a")), str(uuid5(NAMESPACE_URL, "b"))
VM_IDS = {"": None, "none": None, "A": A, "B": B}


@pytest.mark.parametrize("row", rows("inventory-identity"), ids=lambda row: " · ".join(row.values()))
def test_who_a_machine_is(simulator: Connection, row: dict[str, str]) -> None:
    if row["under the resource id"] == "machine":
        run(simulator, az_row(vmId=VM_IDS[row["its VM id"]]))
    if row["under the row's VM id"] == "another resource id":
        run(simulator, az_row("old", vmId=VM_IDS[row["row's VM id"]]))
    before = VirtualMachine.objects.count()
    (answer,) = run(simulator, az_row(vmId=VM_IDS[row["row's VM id"]], licenseType="x")).rows
    assert answer.outcome.value == row["outcome"]
    assert VirtualMachine.objects.count() == before + (row["outcome"] == "created")
    if row["outcome"] != "skipped":
        vm = VirtualMachine.objects.get(arm_id=AZ_ARM_ID)
        known = VM_IDS[row["row's VM id"]] or VM_IDS[row["its VM id"]]
        assert (vm.license_type, vm.vm_id) == ("x", UUID(known) if known else None)
        assert bool(vm.replaced_at) is (row["outcome"] == "replaced")


def test_a_moved_machine_keeps_what_is_known_of_it(simulator: Connection) -> None:
    run(simulator, az_row(vmId=A))
    VirtualMachine.objects.update(update_status="updates_available", critical_and_security_count=3)
    before = VirtualMachine.objects.get()
    moved = az_row(vmId=A)
    moved["id"] = moved["id"].replace("RG-WEB", "RG-new")
    (answer,) = run(simulator, moved).rows
    assert answer.outcome is RowOutcome.MOVED
    assert before.arm_id in answer.explanation
    after = VirtualMachine.objects.get()
    assert (after.pk, after.resource_group.name, after.critical_and_security_count) == (before.pk, "RG-new", 3)
    assert "/rg-new/" in after.arm_id


def test_a_move_makes_room_for_another_machine(simulator: Connection) -> None:
    """In one file, whatever the order: the machine moves on, and the new one that has its id is created."""
    run(simulator, az_row("one", vmId=A))
    here = VirtualMachine.objects.get()
    report = run(simulator, az_row("one", vmId=B), az_row("two", vmId=A))
    assert sorted(outcomes(report)) == ["created", "moved"]
    assert VirtualMachine.objects.get(pk=here.pk).name == "two"
    assert str(VirtualMachine.objects.get(name="one").vm_id) == B


def test_two_rows_of_one_vm_id_are_one_machine(simulator: Connection) -> None:
    report = run(simulator, az_row("one", vmId=A), az_row("two", vmId=A.upper()))
    assert outcomes(report) == ["created", "skipped"]
    assert report.rows[1].problem is RowProblem.SAME_VM_ID
    assert "Row 1" in report.rows[1].explanation


@pytest.mark.parametrize("names", [("one", "copy"), ("copy", "one")])
def test_a_copy_beside_its_machine_is_no_move(simulator: Connection, names: tuple[str, str]) -> None:
    """A restored copy has the VM id of the machine that is still where it was: in whatever order, the machine stays."""
    run(simulator, az_row("one", vmId=A))
    report = run(simulator, *(az_row(name, vmId=A) for name in names))
    assert {row.name: row.outcome.value for row in report.rows} == {"one": "unchanged", "copy": "skipped"}
    assert VirtualMachine.objects.get().name == "one"


def test_another_machine_under_the_id_starts_anew(simulator: Connection, operator: User) -> None:
    run(simulator, az_row(vmId=A, instanceView={"osVersion": "10.0.20348.5020"}))
    vm = VirtualMachine.objects.get()
    VirtualMachine.objects.update(
        update_status="updates_available",
        critical_and_security_count=3,
        other_count=2,
        is_reboot_pending=True,
        hotpatch_status="Enabled",
        hotpatch_track="on_track",
    )
    patch = PatchFactory()
    installed = InstalledPatch.objects.create(vm=vm, patch=patch, installed_on=timezone.now())
    KbHold.objects.create(vm=vm, kb_number="5034129")
    VmUpdateState.objects.create(vm=vm, os_build="20348.5020", last_assessed_at=timezone.now())
    old = OperationFactory(
        vm=vm,
        kind="installation",
        state="succeeded",
        verification="pending",
        next_step_at=None,
        finished_at=timezone.now(),
    )
    waiting = OperationFactory(vm=vm, kind="installation")
    assert outcomes(run(simulator, az_row(vmId=B), is_dry_run=True)) == ["replaced"]
    assert VirtualMachine.objects.get().replaced_at is None
    assert InstalledPatch.objects.filter(pk=installed.pk).exists()

    (answer,) = run(simulator, az_row(vmId=B)).rows
    assert answer.outcome is RowOutcome.REPLACED
    assert "assess it" in answer.explanation
    vm.refresh_from_db()
    assert (vm.update_status, vm.critical_and_security_count, vm.other_count, vm.is_reboot_pending) == (
        "no_updates_data",
        0,
        0,
        False,
    )
    assert (vm.hotpatch_status, vm.hotpatch_track, vm.os_build) == ("PendingEvaluation", "unknown", "")
    assert not InstalledPatch.objects.filter(vm=vm).exists()
    assert not KbHold.objects.filter(vm=vm).exists()
    state = VmUpdateState.objects.get(vm=vm)
    assert (state.os_build, state.last_assessed_at, state.is_awaiting_assessment) == ("", None, True)
    old.refresh_from_db()
    waiting.refresh_from_db()
    assert (old.state, old.verification, waiting.state) == ("succeeded", "not_verifiable", "cancelled")
    assert list(Operation.objects.open().filter(vm=vm).values_list("kind", flat=True)) == ["assessment"]
    (refused,) = request_installations(vm_ids=[vm.pk], plan=PLAN, requested_by=operator, is_bulk=True)
    assert refused.verdict is RequestVerdict.REFUSED, "nothing is installed before an assessment has answered"
    # the same file again finds the machine that it knows
    assert outcomes(run(simulator, az_row(vmId=B))) == ["unchanged"]


# --- the command -------------------------------------------------------------------------------------------------


def command(*args: str) -> str:
    out = StringIO()
    call_command("import_vms", *args, stdout=out, stderr=StringIO())
    return out.getvalue()


def test_the_command_imports_into_the_first_simulator_connection(simulator: Connection) -> None:
    ConnectionFactory(name="Another")
    printed = command(str(DATA / "az_vm_list_sample.json"))
    assert "Created    web-001" in printed
    assert "0 replaced, 0 moved, 0 updated, 1 created, 0 skipped, 0 unchanged" in printed
    assert VirtualMachine.objects.get().connection == simulator


def test_the_command_takes_a_connection_and_a_dry_run(simulator: Connection) -> None:
    ConnectionFactory(name="Another")
    path = str(DATA / "arm_vm_list_sample.json")
    assert "nothing was changed" in command(path, "--connection", "Another", "--dry-run")
    assert not VirtualMachine.objects.exists()
    command(path, "--connection", "Another")
    assert VirtualMachine.objects.get().connection.name == "Another"


def test_the_command_says_in_one_sentence_why_not(simulator: Connection, tmp_path: Path, settings: Any) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("[")
    with pytest.raises(CommandError, match="cut off"):
        command(str(broken))
    with pytest.raises(CommandError, match="No such file"):
        command(str(tmp_path / "absent.json"))
    with pytest.raises(CommandError, match=r"no connection called “X”. There are: Main fleet"):
        command(str(broken), "--connection", "X")
    broken.write_text("[{}]")
    with pytest.raises(CommandError, match="No row could be used"):
        command(str(broken))
    settings.MAX_IMPORT_BYTES = 2
    with pytest.raises(CommandError, match="too large"):
        command(str(broken))


def test_the_command_needs_a_connection_to_import_into() -> None:
    with pytest.raises(CommandError, match="There is no simulator connection"):
        command(str(DATA / "az_vm_list_sample.json"))
