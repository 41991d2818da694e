"""No selection takes a machine off the train without its own tick, and an old catalogue starves none."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patching.forecast import RebootCause, forecast_reboots
from patching.orchestrator import Patcher
from patching.releases import as_of, newest_baseline, release_order, timetable
from patching.selection import OFF_GUARD, RebootProspect, SelectionReason, guard_for, guard_on, prospect, select
from patching.terms import (
    Channel,
    Classification,
    HotpatchTrack,
    InstallationPlan,
    Patch,
    ProductLine,
    RebootBehavior,
    RebootSetting,
    Release,
    ReleaseType,
)
from patching.track import OffTrainReason, TrackVerdict, judge_track
from tests.patching.recorded import before_the_changes, releases

NOW = datetime(2026, 11, 27, tzinfo=UTC)
LCUS = {ReleaseType.LCU, ReleaseType.OOB_LCU}
GUARDED = [
    HotpatchTrack.ON_TRACK,
    HotpatchTrack.ON_TRACK_AS_FAR_AS_KNOWN,
    HotpatchTrack.BASELINE_DUE,
    HotpatchTrack.BASELINE_OVERDUE,
    HotpatchTrack.WAITS_FOR_REBOOT,
    HotpatchTrack.NEWER_THAN_CATALOGUE,
    HotpatchTrack.UNKNOWN,
]
PRODUCTS = {
    ProductLine.WS2022: "Microsoft server operating system version 21H2",
    ProductLine.WS2025: "Microsoft server operating system version 24H2",
}


def offered_as(release: Release, behavior: RebootBehavior = RebootBehavior.CAN_REQUEST_REBOOT) -> Patch:
    """What Windows Update offers, of which the catalogue may know nothing: a title, a class, a date."""
    month, kb = f"{release.month:%Y-%m}", release.kb_number
    if release.type in {ReleaseType.HOTPATCH, ReleaseType.OOB_HOTPATCH}:
        title, behavior = f"{month} Security Hotpatch Update (KB{kb})", RebootBehavior.NEVER_REBOOTS
    elif release.month < date(2025, 11, 1):
        title = f"{month} Cumulative Update for {PRODUCTS[release.product_line]} for x64-based Systems (KB{kb})"
    else:
        title = f"{month} Security Update (KB{kb}) ({release.build or release.product_line.build_prefix + '.9'})"
    return Patch(kb, title, Classification.SECURITY, behavior, release.product_line, published_on=release.released_on)


def known_kbs(line: ProductLine) -> list[Release]:
    return [r for r in releases() if r.product_line is line and r.kb_number and not r.is_scheduled]


lines = st.sampled_from(list(ProductLine))
behaviors = st.sampled_from([b for b in RebootBehavior if b is not RebootBehavior.NEVER_REBOOTS])


@settings(max_examples=400, deadline=None)
@given(st.data(), lines, st.sampled_from(GUARDED), st.booleans(), behaviors)
def test_nothing_takes_a_machine_off_the_train_without_its_own_tick(
    data: st.DataObject, line: ProductLine, track: HotpatchTrack, is_arm: bool, behavior: RebootBehavior
) -> None:
    """Over random catalogues that lack any releases, on any day: what is selected by class is no LCU newer than B."""
    own = known_kbs(line)
    hidden = set(data.draw(st.lists(st.sampled_from([r.kb_number for r in own]), max_size=40)))
    day = data.draw(st.sampled_from(sorted({r.released_on for r in own})))
    at = as_of(day, NOW)
    offered = data.draw(st.lists(st.sampled_from([r for r in own if r.released_on <= day]), max_size=6, unique=True))
    catalogue = [r for r in releases() if r.kb_number not in hidden or not r.kb_number]
    guard = guard_for(TrackVerdict(track), catalogue, line, at)
    plan = InstallationPlan(
        classifications=frozenset(Classification),
        kb_numbers_to_include=tuple(r.kb_number for r in offered if not is_arm),
    )
    selection = select(
        [offered_as(r, behavior) for r in offered], plan, guard=guard, included_kb_overrides_guard=is_arm
    )
    baseline = newest_baseline(releases(), line, at)
    by_kb = {r.kb_number: r for r in own}
    for verdict in selection.verdicts:
        release = by_kb[verdict.patch.kb_number]
        is_dangerous = release.type in LCUS and (baseline is None or release_order(release) > release_order(baseline))
        if is_dangerous:
            assert verdict.reason is SelectionReason.GUARD, (track, release)
            assert verdict.hold is not None
        if verdict.is_selected:
            assert not is_dangerous
            continue
        # Whatever else is held stands as a decision, or is recorded as an LCU: nothing is left out in silence.
        assert verdict.hold is not None
        assert verdict.hold.needs_decision or release.type in LCUS


@pytest.mark.parametrize("line", list(ProductLine))
def test_an_old_catalogue_starves_no_machine(line: ProductLine) -> None:
    """Cut off at every month, every later planned baseline is taken, every unplanned one taken or asked about."""
    own = known_kbs(line)
    plan = InstallationPlan(classifications=frozenset({Classification.SECURITY}))
    for cut in sorted({r.month for r in own}):
        catalogue = [r for r in releases() if r.month < cut]
        for release in own:
            if release.type is not ReleaseType.BASELINE or release.month < cut:
                continue
            at = as_of(release.released_on, NOW)
            for track in GUARDED:
                guard = guard_for(TrackVerdict(track), catalogue, line, at)
                selection = select([offered_as(release)], plan, guard=guard)
                (verdict,) = selection.verdicts
                if release.is_planned:
                    assert verdict.is_selected, (cut, release)
                    assert verdict.is_presumed_baseline
                    assert prospect(selection, plan).reboot is RebootProspect.CERTAIN
                else:
                    assert verdict.hold is not None
                    assert verdict.hold.needs_decision, (cut, release)


def test_an_unplanned_baseline_without_its_kb_is_presumed_once_its_type_is_confirmed() -> None:
    month = next(r for r in known_kbs(ProductLine.WS2025) if r.kb_number == "5122871")
    at = as_of(date(2026, 9, 20), NOW)
    for is_confirmed in (True, False):
        row = replace(month, kb_number="", is_type_confirmed=is_confirmed)
        rows = [row if r == month else r for r in releases()]
        guard = guard_for(TrackVerdict(HotpatchTrack.BASELINE_DUE), rows, ProductLine.WS2025, at)
        assert guard.presumes(offered_as(month)) is is_confirmed
        hold = guard.holds(offered_as(month))
        assert (hold is not None and hold.needs_decision) is not is_confirmed


def test_without_any_baseline_every_lcu_is_newer() -> None:
    lcu = next(r for r in known_kbs(ProductLine.WS2025) if r.kb_number == "5046617")
    guard = guard_for(TrackVerdict(HotpatchTrack.UNKNOWN), [lcu], ProductLine.WS2025, as_of(date(2024, 11, 20), NOW))
    assert guard.holds(offered_as(lcu)) is not None


def test_an_uncertain_type_stands_beside_the_verdict() -> None:
    rows = [replace(r, is_type_confirmed=r.kb_number != "5082142") for r in releases()]
    verdict = judge_track(
        rows,
        ProductLine.WS2022,
        is_hotpatch_on=True,
        installed_kbs={"5082142", "5087424"},
        os_build="20348.5074",
        as_of=as_of(date(2026, 5, 20), NOW),
    )
    assert [release.kb_number for release in verdict.uncertain] == ["5082142"]


@pytest.mark.parametrize(
    ("channel", "is_named"),
    [
        (Channel.WINDOWS_UPDATE, True),
        (Channel.CATALOG_ONLY, False),
        (Channel.WITHDRAWN, False),
        (Channel.UNKNOWN, None),
    ],
)
def test_what_windows_update_does_not_bring_does_not_come_next(channel: Channel, is_named: bool | None) -> None:
    """An unknown channel is enough for a hotpatch and not for an LCU."""
    rows = [replace(r, channel=channel) if r.type is not ReleaseType.LCU else r for r in releases()]
    at = as_of(date(2026, 4, 20), NOW)

    def next_kbs(*, is_hotpatch_on: bool) -> list[str]:
        verdict = judge_track(
            rows,
            ProductLine.WS2025,
            is_hotpatch_on=is_hotpatch_on,
            installed_kbs={"5082063"},
            os_build="26100.32690",
            as_of=at,
        )
        return [release.kb_number for release in verdict.way_back]

    assert next_kbs(is_hotpatch_on=True) == (["5091470"] if is_named is not False else [])
    assert next_kbs(is_hotpatch_on=False) == (["5091157"] if is_named else [])


def test_the_end_of_hotpatching_takes_the_guard_away() -> None:
    at = datetime(2027, 11, 10, tzinfo=UTC)
    facts = {"is_hotpatch_on": True, "installed_kbs": {"5099540"}, "os_build": "20348.5386", "as_of": at}
    verdict = judge_track(releases(), ProductLine.WS2022, **facts)
    assert verdict.off_train_reason is OffTrainReason.TRAIN_ENDED
    lcu = next(r for r in known_kbs(ProductLine.WS2022) if r.kb_number == "5122882")
    assert guard_for(verdict, releases(), ProductLine.WS2022, at).holds(offered_as(lcu)) is None


def test_a_hotpatch_whose_baseline_nobody_recorded_is_no_contradiction() -> None:
    for kbs in ({"5046696"}, {"5050009", "5052105"}):
        without = [r for r in releases() if r.kb_number not in {"5044284"}]
        rows = [replace(r, kb_number="") if r.kb_number == "5050009" else r for r in without]
        verdict = judge_track(
            rows,
            ProductLine.WS2025,
            is_hotpatch_on=True,
            installed_kbs=kbs,
            os_build="26100.2240" if "5046696" in kbs else "26100.3107",
            as_of=as_of(date(2024, 11, 20) if "5046696" in kbs else date(2025, 2, 20), NOW),
            is_list_complete=True,
        )
        assert verdict.contradiction is None


def judge_without_builds(kbs: set[str], build: str, day: date, *, is_pending: bool | None) -> TrackVerdict:
    """WS2022 while the builds of June to September 2026 were not recorded."""
    return judge_track(
        before_the_changes(),
        ProductLine.WS2022,
        is_hotpatch_on=True,
        installed_kbs=kbs,
        os_build=build,
        as_of=as_of(day, NOW),
        is_list_complete=True,
        is_reboot_pending=is_pending,
    )


def test_a_baseline_without_a_recorded_build_lies_above_everything_older() -> None:
    hotpatched, day = {"5082142", "5087424", "5099540"}, date(2026, 7, 20)
    waiting = judge_without_builds(hotpatched, "20348.5074", day, is_pending=None)
    assert waiting.track is HotpatchTrack.WAITS_FOR_REBOOT
    running = judge_without_builds(hotpatched, "20348.5386", day, is_pending=False)
    assert running.track is HotpatchTrack.ON_TRACK


def test_a_catalogue_that_has_ended_says_so() -> None:
    """T3: the October baseline and November's LCU are out; the catalogue of September cannot know them."""
    verdict = judge_without_builds({"5099540", "5120229"}, "20348.5440", date(2026, 11, 26), is_pending=False)
    assert verdict.track is HotpatchTrack.ON_TRACK_AS_FAR_AS_KNOWN
    assert verdict.known_until == date(2026, 8, 1)
    assert verdict.missing_months == (date(2026, 9, 1), date(2026, 10, 1), date(2026, 11, 1))


