"""Judging a simulation by what its machines went through (docs/simulation.md defines each rule).

Independent: it reads the ledger of what the machines received, their static facts, and a table of its own that says which
KB puts a machine on or off the train (train.csv). It uses no plan, no rollout, no summary, no catalogue of the portal and
none of the rules by which the portal decides; it imports nothing but the standard library and that table.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from heapq import heappop, heappush
from zoneinfo import ZoneInfo

from simulation.train import (
    BASELINE,
    IS_FOR_MACHINES_OFF,
    IS_FOR_MACHINES_ON,
    TAKES_OFF,
    Out,
    Train,
)

PATCHED_WITHIN = timedelta(days=30)
ENOUGH_NIGHTS = 15  # whole nights on, of the 30 days, that make a machine "running"
QUIET_FROM, QUIET_TO = time(22), time(4)
UNFINISHED = timedelta(hours=2)  # how long a machine that never answered counts as at work, where it was told no end


class Rule(StrEnum):
    """What may never happen."""

    PAIRED_REGIONS = "paired regions at the same time"
    ZONES = "two zones of a region at the same time"
    AVAILABILITY_SET = "two machines of an availability set at the same time"
    SUBSCRIPTION = "a whole subscription at the same time"
    GROUP = "a whole anti-affinity group at the same time"
    OFF_PEAK = "work outside off-peak hours"
    UNASKED = "work on a machine that nobody patches automatically"
    REBOOT = "reboot of a machine on the train outside a baseline, without a named patch"
    OFF_TRAIN = "a machine taken off the train"
    LATE = "an eligible running machine not patched within 30 days"


AVAILABILITY_RULES = (Rule.PAIRED_REGIONS, Rule.ZONES, Rule.AVAILABILITY_SET, Rule.SUBSCRIPTION, Rule.GROUP)


@dataclass(frozen=True, slots=True)
class Place:
    """The static facts of a machine, as far as a rule asks for them. Empty: it stands in none."""

    name: str
    region: str
    clock: str  # IANA
    line: str
    zone: str = ""
    availability_set: str = ""
    subscription: str = ""
    group: str = ""
    is_automatic: bool = True
    has_hotpatch: bool = True  # switched on
    is_on_train: bool = True  # when the simulation begins
    build: str = ""  # when the simulation begins


@dataclass(frozen=True, slots=True)
class Install:
    """One update on one machine. `has_failed`: it is not there afterwards."""

    kb_number: str
    begins: datetime
    ends: datetime
    has_failed: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """One run on one machine (its place in the list of machines), from its first to its last moment."""

    machine: int
    begins: datetime
    ends: datetime
    installs: tuple[Install, ...] = ()
    reboots: tuple[tuple[datetime, datetime], ...] = ()


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that was broken, when, and by which machines."""

    rule: Rule
    at: datetime
    words: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """How a release reached the machines that it is for."""

    release: Out
    eligible: int
    in_time: int
    days: tuple[float, ...]  # from the release to each machine in time, sorted
    off: int  # machines that were off for too many nights to count
    off_in_time: int


@dataclass(frozen=True, slots=True)
class Excursion:
    """A machine off the train: since when (None: from the start), by which KB, and when it came back."""

    machine: int
    since: datetime | None
    kb_number: str
    back_at: datetime | None = None
    back_by: str = ""


@dataclass(slots=True)
class Findings:
    """Everything that the ledger shows."""

    violations: list[Violation] = field(default_factory=list)
    coverage: list[Coverage] = field(default_factory=list)
    reboots: Counter[str] = field(default_factory=Counter)  # by cause, machines on the train when it happened
    reboots_off_train: Counter[str] = field(default_factory=Counter)
    per_machine: Counter[int] = field(default_factory=Counter)  # reboots by machine
    excursions: list[Excursion] = field(default_factory=list)
    most_at_once: int = 0

    def count(self, *rules: Rule) -> int:
        """How many violations of these rules there are."""
        return sum(violation.rule in rules for violation in self.violations)


def check(
    places: Sequence[Place],
    works: Iterable[Work],
    releases: Iterable[Out],
    off: Iterable[tuple[int, datetime, datetime]],
    *,
    begins: datetime,
    ends: datetime,
) -> Findings:
    """Judge the runs of a fleet between two moments. `off`: (machine, from, to) while it was switched off."""
    findings = Findings()
    ordered = sorted(works, key=lambda work: (work.begins, work.machine))
    train = Train(releases)
    _check_side_by_side(places, ordered, findings)
    _check_hours(places, ordered, findings)
    _check_train(places, ordered, train, begins, findings)
    dark: dict[int, list[tuple[datetime, datetime]]] = defaultdict(list)
    for machine, since, until in off:
        dark[machine].append((since, until))
    _check_in_time(places, ordered, train, dark, begins, ends, findings)
    findings.violations.sort(key=lambda violation: (violation.at, violation.rule, violation.words))
    return findings


