"""Who may do what where: giving and taking role assignments."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Any

from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied
from django.db import transaction

from db.locks import Lock, hold
from vms.choices import Role, Scope
from vms.models import Grants, ResourceGroup, RoleAssignment, Subscription, VirtualMachine
from vms.selectors import Held, Place, held_on, leaves_an_owner, may_give_on

_SCOPES = {
    Subscription: Scope.SUBSCRIPTION,
    ResourceGroup: Scope.RESOURCE_GROUP,
    VirtualMachine: Scope.VM,
}
PLACES = ("subscription", "resource_group__subscription", "vm__resource_group__subscription")


class Taken(StrEnum):
    """What became of taking a role back."""

    TAKEN = "taken"
    GONE = "gone"  # somebody else has taken it back
    LAST_OWNER = "last_owner"  # no Owner of everything would be left


def assign_role(
    *,
    role: Role,
    on: Held = None,
    users: Collection[User] = (),
    groups: Collection[Group] = (),
) -> None:
    """Give this role to users and groups on a scope (None: everything). What they hold already stays as it is."""
    place = _fields(on)
    wanted = [
        *(RoleAssignment(user=user, role=role.value, **place) for user in users),
        *(RoleAssignment(group=group, role=role.value, **place) for group in groups),
    ]
    RoleAssignment.objects.bulk_create(wanted, ignore_conflicts=True)


def revoke_roles(*, assignments: Collection[RoleAssignment]) -> int:
    """Take these assignments back; how many were there."""
    deleted, _by_model = RoleAssignment.objects.filter(pk__in=[assignment.pk for assignment in assignments]).delete()
    return deleted


def _fields(on: Held) -> dict[str, Any]:
    if on is None:
        return {"scope": Scope.EVERYTHING.value}
    scope = _SCOPES[type(on)]
    return {"scope": scope.value, scope.value: on}


@transaction.atomic
def give_role(*, role: Role, on: Held, to: User | Group, by: User) -> bool:
    """A person gives a role; False: it was held there already. Raises PermissionDenied (docs/rules.md, Access).

    The group of a VM must be loaded. What the giver holds is read anew, whatever a page has shown.
    """
    if not may_give_on(Grants.of(by), Place.of(on)):
        raise PermissionDenied
    principal: dict[str, Any] = {"user": to, "group": None} if isinstance(to, User) else {"user": None, "group": to}
    place = {"subscription": None, "resource_group": None, "vm": None} | _fields(on)
    _row, is_new = RoleAssignment.objects.get_or_create(role=role.value, **principal, **place)
    return is_new


@transaction.atomic
def take_role(*, assignment_id: int, by: User) -> Taken:
    """A person takes a role back. Raises PermissionDenied (docs/rules.md, Access).

    One at a time, so that two cannot take the last two Owners of everything from each other.
    """
    hold(Lock.OWNERS)
    row = RoleAssignment.objects.select_related(*PLACES).filter(pk=assignment_id).first()
    if row is None:
        return Taken.GONE
    if not may_give_on(Grants.of(by), Place.of(held_on(row))):
        raise PermissionDenied
    is_owner_of_everything = row.role == Role.OWNER and row.scope == Scope.EVERYTHING
    if is_owner_of_everything and not leaves_an_owner(without=row.pk):
        return Taken.LAST_OWNER
    row.delete()
    return Taken.TAKEN
