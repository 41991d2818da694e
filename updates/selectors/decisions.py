"""What waits for a person's decision, how old the catalogue is, and for how many machines: the news of the fleet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import QuerySet

from db.arrays import array
from patching import terms
from patching.releases import Timetable, as_of, timetable
from patching.selection import Guard, Hold, guard_on, is_os_update
from patching.terms import DUE_WORDS, LCU_TYPES, HotpatchStatus, HotpatchTrack, ProductLine
from patching.track import TrackVerdict
from updates.models import Patch, PatchSetMember, Release, WordsClock
from vms.choices import Role
from vms.models import Connection, Grants, VirtualMachine
from vms.selectors import MAX_COUNT

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User

# The machines that the guard watches (patching.selection): on the train, due, newer than the catalogue, unknown.
_WATCHED = sorted(
    track.value
    for track in HotpatchTrack
    if track not in {HotpatchTrack.NOT_ON_TRAIN, HotpatchTrack.OFF_TRACK_SINCE_KB}
)


@dataclass(frozen=True, slots=True)
class Age:
    """A product line whose catalogue is old: known up to `until`, `months` monthly releases are not recorded.

    `day`: the catalogue's day of the connections that it is said of; None: today.
    """

    line: ProductLine
    until: date | None
    months: tuple[date, ...]
    day: date | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A KB that waits for a decision: what was seen of it, which hold asks, and how many machines wait.

    `sets`: the patch sets through which machines wait, so that a reader's own machines can be counted.
    """

    line: ProductLine
    kb_number: str
    title: str
    published_on: date | None
    reason: str
    machines: int
    sets: tuple[int, ...]
    is_count_exact: bool = True


@dataclass(frozen=True, slots=True)
class News:
    """What the head of the list, the calendar and the blade tell of the fleet."""

    ages: tuple[Age, ...]
    waiting: tuple[Waiting, ...]


# --- what is told: read by pages ---------------------------------------------------------------------------------


def load_news(user: User | AnonymousUser, *, grants: Grants | None = None) -> News:
    """What the last tick found, with counts of the machines that the user sees (one query where nothing waits, else two).

    `grants`: the user's, where they were just read.
    """
    stored = WordsClock.objects.filter(pk=1).values_list("news", flat=True).first() or {}
    ages = tuple(
        Age(ProductLine(line), _day(until), tuple(date.fromisoformat(m) for m in months), _day(day))
        for line, until, months, day in stored.get("ages", ())
    )
    waiting = tuple(
        Waiting(ProductLine(line), kb, title, _day(published), reason, machines, tuple(sets))
        for line, kb, title, published, reason, machines, sets in stored.get("waiting", ())
    )
    if not waiting:
        return News(ages, ())
    grants = Grants.last_read(user) if grants is None else grants
    if not grants.are_of_everything:
        counted = zip(waiting, _counts_of(waiting, grants), strict=True)
        waiting = tuple(
            replace(item, machines=min(count, MAX_COUNT), is_count_exact=count <= MAX_COUNT)
            for item, count in counted
            if count
        )
    return News(ages, waiting)


def _counts_of(waiting: Sequence[Waiting], grants: Grants) -> list[int]:
    """How many machines that these grants show wait for each, up to one more than a list counts (one query)."""
    mine = VirtualMachine.objects.order_by().granted_by(grants)
    counts: list[str] = []
    parameters: list[Any] = []
    for item in waiting:
        vms = mine.filter(
            update_state__patch_set__any=array(item.sets),
            product_line=item.line.value,
            hotpatch_status=HotpatchStatus.ENABLED.value,
            hotpatch_track__in=_WATCHED,
        )
        try:
            sql, own = vms.values("pk")[: MAX_COUNT + 1].query.sql_with_params()
        except EmptyResultSet:
            counts.append("0")
            continue
        counts.append(f"(SELECT count(*) FROM ({sql}) waiting)")  # noqa: S608 (the ORM's)
        parameters += own
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(counts)}", parameters)
        (found,) = cursor.fetchall()
    return [int(count) for count in found]


def may_decide(user: User | AnonymousUser) -> bool:
    """A decision holds for every machine, so it takes the role that overrides the guard (Patch operator) on everything."""
    return Grants.of(user).at_least(Role.OPERATOR).are_of_everything


def unconfirmed_releases() -> QuerySet[Release]:
    """Released rows whose type no primary source gives and nobody has confirmed, the newest first."""
    return Release.objects.filter(is_type_confirmed=False, status="released").order_by("-released_on", "product_line")


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None


# --- what is found: by the tick and the doctor -------------------------------------------------------------------


def find_news(now: datetime) -> dict[str, Any]:
    """Everything there is to tell, as JSON. Patch sets are judged in memory; machines are counted through them."""
    releases = Release.objects.order_by("pk").facts()
    days = {row.pk: row.catalogue_date for row in Connection.objects.order_by("pk")}
    known = {
        (line, day): timetable(releases, line, as_of(day, now)) for line in ProductLine for day in set(days.values())
    }
    return {
        "ages": [
            (age.line.value, _text(age.until), [m.isoformat() for m in age.months], _text(age.day))
            for age in catalogue_ages(known, days)
        ],
        "waiting": [
            (w.line.value, w.kb_number, w.title, _text(w.published_on), w.reason, w.machines, list(w.sets))
            for w in _waiting(known, days)
        ],
    }


