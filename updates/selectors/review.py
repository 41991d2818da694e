"""The review of an installation on many machines: what a run would do on which of them, before anything is asked of them.

One statement counts machines that are alike in all that decides; what a plan does is judged once for each kind, and kinds
on which it does the same are one row. Nothing grows with the fleet but that statement and the ids that it returns.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import NamedTuple

from db.arrays import array
from db.bounded import fetch_bounded
from patching.codes import ErrorCode
from patching.selection import PatchVerdict, RebootProspect, RunWork, SelectionReason, named
from patching.terms import HotpatchTrack, InstallationPlan, OperationKind, RebootBehavior, UpdateStatus
from updates.plans import Promise, promise_to_json
from updates.selectors.freezes import held
from updates.selectors.work import Foreseen, Foresight, Kind
from vms.choices import PowerState
from vms.models import VirtualMachine
from vms.selection import VmSelection

MOST_ROWS = 50  # rows that a review shows; the others are counted together
MOST_NAMES = 20  # machines that a row names

# Machines by all that decides what a plan does there, and why nothing may be sent to them: the first reason that fits.
_KINDS = """
WITH busy AS MATERIALIZED (
    SELECT DISTINCT vm_id FROM updates_operation WHERE next_step_at IS NOT NULL AND kind <> %s
), held AS MATERIALIZED (
    SELECT vm_id, string_agg(kb_number, ' ' ORDER BY kb_number) AS kbs FROM updates_kbhold GROUP BY vm_id
)
SELECT m.connection_id, coalesce(s.patch_set_id, 0), m.product_line, c.config ->> 'catalogue_date', m.hotpatch_track,
    m.is_reboot_pending, coalesce(h.kbs, ''),
    CASE WHEN m.id = ANY(%s::bigint[]) THEN %s
         WHEN m.gone_at IS NOT NULL THEN %s
         WHEN b.vm_id IS NOT NULL THEN %s
         WHEN m.id = ANY(%s::bigint[]) THEN %s
         WHEN m.update_status = %s THEN %s
         WHEN s.is_awaiting_assessment THEN %s
         WHEN m.power_state <> ALL(%s::text[]) THEN %s
         WHEN s.patch_set_id IS NULL THEN %s
         ELSE '' END AS code,
    count(*), array_agg(m.id ORDER BY m.id)::text
