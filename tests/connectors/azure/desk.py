"""The connector with a server of ours at its other end, as the contract's tests ask for one: for any machine, at any time.

Those tests look at operations that they never started, and say what time it is. Here such an operation is started first, at the
time at which it is said to have begun, and the server's clock follows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from connectors.azure.configuration import CAPABILITIES, TRAITS, AzureConfiguration, Credential
from connectors.azure.connector import AzureConnector
from connectors.azure.link import link_for
from connectors.catalogue import Catalogue
from connectors.protocol import (
    Capability,
    ConnectorError,
    DiscoveredPage,
    Observation,
    ObserveRequest,
    StartChunk,
    Started,
    StartRequest,
    Traits,
    VmRef,
)
from connectors.secrets import SecretName
from tests.connectors.azure.arm import CLIENT, SUBSCRIPTION, TENANT, Arm, arm, arm_id, certificate
from tests.connectors.catalogue import recorded

SECRET = "azure_test"


def configuration(server: Arm, **fields: object) -> AzureConfiguration:
    conf = AzureConfiguration(
        credential=Credential.CLIENT_SECRET,
        tenant_id=TENANT,
        client_id=CLIENT,
        secret=SecretName(SECRET),
        endpoint=server.address,
        authority=server.address,
        ca_bundle=str(certificate()[0]),
    )
    return replace(conf, **fields)  # type: ignore[arg-type]


def connector(server: Arm, catalogue: Catalogue | None = None, **fields: object) -> AzureConnector:
    """A connector to this server. The secret of the name `SECRET` has to be in the environment."""
    conf = configuration(server, **fields)
    return AzureConnector(conf, catalogue or recorded(), link_for(conf))


def placed(vm: VmRef) -> VmRef:
    """The machine where Azure has it."""
    return replace(vm, arm_id=arm_id(vm.name), subscription=SUBSCRIPTION, location="japaneast")


@dataclass
class Desk:
    """Passes on what it is asked, at the time that it is told."""

    server: Arm
    behind: AzureConnector
    capabilities: frozenset[Capability] = CAPABILITIES
    traits: Traits = TRAITS
    handles: dict[UUID, str] = field(default_factory=dict)

    @property
    def received(self) -> Counter[UUID]:
        return self.server.received

    def discover(self, cursor: str = "") -> DiscoveredPage | ConnectorError:
        return self.behind.discover(cursor)

    def start(self, requests: Iterator[StartRequest], *, now: datetime, until: float) -> Iterator[StartChunk]:
        self.server.now = now
        yield from self.behind.start((replace(one, vm=placed(one.vm)) for one in requests), now=now, until=until)

    def find(self, requests: Sequence[StartRequest], *, now: datetime) -> Sequence[Started | ConnectorError | None]:
        self.server.now = now
        return self.behind.find([replace(one, vm=placed(one.vm)) for one in requests], now=now)

    def observe(self, requests: Sequence[ObserveRequest], *, now: datetime) -> Sequence[Observation | ConnectorError]:
        asked = [replace(one, vm=placed(one.vm), handle=one.handle or self._begun(one)) for one in requests]
        self.server.now = now
        return self.behind.observe(asked, now=now)

    def _begun(self, request: ObserveRequest) -> str:
        if request.request_id not in self.handles:
            self.server.now = request.started_at
            start = StartRequest(
                request.request_id,
                request.kind,
                placed(request.vm),
                request.started_at,
                request.plan,
                request.rollback,
                request.settings,
            )
            chunks = self.behind.start(iter([start]), now=request.started_at, until=float("inf"))
            ((_pk, outcome),) = [pair for chunk in chunks for pair in chunk]
            self.handles[request.request_id] = outcome.handle if isinstance(outcome, Started) else ""
        return self.handles[request.request_id]


def desk() -> Desk:
    """A fresh one. The secret of the name `SECRET` has to be in the environment."""
    server = arm()
    server.reset()
    return Desk(server, connector(server))
