"""When a maintenance window opens: Azure's recurrence texts, wall clocks of Windows time zones, and off-peak hours.

Wall-clock times follow daylight saving: a time that a clock skips is taken the length of the gap later, a time that comes
twice is taken the first time.
"""

from __future__ import annotations

import calendar
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from tzlocal.windows_tz import tz_win, win_tz

from patching.releases import OFFERED_FROM, PACIFIC, second_tuesday

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ORDINALS = ("First", "Second", "Third", "Fourth", "Last")
# Azure takes -6 to 6; this portal takes more, for windows weeks after Patch Tuesday.
MOST_OFFSET = 27
MOST_EVERY = {"day": 366, "week": 52, "month": 36}
MIN_DURATION, MAX_DURATION = timedelta(minutes=90), timedelta(minutes=235)
OFF_PEAK_BEGINS, OFF_PEAK_ENDS = time(22), time(4)
# The years in which a typed date means something here. Windows are looked for up to the last of these days.
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2100, 12, 31)


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
    NEVER = "never"


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


_WINDOWS_IDS = {name.lower(): name for name in win_tz}


def windows_id(name: str) -> str:
    """How Windows writes the zone of this name, whatever its case. Raises KeyError if there is none."""
    return _WINDOWS_IDS[name.strip().lower()]


def zone_of(name: str) -> ZoneInfo:
    """The zone that Windows calls by this name, whatever its case. Raises KeyError if there is none."""
    return ZoneInfo(win_tz[windows_id(name)])


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


def check_possible(recurrence: Recurrence, start: date) -> None:
    """Raise RecurrenceError (NEVER) if the recurrence has no date from `start` on: February has no 30th."""
    if next(dates_of(recurrence, start, not_before=start), None) is None:
        raise RecurrenceError(P.NEVER, str(recurrence))


def dates_of(recurrence: Recurrence, start: date, *, not_before: date) -> Iterator[date]:
    """Every date of a recurrence, ascending, none before `start` or `not_before`; ends with LAST_DAY.

    Counting begins with `start`. The first date costs no more than a look at each turn up to LAST_DAY.
    """
    start, first = max(start, FIRST_DAY), max(start, not_before)
    for day in _dates(recurrence, start, first):
        if first <= day <= LAST_DAY:
            yield day


