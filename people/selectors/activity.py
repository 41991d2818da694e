"""Who did what, for one reader: found by person, object, act and time, newest first, a page at a time.

Who may see an event is a table of docs/rules.md (Activity).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Lower

from audit.models import AuditEvent
from audit.selectors import Entry, in_words
from audit.tags import Tag
from db.bounded import ListTooSlowError
from db.paging import Cursor, Order, Page, page_of, rows_beyond
from ui.spreadsheet import BYTE_ORDER_MARK, harmless
from vms.choices import Role
from vms.models import Grants, ResourceGroup, VirtualMachine

if TYPE_CHECKING:
    from django.contrib.auth.models import User

EXPORT_BLOCK = 500
MAX_EXPORTED = 100_000
MAX_NAMESAKES = 20  # machines of one name whose events an object's name finds


@dataclass(frozen=True, slots=True)
class Asked:
    """What is looked for; empty: everything. `tags` has every tag that is meant."""

    person: str = ""
    thing: str = ""
    tags: tuple[Tag, ...] = ()
    since: datetime | None = None
    until: datetime | None = None


NEWEST_FIRST = Order.of(AuditEvent, "newest", "-at", "-id")


def activity_page(*, reader: User, asked: Asked, cursor: str = "") -> Page[Entry]:
    """One page of what the reader may see, whose cost grows neither with the page number nor with the number of events.

    Raises `db.bounded.ListTooSlowError` where the filters together find too little too far back.
    """
    events = AuditEvent.objects.all()
    page = page_of(events, order=NEWEST_FIRST, cursor=cursor, among=_branches(reader, asked))
    return Page(tuple(in_words(page.rows)), page.previous, page.next)


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
    events, place, written = AuditEvent.objects.all(), None, 0
    branches = _branches(reader, asked)
    while written < MAX_EXPORTED:
        try:
            rows = rows_beyond(events, order=NEWEST_FIRST, place=place, limit=EXPORT_BLOCK, among=branches)
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
        place = Cursor.at(rows[-1], NEWEST_FIRST, is_backward=False)
    writer.writerow([f"# the first {MAX_EXPORTED} rows; narrow the list down for the others"])
    yield buffer.getvalue()


def _line(entry: Entry) -> tuple[Any, ...]:
    event = entry.event
    changes = "; ".join(f"{c.label}: {c.before or '–'} → {c.after or '–'}" for c in entry.changes)
    details = "; ".join(f"{label}: {value}" for label, value in entry.details)
    named = (event.person, event.door, event.agent, event.object_name, event.object_id, event.reason)
    return (event.at.isoformat(timespec="seconds"), event.tag, *named, changes, details)
