"""Installations: results per patch, the final assessment, and whether what was reported is true."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

from django.db import transaction

from connectors.protocol import InstallationResult, Observation
from patching.codes import EventCode
from patching.lifecycle import state_for
from patching.terms import InstallationState, RunStatus
from updates.engine.kinds.handler import Ends
from updates.engine.record import clean, record_results
from updates.engine.rows import ClaimedRow
from updates.engine.transition import Change, transition
from updates.selectors.catalogue import LoadedCatalogue
from updates.services.assessments import AssessmentFound, record_assessments
from updates.services.operations import request_assessments
from updates.services.verification import conclude


def longest(row: ClaimedRow) -> timedelta | None:
    """As long as its plan allows."""
    return row.plan.maximum_duration if row.plan else None


def is_end(seen: Observation) -> bool:
    """It ends with results."""
    return seen.installation is not None and seen.assessment is None


@transaction.atomic
def finish(ends: Ends, *, catalogue: LoadedCatalogue, now: datetime) -> None:
    """End installations: state first, then results, the final assessment and the verification."""
    results = [(row, seen.installation) for row, seen in ends if seen.installation is not None]
    winners = transition(changes=[_ended(row, result, catalogue) for row, result in results], now=now)
    won = [(row, result) for row, result in results if row.pk in winners]
    record_results([(row.pk, result.patches) for row, result in won])
    record_assessments(
        found=[
            AssessmentFound(row.vm, final, row.pk, _installed(result))
            for row, result in won
            if (final := result.final_assessment) is not None and final.status is not RunStatus.FAILED
        ],
        catalogue=catalogue,
        now=now,
    )
    if unseen := [row.vm_id for row, result in won if result.final_assessment is None]:
        request_assessments(vm_ids=unseen, requested_by=None)


def _installed(result: InstallationResult) -> frozenset[str]:
    return frozenset(o.patch.key for o in result.patches if o.state is InstallationState.INSTALLED)


def _ended(row: ClaimedRow, result: InstallationResult, catalogue: LoadedCatalogue) -> Change:
    counts = Counter(outcome.state for outcome in result.patches)
    verification, detail = conclude(result, facts=row.vm, catalogue=catalogue.facts)
    return Change(
        operation_id=row.pk,
        from_state=row.state,
        to_state=state_for(result.status),
        event=row.event(EventCode.FINISHED),
        error_code=result.error.code if result.error else None,
        error_detail=clean(result.error.detail) if result.error else None,
        reboot_status=result.reboot_status,
        is_maintenance_window_exceeded=result.is_maintenance_window_exceeded,
        installed_count=counts[InstallationState.INSTALLED],
        failed_count=counts[InstallationState.FAILED],
        pending_count=counts[InstallationState.PENDING],
        excluded_count=counts[InstallationState.EXCLUDED],
        not_selected_count=counts[InstallationState.NOT_SELECTED],
        verification=verification,
        verification_detail=detail,
        build_after=result.final_assessment.os_build or None if result.final_assessment else None,
    )
