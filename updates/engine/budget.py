"""How much each connection may start now: its cap of what is in flight, its token bucket and its pauses.

All of it is in PostgreSQL, so that no worker knows better than another.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.db import connection

from updates.models import IN_FLIGHT_STATES

_AVAILABLE = """
SELECT c.id, c.max_in_flight, c.starts_per_minute,
    (SELECT count(*) FROM updates_operation o WHERE o.connection_id = c.id AND o.state = ANY(%(in_flight)s)),
    LEAST(c.starts_per_minute,
          COALESCE(b.tokens, c.starts_per_minute)
          + c.starts_per_minute / 60.0 * GREATEST(0, extract(epoch FROM %(now)s - COALESCE(b.refilled_at, %(now)s))))
FROM vms_connection c LEFT JOIN updates_connectionbudget b ON b.connection_id = c.id
WHERE (%(only)s::bigint IS NULL OR c.id = %(only)s)
  AND (%(kinds)s::text[] = '{}' OR c.kind = ANY(%(kinds)s))
  AND (c.paused_until IS NULL OR c.paused_until <= %(now)s)
"""
_ADD_BUDGET = """
INSERT INTO updates_connectionbudget (connection_id, tokens, refilled_at)
SELECT id, COALESCE(starts_per_minute, 0), %s FROM vms_connection WHERE id = %s
ON CONFLICT DO NOTHING
"""
_SPEND = """
UPDATE updates_connectionbudget b
SET tokens = LEAST(c.starts_per_minute,
        b.tokens + c.starts_per_minute / 60.0 * GREATEST(0, extract(epoch FROM %(now)s - b.refilled_at))
    ) - %(count)s,
    refilled_at = GREATEST(b.refilled_at, %(now)s)
FROM vms_connection c
WHERE c.id = b.connection_id AND b.connection_id = %(pk)s AND c.starts_per_minute IS NOT NULL
"""


def available(now: datetime, *, kinds: Sequence[str] = ()) -> dict[int, int]:
    """How many operations each connection (of these kinds; none named: of all) could start now.

    A paused connection is left out. Nothing is reserved: `reserve` decides.
    """
    return _available(now, kinds=kinds, only=None)


def reserve(connection_id: int, wanted: int, now: datetime) -> int:
    """Reserve room for up to `wanted` starts on a connection, and spend its tokens; how many there is room for.

    Call it in a transaction, for several connections in the order of their ids: the answer holds until the commit.
    """
    with connection.cursor() as cursor:
        cursor.execute(_ADD_BUDGET, [now, connection_id])
        cursor.execute("SELECT 1 FROM updates_connectionbudget WHERE connection_id = %s FOR UPDATE", [connection_id])
        taken = min(wanted, _available(now, kinds=(), only=connection_id).get(connection_id, 0))
        cursor.execute(_SPEND, {"now": now, "count": taken, "pk": connection_id})
    return taken


def _available(now: datetime, *, kinds: Sequence[str], only: int | None) -> dict[int, int]:
    with connection.cursor() as cursor:
        cursor.execute(_AVAILABLE, {"in_flight": IN_FLIGHT_STATES, "now": now, "kinds": list(kinds), "only": only})
        return {
            pk: max(0, min(cap - busy, cap if per_minute is None else int(tokens)))
            for pk, cap, per_minute, busy, tokens in cursor.fetchall()
        }
