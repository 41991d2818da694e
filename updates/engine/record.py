"""Writing what came of starts and looks: state through `transition`, and beside it what is not state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from connectors.protocol import ConnectorError, Observation, PatchOutcome, Started, StartOutcome
from db.arrays import array, rowset
from patching.codes import ErrorCode, EventCode
from patching.lifecycle import LONGEST_WAIT, MAX_START_ATTEMPTS, retry_delay, state_for
from patching.terms import OperationKind, OperationState, RunStatus, Verification
from updates.engine.budget import WHOLE
from updates.engine.rows import ClaimedRow
from updates.engine.transition import Change, transition, write_events
from updates.models import IN_FLIGHT_STATES, Operation, Priority
from updates.services.assessments import ensure_patches, record_failures, record_silence
from updates.services.operations import request_assessments

S = OperationState


def clean(text: str) -> str:
    """What a machine said, as PostgreSQL can hold it and a page can show it."""
    return text.replace("\x00", "")[:2_000]


def whole(handle: str) -> str:
    """A handle as PostgreSQL can hold it. It is never cut: the addresses in those of Azure are signed, and thousands long."""
    return handle.replace("\x00", "")


def code_of(status: RunStatus, error: ConnectorError | None, failed: ErrorCode = ErrorCode.UNKNOWN) -> str | None:
    """Why a run ended so, so that none ends badly without a reason. `failed`: where the machine names none itself."""
    if error is not None:
        return error.code
    if status is RunStatus.FAILED:
        return failed
    return None if state_for(status) is not S.FAILED else ErrorCode.CONNECTOR_GARBAGE


def until_next_look(seconds: float) -> timedelta:
    """How long to wait for a look that the connector calls worth it then; a deadline is seen by looks alone."""
    return timedelta(seconds=min(seconds, LONGEST_WAIT.total_seconds()))


def until_next_try(attempts: int, retry_after: float | None) -> timedelta:
    """How long to wait before asking again about what has begun: a pause that the other side asked for hides no deadline."""
    return min(retry_delay(attempts, retry_after), LONGEST_WAIT)


def postpone(operation_ids: Sequence[UUID], state: OperationState, until: datetime) -> None:
    """Give a claim back: due again at `until`, if the operation is still where it was read."""
    Operation.objects.filter(pk__in=operation_ids, state=state.value).update(next_step_at=until)


def still_mine(rows: Sequence[ClaimedRow], leased_until: datetime) -> list[ClaimedRow]:
    """Of these rows, those that no other worker has claimed since, locked until the transaction ends.

    A worker that was stopped for longer than its lease must not speak for operations that another has taken over.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM updates_operation WHERE id = ANY(%s::uuid[]) AND next_step_at = %s ORDER BY id FOR UPDATE",
            [array(row.pk for row in rows), leased_until],
        )
        mine = {pk for (pk,) in cursor.fetchall()}
    return [row for row in rows if row.pk in mine]


# --- starts ------------------------------------------------------------------------------------------------------


def started_change(row: ClaimedRow, handle: str, next_step_at: datetime | None) -> Change:
    """Under way; without a time for the next look it stays claimed."""
    return Change(
        operation_id=row.pk,
        from_state=S.STARTING,
        to_state=S.IN_PROGRESS,
        event=row.event(EventCode.STARTED),
        handle=whole(handle),
        next_step_at=next_step_at,
        priority=Priority.OBSERVE if row.is_bulk else Priority.INTERACTIVE,
        attempts=0,
    )


