"""The laws of the operation engine, on a real PostgreSQL and with real threads."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import RFC_4122, UUID, uuid4

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from connectors.protocol import (
    Capability,
    ConnectorError,
    Observation,
    ObserveRequest,
    Progress,
    Started,
    StartRequest,
)
from patching.lifecycle import MAX_START_ATTEMPTS
from patching.terms import OperationKind, OperationState, ProductLine, RunStatus, Verification
from tests.factories import OperationFactory
from tests.updates.world import (
    DEFENDER,
    DOT_NET,
    PLAN,
    ScriptedConnector,
    found,
    in_threads,
    installed,
    make_connection,
    make_due,
    make_vms,
    run,
)
from updates.engine.claim import claim_due
from updates.engine.sweep import sweep
from updates.engine.transition import Change, IllegalTransitionError, transition
from updates.models import (
    Bucket,
    Operation,
    OperationEvent,
    Patch,
    PatchResult,
    PatchSet,
    Priority,
    VmUpdateState,
)
from updates.selectors.vm_facts import load_vm_facts
from updates.services.assessments import ensure_patches
from updates.services.operations import (
    PlanError,
    RequestVerdict,
    cancel_operations,
    database_now,
    request_assessments,
    request_installations,
)

S = OperationState
UNREACHABLE = ConnectorError("connector.unreachable", is_retryable=True, nothing_was_sent=True)
TIMEOUT = ConnectorError("connector.timeout", is_retryable=True)
REFUSED = ConnectorError("agent.not_ready", "the agent said no\x00")


def assess(*vms, **fields) -> list:
    return request_assessments(vm_ids=[vm.pk for vm in vms], requested_by=None, **fields)


def install(*vms, plan=PLAN, **fields) -> list:
    return request_installations(vm_ids=[vm.pk for vm in vms], plan=plan, requested_by=None, **fields)


def claimed(*, priorities=(0, 1, 2), **fields) -> list:
    return [row for claim in claim_due(priorities=priorities, **fields) for row in claim.rows]


def state_of(operation_id) -> str:
    return Operation.objects.get(pk=operation_id).state


# --- asking ------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_second_assessment_joins_the_first_and_a_finished_one_makes_room():
    (vm,) = make_vms()
    first, second = assess(vm)[0], assess(vm)[0]
    assert (first.verdict, second.verdict) == (RequestVerdict.ACCEPTED, RequestVerdict.JOINED)
    assert second.operation_id == first.operation_id
    connector = ScriptedConnector()
    run(connector)
    run(connector)
    assert state_of(first.operation_id) == S.SUCCEEDED
    assert assess(vm)[0].verdict is RequestVerdict.ACCEPTED


@pytest.mark.django_db
def test_an_installation_cancels_a_queued_assessment_and_waits_behind_a_running_one():
    queued, running = make_vms(2)
    (assessment,) = assess(queued)
    assert install(queued)[0].verdict is RequestVerdict.ACCEPTED
    assert state_of(assessment.operation_id) == S.CANCELLED

    (assessment,) = assess(running)
    connector = ScriptedConnector(on_observe=lambda _r: Observation(progress=Progress("assessing")))
    run(connector)
    assert state_of(assessment.operation_id) == S.IN_PROGRESS
    (installation,) = install(running)
    assert installation.verdict is RequestVerdict.ACCEPTED
    make_due()
    assert installation.operation_id not in {o.pk for o in claimed()}


@pytest.mark.django_db
def test_an_open_installation_refuses_everything_else_and_names_itself():
    (vm,) = make_vms()
    (installation,) = install(vm)
    for outcome in (install(vm)[0], assess(vm)[0]):
        assert outcome.verdict is RequestVerdict.REFUSED
        assert outcome.code == "conflict.installation_open"
        assert outcome.operation_id == installation.operation_id


@pytest.mark.django_db
def test_every_vm_of_a_bulk_request_gets_its_own_answer_in_a_fixed_number_of_queries(
    django_assert_num_queries,
):
    connection_row = make_connection()
    few, many = make_vms(2, connection=connection_row), make_vms(200, connection=connection_row)
    install(few[0], many[0])
    with django_assert_num_queries(6):  # one asks for connections whose kind has budgets
        few_outcomes = assess(*few, is_bulk=True)
    with django_assert_num_queries(6):
        many_outcomes = assess(*many, is_bulk=True)
    assert Counter(o.verdict for o in few_outcomes) == {RequestVerdict.ACCEPTED: 1, RequestVerdict.REFUSED: 1}
    assert Counter(o.verdict for o in many_outcomes) == {RequestVerdict.ACCEPTED: 199, RequestVerdict.REFUSED: 1}
    assert set(Operation.objects.filter(kind="assessment").values_list("priority", flat=True)) == {Priority.BULK}


@pytest.mark.django_db
def test_the_same_form_sent_twice_makes_one_installation_and_a_foreign_id_is_refused():
    mine, other = make_vms(2)
    operation_id = uuid4()
    assert install(mine, operation_id=operation_id)[0].verdict is RequestVerdict.ACCEPTED
    again = install(mine, operation_id=operation_id)[0]
    assert (again.verdict, again.operation_id) == (RequestVerdict.JOINED, operation_id)
    tampered = install(other, operation_id=operation_id)[0]
    assert (tampered.verdict, tampered.operation_id) == (RequestVerdict.REFUSED, None)


@pytest.mark.django_db
def test_ids_begin_with_their_time_so_that_a_history_grows_at_its_end():
    vms = make_vms(3)
    before = time.time()
    ids = [outcome.operation_id for outcome in assess(*vms)]
    assert len(set(ids)) == 3
    assert {(pk.version, pk.variant) for pk in ids} == {(7, RFC_4122)}
    for pk in ids:
        assert before - 0.001 <= (pk.int >> 80) / 1_000 <= time.time()


@pytest.mark.django_db(transaction=True)
def test_rapid_clicks_in_real_threads_make_one_operation():
    (vm,) = make_vms()
    outcomes = [rows[0] for rows in in_threads(8, lambda _n: assess(vm))]
    assert Counter(o.verdict for o in outcomes) == {RequestVerdict.ACCEPTED: 1, RequestVerdict.JOINED: 7}
    assert Operation.objects.count() == 1

    (vm,) = make_vms(prefix="other", connection=vm.connection)
    outcomes = [rows[0] for rows in in_threads(8, lambda n: install(vm) if n % 2 else assess(vm))]
    open_kinds = Counter(Operation.objects.open().filter(vm=vm).values_list("kind", flat=True))
    assert open_kinds == {"installation": 1}
    assert sum(o.verdict is RequestVerdict.ACCEPTED for o in outcomes) <= 2


@pytest.mark.django_db
def test_a_plan_with_neither_class_nor_kb_is_refused():
    (vm,) = make_vms()
    with pytest.raises(PlanError):
        install(vm, plan=replace(PLAN, classifications=frozenset()))
    assert not Operation.objects.exists()


# --- the one writer ----------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_of_eight_threads_that_race_one_transition_one_wins_and_one_line_is_written():
    (vm,) = make_vms()
    (outcome,) = install(vm)
    change = Change(outcome.operation_id, S.QUEUED, S.CANCELLED, event="operation.cancelled")
    winners = in_threads(8, lambda _n: transition(changes=[change], now=timezone.now()))
    assert sum(len(won) for won in winners) == 1
    assert OperationEvent.objects.filter(code="operation.cancelled").count() == 1


@pytest.mark.django_db
def test_a_transition_the_lifecycle_forbids_writes_nothing():
    (vm,) = make_vms()
    (outcome,) = assess(vm)
    with pytest.raises(IllegalTransitionError):
        transition(changes=[Change(outcome.operation_id, S.QUEUED, S.SUCCEEDED)], now=timezone.now())
    assert state_of(outcome.operation_id) == S.QUEUED


@pytest.mark.django_db
def test_postgresql_itself_refuses_two_operations_in_flight_on_one_vm():
    (vm,) = make_vms()
    now = timezone.now()
    row = {"vm": vm, "connection": vm.connection, "created_at": now, "next_step_at": now}
    Operation.objects.create(kind="assessment", state="in_progress", **row)
    with pytest.raises(IntegrityError, match="updates_operation_one_in_flight"), transaction.atomic():
        Operation.objects.create(kind="installation", state="starting", **row)
    Operation.objects.create(kind="installation", state="queued", **row)
    with pytest.raises(IntegrityError, match="updates_operation_one_queued"), transaction.atomic():
        Operation.objects.create(kind="installation", state="queued", **row)
    with pytest.raises(IntegrityError, match="updates_operation_ended_or_due"), transaction.atomic():
        Operation.objects.create(kind="assessment", state="succeeded", **row)


@pytest.mark.django_db
def test_cancel_ends_what_is_queued_and_leaves_what_has_started():
    queued, running = make_vms(2)
    (waiting,), (going,) = install(queued), install(running)
    make_due()
    Operation.objects.filter(pk=waiting.operation_id).update(next_step_at=timezone.now() + timedelta(hours=1))
    run(ScriptedConnector(on_observe=lambda _r: Observation(progress=Progress("installing"))))
    cancelled = cancel_operations(operation_ids=[waiting.operation_id, going.operation_id], requested_by=None)
    assert cancelled == {waiting.operation_id}
    assert state_of(going.operation_id) == S.IN_PROGRESS


# --- claiming ----------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_six_threads_claim_two_hundred_rows_and_none_twice_until_the_lease_ends():
    vms = make_vms(200)
    assess(*vms)

    def claim(_n: int) -> list:
        taken = []
        while rows := claimed(limit=7):
            taken.extend(row.pk for row in rows)
        return taken

    taken = [pk for rows in in_threads(6, claim) for pk in rows]
    assert len(taken) == 200
    assert len(set(taken)) == 200
    make_due()
    assert len(claimed(limit=500)) == 200


@pytest.mark.django_db
def test_of_two_queued_operations_of_one_vm_one_is_claimed_and_holds_up_nobody():
    vm, other = make_vms(2)
    for kind, machine in (("assessment", vm), ("rollback", vm), ("assessment", other)):
        OperationFactory(vm=machine, kind=kind, created_at=timezone.now(), next_step_at=timezone.now())
    assert sorted(row.vm_id for row in claimed()) == sorted([vm.pk, other.pk])
    assert Operation.objects.filter(vm=vm, state="queued").count() == 1
    assert not claimed()


@pytest.mark.django_db
def test_interactive_comes_first_then_looks_then_bulk_starts():
    connection_row = make_connection()
    bulk, look, click = make_vms(3, connection=connection_row)
    assess(look, is_bulk=True)
    run(ScriptedConnector(on_observe=lambda _r: Observation(progress=Progress("assessing"))))
    assess(bulk, is_bulk=True)
    assess(click)
    make_due()
    order = [o.vm_id for o in claimed()]
    assert order == [click.pk, look.pk, bulk.pk]
    make_due()
    assert bulk.pk not in {o.vm_id for o in claimed(priorities=[Priority.INTERACTIVE, Priority.OBSERVE])}


@pytest.mark.django_db
def test_a_worker_for_other_kinds_of_connections_leaves_an_operation_alone():
    (vm,) = make_vms(1)
    assess(vm)
    connector = ScriptedConnector()
    assert sweep(connection_kinds=["azure"], connector_factory=lambda _row, _catalogue: connector) == 0
    assert sweep(connection_kinds=["azure", "simulator"], connector_factory=lambda _row, _catalogue: connector) > 0


@pytest.mark.django_db
def test_a_paused_connection_starts_nothing_and_its_looks_go_on():
    connection_row = make_connection()
    running, waiting = make_vms(2, connection=connection_row)
    assess(running)
    connector = ScriptedConnector(on_observe=lambda _r: Observation(progress=Progress("assessing")))
    run(connector)
    assess(waiting)
    connection_row.paused_until = timezone.now() + timedelta(minutes=5)
    connection_row.save()
    make_due()
    connector.on_observe = ScriptedConnector().on_observe
    run(connector)
    states = dict(Operation.objects.values_list("vm_id", "state"))
    assert states == {running.pk: S.SUCCEEDED, waiting.pk: S.QUEUED}


@pytest.mark.django_db
def test_a_connection_never_runs_more_than_its_cap():
    connection_row = make_connection(max_in_flight=3)
    assess(*make_vms(8, connection=connection_row))
    connector = ScriptedConnector(on_observe=lambda _r: Observation(progress=Progress("assessing")))
    for _ in range(3):
        make_due()
        run(connector, seconds=0.5)
        assert Operation.objects.in_flight().count() == 3
    connector.on_observe = ScriptedConnector().on_observe
    for _ in range(6):
        make_due()
        run(connector, seconds=0.5)
    assert Operation.objects.filter(state=S.SUCCEEDED).count() == 8


@pytest.mark.django_db(transaction=True)
def test_two_workers_together_never_exceed_the_cap():
    connection_row = make_connection(max_in_flight=5)
    assess(*make_vms(40, connection=connection_row))
    connector = ScriptedConnector(on_observe=lambda _r: Observation(progress=Progress("x"), look_again_after=60))
    in_threads(4, lambda _n: run(connector, seconds=1))
    assert Operation.objects.in_flight().count() == 5
    assert sum(connector.starts.values()) == 5


@pytest.mark.django_db
def test_a_token_bucket_limits_starts_and_refills_by_the_database_clock():
    connection_row = make_connection(starts_per_minute=4)
    assess(*make_vms(10, connection=connection_row))
    connector = ScriptedConnector(on_observe=lambda _r: Observation(progress=Progress("x"), look_again_after=60))
    run(connector, seconds=1)
    make_due()
    run(connector, seconds=0.5)
    assert sum(connector.starts.values()) == 4
    Bucket.objects.update(refilled_at=timezone.now() - timedelta(seconds=31))
    make_due(Operation.objects.filter(state=S.QUEUED))
    run(connector, seconds=0.5)
    assert sum(connector.starts.values()) == 6


# --- starting: at most once --------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_start_that_provably_was_not_sent_goes_back_to_the_queue_and_gives_up_in_the_end():
    (vm,) = make_vms()
    (outcome,) = install(vm)
    connector = ScriptedConnector(on_start=lambda _r: UNREACHABLE)
    for attempt in range(1, MAX_START_ATTEMPTS):
        run(connector)
        row = Operation.objects.get()
        assert (row.state, row.attempts) == (S.QUEUED, attempt)
        assert row.next_step_at > database_now()
        make_due()
    run(connector)
    row = Operation.objects.get()
    assert (row.state, row.error_code) == (S.FAILED, "connector.unreachable")
    assert connector.starts[outcome.operation_id] == MAX_START_ATTEMPTS


@pytest.mark.django_db
def test_a_start_that_is_refused_for_good_fails_and_says_why():
    (vm,) = make_vms()
    (outcome,) = assess(vm)
    run(ScriptedConnector(on_start=lambda _r: REFUSED))
    row = Operation.objects.get(pk=outcome.operation_id)
    assert (row.state, row.error_code, row.error_detail) == (
        S.FAILED,
        "agent.not_ready",
        "the agent said no",
    )
    assert VmUpdateState.objects.get(vm=vm).error_code == "agent.not_ready"


@pytest.mark.django_db
def test_a_start_nobody_can_vouch_for_is_never_sent_again():
    (vm,) = make_vms()
    (outcome,) = install(vm)
    connector = ScriptedConnector(on_start=lambda _r: TIMEOUT)
    run(connector)
    assert state_of(outcome.operation_id) == S.STARTING
    make_due()
    run(connector, priorities=[Priority.INTERACTIVE])
    row = Operation.objects.get(pk=outcome.operation_id)
    assert (row.state, row.error_code) == (S.FAILED, "start.unconfirmed")
    assert connector.starts[outcome.operation_id] == 1
    assert Operation.objects.filter(kind="assessment", vm=vm).exists()


@pytest.mark.django_db
def test_an_unconfirmed_start_bars_installations_until_an_assessment_has_answered():
    (vm,) = make_vms()
    install(vm)
    connector = ScriptedConnector(
        on_start=lambda r: TIMEOUT if r.kind is OperationKind.INSTALLATION else Started("h", 0)
    )
    run(connector)
    make_due()
    claimable = ScriptedConnector(on_start=lambda _r: UNREACHABLE)
    run(claimable)
    assert install(vm)[0].code == "vm.awaiting_assessment"
    for _ in range(2):
        make_due()
        run(connector)
    assert install(vm)[0].verdict is RequestVerdict.ACCEPTED


@pytest.mark.django_db
@pytest.mark.parametrize(("arrived", "starts"), [(True, 1), (False, 2)])
def test_where_the_connector_can_find_a_request_its_word_decides(arrived, starts):
    (vm,) = make_vms()
    (outcome,) = install(vm)
    connector = ScriptedConnector(
        capabilities=frozenset({Capability.FIND_BY_REQUEST}),
        on_start=lambda _r: TIMEOUT,
        on_find=lambda r: Started(f"found-{r.request_id}", 0) if arrived else None,
    )
    run(connector)
    connector.on_start = ScriptedConnector().on_start
    for _ in range(4):
        make_due()
        run(connector)
    assert state_of(outcome.operation_id) == S.SUCCEEDED
    assert connector.starts[outcome.operation_id] == starts


@pytest.mark.django_db
def test_an_idempotent_connector_gets_the_same_request_id_again_after_a_worker_died_while_sending():
    (vm,) = make_vms()
    (outcome,) = install(vm)

    def die(_request: StartRequest) -> Started:
        raise SystemExit  # what a killed worker looks like from inside: nothing after the send is written

    connector = ScriptedConnector(capabilities=frozenset({Capability.IDEMPOTENT_START}), on_start=die)
    with pytest.raises(SystemExit):
        run(connector)
    assert state_of(outcome.operation_id) == S.STARTING
    assert run(connector) == 0, "the lease keeps it from everybody else"
    make_due()
    connector.on_start = ScriptedConnector().on_start
    run(connector)
    run(connector)
    assert state_of(outcome.operation_id) == S.SUCCEEDED
    assert set(connector.starts) == {outcome.operation_id}
    assert OperationEvent.objects.filter(code="operation.recovered").count() == 1


@pytest.mark.django_db
def test_a_worker_that_slept_through_its_lease_sends_nothing(monkeypatch):
    (vm,) = make_vms()
    (outcome,) = assess(vm)
    connector = ScriptedConnector()
    monkeypatch.setattr("updates.engine.claim.send_seconds", lambda _traits: -1.0)
    run(connector, seconds=0.2)
    assert not connector.starts
    assert state_of(outcome.operation_id) == S.QUEUED


@pytest.mark.django_db(transaction=True)
def test_six_workers_start_each_of_two_hundred_operations_once_and_end_them_all():
    connection_row = make_connection()
    vms = make_vms(200, connection=connection_row)
    assess(*vms[:100], is_bulk=True)
    install(*vms[100:])
    connector = ScriptedConnector(capabilities=frozenset({Capability.IDEMPOTENT_START}))

    def work(_n: int) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and Operation.objects.open().exists():
            run(connector, seconds=1)

    in_threads(6, work)
    assert set(Operation.objects.values_list("state", flat=True)) == {S.SUCCEEDED}
    assert Operation.objects.count() == 200
    assert set(connector.starts.values()) == {1}


# --- looking and ending ------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_batch_that_failed_before_anything_was_sent_is_sent_one_by_one(monkeypatch):
    """Also by a connector that can neither send twice nor be asked: this worker knows that it sent nothing."""
    outcomes = install(*make_vms(3, connection=make_connection()))

    def stumbles(vm_ids, catalogue):
        if len(vm_ids) > 1:
            raise OperationalError("terminating connection")
        return load_vm_facts(vm_ids, catalogue)

    monkeypatch.setattr("updates.engine.work.load_vm_facts", stumbles)
    connector = ScriptedConnector()
    run(connector)
    assert connector.starts == {outcome.operation_id: 1 for outcome in outcomes}
    assert {state_of(outcome.operation_id) for outcome in outcomes} == {S.SUCCEEDED}


@pytest.mark.django_db
def test_a_batch_with_one_item_the_connector_chokes_on_ends_all_the_others():
    connection_row = make_connection()
    good, bad = make_vms(2, connection=connection_row)
    assess(good, bad)

    def choke(request: ObserveRequest) -> Observation:
        if request.vm.vm_id == bad.pk:
            raise ValueError("garbage")
        return Observation(assessment=found(DEFENDER))

    connector = ScriptedConnector(on_observe=choke)
    run(connector)
    states = dict(Operation.objects.values_list("vm_id", "state"))
    assert states == {good.pk: S.SUCCEEDED, bad.pk: S.IN_PROGRESS}
    assert run(connector) == 0, "the lease keeps one bad row from spinning"


@pytest.mark.django_db
def test_an_assessment_whose_answer_is_ready_is_written_once():
    (vm,) = make_vms()
    (outcome,) = assess(vm)
    connector = ScriptedConnector()
    with CaptureQueriesContext(connection) as captured:
        assert run(connector) == 1
    assert state_of(outcome.operation_id) == S.SUCCEEDED
    writes = [query["sql"] for query in captured if "SET state" in query["sql"]]
    assert len(writes) == 2, "the start and the end"


def test_a_state_that_is_passed_on_the_way_must_be_on_the_way():
    change = Change(uuid4(), S.QUEUED, S.SUCCEEDED, through=S.IN_PROGRESS)
    with pytest.raises(IllegalTransitionError):
        transition(changes=[change], now=timezone.now())


GARBAGE = {
    "nothing": lambda answers: [None] * len(answers),
    "a page": lambda answers: ["\x00<html>"] * len(answers),
    "too many": lambda answers: [*answers, *answers],
    "too few": lambda answers: answers[:-1],
    "no list": lambda _answers: None,
}


@pytest.mark.django_db
@pytest.mark.parametrize("spoil", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("is_helpful", [True, False])
def test_garbage_in_answer_to_a_start_starts_nothing_twice(spoil, is_helpful: bool):
    """Only what was not answered is in doubt."""
    vms = make_vms(3)
    install(*vms)
    helped = frozenset({Capability.IDEMPOTENT_START}) if is_helpful else frozenset()
    connector = SpoiltConnector(capabilities=helped, spoil_start=spoil)
    for _ in range(2):
        run(connector)
        make_due()
    connector.spoil_start = list
    for _ in range(4):
        run(connector)
        make_due()
    ends = set(Operation.objects.filter(kind="installation").values_list("state", "error_code"))
    if is_helpful:
        assert ends == {("succeeded", "")}
    else:
        answered = {("succeeded", "")} if spoil is GARBAGE["too few"] else set()
        assert ends == {("failed", "start.unconfirmed")} | answered
        assert {connector.starts[pk] for pk in installations()} == {1}, "never sent again"
    assert not Operation.objects.open().exists()


@pytest.mark.django_db
@pytest.mark.parametrize("spoil", GARBAGE.values(), ids=GARBAGE)
def test_garbage_in_answer_to_a_look_costs_another_look(spoil):
    vms = make_vms(3)
    install(*vms)
    connector = SpoiltConnector(spoil_look=spoil)
    for _ in range(4):
        run(connector)
        make_due()
    assert set(Operation.objects.values_list("state", flat=True)) == {S.IN_PROGRESS}
    connector.spoil_look = list
    run(connector)
    assert set(Operation.objects.filter(kind="installation").values_list("state", flat=True)) == {S.SUCCEEDED}
    assert {connector.starts[pk] for pk in installations()} == {1}


def installations() -> set[UUID]:
    return set(Operation.objects.filter(kind="installation").values_list("pk", flat=True))


@dataclass
class SpoiltConnector(ScriptedConnector):
    """Whatever it answers arrives spoilt."""

    spoil_start: Callable[[list], object] = list
    spoil_look: Callable[[list], object] = list

    def start(self, requests, *, now, until):
        for chunk in super().start(requests, now=now, until=until):
            yield self.spoil_start(chunk)

    def observe(self, requests, *, now):
        return self.spoil_look(super().observe(requests, now=now))


@pytest.fixture
def step_clock(db) -> Callable[[float], None]:
    """Step the database's clock, the only one that operations are measured by."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE SCHEMA stepping; CREATE TABLE stepping.clock AS SELECT 0.0::double precision AS seconds;"
            "CREATE FUNCTION stepping.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS"
            " 'SELECT pg_catalog.clock_timestamp() + make_interval(secs => (SELECT seconds FROM stepping.clock))';"
            "SET LOCAL search_path = stepping, pg_catalog, public"
        )

    def step(seconds: float) -> None:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE stepping.clock SET seconds = seconds + %s", [seconds])

    return step


