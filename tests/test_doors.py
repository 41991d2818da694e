"""Every address × every role × plain and htmx, the admin site's included: what is answered, from two tables."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from allauth.usersessions.models import UserSession
from django.contrib.auth.models import User
from django.test import Client
from django.urls import NoReverseMatch, URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone

from notifications.models import Mail
from tests.doors import (
    ADMIN_DOORS,
    ADMIN_MODELS,
    BUTTONS,
    DOORS,
    LIBRARY,
    PROGRAMS,
    WHO,
    a_row_of,
    address,
    admin_address,
)
from tests.factories import OperationFactory, PatchFactory, ReleaseFactory, UserFactory, VirtualMachineFactory
from tests.updates.world import hand_out
from updates.models import Operation, RolloutMember
from updates.services.rollouts import advance_rollouts
from vms.models import ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db


def names(patterns: list[Any], prefix: str = "") -> Iterator[str]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            space = f"{pattern.namespace}:" if pattern.namespace else ""
            yield from names(pattern.url_patterns, prefix + space)
        elif isinstance(pattern, URLPattern) and pattern.name:  # the admin's redirects of old addresses have none
            yield f"{prefix}{pattern.name}"


def test_every_address_is_in_the_table() -> None:
    assert set(names(get_resolver().url_patterns)) == {name for _method, name in DOORS} | set(ADMIN_DOORS)


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


def knock(client: Client, method: str, name: str, where: str, vm: VirtualMachine, headers: dict[str, str]) -> Any:
    if method in {"get", "head"}:
        return client.generic(method.upper(), where, headers=headers)
    selection = {"vm": vm.pk} if name == "updates:settings-change" else {}
    return client.post(where, BUTTONS.get(name, {}) | selection, headers=headers)


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
        answer = knock(client, method, name, address(name, vm, operation), vm, headers)
        found[method, name] = answer.status_code
    assert found == {door: table[who] for door, table in DOORS.items()}


def test_every_method_of_every_door_is_in_the_table(
    client: Client, staff: User, operator: User, vm: VirtualMachine, operation: Operation
) -> None:
    """Every door names in its 405 what it takes; no way in is left out of the table, and nothing else gets in."""
    client.force_login(staff)
    taken = set()
    for name in {name for _method, name in DOORS} - LIBRARY - PROGRAMS:
        answer = client.put(address(name, vm, operation))
        assert answer.status_code == 405, name
        taken |= {(method.strip().lower(), name) for method in answer["Allow"].split(",")}
    assert taken == {(method, name) for method, name in DOORS if name not in LIBRARY | PROGRAMS}


def test_what_writes_asks_for_the_token_of_the_form(staff: User, vm: VirtualMachine, operation: Operation) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(staff)
    for method, name in DOORS:
        if method == "post" and name not in PROGRAMS:
            assert knock(client, method, name, address(name, vm, operation), vm, {}).status_code == 403, name


def bad_addresses(name: str) -> list[str]:
    """The address of a door with ids that are nobody's; empty for what takes none."""
    for wrong in ([0, 2**40], [uuid.uuid4(), uuid.UUID(int=0)]):
        try:
            found = [reverse(name, args=[value]) for value in wrong]
        except NoReverseMatch:
            continue
        broken = ("9" * 30, "-1", "x", "%00", "1%27", "..%2f")
        return found + [found[0].replace(str(wrong[0]), text) for text in broken]
    return []


@pytest.mark.parametrize(
    ("method", "name"), [door for door in DOORS if door[1] not in PROGRAMS and bad_addresses(door[1])]
)
def test_an_id_of_nothing_is_404_for_everybody(
    client: Client, vm: VirtualMachine, cast: dict[str, User], method: str, name: str
) -> None:
    """Or 403 where the page is closed to them, whatever the id."""
    for who, user in cast.items():
        client.force_login(user)
        is_closed = DOORS[method, name]["outsider"] == DOORS[method, name][who] == 403
        for where in bad_addresses(name):
            status = knock(client, method, name, where, vm, {}).status_code
            assert status == 404 or (is_closed and status == 403), (who, where, status)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("updates:settings-change", {"go": "apply", "hotpatch": "off"}),
        ("updates:bulk-create", {"kind": "assessment", "go": "start"}),
        ("updates:bulk-create", {"kind": "installation", "go": "start", "classifications": "Security"}),
        (
            "updates:bulk-create",
            {"kind": "installation", "go": "start", "classifications": "Security", "availability_first": "on"},
        ),
    ],
)
def test_a_tampered_selection_reaches_no_machine_of_others(
    client: Client, owner: User, vm: VirtualMachine, name: str, fields: dict[str, str]
) -> None:
    """Alone it is refused; beside a machine of one's own both are."""
    theirs = VirtualMachineFactory()
    before = VirtualMachine.objects.filter(pk=theirs.pk).values().get()
    client.force_login(owner)
    plan = {"request_id": str(uuid.uuid4()), "reboot_setting": "IfRequired", "maximum_minutes": "60"}
    form = fields if name == "updates:settings-change" else plan | fields
    alone = client.post(reverse(name), form | {"vm": [theirs.pk]})
    assert alone.status_code in {404, 422}
    both = client.post(reverse(name), form | {"vm": [theirs.pk, vm.pk]}, follow=True)
    assert theirs.name not in both.content.decode()
    hand_out()
    advance_rollouts(now=timezone.now())
    assert both.status_code == 422
    assert f"Machine {theirs.pk} is gone, or you may not see it." in both.content.decode()
    assert not Operation.objects.filter(vm=vm).exists()
    assert not RolloutMember.objects.filter(vm=vm).exists()
    assert VirtualMachine.objects.filter(pk=theirs.pk).values().get() == before
    assert not Operation.objects.filter(vm=theirs).exists()
    assert not RolloutMember.objects.filter(vm=theirs).exists()


