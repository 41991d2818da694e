"""Assessing and installing through the door, followed in every shape that clients know."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any
from uuid import uuid4

import pytest

from arm_api.bodies import plan_of
from arm_api.errors import ArmError
from audit.models import AuditEvent
from patching.terms import Classification, InstallationPlan, RebootSetting
from tests.arm_api.programs import ARC, COMPUTE, ORIGIN, Program, address_of, make_program, path_of, settle
from updates.models import Operation
from updates.payloads import decode
from updates.services.operations import cancel_operations
from vms.models import VirtualMachine

pytestmark = pytest.mark.django_db
MakeVm = Callable[..., VirtualMachine]
# As az 2.91 sends it.
BODY = {
    "linuxParameters": {},
    "maximumDuration": "PT4H",
    "rebootSetting": "Never",
    "windowsParameters": {
        "classificationsToInclude": ["Critical", "security"],
        "excludeKbsRequiringReboot": True,
        "kbNumbersToInclude": ["KB4512508"],
        "maxPatchPublishDate": "2024-11-01T07:36:43.000Z",
    },
}


def follow(program: Program, answer: Any) -> tuple[Any, Any]:
    """What both addresses of a 202 answer."""
    status, location = path_of(answer["Azure-AsyncOperation"]), path_of(answer["Location"])
    return program.get(status, version=""), program.get(location, version="")


@pytest.mark.usefixtures("recorded_catalogue")
def test_an_assessment_from_the_request_to_its_result(program: Program, vm: VirtualMachine) -> None:
    answer = program.ask("POST", address_of(vm, "/assessPatches"), version="2022-11-01")
    assert (answer.status_code, answer.content, answer["Content-Length"]) == (202, b"", "0")
    operation = Operation.objects.get()
    assert answer["x-ms-request-id"] == str(operation.pk)
    base = f"{ORIGIN}/subscriptions/{vm.resource_group.subscription.subscription_id}/providers/Microsoft.Compute"
    url = f"{base}/locations/japaneast/operations/{operation.pk}"
    assert answer["Azure-AsyncOperation"] == f"{url}?api-version=2022-11-01"
    assert answer["Location"] == f"{url}?monitor=true&api-version=2022-11-01"
    left = answer["x-ms-ratelimit-remaining-resource"]
    assert left == (
        "Microsoft.Compute/VMGuestPatchOperationSubscriptionMaximum;599,Microsoft.Compute/VMGuestPatchOperationResource;5"
    )
    assert operation.requested_by == program.principal.account

    status, location = follow(program, answer)
    assert set(status.json()) == {"startTime", "status", "name"}
    assert status.json()["status"] == "InProgress"
    assert (location.status_code, location.content) == (202, b"")
    assert status["x-ms-ratelimit-remaining-resource"].startswith("Microsoft.Compute/GetOperationSubscriptionMaximum;")
    settle()
    status, location = follow(program, answer)
    assert set(status.json()) == {"startTime", "endTime", "status", "properties", "name"}
    assert status.json()["properties"]["output"] == location.json()
    found = location.json()
    assert set(found) == {
        *("status", "assessmentActivityId", "rebootPending", "criticalAndSecurityPatchCount", "otherPatchCount"),
        *("startDateTime", "availablePatches"),
    }
    assert found["assessmentActivityId"] == str(operation.pk)
    assert found["criticalAndSecurityPatchCount"] + found["otherPatchCount"] == len(found["availablePatches"]) > 0
    assert set(found["availablePatches"][0]) == {
        *("patchId", "name", "kbId", "classifications", "rebootBehavior", "publishedDate", "activityId"),
        *("lastModifiedDateTime", "assessmentState"),
    }


def test_who_asks_again_joins(program: Program, vm: VirtualMachine) -> None:
    first = program.ask("POST", address_of(vm, "/assessPatches"))
    again = program.ask("POST", address_of(vm, "/assessPatches"))
    assert first["x-ms-request-id"] == again["x-ms-request-id"]
    assert Operation.objects.count() == 1


@pytest.mark.usefixtures("recorded_catalogue")
def test_an_installation_from_the_request_to_its_result(program: Program, vm: VirtualMachine) -> None:
    program.ask("POST", address_of(vm, "/assessPatches"))
    settle()
    body = {"rebootSetting": "IfRequired", "windowsParameters": {"classificationsToInclude": ["Critical", "Security"]}}
    answer = program.ask("POST", address_of(vm, "/installPatches"), body)
    assert answer.status_code == 202
    blocked = program.ask("POST", address_of(vm, "/installPatches"), body)
    assert (blocked.status_code, blocked.json()["error"]["code"]) == (409, "OperationNotAllowed")
    assert blocked.json()["error"]["details"][0]["code"] == "conflict.installation_open"
    assert program.ask("POST", address_of(vm, "/assessPatches")).status_code == 409
    settle()
    status, location = follow(program, answer)
    found = location.json()
    assert status.json()["properties"]["output"] == found
    assert set(found) == {
        *("status", "installationActivityId", "rebootStatus", "maintenanceWindowExceeded", "excludedPatchCount"),
        *("notSelectedPatchCount", "pendingPatchCount", "installedPatchCount", "failedPatchCount", "patches"),
        *("startDateTime", "error"),
    }
    assert found["error"] == {"details": [], "code": "Success", "message": "0 error/s reported"}
    assert found["installedPatchCount"] == len([p for p in found["patches"] if p["installationState"] == "Installed"])
    assert found["installedPatchCount"] > 0
    assert AuditEvent.objects.filter(door="api", tag="machine:installation:request").count() == 1
    view = program.get(address_of(vm, "/instanceView")).json()["patchStatus"]["lastPatchInstallationSummary"]
    assert view["installedPatchCount"] == found["installedPatchCount"]
    assert "patches" not in view


@pytest.mark.usefixtures("recorded_catalogue")
def test_a_filter_excludes_what_it_leaves_out(program: Program, vm: VirtualMachine) -> None:
    """As Azure's: the reboot filter and the date win over "not in the classes", and a run may install nothing."""
    answer = program.ask("POST", address_of(vm, "/installPatches"), BODY)
    settle()
    found = follow(program, answer)[1].json()
    states = {patch["installationState"] for patch in found["patches"]}
    assert found["status"] == "Succeeded"
    assert found["installedPatchCount"] == 0
    assert "Excluded" in states
    assert found["rebootStatus"] == "NotNeeded"


