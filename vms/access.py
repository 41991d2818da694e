"""How a view gets at a VM: what you may not see is 404, what you may see but not do is 403."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.exceptions import PermissionDenied
from django.shortcuts import get_object_or_404

from vms.choices import Role
from vms.models import VirtualMachine
from vms.selectors import can

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User


def vm_or_404(user: User | AnonymousUser, pk: int, role: Role = Role.READER) -> VirtualMachine:
    """The VM with its connection, group and subscription, if the user may see it and holds at least this role."""
    visible = VirtualMachine.objects.visible_to(user).select_related(
        "connection", "resource_group__subscription"
    )
    vm = get_object_or_404(visible, pk=pk)
    if role is not Role.READER and not can(user, vm, role):
        raise PermissionDenied
    return vm