def _dates(recurrence: Recurrence, start: date, first: date) -> Iterator[date]:
    """Every date of a recurrence, ascending, from about `first` on; some may be before it."""
    if start > LAST_DAY:
        return
    if recurrence.frequency is Frequency.MONTH:
        yield from _monthly(recurrence, start, first)
        return
    period = recurrence.every * (7 if recurrence.frequency is Frequency.WEEK else 1)
    base = start - timedelta(days=start.weekday()) if recurrence.weekdays else start
    base += timedelta(days=max(0, (first - base).days // period) * period)
    shifts = recurrence.weekdays or (0,)
    while base <= LAST_DAY:
        yield from (base + timedelta(days=shift) for shift in shifts)
        base += timedelta(days=period)


def _monthly(recurrence: Recurrence, start: date, first: date) -> Iterator[date]:
    # One turn earlier: an offset may lead from the month before into the start's.
    number = start.year * 12 + start.month - 1 - recurrence.every
    behind = (first.year * 12 + first.month - 1) - number - 1
    number += max(0, behind // recurrence.every) * recurrence.every
    while number <= LAST_DAY.year * 12 + 12:
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


# --- blackouts ---------------------------------------------------------------------------------------------------


class BlackoutProblem(StrEnum):
    """What is wrong with a line, or a kept value, that is no blackout period."""

    NOT_A_PERIOD = "not_a_period"
    NO_SUCH_DATE = "no_such_date"
    NOT_ORDERED = "not_ordered"
    YEAR_OUT_OF_RANGE = "year_out_of_range"


class BlackoutError(ValueError):
    """The line is no blackout period; `entry` is the part that is wrong."""

    def __init__(self, problem: BlackoutProblem, entry: str) -> None:
        super().__init__(f"{problem}: {entry}")
        self.problem, self.entry = problem, entry


@dataclass(frozen=True, slots=True, order=True)
class Blackout:
    """Days in which no window is open, from the first up to and with the last, on the clock of the configuration."""

    first: date
    last: date

    def begins(self, zone: ZoneInfo) -> datetime:
        """The instant (UTC) at which its first day begins."""
        return instant_of(datetime.combine(self.first, time()), zone)

    def ends(self, zone: ZoneInfo) -> datetime:
        """The instant (UTC) at which the day after its last begins."""
        return instant_of(datetime.combine(self.last + timedelta(days=1), time()), zone)


_PERIOD = re.compile(r"(\d{4}-\d{1,2}-\d{1,2})(?:\s*(?:to|から|[-–—~〜～])\s*(\d{4}-\d{1,2}-\d{1,2}))?", re.IGNORECASE)


def parse_blackouts(text: str) -> tuple[Blackout, ...]:
    """Read one period a line: `2026-12-24 to 2027-01-06`, or one day. Sorted; empty lines say nothing.

    Raises BlackoutError for the first line that is none: another form, a date that is in no calendar, a last day before
    the first, a year outside of FIRST_DAY to LAST_DAY.
    """
    found = []
    for line in unicodedata.normalize("NFKC", text).splitlines():
        if not line.strip():
            continue
        match = _PERIOD.fullmatch(line.strip())
        if match is None:
            raise BlackoutError(BlackoutProblem.NOT_A_PERIOD, line.strip())
        found.append(_period(match[1], match[2] or match[1], line.strip()))
    return tuple(sorted(set(found)))


def blackouts_to_json(blackouts: Iterable[Blackout]) -> list[list[str]]:
    """The periods as they are kept: first and last day of each, in ISO 8601."""
    return [[period.first.isoformat(), period.last.isoformat()] for period in blackouts]


def blackouts_from_json(document: object) -> tuple[Blackout, ...]:
    """The periods that `blackouts_to_json` kept, sorted. Raises BlackoutError for the first that is none."""
    if not isinstance(document, list):
        raise BlackoutError(BlackoutProblem.NOT_A_PERIOD, str(document))
    found = set()
    for entry in document:
        is_pair = isinstance(entry, list) and len(entry) == 2
        if not is_pair or not all(isinstance(day, str) and _ISO_DAY.fullmatch(day) for day in entry):
            raise BlackoutError(BlackoutProblem.NOT_A_PERIOD, str(entry))
        first, last = entry
        found.add(_period(first, last, f"{first} to {last}"))
    return tuple(sorted(found))


_ISO_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def _period(first: str, last: str, entry: str) -> Blackout:
    period = Blackout(_day(first), _day(last))
    if period.last < period.first:
        raise BlackoutError(BlackoutProblem.NOT_ORDERED, entry)
    return period


def _day(text: str) -> date:
    year, month, day = map(int, text.split("-"))
    try:
        found = date(year, month, day)
    except ValueError:
        raise BlackoutError(BlackoutProblem.NO_SUCH_DATE, text) from None
    if not FIRST_DAY <= found <= LAST_DAY:
        raise BlackoutError(BlackoutProblem.YEAR_OUT_OF_RANGE, text)
    return found


def merged(blackouts: Iterable[Blackout]) -> list[Blackout]:
    """The same days in as few periods as possible, ascending: those that touch or overlap are one."""
    found: list[Blackout] = []
    for period in sorted(blackouts):
        if found and period.first <= found[-1].last + timedelta(days=1):
            found[-1] = Blackout(found[-1].first, max(found[-1].last, period.last))
        else:
            found.append(period)
    return found


def time_to_blackout(blackouts: Iterable[Blackout], zone: ZoneInfo, moment: datetime) -> timedelta | None:
    """How long until a blackout begins; zero inside of one, None if none comes any more."""
    for period in merged(blackouts):
        if moment < period.begins(zone):
            return period.begins(zone) - moment
        if moment < period.ends(zone):
            return timedelta(0)
    return None


# --- windows -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """When a window opens and ends (UTC). `blackout`: the period that cuts its end, or keeps it shut (`is_open` False)."""

    opens_at: datetime
    ends_at: datetime
    blackout: Blackout | None = None
    is_open: bool = True


@dataclass(frozen=True, slots=True)
class EarlyMonth:
    """A month whose last window opens before its release (the second Tuesday, 10:00 Pacific) is out."""

    month: date
    opens_at: datetime
    released_at: datetime


@dataclass(frozen=True, slots=True)
class Schedule:
    """When windows open: a recurrence on the wall clock of a zone, its first and last day, its length, its blackouts."""

    recurrence: Recurrence
    start: datetime  # naive, on the clock of `zone`
    zone: ZoneInfo
    duration: timedelta
    expires_on: date | None = None
    blackouts: tuple[Blackout, ...] = ()

    def windows(self, *, after: datetime) -> Iterator[Window]:
        """The windows whose time comes beyond `after`, ascending, as blackouts leave them.

        A window that would open in a blackout is passed over without a word, and the search goes on at the blackout's
        end. One that would run into a blackout ends where the blackout begins; if less than MIN_DURATION of it is left
        it stays shut, and is told with `is_open` False.
        """
        periods = merged(self.blackouts)
        for opens_at in self._openings(after, periods):
            ends_at = opens_at + self.duration
            hit = next((period for period in periods if opens_at < period.begins(self.zone) < ends_at), None)
            if hit is None:
                yield Window(opens_at, ends_at)
            else:
                cut = hit.begins(self.zone)
                yield Window(opens_at, cut, hit, is_open=cut - opens_at >= MIN_DURATION)

    def early_months(self, *, after: datetime, months: int = 24) -> tuple[EarlyMonth, ...]:
        """The months, of the next so many, whose windows all open before that month's release is out.

        Told of monthly recurrences only: a daily or weekly window comes again soon. A window belongs to the month that its
        day is counted in, wherever an offset leads.
        """
        if self.recurrence.frequency is not Frequency.MONTH:
            return ()
        found = []
        shown = after.astimezone(self.zone)
        for number in range(shown.year * 12 + shown.month - 2, shown.year * 12 + shown.month + months):
            month = date(number // 12, number % 12 + 1, 1)
            ahead = (month.year - self.start.year) * 12 + month.month - self.start.month
            if ahead % self.recurrence.every:
                continue
            days = [day for day in _days_of_month(self.recurrence, month.year, month.month) if self._has(day)]
            openings = [instant_of(datetime.combine(day, self.start.time()), self.zone) for day in days]
            released_at = datetime.combine(second_tuesday(month), OFFERED_FROM, PACIFIC).astimezone(UTC)
            if any(opens_at > after for opens_at in openings) and max(openings) < released_at:
                found.append(EarlyMonth(month, max(openings), released_at))
        return tuple(found)

    def _has(self, day: date) -> bool:
        is_over = self.expires_on is not None and day > self.expires_on
        return day >= self.start.date() and not is_over and not any(b.first <= day <= b.last for b in self.blackouts)

    def _openings(self, after: datetime, periods: list[Blackout]) -> Iterator[datetime]:
        not_before: date | None = after.astimezone(self.zone).date() - timedelta(days=2)
        while not_before is not None:
            days = dates_of(self.recurrence, self.start.date(), not_before=not_before)
            not_before = None
            for day in days:
                if self.expires_on is not None and day > self.expires_on:
                    return
                closed = next((period for period in periods if period.first <= day <= period.last), None)
                if closed is not None:
                    not_before = closed.last + timedelta(days=1)
                    break
                instant = instant_of(datetime.combine(day, self.start.time()), self.zone)
                if instant > after:
                    yield instant


# --- off-peak ----------------------------------------------------------------------------------------------------


def is_off_peak(
    moment: datetime, zone: ZoneInfo, *, begins: time = OFF_PEAK_BEGINS, ends: time = OFF_PEAK_ENDS
) -> bool:
    """Whether it is off-peak: from `begins` up to but not `ends` on the zone's clocks, over midnight if it is later."""
    return bool(off_peak_left(moment, zone, begins=begins, ends=ends))


def off_peak_left(
    moment: datetime, zone: ZoneInfo, *, begins: time = OFF_PEAK_BEGINS, ends: time = OFF_PEAK_ENDS
) -> timedelta:
    """How much of the off-peak hours is left at this moment, in real minutes; nothing outside of them.

    They last from the instant at which they begin to the one at which they end: where the clock is put back an hour in
    them they are an hour longer, where it is put forward an hour shorter, and an end that is shown twice is its first.
    """
    today = moment.astimezone(zone).date()
    over_midnight = timedelta(days=1 if ends <= begins else 0)
    for day in (today - timedelta(days=1), today):
        opens_at = instant_of(datetime.combine(day, begins), zone)
        ends_at = instant_of(datetime.combine(day + over_midnight, ends), zone)
        if opens_at <= moment < ends_at:
            return ends_at - moment
    return timedelta(0)


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
