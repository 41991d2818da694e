"""Application probes: how they are written, which addresses they may reach, and what an answer means for a rollout."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

DEFAULT_PORTS = {"http": 80, "https": 443}
MOST_CHARACTERS = 200
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?", re.IGNORECASE)
_PRINTABLE = re.compile(r"[!-~]*")


class ProbeProblem(StrEnum):
    """What is wrong with the text of a probe."""

    TOO_LONG = "too_long"
    BAD_CHARACTER = "bad_character"
    BAD_SCHEME = "bad_scheme"
    CREDENTIALS = "credentials"
    HOST_MISSING = "host_missing"
    BAD_HOST = "bad_host"
    PORT_MISSING = "port_missing"
    BAD_PORT = "bad_port"
    PATH_NOT_ALLOWED = "path_not_allowed"


class ProbeError(ValueError):
    """The text is no probe. `entry` is the part that is wrong; empty where something is missing."""

    def __init__(self, problem: ProbeProblem, entry: str = "") -> None:
        super().__init__(f"{problem.value}: {entry}")
        self.problem = problem
        self.entry = entry


@dataclass(frozen=True, slots=True)
class Probe:
    """Where a machine is asked how its application is. `path` is empty for TCP."""

    scheme: str  # tcp, http, https
    host: str
    port: int
    path: str = ""

    @property
    def authority(self) -> str:
        """Host and port as an HTTP request names them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS.get(self.scheme) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_probe(text: str) -> Probe:
    """Read `tcp://host:port`, `http://host[:port]/path` or `https://…`. Raises ProbeError on anything else."""
    text = text.strip()
    if len(text) > MOST_CHARACTERS:
        raise ProbeError(ProbeProblem.TOO_LONG)
    if not _PRINTABLE.fullmatch(text) or "#" in text:
        bad = next(character for character in text if character == "#" or not "!" <= character <= "~")
        raise ProbeError(ProbeProblem.BAD_CHARACTER, bad)
    scheme, sign, rest = text.partition("://")
    scheme = scheme.lower()
    if not sign or scheme not in {"tcp", *DEFAULT_PORTS}:
        raise ProbeError(ProbeProblem.BAD_SCHEME, scheme)
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    path = rest[len(authority) :]
    if "@" in authority:
        raise ProbeError(ProbeProblem.CREDENTIALS)
    host, port = _host_and_port(authority, scheme)
    if scheme == "tcp":
        if path:
            raise ProbeError(ProbeProblem.PATH_NOT_ALLOWED, path)
    elif not path.startswith("/"):
        path = f"/{path}"
    return Probe(scheme, host, port, path)


def _host_and_port(authority: str, scheme: str) -> tuple[str, int]:
    if authority.startswith("["):
        host, closing, rest = authority[1:].partition("]")
        try:
            host = str(IPv6Address(host))
        except ValueError:
            raise ProbeError(ProbeProblem.BAD_HOST, host) from None
        if not closing or "%" in host or (rest and not rest.startswith(":")):
            raise ProbeError(ProbeProblem.BAD_HOST, authority)
        sign, number = rest[:1], rest[1:]
    else:
        host, sign, number = authority.partition(":")
        if not host:
            raise ProbeError(ProbeProblem.HOST_MISSING)
        if not _HOST.fullmatch(host) or ".." in host:
            raise ProbeError(ProbeProblem.BAD_HOST, host)
    if not sign:
        if scheme not in DEFAULT_PORTS:
            raise ProbeError(ProbeProblem.PORT_MISSING)
        return host.lower(), DEFAULT_PORTS[scheme]
    if not re.fullmatch(r"[0-9]{1,5}", number) or not 1 <= int(number) <= 65_535:
        raise ProbeError(ProbeProblem.BAD_PORT, number)
    return host.lower(), int(number)


# --- where probes may go -----------------------------------------------------------------------------------------


def read_networks(texts: Iterable[str]) -> tuple[tuple[Network, ...], tuple[str, ...]]:
    """The networks that these CIDRs name, and the texts that are none: those allow nothing."""
    networks: list[Network] = []
    malformed: list[str] = []
    for text in texts:
        try:
            networks.append(ip_network(text.strip()))
        except ValueError:
            malformed.append(text)
    return tuple(networks), tuple(malformed)


def may_reach(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address lies in one of the networks. An IPv4 address that is written as IPv6 is judged as IPv4."""
    found: Address = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found.version == network.version and found in network for network in networks)


def is_outside(probe: Probe, networks: Iterable[Network]) -> bool:
    """Whether a probe names an address, not a name, and it lies in none of the networks: it would never be asked."""
    try:
        return not may_reach(probe.host, networks)
    except ValueError:
        return False


# --- what an answer means ----------------------------------------------------------------------------------------

GRACE = timedelta(minutes=10)  # a machine that has rebooted needs a moment
ASK_AGAIN = timedelta(seconds=15)
STAYS_FRESH = timedelta(minutes=2)  # how long an answer from before the start counts


class HealthVerdict(StrEnum):
    """What follows for a machine from an answer of its probe."""

    START = "start"
    SKIP = "skip"
    SUCCEED = "succeed"
    ASK_AGAIN = "ask_again"
    FAIL = "fail"


def judge_answer(*, is_healthy: bool, since_end: timedelta | None) -> HealthVerdict:
    """What follows from an answer that was asked for `since_end` after the operation had ended well; None: before it.

    A machine fails only by an answer from after its time of grace: a machine that was not asked has not failed.
    """
    if since_end is None:
        return HealthVerdict.START if is_healthy else HealthVerdict.SKIP
    if is_healthy:
        return HealthVerdict.SUCCEED
    return HealthVerdict.FAIL if since_end >= GRACE else HealthVerdict.ASK_AGAIN
