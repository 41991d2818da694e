"""Who may do what where: giving and taking role assignments."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from vms.choices import Role, Scope
from vms.models import ResourceGroup, RoleAssignment, Subscription, VirtualMachine

if TYPE_CHECKING:
    from django.contrib.auth.models import Group, User

_SCOPES = {
    Subscription: Scope.SUBSCRIPTION,
    ResourceGroup: Scope.RESOURCE_GROUP,
    VirtualMachine: Scope.VM,
}


def assign_role(
    *,
    role: Role,
    on: Subscription | ResourceGroup | VirtualMachine | None = None,
    users: Collection[User] = (),
    groups: Collection[Group] = (),
) -> None:
    """Give this role to users and groups on a scope (None: everything). What they hold already stays as it is."""
    scope = Scope.EVERYTHING if on is None else _SCOPES[type(on)]
    place = {} if on is None else {scope.value: on}
    wanted = [
        *(RoleAssignment(user=user, role=role.value, scope=scope.value, **place) for user in users),
        *(RoleAssignment(group=group, role=role.value, scope=scope.value, **place) for group in groups),
    ]
    RoleAssignment.objects.bulk_create(wanted, ignore_conflicts=True)


def revoke_roles(*, assignments: Collection[RoleAssignment]) -> int:
    """Take these assignments back; how many were there."""
    deleted, _by_model = RoleAssignment.objects.filter(pk__in=[assignment.pk for assignment in assignments]).delete()
    return deleted
