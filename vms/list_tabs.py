"""The tabs over the list: the built-in views and those that people keep, and which of them is open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from django.urls import reverse
from django.utils.translation import gettext as _

from vms.choices import Condition
from vms.filter_text import NEXT_PATCH_TUESDAY
from vms.filters import VmFilter
from vms.selectors import ListHead


@dataclass(frozen=True, slots=True)
class Tab:
    """A view with its address; `count` is None where no counter knows how many machines it holds."""

    name: str
    address: str
    count: int | None = None
    is_open: bool = False
    is_shared: bool = False


def tabs_of(head: ListHead, query: Mapping[str, str]) -> list[Tab]:
    """The tabs of a list that `query` narrows down and sorts."""
    totals, here = head.totals, dict(query)
    counts = (totals.machines, totals.needs_attention, totals.never_assessed, None) if totals else (None,) * 4
    attention, never = Condition.NEEDS_ATTENTION.value, Condition.NEVER_ASSESSED.value
    builtin: list[tuple[str, dict[str, str]]] = [
        (_("All"), {}),
        (_("Needs attention"), {"condition": attention}),
        (_("Never assessed"), {"condition": never}),
        (_("Reboots next Patch Tuesday"), {"reboots": NEXT_PATCH_TUESDAY}),
    ]
    list_url = reverse("vms:vm-list")
    tabs = [
        Tab(name, f"{list_url}?{urlencode(asked)}".removesuffix("?"), count, is_open=here == asked)
        for (name, asked), count in zip(builtin, counts, strict=True)
    ]
    kept = [
        Tab(
            view.name,
            reverse("vms:view", args=[view.id]),
            is_open=dict(parse_qsl(view.address)) == here,
            is_shared=view.is_shared,
        )
        for view in head.views
    ]
    return [*tabs, *kept]


def query_of(filters: VmFilter, order: str) -> dict[str, str]:
    """What the address of this list says, without what says nothing: its filters, and an order that was asked for."""
    return filters.narrowing | ({"sort": order} if order else {})
