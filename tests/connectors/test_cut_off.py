"""A portal whose record ends too early, and machines that are offered everything: none is taken off the train, none starves.

The record is cut off after every month of 2024 to 2026. From then on the machines go through every release day of the recorded
history; the portal judges by what it has on record and by what the machine tells. Where the machines stand in truth is worked
out here, from what they received, and not by the rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from functools import cached_property, lru_cache

import pytest

from connectors.catalogue import Catalogue
from connectors.simulator.machines import Machines
from connectors.simulator.windows_update import Machine, WindowsUpdate
from patching.release_files import patch_of_release
from patching.releases import Timetable, next_month, release_order, timetable
from patching.selection import Guard, guard_on, select
from patching.terms import (
    HOTPATCH_TYPES,
    LCU_TYPES,
    Audience,
    Channel,
    Classification,
    InstallationPlan,
    InstalledUpdate,
    Patch,
    ProductLine,
    Release,
    ReleaseType,
)
from patching.track import judge_track_on
from tests.connectors.catalogue import recorded

# How the doors ask: by class (wizard, window, rollout), or by naming what the machines lack (automatic patching).
BY_CLASS = InstallationPlan(classifications=frozenset(Classification))
LISTS = ("complete", "partial", "empty")
KINDS = ("up to date", "one of the few", "baseline missed", "took an lcu", "without vbs")


def cut_offs() -> Iterator[date]:
    """The first day that the record does not reach, for every month of 2024 to 2026 in which it ends."""
    month = date(2024, 1, 1)
    while month <= date(2026, 11, 1):
        month = next_month(month)
        yield month


@lru_cache(maxsize=2)
def world(is_harsh: bool) -> Catalogue:
    """Everything that came. What nobody recorded the KB of has one here, since Windows Update knows it.

    Harsh: every out-of-band update comes through Windows Update, to everybody.
    """
    releases = []
    for number, release in enumerate(recorded().releases):
        made = (
            release
            if release.kb_number or release.is_scheduled
            else replace(release, kb_number=str(9_900_000 + number))
        )
        if is_harsh and made.type is ReleaseType.OOB_LCU:
            made = replace(made, channel=Channel.WINDOWS_UPDATE, audience=Audience.EVERYBODY)
        releases.append(made)
    others = tuple(patch for patch in recorded().patches if patch.release_type is None)
    made_patches = tuple(patch for release in releases if (patch := patch_of_release(release)) is not None)
    return Catalogue(tuple(releases), (*others, *made_patches))


@dataclass
class Setting:
    """A product line under a portal whose record ends before `cut`, with all that came after it."""

    line: ProductLine
    cut: date
    is_harsh: bool
    _timetables: dict[datetime, Timetable] = field(default_factory=dict)

    @cached_property
    def record(self) -> Catalogue:
        """What the portal has on record: as it was recorded, gaps and all."""
        everything = world(self.is_harsh)
        kept = {(r.product_line, r.kb_number) for r in recorded().releases if r.kb_number}
        releases = tuple(
            release if (release.product_line, release.kb_number) in kept else replace(release, kb_number="")
            for release in everything.releases
            if release.released_on < self.cut
        )
        known = {f"{release.product_line}:{release.kb_number}" for release in releases}
        patches = tuple(p for p in everything.patches if p.release_type is None or p.key in known)
        return Catalogue(releases, patches)

    @cached_property
    def updates(self) -> WindowsUpdate:
        return WindowsUpdate(world=world(self.is_harsh), recorded=self.record)

    @cached_property
    def history(self) -> list[Release]:
        """All that came for the line, the oldest first."""
        return [r for r in self.updates.releases(self.line) if not r.is_scheduled]

    def timetable(self, moment: datetime) -> Timetable:
        """What the portal knows of the line then."""
        if moment not in self._timetables:
            self._timetables[moment] = timetable(self.record.releases, self.line, moment)
        return self._timetables[moment]

    def is_off(self, machine: Machine, moment: datetime) -> bool:
        """Whether a cumulative update newer than the newest baseline that is out runs on it: the truth."""
        out = [r for r in self.history if _noon(r.released_on) <= moment]
        base = max((r for r in out if r.type is ReleaseType.BASELINE), key=release_order)
        return any(
            r.type in LCU_TYPES and r.kb_number in machine.kbs and release_order(r) > release_order(base) for r in out
        )


@dataclass
class Story:
    """One machine with hotpatch in this setting, and how much of its KBs the portal is told."""

    setting: Setting
    kind: str
    list_is: str

    def at_first(self) -> Machine | None:
        """The machine as the record ends; None: this kind does not exist then."""
        before = [r for r in self.setting.history if r.released_on < self.setting.cut]
        baselines = [r for r in before if r.type is ReleaseType.BASELINE]
        if not baselines:
            return None
        base = baselines[-1]
        on_it = [r for r in before if r.type in HOTPATCH_TYPES and release_order(r) > release_order(base)]
        installed = [base, *on_it[-1:]]
        if self.kind == "baseline missed":
            if len(baselines) < 2:
                return None
            installed = [baselines[-2]]
        if self.kind == "took an lcu":
            lcus = [r for r in before if r.type is ReleaseType.LCU and release_order(r) > release_order(base)]
            if not lcus:
                return None
            installed.append(lcus[-1])
        patches = [self.setting.updates.world.patch_for(release) for release in installed]
        build = max((self.setting.updates.build_of(r) for r in installed), key=lambda b: int(b.split(".")[1]))
        return Machine(
            line=self.setting.line,
            takes_hotpatches=self.kind != "without vbs",
            is_among_few=self.kind == "one of the few",
            installed=tuple(
                InstalledUpdate(self.setting.updates.told(p), _noon(self.setting.cut)) for p in patches if p is not None
            ),
            os_build=build,
            is_reboot_pending=False,
        )

    def guard(self, machine: Machine, known: frozenset[str], moment: datetime) -> Guard:
        """The portal's guard by its record. Of the machine it knows the build, and as much of its KBs as its list holds."""
        listed = {"complete": machine.kbs, "partial": known & machine.kbs, "empty": frozenset()}[self.list_is]
        known_then = self.setting.timetable(moment)
        verdict = judge_track_on(
            known_then,
            is_hotpatch_on=True,
            installed_kbs=listed,
            os_build=machine.os_build,
            is_list_complete=self.list_is == "complete",
            is_reboot_pending=False,
        )
        return guard_on(verdict, known_then)


