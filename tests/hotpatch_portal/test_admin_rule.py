"""The admin site looks up what its filters ask for and nothing else, whoever wrote the class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from allauth.usersessions.models import UserSession
from django.contrib import admin
from django.contrib.admin.options import ModelAdmin
from django.contrib.auth.models import Group, Permission, User
from django.contrib.sessions.models import Session
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from tests.factories import UserFactory
from ui.admin import GuardedAdmin, PortalAdminSite, is_secret

pytestmark = pytest.mark.django_db
ENDS = ("", "__exact", "__startswith", "__iregex", "__contains", "__gt", "__in", "__isnull", "__lte")
DEPTH = 3
CLASSES = sorted(admin.site._registry.items(), key=lambda item: item[0]._meta.label)


def list_page(model: type[Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def paths(model: type[Model], depth: int = DEPTH, seen: tuple[Any, ...] = ()) -> Iterator[str]:
    """Every look-up path of a model, forwards and backwards over its relations."""
    for field in model._meta.get_fields():
        name = field.name
        yield name
        other = field.related_model if field.is_relation else None
        if depth > 1 and isinstance(other, type) and other not in seen:
            yield from (f"{name}__{rest}" for rest in paths(other, depth - 1, (*seen, model)))


@pytest.fixture
def clerk() -> User:
    """A member of staff who may look at everything and change nothing."""
    user: User = UserFactory(username="clerk", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    return user


def test_every_class_of_the_site_is_under_the_rule() -> None:
    assert {model._meta.label for model, _ in CLASSES} >= {
        "auth.User",
        "usersessions.UserSession",
        "vms.RoleAssignment",
    }
    assert [row for _model, row in CLASSES if not isinstance(row, GuardedAdmin)] == []


@pytest.mark.parametrize(("model", "row"), CLASSES, ids=[model._meta.label for model, _ in CLASSES])
def test_a_path_that_no_filter_names_is_no_look_up(
    rf: Any, clerk: User, model: type[Model], row: ModelAdmin[Any]
) -> None:
    request = rf.get("/")
    request.user = clerk
    filtered = {item for item in row.list_filter if isinstance(item, str)}
    known = {f"{path}{end}" for path in filtered for end in ("", "__exact", "__in", "__isnull")}
    known |= {f"{path}__id__exact" for path in filtered}
    count = 0
    for path in {*paths(model), "no_such_field", "pk", "id"}:
        for end in ENDS:
            count += 1
            is_allowed = row.lookup_allowed(f"{path}{end}", "x", request)
            assert is_allowed is (f"{path}{end}" in known), f"{path}{end}"
            assert not (is_allowed and is_secret(path))
    assert count > 50


@pytest.mark.parametrize(("model", "row"), CLASSES, ids=[model._meta.label for model, _ in CLASSES])
def test_no_class_shows_searches_filters_or_sorts_by_a_secret(
    rf: Any, clerk: User, model: type[Model], row: ModelAdmin[Any]
) -> None:
    request = rf.get("/")
    request.user = clerk
    used = [*row.list_display, *row.list_filter, *row.get_search_fields(request), *(row.get_ordering(request) or ())]
    shown = [name for name in [*used, row.date_hierarchy or ""] if isinstance(name, str)]
    for _title, options in row.get_fieldsets(request, model()):
        shown += [str(name) for name in options["fields"]]
    assert [name for name in shown if is_secret(name)] == []


@pytest.mark.parametrize("model", [model for model, _ in CLASSES], ids=lambda model: model._meta.label)
def test_a_look_up_that_nobody_offers_is_refused_and_its_links_work(
    client: Client, clerk: User, model: type[Model]
) -> None:
    client.force_login(clerk)
    page = list_page(model)
    for path in ("user__password__startswith", "password__startswith", "session_key__startswith", "pk__gt",
                 "user__usersession__session_key__regex", "requested_by__password__lt", "x__y"):  # fmt: skip
        assert client.get(page, {path: "a"}).status_code == 400, path
    for name, value in (
        ("o", "-1.2"),
        ("o", "session_key"),
        ("o", "9" * 40),
        ("p", "9" * 40),
        ("p", "-1"),
        ("all", ""),
    ):
        assert client.get(page, {name: value}).status_code in {200, 302}, (name, value)
    for field in ("password", "session_key", "user__password"):
        assert client.get(page, {"_to_field": field}).status_code == 400, field
    assert client.get(page, {"_popup": "1"}).status_code == 200


def test_the_filters_beside_the_lists_still_filter(client: Client, staff: User) -> None:
    client.force_login(staff)
    for model, row in CLASSES:
        for item in row.list_filter:
            if isinstance(item, str):
                field = model._meta.get_field(item)
                end = "__id__exact" if field.is_relation else "__exact"
                assert client.get(list_page(model), {f"{item}{end}": "1"}).status_code == 200, (model, item)
    page = client.get(list_page(User)).content.decode()
    assert "is_staff__exact=1" in page
    assert client.get(list_page(User), {"is_staff__exact": "1"}).status_code == 200
    release = list_page(next(model for model, _ in CLASSES if model._meta.label == "updates.Release"))
    assert client.get(release, {"released_on__year": "2025", "released_on__month": "4"}).status_code == 200


def test_no_page_about_a_session_tells_its_key(client: Client, clerk: User, staff: User) -> None:
    signed_in = Client()
    signed_in.force_login(staff)
    key = signed_in.session.session_key
    assert key
    row = UserSession.objects.create(user=staff, ip="127.0.0.1", session_key=key)
    for who in (clerk, staff):
        client.force_login(who)
        for action in ("change", "history", "delete"):
            page = client.get(reverse(f"admin:usersessions_usersession_{action}", args=[row.pk])).content.decode()
            assert key not in page, (who, action)
        for address in (list_page(UserSession), f"{list_page(UserSession)}?q={key[:8]}"):
            answer = client.get(address)
            assert f"{key[:8]}{key[8:]}" not in answer.content.decode()
    assert client.get(list_page(UserSession), {"q": key}).context["cl"].result_count == 0
    assert Session not in admin.site._registry


def test_a_password_is_shown_to_nobody_who_only_looks(client: Client, clerk: User) -> None:
    clerk.set_password("something long enough")
    clerk.save()
    client.force_login(clerk)
    page = client.get(reverse("admin:auth_user_change", args=[clerk.pk])).content.decode()
    algorithm, salt = clerk.password.split("$")[:2]
    assert algorithm not in page
    assert salt[:6] not in page


def test_whoever_registers_a_secret_is_told() -> None:
    site = PortalAdminSite()
    for name, value in (
        ("list_display", ["password"]), ("search_fields", ["username", "^password"]), ("list_filter", ["password"]),
        ("ordering", ["-password"]), ("list_filter", [("password", admin.AllValuesFieldListFilter)]),
    ):  # fmt: skip
        with pytest.raises(ImproperlyConfigured, match="secret"):
            site.register(User, type("Wrong", (ModelAdmin,), {name: value}))
    site.register(Group)
    assert isinstance(site._registry[Group], GuardedAdmin)


@pytest.mark.django_db
def test_a_year_or_a_key_that_is_none_is_a_bad_parameter(client: Client, staff: User) -> None:
    client.force_login(staff)
    for year in ("99999", "-1", "0", "9" * 40, "x"):
        answer = client.get(reverse("admin:updates_release_changelist"), {"released_on__year": year})
        assert answer.status_code in {200, 302, 400}, year
    for key in ("x", "-1", "9" * 40, "\ufffd"):
        sent = {"name": "g", "subscription": key}
        assert client.post(reverse("admin:vms_resourcegroup_add"), sent).status_code == 200, (
            "shown again with its error"
        )
        assert client.get(reverse("admin:vms_resourcegroup_add"), sent).status_code == 200
