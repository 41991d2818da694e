"""Which KB puts a machine on the hotpatch train, keeps it there or takes it off, and from which day on.

The checker's own table. `train.csv` was written from the sources that each of its rows names; nothing in it, and nothing
here, comes from the portal's catalogue or from its rules.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

TABLE = Path(__file__).with_name("train.csv")
PACIFIC = ZoneInfo("America/Los_Angeles")
BASELINE = "baseline"
STAYS_ON = frozenset({"hotpatch", "oob_hotpatch"})  # they need their baseline and change nothing about where it stands
TAKES_OFF = frozenset({"lcu", "oob_lcu"})
IS_FOR_MACHINES_ON = STAYS_ON | {BASELINE}
IS_FOR_MACHINES_OFF = TAKES_OFF | {BASELINE}
# Who got it through Windows Update. `few`: every machine without hotpatch, and a few of those with it.
REACHES = frozenset({"everybody", "few", "nobody", "unknown"})


@dataclass(frozen=True, slots=True)
class Out:
    """A release that is out: of a line, on a day, of a kind. `reach`: who got it through Windows Update."""

    line: str
    kb_number: str
    kind: str
    released_on: date
    is_planned: bool = True
    reach: str = "everybody"
    build: str = ""

    @property
    def out_at(self) -> datetime:
        """When it is out: 10:00 Pacific time."""
        return datetime.combine(self.released_on, time(10), PACIFIC)

    @property
    def is_expected(self) -> bool:
        """Whether the machines that it is for must have it after a while: Windows Update gave it to them."""
        return self.reach in {"everybody", "few"}


@lru_cache(maxsize=1)
def table() -> tuple[Out, ...]:
    """Every row, in the order of the file. Raises ValueError where a row says what nobody understands."""
    with TABLE.open(newline="") as file:
        return tuple(_out(number, row) for number, row in enumerate(csv.DictReader(file), start=2))


def _out(number: int, row: dict[str, str]) -> Out:
    kind, reach, planned = row["kind"], row["reach"], row["planned"]
    is_baseline = kind == BASELINE
    if kind not in IS_FOR_MACHINES_ON | IS_FOR_MACHINES_OFF:
        raise ValueError(f"train.csv, line {number}: {kind!r} is no kind")
    if reach not in REACHES:
        raise ValueError(f"train.csv, line {number}: {reach!r} is no reach")
    if planned not in ({"planned", "unplanned"} if is_baseline else {""}):
        raise ValueError(f"train.csv, line {number}: {planned!r} beside {kind!r}")
    if not row["kb"].isdecimal() or not row["source"]:
        raise ValueError(f"train.csv, line {number}: a KB and a source are needed")
    return Out(
        line=row["line"],
        kb_number=row["kb"],
        kind=kind,
        released_on=date.fromisoformat(row["day"]),
        is_planned=planned != "unplanned",
        reach=reach,
        build=row["build"],
    )


class Train:
    """The releases of every line, and where a machine stands by what it has received."""

    def __init__(self, releases: Iterable[Out]) -> None:
        self.releases = tuple(releases)
        self._by_kb = {(release.line, release.kb_number): release for release in self.releases}
        self._baselines: dict[str, list[Out]] = defaultdict(list)
        for release in sorted(self.releases, key=lambda r: (r.released_on, r.kb_number)):
            if release.kind == BASELINE:
                self._baselines[release.line].append(release)

    def release(self, line: str, kb_number: str) -> Out | None:
        """The release of this KB, None where it is none of the train (a .NET update, definitions)."""
        return self._by_kb.get((line, kb_number))

    def of_build(self, line: str, build: str) -> list[Out]:
        """The releases with this build: one, where it is recorded and no other has the same."""
        return [release for release in self.releases if build and (release.line, release.build) == (line, build)]

    def baseline_at(self, line: str, at: datetime) -> Out | None:
        """The newest baseline that is out at that moment."""
        return next((release for release in reversed(self._baselines[line]) if release.out_at <= at), None)

    def is_off(self, line: str, taken_off_on: date | None, at: datetime) -> bool:
        """Whether a machine that a cumulative update of this day took off is still off, and not only due its way back.

        None: nothing took it off. A baseline that has come out since brings it back; the machine has to get that one.
        """
        if taken_off_on is None:
            return False
        baseline = self.baseline_at(line, at)
        return baseline is None or baseline.released_on <= taken_off_on

    def stands_on(self, line: str, build: str, at: datetime) -> bool:
        """Whether a machine with hotpatch and this build stands on the train: on the newest baseline, or hotpatched."""
        baseline = self.baseline_at(line, at)
        return baseline is not None and any(
            release.build == build
            and release.kind in IS_FOR_MACHINES_ON
            and release.released_on >= baseline.released_on
            for release in self.releases
            if release.line == line
        )
