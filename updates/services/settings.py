"""Patch settings that a person changes: an operation carries them to the machine (docs/rules.md, patch settings)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import transaction

from audit.services import Act, record
from audit.tags import Tag
from connectors.protocol import Capability
from connectors.registry import kinds_with
from patching.codes import ErrorCode
from patching.terms import OperationKind, PatchSettings
from updates.services.operations import RequestOutcome, RequestVerdict, carry_settings, request_with_payload
from vms.models import VirtualMachine
from vms.selection import VmSelection
from vms.services.settings import (
    Refusal,
    SettingsChange,
    SettingsOutcome,
    SettingsVerdict,
    judge_change,
    selected_vms,
    want_settings,
)

if TYPE_CHECKING:
    from django.contrib.auth.models import User

# What one person changes on more machines than this waits behind what other people have asked for one by one.
FEW = 25


@transaction.atomic
def change_settings(*, selection: VmSelection, change: SettingsChange, changed_by: User) -> list[SettingsOutcome]:
    """Change what the VMs of the selection shall have, where rules and roles allow it, and queue what carries it to them.

    One answer for each VM that the user may see. Where another operation stands in the way nothing changes. Settings that
    wait already carry the new values instead.
    """
    vms, owned = selected_vms(changed_by, selection, lock=True)
    outcomes = judge_change(vms=vms, change=change, owned=owned)
    wanted = {outcome.vm.pk: outcome.after for outcome in outcomes if outcome.verdict is SettingsVerdict.CHANGED}
    answers = _carry(wanted, changed_by)
    outcomes = [_answered(outcome, answers.get(outcome.vm.pk)) for outcome in outcomes]
    record(acts=_acts(outcomes, change), by=changed_by)
    return outcomes


@transaction.atomic
def apply_settings_again(*, vm_id: int, requested_by: User) -> RequestOutcome | None:
    """Carry to a VM what it shall have and does not report; None: it reports just that, or its connector cannot do it."""
    able = VirtualMachine.objects.filter(connection__kind__in=kinds_with(Capability.SETTINGS))
    vm = able.select_for_update(of=("self",), no_key=True).filter(pk=vm_id, desired_settings__isnull=False).first()
    if vm is None:
        return None
    answer = _carry({vm.pk: vm.desired}, requested_by).get(vm.pk)
    if answer is not None and answer.verdict is not RequestVerdict.REFUSED:
        record(
            acts=[Act(Tag.SETTINGS_CHANGE, **vm.where, source="vms.virtualmachine", after=vm.desired.as_json)],
            by=requested_by,
        )
    return answer


MAX_NAMED = 20  # machines whose names an event holds


def _acts(outcomes: Sequence[SettingsOutcome], change: SettingsChange) -> list[Act]:
    """What the record keeps: the one machine, else one act for each resource group with how many changed in it."""
    values = {name: value.value if isinstance(value, StrEnum) else value for name, value in change.values.items()}
    groups: dict[int, list[VirtualMachine]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.verdict is SettingsVerdict.CHANGED:
            groups[outcome.vm.resource_group_id].append(outcome.vm)
    return [
        Act(
            Tag.SETTINGS_CHANGE,
            **(vms[0].where if len(vms) == 1 else {"group_key": pk, "object_name": vms[0].resource_group.name}),
            source="vms.virtualmachine",
            after=values,
            detail={"machines": len(vms), "names": [vm.name for vm in vms[:MAX_NAMED]]} if len(vms) > 1 else {},
        )
        for pk, vms in groups.items()
    ]


def _answered(outcome: SettingsOutcome, answer: RequestOutcome | None) -> SettingsOutcome:
    if answer is None or answer.verdict is not RequestVerdict.REFUSED:
        return outcome
    is_silent = answer.code == ErrorCode.VM_AWAITING_ASSESSMENT
    refusal = Refusal.AWAITING_ASSESSMENT if is_silent else Refusal.OPERATION_OPEN
    return replace(outcome, verdict=SettingsVerdict.REFUSED, refusal=refusal)


def _carry(wanted: Mapping[int, PatchSettings], requested_by: User) -> dict[int, RequestOutcome]:
    """Queue an operation for each of these VMs, or let the one that waits carry the new settings; the answers by VM."""
    alike: dict[PatchSettings, list[int]] = defaultdict(list)
    for vm_id, settings in wanted.items():
        alike[settings].append(vm_id)
    answers: dict[int, RequestOutcome] = {}
    for settings, ids in alike.items():  # a change leaves few different settings
        answers |= {answer.vm_id: answer for answer in _ask(settings, ids, requested_by, is_bulk=len(wanted) > FEW)}
    want_settings(
        wanted={pk: wanted[pk] for pk, answer in answers.items() if answer.verdict is not RequestVerdict.REFUSED}
    )
    return answers


def _ask(
    settings: PatchSettings, vm_ids: Collection[int], requested_by: User, *, is_bulk: bool
) -> Sequence[RequestOutcome]:
    answers = request_with_payload(
        kind=OperationKind.SETTINGS, vm_ids=vm_ids, payload=settings, requested_by=requested_by, is_bulk=is_bulk
    )
    waiting: set[UUID] = {
        a.operation_id for a in answers if a.verdict is RequestVerdict.JOINED and a.operation_id is not None
    }
    if not waiting:
        return answers
    carried = carry_settings(operation_ids=waiting, settings=settings, requested_by=requested_by)
    # One that a worker has begun meanwhile runs with the settings before: these would come too late.
    return [
        replace(a, verdict=RequestVerdict.REFUSED, code=ErrorCode.CONFLICT_INSTALLATION_OPEN)
        if a.operation_id in waiting - carried
        else a
        for a in answers
    ]
