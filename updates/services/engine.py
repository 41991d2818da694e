"""The operation engine: claim what is due, decide its next step, do it, write what came of it (DESIGN, engine).

Messages are wake-ups only: a sweep carries no ids, claims due rows by the database's clock and works until none are
left or its time is over. Everything here takes collections; one operation is a collection of one.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any, TypeVar
from uuid import UUID

import structlog
from django.conf import settings
from django.db import IntegrityError, connection, transaction

from connectors import connector_for
from connectors.protocol import (
    Capability,
    Connector,
    ConnectorError,
    InstallationResult,
    Observation,
    ObserveRequest,
    PatchOutcome,
    Started,
    StartRequest,
)
from patching.lifecycle import (
    MAX_START_ATTEMPTS,
    Step,
    deadline_after,
    next_step,
    retry_delay,
    state_for,
)
from patching.rollback import RollbackOrder
from patching.terms import (
    InstallationPlan,
    InstallationState,
    OperationKind,
    OperationState,
    PatchSettings,
    RebootStatus,
    RunStatus,
    Verification,
)
from updates.models import IN_FLIGHT_STATES, Lane, Operation
from updates.plans import order_from_json, plan_from_json
from updates.selectors.catalogue import LoadedCatalogue, load_catalogue
from updates.selectors.connections import configuration_of
from updates.selectors.vm_facts import VmFacts, load_vm_facts
from updates.services.assessments import (
    Found,
    ensure_patches,
    record_assessments,
    record_failures,
    record_silence,
)
from updates.services.bulk import Block, are_waiting, hand_out_block
from updates.services.operations import (
    Begun,
    Change,
    database_now,
    request_assessments,
    transition,
    write_events,
)
from updates.services.room import rooms, take
from updates.services.verification import conclude, verify_earlier_installations
from vms.lookups import array, rowset
from vms.models import Connection
from vms.services.settings import record_settings

log = structlog.get_logger(__name__)

S = OperationState
INTERACTIVE_LANES = (Lane.INTERACTIVE, Lane.LOOK)
ALL_LANES = (Lane.INTERACTIVE, Lane.LOOK, Lane.BULK)
CLAIM_SIZE = 1_000
# A start that could not be sent within this long after its claim goes back to the queue instead (lease: 90 s).
SEND_WITHIN_SECONDS = 20.0
SETTINGS_LIMIT = timedelta(minutes=15)  # how long a change of settings may take
TURN_SECONDS = 1.0  # how long to wait for another worker to finish its block of a bulk request

ConnectorFactory = Callable[[Connection, LoadedCatalogue], Connector]
A = TypeVar("A")
B = TypeVar("B")


def connector_of(row: Connection, catalogue: LoadedCatalogue) -> Connector:
    """The connector behind a connection."""
    return connector_for(row.kind, configuration_of(row), catalogue=catalogue.facts)


def sweep(
    *,
    lanes: Sequence[int] = ALL_LANES,
    kinds: Sequence[str] = (),
    seconds: float = 30.0,
    connector_factory: ConnectorFactory = connector_of,
) -> int:
    """Work on due operations until none are left or the time is over; returns how many steps were made.

    With the bulk lane among `lanes`, waiting bulk requests are handed out as well, a block in turn with what is due.
    `kinds`: only those behind connections of these kinds; none named: all.
    """
    ends_at = time.monotonic() + seconds
    engine = _Engine(connector_factory)
    steps = 0
    patience = 0.0
    while time.monotonic() < ends_at:
        block = hand_out_block(kinds=kinds, wait_seconds=patience) if Lane.BULK in lanes else None
        if block is not None and block.begun:
            steps += engine.step(Claim.of(block))
        claim = claim_due(lanes=lanes, kinds=kinds)
        if claim.operations:
            steps += engine.step(claim)
            patience = 0.0
        elif block is None:
            if Lane.BULK not in lanes or not are_waiting():
                break
            patience = TURN_SECONDS  # there is nothing else to do; the next block may be ours
    return steps


# --- claiming ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Claimed:
    """A row in the engine's hands: what a step needs of it, read once."""

    pk: UUID
    vm_id: int
    connection_id: int
    kind: OperationKind
    state: OperationState
    lane: int
    is_bulk: bool
    plan: InstallationPlan | None
    rollback: RollbackOrder | None
    settings: PatchSettings | None
    handle: str
    created_at: datetime
    started_at: datetime | None
    is_past_deadline: bool
    attempts: int
    progress: Mapping[str, Any] | None
    os_build: str
    is_unsent: bool = False  # this worker has moved it to `starting` and has not asked the connector yet

    @property
    def longest(self) -> timedelta | None:
        """How long it may take."""
        if self.rollback is not None:
            return 2 * self.rollback.duration
        if self.settings is not None:
            return SETTINGS_LIMIT
        return self.plan.maximum_duration if self.plan else None

    def event(self, code: str) -> str:
        """The message id for an installation's timeline; a routine assessment has none."""
        return code if self.kind.changes_the_machine else ""

    @classmethod
    def begun(cls, begun: Begun) -> Claimed:
        """One that its request has begun."""
        return cls(
            pk=begun.operation_id,
            vm_id=begun.vm_id,
            connection_id=begun.connection_id,
            kind=begun.kind,
            state=S.STARTING,
            lane=Lane.BULK,
            is_bulk=True,
            plan=_plan(begun.plan) if begun.plan else None,
            rollback=None,
            settings=None,
            handle="",
            created_at=begun.created_at,
            started_at=begun.created_at,
            is_past_deadline=False,
            attempts=1,
            progress=None,
            os_build="",
            is_unsent=True,
        )

    def starting(self, now: datetime) -> None:
        """Follow the transition to `starting`, which this worker has just made."""
        self.state, self.started_at, self.attempts = S.STARTING, now, self.attempts + 1
        self.is_unsent = True

    @classmethod
    def of(cls, row: Sequence[Any]) -> Claimed:
        """The row as `_COLUMNS` reads it."""
        (
            pk,
            vm_id,
            connection_id,
            kind,
            state,
            lane,
            is_bulk,
            plan,
            handle,
            created,
            started,
            is_late,
            attempts,
            progress,
            os_build,
        ) = row
        return cls(
            pk=pk,
            vm_id=vm_id,
            connection_id=connection_id,
            kind=OperationKind(kind),
            state=S(state),
            lane=lane,
            is_bulk=is_bulk,
            plan=_plan(plan) if plan and kind == OperationKind.INSTALLATION else None,
            rollback=_order(plan) if plan and kind == OperationKind.ROLLBACK else None,
            settings=_settings(plan) if plan and kind == OperationKind.SETTINGS else None,
            handle=handle,
            created_at=datetime.fromisoformat(created),
            started_at=datetime.fromisoformat(started) if started else None,
            is_past_deadline=bool(is_late),
            attempts=attempts,
            progress=json.loads(progress) if progress else None,
            os_build=os_build or "",
        )


