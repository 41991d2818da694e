"""Budgets: a storm in one bucket leaves the others alone, costs nobody an attempt, and the pages say how long it takes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from connectors.protocol import (
    BucketNews,
    Buckets,
    ConnectorError,
    Observation,
    Progress,
    StartChunk,
    Started,
    StartRequest,
    Traits,
)
from connectors.registry import KINDS, SIMULATOR
from tests.updates.world import PLAN, ScriptedConnector, in_threads, make_connection, make_due, make_vms, run
from updates.engine.budget import add_buckets, available, reserve, tell
from updates.engine.sweep import SlowConnections, sweep
from updates.models import Bucket, Operation, OperationEvent, Priority
from updates.selectors.waits import start_wait
from updates.services.operations import database_now, request_installations
from vms.models import Connection, VirtualMachine

pytestmark = pytest.mark.django_db
RUNS = Observation(progress=Progress("installing"), look_again_after=600)
BY_REGION = Buckets(name_of=lambda place: place.location, per_minute=60, burst=30)


@pytest.fixture
def by_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator's budget is shared out by region: 60 starts a minute each, 30 at once."""
    kind = KINDS[SIMULATOR]
    monkeypatch.setitem(KINDS, SIMULATOR, replace(kind, traits=replace(kind.traits, buckets=BY_REGION)))


def fleet(places: dict[str, int], row: Connection | None = None) -> Connection:
    """So many machines in each region, each with an installation asked for."""
    row = row or make_connection()
    for place, count in places.items():
        vms = make_vms(count, connection=row, prefix=place)
        VirtualMachine.objects.filter(pk__in=[vm.pk for vm in vms]).update(location=place)
        request_installations(vm_ids=[vm.pk for vm in vms], plan=PLAN, requested_by=None, is_bulk=True)
    return row


def states(place: str) -> Counter[str]:
    return Counter(Operation.objects.filter(vm__location=place, kind="installation").values_list("state", flat=True))


@dataclass
class Metered(ScriptedConnector):
    """The other side: each region grants a burst and then so many a second; what goes beyond is refused, and counts."""

    traits: Traits = Traits(buckets=BY_REGION)  # noqa: RUF009 (frozen)
    dry: set[str] = field(default_factory=set)
    asked: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def start(self, requests: Iterator[StartRequest], *, now: datetime, until: float) -> Iterator[StartChunk]:
        for request in requests:
            place = VirtualMachine.objects.values_list("location", flat=True).get(pk=request.vm.vm_id)
            with self.guard:
                self.asked[place] += 1
                self.starts[request.request_id] += 1
                if place in self.dry:
                    self.refused[place] += 1
                    answer: Started | ConnectorError = ConnectorError(
                        "connector.throttled",
                        is_retryable=True,
                        nothing_was_sent=True,
                        retry_after=600,
                        bucket=place,
                    )
                else:
                    answer = Started("h", look_again_after=600)
            yield [(request.request_id, answer)]


# --- what an operation is started out of -------------------------------------------------------------------------


def test_operations_name_the_budget_of_their_kind_and_others_have_their_connection_s_alone(by_region: None) -> None:
    row = fleet({"japaneast": 2, "WestUS": 1})
    assert Counter(Operation.objects.values_list("bucket", flat=True)) == {"japaneast": 2, "westus": 1}
    limits = set(Bucket.objects.filter(connection=row).values_list("name", "rate_per_minute", "burst", "tokens"))
    assert limits == {("japaneast", 60, 30, 30), ("westus", 60, 30, 30)}


def test_without_buckets_nothing_is_named() -> None:
    fleet({"japaneast": 2})
    assert set(Operation.objects.values_list("bucket", flat=True)) == {""}


def test_a_claim_takes_what_each_bucket_grants_and_the_connection_grants_in_all(by_region: None) -> None:
    row = fleet({"a": 50, "b": 5})
    connector = Metered(on_observe=lambda _r: RUNS)
    run(connector, seconds=0.2)
    assert states("b") == {"in_progress": 5}
    assert 30 <= states("a")["in_progress"] <= 32, "30 at once, and one for each second since"
    Connection.objects.filter(pk=row.pk).update(starts_per_minute=1)
    before = sum(connector.asked.values())
    Bucket.objects.filter(name="a").update(tokens=30)
    make_due(Operation.objects.filter(state="queued"))
    run(connector, seconds=0.2)
    assert sum(connector.asked.values()) <= before + 1, "the connection's own limit counts besides"


# --- a storm -----------------------------------------------------------------------------------------------------


