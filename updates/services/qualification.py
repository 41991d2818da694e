"""One assessment or one installation on a named machine, as part of the qualification of its connection."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.db import transaction

from audit.services import Act, record
from connectors.qualification import Check, Finding, failed, passed
from patching.terms import Classification, InstallationPlan, OperationKind, OperationState, RebootSetting
from updates.models import Bucket, Operation, VmUpdateState
from updates.payloads import fields_of
from updates.services.acts import REQUESTS
from updates.services.operations import RequestOutcome, RequestVerdict, request_assessments, request_installations
from vms.models import Connection, VirtualMachine

# What proves the way with the least that can happen: definitions of Defender need no reboot, and none is allowed.
HARMLESS = InstallationPlan(
    classifications=frozenset({Classification.DEFINITION}),
    reboot_setting=RebootSetting.NEVER,
    maximum_duration=timedelta(minutes=60),
)
_GOOD = frozenset({OperationState.SUCCEEDED, OperationState.COMPLETED_WITH_WARNINGS})


def machines_named(*, connection: Connection, name: str) -> list[VirtualMachine]:
    """The machines behind this connection that are meant by a name or a resource id; at most two, none that is gone."""
    here = VirtualMachine.objects.filter(connection=connection, gone_at=None).select_related("connection")
    meant = here.filter(arm_id=name.lower()) if "/" in name else here.filter(name__iexact=name)
    return list(meant.order_by("pk")[:2])


@transaction.atomic
def request_for_qualification(*, vm: VirtualMachine, kind: OperationKind) -> RequestOutcome:
    """Ask for an assessment, or for the harmless installation, as anybody asks; that it was asked is kept."""
    reason = f"qualification of {vm.connection.name}"
    plan = HARMLESS if kind is OperationKind.INSTALLATION else None
    if plan is None:
        (outcome,) = request_assessments(vm_ids=[vm.pk], requested_by=None)
    else:
        (outcome,) = request_installations(vm_ids=[vm.pk], plan=plan, requested_by=None)
    if outcome.verdict is RequestVerdict.ACCEPTED:
        detail = {"plan": dict(fields_of(kind, plan) or {})} if plan else {}
        record(acts=[Act(REQUESTS[kind], **vm.where, detail=detail)], reason=reason)
    return outcome


def finding_of(*, check: Check, operation_id: UUID) -> Finding | None:
    """What became of it; None while it runs."""
    operation = Operation.objects.select_related("vm").get(pk=operation_id)
    if operation.finished_at is None:
        return None
    state = OperationState(operation.state)
    evidence = f"{operation.vm.name}: {state}, operation {operation.pk}"
    if operation.started_at is not None:
        evidence += f", {(operation.finished_at - operation.started_at).total_seconds():.0f} s"
    if state not in _GOOD:
        return failed(check.name, f"{operation.error_code} {operation.error_detail}".strip()[:500], evidence)
    return passed(check.name, f"{evidence}; {_told(operation)}")


def _told(operation: Operation) -> str:
    if operation.kind == OperationKind.INSTALLATION:
        told = f"{operation.installed_count} installed, {operation.failed_count} failed"
    else:
        vm = operation.vm
        build = VmUpdateState.objects.filter(vm=vm).values_list("os_build", flat=True).first() or "not told"
        told = f"{vm.critical_and_security_count} critical or security, {vm.other_count} other; build {build}"
    bucket = Bucket.objects.filter(connection=operation.connection_id, name=operation.bucket, remaining__isnull=False)
    left = bucket.values_list("remaining", flat=True).first()
    return f"{told}; budget {operation.bucket}: {'nothing was told' if left is None else f'{left} left'}"
