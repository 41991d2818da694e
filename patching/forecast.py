"""Reboot forecast: which coming months bring a reboot, and why (docs/rules.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from patching.releases import (
    PACIFIC,
    expected_type,
    is_released,
    next_month,
    next_planned_baseline_month,
)
from patching.terms import (
    HotpatchTrack,
    Patch,
    ProductLine,
    RebootBehavior,
    Release,
    ReleaseType,
)
from patching.track import TrackVerdict


class RebootCause(StrEnum):
    """Why a month brings a reboot."""

    REBOOT_PENDING = "reboot_pending"
    BASELINE_DUE = "baseline_due"
    PENDING_UPDATE = "pending_update"
    PLANNED_BASELINE = "planned_baseline"
    UNPLANNED_BASELINE = "unplanned_baseline"
    CUMULATIVE_UPDATE = "cumulative_update"


@dataclass(frozen=True, slots=True)
class MonthForecast:
    """One month with the causes of its reboot; without a cause it brings none. `kb_numbers` are those pending."""

    month: date
    causes: tuple[RebootCause, ...]
    kb_numbers: tuple[str, ...] = ()

    @property
    def is_certain(self) -> bool:
        """Whether a reboot is certain; pending updates alone only may reboot."""
        return any(cause is not RebootCause.PENDING_UPDATE for cause in self.causes)


_OFF_TRACK = frozenset({HotpatchTrack.OFF_TRACK_BASELINE_MISSED, HotpatchTrack.OFF_TRACK_SINCE_KB})
_TAKES_LCUS = _OFF_TRACK | {HotpatchTrack.NOT_ON_TRAIN}


def forecast_reboots(
    releases: Iterable[Release],
    line: ProductLine | None,
    verdict: TrackVerdict,
    available: Sequence[Patch],
    *,
    is_reboot_pending: bool,
    as_of: datetime,
    months: int,
) -> tuple[MonthForecast, ...]:
    """Forecast the reboots of a VM for this month and the next ones (`months` in all)."""
    announced = {
        release.month
        for release in releases
        if release.product_line is line
        and release.type is ReleaseType.BASELINE
        and release.is_planned is False
        and not is_released(release, as_of)
    }
    month = as_of.astimezone(PACIFIC).date().replace(day=1)
    found = [_this_month(month, verdict, available, announced, is_reboot_pending, as_of)]
    for _ in range(months - 1):
        month = next_month(month)
        found.append(MonthForecast(month, _coming(month, verdict, announced, as_of)))
    return tuple(found)


def _this_month(
    month: date,
    verdict: TrackVerdict,
    available: Sequence[Patch],
    announced: set[date],
    is_reboot_pending: bool,
    moment: datetime,
) -> MonthForecast:
    rebooting = [p for p in available if p.reboot_behavior is not RebootBehavior.NEVER_REBOOTS]
    is_baseline_due = verdict.track is HotpatchTrack.BASELINE_DUE
    others = [p for p in rebooting if not (is_baseline_due and p.release_type is ReleaseType.BASELINE)]
    causes = [
        cause
        for cause, applies in (
            (RebootCause.REBOOT_PENDING, is_reboot_pending),
            (RebootCause.BASELINE_DUE, is_baseline_due),
            (RebootCause.PENDING_UPDATE, bool(others)),
        )
        if applies
    ]
    causes += _coming(month, verdict, announced, moment)
    return MonthForecast(month, tuple(causes), tuple(p.kb_number for p in rebooting if p.kb_number))


def _coming(month: date, verdict: TrackVerdict, announced: set[date], moment: datetime) -> tuple[RebootCause, ...]:
    """What a month that is not over will bring."""
    if month in announced:
        return (RebootCause.UNPLANNED_BASELINE,)
    next_baseline = next_planned_baseline_month(moment)
    if expected_type(month) is ReleaseType.BASELINE:
        return (RebootCause.PLANNED_BASELINE,) if month >= next_baseline else ()
    this_month = moment.astimezone(PACIFIC).date().replace(day=1)
    is_back_by_then = verdict.track in _OFF_TRACK and month > next_baseline
    if verdict.track in _TAKES_LCUS and not is_back_by_then and month > this_month:
        return (RebootCause.CUMULATIVE_UPDATE,)
    return ()
