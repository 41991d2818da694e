"""Which machines may be restarted now, by what is known of them (docs/rules.md, restart), and what else happens then."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from connectors.protocol import Capability
from connectors.registry import kinds_with
from db.arrays import array
from patching.recurrence import BlackoutError, blackouts_from_json, merged, zone_of
from patching.restart import WHAT_COMES_FIRST, RestartFacts, RestartRefusal, judge_restart
from patching.terms import UpdateStatus
from updates.selectors.automation import rows_meaning
from updates.selectors.work import work_on
from vms.choices import PowerState
from vms.models import VirtualMachine
from vms.regions import clock_of, every_clock

_UNKNOWN = frozenset({UpdateStatus.NO_UPDATES_DATA.value, UpdateStatus.UNSUPPORTED.value})
_MAYBE_RUNNING = frozenset({PowerState.RUNNING.value, PowerState.UNKNOWN.value})


def judge_restarts(vm_ids: Collection[int], *, now: datetime) -> dict[int, RestartRefusal | None]:
    """Why each of these VMs is not restarted now; None: the pending reboot is all that it needs. Five queries."""
    rows = list(
        VirtualMachine.objects.filter(pk__any=array(vm_ids))
        .order_by("pk")
        .values_list(
            "pk",
            "connection__kind",
            "update_status",
            "is_reboot_pending",
            "power_state",
            "update_state__is_awaiting_assessment",
        )
    )
    able = frozenset(kinds_with(Capability.RESTART))
    work = work_on([pk for pk, *_rest, is_pending, _power, _owes in rows if is_pending], WHAT_COMES_FIRST, now=now)
    return {
        pk: judge_restart(
            RestartFacts(
                can_restart=kind in able,
                is_supported=status != UpdateStatus.UNSUPPORTED,
                owes_assessment=bool(owes),
                is_known=status not in _UNKNOWN,
                is_reboot_pending=is_pending,
                is_running=power in _MAYBE_RUNNING,
                work=work.get(pk),
            )
        )
        for pk, kind, status, is_pending, power, owes in rows
    }


def blackouts_meaning(vm: VirtualMachine, *, now: datetime) -> list[tuple[str, datetime | None]]:
    """The configurations that mean this VM and keep their windows shut now: name, and until when (None: it cannot be read).

    `vm` as `updates.selectors.blade.load_picture` reads it.
    """
    clock = clock_of(vm.time_zone, vm.location)
    own = (clock,) if clock else every_clock()  # it may have any of them
    found: list[tuple[str, datetime | None]] = []
    for row in rows_meaning(vm):
        try:
            zones = own if row["is_own_clock"] else (zone_of(row["time_zone"]),)
            periods = merged(blackouts_from_json(row["blackouts"]))
        except (BlackoutError, KeyError):
            found.append((row["name"], None))
            continue
        ends = [
            period.ends(zone) for zone in zones for period in periods if period.begins(zone) <= now < period.ends(zone)
        ]
        found += [(row["name"], max(ends))] if ends else []
    return found
