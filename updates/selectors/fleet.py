"""The fleet in numbers: how many of the machines that a reader sees have which words, and which updates they lack.

Read from counters (`vms.models.WordCount`, `FleetCount`), so that it costs the same at any size. Machines that a reader was
granted one by one are counted themselves, and so are those of a tag, within the time-out of the list.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from django.contrib.postgres.aggregates import ArrayAgg
from django.core.exceptions import EmptyResultSet
from django.db.models import Q

from db.arrays import array
from patching import terms
from patching.releases import as_of
from patching.terms import CRITICAL_AND_SECURITY, ON_TRACK_WORDS, Classification, HotpatchTrack, UpdateStatus
from updates.models import Patch, PatchSetMember
from vms.models import (
    COUNTED_IN_FLEET,
    COUNTED_OF_VM,
    Connection,
    Grants,
    ResourceGroup,
    VirtualMachine,
    VirtualMachineQuerySet,
)
from vms.selectors import fetch_bounded
from vms.tags import HasTag

LATE_AFTER = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class FleetScope:
    """Which part of the fleet is meant; what is empty narrows nothing. The names are those of the list's filters.

    A resource group is named, in any case of letters and in whatever subscription. `tag`: a tag's name, or name=value.
    """

    connection: int | None = None
    subscription: int | None = None
    resource_group: str = ""
    product_line: str = ""
    tag: str = ""

    @property
    def address(self) -> dict[str, str]:
        """It as parameters of an address of the list."""
        return {f.name: str(value) for f in fields(self) if (value := getattr(self, f.name))}

    @property
    def groups(self) -> Q:
        """The resource groups that it leaves."""
        found = Q()
        if self.subscription is not None:
            found &= Q(subscription=self.subscription)
        if self.resource_group:
            found &= Q(name__iexact=self.resource_group)
        return found


EVERYWHERE = FleetScope()


def moments_of_connections(now: datetime) -> dict[int, datetime]:
    """The moment at which the machines of each connection live: by its catalogue's day, else now (one query)."""
    return {row.pk: as_of(row.catalogue_date, now) for row in Connection.objects.all()}


# --- where a reader's machines are counted -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """What grants and a scope come to: whole resource groups (None: every one), and other machines one by one."""

    groups: tuple[int, ...] | None
    others: VirtualMachineQuerySet | None

    @property
    def is_of_groups(self) -> bool:
        """Whether the counters cover this place, so that snapshots of its days exist."""
        return self.others is None


def place_of(grants: Grants, scope: FleetScope = EVERYWHERE) -> Place:
    """Where to count the machines that these grants lead to in this scope (at most one query)."""
    wanted, everything = scope.groups, VirtualMachine.objects.order_by()
    if scope.tag:
        name, _sign, value = scope.tag.partition("=")
        vms = everything.granted_by(grants).filter(HasTag(name.strip(), value.strip()))
        return Place((), _in_groups(vms, wanted))
    if grants.are_of_everything and not wanted:
        return Place(None, None)
    held = ResourceGroup.objects.all()
    if not grants.are_of_everything:
        held = held.filter(
            Q(pk__any=array(sorted(grants.group_ids))) | Q(subscription__any=array(sorted(grants.subscription_ids)))
        )
    groups = tuple(held.filter(wanted).order_by("pk").values_list("pk", flat=True))
    if grants.are_of_everything or not grants.vm_ids:
        return Place(groups, None)
    others = everything.filter(pk__any=array(sorted(grants.vm_ids))).exclude(resource_group__in=held.values("pk"))
    return Place(groups, _in_groups(others, wanted))


def _in_groups(vms: VirtualMachineQuerySet, wanted: Q) -> VirtualMachineQuerySet:
    return vms.filter(resource_group__in=ResourceGroup.objects.filter(wanted).values("pk")) if wanted else vms


_KEYS = ", ".join(COUNTED_IN_FLEET)
_WHOLE_FLEET = (
    f"SELECT {_KEYS}, machines FROM vms_fleetcount"  # noqa: S608 (ours)
    f" UNION ALL SELECT {_KEYS}, machines FROM vms_wordcount WHERE NOT is_total"
)
_SOME_GROUPS = " UNION ALL ".join(
    f"SELECT {_KEYS}, machines FROM vms_wordcount WHERE {which} AND resource_group_id = ANY(%s::bigint[])"  # noqa: S608 (ours)
    for which in ("is_total", "NOT is_total")
)


def _counted_sql(place: Place) -> tuple[str, list[Any]]:
    """What selects the counted words of a place, several lines of the same words among them."""
    if place.groups is None:
        return _WHOLE_FLEET, []
    parts: list[str] = []
    parameters: list[Any] = []
    if place.groups:
        parts.append(_SOME_GROUPS)
        parameters += [array(place.groups)] * 2
    if place.others is not None:
        try:
            sql, own = place.others.values("pk").query.sql_with_params()
        except EmptyResultSet:
            pass
        else:
            one = (
                f"SELECT {COUNTED_OF_VM}, 1 AS machines FROM vms_virtualmachine WHERE gone_at IS NULL AND id IN ({sql})"  # noqa: S608 (the ORM's)
            )
            parts.append(f"SELECT {_KEYS}, machines FROM ({one}) machine")  # noqa: S608 (ours)
            parameters += own
    return " UNION ALL ".join(parts), parameters


# --- the counts --------------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """Machines with the same words; the first fields are `COUNTED_IN_FLEET`."""

    connection_id: int
    product_line: str
    update_status: str
    hotpatch_status: str
    hotpatch_track: str
    lacks_critical: bool
    is_reboot_pending: bool
    patcher: str
    reboot_setting: str
    patch_set: int
    machines: int

    @property
    def standing(self) -> str:
        """Which part of a column of the compliance picture it belongs to: the name of a field of `Standings`."""
        if self.update_status not in ASSESSED:
            return "no_data"
        if self.lacks_critical:
            return "critical"
        return "up_to_date" if self.update_status == UpdateStatus.NO_UPDATES_AVAILABLE else "other"


