"""The one writer of the summary columns of `VirtualMachine`: what lists filter and sort by, only where it changed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from django.db import connection as database
from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Lower

from db.arrays import array, rowset
from patching.eligibility import CatalogIndex, Eligibility, judge_eligibility
from patching.terms import (
    CatalogImage,
    HotpatchStatus,
    HotpatchTrack,
    ImageReference,
    Platform,
    ProductLine,
    ScaleSetOrchestration,
    UpdateStatus,
)
from patching.track import hotpatch_status
from vms.models import VirtualMachine, VirtualMachineQuerySet
from vms.selectors import build_of_image, image_catalog, was_assessed, with_stale_patchers


@dataclass(frozen=True, slots=True)
class VmSummary:
    """What an assessment or installation says about one VM, as far as lists show it."""

    vm_id: int
    update_status: UpdateStatus
    critical_and_security_count: int
    other_count: int
    is_reboot_pending: bool
    hotpatch_status: HotpatchStatus
    hotpatch_track: HotpatchTrack
    product_line: ProductLine | None
    patch_set: int  # what it lacks; 0: nobody has looked yet

    @property
    def line(self) -> str:
        """The product line as the column holds it; empty: none."""
        return self.product_line.value if self.product_line else ""


_SUMMARY = {
    "vm_id": "bigint",
    "update_status": "text",
    "critical_and_security_count": "integer",
    "other_count": "integer",
    "is_reboot_pending": "boolean",
    "hotpatch_status": "text",
    "hotpatch_track": "text",
    "line": "text",
    "patch_set": "bigint",
}
# The rows are locked in the order of their ids, so that two writers with the same VMs wait instead of deadlocking.
_RECORD = """
WITH changed AS (
    SELECT vm.id, new.*
    FROM {rows} AS new JOIN vms_virtualmachine vm ON vm.id = new.vm_id
    WHERE vm.id = ANY(%s::bigint[]) AND (vm.update_status, vm.critical_and_security_count, vm.other_count,
           vm.is_reboot_pending, vm.hotpatch_status, vm.hotpatch_track, vm.product_line, vm.patch_set)
        IS DISTINCT FROM
          (new.update_status, new.critical_and_security_count, new.other_count,
           new.is_reboot_pending, new.hotpatch_status, new.hotpatch_track, new.line, new.patch_set)
    ORDER BY vm.id
    FOR NO KEY UPDATE OF vm
)
UPDATE vms_virtualmachine vm
SET update_status = changed.update_status,
    critical_and_security_count = changed.critical_and_security_count,
    other_count = changed.other_count,
    is_reboot_pending = changed.is_reboot_pending,
    hotpatch_status = changed.hotpatch_status,
    hotpatch_track = changed.hotpatch_track,
    product_line = changed.line,
    patch_set = changed.patch_set
FROM changed
WHERE vm.id = changed.id
"""


def record_summaries(*, summaries: Sequence[VmSummary]) -> int:
    """Write these summaries in one statement, touching only VMs where a value differs; how many did."""
    if not summaries:
        return 0
    rows, parameters = rowset(_SUMMARY, map(attrgetter(*_SUMMARY), summaries))
    with database.cursor() as cursor:
        cursor.execute(_RECORD.replace("{rows}", rows), [*parameters, array(summary.vm_id for summary in summaries)])
        return int(cursor.rowcount)


@dataclass(frozen=True, slots=True)
class Statuses:
    """The summary values that follow from facts and settings, without an assessment."""

    update_status: str
    hotpatch_status: str
    hotpatch_track: str
    product_line: str


def statuses_after(before: Statuses, *, eligibility: Eligibility, is_hotpatch_enabled: bool) -> Statuses:
    """The statuses once facts, settings or the catalogue have changed.

    What an assessment found stays: only a VM that was never assessed moves between "no updates
    data" and "unsupported" and to another product line, and of the track only whether the VM is on the train at all is
    told. The floor above, which knows what assessments found, judges a VM whose facts changed within a minute.
    """
    is_assessed = was_assessed(before.update_status, before.hotpatch_status)
    update_status, track, line = before.update_status, before.hotpatch_track, before.product_line
    if not (is_assessed and line):
        line = eligibility.product_line.value if eligibility.product_line else ""
    if not is_assessed:
        is_supported = eligibility.product_line is not None
        update_status = UpdateStatus.NO_UPDATES_DATA if is_supported else UpdateStatus.UNSUPPORTED
    status = hotpatch_status(eligibility, is_enabled=is_hotpatch_enabled, was_assessed=is_assessed)
    if status is HotpatchStatus.NOT_AVAILABLE or not is_hotpatch_enabled:
        track = HotpatchTrack.NOT_ON_TRAIN
    elif track == HotpatchTrack.NOT_ON_TRAIN:
        track = HotpatchTrack.UNKNOWN
    return Statuses(str(update_status), str(status), str(track), line)


# What the statuses depend on. VMs that agree in all of it get the same answer, so the rules are asked once per
# combination and the cost does not grow with the fleet beyond one scan and one UPDATE.
_FACTS = (
    "image_publisher",
    "image_offer",
    "image_sku",
    "image_version",
    "image_exact_version",
    "image_resource_id",
    "os_edition",
    "scale_set_orchestration",
    "os_build",
    "enable_hotpatching",
)
_STATUSES = ("update_status", "hotpatch_status", "hotpatch_track", "product_line")

_REFRESH = f"""
UPDATE vms_virtualmachine vm
SET update_status = new.to_update_status,
    hotpatch_status = new.to_hotpatch_status,
    hotpatch_track = new.to_hotpatch_track,
    product_line = new.to_product_line
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
            %s::bool[],
            %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
            %s::text[])
    AS new ({", ".join(_FACTS + _STATUSES)}, platform, to_update_status, to_hotpatch_status, to_hotpatch_track,
            to_product_line),
    vms_connection connection
