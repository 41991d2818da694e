"""What the door reads: places and machines as far as a caller may see them, and what operations found.

Who may not see a place gets 403, whether it is there or not; who may see all that would be in it learns by 404 that it is not
there. That is how Azure answers, and it tells strangers nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Q, QuerySet

from arm_api.callers import Caller
from arm_api.calls import Call, guid_of
from arm_api.errors import ArmCode, ArmError
from arm_api.kinds import MachineKind
from db.arrays import array
from patching.terms import OperationKind, OperationState
from updates.models import Operation, PatchResult, PatchSetMember, VmUpdateState
from vms.choices import Role
from vms.models import Grants, ResourceGroup, Subscription, VirtualMachine, VirtualMachineQuerySet

_WITH_PLACE = ("connection", "resource_group__subscription")


# --- places ------------------------------------------------------------------------------------------------------


def visible_subscriptions(grants: Grants) -> QuerySet[Subscription]:
    """The subscriptions in which something may be seen."""
    rows = Subscription.objects.all()
    if grants.are_of_everything:
        return rows
    groups = ResourceGroup.objects.filter(
        Q(pk__in=grants.group_ids)
        | Q(pk__in=VirtualMachine.objects.filter(pk__in=grants.vm_ids).values("resource_group"))
    )
    return rows.filter(Q(pk__in=grants.subscription_ids) | Q(pk__in=groups.order_by().values("subscription")))


def visible_groups(grants: Grants, subscription: Subscription) -> QuerySet[ResourceGroup]:
    """The groups of a subscription in which something may be seen."""
    rows = ResourceGroup.objects.filter(subscription=subscription).select_related("subscription")
    if grants.are_of_everything or subscription.pk in grants.subscription_ids:
        return rows
    of_vms = VirtualMachine.objects.filter(pk__in=grants.vm_ids).order_by().values("resource_group")
    return rows.filter(Q(pk__in=grants.group_ids) | Q(pk__in=of_vms))


def subscription_of(call: Call) -> Subscription:
    """The subscription of the path, if something in it may be seen. Raises ArmError."""
    grants, wanted = call.caller.grants, call.subscription_id
    found = visible_subscriptions(grants).filter(subscription_id=wanted).first()
    if found is None and grants.are_of_everything:
        raise ArmError(ArmCode.SUBSCRIPTION_NOT_FOUND, f"The subscription '{wanted}' could not be found.")
    if found is None:
        raise unauthorized(call, f"/subscriptions/{wanted}")
    return found


def group_of(call: Call) -> ResourceGroup:
    """The resource group of the path, if something in it may be seen. Raises ArmError."""
    subscription, name = subscription_of(call), call.place["group"]
    found = visible_groups(call.caller.grants, subscription).filter(name__iexact=name).first()
    if found is None and _sees_all_of(call.caller.grants, subscription):
        raise _no_group(name)
    if found is None:
        raise unauthorized(call, f"/subscriptions/{subscription.subscription_id}/resourceGroups/{name}")
    return found


def _sees_all_of(grants: Grants, subscription: Subscription) -> bool:
    return grants.are_of_everything or subscription.pk in grants.subscription_ids


def _no_group(name: str) -> ArmError:
    return ArmError(ArmCode.GROUP_NOT_FOUND, f"Resource group '{name}' could not be found.")


def unauthorized(call: Call, scope: str) -> ArmError:
    """The caller may not do this there, or there is no such place."""
    message = (
        f"The client '{call.caller.app_id}' does not have authorization to perform action '{call.action}' over scope "
        f"'{scope}' or the scope is invalid."
    )
    return ArmError(ArmCode.AUTHORIZATION_FAILED, message)


# --- machines ----------------------------------------------------------------------------------------------------


def machines_of(caller: Caller, kind: MachineKind) -> VirtualMachineQuerySet:
    """The machines of this type that the caller may see, with their places; those that are gone are not there."""
    rows = VirtualMachine.objects.granted_by(caller.grants).filter(gone_at__isnull=True)
    return rows.filter(arm_id__contains=kind.mark).select_related(*_WITH_PLACE)


def machine_of(call: Call, kind: MachineKind, role: Role = Role.READER) -> VirtualMachine:
    """The machine of the path on which the caller holds this role (one query). Raises ArmError 403 or 404."""
    group, name = call.place["group"], call.place["name"]
    scope = f"/subscriptions/{call.subscription_id}/resourceGroups/{group}/providers/{kind.type}/{name}"
    rows = VirtualMachine.objects.filter(gone_at__isnull=True).select_related(*_WITH_PLACE)
    found = rows.filter(arm_id=scope.lower()).first()
    roles = call.caller.roles_on(found) if found else frozenset[Role]()
    if found is not None and role in roles:
        return found
    if roles or not _would_see(call, group):
        raise unauthorized(call, scope)
    message = f"The Resource '{kind.type}/{name}' under resource group '{group}' was not found."
    raise ArmError(ArmCode.RESOURCE_NOT_FOUND, message)


def _would_see(call: Call, group_name: str) -> bool:
    """Whether the caller may see every machine of this group. Raises ArmError if it may, and there is no such group."""
    grants = call.caller.grants
    group = ResourceGroup.objects.filter(
        subscription__subscription_id=call.subscription_id, name__iexact=group_name
    ).first()
    if group is not None:
        of_all = grants.are_of_everything or group.subscription_id in grants.subscription_ids
        return of_all or group.pk in grants.group_ids
    subscription = Subscription.objects.filter(subscription_id=call.subscription_id).first()
    if subscription is not None and _sees_all_of(grants, subscription):
        raise _no_group(group_name)
    if subscription is None and grants.are_of_everything:
        raise ArmError(ArmCode.SUBSCRIPTION_NOT_FOUND, f"The subscription '{call.subscription_id}' could not be found.")
    return False


# --- what operations found ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PatchStatus:
    """What the instance view of a machine tells: its last assessment, installation and change of settings, and what is known of it."""

    state: VmUpdateState | None = None
    assessment: Operation | None = None
    installation: Operation | None = None
    settings: Operation | None = None


# The last of each kind; an operation that was taken back did nothing.
_LAST = """
SELECT o.* FROM unnest(%s::bigint[]) AS v(id) CROSS JOIN unnest(%s::text[]) AS k(kind) CROSS JOIN LATERAL (
    SELECT * FROM updates_operation WHERE vm_id = v.id AND kind = k.kind AND state <> %s
    ORDER BY created_at DESC LIMIT 1
) o
"""
_KINDS = [OperationKind.ASSESSMENT, OperationKind.INSTALLATION, OperationKind.SETTINGS]


def patch_statuses(vms: Sequence[VirtualMachine]) -> dict[int, PatchStatus]:
    """The patch status of each of these machines by its id (two queries for any number)."""
    ids = [vm.pk for vm in vms]
    states = {state.pk: state for state in VmUpdateState.objects.filter(vm__any=array(ids))}
    last: dict[int, dict[str, Operation]] = defaultdict(dict)
    for operation in Operation.objects.raw(_LAST, [array(ids), array(_KINDS), OperationState.CANCELLED.value]):
        last[operation.vm_id][operation.kind] = operation
    return {
        pk: PatchStatus(
            states.get(pk),
            last[pk].get(OperationKind.ASSESSMENT),
            last[pk].get(OperationKind.INSTALLATION),
            last[pk].get(OperationKind.SETTINGS),
        )
        for pk in ids
    }


def operation_of(call: Call, kind: MachineKind) -> Operation:
    """The operation of the path, of a machine that the caller may see. Raises ArmError: ids of others are not there."""
    given, location = call.place["operation"], call.place["location"].lower()
    try:
        operation = Operation.objects.select_related(*(f"vm__{name}" for name in _WITH_PLACE)).get(pk=guid_of(given))
    except (ValueError, Operation.DoesNotExist):
        raise _no_operation(given) from None
    vm = operation.vm
    is_here = (
        vm.resource_group.subscription.subscription_id == call.subscription_id
        and vm.location.lower() == location
        and kind.mark in vm.arm_id
    )
    if not is_here or Role.READER not in call.caller.roles_on(vm):
        raise _no_operation(given)
    return operation


def _no_operation(given: str) -> ArmError:
    return ArmError(ArmCode.NOT_FOUND, f"The operation '{given}' could not be found.")


def available_of(vm_ids: Collection[int]) -> Mapping[int, Sequence[PatchSetMember]]:
    """What the last assessments found on these machines, by machine (two queries)."""
    sets = dict(
        VmUpdateState.objects.filter(vm__any=array(vm_ids), patch_set__isnull=False).values_list(
            "vm_id", "patch_set_id"
        )
    )
    members: dict[int, list[PatchSetMember]] = defaultdict(list)
    for member in (
        PatchSetMember.objects.filter(patch_set__in=set(sets.values())).select_related("patch").order_by("pk")
    ):
        members[member.patch_set_id].append(member)
    return {vm_id: members[set_id] for vm_id, set_id in sets.items() if set_id is not None}


def results_of(operation_ids: Collection[UUID]) -> Mapping[UUID, Sequence[PatchResult]]:
    """What installations did with each update, by operation (one query)."""
    found: dict[UUID, list[PatchResult]] = defaultdict(list)
    for row in PatchResult.objects.filter(operation__in=operation_ids).select_related("patch").order_by("pk"):
        found[row.operation_id].append(row)
    return found
