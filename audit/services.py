"""Writing events, and handing them over in their order."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db import connection, transaction
from django.db.models import Max, Min

from audit.models import AuditEvent, OutboxCursor
from audit.tags import Tag

if TYPE_CHECKING:
    from django.contrib.auth.models import User

MAX_VALUE = 2_000
MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Act:
    """What was done to one object. The keys say where (`AuditEvent`); `detail` is for the page to word."""

    tag: Tag
    object_id: str = ""
    object_name: str = ""
    source: str = ""
    vm_key: int | None = None
    group_key: int | None = None
    subscription_key: int | None = None
    owner_key: int | None = None
    is_public: bool = False
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)


def record(*, acts: Collection[Act], by: User | None = None, reason: str = "") -> None:
    """Keep these acts in one statement of the caller's transaction: if it is rolled back, nothing was done.

    `by` None: whoever the context names (audit.context); outside of any the portal itself.
    """
    AuditEvent.objects.bulk_create(
        [
            AuditEvent(
                tag=act.tag.value,
                person_id=by.pk if by else None,
                person=by.get_username()[:150] if by else "",
                reason=reason.strip()[:500],
                object_id=act.object_id[:64],
                object_name=act.object_name[:MAX_NAME],
                source=act.source,
                vm_key=act.vm_key,
                group_key=act.group_key,
                subscription_key=act.subscription_key,
                owner_key=act.owner_key,
                is_public=act.is_public,
                before=bounded(act.before),
                after=bounded(act.after),
                detail=bounded(act.detail),
            )
            for act in acts
        ],
        batch_size=1_000,
    )


def bounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with texts and lists cut to what an event may hold."""
    return {name: _bounded(value) for name, value in values.items()}


def _bounded(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "")[:MAX_VALUE]
    if isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, bytes)):
        return value if len(str(value)) <= MAX_VALUE else str(value)[:MAX_VALUE]
    return value


# Ids are given out before transactions commit: an event with a smaller id may still become visible. One that is older
# than every transaction that runs now has no such event before it. (A margin of a second for what a clock may jump.)
_SETTLED = """
SELECT e.id FROM audit_auditevent e
WHERE e.id > %s AND e.at < (
    SELECT COALESCE(min(xact_start), clock_timestamp()) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
) - interval '1 second'
ORDER BY e.id LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Some of the next events, in their order; with `upto`, an id, `mark_delivered` says that all up to there were seen."""

    events: tuple[AuditEvent, ...]
    upto: int


def subscribe(*, consumer: str) -> None:
    """A new reader of the events begins with those that come from now on; who reads already goes on where it is."""
    newest = AuditEvent.objects.aggregate(newest=Max("pk"))["newest"] or 0
    OutboxCursor.objects.get_or_create(pk=consumer, defaults={"delivered": newest})


def next_delivery(*, consumer: str, tags: Collection[Tag], limit: int = 5_000) -> Delivery | None:
    """The next events with one of these tags, among the next `limit` of all; None: no settled event is new.

    As `undelivered`, but of the events that the reader does not want only the ids are read.
    """
    position = OutboxCursor.objects.filter(pk=consumer).values_list("delivered", flat=True).first() or 0
    with connection.cursor() as cursor:
        cursor.execute(_SETTLED, [position, limit])
        ids = [row[0] for row in cursor.fetchall()]
    if not ids:
        return None
    wanted = AuditEvent.objects.filter(pk__gte=ids[0], pk__lte=ids[-1], tag__in=[tag.value for tag in tags])
    return Delivery(tuple(wanted.order_by("pk")), ids[-1])


def undelivered(*, consumer: str, limit: int = 500) -> list[AuditEvent]:
    """The next events for this reader, in their order. None is left out by a transaction that commits late.

    Nothing moves: hand them over, then call `mark_delivered`. Who dies in between gets the same events again.
    """
    position = OutboxCursor.objects.filter(pk=consumer).values_list("delivered", flat=True).first() or 0
    with connection.cursor() as cursor:
        cursor.execute(_SETTLED, [position, limit])
        ids = [row[0] for row in cursor.fetchall()]
    return list(AuditEvent.objects.filter(pk__in=ids).order_by("pk"))


def mark_delivered(*, consumer: str, event_id: int) -> None:
    """Everything up to this event was handed over to the reader; the position never goes back."""
    OutboxCursor.objects.get_or_create(pk=consumer)
    OutboxCursor.objects.filter(pk=consumer, delivered__lt=event_id).update(delivered=event_id)


def prune_events(*, before: datetime, seconds: float = 20.0, batch: int = 5_000) -> int:
    """Remove events that are older, in bounded batches, the oldest first; how many went. What was not handed over stays."""
    ends_at = time.monotonic() + seconds
    position = OutboxCursor.objects.aggregate(least=Min("delivered"))["least"]
    removed = 0
    while time.monotonic() < ends_at:
        gone = _prune(before, position, batch)
        removed += gone
        if gone < batch:
            break
    return removed


@transaction.atomic
def _prune(before: datetime, position: int | None, batch: int) -> int:
    old = AuditEvent.objects.filter(at__lt=before).order_by("at", "id")
    if position is not None:
        old = old.filter(pk__lte=position)
    ids = list(old.values_list("pk", flat=True)[:batch])
    if ids:
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL audit.retention = 'on'")
            cursor.execute("DELETE FROM audit_auditevent WHERE id = ANY(%s)", [ids])
            cursor.execute("SET LOCAL audit.retention = 'off'")
        record(acts=[Act(Tag.ACTIVITY_PRUNE, detail={"events": len(ids), "before": before.isoformat()})])
    return len(ids)
