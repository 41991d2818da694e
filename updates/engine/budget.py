"""How much may start now: a cap of what is in flight for each connection, and token buckets with pauses.

An operation has up to two buckets: that of its whole connection (its name is empty), and one that its connector's kind
names, for Azure a subscription and region. All of it is in PostgreSQL, so that no worker knows better than another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection

from connectors.protocol import BucketNews
from updates.models import IN_FLIGHT_STATES

WHOLE = ""  # the bucket of a whole connection
# How long a bucket rests that ran dry, where the other side does not say.
REST = timedelta(seconds=10)

# For each bucket: how many may start. The rate of a whole connection is its own limit, which people set; a bucket starts
# full, and never holds more than its burst. What the other side last said is left counts, and grows again by the rate; where
# no rate is known it counts for a minute.
_STATE = """
SELECT c.id, b.name, c.max_in_flight,
    (SELECT count(*) FROM updates_operation o WHERE o.connection_id = c.id AND o.state = ANY(%(in_flight)s)),
    b.not_before > %(now)s,
    CASE WHEN r.rate IS NOT NULL THEN
        LEAST(r.burst, b.tokens + r.rate / 60.0 * GREATEST(0, extract(epoch FROM %(now)s - b.refilled_at))) END,
    CASE WHEN r.rate IS NOT NULL OR b.told_at > %(now)s - interval '1 minute' THEN
        b.remaining + COALESCE(r.rate, 0) / 60.0 * GREATEST(0, extract(epoch FROM %(now)s - b.told_at)) END
FROM vms_connection c
CROSS JOIN LATERAL (
    SELECT name, rate_per_minute, burst, tokens, refilled_at, remaining, told_at, not_before
    FROM updates_bucket WHERE connection_id = c.id
    UNION ALL
    SELECT '', NULL, NULL, c.starts_per_minute, %(now)s, NULL, NULL, NULL
    WHERE NOT EXISTS (SELECT 1 FROM updates_bucket WHERE connection_id = c.id AND name = '')
) b
CROSS JOIN LATERAL (
    SELECT CASE WHEN b.name = '' THEN c.starts_per_minute ELSE b.rate_per_minute END AS rate,
           CASE WHEN b.name = '' THEN c.starts_per_minute ELSE COALESCE(b.burst, b.rate_per_minute) END AS burst
) r
WHERE (%(only)s::bigint IS NULL OR c.id = %(only)s)
  AND (%(connection_kinds)s::text[] = '{}' OR c.kind = ANY(%(connection_kinds)s))
  AND (c.paused_until IS NULL OR c.paused_until <= %(now)s)
"""
_ADD_WHOLE = """
INSERT INTO updates_bucket (connection_id, name, tokens, refilled_at)
SELECT id, '', COALESCE(starts_per_minute, 0), %s FROM vms_connection WHERE id = %s
ON CONFLICT DO NOTHING
"""
_ADD = """
INSERT INTO updates_bucket (connection_id, name, rate_per_minute, burst, tokens, refilled_at)
SELECT %s, r.name, %s, %s, COALESCE(%s, 0), %s FROM unnest(%s::text[]) AS r(name) ORDER BY r.name
ON CONFLICT (connection_id, name) DO UPDATE SET rate_per_minute = EXCLUDED.rate_per_minute, burst = EXCLUDED.burst
WHERE (updates_bucket.rate_per_minute, updates_bucket.burst)
    IS DISTINCT FROM (EXCLUDED.rate_per_minute, EXCLUDED.burst)
"""
_LOCK = "SELECT 1 FROM updates_bucket WHERE connection_id = %s AND name = ANY(%s) ORDER BY name FOR UPDATE"
_SPEND = """
UPDATE updates_bucket b
SET tokens = COALESCE(
        LEAST(r.burst, b.tokens + r.rate / 60.0 * GREATEST(0, extract(epoch FROM %(now)s - b.refilled_at))) - s.count,
        b.tokens),
    refilled_at = GREATEST(b.refilled_at, %(now)s),
    remaining = CASE WHEN b.remaining IS NOT NULL THEN GREATEST(0, b.remaining - s.count) END
FROM unnest(%(names)s::text[], %(counts)s::int[]) AS s(name, count), vms_connection c,
LATERAL (
    SELECT COALESCE(CASE WHEN s.name = '' THEN c.starts_per_minute END, b2.rate_per_minute) AS rate,
           COALESCE(CASE WHEN s.name = '' THEN c.starts_per_minute END, b2.burst, b2.rate_per_minute) AS burst
    FROM updates_bucket b2 WHERE b2.connection_id = c.id AND b2.name = s.name
) r
WHERE b.connection_id = %(pk)s AND b.name = s.name AND c.id = b.connection_id
  AND (r.rate IS NOT NULL OR b.remaining IS NOT NULL)
