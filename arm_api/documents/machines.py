"""Machines as Azure Resource Manager writes them; only what this portal knows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from arm_api.kinds import ARC, COMPUTE, MachineKind
from arm_api.selectors import PatchStatus
from patching.enrolment import FEATURE, Subscription, subscription_of
from patching.terms import HotpatchStatus, OperationState, PatchSettings
from updates.models import Operation
from updates.texts import error_text
from vms.choices import PowerState
from vms.models import VirtualMachine

Document = dict[str, Any]


def id_of(vm: VirtualMachine, kind: MachineKind) -> str:
    """Its resource id, as Azure writes it."""
    group = vm.resource_group
    return f"/subscriptions/{group.subscription.subscription_id}/resourceGroups/{group.name}/providers/{kind.type}/{vm.name}"


def _known(values: Mapping[str, Any]) -> Document:
    """What is known of these values."""
    return {name: value for name, value in values.items() if value not in (None, "", [], {})}


def moment(at: datetime | None) -> str | None:
    """A moment as Azure writes it."""
    return at.isoformat() if at else None


# --- virtual machines --------------------------------------------------------------------------------------------


def virtual_machine(vm: VirtualMachine, status: PatchStatus | None = None) -> Document:
    """A virtual machine; with `status` also its instance view."""
    document: Document = {
        "name": vm.name,
        "id": id_of(vm, COMPUTE),
        "type": COMPUTE.type,
        "location": vm.location,
        "tags": vm.tags,
        "properties": _properties(vm),
    }
    document |= _known({"zones": vm.zones, "plan": _plan(vm.plan)})
    document["etag"] = etag_of(document)
    if status is not None:
        document["properties"]["instanceView"] = instance_view(vm, status)
    return document


def etag_of(document: Document) -> str:
    """A mark that differs where the document does."""
    text = json.dumps(document, sort_keys=True, default=str)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:16]}"'


def _properties(vm: VirtualMachine) -> Document:
    return _known(
        {
            "hardwareProfile": _known({"vmSize": vm.vm_size}),
            "provisioningState": vm.provisioning_state or "Succeeded",
            "vmId": str(vm.vm_id) if vm.vm_id else None,
            "storageProfile": {
                "imageReference": _image(vm),
                "osDisk": {"osType": vm.os_type, "createOption": "FromImage"},
                "dataDisks": [],
            },
            "osProfile": {
                **_known({"computerName": vm.computer_name}),
                **({"windowsConfiguration": _windows(vm)} if vm.os_type.lower() == "windows" else {}),
                "secrets": [],
                "allowExtensionOperations": vm.allow_extension_operations,
            },
            "networkProfile": {"networkInterfaces": [{"id": nic_id(vm)}]},
            "availabilitySet": _reference(vm.availability_set),
            "virtualMachineScaleSet": _reference(vm.scale_set),
            "licenseType": vm.license_type,
            "priority": vm.priority,
            "timeCreated": moment(vm.created_at),
        }
    )


def _image(vm: VirtualMachine) -> Document:
    if vm.image_resource_id:
        return {"id": vm.image_resource_id}
    return _known(
        {
            "publisher": vm.image_publisher,
            "offer": vm.image_offer,
            "sku": vm.image_sku,
            "version": vm.image_version,
            "exactVersion": vm.image_exact_version,
        }
    )


def _windows(vm: VirtualMachine) -> Document:
    settings = vm.desired
    return {
        "provisionVMAgent": settings.provision_vm_agent,
        "enableAutomaticUpdates": settings.enable_automatic_updates,
        **_known({"timeZone": vm.time_zone}),
        "patchSettings": patch_settings(settings),
    }


def patch_settings(settings: PatchSettings) -> Document:
    """The settings that are wanted for a machine. Whether it has them is in its settings operation."""
    return {
        "patchMode": settings.patch_mode.value,
        "automaticByPlatformSettings": {
            "rebootSetting": settings.reboot_setting.value,
            "bypassPlatformSafetyChecksOnUserSchedule": settings.bypass_platform_safety_checks,
        },
        "assessmentMode": settings.assessment_mode.value,
        "enableHotpatching": settings.enable_hotpatching,
    }


def _reference(resource_id: str) -> Document | None:
    return {"id": resource_id} if resource_id else None


def _plan(text: str) -> Document | None:
    publisher, _, rest = text.partition(":")
    product, _, name = rest.partition(":")
    return _known({"publisher": publisher, "product": product, "name": name}) or None


# --- versions ----------------------------------------------------------------------------------------------------
_PATCH_SETTINGS = ("properties", "osProfile", "windowsConfiguration", "patchSettings")
# What came with a version, and where it stands.
_SINCE: Mapping[MachineKind, tuple[tuple[str, tuple[str, ...]], ...]] = {
    COMPUTE: (
        ("2023-03-01", (*_PATCH_SETTINGS, "automaticByPlatformSettings", "bypassPlatformSafetyChecksOnUserSchedule")),
        ("2023-09-01", ("etag",)),
    ),
    ARC: (
        ("2024-05-20-preview", (*_PATCH_SETTINGS, "enableHotpatching")),
        ("2024-05-20-preview", (*_PATCH_SETTINGS, "status")),
    ),
}


def as_of(version: str, kind: MachineKind, document: Document) -> Document:
    """The document of a machine without what this version does not know yet."""
    for since, path in _SINCE[kind]:
        if version < since:
            place = document
            for name in path[:-1]:
                place = place.get(name, {})
            place.pop(path[-1], None)
    return document


# --- network interfaces ------------------------------------------------------------------------------------------
NIC_SUFFIX = "-nic"


def nic_id(vm: VirtualMachine) -> str:
    """The id of the one network interface that stands for all of a machine's: clients ask for it, and get no address."""
    group = vm.resource_group
    return (
        f"/subscriptions/{group.subscription.subscription_id}/resourceGroups/{group.name}"
        f"/providers/Microsoft.Network/networkInterfaces/{vm.name}{NIC_SUFFIX}"
    )


