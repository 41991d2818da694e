"""Connections: what is behind them, changing, pausing and testing one, and the misfortunes of its simulated machines."""

from __future__ import annotations

import html
import json
import re
import uuid
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from connectors.azure import permissions
from connectors.configuration import ConfigurationError
from connectors.protocol import Capability, Traits
from connectors.registry import AZURE, KINDS, Kind, UnusableError
from connectors.secrets import SecretName
from patching.rollback import RollbackOrder
from tests.factories import ConnectionFactory, OperationFactory, VirtualMachineFactory
from tests.forms import text_of
from tests.updates.world import ScriptedConnector, make_due, run
from updates.engine.sweep import sweep
from updates.models import Operation, VmUpdateState
from updates.selectors.connections import machines_with_misfortune
from updates.selectors.health import find_trouble
from updates.services.operations import request_assessments
from updates.services.rollback import request_rollback, request_rollbacks
from vms.import_models import ImportJob, InventorySync
from vms.import_pages import sync_of
from vms.models import Connection, VirtualMachine
from vms.services.connections import save_connection

pytestmark = pytest.mark.django_db


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
    with django_assert_max_num_queries(7):
        page = admin.get(reverse("updates:connections"))
    assert re.search(r"Lab Active Simulator Simulated Azure 2026-05-20 3 1 1", text_of(page))


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
    Connection.objects.update(config=connection.config | {"catalogue_date": "2001-01-01"})
    assert "nothing is released yet" in text_of(admin.post(address("connection-test", connection)))
    Connection.objects.update(kind="carrier-pigeon")
    assert "no connector of the kind “carrier-pigeon”" in text_of(admin.post(address("connection-test", connection)))


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


def test_no_two_fields_of_the_page_share_an_id(admin: Client, connection: Connection) -> None:
    """A label would lead to the other form's field."""
    page = admin.get(address("connection", connection)).content.decode()
    ids = re.findall(r' id="([^"]+)"', page)
    assert "misfortune_name" in ids
    assert len(ids) == len(set(ids))


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


# --- kinds and configurations -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cloud:
    host: str
    key: SecretName
    region: str | None = None


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Kind:
    """A real kind that can do nothing but start and observe, made from a host and a secret."""
    kind = Kind("cloud", "Cloud", Cloud, "connectors.simulator.make", frozenset(), Traits())
    monkeypatch.setitem(KINDS, "cloud", kind)
    return kind


def test_the_form_has_the_fields_of_the_kind_that_is_chosen(admin: Client, connection: Connection, cloud: Kind) -> None:
    fields = fields_of(admin, connection) | {"name": "Second", "kind": "cloud"}
    other = admin.post(reverse("updates:connection-create"), fields)
    assert other.status_code == 422
    form = other.context["form"]
    assert list(form.fields)[3:6] == ["host", "key", "region"]
    assert "settings of another kind" in text_of(other)
    assert "This field is required" not in text_of(other), "nobody has seen these fields yet"
    fields = {name: fields[name] for name in ("name", "platform", "max_in_flight", "starts_per_minute")}
    fields |= {"kind": "cloud", "shown_kind": "cloud", "host": "example", "key": "no secret's name", "region": ""}
    refused = admin.post(reverse("updates:connection-create"), fields)
    assert refused.status_code == 422
    assert list(refused.context["form"].errors) == ["key"]
    made = admin.post(reverse("updates:connection-create"), fields | {"key": "cloud_key"})
    second = Connection.objects.get(name="Second")
    assert made["Location"] == address("connection", second)
    assert second.config == {"host": "example", "key": "cloud_key", "region": None}
    assert fields_of(admin, second)["host"] == "example"


