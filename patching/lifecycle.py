"""The life of an operation: states, transitions, the pure next-step decision and the backoff (docs/rules.md)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum

from patching.terms import OperationKind, OperationState, RunStatus

S = OperationState

IN_FLIGHT = frozenset({S.STARTING, S.IN_PROGRESS, S.REBOOTING})
TERMINAL = frozenset({S.SUCCEEDED, S.COMPLETED_WITH_WARNINGS, S.FAILED, S.CANCELLED})

# `starting` goes back to `queued` only where the connector proved that nothing was sent.
TRANSITIONS: Mapping[OperationState, frozenset[OperationState]] = {
    S.QUEUED: frozenset({S.STARTING, S.CANCELLED, S.FAILED}),
    S.STARTING: frozenset({S.QUEUED, S.IN_PROGRESS, S.FAILED}),
    S.IN_PROGRESS: frozenset({S.REBOOTING, S.SUCCEEDED, S.COMPLETED_WITH_WARNINGS, S.FAILED}),
    S.REBOOTING: frozenset({S.IN_PROGRESS, S.SUCCEEDED, S.COMPLETED_WITH_WARNINGS, S.FAILED}),
    S.SUCCEEDED: frozenset(),
    S.COMPLETED_WITH_WARNINGS: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELLED: frozenset(),
}


class Step(StrEnum):
    """What to do next with a due operation."""

    START = "start"
    RECOVER_BY_RESEND = "recover_by_resend"  # found in `starting`: the same request id may be sent again
    RECOVER_BY_FIND = "recover_by_find"  # found in `starting`: ask whether the request arrived
    GIVE_UP_UNCONFIRMED = "give_up_unconfirmed"  # found in `starting`: nobody can tell; never send again
    OBSERVE = "observe"
    OBSERVE_LAST = "observe_last"  # in flight past its deadline: one more look, and without an end in it no other
    NOTHING = "nothing"  # ended


def next_step(
    state: OperationState,
    *,
    is_past_deadline: bool,
    can_resend: bool,
    can_find: bool,
) -> Step:
    """Decide the next step of a due operation. `can_resend`: IDEMPOTENT_START; `can_find`: FIND_BY_REQUEST."""
    if state is S.QUEUED:
        return Step.START
    if state is S.STARTING:
        if can_resend:
            return Step.RECOVER_BY_RESEND
        return Step.RECOVER_BY_FIND if can_find else Step.GIVE_UP_UNCONFIRMED
    if state in TERMINAL:
        return Step.NOTHING
    return Step.OBSERVE_LAST if is_past_deadline else Step.OBSERVE


# A start that provably sent nothing is tried again this often before the run fails.
MAX_START_ATTEMPTS = 8
_BACKOFF_BASE = timedelta(seconds=2)
_BACKOFF_LIMIT = timedelta(minutes=5)
# No look at what runs is put off for longer, whatever the other side says: only a look finds a deadline passed.
LONGEST_WAIT = timedelta(hours=1)


def retry_delay(attempts: int, retry_after: float | None = None) -> timedelta:
    """How long to wait after the given number of failed attempts (at least 1): doubling from 2 s up to 5 minutes.

    A pause that the other side asked for (`retry_after`, seconds) is never shortened.
    """
    doubled: timedelta = _BACKOFF_BASE * (1 << min(max(attempts, 1) - 1, 16))
    wanted = min(doubled, _BACKOFF_LIMIT)
    return max(wanted, timedelta(seconds=retry_after)) if retry_after is not None else wanted


# A row's deadline catches silence only; a run that is merely long ends by its own window.
SILENCE = timedelta(minutes=60)
ASSESSMENT_LIMIT = timedelta(minutes=60)


def deadline_after(kind: OperationKind, maximum_duration: timedelta | None) -> timedelta:
    """How long after its start a run without an answer counts as silent: its maximum duration and 60 minutes."""
    if kind is OperationKind.ASSESSMENT or maximum_duration is None:
        return ASSESSMENT_LIMIT + SILENCE
    return maximum_duration + SILENCE


def state_for(status: RunStatus) -> OperationState:
    """The final state that a run's outcome means. An outcome nobody can read is a failure."""
    if status is RunStatus.SUCCEEDED:
        return S.SUCCEEDED
    if status is RunStatus.COMPLETED_WITH_WARNINGS:
        return S.COMPLETED_WITH_WARNINGS
    return S.FAILED


class Admission(StrEnum):
    """What becomes of a request for one VM."""

    ACCEPT = "accept"
    ACCEPT_AND_CANCEL_QUEUED_ASSESSMENT = "accept_and_cancel_queued_assessment"
    # An assessment that is queued or running answers this request too, and so does a restart; queued settings take the new ones.
    JOIN = "join"
    CONFLICT = "conflict"  # an installation is queued or running


def admit(kind: OperationKind, open_operations: frozenset[tuple[OperationKind, OperationState]]) -> Admission:
    """Decide what becomes of a request for a VM that has these operations open (docs/rules.md)."""
    changing = {entry for entry in open_operations if entry[0].changes_the_machine}
    if kind is OperationKind.SETTINGS and changing == {(OperationKind.SETTINGS, S.QUEUED)}:
        return Admission.JOIN
    if kind is OperationKind.RESTART and {one for one, _state in changing} == {OperationKind.RESTART}:
        return Admission.JOIN
    if changing:
        return Admission.CONFLICT
    if kind is OperationKind.ASSESSMENT:
        return Admission.JOIN if open_operations else Admission.ACCEPT
    if (OperationKind.ASSESSMENT, S.QUEUED) in open_operations:
        return Admission.ACCEPT_AND_CANCEL_QUEUED_ASSESSMENT
    return Admission.ACCEPT
