"""A server that does its worst: every call ends in time, with a reason, and nothing is sent a second time."""

from __future__ import annotations

import json
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import timedelta
from uuid import UUID

import pytest

from connectors.azure import answers, link
from connectors.azure.configuration import CALL_SECONDS, THREADS
from connectors.azure.connector import AzureConnector
from connectors.protocol import ConnectorError, DiscoveredPage, Observation, ObserveRequest, Started, StartRequest
from connectors.secrets import variable_of
from patching.terms import OperationKind
from tests.connectors.azure.arm import SUBSCRIPTION, Arm, Reply, arm, packed, refused
from tests.connectors.azure.desk import SECRET, connector, placed
from tests.connectors.listeners import closed_port
from tests.connectors.machines import NOW, machine, start

DEEP = b'{"value":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
SHORT = 0.8  # seconds that a call may last here


@pytest.fixture(autouse=True)
def signing_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable_of(SECRET), "hush")


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls may last shorter than elsewhere, so that the tests do."""
    for module in ("connectors.azure.link", "connectors.azure.connector", "connectors.azure.inventory"):
        monkeypatch.setattr(f"{module}.CALL_SECONDS", SHORT)
    monkeypatch.setattr("connectors.azure.connector.LEAST_FOR_A_START", 0.0)
    monkeypatch.setattr("connectors.azure.inventory.STEP_SECONDS", 2 * SHORT)


@pytest.fixture
def server() -> Iterator[Arm]:
    found = arm()
    found.reset()
    yield found
    found.reset()


@pytest.fixture
def azure(server: Arm) -> AzureConnector:
    made = connector(server)
    assert isinstance(made.discover(), DiscoveredPage), "it has signed in"
    server.calls.clear()
    return made


# What the server does, whether a start that met it is in doubt, and whether the same look may be good later.
FAULTS: dict[str, tuple[Callable[[], Reply], bool]] = {
    "it hangs": (lambda: Reply(200, {}, hang=2 * SHORT), True),
    "it hangs up": (lambda: Reply(cut=-1), True),
    "it drips": (lambda: Reply(202, raw=b" " * 500, drip=0.05), True),
    "a body that is cut": (lambda: Reply(200, raw=b'{"status": "Succeeded", "x": "' + b"y" * 9_000, cut=20), True),
    "500": (lambda: refused(500, "InternalServerError", "oops"), True),
    "502 with a page": (lambda: Reply(502, raw=b"<html>bad gateway</html>"), True),
    "503 that asks for a pause": (lambda: refused(503, "ServerBusy", "busy", **{"Retry-After": "3"}), True),
    "429": (lambda: refused(429, "TooManyRequests", "slow"), False),
    "429 with a date": (lambda: refused(429, "TooManyRequests", "slow", **{"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}), False),
    "429 with nonsense": (lambda: refused(429, "TooManyRequests", "slow", **{"Retry-After": "soon"}), False),
    "a redirect": (lambda: Reply(307, None, {"Location": "https://127.0.0.1:1/"}), True),
    "an answer that is packed": (lambda: packed({"status": "Succeeded"}), True),
    "a code that nobody could keep": (lambda: refused(400, "\x00" * 300, "\x00"), False),
    "an error that is a text": (lambda: Reply(400, {"error": "no"}), False),
    "an error of numbers": (lambda: Reply(400, {"error": {"code": 7, "message": [1]}}), False),
    "an expired token": (lambda: refused(401, "ExpiredAuthenticationToken", "expired"), False),
}  # fmt: skip


def request(number: int = 1, name: str = "web-1") -> StartRequest:
    return StartRequest(UUID(int=number), OperationKind.ASSESSMENT, placed(machine(name)), NOW)


def observed(azure: AzureConnector, handle: str, count: int = 1) -> list[Observation | ConnectorError]:
    one = request()
    look = ObserveRequest(one.request_id, one.kind, one.vm, handle, NOW)
    return list(azure.observe([look] * count, now=NOW + timedelta(hours=1)))


@pytest.mark.parametrize("name", FAULTS)
def test_a_start_ends_in_time_and_says_what_is_proven(azure: AzureConnector, server: Arm, name: str) -> None:
    make, is_in_doubt = FAULTS[name]
    server.fault = lambda _method, path: make() if path.endswith("assessPatches") else None
    began = time.monotonic()
    (outcome,) = start(azure, [request()], now=NOW)
    assert time.monotonic() - began < SHORT + 1
    assert isinstance(outcome, ConnectorError)
    assert outcome.nothing_was_sent is not is_in_doubt
    assert outcome.is_retryable or outcome.nothing_was_sent
    assert outcome.code
    assert "\x00" not in outcome.detail
    sent = sum(call.endswith("assessPatches") for call in server.calls)
    assert sent == (2 if name == "an expired token" else 1), "what is refused for its token is sent with another, once"


@pytest.mark.parametrize("name", FAULTS)
def test_a_look_ends_in_time_and_spoils_no_other(azure: AzureConnector, server: Arm, name: str) -> None:
    (outcome,) = start(azure, [request()], now=NOW)
    assert isinstance(outcome, Started)
    make, _doubt = FAULTS[name]
    server.now = NOW + timedelta(hours=1)
    broken = iter([make()])
    server.fault = lambda _method, path: next(broken, None) if "/operations/" in path else None
    began = time.monotonic()
    answers = observed(azure, outcome.handle, count=3)
    assert time.monotonic() - began < SHORT + 1
    good = [seen for seen in answers if isinstance(seen, Observation) and seen.assessment is not None]
    assert len(good) >= 2


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"null",
            b"[]",
            b"17",
            b"<html>",
            b"{",
            b'{"status": 7}',
            b'{"status": "Frobnicating"}',
            b"\xff\xfe",
            DEEP,
        ),
        *(b'{"status": "Succeeded", "properties": {"output": []}}', b'{"status": "Succeeded", "properties": "x"}'),
        b'{"status": "Succeeded", "properties": {"output": {"status": "Odd", "availablePatches": [7, null, {"kbId": {}}]}}}',
    ],
    ids=lambda body: body[:40].decode(errors="replace"),
)
def test_json_that_says_nothing_ends_nothing_for_good(azure: AzureConnector, server: Arm, body: bytes) -> None:
    (outcome,) = start(azure, [request()], now=NOW)
    assert isinstance(outcome, Started)
    server.fault = lambda _method, path: Reply(raw=body) if "/operations/" in path else None
    (seen,) = observed(azure, outcome.handle)
    if isinstance(seen, ConnectorError):
        assert seen.is_retryable
    elif seen.assessment is not None:
        assert not seen.assessment.has_found, "a status that nobody knows is no end that tells anything"


def test_an_operation_that_never_ends_is_looked_at_and_no_more(azure: AzureConnector, server: Arm) -> None:
    (outcome,) = start(azure, [request()], now=NOW)
    assert isinstance(outcome, Started)
    one = request()
    look = ObserveRequest(one.request_id, one.kind, one.vm, outcome.handle, NOW)
    for hours in range(1, 50, 7):
        (seen,) = azure.observe([look], now=NOW + timedelta(hours=hours))
        assert isinstance(seen, Observation)
        assert seen.progress is not None
        assert 0 <= seen.progress.fraction < 1


def test_a_storm_of_refusals_makes_no_storm_of_calls(server: Arm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred calls share two cores with the server and other tests: here each has the time that it has elsewhere."""
    for module in ("connectors.azure.link", "connectors.azure.connector", "connectors.azure.inventory"):
        monkeypatch.setattr(f"{module}.CALL_SECONDS", CALL_SECONDS)
    azure = connector(server, subscriptions=SUBSCRIPTION)  # its own link, made with these times
    assert isinstance(azure.discover(), DiscoveredPage), "it has signed in"
    server.calls.clear()
    server.fault = lambda _method, path: refused(429, "TooManyRequests", "slow") if "Patches" in path else None
    outcomes = start(azure, [request(number, f"web-{number}") for number in range(1, 101)], now=NOW)
    assert all(isinstance(one, ConnectorError) and one.nothing_was_sent and one.bucket for one in outcomes)
    assert len(server.calls) == 100


