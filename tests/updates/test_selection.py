"""Selections of machines: what cannot be read starts nothing; what was confirmed, or less, is what is started."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patching.terms import CRITICAL_AND_SECURITY, InstallationPlan, OperationKind
from tests.factories import (
    ConnectionFactory,
    PatchFactory,
    ResourceGroupFactory,
    RoleAssignmentFactory,
    UserFactory,
    VirtualMachineFactory,
)
from tests.forms import fields_of
from tests.updates.world import hand_out, lacking
from updates.models import BulkOutcome, BulkRequest, MaintenanceConfiguration, Operation, Rollout, RolloutMember
from updates.services import bulk
from updates.services.bulk import EmptySelectionError, hand_out_block, request_bulk
from updates.services.rollouts import RolloutPlan, advance_rollouts, create_rollout
from vms.choices import Role, Scope
from vms.filters import FILTER_NAMES, VmFilter
from vms.models import ResourceGroup, VirtualMachine
from vms.selection import NOTHING, VmSelection

pytestmark = pytest.mark.django_db
BULK, SETTINGS = "/bulk/", "/virtual-machines/settings/"
PLAN = InstallationPlan(classifications=CRITICAL_AND_SECURITY)
TEXTS = {"q", "resource_group", "location", "tag"}
START = {
    "request_id": "",
    "classifications": ["Security"],
    "reboot_setting": "IfRequired",
    "maximum_minutes": "60",
    "go": "start",
}


def bad_values(name: str) -> st.SearchStrategy[str]:
    """Values of a filter that are unknown, unreadable, too long or blank."""
    wrong = ["9999", "ontrack", "0", "-1", "a\x00b", "x" * 300, " ", "\u3000", "１", "%", "'", "enabled "]
    if name in TEXTS:
        wrong = ["a\x00b", "x" * 300, " ", "\u3000", "nosuch-place-"]
    if name == "q":
        wrong = ["a\x00b", "x" * 300, " ", "---", "\u200b", "_._", "!"]
    return st.sampled_from(wrong)


def nothing_happened() -> bool:
    return not (
        BulkRequest.objects.exists()
        or Rollout.objects.exists()
        or Operation.objects.exists()
        or VirtualMachine.objects.filter(reboot_setting="Always").exists()
        or MaintenanceConfiguration.objects.exists()
    )


# --- one list of names -------------------------------------------------------------------------------------------


def test_there_is_one_list_of_filter_names(client: Client, reader: User, resource_group: ResourceGroup) -> None:
    VirtualMachineFactory(resource_group=resource_group)
    client.force_login(reader)
    filters = client.get(reverse("vms:vm-list")).context["filters"]
    assert tuple(filters.form.fields) == tuple(VmFilter.base_filters) == FILTER_NAMES
    page = client.get(reverse("vms:vm-list")).content.decode()
    assert [name for name in FILTER_NAMES if f'name="{name}"' not in page] == []


# --- bad values at every door ------------------------------------------------------------------------------------


@pytest.fixture
def three(owner: User, resource_group: ResourceGroup, client: Client) -> list[VirtualMachine]:
    client.force_login(owner)
    row = ConnectionFactory()
    return [VirtualMachineFactory(resource_group=resource_group, connection=row) for _ in range(3)]


def doors(name: str, value: str, ticked: int) -> list[tuple[str, str, dict[str, Any]]]:
    """Every door that acts, asked with one bad value: in its form and in its address, for all and beside a tick."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    for kind in OperationKind:
        for extra in ({}, {"availability_first": "on"}):
            form = START | {"request_id": str(uuid.uuid4()), "kind": kind.value, "confirm": "3", **extra}
            found += [
                (BULK, "", form | {"all": "1", name: value}),
                (BULK, "", form | {"all": "1", "shown": f"3-{'0' * 64}", name: value}),
                (BULK, "", form | {"vm": ticked, name: value}),
                (BULK, "", form | {name: value}),
                (BULK, value, form | {"all": "1"}),
                (BULK, value, form | {"vm": ticked}),
            ]
    change = {"reboot_setting": "Always", "confirm": "3", "go": "apply"}
    found += [
        (SETTINGS, "", change | {"all": "1", name: value}),
        (SETTINGS, "", change | {"vm": ticked, name: value}),
        (SETTINGS, "", change | {name: value}),
        (SETTINGS, value, change | {"vm": ticked}),
    ]
    return found


