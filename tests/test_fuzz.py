"""Hostile requests to every address: no input of any kind is answered with 5xx.

`FUZZ_SECONDS` (10) is how long each reader knocks, `FUZZ_SEED` what with: a longer run is
`FUZZ_SECONDS=600 FUZZ_SEED=7 python -m pytest -n 0 tests/test_fuzz.py -s`.
"""

from __future__ import annotations

import os
import random
import sys
import time
import uuid
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import pytest
from django import forms
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.test import Client
from django_filters import FilterSet

from tests.doors import ADMIN_DOORS, BUTTONS, DOORS, address, admin_address
from tests.factories import OperationFactory, PatchFactory, ReleaseFactory, VirtualMachineFactory
from ui.http import ServedRequest
from updates.models import Operation, VmUpdateState
from updates.services.workers import hear
from vms.models import ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db
SECONDS = float(os.environ.get("FUZZ_SECONDS", "10"))
SEED = int(os.environ.get("FUZZ_SEED", "20261127"))
TEXTS = [
    "", " ", "\0", "a\0b", "\ufeff", "\u200b", "\u202e", "\ud7ff", "\ufffd", "𝟙", "０１", "é" * 300, "x" * 70_000, "%00", "%ff", "%",
    "'", "' OR 1=1 --", '"', "<script>", "{{7*7}}", "${x}", "../../etc/passwd", "\r\nSet-Cookie: a=b", "\\", "\t", "on", "true",
    "0", "-1", "1", "2", "60", "9" * 19, "9" * 400, "-" + "9" * 30, "1e999", "NaN", "Infinity", "-0", "1.5", "0x10", "1_000", "٣",
    "9999-12-31", "0001-01-01", "0000-00-00", "2026-02-30", "2026-12-31T23:59", "10000-01-01", "24:00", "23:59", "99:99", "-1:00",
    "Mars/Phobos", "UTC", "Etc/GMT+12", "../UTC", "Asia/Tokyo", "KB5087424", "KB" + "9" * 200, "KB\u200b5087424", "5087424;5087425",
    "[]", "{}", "[" * 3_000, '{"a":' * 3_000, "null", "http://[", "//[::", "javascript:alert(1)", "https://x/?" + "a=1&" * 50,
    str(uuid.UUID(int=0)), "00000000", "Day", "12Months day30", "Month Last Day", "Week " * 40, "2Weeks Funday", "a=b", "=", "a:b:c", ",", ";" * 600,
]  # fmt: skip
HEADERS = [
    "HX-Request", "HX-Target", "HX-Current-URL", "HX-Boosted", "HX-Trigger", "HX-Prompt", "HX-History-Restore-Request",
    "HX-Current-URL-URI-AutoEncoded", "Accept-Language", "Accept-Encoding", "Accept", "User-Agent", "Referer", "Origin", "If-None-Match",
    "If-Modified-Since", "Range", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Host", "X-Request-ID",
    "X-Correlation-ID", "X-HTTP-Method-Override", "Authorization", "Cookie",
]  # fmt: skip
COOKIES = [
    "sessionid",
    "csrftoken",
    "messages",
    "watching",
    "theme",
    "density",
    "timezone",
    "timezone_chosen",
    "django_language",
]
TYPES = [
    "text/plain", "application/json", "application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=nonsense",
    "application/x-www-form-urlencoded; charset=base64", "application/x-www-form-urlencoded; charset=utf-16", "multipart/form-data",
    "multipart/form-data; boundary=x", "multipart/form-data; boundary=" + "x" * 300, "multipart/form-data; boundary=x; charset=undefined",
    "multipart/mixed; boundary=x", ";", "/", "",
]  # fmt: skip
BODIES = [
    b"", b"\0", b"a=%00", b"a=%ff%fe&kb=%c3%28", b"%", b"&&&===", b"a=1&" * 3_000, b"\xff\xfe" * 50, b"{" * 2_000,
    b"--x\r\nContent-Disposition: form-data; name=\"kb\"\r\n\r\n\0\r\n--x--\r\n", b"--x\r\nContent-Disposition: form-data; name=",
    b"--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"\0.json\"\r\nContent-Type: application/json; charset=nope\r\n\r\n[]\r\n--x--\r\n",
    b"--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\nContent-Transfer-Encoding: base64\r\n\r\n===!\r\n--x--\r\n",
    b"--x\r\nContent-Disposition: form-data; filename*=nope''%ff; name=\"file\"\r\n\r\nx\r\n--x--\r\n", b"--x--",
]  # fmt: skip
FILES = [
    b"", b"\0", b"[]", b"{}", b"null", b"1", b'"x"', b"\xff\xfe\x00", b"\xef\xbb\xbf[]", b"[" * 100_000, b'{"value":' * 50_000, b'[{"id": 1}]',
    b'[{"id": "\\ud800", "name": "\\u0000", "tags": {"a": null}}]', b'{"value": [null, 1, "x", []]}', b"a,b\n1", b'a,b\n"', b"1e400", b"[1e400, NaN]",
    b'[{"product_line": "WindowsServer2022", "month": "9999-12", "type": "baseline", "kb_number": "9", "released_on": "9999-12-31"}]',
    b'[{"kb_number": ' + b"9" * 5_000 + b"}]", b"\r" * 9_000, b"kb_number,title\n\0,\0", b"PK\x03\x04", b"\x1f\x8b\x08",
    b'[{"id": "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/x\\u0000", "location": 7}]',
    b'{"value":[{"id":"/subscriptions/s/resourceGroups/r/providers/Microsoft.Compute/virtualMachines/\\ud83d","name":"\\ud83d","location":"x","properties":{}}]}',
]  # fmt: skip


