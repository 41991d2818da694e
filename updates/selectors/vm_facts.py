"""What the engine needs to know of VMs, loaded for a whole batch in three queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import lru_cache

from connectors.protocol import VmRef
from patching.eligibility import Eligibility, EligibilityVerdict, line_of_build
from patching.releases import as_of
from patching.terms import InstalledUpdate, Platform, ProductLine
from updates.models import InstalledPatch
from updates.selectors.catalogue import LoadedCatalogue
from vms.models import VirtualMachine
from vms.selectors import eligibilities_of


@dataclass(frozen=True, slots=True)
class VmFacts:
    """One VM: how a connector sees it, and what the rules ask for. `os_build` and installed updates are as recorded."""

    ref: VmRef
    connection_id: int
    platform: Platform
    eligibility: Eligibility
    catalogue_date: date | None
    last_assessed_at: datetime | None
    patch_set_id: int | None

    def as_of(self, now: datetime) -> datetime:
        """The moment up to which releases count for this VM."""
        return as_of(self.catalogue_date, now)

    def line_with(self, os_build: str) -> ProductLine | None:
        """The product line once this build was found: a VM whose image names none gets it from the build."""
        return self.eligibility.product_line or line_of_build(os_build)


_with_version = lru_cache(maxsize=4_096)(replace)


def load_vm_facts(vm_ids: Collection[int], catalogue: LoadedCatalogue) -> dict[int, VmFacts]:
    """The facts of these VMs by id; VMs that are gone are left out."""
    installed: dict[int, list[InstalledUpdate]] = defaultdict(list)
    rows = (
        InstalledPatch.objects.filter(vm_id__in=vm_ids)
        .order_by("vm_id", "installed_on", "patch_id")
        .values_list("vm_id", "patch_id", "version", "installed_on")
    )
    for vm_id, patch_id, version, installed_on in rows:
        patch = catalogue.patches_by_pk[patch_id]
        if patch.version != version:
            patch = _with_version(patch, version=version)
        installed[vm_id].append(InstalledUpdate(patch=patch, installed_on=installed_on))
    vms = list(VirtualMachine.objects.filter(pk__in=vm_ids).select_related("connection", "update_state"))
    builds = {vm.pk: state.os_build for vm in vms if (state := getattr(vm, "update_state", None))}
    eligibilities = eligibilities_of(vms, os_builds=builds)
    return {vm.pk: _facts(vm, eligibilities[vm.pk], tuple(installed[vm.pk])) for vm in vms}


def _facts(vm: VirtualMachine, eligibility: Eligibility, installed: tuple[InstalledUpdate, ...]) -> VmFacts:
    state = getattr(vm, "update_state", None)
    os_build = state.os_build if state else ""
    is_eligible = eligibility.verdict is EligibilityVerdict.ELIGIBLE
    return VmFacts(
        ref=VmRef(
            vm_id=vm.pk,
            arm_id=vm.arm_id,
            name=vm.name,
            image=vm.image,
            product_line=eligibility.product_line,
            settings=vm.patch_settings,
            is_hotpatch_enabled=is_eligible and vm.enable_hotpatching,
            os_build=os_build,
            power_state=vm.power_state,
            installed=installed,
            is_reboot_pending=vm.is_reboot_pending,
            tags=tuple(sorted((str(key), str(value)) for key, value in vm.tags.items())),
        ),
        connection_id=vm.connection_id,
        platform=Platform(vm.connection.platform),
        eligibility=eligibility,
        catalogue_date=vm.connection.catalogue_date,
        last_assessed_at=state.last_assessed_at if state else None,
        patch_set_id=state.patch_set_id if state else None,
    )
