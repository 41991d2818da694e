"""What is kept of who takes the history out of the portal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from audit.services import Act, record
from audit.tags import Tag

if TYPE_CHECKING:
    from django.contrib.auth.models import User


def note_history_export(*, filters: Mapping[str, str], by: User) -> None:
    """Keep that somebody exports the history, narrowed down by what."""
    record(acts=[Act(Tag.HISTORY_EXPORT, detail={"filters": dict(filters)})], by=by)
