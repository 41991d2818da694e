"""Importing an inventory: one transaction, a constant number of statements, and an answer for every row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

import pghistory
from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection as database
from django.db import transaction
from django.template.defaultfilters import filesizeformat
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from patching.eligibility import CatalogIndex, judge_eligibility
from patching.terms import Platform, ScaleSetOrchestration
from vms.choices import PowerState
from vms.models import Connection, ResourceGroup, Subscription, VirtualMachine
from vms.selectors import build_of_image, image_catalog, patcher_of
from vms.services.inventory_files import InventoryFileError, Row, read_inventory
from vms.services.inventory_rows import ROW_PROBLEMS, BadRow, RowProblem, VmFacts
from vms.services.summaries import Statuses, statuses_after

# Two imports at once would race for the same new groups and VMs; the second waits for the first.
_IMPORT_LOCK = 0x686F7470


class ImportFileError(InventoryFileError):
    """The file cannot be used, and nothing was changed. Its text says precisely why."""


class RowOutcome(StrEnum):
    """What an import did with a row, most urgent first."""

    SKIPPED = "skipped"
    UPDATED = "updated"
    CREATED = "created"
    UNCHANGED = "unchanged"


ROW_OUTCOMES: dict[RowOutcome, Promise] = {
    RowOutcome.SKIPPED: _("Skipped"),
    RowOutcome.UPDATED: _("Updated"),
    RowOutcome.CREATED: _("Created"),
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

    @property
    def outcome_label(self) -> str:
        """The outcome in the operator's words."""
        return str(ROW_OUTCOMES[self.outcome])

    @property
    def explanation(self) -> str:
        """Why a row was skipped, or which facts of a VM changed; empty otherwise."""
        if self.problem is not None:
            return str(ROW_PROBLEMS[self.problem]) % {"detail": self.detail}
        return ", ".join(
            str(VirtualMachine._meta.get_field(name).verbose_name)  # type: ignore[union-attr]
            for name in self.changed_fields
        )


@dataclass(frozen=True, slots=True)
class ImportReport:
    """One answer per row of a readable file. After a dry run it says what would have happened."""

    rows: tuple[RowReport, ...]
    is_dry_run: bool
    has_more_pages: bool

    @property
    def counts(self) -> dict[RowOutcome, int]:
        """Number of rows per outcome, zeros included."""
        counts = dict.fromkeys(RowOutcome, 0)
        for row in self.rows:
            counts[row.outcome] += 1
        return counts

    @property
    def totals(self) -> list[tuple[str, int]]:
        """Outcome in words and its number of rows."""
        return [(str(ROW_OUTCOMES[outcome]), count) for outcome, count in self.counts.items()]

    @property
    def rows_by_urgency(self) -> list[RowReport]:
        """Skipped rows first, unchanged last; inside an outcome as in the file."""
        order = list(RowOutcome)
        return sorted(self.rows, key=lambda row: (order.index(row.outcome), row.number))


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
    try:
        inventory = read_inventory(data)
    except InventoryFileError as error:
        raise ImportFileError(error.message) from None
    with transaction.atomic(), pghistory.context(source="import", file=file_name[:200]):
        rows = _write(inventory.rows, connection)
        if is_dry_run:
            transaction.set_rollback(True)
    return ImportReport(rows=rows, is_dry_run=is_dry_run, has_more_pages=inventory.has_more_pages)


def _write(rows: Sequence[Row], connection: Connection) -> tuple[RowReport, ...]:
    with database.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_IMPORT_LOCK])
    usable = [row.content for row in rows if isinstance(row.content, VmFacts)]
    catalog = image_catalog()
    groups = _resource_groups(usable)
    existing = {
        vm.arm_id: vm
        for vm in VirtualMachine.objects.filter(arm_id__in=[facts.arm_id for facts in usable])
        .select_related("connection")
        .order_by("pk")
        .select_for_update(of=("self",), no_key=True)
    }
    created: list[VirtualMachine] = []
    updated: list[VirtualMachine] = []
    reports = []
    for row in rows:
        content = row.content
        if isinstance(content, BadRow):
            reports.append(_skipped(row, content.problem, content.detail))
            continue
        vm = existing.get(content.arm_id)
        if vm is not None and vm.connection_id != connection.pk:
            reports.append(_skipped(row, RowProblem.OTHER_CONNECTION, vm.connection.name))
            continue
        target = vm or VirtualMachine(
            arm_id=content.arm_id, connection=connection, power_state=PowerState.UNKNOWN.value
        )
        group_id = groups[content.subscription_id, content.resource_group.lower()]
        changed = _apply(target, {**content.values, "resource_group_id": group_id}, connection, catalog)
        if vm is None:
            created.append(target)
            outcome, changed = RowOutcome.CREATED, ()
        else:
            outcome = RowOutcome.UPDATED if changed else RowOutcome.UNCHANGED
            if changed:
                updated.append(target)
        reports.append(RowReport(row.number, target.name, content.arm_id, outcome, changed))
    VirtualMachine.objects.bulk_create(created)
    _save_changes(updated)
    return tuple(reports)


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
        os_build=build_of_image(vm.image_exact_version, vm.image_version),
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
        "arm_id",
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
