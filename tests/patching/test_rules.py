"""Every row of docs/rules.md holds for the code."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.codes import MOST_CHARACTERS, ErrorCode, EventCode, Fault, RolloutReason, storable_code
from patching.eligibility import (
    Eligibility,
    EligibilityVerdict,
    catalog_index,
    is_uniform_arm_id,
    judge_eligibility,
    needs_licence,
)
from patching.enrolment import is_hotpatch, is_hotpatching_on, subscription_of
from patching.forecast import (
    Hindrance,
    MonthForecast,
    NextReboot,
    Outlook,
    RebootCause,
    forecast_reboots,
    judge_outlook,
    next_reboot,
)
from patching.kb_numbers import KbNumbersError, parse_kb_numbers
from patching.lifecycle import (
    TRANSITIONS,
    Admission,
    Step,
    admit,
    deadline_after,
    next_step,
    retry_delay,
    state_for,
)
from patching.orchestrator import Patcher
from patching.outcome import ExpectedPatch, RunFacts, fits, judge_run, verify
from patching.releases import (
    as_of,
    catalogue_ends,
    expected_type,
    is_offered,
    is_released,
    is_train_over,
    missing_months,
    next_baseline_of,
    next_planned_baseline_month,
    second_tuesday,
)
from patching.restart import RestartFacts, judge_restart, verify_restart
from patching.selection import (
    OFF_GUARD,
    Guard,
    PatchVerdict,
    RebootProspect,
    RunOutlook,
    RunWork,
    Selection,
    SelectionReason,
    guard_for,
    is_os_update,
    named,
    prospect,
    select,
    validate_plan,
    work_of,
)
from patching.settings_rules import judge_settings
from patching.status import judge_update_status, why_stale
from patching.terms import (
    AssessmentMode,
    CatalogImage,
    Classification,
    HotpatchTrack,
    ImageReference,
    InstallationPlan,
    InstallationState,
    OperationKind,
    OperationState,
    Patch,
    PatchMode,
    PatchSettings,
    Platform,
    ProductLine,
    RebootBehavior,
    RebootSetting,
    RebootStatus,
    Release,
    ReleaseType,
    RunStatus,
    ScaleSetOrchestration,
    Verification,
)
from patching.track import TrackVerdict, hotpatch_status, judge_track
from tests.patching.recorded import day, moment, month, releases
from tests.patching.tables import Row, every_table, flag, matches, rows, table, words

NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)


def test_every_table_is_checked_by_a_test() -> None:
    source = "".join(path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py"))
    checked = set(re.findall(r'(?:@table|"row", rows|in rows)\("([a-z-]+)"\)', source))
    assert checked == set(every_table())


def patch(kb: str = "5087424", **fields: Any) -> Patch:
    values: dict[str, Any] = {
        "title": f"Update {kb} for Windows Server 2022",
        "classification": Classification.SECURITY,
        "reboot_behavior": RebootBehavior.NEVER_REBOOTS,
        "product_line": ProductLine.WS2022,
    }
    return Patch(kb_number=kb, **(values | fields))


# --- releases and the calendar -----------------------------------------------------------------------------------


@table("expected-type")
def test_expected_type(row: Row) -> None:
    assert expected_type(date(2026, int(row["month"]), 1)) == row["expected"]


@table("offered")
def test_offered(row: Row) -> None:
    released_on = day(row["released on"])
    assert released_on is not None
    release = Release(
        ProductLine.WS2022,
        released_on.replace(day=1),
        ReleaseType.HOTPATCH,
        released_on,
        kb_number=row["KB"],
        is_scheduled=flag(row["announced only"]),
    )
    assert is_released(release, moment(row["at (UTC)"])) is flag(row["released"])
    assert is_offered(release, moment(row["at (UTC)"])) is flag(row["offered"])


@table("second-tuesday")
def test_second_tuesday(row: Row) -> None:
    first = month(row["month"])
    assert first is not None
    assert second_tuesday(first) == day(row["second Tuesday"])


@table("next-baseline")
def test_next_baseline(row: Row) -> None:
    assert next_planned_baseline_month(moment(row["at (UTC)"])) == month(row["month of the next planned baseline"])


# --- eligibility -------------------------------------------------------------------------------------------------

CORE = CatalogImage("MicrosoftWindowsServer", "WindowsServer", "2022-datacenter-azure-edition-core", ProductLine.WS2022)
CATALOG = catalog_index([CORE])


def image(text: str) -> ImageReference:
    if text.count(":") == 2:
        return ImageReference(*text.split(":"))
    return ImageReference(resource_id=text)


@table("eligibility")
def test_eligibility(row: Row) -> None:
    verdict = judge_eligibility(
        image(row["image"]),
        CATALOG,
        Platform(row["platform"]),
        scale_set_orchestration=ScaleSetOrchestration(row["scale set"]),
    )
    assert verdict.verdict == row["verdict"]
    assert (verdict.catalog_image is not None) is ("azure-edition-core" in row["image"].lower())


@table("product-line")
def test_product_line(row: Row) -> None:
    known = image("MicrosoftWindowsServer:WindowsServer:2022-datacenter-azure-edition-core")
    verdict = judge_eligibility(
        known if row["in the catalog as"] else ImageReference(),
        CATALOG,
        Platform.AZURE,
        os_build=row["OS build"],
    )
    assert (verdict.product_line or "") == row["product line"]
    assert verdict.verdict == row["verdict"]


@table("edition")
def test_edition(row: Row) -> None:
    verdict = judge_eligibility(
        ImageReference(edition=row["edition"]), CATALOG, Platform(row["platform"]), os_build=row["OS build"]
    )
    assert (verdict.product_line or "") == row["product line"]
    assert verdict.verdict == row["verdict"]
    assert verdict.is_by_edition


def test_azure_edition_alone_needs_no_licence() -> None:
    assert needs_licence("Windows Server 2025 Standard")
    assert not needs_licence("Windows Server 2022 Datacenter: Azure Edition")
    assert not needs_licence("")


@table("hotpatching-outside")
def test_hotpatching_outside_of_azure(row: Row) -> None:
    told = row["enableHotpatching"]
    found = is_hotpatching_on(row["edition"], subscription=row["subscription"], is_chosen=flag(told) if told else None)
    assert found is flag(row["on"])


@table("subscription")
def test_subscription(row: Row) -> None:
    found = subscription_of(is_on=flag(row["on"]), is_wanted=flag(row["wanted"]), is_under_way=flag(row["under way"]))
    assert found == row["subscription"]


def test_the_feature_is_known_in_any_case() -> None:
    assert is_hotpatch("hotPatch")
    assert not is_hotpatch("")


@table("uniform-id")
def test_uniform_id(row: Row) -> None:
    assert is_uniform_arm_id(row["resource id"]) is flag(row["Uniform instance"])


# --- settings ----------------------------------------------------------------------------------------------------

ELIGIBLE = Eligibility(EligibilityVerdict.ELIGIBLE, ProductLine.WS2022, CORE)
NOT_ELIGIBLE = Eligibility(EligibilityVerdict.CUSTOM_IMAGE, None)


@table("settings-combinations")
def test_settings_combinations(row: Row) -> None:
    target = PatchSettings(
        provision_vm_agent=flag(row["agent"]),
        patch_mode=PatchMode(row["patch mode"]),
        enable_automatic_updates=flag(row["automatic updates"]),
        assessment_mode=AssessmentMode(row["assessment mode"]),
        enable_hotpatching=flag(row["hotpatch"]),
        bypass_platform_safety_checks=flag(row["bypass"]),
    )
    found = judge_settings(
        target,
        current=None,
        eligibility=ELIGIBLE if flag(row["eligible"]) else NOT_ELIGIBLE,
        platform=Platform(row["platform"]),
    )
    assert tuple(violation.problem.value for violation in found) == words(row["problems"])
    assert {violation.arm_target for violation in found} == set(words(row["ARM target"]))
    assert {violation.arm_code for violation in found} <= {"InvalidParameter"}


@table("settings-outside")
def test_settings_outside_of_azure(row: Row) -> None:
    target = PatchSettings(
        patch_mode=PatchMode(row["patch mode"]),
        enable_automatic_updates=flag(row["automatic updates"]),
        enable_hotpatching=flag(row["hotpatch"]),
    )
    found = judge_settings(
        target,
        current=PatchSettings(patch_mode=PatchMode.AUTOMATIC_BY_OS),
        eligibility=replace(ELIGIBLE if flag(row["eligible"]) else NOT_ELIGIBLE, is_by_edition=True),
        platform=Platform.AZURE,
    )
    assert tuple(violation.problem.value for violation in found) == words(row["problems"])


def test_every_combination_of_settings_has_the_problems_of_the_table() -> None:
    """3,456 changes: every target, from every mode, on every platform."""
    yes_no = ("yes", "no")
    modes, assessments = [mode.value for mode in PatchMode], [mode.value for mode in AssessmentMode]
    columns = (
        "agent",
        "patch mode",
        "automatic updates",
        "assessment mode",
        "hotpatch",
        "bypass",
        "eligible",
        "from mode",
    )
    space = itertools.product(yes_no, modes, yes_no, assessments, yes_no, yes_no, yes_no, modes)
    for facts in (dict(zip(columns, values, strict=True)) for values in space):
        target = PatchSettings(
            provision_vm_agent=flag(facts["agent"]),
            patch_mode=PatchMode(facts["patch mode"]),
            enable_automatic_updates=flag(facts["automatic updates"]),
            assessment_mode=AssessmentMode(facts["assessment mode"]),
            enable_hotpatching=flag(facts["hotpatch"]),
            bypass_platform_safety_checks=flag(facts["bypass"]),
        )
        expected = [row["problem"] for row in rows("settings-problems") if matches(row, facts)]
        for platform in Platform:
            found = judge_settings(
                target,
                current=replace(target, patch_mode=PatchMode(facts["from mode"])),
                eligibility=ELIGIBLE if flag(facts["eligible"]) else NOT_ELIGIBLE,
                platform=platform,
            )
            are_facts = platform is Platform.AZURE_STACK_HCI
            assert [violation.problem.value for violation in found] == ([] if are_facts else expected), (
                facts,
                platform,
            )


@table("settings-transitions")
def test_settings_transitions(row: Row) -> None:
    def settings(prefix: str) -> PatchSettings:
        return PatchSettings(
            patch_mode=PatchMode(row[f"{prefix} mode"]),
            enable_automatic_updates=flag(row[f"{prefix} automatic updates"]),
        )

    found = judge_settings(settings("to"), current=settings("from"), eligibility=ELIGIBLE, platform=Platform.AZURE)
    assert tuple(violation.problem.value for violation in found) == words(row["problems"])


@given(st.builds(PatchSettings, **dict.fromkeys((field.name for field in fields(PatchSettings)), ...)))
def test_settings_are_read_as_they_were_kept(settings: PatchSettings) -> None:
    kept = settings.as_json
    assert PatchSettings.from_json(json.loads(json.dumps(kept))) == settings
    with pytest.raises(KeyError):
        PatchSettings.from_json({name: value for name, value in kept.items() if name != "patch_mode"})
    with pytest.raises(ValueError, match="by hand"):
        PatchSettings.from_json(kept | {"patch_mode": "by hand"})


# --- status and track --------------------------------------------------------------------------------------------


@table("hotpatch-status")
def test_hotpatch_status(row: Row) -> None:
    status = hotpatch_status(
        ELIGIBLE if flag(row["eligible"]) else NOT_ELIGIBLE,
        is_enabled=flag(row["hotpatch on"]),
        was_assessed=flag(row["assessed"]),
    )
    assert status == row["status"]


def end_of(text: str) -> datetime:
    """The end of a catalogue's day."""
    return as_of(day(text), NOW)