@lru_cache(maxsize=256)
def _plan(text: str) -> InstallationPlan:
    """The plan; all of a bulk request share one."""
    return plan_from_json(json.loads(text))


@lru_cache(maxsize=256)
def _order(text: str) -> RollbackOrder:
    """The order of a rollback."""
    return order_from_json(json.loads(text))


@lru_cache(maxsize=256)
def _settings(text: str) -> PatchSettings:
    """The settings that an operation carries; all of a change of many machines share a few."""
    return PatchSettings.from_json(json.loads(text))


@dataclass(frozen=True, slots=True)
class Claim:
    """Due operations that this worker alone may step until the lease ends. `now` is the database's clock."""

    operations: tuple[Claimed, ...]
    now: datetime
    claimed_at: float  # time.monotonic()

    @classmethod
    def of(cls, block: Block) -> Claim:
        """What a block of a bulk request has begun, all of it at the same moment."""
        return cls(tuple(map(Claimed.begun, block.begun)), block.begun[0].created_at, block.claimed_at)

    @property
    def present(self) -> datetime:
        """The database's clock as it must be by now."""
        return self.now + timedelta(seconds=time.monotonic() - self.claimed_at)

    @property
    def may_send(self) -> bool:
        """False when too much of the lease has passed for a start to be sent safely."""
        return time.monotonic() - self.claimed_at < SEND_WITHIN_SECONDS


# What a step needs of a row; as text what Python reads faster than the driver does.
_COLUMNS = """o.id, o.vm_id, o.connection_id, o.kind, o.state, o.lane, o.is_bulk, o.plan::text, o.handle, o.created_at::text,
    o.started_at::text, o.deadline_at <= clock_timestamp(), o.attempts, o.progress::text, s.os_build"""
_FROM = "updates_operation o LEFT JOIN updates_vmupdatestate s ON s.vm_id = o.vm_id"
# A paused or full connection keeps its queued rows out of the claim, and so does a VM with something in flight.
_DUE = f"""
SELECT {_COLUMNS} FROM {_FROM}
WHERE o.next_step_at <= clock_timestamp() AND o.lane = ANY(%(lanes)s)
  AND (%(kinds)s::text[] = '{{}}' OR o.connection_id IN (SELECT id FROM vms_connection WHERE kind = ANY(%(kinds)s)))
  AND (o.state <> 'queued' OR (
      o.connection_id = ANY(%(startable)s)
      AND NOT EXISTS (SELECT 1 FROM updates_operation b WHERE b.vm_id = o.vm_id AND b.state = ANY(%(in_flight)s))
  ))
ORDER BY o.lane, o.next_step_at LIMIT %(limit)s FOR UPDATE OF o SKIP LOCKED
"""  # noqa: S608 (columns are ours)
_LEASE = """
UPDATE updates_operation SET next_step_at = clock_timestamp() + make_interval(secs => %s) WHERE id = ANY(%s::uuid[])
"""
_READ = f"SELECT {_COLUMNS} FROM {_FROM} WHERE o.id = ANY(%s::uuid[]) AND o.next_step_at IS NOT NULL"  # noqa: S608 (columns are ours)


