"""Service principals on their pages and by the command: made, listed, their secrets shown once, stopped."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from tests.arm_api.programs import Program, address_of
from vms.models import ResourceGroup, VirtualMachine
from vms.principal_models import PrincipalSecret, ServicePrincipal

pytestmark = pytest.mark.django_db
FORM = {"name": "nightly", "role": "operator", "scope": "/", "days": "30", "label": "the pipeline"}


@pytest.fixture
def page(client: Client, chief: User) -> Client:
    client.force_login(chief)
    return client


def test_a_page_makes_one_and_shows_its_secret_once(page: Client, vm: VirtualMachine) -> None:
    answer = page.post(reverse("arm:principal-create"), FORM | {"scope": address_of(vm).rpartition("/providers/")[0]})
    assert answer.status_code == 200
    assert answer["Cache-Control"] == "no-store"
    (text,) = re.findall(r"hps_[\w-]{40,}", answer.content.decode())
    principal = ServicePrincipal.objects.get()
    again = page.get(reverse("arm:principal", args=[principal.pk])).content.decode()
    assert text not in again
    assert "the pipeline" in again
    assert str(principal.app_id) in again
    assert "nightly" in page.get(reverse("arm:principals")).content.decode()
    program = Program(principal, text, principal.secrets.get().pk)
    assert program.ask("POST", address_of(vm, "/assessPatches")).status_code == 202
    assert program.ask("PATCH", address_of(vm), {"tags": {}}).status_code == 403
    page.post(reverse("arm:secret-revoke", args=[principal.pk, program.secret_id]))
    assert program.get(address_of(vm)).status_code == 401
    page.post(reverse("arm:principal-switch", args=[principal.pk]), {"off": ""})
    assert not User.objects.get(pk=principal.pk).is_active


@pytest.mark.parametrize(
    "wrong", [{"name": ""}, {"name": "a/b"}, {"role": "god"}, {"scope": "/nowhere"}, {"scope": ""}, {"days": "731"}]
)
def test_a_page_says_what_is_wrong(page: Client, wrong: dict[str, str]) -> None:
    assert page.post(reverse("arm:principal-create"), FORM | wrong).status_code == 422
    assert not ServicePrincipal.objects.exists()


def test_a_name_is_taken_once_and_names_are_escaped(page: Client) -> None:
    assert page.post(reverse("arm:principal-create"), FORM).status_code == 200
    assert page.post(reverse("arm:principal-create"), FORM | {"name": "Nightly"}).status_code == 422
    principal = ServicePrincipal.objects.get()
    answer = page.post(reverse("arm:secret-make", args=[principal.pk]), {"days": "1", "label": "<b>x</b>"})
    assert "&lt;b&gt;x" in answer.content.decode()
    assert PrincipalSecret.objects.count() == 2


def said(*arguments: str) -> str:
    out = StringIO()
    call_command("service_principal", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def test_no_end_of_a_secret_is_taken_for_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vms.services.principals.secrets.token_urlsafe", lambda count: "-" * count)
    told = said("create", "nightly", "--role", "reader")
    (text,) = re.findall(r"^secret: (\S+)$", told, re.MULTILINE)
    said("revoke", "nightly", text[-4:])
    assert PrincipalSecret.objects.get().revoked_at is not None


def test_the_command_does_the_same(resource_group: ResourceGroup, vm: VirtualMachine) -> None:
    scope = f"/subscriptions/{resource_group.subscription.subscription_id}"
    told = said("create", "nightly", "--role", "reader", "--scope", scope)
    principal = ServicePrincipal.objects.get()
    assert f"client id: {principal.app_id}" in told
    (text,) = re.findall(r"^secret: (\S+)$", told, re.MULTILINE)
    program = Program(principal, text, principal.secrets.get().pk)
    assert program.get(address_of(vm)).status_code == 200
    assert "1 valid secrets, last used" in said("list")
    said("secret", "nightly", "--days", "5")
    said("revoke", "nightly", text[-4:])
    assert program.get(address_of(vm)).status_code == 401
    said("off", "NIGHTLY")
    assert said("list").startswith("off")
    for wrong in (
        ("create", "nightly", "--role", "reader"),
        ("create", "other", "--role", "reader", "--scope", "/subscriptions/none"),
        ("create", "other", "--role", "reader", "--days", "0"),
        ("secret", "nobody"),
        ("revoke", "nightly", "zzzz"),
    ):
        with pytest.raises(CommandError):
            said(*wrong)
    assert ServicePrincipal.objects.count() == 1
