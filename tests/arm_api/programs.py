"""A program that speaks to the door: it signs in with its secret, and asks over TLS."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from django.test import Client

from arm_api.tokens import tenant_id
from tests.arm_api.promises import faults
from updates.engine.sweep import sweep
from updates.models import Operation
from vms.choices import Role
from vms.models import ResourceGroup, Subscription, VirtualMachine
from vms.principal_models import ServicePrincipal
from vms.services.principals import add_secret, create_principal

ORIGIN = "https://testserver"
COMPUTE = "2024-11-01"
ARC = "2024-07-10"
RESOURCES = "2022-12-01"


# A directory in which every exchange is kept, in the form that Microsoft's validator of live traffic (oav) reads.
TRAFFIC = os.environ.get("ARM_TRAFFIC", "")


def keep_traffic(method: str, address: str, body: Any, status: int, headers: Mapping[str, str], content: bytes) -> None:
    """Keep one exchange as a file, if a directory for them is named; `body`: what was sent, as JSON, if it was JSON."""
    if not TRAFFIC:
        return
    url = f"https://management.azure.com{address}"
    request: dict[str, Any] = {"url": url, "method": method, "headers": {"Content-Type": "application/json"}}
    if body is not None and status < 400:  # what was refused may be no JSON at all
        request["body"] = json.loads(body) if isinstance(body, bytes) else body
    response: dict[str, Any] = {"statusCode": str(status), "headers": dict(headers)}
    if content and "json" in headers.get("Content-Type", ""):
        response["body"] = json.loads(content)
    Path(TRAFFIC).mkdir(parents=True, exist_ok=True)
    exchange = {"liveRequest": request, "liveResponse": response}
    (Path(TRAFFIC) / f"{time.time_ns()}-{os.getpid()}.json").write_text(json.dumps(exchange))


def settle() -> None:
    """Let everything that is open end."""
    for _ in range(6):
        Operation.objects.open().update(next_step_at="2020-01-01T00:00:00Z")
        sweep(seconds=5)


@dataclass
class Program:
    """A service principal with one secret, and a client that sends its token."""

    principal: ServicePrincipal
    secret: str
    secret_id: int
    client: Client = field(default_factory=Client)
    bearer: str = ""

    @property
    def app_id(self) -> UUID:
        """Its client id."""
        return self.principal.app_id

    def ask_token(self, **changes: str) -> Any:
        """What the token endpoint answers."""
        form = {
            "grant_type": "client_credentials",
            "client_id": str(self.app_id),
            "client_secret": self.secret,
            "scope": f"{ORIGIN}/.default",
        }
        tenant = changes.pop("tenant", str(tenant_id()))
        return self.client.post(f"/{tenant}/oauth2/v2.0/token", form | changes, secure=True)

    def token(self) -> str:
        """A token, asked for once."""
        self.bearer = self.bearer or self.ask_token().json()["access_token"]
        return self.bearer

    def ask(self, method: str, path: str, body: Any = None, *, version: str = COMPUTE, **headers: str) -> Any:
        """What the door answers; `version` empty: none is sent."""
        joined = "&" if "?" in path else "?"
        address = f"{path}{joined}api-version={version}" if version else path
        given = {"Authorization": f"Bearer {self.token()}"} | {name.replace("_", "-"): v for name, v in headers.items()}
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = "application/json" if body is not None else "application/octet-stream"
        answer = self.client.generic(method, address, data, content_type=kind, secure=True, headers=given)
        keep_traffic(method, address, body, answer.status_code, answer.headers, answer.content)
        assert not faults(answer.status_code, answer.headers, answer.json() if answer.content else None)
        return answer

    def get(self, path: str, *, version: str = COMPUTE, **headers: str) -> Any:
        """GET."""
        return self.ask("GET", path, version=version, **headers)


def make_program(
    name: str = "deployer",
    role: Role | None = Role.OWNER,
    on: Subscription | ResourceGroup | VirtualMachine | None = None,
) -> Program:
    """A principal with this role on this place (None: everything)."""
    principal = create_principal(name=name, role=role, on=on)
    secret, text = add_secret(principal=principal, days=30)
    return Program(principal, text, secret.pk)


def address_of(vm: VirtualMachine, tail: str = "") -> str:
    """The address of a virtual machine or an Arc machine."""
    group = vm.resource_group
    kind = "Microsoft.HybridCompute/machines" if "hybridcompute" in vm.arm_id else "Microsoft.Compute/virtualMachines"
    place = f"/subscriptions/{group.subscription.subscription_id}/resourceGroups/{group.name}"
    return f"{place}/providers/{kind}/{vm.name}{tail}"


def path_of(url: str) -> str:
    """The path and query of an absolute address of the door."""
    assert url.startswith(ORIGIN), url
    return url.removeprefix(ORIGIN)
