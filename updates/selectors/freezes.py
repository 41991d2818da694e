"""Which freezes hold which machines: the one place where everything that would begin on a machine asks (docs/rules.md).

A freeze that cannot be read holds every machine, an exception that cannot be read lets none through.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db.models import (
    BooleanField,
    Case,
    Exists,
    OuterRef,
    Prefetch,
    Q,
    QuerySet,
    Value,
    When,
    prefetch_related_objects,
)

from db.arrays import array
from patching.freezes import FreezeState, Frozen, Hold, is_held, judge_start, longest_act, time_to_freeze
from patching.recurrence import MAX_DURATION
from patching.scope import Scope, ScopeError
from patching.terms import OperationKind, OperationState
from updates.models import Freeze, FreezeException, Operation
from updates.payloads import Payload, readable
from updates.selectors.scopes import scope_filter, scope_lines
from updates.texts import SCOPE_PROBLEMS, Text
from vms.models import VirtualMachine, VirtualMachineQuerySet
from vms.selectors import owns_everything

if TYPE_CHECKING:
    from django.contrib.auth.models import User

# How far to look ahead if the length of an act is not known: the longest window, and one hour to warn before it.
AHEAD = MAX_DURATION + timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class _InForce:
    """A freeze that is not over. `means` None: every machine. `exceptions`: until when, and for which machines."""

    row: Freeze
    means: Q | None
    exceptions: tuple[tuple[datetime, Q], ...]


def meant_by(freeze: Freeze) -> Q | None:
    """The machines that a freeze means; None: every one, also where its scope cannot be read."""
    if freeze.is_for_all:
        return None
    try:
        return scope_filter(Scope.from_json(freeze.scope))
    except ScopeError:
        return None


def meant_by_exception(exception: FreezeException) -> Q:
    """The machines that an exception lets through: those it names, and those of its scope where it can be read."""
    named = FreezeException.vms.through.objects.filter(
        freezeexception_id=exception.pk, virtualmachine_id=OuterRef("pk")
    )
    try:
        dynamic = scope_filter(Scope.from_json(exception.scope))
    except ScopeError:
        dynamic = None
    return Q(Exists(named)) | dynamic if dynamic else Q(Exists(named))


def _in_force(now: datetime, until: datetime) -> list[_InForce]:
    """The freezes that are not over, if one of them begins before `until` (one query, and then one more)."""
    rows = list(Freeze.objects.filter(ended_at=None, ends_at__gt=now).order_by("begins_at", "pk"))
    if not any(row.begins_at < until for row in rows):
        return []
    alive = FreezeException.objects.filter(ended_at=None, expires_at__gt=now)
    prefetch_related_objects(rows, Prefetch("exceptions", queryset=alive))
    return [
        _InForce(row, meant_by(row), tuple((one.expires_at, meant_by_exception(one)) for one in row.exceptions.all()))
        for row in rows
    ]


def freezes_of(vm_ids: Collection[int], *, now: datetime, until: datetime) -> dict[int, tuple[Frozen, ...]]:
    """For each of these machines the freezes that concern it, if one begins before `until`. Machines without a freeze are left out.

    One query where none is near, three where one is. A machine that is not there any more is held by all of them.
    """
    if not vm_ids or not (ahead := _in_force(now, until)):
        return {}
    flags: dict[str, Case] = {}
    for number, one in enumerate(ahead):
        if one.means is not None:
            flags[f"freeze_{number}"] = _flag(one.means)
        flags |= {f"freeze_{number}_{place}": _flag(means) for place, (_at, means) in enumerate(one.exceptions)}
    rows: dict[int, Mapping[str, bool]] = {pk: {} for pk in vm_ids}
    if flags:
        vms = VirtualMachine.objects.filter(pk__any=array(vm_ids)).order_by()
        for pk, *values in vms.annotate(**flags).values_list("pk", *flags):
            rows[pk] = dict(zip(flags, values, strict=True))
    found = {}
    for pk, means in rows.items():
        mine = tuple(
            _frozen(one, number, means) for number, one in enumerate(ahead) if means.get(f"freeze_{number}", True)
        )
        if mine:
            found[pk] = mine
    return found


def _flag(means: Q) -> Case:
    return Case(When(means, then=Value(True)), default=Value(False), output_field=BooleanField())


def _frozen(one: _InForce, number: int, means: Mapping[str, bool]) -> Frozen:
    excepted = [at for place, (at, _means) in enumerate(one.exceptions) if means.get(f"freeze_{number}_{place}", False)]
    return Frozen(one.row.begins_at, one.row.ends_at, one.row.name, max(excepted, default=None))


# --- what doors ask ----------------------------------------------------------------------------------------------


def held(vm_ids: Collection[int], *, kind: OperationKind, payload: Payload | None, now: datetime) -> dict[int, Hold]:
    """Of these machines, those on which an operation of this kind that carries this may not begin now, and why."""
    if not is_held(kind):
        return {}
    return holds_of(dict.fromkeys(vm_ids, longest_act(payload)), now=now)


def holds_of(longest: Mapping[int, timedelta], *, now: datetime) -> dict[int, Hold]:
    """Of these machines, those on which an act that may last so long may not begin now, and why."""
    most = max(longest.values(), default=timedelta(0))
    found = freezes_of(list(longest), now=now, until=now + most)
    judged = {pk: judge_start(freezes, now=now, longest=longest[pk]) for pk, freezes in found.items()}
    return {pk: hold for pk, hold in judged.items() if hold is not None}


def times_to_freezes(vm_ids: Collection[int], *, now: datetime) -> dict[int, timedelta]:
    """How long until a freeze holds these machines, zero in one; all that one may come to within five hours are in it."""
    found = freezes_of(vm_ids, now=now, until=now + AHEAD)
    times = {pk: time_to_freeze(freezes, now) for pk, freezes in found.items()}
    return {pk: left for pk, left in times.items() if left is not None}


def freezes_near(now: datetime) -> QuerySet[Freeze]:
    """The freezes that hold some machine within five hours."""
    return Freeze.objects.filter(ended_at=None, ends_at__gt=now, begins_at__lt=now + AHEAD).order_by()


def hold_ahead(vm_id: int, *, now: datetime) -> Hold | None:
    """The freeze that holds a machine now, or would hold the longest installation that begins now."""
    return holds_of({vm_id: AHEAD}, now=now).get(vm_id)


def holds_now(vm_ids: Collection[int], *, now: datetime) -> tuple[Hold, ...]:
    """The different answers that these machines get now, those that are free first the first."""
    found = set(holds_of(dict.fromkeys(vm_ids, AHEAD), now=now).values())
    return tuple(sorted(found, key=lambda hold: (hold.free_at, hold.names)))


def hold_of(operation: Operation, *, now: datetime) -> Hold | None:
    """The freeze that keeps a queued operation from starting now."""
    kind = OperationKind(operation.kind)
    if operation.state != OperationState.QUEUED:
        return None
    payload = readable(operation.kind, operation.payload)
    return held([operation.vm_id], kind=kind, payload=payload, now=now).get(operation.vm_id)


# --- what pages show ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FreezeRow:
    """A freeze as its reader sees it at a moment. `problem`: why it holds every machine although it has a scope."""

    row: Freeze
    now: datetime
    scope: tuple[tuple[Text, str], ...] = ()
    problem: str = ""
    machines: int | None = None  # that it means and the reader may see

    @property
    def state(self) -> FreezeState:
        """Whether it is to come, holds, has ended, or was ended early."""
        if self.row.ended_at is not None:
            return FreezeState.ENDED
        if self.now < self.row.begins_at:
            return FreezeState.AHEAD
        return FreezeState.HOLDS if self.now < self.row.ends_at else FreezeState.OVER

    @property
    def is_open(self) -> bool:
        """Whether it can still be changed, ended, and have exceptions."""
        return self.state in {FreezeState.AHEAD, FreezeState.HOLDS}


def visible_freezes(user: User, *, now: datetime) -> list[FreezeRow]:
    """The freezes that mean a machine of the reader's, all of them for Owners of everything; the latest end first, 200."""
    rows = list(Freeze.objects.order_by("-ends_at", "-pk")[:200])
    if not owns_everything(user):
        mine = VirtualMachine.objects.visible_to(user)
        asked = [(row.pk, means) for row in rows if (means := meant_by(row)) is not None]
        flags = Freeze.objects.annotate(
            is_mine=Case(
                *(When(pk=pk, then=Exists(mine.filter(means))) for pk, means in asked),
                default=Value(True),
                output_field=BooleanField(),
            )
        )
        shown = set(flags.filter(pk__in=[row.pk for row in rows], is_mine=True).values_list("pk", flat=True))
        rows = [row for row in rows if row.pk in shown]
    return [freeze_row(row, now=now) for row in rows]


