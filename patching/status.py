"""Update status of a VM, as the Azure portal's overview counts it (docs/rules.md)."""

from __future__ import annotations

from datetime import datetime, timedelta

from patching.terms import UpdateStatus

# Azure keeps pending-update data this long; an older assessment says nothing about today.
ASSESSMENT_IS_VALID_FOR = timedelta(days=7)


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
