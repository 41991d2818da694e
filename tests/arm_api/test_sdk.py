"""Microsoft's own SDKs against the door, over TLS on loopback: begin, poll, result, a token for another process, pages."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from arm_api import pages
from arm_api.tokens import tenant_id
from hotpatch_portal.stack.certificate import certificate_for
from tests.arm_api.programs import TRAFFIC, Program, keep_traffic, make_program, settle
from tests.arm_api.served import Served
from tests.factories import ConnectionFactory, ImageCatalogEntryFactory, VirtualMachineFactory
from updates.models import Operation
from vms.choices import Role
from vms.models import ImageCatalogEntry, VirtualMachine

compute = pytest.importorskip("azure.mgmt.compute")
hybrid = pytest.importorskip("azure.mgmt.hybridcompute")
identity = pytest.importorskip("azure.identity")
exceptions = pytest.importorskip("azure.core.exceptions")

Sdk = Callable[..., Any]
MakeVm = Callable[..., VirtualMachine]
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.stack]


@pytest.fixture
def served(tmp_path: Path, recorded_catalogue: None) -> Iterator[Served]:
    served = Served(tmp_path)
    yield served
    served.stop()


def kept(exchange: Any) -> None:
    """What an SDK sent and got, kept as other traffic is."""
    sent, got = exchange.http_request, exchange.http_response
    address = sent.url.partition("://")[2].partition("/")[2]
    content = got.read() if hasattr(got, "read") else got.body()
    body = json.loads(sent.body) if isinstance(sent.body, str) and sent.body else None
    keep_traffic(sent.method, f"/{address}", body, got.status_code, dict(got.headers), content)


@pytest.fixture
def sdk(served: Served) -> Iterator[Callable[..., Any]]:
    """Makes clients of an SDK for a program, and closes them."""
    opened: list[Any] = []

    def make(kind: Any, program: Program, subscription: object) -> Any:
        trust = str(served.certificate)
        credential = identity.ClientSecretCredential(
            str(tenant_id()),
            str(program.app_id),
            program.secret,
            authority=served.origin,
            disable_instance_discovery=True,
            connection_verify=trust,
        )
        client = kind(
            credential,
            str(subscription),
            base_url=served.origin,
            credential_scopes=[f"{served.origin}/.default"],
            connection_verify=trust,
            retry_total=0,
            **({"raw_response_hook": kept} if TRAFFIC else {}),
        )
        opened.extend([client, credential])
        return client

    yield make
    for one in opened:
        one.close()


def test_compute_begins_polls_and_gets_results(sdk: Sdk, make_vm: MakeVm) -> None:
    vm = make_vm("web-001")
    subscription = vm.resource_group.subscription.subscription_id
    client = sdk(compute.ComputeManagementClient, make_program(), subscription)
    machines = client.virtual_machines
    assert machines.get("RG-OURS", "web-001").name == "web-001"

    poller = machines.begin_assess_patches("rg-ours", "web-001", polling_interval=0)
    assert not poller.done()
    settle()
    found = poller.result(timeout=60)
    assert found.status == "Succeeded"
    assert found.critical_and_security_patch_count + found.other_patch_count == len(found.available_patches) > 0

    wanted = {"rebootSetting": "IfRequired", "maximumDuration": "PT2H"}
    wanted |= {"windowsParameters": {"classificationsToInclude": ["Critical", "Security"]}}
    poller = machines.begin_install_patches("rg-ours", "web-001", wanted, polling_interval=0)
    with pytest.raises(exceptions.HttpResponseError) as refused:
        machines.begin_install_patches("rg-ours", "web-001", wanted)
    assert (refused.value.status_code, refused.value.error.code) == (409, "OperationNotAllowed")
    settle()
    run = poller.result(timeout=60)
    assert run.status == "Succeeded"
    assert run.installed_patch_count == sum(patch.installation_state == "Installed" for patch in run.patches) > 0

    view = machines.instance_view("rg-ours", "web-001").patch_status
    assert view.last_patch_installation_summary.installation_activity_id == run.installation_activity_id
    with pytest.raises(exceptions.ResourceNotFoundError):
        machines.get("rg-ours", "nosuch")


AGAIN = """
import sys
from azure.identity import ClientSecretCredential
from azure.mgmt.compute import ComputeManagementClient
origin, certificate, tenant, app_id, secret, subscription, token = sys.argv[1:]
credential = ClientSecretCredential(
    tenant, app_id, secret, authority=origin, disable_instance_discovery=True, connection_verify=certificate
)
client = ComputeManagementClient(
    credential, subscription, base_url=origin, credential_scopes=[f"{origin}/.default"], connection_verify=certificate
)
poller = client.virtual_machines.begin_assess_patches("", "", continuation_token=token, polling_interval=0)
print(poller.result(timeout=60).assessment_activity_id)
"""


def test_a_continuation_token_is_taken_up_in_another_process(served: Served, sdk: Sdk, make_vm: MakeVm) -> None:
    vm, program = make_vm("web-001"), make_program()
    subscription = vm.resource_group.subscription.subscription_id
    client = sdk(compute.ComputeManagementClient, program, subscription)
    token = client.virtual_machines.begin_assess_patches("rg-ours", "web-001", polling_interval=0).continuation_token()
    assert program.secret not in token
    settle()
    given = [served.origin, str(served.certificate), str(tenant_id()), str(program.app_id), program.secret]
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, *given, str(subscription), token], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(Operation.objects.get().pk)


def test_settings_by_the_sdk_are_followed_to_their_end(sdk: Sdk, make_vm: MakeVm) -> None:
    if not ImageCatalogEntry.objects.exists():  # tests with real transactions leave no catalogue behind
        ImageCatalogEntryFactory.create(sku="2022-datacenter-azure-edition-core")
    vm = make_vm("web-001")
    subscription = vm.resource_group.subscription.subscription_id
    client = sdk(compute.ComputeManagementClient, make_program(), subscription)
    machine = client.virtual_machines.get("rg-ours", "web-001")
    settings = machine.os_profile.windows_configuration.patch_settings
    settings.automatic_by_platform_settings.reboot_setting = "Never"
    poller = client.virtual_machines.begin_create_or_update("rg-ours", "web-001", machine, polling_interval=0)
    settle()
    changed = poller.result(timeout=60).os_profile.windows_configuration.patch_settings
    assert changed.automatic_by_platform_settings.reboot_setting == "Never"
    machine.license_type = "Windows_Server"
    with pytest.raises(exceptions.HttpResponseError) as refused:
        client.virtual_machines.begin_create_or_update("rg-ours", "web-001", machine)
    assert refused.value.error.target == "licenseType"


def test_arc_machines_by_their_sdk(sdk: Sdk, make_vm: MakeVm) -> None:
    vm = make_vm("arc-001", arc=True)
    subscription = vm.resource_group.subscription.subscription_id
    client = sdk(hybrid.HybridComputeManagementClient, make_program(), subscription)
    assert [machine.name for machine in client.machines.list_by_subscription()] == ["arc-001"]
    assert client.machines.get("rg-ours", "arc-001").status == "Connected"
    poller = client.machines.begin_assess_patches("rg-ours", "arc-001", polling_interval=0)
    settle()
    found = poller.result(timeout=60)
    assert found.status == "Succeeded"
    assert sum(found.available_patch_count_by_classification.as_dict().values()) > 0


def test_enrolling_an_arc_machine_by_its_sdk(sdk: Sdk, make_vm: MakeVm) -> None:
    told = {"os_edition": "Windows Server 2025 Datacenter", "os_build": "26100.4946"}
    vm = make_vm("arc-001", arc=True, enable_hotpatching=False, **told)
    subscription = vm.resource_group.subscription.subscription_id
    profiles = sdk(hybrid.HybridComputeManagementClient, make_program(), subscription).license_profiles
    for begin, asked, status in (
        (profiles.begin_create_or_update, "Enable", "Enabled"),
        (profiles.begin_update, "Disable", "Disabled"),
    ):
        feature = {"name": "Hotpatch", "subscriptionStatus": asked}
        product = {"productType": "WindowsServer", "productFeatures": [feature]}
        body = {"location": "japaneast", "properties": {"productProfile": product}}
        poller = begin("rg-ours", "arc-001", body, polling_interval=0)
        settle()
        (found,) = poller.result(timeout=60).properties.product_profile.product_features
        assert found.subscription_status == status
        (listed,) = profiles.list("rg-ours", "arc-001")
        assert listed.properties.product_profile.product_features[0].subscription_status == status
    profiles.begin_delete("rg-ours", "arc-001").result(timeout=60)
    assert profiles.get("rg-ours", "arc-001").name == "default"


def test_many_machines_come_by_pages(sdk: Sdk, resource_group: Any) -> None:
    row = ConnectionFactory.create()
    rows = VirtualMachineFactory.build_batch(2_500, resource_group=resource_group, connection=row)
    VirtualMachine.objects.bulk_create(rows)
    subscription = resource_group.subscription.subscription_id
    client = sdk(compute.ComputeManagementClient, make_program("r", Role.READER), subscription)
    listed = client.virtual_machines.list_all().by_page()
    sizes = [len(list(page)) for page in listed]
    assert sizes == [pages.PAGE_ROWS] * 5
    assert len({machine.id for machine in client.virtual_machines.list("rg-ours")}) == 2_500


# --- TLS -----------------------------------------------------------------------------------------------------------


def test_tls_in_front_tells_who_is_connected_and_hands_on_nothing_else(served: Served, tmp_path: Path) -> None:
    trusted = ssl.create_default_context(cafile=str(served.certificate))
    client = http.client.HTTPSConnection("127.0.0.1", served.port, context=trusted, timeout=20)
    for _ in range(3):  # one connection, three requests
        client.request("GET", "/metadata/endpoints?api-version=2022-09-01", headers={"X-Forwarded-Proto": "http"})
        answer = client.getresponse()
        assert answer.status == 200
        assert served.origin.encode() in answer.read()
    client.close()
    stranger = http.client.HTTPSConnection("127.0.0.1", served.port, context=ssl.create_default_context(), timeout=20)
    with pytest.raises(ssl.SSLCertVerificationError):
        stranger.request("GET", "/")
    assert b"HTTP/1.1" not in spoken(served.port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")


def spoken(port: int, *pieces: bytes) -> bytes:
    """What comes back for these pieces, sent one after the other."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            for piece in pieces:
                plain.sendall(piece)
                time.sleep(0.1)
            return plain.recv(100_000)
    return b""


