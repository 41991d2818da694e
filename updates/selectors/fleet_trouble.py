"""What went wrong with machines within a week: failed runs by their reasons, and runs that a later look contradicted.

Assessments are left out: they only look, and are made again by themselves. Read through a partial index of such runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import F, FilteredRelation, Q, QuerySet, Value
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


NO_TROUBLE = Trouble(0, 0, ())


def _lately(now: datetime) -> QuerySet[Operation]:
    """The runs that ended within a week and failed or were contradicted."""
    return (
        Operation.objects.filter(Q(state=OperationState.FAILED.value) | Q(verification=Verification.CONTRADICTED.value))
        .filter(~Q(kind=OperationKind.ASSESSMENT.value), finished_at__gt=now - TOLD_FOR)
        .order_by()
    )


def _by_reason(runs: QuerySet[Operation]) -> Any:  # annotated
    """Each run with the code and KB of each update that failed in it, else with the code of the run."""
    return runs.annotate(
        told=FilteredRelation("results", condition=Q(results__state=InstallationState.FAILED.value)),
        code=Coalesce(NullIf(F("told__error_code"), Value("")), F("error_code")),
        kb=Coalesce(F("told__patch__kb_number"), Value("")),
    )


# What failed and what was contradicted in all, then each reason, then what machines work on.
_RUNS = """
WITH runs(vm_id, state, verification, code, kb) AS MATERIALIZED ({lately})
SELECT 'all', '', '', count(DISTINCT vm_id) FILTER (WHERE state = %s),
    count(DISTINCT vm_id) FILTER (WHERE verification = %s) FROM runs
UNION ALL SELECT 'reason', code, kb, count(DISTINCT vm_id), 0 FROM runs WHERE state = %s GROUP BY code, kb
UNION ALL SELECT 'in_flight', kind, '', count(*), 0 FROM ({in_flight}) open(kind) GROUP BY kind
"""


def load_runs(vms: VirtualMachineQuerySet | None, now: datetime) -> tuple[Trouble, dict[str, int]]:
    """What went wrong with these machines, and how many operations they work on, by kind (one query).

    None: with all machines that are not gone.
    """
    mine = Q(vm__gone_at=None) if vms is None else Q(vm__in=vms.order_by().values("pk"))
    lately, in_flight = _by_reason(_lately(now).filter(mine)), Operation.objects.in_flight().filter(mine).order_by()
    runs = lately.values_list("vm_id", "state", "verification", "code", "kb")
    try:
        parts = {"lately": runs, "in_flight": in_flight.values_list("kind")}
        compiled = {name: rows.query.sql_with_params() for name, rows in parts.items()}
    except EmptyResultSet:
        return NO_TROUBLE, {}
    sql = _RUNS.format(**{name: text for name, (text, _parameters) in compiled.items()})
    failed = OperationState.FAILED.value
    said = [failed, Verification.CONTRADICTED.value, failed]
    with connection.cursor() as cursor:
        cursor.execute(sql, [*compiled["lately"][1], *said, *compiled["in_flight"][1]])
        rows = cursor.fetchall()
    reasons = [Reason(code, kb, machines) for what, code, kb, machines, _none in rows if what == "reason"]
    reasons.sort(key=lambda reason: (-reason.machines, reason.code, reason.kb_number))
    ((machines, contradicted),) = ((row[3], row[4]) for row in rows if row[0] == "all")
    return Trouble(machines, contradicted, tuple(reasons)), {row[1]: row[3] for row in rows if row[0] == "in_flight"}


def vms_in_trouble(vms: VirtualMachineQuerySet, asked: str) -> VirtualMachineQuerySet:
    """Those of these machines with a failed run (`failed`, or for a reason `failed:KB:code`) or a contradicted one."""
    runs = _lately(timezone.now())
    what, *reason = asked.split(":", 2)
    if what == CONTRADICTED:
        runs = runs.filter(verification=Verification.CONTRADICTED.value)
    elif reason:
        kb_number, code = reason
        runs = _by_reason(runs).filter(state=OperationState.FAILED.value, code=code, kb=kb_number)
    else:
        runs = runs.filter(state=OperationState.FAILED.value)
    return vms.filter(pk__in=runs.values("vm"))
