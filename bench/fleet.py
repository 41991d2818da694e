"""A plausible fleet of any size, for load tests: one machine of each kind is made and assessed, the rest are its copies.

The kinds are real: every combination here goes through the engine and the simulator once, so that what lists, blades and
plans show of a copy is what a fresh assessment of it would give. Copies are made by the database, a block at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

import pgtrigger
from django.db import connection, transaction

from connectors.configuration import to_json
from connectors.registry import SIMULATOR
from connectors.simulator import SimulatorConfiguration
from patching.terms import PatchMode, Platform
from updates.engine.sweep import sweep
from updates.models import Operation, VmUpdateState
from updates.services.operations import request_assessments
from vms.choices import PowerState
from vms.models import Connection, ResourceGroup, Subscription, VirtualMachine
from vms.services.summaries import refresh_hotpatch_statuses, refresh_patchers

CATALOGUE_DATE = date(2026, 5, 20)
PREFIX = "Load test"
BLOCK = 50_000
VMS_PER_GROUP, VMS_PER_SUBSCRIPTION = 2_000, 100_000
FEWEST_GROUPS = 50  # where the fleet is large enough for that
# Azure's pairs of regions, with a Windows time zone of each.
REGIONS = (
    ("japaneast", "Tokyo Standard Time"),
    ("japanwest", "Tokyo Standard Time"),
    ("westeurope", "W. Europe Standard Time"),
    ("northeurope", "GMT Standard Time"),
    ("eastus", "Eastern Standard Time"),
    ("westus", "Pacific Standard Time"),
    ("australiaeast", "AUS Eastern Standard Time"),
    ("australiasoutheast", "AUS Eastern Standard Time"),
)
ROLES = ("web", "app", "sql", "file", "batch", "cache", "queue", "build", "print", "report")
ENVIRONMENTS = ("production", "production", "staging", "test")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a machine is, as far as updates depend on it; `weight` says how many of a thousand are of it."""

    weight: int
    sku: str
    build: str
    hotpatch: bool
    patch_mode: PatchMode = PatchMode.AUTOMATIC_BY_PLATFORM
    power_state: PowerState = PowerState.RUNNING
    is_on_hci: bool = False
    image_resource_id: str = ""