def record_starts(
    answers: Sequence[tuple[ClaimedRow, StartOutcome]], *, now: datetime, leased_until: datetime, can_find: bool = False
) -> list[ClaimedRow]:
    """Write what became of starts. Returns those whose connector says that a look is worth it at once.

    `can_find`: the connector can say whether a start arrived. It is asked until the deadline, also after the last attempt.

    Assessments among them are not written yet: the look ends most of them, and one statement then does for both. Until
    then they stay in `starting`, in this worker's lease.
    """
    started: list[Change] = []
    prompt: list[ClaimedRow] = []
    failed: list[tuple[ClaimedRow, ConnectorError]] = []
    deferred: dict[str, list[tuple[ClaimedRow, timedelta]]] = defaultdict(list)
    unsure: list[ClaimedRow] = []
    unconfirmed: list[ClaimedRow] = []
    throttled: list[tuple[ClaimedRow, ConnectorError]] = []
    for row, answer in answers:
        is_tired = row.attempts >= MAX_START_ATTEMPTS
        is_late = row.is_past_deadline and not row.is_unsent
        if isinstance(answer, Started):
            is_prompt = answer.look_again_after <= 0
            if not is_prompt or row.kind.changes_the_machine:
                look_at = None if is_prompt else now + until_next_look(answer.look_again_after)
                started.append(started_change(row, answer.handle, look_at))
            if is_prompt:
                taken = row._replace(handle=whole(answer.handle))
                prompt.append(taken.in_progress() if row.kind.changes_the_machine else taken)
        elif answer.bucket is not None and answer.nothing_was_sent and answer.is_retryable and not is_late:
            throttled.append((row, answer))
        elif not answer.is_retryable or (is_tired and answer.nothing_was_sent and row.is_unsent):
            failed.append((row, answer))
        elif (is_tired and not can_find) or is_late:
            unconfirmed.append(row)
        elif answer.nothing_was_sent and row.is_unsent:
            deferred[answer.code].append((row, retry_delay(row.attempts, answer.retry_after)))
        else:
            unsure.append(row)
    winners = transition(changes=started, now=now)
    for code, pairs in deferred.items():
        requeue(pairs, code, now=now, leased_until=leased_until)
    _wait_for_budget(throttled, now=now, leased_until=leased_until)
    leave_in_doubt(unsure, now=now, leased_until=leased_until)
    give_up(unconfirmed, ErrorCode.START_UNCONFIRMED, now=now, leased_until=leased_until)
    fail(failed, now=now, leased_until=leased_until)
    return [row for row in prompt if row.kind is OperationKind.ASSESSMENT or row.pk in winners]


def _wait_for_budget(
    rows: Sequence[tuple[ClaimedRow, ConnectorError]], *, now: datetime, leased_until: datetime
) -> None:
    """Back to where they were, without an attempt counted.

    A bucket of theirs that rests keeps them out of the claim; a budget that is only their own is waited for one by one.
    """
    fresh = [
        (row, timedelta(0) if shares_budget(row, error) else retry_delay(1, error.retry_after))
        for row, error in rows
        if row.is_unsent
    ]
    requeue(fresh, "", now=now, leased_until=leased_until, is_attempt=False)
    by_delay: dict[timedelta, list[ClaimedRow]] = defaultdict(list)
    for row, error in rows:
        if not row.is_unsent:
            by_delay[until_next_try(1, error.retry_after)].append(row)
    for delay, alike in by_delay.items():
        with transaction.atomic():
            postpone([row.pk for row in still_mine(alike, leased_until)], S.STARTING, now + delay)


def shares_budget(row: ClaimedRow, error: ConnectorError) -> bool:
    """Whether the budget that refused is one that this operation shares with others."""
    return error.bucket in {WHOLE, row.bucket}


def leave_in_doubt(rows: Sequence[ClaimedRow], *, now: datetime, leased_until: datetime) -> None:
    """Whether these starts arrived is not known: they stay in `starting` and are recovered like those of a worker that died."""
    by_delay: dict[timedelta, list[ClaimedRow]] = defaultdict(list)
    for row in rows:
        by_delay[retry_delay(row.attempts)].append(row)
    for delay, alike in by_delay.items():
        with transaction.atomic():
            mine = still_mine(alike, leased_until)
            postpone([row.pk for row in mine], S.STARTING, now + delay)


