"""Taking rows of an inventory over: a block at a time with a constant number of statements, an answer for every row.

Who a machine is (DESIGN 4.2, docs/rules.md): its resource id and its VM id. The same resource id with another VM id is
another machine, the same VM id under another resource id is the same machine, moved.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any
from uuid import UUID

from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection as database
from django.db.models import CharField, Q
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from db.arrays import rowset
from db.locks import Lock, hold
from patching.eligibility import CatalogIndex, judge_eligibility
from patching.terms import Platform, ScaleSetOrchestration
from vms.choices import PowerState
from vms.models import NEXT_REBOOT, Connection, ResourceGroup, Subscription, VirtualMachine
from vms.selectors import build_of_image, image_catalog, patcher_of
from vms.services.inventory_rows import ROW_PROBLEMS, BadRow, InventoryRow, RowProblem, VmFacts
from vms.services.replacement import forget_machine, machines_replaced
from vms.services.summaries import Statuses, statuses_after


class RowOutcome(StrEnum):
    """What an import did with a row: what was changed first, then what was left out, then what is as it was."""

    REPLACED = "replaced"
    MOVED = "moved"
    UPDATED = "updated"
    CREATED = "created"
    SKIPPED = "skipped"
    UNCHANGED = "unchanged"


ROW_OUTCOMES: dict[RowOutcome, Promise] = {
    RowOutcome.REPLACED: _("Another machine"),
    RowOutcome.MOVED: _("Moved"),
    RowOutcome.UPDATED: _("Updated"),
    RowOutcome.CREATED: _("Created"),
    RowOutcome.SKIPPED: _("Skipped"),
    RowOutcome.UNCHANGED: _("Unchanged"),
}


@dataclass(frozen=True, slots=True)
class RowReport:
    """What became of one row of the file."""

    number: int
    name: str
    arm_id: str
    outcome: RowOutcome
    changed_fields: tuple[str, ...] = ()
    problem: RowProblem | None = None
    detail: str = ""
    cleaned: tuple[str, ...] = ()  # where characters that nobody can see were dropped

    @property
    def outcome_label(self) -> str:
        """The outcome in the operator's words."""
        return str(ROW_OUTCOMES[self.outcome])

    @property
    def explanation(self) -> str:
        """Why a row was skipped, or which facts of a VM changed; empty otherwise."""
        if self.problem is not None:
            return str(ROW_PROBLEMS[self.problem]) % {"detail": self.detail}
        parts = [", ".join(_column_words(name) for name in self.changed_fields)]
        if self.outcome is RowOutcome.REPLACED:
            parts.insert(
                0, str(_("Another VM id: what was known of the machine before is its history now; assess it."))
            )
        if self.outcome is RowOutcome.MOVED:
            parts.insert(0, str(_("It was %(detail)s.") % {"detail": self.detail}))
        if self.cleaned:
            where = ", ".join(self.cleaned[:_SHOWN_PLACES])
            parts.append(str(_("Characters that nobody can see were dropped: %(where)s") % {"where": where}))
        return " ".join(part for part in parts if part)

    @property
    def urgency(self) -> tuple[int, bool, int]:
        """Where it stands in a report: by outcome, Linux rows after what else was left out."""
        return list(RowOutcome).index(self.outcome), self.problem is RowProblem.LINUX, self.number


_SHOWN_PLACES = 5


def _column_words(name: str) -> str:
    return str(VirtualMachine._meta.get_field(name).verbose_name)  # type: ignore[union-attr]


def write_rows(
    *,
    rows: Sequence[InventoryRow],
    connection: Connection,
    now: datetime,
    is_dry_run: bool = False,
    moved: Mapping[UUID, str] | None = None,
) -> list[RowReport]:
    """Take these rows over, in their order, and say what became of each. Call it in a transaction.

    Every machine is written whole. Machines that no row names stay as they are, and so do facts that a row does not
    mention. New machines belong to `connection`; one of another connection is left out. A dry run writes nothing;
    `moved` are the resource ids that rows before would have moved machines to, by VM id.
    """
    hold(Lock.INVENTORY_IMPORT)  # two imports at once would race for the same new groups; the second waits
    return _Writer(connection, image_catalog(), now, is_dry_run=is_dry_run).write(rows, moved or {})


