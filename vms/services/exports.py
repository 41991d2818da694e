"""That the inventory was taken out of the portal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from audit.services import Act, record
from audit.tags import Tag

if TYPE_CHECKING:
    from django.contrib.auth.models import User


def note_export(*, filters: Mapping[str, str], machines: int, by: User) -> None:
    """Keep who exports the list, narrowed down by what, and how many machines it names."""
    record(acts=[Act(Tag.INVENTORY_EXPORT, detail={"machines": machines, "filters": dict(filters)})], by=by)
