"""Which machines a maintenance configuration names: many at once, put in or taken out."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from django.db import connection, transaction

from audit.context import acting
from updates.models import MaintenanceConfiguration
from updates.services.automation import check_window_is_far, follow_schedules
from vms.selection import VmSelection

if TYPE_CHECKING:
    from django.contrib.auth.models import User

_ATTACH = """
INSERT INTO updates_maintenanceconfiguration_vms (maintenanceconfiguration_id, virtualmachine_id)
SELECT %s, v.id FROM vms_virtualmachine v WHERE v.id = ANY(%s::bigint[]) ON CONFLICT DO NOTHING
"""
_DETACH = """
DELETE FROM updates_maintenanceconfiguration_vms
WHERE maintenanceconfiguration_id = %s AND virtualmachine_id = ANY(%s::bigint[])
"""


@transaction.atomic
def attach_machines(*, configuration_id: int, selection: VmSelection, now: datetime, attached_by: User) -> int:
    """Let the configuration name these machines, too; how many it did not name before. Raises WindowIsNearError."""
    return _change(_ATTACH, configuration_id, selection, now, attached_by)


@transaction.atomic
def detach_machines(*, configuration_id: int, selection: VmSelection, now: datetime, detached_by: User) -> int:
    """Let it name these machines no more; how many it named. Those of its scope stay meant. Raises WindowIsNearError."""
    return _change(_DETACH, configuration_id, selection, now, detached_by)


def _change(sql: str, configuration_id: int, selection: VmSelection, now: datetime, by: User) -> int:
    row = MaintenanceConfiguration.objects.select_for_update().get(pk=configuration_id)
    check_window_is_far(row, now=now)
    with acting(person=by), connection.cursor() as cursor:
        cursor.execute(sql, [row.pk, selection.packed])
        changed: int = cursor.rowcount
    follow_schedules()
    return changed
