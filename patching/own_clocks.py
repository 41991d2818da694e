"""Windows on the clock of one zone, or on each machine's own: then the same days and hours come once for each clock.

Which clock a machine has is the caller's to know; a machine whose clock nobody knows has no window (docs/rules.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from heapq import merge
from itertools import groupby, takewhile
from zoneinfo import ZoneInfo

from patching.recurrence import Blackout, Recurrence, Schedule, Window, time_to_blackout


@dataclass(frozen=True, slots=True)
class OnClock:
    """A window, and the clock that says when it opens."""

    clock: ZoneInfo
    window: Window

    @property
    def wall(self) -> datetime:
        """When it opens as its clock shows it, naive."""
        return self.window.opens_at.astimezone(self.clock).replace(tzinfo=None)


@dataclass(frozen=True, slots=True)
class DayOfWindows:
    """The windows of one day, one for each clock, the first to open first; of one zone it is one."""

    windows: tuple[OnClock, ...]

    @property
    def first(self) -> OnClock:
        """The window that opens before the others."""
        return self.windows[0]

    @property
    def last(self) -> OnClock:
        """The window that opens after the others."""
        return self.windows[-1]


@dataclass(frozen=True, slots=True)
class Timing:
    """When windows open, on the clock of `zone`; None: on each machine's own. `start` is naive, as that clock shows it.

    `own`, wherever it is asked for: the clocks of the machines that are meant. They count for nothing where there is a zone.
    """

    recurrence: Recurrence
    start: datetime
    zone: ZoneInfo | None
    duration: timedelta
    expires_on: date | None = None
    blackouts: tuple[Blackout, ...] = ()

    def on(self, own: ZoneInfo | None) -> Schedule | None:
        """The schedule of machines with this clock (None: nobody knows it). None: no window ever opens for them."""
        clock = self.zone or own
        if clock is None:
            return None
        return Schedule(self.recurrence, self.start, clock, self.duration, self.expires_on, self.blackouts)

    def schedules(self, own: Iterable[ZoneInfo]) -> tuple[Schedule, ...]:
        """The schedule on each clock that counts, by the names of the clocks."""
        clocks = [self.zone] if self.zone else sorted({clock.key: clock for clock in own}.values(), key=_name)
        return tuple(schedule for clock in clocks if (schedule := self.on(clock)) is not None)

    def days(self, own: Iterable[ZoneInfo], *, after: datetime, is_open_only: bool = False) -> Iterator[DayOfWindows]:
        """The windows whose time comes beyond `after`, by the days on which they open, each on its own clock; ascending.

        `is_open_only`: without those that a blackout keeps shut.
        """
        streams = [_windows(schedule, after, is_open_only) for schedule in self.schedules(own)]
        # Each clock has its days in order, and one window a day at most.
        merged = merge(*streams, key=lambda on: (on.wall.date(), on.window.opens_at, on.clock.key))
        for _day, windows in groupby(merged, key=lambda on: on.wall.date()):
            yield DayOfWindows(tuple(windows))

    def next_opening(self, own: Iterable[ZoneInfo], *, after: datetime) -> OnClock | None:
        """The first window on any of the clocks that opens beyond `after`; None: none ever does."""
        firsts = (next(_windows(schedule, after, True), None) for schedule in self.schedules(own))
        return min((on for on in firsts if on is not None), key=_order, default=None)

    def between(self, own: Iterable[ZoneInfo], *, first: datetime, last: datetime) -> list[OnClock]:
        """The windows whose time comes from `first` up to and with `last`, on any of the clocks, in their order; shut ones, too."""
        found: list[OnClock] = []
        for schedule in self.schedules(own):
            windows = _windows(schedule, first - timedelta(microseconds=1), False)
            found += takewhile(lambda on: on.window.opens_at <= last, windows)
        return sorted(found, key=_order)

    def time_to_blackout(self, own: Iterable[ZoneInfo], moment: datetime) -> timedelta | None:
        """How long until a blackout begins on the first of the clocks; zero inside of one, None if none comes any more."""
        times = (time_to_blackout(self.blackouts, schedule.zone, moment) for schedule in self.schedules(own))
        return min((time for time in times if time is not None), default=None)


def _windows(schedule: Schedule, after: datetime, is_open_only: bool) -> Iterator[OnClock]:
    windows = schedule.windows(after=after)
    return (OnClock(schedule.zone, window) for window in windows if window.is_open or not is_open_only)


def _name(clock: ZoneInfo) -> str:
    return clock.key


def _order(on: OnClock) -> tuple[datetime, str]:
    return on.window.opens_at, on.clock.key
