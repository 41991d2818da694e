"""Reads of bulk requests: which VMs they mean, how far they are, and what became of each VM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db.models import Count, Q
from django.shortcuts import get_object_or_404

from patching.lifecycle import TERMINAL
from patching.terms import OperationKind, OperationState
from updates.models import BulkOutcome, BulkRequest
from updates.selectors.polling import poll_seconds
from vms.choices import Role
from vms.filters import VmFilter
from vms.models import VirtualMachine, VirtualMachineQuerySet

if TYPE_CHECKING:
    from django.contrib.auth.models import User

PAGE_SIZE = 50
MAX_COUNT = 1_000
SHOWN = ("all", "refused", "failed", "open")


def vms_of_selection(user: User | None, selection: Mapping[str, Any]) -> VirtualMachineQuerySet:
    """The VMs that a selection means and on which the user is Patch operator now."""
    if user is None:
        return VirtualMachine.objects.none()
    if "vm" in selection:
        return VirtualMachine.objects.visible_to(user, Role.OPERATOR).order_by().filter(pk__in=selection["vm"])
    return VmFilter.of(user, selection.get("filters", {}), Role.OPERATOR).found


def selected_vms(request: BulkRequest) -> VirtualMachineQuerySet:
    """The VMs that a request means, judged now."""
    return vms_of_selection(request.requested_by, request.selection)


def bounded_count(vms: VirtualMachineQuerySet) -> int:
    """How many there are, up to 1,001: beyond it nobody counts."""
    return vms.values("pk")[: MAX_COUNT + 1].count()


@dataclass(frozen=True, slots=True)
class BulkPage:
    """A bulk request with its progress and a page of its outcomes."""

    request: BulkRequest
    accepted: int
    joined: int
    refused: int
    states: Mapping[str, int]
    outcomes: tuple[BulkOutcome, ...]
    show: str
    next_after: int | None
    now: datetime

    @property
    def total(self) -> int:
        """How many VMs have their answer so far."""
        return self.accepted + self.joined + self.refused

    @property
    def ended(self) -> int:
        """How many of the operations have ended."""
        return sum(count for state, count in self.states.items() if OperationState(state) in TERMINAL)

    @property
    def open(self) -> int:
        """How many of the operations have not."""
        return sum(self.states.values()) - self.ended

    @property
    def failed(self) -> int:
        """How many failed."""
        return self.states.get(OperationState.FAILED.value, 0)

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left to do."""
        return self.request.is_handed_out and not self.open

    @property
    def can_cancel(self) -> bool:
        """Whether something of it is queued, or still to be handed out."""
        return not self.request.is_handed_out or OperationState.QUEUED.value in self.states

    @property
    def percent(self) -> int:
        """How much of what was handed out has ended, 0 to 100."""
        return 100 * self.ended // max(1, self.ended + self.open)

    @property
    def is_installation(self) -> bool:
        """Whether it installs."""
        return self.request.kind == OperationKind.INSTALLATION

    @property
    def poll_seconds(self) -> int:
        """How long the page waits before it looks again."""
        return max(2, poll_seconds(self.request.created_at, self.now))


def bulk_or_404(user: User, pk: UUID) -> BulkRequest:
    """A request of this user (superusers: of anybody)."""
    rows = BulkRequest.objects.select_related("requested_by")
    return get_object_or_404(rows if user.is_superuser else rows.filter(requested_by=user), pk=pk)


def load_bulk(user: User, pk: UUID, *, show: str, after: int, now: datetime) -> BulkPage:
    """The request, its progress (one query) and the outcomes beyond `after`, on VMs that the user still may see."""
    request = bulk_or_404(user, pk)
    rows = BulkOutcome.objects.filter(request=request)
    counts = list(rows.values_list("verdict", "operation__state").annotate(count=Count("pk")).order_by())
    verdicts = {name: sum(c for v, _s, c in counts if v == name) for name in ("accepted", "joined", "refused")}
    states: dict[str, int] = {}
    for _verdict, state, count in counts:
        if _verdict != "refused" and state:
            states[state] = states.get(state, 0) + count
    show = show if show in SHOWN else SHOWN[0]
    page = list(
        rows.filter(_shown(show), pk__gt=after, vm__in=VirtualMachine.objects.visible_to(user))
        .select_related("vm", "operation")
        .order_by("pk")[: PAGE_SIZE + 1]
    )
    more = len(page) > PAGE_SIZE
    return BulkPage(
        request=request,
        **verdicts,
        states=states,
        outcomes=tuple(page[:PAGE_SIZE]),
        show=show,
        next_after=page[PAGE_SIZE - 1].pk if more else None,
        now=now,
    )


def _shown(show: str) -> Q:
    terminal = [state.value for state in TERMINAL]
    return {
        "all": Q(),
        "refused": Q(verdict="refused"),
        "failed": Q(operation__state=OperationState.FAILED.value) & ~Q(verdict="refused"),
        "open": Q(operation__isnull=False) & ~Q(operation__state__in=terminal) & ~Q(verdict="refused"),
    }[show]
