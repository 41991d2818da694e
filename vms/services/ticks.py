"""Keeping what a person ticks in the list."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from django.db import transaction

from vms.models import KeptTicks
from vms.selection import VmSelection
from vms.ticks import FORGOTTEN_AFTER, MOST_TICKS

if TYPE_CHECKING:
    from django.contrib.auth.models import User


class TooManyTicksError(Exception):
    """More machines are ticked, or left out of all that match, than are kept one by one."""


@transaction.atomic
def keep_ticks(*, user: User, shown: Collection[int], ticked: Collection[int], now: datetime) -> None:
    """Take over the ticks of a page: of the machines that were shown there, those that are ticked.

    What is ticked on other pages stays. A machine that was not shown is not ticked. Raises TooManyTicksError.
    """
    here, on = set(shown), set(ticked) & set(shown)
    KeptTicks.objects.filter(user=user, changed_at__lte=now - FORGOTTEN_AFTER).delete()
    KeptTicks.objects.get_or_create(user=user, defaults={"changed_at": now})
    row = KeptTicks.objects.select_for_update().get(user=user)
    marked = on if row.filters is None else here - on  # of all that match the exceptions are kept
    ids = (set(row.vm_ids) - here) | marked
    if len(ids) > MOST_TICKS:
        raise TooManyTicksError
    row.vm_ids, row.changed_at = sorted(ids), now
    row.save(update_fields=["vm_ids", "changed_at"])


@transaction.atomic
def tick_all_that_match(*, user: User, filters: Mapping[str, str], matching: int, now: datetime) -> None:
    """Choose all machines that match these filters, in place of the ticks. `matching`: their number."""
    kept = {"vm_ids": [], "filters": dict(filters), "matching": matching, "changed_at": now}
    KeptTicks.objects.update_or_create(user=user, defaults=kept)


def clear_ticks(*, user: User, of: VmSelection | None = None) -> None:
    """Tick nothing. `of`: only where these machines are what is ticked, since something was done with them."""
    row = KeptTicks.objects.filter(user=user).first()
    if row is not None and (of is None or row.filters is not None or set(row.vm_ids) == set(of.ids)):
        row.delete()


def forget_ticks(*, now: datetime) -> int:
    """Remove ticks of long ago; how many people had some."""
    return KeptTicks.objects.filter(changed_at__lte=now - FORGOTTEN_AFTER).delete()[0]