@transaction.atomic
def claim_due(*, lanes: Sequence[int], kinds: Sequence[str] = (), limit: int = CLAIM_SIZE) -> Claim:
    """Take up to `limit` due operations for one lease, in the order of their lanes. No row goes to two workers.

    What comes from the queue is in `starting` when this returns, `is_unsent`, and within its connection's room: once
    the claim is committed it may be sent. Where there was no room after all the rest is due again in 2 s.
    """
    now = database_now()
    with connection.cursor() as cursor:
        cursor.execute(
            _DUE,
            {
                "lanes": [int(lane) for lane in lanes],
                "kinds": list(kinds),
                "startable": [pk for pk, room in rooms(now).items() if room > 0],
                "in_flight": IN_FLIGHT_STATES,
                "limit": limit,
            },
        )
        rows = [Claimed.of(row) for row in cursor.fetchall()]
        if under_way := [row.pk for row in rows if row.state is not S.QUEUED]:
            cursor.execute(_LEASE, [settings.OPERATION_LEASE_SECONDS, array(under_way)])
    _move_to_starting([row for row in rows if row.state is S.QUEUED], now)
    taken = [row for row in rows if row.state is not S.QUEUED]
    taken.sort(key=lambda row: (row.lane, row.created_at, row.pk))
    return Claim(tuple(taken), now, time.monotonic())


def _move_to_starting(queued: Sequence[Claimed], now: datetime) -> None:
    """Move to `starting` what the connections have room for (the rows are locked), and spend the room."""
    by_connection: dict[int, list[Claimed]] = defaultdict(list)
    for row in queued:
        by_connection[row.connection_id].append(row)
    going: list[Claimed] = []
    for connection_id, rows in sorted(by_connection.items()):
        room = take(connection_id, len(rows), now)
        going += rows[:room]
        if waiting := rows[room:]:
            _postpone([row.pk for row in waiting], S.QUEUED, now + timedelta(seconds=2))
    lease = now + timedelta(seconds=settings.OPERATION_LEASE_SECONDS)
    changes = [
        Change(
            operation_id=row.pk,
            from_state=S.QUEUED,
            to_state=S.STARTING,
            event=row.event("operation.starting"),
            next_step_at=lease,
            started_at=now,
            deadline_at=now + deadline_after(row.kind, row.longest),
            attempts=row.attempts + 1,
            build_before=row.os_build or None,
        )
        for row in going
    ]
    won: set[UUID] = set()
    try:
        with transaction.atomic():
            won = transition(changes=changes, now=now)
    except IntegrityError:
        # Of two operations of one VM another worker has just started one. Nobody admits two; should there be, the
        # index decides between them, and no other operation waits for it.
        log.exception("claim_one_by_one", count=len(changes))
        for change in changes:
            with suppress(IntegrityError), transaction.atomic():
                won |= transition(changes=[change], now=now)
    for row in going:
        if row.pk in won:
            row.starting(now)


# --- stepping ----------------------------------------------------------------------------------------------------


def _clean(text: str) -> str:
    """What a machine said, as PostgreSQL can hold it and a page can show it."""
    return text.replace("\x00", "")[:2_000]


