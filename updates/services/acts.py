"""What the record keeps of things asked of machines and of bulk requests; everything else is kept by triggers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from audit.services import Act, record
from audit.tags import Tag
from db.arrays import array
from patching.terms import OperationKind
from updates.models import BulkRequest, Operation
from vms.models import VirtualMachine

if TYPE_CHECKING:
    from django.contrib.auth.models import User

REQUESTS = {
    OperationKind.ASSESSMENT: Tag.ASSESSMENT_REQUEST,
    OperationKind.INSTALLATION: Tag.INSTALLATION_REQUEST,
    OperationKind.ROLLBACK: Tag.ROLLBACK_REQUEST,
    OperationKind.RESTART: Tag.RESTART_REQUEST,
}


def note_requests(
    *, kind: OperationKind, vm_ids: Collection[int], plan: Mapping[str, Any] | None, requested_by: User
) -> None:
    """Keep that a person asked these machines for an operation.

    Of a bulk request the request itself is kept, and of a change of settings what was changed.
    """
    if kind not in REQUESTS:
        return
    vms = VirtualMachine.objects.filter(pk__any=array(vm_ids)).order_by("pk")
    detail = {"plan": dict(plan)} if plan else {}
    record(acts=[Act(REQUESTS[kind], **vm.where, detail=detail) for vm in vms], by=requested_by)


def note_cancelled(*, operation_ids: Collection[UUID], cancelled_by: User) -> None:
    """Keep that a person cancelled these operations."""
    rows = Operation.objects.filter(pk__any=array(operation_ids)).select_related("vm").order_by("pk")
    acts = [Act(Tag.OPERATION_CANCEL, **row.vm.where, detail={"kind": row.get_kind_display()}) for row in rows]
    record(acts=acts, by=cancelled_by)


def note_bulk(*, tag: Tag, bulk: BulkRequest, by: User, detail: Mapping[str, Any]) -> None:
    """Keep what was done with a bulk request as a whole."""
    name = f"{bulk.get_kind_display()} {str(bulk.pk)[:8]}"
    record(acts=[Act(tag, str(bulk.pk), name, owner_key=bulk.requested_by_id, detail=detail)], by=by)
