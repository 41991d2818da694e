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
from patching.terms import OperationKind, OperationState
from updates.models import BulkBlock, BulkOutcome, BulkRequest, Operation, Rollout
from updates.selectors.polling import poll_seconds
from updates.selectors.waits import StartWait, start_wait
from vms.choices import Role
from vms.filters import VmFilter
from vms.models import Grants, VirtualMachine, VirtualMachineQuerySet
from vms.tags import TagValue

if TYPE_CHECKING:
    from django.contrib.auth.models import User

PAGE_SIZE = 50
SHOWN = ("all", "refused", "failed", "open")


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
    may_cancel: bool
    start_wait: StartWait | None  # what budgets still make the last of what is queued wait
    chosen_by: Sequence[tuple[str, str]]  # the filters it was chosen by, in the words of the list
    now: datetime

    @property
    def total(self) -> int:
        """How many VMs have their answer so far."""
        return self.accepted + self.joined + self.refused

    @property
    def not_asked(self) -> int:
        """How many VMs have no answer: those whose turn has not come, or will not."""
        return max(0, self.request.vm_count - self.total - self.request.removed_count)

    @property
    def is_rollback(self) -> bool:
        """Whether it takes machines back."""
        return self.request.kind == OperationKind.ROLLBACK

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
        """Whether operations are queued or machines not yet asked, and the reader may cancel them."""
        if not self.may_cancel:
            return False
        return not self.request.is_handed_out or OperationState.QUEUED.value in self.states

    @property
    def percent(self) -> int:
        """How much of what was handed out has ended, 0 to 100; where nothing is left to do, all."""
        if self.is_over:
            return 100
        return 100 * self.ended // max(1, self.ended + self.open)

    @property
    def is_installation(self) -> bool:
        """Whether it installs."""
        return self.request.kind == OperationKind.INSTALLATION

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
        may_cancel=bulk_requests_of(user, Role.OPERATOR).filter(pk=pk).exists(),
        start_wait=(
            start_wait(Operation.objects.filter(pk__in=rows.values("operation_id")), now=now)
            if OperationState.QUEUED.value in states
            else None
        ),
        chosen_by=VmFilter.of(user, filters).told if (filters := request.selection.get("filters")) else (),
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
