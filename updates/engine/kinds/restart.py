"""Restarts: a machine goes through its pending reboot, and a look at the end says whether it is gone."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction

from connectors.protocol import AssessmentResult, Observation, RestartResult
from patching.codes import ErrorCode, EventCode
from patching.lifecycle import state_for
from patching.restart import LONGEST
from patching.terms import RebootStatus
from updates.engine.kinds.handler import Ends
from updates.engine.record import clean, code_of
from updates.engine.rows import ClaimedRow
from updates.engine.transition import Change, transition
from updates.selectors.catalogue import LoadedCatalogue
from updates.services.assessments import AssessmentFound, record_assessments, record_silence
from updates.services.operations import request_assessments
from updates.services.verification import conclude_restart, verify_earlier_installations


def longest(_row: ClaimedRow) -> timedelta | None:
    """Half an hour: three times what a window keeps for a reboot."""
    return LONGEST


def is_end(seen: Observation) -> bool:
    """It ends with how the machine came back, and with nothing else."""
    return seen.restart is not None and len(seen.ends) == 1


@transaction.atomic
def finish(ends: Ends, *, catalogue: LoadedCatalogue, now: datetime) -> None:
    """End restarts; what brought no look of its own waits for an assessment, and is not restarted again before."""
    results = [(row, seen.restart) for row, seen in ends if seen.restart is not None]
    winners = transition(changes=[_ended(row, result) for row, result in results], now=now)
    won = [(row, result) for row, result in results if row.pk in winners]
    found = [AssessmentFound(row.vm, look) for row, result in won if (look := _look(result)) is not None]
    taken = record_assessments(found=found, catalogue=catalogue, now=now)
    verify_earlier_installations(found=taken, catalogue=catalogue)
    seen = {item.facts.ref.vm_id for item in taken}
    unseen = [row.vm_id for row, _result in won if row.vm_id not in seen]
    record_silence(vm_ids=unseen)
    if unseen:
        request_assessments(vm_ids=unseen, requested_by=None)


def _look(result: RestartResult) -> AssessmentResult | None:
    final = result.final_assessment
    return final if final is not None and final.has_found else None


def _ended(row: ClaimedRow, result: RestartResult) -> Change:
    look = _look(result)
    has_failed = result.reboot_status is RebootStatus.FAILED
    return Change(
        operation_id=row.pk,
        from_state=row.state,
        to_state=state_for(result.status),
        event=row.event(EventCode.FINISHED),
        error_code=code_of(result.status, result.error, ErrorCode.REBOOT_FAILED if has_failed else ErrorCode.UNKNOWN),
        error_detail=clean(result.error.detail) if result.error else None,
        reboot_status=result.reboot_status,
        verification=conclude_restart(result, facts=row.vm),
        build_after=look.os_build or None if look is not None else None,
    )