@pytest.mark.parametrize("seconds", [-3_600.0, -5.0, 5.0, 3_600.0])
def test_a_clock_that_steps_while_an_installation_runs_neither_loses_nor_doubles_it(step_clock, seconds: float):
    (vm,) = make_vms()
    (outcome,) = install(vm)
    running = Observation(progress=Progress("installing", index=1, total=1), look_again_after=1)
    connector = ScriptedConnector(on_observe=lambda _request: running)
    run(connector)
    step_clock(seconds)
    run(connector)
    assert state_of(outcome.operation_id) == S.IN_PROGRESS
    step_clock(max(0.0, -seconds) + 2)  # time goes on
    connector.on_observe = ScriptedConnector().on_observe
    run(connector)
    assert state_of(outcome.operation_id) == S.SUCCEEDED
    assert connector.starts == {outcome.operation_id: 1}


@pytest.mark.parametrize("seconds", [-3_600.0, 3_600.0])
def test_a_clock_that_steps_between_the_request_and_its_start_only_shifts_it(step_clock, seconds: float):
    (vm,) = make_vms()
    (outcome,) = install(vm)
    step_clock(seconds)
    connector = ScriptedConnector()
    run(connector)
    step_clock(max(0.0, -seconds) + 1)
    run(connector)
    assert state_of(outcome.operation_id) == S.SUCCEEDED
    assert connector.starts == {outcome.operation_id: 1}


