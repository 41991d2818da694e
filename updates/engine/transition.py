"""The one writer of an operation's state (docs/rules.md, lifecycle)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from db.arrays import array, rowset
from patching.lifecycle import TERMINAL, TRANSITIONS
from patching.terms import OperationState, RebootStatus, Verification
from updates.engine.telemetry import Moved, count_transition


class IllegalTransitionError(ValueError):
    """The lifecycle has no such transition: a defect in the caller."""


@dataclass(slots=True)
class Change:
    """One transition of one operation. A field left None keeps what the row has.

    `through`: a state that the operation passes on its way without anybody having seen it there. `event` is the message id of the timeline's line; empty: no line (routine assessments write none).
    """

    operation_id: UUID
    from_state: OperationState
    to_state: OperationState
    event: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    through: OperationState | None = None
    next_step_at: datetime | None = None
    deadline_at: datetime | None = None
    started_at: datetime | None = None
    priority: int | None = None
    handle: str | None = None
    attempts: int | None = None
    error_code: str | None = None
    error_detail: str | None = None
    progress: Mapping[str, Any] | None = None
    reboot_status: RebootStatus | None = None
    is_maintenance_window_exceeded: bool | None = None
    installed_count: int | None = None
    failed_count: int | None = None
    pending_count: int | None = None
    excluded_count: int | None = None
    not_selected_count: int | None = None
    verification: Verification | None = None
    verification_detail: Mapping[str, Any] | None = None
    build_before: str | None = None
    build_after: str | None = None


_OPTIONAL_COLUMNS = {
    "next_step_at": "timestamptz",
    "deadline_at": "timestamptz",
    "started_at": "timestamptz",
    "priority": "smallint",
    "handle": "text",
    "attempts": "integer",
    "error_code": "text",
    "error_detail": "text",
    "progress": "jsonb",
    "reboot_status": "text",
    "is_maintenance_window_exceeded": "boolean",
    "installed_count": "smallint",
    "failed_count": "smallint",
    "pending_count": "smallint",
    "excluded_count": "smallint",
    "not_selected_count": "smallint",
    "verification": "text",
    "verification_detail": "jsonb",
    "build_before": "text",
    "build_after": "text",
}
_COLUMNS = {
    "operation_id": "uuid",
    "from_state": "text",
    "to_state": "text",
    "is_terminal": "boolean",
    **_OPTIONAL_COLUMNS,
}
# Lock the rows in the order of their ids first, so that two writers of overlapping sets never deadlock.
# `(SELECT count(*) FROM locked) > 0` makes PostgreSQL run that part before the UPDATE; a join with it would let the planner
# guess sizes that it cannot know. The ids come as an array besides the row set, so that rows are found by primary key.
_TRANSITION = """
WITH v AS MATERIALIZED {rows}, locked AS MATERIALIZED (
    SELECT id FROM updates_operation WHERE id = ANY(%s::uuid[]) ORDER BY id FOR UPDATE
)
UPDATE updates_operation o
SET state = v.to_state,
    finished_at = CASE WHEN v.is_terminal THEN %s::timestamptz END,
    next_step_at = CASE WHEN v.is_terminal THEN NULL ELSE COALESCE(v.next_step_at, o.next_step_at) END{kept}
FROM v
WHERE (SELECT count(*) FROM locked) > 0
  AND o.id = ANY(%s::uuid[]) AND o.id = v.operation_id AND o.state = v.from_state
RETURNING o.id, o.kind
"""


def transition(*, changes: Sequence[Change], now: datetime) -> set[UUID]:
    """Move operations from the state that was read to a new one: one guarded UPDATE, one INSERT for the timeline.

    Returns the ids that won; a row that meanwhile left the state that was read is left alone. Raises
    IllegalTransitionError before anything is written if the lifecycle forbids a change.
    """
    for change in changes:
        before = change.through or change.from_state
        if change.through is not None and change.through not in TRANSITIONS[change.from_state]:
            raise IllegalTransitionError(f"{change.from_state} -> {change.through}")
        if change.to_state not in TRANSITIONS[before]:
            raise IllegalTransitionError(f"{before} -> {change.to_state}")
    if not changes:
        return set()
    values = zip(*map(attrgetter(*_OPTIONAL_COLUMNS), changes), strict=True)
    written = {
        name: column
        for name, column in zip(_OPTIONAL_COLUMNS, values, strict=True)
        if name == "next_step_at" or any(value is not None for value in column)
    }
    columns: dict[str, Sequence[Any]] = {
        "operation_id": [change.operation_id for change in changes],
        "from_state": [change.from_state for change in changes],
        "to_state": [change.to_state for change in changes],
        "is_terminal": [change.to_state in TERMINAL for change in changes],
        **written,
    }
    rows, parameters = rowset({name: _COLUMNS[name] for name in columns}, zip(*columns.values(), strict=True))
    kept = "".join(f", {name} = COALESCE(v.{name}, o.{name})" for name in written if name != "next_step_at")
    ids = array(columns["operation_id"])
    began = time.perf_counter()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_TRANSITION.replace("{rows}", rows).replace("{kept}", kept), [*parameters, ids, now, ids])
        winners: dict[UUID, str] = dict(cursor.fetchall())
        _tell(changes, winners, time.perf_counter() - began)
        write_events(
            (change.operation_id, now, change.event, change.to_state, change.detail)
            for change in changes
            if change.event and change.operation_id in winners
        )
    return set(winners)


def _tell(changes: Sequence[Change], winners: Mapping[UUID, str], seconds: float) -> None:
    sets = Counter(
        (winners[change.operation_id], change.from_state, change.to_state, change.error_code or "")
        for change in changes
        if change.operation_id in winners
    )
    count_transition(
        Moved(kind, before.value, after.value, outcome, count, seconds)
        for (kind, before, after, outcome), count in sets.items()
    )


_EVENT = {"operation_id": "uuid", "at": "timestamptz", "code": "text", "state": "text", "detail": "jsonb"}


def write_events(
    events: Iterable[tuple[UUID, datetime, str, OperationState, Mapping[str, Any]]],
) -> None:
    """Add lines (operation, at, message id, state, detail) to timelines."""
    lines = list(events)
    if not lines:
        return
    rows, parameters = rowset(_EVENT, lines)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO updates_operationevent ({', '.join(_EVENT)}) SELECT {', '.join(_EVENT)} FROM {rows} r",  # noqa: S608 (ours)
            parameters,
        )
