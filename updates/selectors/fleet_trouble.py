"""What went wrong with machines within a week: failed runs by their reasons, and runs that a later look contradicted.

Assessments are left out: they only look, and are made again by themselves. Read through a partial index of such runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, F, FilteredRelation, Q, QuerySet, Value
from django.db.models.functions import Coalesce, NullIf
from django.utils import timezone

from patching.terms import InstallationState, OperationKind, OperationState, Verification
from updates.models import Operation
from vms.models import VirtualMachineQuerySet

TOLD_FOR = timedelta(days=7)
FAILED, CONTRADICTED = "failed", "contradicted"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why runs failed: the code, the KB that it was said of (empty: of the run), and on how many machines."""

    code: str
    kb_number: str
    machines: int

    @property
    def trouble(self) -> str:
        """It as the list's filter takes it."""
        return f"{FAILED}:{self.kb_number}:{self.code}"


@dataclass(frozen=True, slots=True)
class Trouble:
    """How many machines had a run that failed, and one that was contradicted; the reasons, the most frequent first."""

    failed: int
    contradicted: int
    reasons: tuple[Reason, ...]


def _lately(now: datetime) -> QuerySet[Operation]:
    """The runs that ended within a week and failed or were contradicted."""
    return (
        Operation.objects.filter(Q(state=OperationState.FAILED.value) | Q(verification=Verification.CONTRADICTED.value))
        .filter(~Q(kind=OperationKind.ASSESSMENT.value), finished_at__gt=now - TOLD_FOR)
        .order_by()
    )


def _by_reason(runs: QuerySet[Operation]) -> QuerySet[Operation]:
    """Failed runs with the code and KB of each update that failed in them, else with the code of the run."""
    return runs.filter(state=OperationState.FAILED.value).annotate(
        told=FilteredRelation("results", condition=Q(results__state=InstallationState.FAILED.value)),
        code=Coalesce(NullIf(F("told__error_code"), Value("")), F("error_code")),
        kb=Coalesce(F("told__patch__kb_number"), Value("")),
    )


def load_trouble(vms: VirtualMachineQuerySet | None, now: datetime) -> Trouble:
    """What went wrong with these machines, None: with all (two queries)."""
    runs = _lately(now)
    if vms is not None:
        runs = runs.filter(vm__in=vms.order_by().values("pk"))
    machines = runs.aggregate(
        failed=Count("vm", distinct=True, filter=Q(state=OperationState.FAILED.value)),
        contradicted=Count("vm", distinct=True, filter=Q(verification=Verification.CONTRADICTED.value)),
    )
    if not machines["failed"]:
        return Trouble(0, machines["contradicted"], ())
    rows = _by_reason(runs).values_list("code", "kb").annotate(machines=Count("vm", distinct=True))
    reasons = sorted(
        (Reason(*row) for row in rows), key=lambda reason: (-reason.machines, reason.code, reason.kb_number)
    )
    return Trouble(machines["failed"], machines["contradicted"], tuple(reasons))


def vms_in_trouble(vms: VirtualMachineQuerySet, asked: str) -> VirtualMachineQuerySet:
    """Those of these machines with a failed run (`failed`, or for a reason `failed:KB:code`) or a contradicted one."""
    runs = _lately(timezone.now())
    what, *reason = asked.split(":", 2)
    if what == CONTRADICTED:
        runs = runs.filter(verification=Verification.CONTRADICTED.value)
    elif reason:
        kb_number, code = reason
        runs = _by_reason(runs).filter(code=code, kb=kb_number)
    else:
        runs = runs.filter(state=OperationState.FAILED.value)
    return vms.filter(pk__in=runs.values("vm"))