WHERE connection.id = vm.connection_id AND connection.platform = new.platform
  AND {" AND ".join(f"vm.{column} = new.{column}" for column in _FACTS + _STATUSES)}
"""  # noqa: S608 (column names are ours)


@transaction.atomic
def refresh_hotpatch_statuses(
    *,
    images: Collection[CatalogImage] = (),
    connection_ids: Collection[int] = (),
    vm_ids: Collection[int] = (),
) -> int:
    """Let the summaries of these VMs (by image, connection or id) follow a changed catalogue or platform.

    Call it after the change, with the images as they were and as they are. A VM that an assessment moves on in the
    same moment is left to that assessment. How many VMs changed.
    """
    affected = Q(connection_id__in=connection_ids) | Q(pk__in=vm_ids)
    for image in images:
        affected |= Q(publisher=image.publisher.lower(), offer=image.offer.lower(), sku=image.sku.lower())
    combinations = (
        VirtualMachine.objects.order_by()
        .annotate(
            publisher=Lower("image_publisher"),
            offer=Lower("image_offer"),
            sku=Lower("image_sku"),
            platform=F("connection__platform"),
        )
        .filter(affected)
        .values_list(*_FACTS, *_STATUSES, "platform")
        .distinct()
    )
    catalog = image_catalog()
    changed = []
    for combination in combinations:
        facts = dict(zip((*_FACTS, *_STATUSES, "platform"), combination, strict=True))
        before = Statuses(*(facts[name] for name in _STATUSES))
        after = _statuses_of_combination(before, facts, catalog)
        if after != before:
            changed.append(
                (
                    *combination,
                    after.update_status,
                    after.hotpatch_status,
                    after.hotpatch_track,
                    after.product_line,
                )
            )
    if not changed:
        return 0
    with database.cursor() as cursor:
        cursor.execute(_REFRESH, [list(column) for column in zip(*changed, strict=True)])
        return int(cursor.rowcount)


def _statuses_of_combination(before: Statuses, facts: dict[str, Any], catalog: CatalogIndex) -> Statuses:
    eligibility = judge_eligibility(
        ImageReference(
            publisher=facts["image_publisher"],
            offer=facts["image_offer"],
            sku=facts["image_sku"],
            version=facts["image_version"],
            resource_id=facts["image_resource_id"],
            edition=facts["os_edition"],
        ),
        catalog,
        Platform(facts["platform"]),
        scale_set_orchestration=ScaleSetOrchestration(facts["scale_set_orchestration"]),
        os_build=build_of_image(facts["image_exact_version"], facts["image_version"], facts["os_build"]),
    )
    return statuses_after(before, eligibility=eligibility, is_hotpatch_enabled=facts["enable_hotpatching"])


@transaction.atomic
def refresh_patchers(*, among: VirtualMachineQuerySet | None = None, scheduled: Q | None = None) -> int:
    """Let `patcher` (and `is_scheduled`) of these VMs, or of all, say what the rule says now; how many changed.

    One statement that writes only VMs where a value differs. Call it after the change. `scheduled`: the VMs that an
    enabled maintenance configuration means; None: as it was last recorded.
    """
    vms = VirtualMachine.objects.all() if among is None else among
    # Locked in the order of their ids; a row that changed meanwhile is judged again as it has become.
    stale = with_stale_patchers(vms, scheduled=scheduled).order_by("pk").select_for_update(of=("self",), no_key=True)
    changes = stale.values_list("pk", "is_scheduled_now", "patcher_now")  # type: ignore[misc]  # annotated
    query, parameters = changes.query.sql_with_params()
    with database.cursor() as cursor:
        cursor.execute(
            f"WITH changed (id, is_scheduled, patcher) AS ({query}) UPDATE vms_virtualmachine vm"  # noqa: S608 (the ORM's)
            " SET is_scheduled = changed.is_scheduled, patcher = changed.patcher FROM changed WHERE vm.id = changed.id",
            parameters,
        )
        return int(cursor.rowcount)
