"""The cast, named after their roles, and the one resource group that they meet in."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from tests.factories import GroupFactory, ResourceGroupFactory, RoleAssignmentFactory, UserFactory
from vms.choices import Role, Scope
from vms.models import ResourceGroup


@pytest.fixture
def resource_group(db: None) -> ResourceGroup:
    """Where the VMs of a test live: reader, operator and owner hold their roles here."""
    return ResourceGroupFactory.create(name="rg-ours")


def _member(name: str, role: Role, resource_group: ResourceGroup) -> User:
    user = UserFactory.create(username=name)
    RoleAssignmentFactory.create(
        user=user, role=role.value, scope=Scope.RESOURCE_GROUP.value, resource_group=resource_group
    )
    return user


@pytest.fixture
def reader(resource_group: ResourceGroup) -> User:
    """May see."""
    return _member("reader", Role.READER, resource_group)


@pytest.fixture
def operator(resource_group: ResourceGroup) -> User:
    """May also assess and install."""
    return _member("operator", Role.OPERATOR, resource_group)


@pytest.fixture
def owner(resource_group: ResourceGroup) -> User:
    """May also change settings."""
    return _member("owner", Role.OWNER, resource_group)


@pytest.fixture
def chief(db: None) -> User:
    """Owner of everything: may also import."""
    user = UserFactory.create(username="chief")
    RoleAssignmentFactory.create(user=user, role=Role.OWNER.value)
    return user


@pytest.fixture
def outsider(db: None) -> User:
    """Belongs to another group, owns another resource group, and must see nothing of ours."""
    user = UserFactory.create(username="outsider")
    others = GroupFactory.create(name="others")
    user.groups.add(others)
    RoleAssignmentFactory.create(
        group=others,
        role=Role.OWNER.value,
        scope=Scope.RESOURCE_GROUP.value,
        resource_group=ResourceGroupFactory.create(name="rg-theirs"),
    )
    return user


@pytest.fixture
def staff(db: None) -> User:
    """An administrator."""
    return UserFactory.create(username="staff", is_staff=True, is_superuser=True)
