"""At most one start, by connectors that are slow, that fail in the middle, and that say what is not true."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction
from django.utils import timezone

from connectors.protocol import (
    Capability,
    ConnectorError,
    Observation,
    Pace,
    Progress,
    StartChunk,
    Started,
    StartRequest,
    Traits,
)
from patching.terms import OperationState
from tests.updates.world import (
    PLAN,
    ScriptedConnector,
    in_threads,
    make_connection,
    make_due,
    make_vms,
    run,
)
from updates.engine import record
from updates.engine import sweep as sweeping
from updates.engine.claim import STOPPING, claim_due
from updates.engine.sweep import SlowConnections, sweep
from updates.engine.telemetry import Called, Moved, on_called, on_moved
from updates.models import ConnectionPace, Operation, OperationEvent
from updates.services.operations import request_assessments, request_installations
from vms.models import Connection, VirtualMachine

S = OperationState
RUNS = Observation(progress=Progress("installing"), look_again_after=60)


@dataclass
class Streaming(ScriptedConnector):
    """Sends one after another, or some at a time, and does in between what the test wants."""

    chunk: int = 1
    before_each: Callable[[int], object] = lambda _number: None
    spoil: Callable[[StartChunk, int], StartChunk] = lambda chunk, _number: chunk

    def start(self, requests: Iterator[StartRequest], *, now: datetime, until: float) -> Iterator[StartChunk]:
        number = 0
        while True:
            self.before_each(number)
            drawn = list(islice(requests, self.chunk))
            if not drawn:
                return
            self.starts.update(request.request_id for request in drawn)
            yield self.spoil([(request.request_id, self.on_start(request)) for request in drawn], number)
            number += 1


def install(vms: list[VirtualMachine]) -> list[UUID]:
    outcomes = request_installations(vm_ids=[vm.pk for vm in vms], plan=PLAN, requested_by=None)
    return [outcome.operation_id for outcome in outcomes if outcome.operation_id]


def states() -> Counter[str]:
    return Counter(Operation.objects.filter(kind="installation").values_list("state", flat=True))


def started(_request: StartRequest) -> Started:
    return Started("h", look_again_after=60)


# --- one after another -------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_each_start_is_recorded_before_the_next_is_sent() -> None:
    install(make_vms(4))
    seen = []
    run(Streaming(on_start=started, before_each=lambda _n: seen.append(states()["in_progress"])))
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.django_db
def test_a_connector_that_fails_in_the_middle_leaves_in_doubt_what_it_drew_and_nothing_else() -> None:
    install(make_vms(5))

    def fail(number: int) -> None:
        if number == 2:
            raise RuntimeError("the line went dead")

    connector = Streaming(on_start=started, before_each=fail)
    run(connector, seconds=0.3)
    assert states() == {"in_progress": 2, "queued": 3}, "it failed before it drew the third"
    rows = Operation.objects.filter(state="queued")
    assert set(rows.values_list("attempts", "error_code")) == {(0, "")}
    assert not OperationEvent.objects.filter(operation__in=rows, code="operation.start_deferred").exists()

    def fail_after_drawing(chunk: StartChunk, _number: int) -> StartChunk:
        raise RuntimeError("sent, and the line went dead")

    make_due(rows)
    run(replace(connector, before_each=lambda _n: None, spoil=fail_after_drawing), seconds=0.3)
    assert states() == {"in_progress": 2, "starting": 1, "queued": 2}


LIES: dict[str, Callable[[StartChunk, int], object]] = {
    "unknown id": lambda chunk, _n: [(uuid4(), chunk[0][1])],
    "twice": lambda chunk, _n: [*chunk, *chunk],
    "no id": lambda chunk, _n: [(None, chunk[0][1])],
    "nothing": lambda _chunk, _n: [],
    "no answer": lambda chunk, _n: [(chunk[0][0], None)],
    "no handle": lambda chunk, _n: [(chunk[0][0], Started(None))],  # type: ignore[arg-type]
    "no time": lambda chunk, _n: [(chunk[0][0], Started("h", look_again_after=float("nan")))],
}


@pytest.mark.django_db
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
@pytest.mark.parametrize(
    "capability", [None, Capability.FIND_BY_REQUEST, Capability.IDEMPOTENT_START], ids=lambda c: str(c)
)
def test_what_a_lying_connector_does_not_answer_is_recovered_and_never_queued(
    lie: Callable[[StartChunk, int], StartChunk], capability: Capability | None
) -> None:
    ids = install(make_vms(3))
    connector = Streaming(
        capabilities=frozenset({capability} if capability else ()),
        on_start=started,
        on_find=started,
        spoil=lambda chunk, n: lie(chunk, n) if n == 1 else chunk,
        on_observe=lambda _r: RUNS,
    )
    run(connector, seconds=0.3)
    assert states() == {"in_progress": 2, "starting": 1}
    make_due()
    run(replace(connector, spoil=lambda chunk, _n: chunk), seconds=0.3)
    if capability is None:
        assert states() == {"in_progress": 2, "failed": 1}
        assert Operation.objects.get(state="failed").error_code == "start.unconfirmed"
    else:
        assert states() == {"in_progress": 3}
    sent = 2 if capability is Capability.IDEMPOTENT_START else 1
    assert sorted(connector.starts[pk] for pk in ids) == [1, 1, sent]


@pytest.mark.django_db
def test_what_was_answered_already_is_not_unsaid() -> None:
    install(make_vms(2))
    first: list[UUID] = []

    def again(chunk: StartChunk, number: int) -> StartChunk:
        first.append(chunk[0][0])
        return chunk if number == 0 else [(first[0], ConnectorError("connector.timeout")), *chunk]

    run(Streaming(on_start=started, spoil=again), seconds=0.3)
    assert states() == {"in_progress": 2}


# --- in the time there is ----------------------------------------------------------------------------------------


def sluggish(seconds: float) -> Callable[[int], object]:
    """Takes this long for every start."""
    return lambda _number: time.sleep(seconds)


@pytest.mark.django_db
def test_what_is_unsent_when_the_time_is_over_goes_back_untouched(settings) -> None:
    settings.OPERATION_SEND_SECONDS = 0.5
    install(make_vms(10))
    connector = Streaming(on_start=started, before_each=sluggish(0.2))
    run(connector, seconds=0.1)
    sent = sum(connector.starts.values())
    assert 1 <= sent <= 3
    assert states() == {"in_progress": sent, "queued": 10 - sent}
    rows = Operation.objects.filter(state="queued")
    assert set(rows.values_list("attempts", "error_code")) == {(0, "")}
    assert max(rows.values_list("next_step_at", flat=True)) <= timezone.now(), "due at once"
    assert not OperationEvent.objects.filter(code="operation.start_deferred").exists()


@pytest.mark.django_db
def test_the_next_claim_takes_no_more_than_the_connection_was_seen_to_send(settings) -> None:
    settings.OPERATION_SEND_SECONDS = 1.0
    vms = make_vms(30)
    install(vms)
    run(Streaming(on_start=started, before_each=sluggish(0.2)), seconds=0.1)
    pace = ConnectionPace.objects.get(connection=vms[0].connection)
    assert pace.start_seconds is not None
    assert 0.15 < pace.start_seconds < 0.6
    (claim,) = claim_due(priorities=[0, 1, 2])
    assert len(claim.rows) == max(1, int(1.0 / pace.start_seconds))


@pytest.mark.django_db
def test_a_kind_that_declares_its_pace_and_its_longest_call_is_believed() -> None:
    install(make_vms(30))
    slow = Traits(call_seconds=12, pace=Pace(start_seconds=2))
    (claim,) = claim_due(priorities=[0, 1, 2], traits_of=lambda _pk: slow)
    assert claim.until - claim.claimed_at == 8, "30 s of sweep, 8 s to send, 12 s for the last call: 50 s"
    assert len(claim.rows) == 4
    assert claim.expected_seconds == 8


@pytest.mark.django_db
def test_a_quick_connector_leaves_no_pace_behind() -> None:
    install(make_vms(5))
    run(ScriptedConnector())
    assert not ConnectionPace.objects.exists()


@pytest.mark.django_db
def test_a_process_that_ends_begins_no_call_and_gives_back_what_it_claimed() -> None:
    install(make_vms(4))
    connector = Streaming(on_start=started, before_each=lambda n: STOPPING.set() if n == 2 else None)
    try:
        run(connector)
    finally:
        STOPPING.clear()
    assert states() == {"in_progress": 2, "queued": 2}


@pytest.mark.django_db
def test_a_worker_that_was_stopped_beyond_its_lease_speaks_no_longer_for_its_operations() -> None:
    """It may not put back into the queue what another worker is sending meanwhile."""
    install(make_vms(2))
    (claim,) = claim_due(priorities=[0, 1, 2])
    make_due(Operation.objects.all())
    (other,) = claim_due(priorities=[0, 1, 2])
    assert {row.pk for row in other.rows} == {row.pk for row in claim.rows}
    rows = [(row, timedelta(0)) for row in claim.rows]
    record.requeue(rows, "", now=claim.present, leased_until=claim.leased_until, is_attempt=False)
    record.fail(
        [(row, ConnectorError("agent.not_ready")) for row in claim.rows],
        now=claim.present,
        leased_until=claim.leased_until,
    )
    record.give_up(claim.rows, "start.unconfirmed", now=claim.present, leased_until=claim.leased_until)
    assert states() == {"starting": 2}
    record.give_up(other.rows, "start.unconfirmed", now=other.present, leased_until=other.leased_until)
    assert states() == {"failed": 2}


@pytest.mark.django_db
def test_a_start_that_cannot_be_found_out_ends_at_its_deadline() -> None:
    install(make_vms(1))
    lost = ConnectorError("connector.timeout", is_retryable=True)
    connector = ScriptedConnector(
        capabilities=frozenset({Capability.FIND_BY_REQUEST}), on_start=lambda _r: lost, on_find=lambda _r: lost
    )
    for _ in range(3):
        run(connector, seconds=0.2)
        make_due()
    assert states() == {"starting": 1}
    Operation.objects.update(deadline_at=timezone.now() - timedelta(seconds=1))
    run(connector, seconds=0.2)
    assert Operation.objects.get(kind="installation").error_code == "start.unconfirmed"
    assert set(connector.starts.values()) == {1}


@pytest.mark.django_db
def test_refused_with_nothing_sent_says_nothing_about_an_earlier_start() -> None:
    """A worker died while it sent; the second start is refused. Whether the first arrived is still open."""
    install(make_vms(1))
    connector = ScriptedConnector(
        capabilities=frozenset({Capability.IDEMPOTENT_START}),
        on_start=lambda _r: ConnectorError("connector.timeout", is_retryable=True),
    )
    run(connector, seconds=0.2)
    busy = ConnectorError("connector.throttled", is_retryable=True, nothing_was_sent=True)
    make_due()
    run(replace(connector, on_start=lambda _r: busy), seconds=0.2)
    assert states() == {"starting": 1}


# --- beside each other -------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_connections_share_a_claim_equally_and_the_rest_is_for_those_that_have_more() -> None:
    many, few = make_connection("many"), make_connection("few")
    install(make_vms(50, connection=many))
    install(make_vms(3, connection=few))
    taken = {claim.connection_id: len(claim.rows) for claim in claim_due(priorities=[0, 1, 2], limit=20)}
    assert taken == {many.pk: 10, few.pk: 3}
    taken = {claim.connection_id: len(claim.rows) for claim in claim_due(priorities=[0, 1, 2], limit=20)}
    assert taken == {many.pk: 20}


@pytest.mark.django_db
def test_a_connection_that_cannot_be_made_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    broken, sound = make_connection("broken"), make_connection("sound")
    install(make_vms(2, connection=broken))
    install(make_vms(2, connection=sound))

    def make(row: Connection, _catalogue: object) -> ScriptedConnector:
        if row == broken:
            raise ValueError("no such seed")
        return ScriptedConnector()

    sweep(seconds=5, connector_factory=make)
    assert dict(Operation.objects.filter(kind="installation").values_list("connection", "state")) == {
        broken.pk: "queued",
        sound.pk: "succeeded",
    }


@pytest.mark.django_db(transaction=True)
def test_a_slow_connection_works_beside_a_quick_one(settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten starts of 0.2 s wait on one; on the other everything is over before the first three of them."""
    monkeypatch.setattr(sweeping, "SLOW_SECONDS", 0.1)
    slow, quick = make_connection("slow"), make_connection("quick")
    install(make_vms(10, connection=slow))
    install(make_vms(200, connection=quick))
    connectors = {
        slow.pk: Streaming(traits=Traits(pace=Pace(start_seconds=0.2)), on_start=started, before_each=sluggish(0.2)),
        quick.pk: ScriptedConnector(),
    }
    began = time.monotonic()
    done: list[float] = []

    def look(request: object) -> Observation:
        done.append(time.monotonic() - began)
        return ScriptedConnector().on_observe(request)  # type: ignore[arg-type]

    connectors[quick.pk].on_observe = look
    sweep(seconds=10, connector_factory=lambda row, _catalogue: connectors[row.pk])
    by_connection = Counter(Operation.objects.filter(kind="installation").values_list("connection", "state"))
    assert by_connection == {(slow.pk, "in_progress"): 10, (quick.pk, "succeeded"): 200}
    assert len(done) == 200
    assert max(done) < time.monotonic() - began, "the slow one was still at work"