@pytest.mark.django_db
def test_silence_past_the_deadline_ends_an_installation_and_bars_the_next_one():
    (vm,) = make_vms()
    (outcome,) = install(vm)
    connector = ScriptedConnector(on_observe=lambda _r: TIMEOUT)
    run(connector)
    Operation.objects.update(deadline_at=timezone.now() - timedelta(seconds=1))
    make_due()
    run(connector, seconds=0.5)
    row = Operation.objects.get(pk=outcome.operation_id)
    assert (row.state, row.error_code) == (S.FAILED, "connector.silent")
    assert row.verification == Verification.NOT_VERIFIABLE
    assert install(vm)[0].code == "vm.awaiting_assessment"
    assert Operation.objects.filter(kind="assessment", vm=vm).exists()


@pytest.mark.django_db
@pytest.mark.parametrize("is_choking", [False, True])
def test_what_ended_while_the_portal_was_stopped_for_days_ends_as_it_did(is_choking: bool):
    done, silent = make_vms(2)
    (first,), (second,) = install(done), install(silent)
    connector = ScriptedConnector(on_observe=lambda _r: Observation(progress=Progress("installing")))
    run(connector)
    Operation.objects.update(deadline_at=timezone.now() - timedelta(days=2))
    make_due()

    def look(request):
        if request.vm.vm_id == done.pk:
            return Observation(installation=installed(DEFENDER, final=found(DOT_NET)))
        if is_choking:
            raise ValueError("the connector chokes on this machine")
        return Observation(progress=Progress("installing"))

    connector.on_observe = look
    run(connector, seconds=0.5)
    assert state_of(first.operation_id) == S.SUCCEEDED
    row = Operation.objects.get(pk=second.operation_id)
    assert (row.state, row.error_code) == (S.FAILED, "connector.silent")


