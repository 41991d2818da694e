"""No input of any kind is answered with 5xx: every address, form field, query parameter, header and upload, at random.

FUZZ_ROUNDS makes it longer (the suite takes 1), FUZZ_SEED different. Every request is undone, so that each of them meets the
same world; a failure names the request, and its seed finds it again.
"""

from __future__ import annotations

import copy
import io
import json
import os
import random
import re
import traceback
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, quote_from_bytes, urlencode, urlsplit
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, transaction
from django.forms.forms import BaseForm
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation

from tests import test_doors as doors
from tests.factories import OperationFactory, PatchFactory, ReleaseFactory, VirtualMachineFactory
from ui.http import ServedRequest
from updates.models import InstalledPatch, VmUpdateState
from vms.filters import VmFilter
from vms.models import ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parents[1]
ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "1"))
SEED = int(os.environ.get("FUZZ_SEED", "14"))

TEXTS = [
    "", " ", "\0", "a\0b", "\ud800", "\udcff", "￾", "\x1b[0m", "\u202e", "\u200b", "🩹", "é", "日本語", "٣", "²", "１２", "½", "Ⅷ",
    "'", '"', "' OR 1=1 --", "%", "%s", "%00", "%ff", "\\", "{{ x }}", "{0}", "<script>", "a\r\nX: y", "\n", "\t", "../../etc/passwd",
    "//", "http://[", "javascript:alert(1)", "//evil.example/", "/\\evil", "mailto:", "=1+1", "(", "[", "*", "?(", "a" * 300, "a" * 20_000,
    "-", "null", "None", "true", "on", "all", "[]", "{}", '{"a":', "[" * 3_000, '{"a":' * 3_000, "e30=", "AAAA", "a:b:c", ":" * 50, "," * 500,
    "KB5034439", "KB", "KB" + "9" * 400, "kb5034439, kb5034440", "2024-01 B", "Etc/../..", "Europe/Berlin", "Asia/Tokyo\0", "ja", "xx-yy",
]  # fmt: skip
NUMBERS = [
    "0", "-1", "1", "2", "007", "1e400", "1e5", "1.5", "NaN", "Infinity", "-Infinity", "0x10", "1_000", str(2**31), str(2**31 - 1), str(2**63), str(2**63 - 1),
    str(-(2**63)), str(2**64), "9" * 30, "9" * 5_000, "-" + "9" * 40, "0." + "0" * 500 + "1",
]  # fmt: skip
DATES = [
    "9999-12-31", "0001-01-01", "0000-00-00", "2026-02-30", "1900-02-29", "10000-01-01", "-0001-01-01", "99999999", "2026-W53-7", "2026-11",
    "9999-12-31T23:59", "0001-01-01T00:00", "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00+14:00", "9999-12-31 23:59-12:00", "2026-03-29T02:30",
    "24:00", "23:59", "00:00", "99:99", "12:60", "-1:00", "12:00:61", "PT1H", "P999999999D", "P99999999999999Y", "1 day", "999999999 days, 0:00:00",
]  # fmt: skip
UUIDS = [
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "not-a-uuid",
    "{" + "0" * 32 + "}",
    "urn:uuid:" + "1" * 32,
]
VALUES = TEXTS + NUMBERS + DATES + UUIDS
HEADERS = {
    "HX-Request": ["true", "false", "\0"],
    "HX-Boosted": ["true", "x"],
    "HX-Target": VALUES,
    "HX-Trigger": VALUES,
    "HX-Trigger-Name": VALUES,
    "HX-Prompt": VALUES,
    "HX-History-Restore-Request": ["true"],
    "HX-Current-URL": [*VALUES, "http://testserver/\0", "http://testserver:99999999/", "http://[::1", "http://testserver/?a=%ff", "https://[::1%eth0]/"],
    "HX-Current-URL-URI-AutoEncoded": ["true"],
    "Triggering-Event": ["{", "[" * 3_000, "null", "1", '"\\ud800"', "NaN"],
    "Triggering-Event-URI-AutoEncoded": ["true"],
    "Accept-Language": [*VALUES, "ja;q=9", "ja;q=" + "9" * 300, "*;q=0", ",".join(["x-y"] * 500), "zh-" + "a" * 500],
    "Accept-Encoding": [*VALUES, "gzip;q=x", "*"],
    "Accept": VALUES,
    "User-Agent": VALUES,
    "Referer": [*VALUES, "http://[/"],
    "Origin": [*VALUES, "null", "http://[/"],
    "Host": [*VALUES, "testserver:x", "[::1", "testserver.", "testserver:0"],
    "X-Forwarded-For": [*VALUES, "1.2.3.4, 5.6.7.8", "::1", "[::1]:80", ", ,"],
    "X-Forwarded-Proto": VALUES,
    "X-Forwarded-Host": VALUES,
    "X-Request-ID": VALUES,
    "X-Correlation-ID": VALUES,
    "X-CSRFToken": VALUES,
    "Authorization": VALUES,
    "If-Modified-Since": [*VALUES, "Thu, 01 Jan 0001 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"],
    "If-Unmodified-Since": VALUES,
    "If-None-Match": [*VALUES, '"', 'W/"x'],
    "If-Match": VALUES,
    "Range": [*VALUES, "bytes=9-1", "bytes=-" + "9" * 50],
    "Cookie": [
        "\0", "sessionid=\0", "sessionid=" + "a" * 5_000, "sessionid='", "sessionid=\ud800", "csrftoken=\0", "csrftoken=é", "csrftoken=" + "a" * 9_000,
        "messages=\0", "messages=[[", "messages=" + "[" * 3_000, "messages=a:b:c", "messages=W10:1:x", "django_language=\0", "django_language=" + "x" * 900,
        "time_zone=\0", "theme=\0", "tz=../..", "=", ";;;", "a" * 9_000, "é=é", "\"", "x=\"\\400\"",
    ],
}  # fmt: skip
CONTENT_TYPES = [
    "application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=hex", "application/x-www-form-urlencoded; charset=utf-16",
    "application/x-www-form-urlencoded; charset=nothing", "application/x-www-form-urlencoded; charset=é", "application/json", "text/plain", "", "é",
    "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=x", "multipart/form-data; boundary=é",
    "multipart/form-data; boundary=" + "x" * 300, "multipart/form-data; boundary=x; charset=hex", "multipart/form-data; boundary=x; charset=idna",
    "multipart/form-data; boundary*=utf-8''x", "multipart/mixed; boundary=x", "a" * 3_000, "application/x-www-form-urlencoded; charset=punycode",
]  # fmt: skip
PART = b'--x\r\nContent-Disposition: form-data; name="%b"%b\r\n%b\r\n%b\r\n'
NAMES = [
    "f.csv", "f.json", "f.txt", "", ".", "..", "/", "a" * 300, "\0.csv", "é.csv", "日本.json", "a\nb.csv", "C:\\x\\f.csv", "../f.csv", "%00", '".csv',
]  # fmt: skip


