"""The image catalogue as a page: for every reader."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from vms.models import ImageCatalogEntry

pytestmark = pytest.mark.django_db
URL = "/virtual-machines/images/"


def test_every_image_is_there_with_its_facts(client: Client, reader: User) -> None:
    client.force_login(reader)
    page = client.get(URL).content.decode()
    rows = page.split("<tbody>")[1].split("</tbody>")[0].split("</tr>")[:-1]
    assert len(rows) == ImageCatalogEntry.objects.count() >= 8
    for entry, row in zip(ImageCatalogEntry.objects.order_by("product_line", "sku"), rows, strict=True):
        facts = [entry.sku, entry.publisher, entry.offer, entry.get_product_line_display()]
        assert all(str(fact) in row for fact in facts)
        assert row.count(">Yes<") == entry.is_server_core + entry.has_hotpatch_by_default


def test_it_costs_the_same_with_more_images(client: Client, reader: User, django_assert_num_queries: Any) -> None:
    client.force_login(reader)
    ImageCatalogEntry.objects.create(publisher="p", offer="o", sku="s", product_line="ws2025", note="Ours")
    with django_assert_num_queries(5):  # session, user, roles, what waits, images
        assert "Ours" in client.get(URL).content.decode()


def test_without_images_it_says_what_to_do(client: Client, reader: User) -> None:
    client.force_login(reader)
    ImageCatalogEntry.objects.all().delete()
    assert "The image catalog is empty" in client.get(URL).content.decode()


def test_only_who_may_look_at_them_there_is_led_to_the_admin_site(client: Client, reader: User, staff: User) -> None:
    for user, is_led in ((reader, False), (staff, True)):
        client.force_login(user)
        assert ("Edit in the admin site" in client.get(URL).content.decode()) is is_led
    reader.is_staff = True
    reader.save()
    client.force_login(reader)
    assert "Edit in the admin site" not in client.get(URL).content.decode()