@dataclass(frozen=True, slots=True)
class _Match:
    """Which machine of the inventory a row means: none yet, or one that stays, was replaced, or moved from `moved_from`."""

    vm: VirtualMachine | None = None
    is_replaced: bool = False
    moved_from: str = ""


class _Writer:
    """Writes a block of rows."""

    def __init__(self, connection: Connection, catalog: CatalogIndex, now: datetime, *, is_dry_run: bool) -> None:
        self._connection = connection
        self._catalog = catalog
        self._now = now
        self._is_dry_run = is_dry_run

    def write(self, rows: Sequence[InventoryRow], moved: Mapping[UUID, str]) -> list[RowReport]:
        """Write one block: a constant number of statements."""
        usable = [row.content for row in rows if isinstance(row.content, VmFacts)]
        groups = _resource_groups(usable, is_dry_run=self._is_dry_run)
        known = _Known(usable)
        known.move_all(moved)
        created: list[VirtualMachine] = []
        updated: list[VirtualMachine] = []
        replaced: list[int] = []
        reports: list[RowReport] = []
        for row in rows:
            content = row.content
            if isinstance(content, BadRow):
                reports.append(_skipped(row, content.problem, content.detail))
                continue
            refused, match = self._match(row, content, known)
            if refused is not None:
                reports.append(refused)
                continue
            vm = match.vm or VirtualMachine(
                arm_id=content.arm_id, connection=self._connection, power_state=PowerState.UNKNOWN.value
            )
            if match.is_replaced:
                forget_machine(vm, now=self._now)
                replaced.append(vm.pk)
            if match.moved_from:
                known.move(vm, content.arm_id)
            group_id = groups[content.subscription_id, content.resource_group.lower()]
            values = {**content.values, "resource_group_id": group_id, "gone_at": None}
            changed = _apply(vm, values, self._connection, self._catalog)
            outcome = _outcome(match, changed)
            if outcome is RowOutcome.CREATED:
                created.append(vm)
                changed = ()
            elif outcome is not RowOutcome.UNCHANGED:
                updated.append(vm)
            reports.append(
                RowReport(
                    row.number,
                    vm.name,
                    content.arm_id,
                    outcome,
                    changed,
                    detail=match.moved_from,
                    cleaned=content.cleaned,
                )
            )
        if not self._is_dry_run:
            _save_changes(updated)
            _add(created, now=self._now)
            if replaced:
                machines_replaced(vm_ids=replaced)
        return reports

    def _match(self, row: InventoryRow, content: VmFacts, known: _Known) -> tuple[RowReport | None, _Match]:
        """The machine that a row means, or why the row is left out."""
        match, others = known.match(content)
        if others:
            return _skipped(row, RowProblem.TWO_MACHINES, ", ".join(vm.arm_id for vm in others[:3])), _Match()
        if match.vm is not None and match.vm.connection_id != self._connection.pk:
            return _skipped(row, RowProblem.OTHER_CONNECTION, match.vm.connection.name), _Match()
        return None, match


def _outcome(match: _Match, changed: tuple[str, ...]) -> RowOutcome:
    if match.vm is None:
        return RowOutcome.CREATED
    if match.is_replaced:
        return RowOutcome.REPLACED
    if match.moved_from:
        return RowOutcome.MOVED
    return RowOutcome.UPDATED if changed else RowOutcome.UNCHANGED


