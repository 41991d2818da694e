"""Windows on each machine's own clock, by the tables of docs/rules.md, and what is looked for among many clocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.own_clocks import OnClock, Timing
from patching.recurrence import Window, parse_blackouts, parse_recurrence
from tests.patching.tables import Row, rows, words
from vms.regions import clock_of, every_clock

LONG = timedelta(minutes=120)
TOKYO, BERLIN = ZoneInfo("Asia/Tokyo"), ZoneInfo("Europe/Berlin")


def timing(
    opens_at: str = "22:00", day: date = date(2026, 12, 12), blackouts: str = "", zone: ZoneInfo | None = None
) -> Timing:
    start = datetime.combine(day, time.fromisoformat(opens_at))
    return Timing(parse_recurrence("Day"), start, zone, LONG, blackouts=parse_blackouts(blackouts))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize("row", rows("own-clock-windows"), ids=lambda row: " ".join(row.values()))
def test_a_window_opens_on_the_clock_of_the_machine(row: Row) -> None:
    day = date.fromisoformat(row["day"])
    schedule = timing(row["opens at"], day, row["blackouts"]).on(clock_of(row["time zone"], row["region"]))
    said = row["window (UTC)"]
    if schedule is None:
        assert said == "waits"
        return
    window = next(schedule.windows(after=datetime.combine(day, time(), UTC) - timedelta(days=1)))
    if OnClock(schedule.zone, window).wall.date() != day:
        assert said == "none"
        return
    state = "" if window.blackout is None else " cut" if window.is_open else " shut"
    assert f"{window.opens_at:%Y-%m-%d %H:%M} to {window.ends_at:%H:%M}{state}" == said


@pytest.mark.parametrize("row", rows("own-clock-days"), ids=lambda row: f"{row['clocks']} {row['after (UTC)']}")
def test_a_day_is_told_from_its_first_clock_to_its_last(row: Row) -> None:
    clocks = [ZoneInfo(name) for name in words(row["clocks"])]
    found = next(timing().days(clocks, after=utc(row["after (UTC)"])), None)
    if found is None:
        assert row["day"] == "never"
        return
    assert {str(on.wall.date()) for on in found.windows} == {row["day"]}
    for on, said in ((found.first, row["first"]), (found.last, row["last"])):
        assert f"{on.clock.key} {on.window.opens_at:%Y-%m-%d %H:%M}" == said


def test_of_one_zone_the_clocks_of_machines_count_for_nothing() -> None:
    fixed = timing(zone=TOKYO)
    after = utc("2026-12-12 00:00")
    for own in ([], [BERLIN], every_clock()):
        (on,) = next(fixed.days(own, after=after)).windows
        assert (on.clock, on.window.opens_at) == (TOKYO, utc("2026-12-12 13:00"))
    schedule = fixed.on(None)
    assert schedule is not None
    assert schedule.zone is TOKYO


@given(
    st.lists(st.sampled_from(every_clock()), max_size=6),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)),
    st.sampled_from(["00:00", "01:30", "02:30", "22:30", "23:59"]),
    st.sampled_from(["", "2027-01-01 to 2027-01-04"]),
    st.booleans(),
)
def test_no_window_is_lost_or_told_twice(
    clocks: list[ZoneInfo], moment: datetime, opens_at: str, blackouts: str, is_fixed: bool
) -> None:
    """What the scheduler takes from one look to the next is just what each clock has by itself."""
    asked = timing(opens_at, date(2026, 1, 1), blackouts, TOKYO if is_fixed else None)
    begins = moment.replace(tzinfo=UTC)
    ends = begins + timedelta(days=3)
    each = {
        (on.zone.key, w.opens_at) for on in asked.schedules(clocks) for w in _within(on.windows(after=begins), ends)
    }
    assert len(asked.schedules(clocks)) == (1 if is_fixed else len({clock.key for clock in clocks}))
    looked = set()
    last = begins
    while (opening := asked.next_opening(clocks, after=last)) is not None and opening.window.opens_at <= ends:
        now = opening.window.opens_at + timedelta(minutes=1)
        taken = asked.between(clocks, first=opening.window.opens_at, last=now)
        assert taken == sorted(taken, key=lambda on: on.window.opens_at)
        looked |= {(on.clock.key, on.window.opens_at) for on in taken if on.window.is_open}
        last = now
    by_day = [on for day in islice(asked.days(clocks, after=begins), 5) for on in day.windows]
    told = [(on.clock.key, on.window.opens_at) for on in by_day if on.window.opens_at <= ends]
    assert len(told) == len(set(told))
    assert set(told) == each
    shut = {(on.clock.key, on.window.opens_at) for on in by_day if not on.window.is_open}
    assert looked - {pair for pair in looked if pair[1] > ends} == each - shut


def _within(windows: Iterator[Window], ends: datetime) -> Iterator[Window]:
    return takewhile(lambda window: window.opens_at <= ends, windows)


def test_a_blackout_holds_from_the_first_clock_on() -> None:
    asked = timing(blackouts="2026-12-24")
    moment = utc("2026-12-23 14:00")
    assert asked.time_to_blackout([BERLIN], moment) == timedelta(hours=9)
    assert asked.time_to_blackout([BERLIN, TOKYO], moment) == timedelta(hours=1)
    assert asked.time_to_blackout([BERLIN, TOKYO], utc("2026-12-23 15:00")) == timedelta(0)
    assert asked.time_to_blackout([TOKYO], utc("2026-12-25 12:00")) is None
    assert asked.time_to_blackout([], moment) is None


def test_behind_its_last_day_a_configuration_has_no_window() -> None:
    asked = replace(timing(), expires_on=date(2026, 12, 13))
    found = asked.between([TOKYO, BERLIN], first=utc("2026-12-13 00:00"), last=utc("2026-12-31 00:00"))
    assert [(on.clock, on.window.opens_at) for on in found] == [
        (TOKYO, utc("2026-12-13 13:00")),
        (BERLIN, utc("2026-12-13 21:00")),
    ]
