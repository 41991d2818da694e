"""The recorded releases and other updates: imports (idempotent, all or nothing, nothing invented) and decisions."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import pghistory
from django.db import transaction
from django.db.models import Q

from audit.services import Act, record
from audit.tags import Tag
from patching import terms
from patching.one_release import DecisionProblem, Meeting, find_meant, meet, stands_against
from patching.release_files import (
    OTHER_FIELDS,
    RELEASE_FIELDS,
    FileProblem,
    ReleaseDataError,
    build_of_title,
    month_of_title,
    patch_of_release,
    plain,
    read_other_update,
    read_release,
    read_truth,
    shown,
)
from patching.releases import BASELINE_MONTHS, second_tuesday
from patching.terms import ProductLine, ReleaseType
from updates.models import Patch, Release, ReleaseEvent
from updates.selectors.tracks import count_track_changes
from updates.texts import catalogue_problem, value_text

MAX_ROWS = 5_000


class CatalogueFileError(ValueError):
    """The file cannot be used, and nothing was changed.

    `row` (from 1) and `field` name the place where there is one; `problem` is a FileProblem or a RowProblem; `facts` fill
    its words. As text it is the sentence in the reader's language.
    """

    def __init__(self, problem: str, *, row: int | None = None, field: str = "", **facts: object) -> None:
        super().__init__(problem)
        self.problem, self.row, self.field = problem, row, field
        self.facts = {name: shown(value) for name, value in facts.items()}

    def __str__(self) -> str:
        return catalogue_problem(self.problem, row=self.row, field=self.field, facts=self.facts)


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
    """One answer per row. After a dry run it says what would have happened.

    `machines` change their track by it; `unused` are the names of fields that the import does not know.
    """

    rows: tuple[RowReport, ...]
    is_dry_run: bool = False
    machines: int = 0
    unused: tuple[str, ...] = ()

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


def import_catalogue(
    *,
    data: bytes,
    file_name: str = "",
    is_dry_run: bool = False,
    now: datetime | None = None,
    keeps_corrections: bool = False,
) -> CatalogueReport:
    """Bring recorded releases (rows with a `type`) and other updates (rows with a `title`) into the catalogue.

    The file is JSON or CSV in UTF-8 (docs/catalogue-files.md). A release is known by (product, KB), else by (product,
    month, type): a KB that comes later fills that row, and no row adds a second release of a KB. Importing a file twice
    changes nothing; what a corrected row said before is kept, with the file's name. The report counts the machines whose
    track changes by it at `now` (None: not counted). Raises CatalogueFileError, and nothing was changed.

    `keeps_corrections` is for the file that comes with the portal: what a person corrected or decided stays, a row that
    contradicts what is recorded is left out, and of other updates only new ones come in.
    """
    rows = _rows(data)
    try:
        with transaction.atomic(), pghistory.context(source="import", file=plain(file_name)[:200]):
            releases = [(n, row, read_release(n, row)) for n, row in rows if _is_release(n, row)]
            others = [(n, row, read_other_update(n, row)) for n, row in rows if not _is_release(n, row)]
            before = _recorded()
            reports = [
                *_import_releases(releases, keeps_corrections=keeps_corrections),
                *_import_other_updates(others, keeps_known=keeps_corrections),
            ]
            machines = count_track_changes(before, _recorded(), now=now) if now else 0
            if is_dry_run:
                transaction.set_rollback(True)
            else:
                detail = {"file": plain(file_name), "rows": len(rows)}
                record(acts=[Act(Tag.CATALOGUE_IMPORT, is_public=True, detail=detail)])
    except ReleaseDataError as error:
        raise CatalogueFileError(error.problem, row=error.row, field=error.field, value=error.value) from None
    unused = {name for _n, row in rows for name in row.keys() - (RELEASE_FIELDS if "type" in row else OTHER_FIELDS)}
    return CatalogueReport(
        tuple(sorted(reports, key=lambda report: report.number)),
        is_dry_run,
        machines,
        tuple(shown(name) for name in sorted(unused - RELEASE_FIELDS - OTHER_FIELDS)),
    )


def _is_release(number: int, row: Mapping[str, Any]) -> bool:
    if row.get("type") is not None:
        return True
    if row.get("title") is None:
        raise CatalogueFileError(FileProblem.NEITHER_KIND, row=number, field="type")
    return False


def _recorded() -> tuple[terms.Release, ...]:
    return tuple(Release.objects.order_by("product_line", "released_on", "pk").facts())


# --- files -------------------------------------------------------------------------------------------------------


def _rows(data: bytes) -> list[tuple[int, Mapping[str, Any]]]:
    """The rows of a file with their numbers, from 1."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CatalogueFileError(FileProblem.NOT_UTF8) from None
    rows = _json_rows(text) if text.lstrip()[:1] in {"[", "{"} else _csv_rows(text)
    if len(rows) > MAX_ROWS:
        raise CatalogueFileError(FileProblem.TOO_MANY_ROWS, most=MAX_ROWS)
    return list(enumerate(rows, start=1))


