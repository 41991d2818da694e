"""Reads of rollouts: which a user may see, their waves and their members."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db import connection
from django.db.models import Count, Exists, OuterRef, QuerySet
from django.shortcuts import get_object_or_404
from django.utils import timezone

from patching.codes import RolloutReason
from patching.freezes import Hold
from patching.rollout import Progress, ProgressError
from patching.terms import Classification, InstallationPlan, InstallationState, Verification
from updates.models import MemberState, Operation, Rollout, RolloutMember, RolloutState
from updates.plans import PlanError, plan_from_json
from updates.selectors.freezes import holds_now
from updates.selectors.waits import StartWait, start_wait
from vms.choices import Role
from vms.models import Grants, VirtualMachine

if TYPE_CHECKING:
    from django.contrib.auth.models import User

MAX_WAVES, MAX_MEMBERS, MAX_ROLLOUTS = 200, 200, 100


@dataclass(frozen=True, slots=True)
class Wave:
    """A wave with the number of its machines by state."""

    number: int
    counts: dict[str, int]
    is_current: bool

    @property
    def total(self) -> int:
        """How many machines are in it."""
        return sum(self.counts.values())

    @property
    def ended(self) -> int:
        """How many of them have ended."""
        return self.total - sum(self.counts.get(state, 0) for state in ("waiting", "started", "catching_up"))

    @property
    def percent(self) -> int:
        """How far it is."""
        return 100 * self.ended // max(1, self.total)


@dataclass(frozen=True, slots=True)
class RolloutPage:
    """A rollout with its waves and some of its machines, those that need attention first."""

    rollout: Rollout
    waves: tuple[Wave, ...]
    members: tuple[RolloutMember, ...]
    state: str
    may_move: bool
    plan: InstallationPlan | None  # None: it rolls back, or what is kept of it cannot be read
    progress: Progress | None  # None: what is kept of it cannot be read
    start_wait: StartWait | None  # what budgets still make the last of what is queued wait
    holds: tuple[Hold, ...]  # the freezes that those of `members` wait for

    @property
    def counts(self) -> dict[str, int]:
        """How many machines are in each state."""
        return {state.value: sum(wave.counts.get(state.value, 0) for wave in self.waves) for state in MemberState}

    @property
    def classifications(self) -> list[Classification]:
        """The classes that it installs."""
        return [name for name in Classification if self.plan and name in self.plan.classifications]

    @property
    def is_open(self) -> bool:
        """Whether it can still be paused, resumed or ended, by this reader."""
        return self.may_move and self.rollout.status in {RolloutState.RUNNING, RolloutState.PAUSED}

    @property
    def removed(self) -> int:
        """How many of its machines have been removed from the inventory since."""
        return max(0, self.rollout.vm_count - sum(wave.total for wave in self.waves))

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


def load_rollout(user: User, pk: UUID, *, state: str) -> RolloutPage:
    """The rollout, its waves (one query), and its machines in this state that the user still may see."""
    rollout = rollout_or_404(user, pk)
    rows = RolloutMember.objects.filter(rollout=rollout)
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    for number, member_state, count in rows.values_list("wave", "status").annotate(count=Count("pk")).order_by("wave"):
        counts[number][member_state] = count
    state = state if state in MemberState.values else ""
    shown = (
        rows.filter(status=state)
        if state
        else rows.filter(status__in=["failed", "started", "skipped", "waiting", "catching_up"])
    )
    members = (
        shown.filter(vm__in=VirtualMachine.objects.visible_to(user))
        .select_related("vm", "operation")
        .order_by("status", "wave", "pk")[:MAX_MEMBERS]
    )
    waves = tuple(Wave(number, counts[number], number == rollout.wave) for number in sorted(counts))
    may_move = rollouts_of(user, Role.OPERATOR).filter(pk=pk).exists()
    wait = None
    if any(wave.counts.get(MemberState.STARTED.value) for wave in waves):
        mine = Operation.objects.filter(pk__in=rows.filter(status=MemberState.STARTED.value).values("operation_id"))
        wait = start_wait(mine, now=timezone.now())
    plan, progress = _kept(rollout)
    frozen = [member.vm_id for member in members if member.code == RolloutReason.FROZEN]
    holds = holds_now(frozen, now=timezone.now()) if rollout.next_step_at else ()
    return RolloutPage(rollout, waves, tuple(members), state, may_move, plan, progress, wait, holds)


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
