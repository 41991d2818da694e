"""What a freeze would hold, before it is made: machines, what waits in the queue, and windows of the next weeks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, takewhile

from django.db.models import Exists, OuterRef

from patching.freezes import NEVER_HELD
from patching.recurrence import Window
from patching.terms import OperationState
from updates.models import Freeze, MaintenanceConfiguration, Operation
from updates.selectors.freezes import meant_by
from updates.selectors.maintenance import open_days_of
from updates.selectors.own_clocks import clocks_meant
from updates.selectors.window_dates import configurations_of
from vms.models import VirtualMachine
from vms.regions import every_clock
from vms.selectors import ListTooSlowError

MOST_WINDOWS = 20


@dataclass(frozen=True, slots=True)
class Effects:
    """How many machines a freeze means, what is queued on them, and the windows that it would touch if it means theirs."""

    machines: int
    queued: int
    windows: tuple[tuple[MaintenanceConfiguration, Window], ...]


def effects_of(freeze: Freeze, *, now: datetime) -> Effects:
    """What this freeze, kept or not, would hold as things are now."""
    means = meant_by(freeze)
    vms = VirtualMachine.objects.filter(gone_at=None).order_by()
    vms = vms if means is None else vms.filter(means)
    queued = Operation.objects.filter(state=OperationState.QUEUED.value).exclude(
        kind__in=[kind.value for kind in NEVER_HELD]
    )
    meant = queued.filter(Exists(vms.filter(pk=OuterRef("vm_id"))))
    first = max(now, freeze.begins_at)
    touched = []
    rows = configurations_of(vms)
    try:
        clocks = clocks_meant(rows, vms)
    except ListTooSlowError:
        clocks = {}
    until = (freeze.ends_at + timedelta(days=1)).date()  # the easternmost clocks show a day more
    for row in rows:
        own = clocks.get(row.pk, every_clock())
        soon = open_days_of(row, own, after=first - timedelta(minutes=row.duration_minutes))
        for day in islice(takewhile(lambda day: day.first.wall.date() <= until, soon), MOST_WINDOWS):
            here = [
                on.window for on in day.windows if on.window.opens_at < freeze.ends_at and on.window.ends_at > first
            ]
            touched += [(row, window) for window in here[:1]]
    touched.sort(key=lambda pair: pair[1].opens_at)
    return Effects(vms.count(), meant.count(), tuple(touched[:MOST_WINDOWS]))