class _Engine:
    """Steps claimed operations. Holds the catalogue and the connectors for the length of one sweep."""

    def __init__(self, connector_factory: ConnectorFactory) -> None:
        self._factory = connector_factory
        self._connectors: dict[int, Connector] = {}

    @cached_property
    def _catalogue(self) -> LoadedCatalogue:
        return load_catalogue()

    def step(self, claim: Claim) -> int:
        """Step every claimed operation; one that cannot be stepped stays leased and is due again by itself."""
        by_connection: dict[int, list[Claimed]] = defaultdict(list)
        for operation in claim.operations:
            by_connection[operation.connection_id].append(operation)
        for connection_id, operations in by_connection.items():
            self._step_all_or_each(connection_id, operations, claim)
        return len(claim.operations)

    def _step_all_or_each(self, connection_id: int, operations: Sequence[Claimed], claim: Claim) -> None:
        """Step a connection's operations together; if that fails, one by one, so that one bad row stops no other."""
        try:
            self._step(connection_id, operations, claim)
        except Exception:
            if len(operations) == 1:
                log.exception("operation_step_failed", operation_id=str(operations[0].pk))
                return
            log.exception("operation_batch_failed", connection_id=connection_id, count=len(operations))
            unsent = {operation.pk for operation in operations if operation.is_unsent}
            with connection.cursor() as cursor:
                cursor.execute(_READ, [array(operation.pk for operation in operations)])
                fresh = [Claimed.of(row) for row in cursor.fetchall()]
            for operation in fresh:
                operation.is_unsent = operation.state is S.STARTING and operation.pk in unsent
                self._step_all_or_each(connection_id, [operation], claim)

    def _step(self, connection_id: int, operations: Sequence[Claimed], claim: Claim) -> None:
        connector = self._connector(connection_id)
        facts = load_vm_facts({operation.vm_id for operation in operations}, self._catalogue)
        batches: dict[Step, list[_Work]] = defaultdict(list)
        for operation in operations:
            if operation.vm_id not in facts:
                continue  # the VM was removed, and its operations with it
            step = next_step(
                S.QUEUED if operation.is_unsent else operation.state,
                is_past_deadline=operation.is_past_deadline,
                can_resend=Capability.IDEMPOTENT_START in connector.capabilities,
                can_find=Capability.FIND_BY_REQUEST in connector.capabilities,
            )
            batches[step].append(_Work(operation, facts[operation.vm_id]))
        # One that is back in the queue after a batch that failed is due again by itself.
        self._start(connector, [work for work in batches[Step.START] if work.operation.is_unsent], claim)
        self._resend(connector, batches[Step.RECOVER_BY_RESEND], claim)
        self._find(connector, batches[Step.RECOVER_BY_FIND], claim)
        self._give_up(batches[Step.GIVE_UP_UNCONFIRMED], "start.unconfirmed", claim.now)
        self._observe(connector, batches[Step.OBSERVE], claim.now)
        self._observe_last(connector, batches[Step.OBSERVE_LAST], claim.now)

    def _connector(self, connection_id: int) -> Connector:
        if connection_id not in self._connectors:
            row = Connection.objects.get(pk=connection_id)
            self._connectors[connection_id] = self._factory(row, self._catalogue)
        return self._connectors[connection_id]

    # --- starting

    def _start(self, connector: Connector, works: Sequence[_Work], claim: Claim) -> None:
        """Send what the claim moved to `starting`, if enough of the lease is left; else the queue may have it back."""
        if claim.may_send:
            self._send(connector, works, claim)
        else:
            self._requeue([(work, timedelta(0)) for work in works], "", claim.now)

    def _resend(self, connector: Connector, works: Sequence[_Work], claim: Claim) -> None:
        """Found in `starting` after its lease: a worker died. The connector starts nothing twice for one request id."""
        if not works:
            return
        tired = [work for work in works if work.operation.attempts >= MAX_START_ATTEMPTS]
        self._give_up(tired, "start.unconfirmed", claim.now)
        fresh = [work for work in works if work.operation.attempts < MAX_START_ATTEMPTS]
        write_events(
            (work.operation.pk, claim.now, "operation.recovered", S.STARTING, {})
            for work in fresh
            if work.kind.changes_the_machine
        )
        _count_attempt([work.operation.pk for work in fresh])
        if claim.may_send:
            self._send(connector, [work.attempted() for work in fresh], claim)

    def _send(self, connector: Connector, works: Sequence[_Work], claim: Claim) -> None:
        if works:
            for work in works:
                work.operation.is_unsent = False
            answers = connector.start([work.start_request() for work in works], now=claim.now)
            self._look_at_once(connector, self._record_starts(works, answers, claim.now), claim)

    def _find(self, connector: Connector, works: Sequence[_Work], claim: Claim) -> None:
        """Found in `starting`, and a second start would be a second start: ask whether the first one arrived."""
        if not works:
            return
        answers = connector.find([work.start_request() for work in works], now=claim.now)
        never_sent = [(work, timedelta(0)) for work, answer in zip(works, answers, strict=True) if answer is None]
        self._requeue(never_sent, "", claim.now)
        found = _unzip((work, answer) for work, answer in zip(works, answers, strict=True) if answer is not None)
        self._look_at_once(connector, self._record_starts(*found, claim.now), claim)

    def _record_starts(
        self,
        works: Sequence[_Work],
        answers: Sequence[Started | ConnectorError],
        now: datetime,
    ) -> list[_Work]:
        """Write what became of starts. Returns those whose connector says that a look is worth it at once.

        Assessments among them are not written yet: the look ends most of them, and one statement then does for both.
        """
        started: list[Change] = []
        prompt: list[_Work] = []
        failed: list[tuple[_Work, ConnectorError]] = []
        deferred: dict[str, list[tuple[_Work, timedelta]]] = defaultdict(list)
        unsure: list[_Work] = []
        for work, answer in zip(works, answers, strict=True):
            if isinstance(answer, Started):
                is_prompt = answer.look_again_after <= 0
                if not is_prompt or work.kind.changes_the_machine:
                    started.append(work.in_progress(answer, None if is_prompt else now))
                if is_prompt:
                    prompt.append(work.taken(answer))
            elif answer.is_retryable and work.operation.attempts < MAX_START_ATTEMPTS:
                delay = retry_delay(work.operation.attempts, answer.retry_after)
                if answer.nothing_was_sent:
                    deferred[answer.code].append((work, delay))
                else:
                    unsure.append(work)
            elif answer.is_retryable and not answer.nothing_was_sent:
                self._give_up([work], "start.unconfirmed", now)
            else:
                failed.append((work, answer))
        winners = transition(changes=started, now=now)
        for code, pairs in deferred.items():
            self._requeue(pairs, code, now)
        # Nobody knows whether these arrived: they stay in `starting` and are recovered like a dead worker's.
        for work in unsure:
            _postpone([work.operation.pk], S.STARTING, now + retry_delay(work.operation.attempts))
        self._fail(failed, now)
        return [work for work in prompt if work.kind is OperationKind.ASSESSMENT or work.operation.pk in winners]

    def _look_at_once(self, connector: Connector, works: Sequence[_Work], claim: Claim) -> None:
        """Look at what has just been started, under the same claim."""
        if not works:
            return
        now = claim.present
        looks = _look_all_or_each(connector, works, now)
        running = [
            work
            for work, answer in looks
            if work.kind is OperationKind.ASSESSMENT and not (isinstance(answer, Observation) and answer.is_final)
        ]
        transition(changes=[work.in_progress(Started(work.operation.handle), None) for work in running], now=now)
        for work in running:
            work.under_way()
        self._record_looks(looks, now)

    def _requeue(self, works: Sequence[tuple[_Work, timedelta]], code: str, now: datetime) -> None:
        """Back to the queue, since it is proven that nothing was sent."""
        transition(
            changes=[
                Change(
                    operation_id=work.operation.pk,
                    from_state=S.STARTING,
                    to_state=S.QUEUED,
                    event=work.event("operation.start_deferred"),
                    detail={"code": code, "seconds": delay.total_seconds()},
                    next_step_at=now + delay,
                )
                for work, delay in works
            ],
            now=now,
        )

    # --- ending without an answer

    def _fail(self, works: Sequence[tuple[_Work, ConnectorError]], now: datetime) -> None:
        """End runs whose connector said no for good."""
        with transaction.atomic():
            winners = transition(
                changes=[
                    Change(
                        operation_id=work.operation.pk,
                        from_state=work.operation.state,
                        to_state=S.FAILED,
                        event=work.event("operation.finished"),
                        error_code=error.code,
                        error_detail=_clean(error.detail),
                        verification=work.no_verification,
                    )
                    for work, error in works
                ],
                now=now,
            )
            record_failures(
                errors={
                    work.facts.ref.vm_id: error.code
                    for work, error in works
                    if work.operation.pk in winners and work.kind is OperationKind.ASSESSMENT
                }
            )

    def _give_up(self, works: Sequence[_Work], code: str, now: datetime) -> None:
        """End runs that nobody can vouch for, and queue an assessment that finds out what is true."""
        if not works:
            return
        with transaction.atomic():
            winners = transition(
                changes=[
                    Change(
                        operation_id=work.operation.pk,
                        from_state=work.operation.state,
                        to_state=S.FAILED,
                        event=work.event("operation.finished"),
                        error_code=code,
                        verification=work.no_verification,
                    )
                    for work in works
                ],
                now=now,
            )
            doubtful = [
                work.facts.ref.vm_id for work in works if work.operation.pk in winners and work.kind.changes_the_machine
            ]
            if doubtful:
                record_silence(vm_ids=doubtful)
                request_assessments(vm_ids=doubtful, requested_by=None)

    # --- looking

    def _observe(self, connector: Connector, works: Sequence[_Work], now: datetime) -> None:
        if not works:
            return
        self._record_looks(_look(connector, works, now), now)

    def _observe_last(self, connector: Connector, works: Sequence[_Work], now: datetime) -> None:
        """Look once more at what is past its deadline (the portal may have been stopped); what has no end is silent."""
        if not works:
            return
        looks = _look_all_or_each(connector, works, now)
        ends = [(work, answer) for work, answer in looks if _is_end(answer)]
        self._record_looks(ends, now)
        self._give_up([work for work, answer in looks if not _is_end(answer)], "connector.silent", now)

    def _record_looks(self, looks: Sequence[_Look], now: datetime) -> None:
        running: list[tuple[_Work, Observation]] = []
        ended: list[tuple[_Work, Observation]] = []
        lost: list[tuple[_Work, ConnectorError]] = []
        for work, answer in looks:
            if isinstance(answer, Observation):
                (ended if answer.is_final else running).append((work, answer))
            elif answer.is_retryable:
                delay = retry_delay(work.operation.attempts, answer.retry_after)
                _postpone([work.operation.pk], work.operation.state, now + delay)
            else:
                lost.append((work, answer))
        self._follow(running, now)
        self._finish_assessments([p for p in ended if p[1].assessment is not None], now)
        self._finish_installations([p for p in ended if p[1].installation is not None], now)
        self._finish_settings([p for p in ended if p[1].settings is not None], now)
        if lost:
            with transaction.atomic():
                self._fail(lost, now)
                record_silence(vm_ids=[w.facts.ref.vm_id for w, _e in lost if w.kind.changes_the_machine])

    def _follow(self, pairs: Sequence[tuple[_Work, Observation]], now: datetime) -> None:
        """Write what running operations are doing."""
        if not pairs:
            return
        with transaction.atomic():
            changes = [change for work, seen in pairs if (change := work.followed(seen, now)) is not None]
            transition(changes=changes, now=now)
            _write_progress(
                [
                    (
                        work.operation.pk,
                        asdict(seen.progress) if seen.progress else None,
                        seen.handle if seen.handle is not None else work.operation.handle,
                        now + timedelta(seconds=seen.look_again_after),
                    )
                    for work, seen in pairs
                ]
            )
            write_events(event for work, seen in pairs for event in work.progress_events(seen, now))
            _record_results([(work.operation.pk, seen.outcomes) for work, seen in pairs if seen.outcomes])

    def _finish_assessments(self, pairs: Sequence[tuple[_Work, Observation]], now: datetime) -> None:
        """End assessments: state first, then what they found, for those alone that this worker ended."""
        if not pairs:
            return
        with transaction.atomic():
            changes = []
            for work, seen in pairs:
                assert seen.assessment is not None
                error = seen.assessment.error
                changes.append(
                    Change(
                        operation_id=work.operation.pk,
                        from_state=work.operation.state,
                        through=S.IN_PROGRESS if work.operation.state is S.STARTING else None,
                        to_state=state_for(seen.assessment.status),
                        event=work.event("operation.finished"),
                        reboot_status=RebootStatus.COMPLETED if work.rollback else None,
                        verification=work.rolled_back(seen.assessment.os_build),
                        verification_detail=work.found_instead(seen.assessment.os_build),
                        error_code=error.code if error else None,
                        error_detail=_clean(error.detail) if error else None,
                        build_after=seen.assessment.os_build or None,
                    )
                )
            winners = transition(changes=changes, now=now)
            found = [
                Found(work.facts, seen.assessment)
                for work, seen in pairs
                if work.operation.pk in winners and seen.assessment is not None
            ]
            good = [item for item in found if item.result.status is not RunStatus.FAILED]
            record_assessments(found=good, catalogue=self._catalogue, now=now)
            record_failures(
                errors={
                    item.facts.ref.vm_id: item.result.error.code if item.result.error else "assessment.failed"
                    for item in found
                    if item.result.status is RunStatus.FAILED
                }
            )
            verify_earlier_installations(found=good, catalogue=self._catalogue)

    def _finish_settings(self, pairs: Sequence[tuple[_Work, Observation]], now: datetime) -> None:
        """End changes of settings: state first, then what the machines report that they have now."""
        if not pairs:
            return
        with transaction.atomic():
            changes = []
            for work, seen in pairs:
                is_taken = seen.settings == work.operation.settings
                changes.append(
                    Change(
                        operation_id=work.operation.pk,
                        from_state=work.operation.state,
                        to_state=S.SUCCEEDED if is_taken else S.COMPLETED_WITH_WARNINGS,
                        event="operation.finished",
                        error_code=None if is_taken else "settings.not_taken",
                    )
                )
            winners = transition(changes=changes, now=now)
            record_settings(
                reported={
                    work.facts.ref.vm_id: seen.settings
                    for work, seen in pairs
                    if work.operation.pk in winners and seen.settings is not None
                }
            )

    def _finish_installations(self, pairs: Sequence[tuple[_Work, Observation]], now: datetime) -> None:
        """End installations: state first, then results, the final assessment and the verification."""
        if not pairs:
            return
        with transaction.atomic():
            changes = []
            for work, seen in pairs:
                assert seen.installation is not None
                changes.append(work.finished(seen.installation, self._catalogue))
            winners = transition(changes=changes, now=now)
            won = [
                (work, seen.installation)
                for work, seen in pairs
                if work.operation.pk in winners and seen.installation is not None
            ]
            _record_results([(work.operation.pk, result.patches) for work, result in won])
            record_assessments(
                found=[
                    Found(
                        work.facts,
                        result.final_assessment,
                        work.operation.pk,
                        frozenset(o.patch.key for o in result.patches if o.state is InstallationState.INSTALLED),
                    )
                    for work, result in won
                    if result.final_assessment is not None and result.final_assessment.status is not RunStatus.FAILED
                ],
                catalogue=self._catalogue,
                now=now,
            )
            unseen = [work.facts.ref.vm_id for work, result in won if result.final_assessment is None]
            if unseen:
                request_assessments(vm_ids=unseen, requested_by=None)


