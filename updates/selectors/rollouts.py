"""Reads of rollouts: which a user may see, their waves and their members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db import connection
from django.db.models import Case, Count, Exists, OuterRef, Q, QuerySet, Value, When
from django.shortcuts import get_object_or_404

from patching.codes import RolloutReason
from patching.freezes import Hold
from patching.rollout import Gate, Progress, ProgressError, WaveResult, gate_of
from patching.terms import InstallationPlan, InstallationState, OperationState, Verification
from updates.choices import RunPart
from updates.models import MemberState, Operation, Rollout, RolloutMember, RolloutState
from updates.plans import PlanError, plan_from_json
from updates.selectors.freezes import holds_now
from updates.selectors.runs import (
    ENDED_PARTS,
    Eta,
    MachineRow,
    Retry,
    RunReason,
    expected_end,
    failed_pairs,
    of_reason,
    reasons_of,
    retry_of,
    row_of,
    seen_by,
    with_kbs,
)
from updates.selectors.waits import StartWait, start_wait
from vms.choices import PowerState, Role
from vms.models import Grants, VirtualMachine

if TYPE_CHECKING:
    from django.contrib.auth.models import User

MAX_WAVES, MAX_MEMBERS, MAX_ROLLOUTS = 200, 200, 100


@dataclass(frozen=True, slots=True)
class Wave:
    """A wave with the number of its machines in each part, as far as the reader sees them."""

    number: int
    parts: Mapping[RunPart, int]
    is_current: bool

    @property
    def total(self) -> int:
        """How many machines are in it."""
        return sum(self.parts.values())

    @property
    def ended(self) -> int:
        """How many of them have ended."""
        return sum(self.parts[part] for part in ENDED_PARTS)

    @property
    def percent(self) -> int:
        """How far it is."""
        return 100 * self.ended // max(1, self.total)


@dataclass(frozen=True, slots=True)
class RolloutPage:
    """A rollout with its waves and some of its machines, those that need attention first."""

    rollout: Rollout
    waves: tuple[Wave, ...]
    counts: Mapping[str, int]  # machines in each state
    rows: tuple[MachineRow, ...]
    state: str
    reason: tuple[str, str] | None  # the code and KB that are asked for
    reasons: tuple[RunReason, ...]
    gate: Gate
    may_move: bool
    plan: InstallationPlan | None  # None: it rolls back or restarts, or what is kept of it cannot be read
    progress: Progress | None  # None: what is kept of it cannot be read
    retry: Retry | None
    eta: Eta | None
    start_wait: StartWait | None  # what budgets still make the last of what is queued wait
    kept: int  # machines that are still in the inventory, seen or not
    holds: tuple[Hold, ...]  # the freezes that those of `members` wait for

    @property
    def parts(self) -> dict[RunPart, int]:
        """How many machines are in each part."""
        return {part: sum(wave.parts[part] for wave in self.waves) for part in RunPart}

    @property
    def state_words(self) -> str:
        """The state that is asked for, in words."""
        return str(MemberState(self.state).label) if self.state else ""

    @property
    def is_open(self) -> bool:
        """Whether it can still be paused, resumed or ended, by this reader."""
        return self.may_move and self.rollout.status in {RolloutState.RUNNING, RolloutState.PAUSED}

    @property
    def broken(self) -> int:
        """How many machines it would go on without, where they made it pause."""
        is_paused = self.rollout.status == RolloutState.PAUSED and self.rollout.reason == RolloutReason.BUDGET_USED
        return self.gate.bad if is_paused else 0

    @property
    def removed(self) -> int:
        """How many of its machines have been removed from the inventory since."""
        return max(0, self.rollout.vm_count - self.kept)

    @property
    def shown_waves(self) -> tuple[Wave, ...]:
        """The waves around the current one."""
        first = max(0, min(self.rollout.wave - 20, len(self.waves) - MAX_WAVES))
        return self.waves[first : first + MAX_WAVES]

    @property
    def percent(self) -> int:
        """How far the whole of it is."""
        total = sum(wave.total for wave in self.waves)
        return 100 * sum(wave.ended for wave in self.waves) // max(1, total)


def rollouts_of(user: User, role: Role = Role.READER, *, grants: Grants | None = None) -> QuerySet[Rollout]:
    """The rollouts that the user may see now, or with a stronger role act on (docs/rules.md, selection of machines).

    Owners of everything: all. Others: those they made, while they hold the role on at least one of the machines. `grants`:
    the user's, where they were just read.
    """
    rows = Rollout.objects.select_related("created_by", "configuration").order_by("-created_at")
    grants = Grants.of(user) if grants is None else grants
    if grants.at_least(Role.OWNER).are_of_everything:
        return rows
    vms = VirtualMachine.objects.order_by().granted_by(grants, role).values("pk")
    return rows.filter(Exists(RolloutMember.objects.filter(rollout_id=OuterRef("pk"), vm__in=vms)), created_by=user)


def rollout_or_404(user: User, pk: UUID, role: Role = Role.READER) -> Rollout:
    """A rollout that the user may see now; 403 for who may see it and does not hold the role."""
    rollout = get_object_or_404(rollouts_of(user), pk=pk)
    if role is not Role.READER and not rollouts_of(user, role).filter(pk=pk).exists():
        raise PermissionDenied
    return rollout


def unhealthy_in(rollout: Rollout) -> int:
    """How many of its machines were updated and are not healthy: they do not run, or have not answered since."""
    return RolloutMember.objects.filter(
        Q(vm__update_state__is_awaiting_assessment=True)
        | ~Q(vm__power_state__in=[PowerState.RUNNING.value, PowerState.UNKNOWN.value]),
        rollout=rollout,
        status=MemberState.SUCCEEDED,
    ).count()


def load_rollout(
    user: User, pk: UUID, *, state: str, now: datetime, reason: tuple[str, str] | None = None
) -> RolloutPage:
    """The rollout, its waves, its gate and its machines in this state, all but the gate of machines that the user still may see.

    `reason`: the code and KB of the failures that are asked for. A fixed number of queries.
    """
    rollout = rollout_or_404(user, pk)
    everything = RolloutMember.objects.filter(rollout=rollout)
    rows = seen_by(user, everything)
    waves, counts = _waves(rollout, rows)
    failed = rows.filter(status=MemberState.FAILED)
    state = state if state in MemberState.values else ""
    shown = rows.filter(status=state) if state else rows
    if reason is not None:
        state, shown = MemberState.FAILED.value, of_reason(failed, code=reason[0], kb_number=reason[1])
    place = Case(*(When(status=status, then=Value(number)) for number, status in enumerate(_FIRST)))
    members = with_kbs(shown).order_by(place, "wave", "pk")[:MAX_MEMBERS]
    wait = None
    if counts[MemberState.STARTED]:
        mine = Operation.objects.filter(pk__in=rows.filter(status=MemberState.STARTED.value).values("operation_id"))
        wait = start_wait(mine, now=now)
    plan, progress = _kept(rollout)
    is_over = rollout.status != RolloutState.RUNNING
    frozen = [member.vm_id for member in members if member.code == RolloutReason.FROZEN]
    return RolloutPage(
        rollout=rollout,
        waves=waves,
        counts=counts,
        rows=tuple(row_of(member, now) for member in members),
        state=state,
        reason=reason,
        reasons=reasons_of(failed, count=counts[MemberState.FAILED], is_watched=not is_over),
        gate=_gate(rollout, everything),
        may_move=rollouts_of(user, Role.OPERATOR).filter(pk=pk).exists(),
        plan=plan,
        progress=progress,
        retry=_retry(user, rollout, failed) if is_over and counts[MemberState.FAILED] else None,
        eta=None if is_over else _eta(rollout, waves, wait, now),
        start_wait=wait,
        kept=everything.count(),
        holds=holds_now(frozen, now=now) if rollout.next_step_at else (),
    )


# What needs somebody comes first.
_FIRST = [
    state.value
    for state in (
        MemberState.FAILED,
        MemberState.STARTED,
        MemberState.SKIPPED,
        MemberState.WAITING,
        MemberState.CATCHING_UP,
        MemberState.SUCCEEDED,
    )
]
_PARTS = {
    MemberState.SUCCEEDED: RunPart.SUCCEEDED,
    MemberState.FAILED: RunPart.FAILED,
    MemberState.STARTED: RunPart.RUNNING,
    MemberState.WAITING: RunPart.WAITING,
    MemberState.CATCHING_UP: RunPart.WAITING,
    MemberState.SKIPPED: RunPart.SKIPPED,
}


def _waves(rollout: Rollout, rows: QuerySet[RolloutMember]) -> tuple[tuple[Wave, ...], dict[str, int]]:
    """The waves with their machines by part, and all machines by state (one query)."""
    waves: dict[int, dict[RunPart, int]] = {}
    counts = dict.fromkeys(MemberState.values, 0)
    contradicted = RolloutReason.CONTRADICTED.value
    has_warnings = OperationState.COMPLETED_WITH_WARNINGS.value
    groups = rows.order_by().values_list("wave", "status", "code", "operation__state").annotate(count=Count("pk"))
    for number, status, code, operation_state, count in groups:
        part = _PARTS[MemberState(status)]
        if part is RunPart.FAILED and code == contradicted:
            part = RunPart.CONTRADICTED
        elif part is RunPart.SUCCEEDED and operation_state == has_warnings:
            part = RunPart.WITH_WARNINGS
        waves.setdefault(number, dict.fromkeys(RunPart, 0))[part] += count
        counts[status] += count
    return tuple(Wave(number, waves[number], number == rollout.wave) for number in sorted(waves)), counts


def _gate(rollout: Rollout, members: QuerySet[RolloutMember]) -> Gate:
    """The arithmetic of the rollout's gate as it stands: of all its machines, since it stops for all of them (two queries)."""
    counts = dict(members.order_by().values_list("status").annotate(count=Count("pk")))
    bad = counts.get(MemberState.FAILED.value, 0) + unhealthy_in(rollout)
    result = WaveResult(counts.get(MemberState.SUCCEEDED.value, 0), max(0, bad - rollout.forgiven), 0)
    return gate_of(result, most_failures=rollout.most_failures, most_percent=rollout.most_percent)


