"""The year in a minute: a small run that breaks no rule, and a checker that sees every rule broken."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from connectors.simulator import MemoryLedger
from patching.terms import OperationKind
from simulation.checker import Findings, Install, Place, Rule, Work, check
from simulation.fleet import Befalling, make_events, make_machines
from simulation.report import judge, judge_days, words_of, works_of
from simulation.run import Outcome, first_days, simulate
from simulation.train import TABLE, Out, Train, table
from updates.models import Rollout
from updates.selectors.catalogue import load_catalogue
from vms.models import VirtualMachine

BEGINS, ENDS = datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 6, 1, tzinfo=UTC)
NIGHT = datetime(2025, 1, 20, 13, tzinfo=UTC)  # 22:00 in Tokyo
JANUARY = Out("ws2022", "5049983", "baseline", date(2025, 1, 14))
FEBRUARY = Out("ws2022", "5052106", "hotpatch", date(2025, 2, 11))
FEBRUARY_LCU = Out("ws2022", "5051979", "lcu", date(2025, 2, 11))
APRIL = Out("ws2022", "5055526", "baseline", date(2025, 4, 8))
RELEASES = (JANUARY, FEBRUARY, FEBRUARY_LCU, APRIL)
VM = Place(name="one", region="japaneast", clock="Asia/Tokyo", line="ws2022")


def fleet(count: int = 2, **facts: Any) -> list[Place]:
    return [replace(VM, name=f"vm-{number}", **facts) for number in range(count)]


def work(machine: int = 0, at: datetime = NIGHT, *kbs: str, minutes: int = 20, reboots: bool = False) -> Work:
    """A run that installs these one after the other, and reboots at its end."""
    ends = at + timedelta(minutes=minutes)
    step = timedelta(minutes=5)
    installs = tuple(Install(kb, at + n * step, at + (n + 1) * step) for n, kb in enumerate(kbs))
    return Work(machine, at, ends, installs, ((ends - step, ends),) if reboots else ())


def judged(places: list[Place], *works: Work, releases: tuple[Out, ...] = (), off: Any = ()) -> Findings:
    return check(places, works, releases, off, begins=BEGINS, ends=ENDS)


def broken(places: list[Place], *works: Work, **facts: Any) -> list[Rule]:
    return [violation.rule for violation in judged(places, *works, **facts).violations]


# --- what the ledger means ----------------------------------------------------------------------------------------


def test_a_run_that_was_never_answered_is_work_for_as_long_as_the_machine_was_told() -> None:
    ledger = MemoryLedger()
    for vm_id, longest in ((7, timedelta(minutes=75)), (8, None)):
        for at in (NIGHT, NIGHT + timedelta(minutes=1)):  # the second time it was sent again
            ledger.record(UUID(int=vm_id), vm_id, OperationKind.INSTALLATION, at, longest)
    ledger.record(UUID(int=9), 7, OperationKind.ASSESSMENT, NIGHT, None)
    outcome = Outcome(machines=(), places={7: 0, 8: 1}, begins=BEGINS, ends=ENDS, ledger=ledger)
    assert sorted(works_of(outcome), key=lambda work: work.machine) == [
        Work(0, NIGHT, NIGHT + timedelta(minutes=75)),
        Work(1, NIGHT, NIGHT + timedelta(hours=2)),
    ]


# --- the checker sees ---------------------------------------------------------------------------------------------


def test_paired_regions_at_the_same_time() -> None:
    places = [VM, replace(VM, name="two", region="japanwest")]
    assert broken(places, work(0), work(1)) == [Rule.PAIRED_REGIONS]
    assert broken(places, work(0), work(1, NIGHT + timedelta(minutes=19))) == [Rule.PAIRED_REGIONS]
    assert broken(places, work(0), work(1, NIGHT + timedelta(minutes=20))) == []
    places[1] = replace(VM, name="two", region="koreacentral")
    assert broken(places, work(0), work(1)) == []


def test_two_zones_of_a_region_at_the_same_time() -> None:
    places = [replace(VM, zone="1"), replace(VM, name="two", zone="2"), VM, replace(VM, name="four", zone="1")]
    assert broken(places, work(0), work(1)) == [Rule.ZONES]
    assert broken(places, work(0), work(2), work(3)) == []
    assert broken([places[0], replace(places[1], region="eastasia")], work(0), work(1)) == []


def test_two_of_an_availability_set_at_the_same_time() -> None:
    places = fleet(20, availability_set="set")
    assert broken(places, work(0)) == []
    assert broken(places, work(0), work(1)) == [Rule.AVAILABILITY_SET]


@pytest.mark.parametrize(("name", "rule"), [("subscription", Rule.SUBSCRIPTION), ("group", Rule.GROUP)])
def test_a_whole_group_at_the_same_time(name: str, rule: Rule) -> None:
    places = fleet(3, **{name: "all"})
    assert broken(places, work(0), work(1)) == []
    assert broken(places, work(0), work(1), work(2)) == [rule]
    assert broken(fleet(1, **{name: "alone"}), work(0)) == [], "of one machine there is no part"


@pytest.mark.parametrize(
    ("begins", "minutes", "is_well"),
    [
        (datetime(2025, 1, 20, 13, tzinfo=UTC), 60, True),
        (datetime(2025, 1, 20, 12, 59, tzinfo=UTC), 20, False),  # 21:59
        (datetime(2025, 1, 20, 18, 40, tzinfo=UTC), 20, True),  # 03:40 to 04:00
        (datetime(2025, 1, 20, 18, 41, tzinfo=UTC), 20, False),  # runs past 04:00
        (datetime(2025, 1, 20, 3, tzinfo=UTC), 20, False),  # noon
    ],
)
def test_work_outside_off_peak_hours(begins: datetime, minutes: int, is_well: bool) -> None:
    assert broken([VM], work(0, begins, minutes=minutes)) == ([] if is_well else [Rule.OFF_PEAK])


def test_work_on_a_machine_that_nobody_patches_automatically() -> None:
    assert broken([replace(VM, is_automatic=False)], work(0)) == [Rule.UNASKED]


def test_a_reboot_on_the_train_needs_a_baseline_of_its_time_or_a_named_patch() -> None:
    february, may = datetime(2025, 2, 12, 13, tzinfo=UTC), datetime(2025, 5, 2, 13, tzinfo=UTC)
    got = work(0, NIGHT, JANUARY.kb_number, reboots=True)
    assert broken([VM], got, releases=(JANUARY,)) == []
    assert broken([VM], got, work(0, february, FEBRUARY.kb_number, reboots=True), releases=(JANUARY, FEBRUARY)) == [
        Rule.REBOOT
    ]
    named = judged([VM], got, work(0, february, "5054693", reboots=True), releases=(JANUARY, FEBRUARY_LCU))
    assert named.violations == []
    assert named.reboots == {"planned baseline KB5049983": 1, "update KB5054693": 1}
    assert broken([VM], got, work(0, february, reboots=True), releases=(JANUARY,)) == [Rule.REBOOT]
    stale = work(0, may, JANUARY.kb_number, reboots=True)
    assert Rule.REBOOT in broken([VM], got, stale, releases=(JANUARY, APRIL)), (
        "April's is out: January's is none of now"
    )
    unplanned = replace(JANUARY, is_planned=False)
    assert judged([VM], got, releases=(unplanned,)).reboots == {"unplanned baseline KB5049983": 1}


def test_a_machine_taken_off_the_train_and_its_way_back() -> None:
    february = datetime(2025, 2, 20, 13, tzinfo=UTC)
    april = datetime(2025, 4, 10, 13, tzinfo=UTC)
    got = work(0, NIGHT, JANUARY.kb_number, reboots=True)
    lost = work(0, february, FEBRUARY_LCU.kb_number, reboots=True)
    back = work(0, april, APRIL.kb_number, reboots=True)
    found = judged([VM], got, lost, back, releases=(JANUARY, FEBRUARY_LCU, APRIL))
    assert [violation.rule for violation in found.violations] == [Rule.OFF_TRAIN]
    (gone,) = found.excursions
    assert (gone.kb_number, gone.back_by) == (FEBRUARY_LCU.kb_number, APRIL.kb_number)
    missed = judged([VM], lost, back, releases=(JANUARY, FEBRUARY_LCU, APRIL))
    assert {v.rule for v in missed.violations} == {Rule.LATE, Rule.OFF_TRAIN}, (
        "a machine that is due needs its baseline"
    )
    off_train = [replace(VM, has_hotpatch=False)]
    assert judged(off_train, got, lost, back, releases=(JANUARY, FEBRUARY_LCU, APRIL)).violations == []


def test_a_machine_not_patched_within_30_days() -> None:
    out = JANUARY.out_at
    assert broken([VM], releases=(JANUARY,)) == [Rule.LATE]
    assert broken([VM], work(0, NIGHT, JANUARY.kb_number, reboots=True), releases=(JANUARY,)) == []
    late = datetime(2025, 2, 14, 13, tzinfo=UTC)
    assert broken([VM], work(0, late, JANUARY.kb_number, reboots=True), releases=(JANUARY,)) == [Rule.LATE]
    failed = replace(work(0, NIGHT), installs=(Install(JANUARY.kb_number, NIGHT, NIGHT, has_failed=True),))
    assert broken([VM], failed, releases=(JANUARY,)) == [Rule.LATE]
    assert broken([VM], releases=(FEBRUARY_LCU,)) == [], "not for machines on the train"
    assert broken([replace(VM, is_on_train=False)], releases=(FEBRUARY,)) == [], "not for machines off the train"
    assert broken([replace(VM, is_automatic=False)], releases=(JANUARY,)) == []
    for days, rules in ((10, [Rule.LATE]), (20, [])):
        off = [(0, out, out + timedelta(days=days))]
        found = judged([VM], releases=(JANUARY,), off=off)
        assert [violation.rule for violation in found.violations] == rules
    assert found.coverage[0].off == 1
    soon = replace(JANUARY, released_on=date(2025, 5, 13))
    assert broken([VM], releases=(soon,)) == [], "its 30 days are not over at the end"


def test_a_machine_that_is_off_is_due_as_soon_as_a_newer_baseline_is_out() -> None:
    places = [replace(VM, is_on_train=False)]
    early, late = datetime(2025, 1, 8, 13, tzinfo=UTC), datetime(2025, 2, 20, 13, tzinfo=UTC)
    december = Out("ws2022", "5048654", "oob_lcu", date(2025, 1, 7))
    found = judged(places, work(0, early, december.kb_number, reboots=True), releases=(december, JANUARY))
    assert Rule.OFF_TRAIN not in {violation.rule for violation in found.violations}, "it was off before"
    again = work(0, late, FEBRUARY_LCU.kb_number, reboots=True)
    assert Rule.OFF_TRAIN in broken(places, again, releases=(december, JANUARY, FEBRUARY_LCU))
    got = work(0, NIGHT, JANUARY.kb_number, reboots=True)
    stale = work(0, late, december.kb_number, reboots=True)
    assert broken(places, got, stale, releases=(december, JANUARY)) == [], "older than the baseline: it changes nothing"


def test_what_windows_update_gave_to_nobody_is_late_on_no_machine() -> None:
    off = [replace(VM, is_on_train=False)]
    for reach, rules in (("everybody", [Rule.LATE]), ("few", [Rule.LATE]), ("nobody", []), ("unknown", [])):
        out_of_band = Out("ws2022", "5052819", "oob_lcu", date(2025, 1, 10), reach=reach)
        assert broken(off, releases=(out_of_band,)) == rules


# --- its own table ------------------------------------------------------------------------------------------------


def test_the_table_of_the_checker_says_where_a_machine_stands() -> None:
    train = Train(table())
    october = datetime(2025, 10, 26, tzinfo=UTC)
    for line, build, at, is_on in (
        ("ws2025", "26100.6899", october, True),
        ("ws2025", "26100.6508", october, False),  # the hotpatch of September: the baseline is due
        ("ws2025", "26100.6584", october, False),  # the LCU of September
        ("ws2022", "20348.2582", datetime(2024, 8, 12, tzinfo=UTC), True),
        ("ws2022", "20348.2582", datetime(2024, 8, 14, tzinfo=UTC), False),  # August's baseline was not planned
        ("ws2025", "26100.1742", datetime(2024, 9, 1, tzinfo=UTC), False),
    ):
        assert train.stands_on(line, build, at) is is_on, (line, build, at)
    unplanned = [release.kb_number for release in table() if release.kind == "baseline" and not release.is_planned]
    assert unplanned == ["5041160", "5094125", "5122871"]
    few_or_nobody = {release.kb_number: release.reach for release in table() if release.reach in {"few", "nobody"}}
    assert few_or_nobody == {"5070881": "few", "5091157": "nobody", "5129235": "nobody", "5129237": "nobody"}


@pytest.mark.usefixtures("recorded")
def test_the_table_and_the_portals_catalogue_tell_the_same_history() -> None:
    """Two records, written apart. Where they differ, somebody has to look at the sources again."""
    theirs = {(r.product_line.value, r.kb_number): r for r in load_catalogue().facts.releases if r.kb_number}
    ours = {(row.line, row.kb_number): row for row in table()}
    assert theirs.keys() == ours.keys()
    for key, release in theirs.items():
        row = ours[key]
        assert (release.type.value, release.released_on) == (row.kind, row.released_on), key
        assert (release.is_planned is not False) is row.is_planned, key
        assert not release.build or release.build == row.build, key


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("ws2022,2025-01-14,5049983,base,planned,everybody,,somebody", "no kind"),
        ("ws2022,2025-01-14,5049983,baseline,planned,all,,somebody", "no reach"),
        ("ws2022,2025-01-14,5049983,baseline,,everybody,,somebody", "beside"),
        ("ws2022,2025-01-14,5049983,hotpatch,planned,everybody,,somebody", "beside"),
        ("ws2022,2025-01-14,KB5049983,hotpatch,,everybody,,somebody", "source"),
        ("ws2022,2025-01-14,5049983,hotpatch,,everybody,,", "source"),
    ],
)
def test_a_row_that_nobody_understands_is_named(
    row: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = TABLE.read_text().splitlines()[0]
    (tmp_path / "train.csv").write_text(f"{head}\n{row}\n")
    monkeypatch.setattr("simulation.train.TABLE", tmp_path / "train.csv")
    with pytest.raises(ValueError, match=f"line 2.*{word}"):
        table.__wrapped__()


# --- a fleet ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("recorded")
def test_a_fleet_follows_from_its_seed() -> None:
    releases = load_catalogue().facts.releases
    machines = make_machines(2_000, seed=3, begins=date(2025, 1, 1), releases=releases)
    assert machines == make_machines(2_000, seed=3, begins=date(2025, 1, 1), releases=releases)
    assert machines != make_machines(2_000, seed=4, begins=date(2025, 1, 1), releases=releases)
    assert len({machine.region for machine in machines}) == 8
    assert {machine.zone for machine in machines} == {"", "1", "2", "3"}
    assert any(machine.availability_set for machine in machines)
    assert any(machine.group for machine in machines)
    first, last = first_days(date(2025, 1, 1), 12)
    assert (first, last) == (BEGINS, datetime(2026, 1, 1, tzinfo=UTC))
    events = make_events(machines, seed=3, begins=first, ends=last)
    assert events == make_events(machines, seed=3, begins=first, ends=last)
    misfortunes = sum(event.what is Befalling.MISFORTUNE for event in events)
    assert 0.015 < misfortunes / (12 * len(machines)) < 0.025


# --- the real thing -----------------------------------------------------------------------------------------------


def run(vms: int, days: int, seed: int) -> tuple[str, Findings]:
    """A run that begins on the eve of January's Patch Tuesday; it leaves nothing behind."""
    begins = datetime(2025, 1, 14, tzinfo=UTC)
    with transaction.atomic():
        ends = begins + timedelta(days=days)
        outcome = simulate(vms=vms, begins=begins, ends=ends, seed=seed, tell=lambda _words: None)
        assert not Rollout.objects.exclude(status__in=["finished", "running"]).exists()
        transaction.set_rollback(True)
    findings, differences = judge(outcome), judge_days(outcome)
    assert differences == [], "what was kept of each day is what the machines said"
    return words_of(outcome, findings, differences), findings


