"""Rows of Resource Graph: machines, what their last assessments found, what their installations did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from arm_api.documents.machines import Document, arc_machine, id_of, moment, status_of, virtual_machine
from arm_api.documents.operations import error_of
from arm_api.kinds import ARC, kind_of
from arm_api.selectors import PatchStatus
from arm_api.tokens import tenant_id
from patching.terms import Classification, RebootBehavior, RebootStatus
from updates.models import Operation, Patch, PatchResult, PatchSetMember
from vms.choices import PowerState
from vms.models import VirtualMachine


def _row(vm: VirtualMachine, type_: str, id_: str, name: str, properties: Document) -> Document:
    group = vm.resource_group
    return {
        "id": id_,
        "name": name,
        "type": type_.lower(),
        "location": vm.location,
        "resourceGroup": group.name.lower(),
        "subscriptionId": str(group.subscription.subscription_id),
        "tenantId": str(tenant_id()),
        "tags": None,
        "properties": properties,
    }


def machine_row(vm: VirtualMachine, status: PatchStatus) -> Document:
    """A machine in the table of resources."""
    kind = kind_of(vm.arm_id)
    document = arc_machine(vm, status) if kind is ARC else virtual_machine(vm)
    properties = document["properties"]
    if kind is not ARC:
        power = PowerState(vm.power_state).value
        state = {"code": f"PowerState/{power}", "displayStatus": f"VM {power}", "level": "Info"}
        properties["extended"] = {"instanceView": {"powerState": state, "osName": "Windows"}}
        if build := (status.state.os_build if status.state else "") or vm.os_build:
            properties["extended"]["instanceView"]["osVersion"] = f"10.0.{build}"
    return _row(vm, kind.type, id_of(vm, kind), vm.name, properties) | {"tags": vm.tags}


# --- assessments ---------------------------------------------------------------------------------------------------


def assessment_rows(
    vm: VirtualMachine, status: PatchStatus, available: Sequence[PatchSetMember], *, has_patches: bool
) -> list[Document]:
    """The last assessment of a machine, or (`has_patches`) a row for each update that it found."""
    kind, state = kind_of(vm.arm_id), status.state
    if state is None or state.last_assessed_at is None:
        return []
    base = f"{id_of(vm, kind)}/patchAssessmentResults/latest"
    type_ = f"{kind.type}/patchAssessmentResults"
    if has_patches:
        rows = [(member.patch, _patch(member.patch, moment(state.last_assessed_at))) for member in available]
        return [
            _row(vm, f"{type_}/softwarePatches", f"{base}/softwarePatches/{_key(patch)}", _key(patch), properties)
            for patch, properties in rows
        ]
    operation = status.assessment
    found = Counter(member.patch.classification for member in available)
    counts = {_lowered(name.value): found[name.value] for name in Classification} | {"other": 0}
    properties = {
        "status": status_of(operation) if operation else "Succeeded",
        "rebootPending": vm.is_reboot_pending,
        "osType": "Windows",
        "patchServiceUsed": "Unknown",
        "startDateTime": moment(operation.started_at or operation.created_at) if operation else None,
        "lastModifiedDateTime": moment(state.last_assessed_at),
        "startedBy": "User" if operation and operation.requested_by_id else "Platform",
        "errorDetails": error_of(operation) if operation and operation.error_code else None,
        "availablePatchCountByClassification": counts,
    }
    name = str(operation.pk) if operation else "latest"
    return [_row(vm, type_, base, name, properties)]


def _lowered(name: str) -> str:
    return "updateRollup" if name == Classification.UPDATE_ROLL_UP.value else name[0].lower() + name[1:]


def _key(patch: Patch) -> str:
    return patch.update_id or patch.key.replace(":", "-").strip("-")


def _patch(patch: Patch, modified: str | None) -> Document:
    published = f"{patch.published_on.isoformat()}T00:00:00Z" if patch.published_on else None
    return {
        "patchId": patch.update_id or patch.key,
        "patchName": patch.title,
        "kbId": patch.kb_number or None,
        "classifications": [patch.classification],
        "rebootBehavior": patch.reboot_behavior,
        "rebootRequired": patch.reboot_behavior == RebootBehavior.ALWAYS_REQUIRES_REBOOT,
        "version": patch.version or None,
        "publishedDateTime": published,
        "lastModifiedDateTime": modified,
        "msrcSeverity": None,
    }


# --- installations -------------------------------------------------------------------------------------------------


def installation_rows(
    vm: VirtualMachine, operations: Sequence[tuple[Operation, Sequence[PatchResult]]], *, has_patches: bool
) -> list[Document]:
    """The installations of a machine, newest last, or (`has_patches`) what each did with each update."""
    kind = kind_of(vm.arm_id)
    type_ = f"{kind.type}/patchInstallationResults"
    rows = []
    for operation, results in operations:
        base = f"{id_of(vm, kind)}/patchInstallationResults/{operation.pk}"
        if not has_patches:
            rows.append(_row(vm, type_, base, str(operation.pk), _installation(operation)))
            continue
        for result in results:
            properties = _patch(result.patch, moment(operation.finished_at)) | {"installationState": result.state}
            if result.update_id:
                properties["patchId"] = result.update_id
            key = result.update_id or _key(result.patch)
            rows.append(_row(vm, f"{type_}/softwarePatches", f"{base}/softwarePatches/{key}", key, properties))
    return rows


def _installation(operation: Operation) -> dict[str, Any]:
    return {
        "installationActivityId": str(operation.pk),
        "status": status_of(operation),
        "rebootStatus": operation.reboot_status or RebootStatus.NOT_NEEDED.value,
        "maintenanceWindowExceeded": operation.is_maintenance_window_exceeded,
        "installedPatchCount": operation.installed_count,
        "failedPatchCount": operation.failed_count,
        "pendingPatchCount": operation.pending_count,
        "excludedPatchCount": operation.excluded_count,
        "notSelectedPatchCount": operation.not_selected_count,
        "startDateTime": moment(operation.started_at or operation.created_at),
        "lastModifiedDateTime": moment(operation.finished_at or operation.started_at or operation.created_at),
        "startedBy": "User" if operation.requested_by_id else "Platform",
        "osType": "Windows",
        "patchServiceUsed": "Unknown",
        "errorDetails": error_of(operation) if operation.error_code else None,
    }