@pytest.mark.django_db
def test_a_running_installation_shows_what_it_does_and_a_reboot_on_its_timeline():
    (vm,) = make_vms()
    (outcome,) = install(vm)
    script = iter(
        [
            Observation(progress=Progress("installing", "5084071", "Update", 1, 2, 0.2), look_again_after=0),
            Observation(progress=Progress("installing", "5084071", "Update", 1, 2, 0.3), look_again_after=0),
            Observation(progress=Progress("installing", "890830", "Tool", 2, 2, 0.6), look_again_after=0),
            Observation(is_rebooting=True, progress=Progress("rebooting"), look_again_after=0),
            Observation(progress=Progress("verifying"), look_again_after=0),
            Observation(installation=installed(DOT_NET, final=found(DEFENDER))),
        ]
    )
    connector = ScriptedConnector(on_observe=lambda _r: next(script))
    run(connector)
    events = list(OperationEvent.objects.values_list("code", flat=True))
    assert events == [
        "operation.requested",
        "operation.starting",
        "operation.started",
        "patch.installing",
        "patch.installing",
        "operation.rebooting",
        "operation.rebooted",
        "operation.finished",
    ]
    row = Operation.objects.get(pk=outcome.operation_id)
    assert (row.state, row.installed_count) == (S.SUCCEEDED, 1)
    assert PatchResult.objects.get().patch.kb_number == "5084071"