def _retry(user: User, rollout: Rollout, failed: QuerySet[RolloutMember]) -> Retry | None:
    """The failures that this reader can retry: those whose own run failed."""
    mine = seen_by(user, failed.filter(operation__state=OperationState.FAILED.value), Role.OPERATOR)
    return retry_of(rollout.kind, failed_pairs(mine), count=mine.count())


def _eta(rollout: Rollout, waves: Sequence[Wave], wait: StartWait | None, now: datetime) -> Eta | None:
    """When the last wave has ended, if it goes on as it went; nothing while it waits for a time of day or a wave's watch."""
    if rollout.reason not in {"", RolloutReason.BESIDE_OTHERS}:
        return None
    ended = sum(wave.ended - wave.parts[RunPart.SKIPPED] for wave in waves)
    left = sum(wave.total - wave.ended for wave in waves)
    return expected_end(ended=ended, left=left, since=rollout.created_at, wait=wait, now=now)


def _kept(rollout: Rollout) -> tuple[InstallationPlan | None, Progress | None]:
    """What it installs and where it is; None: it rolls back, or what is kept cannot be read."""
    plan = progress = None
    with suppress(PlanError):
        plan = plan_from_json(rollout.plan)
    with suppress(ProgressError):
        progress = Progress.from_json(rollout.lanes, rollout.rings, rollout.proven)
    return plan, progress