@table("track")
def test_track(row: Row) -> None:
    verdict = judge_track(
        releases(),
        ProductLine(row["line"]) if row["line"] else None,
        is_hotpatch_on=row["hotpatch"] != "off",
        is_ready=row["hotpatch"] != "not ready",
        installed_kbs=words(row["installed"]),
        os_build=row["build"],
        as_of=end_of(row["as of"]),
        is_list_complete={"complete": True, "partial": False}[row["list"]],
        is_reboot_pending=flag(row["waits"]) if row["waits"] else None,
    )
    assert verdict.track == row["track"]
    assert _kb(verdict.off_since) == row["since"]
    assert tuple(_kb(release) for release in verdict.way_back) == words(row["comes next"])
    assert verdict.next_offer == (verdict.way_back[0] if verdict.way_back else None)
    assert verdict.back_on_track == month(row["back on track"])
    assert (verdict.contradiction or "") == row["contradiction"]
    is_off = verdict.track is HotpatchTrack.NOT_ON_TRAIN
    assert (verdict.off_train_reason is not None) is is_off


def _kb(release: Release | None) -> str:
    return "" if release is None else release.kb_number or "no KB"


def _recorded(line: str, text: str) -> list[Release]:
    found = []
    for entry in words(text):
        name, kind = entry.split()
        first = month(name)
        assert first is not None
        is_announced = kind == "announced"
        found.append(
            Release(
                ProductLine(line),
                first,
                ReleaseType.HOTPATCH if is_announced else ReleaseType(kind),
                second_tuesday(first),
                kb_number="1000000",
                is_scheduled=is_announced,
            )
        )
    return found


