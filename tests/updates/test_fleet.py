"""The fleet in numbers: every number is that of the machines it leads to, for every reader and every scope."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from patching.forecast import Outlook
from patching.terms import Classification, HotpatchTrack, UpdateStatus
from tests.factories import (
    ConnectionFactory,
    OperationFactory,
    PatchFactory,
    ResourceGroupFactory,
    RoleAssignmentFactory,
    UserFactory,
    VirtualMachineFactory,
)
from tests.updates.fleets import NOW, TODAY, make_fleet, readers
from updates.models import FleetSnapshot, Patch, PatchResult, Release
from updates.selectors.blade import load_picture
from updates.selectors.calendar import load_calendar
from updates.selectors.fleet import (
    EVERYWHERE,
    FleetCounts,
    FleetScope,
    Pending,
    Place,
    count_fleet,
    load_pending,
    moments_of_connections,
    place_of,
)
from updates.selectors.fleet_days import KEPT, load_days, standings_now
from updates.selectors.fleet_forecast import MONTHS, forecast_fleet, reboots_in
from updates.selectors.fleet_trouble import load_runs
from updates.services.fleet import KEEP_DAYS, forget_snapshots, take_snapshot
from updates.services.words import refresh_words
from vms.choices import Scope
from vms.filters import VmFilter
from vms.models import Grants, VirtualMachine
from vms.services.counters import fold_counters

pytestmark = pytest.mark.django_db


def scopes(own: random.Random) -> list[FleetScope]:
    """The whole, and narrowed by each name and by two."""
    vm = own.choice(list(VirtualMachine.objects.select_related("resource_group")))
    group = vm.resource_group
    return [
        EVERYWHERE,
        FleetScope(connection=vm.connection_id),
        FleetScope(subscription=group.subscription_id),
        FleetScope(resource_group="RG-same"),
        FleetScope(product_line="ws2025"),
        FleetScope(tag="ENV"),
        FleetScope(tag="env=prod", connection=vm.connection_id),
        FleetScope(subscription=group.subscription_id, resource_group=group.name, product_line="ws2022"),
    ]


def listed(user: User, scope: FleetScope, **narrower: str) -> set[int]:
    """The machines that the list shows at the address of a number."""
    asked = scope.address | narrower
    filters = VmFilter.of(user, asked)
    # Who sees nothing of a connection is not offered it, and a filter that is not offered narrows nothing.
    if {problem.name for problem in filters.problems()} & {"connection", "subscription"}:
        return set()
    assert not filters.problems(), filters.problems()
    return set(filters.found.values_list("pk", flat=True))


def looked_at(user: User, scope: FleetScope) -> tuple[Place, FleetCounts, Pending]:
    place = place_of(Grants.of(user), scope)
    counts = count_fleet(place, scope)
    return place, counts, load_pending(counts)


@pytest.mark.parametrize("seed", range(3))
def test_every_number_is_that_of_the_machines_it_leads_to(seed: int) -> None:
    own = random.Random(seed)
    make_fleet(seed)
    people = readers(own)
    if own.random() < 0.5:
        fold_counters()
    with time_machine.travel(NOW, tick=False):
        for user in people.values():
            for scope in own.sample(scopes(own), 4):
                check_numbers(user, scope)


def check_numbers(user: User, scope: FleetScope) -> None:
    _place, counts, pending = looked_at(user, scope)
    assert counts.machines == len(listed(user, scope))
    for status in UpdateStatus:
        assert counts.of("update_status", status) == len(listed(user, scope, update_status=status))
    for track in HotpatchTrack:
        assert counts.of("hotpatch_track", track) == len(listed(user, scope, hotpatch_track=track))
    assert counts.on_track == len(listed(user, scope, condition="on_track"))
    assert counts.of("lacks_critical", True) == len(listed(user, scope, condition="lacks_critical"))
    for name in Classification:
        assert dict(pending.by_classification).get(name, 0) == len(listed(user, scope, lacks=name.value))
    lacked = {update.patch.kb_number: update.machines for update in pending.updates if update.machines}
    for number in Patch.objects.filter(kb_number__startswith="900").values_list("kb_number", flat=True):
        assert lacked.get(number, 0) == len(listed(user, scope, lacks=number))
    vms = VirtualMachine.objects.filter(pk__in=listed(user, scope))
    check_reboots(user, scope, counts, pending)
    trouble = load_runs(vms, NOW)[0]
    assert trouble.failed == len(listed(user, scope, trouble="failed"))
    assert trouble.contradicted == len(listed(user, scope, trouble="contradicted"))
    for reason in trouble.reasons:
        assert reason.machines == len(listed(user, scope, trouble=reason.trouble)) > 0


def check_reboots(user: User, scope: FleetScope, counts: FleetCounts, pending: Pending) -> None:
    """The numbers of the months ahead, of the calendar, and what each machine says of itself, are one thing."""
    now = timezone.now()
    forecast = forecast_fleet(counts, pending, moments_of_connections(now), now=now, months=4)
    seen: dict[int, str] = {}
    for month in forecast.months:
        for outlook, number in (
            (Outlook.WILL, month.will),
            (Outlook.MAY, month.may),
            (Outlook.NOT_KNOWN, month.not_known),
        ):
            found = listed(user, scope, reboots=reboots_in(month.month, outlook))
            assert number == len(found), (month, outlook)
            if outlook is not Outlook.NOT_KNOWN:
                for pk in found:
                    seen.setdefault(pk, f"{month.month:%Y-%m}")
        every = listed(user, scope, reboots=reboots_in(month.month))
        assert len(every) == month.will + month.may + month.not_known
    shown = [f"{month.month:%Y-%m}" for month in forecast.months]
    rows = VirtualMachine.objects.filter(pk__in=listed(user, scope))
    for pk, said in rows.values_list("pk", "next_reboot"):
        if said >= shown[0] and said <= shown[-1]:
            assert seen.get(pk) == said
        elif pk in seen:  # it lives in an earlier month, by the catalogue of its connection
            assert said < shown[0]
    if scope == EVERYWHERE:
        line = random.Random(user.pk).choice(("ws2022", "ws2025"))
        calendar = load_calendar(user, {"line": line, "year": str(now.year)}, now)
        counted = [cell for cell in calendar.cells if cell.month.month in (calendar.machines or {})]
        for cell in counted[:3]:
            for outlook, count in ((Outlook.WILL, cell.will), (Outlook.MAY, cell.may)):
                asked = cell.asked[outlook.value]
                assert count == len(listed(user, scope, product_line=line, reboots=asked))


@pytest.mark.parametrize("seed", range(2))
def test_reboots_follow_the_clock_and_every_door(seed: int) -> None:
    """After a tick of a moved clock, and with facts that changed since, numbers and lists are the same machines."""
    own = random.Random(seed)
    vms = make_fleet(seed)
    people = readers(own)
    crowd = [ResourceGroupFactory() for _ in range(50)]
    user = UserFactory()
    for group in [*crowd, own.choice(vms).resource_group]:
        RoleAssignmentFactory(user=user, scope=Scope.RESOURCE_GROUP, resource_group=group)
    people["fifty"] = user
    for vm in own.sample(vms, 15):
        VirtualMachine.objects.filter(pk=vm.pk).update(resource_group=own.choice(crowd))
    for _ in range(2):
        now = NOW + timedelta(days=own.uniform(-300, 500))
        Release.objects.filter(pk=own.choice(list(Release.objects.all())).pk).update(status="scheduled")
        for vm in own.sample(vms, 10):
            mine = VirtualMachine.objects.filter(pk=vm.pk)
            mine.update(patcher=own.choice(("nobody", "guest_os", "portal_automatically")))
            mine.update(reboot_setting=own.choice(("IfRequired", "Never", "Always")))
            mine.update(connection=own.choice(vms).connection, gone_at=own.choice((None, None, NOW)))
        with time_machine.travel(now, tick=False):
            refresh_words(now=now)
            assert not VirtualMachine.objects.filter(gone_at=None, next_reboot="").exists()
            for person in people.values():
                for scope in {EVERYWHERE, own.choice(scopes(own))}:
                    _place, counts, pending = looked_at(person, scope)
                    check_reboots(person, scope, counts, pending)


def test_what_went_wrong_is_told_for_a_week_and_assessments_are_not_in_it() -> None:
    vm, other = VirtualMachineFactory(), VirtualMachineFactory()
    patch = PatchFactory(kb_number="5122871")
    run = OperationFactory(vm=vm, installation=True, failed=True, created_at=NOW - timedelta(days=6))
    PatchResult.objects.create(operation=run, patch=patch, state="Failed", error_code="0x80070643")
    OperationFactory(vm=other, installation=True, failed=True, created_at=NOW - timedelta(days=8))
    OperationFactory(vm=other, failed=True, created_at=NOW - timedelta(days=1))
    (reason,) = load_runs(None, NOW)[0].reasons
    assert (reason.code, reason.kb_number, reason.machines) == ("0x80070643", "5122871", 1)
    assert reason.trouble == "failed:5122871:0x80070643"


# --- days --------------------------------------------------------------------------------------------------------


def test_a_snapshot_says_of_each_place_what_was_counted_there() -> None:
    make_fleet(5)
    people = readers(random.Random(5))
    assert take_snapshot(now=NOW)
    assert not take_snapshot(now=NOW + timedelta(hours=3))
    tomorrow = NOW + timedelta(days=1)
    compared = 0
    for user in people.values():
        for scope in scopes(random.Random(6)):
            place, counts, pending = looked_at(user, scope)
            now = standings_now(counts, pending, moments_of_connections(NOW), NOW)
            later = standings_now(counts, pending, moments_of_connections(tomorrow), tomorrow)
            assert now.machines == counts.machines
            assert now.critical_late <= now.critical
            days = load_days(place, scope, later)
            if place.is_of_groups and counts.machines:
                assert days == (now, later)
                compared += 1
            elif not place.is_of_groups:
                assert days == (later,)
    assert compared > 10
    with_late = FleetSnapshot.objects.filter(resource_group=None, critical_late__gt=0)
    assert with_late.exists()


def test_snapshots_are_kept_for_more_than_a_year() -> None:
    VirtualMachineFactory()
    for days in (0, KEEP_DAYS, KEEP_DAYS + 1):
        take_snapshot(now=NOW - timedelta(days=days))
    assert forget_snapshots(today=TODAY) == 2
    assert sorted(set(FleetSnapshot.objects.values_list("day", flat=True))) == [
        TODAY - timedelta(days=KEEP_DAYS),
        TODAY,
    ]


def test_a_picture_shows_thirty_days_and_leaves_out_those_of_which_nothing_was_kept() -> None:
    VirtualMachineFactory()
    for days in (40, 30, 29, 3):
        take_snapshot(now=NOW - timedelta(days=days))
    user = UserFactory(is_superuser=True)
    place, counts, pending = looked_at(user, EVERYWHERE)
    days = load_days(place, EVERYWHERE, standings_now(counts, pending, moments_of_connections(NOW), NOW))
    assert [(TODAY - row.day).days for row in days] == [29, 3, 0]
    assert {row.machines for row in days} == {1}
    assert all(isinstance(getattr(days[0], name), int) for name in KEPT)


# --- the months ahead --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [11, 12])
def test_the_forecast_of_the_fleet_is_the_sum_of_its_machines(seed: int) -> None:
    vms = make_fleet(seed, count=40)
    VirtualMachine.objects.update(connection=vms[0].connection)
    refresh_words(now=NOW)
    boss = UserFactory(is_superuser=True)
    expected: dict[date, Counter[Outlook]] = {}
    for vm in (vm for vm in vms if vm.gone_at is None):
        picture = load_picture(boss, vm.pk, now=NOW)
        VirtualMachine.objects.filter(pk=vm.pk).update(patcher=picture.patcher.patcher.value)
        for month in picture.forecast[:MONTHS]:
            expected.setdefault(month.month, Counter())[month.outlook] += 1
    _place, counts, pending = looked_at(boss, EVERYWHERE)
    forecast = forecast_fleet(counts, pending, moments_of_connections(NOW), now=NOW)
    assert forecast.others == 0
    for month in forecast.months:
        found = {
            Outlook.WILL: month.will,
            Outlook.MAY: month.may,
            Outlook.WILL_NOT: month.will_not,
            Outlook.NOT_KNOWN: month.not_known,
        }
        assert found == {outlook: expected[month.month][outlook] for outlook in found}
    assert [month.month for month in forecast.months] == sorted(expected)
    assert forecast.next_baseline == date(2026, 7, 14)
    assert forecast.months[0].is_past


def test_machines_that_live_in_another_month_are_told_apart() -> None:
    VirtualMachineFactory.create_batch(2, connection=ConnectionFactory(catalogue_date=TODAY))
    VirtualMachineFactory(connection=ConnectionFactory(catalogue_date=date(2024, 8, 14)))
    _place, counts, pending = looked_at(UserFactory(is_superuser=True), EVERYWHERE)
    forecast = forecast_fleet(counts, pending, moments_of_connections(NOW), now=NOW)
    assert (forecast.others, forecast.months[0].month) == (1, date(2026, 5, 1))


def test_an_empty_fleet_has_numbers_too() -> None:
    _place, counts, pending = looked_at(UserFactory(is_superuser=True), EVERYWHERE)
    assert (counts.machines, pending.updates, pending.by_classification) == (0, (), ())
    assert forecast_fleet(counts, pending, {}, now=NOW).others == 0
    assert not take_snapshot(now=NOW)


# --- what it costs -----------------------------------------------------------------------------------------------


def reads(look: Callable[[], object]) -> list[str]:
    """The tables that the plans of what is read go through from end to end, and those that are asked at all."""
    with CaptureQueriesContext(connection) as queries:
        look()
    return [query["sql"] for query in queries if "vms_virtualmachine" in query["sql"]]


def test_who_has_whole_groups_is_counted_without_a_machine_being_read() -> None:
    make_fleet(7, count=20)
    people = readers(random.Random(7))
    for name in ("everything", "subscription", "group", "groups"):
        for scope in (EVERYWHERE, FleetScope(resource_group="rg-same"), FleetScope(product_line="ws2022")):
            assert not reads(lambda user=people[name], scope=scope: looked_at(user, scope))  # type: ignore[misc]


def test_single_machines_are_found_by_their_ids() -> None:
    make_fleet(8, count=20)
    people = readers(random.Random(8))
    group = ResourceGroupFactory()
    VirtualMachineFactory.create_batch(200, connection=ConnectionFactory(), resource_group=group)
    with CaptureQueriesContext(connection) as queries:
        looked_at(people["machines"], EVERYWHERE)
    (sql,) = (query["sql"] for query in queries if "vms_virtualmachine" in query["sql"])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE vms_virtualmachine, vms_resourcegroup")
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("EXPLAIN " + sql.rpartition("true); ")[2])
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "vms_virtualmachine_pkey" in plan
    assert "Seq Scan on vms_virtualmachine" not in plan