@pytest.mark.django_db
def test_where_as_many_slow_connections_are_at_work_as_may_be_another_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "SLOW_CONNECTIONS", 0)
    slow, quick = make_connection("slow"), make_connection("quick")
    install(make_vms(2, connection=slow))
    install(make_vms(2, connection=quick))
    traits = {slow.pk: Traits(pace=Pace(start_seconds=5)), quick.pk: Traits()}
    connectors = {pk: ScriptedConnector(traits=own) for pk, own in traits.items()}
    sweep(seconds=0.5, connector_factory=lambda row, _catalogue: connectors[row.pk])
    assert not connectors[slow.pk].starts
    assert sum(connectors[quick.pk].starts.values()) == 2


# --- S6, fifteen times faster -------------------------------------------------------------------------------------

SCALE = 15  # lease 6 s, 1 s for sending, starts of 7 ms and of 0.33 s


@dataclass
class Park:
    """Machines that write down every start that reaches them, and when."""

    received: dict[UUID, list[float]] = field(default_factory=dict)
    killed: set[UUID] = field(default_factory=set)
    counts: Counter[float] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, request: StartRequest, seconds: float) -> int:
        """Receive it; how many this connector has received by now."""
        with self.lock:
            self.counts[seconds] += 1
            self.received.setdefault(request.request_id, []).append(time.time())
            return self.counts[seconds]


