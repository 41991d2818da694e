"""What an installation would do on many machines, by what their last assessments found (docs/rules.md, selection)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from datetime import date, datetime
from typing import Any

from django.db.models.fields.json import KeyTextTransform

from connectors.registry import catalogue_day
from db.arrays import array
from patching import terms
from patching.releases import Timetable, as_of, timetable
from patching.selection import OFF_GUARD, RunWork, guard_on, select, work_of
from patching.terms import HotpatchTrack, InstallationPlan, ProductLine
from patching.track import TrackVerdict
from updates.models import KbHold, PatchSetMember, Release
from vms.models import VirtualMachine


def work_on(vm_ids: Collection[int], plan: InstallationPlan, *, now: datetime) -> dict[int, RunWork]:
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
    offered: dict[int, list[terms.Patch]] = defaultdict(list)
    for member in PatchSetMember.objects.filter(patch_set__any=array({row[1] for row in rows})).select_related("patch"):
        offered[member.patch_set_id].append(member.patch.facts)
    held: dict[int, tuple[str, ...]] = defaultdict(tuple)
    for vm_id, kb_number in KbHold.objects.filter(vm__any=ids).order_by("kb_number").values_list("vm_id", "kb_number"):
        held[vm_id] = (*held[vm_id], kb_number)
    releases = Release.objects.order_by("pk").facts()
    known: dict[tuple[str, date | None], Timetable] = {}
    judged: dict[Any, RunWork] = {}
    found = {}
    for pk, set_id, line, day_text, track, is_pending in rows:
        day = catalogue_day(day_text)
        key = (set_id, line, day, track, is_pending, held[pk])
        if key not in judged:
            guard = OFF_GUARD
            if line:
                if (line, day) not in known:
                    known[line, day] = timetable(releases, ProductLine(line), as_of(day, now))
                guard = guard_on(TrackVerdict(HotpatchTrack(track)), known[line, day])
            own = replace(plan, kb_numbers_to_exclude=(*plan.kb_numbers_to_exclude, *held[pk]))
            judged[key] = work_of(select(offered[set_id], own, guard=guard), own, is_reboot_pending=is_pending)
        found[pk] = judged[key]
    return found
