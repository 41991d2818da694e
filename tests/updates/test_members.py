"""Who is meant by a configuration, why, and who would not be patched: on its page, and live while the form is filled in."""

from __future__ import annotations

from datetime import date, time
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from patching.scope import Scope
from patching.terms import Classification, InstallationPlan
from tests.updates.rollouts import fleet
from updates.models import MaintenanceConfiguration
from updates.plans import plan_to_json
from updates.selectors.members import members_for, members_kept
from vms.models import ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db
LIVE = {"HTTP_HX_REQUEST": "true", "HTTP_HX_TARGET": "members"}


@pytest.fixture
def vms(resource_group: ResourceGroup) -> list[VirtualMachine]:
    found = fleet(resource_group, 3)
    VirtualMachine.objects.filter(pk=found[1].pk).update(location="westus", tags={"ring": "<b>1"})
    VirtualMachine.objects.filter(pk=found[2].pk).update(patch_mode="AutomaticByOS", enable_hotpatching=False)
    return found


@pytest.fixture
def page(client: Client, chief: User) -> Client:
    client.force_login(chief)
    return client


def test_each_machine_says_why_it_is_in(vms: list[VirtualMachine]) -> None:
    found = members_for(Scope(location="Japan East"), [vms[0].pk, vms[1].pk])
    why = {member.vm.pk: (member.is_named, member.is_in_scope, member.is_patched) for member in found.judged}
    assert why == {vms[0].pk: (True, True, True), vms[1].pk: (True, False, True), vms[2].pk: (False, True, False)}
    assert (found.count, found.ready, found.are_all_judged) == (3, 2, True)
    assert not found.shown[0].is_patched, "who would not be patched stands first"
    few = members_for(Scope(location="japaneast"), [], most=1)
    assert (few.count, len(few.judged), few.are_all_judged) == (2, 1, False)
    VirtualMachine.objects.update(gone_at="2026-01-01T00:00:00Z")
    assert members_for(Scope(location="Japan East"), []).count == 0
    assert members_for(Scope(), []).count == 0, "who asks for nothing means nobody"


def test_the_list_of_a_scope_has_the_same_machines(page: Client, vms: list[VirtualMachine]) -> None:
    group = vms[0].resource_group
    for scope in (
        Scope(location="Japan East"),
        Scope(tag_name="ring", tag_value="<b>1"),
        Scope(tag_name="ring"),
        Scope(subscription=group.subscription_id, resource_group=group.name.upper()),
    ):
        found = members_for(scope, [])
        shown = page.get(found.address).content.decode()
        assert {vm.name for vm in vms if f">{vm.name}<" in shown} == {member.vm.name for member in found.judged}, scope
    assert members_for(Scope(image_sku="x"), []).address == "", "the list has no such filter"


def test_the_live_part_counts_while_the_rest_is_missing(page: Client, vms: list[VirtualMachine]) -> None:
    address = reverse("updates:maintenance-create")
    answer = page.post(address, {"location": "Japan East"}, **LIVE)
    text = answer.content.decode()
    assert answer.status_code == 200
    assert "2 machines match; 1 of them will be patched." in text
    assert 'Location: <span class="strong">Japan East</span>' in text
    assert "<html" not in text
    tagged = page.post(address, {"tag_name": "ring", "tag_value": "<b>1"}, **LIVE).content.decode()
    assert "&lt;b&gt;1" in tagged
    assert "<b>1" not in tagged
    assert "0 machines match" in page.post(address, {"location": "moon"}, **LIVE).content.decode()
    for wrong in ({"machines": "nobody"}, {"tag_value": "1"}):
        assert "cannot be told" in page.post(address, wrong, **LIVE).content.decode()
    assert "0 machines match" in page.post(address, {}, **LIVE).content.decode()


def test_the_page_of_a_configuration_says_who_would_not_be_patched_and_why(
    page: Client, vms: list[VirtualMachine]
) -> None:
    row = MaintenanceConfiguration.objects.create(
        name="x",
        starts_on=date(2026, 11, 24),
        starts_at=time(22),
        time_zone="UTC",
        recur_every="Day",
        plan=plan_to_json(InstallationPlan(classifications=frozenset({Classification.SECURITY}))),
        scope={"location": "Japan East"},
    )
    row.vms.add(vms[1])
    kept: Any = members_kept(row, Scope(location="Japan East"))
    assert kept.count == 3
    shown = page.get(reverse("updates:maintenance", args=[row.pk])).content.decode()
    assert "by its name" in shown
    assert "Location: Japan East" in shown
    assert "3 machines match; 2 of them will be patched." in shown
    edit = page.get(reverse("updates:maintenance-edit", args=[row.pk])).content.decode()
    assert edit.count("3 machines match; 2 of them will be patched.") == 1
    assert "known-locations" in edit
