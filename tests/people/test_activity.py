"""The Activity page: every act is on it, for those who may see it, found by person, object, act and time."""

from __future__ import annotations

import csv
import io
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation

from audit.models import AuditEvent
from audit.services import Act, record
from audit.tags import Tag
from people.selectors.activity import Asked, activity_page
from tests.factories import (
    ConnectionFactory,
    GroupFactory,
    ReleaseFactory,
    ResourceGroupFactory,
    RoleAssignmentFactory,
    UserFactory,
    VirtualMachineFactory,
)
from updates.models import KbHold, MaintenanceConfiguration, Rollout
from vms.choices import Role, Scope
from vms.models import Connection, ImageCatalogEntry, ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db
URL = "/activity/"


def rows_of(answer: Any) -> list[str]:
    page = answer.content.decode()
    rows = re.findall(r"<tr>(.*?)</tr>", page.partition("<tbody>")[2], re.DOTALL)
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", row)).strip() for row in rows]


def acts(reader: User, **asked: Any) -> list[str]:
    return [entry.event.object_id for entry in activity_page(reader=reader, asked=Asked(**asked)).rows]


# --- who sees what (docs/rules.md, Activity) -----------------------------------------------------------------------


@pytest.fixture
def told(resource_group: ResourceGroup, operator: User, chief: User) -> dict[str, int]:
    """One event of each kind, by name."""
    ours, theirs = VirtualMachineFactory(resource_group=resource_group), VirtualMachineFactory()
    record(
        acts=[
            Act(Tag.HOLD_LIFT, "our machine", **{k: v for k, v in ours.where.items() if k.endswith("_key")}),
            Act(Tag.HOLD_LIFT, "their machine", **{k: v for k, v in theirs.where.items() if k.endswith("_key")}),
            Act(Tag.SETTINGS_CHANGE, "our group", group_key=resource_group.pk),
            Act(Tag.SETTINGS_CHANGE, "their group", group_key=theirs.resource_group_id),
            Act(Tag.SUBSCRIPTION_CHANGE, "our subscription", subscription_key=resource_group.subscription_id),
            Act(Tag.CONNECTION_TEST, "connection"),
            Act(Tag.RELEASE_CHANGE, "release", is_public=True),
            Act(Tag.ROLLOUT_PAUSE, "operator's rollout", owner_key=operator.pk),
        ],
        by=chief,
    )
    record(acts=[Act(Tag.INVENTORY_EXPORT, "operator's export")], by=operator)
    return {"ours": ours.pk, "theirs": theirs.pk}


EVERYBODY = {"release"}
OF_THE_GROUP = EVERYBODY | {"our machine", "our group"}
EVERYTHING = OF_THE_GROUP | {
    *("their machine", "their group", "our subscription", "connection", "operator's rollout", "operator's export"),
}


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        ("chief", EVERYTHING),
        ("staff", EVERYTHING),
        ("reader", OF_THE_GROUP),
        ("operator", OF_THE_GROUP | {"operator's rollout", "operator's export"}),
        ("outsider", EVERYBODY),
        ("subscriber", OF_THE_GROUP | {"our subscription"}),
        ("looker", EVERYTHING - {"connection", "operator's rollout", "operator's export"}),
        ("machinist", EVERYBODY | {"our machine"}),
    ],
)
def test_readers_see_what_they_may(
    told: dict[str, int], resource_group: ResourceGroup, request: pytest.FixtureRequest, who: str, expected: set[str]
) -> None:
    made: dict[str, dict[str, Any]] = {
        "subscriber": {"scope": Scope.SUBSCRIPTION.value, "subscription": resource_group.subscription},
        "looker": {"scope": Scope.EVERYTHING.value},
        "machinist": {"scope": Scope.VM.value, "vm_id": told["ours"]},
    }
    if who in made:
        user = UserFactory(username=who)
        RoleAssignmentFactory(user=user, role=Role.READER.value, **made[who])
    else:
        user = request.getfixturevalue(who)
    assert {name for name in acts(user) if name in EVERYTHING} == expected


