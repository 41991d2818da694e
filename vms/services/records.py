"""VM records by hand: making one, changing its facts; judged by the same rules as an import."""

from __future__ import annotations

from dataclasses import dataclass, field

import pghistory
from django.db import IntegrityError, transaction

from audit.services import Act
from audit.services import record as keep
from audit.tags import Tag
from patching.eligibility import Eligibility, judge_eligibility
from patching.settings_rules import SettingsViolation, judge_settings
from patching.terms import (
    AssessmentMode,
    ImageReference,
    PatchMode,
    PatchSettings,
    Platform,
    RebootSetting,
    ScaleSetOrchestration,
)
from vms.models import Connection, ResourceGroup, VirtualMachine
from vms.regions import region_name
from vms.selectors import build_of_image, image_catalog
from vms.services.summaries import refresh_hotpatch_statuses, refresh_patchers


class VmExistsError(ValueError):
    """A VM of this name is in the resource group already."""


class SettingsRefusedError(ValueError):
    """The rules refuse these settings; `violations` says why."""

    def __init__(self, violations: tuple[SettingsViolation, ...]) -> None:
        super().__init__(", ".join(violation.problem.value for violation in violations))
        self.violations = violations


@dataclass(frozen=True, slots=True)
class VmRecord:
    """The facts of a VM that a person keeps by hand."""

    connection: Connection
    location: str
    image: ImageReference
    zone: str = ""
    availability_set: str = ""
    time_zone: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    health_probe: str = ""

    def write_to(self, vm: VirtualMachine) -> None:
        """Put these facts on the VM. Another image is "latest": its exact version is not known yet."""
        vm.connection = self.connection
        vm.location = region_name(self.location)
        vm.zones = [self.zone] if self.zone else []
        vm.availability_set = self.availability_set
        vm.time_zone = self.time_zone
        vm.tags = self.tags
        vm.health_probe = self.health_probe
        if not is_same_image(vm.image, self.image):
            vm.os_edition = self.image.edition
            vm.image_publisher, vm.image_offer, vm.image_sku = self.image.publisher, self.image.offer, self.image.sku
            vm.image_resource_id = self.image.resource_id
            vm.image_version, vm.image_exact_version = "latest" if self.image.sku else "", ""


def is_same_image(one: ImageReference, other: ImageReference) -> bool:
    """Whether both name the same image, whatever the version; compared without case, as Azure does."""
    parts = [(i.publisher, i.offer, i.sku, i.resource_id, i.edition) for i in (one, other)]
    first, second = (tuple(part.lower() for part in names) for names in parts)
    return first == second


@dataclass(frozen=True, slots=True)
class NewVm:
    """What a VM is to be. `enable_hotpatching` None: as its image has it, on for every image of the image catalog."""

    name: str
    resource_group: ResourceGroup
    record: VmRecord
    enable_hotpatching: bool | None = None
    patch_mode: PatchMode = PatchMode.AUTOMATIC_BY_PLATFORM
    reboot_setting: RebootSetting = RebootSetting.IF_REQUIRED


@dataclass(frozen=True, slots=True)
class RecordVerdict:
    """What the rules say of a record: its eligibility, its settings with the image's defaults, and what is wrong."""

    eligibility: Eligibility
    settings: PatchSettings
    violations: tuple[SettingsViolation, ...]


def judge_new_vm(*, new: NewVm) -> RecordVerdict:
    """Judge a VM before it is made (one query)."""
    platform = Platform(new.record.connection.platform)
    eligibility = judge_eligibility(new.record.image, image_catalog(), platform)
    entry = eligibility.catalog_image
    hotpatch = new.enable_hotpatching
    if hotpatch is None:
        # As the Azure portal preselects it at creation, on Core or not.
        hotpatch = entry is not None
    settings = PatchSettings(
        enable_automatic_updates=new.patch_mode is not PatchMode.MANUAL,
        patch_mode=new.patch_mode,
        assessment_mode=AssessmentMode.AUTOMATIC_BY_PLATFORM,
        enable_hotpatching=hotpatch,
        reboot_setting=new.reboot_setting,
    )
    violations = judge_settings(settings, current=None, eligibility=eligibility, platform=platform)
    return RecordVerdict(eligibility, settings, violations)


