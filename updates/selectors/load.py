"""What waits, what runs and who works, as numbers for whoever watches from outside (docs/operations.md#metrics)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from patching.terms import OperationState
from updates.models import IN_FLIGHT_STATES
from vms.models import Connection

# A connection is a row that an administrator made; beyond this many, numbers per connection help nobody.
MOST_CONNECTIONS = 500


@dataclass(frozen=True, slots=True)
class ConnectionLoad:
    """What waits and runs behind a connection. `overdue_seconds`: for how long its oldest due operation has been due."""

    name: str
    kind: str
    queued: int
    in_flight: int
    overdue_seconds: float
    paused_seconds: float  # until it starts anything again; 0: it is not paused


@dataclass(frozen=True, slots=True)
class Load:
    """All connections in the order of their names, and each worker with the seconds since it was heard of, and budgets that rest."""

    connections: Sequence[ConnectionLoad]
    workers: dict[str, float]
    resting: Sequence[tuple[str, str, float]]  # budgets: connection, name (empty: the whole connection), seconds left


_CONNECTIONS = """
WITH queued AS (
    SELECT connection_id, count(*) AS queued, min(next_step_at) AS due_at
    FROM updates_operation WHERE state = %(queued)s AND next_step_at IS NOT NULL GROUP BY connection_id
), in_flight AS (
    SELECT connection_id, count(*) AS in_flight, min(next_step_at) AS due_at
    FROM updates_operation WHERE state = ANY(%(in_flight)s) GROUP BY connection_id
)
SELECT c.name, c.kind, coalesce(q.queued, 0), coalesce(f.in_flight, 0),
    greatest(0, extract(epoch FROM clock_timestamp() - least(q.due_at, f.due_at))),
    CASE WHEN c.paused_until > clock_timestamp()
         THEN extract(epoch FROM least(c.paused_until, clock_timestamp() + interval '1 year') - clock_timestamp())
         ELSE 0 END
FROM vms_connection c
LEFT JOIN queued q ON q.connection_id = c.id
LEFT JOIN in_flight f ON f.connection_id = c.id
ORDER BY c.name LIMIT %(most)s
"""
_WORKERS = "SELECT name, extract(epoch FROM clock_timestamp() - heard_at) FROM updates_workerheartbeat ORDER BY name"

_RESTING = """
SELECT c.name, b.name, extract(epoch FROM b.not_before - clock_timestamp())
FROM updates_bucket b JOIN vms_connection c ON c.id = b.connection_id
WHERE b.not_before > clock_timestamp() ORDER BY b.not_before DESC LIMIT %s
"""


@contextmanager
def _within(seconds: float) -> Iterator[CursorWrapper]:
    """A cursor each of whose statements ends after so long. Raises OperationalError."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(round(seconds * 1000))])
        yield cursor


def measure_load(*, seconds: float) -> Load:
    """Count, with at most so many seconds for each of three statements. Raises OperationalError beyond that."""
    parameters: dict[str, Any] = {
        "queued": OperationState.QUEUED.value,
        "in_flight": IN_FLIGHT_STATES,
        "most": MOST_CONNECTIONS,
    }
    with _within(seconds) as cursor:
        cursor.execute(_CONNECTIONS, parameters)
        loads = [
            ConnectionLoad(name, kind, queued, in_flight, float(overdue or 0), float(paused))
            for name, kind, queued, in_flight, overdue, paused in cursor.fetchall()
        ]
        cursor.execute(_WORKERS)
        workers = {name: float(age) for name, age in cursor.fetchall()}
        cursor.execute(_RESTING, [MOST_CONNECTIONS])
        resting = [(name, budget, float(left)) for name, budget, left in cursor.fetchall()]
        return Load(loads, workers, resting)


def seconds_since_a_worker(*, seconds: float) -> float | None:
    """Seconds since any worker was last heard of; None: no worker ever was. `seconds` is the query's time-out."""
    with _within(seconds) as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp() - max(heard_at)) FROM updates_workerheartbeat")
        (age,) = cursor.fetchone() or (None,)
    return None if age is None else float(age)


def kinds_of_connections() -> dict[int, str]:
    """The kind of each connection, by its id."""
    return dict(Connection.objects.values_list("pk", "kind"))
