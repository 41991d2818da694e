"""How long one start and one look take on a connection, as measured. In PostgreSQL, so that every worker knows it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from django.db import connection

from connectors.protocol import Pace

# Faster than this nothing waits for it: a whole claim is done within a second.
NEGLIGIBLE_SECONDS = 0.001
# A measurement that differs by less than a fifth is not worth a write.
WORTH_WRITING = 0.2

_KEEP = """
INSERT INTO updates_connectionpace (connection_id, start_seconds, look_seconds, measured_at)
SELECT c.id, %(start)s::float8, %(look)s::float8, %(now)s::timestamptz FROM vms_connection c WHERE c.id = %(connection)s
ON CONFLICT (connection_id) DO UPDATE SET
    start_seconds = COALESCE(EXCLUDED.start_seconds, updates_connectionpace.start_seconds),
    look_seconds = COALESCE(EXCLUDED.look_seconds, updates_connectionpace.look_seconds),
    measured_at = EXCLUDED.measured_at
"""


def paced(declared: Pace, start_seconds: float | None, look_seconds: float | None) -> Pace:
    """What a connector's kind declares, as far as nothing was measured."""
    return replace(
        declared,
        start_seconds=declared.start_seconds if start_seconds is None else start_seconds,
        look_seconds=declared.look_seconds if look_seconds is None else look_seconds,
    )


def keep_pace(connection_id: int, known: Pace, now: datetime, *, start: float | None, look: float | None) -> None:
    """Keep what one start or one look took just now (seconds; None: not measured), where it tells anything new.

    The new value is half of what was known and half of what was measured: one hiccup is not the pace.
    """
    values = {"start": _news(known.start_seconds, start), "look": _news(known.look_seconds, look)}
    if any(value is not None for value in values.values()):
        with connection.cursor() as cursor:
            cursor.execute(_KEEP, {**values, "connection": connection_id, "now": now})


def _news(known: float, measured: float | None) -> float | None:
    if measured is None:
        return None
    if measured < NEGLIGIBLE_SECONDS:
        measured = 0.0
    value = (known + measured) / 2 if known else measured
    if value < NEGLIGIBLE_SECONDS:
        value = 0.0
    return value if abs(value - known) > WORTH_WRITING * known else None
