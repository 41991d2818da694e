"""The fleet day by day: what snapshots kept of each day (`updates.models.FleetSnapshot`), and today as it is now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from django.db.models import Sum

from db.arrays import array
from patching.releases import PACIFIC
from updates.models import FleetSnapshot
from updates.selectors.fleet import FleetCounts, FleetScope, Pending, Place

SHOWN_DAYS = 30


@dataclass(frozen=True, slots=True)
class Standings:
    """How many machines stood where on a day (UTC). Each is in one of the first four.

    `critical` lack Critical or Security updates, `critical_late` of them for more than a week since it was published;
    `other` lack other updates or wait for a reboot; of `no_data` the last week's assessments say nothing.
    """

    day: date
    up_to_date: int = 0
    other: int = 0
    critical: int = 0
    no_data: int = 0
    critical_late: int = 0
    on_track: int = 0

    @property
    def machines(self) -> int:
        """All that there were."""
        return self.up_to_date + self.other + self.critical + self.no_data


KEPT = ("up_to_date", "other", "critical", "no_data", "critical_late", "on_track")


def day_of(moment: datetime) -> date:
    """The day of a moment where releases come from."""
    return moment.astimezone(PACIFIC).date()


def standings_now(counts: FleetCounts, pending: Pending, moments: Mapping[int, datetime], now: datetime) -> Standings:
    """Where these machines stand now. `moments`: what `moments_of_connections` says."""
    found = dict.fromkeys(KEPT, 0)
    days = {pk: day_of(moment) for pk, moment in moments.items()}
    late = {day: pending.late_sets(day) for day in set(days.values())}
    for line in counts.lines:
        standing = line.standing
        found[standing] += line.machines
        day = days.get(line.connection_id)
        if standing == "critical" and day is not None and line.patch_set in late[day]:
            found["critical_late"] += line.machines
    return Standings(now.astimezone(UTC).date(), **{**found, "on_track": counts.on_track})


def load_days(place: Place, scope: FleetScope, today: Standings, *, days: int = SHOWN_DAYS) -> tuple[Standings, ...]:
    """The last days with today, the oldest first; days of which nothing was kept are left out (one query).

    Nothing but today where machines are counted one by one: nothing is kept of them.
    """
    if not place.is_of_groups:
        return (today,)
    rows = FleetSnapshot.objects.filter(day__gt=today.day - timedelta(days=days), day__lt=today.day)
    if place.groups is None:
        rows = rows.filter(resource_group=None)
    else:
        rows = rows.filter(resource_group__any=array(place.groups))
    if scope.connection:
        rows = rows.filter(connection=scope.connection)
    if scope.product_line:
        rows = rows.filter(product_line=scope.product_line)
    sums = {f"{name}_sum": Sum(name) for name in KEPT}
    kept = rows.order_by("day").values_list("day").annotate(**sums)
    return (*(Standings(day, *numbers) for day, *numbers in kept), today)