# --- who is changed beside whom ----------------------------------------------------------------------------------

_PAIRS = (
    frozenset({"japaneast", "japanwest"}),
    frozenset({"westeurope", "northeurope"}),
    frozenset({"eastus", "westus"}),
    frozenset({"australiaeast", "australiasoutheast"}),
)
PAIR_OF: Mapping[str, str] = {one: next(iter(pair - {one})) for pair in _PAIRS for one in pair}


_GROUPS = ("availability_set", "subscription", "group")


def _check_side_by_side(places: Sequence[Place], works: Sequence[Work], findings: Findings) -> None:
    """At every start, look at who is at work in that moment."""
    sizes = {name: Counter(getattr(place, name) for place in places) for name in _GROUPS}
    at_work: dict[tuple[str, str], set[int]] = defaultdict(set)  # by region, and by each group
    ends: list[tuple[datetime, int]] = []

    def keys_of(place: Place) -> list[tuple[str, str]]:
        return [("region", place.region), *((name, getattr(place, name)) for name in _GROUPS if getattr(place, name))]

    for work in works:
        while ends and ends[0][0] <= work.begins:
            _at, gone = heappop(ends)
            for key in keys_of(places[gone]):
                at_work[key].discard(gone)
        place = places[work.machine]
        beside: list[tuple[Rule, set[int]]] = []
        beside.append((Rule.PAIRED_REGIONS, set(at_work["region", PAIR_OF.get(place.region, "")])))
        if place.zone:
            here = at_work["region", place.region]
            beside.append((Rule.ZONES, {other for other in here if places[other].zone not in {"", place.zone}}))
        heappush(ends, (work.ends, work.machine))
        for key in keys_of(place):
            at_work[key].add(work.machine)
        findings.most_at_once = max(findings.most_at_once, len(ends))
        for name, rule in zip(_GROUPS, (Rule.AVAILABILITY_SET, Rule.SUBSCRIPTION, Rule.GROUP), strict=True):
            value = getattr(place, name)
            going, size = at_work[name, value] if value else set(), sizes[name][value]
            if rule is Rule.AVAILABILITY_SET:
                is_well = len(going) <= 1
            else:
                is_well = size < 2 or len(going) < size
            if not is_well:
                beside.append((rule, going - {work.machine}))
        for rule, others in beside:
            if others:
                names = ", ".join(sorted(places[other].name for other in others)[:5])
                findings.violations.append(Violation(rule, work.begins, f"{place.name} beside {names}"))


# --- when, and on whom -------------------------------------------------------------------------------------------


def _check_hours(places: Sequence[Place], works: Sequence[Work], findings: Findings) -> None:
    for work in works:
        place = places[work.machine]
        if not place.is_automatic:
            findings.violations.append(Violation(Rule.UNASKED, work.begins, place.name))
        night = _night_of(work.begins, ZoneInfo(place.clock))
        if night is None or work.ends > night[1]:
            words = f"{place.name}, {place.clock}, until {work.ends.isoformat()}"
            findings.violations.append(Violation(Rule.OFF_PEAK, work.begins, words))


def _night_of(moment: datetime, clock: ZoneInfo) -> tuple[datetime, datetime] | None:
    """The off-peak hours that the moment lies in."""
    shown = moment.astimezone(clock)
    if QUIET_TO <= shown.time() < QUIET_FROM:
        return None
    evening = shown.date() if shown.time() >= QUIET_FROM else shown.date() - timedelta(days=1)
    return _night(evening, clock)


def _night(evening: date, clock: ZoneInfo) -> tuple[datetime, datetime]:
    return (
        datetime.combine(evening, QUIET_FROM, clock),
        datetime.combine(evening + timedelta(days=1), QUIET_TO, clock),
    )


# --- reboots, and the train --------------------------------------------------------------------------------------


def _check_train(
    places: Sequence[Place], works: Sequence[Work], train: Train, begins: datetime, findings: Findings
) -> None:
    """Who was taken off, who came back, and why machines rebooted.

    A machine that is only due a baseline counts as one on the train: what it needs is that baseline, and a cumulative
    update newer than it would take it off.
    """
    off_since = {number: _off_at_start(place, begins) for number, place in enumerate(places)}
    away = {
        number: Excursion(number, None, "")
        for number, place in enumerate(places)
        if place.has_hotpatch and place.is_automatic and off_since[number] is not None
    }
    for work in works:
        place, number = places[work.machine], work.machine
        found = [(install, train.release(place.line, install.kb_number)) for install in work.installs]
        newest = train.baseline_at(place.line, work.begins)
        is_on = place.has_hotpatch and not train.is_off(place.line, off_since[number], work.begins)
        for at, _until in work.reboots:
            cause = _cause(found, newest)
            findings.per_machine[number] += 1
            (findings.reboots if is_on else findings.reboots_off_train)[cause or "no cause"] += 1
            if is_on and cause is None:
                findings.violations.append(Violation(Rule.REBOOT, at, place.name))
        for install, release in found:
            if install.has_failed or release is None or not place.has_hotpatch:
                continue
            if release.kind == BASELINE and (newest is None or release.released_on >= newest.released_on):
                off_since[number] = None
                if gone := away.pop(number, None):
                    back = replace(gone, back_at=install.ends, back_by=install.kb_number)
                    findings.excursions.append(back)
            elif release.kind in TAKES_OFF and (newest is None or release.released_on > newest.released_on):
                if is_on:
                    words = f"{place.name} by KB{install.kb_number}"
                    findings.violations.append(Violation(Rule.OFF_TRAIN, install.ends, words))
                    away[number] = Excursion(number, install.ends, install.kb_number)
                off_since[number] = release.released_on
    findings.excursions.extend(away.values())


