"""Which of the coming months reboot how many machines: the forecast of each VM (patching.forecast), summed over the fleet.

Machines of the same words that lack the same are judged once. What only a machine's own page knows (a build above every
recorded release on a machine that is off the track) is not told here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple

from patching import terms
from patching.forecast import Outlook, forecast_on
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
from updates.selectors.fleet import FleetCounts, Line, Pending

MONTHS = 6


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

    `others`: machines that live in another month than most of the fleet, on connections whose catalogue is of another day;
    they are left out. `next_baseline`: the Patch Tuesday of the next planned baseline among the months.
    """

    months: tuple[MonthAhead, ...]
    others: int
    next_baseline: date | None


class _Place(NamedTuple):
    """What a forecast rests on; equal machines have equal ones."""

    moment: datetime
    line: str
    track: str
    is_reboot_pending: bool
    patcher: str
    reboot_setting: str
    patch_set: int


def forecast_fleet(
    counts: FleetCounts, pending: Pending, moments: Mapping[int, datetime], *, now: datetime, months: int = MONTHS
) -> FleetForecast:
    """Forecast the reboots of these machines (one query). `moments`: what `moments_of_connections` says."""
    releases = Release.objects.order_by("pk").facts()
    machines: Counter[_Place] = Counter()
    by_month: Counter[date] = Counter()
    for line in counts.lines:
        place = _place(line, moments.get(line.connection_id, now))
        machines[place] += line.machines
        by_month[_month(place.moment)] += line.machines
    first = by_month.most_common(1)[0][0] if by_month else _month(now)
    judge = _Judge(releases, pending, months)
    found: dict[date, Counter[Outlook]] = defaultdict(Counter)
    latest = now if not moments else max((m for m in moments.values() if _month(m) == first), default=now)
    for place, count in machines.items():
        if _month(place.moment) == first:
            for month, outlook in judge.outlooks(place):
                found[month][outlook] += count
    ahead = tuple(_ahead(month, found[month], latest) for month in _months(first, months))
    return FleetForecast(
        months=ahead,
        others=sum(count for month, count in by_month.items() if month != first),
        next_baseline=next((month.patch_tuesday for month in ahead if month.is_baseline and not month.is_past), None),
    )


def _place(line: Line, moment: datetime) -> _Place:
    return _Place(
        moment,
        line.product_line,
        line.hotpatch_track,
        line.is_reboot_pending,
        line.patcher,
        line.reboot_setting,
        line.patch_set,
    )


def _month(moment: datetime) -> date:
    return moment.astimezone(PACIFIC).date().replace(day=1)


def _months(first: date, count: int) -> list[date]:
    found = [first]
    while len(found) < count:
        found.append(next_month(found[-1]))
    return found


def _ahead(month: date, outlooks: Counter[Outlook], moment: datetime) -> MonthAhead:
    return MonthAhead(
        month=month,
        patch_tuesday=second_tuesday(month),
        is_baseline=month.month in BASELINE_MONTHS and any(_has_train(line, month) for line in ProductLine),
        is_past=patch_tuesday(month) <= moment,
        will=outlooks[Outlook.WILL],
        may=outlooks[Outlook.MAY],
        will_not=outlooks[Outlook.WILL_NOT],
        not_known=outlooks[Outlook.NOT_KNOWN],
    )


def _has_train(line: ProductLine, month: date) -> bool:
    end = END_OF_HOTPATCHING.get(line)
    return end is None or month <= end


class _Judge:
    """Asks the rules once for machines that are equal in all that a forecast rests on."""

    def __init__(self, releases: list[terms.Release], pending: Pending, months: int) -> None:
        self.releases, self.offers, self.months = releases, pending.offers, months
        self._timetables: dict[tuple[str, datetime], Timetable] = {}

    def outlooks(self, place: _Place) -> list[tuple[date, Outlook]]:
        """Each month with its outlook."""
        line = ProductLine(place.line) if place.line else None
        known = self._timetable(line, place.moment) if line else None
        missing = known.missing_after_baseline if known else ()
        verdict = TrackVerdict(HotpatchTrack(place.track), missing_months=missing)
        offers = self.offers.get(place.patch_set, ())
        forecast = forecast_on(
            known,
            verdict,
            [patch for patch in offers if patch.product_line in {None, line}],
            is_reboot_pending=place.is_reboot_pending,
            as_of=place.moment,
            months=self.months,
            reboot_setting=RebootSetting(place.reboot_setting),
            patcher=Patcher(place.patcher),
            guard=guard_on(verdict, known) if known else OFF_GUARD,
        )
        return [(month.month, month.outlook) for month in forecast]

    def _timetable(self, line: ProductLine, moment: datetime) -> Timetable:
        if (found := self._timetables.get((line, moment))) is None:
            found = self._timetables[line, moment] = timetable(self.releases, line, moment)
        return found
