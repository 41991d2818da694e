"""A report on a part of the fleet: its state, exceptions, failures, who is overdue, and the releases that this rests on.

Each number has the address of the list of just these machines, or of the operations. What is counted comes from counters and
patch sets, so that a report costs the same with a million machines; what is looked for among machines has the time of a list.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from django.core.exceptions import EmptyResultSet
from django.db.models import CharField, Count, Q, QuerySet, Value
from django.urls import reverse
from django.utils.http import urlencode

from db.arrays import array
from patching.compliance import COMPLIANT, ClassStanding, is_late, judge_class
from patching.terms import CRITICAL_AND_SECURITY, Classification, HotpatchTrack, UpdateStatus
from updates.models import KbHold, Patch, Release
from updates.selectors.fleet import (
    ASSESSED,
    EVERYWHERE,
    FleetCounts,
    FleetScope,
    Line,
    Pending,
    Place,
    count_fleet,
    load_pending,
    moments_of_connections,
    place_of,
)
from updates.selectors.fleet_days import day_of
from updates.selectors.fleet_history import HistoryAsked, ReasonGroup, Result, Search, failure_groups
from updates.selectors.overview import scope_of
from updates.selectors.pending import by_key, list_address
from updates.selectors.pending_machines import machines_of
from vms.choices import HOTPATCH_STATUSES, HOTPATCH_TRACKS, UPDATE_STATUSES, Condition
from vms.filters import VmFilter
from vms.models import Grants, VirtualMachine, VirtualMachineQuerySet
from vms.selectors import ListedVm, ListTooSlowError, VmPage, fetch_bounded, vm_page
from vms.texts import Text

if TYPE_CHECKING:
    from django.contrib.auth.models import User

MOST_LATE = 50  # updates on the page; the file has all
MOST_MACHINES = 20  # overdue machines on the page; the list has all
MOST_REASONS = 20
RELEASES_OF = timedelta(days=183)


@dataclass(frozen=True, slots=True)
class ReportAsked:
    """What a report is asked: within how many days updates shall be there, and of how many days failures are told."""

    days: int = 14
    period: int = 30

    @property
    def address(self) -> dict[str, str]:
        """It as parameters of an address."""
        return {"days": str(self.days), "period": str(self.period)}


@dataclass(frozen=True, slots=True)
class MachinesAsked:
    """Which machines of a report are asked for: those with this standing, in a class (empty: any) or with one update.

    `update`: a KB number, or the update id of what has none; then the machines that lack it for too long.
    """

    days: int = 14
    standing: ClassStanding = ClassStanding.OVERDUE
    classification: str = ""
    update: str = ""

    @property
    def address(self) -> dict[str, str]:
        """It as parameters of an address."""
        said = {"days": str(self.days), "standing": self.standing.value}
        return said | {
            name: value for name, value in (("classification", self.classification), ("update", self.update)) if value
        }


class ExceptionName(StrEnum):
    """What is not as it should be with machines."""

    OFF_TRACK = "off_track"
    OVERDUE_BASELINE = "overdue_baseline"
    WAITS_FOR_REBOOT = "waits_for_reboot"
    NOT_ASSESSED = "not_assessed"
    NEVER_ASSESSED = "never_assessed"
    SETTINGS_DIFFER = "settings_differ"


@dataclass(frozen=True, slots=True)
class Figure:
    """How many machines, of what, and the address of the list of just these."""

    code: str
    label: Text
    count: int
    address: str


@dataclass(frozen=True, slots=True)
class ClassRow:
    """Where the machines stand with one class of updates. `standings`: in the order of `ClassStanding`."""

    classification: Classification
    standings: tuple[Figure, ...]

    @property
    def compliant(self) -> int:
        """How many are compliant."""
        return sum(figure.count for figure in self.standings if figure.code in COMPLIANT)

    @property
    def known(self) -> int:
        """Of how many it is known whether they are."""
        return sum(figure.count for figure in self.standings if figure.code != ClassStanding.NOT_KNOWN)

    @property
    def percent(self) -> float | None:
        """The share of those that are known, rounded down to a tenth: 100 are all of them. None: nothing is known."""
        return self.compliant * 1000 // self.known / 10 if self.known else None


@dataclass(frozen=True, slots=True)
class LateUpdate:
    """An update that machines lack for too long, on how many, and the list of these."""

    patch: Patch
    machines: int
    address: str


@dataclass(frozen=True, slots=True)
class Lateness:
    """How many updates a machine lacks for too long, and when the oldest of them was published."""

    updates: int
    oldest: date | None


@dataclass(frozen=True, slots=True)
class LateMachine:
    """A listed machine with what it lacks for too long."""

    vm: ListedVm
    late: Lateness


@dataclass(frozen=True)
class Report:
    """All that a report says. `held`, `differing`, `failures` and `late_machines` are None where looking took too long."""

    scope: FleetScope
    asked: ReportAsked
    made_at: datetime
    machines: Figure
    statuses: tuple[Figure, ...]
    tracks: tuple[Figure, ...]
    hotpatch: tuple[Figure, ...]
    exceptions: tuple[Figure, ...]
    held: tuple[Figure, ...] | None
    failures: tuple[ReasonGroup, ...] | None
    has_more_failures: bool
    failures_address: str
    classes: tuple[ClassRow, ...]
    late: tuple[LateUpdate, ...]
    overdue: Figure
    late_machines: tuple[LateMachine, ...] | None
    releases: tuple[Release, ...]
    days_meant: tuple[date, ...]  # the days at which connections live, where that is not today

    @property
    def is_everywhere(self) -> bool:
        """Whether nothing narrows it."""
        return self.scope == EVERYWHERE

    @property
    def days_words(self) -> str:
        """The days at which machines live, one after the other."""
        return ", ".join(day.isoformat() for day in self.days_meant)

    @property
    def address(self) -> dict[str, str]:
        """Its parameters."""
        return self.scope.address | self.asked.address

    @property
    def query(self) -> str:
        """The same as the query of an address."""
        return urlencode(self.address)

    @property
    def shown_late(self) -> tuple[LateUpdate, ...]:
        """The updates of the page; the file has all."""
        return self.late[:MOST_LATE]

    @property
    def left_out(self) -> int:
        """How many overdue updates only the file has."""
        return len(self.late) - len(self.shown_late)


@dataclass(frozen=True)
class ReportMachines:
    """A page of the machines behind a number of a report; `page` is None where it took too long to find them."""

    scope: FleetScope
    asked: MachinesAsked
    total: int
    page: VmPage | None
    rows: tuple[LateMachine, ...]

    @property
    def query(self) -> str:
        """Its parameters as the query of an address."""
        return urlencode(self.scope.address | self.asked.address)

    @property
    def report_query(self) -> str:
        """Those of the report that it belongs to."""
        return urlencode(self.scope.address | {"days": str(self.asked.days)})


def load_report(user: User, filters: VmFilter, asked: ReportAsked, *, now: datetime) -> Report:
    """The report on the machines that the user may see and the filters leave, in a fixed number of queries.

    `filters`: of this user, just read. Raises `ListTooSlowError` with a tag that is looked for too long.
    """
    scope, grants = scope_of(filters), Grants.last_read(user)
    place = place_of(grants, scope)
    judged = load_judged(place, scope, asked.days, now)
    counts = judged.counts
    machines = machines_of(place, scope)
    looked_for = _looked_for(machines)
    failed = _failed_in(scope, asked.period)
    groups = _failures(user, grants, failed, now)
    overdue = MachinesAsked(asked.days)
    days = set(judged.days.values())
    return Report(
        scope=scope,
        asked=asked,
        made_at=now,
        machines=Figure("machines", "", counts.machines, list_address(scope)),
        statuses=_by_word(counts, scope, "update_status", UPDATE_STATUSES),
        tracks=_by_word(counts, scope, "hotpatch_track", HOTPATCH_TRACKS),
        hotpatch=_by_word(counts, scope, "hotpatch_status", HOTPATCH_STATUSES),
        exceptions=tuple(_exceptions(counts, scope, looked_for)),
        held=_held(scope, looked_for),
        failures=None if groups is None else tuple(groups[:MOST_REASONS]),
        has_more_failures=groups is not None and len(groups) > MOST_REASONS,
        failures_address=history_address(failed),
        classes=tuple(_class_row(judged, scope, name) for name in judged.classes),
        late=_late_updates(judged, scope),
        overdue=Figure("overdue", "", judged.count(overdue), machines_address(scope, overdue)),
        late_machines=_first_late(judged, machines, overdue),
        releases=_releases(counts, days),
        days_meant=tuple(sorted(days - {day_of(now)})),
    )


def load_machines(user: User, filters: VmFilter, asked: MachinesAsked, *, now: datetime, cursor: str) -> ReportMachines:
    """A page of the machines that a number of a report counts. Raises `ListTooSlowError` as `load_report`."""
    scope = scope_of(filters)
    place = place_of(Grants.last_read(user), scope)
    judged = load_judged(place, scope, asked.days, now)
    found = judged.machines(machines_of(place, scope), asked)
    try:
        page = vm_page(found, order="name", cursor=cursor)
    except ListTooSlowError:
        page = None
    rows = tuple(judged.late_machines(page.vms)) if page else ()
    return ReportMachines(scope, asked, judged.count(asked), page, rows)


def machines_address(scope: FleetScope, asked: MachinesAsked) -> str:
    """The address of the machines behind a number of a report."""
    return f"{reverse('updates:report-machines')}?{urlencode(scope.address | asked.address)}"


def history_address(asked: HistoryAsked) -> str:
    """The address of these operations in the history."""
    return f"{reverse('updates:history')}?{asked.address}"


# --- what is late --------------------------------------------------------------------------------------------------


def load_judged(place: Place, scope: FleetScope, days: int, now: datetime) -> Judged:
    """The machines of a place, counted and judged (three queries). Raises `ListTooSlowError`, with a tag only."""
    counts = count_fleet(place, scope)
    moments = moments_of_connections(now)
    return Judged(counts, load_pending(counts), {pk: day_of(moment) for pk, moment in moments.items()}, days)


@dataclass(frozen=True, slots=True)
class _Missing:
    """An update of a patch set: what it is known by, its class, and when it was published."""

    key: str
    classification: str
    published_on: date | None


class Judged:
    """Counted machines, judged by the days within which updates shall be there. `days`: the day of each connection."""

    def __init__(self, counts: FleetCounts, pending: Pending, days: Mapping[int, date], limit: int) -> None:
        self.counts, self.pending, self.limit = counts, pending, limit
        here = counts.by("connection_id")
        self.days = {pk: day for pk, day in days.items() if pk in here}
        self._of_set: defaultdict[int, list[_Missing]] = defaultdict(list)
        self.by_key = by_key(pending.updates)
        for key, updates in self.by_key.items():
            for update in updates:
                missing = _Missing(key, update.patch.classification, update.patch.published_on)
                for pk in update.sets:
                    self._of_set[pk].append(missing)

    @property
    def classes(self) -> list[Classification]:
        """The classes to report on: Critical and Security, and those that a machine lacks something of."""
        lacked = {update.patch.classification for update in self.pending.updates}
        return [name for name in Classification if name in CRITICAL_AND_SECURITY or name in lacked]

    def count(self, asked: MachinesAsked) -> int:
        """How many machines are asked for."""
        standings = self._standings(asked)
        return sum(line.machines for line in self.counts.lines if self._of_line(line, standings) is asked.standing)

    def count_each(self, classification: str) -> Counter[ClassStanding]:
        """How many machines have each standing in a class."""
        standings = self._standings(MachinesAsked(self.limit, classification=classification))
        found: Counter[ClassStanding] = Counter()
        for line in self.counts.lines:
            found[self._of_line(line, standings)] += line.machines
        return found

    def late(self, patch_set: int, day: date) -> list[_Missing]:
        """What machines that lack this patch set lack for too long on this day."""
        return [
            each for each in self._of_set.get(patch_set, ()) if is_late(each.published_on, day=day, days=self.limit)
        ]

    def count_late(self) -> Counter[str]:
        """How many machines lack each update for too long, by what it is known by."""
        assessed: Counter[tuple[int, date]] = Counter()
        for line in self.counts.lines:
            if _is_assessed(line):
                assessed[line.patch_set, self.days[line.connection_id]] += line.machines
        found: Counter[str] = Counter()
        for (patch_set, day), machines in assessed.items():
            for key in {each.key for each in self.late(patch_set, day)}:
                found[key] += machines
        return found

    def machines(self, vms: VirtualMachineQuerySet, asked: MachinesAsked) -> VirtualMachineQuerySet:
        """Those of these machines that `count` counts: through the patch sets that they lack, by day."""
        sets_by_day: dict[date, list[int]] = {}
        standings = self._standings(asked)
        for (patch_set, day), standing in standings.items():
            if standing is asked.standing:
                sets_by_day.setdefault(day, []).append(patch_set)
        assessed = vms.filter(update_status__in=sorted(ASSESSED)).exclude(patch_set=0)
        parts = [self._on_day(assessed, day, sets, asked.standing) for day, sets in sorted(sets_by_day.items())]
        if asked.standing is ClassStanding.NOT_KNOWN:
            parts.append(vms.exclude(update_status__in=sorted(ASSESSED)))
            parts.append(vms.filter(update_status__in=sorted(ASSESSED), patch_set=0))
        if len(parts) < 2:
            return parts[0] if parts else vms.none()
        first, *others = (part.order_by().values("pk") for part in parts)
        return VirtualMachine.objects.order_by().filter(pk__in=first.union(*others))

    def _on_day(
        self, vms: VirtualMachineQuerySet, day: date, sets: Collection[int], standing: ClassStanding
    ) -> VirtualMachineQuerySet:
        if len(set(self.days.values())) > 1:
            vms = vms.filter(connection__any=array(sorted(pk for pk, theirs in self.days.items() if theirs == day)))
        if standing is ClassStanding.UP_TO_DATE:
            # Nearly all: their own column says it, while the list walks an index of names.
            return vms.filter(patch_set__any=array(sorted(sets)))
        return vms.filter(update_state__patch_set__any=array(sorted(sets)))

    def late_of(self, patch_set: int, connection_id: int) -> Lateness:
        """What a machine behind this connection lacks for too long that lacks this patch set."""
        day = self.days.get(connection_id)
        late = self.late(patch_set, day) if day is not None else []
        oldest = min((each.published_on for each in late if each.published_on), default=None)
        return Lateness(len({each.key for each in late}), oldest)

    def late_machines(self, vms: Sequence[ListedVm]) -> list[LateMachine]:
        """These listed machines with what they lack for too long (one query)."""
        facts = VirtualMachine.objects.filter(pk__any=array(vm.id for vm in vms)).order_by("pk")
        known = {pk: (sets, site) for pk, sets, site in facts.values_list("pk", "patch_set", "connection_id")}
        return [LateMachine(vm, self.late_of(*known.get(vm.id, (0, 0)))) for vm in vms]

    def _standings(self, asked: MachinesAsked) -> dict[tuple[int, date], ClassStanding]:
        """The standing of assessed machines by patch set and day."""
        days, sets = set(self.days.values()), [pk for pk in self.pending.by_set if pk]
        return {(pk, day): self._judge(pk, day, asked) for pk in sets for day in days}

    def _judge(self, patch_set: int, day: date, asked: MachinesAsked) -> ClassStanding:
        missing = [
            each.published_on
            for each in self._of_set.get(patch_set, ())
            if asked.classification in {"", each.classification} and asked.update in {"", each.key}
        ]
        return judge_class(missing, is_assessed=True, day=day, days=self.limit)

    def _of_line(self, line: Line, standings: Mapping[tuple[int, date], ClassStanding]) -> ClassStanding:
        if not _is_assessed(line):
            return ClassStanding.NOT_KNOWN
        return standings[line.patch_set, self.days[line.connection_id]]


def _is_assessed(line: Line) -> bool:
    return line.update_status in ASSESSED and line.patch_set != 0


def _class_row(judged: Judged, scope: FleetScope, name: Classification) -> ClassRow:
    counted = judged.count_each(name.value)
    return ClassRow(
        name,
        tuple(
            Figure(
                standing.value,
                "",
                counted[standing],
                machines_address(scope, MachinesAsked(judged.limit, standing, classification=name.value)),
            )
            for standing in ClassStanding
        ),
    )


def _late_updates(judged: Judged, scope: FleetScope) -> tuple[LateUpdate, ...]:
    """The updates that machines lack for too long, the most widely missing first."""
    counted = judged.count_late()
    rows = [
        LateUpdate(
            judged.by_key[key][0].patch,
            machines,
            machines_address(scope, MachinesAsked(judged.limit, update=key)),
        )
        for key, machines in counted.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.machines, row.patch.pk)))


def _first_late(
    judged: Judged, machines: VirtualMachineQuerySet, overdue: MachinesAsked
) -> tuple[LateMachine, ...] | None:
    """The first overdue machines by name (two queries); None where they are not found in time."""
    try:
        page = vm_page(judged.machines(machines, overdue), order="name")
    except ListTooSlowError:
        return None
    return tuple(judged.late_machines(page.vms[:MOST_MACHINES]))


# --- state and exceptions ------------------------------------------------------------------------------------------


def _by_word(
    counts: FleetCounts, scope: FleetScope, name: str, choices: Iterable[tuple[str, Text]]
) -> tuple[Figure, ...]:
    """The machines by a word of theirs, in the order of the list's filter; words that nobody has are left out."""
    counted = counts.by(name)
    return tuple(
        Figure(value, label, counted[value], list_address(scope, **{name: value}))
        for value, label in choices
        if counted[value]
    )


