"""What is under way on many machines at once: rollouts and bulk requests, each with where its machines are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Case, Count, F, OuterRef, Q, QuerySet, When
from django.db.models.functions import JSONObject

from patching.lifecycle import TERMINAL
from patching.terms import OperationState
from updates.models import BulkOutcome, BulkRequest, MemberState, Operation, Rollout, RolloutMember, RolloutState
from updates.selectors.bulk import bulk_requests_of
from updates.selectors.fleet_history_runs import MOST_COUNTED
from updates.selectors.rollouts import rollouts_of
from vms.models import Grants, VirtualMachine

if TYPE_CHECKING:
    from django.contrib.auth.models import User

MOST_SHOWN = 5
# Of the operations that are open so many are asked which request they answer; one with no other than these is found by no page.
MOST_ASKED = 1_000


@dataclass(frozen=True, slots=True)
class Running:
    """A rollout or a bulk request that is under way, and how many of its machines ended well, failed, and are being worked on.

    `is_counted` False: it means more machines than a page counts.
    """

    run: Rollout | BulkRequest
    well: int
    failed: int
    at_work: int
    total: int
    is_counted: bool = True

    @property
    def rollout(self) -> Rollout | None:
        """The rollout, if it is one."""
        return self.run if isinstance(self.run, Rollout) else None

    @property
    def ended(self) -> int:
        """How many of its machines have ended."""
        return self.well + self.failed


def running_rollouts(user: User, grants: Grants) -> tuple[Running, ...]:
    """The newest rollouts that are under way or paused, with the states of the machines that the user sees (one query)."""
    members = RolloutMember.objects.filter(rollout=OuterRef("pk")).order_by()
    if not grants.are_of_everything:
        members = members.filter(vm__in=VirtualMachine.objects.order_by().granted_by(grants).values("pk"))
    states = (
        members.values("status").annotate(count=Count("pk")).values_list(JSONObject(status="status", count="count"))
    )
    rows = rollouts_of(user, grants=grants).filter(status__in=_UNDER_WAY).annotate(states=ArraySubquery(states))
    return tuple(_rollout(row, {state["status"]: state["count"] for state in row.states}) for row in rows[:MOST_SHOWN])


_UNDER_WAY = (RolloutState.RUNNING.value, RolloutState.PAUSED.value)
_OPEN = (MemberState.WAITING.value, MemberState.STARTED.value, MemberState.CATCHING_UP.value)


def _rollout(row: Rollout, states: Mapping[str, int]) -> Running:
    total, failed = sum(states.values()), states.get(MemberState.FAILED.value, 0)
    ended = total - sum(states.get(state, 0) for state in _OPEN)
    return Running(row, ended - failed, failed, states.get(MemberState.STARTED.value, 0), total)


def running_requests(user: User, grants: Grants) -> tuple[Running, ...]:
    """The newest bulk requests that are not over, with the states of the operations on machines that the user sees (one query).

    Not over: machines wait to be asked, or an operation of it is open. These are found from the open operations, so that it does
    not matter how many requests there have been.
    """
    outcomes = BulkOutcome.objects.order_by().filter(request=OuterRef("pk"), operation__isnull=False)
    if not grants.are_of_everything:
        outcomes = outcomes.filter(vm__in=VirtualMachine.objects.order_by().granted_by(grants).values("pk"))
    counted = outcomes.values(state=F("operation__state")).annotate(count=Count("pk"))
    states = ArraySubquery(counted.values_list(JSONObject(state="state", count="count")))
    rows = bulk_requests_of(user, grants=grants).filter(Q(is_handed_out=False) | Q(pk__in=_requests_of_open()))
    found = rows.annotate(states=Case(When(vm_count__lte=MOST_COUNTED, then=states))).order_by("-created_at", "-pk")
    return tuple(_request(row) for row in found[:MOST_SHOWN])


def _requests_of_open() -> QuerySet[BulkOutcome, Any]:
    """The requests that open operations answer, so many of them as are asked."""
    # In flight are at most as many as the connections' caps let be; of what waits in the queue a part stands for the others.
    in_flight = Operation.objects.in_flight().filter(is_bulk=True).order_by().values("pk")[:MOST_ASKED]
    queued = (
        Operation.objects.filter(state=OperationState.QUEUED.value, is_bulk=True).order_by().values("pk")[:MOST_ASKED]
    )
    return BulkOutcome.objects.order_by().filter(operation__in=in_flight.union(queued, all=True)).values("request")


def _request(row: BulkRequest) -> Running:
    raw = getattr(row, "states", None)
    if raw is None:
        return Running(row, 0, 0, 0, row.vm_count, is_counted=False)
    states = {OperationState(each["state"]): each["count"] for each in raw}
    ended = sum(count for state, count in states.items() if state in TERMINAL)
    failed = states.get(OperationState.FAILED, 0)
    at_work = sum(states.values()) - ended - states.get(OperationState.QUEUED, 0)
    return Running(row, ended - failed, failed, at_work, row.vm_count)
