"""The words of the field: enums with ARM's exact spelling as value, and the frozen facts that rules take and give.

Our own words (states, tracks, verdicts) are snake_case. Instants are aware datetimes in UTC; days are dates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

# --- ARM's words -------------------------------------------------------------------------------------------------


class PatchMode(StrEnum):
    """Patch orchestration mode of a Windows VM (ARM: WindowsVMGuestPatchMode)."""

    MANUAL = "Manual"
    AUTOMATIC_BY_OS = "AutomaticByOS"
    AUTOMATIC_BY_PLATFORM = "AutomaticByPlatform"


class AssessmentMode(StrEnum):
    """Who triggers assessments (ARM: WindowsPatchAssessmentMode)."""

    IMAGE_DEFAULT = "ImageDefault"
    AUTOMATIC_BY_PLATFORM = "AutomaticByPlatform"


class RebootSetting(StrEnum):
    """What a plan allows (ARM: VMGuestPatchRebootSetting)."""

    IF_REQUIRED = "IfRequired"
    NEVER = "Never"
    ALWAYS = "Always"


class RebootBehavior(StrEnum):
    """What a patch does (ARM: VMGuestPatchRebootBehavior)."""

    UNKNOWN = "Unknown"
    NEVER_REBOOTS = "NeverReboots"
    ALWAYS_REQUIRES_REBOOT = "AlwaysRequiresReboot"
    CAN_REQUEST_REBOOT = "CanRequestReboot"


class RebootStatus(StrEnum):
    """What happened in a run (ARM: VMGuestPatchRebootStatus)."""

    UNKNOWN = "Unknown"
    NOT_NEEDED = "NotNeeded"
    REQUIRED = "Required"
    STARTED = "Started"
    FAILED = "Failed"
    COMPLETED = "Completed"


class Classification(StrEnum):
    """Class of a Windows update (ARM: VMGuestPatchClassificationWindows)."""

    CRITICAL = "Critical"
    SECURITY = "Security"
    UPDATE_ROLL_UP = "UpdateRollUp"
    FEATURE_PACK = "FeaturePack"
    SERVICE_PACK = "ServicePack"
    DEFINITION = "Definition"
    TOOLS = "Tools"
    UPDATES = "Updates"


CRITICAL_AND_SECURITY = frozenset({Classification.CRITICAL, Classification.SECURITY})


class RunStatus(StrEnum):
    """Outcome of an assessment or installation (ARM: PatchOperationStatus)."""

    UNKNOWN = "Unknown"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    SUCCEEDED = "Succeeded"
    COMPLETED_WITH_WARNINGS = "CompletedWithWarnings"


class InstallationState(StrEnum):
    """What a run did with one patch (ARM: PatchInstallationState)."""

    UNKNOWN = "Unknown"
    INSTALLED = "Installed"
    FAILED = "Failed"
    EXCLUDED = "Excluded"
    NOT_SELECTED = "NotSelected"
    PENDING = "Pending"


class ScaleSetOrchestration(StrEnum):
    """How the VM's scale set is orchestrated, if it is in one."""

    NONE = "none"
    FLEXIBLE = "Flexible"
    UNIFORM = "Uniform"


# --- our words ---------------------------------------------------------------------------------------------------


class Platform(StrEnum):
    """Where a connection's VMs run."""

    AZURE = "azure"
    AZURE_STACK_HCI = "azure_stack_hci"
    OTHER = "other"


class ProductLine(StrEnum):
    """A line of Windows Server that has a hotpatch calendar."""

    WS2022 = "ws2022"
    WS2025 = "ws2025"

    @property
    def title(self) -> str:  # type: ignore[override]  # a product's name, not str.title()
        """The product's full name, as release data spells it."""
        return PRODUCT_TITLES[self]

    @property
    def build_prefix(self) -> str:
        """The OS build number that every build of this line starts with."""
        return BUILD_PREFIXES[self]


PRODUCT_TITLES = {
    ProductLine.WS2022: "Windows Server 2022 Datacenter: Azure Edition",
    ProductLine.WS2025: "Windows Server 2025",
}
BUILD_PREFIXES = {ProductLine.WS2022: "20348", ProductLine.WS2025: "26100"}