def test_where_nobody_listens_nothing_was_sent(server: Arm) -> None:
    nowhere = connector(server, endpoint=f"https://127.0.0.1:{closed_port()}")
    (outcome,) = start(nowhere, [request()], now=NOW)
    assert isinstance(outcome, ConnectorError)
    assert (outcome.code, outcome.nothing_was_sent) == ("connector.unreachable", True)


def test_a_server_that_nobody_vouches_for_gets_no_request(server: Arm) -> None:
    distrusting = connector(server, ca_bundle="")
    (outcome,) = start(distrusting, [request()], now=NOW)
    assert isinstance(outcome, ConnectorError)
    assert outcome.nothing_was_sent
    assert not server.received


def test_looks_beyond_the_threads_wait_no_longer_than_a_call(azure: AzureConnector, server: Arm) -> None:
    (outcome,) = start(azure, [request()], now=NOW)
    assert isinstance(outcome, Started)
    server.fault = lambda _method, path: Reply(200, {}, hang=2 * SHORT) if "/operations/" in path else None
    began = time.monotonic()
    answers = observed(azure, outcome.handle, count=4 * THREADS)
    assert time.monotonic() - began < SHORT + 1
    assert all(isinstance(seen, ConnectorError) and seen.is_retryable for seen in answers)
    assert sum(thread.name.startswith("azure") for thread in threading.enumerate()) <= THREADS * 8


def test_memory_is_bounded_however_much_is_said(
    azure: AzureConnector, server: Arm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "MOST_BYTES", 2_000_000)
    assert answers.MOST_BYTES > 2_000_000
    endless = json.dumps({"value": ["x" * 1_000] * 20_000}).encode()  # 20 MB
    server.fault = lambda _method, path: Reply(raw=endless) if path.endswith("/virtualMachines") else None
    tracemalloc.start()
    try:
        page = azure.discover()
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(page, ConnectorError)
    assert page.is_retryable
    assert peak < 30_000_000


def test_calls_are_given_the_time_that_the_kind_declares() -> None:
    from connectors.registry import AZURE, KINDS

    assert KINDS[AZURE].traits.call_seconds >= CALL_SECONDS
