"""Availability first: who goes when in a rollout (docs/rules.md). Pure: the same fleet gives the same waves.

Regions go in phases, the regions of a pair never in the same one (the caller says which are pairs). In a region one zone goes
at a time. Of an availability set one machine goes at a time: no inventory tells its update domains, so any two machines may
be in two of them. Of a subscription and of an anti-affinity group never all at once.

`plan_lanes` orders one rollout. Several rollouts run at once, each with an order of its own: `may_start` is asked before
every start, about everything that is going on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

# The partners of a region by its name; a region that is not named stands alone.
Pairs = Mapping[str, Collection[str]]
GROUP_SHARE = 4  # of a subscription or an anti-affinity group a quarter at a time


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a VM stands, as far as the order depends on it. Empty texts: it stands in none."""

    vm_id: int
    region: str
    zone: str = ""
    availability_set: str = ""
    subscription: str = ""
    group: str = ""  # the value of the anti-affinity tag
    clock: str = ""  # whose off-peak hours it waits for; empty: it waits for none


def phases_of(regions: Iterable[str], *, pairs: Pairs) -> list[list[str]]:
    """Split regions into phases so that no pair is in one: each goes in the first that holds no partner of it."""
    phases: list[list[str]] = []
    for region in sorted(set(regions)):
        partners = pairs.get(region, ())
        free = next((phase for phase in phases if not any(partner in phase for partner in partners)), None)
        if free is None:
            phases.append([region])
        else:
            free.append(region)
    return phases


@dataclass(frozen=True, slots=True)
class RegionLane:
    """The waves of one region (and one clock), which go one after the other; lanes of a phase go side by side."""

    phase: int
    waves: tuple[tuple[int, ...], ...]
    ring: int = 0


def plan_lanes(machines: Sequence[Machine], *, pairs: Pairs) -> list[RegionLane]:
    """The lanes in the order of their phases: every VM in exactly one wave, no wave empty.

    Machines of one region whose clocks differ go in lanes of their own: none waits for another's night.
    """
    lanes = []
    sizes = Counter(key for machine in machines for key in groups_of(machine))
    for number, phase in enumerate(phases_of((machine.region for machine in machines), pairs=pairs)):
        own = sorted((m for m in machines if m.region in phase), key=lambda m: m.vm_id)
        for place in sorted({(m.region, m.clock) for m in own}):
            here = [m for m in own if (m.region, m.clock) == place]
            turn = _turns(here)
            waves: list[list[int]] = []
            for zone in range(1 + max(turn.values())):
                waves.extend(_batches([m for m in here if turn[m.region, m.zone] == zone], sizes))
            lanes.append(RegionLane(number, tuple(map(tuple, waves))))
    return lanes


def plan_rings(rings: Sequence[Sequence[Machine]], *, is_availability_first: bool, pairs: Pairs) -> list[RegionLane]:
    """The lanes of rings that go one after the other: the phases of a ring come after those of the ring before.

    Without availability first each ring is one wave. A ring without machines has no lanes.
    """
    lanes: list[RegionLane] = []
    for number, machines in enumerate(rings):
        if is_availability_first:
            own = plan_lanes(machines, pairs=pairs)
        else:
            own = [RegionLane(0, (tuple(machine.vm_id for machine in machines),))] if machines else []
        base = 1 + max((lane.phase for lane in lanes), default=-1)
        lanes += [RegionLane(base + lane.phase, lane.waves, number) for lane in own]
    return lanes


def _turns(machines: Sequence[Machine]) -> dict[tuple[str, str], int]:
    """For each zone of each region, when it has its turn."""
    zones: dict[str, list[str]] = defaultdict(list)
    for machine in machines:
        if machine.zone not in zones[machine.region]:
            zones[machine.region].append(machine.zone)
    return {(region, zone): place for region, names in zones.items() for place, zone in enumerate(sorted(names))}


@dataclass(slots=True)
class _Room:
    """How many of a group go in each wave, and from which wave on there may be room."""

    limit: int
    taken: dict[int, int]
    first_free: int = 0


