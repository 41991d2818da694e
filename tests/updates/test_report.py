"""Reports: every number is that of the list it leads to, for every reader; compliance is what the rule says of each machine."""

from __future__ import annotations

import csv
import io
import random
import re
from collections import Counter
from datetime import date
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from audit.models import AuditEvent
from audit.tags import Tag
from patching.compliance import ClassStanding, judge_class
from patching.terms import Classification
from tests.factories import (
    ConnectionFactory,
    PatchFactory,
    ReleaseFactory,
    RoleAssignmentFactory,
    UserFactory,
    VirtualMachineFactory,
    VmUpdateStateFactory,
)
from tests.updates.fleets import NOW, make_fleet, readers
from updates.forms.history import HistoryForm
from updates.forms.report import ReportMachinesForm
from updates.models import KbHold, Patch, PatchSet, PatchSetMember, VmUpdateState
from updates.selectors import report as selectors
from updates.selectors.fleet import ASSESSED, EVERYWHERE, place_of
from updates.selectors.fleet_history import Search
from updates.selectors.overview import scope_of
from updates.selectors.pending import scope_filters
from updates.selectors.pending_machines import machines_of
from updates.selectors.report import MachinesAsked, load_judged
from vms.choices import Scope
from vms.filters import VmFilter
from vms.models import Grants, VirtualMachine
from vms.selectors import ListTooSlowError, filter_options
from vms.services.counters import fold_counters

pytestmark = pytest.mark.django_db
REPORT, MACHINES, EXPORT = (
    reverse("updates:report"),
    reverse("updates:report-machines"),
    reverse("updates:report-export"),
)
LIST, HISTORY = reverse("vms:vm-list"), reverse("updates:history")
MOST_QUERIES = 18


@pytest.fixture(autouse=True)
def _then(settings: Any) -> object:
    settings.STATEMENT_TIMEOUT_MS = 60_000  # how fast a machine is decides no test
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


def see(client: Client, user: User, address: str = REPORT) -> str:
    client.force_login(user)
    answer = client.get(address)
    assert answer.status_code == 200, address
    return str(answer.content.decode())


def make_everything(seed: int, **fields: int) -> None:
    """The fleet with KBs that are held back and settings that differ."""
    own = random.Random(seed)
    vms = make_fleet(seed, **fields)
    for vm in own.sample(vms, 15):
        KbHold.objects.create(vm=vm, kb_number=own.choice(("5087424", "5082142")))
    differing = [vm.pk for vm in own.sample(vms, 12)]
    VirtualMachine.objects.filter(pk__in=differing).update(desired_settings={"patch_mode": "Manual"})


def numbers_of(page: str) -> list[tuple[int, str]]:
    """Each number of the report with its address."""
    main = page[page.index('class="stack report"') :]
    found = re.findall(r'<a href="([^"]+)">\s*([\d,]+)(?: machines?)?\s*</a>', main)
    return [(int(number.replace(",", "")), unescape(address)) for address, number in found]


def counted(user: User, address: str) -> int:
    """How many rows the list behind an address has."""
    parts = urlsplit(address)
    asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
    if parts.path == LIST:
        filters = VmFilter.of(user, asked)
        assert not filters.problems(), address
        return int(filters.found.count())
    if parts.path == HISTORY:
        history = HistoryForm(asked, options=filter_options(Grants.of(user)))
        assert history.is_valid(), history.errors
        search = Search(user, Grants.of(user), history.asked, NOW)
        return sum(part.count() for part in search.branches(history.asked))
    assert parts.path == MACHINES, address
    form = ReportMachinesForm(asked)
    assert form.is_valid(), form.errors
    filters = scope_filters(user, asked)
    assert not filters.ignored
    scope = scope_of(filters)
    place = place_of(Grants.of(user), scope)
    found = load_judged(place, scope, form.asked.days, NOW).machines(machines_of(place, scope), form.asked)
    return int(found.count())


@pytest.mark.parametrize(("seed", "groups"), [(41, 6), (42, 60)])
def test_every_number_leads_to_just_that_many(client: Client, seed: int, groups: int) -> None:
    make_everything(seed, groups_count=groups, count=70)
    compared: Counter[str] = Counter()
    for name, user in readers(random.Random(seed)).items():
        for query in ("", "?days=2", "?product_line=ws2022&period=7", "?tag=env", "?resource_group=rg-SAME&days=5"):
            page = see(client, user, f"{REPORT}{query}")
            if 'class="stack report"' not in page:
                continue
            numbers = numbers_of(page)
            assert len(numbers) > 3
            for number, address in numbers:
                assert number == counted(user, address), (name, query, address)
                compared[urlsplit(address).path] += 1
    assert set(compared) == {LIST, HISTORY, MACHINES}
    assert min(compared.values()) > 30, compared