# What a sound form brings, so that a hostile field is met beside good ones.
SOUND = {
    "classifications": "Security",
    "reboot_setting": "IfRequired",
    "maximum_minutes": "60",
    "request_id": str(uuid.UUID(int=7)),
}


def every_subclass(of: type) -> Iterator[type]:
    for one in of.__subclasses__():
        yield one
        yield from every_subclass(one)


def field_names() -> list[str]:
    """Every field of every form and every parameter of every list, and what views read themselves."""
    names = {"sort", "page", "after", "before", "go", "step", "next", "q", "vm", "tab", "period", "request_id", "session", "o", "p", "e", "action",
             "_selected_action", "_popup", "_to_field", "_facets", "app_label", "model_name", "field_name", "term", "_changelist_filters", "go-x", "kb"}  # fmt: skip
    for form in every_subclass(forms.BaseForm):
        names |= set(getattr(form, "base_fields", {}))
    for filters in every_subclass(FilterSet):
        names |= set(getattr(filters, "base_filters", {}))
    return sorted(names)


class Fuzz:
    """Requests from a seed."""

    def __init__(self, client: Client, seed: int) -> None:
        self.client = client
        self.random = random.Random(seed)
        self.names = field_names()
        self.failures: list[str] = []
        self.count = 0

    def text(self) -> str:
        if self.random.random() < 0.1:
            return "".join(
                chr(self.random.choice((self.random.randrange(1, 256), self.random.randrange(1, 0xD7FF))))
                for _ in range(8)
            )
        return self.random.choice(TEXTS)

    def fields(self, sent: dict[str, Any]) -> dict[str, Any]:
        chosen = self.random.sample(self.names, self.random.randrange(1, 12))
        found = {name: [self.text() for _ in range(self.random.choice((1, 1, 1, 3)))] for name in chosen}
        return found | {name: value for name, value in sent.items() if self.random.random() < 0.7}

    def knock(self, where: str, sent: dict[str, Any]) -> None:
        """One hostile request; what it changed is taken back."""
        kind = self.random.randrange(8)
        method = self.random.choice(("get", "get", "post", "post", "post", "put", "head", "options"))
        options: dict[str, Any] = {"headers": {}}
        if kind in {0, 1}:
            where += "?" + "&".join(
                f"{n}={self.random.choice((self.text(), '%00', '%ff%fe', '%c3%28'))[:900]}"
                for n in self.random.sample(self.names, 4)
            )
        if kind in {2, 3}:
            options["headers"] = {name: self.text()[:4_000] for name in self.random.sample(HEADERS, 3)}
            options["headers"] = {
                name: value.encode("utf-8", "replace").decode("latin-1") for name, value in options["headers"].items()
            }
        if kind == 4:
            options["headers"]["Cookie"] = "; ".join(
                f"{name}={self.random.choice((self.text()[:200], chr(34) + chr(92) + '000' + chr(34)))}"
                for name in self.random.sample(COOKIES, 2)
            )
        if kind == 5:
            method, body, content_type = "post", self.random.choice(BODIES), self.random.choice(TYPES)
            call = lambda: self.client.generic("POST", where, body, content_type=content_type)  # noqa: E731
        elif method == "get":
            call = lambda: self.client.get(where, self.fields({}) if "?" not in where else None, **options)  # noqa: E731
        elif method == "post":
            data = self.fields(sent)
            for name in ("file", "inventory", "document") if kind in {6, 7} else ():
                data[name] = SimpleUploadedFile(
                    self.random.choice(("a.json", "a.csv", "x" * 300, "é.json")),
                    self.random.choice(FILES),
                    content_type=self.random.choice(TYPES),
                )
            call = lambda: self.client.post(where, data, **options)  # noqa: E731
        else:
            call = lambda: getattr(self.client, method)(where, **options)  # noqa: E731
        self.ask(method, where, call)

    def ask(self, method: str, where: str, call: Any) -> None:
        self.count += 1
        try:
            with transaction.atomic():
                answer = call()
                if hasattr(answer, "streaming_content"):
                    b"".join(answer.streaming_content)
                transaction.set_rollback(True)
        except Exception as error:
            self.failures.append(f"{method} {where[:150]}: {error!r:.200}")
            return
        if answer.status_code >= 500:
            error = (answer.exc_info or (None, None))[1] if hasattr(answer, "exc_info") else None
            self.failures.append(f"{method} {where[:150]}: {answer.status_code} {error!r:.300}")


