"""What waits for a decision, and how old the catalogue is: told on every page that it concerns, and decided once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.factories import (
    ConnectionFactory,
    PatchFactory,
    RoleAssignmentFactory,
    UserFactory,
    VirtualMachineFactory,
)
from tests.forms import text_of
from tests.updates.world import assessed
from updates.models import Patch, PatchSet, PatchSetMember, Release, VmUpdateState
from updates.selectors.health import find_trouble
from updates.services.catalogue import import_catalogue
from updates.services.words import refresh_words
from vms.choices import Role
from vms.models import ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db
DATA = Path(__file__).resolve().parents[2] / "updates" / "data"
MAY = datetime(2026, 5, 20, 12, tzinfo=UTC)
URL = "/decisions/"


@pytest.fixture(autouse=True)
def _catalogue(db: None) -> None:
    import_catalogue(data=(DATA / "hotpatch_releases.json").read_bytes())
    Release.objects.update(is_type_confirmed=True)


def offered(vm: VirtualMachine, *patches: Patch) -> None:
    found, _ = PatchSet.objects.get_or_create(
        digest=",".join(sorted(str(p.pk) for p in patches)).encode()[:32],
        defaults={"critical_and_security_count": len(patches)},
    )
    for patch in patches:
        PatchSetMember.objects.get_or_create(patch_set=found, patch=patch)
    VmUpdateState.objects.filter(vm=vm).update(patch_set=found)


@pytest.fixture
def fleet(resource_group: ResourceGroup) -> list[VirtualMachine]:
    row = ConnectionFactory(catalogue_date=None)
    mine = [VirtualMachineFactory(resource_group=resource_group, connection=row) for _ in range(2)]
    others = [VirtualMachineFactory(connection=row) for _ in range(3)]
    return [assessed(vm, MAY, "20348.5074", "5082142", "5087424") for vm in (*mine, *others)]


@pytest.fixture
def unknown(fleet: list[VirtualMachine]) -> Patch:
    """An OS update that no source explains, on no baseline's Patch Tuesday."""
    patch: Patch = PatchFactory(
        kb_number="5999999",
        title="2026-05 Cumulative Update for Microsoft server operating system version 21H2 for x64 (KB5999999)",
        published_on=date(2026, 5, 19),
    )
    for vm in fleet:
        offered(vm, patch)
    refresh_words(now=MAY)
    return patch


def test_an_unknown_update_is_told_with_the_machines_that_wait(
    client: Client, reader: User, chief: User, fleet: list[VirtualMachine], unknown: Patch
) -> None:
    with time_machine.travel(MAY, tick=False):
        client.force_login(chief)
        assert "KB5999999 waits for a decision : 5 machines wait." in text_of(client.get("/virtual-machines/"))
        assert "5 machines wait." in text_of(client.get(URL))
        blade = text_of(client.get(reverse("updates:blade", args=[fleet[0].pk])))
        assert "KB5999999 waits for a decision" in blade
        assert "Waits for a decision : By its title it replaces the whole operating system" in blade
        client.force_login(reader)  # sees two of the five
        assert "KB5999999 waits for a decision : 2 machines wait." in text_of(client.get("/virtual-machines/"))
        (finding,) = (finding for finding in find_trouble() if finding.code == "decision_waits")
    assert finding.examples == ("KB5999999 (ws2022): 5 machines",)


@pytest.mark.parametrize(("answer", "kind"), [("oob_lcu", "oob_lcu"), ("oob_hotpatch", "oob_hotpatch")])
def test_one_answer_decides_for_all(
    client: Client, chief: User, fleet: list[VirtualMachine], unknown: Patch, answer: str, kind: str
) -> None:
    client.force_login(chief)
    with time_machine.travel(MAY, tick=False):
        asked = {"line": "ws2022", "kb": "5999999", "answer": answer}
        assert "Say why" in text_of(client.post(URL, asked))
        assert not Release.objects.filter(kb_number="5999999").exists()
        assert client.post(URL, asked | {"reason": "Microsoft's release page"}).status_code == 302
    row = Release.objects.get(kb_number="5999999")
    assert (row.type, row.is_type_confirmed, row.confirmed_by) == (kind, True, "chief")
    refresh_words(now=MAY + timedelta(minutes=1))
    with time_machine.travel(MAY, tick=False):
        assert "No update waits for a decision." in text_of(client.get(URL))
        again = client.post(URL, asked | {"reason": "again"})
    assert again.status_code == 422
    assert "Nothing waits for this answer any more." in text_of(again)