@pytest.mark.parametrize("seed", [43, 44])
def test_compliance_is_what_the_rule_says_of_each_machine(seed: int) -> None:
    make_everything(seed)
    own = random.Random(seed)
    rows = {state.vm_id: state.patch_set_id for state in VmUpdateState.objects.all()}
    members: dict[int, list[Patch]] = {}
    for member in PatchSetMember.objects.select_related("patch"):
        members.setdefault(member.patch_set_id, []).append(member.patch)
    for name, user in readers(own).items():
        place = place_of(Grants.of(user))
        for days in (2, 7, 14):
            judged = load_judged(place, EVERYWHERE, days, NOW)
            for classification in ("", *Classification):
                expected: dict[int, ClassStanding] = {}
                for vm in machines_of(place, EVERYWHERE).select_related("connection"):
                    lacked = members.get(rows.get(vm.pk) or 0, [])
                    expected[vm.pk] = judge_class(
                        [patch.published_on for patch in lacked if classification in {"", patch.classification}],
                        is_assessed=vm.update_status in ASSESSED,
                        day=vm.connection.catalogue_date or NOW.date(),
                        days=days,
                    )
                for standing in ClassStanding:
                    asked = MachinesAsked(days, standing, classification=classification)
                    meant = {pk for pk, theirs in expected.items() if theirs is standing}
                    found = judged.machines(machines_of(place, EVERYWHERE), asked)
                    assert set(found.values_list("pk", flat=True)) == meant, (name, asked)
                    assert judged.count(asked) == len(meant), (name, asked)


def lacking(name: str, *patches: Patch, **fields: Any) -> VirtualMachine:
    """An assessed machine that lacks these."""
    row = PatchSet.objects.create(digest=PatchSet.objects.count().to_bytes(32, "big"), other_count=len(patches))
    PatchSetMember.objects.bulk_create(PatchSetMember(patch_set=row, patch=patch) for patch in patches)
    vm: VirtualMachine = VirtualMachineFactory(name=name, **fields)
    VmUpdateStateFactory(vm=vm, patch_set=row, last_assessed_at=NOW)
    status = "updates_available" if patches else "no_updates_available"
    VirtualMachine.objects.filter(pk=vm.pk).update(patch_set=row.pk, update_status=status)
    return vm


def test_who_is_overdue_stands_with_what_and_since_when(client: Client) -> None:
    site = ConnectionFactory(catalogue_date=None)
    old = PatchFactory(kb_number="5082142", published_on=date(2026, 4, 14), classification="Security")
    new = PatchFactory(kb_number="5087424", published_on=date(2026, 5, 12), classification="Security")
    driver = PatchFactory(
        kb_number="", update_id="7f0c", title="=Driver", published_on=date(2026, 3, 1), classification="Updates"
    )
    lacking("late-1", old, new, connection=site)
    lacking("late-2", driver, connection=site)
    lacking("fine-1", new, connection=site)
    lacking("fine-2", connection=site)
    boss = UserFactory(is_superuser=True)
    page = see(client, boss)
    overdue = page[page.index('id="overdue-title"') : page.index('id="failures-title"')]
    assert "2 machines" in overdue
    assert re.findall(r'<th scope="row"><a href="[^"]+">([^<]+)', overdue) == ["late-1", "late-2"]
    assert "5087424" not in overdue
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", overdue))
    assert "late-1" in text
    assert "2026-04-14" in text
    compliance = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page[page.index('id="compliance-title"') :]))
    assert "Security 75.0 % 2 1 1 0" in compliance
    assert "Critical 100.0 % 4 0 0 0" in compliance
    shown = see(client, boss, f"{MACHINES}?update=7f0c")
    assert re.findall(r'<th scope="row"><a href="[^"]+">([^<]+)', shown) == ["late-2"]
    assert "1 machine" in shown
    strict = see(client, boss, f"{REPORT}?days=3")
    assert "Compliant within 3 days of release" in strict
    assert "5087424" in strict[strict.index('id="overdue-title"') : strict.index('id="failures-title"')]


