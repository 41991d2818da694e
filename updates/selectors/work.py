"""What an installation would do on many machines, by what their last assessments found (docs/rules.md, selection)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import NamedTuple

from django.db.models.fields.json import KeyTextTransform

from connectors.registry import catalogue_day
from db.arrays import array
from patching import terms
from patching.releases import Timetable, as_of, timetable
from patching.selection import (
    OFF_GUARD,
    RunOutlook,
    RunProspect,
    RunWork,
    Selection,
    guard_on,
    prospect,
    select,
    work_of,
)
from patching.terms import HotpatchTrack, InstallationPlan, ProductLine
from patching.track import TrackVerdict
from updates.models import KbHold, PatchSetMember, Release
from vms.models import VirtualMachine


class Kind(NamedTuple):
    """What decides what a plan does on a machine. Machines of one kind are judged once.

    `catalogue_day` as its connection is configured with; `held`: the KBs that are held back, in their order.
    """

    patch_set: int
    product_line: str
    catalogue_day: str | None
    hotpatch_track: str
    is_reboot_pending: bool
    held: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a run of a plan would do on a machine."""

    selection: Selection
    prospect: RunProspect
    work: RunWork

    @property
    def outlook(self) -> RunOutlook:
        """What a review says of it in short."""
        return RunOutlook(self.work, self.prospect.reboot)


class Foresight:
    """Judges kinds of machines by one plan, each once. Two queries, whatever the number of machines."""

    def __init__(self, plan: InstallationPlan, *, patch_sets: Collection[int], now: datetime) -> None:
        self._plan, self._now = plan, now
        self._offered: dict[int, list[terms.Patch]] = defaultdict(list)
        members = PatchSetMember.objects.filter(patch_set__any=array(patch_sets)).select_related("patch")
        for member in members.order_by("patch_set_id", "patch_id"):
            self._offered[member.patch_set_id].append(member.patch.facts)
        self._releases = Release.objects.order_by("pk").facts()
        self._known: dict[tuple[str, date | None], Timetable] = {}
        self._judged: dict[Kind, Foreseen] = {}

    def of(self, kind: Kind) -> Foreseen:
        """What the plan does on machines of this kind."""
        if kind not in self._judged:
            self._judged[kind] = self._judge(kind)
        return self._judged[kind]

    def offers(self, kb_number: str) -> bool:
        """Whether any machine is offered this KB."""
        return any(patch.kb_number == kb_number for patches in self._offered.values() for patch in patches)

    def _judge(self, kind: Kind) -> Foreseen:
        guard, day = OFF_GUARD, catalogue_day(kind.catalogue_day)
        line = kind.product_line
        if line:
            if (line, day) not in self._known:
                self._known[line, day] = timetable(self._releases, ProductLine(line), as_of(day, self._now))
            guard = guard_on(TrackVerdict(HotpatchTrack(kind.hotpatch_track)), self._known[line, day])
        plan = replace(self._plan, kb_numbers_to_exclude=(*self._plan.kb_numbers_to_exclude, *kind.held))
        selection = select(self._offered[kind.patch_set], plan, guard=guard)
        return Foreseen(
            selection,
            prospect(selection, plan, is_reboot_pending=kind.is_reboot_pending),
            work_of(selection, plan, is_reboot_pending=kind.is_reboot_pending),
        )


def foresee(vm_ids: Collection[int], plan: InstallationPlan, *, now: datetime) -> dict[int, Foreseen]:
    """What a run of this plan would do on each of these VMs; machines that were never assessed are left out.

    Four queries. VMs that lack the same and stand in the same place are judged once.
    """
    ids = array(vm_ids)
    rows = list(
        VirtualMachine.objects.filter(pk__any=ids, update_state__patch_set__isnull=False)
        .order_by()
        .values_list(
            "pk",
            "update_state__patch_set_id",
            "product_line",
            KeyTextTransform("catalogue_date", "connection__config"),
            "hotpatch_track",
            "is_reboot_pending",
        )
    )
    if not rows:
        return {}
    held: dict[int, tuple[str, ...]] = defaultdict(tuple)
    for vm_id, kb_number in KbHold.objects.filter(vm__any=ids).order_by("kb_number").values_list("vm_id", "kb_number"):
        held[vm_id] = (*held[vm_id], kb_number)
    foresight = Foresight(plan, patch_sets={row[1] for row in rows}, now=now)
    return {
        pk: foresight.of(Kind(patch_set, line, day, track, is_pending, held[pk]))
        for pk, patch_set, line, day, track, is_pending in rows
    }


def work_on(vm_ids: Collection[int], plan: InstallationPlan, *, now: datetime) -> dict[int, RunWork]:
    """What a run of this plan comes to on each of these VMs; machines that were never assessed are left out."""
    return {pk: seen.work for pk, seen in foresee(vm_ids, plan, now=now).items()}