def requeue(
    rows: Sequence[tuple[ClaimedRow, timedelta]],
    code: str,
    *,
    now: datetime,
    leased_until: datetime,
    is_attempt: bool = True,
) -> None:
    """Back to the queue, since it is proven that nothing was sent. Unless it counts as an attempt it leaves no trace."""
    if not rows:
        return
    delays = {row.pk: delay for row, delay in rows}
    with transaction.atomic():
        mine = still_mine([row for row, _delay in rows], leased_until)
        transition(
            changes=[
                Change(
                    operation_id=row.pk,
                    from_state=S.STARTING,
                    to_state=S.QUEUED,
                    event=row.event(EventCode.START_DEFERRED) if is_attempt else "",
                    detail={"code": code, "seconds": delays[row.pk].total_seconds()},
                    next_step_at=now + delays[row.pk],
                    attempts=None if is_attempt else row.attempts - 1,
                )
                for row in mine
            ],
            now=now,
        )


def count_attempt(rows: Sequence[ClaimedRow]) -> list[ClaimedRow]:
    """Count one more attempt to start these; they come back as they are now."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE updates_operation SET attempts = attempts + 1 WHERE id = ANY(%s::uuid[])",
            [array(row.pk for row in rows)],
        )
    return [row._replace(attempts=row.attempts + 1) for row in rows]


# --- ending without an answer ------------------------------------------------------------------------------------


def _ended(row: ClaimedRow, code: str, detail: str | None = None) -> Change:
    return Change(
        operation_id=row.pk,
        from_state=row.state,
        to_state=S.FAILED,
        event=row.event(EventCode.FINISHED),
        error_code=code,
        error_detail=detail,
        # A run that ended without results has nothing to verify.
        verification=Verification.NOT_VERIFIABLE if row.kind.changes_the_machine else None,
    )


def fail(
    rows: Sequence[tuple[ClaimedRow, ConnectorError]], *, now: datetime, leased_until: datetime, is_silent: bool = False
) -> None:
    """End runs that the connector refused for good.

    `is_silent`: what they did to their machines is not known; an assessment is queued that finds out.
    """
    if not rows:
        return
    errors = {row.pk: error for row, error in rows}
    with transaction.atomic():
        mine = still_mine([row for row, _error in rows], leased_until)
        winners = transition(
            changes=[_ended(row, errors[row.pk].code, clean(errors[row.pk].detail)) for row in mine], now=now
        )
        ended = [row for row in mine if row.pk in winners]
        record_failures(
            errors={row.vm_id: errors[row.pk].code for row in ended if row.kind is OperationKind.ASSESSMENT}
        )
        if is_silent and (unknown := [row.vm_id for row in ended if row.kind.changes_the_machine]):
            record_silence(vm_ids=unknown)
            request_assessments(vm_ids=unknown, requested_by=None)


def give_up(rows: Sequence[ClaimedRow], code: str, *, now: datetime, leased_until: datetime) -> None:
    """End runs whose outcome is not known, and queue an assessment that finds out."""
    if not rows:
        return
    with transaction.atomic():
        winners = transition(changes=[_ended(row, code) for row in still_mine(rows, leased_until)], now=now)
        ended = [row for row in rows if row.pk in winners]
        record_failures(errors={row.vm_id: code for row in ended if row.kind is OperationKind.ASSESSMENT})
        doubtful = [row.vm_id for row in ended if row.kind.changes_the_machine]
        if doubtful:
            record_silence(vm_ids=doubtful)
            request_assessments(vm_ids=doubtful, requested_by=None)


# --- what still runs ---------------------------------------------------------------------------------------------


def follow(pairs: Sequence[tuple[ClaimedRow, Observation]], *, now: datetime) -> None:
    """Write what running operations are doing."""
    if not pairs:
        return
    with transaction.atomic():
        transition(
            changes=[change for row, seen in pairs if (change := _followed(row, seen, now)) is not None], now=now
        )
        _write_progress(
            [
                (
                    row.pk,
                    asdict(seen.progress) if seen.progress else None,
                    whole(seen.handle) if seen.handle is not None else row.handle,
                    now + until_next_look(seen.look_again_after),
                )
                for row, seen in pairs
            ]
        )
        write_events(event for row, seen in pairs for event in _progress_events(row, seen, now))
        record_results([(row.pk, seen.outcomes) for row, seen in pairs if seen.outcomes])


def _followed(row: ClaimedRow, seen: Observation, now: datetime) -> Change | None:
    """The transition between `in_progress` and `rebooting`, if the machine made it."""
    target = S.REBOOTING if seen.is_rebooting else S.IN_PROGRESS
    if row.state is target:
        return None
    return Change(
        operation_id=row.pk,
        from_state=row.state,
        to_state=target,
        event=row.event(EventCode.REBOOTING if seen.is_rebooting else EventCode.REBOOTED),
        next_step_at=now + until_next_look(seen.look_again_after),
    )


_STEPS_WITH_A_LINE = frozenset({"installing", "uninstalling"})


def _progress_events(
    row: ClaimedRow, seen: Observation, now: datetime
) -> Iterable[tuple[UUID, datetime, str, OperationState, Mapping[str, Any]]]:
    """A line when another patch begins to come or to go."""
    progress, before = seen.progress, row.progress or {}
    if progress is None or progress.step not in _STEPS_WITH_A_LINE or not row.kind.changes_the_machine:
        return
    if (before.get("step"), before.get("index")) == (progress.step, progress.index):
        return
    detail = {
        "kb_number": progress.kb_number,
        "title": progress.title,
        "index": progress.index,
        "total": progress.total,
    }
    yield row.pk, now, f"patch.{progress.step}", row.state, detail


def _write_progress(rows: Sequence[tuple[UUID, Mapping[str, Any] | None, str, datetime]]) -> None:
    """Write progress, handle and the time of the next look of operations that are in flight."""
    from psycopg.types.json import Jsonb  # a driver's wrapper, needed in this one statement

    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE updates_operation o
            SET progress = r.progress, handle = r.handle, next_step_at = r.next_step_at
            FROM unnest(%s::uuid[], %s::jsonb[], %s::text[], %s::timestamptz[])
                AS r(id, progress, handle, next_step_at)
            WHERE o.id = r.id AND o.state = ANY(%s)
            """,
            [
                [row[0] for row in rows],
                [Jsonb(row[1]) for row in rows],
                [row[2] for row in rows],
                [row[3] for row in rows],
                IN_FLIGHT_STATES,
            ],
        )


