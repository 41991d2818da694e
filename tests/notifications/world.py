"""What waits for people, and time that passes for the mails."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from notifications.models import Mail
from notifications.services import collect_mails, send_due
from patching.codes import RolloutReason
from tests.factories import OperationFactory
from updates.models import BulkBlock, BulkOutcome, BulkRequest, Rollout, RolloutMember, RolloutState
from updates.services.bulk_ends import finish_bulk_requests
from vms.models import VirtualMachine


def paused(
    by: User | None, failed: Sequence[VirtualMachine], *others: VirtualMachine, name: str = "November"
) -> Rollout:
    """A rollout that a gate has just paused, because these machines failed."""
    rollout = Rollout.objects.create(name=name, source="on_demand", plan={}, created_by=by, created_at=timezone.now())
    RolloutMember.objects.bulk_create(
        [RolloutMember(rollout=rollout, vm=vm, wave=0, status="failed") for vm in failed]
        + [RolloutMember(rollout=rollout, vm=vm, wave=1, status="waiting") for vm in others]
    )
    pause(rollout)
    return rollout


def pause(rollout: Rollout) -> None:
    """Pause it, as the gate does."""
    rollout.status, rollout.reason = RolloutState.PAUSED, RolloutReason.BUDGET_USED
    rollout.save()


def failed_bulk(by: User, *vms: VirtualMachine) -> BulkRequest:
    """A bulk request that has ended, and failed on these machines."""
    request = BulkRequest.objects.create(
        kind="installation", requested_by=by, vm_count=len(vms), is_handed_out=True, plan={}
    )
    BulkBlock.objects.create(request=request, number=0, vm_ids=[vm.pk for vm in vms])
    for vm in vms:
        operation = OperationFactory.create(vm=vm, installation=True, failed=True)
        BulkOutcome.objects.create(request=request, vm=vm, verdict="accepted", operation=operation)
    finish_bulk_requests(now=timezone.now())
    request.refresh_from_db()
    return request


def settle() -> None:
    """Make what has happened old enough for the outbox, which waits until no open transaction can come before it."""
    with connection.cursor() as cursor:
        # Events are never changed: past the trigger.
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("UPDATE audit_auditevent SET at = at - interval '5 minutes'")
        cursor.execute("SET session_replication_role = origin")


def collect() -> int:
    """Make the mails of what has happened."""
    settle()
    return collect_mails(now=timezone.now())


def later(minutes: int = 0) -> int:
    """Send what is due by then."""
    if minutes:
        Mail.objects.filter(due_at__isnull=False).update(due_at=timezone.now() - timedelta(seconds=1))
    return send_due(now=timezone.now())
