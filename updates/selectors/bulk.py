"""Reads of bulk requests: which VMs they mean, how far they are, and what became of each VM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db.models import BigIntegerField, Count, Exists, Func, OuterRef, Q, QuerySet
from django.shortcuts import get_object_or_404

from patching.lifecycle import TERMINAL
from patching.terms import InstallationPlan, OperationState, Verification
from updates.choices import RunPart
from updates.models import WELL_ENDED_STATES, BulkBlock, BulkOutcome, BulkRequest, Operation, Rollout
from updates.plans import PlanError, plan_from_json
from updates.selectors.polling import poll_seconds
from updates.selectors.runs import (
    ENDED_PARTS,
    Eta,
    MachineRow,
    Retry,
    RunReason,
    expected_end,
    failed_pairs,
    of_reason,
    reasons_of,
    retry_of,
    row_of,
    seen_by,
    with_kbs,
)
from updates.selectors.waits import StartWait, start_wait
from vms.choices import Role
from vms.filters import VmFilter
from vms.models import Grants, VirtualMachine, VirtualMachineQuerySet
from vms.tags import TagValue

if TYPE_CHECKING:
    from django.contrib.auth.models import User

PAGE_SIZE = 50
SHOWN = ("all", "failed", "contradicted", "open", "refused")


@dataclass(frozen=True, slots=True)
class BulkPage:
    """A bulk request with its progress and a page of its machines, those that the reader may see."""

    request: BulkRequest
    plan: InstallationPlan | None  # None: it installs nothing, or what is kept of it cannot be read
    parts: Mapping[RunPart, int]
    refused: int
    joined: int
    cancelled: int
    queued: int
    answered: int  # machines that got their answer, seen or not
    rows: tuple[MachineRow, ...]
    show: str
    reason: tuple[str, str] | None  # the code and KB that are asked for
    reasons: tuple[RunReason, ...]
    next_after: int | None
    may_cancel: bool
    retry: Retry | None
    eta: Eta | None
    start_wait: StartWait | None  # what budgets still make the last of what is queued wait
    chosen_by: Sequence[tuple[str, str]]  # the filters it was chosen by, in the words of the list
    now: datetime

    @property
    def total(self) -> int:
        """How many machines that the reader sees have their answer so far."""
        return sum(self.parts.values())

    @property
    def not_asked(self) -> int:
        """How many VMs have no answer: those whose turn has not come, or will not."""
        return max(0, self.request.vm_count - self.answered - self.request.removed_count)

    @property
    def ended(self) -> int:
        """How many of the operations have ended, cancelled ones among them."""
        return sum(self.parts[part] for part in ENDED_PARTS) - self.refused

    @property
    def open(self) -> int:
        """How many of the operations have not."""
        return self.parts[RunPart.RUNNING] + self.parts[RunPart.WAITING]

    @property
    def failed(self) -> int:
        """How many failed."""
        return self.parts[RunPart.FAILED]

    @property
    def contradicted(self) -> int:
        """How many reported success, and a later look found otherwise."""
        return self.parts[RunPart.CONTRADICTED]

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left to do."""
        return self.request.is_handed_out and not self.open

    @property
    def can_cancel(self) -> bool:
        """Whether operations are queued or machines not yet asked, and the reader may cancel them."""
        return self.may_cancel and (not self.request.is_handed_out or self.queued > 0)

    @property
    def percent(self) -> int:
        """How much of what was handed out has ended, 0 to 100; where nothing is left to do, all."""
        if self.is_over:
            return 100
        return 100 * self.ended // max(1, self.ended + self.open)

    @property
    def poll_seconds(self) -> int:
        """How long the page waits before it looks again."""
        return max(2, poll_seconds(self.request.created_at, self.now))


def _machines_of() -> Q:
    """The VMs of the bulk request of the query around this one."""
    ids = BulkBlock.objects.filter(request_id=OuterRef(OuterRef("pk"))).values(
        one=Func("vm_ids", function="unnest", output_field=BigIntegerField())
    )
    return Q(pk__in=ids)


def bulk_requests_of(user: User, role: Role = Role.READER, *, grants: Grants | None = None) -> QuerySet[BulkRequest]:
    """The bulk requests that the user may see now, or with a stronger role act on (docs/rules.md, selection of machines).

    Owners of everything: all. Others: those they made, while they hold the role on at least one of the machines. `grants`:
    the user's, where they were just read.
    """
    rows = BulkRequest.objects.select_related("requested_by")
    grants = Grants.of(user) if grants is None else grants
    if grants.at_least(Role.OWNER).are_of_everything:
        return rows
    mine = VirtualMachine.objects.order_by().granted_by(grants, role).filter(_machines_of())
    return rows.filter(Exists(mine), requested_by=user)


def bulk_or_404(user: User, pk: UUID, role: Role = Role.READER) -> BulkRequest:
    """A request that the user may see now; 403 for who may see it and does not hold the role."""
    row = get_object_or_404(bulk_requests_of(user), pk=pk)
    if role is not Role.READER and not bulk_requests_of(user, role).filter(pk=pk).exists():
        raise PermissionDenied
    return row


def asked_before(user: User, request_id: str) -> BulkRequest | Rollout | None:
    """What the user's form with this id made when it was sent for the first time."""
    try:
        pk = UUID(request_id)
    except ValueError:
        return None
    made: BulkRequest | Rollout | None = BulkRequest.objects.filter(pk=pk, requested_by=user).first()
    return made or Rollout.objects.filter(pk=pk, created_by=user).first()


