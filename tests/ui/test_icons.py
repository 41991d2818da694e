"""Icons are drawn once on a page, on every page and in every part of one."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.db.models import F
from django.test import Client
from django.urls import reverse
from lucide import IconDoesNotExist

from tests.factories import ConnectionFactory, VirtualMachineFactory
from ui.icons import drawing, with_drawings
from ui.templatetags.portal import icon
from vms.models import Outlook, ResourceGroup, VirtualMachine
from vms.selectors import PAGE_SIZE

LIST = "/virtual-machines/"
USED, DRAWN = re.compile(r'<use href="#([^"]+)"'), re.compile(r'<symbol id="([^"]+)"')


def test_a_page_gets_each_drawing_once_before_the_end_of_its_body() -> None:
    page = f"<body>{icon('check')}{icon('check', 20)}{icon('sun')}</body></html>".encode()
    shown = with_drawings(page).decode()
    assert DRAWN.findall(shown) == ["i-check", "i-sun"]
    assert shown.endswith("</symbol></svg></body></html>")


def test_a_part_brings_its_drawings_for_the_place_of_the_page() -> None:
    shown = with_drawings(f"<div>{icon('check')}</div>".encode()).decode()
    assert shown.startswith("<div>")
    assert DRAWN.findall(shown) == ["i-check"]
    assert 'hx-swap-oob="beforeend:#drawings"' in shown


@pytest.mark.parametrize("page", [b"", b"<p>no icon</p>", b"<body></body>"])
def test_what_has_no_icons_stays_as_it_is(page: bytes) -> None:
    assert with_drawings(page) == page


def test_an_icon_that_there_is_not_is_an_error() -> None:
    with pytest.raises(IconDoesNotExist):
        drawing("no-such-icon")


@pytest.mark.django_db
@pytest.mark.parametrize("where", [LIST, "/calendar/", "/decisions/", "/no-such-page/", "/virtual-machines/?q=%00"])
def test_every_icon_of_a_page_is_drawn_once(client: Client, chief: User, where: str) -> None:
    client.force_login(chief)
    page = client.get(where).content.decode()
    drawn = DRAWN.findall(page)
    assert drawn
    assert sorted(drawn) == sorted(set(USED.findall(page)))


@pytest.mark.django_db
@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_page_of_the_list_is_light(client: Client, chief: User, resource_group: ResourceGroup, language: str) -> None:
    # One connection: each is a choice of the filter, and one per machine would weigh more than the rows.
    VirtualMachineFactory.create_batch(
        PAGE_SIZE, resource_group=resource_group, connection=ConnectionFactory(), update_status="updates_available",
        hotpatch_track="baseline_due", hotpatch_status="Enabled", critical_and_security_count=12, other_count=3,
    )  # fmt: skip
    VirtualMachine.objects.update(id=F("id") + 1_000_000)  # ids of seven digits, as a million machines have
    alike = set(VirtualMachine.objects.values_list("alike", flat=True))
    told = {"next_reboot_outlook": "may", "next_reboot_cause": "pending_update_requires"}
    Outlook.objects.bulk_create(Outlook(alike=number, next_reboot="2027-01", **told) for number in alike)
    VirtualMachine.objects.update(next_reboot="2027-01")
    client.force_login(chief)
    answer = client.get(reverse("vms:vm-list"), headers={"Accept-Language": language})
    assert answer.content.count(b'name="vm"') == PAGE_SIZE
    assert len(answer.content) < 60_000


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("order", "direction", "leads_to"),
    [
        ("name", "ascending", "sort=-name"),
        ("-name", "descending", "sort=name"),
        ("critical", "ascending", "sort=-critical"),
        ("-critical", "descending", "sort=critical"),
    ],
)
def test_the_head_of_a_column_leads_to_the_other_order_and_keeps_the_filters(
    client: Client, chief: User, resource_group: ResourceGroup, order: str, direction: str, leads_to: str
) -> None:
    VirtualMachineFactory(name="web-1", resource_group=resource_group)
    client.force_login(chief)
    page = client.get(LIST, {"sort": order, "q": "web", "cursor": "x"}).content.decode()
    (head,) = re.findall(rf'<th scope="col"[^>]* aria-sort="{direction}"><a href="([^"]+)"', page)
    assert leads_to in head
    assert "q=web" in head
    assert "cursor" not in head
    other = "critical" if "name" in order else "name"
    first = "-critical" if other == "critical" else "name"
    assert f"sort={first}" in page
