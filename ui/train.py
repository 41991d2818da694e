"""The hotpatch train as a picture: baselines stand on the ground, the track rises from them, hotpatches ride on it.

A year is drawn by quarters, since each quarter begins with a planned baseline: side by side on a wide screen, one below the other
on a narrow one (templates/parts/train.html). Within a month a moment lies left of its release if it is before it, and right of it
if it is after; the release itself stands in the middle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from itertools import pairwise, zip_longest
from typing import TypeVar

from ui.charts import Words, percent, words_beside

MONTHS_OF_A_QUARTER = 3
_SLOT = 100 / MONTHS_OF_A_QUARTER
_DAY_ROOM = 20.0  # percent of a quarter that the day beside a mark needs
_MARK_ROOM = 3.5  # percent of a quarter between two marks; nearer ones are drawn as one
# Pixels from the top: where baselines stand, where hotpatches ride, and where what is out of band has room.
_GROUND, _TRACK = 124, 58
_ABOVE_TRACK, _OFF_TRACK = 33, 92


class Kind(StrEnum):
    """What a month brings."""

    PLANNED = "planned"  # baseline
    UNPLANNED = "unplanned"  # baseline
    HOTPATCH = "hotpatch"
    CUMULATIVE = "cumulative"  # the line's hotpatching has ended: every month is an ordinary one
    NOTHING = "nothing"  # the line was not there yet


class Certainty(StrEnum):
    """How sure it is."""

    RECORDED = "recorded"
    UNCONFIRMED = "unconfirmed"  # no primary source names the type
    EXPECTED = "expected"  # announced, or by the rule of the quarters
    MISSING = "missing"  # out by the calendar, and not recorded


@dataclass(frozen=True, slots=True)
class Stop:
    """What a month brings, in words: the day, its kind, its name (a KB), its effect (who restarts), all of it in a sentence."""

    starts: datetime  # the month
    ends: datetime
    at: datetime
    kind: Kind
    certainty: Certainty
    day: str
    what: str
    name: str
    effect: str
    says: str
    address: str = ""

    @property
    def is_baseline(self) -> bool:
        """Whether a new base begins here."""
        return self.kind in {Kind.PLANNED, Kind.UNPLANNED}

    @property
    def is_on_ground(self) -> bool:
        """Whether it stands on the ground: it restarts."""
        return self.is_baseline or self.kind is Kind.CUMULATIVE

    @property
    def y(self) -> int:
        """How far down it stands."""
        return _GROUND if self.is_on_ground else _TRACK

    @property
    def is_solid(self) -> bool:
        """Whether it is known well enough for a full colour."""
        return self.certainty in {Certainty.RECORDED, Certainty.UNCONFIRMED}


@dataclass(frozen=True, slots=True)
class Between:
    """An out-of-band release: a hotpatch stays on the track, another one leads off it. `day` stands beside it."""

    at: datetime
    is_hotpatch: bool
    day: str
    says: str
    address: str = ""

    @property
    def y(self) -> int:
        """How far down it stands."""
        return _ABOVE_TRACK if self.is_hotpatch else _OFF_TRACK


@dataclass(frozen=True, slots=True)
class Opening:
    """When a maintenance window opens, in words."""

    at: datetime
    says: str


@dataclass(frozen=True, slots=True)
class Band:
    """A time in which nothing may run, in words with its reason."""

    begins: datetime
    ends: datetime
    says: str
    address: str


Row = TypeVar("Row", Between, Opening)


@dataclass(frozen=True, slots=True)
class DrawnStop:
    """A stop and where it is; `left` and `room` are its month's."""

    stop: Stop
    x: str
    left: str
    room: str
    says: Words


@dataclass(frozen=True, slots=True)
class DrawnMark:
    """An out-of-band release or windows, and where they are; `is_named`: its day has room."""

    y: int
    x: str
    says: Words
    address: str = ""
    day: str = ""
    is_hotpatch: bool = True
    is_named: bool = False
    is_late: bool = False


@dataclass(frozen=True, slots=True)
class DrawnBand:
    """The part of a band that lies in a quarter."""

    x: str
    width: str
    says: Words
    address: str


@dataclass(frozen=True, slots=True)
class Rail:
    """The track from one stop to the next, in the box between them."""

    x: str
    width: str
    path: str
    is_certain: bool


@dataclass(frozen=True, slots=True)
class Block:
    """What one base carries: the ground under it. `is_hatched`: a month that is not recorded."""

    x: str
    width: str
    is_hatched: bool


