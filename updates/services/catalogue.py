"""Importing recorded releases and other updates: idempotent, all or nothing, and nothing invented."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from django.db import transaction

from patching import terms
from patching.releases import ReleaseDataError, load_other_updates, load_releases, patch_of_release
from updates.models import Patch, Release


class CatalogueFileError(ValueError):
    """The file cannot be used, and nothing was changed. Its text names the row and the field."""


@dataclass(frozen=True, slots=True)
class CatalogueReport:
    """How many rows an import made, changed and left as they were."""

    created: int
    updated: int
    unchanged: int


def import_catalogue(*, data: bytes) -> CatalogueReport:
    """Bring recorded releases (rows with a `type`) or other updates (rows with a `title`) into the catalogue.

    A release is known by (product, type, KB), else by (product, month, type): a KB that comes later fills that row.
    Importing a file twice changes nothing. Raises CatalogueFileError.
    """
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CatalogueFileError(f"The file is no JSON: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CatalogueFileError("The file must hold a list of objects.")
    try:
        if any("type" in row for row in rows):
            return _import_releases(rows, load_releases(rows))
        return _import_other_updates(rows, load_other_updates(rows))
    except ReleaseDataError as error:
        raise CatalogueFileError(str(error)) from None


# --- releases ----------------------------------------------------------------------------------------------------

_RELEASE_FIELDS = [
    "month",
    "type",
    "kb_number",
    "build",
    "is_planned",
    "released_on",
    "is_date_inferred",
    "status",
    "source",
    "evidence",
    "note",
    "patch",
]


@transaction.atomic
def _import_releases(rows: Sequence[Mapping[str, Any]], releases: Sequence[terms.Release]) -> CatalogueReport:
    existing = list(Release.objects.order_by("pk").select_for_update())
    by_kb = {(r.product_line, r.type, r.kb_number): r for r in existing if r.kb_number}
    without_kb = {(r.product_line, r.month, r.type): r for r in existing if not r.kb_number}
    patches = _ensure_patches(
        [(patch, row) for row, release in zip(rows, releases, strict=True) if (patch := patch_of_release(release))]
    )
    new: list[Release] = []
    changed: list[Release] = []
    for row, release in zip(rows, releases, strict=True):
        by_month = (release.product_line.value, release.month, release.type.value)
        found = by_kb.get((release.product_line.value, release.type.value, release.kb_number)) or without_kb.pop(
            by_month, None
        )
        target = found or Release(product_line=release.product_line.value)
        before = [getattr(target, name) for name in _RELEASE_FIELDS] if found else None
        patch = patch_of_release(release)
        target.month, target.type = release.month, release.type.value
        target.kb_number, target.build = release.kb_number, release.build
        target.is_planned, target.released_on = release.is_planned, release.released_on
        target.is_date_inferred = release.is_date_inferred
        target.status = "scheduled" if release.is_scheduled else "released"
        target.source, target.evidence = _text(row, "source"), _text(row, "evidence")
        target.note = _text(row, "note")
        target.patch = patches[patch.key] if patch else None
        if found is None:
            new.append(target)
            if release.kb_number:
                by_kb[release.product_line.value, release.type.value, release.kb_number] = target
        elif before != [getattr(target, name) for name in _RELEASE_FIELDS] and target.pk is not None:
            changed.append(target)
    Release.objects.bulk_create(new)
    Release.objects.bulk_update(changed, _RELEASE_FIELDS)
    return CatalogueReport(len(new), len(changed), len(rows) - len(new) - len(changed))


# --- patches -----------------------------------------------------------------------------------------------------


@transaction.atomic
def _import_other_updates(rows: Sequence[Mapping[str, Any]], patches: Sequence[terms.Patch]) -> CatalogueReport:
    before = Patch.objects.in_bulk([patch.key for patch in patches], field_name="key")
    known = {key: _attributes(row) for key, row in before.items()}
    after = _ensure_patches(list(zip(patches, rows, strict=True)))
    changed = sum(_attributes(after[key]) != attributes for key, attributes in known.items())
    created = len(after.keys() - known.keys())
    return CatalogueReport(created, changed, len(rows) - created - changed)


_PATCH_FIELDS = ["title", "classification", "reboot_behavior", "published_on", "release_type", "source", "evidence"]


def _attributes(patch: Patch) -> list[Any]:
    return [getattr(patch, name) for name in _PATCH_FIELDS]


def _ensure_patches(
    wanted: Sequence[tuple[terms.Patch, Mapping[str, Any]]],
) -> dict[str, Patch]:
    """The rows of these patches by catalogue key, made or brought up to what the file says."""
    rows = Patch.objects.in_bulk([patch.key for patch, _row in wanted], field_name="key")
    new: dict[str, Patch] = {}
    changed: dict[str, Patch] = {}
    for patch, row in sorted(wanted, key=lambda item: item[0].published_on or date.min):
        target = rows.get(patch.key) or new.get(patch.key)
        if target is None:
            target = new[patch.key] = Patch(product_line=patch.product_line or "", kb_number=patch.kb_number)
        before = _attributes(target)
        target.title, target.classification = patch.title[:300], patch.classification.value
        target.reboot_behavior, target.published_on = patch.reboot_behavior.value, patch.published_on
        target.release_type = patch.release_type or ""
        target.source, target.evidence = _text(row, "source"), _text(row, "evidence")
        if patch.key in rows and before != _attributes(target):
            changed[patch.key] = target
    Patch.objects.bulk_create(new.values())
    Patch.objects.bulk_update(changed.values(), _PATCH_FIELDS)
    return Patch.objects.in_bulk([patch.key for patch, _row in wanted], field_name="key")


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return value.replace("\x00", "")[: 200 if name == "evidence" else 2_000] if isinstance(value, str) else ""
