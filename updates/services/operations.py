"""Operations: asking for them and cancelling them (docs/rules.md, lifecycle)."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction

from connectors.protocol import Place
from connectors.registry import KINDS
from db.arrays import array
from patching.codes import ErrorCode, EventCode
from patching.freezes import is_held
from patching.lifecycle import Admission, admit, deadline_after
from patching.restart import LONGEST
from patching.selection import RunOutlook, RunWork, validate_plan
from patching.terms import (
    InstallationPlan,
    OperationKind,
    OperationState,
    PatchSettings,
    UpdateStatus,
)
from updates.engine.budget import WHOLE, add_buckets, reserve
from updates.engine.rows import ClaimedRow
from updates.engine.transition import Change, transition, write_events
from updates.models import Operation, Priority, VmUpdateState
from updates.payloads import Payload, encode, fields_of
from updates.selectors.freezes import held
from updates.selectors.work import foresee
from updates.services.acts import note_cancelled, note_requests
from vms.models import Connection, VirtualMachine

if TYPE_CHECKING:
    from django.contrib.auth.models import User

S = OperationState
_Open = tuple[UUID, OperationKind, OperationState]  # an open operation of a VM


class PlanError(ValueError):
    """The plan cannot be carried out on any VM; `problems` are `patching.selection.PlanProblem`s."""

    def __init__(self, problems: Sequence[Any]) -> None:
        super().__init__(", ".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class RequestVerdict(StrEnum):
    """What became of a request for one VM."""

    ACCEPTED = "accepted"
    JOINED = "joined"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """The answer for one VM. `operation_id` is the operation that answers the request, or that stands in its way."""

    vm_id: int
    verdict: RequestVerdict
    operation_id: UUID | None = None
    code: str = ""
    begun: ClaimedRow | None = None


# --- asking for them ---------------------------------------------------------------------------------------------


@transaction.atomic
def request_assessments(
    *, vm_ids: Collection[int], requested_by: User | None, is_bulk: bool = False, begin_on: Collection[int] = ()
) -> list[RequestOutcome]:
    """Ask for an assessment of every VM; each gets its own answer (docs/rules.md, admission).

    Where no person asks, machines that are gone are refused: the portal starts nothing on them by itself.
    A queued or running assessment is joined; an open installation is a conflict. VMs that do not exist get no answer.
    `begin_on`: connections on which VMs that have nothing open are begun instead of queued, as far as there is room;
    the caller sends what its outcomes call `begun`, once the transaction has committed.
    """
    return _request(
        kind=OperationKind.ASSESSMENT,
        vm_ids=vm_ids,
        payload=None,
        requested_by=requested_by,
        is_bulk=is_bulk,
        operation_id=None,
        begin_on=begin_on,
    )


@transaction.atomic
def request_installations(
    *,
    vm_ids: Collection[int],
    plan: InstallationPlan,
    requested_by: User | None,
    operation_id: UUID | None = None,
    is_bulk: bool = False,
    begin_on: Collection[int] = (),
    refuse_idle: bool = False,
    said: RunOutlook | None = None,
) -> list[RequestOutcome]:
    """Ask for an installation of the plan on every VM; each gets its own answer (docs/rules.md, admission).

    `refuse_idle`: refuse where by the last assessment there is nothing to do, no update and no pending reboot. Doors
    where a person acts say so; a window or automatic patching asks the machine, which may know more by then.
    `said`: what a review promised of these machines; one on which a run would do more by now, or whose assessment is gone, is
    refused (docs/rules.md, what a review promises).
    `operation_id` (one VM only) makes the request repeatable: the second click finds what the first one made.
    `begin_on` as in `request_assessments`. Raises PlanError if the plan itself is invalid.
    """
    if problems := validate_plan(plan):
        raise PlanError(problems)
    codes = _by_what_is_seen(vm_ids, plan, said) if refuse_idle or said else {}
    refused = [RequestOutcome(pk, RequestVerdict.REFUSED, None, code) for pk, code in codes.items()]
    return refused + request_with_payload(
        kind=OperationKind.INSTALLATION,
        vm_ids=[pk for pk in vm_ids if pk not in codes],
        payload=plan,
        requested_by=requested_by,
        operation_id=operation_id,
        is_bulk=is_bulk,
        begin_on=begin_on,
    )


def _by_what_is_seen(vm_ids: Collection[int], plan: InstallationPlan, said: RunOutlook | None) -> dict[int, ErrorCode]:
    """Why some of these VMs take no such installation, by what a run would do there now."""
    seen = foresee(vm_ids, plan, now=database_now())
    codes = {pk: ErrorCode.PLAN_NOTHING_TO_DO for pk, found in seen.items() if found.work is RunWork.NOTHING}
    if said is None:
        return codes
    changed = {pk: ErrorCode.PLAN_CHANGED for pk, found in seen.items() if not said.covers(found.outlook)}
    return changed | codes | {pk: ErrorCode.VM_NOT_ASSESSED for pk in vm_ids if pk not in seen}


def _repeated(operation_id: UUID, vm_id: int) -> RequestOutcome:
    """The answer to a second click. An id that belongs to another VM is a tampered form and gets no look inside."""
    if Operation.objects.filter(pk=operation_id, vm_id=vm_id).exists():
        return RequestOutcome(vm_id, RequestVerdict.JOINED, operation_id)
    return RequestOutcome(vm_id, RequestVerdict.REFUSED, None, ErrorCode.REQUEST_ID_TAKEN)


# Requests for the same VM wait for each other here, so that each sees what the other has queued.
_LOCK_VMS = """
SELECT id, update_status, connection_id, gone_at IS NOT NULL FROM vms_virtualmachine
WHERE id = ANY(%s::bigint[]) ORDER BY id FOR NO KEY UPDATE
"""
_INSERT = """
INSERT INTO updates_operation (
    id, vm_id, connection_id, kind, state, priority, is_bulk, payload, handle, requested_by_id, created_at, next_step_at,
    started_at, deadline_at, attempts, error_code, error_detail, reboot_status, is_maintenance_window_exceeded,
    installed_count, failed_count, pending_count, excluded_count, not_selected_count, verification, build_before,
    build_after
)
SELECT COALESCE(%(id)s::uuid, (%(id_begins)s || substr(gen_random_uuid()::text, 16))::uuid),
    m.id, m.connection_id, %(kind)s, %(state)s, %(priority)s, %(is_bulk)s, %(payload)s::jsonb, '', %(user)s,
    COALESCE(%(started_at)s::timestamptz, clock_timestamp()),
    COALESCE(%(started_at)s::timestamptz, clock_timestamp()) + make_interval(secs => %(lease)s),
    %(started_at)s::timestamptz, %(deadline_at)s::timestamptz, %(attempts)s, '', '', '', false,
    0, 0, 0, 0, 0, '', COALESCE(s.os_build, ''), ''
