"""An import as a job: the file arrives in pieces, every row is read and checked, then the rows are written block by block.

The database is the queue. A worker claims the job that has waited longest by pushing its `next_step_at` one lease ahead, by
the database's clock, and puts a lease of its own on it; each block is one transaction that locks the job under this lease,
writes its rows, and says how far it has come. So a killed worker loses at most the block in hand, another one goes on behind
the last whole block, and a worker that was only slow finds its lease gone and writes nothing.

Nothing is taken over before every row was read. Whether the person who asked still may is judged again at every block.
"""

from __future__ import annotations

import json
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pghistory
import structlog
from django.conf import settings
from django.db import connection as database
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Now
from django.utils import timezone

from audit.context import acting
from audit.services import Act, record
from audit.tags import Tag
from connectors.protocol import Unread
from vms.choices import BEFORE_WRITING, ImportDoor, ImportPhase, ImportSource
from vms.import_models import ImportAnswer, ImportJob, ImportPiece, ImportRow, InventorySync
from vms.models import Connection, VirtualMachine
from vms.selectors import owns_everything
from vms.services.discovery import DiscoveryError, discovered_page
from vms.services.imports import RowOutcome, RowReport, write_rows
from vms.services.inventory_files import FileProblem, InventoryFileError, InventoryReader, ids_that_come_twice
from vms.services.inventory_rows import (
    BadRow,
    InventoryRow,
    RowProblem,
    facts_from_json,
    facts_to_json,
)

if TYPE_CHECKING:
    from django.contrib.auth.models import User

log = structlog.get_logger(__name__)

PIECE_BYTES = 1024 * 1024  # of a file, in one row
LEASE = timedelta(seconds=60)
READ_BLOCK, WRITE_BLOCK = 1_000, 500  # rows of one transaction
KEPT_FOR = timedelta(hours=1)  # what a dry run has checked, so that the file need not be chosen again
MOST_ANSWERS = 10_000  # that are kept of each outcome
SMALL_BYTES = 2 * 1024 * 1024  # a file that a worker for clicks takes: some 1,000 machines
MOST_FAILURES = 5  # in succession, of ours; then the job ends
_FAST = 1  # of zlib's levels; an inventory shrinks to a tenth with it
_COUNTED = frozenset({RowProblem.LINUX, RowProblem.OS_NOT_NAMED})  # beside the outcomes in `counts`
_PRUNE_BLOCK = 5_000

# Why an import ended before its last row, beside `FileProblem` and a connector's own codes.
RIGHT_LOST = "right_lost"
INTERNAL = "internal"


# --- asking for one --------------------------------------------------------------------------------------------------


def check_size(*, size: int) -> None:
    """Refuse a file over the limit. Raises InventoryFileError."""
    if size > settings.MAX_IMPORT_BYTES:
        raise InventoryFileError(FileProblem.TOO_LARGE, size=size, limit=settings.MAX_IMPORT_BYTES)


def begin_import(*, door: ImportDoor, requested_by: User | None = None) -> ImportJob:
    """A job for a file that is about to arrive, piece by piece (`add_piece`); nobody works on it before `file_arrived`."""
    return ImportJob.objects.create(door=door.value, requested_by=requested_by)


def add_piece(*, job_id: UUID, number: int, data: bytes) -> None:
    """Keep the next `PIECE_BYTES` of the file; only the last piece may be shorter. Raises InventoryFileError."""
    check_size(size=number * PIECE_BYTES + len(data))
    ImportPiece.objects.create(job_id=job_id, number=number, content=zlib.compress(data, _FAST))