def test_a_baseline_whose_kb_is_not_recorded_is_due_and_not_named() -> None:
    verdict = judge_track(
        before_the_changes(),
        ProductLine.WS2025,
        is_hotpatch_on=True,
        installed_kbs={"5099536", "5120228"},
        os_build="",
        as_of=as_of(date(2026, 9, 10), NOW),
    )
    assert (verdict.track, verdict.is_kb_missing, verdict.way_back) == (HotpatchTrack.BASELINE_DUE, True, ())


def test_what_has_nothing_released_is_offered_nothing() -> None:
    hotpatches = [r for r in releases() if r.type is ReleaseType.HOTPATCH]
    nothing = judge_track(
        hotpatches, ProductLine.WS2025, is_hotpatch_on=False, installed_kbs=set(), os_build="26100.1742", as_of=NOW
    )
    assert nothing.way_back == ()
    only = [r for r in releases() if r.kb_number == "5082142"]
    alone = judge_track(
        only,
        ProductLine.WS2022,
        is_hotpatch_on=True,
        installed_kbs=set(),
        os_build="20348.1",
        as_of=as_of(date(2026, 4, 20), NOW),
    )
    assert alone.way_back == tuple(only)
    for track in (HotpatchTrack.NOT_ON_TRAIN, HotpatchTrack.ON_TRACK):
        guard = guard_on(TrackVerdict(track), timetable(releases(), ProductLine.WS2022, NOW))
        assert (guard == OFF_GUARD) is (track is HotpatchTrack.NOT_ON_TRAIN)


