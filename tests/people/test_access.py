"""The Access pages: who holds which role where, giving, taking, and what somebody can do on a machine."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied
from django.db import connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from audit.models import AuditEvent
from audit.tags import Tag
from people.selectors.access import ON_A_MACHINE, ON_EVERYTHING, Asked, access_page, what_can
from tests.doors import DOORS
from tests.factories import (
    GroupFactory,
    ResourceGroupFactory,
    RoleAssignmentFactory,
    SubscriptionFactory,
    UserFactory,
    VirtualMachineFactory,
)
from tests.forms import text_of
from tests.patching.tables import Row, flag, table
from vms.choices import Role, Scope
from vms.models import Grants, ResourceGroup, RoleAssignment
from vms.selectors import Held, grants_of_many, holders_of_everything
from vms.services.roles import Taken, assign_role, give_role, take_role

pytestmark = pytest.mark.django_db
GIVE = "/access/give/"


@pytest.fixture
def places(db: None) -> dict[str, Held]:
    """What the tables of docs/rules.md name."""
    subscription, other = SubscriptionFactory(name="Ours"), SubscriptionFactory(name="Theirs")
    group = ResourceGroupFactory(subscription=subscription, name="rg-web")
    vm = VirtualMachineFactory(name="web-001", resource_group=group)
    return {
        "everything": None,
        "subscription": subscription,
        "another subscription": other,
        "resource_group": group,
        "another resource_group": ResourceGroupFactory(subscription=subscription, name="rg-sql"),
        "vm": vm,
        "another vm": VirtualMachineFactory(name="web-002", resource_group=group),
        "vm elsewhere": VirtualMachineFactory(
            name="web-001", resource_group=ResourceGroupFactory(subscription=other, name="rg-web")
        ),
    }


# --- the rules (docs/rules.md, Access) -------------------------------------------------------------------------------


@table("giving-roles")
def test_who_may_give_where(places: dict[str, Held], row: Row) -> None:
    giver, to = UserFactory(), UserFactory()
    if row["holds"]:
        assign_role(role=Role(row["holds"]), on=places[row["on"]], users=[giver])
    for role in Role:
        if flag(row["may"]):
            assert give_role(role=role, on=places[row["gives on"]], to=to, by=giver)
            assert not give_role(role=role, on=places[row["gives on"]], to=to, by=giver)  # held already
            mine = RoleAssignment.objects.get(user=to, role=role.value)
            assert take_role(assignment_id=mine.pk, by=giver) is Taken.TAKEN
        else:
            with pytest.raises(PermissionDenied):
                give_role(role=role, on=places[row["gives on"]], to=to, by=giver)
            assign_role(role=role, on=places[row["gives on"]], users=[to])
            theirs = RoleAssignment.objects.get(user=to, role=role.value)
            with pytest.raises(PermissionDenied):
                take_role(assignment_id=theirs.pk, by=giver)
            assert RoleAssignment.objects.filter(pk=theirs.pk).exists()


@table("taking-roles")
def test_what_may_be_taken(places: dict[str, Held], staff: User, row: Row) -> None:
    assign_role(role=Role(row["role"]), on=places[row["on"]], users=[UserFactory(username="first")])
    group = GroupFactory()
    group.user_set.add(UserFactory(is_active=False))
    if row["another Owner of everything"] == "a group with an active person":
        group.user_set.add(UserFactory())
    others: dict[str, Any] = {
        "a person": {"users": [UserFactory()]},
        "a person who is not active": {"users": [UserFactory(is_active=False)]},
        "a group without active people": {"groups": [group]},
        "a group with an active person": {"groups": [group]},
        "nobody": {},
    }
    assign_role(role=Role.OWNER, **others[row["another Owner of everything"]])
    assigned = RoleAssignment.objects.get(user__username="first")
    assert (take_role(assignment_id=assigned.pk, by=staff) is Taken.TAKEN) == flag(row["may"])
    assert RoleAssignment.objects.filter(pk=assigned.pk).exists() != flag(row["may"])


@pytest.mark.django_db(transaction=True)
def test_two_owners_cannot_take_each_other_at_once() -> None:
    people = [UserFactory(username="one"), UserFactory(username="two")]
    assign_role(role=Role.OWNER, users=people)
    rows = {user.pk: RoleAssignment.objects.get(user=user).pk for user in people}
    start, taken = threading.Barrier(2), []

    def take(by: User, other: User) -> None:
        start.wait()
        try:
            taken.append(take_role(assignment_id=rows[other.pk], by=by))
        except PermissionDenied:  # the other was first
            taken.append(None)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=take, args=pair) for pair in (people, people[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken.count(Taken.TAKEN) == 1
    assert RoleAssignment.objects.count() == 1


# --- many at once ----------------------------------------------------------------------------------------------------


def test_the_grants_of_many_are_those_of_each(places: dict[str, Held], django_assert_num_queries: Any) -> None:
    group = GroupFactory()
    people = [UserFactory() for _ in range(4)] + [UserFactory(is_superuser=True), UserFactory(is_active=False)]
    for user in (people[1], people[2], people[5]):
        user.groups.add(group)
    assign_role(role=Role.OPERATOR, on=places["resource_group"], groups=[group])
    assign_role(role=Role.OWNER, on=places["vm"], users=[people[0], people[2], people[5]])
    assign_role(role=Role.READER, users=[people[3]])
    with django_assert_num_queries(3):
        found = grants_of_many(User.objects.filter(pk__in=[user.pk for user in people]))
    assert {pk: set(grants.rows) for pk, grants in found.items()} == {
        user.pk: set(Grants.of(User.objects.get(pk=user.pk)).rows) for user in people
    }


def test_who_holds_a_role_on_everything(places: dict[str, Held], staff: User) -> None:
    group = GroupFactory()
    member, chief, operator, gone = (UserFactory() for _ in range(4))
    gone.is_active = False
    gone.save()
    group.user_set.add(member, gone)
    assign_role(role=Role.OWNER, groups=[group], users=[chief, gone])
    assign_role(role=Role.OPERATOR, users=[operator])
    assign_role(role=Role.OWNER, on=places["subscription"], users=[UserFactory()])
    assert set(holders_of_everything(Role.OWNER)) == {staff, chief, member}
    assert set(holders_of_everything(Role.OPERATOR)) == {staff, chief, member, operator}


# --- the list --------------------------------------------------------------------------------------------------------


def listed(reader: User, **asked: str) -> set[str]:
    rows = access_page(reader=reader, asked=Asked(**asked)).rows
    return {f"{held.who} {held.assignment.role} {held.assignment.scope}{'!' if held.may_take else ''}" for held in rows}


def test_everybody_sees_the_roles_that_the_rules_say(places: dict[str, Held], chief: User, operator: User) -> None:
    mate = GroupFactory(name="mates")
    mine, lead = UserFactory(username="mine"), UserFactory(username="lead")
    mine.groups.add(mate)
    assign_role(role=Role.READER, on=places["vm"], users=[mine])
    assign_role(role=Role.READER, on=places["vm elsewhere"], groups=[mate])
    assign_role(role=Role.OWNER, on=places["subscription"], users=[lead])
    assert listed(mine) == {"mine reader vm", "mates reader vm"}
    assert listed(lead) == {"lead owner subscription!", "mine reader vm!"}
    assert listed(operator) == {"operator operator resource_group"}
    assert len(listed(chief)) == RoleAssignment.objects.count()
    assert all(words.endswith("!") for words in listed(chief))


def test_the_list_is_narrowed_down(places: dict[str, Held], chief: User) -> None:
    assign_role(role=Role.READER, on=places["vm"], users=[UserFactory(username="Yamada")])
    assign_role(role=Role.OPERATOR, on=places["resource_group"], groups=[GroupFactory(name="yama")])
    assert listed(chief, who="yama") == {"Yamada reader vm!", "yama operator resource_group!"}
    assert listed(chief, role="operator") == {"yama operator resource_group!"}
    assert listed(chief, where="WEB-0") == {"Yamada reader vm!"}
    assert listed(chief, scope="everything") == {"chief owner everything!"}


def test_a_filter_that_cannot_be_read_shows_nothing(client: Client, chief: User) -> None:
    client.force_login(chief)
    answer = client.get("/access/?role=emperor")
    assert answer.status_code == 422
    assert "Nothing is shown" in text_of(answer)


def test_pages_of_the_list_cost_the_same(client: Client, chief: User, places: dict[str, Held]) -> None:
    client.force_login(chief)
    client.get("/access/")
    counts = []
    for many in (2, 110):
        assign_role(role=Role.READER, on=places["vm"], users=[UserFactory() for _ in range(many)])
        with CaptureQueriesContext(connection) as queries:
            page = client.get("/access/")
        counts.append(len(queries))
    assert counts[0] == counts[1]
    seen = page.content.decode().count("access/")
    assert seen > 50
    first = access_page(reader=chief, asked=Asked())
    second = access_page(reader=chief, asked=Asked(), cursor=first.next)
    assert len(first.rows) == len(second.rows) == 50
    assert not {held.assignment.pk for held in first.rows} & {held.assignment.pk for held in second.rows}


# --- giving and taking by the pages ------------------------------------------------------------------------------------


def test_a_colleague_is_given_patch_operator_on_one_group(
    client: Client, owner: User, resource_group: ResourceGroup
) -> None:
    UserFactory(username="yamada")
    client.force_login(owner)
    page = text_of(client.get(GIVE))
    assert "Everything" not in page.partition("Where the role holds")[2]
    form = {"scope": "resource_group", "kind": "person", "name": "Yamada", "role": "operator", "place": "RG-OURS"}
    answer = client.post(GIVE, form, follow=True)
    assert "yamada is Patch operator there now." in text_of(answer)
    row = RoleAssignment.objects.get(user__username="yamada")
    assert (row.role, row.resource_group) == ("operator", resource_group)
    event = AuditEvent.objects.get(tag=Tag.ROLE_GIVE.value, object_name="yamada")
    assert event.person == "owner"
    assert "was Patch operator there already" in text_of(client.post(GIVE, form, follow=True))
    take = reverse("access-take", args=[row.pk])
    assert "Take the role back" in text_of(client.get(take))
    assert RoleAssignment.objects.filter(pk=row.pk).exists()
    assert "yamada is no longer Patch operator on rg-ours" in text_of(
        client.post(take, {"reason": "left the team"}, follow=True)
    )
    event = AuditEvent.objects.get(tag=Tag.ROLE_TAKE.value, object_name="yamada")
    assert (event.person, event.reason) == ("owner", "left the team")
    assert client.post(take).status_code == 404  # it is gone


@pytest.mark.parametrize(
    ("scope", "has_place"), [("everything", False), ("subscription", True), ("resource_group", True), ("vm", True)]
)
def test_the_form_has_only_the_fields_of_its_scope(client: Client, chief: User, scope: str, has_place: bool) -> None:
    client.force_login(chief)
    html = client.get(f"{GIVE}?scope={scope}").content.decode()
    assert ('name="place"' in html) == has_place
    assert 'name="place_id"' not in html


def test_of_two_places_of_one_name_one_is_chosen(client: Client, chief: User, places: dict[str, Held]) -> None:
    to = UserFactory(username="yamada")
    client.force_login(chief)
    form = {"scope": "vm", "kind": "person", "name": "yamada", "role": "reader", "place": "web-001"}
    asked = client.post(GIVE, form)
    assert asked.status_code == 422
    assert "web-001 · rg-web · Theirs" in text_of(asked)
    assert not RoleAssignment.objects.filter(user=to).exists()
    elsewhere = places["vm elsewhere"]
    assert elsewhere is not None
    assert client.post(GIVE, form | {"place_id": elsewhere.pk}).status_code == 302
    assert RoleAssignment.objects.get(user=to).vm == elsewhere
    assert client.post(GIVE, form | {"place_id": "999999"}).status_code == 422


def test_what_is_not_owned_or_not_there_is_answered_alike(client: Client, owner: User, places: dict[str, Held]) -> None:
    UserFactory(username="yamada")
    client.force_login(owner)
    form = {"scope": "resource_group", "kind": "person", "name": "yamada", "role": "reader"}
    for name in ("rg-web", "rg-of-nobody", "x" * 300):
        answer = client.post(GIVE, form | {"place": name})
        assert answer.status_code == 422
    assert "Of what you own nothing is called so." in text_of(client.post(GIVE, form | {"place": "rg-web"}))
    mine = VirtualMachineFactory(name="mine", resource_group=owner.roleassignment_set.get().resource_group)
    for scope in (
        "everything",
        "subscription",
        "",
        "nowhere",
    ):  # never given on another kind of place than was asked for
        assert client.post(GIVE, form | {"scope": scope, "place": mine.name}).status_code == 422
    assert not RoleAssignment.objects.filter(user__username="yamada").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "nobody"}, "There is no active person of this name."),
        ({"name": "gone"}, "There is no active person of this name."),
        ({"name": "x", "kind": "group"}, "There is no group of this name."),
        ({"role": "emperor"}, "emperor is not one of the available choices"),
        ({"name": ""}, "This field is required."),
    ],
)
def test_what_is_wrong_with_the_form_is_said(client: Client, chief: User, fields: dict[str, str], words: str) -> None:
    UserFactory(username="gone", is_active=False)
    UserFactory(username="yamada")
    client.force_login(chief)
    form = {"scope": "everything", "kind": "person", "name": "yamada", "role": "reader"}
    answer = client.post(GIVE, form | fields)
    assert answer.status_code == 422
    assert words in text_of(answer)


def test_a_group_of_people_is_given_a_role(client: Client, chief: User) -> None:
    Group.objects.create(name="<b>night</b>")
    client.force_login(chief)
    form = {"scope": "everything", "kind": "group", "name": "<b>night</b>", "role": "reader"}
    answer = client.post(GIVE, form, follow=True)
    assert RoleAssignment.objects.filter(group__name="<b>night</b>").exists()
    assert "<b>night</b>" not in answer.content.decode()


def test_the_last_owner_of_everything_stays(client: Client, chief: User, staff: User) -> None:
    client.force_login(staff)
    take = reverse("access-take", args=[RoleAssignment.objects.get(user=chief).pk])
    answer = client.post(take)
    assert answer.status_code == 409
    assert "this is the last Owner of everything" in text_of(answer)
    assert RoleAssignment.objects.filter(user=chief).exists()


# --- what can somebody do? -----------------------------------------------------------------------------------------------


def status_of(door: str, who: str) -> int:
    return max(status[who] for (_method, name), status in DOORS.items() if name == door)


@pytest.mark.parametrize("who", ["outsider", "reader", "operator", "owner", "chief", "staff"])
def test_the_answer_is_that_of_the_doors(
    request: pytest.FixtureRequest, resource_group: ResourceGroup, who: str
) -> None:
    """What the page says is what the table of every address says, which the doors themselves are held to."""
    person = request.getfixturevalue(who)
    vm = VirtualMachineFactory(resource_group=resource_group)
    answer = what_can(person, vm)
    for judged in (*answer.on_machine, *answer.on_everything):
        if judged.act.door == "access-give":
            continue  # this door is about any place; the table of giving has it
        assert judged.is_allowed == (status_of(judged.act.door, who) not in {403, 404}), judged.act.door
    assert len(answer.on_machine) == len(ON_A_MACHINE)
    assert len(answer.on_everything) == len(ON_EVERYTHING)


def test_the_page_names_the_roles_that_reach_the_machine(
    client: Client, owner: User, resource_group: ResourceGroup
) -> None:
    vm = VirtualMachineFactory(name="web-001", resource_group=resource_group)
    VirtualMachineFactory(name="web-001x", resource_group=resource_group)
    yamada, night = UserFactory(username="yamada"), GroupFactory(name="night")
    yamada.groups.add(night)
    assign_role(role=Role.OPERATOR, on=resource_group.subscription, groups=[night])
    assign_role(role=Role.OWNER, on=ResourceGroupFactory(name="rg-else"), users=[yamada])
    client.force_login(owner)
    page = text_of(client.get("/access/check/?person=yamada&vm=WEB-001"))
    assert f"yamada on {vm.name}" in page
    assert "The strongest role there: Patch operator." in page
    assert "the group night" in page
    assert "rg-else" not in page
    assert "It takes the role Owner on the machine." in page
    assert "Install updates now" in page


def test_of_others_only_an_owner_of_the_machine_asks(
    client: Client, reader: User, operator: User, resource_group: ResourceGroup
) -> None:
    VirtualMachineFactory(name="web-001", resource_group=resource_group)
    VirtualMachineFactory(name="db-001")
    client.force_login(reader)
    for name in ("operator", "nobody-at-all"):
        answer = client.get(f"/access/check/?person={name}&vm=web-001")
        assert answer.status_code == 422
        assert "Only an Owner of the machine may ask" in text_of(answer)
    assert "The strongest role there: Reader." in text_of(client.get("/access/check/?person=Reader&vm=web-001"))
    for hidden in ("db-001", "no-such"):
        unseen = client.get(f"/access/check/?person=reader&vm={hidden}")
        assert "No machine that you may see is called so." in text_of(unseen)
    assert client.get("/access/check/").status_code == 200


def test_nobody_who_is_not_active_can_do_anything(resource_group: ResourceGroup) -> None:
    vm = VirtualMachineFactory(resource_group=resource_group)
    gone = UserFactory(is_active=False, is_superuser=True)
    RoleAssignmentFactory(user=gone, role=Role.OWNER.value, scope=Scope.EVERYTHING.value)
    answer = what_can(gone, vm)
    assert not answer.reaching
    assert not any(judged.is_allowed for judged in (*answer.on_machine, *answer.on_everything))
