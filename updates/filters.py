"""What the update history of a VM can be narrowed by; all of it is part of the address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.translation import gettext_lazy as _

from patching.terms import OperationState
from updates.choices import OPERATION_STATES, PERIODS
from updates.models import Operation

S = OperationState
SUCCESSFUL = frozenset({S.SUCCEEDED, S.COMPLETED_WITH_WARNINGS})
OUTCOMES = ("total", "failed", "contradicted", "successful")
# A state that a run does not have by itself: it reported success, and a later look found otherwise.
CONTRADICTED = "contradicted"
RESULTS = [*OPERATION_STATES, (CONTRADICTED, _("Contradicted"))]


@dataclass(frozen=True, slots=True)
class History:
    """The operations of a period, counted, and those that the filters leave."""

    days: int
    state: str
    outcome: str
    rows: tuple[Operation, ...]
    total: int
    failed: int
    contradicted: int
    successful: int

    periods = PERIODS
    states = RESULTS


def result_of(operation: Operation) -> str:
    """What came of an operation: its state, or that a later look contradicted the success it reported."""
    return CONTRADICTED if operation.is_contradicted else operation.state


def history_of(operations: Sequence[Operation], query: Mapping[str, str], now: datetime) -> History:
    """Narrow a VM's operations as the address says; a value that does not exist narrows nothing."""
    days = int(query["period"]) if query.get("period") in {str(count) for count, _label in PERIODS} else 30
    state = query.get("state", "") if query.get("state") in {*S, CONTRADICTED} else ""
    outcome = query.get("outcome", "") if query.get("outcome") in OUTCOMES else "total"
    since = now - timedelta(days=days)
    period = [o for o in operations if o.created_at >= since]
    failed = [o for o in period if o.state == S.FAILED]
    contradicted = [o for o in period if result_of(o) == CONTRADICTED]
    successful = [o for o in period if result_of(o) in SUCCESSFUL]
    rows = {"total": period, "failed": failed, "contradicted": contradicted, "successful": successful}[outcome]
    return History(
        days=days,
        state=state,
        outcome=outcome,
        rows=tuple(o for o in rows if not state or result_of(o) == state),
        total=len(period),
        failed=len(failed),
        contradicted=len(contradicted),
        successful=len(successful),
    )
