"""Whether the database was made by a newer portal than this one: then nothing here may touch it."""

from __future__ import annotations

from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder


@dataclass(frozen=True, slots=True)
class _Code:
    """The migrations of this code: those a database needs, and all that it may have."""

    needed: frozenset[tuple[str, str]]
    known: frozenset[tuple[str, str]]


@cache
def _code() -> _Code:
    """Read from disk, once: they do not change while a process lives."""
    migrations = MigrationLoader(None).disk_migrations
    replaced = {name for migration in migrations.values() for name in migration.replaces}
    # Of a squashed migration its parts are recorded, or it and its parts, or it alone once they are gone.
    needed = frozenset(key for key, migration in migrations.items() if not set(migration.replaces) & set(migrations))
    return _Code(needed, frozenset(migrations) | replaced)


def compare_migrations(alias: str = DEFAULT_DB_ALIAS) -> tuple[list[str], list[str]]:
    """The migrations that the database lacks, and those that only it knows. Raises DatabaseError if it does not answer."""
    applied = set(MigrationRecorder(connections[alias]).applied_migrations())
    return _names(_code().needed - applied), _names(applied - _code().known)


def unknown_migrations(alias: str = DEFAULT_DB_ALIAS) -> list[str]:
    """The migrations that the database has and this code does not know. Raises DatabaseError if it does not answer."""
    return compare_migrations(alias)[1]


def _names(migrations: Set[tuple[str, str]]) -> list[str]:
    return sorted(f"{app}.{name}" for app, name in migrations)


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
