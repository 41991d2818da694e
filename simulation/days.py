"""What the portal must have kept of each day, worked out from what the machines said and went through.

Independent, as the checker is: it reads the ledger, the static facts of the fleet and the checker's own table of releases
(train.csv), and imports nothing but the standard library and that table. It asks no word, no counter and no snapshot of the
portal; docs/simulation.md says what each number means.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta

from simulation.checker import Place, Work
from simulation.train import IS_FOR_MACHINES_ON, PACIFIC, TAKES_OFF, Out, Train

COUNTS_FOR = timedelta(days=7)  # an assessment, from its moment
LATE_AFTER = timedelta(days=7)  # what is urgent, from the day it was published
URGENT = frozenset({"Critical", "Security"})


@dataclass(frozen=True, slots=True)
class Offer:
    """An update that a machine said is available on it. No day: nobody knows when it was published."""

    kb_number: str
    classification: str
    published_on: date | None


@dataclass(frozen=True, slots=True)
class Told:
    """What one machine (its place in the list of machines) said of itself at one moment."""

    machine: int
    at: datetime
    offers: tuple[Offer, ...]
    is_reboot_pending: bool


@dataclass(frozen=True, slots=True)
class Midnight:
    """The moment at which the snapshot of a day was due, and how many answers had been given by then."""

    at: datetime
    answers: int


@dataclass(slots=True)
class Standing:
    """How many machines stood where; each is in one of the first four, and may be in the last two."""

    up_to_date: int = 0
    other: int = 0
    critical: int = 0
    no_data: int = 0
    critical_late: int = 0
    on_track: int = 0


# What a snapshot is of: a day, a subscription (empty: the whole fleet), a product line.
Key = tuple[date, str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """What was kept of a day, and what the machines said. None: there is no such row."""

    key: Key
    kept: Standing | None
    meant: Standing | None

    @property
    def words(self) -> str:
        """It in words: the columns that differ."""
        day, subscription, line = self.key
        where = f"{day} {line} {'of subscription ' + subscription if subscription else 'of the fleet'}"
        if self.kept is None or self.meant is None:
            return f"{where}: {'nothing was kept' if self.kept is None else 'a row of no machines'}"
        columns = [
            f"{field.name} {getattr(self.kept, field.name)} instead of {getattr(self.meant, field.name)}"
            for field in fields(Standing)
            if getattr(self.kept, field.name) != getattr(self.meant, field.name)
        ]
        return f"{where}: {', '.join(columns)}"


def compare(kept: Mapping[Key, Standing], meant: Mapping[Key, Standing]) -> list[Difference]:
    """The rows that differ, the oldest first."""
    return [
        Difference(key, kept.get(key), meant.get(key))
        for key in sorted(kept.keys() | meant.keys())
        if kept.get(key) != meant.get(key)
    ]


def recompute(
    places: Sequence[Place],
    told: Sequence[Told],
    works: Iterable[Work],
    midnights: Iterable[Midnight],
    train: Train,
) -> dict[Key, Standing]:
    """Where the machines stood at each of these moments, by the day (UTC), for each subscription and for all of them.

    `told`: in the order in which it was said. A work counts once its machine has said something after its end: before that
    nobody but the machine knows of it.
    """
    found: dict[Key, Standing] = defaultdict(Standing)
    last: dict[int, Told] = {}
    stands = _Stands(places, works, train)
    said = 0
    for midnight in sorted(midnights, key=lambda one: one.at):
        for words in told[said : midnight.answers]:
            last[words.machine] = words
        said = midnight.answers
        today = midnight.at.astimezone(PACIFIC).date()
        for number, place in enumerate(places):
            answer = last.get(number)
            columns = [*_columns(answer, midnight.at, today, place.line, train)]
            if stands.is_on_track(number, answer, midnight.at):
                columns.append("on_track")
            for subscription in (place.subscription, ""):
                row = found[midnight.at.date(), subscription, place.line]
                for column in columns:
                    setattr(row, column, getattr(row, column) + 1)
    return dict(found)


def _columns(answer: Told | None, at: datetime, today: date, line: str, train: Train) -> Iterator[str]:
    """The columns of a machine that last said this."""
    if answer is None or at - answer.at > COUNTS_FOR:
        yield "no_data"
        return
    urgent = [offer for offer in answer.offers if offer.classification in URGENT]
    if not urgent:
        yield "other" if answer.offers or answer.is_reboot_pending else "up_to_date"
        return
    yield "critical"
    published = [_published_on(offer, line, train) for offer in urgent]
    if any(day is not None and day + LATE_AFTER < today for day in published):
        yield "critical_late"


def _published_on(offer: Offer, line: str, train: Train) -> date | None:
    release = train.release(line, offer.kb_number)
    return offer.published_on if release is None else release.released_on


class _Stands:
    """Who stands on the train, by what the machines have received."""

    def __init__(self, places: Sequence[Place], works: Iterable[Work], train: Train) -> None:
        self._places, self._train = places, train
        self._got: dict[int, list[tuple[datetime, Out]]] = defaultdict(list)  # when its run had ended, and what it was
        for work in sorted(works, key=lambda one: one.ends):
            for install in work.installs:
                release = train.release(places[work.machine].line, install.kb_number)
                if release is not None and not install.has_failed:
                    self._got[work.machine].append((work.ends, release))

    def is_on_track(self, number: int, answer: Told | None, at: datetime) -> bool:
        """Whether it has the newest baseline that is out and no newer cumulative update, by what it has said.

        Nobody knows of one that has said nothing yet.
        """
        place = self._places[number]
        baseline = self._train.baseline_at(place.line, at)
        if answer is None or not place.has_hotpatch or baseline is None:
            return False
        here = [release for ended, release in self._got[number] if ended <= answer.at]
        here += self._train.of_build(place.line, place.build)
        newer = [release for release in here if release.released_on >= baseline.released_on]
        is_taken_off = any(
            release.kind in TAKES_OFF and release.released_on > baseline.released_on for release in newer
        )
        return not is_taken_off and any(release.kind in IS_FOR_MACHINES_ON for release in newer)
