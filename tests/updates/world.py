"""A small world for engine tests: VMs behind a connection, and a connector whose answers the test decides.

The scripted connector is a full connector (the contract is the Protocol), not a mock of our code: it records every
start it receives, which is what the engine's promises are about.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from django.db import connection as database
from django.utils import timezone

from connectors.protocol import (
    AssessmentResult,
    Capability,
    ConnectorError,
    DiscoveredPage,
    InstallationResult,
    Observation,
    ObserveRequest,
    PatchOutcome,
    StartChunk,
    Started,
    StartRequest,
    Traits,
)
from patching.terms import (
    Classification,
    InstallationPlan,
    InstallationState,
    OperationKind,
    Patch,
    PatchMode,
    ProductLine,
    RebootBehavior,
    RebootStatus,
    RunStatus,
)
from tests.factories import VmUpdateStateFactory
from updates.engine.sweep import ALL_PRIORITIES, sweep
from updates.models import InstalledPatch, Operation, PatchSet, PatchSetMember, VmUpdateState
from updates.models import Patch as PatchRow
from updates.services.bulk import hand_out_block
from vms.models import Connection, ResourceGroup, Subscription, VirtualMachine

DEFENDER = Patch(
    kb_number="2267602",
    title="Security Intelligence Update for Microsoft Defender Antivirus",
    classification=Classification.DEFINITION,
    reboot_behavior=RebootBehavior.NEVER_REBOOTS,
    version="2026.05.20",
)
DOT_NET = Patch(
    kb_number="5084071",
    title="Cumulative Update for .NET Framework 3.5, 4.8 and 4.8.1",
    classification=Classification.UPDATES,
    reboot_behavior=RebootBehavior.CAN_REQUEST_REBOOT,
    product_line=ProductLine.WS2022,
)
PLAN = InstallationPlan(classifications=frozenset({Classification.UPDATES, Classification.DEFINITION}))


def make_connection(name: str = "lab", **fields: object) -> Connection:
    """A simulator connection with its own name."""
    return Connection.objects.create(name=name, kind="simulator", **fields)


def make_vms(count: int = 1, *, connection: Connection | None = None, prefix: str = "vm") -> list[VirtualMachine]:
    """Hotpatchable WS2022 Core VMs in one resource group."""
    connection = connection or make_connection()
    subscription, _ = Subscription.objects.get_or_create(
        subscription_id=UUID("11111111-2222-3333-4444-555555555555"), defaults={"name": "Contoso"}
    )
    group, _ = ResourceGroup.objects.get_or_create(subscription=subscription, name="rg-lab")
    return VirtualMachine.objects.bulk_create(
        [
            VirtualMachine(
                arm_id=f"/subscriptions/{subscription.subscription_id}/resourcegroups/rg-lab/providers/"
                f"microsoft.compute/virtualmachines/{prefix}-{number:05d}-{uuid4().hex[:6]}",
                name=f"{prefix}-{number:05d}",
                connection=connection,
                resource_group=group,
                location="japaneast",
                image_publisher="MicrosoftWindowsServer",
                image_offer="WindowsServer",
                image_sku="2022-datacenter-azure-edition-core",
                patch_mode=PatchMode.AUTOMATIC_BY_PLATFORM.value,
                enable_hotpatching=True,
                product_line=ProductLine.WS2022.value,
            )
            for number in range(count)
        ]
    )


def found(*available: Patch, **fields: object) -> AssessmentResult:
    """A good assessment that found these patches."""
    return AssessmentResult(
        status=RunStatus.SUCCEEDED,
        available=tuple(available),
        is_reboot_pending=False,
        **fields,  # type: ignore[arg-type]
    )


def installed(*patches: Patch, final: AssessmentResult | None = None) -> InstallationResult:
    """A good installation of these patches."""
    return InstallationResult(
        status=RunStatus.SUCCEEDED,
        reboot_status=RebootStatus.NOT_NEEDED,
        is_maintenance_window_exceeded=False,
        patches=tuple(PatchOutcome(patch, InstallationState.INSTALLED) for patch in patches),
        final_assessment=final,
    )


def _default_start(request: StartRequest) -> Started | ConnectorError:
    return Started(handle=f"h-{request.request_id}", look_again_after=0)


def _default_observe(request: ObserveRequest) -> Observation | ConnectorError:
    if request.kind is OperationKind.ASSESSMENT:
        return Observation(assessment=found(DEFENDER, DOT_NET))
    return Observation(installation=installed(DOT_NET, final=found(DEFENDER)))


@dataclass
class ScriptedConnector:
    """Answers as the test says and remembers what it was sent. Thread-safe."""

    capabilities: frozenset[Capability] = frozenset()
    on_start: Callable[[StartRequest], Started | ConnectorError] = _default_start
    on_observe: Callable[[ObserveRequest], Observation | ConnectorError] = _default_observe
    on_find: Callable[[StartRequest], Started | ConnectorError | None] = lambda _request: None
    starts: Counter[UUID] = field(default_factory=Counter)
    start_order: list[StartRequest] = field(default_factory=list)
    traits: Traits = Traits()  # noqa: RUF009 (frozen)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def discover(self, cursor: str = "") -> DiscoveredPage:
        return DiscoveredPage([])

    def start(self, requests: Iterator[StartRequest], *, now: datetime, until: float) -> Iterator[StartChunk]:
        drawn = list(requests)
        with self._lock:
            self.starts.update(request.request_id for request in drawn)
            self.start_order.extend(drawn)
        if drawn:
            yield [(request.request_id, self.on_start(request)) for request in drawn]

    def observe(self, requests: Sequence[ObserveRequest], *, now: datetime) -> Sequence[Observation | ConnectorError]:
        return [self.on_observe(request) for request in requests]

    def find(self, requests: Sequence[StartRequest], *, now: datetime) -> Sequence[Started | ConnectorError | None]:
        return [self.on_find(request) for request in requests]


def run(connector: ScriptedConnector, *, priorities: Sequence[int] = ALL_PRIORITIES, seconds: float = 10) -> int:
    """One sweep with the test's connector behind every connection."""
    return sweep(priorities=priorities, seconds=seconds, connector_factory=lambda _row, _catalogue: connector)