def _noon(day: date) -> datetime:
    """Noon in Seattle or a little before: what is released on this day is out."""
    return datetime.combine(day, time(19), UTC)


def live(story: Story, counts: Counter[str]) -> None:
    """Let the portal patch the machine on every release day after its record has ended, and look at it each time."""
    machine = story.at_first()
    if machine is None:
        return
    counts["machines"] += 1
    machines = Machines(story.setting.updates, seed=1)
    known: frozenset[str] = frozenset()  # the KBs that runs have reported: all that Azure tells
    was_off = story.setting.is_off(machine, _noon(story.setting.cut))
    for released_on in sorted({r.released_on for r in story.setting.history if r.released_on >= story.setting.cut}):
        moment = _noon(released_on)
        held: dict[str, bool] = {}
        for _again in range(3):  # a baseline, and the hotpatch on it
            offers = story.setting.updates.offers(machine, moment)
            guard = story.guard(machine, known, moment)
            selected = [verdict.patch for verdict in select(offers, BY_CLASS, guard=guard).selected]
            named = replace(BY_CLASS, classifications=frozenset(), kb_numbers_to_include=_kbs(offers))
            assert [v.patch for v in select(offers, named, guard=guard).selected] == selected, (
                "every door takes the same"
            )
            has_baseline = guard.is_baseline_among(offers)
            holds = {p.kb_number: guard.holds(p, is_baseline_offered=has_baseline) for p in offers if p not in selected}
            held = {kb_number: hold is not None and hold.needs_decision for kb_number, hold in holds.items()}
            if not selected:
                break
            counts["presumed baselines"] += sum(guard.presumes(patch) for patch in selected)
            known |= frozenset(patch.kb_number for patch in selected)
            machine = machines.after_run(
                machine,
                [InstalledUpdate(patch, moment) for patch in selected],
                has_rebooted=True,
                is_reboot_outstanding=False,
            )
        is_off = story.setting.is_off(machine, moment)
        assert was_off or not is_off, f"{story.kind}, {story.list_is}: taken off on {released_on}"
        was_off = is_off
        _look_at_baseline(story, machine, released_on, held, counts)
        counts["looks"] += 1


