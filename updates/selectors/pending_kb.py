"""One KB: what the catalogue says of it, and which of a reader's machines lack it, have it, failed on it, hold it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from django.core.exceptions import EmptyResultSet
from django.http import Http404

from db.arrays import array
from db.bounded import ListTooSlowError, fetch_bounded
from patching.terms import ON_TRACK_WORDS
from updates.models import InstalledPatch, KbHold, Patch, Release
from updates.selectors.fleet import EVERYWHERE, count_fleet, load_pending, place_of
from updates.selectors.pending import days_between, list_address
from updates.selectors.pending_machines import failed_on, failures, having, holding, machines_of
from updates.selectors.pending_schedule import Scheduled, judge_schedules, load_rules
from vms.choices import Condition
from vms.models import Grants, VirtualMachineQuerySet
from vms.selectors import MAX_COUNT, VmPage, vm_page

if TYPE_CHECKING:
    from django.contrib.auth.models import User


class Tab(StrEnum):
    """What machines have to do with a KB; the values are filters of the list."""

    LACKS = "lacks"
    HAS = "has"
    FAILED = "failed"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Counted:
    """How many machines are in a tab, `MAX_COUNT` where there are more, and the address of the list of just these."""

    tab: Tab
    count: int
    is_exact: bool
    address: str


@dataclass(frozen=True)
class KbPage:
    """Everything that the page of a KB shows.

    `machines` None: to look for them took too long; so did what is scheduled where `is_schedule_known` is False. `said`: by
    the machine's id what the tab says of it, a row of what was installed, of what failed, or of what is held.
    """

    kb_number: str
    patches: tuple[Patch, ...]
    releases: tuple[Release, ...]
    age: int | None
    counts: tuple[Counted, ...]
    on_track: int
    on_track_address: str
    scheduled: Scheduled | None
    is_schedule_known: bool
    tab: Tab
    machines: VmPage | None
    said: Mapping[int, Any]

    @property
    def patch(self) -> Patch | None:
        """The newest row of the catalogue that offers it."""
        return self.patches[0] if self.patches else None

    @property
    def address(self) -> str:
        """The list of the machines of this tab."""
        return list_address(EVERYWHERE, **{self.tab.value: self.kb_number})

    @property
    def rows(self) -> list[tuple[Any, Any]]:
        """The machines of the tab, each with what it says of it."""
        return [(vm, self.said.get(vm.id)) for vm in self.machines.vms] if self.machines else []


def load_kb(user: User, kb_number: str, query: Mapping[str, str], *, now: datetime) -> KbPage:
    """The page of a KB, in a fixed number of queries. Raises `Http404` where neither catalogue nor calendar knows it."""
    patches = tuple(Patch.objects.filter(kb_number=kb_number).order_by("-published_on", "pk"))
    rules = load_rules(now)
    releases = tuple(row for row in rules.releases if row.kb_number == kb_number)
    if not patches and not releases:
        raise Http404
    place = place_of(Grants.of(user))
    counts = count_fleet(place)
    pending = load_pending(counts)
    sets = {pk for each in pending.updates if each.patch.kb_number == kb_number for pk in each.sets}
    machines = machines_of(place, EVERYWHERE)
    scheduled = judge_schedules(machines, counts, pending, rules, sets=sets) if sets else {}
    lacking = [line for line in counts.lines if line.patch_set in sets]
    tabs = {
        Tab.LACKS: machines.filter(update_state__patch_set__any=array(sorted(sets))),
        Tab.HAS: having(machines, [patch.pk for patch in patches]),
        Tab.FAILED: failed_on(machines, kb_number, now),
        Tab.HELD: holding(machines, kb_number),
    }
    tab = Tab(query["tab"]) if query.get("tab") in set(Tab) else Tab.LACKS
    counted, page = _looked_for(tabs, tab, query.get("cursor", ""))
    counted[Tab.LACKS] = sum(line.machines for line in lacking)
    moments = [rules.moment_of(line.connection_id) for line in lacking]
    published_on = patches[0].published_on if patches else releases[-1].released_on
    return KbPage(
        kb_number=kb_number,
        patches=patches,
        releases=releases,
        age=days_between(published_on, max(moments, default=now)),
        counts=tuple(_counted(each, counted[each], kb_number) for each in Tab if each in counted),
        on_track=sum(line.machines for line in lacking if line.hotpatch_track in ON_TRACK_WORDS),
        on_track_address=list_address(EVERYWHERE, lacks=kb_number, condition=Condition.ON_TRACK.value),
        scheduled=scheduled.get(kb_number) if scheduled else None,
        is_schedule_known=scheduled is not None,
        tab=tab,
        machines=page,
        said=_said(tab, kb_number, [vm.id for vm in page.vms], now) if page else {},
    )


def _counted(tab: Tab, count: int, kb_number: str) -> Counted:
    """What machines lack is counted exactly, everything else as the list counts it."""
    is_exact = tab is Tab.LACKS or count <= MAX_COUNT
    address = list_address(EVERYWHERE, **{tab.value: kb_number})
    return Counted(tab, count if is_exact else MAX_COUNT, is_exact, address)


def _looked_for(
    tabs: Mapping[Tab, VirtualMachineQuerySet], tab: Tab, cursor: str
) -> tuple[dict[Tab, int], VmPage | None]:
    """How many machines are in each tab but the first, up to one more than a list counts, and a page of this tab."""
    try:
        return _count_each({each: vms for each, vms in tabs.items() if each is not Tab.LACKS}), vm_page(
            tabs[tab], cursor=cursor
        )
    except ListTooSlowError:
        return {}, None


def _count_each(tabs: Mapping[Tab, VirtualMachineQuerySet]) -> dict[Tab, int]:
    """How many machines are in each tab, up to one more than a list counts (one query). Raises `ListTooSlowError`."""
    parts: list[str] = []
    parameters: list[Any] = []
    for tab, vms in tabs.items():
        try:
            sql, own = vms.values("pk")[: MAX_COUNT + 1].query.sql_with_params()
        except EmptyResultSet:
            continue
        parts.append(f"SELECT %s, count(*) FROM ({sql}) counted")  # noqa: S608 (the ORM's)
        parameters += [tab.value, *own]
    found = dict.fromkeys(tabs, 0)
    if parts:
        found |= {Tab(name): count for name, count in fetch_bounded(" UNION ALL ".join(parts), parameters)}
    return found


def _said(tab: Tab, kb_number: str, vm_ids: list[int], now: datetime) -> dict[int, Any]:
    """What the tab says of each of these machines: the newest row of each (at most one query)."""
    ids = array(vm_ids)
    if tab is Tab.HAS:
        installed = InstalledPatch.objects.filter(vm__any=ids, patch__kb_number=kb_number)
        return {row.vm_id: row for row in installed.order_by("installed_on", "pk")}
    if tab is Tab.FAILED:
        failed = failures(now).filter(operation__vm__any=ids, patch__kb_number=kb_number).select_related("operation")
        return {row.operation.vm_id: row for row in failed.order_by("operation__finished_at", "pk")}
    if tab is Tab.HELD:
        held = KbHold.objects.filter(vm__any=ids, kb_number=kb_number).select_related("created_by")
        return {row.vm_id: row for row in held.order_by("pk")}
    return {}
