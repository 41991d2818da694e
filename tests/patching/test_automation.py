"""Who patches, when windows open, who goes when: the tables of docs/rules.md, and properties."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from patching.orchestrator import Patcher, who_patches
from patching.recurrence import (
    FIRST_DAY,
    LAST_DAY,
    MIN_DURATION,
    MOST_OFFSET,
    ORDINALS,
    Blackout,
    BlackoutError,
    Frequency,
    Recurrence,
    RecurrenceError,
    RecurrenceProblem,
    Schedule,
    blackouts_from_json,
    blackouts_to_json,
    check_possible,
    dates_of,
    instant_of,
    is_off_peak,
    off_peak_left,
    parse_blackouts,
    parse_hours,
    parse_recurrence,
    time_off_peak,
    time_to_blackout,
    windows_name,
    windows_zones,
    zone_of,
)
from patching.releases import as_of
from patching.rollback import RollbackOrder, plan_rollback
from patching.rollout import (
    LaneState,
    Machine,
    Progress,
    ProgressError,
    WaveResult,
    gate_of,
    groups_of,
    may_start,
    must_pause,
    phases_of,
    plan_lanes,
    plan_rings,
)
from patching.scope import Scope, ScopeError
from patching.terms import PatchMode, ProductLine
from tests.patching.recorded import releases
from tests.patching.tables import flag, rows, words
from updates.texts import BLACKOUT_PROBLEMS, RECURRENCE_PROBLEMS, SCOPE_PROBLEMS
from vms.regions import region_pairs

PAIRS = region_pairs()


def moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M")


# --- who patches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", rows("who-patches"), ids=lambda row: " ".join(row.values()))
@pytest.mark.parametrize("is_automatic_on", [True, False])
def test_who_patches(row: dict[str, str], is_automatic_on: bool) -> None:
    verdict = who_patches(
        patch_mode=PatchMode(row["patch mode"]),
        is_bypassing=flag(row["bypass"]),
        has_schedule=flag(row["schedule"]),
        is_portal_in_charge=row["in charge"] == "portal",
        is_automatic_on=is_automatic_on,
        has_agent=flag(row["agent"]),
    )
    if row["switch"] in {"", "on" if is_automatic_on else "off"}:
        assert (verdict.patcher.value, verdict.reason.value) == (row["who"], row["reason"])
    else:
        assert verdict.patcher.value != row["who"]


def test_the_table_has_every_combination_and_the_eight_cases_of_azure() -> None:
    table = rows("who-patches")
    keys = [tuple(row[name] for name in ("in charge", "patch mode", "bypass", "schedule", "agent")) for row in table]
    assert len(set(keys)) == len(keys) - 1 == 2 * len(PatchMode) * 2 * 2 * 2
    assert [row["switch"] for row in table if row["switch"]] == ["on", "off"]
    by_key = {key: row["who"] for key, row in zip(keys, table, strict=True)}
    platform = PatchMode.AUTOMATIC_BY_PLATFORM.value
    eight = {
        ("yes", "yes"): "portal_by_schedule",
        ("yes", "no"): "nobody",
        ("no", "yes"): "nobody",
        ("no", "no"): "platform",
    }
    for (bypass, schedule), who in eight.items():
        assert by_key["platform", platform, bypass, schedule, "yes"] == who
        assert by_key["platform", PatchMode.MANUAL.value, bypass, schedule, "yes"] == "nobody"
    # where Azure is in charge this portal never patches by itself: nothing is done twice
    assert not [row for row in table if row["in charge"] == "platform" and row["who"] == Patcher.PORTAL_AUTOMATICALLY]


# --- when --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", rows("recurrence"), ids=lambda row: row["text"])
def test_recurrence(row: dict[str, str]) -> None:
    start = datetime.combine(date.fromisoformat(row["start"]), datetime.min.time())
    recurrence = parse_recurrence(row["text"])
    found = list(islice(dates_of(recurrence, start.date(), not_before=start.date()), 3))
    if row["next dates"] == "never":
        assert found == []
        with pytest.raises(RecurrenceError) as caught:
            check_possible(recurrence, start.date())
        assert caught.value.problem is RecurrenceProblem.NEVER
        assert caught.value.problem in RECURRENCE_PROBLEMS
        return
    check_possible(recurrence, start.date())
    assert [day.isoformat() for day in found] == list(words(row["next dates"]))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hour",
        "0Days",
        "999Days",
        "Day Monday",
        "Week Someday",
        "Month",
        "Month day0",
        "Month day32",
        "Month day1,x",
        "Month Fifth Monday",
        "Month First",
        "Month First Monday Offset",
        "Month First Monday Offset28",
        "Month First Monday later",
    ],
)
def test_what_is_no_recurrence_says_why(text: str) -> None:
    with pytest.raises(RecurrenceError) as caught:
        parse_recurrence(text)
    assert caught.value.problem in RECURRENCE_PROBLEMS, "every problem has its words"
    assert caught.value.entry in text


recurrences = st.one_of(
    st.builds(Recurrence, st.just(Frequency.DAY), st.integers(1, 366)),
    st.builds(
        Recurrence,
        st.just(Frequency.WEEK),
        st.integers(1, 52),
        weekdays=st.sets(st.integers(0, 6)).map(lambda found: tuple(sorted(found))),
    ),
    st.builds(
        Recurrence,
        st.just(Frequency.MONTH),
        st.integers(1, 36),
        days=st.sets(st.integers(1, 31), min_size=1).map(lambda found: tuple(sorted(found))),
    ),
    st.builds(
        Recurrence,
        st.just(Frequency.MONTH),
        st.integers(1, 36),
        ordinal=st.sampled_from(ORDINALS),
        weekday=st.integers(0, 6),
        offset=st.integers(-MOST_OFFSET, MOST_OFFSET),
    ),
)
starts = st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 31))


@given(recurrences)
@example(Recurrence(Frequency.DAY, 3))
@example(Recurrence(Frequency.WEEK))
@example(Recurrence(Frequency.WEEK, 2, weekdays=(5, 6)))
@example(Recurrence(Frequency.MONTH, days=(1, 31)))
@example(Recurrence(Frequency.MONTH, ordinal="Last", weekday=6, offset=-3))
@example(Recurrence(Frequency.MONTH, ordinal="First", weekday=0))
def test_a_recurrence_survives_its_text(recurrence: Recurrence) -> None:
    assert parse_recurrence(str(recurrence)) == recurrence
    assert parse_recurrence(f"  {str(recurrence).upper()} ") == recurrence
    assert parse_recurrence(re.sub(r"^(\d+)", r"\1 ", str(recurrence))) == recurrence


def opened(schedule: Schedule, after: datetime, count: int) -> list[datetime]:
    return [window.opens_at for window in islice(schedule.windows(after=after), count)]


@settings(max_examples=150)
@given(recurrences, starts, starts, st.sampled_from(windows_zones()))
def test_windows_ascend_begin_with_the_start_and_show_its_time(
    recurrence: Recurrence, start: datetime, after: datetime, name: str
) -> None:
    zone, moment_after = zone_of(name), after.replace(tzinfo=UTC)
    schedule = Schedule(recurrence, start, zone, timedelta(minutes=120))
    found = opened(schedule, moment_after, 4)
    assert found == sorted(set(found))
    assert all(instant > moment_after for instant in found)
    for instant in found:
        shown = instant.astimezone(zone).replace(tzinfo=None)
        assert shown.date() >= start.date()
        off = abs(datetime.combine(shown.date(), start.time()) - shown)
        assert off <= timedelta(hours=2) or off >= timedelta(hours=22), "only a skipped time is shown as another"
    # looking from just before one of them finds it again: nothing depends on where one looks from
    if found:
        assert opened(schedule, found[0] - timedelta(seconds=1), len(found)) == found


@pytest.mark.parametrize("text", ["Day", "Week Saturday", "Month day1,day31", "Month Third Sunday Offset6"])
def test_windows_end_with_the_last_year(text: str) -> None:
    start = datetime(2100, 11, 1, 12)
    schedule = Schedule(parse_recurrence(text), start, zone_of("UTC"), timedelta(minutes=120))
    found = opened(schedule, start.replace(tzinfo=UTC), 1_000)
    assert 1 < len(found) < 62
    assert found[-1].date() <= LAST_DAY
    last = replace(schedule, expires_on=found[-1].date() - timedelta(days=1))
    assert opened(last, found[0], 1_000) == found[1:-1]


periods = st.lists(
    st.tuples(st.dates(date(2024, 1, 1), date(2040, 1, 1)), st.one_of(st.integers(0, 40), st.integers(0, 30_000))).map(
        lambda pair: Blackout(pair[0], min(LAST_DAY, pair[0] + timedelta(days=pair[1])))
    ),
    max_size=12,
)


@settings(max_examples=150)
@given(recurrences, starts, starts, periods, st.integers(90, 235), st.sampled_from(["UTC", "Tokyo Standard Time"]))
def test_the_search_for_windows_is_bounded_and_no_window_touches_a_blackout(
    recurrence: Recurrence, start: datetime, after: datetime, found: list[Blackout], minutes: int, name: str
) -> None:
    """Counted, not timed: the search looks at no more days than it has periods, windows and turns of its recurrence."""
    zone = zone_of(name)
    schedule = Schedule(recurrence, start, zone, timedelta(minutes=minutes), blackouts=tuple(found))
    looked = 0

    def counting(*args: Any, **kwargs: Any) -> Iterator[date]:
        nonlocal looked
        for day in dates_of(*args, **kwargs):
            looked += 1
            yield day

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("patching.recurrence.dates_of", counting)
        windows = list(islice(schedule.windows(after=after.replace(tzinfo=UTC)), 6))
    assert looked <= 6 + len(found) + 40, "days in a blackout are jumped over, not walked"
    for window in windows:
        day = window.opens_at.astimezone(zone).date()
        assert not any(period.first <= day <= period.last for period in found)
        assert not any(period.begins(zone) < window.ends_at <= period.ends(zone) for period in found)
        assert window.opens_at < window.ends_at <= window.opens_at + schedule.duration
        assert window.is_open is (window.ends_at - window.opens_at >= MIN_DURATION)
        assert (window.blackout is None) is (window.ends_at - window.opens_at == schedule.duration)


@pytest.mark.parametrize("row", rows("blackout-lines"), ids=lambda row: row["line"])
def test_blackout_lines(row: dict[str, str]) -> None:
    if row["problem"]:
        with pytest.raises(BlackoutError) as caught:
            parse_blackouts(f"2020-01-01\n\n{row['line']}\n")
        assert caught.value.problem.value == row["problem"]
        assert caught.value.problem in BLACKOUT_PROBLEMS, "every problem has its words"
        return
    (period,) = parse_blackouts(row["line"])
    assert f"{period.first} {period.last}" == row["read as"]


def test_blackouts_are_sorted_and_told_once() -> None:
    text = "2026-12-24\n2026-01-01 to 2026-01-03\n\n2026-12-24 to 2026-12-24"
    assert [str(period.first) for period in parse_blackouts(text)] == ["2026-01-01", "2026-12-24"]
    assert parse_blackouts(" \n ") == ()


@pytest.mark.parametrize("row", rows("kept-blackouts"), ids=lambda row: row["kept"])
def test_kept_blackouts(row: dict[str, str]) -> None:
    kept = json.loads(row["kept"])
    if row["problem"]:
        with pytest.raises(BlackoutError) as caught:
            blackouts_from_json(kept)
        assert caught.value.problem.value == row["problem"]
        return
    found = blackouts_from_json(kept)
    assert [f"{period.first} {period.last}" for period in found] == ([row["read as"]] if row["read as"] else [])
    assert blackouts_to_json(found) == kept


@given(st.lists(st.tuples(*[st.dates(FIRST_DAY, LAST_DAY)] * 2).map(sorted)))
def test_blackouts_are_kept_exactly(pairs: list[list[date]]) -> None:
    periods = tuple(sorted({Blackout(*pair) for pair in pairs}))
    assert blackouts_from_json(json.loads(json.dumps(blackouts_to_json(periods)))) == periods


@pytest.mark.parametrize("row", rows("kept-scope"), ids=lambda row: row["kept"])
def test_kept_scopes(row: dict[str, str]) -> None:
    kept = json.loads(row["kept"])
    if row["problem"]:
        with pytest.raises(ScopeError) as caught:
            Scope.from_json(kept)
        assert caught.value.problem.value == row["problem"]
        assert caught.value.problem in SCOPE_PROBLEMS, "every problem has its words"
        assert "\x00" not in caught.value.entry
        return
    found = Scope.from_json(kept)
    assert found.as_json == json.loads(row["read as"])
    assert Scope.from_json(found.as_json) == found


def test_the_parts_of_a_scope_ask_for_one_thing_each() -> None:
    parts = Scope(location="japaneast", tag_name="ring", tag_value="1").parts
    assert parts == {
        "location": Scope(location="japaneast"),
        "tag_name": Scope(tag_name="ring"),
        "tag_value": Scope(tag_name="ring", tag_value="1"),
    }


@pytest.mark.parametrize("row", rows("blackout-windows"), ids=lambda row: f"{row['opens at']} {row['blackouts']}")
def test_blackouts_hold_at_starts_and_ends(row: dict[str, str]) -> None:
    zone = zone_of(row["zone"])
    start = datetime.combine(date(2026, 12, 22), time.fromisoformat(row["opens at"]))
    blackouts = parse_blackouts("\n".join(words(row["blackouts"])))
    schedule = Schedule(parse_recurrence("Day"), start, zone, timedelta(minutes=120), blackouts=blackouts)
    found = []
    for window in islice(schedule.windows(after=datetime(2026, 12, 22, tzinfo=UTC)), 3):
        opens, ends = (moment.astimezone(zone) for moment in (window.opens_at, window.ends_at))
        state = "" if window.blackout is None else " cut" if window.is_open else " shut"
        found.append(f"{opens:%d %H:%M}-{ends:%H:%M}{state}")
    assert found == list(words(row["windows"]))


def test_how_long_it_is_until_a_blackout() -> None:
    zone, periods_of_two = zone_of("UTC"), parse_blackouts("2026-12-24 to 2026-12-25\n2027-01-01")
    for moment_, left in (
        (datetime(2026, 12, 23, 22, tzinfo=UTC), timedelta(hours=2)),
        (datetime(2026, 12, 24, tzinfo=UTC), timedelta(0)),
        (datetime(2026, 12, 25, 23, 59, tzinfo=UTC), timedelta(0)),
        (datetime(2026, 12, 26, tzinfo=UTC), timedelta(days=6)),
        (datetime(2027, 1, 2, tzinfo=UTC), None),
    ):
        assert time_to_blackout(periods_of_two, zone, moment_) == left


@pytest.mark.parametrize("row", rows("early-months"), ids=lambda row: f"{row['text']} {row['opens at']} {row['zone']}")
def test_windows_that_open_before_that_months_release(row: dict[str, str]) -> None:
    start = datetime.combine(date(2026, 11, 1), time.fromisoformat(row["opens at"]))
    schedule = Schedule(parse_recurrence(row["text"]), start, zone_of(row["zone"]), timedelta(minutes=120))
    found = schedule.early_months(after=datetime(2026, 11, 27, tzinfo=UTC))
    assert all(early.opens_at < early.released_at for early in found)
    if row["early months"] == "all":
        assert len(found) == 24
    else:
        assert [f"{early.month:%Y-%m}" for early in found] == list(words(row["early months"]))


def test_what_does_not_open_is_not_early() -> None:
    start = datetime(2027, 8, 1, 22)
    schedule = Schedule(
        parse_recurrence("Month Second Wednesday"),
        start,
        zone_of("UTC"),
        timedelta(minutes=120),
        expires_on=date(2027, 12, 31),
        blackouts=parse_blackouts("2027-09-01 to 2027-09-30"),
    )
    early = schedule.early_months(after=datetime(2026, 11, 27, tzinfo=UTC))
    assert [f"{one.month:%Y-%m}" for one in early] == ["2027-12"]


@pytest.mark.parametrize("row", rows("wall-clock"), ids=lambda row: f"{row['zone']} {row['wall clock']}")
def test_wall_clocks_of_both_hemispheres(row: dict[str, str]) -> None:
    assert instant_of(moment(row["wall clock"]), zone_of(row["zone"])) == moment(row["UTC"]).replace(tzinfo=UTC)


@pytest.mark.parametrize("row", rows("off-peak"), ids=lambda row: f"{row['zone']} {row['UTC']}")
def test_off_peak(row: dict[str, str]) -> None:
    assert is_off_peak(moment(row["UTC"]).replace(tzinfo=UTC), zone_of(row["zone"])) is flag(row["off-peak"])


@pytest.mark.parametrize("row", rows("off-peak-left"), ids=lambda row: f"{row['zone']} {row['hours']} {row['UTC']}")
def test_off_peak_lengths_are_real_minutes(row: dict[str, str]) -> None:
    begins, ends = parse_hours(row["hours"])
    left = off_peak_left(moment(row["UTC"]).replace(tzinfo=UTC), zone_of(row["zone"]), begins=begins, ends=ends)
    assert left == timedelta(minutes=int(row["minutes left"]))


@settings(max_examples=200)
@given(
    st.sampled_from(windows_zones()),
    st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),
    st.times().map(lambda found: found.replace(second=0, microsecond=0)),
    st.integers(120, 1_439),
)
def test_off_peak_hours_run_down_minute_by_minute(name: str, at: datetime, begins: time, minutes: int) -> None:
    zone, now = zone_of(name), at.replace(tzinfo=UTC)
    ends = (datetime.combine(date(2026, 1, 1), begins) + timedelta(minutes=minutes)).time()
    left = off_peak_left(now, zone, begins=begins, ends=ends)
    assert timedelta(0) <= left <= timedelta(minutes=minutes) + timedelta(hours=2)
    assert bool(left) is is_off_peak(now, zone, begins=begins, ends=ends)
    if left:
        # every real minute that passes is one less, until the clock shows the end
        half = now + left / 2
        assert off_peak_left(half, zone, begins=begins, ends=ends) == left - left / 2
        assert off_peak_left(now + left, zone, begins=begins, ends=ends) != left
        over = (now + left).astimezone(zone)
        assert abs(datetime.combine(over.date(), ends) - over.replace(tzinfo=None)) <= timedelta(hours=2)


@pytest.mark.parametrize("row", rows("time-off-peak"), ids=lambda row: f"{row['zone']} {row['UTC']}")
def test_the_time_of_an_installation_off_peak(row: dict[str, str]) -> None:
    found = time_off_peak(moment(row["UTC"]).replace(tzinfo=UTC), zone_of(row["zone"]))
    assert found == timedelta(minutes=int(row["minutes"]))


@pytest.mark.parametrize("name", windows_zones())
def test_every_windows_zone_has_its_off_peak_hours(name: str) -> None:
    """Six hours a day, an hour more or less where the clock moves; and never at noon."""
    zone = zone_of(name)
    for day in (datetime(2026, 1, 15, tzinfo=UTC), datetime(2026, 7, 15, tzinfo=UTC)):
        quiet = sum(is_off_peak(day + timedelta(minutes=15 * quarter), zone) for quarter in range(96))
        assert quiet == 24
        noon = day.astimezone(zone).replace(hour=12)
        assert not is_off_peak(noon, zone)


def test_off_peak_hours_may_lie_within_a_day() -> None:
    zone = zone_of("UTC")
    at = datetime(2026, 1, 1, 3, tzinfo=UTC)
    assert is_off_peak(at, zone, begins=time(2), ends=time(5))
    assert not is_off_peak(at, zone, begins=time(4), ends=time(5))
    assert off_peak_left(at, zone, begins=time(2), ends=time(5)) == timedelta(hours=2)


def test_hours_are_two_times_of_day_at_least_two_hours_apart() -> None:
    assert parse_hours(" 22:00-04:00 ") == (time(22), time(4))
    assert parse_hours("01:30-05:00") == (time(1, 30), time(5))
    for text in ("", "22-04", "25:00-04:00", "22:00", "22:00-23:59", "22:00-22:00"):
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            parse_hours(text)


# --- who goes when -----------------------------------------------------------------------------------------------

machines = st.lists(
    st.builds(
        Machine,
        vm_id=st.integers(1, 10**6),
        region=st.sampled_from(["japaneast", "japanwest", "westeurope", "northeurope", "nowhere"]),
        zone=st.sampled_from(["", "1", "2", "3"]),
        availability_set=st.sampled_from(["", "", "small", "large"]),
        subscription=st.sampled_from(["", "one", "two"]),
        group=st.sampled_from(["", "web", "sql"]),
    ),
    max_size=120,
    unique_by=lambda machine: machine.vm_id,
)


@settings(max_examples=200)
@given(machines)
def test_lanes_keep_every_rule_of_availability(fleet: list[Machine]) -> None:
    """Judged by counting, not by the planner's own words."""
    lanes = plan_lanes(fleet, pairs=PAIRS)
    assert Counter(vm for lane in lanes for wave in lane.waves for vm in wave) == Counter(m.vm_id for m in fleet)
    assert all(wave for lane in lanes for wave in lane.waves)
    assert [lane.phase for lane in lanes] == sorted(lane.phase for lane in lanes)
    by_id = {machine.vm_id: machine for machine in fleet}
    places = [{(by_id[vm].region, by_id[vm].clock) for wave in lane.waves for vm in wave} for lane in lanes]
    assert all(len(place) == 1 for place in places), "a lane is of one region and one clock"
    regions: dict[int, set[str]] = defaultdict(set)
    for lane, place in zip(lanes, places, strict=True):
        regions[lane.phase] |= {region for region, _clock in place}
    for phase in regions.values():
        assert not any(PAIRS.get(region, frozenset()) & set(phase) for region in phase)
    for wave in (wave for lane in lanes for wave in lane.waves):
        going = [by_id[vm] for vm in wave]
        assert len({machine.zone for machine in going}) == 1
        assert_room(going, fleet)


