"""Every operation of the door for every role, in one table; and for every misuse of a token."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.utils import timezone

from arm_api.routes import ROUTES, Route
from tests.arm_api.forgery import CODES, MISUSES, misused
from tests.arm_api.programs import Program, address_of, make_program
from updates.services.operations import request_assessments
from vms.choices import Role
from vms.models import VirtualMachine
from vms.services.principals import revoke_secret

pytestmark = pytest.mark.django_db
WHO = ("nobody", "outsider", "reader", "operator", "owner", "chief")
# One who may see nothing of a place gets 403 for it, whatever is there.
EVERYBODY = dict.fromkeys(WHO, 200)
SEE = EVERYBODY | {"nobody": 403, "outsider": 403}
OPERATE = dict.fromkeys(WHO, 202) | {"nobody": 403, "outsider": 403, "reader": 403}
OWN = SEE | {"reader": 403, "operator": 403}
# Ids of operations tell nothing: what may not be seen is not there.
FOLLOW = EVERYBODY | {"nobody": 404, "outsider": 404}
WAIT = dict.fromkeys(WHO, 202) | {"nobody": 404, "outsider": 404}

TABLE: dict[str, dict[str, int]] = {
    "Tenants_List": EVERYBODY,
    "Subscriptions_List": EVERYBODY,
    "Subscriptions_Get": SEE,
    "ResourceGroups_List": SEE,
    "ResourceGroups_Get": SEE,
    "Resources_List": SEE,
    "Resources_ListByResourceGroup": SEE,
    "Permissions_List": SEE,
    "Resources_Query": EVERYBODY,
    "VirtualMachines_ListAll": SEE,
    "VirtualMachines_List": SEE,
    "VirtualMachines_ListByLocation": SEE,
    "VirtualMachines_Get": SEE,
    "VirtualMachines_InstanceView": SEE,
    "VirtualMachines_Update": OWN,
    "VirtualMachines_CreateOrUpdate": OWN,
    "VirtualMachines_AssessPatches": OPERATE,
    "VirtualMachines_InstallPatches": OPERATE,
    "VirtualMachines_OperationStatus": FOLLOW,
    "NetworkInterfaces_Get": SEE,
    "Machines_ListAll": SEE,
    "Machines_List": SEE,
    "Machines_Get": SEE,
    "Machines_Update": OWN,
    "Machines_CreateOrUpdate": OWN,
    "Machines_AssessPatches": OPERATE,
    "Machines_InstallPatches": OPERATE,
    "Machines_OperationStatus": FOLLOW,
    "Machines_OperationResult": WAIT,
    "LicenseProfiles_List": SEE,
    "LicenseProfiles_Get": SEE,
    "LicenseProfiles_CreateOrUpdate": OWN,
    "LicenseProfiles_Update": OWN,
    "LicenseProfiles_Delete": {who: 204 if status == 200 else status for who, status in OWN.items()},
}
BODIES: dict[str, Any] = {
    "installPatches": {
        "maximumDuration": "PT2H",
        "rebootSetting": "Never",
        "windowsParameters": {"classificationsToInclude": ["Security"]},
    },
    "write": {"tags": {"by": "table"}},
    "license": {
        "properties": {"productProfile": {"productFeatures": [{"name": "Hotpatch", "subscriptionStatus": "Disable"}]}}
    },
}


def filled(route: Route, vm: VirtualMachine, operation: str) -> str:
    """The path of a route for this machine."""
    group = vm.resource_group
    name = f"{vm.name}-nic" if "networkInterfaces" in route.path else vm.name
    return route.path.format(
        subscription=group.subscription.subscription_id,
        group=group.name,
        name=name,
        location=vm.location,
        operation=operation,
    )


def body_of(route: Route) -> Any:
    if route.method in {"PUT", "PATCH"}:
        return BODIES["license" if "/licenseProfiles" in route.path else "write"]
    if route.name == "Resources_Query":
        return {"query": "resources"}
    return BODIES["installPatches"] if route.path.endswith("installPatches") else None


def test_the_table_has_every_operation() -> None:
    assert set(TABLE) == {route.name for route in ROUTES}
    assert len({route.name for route in ROUTES}) == len(ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_operation_for_every_role(
    route: Route, programs: dict[str, Program], make_vm: Any, vm: VirtualMachine
) -> None:
    machine = make_vm("arc-001", arc=True) if route.provider == "Microsoft.HybridCompute" else vm
    machine.computer_name = "hidden-host"
    machine.enable_hotpatching = False
    machine.save()
    (outcome,) = request_assessments(vm_ids=[machine.pk], requested_by=None)
    path = filled(route, machine, str(outcome.operation_id))
    if route.is_patching:  # each begins with a machine that nobody works on
        assert outcome.operation_id is not None
        machine.operations.all().delete()
    found = {}
    for who in WHO:
        answer = programs[who].ask(route.method, path, body_of(route), version=route.versions[-1])
        found[who] = answer.status_code
        if answer.status_code >= 400:
            assert set(answer.json()) == {"error"}
            assert "hidden-host" not in answer.content.decode()
        if route.is_patching:
            machine.operations.all().delete()
    assert found == TABLE[route.name]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_no_operation_for_a_misused_token(route: Route, program: Program, vm: VirtualMachine) -> None:
    path = f"{filled(route, vm, str(uuid4()))}?api-version={route.versions[-1]}"
    given = {how: f"Bearer {misused(program, how)}" for how in MISUSES} | {"none": "", "basic": "Basic b3duZXI6eA=="}
    for how, header in given.items():
        headers = {"Authorization": header} if header else {}
        answer = Client().generic(
            route.method, path, b'{"tags": {}}', content_type="application/json", secure=True, headers=headers
        )
        wanted = "AuthenticationFailed" if how in {"none", "basic"} else CODES.get(how, "InvalidAuthenticationToken")
        assert (how, answer.status_code, answer.json()["error"]["code"]) == (how, 401, wanted)
    assert not vm.operations.exists()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_no_operation_for_who_was_revoked(route: Route, program: Program, vm: VirtualMachine) -> None:
    path = filled(route, vm, str(uuid4()))
    program.token()
    revoke_secret(principal=program.principal, secret_id=program.secret_id, now=timezone.now())
    answer = program.ask(route.method, path, body_of(route), version=route.versions[-1])
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "InvalidAuthenticationToken")
    assert not vm.operations.exists()


# How a path is confused: what each of these makes of it leads nowhere, whatever the operation is.
CONFUSIONS: dict[str, Callable[[str], str]] = {
    "up and down": lambda path: f"{path.rpartition('/')[0]}/x/../{path.rpartition('/')[2]}",
    "here": lambda path: f"{path.rpartition('/')[0]}/./{path.rpartition('/')[2]}",
    "up, encoded": lambda path: f"{path.rpartition('/')[0]}/x/%2e%2e/{path.rpartition('/')[2]}",
    "up, encoded twice": lambda path: f"{path.rpartition('/')[0]}/x/%252e%252e/{path.rpartition('/')[2]}",
    "up, with a backslash": lambda path: f"{path.rpartition('/')[0]}/x%5c..%5c{path.rpartition('/')[2]}",
    "two slashes": lambda path: f"{path.rpartition('/')[0]}//{path.rpartition('/')[2]}",
    "a slash encoded twice": lambda path: f"{path.rpartition('/')[0]}%252F{path.rpartition('/')[2]}",
    "two slashes at the end": lambda path: f"{path}//",
    "a matrix parameter": lambda path: f"{path};x=1",
    "a null byte": lambda path: f"{path}%00",
    "a line": lambda path: f"{path}%0d%0aX-Odd:%201",
    "a blank": lambda path: f"{path}%20",
    "a full stop": lambda path: f"{path}%EF%BC%8E",
    "wide letters": lambda path: f"{path[:-1]}%EF%BD%93",
    "an ending": lambda path: f"{path}.json",
    "one step more": lambda path: f"{path}/x/y/z",
}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_no_operation_by_a_confused_path(route: Route, program: Program, vm: VirtualMachine) -> None:
    path = filled(route, vm, str(uuid4()))
    bearer = {"Authorization": f"Bearer {program.token()}"}
    body = json.dumps(body_of(route))
    for how, confuse in CONFUSIONS.items():
        address = f"{confuse(path)}?api-version={route.versions[-1]}"
        answer = Client().generic(
            route.method, address, body, content_type="application/json", secure=True, headers=bearer
        )
        # "//tenants" is no address of the door, but one of a page that nobody is signed in for
        is_page = answer.status_code == 302 and answer["Location"].startswith("/accounts/login/")
        assert is_page or (how, answer.status_code) in {(how, 400), (how, 404)}
        assert b'"properties"' not in answer.content
    assert not vm.operations.exists()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_letters_of_a_path_compare_without_case_for_the_same_roles(
    route: Route, programs: dict[str, Program], make_vm: Any, vm: VirtualMachine
) -> None:
    machine = make_vm("arc-001", arc=True) if route.provider == "Microsoft.HybridCompute" else vm
    machine.enable_hotpatching = False
    machine.save()
    (outcome,) = request_assessments(vm_ids=[machine.pk], requested_by=None)
    path = filled(route, machine, str(outcome.operation_id))
    if route.is_patching:
        machine.operations.all().delete()
    for write in (str.upper, str.lower):
        found = {}
        for who in ("outsider", "reader", "owner"):
            found[who] = (
                programs[who].ask(route.method, write(path), body_of(route), version=route.versions[-1]).status_code
            )
            if route.is_patching:
                machine.operations.all().delete()
        assert found == {who: TABLE[route.name][who] for who in found}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_operation_refuses_another_version(route: Route, program: Program, vm: VirtualMachine) -> None:
    path = filled(route, vm, str(uuid4()))
    for version in ("2031-01-01", "latest", "2024-11-01-preview' OR 1=1"):
        answer = program.ask(route.method, path, body_of(route), version=version)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] in {"NoRegisteredProviderFound", "InvalidApiVersionParameter"}
    assert not vm.operations.exists()


def test_a_role_on_one_machine_opens_that_machine_alone(make_vm: Any) -> None:

    one, other = make_vm("web-001"), make_vm("web-002")
    program = make_program("one", Role.OPERATOR, one)
    assert program.ask("POST", address_of(one, "/assessPatches")).status_code == 202
    for path in (address_of(other, "/assessPatches"), address_of(one, "/assessPatches").replace("001", "003")):
        assert program.ask("POST", path).status_code == 403
    assert program.ask("PATCH", address_of(one), {"tags": {}}).status_code == 403
