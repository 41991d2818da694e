"""What a connector is: one small, set-based Protocol, and the frozen facts that travel through it.

One outcome or one `ConnectorError` per item, never an exception for the batch. `start` yields its outcomes as they become
known; every other method answers with a sequence of the same length and order. No single call to a machine lasts longer
than the connector's `traits.call_seconds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from patching.codes import storable_code
from patching.identity import identified
from patching.rollback import RollbackOrder
from patching.terms import (
    ImageReference,
    InstallationPlan,
    InstallationState,
    InstalledUpdate,
    OperationKind,
    Patch,
    PatchSettings,
    ProductLine,
    RebootStatus,
    RunStatus,
)


class Capability(StrEnum):
    """What a connector can do beyond starting and observing; each is asked where what needs it is offered.

    Stopping a run is none of them: no operation carries it to a machine.
    """

    FIND_BY_REQUEST = "find_by_request"
    IDEMPOTENT_START = "idempotent_start"
    INSTALLED_UPDATES = "installed_updates"
    UNINSTALL = "uninstall"
    SETTINGS = "settings"
    RESTART = "restart"
    FINAL_ASSESSMENT = "final_assessment"


class Orchestrator(StrEnum):
    """Who decides when machines are patched without anybody asking."""

    PORTAL = "portal"  # nothing behind the connection does
    PLATFORM = "platform"  # what lies behind it does, where its platform can


# The longest pause that the other side can ask for, in seconds. One that nobody can read is as if none had been named.
LONGEST_PAUSE = 86_400.0
_MOST_REMAINING = 2**31 - 1  # as a counter holds it


def pause(seconds: object) -> float | None:
    """A pause that the other side asked for, as it can be kept: 0 to a day; None where it says nothing that can be read."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
        return None
    return float(min(seconds, LONGEST_PAUSE))


# How long a single call may last unless its kind says otherwise.
CALL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a connector works. A claim takes no more than it can do under one lease.

    `chunk`: how many looks one call takes. `start_seconds`, `look_seconds`: what one start and one look take, as long as
    nothing was measured on the connection itself; 0: too little to matter.
    """

    chunk: int = 1_000
    start_seconds: float = 0.0
    look_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a VM is, as far as budgets ask."""

    subscription_id: str
    location: str


@dataclass(frozen=True, slots=True)
class Buckets:
    """How a kind shares its budget out: `name_of` names the bucket of a VM by its place, never empty.

    `per_minute`: starts that each bucket grants, `burst`: what it holds when it is full; None: nobody knows before the
    other side says so.
    """

    name_of: Callable[[Place], str]
    per_minute: float | None = None
    burst: float | None = None


@dataclass(frozen=True, slots=True)
class Traits:
    """What must be known of a connector before anything is asked of it.

    `call_seconds`: the time-out of a single call; more than the usual shortens the time in which starts are sent.
    """

    call_seconds: float = CALL_SECONDS
    pace: Pace = Pace()
    buckets: Buckets | None = None  # None: one for the whole connection
    is_simulated: bool = False
    orchestrator: Orchestrator = Orchestrator.PLATFORM


@dataclass(frozen=True, slots=True)
class ConnectorError:
    """Why one item failed.

    `code` is an `ErrorCode`, or the other side's own where none fits; it is kept printable and at most 60 characters long, and
    pages show one that they do not know as it is. `is_retryable`: the same call may succeed later;
    `nothing_was_sent`: the connector proves that the machine never received the start (refused connection, 429),
    so it may be started again; `retry_after` in seconds where the other side asked for a pause. `bucket`: the budget that
    refused it; empty: that of the whole connection; None: none did. It rests for `retry_after`, and what waits for it keeps
    its place without an attempt counted.
    """

    code: str
    detail: str = ""
    is_retryable: bool = False
    nothing_was_sent: bool = False
    retry_after: float | None = None
    bucket: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "code", storable_code(self.code))
        object.__setattr__(self, "retry_after", pause(self.retry_after))


@dataclass(frozen=True, slots=True)
class BucketNews:
    """What the other side said about a budget: how many requests it still grants, or that it rests for some seconds."""

    name: str
    remaining: int | None = None
    is_dry: bool = False
    retry_after: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "retry_after", pause(self.retry_after))
        if self.remaining is not None:
            object.__setattr__(self, "remaining", min(max(0, self.remaining), _MOST_REMAINING))