def test_what_a_machine_did_elsewhere_is_not_shown_once_it_has_moved_away(
    told: dict[str, int], reader: User, chief: User
) -> None:
    VirtualMachine.objects.filter(pk=told["ours"]).update(resource_group=ResourceGroupFactory())
    assert "our machine" not in acts(reader)
    VirtualMachine.objects.filter(pk=told["ours"]).delete()
    assert "our machine" in acts(reader)  # a removed machine has not moved: its group's readers saw it go
    assert "our machine" in acts(chief)


def test_a_lost_role_takes_ones_own_acts_on_machines_out_of_sight(told: dict[str, int], operator: User) -> None:
    record(acts=[Act(Tag.HOLD_LIFT, "mine", vm_key=told["theirs"])], by=operator)
    assert "mine" not in acts(operator)


# --- filters, pages ------------------------------------------------------------------------------------------------


def test_the_filters_narrow_down_and_what_cannot_be_read_shows_nothing(
    client: Client, chief: User, operator: User, resource_group: ResourceGroup
) -> None:
    vm = VirtualMachineFactory(resource_group=resource_group, name="web-001")
    record(acts=[Act(Tag.HOLD_LIFT, "a", "KB5034129 · web-001", vm_key=vm.pk)], by=operator)
    record(acts=[Act(Tag.CONNECTION_TEST, "b", "Lab")], by=chief)
    assert acts(chief, person="OPERATOR") == ["a"]
    assert acts(chief, thing="WEB-001") == ["a"]
    assert acts(chief, thing="lab", tags=(Tag.CONNECTION_TEST, Tag.HOLD_LIFT)) == ["b"]
    assert acts(chief, tags=(Tag.BACKUP_WRITE,)) == []
    assert acts(chief, since=timezone.now() + timedelta(minutes=1)) == []
    client.force_login(chief)
    for query, count in ((f"?tag={Tag.CONNECTION_TEST.value}", 1), ("?tag=connection", 2), ("?person=operator", 1)):
        assert len(rows_of(client.get(URL + query))) == count, query
    today = timezone.localdate().isoformat()
    assert client.get(f"{URL}?since={today}&until={today}&person=operator").context["page"].rows
    for query in (
        "?tag=nonsense",
        "?since=yesterday",
        "?since=2026-11-02&until=2026-11-01",
        "?until=9999-12-31",
        "?person=" + "x" * 151,
    ):
        answer = client.get(URL + query)
        assert answer.status_code == 422, query
        assert rows_of(answer) == []
        assert "Nothing is shown" in answer.content.decode()
        assert client.get("/activity/export/" + query).status_code == 422


def test_pages_lead_through_everything_and_back(chief: User) -> None:
    record(acts=[Act(Tag.HOLD_LIFT, str(number)) for number in range(120)], by=chief)
    asked = Asked(tags=(Tag.HOLD_LIFT,))
    seen, page = [], activity_page(reader=chief, asked=asked)
    pages = [page]
    while page.next:
        page = activity_page(reader=chief, asked=asked, cursor=page.next)
        pages.append(page)
    seen = [entry.event.object_id for page in pages for entry in page.rows]
    assert sorted(seen, key=int) == [str(number) for number in range(120)]
    assert [len(page.rows) for page in pages] == [50, 50, 20]
    back = activity_page(reader=chief, asked=asked, cursor=pages[2].previous)
    assert back.rows == pages[1].rows
    assert not activity_page(reader=chief, asked=asked, cursor=back.previous).previous
    for nonsense in ("x", "%00", "MjAyNg", str(uuid.uuid4())):
        assert activity_page(reader=chief, asked=asked, cursor=nonsense).rows == pages[0].rows


def test_the_page_costs_the_same_for_2_and_for_200_events(
    django_assert_num_queries: Any, reader: User, chief: User, resource_group: ResourceGroup
) -> None:
    connections = [ConnectionFactory() for _n in range(5)]
    vm = VirtualMachineFactory(resource_group=resource_group)
    asked = Asked(tags=(Tag.RECORD_CHANGE,))
    for many in (2, 200):
        record(
            acts=[
                Act(
                    Tag.RECORD_CHANGE, **vm.where, source="vms.virtualmachine",
                    before={"connection_id": connections[number % 5].pk}, after={"connection_id": connections[0].pk},
                )
                for number in range(many)
            ],
            by=chief,
        )  # fmt: skip
        with django_assert_num_queries(4):  # grants, ids, events, what the connections are called
            assert activity_page(reader=reader, asked=asked).rows
        with django_assert_num_queries(4):
            assert activity_page(reader=chief, asked=asked).rows


