"""What was done to many machines at once: rollouts and bulk requests in one list, newest first, each for who may see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.core.exceptions import EmptyResultSet
from django.db.models import BooleanField, Count, F, Model, Q, QuerySet, Value

from db.bounded import ListTooSlowError, fetch_bounded
from db.paging import PAGE_SIZE, Cursor, Order, beyond, cut
from patching.terms import OperationState
from updates.models import WELL_ENDED_STATES, BulkOutcome, BulkRequest, MemberState, Rollout, RolloutMember
from updates.selectors.bulk import bulk_requests_of
from updates.selectors.fleet_history import HistoryAsked, StartedBy
from updates.selectors.rollouts import rollouts_of
from vms.models import Grants, VirtualMachine

if TYPE_CHECKING:
    from django.contrib.auth.models import User

# Both tables have these columns, and of the same kinds.
NEWEST_FIRST = Order.of(Rollout, "newest", "-created_at", "-id")
# The results of a run on more machines are counted on its own page.
MOST_COUNTED = 5_000


@dataclass(frozen=True, slots=True)
class Counted:
    """How many of the machines that the reader sees succeeded, and failed."""

    succeeded: int
    failed: int


@dataclass(frozen=True, slots=True)
class RunOfMany:
    """A rollout or a bulk request; just one of the two is there. `counted` None: too many machines, or it took too long."""

    id: UUID
    created_at: datetime
    rollout: Rollout | None
    bulk: BulkRequest | None
    counted: Counted | None

    @property
    def run(self) -> Rollout | BulkRequest:
        """Whichever it is."""
        found = self.rollout or self.bulk
        assert found is not None
        return found

    @property
    def failed_address(self) -> str:
        """The page of its machines that failed."""
        return f"{self.run.get_absolute_url()}?{'state' if self.rollout else 'show'}={MemberState.FAILED.value}"


@dataclass(frozen=True, slots=True)
class RunsPage:
    """One page of the runs on many machines."""

    asked: HistoryAsked
    rows: tuple[RunOfMany, ...]
    previous: str
    next: str


def load_runs_of_many(user: User, asked: HistoryAsked, *, now: datetime, cursor: str = "") -> RunsPage:
    """A page of the rollouts and bulk requests that the user may see, of a period, a kind and who started them.

    Of the other filters it knows nothing. A fixed number of queries; raises `ListTooSlowError`.
    """
    grants = Grants.last_read(user)
    since = Q(created_at__gte=now - timedelta(days=asked.days))
    if asked.kind:
        since &= Q(kind=asked.kind)
    rollouts = rollouts_of(user, grants=grants).filter(since, _started_by("created_by", user, asked))
    requests = bulk_requests_of(user).filter(since, _started_by("requested_by", user, asked))
    place = Cursor.parse(cursor, NEWEST_FIRST)
    keys = _keys_beyond(rollouts, requests, place)
    page = cut(_runs(keys, rollouts, requests), order=NEWEST_FIRST, place=place, size=PAGE_SIZE)
    counted = _count(page.rows, grants)
    rows = (RunOfMany(row.id, row.created_at, row.rollout, row.bulk, counted.get(row.id)) for row in page.rows)
    return RunsPage(asked, tuple(rows), page.previous, page.next)


def _started_by(who: str, user: User, asked: HistoryAsked) -> Q:
    if asked.started_by == StartedBy.ME:
        return Q(**{who: user})
    return Q(**{f"{who}__isnull": asked.started_by == StartedBy.PORTAL}) if asked.started_by else Q()


Key = tuple[datetime, UUID, bool]


def _keys_beyond(rollouts: QuerySet[Rollout], requests: QuerySet[BulkRequest], place: Cursor | None) -> list[Key]:
    """When and which, and whether it is a rollout: the next of both tables, one more than a page."""
    columns = NEWEST_FIRST.towards(place)
    heads = [_head(rollouts, place, is_rollout=True), _head(requests, place, is_rollout=False)]
    merged = ["-key_at" if columns[0].startswith("-") else "key_at", "-key_id" if columns[1][0] == "-" else "key_id"]
    query = heads[0].union(heads[1], all=True).order_by(*merged)[: PAGE_SIZE + 1]
    try:
        return [(at, pk, is_rollout) for at, pk, is_rollout in fetch_bounded(*query.query.sql_with_params())]
    except EmptyResultSet:
        return []


def _head(rows: QuerySet[Any, Any], place: Cursor | None, *, is_rollout: bool) -> QuerySet[Any, Any]:
    found = beyond(rows.select_related(None), order=NEWEST_FIRST, place=place, limit=PAGE_SIZE + 1)
    kind = Value(is_rollout, output_field=BooleanField())
    named = found.annotate(key_at=F("created_at"), key_id=F("id"), key_kind=kind)
    head: QuerySet[Any, Any] = named.values_list("key_at", "key_id", "key_kind")[: PAGE_SIZE + 1]
    return head


def _runs(keys: Sequence[Key], rollouts: QuerySet[Rollout], requests: QuerySet[BulkRequest]) -> list[RunOfMany]:
    """The rows of these keys, in their order (two queries)."""
    of_rollouts = _by_pk(rollouts, [pk for _at, pk, is_rollout in keys if is_rollout])
    of_requests = _by_pk(requests, [pk for _at, pk, is_rollout in keys if not is_rollout])
    runs = [RunOfMany(pk, at, of_rollouts.get(pk), of_requests.get(pk), None) for at, pk, _is_rollout in keys]
    return [run for run in runs if run.rollout or run.bulk]


def _by_pk(rows: QuerySet[Any, Any], keys: Sequence[UUID]) -> dict[UUID, Any]:
    return {row.pk: row for row in rows.filter(pk__in=keys)}


def _count(runs: Sequence[RunOfMany], grants: Grants) -> dict[UUID, Counted]:
    """The results of these runs, but of large ones (one query); nothing where that takes too long."""
    small = [run for run in runs if run.run.vm_count <= MOST_COUNTED]
    if not small:
        return {}
    members = RolloutMember.objects.filter(rollout__in=[run.id for run in small if run.rollout])
    outcomes = BulkOutcome.objects.filter(request__in=[run.id for run in small if run.bulk]).exclude(verdict="refused")
    if not grants.are_of_everything:
        mine = VirtualMachine.objects.order_by().granted_by(grants).values("pk")
        members, outcomes = members.filter(vm__in=mine), outcomes.filter(vm__in=mine)
    parts = [
        _counts(members, "rollout_id", Q(status=MemberState.SUCCEEDED.value), Q(status=MemberState.FAILED.value)),
        _counts(
            outcomes,
            "request_id",
            Q(operation__state__in=WELL_ENDED_STATES),
            Q(operation__state=OperationState.FAILED.value),
        ),
    ]
    found = {run.id: Counted(0, 0) for run in small}
    try:
        for part in parts:
            found |= {pk: Counted(*numbers) for pk, *numbers in _fetch(part)}
    except ListTooSlowError:
        return {}
    return found


def _counts(rows: QuerySet[Any, Any], of: str, succeeded: Q, failed: Q) -> QuerySet[Any, Any]:
    grouped = rows.order_by().values(of)
    counts = grouped.annotate(succeeded=Count("pk", filter=succeeded), failed=Count("pk", filter=failed))
    found: QuerySet[Any, Any] = counts.values_list(of, "succeeded", "failed")
    return found


def _fetch(rows: QuerySet[Model, Any]) -> list[tuple[Any, ...]]:
    try:
        return fetch_bounded(*rows.query.sql_with_params())
    except EmptyResultSet:
        return []
