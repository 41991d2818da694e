"""Resource Graph: the queries that are answered, what they find, and that everything else is refused in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from arm_api.errors import ArmError
from arm_api.queries import Condition, Query, Table, read_query
from tests.arm_api.programs import Program, address_of, make_program, settle
from vms.choices import Role
from vms.models import ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db
PATH = "/providers/Microsoft.ResourceGraph/resources"
VERSION = "2021-03-01"
MakeVm = Callable[..., VirtualMachine]
VM_TYPE = "microsoft.compute/virtualmachines"


def ask(program: Program, query: str, **body: Any) -> Any:
    return program.ask("POST", PATH, {"query": query, **body}, version=VERSION)


def rows(program: Program, query: str, **body: Any) -> list[dict[str, Any]]:
    answer = ask(program, query, **body)
    assert answer.status_code == 200, answer.content
    return list(answer.json()["data"])


def test_a_query_is_read_as_it_is_meant() -> None:
    text = r"""Resources | where type =~ 'microsoft.compute/virtualMachines' and name in~ ('a', "B\"c")
    | where id startswith '/subscriptions/' | project Name, ID | order by id asc | limit 7"""
    assert read_query(text) == Query(
        Table.RESOURCES,
        (
            Condition("type", (VM_TYPE,)),
            Condition("name", ("a", 'b"c')),
            Condition("id", ("/subscriptions/",), is_prefix=True),
        ),
        ("name", "id"),
        7,
    )
    assert read_query("resources | count").is_count


@pytest.mark.parametrize(
    "text",
    [
        "",
        "|",
        "resources |",
        "resources | where",
        "resources | where name",
        "resources | where name =~",
        "resources | where name =~ x",
        "resources | where name contains 'x'",
        "resources | where properties.vmId =~ 'x'",
        "resources | where name =~ 'x' or name =~ 'y'",
        "resources | where name in~ ()",
        "resources | where name in~ ('a'",
        "resources | where name =~ 'a",
        "resources | project properties.vmId",
        "resources | extend x = 1",
        "resources | summarize count() by type",
        "resources | order by name",
        "resources | limit -1",
        "resources | count | project id",
        "securityresources",
        "resources; drop table",
        "resources | join kind=inner (resources) on id",
        "resources " + "x" * 30_000,
    ],
)
def test_what_is_not_of_the_subset_is_refused(text: str) -> None:
    with pytest.raises(ArmError) as refused:
        read_query(text)
    assert refused.value.code.status == 400
    assert refused.value.target == "query"


@pytest.mark.usefixtures("recorded_catalogue")
def test_machines_assessments_and_installations(program: Program, make_vm: MakeVm) -> None:
    vm, arc = make_vm("web-001"), make_vm("arc-001", arc=True)
    make_vm("web-002")
    assert [row["name"] for row in rows(program, "resources")] == ["web-001", "arc-001", "web-002"]
    by_type = rows(program, f"resources | where type =~ '{VM_TYPE}' | project id, name, properties")
    assert [row["name"] for row in by_type] == ["web-001", "web-002"]
    assert set(by_type[0]) == {"id", "name", "properties"}
    assert by_type[0]["properties"]["extended"]["instanceView"]["powerState"]["code"] == "PowerState/running"
    assert rows(program, "patchassessmentresources") == []
    for machine in (vm, arc):
        version = "2024-07-10" if machine is arc else "2024-11-01"
        program.ask("POST", address_of(machine, "/assessPatches"), version=version)
    settle()
    found = rows(
        program, f"patchassessmentresources | where type =~ '{VM_TYPE}/patchAssessmentResults/softwarePatches'"
    )
    vm.refresh_from_db()
    assert len(found) == vm.critical_and_security_count + vm.other_count > 0
    assert found[0]["id"].startswith(f"{address_of(vm)}/patchAssessmentResults/latest/softwarePatches/")
    assert {"patchName", "kbId", "classifications", "rebootBehavior", "publishedDateTime"} <= set(
        found[0]["properties"]
    )
    query = (
        "patchassessmentresources | where type =~ 'microsoft.hybridcompute/machines/patchassessmentresults/softwarepatches'"
        f" | where id startswith '{address_of(arc)}/patchAssessmentResults/latest/' | project id, name, properties"
    )
    assert len(rows(program, query)) > 0
    summary = rows(program, f"patchassessmentresources | where id =~ '{address_of(arc)}/patchAssessmentResults/latest'")
    assert [row["type"] for row in summary] == ["microsoft.hybridcompute/machines/patchassessmentresults"]
    assert sum(summary[0]["properties"]["availablePatchCountByClassification"].values()) > 0

    body = {"rebootSetting": "IfRequired", "windowsParameters": {"classificationsToInclude": ["Critical", "Security"]}}
    activity = program.ask("POST", address_of(vm, "/installPatches"), body)["x-ms-request-id"]
    settle()
    done = rows(program, f"patchinstallationresources | where type =~ '{VM_TYPE}/patchInstallationResults'")
    assert [row["name"] for row in done] == [activity]
    assert done[0]["properties"]["status"] == "Succeeded"
    base = f"{address_of(vm)}/patchInstallationResults/{activity}/"
    patches = rows(program, f"patchinstallationresources | where id startswith '{base}'")
    installed = [row for row in patches if row["properties"]["installationState"] == "Installed"]
    assert len(installed) == done[0]["properties"]["installedPatchCount"] > 0


def test_pages_begin_where_the_last_one_ended(program: Program, make_vm: MakeVm) -> None:
    names = [make_vm(f"web-{number:03}").name for number in range(7)]
    found, token = [], ""
    for _ in range(4):
        options = {"$top": 2} | ({"$skipToken": token} if token else {})
        answer = ask(program, "resources | project name", options=options).json()
        found += [row["name"] for row in answer["data"]]
        token = answer.get("$skipToken", "")
        assert answer["resultTruncated"] == ("true" if token else "false")
    assert (found, token) == (names, "")
    assert len(rows(program, "resources | limit 3")) == 3
    assert rows(program, "resources | count") == [{"Count": 7}]
    for bad in ("x", "1", "1.", "-1.0", "1.1;"):
        answer = ask(program, "resources", options={"$skipToken": bad})
        assert "'options.$skipToken'" in answer.json()["error"]["details"][0]["message"]
        assert "target" not in answer.json()["error"]


def test_one_request_looks_at_so_many_machines(
    program: Program, make_vm: MakeVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        make_vm(f"web-{number:03}")
    monkeypatch.setattr("arm_api.handlers.graph.MOST_MACHINES", 2)
    monkeypatch.setattr("arm_api.handlers.graph._BATCH", 2)
    answer = ask(program, "resources | where id startswith '/subscriptions/' | project name").json()
    assert [row["name"] for row in answer["data"]] == ["web-000", "web-001"]
    assert answer["$skipToken"]
    assert ask(program, "resources | count").status_code == 400


def test_nobody_finds_more_than_they_may_see(make_vm: MakeVm, resource_group: ResourceGroup) -> None:
    vm = make_vm("web-001")
    assert rows(make_program("nobody", None), "resources") == []
    one = make_program("one", Role.READER, vm)
    assert [row["name"] for row in rows(one, "resources")] == ["web-001"]
    assert rows(one, f"resources | where id =~ '{address_of(vm)}'")[0]["name"] == "web-001"
    assert rows(one, "resources | where resourceGroup =~ 'rg-(ours|x)'") == []
    assert rows(one, "resources | where resourceGroup =~ 'RG-ours' and location == 'Japan East'") == []
    assert len(rows(one, "resources | where resourceGroup =~ 'RG-ours' and location == 'japaneast'")) == 1
    sub = str(resource_group.subscription.subscription_id)
    assert len(rows(one, "resources", subscriptions=[sub])) == 1
    other = sub.replace("0", "1")
    assert rows(one, "resources", subscriptions=[other]) == []


@pytest.mark.parametrize(
    "body",
    [
        {"subscriptions": ["x"]},
        {"subscriptions": "x"},
        {"managementGroups": ["x"]},
        {"facets": [{}]},
        {"other": 1},
        {"options": []},
        {"options": {"$skip": 5}},
        {"options": {"$top": 1_001}},
        {"options": {"$top": True}},
        {"options": {"resultFormat": "table"}},
    ],
)
def test_options_beyond_the_subset_are_refused(program: Program, body: dict[str, Any]) -> None:
    answer = ask(program, "resources", **body)
    if body == {"options": []}:
        assert answer.status_code == 200  # says nothing
        return
    assert answer.status_code == 400


def test_permissions_follow_from_roles(vm: VirtualMachine, resource_group: ResourceGroup) -> None:
    path = f"/subscriptions/{resource_group.subscription.subscription_id}/providers/Microsoft.Authorization/permissions"

    def actions(program: Program) -> list[str]:
        return list(program.get(path, version="2022-04-01").json()["value"][0]["actions"])

    everywhere = make_program("owner")
    assert "Microsoft.Compute/virtualMachines/write" in actions(everywhere)
    operator = make_program("operator", Role.OPERATOR, resource_group.subscription)
    assert "Microsoft.HybridCompute/machines/installPatches/action" in actions(operator)
    assert "Microsoft.Compute/virtualMachines/write" not in actions(operator)
    assert actions(make_program("part", Role.OWNER, resource_group)) == []
