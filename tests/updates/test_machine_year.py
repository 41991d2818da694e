"""Twelve months of one machine: where it stood, what was done, what comes."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from html import unescape
from itertools import pairwise
from pathlib import Path

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from patching.orchestrator import Patcher
from patching.terms import HotpatchTrack, OperationKind
from tests.factories import ConnectionFactory, VirtualMachineFactory
from tests.updates.rollouts import PLAN
from ui.charts import Shape
from updates.models import InstalledPatch, MaintenanceConfiguration, Operation, Patch, VmUpdateState
from updates.payloads import encode
from updates.pictures import strip_of
from updates.plans import plan_to_json
from updates.selectors.blade import load_picture
from updates.selectors.machine_year import Coming, MachineYear
from updates.services.catalogue import import_catalogue
from updates.services.words import refresh_words
from vms.models import ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)
DATA = Path(__file__).resolve().parents[2] / "updates" / "data"
APRIL, MAY = ("5082142", datetime(2026, 4, 18, tzinfo=UTC)), ("5087424", datetime(2026, 5, 13, tzinfo=UTC))
JANUARY = ("5073457", datetime(2026, 1, 20, tzinfo=UTC))


@pytest.fixture(autouse=True)
def _catalogue(db: None) -> None:
    for name in ("hotpatch_releases.json", "other_updates.json"):
        import_catalogue(data=(DATA / name).read_bytes())


def machine(
    group: ResourceGroup,
    *installed: tuple[str, datetime],
    build: str = "20348.5074",
    day: date | None = None,
    now: datetime = NOW,
    is_automatic: bool = True,
    **fields: object,
) -> VirtualMachine:
    """A machine that was assessed an hour ago, with these KBs."""
    row = ConnectionFactory(catalogue_date=day, is_patching_automatically=is_automatic)
    vm: VirtualMachine = VirtualMachineFactory(resource_group=group, connection=row, **fields)
    VmUpdateState.objects.create(
        vm=vm, os_build=build, last_assessed_at=now - timedelta(hours=1), is_list_complete=True
    )
    for kb_number, at in installed:
        patch = Patch.objects.get(product_line="ws2022", kb_number=kb_number)
        InstalledPatch.objects.create(vm=vm, patch=patch, installed_on=at)
    refresh_words(now=now)
    vm.refresh_from_db()
    return vm


def year_of(user: User, vm: VirtualMachine, now: datetime = NOW) -> MachineYear:
    return MachineYear(load_picture(user, vm.pk, now=now))


def words(year: MachineYear) -> list[HotpatchTrack]:
    return [stretch.word for stretch in year.stretches]


def text_of(response: object) -> str:
    text = re.sub(r"<[^>]+>", " ", response.content.decode())  # type: ignore[attr-defined]
    return unescape(re.sub(r"\s+", " ", text))


def scheduled(vm: VirtualMachine) -> MaintenanceConfiguration:
    row = MaintenanceConfiguration.objects.create(
        name="Tokyo nights",
        starts_on=date(2026, 1, 1),
        starts_at=time(22, 0),
        time_zone="Tokyo Standard Time",
        recur_every="Month Second Tuesday Offset4",
        plan=plan_to_json(PLAN),
    )
    row.vms.add(vm)
    return row


def test_the_past_follows_what_was_installed(chief: User, resource_group: ResourceGroup) -> None:
    year = year_of(chief, machine(resource_group, JANUARY, APRIL, MAY))
    past = [stretch for stretch in year.stretches if not stretch.is_expected]
    assert [(stretch.word, stretch.start) for stretch in past] == [
        (HotpatchTrack.ON_TRACK, year.start),
        (HotpatchTrack.BASELINE_DUE, datetime(2026, 4, 14, 17, tzinfo=UTC)),
        (HotpatchTrack.ON_TRACK, APRIL[1]),
    ]
    assert past[-1].end == year.today == NOW


def test_before_the_first_known_installation_nobody_knows(chief: User, resource_group: ResourceGroup) -> None:
    year = year_of(chief, machine(resource_group, APRIL, MAY))
    assert words(year)[:2] == [HotpatchTrack.UNKNOWN, HotpatchTrack.ON_TRACK]


@pytest.mark.parametrize("installed", [(), (APRIL,), (JANUARY, APRIL, MAY)])
def test_the_track_has_no_gaps(
    chief: User, resource_group: ResourceGroup, installed: tuple[tuple[str, datetime], ...]
) -> None:
    year = year_of(chief, machine(resource_group, *installed))
    assert (year.stretches[0].start, year.stretches[-1].end) == (year.start, year.end)
    assert all(one.end == other.start for one, other in pairwise(year.stretches))
    assert all(stretch.start < stretch.end for stretch in year.stretches)


def test_where_nobody_patches_the_next_baseline_stays_due(chief: User, resource_group: ResourceGroup) -> None:
    vm = machine(resource_group, JANUARY, APRIL, MAY, is_automatic=False)
    year = year_of(chief, vm)
    assert year.picture.patcher.patcher is Patcher.NOBODY
    ahead = [(stretch.word, stretch.start) for stretch in year.stretches if stretch.is_expected]
    assert ahead == [
        (HotpatchTrack.ON_TRACK, NOW),
        (HotpatchTrack.BASELINE_DUE, datetime(2026, 7, 14, 17, tzinfo=UTC)),
    ]
    assert year.next_reboot is None  # it does not restart by itself
    told = [mark.label for mark in strip_of(year).lanes[2].marks]
    assert "planned baseline: due, nobody installs it" in told


def test_the_next_reboot_is_a_day_with_its_reason(chief: User, client: Client, resource_group: ResourceGroup) -> None:
    vm = machine(resource_group, JANUARY, APRIL, MAY)
    reboot = year_of(chief, vm).next_reboot
    assert reboot is not None
    assert (reboot.at, reboot.days, reboot.window) == (datetime(2026, 7, 14, 17, tzinfo=UTC), 55, "")
    client.force_login(chief)
    with time_machine.travel(NOW, tick=False):
        shown = text_of(client.get(reverse("updates:vm-overview", args=[vm.pk])))
    assert "2026-07-14 (Tue) in 55 days" in shown
    assert "planned baseline" in shown
    assert "Patch Tuesday: hotpatch" in shown


def test_a_window_brings_it_where_there_is_one(chief: User, resource_group: ResourceGroup) -> None:
    vm = machine(
        resource_group, JANUARY, APRIL, MAY, patch_mode="AutomaticByPlatform", bypass_platform_safety_checks=True
    )
    scheduled(vm)
    year = year_of(chief, vm)
    assert year.picture.patcher.patcher is Patcher.PORTAL_BY_SCHEDULE
    reboot = year.next_reboot
    assert reboot is not None
    assert (reboot.at, reboot.window) == (datetime(2026, 7, 18, 13, tzinfo=UTC), "Tokyo nights")
    assert len(year.windows) == 9
    assert [each.what for each in year.upcoming][:3] == [Coming.ASSESSMENT, Coming.HOTPATCH, Coming.WINDOW]


def test_what_is_due_names_no_day(chief: User, resource_group: ResourceGroup) -> None:
    year = year_of(chief, machine(resource_group, JANUARY, build="20348.4648"))
    assert year.picture.track_word is HotpatchTrack.BASELINE_OVERDUE
    assert year.next_reboot is not None
    assert year.next_reboot.at is None


def test_hotpatching_ends_in_the_picture_too(chief: User, resource_group: ResourceGroup) -> None:
    late = datetime(2027, 6, 1, 12, tzinfo=UTC)
    year = year_of(chief, machine(resource_group, JANUARY, APRIL, MAY, now=late), now=late)
    assert year.stretches[-1].word is HotpatchTrack.NOT_ON_TRAIN
    assert year.stretches[-1].start == datetime(2027, 11, 9, 18, tzinfo=UTC)


def test_on_a_catalogue_clock_what_was_done_keeps_its_distance_and_its_day(
    chief: User, resource_group: ResourceGroup
) -> None:
    now = datetime(2026, 11, 27, 12, tzinfo=UTC)
    done = now - timedelta(days=5)
    vm = machine(resource_group, ("5082142", done), ("5087424", done), day=date(2026, 5, 20), now=now)
    year = year_of(chief, vm, now)
    (installation,) = year.installations
    assert year.today - installation.place == timedelta(days=5)
    strip = strip_of(year)
    (mark,) = strip.drawn[1].marks
    assert mark.says.text == "Installations: 2026-11-22 KB5082142, KB5087424"
    assert year.next_reboot is not None
    assert year.next_reboot.at == datetime(2026, 7, 14, 17, tzinfo=UTC)


def test_failures_and_restarts_are_marks_that_lead_to_their_runs(chief: User, resource_group: ResourceGroup) -> None:
    vm = machine(resource_group, JANUARY, APRIL, MAY)
    at = NOW - timedelta(days=3)
    for state, reboot in (("failed", ""), ("succeeded", "Completed")):
        Operation.objects.create(
            vm=vm,
            connection=vm.connection,
            kind="installation",
            state=state,
            created_at=at,
            finished_at=at,
            reboot_status=reboot,
            payload=encode(OperationKind.INSTALLATION, PLAN),
        )
    strip = strip_of(year_of(chief, vm))
    shapes = [mark.shape for lane in strip.lanes[1:3] for mark in lane.marks]
    assert shapes.count(Shape.CROSS) == 1
    assert shapes.count(Shape.REBOOT) >= 2  # the one that was, and those ahead
    failed = next(mark for mark in strip.lanes[1].marks if mark.shape is Shape.CROSS)
    assert failed.address.startswith("/operations/")
    assert failed.label == "Installation failed"


def test_the_overview_costs_no_query_more_for_its_year(
    client: Client, chief: User, resource_group: ResourceGroup
) -> None:
    vm = machine(resource_group, JANUARY, APRIL, MAY)
    client.force_login(chief)

    def cost() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get(reverse("updates:vm-overview", args=[vm.pk])).status_code == 200
        return len(captured)

    before = cost()
    scheduled(vm)
    for _number in range(20):
        Operation.objects.create(
            vm=vm,
            connection=vm.connection,
            kind="installation",
            state="succeeded",
            created_at=NOW,
            finished_at=NOW,
            payload=encode(OperationKind.INSTALLATION, PLAN),
        )
    assert cost() == before <= 8


def test_a_machine_that_was_never_assessed_has_a_picture(
    client: Client, chief: User, resource_group: ResourceGroup
) -> None:
    vm = VirtualMachineFactory(resource_group=resource_group, connection=ConnectionFactory())
    client.force_login(chief)
    shown = text_of(client.get(reverse("updates:vm-overview", args=[vm.pk])))
    assert "Assess the machine to see its forecast." in shown
    assert words(year_of(chief, vm))[-1] is HotpatchTrack.UNKNOWN