@given(
    data=st.data(), name=st.sampled_from([*FILTER_NAMES, "tags", "hotpatchtrack", "vms", "Location", "except", "kept"])
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_bad_value_starts_nothing_at_any_door(
    client: Client, three: list[VirtualMachine], data: st.DataObject, name: str
) -> None:
    value = data.draw(bad_values(name)) if name in FILTER_NAMES else data.draw(st.sampled_from(["x", "1", "web"]))
    where, in_address, form = data.draw(st.sampled_from(doors(name, value, three[0].pk)))
    address = f"{where}?{name}={_quoted(in_address)}" if in_address else where
    answer = client.post(address, form)
    assert answer.status_code in {400, 403, 404, 422}
    hand_out()
    advance_rollouts(now=timezone.now())
    assert nothing_happened()


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("connection=9999&all=1", "9999"),
        ("hotpatch_track=ontrack&all=1", "ontrack"),
        ("tags=x&all=1", "tags"),
        ("vm=abc", "abc"),
        ("vm=0", "0"),
        (f"location={'x' * 61}&all=1", "x" * 60),
        ("location=japaneast&location=westus&all=1", "japaneast, westus"),
        ("all=yes", "yes"),
        ("resource_group=gone&all=1", "Resource group: gone"),
    ],
)
def test_the_error_names_the_value(client: Client, three: list[VirtualMachine], query: str, named: str) -> None:
    for where in (f"{BULK}?kind=installation&{query}", f"{SETTINGS}?{query}"):
        answer = client.get(where)
        assert answer.status_code == 422
        assert named in answer.content.decode()
        assert 'value="start"' not in answer.content.decode()


def test_the_list_and_the_export_say_what_they_ignore(client: Client, three: list[VirtualMachine]) -> None:
    for query in ("connection=9999", "tags=9999", "q=%20%20", "power_state=9999"):
        shown = client.get(f"/virtual-machines/?{query}").content.decode()
        assert shown.count("The list ignores part of its address.") == 1
        assert "field-error" not in shown
        assert "All that match" not in shown
        lines = b"".join(client.get(f"/virtual-machines/export/?{query}")).decode().splitlines()
        assert lines[0].lstrip("\ufeff").lstrip('"').startswith("# ")
        assert len(lines) == 5
    assert "ignores part" not in client.get("/virtual-machines/?q=vm&sort=-name").content.decode()


def test_blank_parameters_leave_the_address(client: Client, three: list[VirtualMachine]) -> None:
    answer = client.get("/virtual-machines/?q=vm&location=&connection=")
    assert (answer.status_code, answer["Location"]) == (302, "/virtual-machines/?q=vm")
    polled = client.get("/virtual-machines/?q=vm&location=", headers={"HX-Request": "true", "HX-Target": "vm-table"})
    assert (polled.status_code, polled["HX-Push-Url"]) == (200, "/virtual-machines/?q=vm")


def test_a_field_that_is_given_twice_means_neither(client: Client, three: list[VirtualMachine]) -> None:
    """Whichever of the two counted, it could be the one that the reader did not see: in the form or in its address."""
    ticked = {"vm": three[0].pk}
    twice = [
        (f"{SETTINGS}?reboot_setting=Never", ticked | {"reboot_setting": "Always", "go": "apply"}),
        (SETTINGS, ticked | {"reboot_setting": ["Never", "Always"], "go": "apply"}),
        (f"{BULK}?reboot_setting=Always", START | ticked | {"request_id": str(uuid.uuid4()), "kind": "installation"}),
        (f"{BULK}?request_id={uuid.uuid4()}", START | ticked | {"request_id": str(uuid.uuid4()), "kind": "assessment"}),
    ]
    for address, form in twice:
        answer = client.post(address, form)
        assert answer.status_code == 422, address
        assert "is given more than once" in answer.content.decode(), address
    assert nothing_happened()