def network_interface(vm: VirtualMachine) -> Document:
    """An interface without addresses: this portal knows none."""
    return {
        "name": f"{vm.name}{NIC_SUFFIX}",
        "id": nic_id(vm),
        "type": "Microsoft.Network/networkInterfaces",
        "location": vm.location,
        "properties": {
            "provisioningState": "Succeeded",
            "ipConfigurations": [],
            "virtualMachine": {"id": id_of(vm, COMPUTE)},
        },
    }


# --- the instance view -------------------------------------------------------------------------------------------
RUNNING = "InProgress"
STATUSES = {
    OperationState.SUCCEEDED: "Succeeded",
    OperationState.COMPLETED_WITH_WARNINGS: "CompletedWithWarnings",
    OperationState.FAILED: "Failed",
    OperationState.CANCELLED: "Failed",
}


def status_of(operation: Operation) -> str:
    """Its state in Azure's words for patch operations."""
    return STATUSES.get(OperationState(operation.state), RUNNING)


def instance_view(vm: VirtualMachine, status: PatchStatus) -> Document:
    """What is known of the machine as it runs."""
    build = (status.state.os_build if status.state else "") or vm.os_build
    return _known(
        {
            "computerName": vm.computer_name,
            "osName": "Windows" if vm.os_type.lower() == "windows" else vm.os_type,
            "osVersion": f"10.0.{build}" if build else vm.os_version,
            "vmAgent": _agent(vm),
            "patchStatus": _patch_status(vm, status),
            "statuses": [
                _status("ProvisioningState/succeeded", "Provisioning succeeded", vm.created_at),
                *_power(PowerState(vm.power_state)),
            ],
        }
    )


def _agent(vm: VirtualMachine) -> Document | None:
    if not vm.agent_status:
        return None
    is_ready = vm.agent_status.lower() == "ready"
    code = "ProvisioningState/succeeded" if is_ready else "ProvisioningState/Unavailable"
    level = "Info" if is_ready else "Warning"
    return {
        "vmAgentVersion": "Unknown",
        "statuses": [{"code": code, "level": level, "displayStatus": vm.agent_status}],
    }


def _status(code: str, words: str, at: datetime | None = None) -> Document:
    return {"code": code, "level": "Info", "displayStatus": words} | _known({"time": moment(at)})


def _power(power: PowerState) -> list[Document]:
    return [] if power is PowerState.UNKNOWN else [_status(f"PowerState/{power.value}", f"VM {power.value}")]


def _patch_status(vm: VirtualMachine, status: PatchStatus) -> Document:
    told = {**vm.patch_status}
    if status.assessment is not None:
        told["availablePatchSummary"] = _assessed(vm, status)
    if status.installation is not None:
        told["lastPatchInstallationSummary"] = _installed(status.installation)
    pending = vm.desired_settings is not None
    return told | {
        "configurationStatuses": [
            _configuration("PatchModeConfigurationState", is_pending=pending),
            _configuration("AssessmentModeConfigurationState", is_pending=pending),
        ]
    }


def _configuration(name: str, *, is_pending: bool) -> Document:
    word = "Pending" if is_pending else "Ready"
    return _status(f"{name}/{word}", f"Status_{name}_{word}")


