"""Reboot forecast: which coming months bring a reboot, and why (docs/rules.md). It knows nothing that is out later."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from patching.orchestrator import Patcher
from patching.releases import (
    BASELINE_MONTHS,
    END_OF_HOTPATCHING,
    PACIFIC,
    Timetable,
    next_month,
    patch_tuesday,
    timetable,
)
from patching.selection import Guard
from patching.terms import (
    DUE_WORDS,
    ON_TRACK_WORDS,
    HotpatchTrack,
    Patch,
    ProductLine,
    RebootBehavior,
    RebootSetting,
    Release,
    ReleaseType,
)
from patching.track import TrackVerdict


class RebootCause(StrEnum):
    """Why a month brings a reboot."""

    REBOOT_PENDING = "reboot_pending"
    BASELINE_DUE = "baseline_due"
    PENDING_UPDATE = "pending_update"  # it may ask for a reboot
    PENDING_UPDATE_REQUIRES = "pending_update_requires"  # it needs one
    PLANNED_BASELINE = "planned_baseline"
    UNRECORDED_BASELINE = "unrecorded_baseline"  # out by the rule of the quarters, and not recorded
    UNPLANNED_BASELINE = "unplanned_baseline"
    CUMULATIVE_UPDATE = "cumulative_update"
    END_OF_HOTPATCHING = "end_of_hotpatching"  # from then on every month brings a cumulative update
    ALWAYS_REBOOTS = "always_reboots"  # the reboot setting is Always: hotpatches reboot, too


_MAY = frozenset({RebootCause.PENDING_UPDATE, RebootCause.UNRECORDED_BASELINE})


class Outlook(StrEnum):
    """Whether a month brings a reboot."""

    WILL = "will"
    MAY = "may"
    WILL_NOT = "will_not"
    NOT_KNOWN = "not_known"


class Hindrance(StrEnum):
    """Why what needs a reboot brings none by itself."""

    NEVER_REBOOTS = "never_reboots"  # installed, waits for a reboot
    NOBODY_PATCHES = "nobody_patches"  # due, nobody installs it


@dataclass(frozen=True, slots=True)
class MonthForecast:
    """One month with its outlook and the causes. `kb_numbers` are those pending that need or may need a reboot.

    `is_by_rule`: the catalogue does not reach that far or has a hole before it, so only the rule of the quarters speaks.
    """

    month: date
    causes: tuple[RebootCause, ...]
    kb_numbers: tuple[str, ...] = ()
    outlook: Outlook = Outlook.WILL_NOT
    hindrance: Hindrance | None = None
    is_by_rule: bool = False

    @property
    def is_certain(self) -> bool:
        """Whether a reboot is certain."""
        return self.outlook is Outlook.WILL


@dataclass(frozen=True, slots=True)
class _Machine:
    known: Timetable | None
    verdict: TrackVerdict
    setting: RebootSetting | None
    patcher: Patcher
    this_month: date
    now: datetime

    @property
    def always_reboots(self) -> bool:
        """Whether a hotpatch brings a reboot, too. Windows Automatic Updates do not know the setting."""
        return self.setting is RebootSetting.ALWAYS and self.patcher not in {Patcher.GUEST_OS, Patcher.NOBODY}


_TAKES_LCUS = frozenset({HotpatchTrack.OFF_TRACK_SINCE_KB, HotpatchTrack.NOT_ON_TRAIN})


def forecast_reboots(
    releases: Iterable[Release],
    line: ProductLine | None,
    verdict: TrackVerdict,
    available: Sequence[Patch],
    *,
    is_reboot_pending: bool,
    as_of: datetime,
    months: int,
    reboot_setting: RebootSetting | None,
    patcher: Patcher,
    guard: Guard,
) -> tuple[MonthForecast, ...]:
    """Forecast the reboots of a VM for this month and the next ones (`months` in all), from what is known at `as_of`.

    `reboot_setting` None: not known. What the guard leaves out brings no reboot.
    """
    known = timetable(releases, line, as_of) if line else None
    return forecast_on(
        known,
        verdict,
        available,
        is_reboot_pending=is_reboot_pending,
        as_of=as_of,
        months=months,
        reboot_setting=reboot_setting,
        patcher=patcher,
        guard=guard,
    )


def forecast_on(
    known: Timetable | None,
    verdict: TrackVerdict,
    available: Sequence[Patch],
    *,
    is_reboot_pending: bool,
    as_of: datetime,
    months: int,
    reboot_setting: RebootSetting | None,
    patcher: Patcher,
    guard: Guard,
) -> tuple[MonthForecast, ...]:
    """`forecast_reboots` by a timetable that was made once for many VMs; None: the VM has no product line."""
    month = as_of.astimezone(PACIFIC).date().replace(day=1)
    machine = _Machine(known, verdict, reboot_setting, patcher, this_month=month, now=as_of)
    found = [_this_month(machine, available, guard, is_reboot_pending=is_reboot_pending)]
    for _ in range(months - 1):
        month = next_month(month)
        found.append(_forecast(machine, month, _coming(machine, month)))
    return tuple(found)


def _this_month(
    machine: _Machine, available: Sequence[Patch], guard: Guard, *, is_reboot_pending: bool
) -> MonthForecast:
    verdict = machine.verdict
    is_baseline_offered = guard.is_baseline_among(available)
    taken = [p for p in available if guard.holds(p, is_baseline_offered=is_baseline_offered) is None]
    rebooting = [p for p in taken if p.reboot_behavior is not RebootBehavior.NEVER_REBOOTS]
    is_due = verdict.track in DUE_WORDS
    is_waiting = verdict.track is HotpatchTrack.WAITS_FOR_REBOOT
    others = [p for p in rebooting if not (is_due and p.release_type is ReleaseType.BASELINE)]
    is_required = any(p.reboot_behavior is RebootBehavior.ALWAYS_REQUIRES_REBOOT or guard.presumes(p) for p in others)
    is_certain = is_required or is_due or is_reboot_pending
    is_baseline_missing = verdict.track in ON_TRACK_WORDS and any(
        month.month in BASELINE_MONTHS for month in verdict.missing_months
    )
    causes = [
        cause
        for cause, applies in (
            (RebootCause.REBOOT_PENDING, is_reboot_pending or is_waiting),
            (RebootCause.BASELINE_DUE, is_due and not is_waiting),
            (RebootCause.PENDING_UPDATE_REQUIRES, is_required),
            (RebootCause.PENDING_UPDATE, bool(others) and not is_required),
            (RebootCause.UNRECORDED_BASELINE, is_baseline_missing),
            (RebootCause.ALWAYS_REBOOTS, machine.always_reboots and bool(taken) and not is_certain),
        )
        if applies
    ]
    if machine.now < patch_tuesday(machine.this_month):
        causes += [cause for cause in _coming(machine, machine.this_month) if cause not in causes]
    kb_numbers = tuple(p.kb_number for p in rebooting if p.kb_number)
    return _forecast(machine, machine.this_month, tuple(causes), kb_numbers)


def _coming(machine: _Machine, month: date) -> tuple[RebootCause, ...]:
    """What the Patch Tuesday of a month brings that is still to come."""
    if machine.known is None:
        return ()
    end = END_OF_HOTPATCHING.get(machine.known.line)
    if end is not None and month > end:
        return (RebootCause.END_OF_HOTPATCHING,)
    announced = {r.month for r in machine.known.announced if r.type is ReleaseType.BASELINE and r.is_planned is False}
    if month in announced:
        return (RebootCause.UNPLANNED_BASELINE,)
    if month.month in BASELINE_MONTHS:
        return (RebootCause.PLANNED_BASELINE,)
    if machine.verdict.track in _TAKES_LCUS and not _is_back_before(machine, month, announced):
        return (RebootCause.CUMULATIVE_UPDATE,)
    return (RebootCause.ALWAYS_REBOOTS,) if machine.always_reboots else ()


def _is_back_before(machine: _Machine, month: date, announced: set[date]) -> bool:
    """Whether a VM that is off track takes a baseline before this month, and is on the train again."""
    if machine.verdict.track is not HotpatchTrack.OFF_TRACK_SINCE_KB:
        return False
    between = machine.this_month if machine.now < patch_tuesday(machine.this_month) else next_month(machine.this_month)
    while between < month:
        if between.month in BASELINE_MONTHS or between in announced:
            return True
        between = next_month(between)
    return False


def _forecast(
    machine: _Machine, month: date, causes: tuple[RebootCause, ...], kb_numbers: tuple[str, ...] = ()
) -> MonthForecast:
    outlook, hindrance = judge_outlook(machine.verdict.track, machine.patcher, machine.setting, causes)
    return MonthForecast(month, causes, kb_numbers, outlook, hindrance, _is_by_rule(machine, month))


def judge_outlook(
    track: HotpatchTrack, patcher: Patcher, setting: RebootSetting | None, causes: tuple[RebootCause, ...]
) -> tuple[Outlook, Hindrance | None]:
    """Will, may, will not or not known, and what keeps a cause from rebooting; never "will not" for what is not known."""
    if causes and patcher is Patcher.NOBODY:
        return Outlook.WILL_NOT, Hindrance.NOBODY_PATCHES
    is_bound = patcher is not Patcher.GUEST_OS  # the reboot setting binds the runs of Azure and of this portal
    if (is_bound and setting is None) or track is HotpatchTrack.UNKNOWN:
        return Outlook.NOT_KNOWN, None
    if not causes:
        return (Outlook.NOT_KNOWN if track is HotpatchTrack.NEWER_THAN_CATALOGUE else Outlook.WILL_NOT), None
    if is_bound and setting is RebootSetting.NEVER:
        return Outlook.WILL_NOT, Hindrance.NEVER_REBOOTS
    return (Outlook.MAY if set(causes) <= _MAY else Outlook.WILL), None


def _is_by_rule(machine: _Machine, month: date) -> bool:
    """Whether only the rule of the quarters speaks of this month: it is not recorded, and a hole or the end lies before."""
    return bool(machine.verdict.missing_months) and month >= machine.verdict.missing_months[0]


@dataclass(frozen=True, slots=True)
class NextReboot:
    """What a forecast comes to: the first month that will or may bring a reboot, and its first cause.

    Without such a month: whether it is not known, or what hinders the first that else would.
    """

    month: date | None
    outlook: Outlook
    cause: RebootCause | Hindrance | None


def next_reboot(forecast: Iterable[MonthForecast]) -> NextReboot:
    """The next reboot of these months, which are in order."""
    is_known, hindrance = True, None
    for month in forecast:
        if month.outlook in {Outlook.WILL, Outlook.MAY}:
            return NextReboot(month.month, month.outlook, month.causes[0])
        is_known = is_known and month.outlook is not Outlook.NOT_KNOWN
        hindrance = hindrance or month.hindrance
    return NextReboot(None, Outlook.WILL_NOT if is_known else Outlook.NOT_KNOWN, hindrance)