@pytest.mark.django_db
def test_equal_findings_share_one_patch_set_and_a_routine_assessment_writes_no_event():
    vms = make_vms(5)
    assess(*vms)
    run(ScriptedConnector())
    assert PatchSet.objects.count() == 1
    assert PatchSet.objects.get().patches.count() == 2
    assert VmUpdateState.objects.filter(patch_set__isnull=False).count() == 5
    assert not OperationEvent.objects.exists()


@pytest.mark.django_db
def test_a_machine_whose_image_names_no_product_line_is_summarised_by_the_build_that_was_found():
    (vm,) = make_vms()
    vm.image_sku, vm.enable_hotpatching = "2022-datacenter-azure-edition", False
    vm.save()
    assess(vm)
    result = found(DOT_NET, os_build="20348.5139")
    run(ScriptedConnector(on_observe=lambda _r: Observation(assessment=result)))
    vm.refresh_from_db()
    assert (vm.update_status, vm.hotpatch_status) == ("updates_available", "NotAvailable")


@pytest.mark.django_db
def test_the_engine_knows_a_machine_by_the_build_that_its_image_version_names():
    (vm,) = make_vms()
    vm.image_sku, vm.image_exact_version, vm.enable_hotpatching = "unknown", "26100.6899.251012", False
    vm.save()
    assess(vm)
    connector = ScriptedConnector()
    run(connector)
    assert [request.vm.product_line for request in connector.start_order] == [ProductLine.WS2025]


