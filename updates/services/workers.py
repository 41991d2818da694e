"""Workers tell that they live: one row each, by the database's clock."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import connection

from updates.models import WorkerHeartbeat

# How often a worker tells at most. Readers call one silent that was not heard of for a minute.
EVERY_SECONDS = 10
KEPT_FOR = timedelta(days=1)

# A row from the future, left by a clock that was set back, is written over, too.
_HEAR = """
INSERT INTO updates_workerheartbeat AS w (name, heard_at) VALUES (%s, clock_timestamp())
ON CONFLICT (name) DO UPDATE SET heard_at = excluded.heard_at
WHERE w.heard_at NOT BETWEEN excluded.heard_at - make_interval(secs => %s) AND excluded.heard_at
"""


def hear(*, name: str) -> None:
    """Write down that the worker of this name has just carried out a sweep. Its processes share the name."""
    with connection.cursor() as cursor:
        cursor.execute(_HEAR, [name[:200], EVERY_SECONDS - 1])


def forget_workers(*, now: datetime) -> int:
    """Remove the rows of workers that were not heard of for a day; how many went."""
    return WorkerHeartbeat.objects.filter(heard_at__lt=now - KEPT_FOR).delete()[0]
