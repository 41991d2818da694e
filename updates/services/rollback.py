"""Rolling a VM back, and what is held back on it afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from django.db import transaction

from patching.rollback import RollbackOrder
from patching.terms import OperationKind
from updates.models import KbHold
from updates.plans import order_to_json
from updates.services.operations import RequestOutcome, Verdict, request_operation

if TYPE_CHECKING:
    from django.contrib.auth.models import User


@transaction.atomic
def request_rollback(*, vm_id: int, order: RollbackOrder, requested_by: User, operation_id: UUID) -> RequestOutcome:
    """Ask for the rollback; what it uninstalls is held back on the VM from now on, until somebody lifts the hold."""
    outcome = request_operation(
        kind=OperationKind.ROLLBACK,
        vm_id=vm_id,
        plan=order_to_json(order),
        requested_by=requested_by,
        operation_id=operation_id,
    )
    if outcome.verdict is Verdict.ACCEPTED:
        KbHold.objects.bulk_create(
            [
                KbHold(vm_id=vm_id, kb_number=kb, operation_id=outcome.operation_id, created_by=requested_by)
                for kb in order.uninstall_kbs
            ],
            ignore_conflicts=True,
        )
    return outcome


def lift_hold(*, vm_id: int, kb_number: str) -> bool:
    """Let installations take the KB again. False: it was not held."""
    return bool(KbHold.objects.filter(vm_id=vm_id, kb_number=kb_number).delete()[0])
