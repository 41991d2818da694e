"""A maintenance window on each machine's own clock: handed out clock by clock, held by its blackouts, shown, and never guessed."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import override

from patching.scope import Scope
from patching.terms import Classification, InstallationPlan
from tests.forms import text_of
from tests.updates.rollouts import advance, fleet
from updates.forms.maintenance import MaintenanceForm
from updates.models import Freeze, MaintenanceConfiguration, Operation, Rollout, RolloutMember
from updates.plans import plan_to_json
from updates.selectors.automation import openings_meaning
from updates.selectors.blade import load_picture
from updates.selectors.calendar import load_calendar
from updates.selectors.freeze_effects import effects_of
from updates.selectors.health import find_trouble
from updates.selectors.members import members_for
from updates.selectors.restarts import blackouts_meaning
from updates.services.automation import (
    WindowIsNearError,
    change_configuration,
    configuration_preview,
    open_windows,
    plan_next_run,
)
from vms.models import ResourceGroup, VirtualMachine
from vms.regions import clock_of

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 12, 12, 12, tzinfo=UTC)
PLAN = plan_to_json(InstallationPlan(classifications=frozenset({Classification.SECURITY})))
TOKYO = datetime(2026, 12, 12, 13, tzinfo=UTC)  # when the clocks show 22:00
AMSTERDAM = datetime(2026, 12, 12, 21, tzinfo=UTC)
PACIFIC = datetime(2026, 12, 13, 6, tzinfo=UTC)
LIVE: dict[str, Any] = {"HTTP_HX_REQUEST": "true"}


def configure(*vms: VirtualMachine, **fields: Any) -> MaintenanceConfiguration:
    values: dict[str, Any] = {
        "name": "Nights",
        "starts_on": date(2026, 12, 1),
        "starts_at": time(22),
        "is_own_clock": True,
        "time_zone": "",
        "recur_every": "Day",
        "plan": PLAN,
    }
    row = MaintenanceConfiguration.objects.create(**(values | fields))
    row.vms.add(*vms)
    plan_next_run(configuration=row, now=NOON)
    return row


def machine(group: ResourceGroup, location: str, **facts: Any) -> VirtualMachine:
    (vm,) = fleet(group, 1, **({"location": location, "time_zone": ""} | facts))
    return vm


@pytest.fixture
def tokyo(resource_group: ResourceGroup) -> VirtualMachine:
    return machine(resource_group, "japaneast")


@pytest.fixture
def amsterdam(resource_group: ResourceGroup) -> VirtualMachine:
    return machine(resource_group, "westeurope")


@pytest.fixture
def pacific(resource_group: ResourceGroup) -> VirtualMachine:
    return machine(resource_group, "japaneast", time_zone="Pacific Standard Time")


@pytest.fixture
def lost(resource_group: ResourceGroup) -> VirtualMachine:
    return machine(resource_group, "moon")


def opened(now: datetime) -> dict[str, set[int]]:
    return {rollout.clock: set(rollout.members.values_list("vm_id", flat=True)) for rollout in open_windows(now=now)}


# --- handing out -------------------------------------------------------------------------------------------------


def test_each_clock_has_its_window_and_who_has_none_waits(
    tokyo: VirtualMachine, amsterdam: VirtualMachine, pacific: VirtualMachine, lost: VirtualMachine
) -> None:
    configure(tokyo, amsterdam, pacific, lost)
    seen: dict[str, list[datetime]] = defaultdict(list)
    now = NOON
    while now < NOON + timedelta(days=2):  # every minute would be the same, and takes longer
        for clock, vm_ids in opened(now).items():
            seen[clock].append(now)
            assert {found.key for row in _places(vm_ids) if (found := clock_of(*row))} == {clock}
            assert len(vm_ids) == 1
        now += timedelta(minutes=15)
    assert {clock: times[0] for clock, times in seen.items()} == {
        "Asia/Tokyo": TOKYO,
        "Europe/Amsterdam": AMSTERDAM,
        "America/Los_Angeles": PACIFIC,
    }
    assert {len(times) for times in seen.values()} == {2}, "once a day each"
    assert not RolloutMember.objects.filter(vm=lost).exists()
    tokyos = Rollout.objects.filter(clock="Asia/Tokyo").order_by("created_at").first()
    assert tokyos is not None
    assert tokyos.window_ends_at == TOKYO + timedelta(minutes=120)
    assert tokyos.name == "Nights · 2026-12-12 22:00 (Asia/Tokyo)"


def _places(vm_ids: set[int]) -> list[tuple[str, str]]:
    return list(VirtualMachine.objects.filter(pk__in=vm_ids).values_list("time_zone", "location"))


def test_a_machine_that_came_after_it_was_planned_is_in(tokyo: VirtualMachine, resource_group: ResourceGroup) -> None:
    row = configure(scope={"tag_name": "ring"})
    VirtualMachine.objects.filter(pk=tokyo.pk).update(tags={"ring": "1"})
    east = machine(resource_group, "australiaeast", tags={"ring": "1"})  # before Tokyo
    assert row.next_run_at is not None
    assert opened(datetime(2026, 12, 13, 11, tzinfo=UTC)) == {"Australia/Sydney": {east.pk}}
    assert opened(datetime(2026, 12, 13, 13, tzinfo=UTC)) == {"Asia/Tokyo": {tokyo.pk}}


def test_who_slept_opens_what_is_still_open_and_nothing_else(
    tokyo: VirtualMachine, amsterdam: VirtualMachine, pacific: VirtualMachine
) -> None:
    configure(tokyo, amsterdam, pacific)
    found = opened(AMSTERDAM + timedelta(minutes=90))
    assert set(found) == {"Europe/Amsterdam"}, "Tokyo's window is over"
    assert opened(AMSTERDAM + timedelta(minutes=91)) == {}
    assert set(opened(PACIFIC)) == {"America/Los_Angeles"}


def test_in_the_nights_when_clocks_change(amsterdam: VirtualMachine, tokyo: VirtualMachine) -> None:
    """A time that a clock skips is taken the length of the gap later; one that comes twice, the first time."""
    row = configure(amsterdam, tokyo, starts_on=date(2026, 10, 1), starts_at=time(2, 30))
    for day, amsterdams in (
        (date(2026, 10, 25), datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        (date(2027, 3, 28), datetime(2027, 3, 28, 1, 30, tzinfo=UTC)),
    ):
        plan_next_run(configuration=row, now=datetime.combine(day, time(), UTC) - timedelta(hours=1))
        assert opened(amsterdams - timedelta(minutes=1)) == {}
        assert opened(amsterdams) == {"Europe/Amsterdam": {amsterdam.pk}}
        assert opened(amsterdams + timedelta(hours=1)) == {}, "not the second time"


def test_a_blackout_holds_on_the_clock_of_the_machine_at_every_start(
    tokyo: VirtualMachine, amsterdam: VirtualMachine, pacific: VirtualMachine
) -> None:
    row = configure(tokyo, amsterdam, pacific, blackouts=[["2026-12-13", "2026-12-13"]], catch_up_hours=48)
    VirtualMachine.objects.update(power_state="stopped")
    assert set(opened(TOKYO)) == {"Asia/Tokyo"}
    (rollout,) = Rollout.objects.all()
    assert rollout.window_ends_at == datetime(2026, 12, 12, 15, tzinfo=UTC), "midnight in Tokyo"
    advance(rollout, TOKYO + timedelta(minutes=1))
    VirtualMachine.objects.update(power_state="running")
    # It would catch up now: in Tokyo the blackout has begun, in Amsterdam it would take nine hours more.
    advance(rollout, datetime(2026, 12, 12, 16, tzinfo=UTC))
    assert not Operation.objects.exists()
    assert rollout.reason == "rollout.blackout"
    advance(rollout, datetime(2026, 12, 13, 14, 59, tzinfo=UTC))
    assert not Operation.objects.exists()
    advance(rollout, datetime(2026, 12, 13, 15, tzinfo=UTC))
    assert Operation.objects.get().vm_id == tokyo.pk
    # the days of others are their own
    assert set(opened(AMSTERDAM)) == {"Europe/Amsterdam"}
    assert opened(PACIFIC) == {"America/Los_Angeles": {pacific.pk}}, "there it is the 12th still"
    assert opened(TOKYO + timedelta(days=1)) == {}
    row.refresh_from_db()
    assert row.next_run_at is not None
    assert row.next_run_at >= datetime(2026, 12, 14, 8, tzinfo=UTC), "22:00 on the 14th comes to the first clock then"


def test_a_freeze_holds_on_every_clock(tokyo: VirtualMachine) -> None:
    configure(tokyo)
    Freeze.objects.create(
        name="x", begins_at=TOKYO - timedelta(hours=1), ends_at=AMSTERDAM, time_zone="UTC", is_for_all=True
    )
    opened(TOKYO)
    rollout = advance(Rollout.objects.get(), TOKYO + timedelta(minutes=1))
    assert not Operation.objects.exists()
    assert rollout.members.get().code == "rollout.frozen"


def test_a_machine_that_moved_to_another_clock_is_skipped(tokyo: VirtualMachine) -> None:
    configure(tokyo)
    opened(TOKYO)
    VirtualMachine.objects.update(location="westeurope")
    rollout = advance(Rollout.objects.get(), TOKYO + timedelta(minutes=1))
    member = rollout.members.get()
    assert (member.status, member.code) == ("skipped", "rollout.other_clock")
    assert opened(AMSTERDAM) == {"Europe/Amsterdam": {tokyo.pk}}


def test_a_window_that_lost_its_clock_keeps_to_all_of_them(tokyo: VirtualMachine) -> None:
    """A configuration that gets another clock while its window is open: no start where any clock has the blackout."""
    row = configure(
        tokyo, is_own_clock=False, time_zone="Tokyo Standard Time", blackouts=[["2026-12-13", "2026-12-13"]]
    )
    opened(TOKYO)
    (rollout,) = Rollout.objects.all()
    assert rollout.clock == ""
    MaintenanceConfiguration.objects.filter(pk=row.pk).update(is_own_clock=True, time_zone="")
    advance(rollout, TOKYO + timedelta(minutes=1))  # in Kiritimati it is the 13th
    assert not Operation.objects.exists()
    assert rollout.reason == "rollout.blackout"
    Rollout.objects.update(clock="Asia/Tokyo")
    advance(rollout, TOKYO + timedelta(minutes=3))
    assert Operation.objects.exists()


def test_a_rollout_whose_clock_nobody_knows_starts_nothing(tokyo: VirtualMachine) -> None:
    configure(tokyo)
    opened(TOKYO)
    Rollout.objects.update(clock="Moon/Base")
    rollout = advance(Rollout.objects.get(), TOKYO + timedelta(minutes=1))
    assert rollout.members.get().code == "rollout.other_clock"
    assert not Operation.objects.exists()


def test_it_costs_the_same_however_many_machines(resource_group: ResourceGroup) -> None:
    costs = []
    for count in (2, 20):
        row = configure(name=f"{count}", scope={"tag_name": f"r{count}"})
        fleet(resource_group, count, time_zone="", location="japaneast", tags={f"r{count}": ""})
        fleet(resource_group, count, time_zone="", location="westeurope", tags={f"r{count}": ""})
        with CaptureQueriesContext(connection) as queries:
            assert len(open_windows(now=TOKYO)) == 1
        costs.append(len(queries))
        row.delete()
    assert costs[0] == costs[1]


def test_the_next_window_is_near_only_where_a_machine_has_it(tokyo: VirtualMachine) -> None:
    row = configure(tokyo)
    plan_next_run(configuration=row, now=AMSTERDAM - timedelta(minutes=10))
    change_configuration(configuration=row, now=AMSTERDAM - timedelta(minutes=10))  # near in Amsterdam only
    row.vms.add(tokyo)
    plan_next_run(configuration=row, now=TOKYO - timedelta(minutes=10))
    with pytest.raises(WindowIsNearError):
        change_configuration(configuration=row, now=TOKYO - timedelta(minutes=10))


def test_the_database_keeps_one_clock_or_the_other() -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        configure(time_zone="UTC")


# --- pages -------------------------------------------------------------------------------------------------------


FORM = {
    "name": "Own <b>",
    "starts_on": "2027-01-01",
    "starts_at": "22:00",
    "time_zone": "own",
    "duration_minutes": "120",
    "repeats": "patch_tuesday",
    "days_after": "4",
    "classifications": ["Security"],
    "reboot_setting": "IfRequired",
}


def test_it_is_chosen_in_the_form_with_its_sentence_and_kept(
    client: Client, chief: User, tokyo: VirtualMachine, lost: VirtualMachine
) -> None:
    client.force_login(chief)
    address = reverse("updates:maintenance-create")
    live = client.post(address, FORM, **(LIVE | {"HTTP_HX_TARGET": "recurrence"})).content.decode()
    assert "Saturday after Patch Tuesday, 22:00 (each machine&#x27;s own clock)" in live
    assert "2027-01-16 22:00, " in live
    assert "Azure itself has no such clock" in live
    named = FORM | {"machines": f"{tokyo.name}\n{lost.name}"}
    members = client.post(address, named, **(LIVE | {"HTTP_HX_TARGET": "members"})).content.decode()
    assert "2 machines match; 1 of them will be patched." in members
    assert "It waits: nobody knows its clock." in members
    preview = text_of(client.post(address, named | {"go": "preview"}))
    assert "On each machine's own clock: 1 clock now." in preview
    assert "(Asia/Tokyo)" in preview
    assert client.post(address, named | {"go": "save"}).status_code == 302
    row = MaintenanceConfiguration.objects.get()
    assert (row.is_own_clock, row.time_zone) == (True, "")
    form = MaintenanceForm(instance=row)
    assert form["time_zone"].value() == "own"
    assert form.sentence is not None
    assert form.sentence.is_own_clock
    listed = text_of(client.get(reverse("updates:maintenances")))
    assert "each machine's own clock" in listed
    assert " 22:00" in listed
    page = client.get(reverse("updates:maintenance", args=[row.pk])).content.decode()
    assert "22:00 · each machine's own clock" in page
    assert "Own <b>" not in page
    # and back to a clock of its own
    edit = reverse("updates:maintenance-edit", args=[row.pk])
    assert client.post(edit, named | {"go": "save", "time_zone": "UTC"}).status_code == 302
    row.refresh_from_db()
    assert (row.is_own_clock, row.time_zone) == (False, "UTC")


def test_a_freeze_has_no_such_clock(client: Client, chief: User) -> None:
    client.force_login(chief)
    assert 'value="own"' not in client.get(reverse("updates:freeze-create")).content.decode()
    assert 'value="own"' in client.get(reverse("updates:maintenance-create")).content.decode()


def test_the_dates_say_when_the_first_and_the_last_clock_come_to_them(
    client: Client,
    chief: User,
    recorded_catalogue: None,
    tokyo: VirtualMachine,
    amsterdam: VirtualMachine,
    pacific: VirtualMachine,
    lost: VirtualMachine,
) -> None:
    VirtualMachine.objects.update(hotpatch_track="on_track", reboot_setting="IfRequired")
    row = configure(tokyo, amsterdam, pacific, lost, recur_every="Month Second Tuesday Offset1", starts_at=time(1))
    configure(amsterdam, name="Beside", is_own_clock=False, time_zone="W. Europe Standard Time", starts_at=time(2))
    Freeze.objects.create(
        name="Wide",
        begins_at=datetime(2027, 2, 9, 12, tzinfo=UTC),
        ends_at=datetime(2027, 2, 12, tzinfo=UTC),
        time_zone="UTC",
        is_for_all=True,
    )
    preview = configuration_preview(configuration=row, now=NOON)
    assert [clock.key for clock in preview.clocks] == ["America/Los_Angeles", "Asia/Tokyo", "Europe/Amsterdam"]
    first, second = preview.dates[:2]
    assert first.day.first.wall == datetime(2027, 1, 13, 1)
    assert [on.clock.key for on in first.day.windows] == ["Asia/Tokyo", "Europe/Amsterdam", "America/Los_Angeles"]
    # January's release comes at 10:00 Pacific on the 12th, two hours after it is one o'clock in Tokyo
    met = {one.month: one for one in first.meets}
    assert (met[date(2027, 1, 1)].machines, met[date(2027, 1, 1)].restarts) == (2, 2)
    assert met[date(2026, 12, 1)].machines == 1
    assert preview.lead is not None
    assert preview.lead.key == "Asia/Tokyo"
    assert preview.early, "on the first clock"
    (frozen,) = second.frozen
    assert (frozen.machines, frozen.is_whole) == (3, True)
    assert second.meets == ()
    assert [one.name for one in first.beside] == ["Beside"]
    with timezone.override("UTC"):
        client.force_login(chief)
        shown = text_of(client.get(reverse("updates:maintenance", args=[row.pk])))
    assert "On each machine's own clock: 3 different clocks now." in shown
    assert "(Asia/Tokyo), last at" in shown
    assert "That is so on the clock of Asia/Tokyo, which comes first." in shown
    with override("ja"):
        assert client.get(reverse("updates:maintenance", args=[row.pk])).status_code == 200


def test_dates_cost_the_same_for_many_machines_and_clocks(
    recorded_catalogue: None, tokyo: VirtualMachine, resource_group: ResourceGroup, django_assert_max_num_queries: Any
) -> None:
    row = configure(scope={"tag_name": "ring"})
    configure(tokyo, name="Other", scope={"location": "japaneast"})
    Freeze.objects.create(
        name="x", begins_at=NOON, ends_at=NOON + timedelta(days=90), time_zone="UTC", scope={"location": "japaneast"}
    )
    VirtualMachine.objects.update(tags={"ring": "1"})
    with CaptureQueriesContext(connection) as few:
        configuration_preview(configuration=row, now=NOON)
    for region in ("westeurope", "eastus", "westus", "australiaeast", "brazilsouth"):
        fleet(resource_group, 4, time_zone="", location=region, tags={"ring": "2"})
    with django_assert_max_num_queries(len(few)):
        assert len(configuration_preview(configuration=row, now=NOON).clocks) == 6


def test_without_a_machine_whose_clock_is_known_no_date_is_guessed(
    client: Client, chief: User, lost: VirtualMachine
) -> None:
    row = configure(lost)
    preview = configuration_preview(configuration=row, now=NOON)
    assert (preview.dates, preview.clocks) == ((), ())
    client.force_login(chief)
    shown = text_of(client.get(reverse("updates:maintenance", args=[row.pk])))
    assert "The dates are told once it means a machine whose clock is known." in shown
    assert "It waits: nobody knows its clock." in shown


def test_the_machines_page_says_when_it_opens_there(
    client: Client, reader: User, tokyo: VirtualMachine, pacific: VirtualMachine, lost: VirtualMachine
) -> None:
    configure(scope={"resource_group": tokyo.resource_group.name}, starts_on=date(2026, 1, 1))
    picture = {vm.pk: load_picture(reader, vm.pk, now=NOON) for vm in (tokyo, pacific, lost)}
    assert [(one.opens_at, one.waits) for one in picture[tokyo.pk].schedules] == [(TOKYO, False)]
    assert [(one.opens_at, one.waits) for one in picture[pacific.pk].schedules] == [(PACIFIC, False)]
    assert [(one.opens_at, one.waits) for one in picture[lost.pk].schedules] == [(None, True)]
    until = NOON + timedelta(days=2)
    assert [at for _name, at in openings_meaning(picture[pacific.pk].vm, after=NOON, until=until)] == [
        PACIFIC,
        PACIFIC + timedelta(days=1),
    ]
    assert openings_meaning(picture[lost.pk].vm, after=NOON, until=until) == []
    client.force_login(reader)
    assert "waits, as nobody knows the clock" in text_of(client.get(reverse("updates:blade", args=[lost.pk])))
    assert "waits, as nobody" not in text_of(client.get(reverse("updates:blade", args=[tokyo.pk])))


def test_blackouts_of_a_machine_are_on_its_clock(
    reader: User, tokyo: VirtualMachine, pacific: VirtualMachine, lost: VirtualMachine
) -> None:
    configure(tokyo, pacific, lost, blackouts=[["2026-12-13", "2026-12-13"]])
    moment = datetime(2026, 12, 12, 16, tzinfo=UTC)
    told = {
        vm.pk: blackouts_meaning(load_picture(reader, vm.pk, now=moment).vm, now=moment)
        for vm in (tokyo, pacific, lost)
    }
    assert told[tokyo.pk] == [("Nights", datetime(2026, 12, 13, 15, tzinfo=UTC))]
    assert told[pacific.pk] == []
    assert len(told[lost.pk]) == 1, "it may have any clock"


def test_the_doctor_names_the_places_whose_machines_wait(lost: VirtualMachine, tokyo: VirtualMachine) -> None:
    VirtualMachine.objects.filter(pk=lost.pk).update(patcher="portal_by_schedule")
    assert not [finding for finding in find_trouble() if finding.code == "clock_unknown"]
    configure(lost, tokyo)
    (finding,) = [finding for finding in find_trouble() if finding.code == "clock_unknown"]
    assert (finding.count, "moon" in finding.examples[0]) == (1, True)


def test_a_freeze_tells_the_windows_that_it_touches_on_any_clock(
    tokyo: VirtualMachine, pacific: VirtualMachine
) -> None:
    configure(tokyo, pacific)
    freeze = Freeze(
        name="x",
        begins_at=datetime(2026, 12, 13, 5, tzinfo=UTC),
        ends_at=datetime(2026, 12, 13, 7, tzinfo=UTC),
        time_zone="UTC",
        is_for_all=True,
    )
    (touched,) = effects_of(freeze, now=NOON).windows
    assert touched[1].opens_at == PACIFIC


def test_who_is_meant_costs_no_query_for_clocks(tokyo: VirtualMachine, lost: VirtualMachine) -> None:
    with CaptureQueriesContext(connection) as without:
        assert members_for(Scope(tag_name="x"), [tokyo.pk, lost.pk]).ready == 2
    with CaptureQueriesContext(connection) as with_clocks:
        found = members_for(Scope(tag_name="x"), [tokyo.pk, lost.pk], is_own_clock=True)
    assert (found.ready, found.ready_ids) == (1, [tokyo.pk])
    assert found.shown[0].lacks_clock
    assert len(without) == len(with_clocks)


def test_the_calendar_marks_when_the_first_machine_comes_to_it(
    chief: User, operator: User, outsider: User, tokyo: VirtualMachine, pacific: VirtualMachine, lost: VirtualMachine
) -> None:
    configure(tokyo, pacific, lost)
    configure(lost, name="Nobody's")
    for user in (chief, operator):
        windows = load_calendar(user, {"line": "ws2022", "year": "2026"}, NOON).windows
        assert windows is not None
        assert windows.names == ("Nights",)
        assert [opening.at for opening in windows.openings][:2] == [TOKYO, TOKYO + timedelta(days=1)]
    windows = load_calendar(outsider, {"line": "ws2022", "year": "2026"}, NOON).windows
    assert windows is not None
    assert windows.openings == ()