def freeze_row(row: Freeze, *, now: datetime, vms: VirtualMachineQuerySet | None = None) -> FreezeRow:
    """What a freeze says. `vms`: of which machines those that it means are counted."""
    scope, problem = read_scope({} if row.is_for_all else row.scope)
    machines = None
    if vms is not None:
        means = meant_by(row)
        machines = (vms if means is None else vms.filter(means)).count()
    return FreezeRow(row, now, scope, problem, machines)


def read_scope(document: object) -> tuple[tuple[tuple[Text, str], ...], str]:
    """A kept scope in words, or what is wrong with it."""
    try:
        return tuple(scope_lines(Scope.from_json(document))), ""
    except ScopeError as error:
        return (), str(SCOPE_PROBLEMS[error.problem]) % {"entry": error.entry[:60]}


@dataclass(frozen=True, slots=True)
class ExceptionRow:
    """An exception to a freeze with what it means."""

    row: FreezeException
    is_alive: bool
    scope: tuple[tuple[Text, str], ...]
    problem: str
    machines: tuple[VirtualMachine, ...]  # the first that it names
    more: int  # how many others it names


MOST_NAMED = 20


def exceptions_of(row: Freeze, *, now: datetime) -> list[ExceptionRow]:
    """The exceptions to a freeze, those that are alive first."""
    exceptions: Sequence[FreezeException] = list(row.exceptions.select_related("created_by").prefetch_related("vms"))
    named = {one.pk: list(one.vms.all()) for one in exceptions}
    rows = [
        ExceptionRow(
            one,
            one.ended_at is None and now < one.expires_at and now < row.ends_at and row.ended_at is None,
            *read_scope(one.scope),
            tuple(named[one.pk][:MOST_NAMED]),
            max(0, len(named[one.pk]) - MOST_NAMED),
        )
        for one in exceptions
    ]
    return sorted(rows, key=lambda one: not one.is_alive)
