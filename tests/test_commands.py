"""No page shows a link or a button that would answer its reader 403: every role, every page, everything on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client

from tests.doors import DOORS, address
from tests.factories import OperationFactory, RoleAssignmentFactory, UserFactory, VirtualMachineFactory
from updates.models import Operation
from vms.choices import Role, Scope
from vms.models import ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db
PEOPLE = ("outsider", "reader", "operator", "owner", "owner_of_one", "chief", "clerk", "staff")
# What nobody follows here: it ends the session, or is no page of ours.
LEFT_ALONE = ("/accounts/logout/", "/accounts/sessions/end/", "/admin/")


@dataclass
class Form:
    """A form as a browser would send it: `buttons` are (formaction, name, value)."""

    action: str
    method: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    buttons: list[tuple[str, str, str]] = field(default_factory=list)


class Commands(HTMLParser):
    """Links and forms of a page, with what `form=` ties to a form from outside."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.forms: list[Form] = []
        self._by_id: dict[str, Form] = {}
        self._outside: list[tuple[str, str, dict[str, str]]] = []
        self._form: Form | None = None
        self.feed(html)
        for form_id, tag, attributes in self._outside:
            self._take(self._by_id[form_id], tag, attributes)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "a" and "href" in attributes:
            self.links.add(attributes["href"])
        elif tag == "form":
            self._form = Form(attributes.get("action", ""), attributes.get("method", "get"))
            self.forms.append(self._form)
            self._by_id[attributes.get("id", "")] = self._form
        elif tag in {"input", "button"}:
            if "form" in attributes:
                self._outside.append((attributes["form"], tag, attributes))
            elif self._form is not None:
                self._take(self._form, tag, attributes)

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None

    @staticmethod
    def _take(form: Form, tag: str, attributes: dict[str, str]) -> None:
        pair = attributes.get("name", ""), attributes.get("value", "")
        if tag == "button" and attributes.get("type", "submit") == "submit" and "disabled" not in attributes:
            form.buttons.append((attributes.get("formaction", ""), *pair))
        elif attributes.get("type") == "hidden":
            form.fields.append(pair)


@pytest.fixture
def people(
    outsider: User, reader: User, operator: User, owner: User, chief: User, staff: User, vm: VirtualMachine
) -> dict[str, User]:
    owner_of_one = UserFactory(username="owner_of_one")
    RoleAssignmentFactory(user=owner_of_one, role=Role.OWNER.value, scope=Scope.VM.value, vm=vm)
    clerk = UserFactory(username="clerk", is_staff=True)
    return {
        "outsider": outsider, "reader": reader, "operator": operator, "owner": owner, "owner_of_one": owner_of_one,
        "chief": chief, "clerk": clerk, "staff": staff,
    }  # fmt: skip


@pytest.fixture
def vm(resource_group: ResourceGroup) -> VirtualMachine:
    return VirtualMachineFactory(resource_group=resource_group)


@pytest.fixture
def operation(vm: VirtualMachine) -> Operation:
    return OperationFactory(vm=vm, installation=True, succeeded=True)


def answers(client: Client, user: User, page: str, html: str, seen: set[str]) -> dict[str, int]:
    """What every link and every button of a page answers; what they do is undone. What is in `seen` is left out."""
    commands, found = Commands(html), {}
    for link in commands.links:
        where = urljoin(page, link)
        if not urlsplit(where).netloc and not where.startswith(LEFT_ALONE) and where not in seen:
            found[where] = client.get(where).status_code
    for form in commands.forms:
        for formaction, name, value in form.buttons or [("", "", "")]:
            where = urljoin(page, formaction or form.action)
            if where.startswith(LEFT_ALONE):
                continue
            fields = dict(form.fields) | ({name: value} if name else {})
            command = f"{form.method} {where} {sorted(fields.items())}"
            if command in seen:
                continue
            with transaction.atomic():
                send = client.post if form.method == "post" else client.get
                found[command] = send(where, fields).status_code
                transaction.set_rollback(True)
            client.force_login(user)
    return found


@pytest.mark.parametrize("who", PEOPLE)
def test_nothing_on_any_page_answers_403(
    client: Client, people: dict[str, User], vm: VirtualMachine, operation: Operation, who: str
) -> None:
    client.force_login(people[who])
    seen: set[str] = set()
    refused, looked_at = [], 0
    for method, name in DOORS:
        if method != "get" or name in {"vms:vm-export", "account_logout"}:
            continue
        where = address(name, vm, operation)
        answer = client.get(where)
        if answer.status_code != 200 or answer.streaming:  # a file has no commands
            continue
        looked_at += 1
        html = answer.content.decode()
        for command, status in answers(client, people[who], where, html, seen).items():
            seen.add(command)
            if status == 403:
                refused.append(f"{name}: {command}")
    assert refused == []
    assert looked_at >= 8
    assert len(seen) >= 20


@pytest.mark.parametrize(
    ("who", "shown"),
    [
        ("outsider", {"Assess now", "Install updates now", "Roll back", "Update settings", "Create"}),
        ("reader", set()),
        ("operator", {"Assess now", "Install updates now", "Roll back"}),
        ("owner", {"Assess now", "Install updates now", "Roll back", "Update settings", "Create"}),
        ("owner_of_one", {"Assess now", "Install updates now", "Roll back", "Update settings"}),
        ("chief", {"Assess now", "Install updates now", "Roll back", "Update settings", "Create", "Import"}),
        ("clerk", set()),
        ("staff", {"Assess now", "Install updates now", "Roll back", "Update settings", "Create", "Import"}),
    ],
)
def test_the_list_offers_what_its_reader_may_do_somewhere(
    client: Client, people: dict[str, User], who: str, shown: set[str]
) -> None:
    client.force_login(people[who])
    html = client.get("/virtual-machines/").content.decode()
    bar = html.split('<div class="commandbar">')[1].split("</details>")[0]
    known = ("Assess now", "Install updates now", "Roll back", "Update settings", "Create", "Import")
    assert {words for words in known if words in bar} == shown


def test_the_menu_and_the_top_bar_cost_two_queries(
    client: Client, reader: User, staff: User, django_assert_num_queries: Any
) -> None:
    # session, user, what waits, and the roles unless it is a superuser
    for user, count in ((reader, 4), (staff, 3)):
        client.force_login(user)
        with django_assert_num_queries(count):
            client.get("/tour/missing/")
