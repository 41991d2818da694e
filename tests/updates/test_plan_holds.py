"""What the review promises is what the run does, wherever nothing fails: for random plans on machines of every story."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.test import Client

from patching.selection import RebootProspect
from patching.terms import Classification
from tests.updates.pages import assess, settle, wizard
from updates.forms.install import InstallWizard
from updates.models import Operation
from updates.selectors.blade import load_picture
from vms.models import VirtualMachine

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("recorded_catalogue")]

STORIES = [
    ("20348.5020", date(2026, 5, 20), {}),  # on track, a hotpatch to come
    ("20348.5074", date(2026, 5, 20), {}),  # hotpatched
    ("20348.4830", date(2026, 4, 16), {}),  # baseline due
    ("20348.4830", date(2026, 5, 20), {}),  # baseline overdue
    ("20348.5020", date(2026, 5, 20), {"enable_hotpatching": False}),  # not on the train
    ("26100.6899", date(2025, 10, 24), {"ws2025": True}),  # on track, an out-of-band LCU on offer
    ("26100.6905", date(2025, 10, 24), {"ws2025": True}),  # off track
]


def random_fields(dice: random.Random, kbs: list[str]) -> dict[str, object]:
    def some() -> str:
        return " ".join(kb for kb in kbs if dice.random() < 0.3)

    fields: dict[str, object] = {
        "classifications": [name.value for name in Classification if dice.random() < 0.5] or ["Security"],
        "kb_numbers_to_include": some(),
        "kb_numbers_to_exclude": some(),
        "reboot_setting": dice.choice(["IfRequired", "Never", "Always"]),
        "maximum_minutes": str(dice.choice([1, 20, 25, 30, 45, 120, 235])),
        "max_patch_publish_date": dice.choice(["", "2025-10-20", "2026-04-30", "2026-12-31"]),
        "guard_overrides": [kb for kb in kbs if dice.random() < 0.3],
    }
    if dice.random() < 0.3:
        fields["exclude_kbs_requiring_reboot"] = "on"
    return fields


@pytest.mark.parametrize("number", range(21))
def test_the_plan_holds(
    page: Client,
    operator: User,
    make_vm: Callable[..., VirtualMachine],
    number: int,
) -> None:
    from django.http import QueryDict
    from django.utils import timezone

    dice = random.Random(number)
    build, day, fields = STORIES[number % len(STORIES)]
    vm = make_vm(build, day, **fields)
    assess(page, vm)
    picture = load_picture(operator, vm.pk, now=timezone.now())
    chosen = random_fields(dice, [row.patch.kb_number for row in picture.available])

    query = QueryDict(mutable=True)
    shown = {"step": "review", "go": "review", "request_id": str(UUID(int=number + 1))} | chosen
    for name, value in shown.items():
        query.setlist(name, value if isinstance(value, list) else [value])
    review = InstallWizard(query, picture=picture)
    assert review.selection is not None
    assert review.prospect is not None

    answer = wizard(page, vm, "install", step="review", **chosen)
    if not review.is_runnable:
        assert answer.status_code == 200
        return
    assert answer.status_code == 302
    settle()
    run = Operation.objects.get(vm=vm, kind="installation")
    did = dict(run.results.values_list("patch__kb_number", "state"))
    for verdict in review.selection.left_out:
        assert did[verdict.patch.kb_number] == verdict.state, "what is left out stays out, for the same reason"
    installed = sum(state == "Installed" for state in did.values())
    assert installed + sum(state == "Pending" for state in did.values()) == review.prospect.count
    assert installed >= review.prospect.fitting, "the review promises no more than the run keeps"
    if review.prospect.fits_in_window:
        assert installed == review.prospect.count
        assert run.is_maintenance_window_exceeded is False
    if review.prospect.reboot is RebootProspect.NEVER:
        assert run.reboot_status == "NotNeeded"
    if review.prospect.reboot is RebootProspect.CERTAIN and run.state == "succeeded":
        assert run.reboot_status == "Completed"
    if chosen["reboot_setting"] == "Never":
        assert run.reboot_status in {"NotNeeded", "Required"}
