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
from tests.factories import (
    ConnectionFactory,
    OperationFactory,
    RoleAssignmentFactory,
    UserFactory,
    VirtualMachineFactory,
    VmUpdateStateFactory,
)
from tests.updates.fleets import NOW, make_fleet, make_sets, readers
from tests.updates.rollouts import PLAN
from updates.models import (
    BulkBlock,
    BulkOutcome,
    BulkRequest,
    MaintenanceConfiguration,
    Operation,
    Rollout,
    RolloutMember,
    RolloutState,
    WordsClock,
)
from updates.plans import plan_to_json
from updates.selectors import overview as overview_selectors
from updates.selectors.decisions import load_news
from updates.selectors.fleet_forecast import MONTHS
from updates.selectors.overview import TileName
from updates.services.fleet import take_snapshot
from vms.choices import Scope
from vms.filters import VmFilter
from vms.models import VirtualMachine
from vms.selectors import ListTooSlowError
from vms.services.counters import fold_counters

pytestmark = pytest.mark.django_db
LIST = reverse("vms:vm-list")
MOST_QUERIES = 17  # coverage is one of them


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
        rf'((?:<span class="overview-count">[^<]*</span>\s*<span>)?)<a(?! class="chart-stop")[^>]*href="({LIST}[^"]*)"[^>]*>(.*?)</a>',
        main,
        re.S,
    ):
        text = re.sub(r"<[^>]+>", " ", before or inside)
        number = re.search(r"\d[\d,]*", text)
        if number and "overview-verb" not in inside:
            found.append((int(number.group().replace(",", "")), unescape(address)))
    return found


def columns_of(page: str) -> list[tuple[int, str]]:
    """What each column of the months ahead adds up to, and the address that it leads to."""
    picture = page[page.index('id="months"') :]
    addresses = re.findall(rf'<a class="chart-stop" href="({LIST}[^"]*)"', picture)
    rows = re.findall(r'<tr><th scope="row">[^<]*</th>((?:<td class="number">[\d,]+</td>)+)</tr>', picture)
    totals = [sum(int(n.replace(",", "")) for n in re.findall(r">([\d,]+)<", row)) for row in rows[: len(addresses)]]
    assert len(totals) == len(addresses) == MONTHS
    return list(zip(totals, map(unescape, addresses), strict=True))


def listed(user: User, address: str) -> int:
    asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    filters = VmFilter.of(user, asked)
    assert not filters.problems(), address
    return int(filters.found.count())


def cover(own: random.Random) -> None:
    """Configurations that mean machines by name, by scope, both, and one that is off."""
    vms = list(VirtualMachine.objects.order_by("pk"))
    scopes: list[dict[str, str]] = [
        {},
        {"location": "japaneast"},
        {"tag_name": "env", "tag_value": "prod"},
        {"region": "x"},
    ]
    for number, scope in enumerate(scopes):
        row = MaintenanceConfiguration.objects.create(
            name=f"m{number}",
            is_enabled=number != 1,
            starts_on=NOW.date(),
            starts_at=NOW.time(),
            time_zone="UTC",
            recur_every="Day",
            plan=plan_to_json(PLAN),
            scope=scope,
        )
        row.vms.set(own.sample(vms, 9))


@pytest.mark.parametrize(("seed", "groups"), [(21, 6), (22, 6), (23, 60)])
def test_every_number_leads_to_just_that_many_machines(client: Client, seed: int, groups: int) -> None:
    make_fleet(seed, groups_count=groups, count=60 if groups < 50 else 90)
    own = random.Random(seed)
    cover(own)
    compared = 0
    for name, user in readers(own).items():
        for query in ("", "?product_line=ws2022", "?tag=env", "?resource_group=rg-SAME"):
            page = page_of(client, user, query)
            if '<div class="overview">' not in page:
                assert name in {"none", "group", "groups", "both", "machines", "subscription"}
                continue
            numbers = numbers_of(page)
            assert len(numbers) >= 1 + len(TileName) + 3
            assert {"none", "one", "several"} == {
                asked["coverage"][0]
                for _n, address in numbers
                if "coverage" in (asked := parse_qs(urlsplit(address).query))
            }
            for number, address in numbers:
                assert number == listed(user, address), (name, query, address)
            for total, address in columns_of(page):
                assert total == listed(user, address), (name, query, address)
            compared += len(numbers)
    assert compared > 100


@pytest.mark.parametrize("language", ["en", "ja"])
def test_it_costs_the_same_however_large_the_fleet_is(client: Client, language: str) -> None:
    client.cookies["django_language"] = language
    people: dict[str, User] = {}
    costs: list[dict[str, int]] = []
    for count in (30, 90):
        make_fleet(31, count=count) if count == 30 else more_machines(count)
        if count == 30:
            cover(random.Random(1))
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
    # What filters offer is asked of few machines, rollouts of their members, and bulk requests of the machines they mean.
    left_out = ("places AS", "updates_rollout", "updates_bulkrequest")
    others = [q["sql"] for q in queries if not any(text in q["sql"] for text in left_out)]
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


