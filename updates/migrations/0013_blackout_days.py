"""Blackouts that were kept before days were checked become days of a calendar; none becomes shorter."""

from __future__ import annotations

import calendar
from datetime import date
from typing import Any

from django.db import migrations

FIRST, LAST = date(2000, 1, 1), date(2100, 12, 31)


def nearest_day(text: str, *, is_last: bool) -> date:
    """The day that a text of the form 2026-99-99 means: the nearest one, earlier for a first day, later for a last."""
    year, month, day = map(int, text.split("-"))
    if not FIRST.year <= year <= LAST.year:
        return FIRST if year < FIRST.year else LAST
    if not 1 <= month <= 12:
        return date(year, 12, 31) if is_last else date(year, 1, 1)
    days = calendar.monthrange(year, month)[1]
    if 1 <= day <= days:
        return date(year, month, day)
    return date(year, month, days if is_last or day > days else 1)


def make_days(apps: Any, _schema_editor: Any) -> None:
    """Write the blackouts anew where they are no days, or no periods."""
    for row in apps.get_model("updates", "MaintenanceConfiguration").objects.exclude(blackouts=[]):
        periods = [
            [nearest_day(first, is_last=False).isoformat(), nearest_day(last, is_last=True).isoformat()]
            for first, last in row.blackouts
        ]
        if periods != row.blackouts:
            row.blackouts = periods
            row.save(update_fields=["blackouts"])


class Migration(migrations.Migration):
    dependencies = [("updates", "0012_bulk_answers_are_a_log")]
    operations = [migrations.RunPython(make_days, migrations.RunPython.noop)]
