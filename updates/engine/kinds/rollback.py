"""Rollbacks: a machine goes back to a baseline, and an assessment at the end says whether it is there."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from django.db import transaction

from connectors.protocol import AssessmentResult
from patching.terms import RebootStatus, Verification
from updates.engine.kinds.assessment import ended, is_end, keep_found
from updates.engine.kinds.handler import Ends
from updates.engine.rows import ClaimedRow
from updates.engine.transition import Change, transition
from updates.selectors.catalogue import LoadedCatalogue

__all__ = ["finish", "is_end", "longest"]


def longest(row: ClaimedRow) -> timedelta | None:
    """It uninstalls, and may install again after that."""
    return 2 * row.rollback.duration if row.rollback else None


@transaction.atomic
def finish(ends: Ends, *, catalogue: LoadedCatalogue, now: datetime) -> None:
    """End rollbacks: where they were to come is compared with where they came."""
    results = [(row, seen.assessment) for row, seen in ends if seen.assessment is not None]
    winners = transition(changes=[_ended(row, result) for row, result in results], now=now)
    keep_found([(row, result) for row, result in results if row.pk in winners], catalogue=catalogue, now=now)


def _ended(row: ClaimedRow, result: AssessmentResult) -> Change:
    target = row.rollback.target_build if row.rollback else ""
    is_there = result.os_build == target
    return replace(
        ended(row, result),
        reboot_status=RebootStatus.COMPLETED,
        verification=Verification.CONFIRMED if is_there else Verification.CONTRADICTED,
        verification_detail=None if is_there else {"expected_build": target, "found_build": result.os_build},
    )
