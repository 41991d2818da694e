"""Programs with a role each, and machines for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest

from arm_api.limits import BUCKETS
from tests.arm_api.programs import Program, make_program
from tests.factories import ConnectionFactory, ResourceGroupFactory, VirtualMachineFactory
from updates.services.catalogue import import_catalogue
from vms.choices import Role
from vms.models import ResourceGroup, VirtualMachine

DATA = Path(__file__).resolve().parents[2] / "updates" / "data"


@pytest.fixture(autouse=True)
def _full_buckets() -> Iterator[None]:
    """What another test asked for counts for no other."""
    BUCKETS.forget()
    yield
    BUCKETS.forget()


@pytest.fixture
def recorded_catalogue(db: None) -> None:
    """Releases and other updates as they come with the portal."""
    for name in ("hotpatch_releases.json", "other_updates.json"):
        import_catalogue(data=(DATA / name).read_bytes())


@pytest.fixture
def make_vm(resource_group: ResourceGroup) -> Callable[..., VirtualMachine]:
    """A machine of our group behind a simulator that is done at once; `arc`: an Arc machine."""
    row = ConnectionFactory.create(catalogue_date=date(2026, 5, 20), clock_factor=1e9)

    def make(name: str = "web-001", *, arc: bool = False, **fields: object) -> VirtualMachine:
        group = fields.pop("resource_group", resource_group)
        assert isinstance(group, ResourceGroup)
        kind = "microsoft.hybridcompute/machines" if arc else "microsoft.compute/virtualmachines"
        arm_id = (
            f"/subscriptions/{group.subscription.subscription_id}/resourcegroups/{group.name}/providers/{kind}/{name}"
        )
        vm: VirtualMachine = VirtualMachineFactory.create(
            name=name, resource_group=group, connection=row, arm_id=arm_id.lower(), location="japaneast", **fields
        )
        return vm

    return make


@pytest.fixture
def vm(make_vm: Callable[..., VirtualMachine]) -> VirtualMachine:
    """One of them."""
    return make_vm()


@pytest.fixture
def program(db: None) -> Program:
    """Owner of everything."""
    return make_program()


@pytest.fixture
def programs(resource_group: ResourceGroup) -> dict[str, Program]:
    """One for each role, and what its role is on."""
    theirs = ResourceGroupFactory.create(name="rg-theirs")
    return {
        "nobody": make_program("nobody", None),
        "outsider": make_program("outsider", Role.OWNER, theirs),
        "reader": make_program("reader", Role.READER, resource_group),
        "operator": make_program("operator", Role.OPERATOR, resource_group),
        "owner": make_program("owner", Role.OWNER, resource_group),
        "chief": make_program("chief", Role.OWNER),
    }
