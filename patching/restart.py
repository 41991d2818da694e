"""Restart now: whether a machine may be restarted for a reboot that is pending (docs/rules.md, restart)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from patching.codes import ErrorCode
from patching.outcome import MINUTES_FOR_REBOOT
from patching.selection import RunWork
from patching.terms import CRITICAL_AND_SECURITY, InstallationPlan, RebootStatus, RunStatus, Verification

# What every window keeps for a reboot; one that has not come back after the longest time has failed.
EXPECTED = timedelta(minutes=MINUTES_FOR_REBOOT)
LONGEST = timedelta(minutes=30)
# What a machine has to install first: a run of this plan reboots it once, for both.
WHAT_COMES_FIRST = InstallationPlan(classifications=CRITICAL_AND_SECURITY)


class RestartRefusal(StrEnum):
    """Why a machine is not restarted now."""

    NOT_SUPPORTED = ErrorCode.RESTART_NOT_SUPPORTED  # nothing behind the connection can restart it
    UNSUPPORTED = ErrorCode.VM_UNSUPPORTED
    AWAITING_ASSESSMENT = ErrorCode.VM_AWAITING_ASSESSMENT
    UNKNOWN_STATE = ErrorCode.RESTART_UNKNOWN_STATE
    NOT_NEEDED = ErrorCode.RESTART_NOT_NEEDED
    NOT_RUNNING = ErrorCode.VM_NOT_RUNNING
    UPDATES_FIRST = ErrorCode.RESTART_UPDATES_FIRST


@dataclass(frozen=True, slots=True)
class RestartFacts:
    """What a restart depends on.

    `owes_assessment`: a run or a restart has ended and nobody has looked since. `is_known`: its last assessment still says
    something about today. `work`: what a run of `WHAT_COMES_FIRST` would do where a reboot is pending; None: nobody knows.
    """

    can_restart: bool
    is_supported: bool
    owes_assessment: bool
    is_known: bool
    is_reboot_pending: bool
    is_running: bool
    work: RunWork | None


def judge_restart(facts: RestartFacts) -> RestartRefusal | None:
    """Why a machine is not restarted now, the first reason that applies; None: the pending reboot is all that it needs."""
    for applies, refusal in (
        (not facts.can_restart, RestartRefusal.NOT_SUPPORTED),
        (not facts.is_supported, RestartRefusal.UNSUPPORTED),
        (facts.owes_assessment, RestartRefusal.AWAITING_ASSESSMENT),
        (not facts.is_known, RestartRefusal.UNKNOWN_STATE),
        (not facts.is_reboot_pending, RestartRefusal.NOT_NEEDED),
        (not facts.is_running, RestartRefusal.NOT_RUNNING),
        (facts.work is None, RestartRefusal.UNKNOWN_STATE),
        (facts.work is RunWork.UPDATES, RestartRefusal.UPDATES_FIRST),
    ):
        if applies:
            return refusal
    return None


def verify_restart(
    status: RunStatus, reboot_status: RebootStatus, *, is_reboot_pending_after: bool | None
) -> Verification:
    """Whether a later look (None: there was none yet) confirms that a restart which ended so did what it was asked for."""
    if status is not RunStatus.SUCCEEDED or reboot_status is not RebootStatus.COMPLETED:
        return Verification.NOT_VERIFIABLE
    if is_reboot_pending_after is None:
        return Verification.PENDING
    return Verification.CONTRADICTED if is_reboot_pending_after else Verification.CONFIRMED