@dataclass(frozen=True, slots=True)
class VmRef:
    """A VM as a connector needs to know it. `os_build` empty: not known yet.

    `subscription` (its id) and `location` say where it is, as budgets do (`Place`); empty: nobody said.
    """

    vm_id: int
    arm_id: str
    name: str
    image: ImageReference
    product_line: ProductLine | None
    settings: PatchSettings
    is_hotpatch_enabled: bool  # eligible and switched on
    os_build: str = ""
    power_state: str = "running"
    installed: tuple[InstalledUpdate, ...] = ()
    is_reboot_pending: bool = False
    tags: tuple[tuple[str, str], ...] = ()
    subscription: str = ""
    location: str = ""


@dataclass(frozen=True, slots=True)
class StartRequest:
    """Start one operation.

    `request_id` is the operation's id: the same id never starts twice where the connector is idempotent.
    """

    request_id: UUID
    kind: OperationKind
    vm: VmRef
    requested_at: datetime
    plan: InstallationPlan | None = None  # installations only
    rollback: RollbackOrder | None = None  # rollbacks only
    settings: PatchSettings | None = None  # settings only: what the machine is to have


@dataclass(frozen=True, slots=True)
class Started:
    """The machine took the request. `handle` is opaque text that comes back in every `ObserveRequest`."""

    handle: str
    look_again_after: float = 2.0  # seconds until the first look is worth it
    news: tuple[BucketNews, ...] = ()  # what came with the answer about budgets


@dataclass(frozen=True, slots=True)
class ObserveRequest:
    """Look at one running operation."""

    request_id: UUID
    kind: OperationKind
    vm: VmRef
    handle: str
    started_at: datetime
    plan: InstallationPlan | None = None
    rollback: RollbackOrder | None = None
    settings: PatchSettings | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """What a running operation is doing.

    `step` is one of assessing, downloading, uninstalling, installing, rebooting, verifying, configuring.
    """

    step: str
    kb_number: str = ""
    title: str = ""
    index: int = 0
    total: int = 0
    fraction: float = 0.0  # 0..1 of the whole operation
    remaining_seconds: float | None = None


_GOOD_ENDS = frozenset({RunStatus.SUCCEEDED, RunStatus.COMPLETED_WITH_WARNINGS})

_ENDS = _GOOD_ENDS | {RunStatus.FAILED}


class AssessmentSource(StrEnum):
    """Who made an assessment."""

    PORTAL = "portal"  # an operation of this portal
    ELSEWHERE = "elsewhere"  # the platform or another tool; the portal only takes it over


@dataclass(frozen=True, slots=True)
class AssessmentResult:
    """What an assessment found.

    `installed`: with INSTALLED_UPDATES everything that is installed. Without it a part of that: it is added to what is known,
    and what it does not name may be installed all the same. None: nothing is told. Updates that share a KB are known by
    their update ids from here on (patching.identity). `is_ready_for_hotpatches` False: the machine says that hotpatches do
    not work on it (Azure: ActionRequired, Not ready). `assessed_at`: when it was made, in any zone; None: just now. One that is
    older than the last one known changes nothing.
    """

    status: RunStatus
    available: tuple[Patch, ...]
    is_reboot_pending: bool
    os_build: str = ""
    installed: tuple[InstalledUpdate, ...] | None = None
    error: ConnectorError | None = None
    is_ready_for_hotpatches: bool = True
    settings: PatchSettings | None = None  # None: the connector does not tell them
    assessed_at: datetime | None = None
    source: AssessmentSource = AssessmentSource.PORTAL

    def __post_init__(self) -> None:
        object.__setattr__(self, "available", identified(self.available))

    @property
    def has_found(self) -> bool:
        """Whether it came to an end that tells what is available. A status that nobody can read does not."""
        return self.status in _GOOD_ENDS


@dataclass(frozen=True, slots=True)
class PatchOutcome:
    """What a run did with one patch. `error_code`: Windows' own or the other side's, empty where it did not fail."""

    patch: Patch
    state: InstallationState
    error_code: str = ""
    reason: str = ""  # the selection verdict's reason (patching.selection), where nothing was attempted

    def __post_init__(self) -> None:
        if self.error_code:
            object.__setattr__(self, "error_code", storable_code(self.error_code))


