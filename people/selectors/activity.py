"""Who did what, for one reader: found by person, object, act and time, newest first, a page at a time.

Who may see an event is a table of docs/rules.md (Activity).
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.core.exceptions import EmptyResultSet
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Lower

from audit.models import AuditEvent
from audit.selectors import Entry, in_words
from audit.tags import Tag
from ui.spreadsheet import BYTE_ORDER_MARK, harmless
from vms.choices import Role
from vms.models import Grants, ResourceGroup, VirtualMachine
from vms.selectors import ListTooSlowError, fetch_bounded

if TYPE_CHECKING:
    from django.contrib.auth.models import User

PAGE_SIZE = 50
EXPORT_BLOCK = 500
MAX_EXPORTED = 100_000
MAX_NAMESAKES = 20  # machines of one name whose events an object's name finds
LARGEST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Asked:
    """What is looked for; empty: everything. `tags` has every tag that is meant."""

    person: str = ""
    thing: str = ""
    tags: tuple[Tag, ...] = ()
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A place between two events, opaque in addresses; what is not our own text is no place."""

    at: datetime
    pk: int
    is_backward: bool = False

    def __str__(self) -> str:
        text = f"{self.at.isoformat()} {self.pk} {int(self.is_backward)}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """The place that an address names, if it is one."""
        try:
            at, pk, is_backward = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().split(" ")
            found = cls(datetime.fromisoformat(at), int(pk), is_backward == "1")
        except (ValueError, UnicodeError):
            return None
        return found if found.at.tzinfo is not None and 0 < found.pk <= LARGEST_ID else None

    @property
    def beyond(self) -> Q:
        """The events on its far side."""
        if self.is_backward:
            return Q(at__gte=self.at) & (Q(at__gt=self.at) | Q(pk__gt=self.pk))
        return Q(at__lte=self.at) & (Q(at__lt=self.at) | Q(pk__lt=self.pk))


@dataclass(frozen=True, slots=True)
class ActivityPage:
    """Some events, the newest first, and the places before and after them (empty: there is nothing there)."""

    entries: tuple[Entry, ...]
    previous: str = ""
    next: str = ""


def activity_page(*, reader: User, asked: Asked, cursor: str = "") -> ActivityPage:
    """One page of what the reader may see, whose cost grows neither with the page number nor with the number of events.

    Raises `vms.selectors.ListTooSlowError` where the filters together find too little too far back.
    """
    place = Place.parse(cursor)
    rows = _read(_branches(reader, asked), place, PAGE_SIZE + 1)
    is_backward = place is not None and place.is_backward
    has_more = len(rows) > PAGE_SIZE
    rows = rows[:PAGE_SIZE]
    if is_backward:
        rows.reverse()
    has_previous = has_more if is_backward else place is not None
    has_next = is_backward or has_more
    return ActivityPage(
        tuple(in_words(rows)),
        previous=str(Place(rows[0].at, rows[0].pk, is_backward=True)) if rows and has_previous else "",
        next=str(Place(rows[-1].at, rows[-1].pk)) if rows and has_next else "",
    )


def _read(branches: list[QuerySet[AuditEvent]], place: Place | None, limit: int) -> list[AuditEvent]:
    """The first events beyond the place: each branch goes through an index of its own order, and their heads are merged."""
    is_backward = place is not None and place.is_backward
    order = ("at", "id") if is_backward else ("-at", "-id")
    heads = [
        (branch.filter(place.beyond) if place else branch).order_by(*order).values_list("id", "at")[:limit]
        for branch in branches
    ]
    ids: set[int] = set()
    first, *others = heads
    query = first.union(*others).order_by(*order)[:limit] if others else first
    try:
        ids = {row[0] for row in fetch_bounded(*query.query.sql_with_params())}
    except EmptyResultSet:
        return []
    return list(AuditEvent.objects.filter(pk__in=ids).order_by(*order))


def _branches(reader: User, asked: Asked) -> list[QuerySet[AuditEvent]]:
    """The events that the reader may see and asks for, in parts that each have an index."""
    grants = Grants.of(reader)
    found = _asked(asked, grants)
    if grants.at_least(Role.OWNER).are_of_everything:
        return [found]
    mine = found.filter(vm_key=None, group_key=None, subscription_key=None)
    branches = [found.filter(is_public=True), mine.filter(person_id=reader.pk), mine.filter(owner_key=reader.pk)]
    if grants.are_of_everything:
        placed = Q(vm_key__isnull=False) | Q(group_key__isnull=False) | Q(subscription_key__isnull=False)
        return [*branches, found.filter(placed)]
    groups = grants.group_ids
    if subscriptions := grants.subscription_ids:
        branches.append(found.filter(subscription_key__in=sorted(subscriptions)))
        groups |= set(ResourceGroup.objects.filter(subscription__in=subscriptions).values_list("pk", flat=True))
    if groups:
        branches.append(_still_visible(found.filter(group_key__in=sorted(groups)), grants))
    if grants.vm_ids:
        branches.append(found.filter(vm_key__in=sorted(grants.vm_ids)))
    return branches


def _still_visible(events: QuerySet[AuditEvent], grants: Grants) -> QuerySet[AuditEvent]:
    """Without those of machines that have moved to where the reader may not look; a removed machine has not moved."""
    machine = VirtualMachine.objects.order_by().filter(pk=OuterRef("vm_key"))
    return events.filter(Q(vm_key=None) | Exists(machine.granted_by(grants)) | ~Exists(machine))


def _asked(asked: Asked, grants: Grants) -> QuerySet[AuditEvent]:
    events = AuditEvent.objects.alias(person_lower=Lower("person"), object_lower=Lower("object_name"))
    if asked.person:
        events = events.filter(person_lower=asked.person.lower())
    if asked.thing:
        name = asked.thing.lower()
        machines = VirtualMachine.objects.granted_by(grants).filter(name__iexact=name).order_by("pk")
        ids = list(machines.values_list("pk", flat=True)[:MAX_NAMESAKES])
        events = events.filter(Q(object_lower=name) | Q(vm_key__in=ids)) if ids else events.filter(object_lower=name)
    if asked.tags:
        events = events.filter(tag__in=[tag.value for tag in asked.tags])
    if asked.since:
        events = events.filter(at__gte=asked.since)
    if asked.until:
        events = events.filter(at__lt=asked.until)
    return events


EXPORTED = ("at", "tag", "person", "door", "agent", "object", "object_id", "reason", "changes", "details")


def activity_csv(*, reader: User, asked: Asked) -> Iterator[str]:
    """What the reader may see and asks for as CSV, the newest first, up to 100,000 rows, in blocks of lines.

    Memory does not grow with the number of events. Times are UTC; tags are the same in every language, for scripts.
    """
    buffer = io.StringIO()
    buffer.write(BYTE_ORDER_MARK)
    writer = csv.writer(buffer)
    writer.writerow(EXPORTED)
    place, written = None, 0
    branches = _branches(reader, asked)
    while written < MAX_EXPORTED:
        try:
            rows = _read(branches, place, EXPORT_BLOCK)
        except ListTooSlowError:
            writer.writerow(["# the next rows took too long to find; narrow the list down"])
            yield buffer.getvalue()
            return
        for entry in in_words(rows):
            writer.writerow(harmless(value) for value in _line(entry))
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        if len(rows) < EXPORT_BLOCK:
            return
        written += len(rows)
        place = Place(rows[-1].at, rows[-1].pk)
    writer.writerow([f"# the first {MAX_EXPORTED} rows; narrow the list down for the others"])
    yield buffer.getvalue()


def _line(entry: Entry) -> tuple[Any, ...]:
    event = entry.event
    changes = "; ".join(f"{c.label}: {c.before or '–'} → {c.after or '–'}" for c in entry.changes)
    details = "; ".join(f"{label}: {value}" for label, value in entry.details)
    named = (event.person, event.door, event.agent, event.object_name, event.object_id, event.reason)
    return (event.at.isoformat(timespec="seconds"), event.tag, *named, changes, details)
