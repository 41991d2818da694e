"""Claiming: due operations go to one worker for one lease, connections in fair shares."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import IntegrityError, connection, transaction

from connectors.protocol import Pace, Traits
from db.arrays import array
from patching.codes import EventCode
from patching.freezes import Hold, is_held, longest_act
from patching.lifecycle import deadline_after
from patching.terms import OperationState
from updates.engine.budget import NO_ROOM, WHOLE, Room, available, reserve
from updates.engine.kinds import longest
from updates.engine.pace import paced
from updates.engine.record import postpone
from updates.engine.rows import COLUMNS, SOURCE, ClaimedRow
from updates.engine.transition import Change, transition
from updates.models import IN_FLIGHT_STATES
from updates.selectors.freezes import holds_of
from updates.services.operations import database_now

log = structlog.get_logger(__name__)

S = OperationState
CLAIM_SIZE = 1_000
# Set when this process is about to end: no further call begins.
STOPPING = threading.Event()
TraitsOf = Callable[[int], Traits | None]


def plain_traits(_connection_id: int) -> Traits:
    """What a connector is that declares nothing."""
    return Traits()


@dataclass(frozen=True, slots=True)
class Claim:
    """Due operations of one connection that this worker alone may step until `leased_until`.

    `now` and `leased_until` are by the database's clock; `claimed_at` and `until`, after which no start may be sent, by
    `time.monotonic()`. `pace`: how long its starts and looks are expected to take.
    """

    connection_id: int
    rows: tuple[ClaimedRow, ...]
    pace: Pace
    now: datetime
    leased_until: datetime
    claimed_at: float
    until: float

    @property
    def present(self) -> datetime:
        """The database's clock as it must be by now."""
        return self.now + timedelta(seconds=time.monotonic() - self.claimed_at)

    @property
    def is_over(self) -> bool:
        """Whether `until` has passed, or this process is about to end: nothing may begin any more."""
        return time.monotonic() >= self.until or STOPPING.is_set()

    @property
    def expected_seconds(self) -> float:
        """How long its calls are expected to take, one after the other."""
        return sum(cost(row, self.pace) for row in self.rows) if slowest(self.pace) else 0.0


def send_seconds(traits: Traits) -> float:
    """How long after its claim a call may still begin: a connector whose calls may last longer has less (DESIGN, times).

    A sweep, the time for sending and one last call fit into the soft time limit of a task, which ends before the lease.
    """
    spare = settings.CELERY_TASK_SOFT_TIME_LIMIT - settings.OPERATION_SWEEP_SECONDS - traits.call_seconds
    return float(min(settings.OPERATION_SEND_SECONDS, spare))


def slowest(pace: Pace) -> float:
    """The longer of a start and a look, in seconds."""
    return max(pace.start_seconds, pace.look_seconds)


def cost(row: ClaimedRow, pace: Pace) -> float:
    """How long the next step of this row is expected to take, in seconds."""
    return pace.start_seconds if row.state in {S.QUEUED, S.STARTING} else pace.look_seconds


def claims_of(rows: Sequence[ClaimedRow], *, now: datetime, claimed_at: float, traits_of: TraitsOf) -> list[Claim]:
    """These rows, which a bulk request has begun at `now`, as a claim for each connection."""
    by_connection: dict[int, list[ClaimedRow]] = defaultdict(list)
    for row in rows:
        by_connection[row.connection_id].append(row)
    claims = []
    for connection_id, own in by_connection.items():
        traits = traits_of(connection_id) or Traits()
        claims.append(_claim(_Due(connection_id, traits, traits.pace), own, now, claimed_at))
    return claims


def _claim(due: _Due, rows: Sequence[ClaimedRow], now: datetime, claimed_at: float) -> Claim:
    return Claim(
        connection_id=due.connection_id,
        rows=tuple(rows),
        pace=due.pace,
        now=now,
        leased_until=now + timedelta(seconds=settings.OPERATION_LEASE_SECONDS),
        claimed_at=claimed_at,
        until=claimed_at + send_seconds(due.traits),
    )


# --- which connections, and how much of each ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Due:
    """A connection that has something due, and how fast it is."""

    connection_id: int
    traits: Traits
    pace: Pace
    room: Room = NO_ROOM
    at_most: float | None = None  # seconds that its claim may be expected to take, where less than the time for sending

    def limit(self, share: int, seconds: float) -> int:
        """How many steps of this length it can make in the time it has."""
        return share if not seconds else min(share, max(self._least, int(self._window / seconds)))

    def affordable(self, rows: Iterable[ClaimedRow], share: int) -> list[ClaimedRow]:
        """The first of these rows that fit into its share and its time."""
        taken: list[ClaimedRow] = []
        spent = 0.0
        for row in rows:
            spent += cost(row, self.pace)
            if len(taken) >= share or (len(taken) >= self._least and spent > self._window):
                break
            taken.append(row)
        return taken

    @property
    def _window(self) -> float:
        return send_seconds(self.traits) if self.at_most is None else self.at_most

    @property
    def _least(self) -> int:
        """One, so that a connection gets on whose steps are longer than was thought; unless it is to be quick."""
        return 1 if self.at_most is None else 0


