"""A run whose only work is a pending reboot is the same at every door; with nothing to do every door refuses."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from patching.selection import RunWork
from patching.terms import Classification, InstallationPlan, RebootSetting
from tests.factories import PatchFactory, VirtualMachineFactory, VmUpdateStateFactory
from tests.forms import text_of
from updates.models import KbHold, Operation, PatchSet, PatchSetMember
from updates.selectors.work import work_on
from updates.services.operations import request_installations
from vms.models import ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)
SECURITY = InstallationPlan(classifications=frozenset({Classification.SECURITY}))


def machine(group: ResourceGroup, *kbs: str, is_pending: bool = False, **patch: Any) -> VirtualMachine:
    """A machine that lacks these."""
    vm: VirtualMachine = VirtualMachineFactory(resource_group=group, is_reboot_pending=is_pending)
    found, _ = PatchSet.objects.get_or_create(digest=(",".join(kbs) or "none").encode())
    for kb_number in kbs:
        PatchSetMember.objects.get_or_create(
            patch_set=found, patch=PatchFactory(kb_number=kb_number, **patch) if kb_number else None
        )
    VmUpdateStateFactory(vm=vm, patch_set=found)
    return vm


def test_what_a_run_would_do_by_what_is_recorded(resource_group: ResourceGroup) -> None:
    updates = machine(resource_group, "9000001")
    reboots = machine(resource_group, is_pending=True)
    nothing = machine(resource_group)
    held = machine(resource_group, "9000002")
    KbHold.objects.create(vm=held, kb_number="9000002")
    never = VirtualMachineFactory(resource_group=resource_group)
    ids = [vm.pk for vm in (updates, reboots, nothing, held, never)]
    assert work_on(ids, SECURITY, now=NOW) == {
        updates.pk: RunWork.UPDATES,
        reboots.pk: RunWork.PENDING_REBOOT,
        nothing.pk: RunWork.NOTHING,
        held.pk: RunWork.NOTHING,
    }
    calm = InstallationPlan(classifications=SECURITY.classifications, reboot_setting=RebootSetting.NEVER)
    assert work_on([reboots.pk], calm, now=NOW) == {reboots.pk: RunWork.NOTHING}


def test_what_the_guard_holds_is_no_work(resource_group: ResourceGroup) -> None:
    title = "2026-05 Cumulative Update for Microsoft server operating system version 21H2 (KB9000003)"
    vm = machine(resource_group, "9000003", title=title)
    VirtualMachine.objects.filter(pk=vm.pk).update(hotpatch_track="on_track")
    assert work_on([vm.pk], SECURITY, now=NOW) == {vm.pk: RunWork.NOTHING}
    VirtualMachine.objects.filter(pk=vm.pk).update(hotpatch_track="not_on_train")
    assert work_on([vm.pk], SECURITY, now=NOW) == {vm.pk: RunWork.UPDATES}


def test_it_takes_the_same_queries_for_any_number(resource_group: ResourceGroup) -> None:
    vms = [machine(resource_group, f"90001{number:02}") for number in range(12)]
    counts = []
    for some in (vms[:2], vms):
        with CaptureQueriesContext(connection) as queries:
            work_on([vm.pk for vm in some], SECURITY, now=NOW)
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 4


def test_a_door_where_a_person_acts_refuses_what_does_nothing(resource_group: ResourceGroup, operator: User) -> None:
    reboots, nothing = machine(resource_group, is_pending=True), machine(resource_group)
    outcomes = request_installations(
        vm_ids=[reboots.pk, nothing.pk], plan=SECURITY, requested_by=operator, refuse_idle=True
    )
    assert {o.vm_id: (o.verdict, o.code) for o in outcomes} == {
        reboots.pk: ("accepted", ""),
        nothing.pk: ("refused", "plan.nothing_to_do"),
    }


def sent(go: str, reboot: str = "IfRequired") -> dict[str, Any]:
    return {
        "step": "review",
        "go": go,
        "classifications": ["Security"],
        "reboot_setting": reboot,
        "maximum_minutes": "120",
        "request_id": str(uuid.uuid4()),
    }


def test_the_wizard_announces_and_allows_a_reboot_that_is_pending(
    client: Client, operator: User, resource_group: ResourceGroup
) -> None:
    vm = machine(resource_group, is_pending=True)
    url = reverse("updates:install", args=[vm.pk])
    client.force_login(operator)
    assert "0 updates; reboots: a reboot is pending." in text_of(client.post(url, sent("review")))
    never = client.post(url, sent("install", "Never"))
    assert "Nothing would be installed." in text_of(never)
    assert not Operation.objects.exists()
    assert client.post(url, sent("install")).status_code == 302
    assert Operation.objects.get().vm_id == vm.pk


def test_the_review_of_many_announces_it(client: Client, operator: User, resource_group: ResourceGroup) -> None:
    vm = machine(resource_group, is_pending=True)
    url = reverse("updates:bulk-create")
    client.force_login(operator)
    asked = sent("review") | {"kind": "installation", "vm": vm.pk}
    assert "0 updates; reboots: a reboot is pending." in text_of(client.post(url, asked))
    never = client.post(url, asked | {"reboot_setting": "Never"})
    assert "There is nothing to do" in text_of(never)
    assert 'value="start"' not in never.content.decode()
