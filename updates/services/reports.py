"""The record of who exported a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from audit.services import Act, record
from audit.tags import Tag

if TYPE_CHECKING:
    from django.contrib.auth.models import User


def note_report_export(*, filters: Mapping[str, str], machines: int, by: User) -> None:
    """Keep that somebody exports a report, on which part of the fleet, and how many machines that is."""
    record(acts=[Act(Tag.REPORT_EXPORT, detail={"machines": machines, "filters": dict(filters)})], by=by)