# --- no tick, no kind, all that match ----------------------------------------------------------------------------


def test_no_tick_is_no_machine_and_no_kind_is_no_work(client: Client, three: list[VirtualMachine]) -> None:
    for kind in ("assessment", "installation", "rollback"):
        form = START | {"request_id": str(uuid.uuid4()), "kind": kind}
        assert client.post(BULK, form).status_code == 422
        assert "No virtual machine is ticked" in client.get(BULK, {"kind": kind}).content.decode()
    for wrong in ({}, {"kind": ""}, {"kind": "settings"}, {"kind": ["assessment", "installation"]}):
        form = START | {"request_id": str(uuid.uuid4()), "vm": three[0].pk} | wrong
        answer = client.post(BULK, form)
        assert answer.status_code == 422
        assert "Choose what these machines shall do." in answer.content.decode()
    assert nothing_happened()
    with pytest.raises(EmptySelectionError):
        request_bulk(
            request_id=uuid.uuid4(),
            kind=OperationKind.ASSESSMENT,
            selection=NOTHING,
            plan=None,
            requested_by=User.objects.get(username="owner"),
        )


@pytest.mark.parametrize("kind", ["assessment", "installation"])
def test_all_that_match_are_confirmed_by_their_number_and_by_what_was_shown(
    client: Client, three: list[VirtualMachine], resource_group: ResourceGroup, kind: str
) -> None:
    lacked = PatchFactory()
    lacking(three, lacked)
    page = client.get(BULK, {"kind": kind, "all": "1", "location": "Japan East"})
    if kind == "installation":
        page = client.post(BULK, fields_of(page, BULK) | {"go": "review"})
    fields = fields_of(page, BULK) | {"go": "start"}
    for typed in ("", "2", "03x", "62"):
        assert client.post(BULK, fields | {"confirm": typed}).status_code == 422
    fourth = VirtualMachineFactory(resource_group=resource_group, connection=three[0].connection)
    lacking([fourth], lacked)
    late = client.post(BULK, fields | {"confirm": "3"})
    assert late.status_code == 422
    assert "3 machines were shown, and 4 match now." in late.content.decode()
    three[0].delete()
    other = client.post(BULK, fields | {"confirm": "3"})
    assert "3 machines match, as many as were shown, but other ones." in other.content.decode()
    unseen = {name: values for name, values in fields.items() if name != "shown"}
    assert "Nobody has seen yet" in client.post(BULK, unseen | {"confirm": "3"}).content.decode()
    assert nothing_happened()
    again = fields_of(other, BULK) | {"go": "start", "confirm": "３"}
    assert client.post(BULK, again).status_code == 302
    row = BulkRequest.objects.get()
    assert row.blocks.get().vm_ids == sorted([three[1].pk, three[2].pk, fourth.pk])


def test_settings_of_all_that_match_take_the_number_and_stay_within_what_was_shown(
    client: Client, three: list[VirtualMachine], resource_group: ResourceGroup
) -> None:
    page = client.get(SETTINGS, {"all": "1"})
    review = client.post(SETTINGS, fields_of(page, SETTINGS) | {"reboot_setting": "Always", "go": "review"})
    fields = fields_of(review, SETTINGS) | {"go": "apply"}
    assert client.post(SETTINGS, fields | {"confirm": "4"}).status_code == 422
    VirtualMachineFactory(resource_group=resource_group)
    assert client.post(SETTINGS, fields | {"confirm": "3"}).status_code == 422
    wanting = VirtualMachine.objects.filter(desired_settings__reboot_setting="Always")
    assert not wanting.exists()
    review = client.post(SETTINGS, fields_of(page, SETTINGS) | {"reboot_setting": "Always", "go": "review"})
    VirtualMachine.objects.exclude(pk__in=[vm.pk for vm in three]).delete()
    assert client.post(SETTINGS, fields | {"confirm": "3"}).status_code == 200
    assert wanting.count() == 3