def test_the_head_says_of_what_when_and_by_whom(client: Client) -> None:
    vm = VirtualMachineFactory()
    boss = UserFactory(is_superuser=True, username="yamada<b>")
    client.cookies["timezone"] = "Asia/Tokyo"
    page = see(client, boss, f"{REPORT}?connection={vm.connection_id}&tag=env")
    assert "No machine is in this part of the fleet" in page
    page = see(client, boss, f"{REPORT}?connection={vm.connection_id}")
    head = page[page.index('class="stack report"') : page.index('id="state-title"')]
    for words in (
        f"Connection: {vm.connection.name}",
        "2026-05-20 21:00 Asia/Tokyo (UTC+0900)",
        "yamada&lt;b&gt;",
        f"http://testserver/reports/?connection={vm.connection_id}",
    ):
        assert words in head
    assert "Hotpatch Portal" in page


def test_releases_stand_with_their_sources(client: Client) -> None:
    ReleaseFactory(kb_number="5087424", released_on=date(2026, 5, 12), source="Microsoft's <calendar>", evidence="E1")
    ReleaseFactory(
        kb_number="5034129", month=date(2025, 1, 1), type="baseline", released_on=date(2025, 1, 14), source="long ago"
    )
    VirtualMachineFactory(product_line="ws2022", connection=ConnectionFactory(catalogue_date=None))
    page = see(client, UserFactory(is_superuser=True))
    releases = page[page.index('id="releases-title"') :]
    assert "Microsoft&#x27;s &lt;calendar&gt; [E1]" in releases
    assert "long ago" not in releases


def test_an_address_that_cannot_be_read_makes_no_report(client: Client) -> None:
    VirtualMachineFactory()
    client.force_login(UserFactory(is_superuser=True))
    for query in ("connection=9999", "days=0", "days=x", "days=366", "period=8", "product_line=ws1999"):
        for address in (REPORT, EXPORT):
            answer = client.get(f"{address}?{query}")
            assert answer.status_code == 422, query
            assert "There is no report" in answer.content.decode()
            assert 'class="stack report"' not in answer.content.decode()
    for query in ("standing=odd", "classification=odd", "update=%3Cb%3E", "connection=9999", "days=-1"):
        answer = client.get(f"{MACHINES}?{query}")
        assert answer.status_code == 422, query
        assert "Nothing is shown" in answer.content.decode()
    assert client.get(f"{REPORT}?days=&period=").status_code == 302


def test_nobody_sees_more_than_is_theirs(client: Client) -> None:
    make_everything(45)
    people = readers(random.Random(45))
    assert "Ask an owner for a role" in see(client, people["none"])
    assert "No machine matches" in see(client, people["none"], MACHINES)
    client.force_login(people["none"])
    text = b"".join(client.get(EXPORT).streaming_content).decode()
    assert "overdue_machine" not in text
    theirs = set(VirtualMachine.objects.visible_to(people["machines"]).values_list("name", flat=True))
    lines = exported(client, people["machines"])
    assert {line["item"] for line in lines if line["section"] == "overdue_machine"} <= theirs


# --- as a file -----------------------------------------------------------------------------------------------------


def exported(client: Client, user: User, query: str = "") -> list[dict[str, str]]:
    client.force_login(user)
    answer = client.get(f"{EXPORT}{query}")
    assert answer.status_code == 200
    text = b"".join(answer.streaming_content).decode()
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))


