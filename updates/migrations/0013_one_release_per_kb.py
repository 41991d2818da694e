"""Merge the releases of one KB: an import of Microsoft's own list added a second row for each baseline, as an lcu."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pghistory
from django.db import migrations

_FILLED = ("build", "source", "evidence", "note")


def merge(apps: Any, _schema_editor: Any) -> None:
    """Keep one row of each (product line, KB): the baseline, else the best evidence, else the first; fill it."""
    release, event = apps.get_model("updates", "Release"), apps.get_model("updates", "ReleaseEvent")
    patch = apps.get_model("updates", "Patch")
    groups: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for row in release.objects.exclude(kb_number="").select_related("patch").order_by("pk"):
        groups[row.product_line, row.kb_number].append(row)
    kept_rows, patches, gone = [], [], {}
    for rows in groups.values():
        if len(rows) == 1:
            continue
        kept, *others = sorted(rows, key=lambda row: (row.type != "baseline", row.evidence != "primary", row.pk))
        for other in others:
            gone[other.pk] = kept.pk
            for name in _FILLED:
                setattr(kept, name, getattr(kept, name) or getattr(other, name))
            if kept.is_date_inferred and not other.is_date_inferred:
                kept.released_on, kept.is_date_inferred = other.released_on, False
            kept.patch = kept.patch or other.patch
        kept_rows.append(kept)
        if kept.patch is not None:
            kept.patch.release_type = kept.type
            never = kept.type in {"hotpatch", "oob_hotpatch"}
            kept.patch.reboot_behavior = "NeverReboots" if never else "AlwaysRequiresReboot"
            patches.append(kept.patch)
    with pghistory.context(source="import", file="one release for each KB"):
        write(release, event, patch, kept_rows, patches, gone)


def write(release: Any, event: Any, patch: Any, kept_rows: list[Any], patches: list[Any], gone: dict[int, int]) -> None:
    """Write what was merged; what the rows said before is kept with them."""
    for event_row in event.objects.filter(pgh_obj_id__in=gone):
        event_row.pgh_obj_id = gone[event_row.pgh_obj_id]
        event_row.save(update_fields=["pgh_obj"])
    release.objects.filter(pk__in=gone).delete()
    release.objects.bulk_update(kept_rows, [*_FILLED, "released_on", "is_date_inferred", "patch"])
    patch.objects.bulk_update(patches, ["release_type", "reboot_behavior"])


class Migration(migrations.Migration):
    """One release for each KB of a product line."""

    dependencies = [("updates", "0012_bulk_answers_are_a_log")]

    operations = [migrations.RunPython(merge, migrations.RunPython.noop)]
