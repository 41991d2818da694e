"""Which of the coming months reboot how many machines, and which: the forecast of each VM (patching.forecast), over the fleet.

Machines that are alike in what decides it (`vms.models.ALIKE`) are judged once; the numbers and the list's filter ask the same
judge, so that a number is that of the machines it leads to at any moment. What only a machine's own page knows (a build above
every recorded release on a machine that is off the track) is not told here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple

from django.utils import timezone

from db.arrays import array
from patching.forecast import Hindrance, MonthForecast, NextReboot, Outlook, forecast_on, next_reboot
from patching.orchestrator import Patcher
from patching.releases import (
    BASELINE_MONTHS,
    END_OF_HOTPATCHING,
    PACIFIC,
    Timetable,
    next_month,
    patch_tuesday,
    second_tuesday,
    timetable,
)
from patching.selection import OFF_GUARD, guard_on
from patching.terms import HotpatchTrack, ProductLine, RebootSetting
from patching.track import TrackVerdict
from updates.models import Release
from updates.selectors.fleet import FleetCounts, Pending, load_pending_of, moments_of_connections
from vms.filter_text import NEXT_PATCH_TUESDAY
from vms.models import ALIKE, FleetCount, VirtualMachineQuerySet, WordCount, alike_hash

MONTHS = 6
MAX_AHEAD = 36  # months for which a machine is judged, from its own present one on


@dataclass(frozen=True, slots=True)
class MonthAhead:
    """A coming month: its Patch Tuesday, and how many machines will, may or will not reboot, or nobody knows.

    `is_baseline`: the calendar plans a baseline for it; `is_past`: its Patch Tuesday has been.
    """

    month: date
    patch_tuesday: date
    is_baseline: bool
    is_past: bool
    will: int
    may: int
    will_not: int
    not_known: int


@dataclass(frozen=True, slots=True)
class FleetForecast:
    """The months ahead, the present one first.

    `others`: machines that live in another month than most of the fleet, on connections whose catalogue is of another day:
    they count by their own catalogue, from their own month on. `next_baseline`: the Patch Tuesday of the next planned
    baseline among the months.
    """

    months: tuple[MonthAhead, ...]
    others: int
    next_baseline: date | None


class Alike(NamedTuple):
    """What a forecast rests on beside clock and catalogue, in the order of `ALIKE`; equal machines have equal ones."""

    connection_id: int
    product_line: str
    hotpatch_track: str
    is_reboot_pending: bool
    patcher: str
    reboot_setting: str
    patch_set: int


Restarts = Counter[Outlook | Hindrance]


def forecast_fleet(
    counts: FleetCounts, pending: Pending, moments: Mapping[int, datetime], *, now: datetime, months: int = MONTHS
) -> FleetForecast:
    """Forecast the reboots of these machines (one query). `moments`: what `moments_of_connections` says."""
    by_month: Counter[date] = Counter()
    for line in counts.lines:
        by_month[_month(moments.get(line.connection_id, now))] += line.machines
    first = by_month.most_common(1)[0][0] if by_month else _month(now)
    shown = _months(first, months)
    found = count_restarts(counts, pending, moments, now=now, until=shown[-1])
    latest = now if not moments else max((m for m in moments.values() if _month(m) == first), default=now)
    ahead = tuple(_ahead(month, found.get(month, Restarts()), latest) for month in shown)
    return FleetForecast(
        months=ahead,
        others=sum(count for month, count in by_month.items() if month != first),
        next_baseline=next((month.patch_tuesday for month in ahead if month.is_baseline and not month.is_past), None),
    )


def count_restarts(
    counts: FleetCounts, pending: Pending, moments: Mapping[int, datetime], *, now: datetime, until: date
) -> dict[date, Restarts]:
    """By month, how many of these machines will or may reboot, what hinders them, or of how many nobody knows (one query).

    A machine counts from its own present month on, which is that of its connection's catalogue.
    """
    machines: Counter[Alike] = Counter()
    for line in counts.lines:
        machines[Alike(*(getattr(line, name) for name in ALIKE))] += line.machines
    judge = Judge(pending, moments, now)
    found: defaultdict[date, Restarts] = defaultdict(Counter)
    for alike, count in machines.items():
        for month in judge.until(alike, until):
            found[month.month][month.hindrance or month.outlook] += count
    return dict(found)


# --- which machines these are ------------------------------------------------------------------------------------


def every_alike() -> dict[int, Alike]:
    """What machines that are not gone have alike, by its number (one query of counters)."""
    columns = [name.removesuffix("_id") for name in ALIKE]
    lines = [
        counter.annotate(alike=alike_hash()).values_list("alike", *columns)
        for counter in (FleetCount.objects.order_by(), WordCount.objects.filter(is_total=False).order_by())
    ]
    return {row[0]: Alike(*row[1:]) for row in lines[0].union(lines[1])}


def judge_now(now: datetime, every: Iterable[Alike]) -> Judge:
    """A judge of all that is alike (three queries)."""
    return Judge(load_pending_of(Counter(alike.patch_set for alike in every)), moments_of_connections(now), now)


def vms_rebooting(vms: VirtualMachineQuerySet, asked: str) -> VirtualMachineQuerySet:
    """Those of these machines that reboot in a month: `2027-01` those that will, `2027-01:may` those that may.

    `2027-01:unknown` are those of which it is not known, `2027-01:any` all these together; `next` in place of a month is that
    of the next Patch Tuesday, by each machine's own catalogue. Machines that are gone reboot never. Four queries now, of
    counters; then an index.
    """
    month, _sign, how = asked.partition(":")
    outlooks = _HOW[how]
    now, every = timezone.now(), every_alike()
    judge = judge_now(now, every.values())
    meant = None if month == NEXT_PATCH_TUESDAY else date.fromisoformat(f"{month}-01")
    found = [
        number
        for number, alike in every.items()
        if judge.outlook(alike, meant or judge.next_tuesday(alike)) in outlooks
    ]
    return vms.filter(gone_at__isnull=True, alike__any=array(sorted(found)))


def reboots_in(month: date, *outlooks: Outlook) -> str:
    """The value of the list's filter `reboots` that means the machines of a number; without outlooks all but those that will not."""
    asked = frozenset(outlooks) or _HOW["any"]
    how = next(how for how, meant in _HOW.items() if meant == asked)
    return f"{month:%Y-%m}:{how}".removesuffix(":")


