"""The clocks of machines, for windows that open on each machine's own: places are few, so machines are asked for by place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import or_
from zoneinfo import ZoneInfo

from django.core.exceptions import EmptyResultSet
from django.db.models import BooleanField, Case, Q, Value, When

from db.bounded import fetch_bounded
from updates.models import MaintenanceConfiguration
from updates.selectors.automation import means
from vms.models import VirtualMachineQuerySet
from vms.regions import clock_of

Place = tuple[str, str]  # the time zone that a machine says, and its region: together they say its clock


def places_by_clock(vms: VirtualMachineQuerySet) -> dict[str, tuple[Place, ...]]:
    """The places of these machines by the names of their clocks, without those that nobody knows (one query)."""
    found = defaultdict[str, list[Place]](list)
    for place in vms.order_by().values_list("time_zone", "location").distinct():
        if clock := clock_of(*place):
            found[clock.key].append(place)
    return {key: tuple(places) for key, places in found.items()}


def vms_at(vms: VirtualMachineQuerySet, places: Iterable[Place]) -> VirtualMachineQuerySet:
    """Those of these machines that are at one of these places."""
    here = [Q(time_zone=time_zone, location=location) for time_zone, location in places]
    return vms.filter(reduce(or_, here)) if here else vms.none()


def clocks_in(vms: VirtualMachineQuerySet) -> tuple[ZoneInfo, ...]:
    """The clocks of these machines, as far as they are known (one query). Raises `ListTooSlowError`."""
    try:
        rows = fetch_bounded(*vms.order_by().values_list("time_zone", "location").distinct().query.sql_with_params())
    except EmptyResultSet:
        return ()
    return _known(rows)


def clocks_meant(
    rows: Sequence[MaintenanceConfiguration], vms: VirtualMachineQuerySet
) -> dict[int, tuple[ZoneInfo, ...]]:
    """By configuration: the clocks of those of these machines that it means, where it opens on each machine's own.

    One query for all of them; none where no configuration does. Raises `ListTooSlowError`.
    """
    own = [row for row in rows if row.is_own_clock]
    if not own:
        return {}
    flags = {
        f"means_{row.pk}": Case(When(means(row), then=Value(True)), default=Value(False), output_field=BooleanField())
        for row in own
    }
    asked = vms.order_by().annotate(**flags).values_list("time_zone", "location", *flags).distinct()
    try:
        found = fetch_bounded(*asked.query.sql_with_params())
    except EmptyResultSet:
        found = []
    return {
        row.pk: _known((time_zone, location) for time_zone, location, *flags_of in found if flags_of[number])
        for number, row in enumerate(own)
    }


def _known(places: Iterable[tuple[str, ...]]) -> tuple[ZoneInfo, ...]:
    clocks = {clock.key: clock for time_zone, location in places if (clock := clock_of(time_zone, location))}
    return tuple(clocks[key] for key in sorted(clocks))