def test_a_tampered_record_lands_in_no_group_of_others(client: Client, owner: User, vm: VirtualMachine) -> None:
    theirs = VirtualMachineFactory()
    client.force_login(owner)
    form = {
        "create": "create", "name": "sneaky", "resource_group": theirs.resource_group_id, "connection": vm.connection_id,
        "location": "japaneast", "image": "MicrosoftWindowsServer:WindowsServer:2022-datacenter-azure-edition-core",
        "patch_mode": "AutomaticByPlatform", "reboot_setting": "IfRequired",
    }  # fmt: skip
    assert client.post(reverse("vms:vm-create"), form).status_code == 422
    assert not VirtualMachine.objects.filter(name="sneaky").exists()
    assert client.post(reverse("vms:vm-create"), form | {"resource_group": vm.resource_group_id}).status_code == 302
    assert VirtualMachine.objects.filter(name="sneaky", resource_group=vm.resource_group_id).exists()


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


# --- the admin site ----------------------------------------------------------------------------------------------


@pytest.fixture
def rows_of_every_model(vm: VirtualMachine, operation: Operation, cast: dict[str, User], client: Client) -> None:
    """Something to look at on each of the admin's pages; triggers keep the events."""
    PatchFactory()
    ReleaseFactory()
    VirtualMachine.objects.filter(pk=vm.pk).update(reboot_setting="Never")
    UserSession.objects.create(user=cast["reader"], ip="127.0.0.1", session_key="x")
    now = timezone.now()
    Mail.objects.create(event_id=1, person=cast["reader"], message_id="<1@x>", due_at=now, created_at=now)


@pytest.mark.usefixtures("rows_of_every_model")
@pytest.mark.parametrize("who", [*WHO, "clerk"])
def test_every_admin_page_for_everybody(client: Client, cast: dict[str, User], who: str) -> None:
    clerk = UserFactory(username="clerk", is_staff=True)
    if who != "anonymous":
        client.force_login(clerk if who == "clerk" else cast[who])
    expected, found = {}, {}
    for door, (for_staff, for_clerk) in ADMIN_DOORS.items():
        where = admin_address(door)
        answer = client.get(where)
        found[door] = answer.status_code
        expected[door] = {"staff": for_staff, "clerk": for_clerk}.get(who, 302)
        if door == "admin:login" and who in cast and who != "staff":
            expected[door] = 403  # signed in already, and not for here
        if who not in {"staff", "clerk"} and answer.status_code == 302 and door != "admin:logout":
            assert "/login/" in answer["Location"], door
    assert found == expected


@pytest.mark.usefixtures("rows_of_every_model")
@pytest.mark.parametrize("model", ADMIN_MODELS)
def test_an_admin_page_of_a_row_that_is_not_there_leads_back(client: Client, staff: User, model: str) -> None:
    client.force_login(staff)
    for action in {"change", "history", "delete"} & set(ADMIN_MODELS[model]):
        for pk in ("0", "9" * 30, "x", "-1", str(uuid.uuid4()), "1' OR '1'='1"):
            answer = client.get(admin_address(f"admin:{model}_{action}", pk))
            assert answer.status_code in {302, 403, 404}, (action, pk)


@pytest.mark.usefixtures("rows_of_every_model")
@pytest.mark.parametrize("model", [model for model, actions in ADMIN_MODELS.items() if actions["delete"] == 403])
def test_what_is_only_looked_at_takes_no_form(client: Client, staff: User, model: str) -> None:
    client.force_login(staff)
    row = a_row_of(model)
    before = type(row).objects.filter(pk=row.pk).values().get()
    for action in ("change", "delete", "add"):
        answer = client.post(admin_address(f"admin:{model}_{action}"), {"post": "yes", "state": "succeeded"})
        assert answer.status_code == 403, action
    chosen = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    client.post(admin_address(f"admin:{model}_changelist"), chosen)
    assert type(row).objects.filter(pk=row.pk).values().get() == before
