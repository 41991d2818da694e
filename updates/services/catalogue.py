"""Importing recorded releases and other updates: idempotent, all or nothing, and nothing invented."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any

import pghistory
from django.db import transaction

from patching import terms
from patching.releases import ReleaseDataError, load_other_updates, load_releases, patch_of_release
from updates.models import Patch, Release


class CatalogueFileError(ValueError):
    """The file cannot be used, and nothing was changed. Its text names the row and the field."""


class RowOutcome(StrEnum):
    """What an import did with a row, most urgent first."""

    UPDATED = "updated"
    CREATED = "created"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class RowReport:
    """What became of one row; `changes` are (field, before, after) as text."""

    number: int
    name: str
    outcome: RowOutcome
    changes: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class CatalogueReport:
    """One answer per row. After a dry run it says what would have happened."""

    rows: tuple[RowReport, ...]
    is_dry_run: bool = False

    @property
    def rows_by_urgency(self) -> list[RowReport]:
        """What changes first, unchanged last; inside an outcome as in the file."""
        order = list(RowOutcome)
        return sorted(self.rows, key=lambda row: (order.index(row.outcome), row.number))

    def count(self, outcome: RowOutcome) -> int:
        """How many rows had this outcome."""
        return sum(row.outcome is outcome for row in self.rows)

    @property
    def created(self) -> int:
        """How many rows are new."""
        return self.count(RowOutcome.CREATED)

    @property
    def updated(self) -> int:
        """How many rows corrected what was there."""
        return self.count(RowOutcome.UPDATED)

    @property
    def unchanged(self) -> int:
        """How many rows said what was known."""
        return self.count(RowOutcome.UNCHANGED)


def import_catalogue(*, data: bytes, file_name: str = "", is_dry_run: bool = False) -> CatalogueReport:
    """Bring recorded releases (rows with a `type`) or other updates (rows with a `title`) into the catalogue.

    The file is a JSON list of objects, or CSV with the same names in its first line. A release is known by (product,
    type, KB), else by (product, month, type): a KB that comes later fills that row. Importing a file twice changes
    nothing; what a corrected row said before is kept, with the file's name. Raises CatalogueFileError.
    """
    rows = _rows(data)
    try:
        with transaction.atomic(), pghistory.context(source="import", file=file_name[:200]):
            if any(row.get("type") is not None for row in rows):
                reports = _import_releases(rows, load_releases(rows))
            else:
                reports = _import_other_updates(rows, load_other_updates(rows))
            if is_dry_run:
                transaction.set_rollback(True)
    except ReleaseDataError as error:
        raise CatalogueFileError(str(error)) from None
    return CatalogueReport(tuple(reports), is_dry_run)


def _rows(data: bytes) -> list[Mapping[str, Any]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CatalogueFileError("The file is not UTF-8. Save it as JSON or as CSV in UTF-8.") from None
    if text.lstrip()[:1] in {"[", "{"}:
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CatalogueFileError(f"The file is no JSON: {error}") from None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise CatalogueFileError("The file must hold a list of objects.")
        return rows
    return _csv_rows(text)


_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _csv_rows(text: str) -> list[Mapping[str, Any]]:
    """Rows of a CSV file; an empty cell is nothing, and a cell under `planned` is true or false."""
    reader = csv.DictReader(io.StringIO(text), strict=True)
    if not {"type", "title"} & set(reader.fieldnames or ()):
        raise CatalogueFileError(
            "The file is neither JSON nor CSV of the catalogue: its first line must name the columns, "
            "“type” for releases or “title” for other updates among them."
        )
    rows: list[Mapping[str, Any]] = []
    try:
        for number, cells in enumerate(reader, start=1):
            if None in cells or None in cells.values():
                raise CatalogueFileError(f"Row {number}: it has not as many cells as the first line.")
            row: dict[str, Any] = {name.strip(): cell.strip() or None for name, cell in cells.items()}
            planned = row.get("planned")
            row["planned"] = _TRUTH.get(planned.lower(), planned) if planned else None
            rows.append(row)
    except csv.Error as error:
        raise CatalogueFileError(f"Line {reader.line_num}: {error}") from None
    return rows


def _report(number: int, target: Any, before: Mapping[str, Any] | None, fields: Sequence[str]) -> RowReport:
    if before is None:
        return RowReport(number, str(target), RowOutcome.CREATED)
    changes = tuple(
        (str(target._meta.get_field(name).verbose_name), _shown(before[name]), _shown(getattr(target, name)))
        for name in fields
        if before[name] != getattr(target, name)
    )
    return RowReport(number, str(target), RowOutcome.UPDATED if changes else RowOutcome.UNCHANGED, changes)


def _shown(value: Any) -> str:
    return "" if value is None else str(value)


def _values(row: Any, fields: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in fields}


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


def _import_releases(rows: Sequence[Mapping[str, Any]], releases: Sequence[terms.Release]) -> list[RowReport]:
    existing = list(Release.objects.order_by("pk").select_related("patch").select_for_update(of=("self",)))
    by_kb = {(r.product_line, r.type, r.kb_number): r for r in existing if r.kb_number}
    without_kb = {(r.product_line, r.month, r.type): r for r in existing if not r.kb_number}
    patches = _ensure_patches(
        [(patch, row) for row, release in zip(rows, releases, strict=True) if (patch := patch_of_release(release))]
    )
    new: list[Release] = []
    changed: list[Release] = []
    reports: list[RowReport] = []
    for number, (row, release) in enumerate(zip(rows, releases, strict=True), start=1):
        by_month = (release.product_line.value, release.month, release.type.value)
        found = by_kb.get((release.product_line.value, release.type.value, release.kb_number)) or without_kb.pop(
            by_month, None
        )
        target = found or Release(product_line=release.product_line.value)
        before = _values(target, _RELEASE_FIELDS) if found else None
        patch = patch_of_release(release)
        target.month, target.type = release.month, release.type.value
        target.kb_number, target.build = release.kb_number, release.build
        target.is_planned, target.released_on = release.is_planned, release.released_on
        target.is_date_inferred = release.is_date_inferred
        target.status = "scheduled" if release.is_scheduled else "released"
        target.source, target.evidence = _text(row, "source"), _text(row, "evidence")
        target.note = _text(row, "note")
        target.patch = patches[patch.key] if patch else None
        report = _report(number, target, before, _RELEASE_FIELDS)
        reports.append(report)
        if found is None:
            new.append(target)
            if release.kb_number:
                by_kb[release.product_line.value, release.type.value, release.kb_number] = target
        elif report.changes and target.pk is not None:
            changed.append(target)
    Release.objects.bulk_create(new)
    Release.objects.bulk_update(changed, _RELEASE_FIELDS)
    return reports


# --- patches -----------------------------------------------------------------------------------------------------


_PATCH_FIELDS = ["title", "classification", "reboot_behavior", "published_on", "release_type", "source", "evidence"]


def _import_other_updates(rows: Sequence[Mapping[str, Any]], patches: Sequence[terms.Patch]) -> list[RowReport]:
    before = Patch.objects.in_bulk([patch.key for patch in patches], field_name="key")
    known: dict[str, dict[str, Any]] = {key: _values(row, _PATCH_FIELDS) for key, row in before.items()}
    after = _ensure_patches(list(zip(patches, rows, strict=True)))
    reports = []
    for number, patch in enumerate(patches, start=1):
        target = after[patch.key]
        reports.append(_report(number, target, known.get(patch.key), _PATCH_FIELDS))
        known[patch.key] = _values(target, _PATCH_FIELDS)  # a second row of the same patch is no second change
    return reports


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
        before = _values(target, _PATCH_FIELDS)
        target.title, target.classification = patch.title[:300], patch.classification.value
        target.reboot_behavior, target.published_on = patch.reboot_behavior.value, patch.published_on
        target.release_type = patch.release_type or ""
        target.source, target.evidence = _text(row, "source"), _text(row, "evidence")
        if patch.key in rows and before != _values(target, _PATCH_FIELDS):
            changed[patch.key] = target
    Patch.objects.bulk_create(new.values())
    Patch.objects.bulk_update(changed.values(), _PATCH_FIELDS)
    return Patch.objects.in_bulk([patch.key for patch, _row in wanted], field_name="key")


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return value.replace("\x00", "")[: 200 if name == "evidence" else 2_000] if isinstance(value, str) else ""
