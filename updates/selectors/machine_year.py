"""Twelve months of one machine: where it stood, what was done to it, what comes. It needs no query beyond the machine's picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import pairwise

from patching.forecast import MonthForecast, Outlook
from patching.orchestrator import Patcher
from patching.releases import (
    BASELINE_MONTHS,
    END_OF_HOTPATCHING,
    PACIFIC,
    Timetable,
    next_month,
    out_at,
    patch_tuesday,
    timetable,
)
from patching.terms import (
    DUE_WORDS,
    ON_TRACK_WORDS,
    HotpatchTrack,
    OperationKind,
    OperationState,
    RebootStatus,
    ReleaseType,
)
from updates.models import Operation
from updates.selectors.automation import openings_meaning
from updates.selectors.blade import VmPicture
from updates.selectors.words import Judge, Standing

BACK, AHEAD = timedelta(days=91), timedelta(days=274)
MOST_UPCOMING = 8
_SHOWN_WINDOWS = 3
_SHOWN_RELEASES = 2


@dataclass(frozen=True, slots=True)
class Stretch:
    """How long a machine stands somewhere on the train; `is_expected`: if what is due gets installed."""

    start: datetime
    end: datetime
    word: HotpatchTrack
    is_expected: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """Something that was done: at its real time, and where that stands on the clock of the picture."""

    at: datetime
    place: datetime
    kb_numbers: tuple[str, ...] = ()
    operation: Operation | None = None


@dataclass(frozen=True, slots=True)
class NextReboot:
    """The next reboot that is foreseen. `at` None: it is due already, and nobody knows when it comes.

    `window`: the maintenance window that brings it; without one it is the Patch Tuesday from which on it may come.
    """

    month: MonthForecast
    at: datetime | None
    window: str
    days: int


class Coming(StrEnum):
    """What lies before a machine."""

    WINDOW = "window"
    BASELINE = "baseline"  # a Patch Tuesday that brings one, by the rule of the quarters
    HOTPATCH = "hotpatch"
    CUMULATIVE = "cumulative"  # after the end of hotpatching
    ASSESSMENT = "assessment"


@dataclass(frozen=True, slots=True)
class Upcoming:
    """One thing that comes. `days` from today, on the clock that it follows."""

    what: Coming
    at: datetime
    days: int
    name: str = ""


@dataclass(frozen=True)
class MachineYear:
    """A machine's picture, looked at along the time.

    Where its connection has a catalogue date, releases follow that clock (`today`) and everything else the real one: what was done
    stands as long before today as it is, and keeps its real date in words.
    """

    picture: VmPicture

    @property
    def today(self) -> datetime:
        """Now, on the clock of the machine's catalogue."""
        return self.picture.as_of

    @property
    def start(self) -> datetime:
        """Where the picture begins."""
        return self.today - BACK

    @property
    def end(self) -> datetime:
        """Where the picture ends."""
        return self.today + AHEAD

    def place(self, at: datetime) -> datetime:
        """Where a real moment stands on the clock of the picture. One that is not after its today is on that clock already."""
        return at if at <= self.today else at - (self.picture.now - self.today)

    @cached_property
    def known(self) -> Timetable | None:
        """What is known of its product line today."""
        return timetable(self.picture.releases, self.picture.line, self.today) if self.picture.line else None

    # --- where it stood and will stand --------------------------------------------------------------------------

    @cached_property
    def stretches(self) -> tuple[Stretch, ...]:
        """Its track from the beginning to the end of the picture, without gaps."""
        return tuple(_joined([*self._past(), *self._ahead()]))

    def _past(self) -> Iterator[Stretch]:
        installed = [(self.place(row.installed_on), row.kb_number) for row in self.picture.installed]
        releases = {} if self.known is None else self.known.by_kb
        moments = {self.start, self.today}
        moments |= {at for at, _kb in installed if self.start < at < self.today}
        moments |= {
            at
            for release in (self.known.out if self.known else ())
            if self.start < (at := out_at(release.released_on)) < self.today
        }
        judge = Judge(self.picture.releases)
        for start, end in pairwise(sorted(moments)):
            kbs = frozenset(kb for at, kb in installed if at <= start)
            # Before the first installation that is known nobody can say where it stood.
            word = HotpatchTrack.UNKNOWN if not kbs & releases.keys() else judge.track(self._standing(kbs), start).track
            yield Stretch(start, end, word)

    def _standing(self, kbs: frozenset[str]) -> Standing:
        return Standing(
            eligibility=self.picture.eligibility,
            is_hotpatch_enabled=self.picture.vm.enable_hotpatching,
            installed_kbs=kbs,
            is_list_complete=self.picture.is_list_complete,
            os_build="",
            is_reboot_pending=False,
            was_assessed=True,
            is_ready=True,
        )

    def _ahead(self) -> Iterator[Stretch]:
        word, track = self.picture.track_word, self.picture.track
        turn, then = self.end, word
        if word in ON_TRACK_WORDS and self.picture.patcher.patcher is Patcher.NOBODY:
            turn, then = next(self._baselines(), self.end), HotpatchTrack.BASELINE_DUE
        elif word in DUE_WORDS and self.picture.patcher.patcher is not Patcher.NOBODY:
            turn, then = self._first_window(self.today)[0] or self.today, HotpatchTrack.ON_TRACK
        elif word is HotpatchTrack.OFF_TRACK_SINCE_KB and track.back_on_track:
            turn, then = patch_tuesday(track.back_on_track), HotpatchTrack.ON_TRACK
        last = END_OF_HOTPATCHING.get(self.picture.line) if self.picture.line else None
        over = min(patch_tuesday(next_month(last)) if last else self.end, self.end)
        turn = min(turn, over)
        yield Stretch(self.today, turn, word, is_expected=True)
        yield Stretch(turn, over, then, is_expected=True)
        yield Stretch(over, self.end, HotpatchTrack.NOT_ON_TRAIN, is_expected=True)

    def _baselines(self) -> Iterator[datetime]:
        """When the baselines ahead come: the planned ones by the rule, unplanned ones that are announced."""
        unplanned = {
            release.month
            for release in (self.known.announced if self.known else ())
            if release.type is ReleaseType.BASELINE
        }
        for month in self._months():
            if month in unplanned or _brings(self, month) is Coming.BASELINE:
                yield patch_tuesday(month)

    def _months(self) -> Iterator[date]:
        """The months whose Patch Tuesday is still to come in the picture."""
        month = self.today.astimezone(PACIFIC).date().replace(day=1)
        while patch_tuesday(month) < self.end:
            if patch_tuesday(month) > self.today:
                yield month
            month = next_month(month)

    # --- what was done and what comes ---------------------------------------------------------------------------

    @cached_property
    def installations(self) -> tuple[Done, ...]:
        """What was installed, by the moment; with the run of the last 30 days where the portal did it."""
        runs = {operation.pk: operation for operation in self.picture.operations}
        found: dict[datetime, list[str]] = {}
        run_at: dict[datetime, Operation] = {}
        for row in self.picture.installed:
            found.setdefault(row.installed_on, []).append(row.kb_number)
            if row.operation_id in runs:
                run_at[row.installed_on] = runs[row.operation_id]
        return tuple(
            Done(at, self.place(at), tuple(sorted(kb for kb in kbs if kb)), run_at.get(at))
            for at, kbs in sorted(found.items())
        )

    @property
    def failures(self) -> tuple[Done, ...]:
        """The installations and rollbacks of the last 30 days that failed."""
        return tuple(
            Done(row.finished_at, self.place(row.finished_at), operation=row)
            for row in self.picture.operations
            if row.finished_at and row.kind != OperationKind.ASSESSMENT and row.state == OperationState.FAILED
        )

    @property
    def restarts(self) -> tuple[Done, ...]:
        """The restarts of the last 30 days that runs brought."""
        return tuple(
            Done(row.finished_at, self.place(row.finished_at), operation=row)
            for row in self.picture.operations
            if row.finished_at and row.reboot_status == RebootStatus.COMPLETED
        )

    @cached_property
    def windows(self) -> tuple[tuple[str, datetime], ...]:
        """Name and real time of the windows ahead that mean it."""
        now = self.picture.now
        return tuple(openings_meaning(self.picture.vm, after=now, until=now + AHEAD))

    def _first_window(self, after: datetime) -> tuple[datetime | None, str]:
        """The first window beyond a moment of the picture, on its clock."""
        return next(((self.place(at), name) for name, at in self.windows if self.place(at) >= after), (None, ""))

    @cached_property
    def reboots_ahead(self) -> tuple[NextReboot, ...]:
        """The months that will or may bring a reboot, the next first."""
        return tuple(
            self._reboot(month)
            for month in self.picture.year_ahead
            if month.outlook in {Outlook.WILL, Outlook.MAY} and self.picture.last_assessed_at
        )

    @property
    def hindered(self) -> tuple[MonthForecast, ...]:
        """The months to come that would bring a reboot, did nothing hinder it."""
        if not self.picture.last_assessed_at:
            return ()
        return tuple(m for m in self.picture.year_ahead if m.hindrance and patch_tuesday(m.month) > self.today)

    @property
    def next_reboot(self) -> NextReboot | None:
        """The next reboot; None where none is foreseen."""
        return next(iter(self.reboots_ahead), None)

    def _reboot(self, month: MonthForecast) -> NextReboot:
        tuesday = patch_tuesday(month.month)
        from_when = max(tuesday, self.today)
        at, name = self._first_window(from_when)
        if at is None or at - from_when > timedelta(days=31):
            at, name = (tuesday if tuesday > self.today else None), ""
        return NextReboot(month, at, name, _days(self.today, at) if at else 0)

    @cached_property
    def upcoming(self) -> tuple[Upcoming, ...]:
        """What comes next, in order: windows, Patch Tuesdays with what they bring, the next assessment."""
        now, found = self.picture.now, []
        for name, at in self.windows[:_SHOWN_WINDOWS]:
            found.append((self.place(at), Upcoming(Coming.WINDOW, at, _days(now, at), name)))
        for month in [*self._months()][:_SHOWN_RELEASES] if self.picture.line else []:
            at = patch_tuesday(month)
            found.append((at, Upcoming(_brings(self, month), at, _days(self.today, at))))
        if (at := self.picture.next_assessment_at or now) > now:
            found.append((self.place(at), Upcoming(Coming.ASSESSMENT, at, _days(now, at))))
        return tuple(each for _place, each in sorted(found, key=lambda row: row[0])[:MOST_UPCOMING])


def _brings(year: MachineYear, month: date) -> Coming:
    last = END_OF_HOTPATCHING.get(year.picture.line) if year.picture.line else None
    if last is not None and month > last:
        return Coming.CUMULATIVE
    return Coming.BASELINE if month.month in BASELINE_MONTHS else Coming.HOTPATCH


def _days(one: datetime, other: datetime) -> int:
    """How many days later it is, begun ones not counted."""
    return max((other - one).days, 0)


def _joined(stretches: list[Stretch]) -> Iterator[Stretch]:
    """Without what has no length; neighbours of one word are one."""
    held: Stretch | None = None
    for each in stretches:
        if each.start >= each.end:
            continue
        if held and (held.word, held.is_expected) == (each.word, each.is_expected) and held.end == each.start:
            held = Stretch(held.start, each.end, held.word, held.is_expected)
            continue
        if held:
            yield held
        held = each
    if held:
        yield held