@transaction.atomic
def file_arrived(*, job_id: UUID, connection: Connection, file_name: str, size: int, is_dry_run: bool) -> ImportJob:
    """All pieces are here: the job is due, and returned. What the same person's dry runs had kept before goes."""
    job = ImportJob.objects.select_for_update().get(pk=job_id, phase=ImportPhase.RECEIVING.value)
    if job.requested_by_id is not None:
        ImportJob.objects.filter(requested_by=job.requested_by_id, phase=ImportPhase.TRIED.value).update(
            are_rows_kept=False
        )
    ImportJob.objects.filter(pk=job_id).update(
        connection=connection,
        file_name=file_name[:200],
        size=size,
        is_dry_run=is_dry_run,
        phase=ImportPhase.READING.value,
        next_step_at=Now(),
    )
    job.refresh_from_db()
    return job


def forget_upload(*, job_id: UUID) -> None:
    """Delete what arrived of a file that is incomplete, or whose sender may not import."""
    ImportJob.objects.filter(pk=job_id, phase=ImportPhase.RECEIVING.value).delete()


@transaction.atomic
def take_over(*, job_id: UUID, requested_by: User, connection: Connection, is_dry_run: bool) -> ImportJob | None:
    """Import what this person's dry run has checked, or try it again. None: it is not kept any more.

    A second start finds the job on its way, and changes nothing.
    """
    job = ImportJob.objects.select_for_update().filter(pk=job_id, requested_by=requested_by).first()
    if job is None or (job.phase == ImportPhase.TRIED.value and not job.are_rows_kept):
        return None
    if job.phase != ImportPhase.TRIED.value:
        is_on_its_way = job.is_dry_run == is_dry_run and job.phase in _ON_ITS_WAY
        return job if is_on_its_way else None
    job.connection, job.is_dry_run, job.finished_at = connection, is_dry_run, None
    # Other machines may be known by now: who moves is asked anew.
    job.phase, job.cursor = ImportPhase.READING.value, {"is_read": True}
    job.done_count, job.counts = 0, {}
    job.save()
    job.answers.all().delete()
    ImportJob.objects.filter(pk=job.pk).update(next_step_at=Now())
    if not is_dry_run:
        record(acts=[_asked(Tag.INVENTORY_TAKE_OVER, job)], by=requested_by)
    return job


_ON_ITS_WAY = frozenset({ImportPhase.READING, ImportPhase.TRYING, ImportPhase.WRITING, ImportPhase.SUCCEEDED})


@transaction.atomic
def cancel_import(*, job_id: UUID, cancelled_by: User | None = None) -> bool:
    """End an import of which nothing was taken over yet; whether that was so."""
    cancelled = ImportJob.objects.filter(pk=job_id, phase__in=BEFORE_WRITING).update(
        phase=ImportPhase.CANCELLED.value, **_OVER
    )
    if cancelled:
        job = ImportJob.objects.select_related("connection").get(pk=job_id)
        record(acts=[_asked(Tag.INVENTORY_CANCEL, job)], by=cancelled_by)
    return bool(cancelled)


_OVER: dict[str, Any] = {"finished_at": Now(), "next_step_at": None, "lease": None, "are_rows_kept": False}


# --- working on them -------------------------------------------------------------------------------------------------

_CLAIM = """
UPDATE vms_importjob SET lease = %(lease)s, next_step_at = clock_timestamp() + %(length)s,
    began_at = coalesce(began_at, clock_timestamp())
WHERE id = (
    SELECT id FROM vms_importjob
    WHERE next_step_at <= clock_timestamp() AND (id = %(only)s OR %(only)s::uuid IS NULL)
        AND (size <= %(most_bytes)s AND source = %(file)s OR %(most_bytes)s::bigint IS NULL)
    ORDER BY next_step_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING id
"""


class LeaseLostError(Exception):
    """The job went to another worker, or was cancelled."""