def _text(day: date | None) -> str | None:
    return day.isoformat() if day else None


_IN_USE = "SELECT DISTINCT connection_id, product_line FROM vms_wordcount WHERE machines <> 0 AND product_line <> ''"


def catalogue_ages(
    known: Mapping[tuple[ProductLine, date | None], Timetable], days: Mapping[int, date | None]
) -> list[Age]:
    """The product lines of machines whose catalogue has ended or has a hole after the newest baseline (one query)."""
    with connection.cursor() as cursor:
        cursor.execute(_IN_USE)
        used = {(ProductLine(line), days[pk]) for pk, line in cursor.fetchall() if pk in days}
    found = []
    for line, day in sorted(used, key=lambda pair: (pair[0], pair[1] or date.max)):
        table = known[line, day]
        if months := table.missing_after_baseline:
            found.append(Age(line, table.ends, months, day))
    return found


# How many watched machines stand where, by what decides the guard.
_MACHINES = """
SELECT s.patch_set_id, v.product_line, v.connection_id, v.hotpatch_track, count(*)
FROM updates_vmupdatestate s JOIN vms_virtualmachine v ON v.id = s.vm_id
WHERE s.patch_set_id = ANY(%s::bigint[]) AND v.hotpatch_status = %s AND v.hotpatch_track = ANY(%s)
GROUP BY 1, 2, 3, 4
"""


def _waiting(
    known: Mapping[tuple[ProductLine, date | None], Timetable], days: Mapping[int, date | None]
) -> list[Waiting]:
    patches = {row.pk: row.facts for row in Patch.objects.exclude(kb_number="")}
    asking = [pk for pk, patch in patches.items() if patch.release_type in LCU_TYPES or _is_unknown(patch)]
    if not asking:
        return []
    members = PatchSetMember.objects.filter(
        patch_set__in=PatchSetMember.objects.filter(patch__any=array(asking)).values("patch_set")
    )
    sets: dict[int, list[terms.Patch]] = defaultdict(list)
    for set_id, patch_id in members.values_list("patch_set", "patch"):
        if patch_id in patches:
            sets[set_id].append(patches[patch_id])
    # Only sets that some guard would ask about are looked for among the machines.
    asked = {
        (set_id, line, day, is_due): found
        for (line, day), table in known.items()
        for is_due in (False, True)
        for set_id, offered in sets.items()
        if (found := _asks(_guard(table, is_due=is_due), offered, line))
    }
    with connection.cursor() as cursor:
        cursor.execute(_MACHINES, [array({key[0] for key in asked}), HotpatchStatus.ENABLED.value, _WATCHED])
        rows = cursor.fetchall()
    counts: dict[tuple[ProductLine, str], int] = defaultdict(int)
    through: dict[tuple[ProductLine, str], set[int]] = defaultdict(set)
    seen: dict[tuple[ProductLine, str], tuple[terms.Patch, Hold]] = {}
    for set_id, line, connection_id, track, count in rows:
        if not line:
            continue
        key = (set_id, ProductLine(line), days.get(connection_id), HotpatchTrack(track) in DUE_WORDS)
        for patch, hold in asked.get(key, ()):
            name = (ProductLine(line), patch.kb_number)
            counts[name] += count
            through[name].add(set_id)
            seen[name] = (patch, hold)
    return [
        Waiting(
            line,
            kb_number,
            seen[line, kb_number][0].title,
            seen[line, kb_number][0].published_on,
            seen[line, kb_number][1].reason.value,
            count,
            tuple(sorted(through[line, kb_number])),
        )
        for (line, kb_number), count in sorted(counts.items())
    ]


def _is_unknown(patch: terms.Patch) -> bool:
    return patch.release_type is None and is_os_update(patch)


def _guard(table: Timetable, *, is_due: bool) -> Guard:
    return guard_on(TrackVerdict(HotpatchTrack.BASELINE_DUE if is_due else HotpatchTrack.ON_TRACK), table)


def _asks(guard: Guard, offered: Sequence[terms.Patch], line: ProductLine) -> list[tuple[terms.Patch, Hold]]:
    """What of these offers waits for a decision on machines of this line."""
    mine = [patch for patch in offered if patch.product_line in {None, line}]
    is_baseline_offered = guard.is_baseline_among(mine)
    holds = ((patch, guard.holds(patch, is_baseline_offered=is_baseline_offered)) for patch in mine)
    return [(patch, hold) for patch, hold in holds if hold is not None and hold.needs_decision]


def waiting_on(rows: Iterable[Any]) -> list[str]:
    """The KBs among the rows of a blade that wait for a decision."""
    return [row.patch.kb_number for row in rows if row.hold is not None and row.hold.needs_decision]
