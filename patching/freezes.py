"""Freezes: times in which nothing that changes a machine may run (docs/rules.md, freezes).

A freeze holds at every start and at every end: what begins in one does not start, and neither does what could still run when
one begins. The same question is asked at every door, about the freezes that mean the machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from patching.lifecycle import ASSESSMENT_LIMIT
from patching.rollback import RollbackOrder
from patching.terms import InstallationPlan, OperationKind

# What only looks, and what only says how a machine is to be patched. Every other kind is held, those of tomorrow too.
NEVER_HELD = frozenset({OperationKind.ASSESSMENT, OperationKind.SETTINGS})


class Answer(StrEnum):
    """Why an act is held."""

    FROZEN = "frozen"  # it would begin in a freeze
    RUNS_INTO = "runs_into"  # it could still run when one begins


class FreezeState(StrEnum):
    """Where a freeze is at a moment."""

    AHEAD = "ahead"
    HOLDS = "holds"
    OVER = "over"
    ENDED = "ended"  # early, by a person


@dataclass(frozen=True, slots=True)
class Frozen:
    """A freeze as it holds for one machine, up to but not with `ends_at`. `excepted_until`: up to then it does not."""

    begins_at: datetime
    ends_at: datetime
    name: str = ""
    excepted_until: datetime | None = None

    @property
    def holds_from(self) -> datetime:
        """The moment from which on it holds; not before `ends_at` if it never does."""
        return max(self.begins_at, self.excepted_until or self.begins_at)

    def touches(self, begins_at: datetime, ends_at: datetime) -> bool:
        """Whether an act between these moments would be in it for a part."""
        return self.holds_from < self.ends_at and begins_at < self.ends_at and self.holds_from < ends_at


@dataclass(frozen=True, slots=True)
class Hold:
    """Why an act does not start now: the names of the freezes, in their order, and the first moment at which it may.

    `left`: how long until they hold; nothing in a freeze.
    """

    answer: Answer
    names: tuple[str, ...]
    free_at: datetime
    left: timedelta


def judge_start(freezes: Iterable[Frozen], *, now: datetime, longest: timedelta) -> Hold | None:
    """Whether an act that begins now and lasts at most `longest` is held by these freezes; None: it may start."""
    known = sorted(freezes, key=lambda freeze: (freeze.holds_from, freeze.ends_at, freeze.name))
    free_at, met = now, list[Frozen]()
    while hit := next((freeze for freeze in known if freeze.touches(free_at, free_at + longest)), None):
        met.append(hit)
        free_at = hit.ends_at
    if not met:
        return None
    left = max(timedelta(0), met[0].holds_from - now)
    names = tuple(dict.fromkeys(freeze.name for freeze in met))
    return Hold(Answer.RUNS_INTO if left else Answer.FROZEN, names, free_at, left)


def time_to_freeze(freezes: Iterable[Frozen], now: datetime) -> timedelta | None:
    """How long until the first of these freezes holds; zero inside of one, None if none comes any more."""
    ahead = [freeze.holds_from for freeze in freezes if freeze.holds_from < freeze.ends_at and now < freeze.ends_at]
    return max(timedelta(0), min(ahead) - now) if ahead else None


def is_held(kind: OperationKind) -> bool:
    """Whether freezes hold operations of this kind."""
    return kind not in NEVER_HELD


def longest_act(payload: object) -> timedelta:
    """How long an operation that carries this may change its machine: an hour where it does not say."""
    match payload:
        case InstallationPlan():
            return payload.maximum_duration
        case RollbackOrder():
            return 2 * payload.duration  # it uninstalls, and may install again after that
        case _:
            return ASSESSMENT_LIMIT
