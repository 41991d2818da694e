"""A report as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import UTC
from typing import TYPE_CHECKING, Any

from django.urls import reverse

from db.bounded import ListTooSlowError
from db.paging import Cursor, rows_beyond
from ui.spreadsheet import BYTE_ORDER_MARK, harmless
from updates.selectors.fleet import place_of
from updates.selectors.pending_machines import machines_of
from updates.selectors.report import Figure, MachinesAsked, Report, load_judged
from vms.models import Grants, VirtualMachine
from vms.selectors import ORDERS

if TYPE_CHECKING:
    from django.contrib.auth.models import User

EXPORT_BLOCK = 1_000
MAX_EXPORTED = 100_000
EXPORTED = ("section", "item", "detail", "count", "of", "address")
BY_NAME = ORDERS["name"]


def report_csv(report: Report, *, reader: User, origin: str, address: str) -> Iterator[str]:
    """The report as CSV, in blocks of lines: first its numbers, then every overdue machine by name, up to 100,000 of them.

    `origin`: what stands before the paths of addresses; `address`: the page's own. Memory does not grow with the fleet. Times
    are UTC; names and codes are the same in every language, for scripts. A text that a spreadsheet would take for a formula gets an
    apostrophe. What took too long to count has an empty count.
    """
    buffer = io.StringIO()
    buffer.write(BYTE_ORDER_MARK)
    writer = csv.writer(buffer)
    writer.writerow(EXPORTED)
    for section, item, detail, count, of, path in _lines(report, reader, address):
        writer.writerow(
            harmless(value) for value in (section, item, detail, count, of, f"{origin}{path}" if path else "")
        )
    yield buffer.getvalue()
    for block in _machines(report, reader, origin):
        buffer.seek(0)
        buffer.truncate()
        writer.writerows([harmless(value) for value in line] for line in block)
        yield buffer.getvalue()


Cells = tuple[Any, Any, Any, Any, Any, str]


def _lines(report: Report, reader: User, address: str) -> Iterator[Cells]:
    yield "report", "product", "Hotpatch Portal", "", "", ""
    yield "report", "made_at", report.made_at.astimezone(UTC).isoformat(timespec="seconds"), "", "", ""
    yield "report", "made_by", reader.get_username(), "", "", ""
    yield "report", "address", address, "", "", ""
    for name, value in report.address.items():
        yield "report", name, value, "", "", ""
    whole = report.machines.count
    yield "state", "machines", "", whole, "", report.machines.address
    for name, figures in (
        ("update_status", report.statuses),
        ("hotpatch_track", report.tracks),
        ("hotpatch_status", report.hotpatch),
    ):
        yield from _figures("state", name, figures, whole)
    yield from _figures("exception", "", report.exceptions, whole)
    if report.held is None:
        yield "exception", "held", "", "", "", ""
    yield from _figures("exception", "held", report.held or (), whole)
    for row in report.classes:
        yield "compliance", row.classification.value, "compliant", row.compliant, row.known, ""
        yield from _figures("compliance", row.classification.value, row.standings, whole)
    yield "overdue", "machines", "", report.overdue.count, whole, report.overdue.address
    for late in report.late:
        published = late.patch.published_on.isoformat() if late.patch.published_on else ""
        name = f"KB{late.patch.kb_number}" if late.patch.kb_number else late.patch.update_id
        yield "overdue", name, f"{published} {late.patch.title}".strip(), late.machines, whole, late.address
    if report.failures is None:
        yield "failure", "", "", "", "", report.failures_address
    for group in report.failures or ():
        kb = f"KB{group.kb_number}" if group.kb_number else ""
        yield "failure", group.code, kb, group.count, "", f"{reverse('updates:history')}?{group.address}"
    for release in report.releases:
        said = f"{release.product_line} {release.released_on.isoformat()} {release.type} {release.build}".strip()
        kb = f"KB{release.kb_number}" if release.kb_number else release.month.isoformat()
        yield "release", kb, said, "", "", ""
        yield "source", kb, release.source, "", "", ""


def _figures(section: str, item: str, figures: Iterable[Figure], whole: int) -> Iterator[Cells]:
    for figure in figures:
        code = f"KB{figure.code}" if item == "held" else figure.code
        yield section, item or code, code if item else "", figure.count, whole, figure.address


def _machines(report: Report, reader: User, origin: str) -> Iterator[list[tuple[Any, ...]]]:
    """The overdue machines, in blocks of lines; the last line says where not all are there."""
    place = place_of(Grants.last_read(reader), report.scope)
    judged = load_judged(place, report.scope, report.asked.days, report.made_at)
    found = judged.machines(machines_of(place, report.scope), MachinesAsked(report.asked.days))
    rows = VirtualMachine.objects.select_related("resource_group__subscription")
    beyond: Cursor | None = None
    for _block in range(MAX_EXPORTED // EXPORT_BLOCK):
        try:
            block = rows_beyond(rows, order=BY_NAME, place=beyond, limit=EXPORT_BLOCK, among=[found])
        except ListTooSlowError:
            yield [_remark("the next machines took too long to find; narrow the report down")]
            return
        lines = []
        for vm in block:
            late = judged.late_of(vm.patch_set, vm.connection_id)
            where = f"{vm.resource_group.subscription.name}/{vm.resource_group.name}"
            since = f"since {late.oldest.isoformat()}" if late.oldest else ""
            path = f"{origin}{reverse('updates:blade', args=[vm.pk])}"
            lines.append(("overdue_machine", vm.name, f"{where} {since}".strip(), late.updates, "", path))
        yield lines
        if len(block) < EXPORT_BLOCK:
            return
        beyond = Cursor.at(block[-1], BY_NAME, is_backward=False)
    yield [_remark(f"the first {MAX_EXPORTED} machines; narrow the report down for the others")]


def _remark(text: str) -> tuple[Any, ...]:
    return ("remark", text, "", "", "", "")
