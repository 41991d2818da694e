"""The queries whose plans the benchmark of the pages prints are those of the product."""

from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import User
from django.db import connection

from bench import scans
from bench.explain import MARK, print_plans
from tests.factories import RoleAssignmentFactory, VirtualMachineFactory
from vms.models import ResourceGroup


@pytest.mark.django_db
def test_every_query_has_a_plan(capsys: pytest.CaptureFixture[str], resource_group: ResourceGroup) -> None:
    VirtualMachineFactory.create_batch(501, resource_group=resource_group)
    for name in ("everything", "50 groups", "20 VMs"):
        RoleAssignmentFactory(user=User.objects.create(username=name))
    print_plans()
    plans = json.loads(capsys.readouterr().out.removeprefix(MARK))
    assert {name.split(",")[0] for name in plans} == {"list", "blade", "engine"}
    assert all("Buffers" in plan or "rows=" in plan for plan in plans.values())


@pytest.mark.django_db
def test_what_a_page_reads_is_told(capsys: pytest.CaptureFixture[str], resource_group: ResourceGroup) -> None:
    """A page of the list reads its 50 machines and the one that tells whether there are more."""
    VirtualMachineFactory.create_batch(60, resource_group=resource_group)
    RoleAssignmentFactory(user=User.objects.create(username="everything"))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE vms_virtualmachine")
    scans.print_scans({"list": ("/virtual-machines/", "everything")})
    found = json.loads(capsys.readouterr().out.removeprefix(scans.MARK))["list"]
    assert found["queries"] > 3
    assert 50 <= found["rows"] <= 60
