"""Machines and requests for connector tests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from connectors.protocol import (
    AssessmentResult,
    Connector,
    InstallationResult,
    Observation,
    ObserveRequest,
    StartOutcome,
    StartRequest,
    VmRef,
)
from connectors.simulator import Simulator
from patching.terms import (
    Classification,
    ImageReference,
    InstallationPlan,
    InstallationState,
    OperationKind,
    PatchSettings,
    ProductLine,
)

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
SECURITY = InstallationPlan(classifications=frozenset({Classification.SECURITY}))


def machine(name: str = "web-001", line: ProductLine | None = ProductLine.WS2022, **fields: object) -> VmRef:
    """A hotpatchable VM that nobody has looked at."""
    vm = VmRef(
        vm_id=abs(hash(name)) % 10_000,
        arm_id=f"/vms/{name}",
        name=name,
        image=ImageReference("MicrosoftWindowsServer", "WindowsServer", f"{(line or 'other')[2:]}-core"),
        product_line=line,
        settings=PatchSettings(enable_hotpatching=True),
        is_hotpatch_enabled=True,
    )
    return replace(vm, **fields)  # type: ignore[arg-type]


def simulate(*wishes: str) -> tuple[tuple[str, str], ...]:
    """The tag that asks for misfortunes."""
    return (("simulate", " ".join(wishes)),)


def start_request(vm: VmRef, plan: InstallationPlan | None = None, number: int = 1) -> StartRequest:
    kind = OperationKind.INSTALLATION if plan else OperationKind.ASSESSMENT
    return StartRequest(UUID(int=number), kind, vm, requested_at=NOW, plan=plan)


def observe_request(vm: VmRef, plan: InstallationPlan | None = None, number: int = 1) -> ObserveRequest:
    kind = OperationKind.INSTALLATION if plan else OperationKind.ASSESSMENT
    return ObserveRequest(UUID(int=number), kind, vm, handle="", started_at=NOW, plan=plan)


def look(simulator: Simulator, request: ObserveRequest, at: datetime) -> Observation:
    (seen,) = simulator.observe([request], now=at)
    assert isinstance(seen, Observation), seen
    return seen


def assess(simulator: Simulator, vm: VmRef) -> AssessmentResult:
    seen = look(simulator, observe_request(vm), NOW + timedelta(hours=1))
    assert seen.assessment is not None
    return seen.assessment


def assessed(simulator: Simulator, vm: VmRef) -> VmRef:
    """The VM as the portal knows it after an assessment."""
    result = assess(simulator, vm)
    return replace(vm, os_build=result.os_build, installed=result.installed or ())


def install(simulator: Simulator, vm: VmRef, plan: InstallationPlan) -> InstallationResult:
    seen = look(simulator, observe_request(vm, plan), NOW + timedelta(hours=12))
    assert seen.installation is not None
    return seen.installation


def states(result: InstallationResult) -> dict[str, InstallationState]:
    return {outcome.patch.kb_number: outcome.state for outcome in result.patches}


def start(connector: Connector, requests: Sequence[StartRequest], *, now: datetime) -> list[StartOutcome]:
    """What became of these starts, in their order; the connector has all the time it wants, and answers each once."""
    pairs = [
        pair for chunk in connector.start(iter(requests), now=now, until=time.monotonic() + 3_600) for pair in chunk
    ]
    assert sorted(request_id for request_id, _outcome in pairs) == sorted(request.request_id for request in requests)
    outcomes = dict(pairs)
    return [outcomes[request.request_id] for request in requests]
