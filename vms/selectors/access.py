"""Who may make machines, where, and who owns everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db.models import Exists, OuterRef, Q, QuerySet

from vms.choices import Role
from vms.models import Connection, Grants, ResourceGroup, VirtualMachine

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User


def owns_everything(user: User | AnonymousUser) -> bool:
    """Whether the user is Owner of everything: what importing VMs and assigning roles takes."""
    return Grants.of(user).at_least(Role.OWNER).are_of_everything


def groups_owned_by(user: User) -> QuerySet[ResourceGroup]:
    """The resource groups in which the user may make VMs: Owner of the group, its subscription, or everything."""
    grants = Grants.of(user).at_least(Role.OWNER)
    groups = ResourceGroup.objects.select_related("subscription")
    if grants.are_of_everything:
        return groups
    return groups.filter(Q(pk__in=grants.group_ids) | Q(subscription__in=grants.subscription_ids))


def may_create_vms(grants: Grants) -> bool:
    """Whether these grants let one make VMs in some resource group: Owner of a group, a subscription, or everything."""
    owned = grants.at_least(Role.OWNER)
    return owned.are_of_everything or bool(owned.group_ids or owned.subscription_ids)


def connections_owned_by(user: User) -> QuerySet[Connection]:
    """The connections behind which the user may put VMs: Owners of everything choose from all.

    Others choose from those behind which a VM of a subscription or resource group is that they own as a whole. Who owns
    single VMs leaves them where they are.
    """
    grants = Grants.of(user).at_least(Role.OWNER)
    rows = Connection.objects.order_by("name")
    if grants.are_of_everything:
        return rows
    behind = VirtualMachine.objects.order_by().filter(
        connection_id=OuterRef("pk"), resource_group__in=groups_owned_by(user).order_by().values("pk")
    )
    return rows.filter(Exists(behind))