def work_on_imports(*, seconds: float, most_bytes: int | None = None, only: UUID | None = None) -> bool:
    """Work on due imports, the one that has waited longest first, for about so long; whether something was done.

    `most_bytes`: only files up to this size. `only`: only this job. A job that is not finished by then waits behind the
    others, so that a small file does not wait for a large one.
    """
    ends_at = time.monotonic() + seconds
    has_worked = False
    while time.monotonic() < ends_at:
        lease = uuid4()
        with database.cursor() as cursor:
            parameters: dict[str, Any] = {
                "lease": lease,
                "length": LEASE,
                "only": only,
                "most_bytes": most_bytes,
                "file": ImportSource.FILE.value,
            }
            cursor.execute(_CLAIM, parameters)
            claimed = cursor.fetchone()
        if claimed is None:
            return has_worked
        has_worked = True
        # Turns of a few seconds: the next job has waited long enough.
        _work_on(_Claim(claimed[0], lease), until=min(ends_at, time.monotonic() + _TURN_SECONDS))
    return has_worked


_TURN_SECONDS = 4.0


@dataclass(slots=True)
class _Claim:
    """A job in hand, and the reader of its file between two blocks."""

    job_id: UUID
    lease: UUID
    reader: InventoryReader | None = None

    def locked(self) -> ImportJob:
        """The job, locked; its lease is renewed when the transaction commits. Raises LeaseLostError."""
        job = (
            ImportJob.objects.select_related("connection", "requested_by")
            .select_for_update(of=("self",))
            .filter(pk=self.job_id, lease=self.lease)
            .first()
        )
        if job is None:
            raise LeaseLostError
        return job


def _work_on(claim: _Claim, *, until: float) -> None:
    """Take steps, at least one, until the job is over or the time is up, then give it back."""
    try:
        while _step(claim):
            if time.monotonic() >= until:
                break
        else:
            return
    except LeaseLostError:
        log.info("import_given_up", job=str(claim.job_id))
        return
    except Exception:
        log.exception("import_step_failed", job=str(claim.job_id))
        _note_failure(claim)
        return
    ImportJob.objects.filter(pk=claim.job_id, lease=claim.lease).update(next_step_at=Now(), lease=None)


def _note_failure(claim: _Claim) -> None:
    """Try again in a while; after some times in succession the job ends, and says that the fault is ours."""
    _try_again(claim, seconds=10)
    ended = ImportJob.objects.filter(pk=claim.job_id, failures__gte=MOST_FAILURES, finished_at=None)
    ended.update(phase=ImportPhase.FAILED.value, error_code=INTERNAL, **_OVER)


def _try_again(claim: _Claim, *, seconds: float) -> None:
    mine = ImportJob.objects.filter(pk=claim.job_id, lease=claim.lease)
    mine.update(failures=F("failures") + 1, next_step_at=Now() + timedelta(seconds=seconds), lease=None)


def _step(claim: _Claim) -> bool:
    """One block, whole or not at all; whether there is more to do. What takes long is done before the transaction."""
    job = ImportJob.objects.select_related("connection", "requested_by").filter(pk=claim.job_id, lease=claim.lease)
    found = job.first()
    if found is None:
        raise LeaseLostError
    try:
        block = _next_block(claim, found)
    except InventoryFileError as error:
        return _end(claim, ImportPhase.FAILED, code=error.problem.value, facts=error.facts)
    except DiscoveryError as error:
        if error.retry_after is not None and found.failures < MOST_FAILURES - 1:
            _try_again(claim, seconds=error.retry_after)
            return False
        return _end(claim, ImportPhase.FAILED, code=error.code, facts={"detail": error.detail[:500]})
    with (
        transaction.atomic(),
        acting(person=found.requested_by),
        pghistory.context(source="import", file=found.file_name),
    ):
        locked = claim.locked()
        if not _may(locked):
            return _end(claim, ImportPhase.STOPPED, code=RIGHT_LOST)
        if block is not None:
            _stage(locked, block)
        elif locked.phase == ImportPhase.READING:
            _plan(locked)
        else:
            _write_block(locked)
        _keep(locked)
    return locked.finished_at is None


def _may(job: ImportJob) -> bool:
    """Whether whoever asked for it may import now. A command and the schedule have the portal's own right."""
    if job.door != ImportDoor.PAGE.value:
        return True
    return job.requested_by is not None and owns_everything(job.requested_by)


