"""One request for many VMs, handed out block by block: nothing is lost when a worker dies, no VM is asked twice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from django.db import OperationalError, connection, transaction
from django.db.models import CASCADE, ManyToOneRel, Model, QuerySet
from psycopg.errors import LockNotAvailable

from audit.tags import Tag
from db.arrays import array, rowset
from patching.codes import ErrorCode
from patching.terms import InstallationPlan, OperationKind, OperationState
from updates.engine.budget import available
from updates.engine.rows import ClaimedRow
from updates.models import BulkBlock, BulkOutcome, BulkRequest, Operation, Priority
from updates.plans import Promise, plan_from_json, plan_to_json, promise_from_json, promise_to_json
from updates.services.acts import note_bulk
from updates.services.operations import (
    RequestOutcome,
    RequestVerdict,
    cancel_operations,
    database_now,
    request_assessments,
    request_installations,
)
from updates.services.restarts import request_restarts
from vms.choices import Role
from vms.models import VirtualMachine
from vms.selection import VmSelection

if TYPE_CHECKING:
    from django.contrib.auth.models import User

log = structlog.get_logger(__name__)
BLOCK = 2_000
_OUTCOME = {"vm_id": "bigint", "verdict": "text", "operation_id": "uuid", "code": "text"}


class EmptySelectionError(ValueError):
    """Nobody was selected: a request for no machine is a slip, and never one for all of them."""


# Machines that were promised the same stand in blocks of their own.
_INSERT_BLOCKS = """
INSERT INTO updates_bulkblock (request_id, number, vm_ids, promise)
SELECT %s, row_number() OVER (ORDER BY b.share, b.number) - 1, b.vm_ids, b.promise FROM (
    SELECT s.share, (m.place - 1) / %s AS number, s.promise, array_agg(m.id ORDER BY m.place) AS vm_ids
    FROM unnest(%s::text[], %s::jsonb[]) WITH ORDINALITY AS s(packed, promise, share),
        unnest(s.packed::bigint[]) WITH ORDINALITY AS m(id, place)
    GROUP BY 1, 2, 3
) b
"""


@dataclass(frozen=True, slots=True)
class Share:
    """Machines of a selection that were promised the same. `packed`: their ids, as `VmSelection` has them."""

    packed: str
    promise: Promise

    @property
    def count(self) -> int:
        """How many they are."""
        return self.packed.count(",") + 1


@transaction.atomic
def request_bulk(
    *,
    request_id: UUID,
    kind: OperationKind,
    selection: VmSelection,
    plan: InstallationPlan | None,
    requested_by: User,
    chosen_by: Mapping[str, Any] | None = None,
    shares: Sequence[Share] = (),
) -> BulkRequest:
    """Keep the request and the machines that it means; workers hand it out.

    The same id again is the same request: a second click changes nothing. `chosen_by`: how the machines were chosen, for
    people to read. `shares`: what a review promised of which machines, all that are meant; none: the plan is taken as it is.
    Raises EmptySelectionError.
    """
    if not selection.count:
        raise EmptySelectionError
    row, is_new = BulkRequest.objects.get_or_create(
        pk=request_id,
        defaults={
            "kind": kind.value,
            "selection": dict(chosen_by or {}),
            "vm_count": sum(share.count for share in shares) if shares else selection.count,
            "plan": plan_to_json(plan) if plan else None,
            "requested_by": requested_by,
        },
    )
    if is_new:
        with connection.cursor() as cursor:
            packed = [share.packed for share in shares] or [selection.packed]
            promises: list[str | None] = [json.dumps(promise_to_json(share.promise)) for share in shares]
            cursor.execute(_INSERT_BLOCKS, [row.pk, BLOCK, packed, promises or [None]])
        detail = {"machines": selection.count, "filters": dict(chosen_by or {}), "plan": row.plan}
        note_bulk(tag=Tag.BULK_REQUEST, bulk=row, by=requested_by, detail=detail)
    return row


@dataclass(frozen=True, slots=True)
class Block:
    """What became of a block of a bulk request: how many VMs got their answer, and what was begun at once.

    `claimed_at` is `time.monotonic()` from before anything was written.
    """

    count: int
    begun: tuple[ClaimedRow, ...]
    claimed_at: float


def are_waiting() -> bool:
    """Whether bulk requests wait to be handed out."""
    return BulkRequest.objects.filter(is_handed_out=False).exists()


def _any(_connection_id: int) -> bool:
    return True


def hand_out_block(
    *, connection_kinds: Sequence[str] = (), wait_seconds: float = 0.0, is_quick: Callable[[int], bool] = _any
) -> Block | None:
    """Answer the next block of the oldest request; None: no request waits, or another worker has it for longer than that.

    A block is one transaction; two workers never take the same request. Where nothing is due before it, operations are
    begun instead of queued, as far as their connections (of these kinds; none named: any) have room and `is_quick` says
    that a whole block is started in no time: whoever called sends them now.
    """
    try:
        return _hand_out_block(connection_kinds, wait_seconds, is_quick)
    except OperationalError as error:
        if isinstance(error.__cause__, LockNotAvailable):
            return None
        raise


@transaction.atomic
def _hand_out_block(
    connection_kinds: Sequence[str], wait_seconds: float, is_quick: Callable[[int], bool]
) -> Block | None:
    waiting = BulkRequest.objects.filter(is_handed_out=False).order_by("created_at").select_related("requested_by")
    if not wait_seconds:
        row = waiting.select_for_update(skip_locked=True, of=("self",)).first()
    else:
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = %s", [round(1_000 * wait_seconds)])
            row = waiting.select_for_update(of=("self",)).first()
            cursor.execute("SET LOCAL lock_timeout = DEFAULT")  # for this row alone
    if row is None:
        return None
    claimed_at = time.monotonic()
    outcomes: list[RequestOutcome] = []
    try:
        with transaction.atomic():
            block = BulkBlock.objects.filter(request=row, number=row.cursor).first()
            ids = block.vm_ids if block else []
            allowed, refused = _judge(row.requested_by, ids)
            promise = promise_from_json(block.promise) if block and block.promise is not None else None
            if promise is not None and promise.plan is None:
                outcomes = [RequestOutcome(pk, RequestVerdict.REFUSED, None, promise.code) for pk in allowed]
            else:
                outcomes = _ask(row, promise, allowed, begin_on=_free_connections(connection_kinds, is_quick))
            outcomes += refused
            _keep(row, outcomes)
    except OperationalError:
        raise  # the database's trouble, not the request's: the block is tried again
    except Exception:
        # A request that cannot be handed out must not stand in the way of those behind it.
        log.exception("bulk_request_failed", bulk_request_id=str(row.pk))
        row.is_handed_out, row.error_code = True, ErrorCode.BULK_FAILED
        row.save(update_fields=["is_handed_out", "error_code"])
        return Block(0, (), claimed_at)
    row.cursor += 1
    row.removed_count += len(ids) - len(outcomes)
    row.is_handed_out = not BulkBlock.objects.filter(request=row, number=row.cursor).exists()
    row.save(update_fields=["cursor", "removed_count", "is_handed_out"])
    begun = tuple(outcome.begun for outcome in outcomes if outcome.begun is not None)
    return Block(len(ids), begun, claimed_at)


def _judge(user: User | None, vm_ids: Sequence[int]) -> tuple[list[int], list[RequestOutcome]]:
    """Those of these VMs on which the user is Patch operator now, and the answer for the others that are still there."""
    there = VirtualMachine.objects.filter(pk__any=array(vm_ids)).order_by()
    mine = set(there.visible_to(user, Role.OPERATOR).values_list("pk", flat=True)) if user is not None else set[int]()
    others = sorted(set(there.values_list("pk", flat=True)) - mine)
    return sorted(mine), [RequestOutcome(pk, RequestVerdict.REFUSED, None, ErrorCode.ROLE_MISSING) for pk in others]


# Connections whose starts were measured to take long, and those on which bulk work already waits for its turn.
_NOT_AT_ONCE = """
SELECT c.id FROM vms_connection c LEFT JOIN updates_connectionpace p ON p.connection_id = c.id
WHERE COALESCE(p.start_seconds, 0) > 0 OR EXISTS (
    SELECT 1 FROM updates_operation o
    WHERE o.connection_id = c.id AND o.state = %s AND o.priority = %s AND o.next_step_at <= %s)
