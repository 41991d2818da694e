"""When a maintenance window opens: Azure's recurrence texts, wall clocks of Windows time zones, and off-peak hours.

Wall-clock times follow daylight saving: a time that a clock skips is taken the length of the gap later, a time that comes
twice is taken the first time.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from itertools import islice
from zoneinfo import ZoneInfo

from tzlocal.windows_tz import tz_win, win_tz

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ORDINALS = ("First", "Second", "Third", "Fourth", "Last")
# Azure takes -6 to 6; this portal takes more, for windows weeks after Patch Tuesday.
MOST_OFFSET = 27
MOST_EVERY = {"day": 366, "week": 52, "month": 36}
MIN_DURATION, MAX_DURATION = timedelta(minutes=90), timedelta(minutes=235)
OFF_PEAK_BEGINS, OFF_PEAK_ENDS = time(22), time(4)


class RecurrenceProblem(StrEnum):
    """What is wrong with a text that is no recurrence."""

    BAD_HEAD = "bad_head"
    BAD_NUMBER = "bad_number"
    SURPLUS = "surplus"
    BAD_WEEKDAY = "bad_weekday"
    DAYS_MISSING = "days_missing"
    BAD_DAY = "bad_day"
    BAD_ORDINAL = "bad_ordinal"
    WEEKDAY_MISSING = "weekday_missing"
    BAD_OFFSET = "bad_offset"


class RecurrenceError(ValueError):
    """The text is no recurrence; `entry` is the part that is wrong."""

    def __init__(self, problem: RecurrenceProblem, entry: str = "") -> None:
        super().__init__(f"{problem}: {entry}")
        self.problem, self.entry = problem, entry


P = RecurrenceProblem


class Frequency(StrEnum):
    """What a recurrence counts in."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A parsed recurrence. A month has either `days` (1 to 31) or `ordinal` + `weekday` (+ `offset` in days)."""

    frequency: Frequency
    every: int = 1
    weekdays: tuple[int, ...] = ()  # Monday is 0
    days: tuple[int, ...] = ()
    ordinal: str = ""
    weekday: int = 0
    offset: int = 0

    def __str__(self) -> str:
        unit = self.frequency.value.capitalize()
        head = unit if self.every == 1 else f"{self.every}{unit}s"
        if self.weekdays:
            return f"{head} {','.join(WEEKDAYS[day] for day in self.weekdays)}"
        if self.days:
            return f"{head} {','.join(f'day{day}' for day in self.days)}"
        if self.ordinal:
            tail = f" Offset{self.offset}" if self.offset else ""
            return f"{head} {self.ordinal} {WEEKDAYS[self.weekday]}{tail}"
        return head


_HEAD = re.compile(r"(\d{0,3}) ?(day|week|month)s?$", re.IGNORECASE)
_OFFSET = re.compile(r"offset ?([+-]?\d{1,2})$", re.IGNORECASE)
_DAY = re.compile(r"day ?(\d{1,2})$", re.IGNORECASE)


def parse_recurrence(text: str) -> Recurrence:
    """Parse recurEvery: `Day`, `3Days`, `Week Saturday,Sunday`, `Month day23,day24`, `Month Last Sunday Offset-3`.

    Case and surplus spaces do not matter. Raises RecurrenceError naming what is wrong.
    """
    words = text.split()
    if len(words) > 1 and words[0].isdigit():
        words[:2] = [words[0] + words[1]]
    head = _HEAD.match(words[0]) if words else None
    if head is None:
        raise RecurrenceError(P.BAD_HEAD, words[0] if words else "")
    frequency, every = Frequency(head[2].lower()), int(head[1] or 1)
    if not 1 <= every <= MOST_EVERY[frequency.value]:
        raise RecurrenceError(P.BAD_NUMBER, str(every))
    rest = words[1:]
    if frequency is Frequency.DAY:
        if rest:
            raise RecurrenceError(P.SURPLUS, " ".join(rest))
        return Recurrence(frequency, every)
    if frequency is Frequency.WEEK:
        names = [name for name in "".join(rest).split(",") if name]
        return Recurrence(frequency, every, weekdays=tuple(sorted({_weekday(name) for name in names})))
    if not rest:
        raise RecurrenceError(P.DAYS_MISSING)
    if _DAY.match(rest[0].split(",")[0]):
        return Recurrence(frequency, every, days=_days("".join(rest)))
    return _nth_weekday(every, rest)