def _end(claim: _Claim, phase: ImportPhase, *, code: str = "", facts: dict[str, Any] | None = None) -> bool:
    """End the job in this phase. Machines that it has written stay."""
    mine = ImportJob.objects.filter(pk=claim.job_id, lease=claim.lease)
    mine.update(phase=phase.value, error_code=code, error_facts=facts or {}, **_OVER)
    return False


_KEPT = (
    *("phase", "cursor", "read_bytes", "row_count", "done_count", "counts", "gone_count", "has_more_pages", "unread"),
    *("passed_over", "error_code", "error_facts", "are_rows_kept", "failures", "finished_at", "lease"),
)


def _keep(job: ImportJob) -> None:
    values: dict[str, Any] = {name: getattr(job, name) for name in _KEPT}
    is_over = ImportPhase(job.phase).is_over
    values |= {"failures": 0, "next_step_at": None if is_over else Now() + LEASE}
    ImportJob.objects.filter(pk=job.pk).update(**values)
    if is_over and job.source == ImportSource.DISCOVERY.value:
        log.info("inventory_synced", connection=job.connection_id, rows=job.row_count, gone=job.gone_count)


def _finish(job: ImportJob, phase: ImportPhase) -> None:
    job.phase, job.finished_at, job.lease = phase.value, timezone.now(), None
    job.are_rows_kept = phase is ImportPhase.TRIED


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows that were read, and where reading goes on; `is_last`: there are no more."""

    rows: Sequence[InventoryRow]
    cursor: dict[str, Any]
    read_bytes: int = 0
    is_last: bool = False
    has_more_pages: bool = False
    passed_over: str = ""
    unread: Sequence[Unread] = ()


def _next_block(claim: _Claim, job: ImportJob) -> _Block | None:
    """The next rows of the file or of the connection; None: all were read. Needs no transaction."""
    if job.phase != ImportPhase.READING or job.cursor.get("is_read"):
        return None
    if job.source == ImportSource.DISCOVERY.value:
        assert job.connection is not None
        page = discovered_page(connection=job.connection, cursor=job.cursor.get("page", ""), first=job.row_count + 1)
        return _Block(page.rows, {"page": page.next_cursor}, is_last=not page.next_cursor, unread=page.unread)
    reader = claim.reader = claim.reader or InventoryReader(_pieces_of(job), state=job.cursor)
    rows = reader.read(READ_BLOCK)
    state = reader.state()
    return _Block(rows, state, state["byte"], reader.is_over, reader.has_more_pages, reader.passed_over)


def _pieces_of(job: ImportJob) -> Any:
    """A function that gives the job's file from a byte on, a piece at a time."""

    def pieces(byte: int) -> Iterator[bytes]:
        number, skipped = divmod(byte, PIECE_BYTES)
        while (piece := ImportPiece.objects.filter(job=job, number=number).first()) is not None:
            yield zlib.decompress(bytes(piece.content))[skipped:]
            number, skipped = number + 1, 0

    return pieces


_COPY = "COPY vms_importrow (job_id, number, arm_id, name, vm_id, problem, detail, facts, document) FROM STDIN"


def _stage(job: ImportJob, block: _Block) -> None:
    with database.cursor() as cursor, cursor.copy(_COPY) as copy:
        for row in block.rows:
            copy.write_row((job.pk, row.number, row.arm_id, row.name, *_columns(row)))
    job.row_count += len(block.rows)
    job.read_bytes = block.read_bytes
    job.unread += [asdict(one) for one in block.unread]
    job.has_more_pages, job.passed_over = block.has_more_pages, block.passed_over
    job.cursor = {"is_read": True} if block.is_last else block.cursor


def _columns(row: InventoryRow) -> tuple[Any, ...]:
    content = row.content
    if isinstance(content, BadRow):
        return None, content.problem.value, content.detail, None, None
    return content.values.get("vm_id"), "", "", json.dumps(facts_to_json(content)), row.document