def test_every_way_to_narrow_down_has_an_index(chief: User, reader: User) -> None:
    """What the planner would read if it could not sort: each branch comes in order out of an index."""
    from people.selectors.activity import _branches

    asked = [
        Asked(), Asked(person="x"), Asked(tags=(Tag.HOLD_LIFT,)), Asked(since=datetime(2026, 1, 1, tzinfo=UTC)),
        Asked(thing="x"),
    ]  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off")
        for user in (chief, reader):
            for wanted in asked:
                for branch in _branches(user, wanted):
                    query = branch.order_by("-at", "-id").values_list("id")[:51].query
                    sql, params = query.sql_with_params()
                    cursor.execute(f"EXPLAIN {sql}", params)
                    plan = "\n".join(row[0] for row in cursor.fetchall())
                    assert "audit_event_" in plan, plan
                    assert "Sort" not in plan, plan


# --- CSV, words ----------------------------------------------------------------------------------------------------


def test_the_export_says_what_the_page_says_and_is_kept(client: Client, chief: User) -> None:
    record(acts=[Act(Tag.CONNECTION_TEST, str(n), "=cmd()") for n in range(600)], by=chief)
    client.force_login(chief)
    answer = client.get("/activity/export/?tag=connection:connection:test")
    text = b"".join(answer.streaming_content).decode()
    lines = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    assert len(lines) == 600
    assert {line["object"] for line in lines} == {"'=cmd()"}
    assert {line["person"] for line in lines} == {"chief"}
    event = AuditEvent.objects.get(tag=Tag.ACTIVITY_EXPORT.value)
    assert (event.person, event.door, event.detail) == (
        "chief",
        "page",
        {"filters": {"tag": "connection:connection:test"}},
    )


def test_before_and_after_are_readable_and_hostile_names_stay_text(client: Client, chief: User) -> None:
    site = ConnectionFactory(name="<script>alert(1)</script>", max_in_flight=10)
    client.force_login(chief)
    client.post(reverse("updates:connection-pause", args=[site.pk]), {"minutes": "0", "reason": "<b>patch night</b>"})
    Connection.objects.filter(pk=site.pk).update(max_in_flight=20)
    answer = client.get(f"{URL}?tag=connection")
    assert "<script>alert(1)" not in answer.content.decode()
    assert "<b>patch night" not in answer.content.decode()
    newest, paused = rows_of(answer)[:2]
    assert "Operations at the same time : 10 → 20" in newest
    assert newest.endswith("Hotpatch Portal Worker")
    assert "Connection paused" in paused
    assert "Reason: &lt;b&gt;patch night&lt;/b&gt;" in paused
    assert paused.endswith("chief Page")


# --- every act is kept ---------------------------------------------------------------------------------------------


def _vm(w: dict[str, Any]) -> VirtualMachine:
    return w["vm"]


def maintenance(**fields: Any) -> MaintenanceConfiguration:
    return MaintenanceConfiguration.objects.create(
        name="Nightly", starts_on="2026-01-01", starts_at="22:00", time_zone="UTC", recur_every="Day", plan={}, **fields
    )


def rollout(by: User, **fields: Any) -> Rollout:
    return Rollout.objects.create(
        name="r", source="on_demand", plan={}, created_at=timezone.now(), created_by=by, **fields
    )


