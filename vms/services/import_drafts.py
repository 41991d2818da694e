"""Files that a dry run has read: kept for an hour, so that nobody has to choose them a second time.

In the database, not on a web process's disk: the next request may come to another one. One for each person, compressed,
no larger than an import may be.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from vms.models import ImportDraft

if TYPE_CHECKING:
    from django.contrib.auth.models import User

KEPT_FOR = timedelta(hours=1)
_FAST = 1  # of zlib's levels; an inventory shrinks to a tenth with it


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file as it was offered."""

    name: str
    data: bytes


def keep_file(*, user: User, file: KeptFile, now: datetime) -> UUID:
    """Keep a file for this person, in the place of the one before; the token to ask for it by."""
    forget_old_files(now=now)
    row = ImportDraft(
        token=uuid4(), user=user, file_name=file.name[:200], content=zlib.compress(file.data, _FAST), created_at=now
    )
    # Two dry runs at once: the later one replaces the earlier one's row.
    ImportDraft.objects.bulk_create(
        [row],
        update_conflicts=True,
        unique_fields=["user"],
        update_fields=["token", "file_name", "content", "created_at"],
    )
    return row.token


def kept_file(*, user: User, token: UUID, now: datetime) -> KeptFile | None:
    """The file of this token; None where it is another person's, was replaced, or is older than an hour."""
    row = ImportDraft.objects.filter(token=token, user=user, created_at__gt=now - KEPT_FOR).first()
    return None if row is None else KeptFile(row.file_name, zlib.decompress(bytes(row.content)))


def forget_file(*, user: User) -> None:
    """The file was imported: nobody needs it any more."""
    ImportDraft.objects.filter(user=user).delete()


def forget_old_files(*, now: datetime) -> int:
    """Remove what is older than an hour; how many. Each import does it, and the hourly clean-up."""
    return ImportDraft.objects.filter(created_at__lte=now - KEPT_FOR).delete()[0]
