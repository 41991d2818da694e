"""Resetting the demo: who may, what goes, what stays."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from demo.fleet import seed, stories
from tests.factories import VirtualMachineFactory
from updates.models import Operation
from vms.models import Connection, VirtualMachine

pytestmark = pytest.mark.django_db
URL = "/tour/reset/"


@pytest.fixture
def demo(chief: User, settings) -> User:
    settings.HAS_DEMO = True
    call_command("seed_catalogue", if_empty=True)
    seed(chief)
    return chief


def test_everything_of_the_demo_is_made_anew_and_the_rest_stays(client: Client, demo: User) -> None:
    own = VirtualMachineFactory(name="mine")
    made_by_hand = VirtualMachineFactory(
        name="by-hand", connection=Connection.objects.get(name="Main fleet (2026-05-20)")
    )
    before = VirtualMachine.objects.get(name="web-001")
    VirtualMachine.objects.filter(name="web-002").update(enable_hotpatching=False)
    Connection.objects.filter(name__startswith="Main").update(paused_until="2030-01-01T00:00Z")
    # something is at work on one of its machines
    Operation.objects.filter(vm__name="web-003").update(
        state="in_progress", next_step_at="2026-01-01T00:00Z", handle="x"
    )
    client.force_login(demo)
    assert client.post(URL, follow=True).status_code == 200
    after = VirtualMachine.objects.get(name="web-001")
    assert after.pk != before.pk
    assert VirtualMachine.objects.get(name="web-002").enable_hotpatching is True
    assert not VirtualMachine.objects.filter(pk=made_by_hand.pk).exists()
    assert VirtualMachine.objects.filter(pk=own.pk).exists()
    assert VirtualMachine.objects.count() == len(stories()) + 1
    assert not Connection.objects.exclude(paused_until=None).exists()
    assert {operation.state for operation in Operation.objects.all()} == {"queued"}


def test_only_owners_of_everything_may_and_only_where_there_is_a_demo(
    client: Client, demo: User, owner: User, settings
) -> None:
    client.force_login(owner)
    assert client.post(URL).status_code == 403
    assert "Reset the demo" not in client.get(reverse("tour")).content.decode()
    client.force_login(demo)
    assert client.get(URL).status_code == 405
    assert "Reset the demo" in client.get(reverse("tour")).content.decode()
    settings.HAS_DEMO = False
    assert client.post(URL).status_code == 404