@pytest.mark.django_db
def test_a_failed_assessment_keeps_what_was_known_and_says_why():
    (vm,) = make_vms()
    assess(vm)
    run(ScriptedConnector())
    known = VmUpdateState.objects.get()
    assess(vm)
    bad = replace(found(), status=RunStatus.FAILED, error=ConnectorError("assessment.failed"))
    run(ScriptedConnector(on_observe=lambda _r: Observation(assessment=bad)))
    state = VmUpdateState.objects.get()
    assert (state.patch_set_id, state.last_assessed_at) == (known.patch_set_id, known.last_assessed_at)
    assert state.error_code == "assessment.failed"


@pytest.mark.django_db
def test_without_a_final_assessment_the_next_one_verifies_the_installation():
    truth, lie = make_vms(2)
    (honest,), (liar,) = install(truth), install(lie)

    def observe(request: ObserveRequest) -> Observation:
        if request.kind is OperationKind.INSTALLATION:
            return Observation(installation=installed(DOT_NET))
        return Observation(assessment=found(*([DOT_NET] if request.vm.vm_id == lie.pk else [])))

    connector = ScriptedConnector(on_observe=observe)
    run(connector)
    run(connector)
    assert Operation.objects.get(pk=honest.operation_id).verification == Verification.CONFIRMED
    assert Operation.objects.get(pk=liar.operation_id).verification == Verification.CONTRADICTED