def _unzip(pairs: Iterable[tuple[A, B]]) -> tuple[list[A], list[B]]:
    left, right = [], []
    for a, b in pairs:
        left.append(a)
        right.append(b)
    return left, right


# --- one operation in the engine's hands -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Work:
    """A claimed operation with the facts of its VM."""

    operation: Claimed
    facts: VmFacts

    @property
    def kind(self) -> OperationKind:
        return self.operation.kind

    @property
    def plan(self) -> InstallationPlan | None:
        return self.operation.plan

    @property
    def rollback(self) -> RollbackOrder | None:
        return self.operation.rollback

    def rolled_back(self, os_build: str) -> Verification | None:
        """Whether a rollback came where it was to come; nothing to say of other kinds."""
        if self.rollback is None:
            return None
        return Verification.CONFIRMED if os_build == self.rollback.target_build else Verification.CONTRADICTED

    def found_instead(self, os_build: str) -> Mapping[str, str] | None:
        """What a rollback that did not come where it was to come expected and found."""
        if self.rollback is None or self.rolled_back(os_build) is Verification.CONFIRMED:
            return None
        return {"expected_build": self.rollback.target_build, "found_build": os_build}

    @property
    def no_verification(self) -> Verification | None:
        """A run that ended without results has nothing to verify."""
        return Verification.NOT_VERIFIABLE if self.kind.changes_the_machine else None

    def event(self, code: str) -> str:
        """The message id for an installation's timeline; a routine assessment has none."""
        return self.operation.event(code)

    def taken(self, answer: Started) -> _Work:
        """This work as the machine has taken it; an installation's row says so already."""
        self.operation.handle = _clean(answer.handle)
        return self.under_way() if self.kind.changes_the_machine else self

    def under_way(self) -> _Work:
        """This work as it is after the transition to `in_progress`."""
        self.operation.state = S.IN_PROGRESS
        return self

    def attempted(self) -> _Work:
        """This work with one more attempt counted."""
        self.operation.attempts += 1
        return self

    def start_request(self) -> StartRequest:
        return StartRequest(
            request_id=self.operation.pk,
            kind=self.kind,
            vm=self.facts.ref,
            requested_at=self.operation.created_at,
            plan=self.plan,
            rollback=self.rollback,
            settings=self.operation.settings,
        )

    def observe_request(self) -> ObserveRequest:
        operation = self.operation
        return ObserveRequest(
            request_id=operation.pk,
            kind=self.kind,
            vm=self.facts.ref,
            handle=operation.handle,
            started_at=operation.started_at or operation.created_at,
            plan=self.plan,
            rollback=self.rollback,
            settings=self.operation.settings,
        )

    def in_progress(self, answer: Started, now: datetime | None) -> Change:
        """Under way; without `now` it stays claimed."""
        return Change(
            operation_id=self.operation.pk,
            from_state=S.STARTING,
            to_state=S.IN_PROGRESS,
            event=self.event("operation.started"),
            handle=_clean(answer.handle),
            next_step_at=now + timedelta(seconds=answer.look_again_after) if now else None,
            lane=Lane.LOOK if self.operation.is_bulk else Lane.INTERACTIVE,
            attempts=0,
        )

    def followed(self, seen: Observation, now: datetime) -> Change | None:
        """The transition between `in_progress` and `rebooting`, if the machine made it."""
        state = self.operation.state
        target = S.REBOOTING if seen.is_rebooting else S.IN_PROGRESS
        if state is target:
            return None
        return Change(
            operation_id=self.operation.pk,
            from_state=state,
            to_state=target,
            event=self.event("operation.rebooting" if seen.is_rebooting else "operation.rebooted"),
            next_step_at=now + timedelta(seconds=seen.look_again_after),
        )

    def progress_events(
        self, seen: Observation, now: datetime
    ) -> Iterable[tuple[UUID, datetime, str, OperationState, Mapping[str, Any]]]:
        """A line when another patch begins to come or to go."""
        progress, before = seen.progress, self.operation.progress or {}
        if (
            progress is None
            or progress.step not in {"installing", "uninstalling"}
            or self.kind is OperationKind.ASSESSMENT
        ):
            return
        if (before.get("step"), before.get("index")) == (progress.step, progress.index):
            return
        detail = {
            "kb_number": progress.kb_number,
            "title": progress.title,
            "index": progress.index,
            "total": progress.total,
        }
        yield self.operation.pk, now, f"patch.{progress.step}", self.operation.state, detail

    def finished(self, result: InstallationResult, catalogue: LoadedCatalogue) -> Change:
        counts = Counter(outcome.state for outcome in result.patches)
        verification, detail = conclude(result, facts=self.facts, catalogue=catalogue.facts)
        state = state_for(result.status)
        return Change(
            operation_id=self.operation.pk,
            from_state=self.operation.state,
            to_state=state,
            event="operation.finished",
            error_code=result.error.code if result.error else None,
            error_detail=_clean(result.error.detail) if result.error else None,
            reboot_status=result.reboot_status,
            is_maintenance_window_exceeded=result.is_maintenance_window_exceeded,
            installed_count=counts[InstallationState.INSTALLED],
            failed_count=counts[InstallationState.FAILED],
            pending_count=counts[InstallationState.PENDING],
            excluded_count=counts[InstallationState.EXCLUDED],
            not_selected_count=counts[InstallationState.NOT_SELECTED],
            verification=verification,
            verification_detail=detail,
            build_after=result.final_assessment.os_build or None if result.final_assessment else None,
        )


