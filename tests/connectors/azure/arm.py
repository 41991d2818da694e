"""A small Azure Resource Manager on the loopback, over TLS: tokens, machines, operations, Resource Graph, and faults on request.

Its clock stands still until a test moves it. It writes down every request that reaches it.
"""

from __future__ import annotations

import gzip
import ipaddress
import json
import re
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import UUID, uuid4, uuid5

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.connectors.machines import NOW

SUBSCRIPTION = "11111111-2222-4333-8444-000000000001"
TENANT = "22222222-3333-4444-8555-000000000002"
CLIENT = "33333333-4444-4555-8666-000000000003"
GROUP = "rg-web"
LENGTHS = {"assess": 180, "install": 600, "settings": 60, "license": 60}  # seconds
_VM = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)/providers/"
    r"(?P<type>Microsoft\.Compute/virtualMachines|Microsoft\.HybridCompute/machines)(?:/(?P<name>[^/]+))?"
    r"(?:/(?P<act>assessPatches|installPatches|licenseProfiles/default))?",
    re.IGNORECASE,
)
_LIST = re.compile(
    r"/subscriptions/[^/]+/providers/(?P<type>Microsoft\.Compute/virtualMachines|Microsoft\.HybridCompute/machines)",
    re.IGNORECASE,
)
_OPERATION = re.compile(
    r"/subscriptions/[^/]+/providers/Microsoft\.[A-Za-z]+/locations/[^/]+/operation\w*/(?P<id>[^/]+)", re.IGNORECASE
)
# As long as Azure's own, which carry a certificate and a signature.
SIGNATURE = "p=53a5c8af&t=638679223540000000&c=" + "MIIHh" * 520 + "&s=" + "x9_-" * 85 + "&h=" + "h" * 43


def arm_id(name: str, group: str = GROUP) -> str:
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/{name}"


def arc_id(name: str, group: str = GROUP) -> str:
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.HybridCompute/machines/{name}"


@lru_cache(maxsize=1)
def certificate() -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = Path(mkdtemp(prefix="arm-"))
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