def hand_out() -> int:
    """Answer all waiting bulk requests as a worker for other kinds of connections does: everything is queued."""
    count = 0
    while (block := hand_out_block(connection_kinds=["none"])) is not None:
        count += block.count
    return count


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run `work(n)` in real threads that start together; every thread closes its own database connection."""
    gate = threading.Barrier(count)

    def one(number: int) -> object:
        gate.wait()
        try:
            return work(number)
        finally:
            database.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def make_due(operations: Iterable[Operation] | None = None) -> None:
    """End every wait and every lease: what is open is due now."""
    rows = Operation.objects.open()
    if operations is not None:
        rows = rows.filter(pk__in=[operation.pk for operation in operations])
    rows.update(next_step_at="2000-01-01T00:00:00Z")


def assessed(vm: VirtualMachine, at: datetime, build: str, *kbs: str) -> VirtualMachine:
    """Record what an assessment at that time would have found."""
    VmUpdateStateFactory.create(vm=vm, last_assessed_at=at, os_build=build, is_list_complete=True)
    line = "ws2022" if build.startswith("20348") else "ws2025"
    for patch in PatchRow.objects.filter(product_line=line, kb_number__in=kbs):
        InstalledPatch.objects.create(vm=vm, patch=patch, installed_on=at)
    return vm


def waits_for_reboot(*vms: VirtualMachine) -> None:
    """These machines were assessed just now, lack nothing, and wait for their reboot."""
    nothing, _ = PatchSet.objects.get_or_create(digest=b"nothing", critical_and_security_count=0, other_count=0)
    for vm in vms:
        VmUpdateStateFactory.create(vm=vm, patch_set=nothing, last_assessed_at=timezone.now(), os_build="20348.5074")
    VirtualMachine.objects.filter(pk__in=[vm.pk for vm in vms]).update(
        is_reboot_pending=True, update_status="reboot_required", power_state="running"
    )


def lacking(vms: Iterable[VirtualMachine], *patches: PatchRow, at: datetime | None = None) -> None:
    """Record that an assessment found just these updates missing on each of the machines."""
    digest = hashlib.sha256(",".join(str(patch.pk) for patch in patches).encode()).digest()
    found, is_new = PatchSet.objects.get_or_create(digest=digest)
    if is_new:
        PatchSetMember.objects.bulk_create(PatchSetMember(patch_set=found, patch=patch) for patch in patches)
    for vm in vms:
        state = {"patch_set": found, "last_assessed_at": at or timezone.now()}
        VmUpdateState.objects.update_or_create(vm=vm, defaults=state)