# --- what can only be said when all rows are known ---------------------------------------------------------------------

# The rows have just come: PostgreSQL takes them for a handful until it has looked, and would compare each with each.
_KNOW_THE_ROWS = "ANALYZE vms_importrow (id, job_id, number, turn, arm_id, vm_id, problem)"
# By numbers first: sorting a million ids takes longer than a task may.
_TWICE = """
WITH marks AS MATERIALIZED (
    SELECT hashtextextended(arm_id, 0) AS mark FROM vms_importrow
    WHERE job_id = %(job)s AND arm_id <> '' GROUP BY mark HAVING count(*) > 1
)
SELECT arm_id, (array_agg(number ORDER BY number))[:10], count(*) OVER () FROM vms_importrow
WHERE job_id = %(job)s AND arm_id <> '' AND hashtextextended(arm_id, 0) IN (SELECT mark FROM marks)
GROUP BY arm_id HAVING count(*) > 1 ORDER BY min(number) LIMIT 5
"""
# While a connection lists its machines one may move to a later page: what was said last counts.
_KEEP_LAST = """
DELETE FROM vms_importrow earlier USING (
    SELECT arm_id, max(number) AS number FROM vms_importrow
    WHERE job_id = %(job)s AND arm_id <> '' GROUP BY arm_id HAVING count(*) > 1
) last
WHERE earlier.job_id = %(job)s AND earlier.arm_id = last.arm_id AND earlier.number < last.number
"""
_FORGET_PLAN = """
UPDATE vms_importrow SET turn = 1, problem = CASE problem WHEN %(same)s THEN '' ELSE problem END
WHERE job_id = %(job)s AND (turn <> 1 OR problem = %(same)s)
"""
# Of several rows with one VM id the machine is the one that stands where it is known, else the first.
_SAME_VM_ID = """
UPDATE vms_importrow row SET problem = %(same)s, detail = ranked.kept::text
FROM (
    SELECT one.id, first_value(one.number) OVER w AS kept, row_number() OVER w AS place
    FROM vms_importrow one LEFT JOIN vms_virtualmachine vm ON vm.arm_id = one.arm_id AND vm.vm_id = one.vm_id
    WHERE one.job_id = %(job)s AND one.problem = '' AND one.vm_id IN (
        SELECT vm_id FROM vms_importrow WHERE job_id = %(job)s AND problem = '' GROUP BY vm_id HAVING count(*) > 1)
    WINDOW w AS (PARTITION BY one.vm_id ORDER BY (vm.id IS NULL), one.number)
) ranked
WHERE row.id = ranked.id AND ranked.place > 1
"""
# Moves make room for what else the file says of the ids that they leave.
_MOVES_FIRST = """
UPDATE vms_importrow row SET turn = 0 FROM vms_virtualmachine vm
WHERE row.job_id = %(job)s AND row.problem = '' AND vm.vm_id = row.vm_id AND vm.arm_id <> row.arm_id
    AND NOT EXISTS (SELECT 1 FROM vms_virtualmachine here WHERE here.arm_id = row.arm_id)
"""


def _plan(job: ImportJob) -> None:
    """Take the next step of judging what only the whole file can tell; behind the last one go over to writing, or to trying.

    Each is a transaction of its own: for a million rows one takes some seconds, and a task has less than a minute.
    """
    step = job.cursor.get("plan", 0)
    _PLAN[step](job)
    if step + 1 < len(_PLAN):
        job.cursor = {"is_read": True, "plan": step + 1}
    elif job.finished_at is None:
        job.phase = (ImportPhase.TRYING if job.is_dry_run else ImportPhase.WRITING).value
        job.cursor = {"turn": ImportRow.MOVES, "number": 0}


def _know_the_rows(_job: ImportJob) -> None:
    with database.cursor() as cursor:
        cursor.execute(_KNOW_THE_ROWS)