_TRACKS = (
    (ExceptionName.OFF_TRACK, HotpatchTrack.OFF_TRACK_SINCE_KB),
    (ExceptionName.OVERDUE_BASELINE, HotpatchTrack.BASELINE_OVERDUE),
    (ExceptionName.WAITS_FOR_REBOOT, HotpatchTrack.WAITS_FOR_REBOOT),
)


def _exceptions(counts: FleetCounts, scope: FleetScope, looked_for: Mapping[str, int] | None) -> Iterable[Figure]:
    """What is not as it should be, also where it is nothing; settings are left out where looking took too long."""
    tracks = counts.by("hotpatch_track")
    for name, track in _TRACKS:
        yield Figure(name.value, "", tracks[track.value], list_address(scope, hotpatch_track=track.value))
    no_data = UpdateStatus.NO_UPDATES_DATA.value
    yield Figure(
        ExceptionName.NOT_ASSESSED.value,
        "",
        counts.of("update_status", no_data),
        list_address(scope, update_status=no_data),
    )
    never = list_address(scope, condition=Condition.NEVER_ASSESSED.value)
    yield Figure(ExceptionName.NEVER_ASSESSED.value, "", counts.of("patch_set", 0), never)
    if looked_for is not None:
        differing = list_address(scope, settings="differ")
        yield Figure(ExceptionName.SETTINGS_DIFFER.value, "", looked_for.get("", 0), differing)