_PROVEN = """
WITH runs AS MATERIALIZED (
    SELECT o.id, o.verification FROM updates_rolloutmember m JOIN updates_operation o ON o.id = m.operation_id
    WHERE m.rollout_id = %(rollout)s AND m.wave < %(wave)s
)
SELECT p.kb_number FROM updates_patchresult r JOIN runs ON runs.id = r.operation_id
JOIN updates_patch p ON p.id = r.patch_id
WHERE p.kb_number <> ''
GROUP BY p.kb_number
HAVING bool_or(r.state = %(installed)s AND runs.verification <> %(contradicted)s)
    AND NOT bool_or(r.state = %(failed)s)
    AND NOT bool_or(r.state = %(installed)s AND runs.verification = %(contradicted)s)
ORDER BY 1
"""


def proven_kbs(rollout_id: UUID, *, before_wave: int) -> list[str]:
    """The KBs that earlier waves installed, that failed nowhere in them and that no later look contradicted (one query)."""
    with connection.cursor() as cursor:
        values = {
            "installed": InstallationState.INSTALLED.value,
            "failed": InstallationState.FAILED.value,
            "contradicted": Verification.CONTRADICTED.value,
        }
        cursor.execute(_PROVEN, {"rollout": rollout_id, "wave": before_wave, **values})
        return [row[0] for row in cursor.fetchall()]
