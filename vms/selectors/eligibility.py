"""Which machines can be hotpatched, as the image catalogue says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from patching.eligibility import Eligibility, catalog_index, judge_eligibility
from patching.terms import CatalogImage, HotpatchStatus, Platform, ScaleSetOrchestration, UpdateStatus
from vms.models import ImageCatalogEntry, VirtualMachine


def image_catalog() -> dict[tuple[str, str, str], CatalogImage]:
    """The image catalogue as the rules take it (one query)."""
    return catalog_index(entry.facts for entry in ImageCatalogEntry.objects.all())


def build_of_image(exact_version: str, version: str, reported: str = "") -> str:
    """The OS build that an inventory reported, else the one that an image version names ("20348.5074.260507")."""
    return next((text for text in (reported, exact_version, version) if text[:1].isdigit()), "")


def eligibilities_of(
    vms: Iterable[VirtualMachine], *, os_builds: Mapping[int, str] | None = None
) -> dict[int, Eligibility]:
    """Eligibility by VM id, judged by the catalogue as it is now: one query for any number of VMs.

    The VMs must come with their `connection`. `os_builds`: the builds that assessments found, by VM id; without
    one, the build that the image's version names.
    """
    catalog = image_catalog()
    builds = os_builds or {}
    return {
        vm.pk: judge_eligibility(
            vm.image,
            catalog,
            Platform(vm.connection.platform),
            scale_set_orchestration=ScaleSetOrchestration(vm.scale_set_orchestration),
            os_build=builds.get(vm.pk) or build_of_image(vm.image_exact_version, vm.image_version, vm.os_build),
        )
        for vm in vms
    }


def eligibility_of(vm: VirtualMachine, *, os_build: str = "") -> Eligibility:
    """Eligibility of one VM by the catalogue as it is now."""
    return eligibilities_of([vm], os_builds={vm.pk: os_build})[vm.pk]


def was_assessed(update_status: str, hotpatch_status: str) -> bool:
    """Whether an assessment has ever told something about the VM, as far as its summary shows.

    Only an assessment leads to these values; "no updates data" is where a VM starts, and where one
    ends whose assessment has grown old. (When it happened is the business of the floor above.)
    """
    return update_status in {
        UpdateStatus.NO_UPDATES_AVAILABLE,
        UpdateStatus.UPDATES_AVAILABLE,
        UpdateStatus.REBOOT_REQUIRED,
    } or hotpatch_status in {HotpatchStatus.ENABLED, HotpatchStatus.DISABLED}
