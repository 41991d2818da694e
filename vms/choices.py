"""Labels of the values that a person can choose or read; the values themselves are `patching.terms`."""

from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

from django.utils.translation import gettext_lazy as _

from connectors.registry import AZURE, KINDS, SIMULATOR, Grade
from connectors.simulator import Misfortune
from patching.forecast import Outlook
from patching.orchestrator import Patcher
from patching.terms import (
    AssessmentMode,
    HotpatchStatus,
    HotpatchTrack,
    PatchMode,
    Platform,
    ProductLine,
    RebootSetting,
    ScaleSetOrchestration,
    UpdateStatus,
)


class PowerState(StrEnum):
    """Power state of a VM (ARM: PowerState/*)."""

    RUNNING = "running"
    STARTING = "starting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DEALLOCATING = "deallocating"
    DEALLOCATED = "deallocated"
    UNKNOWN = "unknown"


class Role(StrEnum):
    """What a role assignment allows; each role includes the weaker ones."""

    READER = "reader"
    OPERATOR = "operator"
    OWNER = "owner"

    @property
    def and_stronger(self) -> tuple[str, ...]:
        """This role and every role that includes it."""
        ranked = tuple(Role)
        return tuple(role.value for role in ranked[ranked.index(self) :])


class Scope(StrEnum):
    """Where a role assignment holds."""

    EVERYTHING = "everything"
    SUBSCRIPTION = "subscription"
    RESOURCE_GROUP = "resource_group"
    VM = "vm"


class Condition(StrEnum):
    """What the list can be narrowed to that is more than one word of a machine."""

    NEEDS_ATTENTION = "needs_attention"
    NEVER_ASSESSED = "never_assessed"
    ON_TRACK = "on_track"
    LACKS_CRITICAL = "lacks_critical"


class Need(IntEnum):
    """What a machine needs most, as far as its stored words say; the more urgent, the greater.

    From `ATTENTION` on a person has to act, or to look why nobody knows.
    """

    NOTHING = 0
    UNSUPPORTED = 5
    OTHERS = 10  # updates of other classes
    UPDATES = 20  # Critical or Security updates, and somebody installs them
    ASSESSMENT = 30  # nobody knows what it lacks
    INSTALLATION = 40  # Critical or Security updates, and nobody installs them by themselves
    BASELINE = 50  # its baseline is due
    REBOOT = 60
    OVERDUE_BASELINE = 70
    TRACK = 80  # it is off the hotpatch track


ATTENTION = Need.ASSESSMENT


class SelectionProblem(StrEnum):
    """Why a selection of machines means nothing (docs/rules.md, selection of machines)."""

    UNKNOWN_NAME = "unknown_name"
    UNKNOWN_WORD = "unknown_word"
    UNKNOWN_VALUE = "unknown_value"
    TOO_LONG = "too_long"
    UNREADABLE = "unreadable"
    BLANK = "blank"
    NO_WORD = "no_word"
    GIVEN_TWICE = "given_twice"
    NO_MACHINE_ID = "no_machine_id"
    MACHINE_GONE = "machine_gone"
    TICKED_AND_ALL = "ticked_and_all"
    NOTHING_TICKED = "nothing_ticked"
    NOTHING_MATCHES = "nothing_matches"
    ROLE_MISSING = "role_missing"
    TOO_MANY = "too_many"
    TOO_SLOW = "too_slow"
    NOT_SHOWN = "not_shown"
    SET_CHANGED = "set_changed"
    MEMBERS_CHANGED = "members_changed"


# The registry's own labels are English: it knows no Django.
KIND_LABELS = {SIMULATOR: _("Simulator"), AZURE: _("Azure")}
GRADES = [
    (Grade.SIMULATED.value, _("Simulated")),
    (Grade.PROTOCOL_PROVEN.value, _("Real protocol, not run on real machines yet")),
    (Grade.QUALIFIED.value, _("Run on real machines")),
]


def connection_kinds() -> list[tuple[str, Any]]:
    """The kinds of connectors that there are, with their labels."""
    return [(kind.name, KIND_LABELS.get(kind.name, kind.label)) for kind in KINDS.values()]


