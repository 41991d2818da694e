"""Asking machines how their application is: a TCP connection or an HTTP status, within the networks that are allowed.

A probe is text that a VM's owner wrote, so it is treated as hostile: every address that its host resolves to must lie in
the allowed networks, the connection goes to one of the addresses that were checked (the name is not resolved again), no
redirect is followed, no proxy is used, nothing secret is sent, and no more than the head of the answer is read.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from time import monotonic

from patching.probes import Network, Probe, ProbeError, may_reach, parse_probe

MOST_AT_ONCE = 32
MOST_BYTES = 4_096
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")


class ProbeFailure(StrEnum):
    """Why a machine does not count as healthy."""

    MALFORMED = "probe.malformed"
    NO_NETWORKS = "probe.no_networks"
    NOT_ALLOWED = "probe.not_allowed"
    UNRESOLVED = "probe.unresolved"
    REFUSED = "probe.refused"
    TIMEOUT = "probe.timeout"
    TLS = "probe.tls"
    STATUS = "probe.status"
    GARBAGE = "probe.garbage"
    BROKEN = "probe.broken"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a target answered. `detail` is the HTTP status, or the address that was not allowed."""

    target: str
    failure: ProbeFailure | None = None
    detail: str = ""

    @property
    def is_healthy(self) -> bool:
        """It accepted the connection, or answered 200 to 299."""
        return self.failure is None


class _FailedError(Exception):
    def __init__(self, failure: ProbeFailure, detail: str = "") -> None:
        self.failure = failure
        self.detail = detail


def probe_all(
    targets: Sequence[str], *, allowed_networks: Sequence[Network], timeout_seconds: float = 3.0
) -> list[ProbeResult]:
    """Ask every target, some side by side; one result for each, in their order, and never an exception for the batch.

    Each has `timeout_seconds` for all of it. The batch waits as long as that takes for its turns, and a second more.
    """
    if not targets:
        return []
    if not allowed_networks:
        return [ProbeResult(target, ProbeFailure.NO_NETWORKS) for target in targets]
    ask = _Asker(tuple(allowed_networks), timeout_seconds)
    pool = ThreadPoolExecutor(min(MOST_AT_ONCE, len(targets)), thread_name_prefix="probe")
    try:
        futures = [pool.submit(ask, target) for target in targets]
        turns = -(-len(targets) // MOST_AT_ONCE)
        wait(futures, timeout=turns * timeout_seconds + 1)
        return [_result(target, future) for target, future in zip(targets, futures, strict=True)]
    finally:
        # A resolver that hangs cannot be interrupted: its thread ends by itself, and nobody waits for it.
        pool.shutdown(wait=False, cancel_futures=True)


def _result(target: str, future: Future[None]) -> ProbeResult:
    if not future.done():
        return ProbeResult(target, ProbeFailure.TIMEOUT)
    error = future.exception()
    if error is None:
        return ProbeResult(target)
    if isinstance(error, _FailedError):
        return ProbeResult(target, error.failure, error.detail)
    return ProbeResult(target, ProbeFailure.BROKEN, type(error).__name__)


class _Asker:
    """Asks one target: returns if it is healthy, raises _FailedError with the reason if it is not."""

    def __init__(self, networks: tuple[Network, ...], timeout_seconds: float) -> None:
        self.networks = networks
        self.timeout_seconds = timeout_seconds

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """Certificates are verified with the system's trust store."""
        return ssl.create_default_context()

    def __call__(self, target: str) -> None:
        deadline = monotonic() + self.timeout_seconds
        try:
            probe = parse_probe(target)
        except ProbeError as error:
            raise _FailedError(ProbeFailure.MALFORMED, error.entry[:50]) from None
        try:
            with self._connect(probe, deadline) as plain:
                if probe.scheme == "http":
                    self._ask_http(plain, probe, deadline)
                elif probe.scheme == "https":
                    _limit(plain, deadline)
                    with self.tls.wrap_socket(plain, server_hostname=probe.host) as encrypted:
                        self._ask_http(encrypted, probe, deadline)
        except TimeoutError:
            raise _FailedError(ProbeFailure.TIMEOUT) from None
        except ssl.SSLError as error:
            raise _FailedError(ProbeFailure.TLS, str(getattr(error, "verify_message", ""))[:50]) from None
        except OSError:
            raise _FailedError(ProbeFailure.REFUSED) from None

    def _connect(self, probe: Probe, deadline: float) -> socket.socket:
        """A connection to the first address that takes it; all of them must be allowed before any is tried."""
        try:
            found = socket.getaddrinfo(probe.host.encode(), probe.port, type=socket.SOCK_STREAM)
        except OSError:
            raise _FailedError(ProbeFailure.UNRESOLVED) from None
        for *_rest, place in found:
            if not may_reach(str(place[0]), self.networks):
                raise _FailedError(ProbeFailure.NOT_ALLOWED, str(place[0])[:50])
        last: OSError = OSError("no address")
        for family, kind, protocol, _name, place in found:
            connection = socket.socket(family, kind, protocol)
            try:
                _limit(connection, deadline)
                connection.connect(place)
            except OSError as error:
                connection.close()
                last = error
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise last

    def _ask_http(self, connection: socket.socket, probe: Probe, deadline: float) -> None:
        request = (
            f"GET {probe.path} HTTP/1.1\r\nHost: {probe.authority}\r\nUser-Agent: HotpatchPortal\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n"
        )
        _limit(connection, deadline)
        connection.sendall(request.encode("ascii"))
        match = _STATUS_LINE.match(_first_line(connection, deadline))
        if match is None:
            raise _FailedError(ProbeFailure.GARBAGE)
        status = match[1].decode()
        if not status.startswith("2"):
            raise _FailedError(ProbeFailure.STATUS, status)


def _limit(connection: socket.socket, deadline: float) -> None:
    """Let the next call on this socket last no longer than the deadline."""
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)


def _first_line(connection: socket.socket, deadline: float) -> bytes:
    """The beginning of an answer, up to its first line's end; one that does not end within the bound is cut."""
    head = b""
    while b"\n" not in head and len(head) < MOST_BYTES:
        _limit(connection, deadline)
        part = connection.recv(MOST_BYTES)
        if not part:
            break
        head += part
    return head
