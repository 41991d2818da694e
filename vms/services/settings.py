"""Patch settings of VMs: what a change would do by the rules, what a VM shall have, and what it reports that it has.

The columns of a VM are what it reported last: every rule goes by them. `desired_settings` is what it shall have where that
differs. The floor above carries a change to the machine (updates.services.settings).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from django.db import connection, transaction

from audit.services import Act, record
from audit.tags import Tag
from connectors.protocol import Capability
from db.arrays import array, rowset
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


class SettingsVerdict(StrEnum):
    """What becomes of a change on one VM."""

    CHANGED = "changed"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


class Refusal(StrEnum):
    """Why a VM is left alone beside what the rules say."""

    NOT_OWNER = "not_owner"
    REPORTED_BY_MACHINE = "reported_by_machine"
    NOT_SUPPORTED = "not_supported"  # the connector cannot change settings
    OPERATION_OPEN = "operation_open"
    AWAITING_ASSESSMENT = "awaiting_assessment"


@dataclass(frozen=True, slots=True)
class SettingsOutcome:
    """The answer for one VM. `differing` names the settings that change."""

    vm: VirtualMachine
    verdict: SettingsVerdict
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

    It changes what they shall have, and is held against what they have. `owned`: the ids on which the user is Owner; the others are refused.
    """
    eligibilities = eligibilities_of(vms)
    outcomes = []
    for vm in vms:
        before = vm.desired
        after = replace(before, **change.values)
        platform = Platform(vm.connection.platform)
        violations: tuple[SettingsViolation, ...] = ()
        refusal = None
        if after != before:
            if vm.pk not in owned:
                refusal = Refusal.NOT_OWNER
            elif vm.are_settings_reported:
                refusal = Refusal.REPORTED_BY_MACHINE
            elif Capability.SETTINGS not in vm.connection.capabilities:
                refusal = Refusal.NOT_SUPPORTED
            else:
                violations = judge_settings(
                    after, current=vm.patch_settings, eligibility=eligibilities[vm.pk], platform=platform
                )
        verdict = SettingsVerdict.CHANGED if after != before else SettingsVerdict.UNCHANGED
        if refusal or violations:
            verdict = SettingsVerdict.REFUSED
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


_KEPT = "jsonb_build_object(" + ", ".join(f"'{field.name}', vm.{field.name}" for field in fields(PatchSettings)) + ")"
_COLUMNS = {
    "vm_id": "bigint",
    **dict.fromkeys(("patch_mode", "assessment_mode", "reboot_setting"), "text"),
    **dict.fromkeys(
        ("provision_vm_agent", "enable_automatic_updates", "enable_hotpatching", "bypass_platform_safety_checks"),
        "boolean",
    ),
    "settings": "jsonb",
}
# The rows are locked in the order of their ids, as every writer of VMs does. A trigger drops what has come true.
_DESIRE = """
WITH new AS MATERIALIZED {rows}, locked AS MATERIALIZED (
    SELECT id FROM vms_virtualmachine WHERE id = ANY(%s::bigint[]) ORDER BY id FOR NO KEY UPDATE
)
UPDATE vms_virtualmachine vm SET desired_settings = new.settings
FROM new WHERE (SELECT count(*) FROM locked) > 0 AND vm.id = new.vm_id
"""
# What a VM had until it reported something else is what it shall have, unless a person wants yet another thing. On Azure
# Stack HCI settings are what the machine reports: nobody wants others there.
_REPORT = """
WITH new AS MATERIALIZED {rows}, locked AS MATERIALIZED (
    SELECT id FROM vms_virtualmachine WHERE id = ANY(%s::bigint[]) ORDER BY id FOR NO KEY UPDATE
)
UPDATE vms_virtualmachine vm
SET {columns}, desired_settings = CASE
    WHEN c.platform = %s THEN NULL
    ELSE COALESCE(vm.desired_settings, {kept}) END
FROM new, vms_connection c
WHERE (SELECT count(*) FROM locked) > 0 AND vm.id = new.vm_id AND c.id = vm.connection_id
  AND ({kept} <> new.settings OR vm.desired_settings IS NOT NULL)
RETURNING vm.id
"""


@transaction.atomic
def want_settings(*, wanted: Mapping[int, PatchSettings]) -> None:
    """Keep what these VMs (by id) shall have from now on. The caller queues the operation that carries it to the machine."""
    if wanted:
        rows, parameters = _rows(wanted)
        with connection.cursor() as cursor:
            cursor.execute(_DESIRE.format(rows=rows), [*parameters, array(wanted)])


@transaction.atomic
def record_settings(*, reported: Mapping[int, PatchSettings]) -> None:
    """Keep what these VMs (by id) report that they have: one statement, which touches only VMs where a value differs.

    Where that is not what they shall have, it shows as a difference until somebody applies the settings again, or wants
    others.
    """
    if not reported:
        return
    rows, parameters = _rows(reported)
    columns = ", ".join(f"{field.name} = new.{field.name}" for field in fields(PatchSettings))
    with connection.cursor() as cursor:
        cursor.execute(
            _REPORT.format(rows=rows, kept=_KEPT, columns=columns),
            [*parameters, array(reported), Platform.AZURE_STACK_HCI.value],
        )
        changed = [pk for (pk,) in cursor.fetchall()]
    if changed:
        refresh_hotpatch_statuses(vm_ids=changed)
        refresh_patchers(among=VirtualMachine.objects.filter(pk__in=changed))


@transaction.atomic
def accept_settings(*, vm_id: int, accepted_by: User) -> bool:
    """Want what the VM reports. False: it reports what is wanted already."""
    vm = VirtualMachine.objects.select_for_update(of=("self",), no_key=True).filter(pk=vm_id).first()
    if vm is None or vm.desired_settings is None:
        return False
    record(
        acts=[Act(Tag.SETTINGS_CHANGE, **vm.where, source="vms.virtualmachine", before=vm.desired_settings)],
        by=accepted_by,
    )
    VirtualMachine.objects.filter(pk=vm_id).update(desired_settings=None)
    return True


def _rows(settings: Mapping[int, PatchSettings]) -> tuple[str, list[str | None]]:
    """The settings of VMs as a set of rows with the columns `_COLUMNS`."""
    lines = [
        tuple({**(kept := each.as_json), "vm_id": pk, "settings": kept}[name] for name in _COLUMNS)
        for pk, each in settings.items()
    ]
    return rowset(_COLUMNS, lines)
