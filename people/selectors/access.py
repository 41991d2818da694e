"""Who holds which role where, for one reader; and what a person can do on a machine, and why.

Who sees, gives and takes a role is in docs/rules.md (Access).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from django.contrib.auth.models import Group, User
from django.db.models import Q, QuerySet
from django.utils.translation import gettext_lazy as _

from connectors.protocol import Capability
from db.paging import Order, Page, page_of
from vms.access import Access, May
from vms.choices import ROLES, Role, Scope
from vms.models import Grants, ResourceGroup, RoleAssignment, Subscription, VirtualMachine
from vms.selectors import Held, Place, grant_of, held_on, may_give_on, search_by_name
from vms.services.roles import PLACES
from vms.texts import Text

MAX_NAMESAKES = 20  # places of one name that are offered to choose from
NEWEST_FIRST = Order.of(RoleAssignment, "newest", "-id")
ROLE_WORDS = dict(ROLES)


# --- who holds what ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """What the list is narrowed down by; empty: nothing. `who` and `where` are parts of names."""

    who: str = ""
    role: str = ""
    scope: str = ""
    where: str = ""


@dataclass(frozen=True, slots=True)
class HeldRole:
    """A role that somebody holds somewhere, and whether the reader may take it back."""

    assignment: RoleAssignment
    may_take: bool

    @property
    def who(self) -> str:
        """The name of the person or group."""
        return str(self.assignment.user or self.assignment.group)

    @property
    def on(self) -> Held:
        """What it is held on; None: everything."""
        return held_on(self.assignment)


def roles_seen_by(reader: User, grants: Grants) -> QuerySet[RoleAssignment]:
    """The reader's own roles, those of the reader's groups, and all that hold within what the reader owns."""
    rows = RoleAssignment.objects.select_related("user", "group", *PLACES)
    owned = grants.at_least(Role.OWNER)
    if owned.are_of_everything:
        return rows
    seen = Q(user=reader) | Q(group__in=reader.groups.order_by().values("pk"))
    if subscriptions := owned.subscription_ids:
        seen |= Q(subscription__in=subscriptions) | Q(resource_group__subscription__in=subscriptions)
        seen |= Q(vm__resource_group__subscription__in=subscriptions)
    if groups := owned.group_ids:
        seen |= Q(resource_group__in=groups) | Q(vm__resource_group__in=groups)
    if vms := owned.vm_ids:
        seen |= Q(vm__in=vms)
    return rows.filter(seen)


def access_page(*, reader: User, asked: Asked, cursor: str = "") -> Page[HeldRole]:
    """One page of the roles that the reader may see and asks for, the newest first.

    Raises `db.bounded.ListTooSlowError`.
    """
    grants = Grants.of(reader)
    rows = roles_seen_by(reader, grants).filter(_asked(asked))
    page = page_of(rows, order=NEWEST_FIRST, cursor=cursor)
    found = tuple(HeldRole(row, may_give_on(grants, Place.of(held_on(row)))) for row in page.rows)
    return Page(found, page.previous, page.next)


def _asked(asked: Asked) -> Q:
    wanted = Q()
    if asked.who:
        wanted &= Q(user__username__icontains=asked.who) | Q(group__name__icontains=asked.who)
    if asked.role:
        wanted &= Q(role=asked.role)
    if asked.scope:
        wanted &= Q(scope=asked.scope)
    if asked.where:
        names = ("subscription__name", "resource_group__name", "vm__name")
        wanted &= Q(*((f"{name}__icontains", asked.where) for name in names), _connector=Q.OR)
    return wanted


# --- giving --------------------------------------------------------------------------------------------------------


def scopes_to_give(grants: Grants) -> tuple[Scope, ...]:
    """The kinds of places on which one may give roles, the widest first; empty: nowhere."""
    owned = grants.at_least(Role.OWNER)
    held = {grant.scope for grant in owned.rows}
    ranked = tuple(Scope)
    return ranked[min(map(ranked.index, held)) :] if held else ()


def principal_named(name: str, *, is_group: bool) -> User | Group | None:
    """The group, or the active person, of this name; people's names are compared without case where that is clear."""
    if is_group:
        return Group.objects.filter(name=name).first()
    people = list(User.objects.filter(username__iexact=name, is_active=True).order_by("pk")[:2])
    exact = [user for user in people if user.username == name]
    return (exact or people)[0] if len(exact or people) == 1 else None


def places_named(grants: Grants, scope: Scope, name: str) -> list[Subscription | ResourceGroup | VirtualMachine]:
    """What is called so, without case, of what one owns; a subscription is found by its id, too."""
    owned = grants.at_least(Role.OWNER)
    if scope is Scope.SUBSCRIPTION:
        subscriptions = Subscription.objects.filter(Q(name__iexact=name) | Q(subscription_id=_uuid(name)))
        if not owned.are_of_everything:
            subscriptions = subscriptions.filter(pk__in=owned.subscription_ids)
        return list(subscriptions.order_by("pk")[:MAX_NAMESAKES])
    if scope is Scope.RESOURCE_GROUP:
        groups = ResourceGroup.objects.select_related("subscription").filter(name__iexact=name)
        if not owned.are_of_everything:
            groups = groups.filter(Q(pk__in=owned.group_ids) | Q(subscription__in=owned.subscription_ids))
        return list(groups.order_by("pk")[:MAX_NAMESAKES])
    return list(machines_named(owned, name))