# --- forecast ----------------------------------------------------------------------------------------------------


def forecast(
    rows: list[Release], setting: RebootSetting, day: date, *offered: Patch, track: HotpatchTrack | None = None
) -> list[tuple[RebootCause, ...]]:
    at = as_of(day, NOW)
    verdict = judge_track(
        rows,
        ProductLine.WS2022,
        is_hotpatch_on=True,
        installed_kbs={"5082142"},
        os_build="20348.5020",
        as_of=at,
    )
    if track is not None:
        verdict = replace(verdict, track=track)
    seen = forecast_reboots(
        rows,
        ProductLine.WS2022,
        verdict,
        offered,
        is_reboot_pending=False,
        as_of=at,
        months=4,
        reboot_setting=setting,
        patcher=Patcher.PORTAL_AUTOMATICALLY,
        guard=guard_for(verdict, rows, ProductLine.WS2022, at),
    )
    return [item.causes for item in seen]


def test_always_reboots_after_a_hotpatch_too() -> None:
    hotpatch = offered_as(next(r for r in known_kbs(ProductLine.WS2022) if r.kb_number == "5087424"))
    always, day = (RebootCause.ALWAYS_REBOOTS,), date(2026, 5, 20)
    known = [r for r in releases() if r.released_on <= day]
    assert forecast(known, RebootSetting.ALWAYS, day, hotpatch) == [
        always, always, (RebootCause.PLANNED_BASELINE,), always,
    ]  # fmt: skip
    assert forecast(known, RebootSetting.ALWAYS, day)[0] == ()
    # What may ask for a reboot is certain to get one then.
    may = replace(hotpatch, kb_number="5084071", release_type=None, reboot_behavior=RebootBehavior.CAN_REQUEST_REBOOT)
    assert forecast(known, RebootSetting.ALWAYS, day, may)[0] == (
        RebootCause.PENDING_UPDATE,
        RebootCause.ALWAYS_REBOOTS,
    )
    must = replace(may, reboot_behavior=RebootBehavior.ALWAYS_REQUIRES_REBOOT)
    assert forecast(known, RebootSetting.ALWAYS, day, must)[0] == (RebootCause.PENDING_UPDATE_REQUIRES,)


