"""What Azure tells of patches, runs and machines, read into the words of the house. Nothing in it is trusted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date, datetime
from enum import StrEnum
from typing import Any, TypeVar

from connectors.azure.answers import find, flag_of, moment_of, objects_of, text_of
from connectors.catalogue import Catalogue
from connectors.protocol import AssessmentResult, ConnectorError, InstallationResult, PatchOutcome, VmRef
from patching.codes import ErrorCode, storable_code
from patching.enrolment import is_hotpatch, is_hotpatching_on
from patching.terms import (
    AssessmentMode,
    Classification,
    InstallationState,
    InstalledUpdate,
    Patch,
    PatchMode,
    PatchSettings,
    ProductLine,
    RebootBehavior,
    RebootSetting,
    RebootStatus,
    RunStatus,
)

W = TypeVar("W", bound=StrEnum)
MOST_PATCHES = 5_000  # of one machine; Windows Update offers tens
# An error object comes with success, too: only its code says whether it is one.
_NO_ERROR = frozenset({"", "success", "0", "informational"})
_KB = re.compile(r"(?:KB)?([0-9]{4,10})", re.IGNORECASE)
_VERSION = re.compile(r"(?:\bVersion |\bv)([0-9]+(?:\.[0-9]+)+)\b")
_HRESULT = re.compile(r"0x8[0-9A-Fa-f]{7}\b")


def word(text: str, words: type[W], default: W) -> W:
    """The member that this text spells, whatever its case."""
    return next((one for one in words if one.value.lower() == text.lower()), default)


# --- patches ---------------------------------------------------------------------------------------------------------


def patches_of(rows: Iterable[dict[str, Any]], line: ProductLine | None, catalogue: Catalogue) -> tuple[Patch, ...]:
    """The patches that these rows tell, each once; what has neither a KB nor an id is left out, since it has no name."""
    found: dict[tuple[str, str], Patch] = {}
    for patch, _row in _read(rows, line, catalogue):
        found[patch.key, patch.update_id] = patch
    return tuple(found.values())


def _read(
    rows: Iterable[dict[str, Any]], line: ProductLine | None, catalogue: Catalogue
) -> Iterator[tuple[Patch, dict[str, Any]]]:
    for number, row in enumerate(rows):
        if number >= MOST_PATCHES:
            return
        patch = patch_of(row, line, catalogue)
        if patch is not None:
            yield patch, row


def patch_of(row: dict[str, Any], line: ProductLine | None, catalogue: Catalogue) -> Patch | None:
    """The patch of a row of an answer, or of Resource Graph's record; None where nothing names it."""
    match = _KB.fullmatch(text_of(row, "kbId").strip())
    kb_number = match[1] if match else ""
    update_id = text_of(row, "patchId")[:100]
    title = (text_of(row, "name") or text_of(row, "patchName"))[:500]
    if not kb_number and not update_id:
        return None
    version = text_of(row, "version") or (found[1] if (found := _VERSION.search(title)) else "")
    # What is recorded for every line is one update, whichever machine tells of it.
    known = catalogue.patch_by_key.get(f"{line or ''}:{kb_number}") or catalogue.patch_by_key.get(f":{kb_number}")
    return Patch(
        kb_number=kb_number,
        title=title or (known.title if known else f"KB{kb_number}"),
        classification=_classification(row),
        reboot_behavior=_reboot_behavior(row),
        product_line=known.product_line if known else line,
        update_id=update_id,
        version=version[:60],
        published_on=_published(row),
        release_type=known.release_type if known else None,
    )


def _classification(row: dict[str, Any]) -> Classification:
    """The first class that is known, by its token or by the name that people read. Drivers and firmware have none at all, and count as ordinary updates."""
    told = find(row, "classifications")
    for one in told if isinstance(told, list) else [told]:
        if isinstance(one, str):
            plain = one.replace(" ", "").lower()
            for spelled in (plain, plain.removesuffix("updates"), plain.removesuffix("s")):
                found = word(spelled, Classification, Classification.UPDATES)
                if found is not Classification.UPDATES:
                    return found
    return Classification.UPDATES


def _reboot_behavior(row: dict[str, Any]) -> RebootBehavior:
    return word(text_of(row, "rebootBehavior"), RebootBehavior, RebootBehavior.UNKNOWN)


def _published(row: dict[str, Any]) -> date | None:
    """The day of publication: Azure writes 17:00 Pacific of the day before, which is midnight in UTC."""
    moment = moment_of(row, "publishedDate") or moment_of(row, "publishedDateTime")
    return moment.date() if moment else None


