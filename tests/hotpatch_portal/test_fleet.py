"""The load-test fleet: what a copy says is what a fresh computation gives, the same seed gives the same machines."""

from __future__ import annotations

from collections import Counter

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from hotpatch_portal.fleet import KINDS
from updates.models import InstalledPatch, Operation, VmUpdateState
from updates.services.automation import follow_schedules
from updates.services.engine import sweep
from updates.services.operations import request_assessments
from vms.models import Connection, FactsEvent, VirtualMachine

SUMMARY = (
    "name",
    "update_status",
    "critical_and_security_count",
    "other_count",
    "is_reboot_pending",
    "hotpatch_status",
    "hotpatch_track",
    "patcher",
)


def summaries() -> list[tuple[object, ...]]:
    return list(VirtualMachine.objects.order_by("pk").values_list(*SUMMARY))


@pytest.mark.django_db
def test_a_copy_says_what_a_fresh_assessment_gives() -> None:
    call_command("seed_fleet", vms=400, seed=7, verbosity=0)
    assert VirtualMachine.objects.count() == 400
    assert VmUpdateState.objects.exclude(last_assessed_at=None).count() == 400
    before, installed = summaries(), InstalledPatch.objects.count()
    assert len({row[1:] for row in before}) > 6
    assert {row[-1] for row in before} == {"nobody", "guest_os", "portal_automatically"}
    assert follow_schedules() == 0
    for row in Connection.objects.all():
        Connection.objects.filter(pk=row.pk).update(config=row.config | {"clock_factor": 1e9})
    VirtualMachine.objects.update(power_state="running")
    request_assessments(
        vm_ids=list(VirtualMachine.objects.values_list("pk", flat=True)), requested_by=None, is_bulk=True
    )
    for _ in range(50):
        sweep(seconds=10)
        if not Operation.objects.open().exists():
            break
    assert Counter(Operation.objects.values_list("state", flat=True))["succeeded"] == 400 + len(KINDS)
    assert summaries() == before
    assert InstalledPatch.objects.count() == installed
    assert not FactsEvent.objects.exists(), "a made-up inventory has no history"


@pytest.mark.django_db
def test_the_same_seed_gives_the_same_machines_and_more_cost_no_more_statements() -> None:
    made = []
    for count in (100, 100, 3_000):
        with CaptureQueriesContext(connection) as captured:
            call_command("seed_fleet", vms=count, seed=3, unassessed=True, verbosity=0)
        rows = list(
            VirtualMachine.objects.order_by("pk").values_list("arm_id", "location", "zones", "tags", "image_sku")
        )
        made.append((rows, len(captured)))
        for model in (Operation, InstalledPatch, VmUpdateState, VirtualMachine):
            model.objects.all().delete()
        connection.cursor().execute(
            "DELETE FROM vms_connection; DELETE FROM vms_resourcegroup; DELETE FROM vms_subscription"
        )
    assert made[0][0] == made[1][0]
    assert made[2][0] != made[0][0]
    assert made[1][1] == made[2][1]


@pytest.mark.django_db
@pytest.mark.parametrize(("option", "value"), [("vms", 0), ("vms", 6_000_000), ("seed", -1), ("seed", 70_000)])
def test_a_size_that_makes_no_sense_is_refused(option: str, value: int) -> None:
    with pytest.raises(CommandError, match=f"--{option}"):
        call_command("seed_fleet", **({"vms": 10} | {option: value}))