def test_an_unplanned_baseline_counts_once_it_is_announced() -> None:
    june = Release(ProductLine.WS2022, date(2026, 6, 1), ReleaseType.BASELINE, date(2026, 6, 9), is_planned=False)
    for is_announced in (True, False):
        rows = [*releases(), replace(june, is_scheduled=is_announced)]
        seen = forecast(rows, RebootSetting.IF_REQUIRED, date(2026, 5, 20))
        assert seen[1] == ((RebootCause.UNPLANNED_BASELINE,) if is_announced else ())
    rows = [*releases(), replace(june, is_scheduled=True)]
    off = forecast(rows, RebootSetting.IF_REQUIRED, date(2026, 3, 20), track=HotpatchTrack.OFF_TRACK_SINCE_KB)
    assert off == [(), (RebootCause.PLANNED_BASELINE,), (), (RebootCause.UNPLANNED_BASELINE,)]


def test_a_baseline_that_is_out_by_the_calendar_and_not_recorded_may_reboot() -> None:
    known = [r for r in releases() if r.month <= date(2026, 5, 1)]
    seen = forecast(known, RebootSetting.IF_REQUIRED, date(2026, 8, 20))
    assert seen[0] == (RebootCause.UNRECORDED_BASELINE,)


def test_a_baseline_that_waits_for_its_reboot_is_a_pending_reboot_and_no_longer_due() -> None:
    day = datetime(2026, 4, 16, 23, 59, tzinfo=UTC)
    verdict = judge_track(
        releases(),
        ProductLine.WS2022,
        is_hotpatch_on=True,
        installed_kbs=["5073457", "5082142"],
        os_build="20348.4830",
        as_of=day,
    )
    assert verdict.track is HotpatchTrack.WAITS_FOR_REBOOT
    now, *_later = forecast_reboots(
        releases(),
        ProductLine.WS2022,
        verdict,
        [],
        is_reboot_pending=False,
        as_of=day,
        months=2,
        reboot_setting=RebootSetting.IF_REQUIRED,
        patcher=Patcher.PORTAL_AUTOMATICALLY,
        guard=guard_for(verdict, releases(), ProductLine.WS2022, day),
    )
    assert (now.causes, now.is_certain) == ((RebootCause.REBOOT_PENDING,), True)


def test_without_a_product_line_nothing_is_forecast() -> None:
    seen = forecast_reboots(
        releases(),
        None,
        TrackVerdict(HotpatchTrack.UNKNOWN),
        [],
        is_reboot_pending=False,
        as_of=NOW,
        months=2,
        reboot_setting=None,
        patcher=Patcher.NOBODY,
        guard=guard_for(TrackVerdict(HotpatchTrack.UNKNOWN), releases(), None, NOW),
    )
    assert [item.causes for item in seen] == [(), ()]
    assert {item.outlook.value for item in seen} == {"not_known"}