_Look = tuple[_Work, Observation | ConnectorError]


def _look(connector: Connector, works: Sequence[_Work], now: datetime) -> list[_Look]:
    return list(zip(works, connector.observe([work.observe_request() for work in works], now=now), strict=True))


def _look_all_or_each(connector: Connector, works: Sequence[_Work], now: datetime) -> list[_Look]:
    """A look at all of them; if the connector chokes on one, at each alone."""
    try:
        return _look(connector, works, now)
    except Exception:
        log.exception("look_at_all_failed", count=len(works))
        return [look for work in works for look in _look_or_wait(connector, work, now)]


def _is_end(answer: Observation | ConnectorError) -> bool:
    """Whether nothing more is to come: a result, or an error for good."""
    return answer.is_final if isinstance(answer, Observation) else not answer.is_retryable


def _look_or_wait(connector: Connector, work: _Work, now: datetime) -> list[_Look]:
    """A look at this one alone; if the connector chokes on it, it runs, and the next look will tell."""
    try:
        return _look(connector, [work], now)
    except Exception:
        log.exception("look_failed", operation_id=str(work.operation.pk))
        return [(work, Observation(look_again_after=retry_delay(1).total_seconds()))]


# --- writing what is not state -----------------------------------------------------------------------------------


def _postpone(operation_ids: Sequence[UUID], state: OperationState, until: datetime) -> None:
    """Give a claim back: due again at `until`, if the operation is still where it was read."""
    Operation.objects.filter(pk__in=operation_ids, state=state.value).update(next_step_at=until)