def assert_room(going: list[Machine], fleet: list[Machine]) -> None:
    """Of no group too many go at once."""
    sets = Counter(machine.availability_set for machine in going if machine.availability_set)
    assert set(sets.values()) <= {1}
    for key in ("subscription", "group"):
        totals = Counter(getattr(machine, key) for machine in fleet)
        for name, count in Counter(getattr(machine, key) for machine in going).items():
            assert not name or count <= max(1, totals[name] // 4)


@settings(max_examples=200)
@given(machines, st.data())
def test_whatever_runs_at_once_keeps_every_rule_and_ends(fleet: list[Machine], data: st.DataObject) -> None:
    """Any number of rollouts that ask in any order: what is going on keeps the rules, and everybody has a turn."""
    sizes = Counter(key for machine in fleet for key in groups_of(machine))
    by_id = {machine.vm_id: machine for machine in fleet}
    waiting = data.draw(st.permutations(sorted(by_id)))
    going: list[int] = []
    for _ in fleet:
        asking = waiting[: data.draw(st.integers(1, 40))] if going else waiting
        found = may_start([by_id[vm] for vm in asking], going=[by_id[vm] for vm in going], sizes=sizes, pairs=PAIRS)
        assert found or going or not waiting, "where nothing is going on somebody may start"
        going += found
        waiting = [vm for vm in waiting if vm not in set(found)]
        now = [by_id[vm] for vm in going]
        assert_room(now, fleet)
        regions = {machine.region for machine in now}
        assert not any(PAIRS.get(region, frozenset()) & regions for region in regions)
        for region in regions:
            assert len({m.zone for m in now if m.region == region} - {""}) <= 1
        going = going[data.draw(st.integers(1, max(1, len(going)))) :]
    assert not waiting
    assert not going


def test_machines_of_one_region_wait_for_nobodys_night_but_their_own() -> None:
    def machine(vm_id: int, clock: str) -> Machine:
        return Machine(vm_id, "japaneast", clock=clock)

    lanes = plan_lanes([machine(1, "Asia/Tokyo"), machine(2, "UTC"), machine(3, "Asia/Tokyo")], pairs=PAIRS)
    assert [(lane.phase, lane.waves) for lane in lanes] == [(0, ((1, 3),)), (0, ((2,),))]


def test_a_full_wave_is_passed_over() -> None:
    """Of an availability set one goes at a time, of the subscription of twelve three; what has room goes earlier."""
    fleet = [
        Machine(n, "nowhere", availability_set="x" if n in {1, 2, 3} else "", subscription="s") for n in range(1, 13)
    ]
    (lane,) = plan_lanes(fleet, pairs=PAIRS)
    assert lane.waves == ((1, 4, 5), (2, 6, 7), (3, 8, 9), (10, 11, 12))


def test_a_wave_is_taken_where_both_groups_of_a_machine_have_room() -> None:
    """2 and 4 wait for 1 and 3, and their set has room for one of them at a time."""
    fleet = [
        Machine(1, "nowhere", group="g"),
        Machine(2, "nowhere", availability_set="x", group="g"),
        Machine(3, "nowhere", group="k"),
        Machine(4, "nowhere", availability_set="x", group="k"),
    ]
    (lane,) = plan_lanes(fleet, pairs=PAIRS)
    assert lane.waves == ((1, 3), (2,), (4,))


@pytest.mark.parametrize("is_availability_first", [True, False])
def test_rings_go_one_after_the_other(is_availability_first: bool) -> None:
    rings = [
        [Machine(1, "japaneast"), Machine(2, "japanwest")],
        [],
        [Machine(3, "japaneast"), Machine(4, "japaneast")],
    ]
    lanes = plan_rings(rings, is_availability_first=is_availability_first, pairs=PAIRS)
    phases = [(lane.ring, lane.phase, lane.waves) for lane in lanes]
    if is_availability_first:
        assert phases == [(0, 0, ((1,),)), (0, 1, ((2,),)), (2, 2, ((3, 4),))]
    else:
        assert phases == [(0, 0, ((1, 2),)), (2, 1, ((3, 4),))]
    assert plan_rings([], is_availability_first=is_availability_first, pairs=PAIRS) == []


def test_phases_hold_no_pair() -> None:
    found = phases_of([*PAIRS, "nowhere"], pairs=PAIRS)
    assert sorted(region for phase in found for region in phase) == sorted([*PAIRS, "nowhere"])
    for phase in found:
        assert not any(PAIRS.get(region, frozenset()) & set(phase) for region in phase)
    assert plan_lanes([], pairs=PAIRS) == []


# --- where a rollout is ------------------------------------------------------------------------------------------

TEN = datetime(2026, 11, 24, 10, tzinfo=UTC)
LANE = {"phase": 0, "first": 2, "last": 4, "wave": 3, "ended_at": None, "ring": 1}


@st.composite
def lane_states(draw: st.DrawFn) -> LaneState:
    first = draw(st.integers(0, 50))
    last = first + draw(st.integers(0, 9))
    return LaneState(
        phase=draw(st.integers(0, 9)),
        first=first,
        last=last,
        wave=draw(st.integers(first, last + 1)),
        ended_at=draw(st.none() | st.datetimes(timezones=st.just(UTC))),
        ring=draw(st.integers(0, 3)),
    )


names = st.lists(st.text(max_size=4), max_size=3).map(tuple)


@given(st.builds(Progress, lanes=st.lists(lane_states(), max_size=5).map(tuple), rings=names, proven=st.none() | names))
def test_where_a_rollout_is_is_kept_exactly(progress: Progress) -> None:
    kept = json.loads(json.dumps([progress.lanes_json, progress.rings, progress.proven]))
    assert Progress.from_json(*kept) == progress


@pytest.mark.parametrize(
    ("kept", "entry"),
    [
        (({}, [], None), "lanes"),
        (([7], [], None), "7"),
        (([LANE | {"phase": "0"}], [], None), "phase"),
        (([LANE | {"wave": True}], [], None), "wave"),
        (([LANE | {"wave": 1}], [], None), "wave"),
        (([LANE | {"wave": 6}], [], None), "wave"),
        (([LANE | {"ring": None}], [], None), "ring"),
        (([{"phase": 0, "first": 0, "wave": 0}], [], None), "last"),
        (([LANE | {"ended_at": "yesterday"}], [], None), "ended_at"),
        (([LANE | {"ended_at": "2026-11-24T10:00:00"}], [], None), "ended_at"),
        (([LANE | {"ended_at": 7}], [], None), "ended_at"),
        (([], "pilot", None), "rings"),
        (([], [7], None), "rings"),
        (([], [], {"KB": 1}), "proven"),
    ],
)
def test_what_is_no_place_in_a_rollout_is_named(kept: tuple[Any, Any, Any], entry: str) -> None:
    with pytest.raises(ProgressError) as caught:
        Progress.from_json(*kept)
    assert caught.value.entry == entry


def test_a_lane_that_was_kept_before_there_were_rings_is_in_the_first() -> None:
    (lane,) = Progress.from_json([{"phase": 0, "first": 0, "last": 0, "wave": 0, "ended_at": None}], [], None).lanes
    assert lane == LaneState(phase=0, first=0, last=0, wave=0)


def test_a_lane_goes_on_to_its_first_wave_that_is_not_over_or_still_soaks() -> None:
    lane, soak = LaneState.from_json(LANE), timedelta(minutes=30)
    assert lane.after({3, 4}, soak=soak, now=TEN) == lane
    soaking = lane.after({4}, soak=soak, now=TEN)
    assert soaking == replace(lane, ended_at=TEN)
    assert soaking.after({4}, soak=soak, now=TEN + timedelta(minutes=29)) == soaking
    assert soaking.after({4}, soak=soak, now=TEN + soak) == replace(lane, wave=4)
    over = soaking.after(set(), soak=timedelta(0), now=TEN)
    assert (over.wave, over.is_over) == (5, True)
    assert over.after(set(), soak=soak, now=TEN) == over


def test_the_lanes_of_the_first_phase_that_is_not_over_have_their_turn() -> None:
    first, second, third = (LaneState(phase, wave, wave, wave, ring=phase) for phase, wave in ((0, 0), (0, 1), (1, 2)))
    progress = Progress((first, second, third))
    assert progress.here == (first, second)
    progress = progress.after({1, 2}, soak=timedelta(0), now=TEN)
    assert progress.here == (second,)
    assert progress.first_wave_of(1) == 2
    assert progress.after({2}, soak=timedelta(0), now=TEN).here == (third,)
    assert progress.after(set(), soak=timedelta(0), now=TEN).here == ()


@pytest.mark.parametrize("row", rows("rollout-budget"), ids=lambda row: " ".join(row.values()))
def test_the_budget(row: dict[str, str]) -> None:
    result = WaveResult(int(row["succeeded"]), int(row["failed"]), int(row["unhealthy"]))
    assert must_pause(result, most_failures=int(row["most failures"]), most_percent=int(row["most percent"])) is flag(
        row["pauses"]
    )


def test_a_gate_says_how_many_of_those_that_have_ended_are_bad() -> None:
    gate = gate_of(WaveResult(3, 1, 0), most_failures=2, most_percent=5)
    assert (gate.bad, gate.ended, gate.percent) == (1, 4, 25.0)
    assert gate.is_share_exceeded
    assert not gate.is_shut, "no more machines than the number are bad"
    assert gate_of(WaveResult(0, 0, 0), most_failures=0, most_percent=0).percent == 0


# --- the way back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", rows("rollback"), ids=lambda row: " ".join(row.values()))
def test_rollback(row: dict[str, str]) -> None:
    found = plan_rollback(
        releases(),
        ProductLine(row["line"]) if row["line"] else None,
        installed_kbs=frozenset(words(row["installed KBs"])),
        os_build=row["OS build"],
        is_list_complete=row["list"] == "complete",
        as_of=as_of(date.fromisoformat(row["as of"]), datetime.now(UTC)),
    )
    if row["refused"]:
        assert found == row["refused"]
        return
    assert isinstance(found, RollbackOrder)
    assert found.uninstall_kbs == words(row["uninstall"])
    assert (found.target_kb, found.must_install_target) == (row["target"], flag(row["install it"]))
    assert found.duration > timedelta(minutes=10)


def test_a_baseline_without_a_kb_is_nothing_to_go_back_to() -> None:
    without = [replace(r, kb_number="") if r.kb_number == "5082142" else r for r in releases()]
    found = plan_rollback(
        without,
        ProductLine.WS2022,
        installed_kbs={"5087545"},
        os_build="20348.5139",
        is_list_complete=True,
        as_of=datetime(2026, 5, 20, tzinfo=UTC),
    )
    assert found == "rollback.unknown_state"


def test_what_nobody_recorded_is_never_uninstalled_from_under() -> None:
    """The machine of KB5070884 while the catalogue did not know it: the baseline under it stays."""
    for without in ({"5070884"}, {"5070884", "5070892"}):
        found = plan_rollback(
            [r for r in releases() if r.kb_number not in without],
            ProductLine.WS2022,
            installed_kbs={"5066782", "5070884"},
            os_build="20348.4297",
            is_list_complete=True,
            as_of=datetime(2025, 10, 26, tzinfo=UTC),
        )
        assert found == "rollback.unknown_state"


def test_a_zone_by_its_windows_name() -> None:
    assert windows_name("Asia/Tokyo") == "Tokyo Standard Time"
    assert windows_name("Nowhere/Land") == "UTC"
    assert {windows_name(zone_of(name).key) for name in windows_zones()} <= set(windows_zones())
