"""Making and changing a VM record by hand: eligible or not, and why, at once."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.factories import ResourceGroupFactory, VirtualMachineFactory
from tests.forms import text_of
from vms.models import Connection, ImageCatalogEntry, ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db
URL = "/virtual-machines/create/"


def image(sku: str) -> ImageCatalogEntry:
    return ImageCatalogEntry.objects.get(sku=sku)


@pytest.fixture
def fields(resource_group: ResourceGroup) -> dict[str, Any]:
    return {
        "name": "new-001",
        "resource_group": resource_group.pk,
        # one behind which a machine of the group is already: who owns the group may put others there
        "connection": VirtualMachineFactory(name="there", resource_group=resource_group, desktop=True).connection_id,
        "location": "Japan East",
        "image": str(image("2022-datacenter-azure-edition-core")),
        "patch_mode": "AutomaticByPlatform",
        "reboot_setting": "IfRequired",
        "create": "yes",
    }


def test_a_core_image_has_hotpatch_preselected(client: Client, owner: User, fields: dict[str, Any]) -> None:
    client.force_login(owner)
    answer = client.post(URL, fields | {"tags": "env=prod\n\nowner = me", "zone": "2"})
    (vm,) = VirtualMachine.objects.exclude(name="there")
    assert answer["Location"] == reverse("vms:vm-settings", args=[vm.pk])
    assert (vm.name, vm.location, vm.zones, vm.tags) == ("new-001", "japaneast", ["2"], {"env": "prod", "owner": "me"})
    assert (vm.enable_hotpatching, vm.patch_mode, vm.hotpatch_status) == (
        True,
        "AutomaticByPlatform",
        "PendingEvaluation",
    )


@pytest.mark.parametrize(
    "sku",
    [
        "2022-Datacenter-Azure-Edition-Core-smalldisk",
        "2022-Datacenter-Azure-Edition-Hotpatch",
        "2022-Datacenter-Azure-Edition-Hotpatch-smalldisk",
        "2025-datacenter-azure-edition",
        "2025-datacenter-azure-edition-smalldisk",
        "2025-datacenter-azure-edition-core",
    ],
)
def test_as_the_image_has_it_is_on_for_every_image_that_can(
    client: Client, owner: User, fields: dict[str, Any], sku: str
) -> None:
    """The seed article: hotpatch is preselected at creation, whichever of the images it is."""
    client.force_login(owner)
    client.post(URL, fields | {"image": f"MicrosoftWindowsServer:WindowsServer:{sku}"})
    assert VirtualMachine.objects.get(name=fields["name"]).enable_hotpatching


@pytest.mark.parametrize(
    ("typed", "kept"), [("tokyo standard time", "Tokyo Standard Time"), ("", ""), ("Mars Standard Time", None)]
)
def test_a_time_zone_is_one_that_windows_knows(
    client: Client, owner: User, fields: dict[str, Any], typed: str, kept: str | None
) -> None:
    client.force_login(owner)
    answer = client.post(URL, fields | {"time_zone": typed})
    if kept is None:
        assert answer.status_code == 422
        assert "no time zone of Windows" in text_of(answer)
    else:
        assert VirtualMachine.objects.get(name=fields["name"]).time_zone == kept


def test_hotpatch_can_be_off_and_another_image_is_not_available(
    client: Client, owner: User, fields: dict[str, Any]
) -> None:
    client.force_login(owner)
    client.post(URL, fields | {"hotpatch": "off"})
    other = fields | {
        "name": "new-002",
        "image": "MicrosoftWindowsServer:WindowsServer:2022-datacenter",
    }
    client.post(URL, other)
    custom = fields | {"name": "new-003", "image": "/subscriptions/1/galleries/golden/images/ws"}
    client.post(URL, custom)
    rows = dict(VirtualMachine.objects.exclude(name="there").values_list("name", "hotpatch_status"))
    assert rows == {"new-001": "PendingEvaluation", "new-002": "NotAvailable", "new-003": "NotAvailable"}
    assert not VirtualMachine.objects.filter(enable_hotpatching=True).exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "this machine can be hotpatched"),
        ({"image": "Someone:Else:2022"}, "The image 2022 is not in the image catalog"),
        (
            {"image": "mcr.microsoft.com/windows/servercore:ltsc2022"},
            "Container base images cannot be hotpatched",
        ),
        (
            {"image": "/galleries/a/images/b", "hotpatch": "on"},
            "Hotpatch is not available on this machine.",
        ),
        ({"patch_mode": "Manual"}, "Hotpatch needs the orchestration"),
    ],
)
def test_the_verdict_comes_before_anything_is_made(
    client: Client, owner: User, fields: dict[str, Any], change: dict[str, str], words: str
) -> None:
    client.force_login(owner)
    preview = {name: value for name, value in (fields | change).items() if name != "create"}
    part = client.post(URL, preview, headers={"HX-Request": "true", "HX-Target": "verdict"})
    assert part.status_code == 200
    assert b"<html" not in part.content
    assert words in text_of(part)
    assert not VirtualMachine.objects.exclude(name="there").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "no spaces"}, "Enter a valid value"),
        ({"name": "x" * 65}, "at most 64"),
        ({"tags": "no sign"}, "“no sign” is not a tag"),
        ({"zone": "1", "availability_set": "as-1"}, "not in both"),
        ({"image": "2022-datacenter"}, "“2022-datacenter” is not an image"),
        ({"image": "a:b"}, "“a:b” is not an image"),
        ({"image": " "}, "This field is required"),
        ({"resource_group": "999999"}, "Select a valid choice"),
        ({"patch_mode": "Manual"}, "Hotpatch needs the orchestration"),
        ({"image": "a:b:c", "hotpatch": "on"}, "Hotpatch is not available on this machine."),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_made(
    client: Client, owner: User, fields: dict[str, Any], change: dict[str, str], words: str
) -> None:
    client.force_login(owner)
    answer = client.post(URL, fields | change)
    assert answer.status_code == 422
    assert words in text_of(answer)
    assert not VirtualMachine.objects.exclude(name="there").exists()


def test_a_catalog_image_can_be_named_by_its_sku_alone_and_is_offered_for_search(
    client: Client, owner: User, fields: dict[str, Any]
) -> None:
    client.force_login(owner)
    page = client.get(URL).content.decode()
    for entry in ImageCatalogEntry.objects.all():
        assert f'<option value="{entry}">' in page
    client.post(URL, fields | {"image": "2022-Datacenter-Azure-Edition-CORE"})
    vm = VirtualMachine.objects.get(name="new-001")
    assert (vm.image_publisher, vm.image_offer) == ("MicrosoftWindowsServer", "WindowsServer")
    assert vm.enable_hotpatching


def test_a_name_that_is_taken_is_refused(client: Client, owner: User, fields: dict[str, Any]) -> None:
    client.force_login(owner)
    client.post(URL, fields)
    again = client.post(URL, fields | {"name": "NEW-001"})
    assert again.status_code == 422
    assert "is in the resource group already" in text_of(again)
    assert VirtualMachine.objects.exclude(name="there").count() == 1


def test_only_groups_one_owns_are_offered(
    client: Client, owner: User, operator: User, chief: User, fields: dict[str, Any]
) -> None:
    theirs = ResourceGroupFactory(name="rg-elsewhere")
    VirtualMachineFactory(resource_group=theirs)
    client.force_login(owner)
    assert "rg-elsewhere" not in text_of(client.get(URL))
    assert client.post(URL, fields | {"resource_group": theirs.pk}).status_code == 422
    client.force_login(chief)
    assert "rg-elsewhere" in text_of(client.get(URL))
    client.force_login(operator)
    assert client.get(URL).status_code == 403
    assert Connection.objects.exists()


# --- changing one ------------------------------------------------------------------------------------------------


@pytest.fixture
def vm(resource_group: ResourceGroup) -> VirtualMachine:
    return VirtualMachineFactory(
        resource_group=resource_group, tags={"env": "prod"}, image_exact_version="20348.5020.260407"
    )


def facts_of(client: Client, vm: VirtualMachine) -> dict[str, str]:
    """What the form holds when it is opened."""
    form = client.get(reverse("vms:vm-edit", args=[vm.pk])).context["form"]
    return {name: "" if (value := form[name].value()) is None else str(value) for name in form.fields}


def test_a_machine_without_an_image_keeps_its_edition(client: Client, owner: User, vm: VirtualMachine) -> None:
    client.force_login(owner)
    edition = "Windows Server 2025 Datacenter"
    none = dict.fromkeys(("image_publisher", "image_offer", "image_sku", "image_version", "image_exact_version"), "")
    VirtualMachine.objects.filter(pk=vm.pk).update(os_edition=edition, os_build="26100.4946", **none)
    form = facts_of(client, vm) | {"tags": "ring=7", "save": "yes"}
    assert form["image"] == edition
    assert client.post(reverse("vms:vm-edit", args=[vm.pk]), form).status_code == 302
    vm.refresh_from_db()
    assert (vm.os_edition, vm.tags, vm.product_line) == (edition, {"ring": "7"}, "ws2025")


def test_a_record_that_is_saved_as_it_is_changes_nothing(client: Client, owner: User, vm: VirtualMachine) -> None:
    client.force_login(owner)
    before = VirtualMachine.objects.filter(pk=vm.pk).values().get()
    answer = client.post(reverse("vms:vm-edit", args=[vm.pk]), facts_of(client, vm) | {"save": "yes"})
    assert answer["Location"] == reverse("updates:vm-overview", args=[vm.pk])
    assert VirtualMachine.objects.filter(pk=vm.pk).values().get() == before


def test_a_changed_record_keeps_its_history_and_follows_the_image(
    client: Client, owner: User, vm: VirtualMachine
) -> None:
    client.force_login(owner)
    VirtualMachine.objects.filter(pk=vm.pk).update(enable_hotpatching=False)
    url = reverse("vms:vm-edit", args=[vm.pk])
    fields = facts_of(client, vm) | {"image": "/galleries/golden/images/ws", "tags": "env=test", "zone": "3"}
    part = client.post(url, fields, headers={"HX-Request": "true", "HX-Target": "verdict"})
    assert "Custom and gallery images cannot be hotpatched" in text_of(part)
    assert VirtualMachine.objects.get().tags == {"env": "prod"}
    client.post(url, fields | {"save": "yes"})
    vm.refresh_from_db()
    assert (vm.tags, vm.zones, vm.hotpatch_status) == ({"env": "test"}, ["3"], "NotAvailable")
    assert (vm.image_sku, vm.image_exact_version) == ("", "")
    activity = text_of(client.get(reverse("updates:activity", args=[vm.pk])))
    assert "Record changed" in activity
    assert "tags : env=prod → env=test" in activity
    assert "owner" in activity


def test_an_image_that_its_settings_forbid_is_refused_and_nothing_is_changed(
    client: Client, owner: User, vm: VirtualMachine
) -> None:
    client.force_login(owner)
    VirtualMachine.objects.filter(pk=vm.pk).update(enable_hotpatching=True)
    url = reverse("vms:vm-edit", args=[vm.pk])
    answer = client.post(url, facts_of(client, vm) | {"image": "a:b:c", "location": "osaka", "save": "yes"})
    assert answer.status_code == 422
    assert "Hotpatch is not available on this machine." in text_of(answer)
    assert VirtualMachine.objects.get().location == vm.location


# --- health probes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probe", "networks", "words"),
    [
        ("web-013", ["10.0.0.0/8"], "begins with tcp://, http:// or https://"),
        ("tcp://web-013", ["10.0.0.0/8"], "The port is missing"),
        ("tcp://web-013:99999", ["10.0.0.0/8"], "“99999” is not a port"),
        ("http://me:secret@web-013/", ["10.0.0.0/8"], "no user name and no password"),
        ("http://web 013/", ["10.0.0.0/8"], "cannot be in a health probe"),
        (f"http://web-013/{'x' * 200}", ["10.0.0.0/8"], "at most 200 characters"),
        ("http://169.254.169.254/", ["10.0.0.0/8"], "169.254.169.254 is outside of the networks"),
        ("http://web-013/", [], "This portal does not use probes"),
        ("http://web-013/", ["nonsense"], "This portal does not use probes"),
    ],
)
def test_a_probe_that_would_never_be_asked_is_refused(
    client: Client, owner: User, fields: dict[str, Any], settings: Any, probe: str, networks: list[str], words: str
) -> None:
    settings.PROBE_NETWORKS = networks
    client.force_login(owner)
    answer = client.post(URL, fields | {"health_probe": probe})
    assert answer.status_code == 422
    assert words in text_of(answer)
    assert not VirtualMachine.objects.exclude(name="there").exists()


def test_a_probe_is_kept_shown_changed_and_remembered(
    client: Client, owner: User, fields: dict[str, Any], settings: Any
) -> None:
    settings.PROBE_NETWORKS = ["10.0.0.0/8"]
    client.force_login(owner)
    client.post(URL, fields | {"health_probe": " HTTP://Web-013:80/health "})
    vm = VirtualMachine.objects.get(name="new-001")
    assert vm.health_probe == "http://web-013/health"
    assert "http://web-013/health" in text_of(client.get(reverse("updates:vm-overview", args=[vm.pk])))
    url = reverse("vms:vm-edit", args=[vm.pk])
    client.post(url, facts_of(client, vm) | {"health_probe": "tcp://10.0.0.4:22", "save": "yes"})
    vm.refresh_from_db()
    assert vm.health_probe == "tcp://10.0.0.4:22"
    activity = text_of(client.get(reverse("updates:activity", args=[vm.pk])))
    assert "health probe : http://web-013/health → tcp://10.0.0.4:22" in activity
    settings.PROBE_NETWORKS = []
    assert client.post(url, facts_of(client, vm) | {"location": "osaka", "save": "yes"}).status_code == 302, (
        "it may stay"
    )
    assert client.post(url, facts_of(client, vm) | {"health_probe": "tcp://a:1", "save": "yes"}).status_code == 422
    client.post(url, facts_of(client, vm) | {"health_probe": "", "save": "yes"})
    vm.refresh_from_db()
    assert (vm.location, vm.health_probe) == ("osaka", "")
