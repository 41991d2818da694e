"""The inventory's pages over HTTP."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from tests.factories import ConnectionFactory, OperationFactory, VirtualMachineFactory
from tests.forms import text_of
from tests.vms.importing import work
from tests.vms.inventory import az_row, edited
from vms import selectors
from vms.import_models import ImportJob
from vms.models import Connection, ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db
DATA = Path(__file__).parent / "data"
LIST = "/virtual-machines/"


@pytest.fixture
def fleet(resource_group: ResourceGroup) -> list[VirtualMachine]:
    row = ConnectionFactory()
    return [VirtualMachineFactory(name=f"web-{n:03}", resource_group=resource_group, connection=row) for n in range(60)]


def names(response: object) -> list[str]:
    return re.findall(r'<th scope="row"><a href="[^"]+">([^<]+)</a>', response.content.decode())  # type: ignore[attr-defined]


def test_the_list_pages_by_links(client: Client, reader: User, fleet: list[VirtualMachine]) -> None:
    client.force_login(reader)
    first = client.get(LIST)
    assert names(first) == [vm.name for vm in fleet[:50]]
    assert "60 virtual machines" in text_of(first)
    (link,) = re.findall(r'rel="next" href="([^"]+)"', first.content.decode())
    second = client.get(LIST + link.replace("&amp;", "&"))
    assert names(second) == [vm.name for vm in fleet[50:]]
    (back,) = re.findall(r'rel="prev" href="([^"]+)"', second.content.decode())
    assert names(client.get(LIST + back.replace("&amp;", "&"))) == names(first)


def test_the_menu_of_a_machine_has_its_own_entries_only(
    client: Client, chief: User, fleet: list[VirtualMachine], settings: Any
) -> None:
    settings.HAS_DEMO = True
    client.force_login(chief)
    menu = re.compile(r'<nav class="sidemenu".*?</nav>', re.DOTALL)
    entries = re.compile(r"</svg>([^<]+)</a>")
    vm = fleet[0]
    for where in (reverse("updates:vm-overview", args=[vm.pk]), reverse("vms:vm-settings", args=[vm.pk])):
        page = client.get(where).content.decode()
        own = entries.findall(menu.findall(page)[0])
        assert own == ["All machines", "Overview", "Activity", "Updates", "Update settings"]
        assert '<nav class="breadcrumb"' in page
        assert 'role="search"' in page
        assert 'data-key="c"' in page, "the shortcuts lead everywhere from here, too"
    page = client.get(LIST).content.decode()
    assert "Tour of the demo" not in menu.findall(page)[0]
    help_menu = page[page.index('id="help-menu"') : page.index('id="account-menu"')]
    assert f'href="{reverse("tour")}"' in help_menu
    settings.HAS_DEMO = False
    assert f'href="{reverse("tour")}"' not in client.get(LIST).content.decode()


def test_who_may_only_read_sees_no_ticks_and_no_commands(
    client: Client, reader: User, operator: User, owner: User, fleet: list[VirtualMachine]
) -> None:
    commands = ("Assess all…", "Install on all…", 'name="vm"', "tickbar")
    for user, has_commands, has_settings in ((reader, False, False), (operator, True, False), (owner, True, True)):
        client.force_login(user)
        shown = client.get(LIST).content.decode()
        assert [words in shown for words in commands] == [has_commands] * len(commands), user
        assert ("Settings of all…" in shown) is has_settings, user


def test_what_was_never_assessed_lacks_an_unknown_number_of_updates(
    client: Client, reader: User, fleet: list[VirtualMachine]
) -> None:
    VirtualMachine.objects.update(update_status="no_updates_data")
    VirtualMachine.objects.filter(pk=fleet[0].pk).update(update_status="no_updates_available")
    client.force_login(reader)
    rows = re.findall(r'data-label="Critical and Security">([^<]+)<', client.get(LIST + "?sort=name").content.decode())
    assert rows == ["0", *["–"] * 49]


def test_search_filter_and_sort_are_in_the_address(client: Client, reader: User, fleet: list[VirtualMachine]) -> None:
    fleet[7].critical_and_security_count = 5
    fleet[7].update_status = "updates_available"
    fleet[7].save()
    client.force_login(reader)
    assert names(client.get(LIST + "?q=web+00")) == [vm.name for vm in fleet[:10]]
    assert names(client.get(LIST + "?sort=-critical"))[0] == fleet[7].name
    assert names(client.get(LIST + "?update_status=updates_available")) == [fleet[7].name]
    assert names(client.get(LIST + "?sort=-name"))[0] == fleet[-1].name
    assert "No virtual machine matches" in text_of(client.get(LIST + "?q=nothing"))


@pytest.mark.parametrize(
    "query",
    [
        "?sort=;drop",
        "?cursor=%ff",
        "?cursor=zzz",
        "?update_status=nonsense",
        "?connection=999999",
        "?q=%27%3B--%20%5C",
        "?q=" + "x" * 300,
    ],
)
def test_a_hostile_address_is_only_a_list(
    client: Client, reader: User, fleet: list[VirtualMachine], query: str
) -> None:
    client.force_login(reader)
    assert client.get(LIST + query).status_code == 200


def test_the_list_costs_the_same_for_two_and_for_two_hundred(
    client: Client, reader: User, resource_group: ResourceGroup
) -> None:
    client.force_login(reader)
    row = ConnectionFactory()
    costs = []
    for count in (2, 200):
        for _ in range(count):
            VirtualMachineFactory(resource_group=resource_group, connection=row)
        with CaptureQueriesContext(connection) as captured:
            assert client.get(LIST).status_code == 200
        costs.append(
            len([q for q in captured if not q["sql"].startswith(("SAVEPOINT", "RELEASE", "SELECT set_config"))])
        )
    assert costs[0] == costs[1] <= 8, costs


def test_a_list_that_takes_too_long_asks_to_be_narrowed(
    client: Client, reader: User, fleet: list[VirtualMachine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_slow(*_args: object, **_kwargs: object) -> None:
        raise selectors.ListTooSlowError

    monkeypatch.setattr("vms.views.vm_page", too_slow)
    client.force_login(reader)
    assert "Narrow it down" in text_of(client.get(LIST))


def test_a_count_of_gone_machines_that_takes_too_long_takes_no_list_away(
    client: Client, reader: User, fleet: list[VirtualMachine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_slow(_self: object) -> int:
        raise selectors.ListTooSlowError

    monkeypatch.setattr("vms.filters.VmFilter.count_gone", too_slow)
    client.force_login(reader)
    answer = client.get(LIST)
    assert "Narrow it down" not in text_of(answer)
    assert names(answer)


def test_an_outsider_sees_an_empty_list(client: Client, outsider: User, fleet: list[VirtualMachine]) -> None:
    client.force_login(outsider)
    assert names(client.get(LIST)) == []


def test_a_part_of_the_list_for_htmx(client: Client, reader: User, fleet: list[VirtualMachine]) -> None:
    client.force_login(reader)
    part = client.get(LIST, headers={"HX-Request": "true", "HX-Target": "vm-table"})
    assert part.content.strip().startswith(b'<div id="vm-table">')


# --- import ------------------------------------------------------------------------------------------------------


def upload(client: Client, row: Connection, data: bytes, **fields: object):
    """The page of the job that this file becomes, once a worker was here; or the form with its errors."""
    answer = client.post(
        reverse("vms:vm-import"),
        {"file": SimpleUploadedFile("vms.json", data), "connection": row.pk} | fields,
    )
    work()
    return client.get(answer["Location"]) if answer.status_code == 302 else answer


@pytest.mark.parametrize("name", ["az_vm_list_sample.json", "arm_vm_list_sample.json"])
def test_an_import_reports_on_every_row(client: Client, chief: User, name: str) -> None:
    row = ConnectionFactory()
    client.force_login(chief)
    data = (DATA / name).read_bytes()
    dry = upload(client, row, data, is_dry_run="on")
    assert "Report of the dry run: nothing was changed" in text_of(dry)
    assert VirtualMachine.objects.count() == 0
    report = text_of(upload(client, row, data))
    assert "1 Created" in report
    assert "1 of 1" in report
    assert "1 Unchanged" in text_of(upload(client, row, data))
    assert VirtualMachine.objects.count() == 1
    earlier = text_of(client.get(reverse("vms:vm-import")))
    assert earlier.count("vms.json") == 3
    assert "Dry run finished" in earlier


def test_a_file_that_cannot_be_read_changes_nothing_and_says_where(client: Client, chief: User) -> None:
    row = ConnectionFactory()
    client.force_login(chief)
    data = (DATA / "az_vm_list_sample.json").read_bytes()
    for broken, words in (
        (data[:-20], "The file is cut off"),
        (b"", "The file is empty"),
        (b"\xff\xfe\x00", "byte at position"),
        (json.dumps({"hello": 1}).encode(), "not a list of virtual machines"),
    ):
        shown = text_of(upload(client, row, broken))
        assert "Nothing was imported." in shown
        assert words in shown
    assert VirtualMachine.objects.count() == 0


def test_after_a_dry_run_the_file_need_not_be_chosen_again(client: Client, chief: User) -> None:
    row = ConnectionFactory()
    client.force_login(chief)
    data = (DATA / "az_vm_list_sample.json").read_bytes()
    page = upload(client, row, data, is_dry_run="on").content.decode()
    (token,) = set(re.findall(r'name="draft" value="([0-9a-f-]{36})"', page))
    assert "“vms.json” is kept for an hour" in page
    sent = {"draft": token, "connection": row.pk}
    answers = [client.post(reverse("vms:vm-import"), sent) for _click in range(2)]
    assert len({answer["Location"] for answer in answers}) == 1, "the second click finds the first one's job"
    work()
    assert "1 Created" in text_of(client.get(answers[0]["Location"]))
    again = client.post(reverse("vms:vm-import"), sent)
    assert (again["Location"], VirtualMachine.objects.count()) == (answers[0]["Location"], 1)
    gone = client.post(reverse("vms:vm-import"), sent | {"draft": str(uuid4())})
    assert gone.status_code == 422
    assert "not kept any more" in text_of(gone)
    nothing = client.post(reverse("vms:vm-import"), {"connection": row.pk})
    assert (nothing.status_code, "Choose a file" in text_of(nothing)) == (422, True)


def test_a_file_over_the_limit_is_refused_with_both_sizes_and_nothing_of_it_stays(
    client: Client, chief: User, settings: Any
) -> None:
    settings.MAX_IMPORT_BYTES = 1024
    client.force_login(chief)
    answer = upload(client, ConnectionFactory(), b" " * 2048)
    assert answer.status_code == 422
    assert "The file is too large: 2.0 KB, allowed are 1.0 KB." in text_of(answer)
    assert not ImportJob.objects.exists()


def test_who_may_not_import_leaves_nothing_behind(client: Client, owner: User, chief: User) -> None:
    data = {"file": SimpleUploadedFile("vms.json", b"[]"), "connection": ConnectionFactory().pk}
    client.force_login(owner)
    assert client.post(reverse("vms:vm-import"), data).status_code == 403
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(chief)
    assert strict.post(reverse("vms:vm-import"), data).status_code == 403, "without its token"
    client.force_login(chief)
    assert client.post(reverse("vms:vm-import"), data | {"is_dry_run": "a\0b"}).status_code == 400
    assert not ImportJob.objects.exists()


def test_answers_are_a_spreadsheet(client: Client, chief: User) -> None:
    client.force_login(chief)
    data = json.dumps([az_row("web"), {}, edited("zones", [7])]).encode()
    page = upload(client, ConnectionFactory(), data)
    answer = client.get(reverse("vms:import-answers", args=[page.context["page"].job.pk]))
    lines = b"".join(answer.streaming_content).decode().splitlines()
    assert lines[0] == "\ufeffRow,Name,Resource id,Outcome,Reason or changed facts"
    assert lines[2] == "2,,,Skipped,The row has no resource id."
    assert lines[3].endswith("Skipped,zones has a value of the wrong type.")


def test_a_connection_is_asked_for_its_machines_from_its_page(client: Client, chief: User) -> None:
    row = ConnectionFactory()
    client.force_login(chief)
    assert "Sync now" in text_of(client.get(reverse("updates:connection", args=[row.pk])))
    answer = client.post(reverse("vms:inventory-sync", args=[row.pk]))
    work()
    assert "Finished" in text_of(client.get(answer["Location"]))
    assert "Finished" in text_of(client.get(reverse("updates:connection", args=[row.pk])))


def test_the_report_names_changes_first_and_what_was_passed_over(client: Client, chief: User) -> None:
    row = ConnectionFactory()
    client.force_login(chief)
    linux = edited("storageProfile.osDisk.osType", "Linux", az_row("lin"))
    data = b"WARNING: an <old> az\n" + json.dumps([linux, az_row("web"), {}]).encode()
    page = upload(client, row, data).content.decode()
    assert "Text before the JSON was passed over: WARNING: an &lt;old&gt; az" in page
    assert "1 of the skipped rows is a Linux machine" in page
    places = [page.index(f'<td class="number" data-label="Row">{number}</td>') for number in (2, 3, 1)]
    assert places == sorted(places)


def test_the_clock_of_a_machine_is_told_and_whose_it_is(client: Client, chief: User) -> None:
    client.force_login(chief)
    own = VirtualMachineFactory(time_zone="Tokyo Standard Time", location="westeurope")
    region = VirtualMachineFactory(time_zone="", location="westeurope")
    nobody = VirtualMachineFactory(time_zone="Mars Standard Time", location="moonbase")
    for vm, words in (
        (own, "Asia/Tokyo (its own time zone)"),
        (region, "Europe/Amsterdam (that of its region)"),
        (nobody, "neither its time zone nor its region"),
    ):
        for name in ("vms:vm-settings", "updates:vm-overview"):
            assert words in text_of(client.get(reverse(name, args=[vm.pk])))


def test_what_an_inventory_knew_is_on_the_overview_and_older_history_is_marked(client: Client, chief: User) -> None:
    client.force_login(chief)
    vm = VirtualMachineFactory(
        os_version="10.0.20348.5020",
        agent_status="Ready",
        priority="Spot",
        plan="p:o:n",
        edge_zone="losangeles",
        patch_status={"availablePatchSummary": {"status": "Succeeded", "criticalAndSecurityPatchCount": 3}},
        replaced_at=timezone.now(),
    )
    old = OperationFactory(vm=vm, kind="assessment", state="succeeded", next_step_at=None, finished_at=timezone.now())
    type(old).objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(days=1))
    shown = text_of(client.get(reverse("updates:vm-overview", args=[vm.pk])))
    for words in (
        "10.0.20348.5020",
        "Ready",
        "Spot",
        "p:o:n",
        "losangeles",
        "Critical and Security: 3",
        "Another machine since",
    ):
        assert words in shown
    history = text_of(client.get(reverse("updates:blade", args=[vm.pk]), {"tab": "history"}))
    assert "On the machine before" in history


@pytest.mark.parametrize("day", ["9999-12-31", "1999-01-01", "2026-02-30"])
def test_a_catalogue_date_that_means_nothing_is_a_form_error(client: Client, chief: User, day: str) -> None:
    client.force_login(chief)
    data = {
        "name": "far",
        "kind": "simulator",
        "platform": "azure",
        "catalogue_date": day,
        "clock_factor": "60",
        "seed": "1",
        "max_in_flight": "5",
    }
    answer = client.post(reverse("updates:connection-create"), data)
    assert answer.status_code == 422
    assert not Connection.objects.filter(name="far").exists()


def test_importing_takes_an_owner_of_everything(client: Client, owner: User, reader: User) -> None:
    for user in (owner, reader):
        client.force_login(user)
        assert client.get(reverse("vms:vm-import")).status_code == 403


# --- settings and time zones ------------------------------------------------------------------------------------


def test_settings_are_shown_with_arms_words(client: Client, reader: User, fleet: list[VirtualMachine]) -> None:
    client.force_login(reader)
    shown = text_of(client.get(reverse("vms:vm-settings", args=[fleet[0].pk])))
    assert "Azure Managed - Safe Deployment AutomaticByPlatform" in shown
    assert "Reboot if required IfRequired" in shown


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "../../etc/passwd", "Nowhere/At_all", "%00", "x" * 500])
def test_times_are_in_the_readers_zone_whatever_the_cookie_says(
    client: Client, reader: User, fleet: list[VirtualMachine], zone: str
) -> None:
    client.force_login(reader)
    client.cookies["timezone"] = zone
    assert client.get(LIST).status_code == 200


def test_nobody_signs_up_by_themselves(client: Client) -> None:
    assert client.get("/accounts/signup/").status_code in {302, 404}
    login = client.get("/accounts/login/")
    assert login.status_code == 200
    wrong = client.post("/accounts/login/", {"login": "nobody", "password": "wrong"})
    assert "not correct" in text_of(wrong)


def test_pages_carry_a_strict_policy(client: Client) -> None:
    policy = client.get("/accounts/login/")["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
