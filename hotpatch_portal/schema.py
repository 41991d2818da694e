"""Whether the database was made by a newer portal than this one: then nothing here may touch it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder


def unknown_migrations(alias: str = DEFAULT_DB_ALIAS) -> list[str]:
    """The migrations that the database has and this code does not know. Raises DatabaseError if it does not answer."""
    loader = MigrationLoader(None)
    known = set(loader.disk_migrations)
    for migration in loader.disk_migrations.values():
        known.update(migration.replaces)
    applied = MigrationRecorder(connections[alias]).applied_migrations()
    return sorted(f"{app}.{name}" for app, name in applied if (app, name) not in known)


def sentence(unknown: list[str]) -> str:
    """What to say about them."""
    more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    return (
        f"The database was made by a newer version of the portal: this one does not know its migration {unknown[0]}{more}. "
        "Run that version again, or restore a backup that was made before the upgrade."
    )


def refuse_newer_database(**_signal: Any) -> None:
    """End this process with a sentence if the database is newer than the code; a database that is away is waited for."""
    unknown: list[str] = []
    with suppress(DatabaseError):
        unknown = unknown_migrations()
    if unknown:
        raise SystemExit(sentence(unknown))
