"""Reading: subscriptions, groups, machines, their instance views; and what a caller may not see."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from arm_api import pages, versions
from arm_api.limits import BUCKETS
from tests.arm_api.programs import ARC, COMPUTE, ORIGIN, RESOURCES, Program, address_of, make_program, path_of, settle
from tests.factories import ResourceGroupFactory
from vms.choices import Role
from vms.models import ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db
MakeVm = Callable[..., VirtualMachine]


def test_a_machine_as_azure_writes_it(program: Program, vm: VirtualMachine) -> None:
    answer = program.get(address_of(vm))
    assert answer.status_code == 200
    found = answer.json()
    assert found["id"] == address_of(vm)
    assert found["type"] == "Microsoft.Compute/virtualMachines"
    assert found["location"] == "japaneast"
    assert found["properties"]["storageProfile"]["osDisk"]["osType"] == "Windows"
    windows = found["properties"]["osProfile"]["windowsConfiguration"]
    assert set(windows["patchSettings"]) == {
        *("patchMode", "assessmentMode", "enableHotpatching", "automaticByPlatformSettings")
    }
    assert "instanceView" not in found["properties"]
    (nic,) = found["properties"]["networkProfile"]["networkInterfaces"]
    interface = program.get(nic["id"], version="2022-01-01").json()
    assert interface["properties"]["ipConfigurations"] == []


def test_headers_that_azure_puts_on_every_answer(program: Program, vm: VirtualMachine) -> None:
    mine = str(uuid4())
    answer = program.get(address_of(vm), x_ms_correlation_request_id=mine, x_ms_client_request_id="az 7\r\n")
    assert answer["x-ms-correlation-request-id"] == mine
    assert len(answer["x-ms-request-id"]) == 36
    assert answer["x-ms-routing-request-id"].endswith(mine)
    assert "x-ms-client-request-id" not in answer
    assert answer["x-ms-ratelimit-remaining-resource"].startswith("Microsoft.Compute/LowCostGetSubscriptionMaximum;")
    assert int(answer["x-ms-ratelimit-remaining-subscription-reads"]) < 250
    assert answer["Cache-Control"] == "no-cache"


def test_the_instance_view_tells_what_assessments_and_runs_found(
    program: Program, vm: VirtualMachine, recorded_catalogue: None
) -> None:
    never = program.get(address_of(vm, "/instanceView")).json()
    assert "availablePatchSummary" not in never["patchStatus"]
    program.ask("POST", address_of(vm, "/assessPatches"))
    running = program.get(address_of(vm, "/instanceView")).json()["patchStatus"]["availablePatchSummary"]
    assert running["status"] == "InProgress"
    settle()
    expanded = program.get(address_of(vm, "?$expand=instanceView")).json()["properties"]["instanceView"]
    assert expanded == program.get(address_of(vm, "/instanceView")).json()
    summary = expanded["patchStatus"]["availablePatchSummary"]
    vm.refresh_from_db()
    assert summary["status"] == "Succeeded"
    assert summary["criticalAndSecurityPatchCount"] == vm.critical_and_security_count
    assert expanded["osVersion"].startswith("10.0.20348.")
    assert {"code": "PowerState/running", "level": "Info", "displayStatus": "VM running"} in expanded["statuses"]
    codes = [status["code"] for status in expanded["patchStatus"]["configurationStatuses"]]
    assert codes == ["PatchModeConfigurationState/Ready", "AssessmentModeConfigurationState/Ready"]


def test_lists_in_a_subscription_a_group_and_a_region(program: Program, make_vm: MakeVm) -> None:
    one, two = make_vm("web-001"), make_vm("web-002")
    arc = make_vm("arc-001", arc=True)
    make_vm("gone", gone_at=timezone.now())
    sub = f"/subscriptions/{one.resource_group.subscription.subscription_id}"

    def names(path: str, version: str = COMPUTE) -> list[str]:
        return [row["name"] for row in program.get(path, version=version).json()["value"]]

    compute = "providers/Microsoft.Compute"
    assert names(f"{sub}/{compute}/virtualMachines") == [one.name, two.name]
    assert names(f"{sub}/resourceGroups/RG-OURS/{compute}/virtualmachines/") == [one.name, two.name]
    assert names(f"{sub}/{compute}/locations/JapanEast/virtualMachines") == [one.name, two.name]
    assert names(f"{sub}/{compute}/locations/westus/virtualMachines") == []
    assert names(f"{sub}/providers/Microsoft.HybridCompute/machines", ARC) == [arc.name]
    assert names(f"{sub}/resources", RESOURCES) == [one.name, two.name, arc.name]
    assert names(f"{sub}/resourceGroups/rg-ours/resources", RESOURCES) == [one.name, two.name, arc.name]
    by_type = f"{sub}/resources?$filter=resourceType eq 'microsoft.hybridcompute/machines'"
    assert names(by_type, RESOURCES) == [arc.name]
    assert names(f"{sub}/resourceGroups", RESOURCES) == ["rg-ours"]
    assert names(f"{sub}/{compute}/virtualMachines?$top=1") == [one.name]
    with_views = program.get(f"{sub}/{compute}/virtualMachines?statusOnly=true").json()["value"]
    assert all("instanceView" in row["properties"] for row in with_views)
    assert program.get(address_of(arc).replace("HybridCompute/machines", "Compute/virtualMachines")).status_code == 404


def test_pages_follow_each_other_and_cost_the_same(
    program: Program, make_vm: MakeVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE_ROWS", 2)
    machines = [make_vm(f"web-{number:03}") for number in range(5)]
    sub = f"/subscriptions/{machines[0].resource_group.subscription.subscription_id}"
    path = f"{sub}/providers/Microsoft.Compute/virtualMachines?statusOnly=true"
    found: list[str] = []
    costs = set()
    program.token()
    version = COMPUTE
    while path:
        with CaptureQueriesContext(connection) as queries:
            page = program.get(path, version=version).json()
        costs.add(len(queries))
        found += [row["name"] for row in page["value"]]
        path = path_of(page["nextLink"]) if "nextLink" in page else ""
        version = ""
    assert found == [vm.name for vm in machines]
    assert costs == {6}
    for bad in ("x", "-1", "1;DROP TABLE", "9" * 30):
        answer = program.get(f"{sub}/providers/Microsoft.Compute/virtualMachines?$skiptoken={bad}")
        assert answer.json()["error"]["target"] == "$skiptoken"


def test_a_list_shows_what_the_caller_may_see(make_vm: MakeVm, resource_group: ResourceGroup) -> None:
    theirs = ResourceGroupFactory.create(name="rg-theirs", subscription=resource_group.subscription)
    one, _two, other = make_vm("web-001"), make_vm("web-002"), make_vm("web-003", resource_group=theirs)
    sub = f"/subscriptions/{resource_group.subscription.subscription_id}"
    path = f"{sub}/providers/Microsoft.Compute/virtualMachines"

    def names(program: Program) -> list[str]:
        return [row["name"] for row in program.get(path).json()["value"]]

    of_group = make_program("group", Role.READER, resource_group)
    of_machine = make_program("machine", Role.READER, one)
    of_others = make_program("others", Role.READER, theirs)
    assert names(of_group) == ["web-001", "web-002"]
    assert names(of_machine) == ["web-001"]
    assert names(of_others) == [other.name]
    assert names(make_program("sub", Role.READER, resource_group.subscription)) == ["web-001", "web-002", "web-003"]
    groups = of_machine.get(f"{sub}/resourceGroups", version=RESOURCES).json()["value"]
    assert [row["name"] for row in groups] == ["rg-ours"]
    listed = of_machine.get("/subscriptions", version=RESOURCES).json()["value"]
    assert [row["id"] for row in listed] == [sub]
    nobody = make_program("nobody", None)
    assert nobody.get("/subscriptions", version=RESOURCES).json() == {"value": [], "nextLink": ""}
    assert nobody.get(path).json()["error"]["code"] == "AuthorizationFailed"


def test_who_may_not_see_a_place_learns_nothing_of_it(vm: VirtualMachine, resource_group: ResourceGroup) -> None:
    stranger = make_program("stranger", Role.OWNER, ResourceGroupFactory.create(name="rg-theirs"))
    for path in (address_of(vm), address_of(vm) + "x", address_of(vm).replace("rg-ours", "rg-none")):
        answer = stranger.get(path)
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "AuthorizationFailed"
    member = make_program("member", Role.READER, resource_group)
    assert member.get(address_of(vm)).status_code == 200
    missing = member.get(address_of(vm) + "x")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "ResourceNotFound")
    chief = make_program("chief")
    group = chief.get(address_of(vm).replace("rg-ours", "rg-none")).json()["error"]
    assert group == {"code": "ResourceGroupNotFound", "message": "Resource group 'rg-none' could not be found."}
    unknown = chief.get(f"/subscriptions/{uuid4()}/providers/Microsoft.Compute/virtualMachines").json()["error"]
    assert unknown["code"] == "SubscriptionNotFound"


def test_versions_are_those_of_azure(program: Program, vm: VirtualMachine) -> None:
    for version in ("2020-06-01", "2022-11-01", "2024-11-01", "2026-04-01"):
        assert program.get(address_of(vm), version=version).status_code == 200
    missing = program.get(address_of(vm), version="")
    assert (missing.status_code, missing.json()["error"]["code"]) == (400, "MissingApiVersionParameter")
    unknown = program.get(address_of(vm), version="2099-01-01").json()["error"]
    assert unknown["code"] == "NoRegisteredProviderFound"
    assert "2026-04-01" in unknown["message"]
    assert "'virtualMachines'" in unknown["message"]
    own = program.get("/subscriptions", version="2099-01-01").json()["error"]
    assert own["code"] == "InvalidApiVersionParameter"


def test_a_version_tells_what_it_knows(program: Program, make_vm: MakeVm) -> None:
    """What is sent back to an earlier version changes nothing either, though it lacks what came later."""
    vm, arc = make_vm("web-001"), make_vm("arc-001", arc=True)
    came = {
        (vm, "etag"): "2023-09-01",
        (vm, "bypassPlatformSafetyChecksOnUserSchedule"): "2023-03-01",
        (arc, "enableHotpatching"): "2024-05-20-preview",
        (arc, "hotpatchEnablementStatus"): "2024-05-20-preview",
    }
    for (machine, name), since in came.items():
        for version in versions.COMPUTE if machine is vm else versions.HYBRID_COMPUTE:
            BUCKETS.forget()
            found = program.get(address_of(machine), version=version)
            assert (f'"{name}"' in found.content.decode()) == (version >= since), (name, version)
            put = program.ask("PUT", address_of(machine), found.json(), version=version)
            assert put.status_code == 200
            assert (f'"{name}"' in put.content.decode()) == (version >= since), (name, version)
    assert not vm.operations.exists()


def test_paths_compare_without_case(program: Program, vm: VirtualMachine) -> None:
    for path in (address_of(vm).upper(), address_of(vm).lower(), address_of(vm) + "/"):
        assert program.get(path.replace("/SUBSCRIPTIONS", "/Subscriptions")).json()["name"] == vm.name


@pytest.mark.parametrize(
    "tail",
    [
        "/../web-001",
        "/./web-001",
        "/..%2Fweb-001",
        "/%2e%2e/web-001",
        "//web-001",
        "/web-001/extra/parts",
        "/web%00-001",
        "/web-001%0d%0aX: y",
        "/web\\001",
        "/" + "a" * 500,
        "/web-001;x=1",
    ],
)
def test_a_confused_path_leads_nowhere(program: Program, vm: VirtualMachine, tail: str) -> None:
    answer = program.get(address_of(vm).rpartition("/")[0] + tail)
    assert answer.status_code in {400, 404}
    assert b'"properties"' not in answer.content


def test_what_is_not_there_is_told_in_the_envelope(program: Program) -> None:
    answer = program.get("/subscriptions/no-guid/resourceGroups", version=RESOURCES)
    assert answer.json()["error"]["code"] == "InvalidSubscriptionId"
    assert program.get("/providers/Microsoft.Nothing/at/all").json()["error"]["code"] == "InvalidResourceType"
    wrong = program.ask("DELETE", "/subscriptions", version=RESOURCES)
    assert (wrong.status_code, wrong["Allow"]) == (405, "GET")


def test_too_many_requests_are_told_when_to_come_again(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    program.token()
    monkeypatch.setattr(BUCKETS, "clock", lambda: 7.0)
    answers = [program.get("/tenants", version=RESOURCES) for _ in range(251)]
    assert {answer.status_code for answer in answers[:250]} == {200}
    assert answers[-1].status_code == 429
    assert answers[-1]["Retry-After"] == "1"
    assert answers[-1].json()["error"]["code"] == "TooManyRequests"


def test_the_address_of_the_next_page_is_absolute(
    program: Program, make_vm: MakeVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE_ROWS", 1)
    first, _second = make_vm("web-001"), make_vm("web-002")
    sub = f"/subscriptions/{first.resource_group.subscription.subscription_id}"
    link = program.get(f"{sub}/providers/Microsoft.Compute/virtualMachines").json()["nextLink"]
    assert link.startswith(
        f"{ORIGIN}{sub}/providers/Microsoft.Compute/virtualMachines?api-version={COMPUTE}&$skiptoken="
    )
