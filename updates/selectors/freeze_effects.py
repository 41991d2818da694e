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
from updates.selectors.maintenance import open_windows_of
from updates.selectors.window_dates import configurations_of
from vms.models import VirtualMachine

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
    for row in configurations_of(vms):
        soon = open_windows_of(row, after=first - timedelta(minutes=row.duration_minutes))
        here = takewhile(lambda window: window.opens_at < freeze.ends_at, soon)
        touched += [(row, window) for window in islice(here, MOST_WINDOWS) if window.ends_at > first]
    touched.sort(key=lambda pair: pair[1].opens_at)
    return Effects(vms.count(), meant.count(), tuple(touched[:MOST_WINDOWS]))