@pytest.mark.usefixtures("recorded_catalogue")
def test_arc_machines_tell_counts_and_no_lists(program: Program, make_vm: MakeVm) -> None:
    vm = make_vm("arc-001", arc=True)
    answer = program.ask("POST", address_of(vm, "/assessPatches"), version=ARC)
    assert "/operationstatus/" in answer["Azure-AsyncOperation"]
    assert "/operationresults/" in answer["Location"]
    status, location = follow(program, answer)
    assert (status.json()["status"], location.status_code) == ("InProgress", 202)
    assert "/operationresults/" in status["Location"]
    settle()
    status, location = follow(program, answer)
    found = location.json()
    assert found == status.json()["properties"]["output"]
    assert "availablePatches" not in found
    counts = found["availablePatchCountByClassification"]
    assert set(counts) == {
        *("security", "critical", "updateRollup", "featurePack", "servicePack", "definition", "updates", "tools")
    }
    assert sum(counts.values()) > 0
    machine = program.get(address_of(vm), version=ARC).json()["properties"]
    assert machine["status"] == "Connected"
    assert machine["osType"] == "windows"
    body = {
        "rebootSetting": "Never",
        "windowsParameters": {"patchNameMasksToExclude": ["*Defender*"], "kbNumbersToInclude": ["KB5087424"]},
    }
    run = program.ask("POST", address_of(vm, "/installPatches"), body, version=ARC)
    settle()
    ended = follow(program, run)[1].json()
    assert "patches" not in ended
    assert ended["startedBy"] == "User"