def _batches(machines: Sequence[Machine], sizes: Mapping[tuple[str, str], int]) -> list[list[int]]:
    """Put machines that may go side by side into as few batches as the limits allow."""
    rooms: dict[tuple[str, str], _Room] = {}
    waves: dict[int, list[int]] = defaultdict(list)
    for machine in machines:
        mine = []
        for key in groups_of(machine):
            if key not in rooms:
                rooms[key] = _Room(_limit(key, sizes[key]), {})
            mine.append(rooms[key])
        wave = max((room.first_free for room in mine), default=0)
        while any(room.taken.get(wave, 0) >= room.limit for room in mine):
            wave += 1
        waves[wave].append(machine.vm_id)
        for room in mine:
            room.taken[wave] = room.taken.get(wave, 0) + 1
            while room.taken.get(room.first_free, 0) >= room.limit:
                room.first_free += 1
    return [waves[number] for number in sorted(waves)]


def groups_of(machine: Machine) -> list[tuple[str, str]]:
    """The groups of which only a part may go at once, as (kind, name)."""
    found = [("set", machine.availability_set), ("subscription", machine.subscription), ("group", machine.group)]
    return [(kind, name) for kind, name in found if name]


def _limit(group: tuple[str, str], size: int) -> int:
    """How many machines of a group of this size go at once."""
    kind, _name = group
    return 1 if kind == "set" else max(1, size // GROUP_SHARE)


# --- beside what is going on -------------------------------------------------------------------------------------


def may_start(
    candidates: Iterable[Machine],
    *,
    going: Iterable[Machine],
    sizes: Mapping[tuple[str, str], int],
    pairs: Pairs,
) -> list[int]:
    """Those of the candidates that may start now, in their order, beside the machines that are being changed already.

    `sizes`: how many machines each group of `groups_of` has in the whole inventory. A machine without a zone stands in
    no zone's way.
    """
    now_going = _Going(pairs)
    for machine in going:
        now_going.add(machine)
    found = []
    for machine in candidates:
        if now_going.leaves_room_for(machine, sizes):
            now_going.add(machine)
            found.append(machine.vm_id)
    return found


class _Going:
    """What is going on, counted by what the rules ask for."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self.zones: dict[str, set[str]] = defaultdict(set)  # by region
        self.taken: dict[tuple[str, str], int] = defaultdict(int)  # by group

    def add(self, machine: Machine) -> None:
        self.zones[machine.region].add(machine.zone)
        for key in groups_of(machine):
            self.taken[key] += 1

    def leaves_room_for(self, machine: Machine, sizes: Mapping[tuple[str, str], int]) -> bool:
        if any(partner in self.zones for partner in self.pairs.get(machine.region, ())):
            return False
        if machine.zone and self.zones.get(machine.region, set()) - {"", machine.zone}:
            return False
        return all(self.taken.get(group, 0) < _limit(group, sizes.get(group, 1)) for group in groups_of(machine))


# --- where a rollout is ------------------------------------------------------------------------------------------


class ProgressError(ValueError):
    """What is kept of a rollout cannot be read; `entry` names the value."""

    def __init__(self, entry: str) -> None:
        super().__init__(f"no progress: {entry}")
        self.entry = entry


@dataclass(frozen=True, slots=True)
class LaneState:
    """Where a rollout is in one lane: its waves are `first` to `last`, it is in `wave`, beyond the last it is over.

    `ended_at`: when every machine of `wave` had ended, while the rollout still looks whether they stay well.
    """

    phase: int
    first: int
    last: int
    wave: int
    ended_at: datetime | None = None
    ring: int = 0

    @classmethod
    def from_json(cls, document: object) -> LaneState:
        """The state that `as_json` kept. Raises ProgressError if it is none."""
        if not isinstance(document, Mapping):
            raise ProgressError(str(document))
        state = cls(
            phase=_number(document, "phase"),
            first=_number(document, "first"),
            last=_number(document, "last"),
            wave=_number(document, "wave"),
            ended_at=_instant_or_none(document.get("ended_at")),
            ring=_number({"ring": 0} | dict(document), "ring"),  # lanes of before there were rings have none
        )
        if not 0 <= state.first <= state.wave <= state.last + 1:
            raise ProgressError("wave")
        return state

    @property
    def as_json(self) -> dict[str, Any]:
        """The state as it is kept."""
        return asdict(self) | {"ended_at": self.ended_at.isoformat() if self.ended_at else None}

    @property
    def is_over(self) -> bool:
        """Whether its last wave has ended and stayed well."""
        return self.wave > self.last

    def after(self, open_waves: Collection[int], *, soak: timedelta, now: datetime) -> LaneState:
        """Where it is once it has gone on to its first wave that is not over, or still soaks."""
        state = self
        while not state.is_over and state.wave not in open_waves:
            ended_at = state.ended_at or now
            if now < ended_at + soak:
                return replace(state, ended_at=ended_at)
            state = replace(state, wave=state.wave + 1, ended_at=None)
        return state


def _number(document: Mapping[str, Any], name: str) -> int:
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ProgressError(name)
    return value


def _instant_or_none(value: object) -> datetime | None:
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ProgressError("ended_at")
    return found


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a rollout is: in its lanes, in order; the names of its rings; the KBs that may go on to the next ring.

    `rings` is empty where there are none; the last is "" for machines of no ring. `proven` None: nothing has to be.
    """

    lanes: tuple[LaneState, ...] = ()
    rings: tuple[str, ...] = ()
    proven: tuple[str, ...] | None = None

    @classmethod
    def from_json(cls, lanes: object, rings: object, proven: object) -> Progress:
        """What a rollout's three columns say. Raises ProgressError naming what cannot be read."""
        if not isinstance(lanes, list):
            raise ProgressError("lanes")
        return cls(
            lanes=tuple(map(LaneState.from_json, lanes)),
            rings=_names("rings", rings),
            proven=None if proven is None else _names("proven", proven),
        )

    @property
    def lanes_json(self) -> list[dict[str, Any]]:
        """The lanes as they are kept."""
        return [lane.as_json for lane in self.lanes]

    @property
    def here(self) -> tuple[LaneState, ...]:
        """The lanes that have their turn: those of the first phase that is not over."""
        ahead = [lane for lane in self.lanes if not lane.is_over]
        phase = min((lane.phase for lane in ahead), default=0)
        return tuple(lane for lane in ahead if lane.phase == phase)

    def after(self, open_waves: Collection[int], *, soak: timedelta, now: datetime) -> Progress:
        """Where it is once every lane has gone on as far as it may."""
        return replace(self, lanes=tuple(lane.after(open_waves, soak=soak, now=now) for lane in self.lanes))

    def first_wave_of(self, ring: int) -> int:
        """The first wave of a ring, which has lanes."""
        return min(lane.first for lane in self.lanes if lane.ring == ring)


def _names(entry: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ProgressError(entry)
    return tuple(value)


# --- gates -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WaveResult:
    """What has come of the waves so far."""

    succeeded: int
    failed: int
    unhealthy: int


@dataclass(frozen=True, slots=True)
class Gate:
    """The arithmetic that a rollout stops by: `bad` of `ended` machines, against a number and a share that both may not be exceeded."""

    bad: int
    ended: int
    most_failures: int
    most_percent: int

    @property
    def percent(self) -> float:
        """The share of the bad ones in all that have ended."""
        return 100 * self.bad / max(1, self.ended)

    @property
    def is_share_exceeded(self) -> bool:
        """Whether the share is above its limit."""
        return 100 * self.bad > self.most_percent * max(1, self.ended)

    @property
    def is_shut(self) -> bool:
        """Whether the rollout pauses here."""
        return self.bad > self.most_failures and self.is_share_exceeded


def gate_of(result: WaveResult, *, most_failures: int, most_percent: int) -> Gate:
    """The gate with what has come of the waves so far."""
    return Gate(result.failed + result.unhealthy, result.succeeded + result.failed, most_failures, most_percent)


def must_pause(result: WaveResult, *, most_failures: int, most_percent: int) -> bool:
    """Whether failures and unhealthy machines have used up the budget: more than a number and than a share of all ended."""
    return gate_of(result, most_failures=most_failures, most_percent=most_percent).is_shut