def _judge_ids(job: ImportJob) -> None:
    """Of rows with one id a connection means the last; a file that has one twice is refused."""
    with database.cursor() as cursor:
        if job.source == ImportSource.DISCOVERY.value:
            cursor.execute(_KEEP_LAST, {"job": job.pk})
            job.row_count -= cursor.rowcount
            return
        cursor.execute(_TWICE, {"job": job.pk})
        twice = cursor.fetchall()
    if twice:
        error = ids_that_come_twice({arm_id: rows for arm_id, rows, _count in twice}, count=twice[0][2])
        job.error_code, job.error_facts = error.problem.value, error.facts
        _finish(job, ImportPhase.FAILED)


def _carry_out(statement: str, job: ImportJob) -> None:
    with database.cursor() as cursor:
        cursor.execute(statement, {"job": job.pk, "same": RowProblem.SAME_VM_ID.value})


_PLAN: tuple[Callable[[ImportJob], None], ...] = (
    _know_the_rows,
    _judge_ids,
    *(partial(_carry_out, statement) for statement in (_FORGET_PLAN, _SAME_VM_ID, _MOVES_FIRST)),
)


# --- writing ---------------------------------------------------------------------------------------------------------

_KEEP_DOCUMENTS = """
INSERT INTO vms_machinedocument AS kept (vm_id, document, is_listed)
SELECT vm.id, row.document, %(is_listed)s
FROM vms_importrow row JOIN vms_virtualmachine vm ON vm.arm_id = row.arm_id
WHERE row.job_id = %(job)s AND row.number = ANY(%(numbers)s) ORDER BY vm.id
ON CONFLICT (vm_id) DO UPDATE
SET document = excluded.document, is_listed = kept.is_listed OR excluded.is_listed, taken_at = statement_timestamp()
WHERE kept.document <> excluded.document OR kept.is_listed < excluded.is_listed
"""


def _write_block(job: ImportJob) -> None:
    """Write the next block, or in a dry run say what would become of it."""
    is_dry_run = job.phase == ImportPhase.TRYING.value
    turn, number = job.cursor["turn"], job.cursor["number"]
    waiting = ImportRow.objects.filter(job=job, turn=turn, number__gt=number).order_by("number")
    rows = [_inventory_row(*row) for row in waiting.values_list(*_ROW)[:WRITE_BLOCK]]
    if not rows:
        if turn < ImportRow.MACHINES:
            job.cursor = {"turn": turn + 1, "number": 0}
        else:
            if job.source == ImportSource.DISCOVERY.value:
                job.gone_count = _mark_gone(job)
            _finish(job, ImportPhase.TRIED if is_dry_run else ImportPhase.SUCCEEDED)
            if not is_dry_run:
                record(acts=[_act(job)], by=job.requested_by)
        return
    assert job.connection is not None
    reports = write_rows(
        rows=rows,
        connection=job.connection,
        now=timezone.now(),
        is_dry_run=is_dry_run,
        moved=_moves_before(job, rows) if is_dry_run and turn == ImportRow.MACHINES else None,
    )
    if not is_dry_run:
        numbers = [report.number for report in reports if report.outcome is not RowOutcome.SKIPPED]
        is_listed = job.source == ImportSource.DISCOVERY.value
        kept: dict[str, Any] = {"job": job.pk, "numbers": numbers, "is_listed": is_listed}
        with database.cursor() as cursor:
            cursor.execute(_KEEP_DOCUMENTS, kept)
    _answer(job, reports)
    job.done_count += len(rows)
    job.cursor = {"turn": turn, "number": rows[-1].number}


def _asked(tag: Tag, job: ImportJob) -> Act:
    """What the record keeps of something that a person asked of an import or a sync."""
    name = job.connection.name if job.connection is not None else ""
    return Act(tag, object_id=str(job.pk), object_name=name, detail={"file": job.file_name})


