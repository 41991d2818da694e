"""What a connection to Azure is made from: what is wrong is said, and nothing of an SDK is needed to say it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from connectors.azure.configuration import AzureConfiguration, Credential
from connectors.catalogue import Catalogue
from connectors.configuration import ConfigurationError, Wrong, read, to_json
from connectors.registry import AZURE, KINDS, Grade, TroubleCode, UnusableConnector, connector_for, trouble_of
from connectors.secrets import variable_of

ID = "11111111-2222-4333-8444-000000000001"
SIGNED_IN = {"credential": "client_secret", "tenant_id": "contoso.com", "client_id": ID, "secret": "azure_prod"}


def wrong_with(**fields: Any) -> list[tuple[str, Wrong]]:
    with pytest.raises(ConfigurationError) as caught:
        read(AzureConfiguration, fields)
    return [(problem.field, problem.wrong) for problem in caught.value.problems]


def test_a_configuration_is_read_and_kept() -> None:
    told = SIGNED_IN | {"subscriptions": f"{ID.upper()}, {ID}\n 22222222-2222-4333-8444-000000000001"}
    conf = read(AzureConfiguration, told)
    assert conf.credential is Credential.CLIENT_SECRET
    assert conf.subscription_ids == (ID, "22222222-2222-4333-8444-000000000001")
    assert conf.scope == "https://management.azure.com/.default"
    assert read(AzureConfiguration, to_json(conf)) == conf
    assert KINDS[AZURE].grade is Grade.PROTOCOL_PROVEN


@pytest.mark.parametrize("credential", ["client_secret", "certificate"])
def test_what_a_sign_in_needs_is_named(credential: str) -> None:
    assert wrong_with(credential=credential) == [(name, Wrong.MISSING) for name in ("tenant_id", "client_id", "secret")]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"endpoint": "http://management.azure.com"}, "endpoint"),
        ({"endpoint": "https://user:pw@management.azure.com"}, "endpoint"),
        ({"endpoint": "https://management.azure.com/path"}, "endpoint"),
        ({"endpoint": "https://"}, "endpoint"),
        ({"endpoint": "management.azure.com"}, "endpoint"),
        ({"endpoint": "https://[::1"}, "endpoint"),
        ({"authority": "https://login.microsoftonline.com?x"}, "authority"),
        ({"subscriptions": f"{ID} web"}, "subscriptions"),
        ({"subscriptions": "0"}, "subscriptions"),
        ({"client_id": "portal"}, "client_id"),
        ({"tenant_id": "a/b"}, "tenant_id"),
    ],
)
def test_what_cannot_be_used_is_named(fields: dict[str, Any], field: str) -> None:
    assert wrong_with(**fields) == [(field, Wrong.NOT_READABLE)]


def test_other_clouds_are_told_by_their_addresses() -> None:
    conf = read(
        AzureConfiguration,
        {"endpoint": "https://management.usgovcloudapi.net/", "authority": "https://login.microsoftonline.us"},
    )
    assert conf.address == "https://management.usgovcloudapi.net"
    assert conf.is_authority_known
    own = read(AzureConfiguration, {"endpoint": "https://10.0.0.1:8443", "authority": "https://10.0.0.1:8443"})
    assert not own.is_authority_known


def test_a_secret_is_read_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    trouble = trouble_of(AZURE, SIGNED_IN)
    assert trouble is not None
    assert trouble.code is TroubleCode.SECRET_MISSING
    monkeypatch.setenv(variable_of("azure_prod"), "hush")
    assert trouble_of(AZURE, SIGNED_IN) is None


def test_certificates_that_cannot_be_read_are_said_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable_of("azure_prod"), "hush")
    told = connector_for(AZURE, SIGNED_IN | {"ca_bundle": "/nowhere/at/all.pem"}, catalogue=Catalogue((), ()))
    assert isinstance(told, UnusableConnector)
    assert told.trouble.code is TroubleCode.BROKEN
    assert "/nowhere/at/all.pem: " in told.trouble.detail


def run(code: str) -> str:
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return told.stdout.strip()


WITHOUT = """
import sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"azure", "msal", "requests"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Gone())
"""


def test_without_the_extra_the_connection_says_which_command_installs_it() -> None:
    code = WITHOUT + "from connectors.registry import trouble_of; print(trouble_of('azure', {}))"
    assert run(code) == "What this kind needs is not installed: run pip install 'hotpatch-portal[azure]'."


def test_pages_and_workers_without_such_a_connection_import_no_sdk() -> None:
    """Also with the extra installed, and while a connection of this kind is judged."""
    code = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "hotpatch_portal.settings"
os.environ.setdefault("SECRET_KEY", "x" * 25 + "0123456789abcdefghijklmnopqrstuvwxyz")
import django; django.setup()
import hotpatch_portal.urls, hotpatch_portal.celery
from django.urls import get_resolver
get_resolver().reverse_dict
hotpatch_portal.celery.app.loader.import_default_modules()
import updates.worker, updates.engine.sweep
from connectors.registry import trouble_of, make_connector, connector_for
from connectors.catalogue import Catalogue
assert trouble_of("azure", {}) is None
make_connector("simulator", {}, catalogue=Catalogue((), ()))
from vms.forms.connections import form_for; form_for("azure")
from connectors.registry import guide_of, kit_of
assert guide_of("azure", {}) and kit_of("azure")
sdk = ("azure.core", "azure.identity", "azure.mgmt.", "msal", "requests", "urllib3")
print(sorted(name for name in sys.modules if name.startswith(sdk)))
"""
    assert run(code) == "[]"