# One probe of an index for each connection, for what is in flight, and one for each budget that grants something, for what
# is queued: the rows of a dry one are not even looked at, however many.
_DUE_CONNECTIONS = """
SELECT c.id, p.start_seconds, p.look_seconds
FROM vms_connection c LEFT JOIN updates_connectionpace p ON p.connection_id = c.id
WHERE (%(connection_kinds)s::text[] = '{}' OR c.kind = ANY(%(connection_kinds)s)) AND c.id <> ALL(%(skipped)s::bigint[])
  AND (EXISTS (
        SELECT 1 FROM updates_operation o WHERE o.connection_id = c.id AND o.state = ANY(%(in_flight)s)
        AND o.priority = ANY(%(priorities)s) AND o.next_step_at <= %(now)s
    ) OR EXISTS (
        SELECT 1 FROM unnest(%(startable)s::bigint[], %(buckets)s::text[]) AS s(id, bucket)
        JOIN updates_operation o ON o.connection_id = s.id AND o.bucket = s.bucket
        WHERE s.id = c.id AND o.state = %(queued)s AND o.priority = ANY(%(priorities)s) AND o.next_step_at <= %(now)s
    ))
ORDER BY c.id
"""
# A share of each connection, or of each of its budgets, in the order of priority. Rows that another worker is claiming right now are passed over.
_DUE = """
SELECT {columns}
FROM unnest(%(connections)s::bigint[], %(buckets)s::text[], %(limits)s::int[]) AS c(id, bucket, share)
CROSS JOIN LATERAL (
    SELECT d.* FROM updates_operation d
    WHERE d.connection_id = c.id AND {state} AND d.priority = ANY(%(priorities)s) AND d.next_step_at <= %(now)s
    ORDER BY d.priority, d.next_step_at LIMIT c.share FOR UPDATE SKIP LOCKED
) {source}
"""


def _due(state: str) -> str:
    source = SOURCE.removeprefix("updates_operation ")
    return _DUE.format(columns=COLUMNS, state=state, source=source)


_IN_FLIGHT = _due("d.state = ANY(%(in_flight)s)")
# A VM with something in flight keeps its queued rows out of the claim.
_QUEUED = _due(
    "d.state = %(queued)s AND d.bucket = c.bucket AND NOT EXISTS ("
    "SELECT 1 FROM updates_operation b WHERE b.vm_id = d.vm_id AND b.state = ANY(%(in_flight)s))"
)
_LEASE = "UPDATE updates_operation SET next_step_at = %s WHERE id = ANY(%s::uuid[])"


