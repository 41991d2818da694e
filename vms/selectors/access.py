"""Who may make machines, where, who owns everything, and who may give roles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from django.contrib.auth.models import User
from django.db.models import Exists, OuterRef, Q, QuerySet

from vms.choices import Role, Scope
from vms.models import Connection, Grant, Grants, ResourceGroup, RoleAssignment, Subscription, VirtualMachine

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser


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


# --- where roles hold, and who may give them (docs/rules.md, Access) -----------------------------------------------

Held = Subscription | ResourceGroup | VirtualMachine | None  # what a role is held on; None: everything


@dataclass(frozen=True, slots=True)
class Place:
    """Where a role holds, with what lies around it: a VM is in its group, a group in its subscription."""

    scope: Scope
    subscription_id: int | None = None
    resource_group_id: int | None = None
    vm_id: int | None = None

    @classmethod
    def of(cls, on: Held) -> Self:
        """The place of a subscription, a group or a VM (whose group is loaded); None: everything."""
        if on is None:
            return cls(Scope.EVERYTHING)
        if isinstance(on, Subscription):
            return cls(Scope.SUBSCRIPTION, on.pk)
        if isinstance(on, ResourceGroup):
            return cls(Scope.RESOURCE_GROUP, on.subscription_id, on.pk)
        return cls(Scope.VM, on.resource_group.subscription_id, on.resource_group_id, on.pk)

    @property
    def around(self) -> tuple[Grant, ...]:
        """An Owner's grant of each place that holds this one: who has one of them owns it."""
        grants = [Grant(Role.OWNER, Scope.EVERYTHING)]
        if self.subscription_id is not None:
            grants.append(Grant(Role.OWNER, Scope.SUBSCRIPTION, subscription_id=self.subscription_id))
        if self.resource_group_id is not None:
            grants.append(Grant(Role.OWNER, Scope.RESOURCE_GROUP, resource_group_id=self.resource_group_id))
        if self.vm_id is not None:
            grants.append(Grant(Role.OWNER, Scope.VM, vm_id=self.vm_id))
        return tuple(grants)


def held_on(assignment: RoleAssignment) -> Held:
    """What a role assignment, whose places are loaded, holds on."""
    return assignment.subscription or assignment.resource_group or assignment.vm


def grant_of(assignment: RoleAssignment) -> Grant:
    """What an assignment grants."""
    return Grant(
        Role(assignment.role),
        Scope(assignment.scope),
        assignment.subscription_id,
        assignment.resource_group_id,
        assignment.vm_id,
    )


def may_give_on(grants: Grants, place: Place) -> bool:
    """Whether these grants let one give and take roles there: Owner of the place or of one around it.

    Owner is the strongest role, so nobody gives more than he holds.
    """
    return not set(place.around).isdisjoint(grants.rows)


def leaves_an_owner(*, without: int) -> bool:
    """Whether an active person is Owner of everything by another assignment than this one (an id); groups count.

    Administrators of Django's do not: an installation is handed over by roles, and one may be switched off any day.
    """
    others = RoleAssignment.objects.filter(role=Role.OWNER.value, scope=Scope.EVERYTHING.value).exclude(pk=without)
    return others.filter(Q(user__is_active=True) | Q(group__user__is_active=True)).exists()


def holders_of_everything(role: Role) -> QuerySet[User]:
    """The active people who hold at least this role on everything, by themselves, by a group, or as administrators."""
    rows = RoleAssignment.objects.filter(role__in=role.and_stronger, scope=Scope.EVERYTHING.value)
    mine = rows.filter(Q(user=OuterRef("pk")) | Q(group__user=OuterRef("pk")))
    return User.objects.filter(Q(is_superuser=True) | Exists(mine), is_active=True)


def grants_of_many(users: QuerySet[User], *, with_groups: bool = False) -> dict[int, Grants]:
    """`Grants.of` for many people at once, by their ids, in three queries.

    `with_groups`: a grant of a subscription is one of each of its groups (a fourth query), so that `granted_by` asks nothing.
    """
    people = {user.pk: user for user in users}
    found: dict[int, list[Grant]] = {pk: [] for pk in people}
    members = User.groups.through.objects.filter(user__in=people).values_list("user_id", "group_id")
    groups: dict[int, list[int]] = {}
    for user_id, group_id in members:
        groups.setdefault(group_id, []).append(user_id)
    for row in RoleAssignment.objects.filter(Q(user__in=people) | Q(group__in=groups)):
        for pk in [row.user_id] if row.user_id is not None else groups[row.group_id or 0]:
            found[pk].append(grant_of(row))
    if with_groups:
        found = _with_groups(found)
    return {pk: _as_they_count(user, found[pk]) for pk, user in people.items()}


def _with_groups(found: dict[int, list[Grant]]) -> dict[int, list[Grant]]:
    named = {
        grant.subscription_id for grants in found.values() for grant in grants if grant.subscription_id is not None
    }
    inside: dict[int, list[int]] = {pk: [] for pk in named}
    if named:
        for pk, subscription_id in ResourceGroup.objects.filter(subscription__in=named).values_list(
            "pk", "subscription_id"
        ):
            inside[subscription_id].append(pk)
    return {pk: [one for grant in grants for one in _as_groups(grant, inside)] for pk, grants in found.items()}


def _as_groups(grant: Grant, inside: dict[int, list[int]]) -> list[Grant]:
    if grant.subscription_id is None:
        return [grant]
    return [Grant(grant.role, Scope.RESOURCE_GROUP, resource_group_id=pk) for pk in inside[grant.subscription_id]]


def _as_they_count(user: User, rows: list[Grant]) -> Grants:
    if not user.is_active:
        return Grants(())
    return Grants((Grant(Role.OWNER, Scope.EVERYTHING),)) if user.is_superuser else Grants(tuple(rows))
