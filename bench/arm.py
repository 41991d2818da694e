"""`python -m bench.arm`: the door for programs, at a fleet of this size, beside a view that says hello.

Everything goes over TLS through the same web processes. A ratio compares the processor time of the web processes for a request,
so that other work on the machine does not change it; PostgreSQL's stands beside it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from bench.machine import (
    OUT,
    children,
    cpu_seconds,
    free_port,
    manage,
    postmaster,
    process,
    rss_mb,
    save,
    servers,
    table,
)
from hotpatch_portal.stack.certificate import certificate_for

VERSION = "2024-11-01"


class Client:
    """One program on one connection, with its token."""

    def __init__(self, port: int, certificate: Path) -> None:
        self.port = port
        self.context = ssl.create_default_context(cafile=str(certificate))
        self.connection = http.client.HTTPSConnection("127.0.0.1", port, context=self.context, timeout=60)
        self.token = ""

    def ask(self, method: str, path: str, body: str = "", kind: str = "application/json") -> tuple[int, Any, Any]:
        """Status, headers and what the JSON says."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        data = answer.read()
        is_json = "json" in answer.headers.get("Content-Type", "")
        return answer.status, answer.headers, json.loads(data) if is_json and data else None

    def sign_in(self, tenant: str, app_id: str, secret: str) -> None:
        """Get a token."""
        form = {"grant_type": "client_credentials", "client_id": app_id, "client_secret": secret}
        form["scope"] = f"https://127.0.0.1:{self.port}/.default"
        kind = "application/x-www-form-urlencoded"
        status, _headers, found = self.ask("POST", f"/{tenant}/oauth2/v2.0/token", urlencode(form), kind)
        if status != 200:
            raise RuntimeError(found)
        self.token = found["access_token"]


def measured(work: Callable[[], object], times: int, web: int, database: int) -> dict[str, float]:
    """Milliseconds of processor time of one turn, of the web processes and of PostgreSQL, and of the clock."""
    work()
    before = cpu_seconds(children(web)), cpu_seconds(children(database), with_ended=True)
    began = time.perf_counter()
    for _ in range(times):
        work()
    took = time.perf_counter() - began
    after = cpu_seconds(children(web)), cpu_seconds(children(database), with_ended=True)
    web_ms, database_ms = ((b - a) / times * 1_000 for a, b in zip(before, after, strict=True))
    return {"web_ms": web_ms, "database_ms": database_ms, "clock_ms": took / times * 1_000}


def principal(environment: dict[str, str]) -> tuple[str, str, str]:
    """Tenant, client id and secret of an Owner of everything."""
    said = manage(environment, "service_principal", "create", f"bench-{time.time_ns()}", "--role", "owner")
    found = dict(re.findall(r"^(tenant|client id|secret): (\S+)$", said, re.MULTILINE))
    return found["tenant"], found["client id"], found["secret"]


def accepted(client: Client, paths: list[str]) -> dict[str, float]:
    """How many requests for an assessment are taken in a second, over one connection."""
    began = time.perf_counter()
    taken = sum(client.ask("POST", path)[0] == 202 for path in paths)
    took = time.perf_counter() - began
    if taken != len(paths):
        raise RuntimeError(f"of {len(paths)} requests {taken} were taken")
    return {"assess_per_second": taken / took}


def follow(client: Client, path: str) -> tuple[int, int, float, list[str]]:
    """All pages of a list: machines, requests, seconds, and the ids of the first page."""
    began, machines, requests, ids = time.perf_counter(), 0, 0, list[str]()
    while path:
        _status, _headers, page = client.ask("GET", path)
        requests += 1
        machines += len(page["value"])
        ids = ids or [row["id"] for row in page["value"]]
        parts = urlsplit(page.get("nextLink", ""))
        path = f"{parts.path}?{parts.query}" if parts.path else ""
    return machines, requests, time.perf_counter() - began, ids


