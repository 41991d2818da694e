"""Installations: results per patch, the final assessment, and whether what was reported is true."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

from django.db import transaction

from connectors.protocol import AssessmentResult, InstallationResult, Observation
from patching.codes import ErrorCode, EventCode
from patching.lifecycle import state_for
from patching.terms import InstallationState, InstalledUpdate, RebootStatus, RunStatus
from updates.engine.kinds.handler import Ends
from updates.engine.record import clean, code_of, record_results
from updates.engine.rows import ClaimedRow
from updates.engine.transition import Change, transition
from updates.selectors.catalogue import LoadedCatalogue
from updates.services.assessments import AssessmentFound, record_assessments, record_reports, record_silence
from updates.services.operations import request_assessments
from updates.services.verification import conclude

# Where a run brings no assessment of its own.
NO_LOOK = AssessmentResult(RunStatus.UNKNOWN, (), is_reboot_pending=False)


def longest(row: ClaimedRow) -> timedelta | None:
    """As long as its plan allows."""
    return row.plan.maximum_duration if row.plan else None


def is_end(seen: Observation) -> bool:
    """It ends with results, and with nothing else."""
    return seen.installation is not None and len(seen.ends) == 1


@transaction.atomic
def finish(ends: Ends, *, catalogue: LoadedCatalogue, now: datetime) -> None:
    """End installations: state first, then results, the final assessment and the verification."""
    results = [(row, seen.installation) for row, seen in ends if seen.installation is not None]
    winners = transition(changes=[_ended(row, result, catalogue) for row, result in results], now=now)
    won = [(row, result) for row, result in results if row.pk in winners]
    record_results([(row.pk, result.patches) for row, result in won])
    found = [AssessmentFound(row.vm, _last_look(result), row.pk, _installed(result, now)) for row, result in won]
    taken = record_assessments(found=[item for item in found if item.result.has_found], catalogue=catalogue, now=now)
    # A final assessment that is older than what is known was not taken over: it counts as if there were none.
    told = {item.installation_id for item in taken}
    unseen = [item for item in found if item.installation_id not in told]
    record_reports(reports=unseen)
    if unseen:
        request_assessments(vm_ids=[item.facts.ref.vm_id for item in unseen], requested_by=None)
    record_silence(
        vm_ids=[row.vm_id for row, result in won if not result.is_status_known and not _last_look(result).has_found]
    )


def _last_look(result: InstallationResult) -> AssessmentResult:
    return result.final_assessment or NO_LOOK


def _installed(result: InstallationResult, now: datetime) -> tuple[InstalledUpdate, ...]:
    at = now.replace(microsecond=0)
    return tuple(InstalledUpdate(o.patch, at) for o in result.patches if o.state is InstallationState.INSTALLED)


def _code(result: InstallationResult) -> str | None:
    """Why it ended so; where the machine names no error, what its own results say."""
    failed = ErrorCode.UNKNOWN
    if any(outcome.state is InstallationState.FAILED for outcome in result.patches):
        failed = ErrorCode.PATCH_FAILED
    elif result.reboot_status is RebootStatus.FAILED:
        failed = ErrorCode.REBOOT_FAILED
    elif result.is_maintenance_window_exceeded:
        failed = ErrorCode.WINDOW_EXCEEDED
    return code_of(result.status, result.error, failed)


def _ended(row: ClaimedRow, result: InstallationResult, catalogue: LoadedCatalogue) -> Change:
    counts = Counter(outcome.state for outcome in result.patches)
    verification, detail = conclude(result, facts=row.vm, catalogue=catalogue.facts)
    return Change(
        operation_id=row.pk,
        from_state=row.state,
        to_state=state_for(result.status),
        event=row.event(EventCode.FINISHED),
        error_code=_code(result),
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
