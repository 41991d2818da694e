"""On how many machines a maintenance configuration will install what they lack, and until when: judged by its plan.

Machines that lack the same, stand in the same place and are meant by the same configurations are judged once.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from django.contrib.postgres.expressions import ArraySubquery
from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import BooleanField, Count, ExpressionWrapper, Model, OuterRef, Q

from db.arrays import array
from db.bounded import ListTooSlowError, fetch_bounded
from patching.orchestrator import Patcher
from patching.own_clocks import Timing
from patching.releases import Timetable, as_of, timetable
from patching.selection import OFF_GUARD, guard_on, select
from patching.terms import HotpatchTrack, InstallationPlan, ProductLine
from patching.track import TrackVerdict
from updates.models import KbHold, MaintenanceConfiguration, Release
from updates.selectors.fleet import FleetCounts, Pending
from updates.selectors.maintenance import UnreadableError, read_configuration
from updates.selectors.scopes import scope_filter
from vms.models import Connection, VirtualMachineQuerySet
from vms.regions import clock_of

# Beyond these it is not tried: the page would wait for it, and grow with the fleet.
MOST_JUDGED = 50_000
MOST_CONFIGURATIONS = 200

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True)
class Scheduled:
    """On how many of the machines that lack an update a window will install it, and when the last of these windows opens."""

    machines: int
    until: datetime


def key_of(patch: Any) -> str:
    """What an update is known by on the page of pending updates: its KB, else its update id."""
    return str(patch.kb_number or patch.update_id)


# --- what a judgement rests on -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rules:
    """The enabled configurations with a window to come, every release, and the moment at which each connection lives."""

    configurations: tuple[MaintenanceConfiguration, ...]
    releases: tuple[Release, ...]
    moments: Mapping[int, datetime]
    now: datetime

    def moment_of(self, connection_id: int) -> datetime:
        """The moment at which the machines of a connection live; now, of one that has just been removed."""
        return self.moments.get(connection_id, self.now)


_SMALL_TABLES = (
    (MaintenanceConfiguration, "WHERE is_enabled AND next_run_at IS NOT NULL"),
    (Release, ""),
    (Connection, ""),
)


def load_rules(now: datetime) -> Rules:
    """Three small tables in one statement."""
    sql = " UNION ALL ".join(
        f"(SELECT {number}, to_jsonb(row) FROM {model._meta.db_table} row {which} ORDER BY row.id)"  # noqa: S608 (ours)
        for number, (model, which) in enumerate(_SMALL_TABLES)
    )
    found: dict[int, list[Any]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(sql)
        for number, document in cursor.fetchall():
            found[number].append(_made(_SMALL_TABLES[number][0], json.loads(document)))
    configurations, releases, connections = (found[number] for number in range(len(_SMALL_TABLES)))
    moments = {row.pk: as_of(row.catalogue_date, now) for row in connections}
    return Rules(tuple(configurations), tuple(releases), moments, now)


def _made(model: type[M], document: Mapping[str, Any]) -> M:
    """The row that PostgreSQL wrote as JSON."""
    columns = model._meta.concrete_fields
    values = [field.to_python(document[str(field.column)]) for field in columns]
    return model.from_db(None, [field.attname for field in columns], values)


# --- the judgement -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Meant:
    """A configuration that can be read: what it installs, when its window opens, and which machines its scope adds.

    `own`: it opens on each machine's own clock, as this says; `opens_at` is then the first opening anywhere.
    """

    pk: int
    plan: InstallationPlan
    opens_at: datetime
    dynamic: Q | None
    own: Timing | None


def judge_schedules(
    machines: VirtualMachineQuerySet, counts: FleetCounts, pending: Pending, rules: Rules, *, sets: Collection[int] = ()
) -> Mapping[str, Scheduled] | None:
    """What windows will install on these machines, by `key_of` (at most one query). None: to find out takes too long.

    `counts`, `pending`: of the same machines. `sets`: only machines that lack what these patch sets hold; empty: all.
    """
    asked = frozenset(sets or pending.offers)
    lines = [line for line in counts.lines if line.patch_set in asked and line.patcher == Patcher.PORTAL_BY_SCHEDULE]
    meant = tuple(_readable(rules))
    if not lines or not meant:
        return {}
    if len(meant) > MOST_CONFIGURATIONS or sum(line.machines for line in lines) > MOST_JUDGED:
        return None
    mine = machines.filter(
        patcher=Patcher.PORTAL_BY_SCHEDULE.value, patch_set__any=array({line.patch_set for line in lines})
    )
    try:
        rows = fetch_bounded(*_grouped(mine, meant))
    except EmptyResultSet:
        return {}
    except ListTooSlowError:
        return None
    judge = _Judge(pending, rules)
    totals: dict[str, Scheduled] = {}
    for row in rows:
        for key, opens_at in judge.openings(row, meant).items():
            before = totals.get(key)
            totals[key] = Scheduled(
                row[-1] + (before.machines if before else 0), max(opens_at, before.until) if before else opens_at
            )
    return totals


def _readable(rules: Rules) -> Iterator[_Meant]:
    """A window of a configuration that cannot be read stays shut."""
    for row in rules.configurations:
        try:
            content = read_configuration(row)
        except UnreadableError:
            continue
        if row.next_run_at is not None:
            own = content.timing if row.is_own_clock else None
            yield _Meant(row.pk, content.plan, row.next_run_at, scope_filter(content.scope), own)


def _grouped(vms: VirtualMachineQuerySet, meant: tuple[_Meant, ...]) -> tuple[str, tuple[Any, ...]]:
    """What counts machines by what decides: place, what they lack, holds, who names them, and whose scope has them."""
    through = MaintenanceConfiguration.vms.through.objects.filter(virtualmachine_id=OuterRef("pk"))
    named = through.order_by("maintenanceconfiguration_id").values("maintenanceconfiguration_id")
    held = KbHold.objects.filter(vm=OuterRef("pk")).order_by("kb_number").values("kb_number")
    dynamic = {
        f"scope_{row.pk}": ExpressionWrapper(row.dynamic, output_field=BooleanField())
        for row in meant
        if row.dynamic is not None
    }
    facts = vms.order_by().annotate(named=ArraySubquery(named), held=ArraySubquery(held), **dynamic)
    # Clocks only where one is asked for: places make many groups of few.
    place = ("time_zone", "location") if any(row.own for row in meant) else ()
    keys = ("connection_id", "product_line", "hotpatch_track", "patch_set", "named", "held", *dynamic, *place)
    return facts.values_list(*keys).annotate(machines=Count("pk")).query.sql_with_params()


class _Judge:
    """Asks the rules once for machines that are equal in all that a selection rests on."""

    def __init__(self, pending: Pending, rules: Rules) -> None:
        self.offers, self.rules = pending.offers, rules
        self.releases = [row.facts for row in rules.releases]
        self._timetables: dict[tuple[str, datetime], Timetable] = {}
        self._taken: dict[tuple[Any, ...], frozenset[str]] = {}
        self._own_openings: dict[tuple[int, str], datetime | None] = {}

    def openings(self, row: tuple[Any, ...], meant: tuple[_Meant, ...]) -> dict[str, datetime]:
        """When the first window opens that installs each update on the machines of this row."""
        connection_id, line, track, set_id, named, held, *in_scopes, _machines = row
        clock = clock_of(*in_scopes[-2:]) if any(each.own for each in meant) else None
        dynamic = iter(in_scopes)
        ours = [each for each in meant if (each.dynamic is not None and next(dynamic)) or each.pk in named]
        found: dict[str, datetime] = {}
        for each in ours:
            opens_at = self._opens_at(each, clock) if each.own else each.opens_at
            if opens_at is None:
                continue
            for key in self._takes(each, connection_id, line, track, set_id, tuple(held)):
                found[key] = min(found.get(key, opens_at), opens_at)
        return found

    def _opens_at(self, each: _Meant, clock: ZoneInfo | None) -> datetime | None:
        """When the window of a configuration opens on this clock of machines; never where nobody knows it."""
        place = (each.pk, clock.key if clock else "")
        if place not in self._own_openings:
            own = [clock] if clock else []
            opening = each.own.next_opening(own, after=self.rules.now) if each.own else None
            self._own_openings[place] = opening.window.opens_at if opening else None
        return self._own_openings[place]

    def _takes(
        self, each: _Meant, connection_id: int, line: str, track: str, set_id: int, held: tuple[str, ...]
    ) -> frozenset[str]:
        moment = self.rules.moment_of(connection_id)
        place = (each.pk, moment, line, track, set_id, held)
        if place not in self._taken:
            guard = OFF_GUARD
            if line:
                guard = guard_on(TrackVerdict(HotpatchTrack(track)), self._timetable(line, moment))
            plan = replace(each.plan, kb_numbers_to_exclude=(*each.plan.kb_numbers_to_exclude, *held))
            selection = select(self.offers.get(set_id, ()), plan, guard=guard)
            self._taken[place] = frozenset(key_of(verdict.patch) for verdict in selection.selected)
        return self._taken[place]

    def _timetable(self, line: str, moment: datetime) -> Timetable:
        if (line, moment) not in self._timetables:
            self._timetables[line, moment] = timetable(self.releases, ProductLine(line), moment)
        return self._timetables[line, moment]
