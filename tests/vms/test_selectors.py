"""The list: search, order, keyset paging, counts and bounds; and eligibility by the catalogue."""

from __future__ import annotations

import base64
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection as database
from django.test.utils import CaptureQueriesContext
from django.utils import translation

from patching.eligibility import EligibilityVerdict
from patching.terms import ProductLine
from tests.factories import (
    ConnectionFactory,
    ImageCatalogEntryFactory,
    ResourceGroupFactory,
    RoleAssignmentFactory,
    UserFactory,
    VirtualMachineFactory,
    VmUpdateStateFactory,
)
from vms.choices import Scope
from vms.filters import VmFilter
from vms.models import Grants, ImageCatalogEntry, ResourceGroup, VirtualMachine
from vms.selectors import (
    ORDERS,
    Cursor,
    ListTooSlowError,
    VmPage,
    eligibilities_of,
    eligibility_of,
    filter_options,
    listing,
    vm_page,
)

pytestmark = pytest.mark.django_db


def found(words: str) -> list[str]:
    return [vm.name for vm in vm_page(VirtualMachine.objects.all(), words=words).vms]


def fleet(count: int, **fields: Any) -> list[VirtualMachine]:
    """VMs made in one go, all in one group."""
    group = fields.pop("resource_group", None) or ResourceGroupFactory()
    connection = fields.pop("connection", None) or ConnectionFactory()
    vms = [VirtualMachineFactory.build(resource_group=group, connection=connection, **fields) for _n in range(count)]
    for vm in vms:
        vm.arm_id = f"/{group.pk}/{vm.name}"
    return VirtualMachine.objects.bulk_create(vms)


# --- search ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("web", ["SQL.web_02", "web-001", "web-010"]),
        ("WEB", ["SQL.web_02", "web-001", "web-010"]),
        ("001", ["web-001"]),
        ("web-0", ["SQL.web_02", "web-001", "web-010"]),
        ("web 01", ["web-010"]),
        ("sql_web", ["SQL.web_02"]),
        ("eb", []),
        ("ウェブ", ["ウェブ-1"]),
        ("web !!!", ["SQL.web_02", "web-001", "web-010"]),
        ("-", ["SQL.web_02", "db1", "web-001", "web-010", "ウェブ-1"]),
        ("", ["SQL.web_02", "db1", "web-001", "web-010", "ウェブ-1"]),
        ("' | web", ["SQL.web_02", "web-001", "web-010"]),
        ("web':* | 'db", []),
        ("\\", []),
        ("web\\'", ["SQL.web_02", "web-001", "web-010"]),
        ("(web & db) <-> !x:*", []),
        ("%", []),
    ],
)
def test_it_finds_names_by_the_start_of_their_parts(words: str, expected: list[str]) -> None:
    for name in ("web-001", "web-010", "SQL.web_02", "db1", "ウェブ-1"):
        VirtualMachineFactory(name=name)
    assert sorted(found(words)) == sorted(expected)


def test_search_uses_the_index() -> None:
    fleet(300)
    with database.cursor() as cursor:
        cursor.execute("ANALYZE vms_virtualmachine")
        cursor.execute("SET LOCAL enable_seqscan = off")
    plan = listing.search_by_name(VirtualMachine.objects.order_by(), "vm-0001").explain()
    assert "vms_vm_name_search" in plan


def test_a_search_sorts_its_first_matches_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet(30)
    page = vm_page(VirtualMachine.objects.all(), words="vm")
    assert (page.count, page.is_count_exact, page.is_search_cut) == (30, True, False)
    monkeypatch.setattr(listing, "MAX_COUNT", 20)
    page = vm_page(VirtualMachine.objects.all(), words="vm")
    assert (page.count, page.is_count_exact, page.is_search_cut, len(page.vms)) == (20, False, True, 20)
    assert [vm.name for vm in page.vms] == sorted(vm.name for vm in page.vms)


def test_a_count_stops_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet(21)
    monkeypatch.setattr(listing, "MAX_COUNT", 20)
    page = vm_page(VirtualMachine.objects.all())
    assert (page.count, page.is_count_exact, page.is_search_cut, len(page.vms)) == (20, False, False, 21)


