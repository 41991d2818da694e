"""A snapshot a day of what is counted of the fleet, for pictures of the days that were."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from django.db import connection

from patching.terms import CRITICAL_AND_SECURITY, ON_TRACK_WORDS, UpdateStatus
from updates.models import FleetSnapshot
from updates.selectors.fleet import LATE_AFTER, moments_of_connections
from updates.selectors.fleet_days import day_of

KEEP_DAYS = 400

# Each group by connection and line, and by the same the whole fleet.
_TAKE = """
WITH late AS (
    SELECT m.patch_set_id, min(p.published_on) AS since
    FROM updates_patchsetmember m JOIN updates_patch p ON p.id = m.patch_id
    WHERE p.classification = ANY(%(urgent)s) GROUP BY m.patch_set_id
), counted AS (
    SELECT c.resource_group_id, c.connection_id, c.product_line, c.machines,
        c.hotpatch_track = ANY(%(on_track)s) AS is_on_track,
        c.update_status = ANY(%(assessed)s) AS is_assessed,
        c.lacks_critical, c.update_status = %(nothing)s AS lacks_nothing,
        coalesce(late.since + %(days)s < today.day, false) AS is_late
    FROM vms_wordcount c
    LEFT JOIN late ON late.patch_set_id = c.patch_set
    LEFT JOIN unnest(%(connections)s::bigint[], %(their_days)s::date[]) AS today(connection_id, day)
        ON today.connection_id = c.connection_id
)
INSERT INTO updates_fleetsnapshot (
    day, resource_group_id, connection_id, product_line,
    up_to_date, other, critical, no_data, critical_late, on_track
)
SELECT %(day)s, resource_group_id, connection_id, product_line,
    coalesce(sum(machines) FILTER (WHERE is_assessed AND NOT lacks_critical AND lacks_nothing), 0),
    coalesce(sum(machines) FILTER (WHERE is_assessed AND NOT lacks_critical AND NOT lacks_nothing), 0),
    coalesce(sum(machines) FILTER (WHERE is_assessed AND lacks_critical), 0),
    coalesce(sum(machines) FILTER (WHERE NOT is_assessed), 0),
    coalesce(sum(machines) FILTER (WHERE is_assessed AND lacks_critical AND is_late), 0),
    coalesce(sum(machines) FILTER (WHERE is_on_track), 0)
FROM counted
GROUP BY GROUPING SETS ((resource_group_id, connection_id, product_line), (connection_id, product_line))
HAVING sum(machines) <> 0
ON CONFLICT DO NOTHING
"""
_ASSESSED = [UpdateStatus.NO_UPDATES_AVAILABLE, UpdateStatus.UPDATES_AVAILABLE, UpdateStatus.REBOOT_REQUIRED]


def take_snapshot(*, now: datetime) -> bool:
    """Keep what is counted now as that of this day (UTC), unless it has been kept; whether anything was written.

    Two schedulers at once write it once.
    """
    day = now.astimezone(UTC).date()
    if FleetSnapshot.objects.filter(day=day).exists():
        return False
    days = {pk: day_of(moment) for pk, moment in moments_of_connections(now).items()}
    with connection.cursor() as cursor:
        cursor.execute(
            _TAKE,
            {
                "day": day,
                "urgent": [name.value for name in CRITICAL_AND_SECURITY],
                "on_track": [track.value for track in ON_TRACK_WORDS],
                "assessed": [status.value for status in _ASSESSED],
                "nothing": UpdateStatus.NO_UPDATES_AVAILABLE.value,
                "days": LATE_AFTER.days,
                "connections": list(days),
                "their_days": list(days.values()),
            },
        )
        return bool(cursor.rowcount)


def forget_snapshots(*, today: date) -> int:
    """Remove the snapshots that are older than `KEEP_DAYS`; how many."""
    removed, _by_model = FleetSnapshot.objects.filter(day__lt=today - timedelta(days=KEEP_DAYS)).delete()
    return removed
