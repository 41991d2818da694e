"""The history of the fleet as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from db.bounded import ListTooSlowError
from db.paging import Cursor, rows_beyond
from ui.spreadsheet import BYTE_ORDER_MARK, harmless
from updates.selectors.fleet_history import NEWEST_FIRST, HistoryAsked, HistoryRow, Result, Search, listed, row_of
from updates.texts import error_text
from vms.models import Grants

if TYPE_CHECKING:
    from django.contrib.auth.models import User

EXPORT_BLOCK = 500
MAX_EXPORTED = 100_000
EXPORTED = (
    *("activity_id", "kind", "result", "error_code", "meaning", "failed_updates"),
    *("machine", "resource_group", "subscription"),
    *("requested_at", "started_at", "finished_at", "started_by"),
    *("installed", "failed", "pending", "reboot_status", "verification", "rollout", "bulk_request"),
)


def history_csv(*, reader: User, asked: HistoryAsked, now: datetime) -> Iterator[str]:
    """The operations that the reader may see and asks for as CSV, the newest first, up to 100,000 rows, in blocks of lines.

    Memory does not grow with the history. Times are UTC; field names and values are the same in every language, for scripts, and
    `meaning` says the error in the reader's. A text that a spreadsheet would take for a formula gets an apostrophe.
    """
    buffer = io.StringIO()
    buffer.write(BYTE_ORDER_MARK)
    writer = csv.writer(buffer)
    writer.writerow(EXPORTED)
    grants = Grants.last_read(reader)
    rows, branches = listed(reader, grants), Search(reader, grants, asked, now).branches(asked)
    place, written = None, 0
    while written < MAX_EXPORTED:
        try:
            found = rows_beyond(rows, order=NEWEST_FIRST, place=place, limit=EXPORT_BLOCK, among=branches)
        except ListTooSlowError:
            writer.writerow(["# the next rows took too long to find; narrow the list down"])
            yield buffer.getvalue()
            return
        for operation in found:
            writer.writerow(harmless(value) for value in _line(row_of(operation)))
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        if len(found) < EXPORT_BLOCK:
            return
        written += len(found)
        place = Cursor.at(found[-1], NEWEST_FIRST, is_backward=False)
    writer.writerow([f"# the first {MAX_EXPORTED} rows; narrow the list down for the others"])
    yield buffer.getvalue()


def _line(row: HistoryRow) -> tuple[Any, ...]:
    run, part = row.operation, row.part_of
    group = run.vm.resource_group
    failed = "; ".join(
        f"{f'KB{told.kb_number}' if told.kb_number else told.title} {told.code}".strip() for told in row.failed
    )
    moments = (
        at.isoformat(timespec="seconds") if at else "" for at in (run.created_at, run.started_at, run.finished_at)
    )
    return (
        *(run.pk, run.kind, Result.CONTRADICTED.value if run.is_contradicted else run.state, run.error_code),
        *(str(error_text(run.error_code).title) if run.error_code else "", failed),
        *(run.vm.name, group.name, group.subscription.name),
        *(*moments, run.requested_by.get_username() if run.requested_by else ""),
        *(run.installed_count, run.failed_count, run.pending_count, run.reboot_status, run.verification),
        *(str(part.pk) if part and part.source else "", str(part.pk) if part and not part.source else ""),
    )
