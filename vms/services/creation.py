"""Adding one VM record by hand, judged by the same rules as an import."""

from __future__ import annotations

from dataclasses import dataclass, field

from django.db import IntegrityError, transaction

from patching.eligibility import Eligibility, judge_eligibility
from patching.settings_rules import SettingsViolation, judge_settings
from patching.terms import (
    AssessmentMode,
    ImageReference,
    PatchMode,
    PatchSettings,
    Platform,
    RebootSetting,
)
from vms.models import Connection, ResourceGroup, VirtualMachine
from vms.selectors import image_catalog
from vms.services.summaries import refresh_hotpatch_statuses


class VmExistsError(ValueError):
    """A VM of this name is in the resource group already."""


class SettingsRefusedError(ValueError):
    """The rules refuse these settings; `violations` says why."""

    def __init__(self, violations: tuple[SettingsViolation, ...]) -> None:
        super().__init__(", ".join(violation.problem.value for violation in violations))
        self.violations = violations


@dataclass(frozen=True, slots=True)
class NewVm:
    """What a VM is to be. `enable_hotpatching` None: as its image has it by default."""

    name: str
    connection: Connection
    resource_group: ResourceGroup
    location: str
    image: ImageReference
    enable_hotpatching: bool | None = None
    patch_mode: PatchMode = PatchMode.AUTOMATIC_BY_PLATFORM
    reboot_setting: RebootSetting = RebootSetting.IF_REQUIRED
    zone: str = ""
    availability_set: str = ""
    time_zone: str = ""
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewVmVerdict:
    """What the rules say of a new VM: its eligibility, its settings with the image's defaults, and what is wrong."""

    eligibility: Eligibility
    settings: PatchSettings
    violations: tuple[SettingsViolation, ...]


def judge_new_vm(*, new: NewVm) -> NewVmVerdict:
    """Judge a VM before it is made (one query)."""
    platform = Platform(new.connection.platform)
    eligibility = judge_eligibility(new.image, image_catalog(), platform)
    entry = eligibility.catalog_image
    hotpatch = new.enable_hotpatching
    if hotpatch is None:
        hotpatch = entry is not None and entry.has_hotpatch_by_default
    settings = PatchSettings(
        enable_automatic_updates=new.patch_mode is not PatchMode.MANUAL,
        patch_mode=new.patch_mode,
        assessment_mode=AssessmentMode.AUTOMATIC_BY_PLATFORM,
        enable_hotpatching=hotpatch,
        reboot_setting=new.reboot_setting,
    )
    violations = judge_settings(settings, current=None, eligibility=eligibility, platform=platform)
    return NewVmVerdict(eligibility, settings, violations)


@transaction.atomic
def create_vm(*, new: NewVm) -> VirtualMachine:
    """Make the record of one VM. Raises SettingsRefusedError and VmExistsError; nothing is half made."""
    verdict = judge_new_vm(new=new)
    if verdict.violations:
        raise SettingsRefusedError(verdict.violations)
    group = new.resource_group
    arm_id = (
        f"/subscriptions/{group.subscription.subscription_id}/resourcegroups/{group.name}/providers/"
        f"microsoft.compute/virtualmachines/{new.name}"
    ).lower()
    vm = VirtualMachine(
        arm_id=arm_id,
        name=new.name,
        connection=new.connection,
        resource_group=group,
        location=new.location.replace(" ", "").lower(),
        zones=[new.zone] if new.zone else [],
        tags=new.tags,
        computer_name=new.name[:15],
        provisioning_state="Succeeded",
        image_publisher=new.image.publisher,
        image_offer=new.image.offer,
        image_sku=new.image.sku,
        image_version="latest" if new.image.sku else "",
        image_resource_id=new.image.resource_id,
        availability_set=new.availability_set,
        time_zone=new.time_zone,
        patch_mode=verdict.settings.patch_mode.value,
        assessment_mode=verdict.settings.assessment_mode.value,
        enable_automatic_updates=verdict.settings.enable_automatic_updates,
        enable_hotpatching=verdict.settings.enable_hotpatching,
        reboot_setting=verdict.settings.reboot_setting.value,
    )
    try:
        with transaction.atomic():
            vm.save(force_insert=True)
    except IntegrityError as error:
        raise VmExistsError(new.name) from error
    refresh_hotpatch_statuses(vm_ids=[vm.pk])
    return vm
