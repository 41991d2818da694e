"""The demo tells the stories that it says it tells: every machine stands where its story has it."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command

from hotpatch_portal.demo import seed, stories
from tests.updates.world import make_due
from updates.models import InstalledPatch, Operation, PatchSetMember, VmUpdateState
from updates.services.engine import sweep
from updates.services.operations import request_assessments
from vms.models import Connection, VirtualMachine

pytestmark = pytest.mark.django_db

ON_TRACK = {"web", "app", "sql", "run", "edge"}  # where the story says nothing else
TRACKS = {
    "app-009": "not_on_train",
    "app-010": "not_on_train",
    "run-never-reboot": "waits_for_reboot",
    "run-reboot-hangs": "baseline_due",
    "img-desktop": "not_on_train",
    "img-custom": "not_on_train",
    "img-container-host": "not_on_train",
    **{f"fin-{number:03}": "baseline_due" for number in range(1, 5)},
    "fin-005": "on_track",
    "fin-006": "baseline_overdue",
    **{f"hr-{number:03}": "on_track" for number in (1, 2, 3, 5)},
    "hr-off-track": "off_track_since_kb",
    **{f"lab-{number:03}": "baseline_due" for number in range(1, 4)},
    "lab-004": "on_track",
    "edge-004": "not_on_train",
}
NEVER_ASSESSED = {"run-agent-not-ready", "run-stopped"}  # they take no start


@pytest.fixture
def demo(chief: User) -> None:
    """The demo after its first assessments and runs."""
    call_command("seed_catalogue", if_empty=True, verbosity=0)
    assert seed(chief) == len(stories())
    for row in Connection.objects.all():
        Connection.objects.filter(pk=row.pk).update(config=row.config | {"clock_factor": 1e9})
    for _ in range(20):
        make_due()
        sweep(seconds=20)
        if not Operation.objects.open().exists():
            break
    assert not Operation.objects.open().exists()


@pytest.mark.usefixtures("demo")
def test_every_machine_stands_where_its_story_has_it() -> None:
    request_assessments(vm_ids=list(VirtualMachine.objects.values_list("pk", flat=True)), requested_by=None)
    make_due()
    sweep(seconds=20)
    found = dict(VirtualMachine.objects.exclude(name__in=NEVER_ASSESSED).values_list("name", "hotpatch_track"))
    expected = {name: TRACKS.get(name, "on_track") for name in found}
    assert {name for name in found if name not in TRACKS and name.split("-")[0] not in ON_TRACK} == set()
    assert found == expected


@pytest.mark.usefixtures("demo")
def test_the_week_of_kb5070881_has_one_who_took_it_and_one_who_may_choose() -> None:
    installed = InstalledPatch.objects.filter(vm__name="hr-off-track").values_list("patch__kb_number", flat=True)
    assert {"5066835", "5070881"} <= set(installed)
    offered = {
        name: set(
            PatchSetMember.objects.filter(
                patch_set__in=VmUpdateState.objects.filter(vm__name=name).values("patch_set_id")
            ).values_list("patch__kb_number", flat=True)
        )
        for name in ("hr-001", "hr-002", "hr-off-track")
    }
    assert {"5070881", "5070893"} <= offered["hr-001"], "the tour asks what to choose"
    assert "5070893" in offered["hr-002"] - {"5070881"}
    assert "5070881" not in offered["hr-002"]
    assert not {"5070881", "5070893"} & offered["hr-off-track"]
