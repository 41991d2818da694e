"""How real what a page shows is, who made the assessment that it rests on, and that a list is only partial."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from connectors.protocol import Capability
from connectors.registry import KINDS, SIMULATOR, Grade, Kind
from tests.factories import ConnectionFactory, VirtualMachineFactory
from tests.vms.importing import queue_file
from updates.models import VmUpdateState
from vms.models import Connection, VirtualMachine

pytestmark = pytest.mark.django_db


def text_of(response: Any) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))


def look_like(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "simulator", kind)


REAL = replace(KINDS["simulator"], traits=replace(KINDS["simulator"].traits, is_simulated=False))
GRADES = {
    "Simulated": KINDS["simulator"],
    "Real protocol, not run on real machines yet": REAL,
    "Run on real machines (2026-11-02)": REAL,
}


@pytest.fixture
def vm() -> VirtualMachine:
    made: VirtualMachine = VirtualMachineFactory(connection=ConnectionFactory(name="Lab"))
    VmUpdateState.objects.create(vm=made, os_build="20348.5020", last_assessed_at=timezone.now())
    return made


@pytest.fixture
def admin(client: Client, chief: User) -> Client:
    client.force_login(chief)
    return client


def pages_of(vm: VirtualMachine, admin: Client) -> dict[str, str]:
    """The pages that say where a machine is, by their names."""
    review = {
        "step": "updates",
        "go": "review",
        "request_id": "11111111-2222-4333-8444-555555555555",
        "classifications": ["Security"],
        "reboot_setting": "IfRequired",
        "maximum_minutes": "120",
    }
    return {
        "blade": text_of(admin.get(reverse("updates:blade", args=[vm.pk]))),
        "overview": text_of(admin.get(reverse("updates:vm-overview", args=[vm.pk]))),
        "review": text_of(admin.post(reverse("updates:install", args=[vm.pk]), review)),
    }


@pytest.mark.parametrize("words", GRADES)
def test_pages_say_how_real_the_machine_is(
    words: str, vm: VirtualMachine, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_like(GRADES[words], monkeypatch)
    if "2026" in words:
        digest = vm.connection.configuration_digest
        qualification = {"at": "2026-11-02T09:00:00+00:00", "configuration": digest}
        Connection.objects.filter(pk=vm.connection_id).update(qualification=qualification)
    for name, shown in pages_of(vm, admin).items():
        assert re.search(rf"Lab (\(Azure\) )?{re.escape(words)}", shown), name
    assert words in text_of(admin.get(reverse("updates:connection", args=[vm.connection_id])))
    assert f"Lab · {words}" in text_of(admin.get(reverse("vms:vm-import")))


def test_a_changed_configuration_has_not_run_on_anything(vm: VirtualMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    look_like(REAL, monkeypatch)
    connection = vm.connection
    connection.qualification = {
        "at": "2026-11-02T09:00:00+00:00",
        "configuration": connection.configuration_digest,
    }
    assert connection.grade is Grade.QUALIFIED
    connection.config = connection.config | {"seed": 99}
    assert (connection.grade, connection.grade_words) == (Grade.PROTOCOL_PROVEN, next(iter(list(GRADES)[1:])))


def test_the_top_bar_says_so_while_every_connection_is_simulated(vm: VirtualMachine, admin: Client) -> None:
    address = reverse("vms:vm-list")
    assert vm.connection.kind == SIMULATOR
    assert "No machine here is real." in text_of(admin.get(address))
    Connection.objects.create(name="Production", kind="azure", config={})
    assert "No machine here is real." not in text_of(admin.get(address)), "this one speaks to real machines"


def test_the_page_of_an_import_says_how_real_its_machines_are(vm: VirtualMachine, admin: Client, chief: User) -> None:
    job = queue_file(b"[]", vm.connection, by=chief)
    shown = text_of(admin.get(reverse("vms:import-job", args=[job.pk])))
    assert "Lab Simulated" in shown


def test_an_assessment_made_elsewhere_is_told_wherever_its_time_is(vm: VirtualMachine, admin: Client) -> None:
    words = "made elsewhere, not by this portal"
    assert not any(words in shown for shown in pages_of(vm, admin).values())
    VmUpdateState.objects.update(assessment_source="elsewhere")
    told = [shown for shown in pages_of(vm, admin).values() if "Last assessed" in shown]
    assert told
    assert all(words in shown for shown in told)


def test_a_partial_list_is_told_where_it_is_shown_and_where_it_would_be_needed(
    vm: VirtualMachine, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = {
        "does not tell what is installed": reverse("updates:blade", args=[vm.pk]) + "?tab=installed",
        "lists only a part of what is installed": reverse("updates:rollback", args=[vm.pk]),
    }
    assert not any(words in text_of(admin.get(address)) for words, address in addresses.items())
    simulator = KINDS["simulator"]
    look_like(replace(simulator, capabilities=simulator.capabilities - {Capability.INSTALLED_UPDATES}), monkeypatch)
    assert all(words in text_of(admin.get(address)) for words, address in addresses.items())
