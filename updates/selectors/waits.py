"""How long queued operations still wait for their budgets: what is queued before them, by the rate that is granted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection
from django.db.models import Max, QuerySet

from patching.terms import OperationState
from updates.models import Operation

# No more is counted than this: beyond it a wait is told as at least that long.
MAX_AHEAD = 200_000

# For the last of some operations in each budget: how many are queued up to it, and what grants starts to them. The slower of
# the two rates counts: that of the whole connection, out of which all start, and that of the budget.
_WAITS = """
SELECT
    (SELECT count(*) FROM (
        SELECT 1 FROM updates_operation o
        WHERE o.connection_id = q.connection_id AND o.state = %(queued)s AND (b.name = '' OR o.bucket = b.name)
          AND (o.priority, o.next_step_at) <= (q.priority, q.next_step_at) LIMIT %(most)s) x),
    r.rate,
    LEAST(r.burst, b.tokens + r.rate / 60.0 * GREATEST(0, extract(epoch FROM %(now)s - b.refilled_at))),
    b.not_before
FROM unnest(%(connections)s::bigint[], %(buckets)s::text[], %(priorities)s::int[], %(times)s::timestamptz[])
    AS q(connection_id, bucket, priority, next_step_at)
JOIN vms_connection c ON c.id = q.connection_id
JOIN updates_bucket b ON b.connection_id = c.id AND b.name IN ('', q.bucket)
CROSS JOIN LATERAL (
    SELECT CASE WHEN b.name = '' THEN c.starts_per_minute ELSE b.rate_per_minute END AS rate,
           CASE WHEN b.name = '' THEN c.starts_per_minute ELSE COALESCE(b.burst, b.rate_per_minute) END AS burst
) r
WHERE (r.rate > 0 OR b.not_before > %(now)s) AND (c.paused_until IS NULL OR c.paused_until <= %(now)s)
"""


@dataclass(frozen=True, slots=True)
class StartWait:
    """When the last of some queued operations is expected to start. `is_resting`: a budget of theirs rests for now."""

    starts_at: datetime
    seconds: float
    is_resting: bool


def start_wait(operations: QuerySet[Operation], *, now: datetime) -> StartWait | None:
    """How long the last of these operations that is queued waits for its budget; None: no budget holds one up.

    The longest of their budgets counts. Of a paused connection nothing is told: nobody knows when it is resumed. The cap of what
    is in flight comes on top.
    """
    queued = operations.filter(state=OperationState.QUEUED.value).order_by()
    groups = list(queued.values_list("connection_id", "bucket", "priority").annotate(last=Max("next_step_at")))
    if not groups:
        return None
    columns = [list(column) for column in zip(*groups, strict=True)]
    with connection.cursor() as cursor:
        cursor.execute(
            _WAITS,
            {
                "queued": OperationState.QUEUED.value,
                "most": MAX_AHEAD,
                "now": now,
                **dict(zip(("connections", "buckets", "priorities", "times"), columns, strict=True)),
            },
        )
        rows = cursor.fetchall()
    longest, is_resting = 0.0, False
    for ahead, rate, tokens, not_before in rows:
        rest = max(0.0, (not_before - now).total_seconds()) if not_before else 0.0
        # Tokens are worked out as of now: a bucket that rests is empty when its rest is over.
        missing = ahead - max(0.0, tokens or 0.0)
        seconds = rest + (max(0.0, math.ceil(missing) / rate * 60) if rate else 0.0)
        is_resting = is_resting or rest > 0
        longest = max(longest, seconds)
    return StartWait(now + timedelta(seconds=longest), longest, is_resting) if longest >= 1 else None