@transaction.atomic
def create_vm(*, new: NewVm) -> VirtualMachine:
    """Make the record of one VM. Raises SettingsRefusedError and VmExistsError; nothing is half made."""
    verdict = judge_new_vm(new=new)
    if verdict.violations:
        raise SettingsRefusedError(verdict.violations)
    group = new.resource_group
    vm = VirtualMachine(
        arm_id=(
            f"/subscriptions/{group.subscription.subscription_id}/resourcegroups/{group.name}/providers/"
            f"microsoft.compute/virtualmachines/{new.name}"
        ).lower(),
        name=new.name,
        resource_group=group,
        computer_name=new.name[:15],
        provisioning_state="Succeeded",
        patch_mode=verdict.settings.patch_mode.value,
        assessment_mode=verdict.settings.assessment_mode.value,
        enable_automatic_updates=verdict.settings.enable_automatic_updates,
        enable_hotpatching=verdict.settings.enable_hotpatching,
        reboot_setting=verdict.settings.reboot_setting.value,
    )
    new.record.write_to(vm)
    try:
        with transaction.atomic(), pghistory.context(source="page"):
            vm.save(force_insert=True)
    except IntegrityError as error:
        raise VmExistsError(new.name) from error
    keep(acts=[Act(Tag.RECORD_CREATE, **vm.where)])
    refresh_hotpatch_statuses(vm_ids=[vm.pk])
    refresh_patchers(among=VirtualMachine.objects.filter(pk=vm.pk))
    return vm


def judge_record(*, vm: VirtualMachine, record: VmRecord) -> RecordVerdict:
    """Judge what a VM (loaded with its connection) would be with these facts (one query).

    Its settings are held against it only where image or platform change: what an import brought may stay as it is.
    """
    platform = Platform(record.connection.platform)
    is_same = is_same_image(vm.image, record.image)
    eligibility = judge_eligibility(
        record.image,
        image_catalog(),
        platform,
        scale_set_orchestration=ScaleSetOrchestration(vm.scale_set_orchestration),
        os_build=build_of_image(*((vm.image_exact_version, vm.image_version) if is_same else ("", "")), vm.os_build),
    )
    settings = vm.patch_settings
    violations: tuple[SettingsViolation, ...] = ()
    if not is_same or platform != vm.connection.platform:
        violations = judge_settings(settings, current=settings, eligibility=eligibility, platform=platform)
    return RecordVerdict(eligibility, settings, violations)


@transaction.atomic
def change_record(*, vm_id: int, record: VmRecord) -> VirtualMachine:
    """Change the facts of one VM; what assessments and runs found stays. Raises SettingsRefusedError."""
    vm = VirtualMachine.objects.select_related("connection").select_for_update(of=("self",)).get(pk=vm_id)
    verdict = judge_record(vm=vm, record=record)
    if verdict.violations:
        raise SettingsRefusedError(verdict.violations)
    record.write_to(vm)
    with pghistory.context(source="page"):
        vm.save(update_fields=_WRITTEN)
        keep(acts=[Act(Tag.RECORD_CHANGE, **vm.where)])
    refresh_hotpatch_statuses(vm_ids=[vm.pk])
    refresh_patchers(among=VirtualMachine.objects.filter(pk=vm.pk))
    return vm


_WRITTEN = (
    "connection",
    "location",
    "zones",
    "tags",
    "image_publisher",
    "image_offer",
    "image_sku",
    "image_version",
    "image_exact_version",
    "image_resource_id",
    "os_edition",
    "availability_set",
    "time_zone",
    "health_probe",
)