# The update statuses that rest on an assessment of the last week.
ASSESSED = frozenset({UpdateStatus.NO_UPDATES_AVAILABLE, UpdateStatus.UPDATES_AVAILABLE, UpdateStatus.REBOOT_REQUIRED})


@dataclass(frozen=True, slots=True)
class FleetCounts:
    """The machines of a place by their words: one line for each combination, no two alike."""

    lines: tuple[Line, ...]

    @property
    def machines(self) -> int:
        """All of them."""
        return sum(line.machines for line in self.lines)

    def by(self, name: str) -> Counter[Any]:
        """How many machines have each value of a field of `Line`."""
        found: Counter[Any] = Counter()
        for line in self.lines:
            found[getattr(line, name)] += line.machines
        return found

    def of(self, name: str, *values: Any) -> int:
        """How many machines have one of these values."""
        return sum(line.machines for line in self.lines if getattr(line, name) in values)

    @property
    def on_track(self) -> int:
        """How many are on the hotpatch track."""
        return self.of("hotpatch_track", *ON_TRACK_WORDS)

    @property
    def on_train(self) -> int:
        """How many are meant to be on the track: all but those that are not on the train."""
        return self.machines - self.of("hotpatch_track", HotpatchTrack.NOT_ON_TRAIN)


def count_fleet(place: Place, scope: FleetScope = EVERYWHERE) -> FleetCounts:
    """Count the machines of a place by their words (one query). Raises `ListTooSlowError`, with a tag only."""
    counted, parameters = _counted_sql(place)
    if not counted:
        return FleetCounts(())
    narrowed = ""
    for name, value in (("connection_id", scope.connection), ("product_line", scope.product_line)):
        if value:
            narrowed += f" {'AND' if narrowed else 'WHERE'} {name} = %s"
            parameters.append(value)
    sql = (
        f"SELECT {_KEYS}, sum(machines) FROM ({counted}) counted{narrowed}"  # noqa: S608 (ours)
        f" GROUP BY {_KEYS} HAVING sum(machines) <> 0"
    )
    return FleetCounts(tuple(Line(*row) for row in fetch_bounded(sql, parameters)))


# --- what machines lack ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PendingUpdate:
    """An update that machines lack: the row of the catalogue, in which patch sets it is, and how many machines lack it."""

    patch: Patch
    sets: frozenset[int]
    machines: int


@dataclass(frozen=True)
class Pending:
    """What the last assessments of counted machines found: each update, the most widely missing first."""

    updates: tuple[PendingUpdate, ...]
    by_set: Mapping[int, int]  # how many machines lack what each patch set holds

    @cached_property
    def offers(self) -> dict[int, tuple[terms.Patch, ...]]:
        """The updates of each patch set, as the rules take them."""
        found: dict[int, list[terms.Patch]] = defaultdict(list)
        for update in self.updates:
            facts = update.patch.facts
            for set_id in update.sets:
                found[set_id].append(facts)
        return {set_id: tuple(patches) for set_id, patches in found.items()}

    @property
    def by_classification(self) -> tuple[tuple[Classification, int], ...]:
        """How many machines lack an update of each class that anybody lacks, the most urgent class first."""
        return tuple((name, count) for name in Classification if (count := self._lacking(name)))

    def _lacking(self, classification: Classification) -> int:
        sets = {pk for update in self.updates if update.patch.classification == classification for pk in update.sets}
        return sum(self.by_set.get(pk, 0) for pk in sets)

    def late_sets(self, day: date) -> frozenset[int]:
        """The patch sets with a Critical or Security update that was published more than a week before this day."""
        return frozenset(
            pk
            for update in self.updates
            if update.patch.classification in CRITICAL_AND_SECURITY
            and update.patch.published_on is not None
            and update.patch.published_on + LATE_AFTER < day
            for pk in update.sets
        )


def load_pending(counts: FleetCounts) -> Pending:
    """The updates that these machines lack, by what their last assessments found (one query)."""
    return load_pending_of(counts.by("patch_set"))


def load_pending_of(by_set: Mapping[int, int]) -> Pending:
    """The updates of patch sets, by how many machines lack what each holds (one query)."""
    of_set = Q(memberships__patch_set__any=array(sorted(by_set)))
    rows = Patch.objects.filter(of_set).annotate(sets=ArrayAgg("memberships__patch_set_id")).order_by("pk")
    found = (PendingUpdate(row, frozenset(row.sets), sum(by_set[pk] for pk in row.sets)) for row in rows)
    ordered = sorted(found, key=lambda update: (-update.machines, update.patch.pk))
    return Pending(tuple(ordered), by_set)


def sets_with(*, kb_number: str = "", classifications: Collection[str] = ()) -> list[int]:
    """The patch sets that hold this KB, or an update of one of these classes (one query)."""
    wanted = Q(patch__kb_number=kb_number) if kb_number else Q(patch__classification__in=classifications)
    return list(PatchSetMember.objects.filter(wanted).order_by().values_list("patch_set", flat=True).distinct())


def vms_lacking(vms: VirtualMachineQuerySet, asked: str) -> VirtualMachineQuerySet:
    """Those of these machines that lack an update of this class, or this KB, by the index of patch sets (one query now)."""
    is_class = asked in set(Classification)
    sets = sets_with(classifications=[asked]) if is_class else sets_with(kb_number=asked.removeprefix("KB"))
    return vms.filter(update_state__patch_set__any=array(sorted(sets)))
