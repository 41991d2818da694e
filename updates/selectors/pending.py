"""Pending updates: what the fleet lacks, one row for each KB, with the address of the machines that each number counts."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

from django.db.models import Count, Exists, OuterRef
from django.urls import reverse
from django.utils.http import urlencode

from patching.releases import PACIFIC
from patching.terms import ON_TRACK_WORDS, Classification, OperationKind, ProductLine
from ui.spreadsheet import BYTE_ORDER_MARK, harmless
from updates.models import Patch, PatchSetMember
from updates.selectors.fleet import (
    FleetCounts,
    FleetScope,
    Pending,
    PendingUpdate,
    Place,
    count_fleet,
    load_pending,
    place_of,
)
from updates.selectors.overview import SCOPE_NAMES, scope_of
from updates.selectors.pending_machines import failures, machines_of
from updates.selectors.pending_schedule import Rules, Scheduled, judge_schedules, key_of, load_rules
from vms.choices import Condition
from vms.filters import VmFilter
from vms.models import Grants, VirtualMachine
from vms.selectors import filter_options

if TYPE_CHECKING:
    from django.contrib.auth.models import User

ORDERS = ("machines", "-machines", "age", "-age", "classification", "-classification")
DEFAULT_ORDER = "-machines"
MOST_ROWS = 500


@dataclass(frozen=True, slots=True)
class Asked:
    """What the rows are narrowed to, and their order; what is empty narrows nothing."""

    classification: str = ""
    reboot: str = ""
    order: str = DEFAULT_ORDER


@dataclass(frozen=True, slots=True)
class PendingRow:
    """An update that machines lack: how many, how many of them are on track, failed on it within a week, will get it.

    `kb_number` empty: it has none, and no list can be asked for it. `age`: days since it was published, on the latest day
    at which a machine that lacks it lives.
    """

    kb_number: str
    patch: Patch
    lines: tuple[str, ...]
    age: int | None
    machines: int
    on_track: int
    failed: int
    scheduled: Scheduled | None
    address: str
    on_track_address: str
    failed_address: str

    @property
    def install_address(self) -> str:
        """The review of an installation of this update alone on the machines that lack it; empty where no list can be asked."""
        if not self.kb_number:
            return ""
        asked = {"kind": OperationKind.INSTALLATION.value, "all": "1", "include": self.kb_number}
        return f"{reverse('updates:bulk-create')}?{urlencode(asked)}&{self.address.partition('?')[2]}"


@dataclass(frozen=True, slots=True)
class ClassTile:
    """How many of the rows are of a class, and on how many machines."""

    classification: Classification
    updates: int
    machines: int


@dataclass(frozen=True)
class PendingPage:
    """What the page shows. `is_schedule_known` False: it would have taken too long to find out what is scheduled."""

    scope: FleetScope
    rows: tuple[PendingRow, ...]
    tiles: tuple[ClassTile, ...]
    machines: int  # that the reader sees in this scope
    assessed: int  # of them, those whose updates are known
    is_schedule_known: bool

    @property
    def shown(self) -> tuple[PendingRow, ...]:
        """The rows of the page; the file has all."""
        return self.rows[:MOST_ROWS]

    @property
    def left_out(self) -> int:
        """How many rows only the file has."""
        return len(self.rows) - len(self.shown)


def scope_filters(user: User, query: Mapping[str, str]) -> VmFilter:
    """The filters of the list that say which part of the fleet is meant (two queries)."""
    asked = {name: query[name] for name in SCOPE_NAMES if name in query}
    return VmFilter(asked, VirtualMachine.objects.none(), options=filter_options(Grants.of(user)))


def list_address(scope: FleetScope, **narrower: str) -> str:
    """The address of the list of the machines of this scope that these filters leave."""
    return f"{reverse('vms:vm-list')}?{urlencode(scope.address | narrower)}".removesuffix("?")


def load_pending_page(user: User, filters: VmFilter, asked: Asked, *, now: datetime) -> PendingPage:
    """What the machines lack that the user may see and the filters leave, in a fixed number of queries.

    `filters`: of this user, just read. Raises `ListTooSlowError` with a tag that is looked for too long.
    """
    scope = scope_of(filters)
    place = place_of(Grants.last_read(user), scope)
    counts = count_fleet(place, scope)
    pending = load_pending(counts)
    rules = load_rules(now)
    scheduled = judge_schedules(machines_of(place, scope), counts, pending, rules)
    made = _Rows(scope, counts, pending, rules, _count_failed(place, scope, now), scheduled or {})
    rows = [made.row(updates) for updates in by_key(pending.updates).values()]
    of_reboot = [row for row in rows if asked.reboot in {"", row.patch.reboot_behavior}]
    kept = [row for row in of_reboot if asked.classification in {"", row.patch.classification}]
    return PendingPage(
        scope=scope,
        rows=tuple(_in_order(kept, asked.order)),
        tiles=tuple(made.tiles(of_reboot)),
        machines=counts.machines,
        assessed=counts.machines - pending.by_set.get(0, 0),
        is_schedule_known=scheduled is not None,
    )


def by_key(updates: Iterable[PendingUpdate]) -> dict[str, list[PendingUpdate]]:
    """One KB can be several rows of the catalogue: those of each, in their order."""
    found: dict[str, list[PendingUpdate]] = defaultdict(list)
    for update in updates:
        found[key_of(update.patch)].append(update)
    return found


def days_between(published_on: date | None, moment: datetime) -> int | None:
    """How many days ago an update was published at this moment."""
    return max((moment.astimezone(PACIFIC).date() - published_on).days, 0) if published_on else None


class _Rows:
    """Makes rows and tiles of what was counted."""

    def __init__(
        self,
        scope: FleetScope,
        counts: FleetCounts,
        pending: Pending,
        rules: Rules,
        failed: Mapping[str, int],
        scheduled: Mapping[str, Scheduled],
    ) -> None:
        self.scope, self.by_set, self.failed, self.scheduled = scope, pending.by_set, failed, scheduled
        self.sets = {key: _sets(updates) for key, updates in by_key(pending.updates).items()}
        on_track = FleetCounts(tuple(line for line in counts.lines if line.hotpatch_track in ON_TRACK_WORDS))
        self.on_track_by_set = on_track.by("patch_set")
        self.latest: dict[int, datetime] = {}
        for line in counts.lines:
            moment = rules.moment_of(line.connection_id)
            self.latest[line.patch_set] = max(self.latest.get(line.patch_set, moment), moment)

    def row(self, updates: Sequence[PendingUpdate]) -> PendingRow:
        """The row of an update, whose rows of the catalogue these are, the most widely missing first."""
        patch = updates[0].patch
        key, sets = key_of(patch), self.sets[key_of(patch)]
        lines = [update.patch.product_line for update in updates]
        return PendingRow(
            kb_number=patch.kb_number,
            patch=patch,
            lines=tuple(line.title for line in ProductLine if line in lines) if all(lines) else (),
            age=days_between(patch.published_on, max(self.latest[pk] for pk in sets)),
            machines=sum(self.by_set[pk] for pk in sets),
            on_track=sum(self.on_track_by_set[pk] for pk in sets),
            failed=self.failed.get(key, 0),
            scheduled=self.scheduled.get(key),
            address=self._list(patch.kb_number),
            on_track_address=self._list(patch.kb_number, condition=Condition.ON_TRACK.value),
            failed_address=self._list(patch.kb_number, failed=patch.kb_number),
        )

    def tiles(self, rows: Sequence[PendingRow]) -> Iterable[ClassTile]:
        """The classes of these rows, the most urgent first."""
        for name in Classification:
            keys = [key_of(row.patch) for row in rows if row.patch.classification == name]
            if keys:
                sets = frozenset[int]().union(*(self.sets[key] for key in keys))
                yield ClassTile(name, len(keys), sum(self.by_set[pk] for pk in sets))

    def _list(self, kb_number: str, **narrower: str) -> str:
        return list_address(self.scope, lacks=kb_number, **narrower) if kb_number else ""


def _sets(updates: Iterable[PendingUpdate]) -> frozenset[int]:
    return frozenset[int]().union(*(update.sets for update in updates))


_CLASSES = list(Classification)


def _in_order(rows: Iterable[PendingRow], order: str) -> list[PendingRow]:
    """These rows sorted; those that are alike with the most widely missing first, what has no date last."""
    found = sorted(rows, key=lambda row: (-row.machines, key_of(row.patch)))
    is_reversed = order.startswith("-")
    if order.endswith("machines"):
        return sorted(found, key=lambda row: row.machines, reverse=is_reversed)
    if order.endswith("classification"):
        return sorted(
            found, key=lambda row: _CLASSES.index(Classification(row.patch.classification)), reverse=is_reversed
        )
    return sorted(found, key=lambda row: (row.age is None, (row.age or 0) * (-1 if is_reversed else 1)))


def _count_failed(place: Place, scope: FleetScope, now: datetime) -> dict[str, int]:
    """How many machines failed on each KB within a week and still lack it (one query)."""
    lacked = PatchSetMember.objects.filter(
        patch_set=OuterRef("operation__vm__patch_set"), patch__kb_number=OuterRef("patch__kb_number")
    )
    mine = failures(now).filter(operation__vm__in=machines_of(place, scope).values("pk"))
    rows = mine.filter(Exists(lacked)).exclude(patch__kb_number="").values_list("patch__kb_number")
    return dict(rows.annotate(machines=Count("operation__vm", distinct=True)))


# --- as a file ---------------------------------------------------------------------------------------------------

EXPORTED = (
    *("kb_number", "title", "classification", "reboot_behavior", "product_lines", "published_on", "age_days"),
    *("machines", "on_track", "failed_7_days", "scheduled", "scheduled_until"),
)


def pending_csv(page: PendingPage, *, notes: Sequence[str] = ()) -> str:
    """Every row as CSV with a head. Names and codes are the same in every language, times are UTC, for scripts.

    What is scheduled is empty where it is not known.
    """
    buffer = io.StringIO()
    buffer.write(BYTE_ORDER_MARK)
    writer = csv.writer(buffer)
    writer.writerows([f"# {note}"] for note in notes)
    writer.writerow(EXPORTED)
    for row in page.rows:
        writer.writerow(harmless(value) for value in _line(row, is_schedule_known=page.is_schedule_known))
    return buffer.getvalue()


def _line(row: PendingRow, *, is_schedule_known: bool) -> list[object]:
    planned = row.scheduled
    nothing = 0 if is_schedule_known else ""
    return [
        row.kb_number,
        row.patch.title,
        row.patch.classification,
        row.patch.reboot_behavior,
        " ".join(row.lines),
        row.patch.published_on.isoformat() if row.patch.published_on else "",
        "" if row.age is None else row.age,
        row.machines,
        row.on_track,
        row.failed,
        planned.machines if planned else nothing,
        planned.until.isoformat() if planned else "",
    ]