def values_of_tag(vms: VirtualMachineQuerySet, name: str) -> set[str]:
    """The values that a tag has on these VMs, in small letters; names of tags are compared without case."""
    values = vms.annotate(tag_value=TagValue(name)).values_list("tag_value", flat=True).distinct()
    return {str(value).casefold() for value in values if value is not None}


def waiting_for_reboot(vms: VirtualMachineQuerySet) -> int:
    """How many of these VMs wait for a reboot."""
    return vms.filter(is_reboot_pending=True).count()


def load_bulk(
    user: User, pk: UUID, *, show: str, after: int, now: datetime, reason: tuple[str, str] | None = None
) -> BulkPage:
    """The request, its progress and the machines beyond `after`, all of machines that the user still may see.

    `reason`: the code and KB of the failures that are asked for. A fixed number of queries.
    """
    request = bulk_or_404(user, pk)
    everything = BulkOutcome.objects.filter(request=request)
    rows = seen_by(user, everything)
    show = show if show in SHOWN else SHOWN[0]
    tally = _tally(rows)
    shown = rows.filter(_shown(show), pk__gt=after)
    if reason is not None:
        show, shown = "failed", of_reason(rows.filter(_shown("failed")), code=reason[0], kb_number=reason[1])
        shown = shown.filter(pk__gt=after)
    page = list(with_kbs(shown).order_by("pk")[: PAGE_SIZE + 1])
    wait = start_wait(Operation.objects.filter(pk__in=rows.values("operation_id")), now=now) if tally.queued else None
    is_over = request.is_handed_out and not tally.parts[RunPart.RUNNING] + tally.parts[RunPart.WAITING]
    has_failed = tally.parts[RunPart.FAILED] > 0
    mine = seen_by(user, rows.filter(_shown("failed")), Role.OPERATOR)
    return BulkPage(
        request=request,
        plan=_plan_of(request),
        parts=tally.parts,
        refused=tally.refused,
        joined=tally.joined,
        cancelled=tally.cancelled,
        queued=tally.queued,
        answered=everything.count(),
        rows=tuple(row_of(outcome, now) for outcome in page[:PAGE_SIZE]),
        show=show,
        reason=reason,
        reasons=reasons_of(rows.filter(_shown("failed")), count=tally.parts[RunPart.FAILED], is_watched=not is_over),
        next_after=page[PAGE_SIZE - 1].pk if len(page) > PAGE_SIZE else None,
        may_cancel=bulk_requests_of(user, Role.OPERATOR).filter(pk=pk).exists(),
        retry=retry_of(request.kind, failed_pairs(mine), count=mine.count()) if has_failed and is_over else None,
        eta=expected_end(
            ended=tally.finished,
            left=tally.parts[RunPart.RUNNING] + tally.parts[RunPart.WAITING],
            since=request.created_at,
            wait=wait,
            now=now,
        ),
        start_wait=wait,
        chosen_by=VmFilter.of(user, filters).told if (filters := request.selection.get("filters")) else (),
        now=now,
    )


def _plan_of(request: BulkRequest) -> InstallationPlan | None:
    try:
        return plan_from_json(request.plan) if request.plan is not None else None
    except PlanError:
        return None


@dataclass(frozen=True, slots=True)
class _Tally:
    """How many outcomes are what. `finished`: operations that came to an end on their machine."""

    parts: Mapping[RunPart, int]
    refused: int
    joined: int
    cancelled: int
    queued: int

    @property
    def finished(self) -> int:
        return sum(self.parts[part] for part in ENDED_PARTS) - self.refused - self.cancelled


def _tally(rows: QuerySet[BulkOutcome]) -> _Tally:
    """What became of the machines of these outcomes (one query)."""
    groups = rows.order_by().values_list("verdict", "operation__state", "operation__verification")
    parts = dict.fromkeys(RunPart, 0)
    refused = joined = cancelled = queued = 0
    for verdict, state, verification, count in groups.annotate(count=Count("pk")):
        part = _part_of(verdict, state, verification)
        parts[part] += count
        refused += count if verdict == "refused" else 0
        joined += count if verdict == "joined" else 0
        cancelled += count if state == OperationState.CANCELLED and verdict != "refused" else 0
        queued += count if part is RunPart.WAITING else 0
    return _Tally(parts, refused, joined, cancelled, queued)


def _part_of(verdict: str, state: str | None, verification: str | None) -> RunPart:
    """A refused machine, and one whose operation is no longer kept, is skipped: nothing was or will be started on it."""
    if verdict == "refused" or state is None or state == OperationState.CANCELLED:
        return RunPart.SKIPPED
    known = OperationState(state)
    if known is OperationState.QUEUED:
        return RunPart.WAITING
    if known not in TERMINAL:
        return RunPart.RUNNING
    if known is OperationState.FAILED:
        return RunPart.FAILED
    if verification == Verification.CONTRADICTED:
        return RunPart.CONTRADICTED
    return RunPart.SUCCEEDED if known is OperationState.SUCCEEDED else RunPart.WITH_WARNINGS


def _shown(show: str) -> Q:
    terminal = [state.value for state in TERMINAL]
    ran = ~Q(verdict="refused")
    contradicted = Q(operation__verification=Verification.CONTRADICTED.value, operation__state__in=WELL_ENDED_STATES)
    return {
        "all": Q(),
        "refused": Q(verdict="refused"),
        "failed": Q(operation__state=OperationState.FAILED.value) & ran,
        "contradicted": contradicted & ran,
        "open": Q(operation__isnull=False) & ~Q(operation__state__in=terminal) & ran,
    }[show]