FROM vms_virtualmachine m
JOIN vms_connection c ON c.id = m.connection_id
LEFT JOIN updates_vmupdatestate s ON s.vm_id = m.id
LEFT JOIN busy b ON b.vm_id = m.id
LEFT JOIN held h ON h.vm_id = m.id
WHERE m.id = ANY(%s::bigint[])
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
"""


class Leaves(NamedTuple):
    """An update that the hotpatch guard leaves out on these machines, or would without a tick.

    `off_until`: the month of the planned baseline that would bring them back.
    """

    kb_number: str
    machines: int
    off_until: date | None
    is_ticked: bool


@dataclass(frozen=True, slots=True)
class PlanGroup:
    """Machines on which the plan does the same, or nothing for the same reason. `packed`: their ids, as `VmSelection` has them."""

    promise: Promise
    count: int
    packed: str
    foreseen: Foreseen | None = None
    names: tuple[tuple[int, str], ...] = ()

    @property
    def is_started(self) -> bool:
        """Whether the machines take the plan."""
        return self.promise.plan is not None

    @property
    def taken(self) -> list[PatchVerdict]:
        """The updates that are installed."""
        return list(self.foreseen.selection.selected) if self.foreseen and self.is_started else []

    @property
    def guarded(self) -> list[PatchVerdict]:
        """The updates that the guard leaves out."""
        verdicts = self.foreseen.selection.verdicts if self.foreseen else ()
        return [verdict for verdict in verdicts if verdict.reason is SelectionReason.GUARD]

    @property
    def unnamed(self) -> int:
        """How many machines `names` leaves out."""
        return self.count - len(self.names)


@dataclass(frozen=True, slots=True)
class Load:
    """How many machines of a connection take the plan, and how long their runs take: all together, and the longest."""

    machines: int
    total: timedelta
    longest: timedelta


@dataclass(frozen=True)
class Review:
    """What a plan does on a selection, one row for each thing that it does; those that take it first."""

    groups: tuple[PlanGroup, ...]
    loads: dict[int, Load]  # by connection
    leaves: tuple[Leaves, ...]
    unknown_kbs: tuple[str, ...]  # included, and offered to none of the machines
    removed: int  # selected, and in the inventory no more

    @property
    def started(self) -> int:
        """How many machines take the plan."""
        return sum(group.count for group in self.groups if group.is_started)

    @property
    def left_out(self) -> int:
        """How many do not."""
        return sum(group.count for group in self.groups) - self.started

    def _with(self, *prospects: RebootProspect) -> int:
        found = (group for group in self.groups if group.is_started and group.promise.outlook.reboot in prospects)
        return sum(group.count for group in found)

    @property
    def rebooting(self) -> int:
        """How many reboot for certain."""
        return self._with(RebootProspect.CERTAIN)

    @property
    def perhaps_rebooting(self) -> int:
        """How many may reboot."""
        return self._with(RebootProspect.POSSIBLE)

    @property
    def waiting_for_reboot(self) -> int:
        """How many need a reboot afterwards that the plan does not allow."""
        return self._with(RebootProspect.REQUIRED_BUT_NOT_ALLOWED)

    @property
    def beyond_window(self) -> int:
        """On how many machines not every update can be started in the maximum duration."""
        found = (g for g in self.groups if g.is_started and g.foreseen and not g.foreseen.prospect.fits_in_window)
        return sum(group.count for group in found)

    @property
    def rebooting_on_track(self) -> list[str]:
        """KBs that may reboot machines which only take hotpatches otherwise."""
        found = {
            verdict.patch.kb_number
            for group in self.groups
            for verdict in group.taken
            if group.promise.outlook.reboots and verdict.patch.reboot_behavior is not RebootBehavior.NEVER_REBOOTS
        }
        return sorted(kb for kb in found if kb)

    @property
    def packed(self) -> str:
        """The ids of the machines that take the plan."""
        return "{" + ",".join(group.packed[1:-1] for group in self.groups if group.is_started) + "}"

    @property
    def shown(self) -> tuple[PlanGroup, ...]:
        """The rows to show."""
        return self.groups[:MOST_ROWS]

    @property
    def others(self) -> tuple[int, int]:
        """How many rows are not shown, and how many machines they are."""
        rest = self.groups[MOST_ROWS:]
        return len(rest), sum(group.count for group in rest)

    @cached_property
    def mark(self) -> str:
        """Which machines are promised what: two reviews have the same mark if, and only if, they say the same."""
        digest = hashlib.sha256()
        for group in sorted(self.groups, key=lambda group: group.packed):
            digest.update(group.packed.encode())
            digest.update(json.dumps(promise_to_json(group.promise), sort_keys=True).encode())
        return digest.hexdigest()


def load_review(
    selection: VmSelection, plan: InstallationPlan, *, now: datetime, without_role: Collection[int] = ()
) -> Review:
    """What the plan does on these machines (five queries, and two more where a freeze is near). Raises `ListTooSlowError`.

    `without_role`: those of them on which who asks may not act.
    """
    code = ErrorCode
    rows = fetch_bounded(
        _KINDS,
        [
            OperationKind.ASSESSMENT.value,
            array(without_role),
            code.ROLE_MISSING.value,
            code.VM_GONE.value,
            code.CONFLICT_INSTALLATION_OPEN.value,
            array(sorted(held(selection.ids, kind=OperationKind.INSTALLATION, payload=plan, now=now))),
            code.FREEZE_HELD.value,
            UpdateStatus.UNSUPPORTED.value,
            code.VM_UNSUPPORTED.value,
            code.VM_AWAITING_ASSESSMENT.value,
            [PowerState.RUNNING.value, PowerState.UNKNOWN.value],
            code.VM_NOT_RUNNING.value,
            code.VM_NOT_ASSESSED.value,
            selection.packed,
        ],
    )
    foresight = Foresight(plan, patch_sets={row[1] for row in rows if not row[7]}, now=now)
    found: dict[str, list[tuple[Promise, Foreseen | None, int, str]]] = defaultdict(list)
    loads: dict[int, list[tuple[int, timedelta]]] = defaultdict(list)
    guarded: dict[tuple[str, date | None, bool], int] = defaultdict(int)
    for connection_id, patch_set, line, day, track, is_pending, kbs, why_not, count, packed in rows:
        promise, seen = Promise(code=why_not), None
        if not why_not:
            seen = foresight.of(Kind(patch_set, line, day, HotpatchTrack(track), is_pending, tuple(kbs.split())))
            promise = _promise(plan, seen)
            for verdict in _guarded(seen):
                guarded[verdict.patch.kb_number, verdict.off_until, verdict.is_selected] += count
        if promise.plan is not None and seen is not None:
            loads[connection_id].append((count, seen.prospect.duration))
        found[_key(promise, seen)].append((promise, seen, count, packed))
    groups = [_group(same) for same in found.values()]
    groups.sort(key=lambda group: (not group.is_started, -group.count, group.packed))
    return Review(
        groups=_named(groups),
        loads={pk: _load(runs) for pk, runs in sorted(loads.items())},
        leaves=tuple(
            Leaves(kb, machines, until, is_ticked)
            for (kb, until, is_ticked), machines in sorted(
                guarded.items(), key=lambda item: (item[0][0], str(item[0][1]))
            )
        ),
        unknown_kbs=tuple(kb for kb in plan.kb_numbers_to_include if not foresight.offers(kb)),
        removed=selection.count - sum(group.count for group in groups),
    )


def _promise(plan: InstallationPlan, seen: Foreseen) -> Promise:
    if seen.work is RunWork.NOTHING:
        return Promise(code=ErrorCode.PLAN_NOTHING_TO_DO.value)
    return Promise(named(plan, seen.selection), seen.outlook)


def _guarded(seen: Foreseen) -> Iterable[PatchVerdict]:
    reasons = {SelectionReason.GUARD, SelectionReason.GUARD_OVERRIDDEN}
    return (verdict for verdict in seen.selection.verdicts if verdict.reason in reasons)


def _key(promise: Promise, seen: Foreseen | None) -> str:
    """What two kinds of machines agree in that are one row."""
    left = sorted(v.patch.kb_number for v in _guarded(seen) if not v.is_selected) if seen else []
    lasts = [str(seen.prospect.duration), seen.prospect.fitting] if seen and promise.plan else []
    return json.dumps([promise_to_json(promise), left, lasts], sort_keys=True)


def _group(same: Sequence[tuple[Promise, Foreseen | None, int, str]]) -> PlanGroup:
    promise, seen, count, ids_of_all = same[0]
    if len(same) == 1:
        return PlanGroup(promise, count, ids_of_all, seen)
    ids = sorted(int(pk) for _p, _s, _c, packed in same for pk in packed[1:-1].split(","))
    return PlanGroup(promise, len(ids), array(ids), seen)


def _load(runs: Sequence[tuple[int, timedelta]]) -> Load:
    return Load(
        sum(count for count, _lasts in runs),
        sum((count * lasts for count, lasts in runs), timedelta()),
        max(lasts for _count, lasts in runs),
    )


def _named(groups: Sequence[PlanGroup]) -> tuple[PlanGroup, ...]:
    """The same groups; those that are shown name their first machines (one query)."""
    firsts = [
        [int(pk) for pk in group.packed[1:-1].split(",", MOST_NAMES)[:MOST_NAMES]] for group in groups[:MOST_ROWS]
    ]
    names = dict(
        VirtualMachine.objects.filter(pk__any=array(pk for some in firsts for pk in some))
        .order_by()
        .values_list("pk", "name")
    )
    shown = [
        PlanGroup(g.promise, g.count, g.packed, g.foreseen, tuple((pk, names[pk]) for pk in some if pk in names))
        for g, some in zip(groups, firsts, strict=False)
    ]
    return (*shown, *groups[MOST_ROWS:])
