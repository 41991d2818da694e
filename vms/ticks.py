"""Ticks of the list that survive paging, sorting and filtering: what a person has ticked so far, read once.

They are not a selection yet: `asked` turns them into what an address asks for, which `vms.selection` reads as strictly
as anything that was typed (docs/rules.md, selection of machines).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.http import QueryDict

from db.arrays import array
from vms.filters import VmFilter
from vms.models import KeptTicks, VirtualMachine

if TYPE_CHECKING:
    from django.contrib.auth.models import User

MOST_TICKS = 1_000  # so many machines are ticked, or left out of all that match, at most
FORGOTTEN_AFTER = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Ticks:
    """The machines that are ticked; with `filters` all that match, except these.

    `matching`: how many matched when all that match were chosen.
    """

    vm_ids: frozenset[int] = frozenset()
    filters: Mapping[str, str] | None = None
    matching: int = 0

    @property
    def is_all(self) -> bool:
        """Whether all that match are chosen."""
        return self.filters is not None

    @property
    def count(self) -> int:
        """How many machines are chosen; of all that match, as many as there were."""
        return max(0, self.matching - len(self.vm_ids)) if self.is_all else len(self.vm_ids)

    @property
    def excepted(self) -> int:
        """How many of those that match are left out."""
        return len(self.vm_ids) if self.is_all else 0


NO_TICKS = Ticks()


@dataclass(frozen=True, slots=True)
class PageTicks:
    """The ticks, and what they are on one page of the list.

    `loose`: machines of the page that can be ticked: where all that match are chosen, those alone that match.
    `told`: what all that match match, in the words of the list.
    """

    ticks: Ticks = NO_TICKS
    ticked: frozenset[int] = frozenset()
    loose: frozenset[int] = frozenset()
    told: tuple[tuple[str, str], ...] = field(default=())

    @property
    def shown(self) -> str:
        """The ids of the machines that can be ticked here, as the form sends them along."""
        return ",".join(map(str, sorted(self.loose)))


def ticks_of(user: User, *, now: datetime) -> Ticks:
    """What this person has ticked (one query); ticks of long ago are forgotten."""
    row = KeptTicks.objects.filter(user=user, changed_at__gt=now - FORGOTTEN_AFTER).first()
    return NO_TICKS if row is None else Ticks(frozenset(row.vm_ids), row.filters, row.matching)


def page_ticks(user: User, ticks: Ticks, vm_ids: Iterable[int]) -> PageTicks:
    """What the ticks are on a page of these machines (no query; two or three where all that match are chosen)."""
    here = frozenset(vm_ids)
    if ticks.filters is None:
        return PageTicks(ticks, here & ticks.vm_ids, here)
    chosen = VmFilter.of(user, dict(ticks.filters))
    if chosen.problems(()):  # a filter that means nothing any more chooses nothing: the wizard will say so
        return PageTicks(ticks)
    matching = frozenset(chosen.found.filter(pk__any=array(here)).values_list("pk", flat=True)) if here else here
    return PageTicks(ticks, matching - ticks.vm_ids, matching, tuple(chosen.told))


def asked(user: User, *, now: datetime) -> tuple[QueryDict, int]:
    """What these ticks ask for, as an address would, and how many ticked machines are there no more (two queries).

    A machine that has gone since it was ticked, or that the person may not see any more, is no part of it.
    """
    found, ticks = QueryDict(mutable=True), ticks_of(user, now=now)
    if ticks.filters is not None:
        found["all"] = "1"
        for name, value in ticks.filters.items():
            found[name] = value
        found.setlist("except", [str(pk) for pk in sorted(ticks.vm_ids)])
        return found, 0
    seen = VirtualMachine.objects.filter(pk__any=array(ticks.vm_ids)).order_by().visible_to(user)
    ids = sorted(seen.values_list("pk", flat=True)) if ticks.vm_ids else []
    found.setlist("vm", [str(pk) for pk in ids])
    return found, len(ticks.vm_ids) - len(ids)
