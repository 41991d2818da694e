"""Licence profiles of Arc machines: enrolling, leaving, and what machine, profile and Resource Graph say meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from audit.models import AuditEvent
from tests.arm_api.programs import ARC, Program, address_of, make_program, path_of, settle
from updates.models import Operation
from vms.choices import Role
from vms.models import VirtualMachine

pytestmark = pytest.mark.django_db
TAIL = "/licenseProfiles/default"


def asking(status: str, **more: Any) -> dict[str, Any]:
    features = [{"name": "Hotpatch", "subscriptionStatus": status}]
    return {"properties": {"productProfile": {"productType": "WindowsServer", "productFeatures": features}}} | more


def state_of(program: Program, vm: VirtualMachine) -> set[str]:
    """What the profile, its list, the machine and Resource Graph say of the enrolment."""
    profile = program.get(address_of(vm, TAIL), version=ARC).json()
    (listed,) = program.get(address_of(vm, "/licenseProfiles"), version=ARC).json()["value"]
    machine = program.get(address_of(vm), version=ARC).json()
    graph = program.ask(
        "POST",
        "/providers/Microsoft.ResourceGraph/resources",
        {"query": "resources | where type =~ 'microsoft.hybridcompute/machines'"},
        version="2021-03-01",
    ).json()["data"]
    products = [one["properties"]["productProfile"] for one in (profile, listed)]
    products += [one["properties"]["licenseProfile"]["productProfile"] for one in (machine, graph[0])]
    assert all(product["productType"] == "WindowsServer" for product in products)
    return {product["productFeatures"][0]["subscriptionStatus"] for product in products}


@pytest.fixture
def vm(make_vm: Any) -> VirtualMachine:
    told = {"os_edition": "Windows Server 2025 Datacenter", "os_build": "26100.4946"}
    found: VirtualMachine = make_vm("arc-001", arc=True, enable_hotpatching=False, **told)
    return found


@pytest.mark.parametrize(("method", "begun"), [("PUT", 201), ("PATCH", 202)])
def test_a_machine_is_enrolled_and_leaves(program: Program, vm: VirtualMachine, method: str, begun: int) -> None:
    assert state_of(program, vm) == {"Disabled"}
    body = asking("Enable", location="Japan East") if method == "PUT" else asking("enable")
    answer = program.ask(method, address_of(vm, TAIL), body, version=ARC)
    assert answer.status_code == begun
    assert (len(answer.content) > 0) is (method == "PUT")
    (operation,) = Operation.objects.all()
    assert answer["x-ms-request-id"] == str(operation.pk)
    assert "/operationstatus/" in answer["Azure-AsyncOperation"]
    assert "/operationresults/" in answer["Location"]
    assert state_of(program, vm) == {"Enabling"}
    settle()
    status = program.get(path_of(answer["Azure-AsyncOperation"]), version="").json()
    assert status["status"] == "Succeeded"
    assert state_of(program, vm) == {"Enabled"}
    vm.refresh_from_db()
    assert vm.enable_hotpatching
    assert AuditEvent.objects.filter(door="api", tag="machine:settings:change").count() == 1
    again = program.ask(method, address_of(vm, TAIL), asking("Enable"), version=ARC)
    assert (again.status_code, Operation.objects.filter(kind="settings").count()) == (200, 1)
    assert program.ask(method, address_of(vm, TAIL), asking("Disable"), version=ARC).status_code == begun
    assert state_of(program, vm) == {"Disabling"}
    settle()
    assert state_of(program, vm) == {"Disabled"}


def test_a_profile_that_is_removed_leaves(program: Program, vm: VirtualMachine) -> None:
    assert program.ask("DELETE", address_of(vm, TAIL), version=ARC).status_code == 204
    VirtualMachine.objects.filter(pk=vm.pk).update(enable_hotpatching=True)
    answer = program.ask("DELETE", address_of(vm, TAIL), version=ARC)
    assert (answer.status_code, answer.content) == (202, b"")
    settle()
    assert state_of(program, vm) == {"Disabled"}
    assert AuditEvent.objects.filter(door="api", tag="machine:settings:change").count() == 1


def test_what_a_client_got_and_sends_back_changes_nothing(program: Program, vm: VirtualMachine) -> None:
    body = program.get(address_of(vm, TAIL), version=ARC).json()
    assert program.ask("PUT", address_of(vm, TAIL), body, version=ARC).status_code == 200
    machine = program.get(address_of(vm), version=ARC).json()
    assert program.ask("PATCH", address_of(vm), machine, version=ARC).status_code == 200
    assert not Operation.objects.exists()


@pytest.mark.parametrize(
    ("body", "status", "code", "target"),
    [
        (asking("Sometimes"), 400, "InvalidParameter", "productProfile.productFeatures.subscriptionStatus"),
        (asking(7), 400, "InvalidParameter", "productProfile.productFeatures.subscriptionStatus"),  # type: ignore[arg-type]
        (
            {"properties": {"productProfile": {"productFeatures": [{"name": "Storage", "subscriptionStatus": "Enable"}]}}},
            400,
            "InvalidParameter",
            "productProfile.productFeatures",
        ),
        ({"properties": {"productProfile": {"productFeatures": "Hotpatch"}}}, 400, "InvalidParameter", "productProfile"),
        ({"properties": {"productProfile": {"productFeatures": [{}, {}]}}}, 400, "InvalidParameter", "productProfile"),
        (asking("Enable") | {"tags": {"a": "b"}}, 409, "PropertyChangeNotAllowed", "tags"),
        (asking("Enable") | {"location": "westus"}, 409, "PropertyChangeNotAllowed", "location"),
        (
            {"properties": {"softwareAssurance": {"softwareAssuranceCustomer": True}}},
            409,
            "PropertyChangeNotAllowed",
            "softwareAssurance",
        ),
        ({"properties": {"productProfile": {"subscriptionStatus": "Enable"}}}, 409, "PropertyChangeNotAllowed", "productProfile"),
        ({"properties": {"productProfile": {"productType": "WindowsIoTEnterprise"}}}, 409, "PropertyChangeNotAllowed", "productProfile"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_what_cannot_be_asked_is_refused_by_name(
    program: Program, vm: VirtualMachine, method: str, body: Any, status: int, code: str, target: str
) -> None:
    answer = program.ask(method, address_of(vm, TAIL), body, version=ARC)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert error["target"].startswith(target)
    assert not Operation.objects.exists()


def test_an_edition_without_hotpatches_is_not_enrolled(program: Program, vm: VirtualMachine) -> None:
    VirtualMachine.objects.filter(pk=vm.pk).update(os_edition="Windows Server 2019 Datacenter", os_build="17763.7000")
    answer = program.ask("PUT", address_of(vm, TAIL), asking("Enable"), version=ARC)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "InvalidParameter")
    assert state_of(program, vm) == {"Disabled"}


def test_an_enrolment_that_did_not_come_about_says_so(program: Program, vm: VirtualMachine) -> None:
    program.ask("PUT", address_of(vm, TAIL), asking("Enable"), version=ARC)
    ended = {"state": "failed", "finished_at": "2026-11-20T00:00:00Z", "next_step_at": None}
    Operation.objects.update(**ended, error_code="settings.not_taken")
    assert state_of(program, vm) == {"Failed"}
    profile = program.get(address_of(vm, TAIL), version=ARC).json()["properties"]["productProfile"]
    assert profile["productFeatures"][0]["error"]["code"] == "settings.not_taken"


def test_a_virtual_machine_has_no_profile_and_an_operator_may_not_enrol(make_vm: Any, vm: VirtualMachine) -> None:
    other = make_vm("web-001")
    program = make_program()
    at_other = address_of(other, TAIL).replace("Microsoft.Compute/virtualMachines", "Microsoft.HybridCompute/machines")
    assert program.get(at_other, version=ARC).status_code == 404
    assert program.get(address_of(vm, "/licenseProfiles/other"), version=ARC).status_code == 404
    operator = make_program("operator", Role.OPERATOR, vm)
    assert operator.get(address_of(vm, TAIL), version=ARC).status_code == 200
    for method in ("PUT", "PATCH", "DELETE"):
        refused = operator.ask(method, address_of(vm, TAIL), asking("Enable"), version=ARC)
        assert refused.json()["error"]["code"] == "AuthorizationFailed"
        assert "licenseProfiles" in refused.json()["error"]["message"]