@dataclass(frozen=True, slots=True)
class InstallationResult:
    """How an installation ended. Updates that share a KB are known by their update ids, as in its assessments."""

    status: RunStatus
    reboot_status: RebootStatus
    is_maintenance_window_exceeded: bool
    patches: tuple[PatchOutcome, ...]
    error: ConnectorError | None = None
    final_assessment: AssessmentResult | None = None

    def __post_init__(self) -> None:
        found = tuple(outcome.patch for outcome in self.patches)
        if (known := identified(found)) is not found:
            outcomes = tuple(replace(o, patch=patch) for o, patch in zip(self.patches, known, strict=True))
            object.__setattr__(self, "patches", outcomes)

    @property
    def is_status_known(self) -> bool:
        """Whether it says how it ended. An end without one leaves open what was done."""
        return self.status in _ENDS


@dataclass(frozen=True, slots=True)
class RestartResult:
    """How a restart ended: the machine is back (Succeeded, Completed), or nobody saw it come back."""

    status: RunStatus
    reboot_status: RebootStatus
    error: ConnectorError | None = None
    final_assessment: AssessmentResult | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """One look. Exactly one of: still running (`progress`), or ended (`assessment`, `installation`, `settings` or `restart`).

    `settings`: what the machine has after it was told its settings, as it reports them.
    """

    is_rebooting: bool = False
    progress: Progress | None = None
    outcomes: tuple[PatchOutcome, ...] = ()  # per-patch results known so far, while running
    assessment: AssessmentResult | None = None
    installation: InstallationResult | None = None
    settings: PatchSettings | None = None
    restart: RestartResult | None = None
    handle: str | None = None  # a new handle to keep, where it changed
    look_again_after: float = 2.0

    @property
    def ends(self) -> tuple[object, ...]:
        """What the operation ended with: one result. None while it runs; more than one is no answer."""
        found = (self.assessment, self.installation, self.settings, self.restart)
        return tuple(end for end in found if end is not None)

    @property
    def is_final(self) -> bool:
        """True when the operation has ended."""
        return bool(self.ends)


@dataclass(frozen=True, slots=True)
class DiscoveredVm:
    """One VM that a connector found, in ARM's own JSON shape."""

    document: dict[str, object] = field(default_factory=dict)


StartOutcome = Started | ConnectorError
# What became of some starts, by request id. The engine records a chunk before it asks for the next.
StartChunk = Sequence[tuple[UUID, StartOutcome]]


@dataclass(frozen=True, slots=True)
class Unread:
    """Machines that nobody could look at: those of a resource type in a subscription. `reason`: what is missing."""

    subscription_id: str
    resource_type: str
    reason: str


@dataclass(frozen=True, slots=True)
class DiscoveredPage:
    """Some of the machines behind a connection. `next_cursor` empty: there are no more.

    `unread`: machines that may be there and are not listed, on no page; they count as neither there nor gone.
    """

    machines: Sequence[DiscoveredVm]
    next_cursor: str = ""
    unread: Sequence[Unread] = ()


class Connector(Protocol):
    """How the engine speaks to the machines behind one connection."""

    capabilities: frozenset[Capability]
    traits: Traits

    def discover(self, cursor: str = "") -> DiscoveredPage | ConnectorError:
        """A page of the VMs behind the connection, from a cursor on (empty: from the beginning).

        No machines where the connector has no inventory of its own. The same cursor may be asked for again.
        """
        ...

    def start(self, requests: Iterator[StartRequest], *, now: datetime, until: float) -> Iterable[StartChunk]:
        """Start operations, and yield what became of them, one by one or in chunks, as soon as it is known.

        Draw a request only when it is about to be sent: what was never drawn goes back to the queue as if nothing had
        happened, and what was drawn and not answered is taken for sent. `requests` ends by itself once `until`
        (`time.monotonic()`) has passed; no call to a machine begins after that. Nothing further may be sent while a
        yielded chunk is being recorded, unless it was drawn before. Each request is answered once. With IDEMPOTENT_START
        the same request id answers again and starts nothing new.
        """
        ...

    def observe(self, requests: Sequence[ObserveRequest], *, now: datetime) -> Sequence[Observation | ConnectorError]:
        """Look once at each running operation; at most `traits.pace.chunk` of them in one call."""
        ...

    def find(self, requests: Sequence[StartRequest], *, now: datetime) -> Sequence[Started | ConnectorError | None]:
        """Say for each request whether the machine received it (None: it did not). Needs FIND_BY_REQUEST."""
        ...
