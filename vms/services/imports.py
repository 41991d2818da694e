"""Importing an inventory: one transaction, blocks of rows with a constant number of statements, an answer for every row.

Who a machine is (DESIGN 4.2, docs/rules.md): its resource id and its VM id. The same resource id with another VM id is
another machine, the same VM id under another resource id is the same machine, moved.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import islice
from operator import attrgetter
from typing import Any
from uuid import UUID

import pghistory
from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection as database
from django.db import transaction
from django.db.models import Q
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from audit.services import Act, record
from audit.tags import Tag
from db.locks import Lock, hold
from patching.eligibility import CatalogIndex, judge_eligibility
from patching.terms import Platform, ScaleSetOrchestration
from vms.choices import PowerState
from vms.models import Connection, ResourceGroup, Subscription, VirtualMachine
from vms.selectors import build_of_image, image_catalog, patcher_of
from vms.services.inventory_files import InventoryFileError, InventoryReader, Row
from vms.services.inventory_rows import ROW_PROBLEMS, BadRow, RowProblem, VmFacts
from vms.services.replacement import forget_machine, machines_replaced
from vms.services.summaries import Statuses, statuses_after


class ImportFileError(InventoryFileError):
    """The file cannot be used, and nothing was changed. Its text says precisely why."""


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


MOST_ROWS = 1_000  # of each outcome; of a large file the rest is counted


@dataclass(slots=True)
class ImportReport:
    """What became of the rows of a readable file. After a dry run it says what would have happened.

    `rows`: the first 1,000 of each outcome. `linux`: how many of the skipped rows are Linux machines. `passed_over`: text
    before the JSON.
    """

    is_dry_run: bool
    rows: list[RowReport] = field(default_factory=list)
    counts: dict[RowOutcome, int] = field(default_factory=lambda: dict.fromkeys(RowOutcome, 0))
    linux: int = 0
    has_more_pages: bool = False
    passed_over: str = ""

    def add(self, row: RowReport) -> None:
        """Count a row, and keep it while there are few of its kind."""
        self.counts[row.outcome] += 1
        self.linux += row.problem is RowProblem.LINUX
        if self.counts[row.outcome] <= MOST_ROWS:
            self.rows.append(row)

    @property
    def total(self) -> int:
        """How many rows the file has."""
        return sum(self.counts.values())

    @property
    def totals(self) -> list[tuple[str, int]]:
        """Outcome in words and its number of rows."""
        return [(str(ROW_OUTCOMES[outcome]), count) for outcome, count in self.counts.items()]

    @property
    def for_record(self) -> dict[str, int]:
        """The same for the record, by the codes of the outcomes."""
        return {outcome.value: count for outcome, count in self.counts.items() if count}

    @property
    def rows_by_urgency(self) -> list[RowReport]:
        """What was changed first, then what was left out (Linux last), then what is as it was; in the file's order."""
        return sorted(self.rows, key=attrgetter("urgency"))


def check_size(size: int) -> None:
    """Refuse a file over the limit before anybody reads it."""
    if size > settings.MAX_IMPORT_BYTES:
        raise ImportFileError(
            _("The file is too large: %(size)s, allowed are %(limit)s.")
            % {"size": filesizeformat(size), "limit": filesizeformat(settings.MAX_IMPORT_BYTES)}
        )


def import_vms(*, data: bytes, connection: Connection, file_name: str = "", is_dry_run: bool = False) -> ImportReport:
    """Bring the VMs of this file into the inventory and report on every row.

    All or nothing: a file that cannot be used raises `ImportFileError` and changes nothing; otherwise every usable
    row is written in one transaction, which a dry run rolls back. VMs that the file does not name stay as they are,
    and so do facts that a row does not mention. New VMs belong to `connection`; a VM of another connection is skipped.
    What an import adds or changes is kept with the name of its file (`FactsEvent`).
    """
    check_size(len(data))
    report = ImportReport(is_dry_run)
    try:
        reader = InventoryReader(data)
        with transaction.atomic(), pghistory.context(source="import", file=file_name[:200]):
            hold(Lock.INVENTORY_IMPORT)  # the second of two imports waits for the first
            writer = _Writer(connection, image_catalog(), timezone.now(), report)
            rows = iter(reader)
            while block := list(islice(rows, _BLOCK)):
                writer.write(block)
            if is_dry_run:
                transaction.set_rollback(True)
            else:
                record(
                    acts=[
                        Act(
                            Tag.INVENTORY_IMPORT,
                            object_name=connection.name,
                            detail={"file": file_name} | report.for_record,
                        )
                    ]
                )
    except InventoryFileError as error:
        raise ImportFileError(error.message) from None
    report.has_more_pages, report.passed_over = reader.has_more_pages, reader.passed_over
    return report


