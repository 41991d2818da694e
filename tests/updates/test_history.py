"""The history of the fleet: every number on it leads to just that many operations, and nobody sees another's machines."""

from __future__ import annotations

import csv
import io
import random
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from audit.models import AuditEvent
from audit.tags import Tag
from tests.factories import (
    ConnectionFactory,
    OperationFactory,
    PatchFactory,
    ResourceGroupFactory,
    RoleAssignmentFactory,
    SubscriptionFactory,
    UserFactory,
    VirtualMachineFactory,
)
from tests.plans import plan_in_order
from updates.models import BulkOutcome, BulkRequest, Operation, Patch, PatchResult, Rollout, RolloutMember
from updates.selectors.fleet_history import NEWEST_FIRST, HistoryAsked, Result, Search, load_history
from updates.selectors.fleet_history_export import EXPORTED
from updates.texts import HRESULTS, LearnPage
from vms.choices import Scope
from vms.models import Grants, ResourceGroup, VirtualMachine
from vms.selectors import ListTooSlowError

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)
URL = "/history/"
MOST_QUERIES = 12  # two of them for the number in the top bar, where a rollout of one's own is paused
STATES = ("succeeded", "succeeded", "completed_with_warnings", "failed", "failed", "cancelled", "queued")
CODES = ("0x80070643", "0X80070643", "0x8024402c", "connector.silent", "")


@pytest.fixture(autouse=True)
def _then(settings: Any) -> object:
    settings.STATEMENT_TIMEOUT_MS = 60_000  # how busy the machine is decides nothing here
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


def an_operation(own: random.Random, vm: VirtualMachine, patches: list[Patch], people: list[User]) -> Operation:
    state = own.choice(STATES)
    at = NOW - timedelta(hours=own.choice((1, 20, 100, 160, 300, 700, 900)), seconds=own.randint(0, 3))
    kind = own.choice(("installation", "installation", "rollback", "settings", "assessment"))
    is_open = state == "queued" and not Operation.objects.filter(vm=vm, kind=kind, state="queued").exists()
    state = state if is_open or state != "queued" else "failed"
    run: Operation = OperationFactory(
        vm=vm,
        kind=kind,
        state=state,
        created_at=at,
        finished_at=None if is_open else at + timedelta(minutes=5),
        next_step_at=at if is_open else None,
        error_code=own.choice(("patch.failed", *CODES)) if state in {"failed", "completed_with_warnings"} else "",
        verification=own.choice(("", "confirmed", "contradicted")),
        requested_by=own.choice((None, *people)),
    )
    if kind == "installation" and not is_open:
        PatchResult.objects.bulk_create(
            PatchResult(
                operation=run,
                patch=patch,
                state=(fate := own.choice(("Failed", "Installed", "Pending", "Excluded"))),
                error_code=own.choice(CODES) if fate == "Failed" else "",
            )
            for patch in own.sample(patches, own.randint(0, 3))
        )
    return run


def make_history(seed: int, *, vms: int = 60, operations: int = 200) -> dict[str, User]:
    """Machines in 55 groups with operations of every kind, and readers of all, of 1 group, of 50, of 20 machines, of none."""
    own = random.Random(seed)
    subscriptions = [SubscriptionFactory(), SubscriptionFactory()]
    groups = [ResourceGroupFactory(subscription=own.choice(subscriptions), name=f"rg-{n:02}") for n in range(55)]
    sites = [ConnectionFactory(), ConnectionFactory()]
    machines = [
        VirtualMachineFactory(connection=own.choice(sites), resource_group=groups[n % 7 if n % 2 else n % 55])
        for n in range(vms)
    ]
    names = ("owner", "one", "fifty", "twenty", "both", "subscription", "none")
    people = {name: UserFactory(username=f"{name}-{seed}") for name in names}
    RoleAssignmentFactory(user=people["owner"], scope=Scope.EVERYTHING, role="owner")
    RoleAssignmentFactory(user=people["one"], scope=Scope.RESOURCE_GROUP, resource_group=groups[1])
    RoleAssignmentFactory(user=people["both"], scope=Scope.RESOURCE_GROUP, resource_group=groups[3])
    RoleAssignmentFactory(user=people["subscription"], scope=Scope.SUBSCRIPTION, subscription=subscriptions[0])
    for group in groups[:50]:
        RoleAssignmentFactory(user=people["fifty"], scope=Scope.RESOURCE_GROUP, resource_group=group)
    for vm in own.sample(machines, 20):
        RoleAssignmentFactory(user=people["twenty"], scope=Scope.VM, vm=vm)
        RoleAssignmentFactory(user=people["both"], scope=Scope.VM, vm=vm)
    patches = [PatchFactory(), PatchFactory(), PatchFactory(kb_number="", update_id="an-id")]
    for _ in range(operations):
        an_operation(own, own.choice(machines), patches, [people["owner"], people["one"]])
    return people