_2022 = "2022-datacenter-azure-edition-core"
_2022_HOTPATCH = "2022-datacenter-azure-edition-hotpatch"
_2025 = "2025-datacenter-azure-edition-core"
_ON_TRACK = (
    ("20348.5020", _2022),
    ("20348.5074", _2022),
    ("20348.5020", _2022_HOTPATCH),
    ("20348.5074", _2022_HOTPATCH),
)
KINDS: tuple[Kind, ...] = (
    *(Kind(90, sku, build, hotpatch=True) for build, sku in _ON_TRACK),
    *(Kind(100, _2025, build, hotpatch=True) for build in ("26100.32690", "26100.32772")),
    Kind(60, _2022, "20348.4830", hotpatch=True),  # the baseline of April is overdue
    Kind(40, _2025, "26100.6905", hotpatch=True),
    Kind(60, _2022, "20348.5139", hotpatch=False, patch_mode=PatchMode.AUTOMATIC_BY_OS),
    Kind(40, _2025, "26100.32860", hotpatch=False, patch_mode=PatchMode.MANUAL),
    *(Kind(20, sku, build, hotpatch=True, is_on_hci=True, patch_mode=PatchMode.MANUAL) for build, sku in _ON_TRACK[:2]),
    Kind(60, "2022-datacenter-azure-edition", "20348.5139", hotpatch=False),  # with desktop: not eligible
    Kind(40, "", "20348.5074", hotpatch=False, image_resource_id=(
        "/subscriptions/10ad0000-0000-4000-8000-000000000000/resourceGroups/rg-images/providers/Microsoft.Compute/"
        "galleries/golden/images/ws2022/versions/1.0.0")),
    *(Kind(30, sku, build, hotpatch=True, power_state=PowerState.DEALLOCATED) for build, sku in _ON_TRACK[:2]),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FleetReport:
    """What was made, and how long it took."""

    vms: int
    seconds: float
    resource_groups: int


def make_fleet(
    *, count: int, seed: int, clock_factor: float, is_assessed: bool, tell: Callable[[str], None] = lambda _words: None
) -> FleetReport:
    """Add `count` machines on connections of their own. The same seed gives the same machines.

    `is_assessed`: whether they were assessed within the last day. Raises ValueError if there is a fleet already.
    """
    began = time.monotonic()
    if Connection.objects.filter(name__startswith=PREFIX).exists():
        raise ValueError("There is a load-test fleet already; use an empty database.")
    cloud, site = (
        Connection.objects.create(
            name=f"{PREFIX}: {words}",
            kind=SIMULATOR,
            platform=platform.value,
            config=to_json(SimulatorConfiguration(CATALOGUE_DATE, clock_factor, seed)),
        )
        for words, platform in (("Azure", Platform.AZURE), ("Azure Stack HCI", Platform.AZURE_STACK_HCI))
    )
    groups = _make_groups(count, seed)
    representatives = _make_representatives(count, cloud, site, groups[0])
    if is_assessed:
        _assess(representatives)
    made = len(representatives)
    for first in range(made, count, BLOCK):
        last = min(first + BLOCK, count)
        _copy_block(first, last, seed=seed, representatives=representatives, groups=groups)
        tell(f"{last} of {count} machines after {time.monotonic() - began:.0f} s")
    with connection.cursor() as cursor:
        for model in (VirtualMachine, VmUpdateState):
            cursor.execute(f"ANALYZE {model._meta.db_table}")
    return FleetReport(count, time.monotonic() - began, len(groups))


def _make_groups(count: int, seed: int) -> list[int]:
    """Ids of the resource groups, at least one per subscription."""
    subscriptions = [
        Subscription.objects.create(
            subscription_id=UUID(int=(0x10AD << 112) | (0x4 << 76) | (0x8 << 60) | (seed << 32) | number),
            name=f"{PREFIX} {number + 1}",
        )
        for number in range(1 + (count - 1) // VMS_PER_SUBSCRIPTION)
    ]
    wanted = max(1 + (count - 1) // VMS_PER_GROUP, min(FEWEST_GROUPS, 1 + count // 20))
    rows = ResourceGroup.objects.bulk_create(
        ResourceGroup(subscription=subscriptions[number % len(subscriptions)], name=f"rg-load-{number:04}")
        for number in range(max(wanted, len(subscriptions)))
    )
    return [row.pk for row in rows]


def _make_representatives(count: int, cloud: Connection, site: Connection, group: int) -> list[VirtualMachine]:
    """One machine of each kind."""
    kinds = KINDS[: min(len(KINDS), count)]
    with pgtrigger.ignore("vms.VirtualMachine:added_insert"):
        vms = VirtualMachine.objects.bulk_create(
            VirtualMachine(
                arm_id=f"/load/{number:07}",
                name=f"{ROLES[number % len(ROLES)]}-{number:07}",
                connection=site if kind.is_on_hci else cloud,
                resource_group_id=group,
                location=REGIONS[0][0],
                time_zone=REGIONS[0][1],
                tags={"environment": ENVIRONMENTS[0]},
                computer_name=f"load{number:07}",
                vm_size="Standard_D4s_v5",
                provisioning_state="Succeeded",
                power_state=kind.power_state.value,
                image_publisher="MicrosoftWindowsServer" if kind.sku else "",
                image_offer="WindowsServer" if kind.sku else "",
                image_sku=kind.sku,
                image_version="latest" if kind.sku else "",
                image_resource_id=kind.image_resource_id,
                patch_mode=kind.patch_mode.value,
                assessment_mode="AutomaticByPlatform",
                enable_automatic_updates=kind.patch_mode is not PatchMode.MANUAL,
                enable_hotpatching=kind.hotpatch,
            )
            for number, kind in enumerate(kinds)
        )
    VmUpdateState.objects.bulk_create(
        VmUpdateState(vm=vm, os_build=kind.build) for vm, kind in zip(vms, kinds, strict=True)
    )
    refresh_hotpatch_statuses(vm_ids=[vm.pk for vm in vms])
    refresh_patchers(among=VirtualMachine.objects.filter(pk__in=[vm.pk for vm in vms]))
    return vms


def _assess(vms: Sequence[VirtualMachine]) -> None:
    """Assess these machines for real, here and now, as quickly as the simulator can."""
    stopped = [vm.pk for vm in vms if vm.power_state != PowerState.RUNNING]
    connections = Connection.objects.filter(pk__in={vm.connection_id for vm in vms})
    configurations = dict(connections.values_list("pk", "config"))
    for pk, config in configurations.items():
        Connection.objects.filter(pk=pk).update(config=config | {"clock_factor": 1e9})
    VirtualMachine.objects.filter(pk__in=stopped).update(power_state=PowerState.RUNNING.value)  # they ran once
    request_assessments(vm_ids=[vm.pk for vm in vms], requested_by=None, is_bulk=True)
    ids = [vm.pk for vm in vms]
    deadline = time.monotonic() + 60
    while Operation.objects.open().filter(vm_id__in=ids).exists():
        if time.monotonic() > deadline:
            raise RuntimeError("The first machines of the fleet could not be assessed within a minute.")
        sweep(seconds=5)
        time.sleep(0.05)
    VirtualMachine.objects.filter(pk__in=stopped).update(power_state=PowerState.DEALLOCATED.value)
    for pk, config in configurations.items():
        Connection.objects.filter(pk=pk).update(config=config)


def _slots(count: int) -> list[int]:
    """For each of a thousand slots the kind in it; the kinds are spread, not in blocks."""
    slots = [number for number, kind in enumerate(KINDS[:count]) for _ in range(kind.weight)]
    return [slots[(position * 389) % len(slots)] for position in range(len(slots))]


_DICE = "((hashint8extended(i, %(seed)s + {salt}) %% 1000003 + 1000003) %% {sides})"
_COPIED = [
    str(field.column)
    for field in VirtualMachine._meta.concrete_fields
    if not field.generated
    and field.column
    not in {
        *("id", "arm_id", "name", "resource_group_id", "location", "time_zone", "zones", "tags", "availability_set"),
        *("computer_name", "created_at", "vm_id"),
    }
]
# i: the number of the machine; its id, its kind's representative and every choice follow from it and the seed.
# Resource groups are of unequal size: the first ones are the largest, as in a real fleet.
_BLOCK = f"""
WITH numbered AS (
    SELECT i, %(base)s + i AS id,
        (%(representatives)s::bigint[])[1 + (%(slots)s::int[])[1 + {_DICE.format(salt=1, sides="%(slot_count)s")}]] AS source,
        (%(groups)s::bigint[])[1 + floor(
            %(group_count)s * power({_DICE.format(salt=2, sides=1_000_003)} / 1000003.0, 2)
        )::int] AS resource_group_id,
        1 + {_DICE.format(salt=3, sides=len(REGIONS))} AS region,
        1 + {_DICE.format(salt=4, sides=len(ROLES))} AS role,
        1 + {_DICE.format(salt=5, sides=len(ENVIRONMENTS))} AS environment,
        {_DICE.format(salt=6, sides=10)} AS place
    FROM generate_series(%(first)s::bigint, %(last)s::bigint - 1) AS i
), vms AS (
    INSERT INTO vms_virtualmachine (
        id, arm_id, name, resource_group_id, location, time_zone, zones, tags, availability_set, computer_name,
        created_at, {", ".join(_COPIED)}
    )
    SELECT n.id,
        '/subscriptions/' || s.subscription_id || '/resourcegroups/' || g.name
            || '/providers/microsoft.compute/virtualmachines/' || r.name || '-' || lpad(n.i::text, 7, '0'),
        r.name || '-' || lpad(n.i::text, 7, '0'),
        n.resource_group_id, l.name, l.zone,
        CASE WHEN n.place < 6 THEN to_jsonb(ARRAY[(1 + n.place %% 3)::text]) ELSE '[]' END,
        jsonb_build_object('environment', e.name, 'role', r.name),
        CASE WHEN n.place BETWEEN 6 AND 8 THEN 'avset-' || r.name || '-' || (n.i / 200) ELSE '' END,
        'load' || lpad(n.i::text, 7, '0'),
        now(), {", ".join(f"v.{column}" for column in _COPIED)}
    FROM numbered n
    JOIN vms_virtualmachine v ON v.id = n.source
    JOIN vms_resourcegroup g ON g.id = n.resource_group_id
    JOIN vms_subscription s ON s.id = g.subscription_id
    JOIN unnest(%(regions)s::text[], %(zones)s::text[]) WITH ORDINALITY AS l(name, zone, no) ON l.no = n.region
    JOIN unnest(%(roles)s::text[]) WITH ORDINALITY AS r(name, no) ON r.no = n.role
    JOIN unnest(%(environments)s::text[]) WITH ORDINALITY AS e(name, no) ON e.no = n.environment
    ORDER BY n.id
    RETURNING id
), states AS (
    INSERT INTO updates_vmupdatestate (vm_id, patch_set_id, os_build, last_assessed_at, error_code, is_awaiting_assessment)
    SELECT n.id, u.patch_set_id, u.os_build,
        u.last_assessed_at - make_interval(secs => {_DICE.format(salt=7, sides=86_000)}::int), '', false
    FROM numbered n JOIN vms ON vms.id = n.id JOIN updates_vmupdatestate u ON u.vm_id = n.source
    ORDER BY n.id
)
INSERT INTO updates_installedpatch (vm_id, patch_id, version, installed_on, installed_by_id)
SELECT n.id, p.patch_id, p.version, p.installed_on, NULL
FROM numbered n JOIN vms ON vms.id = n.id JOIN updates_installedpatch p ON p.vm_id = n.source
ORDER BY n.id
"""


_ADDED = next(
    trigger.get_pgid(model)
    for model, trigger in pgtrigger.registered()
    if (model._meta.label, trigger.name) == ("vms.VirtualMachine", "added_insert")
)


def _copy_block(
    first: int, last: int, *, seed: int, representatives: Sequence[VirtualMachine], groups: Sequence[int]
) -> None:
    """Make the machines `first` to `last - 1`."""
    slots = _slots(len(representatives))
    with transaction.atomic(), connection.cursor() as cursor:
        # pgtrigger's own `ignore` cannot be mixed with named parameters; this holds until the commit.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # checks that wait for the commit would forbid it
        cursor.execute(f"ALTER TABLE vms_virtualmachine DISABLE TRIGGER {_ADDED}")
        cursor.execute(
            "SELECT setval(pg_get_serial_sequence('vms_virtualmachine', 'id'), "
            "nextval(pg_get_serial_sequence('vms_virtualmachine', 'id')) + %s)",
            [last - first],
        )
        (top,) = cursor.fetchone() or (0,)
        cursor.execute(
            _BLOCK,
            {
                "seed": seed,
                "base": top - last,
                "first": first,
                "last": last,
                "representatives": [vm.pk for vm in representatives],
                "slots": slots,
                "slot_count": len(slots),
                "groups": list(groups),
                "group_count": len(groups),
                "regions": [name for name, _zone in REGIONS],
                "zones": [zone for _name, zone in REGIONS],
                "roles": list(ROLES),
                "environments": list(ENVIRONMENTS),
            },
        )
        cursor.execute(f"ALTER TABLE vms_virtualmachine ENABLE TRIGGER {_ADDED}")
