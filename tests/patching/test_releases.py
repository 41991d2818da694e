"""Reading recorded data, and a year on one page."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.kb_numbers import KbNumbersError, KbProblem, parse_kb_numbers
from patching.release_files import (
    ReleaseDataError,
    load_other_updates,
    load_releases,
    patch_of_release,
)
from patching.releases import (
    as_of,
    calendar_year,
    newest_baseline,
    second_tuesday,
    year_counts,
)
from patching.selection import OFF_GUARD, guard_for, prospect, select
from patching.terms import (
    Classification,
    HotpatchTrack,
    InstallationPlan,
    Patch,
    ProductLine,
    RebootBehavior,
    ReleaseType,
)
from patching.track import TrackVerdict, judge_track
from tests.patching.recorded import DATA, releases

ROW: dict[str, object] = {
    "product": "Windows Server 2025",
    "month": "2026-05",
    "release_date": "2026-05-12",
    "type": "hotpatch",
    "planned": True,
    "kb": "KB5087423",
    "build": "26100.32772",
    "status": "released",
}


def test_a_row_is_read_as_it_is_recorded() -> None:
    (release,) = load_releases([ROW])
    assert release.product_line is ProductLine.WS2025
    assert (release.month, release.released_on) == (date(2026, 5, 1), date(2026, 5, 12))
    assert (release.kb_number, release.build) == ("5087423", "26100.32772")
    assert release.is_planned is None, "planned means something on baselines only"
    assert not release.is_date_inferred


def test_a_missing_date_is_the_second_tuesday_and_says_so() -> None:
    (release,) = load_releases([ROW | {"release_date": None, "kb": None, "build": None}])
    assert release.released_on == date(2026, 5, 12)
    assert release.is_date_inferred
    assert (release.kb_number, release.build) == ("", "")
    assert patch_of_release(release) is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"product": "Windows 11"}, "product"),
        ({"month": "May 2026"}, "month"),
        ({"release_date": "12.05.2026"}, "release_date"),
        ({"type": "sequel"}, "type"),
        ({"status": "rumoured"}, "status"),
        ({"planned": "yes"}, "planned"),
        ({"kb": "KB12"}, "kb"),
        ({"kb": "KB50341290"}, "kb"),
        ({"kb": 5034129}, "kb"),
        ({"build": "26100\x00"}, "build"),
    ],
)
def test_a_bad_row_is_named_with_its_field(change: dict[str, object], field: str) -> None:
    with pytest.raises(ReleaseDataError) as caught:
        load_releases([ROW, ROW | change])
    assert (caught.value.row, caught.value.field) == (2, field)


def test_a_row_that_is_no_object_is_named() -> None:
    for load in (load_releases, load_other_updates):
        with pytest.raises(ReleaseDataError, match="Row 1, row"):
            load(["text"])  # type: ignore[list-item]


OTHER: dict[str, object] = {
    "product": None,
    "month": None,
    "kb": "KB2267602",
    "title": "Defender",
    "classification": "Definition",
}


def test_other_updates_get_the_class_that_is_recorded() -> None:
    definition, dot_net = load_other_updates(
        [OTHER, {"product": "Windows Server 2025", "month": "2026-04", "kb": "5084071", "title": ".NET"}]
    )
    assert (definition.classification, definition.reboot_behavior) == (
        Classification.DEFINITION,
        RebootBehavior.NEVER_REBOOTS,
    )
    assert (definition.product_line, definition.published_on, definition.key) == (None, None, ":2267602")
    assert (dot_net.classification, dot_net.published_on) == (Classification.UPDATES, date(2026, 4, 14))
    assert dot_net.key == "ws2025:5084071"


@pytest.mark.parametrize(
    ("change", "field"),
    [({"classification": "Nice"}, "classification"), ({"title": ""}, "title"), ({"kb": None}, "kb")],
)
def test_a_bad_other_update_is_named_with_its_field(change: dict[str, object], field: str) -> None:
    with pytest.raises(ReleaseDataError) as caught:
        load_other_updates([OTHER | change])
    assert caught.value.field == field


def test_the_recorded_files_can_be_read() -> None:
    assert len(releases()) == len(json.loads((DATA / "hotpatch_releases.json").read_text()))
    others = load_other_updates(json.loads((DATA / "other_updates.json").read_text()))
    assert {"890830", "2267602"} <= {update.kb_number for update in others}


def test_a_hotpatch_never_reboots_and_everything_else_of_the_month_does() -> None:
    for release in releases():
        patch = patch_of_release(release)
        if patch is None:
            continue
        is_hotpatch = release.type in {ReleaseType.HOTPATCH, ReleaseType.OOB_HOTPATCH}
        assert (patch.reboot_behavior is RebootBehavior.NEVER_REBOOTS) is is_hotpatch
        assert f"KB{release.kb_number}" in patch.title
        assert patch.classification is Classification.SECURITY


# --- a year ------------------------------------------------------------------------------------------------------


def test_2024_of_ws2022_has_four_planned_baselines_one_unplanned_and_seven_hotpatches() -> None:
    months = calendar_year(releases(), ProductLine.WS2022, 2024)
    counts = year_counts(months)
    assert (counts.planned_baselines, counts.unplanned_baselines, counts.hotpatches) == (4, 1, 7)
    assert [m.month.month for m in months if m.is_unplanned_baseline] == [8]


def test_months_that_nobody_recorded_are_not_invented() -> None:
    months = calendar_year(releases(), ProductLine.WS2022, 2031)
    assert [m.main for m in months] == [None] * 12
    assert year_counts(months).hotpatches == 0


def test_out_of_band_releases_stand_in_their_month() -> None:
    october = calendar_year(releases(), ProductLine.WS2025, 2025)[9]
    assert october.main is not None
    assert october.main.type is ReleaseType.BASELINE
    assert {r.kb_number for r in october.out_of_band} == {"5070773", "5070881", "5070893"}
    assert october.lcu is None, "in a baseline month the baseline is everybody's LCU"


def test_what_is_only_announced_is_not_counted() -> None:
    announced = [replace(r, is_scheduled=True) for r in releases()]
    counts = year_counts(calendar_year(announced, ProductLine.WS2022, 2024))
    assert (counts.planned_baselines, counts.unplanned_baselines, counts.hotpatches) == (0, 0, 0)


def test_a_baseline_without_a_kb_counts() -> None:
    at = datetime(2026, 5, 20, tzinfo=UTC)
    without = [replace(r, kb_number="") if r.kb_number == "5082142" else r for r in releases()]
    found = newest_baseline(without, ProductLine.WS2022, at)
    assert found is not None
    assert (found.month, found.kb_number) == (date(2026, 4, 1), "")
    assert newest_baseline([], ProductLine.WS2022, at) is None


def test_a_catalogue_without_a_day_is_todays() -> None:
    now = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
    assert as_of(None, now) == now
    assert as_of(date(2026, 5, 20), now) < datetime(2026, 5, 21, 7, 0, tzinfo=UTC)


@given(st.dates(min_value=date(2000, 1, 1), max_value=date(2100, 1, 1)))
def test_the_second_tuesday_is_a_tuesday_of_the_second_week(day: date) -> None:
    found = second_tuesday(day)
    assert (found.year, found.month, found.weekday()) == (day.year, day.month, 1)
    assert 8 <= found.day <= 14


# --- lists of KB articles ----------------------------------------------------------------------------------------


def test_501_entries_are_one_too_many() -> None:
    numbers = [str(5_000_000 + n) for n in range(501)]
    assert len(parse_kb_numbers(" ".join(numbers[:500]))) == 500
    with pytest.raises(KbNumbersError) as caught:
        parse_kb_numbers("\n".join(numbers))
    assert (caught.value.kind, caught.value.first_bad, caught.value.more) == (KbProblem.TOO_MANY, "5000500", 0)


@given(
    st.lists(st.integers(min_value=100_000, max_value=9_999_999), max_size=40),
    st.sampled_from([",", " ", "\n", ", ", "、"]),
)
def test_whatever_separates_them_the_numbers_come_back(numbers: list[int], separator: str) -> None:
    assert parse_kb_numbers(separator.join(f"KB{n}" for n in numbers)) == tuple(dict.fromkeys(str(n) for n in numbers))


@given(st.text(max_size=80))
def test_a_list_is_read_or_refused_and_never_half_read(text: str) -> None:
    try:
        numbers = parse_kb_numbers(text)
    except KbNumbersError:
        return
    assert all(number.isascii() and number.isdigit() for number in numbers)


# --- selection over a large space --------------------------------------------------------------------------------

patches = st.builds(
    Patch,
    kb_number=st.sampled_from(["1111111", "2222222", "3333333", ""]),
    title=st.sampled_from(["one", "two"]),
    classification=st.sampled_from(Classification),
    reboot_behavior=st.sampled_from(RebootBehavior),
    update_id=st.just("an-id"),
    published_on=st.sampled_from([None, date(2026, 4, 1), date(2026, 5, 1)]),
    release_type=st.sampled_from([None, *ReleaseType]),
)
plans = st.builds(
    InstallationPlan,
    classifications=st.frozensets(st.sampled_from(Classification)),
    kb_numbers_to_include=st.lists(st.sampled_from(["1111111", "2222222", "9999999"]), max_size=2).map(tuple),
    kb_numbers_to_exclude=st.lists(st.sampled_from(["1111111", "3333333"]), max_size=2).map(tuple),
    exclude_kbs_requiring_reboot=st.booleans(),
    max_patch_publish_date=st.sampled_from([None, date(2026, 4, 15)]),
    maximum_duration=st.integers(min_value=1, max_value=235).map(lambda n: timedelta(minutes=n)),
)


@given(st.lists(patches, max_size=8), plans, st.booleans())
def test_every_patch_gets_one_verdict_and_the_excluded_are_never_taken(
    offered: list[Patch], plan: InstallationPlan, is_on_track: bool
) -> None:
    track = HotpatchTrack.ON_TRACK if is_on_track else HotpatchTrack.OFF_TRACK_SINCE_KB
    guard = guard_for(TrackVerdict(track), releases(), ProductLine.WS2022, datetime(2026, 5, 20, tzinfo=UTC))
    selection = select(offered, plan, guard=guard)
    assert [verdict.patch for verdict in selection.verdicts] == offered
    taken = {verdict.patch.kb_number for verdict in selection.selected}
    assert not taken & set(plan.kb_numbers_to_exclude)
    if plan.exclude_kbs_requiring_reboot:
        assert {v.patch.reboot_behavior for v in selection.selected} <= {RebootBehavior.NEVER_REBOOTS}
    assert not any(guard.holds(verdict.patch) for verdict in selection.selected)
    assert set(selection.unavailable_kbs) <= set(plan.kb_numbers_to_include)
    seen = prospect(selection, plan)
    assert 0 <= seen.fitting <= seen.count == len(selection.selected)
    assert seen.fits_in_window is (seen.fitting == seen.count)


def test_at_the_arm_door_naming_a_kb_allows_what_the_guard_would_leave_out() -> None:
    lcu = Patch("5070881", "LCU", Classification.SECURITY, RebootBehavior.ALWAYS_REQUIRES_REBOOT,
                release_type=ReleaseType.OOB_LCU, published_on=date(2025, 10, 23))  # fmt: skip
    verdict = judge_track(
        releases(),
        ProductLine.WS2025,
        is_hotpatch_on=True,
        installed_kbs=["5066835"],
        os_build="",
        as_of=as_of(date(2025, 10, 24), datetime.now(UTC)),
    )
    guard = guard_for(verdict, releases(), ProductLine.WS2025, as_of(date(2025, 10, 24), datetime.now(UTC)))
    plan = InstallationPlan(kb_numbers_to_include=("5070881",))
    assert not select([lcu], plan, guard=guard).selected
    assert select([lcu], plan, guard=guard, included_kb_overrides_guard=True).selected
    by_class = InstallationPlan(classifications=frozenset({Classification.SECURITY}))
    assert not select([lcu], by_class, guard=guard, included_kb_overrides_guard=True).selected
    for off in (guard_for(verdict, releases(), None, datetime.now(UTC)), OFF_GUARD):
        assert off.holds(lcu) is None
        assert not off.is_baseline_among([lcu])