def _assessed(vm: VirtualMachine, status: PatchStatus) -> Document:
    operation, state = status.assessment, status.state
    assert operation is not None
    assessed_at = state.last_assessed_at if state else None
    return _known(
        {
            "status": status_of(operation),
            "assessmentActivityId": str(operation.pk),
            "startTime": moment(operation.started_at or operation.created_at),
            "lastModifiedTime": moment(operation.finished_at or assessed_at or operation.created_at),
        }
    ) | {
        "rebootPending": vm.is_reboot_pending,
        "criticalAndSecurityPatchCount": vm.critical_and_security_count,
        "otherPatchCount": vm.other_count,
    }


def _installed(operation: Operation) -> Document:
    return _known(
        {
            "status": status_of(operation),
            "installationActivityId": str(operation.pk),
            "startTime": moment(operation.started_at or operation.created_at),
            "lastModifiedTime": moment(operation.finished_at or operation.started_at or operation.created_at),
        }
    ) | {
        "maintenanceWindowExceeded": operation.is_maintenance_window_exceeded,
        "notSelectedPatchCount": operation.not_selected_count,
        "excludedPatchCount": operation.excluded_count,
        "pendingPatchCount": operation.pending_count,
        "installedPatchCount": operation.installed_count,
        "failedPatchCount": operation.failed_count,
    }


# --- Arc machines ------------------------------------------------------------------------------------------------
_CONNECTED = {PowerState.RUNNING: "Connected", PowerState.STARTING: "Connected", PowerState.STOPPING: "Connected"}
_ENABLEMENT = {
    HotpatchStatus.ENABLED: "Enabled",
    HotpatchStatus.DISABLED: "Disabled",
    HotpatchStatus.NOT_AVAILABLE: "Disabled",
    HotpatchStatus.PENDING_EVALUATION: "PendingEvaluation",
}


def license_profile(vm: VirtualMachine, status: PatchStatus) -> Document:
    """The licence profile of an Arc machine."""
    product = _product_profile(vm, status)
    is_under_way = product["productFeatures"][0]["subscriptionStatus"] in {
        Subscription.ENABLING,
        Subscription.DISABLING,
    }
    return {
        "name": "default",
        "id": f"{id_of(vm, ARC)}/licenseProfiles/default",
        "type": f"{ARC.type}/licenseProfiles",
        "location": vm.location,
        "properties": {
            "provisioningState": "Updating" if is_under_way else "Succeeded",
            "productProfile": product,
        },
    }


def _product_profile(vm: VirtualMachine, status: PatchStatus | None) -> Document:
    last = status.settings if status else None
    word = subscription_of(
        is_on=vm.enable_hotpatching,
        is_wanted=vm.desired.enable_hotpatching,
        is_under_way=last is None or not last.is_ended,
    )
    feature: Document = {"name": FEATURE, "subscriptionStatus": word.value}
    if word is Subscription.FAILED and last is not None and last.error_code:
        told = error_text(last.error_code)
        feature["error"] = {"code": last.error_code, "message": str(told.title)}
    return {"productType": "WindowsServer", "productFeatures": [feature]}


def arc_machine(vm: VirtualMachine, status: PatchStatus | None = None) -> Document:
    """An Arc machine. Its power is not told, but whether its agent is connected."""
    build = (status.state.os_build if status and status.state else "") or vm.os_build
    settings = vm.desired
    is_ready = not (status and status.state) or status.state.is_ready_for_hotpatches
    enablement = _ENABLEMENT[HotpatchStatus(vm.hotpatch_status)]
    return {
        "name": vm.name,
        "id": id_of(vm, ARC),
        "type": ARC.type,
        **_known({"kind": vm.arc_kind}),
        "location": vm.location,
        "tags": vm.tags,
        "properties": _known(
            {
                "provisioningState": vm.provisioning_state or "Succeeded",
                "status": vm.agent_status or _CONNECTED.get(PowerState(vm.power_state), "Disconnected"),
                "vmId": str(vm.vm_id) if vm.vm_id else None,
                "displayName": vm.name,
                "osType": vm.os_type.lower(),
                "osName": vm.os_type.lower(),
                "osSku": vm.os_edition,
                "osVersion": f"10.0.{build}" if build else vm.os_version,
                "licenseProfile": {"productProfile": _product_profile(vm, status)},
                "osProfile": {
                    **_known({"computerName": vm.computer_name}),
                    "windowsConfiguration": {
                        "patchSettings": {
                            "assessmentMode": settings.assessment_mode.value,
                            "patchMode": settings.patch_mode.value,
                            "enableHotpatching": settings.enable_hotpatching,
                            "status": {
                                "hotpatchEnablementStatus": enablement if is_ready else "ActionRequired",
                            },
                        }
                    },
                },
            }
        ),
    }
