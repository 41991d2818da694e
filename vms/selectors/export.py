"""The list as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from ui.spreadsheet import BYTE_ORDER_MARK, harmless
from vms.models import VirtualMachineQuerySet

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
)
EXPORT_BLOCK = 2_000


def csv_lines(vms: VirtualMachineQuerySet, *, notes: Sequence[str] = ()) -> Iterator[str]:
    """These VMs as CSV with a head, in blocks of lines: memory does not grow with the fleet.

    Field names and codes are the same in every language, for scripts. For spreadsheets it begins with a byte order mark,
    and a text that one would take for a formula gets an apostrophe.
    """
    buffer = io.StringIO()
    buffer.write(BYTE_ORDER_MARK)
    writer = csv.writer(buffer)
    writer.writerows([f"# {note}"] for note in notes)
    writer.writerow(name.replace("__name", "").replace("resource_group__", "") for name in EXPORTED)
    for number, row in enumerate(vms.order_by("name", "pk").values_list(*EXPORTED).iterator(EXPORT_BLOCK), start=1):
        writer.writerow(harmless(value) for value in row)
        if number % EXPORT_BLOCK == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()