@dataclass
class Form:
    """A form of a page: where it goes, and what it would send as it stands."""

    action: str
    method: str
    fields: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    buttons: list[tuple[str, str]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


class Page(HTMLParser):
    """The forms of a page, and where its links lead."""

    def __init__(self, path: str, html: str) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: set[str] = set()
        self.path = path
        self._select = ""
        self._by_id: dict[str, Form] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, pairs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in pairs}
        if tag == "form":
            self.forms.append(Form(given.get("action") or self.path, given.get("method", "get").lower()))
            self._by_id[given.get("id", "")] = self.forms[-1]
        self.links |= {
            given[name] for name in ("href", "hx-get", "hx-post") if given.get(name, "").startswith(("/", "?"))
        }
        form = self._by_id.get(given.get("form", ""), self.forms[-1] if self.forms else None)
        name = given.get("name", "")
        if tag == "option" and self._select and form and (given.get("value") is not None):
            if "selected" in given or not form.fields[self._select]:
                form.fields[self._select] = [given.get("value", "")]
            return
        if not (name and form):
            return
        kind = given.get("type", "text")
        if tag == "button":
            form.buttons.append((name, given.get("value", "")))
        elif tag == "select":
            self._select = name
            form.fields[name] = []
        elif tag == "textarea":
            form.fields[name] = [""]
        elif tag == "input" and kind == "submit":
            form.buttons.append((name, given.get("value", "")))
        elif tag == "input" and kind == "file":
            form.files.append(name)
        elif tag == "input" and (kind not in {"checkbox", "radio"} or "checked" in given):
            form.fields[name].append(given.get("value", "on"))
        elif tag == "input":
            form.fields.setdefault(name, [])

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = ""