def _count_attempt(operation_ids: Sequence[UUID]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE updates_operation SET attempts = attempts + 1 WHERE id = ANY(%s::uuid[])", [array(operation_ids)]
        )


def _write_progress(
    rows: Sequence[tuple[UUID, Mapping[str, Any] | None, str, datetime]],
) -> None:
    """Write progress, handle and the time of the next look of operations that are in flight."""
    from psycopg.types.json import Jsonb  # a driver's wrapper, needed in this one statement

    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE updates_operation o
            SET progress = r.progress, handle = r.handle, next_step_at = r.next_step_at
            FROM unnest(%s::uuid[], %s::jsonb[], %s::text[], %s::timestamptz[])
                AS r(id, progress, handle, next_step_at)
            WHERE o.id = r.id AND o.state = ANY(%s)
            """,
            [
                [row[0] for row in rows],
                [Jsonb(row[1]) for row in rows],
                [row[2] for row in rows],
                [row[3] for row in rows],
                IN_FLIGHT_STATES,
            ],
        )


def _record_results(rows: Sequence[tuple[UUID, Sequence[PatchOutcome]]]) -> None:
    """Write what runs did with each patch; a later look replaces an earlier one."""
    if not rows:
        return
    pks = ensure_patches(outcome.patch for _pk, outcomes in rows for outcome in outcomes)
    results = [
        (
            operation_id,
            pks[outcome.patch.key],
            outcome.state.value,
            outcome.reason,
            outcome.error_code,
            outcome.patch.update_id,
            outcome.patch.version,
        )
        for operation_id, outcomes in sorted(rows, key=lambda row: row[0])
        for outcome in {o.patch.key: o for o in outcomes}.values()
    ]
    if not results:
        return
    types = {
        "operation_id": "uuid",
        "patch_id": "bigint",
        **dict.fromkeys(("state", "reason", "error_code", "update_id", "version"), "text"),
    }
    values, parameters = rowset(types, results)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            INSERT INTO updates_patchresult AS p ({", ".join(types)})
            SELECT {", ".join(types)} FROM {values} r
            ON CONFLICT (operation_id, patch_id) DO UPDATE
                SET state = EXCLUDED.state, reason = EXCLUDED.reason, error_code = EXCLUDED.error_code,
                    update_id = EXCLUDED.update_id, version = EXCLUDED.version
                WHERE (p.state, p.reason, p.error_code, p.update_id, p.version) IS DISTINCT FROM
                    (EXCLUDED.state, EXCLUDED.reason, EXCLUDED.error_code, EXCLUDED.update_id, EXCLUDED.version)
            """,  # noqa: S608 (ours)
            parameters,
        )
