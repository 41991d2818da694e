"""Probes against real sockets on the loopback: healthy or not, in bounded time, and nowhere else."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from connectors.probe import MOST_AT_ONCE, MOST_BYTES, ProbeFailure, ProbeResult, probe_all
from tests.connectors.listeners import Answer, Server, closed_port, saying, silent
from updates.texts import PROBE_FAILURES

LOOPBACK = (ip_network("127.0.0.0/8"),)
CERTIFICATE = Path(__file__).parent / "data" / "loopback.pem"


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Server]]:
    servers: list[Server] = []

    def start(answer: Answer) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every address that a socket is told to connect to."""
    seen: list[Any] = []
    real = socket.socket.connect

    def spy(self: socket.socket, address: Any) -> None:
        seen.append(address)
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", spy)
    return seen


def ask(target: str, **options: Any) -> ProbeResult:
    (result,) = probe_all([target], **({"allowed_networks": LOOPBACK, "timeout_seconds": 2.0} | options))
    assert result.target == target
    return result


# --- healthy or not ----------------------------------------------------------------------------------------------


def test_tcp_is_healthy_where_the_connection_is_accepted(serve: Any) -> None:
    assert ask(f"tcp://127.0.0.1:{serve(silent).port}").is_healthy
    assert ask(f"tcp://127.0.0.1:{closed_port()}").failure is ProbeFailure.REFUSED


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", None),
        (b"HTTP/1.0 204\r\n\r\n", None),
        (b"HTTP/1.1 299 Fine\n\n", None),
        (b"HTTP/1.1 500 Oh no\r\n\r\n", ProbeFailure.STATUS),
        (b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n", ProbeFailure.STATUS),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", ProbeFailure.STATUS),
        (b"SSH-2.0-OpenSSH_9\r\n", ProbeFailure.GARBAGE),
        (b"HTTP/1.1 2000 OK\r\n\r\n", ProbeFailure.GARBAGE),
        (b"HTTP/1.1 200", ProbeFailure.GARBAGE),
        (b"x" * 3 * MOST_BYTES, ProbeFailure.GARBAGE),
        (b"", ProbeFailure.GARBAGE),
    ],
)
def test_http_is_healthy_from_200_to_299(serve: Any, status: bytes, failure: ProbeFailure | None) -> None:
    server = serve(saying(status))
    result = ask(f"http://127.0.0.1:{server.port}/health")
    assert result.failure is failure
    assert result.detail == (status.split()[1].decode() if failure is ProbeFailure.STATUS else "")
    assert server.connections == 1, "a redirect is not followed"


def test_what_is_sent_names_the_host_and_the_path_and_nothing_else(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bytes] = []

    def listen(client: socket.socket) -> None:
        heard.append(client.recv(65_536))
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    proxy, server = serve(silent), serve(listen)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    assert ask(f"http://127.0.0.1:{server.port}/health?deep=1").is_healthy
    head, *rest = heard[0].decode().split("\r\n")
    assert head == "GET /health?deep=1 HTTP/1.1"
    assert f"Host: 127.0.0.1:{server.port}" in rest
    assert {line.partition(":")[0] for line in rest if line} == {"Host", "User-Agent", "Accept", "Connection"}
    assert proxy.connections == 0, "no proxy of the environment is used"


# --- in bounded time and space -----------------------------------------------------------------------------------


def test_who_never_answers_costs_its_time_and_no_more(serve: Any) -> None:
    for target in (f"http://127.0.0.1:{serve(silent).port}/", f"https://127.0.0.1:{serve(silent).port}/"):
        begun = monotonic()
        assert ask(target, timeout_seconds=0.3).failure is ProbeFailure.TIMEOUT
        assert monotonic() - begun < 2


def test_an_answer_that_drips_is_cut_at_the_deadline_of_the_whole(serve: Any) -> None:
    stopped = threading.Event()

    def drip(client: socket.socket) -> None:
        for _ in range(100):
            client.sendall(b"H")
            if stopped.wait(0.05):
                return

    target = f"http://127.0.0.1:{serve(drip).port}/"
    begun = monotonic()
    assert ask(target, timeout_seconds=0.4).failure is ProbeFailure.TIMEOUT
    assert monotonic() - begun < 2
    stopped.set()


def test_a_huge_body_is_not_read(serve: Any) -> None:
    sent: list[int] = []

    def flood(client: socket.socket) -> None:
        client.recv(65_536)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        for _ in range(1_000):
            client.sendall(b"x" * 100_000)
            sent.append(100_000)

    server = serve(flood)
    begun = monotonic()
    assert ask(f"http://127.0.0.1:{server.port}/").is_healthy
    assert monotonic() - begun < 2
    assert sum(sent) < 50_000_000, "what the kernel took in, and then the connection was closed"