def forms_of(kind: type) -> Iterator[type]:
    """Every form class of the portal."""
    for one in kind.__subclasses__():
        if one.__module__.partition(".")[0] in {"ui", "vms", "updates", "hotpatch_portal"}:
            yield one
        yield from forms_of(one)


def parameters() -> set[str]:
    """What the code reads by name, and the names of the filters and of every form's fields."""
    found = set(VmFilter.base_filters)
    found |= {name for form in forms_of(BaseForm) for name in form.base_fields}  # type: ignore[attr-defined]
    for app in ("ui", "vms", "updates", "hotpatch_portal"):
        for path in (ROOT / app).rglob("*.py"):
            found |= set(re.findall(r'(?:\.get|\.getlist|GET|POST|data|QUERY)[(\[]"(\w{1,40})"', path.read_text()))
    return found | {
        "page",
        "p",
        "q",
        "o",
        "e",
        "all",
        "_popup",
        "_to_field",
        "next",
        "after",
        "name__exact",
        "id__in",
        "action",
        "_selected_action",
    }


class Fuzzer:
    """Sends requests, undoes each, and keeps what was answered with 5xx."""

    def __init__(self, client: Client, dice: random.Random) -> None:
        self.client = client
        self.dice = dice
        self.sent = 0
        self.statuses: dict[int, int] = defaultdict(int)
        self.crashes: dict[str, str] = {}

    def send(self, method: str, path: str, body: bytes | dict[str, Any] = b"", **more: Any) -> Any:
        """Send one, as the client sends it or with `headers` that no browser would send."""
        extra = {
            f"HTTP_{name.upper().replace('-', '_')}": wsgi(value) for name, value in more.get("headers", {}).items()
        }
        if "HTTP_COOKIE" in extra:
            kept = "; ".join(f"{key}={one.value}" for key, one in self.client.cookies.items())
            extra["HTTP_COOKIE"] = (
                f"{kept}; {extra['HTTP_COOKIE']}" if self.dice.random() < 0.5 else extra["HTTP_COOKIE"]
            )
        cookies = copy.deepcopy(self.client.cookies)
        with transaction.atomic():
            point = transaction.savepoint()
            if isinstance(body, dict):
                answer = getattr(self.client, method)(path, body, **extra)
            else:
                kind = wsgi(more.get("content_type", CONTENT_TYPES[0]))
                answer = self.client.generic(method.upper(), path, body, content_type=kind, **extra)
                if "CONTENT_TYPE" in more:
                    answer = self.client.generic(method.upper(), path, body, **extra)
            if getattr(answer, "streaming", False):
                for _ in answer.streaming_content:
                    pass
            connection.needs_rollback = False
            transaction.savepoint_rollback(point)
        self.client.cookies = cookies
        translation.deactivate()
        timezone.deactivate()
        self.sent += 1
        self.statuses[answer.status_code] += 1
        if answer.status_code >= 500:
            said = "".join(traceback.format_exception(*answer.exc_info)[-6:]) if answer.exc_info else "no exception"
            where = re.findall(r'File "([^"]+)", line (\d+)', said)
            kind = said.strip().splitlines()[-1][:100]
            ours = next(
                (f"{path}:{line}" for path, line in reversed(where) if str(ROOT) in path and ".venv" not in path),
                where[-1:] or "",
            )
            key = f"{ours} {re.sub(r'[0-9]+', '0', kind)[:60]}"
            shown = {"body": str(body)[:400], **{name: str(value)[:200] for name, value in more.items()}}
            self.crashes.setdefault(key, f"{method} {path[:300]} {shown}\n{said[-1500:]}")
        return answer

    def value(self) -> str:
        """One hostile value."""
        if self.dice.random() < 0.06:
            return "".join(
                chr(
                    self.dice.choice(
                        [self.dice.randrange(32, 127), self.dice.randrange(0x800), self.dice.randrange(0xD800)]
                    )
                )
                for _ in range(9)
            )
        return self.dice.choice(VALUES)

    def query(self, names: list[str]) -> str:
        """A query string of some of these parameters."""
        chosen = self.dice.sample(names, min(len(names), self.dice.randrange(1, 5)))
        return "&".join(f"{quote(name)}={self.encoded(self.value())}" for name in chosen)

    def encoded(self, text: str) -> str:
        """Percent-encoded, now and then as bytes that are no UTF-8, or not at all."""
        raw = text.encode("utf-8", "surrogatepass")
        if self.dice.random() < 0.05:
            raw += self.dice.choice([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80"])
        return quote_from_bytes(raw)

    def headers(self) -> dict[str, str]:
        """Some headers."""
        return {
            name: self.dice.choice(HEADERS[name])
            for name in self.dice.sample(sorted(HEADERS), self.dice.randrange(1, 4))
        }

    def mutated(self, form: Form, names: list[str]) -> list[tuple[str, str]]:
        """What the form would send, with a few values replaced, repeated, added or left out."""
        pairs = [(name, value) for name, values in form.fields.items() for value in values]
        if form.buttons:
            pairs.append(self.dice.choice(form.buttons))
        known = sorted(set(form.fields) | {name for name, _value in form.buttons}) or names
        for _ in range(self.dice.choice([1, 1, 2, 3])):
            name = self.dice.choice(known if self.dice.random() < 0.9 else names)
            if self.dice.random() < 0.85:
                pairs = [pair for pair in pairs if pair[0] != name]
            if self.dice.random() < 0.95:
                pairs.append((name, self.value()))
        return pairs

    def upload(self) -> SimpleUploadedFile:
        """A file with something wrong in it."""
        return SimpleUploadedFile(
            "f", self.content(), content_type=self.dice.choice(["text/csv", "application/json", "\0", ""])
        )

    def content(self) -> bytes:
        """The content of a file."""
        dice = self.dice
        row = {name: self.json_value() for name in dice.sample(ROW_NAMES, 6)}
        choices = [
            lambda: dice.randbytes(200),
            lambda: b"",
            lambda: b"\xff\xfe" + dice.randbytes(20),
            lambda: b"\0" * 50,
            lambda: json.dumps([row]).encode(),
            lambda: json.dumps(
                {"releases": [row], "machines": [row], "updates": [row], "product": self.json_value()}
            ).encode(),
            lambda: json.dumps(row).encode(),
            lambda: b"[" * 100_000,
            lambda: b'{"a":' * 100_000,
            lambda: b"[" + b"9" * 5_000 + b"]",
            lambda: b'["\\ud800"]',
            lambda: b"[NaN, Infinity, 1e999]",
            lambda: (
                "\n".join([",".join(row), ",".join(str(value).replace("\n", " ") for value in row.values())])
            ).encode("utf-8", "surrogatepass"),
            lambda: (";".join(row) + "\n" + ";".join(str(value) for value in row.values())).encode(
                "utf-16", "surrogatepass"
            ),
            lambda: b"name,name\n" + b'"' * 1_000,
            lambda: b"a," * 50_000,
            lambda: zipped(),
        ]
        return dice.choice(choices)()

    def json_value(self) -> Any:
        """A value of some JSON type."""
        return self.dice.choice(
            [self.value(), self.value(), 10**40, -1, 1.5, None, True, [], {}, [self.value()], {"a": self.value()}]
        )


def wsgi(value: str) -> str:
    """As a WSGI server hands it on: one character for each byte."""
    return value.encode("utf-8", "surrogatepass").decode("latin-1")


def zipped() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("xl/workbook.xml", "<")
    return packed.getvalue()


ROW_NAMES = [
    "name", "kb", "kb_number", "type", "released_on", "product", "product_line", "build", "channel", "audience", "evidence", "title", "version",
    "classification", "resource_group", "subscription", "location", "image", "patch_mode", "assessment_mode", "reboot_setting", "time_zone", "tags", "vm_id",
    "os_version", "hotpatch", "power_state", "connection", "corrects", "update_id", "published_at", "supersedes", "installed_kbs", "windows", "region", "size",
]  # fmt: skip


@pytest.fixture
def cast(outsider: User, reader: User, operator: User, owner: User, chief: User, staff: User) -> dict[str, User]:
    return {"operator": operator, "owner": owner, "staff": staff, "reader": reader}


@dataclass
class World:
    """Something to look at at every address."""

    places: list[str]
    cast: dict[str, User]


@pytest.fixture
def world(resource_group: ResourceGroup, cast: dict[str, User], client: Client) -> World:
    vm: VirtualMachine = VirtualMachineFactory(resource_group=resource_group)
    VmUpdateState.objects.create(vm=vm, last_assessed_at="2026-11-01T00:00Z")
    operation = OperationFactory(vm=vm)
    PatchFactory()
    ReleaseFactory()
    InstalledPatch.objects.all()
    VirtualMachine.objects.filter(pk=vm.pk).update(reboot_setting="Never")
    client.force_login(cast["staff"])
    places = [doors.address(name, vm, operation) for name in sorted({name for _method, name in doors.DOORS})]
    for door in doors.ADMIN_DOORS:
        try:
            places.append(doors.admin_address(door))
        except AttributeError:  # no row of it in this world
            continue
    return World(places=[place for place in dict.fromkeys(places) if "logout" not in place], cast=cast)


def pages(fuzzer: Fuzzer, places: list[str]) -> Iterator[tuple[str, Page]]:
    for place in places:
        answer = fuzzer.send("get", place)
        html = answer.content.decode(errors="replace") if not answer.streaming else ""
        yield place, Page(place.partition("?")[0], html)


@pytest.mark.parametrize("who", ["staff", "operator", "anonymous"])
def test_no_input_is_answered_with_5xx(
    who: str, world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django.test.client.WSGIRequest", ServedRequest)  # as wsgi.py has it
    client = Client(raise_request_exception=False)
    if who != "anonymous":
        client.force_login(world.cast[who])
    dice = random.Random(f"{SEED} {who}")
    fuzzer = Fuzzer(client, dice)
    share = {"staff": 1.0, "operator": 0.5, "anonymous": 0.15}[who]
    everything = sorted(parameters())
    places = [place for place in world.places if who == "staff" or "/admin/" not in place]
    for place, page in list(pages(fuzzer, places)):
        linked = {name for link in page.links for name, _value in parse_qsl(urlsplit(link).query)}
        names = (
            sorted(linked | {name for form in page.forms if form.method == "get" for name in form.fields}) or everything
        )
        for turn in range(max(1, round(ROUNDS * 6 * share))):
            known = names if turn % 2 else everything
            fuzzer.send("get", f"{place.partition('?')[0]}?{fuzzer.query(known)}")
            fuzzer.send(dice.choice(["get", "get", "post"]), place, headers=fuzzer.headers())
            form = dice.choice([form for form in page.forms if form.method == "post"] or [Form(place, "post")])
            pairs = fuzzer.mutated(form, everything)
            if turn % 3 == 0:  # hidden fields, and steps that the page did not show
                pairs += [(name, fuzzer.value()) for name in dice.sample(everything, 8)]
            if form.files or dice.random() < 0.1:
                upload(fuzzer, form, pairs)
            else:
                body = "&".join(f"{quote(name)}={fuzzer.encoded(value)}" for name, value in pairs)
                action = form.action if form.action.startswith("/") else place
                fuzzer.send("post", action, body.encode(), headers=fuzzer.headers() if dice.random() < 0.2 else {})
            if turn % 4 == 0:
                garbage(fuzzer, place, everything)
    with capsys.disabled():
        print(f"\n{who}: {fuzzer.sent} requests, {dict(sorted(fuzzer.statuses.items()))}")  # noqa: T201 (the count is asked for)
    assert not fuzzer.crashes, "\n\n".join(f"=== {key}\n{said}" for key, said in fuzzer.crashes.items())
    assert fuzzer.sent > 300 * share


def upload(fuzzer: Fuzzer, form: Form, pairs: list[tuple[str, str]]) -> None:
    """Send the form as multipart, with a file of any name."""
    parts = [PART % (name.encode(), b"", b"", value.encode("utf-8", "surrogatepass")) for name, value in pairs]
    for name in form.files or ["file"]:
        called = fuzzer.dice.choice(NAMES).encode()
        parts.append(
            PART % (name.encode(), b'; filename="' + called + b'"', b"Content-Type: text/csv\r\n", fuzzer.content())
        )
    body = b"".join(parts) + b"--x--\r\n"
    action = form.action if form.action.startswith("/") else "/"
    fuzzer.send("post", action, body, content_type="multipart/form-data; boundary=x")


def garbage(fuzzer: Fuzzer, place: str, names: list[str]) -> None:
    """Bodies that are no form, addresses that are none."""
    dice = fuzzer.dice
    many = "&".join(f"vm={number}" for number in range(3_000)).encode()
    broken = PART % (
        b"a",
        dice.choice([b"", b'; filename="x"']),
        dice.choice([b"", b"Content-Transfer-Encoding: base64\r\n", b"Content-Type: \0\r\n"]),
        b"!!!",
    )
    body = dice.choice(
        [
            b"",
            dice.randbytes(100),
            b"%",
            b"&" * 500,
            b"=" * 500,
            b"a=%ff&b=%00",
            many,
            b"[" * 5_000,
            broken,
            broken + b"--x--",
            b"--x\r\n" * 50,
        ]
    )
    fuzzer.send(
        "post",
        place,
        body,
        content_type=dice.choice(CONTENT_TYPES),
        headers=fuzzer.headers() if dice.random() < 0.3 else {},
    )
    path = place.partition("?")[0]
    cut = dice.randrange(len(path)) + 1
    fuzzer.send("get", path[:cut] + fuzzer.encoded(fuzzer.value()) + dice.choice(["", "/", path[cut:]]))
    broken_id = re.sub(
        r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+", lambda _match: fuzzer.encoded(dice.choice(NUMBERS + UUIDS + ["\0"])), path
    )
    fuzzer.send(dice.choice(["get", "post"]), broken_id, urlencode({dice.choice(names): "x"}).encode())
    fuzzer.send(dice.choice(["put", "delete", "options", "head", "patch", "trace", "get"]), place)


@pytest.mark.parametrize(
    ("what", "status"),
    [
        ("path", 400), ("query", 400), ("to field", 400), ("cookie", 400), ("address", 400), ("form", 400), ("charset", 400), ("boundary", 400), ("fields", 400),
        ("overrides", 422), ("language", 200),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(
    what: str, status: int, world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django.test.client.WSGIRequest", ServedRequest)
    vm = VirtualMachine.objects.get()
    machine, install = f"/virtual-machines/{vm.pk}", reverse("updates:install", args=[vm.pk])
    form = "application/x-www-form-urlencoded"
    plan = {
        "step": "review",
        "go": "install",
        "classifications": "Security",
        "reboot_setting": "IfRequired",
        "maximum_minutes": "60",
    }
    answer = {
        "path": lambda: client.get(f"{machine}%00/"),
        "to field": lambda: client.get("/admin/vms/connection/1/delete/?_to_field="),
        "query": lambda: client.get("/virtual-machines/?q=%00"),
        "cookie": lambda: client.get("/virtual-machines/", headers={"Cookie": "sessionid=\0"}),
        "address": lambda: client.get("/virtual-machines/", headers={"HX-Current-URL": "http://[", "HX-Request": "true"}),
        "form": lambda: client.post(reverse("updates:lift", args=[vm.pk]), {"kb": "5034439\0"}),
        "charset": lambda: client.generic("POST", install, b"a=b", content_type=f"{form}; charset=hex"),
        "boundary": lambda: client.post(install, b"x", content_type="multipart/form-data; boundary="),
        "fields": lambda: client.post(install, {f"f{number}": "x" for number in range(2_000)}),
        "overrides": lambda: client.post(install, plan | {"guard_overrides": "bad", "request_id": str(uuid4())}),
        "language": lambda: client.get("/virtual-machines/", headers={"Accept-Language": "ja;q=9, *;q=x"}),
    }[what]()  # fmt: skip
    assert answer.status_code == status, answer.content.decode()[-500:]
    if status == 400:
        assert 'lang="ja"' in answer.content.decode()
