"""Machines: lists in three places, one machine, its instance view, and its network interface."""

from __future__ import annotations

import re

from arm_api.calls import Answer, Call
from arm_api.documents.machines import (
    NIC_SUFFIX,
    Document,
    arc_machine,
    as_of,
    instance_view,
    network_interface,
    virtual_machine,
)
from arm_api.errors import ArmCode, ArmError, invalid
from arm_api.kinds import ARC, COMPUTE, MachineKind
from arm_api.pages import listed, page_of
from arm_api.selectors import (
    PatchStatus,
    group_of,
    machine_of,
    machines_of,
    patch_statuses,
    subscription_of,
)
from vms.models import VirtualMachine, VirtualMachineQuerySet
from vms.regions import region_name

_OF_SCALE_SET = re.compile(r"'virtualMachineScaleSet/id' eq '?(/subscriptions/[^']+?)'?", re.IGNORECASE)


def _document(call: Call, kind: MachineKind, vm: VirtualMachine, status: PatchStatus | None) -> Document:
    return as_of(call.version, kind, arc_machine(vm, status) if kind is ARC else virtual_machine(vm, status))


def _expands(call: Call, kind: MachineKind) -> bool:
    """Whether the instance view is asked for. Raises ArmError for what cannot be expanded."""
    wanted = call.option("$expand").lower()
    if wanted not in {"", "instanceview", "userdata"}:
        raise invalid(f"The value '{wanted[:40]}' of $expand is not supported.", "$expand")
    return wanted == "instanceview" or kind is ARC


def _filtered(call: Call, rows: VirtualMachineQuerySet) -> VirtualMachineQuerySet:
    asked = call.option("$filter")
    if not asked:
        return rows
    match = _OF_SCALE_SET.fullmatch(asked.strip())
    if match is None:
        raise invalid("Only the filter 'virtualMachineScaleSet/id' eq <id> is supported.", "$filter")
    return rows.filter(scale_set__iexact=match[1])


def _listed(call: Call, kind: MachineKind, rows: VirtualMachineQuerySet) -> Answer:
    has_views = _expands(call, kind) or call.option("statusOnly").lower() == "true"
    page, next_link = page_of(call, _filtered(call, rows))
    statuses = patch_statuses(page) if has_views else {}
    return Answer(listed([_document(call, kind, vm, statuses.get(vm.pk)) for vm in page], next_link))


def of_subscription(call: Call, *, kind: MachineKind) -> Answer:
    """The machines of a subscription."""
    rows = machines_of(call.caller, kind).filter(resource_group__subscription=subscription_of(call))
    return _listed(call, kind, rows)


def of_group(call: Call, *, kind: MachineKind) -> Answer:
    """The machines of a resource group."""
    return _listed(call, kind, machines_of(call.caller, kind).filter(resource_group=group_of(call)))


def of_location(call: Call, *, kind: MachineKind) -> Answer:
    """The machines of a region in a subscription."""
    rows = machines_of(call.caller, kind).filter(resource_group__subscription=subscription_of(call))
    return _listed(call, kind, rows.filter(location=region_name(call.place["location"])))


def one(call: Call, *, kind: MachineKind) -> Answer:
    """One machine."""
    vm = machine_of(call, kind)
    return Answer(_document(call, kind, vm, patch_statuses([vm])[vm.pk] if _expands(call, kind) else None))


def view(call: Call) -> Answer:
    """The instance view of a virtual machine."""
    vm = machine_of(call, COMPUTE)
    return Answer(instance_view(vm, patch_statuses([vm])[vm.pk]))


def interface(call: Call) -> Answer:
    """The network interface that a machine refers to."""
    name = call.place["name"]
    if not name.lower().endswith(NIC_SUFFIX):
        raise ArmError(
            ArmCode.RESOURCE_NOT_FOUND, f"The Resource 'Microsoft.Network/networkInterfaces/{name}' was not found."
        )
    of_machine = Call(
        call.request,
        call.caller,
        {**call.place, "name": name[: -len(NIC_SUFFIX)]},
        call.version,
        call.action,
        call.now,
    )
    return Answer(network_interface(machine_of(of_machine, COMPUTE)))
