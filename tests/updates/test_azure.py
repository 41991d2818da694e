"""The whole way: machines of a cloud of ours are listed, assessed and patched through a connection, and nothing runs twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.utils import timezone

from connectors.configuration import to_json
from connectors.registry import AZURE
from connectors.secrets import variable_of
from patching.terms import Classification, InstallationPlan
from tests.connectors.azure.arm import Arm, arm, refused
from tests.connectors.azure.desk import SECRET, configuration
from tests.updates.world import make_due
from updates.engine.sweep import sweep
from updates.models import Bucket, InstalledPatch, Operation
from updates.selectors.connections import probe_connection
from updates.services.operations import request_assessments, request_installations
from vms.choices import ImportDoor
from vms.models import Connection, VirtualMachine
from vms.services.import_jobs import sync_inventory, work_on_imports

pytestmark = pytest.mark.django_db
PLAN = InstallationPlan(classifications=frozenset({Classification.SECURITY}))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Arm]:
    monkeypatch.setenv(variable_of(SECRET), "hush")
    found = arm()
    found.reset()
    found.now = timezone.now()
    yield found
    found.reset()


@pytest.fixture
def cloud(server: Arm) -> Connection:
    return Connection.objects.create(name="cloud", kind=AZURE, config=to_json(configuration(server)))


def go() -> None:
    make_due()
    sweep(seconds=2)


def synced(cloud: Connection) -> dict[str, VirtualMachine]:
    job = sync_inventory(connection=cloud, door=ImportDoor.SCHEDULE)
    work_on_imports(seconds=20)
    job.refresh_from_db()
    assert job.phase == "succeeded", (job.error_code, job.error_facts)
    return {vm.name: vm for vm in VirtualMachine.objects.filter(connection=cloud)}


def test_machines_are_listed_and_assessed(cloud: Connection, server: Arm) -> None:
    for name in ("web-1", "web-2", "tux"):
        server.machine(name)
    server.machine("tux")["properties"]["storageProfile"]["osDisk"]["osType"] = "Linux"
    found = synced(cloud)
    assert set(found) == {"web-1", "web-2"}, "Linux is counted, and that is all"
    assert found["web-1"].power_state == "running"
    assert found["web-1"].os_build == "20348.5020"
    request_assessments(vm_ids=[vm.pk for vm in found.values()], requested_by=None)
    go()
    assert set(Operation.objects.values_list("state", flat=True)) == {"in_progress"}
    assert Bucket.objects.exclude(name="").get().remaining is not None, "what is left was told"
    server.now += timedelta(hours=1)
    go()
    assert set(Operation.objects.values_list("state", "error_code")) == {("succeeded", "")}
    vm = VirtualMachine.objects.get(name="web-1")
    assert (vm.critical_and_security_count, vm.other_count) == (1, 3)
    assert sorted(server.received.values()) == [1, 1]


def test_an_installation_whose_answer_was_lost_is_not_sent_again(cloud: Connection, server: Arm) -> None:
    server.machine("lost")
    vm = synced(cloud)["lost"]
    (outcome,) = request_installations(vm_ids=[vm.pk], plan=PLAN, requested_by=None)
    go()
    operation = Operation.objects.get(pk=outcome.operation_id)
    assert operation.state == "starting"
    (run,) = server.operations.values()
    server.graph = lambda query: (
        [{"name": run.id, "properties": {"startDateTime": run.began.isoformat(), "startedBy": "User"}}]
        if query.startswith("patchinstallationresources")
        else []
    )
    go()
    operation.refresh_from_db()
    assert operation.state == "in_progress", "it was found"
    server.now += timedelta(hours=1)
    server.graph = None
    go()
    operation.refresh_from_db()
    assert (operation.state, operation.installed_count) == ("succeeded", 1)
    assert server.received[operation.pk] == 1
    assert InstalledPatch.objects.filter(vm=vm, patch__kb_number="5084071").exists(), "what its run reported"


def test_an_installation_that_nobody_can_find_ends_unconfirmed(cloud: Connection, server: Arm) -> None:
    server.machine("lost")
    vm = synced(cloud)["lost"]
    (outcome,) = request_installations(vm_ids=[vm.pk], plan=PLAN, requested_by=None)
    for _ in range(4):
        go()
    operation = Operation.objects.get(pk=outcome.operation_id)
    assert operation.state == "starting"
    Operation.objects.filter(pk=operation.pk).update(deadline_at=timezone.now() - timedelta(seconds=1))
    go()
    operation.refresh_from_db()
    assert (operation.state, operation.error_code) == ("failed", "start.unconfirmed")
    assert server.received[operation.pk] == 1
    assert Operation.objects.filter(vm=vm, kind="assessment").exists(), "that finds out"


def test_a_missing_permission_ends_a_run_and_a_test_names_it(cloud: Connection, server: Arm) -> None:
    server.machine("web-1")
    vm = synced(cloud)["web-1"]
    action = "Microsoft.Compute/virtualMachines/assessPatches/action"
    server.fault = lambda _method, path: (
        refused(403, "AuthorizationFailed", f"The client 'x' does not have authorization to perform action '{action}'.")
        if path.endswith("assessPatches")
        else None
    )
    request_assessments(vm_ids=[vm.pk], requested_by=None)
    go()
    operation = Operation.objects.get()
    assert (operation.state, operation.error_code, operation.error_detail) == ("failed", "permission.missing", action)
    probe = probe_connection(cloud, now=timezone.now())
    assert (probe.error, probe.discovered, probe.missing) == ("", 1, ()), "this server tells no grants"


def test_a_storm_keeps_its_bucket_out_of_the_claim(cloud: Connection, server: Arm) -> None:
    server.machine("web-1")
    vm = synced(cloud)["web-1"]
    server.fault = lambda _method, path: (
        refused(429, "TooManyRequests", "slow", **{"Retry-After": "120"}) if path.endswith("assessPatches") else None
    )
    request_assessments(vm_ids=[vm.pk], requested_by=None)
    for _ in range(3):
        go()
    assert sum(call.endswith("assessPatches") for call in server.calls) == 1
    assert set(Operation.objects.values_list("state", "attempts")) == {("queued", 0)}