@pytest.mark.django_db
def test_steps_cost_the_same_queries_for_two_and_for_two_hundred():
    from django.test.utils import CaptureQueriesContext

    connection_row = make_connection()
    assess(*make_vms(1, connection=connection_row, prefix="first"))
    run(ScriptedConnector())  # the first sight of a patch set writes it; from then on it is only referred to
    costs = []
    for count in (2, 200):
        assess(*make_vms(count, connection=connection_row, prefix=f"n{count}"))
        with CaptureQueriesContext(connection) as captured:
            run(ScriptedConnector())
        costs.append(len(captured))
    assert costs[0] == costs[1]


@pytest.mark.django_db(transaction=True)
def test_new_patches_seen_by_many_at_once_in_any_order_make_nobody_wait_for_ever():
    """Each of these transactions writes the same new patches in two statements, half of them in the other order."""
    news = [replace(DOT_NET, kb_number=str(5_900_000 + n)) for n in range(6)]
    together = threading.Barrier(6)

    def work(number: int) -> None:
        first, second = (news[:3], news[3:]) if number % 2 else (news[3:], news[:3])
        together.wait()
        with transaction.atomic():
            ensure_patches(first)
            time.sleep(0.05)
            ensure_patches(second)

    in_threads(6, work)
    assert Patch.objects.filter(kb_number__startswith="59").count() == 6
