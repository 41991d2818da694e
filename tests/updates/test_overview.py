"""The overview: every number on it leads to a list of just that many machines; what it costs does not grow."""

from __future__ import annotations

import random
import re
from datetime import timedelta
from html import unescape
from urllib.parse import parse_qs, urlsplit

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from patching.terms import OperationState
from tests.factories import ConnectionFactory, OperationFactory, UserFactory, VirtualMachineFactory
from tests.updates.fleets import NOW, make_fleet, readers
from tests.updates.rollouts import PLAN
from updates.models import Operation, Rollout, RolloutMember, RolloutState
from updates.plans import plan_to_json
from updates.selectors.overview import TileName
from updates.services.fleet import take_snapshot
from vms.filters import VmFilter
from vms.selectors import ListTooSlowError
from vms.services.counters import fold_counters

pytestmark = pytest.mark.django_db
LIST = reverse("vms:vm-list")
MOST_QUERIES = 16


@pytest.fixture(autouse=True)
def _then() -> object:
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


def page_of(client: Client, user: User, query: str = "") -> str:
    client.force_login(user)
    answer = client.get(f"{reverse('home')}{query}")
    assert answer.status_code == 200
    return answer.content.decode()


def numbers_of(page: str) -> list[tuple[int, str]]:
    """Each number of the page that leads to the list, and the address it leads to: in the link or just before it."""
    found = []
    main = page[page.index('<div class="overview">') :]
    for before, address, inside in re.findall(
        rf'((?:<span class="overview-count">[^<]*</span>\s*<span>)?)<a[^>]*href="({LIST}[^"]*)"[^>]*>(.*?)</a>',
        main,
        re.S,
    ):
        text = re.sub(r"<[^>]+>", " ", before or inside)
        number = re.search(r"\d[\d,]*", text)
        if number and "overview-verb" not in inside:
            found.append((int(number.group().replace(",", "")), unescape(address)))
    return found


def listed(user: User, address: str) -> int:
    asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    filters = VmFilter.of(user, asked)
    assert not filters.problems(), address
    return int(filters.found.count())


@pytest.mark.parametrize("seed", [21, 22])
def test_every_number_leads_to_just_that_many_machines(client: Client, seed: int) -> None:
    make_fleet(seed)
    own = random.Random(seed)
    compared = 0
    for name, user in readers(own).items():
        for query in ("", "?product_line=ws2022", "?tag=env", "?resource_group=rg-SAME"):
            page = page_of(client, user, query)
            if '<div class="overview">' not in page:
                assert name in {"none", "group", "groups", "both", "machines", "subscription"}
                continue
            numbers = numbers_of(page)
            assert len(numbers) >= 1 + len(TileName)
            for number, address in numbers:
                assert number == listed(user, address), (name, query, address)
            compared += len(numbers)
    assert compared > 100


@pytest.mark.parametrize("language", ["en", "ja"])
def test_it_costs_the_same_however_large_the_fleet_is(client: Client, language: str) -> None:
    client.cookies["django_language"] = language
    people: dict[str, User] = {}
    costs: list[dict[str, int]] = []
    for count in (30, 90):
        make_fleet(31, count=count) if count == 30 else more_machines(count)
        people = people or readers(random.Random(1))
        roll_out(people["everything"])
        cost = {}
        for name, user in people.items():
            client.force_login(user)
            client.get(reverse("home"))
            with CaptureQueriesContext(connection) as queries:
                client.get(reverse("home"))
            cost[name] = len(queries)
        costs.append(cost)
    assert costs[0] == costs[1]
    assert max(costs[0].values()) <= MOST_QUERIES, costs[0]


def more_machines(count: int) -> None:
    row = ConnectionFactory()
    VirtualMachineFactory.create_batch(count, connection=row)


def roll_out(user: User) -> Rollout:
    """A rollout that is paused after one of its machines failed."""
    rollout = Rollout.objects.create(
        name="Finance, November",
        source="installation",
        plan=plan_to_json(PLAN),
        status=RolloutState.PAUSED,
        created_at=NOW,
        created_by=user,
    )
    for state in ("succeeded", "failed", "waiting"):
        RolloutMember.objects.create(rollout=rollout, vm=VirtualMachineFactory(), wave=0, status=state)
    return rollout


def test_no_table_of_machines_is_read_for_who_has_whole_groups(client: Client) -> None:
    make_fleet(32, count=20)
    people = readers(random.Random(2))
    fold_counters()
    client.force_login(people["everything"])
    with CaptureQueriesContext(connection) as queries:
        client.get(reverse("home"))
    # What filters offer is asked of few machines, and rollouts of their members.
    others = [q["sql"] for q in queries if "places AS" not in q["sql"] and "updates_rollout" not in q["sql"]]
    assert not [sql for sql in others if re.search(r'FROM "?vms_virtualmachine', sql)]