FROM vms_virtualmachine m LEFT JOIN updates_vmupdatestate s ON s.vm_id = m.id
WHERE m.id = ANY(%(vms)s::bigint[])
ORDER BY m.id
ON CONFLICT DO NOTHING
RETURNING vm_id, id, connection_id, created_at::text
"""


# What is held back on a VM since a rollback joins the exclusions of its plan, for good and visibly.
_HOLD_BACK = """
UPDATE updates_operation o
SET payload = jsonb_set(o.payload, '{kb_numbers_to_exclude}', (o.payload -> 'kb_numbers_to_exclude') || h.kbs)
FROM (SELECT vm_id, jsonb_agg(kb_number ORDER BY kb_number) AS kbs FROM updates_kbhold GROUP BY vm_id) h
WHERE o.id = ANY(%s::uuid[]) AND h.vm_id = o.vm_id
RETURNING o.id, o.payload::text
"""


@transaction.atomic
def request_with_payload(
    *,
    kind: OperationKind,
    vm_ids: Collection[int],
    payload: Payload | None,
    requested_by: User | None,
    operation_id: UUID | None = None,
    is_bulk: bool = False,
    begin_on: Collection[int] = (),
) -> list[RequestOutcome]:
    """Ask for operations that carry this (None: nothing); admitted as installations are. Other arguments as in `request_installations`."""
    if operation_id is not None:
        if len(set(vm_ids)) != 1:
            raise ValueError("operation_id names the operation of exactly one VM")
        (vm_id,) = set(vm_ids)
        if Operation.objects.filter(pk=operation_id).exists():
            return [_repeated(operation_id, vm_id)]
    return _request(
        kind=kind,
        vm_ids=vm_ids,
        payload=payload,
        requested_by=requested_by,
        is_bulk=is_bulk,
        operation_id=operation_id,
        begin_on=begin_on,
    )


def _request(
    *,
    kind: OperationKind,
    vm_ids: Collection[int],
    payload: Payload | None,
    requested_by: User | None,
    is_bulk: bool,
    operation_id: UUID | None,
    begin_on: Collection[int],
) -> list[RequestOutcome]:
    ids = sorted(set(vm_ids))
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_VMS, [array(ids)])
        rows = cursor.fetchall()
    statuses = {vm_id: status for vm_id, status, _connection, _is_gone in rows}
    if operation_id is not None and Operation.objects.filter(pk=operation_id).exists():
        # The first click committed while this one waited for the VM.
        return [_repeated(operation_id, vm_id) for vm_id in statuses]
    open_operations = _open_operations(ids)
    frozen = held(list(statuses), kind=kind, payload=payload, now=database_now()) if is_held(kind) else {}
    refused = dict.fromkeys(frozen, ErrorCode.FREEZE_HELD) | dict(_refusals(kind, statuses))
    if requested_by is None:
        refused |= {vm_id: ErrorCode.VM_GONE for vm_id, _status, _connection, is_gone in rows if is_gone}
    outcomes, accepted, to_cancel = _admitted(kind, list(statuses), open_operations, refused)
    if to_cancel:
        _cancel(to_cancel, detail={"by": "installation"})
    free: dict[int, list[int]] = defaultdict(list)
    for vm_id, _status, connection_id, _is_gone in rows:
        if connection_id in begin_on and vm_id not in outcomes and vm_id not in open_operations:
            free[connection_id].append(vm_id)
    now = database_now() if free else None
    begun = _with_room(free, now) if now else set()
    new = _New(kind, payload, requested_by, is_bulk)
    for begins_at in {now, None}:
        wanted = [vm_id for vm_id in accepted if (vm_id in begun) is (begins_at is not None)]
        for row in new.insert(wanted, operation_id, begins_at=begins_at):
            outcomes[row.vm_id] = RequestOutcome(
                row.vm_id, RequestVerdict.ACCEPTED, row.pk, begun=row if begins_at else None
            )
    if requested_by is not None and not is_bulk:
        note_requests(kind=kind, vm_ids=accepted, plan=fields_of(kind, payload), requested_by=requested_by)
    return [outcomes[vm_id] for vm_id in statuses if vm_id in outcomes]


class _Admitted(NamedTuple):
    """What comes of a request: the answers where nothing new starts, the VMs where it does, and what it replaces."""

    outcomes: dict[int, RequestOutcome]
    accepted: list[int]
    to_cancel: list[UUID]


def _admitted(
    kind: OperationKind,
    vm_ids: Sequence[int],
    open_operations: Mapping[int, Sequence[_Open]],
    refused: Mapping[int, ErrorCode],
) -> _Admitted:
    """Judge a request on each VM by what is open there and by why it is refused."""
    found = _Admitted({}, [], [])
    with_nothing_open = admit(kind, frozenset())
    for vm_id in vm_ids:
        here = open_operations.get(vm_id, [])
        verdict = with_nothing_open
        if here:
            verdict = admit(kind, frozenset((row_kind, state) for _id, row_kind, state in here))
        if verdict is Admission.CONFLICT:
            blocker = next(row[0] for row in here if row[1].changes_the_machine)
            found.outcomes[vm_id] = RequestOutcome(
                vm_id, RequestVerdict.REFUSED, blocker, ErrorCode.CONFLICT_INSTALLATION_OPEN
            )
        elif vm_id in refused:
            found.outcomes[vm_id] = RequestOutcome(vm_id, RequestVerdict.REFUSED, None, refused[vm_id])
        elif verdict is Admission.JOIN:
            # A running one answers sooner than a queued one. Settings join queued settings alone.
            same = [row for row in here if row[1] is kind]
            joined = min(same, key=lambda row: row[2] is S.QUEUED)[0]
            found.outcomes[vm_id] = RequestOutcome(vm_id, RequestVerdict.JOINED, joined)
        else:
            if verdict is Admission.ACCEPT_AND_CANCEL_QUEUED_ASSESSMENT:
                found.to_cancel.extend(row[0] for row in here if row[2] is S.QUEUED)
            found.accepted.append(vm_id)
    return found


def _with_room(vms: Mapping[int, Sequence[int]], now: datetime) -> set[int]:
    """Of these VMs by connection, those that their connections have room for."""
    return {
        vm_id
        for connection_id, ids in sorted(vms.items())
        for vm_id in ids[: reserve(connection_id, {WHOLE: len(ids)}, now)[WHOLE]]
    }


def _open_operations(vm_ids: Sequence[int]) -> dict[int, list[_Open]]:
    found: dict[int, list[_Open]] = defaultdict(list)
    # Two partial indexes hold nothing but these; by its VM alone an operation is one of a long history.
    here = Operation.objects.filter(vm__any=array(vm_ids)).order_by()
    columns = ("vm_id", "pk", "kind", "state")
    queued = here.filter(state=S.QUEUED.value).values_list(*columns)
    for vm_id, pk, kind, state in here.in_flight().values_list(*columns).union(queued, all=True):
        found[vm_id].append((pk, OperationKind(kind), S(state)))
    return found


def _refusals(kind: OperationKind, statuses: Mapping[int, str]) -> Mapping[int, ErrorCode]:
    """Why a VM can take no such operation now, by VM. Assessments are never refused: they are how we learn."""
    if kind is OperationKind.ASSESSMENT:
        return {}
    is_for_updates = kind is not OperationKind.SETTINGS
    refused = {
        vm_id: ErrorCode.VM_UNSUPPORTED
        for vm_id, status in statuses.items()
        if is_for_updates and status == UpdateStatus.UNSUPPORTED
    }
    silent = VmUpdateState.objects.filter(vm__any=array(statuses), is_awaiting_assessment=True)
    return refused | dict.fromkeys(silent.values_list("vm_id", flat=True), ErrorCode.VM_AWAITING_ASSESSMENT)


def _beginning_of_ids() -> str:
    """The first 15 characters of version 7 UUIDs that are made now (RFC 9562).

    Ids that begin with their time stand together in every index of a history of millions; random ones would touch a page
    for each. Nothing else relies on the time in them.
    """
    milliseconds = time.time_ns() // 1_000_000
    return f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-7"


_NAME_BUCKETS = """
UPDATE updates_operation o SET bucket = r.bucket FROM unnest(%s::uuid[], %s::text[]) AS r(id, bucket) WHERE o.id = r.id
"""


def _name_buckets(operations: Mapping[UUID, tuple[int, int]]) -> None:
    """Note which budget these new operations (VM and connection by id) are started out of, where their kind names any."""
    naming = {name: kind.traits.buckets for name, kind in KINDS.items() if kind.traits.buckets is not None}
    if not naming or not operations:
        return
    ids = {connection_id for _vm, connection_id in operations.values()}
    connection_kinds = dict(Connection.objects.filter(pk__in=ids, kind__in=naming).values_list("pk", "kind"))
    if not connection_kinds:
        return
    mine = {pk: own for pk, own in operations.items() if own[1] in connection_kinds}
    vms = VirtualMachine.objects.filter(pk__any=array(vm_id for vm_id, _connection in mine.values()))
    places = {
        vm_id: Place(str(subscription), location.lower())
        for vm_id, subscription, location in vms.values_list(
            "pk", "resource_group__subscription__subscription_id", "location"
        )
    }
    names = {pk: naming[connection_kinds[own[1]]].name_of(places[own[0]])[:100] for pk, own in mine.items()}
    found: dict[int, set[str]] = defaultdict(set)
    for pk, name in names.items():
        found[operations[pk][1]].add(name)
    now = database_now()
    for connection_id, buckets in sorted(found.items()):
        limits = naming[connection_kinds[connection_id]]
        add_buckets(connection_id, sorted(buckets), now, per_minute=limits.per_minute, burst=limits.burst)
    with connection.cursor() as cursor:
        cursor.execute(_NAME_BUCKETS, [list(names), list(names.values())])


@dataclass(frozen=True, slots=True)
class _New:
    """What the new operations of one request have in common."""

    kind: OperationKind
    payload: Payload | None
    requested_by: User | None
    is_bulk: bool

    def insert(
        self, vm_ids: Sequence[int], operation_id: UUID | None, *, begins_at: datetime | None
    ) -> list[ClaimedRow]:
        """Insert one for each VM, queued or begun at this moment, with the first lines of their timelines.

        `operation_id`: the id of the only one.
        """
        if not vm_ids:
            return []
        kind, is_begun = self.kind, begins_at is not None
        payload = json.dumps(encode(kind, self.payload)) if self.payload else None
        priority = Priority.BULK if self.is_bulk else Priority.INTERACTIVE
        with connection.cursor() as cursor:
            cursor.execute(
                _INSERT,
                {
                    "id": operation_id,
                    "id_begins": _beginning_of_ids(),
                    "vms": array(vm_ids),
                    "kind": kind.value,
                    "state": (S.STARTING if is_begun else S.QUEUED).value,
                    "priority": priority,
                    "is_bulk": self.is_bulk,
                    "payload": payload,
                    "user": self.requested_by.pk if self.requested_by else None,
                    "lease": settings.OPERATION_LEASE_SECONDS if is_begun else 0,
                    "started_at": begins_at,
                    "deadline_at": begins_at + deadline_after(kind, self._longest) if begins_at else None,
                    "attempts": int(is_begun),
                },
            )
            rows = cursor.fetchall()
        _name_buckets({pk: (vm_id, connection_id) for vm_id, pk, connection_id, _at in rows})
        with connection.cursor() as cursor:
            own_payloads: dict[UUID, str] = {}
            if kind is OperationKind.INSTALLATION:
                cursor.execute(_HOLD_BACK, [array(row[1] for row in rows)])
                own_payloads = dict(cursor.fetchall())
        made = [
            ClaimedRow.begun(
                pk,
                vm_id,
                connection_id,
                kind,
                payload=own_payloads.get(pk, payload),
                created_at=datetime.fromisoformat(at),
            )
            for vm_id, pk, connection_id, at in rows
        ]
        if kind.changes_the_machine:
            by = {"by": self.requested_by.get_username()} if self.requested_by else {}
            lines: list[tuple[str, OperationState, Mapping[str, str]]] = [(EventCode.REQUESTED, S.QUEUED, by)]
            if is_begun:
                lines.append((EventCode.STARTING, S.STARTING, {}))
            write_events((row.pk, row.created_at, *line) for row in made for line in lines)
        return made

    @property
    def _longest(self) -> timedelta | None:
        """How long it may take: an installation by its plan, a restart as any; nothing else that takes its time is begun at once."""
        if self.kind is OperationKind.RESTART:
            return LONGEST
        return self.payload.maximum_duration if isinstance(self.payload, InstallationPlan) else None


_CARRY = """
UPDATE updates_operation o SET payload = %s::jsonb, requested_by_id = %s
WHERE o.id = ANY(%s::uuid[]) AND o.kind = %s AND o.state = %s RETURNING o.id
"""


def carry_settings(*, operation_ids: Collection[UUID], settings: PatchSettings, requested_by: User | None) -> set[UUID]:
    """Let queued settings operations carry these settings instead; those that are still queued. Call it in a transaction.

    Whoever asked last is who changes the machine; the timeline has both.
    """
    with connection.cursor() as cursor:
        by, kind = requested_by.pk if requested_by else None, OperationKind.SETTINGS
        carried_by = json.dumps(encode(kind, settings))
        cursor.execute(_CARRY, [carried_by, by, array(operation_ids), kind.value, S.QUEUED.value])
        carried = {row[0] for row in cursor.fetchall()}
    who = {"by": requested_by.get_username()} if requested_by else {}
    now = database_now()
    write_events((pk, now, EventCode.SETTINGS_REPLACED, S.QUEUED, who) for pk in carried)
    return carried


# --- cancelling them ---------------------------------------------------------------------------------------------


@transaction.atomic
def cancel_operations(
    *, operation_ids: Collection[UUID], requested_by: User | None, is_bulk: bool = False
) -> set[UUID]:
    """Cancel operations that are still queued; returns those that were. What has started is left alone.

    `is_bulk`: they are part of something larger, whose cancelling is kept as a whole.
    """
    cancelled = _cancel(operation_ids, {"by": requested_by.get_username()} if requested_by else {})
    if requested_by is not None and not is_bulk:
        note_cancelled(operation_ids=cancelled, cancelled_by=requested_by)
    return cancelled


def _cancel(operation_ids: Collection[UUID], detail: Mapping[str, Any]) -> set[UUID]:
    kinds = dict(Operation.objects.filter(pk__any=array(operation_ids), state=S.QUEUED.value).values_list("pk", "kind"))
    return transition(
        changes=[
            Change(
                operation_id=pk,
                from_state=S.QUEUED,
                to_state=S.CANCELLED,
                event=EventCode.CANCELLED if OperationKind(kind).changes_the_machine else "",
                detail=detail,
            )
            for pk, kind in kinds.items()
        ],
        now=database_now(),
    )


def database_now() -> datetime:
    """The database's clock, the only one that operations are measured by."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (now,) = cursor.fetchone() or (None,)
    assert isinstance(now, datetime)
    return now