def _weekday(name: str) -> int:
    for number, full in enumerate(WEEKDAYS):
        if name.lower() in {full.lower(), full[:3].lower()}:
            return number
    raise RecurrenceError(P.BAD_WEEKDAY, name)


def _days(text: str) -> tuple[int, ...]:
    found = set()
    for part in text.split(","):
        match = _DAY.match(part)
        if match is None or not 1 <= int(match[1]) <= 31:
            raise RecurrenceError(P.BAD_DAY, part)
        found.add(int(match[1]))
    return tuple(sorted(found))


def _nth_weekday(every: int, rest: list[str]) -> Recurrence:
    ordinal = rest[0].capitalize()
    if ordinal not in ORDINALS:
        raise RecurrenceError(P.BAD_ORDINAL, rest[0])
    if len(rest) < 2:
        raise RecurrenceError(P.WEEKDAY_MISSING, ordinal)
    offset = 0
    if len(rest) > 2:
        match = _OFFSET.match("".join(rest[2:]))
        if match is None:
            raise RecurrenceError(P.BAD_OFFSET, " ".join(rest[2:]))
        offset = int(match[1])
        if abs(offset) > MOST_OFFSET:
            raise RecurrenceError(P.BAD_OFFSET, " ".join(rest[2:]))
    return Recurrence(Frequency.MONTH, every, ordinal=ordinal, weekday=_weekday(rest[1]), offset=offset)


# --- wall clocks -------------------------------------------------------------------------------------------------


def zone_of(windows_id: str) -> ZoneInfo:
    """The zone that Windows calls by this name. Raises KeyError if there is none."""
    return ZoneInfo(win_tz[windows_id])


def windows_zones() -> tuple[str, ...]:
    """Every Windows time zone id, sorted."""
    return tuple(sorted(win_tz))


def windows_name(zone: str) -> str:
    """What Windows calls the zone of this IANA name; UTC if it has no name for it."""
    return tz_win.get(zone, "UTC")


def instant_of(wall: datetime, zone: ZoneInfo) -> datetime:
    """The instant (UTC) at which this zone's clocks show the naive `wall`.

    Skipped by the clock: that much later, as the clock then shows. Shown twice: the first time.
    """
    return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)


