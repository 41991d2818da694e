"""How a view gets at a VM: what you may not see is 404, what you may see but not do is 403."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.shortcuts import get_object_or_404

from vms.choices import Role
from vms.models import Grants, VirtualMachine, VirtualMachineQuerySet
from vms.selectors import may_create_vms

if TYPE_CHECKING:
    from django.contrib.auth.models import User


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


class May:
    """What the reader of a page may do somewhere, so that no page shows a command that would answer 403.

    Nothing is read before a template asks; then one query, and none for superusers or where the page has read the grants.
    Each answer is worked out once: a list asks in every row.
    """

    def __init__(self, user: User | AnonymousUser) -> None:
        self._user = user

    @cached_property
    def _grants(self) -> Grants:
        return Grants.last_read(self._user)

    @cached_property
    def operate_somewhere(self) -> bool:
        """Whether there can be a VM that the reader may assess and install on."""
        return bool(self._grants.at_least(Role.OPERATOR).rows)

    @cached_property
    def own_somewhere(self) -> bool:
        """Whether there can be a VM whose settings the reader may change."""
        return bool(self._grants.at_least(Role.OWNER).rows)

    @cached_property
    def create(self) -> bool:
        """Whether the reader may make records of VMs."""
        return may_create_vms(self._grants)

    @cached_property
    def operate_everything(self) -> bool:
        """Whether the reader may decide what holds for every machine."""
        return self._grants.at_least(Role.OPERATOR).are_of_everything

    @cached_property
    def give_roles(self) -> bool:
        """Whether there is a place on which the reader may give roles."""
        return self.own_somewhere

    @cached_property
    def own_everything(self) -> bool:
        """Whether the reader may import VMs and change connections and maintenance configurations."""
        return self._grants.at_least(Role.OWNER).are_of_everything


def may(request: HttpRequest) -> dict[str, May]:
    """Context processor: `may`, for every template."""
    # A request that is refused early, for its host name, has nobody yet.
    return {"may": May(getattr(request, "user", None) or AnonymousUser())}
