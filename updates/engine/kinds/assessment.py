"""Assessments: what is available on a machine, and what is installed."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction

from connectors.protocol import AssessmentResult, Observation
from patching.codes import ErrorCode, EventCode
from patching.lifecycle import state_for
from patching.terms import OperationState, RunStatus
from updates.engine.kinds.handler import Ends
from updates.engine.record import clean
from updates.engine.rows import ClaimedRow
from updates.engine.transition import Change, transition
from updates.selectors.catalogue import LoadedCatalogue
from updates.services.assessments import AssessmentFound, record_assessments, record_failures
from updates.services.verification import verify_earlier_installations

S = OperationState


def longest(_row: ClaimedRow) -> timedelta | None:
    """As long as any assessment."""
    return None


def is_end(seen: Observation) -> bool:
    """It ends with an assessment."""
    return seen.assessment is not None and seen.installation is None


@transaction.atomic
def finish(ends: Ends, *, catalogue: LoadedCatalogue, now: datetime) -> None:
    """End assessments, and keep what they found."""
    results = [(row, seen.assessment) for row, seen in ends if seen.assessment is not None]
    winners = transition(changes=[ended(row, result) for row, result in results], now=now)
    keep_found([(row, result) for row, result in results if row.pk in winners], catalogue=catalogue, now=now)


def ended(row: ClaimedRow, result: AssessmentResult) -> Change:
    """The end of a run that ends with an assessment."""
    error = result.error
    return Change(
        operation_id=row.pk,
        from_state=row.state,
        through=S.IN_PROGRESS if row.state is S.STARTING else None,
        to_state=state_for(result.status),
        event=row.event(EventCode.FINISHED),
        error_code=error.code if error else None,
        error_detail=clean(error.detail) if error else None,
        build_after=result.os_build or None,
    )


def keep_found(
    results: list[tuple[ClaimedRow, AssessmentResult]], *, catalogue: LoadedCatalogue, now: datetime
) -> None:
    """Write what assessments found, or why they failed; each verifies the installations before it."""
    good = [AssessmentFound(row.vm, result) for row, result in results if result.status is not RunStatus.FAILED]
    record_assessments(found=good, catalogue=catalogue, now=now)
    record_failures(
        errors={
            row.vm_id: result.error.code if result.error else ErrorCode.ASSESSMENT_FAILED
            for row, result in results
            if result.status is RunStatus.FAILED
        }
    )
    verify_earlier_installations(found=good, catalogue=catalogue)