@pytest.mark.usefixtures("recorded")
def test_a_month_breaks_no_rule() -> None:
    words, findings = run(vms=24, days=31, seed=5)
    assert findings.violations == []
    assert findings.coverage, "January's baselines had their 30 days"
    assert all(row.in_time == row.eligible > 0 for row in findings.coverage)
    assert findings.reboots["planned baseline KB5049983"] > 0
    assert set(findings.per_machine) <= set(range(24))
    assert "planned baseline KB5049983" in words
    with connection.cursor() as cursor:
        cursor.execute("SELECT abs(extract(epoch FROM clock_timestamp() - now())) < 3600, current_schemas(false)")
        assert cursor.fetchone() == (True, ["public"]), "afterwards the database tells its own time again"


@pytest.mark.usefixtures("recorded")
def test_the_same_seed_gives_the_same_report() -> None:
    first, second, other = (run(vms=12, days=2, seed=seed)[0] for seed in (7, 7, 8))
    assert first == second
    assert first != other


@pytest.mark.usefixtures("recorded")
def test_it_refuses_a_database_that_is_in_use() -> None:
    from tests.factories import VirtualMachineFactory

    VirtualMachineFactory()
    with pytest.raises(CommandError, match="without machines"):
        call_command("simulate", "--here", vms=10, months=1, stdout=StringIO(), stderr=StringIO())
    assert VirtualMachine.objects.count() == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"vms": 0},
        {"months": 0},
        {"seed": -1},
        {"begins": "yesterday"},
        {"begins": "2025-01-31"},
        {"record_until": "soon"},
    ],
)
def test_it_says_what_is_wrong_with_an_option(wrong: dict[str, Any]) -> None:
    with pytest.raises(CommandError, match="must be"):
        call_command("simulate", stdout=StringIO(), **wrong)