def test_what_went_wrong_is_read_through_its_index(client: Client) -> None:
    vm = VirtualMachineFactory()
    OperationFactory(vm=vm, installation=True, failed=True, created_at=NOW - timedelta(days=1))
    looked = {"vm": vm, "connection": vm.connection, "kind": "assessment", "state": OperationState.SUCCEEDED}
    Operation.objects.bulk_create(
        Operation(**looked, created_at=NOW - timedelta(hours=n), finished_at=NOW - timedelta(hours=n))
        for n in range(2_000)
    )
    client.force_login(UserFactory(is_superuser=True))
    with CaptureQueriesContext(connection) as queries:
        client.get(reverse("home"))
    (sql,) = (q["sql"] for q in queries if "WITH runs(" in q["sql"])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE updates_operation")
        cursor.execute("EXPLAIN " + sql)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "updates_operation_trouble" in plan
    assert "Seq Scan on updates_operation " not in plan


def test_what_needs_a_person_comes_first(client: Client) -> None:
    boss = UserFactory(is_superuser=True)
    vm = VirtualMachineFactory()
    OperationFactory(vm=vm, installation=True, failed=True, created_at=NOW - timedelta(days=1))
    rollout = roll_out(boss)
    page = page_of(client, boss)
    assert f'href="{rollout.get_absolute_url()}"' in page
    assert "Rollout “Finance, November” is paused" in unescape(page)
    assert page.index("Needs you now") < page.index("Finance, November") < page.index("tile-number")
    assert "2 / 3" in re.sub(r"\s+", " ", page)
    # a part of the fleet has its own failures; rollouts are of the whole
    assert "Finance, November" not in page_of(client, boss, f"?connection={vm.connection_id}")
    assert f"connection={vm.connection_id}&amp;trouble=failed" in page_of(
        client, boss, f"?connection={vm.connection_id}"
    )


def test_nobody_sees_more_than_is_theirs(client: Client) -> None:
    make_fleet(34, count=20)
    people = readers(random.Random(4))
    roll_out(people["everything"])
    page = page_of(client, people["none"])
    assert "No virtual machines yet" in page
    assert "Ask an owner for a role" in page
    assert "Finance" not in page_of(client, people["group"])


def test_an_empty_fleet_says_what_to_do_next(client: Client) -> None:
    page = page_of(client, UserFactory(is_superuser=True))
    assert reverse("vms:vm-import") in page
    assert "No virtual machines yet" in page


def test_an_empty_part_leads_back_to_the_whole(client: Client) -> None:
    VirtualMachineFactory()
    page = page_of(client, UserFactory(is_superuser=True), "?resource_group=nowhere")
    assert "No machine is in this part of the fleet" in page


def test_it_says_that_machines_are_simulated_and_which_day_it_is_there(client: Client) -> None:
    VirtualMachineFactory()
    page = page_of(client, UserFactory(is_superuser=True))
    assert "Simulated" in page
    assert "Their today is 2026-05-20." in page


def test_an_address_that_cannot_be_read_narrows_nothing_and_says_so(client: Client) -> None:
    VirtualMachineFactory()
    page = page_of(client, UserFactory(is_superuser=True), "?connection=9999")
    assert "The overview ignores part of its address." in page
    assert "1 machine<" in page


def test_the_picture_of_the_days_stands_beside_its_table(client: Client) -> None:
    VirtualMachineFactory()
    take_snapshot(now=NOW - timedelta(days=2))
    page = page_of(client, UserFactory(is_superuser=True))
    assert 'id="days"' in page
    assert 'id="months"' in page
    assert page.count("As a table") == 2
    assert "Patch Tuesday, 12 May" in page
    assert "Jul" in page


def test_single_machines_and_tags_have_no_picture_of_days(client: Client) -> None:
    make_fleet(35, count=20)
    people = readers(random.Random(5))
    page = page_of(client, people["machines"])
    assert 'id="days"' not in page
    assert "Days are kept of whole resource groups only" in page


def test_what_runs_is_counted_by_kind(client: Client) -> None:
    OperationFactory(in_progress=True, installation=True)
    OperationFactory(state=OperationState.QUEUED)
    page = re.sub(r"\s+", " ", page_of(client, UserFactory(is_superuser=True)))
    assert '<span>Installation</span><span class="number">1</span>' in page


def test_a_tag_that_takes_too_long_is_told(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(*_args: object) -> None:
        raise ListTooSlowError

    monkeypatch.setattr("updates.selectors.overview.count_fleet", give_up)
    page = page_of(client, UserFactory(is_superuser=True), "?tag=env")
    assert "Counting the machines with this tag took too long." in page
