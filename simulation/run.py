"""Driving the portal through the simulation's time: from one moment at which something is due to the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import cast

from django.db import connection
from django.db.models import Min, OuterRef

from connectors.catalogue import Catalogue
from connectors.configuration import read
from connectors.protocol import Connector
from connectors.simulator import MISFORTUNE_TAG, MemoryLedger, Simulator, SimulatorConfiguration, make
from patching.terms import OperationKind
from simulation.clock import Clock, simulated_clock
from simulation.days import Key, Midnight, Standing
from simulation.fleet import Befalling, Event, Machine, make_events, make_machines, make_person, record
from updates.engine.sweep import sweep
from updates.models import FleetSnapshot, Operation, Patch, Release, Rollout, RolloutState
from updates.selectors.catalogue import LoadedCatalogue, load_catalogue
from updates.services.automation import tick
from updates.services.bulk import prune_assessments, prune_operations
from updates.services.rollouts import advance_rollouts, resume_rollout
from vms.models import Connection as ConnectionRow
from vms.models import ResourceGroup, VirtualMachine


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the clock stops, counted from midnight (UTC): while installations run, while a rollout waits, and else.

    It also stops when assessments end. It stops at every midnight, whatever the pace.
    """

    at_work: timedelta = timedelta(minutes=15)
    waiting: timedelta = timedelta(hours=1)
    quiet: timedelta = timedelta(hours=3)


USUAL = Pace()
SHORTEST_STEP = timedelta(minutes=4)
RESUMES_AT = 9  # o'clock, UTC
KEEP_DAYS = 45
PRUNES_ON = frozenset({1, 8, 15, 22})  # of the month: what beat does every day


@dataclass(slots=True)
class Power:
    """When a machine was off: from, and to (None: until the end)."""

    machine: int
    off_at: datetime
    on_at: datetime | None = None


@dataclass(slots=True)
class Outcome:
    """What a simulation leaves behind. Only what the machines went through and static facts are judged."""

    machines: Sequence[Machine]
    places: dict[int, int]  # the place in the fleet by the id of the VM
    begins: datetime
    ends: datetime
    ledger: MemoryLedger
    midnights: list[Midnight] = field(default_factory=list)  # when the snapshot of each day was due
    snapshots: dict[Key, Standing] = field(default_factory=dict)  # what the portal kept
    power: list[Power] = field(default_factory=list)
    misfortunes: int = 0
    rollouts: int = 0
    pauses: list[tuple[datetime, str]] = field(default_factory=list)  # when a person resumed it, and its name
    assessments: int = 0
    installations: int = 0
    stops: int = 0


