"""Every address × every role × plain and htmx: 200, 302, 403, 404 or 405, from one table."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import date, time
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone

from patching.terms import Classification, InstallationPlan
from tests.factories import OperationFactory, VirtualMachineFactory
from updates.models import BulkRequest, MaintenanceConfiguration, Operation, Rollout
from updates.plans import plan_to_json
from vms.models import ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db
WHO = ("anonymous", "outsider", "reader", "operator", "owner", "chief", "staff")
# name: (method, {who: status}); `see` is for what shows one VM, `do` for what takes a role on it
SIGNED_IN = dict.fromkeys(WHO, 200) | {"anonymous": 302}
SEE = SIGNED_IN | {"outsider": 404}
OPERATE = SEE | {"reader": 403}
OWN = OPERATE | {"operator": 403}
IMPORT = dict.fromkeys(WHO, 403) | {"anonymous": 302, "chief": 200, "staff": 200}


def redirecting(table: dict[str, int]) -> dict[str, int]:
    """The same for a form that leads to another page."""
    return {who: 302 if status == 200 else status for who, status in table.items()}


DOORS: dict[tuple[str, str], dict[str, int]] = {
    ("get", "home"): dict.fromkeys(WHO, 302),
    ("get", "tour"): SIGNED_IN,
    # without a demo there is nothing to reset (tests/hotpatch_portal/test_tour.py has one)
    ("post", "demo-reset"): dict.fromkeys(WHO, 404) | {"anonymous": 302},
    # 286: nothing to wait for
    ("get", "updates:ended"): dict.fromkeys(WHO, 286) | {"anonymous": 302},
    ("get", "vms:vm-list"): SIGNED_IN,
    ("get", "vms:vm-import"): IMPORT,
    # the outsider owns another resource group, and may make VMs there
    ("get", "vms:vm-create"): IMPORT | {"owner": 200, "outsider": 200},
    ("get", "vms:vm-edit"): OWN,
    ("get", "vms:vm-settings"): SEE,
    ("get", "vms:settings-change"): OWN,
    ("get", "updates:vm-overview"): SEE,
    ("get", "updates:activity"): SEE,
    ("get", "updates:remove"): OWN,
    ("get", "updates:blade"): SEE,
    ("post", "updates:assess"): redirecting(OPERATE),
    ("get", "updates:install"): OPERATE,
    ("get", "updates:rollback"): OPERATE,
    ("post", "updates:lift"): redirecting(OPERATE),
    ("get", "updates:operation"): SEE,
    ("post", "updates:cancel"): redirecting(OPERATE),
    ("get", "updates:bulk-create"): SIGNED_IN,
    # a request belongs to who made it (tests/updates/test_bulk.py)
    ("get", "updates:bulk"): dict.fromkeys(WHO, 404) | {"anonymous": 302, "operator": 200, "staff": 200},
    ("post", "updates:bulk-cancel"): dict.fromkeys(WHO, 404) | {"anonymous": 302, "operator": 302, "staff": 302},
    ("get", "vms:vm-export"): SIGNED_IN,
    ("get", "updates:rollouts"): SIGNED_IN,
    # a rollout belongs to who made it, and to Owners of everything (tests/updates/test_automation.py)
    ("get", "updates:rollout"): dict.fromkeys(WHO, 404)
    | {"anonymous": 302, "operator": 200, "chief": 200, "staff": 200},
    ("post", "updates:rollout-move"): dict.fromkeys(WHO, 404)
    | {"anonymous": 302, "operator": 302, "chief": 302, "staff": 302},
    ("get", "updates:maintenances"): IMPORT,
    ("get", "updates:maintenance-create"): IMPORT,
    ("get", "updates:maintenance"): IMPORT,
    ("get", "updates:maintenance-edit"): IMPORT,
    ("post", "updates:maintenance-remove"): redirecting(IMPORT),
    ("get", "updates:connections"): IMPORT,
    ("get", "updates:connection-create"): IMPORT,
    ("get", "updates:connection"): IMPORT,
    ("post", "updates:connection-pause"): IMPORT | {"chief": 422, "staff": 422},
    ("post", "updates:connection-test"): IMPORT,
    ("post", "updates:connection-misfortune"): IMPORT | {"chief": 422, "staff": 422},
    ("get", "updates:calendar"): SIGNED_IN,
    ("post", "set-preferences"): dict.fromkeys(WHO, 302),
    ("get", "account"): SIGNED_IN,
    ("post", "sessions-end"): dict.fromkeys(WHO, 302),
    ("get", "account_login"): dict.fromkeys(WHO, 302) | {"anonymous": 200},
    ("get", "account_logout"): SIGNED_IN,
    # accounts of these tests have no usable password: they are led to setting one
    ("get", "account_change_password"): dict.fromkeys(WHO, 302),
    ("get", "account_set_password"): SIGNED_IN,
}


def names(patterns: list[Any], prefix: str = "") -> Iterator[str]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            if pattern.app_name != "admin":
                space = f"{pattern.namespace}:" if pattern.namespace else ""
                yield from names(pattern.url_patterns, prefix + space)
        elif isinstance(pattern, URLPattern):
            yield f"{prefix}{pattern.name}"


def test_every_address_is_in_the_table() -> None:
    assert set(names(get_resolver().url_patterns)) == {name for _method, name in DOORS}


@pytest.fixture
def vm(resource_group: ResourceGroup) -> VirtualMachine:
    return VirtualMachineFactory(resource_group=resource_group)


@pytest.fixture
def operation(vm: VirtualMachine) -> Operation:
    return OperationFactory(vm=vm)


@pytest.fixture
def cast(outsider: User, reader: User, operator: User, owner: User, chief: User, staff: User) -> dict[str, User]:
    return {
        "outsider": outsider,
        "reader": reader,
        "operator": operator,
        "owner": owner,
        "chief": chief,
        "staff": staff,
    }


def maintenance() -> MaintenanceConfiguration:
    return MaintenanceConfiguration.objects.get_or_create(
        name="m",
        defaults={
            "starts_on": date(2026, 1, 1),
            "starts_at": time(22),
            "time_zone": "UTC",
            "recur_every": "Day",
            "plan": plan_to_json(InstallationPlan(classifications=frozenset({Classification.SECURITY}))),
        },
    )[0]


def address(name: str, vm: VirtualMachine, operation: Operation) -> str:
    if name in {"updates:bulk", "updates:bulk-cancel"}:
        row, _ = BulkRequest.objects.get_or_create(
            kind="assessment", requested_by=User.objects.filter(username="operator").first()
        )
        return reverse(name, args=[row.pk])
    if name in {"updates:rollout", "updates:rollout-move"}:
        rollout, _ = Rollout.objects.get_or_create(
            name="r",
            source="on_demand",
            plan={},
            created_by=User.objects.filter(username="operator").first(),
            defaults={"created_at": timezone.now()},
        )
        return reverse(name, args=[rollout.pk])
    if name in {"updates:maintenance", "updates:maintenance-edit", "updates:maintenance-remove"}:
        return reverse(name, args=[maintenance().pk])
    if name in {"updates:operation", "updates:cancel"}:
        return reverse(name, args=[operation.pk])
    if name in {
        "updates:connections",
        "updates:connection-create",
        "updates:calendar",
        "updates:ended",
        "updates:bulk-create",
        "updates:rollouts",
        "updates:maintenances",
        "updates:maintenance-create",
    }:
        return reverse(name)
    if name.startswith("updates:connection"):
        return reverse(name, args=[vm.connection_id])
    if name == "vms:settings-change":
        return f"{reverse(name)}?vm={vm.pk}"
    if name.startswith("updates:") or name in {"vms:vm-settings", "vms:vm-edit"}:
        return reverse(name, args=[vm.pk])
    return reverse(name)


@pytest.mark.parametrize("is_htmx", [False, True], ids=["plain", "htmx"])
@pytest.mark.parametrize("who", WHO)
def test_every_door_for_everybody(
    client: Client, vm: VirtualMachine, operation: Operation, cast: dict[str, User], who: str, is_htmx: bool
) -> None:
    headers = {"HX-Request": "true", "HX-Target": "nothing"} if is_htmx else {}
    found = {}
    for method, name in DOORS:
        if who == "anonymous":
            client.logout()
        else:
            client.force_login(cast[who])
        answer = getattr(client, method)(address(name, vm, operation), headers=headers)
        found[method, name] = answer.status_code
    assert found == {door: table[who] for door, table in DOORS.items()}


@pytest.mark.parametrize("name", [name for method, name in DOORS if method == "post"])
def test_what_writes_takes_no_get(
    client: Client, staff: User, vm: VirtualMachine, operation: Operation, name: str
) -> None:
    client.force_login(staff)
    assert client.get(address(name, vm, operation)).status_code == 405


@pytest.mark.parametrize(
    "name",
    [
        "updates:vm-overview",
        "updates:activity",
        "updates:blade",
        "updates:install",
        "updates:remove",
        "vms:vm-edit",
        "vms:vm-settings",
    ],
)
def test_a_vm_that_is_not_there_is_404_for_everybody(client: Client, cast: dict[str, User], name: str) -> None:
    for user in cast.values():
        client.force_login(user)
        for pk in (0, 2**40):
            assert client.get(reverse(name, args=[pk])).status_code == 404
        assert client.get(f"/virtual-machines/{'9' * 30}/").status_code == 404


def test_an_operation_that_is_not_there_is_404(client: Client, cast: dict[str, User]) -> None:
    for user in cast.values():
        client.force_login(user)
        assert client.get(reverse("updates:operation", args=[uuid.uuid4()])).status_code == 404
        assert client.post(reverse("updates:cancel", args=[uuid.uuid4()])).status_code == 404


def test_a_tampered_form_gets_no_look_at_another_vms_operation(
    client: Client, operator: User, vm: VirtualMachine, resource_group: ResourceGroup
) -> None:
    from updates.models import VmUpdateState

    theirs = OperationFactory(installation=True)
    other = VirtualMachineFactory(resource_group=resource_group)
    VmUpdateState.objects.create(vm=other, last_assessed_at="2026-11-01T00:00Z")
    client.force_login(operator)
    answer = client.post(
        reverse("updates:install", args=[other.pk]),
        {"step": "review", "go": "install", "request_id": str(theirs.pk), "classifications": ["Security"],
         "reboot_setting": "IfRequired", "maximum_minutes": "60"},
    )  # fmt: skip
    assert answer.status_code in {200, 409}
    assert str(theirs.pk) not in re_links(answer.content.decode())
    for broken in ("", "not-a-uuid", "0" * 400):
        refused = client.post(
            reverse("updates:install", args=[other.pk]),
            {"step": "review", "go": "install", "request_id": broken, "classifications": ["Security"],
             "reboot_setting": "IfRequired", "maximum_minutes": "60"},
        )  # fmt: skip
        assert refused.status_code == 422
    assert not Operation.objects.filter(vm=other).exists()


def re_links(html: str) -> str:
    """Only what leads somewhere."""
    import re

    return " ".join(re.findall(r'href="([^"]*)"', html))
