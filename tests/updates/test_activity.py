"""Who did what to a VM: operations, settings, facts by import and by hand, roles of every scope."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from tests.factories import OperationFactory, ResourceGroupFactory, VirtualMachineFactory
from tests.vms.importing import work
from tests.vms.inventory import az_row
from updates.selectors.activity import load_activity
from vms.choices import Role
from vms.models import Connection, ResourceGroup, RoleAssignment, VirtualMachine
from vms.services.roles import assign_role, revoke_roles

pytestmark = pytest.mark.django_db


def rows_of(client: Client, vm: VirtualMachine) -> list[str]:
    page = client.get(reverse("updates:activity", args=[vm.pk])).content.decode()
    rows = re.findall(r"<tr>(.*?)</tr>", page.partition("<tbody>")[2], re.DOTALL)
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", row)).strip() for row in rows]


def import_file(client: Client, connection: Connection, **change: Any) -> None:
    document = [az_row() | change]
    upload = SimpleUploadedFile("fleet of May.json", json.dumps(document).encode())
    client.post(reverse("vms:vm-import"), {"file": upload, "connection": connection.pk})
    work()


def test_imports_tell_their_file_and_what_they_changed(client: Client, chief: User) -> None:
    client.force_login(chief)
    connection = VirtualMachineFactory().connection
    import_file(client, connection)
    import_file(client, connection)
    import_file(client, connection, location="osaka", tags={"env": "test"})
    rows = rows_of(client, VirtualMachine.objects.get(name="web-001"))
    assert len(rows) == 3  # the second import changed nothing; the role is the third
    assert (
        "Changed by import fleet of May.json location : japaneast → osaka tags : env=prod → env=test chief" in rows[0]
    )
    assert "Added by import fleet of May.json chief" in rows[1]
    assert "Role given chief : Owner Scope: Everything" in rows[2]


def test_roles_that_reach_the_vm_are_told_and_no_others(
    client: Client, chief: User, outsider: User, resource_group: ResourceGroup
) -> None:
    vm = VirtualMachineFactory(resource_group=resource_group)
    assign_role(role=Role.OPERATOR, on=vm, users=[outsider])
    assign_role(role=Role.READER, on=resource_group.subscription, users=[outsider])
    assign_role(role=Role.OWNER, on=ResourceGroupFactory(), users=[outsider])
    assign_role(role=Role.OWNER, on=VirtualMachineFactory(), users=[outsider])
    revoke_roles(assignments=list(RoleAssignment.objects.filter(vm=vm)))
    client.force_login(chief)
    text = "\n".join(rows_of(client, vm))
    assert "Role given outsider : Patch operator Scope: Virtual machine" in text
    assert "Role taken back outsider : Patch operator Scope: Virtual machine" in text
    assert "Role given outsider : Reader Scope: Subscription" in text
    assert "outsider : Owner" not in text


def test_the_page_costs_the_same_whatever_happened(django_assert_num_queries: Any, chief: User) -> None:
    vm = VirtualMachineFactory()
    assign_role(role=Role.OPERATOR, on=vm, users=[chief])
    for number in range(40):
        OperationFactory(vm=vm, succeeded=True)
        VirtualMachine.objects.filter(pk=vm.pk).update(location=f"region{number}", enable_hotpatching=number % 2 == 0)
    vm = VirtualMachine.objects.select_related("resource_group").get(pk=vm.pk)
    with django_assert_num_queries(8):
        entries = load_activity(vm)
    assert len(entries) > 100