def _off_at_start(place: Place, begins: datetime) -> date | None:
    """The day since which it is off when the simulation begins: the eve, where it does not begin on the train."""
    return None if place.is_on_train else begins.date() - timedelta(days=1)


def _cause(found: Sequence[tuple[Install, Out | None]], newest: Out | None) -> str | None:
    """What a reboot was for, in words: the line's newest baseline, else a named patch that is no hotpatch."""
    for _install, release in found:
        if release is not None and release.kind == BASELINE and release == newest:
            return f"{'planned' if release.is_planned else 'unplanned'} baseline KB{release.kb_number}"
    for install, release in found:
        if release is None or release.kind in TAKES_OFF:
            return f"{'update' if release is None else release.kind} KB{install.kb_number}"
    return None


# --- in time -----------------------------------------------------------------------------------------------------


def _check_in_time(
    places: Sequence[Place],
    works: Sequence[Work],
    train: Train,
    dark: Mapping[int, Sequence[tuple[datetime, datetime]]],
    begins: datetime,
    ends: datetime,
    findings: Findings,
) -> None:
    got: dict[int, list[tuple[datetime, Out]]] = defaultdict(list)
    for work in works:
        for install in work.installs:
            release = train.release(places[work.machine].line, install.kb_number)
            if release is not None and not install.has_failed:
                got[work.machine].append((install.ends, release))
    judged = sorted(
        (r for r in train.releases if r.is_expected and begins <= r.out_at and r.out_at + PATCHED_WITHIN <= ends),
        key=lambda r: (r.released_on, r.line, r.kind, r.kb_number),
    )
    for release in judged:
        eligible = in_time = off = off_in_time = 0
        days = []
        for number, place in enumerate(places):
            mine = got.get(number, [])
            if not place.is_automatic or place.line != release.line or not _is_for(release, place, mine, train, begins):
                continue
            at = _patched_at(release, mine)
            is_in_time = at is not None and at <= release.out_at + PATCHED_WITHIN
            if _nights_on(release.out_at, place, dark.get(number, ())) < ENOUGH_NIGHTS:
                off += 1
                off_in_time += is_in_time
                continue
            eligible += 1
            in_time += is_in_time
            if at is not None and is_in_time:
                days.append((at - release.out_at) / timedelta(days=1))
            else:
                words = f"{place.name} without KB{release.kb_number} of {release.released_on}"
                findings.violations.append(Violation(Rule.LATE, release.out_at + PATCHED_WITHIN, words))
        if eligible or off:
            findings.coverage.append(Coverage(release, eligible, in_time, tuple(sorted(days)), off, off_in_time))


def _is_for(release: Out, place: Place, got: Sequence[tuple[datetime, Out]], train: Train, begins: datetime) -> bool:
    """Whether the release is for this machine: what it gets depends on whether it is on the train that day."""
    off_since = _off_at_start(place, begins)
    for at, other in got:
        if at <= release.out_at and other.kind in IS_FOR_MACHINES_OFF:
            off_since = None if other.kind == BASELINE else other.released_on
    is_on_train = place.has_hotpatch and not train.is_off(place.line, off_since, release.out_at)
    return release.kind in (IS_FOR_MACHINES_ON if is_on_train else IS_FOR_MACHINES_OFF)


def _patched_at(release: Out, got: Sequence[tuple[datetime, Out]]) -> datetime | None:
    """When the machine first had this release or a newer one (each contains those before it)."""
    return next((at for at, other in got if other.released_on >= release.released_on), None)


def _nights_on(since: datetime, place: Place, dark: Sequence[tuple[datetime, datetime]]) -> int:
    """How many whole nights of the 30 days after `since` the machine was on."""
    if not dark:
        return PATCHED_WITHIN.days
    clock = ZoneInfo(place.clock)
    first = since.astimezone(clock).date()
    nights = [_night(first + timedelta(days=number), clock) for number in range(PATCHED_WITHIN.days)]
    return sum(all(until <= begins or ends <= off for off, until in dark) for begins, ends in nights)
