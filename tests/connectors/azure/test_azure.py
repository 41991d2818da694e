"""The connector against a server of ours: what is sent, what is read, and what is proven when an answer is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from connectors.azure.configuration import budget_of
from connectors.azure.connector import AzureConnector
from connectors.azure.handles import Handle, handle_of, is_ours
from connectors.azure.inventory import Cursor
from connectors.azure.link import link_for
from connectors.protocol import (
    BucketNews,
    ConnectorError,
    DiscoveredPage,
    Observation,
    ObserveRequest,
    Place,
    Started,
    StartOutcome,
    StartRequest,
    Unread,
    VmRef,
)
from connectors.secrets import variable_of
from patching.codes import ErrorCode
from patching.terms import (
    Classification,
    InstallationPlan,
    InstallationState,
    OperationKind,
    PatchMode,
    PatchSettings,
    ProductLine,
    RebootSetting,
    RunStatus,
)
from tests.connectors.azure.arm import OFFERS, SIGNATURE, SUBSCRIPTION, Arm, Reply, arc_id, arm, arm_id, refused
from tests.connectors.azure.desk import SECRET, configuration, connector, placed
from tests.connectors.catalogue import recorded
from tests.connectors.machines import NOW, SECURITY, machine, start

BUCKET = f"{SUBSCRIPTION}/japaneast"
LATER = NOW + timedelta(hours=1)


@pytest.fixture(autouse=True)
def signing_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable_of(SECRET), "hush")


@pytest.fixture
def server() -> Iterator[Arm]:
    found = arm()
    found.reset()
    yield found
    found.reset()


@pytest.fixture
def azure(server: Arm) -> AzureConnector:
    return connector(server)


def request(
    vm: VmRef | None = None,
    kind: OperationKind = OperationKind.ASSESSMENT,
    *,
    number: int = 1,
    plan: InstallationPlan | None = None,
    settings: PatchSettings | None = None,
) -> StartRequest:
    kind = OperationKind.INSTALLATION if plan else OperationKind.SETTINGS if settings else kind
    return StartRequest(UUID(int=number), kind, vm or placed(machine("web-1")), NOW, plan=plan, settings=settings)


def started(azure: AzureConnector, one: StartRequest) -> StartOutcome:
    (outcome,) = start(azure, [one], now=NOW)
    return outcome


def looked(
    azure: AzureConnector, one: StartRequest, handle: str, now: datetime = LATER
) -> Observation | ConnectorError:
    asked = ObserveRequest(one.request_id, one.kind, one.vm, handle, NOW, plan=one.plan, settings=one.settings)
    (seen,) = azure.observe([asked], now=now)
    return seen


def run(azure: AzureConnector, server: Arm, one: StartRequest) -> Observation:
    """Start it, let it end, look."""
    outcome = started(azure, one)
    assert isinstance(outcome, Started), outcome
    server.now = LATER
    seen = looked(azure, one, outcome.handle)
    assert isinstance(seen, Observation), seen
    return seen


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_a_plan_is_sent_as_azure_wants_it(azure: AzureConnector, server: Arm) -> None:
    plan = InstallationPlan(
        classifications=frozenset({Classification.SECURITY, Classification.CRITICAL}),
        kb_numbers_to_include=("890830",),
        kb_numbers_to_exclude=("2267602",),
        exclude_kbs_requiring_reboot=True,
        max_patch_publish_date=date(2026, 11, 10),
        reboot_setting=RebootSetting.NEVER,
        maximum_duration=timedelta(minutes=150),
    )
    vm = placed(machine("web-1", is_hotpatch_enabled=False))
    assert isinstance(started(azure, request(vm, plan=plan)), Started)
    ((method, path, sent),) = server.bodies
    assert (method, path) == ("POST", f"{arm_id('web-1')}/installPatches")
    assert sent == {
        "maximumDuration": "PT150M",
        "rebootSetting": "Never",
        "windowsParameters": {
            "classificationsToInclude": ["Critical", "Security"],
            "kbNumbersToInclude": ["KB890830"],
            "kbNumbersToExclude": ["KB2267602"],
            "excludeKbsRequiringReboot": True,
            "maxPatchPublishDate": "2026-11-10T23:59:59Z",
        },
    }
    assert server.received == {UUID(int=1): 1}, "by our id"


def test_what_the_guard_holds_is_left_out_by_name(azure: AzureConnector, server: Arm) -> None:
    """Azure knows no guard: a cumulative update that would take the machine off the train is excluded, recorded or not."""
    unknown = {
        "patchId": "0d0d0d0d-0000-0000-0000-000000000001",
        "name": "2026-11 Cumulative Update for Microsoft server operating system version 21H2 for x64-based Systems (KB5999999)",
        "kbId": "5999999",
        "classifications": ["Security"],
        "rebootBehavior": "CanRequestReboot",
        "publishedDate": "2026-11-09T16:00:00-08:00",
    }
    server.offers = [*OFFERS, unknown]
    on_the_train = placed(machine("web-1", os_build="20348.5020"))
    assert isinstance(started(azure, request(on_the_train, plan=SECURITY)), Started)
    sent = server.bodies[-1][2]["windowsParameters"]
    assert "KB5999999" in sent["kbNumbersToExclude"]
    assert "KB5084071" not in sent["kbNumbersToExclude"]
    server.bodies.clear()
    allowed = replace(SECURITY, guard_overrides=("5999999",))
    assert isinstance(started(azure, request(on_the_train, plan=allowed, number=2)), Started)
    assert "KB5999999" not in server.bodies[-1][2]["windowsParameters"].get("kbNumbersToExclude", ())


def test_offers_that_cannot_be_read_end_the_plan_at_the_record(azure: AzureConnector, server: Arm) -> None:
    server.graph = lambda _query: []
    assert isinstance(started(azure, request(placed(machine("web-1", os_build="20348.5020")), plan=SECURITY)), Started)
    newest = server.bodies[-1][2]["windowsParameters"]["maxPatchPublishDate"]
    assert (
        newest[:10]
        == max(
            one.released_on for one in recorded().releases_by_line[ProductLine.WS2022] if one.released_on <= NOW.date()
        ).isoformat()
    )


def test_resource_graph_that_rests_holds_an_installation_back(azure: AzureConnector, server: Arm) -> None:
    server.fault = lambda _method, path: (
        refused(429, "RateLimiting", "slow down", **{"x-ms-user-quota-resets-after": "00:00:04"})
        if "ResourceGraph" in path
        else None
    )
    outcome = started(azure, request(placed(machine("web-1", os_build="20348.5020")), plan=SECURITY))
    assert isinstance(outcome, ConnectorError)
    assert (outcome.is_retryable, outcome.nothing_was_sent, outcome.retry_after) == (True, True, 4.0)
    assert not server.received


def test_settings_leave_everything_else_alone(azure: AzureConnector, server: Arm) -> None:
    wanted = PatchSettings(patch_mode=PatchMode.MANUAL, enable_automatic_updates=False)
    seen = run(azure, server, request(settings=wanted))
    assert seen.settings == wanted
    sent = next(body for method, _path, body in server.bodies if method == "PATCH")
    assert "automaticByPlatformSettings" not in json.dumps(sent)
    assert set(sent) == {"properties"}


# --- what is read -----------------------------------------------------------------------------------------------------


def test_addresses_of_three_thousand_characters_are_kept_whole(azure: AzureConnector, server: Arm) -> None:
    outcome = started(azure, request())
    assert isinstance(outcome, Started)
    handle = handle_of(outcome.handle)
    assert handle is not None
    assert handle.status.endswith(SIGNATURE)
    assert len(handle.status) > 3_000
    assert handle.activity in server.operations
    assert outcome.news == (BucketNews(BUCKET, remaining=598),)


def test_a_young_assessment_waits_for_its_machine_and_an_old_one_is_not_lost(
    azure: AzureConnector, server: Arm
) -> None:
    """A server that fails for a moment would else leave the machine without a build until the next assessment."""
    outcome = started(azure, one := request())
    assert isinstance(outcome, Started)
    server.now = LATER
    server.fault = lambda _method, path: (
        refused(503, "ServerBusy", "soon") if path.lower().endswith("/virtualmachines/web-1") else None
    )
    early = looked(azure, one, outcome.handle, NOW + timedelta(minutes=9))
    assert isinstance(early, ConnectorError)
    assert early.is_retryable
    late = looked(azure, one, outcome.handle, NOW + timedelta(minutes=11))
    assert isinstance(late, Observation)
    assert late.assessment is not None
    assert (late.assessment.status, late.assessment.os_build) == (RunStatus.SUCCEEDED, "")
    server.fault = None
    again = looked(azure, one, outcome.handle, NOW + timedelta(minutes=9))
    assert isinstance(again, Observation)
    assert again.assessment is not None
    assert again.assessment.os_build == "20348.5020"


def test_an_assessment_tells_everything(azure: AzureConnector, server: Arm) -> None:
    assessment = run(azure, server, request()).assessment
    assert assessment is not None
    assert (assessment.status, assessment.error) == (RunStatus.SUCCEEDED, None), "an error of the code Success is none"
    assert assessment.os_build == "20348.5020"
    assert assessment.settings == PatchSettings(enable_hotpatching=True)
    assert assessment.installed == (), "no run of the last 30 days installed anything"
    dotnet, msrt, defender, driver = assessment.available
    assert dotnet.published_on == date(2026, 11, 10), "17:00 Pacific is the day of the release"
    assert msrt.version == "5.140"
    assert defender.version == "1.441.7.0"
    assert (driver.kb_number, driver.classification) == ("", Classification.UPDATES)
    assert driver.key.startswith("id:")


@pytest.mark.parametrize("letters", ["", "KB", "kb"])
def test_two_rows_with_one_kb_are_two_updates(azure: AzureConnector, server: Arm, letters: str) -> None:
    first = OFFERS[0] | {"kbId": f"{letters}5087424", "patchId": "a"}
    second = first | {"patchId": "b", "name": "Feature update to Windows Server 2025"}
    server.offers = [first, second, first]
    assessment = run(azure, server, request()).assessment
    assert assessment is not None
    assert sorted(patch.key for patch in assessment.available) == ["id:a", "id:b"]
    assert {patch.kb_number for patch in assessment.available} == {"5087424"}


def test_a_filter_excludes_and_a_class_does_not_select(azure: AzureConnector, server: Arm) -> None:
    vm = placed(machine("web-1", is_hotpatch_enabled=False))
    plan = replace(SECURITY, kb_numbers_to_exclude=("890830",))
    installation = run(azure, server, request(vm, plan=plan)).installation
    assert installation is not None
    assert installation.error is None
    states = {outcome.patch.kb_number: outcome.state for outcome in installation.patches}
    assert states == {
        "5084071": InstallationState.INSTALLED,
        "890830": InstallationState.EXCLUDED,
        "2267602": InstallationState.NOT_SELECTED,
        "": InstallationState.NOT_SELECTED,
    }
    assert installation.final_assessment is None


def ending(server: Arm, **fields: Any) -> None:
    """What operations answer from now on."""
    server.fault = lambda _method, path: Reply(body=fields) if "/operations/" in path else None


def test_a_run_that_azure_failed_leaves_open_what_it_did(azure: AzureConnector, server: Arm) -> None:
    outcome = started(azure, request(placed(machine("web-1", is_hotpatch_enabled=False)), plan=SECURITY))
    assert isinstance(outcome, Started)
    ending(server, status="Failed", error={"code": "ExtensionFailed", "message": "the extension gave up: 0x80070643"})
    seen = looked(azure, request(placed(machine("web-1")), plan=SECURITY), outcome.handle)
    assert isinstance(seen, Observation)
    assert seen.installation is not None
    assert not seen.installation.is_status_known
    assert seen.installation.error == ConnectorError("0x80070643", "the extension gave up: 0x80070643")


def test_a_result_may_come_by_its_own_address(azure: AzureConnector, server: Arm) -> None:
    """Machines outside of Azure: a state without an end time and without a result, signed anew in each answer."""
    outcome = started(azure, request())
    assert isinstance(outcome, Started)
    handle = handle_of(outcome.handle)
    assert handle is not None
    new = handle.status.replace("t=638", "t=639")

    def fault(_method: str, path: str) -> Reply | None:
        if "/operations/" not in path:
            return None
        return Reply(body={"status": "InProgress", "name": "x"}, headers={"Azure-AsyncOperation": new, "Location": new})

    server.fault = fault
    seen = looked(azure, request(), outcome.handle, NOW)
    assert isinstance(seen, Observation)
    assert handle_of(seen.handle or "") == replace(handle, status=new, result=new)
    server.fault = None
    server.now = LATER
    polls = iter([Reply(body={"status": "Succeeded", "name": "x"})])
    server.fault = lambda _method, path: next(polls, None) if "/operations/" in path else None
    ended = looked(azure, request(), outcome.handle)
    assert isinstance(ended, Observation)
    assert ended.assessment is not None
    assert len(ended.assessment.available) == len(OFFERS)


def test_what_others_installed_is_told_as_a_part_of_what_is_there(azure: AzureConnector, server: Arm) -> None:
    server.now = NOW - timedelta(hours=2)
    server.begin("web-1", "install", {"windowsParameters": {"classificationsToInclude": ["Security"]}})
    server.now = NOW
    assessment = run(azure, server, request()).assessment
    assert assessment is not None
    assert [(one.patch.kb_number, one.installed_on) for one in assessment.installed or ()] == [
        ("5084071", NOW - timedelta(hours=2) + timedelta(minutes=10))
    ]
    server.fault = lambda _method, path: refused(429, "RateLimiting", "no") if "ResourceGraph" in path else None
    server.now = NOW
    silent = run(azure, server, request(number=2)).assessment
    assert silent is not None
    assert silent.installed is None, "nothing is told, and the assessment is there"


def test_machines_outside_of_azure_tell_their_patches_by_resource_graph(azure: AzureConnector, server: Arm) -> None:
    vm = replace(placed(machine("arc-1", ProductLine.WS2025, is_hotpatch_enabled=False)), arm_id=arc_id("arc-1"))
    assessment = run(azure, server, request(vm)).assessment
    assert assessment is not None
    assert len(assessment.available) == len(OFFERS)
    assert assessment.os_build == "26100.4946"
    assert not assessment.is_ready_for_hotpatches, "it says that somebody has to act"
    server.now = NOW
    installation = run(azure, server, request(vm, plan=SECURITY, number=2)).installation
    assert installation is not None
    states = [outcome.state for outcome in installation.patches if outcome.patch.kb_number == "5084071"]
    assert states == [InstallationState.INSTALLED]
    assert f"POST {arc_id('arc-1')}/installPatches" in server.calls
    assert any("/operationresults/" in call for call in server.calls), "its state does not hold the result"


def test_patches_that_resource_graph_does_not_list_yet_are_waited_for(azure: AzureConnector, server: Arm) -> None:
    vm = replace(placed(machine("arc-1", ProductLine.WS2025, is_hotpatch_enabled=False)), arm_id=arc_id("arc-1"))
    outcome = started(azure, request(vm))
    assert isinstance(outcome, Started)
    server.graph = lambda _query: []
    server.now = NOW + timedelta(minutes=4)
    early = looked(azure, request(vm), outcome.handle, server.now)
    assert isinstance(early, ConnectorError)
    assert early.is_retryable
    assert "0 of 4" in early.detail
    late = looked(azure, request(vm), outcome.handle, NOW + timedelta(minutes=14))
    assert isinstance(late, Observation)
    assert late.assessment is not None
    assert late.assessment.available == ()


def test_an_operation_of_an_arc_machine_is_followed_by_addresses_signed_anew(
    azure: AzureConnector, server: Arm
) -> None:
    vm = replace(placed(machine("arc-1", ProductLine.WS2025, is_hotpatch_enabled=False)), arm_id=arc_id("arc-1"))
    outcome = started(azure, request(vm, plan=SECURITY))
    assert isinstance(outcome, Started)
    first = handle_of(outcome.handle)
    seen = looked(azure, request(vm, plan=SECURITY), outcome.handle, NOW)
    assert isinstance(seen, Observation)
    second = handle_of(seen.handle or "")
    assert first is not None
    assert second is not None
    assert first.status != second.status
    assert first.result != second.result
    assert first.activity == second.activity


def test_a_start_on_an_arc_machine_that_was_lost_is_found_in_resource_graph(azure: AzureConnector, server: Arm) -> None:
    vm = replace(placed(machine("arc-1", ProductLine.WS2025, is_hotpatch_enabled=False)), arm_id=arc_id("arc-1"))
    began = server.begin("arc-1", "install", {"windowsParameters": {}})
    kept = {"startDateTime": NOW.isoformat(), "startedBy": "User", "status": "InProgress"}
    server.graph = lambda query: (
        [] if "softwarepatches" in query else [{"id": "x", "name": began.id, "properties": kept}]
    )
    (found,) = azure.find([request(vm, plan=SECURITY)], now=NOW)
    assert isinstance(found, Started)
    seen = looked(azure, request(vm, plan=SECURITY), found.handle, NOW)
    assert isinstance(seen, Observation)
    assert seen.progress is not None
    kept |= {"status": "Succeeded", "rebootStatus": "NotNeeded"}
    ended = looked(azure, request(vm, plan=SECURITY), found.handle, NOW)
    assert isinstance(ended, Observation)
    assert ended.installation is not None
    assert ended.installation.status is RunStatus.SUCCEEDED


@pytest.mark.parametrize(
    "message", ["The machine is not connected.", "The Arc agent has expired.", "Agent disconnected"]
)
def test_an_agent_that_is_not_connected_is_a_reason(azure: AzureConnector, server: Arm, message: str) -> None:
    vm = replace(placed(machine("arc-1", ProductLine.WS2025)), arm_id=arc_id("arc-1"), power_state="unknown")
    server.fault = lambda method, _path: refused(409, "HCRP409", message) if method == "POST" else None
    refusal = started(azure, request(vm))
    assert isinstance(refusal, ConnectorError)
    assert (refusal.code, refusal.nothing_was_sent) == (ErrorCode.AGENT_NOT_READY, True)


def arc_vm(name: str = "arc-1") -> VmRef:
    return replace(placed(machine(name, ProductLine.WS2025)), arm_id=arc_id(name))


def sent_to_arc(server: Arm) -> list[tuple[str, str]]:
    return [(method, path.rpartition("/machines/")[2]) for method, path, _sent in server.bodies if method != "GET"]


@pytest.mark.parametrize("is_on", [True, False])
@pytest.mark.parametrize("has_profile", [True, False])
def test_hotpatching_of_an_arc_machine_ends_at_its_licence(
    azure: AzureConnector, server: Arm, *, is_on: bool, has_profile: bool
) -> None:
    vm = arc_vm()
    server.license_of("arc-1")["subscriptionStatus"] = "Disabled" if is_on else "Enabled"
    server.fault = lambda method, path: (
        refused(404, "ResourceNotFound", "none") if method == "GET" and "/license" in path and not has_profile else None
    )
    wanted = PatchSettings(patch_mode=PatchMode.MANUAL, enable_hotpatching=is_on, reboot_setting=RebootSetting.NEVER)
    seen = run(azure, server, request(vm, settings=wanted))
    assert seen.settings == wanted
    licences = [sent for _method, path, sent in server.bodies if path.endswith("/licenseProfiles/default") and sent]
    if has_profile or is_on:
        assert [method for method, path in sent_to_arc(server)] == ["PATCH", "PATCH" if has_profile else "PUT"]
        assert licences == [
            ({} if has_profile else {"location": "japaneast"})
            | {
                "properties": {
                    "productProfile": {
                        "productType": "WindowsServer",
                        "productFeatures": [
                            {"name": "Hotpatch", "subscriptionStatus": "Enable" if is_on else "Disable"}
                        ],
                    }
                }
            }
        ]
    else:
        assert licences == [], "who is not enrolled need not leave"


def test_azure_edition_has_no_licence_to_enrol(azure: AzureConnector, server: Arm) -> None:
    machine_ = server.arc("arc-1")["properties"]
    machine_["osSku"] = "Windows Server 2025 Datacenter Azure Edition"
    machine_["osProfile"]["windowsConfiguration"]["patchSettings"]["enableHotpatching"] = False
    wanted = PatchSettings(patch_mode=PatchMode.MANUAL, enable_hotpatching=True)
    assert run(azure, server, request(arc_vm(), settings=wanted)).settings == wanted
    assert sent_to_arc(server) == [("PATCH", "arc-1")]


def test_an_enrolment_that_hangs_is_looked_at_again_and_one_that_fails_says_why(
    azure: AzureConnector, server: Arm
) -> None:
    one = request(arc_vm(), settings=PatchSettings(enable_hotpatching=True))
    outcome = started(azure, one)
    assert isinstance(outcome, Started)
    server.operations.clear()  # its address is good no more
    feature = server.license_of("arc-1")
    feature["subscriptionStatus"] = "Enabling"
    waiting = looked(azure, one, outcome.handle)
    assert isinstance(waiting, Observation)
    assert waiting.progress is not None
    feature |= {"subscriptionStatus": "Failed", "error": {"code": "VbsNotRunning", "message": "no VBS"}}
    failed = looked(azure, one, outcome.handle)
    assert isinstance(failed, ConnectorError)
    assert (failed.code, failed.detail) == ("VbsNotRunning", "no VBS")
    del feature["error"]
    assert isinstance(looked(azure, one, outcome.handle), ConnectorError)


@pytest.mark.parametrize(
    ("method", "tail"), [("GET", "/arc-1"), ("GET", "/default"), ("PATCH", "/arc-1"), ("PATCH", "/default")]
)
def test_a_right_that_is_missing_for_the_enrolment_is_named(
    azure: AzureConnector, server: Arm, method: str, tail: str
) -> None:
    action = "Microsoft.HybridCompute/machines/licenseProfiles/write"
    message = f"The client 'x' does not have authorization to perform action '{action}' over scope '/y'."
    server.fault = lambda asked, path: (
        refused(403, "AuthorizationFailed", message) if asked == method and path.endswith(tail) else None
    )
    refusal = started(azure, request(arc_vm(), settings=PatchSettings(enable_hotpatching=True)))
    assert isinstance(refusal, ConnectorError)
    assert (refusal.code, refusal.detail, refusal.nothing_was_sent) == ("permission.missing", action, True)


@pytest.mark.parametrize("tail", ["/arc-1", "/default"])
def test_settings_of_an_arc_machine_that_may_have_arrived_are_found(
    azure: AzureConnector, server: Arm, tail: str
) -> None:
    one = request(arc_vm(), settings=PatchSettings(patch_mode=PatchMode.MANUAL, enable_hotpatching=True))
    server.fault = lambda asked, path: Reply(cut=-1) if asked == "PATCH" and path.endswith(tail) else None
    lost = started(azure, one)
    assert isinstance(lost, ConnectorError)
    assert not lost.nothing_was_sent
    assert list(azure.find([one], now=NOW)) == [None], "it has others: it is told again"
    server.license_of("arc-1")["subscriptionStatus"] = "Enabled"
    (found,) = azure.find([one], now=NOW)
    assert isinstance(found, Started)


# --- what is refused ---------------------------------------------------------------------------------------------------

REFUSALS = [
    (403, "AuthorizationFailed", "The client 'x' does not have authorization to perform action 'Microsoft.Compute/virtualMachines/assessPatches/action' over scope '/y'.", "permission.missing", False),
    (404, "ResourceNotFound", "not found", "vm.gone", False),
    (409, "OperationNotAllowed", "Another patch operation is in progress.", "vm.busy", True),
    (409, "OperationNotAllowed", "The operation requires the VM to be running (or set to run).", "vm.not_running", False),
    (409, "Conflict", "The request failed due to conflict with a concurrent request.", "vm.busy", True),
    (400, "VMAgentStatusCommunicationError", "not reporting", "agent.not_ready", False),
    (400, "InvalidParameter", "The entry in 'kbNumbersToInclude' with value '1' is not valid.", "InvalidParameter", False),
    (401, "ExpiredAuthenticationToken", "expired", "connection.unusable", True),
]  # fmt: skip


@pytest.mark.parametrize(("status", "code", "message", "expected", "is_retryable"), REFUSALS)
def test_a_refusal_is_named_and_nothing_was_begun(
    azure: AzureConnector, server: Arm, status: int, code: str, message: str, expected: str, is_retryable: bool
) -> None:
    server.fault = lambda method, path: refused(status, code, message) if path.endswith("assessPatches") else None
    outcome = started(azure, request())
    assert isinstance(outcome, ConnectorError)
    assert (outcome.code, outcome.is_retryable, outcome.nothing_was_sent) == (expected, is_retryable, True)
    if expected == "permission.missing":
        assert outcome.detail == "Microsoft.Compute/virtualMachines/assessPatches/action"


@pytest.mark.parametrize("pause", [None, "17"])
@pytest.mark.parametrize(
    ("left", "bucket"),
    [
        ("Microsoft.Compute/VMGuestPatchOperationSubscriptionMaximum;0,Microsoft.Compute/VMGuestPatchOperationResource;4", BUCKET),
        ("Microsoft.Compute/VMGuestPatchOperationSubscriptionMaximum;90,Microsoft.Compute/VMGuestPatchOperationResource;0", "vm:"),
        ("", BUCKET),
    ],
)  # fmt: skip
def test_a_budget_that_is_used_up_is_the_right_one(
    azure: AzureConnector, server: Arm, left: str, bucket: str, pause: str | None
) -> None:
    headers = {"x-ms-ratelimit-remaining-resource": left} | ({"Retry-After": pause} if pause else {})
    server.fault = lambda _method, path: (
        refused(429, "TooManyRequests", "slow down", **headers) if path.endswith("assessPatches") else None
    )
    outcome = started(azure, request())
    assert isinstance(outcome, ConnectorError)
    assert outcome.bucket is not None
    assert outcome.bucket.startswith(bucket)
    assert (outcome.is_retryable, outcome.nothing_was_sent) == (True, True)
    assert outcome.retry_after == (17.0 if pause else None)
    assert budget_of(Place(SUBSCRIPTION.upper(), "JapanEast")) == BUCKET


@pytest.mark.parametrize("kind", [OperationKind.ROLLBACK])
def test_what_it_cannot_do_is_not_sent(azure: AzureConnector, server: Arm, kind: OperationKind) -> None:
    outcome = started(azure, request(kind=kind))
    assert isinstance(outcome, ConnectorError)
    assert outcome.nothing_was_sent
    assert not server.calls


# --- a start whose answer is lost ---------------------------------------------------------------------------------------


def test_a_start_whose_answer_is_lost_is_found_and_never_sent_twice(azure: AzureConnector, server: Arm) -> None:
    lost = request(placed(machine("lost")))
    outcome = started(azure, lost)
    assert isinstance(outcome, ConnectorError)
    assert (outcome.is_retryable, outcome.nothing_was_sent) == (True, False)
    (found,) = azure.find([lost], now=NOW)
    assert isinstance(found, Started)
    server.now = LATER
    seen = looked(azure, lost, found.handle)
    assert isinstance(seen, Observation)
    assert seen.assessment is not None
    assert seen.assessment.available
    assert server.received == {lost.request_id: 1}


def test_an_installation_is_taken_for_ours_only_where_it_can_be_no_other(azure: AzureConnector, server: Arm) -> None:
    one = request(placed(machine("lost", is_hotpatch_enabled=False)), plan=SECURITY)
    started(azure, one)
    (operation,) = server.operations.values()

    def kept(by: str, *others: str) -> list[dict[str, Any]]:
        rows = [operation.id, *others]
        return [{"name": pk, "properties": {"startDateTime": NOW.isoformat(), "startedBy": by}} for pk in rows]

    for rows in (kept("Platform"), kept("User", "another"), []):
        server.graph = lambda _query, rows=rows: rows  # type: ignore[misc]
        (answer,) = azure.find([one], now=NOW)
        assert isinstance(answer, ConnectorError)
        assert (answer.code, answer.is_retryable) == (ErrorCode.START_UNCONFIRMED, True), "in doubt until its deadline"
    server.graph = lambda _query: kept("User")
    (answer,) = azure.find([one], now=NOW)
    assert isinstance(answer, Started)


def test_what_ran_before_is_not_ours(azure: AzureConnector, server: Arm) -> None:
    server.now = NOW - timedelta(minutes=10)
    server.begin("web-1", "assess")
    server.now = NOW
    (answer,) = azure.find([request()], now=NOW)
    assert isinstance(answer, ConnectorError)
    assert answer.code == ErrorCode.START_UNCONFIRMED


def test_settings_that_are_not_there_are_told_again(azure: AzureConnector, server: Arm) -> None:
    wanted = PatchSettings(patch_mode=PatchMode.MANUAL)
    assert azure.find([request(settings=wanted)], now=NOW) == [None]
    started(azure, request(settings=wanted))
    (found,) = azure.find([request(settings=wanted)], now=NOW)
    assert isinstance(found, Started)
    seen = looked(azure, request(settings=wanted), found.handle)
    assert isinstance(seen, Observation)
    assert seen.settings == wanted


def test_an_operation_that_is_gone_is_looked_up_at_its_machine(azure: AzureConnector, server: Arm) -> None:
    outcome = started(azure, request())
    assert isinstance(outcome, Started)
    server.now = LATER
    server.fault = lambda _method, path: refused(404, "NotFound", "gone") if "/operations/" in path else None
    seen = looked(azure, request(), outcome.handle)
    assert isinstance(seen, Observation)
    assert seen.assessment is not None
    assert {patch.kb_number for patch in seen.assessment.available} == {"5084071", "890830", "2267602", ""}
    server.begin("web-1", "assess")  # somebody else's: its record is not that of ours
    lost = looked(azure, request(), outcome.handle)
    assert isinstance(lost, ConnectorError)
    assert (lost.code, lost.is_retryable) == (ErrorCode.OPERATION_LOST, False)


# --- inventory ---------------------------------------------------------------------------------------------------------


def everything(azure: AzureConnector) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    cursor, first = "", True
    while cursor or first:
        page, first = azure.discover(cursor), False
        assert isinstance(page, DiscoveredPage), page
        found += [one.document for one in page.machines]
        cursor = page.next_cursor
    return found


def test_machines_come_by_pages_each_with_its_instance_view(azure: AzureConnector, server: Arm) -> None:
    server.page_size = 130
    for number in range(300):
        server.machine(f"vm-{number:04d}")
    linux = server.machine("vm-0007")["properties"]
    linux["storageProfile"]["osDisk"]["osType"] = "Linux"
    found = everything(azure)
    assert [one["name"] for one in found] == [f"vm-{number:04d}" for number in range(300)]
    viewed = [one for one in found if "instanceView" in one["properties"]]  # type: ignore[operator]
    assert len(viewed) == 299
    assert f"GET {arm_id('vm-0007')}" not in server.calls, "Linux machines are only counted"


def test_arc_machines_come_after_the_virtual_machines_by_pages(azure: AzureConnector, server: Arm) -> None:
    server.page_size = 20
    server.machine("vm-1")
    for number in range(50):
        server.arc(f"arc-{number:02d}")
    found = everything(azure)
    assert [one["name"] for one in found] == ["vm-1", *(f"arc-{number:02d}" for number in range(50))]
    assert not any(call.endswith("/machines/arc-01") for call in server.calls), "their list tells everything"


def test_a_cursor_that_was_kept_before_arc_machines_is_read(azure: AzureConnector, server: Arm) -> None:
    server.machine("vm-1")
    server.arc("arc-1")
    old = json.dumps({"left": [SUBSCRIPTION], "page": "", "told": 0, "mark": "", "at": 0, "power": 1})
    page = azure.discover(old)
    assert isinstance(page, DiscoveredPage)
    assert [one.document["name"] for one in page.machines] == ["vm-1"]
    page = azure.discover(page.next_cursor)
    assert isinstance(page, DiscoveredPage)
    assert [one.document["name"] for one in page.machines] == ["arc-1"]
    assert page.next_cursor == ""


@pytest.mark.parametrize(
    ("status", "code", "is_unread"),
    [
        (403, "AuthorizationFailed", True),
        (409, "MissingSubscriptionRegistration", False),
        (404, "InvalidResourceType", False),
        (400, "NoRegisteredProviderFound", False),
    ],
)
def test_who_may_not_look_at_arc_machines_gets_the_virtual_machines(
    azure: AzureConnector, server: Arm, status: int, code: str, *, is_unread: bool
) -> None:
    server.machine("vm-1")
    server.fault = lambda _method, path: refused(status, code, "no") if path.endswith("/machines") else None
    page = azure.discover()
    assert isinstance(page, DiscoveredPage)
    assert [one.document["name"] for one in page.machines] == ["vm-1"]
    last = azure.discover(page.next_cursor)
    assert isinstance(last, DiscoveredPage)
    assert (list(last.machines), last.next_cursor) == ([], "")
    reason = "Microsoft.HybridCompute/machines/read"
    assert list(last.unread) == (
        [Unread(SUBSCRIPTION, "Microsoft.HybridCompute/machines", reason)] if is_unread else []
    )


def test_a_list_of_arc_machines_that_fails_is_asked_for_again(azure: AzureConnector, server: Arm) -> None:
    page = azure.discover()
    assert isinstance(page, DiscoveredPage)
    server.fault = lambda _method, path: Reply(500) if path.endswith("/machines") else None
    again = azure.discover(page.next_cursor)
    assert isinstance(again, ConnectorError)
    assert again.is_retryable


def test_a_view_that_fails_costs_no_machine(azure: AzureConnector, server: Arm) -> None:
    for number in range(3):
        server.machine(f"vm-{number}")
    server.fault = lambda _method, path: Reply(500) if path.endswith("vm-1") else None
    assert [one["name"] for one in everything(azure)] == ["vm-0", "vm-1", "vm-2"]


@pytest.mark.parametrize("kind", ["Microsoft.Compute/virtualMachines", "Microsoft.HybridCompute/machines"])
def test_pages_that_repeat_end(azure: AzureConnector, server: Arm, kind: str) -> None:
    again = f"{server.address}/subscriptions/{SUBSCRIPTION}/providers/{kind}?page="

    def repeating(_method: str, path: str) -> Reply | None:
        if not path.endswith(f"/{kind}"):
            return None
        pages.append(path)
        return Reply(body={"value": [], "nextLink": f"{again}{len(pages) % 7}"})

    pages: list[str] = []
    server.fault = repeating
    page = azure.discover()
    while isinstance(page, DiscoveredPage) and page.next_cursor and len(pages) < 100:
        page = azure.discover(page.next_cursor)
    assert isinstance(page, ConnectorError)
    assert page.code == ErrorCode.CONNECTOR_GARBAGE
    assert len(pages) < 40


def _leading_to(address: str, kind: str, _method: str, path: str) -> Reply | None:
    return Reply(body={"value": [], "nextLink": address}) if path.endswith(kind) else None


@pytest.mark.parametrize(
    "address",
    [
        *(
            "https://evil.example/x",
            "http://127.0.0.1/x",
            "https://127.0.0.1.evil.example/x",
            "https://127.0.0.1@evil.example/",
        ),
        *("//evil.example", "https://127.0.0.1:1/x", "https://[", "javascript:x", ""),
    ],
)
def test_tokens_go_to_no_other_host(azure: AzureConnector, server: Arm, address: str) -> None:
    assert not is_ours(address, server.address)
    for kind, cursor in (("/virtualMachines", ""), ("/machines", str(Cursor((SUBSCRIPTION,), is_arc=True)))):
        server.fault = partial(_leading_to, address, kind)
        page = azure.discover(cursor)
        assert isinstance(page, ConnectorError) or not address
    seen = looked(azure, request(), str(Handle(status=address, activity="x")))
    assert isinstance(seen, ConnectorError)


def test_regions_lie_below_the_host() -> None:
    assert is_ours("https://japaneast.management.azure.com/x?y", "https://management.azure.com")
    assert not is_ours("https://xmanagement.azure.com/x", "https://management.azure.com")


# --- signing in -------------------------------------------------------------------------------------------------------


def test_a_token_that_is_not_taken_any_more_is_replaced(azure: AzureConnector, server: Arm) -> None:
    assert isinstance(started(azure, request()), Started)
    server.tokens += 1  # what was handed out is good no more
    assert isinstance(started(azure, request(number=2)), Started)
    assert server.received[UUID(int=2)] == 1


def test_a_secret_that_is_wrong_is_said_and_not_shown(server: Arm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable_of(SECRET), "wrong-and-hush")
    server.fault = lambda _method, path: (
        Reply(401, {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."})
        if "/oauth2/" in path
        else None
    )
    outcome = started(connector(server), request())
    assert isinstance(outcome, ConnectorError)
    assert (outcome.code, outcome.is_retryable, outcome.nothing_was_sent) == ("connection.unusable", True, True)
    assert "AADSTS7000215" in outcome.detail
    assert "hush" not in outcome.detail
    assert not server.received


def test_one_link_serves_every_sweep(server: Arm, monkeypatch: pytest.MonkeyPatch) -> None:
    one = link_for(configuration(server))
    assert link_for(configuration(server)) is one
    monkeypatch.setenv(variable_of(SECRET), "changed")
    assert link_for(configuration(server)) is not one


def test_starts_go_out_side_by_side(azure: AzureConnector, server: Arm) -> None:
    server.fault = lambda _method, path: Reply(400, hang=0.3) if path.endswith("assessPatches") else None
    vms = [placed(machine(f"web-{number}", ProductLine.WS2022)) for number in range(16)]
    began = time.monotonic()
    outcomes = start(azure, [request(vm, number=number) for number, vm in enumerate(vms, 1)], now=NOW)
    assert len(outcomes) == 16
    assert time.monotonic() - began < 3, "not one after the other"


def test_moments_of_every_kind_are_read() -> None:
    from connectors.azure.answers import moment_of

    for text in (
        "2026-11-23T09:00:00Z",
        "2026-11-23T09:00:00.1234567Z",
        "2026-11-23T01:00:00-08:00",
        "2026-11-23T09:00:00",
    ):
        found = moment_of({"at": text}, "at")
        assert found is not None
        assert found.replace(microsecond=0) == datetime(2026, 11, 23, 9, tzinfo=UTC)
    assert moment_of({"at": "soon"}, "at") is None
