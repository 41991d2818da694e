"""Events as people read them: what changed, by the names that fields and values have on the pages."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.db.models import Field, ForeignKey, Model, QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from audit.models import AuditEvent
from audit.tags import Door

# What the detail of an event counts or names.
DETAILS = {
    "machines": gettext_lazy("Machines"),
    "names": gettext_lazy("Names"),
    "events": gettext_lazy("Entries"),
    "rows": gettext_lazy("Rows"),
    "operations": gettext_lazy("Operations"),
    "failed": gettext_lazy("Failed"),
    "sessions": gettext_lazy("Sessions"),
    "created": gettext_lazy("Added"),
    "changed": gettext_lazy("Changed"),
    "unchanged": gettext_lazy("Unchanged"),
    "skipped": gettext_lazy("Skipped"),
    "file": gettext_lazy("File"),
    "filters": gettext_lazy("Filters"),
    "before": gettext_lazy("Older than"),
    "answer": gettext_lazy("Answer"),
    "kind": gettext_lazy("Kind"),
    "plan": gettext_lazy("Plan"),
    "wish": gettext_lazy("Misfortune"),
    "error": gettext_lazy("Error"),
    "milliseconds": gettext_lazy("Milliseconds"),
    "bytes": gettext_lazy("Bytes"),
}
# What is told beside the details by the page that knows its words, or says nothing to people.
_UNSAID = frozenset({"code", "ids"})
# Columns that say the same as the event itself.
_KNOWN = frozenset({"created_by_id", "key"})
# Fields whose values the pages have words for; so have those with choices.
_WORDED = frozenset({"BooleanField", "DateTimeField"})


@dataclass(frozen=True, slots=True)
class Change:
    """One value before and after; an empty one was not there. `is_data`: as it is kept, and not in words of ours."""

    label: str
    before: str
    after: str
    is_data: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """An event in words. `code`: the id of a reason that the pages have words for."""

    event: AuditEvent
    changes: tuple[Change, ...]
    details: tuple[tuple[str, str], ...]

    @property
    def at(self) -> datetime:
        """When it was."""
        return self.event.at

    @property
    def what(self) -> str:
        """What was done."""
        return self.event.words

    @property
    def who(self) -> str:
        """The person who did it, or the person that the portal did it for."""
        event = self.event
        if event.door == Door.PORTAL:
            return _("Hotpatch Portal for %(person)s") % {"person": event.person} if event.person else "Hotpatch Portal"
        if event.door == Door.DATABASE:
            return _("Database account %(name)s") % {"name": event.agent}
        return event.person or event.agent or "Hotpatch Portal"

    @property
    def code(self) -> str:
        """Why the portal did it, as an id that the pages have words for."""
        return str(self.event.detail.get("code", ""))

    @property
    def door(self) -> str:
        """The way it came in, in words."""
        return str(self.event.get_door_display())


def in_words(events: Sequence[AuditEvent]) -> list[Entry]:
    """These events in words; one query for each model that their values refer to, whatever their number."""
    names = _names(events)
    return [Entry(event, tuple(_changes(event, names)), tuple(_details(event.detail))) for event in events]


def _model(source: str) -> type[Model] | None:
    try:
        return apps.get_model(source)
    except (LookupError, ValueError):
        return None


def _field(source: str, column: str) -> Field[Any, Any] | None:
    """The field of this column, if the model still has it."""
    model = _model(source)
    if model is None:
        return None
    try:
        found = model._meta.get_field(column)
    except FieldDoesNotExist:
        return next((field for field in model._meta.concrete_fields if field.column == column), None)
    return found if isinstance(found, Field) else None


Names = Mapping[type[Model], Mapping[str, str]]


def _names(events: Iterable[AuditEvent]) -> Names:
    """What the rows are called that values refer to, by model and id."""
    wanted: dict[type[Model], set[str]] = defaultdict(set)
    for event in events:
        for column, value in (*event.before.items(), *event.after.items()):
            field = _field(event.source, column)
            if isinstance(field, ForeignKey) and value is not None and column not in _KNOWN:
                wanted[field.related_model].add(str(value))
    found: dict[type[Model], dict[str, str]] = {}
    for model, ids in wanted.items():
        rows: QuerySet[Model] = QuerySet(model).filter(pk__in=ids)
        found[model] = {str(row.pk): str(row) for row in rows}
    return found


def _changes(event: AuditEvent, names: Names) -> Iterator[Change]:
    is_change = bool(event.before and event.after)
    for column in {**event.before, **event.after}:
        before, after = event.before.get(column), event.after.get(column)
        if column in _KNOWN or (not is_change and not _says_something(before) and not _says_something(after)):
            continue
        field = _field(event.source, column)
        # Of the tables of links that Django makes, the names of fields are in Django's own catalogue.
        label = _(str(field.verbose_name)) if field is not None else column.replace("_", " ")
        yield Change(
            label[:1].upper() + label[1:],
            _value(field, before, names),
            _value(field, after, names),
            is_data=field is None or not (field.choices or field.get_internal_type() in _WORDED),
        )


def _says_something(value: Any) -> bool:
    return value is not None and value not in ("", [], {}, False)


def _value(field: Field[Any, Any] | None, value: Any, names: Names) -> str:
    """A value as the pages say it."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return _("Yes") if value else _("No")
    if isinstance(field, ForeignKey):
        return names.get(field.related_model, {}).get(str(value), str(value))
    if field is not None and field.choices:
        return str(dict(field.flatchoices).get(value, value))
    if field is not None and field.get_internal_type() == "DateTimeField":
        moment = parse_datetime(str(value))
        if moment is not None and moment.year < 9999:  # the last year stands for "until somebody ends it"
            return f"{timezone.localtime(moment):%Y-%m-%d %H:%M}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _details(detail: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in detail.items():
        if name in _UNSAID or value in ("", None, [], {}):
            continue
        label = str(DETAILS.get(name, name.replace("_", " ")))
        if isinstance(value, (list, tuple)):
            yield label, ", ".join(_value(None, part, {}) for part in value)
        elif isinstance(value, dict):
            yield label, ", ".join(f"{key}={_value(None, part, {})}" for key, part in value.items())
        else:
            yield label, _value(None, value, {})
