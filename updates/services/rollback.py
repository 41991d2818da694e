"""Rolling VMs back, and what is held back on them afterwards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from audit.context import acting
from connectors.protocol import Capability
from connectors.registry import kinds_with
from patching.rollback import RollbackOrder, RollbackRefusal
from patching.terms import OperationKind
from updates.models import KbHold
from updates.selectors.rollback import rollback_orders
from updates.services.operations import RequestOutcome, RequestVerdict, request_with_payload
from vms.models import VirtualMachine

if TYPE_CHECKING:
    from django.contrib.auth.models import User


@transaction.atomic
def request_rollback(*, vm_id: int, order: RollbackOrder, requested_by: User, operation_id: UUID) -> RequestOutcome:
    """Ask for the rollback; what it uninstalls is held back on the VM from now on, until somebody lifts the hold.

    The second click with the same `operation_id` finds what the first one made.
    """
    if not VirtualMachine.objects.filter(pk=vm_id, connection__kind__in=kinds_with(Capability.UNINSTALL)).exists():
        return RequestOutcome(vm_id, RequestVerdict.REFUSED, None, RollbackRefusal.NOT_SUPPORTED.value)
    outcomes = request_with_payload(
        kind=OperationKind.ROLLBACK,
        vm_ids=[vm_id],
        payload=order,
        requested_by=requested_by,
        operation_id=operation_id,
    )
    _hold(outcomes, {vm_id: order}, requested_by)
    return outcomes[0]


@transaction.atomic
def request_rollbacks(*, vm_ids: Collection[int], requested_by: User | None) -> list[RequestOutcome]:
    """Ask every VM back to its own last good baseline, planned now; each gets its own answer."""
    plans = rollback_orders(vm_ids, now=timezone.now())
    orders = {vm_id: plan for vm_id, plan in plans.items() if isinstance(plan, RollbackOrder)}
    outcomes = [
        RequestOutcome(vm_id, RequestVerdict.REFUSED, None, plan.value)
        for vm_id, plan in plans.items()
        if isinstance(plan, RollbackRefusal)
    ]
    alike: dict[RollbackOrder, list[int]] = defaultdict(list)
    for vm_id, order in orders.items():
        alike[order].append(vm_id)
    for order, ids in alike.items():  # a fleet stands at few places
        outcomes += request_with_payload(
            kind=OperationKind.ROLLBACK,
            vm_ids=ids,
            payload=order,
            requested_by=requested_by,
            is_bulk=True,
        )
    _hold(outcomes, orders, requested_by)
    return outcomes


def _hold(outcomes: Collection[RequestOutcome], orders: Mapping[int, RollbackOrder], requested_by: User | None) -> None:
    with acting(person=requested_by):
        KbHold.objects.bulk_create(
            [
                KbHold(vm_id=o.vm_id, kb_number=kb, operation_id=o.operation_id, created_by=requested_by)
                for o in outcomes
                if o.verdict is RequestVerdict.ACCEPTED
                for kb in orders[o.vm_id].uninstall_kbs
            ],
            ignore_conflicts=True,
        )


def lift_hold(*, vm_id: int, kb_number: str) -> bool:
    """Let installations take the KB again. False: it was not held."""
    return bool(KbHold.objects.filter(vm_id=vm_id, kb_number=kb_number).delete()[0])
