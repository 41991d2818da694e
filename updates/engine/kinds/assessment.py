"""Assessments: what is available on a machine, and what is installed."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction

from connectors.protocol import AssessmentResult, Observation
from patching.codes import ErrorCode, EventCode
from patching.lifecycle import state_for
from patching.terms import OperationState
from updates.engine.kinds.handler import Ends
from updates.engine.record import clean, code_of
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
    """It ends with an assessment, and with nothing else."""
    return seen.assessment is not None and len(seen.ends) == 1


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
        error_code=code_of(result.status, error, ErrorCode.ASSESSMENT_FAILED),
        error_detail=clean(error.detail) if error else None,
        build_after=result.os_build or None,
    )


def keep_found(
    results: list[tuple[ClaimedRow, AssessmentResult]], *, catalogue: LoadedCatalogue, now: datetime
) -> None:
    """Write what assessments found, or why they failed; each verifies the installations before it."""
    good = [AssessmentFound(row.vm, result) for row, result in results if result.has_found]
    taken = record_assessments(found=good, catalogue=catalogue, now=now)
    record_failures(
        errors={
            row.vm_id: code_of(result.status, result.error, ErrorCode.ASSESSMENT_FAILED) or ErrorCode.UNKNOWN
            for row, result in results
            if not result.has_found
        }
    )
    verify_earlier_installations(found=taken, catalogue=catalogue)