# --- runs ------------------------------------------------------------------------------------------------------------


def error_in(value: object, path: str = "error") -> ConnectorError | None:
    """The error of a run; None where its code says that there is none. An HRESULT is what Windows itself called it."""
    error = find(value, path)
    if not isinstance(error, dict):
        return None
    code, message = text_of(error, "code"), text_of(error, "message")
    details = list(objects_of(error, "details"))[:5]
    if code.lower() in _NO_ERROR and not details:
        return None
    told = [message, *(f"{text_of(one, 'code')}: {text_of(one, 'message')}".strip(": ") for one in details)]
    detail = "; ".join(filter(None, told))[:1_500]
    windows = _HRESULT.search(detail)
    inner = next((found for one in details if (found := text_of(one, "code"))), "")
    own = windows[0] if windows else (code if not code.isdigit() else inner or code)
    return ConnectorError(storable_code(own) if own else ErrorCode.UNKNOWN, detail)


def assessment_of(
    output: dict[str, Any],
    vm: VmRef,
    catalogue: Catalogue,
    *,
    rows: Iterable[dict[str, Any]] | None = None,
    ended_at: datetime | None = None,
) -> AssessmentResult:
    """The result of assessPatches. `rows`: its patches, where the result itself lists none."""
    status = word(text_of(output, "status"), RunStatus, RunStatus.UNKNOWN)
    told = objects_of(output, "availablePatches") if rows is None else rows
    error = error_in(output) or _details_of(output)
    return AssessmentResult(
        status=status,
        available=patches_of(told, vm.product_line, catalogue),
        is_reboot_pending=flag_of(output, "rebootPending") or False,
        error=error if status not in {RunStatus.SUCCEEDED, RunStatus.COMPLETED_WITH_WARNINGS} else None,
        assessed_at=ended_at,
    )


def installation_of(
    output: dict[str, Any], vm: VmRef, catalogue: Catalogue, *, rows: Iterable[dict[str, Any]] | None = None
) -> InstallationResult:
    """The result of installPatches. `rows`: its patches, where the result itself lists none."""
    status = word(text_of(output, "status"), RunStatus, RunStatus.UNKNOWN)
    told = objects_of(output, "patches") if rows is None else rows
    outcomes: dict[tuple[str, str], PatchOutcome] = {}
    for patch, row in _read(told, vm.product_line, catalogue):
        state = word(text_of(row, "installationState"), InstallationState, InstallationState.UNKNOWN)
        outcomes[patch.key, patch.update_id] = PatchOutcome(_as_known(patch, vm), state)
    error = error_in(output) or _details_of(output)
    return InstallationResult(
        status=status,
        reboot_status=word(text_of(output, "rebootStatus"), RebootStatus, RebootStatus.UNKNOWN),
        is_maintenance_window_exceeded=flag_of(output, "maintenanceWindowExceeded") or False,
        patches=tuple(outcomes.values()),
        error=error if status is not RunStatus.SUCCEEDED else None,
    )


def installed_by(
    rows: Iterable[dict[str, Any]], line: ProductLine | None, catalogue: Catalogue
) -> tuple[InstalledUpdate, ...]:
    """What runs, whoever started them, report as installed: the latest sighting of each. It is never all that is installed."""
    found: dict[str, InstalledUpdate] = {}
    for patch, row in _read(rows, line, catalogue):
        at = moment_of(row, "lastModifiedDateTime")
        if at is None or text_of(row, "installationState").lower() != InstallationState.INSTALLED.lower():
            continue
        if patch.key not in found or found[patch.key].installed_on < at:
            found[patch.key] = InstalledUpdate(patch, at)
    return tuple(found.values())


_COUNTS = (
    "installedPatchCount",
    "failedPatchCount",
    "pendingPatchCount",
    "notSelectedPatchCount",
    "excludedPatchCount",
)


def count_of(output: dict[str, Any]) -> int:
    """How many patches the result of a machine outside of Azure speaks of, which lists none."""
    by_class = find(output, "availablePatchCountByClassification")
    told = list(by_class.values()) if isinstance(by_class, dict) else [find(output, name) for name in _COUNTS]
    return sum(one for one in told if isinstance(one, int) and one > 0)


def _as_known(patch: Patch, vm: VmRef) -> Patch:
    """A result of a run does not tell what a patch does to a machine; what is installed already may."""
    if patch.reboot_behavior is not RebootBehavior.UNKNOWN:
        return patch
    known = next((one.patch for one in vm.installed if one.patch.key == patch.key), None)
    return replace(patch, reboot_behavior=known.reboot_behavior) if known else patch