@pytest.mark.parametrize("who", ["anonymous", "operator", "chief", "staff"])
def test_no_input_is_answered_with_an_error_of_ours(
    request: pytest.FixtureRequest,
    resource_group: ResourceGroup,
    operator: User,
    who: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vm: VirtualMachine = VirtualMachineFactory(resource_group=resource_group)
    operation: Operation = OperationFactory(vm=vm)
    PatchFactory()
    ReleaseFactory()
    # As the web server makes requests (hotpatch_portal.wsgi): Django's own would fail on a content type before any middleware.
    monkeypatch.setattr("django.test.client.WSGIRequest", ServedRequest)
    client = Client(raise_request_exception=False)
    if who != "anonymous":
        client.force_login(operator if who == "operator" else request.getfixturevalue(who))
    VmUpdateState.objects.create(vm=vm, last_assessed_at="2026-11-01T00:00Z")  # so that the wizard has a review
    hear(name="worker-1@here")  # or not to be ready would be 503
    places = [(address(name, vm, operation), SOUND | BUTTONS.get(name, {})) for _method, name in DOORS]
    if who == "staff":
        places += [
            (admin_address(door), {"_save": "1"}) for door in ADMIN_DOORS if "logout" not in door and _has_row(door)
        ]
    fuzz = Fuzz(client, SEED)
    ends_at = time.monotonic() + SECONDS
    cookies = client.cookies.copy()
    for where, sent in cycle(places):
        if time.monotonic() > ends_at:
            break
        client.cookies = cookies.copy()
        fuzz.knock(where, sent)
    with capsys.disabled():
        sys.stdout.write(f"\n{who}: {fuzz.count} hostile requests, {len(fuzz.failures)} answered with 5xx\n")
    assert not fuzz.failures, "\n".join(sorted(set(fuzz.failures)))
    assert fuzz.count > 100


def _has_row(door: str) -> bool:
    try:
        admin_address(door)
    except AttributeError:  # nothing to look at
        return False
    return True
