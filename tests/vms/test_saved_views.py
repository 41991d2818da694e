"""Saved views are their owner's to rename, to fill anew, to share and to remove; what is lost is confirmed before."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.test import Client
from django.urls import reverse

from audit.models import AuditEvent
from tests.factories import VirtualMachineFactory
from tests.forms import text_of
from vms.models import ResourceGroup, SavedView
from vms.services.views import change_view, remove_view, replace_filters

pytestmark = pytest.mark.django_db


@pytest.fixture
def view(reader: User, resource_group: ResourceGroup) -> SavedView:
    VirtualMachineFactory(resource_group=resource_group)
    return SavedView.objects.create(owner=reader, name="Tokyo", address="location=japaneast&sort=-name")


def at(name: str, view: SavedView, query: str = "") -> str:
    return f"{reverse(f'vms:{name}', args=[view.pk])}{query}"


def tags() -> list[str]:
    return list(AuditEvent.objects.filter(source="vms.savedview").order_by("pk").values_list("tag", flat=True))


def test_its_owner_renames_it(client: Client, reader: User, view: SavedView) -> None:
    client.force_login(reader)
    SavedView.objects.create(owner=reader, name="Osaka")
    page = text_of(client.get(at("view-edit", view)))
    assert "japaneast" in page
    assert "Shared" not in page, "who may not share is not asked"
    taken = client.post(at("view-edit", view), {"name": "osaka"})
    assert taken.status_code == 422
    assert "You have a view of this name." in text_of(taken)
    assert client.post(at("view-edit", view), {"name": " "}).status_code == 422
    assert client.post(at("view-edit", view), {"name": "TOKYO"})["Location"] == at("view", view)
    view.refresh_from_db()
    assert (view.name, view.address, view.is_shared) == ("TOKYO", "location=japaneast&sort=-name", False)
    assert tags()[-1] == "fleet:view:change"


def test_its_filters_are_replaced_once_that_is_confirmed(client: Client, reader: User, view: SavedView) -> None:
    client.force_login(reader)
    here = at("view-replace", view, "?location=japanwest&sort=name&cursor=x")
    page = text_of(client.get(here))
    assert page.index("japaneast") < page.index("japanwest")
    view.refresh_from_db()
    assert view.address == "location=japaneast&sort=-name"
    assert client.post(here)["Location"] == at("view", view)
    view.refresh_from_db()
    assert view.address == "location=japanwest&sort=name"
    unread = client.post(at("view-replace", view, "?hotpatch_track=sideways"))
    assert unread.status_code == 422
    assert "cannot be kept" in text_of(unread)
    view.refresh_from_db()
    assert view.address == "location=japanwest&sort=name"


def test_it_is_removed_once_that_is_confirmed(client: Client, reader: User, view: SavedView) -> None:
    client.force_login(reader)
    assert "The view goes away." in text_of(client.get(at("view-remove", view)))
    assert SavedView.objects.exists()
    assert client.post(at("view-remove", view))["Location"] == reverse("vms:vm-list")
    assert not SavedView.objects.exists()


def test_an_owner_of_everything_shares_it_and_takes_that_back(client: Client, chief: User, reader: User) -> None:
    view = SavedView.objects.create(owner=chief, name="Ours")
    client.force_login(chief)
    client.post(at("view-edit", view), {"name": "Ours", "is_shared": "on"})
    assert SavedView.objects.get().is_shared
    assert "for everybody" in text_of(client.get(at("view-remove", view)))
    assert "Everybody sees the new filters" in text_of(client.get(at("view-replace", view, "?location=japaneast")))
    client.force_login(reader)
    assert client.get(at("view", view)).status_code == 302
    client.force_login(chief)
    client.post(at("view-edit", view), {"name": "Ours"})
    assert not SavedView.objects.get().is_shared
    client.force_login(reader)
    assert client.get(at("view", view)).status_code == 404


def test_who_may_share_no_more_may_still_take_it_back(client: Client, reader: User, view: SavedView) -> None:
    SavedView.objects.update(is_shared=True)
    client.force_login(reader)
    client.post(at("view-edit", view), {"name": "Tokyo", "is_shared": "on"})
    assert SavedView.objects.get().is_shared
    client.post(at("view-edit", view), {"name": "Tokyo"})
    assert not SavedView.objects.get().is_shared
    client.post(at("view-edit", view), {"name": "Tokyo", "is_shared": "on"})
    assert not SavedView.objects.get().is_shared, "the form does not ask any more"
    view.refresh_from_db()
    with pytest.raises(PermissionDenied):
        change_view(view=view, name="Tokyo", is_shared=True, by=reader)


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("name", ["view-edit", "view-replace", "view-remove"])
def test_a_view_is_nobody_elses_to_change(
    client: Client, operator: User, chief: User, view: SavedView, name: str, *, is_shared: bool
) -> None:
    SavedView.objects.update(is_shared=is_shared)
    for user in (operator, chief):
        client.force_login(user)
        expected = 200 if user == chief and is_shared and name == "view-remove" else 404
        assert client.get(at(name, view, "?location=x")).status_code == expected
        if expected == 404:
            assert client.post(at(name, view, "?location=x"), {"name": "x"}).status_code == 404
    view.refresh_from_db()
    assert (view.name, view.address) == ("Tokyo", "location=japaneast&sort=-name")


def test_services_refuse_the_views_of_others(operator: User, view: SavedView) -> None:
    with pytest.raises(PermissionDenied):
        change_view(view=view, name="x", is_shared=False, by=operator)
    with pytest.raises(PermissionDenied):
        replace_filters(view=view, address="", by=operator)
    with pytest.raises(PermissionDenied):
        remove_view(view=view, by=operator)


def test_views_are_changed_from_where_they_are_saved(
    client: Client, reader: User, chief: User, view: SavedView
) -> None:
    SavedView.objects.create(owner=chief, name="Ours", is_shared=True)
    client.force_login(reader)
    page = client.get(f"{reverse('vms:view-save')}?location=osaka").content.decode()
    for name in ("view-edit", "view-replace", "view-remove"):
        assert f'href="{at(name, view)}' in page
    assert f"{at('view-replace', view)}?location=osaka" in page
    assert "Ours" not in page.partition('id="views-title"')[2]
    client.force_login(chief)
    page = client.get(reverse("vms:view-save")).content.decode()
    assert "Tokyo" not in page.partition('id="views-title"')[2]


def test_a_hostile_name_is_shown_as_text(client: Client, reader: User, view: SavedView) -> None:
    SavedView.objects.update(name="<script>x")
    client.force_login(reader)
    for name in ("view-edit", "view-replace", "view-remove"):
        assert "<script>x" not in client.get(at(name, view)).content.decode()