def test_an_unplanned_baseline_is_due_on_every_machine_once_it_is_decided(
    client: Client, chief: User, fleet: list[VirtualMachine]
) -> None:
    Release.objects.filter(month__gte=date(2026, 6, 1)).delete()
    june = datetime(2026, 6, 10, 12, tzinfo=UTC)
    patch = PatchFactory(
        kb_number="5999998", title="2026-06 Security Update (KB5999998) (20348.5999)", published_on=date(2026, 6, 9)
    )
    VmUpdateState.objects.update(last_assessed_at=june)
    for vm in fleet:
        offered(vm, patch)
    refresh_words(now=june)
    client.force_login(chief)
    with time_machine.travel(june, tick=False):
        assert "KB5999998 waits for a decision : 5 machines wait." in text_of(client.get("/virtual-machines/"))
        answer = {"line": "ws2022", "kb": "5999998", "answer": "baseline", "reason": "release notes"}
        assert client.post(URL, answer).status_code == 302
    row = Release.objects.get(kb_number="5999998")
    assert (row.type, row.is_planned, row.build, row.month) == ("baseline", False, "20348.5999", date(2026, 6, 1))
    refresh_words(now=june)
    assert set(VirtualMachine.objects.values_list("hotpatch_track", flat=True)) == {"baseline_due"}


def test_a_due_machine_that_is_offered_a_later_update_and_no_baseline_waits(
    client: Client, chief: User, resource_group: ResourceGroup
) -> None:
    april = datetime(2026, 4, 20, 12, tzinfo=UTC)
    vm = assessed(
        VirtualMachineFactory(
            ws2025=True, resource_group=resource_group, connection=ConnectionFactory(catalogue_date=None)
        ),
        april,
        "26100.32463",
        "5073379",
        "5078736",
    )
    later = Patch.objects.get(product_line="ws2025", kb_number="5091157")
    offered(vm, later)
    refresh_words(now=april)
    assert VirtualMachine.objects.get(pk=vm.pk).hotpatch_track == "baseline_due"
    client.force_login(chief)
    with time_machine.travel(april, tick=False):
        assert "KB5091157 waits for a decision : 1 machine waits." in text_of(client.get("/virtual-machines/"))
    offered(vm, later, Patch.objects.get(product_line="ws2025", kb_number="5082063"))
    refresh_words(now=april)
    with time_machine.travel(april, tick=False):
        assert "waits for a decision" not in text_of(client.get("/virtual-machines/"))


def test_a_release_is_confirmed_by_its_row(client: Client, chief: User) -> None:
    row = Release.objects.get(product_line="ws2022", kb_number="5082142")
    Release.objects.filter(pk=row.pk).update(is_type_confirmed=False)
    client.force_login(chief)
    with time_machine.travel(MAY, tick=False):
        assert "KB5082142" in text_of(client.get(URL))
        assert "type not confirmed" in text_of(client.get("/calendar/?line=ws2022&year=2026"))
        assert client.post(URL, {"release": row.pk, "reason": "read in the release notes"}).status_code == 302
        assert "Every type is confirmed." in text_of(client.get(URL))
    row.refresh_from_db()
    assert (row.is_type_confirmed, row.confirmed_by) == (True, "chief")


def test_a_verdict_that_rests_on_an_unconfirmed_type_says_so(
    client: Client, chief: User, fleet: list[VirtualMachine]
) -> None:
    Release.objects.filter(product_line="ws2022", kb_number="5082142").update(is_type_confirmed=False)
    refresh_words(now=MAY)
    client.force_login(chief)
    with time_machine.travel(MAY, tick=False):
        text = text_of(client.get(reverse("updates:blade", args=[fleet[0].pk])))
    assert "Not confirmed by a primary source: 2026-04 KB5082142" in text
    assert "It rests on releases whose type no primary source confirms." in text


def test_who_may_decide(
    client: Client, reader: User, operator: User, owner: User, outsider: User, chief: User, unknown: Patch
) -> None:
    everywhere = UserFactory(username="everywhere")
    RoleAssignmentFactory(user=everywhere, role=Role.OPERATOR.value)
    sees_all = UserFactory(username="sees-all")
    RoleAssignmentFactory(user=sees_all, role=Role.READER.value)
    asked = {"line": "ws2022", "kb": "5999999", "answer": "oob_lcu", "reason": "x"}
    with time_machine.travel(MAY, tick=False):
        assert client.get(URL).status_code == 302  # to the sign-in
        assert client.post(URL, asked).status_code == 302
        for user in (reader, operator, owner, outsider, sees_all):
            client.force_login(user)
            page = client.get(URL)
            assert page.status_code == 200
            assert "Decide for all machines" not in text_of(page)
            assert client.post(URL, asked).status_code == 403
        client.force_login(outsider)
        assert "KB5999999" not in text_of(client.get(URL)), "of machines that one may not see nothing is told"
        assert not Release.objects.filter(kb_number="5999999").exists()
        client.force_login(everywhere)
        assert "Decide for all machines" in text_of(client.get(URL))
        assert client.post(URL, asked).status_code == 302
    assert Release.objects.filter(kb_number="5999999").exists()


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"line": "ws2019", "kb": "5999999", "answer": "lcu", "reason": "x"},
        {"line": "ws2022", "kb": "5082142", "answer": "lcu", "reason": "a baseline is no LCU"},
        {"line": "ws2022", "kb": "５０８２x", "answer": "lcu", "reason": "x"},
        {"line": "ws2022", "kb": "5999999", "answer": "everything", "reason": "x"},
        {"line": "ws2022", "kb": "5999999", "reason": "x"},
        {"release": "99999999999999999999", "reason": "x"},
        {"release": "0", "reason": "x"},
        {"release": "2147483647", "reason": "x"},
    ],
)
def test_a_bad_answer_changes_nothing(client: Client, chief: User, unknown: Patch, bad: dict[str, str]) -> None:
    client.force_login(chief)
    before = list(Release.objects.order_by("pk").values())
    with time_machine.travel(MAY, tick=False):
        assert client.post(URL, bad).status_code == 422
    assert list(Release.objects.order_by("pk").values()) == before