@table("missing-months")
def test_missing_months(row: Row) -> None:
    rows, line, at = _recorded(row["line"], row["recorded"]), ProductLine(row["line"]), moment(row["at (UTC)"])
    assert catalogue_ends(rows, line, at) == month(row["known until"])
    assert missing_months(rows, line, at) == tuple(month(name) for name in words(row["missing"]))


@table("end-of-hotpatching")
def test_end_of_hotpatching(row: Row) -> None:
    line, at = ProductLine(row["line"]), moment(row["at (UTC)"])
    assert is_train_over(line, at) is flag(row["over"])
    assert next_baseline_of(line, at) == month(row["next planned baseline"])


# --- selection and guard -----------------------------------------------------------------------------------------


@table("selection")
def test_selection(row: Row) -> None:
    masks = words(row["name masks"])
    offered = patch(
        row["KB"],
        update_id="" if row["KB"] else "an-id",
        classification=Classification(row["class"]),
        reboot_behavior=RebootBehavior(row["reboot behavior"]),
        release_type=ReleaseType(row["release type"]) if row["release type"] else None,
        published_on=day(row["published"]),
    )
    plan = InstallationPlan(
        classifications=frozenset({Classification.SECURITY}),
        kb_numbers_to_include=words(row["include"]),
        kb_numbers_to_exclude=words(row["exclude"]),
        exclude_kbs_requiring_reboot=row["no reboots"] == "yes",
        max_patch_publish_date=day(row["published by"]),
        patch_name_masks_to_include=tuple(mask[1:] for mask in masks if mask.startswith("+")),
        patch_name_masks_to_exclude=tuple(mask[1:] for mask in masks if mask.startswith("-")),
        guard_overrides=words(row["ticked"]),
    )
    selection = select([offered], plan, guard=guard_at("ws2022", "2026-05-20", HotpatchTrack.ON_TRACK))
    (verdict,) = selection.verdicts
    assert (verdict.state, verdict.reason) == (row["state"], row["reason"])
    assert verdict.is_selected is (row["state"] == "Pending")
    assert len(selection.selected) + len(selection.left_out) == 1
    assert verdict.off_until == (date(2026, 7, 1) if row["release type"] == "lcu" else None)