def test_a_maintenance_scope_with_a_bad_value_is_not_kept(
    client: Client, chief: User, three: list[VirtualMachine]
) -> None:
    client.force_login(chief)
    good = {
        "name": "m",
        "starts_on": "2030-12-08",
        "starts_at": "22:00",
        "time_zone": "UTC",
        "duration_minutes": "120",
        "recur_every": "Day",
        "classifications": ["Security"],
        "reboot_setting": "IfRequired",
        "location": "japaneast",
        "go": "save",
    }
    url = reverse("updates:maintenance-create")
    for wrong in (
        {"subscription": "9999"},
        {"subscription": "x"},
        {"resource_group": "gone"},
        {"location": "atlantis"},
        {"image_sku": "none"},
        {"tag_name": "nothing"},
        {"tag_value": "prod"},
        {"machines": "gone"},
        {"hotpatch_track": "on_track"},
        {"connection": "9999"},
        {"tag": "x"},
        {"location": ["westeurope", "japaneast"]},
    ):
        assert client.post(url, good | wrong).status_code == 422, wrong
    assert not MaintenanceConfiguration.objects.exists()
    assert client.post(url, good).status_code == 302


# --- started is confirmed, or less -------------------------------------------------------------------------------

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "move", "retag", "take", "give", "leave", "reactivate"]), st.integers(0, 11)
    ),
    max_size=6,
)


class World:
    """Two groups of six machines and a person with roles on some of it."""

    def __init__(self, groups: list[ResourceGroup], grants: set[int]) -> None:
        self.groups = groups
        self.user = UserFactory()
        row = ConnectionFactory()
        self.vms = [
            VirtualMachineFactory(resource_group=groups[n % 2], connection=row, location="japaneast").pk
            for n in range(8)
        ]
        for number in grants:
            self.give(number)

    def give(self, number: int) -> None:
        scope: dict[str, Any] = {"scope": Scope.VM.value, "vm_id": self.vms[number % 8]}
        if number >= 8:
            scope = {"scope": Scope.RESOURCE_GROUP.value, "resource_group": self.groups[number % 2]}
        have = self.user.roleassignment_set.filter(role=Role.OPERATOR.value, **scope)
        if not have.exists() and VirtualMachine.objects.filter(pk=scope.get("vm_id", self.vms[0])).exists() | (
            "resource_group" in scope
        ):
            RoleAssignmentFactory(user=self.user, role=Role.OPERATOR.value, **scope)

    def happen(self, event: str, number: int) -> None:
        vm = VirtualMachine.objects.filter(pk=self.vms[number % 8])
        if event == "add":
            VirtualMachineFactory(resource_group=self.groups[number % 2], location="japaneast")
        elif event == "remove":
            vm.delete()
        elif event == "move":
            vm.update(resource_group=self.groups[number % 2], location="westeurope")
        elif event == "retag":
            vm.update(tags={"ring": str(number)})
        elif event == "take":
            for row in self.user.roleassignment_set.order_by("pk")[number % 3 : number % 3 + 1]:
                row.delete()
        elif event == "give":
            self.give(number)
        elif event in {"leave", "reactivate"}:
            User.objects.filter(pk=self.user.pk).update(is_active=event == "reactivate")
        self.user = User.objects.get(pk=self.user.pk)

    def mine(self) -> set[int]:
        return set(VirtualMachine.objects.visible_to(self.user, Role.OPERATOR).values_list("pk", flat=True))

    def there(self) -> set[int]:
        return set(VirtualMachine.objects.values_list("pk", flat=True))