class _Known:
    """The machines of the inventory that the rows of a block may mean (one query)."""

    def __init__(self, rows: Sequence[VmFacts]) -> None:
        vm_ids = [facts.values["vm_id"] for facts in rows if "vm_id" in facts.values]
        found = (
            VirtualMachine.objects.filter(Q(arm_id__in=[facts.arm_id for facts in rows]) | Q(vm_id__in=vm_ids))
            .select_related("connection")
            .order_by("pk")
            .select_for_update(of=("self",), no_key=True)
        )
        self._by_arm_id: dict[str, VirtualMachine] = {}
        self._by_vm_id: dict[UUID, list[VirtualMachine]] = defaultdict(list)
        for vm in found:
            self._by_arm_id[vm.arm_id] = vm
            if vm.vm_id is not None:
                self._by_vm_id[vm.vm_id].append(vm)

    def match(self, content: VmFacts) -> tuple[_Match, list[VirtualMachine]]:
        """The machine a row means, and the several that it may mean where nobody can tell."""
        vm_id = content.values.get("vm_id")
        vm, same = self._by_arm_id.get(content.arm_id), self._by_vm_id.get(vm_id, []) if vm_id else []
        if vm is None:
            if len(same) > 1:
                return _Match(), same
            return (_Match(same[0], moved_from=same[0].arm_id) if same else _Match()), []
        if vm_id is None or vm.vm_id == vm_id:
            return _Match(vm), []
        if same:
            return _Match(), [vm, *same]
        return _Match(vm, is_replaced=vm.vm_id is not None), []

    def move(self, vm: VirtualMachine, arm_id: str) -> None:
        """Let a machine stand under another resource id from now on."""
        del self._by_arm_id[vm.arm_id]
        vm.arm_id = arm_id
        self._by_arm_id[arm_id] = vm

    def move_all(self, moved: Mapping[UUID, str]) -> None:
        """Let machines stand where rows before this block would have moved them, as far as one machine is meant."""
        for vm_id, arm_id in moved.items():
            same = self._by_vm_id.get(vm_id, [])
            if len(same) == 1 and same[0].arm_id != arm_id:
                self.move(same[0], arm_id)


def _skipped(row: InventoryRow, problem: RowProblem, detail: str) -> RowReport:
    return RowReport(row.number, row.name, row.arm_id, RowOutcome.SKIPPED, (), problem, detail)


_NOT_MADE = 0  # the id of a resource group that a dry run does not make


def _resource_groups(rows: Sequence[VmFacts], *, is_dry_run: bool) -> Mapping[tuple[UUID, str], int]:
    """Ids of the rows' resource groups by subscription id and lower-cased name; the missing ones are made."""
    wanted = {(facts.subscription_id, facts.resource_group.lower()): facts.resource_group for facts in rows}
    uuids = {subscription_id for subscription_id, _name in wanted}
    if not wanted:
        return {}
    subscriptions = Subscription.objects.in_bulk(uuids, field_name="subscription_id")
    # A file names subscriptions by id only; the administrator gives them their names.
    new = [Subscription(subscription_id=uuid, name=str(uuid)) for uuid in sorted(uuids - subscriptions.keys())]
    for subscription in new if is_dry_run else Subscription.objects.bulk_create(new):
        subscriptions[subscription.subscription_id] = subscription
    groups = {
        (uuid, name.lower()): pk
        for uuid, name, pk in ResourceGroup.objects.filter(
            subscription__in=[subscription.pk for subscription in subscriptions.values() if subscription.pk]
        ).values_list("subscription__subscription_id", "name", "pk")
    }
    missing = [
        ResourceGroup(subscription=subscriptions[uuid], name=name)
        for (uuid, lowered), name in sorted(wanted.items(), key=lambda item: (str(item[0][0]), item[0][1]))
        if (uuid, lowered) not in groups
    ]
    for group in missing if is_dry_run else ResourceGroup.objects.bulk_create(missing):
        groups[group.subscription.subscription_id, group.name.lower()] = group.pk or _NOT_MADE
    return groups


