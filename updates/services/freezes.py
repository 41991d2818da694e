"""Freezes and their exceptions: made, changed and ended by people; the record keeps who and why."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from django.db import transaction

from audit.context import acting
from patching.scope import Scope
from updates.models import Freeze, FreezeException
from vms.selection import NOTHING, VmSelection

if TYPE_CHECKING:
    from django.contrib.auth.models import User


class FreezeIsOverError(ValueError):
    """The freeze has ended, or was ended: it cannot be changed, and needs no exception."""


@transaction.atomic
def make_freeze(*, freeze: Freeze, made_by: User) -> Freeze:
    """Keep a new freeze; from now on nothing begins that it holds. Raises ScopeError if its scope cannot be read."""
    Scope.from_json(freeze.scope)
    freeze.created_by = made_by
    with acting(person=made_by):
        freeze.save(force_insert=True)
    return freeze


@transaction.atomic
def change_freeze(*, freeze: Freeze, now: datetime, changed_by: User) -> None:
    """Keep what was changed. Raises FreezeIsOverError, ScopeError; nothing is changed then."""
    Scope.from_json(freeze.scope)
    _open_freeze(freeze.pk, now)
    with acting(person=changed_by):
        freeze.save(update_fields=["name", "begins_at", "ends_at", "time_zone", "is_for_all", "scope"])


@transaction.atomic
def end_freeze(*, freeze_id: int, now: datetime, ended_by: User) -> None:
    """End it early, or call off one that has not begun. Raises FreezeIsOverError."""
    freeze = _open_freeze(freeze_id, now)
    freeze.ended_at = now
    with acting(person=ended_by):
        freeze.save(update_fields=["ended_at"])


def _open_freeze(freeze_id: int, now: datetime) -> Freeze:
    freeze = Freeze.objects.select_for_update().filter(pk=freeze_id, ended_at=None, ends_at__gt=now).first()
    if freeze is None:
        raise FreezeIsOverError
    return freeze


@transaction.atomic
def make_exception(
    *, exception: FreezeException, now: datetime, made_by: User, selection: VmSelection = NOTHING
) -> FreezeException:
    """Let these machines and those of its scope through until it expires. Raises FreezeIsOverError, ScopeError."""
    Scope.from_json(exception.scope)
    _open_freeze(exception.freeze_id, now)
    exception.created_by = made_by
    with acting(person=made_by):
        exception.save(force_insert=True)
        exception.vms.set(selection.ids)
    return exception


@transaction.atomic
def end_exception(*, freeze_id: int, exception_id: int, now: datetime, ended_by: User) -> bool:
    """Hold its machines again. False: it had expired, or was ended."""
    alive = FreezeException.objects.filter(freeze_id=freeze_id, ended_at=None, expires_at__gt=now)
    with acting(person=ended_by):
        return bool(alive.filter(pk=exception_id).update(ended_at=now))
