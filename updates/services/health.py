"""Health probes in rollouts: who is to be asked, asking them, and what follows from the answers (docs/rules.md).

Like operations, probes have a due time in the database: a rollout's step only writes whose answer it wants. Asking is a
step of its own, outside of every transaction, so that a slow network never holds a rollout's row; a worker that dies in
it leaves the probes due again when its lease ends. VMs without a probe have no due time and are never looked at here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection
from django.db.models import Q

from connectors.probe import ProbeResult, probe_all
from patching.codes import RolloutReason
from patching.probes import ASK_AGAIN, STAYS_FRESH, HealthVerdict, judge_answer, read_networks
from updates.models import MemberState, RolloutMember, RolloutState

log = structlog.get_logger(__name__)
MOST_PER_STEP = 256
# Longer than asking them all can take, shorter than anybody would notice.
LEASE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Readiness:
    """Of VMs that would start now: those that may, how many have to be asked first, and who is skipped for what."""

    ready: list[int]
    asked: int
    refused: Mapping[int, str]


def judge_before(*, rollout_id: UUID, vm_ids: Collection[int], now: datetime) -> Readiness:
    """Who may start: a VM needs its agent and, if it has a probe, a fresh answer that is well; else it is asked for one."""
    rows = RolloutMember.objects.filter(
        ~Q(vm__health_probe="") | Q(vm__provision_vm_agent=False), rollout_id=rollout_id, vm_id__in=vm_ids
    ).values_list("pk", "vm_id", "vm__provision_vm_agent", "probed_at", "probe_failure")
    refused: dict[int, str] = {}
    unasked: dict[int, int] = {}
    for pk, vm_id, has_agent, probed_at, failure in rows:
        if not has_agent:
            refused[vm_id] = RolloutReason.NO_AGENT
        elif probed_at is None or probed_at < now - STAYS_FRESH or failure:
            unasked[vm_id] = pk
    if unasked:
        RolloutMember.objects.filter(pk__in=unasked.values(), probe_due_at=None).update(probe_due_at=now)
    ready = [vm for vm in vm_ids if vm not in refused and vm not in unasked]
    return Readiness(ready, len(unasked), refused)


# --- asking ------------------------------------------------------------------------------------------------------

# A CTE runs once. PostgreSQL may run a sub-select after IN once for each row: SKIP LOCKED then gives it other rows each
# time, and more rows than the LIMIT are claimed.
_CLAIM = """
WITH due AS MATERIALIZED (
    SELECT id FROM updates_rolloutmember WHERE probe_due_at <= %s ORDER BY probe_due_at LIMIT %s FOR UPDATE SKIP LOCKED
)
UPDATE updates_rolloutmember member SET probe_due_at = %s FROM due WHERE member.id = due.id
RETURNING member.id
"""
# A member that has moved on meanwhile is left alone.
_WRITE = """
UPDATE updates_rolloutmember m
SET status = r.status, code = r.code, probe_due_at = r.due_at, probed_at = %s,
    probe_failure = r.failure, probe_detail = r.detail
FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::text[], %s::text[])
    AS r(id, was, status, code, due_at, failure, detail)
WHERE m.id = r.id AND m.status = r.was
"""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A member whose probe is due. `ended_at` None: its operation has not started."""

    pk: int
    status: str
    code: str
    probe: str
    ended_at: datetime | None
    error_code: str


def ask_probes(*, now: datetime) -> int:
    """Ask the probes that are due, the longest waiting first, and write what follows; how many were asked.

    Never call it inside a transaction: it waits for the network, in all no longer than the lease.
    """
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, [now, MOST_PER_STEP, now + LEASE])
        claimed = [pk for (pk,) in cursor.fetchall()]
    if not claimed:
        return 0
    asked = _wanted(claimed)
    RolloutMember.objects.filter(pk__in=set(claimed) - {member.pk for member in asked}).update(probe_due_at=None)
    networks, _malformed = read_networks(settings.PROBE_NETWORKS)
    targets = [member.probe for member in asked if member.probe]
    answers = iter(probe_all(targets, allowed_networks=networks))
    # A probe that was taken away meanwhile stands in nobody's way.
    results = [next(answers) if member.probe else ProbeResult("") for member in asked]
    _write_answers(asked, results, now)
    return len(targets)


def _wanted(claimed: Collection[int]) -> list[_Asked]:
    """Those of whom somebody still wants to know: they would start now, or what changed them has ended well."""
    before = Q(status__in=[MemberState.WAITING, MemberState.CATCHING_UP], rollout__status=RolloutState.RUNNING)
    after = Q(status=MemberState.STARTED, operation__finished_at__isnull=False)
    rows = (
        RolloutMember.objects.filter(before | after, pk__in=claimed)
        .order_by("pk")
        .values_list("pk", "status", "code", "vm__health_probe", "operation__finished_at", "operation__error_code")
    )
    return [
        _Asked(pk, status, code, probe, ended_at if status == MemberState.STARTED else None, error_code or "")
        for pk, status, code, probe, ended_at, error_code in rows
    ]


def _write_answers(asked: list[_Asked], results: list[ProbeResult], now: datetime) -> None:
    rows: list[tuple[Any, ...]] = []
    for member, result in zip(asked, results, strict=True):
        since_end = now - member.ended_at if member.ended_at else None
        verdict = judge_answer(is_healthy=result.is_healthy, since_end=since_end)
        status, code = _FOLLOWS.get(verdict, (member.status, member.code))
        if verdict is HealthVerdict.SUCCEED:
            code = member.error_code
        due_at = now + ASK_AGAIN if verdict is HealthVerdict.ASK_AGAIN else None
        failure = result.failure.value if result.failure else ""
        rows.append((member.pk, member.status, status, code, due_at, failure, result.detail))
        if verdict in {HealthVerdict.SKIP, HealthVerdict.FAIL}:
            log.warning("probe_unhealthy", member_id=member.pk, verdict=verdict.value, failure=failure)
    if rows:
        with connection.cursor() as cursor:
            cursor.execute(_WRITE, [now, *(list(column) for column in zip(*rows, strict=True))])


_FOLLOWS: Mapping[HealthVerdict, tuple[str, str]] = {
    HealthVerdict.SKIP: (MemberState.SKIPPED.value, RolloutReason.UNHEALTHY_BEFORE),
    HealthVerdict.SUCCEED: (MemberState.SUCCEEDED.value, ""),
    HealthVerdict.FAIL: (MemberState.FAILED.value, RolloutReason.UNHEALTHY_AFTER),
}
