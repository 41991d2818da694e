"""The list as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from django.db.models import DateTimeField, Subquery, Value

from ui.spreadsheet import BYTE_ORDER_MARK, harmless
from vms.choices import Need
from vms.models import NEXT_REBOOT, VirtualMachineQuerySet

EXPORTED = (
    "name",
    "resource_group__subscription__name",
    "resource_group__name",
    "location",
    "connection__name",
    "power_state",
    "image_publisher",
    "image_offer",
    "image_sku",
    "patch_mode",
    "assessment_mode",
    "enable_hotpatching",
    "update_status",
    "critical_and_security_count",
    "other_count",
    "is_reboot_pending",
    "hotpatch_status",
    "hotpatch_track",
    "patcher",
    "arm_id",
    "product_line",
    *NEXT_REBOOT,
    "need",
    "tags",
    "assessed_at",
)
EXPORT_BLOCK = 2_000


def csv_lines(
    vms: VirtualMachineQuerySet, *, notes: Sequence[str] = (), assessed: Subquery[Any] | None = None
) -> Iterator[str]:
    """These VMs as CSV with a head, in blocks of lines: memory does not grow with the fleet.

    `assessed`: an expression over a VM that says when it was assessed last.

    Field names and codes are the same in every language, for scripts. For spreadsheets it begins with a byte order mark,
    and a text that one would take for a formula gets an apostrophe.
    """
    buffer = io.StringIO()
    buffer.write(BYTE_ORDER_MARK)
    writer = csv.writer(buffer)
    writer.writerows([f"# {note}"] for note in notes)
    writer.writerow(name.replace("__name", "").replace("resource_group__", "") for name in EXPORTED)
    rows = (
        vms.order_by("name", "pk")
        .annotate(assessed_at=assessed or Value(None, output_field=DateTimeField()))
        .values_list(*EXPORTED)
    )
    for number, row in enumerate(rows.iterator(EXPORT_BLOCK), start=1):
        *cells, need, tags, assessed_at = row
        told = (Need(need).name.lower(), json.dumps(tags, ensure_ascii=False, sort_keys=True), _moment(assessed_at))
        writer.writerow(harmless(value) for value in (*cells, *told))
        if number % EXPORT_BLOCK == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def _moment(at: datetime | None) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds") if at else ""
