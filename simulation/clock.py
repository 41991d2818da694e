"""A clock that jumps, given to the database: what the engine asks for the time answers with the simulation's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from django.db import connection

_SCHEMA = """
CREATE SCHEMA simulated_clock;
CREATE FUNCTION simulated_clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
    AS $$ SELECT pg_catalog.current_setting('simulated_clock.now')::timestamptz $$;
CREATE FUNCTION simulated_clock.now() RETURNS timestamptz LANGUAGE sql STABLE
    AS $$ SELECT pg_catalog.current_setting('simulated_clock.now')::timestamptz $$;
"""


class Clock:
    """The time of the simulation, as this connection's database tells it."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def set(self, now: datetime) -> None:
        """Jump."""
        self.now = now
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('simulated_clock.now', %s, false)", [now.isoformat()])


@contextmanager
def simulated_clock(now: datetime) -> Iterator[Clock]:
    """Let this connection's `now()` and `clock_timestamp()` be the simulation's, found before PostgreSQL's own."""
    clock = Clock(now)
    with connection.cursor() as cursor:
        cursor.execute(_SCHEMA)
        cursor.execute("SET search_path = simulated_clock, public, pg_catalog")
    clock.set(now)
    try:
        yield clock
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET search_path")
            cursor.execute("DROP SCHEMA simulated_clock CASCADE")
