"""Assessing and installing, and following what came of it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from arm_api.bodies import plan_of
from arm_api.calls import Answer, Call
from arm_api.documents.operations import outer_status, result_of, status_document
from arm_api.errors import refused
from arm_api.kinds import ARC, MachineKind
from arm_api.selectors import available_of, machine_of, operation_of, results_of
from patching.terms import OperationKind
from updates.models import Operation
from updates.services.operations import RequestOutcome, RequestVerdict, request_assessments, request_installations
from updates.tasks import wake_up
from vms.choices import Role
from vms.models import VirtualMachine

RETRY_SECONDS = 5  # in which simulated work shows; Azure says nothing, and clients wait for 30


def assess(call: Call, *, kind: MachineKind) -> Answer:
    """Assess a machine; who asks again while it is assessed gets the same operation."""
    vm = machine_of(call, kind, Role.OPERATOR)
    (outcome,) = request_assessments(vm_ids=[vm.pk], requested_by=call.caller.account)
    return _accepted(call, kind, vm, outcome)


def install(call: Call, *, kind: MachineKind) -> Answer:
    """Install on a machine what the body asks for."""
    vm = machine_of(call, kind, Role.OPERATOR)
    plan = plan_of(call.body, call.version, needs_duration=kind is ARC)
    (outcome,) = request_installations(vm_ids=[vm.pk], plan=plan, requested_by=call.caller.account)
    return _accepted(call, kind, vm, outcome)


def _accepted(call: Call, kind: MachineKind, vm: VirtualMachine, outcome: RequestOutcome) -> Answer:
    if outcome.verdict is RequestVerdict.REFUSED or outcome.operation_id is None:
        raise refused(outcome.code)
    wake_up()
    headers = follow_headers(call, kind, vm, outcome.operation_id)
    return Answer(None, 202, headers, request_id=str(outcome.operation_id))


def follow_headers(call: Call, kind: MachineKind, vm: VirtualMachine, operation_id: UUID) -> dict[str, str]:
    """Where to follow an operation, by both ways that clients know."""
    base = f"{call.origin}/subscriptions/{call.subscription_id}/providers/{kind.provider}/locations/{vm.location}"
    version = f"api-version={call.version}"
    monitor = "" if kind is ARC else "monitor=true&"
    return {
        "Azure-AsyncOperation": f"{base}/{kind.status_path}/{operation_id}?{version}",
        "Location": f"{base}/{kind.result_path}/{operation_id}?{monitor}{version}",
        "Azure-AsyncNotification": "Enabled",
        "Retry-After": str(RETRY_SECONDS),
    }


def status(call: Call, *, kind: MachineKind) -> Answer:
    """How far an operation is, with its result once it has ended; with `monitor=true` the result alone."""
    operation = operation_of(call, kind)
    if call.option("monitor").lower() == "true":
        return result(call, kind=kind)
    document = status_document(operation, _output(kind, operation) if operation.is_ended else None)
    following = {} if operation.is_ended else {"Retry-After": str(RETRY_SECONDS)}
    if kind is ARC:
        following = follow_headers(call, kind, operation.vm, operation.pk)
    return Answer(document, 200, following)


def result(call: Call, *, kind: MachineKind) -> Answer:
    """The result of an operation that has ended; 202 with the same address before."""
    operation = operation_of(call, kind)
    if not operation.is_ended:
        return Answer(None, 202, follow_headers(call, kind, operation.vm, operation.pk))
    if outer_status(operation) in {"Failed", "Canceled"}:
        raise refused(operation.error_code)
    return Answer(_output(kind, operation))


def _output(kind: MachineKind, operation: Operation) -> dict[str, Any] | None:
    is_assessment = operation.kind == OperationKind.ASSESSMENT
    available = available_of([operation.vm_id]).get(operation.vm_id, ()) if is_assessment else ()
    results = results_of([operation.pk]).get(operation.pk, ()) if operation.kind == OperationKind.INSTALLATION else ()
    return result_of(kind, operation, available, results)