def _details_of(output: dict[str, Any]) -> ConnectorError | None:
    """Machines outside of Azure call it errorDetails."""
    return error_in(output, "errorDetails")


# --- machines --------------------------------------------------------------------------------------------------------

_BUILD = re.compile(r"\b10\.0\.(\d{5}(?:\.\d{1,6})?)")


def build_of(machine: dict[str, Any]) -> str:
    """The OS build that a machine reports: of "10.0.20348.5020", or of "Microsoft Windows NT 10.0.14393.0"; empty: none."""
    for path in (
        "properties.instanceView.osVersion",
        "properties.osVersion",
        "properties.extended.instanceView.osVersion",
    ):
        if match := _BUILD.search(text_of(machine, path)):
            # ".0" is no revision: this form tells the release of Windows only.
            return match[1].removesuffix(".0")
    return ""


def settings_of(machine: dict[str, Any]) -> PatchSettings | None:
    """The patch settings that a machine has; None where it tells none that are known."""
    windows = find(machine, "properties.osProfile.windowsConfiguration")
    if not isinstance(windows, dict):
        return None
    platform = find(windows, "patchSettings.automaticByPlatformSettings")
    defaults = PatchSettings()
    agent, automatic = flag_of(windows, "provisionVMAgent"), flag_of(windows, "enableAutomaticUpdates")
    return PatchSettings(
        provision_vm_agent=True if agent is None else agent,
        enable_automatic_updates=True if automatic is None else automatic,
        patch_mode=word(text_of(windows, "patchSettings.patchMode"), PatchMode, PatchMode.AUTOMATIC_BY_OS),
        assessment_mode=word(
            text_of(windows, "patchSettings.assessmentMode"), AssessmentMode, AssessmentMode.IMAGE_DEFAULT
        ),
        enable_hotpatching=flag_of(windows, "patchSettings.enableHotpatching") or False,
        reboot_setting=word(text_of(platform, "rebootSetting"), RebootSetting, defaults.reboot_setting),
        bypass_platform_safety_checks=flag_of(platform, "bypassPlatformSafetyChecksOnUserSchedule") or False,
    )


def arc_settings_of(machine: dict[str, Any], known: PatchSettings) -> PatchSettings | None:
    """The patch settings of a machine outside of Azure; what it has none of is as `known`. None where it tells nothing."""
    told = find(machine, "properties.osProfile.windowsConfiguration.patchSettings")
    if not isinstance(told, dict) and not hotpatch_feature(machine):
        return None
    return replace(
        known,
        patch_mode=word(text_of(told, "patchMode"), PatchMode, PatchMode.AUTOMATIC_BY_OS),
        assessment_mode=word(text_of(told, "assessmentMode"), AssessmentMode, AssessmentMode.IMAGE_DEFAULT),
        enable_hotpatching=is_hotpatching_on(
            edition_of(machine),
            subscription=text_of(hotpatch_feature(machine), "subscriptionStatus"),
            is_chosen=flag_of(told, "enableHotpatching"),
        ),
    )


def edition_of(machine: dict[str, Any]) -> str:
    """What a machine outside of Azure runs, as its agent calls it."""
    return text_of(machine, "properties.osSku") or text_of(machine, "properties.osEdition")


def hotpatch_feature(document: dict[str, Any]) -> dict[str, Any]:
    """What a machine, or its licence profile, says of its enrolment for hotpatches; empty: nothing."""
    for path in (
        "properties.licenseProfile.productProfile.productFeatures",
        "properties.productProfile.productFeatures",
    ):
        for feature in objects_of(document, path):
            if is_hotpatch(text_of(feature, "name")):
                return feature
    return {}


def needs_action(machine: dict[str, Any]) -> bool:
    """Whether a machine outside of Azure says that hotpatches do not work on it until somebody acts."""
    status = text_of(machine, "properties.osProfile.windowsConfiguration.patchSettings.status.hotpatchEnablementStatus")
    return status.lower() == "actionrequired"


def summary_of(machine: dict[str, Any], name: str) -> dict[str, Any]:
    """A summary of its instance view's patchStatus: availablePatchSummary or lastPatchInstallationSummary; empty: none."""
    found = find(machine, f"properties.instanceView.patchStatus.{name}")
    return found if isinstance(found, dict) else {}


def began_at(summary: dict[str, Any]) -> datetime | None:
    """When the run of a summary began."""
    return moment_of(summary, "startTime") or moment_of(summary, "startDateTime")