# --- every number is the number of rows it leads to -----------------------------------------------------------------


def page_of(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200, address
    return answer.content.decode()


def tiles_of(page: str) -> list[tuple[int, str]]:
    found = re.findall(r'<a class="tile" href="([^"]*)"[^>]*><span class="tile-number">\s*(\d+)\s*</span>', page)
    return [(int(number), unescape(address)) for address, number in found]


def groups_of(page: str) -> list[tuple[int, str]]:
    found = re.findall(r'data-label="Operations"><a href="([^"]*)"[^>]*>\s*(\d+)\s*×', page)
    return [(int(number), unescape(address)) for address, number in found]


def opened(client: Client, address: str) -> set[Any]:
    """The operations of all pages behind an address."""
    found: list[Any] = []
    cursor = ""
    while True:
        page = client.get(f"{address}&cursor={cursor}" if cursor else address).context["page"]
        found += [row.operation.pk for row in page.rows]
        if not page.next:
            assert len(found) == len(set(found))
            return set(found)
        cursor = page.next


def result_of(run: Operation) -> str:
    if run.state in {"succeeded", "completed_with_warnings"} and run.verification == "contradicted":
        return "contradicted"
    return run.state if run.finished_at else "not_ended"


def seen_by(user: User) -> list[Operation]:
    """By hand: the operations of the machines that these roles lead to."""
    kept = list(user.role_assignments.all()) if hasattr(user, "role_assignments") else None
    from vms.models import RoleAssignment

    roles = kept if kept is not None else list(RoleAssignment.objects.filter(user=user))
    return [
        run
        for run in Operation.objects.select_related("vm__resource_group")
        if any(
            role.scope == Scope.EVERYTHING
            or (role.vm_id and role.vm_id == run.vm_id)
            or (role.resource_group_id and role.resource_group_id == run.vm.resource_group_id)
            or (role.subscription_id and role.subscription_id == run.vm.resource_group.subscription_id)
            for role in roles
        )
    ]


QUERIES = ("?period=30&kind=all", "?by=portal&period=15", "?resource_group=RG-01")


@pytest.mark.parametrize("seed", [1])
def test_every_number_leads_to_just_that_many_operations(client: Client, seed: int) -> None:
    people = make_history(seed)
    compared = 0
    for name, user in people.items():
        client.force_login(user)
        mine = {run.pk for run in seen_by(user)}
        for query in QUERIES:
            page = page_of(client, URL + query)
            tiles, groups = tiles_of(page), groups_of(page)
            assert len(tiles) == 5
            for number, address in [*tiles, *groups[:4]]:
                rows = opened(client, address)
                assert len(rows) == number, (name, query, address)
                assert rows <= mine
                compared += 1
    assert compared > 100


@pytest.mark.parametrize("seed", [3])
def test_what_a_page_counts_is_what_can_be_counted_by_hand(client: Client, seed: int) -> None:
    people = make_history(seed)
    for name, user in people.items():
        client.force_login(user)
        since = NOW - timedelta(days=30)
        mine = [run for run in seen_by(user) if run.created_at >= since and run.kind != "assessment"]
        results = Counter(result_of(run) for run in mine)
        page = client.get(f"{URL}?period=30").context["page"]
        assert {tile.result: tile.count for tile in page.tiles} == {
            None: len(mine),
            **{
                result: results[result] for result in ("succeeded", "completed_with_warnings", "failed", "contradicted")
            },
        }, name
        for result in Result:
            wanted = {run.pk for run in mine if result_of(run) == result}
            assert opened(client, f"{URL}?period=30&result={result}") == wanted, (name, result)
        reasons: dict[tuple[str, str], set[Any]] = {}
        for run in mine:
            if run.state == "failed":
                failed = [row for row in run.results.select_related("patch") if row.state == "Failed"]
                told = {((row.error_code or run.error_code).upper(), row.patch.kb_number) for row in failed}
                for reason in told or {(run.error_code.upper(), "")}:
                    if reason[0]:
                        reasons.setdefault(reason, set()).add(run.pk)
        found = {(group.code.upper(), group.kb_number): group.count for group in page.groups}
        assert found == {reason: len(runs) for reason, runs in reasons.items()}, name
        for group in page.groups:
            runs = reasons[group.code.upper(), group.kb_number]
            assert opened(client, f"{URL}?{group.address}") == runs
            assert group.newest in runs


def test_filters_of_person_place_kb_and_reason_leave_just_what_they_say(client: Client) -> None:
    people = make_history(4)
    user = people["owner"]
    client.force_login(user)
    since = NOW - timedelta(days=30)
    everything = [run for run in seen_by(user) if run.created_at >= since]
    acts = [run for run in everything if run.kind != "assessment"]
    vm = acts[0].vm
    patch = Patch.objects.exclude(kb_number="").first()
    assert patch is not None
    worked = {"Failed", "Installed", "Pending"}
    expected = {
        "kind=all": everything,
        "kind=assessment": [run for run in everything if run.kind == "assessment"],
        "kind=assessment&result=failed": [r for r in everything if r.kind == "assessment" and r.state == "failed"],
        "by=me": [run for run in acts if run.requested_by_id == user.pk],
        "by=people": [run for run in acts if run.requested_by_id],
        "by=portal": [run for run in acts if run.requested_by_id is None],
        f"connection={vm.connection_id}": [run for run in acts if run.connection_id == vm.connection_id],
        f"subscription={vm.resource_group.subscription_id}": [
            run for run in acts if run.vm.resource_group.subscription_id == vm.resource_group.subscription_id
        ],
        f"kb=kb{patch.kb_number}": [run for run in acts if run.results.filter(patch=patch, state__in=worked).exists()],
        "reason=0x80070643": [
            run
            for run in acts
            if run.error_code.lower() == "0x80070643"
            or run.results.filter(state="Failed", error_code__iexact="0x80070643").exists()
        ],
    }
    for query, runs in expected.items():
        assert opened(client, f"{URL}?period=30&{query}") == {run.pk for run in runs}, query
        assert runs, query


def test_the_scope_of_another_reader_is_not_offered_and_shows_nothing(client: Client) -> None:
    people = make_history(5, operations=30)
    client.force_login(people["none"])
    for query in ("?connection=1", "?subscription=1", "?connection=999999999999"):
        answer = client.get(URL + query)
        assert answer.status_code == 422
        assert "Nothing is shown, because a filter cannot be read." in answer.content.decode()


@pytest.mark.parametrize(
    "query",
    [
        "?period=8", "?kind=nonsense", "?result=nonsense", "?kb=x", "?kb=5034129,5034130", "?by=nobody",
        "?reason=" + "x" * 61, "?resource_group=" + "x" * 91,
    ],
)  # fmt: skip
def test_a_filter_that_cannot_be_read_shows_nothing(client: Client, query: str) -> None:
    OperationFactory(installation=True, failed=True, created_at=NOW)
    client.force_login(UserFactory(is_superuser=True))
    answer = client.get(URL + query)
    assert answer.status_code == 422
    assert "/operations/" not in answer.content.decode()
    assert client.get(reverse("updates:history-export") + query).status_code == 422


# --- rows, pages ----------------------------------------------------------------------------------------------------


def test_a_row_says_what_the_code_means_and_leads_to_run_machine_and_what_it_is_part_of(client: Client) -> None:
    chief = UserFactory(is_superuser=True)
    runs = [OperationFactory(installation=True, failed=True, created_at=NOW, error_code="patch.failed") for _n in "ab"]
    patch = PatchFactory(kb_number="5087424")
    for run in runs:
        PatchResult.objects.create(
            operation=run, patch=patch, state="Failed", reason="class_selected", error_code="0x80070643"
        )
    rollout = Rollout.objects.create(
        name="Finance, May", source="on_demand", plan={}, created_at=NOW, created_by=chief, vm_count=1
    )
    RolloutMember.objects.create(rollout=rollout, vm=runs[0].vm, wave=0, operation=runs[0])
    bulk = BulkRequest.objects.create(kind="installation", requested_by=chief, vm_count=3)
    BulkOutcome.objects.create(request=bulk, vm=runs[1].vm, verdict="accepted", operation=runs[1])
    client.force_login(chief)
    page = page_of(client, URL)
    for run in runs:
        assert f'href="{reverse("updates:operation", args=[run.pk])}"' in page
        assert f'href="{reverse("updates:blade", args=[run.vm_id])}"' in page
    assert rollout.get_absolute_url() in page
    assert "Finance, May" in page
    assert bulk.get_absolute_url() in page
    assert "a request for 3 machines" in page
    assert "The installation of the update failed." in page
    assert "class is selected" not in page
    assert groups_of(page) == [(2, f"{URL}?period=7&result=failed&reason=0x80070643&kb=5087424")]
    shown = page_of(client, f"{URL}?reason=0x80070643&result=failed")
    assert "recovery partition" in unescape(shown)
    unknown = page_of(client, f"{URL}?reason=0x8abcdef0")
    assert "No meaning is recorded for 0x8abcdef0." in unknown
    # another reader of the machines does not see whose request it was part of
    other = UserFactory()
    for run in runs:
        RoleAssignmentFactory(user=other, scope=Scope.VM, vm=run.vm)
    client.force_login(other)
    page = page_of(client, URL)
    assert len(opened(client, URL + "?period=7")) == 2
    assert "Finance, May" not in page
    assert "a request for" not in page


def test_assessments_are_shown_only_where_they_are_asked_for(client: Client) -> None:
    run = OperationFactory(succeeded=True, created_at=NOW)
    client.force_login(UserFactory(is_superuser=True))
    assert str(run.pk) not in page_of(client, URL)
    assert str(run.pk) in page_of(client, URL + "?kind=assessment")
    assert str(run.pk) in page_of(client, URL + "?kind=all")


def test_pages_lead_through_everything_and_back(client: Client) -> None:
    vm = VirtualMachineFactory()
    for number in range(120):
        OperationFactory(
            vm=vm, kind=("installation", "rollback", "settings")[number % 3], succeeded=True,
            created_at=NOW - timedelta(minutes=number // 4),
        )  # fmt: skip
    user = UserFactory(is_superuser=True)
    asked = HistoryAsked()
    pages = [load_history(user, asked, now=NOW)]
    while pages[-1].next:
        pages.append(load_history(user, asked, now=NOW, cursor=pages[-1].next))
    rows = [row.operation for page in pages for row in page.rows]
    assert [len(page.rows) for page in pages] == [50, 50, 20]
    assert rows == sorted(rows, key=lambda row: (row.created_at, row.pk), reverse=True)
    assert len({row.pk for row in rows}) == 120
    back = load_history(user, asked, now=NOW, cursor=pages[2].previous)
    assert [row.operation.pk for row in back.rows] == [row.operation.pk for row in pages[1].rows]


def test_machines_that_are_gone_keep_their_history(client: Client) -> None:
    run = OperationFactory(installation=True, succeeded=True, created_at=NOW)
    VirtualMachine.objects.filter(pk=run.vm_id).update(gone_at=NOW)
    client.force_login(UserFactory(is_superuser=True))
    assert str(run.pk) in page_of(client, URL)


@pytest.mark.parametrize("address", [URL, "/history/runs/"])
def test_a_search_that_takes_too_long_is_told(client: Client, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    def give_up(*_args: object, **_named: object) -> None:
        raise ListTooSlowError

    run = OperationFactory(installation=True, succeeded=True, created_at=NOW)
    client.force_login(UserFactory(is_superuser=True))
    monkeypatch.setattr("updates.selectors.fleet_history.fetch_bounded", give_up)
    page = page_of(client, URL)
    assert str(run.pk) in page  # the rows are there, the numbers are not
    assert "Counting these operations took too long." in page
    assert "tile-number" not in page
    monkeypatch.setattr("updates.selectors.fleet_history.page_of", give_up)
    monkeypatch.setattr("updates.selectors.fleet_history_runs.fetch_bounded", give_up)
    assert "This list took too long. Narrow it down" in page_of(client, address)


def test_more_than_a_thousand_are_told_as_such(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    vm = VirtualMachineFactory()
    OperationFactory.create_batch(5, vm=vm, installation=True, failed=True, created_at=NOW)
    client.force_login(UserFactory(is_superuser=True))
    assert "1,000+" not in page_of(client, URL)
    Operation.objects.bulk_create(
        Operation(vm=vm, connection=vm.connection, kind="installation", state="failed", created_at=NOW, finished_at=NOW)
        for _n in range(1_000)
    )
    page = page_of(client, URL)
    assert page.count("1,000+") == 2  # all, and failed


# --- what it costs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [URL, URL + "?period=30&kind=all", "/history/runs/"])
def test_it_costs_the_same_however_much_was_done(client: Client, address: str) -> None:
    people: dict[str, User] = {}
    costs: list[dict[str, int]] = []
    for count in (4, 120):
        if not people:
            people = make_history(6, operations=count)
        else:
            own = random.Random(7)
            machines, patches = list(VirtualMachine.objects.all()), list(Patch.objects.all())
            for _ in range(count):
                an_operation(own, own.choice(machines), patches, [people["owner"]])
        for user in (people["owner"], people["one"], people["twenty"]):
            roll_out(user)
        cost = {}
        for name, user in people.items():
            client.force_login(user)
            client.get(address)
            with CaptureQueriesContext(connection) as queries:
                client.get(address)
            cost[name] = len(queries)
        costs.append(cost)
    assert costs[0] == costs[1]
    assert max(costs[0].values()) <= MOST_QUERIES, costs[0]


def roll_out(user: User) -> Rollout:
    """A rollout and a bulk request of this person, on all machines that he sees."""
    rollout = Rollout.objects.create(
        name=f"Of {user.username}", source="on_demand", plan={}, created_at=NOW, created_by=user, vm_count=9
    )
    vms = list(VirtualMachine.objects.visible_to(user)[:40])
    states = ("succeeded", "failed", "waiting")
    for number, vm in enumerate(vms):
        RolloutMember.objects.create(rollout=rollout, vm=vm, wave=0, status=states[number % 3])
    bulk = BulkRequest.objects.create(kind="installation", requested_by=user, vm_count=9, is_handed_out=True)
    bulk.blocks.create(number=0, vm_ids=[vm.pk for vm in vms])
    for vm in vms:
        run = OperationFactory(vm=vm, installation=True, failed=True, created_at=NOW)
        BulkOutcome.objects.create(request=bulk, vm=vm, verdict="accepted", operation=run)
    return rollout


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        (HistoryAsked(), "updates_operation_acts"),
        (HistoryAsked(kind="rollback"), "updates_operation_acts"),
        (HistoryAsked(kind="assessment"), "updates_operation_newest"),
        (HistoryAsked(result="succeeded"), "updates_operation_results"),
        (HistoryAsked(result="completed_with_warnings"), "updates_operation_results"),
        (HistoryAsked(result="failed"), "updates_operation_results"),
        (HistoryAsked(result="cancelled"), "updates_operation_results"),
        (HistoryAsked(result="contradicted"), "updates_operation_contradicted"),
    ],
)
def test_every_result_and_kind_is_read_in_order_out_of_an_index(asked: HistoryAsked, index: str) -> None:
    make_history(8, vms=20, operations=30)
    user = UserFactory(is_superuser=True)
    for branch in Search(user, Grants.of(user), asked, NOW).branches(asked):
        for rows in (branch.order_by(*NEWEST_FIRST.columns), branch):
            plan = plan_in_order(rows.values_list("pk")[:51], index=index)
            assert index in plan, plan
            assert "Sort  (" not in plan.replace("Incremental Sort  (", ""), plan  # ties of one moment
            assert "Seq Scan" not in plan, plan


# --- runs on many machines ------------------------------------------------------------------------------------------


def test_runs_on_many_machines_are_one_list_each_for_who_may_see_it(client: Client) -> None:
    people = make_history(9, operations=5)
    for name in ("owner", "one", "twenty"):
        roll_out(people[name])
    for name, count in (("owner", 6), ("one", 2), ("twenty", 2), ("fifty", 0), ("none", 0)):
        client.force_login(people[name])
        page = client.get("/history/runs/").context["page"]
        assert len(page.rows) == count, name
        for row in page.rows:
            assert row.counted is not None
            number = client.get(row.failed_address).context["page"]
            assert len(number.rows) == row.counted.failed
    client.force_login(people["owner"])
    assert len(client.get("/history/runs/?by=me").context["page"].rows) == 2
    assert len(client.get("/history/runs/?by=portal").context["page"].rows) == 0
    assert len(client.get("/history/runs/?kind=assessment").context["page"].rows) == 0
    assert client.get("/history/runs/?kind=x").status_code == 422


def test_pages_of_runs_lead_through_both_tables_and_back(client: Client) -> None:
    user = UserFactory(is_superuser=True)
    for number in range(60):
        at = NOW - timedelta(minutes=number // 3)
        if number % 2:
            Rollout.objects.create(name=str(number), source="on_demand", plan={}, created_at=at, created_by=user)
        else:
            row = BulkRequest.objects.create(kind="installation", requested_by=user)
            BulkRequest.objects.filter(pk=row.pk).update(created_at=at)
    client.force_login(user)
    first = client.get("/history/runs/").context["page"]
    second = client.get(f"/history/runs/?cursor={first.next}").context["page"]
    rows = [*first.rows, *second.rows]
    assert (len(first.rows), len(second.rows), second.next) == (50, 10, "")
    assert len({row.id for row in rows}) == 60
    assert rows == sorted(rows, key=lambda row: (row.created_at, row.id), reverse=True)
    back = client.get(f"/history/runs/?cursor={second.previous}").context["page"]
    assert [row.id for row in back.rows] == [row.id for row in first.rows]


# --- CSV, codes -----------------------------------------------------------------------------------------------------


def test_the_export_has_what_the_filters_leave_and_is_kept(client: Client) -> None:
    people = make_history(10)
    VirtualMachine.objects.update(name="=cmd()")
    client.force_login(people["fifty"])
    for query in ("?period=30", "?period=30&result=failed", "?period=30&kind=all&by=portal"):
        answer = client.get(reverse("updates:history-export") + query)
        text = b"".join(answer.streaming_content).decode()
        assert text.startswith("\ufeff")
        lines = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
        assert {line["activity_id"] for line in lines} == {str(pk) for pk in opened(client, URL + query)}
        assert {line["machine"] for line in lines} == {"'=cmd()"}
        assert tuple(lines[0]) == EXPORTED
        told = {line["meaning"] for line in lines if line["error_code"] == "connector.silent"}
        assert told <= {"The machine has not answered for an hour after the maximum duration."}
    event = AuditEvent.objects.filter(tag=Tag.HISTORY_EXPORT.value).order_by("pk").last()
    assert event is not None
    assert event.detail == {"filters": {"period": "30", "kind": "all", "by": "portal"}}


def test_the_table_of_codes_says_what_each_means_and_where_that_was_read(client: Client) -> None:
    client.force_login(UserFactory())
    page = unescape(page_of(client, "/history/codes/"))
    for code, words in HRESULTS.items():
        assert code in page
        assert str(words.title) in page
        assert words.symbol
        assert words.page is not None or not words.is_read
    assert {words.page for words in HRESULTS.values()} >= {LearnPage.COMMON, LearnPage.BY_COMPONENT, None}
    assert "General knowledge; no page of Microsoft was found" in page
    assert "not compared with the page" in page


@pytest.mark.parametrize("address", [URL, "/history/runs/", "/history/codes/"])
@pytest.mark.parametrize("language", ["en", "ja"])
def test_an_empty_history_is_a_page_in_both_languages(client: Client, address: str, language: str) -> None:
    client.cookies["django_language"] = language
    client.force_login(UserFactory(is_superuser=True))
    assert 'id="main"' in page_of(client, address)


def test_groups_of_other_readers_are_unknown_names(client: Client, resource_group: ResourceGroup, reader: User) -> None:
    """A name filters what the reader may see, and says nothing of what others have."""
    mine = OperationFactory(
        vm=VirtualMachineFactory(resource_group=resource_group), installation=True, succeeded=True, created_at=NOW
    )
    theirs = OperationFactory(installation=True, succeeded=True, created_at=NOW)
    client.force_login(reader)
    assert opened(client, f"{URL}?resource_group=RG-OURS") == {mine.pk}
    assert opened(client, f"{URL}?resource_group={theirs.vm.resource_group.name}") == set()


def test_product_line_and_tag_leave_just_their_machines(client: Client) -> None:
    tagged = VirtualMachineFactory(tags={"Env": "prod"}, product_line="ws2022")
    other = VirtualMachineFactory(tags={"env": "test"}, product_line="ws2025")
    runs = {vm: OperationFactory(vm=vm, installation=True, failed=True, created_at=NOW) for vm in (tagged, other)}
    reader = UserFactory()
    RoleAssignmentFactory(user=reader, scope=Scope.VM, vm=tagged)
    for user, seen in ((UserFactory(is_superuser=True), {tagged, other}), (reader, {tagged})):
        client.force_login(user)
        for query, meant in (
            ("?product_line=ws2022", {tagged}),
            ("?product_line=ws2025", {other}),
            ("?tag=env", {tagged, other}),
            ("?tag=ENV%3Dprod&product_line=ws2022", {tagged}),
            ("?tag=env%3DPROD", set()),
        ):
            assert opened(client, URL + query) == {runs[vm].pk for vm in meant & seen}, query
        assert client.get(f"{URL}?tag=%3Dprod").status_code == 422
        assert client.get(f"{URL}?product_line=ws1999").status_code == 422
