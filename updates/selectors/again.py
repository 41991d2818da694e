"""Installing again: the machines of some installations, and the plan that these share."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from db.arrays import array
from patching.terms import InstallationPlan, OperationKind
from updates.choices import AgainProblem
from updates.models import BulkOutcome, Operation, RolloutMember
from updates.payloads import readable
from updates.plans import PlanError, plan_from_json, plan_to_json
from vms.models import VirtualMachine

if TYPE_CHECKING:
    from django.contrib.auth.models import User

MOST_AGAIN = 1_000


@dataclass(frozen=True, slots=True)
class Again:
    """The machines and their plan; without a plan, why there is none. `value`: what the problem is about.

    `plans`: the plans, where there are several, and how many of the installations have each, the most first.
    """

    vm_ids: tuple[int, ...] = ()
    plan: InstallationPlan | None = None
    problem: AgainProblem | None = None
    value: str = ""
    plans: tuple[tuple[InstallationPlan, int], ...] = ()


def load_again(user: User, operation_ids: Sequence[str]) -> Again:
    """What these installations were asked for (four queries). An installation that was part of a bulk run or a rollout has its plan.

    So machines that were promised different updates of one plan go together again, and what they need is worked out anew.
    """
    asked = list(dict.fromkeys(operation_ids))
    if not asked:
        return Again(problem=AgainProblem.NOTHING_NAMED)
    if len(asked) > MOST_AGAIN:
        return Again(problem=AgainProblem.TOO_MANY, value=f"{len(asked):,}")
    ids = {}
    for text in asked:
        try:
            ids[UUID(text)] = text
        except ValueError:
            return Again(problem=AgainProblem.NO_OPERATION, value=text[:60])
    rows = Operation.objects.filter(pk__any=array(ids), vm__in=VirtualMachine.objects.visible_to(user).order_by())
    found = {
        pk: (kind, vm_id, payload) for pk, kind, vm_id, payload in rows.values_list("pk", "kind", "vm_id", "payload")
    }
    if gone := next((text for pk, text in ids.items() if pk not in found), None):
        return Again(problem=AgainProblem.GONE, value=gone)
    if other := next((pk for pk, (kind, _vm, _payload) in found.items() if kind != OperationKind.INSTALLATION), None):
        return Again(problem=AgainProblem.NO_INSTALLATION, value=str(other)[:8])
    wholes = _plans_of_wholes(list(found))
    plans: dict[str, InstallationPlan] = {}
    count: Counter[str] = Counter()
    for pk, (kind, _vm, payload) in found.items():
        plan = _plan(wholes.get(pk)) if pk in wholes else readable(kind, payload)
        if not isinstance(plan, InstallationPlan):
            return Again(problem=AgainProblem.UNREADABLE, value=str(pk)[:8])
        if plan.patch_name_masks_to_include or plan.patch_name_masks_to_exclude:
            return Again(problem=AgainProblem.NAME_MASKS, value=str(pk)[:8])
        plan = replace(plan, guard_overrides=())  # what the guard let pass needs its ticks anew
        key = json.dumps(plan_to_json(plan), sort_keys=True)
        plans[key] = plan
        count[key] += 1
    if len(plans) > 1:
        told = tuple((plans[key], times) for key, times in count.most_common())
        return Again(problem=AgainProblem.SEVERAL_PLANS, plans=told)
    return Again(tuple(sorted({vm_id for _kind, vm_id, _payload in found.values()})), next(iter(plans.values())))


def _plans_of_wholes(operation_ids: Sequence[UUID]) -> dict[UUID, Any]:
    """The plans of the bulk runs and rollouts that these installations were part of."""
    ids = array(operation_ids)
    bulk = BulkOutcome.objects.filter(operation__any=ids, verdict="accepted", request__plan__isnull=False)
    rollout = RolloutMember.objects.filter(operation__any=ids)
    return dict(rollout.values_list("operation_id", "rollout__plan")) | dict(
        bulk.values_list("operation_id", "request__plan")
    )


def _plan(document: Mapping[str, Any] | None) -> InstallationPlan | None:
    try:
        return plan_from_json(document or {})
    except PlanError:
        return None
