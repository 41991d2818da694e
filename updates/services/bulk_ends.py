"""When bulk requests have ended, how many of their operations failed, and that somebody has seen to it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import connection, transaction

from audit.services import Act, record
from audit.tags import Tag
from patching.terms import OperationState
from updates.models import IN_FLIGHT_STATES, BulkRequest
from updates.services.operations import RequestVerdict

if TYPE_CHECKING:
    from django.contrib.auth.models import User

# A request has many outcomes and few operations are open: so each open operation is checked for its request.
_END = """
WITH ended AS MATERIALIZED (
    SELECT b.id FROM updates_bulkrequest b
    WHERE b.finished_at IS NULL AND b.is_handed_out AND NOT EXISTS (
        SELECT 1 FROM updates_operation o
        JOIN updates_bulkoutcome u ON u.request_id = b.id AND u.vm_id = o.vm_id AND u.operation_id = o.id
        WHERE o.state = ANY(%(open)s) AND u.verdict <> %(refused)s
    )
), failures AS (
    SELECT u.request_id, count(*) AS failed FROM updates_bulkoutcome u JOIN updates_operation o ON o.id = u.operation_id
    WHERE u.request_id IN (SELECT id FROM ended) AND o.state = %(failed)s AND u.verdict <> %(refused)s
    GROUP BY 1
)
UPDATE updates_bulkrequest b SET finished_at = %(now)s, failed_count = COALESCE(f.failed, 0)
FROM ended e LEFT JOIN failures f ON f.request_id = e.id
WHERE b.id = e.id AND b.finished_at IS NULL
RETURNING b.id
"""


@transaction.atomic
def finish_bulk_requests(*, now: datetime) -> int:
    """Record the end of each bulk request whose last operation has ended, with its number of failures. Returns how many.

    A request ends once, whatever worker sees it first: the row says so, and the event is in the same transaction.
    """
    parameters: dict[str, Any] = {
        "now": now,
        "open": [OperationState.QUEUED.value, *IN_FLIGHT_STATES],
        "failed": OperationState.FAILED.value,
        "refused": RequestVerdict.REFUSED.value,
    }
    with connection.cursor() as cursor:
        cursor.execute(_END, parameters)
        ids = [row[0] for row in cursor.fetchall()]
    if ids:
        rows = BulkRequest.objects.filter(pk__in=ids).order_by("created_at", "pk")
        record(acts=[_ended(row) for row in rows])
    return len(ids)


def _ended(row: BulkRequest) -> Act:
    name = f"{row.get_kind_display()} {str(row.pk)[:8]}"
    detail = {"machines": row.vm_count, "failed": row.failed_count} | (
        {"error": row.error_code} if row.error_code else {}
    )
    return Act(Tag.BULK_FINISH, str(row.pk), name, owner_key=row.requested_by_id, detail=detail)


def mark_seen(*, request_id: UUID, by: User, now: datetime) -> bool:
    """Record that the requester has dealt with the failures: the request no longer waits. False if it did not wait."""
    rows = BulkRequest.objects.filter(pk=request_id, requested_by=by, seen_at=None, finished_at__isnull=False)
    return bool(rows.update(seen_at=now))
