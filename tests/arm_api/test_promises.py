"""The checks of every answer find the faults that they are for."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest

from tests.arm_api.programs import ARC, Program, address_of, path_of, settle
from tests.arm_api.promises import faults
from vms.models import VirtualMachine

IDS = {"x-ms-request-id": "a", "x-ms-correlation-request-id": "b", "x-ms-routing-request-id": "c"}
POLL = "https://portal/subscriptions/00000000-0000-0000-0000-000000000000/providers/Microsoft.Compute/locations/eastus/operations"
URL = f"{POLL}/00000000-0000-0000-0000-000000000001?api-version=2024-11-01"
FOLLOW = IDS | {"Azure-AsyncOperation": URL, "Location": URL, "Retry-After": "5"}
PLAN = {
    "maximumDuration": "PT2H",
    "rebootSetting": "Never",
    "windowsParameters": {"classificationsToInclude": ["Security"]},
}


def without(headers: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key != name}


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        *((200, without(IDS, name), {"value": []}) for name in IDS),
        *((202, without(FOLLOW, name), None) for name in ("Azure-AsyncOperation", "Location", "Retry-After")),
        (202, FOLLOW | {"Location": "/relative"}, None),
        (202, FOLLOW | {"Location": URL.partition("?")[0] + "?monitor=true"}, None),
        (202, FOLLOW, {}),
        (401, IDS, {"error": {"code": "a", "message": "b"}}),
        (405, IDS, {"error": {"code": "a", "message": "b"}}),
        (429, IDS, {"error": {"code": "a", "message": "b"}}),
        (404, IDS, {"code": "a", "message": "b"}),
        (404, IDS, {"error": {"code": "a"}}),
        (404, IDS, {"error": {"code": "a", "message": "b", "stack": "c"}}),
        (404, IDS, None),
        (200, IDS, {"name": "x", "startTime": "2026-01-01T00:00:00Z", "status": "Done"}),
        (200, IDS, {"name": "x", "startTime": "2026-01-01T00:00:00Z", "status": "Succeeded"}),
        (200, IDS, {"name": "x", "startTime": "yesterday", "status": "InProgress"}),
        (200, IDS, {"properties": {"displayName": "arc", "status": "Online"}}),
        (200, IDS, {"value": [{"properties": {"rebootSetting": "Sometimes"}}]}),
        (200, IDS, {"classifications": ["Security", "Other"]}),
    ],
)
def test_a_fault_is_found(status: int, headers: dict[str, str], body: Any) -> None:
    assert faults(status, headers, body)


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert not faults(202, FOLLOW, None)
    assert not faults(404, IDS, {"error": {"code": "a", "message": "b", "target": "c", "details": []}})
    assert not faults(200, IDS, {"tags": {"state": "anything", "rebootStatus": "x", "startTime": "x"}})


@pytest.mark.django_db
@pytest.mark.usefixtures("recorded_catalogue")
@pytest.mark.parametrize("arc", [False, True])
@pytest.mark.parametrize("verb", ["assess", "install"])
def test_a_field_that_a_result_leaves_out_is_missed(program: Program, make_vm: Any, arc: bool, verb: str) -> None:
    vm: VirtualMachine = make_vm("web-001", arc=arc)
    version = ARC if arc else "2024-11-01"
    body = PLAN if verb == "install" else None
    answer = program.ask("POST", address_of(vm, f"/{verb}Patches"), body, version=version)
    settle()
    result = program.get(path_of(answer["Location"]), version="").json()
    found = program.get(path_of(answer["Azure-AsyncOperation"]), version="").json()
    assert not faults(200, IDS, found)
    marks = {"availablePatches", "patches", "availablePatchCountByClassification", "rebootStatus"}
    for name in set(result) - marks - {"assessmentActivityId" if arc else ""}:
        lame = deepcopy(found)
        del lame["properties"]["output"][name]
        assert faults(200, IDS, lame), name
