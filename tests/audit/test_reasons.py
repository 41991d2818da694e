"""Why? An optional field beside what a person stops, lets go on or takes back; kept with the act and shown on Activity."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from audit.models import AuditEvent
from audit.tags import Tag
from tests.factories import ConnectionFactory, OperationFactory, VirtualMachineFactory
from tests.updates.world import PLAN
from updates.models import KbHold, Rollout, RolloutSource
from updates.services.rollouts import RolloutPlan, create_rollout
from vms.choices import ImportDoor
from vms.models import Connection, ResourceGroup
from vms.selection import VmSelection
from vms.services.import_jobs import sync_inventory

pytestmark = pytest.mark.django_db
WHY = "Change 4711 <b>was</b> refused"


@pytest.fixture
def rollout(chief: User, resource_group: ResourceGroup) -> Rollout:
    vm = VirtualMachineFactory(resource_group=resource_group, power_state="running")
    what = RolloutPlan(name="May", source=RolloutSource.ON_DEMAND, plan=PLAN)
    return create_rollout(what=what, selection=VmSelection.of([vm.pk]), now=timezone.now(), created_by=chief)


@pytest.fixture
def connection(db: None) -> Connection:
    return ConnectionFactory()


def kept(tag: Tag) -> AuditEvent:
    return AuditEvent.objects.filter(tag=tag.value).latest("pk")


def act(client: Client, page: str, url: str, tag: Tag, **fields: Any) -> None:
    """The page asks why; the answer is kept with the act, and Activity shows it as text."""
    assert 'name="reason"' in client.get(page).content.decode(), page
    assert client.post(url, {**fields, "reason": WHY}).status_code == 302
    event = kept(tag)
    assert (event.reason, event.person) == (WHY, "chief"), tag
    shown = client.get(reverse("activity"), {"tag": tag.value}).content.decode()
    assert "Change 4711 &lt;b&gt;was&lt;/b&gt; refused" in shown


def test_of_a_rollout(client: Client, chief: User, rollout: Rollout) -> None:
    client.force_login(chief)
    page, url = reverse("updates:rollout", args=[rollout.pk]), reverse("updates:rollout-move", args=[rollout.pk])
    for go, tag in (("pause", Tag.ROLLOUT_PAUSE), ("resume", Tag.ROLLOUT_RESUME), ("end", Tag.ROLLOUT_END)):
        act(client, page, url, tag, go=go)


def test_of_a_connection(client: Client, chief: User, connection: Connection) -> None:
    client.force_login(chief)
    page = reverse("updates:connection", args=[connection.pk])
    url = reverse("updates:connection-pause", args=[connection.pk])
    act(client, page, url, Tag.CONNECTION_PAUSE, minutes="15")
    act(client, page, url, Tag.CONNECTION_RESUME, resume="yes")


def test_of_a_machine(client: Client, chief: User, resource_group: ResourceGroup) -> None:
    client.force_login(chief)
    vm = VirtualMachineFactory(resource_group=resource_group)
    hold = KbHold.objects.create(vm=vm, kb_number="5087424")
    operation = OperationFactory(vm=vm, kind="installation", state="queued")
    blade = reverse("updates:blade", args=[vm.pk])
    act(client, blade, reverse("updates:lift", args=[vm.pk]), Tag.HOLD_LIFT, kb=hold.kb_number)
    page, url = (reverse(f"updates:{name}", args=[operation.pk]) for name in ("operation", "cancel"))
    act(client, page, url, Tag.OPERATION_CANCEL)
    assert "Change 4711" in client.get(reverse("updates:activity", args=[vm.pk])).content.decode()


def test_of_an_inventory(client: Client, chief: User, connection: Connection) -> None:
    client.force_login(chief)
    page = reverse("updates:connection", args=[connection.pk])
    act(client, page, reverse("vms:inventory-sync", args=[connection.pk]), Tag.INVENTORY_SYNC)
    job = sync_inventory(connection=connection, door=ImportDoor.PAGE)
    page, url = (reverse(f"vms:{name}", args=[job.pk]) for name in ("import-job", "import-cancel"))
    act(client, page, url, Tag.INVENTORY_CANCEL)
    assert kept(Tag.INVENTORY_CANCEL).object_name == connection.name


def test_nothing_that_did_not_happen_is_kept(client: Client, chief: User, connection: Connection) -> None:
    """What is over is not cancelled, what is under way is not asked for again, and what the portal does by itself is no act."""
    job = sync_inventory(connection=connection, door=ImportDoor.SCHEDULE)
    assert not AuditEvent.objects.filter(tag__startswith="fleet:inventory").exists()
    client.force_login(chief)
    client.post(reverse("vms:inventory-sync", args=[connection.pk]))
    assert not AuditEvent.objects.filter(tag=Tag.INVENTORY_SYNC.value).exists()
    for _ in range(2):
        client.post(reverse("vms:import-cancel", args=[job.pk]))
    assert AuditEvent.objects.filter(tag=Tag.INVENTORY_CANCEL.value).count() == 1
    assert kept(Tag.INVENTORY_CANCEL).reason == ""