def test_a_batch_keeps_its_order_and_asks_side_by_side(serve: Any) -> None:
    good, slow, bad = serve(saying(b"HTTP/1.1 200 OK\r\n\r\n")), serve(silent), closed_port()
    targets = [
        f"http://127.0.0.1:{good.port}/",
        f"http://127.0.0.1:{slow.port}/",
        f"tcp://127.0.0.1:{bad}",
        "nonsense",
    ] * (2 * MOST_AT_ONCE // 4)
    begun = monotonic()
    results = probe_all(targets, allowed_networks=LOOPBACK, timeout_seconds=0.4)
    assert monotonic() - begun < 4, "one after the other the silent ones alone would take 6.4 seconds"
    assert [result.target for result in results] == targets
    expected = [None, ProbeFailure.TIMEOUT, ProbeFailure.REFUSED, ProbeFailure.MALFORMED]
    assert [result.failure for result in results] == expected * (len(targets) // 4)
    assert probe_all([], allowed_networks=LOOPBACK) == []


def test_a_resolver_that_hangs_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: released.wait(20))
    begun = monotonic()
    assert ask("tcp://web-013:22", timeout_seconds=0.2).failure is ProbeFailure.TIMEOUT
    assert monotonic() - begun < 5
    released.set()


def test_what_the_resolver_took_is_gone_for_the_rest(
    serve: Any, connects: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, real = serve(silent), socket.getaddrinfo

    def slow(*args: Any, **options: Any) -> Any:
        threading.Event().wait(0.3)
        return real("127.0.0.1", args[1], **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    assert ask(f"tcp://web-013:{server.port}", timeout_seconds=0.2).failure is ProbeFailure.TIMEOUT
    assert connects == []


def test_what_nobody_thought_of_is_that_targets_own_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: Any, **_options: Any) -> None:
        raise RuntimeError("?")

    monkeypatch.setattr(socket, "getaddrinfo", broken)
    result = ask("tcp://web-013:22")
    assert (result.failure, result.detail) == (ProbeFailure.BROKEN, "RuntimeError")
    monkeypatch.undo()
    monkeypatch.setattr(socket.socket, "connect", broken)
    assert ask("tcp://127.0.0.1:22").failure is ProbeFailure.BROKEN


# --- and nowhere else --------------------------------------------------------------------------------------------


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[Any]:
    """Let names stand for these addresses; the calls are kept."""
    calls: list[Any] = []

    def resolve(host: Any, port: int, **_options: Any) -> list[Any]:
        calls.append(host)
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return calls


@pytest.mark.parametrize(
    "target",
    [
        "tcp://10.0.0.4:22",
        "http://169.254.169.254/metadata/instance",
        "tcp://[::1]:22",
        "http://[::ffff:10.0.0.4]/",
        "http://3232235777/",  # 192.168.1.1 as a number
    ],
)
def test_an_address_outside_is_refused_before_any_connection(connects: list[Any], target: str) -> None:
    assert ask(target).failure is ProbeFailure.NOT_ALLOWED
    assert connects == []


def test_without_networks_nothing_is_asked_or_resolved(connects: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = resolving(monkeypatch, "127.0.0.1")
    assert ask("tcp://web-013:22", allowed_networks=()).failure is ProbeFailure.NO_NETWORKS
    assert (connects, calls) == ([], [])


def test_a_name_must_stand_for_allowed_addresses_alone(
    serve: Any, connects: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(silent)
    resolving(monkeypatch, "127.0.0.1", "10.0.0.4")
    result = ask(f"tcp://web-013:{server.port}")
    assert (result.failure, result.detail) == (ProbeFailure.NOT_ALLOWED, "10.0.0.4")
    assert (connects, server.connections) == ([], 0)


def test_the_connection_goes_to_the_address_that_was_checked(
    serve: Any, connects: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(saying(b"HTTP/1.1 200 OK\r\n\r\n"))
    calls = resolving(monkeypatch, "127.0.0.1")
    assert ask(f"http://web-013:{server.port}/").is_healthy
    assert calls == [b"web-013"], "the name is resolved once"
    assert connects == [("127.0.0.1", server.port)]


def test_the_next_address_is_tried_where_the_first_refuses(
    serve: Any, connects: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(silent)
    resolving(monkeypatch, "127.0.0.2", "127.0.0.1")  # nobody listens on the first
    # sockets of tests may go to 127.0.0.1 alone: the first is refused as a closed port is
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if address[0] == "127.0.0.2":
            raise ConnectionRefusedError
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    assert ask(f"tcp://web-013:{server.port}").is_healthy


def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: Any, **_options: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert ask("tcp://web-013:22").failure is ProbeFailure.UNRESOLVED


# --- TLS ---------------------------------------------------------------------------------------------------------


def test_a_certificate_has_to_be_trusted_and_of_the_host(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)

    def answer(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as encrypted:
            saying(b"HTTP/1.1 200 OK\r\n\r\n")(encrypted)

    target = f"https://127.0.0.1:{serve(answer).port}/"
    result = ask(target)
    assert (result.failure, result.detail) == (ProbeFailure.TLS, "self-signed certificate")
    assert ask(f"https://127.0.0.1:{serve(saying(b'no TLS')).port}/").failure is ProbeFailure.TLS
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    assert ask(target).is_healthy
    resolving(monkeypatch, "127.0.0.1")
    assert ask(target.replace("127.0.0.1", "web-013")).failure is ProbeFailure.TLS


def test_every_failure_has_its_words() -> None:
    assert set(PROBE_FAILURES) == set(ProbeFailure)