def _act(job: ImportJob) -> Act:
    """What the record keeps of an import or a sync that is over."""
    name = job.connection.name if job.connection is not None else ""
    counts = {outcome: count for outcome, count in job.counts.items() if count}
    return Act(Tag.INVENTORY_IMPORT, object_name=name, detail={"file": job.file_name} | counts)


# Not the document: it goes from table to table.
_ROW = ("number", "arm_id", "name", "problem", "detail", "facts")


def _inventory_row(
    number: int, arm_id: str, name: str, problem: str, detail: str, facts: dict[str, Any] | None
) -> InventoryRow:
    if problem or facts is None:
        return InventoryRow(number, arm_id, name, BadRow(RowProblem(problem), detail))
    return InventoryRow(number, arm_id, name, facts_from_json(facts))


def _moves_before(job: ImportJob, rows: Sequence[InventoryRow]) -> dict[UUID, str]:
    """In a dry run: the ids that earlier rows would have moved these rows' machines to, by VM id."""
    arm_ids = [row.arm_id for row in rows]
    met = VirtualMachine.objects.filter(arm_id__in=arm_ids, vm_id__isnull=False).values("vm_id")
    moves = ImportRow.objects.filter(job=job, turn=ImportRow.MOVES, problem="", vm_id__in=met)
    return {vm_id: arm_id for vm_id, arm_id in moves.values_list("vm_id", "arm_id") if vm_id is not None}


def _answer(job: ImportJob, reports: Sequence[RowReport]) -> None:
    """Count what became of the rows, and keep the first of each outcome."""
    counts = Counter(job.counts)
    kept = []
    for report in reports:
        counts[report.outcome.value] += 1
        if report.problem in _COUNTED:
            counts[report.problem.value] += 1
        if counts[report.outcome.value] <= MOST_ANSWERS:
            kept.append(
                ImportAnswer(
                    job=job,
                    number=report.number,
                    outcome=report.outcome.value,
                    name=report.name,
                    arm_id=report.arm_id,
                    changed=list(report.changed_fields),
                    problem=report.problem.value if report.problem else "",
                    detail=report.detail,
                    cleaned=list(report.cleaned),
                )
            )
    ImportAnswer.objects.bulk_create(kept)
    job.counts = dict(counts)


def _mark_gone(job: ImportJob) -> int:
    """Mark the machines that the connection once listed and lists no more; how many.

    An empty list marks none: it is more likely that the connection may not look any more than that all are gone. Neither does
    what could not be looked at.
    """
    if not job.row_count:
        return 0
    listed = ImportRow.objects.filter(job=job, arm_id=OuterRef("arm_id"))
    gone = VirtualMachine.objects.filter(connection=job.connection_id, gone_at=None, document__is_listed=True)
    return gone.exclude(Exists(listed)).exclude(_unread_by(job)).update(gone_at=timezone.now())


def _unread_by(job: ImportJob) -> Q:
    """The machines that the sync could not look at."""
    subscriptions: dict[str, list[str]] = defaultdict(list)
    for one in job.unread:
        subscriptions[one["resource_type"].lower()].append(one["subscription_id"])
    found = Q(pk__in=[])
    for resource_type, ids in subscriptions.items():
        found |= Q(
            arm_id__contains=f"/providers/{resource_type}/", resource_group__subscription__subscription_id__in=ids
        )
    return found


# --- syncing a connection --------------------------------------------------------------------------------------------


SYNC_EVERY = timedelta(days=1)


@transaction.atomic
def sync_inventory(*, connection: Connection, door: ImportDoor, requested_by: User | None = None) -> ImportJob:
    """Ask a connection for its machines; what is under way already is the answer to a second question."""
    sync, _is_new = InventorySync.objects.select_for_update().get_or_create(connection=connection)
    if sync.job is not None and sync.job.finished_at is None:
        return sync.job
    sync.job = _question(connection.pk, door, requested_by)
    sync.job.save(force_insert=True)
    sync.next_at = timezone.now() + SYNC_EVERY
    sync.save(update_fields=["job", "next_at"])
    if door is not ImportDoor.SCHEDULE:
        record(acts=[_asked(Tag.INVENTORY_SYNC, sync.job)], by=requested_by)
    return sync.job


