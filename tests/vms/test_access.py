"""Who sees which VM: every scope, through users and groups."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.http import Http404

from tests.factories import (
    GroupFactory,
    ResourceGroupFactory,
    RoleAssignmentFactory,
    SubscriptionFactory,
    UserFactory,
    VirtualMachineFactory,
)
from vms.access import May, vm_or_404
from vms.choices import Role
from vms.models import Grants, ResourceGroup, RoleAssignment, Subscription, VirtualMachine
from vms.selectors import owns_everything
from vms.services.roles import assign_role, revoke_roles

pytestmark = pytest.mark.django_db


class Estate:
    """Two subscriptions; three resource groups, the first two in the first subscription; two VMs in each."""

    def __init__(self) -> None:
        first, second = SubscriptionFactory(), SubscriptionFactory()
        self.groups = [
            ResourceGroupFactory(subscription=first, name="g0"),
            ResourceGroupFactory(subscription=first, name="g1"),
            ResourceGroupFactory(subscription=second, name="g2"),
        ]
        self.subscriptions = [first, second]
        for group in self.groups:
            for n in range(2):
                VirtualMachineFactory(name=f"{group.name}-vm{n}", resource_group=group)

    def vm(self, name: str) -> VirtualMachine:
        return VirtualMachine.objects.get(name=name)


@pytest.fixture
def estate() -> Estate:
    return Estate()


def names(user: User | AnonymousUser, role: Role = Role.READER) -> list[str]:
    return sorted(VirtualMachine.objects.visible_to(user, role).values_list("name", flat=True))


ALL = ["g0-vm0", "g0-vm1", "g1-vm0", "g1-vm1", "g2-vm0", "g2-vm1"]


def scopes(estate: Estate) -> dict[str, Subscription | ResourceGroup | VirtualMachine | None]:
    return {
        "everything": None,
        "subscription": estate.subscriptions[0],
        "resource_group": estate.groups[1],
        "vm": estate.vm("g2-vm1"),
    }


SEEN = {"everything": ALL, "subscription": ALL[:4], "resource_group": ALL[2:4], "vm": ALL[5:]}


@pytest.mark.parametrize("through_group", [False, True])
@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("scope", list(SEEN))
def test_an_assignment_reaches_its_scope_with_its_role_and_the_weaker_ones(
    estate: Estate, scope: str, role: Role, through_group: bool
) -> None:
    user, group = UserFactory(), GroupFactory()
    user.groups.add(group)
    principal = {"groups": [group]} if through_group else {"users": [user]}
    assign_role(role=role, on=scopes(estate)[scope], **principal)
    ranked = list(Role)
    for asked in Role:
        allowed = ranked.index(asked) <= ranked.index(role)
        assert names(user, asked) == (SEEN[scope] if allowed else [])
        for name in ("g1-vm0", "g2-vm1"):
            expected = allowed and name in SEEN[scope]
            assert (asked in Grants.of(user).roles_on(estate.vm(name))) == expected


def test_assignments_add_up_across_scopes(estate: Estate) -> None:
    user = UserFactory()
    assign_role(role=Role.READER, on=estate.groups[0], users=[user])
    assign_role(role=Role.OWNER, on=estate.vm("g2-vm0"), users=[user])
    assert names(user) == ["g0-vm0", "g0-vm1", "g2-vm0"]
    assert names(user, Role.OPERATOR) == ["g2-vm0"]
    assign_role(role=Role.OPERATOR, on=estate.subscriptions[0], users=[user])
    assert names(user, Role.OPERATOR) == [*ALL[:4], "g2-vm0"]


def test_others_see_nothing(estate: Estate, outsider: User) -> None:
    inactive = UserFactory(is_active=False, is_superuser=True)
    for user in (outsider, UserFactory(), UserFactory(is_staff=True), inactive, AnonymousUser()):
        assert names(user) == []
        assert Grants.of(user).roles_on(estate.vm("g0-vm0")) == frozenset()
        assert not owns_everything(user)


def test_a_superuser_sees_everything(estate: Estate, staff: User) -> None:
    assert names(staff, Role.OWNER) == ALL
    assert owns_everything(staff)
    assert Grants.of(staff).roles_on(estate.vm("g0-vm0")) == frozenset(Role)


def test_owning_everything_takes_the_widest_scope_and_the_strongest_role(estate: Estate) -> None:
    user = UserFactory()
    assign_role(role=Role.OWNER, on=estate.subscriptions[0], users=[user])
    assign_role(role=Role.OPERATOR, users=[user])
    assert not owns_everything(user)
    assign_role(role=Role.OWNER, users=[user])
    assert owns_everything(user)


def test_unseen_is_404_and_seen_but_not_allowed_is_403(estate: Estate) -> None:
    user = UserFactory()
    assign_role(role=Role.READER, on=estate.groups[0], users=[user])
    assert vm_or_404(user, estate.vm("g0-vm0").pk).name == "g0-vm0"
    with pytest.raises(PermissionDenied):
        vm_or_404(user, estate.vm("g0-vm0").pk, Role.OPERATOR)
    for role in Role:
        with pytest.raises(Http404):
            vm_or_404(user, estate.vm("g1-vm0").pk, role)


def test_assigning_twice_is_assigning_once_and_revoking_takes_it_back(estate: Estate) -> None:
    user, group = UserFactory(), GroupFactory()
    for _twice in range(2):
        assign_role(role=Role.READER, on=estate.groups[0], users=[user], groups=[group])
    assert RoleAssignment.objects.count() == 2
    mine = RoleAssignment.objects.get(user=user)
    assert revoke_roles(assignments=[mine]) == 1
    assert revoke_roles(assignments=[mine]) == 0
    assert names(user) == []


@pytest.mark.parametrize(
    "broken",
    [
        {"user": None},
        {"scope": "subscription"},
        {"scope": "everything", "resource_group": True},
        {"scope": "vm", "resource_group": True},
    ],
)
def test_the_database_refuses_an_assignment_that_means_nothing(broken: dict[str, object]) -> None:
    fields = {"user": UserFactory(), **broken}
    if fields.get("resource_group"):
        fields["resource_group"] = ResourceGroupFactory()
    with pytest.raises(IntegrityError), transaction.atomic():
        RoleAssignmentFactory(**fields)


def test_what_a_reader_may_do_is_worked_out_once_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    user, asked = UserFactory(), []
    at_least = Grants.at_least
    monkeypatch.setattr(Grants, "at_least", lambda grants, role: asked.append(role) or at_least(grants, role))
    what = May(user)
    assert [what.operate_somewhere for _row in range(50)] == [False] * 50
    assert asked == [Role.OPERATOR]