# --- paging ------------------------------------------------------------------------------------------------------


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> list[VirtualMachine]:
    """57 VMs with many ties in every column but the id."""
    monkeypatch.setattr(listing, "PAGE_SIZE", 5)
    chance = random.Random(1)
    vms = fleet(57)
    for vm in vms:
        vm.name = chance.choice(["alpha", "Beta", "beta", "ガンマ", "web-1"])
        vm.update_status = chance.choice(["unsupported", "no_updates_data", "reboot_required"])
        vm.critical_and_security_count = chance.choice([0, 0, 0, 2, 7])
    VirtualMachine.objects.bulk_update(vms, ["name", "update_status", "critical_and_security_count"])
    return vms


def walk(order: str, *, words: str = "") -> list[VmPage]:
    """Every page, forward."""
    pages = [vm_page(VirtualMachine.objects.all(), words=words, order=order)]
    while pages[-1].next:
        pages.append(vm_page(VirtualMachine.objects.all(), words=words, order=order, cursor=pages[-1].next))
        assert len(pages) < 100
    return pages


@pytest.mark.parametrize("order", list(ORDERS))
def test_paging_walks_every_row_once_in_order_there_and_back(crowd: list[VirtualMachine], order: str) -> None:
    expected = list(VirtualMachine.objects.order_by(*ORDERS[order].columns).values_list("pk", flat=True))
    pages = walk(order)
    assert [vm.id for page in pages for vm in page.vms] == expected
    assert pages[0].previous == ""
    back = [pages[-1]]
    while back[-1].previous:
        back.append(vm_page(VirtualMachine.objects.all(), order=order, cursor=back[-1].previous))
    assert [[vm.id for vm in page.vms] for page in reversed(back)] == [[vm.id for vm in page.vms] for page in pages]


@pytest.fixture
def assessed_crowd(crowd: list[VirtualMachine]) -> list[int]:
    """The same machines, a third of them never assessed and many assessed at once, in the order of their last assessment."""
    chance, now = random.Random(2), datetime(2026, 11, 28, tzinfo=UTC)
    ever = [vm for number, vm in enumerate(crowd) if number % 3]
    for vm in ever:
        vm.patch_set = 1
    VirtualMachine.objects.bulk_update(ever, ["patch_set"])
    moments = {vm.pk: now - timedelta(hours=chance.choice([0, 0, 0, 5, 30])) for vm in ever}
    for vm in ever:
        VmUpdateStateFactory.create(vm=vm, last_assessed_at=moments[vm.pk])
    VmUpdateStateFactory.create(vm=crowd[0], last_assessed_at=None)  # a failed one: it has found nothing
    never = VirtualMachine.objects.filter(patch_set=0).order_by("name", "id").values_list("pk", flat=True)
    return [*never, *sorted(moments, key=lambda pk: (moments[pk], pk))]


def test_paging_walks_from_the_never_assessed_to_the_last_assessed(assessed_crowd: list[int]) -> None:
    for order, expected in (("assessed", assessed_crowd), ("-assessed", assessed_crowd[::-1])):
        pages = walk(order)
        assert [vm.id for page in pages for vm in page.vms] == expected
        assert {(page.count, len(page.vms)) for page in pages[:-1]} == {(57, 5)}
        back = [pages[-1]]
        while back[-1].previous:
            back.append(vm_page(VirtualMachine.objects.all(), order=order, cursor=back[-1].previous))
        shown = [[vm.id for vm in page.vms] for page in reversed(back)]
        assert shown == [[vm.id for vm in page.vms] for page in pages]
        searched = [vm.id for page in walk(order, words="beta") for vm in page.vms]
        few = set(VirtualMachine.objects.filter(name__iexact="beta").values_list("pk", flat=True))
        assert searched == [pk for pk in expected if pk in few]
    other = walk("assessed")[1]
    first = vm_page(VirtualMachine.objects.all(), order="-assessed", cursor=other.next)
    assert first.previous == "", "a place of another order is the first page"