@table("plan")
def test_plan(row: Row) -> None:
    mask = (row["mask"],) if row["mask"] else ()
    plan = InstallationPlan(
        classifications=frozenset(Classification(name) for name in words(row["classes"])),
        kb_numbers_to_include=words(row["include"]),
        kb_numbers_to_exclude=tuple(str(5_000_000 + n) for n in range(int(row["KBs in a list"]))),
        maximum_duration=timedelta(minutes=int(row["minutes"])),
        patch_name_masks_to_include=mask,
    )
    assert tuple(problem.value for problem in validate_plan(plan)) == words(row["problems"])


@table("kb-lists")
def test_kb_lists(row: Row) -> None:
    typed = re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), row["typed"])
    if not row["first bad"]:
        assert parse_kb_numbers(typed) == words(row["read as"])
        return
    with pytest.raises(KbNumbersError) as caught:
        parse_kb_numbers(typed)
    assert (caught.value.first_bad, str(caught.value.more)) == (row["first bad"], row["more"])


def guard_at(line: str, day_: str, track: HotpatchTrack, until: str = "9999-12") -> Guard:
    """The guard of a machine on this track, with a catalogue that knows nothing released later than the month."""
    last = month(until)
    assert last is not None
    known = [release for release in releases() if release.month <= last]
    return guard_for(TrackVerdict(track), known, ProductLine(line), end_of(day_))