def test_operations_of_others_are_not_there(vm: VirtualMachine, program: Program, make_vm: MakeVm) -> None:
    answer = program.ask("POST", address_of(vm, "/assessPatches"))
    path = path_of(answer["Azure-AsyncOperation"])
    stranger = make_program("stranger", None)
    for asked in (
        path,
        path.replace("japaneast", "westus"),
        path.replace(str(Operation.objects.get().pk), str(uuid4())),
    ):
        found = stranger.get(asked, version="")
        assert (found.status_code, found.json()["error"]["code"]) == (404, "NotFound")
    assert program.get(path.replace("japaneast", "westus"), version="").status_code == 404
    other = path.replace("Microsoft.Compute", "Microsoft.HybridCompute").replace("operations/", "operationstatus/")
    assert program.get(other.replace(COMPUTE, ARC), version="").status_code == 404


def test_an_operation_that_was_taken_back_was_canceled(program: Program, vm: VirtualMachine) -> None:
    answer = program.ask("POST", address_of(vm, "/assessPatches"))
    cancel_operations(operation_ids=[Operation.objects.get().pk], requested_by=None)
    status, location = follow(program, answer)
    assert status.json()["status"] == "Canceled"
    assert status.json()["error"]["code"] == "OperationPreempted"
    assert location.status_code == 409


@pytest.mark.parametrize(
    ("tag", "code"), [("agent-not-ready", "agent.not_ready"), ("unreachable", "connector.unreachable")]
)
def test_what_never_ran_has_failed_as_a_whole(program: Program, make_vm: MakeVm, tag: str, code: str) -> None:
    vm = make_vm("bad", tags={"simulate": tag})
    body = {"rebootSetting": "Never", "windowsParameters": {"classificationsToInclude": ["Security"]}}
    answer = program.ask("POST", address_of(vm, "/installPatches"), body)
    for _ in range(10):
        settle()
    status, location = follow(program, answer)
    if status.json()["status"] == "InProgress":
        pytest.skip("a machine that is not reached is tried again for a while")
    assert status.json()["status"] == "Failed"
    assert status.json()["error"]["code"] == code
    assert location.status_code == 409


# --- plans ---------------------------------------------------------------------------------------------------------


def test_a_plan_is_read_as_it_is_meant(program: Program, vm: VirtualMachine) -> None:
    program.ask("POST", address_of(vm, "/installPatches"), BODY)
    operation = Operation.objects.get()
    assert decode(operation.kind, operation.payload) == InstallationPlan(
        classifications=frozenset({Classification.CRITICAL, Classification.SECURITY}),
        kb_numbers_to_include=("4512508",),
        exclude_kbs_requiring_reboot=True,
        max_patch_publish_date=date(2024, 11, 1),
        reboot_setting=RebootSetting.NEVER,
        maximum_duration=timedelta(minutes=235),
        guard_overrides=("4512508",),
    )


WINDOWS = {"classificationsToInclude": ["Security"]}