# --- the age of the catalogue ------------------------------------------------------------------------------------


def test_the_age_and_the_holes_are_told_everywhere(client: Client, chief: User, fleet: list[VirtualMachine]) -> None:
    Release.objects.filter(product_line="ws2022", month__gte=date(2026, 6, 1)).delete()
    later = datetime(2026, 6, 20, 12, tzinfo=UTC)
    VmUpdateState.objects.update(last_assessed_at=later)
    refresh_words(now=later)
    client.force_login(chief)
    words = "Known up to 2026-05; 1 monthly release is not recorded: 2026-06."
    with time_machine.travel(later, tick=False):
        assert words in text_of(client.get("/virtual-machines/"))
        blade = text_of(client.get(reverse("updates:blade", args=[fleet[0].pk])))
        assert "The catalog is old. " + words in blade
        assert "On track as far as known " + words in blade
        assert "Nothing newer is released." not in blade
        calendar = text_of(client.get("/calendar/?line=ws2022&year=2026"))
        assert words in calendar
        assert "Out by the calendar; no monthly release is recorded." in calendar
        (finding,) = (finding for finding in find_trouble() if finding.code == "catalogue_is_old")
    assert finding.examples == ("ws2022 known up to 2026-05, 1 monthly releases are not recorded",)


def test_a_hole_before_the_newest_baseline_is_told_in_its_year_and_nowhere_else(
    client: Client, chief: User, fleet: list[VirtualMachine]
) -> None:
    Release.objects.filter(product_line="ws2022", month=date(2026, 2, 1)).delete()
    Release.objects.filter(product_line="ws2022", month=date(2025, 5, 1)).delete()
    refresh_words(now=MAY)
    client.force_login(chief)
    with time_machine.travel(MAY, tick=False):
        this_year = text_of(client.get("/calendar/?line=ws2022&year=2026"))
        assert "Not recorded, and made up for by a later baseline: 2026-02." in this_year
        assert "Known up to" not in this_year
        assert "made up for by a later baseline: 2025-05." in text_of(client.get("/calendar/?line=ws2022&year=2025"))
        assert "not recorded" not in text_of(client.get("/virtual-machines/"))


def test_a_machine_that_is_due_and_is_offered_nothing_is_not_told_that_nothing_is_missing(
    client: Client, chief: User, fleet: list[VirtualMachine]
) -> None:
    Release.objects.filter(product_line="ws2022", month__gt=date(2026, 4, 1)).delete()
    Release.objects.filter(product_line="ws2022", month=date(2026, 4, 1), type="baseline").update(kb_number="")
    VmUpdateState.objects.update(patch_set=None, os_build="20348.4830", last_assessed_at=MAY)
    refresh_words(now=MAY)
    client.force_login(chief)
    with time_machine.travel(MAY, tick=False):
        shown = text_of(client.get(reverse("updates:blade", args=[fleet[0].pk])))
    assert "its KB is not recorded, so none is named here." in shown
    assert "No recommended update was offered" in shown
    assert "No recommended updates are missing" not in shown


def test_a_catalogue_that_is_complete_is_no_news(
    client: Client, chief: User, fleet: list[VirtualMachine], django_assert_max_num_queries: Callable[..., object]
) -> None:
    refresh_words(now=MAY)
    client.force_login(chief)
    with time_machine.travel(MAY, tick=False):
        text = text_of(client.get("/virtual-machines/"))
        assert "Known up to" not in text
        assert "waits for a decision" not in text
        with CaptureQueriesContext(connection) as queries:
            client.get("/virtual-machines/")
        assert not {"catalogue_is_old", "decision_waits"} & {finding.code for finding in find_trouble()}
    assert len(queries) <= 10  # one of them for the number in the top bar, one for the ticks
