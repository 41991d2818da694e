"""What cannot be read is refused in one place; answers say who may keep them; one line of the log for what was refused."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from hotpatch_portal.logs import without_traceback
from vms.models import ResourceGroup

pytestmark = pytest.mark.django_db
LIST = "/virtual-machines/"


def form_of(vm_id: int, **fields: str) -> dict[str, str]:
    return {
        "step": "review", "classifications": "Security", "reboot_setting": "IfRequired", "maximum_minutes": "60", **fields,
    }  # fmt: skip


@pytest.mark.parametrize("value", ["http://[", "//[::", "http://[x]/"])
def test_a_malformed_address_of_the_page_counts_as_not_sent(client: Client, reader: User, value: str) -> None:
    client.force_login(reader)
    assert client.get(LIST, headers={"HX-Request": "true", "HX-Current-URL": value}).status_code == 200
    assert client.get("/operations/ended/", headers={"HX-Current-URL": value}).status_code in {200, 286, 404}


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("q=%00", {}, 400),
        ("%00=1", {}, 400),
        ("q=%ff%fe", {}, 200),
        ("", {"User-Agent": "a\0"}, 400),
        ("", {"Cookie": 'theme="\\000"'}, 400),
        ("", {"Cookie": "sessionid=%00; ;;=;"}, 302),
    ],
)
def test_nul_is_refused_wherever_it_stands(
    client: Client, reader: User, query: str, headers: dict[str, str], status: int
) -> None:
    client.force_login(reader)
    assert client.get(f"{LIST}?{query}", headers=headers).status_code in {
        status,
        302 if "Cookie" in headers else status,
    }


@pytest.mark.parametrize("charset", ["nonsense", "base64", "undefined", "utf-16", "idna"])
def test_another_charset_is_not_understood(client: Client, chief: User, charset: str) -> None:
    client.force_login(chief)
    kind = f"application/x-www-form-urlencoded; charset={charset}"
    assert client.generic("POST", reverse("vms:vm-import"), b"a=1", content_type=kind).status_code == 415
    assert (
        client.generic("POST", reverse("vms:vm-import"), b"a=1", content_type=kind[:33] + "; charset=UTF-8").status_code
        == 422
    )


@pytest.mark.parametrize("value", ["bad", "KB", "9" * 400, "5087424;x", "[", "\u200b"])
@pytest.mark.parametrize("go", ["", "install"])
def test_a_bad_override_of_the_guard_is_an_error_of_the_form(
    client: Client, operator: User, resource_group: ResourceGroup, value: str, go: str
) -> None:
    from tests.factories import VirtualMachineFactory
    from updates.models import VmUpdateState

    vm = VirtualMachineFactory(resource_group=resource_group)
    VmUpdateState.objects.create(vm=vm, last_assessed_at="2026-11-01T00:00Z")
    client.force_login(operator)
    for where in (
        reverse("updates:install", args=[vm.pk]),
        f"{reverse('updates:bulk-create')}?vm={vm.pk}&kind=installation",
    ):
        answer = client.post(where, form_of(vm.pk, guard_overrides=value, go=go, kind="installation"))
        assert answer.status_code < 500, where


def test_pages_and_exports_are_their_readers_own(client: Client, reader: User) -> None:
    client.force_login(reader)
    for where in (LIST, reverse("vms:vm-export"), "/calendar/", "/no-such-page/"):
        assert client.get(where)["Cache-Control"] == "private, no-cache", where
    client.logout()
    assert "no-cache" in client.get("/accounts/login/")["Cache-Control"]


def test_a_refused_request_is_one_line() -> None:
    for name, level in (("django.security.DisallowedHost", logging.ERROR), ("django.request", logging.WARNING)):
        record = logging.LogRecord(name, level, "", 1, "Invalid", (), (ValueError, ValueError("x"), None))
        assert without_traceback(record)
        assert record.exc_info is None
    kept = logging.LogRecord("django.request", logging.ERROR, "", 1, "Error", (), (ValueError, ValueError("x"), None))
    assert without_traceback(kept)
    assert kept.exc_info


def sign_in(client: Client, password: str, address: str) -> Any:
    return client.post("/accounts/login/", {"login": "reader", "password": password}, REMOTE_ADDR=address)


def test_wrong_passwords_lock_out_their_own_address_alone(reader: User) -> None:
    reader.set_password("a long enough password")
    reader.save()
    stranger = Client()
    for _ in range(7):
        assert sign_in(stranger, "wrong", "198.51.100.7").status_code in {200, 429}
    assert sign_in(stranger, "a long enough password", "198.51.100.7").status_code in {200, 429}, "locked out"
    assert sign_in(Client(), "a long enough password", "192.0.2.1").status_code == 302
    call_command("lift_lockout", verbosity=0)
    assert sign_in(Client(), "a long enough password", "198.51.100.7").status_code == 302