@dataclass
class Machines(ScriptedConnector):
    """Needs `seconds` for a start; every so often the worker is killed in the middle of one."""

    park: Park = field(default_factory=Park)
    seconds: float = 0.0
    kill_every: int = 0

    def start(self, requests: Iterator[StartRequest], *, now: datetime, until: float) -> Iterator[StartChunk]:
        for request in requests:
            time.sleep(self.seconds / 2)
            number = self.park.take(request, self.seconds)
            time.sleep(self.seconds / 2)
            if number % self.kill_every == 0:
                self.park.killed.add(request.request_id)
                raise SystemExit  # as a killed worker: nothing after the send is written
            yield [(request.request_id, started(request))]

    def find(self, requests, *, now):
        return [started(r) if r.request_id in self.park.received else None for r in requests]


@pytest.mark.django_db(transaction=True)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the kills
@pytest.mark.parametrize(
    "capability", [None, Capability.FIND_BY_REQUEST, Capability.IDEMPOTENT_START], ids=lambda c: str(c)
)
def test_slow_starts_under_four_workers_and_kills_are_neither_doubled_nor_disowned(
    capability: Capability | None, settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.OPERATION_LEASE_SECONDS = 90 / SCALE
    settings.OPERATION_SWEEP_SECONDS, settings.OPERATION_SEND_SECONDS = 30 / SCALE, 15 / SCALE
    settings.CELERY_TASK_SOFT_TIME_LIMIT = 50 / SCALE
    monkeypatch.setattr(sweeping, "SLOW_SECONDS", 1 / SCALE)
    monkeypatch.setattr(sweeping, "LOOK_AGAIN_SECONDS", 0.05)
    park = Park()
    rows = {name: make_connection(name) for name in ("brisk", "slow")}
    install(make_vms(90, connection=rows["brisk"]))
    install(make_vms(10, connection=rows["slow"]))
    paces = {rows["brisk"].pk: (0.1, 40), rows["slow"].pk: (5.0, 5)}

    def make(row: Connection, _catalogue: object) -> Machines:
        seconds, kill_every = paces[row.pk]
        return Machines(
            capabilities=frozenset({capability} if capability else ()),
            traits=Traits(call_seconds=5 / SCALE, pace=Pace(start_seconds=seconds / SCALE)),
            on_observe=lambda _r: RUNS,
            park=park,
            seconds=seconds / SCALE,
            kill_every=kill_every,
        )

    deadline = time.monotonic() + 60
    waiting = Operation.objects.filter(kind="installation", state__in=["queued", "starting"])

    def work(_number: int) -> None:
        beside = SlowConnections()
        while waiting.exists() and time.monotonic() < deadline:
            try:
                sweep(connector_factory=make, beside=beside)
            except SystemExit:
                connection.close()

    in_threads(4, work)
    assert not waiting.exists()
    failed = dict(Operation.objects.filter(state="failed").values_list("pk", "finished_at"))
    if capability is not Capability.IDEMPOTENT_START:
        assert {len(times) for times in park.received.values()} == {1}, "nothing was started twice"
    assert set(failed) & set(park.received) <= park.killed, "nothing was disowned whose worker lived"
    late = [pk for pk, at in failed.items() if max(park.received.get(pk, [0.0])) > at.timestamp()]
    assert not late, "nothing was sent after it had been reported"
    assert park.killed, "workers were killed"
    if capability is not None:
        assert not failed


# --- told to whoever counts --------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_every_set_that_moves_and_every_call_is_told_once() -> None:
    moved: list[Moved] = []
    called: list[Called] = []
    on_moved.append(moved.append)
    on_called.append(called.append)
    try:
        (vm, *_rest) = vms = make_vms(3)
        request_assessments(vm_ids=[machine.pk for machine in vms], requested_by=None)
        run(ScriptedConnector())
        with transaction.atomic():
            install(vms)
            claim_due(priorities=[0, 1, 2])
            transaction.set_rollback(True)  # nothing moved
    finally:
        on_moved.remove(moved.append)
        on_called.remove(called.append)
    assert [(m.kind, m.from_state, m.to_state, m.outcome, m.count) for m in moved] == [
        ("assessment", "queued", "starting", "", 3),
        ("assessment", "starting", "succeeded", "", 3),
    ]
    assert [(c.connection_id, c.call, c.outcome, c.count) for c in called] == [
        (vm.connection_id, "observe", "answered", 3),
        (vm.connection_id, "start", "answered", 3),
    ]
