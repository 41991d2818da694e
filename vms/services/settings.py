"""Changing the patch settings of one or many VMs: judged by the rules first, written in one statement."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from django.db import transaction

from audit.services import Act, record
from audit.tags import Tag
from patching.settings_rules import SettingsViolation, judge_settings
from patching.terms import AssessmentMode, PatchMode, PatchSettings, Platform, RebootSetting
from vms.choices import Role
from vms.models import Grants, VirtualMachine
from vms.selection import VmSelection
from vms.selectors import eligibilities_of
from vms.services.summaries import refresh_hotpatch_statuses, refresh_patchers

if TYPE_CHECKING:
    from django.contrib.auth.models import User


@dataclass(frozen=True, slots=True)
class SettingsChange:
    """What is to change; a field that is None stays as each VM has it."""

    patch_mode: PatchMode | None = None
    bypass_platform_safety_checks: bool | None = None
    assessment_mode: AssessmentMode | None = None
    enable_hotpatching: bool | None = None
    reboot_setting: RebootSetting | None = None

    @property
    def values(self) -> dict[str, Any]:
        """The fields that change, by the name they have on a VM and in `PatchSettings`."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value is not None}


class Verdict(StrEnum):
    """What becomes of a change on one VM."""

    CHANGED = "changed"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


class Refusal(StrEnum):
    """Why a VM is left alone beside what the rules say."""

    NOT_OWNER = "not_owner"
    REPORTED_BY_MACHINE = "reported_by_machine"


@dataclass(frozen=True, slots=True)
class SettingsOutcome:
    """The answer for one VM. `differing` names the settings that change."""

    vm: VirtualMachine
    verdict: Verdict
    before: PatchSettings
    after: PatchSettings
    violations: tuple[SettingsViolation, ...] = ()
    refusal: Refusal | None = None

    @property
    def differing(self) -> tuple[str, ...]:
        """The names of the settings that change."""
        names = (field.name for field in fields(PatchSettings))
        return tuple(name for name in names if getattr(self.before, name) != getattr(self.after, name))


def judge_change(
    *, vms: Sequence[VirtualMachine], change: SettingsChange, owned: Collection[int]
) -> list[SettingsOutcome]:
    """What a change would do to each of these VMs (loaded with their connection); one query for any number.

    `owned`: the ids on which the user is Owner; the others are refused.
    """
    eligibilities = eligibilities_of(vms)
    outcomes = []
    for vm in vms:
        before = vm.patch_settings
        after = replace(before, **change.values)
        platform = Platform(vm.connection.platform)
        violations: tuple[SettingsViolation, ...] = ()
        refusal = None
        if after != before:
            if vm.pk not in owned:
                refusal = Refusal.NOT_OWNER
            elif vm.are_settings_reported:
                refusal = Refusal.REPORTED_BY_MACHINE
            else:
                violations = judge_settings(after, current=before, eligibility=eligibilities[vm.pk], platform=platform)
        verdict = Verdict.CHANGED if after != before else Verdict.UNCHANGED
        if refusal or violations:
            verdict = Verdict.REFUSED
        outcomes.append(SettingsOutcome(vm, verdict, before, after, violations, refusal))
    return outcomes


def selected_vms(user: User, selection: VmSelection, *, lock: bool = False) -> tuple[list[VirtualMachine], set[int]]:
    """The VMs of a selection that the user may see, by name, and the ids of those that the user owns."""
    grants = Grants.of(user)
    rows = selection.vms.granted_by(grants).select_related("connection", "resource_group")
    if lock:
        # In the order of their ids, as every writer of VMs locks them: two that meet wait instead of deadlocking.
        list(rows.order_by("pk").select_for_update(of=("self",), no_key=True).values_list("pk"))
    vms = list(rows.order_by("name", "pk"))
    return vms, {vm.pk for vm in vms if Role.OWNER in grants.roles_on(vm)}


@transaction.atomic
def change_settings(*, selection: VmSelection, change: SettingsChange, changed_by: User) -> list[SettingsOutcome]:
    """Change the settings of every VM of the selection that the rules and the user's roles allow; one answer for each.

    VMs that the user may not see get no answer. Who changed what is kept by the table's trigger (`SettingsEvent`).
    """
    vms, owned = selected_vms(changed_by, selection, lock=True)
    outcomes = judge_change(vms=vms, change=change, owned=owned)
    changed = [outcome.vm.pk for outcome in outcomes if outcome.verdict is Verdict.CHANGED]
    if changed:
        values = {name: value.value if isinstance(value, StrEnum) else value for name, value in change.values.items()}
        VirtualMachine.objects.filter(pk__in=changed).update(**values)
        record(acts=_acts(outcomes, values), by=changed_by)
        refresh_hotpatch_statuses(vm_ids=changed)
        refresh_patchers(among=VirtualMachine.objects.filter(pk__in=changed))
    return outcomes


MAX_NAMED = 20  # machines whose names an event holds


def _acts(outcomes: Sequence[SettingsOutcome], values: dict[str, Any]) -> list[Act]:
    """What the record keeps: the one machine, else one act for each resource group with how many changed in it."""
    groups: dict[int, list[VirtualMachine]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.verdict is Verdict.CHANGED:
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
