"""What every answer of the door keeps to and Microsoft's validator does not look at: words of open enums, fields of results that
the definitions leave optional, headers. Every answer that a test gets is checked (`tests.arm_api.programs`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

# The words of Azure's enums, by the name of the property.
WORDS: Mapping[str, frozenset[str]] = {
    name: frozenset(words.split())
    for name, words in {
        "assessmentMode": "ImageDefault AutomaticByPlatform",
        "assessmentState": "Unknown Available",
        "classifications": "Critical Security UpdateRollUp FeaturePack ServicePack Definition Tools Updates",
        "createOption": "FromImage Empty Attach Copy Restore",
        "hotpatchEnablementStatus": "Unknown PendingEvaluation Disabled ActionRequired Enabled",
        "installationState": "Unknown Installed Failed Excluded NotSelected Pending",
        "level": "Info Warning Error",
        "osType": "Windows Linux windows linux",
        "patchMode": "Manual AutomaticByOS AutomaticByPlatform",
        "patchServiceUsed": "Unknown WU WU_WSUS YUM APT Zypper",
        "priority": "Regular Low Spot",
        "rebootBehavior": "Unknown NeverReboots AlwaysRequiresReboot CanRequestReboot",
        "rebootSetting": "IfRequired Never Always",
        "rebootStatus": "Unknown NotNeeded Required Started Failed Completed",
        "startedBy": "User Platform",
        "state": "Enabled Warned PastDue Disabled Deleted",
        "tenantCategory": "Home ProjectedBy ManagedBy",
    }.items()
}
_PATCHING = frozenset({"Unknown", "InProgress", "Failed", "Succeeded", "CompletedWithWarnings"})
_OPERATION = frozenset({"InProgress", "Succeeded", "Failed", "Canceled"})
_CONNECTION = frozenset({"Connected", "Disconnected", "Error"})
_COUNTS = frozenset(
    {"excludedPatchCount", "notSelectedPatchCount", "pendingPatchCount", "installedPatchCount", "failedPatchCount"}
)
_OF_ARC = frozenset({"lastModifiedDateTime", "startedBy", "patchServiceUsed", "osType", "errorDetails"})
# What results tell, whole: the first name that is in one says which it is.
RESULTS: tuple[tuple[str, frozenset[str]], ...] = (
    (
        "availablePatches",
        frozenset(
            {"status", "assessmentActivityId", "rebootPending", "criticalAndSecurityPatchCount", "otherPatchCount"}
        )
        | {"startDateTime", "availablePatches"},
    ),
    (
        "patches",
        frozenset({"status", "installationActivityId", "rebootStatus", "maintenanceWindowExceeded", "startDateTime"})
        | _COUNTS
        | {"patches", "error"},
    ),
    (
        "availablePatchCountByClassification",
        frozenset({"status", "rebootPending", "startDateTime", "availablePatchCountByClassification"}) | _OF_ARC,
    ),
    (
        "rebootStatus",
        frozenset({"status", "installationActivityId", "maintenanceWindowExceeded", "startDateTime"})
        | _COUNTS
        | _OF_ARC,
    ),
)
_IDS = ("x-ms-request-id", "x-ms-correlation-request-id", "x-ms-routing-request-id")
_FOLLOWED = re.compile(
    r"https://[\w.:-]+/subscriptions/[0-9a-f-]{36}/providers/Microsoft\.\w+/locations/\w+/\w+/[0-9a-f-]{36}\?"
)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)")


def faults(status: int, headers: Mapping[str, str], body: Any) -> list[str]:
    """What is wrong with an answer, in words; nothing if nothing is."""
    return [*_of_headers(status, headers, body), *(_of_error(body) if status >= 400 else _of_values(body, "", ""))]


def _of_headers(status: int, headers: Mapping[str, str], body: Any) -> Iterator[str]:
    yield from (f"no {name}" for name in _IDS if not headers.get(name))
    if status == 202:
        for name in ("Azure-AsyncOperation", "Location"):
            if not _FOLLOWED.match(headers.get(name, "")) or "api-version=" not in headers[name]:
                yield f"202 without {name}"
        if body is not None:
            yield "202 with a body"
    if "Azure-AsyncOperation" in headers and not headers.get("Retry-After", "").isdigit():
        yield "to be followed without Retry-After"
    needed = {401: "WWW-Authenticate", 405: "Allow", 429: "Retry-After"}.get(status)
    if needed and not headers.get(needed):
        yield f"{status} without {needed}"


def _of_error(body: Any) -> Iterator[str]:
    error = body.get("error") if isinstance(body, dict) and set(body) == {"error"} else None
    if not isinstance(error, dict) or not all(isinstance(error.get(name), str) for name in ("code", "message")):
        yield f"no envelope: {body!s:.100}"
    elif strange := set(error) - {"code", "message", "target", "details"}:
        yield f"in the envelope: {strange}"


def _of_values(value: Any, name: str, parent: str) -> Iterator[str]:
    if isinstance(value, dict):
        if parent != "tags" and name != "tags":
            yield from _of_result(value, name)
            for key, inner in value.items():
                yield from _of_values(inner, key, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _of_values(inner, name, parent)
    elif isinstance(value, str):
        if name in WORDS and value not in WORDS[name]:
            yield f"{name}: {value}"
        if name.endswith(("Time", "DateTime")) and not _MOMENT.fullmatch(value):
            yield f"{name} is no moment: {value}"


def _of_result(value: Mapping[str, Any], name: str) -> Iterator[str]:
    if isinstance(status := value.get("status"), str):
        is_operation = {"startTime", "name"} <= set(value)
        known = _OPERATION if is_operation else _CONNECTION if "displayName" in value else _PATCHING
        if status not in known:
            yield f"{name or 'the answer'} has the status {status}"
        if is_operation and status != "InProgress" and "endTime" not in value:
            yield "an operation that has ended without its end"
    for mark, whole in RESULTS:
        if mark in value:
            yield from (f"{mark} without {missing}" for missing in sorted(whole - set(value)))
            return
