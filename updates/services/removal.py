"""Removing the record of a VM, with everything that hangs on it; what that is can be asked beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import Count, Q

from audit.services import Act, record
from audit.tags import Tag
from patching.lifecycle import IN_FLIGHT
from patching.terms import OperationKind, OperationState
from updates.models import InstalledPatch, Operation
from vms.models import RoleAssignment, VirtualMachine

if TYPE_CHECKING:
    from django.contrib.auth.models import User

log = structlog.get_logger(__name__)


class MachineIsBusyError(ValueError):
    """An operation may be at work on the machine; `operation_id` says which."""

    def __init__(self, operation_id: UUID) -> None:
        super().__init__(str(operation_id))
        self.operation_id = operation_id


@dataclass(frozen=True, slots=True)
class RemovalPreview:
    """What goes with a record. `in_flight`: the operation that has to end first, if there is one."""

    installations: int
    assessments: int
    queued: int
    installed_updates: int
    role_assignments: int
    in_flight: UUID | None


def preview_removal(*, vm: VirtualMachine) -> RemovalPreview:
    """Count what would go with the record (four queries)."""
    counts = Operation.objects.filter(vm=vm).aggregate(
        installations=Count("pk", filter=Q(kind=OperationKind.INSTALLATION.value)),
        assessments=Count("pk", filter=Q(kind=OperationKind.ASSESSMENT.value)),
        queued=Count("pk", filter=Q(state=OperationState.QUEUED.value)),
    )
    return RemovalPreview(
        **counts,
        installed_updates=InstalledPatch.objects.filter(vm=vm).count(),
        role_assignments=RoleAssignment.objects.filter(vm=vm).count(),
        in_flight=Operation.objects.in_flight().filter(vm=vm).values_list("pk", flat=True).first(),
    )


@transaction.atomic
def remove_vm(*, vm_id: int, removed_by: User) -> None:
    """Remove the record, its operations, results, installed updates and roles; the machine itself stays as it is.

    That it was there, and who removed it, is kept (`FactsEvent`). Raises MachineIsBusyError while an operation is
    in flight; a second click finds nothing and changes nothing.
    """
    vm = VirtualMachine.objects.filter(pk=vm_id).select_for_update(of=("self",)).first()
    if vm is None:
        return
    # The lock on the VM keeps new operations out (they refer to it), the locks on its operations keep them as they are.
    open_operations = list(Operation.objects.open().filter(vm=vm).select_for_update())
    in_flight = next((row.pk for row in open_operations if row.state in IN_FLIGHT), None)
    if in_flight is not None:
        raise MachineIsBusyError(in_flight)
    record(acts=[Act(Tag.RECORD_REMOVE, **vm.where)], by=removed_by)
    vm.delete()
    log.info("record_removed", vm_id=vm_id, arm_id=vm.arm_id, by=removed_by.get_username())
