"""Who acts, by which door and why: said once around a piece of work, known to every statement in it."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pghistory
from django.db import connection

from audit.tags import Door

if TYPE_CHECKING:
    from django.contrib.auth.models import User


@contextmanager
def acting(
    *, door: Door | None = None, person: User | None = None, agent: str = "", reason: str = ""
) -> Iterator[None]:
    """What changes inside is signed with these facts; what is not named stays as the surrounding context has it.

    Afterwards everything is as before, also for the rest of an open transaction (`pghistory.context` alone would leave
    its facts to the statements that follow).
    """
    facts: dict[str, Any] = {"door": door.value if door else None, "user": person.pk if person else None}
    facts |= {"agent": agent[:150] or None, "reason": reason.strip()[:500] or None}
    with pghistory.context() as current:
        before = dict(current.metadata)
        current.metadata.update({name: value for name, value in facts.items() if value is not None})
        try:
            yield
        finally:
            current.metadata.clear()
            current.metadata.update(before)
    if not before:
        forget()


def forget() -> None:
    """Clear the signature, so that the rest of an open transaction is not signed with it."""
    if connection.in_atomic_block and not connection.needs_rollback:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('pghistory.context_id', '', true), set_config('pghistory.context_metadata', '', true)"
            )


def operating_system_user() -> str:
    """The account that this process runs as; its number where the system has no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid())
