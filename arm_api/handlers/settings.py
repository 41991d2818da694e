"""Changing a machine: its patch settings and its tags, and nothing else."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction

from arm_api.bodies import WantedMachine, wanted_of
from arm_api.calls import Answer, Call
from arm_api.documents.machines import Document, arc_machine, as_of, virtual_machine
from arm_api.errors import ArmCode, ArmError, invalid
from arm_api.handlers.patching import follow_headers
from arm_api.kinds import ARC, MachineKind
from arm_api.selectors import machine_of
from patching.terms import OperationKind
from updates.models import Operation
from updates.services.settings import change_settings
from updates.tasks import wake_up
from vms.choices import Role
from vms.models import VirtualMachine
from vms.selection import VmSelection
from vms.services.settings import Refusal, SettingsOutcome, SettingsVerdict
from vms.services.tagging import change_tags
from vms.texts import REFUSALS, SETTINGS_PROBLEMS


def change(call: Call, *, kind: MachineKind) -> Answer:
    """PATCH or PUT: take what may change, compare the rest. All of it or nothing."""
    vm = machine_of(call, kind, Role.OWNER)
    current = _document(kind, vm)
    _check_marks(call, current)
    wanted = wanted_of(call.body, current=current)
    operation_id = apply(call, vm, wanted)
    following = {}
    if operation_id is not None:
        following = follow_headers(call, kind, vm, operation_id)
        del following["Location"]  # once it has ended, clients get the machine itself
    told = as_of(call.version, kind, _document(kind, machine_of(call, kind)))
    return Answer(told, 200, following, request_id=str(operation_id or ""))


def apply(call: Call, vm: VirtualMachine, wanted: WantedMachine) -> UUID | None:
    """Make the change, all of it or nothing, and wake a worker; the operation that carries it, if any. Raises ArmError."""
    with transaction.atomic():
        operation_id = _apply(call, vm, wanted)
    if operation_id is not None:
        wake_up()
    return operation_id


def _document(kind: MachineKind, vm: VirtualMachine) -> Document:
    return arc_machine(vm) if kind is ARC else virtual_machine(vm)


def _check_marks(call: Call, current: Document) -> None:
    """If-Match and If-None-Match, as clients send them that changed what they got."""
    wanted, unwanted = (call.request.headers.get(name, "").strip() for name in ("If-Match", "If-None-Match"))
    mark = current.get("etag")
    if (wanted and wanted not in {"*", mark}) or (unwanted and unwanted in {"*", mark}):
        raise ArmError(ArmCode.PRECONDITION_FAILED, "The machine is not the one that the condition names.")


def _apply(call: Call, vm: VirtualMachine, wanted: WantedMachine) -> UUID | None:
    """Make the change; the operation that carries it to the machine, if there is one. Raises ArmError."""
    account = call.caller.account
    if wanted.tags is not None:
        change_tags(vm_id=vm.pk, tags=wanted.tags, changed_by=account)
    if not wanted.settings.values:
        return None
    outcomes = change_settings(selection=VmSelection.of([vm.pk]), change=wanted.settings, changed_by=account)
    for outcome in outcomes:
        if outcome.verdict is SettingsVerdict.REFUSED:
            raise _refused(outcome)
    if not any(outcome.verdict is SettingsVerdict.CHANGED for outcome in outcomes):
        return None
    rows = Operation.objects.open().filter(vm=vm, kind=OperationKind.SETTINGS).order_by("-created_at")
    return rows.values_list("pk", flat=True).first()


def _refused(outcome: SettingsOutcome) -> ArmError:
    if outcome.violations:
        first, *others = outcome.violations
        details = [
            {"code": each.arm_code, "target": each.arm_target, "message": str(SETTINGS_PROBLEMS[each.problem])}
            for each in others
        ]
        error = invalid(str(SETTINGS_PROBLEMS[first.problem]), first.arm_target)
        return ArmError(error.code, error.message, target=error.target, details=details)
    refusal = outcome.refusal or Refusal.NOT_SUPPORTED
    code = ArmCode.AUTHORIZATION_FAILED if refusal is Refusal.NOT_OWNER else ArmCode.OPERATION_NOT_ALLOWED
    return ArmError(code, str(REFUSALS[refusal.value]))