def test_the_file_says_what_the_page_says_and_names_every_overdue_machine(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_everything(46)
    boss = UserFactory(is_superuser=True)
    monkeypatch.setattr("updates.selectors.report_export.EXPORT_BLOCK", 7)
    page = dict.fromkeys(numbers_of(see(client, boss, f"{REPORT}?days=3")))
    lines = exported(client, boss, "?days=3")
    in_file = {
        (int(line["count"]), line["address"].removeprefix("http://testserver"))
        for line in lines
        if line["address"] and line["count"] and line["section"] != "overdue_machine"
    }
    assert set(page) <= in_file
    for count, address in in_file:
        assert count == counted(boss, address), address
    named = [line["item"] for line in lines if line["section"] == "overdue_machine"]
    (overdue,) = (line for line in lines if (line["section"], line["item"]) == ("overdue", "machines"))
    assert len(named) == int(overdue["count"]) > 7
    assert named == sorted(named)
    said = {line["item"]: line["detail"] for line in lines if line["section"] == "report"}
    assert said["made_by"] == boss.username
    assert said["made_at"] == "2026-05-20T12:00:00+00:00"
    assert said["address"] == "http://testserver/reports/export/?days=3"
    event = AuditEvent.objects.filter(tag=Tag.REPORT_EXPORT.value).get()
    assert event.detail["filters"] == {"days": "3", "period": "30"}


def test_the_file_runs_no_formula(client: Client) -> None:
    site = ConnectionFactory(catalogue_date=None)
    patch = PatchFactory(kb_number="", update_id="7f0c", title="=cmd()", published_on=None, classification="Updates")
    old = PatchFactory(kb_number="5082142", title="+1", published_on=date(2026, 4, 14))
    lacking("=evil()", patch, old, connection=site)
    ReleaseFactory(source="@SUM(1)", released_on=date(2026, 5, 12))
    lines = exported(client, UserFactory(is_superuser=True))
    cells = [cell for line in lines for cell in line.values()]
    assert not [cell for cell in cells if cell[:1] in set("=+-@")]
    assert "'=evil()" in cells


# --- what it costs -------------------------------------------------------------------------------------------------


def test_it_costs_the_same_however_large_the_fleet_is(client: Client) -> None:
    make_everything(47)
    people = readers(random.Random(47))
    costs: list[dict[tuple[str, str], int]] = []
    for count in (5, 80):
        patches = PatchFactory.create_batch(count // 5, published_on=date(2026, 1, 1))
        site, place = ConnectionFactory(), VirtualMachine.objects.all()[0].resource_group
        row = PatchSet.objects.create(digest=(count + 100).to_bytes(32, "big"), other_count=len(patches))
        PatchSetMember.objects.bulk_create(PatchSetMember(patch_set=row, patch=patch) for patch in patches)
        for vm in VirtualMachineFactory.create_batch(count, connection=site, resource_group=place):
            VmUpdateStateFactory(vm=vm, patch_set=row, last_assessed_at=NOW)
        here = VirtualMachine.objects.filter(connection=site)
        here.update(patch_set=row.pk, update_status="updates_available")
        cost = {}
        for name in ("everything", "subscription", "groups", "machines", "both"):
            client.force_login(people[name])
            for address in (REPORT, f"{MACHINES}?days=3"):
                client.get(address)
                with CaptureQueriesContext(connection) as queries:
                    client.get(address)
                cost[name, address] = len(queries)
        costs.append(cost)
    assert costs[0] == costs[1]
    assert max(costs[0].values()) <= MOST_QUERIES, costs[0]


def test_no_table_of_the_size_of_the_fleet_is_read_from_its_beginning(client: Client) -> None:
    make_everything(48, count=30)
    boss = readers(random.Random(48))["everything"]
    fold_counters()
    client.force_login(boss)
    with CaptureQueriesContext(connection) as queries:
        client.get(REPORT)
    asked = [
        q["sql"] for q in queries if re.search(r"vms_virtualmachine|updates_vmupdatestate|updates_operation", q["sql"])
    ]
    assert len(asked) >= 4
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        for sql in asked:
            statement = re.sub(r"^SELECT set_config.*?; ", "", sql, flags=re.DOTALL)
            cursor.execute(f"EXPLAIN {statement}")
            plan = "\n".join(line for (line,) in cursor.fetchall())
            for table in ("vms_virtualmachine", "updates_vmupdatestate", "updates_operation"):
                assert not re.search(rf"Seq Scan on {table}\b", plan), (statement, plan)


def test_what_takes_too_long_is_told(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    site = ConnectionFactory(catalogue_date=None)
    lacking("late-1", PatchFactory(published_on=date(2026, 4, 14)), connection=site)
    boss = UserFactory(is_superuser=True)

    def slow(*_args: object, **_named: object) -> None:
        raise ListTooSlowError

    for name, words in (
        ("fetch_bounded", "held back took too long"),
        ("vm_page", "Finding the overdue machines took too long"),
        ("failure_groups", "Grouping the failures took too long"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(selectors, name, slow)
            assert words in see(client, boss), name
            assert "late-1" in {line["item"] for line in exported(client, boss)}
    with monkeypatch.context() as patched:
        patched.setattr(selectors, "vm_page", slow)
        assert "This list took too long" in see(client, boss, MACHINES)
    with monkeypatch.context() as patched:
        patched.setattr("updates.selectors.report_export.rows_beyond", slow)
        assert exported(client, boss)[-1]["section"] == "remark"
    monkeypatch.setattr(selectors, "count_fleet", slow)
    assert "took too long" in see(client, boss, f"{REPORT}?tag=env")
    assert "took too long" in see(client, boss, f"{MACHINES}?tag=env")
    assert client.get(f"{EXPORT}?tag=env").status_code == 503


def test_who_has_nothing_that_is_late_is_told_so(client: Client) -> None:
    lacking("fine-1", connection=ConnectionFactory(catalogue_date=None))
    page = see(client, UserFactory(is_superuser=True))
    assert "No machine, as far as it was assessed." in page
    assert "Nothing failed." in page
    person = UserFactory()
    RoleAssignmentFactory(user=person, scope=Scope.EVERYTHING)
    assert numbers_of(see(client, person)) == numbers_of(page)
