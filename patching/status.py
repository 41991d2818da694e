"""Update status of a VM, as the Azure portal's overview counts it (docs/rules.md)."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from patching.terms import UpdateStatus

# Azure keeps pending-update data this long; an older assessment says nothing about today.
ASSESSMENT_IS_VALID_FOR = timedelta(days=7)
# Periodic assessments come every 24 hours; two more are the queue's.
ASSESSMENT_IS_FRESH_FOR = timedelta(hours=26)


def judge_update_status(
    *,
    is_supported: bool,
    last_assessed_at: datetime | None,
    now: datetime,
    is_reboot_pending: bool,
    available_count: int,
) -> UpdateStatus:
    """Judge the update status; the first that applies wins, in the order of `docs/rules.md`."""
    if not is_supported:
        return UpdateStatus.UNSUPPORTED
    if last_assessed_at is None or now - last_assessed_at > ASSESSMENT_IS_VALID_FOR:
        return UpdateStatus.NO_UPDATES_DATA
    if is_reboot_pending:
        return UpdateStatus.REBOOT_REQUIRED
    return UpdateStatus.UPDATES_AVAILABLE if available_count else UpdateStatus.NO_UPDATES_AVAILABLE


class StaleCause(StrEnum):
    """Why what is known of a VM is old."""

    FAILED = "failed"  # the last try failed
    NOT_RUNNING = "not_running"
    PAUSED = "paused"  # nothing is started through its connection
    NOT_PERIODIC = "not_periodic"
    WAITING = "waiting"


def why_stale(
    age: timedelta, *, has_failed: bool, is_running: bool, is_paused: bool, is_periodic: bool
) -> StaleCause | None:
    """Why an assessment of this age is the last one; None while it is fresh. The first that applies (docs/rules.md)."""
    if age <= ASSESSMENT_IS_FRESH_FOR:
        return None
    if has_failed:
        return StaleCause.FAILED
    if not is_running:
        return StaleCause.NOT_RUNNING
    if is_paused:
        return StaleCause.PAUSED
    return StaleCause.WAITING if is_periodic else StaleCause.NOT_PERIODIC
