"""Restarting machines whose only need is the reboot that is pending (docs/rules.md, restart)."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import transaction

from db.arrays import array
from patching.terms import OperationKind
from updates.models import Operation
from updates.selectors.restarts import judge_restarts
from updates.services.operations import RequestOutcome, RequestVerdict, database_now, request_with_payload
from vms.models import VirtualMachine

if TYPE_CHECKING:
    from django.contrib.auth.models import User


@transaction.atomic
def request_restarts(
    *,
    vm_ids: Collection[int],
    requested_by: User | None,
    operation_id: UUID | None = None,
    is_bulk: bool = False,
    begin_on: Collection[int] = (),
) -> list[RequestOutcome]:
    """Ask for a restart of every VM; each gets its own answer, refused with its reason where more or less is needed.

    A restart that is open already answers this request, too: no VM is rebooted twice. Arguments as in `request_installations`.
    """
    refused: list[RequestOutcome] = []
    if operation_id is None or not Operation.objects.filter(pk=operation_id).exists():
        # What is judged stays so until the request is written: a restart that ends meanwhile waits for this lock, or we for it.
        locked = VirtualMachine.objects.select_for_update(no_key=True).filter(pk__any=array(vm_ids)).order_by("pk")
        list(locked.values_list("pk"))
        refused = [
            RequestOutcome(pk, RequestVerdict.REFUSED, None, refusal.value)
            for pk, refusal in judge_restarts(vm_ids, now=database_now()).items()
            if refusal is not None
        ]
    not_asked = {outcome.vm_id for outcome in refused}
    wanted = [pk for pk in vm_ids if pk not in not_asked]
    if not wanted:
        return refused
    return refused + request_with_payload(
        kind=OperationKind.RESTART,
        vm_ids=wanted,
        payload=None,
        requested_by=requested_by,
        operation_id=operation_id,
        is_bulk=is_bulk,
        begin_on=begin_on,
    )