@dataclass
class Reply:
    """What is answered. `cut`: so many bytes of the body, then nothing; `drip`: seconds between two bytes."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    cut: int | None = None
    drip: float = 0.0
    hang: float = 0.0

    @property
    def content(self) -> bytes:
        if self.raw is not None:
            return self.raw
        return b"" if self.body is None else json.dumps(self.body).encode()


def refused(status: int, code: str, message: str, **headers: str) -> Reply:
    return Reply(status, {"error": {"code": code, "message": message}}, headers)


@dataclass
class Operation:
    id: str
    act: str
    machine: str
    began: datetime
    output: dict[str, Any]
    seconds: int
    recorded: list[dict[str, Any]] = field(default_factory=list)
    is_arc: bool = False

    def ended(self, now: datetime) -> datetime | None:
        end = self.began + timedelta(seconds=self.seconds)
        return end if now >= end else None


Fault = Callable[[str, str], Reply | None]


def _offer(kb_number: str | None, title: str, classes: list[str], behavior: str = "CanRequestReboot") -> dict[str, Any]:
    return {
        "patchId": str(uuid5(UUID(int=7), title)),
        "name": title,
        "kbId": kb_number,
        "classifications": classes,
        "rebootBehavior": behavior,
        "publishedDate": "2026-11-09T16:00:00.0000000-08:00",
        "lastModifiedDateTime": "2026-11-20T10:00:00.1234567+00:00",
        "assessmentState": "Available",
        "msrcSeverity": "Important",
    }


OFFERS = [
    _offer("5084071", "2026-11 Cumulative Update for .NET Framework 3.5 and 4.8.1 (KB5084071)", ["Security"]),
    _offer("890830", "Windows Malicious Software Removal Tool x64 - v5.140 (KB890830)", ["UpdateRollUp"]),
    _offer("2267602", "Security Intelligence Update - KB2267602 (Version 1.441.7.0)", ["Definition"], "NeverReboots"),
    _offer(None, "Contoso - System - 4.1.2", []),
]


class Arm:
    """The server. `now` is its clock, `received` how often each of our request ids came, `calls` what was asked for."""

    def __init__(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.arm = self  # type: ignore[attr-defined]
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate())
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.address = f"https://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.lock = threading.Lock()
        self.tokens = 0  # handed out; the last one is good, over all tests
        self.reset()

    def reset(self) -> None:
        self.now = NOW
        self.fault: Fault | None = None
        self.machines: dict[str, dict[str, Any]] = {}
        self.arcs: dict[str, dict[str, Any]] = {}
        self.signed = 0
        self.operations: dict[str, Operation] = {}
        self.received: Counter[UUID] = Counter()
        self.bodies: list[tuple[str, str, Any]] = []
        self.calls: list[str] = []
        self.offers = list(OFFERS)
        self.page_size = 50
        self.graph: Callable[[str], list[dict[str, Any]]] | None = None
        self.remaining = 599
        self.grants: list[dict[str, Any]] | None = None  # None: it does not tell them

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    # --- machines

    def machine(self, name: str) -> dict[str, Any]:
        """The machine of this name; it is there as soon as somebody asks."""
        with self.lock:
            if name.lower() not in self.machines:
                self.machines[name.lower()] = {
                    "id": arm_id(name),
                    "name": name,
                    "type": "Microsoft.Compute/virtualMachines",
                    "location": "japaneast",
                    "tags": {},
                    "properties": {
                        "vmId": str(uuid5(UUID(int=1), name)),
                        "provisioningState": "Succeeded",
                        "hardwareProfile": {"vmSize": "Standard_D4s_v5"},
                        "storageProfile": {
                            "imageReference": {
                                "publisher": "MicrosoftWindowsServer",
                                "offer": "WindowsServer",
                                "sku": "2022-datacenter-azure-edition-core",
                                "version": "latest",
                            },
                            "osDisk": {"osType": "Windows"},
                        },
                        "osProfile": {
                            "computerName": name[:15],
                            "windowsConfiguration": {
                                "provisionVMAgent": True,
                                "enableAutomaticUpdates": True,
                                "patchSettings": {
                                    "patchMode": "AutomaticByPlatform",
                                    "assessmentMode": "ImageDefault",
                                    "enableHotpatching": True,
                                },
                            },
                        },
                        "instanceView": {
                            "osVersion": "10.0.20348.5020",
                            "statuses": [
                                {"code": "ProvisioningState/succeeded", "level": "Info"},
                                {"code": "PowerState/running", "level": "Info", "displayStatus": "VM running"},
                            ],
                            "patchStatus": {},
                        },
                    },
                }
            return self.machines[name.lower()]

    def arc(self, name: str) -> dict[str, Any]:
        """The Arc machine of this name; it is there as soon as somebody asks."""
        with self.lock:
            return self.arcs.setdefault(name.lower(), _arc_machine(name))

    def license_of(self, name: str) -> dict[str, Any]:
        """What the licence of an Arc machine says of its feature Hotpatch."""
        for operation in self.operations.values():
            if operation.machine == name.lower() and operation.act == "license" and operation.ended(self.now):
                self.arc(name)["properties"]["licenseProfile"] = operation.output["properties"]
        profile = self.arc(name)["properties"].setdefault("licenseProfile", {})
        features = profile.setdefault("productProfile", {}).setdefault("productFeatures", [{"name": "Hotpatch"}])
        found: dict[str, Any] = features[0]
        return found

    def status_of(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.machine(name)["properties"]["instanceView"]["patchStatus"]
        return found

    def _viewed(self, name: str) -> dict[str, Any]:
        """The machine with what its runs have come to by now."""
        for operation in list(self.operations.values()):
            if operation.machine != name.lower() or operation.act == "settings":
                continue
            is_over = operation.ended(self.now) is not None
            key, kind = (
                ("availablePatchSummary", "assessment")
                if operation.act == "assess"
                else ("lastPatchInstallationSummary", "installation")
            )
            self.status_of(name)[key] = {
                "status": operation.output["status"] if is_over else "InProgress",
                f"{kind}ActivityId": operation.id,
                "startTime": operation.began.isoformat(),
                "lastModifiedTime": self.now.isoformat(),
            }
        return self.machine(name)

    # --- answering

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        url = urlsplit(target)
        path = unquote(url.path)
        self.calls.append(f"{method} {path}")
        if self.fault is not None and (found := self.fault(method, path)) is not None:
            return found
        if "gzip" in headers.get("Accept-Encoding", ""):
            return packed({"error": "whoever asks for it gets it"})
        if "/oauth2/" in path or "/.well-known/" in path:
            return self._sign_in(path)
        if headers.get("Authorization") != f"Bearer token-{self.tokens}":
            return refused(401, "InvalidAuthenticationToken", "The access token is expired.")
        sent = json.loads(body) if body else None
        self.bodies.append((method, path, sent))
        return self._resources(method, path, headers, sent, parse_qs(url.query))

    def _sign_in(self, path: str) -> Reply:
        if "/.well-known/" in path:
            at = f"{self.address}/{TENANT}"
            return Reply(
                body={
                    "token_endpoint": f"{at}/oauth2/v2.0/token",
                    "authorization_endpoint": f"{at}/oauth2/v2.0/authorize",
                    "issuer": f"{at}/v2.0",
                }
            )
        self.tokens += 1
        return Reply(body={"token_type": "Bearer", "expires_in": 3_600, "access_token": f"token-{self.tokens}"})

    def _resources(
        self, method: str, path: str, headers: Mapping[str, str], sent: Any, query: dict[str, list[str]]
    ) -> Reply:
        if query.get("api-version", ["2015"])[0] < "2015":
            return refused(400, "InvalidApiVersionParameter", "The api-version is not known.")
        if path.endswith("/providers/Microsoft.Authorization/permissions") and self.grants is not None:
            return Reply(body={"value": self.grants})
        if path == "/subscriptions":
            return Reply(body={"value": [{"subscriptionId": SUBSCRIPTION, "state": "Enabled", "displayName": "Web"}]})
        if path.endswith("/providers/Microsoft.ResourceGraph/resources"):
            return Reply(
                body={"totalRecords": 0, "count": 0, "data": self._graph(sent["query"]), "resultTruncated": "false"}
            )
        if match := _OPERATION.fullmatch(path):
            return self._operation(match["id"], is_result="monitor" in query or "operationresults" in path)
        if _LIST.fullmatch(path):
            return self._page(path, int(query.get("$skiptoken", ["0"])[0]))
        match = _VM.fullmatch(path)
        if match is None or match["name"] is None or match["name"].endswith("-no-such-machine"):
            return refused(404, "ResourceNotFound", f"{path} was not found.")
        is_arc = "hybrid" in match["type"].lower()
        if (match["act"] or "").lower().startswith("license"):
            return self._license(match["name"], method, headers, sent)
        if match["act"] is not None:
            return self._begin(match["name"], match["act"], headers, sent, is_arc=is_arc)
        if is_arc:
            if method == "PATCH":
                windows = self.arc(match["name"])["properties"]["osProfile"]["windowsConfiguration"]
                windows["patchSettings"] |= sent["properties"]["osProfile"]["windowsConfiguration"]["patchSettings"]
            self.license_of(match["name"])
            return Reply(body=self.arc(match["name"]))
        if method == "PATCH":
            return self._patch(match["name"], headers, sent)
        return Reply(body=self._viewed(match["name"]))

    def _page(self, path: str, first: int) -> Reply:
        is_arc = "hybrid" in path.lower()
        known = [
            {**one, "properties": {k: v for k, v in one["properties"].items() if k != "instanceView"}}
            for one in (self.arcs if is_arc else self.machines).values()
        ]
        body: dict[str, Any] = {"value": known[first : first + self.page_size]}
        if first + self.page_size < len(known):
            body["nextLink"] = (
                f"{self.address}{path}?api-version={'2026-07-15' if is_arc else '2026-04-01'}"
                f"&$skiptoken={first + self.page_size}"
            )
        return Reply(body=body)

    def _begin(self, name: str, act: str, headers: Mapping[str, str], sent: Any, *, is_arc: bool) -> Reply:
        self.received[UUID(headers["x-ms-client-request-id"])] += 1
        self.remaining -= 1
        kind = "assess" if act.lower().startswith("assess") else "install"
        operation = self.begin(name, kind, sent)
        if is_arc:  # their results hold no patches; those are in Resource Graph alone
            operation.is_arc = True
            operation.recorded = operation.output.pop("patches", operation.output.pop("availablePatches", []))
            _as_of_arc(operation)
        reply = self._accepted(operation)
        return Reply(cut=-1) if name == "lost" else reply

    def begin(self, name: str, act: str, sent: Any = None) -> Operation:
        """Begin something on a machine, whoever asked for it."""
        made = str(uuid4())
        output: dict[str, Any] = {
            "status": "Succeeded",
            "startDateTime": self.now.isoformat(),
            "error": {"details": [], "code": "Success", "message": "0 error/s reported"},
        }
        if act == "assess":
            output |= {"assessmentActivityId": made, "rebootPending": False, "availablePatches": self.offers}
            output |= {"criticalAndSecurityPatchCount": 1, "otherPatchCount": len(self.offers) - 1}
        elif act == "install":
            output |= {"installationActivityId": made, "rebootStatus": "NotNeeded", "maintenanceWindowExceeded": False}
            output["patches"] = [self._outcome(one, sent) for one in self.offers]
        operation = Operation(made, act, name.lower(), self.now, output, LENGTHS[act])
        self.operations[made] = operation
        return operation

    @staticmethod
    def _outcome(offer: dict[str, Any], sent: Any) -> dict[str, Any]:
        wanted = (sent or {}).get("windowsParameters", {})
        told = {key: offer[key] for key in ("patchId", "name", "kbId", "classifications")}
        if f"KB{offer['kbId']}" in wanted.get("kbNumbersToExclude", ()):
            return told | {"installationState": "Excluded"}
        is_chosen = set(offer["classifications"]) & set(wanted.get("classificationsToInclude", ()))
        return told | {"installationState": "Installed" if is_chosen else "NotSelected"}

    def _patch(self, name: str, headers: Mapping[str, str], sent: Any) -> Reply:
        self.received[UUID(headers["x-ms-client-request-id"])] += 1
        windows = self.machine(name)["properties"]["osProfile"]["windowsConfiguration"]
        windows |= sent["properties"]["osProfile"]["windowsConfiguration"]
        return self._accepted(self.begin(name, "settings"))

    def _license(self, name: str, method: str, headers: Mapping[str, str], sent: Any) -> Reply:
        profile = {"id": f"{arc_id(name)}/licenseProfiles/default", "name": "default", "location": "japaneast"}
        if method == "GET":
            self.license_of(name)
            return Reply(body=profile | {"properties": self.arc(name)["properties"]["licenseProfile"]})
        self.received[UUID(headers["x-ms-client-request-id"])] += 1
        operation = self.begin(name, "license")
        operation.is_arc = True
        product = json.loads(json.dumps(sent["properties"]["productProfile"]))
        for feature in product["productFeatures"]:
            feature["subscriptionStatus"] += "d"
        operation.output = profile | {"properties": {"productProfile": product, "provisioningState": "Succeeded"}}
        return self._accepted(operation)

    def _at_arc(self, operation: Operation) -> dict[str, str]:
        """Where an operation of an Arc machine is followed: other addresses, signed anew in each answer."""
        self.signed += 1
        at = f"{self.address}/subscriptions/{SUBSCRIPTION}/providers/Microsoft.HybridCompute/locations/japaneast"
        mark = f"?api-version=2026-07-15&t={self.signed}&{SIGNATURE}"
        return {
            "Azure-AsyncOperation": f"{at}/operationstatus/{operation.id}{mark}",
            "Location": f"{at}/operationresults/{operation.id}{mark}",
            "x-ms-request-id": str(uuid4()),
        }

    def _accepted(self, operation: Operation) -> Reply:
        if operation.is_arc:
            return Reply(202, None, self._at_arc(operation))
        at = f"{self.address}/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/locations/japaneast/operations/{operation.id}"
        left = f"Microsoft.Compute/VMGuestPatchOperationSubscriptionMaximum;{self.remaining},Microsoft.Compute/VMGuestPatchOperationResource;5"
        return Reply(
            202,
            None,
            {
                "Azure-AsyncOperation": f"{at}?api-version=2026-04-01&{SIGNATURE}",
                "Location": f"{at}?monitor=true&api-version=2026-04-01&{SIGNATURE}",
                "x-ms-request-id": operation.id,
                "x-ms-ratelimit-remaining-resource": left,
            },
        )

    def _operation(self, pk: str, *, is_result: bool) -> Reply:
        operation = self.operations.get(pk)
        if operation is None:
            return refused(404, "NotFound", "The operation is not known.")
        end = operation.ended(self.now)
        if operation.is_arc:
            return self._operation_of_arc(operation, is_over=end is not None, is_result=is_result)
        if is_result:
            return Reply(202) if end is None else Reply(body=operation.output)
        body: dict[str, Any] = {"startTime": operation.began.isoformat(), "status": "InProgress", "name": pk}
        if end is not None:
            body |= {"status": "Succeeded", "endTime": end.isoformat(), "properties": {"output": operation.output}}
        return Reply(body=body)

    def _operation_of_arc(self, operation: Operation, *, is_over: bool, is_result: bool) -> Reply:
        if is_result:
            return Reply(body=operation.output) if is_over else Reply(202, None, self._at_arc(operation))
        status = "Succeeded" if is_over else "InProgress"
        body = {"name": operation.id, "status": status, "startTime": operation.began.isoformat()}
        return Reply(body=body, headers={} if is_over else self._at_arc(operation))

    def _as_done(self, patch: dict[str, Any], run: Operation) -> dict[str, Any]:
        end = run.ended(self.now)
        return _as_recorded(patch) | {"lastModifiedDateTime": end.isoformat() if end else None}

    def _graph(self, query: str) -> list[dict[str, Any]]:
        if self.graph is not None:
            return self.graph(query)
        runs = {one.id: one for one in self.operations.values() if one.act == "install"}
        if query.startswith("patchinstallationresources") and "softwarepatches" in query:
            named = [one for pk, one in runs.items() if pk in query]
            whole = [one for one in runs.values() if f"/{one.machine}/" in query.lower() and one.ended(self.now)]
            return [
                {"id": "x", "name": patch["patchId"], "properties": self._as_done(patch, one)}
                for one in named or whole
                for patch in one.recorded or one.output.get("patches", ())
            ]
        if query.startswith("patchassessmentresources") and "softwarepatches" in query:
            return [{"id": "x", "name": one["patchId"], "properties": _as_recorded(one)} for one in self.offers]
        return []


def _as_of_arc(operation: Operation) -> None:
    """Its result has counts, and no error object where there is none."""
    output = operation.output
    del output["error"]
    output |= {"startedBy": "User", "osType": "Windows", "errorDetails": None, "patchServiceUsed": "WU_WSUS"}
    output["lastModifiedDateTime"] = (operation.began + timedelta(seconds=operation.seconds)).isoformat()
    if operation.act == "assess":
        counted = Counter((one["classifications"] or ["other"])[0] for one in operation.recorded)
        output["availablePatchCountByClassification"] = {name.lower(): count for name, count in counted.items()}
        for name in ("criticalAndSecurityPatchCount", "otherPatchCount"):
            output.pop(name, None)
        return
    states = Counter(one["installationState"] for one in operation.recorded)
    for name in ("Installed", "NotSelected", "Excluded", "Pending", "Failed"):
        output[f"{name[0].lower()}{name[1:]}PatchCount"] = states[name]


def _arc_machine(name: str) -> dict[str, Any]:
    return {
        "id": arc_id(name),
        "name": name,
        "type": "Microsoft.HybridCompute/machines",
        "location": "japaneast",
        "tags": {},
        "properties": {
            "vmId": str(uuid5(UUID(int=2), name)),
            "provisioningState": "Succeeded",
            "osType": "windows",
            "osSku": "Windows Server 2025 Datacenter",
            "osVersion": "10.0.26100.4946",
            "status": "Connected",
            "osProfile": {
                "windowsConfiguration": {
                    "patchSettings": {
                        "patchMode": "Manual",
                        "enableHotpatching": True,
                        "status": {"hotpatchEnablementStatus": "ActionRequired"},
                    }
                }
            },
        },
    }


def _as_recorded(offer: dict[str, Any]) -> dict[str, Any]:
    """The same patch with the names that Resource Graph has for its fields."""
    renamed = {"name": "patchName", "publishedDate": "publishedDateTime"}
    return {renamed.get(name, name): value for name, value in offer.items()}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30.0

    @property
    def arm(self) -> Arm:
        found: Arm = self.server.arm  # type: ignore[attr-defined]
        return found

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        reply = self.arm.answer(self.command, self.path, dict(self.headers), body)
        with suppress(OSError):
            self._say(reply)

    def _say(self, reply: Reply) -> None:
        if reply.hang:
            time.sleep(reply.hang)
        if reply.cut == -1:  # not a word
            self.close_connection = True
            return
        content = reply.content
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if "x-ms-request-id" not in reply.headers:
            self.send_header("x-ms-request-id", str(uuid4()))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.flush()
        if reply.cut is not None:
            self.wfile.write(content[: reply.cut])
            self.close_connection = True
        elif reply.drip:
            for byte in content:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(reply.drip)
        else:
            self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_PUT = _serve  # noqa: N815


def packed(body: Any) -> Reply:
    """An answer that was packed, although nobody asked for it."""
    return Reply(raw=gzip.compress(json.dumps(body).encode()), headers={"Content-Encoding": "gzip"})


@lru_cache(maxsize=1)
def arm() -> Arm:
    """The one server of this process."""
    return Arm()