@dataclass(frozen=True)
class Quarter:
    """Three months, drawn."""

    name: str
    stops: tuple[Stop, ...]
    between: tuple[Between, ...]
    openings: tuple[Opening, ...]
    now: datetime | None
    bands: tuple[Band, ...] = ()

    @cached_property
    def drawn(self) -> tuple[DrawnStop, ...]:
        """The months that bring something."""
        return tuple(
            DrawnStop(stop, percent(x), percent(place * _SLOT), percent(_SLOT), words_beside(stop.says, x, x))
            for place, stop in enumerate(self.stops)
            if stop.kind is not Kind.NOTHING
            for x in [(place + 0.5) * _SLOT]
        )

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The ground: it is cut where a base begins."""
        runs: list[list[int]] = []
        for place, stop in enumerate(self.stops):
            if stop.kind is Kind.NOTHING:
                continue
            goes_on = bool(runs) and runs[-1][-1] == place - 1 and not stop.is_on_ground
            if goes_on:
                runs[-1].append(place)
            else:
                runs.append([place])
        ground = [Block(percent(r[0] * _SLOT + 0.7), percent(len(r) * _SLOT - 1.4), is_hatched=False) for r in runs]
        missing = [place for place, stop in enumerate(self.stops) if stop.certainty is Certainty.MISSING]
        return tuple(ground + [Block(percent(p * _SLOT + 0.7), percent(_SLOT - 1.4), is_hatched=True) for p in missing])

    @property
    def rails(self) -> tuple[Rail, ...]:
        """The track: it rises from a base and goes on level; nothing leads to a base."""
        found = []
        for place, (one, other) in enumerate(pairwise(self.stops)):
            if Kind.NOTHING in {one.kind, other.kind} or other.is_on_ground or one.kind is Kind.CUMULATIVE:
                continue
            path = f"M0 {one.y}C55 {one.y} 45 {other.y} 100 {other.y}"
            is_certain = one.is_solid and other.is_solid
            found.append(Rail(percent((place + 0.5) * _SLOT), percent(_SLOT), path, is_certain))
        return tuple(found)

    @cached_property
    def marks(self) -> tuple[DrawnMark, ...]:
        """The out-of-band releases; those at one place are one mark that says all of it."""
        found: list[DrawnMark] = []
        for is_hotpatch in (True, False):
            own = [row for row in self.between if row.is_hotpatch is is_hotpatch]
            groups = _grouped(self._placed(own))
            for (x, group), following in zip_longest(groups, groups[1:]):
                first = group[0]
                found.append(
                    DrawnMark(
                        first.y,
                        percent(x),
                        words_beside(" ".join(row.says for row in group), x, x),
                        first.address,
                        first.day,
                        is_hotpatch,
                        is_named=following is None or following[0] - x >= _DAY_ROOM,
                        is_late=x > 100 - _DAY_ROOM,
                    )
                )
        return tuple(found)

    @cached_property
    def windows(self) -> tuple[DrawnMark, ...]:
        """When windows open; those at one place are one mark."""
        return tuple(
            DrawnMark(0, percent(x), words_beside(_shortened([row.says for row in group]), x, x))
            for x, group in _grouped(self._placed(self.openings))
        )

    @cached_property
    def times(self) -> tuple[DrawnBand, ...]:
        """The bands, each as far as it lies in this quarter; a short one is wide enough to be seen and pointed at."""
        first, last = self.stops[0].starts, self.stops[-1].ends
        found = []
        for band in sorted(self.bands, key=lambda band: (band.begins, band.ends)):
            if band.begins >= last or band.ends <= first:
                continue
            left = self._x(max(band.begins, first)) or 0.0
            right = 100.0 if band.ends >= last else self._x(band.ends) or 0.0
            left = min(left, 100 - _MARK_ROOM)
            right = max(right, left + _MARK_ROOM)
            says = words_beside(band.says, left, right)
            found.append(DrawnBand(percent(left), percent(right - left), says, band.address))
        return tuple(found)

    @property
    def now_x(self) -> str:
        """Where now is; empty where that is in another quarter."""
        x = self._x(self.now) if self.now else None
        return "" if x is None else percent(x)

    @property
    def is_now_late(self) -> bool:
        """Whether the word for now stands left of its line."""
        x = self._x(self.now) if self.now else None
        return x is not None and x > 50

    def _x(self, at: datetime) -> float | None:
        """The place of a moment, None outside of the quarter."""
        for place, stop in enumerate(self.stops):
            if stop.starts <= at < stop.ends:
                if at < stop.at:
                    part = 0.5 * ((at - stop.starts) / (stop.at - stop.starts))
                else:
                    part = 0.5 + 0.5 * ((at - stop.at) / (stop.ends - stop.at))
                return (place + part) * _SLOT
        return None

    def _placed(self, rows: Iterable[Row]) -> list[tuple[float, Row]]:
        placed = [(self._x(row.at), row) for row in sorted(rows, key=lambda row: row.at)]
        return [(x, row) for x, row in placed if x is not None]


def _grouped(placed: Iterable[tuple[float, Row]]) -> list[tuple[float, list[Row]]]:
    groups: list[tuple[float, list[Row]]] = []
    for x, row in placed:
        if groups and x - groups[-1][0] < _MARK_ROOM:
            groups[-1][1].append(row)
        else:
            groups.append((x, [row]))
    return groups


def _shortened(texts: Sequence[str], most: int = 4) -> str:
    return ", ".join(texts[:most]) + (" …" if len(texts) > most else "")


@dataclass(frozen=True)
class Train:
    """The year of a product line. `stops` are its months in order, whole quarters; `name` is the id of its element."""

    name: str
    title: str
    description: str
    stops: tuple[Stop, ...]
    between: tuple[Between, ...] = ()
    openings: tuple[Opening, ...] = ()
    now: datetime | None = None
    bands: tuple[Band, ...] = ()

    @cached_property
    def quarters(self) -> tuple[Quarter, ...]:
        """The year's quarters."""
        return tuple(
            Quarter(
                f"{self.name}-{place // MONTHS_OF_A_QUARTER + 1}",
                self.stops[place : place + MONTHS_OF_A_QUARTER],
                self.between,
                self.openings,
                self.now,
                self.bands,
            )
            for place in range(0, len(self.stops), MONTHS_OF_A_QUARTER)
        )