def test_failures_lead_to_their_runs_in_the_history(client: Client) -> None:
    boss = UserFactory(is_superuser=True)
    vm = VirtualMachineFactory(tags={"env": "prod"})
    run = OperationFactory(vm=vm, installation=True, failed=True, created_at=NOW - timedelta(days=1))
    OperationFactory(vm=VirtualMachineFactory(), kind="rollback", failed=True, created_at=NOW, error_code="odd:code")
    for query in ("", "?tag=env", f"?connection={vm.connection_id}", "?product_line=ws2022"):
        page = page_of(client, boss, query)
        addresses = [unescape(address) for address in re.findall(r'href="(/history/\?[^"]*)"', page)]
        assert len(addresses) == (1 if query in {"?tag=env", f"?connection={vm.connection_id}"} else 2), query
        (mine,) = (each for each in addresses if f"reason={run.error_code.replace(':', '%3A')}" in each)
        shown = client.get(mine).content.decode()
        assert str(run.pk)[:8] in shown
        assert shown.count('<th scope="row"><a href="/operations/') == 1, mine


def request_of(user: User, states: list[str], **fields: object) -> BulkRequest:
    """A bulk request that has been handed out, with an operation in each of these states."""
    row = BulkRequest.objects.create(
        **{"kind": "installation", "requested_by": user, "vm_count": len(states), "is_handed_out": True, **fields}
    )
    vms = VirtualMachineFactory.create_batch(len(states), connection=ConnectionFactory())
    BulkBlock.objects.create(request=row, number=0, vm_ids=[vm.pk for vm in vms])
    for vm, state in zip(vms, states, strict=True):
        looks = {"queued": {"state": "queued"}, "failed": {"failed": True}, "succeeded": {"succeeded": True}}
        run = OperationFactory(vm=vm, installation=True, is_bulk=True, **looks.get(state, {"in_progress": True}))
        BulkOutcome.objects.create(request=row, vm=vm, verdict="accepted", operation=run)
    return row


def test_bulk_requests_under_way_stand_with_how_far_they_are(client: Client) -> None:
    boss = UserFactory(is_superuser=True)
    running = request_of(boss, ["succeeded", "failed", "in_progress", "queued"])
    waiting = request_of(boss, ["queued"])
    over = request_of(boss, ["succeeded", "failed"])
    large = request_of(boss, ["in_progress"], vm_count=5_001)
    untouched = BulkRequest.objects.create(kind="assessment", requested_by=boss, vm_count=7)
    page = re.sub(r"\s+", " ", page_of(client, boss))
    for row in (running, waiting, large, untouched):
        assert f'href="{row.get_absolute_url()}"' in page
    assert over.get_absolute_url() not in page
    assert "2 / 4" in page
    assert "Installation on 4 machines" in page
    assert "0 / 7" in page
    assert "Its page counts how far it is" in page
    # a part of the fleet shows no requests, and readers do not see those of others
    assert running.get_absolute_url() not in page_of(client, boss, "?product_line=ws2022")
    other = UserFactory()
    RoleAssignmentFactory(user=other, scope=Scope.EVERYTHING, role="reader")
    assert running.get_absolute_url() not in page_of(client, other)


def test_who_sees_less_is_told_of_his_own_machines(client: Client) -> None:
    person = UserFactory()
    row = request_of(person, ["succeeded", "succeeded", "in_progress"])
    mine, _other, running = (outcome.vm for outcome in BulkOutcome.objects.filter(request=row).order_by("pk"))
    for vm in (mine, running):
        RoleAssignmentFactory(user=person, scope=Scope.VM, vm=vm)
    page = re.sub(r"\s+", " ", page_of(client, person))
    assert f'href="{row.get_absolute_url()}"' in page
    assert "1 / 3" in page


def test_what_waits_is_counted_in_one_query_for_who_sees_less(client: Client) -> None:
    vm = VirtualMachineFactory(hotpatch_status="Enabled", hotpatch_track="on_track")
    some = make_sets(random.Random(3))[1]
    VmUpdateStateFactory(vm=vm, patch_set=some)
    person = UserFactory()
    RoleAssignmentFactory(user=person, scope=Scope.RESOURCE_GROUP, resource_group=vm.resource_group)
    costs = []
    for count in (1, 5):
        waiting = [
            ["ws2022", f"5{number:06}", "An update", "2026-05-12", "guard.type_unknown", 9, [some.pk if number else 0]]
            for number in range(count)
        ]
        WordsClock.objects.update_or_create(pk=1, defaults={"news": {"ages": [], "waiting": waiting}})
        with CaptureQueriesContext(connection) as queries:
            news = load_news(User.objects.get(pk=person.pk))
        costs.append(len(queries))
        assert [(item.kb_number, item.machines) for item in news.waiting] == [
            (f"5{number:06}", 1) for number in range(1, count)
        ]
    assert costs[0] == costs[1]


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


def test_a_fleet_too_large_to_count_is_led_to_without_numbers(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no counter keeps is not counted where the page would wait for it."""
    make_fleet(5, count=12)
    cover(random.Random(5))
    user = UserFactory(is_superuser=True)
    assert "Not counted here" not in page_of(client, user)
    monkeypatch.setattr(overview_selectors, "MOST_COVERAGE_COUNTED", 1)
    page = page_of(client, user)
    assert "Not counted here: there are too many machines." in page
    assert f'href="{LIST}?coverage=several">List</a>' in page