ACTS: dict[str, tuple[Tag, Callable[[Client, dict[str, Any]], Any]]] = {
    "assess": (Tag.ASSESSMENT_REQUEST, lambda c, w: c.post(reverse("updates:assess", args=[_vm(w).pk]))),
    "cancel an operation": (
        Tag.OPERATION_CANCEL,
        lambda c, w: (
            c.post(reverse("updates:assess", args=[_vm(w).pk])),
            c.post(reverse("updates:cancel", args=[_vm(w).operations.get().pk])),
        ),
    ),
    "lift a hold": (
        Tag.HOLD_LIFT,
        lambda c, w: (
            KbHold.objects.create(vm=_vm(w), kb_number="5034129"),
            c.post(reverse("updates:lift", args=[_vm(w).pk]), {"kb": "5034129"}),
        ),
    ),
    "change settings": (
        Tag.SETTINGS_CHANGE,
        lambda c, w: c.post(
            reverse("updates:settings-change"), {"vm": _vm(w).pk, "go": "apply", "reboot_setting": "Never"}
        ),
    ),
    "remove a machine": (
        Tag.RECORD_REMOVE,
        lambda c, w: c.post(reverse("updates:remove", args=[_vm(w).pk]), {"name": _vm(w).name}),
    ),
    "export the list": (Tag.INVENTORY_EXPORT, lambda c, w: b"".join(c.get(reverse("vms:vm-export")).streaming_content)),
    "export the history": (
        Tag.HISTORY_EXPORT,
        lambda c, w: b"".join(c.get(reverse("updates:history-export")).streaming_content),
    ),
    "export a report": (
        Tag.REPORT_EXPORT,
        lambda c, w: b"".join(c.get(reverse("updates:report-export")).streaming_content),
    ),
    "pause a rollout": (
        Tag.ROLLOUT_PAUSE,
        lambda c, w: c.post(reverse("updates:rollout-move", args=[rollout(w["chief"]).pk]), {"go": "pause"}),
    ),
    "resume a rollout": (
        Tag.ROLLOUT_RESUME,
        lambda c, w: c.post(
            reverse("updates:rollout-move", args=[rollout(w["chief"], status="paused").pk]), {"go": "resume"}
        ),
    ),
    "end a rollout": (
        Tag.ROLLOUT_END,
        lambda c, w: c.post(reverse("updates:rollout-move", args=[rollout(w["chief"]).pk]), {"go": "end"}),
    ),
    "switch a configuration on": (
        Tag.MAINTENANCE_ENABLE,
        lambda c, w: c.post(reverse("updates:maintenance", args=[maintenance(is_enabled=False).pk]), {"go": "enable"}),
    ),
    "switch a configuration off": (
        Tag.MAINTENANCE_DISABLE,
        lambda c, w: c.post(reverse("updates:maintenance", args=[maintenance().pk]), {"go": "disable"}),
    ),
    "remove a configuration": (
        Tag.MAINTENANCE_REMOVE,
        lambda c, w: c.post(reverse("updates:maintenance-remove", args=[maintenance().pk])),
    ),
    "pause a connection": (
        Tag.CONNECTION_PAUSE,
        lambda c, w: c.post(reverse("updates:connection-pause", args=[_vm(w).connection_id]), {"minutes": "60"}),
    ),
    "resume a connection": (
        Tag.CONNECTION_RESUME,
        lambda c, w: (
            Connection.objects.update(paused_until=timezone.now()),
            c.post(reverse("updates:connection-pause", args=[_vm(w).connection_id]), {"resume": "yes"}),
        ),
    ),
    "test a connection": (
        Tag.CONNECTION_TEST,
        lambda c, w: c.post(reverse("updates:connection-test", args=[_vm(w).connection_id])),
    ),
    "set a misfortune": (
        Tag.MISFORTUNE_SET,
        lambda c, w: c.post(
            reverse("updates:connection-misfortune", args=[_vm(w).connection_id]),
            {"name": _vm(w).name, "misfortune": "unreachable"},
        ),
    ),
    "confirm a release": (
        Tag.RELEASE_CONFIRM,
        lambda c, w: c.post(
            reverse("updates:decisions"),
            {"release": ReleaseFactory(is_type_confirmed=False, status="released").pk, "reason": "the vendor says so"},
        ),
    ),
    "give a role in the admin site": (
        Tag.ROLE_GIVE,
        lambda c, w: c.post(
            reverse("admin:vms_roleassignment_add"),
            {"user": w["reader"].pk, "role": Role.OPERATOR.value, "scope": Scope.EVERYTHING.value},
        ),
    ),
    "take a role back in the admin site": (
        Tag.ROLE_TAKE,
        lambda c, w: c.post(
            reverse("admin:vms_roleassignment_delete", args=[w["reader"].roleassignment_set.get().pk]), {"post": "yes"}
        ),
    ),
    "remove an image in the admin site": (
        Tag.IMAGE_REMOVE,
        lambda c, w: c.post(
            reverse("admin:vms_imagecatalogentry_delete", args=[ImageCatalogEntry.objects.all()[0].pk]), {"post": "yes"}
        ),
    ),
    "make a group in the admin site": (
        Tag.GROUP_OF_PEOPLE_CREATE,
        lambda c, w: c.post(reverse("admin:auth_group_add"), {"name": "night shift"}),
    ),
    "delete a machine in the admin site": (
        Tag.RECORD_REMOVE,
        lambda c, w: c.post(reverse("admin:vms_virtualmachine_delete", args=[_vm(w).pk]), {"post": "yes"}),
    ),
}