def test_a_storm_in_one_bucket_makes_that_bucket_wait_and_no_other(by_region: None) -> None:
    fleet({"a": 25, "b": 25})
    connector = Metered(dry={"a"}, on_observe=lambda _r: RUNS)
    for _ in range(3):
        run(connector, seconds=0.3)
        make_due(Operation.objects.filter(state="queued"))
    assert states("b") == {"in_progress": 25}
    assert states("a") == {"queued": 25}
    assert connector.refused == {"a": 1}, "the first refusal rests the whole bucket"
    waiting = Operation.objects.filter(vm__location="a")
    assert set(waiting.values_list("attempts", "error_code")) == {(0, "")}
    assert not OperationEvent.objects.filter(operation__in=waiting, code="operation.start_deferred").exists()
    bucket = Bucket.objects.get(name="a")
    assert bucket.not_before is not None
    assert bucket.not_before > database_now() + timedelta(seconds=500)


def test_when_its_rest_is_over_everything_of_the_bucket_starts_by_its_rate(by_region: None) -> None:
    fleet({"a": 25})
    connector = Metered(dry={"a"}, on_observe=lambda _r: RUNS)
    run(connector, seconds=0.2)
    connector.dry.clear()
    later = timedelta(seconds=600)
    bucket = Bucket.objects.get(name="a")
    assert bucket.not_before is not None
    Bucket.objects.update(not_before=bucket.not_before - later, refilled_at=bucket.refilled_at - later)
    make_due(Operation.objects.filter(state="queued"))
    run(connector, seconds=0.3)
    assert states("a")["in_progress"] <= 3, "it comes back empty, not full"
    Bucket.objects.update(refilled_at=timezone.now() - timedelta(seconds=60))
    make_due(Operation.objects.filter(state="queued"))
    run(connector, seconds=0.3)
    assert states("a") == {"in_progress": 25}
    assert set(Operation.objects.values_list("error_code", flat=True)) == {""}


def test_a_refusal_that_is_only_the_machine_s_own_makes_that_machine_wait(by_region: None) -> None:
    fleet({"a": 3})
    own = ConnectorError("connector.throttled", is_retryable=True, nothing_was_sent=True, retry_after=30, bucket="vm:1")
    first: list[UUID] = []

    def answer(request: StartRequest) -> Started | ConnectorError:
        first.append(request.request_id)
        return own if request.request_id == first[0] else Started("h", look_again_after=600)

    run(ScriptedConnector(on_start=answer, on_observe=lambda _r: RUNS), seconds=0.2)
    assert states("a") == {"queued": 1, "in_progress": 2}
    (waiting,) = Operation.objects.filter(state="queued")
    assert (waiting.pk, waiting.attempts) == (first[0], 0)
    assert waiting.next_step_at is not None
    assert waiting.next_step_at > database_now() + timedelta(seconds=20)


def test_a_bucket_that_is_refused_for_ever_fails_nothing(by_region: None) -> None:
    fleet({"a": 2})
    connector = Metered(dry={"a"})
    for _ in range(12):
        run(connector, seconds=0.1)
        Bucket.objects.update(not_before=None, tokens=30)
        make_due(Operation.objects.filter(state="queued"))
    assert states("a") == {"queued": 2}
    assert connector.refused["a"] == 12


@pytest.mark.django_db(transaction=True)
def test_four_workers_together_stay_within_the_budget(by_region: None) -> None:
    fleet({"a": 120, "b": 10})
    connector = Metered(on_observe=lambda _r: RUNS)
    began = timezone.now()

    def work(_number: int) -> None:
        while timezone.now() < began + timedelta(seconds=4):
            sweep(seconds=1, connector_factory=lambda _row, _catalogue: connector, beside=SlowConnections())

    in_threads(4, work)
    seconds = (timezone.now() - began).total_seconds()
    assert 31 <= connector.asked["a"] <= 30 + seconds + 2, "the burst, and 60 a minute"
    assert connector.asked["b"] == 10
    assert set(connector.starts.values()) == {1}


# --- what the other side says ------------------------------------------------------------------------------------


def test_what_the_other_side_says_is_left_counts_more_than_what_was_reckoned(by_region: None) -> None:
    row = fleet({"a": 1})
    now = database_now()
    tell(row.pk, [BucketNews("a", remaining=4)], now)
    assert available(now)[row.pk].of("a") == 4
    assert reserve(row.pk, {"a": 3}, now) == {"a": 3}
    assert available(now)[row.pk].of("a") == 1
    assert available(now + timedelta(seconds=10))[row.pk].of("a") == 11, "it grows again by the rate"