_BLOCK = 2_000  # rows in memory at a time


@dataclass(frozen=True, slots=True)
class _Match:
    """Which machine of the inventory a row means: none yet, or one that stays, was replaced, or moved from `moved_from`."""

    vm: VirtualMachine | None = None
    is_replaced: bool = False
    moved_from: str = ""


class _Writer:
    """Writes blocks of rows; what it knows of the rows before is their VM ids."""

    def __init__(self, connection: Connection, catalog: CatalogIndex, now: datetime, report: ImportReport) -> None:
        self._connection = connection
        self._catalog = catalog
        self._now = now
        self._report = report
        self._row_of_vm_id: dict[UUID, int] = {}

    def write(self, rows: Sequence[Row]) -> None:
        """Write one block: a constant number of statements."""
        usable = [row.content for row in rows if isinstance(row.content, VmFacts)]
        groups = _resource_groups(usable)
        known = _Known(usable)
        created: list[VirtualMachine] = []
        updated: list[VirtualMachine] = []
        replaced: list[int] = []
        for row in sorted(rows, key=known.turn):
            content = row.content
            if isinstance(content, BadRow):
                self._report.add(_skipped(row, content.problem, content.detail))
                continue
            refused, match = self._match(row, content, known)
            if refused is not None:
                self._report.add(refused)
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
            changed = _apply(vm, {**content.values, "resource_group_id": group_id}, self._connection, self._catalog)
            outcome = _outcome(match, changed)
            if outcome is RowOutcome.CREATED:
                created.append(vm)
                changed = ()
            elif outcome is not RowOutcome.UNCHANGED:
                updated.append(vm)
            self._report.add(
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
        _save_changes(updated)
        VirtualMachine.objects.bulk_create(created)
        if replaced:
            machines_replaced(vm_ids=replaced)

    def _match(self, row: Row, content: VmFacts, known: _Known) -> tuple[RowReport | None, _Match]:
        """The machine that a row means, or why the row is left out."""
        vm_id = content.values.get("vm_id")
        if vm_id is not None and self._row_of_vm_id.setdefault(vm_id, row.number) != row.number:
            return _skipped(row, RowProblem.SAME_VM_ID, str(self._row_of_vm_id[vm_id])), _Match()
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
        told = {(facts.arm_id, facts.values.get("vm_id")) for facts in rows}
        self._stays = {vm.vm_id for vm in found if vm.vm_id is not None and (vm.arm_id, vm.vm_id) in told}

    def turn(self, row: Row) -> int:
        """When a row is written: moves first, since they make room for what else the file says of the ids that they leave.

        Last comes another row of a machine that the file also tells of where it is known: that is a copy, and no move.
        """
        content = row.content
        if isinstance(content, BadRow) or content.arm_id in self._by_arm_id:
            return 1
        vm_id = content.values.get("vm_id")
        if vm_id not in self._by_vm_id:
            return 1
        return 2 if vm_id in self._stays else 0

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


def _skipped(row: Row, problem: RowProblem, detail: str) -> RowReport:
    return RowReport(row.number, row.name, row.arm_id, RowOutcome.SKIPPED, (), problem, detail)


def _resource_groups(rows: Sequence[VmFacts]) -> Mapping[tuple[UUID, str], int]:
    """Ids of the rows' resource groups by subscription id and lower-cased name; the missing ones are made."""
    wanted = {(facts.subscription_id, facts.resource_group.lower()): facts.resource_group for facts in rows}
    uuids = {subscription_id for subscription_id, _name in wanted}
    subscriptions = Subscription.objects.in_bulk(uuids, field_name="subscription_id")
    # A file names subscriptions by id only; the administrator gives them their names.
    new = [Subscription(subscription_id=uuid, name=str(uuid)) for uuid in sorted(uuids - subscriptions.keys())]
    for subscription in Subscription.objects.bulk_create(new):
        subscriptions[subscription.subscription_id] = subscription
    groups = {
        (uuid, name.lower()): pk
        for uuid, name, pk in ResourceGroup.objects.filter(
            subscription__in=[subscription.pk for subscription in subscriptions.values()]
        ).values_list("subscription__subscription_id", "name", "pk")
    }
    missing = [
        ResourceGroup(subscription=subscriptions[uuid], name=name)
        for (uuid, lowered), name in sorted(wanted.items(), key=lambda item: (str(item[0][0]), item[0][1]))
        if (uuid, lowered) not in groups
    ]
    for group in ResourceGroup.objects.bulk_create(missing):
        groups[group.subscription.subscription_id, group.name.lower()] = group.pk
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
    if field.name
    not in {
        "id",
        "connection",
        "created_at",
        "critical_and_security_count",
        "other_count",
        "is_reboot_pending",
        "is_scheduled",
        "are_words_due",
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