@table("guard")
def test_guard(row: Row) -> None:
    guard = guard_at("ws2025", "2025-12-20", HotpatchTrack(row["track"]), until="2025-12")
    title = f"2025-11 Cumulative Update for Windows Server 2025 for x64-based Systems (KB{row['KB']})"
    offered = patch(
        row["KB"],
        title=title if row["title"] else "Something",
        release_type=ReleaseType(row["release type"]) if row["release type"] else None,
        published_on=day(row["published"]),
        reboot_behavior=RebootBehavior(row["reboot behavior"]),
    )
    hold = guard.holds(offered, is_baseline_offered=flag(row["B offered"]))
    assert (hold.reason if hold else "") == row["held"]
    assert (hold is not None and hold.needs_decision) is flag(row["decision"])
    assert guard.presumes(offered) is flag(row["presumed"])
    assert hold is None or hold.off_until == date(2026, 1, 1)


@table("os-update")
def test_os_update(row: Row) -> None:
    offered = patch(title=row["title"], reboot_behavior=RebootBehavior(row["reboot behavior"]))
    assert is_os_update(offered) is flag(row["OS update"])


# --- runs --------------------------------------------------------------------------------------------------------


def selected(*patches: Patch) -> Selection:
    return Selection(
        tuple(PatchVerdict(item, InstallationState.PENDING, SelectionReason.CLASS_SELECTED) for item in patches), ()
    )


@table("reboot-prospect")
def test_reboot_prospect(row: Row) -> None:
    patches = [patch(str(n), reboot_behavior=RebootBehavior(b)) for n, b in enumerate(words(row["reboot behaviors"]))]
    plan = InstallationPlan(reboot_setting=RebootSetting(row["reboot option"]))
    seen = prospect(selected(*patches), plan, is_reboot_pending=flag(row["reboot pending"]))
    assert seen.reboot == row["prospect"]
    reboot_minutes = 10 if row["prospect"] in {"possible", "certain"} else 0
    assert seen.duration == timedelta(minutes=10 * len(patches) + reboot_minutes)


@table("run-work")
def test_run_work(row: Row) -> None:
    taken = selected(*(patch(str(number)) for number in range(int(row["selected"]))))
    plan = InstallationPlan(reboot_setting=RebootSetting(row["reboot option"]))
    assert work_of(taken, plan, is_reboot_pending=flag(row["reboot pending"])) == row["work"]


@table("review-promises")
def test_review_promises(row: Row) -> None:
    said = RunOutlook(RunWork(row["said"]), RebootProspect(row["reboot said"]))
    now = RunOutlook(RunWork(row["now"]), RebootProspect(row["reboot now"]))
    if row["started"] == "nothing to do":
        assert (now.work, said.covers(now)) == (RunWork.NOTHING, True)
    else:
        assert said.covers(now) is flag(row["started"])
    assert not RunOutlook(RunWork.NOTHING, RebootProspect.NEVER).covers(RunOutlook(RunWork.UPDATES, now.reboot))


