"""Licence profiles of Arc machines: enrolling a machine for hotpatches, letting it leave, and how far that is.

Each machine has one profile, `default`. What it says of the feature Hotpatch is the machine's setting in this portal.
"""

from __future__ import annotations

from arm_api.bodies import WantedMachine, wanted_license_of
from arm_api.calls import Answer, Call
from arm_api.documents.machines import Document, license_profile
from arm_api.handlers.patching import follow_headers
from arm_api.handlers.settings import apply
from arm_api.kinds import ARC
from arm_api.pages import listed
from arm_api.selectors import machine_of, patch_statuses
from vms.choices import Role
from vms.models import VirtualMachine
from vms.services.settings import SettingsChange


def one(call: Call) -> Answer:
    """The profile of a machine."""
    return Answer(_document(machine_of(call, ARC)))


def every(call: Call) -> Answer:
    """The profiles of a machine: its one."""
    return Answer(listed([_document(machine_of(call, ARC))], ""))


def put(call: Call) -> Answer:
    """Enrol the machine or let it leave; 201 where that has begun, 200 where it is so already."""
    vm = machine_of(call, ARC, Role.OWNER)
    following, operation_id = _change(call, vm, wanted_license_of(call.body, current=_document(vm)))
    document = _document(machine_of(call, ARC))
    return Answer(document, 201 if following else 200, following, request_id=operation_id)


def patch(call: Call) -> Answer:
    """The same; 202 without a body where it has begun."""
    vm = machine_of(call, ARC, Role.OWNER)
    following, operation_id = _change(call, vm, wanted_license_of(call.body, current=_document(vm)))
    document = None if following else _document(vm)
    return Answer(document, 202 if following else 200, following, request_id=operation_id)


def remove(call: Call) -> Answer:
    """Let the machine leave; 204 where it is not enrolled."""
    vm = machine_of(call, ARC, Role.OWNER)
    following, operation_id = _change(call, vm, False)
    return Answer(None, 202 if following else 204, following, request_id=operation_id)


def _document(vm: VirtualMachine) -> Document:
    return license_profile(vm, patch_statuses([vm])[vm.pk])


def _change(call: Call, vm: VirtualMachine, is_wanted: bool | None) -> tuple[dict[str, str], str]:
    """Make the change; where to follow the operation and its id, both empty where nothing changes. Raises ArmError."""
    if is_wanted is None:
        return {}, ""
    operation_id = apply(call, vm, WantedMachine(SettingsChange(enable_hotpatching=is_wanted)))
    return (follow_headers(call, ARC, vm, operation_id), str(operation_id)) if operation_id else ({}, "")