def _look_at_baseline(
    story: Story, machine: Machine, released_on: date, held: dict[str, bool], counts: Counter[str]
) -> None:
    """A planned baseline of this day is taken; an unplanned one is taken, or stands as a decision."""
    for release in story.setting.history:
        if release.released_on != released_on or release.type is not ReleaseType.BASELINE:
            continue
        is_taken = release.kb_number in machine.kbs
        words = f"{story.kind}, {story.list_is}: {release.month:%Y-%m} KB{release.kb_number}"
        if release.is_planned is not False:
            assert is_taken, f"a planned baseline is not taken: {words}"
            counts["planned baselines taken"] += 1
        elif is_taken:
            counts["unplanned baselines taken"] += 1
        else:
            assert held.get(release.kb_number), f"an unplanned baseline neither taken nor asked about: {words}"
            counts["unplanned baselines asked about"] += 1


def _kbs(offers: tuple[Patch, ...]) -> tuple[str, ...]:
    return tuple(patch.kb_number for patch in offers)


@pytest.mark.parametrize("cut", list(cut_offs()), ids=lambda day: f"before {day:%Y-%m}")
@pytest.mark.parametrize("line", ProductLine)
def test_no_machine_is_taken_off_and_none_starves(line: ProductLine, cut: date) -> None:
    counts: Counter[str] = Counter()
    for is_harsh in (False, True):
        setting = Setting(line, cut, is_harsh)
        for kind in KINDS:
            for list_is in LISTS:
                live(Story(setting, kind, list_is), counts)
    releases = world(is_harsh=False).releases
    came_later = any(r.product_line is line and r.released_on >= cut and not r.is_scheduled for r in releases)
    assert counts["looks"] > 0 or counts["machines"] == 0 or not came_later, "nobody looked"


def test_an_answered_decision_lets_the_unplanned_baseline_in() -> None:
    """August 2024 in a portal whose record ends in July: asked about, answered "baseline", taken; as "LCU" it stays held."""
    setting = Setting(ProductLine.WS2022, date(2024, 8, 1), is_harsh=False)
    story = Story(setting, "up to date", "complete")
    machine, moment = story.at_first(), _noon(date(2024, 8, 13))
    assert machine is not None
    (patch,) = [p for p in setting.updates.offers(machine, moment) if p.kb_number == "5041160"]
    hold = story.guard(machine, frozenset(), moment).holds(patch)
    assert hold is not None
    assert hold.needs_decision
    (truth,) = [release for release in setting.history if release.kb_number == "5041160"]
    for kind, is_taken in ((ReleaseType.BASELINE, True), (ReleaseType.LCU, False), (ReleaseType.OOB_LCU, False)):
        answered = replace(truth, type=kind, is_planned=False if kind is ReleaseType.BASELINE else None)
        told = Setting(setting.line, setting.cut, setting.is_harsh)
        known = (*setting.record.patches, replace(patch, release_type=kind))
        told.record = Catalogue((*setting.record.releases, answered), known)
        guard = Story(told, story.kind, story.list_is).guard(machine, frozenset(), moment)
        selected = select(told.updates.offers(machine, moment), BY_CLASS, guard=guard).selected
        assert ("5041160" in {verdict.patch.kb_number for verdict in selected}) is is_taken, kind
        hold = guard.holds(patch)
        assert (hold is None) is is_taken, kind
        assert hold is None or not hold.needs_decision, "it has been decided"
