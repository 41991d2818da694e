"""What a connection to Azure is made from, what its connector can do, and how it is to be used. No SDK is imported here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

from connectors.configuration import Bounds, ConfigurationError, FieldProblem, Wrong
from connectors.protocol import Buckets, Capability, Orchestrator, Pace, Place, Traits
from connectors.secrets import SecretName

PUBLIC_CLOUD = "https://management.azure.com"
PUBLIC_AUTHORITY = "https://login.microsoftonline.com"
# Microsoft's own sign-in addresses: only the person who typed another one can tell that it is right.
KNOWN_AUTHORITIES = frozenset(
    {
        "login.microsoftonline.com",
        "login.microsoftonline.us",
        "login.chinacloudapi.cn",
        "login.partner.microsoftonline.cn",
    }
)

# Microsoft's own clouds, by the host of their Azure Resource Manager: their name for az, and their sign-in addresses.
CLOUDS = {
    "management.azure.com": ("AzureCloud", frozenset({"login.microsoftonline.com"})),
    "management.usgovcloudapi.net": ("AzureUSGovernment", frozenset({"login.microsoftonline.us"})),
    "management.chinacloudapi.cn": (
        "AzureChinaCloud",
        frozenset({"login.chinacloudapi.cn", "login.partner.microsoftonline.cn"}),
    ),
}

# A POST to Azure takes seconds. One that is given up too early is in doubt, and nobody knows whether a machine is being patched.
CALL_SECONDS = 10.0
THREADS = 16  # calls that one process makes side by side to one cloud as one principal
# Azure grants so many assessments and installations together for each subscription and region.
STARTS_PER_MINUTE, STARTS_AT_ONCE = 200.0, 600.0


def budget_of(place: Place) -> str:
    """The budget of a subscription and region."""
    return f"{place.subscription_id.lower() or 'unknown'}/{place.location.lower() or 'unknown'}"


CAPABILITIES = frozenset({Capability.FIND_BY_REQUEST, Capability.SETTINGS})
TRAITS = Traits(
    call_seconds=CALL_SECONDS,
    pace=Pace(chunk=4 * THREADS, start_seconds=0.2, look_seconds=0.05),
    buckets=Buckets(name_of=budget_of, per_minute=STARTS_PER_MINUTE, burst=STARTS_AT_ONCE),
    orchestrator=Orchestrator.PLATFORM,
)


class Credential(StrEnum):
    """How the portal signs in."""

    ENVIRONMENT = "environment"  # AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET and their like
    MANAGED_IDENTITY = "managed_identity"
    WORKLOAD_IDENTITY = "workload_identity"
    CLIENT_SECRET = "client_secret"  # noqa: S105 (a word of the configuration)
    CERTIFICATE = "certificate"


_NEEDS: dict[Credential, tuple[str, ...]] = {
    Credential.CLIENT_SECRET: ("tenant_id", "client_id", "secret"),
    Credential.CERTIFICATE: ("tenant_id", "client_id", "secret"),
}
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}")
_AN_ID = "id like 00000000-0000-0000-0000-000000000000"
_AN_ADDRESS = "address like https://management.azure.com"


@dataclass(frozen=True, slots=True)
class AzureConfiguration:
    """`secret`: the name of the secret that holds the client secret, or the certificate and its key as PEM.

    `subscriptions`: ids of those whose machines are read, with commas or spaces between them; empty: all that the
    principal sees. `audience`: what its tokens are for; empty: `endpoint`. `ca_bundle`: the path of a file with the
    certificates that the cloud is trusted by; empty: those that everybody trusts.
    """

    credential: Credential = Credential.ENVIRONMENT
    tenant_id: Annotated[str, Bounds(most=253)] = ""
    client_id: Annotated[str, Bounds(most=36)] = ""
    secret: SecretName | None = None
    subscriptions: Annotated[str, Bounds(most=8_000)] = ""
    endpoint: str = PUBLIC_CLOUD
    authority: str = PUBLIC_AUTHORITY
    audience: str = ""
    ca_bundle: Annotated[str, Bounds(most=1_000)] = ""

    def __post_init__(self) -> None:
        """Raises ConfigurationError where the fields cannot be used, or not together."""
        problems = [
            *(FieldProblem(Wrong.MISSING, name) for name in _NEEDS.get(self.credential, ()) if not getattr(self, name)),
            *_wrong_address("endpoint", self.endpoint),
            *_wrong_address("authority", self.authority),
            *_wrong_ids("client_id", [self.client_id] if self.client_id else []),
            *_wrong_ids("subscriptions", _parts(self.subscriptions)),
        ]
        if self.tenant_id and not _TENANT.fullmatch(self.tenant_id):
            problems.append(FieldProblem(Wrong.NOT_READABLE, "tenant_id", self.tenant_id[:60], "tenant's id or domain"))
        if problems:
            raise ConfigurationError(tuple(problems))

    @property
    def subscription_ids(self) -> tuple[str, ...]:
        """The subscriptions that are read, each once, in lower case; none: all that the principal sees."""
        return tuple(dict.fromkeys(str(UUID(part)) for part in _parts(self.subscriptions)))

    @property
    def address(self) -> str:
        """Where Azure Resource Manager is, without a slash at its end."""
        return self.endpoint.rstrip("/")

    @property
    def scope(self) -> str:
        """What tokens are asked for."""
        return f"{(self.audience or self.address).rstrip('/')}/.default"

    @property
    def cloud(self) -> str:
        """Az's name of Microsoft's cloud that this leads to; empty: to any other endpoint, or nobody can tell.

        Certificates that the configuration brings along could vouch for anybody.
        """
        endpoint, authority = urlsplit(self.endpoint), urlsplit(self.authority)
        name, authorities = CLOUDS.get(endpoint.hostname or "", ("", frozenset()))
        is_plain = not self.ca_bundle and {endpoint.port or 443, authority.port or 443} == {443}
        return name if is_plain and authority.hostname in authorities else ""

    @property
    def is_authority_known(self) -> bool:
        """Whether Microsoft vouches for the sign-in address."""
        return (urlsplit(self.authority).hostname or "") in KNOWN_AUTHORITIES


def _parts(text: str) -> list[str]:
    return text.replace(",", " ").replace(";", " ").split()


def _wrong_ids(name: str, ids: list[str]) -> list[FieldProblem]:
    wrong = [one for one in ids if not _is_id(one)]
    return [FieldProblem(Wrong.NOT_READABLE, name, one[:60], _AN_ID) for one in wrong[:1]]


def _is_id(text: str) -> bool:
    try:
        return len(text) == len(str(UUID(text)))
    except ValueError:
        return False


def _wrong_address(name: str, text: str) -> list[FieldProblem]:
    """Tokens go to this host: it is https, and nothing in it is hidden from whoever reads the form."""
    try:
        found = urlsplit(text)
        is_good = (
            found.scheme == "https"
            and bool(found.hostname)
            and not (found.username or found.password or found.query or found.fragment)
            and found.path in {"", "/"}
            and text.isascii()
            and (found.port or 443) > 0
        )
    except ValueError:
        is_good = False
    return [] if is_good else [FieldProblem(Wrong.NOT_READABLE, name, text[:60], _AN_ADDRESS)]