@given(grants=st.sets(st.integers(0, 11), min_size=1, max_size=4), rounds=st.lists(EVENTS, min_size=4, max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_bulk_request_starts_what_was_confirmed_or_less(
    monkeypatch: pytest.MonkeyPatch, db: None, grants: set[int], rounds: list[list[tuple[str, int]]]
) -> None:
    monkeypatch.setattr(bulk, "BLOCK", 3)
    world = World([ResourceGroupFactory(), ResourceGroupFactory()], grants)
    selection = VmSelection.matching(VirtualMachine.objects.visible_to(world.user, Role.OPERATOR))
    row = request_bulk(
        request_id=uuid.uuid4(), kind=OperationKind.ASSESSMENT, selection=selection, plan=None, requested_by=world.user
    )
    confirmed = set(selection.ids)
    expected: dict[int, str] = {}
    blocks = [block.vm_ids for block in row.blocks.order_by("number")]
    removed = 0
    for number in range(len(blocks)):
        for event in rounds[number]:
            world.happen(*event)
        mine, there = world.mine(), world.there()
        removed += sum(pk not in there for pk in blocks[number])
        expected |= {pk: "" if pk in mine else "role.missing" for pk in blocks[number] if pk in there}
        assert hand_out_block(connection_kinds=["none"]) is not None
    assert hand_out() == 0
    row.refresh_from_db()
    assert (row.is_handed_out, row.vm_count, row.removed_count) == (True, len(confirmed), removed)
    found = dict(BulkOutcome.objects.filter(request=row).values_list("vm_id", "code"))
    assert found == {pk: code for pk, code in expected.items() if pk in world.there()}
    started = set(Operation.objects.filter(requested_by=world.user).values_list("vm_id", flat=True))
    assert started <= confirmed
    assert started == {pk for pk, code in found.items() if not code}
    Operation.objects.all().delete()


@given(grants=st.sets(st.integers(0, 11), min_size=1, max_size=4), rounds=st.lists(EVENTS, min_size=4, max_size=4))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_rollout_starts_what_was_confirmed_or_less(
    db: None, grants: set[int], rounds: list[list[tuple[str, int]]]
) -> None:
    world = World([ResourceGroupFactory(), ResourceGroupFactory()], grants)
    selection = VmSelection.matching(VirtualMachine.objects.visible_to(world.user, Role.OPERATOR))
    what = RolloutPlan(name="", source="on_demand", plan=PLAN, most_failures=99)  # type: ignore[arg-type]
    now = timezone.now()
    rollout = create_rollout(what=what, selection=selection, now=now, created_by=world.user)
    seen: set[int] = set()
    for step, events in enumerate([*rounds, *([[]] * 12)]):
        for event in events:
            world.happen(*event)
        mine = world.mine()
        advance_rollouts(now=now + timedelta(minutes=2 * step))
        fresh = set(Operation.objects.filter(requested_by=world.user).values_list("vm_id", flat=True)) - seen
        assert fresh <= mine & set(selection.ids)
        seen |= fresh
        Operation.objects.open().update(state="succeeded", finished_at=now, next_step_at=None)
    members = dict(RolloutMember.objects.filter(rollout=rollout).values_list("vm_id", "code"))
    assert set(members) == set(selection.ids) & world.there()
    assert all(code == "rollout.role_missing" for pk, code in members.items() if pk not in seen)


# --- rights over what one created --------------------------------------------------------------------------------


def test_who_lost_the_role_reads_and_moves_nothing_that_he_made(
    client: Client, operator: User, chief: User, resource_group: ResourceGroup
) -> None:
    vms = [VirtualMachineFactory(resource_group=resource_group) for _ in range(2)]
    selection = VmSelection.of(vm.pk for vm in vms)
    row = request_bulk(
        request_id=uuid.uuid4(), kind=OperationKind.ASSESSMENT, selection=selection, plan=None, requested_by=operator
    )
    what = RolloutPlan(name="mine", source="on_demand", plan=PLAN)  # type: ignore[arg-type]
    rollout = create_rollout(what=what, selection=selection, now=timezone.now(), created_by=operator)
    pages = [reverse("updates:rollout", args=[rollout.pk]), reverse("updates:bulk", args=[row.pk])]
    moves = [
        (reverse("updates:rollout-move", args=[rollout.pk]), "pause"),
        (reverse("updates:rollout-move", args=[rollout.pk]), "resume"),
        (reverse("updates:rollout-move", args=[rollout.pk]), "end"),
        (reverse("updates:bulk-cancel", args=[row.pk]), ""),
    ]
    client.force_login(operator)
    assert [client.get(page).status_code for page in pages] == [200, 200]
    assert "mine" in client.get(reverse("updates:rollouts")).content.decode()
    operator.roleassignment_set.update(role=Role.READER.value)
    assert [client.get(page).status_code for page in pages] == [200, 200]
    assert [client.post(where, {"go": go}).status_code for where, go in moves] == [403] * 4
    operator.roleassignment_set.all().delete()
    assert [client.get(page).status_code for page in pages] == [404, 404]
    assert [client.post(where, {"go": go}).status_code for where, go in moves] == [404] * 4
    assert "mine" not in client.get(reverse("updates:rollouts")).content.decode()
    rollout.refresh_from_db()
    row.refresh_from_db()
    assert (rollout.status, row.is_handed_out) == ("running", False)
    advance_rollouts(now=timezone.now() + timedelta(minutes=1))
    assert set(rollout.members.values_list("code", flat=True)) <= {"rollout.role_missing", ""}
    assert not Operation.objects.exists()
    client.force_login(chief)
    assert [client.get(page).status_code for page in pages] == [200, 200]


def test_runs_lead_to_what_they_are_part_of_and_back(
    client: Client, operator: User, resource_group: ResourceGroup
) -> None:
    vm = VirtualMachineFactory(resource_group=resource_group)
    row = request_bulk(
        request_id=uuid.uuid4(),
        kind=OperationKind.ASSESSMENT,
        selection=VmSelection.of([vm.pk]),
        plan=None,
        requested_by=operator,
    )
    hand_out()
    run = Operation.objects.get()
    client.force_login(operator)
    page = reverse("updates:bulk", args=[row.pk])
    where = reverse("updates:operation", args=[run.pk])
    assert page in client.get(where).content.decode()
    assert where in client.get(page).content.decode()
    assert page in client.get(reverse("updates:rollouts")).content.decode()


# --- connections (S5) --------------------------------------------------------------------------------------------


def test_a_machine_moves_only_behind_a_connection_where_one_may(
    client: Client, owner: User, chief: User, resource_group: ResourceGroup
) -> None:
    vm = VirtualMachineFactory(resource_group=resource_group, connection=ConnectionFactory(name="Own lab"))
    second = VirtualMachineFactory(resource_group=resource_group, connection=ConnectionFactory(name="Own other lab"))
    theirs = VirtualMachineFactory(connection=ConnectionFactory(name="Secret lab"))
    unused = ConnectionFactory(name="Secret spare")
    alone = UserFactory()
    RoleAssignmentFactory(user=alone, role=Role.OWNER.value, scope=Scope.VM.value, vm=vm)
    edit = reverse("vms:vm-edit", args=[vm.pk])
    for user, allowed in ((alone, [vm]), (owner, [vm, second])):
        client.force_login(user)
        page = client.get(edit)
        assert {pk for pk, _name in page.context["form"].fields["connection"].choices} == {
            one.connection_id for one in allowed
        }
        for where in (edit, reverse("vms:vm-list"), reverse("vms:vm-create")):
            assert "Secret" not in client.get(where).content.decode()
        fields = fields_of(page, "") | {"save": "save"}
        for wrong in (theirs.connection_id, unused.pk):
            assert client.post(edit, fields | {"connection": wrong}).status_code == 422
        assert client.post(edit, fields).status_code == 302, user
    vm.refresh_from_db()
    assert vm.connection.name == "Own lab"
    client.force_login(chief)
    assert "Secret spare" in client.get(edit).content.decode()