OFFERS = st.lists(
    st.builds(
        patch,
        st.sampled_from(["", "1000001", "1000002", "1000003", "1000004", "1000005"]),
        classification=st.sampled_from(list(Classification)),
        reboot_behavior=st.sampled_from(list(RebootBehavior)),
    ),
    max_size=7,
)
NUMBERS = st.lists(st.sampled_from([f"100000{n}" for n in range(1, 8)]), max_size=3, unique=True).map(tuple)


@given(
    now=OFFERS,
    later=OFFERS,
    classes=st.frozensets(st.sampled_from(list(Classification))),
    included=NUMBERS,
    excluded=NUMBERS,
    is_calm=st.booleans(),
)
def test_a_plan_by_name_takes_the_same_now_and_nothing_new_later(
    now: list[Patch],
    later: list[Patch],
    classes: frozenset[Classification],
    included: tuple[str, ...],
    excluded: tuple[str, ...],
    is_calm: bool,
) -> None:
    plan = InstallationPlan(
        classifications=classes,
        kb_numbers_to_include=included,
        kb_numbers_to_exclude=excluded,
        exclude_kbs_requiring_reboot=is_calm,
    )
    seen = select(now, plan, guard=OFF_GUARD)
    by_name = named(plan, seen)
    again = select(now, by_name, guard=OFF_GUARD)
    if not seen.selected:
        assert by_name == plan
        return
    assert [verdict.patch for verdict in again.selected] == [verdict.patch for verdict in seen.selected]
    assert by_name.classifications <= plan.classifications
    if not by_name.classifications:
        names = {verdict.patch.kb_number for verdict in seen.selected}
        assert {v.patch.kb_number for v in select([*now, *later], by_name, guard=OFF_GUARD).selected} <= names


@table("window")
def test_window(row: Row) -> None:
    update = patch(classification=Classification(row["class"]))
    gone, maximum = timedelta(minutes=int(row["minutes gone"])), timedelta(minutes=int(row["maximum minutes"]))
    assert fits(gone, update, maximum) is flag(row["may start"])


@table("run-outcome")
def test_run_outcome(row: Row) -> None:
    outcome = judge_run(
        RunFacts(
            is_assessment_failed=flag(row["assessment failed"]),
            has_failed_patch=flag(row["update failed"]),
            has_reboot_failed=flag(row["reboot failed"]),
            has_pending_patch=flag(row["update pending"]),
            is_reboot_needed=flag(row["reboot needed"]),
            reboot_setting=RebootSetting(row["reboot option"]),
        )
    )
    assert outcome.status == row["status"]
    assert outcome.reboot_status == row["reboot status"]
    assert outcome.is_maintenance_window_exceeded is flag(row["window exceeded"])
    assert outcome.error_code == row["error"]


@table("error-codes")
def test_the_codes_say_whose_fault_it_is(row: Row) -> None:
    code = ErrorCode(row["code"])
    assert (code.fault, code.is_retryable) == (row["cause"], flag(row["again"]))


def test_every_code_has_its_row_and_fits_its_column() -> None:
    assert [row["code"] for row in rows("error-codes")] == list(ErrorCode)
    assert {code.fault for code in ErrorCode} == set(Fault)
    assert all(len(code) <= MOST_CHARACTERS for enum in (ErrorCode, RolloutReason, EventCode) for code in enum)


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("connector.unreachable", "connector.unreachable"),
        ("OperationNotAllowed", "OperationNotAllowed"),
        ("bad\x00code\n", "badcode"),
        ("x" * 500, "x" * MOST_CHARACTERS),
        ("", "error.unknown"),
        (" \x00\t ", "error.unknown"),
    ],
)
def test_a_code_that_somebody_made_up_can_be_kept(raw: str, kept: str) -> None:
    assert storable_code(raw) == kept
    assert ErrorCode.of(kept) is (ErrorCode(kept) if kept in set(ErrorCode) else ErrorCode.UNKNOWN)