class ReleaseType(StrEnum):
    """Kind of a monthly OS patch of a product line."""

    BASELINE = "baseline"
    HOTPATCH = "hotpatch"
    LCU = "lcu"
    OOB_HOTPATCH = "oob_hotpatch"
    OOB_LCU = "oob_lcu"


class Channel(StrEnum):
    """How an out-of-band release reaches machines. Monthly releases come through Windows Update."""

    WINDOWS_UPDATE = "windows_update"
    CATALOG_ONLY = "catalog_and_wsus"
    WITHDRAWN = "withdrawn"
    UNKNOWN = "unknown"


class Audience(StrEnum):
    """Who was offered an out-of-band release. Monthly releases are for everybody."""

    EVERYBODY = "everybody"
    FEW = "few"  # a limited set, before it was stopped
    UNKNOWN = "unknown"


HOTPATCH_TYPES = frozenset({ReleaseType.HOTPATCH, ReleaseType.OOB_HOTPATCH})
LCU_TYPES = frozenset({ReleaseType.LCU, ReleaseType.OOB_LCU})


class HotpatchStatus(StrEnum):
    """State of the hotpatch setting, as the Azure portal words it."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"
    NOT_AVAILABLE = "NotAvailable"
    PENDING_EVALUATION = "PendingEvaluation"


class HotpatchTrack(StrEnum):
    """Where the VM stands on the hotpatch train (docs/rules.md)."""

    ON_TRACK = "on_track"
    ON_TRACK_AS_FAR_AS_KNOWN = "on_track_as_far_as_known"  # later monthly releases are not recorded
    BASELINE_DUE = "baseline_due"
    BASELINE_OVERDUE = "baseline_overdue"  # since the first Patch Tuesday after the baseline's month
    WAITS_FOR_REBOOT = "waits_for_reboot"  # the baseline is installed, the reboot is missing
    OFF_TRACK_SINCE_KB = "off_track_since_kb"
    NOT_ON_TRAIN = "not_on_train"
    NEWER_THAN_CATALOGUE = "newer_than_catalogue"
    UNKNOWN = "unknown"


ON_TRACK_WORDS = frozenset({HotpatchTrack.ON_TRACK, HotpatchTrack.ON_TRACK_AS_FAR_AS_KNOWN})
DUE_WORDS = frozenset({HotpatchTrack.BASELINE_DUE, HotpatchTrack.BASELINE_OVERDUE, HotpatchTrack.WAITS_FOR_REBOOT})


class UpdateStatus(StrEnum):
    """Update status of a VM, as the Azure portal's overview counts it."""

    NO_UPDATES_AVAILABLE = "no_updates_available"
    UPDATES_AVAILABLE = "updates_available"
    REBOOT_REQUIRED = "reboot_required"
    NO_UPDATES_DATA = "no_updates_data"
    UNSUPPORTED = "unsupported"


class OperationKind(StrEnum):
    """What an operation does."""

    ASSESSMENT = "assessment"
    INSTALLATION = "installation"
    ROLLBACK = "rollback"
    SETTINGS = "settings"
    RESTART = "restart"

    @property
    def changes_the_machine(self) -> bool:
        """Whether it does more than look."""
        return self is not OperationKind.ASSESSMENT


