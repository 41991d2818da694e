"""The overview: the fleet, or a part of it, within ten seconds. Each number has the address of the machines that it counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from django.urls import reverse
from django.utils.http import urlencode

from connectors.registry import Grade
from patching.orchestrator import Patcher
from patching.releases import as_of
from patching.terms import Classification, HotpatchTrack, UpdateStatus
from updates.choices import OPERATION_KINDS
from updates.models import Patch, Rollout, RolloutState
from updates.selectors.coverage import NONE, ONE, SCOPES, SEVERAL, count_covered
from updates.selectors.decisions import News, Waiting, load_news
from updates.selectors.fleet import (
    EVERYWHERE,
    FleetCounts,
    FleetScope,
    Pending,
    count_fleet,
    load_pending,
    place_of,
)
from updates.selectors.fleet_days import Standings, load_days, standings_now
from updates.selectors.fleet_forecast import FleetForecast, forecast_fleet
from updates.selectors.fleet_history import NO_KB, HistoryAsked, Result
from updates.selectors.fleet_trouble import CONTRADICTED, FAILED, TOLD_FOR, Reason, Trouble, load_runs
from updates.selectors.overview_running import Running, running_requests, running_rollouts
from vms.choices import Condition
from vms.filters import VmFilter
from vms.models import Connection, Grants, VirtualMachine, VirtualMachineQuerySet
from vms.selectors import filter_options

if TYPE_CHECKING:
    from django.contrib.auth.models import User

SCOPE_NAMES = ("connection", "subscription", "resource_group", "product_line", "tag")
MOST_REASONS = MOST_UPDATES = 5
# No counter says how many configurations mean a machine; beyond so many machines the page would wait for it
# (docs/performance.md, coverage).
MOST_COVERAGE_COUNTED = 10_000


class TileName(StrEnum):
    """What a tile counts."""

    UPDATES = "updates"
    ON_TRACK = "on_track"
    REBOOT = "reboot"
    NO_DATA = "no_data"


@dataclass(frozen=True, slots=True)
class Tile:
    """A number, the whole that it is a share of, and the address of the list of just these machines."""

    name: TileName
    count: int
    whole: int
    address: str


class NeedName(StrEnum):
    """What a person has to look at."""

    ROLLOUT = "rollout"
    FAILED = "failed"
    CONTRADICTED = "contradicted"
    DECISION = "decision"
    OFF_TRACK = "off_track"
    OVERDUE = "overdue"
    REBOOT = "reboot"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Need:
    """A line of what needs a person: how many, of what, and where to go."""

    name: NeedName
    count: int
    address: str
    rollout: Rollout | None = None
    waiting: Waiting | None = None
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Overview:
    """Everything that the page shows of a place."""

    scope: FleetScope
    counts: FleetCounts
    tiles: tuple[Tile, ...]
    needs: tuple[Need, ...]
    classes: tuple[tuple[Classification, int, str], ...]  # with the address of the list
    updates: tuple[tuple[Patch, int, str], ...]  # the most widely missing
    days: tuple[Standings, ...]
    are_days_kept: bool
    forecast: FleetForecast
    trouble: Trouble
    reasons: tuple[tuple[Reason, str, str], ...]  # with the address of the list, and of the runs in the history
    rollouts: tuple[Running, ...]
    requests: tuple[Running, ...]
    in_flight: Mapping[str, int]  # operations that machines work on, by kind
    # How many machines no maintenance configuration means, one, several, each with the address of the list; no numbers
    # where there are too many machines to count them here.
    coverage: tuple[tuple[str, int | None, str], ...]
    news: News
    is_simulated: bool
    days_meant: tuple[date, ...]  # the catalogue's days of simulated connections

    @property
    def is_everywhere(self) -> bool:
        """Whether nothing narrows it."""
        return self.scope == EVERYWHERE

    @property
    def list_address(self) -> str:
        """The list of all of its machines."""
        return _list(self.scope)

    @property
    def days_words(self) -> str:
        """The days at which simulated machines live, one after the other."""
        return ", ".join(day.isoformat() for day in self.days_meant)

    @property
    def running_kinds(self) -> list[tuple[str, int]]:
        """How many operations machines work on, by the word for their kind."""
        return [(str(label), self.in_flight[kind]) for kind, label in OPERATION_KINDS if kind in self.in_flight]


def scope_of(filters: VmFilter) -> FleetScope:
    """The part of the fleet that these filters mean; what cannot be read narrows nothing, as in the list."""
    said = filters.form.cleaned_data if filters.form.is_valid() or filters.form.is_bound else {}
    found = {name: said.get(name) or "" for name in SCOPE_NAMES}
    return FleetScope(
        connection=int(found["connection"]) if found["connection"] else None,
        subscription=int(found["subscription"]) if found["subscription"] else None,
        resource_group=found["resource_group"],
        product_line=found["product_line"],
        tag=found["tag"],
    )


def filters_of(grants: Grants, query: Mapping[str, str]) -> VmFilter:
    """The filters of the list that say which part of the fleet is meant, over the machines that these grants show."""
    asked = {name: query[name] for name in SCOPE_NAMES if name in query}
    return VmFilter(asked, VirtualMachine.objects.granted_by(grants), options=filter_options(grants))


def load_overview(user: User, grants: Grants, filters: VmFilter, *, now: datetime) -> Overview:
    """The overview of the machines that the user may see and the filters leave, in a fixed number of queries.

    `grants`, `filters`: of this user, just read. Raises `ListTooSlowError` with a tag that is looked for too long.
    """
    scope = scope_of(filters)
    place = place_of(grants, scope)
    counts = count_fleet(place, scope)
    pending = load_pending(counts)
    connections = list(Connection.objects.annotate(scopes=SCOPES))
    sites = {row.pk: row for row in connections if row.pk in counts.by("connection_id")}
    moments = {pk: as_of(row.catalogue_date, now) for pk, row in sites.items()}
    is_whole = scope == EVERYWHERE and grants.are_of_everything
    vms = None if is_whole else filters.found
    trouble, in_flight = load_runs(vms, now)
    news = load_news(user, grants=grants)
    rollouts = running_rollouts(user, grants) if scope == EVERYWHERE else ()
    requests = running_requests(user, grants) if scope == EVERYWHERE else ()
    days = load_days(place, scope, standings_now(counts, pending, moments, now))
    simulated = [row for row in sites.values() if row.grade is Grade.SIMULATED]
    return Overview(
        scope=scope,
        counts=counts,
        tiles=_tiles(counts, scope),
        needs=tuple(_needs(counts, scope, trouble, news, rollouts)),
        classes=tuple((name, count, _list(scope, lacks=name.value)) for name, count in pending.by_classification),
        updates=_most_missing(pending, scope),
        days=days,
        are_days_kept=place.is_of_groups,
        forecast=forecast_fleet(counts, pending, moments, now=now),
        trouble=trouble,
        reasons=tuple(
            (reason, _list(scope, trouble=reason.trouble), _runs(scope, reason))
            for reason in trouble.reasons[:MOST_REASONS]
        ),
        rollouts=rollouts,
        requests=requests,
        in_flight=in_flight,
        coverage=_coverage(counts, vms, scope, connections),
        news=news,
        is_simulated=bool(simulated) and len(simulated) == len(sites),
        days_meant=tuple(sorted({row.catalogue_date for row in simulated if row.catalogue_date})),
    )


def _list(scope: FleetScope, **narrower: str) -> str:
    """The address of the list of the machines of this scope that these filters leave."""
    return f"{reverse('vms:vm-list')}?{urlencode(scope.address | narrower)}".removesuffix("?")


def _runs(scope: FleetScope, reason: Reason) -> str:
    """The address of the operations in the history that failed for this reason; empty where it has no code."""
    asked = HistoryAsked(
        days=TOLD_FOR.days,
        result=Result.FAILED.value,
        reason=reason.code,
        kb_number=reason.kb_number or NO_KB,
        connection=scope.connection,
        subscription=scope.subscription,
        resource_group=scope.resource_group,
        product_line=scope.product_line,
        tag=scope.tag,
    )
    return f"{reverse('updates:history')}?{asked.address}" if reason.code else ""


def _coverage(
    counts: FleetCounts, vms: VirtualMachineQuerySet | None, scope: FleetScope, connections: Sequence[Any]
) -> tuple[tuple[str, int | None, str], ...]:
    """How many of the machines configurations mean, by the `SCOPES` that were read with the connections (at most one query)."""
    total, scopes = counts.machines, connections[0].scopes if connections else {}
    found: Mapping[str, int] | None = None
    if not scopes:
        found = {NONE: total, ONE: 0, SEVERAL: 0}
    elif total <= MOST_COVERAGE_COUNTED:
        found = count_covered(vms, scopes=scopes)
    return tuple(
        (name, found[name] if found is not None else None, _list(scope, coverage=name)) for name in (NONE, ONE, SEVERAL)
    )


def _tiles(counts: FleetCounts, scope: FleetScope) -> tuple[Tile, ...]:
    total = counts.machines
    statuses = counts.by("update_status")
    words = (
        (TileName.UPDATES, UpdateStatus.UPDATES_AVAILABLE),
        (TileName.REBOOT, UpdateStatus.REBOOT_REQUIRED),
        (TileName.NO_DATA, UpdateStatus.NO_UPDATES_DATA),
    )
    updates, reboot, no_data = (
        Tile(name, statuses[status.value], total, _list(scope, update_status=status.value)) for name, status in words
    )
    on_track = Tile(
        TileName.ON_TRACK, counts.on_track, counts.on_train, _list(scope, condition=Condition.ON_TRACK.value)
    )
    return updates, on_track, reboot, no_data


def _needs(
    counts: FleetCounts, scope: FleetScope, trouble: Trouble, news: News, rollouts: tuple[Running, ...]
) -> list[Need]:
    """What needs a person, the most urgent first. Decisions and rollouts are of the whole fleet and stand there only."""
    tracks = counts.by("hotpatch_track")
    found = [
        Need(NeedName.ROLLOUT, 1, rollout.get_absolute_url(), rollout=rollout)
        for rollout in (running.rollout for running in rollouts)
        if rollout is not None and rollout.status == RolloutState.PAUSED
    ]
    found += [
        Need(NeedName.FAILED, trouble.failed, _list(scope, trouble=FAILED), reasons=trouble.reasons[:2]),
        Need(NeedName.CONTRADICTED, trouble.contradicted, _list(scope, trouble=CONTRADICTED)),
    ]
    if scope == EVERYWHERE:
        found += [
            Need(
                NeedName.DECISION,
                item.machines,
                f"{reverse('updates:decisions')}#kb{item.kb_number}-{item.line.value}",
                waiting=item,
            )
            for item in news.waiting
        ]
    found += [
        Need(name, tracks[track.value], _list(scope, hotpatch_track=track.value))
        for name, track in (
            (NeedName.OFF_TRACK, HotpatchTrack.OFF_TRACK_SINCE_KB),
            (NeedName.OVERDUE, HotpatchTrack.BASELINE_OVERDUE),
            (NeedName.REBOOT, HotpatchTrack.WAITS_FOR_REBOOT),
        )
    ]
    nobody = Patcher.NOBODY.value
    found.append(Need(NeedName.NOBODY, counts.by("patcher")[nobody], _list(scope, patcher=nobody)))
    return [need for need in found if need.count]


def _most_missing(pending: Pending, scope: FleetScope) -> tuple[tuple[Patch, int, str], ...]:
    """The updates that most machines lack. One KB can be several rows of the catalogue; the list shows its machines."""
    by_kb: dict[str, tuple[Patch, set[int]]] = {}
    for update in pending.updates:
        if update.patch.kb_number:
            by_kb.setdefault(update.patch.kb_number, (update.patch, set()))[1].update(update.sets)
    counted = Counter({kb: sum(pending.by_set[pk] for pk in sets) for kb, (_patch, sets) in by_kb.items()})
    return tuple(
        (by_kb[kb][0], count, _list(scope, lacks=kb)) for kb, count in counted.most_common(MOST_UPDATES) if count
    )
