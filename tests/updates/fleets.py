"""A made-up fleet of every look, in trouble here and there, and people who may see parts of it."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from django.contrib.auth.models import User

from patching.terms import Classification
from tests.factories import (
    ConnectionFactory,
    OperationFactory,
    PatchFactory,
    ResourceGroupFactory,
    RoleAssignmentFactory,
    SubscriptionFactory,
    UserFactory,
    VirtualMachineFactory,
    VmUpdateStateFactory,
)
from updates.models import Operation, Patch, PatchResult, PatchSet, PatchSetMember
from updates.services.catalogue import import_catalogue
from updates.services.words import refresh_words
from vms.choices import Scope
from vms.models import ResourceGroup, VirtualMachine

DATA = Path(__file__).resolve().parents[2] / "updates" / "data"
NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)
TODAY = NOW.date()


def make_sets(own: random.Random) -> list[PatchSet]:
    """Nine combinations of updates of every kind, the empty one among them."""
    patches = [
        PatchFactory.create(
            product_line=own.choice(("ws2022", "ws2025", "")),
            classification=own.choice(list(Classification)).value if number else "Critical",
            published_on=own.choice((date(2026, 5, 13), date(2026, 5, 18), None)) if number else date(2026, 5, 1),
            reboot_behavior=own.choice(("NeverReboots", "AlwaysRequiresReboot", "CanRequestReboot")),
        )
        for number in range(7)
    ]
    found = []
    for number in range(9):
        some = own.sample(patches, own.randint(1, 4)) if number else []
        urgent = sum(patch.classification in {"Critical", "Security"} for patch in some)
        row = PatchSet.objects.create(
            digest=bytes([number]) * 32, critical_and_security_count=urgent, other_count=len(some) - urgent
        )
        PatchSetMember.objects.bulk_create(PatchSetMember(patch_set=row, patch=patch) for patch in some)
        found.append(row)
    return found


def make_fleet(seed: int, *, count: int = 60, groups_count: int = 6) -> list[VirtualMachine]:
    """Machines of every look in groups of two subscriptions, some of them in trouble; two groups have one name."""
    own = random.Random(seed)
    import_catalogue(data=(DATA / "hotpatch_releases.json").read_bytes())
    sites = [
        ConnectionFactory.create(catalogue_date=None),
        ConnectionFactory.create(catalogue_date=TODAY),
        ConnectionFactory.create(),
    ]
    subscriptions = [SubscriptionFactory.create(), SubscriptionFactory.create()]
    groups = [
        ResourceGroupFactory.create(
            subscription=subscriptions[number % 2], name=f"rg-{number if number > 1 else 'same'}"
        )
        for number in range(groups_count)
    ]
    sets = make_sets(own)
    vms = []
    for _ in range(count):
        looks = own.choice(({}, {}, {"ws2025": True}, {"desktop": True}, {"custom_image": True}))
        vm = VirtualMachineFactory.create(
            connection=own.choice(sites),
            resource_group=own.choice(groups),
            is_reboot_pending=own.random() < 0.2,
            reboot_setting=own.choice(("IfRequired", "Never", "Always")),
            patcher=own.choice(("nobody", "guest_os", "portal_automatically")),
            tags=own.choice(({}, {"Env": "prod"}, {"env": "test"})),
            gone_at=NOW if own.random() < 0.1 else None,
            **looks,
        )
        vms.append(vm)
        if own.random() < 0.85:
            lacks = own.choice(sets)
            VirtualMachine.objects.filter(pk=vm.pk).update(
                critical_and_security_count=lacks.critical_and_security_count, other_count=lacks.other_count
            )
            VmUpdateStateFactory.create(
                vm=vm,
                patch_set=lacks,
                last_assessed_at=NOW - timedelta(days=own.choice((0, 1, 6, 9))),
                os_build=own.choice(("20348.5020", "20348.5074", "20348.4830", "20348.5139", "26100.32690")),
                is_list_complete=own.random() < 0.8,
            )
        if own.random() < 0.3:
            break_something(own, vm)
    refresh_words(now=NOW)
    return vms


def break_something(own: random.Random, vm: VirtualMachine) -> None:
    """A run of this machine that failed, with or without an update of its own, or was contradicted; some long ago."""
    at = NOW - timedelta(days=own.choice((1, 3, 6, 8)))
    kind = own.choice(("installation", "installation", "rollback", "assessment"))
    if own.random() < 0.3:
        OperationFactory.create(vm=vm, kind=kind, succeeded=True, created_at=at, verification="contradicted")
        return
    run: Operation = OperationFactory.create(vm=vm, kind=kind, failed=True, created_at=at)
    for patch in own.sample(list(Patch.objects.filter(kb_number__startswith="900")), own.randint(0, 2)):
        code = own.choice(("0x80070643", "odd:code", ""))
        PatchResult.objects.create(operation=run, patch=patch, state="Failed", error_code=code)


def readers(own: random.Random) -> dict[str, User]:
    """Owner of everything, of a subscription, of one group and of some; of single machines, with and without a group.

    Where there are as many, of 50 groups, too.
    """
    groups, vms = list(ResourceGroup.objects.all()), list(VirtualMachine.objects.all())
    found = {
        name: UserFactory.create()
        for name in ("everything", "subscription", "group", "groups", "machines", "both", "none")
    }
    RoleAssignmentFactory.create(user=found["everything"], scope=Scope.EVERYTHING)
    RoleAssignmentFactory.create(
        user=found["subscription"], scope=Scope.SUBSCRIPTION, subscription=own.choice(groups).subscription
    )
    for name, count in (("group", 1), ("groups", 4), ("both", 2)):
        for group in own.sample(groups, count):
            RoleAssignmentFactory.create(user=found[name], scope=Scope.RESOURCE_GROUP, resource_group=group)
    for name in ("machines", "both"):
        for vm in own.sample(vms, 20):
            RoleAssignmentFactory.create(user=found[name], scope=Scope.VM, vm=vm)
    if len(groups) >= 50:
        found["fifty"] = UserFactory.create()
        for group in own.sample(groups, 50):
            RoleAssignmentFactory.create(user=found["fifty"], scope=Scope.RESOURCE_GROUP, resource_group=group)
    return found
