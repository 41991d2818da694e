"""Pictures as inline SVG: the geometry is worked out here, templates/parts/chart_*.html draw it.

Places along a picture are percentages of its width, heights are pixels: a picture fits every width, and its letters keep their
size. Each has a table with the same figures (chart_twin.html), so that nobody has to read it from the drawing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import zip_longest

from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext

PLOT_HEIGHT = 160  # pixels of the columns' space
FEW = 5  # columns whose labels fit side by side on a narrow screen
MANY = 14  # from one more on only the first, the middle and the last column have their label
_LEAST_PIXELS = 2.0  # what is there is seen, however small its share
_LEAST_PERCENT = 0.6
_WIDEST_COLUMN = 12.0
_LABEL_ROOM = 30.0  # percent of the width that the words of a mark need
_MARK_ROOM = 3.2  # percent between two marks of a lane; nearer ones are drawn as one
_TICK_ROOM = 4.0
_NAMED = 5  # marks drawn as one that its words name


class Tone(StrEnum):
    """What a colour says; a word or a shape beside it says the same."""

    PLANNED = "planned"  # ours, planned, running
    CALM = "calm"  # all is well, nothing to do
    DONE = "done"  # installed, on the train
    ATTENTION = "attention"
    FAILED = "failed"
    QUIET = "quiet"
    UNKNOWN = "unknown"  # hatched


class Shape(StrEnum):
    """The shape of a mark; marks of one kind keep theirs in every picture."""

    CIRCLE = "circle"  # an installation
    REBOOT = "reboot"
    SQUARE = "square"  # a maintenance window
    CROSS = "cross"  # a failure
    DIAMOND = "diamond"  # an out-of-band release


def shares(values: Sequence[int], whole: float, least: float) -> tuple[float, ...]:
    """Divide a length in proportion to the values; their sum is `whole`, and what is not 0 gets `least` where that fits."""
    present = sum(1 for value in values if value)
    if not present:
        return (0.0,) * len(values)
    floor = min(least, whole / present)
    lifted: set[int] = set()
    while True:
        rest = whole - floor * len(lifted)
        total = sum(value for place, value in enumerate(values) if place not in lifted)
        small = {p for p, value in enumerate(values) if value and p not in lifted and rest * value / total < floor}
        if not small:
            return tuple(
                floor if place in lifted else rest * value / total if value else 0.0
                for place, value in enumerate(values)
            )
        lifted |= small


def axis_top(largest: int) -> int:
    """The round figure at the top of an axis: 1, 2, 4, 5 or 10 times a power of ten, even where it is halved."""
    power = 1
    while True:
        for step in (2, 4, 10) if power == 1 else (1, 2, 4, 5, 10):
            if largest <= step * power:
                return step * power
        power *= 10


def percent(value: float) -> str:
    """A place or length along a picture."""
    return f"{value:.3f}".rstrip("0").rstrip(".") + "%"


def pixels(value: float) -> str:
    """A place or length down a picture."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def number_words(value: int) -> str:
    """A count with its thousands set apart."""
    return number_format(value, use_l10n=True, force_grouping=True)


def day_words(day: date) -> str:
    """A day without its year, as short as the reader's language writes it."""
    return date_format(day, pgettext("format of a day without its year", "j M"))


def month_words(month: date) -> str:
    """A month as short as the reader's language writes it; a January by its year."""
    if month.month == 1:
        return date_format(month, pgettext("format of a year", "Y"))
    return date_format(month, "M", use_l10n=False)


@dataclass(frozen=True, slots=True)
class Words:
    """What a hover or the keyboard brings up, and where; in the right half it stands left of what it explains."""

    text: str
    x: str
    width: str
    is_late: bool


def words_beside(text: str, left: float, right: float) -> Words:
    """Words about what lies between two places."""
    if left + right > 100:
        return Words(text, "0%", percent(max(right, _LABEL_ROOM)), is_late=True)
    return Words(text, percent(left), percent(max(100 - left, _LABEL_ROOM)), is_late=False)


