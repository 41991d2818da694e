"""How many configurations mean a machine, and many machines attached to one or detached at once."""

from __future__ import annotations

from datetime import date, time, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.models import AuditEvent
from patching.terms import Classification, InstallationPlan
from tests.updates.rollouts import fleet
from updates.models import MaintenanceConfiguration
from updates.plans import plan_to_json
from updates.selectors.coverage import attachment_of, count_covered, vms_covered
from updates.selectors.scopes import kept_scope_means
from updates.services.attachments import attach_machines, detach_machines
from updates.services.automation import WindowIsNearError
from vms.models import ResourceGroup, VirtualMachine
from vms.selection import VmSelection

pytestmark = pytest.mark.django_db
PLAN = plan_to_json(InstallationPlan(classifications=frozenset({Classification.SECURITY})))


def configure(*vms: VirtualMachine, **fields: Any) -> MaintenanceConfiguration:
    values: dict[str, Any] = {
        "name": f"m{MaintenanceConfiguration.objects.count()}",
        "starts_on": date(2026, 11, 24),
        "starts_at": time(22),
        "time_zone": "UTC",
        "recur_every": "Day",
        "plan": PLAN,
    }
    row = MaintenanceConfiguration.objects.create(**(values | fields))
    row.vms.add(*vms)
    return row


@pytest.fixture
def vms(resource_group: ResourceGroup) -> list[VirtualMachine]:
    return fleet(resource_group, 4)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.sets(st.integers(0, 3)),
            st.sampled_from([{}, {"location": "japaneast"}, {"tag_name": "ring", "tag_value": "1"}, {"region": "x"}]),
            st.booleans(),
        ),
        max_size=4,
    )
)
def test_the_filter_the_numbers_and_the_rule_agree(
    vms: list[VirtualMachine], rows: list[tuple[set[int], dict[str, str], bool]]
) -> None:
    VirtualMachine.objects.filter(pk=vms[1].pk).update(tags={"ring": "1"})
    VirtualMachine.objects.filter(pk=vms[2].pk).update(location="westus")
    MaintenanceConfiguration.objects.all().delete()
    for named, scope, is_enabled in rows:
        configure(*(vms[n] for n in named), scope=scope, is_enabled=is_enabled)
    wanted: dict[str, set[int]] = {"none": set(), "one": set(), "several": set()}
    for number, vm in enumerate(VirtualMachine.objects.select_related("resource_group").order_by("pk")):
        count = sum(on and (number in named or kept_scope_means(scope, vm)) for named, scope, on in rows)
        wanted["none" if not count else "one" if count == 1 else "several"].add(vm.pk)
    everybody = VirtualMachine.objects.all()
    found = {name: set(vms_covered(everybody, name).values_list("pk", flat=True)) for name in wanted}
    assert found == wanted
    assert count_covered() == {name: len(ids) for name, ids in wanted.items()}


def test_the_list_is_narrowed_and_the_numbers_lead_there(
    client: Client, chief: User, vms: list[VirtualMachine]
) -> None:
    client.force_login(chief)
    configure(vms[0], vms[1])
    configure(vms[1], name="other")
    page = client.get(reverse("updates:maintenances")).content.decode()
    for name, names in {"none": vms[2:], "one": vms[:1], "several": vms[1:2]}.items():
        address = f"{reverse('vms:vm-list')}?coverage={name}"
        assert address in page
        shown = client.get(address).content.decode()
        assert [vm.name for vm in vms if f">{vm.name}<" in shown] == [vm.name for vm in names]
    assert "coverage" in client.get(f"{reverse('vms:vm-list')}?coverage=many").content.decode()


def test_many_are_attached_and_detached_with_a_review_and_a_record(
    client: Client, chief: User, vms: list[VirtualMachine]
) -> None:
    client.force_login(chief)
    row = configure(vms[0], scope={"tag_name": "ring"})
    VirtualMachine.objects.filter(pk=vms[1].pk).update(tags={"ring": "1"})
    address = reverse("updates:maintenance-attach")
    chosen = {"vm": [str(vm.pk) for vm in vms[:3]]}
    assert client.get(address, chosen).status_code == 200
    review = client.post(address, chosen | {"configuration": row.pk, "act": "attach", "go": "review"})
    text = review.content.decode()
    assert "2 machines will be attached." in text
    assert "1 is attached already." in text
    assert "1 of them is meant by the scope" in text
    assert row.vms.count() == 1, "nothing was done yet"
    saved = client.post(address, chosen | {"configuration": row.pk, "act": "attach", "go": "save", "reason": "wave 2"})
    assert saved.headers["Location"] == reverse("updates:maintenance", args=[row.pk])
    assert set(row.vms.all()) == set(vms[:3])
    assert set(VirtualMachine.objects.filter(is_scheduled=True)) == set(vms[:3]), "nobody else patches them now"
    event = AuditEvent.objects.filter(tag="fleet:maintenance:assign").latest("pk")
    assert (event.person_id, event.detail["machines"]) == (chief.pk, 2)
    client.post(address, chosen | {"configuration": row.pk, "act": "detach", "go": "save"})
    assert row.vms.count() == 0
    assert list(VirtualMachine.objects.filter(is_scheduled=True)) == [vms[1]], "its scope still means it"


def test_all_that_match_are_attached_by_their_number(client: Client, chief: User, vms: list[VirtualMachine]) -> None:
    client.force_login(chief)
    row = configure()
    address = reverse("updates:maintenance-attach")
    asked = {"all": "1", "location": "japaneast", "configuration": row.pk, "act": "attach"}
    shown = dict(client.post(address, asked | {"go": "review"}).context["wizard"].asked.fields)["shown"]
    for wrong in ({}, {"confirm": "3"}, {"confirm": "4", "shown": "4-x"}):
        answer = client.post(address, asked | {"go": "save", "shown": shown} | wrong)
        assert answer.status_code == 422
        assert row.vms.count() == 0
    assert client.post(address, asked | {"go": "save", "shown": shown, "confirm": "4"}).status_code == 302
    assert row.vms.count() == 4


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"vm": "x"},
        {"vm": "999999"},
        {"vm": "9" * 30},
        {"all": "1", "coverage": "many"},
        {"configuration": "999", "act": "attach"},
        {"act": "remove"},
        {"surprise": "1"},
    ],
)
def test_hostile_forms_attach_nothing(
    client: Client, chief: User, vms: list[VirtualMachine], fields: dict[str, str]
) -> None:
    client.force_login(chief)
    row = configure()
    good = {"configuration": str(row.pk), "act": "attach"}
    data = good | fields | {"go": "save"}
    if "vm" not in fields and "all" not in fields and fields:
        data["vm"] = str(vms[0].pk)
    assert client.post(reverse("updates:maintenance-attach"), data).status_code in {200, 422}
    assert row.vms.count() == 0


def test_not_within_a_quarter_of_an_hour_before_a_window(chief: User, vms: list[VirtualMachine]) -> None:
    now = timezone.now()
    row = configure(vms[0], next_run_at=now + timedelta(minutes=10))
    selection = VmSelection.of([vms[1].pk])
    with pytest.raises(WindowIsNearError):
        attach_machines(configuration_id=row.pk, selection=selection, now=now, attached_by=chief)
    with pytest.raises(WindowIsNearError):
        detach_machines(configuration_id=row.pk, selection=selection, now=now, detached_by=chief)
    assert list(row.vms.all()) == [vms[0]]
    assert attachment_of(row, selection).unnamed == 1
