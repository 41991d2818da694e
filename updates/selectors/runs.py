"""What the pages of bulk requests and rollouts have in common: parts of the whole, reasons of failures, what to retry, the end in sight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Count, F, FilteredRelation, Model, OuterRef, Q, QuerySet, Value
from django.db.models.functions import Coalesce, NullIf
from django.urls import reverse

from patching.codes import MOST_CHARACTERS
from patching.terms import InstallationState, OperationKind
from updates.choices import RunPart
from updates.models import Operation, PatchResult
from updates.selectors.waits import StartWait
from vms.choices import Role
from vms.models import Grants, VirtualMachine

if TYPE_CHECKING:
    from django.contrib.auth.models import User

MOST_RETRIED = 1_000  # machines of one form, as everywhere
MOST_REASONS = 10
# Of more failures the reasons are counted once the run is over or paused, not at every look at a page that is watched.
MOST_COUNTED_LIVE = 5_000


ENDED_PARTS = frozenset(
    {RunPart.SUCCEEDED, RunPart.WITH_WARNINGS, RunPart.CONTRADICTED, RunPart.FAILED, RunPart.SKIPPED}
)


@dataclass(frozen=True, slots=True)
class RunReason:
    """Machines of a run that failed for one reason: its code, the KB (empty: none), how many."""

    code: str
    kb_number: str
    count: int


@dataclass(frozen=True, slots=True)
class MachineRow:
    """A machine of a run: its operation, where there is one, what that installed, how long it took, and why it ended so.

    `entry`: the outcome of a bulk request, or the member of a rollout.
    """

    entry: Any
    vm: VirtualMachine
    operation: Operation | None
    kb_numbers: tuple[str, ...]
    code: str
    now: datetime

    @property
    def took(self) -> timedelta | None:
        """How long it has run, or ran."""
        if self.operation is None or self.operation.started_at is None:
            return None
        return (self.operation.finished_at or self.now) - self.operation.started_at


@dataclass(frozen=True, slots=True)
class Retry:
    """A form that asks for the same once more on machines that failed. `count`: them; `left_out`: how many more one form takes not."""

    address: str
    fields: tuple[tuple[str, str], ...]
    count: int
    left_out: int


@dataclass(frozen=True, slots=True)
class Eta:
    """When the last machine is expected to have ended."""

    at: datetime
    seconds: float


def seen_by(user: User, rows: QuerySet[Any, Any], role: Role = Role.READER) -> QuerySet[Any, Any]:
    """Those of these outcomes or members whose machines the user may see now, or with a stronger role act on."""
    grants = Grants.last_read(user)
    if grants.at_least(role).are_of_everything:
        return rows
    mine: QuerySet[Any, Any] = rows.filter(
        vm__in=VirtualMachine.objects.order_by().granted_by(grants, role).values("pk")
    )
    return mine


def with_kbs(rows: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
    """Outcomes or members with the KBs that their operations installed."""
    results = PatchResult.objects.filter(
        operation=OuterRef("operation_id"), state=InstallationState.INSTALLED.value
    ).exclude(patch__kb_number="")
    kbs = results.order_by("patch__kb_number").values("patch__kb_number")
    found: QuerySet[Any, Any] = rows.select_related("vm", "operation").annotate(installed_kbs=ArraySubquery(kbs))
    return found


def row_of(entry: Any, now: datetime) -> MachineRow:
    """A machine of an outcome or member that was read `with_kbs`."""
    operation = entry.operation
    code = entry.code or (operation.error_code if operation is not None else "")
    return MachineRow(entry, entry.vm, operation, tuple(entry.installed_kbs), code, now)


def told(rows: QuerySet[Any, Any]) -> QuerySet[Any, Any]:
    """Outcomes or members that failed, once for each update that did, with its code and KB; else with the code of the run."""
    failed = Q(operation__results__state=InstallationState.FAILED.value)
    found: QuerySet[Any, Any] = rows.order_by().annotate(
        failed_update=FilteredRelation("operation__results", condition=failed),
        why=Coalesce(
            NullIf(F("failed_update__error_code"), Value("")),
            NullIf(F("operation__error_code"), Value("")),
            F("code"),
        ),
        of_kb=Coalesce(F("failed_update__patch__kb_number"), Value("")),
    )
    return found


def asked_reason(asked: Mapping[str, str]) -> tuple[str, str] | None:
    """The code and the KB that an address asks for; None: none."""
    code = asked.get("reason", "")[:MOST_CHARACTERS]
    return (code, asked.get("kb", "")[:10]) if code else None


def reasons_of(rows: QuerySet[Any, Any], *, count: int, is_watched: bool) -> tuple[RunReason, ...]:
    """Why these outcomes or members, so many of them, failed, the most frequent reason first (one query, or none)."""
    if not count or (is_watched and count > MOST_COUNTED_LIVE):
        return ()
    groups = told(rows).exclude(why="").values_list("why", "of_kb").annotate(machines=Count("pk", distinct=True))
    ordered = groups.order_by("-machines", "why", "of_kb")[:MOST_REASONS]
    return tuple(RunReason(code, kb, count) for code, kb, count in ordered)


def of_reason(rows: QuerySet[Any, Any], *, code: str, kb_number: str) -> QuerySet[Any, Any]:
    """Those of these outcomes or members that failed for this reason."""
    meant = told(rows).filter(why=code, of_kb=kb_number).values("pk")
    found: QuerySet[Any, Any] = rows.filter(pk__in=meant)
    return found


def retry_of(kind: str, pairs: Sequence[tuple[UUID, int]], *, count: int) -> Retry | None:
    """The form that retries these operations (with their machines); None where there are none, or no page takes them.

    `pairs`: at most `MOST_RETRIED`; `count`: how many there are in all.
    """
    if not pairs:
        return None
    fields: tuple[tuple[str, str], ...] = tuple(("operation", str(pk)) for pk, _vm in pairs)
    address = reverse("updates:bulk-retry")
    if kind != OperationKind.INSTALLATION:
        fields = (("kind", kind), *(("vm", str(vm)) for _pk, vm in pairs))
        address = reverse("updates:bulk-create")
    return Retry(address, fields, len(pairs), max(0, count - len(pairs)))


def failed_pairs(rows: QuerySet[Model, Any]) -> list[tuple[UUID, int]]:
    """The operations of these outcomes or members with their machines, as many as one form takes."""
    return list(rows.order_by("pk").values_list("operation_id", "vm_id")[:MOST_RETRIED])


def expected_end(*, ended: int, left: int, since: datetime | None, wait: StartWait | None, now: datetime) -> Eta | None:
    """When the rest will have ended: by the pace of what has, and not before the budgets start the last; None: nobody knows.

    `since`: when the first of them began.
    """
    if not left:
        return None
    by_pace = left * (now - since).total_seconds() / ended if ended and since is not None and since < now else 0.0
    seconds = max(by_pace, wait.seconds if wait is not None else 0.0)
    return Eta(now + timedelta(seconds=seconds), seconds) if seconds >= 1 else None