# --- columns -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Series:
    """One part of each column, the lowest first."""

    label: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class Column:
    """A column: one value for each series; None where nothing is known. `caption` is a second line under its label.

    `words` are its label where there is room (the table, what a hover says), `address` is the page it leads to, `mark` names a
    line drawn before it.
    """

    label: str
    values: tuple[int, ...] | None
    caption: str = ""
    words: str = ""
    address: str = ""
    mark: str = ""

    @property
    def name(self) -> str:
        """Its label in full."""
        return self.words or " ".join(filter(None, (self.label, self.caption)))


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a drawn column that one series has."""

    y: str
    height: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class DrawnColumn:
    """Where a column stands and what it says."""

    column: Column
    x: str
    width: str
    middle: str
    left: str  # of the space that belongs to it
    room: str
    parts: tuple[Part, ...]
    top: str  # the height above which its total stands
    total: str
    says: Words
    is_stop: bool  # the keyboard stops here
    is_labelled: bool
    is_for_wide: bool  # its label has no room on a narrow screen
    is_caption_for_wide: bool
    anchor: str
    is_mark_named: bool
    is_mark_late: bool


@dataclass(frozen=True, slots=True)
class GridLine:
    """A line across the columns with its figure."""

    y: str
    label: str


@dataclass(frozen=True)
class ColumnChart:
    """Columns side by side, stacked where there is more than one series; `head` says what a column is ("Day").

    `is_share`: each column fills the height, and its parts are percentages. `name` is the id of its element. Raises ValueError
    for a column with more or fewer values than there are series, or with a negative one.
    """

    name: str
    title: str
    description: str
    head: str
    series: tuple[Series, ...]
    columns: tuple[Column, ...]
    is_share: bool = False

    def __post_init__(self) -> None:
        for column in self.columns:
            if column.values is not None and (len(column.values) != len(self.series) or min(column.values) < 0):
                msg = f"{column.label}: {column.values} are no values of {len(self.series)} series"
                raise ValueError(msg)

    @property
    def height(self) -> int:
        """The height of the columns' space in pixels."""
        return PLOT_HEIGHT

    @cached_property
    def top(self) -> int:
        """The figure at the top of the axis: percent or a count."""
        return 100 if self.is_share else axis_top(max((sum(c.values or ()) for c in self.columns), default=0))

    @property
    def lines(self) -> tuple[GridLine, ...]:
        """The lines of the axis, the top one first."""
        return tuple(
            GridLine(
                pixels(PLOT_HEIGHT * (1 - part)),
                f"{self.top * part:.0f}%" if self.is_share else number_words(round(self.top * part)),
            )
            for part in (1, 0.5, 0)
        )

    @cached_property
    def drawn(self) -> tuple[DrawnColumn, ...]:
        """The columns with their geometry, from left to right."""
        count = len(self.columns)
        step = 100 / max(count, 1)
        width = min(step * (0.86 if count > MANY else 0.64), _WIDEST_COLUMN)
        named = self._named_marks(step)
        stride = -(-count // 10) if count > MANY else 1
        found = []
        for place, column in enumerate(self.columns):
            middle = (place + 0.5) * step
            parts, top = self._parts(column)
            is_edge = count > MANY and place in {0, count - 1}
            found.append(
                DrawnColumn(
                    column=column,
                    x=percent(middle - width / 2),
                    width=percent(width),
                    middle=percent(middle if not is_edge else middle - width / 2 if place == 0 else middle + width / 2),
                    left=percent(place * step),
                    room=percent(step),
                    parts=parts,
                    top=pixels(top - 6),
                    total=self._total(column),
                    says=words_beside(f"{column.name}: {self._says(column)}", place * step, (place + 1) * step),
                    is_stop=bool(column.mark) or place % stride == 0 or place == count - 1,
                    is_labelled=count <= MANY or place in {0, count // 2, count - 1},
                    is_for_wide=FEW < count <= MANY and place % 2 == 1,
                    is_caption_for_wide=count >= FEW,
                    anchor="middle" if not is_edge else "start" if place == 0 else "end",
                    is_mark_named=place in named,
                    is_mark_late=place * step > 100 - _LABEL_ROOM,
                )
            )
        return tuple(found)

    @property
    def rows(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The table's rows: a column's name and its figures."""
        return tuple(
            (
                " · ".join(filter(None, (column.name, column.mark))),
                tuple(number_words(value) for value in column.values) if column.values else ("–",) * len(self.series),
            )
            for column in self.columns
        )

    def _parts(self, column: Column) -> tuple[tuple[Part, ...], float]:
        values = column.values or ()
        total = sum(values)
        if not total:
            return (), PLOT_HEIGHT
        present = sum(1 for value in values if value)
        height = PLOT_HEIGHT if self.is_share else max(PLOT_HEIGHT * total / self.top, _LEAST_PIXELS * present)
        parts, bottom = [], float(PLOT_HEIGHT)
        for series, length in zip(self.series, shares(values, height, _LEAST_PIXELS), strict=True):
            if length:
                parts.append(Part(pixels(max(bottom - length, 0)), pixels(length), series.tone))
                bottom -= length
        return tuple(parts), bottom

    def _total(self, column: Column) -> str:
        """What stands on a column; shares and crowds of columns have nothing there."""
        if self.is_share or len(self.columns) > MANY or not column.values:
            return ""
        return number_words(sum(column.values))

    def _says(self, column: Column) -> str:
        if column.values is None:
            return _("not recorded")
        if len(self.series) == 1:
            return number_words(column.values[0])
        return " · ".join(
            f"{series.label} {number_words(value)}" for series, value in zip(self.series, column.values, strict=True)
        )

    def _named_marks(self, step: float) -> set[int]:
        """The marks whose words have room: none begins in the words before it."""
        named: set[int] = set()
        free_from = 0.0
        for place, column in enumerate(self.columns):
            start = place * step - (_LABEL_ROOM if place * step > 100 - _LABEL_ROOM else 0)
            if column.mark and start >= free_from:
                named.add(place)
                free_from = start + _LABEL_ROOM
        return named


# --- a bar -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of a bar, and the page that shows what it counts."""

    label: str
    value: int
    tone: Tone
    address: str = ""

    @property
    def words(self) -> str:
        """Its count as people write it."""
        return number_words(self.value)


@dataclass(frozen=True, slots=True)
class DrawnSegment:
    """Where a segment lies."""

    segment: Segment
    x: str
    width: str


@dataclass(frozen=True)
class Bar:
    """A horizontal bar of segments. `whole`: what its full length means, where that is more than their sum.

    `is_legend_shown`: whether the counts stand below it for everybody; else those who do not see the bar hear them. Raises
    ValueError for a negative value.
    """

    name: str
    title: str
    segments: tuple[Segment, ...]
    whole: int = 0
    is_legend_shown: bool = True

    def __post_init__(self) -> None:
        if any(segment.value < 0 for segment in self.segments):
            msg = "a segment of a bar is not negative"
            raise ValueError(msg)

    @property
    def says(self) -> str:
        """All of it in words."""
        return ", ".join(f"{segment.label}: {segment.words}" for segment in self.segments)

    @cached_property
    def drawn(self) -> tuple[DrawnSegment, ...]:
        """The segments that are not empty, from left to right; what is left of the whole stays empty."""
        values = [segment.value for segment in self.segments]
        rest = max(self.whole - sum(values), 0)
        found, x = [], 0.0
        for segment, length in zip(self.segments, shares([*values, rest], 100.0, _LEAST_PERCENT), strict=False):
            if length:
                found.append(DrawnSegment(segment, percent(x), percent(length)))
            x += length
        return tuple(found)


# --- a strip of time ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Span:
    """What holds from one instant to another."""

    start: datetime
    end: datetime
    label: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class Mark:
    """What happens at an instant. `real_at`: the time that its words name, where the strip follows another clock."""

    at: datetime
    label: str
    shape: Shape
    tone: Tone
    address: str = ""
    real_at: datetime | None = None

    @property
    def told(self) -> datetime:
        """When it happens, in words."""
        return self.real_at or self.at


@dataclass(frozen=True, slots=True)
class Lane:
    """One row of a strip: spans, marks or both."""

    label: str
    spans: tuple[Span, ...] = ()
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True)
class DrawnSpan:
    """Where a span lies. `is_named`: it is long enough for its words."""

    span: Span
    x: str
    width: str
    says: Words
    is_named: bool


@dataclass(frozen=True, slots=True)
class DrawnMark:
    """Where a mark stands, or the first of several that are too near to be told apart."""

    marks: tuple[Mark, ...]
    x: str
    says: Words

    @property
    def first(self) -> Mark:
        """The mark whose shape is drawn."""
        return self.marks[0]


@dataclass(frozen=True, slots=True)
class DrawnLane:
    """A lane with its geometry; `y` is its top in pixels."""

    lane: Lane
    y: int
    spans: tuple[DrawnSpan, ...]
    marks: tuple[DrawnMark, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """A line down the strip with its words."""

    at: datetime
    label: str
    is_major: bool = False  # has its words on a narrow screen, too


@dataclass(frozen=True, slots=True)
class DrawnTick:
    """Where a tick stands."""

    tick: Tick
    x: str
    has_words: bool


LANE_HEIGHT = 28


@dataclass(frozen=True)
class Strip:
    """Lanes of spans and marks over one stretch of time. Spans and marks outside of that time are neither drawn nor in the table.

    Raises ValueError if it ends before it starts.
    """

    name: str
    title: str
    description: str
    start: datetime
    end: datetime
    lanes: tuple[Lane, ...]
    ticks: tuple[Tick, ...] = ()
    now: datetime | None = None

    def __post_init__(self) -> None:
        if self.end <= self.start:
            msg = f"a strip from {self.start} to {self.end} has no length"
            raise ValueError(msg)

    @property
    def height(self) -> int:
        """The height of the lanes in pixels."""
        return LANE_HEIGHT * len(self.lanes)

    @property
    def now_x(self) -> str:
        """Where now is; empty where that is not in the strip."""
        return percent(self._x(self.now)) if self.now and self.start <= self.now <= self.end else ""

    @property
    def is_now_late(self) -> bool:
        """Whether the word for now stands left of its line."""
        return self.now is not None and self._x(self.now) > 90

    @cached_property
    def drawn(self) -> tuple[DrawnLane, ...]:
        """The lanes, from top to bottom."""
        return tuple(
            DrawnLane(lane, LANE_HEIGHT * place, self._spans(lane), self._marks(lane))
            for place, lane in enumerate(self.lanes)
        )

    @property
    def drawn_ticks(self) -> tuple[DrawnTick, ...]:
        """The ticks in the strip; one too near at the end has no words."""
        return tuple(
            DrawnTick(tick, percent(self._x(tick.at)), self._x(tick.at) <= 100 - _TICK_ROOM)
            for tick in self.ticks
            if self.start <= tick.at < self.end
        )

    @property
    def rows(self) -> tuple[tuple[Lane, datetime, datetime | None, str], ...]:
        """The table's rows, the earliest first: lane, when (until when), what."""
        found: list[tuple[Lane, datetime, datetime | None, str]] = []
        for lane in self.lanes:
            found += [(lane, span.start, span.end, span.label) for span, _s, _e in self._clipped(lane)]
            found += [(lane, mark.told, None, mark.label) for mark in self._inside(lane)]
        return tuple(sorted(found, key=lambda row: row[1]))

    def _x(self, at: datetime) -> float:
        return 100 * ((at - self.start) / (self.end - self.start))

    def _inside(self, lane: Lane) -> list[Mark]:
        return sorted((m for m in lane.marks if self.start <= m.at <= self.end), key=lambda mark: mark.at)

    def _clipped(self, lane: Lane) -> list[tuple[Span, datetime, datetime]]:
        """The spans as far as they are in the strip; one ends where the next begins."""
        ordered = sorted(lane.spans, key=lambda span: span.start)
        found = []
        for span, following in zip_longest(ordered, ordered[1:]):
            start = max(span.start, self.start)
            end = min(span.end, self.end, *([following.start] if following else []))
            if start < end:
                found.append((span, start, end))
        return found

    def _spans(self, lane: Lane) -> tuple[DrawnSpan, ...]:
        return tuple(
            DrawnSpan(
                span,
                percent(self._x(start)),
                percent(self._x(end) - self._x(start)),
                words_beside(
                    f"{lane.label}: {span.label} ({_day(span.start)} – {_day(span.end)})", self._x(start), self._x(end)
                ),
                self._x(end) - self._x(start) >= _LABEL_ROOM / 2,
            )
            for span, start, end in self._clipped(lane)
        )

    def _marks(self, lane: Lane) -> tuple[DrawnMark, ...]:
        groups: list[list[Mark]] = []
        for mark in self._inside(lane):
            if groups and self._x(mark.at) - self._x(groups[-1][0].at) < _MARK_ROOM:
                groups[-1].append(mark)
            else:
                groups.append([mark])
        return tuple(
            DrawnMark(
                tuple(group),
                percent(self._x(group[0].at)),
                words_beside(f"{lane.label}: {_several(group)}", self._x(group[0].at), self._x(group[0].at)),
            )
            for group in groups
        )


def _several(marks: Sequence[Mark]) -> str:
    words = [f"{_day(mark.told)} {mark.label}" for mark in marks[:_NAMED]]
    more = len(marks) - _NAMED
    if more > 0:
        words.append(ngettext("and %(count)s more", "and %(count)s more", more) % {"count": number_words(more)})
    return ", ".join(words)


def _day(at: datetime) -> str:
    return timezone.localtime(at).date().isoformat()


def month_ticks(start: datetime, end: datetime) -> tuple[Tick, ...]:
    """The first instant of each month between two instants, on the reader's clock; each third one is a major tick."""
    return tuple(
        Tick(at, month_words(at.date()), is_major=at.month % 3 == 1)
        for at in _month_starts(timezone.localtime(start), end)
    )


def _month_starts(at: datetime, end: datetime) -> Iterable[datetime]:
    first = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    while True:
        first = (first + timedelta(days=32)).replace(day=1)
        if first >= end:
            return
        yield first
