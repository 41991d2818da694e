"""The least that an account needs: the role in the docs, and what a test names as missing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.azure.configuration import AzureConfiguration
from connectors.azure.guide import EXAMPLE, FILE, guide
from connectors.azure.permissions import ACTS, NEEDED, READS, SETTINGS, lacking, role
from connectors.permissions import Missing, TellsPermissions
from connectors.protocol import ConnectorError
from connectors.secrets import variable_of
from tests.connectors.azure.arm import SUBSCRIPTION, Arm, Reply, arm, refused
from tests.connectors.azure.desk import SECRET, connector

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Arm]:
    monkeypatch.setenv(variable_of(SECRET), "hush")
    found = arm()
    found.reset()
    yield found
    found.reset()


def test_the_role_of_the_docs_is_the_one_that_is_needed() -> None:
    match = re.search(r"<!-- role -->\n```json\n(.*?)```", (ROOT / "docs" / "azure.md").read_text(), re.DOTALL)
    assert match is not None
    assert json.loads(match[1]) == role(["00000000-0000-0000-0000-000000000000"])


def test_the_lines_of_the_docs_are_those_of_the_page() -> None:
    text = re.sub(r"\s*\\\n\s*", " ", (ROOT / "docs" / "azure.md").read_text())
    told = guide(AzureConfiguration())
    assert json.loads(told.role) == role([EXAMPLE])
    for line in told.commands:
        assert f"\n{line.replace(FILE, 'FILE')}\n" in text


@pytest.mark.parametrize(
    ("grants", "expected"),
    [
        ([], list(NEEDED)),
        ([{"actions": ["*"], "notActions": []}], []),
        ([{"actions": ["*/read"]}, {"actions": [*ACTS, *SETTINGS]}], []),
        (
            [{"actions": ["microsoft.compute/VIRTUALMACHINES/*", "microsoft.compute/locations/*"]}],
            [action for action in NEEDED if "HybridCompute" in action],
        ),
        ([{"actions": ["*"], "notActions": ["Microsoft.Compute/virtualMachines/write"]}], [SETTINGS[0]]),
        ([{"actions": [*READS, *ACTS]}], list(SETTINGS)),
        ([{"actions": "*"}, {"actions": [7, None]}, {}], list(NEEDED)),
        ([{"actions": ["Microsoft.Compute/virtualMachinesX/*"]}], list(NEEDED)),
    ],
)
def test_what_no_grant_allows_is_lacking(grants: list[dict[str, object]], expected: list[str]) -> None:
    assert lacking(grants) == expected


def test_a_test_names_each_missing_permission(server: Arm) -> None:
    azure = connector(server)
    assert isinstance(azure, TellsPermissions)
    server.fault = lambda _method, path: (
        Reply(body={"value": [{"actions": [*READS, ACTS[0]], "notActions": []}]}) if "/permissions" in path else None
    )
    assert azure.missing_permissions() == [Missing(SUBSCRIPTION, action) for action in (*ACTS[1:], *SETTINGS)]


@pytest.mark.parametrize("status", [404, 403, 503])
def test_where_nobody_tells_the_grants_nothing_is_claimed(server: Arm, status: int) -> None:
    server.fault = lambda _method, path: refused(status, "No", "no") if "/permissions" in path else None
    told = connector(server).missing_permissions()
    assert isinstance(told, ConnectorError) if status == 503 else told == []