class OperationState(StrEnum):
    """Where an operation is (patching.lifecycle holds the transitions)."""

    QUEUED = "queued"
    STARTING = "starting"
    IN_PROGRESS = "in_progress"
    REBOOTING = "rebooting"
    SUCCEEDED = "succeeded"
    COMPLETED_WITH_WARNINGS = "completed_with_warnings"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Verification(StrEnum):
    """Whether a later look confirmed what an installation reported."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    CONTRADICTED = "contradicted"
    NOT_VERIFIABLE = "not_verifiable"


# --- facts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImageReference:
    """The image a VM was made from, as ARM's imageReference holds it (empty string: not given).

    `edition`: what a machine outside of Azure runs instead, as its agent calls it (Windows Server 2025 Datacenter).
    """

    publisher: str = ""
    offer: str = ""
    sku: str = ""
    version: str = ""
    resource_id: str = ""  # a gallery or custom image's resource id, or a container image's name
    edition: str = ""


@dataclass(frozen=True, slots=True)
class CatalogImage:
    """One entry of the image catalogue: an exact publisher + offer + SKU that can be hotpatched."""

    publisher: str
    offer: str
    sku: str
    product_line: ProductLine
    is_server_core: bool = False
    has_hotpatch_by_default: bool = False


@dataclass(frozen=True, slots=True)
class PatchSettings:
    """The patch settings of a VM, as ARM's windowsConfiguration holds them."""

    provision_vm_agent: bool = True
    enable_automatic_updates: bool = True
    patch_mode: PatchMode = PatchMode.AUTOMATIC_BY_PLATFORM
    assessment_mode: AssessmentMode = AssessmentMode.IMAGE_DEFAULT
    enable_hotpatching: bool = False
    reboot_setting: RebootSetting = RebootSetting.IF_REQUIRED
    bypass_platform_safety_checks: bool = False

    @property
    def as_json(self) -> dict[str, str | bool]:
        """The settings as they are kept: names of fields, values as ARM spells them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value.value if isinstance(value, StrEnum) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> PatchSettings:
        """The settings that `as_json` kept. Raises ValueError or KeyError if they are none."""
        return cls(
            provision_vm_agent=bool(kept["provision_vm_agent"]),
            enable_automatic_updates=bool(kept["enable_automatic_updates"]),
            patch_mode=PatchMode(kept["patch_mode"]),
            assessment_mode=AssessmentMode(kept["assessment_mode"]),
            enable_hotpatching=bool(kept["enable_hotpatching"]),
            reboot_setting=RebootSetting(kept["reboot_setting"]),
            bypass_platform_safety_checks=bool(kept["bypass_platform_safety_checks"]),
        )


@dataclass(frozen=True, slots=True)
class Release:
    """One monthly or out-of-band OS patch of a product line, as recorded.

    `month` is the first day of its month; `released_on` is its day (the second Tuesday where `is_date_inferred`);
    an empty `kb_number` or `build` was not found in any source. `is_planned` means something on baselines only,
    `channel` and `audience` on out-of-band releases only. `is_type_confirmed` False: no primary source names its type
    and nobody has confirmed it.
    """

    product_line: ProductLine
    month: date
    type: ReleaseType
    released_on: date
    kb_number: str = ""
    build: str = ""
    is_planned: bool | None = None
    is_date_inferred: bool = False
    is_scheduled: bool = False  # announced, not yet released when the data was recorded
    channel: Channel = Channel.UNKNOWN
    audience: Audience = Audience.UNKNOWN
    is_type_confirmed: bool = True


@dataclass(frozen=True, slots=True)
class Patch:
    """One software update of the catalogue, identified by (product line, KB), else by its update id.

    `product_line` None: the update is for every line. `release_type` is None on what is not a monthly OS patch.
    `is_known_by_id`: another update of the same assessment has this KB, so the update id identifies it
    (patching.identity). `key` is the catalogue key: what makes this update the same update tomorrow.
    """

    kb_number: str
    title: str
    classification: Classification
    reboot_behavior: RebootBehavior
    product_line: ProductLine | None = None
    update_id: str = ""
    version: str = ""
    published_on: date | None = None
    release_type: ReleaseType | None = None
    is_known_by_id: bool = False
    key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        has_kb = self.kb_number and not self.is_known_by_id
        key = f"{self.product_line or ''}:{self.kb_number}" if has_kb else f"id:{self.update_id}"
        object.__setattr__(self, "key", key)


@dataclass(frozen=True, slots=True)
class InstalledUpdate:
    """One update that is on a VM, as Get-HotFix would list it."""

    patch: Patch
    installed_on: datetime


@dataclass(frozen=True, slots=True)
class InstallationPlan:
    """What an operator asks an installation to do (ARM: VirtualMachineInstallPatchesParameters).

    `guard_overrides` are the KBs that the operator allowed although they take the VM off the hotpatch train.
    """

    classifications: frozenset[Classification] = frozenset()
    kb_numbers_to_include: tuple[str, ...] = ()
    kb_numbers_to_exclude: tuple[str, ...] = ()
    exclude_kbs_requiring_reboot: bool = False
    max_patch_publish_date: date | None = None
    patch_name_masks_to_include: tuple[str, ...] = ()
    patch_name_masks_to_exclude: tuple[str, ...] = ()
    reboot_setting: RebootSetting = RebootSetting.IF_REQUIRED
    maximum_duration: timedelta = timedelta(minutes=120)
    guard_overrides: tuple[str, ...] = ()


MAX_DURATION_MINUTES = 235
DEFAULT_DURATION_MINUTES = 120
