"""The pages of freezes: Owners of everything make, change, end and except them; readers see those that concern their machines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import override

from audit.models import AuditEvent
from patching.terms import Classification, InstallationPlan, OperationKind
from tests.factories import PatchFactory, ResourceGroupFactory
from tests.updates.pages import wizard
from tests.updates.rollouts import fleet
from updates.models import (
    Freeze,
    FreezeException,
    MaintenanceConfiguration,
    Operation,
    PatchSet,
    PatchSetMember,
    VmUpdateState,
)
from updates.plans import plan_to_json
from updates.selectors.health import find_trouble
from updates.services.freezes import FreezeIsOverError, change_freeze, end_freeze, make_exception
from updates.services.operations import request_installations
from vms.models import ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db
PLAN = InstallationPlan(classifications=frozenset({Classification.SECURITY}))
NEW_YEAR = {
    "name": "New Year",
    "time_zone": "Tokyo Standard Time",
    "begins_on": "2098-12-28",
    "begins_at": "18:00",
    "ends_on": "2099-01-04",
    "ends_at": "06:00",
    "whom": "all",
}


@pytest.fixture
def vm(resource_group: ResourceGroup) -> VirtualMachine:
    (found,) = fleet(resource_group, 1)
    patches = PatchSet.objects.create(digest=b"l" * 32, critical_and_security_count=1)
    PatchSetMember.objects.create(patch_set=patches, patch=PatchFactory(kb_number="5087424", classification="Security"))
    VmUpdateState.objects.create(vm=found, patch_set=patches, last_assessed_at=timezone.now())
    return found


@pytest.fixture
def browser(client: Client, chief: User) -> Client:
    client.force_login(chief)
    return client


def frozen(**fields: Any) -> Freeze:
    now = timezone.now()
    values = {
        "name": "New Year",
        "begins_at": now - timedelta(hours=1),
        "ends_at": now + timedelta(hours=30),
        "time_zone": "UTC",
        "is_for_all": "scope" not in fields,
    }
    return Freeze.objects.create(**(values | fields))


def text(client: Client, name: str, *arguments: Any) -> str:
    answer = client.get(reverse(name, args=arguments))
    assert answer.status_code == 200
    return answer.content.decode()


def test_a_freeze_is_made_on_the_clock_of_its_zone_and_the_record_keeps_who(browser: Client, chief: User) -> None:
    answer = browser.post(reverse("updates:freeze-create"), NEW_YEAR | {"go": "save"})
    row = Freeze.objects.get()
    assert answer.headers["Location"] == reverse("updates:freeze", args=[row.pk])
    assert (row.begins_at, row.ends_at) == (
        datetime(2098, 12, 28, 9, tzinfo=UTC),
        datetime(2099, 1, 3, 21, tzinfo=UTC),
    )
    assert (row.is_for_all, row.scope, row.created_by) == (True, {}, chief)
    # the form shows what was typed
    form = browser.get(reverse("updates:freeze-edit", args=[row.pk])).context["form"]
    shown = {name: str(form[name].value()) for name in NEW_YEAR}
    assert shown == NEW_YEAR | {"begins_at": "18:00:00", "ends_at": "06:00:00"}
    change = NEW_YEAR | {"go": "save", "ends_on": "2099-01-05", "reason": "one day more"}
    assert browser.post(reverse("updates:freeze-edit", args=[row.pk]), change).status_code == 302
    assert browser.post(reverse("updates:freeze-end", args=[row.pk]), {"reason": "all is well"}).status_code == 302
    events = AuditEvent.objects.filter(source="updates.freeze").order_by("pk")
    assert [(event.tag, event.object_name) for event in events] == [
        ("fleet:freeze:create", "New Year"),
        ("fleet:freeze:change", "New Year"),
        ("fleet:freeze:end", "New Year"),
    ]
    assert {event.person_id for event in events} == {chief.pk}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"ends_on": "2098-12-01"}, "It ends before it begins."),
        ({"ends_on": "2098-12-28", "ends_at": "18:00"}, "It ends before it begins."),
        ({"begins_on": "2020-01-01", "ends_on": "2020-01-02"}, "This is over already."),
        ({"begins_on": "2098-02-30"}, "Enter a valid date."),
        ({"begins_on": "9999-12-31"}, "less than or equal to"),
        ({"begins_at": "25:00"}, "Enter a valid time."),
        ({"time_zone": "Moon Standard Time"}, "Select a valid choice."),
        ({"time_zone": ""}, "This field is required."),
        ({"whom": "some"}, "Say which machines"),
        ({"location": "japaneast"}, "leave the fields below empty"),
        ({"whom": "some", "location": "moon"}, "No machine has “moon” here"),
        ({"whom": "some", "tag_value": "1"}, "Say which tag has this value."),
        ({"whom": "some", "location": "<script>"}, "No machine has “&lt;script&gt;” here"),
        ({"name": ""}, "This field is required."),
        ({"everything": "1"}, "everything"),
    ],
)
def test_what_is_no_freeze_is_refused(browser: Client, vm: VirtualMachine, fields: dict[str, str], said: str) -> None:
    answer = browser.post(reverse("updates:freeze-create"), NEW_YEAR | {"go": "save"} | fields)
    assert answer.status_code == 422
    assert said in answer.content.decode()
    assert not Freeze.objects.exists()


def test_the_preview_shows_what_it_would_hold(browser: Client, vm: VirtualMachine, chief: User) -> None:
    request_installations(vm_ids=[vm.pk], plan=PLAN, requested_by=chief)
    row = MaintenanceConfiguration.objects.create(
        name="Nights",
        starts_on=timezone.now().date(),
        starts_at=timezone.now().time(),
        time_zone="UTC",
        recur_every="Day",
        plan=plan_to_json(PLAN),
    )
    row.vms.add(vm)
    MaintenanceConfiguration.objects.create(
        name="Of nobody",
        starts_on=timezone.now().date(),
        starts_at=timezone.now().time(),
        time_zone="UTC",
        recur_every="Day",
        plan=plan_to_json(PLAN),
    )
    answer = browser.post(reverse("updates:freeze-create"), NEW_YEAR | {"go": "preview"})
    page = answer.content.decode()
    assert "1 machine is frozen." in page
    assert "1 operation that is queued" in page
    effects = answer.context["effects"]
    assert {configuration.name for configuration, _window in effects.windows} == {"Nights"}
    assert not Freeze.objects.exists()


def test_everybody_sees_the_freezes_of_his_machines_and_no_others(
    client: Client, vm: VirtualMachine, reader: User, outsider: User, chief: User
) -> None:
    other = fleet(ResourceGroupFactory.create(), 1, location="westus")[0]
    mine, theirs, everybody = (
        frozen(name="mine", scope={"location": "japaneast"}),
        frozen(name="theirs", scope={"location": "westus"}),
        frozen(name="everybody"),
    )
    unread = frozen(name="unread", scope={"region": "x"})
    seen = {
        reader: {mine, everybody, unread},
        outsider: {everybody, unread},
        chief: {mine, theirs, everybody, unread},
    }
    for user, shown in seen.items():
        client.force_login(user)
        rows = client.get(reverse("updates:freezes")).context["rows"]
        assert {row.row for row in rows} == shown
        for row in (mine, theirs, everybody, unread):
            status = client.get(reverse("updates:freeze", args=[row.pk])).status_code
            assert status == (200 if row in shown else 404)
    assert other.pk


def test_the_hotpatch_calendar_names_what_is_ahead(client: Client, reader: User, vm: VirtualMachine) -> None:
    client.force_login(reader)
    frozen(name="ahead")
    frozen(name="over", ends_at=timezone.now() - timedelta(minutes=1))
    frozen(name="not mine", scope={"location": "westus"})
    page = text(client, "updates:calendar")
    assert [name in page for name in ("ahead", ">over<", "not mine")] == [True, False, False]


def test_exceptions_are_made_and_ended_and_seen(browser: Client, vm: VirtualMachine, chief: User) -> None:
    row = frozen()
    expires = timezone.now() + timedelta(hours=5)
    fields = {
        "reason": "zero day",
        "time_zone": "UTC",
        "expires_on": f"{expires:%Y-%m-%d}",
        "expires_at": f"{expires:%H:%M}",
        "machines": vm.name,
    }
    address = reverse("updates:exception-create", args=[row.pk])
    for wrong, said in (
        ({"machines": ""}, "Say which machines"),
        ({"machines": "nobody"}, "There is no machine “nobody”."),
        ({"expires_on": "2099-01-01"}, "The freeze ends before that."),
        ({"expires_on": "2020-01-01"}, "This is over already."),
        ({"reason": ""}, "This field is required."),
    ):
        answer = browser.post(address, fields | wrong)
        assert answer.status_code == 422
        assert said in answer.content.decode()
    assert not FreezeException.objects.exists()
    assert browser.post(address, fields).status_code == 302
    one = FreezeException.objects.get()
    assert (one.created_by, list(one.vms.all())) == (chief, [vm])
    (outcome,) = request_installations(vm_ids=[vm.pk], plan=PLAN, requested_by=chief)
    assert outcome.code == ""
    page = text(browser, "updates:freeze", row.pk)
    assert "zero day" in page
    assert vm.name in page
    end = reverse("updates:exception-end", args=[row.pk, one.pk])
    browser.post(end)
    one.refresh_from_db()
    assert one.ended_at is not None
    assert browser.post(end).status_code == 302, "a second click changes nothing"
    tags = AuditEvent.objects.filter(source="updates.freezeexception").order_by("pk").values_list("tag", flat=True)
    assert list(tags) == ["fleet:exception:make", "fleet:exception:assign", "fleet:exception:end"]


def test_what_is_over_is_changed_no_more(browser: Client, chief: User) -> None:
    now = timezone.now()
    over = frozen(ends_at=now - timedelta(minutes=1))
    ended = frozen(ended_at=now)
    for row in (over, ended):
        with pytest.raises(FreezeIsOverError):
            change_freeze(freeze=row, now=now, changed_by=chief)
        with pytest.raises(FreezeIsOverError):
            end_freeze(freeze_id=row.pk, now=now, ended_by=chief)
        with pytest.raises(FreezeIsOverError):
            make_exception(
                exception=FreezeException(freeze=row, reason="x", expires_at=now + timedelta(hours=1)),
                now=now,
                made_by=chief,
            )
        assert "Edit" not in text(browser, "updates:freeze", row.pk)
        answer = browser.post(reverse("updates:freeze-end", args=[row.pk]), follow=True)
        assert "Nothing was changed: the freeze has ended." in answer.content.decode()


def test_the_reason_stands_where_something_waits_or_is_refused(
    client: Client, operator: User, vm: VirtualMachine
) -> None:
    client.force_login(operator)
    request_installations(vm_ids=[vm.pk], plan=PLAN, requested_by=operator)
    operation = Operation.objects.get(kind=OperationKind.INSTALLATION.value)
    row = frozen(name="<script>New & Year</script>")
    until = f"{timezone.localtime(row.ends_at):%Y-%m-%d %H:%M}"
    pages = [
        reverse("updates:blade", args=[vm.pk]),
        reverse("updates:install", args=[vm.pk]),
        reverse("updates:rollback", args=[vm.pk]),
        reverse("updates:operation", args=[operation.pk]),
    ]
    for address in pages:
        page = client.get(address).content.decode()
        assert "Frozen until" in page, address
        assert until in page
        assert "&lt;script&gt;New &amp; Year&lt;/script&gt;" in page
        assert "<script>New" not in page
    operation.delete()
    answer = wizard(client, vm, "install", step="review", request_id=str(uuid4()))
    assert answer.status_code == 409
    assert "A freeze holds the machine" in answer.content.decode()
    # one that is near is announced
    Freeze.objects.update(begins_at=timezone.now() + timedelta(hours=1))
    assert "A freeze begins in" in text(client, "updates:blade", vm.pk)
    with override("ja"):
        assert text(client, "updates:freezes")


def test_the_doctor_names_freezes_that_cannot_be_read(browser: Client) -> None:
    assert not [finding for finding in find_trouble() if finding.code == "freeze_unreadable"]
    row = frozen(scope={"region": "x"})
    (finding,) = [finding for finding in find_trouble() if finding.code == "freeze_unreadable"]
    assert (finding.count, "New Year" in finding.examples[0]) == (1, True)
    assert "holds every machine until it is corrected" in text(browser, "updates:freeze", row.pk)