@table("verification")
def test_verification(row: Row) -> None:
    expected = []
    offered = []
    if row["reported"]:
        reported = patch(row["reported"], classification=Classification(row["class"]), version="1")
        expected.append(ExpectedPatch(reported, row["build it brings"]))
        if flag(row["still offered"]):
            offered.append(
                patch(row["reported"], classification=reported.classification, version=row["version offered"] or "1")
            )
    result = verify(
        expected,
        available_after=offered,
        build_after=row["build found"],
        is_reboot_outstanding=flag(row["reboot outstanding"]),
    )
    assert result.verification == row["verification"]


@table("update-status")
def test_update_status(row: Row) -> None:
    age = row["days since the assessment"]
    status = judge_update_status(
        is_supported=flag(row["supported"]),
        last_assessed_at=NOW - timedelta(days=int(age)) if age else None,
        now=NOW,
        is_reboot_pending=flag(row["reboot pending"]),
        available_count=int(row["available"]),
    )
    assert status == row["status"]


@pytest.mark.parametrize("row", rows("stale"), ids=str)
def test_stale(row: Row) -> None:
    cause = why_stale(
        timedelta(hours=int(row["hours"])),
        has_failed=flag(row["failed"]),
        is_running=flag(row["running"]),
        is_paused=flag(row["paused"]),
        is_periodic=flag(row["periodic"]),
    )
    assert (cause or "") == row["cause"]


# --- forecast ----------------------------------------------------------------------------------------------------


def pending(text: str) -> Patch:
    kb, kind, behavior = text.split()
    return patch(
        kb,
        release_type=None if kind == "other" else ReleaseType(kind),
        reboot_behavior=RebootBehavior(behavior),
    )


@table("forecast-outlook")
def test_forecast_outlook(row: Row) -> None:
    outlook, hindrance = judge_outlook(
        HotpatchTrack(row["track"] or "on_track"),
        Patcher(row["who patches"]),
        RebootSetting(row["reboot setting"]) if row["reboot setting"] else None,
        tuple(RebootCause(name) for name in words(row["causes"])),
    )
    assert (outlook, hindrance or "") == (row["outlook"], row["hindrance"])


@table("forecast")
def test_forecast(row: Row) -> None:
    line = ProductLine(row["line"])
    at = end_of(row["as of"])
    verdict = judge_track(
        releases(),
        line,
        is_hotpatch_on=flag(row["hotpatch"]),
        installed_kbs=words(row["installed"]),
        os_build="",
        as_of=at,
    )
    seen = forecast_reboots(
        releases(),
        line,
        verdict,
        [pending(text) for text in words(row["pending updates"])],
        is_reboot_pending=flag(row["reboot pending"]),
        as_of=at,
        months=4,
        reboot_setting=RebootSetting.IF_REQUIRED,
        patcher=Patcher.PORTAL_AUTOMATICALLY,
        guard=guard_for(verdict, releases(), line, at),
    )
    told = "; ".join(
        f"{item.month:%Y-%m}{'*' if item.is_by_rule else ''}: "
        + " + ".join(cause.value for cause in item.causes)
        + ("?" if item.outlook is Outlook.MAY else "")
        for item in seen
    )
    assert told.strip() == row["months"]
    for item in seen:
        assert (
            item.is_certain is (item.outlook is Outlook.WILL) is bool(set(item.causes) - {RebootCause.PENDING_UPDATE})
        )
        assert item.outlook is not Outlook.NOT_KNOWN
        assert item.hindrance is None


# --- life of an operation ----------------------------------------------------------------------------------------


@table("transitions")
def test_transitions(row: Row) -> None:
    assert {state.value for state in TRANSITIONS[OperationState(row["from"])]} == set(words(row["to"]))


def test_the_table_of_transitions_is_complete() -> None:
    assert {row["from"] for row in rows("transitions")} == {state.value for state in OperationState}


@table("next-step")
def test_next_step(row: Row) -> None:
    step = next_step(
        OperationState(row["state"]),
        is_past_deadline=flag(row["past its deadline"]),
        can_resend=flag(row["can resend"]),
        can_find=flag(row["can find"]),
    )
    assert step is Step(row["step"])


