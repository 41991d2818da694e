"""What a row of the catalogue said before it was corrected, by whom, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User

from updates.models import Patch, PatchEvent, Release, ReleaseEvent


@dataclass(frozen=True, slots=True)
class Correction:
    """One correction; `changes` are (field, before, after) as text."""

    at: datetime
    by: str
    why: str
    changes: tuple[tuple[str, str, str], ...]


def corrections_of(row: Patch | Release, names: Sequence[str]) -> list[Correction]:
    """The corrections of a row of the catalogue, the newest first."""
    model: Any = PatchEvent if isinstance(row, Patch) else ReleaseEvent
    events = list(model.objects.filter(pgh_obj=row.pk).select_related("pgh_context").order_by("-pgh_id"))
    metadata = [event.pgh_context.metadata if event.pgh_context else {} for event in events]
    users = {
        user.pk: user.get_username() for user in User.objects.filter(pk__in={m.get("user") for m in metadata} - {None})
    }
    found = []
    after: Any = row
    for event, facts in zip(events, metadata, strict=True):
        changes = tuple(
            (str(row._meta.get_field(name).verbose_name), _shown(event, name), _shown(after, name))  # type: ignore[union-attr]
            for name in names
            if getattr(event, name) != getattr(after, name)
        )
        why = facts.get("reason") or facts.get("file") or ""
        found.append(Correction(event.pgh_created_at, users.get(facts.get("user"), ""), why, changes))
        after = event
    return found


def _shown(row: Any, name: str) -> str:
    value = getattr(row, name)
    return "–" if value in {None, ""} else str(value)
