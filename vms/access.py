"""How a view gets at a VM: what you may not see is 404, what you may see but not do is 403."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.core.exceptions import PermissionDenied
from django.shortcuts import get_object_or_404

from vms.choices import Role
from vms.models import Grants, VirtualMachine, VirtualMachineQuerySet

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User


@dataclass(frozen=True, slots=True)
class Access:
    """A VM, and every role that the reader holds on it."""

    vm: VirtualMachine
    roles: frozenset[Role]

    @property
    def may_operate(self) -> bool:
        """Whether the reader may assess, install and cancel."""
        return Role.OPERATOR in self.roles

    @property
    def may_own(self) -> bool:
        """Whether the reader may change settings."""
        return Role.OWNER in self.roles


def access_or_404(
    user: User | AnonymousUser,
    pk: int,
    role: Role = Role.READER,
    *,
    vms: VirtualMachineQuerySet | None = None,
) -> Access:
    """The VM with its connection, group and subscription, and the reader's roles on it; at least `role`.

    Two queries (three with a role on a subscription). `vms`: where to look, if the caller wants more than the VM's row.
    """
    grants = Grants.of(user)
    rows = (VirtualMachine.objects.all() if vms is None else vms).granted_by(grants)
    vm = get_object_or_404(rows.select_related("connection", "resource_group__subscription"), pk=pk)
    roles = grants.roles_on(vm)
    if role not in roles:
        raise PermissionDenied
    return Access(vm, roles)


def vm_or_404(user: User | AnonymousUser, pk: int, role: Role = Role.READER) -> VirtualMachine:
    """The VM, if the reader may see it and holds at least this role."""
    return access_or_404(user, pk, role).vm
