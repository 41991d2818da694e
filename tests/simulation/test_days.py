"""What the portal keeps of each day and draws of it, beside what the machines said and went through."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import astuple, replace
from datetime import UTC, date, datetime, timedelta

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db.models import F
from django.test import Client
from django.urls import reverse

from simulation.checker import Install, Place, Work
from simulation.days import Difference, Key, Midnight, Offer, Standing, Told, compare, recompute
from simulation.report import days_of, judge, judge_days
from simulation.run import Outcome, Pace, kept_days, simulate
from simulation.train import Out, Train
from tests.factories import RoleAssignmentFactory, UserFactory
from updates.models import FleetSnapshot
from updates.overview_pictures import days_picture
from updates.selectors.fleet import EVERYWHERE, FleetScope, place_of
from updates.selectors.fleet_days import SHOWN_DAYS, Standings, load_days
from updates.services.words import refresh_words
from vms.choices import Scope
from vms.models import Grants, ResourceGroup, Subscription

MIDNIGHT = datetime(2025, 2, 1, tzinfo=UTC)
JANUARY = Out("ws2022", "5049983", "baseline", date(2025, 1, 14), build="20348.3091")
FEBRUARY = Out("ws2022", "5052106", "hotpatch", date(2025, 2, 11), build="20348.3148")
FEBRUARY_LCU = Out("ws2022", "5051979", "lcu", date(2025, 2, 11), build="20348.3207")
APRIL = Out("ws2022", "5055526", "baseline", date(2025, 4, 8), build="20348.3453")
TRAIN = Train((JANUARY, FEBRUARY, FEBRUARY_LCU, APRIL))
VM = Place("one", "japaneast", "Asia/Tokyo", "ws2022", subscription="3", build=JANUARY.build)
URGENT = Offer("5051979", "Security", FEBRUARY.released_on)
DOT_NET = Offer("5054693", "Security", date(2025, 1, 20))
DEFENDER = Offer("2267602", "Definition", None)


def told(at: datetime = MIDNIGHT, *offers: Offer, is_reboot_pending: bool = False) -> Told:
    return Told(0, at, offers, is_reboot_pending)


def standing(*said: Told, at: datetime = MIDNIGHT, place: Place = VM, works: tuple[Work, ...] = ()) -> Standing:
    """Where one machine stands: the same of its subscription and of the whole fleet."""
    found = recompute([place], said, works, [Midnight(at, len(said))], TRAIN)
    assert found.keys() == {(at.date(), "3", "ws2022"), (at.date(), "", "ws2022")}
    one, other = found.values()
    assert one == other
    return one


def installed(kb_number: str, ends: datetime, *, has_failed: bool = False) -> Work:
    begins = ends - timedelta(minutes=10)
    return Work(0, begins, ends, (Install(kb_number, begins, ends, has_failed),))


# --- where a machine stands ---------------------------------------------------------------------------------------


def test_a_machine_stands_where_its_last_words_put_it() -> None:
    week = timedelta(days=7)
    on = {"on_track": 1}
    assert standing() == Standing(no_data=1), "who has said nothing stands nowhere"
    assert standing(told()) == Standing(up_to_date=1, **on)
    assert standing(told(MIDNIGHT - week)) == Standing(up_to_date=1, **on)
    late = told(MIDNIGHT - week - timedelta(seconds=1))
    assert standing(late) == Standing(no_data=1, **on), "the track is still known"
    assert standing(told(MIDNIGHT, DEFENDER)) == Standing(other=1, **on)
    assert standing(told(is_reboot_pending=True)) == Standing(other=1, **on)
    assert standing(told(MIDNIGHT, DEFENDER, DOT_NET)) == Standing(critical=1, critical_late=1, **on)
    assert standing(told(MIDNIGHT, DOT_NET), told()) == Standing(up_to_date=1, **on), "its last words count"


def test_an_answer_that_was_not_given_by_then_counts_on_the_next_day() -> None:
    midnights = [Midnight(MIDNIGHT, 0), Midnight(MIDNIGHT + timedelta(days=1), 1)]
    found = recompute([VM], [told(MIDNIGHT)], (), midnights, TRAIN)
    assert [found[midnight.at.date(), "", "ws2022"].no_data for midnight in midnights] == [1, 0]


@pytest.mark.parametrize(
    ("at", "is_late"),
    [
        (datetime(2025, 2, 19, 7, 59, tzinfo=UTC), False),  # in the evening of the 18th where releases come from
        (datetime(2025, 2, 19, 8, tzinfo=UTC), True),
    ],
)
def test_what_is_urgent_is_late_after_a_week(at: datetime, is_late: bool) -> None:
    other = replace(URGENT, published_on=date(2025, 1, 1))
    for offer in (URGENT, other):  # the day of a release is that of the table
        assert standing(told(at, offer), at=at).critical_late == is_late
    assert standing(told(at, replace(DOT_NET, published_on=None)), at=at) == Standing(critical=1, on_track=1)


def test_who_is_on_the_track() -> None:
    february, april = datetime(2025, 2, 15, tzinfo=UTC), datetime(2025, 4, 9, tzinfo=UTC)

    def is_on(at: datetime, *works: Work, place: Place = VM) -> bool:
        return bool(standing(told(at), at=at, place=place, works=works).on_track)

    assert is_on(february)
    assert not is_on(february, place=replace(VM, has_hotpatch=False))
    assert not is_on(february, place=replace(VM, build="20348.1"))
    assert is_on(february, installed(FEBRUARY.kb_number, february))
    assert not is_on(february, installed(FEBRUARY_LCU.kb_number, february))
    assert is_on(february, installed(FEBRUARY_LCU.kb_number, february, has_failed=True))
    assert is_on(february, installed(FEBRUARY_LCU.kb_number, february + timedelta(minutes=1))), "nobody knows of it yet"
    assert not is_on(april, installed(FEBRUARY.kb_number, february)), "it is due April's baseline"
    assert is_on(april, installed(FEBRUARY_LCU.kb_number, february), installed(APRIL.kb_number, april))
    assert is_on(datetime(2025, 4, 8, 16, 59, tzinfo=UTC)), "it is out at 10:00 Pacific time"


def test_a_row_that_differs_is_named() -> None:
    key: Key = (date(2025, 2, 1), "", "ws2022")
    one, two = Standing(up_to_date=3, on_track=2), Standing(up_to_date=2, other=1, on_track=2)
    assert compare({key: one}, {key: replace(one)}) == []
    (found,) = compare({key: one}, {key: two})
    assert found == Difference(key, one, two)
    assert found.words == "2025-02-01 ws2022 of the fleet: up_to_date 3 instead of 2, other 0 instead of 1"
    other: Key = (date(2025, 2, 1), "7", "ws2022")
    assert compare({}, {other: one})[0].words == "2025-02-01 ws2022 of subscription 7: nothing was kept"
    assert compare({other: one}, {})[0].words == "2025-02-01 ws2022 of subscription 7: a row of no machines"


# --- a quarter of a fleet -----------------------------------------------------------------------------------------

BEGINS = datetime(2025, 1, 14, tzinfo=UTC)
ENDS = BEGINS + timedelta(days=91)  # a week after April's Patch Tuesday
# The nights of the regions are six hours long: each sees a stop.
PACE = Pace(at_work=timedelta(hours=1), waiting=timedelta(hours=6), quiet=timedelta(days=1))


@pytest.fixture
def _quiet() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    yield
    root.setLevel(level)


def shown(standing: Standing | Standings) -> tuple[int, ...]:
    """A column of the picture, lowest first."""
    late = standing.critical_late
    return standing.up_to_date, standing.other + standing.critical - late, late, standing.no_data


def summed(meant: dict[Key, Standing], day: date, subscriptions: set[str], line: str = "") -> Standings:
    """What the machines said on a day, of these subscriptions and this line (empty: of all)."""
    rows = [
        astuple(row)
        for (on, subscription, its_line), row in meant.items()
        if on == day and subscription in subscriptions and line in {"", its_line}
    ]
    return Standings(day, *map(sum, zip(*rows, strict=True)))


def drawn(user: User, scope: FleetScope, today: Standings) -> list[tuple[int, ...] | None]:
    """The columns of the picture that this person is shown on a day."""
    days = load_days(place_of(Grants.of(user), scope), scope, today)
    return [column.values for column in days_picture(days).columns]


def looked_at(outcome: Outcome) -> list[tuple[User, FleetScope, set[str], str]]:
    """Who looks at what: the subscriptions and the line that it comes to."""
    chief, reader = UserFactory.create(is_superuser=True), UserFactory.create()
    numbers = sorted({str(machine.subscription) for machine in outcome.machines}, key=int)
    few = {name: Subscription.objects.get(subscription_id__endswith=f"{int(name) + 1:012x}") for name in numbers[:3]}
    for subscription in few.values():
        group = ResourceGroup.objects.get(subscription=subscription)
        RoleAssignmentFactory.create(user=reader, scope=Scope.RESOURCE_GROUP, resource_group=group)
    first = numbers[0]
    return [
        (chief, EVERYWHERE, {""}, ""),
        (chief, FleetScope(product_line="ws2025"), {""}, "ws2025"),
        (chief, FleetScope(subscription=few[first].pk), {first}, ""),
        (reader, EVERYWHERE, set(few), ""),
        (reader, FleetScope(subscription=few[first].pk, product_line="ws2022"), {first}, "ws2022"),
    ]


def table_of(page: str) -> list[tuple[int, ...]]:
    """The figures below the picture of the days, for who cannot see it."""
    table = page[page.index('id="days"') :].partition("<tbody>")[2].partition("</tbody>")[0]
    return [
        tuple(int(figure) for figure in re.findall(r'<td class="number">(\d+)</td>', row))
        for row in table.split("</tr>")[:-1]
    ]


@pytest.mark.usefixtures("recorded", "_quiet")
def test_a_quarter_is_kept_and_drawn_as_the_machines_told_it(client: Client) -> None:
    said: list[str] = []
    outcome = simulate(vms=40, begins=BEGINS, ends=ENDS, seed=5, tell=said.append, pace=PACE)
    assert judge(outcome).violations == []
    assert [difference.words for difference in judge_days(outcome)] == []
    assert len({day for day, _subscription, _line in outcome.snapshots}) == 91
    _happened(outcome.snapshots)

    refresh_words(now=ENDS)
    outcome.midnights.append(Midnight(ENDS, len(outcome.ledger.answers)))
    meant = days_of(outcome)
    for user, scope, subscriptions, line in looked_at(outcome):
        whole = {
            BEGINS.date() + timedelta(days=number): summed(meant, BEGINS.date() + timedelta(days=number), subscriptions, line)
            for number in range(92)
        }  # fmt: skip
        for day in [*whole][::13]:
            columns = drawn(user, scope, whole[day])
            days = [day - timedelta(days=back) for back in reversed(range(SHOWN_DAYS))]
            assert columns == [shown(whole[one]) if one in whole else None for one in days], (day, scope)
        with time_machine.travel(ENDS, tick=False):
            client.force_login(user)
            page = client.get(reverse("home"), scope.address).content.decode()
        assert table_of(page) == [shown(row) for row in [*whole.values()][-SHOWN_DAYS:]], scope

    wrong = FleetSnapshot.objects.filter(day=date(2025, 3, 1), resource_group=None, product_line="ws2025")
    assert wrong.update(up_to_date=F("up_to_date") + 1) == 1
    outcome.snapshots, outcome.midnights = kept_days(), outcome.midnights[:-1]
    (found,) = judge_days(outcome)
    assert found.words.startswith("2025-03-01 ws2025 of the fleet: up_to_date ")
    chief, scope, subscriptions, line = looked_at(outcome)[0]
    day = date(2025, 3, 10)
    columns = drawn(chief, scope, summed(meant, day, subscriptions, line))
    assert columns[-10] != shown(summed(meant, date(2025, 3, 1), subscriptions, line))


def _happened(snapshots: dict[Key, Standing]) -> None:
    """The quarter was one worth looking at: of the whole fleet each column had machines, and had fewer.

    Nobody is up to date at midnight: Defender's definitions of the day are missing everywhere.
    """
    rows = [row for (_day, subscription, _line), row in snapshots.items() if not subscription]
    assert not any(row.up_to_date for row in rows)
    for name in ("other", "critical", "no_data", "critical_late", "on_track"):
        assert len({getattr(row, name) for row in rows}) > 1, name