"""
# A pause is never shortened by somebody who heard less. A bucket that ran dry is empty when its rest is over.
_TELL = """
UPDATE updates_bucket b
SET not_before = CASE WHEN r.rest IS NULL THEN b.not_before ELSE GREATEST(b.not_before, %(now)s + r.rest) END,
    tokens = CASE WHEN r.rest IS NULL THEN b.tokens ELSE LEAST(b.tokens, 0) END,
    refilled_at = CASE WHEN r.rest IS NULL THEN b.refilled_at ELSE GREATEST(b.refilled_at, %(now)s + r.rest) END,
    remaining = CASE WHEN r.rest IS NULL THEN COALESCE(r.remaining, b.remaining) END,
    told_at = CASE WHEN r.remaining IS NULL THEN b.told_at ELSE %(now)s END
FROM unnest(%(names)s::text[], %(remaining)s::int[], %(rests)s::interval[]) AS r(name, remaining, rest)
WHERE b.connection_id = %(pk)s AND b.name = r.name
"""


@dataclass(frozen=True, slots=True)
class Room:
    """How much may start on one connection: in all, and of each bucket. A bucket that has no entry has no limit."""

    whole: int
    buckets: Mapping[str, int]

    def of(self, bucket: str) -> int:
        """How many operations of this bucket may start, as far as they alone are concerned."""
        return min(self.whole, self.buckets.get(bucket, self.whole))

    def open_buckets(self) -> list[tuple[str, int]]:
        """The buckets out of which something may start, and how much out of each alone."""
        return [(name, self.of(name)) for name in (WHOLE, *self.buckets) if self.of(name) > 0]


NO_ROOM = Room(0, {})


def available(now: datetime, *, connection_kinds: Sequence[str] = ()) -> dict[int, Room]:
    """How much could start now on each connection (of these kinds; none named: of all).

    A paused connection is left out. Nothing is reserved: `reserve` decides.
    """
    return _rooms(now, connection_kinds=connection_kinds, only=None)


def reserve(connection_id: int, wanted: Mapping[str, int], now: datetime) -> dict[str, int]:
    """Reserve up to so many starts of each of these buckets, and spend their tokens; how many there is room for.

    Call it in a transaction, for several connections in the order of their ids: the answer holds until the commit.
    """
    names = sorted({WHOLE, *wanted})
    with connection.cursor() as cursor:
        cursor.execute(_ADD_WHOLE, [now, connection_id])
        cursor.execute(_LOCK, [connection_id, names])
        room = _rooms(now, connection_kinds=(), only=connection_id).get(connection_id, NO_ROOM)
        granted: dict[str, int] = {}
        left = room.whole
        for name, count in wanted.items():
            granted[name] = min(count, left, room.of(name))
            left -= granted[name]
        spent = {WHOLE: room.whole - left} | {name: count for name, count in granted.items() if name != WHOLE}
        cursor.execute(_SPEND, {"now": now, "pk": connection_id, "names": list(spent), "counts": list(spent.values())})
    return granted


def add_buckets(
    connection_id: int, names: Sequence[str], now: datetime, *, per_minute: float | None, burst: float | None
) -> None:
    """Make these buckets known, full, with the limits that their kind declares."""
    with connection.cursor() as cursor:
        full = burst if burst is not None else per_minute
        cursor.execute(_ADD, [connection_id, per_minute, burst, full, now, sorted(names)])


def tell(connection_id: int, news: Sequence[BucketNews], now: datetime) -> None:
    """Keep what the other side said about buckets: how much is left of one, or how long it rests."""
    # That a bucket has run dry outweighs what an answer before it said was left.
    latest = {one.name: one for one in sorted(news, key=lambda one: one.is_dry)}
    if not latest:
        return
    if WHOLE in latest:
        with connection.cursor() as cursor:
            cursor.execute(_ADD_WHOLE, [now, connection_id])
    rests = [None if not one.is_dry else _rest(one) for one in latest.values()]
    with connection.cursor() as cursor:
        cursor.execute(_LOCK, [connection_id, sorted(latest)])
        cursor.execute(
            _TELL,
            {
                "now": now,
                "pk": connection_id,
                "names": list(latest),
                "remaining": [one.remaining for one in latest.values()],
                "rests": rests,
            },
        )


def _rest(news: BucketNews) -> timedelta:
    return REST if news.retry_after is None else timedelta(seconds=max(1.0, news.retry_after))


def _rooms(now: datetime, *, connection_kinds: Sequence[str], only: int | None) -> dict[int, Room]:
    with connection.cursor() as cursor:
        cursor.execute(
            _STATE,
            {"in_flight": IN_FLIGHT_STATES, "now": now, "connection_kinds": list(connection_kinds), "only": only},
        )
        rows = cursor.fetchall()
    whole: dict[int, int] = {}
    buckets: dict[int, dict[str, int]] = {}
    for pk, name, cap, busy, is_resting, tokens, remaining in rows:
        limits = [int(limit) for limit in (tokens, remaining) if limit is not None]
        room = 0 if is_resting else max(0, min(limits, default=cap))
        if name == WHOLE:
            whole[pk] = max(0, min(cap - busy, room))
        else:
            buckets.setdefault(pk, {})[name] = room
    return {pk: Room(room, buckets.get(pk, {})) for pk, room in whole.items()}
