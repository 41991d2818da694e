"""Connections: made, changed and paused by an administrator; and what their simulated machines shall suffer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.db import connection as database
from django.db import transaction
from django.utils import timezone

from connectors.configuration import read
from connectors.registry import KINDS, Trouble, TroubleCode, UnusableError
from connectors.simulator import MISFORTUNE_TAG
from vms.models import Connection, VirtualMachine
from vms.services.summaries import refresh_hotpatch_statuses, refresh_patchers

# "Until somebody resumes it": PostgreSQL keeps it as any other moment.
UNTIL_RESUMED = datetime(9999, 1, 1, tzinfo=UTC)


@transaction.atomic
def save_connection(*, connection: Connection) -> None:
    """Save a connection, and let its VMs follow a changed kind, platform or switch.

    Raises UnusableError if its kind is unknown, and ConfigurationError if its configuration is not that of its kind.
    """
    if connection.kind not in KINDS:
        raise UnusableError(Trouble(TroubleCode.UNKNOWN_KIND, connection.kind))
    read(KINDS[connection.kind].configuration, connection.config)
    before = Connection.objects.filter(pk=connection.pk).first()
    connection.save()
    if before is None:
        return
    if before.platform != connection.platform:
        refresh_hotpatch_statuses(connection_ids=[connection.pk])
    if (before.is_portal_in_charge, before.is_patching_automatically) != (
        connection.is_portal_in_charge,
        connection.is_patching_automatically,
    ):
        refresh_patchers(among=VirtualMachine.objects.filter(connection=connection))


def pause_connection(*, connection: Connection, minutes: int | None) -> None:
    """Start nothing through this connection for so long (None: until it is resumed). What runs goes on."""
    until = UNTIL_RESUMED if minutes is None else timezone.now() + timedelta(minutes=minutes)
    Connection.objects.filter(pk=connection.pk).update(paused_until=until)


def resume_connection(*, connection: Connection) -> None:
    """Start what waits."""
    Connection.objects.filter(pk=connection.pk).update(paused_until=None)


_SET_TAG = """
UPDATE vms_virtualmachine
SET tags = tags - ARRAY(SELECT key FROM jsonb_object_keys(tags) AS key WHERE lower(key) = %(tag)s)
    || CASE WHEN %(wish)s = '' THEN '{}' ELSE jsonb_build_object(%(tag)s::text, %(wish)s::text) END
WHERE connection_id = %(connection)s AND lower(name) = lower(%(name)s)
"""


def set_misfortune(*, connection: Connection, vm_name: str, wish: str) -> int:
    """Let the simulated machines of this name suffer `wish` from now on (empty: nothing any more); how many there are."""
    with database.cursor() as cursor:
        cursor.execute(_SET_TAG, {"wish": wish, "tag": MISFORTUNE_TAG, "connection": connection.pk, "name": vm_name})
        return int(cursor.rowcount)
