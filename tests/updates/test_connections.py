"""Connections: what is behind them, changing, pausing and testing one, and the misfortunes of its simulated machines."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.factories import ConnectionFactory, OperationFactory, VirtualMachineFactory
from tests.updates.world import ScriptedConnector, run
from updates.selectors.connections import machines_with_misfortune
from updates.services.operations import request_assessments
from vms.models import Connection, VirtualMachine

pytestmark = pytest.mark.django_db


def text_of(response: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))


@pytest.fixture
def connection() -> Connection:
    return ConnectionFactory(name="Lab", catalogue_date=date(2026, 5, 20))


@pytest.fixture
def admin(client: Client, chief: User) -> Client:
    client.force_login(chief)
    return client


def address(name: str, connection: Connection) -> str:
    return reverse(f"updates:{name}", args=[connection.pk])


def fields_of(client: Client, connection: Connection) -> dict[str, str]:
    form = client.get(address("connection", connection)).context["form"]
    return {name: "" if (value := form[name].value()) is None else str(value) for name in form.fields}


def test_the_list_tells_what_is_behind_each_in_a_fixed_number_of_queries(
    admin: Client, connection: Connection, django_assert_max_num_queries: Any
) -> None:
    vms = VirtualMachineFactory.create_batch(3, connection=connection)
    OperationFactory(vm=vms[0])
    OperationFactory(vm=vms[1], in_progress=True)
    ConnectionFactory.create_batch(5)
    with django_assert_max_num_queries(6):
        page = admin.get(reverse("updates:connections"))
    assert re.search(r"Lab Active Simulator Azure 2026-05-20 3 1 1", text_of(page))


def test_a_new_connection_and_what_is_wrong_with_one(admin: Client, connection: Connection) -> None:
    fields = fields_of(admin, connection) | {"name": "Second", "catalogue_date": ""}
    answer = admin.post(reverse("updates:connection-create"), fields)
    second = Connection.objects.get(name="Second")
    assert answer["Location"] == address("connection", second)
    for change, words in (
        ({"name": "Lab"}, "Connection with this Name already exists"),
        ({"name": "x", "clock_factor": "0"}, "greater than or equal to 0.001"),
        ({"name": "x", "clock_factor": "nan"}, "Enter a number"),
        ({"name": "x", "max_in_flight": "0"}, "greater than or equal to 1"),
        ({"name": "x", "seed": str(2**31)}, "less than or equal to 2147483647"),
        ({"name": "x", "catalogue_date": "soon"}, "Enter a valid date"),
        ({"name": "x", "kind": "nothing"}, "Select a valid choice"),
    ):
        refused = admin.post(reverse("updates:connection-create"), fields | change)
        assert refused.status_code == 422
        assert words in text_of(refused)
    assert Connection.objects.count() == 2


def test_its_machines_follow_a_changed_platform(admin: Client, connection: Connection) -> None:
    vm = VirtualMachineFactory(connection=connection)
    admin.post(address("connection", connection), fields_of(admin, connection) | {"platform": "other"})
    vm.refresh_from_db()
    assert vm.hotpatch_status == "NotAvailable"


def test_while_it_is_paused_nothing_starts_and_the_page_says_until_when(admin: Client, connection: Connection) -> None:
    vm = VirtualMachineFactory(connection=connection)
    admin.post(address("connection-pause", connection), {"minutes": "60"})
    connection.refresh_from_db()
    assert connection.paused_until is not None
    assert 3500 < (connection.paused_until - timezone.now()).total_seconds() < 3700
    request_assessments(vm_ids=[vm.pk], requested_by=None)
    connector = ScriptedConnector()
    run(connector)
    assert connector.starts.total() == 0
    assert "The connection is paused" in text_of(admin.get(reverse("updates:blade", args=[vm.pk])))
    assert "Paused until" in text_of(admin.get(address("connection", connection)))
    admin.post(address("connection-pause", connection), {"minutes": "0"})
    assert "Paused until resumed" in text_of(admin.get(address("connection", connection)))
    admin.post(address("connection-pause", connection), {"resume": "yes"})
    run(connector)
    assert connector.starts.total() == 1
    assert "The connection is paused" not in text_of(admin.get(reverse("updates:blade", args=[vm.pk])))
    assert admin.post(address("connection-pause", connection), {"minutes": "-5"}).status_code == 422


def test_a_test_says_what_it_would_offer_or_why_it_cannot_be_used(
    admin: Client, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.core.management import call_command

    call_command("seed_catalogue", verbosity=0)
    words = text_of(admin.post(address("connection-test", connection)))
    assert "It answers (" in words
    assert "KB5087424 (2026-05-12)" in words
    Connection.objects.update(catalogue_date=date(1999, 1, 1))
    assert "nothing is released yet" in text_of(admin.post(address("connection-test", connection)))
    Connection.objects.update(kind="carrier-pigeon")
    assert "There is no connector of the kind" in text_of(admin.post(address("connection-test", connection)))


@pytest.mark.parametrize(
    ("fields", "wish"),
    [
        ({"misfortune": "fail", "kb_number": "kb5087424"}, "fail:KB5087424"),
        ({"misfortune": "lies", "kb_number": "５０８７４２４"}, "lies:KB5087424"),
        ({"misfortune": "fail"}, "fail:any"),
        ({"misfortune": "silent", "kb_number": "5087424"}, "silent"),
        ({"misfortune": ""}, None),
    ],
)
def test_a_misfortune_is_a_tag_of_the_machine(
    admin: Client, connection: Connection, fields: dict[str, str], wish: str | None
) -> None:
    vm = VirtualMachineFactory(connection=connection, name="web-001", tags={"env": "prod", "Simulate": "throttled"})
    other = VirtualMachineFactory(name="web-001")
    answer = admin.post(address("connection-misfortune", connection), {"name": "WEB-001", **fields})
    assert answer.status_code == 302
    vm.refresh_from_db()
    assert vm.tags == {"env": "prod"} | ({"simulate": wish} if wish else {})
    assert VirtualMachine.objects.get(pk=other.pk).tags == other.tags
    page = text_of(admin.get(address("connection", connection)))
    assert "Simulation" in page
    assert not wish or f"web-001 {wish}" in page


def test_a_misfortune_is_found_however_its_tag_is_spelled(admin: Client, connection: Connection) -> None:
    for name, tags in (("a", {"SIMULATE": "silent"}), ("b", {"simulated": "silent"}), ("c", {"env": "simulate"})):
        VirtualMachineFactory(connection=connection, name=name, tags=tags)
    assert [(vm.name, words) for vm, words in machines_with_misfortune(connection)] == [("a", "silent")]
    with pytest.raises(ValueError, match="no plain word"):
        list(VirtualMachine.objects.filter(tags__has_tag='x"'))


def test_a_misfortune_that_cannot_be_set_says_why(admin: Client, connection: Connection) -> None:
    for fields, words in (
        ({"name": "nobody", "misfortune": "silent"}, "No machine of this name"),
        ({"name": "", "misfortune": "silent"}, "This field is required"),
        ({"name": "x", "misfortune": "earthquake"}, "Select a valid choice"),
        ({"name": "x", "misfortune": "fail", "kb_number": "KB12x"}, "“KB12x” is not a KB article"),
    ):
        answer = admin.post(address("connection-misfortune", connection), fields)
        assert answer.status_code == 422
        assert words in text_of(answer)
