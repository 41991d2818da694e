"""Requests that cannot be read: each gets ARM's envelope with 4xx, changes nothing, and no page of the portal comes back."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from arm_api.calls import MOST_DEPTH
from tests.arm_api.programs import COMPUTE, RESOURCES, Program, address_of
from updates.models import Operation
from vms.models import VirtualMachine

pytestmark = pytest.mark.django_db
GRAPH = "/providers/Microsoft.ResourceGraph/resources"
SETTINGS = "properties.osProfile.windowsConfiguration.patchSettings"


def nested(depth: int, opening: str, closing: str) -> bytes:
    """JSON with so many objects or lists in each other, below a property."""
    return b'{"tags": ' + opening.encode() * depth + b'"x"' + closing.encode() * depth + b"}"


@pytest.mark.parametrize(
    "body",
    [
        rb'{"tags": {"half": "\ud800"}}',
        rb'{"tags": {"half\udfff": "x"}}',
        rb'{"tags": ["\ud83d"]}',
        rb'{"\ud800": 1}',
        nested(MOST_DEPTH + 1, '{"a": ', "}"),
        nested(MOST_DEPTH + 1, "[", "]"),
        nested(800, '{"a": ', "}"),
    ],
)
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_body_that_no_database_holds_is_none(program: Program, vm: VirtualMachine, method: str, body: bytes) -> None:
    program.token()
    with CaptureQueriesContext(connection) as queries:
        answer = program.ask(method, address_of(vm), body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "InvalidRequestContent")
    assert not any(query["sql"].startswith(("INSERT", "UPDATE")) for query in queries.captured_queries)


def test_whole_characters_outside_the_plane_are_texts(program: Program, vm: VirtualMachine) -> None:
    answer = program.ask("PATCH", address_of(vm), rb'{"tags": {"fish": "\ud83d\udc1f"}}')
    assert answer.json()["tags"] == {"fish": "🐟"}


def test_a_query_with_half_a_character_is_refused(program: Program, vm: VirtualMachine) -> None:
    for text in (r"'\ud800'", r"'\u0000'"):
        body = b'{"query": "resources | where name =~ ' + text.encode() + b'"}'
        answer = program.ask("POST", GRAPH, body, version="2021-03-01")
        assert answer.status_code == 400
        assert set(answer.json()) == {"error"}


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("x=%00", {}, 400),
        ("$skiptoken=%00", {}, 400),
        ("x=1", {"X-Odd": "\0"}, 400),
        ("x=1", {"Host": "elsewhere.example"}, 400),
        ("&".join(f"x{number}=" for number in range(2_000)), {}, 400),
    ],
)
def test_what_never_reaches_the_door_is_told_in_the_envelope(
    program: Program, query: str, headers: dict[str, str], status: int
) -> None:
    bearer = {"Authorization": f"Bearer {program.token()}"}
    answer = Client().get(f"/subscriptions?api-version={RESOURCES}&{query}", secure=True, headers=bearer | headers)
    assert answer.status_code == status
    assert answer["Content-Type"] == "application/json; charset=utf-8"
    assert answer.json()["error"]["code"] == "BadRequest"
    assert answer["x-ms-request-id"]


def test_a_body_of_another_charset_is_told_in_the_envelope(program: Program, vm: VirtualMachine) -> None:
    answer = Client().generic(
        "PATCH",
        f"{address_of(vm)}?api-version={COMPUTE}",
        b"{}",
        content_type="application/json; charset=utf-7",
        secure=True,
        headers={"Authorization": f"Bearer {program.token()}"},
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "UnsupportedMediaType")


def test_a_token_endpoint_tells_the_method_that_it_wants(client: Client) -> None:
    answer = client.get("/anything/oauth2/v2.0/token", secure=True)
    assert (answer.status_code, answer.json()["error"]["code"], answer["Allow"]) == (405, "MethodNotAllowed", "POST")


def test_people_still_get_pages(client: Client) -> None:
    for path in ("/accounts/login/?x=%00", "/service-principals/?x=%00", "/nothing/at/all"):
        answer = client.get(path, secure=True)
        assert answer.status_code in {400, 404}
        assert answer["Content-Type"].startswith("text/html")


def test_a_fault_of_the_portal_is_told_in_the_envelope_and_says_nothing_of_itself(
    program: Program, vm: VirtualMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a secret of the house")

    monkeypatch.setattr("arm_api.selectors.Grants.of", broken)
    program.client.raise_request_exception = False
    answer = program.get(address_of(vm))
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "InternalServerError")
    assert b"secret" not in answer.content


@pytest.mark.parametrize(
    "body",
    [
        {"properties": {"osProfile": {"windowsConfiguration": {"patchSettings": {"patchMode": {}}}}}},
        {"properties": {"osProfile": {"windowsConfiguration": {"patchSettings": {"enableHotpatching": {"a": 1}}}}}},
        {"location": {}},
        {"properties": {"osProfile": {"computerName": {}}}},
        {f"{SETTINGS}.patchMode": "Manual"},
        {"properties": {"osProfile.windowsConfiguration.patchSettings.patchMode": "Manual"}},
        {"properties.instanceView": {"a": 1}},
        {"properties.provisioningState": "Failed"},
    ],
)
def test_what_is_not_where_it_belongs_is_refused(program: Program, vm: VirtualMachine, body: dict[str, Any]) -> None:
    """An object where a word belongs, and a path where a name belongs."""
    answer = program.ask("PATCH", address_of(vm), body)
    assert answer.status_code in {400, 409}
    assert answer.json()["error"]["code"] in {"InvalidParameter", "PropertyChangeNotAllowed"}
    assert not Operation.objects.exists()


def test_empty_objects_say_nothing(program: Program, vm: VirtualMachine) -> None:
    body = {"properties": {"osProfile": {}, "diagnosticsProfile": {}}, "identity": None}
    assert program.ask("PATCH", address_of(vm), body).status_code == 200
    assert not Operation.objects.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("excludeKbsRequiringReboot", 0),
        ("excludeKbsRequiringReboot", ""),
        ("excludeKbsRequiringReboot", []),
        ("maxPatchPublishDate", 20260101),
        ("maxPatchPublishDate", True),
    ],
)
def test_a_plan_is_not_guessed_at(program: Program, vm: VirtualMachine, name: str, value: Any) -> None:
    windows = {"classificationsToInclude": ["Security"], name: value}
    answer = program.ask(
        "POST", address_of(vm, "/installPatches"), {"rebootSetting": "Never", "windowsParameters": windows}
    )
    assert (answer.status_code, answer.json()["error"]["target"]) == (400, f"windowsParameters.{name}")
    assert not Operation.objects.exists()


def test_digits_of_other_scripts_are_no_numbers(program: Program, vm: VirtualMachine) -> None:
    body = {"rebootSetting": "Never", "windowsParameters": {"classificationsToInclude": ["Security"]}}
    answer = program.ask("POST", address_of(vm, "/installPatches"), body | {"maximumDuration": "PT٣H"})
    assert (answer.status_code, answer.json()["error"]["target"]) == (400, "maximumDuration")


def test_an_id_is_written_in_one_way(program: Program, vm: VirtualMachine) -> None:
    whole = str(vm.resource_group.subscription.subscription_id)
    for odd in (whole.replace("-", ""), f"({whole})", whole.replace("0", "٠", 1), whole.replace("-", "_"), whole[:-1]):
        answer = program.get(address_of(vm).replace(whole, odd))
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "InvalidSubscriptionId")
