"""Connectors that are slow, throttled, forgetful, liars, or know only a part, with machines that write down what reaches them.

They are connectors in full (the contract is the Protocol), so the contract's tests run against those that keep it, and the
engine's against all of them. None of them knows Django.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID, uuid4

from connectors.protocol import (
    AssessmentResult,
    Buckets,
    Capability,
    ConnectorError,
    DiscoveredPage,
    InstallationResult,
    Observation,
    ObserveRequest,
    Pace,
    PatchOutcome,
    Progress,
    RestartResult,
    StartChunk,
    Started,
    StartOutcome,
    StartRequest,
    Traits,
)
from patching.codes import ErrorCode
from patching.terms import (
    Classification,
    InstallationState,
    InstalledUpdate,
    OperationKind,
    Patch,
    ProductLine,
    RebootBehavior,
    RebootStatus,
    RunStatus,
)

DOT_NET = Patch(
    kb_number="5084071",
    title="Cumulative Update for .NET Framework 3.5, 4.8 and 4.8.1",
    classification=Classification.SECURITY,
    reboot_behavior=RebootBehavior.CAN_REQUEST_REBOOT,
    product_line=ProductLine.WS2022,
    update_id="11111111-0000-0000-0000-000000000001",
)
DEFENDER = Patch(
    kb_number="2267602",
    title="Security Intelligence Update for Microsoft Defender Antivirus",
    classification=Classification.DEFINITION,
    reboot_behavior=RebootBehavior.NEVER_REBOOTS,
    version="2026.05.20",
)
BUILD = "20348.5074"
EVERYTHING = frozenset(
    {
        Capability.FIND_BY_REQUEST,
        Capability.IDEMPOTENT_START,
        Capability.INSTALLED_UPDATES,
        Capability.FINAL_ASSESSMENT,
        Capability.SETTINGS,
        Capability.RESTART,
    }
)
TIMEOUT = ConnectorError(ErrorCode.CONNECTOR_TIMEOUT, is_retryable=True)
FORGOTTEN = ConnectorError("NotFound", "no such operation")


@dataclass
class Scripted:
    """Keeps the contract. `seconds`: how long what it starts takes; `received`: what reached a machine, and how often."""

    capabilities: frozenset[Capability] = EVERYTHING
    traits: Traits = Traits()  # noqa: RUF009 (frozen)
    seconds: float = 60.0
    received: Counter[UUID] = field(default_factory=Counter)
    installed: dict[int, tuple[InstalledUpdate, ...]] = field(default_factory=dict)  # by VM
    lock: threading.Lock = field(default_factory=threading.Lock)

    def discover(self, cursor: str = "") -> DiscoveredPage:
        return DiscoveredPage([])

    def start(self, requests: Iterator[StartRequest], *, now: datetime, until: float) -> Iterator[StartChunk]:
        for request in requests:
            yield [(request.request_id, self.take(request))]

    def observe(self, requests: Sequence[ObserveRequest], *, now: datetime) -> Sequence[Observation | ConnectorError]:
        return [self.look(request, now) for request in requests]

    def find(self, requests: Sequence[StartRequest], *, now: datetime) -> Sequence[Started | ConnectorError | None]:
        return [self.started(request) if self.received[request.request_id] else None for request in requests]

    # --- what a machine does

    def take(self, request: StartRequest) -> StartOutcome:
        """Refuse what cannot be taken; write down what can."""
        if request.vm.product_line is None:
            return ConnectorError(ErrorCode.VM_UNSUPPORTED, nothing_was_sent=True)
        if request.kind is OperationKind.RESTART and Capability.RESTART not in self.capabilities:
            return ConnectorError(ErrorCode.RESTART_NOT_SUPPORTED, nothing_was_sent=True)
        if request.vm.power_state != "running":
            return ConnectorError(ErrorCode.VM_NOT_RUNNING, nothing_was_sent=True)
        self.receive(request)
        return TIMEOUT if ("simulate", "lost-answer") in request.vm.tags else self.started(request)

    def receive(self, request: StartRequest) -> None:
        with self.lock:
            self.received[request.request_id] += 1

    def started(self, request: StartRequest) -> Started:
        return Started(handle=str(request.request_id), look_again_after=min(2.0, self.seconds))

    def look(self, request: ObserveRequest, now: datetime) -> Observation | ConnectorError:
        if request.vm.product_line is None:
            return ConnectorError(ErrorCode.VM_UNSUPPORTED)
        passed = (now - request.started_at).total_seconds()
        if passed < self.seconds:
            step = {
                OperationKind.ASSESSMENT: "assessing",
                OperationKind.SETTINGS: "configuring",
                OperationKind.RESTART: "rebooting",
            }
            return Observation(
                progress=Progress(
                    step.get(request.kind, "installing"), total=1, fraction=max(0.0, passed / self.seconds)
                )
            )
        return self.ended(request)

    def ended(self, request: ObserveRequest) -> Observation:
        if request.kind is OperationKind.SETTINGS:
            return Observation(settings=request.settings)
        if request.kind is OperationKind.ASSESSMENT:
            return Observation(assessment=self.assessment(request))
        is_final = Capability.FINAL_ASSESSMENT in self.capabilities
        if request.kind is OperationKind.RESTART:
            looked = self.assessment(request) if is_final else None
            return Observation(
                restart=RestartResult(RunStatus.SUCCEEDED, RebootStatus.COMPLETED, final_assessment=looked)
            )
        self.installed[request.vm.vm_id] = (InstalledUpdate(DOT_NET, request.started_at),)
        return Observation(
            installation=InstallationResult(
                status=RunStatus.SUCCEEDED,
                reboot_status=RebootStatus.NOT_NEEDED,
                is_maintenance_window_exceeded=False,
                patches=(PatchOutcome(DOT_NET, InstallationState.INSTALLED),),
                final_assessment=self.assessment(request) if is_final else None,
            )
        )

    def assessment(self, request: ObserveRequest) -> AssessmentResult:
        there = self.installed.get(request.vm.vm_id, ())
        is_told = Capability.INSTALLED_UPDATES in self.capabilities
        return AssessmentResult(
            status=RunStatus.SUCCEEDED,
            available=(DEFENDER,) if there else (DOT_NET, DEFENDER),
            is_reboot_pending=False,
            os_build=BUILD,
            installed=there if is_told else None,
        )


# --- slow, throttled, partial ------------------------------------------------------------------------------------


@dataclass
class Slow(Scripted):
    """Every start takes its time."""

    start_seconds: float = 0.05

    def start(self, requests: Iterator[StartRequest], *, now: datetime, until: float) -> Iterator[StartChunk]:
        for request in requests:
            time.sleep(self.start_seconds)
            yield [(request.request_id, self.take(request))]


def slow() -> Slow:
    return Slow(traits=Traits(call_seconds=1.0, pace=Pace(chunk=10, start_seconds=0.05)))


@dataclass
class Throttled(Scripted):
    """Refuses what comes while it is dry (429), with or without saying for how long."""

    retry_after: float | None = None
    bucket_of: Callable[[StartRequest], str | None] = lambda _request: None
    dry: bool = True

    def take(self, request: StartRequest) -> StartOutcome:
        if self.dry:
            return ConnectorError(
                ErrorCode.CONNECTOR_THROTTLED,
                is_retryable=True,
                nothing_was_sent=True,
                retry_after=self.retry_after,
                bucket=self.bucket_of(request),
            )
        return super().take(request)


BY_LOCATION = Buckets(name_of=lambda place: place.location or "nowhere")


def throttled_by_bucket() -> Throttled:
    """It names the bucket by what the request says of where its VM is."""
    return Throttled(
        traits=Traits(buckets=BY_LOCATION),
        retry_after=60.0,
        bucket_of=lambda request: request.vm.location or "nowhere",
    )


def partial() -> Scripted:
    """Knows only what its own runs installed, and tells that in no list; no assessment after a run either."""
    return Scripted(capabilities=EVERYTHING - {Capability.INSTALLED_UPDATES, Capability.FINAL_ASSESSMENT})


def unable() -> Scripted:
    """Cannot restart a machine."""
    return Scripted(capabilities=EVERYTHING - {Capability.RESTART})


@dataclass
class Piecemeal(Scripted):
    """Tells a part of what is installed with every assessment, and does not claim that it is all."""

    capabilities: frozenset[Capability] = EVERYTHING - {Capability.INSTALLED_UPDATES}
    told: tuple[InstalledUpdate, ...] = ()

    def assessment(self, request: ObserveRequest) -> AssessmentResult:
        return replace(super().assessment(request), installed=self.told)


# --- forgetful ---------------------------------------------------------------------------------------------------


@dataclass
class Losing(Scripted):
    """Loses the first starts of every request on their way, and says truly that it does not have them."""

    capabilities: frozenset[Capability] = EVERYTHING - {Capability.IDEMPOTENT_START}
    losses: int = 1
    sent: Counter[UUID] = field(default_factory=Counter)

    def take(self, request: StartRequest) -> StartOutcome:
        with self.lock:
            self.sent[request.request_id] += 1
        return TIMEOUT if self.sent[request.request_id] <= self.losses else super().take(request)


@dataclass
class Forgetful(Scripted):
    """Takes a start and knows nothing of it afterwards."""

    capabilities: frozenset[Capability] = EVERYTHING - {Capability.IDEMPOTENT_START}

    def look(self, request: ObserveRequest, now: datetime) -> Observation | ConnectorError:
        return FORGOTTEN


# --- liars -------------------------------------------------------------------------------------------------------

Lie = Callable[[object], object]


@dataclass
class Lying(Scripted):
    """Every answer passes through a lie. It promises nothing that would help to find out."""

    capabilities: frozenset[Capability] = frozenset({Capability.INSTALLED_UPDATES, Capability.FINAL_ASSESSMENT})
    seconds: float = 0.0
    about_starts: Callable[[StartChunk], object] = lambda chunk: chunk
    about_looks: Callable[[list[Observation | ConnectorError]], object] = lambda answers: answers
    about_finds: Callable[[list[Started | ConnectorError | None]], object] = lambda answers: answers

    def start(self, requests: Iterator[StartRequest], *, now: datetime, until: float) -> Iterator[StartChunk]:
        for chunk in super().start(requests, now=now, until=until):
            yield self.about_starts(chunk)  # type: ignore[misc]

    def observe(self, requests: Sequence[ObserveRequest], *, now: datetime) -> Sequence[Observation | ConnectorError]:
        return self.about_looks(list(super().observe(requests, now=now)))  # type: ignore[return-value]

    def find(self, requests: Sequence[StartRequest], *, now: datetime) -> Sequence[Started | ConnectorError | None]:
        return self.about_finds(list(super().find(requests, now=now)))  # type: ignore[return-value]


def _raise(_answers: object) -> object:
    raise ValueError("it chokes")


def _with_installation(**fields: object) -> Callable[[list[Observation | ConnectorError]], object]:
    """What it says of installations, changed in these fields."""

    def spoil(answers: list[Observation | ConnectorError]) -> object:
        return [
            replace(seen, installation=replace(seen.installation, **fields))  # type: ignore[arg-type]
            if isinstance(seen, Observation) and seen.installation is not None
            else seen
            for seen in answers
        ]

    return spoil


LIES_ABOUT_STARTS: dict[str, Callable[[StartChunk], object]] = {
    "of one whom nobody asked about": lambda chunk: [(uuid4(), outcome) for _pk, outcome in chunk],
    "two answers for one": lambda chunk: [*chunk, *chunk],
    "nobody's": lambda chunk: [(None, outcome) for _pk, outcome in chunk],
    "a page": lambda _chunk: "\x00<html>",
    "news that are none": lambda chunk: [(pk, Started("h", news=("soon",))) for pk, _outcome in chunk],  # type: ignore[arg-type]
}
LIES_ABOUT_LOOKS: dict[str, Callable[[list[Observation | ConnectorError]], object]] = {
    "nothing": lambda answers: [None] * len(answers),
    "two answers for one": lambda answers: [*answers, *answers],
    "a page": lambda _answers: "\x00<html>",
    "an end that is two ends": lambda answers: [
        replace(seen, settings="any") if isinstance(seen, Observation) and seen.is_final else seen  # type: ignore[arg-type]
        for seen in answers
    ],
    "patches that are none": _with_installation(patches=("KB5084071",)),
    "a state that nobody knows": _with_installation(patches=(PatchOutcome(DOT_NET, "Frobnicated"),)),  # type: ignore[arg-type]
    "a text that cannot be kept": _with_installation(
        patches=(PatchOutcome(replace(DOT_NET, kb_number="", update_id="\x00"), InstallationState.INSTALLED),)
    ),
    "an error without words": lambda answers: [ConnectorError("Odd", None)] * len(answers),  # type: ignore[arg-type]
    "an error of a budget that is none": lambda answers: (
        [ConnectorError("Odd", bucket=["eastus"])] * len(answers)  # type: ignore[arg-type]
    ),
    "never": lambda answers: (
        [Observation(progress=Progress("installing"), look_again_after=float("nan"))] * len(answers)
    ),
}
LIES_ABOUT_FINDS: dict[str, Callable[[list[Started | ConnectorError | None]], object]] = {
    "it chokes": _raise,
    "a page": lambda _answers: "\x00<html>",
    "two answers for one": lambda answers: [*answers, *answers],
    "maybe": lambda answers: ["maybe"] * len(answers),
}


@dataclass
class Boasting(Lying):
    """Reports as installed what is not, and offers it again."""

    def assessment(self, request: ObserveRequest) -> AssessmentResult:
        self.installed.clear()
        return super().assessment(request)
