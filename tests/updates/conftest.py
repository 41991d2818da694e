"""The recorded catalogue, machines on it, and an operator who looks at them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.factories import ConnectionFactory, VirtualMachineFactory
from updates.models import VmUpdateState
from updates.services.catalogue import import_catalogue
from vms.models import ResourceGroup, VirtualMachine

DATA = Path(__file__).resolve().parents[2] / "updates" / "data"


@pytest.fixture
def recorded_catalogue(db: None) -> None:
    """Releases and other updates as they come with the portal."""
    for name in ("hotpatch_releases.json", "other_updates.json"):
        import_catalogue(data=(DATA / name).read_bytes())


@pytest.fixture
def make_vm(resource_group: ResourceGroup) -> Callable[..., VirtualMachine]:
    """A VM of our group behind a simulator that is done at once."""

    def make(build: str = "20348.5020", day: date | None = date(2026, 5, 20), **fields: object) -> VirtualMachine:
        row = ConnectionFactory.create(catalogue_date=day, clock_factor=1e9)
        vm: VirtualMachine = VirtualMachineFactory.create(resource_group=resource_group, connection=row, **fields)
        if build:
            VmUpdateState.objects.create(vm=vm, os_build=build)
        return vm

    return make


@pytest.fixture
def page(client: Client, operator: User) -> Client:
    """An operator's browser."""
    client.force_login(operator)
    return client