def _json_rows(text: str) -> list[Mapping[str, Any]]:
    """A list of objects, or an object whose values are such lists, one after the other."""
    try:
        found = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise CatalogueFileError(FileProblem.NO_JSON, line=error.lineno, column=error.colno) from None
    except CatalogueFileError:
        raise
    except (ValueError, RecursionError):
        raise CatalogueFileError(FileProblem.NO_JSON, line="–", column="–") from None
    lists = list(found.values()) if isinstance(found, dict) else [found]
    if not all(isinstance(rows, list) and all(isinstance(row, dict) for row in rows) for rows in lists):
        raise CatalogueFileError(FileProblem.NO_LIST)
    return [row for rows in lists for row in rows]


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object that names no field twice: of two values one would be lost without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _value in pairs]
        raise CatalogueFileError(FileProblem.COLUMN_TWICE, name=next(n for n in names if names.count(n) > 1))
    return found


_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _csv_rows(text: str) -> list[Mapping[str, Any]]:
    """Rows of a CSV file; an empty cell is nothing, and a cell under `planned` or `corrects` is true or false."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [plain(name).casefold() for name in next(reader, [])]
        if not {"type", "title"} & set(names):
            raise CatalogueFileError(FileProblem.NO_TABLE)
        if len(set(names)) < len(names):
            raise CatalogueFileError(FileProblem.COLUMN_TWICE, name=next(n for n in names if names.count(n) > 1))
        return [_csv_row(number, names, cells) for number, cells in enumerate(filter(None, reader), start=1)]
    except csv.Error as error:
        raise CatalogueFileError(FileProblem.BAD_LINE, line=reader.line_num, detail=error) from None


def _csv_row(number: int, names: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    if len(cells) != len(names):
        raise CatalogueFileError(FileProblem.CELLS, row=number)
    row: dict[str, Any] = {name: cell.strip() or None for name, cell in zip(names, cells, strict=True)}
    for name in ("planned", "corrects"):
        if text := row.get(name):
            row[name] = _TRUTH.get(plain(text).casefold(), text)
    return row


def _report(number: int, target: Any, before: Mapping[str, Any] | None, fields: Sequence[str]) -> RowReport:
    kb_number = f" KB{target.kb_number}" if target.kb_number and f"KB{target.kb_number}" not in str(target) else ""
    name = f"{target}{kb_number}"
    if before is None:
        return RowReport(number, name, RowOutcome.CREATED)
    changes = tuple(
        (
            str(target._meta.get_field(name).verbose_name),
            value_text(target, name, before[name]),
            value_text(target, name, getattr(target, name)),
        )
        for name in fields
        if before[name] != getattr(target, name)
    )
    return RowReport(number, name, RowOutcome.UPDATED if changes else RowOutcome.UNCHANGED, changes)


def _values(row: Any, fields: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in fields}


# --- releases ----------------------------------------------------------------------------------------------------

_TOLD = [
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
    "channel",
    "audience",
    "is_type_confirmed",
]
_WRITTEN = [*_TOLD, "confirmed_by", "confirmed_at", "patch_id"]
_ReleaseRow = tuple[int, Mapping[str, Any], terms.Release]


def _import_releases(rows: Sequence[_ReleaseRow], *, keeps_corrections: bool) -> list[RowReport]:
    recorded = list(Release.objects.order_by("pk").select_for_update())
    targets = _Targets(recorded, kept=_corrected_by_people() if keeps_corrections else None)
    reports = [targets.bring_in(number, row, release) for number, row, release in rows]
    targets.save()
    return reports


def _corrected_by_people() -> set[int]:
    """The releases that anybody but an import corrected, decided or confirmed."""
    events = ReleaseEvent.objects.exclude(pgh_context__metadata__source="import")
    confirmed = Release.objects.exclude(confirmed_at=None)
    return {*events.values_list("pgh_obj_id", flat=True), *confirmed.values_list("pk", flat=True)}


class _Targets:
    """The recorded releases while a file is brought in, found by KB and by month.

    `kept` are the primary keys of those that stay as they are; None: contradictions are errors, and all may change.
    """

    def __init__(self, recorded: Iterable[Release], *, kept: set[int] | None) -> None:
        self.kept = kept
        self.before: dict[int, dict[str, Any]] = {}
        self.facts: dict[int, terms.Release] = {}
        self.rows: dict[int, Release] = {}  # by a number of their own; new ones have no primary key
        self.touched: set[int] = set()
        self.places: dict[tuple[str, str], set[int]] = {}
        for row in recorded:
            self.before[self._add(row)] = _values(row, _WRITTEN)

    def _add(self, row: Release) -> int:
        place = len(self.rows)
        self.rows[place] = row
        self._note(place)
        return place

    def _note(self, place: int) -> None:
        facts = self.facts[place] = self.rows[place].facts
        for key in (facts.kb_number, f"{facts.month:%Y-%m}"):
            self.places.setdefault((facts.product_line.value, key), set()).add(place)

    def bring_in(self, number: int, row: Mapping[str, Any], release: terms.Release) -> RowReport:
        """Let one row say what it says. Raises CatalogueFileError where it contradicts what is recorded."""
        corrects = read_truth(number, row, "corrects") or False
        line, month = release.product_line.value, f"{release.month:%Y-%m}"
        near = self.places.get((line, month), set()) | (
            self.places.get((line, release.kb_number), set()) if release.kb_number else set()
        )
        candidates = {place: self.facts[place] for place in sorted(near)}
        meant = find_meant(candidates.values(), release)
        if meant is None:
            against = stands_against(candidates.values(), release)
            if against is not None and self.kept is not None:
                return RowReport(number, str(against), RowOutcome.UNCHANGED)
            if against is not None and not corrects:
                raise _contradiction(FileProblem.OTHER_OF_MONTH, number, release, against)
            target = Release(product_line=line)
            _say(target, row, release, Meeting.CORRECTS)
            self.touched.add(self._add(target))
            return _report(number, target, None, _TOLD)
        place = next(place for place, facts in candidates.items() if facts is meant)
        target = self.rows[place]
        how = meet(meant.type, release.type, corrects=corrects, is_decided=target.confirmed_at is not None)
        if self.kept is not None and (how is Meeting.REFUSED or target.pk in self.kept):
            self.touched.add(place)  # for its patch
            return RowReport(number, str(target), RowOutcome.UNCHANGED)
        if how is Meeting.REFUSED:
            raise _contradiction(FileProblem.OTHER_TYPE, number, release, meant)
        before = _values(target, _TOLD)
        _say(target, row, release, how)
        self._note(place)
        self.touched.add(place)
        return _report(number, target, before, _TOLD)

    def save(self) -> None:
        """Write what is new and what changed, and give every release that a row meant its patch."""
        touched = [self.rows[place] for place in sorted(self.touched)]
        patches = [
            (patch, row.source, row.evidence) for row in touched if (patch := patch_of_release(row.facts)) is not None
        ]
        by_key = _ensure_release_patches(patches)
        for row in touched:
            row.patch = by_key.get(f"{row.product_line}:{row.kb_number}")
        Release.objects.bulk_create(row for row in self.rows.values() if row.pk is None)
        changed = [self.rows[place] for place, before in self.before.items() if before != self._now(place)]
        Release.objects.bulk_update(changed, [*_TOLD, "confirmed_by", "confirmed_at", "patch"])

    def _now(self, place: int) -> dict[str, Any]:
        return _values(self.rows[place], _WRITTEN)


def _contradiction(
    problem: FileProblem, number: int, said: terms.Release, recorded: terms.Release
) -> CatalogueFileError:
    return CatalogueFileError(
        problem,
        row=number,
        field="type",
        kb=f"KB{said.kb_number}" if said.kb_number else f"{said.month:%Y-%m}",
        said=said.type.value,
        recorded=recorded.type.value,
        recorded_kb=f"KB{recorded.kb_number}" if recorded.kb_number else f"{recorded.month:%Y-%m}",
    )


def _say(target: Release, row: Mapping[str, Any], said: terms.Release, how: Meeting) -> None:
    """Write what a row says into a release. What the row leaves open stays as it was.

    A row that only fills writes nothing where something stands. What is released does not become announced again, unless
    the row corrects.
    """
    only_fills = how is Meeting.FILLS
    corrects = how is Meeting.CORRECTS
    if not only_fills:
        target.month, target.type = said.month, said.type.value
    texts = {"kb_number": said.kb_number, "build": said.build}
    texts |= {name: _text(row, name) for name in ("source", "evidence", "note")}
    for name, text in texts.items():
        if text and not (only_fills and getattr(target, name)):
            setattr(target, name, text)
    for name, word in (("channel", said.channel.value), ("audience", said.audience.value)):
        if word != "unknown" and not (only_fills and getattr(target, name) != "unknown"):
            setattr(target, name, word)
    if not said.is_date_inferred and not (only_fills and not target.is_date_inferred):
        target.released_on, target.is_date_inferred = said.released_on, False
    elif target.released_on is None or (target.is_date_inferred and not only_fills):
        target.released_on, target.is_date_inferred = second_tuesday(target.month), True
    if corrects or not said.is_scheduled:
        target.status = "scheduled" if said.is_scheduled else "released"
    if said.is_planned is not None:
        target.is_planned = said.is_planned
    if target.type != ReleaseType.BASELINE:
        target.is_planned = None
    _confirm_by_evidence(target, row, said, how)


def _confirm_by_evidence(target: Release, row: Mapping[str, Any], said: terms.Release, how: Meeting) -> None:
    """Whether the type is confirmed now: by the evidence of the row that gives the type, or by a person before."""
    if how is Meeting.CORRECTS:
        target.confirmed_by, target.confirmed_at = "", None
        target.is_type_confirmed = said.is_type_confirmed
    elif how is Meeting.PROMOTES or (how is Meeting.FOLLOWS and _text(row, "evidence")):
        target.is_type_confirmed = said.is_type_confirmed or target.confirmed_at is not None


# --- patches -----------------------------------------------------------------------------------------------------


_PATCH_FIELDS = ["title", "classification", "reboot_behavior", "published_on", "release_type", "source", "evidence"]
_OtherRow = tuple[int, Mapping[str, Any], terms.Patch]


def _ensure_release_patches(wanted: Sequence[tuple[terms.Patch, str, str]]) -> dict[str, Patch]:
    """The patches of releases by catalogue key, made or brought up to what is recorded.

    Title and class of an update that a machine has reported are the machine's. Rows that have the KB of a release, but are
    known otherwise (for every line, or by update id), get its type.
    """
    rows = Patch.objects.in_bulk([patch.key for patch, _source, _evidence in wanted], field_name="key")
    new: dict[str, Patch] = {}
    changed: dict[str, Patch] = {}
    for patch, source, evidence in wanted:
        target = rows.get(patch.key) or new.setdefault(patch.key, _new_patch(patch))
        before = _values(target, _PATCH_FIELDS)
        if not target.update_id:
            target.title, target.classification = patch.title, patch.classification.value
        target.reboot_behavior, target.published_on = patch.reboot_behavior.value, patch.published_on
        target.release_type = patch.release_type or ""
        target.source, target.evidence = source, evidence
        if patch.key in rows and before != _values(target, _PATCH_FIELDS):
            changed[patch.key] = target
    Patch.objects.bulk_create(new.values())
    Patch.objects.bulk_update(changed.values(), _PATCH_FIELDS)
    _type_others({patch.kb_number: patch for patch, _source, _evidence in wanted})
    return Patch.objects.in_bulk([patch.key for patch, _source, _evidence in wanted], field_name="key")


def _type_others(by_kb: Mapping[str, terms.Patch]) -> None:
    others = Patch.objects.filter(Q(product_line="") | Q(is_known_by_id=True), kb_number__in=list(by_kb))
    changed = []
    for row in others:
        patch = by_kb[row.kb_number]
        if row.product_line in {"", patch.product_line} and row.release_type != patch.release_type:
            row.release_type = patch.release_type or ""
            changed.append(row)
    Patch.objects.bulk_update(changed, ["release_type"])


def _new_patch(patch: terms.Patch) -> Patch:
    return Patch(product_line=patch.product_line or "", kb_number=patch.kb_number)


def _import_other_updates(rows: Sequence[_OtherRow], *, keeps_known: bool) -> list[RowReport]:
    """Bring in updates that are no monthly OS patch. A KB that is recorded as a release stays one."""
    lines: dict[str, set[str]] = {}
    for line, kb_number in Release.objects.exclude(kb_number="").values_list("product_line", "kb_number"):
        lines.setdefault(kb_number, set()).add(line)
    for number, _row, patch in rows:
        of_kb = lines.get(patch.kb_number, set())
        if of_kb and (patch.product_line is None or patch.product_line in of_kb):
            raise CatalogueFileError(FileProblem.IS_RELEASE, row=number, field="kb", kb=f"KB{patch.kb_number}")
    known = Patch.objects.in_bulk([patch.key for _number, _row, patch in rows], field_name="key")
    new: dict[str, Patch] = {}
    changed: dict[str, Patch] = {}
    reports = []
    for number, row, patch in rows:
        target = known.get(patch.key) or new.get(patch.key)
        if keeps_known and target is not None:
            reports.append(RowReport(number, str(target), RowOutcome.UNCHANGED))
            continue
        before = None if target is None else _values(target, _PATCH_FIELDS)
        if target is None:
            target = new[patch.key] = _new_patch(patch)
        if not target.update_id:
            target.title, target.published_on = patch.title, patch.published_on
        target.classification, target.reboot_behavior = patch.classification.value, patch.reboot_behavior.value
        target.source = _text(row, "source") or target.source
        target.evidence = _text(row, "evidence") or target.evidence
        report = _report(number, target, before, _PATCH_FIELDS)
        reports.append(report)
        if patch.key in known and report.changes:
            changed[patch.key] = target
    Patch.objects.bulk_create(new.values())
    Patch.objects.bulk_update(changed.values(), _PATCH_FIELDS)
    return reports


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return value.strip() if isinstance(value, str) else ""


# --- decisions ---------------------------------------------------------------------------------------------------


class DecisionError(ValueError):
    """A decision that cannot be taken; nothing was changed."""

    def __init__(self, problem: DecisionProblem) -> None:
        super().__init__(problem)
        self.problem = problem


@transaction.atomic
def attach_patch(*, release: Release) -> None:
    """Give a release that was saved by hand the patch of its KB, with its type."""
    patch = patch_of_release(release.facts)
    attached = _ensure_release_patches([(patch, release.source, release.evidence)])[patch.key] if patch else None
    if release.patch_id != (attached and attached.pk):
        release.patch = attached
        release.save(update_fields=["patch"])


@transaction.atomic
def decide_release(
    *, product_line: ProductLine, kb_number: str, type: ReleaseType, decided_by: str, reason: str, now: datetime
) -> Release:
    """Record what an OS update is, for every machine: the answer of a person to an update that no source explains.

    An update that machines reported becomes a release with the source "decided by …", or fills the release of its month
    that has no KB yet; a recorded release gets the type, confirmed. What was said before is kept with the reason.
    `decided_by` is the person's user name. Raises DecisionError.
    """
    if not reason.strip():
        raise DecisionError(DecisionProblem.NO_REASON)
    recorded = list(Release.objects.filter(product_line=product_line.value).order_by("pk").select_for_update())
    target = next((row for row in recorded if row.kb_number == kb_number), None)
    if target is None:
        said = _reported(product_line, kb_number, type)
        facts = {row.pk: row.facts for row in recorded}
        meant = find_meant([fact for fact in facts.values() if fact.type is type], said)
        if meant is None and stands_against(facts.values(), said):
            raise DecisionError(DecisionProblem.OTHER_OF_MONTH)
        target = next((row for row in recorded if meant is not None and facts[row.pk] is meant), None)
        target = target or Release(product_line=product_line.value, source=f"decided by {decided_by}", note=reason)
        _say(target, {}, said, Meeting.FOLLOWS)
    target.type = type.value
    if type is not ReleaseType.BASELINE:
        target.is_planned = None
    elif target.is_planned is None:
        target.is_planned = target.month.month in BASELINE_MONTHS
    detail = {"answer": str(target.get_type_display())}
    record(acts=[Act(Tag.GUARD_DECIDE, object_name=f"KB{kb_number}", is_public=True, detail=detail)], reason=reason)
    return _confirm(target, decided_by, reason, now)


@transaction.atomic
def confirm_release_type(*, release_id: int, confirmed_by: str, reason: str, now: datetime) -> Release:
    """Confirm the recorded type of a release whose source is not primary, with or without a KB. Raises DecisionError."""
    if not reason.strip():
        raise DecisionError(DecisionProblem.NO_REASON)
    target = Release.objects.select_for_update().filter(pk=release_id).first()
    if target is None:
        raise DecisionError(DecisionProblem.IS_GONE)
    return _confirm(target, confirmed_by, reason, now)


def _confirm(target: Release, by: str, reason: str, now: datetime) -> Release:
    target.is_type_confirmed, target.confirmed_by, target.confirmed_at = True, by[:150], now
    with pghistory.context(source="decision", reason=reason.strip()[:500], by=by):
        patch = patch_of_release(target.facts)
        if patch is not None:
            target.patch = _ensure_release_patches([(patch, target.source, target.evidence)])[patch.key]
        target.save()
    return target


def _reported(line: ProductLine, kb_number: str, kind: ReleaseType) -> terms.Release:
    """What machines reported of an update, as a release of the type that a person gives it."""
    seen = (
        Patch.objects.filter(kb_number=kb_number, product_line__in=[line.value, ""]).order_by("-product_line").first()
    )
    if seen is None:
        raise DecisionError(DecisionProblem.NO_UPDATE)
    month = month_of_title(seen.title) or (seen.published_on.replace(day=1) if seen.published_on else None)
    if month is None:
        raise DecisionError(DecisionProblem.NO_MONTH)
    return terms.Release(
        product_line=line,
        month=month,
        type=kind,
        released_on=seen.published_on or second_tuesday(month),
        kb_number=kb_number,
        build=build_of_title(seen.title, line),
        is_date_inferred=seen.published_on is None,
        is_type_confirmed=True,
    )
