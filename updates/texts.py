"""Codes in the operator's words: errors with advice, events of a timeline, reasons, causes, steps.

The codes are members of the enums that the dictionaries are keyed by. tests/updates/test_texts.py holds that every member
has its words, in English and in Japanese.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from django.conf import settings
from django.db.models import Model
from django.utils.functional import Promise, lazy
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from connectors.probe import ProbeFailure
from patching.codes import ErrorCode, EventCode, Fault, RolloutReason, storable_code
from patching.one_release import DecisionProblem
from patching.orchestrator import Patcher, PatcherReason
from patching.recurrence import BlackoutProblem, Frequency, RecurrenceProblem
from patching.release_files import FileProblem, RowProblem
from patching.scope import ScopeProblem
from patching.selection import HoldReason, PlanProblem, RebootProspect, SelectionReason
from patching.status import StaleCause
from patching.track import Contradiction, OffTrainReason
from updates.choices import RELEASE_TYPES, AgainProblem, RunPart
from vms import choices

Text = str | Promise


def _with_hours(words: Text) -> str:
    return str(words) % {"hours": settings.OFF_PEAK}


# Words that name the off-peak hours (%(hours)s) as they are set.
off_peak_words = lazy(_with_hours, str)


@dataclass(frozen=True, slots=True)
class ErrorText:
    """What went wrong, and what to do about it. Whose fault it is, the code itself says (`patching.codes.ErrorCode.fault`)."""

    title: Text
    advice: Text
    # What to do with the button to run it again: said only where that button is.
    retry: Text = ""


ERRORS: dict[ErrorCode, ErrorText] = {
    ErrorCode.WINDOW_EXCEEDED: ErrorText(
        _("The maximum duration was too short."),
        _("Before each update 10 minutes for the update (15 for a service pack) and 10 for the reboot must be left."),
        _("Run it again with a longer maximum duration: what is installed stays installed."),
    ),
    ErrorCode.PATCH_FAILED: ErrorText(
        _("At least one update could not be installed."),
        _("See the update's own error below."),
        _("Run the installation again once its cause is removed."),
    ),
    ErrorCode.REBOOT_FAILED: ErrorText(
        _("The machine did not come back from its reboot in time."),
        _("Check its console or serial log. When it answers again, assess it to see what is installed."),
    ),
    ErrorCode.REBOOT_REQUIRED: ErrorText(
        _("A reboot is required to finish the installation."),
        _(
            "The reboot option was “Never reboot”. Reboot the machine in a maintenance window; until then the old code runs."
        ),
    ),
    ErrorCode.ASSESSMENT_FAILED: ErrorText(
        _("The assessment failed."), _("Check the Windows Update service of the machine."), _("Then assess it again.")
    ),
    ErrorCode.BULK_FAILED: ErrorText(
        _("The rest of this request could not be handed out."),
        _("The workers' log has the cause. Machines without an answer were not asked; ask for them again."),
    ),
    ErrorCode.BULK_CANCELLED: ErrorText(
        _("It was cancelled before every machine had been asked."),
        _("Machines without an answer were not asked, and what was queued was taken back."),
    ),
    ErrorCode.BULK_OUTDATED: ErrorText(
        _("The portal was upgraded before every machine had been asked."),
        _("Which machines were meant was not kept by the version before. Ask for those without an answer again."),
    ),
    ErrorCode.ROLE_MISSING: ErrorText(
        _("Who asked for it is no Patch operator of the machine."),
        _("Ask an Owner for the role on the machine, then ask again."),
    ),
    ErrorCode.ROLLBACK_UNKNOWN_STATE: ErrorText(
        _("Which updates are installed is not known, or they do not explain the machine's build."),
        _("Assess the machine first; only then it can be rolled back."),
    ),
    ErrorCode.SETTINGS_NOT_TAKEN: ErrorText(
        _("The machine reports other settings than it was told."),
        _("Something on the machine or its platform sets them: a policy, or another tool."),
        _("Change it there, then apply the settings again."),
    ),
    ErrorCode.ROLLBACK_NO_EARLIER_BASELINE: ErrorText(
        _("No earlier baseline is known to go back to."), _("Restore the machine from a backup instead.")
    ),
    ErrorCode.ROLLBACK_NOT_SUPPORTED: ErrorText(
        _("This connection cannot uninstall updates."),
        _("There is no way back through the portal. Uninstall on the machine itself, then assess it."),
    ),
    ErrorCode.RESTART_NOT_SUPPORTED: ErrorText(
        _("This connection cannot restart machines."),
        _("Restart the machine with its own tools, then assess it here."),
    ),
    ErrorCode.RESTART_UNKNOWN_STATE: ErrorText(
        _("Whether a reboot is pending is not known: the machine was not assessed within the last 7 days."),
        _("Assess it first."),
    ),
    ErrorCode.RESTART_NOT_NEEDED: ErrorText(
        _("No reboot is pending on the machine, so it is not restarted."),
        _("If you expect one, assess the machine again."),
    ),
    ErrorCode.RESTART_UPDATES_FIRST: ErrorText(
        _("The machine lacks Critical or Security updates besides the reboot."),
        _("Install them: the same run reboots the machine once, for both."),
    ),
    ErrorCode.CONNECTION_UNUSABLE: ErrorText(
        _("The connection cannot be used."),
        _("Its page says what is wrong: Connections, then its name. Nothing was sent to the machine."),
        _("Mend the connection, then run it again."),
    ),
    ErrorCode.CONNECTOR_SILENT: ErrorText(
        _("The machine has not answered for an hour after the maximum duration."),
        _("What was installed is not known. An assessment has been queued; installations wait until it has answered."),
    ),
    ErrorCode.START_UNCONFIRMED: ErrorText(
        _("It is not known whether the machine received the start."),
        _(
            "It is not sent again, so nothing runs twice. An assessment has been queued that finds out what is installed."
        ),
    ),
    ErrorCode.PAYLOAD_UNREADABLE: ErrorText(
        _("The portal cannot read what this operation was to do."),
        _("The technical detail says why. It was kept by another version of the portal, or changed by hand."),
        _("Ask for it again."),
    ),
    ErrorCode.CONNECTOR_UNREACHABLE: ErrorText(
        _("The machine could not be reached."),
        _("Check that it is running and on the network."),
        _("Then run it again."),
    ),
    ErrorCode.CONNECTOR_THROTTLED: ErrorText(
        _("The connection was limited for too long (HTTP 429)."), "", _("Run it again in a few minutes.")
    ),
    ErrorCode.CONNECTOR_TIMEOUT: ErrorText(
        _("The machine's platform did not answer in time."), _("Assess the machine to see what is installed.")
    ),
    ErrorCode.CONNECTOR_GARBAGE: ErrorText(
        _("The answer could not be understood."),
        _("See the technical detail. Assess the machine to see what is installed."),
    ),
    ErrorCode.AGENT_NOT_READY: ErrorText(
        _("The VM agent is not ready."),
        _("Check that the agent is installed and running in the machine."),
        _("Then run it again."),
    ),
    ErrorCode.HOTPATCH_VBS_OFF: ErrorText(
        _("The machine is not ready for hotpatches: virtualization-based security does not run."),
        _(
            "Turn virtualization-based security on (UEFI with Secure Boot is needed), reboot the machine and assess it. "
            "Until then Windows Update offers it cumulative updates, which reboot."
        ),
    ),
    ErrorCode.HOTPATCH_EXTENSION_UNHEALTHY: ErrorText(
        _("The hotpatch extension of the machine is unhealthy."),
        _(
            "Uninstall the extension Microsoft.CPlat.Core.WindowsHotpatch and assess the machine, which installs it again."
        ),
        _("Then run it again."),
    ),
    ErrorCode.HOTPATCH_BASELINE_REQUIRED: ErrorText(
        _("The machine needs its baseline before a hotpatch."),
        _("Install the newest baseline, which reboots, and assess the machine. Then the hotpatch applies."),
    ),
    ErrorCode.VM_NOT_RUNNING: ErrorText(_("The machine is not running."), _("Start it."), _("Then run it again.")),
    ErrorCode.VM_UNSUPPORTED: ErrorText(
        _("This operating system is not supported."),
        _("Hotpatch Portal knows Windows Server 2022 and 2025 by their image or their OS build."),
    ),
    ErrorCode.VM_BUSY: ErrorText(
        _(
            "The platform is doing something else on this machine, which somebody or something outside of the portal started."
        ),
        _("Wait until it has ended."),
        _("Then run it again."),
    ),
    ErrorCode.OPERATION_LOST: ErrorText(
        _("The platform knows nothing of this run any more."),
        _("What it did is not known. Assess the machine to see what is installed."),
    ),
    ErrorCode.PERMISSION_MISSING: ErrorText(
        _("The account of the connection lacks a permission."),
        _("The technical detail names it. Give the account a role that has it, then test the connection."),
        _("Then run it again."),
    ),
    ErrorCode.VM_GONE: ErrorText(
        _("The machine is gone: its connection lists it no more, so the portal starts nothing on it by itself."),
        _("If it still exists, sync the inventory of its connection; the next list that names it brings it back."),
    ),
    ErrorCode.VM_AWAITING_ASSESSMENT: ErrorText(
        _("It is not known what the last run left on the machine."),
        _("Assess the machine first; installations and restarts are possible again when it has answered."),
    ),
    ErrorCode.CONFLICT_INSTALLATION_OPEN: ErrorText(
        _("An operation that changes this machine is queued or running."),
        _("Wait until it has ended, or cancel it while it is queued."),
    ),
    ErrorCode.FREEZE_HELD: ErrorText(
        _("A freeze holds the machine: the act would begin in it, or could still run when it begins."),
        _(
            "Wait until the freeze ends, or choose a maximum duration that ends before it. Freezes says until when and why."
        ),
    ),
    ErrorCode.VM_NOT_ASSESSED: ErrorText(
        _("The machine has never been assessed, so it is not known what a run would do there."),
        _("Assess it, then plan again."),
    ),
    ErrorCode.PLAN_CHANGED: ErrorText(
        _("A run would now do more on this machine than was confirmed, so it was left out."),
        _("Look at it again, and confirm what it needs by now."),
    ),
    ErrorCode.PLAN_NOTHING_TO_DO: ErrorText(
        _("There is nothing to do: no update that the plan takes, and no reboot that is pending."),
        _("Choose other classifications or KB articles, or assess the machine to see whether it lacks something new."),
    ),
    ErrorCode.REQUEST_ID_TAKEN: ErrorText(
        _("This form belongs to another request."), _("Open the page again and repeat your choice.")
    ),
    ErrorCode.UNKNOWN: ErrorText(_("Something went wrong."), _("See the technical detail.")),
}

# Where to look first.
FAULTS: dict[Fault, Text] = {
    Fault.MACHINE: _("Cause: the machine."),
    Fault.CONNECTION: _("Cause: the connection to the machine's platform."),
    Fault.PORTAL: _("Cause: this portal."),
    Fault.PERSON: _("Cause: what was asked for."),
    Fault.OTHER_SIDE: _("Cause: the machine's platform."),
}

_STORE = _("Repair the component store: DISM /Online /Cleanup-Image /RestoreHealth, then sfc /scannow.")
_NETWORK = _("Check name resolution, proxy and firewall between the machine and its update source.")
_SERVICE = _("Check the Windows Update service (wuauserv) of the machine.")
_LOG = _("Details may be in C:\\Windows\\Logs\\CBS\\CBS.log of the machine.")
_RESTART = _("Restart the machine.")
_LOCKED = _(
    "Find the program that holds the file, often an antivirus: CBS.log names the file, Process Monitor the program."
)
_SCAN = _("Check the antivirus of the machine: it may block C:\\Windows\\SoftwareDistribution. CBS.log names the file.")
_DOWNLOADS = _(
    "Stop the Windows Update service, rename C:\\Windows\\SoftwareDistribution and start it: everything is downloaded anew."
)
_TRANSFER = _("Check the Background Intelligent Transfer Service (BITS) of the machine.")
_SOURCE = _("Check the update source itself: WSUS, its application pool, or the proxy before it.")
_PROXY = _("Set a proxy for WinHTTP that lets the machine through without a sign-in: netsh winhttp show proxy.")
_SLOW = _("Give the machine more processors and memory, and less to do in its window.")


class LearnPage(StrEnum):
    """A page of Microsoft Learn, by its title, that says what a code of Windows means."""

    WUA = "WUA Success and Error Codes"
    NETWORK = "WUA Networking Error Codes"
    BY_COMPONENT = "Windows Update error codes by component"
    COMMON = "Windows Update common errors and mitigation"
    CORRUPTION = "Fix Windows Update corruptions and installation failures"
    INSTALLER = "Error Codes (Windows Installer)"
    SYSTEM = "System Error Codes"


@dataclass(frozen=True, slots=True)
class WindowsText(ErrorText):
    """A code of Windows itself: its name in Microsoft's headers, and the page of Microsoft Learn that explains it.

    No `page`: it is general knowledge among administrators, and no page of Microsoft's was found. `is_read`: the meaning was
    compared with the page; otherwise the page is only where it should be.
    """

    symbol: str = ""
    page: LearnPage | None = None
    is_read: bool = False


def _read(page: LearnPage, symbol: str, title: Text, advice: Text = "") -> WindowsText:
    return WindowsText(title, advice, symbol=symbol, page=page, is_read=True)


def _not_read(page: LearnPage | None, symbol: str, title: Text, advice: Text = "") -> WindowsText:
    return WindowsText(title, advice, symbol=symbol, page=page)


# Windows' own codes for an update that failed. 0x8007xxxx holds a system error code, 0x800fxxxx is of component servicing,
# 0x8024xxxx of the Windows Update agent.
HRESULTS: dict[str, WindowsText] = {
    "0x80070002": _read(LearnPage.CORRUPTION, "ERROR_FILE_NOT_FOUND", _("A file was not found."), _LOG),
    "0x80070003": _read(
        LearnPage.COMMON, "ERROR_PATH_NOT_FOUND", _("A path that the installation needs was not found."), _LOG
    ),
    "0x80070005": _read(LearnPage.COMMON, "E_ACCESSDENIED", _("Access was denied."), _LOG),
    "0x8007000d": _read(LearnPage.COMMON, "ERROR_INVALID_DATA", _("The data of the update is not valid."), _DOWNLOADS),
    "0x8007000e": _not_read(LearnPage.SYSTEM, "E_OUTOFMEMORY", _("The machine ran out of memory."), _SLOW),
    "0x80070020": _read(
        LearnPage.COMMON, "ERROR_SHARING_VIOLATION", _("A file was in use by another process."), _LOCKED
    ),
    "0x80070057": _read(LearnPage.CORRUPTION, "ERROR_INVALID_PARAMETER", _("A parameter is not correct."), _STORE),
    "0x80070070": _not_read(
        LearnPage.SYSTEM, "ERROR_DISK_FULL", _("The disk is full."), _("Free some space on the system drive.")
    ),
    "0x80070422": _read(
        LearnPage.COMMON, "ERROR_SERVICE_DISABLED", _("The Windows Update service is disabled."), _SERVICE
    ),
    "0x80070490": _read(
        LearnPage.COMMON, "ERROR_NOT_FOUND", _("Details of a driver that belongs to the update are missing."), _LOG
    ),
    "0x80070570": _read(
        LearnPage.COMMON, "ERROR_FILE_CORRUPT", _("A file or folder is damaged and cannot be read."), _STORE
    ),
    "0x800705b4": _not_read(LearnPage.SYSTEM, "ERROR_TIMEOUT", _("The machine did not finish in time."), _SLOW),
    "0x80070643": _read(
        LearnPage.INSTALLER,
        "ERROR_INSTALL_FAILURE",
        _("The installation of the update failed."),
        _(
            "Details may be in C:\\Windows\\Logs\\CBS\\CBS.log of the machine. Of an update of the recovery environment it "
            "often means that the recovery partition is too small."
        ),
    ),
    "0x800706be": _read(LearnPage.COMMON, "RPC_S_CALL_FAILED", _("A call to the servicing stack failed."), _STORE),
    "0x80070bc2": _not_read(
        None, "ERROR_SUCCESS_REBOOT_REQUIRED", _("It is installed, and a restart is required to finish."), _RESTART
    ),
    "0x80070bc9": _read(
        LearnPage.COMMON,
        "ERROR_FAIL_REBOOT_REQUIRED",
        _("The operation failed and needs a restart to undo its changes."),
        _(
            "Restart the machine. No policy may set how the Windows Modules Installer service (TrustedInstaller) starts."
        ),
    ),
    "0x80072ee2": _read(
        LearnPage.COMMON, "WININET_E_TIMEOUT", _("The connection to the update source timed out."), _NETWORK
    ),
    "0x80072efd": _read(
        LearnPage.COMMON, "WININET_E_CANNOT_CONNECT", _("The update source could not be reached."), _NETWORK
    ),
    "0x80072efe": _read(
        LearnPage.COMMON,
        "WININET_E_CONNECTION_ABORTED",
        _("The connection to the update source was cut off."),
        _NETWORK,
    ),
    "0x80072f8f": _read(
        LearnPage.COMMON,
        "WININET_E_DECODING_FAILED",
        _("What the update source sent could not be decoded."),
        _("Check TLS 1.2, the clock and the root certificates of the machine."),
    ),
    "0x800736cc": _read(
        LearnPage.CORRUPTION,
        "ERROR_SXS_FILE_HASH_MISMATCH",
        _("A file of a component is not the one that its manifest names."),
        _STORE,
    ),
    "0x80073701": _read(
        LearnPage.COMMON,
        "ERROR_SXS_ASSEMBLY_MISSING",
        _("A component that the update refers to is missing."),
        _STORE,
    ),
    "0x80073712": _read(
        LearnPage.CORRUPTION, "ERROR_SXS_COMPONENT_STORE_CORRUPT", _("The component store is damaged."), _STORE
    ),
    "0x8007371b": _read(
        LearnPage.COMMON,
        "ERROR_SXS_TRANSACTION_CLOSURE_INCOMPLETE",
        _("Components that belong together are not all there."),
        _STORE,
    ),
    "0x800b0100": _read(LearnPage.CORRUPTION, "TRUST_E_NOSIGNATURE", _("A file has no signature."), _STORE),
    "0x800b0101": _read(
        LearnPage.CORRUPTION,
        "CERT_E_EXPIRED",
        _("A certificate is not valid at the machine's time."),
        _("Check the clock and the root certificates of the machine."),
    ),
    "0x800f081f": _read(LearnPage.COMMON, "CBS_E_SOURCE_MISSING", _("Source files of the update are missing."), _STORE),
    "0x800f0821": _read(
        LearnPage.COMMON, "CBS_E_ABORT", _("The servicing stack gave up because it took too long."), _SLOW
    ),
    "0x800f0825": _read(LearnPage.COMMON, "CBS_E_CANNOT_UNINSTALL", _("A package cannot be uninstalled."), _STORE),
    "0x800f0831": _read(
        LearnPage.COMMON,
        "CBS_E_STORE_CORRUPTION",
        _("The component store is damaged: a package that it lists is missing."),
        _STORE,
    ),
    "0x800f0920": _read(LearnPage.COMMON, "CBS_E_HANG_DETECTED", _("The servicing stack stopped responding."), _SLOW),
    "0x800f0922": _read(
        LearnPage.COMMON,
        "CBS_E_INSTALLERS_FAILED",
        _("A step of the installation failed."),
        _("CBS.log names the step. Often the system or recovery partition is full, or a policy forbids a write."),
    ),
    "0x800f0986": _not_read(
        None,
        "PSFX_E_APPLY_FORWARD_DELTA_FAILED",
        _("The update's changes did not fit the files of the machine."),
        _STORE,
    ),
    "0x800f0988": _not_read(
        None,
        "PSFX_E_INVALID_DELTA_COMBINATION",
        _("The update's changes did not fit each other."),
        _("Clean up the component store: DISM /Online /Cleanup-Image /StartComponentCleanup."),
    ),
    "0x80240009": _read(
        LearnPage.WUA, "WU_E_OPERATIONINPROGRESS", _("Another installation was running on the machine.")
    ),
    "0x8024000b": _read(
        LearnPage.WUA, "WU_E_CALL_CANCELLED", _("The operation was cancelled on the machine, by a person or a service.")
    ),
    "0x8024000e": _read(
        LearnPage.COMMON, "WU_E_XML_INVALID", _("The description of the update is not valid."), _DOWNLOADS
    ),
    "0x80240016": _read(
        LearnPage.WUA,
        "WU_E_INSTALL_NOT_ALLOWED",
        _("Another installation was running, or a restart was pending."),
        _("Restart the machine if it waits for it."),
    ),
    "0x80240017": _read(
        LearnPage.BY_COMPONENT,
        "WU_E_NOT_APPLICABLE",
        _("The update does not apply to the machine."),
        _("Assess the machine: what it lacks may have changed."),
    ),
    "0x8024001e": _read(LearnPage.WUA, "WU_E_SERVICE_STOP", _("The service or the machine was shutting down.")),
    "0x8024001f": _read(
        LearnPage.BY_COMPONENT, "WU_E_NO_CONNECTION", _("The machine had no network connection."), _NETWORK
    ),
    "0x80240020": _read(
        LearnPage.COMMON, "WU_E_NO_INTERACTIVE_USER", _("The update wants somebody to be signed in on the machine.")
    ),
    "0x80240022": _read(
        LearnPage.COMMON, "WU_E_ALL_UPDATES_FAILED", _("The operation failed for every update."), _SCAN
    ),
    "0x80240024": _read(
        LearnPage.BY_COMPONENT,
        "WU_E_NO_UPDATE",
        _("There was no update to work on."),
        _("Assess the machine: what it lacks may have changed."),
    ),
    "0x80240025": _read(
        LearnPage.BY_COMPONENT,
        "WU_E_USER_ACCESS_DISABLED",
        _("A policy denies access to Windows Update."),
        _("Check the Windows Update policies of the machine."),
    ),
    "0x8024002e": _read(
        LearnPage.BY_COMPONENT,
        "WU_E_WU_DISABLED",
        _("A policy forbids every update source but the managed one."),
        _("Check the Windows Update policies of the machine."),
    ),
    "0x80240034": _read(
        LearnPage.BY_COMPONENT, "WU_E_DOWNLOAD_FAILED", _("The update could not be downloaded."), _NETWORK
    ),
    "0x80240438": _not_read(
        None, "WU_E_PT_ENDPOINT_UNREACHABLE", _("There is no route to the update source."), _NETWORK
    ),
    "0x80240fff": _read(
        LearnPage.BY_COMPONENT, "WU_E_UNEXPECTED", _("It failed for a reason that has no code of its own."), _LOG
    ),
    "0x80242006": _read(
        LearnPage.COMMON, "WU_E_UH_INVALIDMETADATA", _("The update's own data is not valid."), _DOWNLOADS
    ),
    "0x80242007": _read(
        LearnPage.BY_COMPONENT, "WU_E_UH_INSTALLERHUNG", _("The update's installer took too long."), _SLOW
    ),
    "0x8024200b": _read(
        LearnPage.BY_COMPONENT,
        "WU_E_UH_INSTALLERFAILURE",
        _("The update's installer failed to install or uninstall it."),
        _LOG,
    ),
    "0x8024200d": _read(
        LearnPage.BY_COMPONENT, "WU_E_UH_NEEDANOTHERDOWNLOAD", _("The update must be downloaded anew."), _DOWNLOADS
    ),
    "0x80242014": _read(
        LearnPage.COMMON,
        "WU_E_UH_POSTREBOOTSTILLPENDING",
        _("What follows the restart is still in progress."),
        _RESTART,
    ),
    "0x80242016": _read(
        LearnPage.BY_COMPONENT,
        "WU_E_UH_POSTREBOOTUNEXPECTEDSTATE",
        _("After its restart the update was not in the state that was expected."),
        _LOG,
    ),
    "0x80242017": _read(
        LearnPage.BY_COMPONENT,
        "WU_E_UH_NEW_SERVICING_STACK_REQUIRED",
        _("A newer servicing stack is needed first."),
        _("Install the newest servicing stack update."),
    ),
    "0x80244007": _read(
        LearnPage.COMMON,
        "WU_E_PT_SOAPCLIENT_SOAPFAULT",
        _("The update source answered with a fault: it could not renew the machine's cookie."),
        _SOURCE,
    ),
    "0x80244010": _read(
        LearnPage.BY_COMPONENT,
        "WU_E_PT_EXCEEDED_MAX_SERVER_TRIPS",
        _("The machine had to ask the update source too often."),
        _("Assess the machine: each assessment goes on where the last one stopped."),
    ),
    "0x80244017": _read(
        LearnPage.BY_COMPONENT,
        "WU_E_PT_HTTP_STATUS_DENIED",
        _("The update source wants a sign-in (HTTP 401)."),
        _SOURCE,
    ),
    "0x80244018": _read(
        LearnPage.BY_COMPONENT,
        "WU_E_PT_HTTP_STATUS_FORBIDDEN",
        _("The update source or its proxy refused the request (HTTP 403)."),
        _PROXY,
    ),
    "0x80244019": _read(
        LearnPage.BY_COMPONENT,
        "WU_E_PT_HTTP_STATUS_NOT_FOUND",
        _("The update source does not have the file (HTTP 404)."),
        _SOURCE,
    ),
    "0x8024401b": _read(
        LearnPage.COMMON,
        "WU_E_PT_HTTP_STATUS_PROXY_AUTH_REQ",
        _("The proxy wants a sign-in (HTTP 407)."),
        _PROXY,
    ),
    "0x8024401c": _read(
        LearnPage.BY_COMPONENT,
        "WU_E_PT_HTTP_STATUS_REQUEST_TIMEOUT",
        _("The update source did not answer in time."),
        _NETWORK,
    ),
    "0x8024401f": _read(
        LearnPage.BY_COMPONENT,
        "WU_E_PT_HTTP_STATUS_SERVER_ERROR",
        _("The update source had an error of its own (HTTP 500)."),
        _SOURCE,
    ),
    "0x80244021": _read(
        LearnPage.BY_COMPONENT,
        "WU_E_PT_HTTP_STATUS_BAD_GATEWAY",
        _("The proxy got no valid answer from the update source (HTTP 502)."),
        _NETWORK,
    ),
    "0x80244022": _read(
        LearnPage.COMMON,
        "WU_E_PT_HTTP_STATUS_SERVICE_UNAVAIL",
        _("The update source is not available for now."),
        _SOURCE,
    ),
    "0x80244023": _read(
        LearnPage.BY_COMPONENT,
        "WU_E_PT_HTTP_STATUS_GATEWAY_TIMEOUT",
        _("The proxy waited in vain for the update source (HTTP 504)."),
        _NETWORK,
    ),
    "0x8024402c": _read(
        LearnPage.BY_COMPONENT,
        "WU_E_PT_WINHTTP_NAME_NOT_RESOLVED",
        _("The name of the update source or its proxy could not be resolved."),
        _NETWORK,
    ),
    "0x80246007": _read(
        LearnPage.BY_COMPONENT, "WU_E_DM_NOTDOWNLOADED", _("The update has not been downloaded."), _DOWNLOADS
    ),
    "0x80246008": _read(
        LearnPage.BY_COMPONENT,
        "WU_E_DM_FAILTOCONNECTTOBITS",
        _("The service that downloads in the background could not be reached."),
        _TRANSFER,
    ),
    "0x80248007": _read(
        LearnPage.BY_COMPONENT,
        "WU_E_DS_NODATA",
        _("The update agent's own store lacks what was asked for."),
        _DOWNLOADS,
    ),
    "0x80248014": _read(
        LearnPage.BY_COMPONENT,
        "WU_E_DS_UNKNOWNSERVICE",
        _("The update source is not registered on the machine."),
        _("Check which update source the policies of the machine name."),
    ),
    "0x8024a10a": _read(
        LearnPage.COMMON, "USO_E_SERVICE_SHUTTING_DOWN", _("The Windows Update service was shutting down."), _SERVICE
    ),
}
_HRESULT = re.compile(r"0x[0-9a-f]{8}")

EVENTS: dict[str, Text] = {
    EventCode.REQUESTED: _("Requested"),
    EventCode.STARTING: _("Starting"),
    EventCode.SETTINGS_REPLACED: _("Changed while it waited"),
    EventCode.STARTED: _("The machine has started"),
    EventCode.START_DEFERRED: _("Not sent yet: the machine or its platform refused for now"),
    EventCode.RECOVERED: _("Taken over by another worker"),
    EventCode.PATCH_INSTALLING: _("Installing %(name)s (%(index)s of %(total)s)"),
    EventCode.PATCH_UNINSTALLING: _("Uninstalling %(name)s (%(index)s of %(total)s)"),
    EventCode.REBOOTING: _("Rebooting"),
    EventCode.REBOOTED: _("Back from the reboot"),
    EventCode.FINISHED: _("Finished"),
    EventCode.CANCELLED: _("Cancelled"),
}

STEPS: dict[str, Text] = {
    "assessing": _("Looking for updates"),
    "downloading": _("Downloading updates"),
    "installing": _("Installing %(name)s, %(index)s of %(total)s"),
    "uninstalling": _("Uninstalling %(name)s, %(index)s of %(total)s"),
    "rebooting": _("Rebooting"),
    "verifying": _("Checking what is installed now"),
    "configuring": _("Changing the settings"),
}

REASONS: dict[SelectionReason, Text] = {
    SelectionReason.CLASS_SELECTED: _("Its class is selected"),
    SelectionReason.KB_INCLUDED: _("Its KB is on the include list"),
    SelectionReason.GUARD_OVERRIDDEN: _("Allowed although it takes the machine off the hotpatch track"),
    SelectionReason.EXCLUDED_BY_KB: _("Its KB is on the exclude list"),
    SelectionReason.NOT_IN_CLASSES: _("Its class is not selected"),
    SelectionReason.GUARD: _("It would take the machine off the hotpatch track"),
    SelectionReason.REQUIRES_REBOOT: _("It may need a reboot, and you excluded those"),
    SelectionReason.PUBLISHED_LATER: _("It was published after the latest day you chose"),
    SelectionReason.NAME_MASK_EXCLUDED: _("Its name is excluded"),
    SelectionReason.NAME_MASK_NOT_INCLUDED: _("Its name is not included"),
}

PROSPECTS: dict[RebootProspect, Text] = {
    RebootProspect.NEVER: _("No reboot"),
    RebootProspect.POSSIBLE: _("May reboot"),
    RebootProspect.CERTAIN: _("Will reboot"),
    RebootProspect.REQUIRED_BUT_NOT_ALLOWED: _("A reboot may be needed and will not happen"),
}

PATCHERS: dict[Patcher, Text] = {Patcher(value): words for value, words in choices.PATCHERS}
PATCHER_REASONS: dict[PatcherReason, Text] = {
    PatcherReason.AUTOMATIC_GUEST_PATCHING: off_peak_words(
        _("Critical and Security updates, in off-peak hours (%(hours)s on the machine's own clock).")
    ),
    PatcherReason.SCHEDULE_ATTACHED: _("This machine is in the scope of a maintenance configuration."),
    PatcherReason.WINDOWS_AUTOMATIC_UPDATES: _("Windows Automatic Updates are on."),
    PatcherReason.MANUAL_UPDATES: _("Manual updates: install them from here, or attach a maintenance configuration."),
    PatcherReason.NO_AGENT: _("The machine has no VM agent."),
    PatcherReason.AUTOMATIC_SWITCHED_OFF: _(
        "Automatic guest patching is off on its connection: install updates from here, or attach a maintenance configuration."
    ),
    PatcherReason.SCHEDULE_MISSING: _(
        "Customer Managed Schedules are chosen and no maintenance configuration means this machine. Make one, or choose "
        "“Azure Managed - Safe Deployment”."
    ),
    PatcherReason.SCHEDULE_NEEDS_BYPASS: _(
        "A maintenance configuration means this machine and will not run. Choose Customer Managed Schedules; hotpatch has to "
        "be off for it."
    ),
    PatcherReason.SCHEDULE_NEEDS_PLATFORM_MODE: _(
        "A maintenance configuration means this machine and will not run. Choose Customer Managed Schedules."
    ),
}
ROLLOUT_REASONS: dict[str, Text] = {
    RolloutReason.BUDGET_USED: _(
        "Too many machines failed or are unhealthy. Check them, then resume or end the rollout."
    ),
    RolloutReason.PAUSED_BY_PERSON: _("Paused by a person."),
    RolloutReason.ENDED_BY_PERSON: _("Ended by a person."),
    RolloutReason.OFF_PEAK: off_peak_words(
        _("Waits for off-peak hours (%(hours)s on each machine's own clock) of the machines of this wave.")
    ),
    RolloutReason.BLACKOUT: _("Waits: in a blackout of its configuration nothing starts, nor what would run into one."),
    RolloutReason.FROZEN: _("Waits for the end of a freeze: in one nothing starts, nor what would run into one."),
    RolloutReason.UNREADABLE: _("What is recorded of it cannot be read, so nothing further is started."),
    RolloutReason.CONFIGURATION_UNREADABLE: _(
        "Its maintenance configuration cannot be read; nothing is started until it is corrected there."
    ),
    RolloutReason.BESIDE_OTHERS: _(
        "Waits for machines that must not be changed at the same time: of the paired region, another zone, or one group."
    ),
    RolloutReason.SOAKING: _("Waits after the wave, to see whether the machines stay well."),
    RolloutReason.CATCHING_UP: _("Waits for machines that were off: each is updated once it runs again."),
    RolloutReason.RING_SOAKING: _("Waits before the next ring, to see whether the machines of this one stay well."),
    RolloutReason.NOTHING_PROVEN: _("The rings before installed nothing without trouble, so nothing is proven."),
    RolloutReason.WINDOW_OVER: _("The maintenance window was over before its turn."),
    RolloutReason.ROLE_MISSING: _("The person who started it is not a Patch operator of the machine any more."),
    RolloutReason.OTHER_CLOCK: _(
        "The machine has another clock than when this window opened: it waits for the window on its own clock."
    ),
    ErrorCode.VM_NOT_RUNNING: _("The machine was not running."),
    RolloutReason.CONTRADICTED: _("The run reported success; the machine still lacks what it installed."),
    RolloutReason.NO_AGENT: _("The machine has no VM agent."),
    RolloutReason.PROBE_WAITING: _("Updated; its health probe is asked until it answers, for 10 minutes."),
    RolloutReason.UNHEALTHY_BEFORE: _(
        "Its health probe was not well before the update, so the machine was left alone."
    ),
    RolloutReason.UNHEALTHY_AFTER: _("Its health probe was still not well 10 minutes after the update."),
}
PROBE_FAILURES: dict[ProbeFailure, Text] = {
    ProbeFailure.MALFORMED: _("Its health probe is not written correctly."),
    ProbeFailure.NO_NETWORKS: _("No network is allowed for probes (PROBE_NETWORKS)."),
    ProbeFailure.NOT_ALLOWED: _(
        "It leads to %(detail)s, which is outside of the networks allowed for probes (PROBE_NETWORKS)."
    ),
    ProbeFailure.UNRESOLVED: _("Its host name could not be resolved."),
    ProbeFailure.REFUSED: _("The connection was refused, or ended before an answer."),
    ProbeFailure.TIMEOUT: _("No answer came in time."),
    ProbeFailure.TLS: _("The TLS connection failed: %(detail)s"),
    ProbeFailure.STATUS: _("It answered with HTTP status %(detail)s."),
    ProbeFailure.GARBAGE: _("The answer was not HTTP."),
    ProbeFailure.BROKEN: _("The probe itself failed: %(detail)s"),
}

RECURRENCE_PROBLEMS: dict[RecurrenceProblem, Text] = {
    RecurrenceProblem.BAD_HEAD: _("Begin with Day, Week or Month, with a number before it if it is not every one."),
    RecurrenceProblem.BAD_NUMBER: _("“%(entry)s” is too few or too many between two windows."),
    RecurrenceProblem.SURPLUS: _("“%(entry)s” does not belong after days."),
    RecurrenceProblem.BAD_WEEKDAY: _("“%(entry)s” is not a weekday; write Monday to Sunday in English."),
    RecurrenceProblem.DAYS_MISSING: _("A month needs its days (day15) or a weekday (Second Tuesday)."),
    RecurrenceProblem.BAD_DAY: _("“%(entry)s” is not a day of a month; write day1 to day31."),
    RecurrenceProblem.BAD_ORDINAL: _("“%(entry)s” is neither day1 to day31 nor First, Second, Third, Fourth or Last."),
    RecurrenceProblem.WEEKDAY_MISSING: _("“%(entry)s” needs a weekday after it."),
    RecurrenceProblem.BAD_OFFSET: _("“%(entry)s” is not an offset; write Offset-27 to Offset27."),
    RecurrenceProblem.NEVER: _("From its first day on, “%(entry)s” names no day that is in any calendar up to 2100."),
}
BLACKOUT_PROBLEMS: dict[BlackoutProblem, Text] = {
    BlackoutProblem.NOT_A_PERIOD: _("“%(entry)s” is not a period; write 2026-12-24 to 2027-01-06."),
    BlackoutProblem.NO_SUCH_DATE: _("“%(entry)s” is not a date: no calendar has it."),
    BlackoutProblem.NOT_ORDERED: _("“%(entry)s” ends before it begins."),
    BlackoutProblem.YEAR_OUT_OF_RANGE: _("“%(entry)s” is outside of the years 2000 to 2100."),
}

SCOPE_PROBLEMS: dict[ScopeProblem, Text] = {
    ScopeProblem.NOT_A_SCOPE: _("“%(entry)s” does not describe machines."),
    ScopeProblem.UNKNOWN_NAME: _("“%(entry)s” is nothing that machines can be chosen by."),
    ScopeProblem.BAD_VALUE: _("“%(entry)s” cannot be compared."),
    ScopeProblem.TAG_MISSING: _("The value “%(entry)s” has no tag."),
}
PLAN_UNREADABLE = _("“%(entry)s” is missing or cannot be read.")
OWN_CLOCK_WORDS = _("each machine's own clock")
ZONE_UNKNOWN = _("“%(entry)s” is no time zone of Windows.")

# What a dynamic scope is made of.
SCOPE_LABELS: dict[str, Text] = {
    "subscription": _("Subscription"),
    "resource_group": _("Resource group"),
    "location": _("Location"),
    "image_sku": _("SKU"),
    "tag_name": _("Tag"),
    "tag_value": _("Value of the tag"),
}

# How often a window opens: by what it counts in, how the day is named, and whether it is every one.
RECURRENCES: dict[tuple[Frequency, str, bool], Text] = {
    (Frequency.DAY, "", True): _("Every day"),
    (Frequency.DAY, "", False): _("Every %(count)s days"),
    (Frequency.WEEK, "", True): _("Every week"),
    (Frequency.WEEK, "", False): _("Every %(count)s weeks"),
    (Frequency.WEEK, "weekdays", True): _("Every week on %(weekdays)s"),
    (Frequency.WEEK, "weekdays", False): _("Every %(count)s weeks on %(weekdays)s"),
    (Frequency.MONTH, "days", True): _("Every month on day %(days)s"),
    (Frequency.MONTH, "days", False): _("Every %(count)s months on day %(days)s"),
    (Frequency.MONTH, "ordinal", True): _("Every month on the %(which)s"),
    (Frequency.MONTH, "ordinal", False): _("Every %(count)s months on the %(which)s"),
}

ORDINALS: dict[str, Text] = {
    "First": _("first %(weekday)s"),
    "Second": _("second %(weekday)s"),
    "Third": _("third %(weekday)s"),
    "Fourth": _("fourth %(weekday)s"),
    "Last": _("last %(weekday)s"),
}

# What became of the machines of a run on many.
RUN_PARTS: dict[RunPart, Text] = {
    RunPart.SUCCEEDED: _("Succeeded"),
    RunPart.WITH_WARNINGS: _("With warnings"),
    RunPart.CONTRADICTED: _("Contradicted"),
    RunPart.FAILED: _("Failed"),
    RunPart.RUNNING: _("Running"),
    RunPart.WAITING: _("Waiting"),
    RunPart.SKIPPED: _("Skipped"),
}

# What an open operation is doing, by kind and state; the empty state stands for every other.
RUNNING: dict[tuple[str, str], Text] = {
    ("assessment", "queued"): _("Queued"),
    ("assessment", ""): _("Assessing"),
    ("installation", "queued"): _("Queued"),
    ("installation", "rebooting"): _("Rebooting"),
    ("installation", ""): _("Installing"),
    ("rollback", "queued"): _("Queued"),
    ("rollback", "rebooting"): _("Rebooting"),
    ("rollback", ""): _("Rolling back"),
    ("settings", "queued"): _("Queued"),
    ("settings", ""): _("Changing settings"),
    ("restart", "queued"): _("Queued"),
    ("restart", "rebooting"): _("Rebooting"),
    ("restart", ""): _("Restarting"),
}

HOLDS: dict[HoldReason, Text] = {
    HoldReason.CUMULATIVE_UPDATE: _(
        "It is a cumulative update later than the baseline, offered to machines that lack the baseline and are not offered it."
    ),
    HoldReason.UNKNOWN_OS_UPDATE: _(
        "By its title it replaces the whole operating system, and the catalog does not know its KB: it may be an unplanned "
        "baseline or take machines off the hotpatch track."
    ),
}

# Why what is known of a machine does not fit together, and why a machine is not on the train.
CONTRADICTIONS: dict[Contradiction, Text] = {
    Contradiction.BUILD_BELOW_KBS: _("Its build is below what its installed updates say."),
    Contradiction.BUILD_ABOVE_KBS: _("Its build is above what its installed updates explain."),
    Contradiction.HOTPATCH_WITHOUT_BASELINE: _("A hotpatch is installed without the baseline that it needs."),
    Contradiction.BUILD_OF_TWO_RELEASES: _("Two releases have its build, and no installed KB says which it is."),
    Contradiction.LCU_WAITS_FOR_REBOOT: _(
        "A cumulative update waits for a reboot; which release will run is seen after it."
    ),
}
OFF_TRAIN_REASONS: dict[OffTrainReason, Text] = {
    OffTrainReason.HOTPATCH_OFF: _("Hotpatch is off or not available: every monthly update reboots."),
    OffTrainReason.NOT_READY: _(
        "The machine reports that it is not ready for hotpatches: every monthly update reboots."
    ),
    OffTrainReason.TRAIN_ENDED: _("Hotpatching has ended for this product line: every monthly update reboots."),
}

STALE_CAUSES: dict[StaleCause, Text] = {
    StaleCause.FAILED: _("The last try failed."),
    StaleCause.NOT_RUNNING: _("The machine is not running; it is assessed once it is."),
    StaleCause.PAUSED: _("Its connection is paused."),
    StaleCause.NOT_PERIODIC: _("Periodic assessment is off."),
    StaleCause.WAITING: _("It is waiting for its turn."),
}

PLAN_PROBLEMS: dict[PlanProblem, Text] = {
    PlanProblem.NOTHING_SELECTED: _("Choose at least one classification, or include a KB article."),
    PlanProblem.DURATION_OUT_OF_RANGE: _("The maximum duration is 1 to 235 minutes."),
    PlanProblem.TOO_MANY_KBS: _("At most 500 KB articles can be listed."),
    PlanProblem.BAD_NAME_MASK: _("A name mask has letters, digits, * and ? only."),
}

# What is wrong with a file of the catalogue, or with a field of a row (docs/catalogue-files.md).
CATALOGUE_PROBLEMS: dict[str, Text] = {
    FileProblem.NOT_UTF8: _("The file is not UTF-8. Save it as JSON or as CSV in UTF-8."),
    FileProblem.NO_JSON: _("The file is no JSON: line %(line)s, column %(column)s."),
    FileProblem.NO_LIST: _("The file must hold a list of objects."),
    FileProblem.NO_TABLE: _(
        "The file is neither JSON nor CSV of the catalogue: its first line must name the columns, “type” for releases or "
        "“title” for other updates among them."
    ),
    FileProblem.TOO_MANY_ROWS: _("The file has more than %(most)s rows. Divide it."),
    FileProblem.BAD_LINE: _("Line %(line)s cannot be read as CSV: %(detail)s."),
    FileProblem.CELLS: _("it has not as many cells as the first line."),
    FileProblem.COLUMN_TWICE: _("“%(name)s” is named twice. One of the two would be lost."),
    FileProblem.NEITHER_KIND: _(
        "the row names neither “type” nor “title”. A release needs product, month, type and status; another update needs "
        "title and kb."
    ),
    FileProblem.OTHER_TYPE: _(
        '%(kb)s is recorded as “%(recorded)s”, and the row says “%(said)s”. If that is right, add "corrects": true to the row.'
    ),
    FileProblem.OTHER_OF_MONTH: _(
        "the row says “%(said)s”, but for its month “%(recorded)s” %(recorded_kb)s is recorded, and a month has one of the two. "
        'If both are right, add "corrects": true to the row.'
    ),
    FileProblem.IS_RELEASE: _("%(kb)s is recorded as a release of Windows, and is no other update."),
    RowProblem.NO_OBJECT: _("the row is no object."),
    RowProblem.MISSING: _("is missing."),
    RowProblem.NO_TEXT: _("“%(value)s” is no text, or holds characters that no text has."),
    RowProblem.TOO_LONG: _("is too long: “%(value)s”"),
    RowProblem.NO_PRODUCT: _("“%(value)s” is no known product line."),
    RowProblem.NO_MONTH: _("“%(value)s” is no month (YYYY-MM)."),
    RowProblem.NO_DAY: _("“%(value)s” is no day (YYYY-MM-DD)."),
    RowProblem.OUTSIDE_MONTH: _("“%(value)s” is no day of the row’s month."),
    RowProblem.NO_TYPE: _(
        "“%(value)s” is no release type. Types are baseline, hotpatch, lcu, oob_hotpatch and oob_lcu."
    ),
    RowProblem.NO_STATUS: _("“%(value)s” is neither released nor scheduled."),
    RowProblem.NO_TRUTH: _("“%(value)s” is neither true nor false."),
    RowProblem.NO_KB: _("“%(value)s” is no KB number. It has six or seven digits, as in KB5034129."),
    RowProblem.NO_BUILD: _("“%(value)s” is no build, as 20348.5074 is."),
    RowProblem.OTHER_LINE: _("“%(value)s” is a build of another product line."),
    RowProblem.NO_CHANNEL: _("“%(value)s” is none of windows_update, catalog_and_wsus, withdrawn and unknown."),
    RowProblem.NO_AUDIENCE: _("“%(value)s” is none of everybody, few and unknown."),
    RowProblem.NO_CLASSIFICATION: _("“%(value)s” is no classification."),
}

# The fields of a file, as the import page explains them (docs/catalogue-files.md says more).
RELEASE_FIELD_HELP: dict[str, Text] = {
    "product": _("The product line by its full name, without regard to case."),
    "month": _("The month that Microsoft counts the release to, as 2026-05."),
    "release_date": _("Its day, as 2026-05-12. Left out: the second Tuesday, marked as inferred."),
    "type": _("baseline, hotpatch, lcu, oob_hotpatch or oob_lcu."),
    "planned": _("true or false, on baselines only."),
    "kb": _("Its KB number, as KB5087424. Left out: not known yet; a later row fills it."),
    "build": _("The build that it brings, as 20348.5074."),
    "status": _("released, or scheduled for what is only announced."),
    "channel": _("On out-of-band releases: windows_update, catalog_and_wsus, withdrawn or unknown."),
    "audience": _("On out-of-band releases: everybody, few or unknown."),
    "evidence": _(
        "“primary” where Microsoft’s own page gives the type; with any other word the type waits to be confirmed."
    ),
    "source": _("Where it was read."),
    "note": _("What else there is to know."),
    "corrects": _("true, where the row is meant to change the recorded type."),
}
OTHER_FIELD_HELP: dict[str, Text] = {
    "product": _("The product line. Left out: for every product line."),
    "month": _("Its month, as 2026-05."),
    "kb": _("Its KB number."),
    "title": _("Its title, as Windows Update shows it."),
    "classification": _("Critical, Security, UpdateRollUp, FeaturePack, ServicePack, Definition, Tools or Updates."),
    "source": _("Where it was read."),
}

DECISION_PROBLEMS: dict[DecisionProblem, Text] = {
    DecisionProblem.NO_REASON: _("Say why, with the source if there is one."),
    DecisionProblem.NO_UPDATE: _("No machine of this product line has reported this update."),
    DecisionProblem.NO_MONTH: _(
        "Neither the date nor the title of this update tells its month. Record it in the admin site."
    ),
    DecisionProblem.OTHER_OF_MONTH: _(
        "This month has its baseline or its cumulative update already, and a month has one of the two."
    ),
    DecisionProblem.IS_GONE: _("This release is no longer recorded."),
}

INSTALLATION_STATES_PLANNED = pgettext_lazy("verdict of a plan", "Will be installed")


def error_text(code: str) -> ErrorText:
    """Word an error code of ours or of Windows; the code itself is shown beside the words.

    Of a Windows code without words the title says that there are none; any other code is named in the title as unknown.
    """
    known = ErrorCode.of(code)
    if known is not ErrorCode.UNKNOWN or code in {"", ErrorCode.UNKNOWN}:
        return ERRORS[known]
    key = code.lower()
    if _HRESULT.fullmatch(key):
        return HRESULTS.get(key) or ErrorText(_("No meaning is recorded for %(code)s.") % {"code": code}, "")
    return ErrorText(_("Unknown error “%(code)s”.") % {"code": storable_code(code)}, ERRORS[known].advice)


def fault_text(code: str) -> Text:
    """Say where the cause of an error lies; empty for a code that is not ours."""
    known = ErrorCode.of(code)
    return "" if known is ErrorCode.UNKNOWN else FAULTS[known.fault]


def catalogue_problem(problem: str, *, row: int | None, field: str, facts: Mapping[str, str]) -> str:
    """One sentence: where in a file of the catalogue, and what is wrong there."""
    types = {value: str(label) for value, label in RELEASE_TYPES}
    named = {name: types.get(value, value) if name in {"said", "recorded"} else value for name, value in facts.items()}
    words = str(CATALOGUE_PROBLEMS[problem]) % named
    if row is None:
        return words
    where = _("Row %(row)s, %(field)s: %(words)s") if field else _("Row %(row)s: %(words)s")
    return str(where) % {"row": row, "field": field, "words": words}


def value_text(row: Model, name: str, value: object) -> str:
    """The value of a field as a person reads it: a choice by its label, true and false as words, nothing as nothing."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return str(_("Yes") if value else _("No"))
    labels = dict(getattr(row._meta.get_field(name), "flatchoices", ()))
    return str(labels.get(value, value))


AGAIN_PROBLEMS: dict[AgainProblem, Text] = {
    AgainProblem.NOTHING_NAMED: _("No operation is ticked. Tick installations in the history."),
    AgainProblem.NO_OPERATION: _("“%(value)s” is no operation. Tick the installations in the history again."),
    AgainProblem.TOO_MANY: _("%(value)s operations are more than go at once here. Narrow the history down."),
    AgainProblem.GONE: _(
        "Operation %(value)s is gone, or you may not see it. Tick the installations in the history again."
    ),
    AgainProblem.NO_INSTALLATION: _("Operation %(value)s is no installation: only installations have a plan."),
    AgainProblem.UNREADABLE: _("The plan of operation %(value)s cannot be read by this version of the portal."),
    AgainProblem.NAME_MASKS: _(
        "The plan of operation %(value)s selects updates by their titles, which no page can ask for. Choose the updates anew."
    ),
    AgainProblem.SEVERAL_PLANS: _(
        "These installations were asked for with different plans. Tick those of one plan, or choose the updates anew."
    ),
}