def test_a_page_by_assessment_is_a_statement_for_each_stretch(assessed_crowd: list[int]) -> None:
    def cost(**asked: str) -> int:
        with CaptureQueriesContext(database) as queries:
            vm_page(VirtualMachine.objects.all(), **asked)
        return len(queries)

    pages = walk("assessed")
    costs = [cost(order="assessed", cursor=page.next) for page in pages[:-1]]
    assert costs == [1, 1, 2, *[1] * (len(costs) - 3)], "19 were never assessed, and 5 are on a page"


def test_paging_walks_a_search(crowd: list[VirtualMachine]) -> None:
    expected = list(
        VirtualMachine.objects.filter(name__iexact="beta").order_by("name", "id").values_list("pk", flat=True)
    )
    assert [vm.id for page in walk("name", words="beta") for vm in page.vms] == expected


def test_rows_that_come_and_go_do_not_move_the_others(crowd: list[VirtualMachine]) -> None:
    first = vm_page(VirtualMachine.objects.all())
    second = vm_page(VirtualMachine.objects.all(), cursor=first.next)
    VirtualMachine.objects.filter(pk=first.vms[-1].id).delete()
    VirtualMachineFactory(name="AAA")
    again = vm_page(VirtualMachine.objects.all(), cursor=first.next)
    assert [vm.id for vm in again.vms] == [vm.id for vm in second.vms]


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "é",
        "%00",
        "=",
        "A" * 5000,
        encoded("text"),
        encoded(None),
        encoded([]),
        encoded(["name", False]),
        encoded(["name", False, "a", "b"]),
        encoded(["name", False, "a", True]),
        encoded(["name", 0, "a", 1]),
        encoded(["name", False, "a", 2**63]),
        encoded(["name", False, "a\x00", 1]),
        encoded(["name", False, "\ud800", 1]),
        encoded(["-name", False, "a", 1]),
        encoded([{"name": 1}, False, "a", 1]),
        base64.urlsafe_b64encode(b"[" * 90_000).decode(),
        base64.urlsafe_b64encode(b'["name", false, "a", ' + b"9" * 5000 + b"]").decode(),
    ],
)
def test_a_cursor_that_is_not_ours_is_the_first_page(crowd: list[VirtualMachine], cursor: str) -> None:
    assert vm_page(VirtualMachine.objects.all(), cursor=cursor) == vm_page(VirtualMachine.objects.all())


@pytest.mark.parametrize("words", ["", "vm"])
def test_a_page_is_one_statement_however_long_the_list(words: str) -> None:
    def cost() -> int:
        with CaptureQueriesContext(database) as queries:
            assert vm_page(VirtualMachine.objects.all(), words=words).vms
        return len(queries)

    fleet(2)
    assert cost() == 1
    fleet(200)
    assert cost() == 1


def test_a_row_says_what_the_list_shows() -> None:
    vm = VirtualMachineFactory(update_status="reboot_required", critical_and_security_count=3, other_count=1)
    with translation.override("ja"):
        (row,) = vm_page(VirtualMachine.objects.all()).vms
        assert row.update_status_label == vm.get_update_status_display()
        assert row.hotpatch_status_label == vm.get_hotpatch_status_display()
        assert row.hotpatch_track_label == vm.get_hotpatch_track_display()
        assert row.power_state_label == vm.get_power_state_display()
        assert row.patcher_label == vm.get_patcher_display()
    assert row[:7] == (vm.pk, vm.name, 3, 1, vm.resource_group.name, vm.location, vm.connection.name)
    assert (row.update_status, row.patcher) == ("reboot_required", vm.patcher)


def test_the_index_of_the_groups_holds_all_that_the_list_is_filtered_by() -> None:
    """Else how many of some groups' machines match is counted in their rows, all over the table."""
    (index,) = (index for index in VirtualMachine._meta.indexes if index.name == "vms_vm_group_name")
    by_group = {"resource_group", "subscription"}
    by_own_index = {
        "settings",
        "lacks",
        "trouble",
        "has",
        "failed",
        "held",
        "coverage",
    }  # what they look for, few machines or sets have
    by_words = {"condition", "tag"}  # several words that are there, or the counts; tags have no index
    narrowed = {*VmFilter.base_filters} - {"q", "gone", "reboots"} - by_group - by_own_index - by_words
    assert narrowed | {"gone_at", "alike"} <= {*index.include}  # machines that are alike reboot in the same months
    assert index.fields[0] == "resource_group"