def test_a_connection_that_cannot_be_used_says_why_and_harms_no_page(
    admin: Client, connection: Connection, cloud: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    staff = Client()
    staff.force_login(User.objects.create_superuser("admin"))
    vm = VirtualMachineFactory(connection=connection)
    OperationFactory(vm=vm)
    monkeypatch.setenv("PORTAL_SECRET_OTHER", "hunter2")
    for change, words in (
        ({"config": {"seed": "x", "clock_factor": 0}}, "Seed: “x” cannot be read"),
        ({"config": {"catalogue_date": "9999-12-31"}}, "Catalogue date: “9999-12-31” is too large"),
        ({"config": ["odd"]}, "The stored configuration cannot be read"),
        ({"kind": "cloud", "config": {"host": "h", "key": "cloud_key"}}, "PORTAL_SECRET_CLOUD_KEY"),
        ({"kind": "carrier-pigeon", "config": {}}, "no connector of the kind “carrier-pigeon”"),
    ):
        Connection.objects.filter(pk=connection.pk).update(**change)
        for page in (
            admin.get(address("connection", connection)),
            admin.post(address("connection-test", connection)),
        ):
            assert page.status_code == 200
            assert words in text_of(page)
        assert "Cannot be used" in text_of(admin.get(reverse("updates:connections")))
        for name in ("blade", "vm-overview", "rollback"):
            assert admin.get(reverse(f"updates:{name}", args=[vm.pk])).status_code == 200
        assert staff.get(reverse("admin:vms_connection_change", args=[connection.pk])).status_code == 200
        assert "connection_unusable" in [finding.code for finding in find_trouble()]
    Connection.objects.filter(pk=connection.pk).update(
        kind="cloud", config={"host": "h", "key": "other", "region": None}
    )
    shown = text_of(admin.get(address("connection", connection)))
    assert "cannot be used" not in shown
    assert "hunter2" not in admin.get(address("connection", connection)).content.decode()
    assert "connection_unusable" not in [finding.code for finding in find_trouble()]


def test_what_is_asked_of_an_unusable_connection_waits_and_then_fails_with_the_reason(connection: Connection) -> None:
    vm = VirtualMachineFactory(connection=connection)
    good = connection.config
    Connection.objects.update(config={"seed": "x"})
    (asked,) = request_assessments(vm_ids=[vm.pk], requested_by=None)
    make_due()
    sweep(seconds=5)
    operation = Operation.objects.get(pk=asked.operation_id)
    assert operation.state == "queued"
    assert operation.next_step_at is not None
    assert (operation.next_step_at - timezone.now()).total_seconds() > 50
    for _attempt in range(10):
        make_due()
        sweep(seconds=5)
    operation.refresh_from_db()
    assert (operation.state, operation.error_code) == ("failed", "connection.unusable")
    assert "seed cannot be x" in operation.error_detail
    Connection.objects.update(config=good)
    request_assessments(vm_ids=[vm.pk], requested_by=None)
    make_due()
    sweep(seconds=5)
    assert Operation.objects.filter(vm=vm, state="in_progress").exists()


def test_what_runs_behind_a_connection_that_breaks_is_looked_at_later(connection: Connection) -> None:
    vm = VirtualMachineFactory(connection=connection)
    request_assessments(vm_ids=[vm.pk], requested_by=None)
    sweep(seconds=5)
    Connection.objects.update(kind="carrier-pigeon")
    make_due()
    sweep(seconds=5)
    operation = Operation.objects.get(vm=vm)
    assert operation.state == "in_progress"
    Operation.objects.update(deadline_at=timezone.now() - timedelta(minutes=1))
    make_due()
    sweep(seconds=5)
    operation.refresh_from_db()
    assert (operation.state, operation.error_code) == ("failed", "connector.silent")


def test_a_service_refuses_a_configuration_that_is_not_of_its_kind(connection: Connection) -> None:
    connection.config = {"seed": "x"}
    with pytest.raises(ConfigurationError, match="seed"):
        save_connection(connection=connection)
    connection.kind = "carrier-pigeon"
    with pytest.raises(UnusableError):
        save_connection(connection=connection)


# --- capabilities -----------------------------------------------------------------------------------------------------


def test_a_rollback_is_neither_offered_nor_accepted_where_nothing_can_uninstall(
    admin: Client, chief: User, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = VirtualMachineFactory(connection=connection)
    VmUpdateState.objects.create(vm=vm, os_build="20348.5020", last_assessed_at=timezone.now())
    run = OperationFactory(
        vm=vm, kind="installation", state="succeeded", installed_count=1, next_step_at=None, finished_at=timezone.now()
    )
    button = reverse("updates:rollback", args=[vm.pk])
    blade, page = (reverse(f"updates:{name}", args=[pk]) for name, pk in (("blade", vm.pk), ("operation", run.pk)))
    assert all(button in admin.get(address).content.decode() for address in (blade, page))
    simulator = KINDS["simulator"]
    able = simulator.capabilities - {Capability.UNINSTALL, Capability.INSTALLED_UPDATES}
    monkeypatch.setitem(KINDS, "simulator", replace(simulator, capabilities=able))
    assert not any(f'href="{button}"' in admin.get(address).content.decode() for address in (blade, page))
    assert "No roll back: the connection cannot uninstall updates" in text_of(admin.get(blade))
    assert "This connection cannot uninstall updates" in text_of(admin.get(button))
    assert "does not tell what is installed" in text_of(admin.get(blade, {"tab": "installed"}))
    typed = admin.post(button, {"name": vm.name, "request_id": str(uuid.uuid4())})
    assert typed.status_code == 422
    order = RollbackOrder(("5087424",), "5082142", "20348.5020", must_install_target=False)
    outcome = request_rollback(vm_id=vm.pk, order=order, requested_by=chief, operation_id=uuid.uuid4())
    (bulk,) = request_rollbacks(vm_ids=[vm.pk], requested_by=chief)
    assert (outcome.code, bulk.code) == ("rollback.not_supported", "rollback.not_supported")
    assert not Operation.objects.filter(kind="rollback").exists()


def test_the_page_says_what_its_connector_can_do(admin: Client, connection: Connection) -> None:
    shown = text_of(admin.get(address("connection", connection)))
    assert re.search(r"Simulator Simulated", shown)
    assert "uninstall updates (roll back)" in shown
    assert "list installed updates" in shown


def test_the_admin_site_has_the_fields_of_the_kind(connection: Connection) -> None:
    staff = Client()
    staff.force_login(User.objects.create_superuser("admin"))
    place = reverse("admin:vms_connection_change", args=[connection.pk])
    form = staff.get(place).context["adminform"].form
    fields = {name: "" if form[name].value() is None else str(form[name].value()) for name in form.fields}
    refused = staff.post(place, fields | {"seed": "x"})
    assert "Enter a whole number" in text_of(refused)
    assert staff.post(place, fields | {"seed": "9"}).status_code == 302
    connection.refresh_from_db()
    assert connection.config["seed"] == 9
    assert connection.config["catalogue_date"] == "2026-05-20"
    assert staff.get(reverse("admin:vms_connection_changelist")).status_code == 200
    assert staff.get(reverse("admin:vms_connection_add")).status_code == 200


# --- the first hour ---------------------------------------------------------------------------------------------------

SUBSCRIPTIONS = "11111111-2222-4333-8444-000000000001 11111111-2222-4333-8444-000000000002"


def test_a_connection_to_azure_leads_through_its_first_hour(admin: Client) -> None:
    config = {"credential": "client_secret", "tenant_id": "contoso.example", "client_id": SUBSCRIPTIONS.split()[0]}
    config |= {"secret": "azure_key", "subscriptions": SUBSCRIPTIONS}
    row = Connection.objects.create(name="Fleet <b>", kind=AZURE, config=config)
    page = admin.get(address("connection", row))
    document = page.content.decode()
    role = json.loads(html.unescape(re.findall(r'id="guide-role"[^>]*>(.*?)</textarea>', document, re.DOTALL)[0]))
    assert role == permissions.role(SUBSCRIPTIONS.split())
    commands = html.unescape(re.findall(r'id="guide-commands"[^>]*>(.*?)</textarea>', document, re.DOTALL)[0])
    assert commands.splitlines() == [
        "az role definition create --role-definition @hotpatch-portal-role.json",
        (
            'az ad sp create-for-rbac --name hotpatch-portal --role "Hotpatch Portal operator" --scopes'
            " /subscriptions/11111111-2222-4333-8444-000000000001 /subscriptions/11111111-2222-4333-8444-000000000002"
        ),
    ]
    assert "PORTAL_SECRET_AZURE_KEY" in text_of(page)
    assert "<b>" not in document
    assert '<details class="card" id="first-hour" open>' in document, "nothing is behind it yet"
    VirtualMachineFactory(connection=row)
    assert '<details class="card" id="first-hour">' in admin.get(address("connection", row)).content.decode()


def test_who_has_an_identity_gives_it_the_role(admin: Client) -> None:
    config = {"credential": "managed_identity", "endpoint": "https://management.usgovcloudapi.net"}
    config |= {"authority": "https://login.microsoftonline.us"}
    row = Connection.objects.create(name="gov", kind=AZURE, config=config)
    words = html.unescape(admin.get(address("connection", row)).content.decode())
    assert "az cloud set --name AzureUSGovernment\n" in words
    assert "az role assignment create --assignee-object-id IDENTITY" in words
    assert "in the place of the zeros" in words


def test_other_kinds_have_no_first_hour(admin: Client, connection: Connection, cloud: Kind) -> None:
    assert "first-hour" not in admin.get(address("connection", connection)).content.decode()
    row = Connection.objects.create(name="broken", kind=AZURE, config={"endpoint": 7})
    assert "first-hour" not in admin.get(address("connection", row)).content.decode()


def test_a_report_that_counts_is_told_and_one_that_does_not_count_any_more(admin: Client) -> None:
    row = Connection.objects.create(name="azure", kind=AZURE, config={})
    row.qualification = {
        "at": "2026-11-02T09:00:00+00:00",
        "configuration": row.configuration_digest,
        "portal": "1.2",
        "cloud": "AzureCloud",
        "has_installed": False,
        "pass": 31,
        "skipped": 3,
    }
    row.save()
    words = text_of(admin.get(address("connection", row)))
    assert "Run on real machines (2026-11-02)" in words
    assert "31 checks passed, 3 had nothing to look at, by version 1.2 of the portal." in words
    assert "No installation was among them." in words
    row.config = {"tenant_id": "contoso.example"}
    row.save()
    words = text_of(admin.get(address("connection", row)))
    assert "Real protocol, not run on real machines yet" in words
    assert "An earlier report counts no more" in words


def test_the_inventory_says_what_it_has_and_what_is_left_alone(admin: Client, connection: Connection) -> None:
    first = VirtualMachineFactory(connection=connection, power_state="deallocated")
    group = {"connection": connection, "resource_group": first.resource_group}
    VirtualMachineFactory(power_state="deallocated", **group)
    VirtualMachineFactory(update_status="unsupported", **group)
    VirtualMachineFactory(connection=connection, power_state="stopped", gone_at=timezone.now())
    VirtualMachineFactory(power_state="stopped")
    job = ImportJob.objects.create(
        source="discovery",
        connection=connection,
        phase="succeeded",
        finished_at=timezone.now(),
        counts={"created": 3, "skipped": 8, "linux": 5, "os_not_named": 1},
    )
    InventorySync.objects.create(connection=connection, job=job, next_at=timezone.now() + timedelta(hours=20))
    words = text_of(admin.get(address("connection", connection)))
    for told in (
        "Next sync:",
        "5 machines run Linux, which is not managed here: they are counted, and that is all.",
        "1 machine does not say that it runs Windows",
        "1 machine runs another Windows than Windows Server 2022 or 2025",
        "2 machines are stopped or deallocated: nothing is started on them until they run.",
        "2 machines were left out for other reasons",
    ):
        assert told in words
    (share,) = sync_of(connection).shares
    assert share.machines == 3
    assert re.search(rf"{re.escape(share.name)} .*?3 ", words)


def test_an_empty_portal_leads_to_azure(admin: Client) -> None:
    Connection.objects.all().delete()
    for page in (reverse("home"), reverse("vms:vm-list")):
        assert f"{reverse('updates:connection-create')}?kind=azure" in admin.get(page).content.decode()
    form = admin.get(reverse("updates:connection-create"), {"kind": "azure"}).context["form"]
    assert "credential" in form.fields
    assert form["kind"].value() == "azure"
    assert "seed" in admin.get(reverse("updates:connection-create"), {"kind": "pigeon"}).context["form"].fields
