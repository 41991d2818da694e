"""Machines in Tokyo that the scheduler may patch, and rollouts of them at a time that the test says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.contrib.auth.models import User

from patching.terms import Classification, InstallationPlan
from tests.factories import ConnectionFactory, VirtualMachineFactory
from updates.models import Rollout, RolloutSource
from updates.services.rollouts import RolloutPlan, advance_rollouts, create_rollout
from vms.models import ResourceGroup, VirtualMachine
from vms.selection import VmSelection

PLAN = InstallationPlan(classifications=frozenset({Classification.SECURITY}))
NOON = datetime(2026, 11, 24, 3, tzinfo=UTC)  # in Tokyo
NIGHT = datetime(2026, 11, 24, 13, 30, tzinfo=UTC)  # 22:30 in Tokyo


def fleet(group: ResourceGroup, count: int, **facts: Any) -> list[VirtualMachine]:
    row = facts.pop("connection", None) or ConnectionFactory.create()
    values = {
        "patch_mode": "AutomaticByPlatform",
        "assessment_mode": "AutomaticByPlatform",
        "time_zone": "Tokyo Standard Time",
        "location": "japaneast",
        "power_state": "running",
    } | facts
    return [VirtualMachineFactory.create(resource_group=group, connection=row, **values) for _ in range(count)]


def make(vms: list[VirtualMachine], user: User | None = None, **options: Any) -> Rollout:
    what = RolloutPlan(name="Test", source=RolloutSource.ON_DEMAND, plan=PLAN, **options)
    return create_rollout(what=what, selection=VmSelection.of([vm.pk for vm in vms]), now=NOON, created_by=user)


def advance(rollout: Rollout, now: datetime = NOON) -> Rollout:
    Rollout.objects.filter(pk=rollout.pk, next_step_at__isnull=False).update(next_step_at=now)
    advance_rollouts(now=now)
    rollout.refresh_from_db()
    return rollout
