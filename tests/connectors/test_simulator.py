"""The simulator behaves like Windows Update on the recorded catalogue."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.catalogue import Catalogue
from connectors.protocol import ConnectorError, Started, VmRef
from connectors.simulator import FileLedger, MemoryLedger, Simulator, SimulatorConfiguration, make
from connectors.simulator.windows_update import _defender, builds_of
from patching.outcome import build_order
from patching.release_files import patch_of_release
from patching.releases import as_of, release_order
from patching.rollback import RollbackOrder
from patching.selection import OFF_GUARD, prospect, select
from patching.terms import (
    ON_TRACK_WORDS,
    Audience,
    Channel,
    Classification,
    HotpatchTrack,
    InstallationPlan,
    InstallationState,
    InstalledUpdate,
    OperationKind,
    Patch,
    ProductLine,
    RebootSetting,
    RebootStatus,
    Release,
    ReleaseType,
    RunStatus,
)
from patching.track import judge_track
from tests.connectors.catalogue import recorded
from tests.connectors.machines import (
    NOW,
    SECURITY,
    assess,
    assessed,
    install,
    look,
    machine,
    observe_request,
    simulate,
    start,
    start_request,
    states,
)

S = InstallationState
APRIL_2026 = "20348.5020"


def simulator(day: date | None = date(2026, 5, 20), clock_factor: float = 60.0) -> Simulator:
    return make(SimulatorConfiguration(day, clock_factor, seed=7), recorded())


def track_of(vm, day: date) -> HotpatchTrack:
    return judge_track(
        recorded().releases,
        vm.product_line,
        is_hotpatch_on=vm.is_hotpatch_enabled,
        installed_kbs={update.patch.kb_number for update in vm.installed},
        os_build=vm.os_build,
        as_of=as_of(day, NOW),
    ).track


def offered(world: Simulator, vm: VmRef) -> set[str]:
    return {patch.kb_number for patch in assess(world, vm).available}


def os_kbs() -> set[str]:
    return {release.kb_number for release in recorded().releases if release.kb_number}


def kbs(vm: VmRef) -> set[str]:
    return {update.patch.kb_number for update in vm.installed}


def having(line: str, *kb_numbers: str) -> tuple[InstalledUpdate, ...]:
    patches = (recorded().patch_by_key[f"{line}:{kb_number}"] for kb_number in kb_numbers)
    return tuple(InstalledUpdate(patch, datetime(2024, 1, 1, tzinfo=UTC)) for patch in patches)


_WORLD = simulator()
_VM = assessed(_WORLD, machine(os_build=APRIL_2026))
_EVERYTHING = InstallationPlan(classifications=frozenset(Classification))


# --- the main story ----------------------------------------------------------------------------------------------


def test_a_machine_on_track_is_offered_the_hotpatch_and_takes_it_without_a_reboot() -> None:
    world = simulator()
    vm = assessed(world, machine(os_build=APRIL_2026))
    offered = {patch.kb_number for patch in assess(world, vm).available}
    assert offered == {"5087424", "5084071", "890830", "2267602"}
    plan = InstallationPlan(
        classifications=frozenset({Classification.SECURITY}),
        kb_numbers_to_include=("2267602",),
        kb_numbers_to_exclude=("5084071",),
    )
    result = install(world, vm, plan)
    assert states(result) == {
        "5087424": S.INSTALLED,
        "2267602": S.INSTALLED,
        "5084071": S.EXCLUDED,
        "890830": S.NOT_SELECTED,
    }
    assert (result.status, result.reboot_status) == (RunStatus.SUCCEEDED, RebootStatus.NOT_NEEDED)
    final = result.final_assessment
    assert final is not None
    assert final.os_build == "20348.5074"
    assert {patch.kb_number for patch in final.available} == {"5084071", "890830"}
    assert "5087424" in {update.patch.kb_number for update in final.installed or ()}
    assert final.is_reboot_pending is False


def test_a_baseline_that_is_due_reboots() -> None:
    day = date(2026, 4, 16)
    world = simulator(day)
    vm = assessed(world, machine(os_build="20348.4830"))
    assert track_of(vm, day) is HotpatchTrack.BASELINE_DUE
    result = install(world, vm, SECURITY)
    assert states(result)["5082142"] is S.INSTALLED
    assert (result.status, result.reboot_status) == (RunStatus.SUCCEEDED, RebootStatus.COMPLETED)
    assert result.final_assessment is not None
    assert result.final_assessment.os_build == APRIL_2026
    request = observe_request(vm, SECURITY)
    rebooting = [look(world, request, NOW + timedelta(seconds=s)).is_rebooting for s in range(40)]
    assert any(rebooting)


def test_never_reboot_leaves_the_reboot_required_and_the_build_where_it_was() -> None:
    world = simulator(date(2026, 4, 16))
    vm = assessed(world, machine(os_build="20348.4830"))
    result = install(world, vm, replace(SECURITY, reboot_setting=RebootSetting.NEVER))
    assert (result.status, result.reboot_status) == (RunStatus.COMPLETED_WITH_WARNINGS, RebootStatus.REQUIRED)
    assert result.error is not None
    assert result.error.code == "reboot.required"
    final = result.final_assessment
    assert final is not None
    assert (final.os_build, final.is_reboot_pending) == ("20348.4830", True)
    # The next run that may reboot completes it.
    later = replace(vm, installed=final.installed or (), is_reboot_pending=True)
    definitions = InstallationPlan(classifications=frozenset({Classification.DEFINITION}))
    done = install(world, later, definitions)
    assert done.reboot_status is RebootStatus.COMPLETED
    assert done.final_assessment is not None
    assert (done.final_assessment.os_build, done.final_assessment.is_reboot_pending) == (APRIL_2026, False)


def test_an_out_of_band_update_reaches_a_few_on_track_and_takes_them_off_only_when_allowed() -> None:
    day = date(2025, 10, 24)
    world = simulator(day)
    fleet = [assessed(world, machine(f"m-{n}", ProductLine.WS2025, os_build="26100.6899")) for n in range(200)]
    reached = [vm for vm in fleet if "5070881" in offered(world, vm)]
    assert 8 <= len(reached) <= 32, "about one in ten"
    assert all("5070893" in offered(world, vm) for vm in fleet), "everybody gets the hotpatch that replaced it"
    later = [replace(vm, os_build="26100.6905") for vm in reached]
    assert not any("5070881" in offered(simulator(date(2025, 11, 12)), vm) for vm in later), (
        "November's releases end it"
    )
    vm = reached[0]
    assert track_of(vm, day) is HotpatchTrack.ON_TRACK
    assert "5070881" in {patch.kb_number for patch in assess(world, vm).available}
    guarded = install(world, vm, SECURITY)
    assert states(guarded)["5070881"] is S.NOT_SELECTED
    assert {o.reason for o in guarded.patches if o.patch.kb_number == "5070881"} == {"guard"}
    allowed = install(world, vm, replace(SECURITY, guard_overrides=("5070881",)))
    assert states(allowed)["5070881"] is S.INSTALLED
    assert allowed.reboot_status is RebootStatus.COMPLETED
    final = allowed.final_assessment
    assert final is not None
    after = replace(vm, installed=final.installed or (), os_build=final.os_build)
    assert track_of(after, day) is HotpatchTrack.OFF_TRACK_SINCE_KB
    assert final.os_build == "26100.6905"


def test_a_machine_on_track_is_never_offered_a_monthly_lcu() -> None:
    lcus = {r.kb_number for r in recorded().releases if r.type == "lcu"}
    for day in (date(2024, 9, 15), date(2025, 3, 15), date(2025, 9, 15), date(2026, 3, 15), date(2026, 5, 20)):
        world = simulator(day)
        for number in range(20):
            vm = assessed(world, machine(f"m-{number}"))
            if track_of(vm, day) is HotpatchTrack.ON_TRACK:
                assert not lcus & {patch.kb_number for patch in assess(world, vm).available}


def test_a_machine_off_hotpatch_gets_the_newest_cumulative_update() -> None:
    world = simulator()
    vm = assessed(world, machine(os_build=APRIL_2026, is_hotpatch_enabled=False))
    offered = {patch.kb_number for patch in assess(world, vm).available}
    assert "5087545" in offered
    assert "5087424" not in offered


def without_build(catalogue: Catalogue, *kb_numbers: str) -> Catalogue:
    """The catalogue with the builds of these KBs forgotten."""
    releases = tuple(replace(r, build="") if r.kb_number in kb_numbers else r for r in catalogue.releases)
    return replace(catalogue, releases=releases)


def test_a_release_without_a_recorded_build_moves_the_build_all_the_same() -> None:
    forgetful = without_build(recorded(), "5091576", "5087424")
    for day, kb_number, before, after in (
        (date(2026, 4, 20), "5091576", APRIL_2026, "20348.5139"),
        (date(2026, 5, 20), "5087424", APRIL_2026, "20348.5139"),
    ):
        world = make(SimulatorConfiguration(day, seed=7), forgetful)
        vm = assessed(world, machine(os_build=before))
        result = install(world, vm, SECURITY)
        assert states(result)[kb_number] is S.INSTALLED
        final = result.final_assessment
        assert final is not None
        assert build_order(before) < build_order(final.os_build) < build_order(after)
        assert final.os_build not in {r.build for r in forgetful.releases}
        track = judge_track(
            forgetful.releases,
            ProductLine.WS2022,
            is_hotpatch_on=True,
            installed_kbs={update.patch.kb_number for update in final.installed or ()},
            os_build=final.os_build,
            as_of=as_of(day, NOW),
            is_list_complete=True,
        ).track
        assert track in ON_TRACK_WORDS, "a listed KB without a recorded build explains it"


@given(st.sets(st.sampled_from([r.kb_number for r in recorded().releases if r.build and r.kb_number])))
def test_the_build_of_a_release_that_nobody_recorded_lies_between_its_neighbours(forgotten: set[str]) -> None:
    releases = without_build(recorded(), *forgotten).releases
    for line in ProductLine:
        own = sorted((r for r in releases if r.product_line is line), key=release_order)
        builds, recorded_builds = builds_of(line, own), {r.build for r in own if r.build}
        floor: tuple[int, ...] = ()
        for place, release in enumerate(own):
            if not release.kb_number:
                floor = max(floor, build_order(release.build)) if release.build else floor
                continue
            build = builds[line, release.kb_number]
            if release.build:
                assert build == release.build
            elif build_order(build) != floor:  # else there was no room for a build of its own
                later = [build_order(r.build) for r in own[place:] if r.build and build_order(r.build) > floor]
                assert build not in recorded_builds
                assert floor < build_order(build) < min(later, default=(1_000_000,))
            floor = max(floor, build_order(build))


NEXT_WEEK = date(2026, 5, 19)
OUT_OF_BAND = Release(ProductLine.WS2022, date(2026, 5, 1), ReleaseType.OOB_LCU, NEXT_WEEK, "5999001", "20348.5150")


@pytest.mark.parametrize(
    ("channel", "audience", "is_for_all_on_track", "is_for_those_off"),
    [
        (Channel.WINDOWS_UPDATE, Audience.EVERYBODY, True, True),
        (Channel.WINDOWS_UPDATE, Audience.FEW, False, True),
        (Channel.WINDOWS_UPDATE, Audience.UNKNOWN, False, True),
        (Channel.CATALOG_ONLY, Audience.EVERYBODY, False, False),
        (Channel.WITHDRAWN, Audience.EVERYBODY, False, False),
        (Channel.UNKNOWN, Audience.EVERYBODY, False, False),
    ],
)
def test_an_out_of_band_update_goes_where_its_channel_and_audience_say(
    channel: Channel, audience: Audience, is_for_all_on_track: bool, is_for_those_off: bool
) -> None:
    release = replace(OUT_OF_BAND, channel=channel, audience=audience)
    patch = patch_of_release(release)
    assert patch is not None
    catalogue = Catalogue((*recorded().releases, release), (*recorded().patches, patch))
    world = make(SimulatorConfiguration(date(2026, 5, 20), seed=7), catalogue)
    fleet = [assessed(world, machine(f"m-{number}", os_build=APRIL_2026)) for number in range(20)]
    assert all("5999001" in offered(world, vm) for vm in fleet) is is_for_all_on_track
    off = assessed(world, machine(os_build="20348.5139", is_hotpatch_enabled=False))
    assert ("5999001" in offered(world, off)) is is_for_those_off


def test_what_never_came_through_windows_update_is_offered_to_nobody() -> None:
    for day, kb_number in (
        (date(2026, 4, 20), "5091157"),
        (date(2026, 9, 15), "5129235"),
        (date(2026, 9, 15), "5129237"),
    ):
        world = simulator(day)
        for line in ProductLine:
            for is_on in (True, False):
                vm = assessed(world, machine(f"vm {line} {is_on}", line, is_hotpatch_enabled=is_on))
                assert kb_number not in offered(world, vm)


def test_a_baseline_whose_kb_nobody_recorded_is_offered_to_nobody_and_leaves_the_machine_due() -> None:
    world = simulator(date(2026, 11, 20))
    (october,) = [
        r for r in recorded().releases if r.product_line is ProductLine.WS2022 and r.month == date(2026, 10, 1)
    ]
    assert (october.type, october.kb_number) == (ReleaseType.BASELINE, "")
    vm = assessed(world, machine(installed=having("ws2022", "5099540")))
    assert offered(world, vm) & os_kbs() == set(), "no hotpatch of August on a baseline that is old by now"


# --- what a machine is --------------------------------------------------------------------------------------------


def test_a_machine_is_of_the_line_that_its_build_says() -> None:
    world = simulator()
    vm = assessed(world, machine(line=ProductLine.WS2022, os_build="26100.32690"))
    assert "5087423" in offered(world, vm)
    assert "5087424" not in offered(world, vm)


def test_where_two_releases_share_a_build_the_setting_says_which_it_is() -> None:
    releases = tuple(
        replace(release, build="26100.6905") if release.kb_number == "5070893" else release
        for release in recorded().releases
    )
    world = make(SimulatorConfiguration(date(2025, 10, 26), seed=7), replace(recorded(), releases=releases))
    for is_on, kb_number in ((True, "5070893"), (False, "5070881")):
        vm = machine(line=ProductLine.WS2025, os_build="26100.6905", is_hotpatch_enabled=is_on)
        assert kb_number in kbs(assessed(world, vm))


def test_a_machine_that_took_an_lcu_gets_cumulative_updates_until_the_next_baseline() -> None:
    took = machine(line=ProductLine.WS2025, os_build="26100.6905", installed=having("ws2025", "5066835", "5070881"))
    for day, expected in (
        (date(2025, 11, 12), {"5068861"}),
        (date(2025, 12, 20), {"5072033"}),
        (date(2026, 1, 14), {"5073379"}),
        (date(2026, 3, 12), {"5073379"}),  # the baseline brings it back, not March's cumulative update
    ):
        assert offered(simulator(day), took) & os_kbs() == expected, day


def test_a_machine_that_missed_its_baseline_gets_it_and_then_the_newest_hotpatch() -> None:
    world = simulator(date(2026, 5, 20))
    vm = assessed(world, machine(os_build="20348.4830"))
    assert offered(world, vm) & os_kbs() == {"5082142"}
    final = install(world, vm, SECURITY).final_assessment
    assert final is not None
    assert final.os_build == APRIL_2026
    assert {patch.kb_number for patch in final.available} & os_kbs() == {"5087424"}


def test_a_machine_known_by_its_kbs_alone_has_the_build_that_they_bring() -> None:
    result = assess(simulator(), machine(installed=having("ws2022", "5082142", "5087424")))
    assert result.os_build == "20348.5074"
    pending = having("ws2022", "5082142")
    waits = machine(os_build="20348.4830", installed=pending, is_reboot_pending=True)
    assert offered(simulator(), waits) & os_kbs() == set(), "no hotpatch applies before its reboot"


def test_a_machine_from_before_everything_recorded_has_a_build_too() -> None:
    result = assess(simulator(date(2024, 9, 1)), machine(line=ProductLine.WS2025))
    assert result.os_build == "26100.1742"
    assert result.installed == ()
    assert not {patch.kb_number for patch in result.available} & os_kbs()


def test_a_rollback_leaves_what_is_not_uninstalled() -> None:
    world = simulator()
    vm = assessed(world, machine(os_build="20348.5074"))
    orders = (
        (RollbackOrder(("5087424",), "5082142", APRIL_2026, must_install_target=False), APRIL_2026, {"5082142"}),
        (RollbackOrder(("5087424", "5082142"), "5073457", "", must_install_target=True), "20348.4648", {"5073457"}),
        (RollbackOrder(("5087424", "5082142"), "1", "20348.1", must_install_target=True), "20348.1", set()),
    )
    for order, build, left in orders:
        request = replace(observe_request(vm), kind=OperationKind.ROLLBACK, rollback=order)
        seen = look(world, request, NOW + timedelta(hours=12)).assessment
        assert seen is not None
        assert seen.os_build == build
        assert {update.patch.kb_number for update in seen.installed or ()} & os_kbs() == left


# --- a world that is larger than the record -----------------------------------------------------------------------


def test_a_machine_is_offered_what_the_portal_does_not_record_and_tells_no_kind_of_release() -> None:
    world = recorded()
    old = replace(
        world,
        releases=tuple(r for r in world.releases if r.released_on < date(2026, 5, 1)),
        patches=tuple(p for p in world.patches if p.kb_number not in {"5087424", "5087545"}),
    )
    connector = make(SimulatorConfiguration(date(2026, 5, 20), seed=7), old, world=world)
    vm = assessed(connector, machine(os_build=APRIL_2026))
    (hotpatch,) = [patch for patch in assess(connector, vm).available if patch.kb_number == "5087424"]
    assert hotpatch.release_type is None
    assert {update.patch.release_type for update in vm.installed if update.patch.kb_number == "5082142"} == {
        ReleaseType.BASELINE
    }
    final = install(connector, vm, SECURITY).final_assessment
    assert final is not None
    assert final.os_build == "20348.5074"


def test_a_machine_of_unknown_build_gets_one_for_ever() -> None:
    world = simulator()
    builds = {assess(world, machine(f"m-{number}")).os_build for number in range(30)}
    assert all(build.startswith("20348.") for build in builds)
    assert assess(world, machine("m-1")) == assess(simulator(), machine("m-1"))


def test_a_machine_without_a_product_line_is_known_by_its_sku() -> None:
    world = simulator()
    vm = machine(line=None)
    (refused,) = start(world, [start_request(vm)], now=NOW)
    assert isinstance(refused, ConnectorError)
    assert refused.code == "vm.unsupported"
    known = replace(vm, image=replace(vm.image, sku="2025-datacenter"))
    (started,) = start(world, [start_request(known)], now=NOW)
    assert isinstance(started, Started)


def test_definitions_and_msrt_come_anew() -> None:
    monday, tuesday = simulator(date(2026, 5, 18)), simulator(date(2026, 5, 19))
    everything = InstallationPlan(classifications=frozenset(Classification))
    vm = machine(os_build=APRIL_2026)
    final = install(monday, assessed(monday, vm), everything).final_assessment
    assert final is not None
    assert not final.available
    later = replace(vm, os_build=final.os_build, installed=final.installed or ())
    assert {p.kb_number for p in assess(tuesday, later).available} == {"2267602"}
    for day, is_new in ((date(2026, 6, 8), False), (date(2026, 6, 9), True)):
        assert ("890830" in offered(simulator(day), later)) is is_new, "MSRT comes on Patch Tuesday"


def test_rolling_updates_have_titles_versions_and_ids_of_their_own() -> None:
    seen: dict[str, list[Patch]] = {"890830": [], "2267602": []}
    for day in (date(2026, 4, 20), date(2026, 4, 21), date(2026, 5, 20)):
        for patch in assess(simulator(day), machine(os_build=APRIL_2026)).available:
            if patch.kb_number in seen:
                seen[patch.kb_number].append(patch)
    removal, definitions = seen["890830"], seen["2267602"]
    assert [patch.version for patch in removal] == ["5.147", "5.147", "5.148"]
    assert removal[0].title == "Windows Malicious Software Removal Tool x64 - v5.147 (KB890830)"
    assert removal[0].published_on == date(2026, 4, 14)
    assert len({patch.version for patch in definitions}) == 3
    assert definitions[0].title == (
        "Security Intelligence Update for Microsoft Defender Antivirus - KB2267602 "
        f"(Version {definitions[0].version}) - Current Channel (Broad)"
    )
    for patches in seen.values():
        assert len({patch.key for patch in patches}) == 1
        assert len({patch.update_id for patch in patches}) == len({patch.version for patch in patches})
    days = [date(2022, 1, 1) + timedelta(days=number) for number in range(2_000)]
    versions = [tuple(map(int, _defender(day)[0].split("."))) for day in days]
    assert versions == sorted(set(versions)), "a later day has a higher version, compared number by number"


def test_a_dot_net_update_has_the_title_of_windows_update() -> None:
    available = assess(simulator(), machine(os_build=APRIL_2026)).available
    (title,) = [patch.title for patch in available if patch.kb_number == "5084071"]
    assert title == (
        "2026-04 Cumulative Update for .NET Framework 3.5, 4.8 and 4.8.1 for Microsoft server operating system version 21H2 "
        "for x64 (KB5084071)"
    )


def test_a_hotpatch_is_offered_from_ten_pacific_whoever_asked_before() -> None:
    vm = machine(os_build=APRIL_2026)
    world = simulator(None)
    before, after = datetime(2026, 5, 12, 16, 59, tzinfo=UTC), datetime(2026, 5, 12, 17, 0, tzinfo=UTC)
    looks = [replace(observe_request(vm), started_at=at) for at in (before, after)]
    offered = []
    for request in looks:
        seen = look(world, request, request.started_at + timedelta(hours=1)).assessment
        assert seen is not None
        offered.append({patch.kb_number for patch in seen.available})
    assert "5087424" not in offered[0]
    assert "5087424" in offered[1]


def test_the_pending_reboot_of_another_update_hides_no_missing_hotpatch() -> None:
    world = simulator()
    vm = assessed(world, machine(os_build=APRIL_2026))
    plan = InstallationPlan(classifications=frozenset({Classification.UPDATES}), reboot_setting=RebootSetting.NEVER)
    final = install(world, vm, plan).final_assessment
    assert final is not None
    assert final.is_reboot_pending
    assert "5087424" in {patch.kb_number for patch in final.available}


def test_an_os_patch_that_waits_for_its_reboot_is_not_offered_again() -> None:
    world = simulator(date(2026, 4, 16))
    vm = assessed(world, machine(os_build="20348.4830"))
    final = install(world, vm, replace(SECURITY, reboot_setting=RebootSetting.NEVER)).final_assessment
    assert final is not None
    assert "5082142" not in {patch.kb_number for patch in final.available}
    assert "5082142" in {update.patch.kb_number for update in final.installed or ()}


# --- the window --------------------------------------------------------------------------------------------------


def test_a_window_of_a_minute_leaves_everything_pending() -> None:
    world = simulator()
    vm = assessed(world, machine(os_build=APRIL_2026))
    result = install(world, vm, replace(SECURITY, maximum_duration=timedelta(minutes=1)))
    assert states(result)["5087424"] is S.PENDING
    assert result.is_maintenance_window_exceeded
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert result.error.code == "window.exceeded"


@given(name=st.text("abcdef0123456789", min_size=1, max_size=8), minutes=st.sampled_from([1, 20, 30, 40, 50, 235]))
def test_a_run_does_at_least_what_its_review_promised(name: str, minutes: int) -> None:
    vm = assessed(_WORLD, machine(name, os_build=APRIL_2026))
    plan = replace(_EVERYTHING, maximum_duration=timedelta(minutes=minutes))
    promised = prospect(select(assess(_WORLD, vm).available, plan, guard=OFF_GUARD), plan)
    done = install(_WORLD, vm, plan)
    assert sum(state is S.INSTALLED for state in states(done).values()) >= promised.fitting


def test_one_slow_update_leaves_the_rest_pending() -> None:
    world = simulator()
    everything = InstallationPlan(classifications=frozenset(Classification))
    vm = assessed(world, machine(os_build=APRIL_2026, tags=simulate("window-exceeded")))
    assert sorted(states(install(world, vm, everything)).values()) == [S.INSTALLED, S.PENDING, S.PENDING, S.PENDING]


# --- misfortunes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wish", ["fail:5087424", "fail:KB5087424", "fail:any"])
def test_an_update_that_fails(wish: str) -> None:
    world = simulator()
    vm = assessed(world, machine(os_build=APRIL_2026, tags=simulate(wish)))
    result = install(world, vm, SECURITY)
    assert states(result)["5087424"] is S.FAILED
    assert {o.error_code for o in result.patches if o.state is S.FAILED} == {"0x80070643"}
    assert result.error is not None
    assert (result.status, result.error.code) == (RunStatus.FAILED, "patch.failed")
    assert result.final_assessment is not None
    assert result.final_assessment.os_build == APRIL_2026


def test_an_update_that_is_reported_and_is_not_there() -> None:
    world = simulator()
    vm = assessed(world, machine(os_build=APRIL_2026, tags=simulate("lies:5087424")))
    result = install(world, vm, SECURITY)
    assert states(result)["5087424"] is S.INSTALLED
    final = result.final_assessment
    assert final is not None
    assert "5087424" in {patch.kb_number for patch in final.available}
    assert final.os_build == APRIL_2026


def test_a_lie_shows_although_another_update_waits_for_the_reboot() -> None:
    world = simulator()
    vm = assessed(world, machine(os_build=APRIL_2026, tags=simulate("lies:5087424")))
    result = install(world, vm, replace(_EVERYTHING, reboot_setting=RebootSetting.NEVER))
    assert result.reboot_status is RebootStatus.REQUIRED
    assert result.final_assessment is not None
    assert {patch.kb_number for patch in result.final_assessment.available} == {"5087424"}


@pytest.mark.parametrize(
    ("word", "code", "patch_error"),
    [
        ("hotpatch-extension", "hotpatch.extension_unhealthy", "0x80070643"),
        ("baseline-required", "hotpatch.baseline_required", "0x80240017"),
    ],
)
def test_a_hotpatch_that_the_machine_cannot_take(word: str, code: str, patch_error: str) -> None:
    world = simulator()
    vm = assessed(world, machine(os_build=APRIL_2026, tags=simulate(word)))
    assert assess(world, vm).status is RunStatus.SUCCEEDED
    result = install(world, vm, _EVERYTHING)
    assert {o.patch.kb_number: o.error_code for o in result.patches if o.state is S.FAILED} == {"5087424": patch_error}
    assert (result.status, result.error and result.error.code) == (RunStatus.FAILED, code)
    final = result.final_assessment
    assert final is not None
    assert final.os_build == APRIL_2026
    assert "5087424" in {patch.kb_number for patch in final.available}
    baseline = simulator(date(2026, 4, 16))
    due = assessed(baseline, machine(os_build="20348.4830", tags=simulate(word)))
    assert install(baseline, due, SECURITY).status is RunStatus.SUCCEEDED, "a baseline is no hotpatch"


def test_without_vbs_a_machine_says_that_it_is_not_ready_and_gets_cumulative_updates() -> None:
    world = simulator()
    vm = assessed(world, machine(os_build=APRIL_2026, tags=simulate("vbs-off")))
    seen = assess(world, vm)
    assert (seen.status, seen.error and seen.error.code) == (RunStatus.COMPLETED_WITH_WARNINGS, "hotpatch.vbs_off")
    assert {patch.kb_number for patch in seen.available} & os_kbs() == {"5087545"}
    plain = assess(world, replace(vm, is_hotpatch_enabled=False))
    assert (plain.status, plain.error) == (RunStatus.SUCCEEDED, None), "where hotpatch is off nothing is missing"


@pytest.mark.parametrize("key", ["simulate", "Simulate", "SIMULATE"])
def test_the_name_of_the_tag_is_compared_without_case(key: str) -> None:
    (refused,) = start(simulator(), [start_request(machine(tags=((key, "Unreachable"),)))], now=NOW)
    assert isinstance(refused, ConnectorError)
    assert refused.code == "connector.unreachable"


def test_a_reboot_that_hangs() -> None:
    world = simulator(date(2026, 4, 16))
    vm = assessed(world, machine(os_build="20348.4830", tags=simulate("reboot-hangs")))
    result = install(world, vm, SECURITY)
    assert (result.status, result.reboot_status) == (RunStatus.FAILED, RebootStatus.FAILED)
    assert result.final_assessment is None


@pytest.mark.parametrize(
    ("fields", "code", "is_retryable"),
    [
        ({"tags": simulate("unreachable")}, "connector.unreachable", True),
        ({"tags": simulate("throttled")}, "connector.throttled", True),
        ({"tags": simulate("agent-not-ready")}, "agent.not_ready", False),
        ({"power_state": "deallocated"}, "vm.not_running", False),
    ],
)
def test_a_machine_that_takes_no_start(fields: dict[str, object], code: str, is_retryable: bool) -> None:
    world, ledger = simulator(), MemoryLedger()
    world = replace(world, ledger=ledger)
    request = start_request(machine(**fields))
    (refused,) = start(world, [request], now=NOW)
    assert isinstance(refused, ConnectorError)
    assert (refused.code, refused.is_retryable, refused.nothing_was_sent) == (code, is_retryable, True)
    assert world.find([request], now=NOW) == [None]
    assert ledger.lines == []


def test_throttling_passes() -> None:
    world = simulator()
    request = start_request(machine(tags=simulate("throttled")))
    (later,) = start(world, [request], now=NOW + timedelta(seconds=61))
    assert isinstance(later, Started)


def test_a_lost_answer_has_arrived() -> None:
    ledger = MemoryLedger()
    world = replace(simulator(), ledger=ledger)
    request = start_request(machine(tags=simulate("lost-answer")))
    (lost,) = start(world, [request], now=NOW)
    assert isinstance(lost, ConnectorError)
    assert (lost.code, lost.nothing_was_sent) == ("connector.timeout", False)
    assert len(ledger.lines) == 1
    (found,) = world.find([request], now=NOW)
    assert isinstance(found, Started)
    (again,) = start(world, [request], now=NOW + timedelta(seconds=31))
    assert isinstance(again, Started)


def test_a_silent_machine_never_ends() -> None:
    world = simulator()
    seen = look(world, observe_request(machine(tags=simulate("silent"))), NOW + timedelta(days=30))
    assert not seen.is_final


# --- purity ------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(min_value=0, max_value=60), min_size=2, max_size=12))
def test_progress_never_goes_back_and_the_end_is_final(seconds: list[float]) -> None:
    request = observe_request(_VM, _EVERYTHING)
    seen = [look(_WORLD, request, NOW + timedelta(seconds=s)) for s in sorted(seconds)]
    fractions = [s.progress.fraction if s.progress else 1.0 for s in seen]
    assert fractions == sorted(fractions)
    finals = [s.is_final for s in seen]
    assert finals == sorted(finals)
    assert [len(s.outcomes) for s in seen if not s.is_final] == sorted(len(s.outcomes) for s in seen if not s.is_final)
    assert seen == [look(simulator(), request, NOW + timedelta(seconds=s)) for s in sorted(seconds)]


def test_the_clock_factor_makes_a_long_installation_short() -> None:
    request = observe_request(_VM, _EVERYTHING)
    slow = simulator(clock_factor=1.0)
    assert not look(slow, request, NOW + timedelta(minutes=5)).is_final
    assert look(_WORLD, request, NOW + timedelta(minutes=5)).is_final
    running = look(_WORLD, request, NOW + timedelta(seconds=5)).progress
    assert running is not None
    assert running.remaining_seconds is not None
    assert 0 < running.remaining_seconds < 60


def test_equal_machines_share_what_they_are_offered() -> None:
    first = assess(_WORLD, replace(_VM, name="a", arm_id="/vms/a"))
    second = assess(_WORLD, replace(_VM, name="b", arm_id="/vms/b"))
    assert first.available is second.available


def test_the_ledger_tells_what_a_machine_went_through_once(tmp_path: Path) -> None:
    ledger, file = MemoryLedger(), FileLedger(tmp_path / "ledger")
    request = observe_request(_VM, _EVERYTHING)
    for sink in (ledger, file):
        world = replace(simulator(clock_factor=1.0), ledger=sink)
        look(world, request, NOW + timedelta(minutes=1))
    assert ledger.courses == {}, "while it runs nobody knows how it ends"
    world = replace(world, ledger=ledger)
    result = look(world, request, NOW + timedelta(hours=3)).installation
    look(world, request, NOW + timedelta(hours=4))
    (course,) = ledger.courses.values()
    assert (course.request_id, course.vm_id, course.kind) == (request.request_id, _VM.vm_id, request.kind)
    assert course.began_at == request.started_at
    ends = [step.ends for step in course.steps]
    assert ends == sorted(ends)
    assert [step.begins for step in course.steps] == [course.began_at, *ends[:-1]], "one thing after the other"
    assert course.ended_at == ends[-1]
    assert result is not None
    done = {step.kb_number for step in course.steps if step.what == "installing" and not step.has_failed}
    assert done == {o.patch.kb_number for o in result.patches if o.state is S.INSTALLED}
    reboots = sum(step.what == "rebooting" for step in course.steps)
    assert reboots == (result.reboot_status is RebootStatus.COMPLETED)
    look(replace(world, ledger=file), request, NOW + timedelta(hours=3))
    lines = [line.split() for line in (tmp_path / "ledger").read_text().splitlines()]
    assert [line[0] for line in lines] == ["step"] * len(course.steps)


def test_a_patient_simulator_is_looked_at_when_something_ends() -> None:
    world = replace(simulator(clock_factor=1.0), is_patient=True)
    request, at, looks = observe_request(_VM, _EVERYTHING), NOW, 0
    while not (seen := look(world, request, at)).is_final:
        at, looks = at + timedelta(seconds=seen.look_again_after), looks + 1
    assert seen.installation is not None
    assert looks <= 3 + 2 * len(seen.installation.patches), "a look for each stretch"


def test_the_file_ledger_appends_whole_lines(tmp_path: Path) -> None:
    world = replace(simulator(), ledger=FileLedger(tmp_path / "ledger"))
    start(world, [start_request(machine(), number=number) for number in (1, 2)], now=NOW)
    assert len((tmp_path / "ledger").read_text().splitlines()) == 2


def test_a_restart_lets_what_was_installed_take_effect() -> None:
    """April's baseline is installed and waits for its reboot: the machine still runs what it ran before."""
    world = simulator(date(2026, 4, 20))
    fresh = assessed(world, machine(os_build="20348.4773"))
    never = replace(SECURITY, reboot_setting=RebootSetting.NEVER)
    result = install(world, fresh, never)
    waits = result.final_assessment
    assert waits is not None
    assert waits.is_reboot_pending
    vm = replace(fresh, os_build=waits.os_build, installed=waits.installed or (), is_reboot_pending=True)
    request = replace(observe_request(vm), kind=OperationKind.RESTART)
    down = look(world, request, NOW + timedelta(seconds=1))
    assert down.is_rebooting
    ended = look(world, request, NOW + timedelta(hours=1)).restart
    assert ended is not None
    assert ended.final_assessment is not None
    assert not ended.final_assessment.is_reboot_pending
    assert ended.final_assessment.os_build != waits.os_build
    hangs = replace(request, vm=replace(vm, tags=simulate("reboot-hangs")))
    hung = look(world, hangs, NOW + timedelta(hours=1)).restart
    assert hung is not None
    assert (hung.status, hung.reboot_status, hung.final_assessment) == (RunStatus.FAILED, RebootStatus.FAILED, None)
    assert hung.error is not None
    assert hung.error.code == "reboot.failed"