def test_behind_tls_only_who_introduces_somebody_is_heard(served: Served) -> None:
    line = b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 443\r\n"
    ask = b"GET /metadata/endpoints?api-version=2022-09-01 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    answer = b"HTTP/1.1 200"
    assert spoken(served.inner, line + ask).startswith(answer)
    assert spoken(served.inner, line[:9], line[9:20], line[20:] + ask[:30], ask[30:]).startswith(answer)
    assert b"https://127.0.0.1" in spoken(served.inner, line + ask)
    for bad in (ask, b"PROXY TCP4 192.0.2.7\r\n" + ask, b"X" * 200, b"\r\n" + ask):
        assert not spoken(served.inner, bad).startswith(answer)
    # what is said of the address is believed: from elsewhere, and over TLS, tokens are taken
    assert spoken(served.inner, line + ask.replace(b"/metadata/endpoints", b"/subscriptions")).startswith(
        b"HTTP/1.1 401"
    )


def test_the_certificate_is_kept_until_it_does_not_fit(tmp_path: Path) -> None:
    certificate, key = certificate_for(tmp_path, ["127.0.0.1", "localhost"])
    first = certificate.read_bytes()
    assert key.stat().st_mode & 0o077 == 0
    assert certificate_for(tmp_path, ["localhost"])[0].read_bytes() == first
    assert certificate_for(tmp_path, ["localhost", "portal.example"])[0].read_bytes() != first
    key.unlink()
    second = certificate.read_bytes()
    assert certificate_for(tmp_path, ["localhost", "portal.example"])[0].read_bytes() != second