@transaction.atomic
def claim_due(
    *,
    priorities: Sequence[int],
    connection_kinds: Sequence[str] = (),
    limit: int = CLAIM_SIZE,
    traits_of: TraitsOf = plain_traits,
    skipped: Collection[int] = (),
    at_most: float | None = None,
) -> list[Claim]:
    """Take up to `limit` due operations for one lease, an equal share of each connection. No row goes to two workers.

    Of a connection no more is taken than it can do in the time for sending. Within it the order is that of priority. What
    comes from the queue is in `starting` when this returns, `is_unsent`, and within its connection's room: once the claim
    is committed it may be sent. Where there was no room after all the rest is due again in 2 s. Connections in `skipped`,
    and those of which `traits_of` says None, are left alone. `at_most`: of no connection more than is expected to be done
    in so many seconds, and nothing of one whose next step alone takes longer.
    """
    claimed_at = time.monotonic()
    now = database_now()
    fixed: dict[str, Any] = {
        "priorities": [int(priority) for priority in priorities],
        "in_flight": IN_FLIGHT_STATES,
        "queued": S.QUEUED.value,
        "now": now,
    }
    due = _due_connections(fixed, connection_kinds, skipped, traits_of, at_most)
    if not due:
        return []
    share = max(1, limit // len(due))
    starts = {
        (pk, bucket): min(room, one.limit(share, one.pace.start_seconds))
        for pk, one in due.items()
        for bucket, room in one.room.open_buckets()
    }
    observes = {(pk, WHOLE): one.limit(share, one.pace.look_seconds) for pk, one in due.items()}
    rows = _lock(_IN_FLIGHT, observes, fixed)
    for connection_id, queued in _lock(_QUEUED, starts, fixed).items():
        rows[connection_id] += queued
    chosen = {pk: due[pk].affordable(sorted(own, key=_turn), share) for pk, own in rows.items()}
    under_way = [row.pk for own in chosen.values() for row in own if row.state is not S.QUEUED]
    leased_until = now + timedelta(seconds=settings.OPERATION_LEASE_SECONDS)
    if under_way:
        with connection.cursor() as cursor:
            cursor.execute(_LEASE, [leased_until, array(under_way)])
    started = _move_to_starting([row for own in chosen.values() for row in own if row.state is S.QUEUED], now)
    claims = []
    for pk, own in chosen.items():
        taken = [started.get(row.pk, row) for row in own if row.state is not S.QUEUED or row.pk in started]
        if taken:
            claims.append(_claim(due[pk], taken, now, claimed_at))
    return sorted(claims, key=lambda claim: _turn(claim.rows[0]))


def _turn(row: ClaimedRow) -> tuple[int, datetime, UUID]:
    return row.priority, row.created_at, row.pk


def _due_connections(
    fixed: dict[str, Any],
    connection_kinds: Sequence[str],
    skipped: Collection[int],
    traits_of: TraitsOf,
    at_most: float | None,
) -> dict[int, _Due]:
    now: datetime = fixed["now"]
    rooms = available(now, connection_kinds=connection_kinds)
    open_buckets = [(pk, bucket) for pk, room in rooms.items() for bucket, _count in room.open_buckets()]
    with connection.cursor() as cursor:
        more: dict[str, Any] = {
            "connection_kinds": list(connection_kinds),
            "skipped": list(skipped),
            "startable": [pk for pk, _bucket in open_buckets],
            "buckets": [bucket for _pk, bucket in open_buckets],
        }
        cursor.execute(_DUE_CONNECTIONS, {**fixed, **more})
        found = cursor.fetchall()
    due = {}
    for connection_id, start_seconds, look_seconds in found:
        traits = traits_of(connection_id)
        if traits is not None:
            pace = paced(traits.pace, start_seconds, look_seconds)
            due[connection_id] = _Due(connection_id, traits, pace, rooms.get(connection_id, NO_ROOM), at_most)
    return due


def _lock(sql: str, limits: dict[tuple[int, str], int], fixed: dict[str, Any]) -> dict[int, list[ClaimedRow]]:
    """Lock due rows, up to so many of each connection and bucket, until the transaction ends."""
    found: dict[int, list[ClaimedRow]] = defaultdict(list)
    if limits:
        with connection.cursor() as cursor:
            shares: dict[str, Any] = {
                "connections": [pk for pk, _bucket in limits],
                "buckets": [bucket for _pk, bucket in limits],
                "limits": list(limits.values()),
            }
            cursor.execute(sql, {**fixed, **shares})
            for row in map(ClaimedRow.of, cursor.fetchall()):
                found[row.connection_id].append(row)
    return found


# --- out of the queue --------------------------------------------------------------------------------------------


# What a freeze holds is asked about again after this long: it may be ended early, or let the machine through.
HELD_AGAIN = timedelta(minutes=5)


def held_rows(rows: Sequence[ClaimedRow], now: datetime) -> dict[UUID, Hold]:
    """Those of these operations that a freeze keeps from starting now."""
    asked: dict[int, timedelta] = {}
    rows = [row for row in rows if is_held(row.kind)]
    for row in rows:
        asked[row.vm_id] = max(longest_act(row.payload), asked.get(row.vm_id, timedelta(0)))
    holds = holds_of(asked, now=now)
    return {row.pk: holds[row.vm_id] for row in rows if row.vm_id in holds}


def _not_held(queued: Sequence[ClaimedRow], now: datetime) -> list[ClaimedRow]:
    """What no freeze holds; the rest waits in the queue."""
    holds = held_rows(queued, now)
    if holds:
        soon = now + HELD_AGAIN
        for until in sorted({min(hold.free_at, soon) for hold in holds.values()}):
            postpone([pk for pk, hold in holds.items() if min(hold.free_at, soon) == until], S.QUEUED, until)
    return [row for row in queued if row.pk not in holds]


def _move_to_starting(queued: Sequence[ClaimedRow], now: datetime) -> dict[UUID, ClaimedRow]:
    """Move to `starting` what the connections have room for (the rows are locked), and spend the room."""
    by_connection: dict[int, list[ClaimedRow]] = defaultdict(list)
    for row in _not_held(queued, now):
        by_connection[row.connection_id].append(row)
    going: list[ClaimedRow] = []
    for connection_id, rows in sorted(by_connection.items()):
        left = reserve(connection_id, Counter(row.bucket for row in rows), now)
        waiting: list[ClaimedRow] = []
        for row in rows:
            (going if left[row.bucket] > 0 else waiting).append(row)
            left[row.bucket] -= 1
        if waiting:
            postpone([row.pk for row in waiting], S.QUEUED, now + timedelta(seconds=2))
    lease = now + timedelta(seconds=settings.OPERATION_LEASE_SECONDS)
    changes = [
        Change(
            operation_id=row.pk,
            from_state=S.QUEUED,
            to_state=S.STARTING,
            event=row.event(EventCode.STARTING),
            next_step_at=lease,
            started_at=now,
            deadline_at=now + deadline_after(row.kind, longest(row)),
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
        # Unique violation: another worker has just put one of these VMs in flight. Try each by itself, so that the one in
        # conflict stays queued and no other waits for it.
        log.exception("claim_one_by_one", count=len(changes))
        for change in changes:
            with suppress(IntegrityError), transaction.atomic():
                won |= transition(changes=[change], now=now)
    return {row.pk: row.starting(now) for row in going if row.pk in won}
