"""The hotpatch calendar: the picture tells what the rules say, and what it means for the reader's machines."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from html import unescape
from pathlib import Path

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from patching.forecast import Hindrance, Outlook
from patching.orchestrator import Patcher
from patching.terms import HotpatchTrack
from tests.factories import ConnectionFactory, VirtualMachineFactory
from tests.updates.rollouts import PLAN
from ui.train import Certainty, Kind, Train
from updates.models import Freeze, MaintenanceConfiguration, Release
from updates.pictures import sample_train, train_of
from updates.plans import plan_to_json
from updates.selectors import calendar as selectors
from updates.selectors import fleet
from updates.selectors.calendar import Calendar, load_calendar
from updates.services.catalogue import import_catalogue
from vms.models import ResourceGroup, VirtualMachine
from vms.selectors import ListTooSlowError

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)
DATA = Path(__file__).resolve().parents[2] / "updates" / "data" / "hotpatch_releases.json"


@pytest.fixture(autouse=True)
def _catalogue(db: None) -> None:
    import_catalogue(data=DATA.read_bytes())


def year(user: User, number: int, line: str = "ws2022", now: datetime = NOW) -> Calendar:
    return load_calendar(user, {"line": line, "year": str(number)}, now)


def picture(user: User, number: int, line: str = "ws2022", now: datetime = NOW) -> Train:
    return train_of(year(user, number, line, now))


def machines(group: ResourceGroup, count: int, day: date | None = None, **fields: object) -> list[VirtualMachine]:
    """Machines on the train that this portal patches by itself."""
    given = {
        "product_line": "ws2022",
        "hotpatch_track": HotpatchTrack.ON_TRACK.value,
        "patcher": Patcher.PORTAL_AUTOMATICALLY.value,
    } | fields
    row = ConnectionFactory(catalogue_date=day)
    return [VirtualMachineFactory(resource_group=group, connection=row, **given) for _ in range(count)]


def text_of(response: object) -> str:
    text = re.sub(r"<[^>]+>", " ", response.content.decode())  # type: ignore[attr-defined]
    return unescape(re.sub(r"\s+", " ", text))


def test_2024_has_its_unplanned_baseline_in_august(chief: User) -> None:
    train = picture(chief, 2024)
    assert [stop.kind for stop in train.stops].count(Kind.PLANNED) == 4
    assert [place + 1 for place, stop in enumerate(train.stops) if stop.kind is Kind.UNPLANNED] == [8]
    assert [stop.kind for stop in train.stops].count(Kind.HOTPATCH) == 7
    august = train.stops[7]
    assert (august.name, august.effect, august.day) == ("KB5041160", "restarts", "Tue 13 Aug")
    assert {stop.certainty for stop in train.stops} <= {Certainty.RECORDED, Certainty.UNCONFIRMED}
    assert [len(quarter.blocks) for quarter in train.quarters] == [1, 1, 2, 1]


def test_what_is_to_come_is_expected_and_what_is_missing_is_not_invented(chief: User) -> None:
    Release.objects.filter(product_line="ws2022", month__gte=date(2026, 5, 1)).delete()
    train = picture(chief, 2026)
    may, july = train.stops[4], train.stops[6]
    assert (may.certainty, may.name, may.effect) == (Certainty.MISSING, "not recorded", "not known")
    assert (july.certainty, july.kind, july.name) == (Certainty.EXPECTED, Kind.PLANNED, "expected")


def test_a_type_that_no_primary_source_names_is_marked(chief: User) -> None:
    Release.objects.filter(kb_number="5082142").update(is_type_confirmed=False)
    assert picture(chief, 2026).stops[3].certainty is Certainty.UNCONFIRMED


def test_before_the_first_release_of_a_line_nothing_is_drawn(chief: User) -> None:
    kinds = [stop.kind for stop in picture(chief, 2024, "ws2025").stops]
    assert kinds[:9] == [Kind.NOTHING] * 9
    assert kinds[10:] == [Kind.HOTPATCH] * 2


def test_after_the_end_of_hotpatching_every_month_is_a_cumulative_update(chief: User) -> None:
    late = datetime(2027, 9, 20, 12, tzinfo=UTC)
    kinds = [stop.kind for stop in picture(chief, 2027, now=late).stops]
    assert kinds[9:] == [Kind.PLANNED, Kind.CUMULATIVE, Kind.CUMULATIVE]
    assert year(chief, 2027, now=datetime(2027, 11, 20, tzinfo=UTC)).next_baseline is None


def test_out_of_band_releases_stand_between(chief: User) -> None:
    between = {row.says: row.is_hotpatch for row in picture(chief, 2025, "ws2025").between}
    assert between["24 Oct: Out-of-band hotpatch, KB5070893."] is True
    assert between["23 Oct: Out-of-band cumulative update, KB5070881."] is False


def test_in_japan_a_release_is_out_on_wednesday(chief: User, client: Client) -> None:
    client.force_login(chief)
    client.cookies["timezone"] = "Asia/Tokyo"
    with time_machine.travel(NOW, tick=False):
        shown = text_of(client.get("/calendar/?line=ws2022&year=2026"))
    assert "Wed 14 Jan" in shown
    assert "2026-01-14 (Wed)" in shown
    assert "those on the clock of Asia/Tokyo" in shown
    client.cookies["timezone"] = "UTC"
    with time_machine.travel(NOW, tick=False):
        assert "those on the clock of" not in text_of(client.get("/calendar/?line=ws2022&year=2026"))


def test_a_baseline_restarts_the_machines_on_the_train(chief: User, resource_group: ResourceGroup) -> None:
    machines(resource_group, 3)
    machines(resource_group, 2, hotpatch_track=HotpatchTrack.NOT_ON_TRAIN.value)
    machines(resource_group, 1, patcher=Patcher.NOBODY.value)
    machines(resource_group, 1, reboot_setting="Never")
    machines(resource_group, 9, product_line="ws2025")
    calendar = year(chief, 2026)
    assert calendar.machines is not None
    july, august = calendar.machines[date(2026, 7, 1)], calendar.machines[date(2026, 8, 1)]
    assert july == {Outlook.WILL: 5, Hindrance.NOBODY_PATCHES: 1, Hindrance.NEVER_REBOOTS: 1}
    assert august == {Outlook.WILL_NOT: 5, Outlook.WILL: 2}
    assert date(2026, 4, 1) not in calendar.machines  # that is over
    assert calendar.next_restarts == 5
    train = train_of(calendar)
    assert train.stops[6].effect == "5 restart"
    assert "due, and nobody installs it 1" in train.stops[6].says
    assert train.stops[7].effect == "2 restart"
    assert train.stops[0].effect == "restarts"


def test_the_card_of_a_month_leads_to_the_machines_that_it_counts(
    chief: User, client: Client, resource_group: ResourceGroup
) -> None:
    machines(resource_group, 3)
    machines(resource_group, 2, hotpatch_track=HotpatchTrack.NOT_ON_TRAIN.value)
    client.force_login(chief)
    with time_machine.travel(NOW, tick=False):
        page = client.get("/calendar/?line=ws2022&year=2026").content.decode()
        for month, count in (("2026-07", 5), ("2026-08", 2)):
            (address,) = re.findall(rf'<a href="([^"]+reboots={month})">{count} machines reboot</a>', page)
            shown = client.get(unescape(address))
            assert len(re.findall(r'<th scope="row"><a ', shown.content.decode())) == count
    assert "reboots=2026-04" not in page


def test_machines_behind_a_catalogue_date_are_judged_by_the_catalogue_of_that_day(
    chief: User, resource_group: ResourceGroup
) -> None:
    machines(resource_group, 2, day=date(2026, 2, 20))
    calendar = year(chief, 2026)
    assert calendar.has_dated_machines
    assert calendar.machines is not None
    assert calendar.machines[date(2026, 7, 1)] == {Outlook.WILL: 2}
    assert date(2026, 4, 1) not in calendar.machines
    assert year(chief, 2025).machines == {}


def test_only_machines_that_one_may_see_are_counted(
    operator: User, outsider: User, resource_group: ResourceGroup
) -> None:
    machines(resource_group, 2)
    mine, theirs = year(operator, 2026), year(outsider, 2026)
    assert mine.machines is not None
    assert mine.machines[date(2026, 7, 1)] == {Outlook.WILL: 2}
    assert theirs.machines == {}


def test_a_count_that_takes_too_long_says_so(chief: User, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_slow(*_args: object) -> None:
        raise ListTooSlowError

    monkeypatch.setattr(fleet, "fetch_bounded", too_slow)
    assert year(chief, 2026).machines is None
    client.force_login(chief)
    assert "Counting your machines took too long" in text_of(client.get("/calendar/"))


def configuration(name: str, *vms: VirtualMachine, **fields: object) -> MaintenanceConfiguration:
    given = {
        "name": name,
        "starts_on": date(2026, 1, 1),
        "starts_at": time(22, 0),
        "time_zone": "Tokyo Standard Time",
        "recur_every": "Month Second Tuesday Offset4",
        "plan": plan_to_json(PLAN),
    } | fields
    row = MaintenanceConfiguration.objects.create(**given)
    row.vms.set(vms)
    return row


def test_windows_are_those_that_mean_ones_machines(
    chief: User, operator: User, outsider: User, resource_group: ResourceGroup
) -> None:
    (vm,) = machines(resource_group, 1)
    configuration("by name", vm)
    configuration("by scope", scope={"resource_group": resource_group.name.upper()})
    configuration("elsewhere", scope={"resource_group": "rg-other"})
    configuration("off", vm, is_enabled=False)
    for user, names in (
        (operator, {"by name", "by scope"}),
        (outsider, set()),
        (chief, {"by name", "by scope", "elsewhere"}),
    ):
        windows = year(user, 2026).windows
        assert windows is not None
        assert set(windows.names) == names
    windows = year(operator, 2026).windows
    assert windows is not None
    assert {opening.at for opening in windows.openings if opening.at.month == 6} == {
        datetime(2026, 6, 13, 13, tzinfo=UTC)
    }
    assert min(opening.at for opening in windows.openings) > NOW
    assert year(operator, 2025).windows == selectors.Windows()


def test_a_year_costs_the_same_with_any_number_of_machines_and_configurations(
    operator: User, resource_group: ResourceGroup
) -> None:
    def cost() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            year(operator, 2026)
        return len(captured)

    (vm,) = machines(resource_group, 1)
    configuration("first", vm)
    before = cost()
    machines(resource_group, 40, hotpatch_track=HotpatchTrack.BASELINE_DUE.value)
    for number in range(20):
        configuration(f"more {number:02}", scope={"tag_name": f"t{number}"})
    assert cost() == before <= 9


@pytest.mark.parametrize("query", ["", "?line=ws1999&year=9999", "?year=abc", "?line=ws2025&year=2027", "?year=²"])
def test_an_address_that_names_no_year_shows_this_one(client: Client, chief: User, query: str) -> None:
    client.force_login(chief)
    response = client.get(f"/calendar/{query}")
    assert response.status_code == 200
    shown = int(response.context["calendar"].year)
    assert shown == (2027 if "2027" in query else timezone.now().year)


def test_the_table_says_what_the_picture_says(client: Client, chief: User) -> None:
    client.force_login(chief)
    with time_machine.travel(NOW, tick=False):
        page = client.get("/calendar/?line=ws2022&year=2024").content.decode()
    rows = re.findall(
        r'<tr><th scope="row" class="nowrap">([^<]+)</th><td>([^<]+)</td><td>([^<]+)</td><td>([^<]+)</td>', page
    )
    assert len(rows) == 12
    assert ("Tue 13 Aug", "Unplanned baseline", "KB5041160", "restarts") in rows
    for month in range(1, 13):
        assert f'href="#month-2024-{month:02}"' in page
        assert f'id="month-2024-{month:02}"' in page


def test_the_sample_year_is_the_articles(client: Client, outsider: User) -> None:
    kinds = [stop.kind for stop in sample_train().stops]
    assert (kinds.count(Kind.PLANNED), kinds.count(Kind.UNPLANNED), kinds.count(Kind.HOTPATCH)) == (4, 2, 6)
    client.force_login(outsider)
    shown = text_of(client.get("/calendar/sample/"))
    for said in ("Six restarts instead of twelve", "Nobody knows in advance", "applications are not affected"):
        assert said in shown


def test_freezes_are_bands_with_their_reason_in_the_picture_and_in_the_table(
    chief: User, outsider: User, client: Client, resource_group: ResourceGroup
) -> None:
    machines(resource_group, 1)
    times = {"time_zone": "UTC", "is_for_all": True}
    new_year = Freeze.objects.create(
        name="New <b>Year",
        begins_at=datetime(2026, 12, 28, tzinfo=UTC),
        ends_at=datetime(2027, 1, 4, tzinfo=UTC),
        **times,
    )
    # over, ended before its time, and ended before it began
    Freeze.objects.create(
        name="Audit", begins_at=datetime(2026, 2, 1, tzinfo=UTC), ends_at=datetime(2026, 2, 20, tzinfo=UTC), **times
    )
    for name, ended_at in (("Early", datetime(2026, 3, 5, tzinfo=UTC)), ("Unheard", datetime(2026, 2, 1, tzinfo=UTC))):
        Freeze.objects.create(
            name=name,
            begins_at=datetime(2026, 3, 1, tzinfo=UTC),
            ends_at=datetime(2026, 3, 20, tzinfo=UTC),
            ended_at=ended_at,
            **times,
        )
    client.force_login(chief)
    with time_machine.travel(NOW, tick=False):
        page = client.get("/calendar/?line=ws2022&year=2026").content.decode()
        following = client.get("/calendar/?line=ws2022&year=2027").content.decode()
    assert page.count('class="train-band"') == 1 + 3  # the legend's, too
    says = "Frozen from 2026-12-28 00:00 until 2027-01-04 00:00: New &lt;b&gt;Year"
    address = f"/freezes/{new_year.pk}/"
    assert f'<a class="chart-stop" href="{address}" aria-label="{says}">' in page
    assert f'<td colspan="4"><a href="{address}">{says}</a></td>' in page
    assert "Frozen from 2026-03-01 00:00 until 2026-03-05 00:00: Early" in page
    assert "Unheard" not in page
    assert following.count('class="train-band"') == 1 + 1
    assert says in following


def test_a_freeze_of_others_is_no_band(operator: User, client: Client, resource_group: ResourceGroup) -> None:
    machines(resource_group, 1)
    Freeze.objects.create(
        name="Elsewhere",
        begins_at=datetime(2026, 12, 28, tzinfo=UTC),
        ends_at=datetime(2027, 1, 4, tzinfo=UTC),
        time_zone="UTC",
        scope={"location": "moon"},
    )
    client.force_login(operator)
    with time_machine.travel(NOW, tick=False):
        page = client.get("/calendar/?line=ws2022&year=2026").content.decode()
    assert "Elsewhere" not in page
    assert page.count('class="train-band"') == 1
