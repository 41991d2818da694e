"""Removing the record of a VM: what goes with it is said beforehand, and nothing in flight is cut off."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.factories import OperationFactory, RoleAssignmentFactory, VirtualMachineFactory
from tests.forms import text_of
from updates.models import Operation
from vms.choices import Scope
from vms.models import FactsEvent, ResourceGroup, RoleAssignment, VirtualMachine

pytestmark = pytest.mark.django_db


@pytest.fixture
def vm(resource_group: ResourceGroup) -> VirtualMachine:
    return VirtualMachineFactory(resource_group=resource_group, name="old-001")


def url(vm: VirtualMachine) -> str:
    return reverse("updates:remove", args=[vm.pk])


def test_what_goes_is_said_and_goes_and_who_did_it_stays(client: Client, owner: User, vm: VirtualMachine) -> None:
    OperationFactory(vm=vm, installation=True, succeeded=True)
    OperationFactory(vm=vm, succeeded=True)
    OperationFactory(vm=vm)
    RoleAssignmentFactory(user=owner, role="reader", scope=Scope.VM.value, vm=vm)
    client.force_login(owner)
    page = text_of(client.get(url(vm)))
    assert "Installations 1 with every update" in page
    assert "Assessments 2" in page
    assert "Role assignments on this machine 1" in page
    assert "What waits in the queue for this machine is dropped" in page
    for wrong in ("", "old-002", "old-001x"):
        assert client.post(url(vm), {"name": wrong}).status_code == 422
    assert VirtualMachine.objects.exists()
    answer = client.post(url(vm), {"name": "OLD-001"})
    assert answer["Location"] == reverse("vms:vm-list")
    assert not VirtualMachine.objects.exists()
    assert not Operation.objects.exists()
    assert not RoleAssignment.objects.filter(vm__isnull=False).exists()
    event = FactsEvent.objects.get(pgh_label="removed")
    assert (event.name, event.pgh_context.metadata["user"]) == ("old-001", owner.pk)
    assert client.post(url(vm), {"name": "old-001"}).status_code == 404


@pytest.mark.parametrize("state", ["starting", "in_progress", "rebooting"])
def test_nothing_in_flight_is_cut_off(client: Client, owner: User, vm: VirtualMachine, state: str) -> None:
    running = OperationFactory(vm=vm, state=state)
    client.force_login(owner)
    assert "Wait until it has ended" in text_of(client.get(url(vm)))
    answer = client.post(url(vm), {"name": "old-001"})
    assert answer.status_code == 409
    assert reverse("updates:operation", args=[running.pk]) in answer.content.decode()
    assert Operation.objects.get() == running
