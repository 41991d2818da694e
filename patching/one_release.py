"""Whether two rows of recorded releases mean one release, and what then holds (docs/rules.md, one release, one type)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from patching.terms import Release, ReleaseType

_MONTHLY = frozenset({ReleaseType.BASELINE, ReleaseType.HOTPATCH, ReleaseType.LCU})
_BASELINE_OR_LCU = frozenset({ReleaseType.BASELINE, ReleaseType.LCU})


class Meeting(StrEnum):
    """What a row does to the recorded release that it means."""

    FOLLOWS = "follows"  # what the row says replaces what was recorded; what it leaves open stays
    FILLS = "fills"  # it calls a baseline lcu: the type stays baseline, and the row fills what was empty
    PROMOTES = "promotes"  # it calls a recorded lcu baseline: the type becomes baseline, and the row's fields follow
    CORRECTS = "corrects"  # it says that it corrects: type and fields follow
    REFUSED = "refused"  # it changes the type and does not say that it corrects


class DecisionProblem(StrEnum):
    """Why a decision about a release cannot be taken. `updates.texts` has the words."""

    NO_REASON = "no_reason"
    NO_UPDATE = "no_update"  # no update with this KB was ever reported for the product line
    NO_MONTH = "no_month"  # neither its date nor its title tells the month
    OTHER_OF_MONTH = "other_of_month"  # the month has a baseline, and there the baseline is the cumulative update
    IS_GONE = "is_gone"


def meet(recorded: ReleaseType, said: ReleaseType, *, corrects: bool, is_decided: bool = False) -> Meeting:
    """What becomes of a recorded release of one type when a row of the same release says a type.

    Microsoft's own list of releases prints baselines as ordinary cumulative updates: baseline and lcu of one KB are no
    contradiction, in either order. What a person has decided (`is_decided`) changes by a correction only.
    """
    if recorded is said:
        return Meeting.FOLLOWS
    if corrects:
        return Meeting.CORRECTS
    if recorded is ReleaseType.BASELINE and said is ReleaseType.LCU:
        return Meeting.FILLS
    if recorded is ReleaseType.LCU and said is ReleaseType.BASELINE and not is_decided:
        return Meeting.PROMOTES
    return Meeting.REFUSED


def find_meant(recorded: Iterable[Release], row: Release) -> Release | None:
    """The recorded release of the same product line that a row means, None where it is a new one.

    By KB; else, where one of the two has no KB, by month and type. A month has one baseline or one cumulative update, so
    a baseline and an lcu of one month are the same release there. Out-of-band releases are the same by day or build, too.
    """
    own = [release for release in recorded if release.product_line is row.product_line]
    if row.kb_number:
        for release in own:
            if release.kb_number == row.kb_number:
                return release
    of_month = [r for r in own if r.month == row.month and not (r.kb_number and row.kb_number)]
    same_type = [r for r in of_month if r.type is row.type and (row.type in _MONTHLY or _is_same_day(r, row))]
    same_lcu = [r for r in of_month if {r.type, row.type} == _BASELINE_OR_LCU]
    return next(iter([*sorted(same_type, key=lambda r: r.kb_number != ""), *same_lcu]), None)


def _is_same_day(one: Release, other: Release) -> bool:
    if one.build and other.build:
        return one.build == other.build
    return one.released_on == other.released_on


def stands_against(recorded: Iterable[Release], row: Release) -> Release | None:
    """A recorded release that rules a new row out: the other of baseline and lcu in its month, under another KB.

    In a baseline month the baseline is everybody's cumulative update; there is no second one.
    """
    for release in recorded:
        is_other = release.product_line is row.product_line and {release.type, row.type} == _BASELINE_OR_LCU
        if is_other and release.month == row.month:
            return release
    return None
