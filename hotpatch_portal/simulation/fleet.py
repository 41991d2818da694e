"""The machines of a simulation and what befalls them: all of it follows from the seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from uuid import UUID

from django.contrib.auth.models import User

from connectors.configuration import to_json
from connectors.registry import SIMULATOR
from connectors.simulator import SimulatorConfiguration
from hotpatch_portal.fleet import REGIONS
from patching.releases import release_order, second_tuesday
from patching.terms import HOTPATCH_TYPES, LCU_TYPES, PatchMode, ProductLine, Release, ReleaseType
from updates.models import VmUpdateState
from updates.services.rollouts import ANTI_AFFINITY_TAG
from vms.models import Connection, ResourceGroup, Subscription, VirtualMachine
from vms.services.summaries import refresh_hotpatch_statuses

_SKUS = {
    ProductLine.WS2022: ("2022-datacenter-azure-edition-core", "2022-datacenter-azure-edition"),
    ProductLine.WS2025: ("2025-datacenter-azure-edition-core", "2025-datacenter-azure-edition"),
}
# Where the recorded releases begin later than the simulation: a build from before all of them.
_OLDEST_BUILD = {ProductLine.WS2022: "20348.2159", ProductLine.WS2025: "26100.1742"}
LARGE_SUBSCRIPTIONS = 10
_MISFORTUNES = (
    "fail:any",
    "lies:any",
    "window-exceeded",
    "reboot-hangs",
    "unreachable",
    "throttled",
    "agent-not-ready",
    "lost-answer",
    "silent",
    "hotpatch-extension",
    "baseline-required",
)
MISFORTUNE_SHARE = 0.02  # of the machines after each Patch Tuesday
OFF_SHARE, LONG_OFF_SHARE = 0.05, 0.01  # of the machines: off for some days, off for weeks


@dataclass(frozen=True, slots=True)
class Machine:
    """The static facts of a machine: what it is, where it stands, and where it starts."""

    name: str
    region: str
    time_zone: str
    zone: str
    availability_set: str
    subscription: int
    group: str
    line: ProductLine
    is_hotpatch_on: bool
    patch_mode: PatchMode
    build: str

    @property
    def is_automatic(self) -> bool:
        """Whether the portal patches it by itself."""
        return self.patch_mode is PatchMode.AUTOMATIC_BY_PLATFORM


class Befalling(StrEnum):
    """What may befall a machine."""

    OFF = "off"
    ON = "on"
    MISFORTUNE = "misfortune"
    HEALED = "healed"


@dataclass(frozen=True, order=True, slots=True)
class Event:
    """One thing that befalls one machine (by its place in the fleet)."""

    at: datetime
    machine: int
    what: Befalling
    words: str = ""


def make_machines(count: int, *, seed: int, begins: date, releases: Sequence[Release]) -> list[Machine]:
    """So many machines over four pairs of regions: in zones, in availability sets, and in neither."""
    dice = random.Random(f"machines {seed}")
    builds = {
        (line, is_on): _first_build(releases, line, begins, is_on) for line in ProductLine for is_on in (True, False)
    }
    places: dict[str, Iterator[tuple[str, str]]] = {name: _places(name, dice) for name, _zone in REGIONS}
    groups: dict[str, Iterator[str]] = {name: _groups(name, dice) for name, _zone in REGIONS}
    small: dict[str, Iterator[int]] = {name: _subscriptions(n, dice) for n, (name, _zone) in enumerate(REGIONS)}
    found = []
    for number in range(count):
        region, clock = REGIONS[number % len(REGIONS)]
        zone, availability_set = next(places[region])
        line = ProductLine.WS2022 if dice.random() < 0.7 else ProductLine.WS2025
        kind = dice.random()
        is_hotpatch_on = kind < 0.85
        mode = dice.random()
        found.append(
            Machine(
                name=f"sim-{number:06}",
                region=region,
                time_zone="UTC" if dice.random() < 0.03 else clock,  # some keep a clock of their own
                zone=zone,
                availability_set=availability_set,
                subscription=next(small[region]),
                group=next(groups[region]),
                line=line,
                is_hotpatch_on=is_hotpatch_on,
                patch_mode=PatchMode.MANUAL if mode < 0.03 else PatchMode.AUTOMATIC_BY_PLATFORM,
                build=builds[line, is_hotpatch_on and kind >= 0.05],  # some begin off the train
            )
        )
    return found


def _first_build(releases: Sequence[Release], line: ProductLine, begins: date, is_on: bool) -> str:
    """The newest build before the first day: of the train where the line had a baseline by then, else of an LCU."""
    out = sorted(
        (r for r in releases if r.product_line is line and r.released_on < begins and r.build and r.kb_number),
        key=release_order,
    )
    train = [r for r in out if r.type is ReleaseType.BASELINE or r.type in HOTPATCH_TYPES]
    full = [r for r in out if r.type is ReleaseType.BASELINE or r.type in LCU_TYPES]
    if is_on and any(r.type is ReleaseType.BASELINE for r in train):
        return train[-1].build
    return full[-1].build if full else _OLDEST_BUILD[line]


def _places(region: str, dice: random.Random) -> Iterator[tuple[str, str]]:
    """Zone and availability set of the machines of a region, one after the other; a set is filled before the next."""
    number = 0
    while True:
        kind = dice.random()
        if kind < 0.6:
            yield dice.choice("123"), ""
        elif kind < 0.75:
            yield "", ""
        else:
            number += 1
            for _ in range(dice.choice((2, 3, 3, 4, 5, 6, 9, 12))):
                yield "", f"set-{region}-{number}"


def _groups(region: str, dice: random.Random) -> Iterator[str]:
    """The anti-affinity group of the machines of a region; most have none."""
    number = 0
    while True:
        if dice.random() < 0.03:
            number += 1
            for _ in range(dice.choice((2, 3, 4, 5))):
                yield f"group-{region}-{number}"
        else:
            yield ""


def _subscriptions(place: int, dice: random.Random) -> Iterator[int]:
    """The subscription of the machines of a region: large ones over all regions, small ones of a single team."""
    number = LARGE_SUBSCRIPTIONS + place
    while True:
        if dice.random() < 0.005:
            for _ in range(dice.randint(2, 8)):
                yield number
            number += len(REGIONS)
        else:
            yield dice.randrange(LARGE_SUBSCRIPTIONS)


# --- what befalls them -------------------------------------------------------------------------------------------


def make_events(machines: Sequence[Machine], *, seed: int, begins: datetime, ends: datetime) -> list[Event]:
    """Machines that are off for days or weeks, and misfortunes after each Patch Tuesday that pass after some days."""
    dice = random.Random(f"events {seed}")
    events: list[Event] = []
    days = (ends - begins).days

    def moment(within_days: float) -> datetime:
        return begins + timedelta(minutes=dice.randrange(max(1, int(within_days * 1_440))))

    for number in range(len(machines)):
        kind = dice.random()
        if kind >= OFF_SHARE + LONG_OFF_SHARE:
            continue
        is_long = kind < LONG_OFF_SHARE
        place = moment(60)
        while place < ends:
            length = timedelta(days=dice.uniform(35, 70) if is_long else dice.uniform(1, 9))
            events += [Event(place, number, Befalling.OFF), Event(place + length, number, Befalling.ON)]
            place += length + timedelta(days=dice.uniform(20, 90))
    month = begins.date().replace(day=1)
    while datetime.combine(month, time(), UTC) < ends:
        patch_tuesday = datetime.combine(second_tuesday(month), time(18), UTC)
        for number in range(len(machines)):
            if dice.random() < MISFORTUNE_SHARE:
                at = patch_tuesday + timedelta(days=dice.uniform(0, 4))
                until = at + timedelta(days=dice.uniform(1, 3))
                events.append(Event(at, number, Befalling.MISFORTUNE, dice.choice(_MISFORTUNES)))
                events.append(Event(until, number, Befalling.HEALED))
        month = (month + timedelta(days=32)).replace(day=1)
    assert days > 0
    return sorted(events)


# --- in the database ---------------------------------------------------------------------------------------------


def record(machines: Sequence[Machine], *, seed: int, tell: Callable[[str], None]) -> list[int]:
    """Put the machines into the inventory of an empty database; their ids, in order."""
    row = Connection.objects.create(
        name="Simulation",
        kind=SIMULATOR,
        platform="azure",
        config=to_json(SimulatorConfiguration(seed=seed, clock_factor=1.0)),
        max_in_flight=100_000,
    )
    numbers = sorted({machine.subscription for machine in machines})
    groups = {
        number: ResourceGroup.objects.create(
            subscription=Subscription.objects.create(subscription_id=UUID(int=number + 1), name=f"Team {number + 1}"),
            name=f"rg-{number + 1}",
        )
        for number in numbers
    }
    vms = VirtualMachine.objects.bulk_create(
        [_row(machine, row, groups[machine.subscription]) for machine in machines], batch_size=1_000
    )
    VmUpdateState.objects.bulk_create(
        [VmUpdateState(vm=vm, os_build=m.build) for vm, m in zip(vms, machines, strict=True)], batch_size=5_000
    )
    refresh_hotpatch_statuses(vm_ids=[vm.pk for vm in vms])
    tell(f"{len(vms)} machines in {len(groups)} subscriptions")
    return [vm.pk for vm in vms]


def _row(machine: Machine, connection: Connection, group: ResourceGroup) -> VirtualMachine:
    is_core = machine.is_hotpatch_on or machine.line is ProductLine.WS2025
    return VirtualMachine(
        arm_id=f"/simulation/{machine.name}",
        name=machine.name,
        connection=connection,
        resource_group=group,
        location=machine.region,
        time_zone=machine.time_zone,
        zones=[machine.zone] if machine.zone else [],
        availability_set=machine.availability_set,
        tags={ANTI_AFFINITY_TAG: machine.group} if machine.group else {},
        provisioning_state="Succeeded",
        power_state="running",
        image_publisher="MicrosoftWindowsServer",
        image_offer="WindowsServer",
        image_sku=_SKUS[machine.line][not is_core],
        image_version="latest",
        patch_mode=machine.patch_mode.value,
        assessment_mode="AutomaticByPlatform",
        enable_hotpatching=machine.is_hotpatch_on,
    )


def make_person() -> User:
    """Who looks at paused rollouts in the morning."""
    return User.objects.create_user("simulation", is_superuser=True)