def occurrences(recurrence: Recurrence, *, start: datetime, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """The instants (UTC) at which a window opens, beyond `after`; the first is never before the naive `start`.

    `start` gives the time of day, and where counting begins. Ends in the year 9999.
    """
    for day in _dates(recurrence, start.date(), after.astimezone(zone).date() - timedelta(days=MOST_OFFSET + 2)):
        if day < start.date():
            continue
        instant = instant_of(datetime.combine(day, start.time()), zone)
        if instant > after:
            yield instant


def next_occurrences(
    recurrence: Recurrence,
    *,
    start: datetime,
    zone: ZoneInfo,
    after: datetime,
    count: int,
    until: datetime | None = None,
) -> list[datetime]:
    """The next `count` of them, none at or after `until`."""
    found = islice(occurrences(recurrence, start=start, zone=zone, after=after), count)
    return [instant for instant in found if until is None or instant < until]


def _dates(recurrence: Recurrence, start: date, not_before: date) -> Iterator[date]:
    """Every date of a recurrence, ascending, from about `not_before` on."""
    try:
        if recurrence.frequency is Frequency.MONTH:
            yield from _monthly(recurrence, start, not_before)
            return
        period = recurrence.every * (7 if recurrence.frequency is Frequency.WEEK else 1)
        first = start - timedelta(days=start.weekday()) if recurrence.weekdays else start
        skipped = max(0, (not_before - first).days // period)
        first += timedelta(days=skipped * period)
        shifts = recurrence.weekdays or (0,)
        while True:
            yield from (first + timedelta(days=shift) for shift in shifts)
            first += timedelta(days=period)
    except OverflowError:
        return


def _monthly(recurrence: Recurrence, start: date, not_before: date) -> Iterator[date]:
    # One turn earlier: an offset may lead from the month before into the start's.
    number = start.year * 12 + start.month - 1 - recurrence.every
    behind = (not_before.year * 12 + not_before.month - 1) - number - 1
    number += max(0, behind // recurrence.every) * recurrence.every
    while number < 10_000 * 12:
        year, month = divmod(number, 12)
        yield from _days_of_month(recurrence, year, month + 1)
        number += recurrence.every


def _days_of_month(recurrence: Recurrence, year: int, month: int) -> Iterator[date]:
    last = calendar.monthrange(year, month)[1]
    if recurrence.days:
        yield from (date(year, month, day) for day in recurrence.days if day <= last)
        return
    first = date(year, month, 1)
    days = [day for day in range(1, last + 1) if (first.weekday() + day - 1) % 7 == recurrence.weekday]
    chosen = days[-1] if recurrence.ordinal == "Last" else days[ORDINALS.index(recurrence.ordinal)]
    yield date(year, month, chosen) + timedelta(days=recurrence.offset)


# --- off-peak ----------------------------------------------------------------------------------------------------


def is_off_peak(
    moment: datetime, zone: ZoneInfo, *, begins: time = OFF_PEAK_BEGINS, ends: time = OFF_PEAK_ENDS
) -> bool:
    """Whether the zone's clocks show off-peak hours: from `begins` up to but not `ends`, over midnight if it is later."""
    shown = moment.astimezone(zone).time()
    if begins <= ends:
        return begins <= shown < ends
    return shown >= begins or shown < ends


def off_peak_left(
    moment: datetime, zone: ZoneInfo, *, begins: time = OFF_PEAK_BEGINS, ends: time = OFF_PEAK_ENDS
) -> timedelta:
    """How much of the off-peak hours is left at this moment; nothing outside of them."""
    if not is_off_peak(moment, zone, begins=begins, ends=ends):
        return timedelta(0)
    shown = moment.astimezone(zone)
    last = shown.date() + timedelta(days=1 if shown.time() >= ends else 0)
    return instant_of(datetime.combine(last, ends), zone) - moment


# An installation begins only while this much is left, and is given all of it but the last part, for a slow reboot.
OFF_PEAK_NEEDED = timedelta(minutes=60)
OFF_PEAK_KEPT = timedelta(minutes=15)


def time_off_peak(
    moment: datetime, zone: ZoneInfo, *, begins: time = OFF_PEAK_BEGINS, ends: time = OFF_PEAK_ENDS
) -> timedelta:
    """How long an installation that begins now may take so that it ends off-peak; nothing if it must not begin."""
    left = off_peak_left(moment, zone, begins=begins, ends=ends)
    return left - OFF_PEAK_KEPT if left >= OFF_PEAK_NEEDED else timedelta(0)


def parse_hours(text: str) -> tuple[time, time]:
    """`22:00-04:00` as two times of day. Raises ValueError naming the text if it is none, or shorter than two hours."""
    match = re.fullmatch(r"(\d\d:\d\d)-(\d\d:\d\d)", text.strip())
    try:
        begins, ends = time.fromisoformat(match[1]), time.fromisoformat(match[2])  # type: ignore[index]  # caught below
    except (TypeError, ValueError):
        raise ValueError(text) from None
    minutes = (ends.hour - begins.hour) * 60 + ends.minute - begins.minute
    if minutes % 1_440 < 120:
        raise ValueError(text)
    return begins, ends