@pytest.mark.parametrize(
    ("body", "target"),
    [
        ({"windowsParameters": WINDOWS}, "rebootSetting"),
        ({"rebootSetting": "NeverReboot", "windowsParameters": WINDOWS}, "rebootSetting"),
        ({"rebootSetting": "Never"}, "windowsParameters.classificationsToInclude"),
        ({"rebootSetting": "Never", "windowsParameters": []}, "windowsParameters"),
        ({"rebootSetting": "Never", "windowsParameters": WINDOWS, "linuxParameters": {"a": 1}}, "linuxParameters"),
        ({"rebootSetting": "Never", "windowsParameters": WINDOWS, "vmId": "x"}, "vmId"),
        ({"rebootSetting": "Never", "windowsParameters": WINDOWS | {"secret": 1}}, "secret"),
        (
            {"rebootSetting": "Never", "windowsParameters": {"classificationsToInclude": ["Other"]}},
            "windowsParameters.classificationsToInclude",
        ),
        (
            {"rebootSetting": "Never", "windowsParameters": {"classificationsToInclude": "Security"}},
            "windowsParameters.classificationsToInclude",
        ),
        (
            {"rebootSetting": "Never", "windowsParameters": {"kbNumbersToInclude": ["1111"]}},
            "windowsParameters.kbNumbersToInclude",
        ),
        (
            {"rebootSetting": "Never", "windowsParameters": {"kbNumbersToInclude": ["KB4512508 KB4512509"]}},
            "windowsParameters.kbNumbersToInclude",
        ),
        (
            {"rebootSetting": "Never", "windowsParameters": WINDOWS | {"kbNumbersToExclude": [7]}},
            "windowsParameters.kbNumbersToExclude",
        ),
        (
            {"rebootSetting": "Never", "windowsParameters": WINDOWS | {"excludeKbsRequiringReboot": "yes"}},
            "windowsParameters.excludeKbsRequiringReboot",
        ),
        (
            {"rebootSetting": "Never", "windowsParameters": WINDOWS | {"maxPatchPublishDate": "2026-02-30"}},
            "windowsParameters.maxPatchPublishDate",
        ),
        (
            {"rebootSetting": "Never", "windowsParameters": WINDOWS | {"patchNameMasksToInclude": ["*"]}},
            "patchNameMasksToInclude",
        ),
        *(
            ({"rebootSetting": "Never", "windowsParameters": WINDOWS, "maximumDuration": text}, "maximumDuration")
            for text in ("", "P", "PT", "PT0M", "PT5H", "4H", "PT4H; x", 120, "P9999D")
        ),
    ],
)
def test_a_plan_that_cannot_be_read_starts_nothing(
    program: Program, vm: VirtualMachine, body: dict[str, Any], target: str
) -> None:
    answer = program.ask("POST", address_of(vm, "/installPatches"), body)
    assert answer.status_code == 400
    assert answer.json()["error"]["target"] == target
    assert not Operation.objects.exists()


def test_the_message_for_a_kb_is_azures(program: Program, vm: VirtualMachine) -> None:
    body = BODY | {"windowsParameters": {"kbNumbersToInclude": ["1111"]}}
    assert program.ask("POST", address_of(vm, "/installPatches"), body).json() == {
        "error": {
            "code": "InvalidParameter",
            "message": "The entry in 'kbNumbersToInclude' with value '1111' is not valid. It must be a KBID such as KB4512508.",
            "target": "windowsParameters.kbNumbersToInclude",
        }
    }


def test_masks_came_with_a_version() -> None:
    body = {"rebootSetting": "Never", "windowsParameters": WINDOWS | {"patchNameMasksToInclude": ["*SQL*"]}}
    assert plan_of(body, "2025-04-01").patch_name_masks_to_include == ("*SQL*",)
    with pytest.raises(ArmError):
        plan_of(body, "2024-11-01")
    body = {"rebootSetting": "Never", "windowsParameters": WINDOWS | {"patchNameMasksToInclude": ["[x"]}}
    with pytest.raises(ArmError):
        plan_of(body, "2025-04-01")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b" ", 400),
        (b"[]", 400),
        (b"null", 400),
        (b"\xff\xfe", 400),
        (b'{"rebootSetting": NaN}', 400),
        (b'{"rebootSetting": "Never", "RebootSetting": "Always"}', 400),
        (b"[" * 100_000, 400),
        (b" " * 300_000, 413),
    ],
)
def test_a_body_that_is_none_starts_nothing(program: Program, vm: VirtualMachine, body: bytes, status: int) -> None:
    answer = program.ask("POST", address_of(vm, "/installPatches"), body)
    assert answer.status_code == status
    assert "error" in answer.json()
    assert not Operation.objects.exists()


def test_a_form_is_no_body(program: Program, vm: VirtualMachine) -> None:
    answer = program.client.post(
        f"{address_of(vm, '/installPatches')}?api-version={COMPUTE}",
        {"rebootSetting": "Never"},
        secure=True,
        headers={"Authorization": f"Bearer {program.token()}"},
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "UnsupportedMediaType")


def test_the_budget_of_a_machine_is_kept(program: Program, vm: VirtualMachine) -> None:
    statuses = [program.ask("POST", address_of(vm, "/assessPatches")).status_code for _ in range(7)]
    assert statuses == [202] * 6 + [429]