_RESULT = {
    "operation_id": "uuid",
    "patch_id": "bigint",
    **dict.fromkeys(("state", "reason", "error_code", "update_id", "version"), "text"),
}
_WRITE_RESULTS = """
INSERT INTO updates_patchresult AS p ({columns})
SELECT {columns} FROM {rows} r
ON CONFLICT (operation_id, patch_id) DO UPDATE
    SET state = EXCLUDED.state, reason = EXCLUDED.reason, error_code = EXCLUDED.error_code,
        update_id = EXCLUDED.update_id, version = EXCLUDED.version
    WHERE (p.state, p.reason, p.error_code, p.update_id, p.version) IS DISTINCT FROM
        (EXCLUDED.state, EXCLUDED.reason, EXCLUDED.error_code, EXCLUDED.update_id, EXCLUDED.version)
"""


def record_results(rows: Collection[tuple[UUID, Sequence[PatchOutcome]]]) -> None:
    """Write what runs did with each patch; a later look replaces an earlier one."""
    if not rows:
        return
    pks = ensure_patches(outcome.patch for _pk, outcomes in rows for outcome in outcomes)
    results = [
        (
            operation_id,
            pks[outcome.patch.key],
            outcome.state.value,
            outcome.reason,
            outcome.error_code,
            outcome.patch.update_id,
            outcome.patch.version,
        )
        for operation_id, outcomes in sorted(rows, key=lambda row: row[0])
        for outcome in {o.patch.key: o for o in outcomes}.values()
    ]
    if not results:
        return
    values, parameters = rowset(_RESULT, results)
    with connection.cursor() as cursor:
        cursor.execute(_WRITE_RESULTS.format(columns=", ".join(_RESULT), rows=values), parameters)