@pytest.mark.parametrize("act", ACTS)
def test_every_act_is_kept_with_who_did_it(
    client: Client, staff: User, chief: User, reader: User, resource_group: ResourceGroup, act: str
) -> None:
    """Once, with the person and the door; and it is on the page."""
    world = {"vm": VirtualMachineFactory(resource_group=resource_group), "chief": chief, "reader": reader}
    tag, do = ACTS[act]
    who, door = (staff, "admin") if act.endswith("in the admin site") else (chief, "page")
    client.force_login(who)
    before = list(AuditEvent.objects.filter(tag=tag.value).values_list("pk", flat=True))
    do(client, world)
    (event,) = AuditEvent.objects.filter(tag=tag.value).exclude(pk__in=before)
    assert (event.person, event.person_id, event.door) == (who.username, who.pk, door)
    with translation.override("en"):
        assert str(tag.label) in " ".join(rows_of(client.get(f"{URL}?tag={tag.value}")))


def test_accounts_groups_and_permissions_are_kept(chief: User) -> None:
    user = UserFactory(username="new")
    User.objects.filter(pk=user.pk).update(is_active=False, last_login=timezone.now())
    User.objects.filter(pk=user.pk).update(is_active=True)
    User.objects.filter(pk=user.pk).update(is_staff=True)
    group: Group = GroupFactory(name="shift")
    user.groups.add(group)
    user.groups.remove(group)
    user.delete()
    told = AuditEvent.objects.filter(object_name="new").order_by("pk").values_list("tag", flat=True)
    assert list(told) == [
        Tag.ACCOUNT_CREATE.value, Tag.ACCOUNT_DEACTIVATE.value, Tag.ACCOUNT_ACTIVATE.value, Tag.ACCOUNT_CHANGE.value,
        Tag.MEMBER_ADD.value, Tag.MEMBER_REMOVE.value, Tag.ACCOUNT_REMOVE.value,
    ]  # fmt: skip
    kept = " ".join(str(row) for row in AuditEvent.objects.values_list("before", "after"))
    assert "password" not in kept
    assert "last_login" not in kept


def test_a_password_is_kept_as_changed_only_if_a_person_changed_it(client: Client, reader: User) -> None:
    changed = AuditEvent.objects.filter(tag=Tag.ACCOUNT_PASSWORD.value)
    User.objects.filter(pk=reader.pk).update(password="a newer hash of the same")  # as a sign-in may do
    assert not changed.exists()
    client.force_login(reader)
    fields = {"password1": "correct horse battery", "password2": "correct horse battery"}
    reader.set_unusable_password()
    reader.save()
    client.force_login(reader)
    client.post(reverse("account_set_password"), fields)
    event = changed.get()
    assert (event.person, event.object_name, event.before, event.after) == ("reader", "reader", {}, {})


def test_commands_are_kept_with_the_account_that_ran_them(tmp_path: Any) -> None:
    from django.core.management import call_command

    call_command("lift_lockout", stdout=io.StringIO())
    event = AuditEvent.objects.get(tag=Tag.LOCKOUT_LIFT.value)
    assert event.door == "command"
    assert re.fullmatch(r"lift_lockout \(.+\)", event.agent)
    call_command("createsuperuser", interactive=False, username="root2", email="r@example.org", stdout=io.StringIO())
    assert AuditEvent.objects.get(tag=Tag.ACCOUNT_CREATE.value, object_name="root2").agent.startswith(
        "createsuperuser ("
    )
