"""What we forget of a VM when another machine stands under its resource id. Its history stays, and is marked as older."""

from __future__ import annotations

from collections.abc import Collection

import structlog

from patching.terms import OperationKind, OperationState, Verification
from updates.models import InstalledPatch, KbHold, Operation, VmUpdateState
from updates.services.operations import cancel_operations, request_assessments

log = structlog.get_logger(__name__)


def forget_replaced_machines(vm_ids: Collection[int]) -> None:
    """Forget what was found on the machines before, take back what waits for them, and ask for an assessment.

    Until that has answered they take no installation, neither by themselves nor by a person.
    """
    ids = list(vm_ids)
    queued = Operation.objects.open().filter(vm__in=ids, state=OperationState.QUEUED.value)
    queued = queued.exclude(kind=OperationKind.ASSESSMENT.value)
    cancel_operations(operation_ids=list(queued.values_list("pk", flat=True)), requested_by=None)
    InstalledPatch.objects.filter(vm__in=ids).delete()
    KbHold.objects.filter(vm__in=ids).delete()
    Operation.objects.filter(vm__in=ids, verification=Verification.PENDING.value).update(
        verification=Verification.NOT_VERIFIABLE.value
    )
    unknown = [VmUpdateState(vm_id=vm_id, is_awaiting_assessment=True) for vm_id in sorted(ids)]
    fields = ["patch_set", "last_assessed_at", "os_build", "error_code", "is_awaiting_assessment"]
    VmUpdateState.objects.bulk_create(unknown, update_conflicts=True, unique_fields=["vm"], update_fields=fields)
    request_assessments(vm_ids=ids, requested_by=None, is_bulk=True)
    log.info("machines_replaced", vms=len(ids))
