"""The judgement of bench.starts: each way to break "at most one start" shows, and what is allowed does not."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest

from bench.sluggish import KIND
from bench.starts import MUST_BE_ZERO, judge
from tests.factories import ConnectionFactory, OperationFactory, VirtualMachineFactory
from updates.models import Operation
from vms.models import Connection

pytestmark = pytest.mark.django_db


def make(capability: str = "") -> Connection:
    return ConnectionFactory(kind=KIND, config={"name": "lab", "start_seconds": 5.0, "capability": capability})


def operation(connection: Connection, **fields: Any) -> Operation:
    return OperationFactory(vm=VirtualMachineFactory(connection=connection), installation=True, **fields)


def deeds(request: object, *whats: str, at: float = 0.0) -> list[dict[str, Any]]:
    return [
        {"request": str(request), "kind": "installation", "connection": "lab", "what": what, "at": at} for what in whats
    ]


CALL = ("begun", "received", "answered")


def broken(connection: Connection, lines: list[dict[str, Any]]) -> dict[str, int]:
    return {name: count for name, count in judge(connection.pk, lines).items() if name in MUST_BE_ZERO and count}


def test_starts_that_arrived_once_or_are_not_confirmed_break_nothing() -> None:
    lab = make()
    done = operation(lab, succeeded=True)
    doubtful = operation(lab, failed=True, error_code="start.unconfirmed")
    never = operation(lab, failed=True, error_code="start.unconfirmed")
    lines = [*deeds(done.pk, *CALL), *deeds(doubtful.pk, "begun", "received"), *deeds(never.pk, "begun")]
    assert not broken(lab, lines)
    assert judge(lab.pk, lines)["of these the machine had received"] == 1


def test_a_second_start_is_doubled_unless_the_machine_knows_the_request() -> None:
    lab, clever = make(), make("idempotent_start")
    for connection, expected in ((lab, {"doubled": 1}), (clever, {})):
        row = operation(connection, succeeded=True)
        assert broken(connection, deeds(row.pk, *CALL, *CALL)) == expected


@pytest.mark.parametrize("fields", [{"failed": True}, {"succeeded": True, "state": "cancelled"}])
def test_a_start_that_arrived_and_is_denied_is_disowned(fields: dict[str, Any]) -> None:
    lab = make()
    row = operation(lab, **fields)
    assert broken(lab, deeds(row.pk, *CALL)) == {"disowned": 1}


def test_what_is_sent_after_its_end_was_reported_is_late() -> None:
    lab = make()
    row = operation(lab, failed=True, error_code="start.unconfirmed")
    assert isinstance(row.finished_at, datetime)
    late = row.finished_at.timestamp() + 1
    assert broken(lab, deeds(row.pk, "begun", "received", at=late)) == {"sent after being reported": 1}


def test_what_nobody_asked_for_and_what_does_not_end_is_told() -> None:
    lab = make()
    operation(lab, in_progress=True)
    assert broken(lab, deeds(uuid4(), *CALL)) == {"starts of no operation": 1, "not in a final state": 1}