def machines_named(grants: Grants, name: str) -> list[VirtualMachine]:
    """The machines of this name, without case, that these grants let one see; with group, subscription and connection."""
    vms = search_by_name(VirtualMachine.objects.granted_by(grants), name).filter(name__iexact=name)
    return list(vms.select_related("resource_group__subscription", "connection").order_by("pk")[:MAX_NAMESAKES])


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        return UUID(int=0)


# --- what can somebody do? -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Act:
    """Something that a page lets one do, the door that it goes through, and what it takes."""

    words: Text
    door: str
    role: Role
    capability: Capability | None = None


# On a machine: the role on it; the doors are those that ask for this role (tests/people/test_access.py).
ON_A_MACHINE = (
    Act(_("See it, its updates and its history"), "updates:blade", Role.READER),
    Act(_("Assess now"), "updates:assess", Role.OPERATOR),
    Act(_("Install updates now"), "updates:install", Role.OPERATOR),
    Act(_("Roll back"), "updates:rollback", Role.OPERATOR, Capability.UNINSTALL),
    Act(_("Cancel what is queued"), "updates:cancel", Role.OPERATOR),
    Act(_("Lift a hold"), "updates:lift", Role.OPERATOR),
    Act(_("Change its settings"), "updates:settings-change", Role.OWNER, Capability.SETTINGS),
    Act(_("Change its record"), "vms:vm-edit", Role.OWNER),
    Act(_("Remove its record"), "updates:remove", Role.OWNER),
    Act(_("Give and take roles on it"), "access-give", Role.OWNER),
)
# What holds for every machine: the role on everything.
ON_EVERYTHING = (
    Act(_("Decide what the hotpatch guard asks"), "updates:decisions", Role.OPERATOR),
    Act(_("Import machines"), "vms:vm-import", Role.OWNER),
    Act(_("Change connections"), "updates:connections", Role.OWNER),
    Act(_("Change maintenance configurations"), "updates:maintenances", Role.OWNER),
)


@dataclass(frozen=True, slots=True)
class Judged:
    """Whether somebody can do something. `lacks`: the role that is missing (empty: none); `cannot`: what the connection lacks."""

    act: Act
    lacks: str = ""
    cannot: Capability | None = None

    @property
    def needed(self) -> str:
        """The role that it takes, in words."""
        return str(ROLE_WORDS[self.act.role.value])

    @property
    def is_allowed(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.lacks and self.cannot is None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person can do on a machine, and the role assignments that reach it, which are why."""

    person: User
    vm: VirtualMachine
    role: str  # the strongest that the person holds on it, in words; empty: none
    reaching: tuple[HeldRole, ...]
    on_machine: tuple[Judged, ...]
    on_everything: tuple[Judged, ...]


def what_can(person: User, vm: VirtualMachine) -> Answer:
    """What this person can do on this machine, by the rule that the pages themselves ask (`vms.access`); two queries.

    The machine's group, subscription and connection must be loaded.
    """
    access = Access(vm, Grants.of(person).roles_on(vm))
    strongest = next((role for role in reversed(Role) if role in access.roles), None)
    return Answer(
        person=person,
        vm=vm,
        role=str(ROLE_WORDS[strongest.value]) if strongest else "",
        reaching=tuple(HeldRole(row, may_take=False) for row in _reaching(person, vm)),
        on_machine=tuple(_judged(act, access) for act in ON_A_MACHINE),
        on_everything=tuple(_judged_everywhere(act, May(person)) for act in ON_EVERYTHING),
    )


def _reaching(person: User, vm: VirtualMachine) -> Iterable[RoleAssignment]:
    if not person.is_active:
        return ()
    rows = RoleAssignment.objects.select_related("user", "group", *PLACES).order_by("pk")
    mine = rows.filter(Q(user=person) | Q(group__in=person.groups.order_by().values("pk")))
    return [row for row in mine if Grants((grant_of(row),)).roles_on(vm)]


def _judged(act: Act, access: Access) -> Judged:
    if act.role not in access.roles:
        return Judged(act, lacks=str(ROLE_WORDS[act.role.value]))
    if act.capability is not None and act.capability not in access.vm.connection.capabilities:
        return Judged(act, cannot=act.capability)
    return Judged(act)


def _judged_everywhere(act: Act, may: May) -> Judged:
    is_allowed = may.own_everything if act.role is Role.OWNER else may.operate_everything
    return Judged(act, lacks="" if is_allowed else str(ROLE_WORDS[act.role.value]))