_HOW = {
    "": frozenset({Outlook.WILL}),
    "may": frozenset({Outlook.MAY}),
    "unknown": frozenset({Outlook.NOT_KNOWN}),
    "any": frozenset({Outlook.WILL, Outlook.MAY, Outlook.NOT_KNOWN}),
}


def _month(moment: datetime) -> date:
    return moment.astimezone(PACIFIC).date().replace(day=1)


def _months(first: date, count: int) -> list[date]:
    found = [first]
    while len(found) < count:
        found.append(next_month(found[-1]))
    return found


def _ahead(month: date, restarts: Restarts, moment: datetime) -> MonthAhead:
    return MonthAhead(
        month=month,
        patch_tuesday=second_tuesday(month),
        is_baseline=month.month in BASELINE_MONTHS and any(_has_train(line, month) for line in ProductLine),
        is_past=patch_tuesday(month) <= moment,
        will=restarts[Outlook.WILL],
        may=restarts[Outlook.MAY],
        will_not=restarts[Outlook.WILL_NOT] + sum(restarts[hindrance] for hindrance in Hindrance),
        not_known=restarts[Outlook.NOT_KNOWN],
    )


def _has_train(line: ProductLine, month: date) -> bool:
    end = END_OF_HOTPATCHING.get(line)
    return end is None or month <= end


# --- the judge ---------------------------------------------------------------------------------------------------


class Judge:
    """Asks the rules once for machines that are alike in all that a forecast rests on (one query)."""

    def __init__(self, pending: Pending, moments: Mapping[int, datetime], now: datetime) -> None:
        self.offers, self.moments, self.now = pending.offers, moments, now
        self.releases = Release.objects.order_by("pk").facts()
        self._timetables: dict[tuple[str, datetime], Timetable] = {}
        self._forecasts: dict[tuple[datetime, Alike], tuple[MonthForecast, ...]] = {}

    def until(self, alike: Alike, last: date) -> tuple[MonthForecast, ...]:
        """The forecast from the machines' own month to this one."""
        first = _month(self._moment(alike))
        months = (last.year - first.year) * 12 + last.month - first.month + 1
        return self._forecast(alike, months) if 1 <= months <= MAX_AHEAD else ()

    def outlook(self, alike: Alike, month: date) -> Outlook | None:
        """What is foreseen of a month; None where it is over for the machines, or beyond what is judged."""
        told = self.until(alike, month)
        return told[-1].outlook if told else None

    def next_reboot(self, alike: Alike) -> NextReboot:
        """The next reboot that is foreseen within a year."""
        return next_reboot(self._forecast(alike, 12))

    def next_tuesday(self, alike: Alike) -> date:
        """The month of the next Patch Tuesday, by the machines' own catalogue."""
        moment = self._moment(alike)
        month = _month(moment)
        return month if moment < patch_tuesday(month) else next_month(month)

    def _moment(self, alike: Alike) -> datetime:
        return self.moments.get(alike.connection_id, self.now)

    def _forecast(self, alike: Alike, months: int) -> tuple[MonthForecast, ...]:
        # Machines behind connections of one catalogue are alike here, too.
        moment = self._moment(alike)
        key = moment, alike._replace(connection_id=0)
        if len(found := self._forecasts.get(key, ())) < months:
            found = self._forecasts[key] = self._ask(alike, moment, months)
        return found[:months]

    def _ask(self, alike: Alike, moment: datetime, months: int) -> tuple[MonthForecast, ...]:
        line = ProductLine(alike.product_line) if alike.product_line else None
        known = self._timetable(line, moment) if line else None
        missing = known.missing_after_baseline if known else ()
        verdict = TrackVerdict(HotpatchTrack(alike.hotpatch_track), missing_months=missing)
        offers = self.offers.get(alike.patch_set, ())
        return forecast_on(
            known,
            verdict,
            [patch for patch in offers if patch.product_line in {None, line}],
            is_reboot_pending=alike.is_reboot_pending,
            as_of=moment,
            months=months,
            reboot_setting=RebootSetting(alike.reboot_setting),
            patcher=Patcher(alike.patcher),
            guard=guard_on(verdict, known) if known else OFF_GUARD,
        )

    def _timetable(self, line: ProductLine, moment: datetime) -> Timetable:
        if (found := self._timetables.get((line, moment))) is None:
            found = self._timetables[line, moment] = timetable(self.releases, line, moment)
        return found