@pytest.mark.parametrize("words", ["", "vm"])
def test_a_place_behind_the_last_row_still_says_how_many_there_are(words: str) -> None:
    fleet(3)
    last = vm_page(VirtualMachine.objects.all()).vms[-1]
    cursor = str(Cursor.at(last, ORDERS["name"], is_backward=False))
    page = vm_page(VirtualMachine.objects.all(), words=words, order="name", cursor=cursor)
    assert (page.vms, page.count, page.is_count_exact) == ((), 3, True)


def test_a_list_that_takes_too_long_says_so(settings: Any) -> None:
    settings.STATEMENT_TIMEOUT_MS = 20
    slow = VirtualMachine.objects.extra(where=["pg_sleep(1) IS NOT NULL"])
    VirtualMachineFactory()
    with pytest.raises(ListTooSlowError):
        vm_page(slow)


# --- what filters offer ------------------------------------------------------------------------------------------


def test_filters_offer_only_what_the_user_may_see(
    reader: User, outsider: User, staff: User, resource_group: ResourceGroup
) -> None:
    vm = VirtualMachineFactory(resource_group=resource_group)
    alone = UserFactory()
    RoleAssignmentFactory(user=alone, scope=Scope.VM.value, vm=vm)
    ours = ((str(resource_group.subscription_id), resource_group.subscription.name),)
    for user in (reader, alone):
        options = filter_options(Grants.of(user))
        assert options.subscriptions == ours
        assert options.connections == ((str(vm.connection_id), vm.connection.name),)
    assert len(filter_options(Grants.of(staff)).subscriptions) == 2
    assert not set(ours) & set(filter_options(Grants.of(outsider)).subscriptions)
    nobody = filter_options(Grants.of(UserFactory()))
    assert nobody.connections == nobody.subscriptions == ()


# --- eligibility -------------------------------------------------------------------------------------------------


def test_the_catalogue_starts_with_eight_images_that_preselect_hotpatch() -> None:
    entries = ImageCatalogEntry.objects.all()
    assert entries.count() == 8
    assert {entry.sku for entry in entries if entry.is_server_core} == {
        "2022-datacenter-azure-edition-core",
        "2022-datacenter-azure-edition-core-smalldisk",
        "2025-datacenter-azure-edition-core",
        "2025-datacenter-azure-edition-core-smalldisk",
    }
    assert all(entry.has_hotpatch_by_default for entry in entries)
    assert all(entry.product_line == f"ws{entry.sku[:4]}" for entry in entries)


def test_each_vm_gets_its_own_verdict_in_one_query() -> None:
    ImageCatalogEntryFactory(sku="Special", product_line="ws2025")
    expected = {
        VirtualMachineFactory(): (EligibilityVerdict.ELIGIBLE, ProductLine.WS2022),
        VirtualMachineFactory(image_sku="SPECIAL", image_version="latest", image_exact_version=""): (
            EligibilityVerdict.ELIGIBLE,
            ProductLine.WS2025,
        ),
        VirtualMachineFactory(desktop=True): (EligibilityVerdict.IMAGE_NOT_IN_CATALOG, ProductLine.WS2022),
        VirtualMachineFactory(custom_image=True): (EligibilityVerdict.CUSTOM_IMAGE, None),
        VirtualMachineFactory(uniform=True): (EligibilityVerdict.UNIFORM_SCALE_SET, ProductLine.WS2022),
        VirtualMachineFactory(connection=ConnectionFactory(other=True)): (
            EligibilityVerdict.PLATFORM_NOT_SUPPORTED,
            ProductLine.WS2022,
        ),
    }
    with CaptureQueriesContext(database) as queries:
        found = eligibilities_of(expected)
    assert len(queries) == 1
    assert {vm: (found[vm.pk].verdict, found[vm.pk].product_line) for vm in expected} == expected


def test_an_assessed_build_beats_the_images() -> None:
    vm = VirtualMachineFactory(custom_image=True)
    assert eligibility_of(vm, os_build="26100.4652").product_line is ProductLine.WS2025