def first_days(begins: date, months: int) -> tuple[datetime, datetime]:
    """The first moment of the simulation, and the first after it."""
    number = begins.year * 12 + begins.month - 1 + months
    ends = date(number // 12, number % 12 + 1, min(begins.day, 28))
    return datetime.combine(begins, time(), UTC), datetime.combine(ends, time(), UTC)


def simulate(
    *,
    vms: int,
    begins: datetime,
    ends: datetime,
    seed: int,
    tell: Callable[[str], None],
    record_until: date | None = None,
    pace: Pace = USUAL,
) -> Outcome:
    """Run it from one midnight (UTC) to another in the configured database, which must hold the catalogue and no machines.

    `record_until`: the portal's catalogue forgets what came after this day; the machines are offered all of it.
    Raises ValueError if there are machines.
    """
    if VirtualMachine.objects.exists():
        raise ValueError("A simulation needs a database without machines.")
    with simulated_clock(begins) as clock:
        world = load_catalogue().facts
        if record_until is not None:
            _forget_after(record_until)
        machines = make_machines(vms, seed=seed, begins=begins.date(), releases=world.releases)
        ids = record(machines, seed=seed, tell=tell)
        outcome = Outcome(
            machines=machines,
            places={pk: number for number, pk in enumerate(ids)},
            begins=begins,
            ends=ends,
            ledger=MemoryLedger(),
        )
        events = make_events(machines, seed=seed, begins=begins, ends=ends)
        _Run(clock, outcome, ids, events, world, tell, pace).go()
        return outcome


def _forget_after(day: date) -> None:
    """Let the portal's catalogue end here: its releases, and their patches."""
    Release.objects.filter(released_on__gt=day).delete()
    Patch.objects.filter(published_on__gt=day).delete()


def _after(now: datetime, step: timedelta) -> datetime:
    """The next moment of the day that is so many steps after midnight."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return min(midnight + ((now - midnight) // step + 1) * step, midnight + timedelta(days=1))


def kept_days() -> dict[Key, Standing]:
    """What the portal has kept of each day, by subscription (each has one resource group; empty: the whole fleet)."""
    columns = [column.name for column in fields(Standing)]
    groups = ResourceGroup.objects.filter(pk=OuterRef("resource_group"))
    rows = FleetSnapshot.objects.annotate(subscription=groups.values("subscription__subscription_id"))
    return {
        (day, "" if subscription is None else str(subscription.int - 1), line): Standing(*numbers)
        for day, subscription, line, *numbers in rows.values_list("day", "subscription", "product_line", *columns)
    }


class _Run:
    def __init__(
        self,
        clock: Clock,
        outcome: Outcome,
        ids: Sequence[int],
        events: Sequence[Event],
        world: Catalogue,
        tell: Callable[[str], None],
        pace: Pace,
    ) -> None:
        self._clock, self._outcome, self._ids, self._tell, self._pace = clock, outcome, ids, tell, pace
        self._morning = datetime.combine(outcome.begins.date(), time(RESUMES_AT), UTC)  # the next one
        self._events = list(reversed(events))  # the next one is the last
        self._world = world
        self._person = make_person()
        self._simulator: Simulator | None = None
        self._off: dict[int, Power] = {}

    def go(self) -> None:
        now = last_tick = self._outcome.begins
        while now < self._outcome.ends:
            self._clock.set(now)
            self._outcome.stops += 1
            self._sweep()
            self._befall(now)
            if now.minute % 5 == 0 and now.second == 0:
                self._note_day(now)
                tick(now=now, minutes=max(1, int((now - last_tick) / timedelta(minutes=1))))
                last_tick = now
                if now >= self._morning:
                    self._every_day(now)
                    self._morning += timedelta(days=1)
                self._sweep()
            while advance_rollouts(now=now):
                self._sweep()
            now = self._next(now)
        self._outcome.power.extend(self._off.values())
        self._outcome.rollouts = Rollout.objects.count()
        self._outcome.snapshots = kept_days()
        starts = [line[2] for line in self._outcome.ledger.lines]
        self._outcome.assessments = starts.count(OperationKind.ASSESSMENT)
        self._outcome.installations = starts.count(OperationKind.INSTALLATION)

    def _note_day(self, now: datetime) -> None:
        """The first tick of a day takes its snapshot: what the machines have said until here is what it knows."""
        midnights = self._outcome.midnights
        if not midnights or midnights[-1].at.date() < now.date():
            midnights.append(Midnight(now, len(self._outcome.ledger.answers)))

    def _next(self, now: datetime) -> datetime:
        """When the clock stops next."""
        operations = Operation.objects.open()
        if operations.exclude(kind=OperationKind.ASSESSMENT.value).exists():
            return _after(now, self._pace.at_work)
        is_waiting = Rollout.objects.filter(status=RolloutState.RUNNING).exists()
        latest = _after(now, self._pace.waiting if is_waiting else self._pace.quiet)
        due: datetime | None = operations.aggregate(due=Min("next_step_at"))["due"]
        return latest if due is None else min(latest, max(due, now + SHORTEST_STEP))

    def _sweep(self) -> None:
        sweep(connector_factory=self._connector, seconds=math.inf)

    def _connector(self, row: ConnectionRow, catalogue: LoadedCatalogue) -> Connector:
        """The simulator of the connection; kept, since it remembers what it has worked out."""
        if self._simulator is None:
            made = make(
                read(SimulatorConfiguration, row.config),
                catalogue.facts,
                ledger=self._outcome.ledger,
                world=self._world,
            )
            self._simulator = replace(made, is_patient=True, assessment_seconds=0.0)
        return cast("Connector", self._simulator)  # a frozen connector: nobody sets its capabilities

    def _every_day(self, now: datetime) -> None:
        self._resume(now)
        if now.day in PRUNES_ON:
            prune_operations(keep_days=KEEP_DAYS)
            for hour in range(24):
                prune_assessments(slice_of_day=hour)
            self._tell(f"{now:%Y-%m-%d}: {len(self._outcome.ledger.courses)} installations so far")

    def _resume(self, now: datetime) -> None:
        """A person looks at what has paused, and lets it go on."""
        paused = Rollout.objects.filter(status=RolloutState.PAUSED).order_by("created_at", "name", "pk")
        for pk, name in list(paused.values_list("pk", "name")):
            if resume_rollout(rollout_id=pk, now=now, resumed_by=self._person):
                self._outcome.pauses.append((now, name))

    # --- what befalls the machines

    def _befall(self, now: datetime) -> None:
        """Let happen what is due; a machine at work has its turn when it is done."""
        due: list[Event] = []
        while self._events and self._events[-1].at <= now:
            due.append(self._events.pop())
        if not due:
            return
        ids = {event.machine: self._ids[event.machine] for event in due}
        working = set(Operation.objects.in_flight().filter(vm_id__in=ids.values()).values_list("vm_id", flat=True))
        late = [event for event in due if ids[event.machine] in working]
        self._events.extend(reversed(late))
        happening = [event for event in due if ids[event.machine] not in working]
        for what in Befalling:
            self._happen(what, [event for event in happening if event.what is what], now)

    def _happen(self, what: Befalling, events: Sequence[Event], now: datetime) -> None:
        if not events:
            return
        vms = VirtualMachine.objects.filter(pk__in=[self._ids[event.machine] for event in events])
        if what in {Befalling.OFF, Befalling.ON}:
            vms.update(power_state="running" if what is Befalling.ON else "deallocated")
            for event in events:
                self._switch(event.machine, now, is_on=what is Befalling.ON)
            return
        words = {self._ids[event.machine]: event.words for event in events}
        self._outcome.misfortunes += len(events) if what is Befalling.MISFORTUNE else 0
        with connection.cursor() as cursor:
            cursor.execute(
                """
                UPDATE vms_virtualmachine v
                SET tags = CASE WHEN r.words = '' THEN v.tags - %(tag)s::text
                           ELSE v.tags || jsonb_build_object(%(tag)s::text, r.words) END
                FROM unnest(%(ids)s::bigint[], %(words)s::text[]) AS r(id, words) WHERE v.id = r.id
                """,
                {"tag": MISFORTUNE_TAG, "ids": list(words), "words": list(words.values())},
            )

    def _switch(self, machine: int, now: datetime, *, is_on: bool) -> None:
        if not is_on:
            self._off[machine] = Power(machine, now)
        elif (power := self._off.pop(machine, None)) is not None:
            power.on_at = now
            self._outcome.power.append(power)