"""


def _free_connections(connection_kinds: Sequence[str], is_quick: Callable[[int], bool]) -> Collection[int]:
    """Where something may begin at once: on quick connections with room, unless earlier bulk work waits there."""
    now = database_now()
    with connection.cursor() as cursor:
        cursor.execute(_NOT_AT_ONCE, [OperationState.QUEUED.value, Priority.BULK.value, now])
        not_at_once = {pk for (pk,) in cursor.fetchall()}
    rooms = available(now, connection_kinds=connection_kinds)
    return [pk for pk, room in rooms.items() if room.whole > 0 and pk not in not_at_once and is_quick(pk)]


def _ask(
    row: BulkRequest, promise: Promise | None, vm_ids: Sequence[int], *, begin_on: Collection[int]
) -> list[RequestOutcome]:
    if row.kind == OperationKind.RESTART:
        return request_restarts(vm_ids=vm_ids, requested_by=row.requested_by, is_bulk=True, begin_on=begin_on)
    if row.plan is None:
        return request_assessments(vm_ids=vm_ids, requested_by=row.requested_by, is_bulk=True, begin_on=begin_on)
    return request_installations(
        vm_ids=vm_ids,
        plan=(promise.plan if promise else None) or plan_from_json(row.plan),
        said=promise.outlook if promise else None,
        requested_by=row.requested_by,
        is_bulk=True,
        begin_on=begin_on,
        refuse_idle=True,
    )


def _keep(row: BulkRequest, outcomes: Sequence[RequestOutcome]) -> None:
    if not outcomes:
        return
    rows, parameters = rowset(_OUTCOME, map(attrgetter(*_OUTCOME), outcomes))
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO updates_bulkoutcome (request_id, vm_id, verdict, operation_id, code)"  # noqa: S608 (ours)
            f" SELECT %s, r.vm_id, r.verdict, r.operation_id, r.code FROM {rows} r ON CONFLICT DO NOTHING",
            [row.pk, *parameters],
        )


def cancel_bulk(*, request_id: UUID, requested_by: User) -> int:
    """Hand out no more of it, and cancel what it has queued on machines of which the user is Patch operator now.

    What has started is left alone. How many were cancelled.
    """
    waiting = BulkRequest.objects.filter(pk=request_id, is_handed_out=False)
    waiting.update(is_handed_out=True, error_code=ErrorCode.BULK_CANCELLED)
    mine = VirtualMachine.objects.visible_to(requested_by, Role.OPERATOR).order_by()
    cancelled = 0
    while True:
        queued = BulkOutcome.objects.filter(
            request_id=request_id,
            verdict=RequestVerdict.ACCEPTED.value,
            operation__state=OperationState.QUEUED.value,
            vm__in=mine,
        )
        ids = list(queued.values_list("operation_id", flat=True)[:BLOCK])
        done = cancel_operations(operation_ids=ids, requested_by=requested_by, is_bulk=True) if ids else set()
        cancelled += len(done)
        if not done:
            break
    if request := BulkRequest.objects.filter(pk=request_id).first():
        note_bulk(tag=Tag.BULK_CANCEL, bulk=request, by=requested_by, detail={"operations": cancelled})
    return cancelled


def prune_operations(*, keep_days: int, seconds: float = 20.0, batch: int = 2_000) -> int:
    """Remove history that is older than `keep_days`, in bounded batches, the oldest first; how many operations went."""
    ends_at = time.monotonic() + seconds
    removed = 0
    while time.monotonic() < ends_at:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT id FROM updates_operation WHERE finished_at IS NOT NULL"
                " AND created_at < clock_timestamp() - make_interval(days => %s)"
                " ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED",
                [keep_days, batch],
            )
            ids = [row[0] for row in cursor.fetchall()]
            removed += _remove(ids)
        if len(ids) < batch:
            break
    return removed


# A slice of the fleet per hour, so that every VM has its turn once a day and no statement reads the whole history.
_SURPLUS = """
SELECT o.id FROM (
    SELECT id, state, row_number() OVER (PARTITION BY vm_id ORDER BY created_at DESC) AS place
    FROM updates_operation
    WHERE kind = %s AND finished_at IS NOT NULL AND vm_id %% 24 = %s
) o WHERE o.place > %s AND o.state <> %s LIMIT %s
"""


def prune_assessments(*, slice_of_day: int, keep: int = 3, seconds: float = 20.0, batch: int = 5_000) -> int:
    """Of the VMs of this slice (0 to 23) keep the last `keep` assessments, and those that failed; how many went."""
    ends_at = time.monotonic() + seconds
    removed = 0
    while time.monotonic() < ends_at:
        with transaction.atomic(), connection.cursor() as cursor:
            kind, failed = OperationKind.ASSESSMENT.value, OperationState.FAILED.value
            cursor.execute(_SURPLUS, [kind, slice_of_day % 24, keep, failed, batch])
            ids = [row[0] for row in cursor.fetchall()]
            removed += _remove(ids)
        if len(ids) < batch:
            break
    return removed


def _remove(operation_ids: Sequence[UUID]) -> int:
    """Remove ended operations with their results and lines; what they installed stays, and who did it is forgotten.

    A statement for each table that knows operations, whatever their number: nothing of them is read.
    """
    if not operation_ids:
        return 0
    for relation in Operation._meta.get_fields(include_hidden=True):
        if not isinstance(relation, ManyToOneRel):
            continue
        name = relation.field.name
        rows: QuerySet[Model] = QuerySet(relation.related_model).filter(**{f"{name}__any": array(operation_ids)})
        if relation.on_delete is CASCADE:
            rows.delete()
        else:
            rows.update(**{name: None})
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM updates_operation WHERE id = ANY(%s::uuid[])", [array(operation_ids)])
    return len(operation_ids)