@table("backoff")
def test_backoff(row: Row) -> None:
    asked = float(row["asked to wait (s)"]) if row["asked to wait (s)"] else None
    assert retry_delay(int(row["attempts"]), asked) == timedelta(seconds=int(row["waits (s)"]))


@table("deadline")
def test_deadline(row: Row) -> None:
    maximum = timedelta(minutes=int(row["maximum minutes"])) if row["maximum minutes"] else None
    assert deadline_after(OperationKind(row["kind"]), maximum) == timedelta(minutes=int(row["silent after (minutes)"]))


@table("final-state")
def test_final_state(row: Row) -> None:
    assert state_for(RunStatus(row["outcome"])) == row["state"]


@table("restart")
def test_restart(row: Row) -> None:
    facts = RestartFacts(
        can_restart=flag(row["connection restarts"]),
        is_supported=flag(row["supported"]),
        owes_assessment=flag(row["owes an assessment"]),
        is_known=flag(row["assessed within 7 days"]),
        is_reboot_pending=flag(row["reboot pending"]),
        is_running=flag(row["running"]),
        work=RunWork(row["a run would do"]) if row["a run would do"] else None,
    )
    refusal = judge_restart(facts)
    assert (refusal.value if refusal else "") == row["refused"]


@given(facts=st.builds(RestartFacts))
def test_only_a_known_machine_with_nothing_else_to_do_is_restarted(facts: RestartFacts) -> None:
    if judge_restart(facts) is None:
        assert all((facts.can_restart, facts.is_supported, facts.is_known, facts.is_running, facts.is_reboot_pending))
        assert not facts.owes_assessment
        assert facts.work in {RunWork.PENDING_REBOOT, RunWork.NOTHING}


@table("restart-verification")
def test_restart_verification(row: Row) -> None:
    is_pending = flag(row["still pending"]) if row["still pending"] else None
    said = RunStatus(row["status"]), RebootStatus(row["reboot status"])
    assert verify_restart(*said, is_reboot_pending_after=is_pending) is Verification(row["verification"])


@table("admission")
def test_admission(row: Row) -> None:
    found = frozenset(
        (OperationKind(kind), OperationState(state))
        for kind, state in (text.split() for text in words(row["open on the VM"]))
    )
    assert admit(OperationKind(row["request"]), found) is Admission(row["answer"])


@pytest.mark.parametrize(
    ("months", "expected"),
    [
        ([], NextReboot(None, Outlook.WILL_NOT, None)),
        ([(Outlook.WILL_NOT, None)] * 2, NextReboot(None, Outlook.WILL_NOT, None)),
        ([(Outlook.WILL_NOT, None), (Outlook.NOT_KNOWN, None)], NextReboot(None, Outlook.NOT_KNOWN, None)),
        (
            [(Outlook.WILL_NOT, Hindrance.NOBODY_PATCHES), (Outlook.WILL_NOT, Hindrance.NEVER_REBOOTS)],
            NextReboot(None, Outlook.WILL_NOT, Hindrance.NOBODY_PATCHES),
        ),
        (
            [(Outlook.NOT_KNOWN, None), (Outlook.MAY, None), (Outlook.WILL, None)],
            NextReboot(date(2026, 2, 1), Outlook.MAY, RebootCause.BASELINE_DUE),
        ),
        ([(Outlook.WILL, None)], NextReboot(date(2026, 1, 1), Outlook.WILL, RebootCause.BASELINE_DUE)),
    ],
)
def test_the_next_reboot_is_the_first_month_that_brings_one(
    months: list[tuple[Outlook, Hindrance | None]], expected: NextReboot
) -> None:
    causes = (RebootCause.BASELINE_DUE, RebootCause.PENDING_UPDATE)
    forecast = [
        MonthForecast(date(2026, number, 1), causes, outlook=outlook, hindrance=hindrance)
        for number, (outlook, hindrance) in enumerate(months, start=1)
    ]
    assert next_reboot(forecast) == expected
