"""How long a run on many machines takes before it is asked for: by the budgets, the caps and what waits already."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from connectors.protocol import Place
from connectors.registry import KINDS
from patching.terms import OperationState
from updates.models import IN_FLIGHT_STATES
from updates.selectors.review import Load
from updates.selectors.waits import MAX_AHEAD

# For each connection: what is queued and in flight on it, its limits, and its budgets with what is left of them.
_LIMITS = """
SELECT c.id, c.name, c.kind, c.max_in_flight, c.starts_per_minute, c.paused_until > %(now)s,
    (SELECT count(*) FROM (SELECT 1 FROM updates_operation o
        WHERE o.connection_id = c.id AND o.state = %(queued)s LIMIT %(most)s) x),
    (SELECT count(*) FROM updates_operation o WHERE o.connection_id = c.id AND o.state = ANY(%(in_flight)s)),
    (SELECT coalesce(jsonb_object_agg(b.name, jsonb_build_array(
        r.rate, LEAST(r.burst, b.tokens + coalesce(r.rate, 0) / 60.0 * GREATEST(0, extract(epoch FROM %(now)s - b.refilled_at))),
        GREATEST(0, extract(epoch FROM b.not_before - %(now)s)))), '{}')::text
     FROM updates_bucket b CROSS JOIN LATERAL (
        SELECT CASE WHEN b.name = '' THEN c.starts_per_minute ELSE b.rate_per_minute END AS rate,
               CASE WHEN b.name = '' THEN c.starts_per_minute ELSE coalesce(b.burst, b.rate_per_minute) END AS burst
     ) r WHERE b.connection_id = c.id)
FROM vms_connection c WHERE c.id = ANY(%(ids)s)
"""
_PLACES = """
SELECT m.connection_id, s.subscription_id::text, lower(m.location), count(*)
FROM vms_virtualmachine m JOIN vms_resourcegroup g ON g.id = m.resource_group_id
JOIN vms_subscription s ON s.id = g.subscription_id
WHERE m.id = ANY(%s::bigint[]) AND m.connection_id = ANY(%s) GROUP BY 1, 2, 3
"""


@dataclass(frozen=True, slots=True)
class Eta:
    """When all have started and when all have ended, from now, as far as the portal's own limits say.

    `per_minute`: the slowest rate that decides it; None: no rate does. `paused`: connections on which nothing starts before
    somebody resumes them; they are not counted.
    """

    starts: timedelta
    ends: timedelta
    per_minute: float | None
    paused: tuple[str, ...]


def foretell(loads: Mapping[int, Load], packed: str, *, now: datetime) -> Eta:
    """How long it takes until these machines (`packed`: their ids) have their plan (at most two queries)."""
    with connection.cursor() as cursor:
        cursor.execute(
            _LIMITS,
            {
                "now": now,
                "queued": OperationState.QUEUED.value,
                "in_flight": IN_FLIGHT_STATES,
                "most": MAX_AHEAD,
                "ids": list(loads),
            },
        )
        rows = cursor.fetchall()
    shares = _shares({pk: kind for pk, _name, kind, *_rest in rows}, packed)
    starts, ends, paused = timedelta(), timedelta(), list[str]()
    slowest: float | None = None
    for pk, name, kind, cap, rate, is_paused, queued, in_flight, told in rows:
        buckets: dict[str, Any] = json.loads(told)
        if is_paused:
            paused.append(name)
            continue
        load = loads[pk]
        # (how many, out of a bucket with this rate, what it holds, how long it rests)
        draws = [(queued + load.machines, *buckets.get("", [rate, rate, 0]))]
        limits = KINDS[kind].traits.buckets if kind in KINDS else None
        for bucket, count in shares.get(pk, {}).items():
            per_minute = limits.per_minute if limits else None
            full = (limits.burst or per_minute) if limits else None
            draws.append((count, *buckets.get(bucket, [per_minute, full, 0])))
        wait, decisive = timedelta(), None
        for count, per_minute, tokens, rest in draws:
            if per_minute and (mine := _wait(count, per_minute, tokens, rest)) > wait:
                wait, decisive = mine, per_minute
        rounds = math.ceil((queued + in_flight + load.machines) / max(1, cap)) - 1
        crowded = rounds * (load.total / load.machines)
        slowest = decisive if wait > max(starts, crowded) else slowest
        starts = max(starts, wait, crowded)
        ends = max(ends, max(wait, crowded) + load.longest)
    return Eta(starts, ends, slowest, tuple(paused))


def _wait(count: int, rate: float, tokens: float | None, rest: float | None) -> timedelta:
    """Until the last of so many has started: what the bucket holds starts at once, the others as it fills."""
    missing = max(0.0, count - max(0.0, tokens or 0.0))
    return timedelta(seconds=float(rest or 0.0), minutes=missing / rate)


def _shares(connection_kinds: Mapping[int, str], packed: str) -> dict[int, dict[str, int]]:
    """How many of the machines are started out of which bucket, where their kind names any (a query, or none)."""
    naming = {pk: KINDS[kind].traits.buckets for pk, kind in connection_kinds.items() if kind in KINDS}
    mine = {pk: limits for pk, limits in naming.items() if limits is not None}
    found: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    if not mine:
        return found
    with connection.cursor() as cursor:
        cursor.execute(_PLACES, [packed, list(mine)])
        for pk, subscription, location, count in cursor.fetchall():
            found[pk][mine[pk].name_of(Place(subscription, location))[:100]] += count
    return found