def _looked_for(machines: VirtualMachineQuerySet) -> dict[str, int] | None:
    """How many machines have other settings than they shall (key: empty) and hold back each KB; None: it took too long."""
    differing = machines.filter(desired_settings__isnull=False).annotate(what=Value("", output_field=CharField()))
    holds = KbHold.objects.order_by().filter(vm__in=machines.values("pk"))
    parts: list[QuerySet[Any, Any]] = [
        differing.values("what").annotate(machines=Count("pk")).values_list("what", "machines"),
        holds.values("kb_number").annotate(machines=Count("vm")).values_list("kb_number", "machines"),
    ]
    statements: list[str] = []
    parameters: list[Any] = []
    for part in parts:
        try:
            sql, own = part.query.sql_with_params()
        except EmptyResultSet:
            continue
        statements.append(f"({sql})")
        parameters += own
    if not statements:
        return {}
    try:
        found = fetch_bounded(" UNION ALL ".join(statements), parameters)
    except ListTooSlowError:
        return None
    return {str(what): int(count) for what, count in found}


def _held(scope: FleetScope, looked_for: Mapping[str, int] | None) -> tuple[Figure, ...] | None:
    if looked_for is None:
        return None
    held = sorted((kb, count) for kb, count in looked_for.items() if kb)
    return tuple(Figure(kb, "", count, list_address(scope, held=kb)) for kb, count in held)


# --- failures and releases -----------------------------------------------------------------------------------------


def _failed_in(scope: FleetScope, days: int) -> HistoryAsked:
    return HistoryAsked(
        days=days,
        result=Result.FAILED.value,
        connection=scope.connection,
        subscription=scope.subscription,
        resource_group=scope.resource_group,
        product_line=scope.product_line,
        tag=scope.tag,
    )


def _failures(user: User, grants: Grants, asked: HistoryAsked, now: datetime) -> list[ReasonGroup] | None:
    """Why operations failed, as the history groups them; None where that takes too long."""
    try:
        return failure_groups(Search(user, grants, asked, now))
    except ListTooSlowError:
        return None


def _releases(counts: FleetCounts, days: Collection[date]) -> tuple[Release, ...]:
    """What was released for the product lines of these machines in the half year before the days they live (one query)."""
    lines = sorted(line for line in counts.by("product_line") if line)
    meant = Q(pk__in=[])
    for day in sorted(days):
        meant |= Q(released_on__gt=day - RELEASES_OF, released_on__lte=day)
    rows = Release.objects.filter(meant, product_line__in=lines)
    return tuple(rows.order_by("product_line", "-released_on", "type", "pk"))