_IMAGE = ("image_publisher", "image_offer", "image_sku", "image_version", "image_resource_id")
_STATUSES = ("update_status", "hotpatch_status", "hotpatch_track", "product_line")


def _apply(
    vm: VirtualMachine,
    values: dict[str, Any],
    connection: Connection,
    catalog: CatalogIndex,
) -> tuple[str, ...]:
    """Set these values, let the statuses follow, and name the fields that differ from before."""
    names = [*values, *_STATUSES, "patcher", "image_exact_version"]
    before = {name: getattr(vm, name) for name in names}
    if "image_exact_version" not in values and any(before[name] != values[name] for name in _IMAGE if name in values):
        vm.image_exact_version = ""  # it belonged to the image before
    for name, value in values.items():
        setattr(vm, name, value)
    eligibility = judge_eligibility(
        vm.image,
        catalog,
        Platform(connection.platform),
        scale_set_orchestration=ScaleSetOrchestration(vm.scale_set_orchestration),
        os_build=build_of_image(vm.image_exact_version, vm.image_version, vm.os_build),
    )
    after = statuses_after(
        Statuses(vm.update_status, vm.hotpatch_status, vm.hotpatch_track, vm.product_line),
        eligibility=eligibility,
        is_hotpatch_enabled=vm.enable_hotpatching,
    )
    vm.update_status, vm.hotpatch_status = after.update_status, after.hotpatch_status
    vm.hotpatch_track, vm.product_line = after.hotpatch_track, after.product_line
    vm.patcher = patcher_of(vm, has_schedule=vm.is_scheduled).patcher.value
    changed = [name for name in before if getattr(vm, name) != before[name]]
    return tuple(name.removesuffix("_id") if name == "resource_group_id" else name for name in changed)


# Facts and statuses; never what identifies the row, nor when it came.
_WRITTEN = [
    str(field.column)
    for field in VirtualMachine._meta.concrete_fields
    if not field.generated
    and field.name
    not in {
        "id",
        "connection",
        "created_at",
        "critical_and_security_count",
        "other_count",
        "is_reboot_pending",
        "patch_set",
        "is_scheduled",
        "are_words_due",
        *NEXT_REBOOT,
    }
]
_UPDATE = f"""
UPDATE vms_virtualmachine vm
SET {", ".join(f"{column} = new.{column}" for column in _WRITTEN)}
FROM jsonb_populate_recordset(NULL::vms_virtualmachine, %s::jsonb) new
WHERE vm.id = new.id
"""  # noqa: S608 (column names are the model's)


def _save_changes(vms: Sequence[VirtualMachine]) -> None:
    """One UPDATE for any number of rows; the table itself gives the types."""
    if not vms:
        return
    rows = [{"id": vm.pk} | {column: getattr(vm, column) for column in _WRITTEN} for vm in vms]
    with database.cursor() as cursor:
        cursor.execute(_UPDATE, [json.dumps(rows, cls=DjangoJSONEncoder)])


# Of text PostgreSQL is to refuse what is too long; a cast to the column's own type would cut it.
_ADDED = {
    str(field.column): "text" if isinstance(field, CharField) else str(field.cast_db_type(database))
    for field in VirtualMachine._meta.concrete_fields
    if not field.primary_key and not field.generated
}
_VALUES_ADDED = attrgetter(*_ADDED)


def _add(vms: Sequence[VirtualMachine], *, now: datetime) -> None:
    """One INSERT for any number of machines, in a third of the time of `bulk_create`; the primary keys stay unknown."""
    if not vms:
        return
    for vm in vms:
        vm.created_at = now
    rows, parameters = rowset(_ADDED, map(_VALUES_ADDED, vms))
    columns = ", ".join(_ADDED)
    with database.cursor() as cursor:
        cursor.execute(f"INSERT INTO vms_virtualmachine ({columns}) SELECT {columns} FROM {rows} r", parameters)  # noqa: S608 (ours)
