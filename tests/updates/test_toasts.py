"""Toasts: what somebody started and went away from comes to them once, and only what is theirs to see."""

from __future__ import annotations

import uuid

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.factories import OperationFactory, VirtualMachineFactory
from ui.watching import MOST
from updates.models import Operation
from vms.models import ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db
URL = "/operations/ended/"


@pytest.fixture
def vm(resource_group: ResourceGroup) -> VirtualMachine:
    return VirtualMachineFactory(resource_group=resource_group, name="web-001")


def end(operation: Operation) -> None:
    Operation.objects.filter(pk=operation.pk).update(state="succeeded", finished_at=timezone.now(), next_step_at=None)


def ask(client: Client, page: str = "/virtual-machines/"):
    return client.get(URL, headers={"HX-Request": "true", "HX-Current-URL": f"http://testserver{page}"})


def test_what_was_started_is_told_once_it_has_ended(client: Client, operator: User, vm: VirtualMachine) -> None:
    client.force_login(operator)
    assert 'id="toasts"' in client.get("/virtual-machines/").content.decode()
    assert URL not in client.get("/virtual-machines/").content.decode()
    client.post(reverse("updates:assess", args=[vm.pk]))
    assert URL in client.get("/virtual-machines/").content.decode()
    waiting = ask(client)
    assert waiting.status_code == 200
    assert b"toast" not in waiting.content
    end(Operation.objects.get(vm=vm))
    told = ask(client)
    assert told.status_code == 286
    assert "web-001" in told.content.decode()
    assert reverse("updates:operation", args=[Operation.objects.get().pk]) in told.content.decode()
    assert b"toast" not in ask(client).content
    assert URL not in client.get("/virtual-machines/").content.decode()


@pytest.mark.parametrize("page", ["blade", "operation"])
def test_what_one_is_looking_at_is_no_news(client: Client, operator: User, vm: VirtualMachine, page: str) -> None:
    client.force_login(operator)
    client.post(reverse("updates:assess", args=[vm.pk]))
    operation = Operation.objects.get(vm=vm)
    end(operation)
    seen = reverse(f"updates:{page}", args=[vm.pk if page == "blade" else operation.pk])
    answer = ask(client, f"{seen}?tab=history")
    assert (answer.status_code, b"toast" in answer.content) == (286, False)


def test_a_hostile_cookie_tells_nothing(client: Client, outsider: User, operator: User, vm: VirtualMachine) -> None:
    theirs = OperationFactory(vm=vm)
    end(theirs)
    client.force_login(outsider)
    for value in (theirs.pk.hex, "x", "." * 500, "'; DROP TABLE", "0" * 4000, uuid.uuid4().hex):
        client.cookies["watching"] = value
        answer = ask(client)
        assert (answer.status_code, b"toast" in answer.content) == (286, False)


def test_the_latest_few_are_kept(client: Client, operator: User, resource_group: ResourceGroup) -> None:
    client.force_login(operator)
    for _ in range(MOST + 3):
        client.post(reverse("updates:assess", args=[VirtualMachineFactory(resource_group=resource_group).pk]))
    newest = [pk.hex for pk in Operation.objects.order_by("created_at").values_list("pk", flat=True)][-MOST:]
    assert client.cookies["watching"].value.split(".") == newest