PLATFORMS = [
    (Platform.AZURE.value, _("Azure")),
    (Platform.AZURE_STACK_HCI.value, _("Azure Stack HCI")),
    (Platform.OTHER.value, _("Other")),
]
PRODUCT_LINES = [(line.value, line.title) for line in ProductLine]
POWER_STATES = [
    (PowerState.RUNNING.value, _("Running")),
    (PowerState.STARTING.value, _("Starting")),
    (PowerState.STOPPING.value, _("Stopping")),
    (PowerState.STOPPED.value, _("Stopped")),
    (PowerState.DEALLOCATING.value, _("Deallocating")),
    (PowerState.DEALLOCATED.value, _("Stopped (deallocated)")),
    (PowerState.UNKNOWN.value, _("Unknown")),
]
PATCH_MODES = [
    (PatchMode.AUTOMATIC_BY_PLATFORM.value, _("Azure Managed - Safe Deployment")),
    (PatchMode.AUTOMATIC_BY_OS.value, _("Windows Automatic Updates")),
    (PatchMode.MANUAL.value, _("Manual updates")),
]
ASSESSMENT_MODES = [
    (AssessmentMode.IMAGE_DEFAULT.value, _("Image default")),
    (AssessmentMode.AUTOMATIC_BY_PLATFORM.value, _("Every 24 hours")),
]
REBOOT_SETTINGS = [
    (RebootSetting.IF_REQUIRED.value, _("Reboot if required")),
    (RebootSetting.NEVER.value, _("Never reboot")),
    (RebootSetting.ALWAYS.value, _("Always reboot")),
]
SCALE_SET_ORCHESTRATIONS = [
    (ScaleSetOrchestration.NONE.value, _("Not in a scale set")),
    (ScaleSetOrchestration.FLEXIBLE.value, _("Flexible")),
    (ScaleSetOrchestration.UNIFORM.value, _("Uniform")),
]
UPDATE_STATUSES = [
    (UpdateStatus.NO_UPDATES_AVAILABLE.value, _("No updates available")),
    (UpdateStatus.UPDATES_AVAILABLE.value, _("Updates available")),
    (UpdateStatus.REBOOT_REQUIRED.value, _("Reboot required")),
    (UpdateStatus.NO_UPDATES_DATA.value, _("No updates data")),
    (UpdateStatus.UNSUPPORTED.value, _("Unsupported")),
]
HOTPATCH_STATUSES = [
    (HotpatchStatus.ENABLED.value, _("Enabled")),
    (HotpatchStatus.DISABLED.value, _("Disabled")),
    (HotpatchStatus.NOT_AVAILABLE.value, _("Not available")),
    (HotpatchStatus.PENDING_EVALUATION.value, _("Pending evaluation")),
]
HOTPATCH_TRACKS = [
    (HotpatchTrack.ON_TRACK.value, _("On track")),
    (HotpatchTrack.ON_TRACK_AS_FAR_AS_KNOWN.value, _("On track as far as known")),
    (HotpatchTrack.BASELINE_DUE.value, _("Baseline due")),
    (HotpatchTrack.BASELINE_OVERDUE.value, _("Baseline overdue")),
    (HotpatchTrack.WAITS_FOR_REBOOT.value, _("Baseline waits for its reboot")),
    (HotpatchTrack.OFF_TRACK_SINCE_KB.value, _("Off track")),
    (HotpatchTrack.NOT_ON_TRAIN.value, _("Not on the train")),
    (HotpatchTrack.NEWER_THAN_CATALOGUE.value, _("Newer than the catalog")),
    (HotpatchTrack.UNKNOWN.value, _("Unknown")),
]
# Whether the connection of a machine still lists it.
GONE_STATES = [("no", _("Not shown")), ("yes", _("Only these"))]
CONDITIONS = [
    (Condition.NEEDS_ATTENTION.value, _("Needs attention")),
    (Condition.NEVER_ASSESSED.value, _("Never assessed")),
    (Condition.ON_TRACK.value, _("On the hotpatch track")),
    (Condition.LACKS_CRITICAL.value, _("Lacks Critical or Security updates")),
]
# What stands in place of the month of a machine's next reboot; the months come before them in every order of texts.
NO_REBOOT, REBOOT_NOT_KNOWN = "none", "unknown"
OUTLOOKS = [
    (Outlook.WILL.value, _("Will reboot")),
    (Outlook.MAY.value, _("May reboot")),
    (Outlook.WILL_NOT.value, _("Will not reboot")),
    (Outlook.NOT_KNOWN.value, _("Not known")),
]
# What stands behind the month in which machines reboot, where not those are meant that will.
REBOOTS_HOW = {"may": _("May reboot"), "unknown": _("Not known"), "any": _("Will reboot, may reboot, or not known")}
COVERAGES = [("none", _("None")), ("one", _("One")), ("several", _("Several"))]
SETTINGS_STATES = [("differ", _("Not as wanted"))]
PATCHERS = [
    (Patcher.NOBODY.value, _("Nobody")),
    (Patcher.GUEST_OS.value, _("Windows itself")),
    (Patcher.PLATFORM.value, _("Azure, automatically")),
    (Patcher.PORTAL_AUTOMATICALLY.value, _("This portal, automatically")),
    (Patcher.PORTAL_BY_SCHEDULE.value, _("This portal, by schedule")),
]
ROLES = [
    (Role.READER.value, _("Reader")),
    (Role.OPERATOR.value, _("Patch operator")),
    (Role.OWNER.value, _("Owner")),
]
SCOPES = [
    (Scope.EVERYTHING.value, _("Everything")),
    (Scope.SUBSCRIPTION.value, _("Subscription")),
    (Scope.RESOURCE_GROUP.value, _("Resource group")),
    (Scope.VM.value, _("Virtual machine")),
]
MISFORTUNES = [
    (Misfortune.FAIL.value, _("An update fails")),
    (Misfortune.LIES.value, _("An update is reported as installed, and is not there")),
    (Misfortune.WINDOW_EXCEEDED.value, _("The first update takes the whole maximum duration")),
    (Misfortune.REBOOT_HANGS.value, _("The reboot does not end")),
    (Misfortune.UNREACHABLE.value, _("No start arrives")),
    (Misfortune.THROTTLED.value, _("Starts are refused for a minute")),
    (Misfortune.AGENT_NOT_READY.value, _("The VM agent is not ready")),
    (Misfortune.LOST_ANSWER.value, _("The answer to a start is lost for half a minute")),
    (Misfortune.SILENT.value, _("A run never ends")),
    (Misfortune.VBS_OFF.value, _("Virtualization-based security is off, so the machine is not ready for hotpatches")),
    (Misfortune.HOTPATCH_EXTENSION.value, _("The hotpatch extension is unhealthy, and hotpatches fail")),
    (Misfortune.BASELINE_REQUIRED.value, _("Hotpatches fail and ask for the baseline first")),
    (Misfortune.SETTINGS_CHANGED.value, _("Somebody changes its reboot setting on the machine, again and again")),
]


