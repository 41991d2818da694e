"""The next reboot of every machine, as lists show it: told to what is alike, once a tick; machines follow.

What is alike is found in the counters, so that this costs the same at any size where nothing has changed. A machine that is
written looks up what is told of its like by itself (`vms.models.LOOKING_UP`); here are told those that nobody had told of when
they were written, and all of a kind when clock or catalogue move its outlook.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import Q

from db.arrays import array
from patching import forecast
from updates.selectors.fleet_forecast import every_alike, judge_now
from vms.choices import NO_REBOOT, REBOOT_NOT_KNOWN
from vms.models import NEXT_REBOOT, Outlook, VirtualMachine

BLOCK = 5_000
# A machine that was written while an outlook moved may have looked up the older one: its writer is over by then.
SETTLES_AFTER = timedelta(minutes=3)


def tell_outlooks(*, now: datetime, is_over: Callable[[], bool]) -> int:
    """Bring what is foreseen of machines up to this moment; how many machines say something else now.

    Stops when `is_over` says so, and goes on at the next call. Seven small reads where nothing has changed.
    """
    every = every_alike()
    judge = judge_now(now, every.values())
    known = Outlook.objects.in_bulk()
    due = []
    for number, alike in every.items():
        told, row = _told(judge.next_reboot(alike)), known.get(number)
        if row is None or told != tuple(getattr(row, name) for name in NEXT_REBOOT):
            words = dict(zip(NEXT_REBOOT, told, strict=True))
            settles_at = now + SETTLES_AFTER if row is None else None
            due.append(Outlook(alike=number, **words, is_told=row is None, settles_at=settles_at))
    if due:  # in the order of their numbers, so that two ticks wait for each other
        Outlook.objects.bulk_create(
            sorted(due, key=lambda row: row.alike),
            update_conflicts=True,
            unique_fields=["alike"],
            update_fields=[*NEXT_REBOOT, "is_told", "settles_at"],
        )
    if forgotten := known.keys() - every.keys():
        Outlook.objects.filter(pk__any=array(sorted(forgotten))).delete()
    return _tell_new(is_over) + _tell_moved(now, is_over)


def _told(foreseen: forecast.NextReboot) -> tuple[str, str, str]:
    """What machines say of it: `NEXT_REBOOT`."""
    none = REBOOT_NOT_KNOWN if foreseen.outlook is forecast.Outlook.NOT_KNOWN else NO_REBOOT
    month = f"{foreseen.month:%Y-%m}" if foreseen.month else none
    return month, foreseen.outlook.value, foreseen.cause.value if foreseen.cause else ""


def _tell_new(is_over: Callable[[], bool]) -> int:
    """Machines that were written before the outlook of their kind was known; found through a partial index."""
    is_any = VirtualMachine.objects.filter(next_reboot="", gone_at__isnull=True).order_by().exists()
    return _tell(_NEW, [], is_over) if is_any else 0


def _tell_moved(now: datetime, is_over: Callable[[], bool]) -> int:
    """Machines whose outlook moved, and once more those that were written meanwhile."""
    settling = Q(settles_at__lte=now) | Q(settles_at__gt=now + SETTLES_AFTER)  # the second: the clock went back
    moved = list(Outlook.objects.filter(Q(is_told=False) | settling).order_by().values_list("pk", "is_told"))
    if not moved:
        return 0
    told = _tell(_MOVED, [array(pk for pk, _is_told in moved)], is_over)
    if not is_over():
        once_more = array(pk for pk, is_told in moved if not is_told)
        Outlook.objects.filter(pk__any=array(pk for pk, is_told in moved if is_told)).update(settles_at=None)
        Outlook.objects.filter(pk__any=once_more).update(is_told=True, settles_at=now + SETTLES_AFTER)
    return told


def _tell(sql: str, parameters: list[str], is_over: Callable[[], bool]) -> int:
    """Write what is told to machines, in blocks in the order of their ids."""
    changed, place = 0, 0
    while not is_over():
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(sql, [*parameters, place, BLOCK])
            ids = [pk for (pk,) in cursor.fetchall()]
        changed += len(ids)
        if len(ids) < BLOCK:
            break
        place = max(ids)
    return changed


_SAY = f"""
UPDATE vms_virtualmachine vm
SET {", ".join(f"{name} = found.{name}" for name in NEXT_REBOOT)}
FROM found WHERE vm.id = found.id
RETURNING vm.id
"""  # noqa: S608 (ours)
_FOUND = f"""
WITH found AS (
    SELECT v.id, {", ".join(f"o.{name}" for name in NEXT_REBOOT)}
    FROM vms_virtualmachine v JOIN vms_outlook o ON o.alike = v.alike
    WHERE v.gone_at IS NULL AND NARROWED AND v.id > %s
    ORDER BY v.id LIMIT %s FOR NO KEY UPDATE OF v
)
{_SAY}"""  # noqa: S608 (ours)
_NEW = _FOUND.replace("NARROWED", "v.next_reboot = ''")
_MOVED = _FOUND.replace(
    "NARROWED",
    "v.alike = ANY(%s::bigint[]) AND "
    f"({', '.join(f'v.{name}' for name in NEXT_REBOOT)}) IS DISTINCT FROM ({', '.join(f'o.{name}' for name in NEXT_REBOOT)})",
)
