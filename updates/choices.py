"""Labels of the values of updates that a person can choose or read; the values themselves are `patching.terms`."""

from enum import StrEnum

from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from patching.terms import (
    Audience,
    Channel,
    Classification,
    InstallationState,
    OperationKind,
    OperationState,
    RebootBehavior,
    RebootStatus,
    ReleaseType,
    Verification,
)

CLASSIFICATIONS = [
    (Classification.CRITICAL.value, _("Critical")),
    (Classification.SECURITY.value, _("Security")),
    (Classification.UPDATE_ROLL_UP.value, _("Update rollup")),
    (Classification.FEATURE_PACK.value, _("Feature pack")),
    (Classification.SERVICE_PACK.value, _("Service pack")),
    (Classification.DEFINITION.value, _("Definition")),
    (Classification.TOOLS.value, _("Tools")),
    (Classification.UPDATES.value, _("Updates")),
]
# In a form, where there is room for the whole word.
CLASSIFICATION_CHOICES = [
    (Classification.CRITICAL.value, pgettext_lazy("choice", "Critical")),
    (Classification.SECURITY.value, pgettext_lazy("choice", "Security")),
    *CLASSIFICATIONS[2:],
]
REBOOT_BEHAVIORS = [
    (RebootBehavior.UNKNOWN.value, _("Unknown")),
    (RebootBehavior.NEVER_REBOOTS.value, _("Never reboots")),
    (RebootBehavior.ALWAYS_REQUIRES_REBOOT.value, _("Requires a reboot")),
    (RebootBehavior.CAN_REQUEST_REBOOT.value, _("May require a reboot")),
]
REBOOT_STATUSES = [
    (RebootStatus.UNKNOWN.value, _("Unknown")),
    (RebootStatus.NOT_NEEDED.value, _("Not needed")),
    (RebootStatus.REQUIRED.value, _("Required")),
    (RebootStatus.STARTED.value, pgettext_lazy("reboot", "Started")),
    (RebootStatus.FAILED.value, _("Failed")),
    (RebootStatus.COMPLETED.value, _("Completed")),
]
RELEASE_TYPES = [
    (ReleaseType.BASELINE.value, _("Baseline")),
    (ReleaseType.HOTPATCH.value, _("Hotpatch")),
    (ReleaseType.LCU.value, _("Cumulative update")),
    (ReleaseType.OOB_HOTPATCH.value, _("Out-of-band hotpatch")),
    (ReleaseType.OOB_LCU.value, _("Out-of-band cumulative update")),
]
OPERATION_KINDS = [
    (OperationKind.ASSESSMENT.value, _("Assessment")),
    (OperationKind.INSTALLATION.value, _("Installation")),
    (OperationKind.ROLLBACK.value, _("Rollback")),
    (OperationKind.SETTINGS.value, _("Settings")),
    (OperationKind.RESTART.value, _("Restart")),
]
OPERATION_STATES = [
    (OperationState.QUEUED.value, _("Queued")),
    (OperationState.STARTING.value, _("Starting")),
    (OperationState.IN_PROGRESS.value, _("In progress")),
    (OperationState.REBOOTING.value, _("Rebooting")),
    (OperationState.SUCCEEDED.value, _("Succeeded")),
    (OperationState.COMPLETED_WITH_WARNINGS.value, _("Completed with warnings")),
    (OperationState.FAILED.value, _("Failed")),
    (OperationState.CANCELLED.value, _("Cancelled")),
]
INSTALLATION_STATES = [
    (InstallationState.UNKNOWN.value, _("Unknown")),
    (InstallationState.INSTALLED.value, pgettext_lazy("patch", "Installed")),
    (InstallationState.FAILED.value, pgettext_lazy("patch", "Failed")),
    (InstallationState.EXCLUDED.value, pgettext_lazy("patch", "Excluded")),
    (InstallationState.NOT_SELECTED.value, pgettext_lazy("patch", "Not selected")),
    (InstallationState.PENDING.value, pgettext_lazy("patch", "Pending")),
]
VERIFICATIONS = [
    (Verification.PENDING.value, _("Pending")),
    (Verification.CONFIRMED.value, _("Confirmed")),
    (Verification.CONTRADICTED.value, _("Contradicted")),
    (Verification.NOT_VERIFIABLE.value, _("Not verifiable")),
]
RELEASE_STATUSES = [("released", _("Released")), ("scheduled", _("Scheduled"))]
CHANNELS = [
    (Channel.UNKNOWN.value, pgettext_lazy("channel", "Unknown")),
    (Channel.WINDOWS_UPDATE.value, _("Windows Update")),
    (Channel.CATALOG_ONLY.value, _("Update Catalog and WSUS only")),
    (Channel.WITHDRAWN.value, _("Withdrawn")),
]
AUDIENCES = [
    (Audience.UNKNOWN.value, pgettext_lazy("audience", "Unknown")),
    (Audience.EVERYBODY.value, _("Everybody")),
    (Audience.FEW.value, _("A few machines")),
]
# Days of a history.
PERIODS = [
    (1, _("Last 24 hours")),
    (7, _("Last 7 days")),
    (15, _("Last 15 days")),
    (30, _("Last 30 days")),
]


class RunPart(StrEnum):
    """What became of a machine of a run; each machine is in just one part."""

    SUCCEEDED = "succeeded"
    WITH_WARNINGS = "with_warnings"
    CONTRADICTED = "contradicted"
    FAILED = "failed"
    RUNNING = "running"
    WAITING = "waiting"
    SKIPPED = "skipped"  # nothing was started on it, and nothing will be


class AgainProblem(StrEnum):
    """Why some installations cannot be asked for once more together."""

    NOTHING_NAMED = "nothing_named"
    NO_OPERATION = "no_operation"
    TOO_MANY = "too_many"
    GONE = "gone"
    NO_INSTALLATION = "no_installation"
    UNREADABLE = "unreadable"
    NAME_MASKS = "name_masks"
    SEVERAL_PLANS = "several_plans"