class Column(NamedTuple):
    """A column of the list: its name, its head, and the order that its head leads to, if there is one."""

    name: str
    label: Any
    order: str = ""
    descends_first: bool = False
    css: str = ""


# All but the name of the machine, which always comes first.
COLUMNS = {
    column.name: column
    for column in (
        Column("need", _("What it needs"), "need"),
        Column("critical", _("Critical and Security"), "critical", descends_first=True, css="number"),
        Column("other", _("Other"), css="number"),
        Column("update_status", _("Update status"), "update_status"),
        Column("hotpatch_status", _("Hotpatch status")),
        Column("track", _("Hotpatch track"), "track"),
        Column("next_reboot", _("Next reboot"), "reboot"),
        Column("assessed_at", _("Last assessed"), "assessed"),
        Column("image_sku", _("Image")),
        Column("product_line", _("Product line")),
        Column("tags", _("Tags")),
        Column("power_state", _("Power state")),
        Column("resource_group", _("Resource group")),
        Column("patcher", _("Patched by")),
        Column("location", _("Location")),
        Column("connection", _("Connection")),
    )
}
DEFAULT_COLUMNS = ("need", "critical", "track", "next_reboot", "assessed_at")


class ImportSource(StrEnum):
    """Where the rows of an import come from."""

    FILE = "file"
    DISCOVERY = "discovery"


class ImportDoor(StrEnum):
    """Through which door an import was asked for."""

    PAGE = "page"
    COMMAND = "command"
    SCHEDULE = "schedule"


class ImportPhase(StrEnum):
    """What an import is doing, or how it ended."""

    RECEIVING = "receiving"
    READING = "reading"
    TRYING = "trying"
    WRITING = "writing"
    TRIED = "tried"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """Whether the job has ended, or waits for a person."""
        return self in _OVER


_OVER = frozenset(
    {ImportPhase.TRIED, ImportPhase.SUCCEEDED, ImportPhase.FAILED, ImportPhase.STOPPED, ImportPhase.CANCELLED}
)
# Before this, nothing has been taken over: it can be cancelled.
BEFORE_WRITING = (ImportPhase.RECEIVING.value, ImportPhase.READING.value, ImportPhase.TRYING.value)
IMPORT_SOURCES = [(ImportSource.FILE.value, _("File")), (ImportSource.DISCOVERY.value, _("Inventory sync"))]
IMPORT_DOORS = [
    (ImportDoor.PAGE.value, _("Page")),
    (ImportDoor.COMMAND.value, _("Command line")),
    (ImportDoor.SCHEDULE.value, _("Schedule")),
]
IMPORT_PHASES = [
    (ImportPhase.RECEIVING.value, _("Receiving the file")),
    (ImportPhase.READING.value, _("Checking every row")),
    (ImportPhase.TRYING.value, _("Working out what would change")),
    (ImportPhase.WRITING.value, _("Importing")),
    (ImportPhase.TRIED.value, _("Dry run finished")),
    (ImportPhase.SUCCEEDED.value, _("Finished")),
    (ImportPhase.FAILED.value, _("Failed")),
    (ImportPhase.STOPPED.value, _("Stopped")),
    (ImportPhase.CANCELLED.value, _("Cancelled")),
]
