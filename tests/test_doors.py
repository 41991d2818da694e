"""Every address × every role × plain and htmx, the admin site's included: what is answered, from two tables."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import date, time
from typing import Any

import pytest
from allauth.usersessions.models import UserSession
from django.apps import apps
from django.contrib.auth.models import User
from django.test import Client
from django.urls import NoReverseMatch, URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone

from patching.terms import Classification, InstallationPlan
from tests.factories import OperationFactory, PatchFactory, ReleaseFactory, UserFactory, VirtualMachineFactory
from tests.updates.world import hand_out
from updates.models import BulkBlock, BulkRequest, MaintenanceConfiguration, Operation, Rollout, RolloutMember
from updates.plans import plan_to_json
from updates.services.rollouts import advance_rollouts
from vms.import_models import ImportJob
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


# --- the admin site: what an administrator gets; a member of staff with no permission gets 403, everybody else the sign-in

CHANGE = {"changelist": 200, "add": 200, "change": 200, "history": 200, "delete": 200}
LOOK = CHANGE | {"add": 403, "delete": 403}
ADMIN_MODELS: dict[str, dict[str, int]] = {
    "updates_release": CHANGE | {"import": 200},
    "updates_patch": CHANGE | {"import": 200},
    "updates_operation": LOOK,
    "vms_imagecatalogentry": CHANGE,
    "vms_connection": CHANGE,
    "vms_subscription": CHANGE,
    "vms_resourcegroup": CHANGE,
    "vms_virtualmachine": CHANGE | {"add": 403},
    "vms_roleassignment": CHANGE,
    "vms_factsevent": LOOK,
    "vms_settingsevent": LOOK,
    "vms_roleevent": LOOK,
    "auth_group": CHANGE,
    "auth_user": CHANGE | {"password_change": 200},
    "usersessions_usersession": CHANGE,
}
# (administrator, staff without permission); what everybody on the staff may see of the site itself
ADMIN_SITE: dict[str, tuple[int, int]] = {
    "admin:index": (200, 200),
    "admin:login": (302, 302),
    "admin:logout": (405, 405),  # a POST, which the table of LIBRARY's pages has
    "admin:password_change": (200, 200),
    "admin:password_change_done": (200, 200),
    "admin:autocomplete": (403, 403),  # names no field to complete
    "admin:jsi18n": (200, 200),
    "admin:view_on_site": (404, 404),
    "admin:app_list": (200, 404),
}
ADMIN_DOORS = ADMIN_SITE | {
    f"admin:{model}_{action}": (status, 403)
    for model, actions in ADMIN_MODELS.items()
    for action, status in actions.items()
}


def empty(table: dict[str, int]) -> dict[str, int]:
    """The same for a form that lacks what it needs."""
    return {who: 422 if status == 200 else status for who, status in table.items()}


DOORS: dict[tuple[str, str], dict[str, int]] = {
    # what probes ask for; no worker was heard of here, and no token is set (tests/hotpatch_portal/test_outside.py)
    **{(method, "healthz"): dict.fromkeys(WHO, 200) for method in ("get", "head")},
    **{(method, "readyz"): dict.fromkeys(WHO, 503) for method in ("get", "head")},
    **{(method, "metrics"): dict.fromkeys(WHO, 404) for method in ("get", "head")},
    ("get", "home"): dict.fromkeys(WHO, 302),
    ("get", "tour"): SIGNED_IN,
    # without a demo there is nothing to reset (tests/demo/test_tour.py has one)
    ("post", "demo-reset"): dict.fromkeys(WHO, 404) | {"anonymous": 302},
    # 286: nothing to wait for
    ("get", "updates:ended"): dict.fromkeys(WHO, 286) | {"anonymous": 302},
    ("get", "vms:vm-list"): SIGNED_IN,
    ("get", "vms:images"): SIGNED_IN,
    ("get", "vms:vm-import"): IMPORT,
    ("get", "vms:import-job"): IMPORT,
    ("get", "vms:import-answers"): IMPORT,
    ("post", "vms:import-cancel"): redirecting(IMPORT),
    ("post", "vms:inventory-sync"): redirecting(IMPORT),
    # the outsider owns another resource group, and may make VMs there
    ("get", "vms:vm-create"): IMPORT | {"owner": 200, "outsider": 200},
    ("get", "vms:vm-edit"): OWN,
    ("get", "vms:vm-settings"): SEE,
    ("get", "updates:settings-change"): OWN,
    ("get", "updates:vm-overview"): SEE,
    ("get", "updates:activity"): SEE,
    ("get", "updates:remove"): OWN,
    ("get", "updates:blade"): SEE,
    ("post", "updates:assess"): redirecting(OPERATE),
    ("get", "updates:install"): OPERATE,
    ("get", "updates:rollback"): OPERATE,
    ("post", "updates:lift"): redirecting(OPERATE),
    ("post", "updates:settings-apply"): redirecting(OWN),
    ("post", "updates:settings-accept"): redirecting(OWN),
    ("get", "updates:operation"): SEE,
    ("post", "updates:cancel"): redirecting(OPERATE),
    ("get", "updates:bulk-create"): SIGNED_IN,
    # a request belongs to who made it, and to Owners of everything (tests/updates/test_selection.py)
    ("get", "updates:bulk"): dict.fromkeys(WHO, 404) | {"anonymous": 302, "operator": 200, "chief": 200, "staff": 200},
    ("post", "updates:bulk-cancel"): dict.fromkeys(WHO, 404)
    | {"anonymous": 302, "operator": 302, "chief": 302, "staff": 302},
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
    ("get", "updates:calendar-sample"): SIGNED_IN,
    ("get", "updates:decisions"): SIGNED_IN,
    # a decision holds for every machine: Patch operators of everything, with an answer (tests/updates/test_decisions.py)
    ("post", "updates:decisions"): empty(IMPORT),
    ("post", "set-preferences"): dict.fromkeys(WHO, 302),
    # what takes a form, sent with nothing but its button: who may send it is told what is missing
    ("post", "vms:vm-create"): empty(IMPORT | {"owner": 200, "outsider": 200}),
    ("post", "vms:vm-import"): empty(IMPORT),
    ("post", "vms:vm-edit"): empty(OWN),
    ("post", "updates:settings-change"): empty(OWN),
    ("post", "updates:remove"): empty(OWN),
    ("post", "updates:install"): empty(OPERATE),
    ("post", "updates:bulk-create"): empty(SIGNED_IN),
    ("post", "updates:rollback"): empty(OPERATE),
    ("post", "updates:maintenance-create"): empty(IMPORT),
    ("post", "updates:maintenance-edit"): empty(IMPORT),
    ("post", "updates:maintenance"): redirecting(IMPORT),
    ("post", "updates:connection-create"): empty(IMPORT),
    ("post", "updates:connection"): empty(IMPORT),
    # everybody sees what happened where they may look (tests/people/test_activity.py)
    ("get", "activity"): SIGNED_IN,
    ("get", "activity-export"): SIGNED_IN,
    ("get", "account"): SIGNED_IN,
    ("post", "sessions-end"): dict.fromkeys(WHO, 302),
    ("get", "account_login"): dict.fromkeys(WHO, 302) | {"anonymous": 200},
    ("get", "account_logout"): SIGNED_IN,
    # accounts of these tests have no usable password: they are led to setting one
    ("get", "account_change_password"): dict.fromkeys(WHO, 302),
    ("get", "account_set_password"): SIGNED_IN,
}


BUTTONS = {
    "vms:vm-create": {"create": "create"},
    "vms:vm-edit": {"save": "save"},
    "updates:settings-change": {"go": "apply"},
    "updates:remove": {"name": ""},
    "updates:install": {"step": "review", "go": "install"},
    "updates:bulk-create": {"kind": "installation", "go": "start"},
    "updates:maintenance-create": {"go": "save"},
    "updates:maintenance-edit": {"go": "save"},
    "updates:connection-create": {"name": ""},
    "updates:connection": {"name": ""},
    "updates:rollback": {"go": "start"},
}
LIBRARY = {"home", "account_login", "account_logout", "account_change_password", "account_set_password"}


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
        row, is_new = BulkRequest.objects.get_or_create(
            kind="assessment", requested_by=User.objects.filter(username="operator").first()
        )
        if is_new:
            BulkBlock.objects.create(request=row, number=0, vm_ids=[vm.pk])
        return reverse(name, args=[row.pk])
    if name in {"updates:rollout", "updates:rollout-move"}:
        rollout, _ = Rollout.objects.get_or_create(
            name="r",
            source="on_demand",
            plan={},
            created_by=User.objects.filter(username="operator").first(),
            defaults={"created_at": timezone.now()},
        )
        RolloutMember.objects.get_or_create(rollout=rollout, vm=vm, wave=0)
        return reverse(name, args=[rollout.pk])
    if name in {"updates:maintenance", "updates:maintenance-edit", "updates:maintenance-remove"}:
        return reverse(name, args=[maintenance().pk])
    if name in {"updates:operation", "updates:cancel"}:
        return reverse(name, args=[operation.pk])
    if name in {
        "updates:connections",
        "updates:connection-create",
        "updates:calendar",
        "updates:calendar-sample",
        "updates:decisions",
        "updates:ended",
        "updates:bulk-create",
        "updates:rollouts",
        "updates:maintenances",
        "updates:maintenance-create",
    }:
        return reverse(name)
    if name.startswith("updates:connection"):
        return reverse(name, args=[vm.connection_id])
    if name == "vms:inventory-sync":
        return reverse(name, args=[vm.connection_id])
    if name.startswith("vms:import-"):
        return reverse(name, args=[ImportJob.objects.get_or_create(file_name="x", connection=vm.connection)[0].pk])
    if name == "updates:settings-change":
        return f"{reverse(name)}?vm={vm.pk}"
    if name.startswith("updates:") or name in {"vms:vm-settings", "vms:vm-edit"}:
        return reverse(name, args=[vm.pk])
    return reverse(name)


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
    for name in {name for _method, name in DOORS} - LIBRARY:
        answer = client.put(address(name, vm, operation))
        assert answer.status_code == 405, name
        taken |= {(method.strip().lower(), name) for method in answer["Allow"].split(",")}
    assert taken == {(method, name) for method, name in DOORS if name not in LIBRARY}


def test_what_writes_asks_for_the_token_of_the_form(staff: User, vm: VirtualMachine, operation: Operation) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(staff)
    for method, name in DOORS:
        if method == "post":
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


@pytest.mark.parametrize(("method", "name"), [door for door in DOORS if bad_addresses(door[1])])
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


def a_row_of(model: str) -> Any:
    label, _, name = model.partition("_")
    return apps.get_model(label, name).objects.order_by("pk").first()


def admin_address(door: str, pk: object = None) -> str:
    """The address of an admin page, about the first row of its model unless told."""
    model, _, action = door.removeprefix("admin:").rpartition("_")
    if door == "admin:app_list":
        return reverse(door, args=["vms"])
    if door == "admin:view_on_site":
        return reverse(door, args=[1, 1])
    if door == "admin:auth_user_password_change":
        model, action = "auth_user", "change"
    if model in ADMIN_MODELS and action in {"change", "history", "delete"}:
        return reverse(door, args=[pk or a_row_of(model).pk])
    return reverse(door)


@pytest.fixture
def rows_of_every_model(vm: VirtualMachine, operation: Operation, cast: dict[str, User], client: Client) -> None:
    """Something to look at on each of the admin's pages; triggers keep the events."""
    PatchFactory()
    ReleaseFactory()
    VirtualMachine.objects.filter(pk=vm.pk).update(reboot_setting="Never")
    UserSession.objects.create(user=cast["reader"], ip="127.0.0.1", session_key="x")


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
