"""The history of the fleet: operations of the machines that a reader may see, narrowed, counted and grouped by reason.

Assessments are left out unless they are asked for: they are most of all operations. What is shown is read newest first out of
partial indexes, a branch for each kind or for a result, so that a page costs the same with a million machines; filters
together, and machines that a reader was granted one by one, are looked for within the time-out of the list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib.postgres.expressions import ArraySubquery
from django.core.exceptions import EmptyResultSet
from django.db.models import Exists, F, FilteredRelation, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce, JSONObject, NullIf
from django.utils.http import urlencode

from db.arrays import array
from db.bounded import fetch_bounded
from db.paging import Order, page_of
from patching.terms import InstallationState, OperationKind, OperationState, Verification
from updates.models import WELL_ENDED_STATES, BulkRequest, Operation, PatchResult, Rollout
from updates.selectors.runs import Retry, retry_of
from vms.choices import Role
from vms.models import Grants, ResourceGroup, VirtualMachine
from vms.selectors import MAX_COUNT, ListTooSlowError
from vms.tags import HasTag

if TYPE_CHECKING:
    from django.contrib.auth.models import User

NEWEST_FIRST = Order.of(Operation, "newest", "-created_at", "-id")
MOST_GROUPS = 20
MOST_TOLD = 3  # updates that failed, in one row
EVERY_KIND = "all"
NO_KB = "none"  # a reason that was said of no KB: of the run itself, or of an update without a KB
_ACTS = tuple(kind.value for kind in OperationKind if kind is not OperationKind.ASSESSMENT)
# What a run did with an update that it worked on; what a plan leaves out is none of it.
_WORKED_ON = (InstallationState.INSTALLED.value, InstallationState.FAILED.value, InstallationState.PENDING.value)


class Result(StrEnum):
    """What came of an operation: each has just one."""

    SUCCEEDED = "succeeded"
    WITH_WARNINGS = "completed_with_warnings"
    FAILED = "failed"
    CONTRADICTED = "contradicted"  # it reported success, and a later look found otherwise
    CANCELLED = "cancelled"
    NOT_ENDED = "not_ended"


class StartedBy(StrEnum):
    """Who asked for an operation."""

    ME = "me"
    PEOPLE = "people"
    PORTAL = "portal"


@dataclass(frozen=True, slots=True)
class HistoryAsked:
    """What of the history is asked for; what is empty narrows nothing.

    `kind`: empty for all but assessments. `reason`: a code, in any case of letters. `kb_number`: digits, or `NO_KB`. With both,
    the operations in which that KB failed for that reason.
    """

    days: int = 7
    kind: str = ""
    result: str = ""
    reason: str = ""
    kb_number: str = ""
    started_by: str = ""
    connection: int | None = None
    subscription: int | None = None
    resource_group: str = ""
    product_line: str = ""
    tag: str = ""  # a tag's name, or name=value

    @property
    def address(self) -> str:
        """It as the query of an address."""
        said: dict[str, str | int | None] = {
            "period": self.days,
            "kind": self.kind,
            "result": self.result,
            "reason": self.reason,
            "kb": self.kb_number,
            "by": self.started_by,
            "connection": self.connection,
            "subscription": self.subscription,
            "resource_group": self.resource_group,
            "product_line": self.product_line,
            "tag": self.tag,
        }
        return urlencode({name: str(value) for name, value in said.items() if value})

    @property
    def is_narrow(self) -> bool:
        """Whether more than the period narrows it."""
        return self != HistoryAsked(days=self.days)


@dataclass(frozen=True, slots=True)
class HistoryTile:
    """How many operations had a result (None: all), up to one more than is told, and the address of just those."""

    result: Result | None
    count: int
    address: str
    is_current: bool


@dataclass(frozen=True, slots=True)
class ReasonGroup:
    """Operations that failed for one reason: its code, the KB (empty: none), how many, their address, and the newest one."""

    code: str
    kb_number: str
    count: int
    address: str
    newest: UUID


@dataclass(frozen=True, slots=True)
class FailedUpdate:
    """An update that failed in a run, and the code that its machine gave for it."""

    kb_number: str
    title: str
    code: str


@dataclass(frozen=True, slots=True)
class PartOf:
    """The rollout, or the request for many machines, that an operation belongs to."""

    pk: UUID
    name: str  # of a rollout that a person named
    source: str  # of a rollout: empty, it is a request for many machines
    machines: int


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """An operation with what its row tells."""

    operation: Operation
    failed: tuple[FailedUpdate, ...]
    part_of: PartOf | None


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """One page of the history. `tiles` and `groups` are None where counting them took too long."""

    asked: HistoryAsked
    rows: tuple[HistoryRow, ...]
    previous: str
    next: str
    tiles: tuple[HistoryTile, ...] | None
    groups: tuple[ReasonGroup, ...] | None
    has_more_groups: bool
    retry: Retry | None  # of the installations of this page that failed for the reason that is asked for


TILES = (None, Result.SUCCEEDED, Result.WITH_WARNINGS, Result.FAILED, Result.CONTRADICTED)


def load_history(user: User, asked: HistoryAsked, *, now: datetime, cursor: str = "") -> HistoryPage:
    """A page of the operations that the user may see and asks for, in a fixed number of queries.

    Raises `ListTooSlowError` where the filters together find too little too far back.
    """
    grants = Grants.last_read(user)
    search = Search(user, grants, asked, now)
    page = page_of(listed(user, grants), order=NEWEST_FIRST, cursor=cursor, among=search.branches(asked))
    tiles: tuple[HistoryTile, ...] | None = None
    groups: list[ReasonGroup] | None = None
    try:
        tiles = _tiles(search)
        groups = failure_groups(search)
    except ListTooSlowError:
        pass
    return HistoryPage(
        asked=asked,
        rows=tuple(row_of(operation) for operation in page.rows),
        previous=page.previous,
        next=page.next,
        tiles=tiles,
        groups=None if groups is None else tuple(groups[:MOST_GROUPS]),
        has_more_groups=groups is not None and len(groups) > MOST_GROUPS,
        retry=_retry(user, page.rows) if asked.reason else None,
    )


def _retry(user: User, operations: Sequence[Operation]) -> Retry | None:
    """What of these the reader may ask for again: installations that failed, on machines of which he is Patch operator (one query)."""
    failed = {
        operation.vm_id: operation.pk
        for operation in reversed(operations)  # of a machine the newest counts
        if operation.kind == OperationKind.INSTALLATION and operation.state == OperationState.FAILED
    }
    mine = VirtualMachine.objects.visible_to(user, Role.OPERATOR).filter(pk__any=array(failed)).order_by("pk")
    pairs = [(failed[vm_id], vm_id) for vm_id in mine.values_list("pk", flat=True)] if failed else []
    return retry_of(OperationKind.INSTALLATION.value, pairs, count=len(pairs))


# --- which operations ---------------------------------------------------------------------------------------------


class Search:
    """The operations that one reader may see in one period and place, to be narrowed and counted. Up to two queries at once."""

    def __init__(self, user: User, grants: Grants, asked: HistoryAsked, now: datetime) -> None:
        self.asked = asked
        self._user = user
        self._since = now - timedelta(days=asked.days)
        self._vms = _vms_of(grants, asked)

    def branches(self, asked: HistoryAsked) -> list[QuerySet[Operation]]:
        """What is asked for, in parts that do not overlap and each have an index, in the order of the history."""
        rows = self._narrowed(asked)
        if asked.result:
            return [part.filter(_HAS_RESULT[Result(asked.result)]) for part in self._by_use(rows, asked)]
        return [rows.filter(_IS_ACT, kind=kind) for kind in self._acts(asked)] + self._assessments(rows, asked)

    def _by_use(self, rows: QuerySet[Operation], asked: HistoryAsked) -> list[QuerySet[Operation]]:
        """Those that do something, if they are asked for, and the assessments, if they are."""
        acts = self._acts(asked)
        chosen = rows.filter(_IS_ACT) if len(acts) > 1 else rows.filter(_IS_ACT, kind__in=acts)
        return ([chosen] if acts else []) + self._assessments(rows, asked)

    @staticmethod
    def _acts(asked: HistoryAsked) -> tuple[str, ...]:
        return _ACTS if asked.kind in {"", EVERY_KIND} else tuple(kind for kind in _ACTS if kind == asked.kind)

    @staticmethod
    def _assessments(rows: QuerySet[Operation], asked: HistoryAsked) -> list[QuerySet[Operation]]:
        is_asked = asked.kind in {EVERY_KIND, OperationKind.ASSESSMENT}
        return [rows.filter(kind=OperationKind.ASSESSMENT.value)] if is_asked else []

    def _narrowed(self, asked: HistoryAsked) -> QuerySet[Operation]:
        rows: QuerySet[Operation] = Operation.objects.order_by().filter(created_at__gte=self._since)
        if self._vms is not None:
            rows = rows.filter(vm__in=self._vms.values("pk"))
        if asked.connection is not None:
            rows = rows.filter(connection=asked.connection)
        if asked.started_by == StartedBy.ME:
            rows = rows.filter(requested_by=self._user)
        elif asked.started_by:
            rows = rows.filter(requested_by__isnull=asked.started_by == StartedBy.PORTAL)
        return rows.filter(_told(asked.reason, asked.kb_number))


def _vms_of(grants: Grants, asked: HistoryAsked) -> QuerySet[VirtualMachine] | None:
    """The machines that may be seen in the place that is asked for; None: all."""
    wanted = Q()
    if asked.subscription is not None:
        wanted &= Q(subscription=asked.subscription)
    if asked.resource_group:
        wanted &= Q(name__iexact=asked.resource_group)
    if not (wanted or asked.product_line or asked.tag) and grants.are_of_everything:
        return None
    vms = VirtualMachine.objects.order_by().granted_by(grants)
    if asked.product_line:
        vms = vms.filter(product_line=asked.product_line)
    if asked.tag:
        name, _sign, value = asked.tag.partition("=")
        vms = vms.filter(HasTag(name.strip(), value.strip()))
    if not wanted:
        return vms
    # The ids are read first: with them PostgreSQL knows how few machines it looks for.
    groups = ResourceGroup.objects.filter(wanted).order_by("pk").values_list("pk", flat=True)
    return vms.filter(resource_group__any=array(groups))


_IS_ACT = ~Q(kind=OperationKind.ASSESSMENT.value)
_IS_CONTRADICTED = Q(verification=Verification.CONTRADICTED.value)
_HAS_RESULT = {
    Result.SUCCEEDED: Q(state=OperationState.SUCCEEDED.value, finished_at__isnull=False) & ~_IS_CONTRADICTED,
    Result.WITH_WARNINGS: Q(state=OperationState.COMPLETED_WITH_WARNINGS.value, finished_at__isnull=False)
    & ~_IS_CONTRADICTED,
    Result.FAILED: Q(state=OperationState.FAILED.value, finished_at__isnull=False),
    Result.CONTRADICTED: Q(state__in=WELL_ENDED_STATES) & _IS_CONTRADICTED,
    Result.CANCELLED: Q(state=OperationState.CANCELLED.value, finished_at__isnull=False),
    Result.NOT_ENDED: Q(next_step_at__isnull=False),
}


def _told(code: str, kb_number: str) -> Q:
    """The operations that tell this code (empty: any) of this KB (empty: any, and of the run)."""
    results = PatchResult.objects.filter(operation=OuterRef("pk"))
    failed = results.filter(state=InstallationState.FAILED.value)
    if not code:
        of_kb = results.filter(state__in=_WORKED_ON)
        if kb_number == NO_KB:
            return ~Q(Exists(of_kb.exclude(patch__kb_number="")))
        return Q(Exists(of_kb.filter(patch__kb_number=kb_number))) if kb_number else Q()
    if not kb_number:
        return Q(error_code__iexact=code) | Q(Exists(failed.filter(error_code__iexact=code)))
    # An update that failed without a code of its own failed for that of its run.
    same = Q(error_code__iexact=code) | Q(error_code="", operation__error_code__iexact=code)
    if kb_number == NO_KB:
        of_run = Q(error_code__iexact=code) & ~Q(Exists(failed))
        return of_run | Q(Exists(failed.filter(same, patch__kb_number="")))
    return Q(Exists(failed.filter(same, patch__kb_number=kb_number)))


# --- numbers ------------------------------------------------------------------------------------------------------


def _compiled(parts: Sequence[QuerySet[Any, Any]]) -> tuple[list[str], list[Any]]:
    """The statements of these parts, without those that are known to be empty, and their parameters."""
    statements: list[str] = []
    parameters: list[Any] = []
    for part in parts:
        try:
            sql, own = part.query.sql_with_params()
        except EmptyResultSet:
            continue
        statements.append(f"({sql})")
        parameters += own
    return statements, parameters


def _tiles(search: Search) -> tuple[HistoryTile, ...]:
    """How many there are of each result, whatever result is shown; each is counted up to one more than is told (one query)."""
    asked = search.asked
    meant = [replace(asked, result=result.value if result else "") for result in TILES]
    counts: list[str] = []
    parameters: list[Any] = []
    for each in meant:
        heads, own = _compiled([part.values("pk")[: MAX_COUNT + 1] for part in search.branches(each)])
        counts.append(f"(SELECT count(*) FROM ({' UNION ALL '.join(heads)}) found)" if heads else "0")  # noqa: S608 (the ORM's)
        parameters += own
    (numbers,) = fetch_bounded(f"SELECT {', '.join(counts)}", parameters)
    return tuple(
        HistoryTile(result, int(count), each.address, is_current=each.result == asked.result)
        for result, each, count in zip(TILES, meant, numbers, strict=True)
    )


_BY_REASON = """
SELECT min(code), kb, count(DISTINCT id), (array_agg(id ORDER BY created_at DESC, id DESC))[1]
FROM ({runs}) told(id, created_at, code, kb)
{narrowed}
GROUP BY upper(code), kb ORDER BY 3 DESC, 1, 2 LIMIT {most}
"""


def failure_groups(search: Search) -> list[ReasonGroup]:
    """Why operations failed, the most frequent reason first; one more than is shown (one query, none where none is asked for)."""
    asked = search.asked
    if asked.result not in {"", Result.FAILED}:
        return []
    base = replace(asked, result=Result.FAILED.value, reason="", kb_number="")
    runs, parameters = _compiled([_by_reason(part) for part in search.branches(base)])
    if not runs:
        return []
    narrowed: list[str] = []
    if asked.reason:
        narrowed.append("upper(code) = upper(%s)")
        parameters.append(asked.reason)
    if asked.kb_number:
        narrowed.append("kb = %s")
        parameters.append("" if asked.kb_number == NO_KB else asked.kb_number)
    sql = _BY_REASON.format(
        runs=" UNION ALL ".join(runs),
        narrowed=f"WHERE {' AND '.join(narrowed)}" if narrowed else "",
        most=MOST_GROUPS + 1,
    )
    return [
        ReasonGroup(code, kb, count, replace(base, reason=code, kb_number=kb or NO_KB).address, newest)
        for code, kb, count, newest in fetch_bounded(sql, parameters)
    ]


def _by_reason(runs: QuerySet[Operation]) -> QuerySet[Operation, Any]:
    """Each run with the code and KB of each update that failed in it, else with the code of the run."""
    told = runs.annotate(
        told=FilteredRelation("results", condition=Q(results__state=InstallationState.FAILED.value)),
        code=Coalesce(NullIf(F("told__error_code"), Value("")), F("error_code")),
        kb=Coalesce(F("told__patch__kb_number"), Value("")),
    )
    return told.exclude(code="").values_list("pk", "created_at", "code", "kb")


# --- rows ---------------------------------------------------------------------------------------------------------


def listed(user: User, grants: Grants) -> QuerySet[Operation]:
    """Operations with what their rows tell; which of them, is somebody else's to say.

    Who sees an operation sees one of the machines of its rollout or request, and so may see that if he made it.
    """
    rollouts = Rollout.objects.filter(members__operation=OuterRef("pk")).order_by("created_at")
    requests = BulkRequest.objects.filter(outcomes__operation=OuterRef("pk")).order_by("created_at")
    if not grants.at_least(Role.OWNER).are_of_everything:
        rollouts, requests = rollouts.filter(created_by=user), requests.filter(requested_by=user)
    failed = PatchResult.objects.filter(operation=OuterRef("pk"), state=InstallationState.FAILED.value).order_by("pk")
    of_rollout = JSONObject(pk="pk", name="name", source="source", machines="vm_count")
    of_request = JSONObject(pk="pk", name=Value(""), source=Value(""), machines="vm_count")
    told = JSONObject(kb_number="patch__kb_number", title="patch__title", code="error_code")
    return Operation.objects.select_related("vm__resource_group__subscription", "requested_by").annotate(
        of_rollout=Subquery(rollouts.values_list(of_rollout)[:1]),
        of_request=Subquery(requests.values_list(of_request)[:1]),
        failed_updates=ArraySubquery(failed.values_list(told)[:MOST_TOLD]),
    )


def row_of(operation: Any) -> HistoryRow:
    """A row of an operation that was read with `listed`."""
    found: Mapping[str, Any] | None = operation.of_rollout or operation.of_request
    return HistoryRow(
        operation=operation,
        failed=tuple(FailedUpdate(**told) for told in operation.failed_updates),
        part_of=PartOf(UUID(found["pk"]), found["name"], found["source"], found["machines"]) if found else None,
    )