def by_sdk(origin: str, certificate: Path, who: tuple[str, str, str], subscription: str) -> tuple[int, float]:
    """Machines and seconds of Microsoft's own SDK (extra `azure`)."""
    from azure.identity import ClientSecretCredential
    from azure.mgmt.compute import ComputeManagementClient

    trust = str(certificate)
    credential = ClientSecretCredential(
        *who, authority=origin, disable_instance_discovery=True, connection_verify=trust
    )
    scopes = [f"{origin}/.default"]
    client = ComputeManagementClient(
        credential, subscription, base_url=origin, credential_scopes=scopes, connection_verify=trust
    )
    began = time.perf_counter()
    return sum(1 for _ in client.virtual_machines.list_all()), time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vms", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--sdk", action="store_true", help="list the machines with azure-mgmt-compute as well")
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    with ExitStack() as stack:
        environment = stack.enter_context(servers()) | {"TLS": "1", "ARM_LIMIT_FACTOR": "10000"}
        manage(environment, "migrate", "-v", "0")
        print(manage(environment, "seed_fleet", "--vms", str(options.vms)).splitlines()[-1], flush=True)
        who = principal(environment)
        certificate, key = certificate_for(Path(environment["PORTAL_DIR"]) / "tls", ["127.0.0.1"])
        port, inner = free_port(), free_port()
        web = ["hotpatch_portal.stack.web", "--port", str(inner), "--processes", "1", "--behind-tls"]
        tls = ["hotpatch_portal.stack.tls", "--port", str(port), "--to", str(inner)]
        served = stack.enter_context(process(environment, *web))
        stack.enter_context(process(environment, *tls, "--certificate", str(certificate), "--key", str(key)))
        client = waited_for(port, certificate)
        client.sign_in(*who)
        figures = measure(client, served.pid, options.times)
        if options.sdk:
            listed, took = by_sdk(f"https://127.0.0.1:{port}", certificate, who, figures["subscription"])
            figures["around"] |= {"sdk_machines": listed, "sdk_seconds": took}
        figures["around"]["web_rss_mb"] = rss_mb(served.pid)
    show(figures, options.vms)
    save("arm", figures)


def waited_for(port: int, certificate: Path) -> Client:
    """A client, once the web server answers."""
    for _ in range(600):
        try:
            client = Client(port, certificate)
            if client.ask("GET", "/bench/hello/")[0] == 200:
                return client
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the web server does not answer")


def measure(client: Client, web: int, times: int) -> dict[str, Any]:
    """Every kind of request."""
    database = postmaster()
    _status, _headers, found = client.ask("GET", "/subscriptions?api-version=2022-12-01")
    base = found["value"][0]["id"]
    machines = f"{base}/providers/Microsoft.Compute/virtualMachines?api-version={VERSION}"
    listed, requests, took, ids = follow(client, machines)
    one = ids[0]
    cases: dict[str, tuple[str, int]] = {
        "hello": ("/bench/hello/", times),
        "GET a machine": (f"{one}?api-version={VERSION}", times),
        "GET with instance view": (f"{one}?$expand=instanceView&api-version={VERSION}", times),
        "list, a page of 500": (machines, max(times // 20, 5)),
        "list with instance views": (f"{machines}&statusOnly=true", max(times // 20, 5)),
    }
    figures: dict[str, Any] = {
        name: measured(lambda path=path: client.ask("GET", path), count, web, database)  # type: ignore[misc]
        for name, (path, count) in cases.items()
    }
    around = {"machines": listed, "requests_per_1000": requests / listed * 1_000, "list_seconds": took}
    around |= accepted(client, [f"{machine}/assessPatches?api-version={VERSION}" for machine in ids])
    return {"requests": figures, "around": around, "subscription": base.rpartition("/")[2]}


def show(figures: dict[str, Any], vms: int) -> None:
    """Print the ratios, then the figures around them."""
    hello = figures["requests"]["hello"]["web_ms"]
    heads = ["request", "× hello", "web ms", "database ms", "clock ms"]
    rows = [
        [name, one["web_ms"] / hello, one["web_ms"], one["database_ms"], one["clock_ms"]]
        for name, one in figures["requests"].items()
    ]
    table(f"The door at {vms:,} machines", heads, rows)
    table("Around it", ["what", "figure"], [[name, float(value)] for name, value in figures["around"].items()])


if __name__ == "__main__":
    main()