@transaction.atomic
def begin_due_syncs(*, now: datetime) -> int:
    """Ask the connections that were not asked for a day; how many (three statements, however many they are).

    One that was never synced waits for a person; one whose last question is still open is not asked again.
    """
    is_open = Exists(
        ImportJob.objects.filter(
            connection=OuterRef("connection"), source=ImportSource.DISCOVERY.value, finished_at__isnull=True
        )
    )
    # What somebody else holds is being asked at this moment.
    due = list(InventorySync.objects.select_for_update(skip_locked=True).filter(~is_open, next_at__lte=now))
    for sync in due:
        sync.job = _question(sync.connection_id, ImportDoor.SCHEDULE, None)
        sync.next_at = now + SYNC_EVERY
    ImportJob.objects.bulk_create(sync.job for sync in due if sync.job)
    InventorySync.objects.bulk_update(due, ["job", "next_at"])
    return len(due)


def _question(connection_id: int, door: ImportDoor, requested_by: User | None) -> ImportJob:
    """A job, not yet kept, that asks a connection for its machines."""
    return ImportJob(
        source=ImportSource.DISCOVERY.value,
        door=door.value,
        connection_id=connection_id,
        requested_by=requested_by,
        phase=ImportPhase.READING.value,
        next_step_at=Now(),
    )


# --- clearing away ---------------------------------------------------------------------------------------------------

_BEFORE_READING_ENDS = [ImportPhase.RECEIVING.value, ImportPhase.READING.value]
_PRUNE = {
    "rows": f"""
DELETE FROM vms_importrow WHERE id IN (
    SELECT row.id FROM vms_importrow row JOIN vms_importjob job ON job.id = row.job_id
    WHERE NOT job.are_rows_kept LIMIT {_PRUNE_BLOCK})""",  # noqa: S608 (a number of ours)
    "pieces": """
DELETE FROM vms_importpiece WHERE id IN (
    SELECT piece.id FROM vms_importpiece piece JOIN vms_importjob job ON job.id = piece.job_id
    WHERE job.phase <> ALL(%(before_reading_ends)s) OR (job.cursor ? 'is_read') LIMIT 100)""",
}


def prune_imports(*, now: datetime, seconds: float = 5.0, keep_days: int | None = None) -> int:
    """Remove what no import needs any more, in blocks, for about so long; how many rows.

    That is: pieces of files that were read, rows of jobs that are over (of a dry run after an hour), uploads that did not
    arrive whole within an hour, and after `keep_days` the jobs themselves.
    """
    old = now - KEPT_FOR
    ImportJob.objects.filter(phase=ImportPhase.TRIED.value, are_rows_kept=True, finished_at__lte=old).update(
        are_rows_kept=False
    )
    removed = ImportJob.objects.filter(phase=ImportPhase.RECEIVING.value, created_at__lte=old).delete()[0]
    if keep_days is not None:
        ended = Q(finished_at__lte=now - timedelta(days=keep_days), are_rows_kept=False)
        rows_left = Exists(ImportRow.objects.filter(job=OuterRef("pk")))
        gone = ImportJob.objects.filter(ended).exclude(rows_left).values("pk")[:10]
        removed += ImportJob.objects.filter(pk__in=list(gone.values_list("pk", flat=True))).delete()[0]
    ends_at = time.monotonic() + seconds
    for statement in _PRUNE.values():
        while time.monotonic() < ends_at:
            with database.cursor() as cursor:
                cursor.execute(statement, {"before_reading_ends": _BEFORE_READING_ENDS})
                count = cursor.rowcount
            removed += count
            if not count:
                break
    return removed
