"""Changing a machine by PATCH and by PUT: what may change, what is refused by name, and that it is all or nothing."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from audit.models import AuditEvent
from tests.arm_api.programs import ARC, Program, address_of, path_of, settle
from updates.models import Operation
from vms.models import VirtualMachine

pytestmark = pytest.mark.django_db
SETTINGS = ("properties", "osProfile", "windowsConfiguration", "patchSettings")


def nested(value: Any, *path: str) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return dict(value)


def put(document: dict[str, Any], value: Any, *path: str) -> dict[str, Any]:
    """A copy of the document with this value at this path."""
    copy = deepcopy(document)
    place = copy
    for name in path[:-1]:
        place = place.setdefault(name, {})
    place[path[-1]] = value
    return copy


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_setting_becomes_an_operation_that_clients_can_follow(
    program: Program, vm: VirtualMachine, method: str
) -> None:
    before = program.get(address_of(vm)).json()
    body = put(before, "Never", *SETTINGS, "automaticByPlatformSettings", "rebootSetting")
    if method == "PATCH":
        body = nested({"automaticByPlatformSettings": {"rebootSetting": "never"}}, *SETTINGS)
    answer = program.ask(method, address_of(vm), body)
    assert answer.status_code == 200
    (operation,) = Operation.objects.all()
    assert answer["x-ms-request-id"] == str(operation.pk)
    status = path_of(answer["Azure-AsyncOperation"])
    assert program.get(status, version="").json()["status"] == "InProgress"
    settle()
    assert program.get(status, version="").json()["status"] == "Succeeded"
    after = program.get(address_of(vm)).json()
    assert after["etag"] != before["etag"]
    assert after["properties"]["osProfile"]["windowsConfiguration"]["patchSettings"]["automaticByPlatformSettings"] == {
        "rebootSetting": "Never",
        "bypassPlatformSafetyChecksOnUserSchedule": False,
    }
    assert AuditEvent.objects.filter(door="api", tag="machine:settings:change").count() == 1


def test_what_a_client_got_and_sends_back_changes_nothing(program: Program, vm: VirtualMachine) -> None:
    body = program.get(address_of(vm, "?$expand=instanceView")).json()
    body["properties"]["provisioningState"] = "Updating"
    body["location"] = "Japan East"
    body["properties"]["diagnosticsProfile"] = None
    body["resources"] = [{"id": "x"}]
    answer = program.ask("PUT", address_of(vm), body)
    assert answer.status_code == 200
    assert "Azure-AsyncOperation" not in answer
    assert not Operation.objects.exists()
    vm.refresh_from_db()
    assert vm.location == "japaneast"


def test_tags_change_as_a_whole(program: Program, vm: VirtualMachine) -> None:
    answer = program.ask("PATCH", address_of(vm), {"tags": {"ring": "1", "owner": "web"}})
    assert answer.json()["tags"] == {"ring": "1", "owner": "web"}
    assert program.ask("PATCH", address_of(vm), {"tags": {"ring": "2"}}).json()["tags"] == {"ring": "2"}
    assert program.ask("PATCH", address_of(vm), {}).json()["tags"] == {"ring": "2"}
    assert AuditEvent.objects.filter(door="api", tag="machine:record:change").count() == 2
    for bad in ({"a": 1}, ["a"], {"": "x"}, {"a" * 600: "x"}, {"a": "x" * 300}, {str(n): "" for n in range(51)}):
        assert program.ask("PATCH", address_of(vm), {"tags": bad}).json()["error"]["target"] == "tags"


# Everything that this portal does not own: where it is, and another value for it.
OTHERS: tuple[tuple[tuple[str, ...], Any], ...] = (
    (("id",), "/subscriptions/x"),
    (("name",), "other"),
    (("type",), "Microsoft.Compute/disks"),
    (("location",), "westus"),
    (("zones",), ["9"]),
    (("identity",), {"type": "SystemAssigned"}),
    (("plan",), {"name": "x"}),
    (("properties", "vmId"), "00000000-0000-0000-0000-000000000000"),
    (("properties", "hardwareProfile", "vmSize"), "Standard_M416ms_v2"),
    (("properties", "storageProfile", "imageReference", "sku"), "2025-datacenter"),
    (("properties", "storageProfile", "dataDisks"), [{"lun": 0}]),
    (("properties", "storageProfile", "osDisk", "osType"), "Linux"),
    (("properties", "osProfile", "computerName"), "other"),
    (("properties", "osProfile", "adminPassword"), "hunter2"),
    (("properties", "osProfile", "allowExtensionOperations"), False),
    (("properties", "osProfile", "windowsConfiguration", "provisionVMAgent"), False),
    (("properties", "osProfile", "windowsConfiguration", "enableAutomaticUpdates"), False),
    (("properties", "osProfile", "windowsConfiguration", "timeZone"), "Tokyo Standard Time"),
    (("properties", "osProfile", "windowsConfiguration", "patchSettings", "connection"), 7),
    (("properties", "networkProfile", "networkInterfaces"), []),
    (("properties", "licenseType"), "Windows_Server"),
    (("properties", "priority"), "Spot"),
    (("properties", "availabilitySet"), {"id": "/x"}),
    (("properties", "is_superuser"), True),
    (("connection_id",), 1),
    (("desired_settings",), {"patch_mode": "Manual"}),
)


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize(("path", "value"), OTHERS, ids=[".".join(path) for path, _value in OTHERS])
def test_what_is_not_ours_to_change_is_refused_by_name(
    program: Program, vm: VirtualMachine, method: str, path: tuple[str, ...], value: Any
) -> None:
    program.token()
    before = VirtualMachine.objects.filter(pk=vm.pk).values().get()
    body = nested(value, *path) if method == "PATCH" else put(program.get(address_of(vm)).json(), value, *path)
    body = put(body, {"sneaked": "in"}, "tags")
    answer = program.ask(method, address_of(vm), body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "PropertyChangeNotAllowed")
    named = ".".join(path).removeprefix("properties.")
    assert answer.json()["error"]["target"].startswith(named)
    assert VirtualMachine.objects.filter(pk=vm.pk).values().get() == before
    assert not Operation.objects.exists()


OF_ARC: tuple[tuple[tuple[str, ...], Any], ...] = (
    *OTHERS[:4],
    (("kind",), "SCVMM"),
    (("identity",), {"type": "SystemAssigned"}),
    (("systemData",), {"createdBy": "x"}),
    (("properties", "status"), "Disconnected"),
    (("properties", "vmId"), "00000000-0000-0000-0000-000000000000"),
    (("properties", "displayName"), "other"),
    (("properties", "osType"), "linux"),
    (("properties", "osVersion"), "10.0.1"),
    (("properties", "parentClusterResourceId"), "/subscriptions/x"),
    (("properties", "osProfile", "computerName"), "other"),
    ((*SETTINGS, "status", "hotpatchEnablementStatus"), "ActionRequired"),
    ((*SETTINGS, "connection"), 7),
    (("connection_id",), 1),
    (("desired_settings",), {"patch_mode": "Manual"}),
)


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize(("path", "value"), OF_ARC, ids=[".".join(path) for path, _value in OF_ARC])
def test_what_is_not_ours_to_change_of_an_arc_machine_is_refused_by_name(
    program: Program, make_vm: Any, method: str, path: tuple[str, ...], value: Any
) -> None:
    vm = make_vm("arc-001", arc=True)
    program.token()
    before = VirtualMachine.objects.filter(pk=vm.pk).values().get()
    whole = put(program.get(address_of(vm), version=ARC).json(), value, *path)
    for body in (nested(value, *path), whole):
        answer = program.ask(method, address_of(vm), put(body, {"sneaked": "in"}, "tags"), version=ARC)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "PropertyChangeNotAllowed")
        assert answer.json()["error"]["target"].startswith(".".join(path).removeprefix("properties."))
    assert VirtualMachine.objects.filter(pk=vm.pk).values().get() == before
    assert not Operation.objects.exists()


def test_the_rules_refuse_with_azures_target_and_nothing_is_half_changed(program: Program, vm: VirtualMachine) -> None:
    body = nested({"patchMode": "Manual", "enableHotpatching": True}, *SETTINGS) | {"tags": {"half": "way"}}
    answer = program.ask("PATCH", address_of(vm), body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "InvalidParameter")
    assert error["target"] == "windowsConfiguration.patchSettings.enableHotpatching"
    assert error["details"][0]["target"] == "windowsConfiguration.patchSettings.patchMode"
    vm.refresh_from_db()
    assert vm.tags == {}
    assert not Operation.objects.exists()
    for name, value in (("patchMode", "Auto"), ("enableHotpatching", "yes"), ("assessmentMode", 7)):
        bad = program.ask("PATCH", address_of(vm), nested({name: value}, *SETTINGS)).json()["error"]
        assert (bad["code"], bad["target"]) == ("InvalidParameter", f"windowsConfiguration.patchSettings.{name}")


def test_a_change_while_an_installation_is_open_is_a_conflict(program: Program, vm: VirtualMachine) -> None:
    plan = {"rebootSetting": "Never", "windowsParameters": {"classificationsToInclude": ["Security"]}}
    program.ask("POST", address_of(vm, "/installPatches"), plan)
    body = nested({"automaticByPlatformSettings": {"rebootSetting": "Never"}}, *SETTINGS)
    answer = program.ask("PATCH", address_of(vm), body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "OperationNotAllowed")


def test_conditions_are_kept(program: Program, vm: VirtualMachine) -> None:
    mark = program.get(address_of(vm)).json()["etag"]
    body = {"tags": {"a": "b"}}
    assert program.ask("PATCH", address_of(vm), body, If_Match='"other"').status_code == 412
    assert program.ask("PATCH", address_of(vm), body, If_None_Match="*").status_code == 412
    assert program.ask("PATCH", address_of(vm), body, If_Match=mark).status_code == 200
    assert program.ask("PATCH", address_of(vm), body, If_Match=mark).status_code == 412


def test_a_machine_is_not_made_by_put(program: Program, vm: VirtualMachine) -> None:
    body = program.get(address_of(vm)).json()
    assert program.ask("PUT", address_of(vm) + "-new", body).status_code == 404
    assert VirtualMachine.objects.count() == 1


def test_an_arc_machine_is_put_back_as_az_does_it(program: Program, make_vm: Any) -> None:
    """`az connectedmachine update` gets the machine, changes it, and sends all of it."""
    vm = make_vm("arc-001", arc=True)
    whole = program.get(address_of(vm), version=ARC).json() | {"tags": {"ring": "canary"}}
    answer = program.ask("PUT", address_of(vm), whole, version=ARC)
    assert (answer.status_code, answer.json()["tags"]) == (200, {"ring": "canary"})
    assert not Operation.objects.exists()
    missing = program.ask("PUT", address_of(vm) + "-new", whole, version=ARC)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "ResourceNotFound")
    assert VirtualMachine.objects.count() == 1


def test_settings_of_arc_machines(program: Program, make_vm: Any) -> None:
    vm = make_vm("arc-001", arc=True)
    body = nested({"patchMode": "AutomaticByPlatform", "enableHotpatching": False}, *SETTINGS)
    answer = program.ask("PATCH", address_of(vm), body, version=ARC)
    assert answer.status_code == 200
    assert "/operationstatus/" in answer["Azure-AsyncOperation"]
    settle()
    found = program.get(address_of(vm), version=ARC).json()["properties"]["osProfile"]["windowsConfiguration"]
    assert found["patchSettings"]["enableHotpatching"] is False
