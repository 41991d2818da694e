"""Which machines a configuration means, why each is in, and which of them would not be patched and why."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlencode

from django.core.exceptions import EmptyResultSet
from django.db.models import Q
from django.urls import reverse

from db.bounded import ListTooSlowError, fetch_bounded
from patching.orchestrator import Patcher, PatcherVerdict
from patching.scope import Scope
from updates.models import MaintenanceConfiguration
from updates.selectors.scopes import scope_filter, scope_lines, scope_means
from updates.texts import Text
from vms.models import VirtualMachine, VirtualMachineQuerySet
from vms.regions import clock_of
from vms.selectors import patcher_of

_LIST_FILTERS = frozenset({"subscription", "resource_group", "location"})  # which the list calls the same
MOST_JUDGED, MOST_SHOWN = 1_000, 50


@dataclass(frozen=True, slots=True)
class Member:
    """A machine that is meant: by its name, by the scope, or by both; and who patches it then.

    `lacks_clock`: windows open on each machine's own clock, and nobody knows that of this one.
    """

    vm: VirtualMachine
    is_named: bool
    is_in_scope: bool
    verdict: PatcherVerdict
    lacks_clock: bool = False

    @property
    def is_patched(self) -> bool:
        """Whether a window would install on it."""
        return self.is_ready and not self.lacks_clock

    @property
    def is_ready(self) -> bool:
        """Whether its settings let a window install on it."""
        return self.verdict.patcher is Patcher.PORTAL_BY_SCHEDULE


@dataclass(frozen=True, slots=True)
class Members:
    """The machines that a scope and names mean. `count` None: counting took too long. `judged`: the first 1,000.

    `chips`: what the scope asks for, in words; `address`: the list of its machines, where the list has such filters.
    """

    count: int | None
    judged: tuple[Member, ...]
    chips: tuple[tuple[Text, str], ...]
    address: str

    @property
    def ready(self) -> int:
        """How many of those judged would be patched."""
        return sum(member.is_patched for member in self.judged)

    @property
    def ready_ids(self) -> list[int]:
        """The ids of those."""
        return [member.vm.pk for member in self.judged if member.is_patched]

    @property
    def are_all_judged(self) -> bool:
        """Whether there are no more than those judged."""
        return self.count == len(self.judged)

    @property
    def shown(self) -> tuple[Member, ...]:
        """The first to show, those that would not be patched before the others."""
        return tuple(sorted(self.judged, key=lambda member: member.is_patched)[:MOST_SHOWN])


def members_for(
    scope: Scope, vm_ids: Collection[int], *, most: int = MOST_JUDGED, is_own_clock: bool = False
) -> Members:
    """The machines of a scope and those named, without those that are gone (four queries).

    `is_own_clock`: the windows open on each machine's own clock.
    """
    dynamic = scope_filter(scope)
    meant = Q(pk__in=list(vm_ids)) | dynamic if dynamic else Q(pk__in=list(vm_ids))
    return _members(scope, meant, vm_ids, most, is_own_clock)


def members_kept(configuration: MaintenanceConfiguration, scope: Scope) -> Members:
    """The machines that a kept configuration, with this scope, means."""
    named = configuration.vms.values_list("pk", flat=True)
    return members_for(scope, named, is_own_clock=configuration.is_own_clock)


def _members(scope: Scope, meant: Q, vm_ids: Collection[int], most: int, is_own_clock: bool) -> Members:
    vms: VirtualMachineQuerySet = VirtualMachine.objects.filter(meant, gone_at=None)
    named = set(vm_ids)
    rows = vms.order_by("name", "pk").select_related("connection", "resource_group__subscription")[:most]
    judged = tuple(
        Member(
            vm,
            vm.pk in named,
            scope_means(scope, vm),
            patcher_of(vm, has_schedule=True),
            is_own_clock and clock_of(vm.time_zone, vm.location) is None,
        )
        for vm in rows
    )
    count = len(judged) if len(judged) < most else _count(vms)
    return Members(count, judged, tuple(scope_lines(scope)), _address(scope))


def _count(vms: VirtualMachineQuerySet) -> int | None:
    """How many there are; None where counting takes too long."""
    try:
        ((count,),) = fetch_bounded(*_count_sql(vms))
    except ListTooSlowError:
        return None
    return int(count)


def _count_sql(vms: VirtualMachineQuerySet) -> tuple[str, tuple[object, ...]]:
    try:
        sql, parameters = vms.order_by().values("pk").query.sql_with_params()
    except EmptyResultSet:
        return "SELECT 0", ()
    return f"SELECT count(*) FROM ({sql}) AS m", parameters  # noqa: S608 (ours)


def _address(scope: Scope) -> str:
    """The list of a scope's machines; empty where it asks for what the list has no filter for."""
    given = scope.as_json
    if not given or scope.image_sku:
        return ""
    asked: dict[str, str] = {name: str(value) for name, value in given.items() if name in _LIST_FILTERS}
    if scope.tag_name:
        asked["tag"] = f"{scope.tag_name}={scope.tag_value}" if scope.tag_value else scope.tag_name
    return f"{reverse('vms:vm-list')}?{urlencode(asked)}"