def test_the_news_that_comes_with_a_start_is_kept_and_foreign_buckets_are_not(by_region: None) -> None:
    row = fleet({"a": 3})
    news = (BucketNews("a", remaining=7), BucketNews("elsewhere", remaining=0))
    run(ScriptedConnector(on_start=lambda _r: Started("h", 600, news), on_observe=lambda _r: RUNS), seconds=0.2)
    assert Bucket.objects.get(name="a").remaining == 7
    assert not Bucket.objects.filter(name="elsewhere").exists()
    assert available(database_now())[row.pk].of("a") >= 7


def test_a_bucket_without_a_rate_believes_what_it_was_told_for_a_minute() -> None:
    row = make_connection()
    now = database_now()
    add_buckets(row.pk, ["x"], now, per_minute=None, burst=None)
    tell(row.pk, [BucketNews("x", remaining=0)], now)
    assert available(now)[row.pk].of("x") == 0
    assert available(now + timedelta(seconds=61))[row.pk].of("x") == row.max_in_flight


def test_a_rest_is_never_shortened() -> None:
    row = make_connection()
    now = database_now()
    for seconds in (100.0, 5.0, None):
        tell(row.pk, [BucketNews("", is_dry=True, retry_after=seconds)], now)
    assert Bucket.objects.get(connection=row).not_before == now + timedelta(seconds=100)
    assert available(now + timedelta(seconds=99))[row.pk].whole == 0
    assert available(now + timedelta(seconds=101))[row.pk].whole == row.max_in_flight


def test_a_limit_that_is_set_later_begins_with_a_full_budget() -> None:
    row = make_connection()
    now = database_now()
    assert reserve(row.pk, {"": 4_000}, now) == {"": 4_000}
    Connection.objects.filter(pk=row.pk).update(starts_per_minute=60)
    assert available(now + timedelta(minutes=1))[row.pk].whole == 60


# --- how long it takes -------------------------------------------------------------------------------------------


def test_the_wait_is_what_is_queued_before_it_by_the_rate(by_region: None) -> None:
    fleet({"a": 90, "b": 2})
    now = database_now()
    Bucket.objects.update(tokens=0, refilled_at=now)
    rows = Operation.objects.filter(vm__location="a")
    last = rows.order_by("next_step_at", "pk").last()
    assert last is not None
    wait = start_wait(Operation.objects.filter(pk=last.pk), now=now)
    assert wait is not None
    assert wait.seconds == pytest.approx(90)
    assert start_wait(rows, now=now) == wait
    other = start_wait(Operation.objects.filter(vm__location="b"), now=now)
    assert other is not None
    assert other.seconds == pytest.approx(2)
    Bucket.objects.filter(name="a").update(not_before=now + timedelta(seconds=600))
    resting = start_wait(rows, now=now)
    assert resting is not None
    assert (resting.seconds, resting.is_resting) == (pytest.approx(690), True)


def test_where_no_budget_holds_anything_up_no_wait_is_told() -> None:
    fleet({"a": 5})
    assert start_wait(Operation.objects.all(), now=database_now()) is None
    assert start_wait(Operation.objects.filter(state="succeeded"), now=database_now()) is None


def test_of_a_paused_connection_no_wait_is_told(by_region: None) -> None:
    row = fleet({"a": 60})
    now = database_now()
    Bucket.objects.update(tokens=0, refilled_at=now)
    Connection.objects.filter(pk=row.pk).update(paused_until=now + timedelta(days=9_000))
    assert start_wait(Operation.objects.all(), now=now) is None


def test_an_interactive_request_does_not_wait_behind_bulk_work(by_region: None) -> None:
    row = fleet({"a": 60})
    (vm,) = make_vms(1, connection=row, prefix="click")
    VirtualMachine.objects.filter(pk=vm.pk).update(location="a")
    request_installations(vm_ids=[vm.pk], plan=PLAN, requested_by=None)
    now = database_now()
    Bucket.objects.update(tokens=0, refilled_at=now)
    wait = start_wait(Operation.objects.filter(vm=vm, priority=Priority.INTERACTIVE), now=now)
    assert wait is not None
    assert wait.seconds == pytest.approx(1)


def test_the_pages_that_wait_say_how_long(by_region: None, client: Client) -> None:
    fleet({"a": 300})
    Bucket.objects.update(tokens=0, refilled_at=database_now() + timedelta(seconds=5))
    client.force_login(User.objects.create(username="root", is_superuser=True))
    operation = Operation.objects.order_by("next_step_at", "pk").last()
    assert operation is not None
    told = "Only so many may start a minute: it starts in about 5 min."
    assert told in client.get(reverse("updates:operation", args=[operation.pk])).content.decode()
    assert told in client.get(reverse("updates:blade", args=[operation.vm_id])).content.decode()
