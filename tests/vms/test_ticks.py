"""Ticks of the list survive paging, sorting and filtering; what is done with them asks as strictly as anything typed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.factories import VirtualMachineFactory
from tests.forms import fields_of, text_of
from updates.models import BulkRequest
from vms import ticks as limits
from vms.models import KeptTicks, ResourceGroup, VirtualMachine
from vms.services import ticks as service
from vms.services.ticks import forget_ticks

pytestmark = pytest.mark.django_db
LIST, TICKS, BULK = "/virtual-machines/", "/virtual-machines/ticks/", "/bulk/"


@pytest.fixture
def vms(client: Client, operator: User, resource_group: ResourceGroup) -> list[VirtualMachine]:
    client.force_login(operator)
    places = ("japaneast", "westeurope")
    return [
        VirtualMachineFactory(resource_group=resource_group, name=f"web-{n:03}", location=places[n % 2])
        for n in range(60)
    ]


def tick(
    client: Client, address: str, *on: VirtualMachine, off: tuple[VirtualMachine, ...] = (), go: str = "keep"
) -> Any:
    """Tick (and untick) machines of the page at this address of the list, and press a button."""
    fields = fields_of(client.get(f"{LIST}?{address}"), TICKS)
    already = {int(pk) for pk in fields.pop("vm", [])} - {vm.pk for vm in off}
    return client.post(TICKS, fields | {"vm": [*already, *(vm.pk for vm in on)], "go": go})


def shown(client: Client, address: str = "") -> Any:
    return client.get(f"{LIST}?{address}").context["ticks"]


def test_ticks_survive_pages_orders_and_filters(client: Client, vms: list[VirtualMachine]) -> None:
    answer = tick(client, "sort=name", vms[0], vms[1], go="next")
    assert "cursor=" in answer["Location"]
    second = client.get(answer["Location"])
    assert [vm.name for vm in second.context["page"].vms] == [vm.name for vm in vms[50:]]
    assert second.context["ticks"].ticks.count == 2
    tick(client, answer["Location"].partition("?")[2], vms[55])
    assert shown(client, "sort=-name").ticked == {vms[55].pk}
    assert shown(client, "location=japaneast").ticked == {vms[0].pk}
    page = client.get(f"{LIST}?location=japaneast").content.decode()
    assert f'value="{vms[0].pk}" aria-label="web-000" checked' in page
    assert "3 selected" in page
    tick(client, "location=japaneast", off=(vms[0],))
    assert set(KeptTicks.objects.get().vm_ids) == {vms[1].pk, vms[55].pk}
    tick(client, "", go="clear")
    assert not KeptTicks.objects.exists()


def test_an_act_takes_what_is_ticked_here_and_elsewhere(client: Client, vms: list[VirtualMachine]) -> None:
    tick(client, "sort=name", vms[0])
    answer = tick(client, "sort=-name", vms[59], go="assessment")
    assert answer["Location"] == f"{BULK}?kind=assessment&kept=1"
    page = client.get(answer["Location"])
    fields = fields_of(page, BULK)
    assert fields["vm"] == [str(vms[0].pk), str(vms[59].pk)]
    assert client.post(BULK, fields | {"go": "start"}).status_code == 302
    assert BulkRequest.objects.get().vm_count == 2
    assert not KeptTicks.objects.exists(), "what something was done with is ticked no more"
    for go, address in (
        ("installation", f"{BULK}?kind=installation&kept=1"),
        ("rollback", f"{BULK}?kind=rollback&kept=1"),
        ("settings", "/virtual-machines/settings/?kept=1"),
    ):
        assert tick(client, "", vms[3], go=go)["Location"] == address
        assert client.get(address).status_code in {200, 403}
    assert tick(client, "lacks=KB5087424", go="include")["Location"].endswith("&kept=1&include=5087424")


def test_all_that_match_except_these(client: Client, vms: list[VirtualMachine]) -> None:
    tick(client, "location=japaneast", go="match")
    kept = shown(client)
    assert (kept.ticks.count, kept.ticks.is_all, len(kept.loose)) == (30, True, len(kept.ticked))
    assert "disabled" in client.get(f"{LIST}?location=westeurope").content.decode()
    tick(client, "sort=name", off=(vms[0], vms[2], vms[4]))
    page = client.get(LIST).content.decode()
    assert "27 selected (all that match but 3)" in page
    answer = client.get(tick(client, "sort=name", go="assessment")["Location"])
    assert "3 of those that match are left out." in text_of(answer)
    fields = fields_of(answer, BULK)
    assert (fields["all"], fields["location"], len(fields["except"])) == (["1"], ["japaneast"], 3)
    late = VirtualMachineFactory(resource_group=vms[0].resource_group, location="japaneast")
    refused = client.post(BULK, fields | {"go": "start", "confirm": "27"})
    assert "27 machines were shown, and 28 match now." in text_of(refused)
    late.delete()
    assert client.post(BULK, fields | {"go": "start", "confirm": "27"}).status_code == 302
    row = BulkRequest.objects.get()
    assert row.selection == {"filters": {"location": "japaneast"}, "except": 3}
    meant = {pk for block in row.blocks.all() for pk in block.vm_ids}
    assert meant == {vm.pk for vm in vms[6::2]}


def test_machines_that_are_gone_since_are_left_out_and_told(client: Client, vms: list[VirtualMachine]) -> None:
    tick(client, "sort=name", vms[0], vms[1])
    vms[0].delete()
    page = client.get(f"{BULK}?kind=assessment&kept=1")
    assert "1 more that you ticked is gone" in text_of(page)
    assert fields_of(page, BULK)["vm"] == [str(vms[1].pk)]
    vms[1].delete()
    assert "No virtual machine is ticked" in text_of(client.get(f"{BULK}?kind=assessment&kept=1"))


@pytest.mark.parametrize(
    "query",
    [
        "kept=1&vm=1",
        "kept=1&all=1",
        "kept=1&location=japaneast",
        "kept=yes",
        "kept=1&except=1",
        "except=1&vm=1",
        "all=1&except=x",
    ],
)
def test_what_is_kept_is_asked_for_alone(client: Client, vms: list[VirtualMachine], query: str) -> None:
    tick(client, "sort=name", vms[0])
    answer = client.get(f"{BULK}?kind=assessment&{query}")
    assert answer.status_code == 422
    assert 'value="start"' not in answer.content.decode()


def test_ticks_are_bounded_and_forgotten(
    client: Client, vms: list[VirtualMachine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST_TICKS", 2)
    tick(client, "sort=name", vms[0], vms[1])
    answer = tick(client, "sort=name", vms[2], go="assessment")
    assert answer["Location"].startswith(LIST)
    assert "machines are ticked one by one." in text_of(client.get(answer["Location"]))
    assert set(KeptTicks.objects.get().vm_ids) == {vms[0].pk, vms[1].pk}
    with time_machine.travel(timezone.now() + limits.FORGOTTEN_AFTER + timedelta(minutes=1)):
        client.force_login(User.objects.get(username="operator"))
        assert shown(client).ticks.count == 0
        tick(client, "sort=name", vms[3])
        assert KeptTicks.objects.get().vm_ids == [vms[3].pk]
    KeptTicks.objects.update(changed_at=timezone.now() - limits.FORGOTTEN_AFTER)
    assert forget_ticks(now=timezone.now()) == 1


@pytest.mark.parametrize(
    "sent", [{}, {"go": "x"}, {"go": "keep", "shown": "1,x"}, {"go": "keep", "vm": "x"}, {"go": "keep", "vm": "１"}]
)
def test_what_no_page_sends_is_refused(client: Client, vms: list[VirtualMachine], sent: dict[str, str]) -> None:
    assert client.post(TICKS, sent).status_code == 400
    assert not KeptTicks.objects.exists()


def test_what_was_not_shown_is_not_ticked(client: Client, vms: list[VirtualMachine]) -> None:
    client.post(TICKS, {"go": "keep", "shown": str(vms[0].pk), "vm": [vms[0].pk, vms[1].pk]})
    assert KeptTicks.objects.get().vm_ids == [vms[0].pk]


def test_a_bad_filter_ticks_nothing(client: Client, vms: list[VirtualMachine]) -> None:
    client.post(TICKS, {"go": "match", "address": "connection=9999"})
    assert not KeptTicks.objects.exists()
    assert "Nothing was selected" in text_of(client.get(LIST))


def test_with_a_script_only_the_number_is_sent_back(client: Client, vms: list[VirtualMachine]) -> None:
    headers = {"HX-Request": "true", "HX-Target": "ticks-count"}
    sent = {"go": "keep", "shown": f"{vms[0].pk},{vms[1].pk}", "vm": vms[0].pk}
    answer = client.post(TICKS, sent, headers=headers, follow=True)
    assert answer.status_code == 200
    assert answer.content.decode().strip().startswith('<span id="ticks-count" data-announce="1 selected">')


def test_each_person_has_own_ticks_and_readers_none(
    client: Client, vms: list[VirtualMachine], reader: User, owner: User
) -> None:
    tick(client, "sort=name", vms[0])
    client.force_login(owner)
    assert shown(client).ticks.count == 0
    client.force_login(reader)
    page = client.get(LIST).content.decode()
    assert 'name="vm"' not in page
    assert "tickbar" not in page
    assert reverse("vms:list-ticks") in page
