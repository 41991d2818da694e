"""The hotpatch guard at a machine that knows none: which KBs are named as left out when Azure is asked to install by class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from connectors.catalogue import Catalogue
from connectors.protocol import VmRef
from patching.selection import Guard, guard_for
from patching.terms import InstallationPlan, Patch
from patching.track import judge_track


def guard_of(vm: VmRef, catalogue: Catalogue, now: datetime) -> Guard:
    """The portal's guard for this machine, by the portal's record."""
    verdict = judge_track(
        catalogue.releases,
        vm.product_line,
        is_hotpatch_on=vm.is_hotpatch_enabled,
        installed_kbs={update.patch.kb_number for update in vm.installed},
        os_build=vm.os_build,
        as_of=now,
        is_reboot_pending=vm.is_reboot_pending,
    )
    return guard_for(verdict, catalogue.releases, vm.product_line, now)


def is_guarding(guard: Guard) -> bool:
    """Whether it may leave out anything at all."""
    return guard.known is not None


def held_kbs(guard: Guard, plan: InstallationPlan, catalogue: Catalogue, offers: Iterable[Patch]) -> frozenset[str]:
    """The KBs, recorded or on offer, that the guard leaves out, but for those that the plan allows by name."""
    if guard.known is None:
        return frozenset()
    recorded = [catalogue.patch_for(release) for release in guard.known.out]
    offers = tuple(offers)
    baseline = guard.known.baseline
    is_offered = baseline is None or any(patch.kb_number == baseline.kb_number for patch in offers)
    held = {
        patch.kb_number
        for patch in (*recorded, *offers)
        if patch is not None and patch.kb_number and guard.holds(patch, is_baseline_offered=is_offered)
    }
    return frozenset(held - set(plan.guard_overrides))


def up_to_the_record(guard: Guard, plan: InstallationPlan) -> InstallationPlan:
    """The plan without what was published after the newest recorded release, since its type is not known.

    For a machine whose offers cannot be read. What it leaves out is Excluded by the machine, and offered again.
    """
    if guard.known is None or not guard.known.out:
        return plan
    newest = max(release.released_on for release in guard.known.out)
    asked = plan.max_patch_publish_date
    return replace(plan, max_patch_publish_date=min(asked, newest) if asked else newest)
