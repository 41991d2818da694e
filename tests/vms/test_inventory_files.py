"""What makes a file unreadable, and what makes a row unusable; no database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.kb_numbers import is_invisible
from tests.patching.tables import flag, rows
from tests.vms.inventory import ARM_ROW, ARM_SAMPLE, AZ_ROW, AZ_SAMPLE, SCALE_SET, az_row, edited
from vms.services.inventory_files import InventoryFileError, InventoryReader
from vms.services.inventory_rows import (
    BadRow,
    InventoryRow,
    RowProblem,
    VmFacts,
    facts_from_json,
    facts_to_json,
)


@dataclass(frozen=True)
class Inventory:
    rows: tuple[InventoryRow, ...]
    has_more_pages: bool
    passed_over: str


def read_inventory(data: bytes) -> Inventory:
    reader = InventoryReader(lambda byte: iter([data[byte:]]))
    rows = tuple(reader)
    return Inventory(rows, reader.has_more_pages, reader.passed_over)


def read(*rows: object) -> tuple[InventoryRow, ...]:
    return read_inventory(json.dumps(rows).encode()).rows


def facts(row: object) -> VmFacts:
    content = read(row)[0].content
    assert isinstance(content, VmFacts), content
    return content


def problem(row: object) -> BadRow:
    content = read(row)[0].content
    assert isinstance(content, BadRow), content
    return content


# --- readable files ----------------------------------------------------------------------------------------------


def test_az_and_arm_print_the_same_vm() -> None:
    az, arm = (read_inventory(sample).rows[0].content for sample in (AZ_SAMPLE, ARM_SAMPLE))
    assert isinstance(az, VmFacts)
    assert isinstance(arm, VmFacts)
    assert az.arm_id == arm.arm_id
    assert az.resource_group == arm.resource_group == "RG-WEB"
    assert {key: value for key, value in az.values.items() if key in arm.values} == arm.values
    assert az.values.keys() - arm.values.keys() == {"image_exact_version"}
    assert az.values["provision_vm_agent"] is True
    assert az.values["time_zone"] == "Tokyo Standard Time"
    assert az.values["enable_hotpatching"] is True
    assert az.values["zones"] == ["1"]
    assert az.values["tags"] == {"env": "prod"}


def test_it_reads_one_vm_alone() -> None:
    rows = read_inventory(json.dumps(ARM_ROW).encode()).rows
    assert [row.name for row in rows] == ["web-001"]
    assert isinstance(rows[0].content, VmFacts)


def test_it_says_when_the_list_goes_on_at_another_page() -> None:
    page = {"value": [ARM_ROW], "nextLink": "https://management.azure.com/next"}
    assert read_inventory(json.dumps(page).encode()).has_more_pages
    assert not read_inventory(ARM_SAMPLE).has_more_pages


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_it_reads_every_encoding_that_json_and_powershell_use(encoding: str) -> None:
    text = json.dumps([az_row("ウェブ-1")], ensure_ascii=False)
    assert read_inventory(text.encode(encoding)).rows[0].name == "ウェブ-1"


def test_an_empty_list_is_readable() -> None:
    assert read() == ()


# --- unreadable files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b" \n\t", "empty"),
        ("\ufeff".encode(), "empty"),
        (b"\xff\xfa", "byte at position 1"),
        (b"\xff\xfe[\x00\x00", "byte at position"),
        (b"hello", "line 1, column 1"),
        (b"<html>", "not valid JSON"),
        (b"42", "not a list of virtual machines"),
        (b'"text"', "not a list of virtual machines"),
        (b'{"error": {"code": "AuthorizationFailed"}}', "not a list of virtual machines"),
        (b'{"value": {}}', "not a list of virtual machines"),
        (b'{"value": [], "value": []}', "not a list of virtual machines"),
        (b"[", "cut off"),
        (b"[{},", "cut off in row 2"),
        (b'[\n{"id": "x"},\n{"id": "y"', "cut off in row 2: line 3, column 11"),
        (b'[\n{"id": "x"},\n{"id": "y', "cut off in row 2: line 3, column 8"),
        (b'[{"id": "x",}]', "line 1, column 13, in row 1"),
        (b"[{} {}]", "line 1, column 5, in row 1"),
        (b"[] x", "line 1, column 4"),
        (b"[" * 100_000, "cut off in row 1"),
        (b'{"value": [' + b"[" * 100_000, "cut off in row 1"),
        (b"{" * 100_000, "not valid JSON"),
        (b"{1: 2}", "not valid JSON"),
    ],
)
def test_it_refuses_an_unreadable_file_and_says_where(data: bytes, words: str) -> None:
    with pytest.raises(InventoryFileError) as refusal:
        read_inventory(data)
    assert words in str(refusal.value)


# --- hostile rows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [70, 100_000])
def test_a_row_nested_too_deeply_costs_only_itself(depth: int) -> None:
    deep = '{"id": "x", "tags": ' + "[" * depth + "]" * depth + "}"
    good = json.dumps(az_row())
    rows = read_inventory(f'[{deep}, {good}, {{"a": "]}}[{{"}}]'.encode()).rows
    assert [type(row.content) for row in rows] == [BadRow, VmFacts, BadRow]
    assert rows[0].content == BadRow(RowProblem.NESTED_TOO_DEEPLY, "64")
    assert rows[1].number == 2


@pytest.mark.parametrize("number", ["9" * 19, "-" + "9" * 5_000, "1e999", "NaN", "-Infinity"])
def test_a_number_that_nothing_holds_is_named_with_its_place(number: str) -> None:
    rows = read_inventory(f'[{json.dumps(az_row())}, {{"id": "x", "a": [{{"b": {number}}}]}}]'.encode()).rows
    assert isinstance(rows[0].content, VmFacts)
    assert rows[1].content == BadRow(RowProblem.NUMBER_TOO_LARGE, "a[0].b")


@pytest.mark.parametrize("nul", ["\\u0000", "\x00"])
def test_a_nul_is_named_with_its_place(nul: str) -> None:
    text = json.dumps([az_row(), edited("osProfile.computerName", "NUL")]).replace('"NUL"', f'"a{nul}b"')
    text = text.replace("web-001", "web-002", 2)
    rows = read_inventory(text.encode()).rows
    assert [type(row.content) for row in rows] == [VmFacts, BadRow]
    assert rows[1].content == BadRow(RowProblem.NUL_CHARACTER, "osProfile.computerName")


def test_half_a_character_is_named_with_its_place() -> None:
    assert problem(edited("osProfile.computerName", "\ud800")) == BadRow(
        RowProblem.BROKEN_CHARACTER, "osProfile.computerName"
    )


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (None, BadRow(RowProblem.NOT_AN_OBJECT, "null")),
        (3, BadRow(RowProblem.NOT_AN_OBJECT, "a number")),
        (["x"], BadRow(RowProblem.NOT_AN_OBJECT, "a list")),
        ({}, BadRow(RowProblem.NO_ID)),
        (edited("id", " "), BadRow(RowProblem.NO_ID)),
        (edited("id", 7), BadRow(RowProblem.WRONG_TYPE, "id")),
        (edited("id", "web-001"), BadRow(RowProblem.MALFORMED_ID, "web-001")),
        (edited("id", AZ_ROW["id"] + "/extensions/x"), None),
        (edited("id", AZ_ROW["id"].replace("1111-", "111x-")), None),
        (edited("storageProfile.osDisk.osType", "Linux"), BadRow(RowProblem.LINUX)),
        (edited("osProfile.linuxConfiguration", {}), BadRow(RowProblem.LINUX)),
        (edited("osProfile", None, edited("storageProfile.osDisk", None)), BadRow(RowProblem.OS_NOT_NAMED)),
        (
            edited("storageProfile.osDisk.osType", "Plan9"),
            BadRow(RowProblem.UNKNOWN_VALUE, "storageProfile.osDisk.osType"),
        ),
        (edited("location", None), BadRow(RowProblem.MISSING_VALUE, "location")),
        (edited("tags", {"n": 1}), BadRow(RowProblem.WRONG_TYPE, "tags")),
        (edited("tags", ["x"]), BadRow(RowProblem.WRONG_TYPE, "tags")),
        (edited("tags", {"x": "y" * 257}), BadRow(RowProblem.VALUE_TOO_LONG, "tags")),
        (edited("zones", [1]), BadRow(RowProblem.WRONG_TYPE, "zones")),
        (edited("vmId", "none"), BadRow(RowProblem.UNKNOWN_VALUE, "vmId")),
        (edited("name", "web-002"), BadRow(RowProblem.NAME_DIFFERS, "web-002")),
        (
            edited("name", "x" * 81, edited("id", AZ_ROW["id"].replace("web-001", "x" * 81))),
            BadRow(RowProblem.VALUE_TOO_LONG, "name"),
        ),
        (edited("id", AZ_ROW["id"].replace("RG-WEB", "g" * 91)), BadRow(RowProblem.VALUE_TOO_LONG, "resource group")),
        (edited("storageProfile", "x"), BadRow(RowProblem.WRONG_TYPE, "storageProfile")),
        (
            edited("osProfile.windowsConfiguration.provisionVmAgent", "true"),
            BadRow(RowProblem.WRONG_TYPE, "osProfile.windowsConfiguration.provisionVMAgent"),
        ),
        (
            edited("osProfile.windowsConfiguration.patchSettings.patchMode", "Sometimes"),
            BadRow(RowProblem.UNKNOWN_VALUE, "osProfile.windowsConfiguration.patchSettings.patchMode"),
        ),
    ],
)
def test_a_row_that_cannot_be_used_says_why(row: object, expected: BadRow | None) -> None:
    found = problem(row)
    assert found == expected if expected else found.problem == RowProblem.MALFORMED_ID


# --- defaults and differences ------------------------------------------------------------------------------------


def test_missing_settings_are_arms_defaults() -> None:
    values = facts(edited("osProfile.windowsConfiguration", {"patchSettings": None})).values
    assert values["patch_mode"] == "AutomaticByOS"
    assert values["assessment_mode"] == "ImageDefault"
    assert values["enable_hotpatching"] is False
    assert values["reboot_setting"] == "IfRequired"
    assert values["provision_vm_agent"] is True
    assert values["enable_automatic_updates"] is True
    assert values["bypass_platform_safety_checks"] is False


def test_values_are_known_by_their_words_whatever_their_case() -> None:
    path = "osProfile.windowsConfiguration.patchSettings.patchMode"
    assert facts(edited(path, "automaticbyPLATFORM")).values["patch_mode"] == "AutomaticByPlatform"


def test_an_unknown_reboot_setting_is_the_default() -> None:
    path = "osProfile.windowsConfiguration.patchSettings.automaticByPlatformSettings.rebootSetting"
    assert facts(edited(path, "Unknown")).values["reboot_setting"] == "IfRequired"


def test_nulls_are_absences() -> None:
    row = az_row(zones=None, tags=None, licenseType=None, vmId=None, provisioningState=None)
    values = facts(edited("storageProfile.imageReference", None, row)).values
    assert values["zones"] == []
    assert values["tags"] == {}
    assert values["license_type"] == values["image_sku"] == values["image_resource_id"] == ""
    assert not {"vm_id", "provisioning_state", "image_exact_version", "power_state"} & values.keys()


def test_a_gallery_image_keeps_its_id() -> None:
    image = "/subscriptions/x/resourceGroups/y/providers/Microsoft.Compute/images/golden"
    values = facts(edited("storageProfile.imageReference", {"id": image})).values
    assert values["image_resource_id"] == image


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"powerState": "VM running"}, "running"),
        ({"powerState": "VM deallocated"}, "deallocated"),
        ({"powerState": "VM melting"}, "unknown"),
        ({"powerState": ""}, None),
        (
            {"instanceView": {"statuses": [{"code": "ProvisioningState/succeeded"}, {"code": "PowerState/stopped"}]}},
            "stopped",
        ),
        ({"instanceView": {"statuses": ["x", {"code": 1}]}}, None),
    ],
)
def test_power_state_is_read_from_az_and_from_the_instance_view(changes: dict[str, Any], expected: str | None) -> None:
    assert facts(az_row(**changes)).values.get("power_state") == expected


# --- scale sets --------------------------------------------------------------------------------------------------


def _hotpatch(row: dict[str, Any], is_on: bool) -> dict[str, Any]:
    return edited("osProfile.windowsConfiguration.patchSettings.enableHotpatching", is_on, row)


def test_a_vm_that_refers_to_a_scale_set_is_flexible() -> None:
    values = facts(az_row(virtualMachineScaleSet={"id": SCALE_SET})).values
    assert values["scale_set"] == SCALE_SET
    assert values["scale_set_orchestration"] == "Flexible"


def test_a_vm_under_a_scale_set_is_uniform_and_refused_with_hotpatch() -> None:
    row = az_row() | {"id": f"{SCALE_SET}/virtualMachines/0", "name": "pool_0"}
    assert problem(_hotpatch(row, is_on=True)) == BadRow(RowProblem.UNIFORM_WITH_HOTPATCH)
    values = facts(_hotpatch(row, is_on=False)).values
    assert values["scale_set"] == SCALE_SET
    assert values["scale_set_orchestration"] == "Uniform"


def test_a_uniform_instance_without_a_name_gets_azures() -> None:
    row = _hotpatch(az_row() | {"id": f"{SCALE_SET}/virtualMachines/0", "name": None}, is_on=False)
    assert facts(row).values["name"] == "pool_0"


def test_a_flexible_vm_may_have_hotpatch() -> None:
    check: Callable[[dict[str, Any]], VmFacts] = facts
    assert check(_hotpatch(az_row(virtualMachineScaleSet={"id": SCALE_SET}), is_on=True)).values["enable_hotpatching"]


# --- the forms that people get -----------------------------------------------------------------------------------

POWERSHELL_ROW: dict[str, Any] = {
    "ResourceGroupName": "RG-WEB",
    "Id": AZ_ROW["id"],
    "VmId": AZ_ROW["vmId"],
    "Name": "web-001",
    "Type": "Microsoft.Compute/virtualMachines",
    "Location": "japaneast",
    "Tags": {"env": "prod", "owner": None},
    "HardwareProfile": {"VmSize": "Standard_D4s_v5"},
    "PowerState": "VM running",
    "StorageProfile": {
        "ImageReference": {
            "Publisher": "MicrosoftWindowsServer",
            "Offer": "WindowsServer",
            "Sku": "2022-datacenter-azure-edition-core",
            "Version": "latest",
        },
        "OsDisk": {"OsType": 0},
    },
    "OSProfile": {
        "ComputerName": "web-001",
        "WindowsConfiguration": {
            "ProvisionVMAgent": True,
            "PatchSettings": {"PatchMode": "AutomaticByPlatform", "EnableHotpatching": True},
        },
    },
    "Zones": ["1"],
}


def text(*rows: dict[str, Any]) -> str:
    return json.dumps(list(rows))


TWO = (az_row("web-001"), az_row("web-002"))
FORMS: dict[str, str] = {
    "Resource Graph over REST": json.dumps({"totalRecords": 2, "count": 2, "data": list(TWO), "facets": []}),
    "az graph query": json.dumps({"count": 2, "data": list(TWO), "skip_token": None, "total_records": 2}, indent=2),
    "Resource Graph's table": json.dumps(
        {
            "data": {
                "columns": [{"name": name, "type": "object"} for name in AZ_ROW],
                "rows": [[row[name] for name in AZ_ROW] for row in TWO],
            }
        }
    ),
    "ARM": json.dumps({"value": list(TWO)}),
    "ARM, keys of PowerShell": json.dumps({"Value": list(TWO), "NextLink": None}),
    "JSON lines": "\n".join(json.dumps(row) for row in TWO) + "\n",
    "a JSON sequence": "".join(f"\x1e{json.dumps(row)}\n" for row in TWO),
    "concatenated lists": text(TWO[0]) + "\n" + text(TWO[1]),
    "concatenated lists without a break": text(TWO[0]) + text(TWO[1]),
    "concatenated files with their marks": "\ufeff" + text(TWO[0]) + "\r\n\ufeff" + text(TWO[1]),
    "concatenated pages": json.dumps({"value": [TWO[0]]}) + json.dumps({"value": [TWO[1]]}),
    "pages in a list": json.dumps([{"value": [TWO[0]]}, {"data": [TWO[1]]}]),
    "lists in a list": json.dumps([[TWO[0]], [TWO[1]]]),
    "a warning before it": "WARNING: The default kind of login will change.\n" + text(*TWO),
    "warnings with brackets before it": "[WARNING] old {version}\nsee [1]\n  " + json.dumps(list(TWO), indent=2),
    "a warning before JSON lines": "note\n" + "\n".join(json.dumps(row) for row in TWO),
    "a prompt before an object": "PS C:\\> az graph query\n" + json.dumps({"count": 2, "data": list(TWO)}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_it_reads_the_forms_that_people_get(form: str, encoding: str) -> None:
    found = read_inventory(FORMS[form].encode(encoding))
    assert [(row.number, row.name) for row in found.rows] == [(1, "web-001"), (2, "web-002")]
    assert all(isinstance(row.content, VmFacts) for row in found.rows)
    assert not found.has_more_pages
    assert bool(found.passed_over) is ("before" in form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_file_is_the_same_however_it_is_cut_and_whoever_goes_on(form: str, encoding: str, size: int) -> None:
    """Pieces of any size; after each step another reader goes on from the state of the one before."""
    data = FORMS[form].replace("japaneast", "ja東paneast").encode(encoding)

    def pieces(byte: int) -> Iterator[bytes]:
        return (data[at : at + size] for at in range(byte, len(data), size))

    rows: list[InventoryRow] = []
    state = None
    while True:
        reader = InventoryReader(pieces, state=state)
        rows += reader.read(1)
        state = json.loads(json.dumps(reader.state()))
        if reader.is_over:
            break
    whole = read_inventory(data)
    assert tuple(rows) == whole.rows
    assert (state["byte"], reader.passed_over) == (len(data), whole.passed_over)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_too_large_to_be_decoded_as_one_is_read_member_by_member(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = FORMS[form].encode()
    monkeypatch.setattr("vms.services.inventory_files.LARGEST_VALUE", 1_600)
    monkeypatch.setattr("vms.services.inventory_files._WARNINGS", 200)
    reader = InventoryReader(lambda byte: (data[at : at + 100] for at in range(byte, len(data), 100)))
    assert tuple(reader) == read_inventory(data).rows


def test_a_row_that_is_larger_than_any_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vms.services.inventory_files.LARGEST_VALUE", 2_000)
    monkeypatch.setattr("vms.services.inventory_files._WARNINGS", 200)
    for huge in ("x" * 10_000, {"a": "x" * 1_900, "b": "y" * 1_900, "c": "z" * 1_900}, "[" * 10_000):
        data = huge if isinstance(huge, str) and huge[0] == "[" else json.dumps([AZ_ROW, huge])
        pieces = [data[at : at + 500].encode() for at in range(0, len(data), 500)]
        with pytest.raises(InventoryFileError, match="is larger than"):
            tuple(InventoryReader(lambda _byte, pieces=pieces: iter(pieces)))


def test_facts_come_back_as_they_were() -> None:
    found = facts(az_row(tags={"é": "\"'"}, osProfile=AZ_ROW["osProfile"] | {"computerName": "a\u200bb"}))
    assert facts_from_json(json.loads(json.dumps(facts_to_json(found)))) == found
    assert found.cleaned == ("osProfile.computerName",)


@given(
    st.one_of(
        st.binary(max_size=200), st.text(alphabet='[]{}":,\\n1nul\ufeffabid data value', max_size=60).map(str.encode)
    )
)
def test_any_bytes_are_rows_or_a_refusal(data: bytes) -> None:
    with suppress(InventoryFileError):
        found = read_inventory(data)
        assert [row.number for row in found.rows] == list(range(1, len(found.rows) + 1))


def test_a_list_of_other_things_is_read_from_its_beginning() -> None:
    found = read_inventory(f"[null,\n{json.dumps(AZ_ROW)}]".encode())
    assert [isinstance(row.content, VmFacts) for row in found.rows] == [False, True]
    assert found.passed_over == ""


def test_what_stands_before_the_json_is_told() -> None:
    assert read_inventory(b"WARNING: old az\n[]").passed_over == "WARNING: old az"


@pytest.mark.parametrize(
    "page",
    [
        {"data": [AZ_ROW], "$skipToken": "x"},
        {"count": 1, "data": [AZ_ROW], "skip_token": "x"},
        {"data": [AZ_ROW], "resultTruncated": "true"},
        {"value": [AZ_ROW], "@odata.nextLink": "https://x"},
        [{"value": [AZ_ROW], "nextLink": "https://x"}],
    ],
)
def test_every_form_says_when_it_is_a_page(page: object) -> None:
    assert read_inventory(json.dumps(page).encode()).has_more_pages


@pytest.mark.parametrize(
    "data",
    [
        b'[{"id": 1}] x',
        b'[]\n[{"id": 1}',
        b'{"id": "a"}\n"text"',
        b'{"data": 3}',
        b'{"data": {"columns": 1, "rows": []}}',
        b"WARNING: only words",
        b"WARNING\n[ {",
        b'{"value": [], "data": []}',
    ],
)
def test_what_is_none_of_them_is_refused(data: bytes) -> None:
    with pytest.raises(InventoryFileError):
        read_inventory(data)


def test_powershell_prints_the_same_vm() -> None:
    found = facts(POWERSHELL_ROW)
    assert found.values["vm_id"] == UUID(AZ_ROW["vmId"])
    assert (found.values["name"], found.resource_group) == ("web-001", "RG-WEB")
    assert found.values["tags"] == {"env": "prod", "owner": ""}
    assert found.values["power_state"] == "running"
    assert found.values["enable_hotpatching"] is True
    assert found.values["image_sku"] == "2022-datacenter-azure-edition-core"
    assert problem(edited("StorageProfile.OsDisk.OsType", 1, POWERSHELL_ROW)) == BadRow(RowProblem.LINUX)
    assert problem(edited("StorageProfile.OsDisk.OsType", 7, POWERSHELL_ROW)).problem is RowProblem.WRONG_TYPE
    for path, cut in (
        ("StorageProfile", "Microsoft.Azure.Management.Compute.Models.StorageProfile"),
        ("OSProfile.WindowsConfiguration", "@{ProvisionVMAgent=True}"),
        ("Tags", "System.Collections.Generic.Dictionary`2[System.String,System.String]"),
    ):
        assert problem(edited(path, cut, POWERSHELL_ROW)).problem is RowProblem.CUT_SHORT


# --- what the file knows -----------------------------------------------------------------------------------------


def test_what_the_file_knows_is_kept() -> None:
    instance_view = {
        "osName": "Windows Server 2022 Datacenter Azure Edition",
        "osVersion": "10.0.20348.5020",
        "vmAgent": {"vmAgentVersion": "2.7", "statuses": [{"code": "x", "displayStatus": "Ready"}]},
        "patchStatus": {
            "availablePatchSummary": {
                "status": "Succeeded",
                "assessmentActivityId": "x",
                "rebootPending": False,
                "criticalAndSecurityPatchCount": 3,
                "otherPatchCount": 1,
                "startTime": "2026-11-01T00:00:00Z",
                "error": {"code": "Success", "details": []},
            },
            "configurationStatuses": [{"code": "x"}],
        },
        "statuses": [{"code": "PowerState/running"}],
    }
    values = facts(
        az_row(
            instanceView=instance_view,
            plan={"name": "n", "publisher": "p", "product": "o"},
            priority="Spot",
            extendedLocation={"name": "losangeles", "type": "EdgeZone"},
        )
    ).values
    assert (values["os_version"], values["os_build"]) == ("10.0.20348.5020", "20348.5020")
    assert (values["plan"], values["priority"], values["edge_zone"]) == ("p:o:n", "Spot", "losangeles")
    assert (values["agent_status"], values["power_state"]) == ("Ready", "running")
    assert values["patch_status"] == {
        "availablePatchSummary": {
            "status": "Succeeded",
            "rebootPending": False,
            "criticalAndSecurityPatchCount": 3,
            "otherPatchCount": 1,
            "startTime": "2026-11-01T00:00:00Z",
        }
    }
    graph = facts(az_row(properties={"extended": {"instanceView": {"powerState": {"code": "PowerState/stopped"}}}}))
    assert graph.values["power_state"] == "stopped"


ARC: dict[str, Any] = {
    "id": AZ_ROW["id"].replace("Microsoft.Compute/virtualMachines", "Microsoft.HybridCompute/machines"),
    "name": "web-001",
    "type": "Microsoft.HybridCompute/machines",
    "location": "japaneast",
    "tags": {"ring": "1"},
    "kind": "HCI",
    "properties": {
        "vmId": "0b5ec4a1-6f36-4f0c-9b58-31fa1ff1d3a1",
        "status": "Connected",
        "osType": "windows",
        "osSku": "Windows Server 2025 Datacenter",
        "osEdition": "serverdatacenter",
        "osVersion": "10.0.26100.4946",
        "provisioningState": "Succeeded",
        "osProfile": {
            "computerName": "WEB-001",
            "windowsConfiguration": {
                "patchSettings": {"patchMode": "ImageDefault", "assessmentMode": "AutomaticByPlatform"}
            },
        },
        "licenseProfile": {
            "productProfile": {
                "productType": "WindowsServer",
                "productFeatures": [{"name": "Hotpatch", "subscriptionStatus": "Enabled"}],
            }
        },
    },
}


def test_an_arc_machine_is_told_by_its_agent() -> None:
    found = facts(ARC)
    assert "/microsoft.hybridcompute/machines/" in found.arm_id
    values = found.values
    assert (values["os_edition"], values["arc_kind"]) == ("Windows Server 2025 Datacenter", "HCI")
    assert (values["os_build"], values["computer_name"]) == ("26100.4946", "WEB-001")
    assert (values["agent_status"], values["power_state"]) == ("Connected", "running")
    assert (values["patch_mode"], values["assessment_mode"]) == ("AutomaticByOS", "AutomaticByPlatform")
    assert values["enable_hotpatching"] is True, "it is enrolled"
    assert not {"reboot_setting", "image_sku"} & set(values), "what it does not tell stays as it is"
    flat = {name: value for name, value in ARC.items() if name != "properties"} | ARC["properties"]
    assert facts(flat).values == values, "as az writes it"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("properties.status", "Disconnected", {"agent_status": "Disconnected", "power_state": "unknown"}),
        ("properties.status", "Expired", {"agent_status": "Expired", "power_state": "unknown"}),
        ("properties.licenseProfile", None, {"enable_hotpatching": False}),
        ("properties.licenseProfile.productProfile.productFeatures", [7, {}], {"enable_hotpatching": False}),
        (
            "properties.osProfile.windowsConfiguration.patchSettings.enableHotpatching",
            False,
            {"enable_hotpatching": False},
        ),
        ("properties.osSku", None, {"os_edition": "serverdatacenter"}),
        ("kind", None, {"arc_kind": ""}),
    ],
)
def test_what_an_arc_machine_says_is_what_it_has(path: str, value: object, expected: dict[str, object]) -> None:
    values = facts(edited(path, value, ARC)).values
    assert {name: values[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("properties.osType", "linux", "linux"),
        ("properties.osType", None, "os_not_named"),
        ("properties.osType", "solaris", "unknown_value"),
        ("properties.osProfile.windowsConfiguration.patchSettings.patchMode", "Sometimes", "unknown_value"),
        ("properties.osSku", "x" * 101, "value_too_long"),
        ("name", "other", "name_differs"),
        ("properties.vmId", "7", "unknown_value"),
    ],
)
def test_an_arc_machine_that_is_left_out_says_why(path: str, value: object, expected: str) -> None:
    assert problem(edited(path, value, ARC)).problem.value == expected


@pytest.mark.parametrize("row", rows("os-versions"), ids=lambda row: row["osVersion"])
def test_both_forms_of_os_version(row: dict[str, str]) -> None:
    values = facts(az_row(instanceView={"osVersion": row["osVersion"]})).values
    assert (values["os_version"], values.get("os_build", "")) == (row["osVersion"], row["build"])


@pytest.mark.parametrize("row", rows("inventory-texts"), ids=lambda row: f"{row['where']} {row['text']}")
def test_characters_that_nobody_can_see(row: dict[str, str]) -> None:
    typed = row["text"].encode().decode("unicode_escape") if "\\u" in row["text"] else row["text"]
    changed = edited(row["where"], typed)
    if row["problem"]:
        assert problem(changed).problem.value == row["problem"]
        return
    found = facts(changed)
    assert bool(found.cleaned) is flag(row["cleaned"])
    assert not any(is_invisible(letter) for letter in str(found.values))


def test_a_tag_whose_name_hides_something_is_refused() -> None:
    assert problem(az_row(tags={"e\u200bnv": "prod"})) == BadRow(RowProblem.INVISIBLE_CHARACTER, "tags")


def test_names_ids_and_regions_compare_without_case() -> None:
    found = facts(az_row(id=AZ_ROW["id"].upper().replace("/SUBSCRIPTIONS", "/subscriptions"), location="Japan East"))
    assert (found.arm_id, found.values["location"]) == (AZ_ROW["id"].lower(), "japaneast")
