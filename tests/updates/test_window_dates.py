"""The next windows of a configuration: which releases they meet, what restarts, what freezes and other windows do to them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from patching.terms import Classification, InstallationPlan, ReleaseType
from tests.updates.rollouts import fleet
from updates.models import Freeze, MaintenanceConfiguration
from updates.plans import plan_to_json
from updates.selectors.window_dates import WindowDate
from updates.services.automation import configuration_preview
from vms.models import ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
PLAN = plan_to_json(InstallationPlan(classifications=frozenset({Classification.SECURITY})))


def configure(*vms: VirtualMachine, **fields: Any) -> MaintenanceConfiguration:
    values: dict[str, Any] = {
        "name": "Saturdays",
        "starts_on": date(2026, 11, 24),
        "starts_at": time(22),
        "time_zone": "Tokyo Standard Time",
        "recur_every": "Month Second Tuesday Offset4",
        "plan": PLAN,
    }
    row = MaintenanceConfiguration.objects.create(**(values | fields))
    row.vms.add(*vms)
    return row


def dates(row: MaintenanceConfiguration) -> tuple[WindowDate, ...]:
    return configuration_preview(configuration=row, now=NOW).dates


@pytest.fixture
def vms(resource_group: ResourceGroup) -> list[VirtualMachine]:
    found = fleet(resource_group, 3, reboot_setting="IfRequired")
    VirtualMachine.objects.update(hotpatch_track="on_track")
    VirtualMachine.objects.filter(pk=found[2].pk).update(reboot_setting="Never")
    return found


def test_a_window_meets_the_release_that_came_before_it_and_only_the_first_does(
    recorded_catalogue: None, vms: list[VirtualMachine]
) -> None:
    shown = dates(configure(*vms))
    assert len(shown) == 12
    assert [str(one.window.opens_at.date()) for one in shown[:3]] == ["2026-12-12", "2027-01-16", "2027-02-13"]
    met = [one.meets[0] for one in shown]
    assert [(one.month.month, one.type) for one in met[:4]] == [
        (12, ReleaseType.HOTPATCH),
        (1, ReleaseType.BASELINE),
        (2, ReleaseType.HOTPATCH),
        (3, ReleaseType.HOTPATCH),
    ]
    assert met[1].machines == 3
    assert not met[1].is_recorded, "by the rule of the quarters"
    # one of the three never reboots by itself
    assert (met[1].restarts, met[2].restarts) == (2, 0)
    every_day = configure(*vms, name="Daily", recur_every="Day")
    daily = configuration_preview(configuration=every_day, now=NOW + timedelta(days=5)).dates
    assert [bool(one.meets) for one in daily].count(True) == 1, "of November's release the first window was before"
    assert next(one for one in daily if one.meets).window.opens_at == datetime(2026, 12, 9, 13, tzinfo=UTC)


def test_freezes_and_other_windows_are_marked(
    client: Client, chief: User, recorded_catalogue: None, vms: list[VirtualMachine], resource_group: ResourceGroup
) -> None:
    row = configure(*vms)
    (stranger,) = fleet(resource_group, 1)
    beside = configure(vms[0], name="Nights", recur_every="Day", duration_minutes=90)
    configure(stranger, name="Elsewhere", recur_every="Day")
    configure(vms[0], name="Mornings", recur_every="Day", starts_at=time(6))
    freeze = Freeze.objects.create(
        name="New <b>Year",
        begins_at=datetime(2027, 1, 10, tzinfo=UTC),
        ends_at=datetime(2027, 1, 20, tzinfo=UTC),
        time_zone="UTC",
        is_for_all=True,
    )
    first, second, third, *_rest = dates(row)
    assert first.beside == (beside,)
    assert (first.frozen, third.frozen) == ((), ())
    (hit,) = second.frozen
    assert (hit.freeze, hit.machines, hit.is_whole) == (freeze, 3, True)
    # nothing is installed in it, so the next window meets what it would have met
    assert second.meets == ()
    assert [one.month for one in third.meets] == [date(2027, 2, 1)]
    Freeze.objects.update(is_for_all=False, scope={"tag_name": "ring"})
    VirtualMachine.objects.filter(pk=vms[0].pk).update(tags={"ring": "1"})
    (hit,) = dates(row)[1].frozen
    assert (hit.machines, hit.is_whole) == (1, False)
    client.force_login(chief)
    page = client.get(reverse("updates:maintenance", args=[row.pk])).content.decode()
    assert "1 machine is frozen from" in page
    assert "New &lt;b&gt;Year" in page
    assert "At the same time on the same machines: Nights" in page
    assert "Elsewhere" not in page
    assert "2 machines restart" in page


def test_the_readers_clock_stands_beside_where_it_shows_another_time(
    client: Client, chief: User, vms: list[VirtualMachine]
) -> None:
    row = configure(*vms)
    with timezone.override("UTC"):
        assert configuration_preview(configuration=row, now=NOW).is_elsewhere
    with timezone.override("Asia/Tokyo"):
        assert not configuration_preview(configuration=row, now=NOW).is_elsewhere
    with timezone.override("Asia/Seoul"):
        assert not configuration_preview(configuration=row, now=NOW).is_elsewhere, "another zone, the same clock"
    client.force_login(chief)
    assert "In brackets: on your clock" in client.get(reverse("updates:maintenance", args=[row.pk])).content.decode()


def test_what_windows_meet_costs_the_same_for_many_machines_and_windows(
    recorded_catalogue: None,
    vms: list[VirtualMachine],
    resource_group: ResourceGroup,
    django_assert_max_num_queries: Any,
) -> None:
    row = configure(*vms)
    configure(vms[0], name="Nights", recur_every="Day")
    Freeze.objects.create(
        name="x", begins_at=NOW, ends_at=NOW + timedelta(days=90), time_zone="UTC", scope={"location": "japaneast"}
    )
    with django_assert_max_num_queries(10):
        dates(row)
    row.vms.add(*fleet(resource_group, 20))
    with django_assert_max_num_queries(10):
        dates(row)
