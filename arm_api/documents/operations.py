"""Operations and their results as Azure Resource Manager writes them, in all three shapes that clients poll."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from arm_api.documents.machines import RUNNING, Document, moment, status_of
from arm_api.errors import refused
from arm_api.kinds import ARC, MachineKind
from patching.codes import ErrorCode
from patching.terms import CRITICAL_AND_SECURITY, Classification, OperationKind, OperationState, RebootStatus
from updates.models import Operation, Patch, PatchResult, PatchSetMember
from updates.texts import error_text

# The machine never worked on these: there is no result to tell, so the operation itself has failed. All others ended with a
# result that may say "Failed" inside.
NEVER_RAN = frozenset(
    {
        ErrorCode.CONNECTOR_UNREACHABLE,
        ErrorCode.CONNECTOR_THROTTLED,
        ErrorCode.CONNECTOR_TIMEOUT,
        ErrorCode.CONNECTOR_GARBAGE,
        ErrorCode.CONNECTOR_SILENT,
        ErrorCode.CONNECTION_UNUSABLE,
        ErrorCode.AGENT_NOT_READY,
        ErrorCode.VM_NOT_RUNNING,
        ErrorCode.VM_UNSUPPORTED,
        ErrorCode.VM_GONE,
        ErrorCode.START_UNCONFIRMED,
        ErrorCode.PAYLOAD_UNREADABLE,
        ErrorCode.SETTINGS_NOT_TAKEN,
    }
)


def outer_status(operation: Operation) -> str:
    """How far the long-running operation is, in ARM's words."""
    state = OperationState(operation.state)
    if not operation.is_ended:
        return RUNNING
    if state is OperationState.CANCELLED:
        return "Canceled"
    has_result = operation.kind in {OperationKind.ASSESSMENT, OperationKind.INSTALLATION}
    is_failed = state is OperationState.FAILED
    return (
        "Failed" if is_failed and (not has_result or ErrorCode.of(operation.error_code) in NEVER_RAN) else "Succeeded"
    )


def status_document(operation: Operation, output: Document | None) -> Document:
    """What the address of `Azure-AsyncOperation` answers; with `output` the result stands in it."""
    status = outer_status(operation)
    document: Document = {"startTime": moment(operation.created_at), "status": status, "name": str(operation.pk)}
    if operation.finished_at:
        document["endTime"] = moment(operation.finished_at)
    if status == "Canceled":
        document["error"] = {"code": "OperationPreempted", "message": "The operation was taken back before it began."}
    elif status == "Failed":
        document["error"] = refused(operation.error_code).document["error"] | {"code": operation.error_code}
    elif output is not None:
        document["properties"] = {"output": output}
    return document


def error_of(operation: Operation) -> Document:
    """The error object of a result. Azure has one on success, too."""
    if not operation.error_code:
        return {"details": [], "code": "Success", "message": "0 error/s reported"}
    title = str(error_text(operation.error_code).title)
    detail = operation.error_detail.strip()[:1_000]
    details = [{"code": operation.error_code, "message": detail}] if detail else []
    return {"details": details, "code": operation.error_code, "message": f"1 error/s reported. {title}"}


# --- virtual machines --------------------------------------------------------------------------------------------


def assessment_result(operation: Operation, available: Sequence[PatchSetMember]) -> Document:
    """What the last assessment of the machine found."""
    vm, patches = operation.vm, [member.patch for member in available]
    critical = sum(patch.classification in CRITICAL_AND_SECURITY for patch in patches)
    result: Document = {
        "status": status_of(operation),
        "assessmentActivityId": str(operation.pk),
        "rebootPending": vm.is_reboot_pending,
        "criticalAndSecurityPatchCount": critical,
        "otherPatchCount": len(patches) - critical,
        "startDateTime": moment(operation.started_at or operation.created_at),
        "availablePatches": [_available(patch, operation) for patch in patches],
    }
    return result | ({"error": error_of(operation)} if operation.error_code else {})


def _available(patch: Patch, operation: Operation) -> Document:
    document = _update(patch, patch.update_id) | {
        "rebootBehavior": patch.reboot_behavior,
        "activityId": str(operation.pk),
        "lastModifiedDateTime": moment(operation.finished_at),
        "assessmentState": "Available",
    }
    if patch.published_on:
        document["publishedDate"] = f"{patch.published_on.isoformat()}T00:00:00+00:00"
    return document


def _update(patch: Patch, update_id: str) -> Document:
    document: Document = {"patchId": update_id or patch.key, "name": patch.title}
    if patch.kb_number:
        document["kbId"] = patch.kb_number
    return document | {"classifications": [patch.classification]}


def installation_result(operation: Operation, results: Sequence[PatchResult]) -> Document:
    """What an installation did, update by update."""
    return {
        "status": status_of(operation),
        "installationActivityId": str(operation.pk),
        "rebootStatus": operation.reboot_status or RebootStatus.NOT_NEEDED.value,
        "maintenanceWindowExceeded": operation.is_maintenance_window_exceeded,
        **_counts(operation),
        "patches": [
            _update(row.patch, row.update_id or row.patch.update_id) | {"installationState": row.state}
            for row in results
        ],
        "startDateTime": moment(operation.started_at or operation.created_at),
        "error": error_of(operation),
    }


def _counts(operation: Operation) -> Document:
    return {
        "excludedPatchCount": operation.excluded_count,
        "notSelectedPatchCount": operation.not_selected_count,
        "pendingPatchCount": operation.pending_count,
        "installedPatchCount": operation.installed_count,
        "failedPatchCount": operation.failed_count,
    }


# --- Arc machines: counts, and no list ---------------------------------------------------------------------------


def _arc_name(classification: Classification) -> str:
    name = classification.value
    return "updateRollup" if classification is Classification.UPDATE_ROLL_UP else name[0].lower() + name[1:]


def arc_assessment_result(operation: Operation, available: Sequence[PatchSetMember]) -> Document:
    """How many updates of each class the last assessment found."""
    found = Counter(member.patch.classification for member in available)
    return {
        "status": status_of(operation),
        "assessmentActivityId": str(operation.pk),
        "rebootPending": operation.vm.is_reboot_pending,
        "availablePatchCountByClassification": {_arc_name(name): found[name.value] for name in Classification},
        **_arc_rest(operation),
    }


def arc_installation_result(operation: Operation) -> Document:
    """How an installation ended, with counts."""
    return {
        "status": status_of(operation),
        "installationActivityId": str(operation.pk),
        "rebootStatus": operation.reboot_status or RebootStatus.NOT_NEEDED.value,
        "maintenanceWindowExceeded": operation.is_maintenance_window_exceeded,
        **_counts(operation),
        **_arc_rest(operation),
    }


def _arc_rest(operation: Operation) -> Document:
    return {
        "startDateTime": moment(operation.started_at or operation.created_at),
        "lastModifiedDateTime": moment(operation.finished_at or operation.created_at),
        "startedBy": "User" if operation.requested_by_id else "Platform",
        "patchServiceUsed": "Unknown",
        "osType": "Windows",
        "errorDetails": error_of(operation) if operation.error_code else None,
    }


def result_of(
    kind: MachineKind, operation: Operation, available: Sequence[PatchSetMember], results: Sequence[PatchResult]
) -> Document | None:
    """The result of an ended operation of this type of machine; None for what has none."""
    if operation.kind == OperationKind.ASSESSMENT:
        return (arc_assessment_result if kind is ARC else assessment_result)(operation, available)
    if operation.kind == OperationKind.INSTALLATION:
        return arc_installation_result(operation) if kind is ARC else installation_result(operation, results)
    return None
