"""Pending updates and one KB: every number is that of the list it leads to, for every reader; what is scheduled is true."""

from __future__ import annotations

import csv
import io
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from db.arrays import array
from patching.orchestrator import Patcher
from patching.selection import RunWork
from patching.terms import Classification, InstallationPlan
from tests.factories import (
    ConnectionFactory,
    OperationFactory,
    PatchFactory,
    ReleaseFactory,
    ResourceGroupFactory,
    RoleAssignmentFactory,
    SubscriptionFactory,
    UserFactory,
    VirtualMachineFactory,
    VmUpdateStateFactory,
)
from updates.models import (
    InstalledPatch,
    KbHold,
    MaintenanceConfiguration,
    Patch,
    PatchResult,
    PatchSet,
    PatchSetMember,
)
from updates.plans import plan_from_json, plan_to_json
from updates.selectors import pending_schedule
from updates.selectors.fleet import EVERYWHERE, count_fleet, load_pending, place_of
from updates.selectors.pending_machines import failures, machines_of
from updates.selectors.pending_schedule import Scheduled, judge_schedules, load_rules
from updates.selectors.work import work_on
from vms.choices import Scope
from vms.filters import VmFilter
from vms.models import Grants, ResourceGroup, VirtualMachine
from vms.selectors import ListTooSlowError
from vms.services.counters import fold_counters

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)
LIST, PENDING = reverse("vms:vm-list"), reverse("updates:pending")
MOST_QUERIES, MOST_QUERIES_OF_A_KB = 11, 13
DRIVER = "7f0c8b1e"
SECURITY = InstallationPlan(classifications=frozenset({Classification.SECURITY}))


@pytest.fixture(autouse=True)
def _then(settings: Any) -> Iterator[None]:
    settings.STATEMENT_TIMEOUT_MS = 60_000  # how fast a machine is decides no test
    with time_machine.travel(NOW, tick=False):
        yield


def make_set(*patches: Patch) -> PatchSet:
    number = PatchSet.objects.count()
    urgent = sum(patch.classification in {"Critical", "Security"} for patch in patches)
    row = PatchSet.objects.create(
        digest=number.to_bytes(32, "big"),
        critical_and_security_count=urgent,
        other_count=len(patches) - urgent,
    )
    PatchSetMember.objects.bulk_create(PatchSetMember(patch_set=row, patch=patch) for patch in patches)
    return row


def lack(vm: VirtualMachine, patches: PatchSet) -> None:
    """What the last assessment of a machine found."""
    VmUpdateStateFactory(vm=vm, patch_set=patches)
    VirtualMachine.objects.filter(pk=vm.pk).update(patch_set=patches.pk)


def fail(vm: VirtualMachine, patch: Patch, days: int = 1) -> None:
    run = OperationFactory(vm=vm, installation=True, failed=True, created_at=NOW - timedelta(days=days))
    PatchResult.objects.create(operation=run, patch=patch, state="Failed", error_code="0x80070643")


def configure(name: str, plan: InstallationPlan = SECURITY, days: int = 3, **fields: Any) -> MaintenanceConfiguration:
    return MaintenanceConfiguration.objects.create(
        name=name,
        starts_on=date(2026, 1, 1),
        starts_at=time(22),
        recur_every="Day",
        plan=plan_to_json(plan),
        next_run_at=NOW + timedelta(days=days),
        **({"time_zone": "UTC"} | fields),
    )


def make_patches(own: random.Random) -> list[Patch]:
    """Updates of every kind: two lines share a KB, one has none, one is lacked by nobody."""
    made = [
        PatchFactory(
            classification=own.choice(list(Classification)).value,
            reboot_behavior=own.choice(("NeverReboots", "AlwaysRequiresReboot", "CanRequestReboot")),
            published_on=own.choice((date(2026, 5, 12), date(2026, 4, 14), None)),
            product_line=own.choice(("ws2022", "ws2025", "")),
        )
        for _ in range(6)
    ]
    other = "ws2025" if made[0].product_line == "ws2022" else "ws2022"
    made.append(PatchFactory(kb_number=made[0].kb_number, product_line=other))
    made.append(PatchFactory(kb_number="", update_id=DRIVER, title="=Driver", classification="Security"))
    return made


def make_fleet(seed: int, count: int = 70) -> list[Patch]:
    """Machines in 60 groups, most of them assessed, some with runs that failed, holds and installed updates."""
    own = random.Random(seed)
    sites = [ConnectionFactory(catalogue_date=None), ConnectionFactory()]
    subscriptions = [SubscriptionFactory(), SubscriptionFactory()]
    groups = [ResourceGroupFactory(subscription=own.choice(subscriptions)) for _ in range(60)]
    patches = make_patches(own)
    sets = [make_set(*own.sample(patches, own.randint(0, 5))) for _ in range(8)]
    tracks = ("on_track", "on_track_as_far_as_known", "baseline_due", "off_track_since_kb", "not_on_train")
    for _ in range(count):
        vm = VirtualMachineFactory(
            connection=own.choice(sites),
            resource_group=own.choice(groups),
            hotpatch_track=own.choice(tracks),
            patcher=own.choice((Patcher.PORTAL_BY_SCHEDULE.value, Patcher.NOBODY.value)),
            tags=own.choice(({}, {"env": "prod"})),
            gone_at=NOW if own.random() < 0.1 else None,
            **own.choice(({}, {"ws2025": True})),
        )
        if own.random() < 0.8:
            lack(vm, own.choice(sets))
        for patch in own.sample(patches, own.randint(0, 2)):
            fail(vm, patch, own.choice((1, 5, 9)))
        for patch in own.sample(patches, own.randint(0, 2)):
            InstalledPatch.objects.create(vm=vm, patch=patch, installed_on=NOW)
        if own.random() < 0.3:
            KbHold.objects.create(vm=vm, kb_number=own.choice(patches[:6]).kb_number)
    return patches


def readers(own: random.Random) -> dict[str, User]:
    """Owner of everything; readers of a subscription, of one group, of 50, of 20 single machines, of both, of nothing."""
    found = {name: UserFactory() for name in ("everything", "subscription", "one", "fifty", "singles", "both", "none")}
    groups, vms = list(ResourceGroup.objects.all()), list(VirtualMachine.objects.all())
    RoleAssignmentFactory(user=found["everything"], scope=Scope.EVERYTHING, role="owner")
    RoleAssignmentFactory(
        user=found["subscription"], scope=Scope.SUBSCRIPTION, subscription=own.choice(groups).subscription
    )
    for name, count in (("one", 1), ("fifty", 50), ("both", 3)):
        for group in own.sample(groups, count):
            RoleAssignmentFactory(user=found[name], scope=Scope.RESOURCE_GROUP, resource_group=group)
    for name in ("singles", "both"):
        for vm in own.sample(vms, 20):
            RoleAssignmentFactory(user=found[name], scope=Scope.VM, vm=vm)
    return found


def see(client: Client, user: User, address: str) -> str:
    client.force_login(user)
    answer = client.get(address)
    assert answer.status_code == 200, address
    return str(answer.content.decode())


def numbers_of(page: str) -> list[tuple[int, str]]:
    """Each number of a page that leads to the list of machines, and the address it leads to."""
    links = re.findall(rf'<a[^>]*href="({LIST}\?[^"]*)"[^>]*>(.*?)</a>', page[page.index("<main") :], re.DOTALL)
    texts = [(address, re.search(r"\d[\d,]*", re.sub(r"<[^>]+>", " ", inside))) for address, inside in links]
    return [(int(found.group().replace(",", "")), unescape(address)) for address, found in texts if found]


def listed(user: User, address: str) -> int:
    asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    filters = VmFilter.of(user, asked)
    assert not filters.problems(), address
    return int(filters.found.count())


# --- numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_every_number_leads_to_just_that_many_machines(client: Client, seed: int) -> None:
    patches = make_fleet(seed)
    configure("all", scope={"location": "japaneast"})
    own = random.Random(seed)
    if seed:
        fold_counters()
    compared = {"list": 0, "kb": 0}
    for name, user in readers(own).items():
        for query in ("", "?product_line=ws2022", "?tag=env", "?sort=age&reboot=NeverReboots"):
            for number, address in numbers_of(see(client, user, PENDING + query)):
                assert number == listed(user, address), (name, query, address)
                compared["list"] += 1
        for patch in own.sample(patches[:7], 3):
            for number, address in numbers_of(see(client, user, reverse("updates:kb", args=[patch.kb_number]))):
                assert number == listed(user, address), (name, address)
                compared["kb"] += 1
    assert compared["list"] > 100
    assert compared["kb"] > 80


def test_a_tile_counts_the_rows_that_it_leaves(client: Client) -> None:
    make_fleet(7)
    boss = UserFactory(is_superuser=True)
    page = see(client, boss, PENDING)
    tiles = re.findall(r'<a class="tile" href="([^"]+)"[^>]*>\s*<span class="tile-number">(\d+)', page)
    assert len(tiles) > 2
    for address, count in tiles:
        assert see(client, boss, unescape(address)).count('<th scope="row"') == int(count)
    assert page.count('<th scope="row"') == sum(int(count) for _address, count in tiles)


def test_rows_stand_in_the_order_that_was_asked_for(client: Client) -> None:
    old = PatchFactory(kb_number="5000001", published_on=date(2026, 1, 13), classification="Updates")
    new = PatchFactory(kb_number="5000002", published_on=date(2026, 5, 12), classification="Critical")
    undated = PatchFactory(kb_number="5000003", published_on=None, classification="Security")
    for patches in ((old,), (old, new), (old, new, undated)):
        lack(VirtualMachineFactory(), make_set(*patches))
    boss = UserFactory(is_superuser=True)
    for order, expected in {
        "": "123", "?sort=machines": "321", "?sort=age": "213", "?sort=-age": "123", "?sort=classification": "231",
        "?sort=nothing": "123",
    }.items():  # fmt: skip
        found = re.findall(r"/updates/kb/500000(\d)/", see(client, boss, PENDING + order))
        assert "".join(found) == expected, order


def test_age_is_counted_to_the_day_at_which_the_machines_live(client: Client) -> None:
    patch = PatchFactory(kb_number="5000001", published_on=date(2026, 5, 12))
    lack(VirtualMachineFactory(connection=ConnectionFactory(catalogue_date=date(2026, 5, 15))), make_set(patch))
    boss = UserFactory(is_superuser=True)
    assert "3 days ago" in see(client, boss, PENDING)
    assert "3 days ago" in see(client, boss, reverse("updates:kb", args=["5000001"]))


def test_a_value_that_does_not_exist_is_named(client: Client) -> None:
    lack(VirtualMachineFactory(), make_set(PatchFactory()))
    page = see(client, UserFactory(is_superuser=True), f"{PENDING}?classification=Nice&product_line=ws1")
    assert "Nice is not one of the available choices" in page
    assert "The page ignores part of its address." in page
    assert page.count('<th scope="row"') == 1


def test_it_says_what_it_cannot_know(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    boss = UserFactory(is_superuser=True)
    assert "No virtual machines yet" in see(client, boss, PENDING)
    VirtualMachineFactory()
    assert "No machine has been assessed" in see(client, boss, PENDING)
    lack(VirtualMachineFactory(), make_set())
    assert "known of 1 of 2 machines" in see(client, boss, PENDING)

    def slow(*_args: object, **_named: object) -> None:
        raise ListTooSlowError

    monkeypatch.setattr("updates.selectors.pending.count_fleet", slow)
    assert "took too long" in see(client, boss, f"{PENDING}?tag=env")
    assert client.get(reverse("updates:pending-export")).status_code == 503
    patch = PatchFactory()
    monkeypatch.setattr("updates.selectors.pending_kb.vm_page", slow)
    assert "took too long" in see(client, boss, reverse("updates:kb", args=[patch.kb_number]))


# --- the page of a KB --------------------------------------------------------------------------------------------


def test_a_kb_shows_its_facts_and_its_machines(client: Client) -> None:
    patch = PatchFactory(kb_number="5087424", title="Hotpatch of May")
    ReleaseFactory(kb_number="5087424", type="hotpatch", build="20348.5074", source="Microsoft's calendar")
    lacking, having, failing, holding = (VirtualMachineFactory(name=name) for name in ("aa-1", "bb-2", "cc-3", "dd-4"))
    lack(lacking, make_set(patch))
    InstalledPatch.objects.create(vm=having, patch=patch, installed_on=NOW)
    fail(failing, patch)
    KbHold.objects.create(vm=holding, kb_number="5087424", created_by=UserFactory(username="yamada"))
    boss = UserFactory(is_superuser=True)
    address = reverse("updates:kb", args=["5087424"])
    page = see(client, boss, address)
    for words in (
        "Hotpatch of May",
        "20348.5074",
        "https://support.microsoft.com/help/5087424",
        "calendar/?line=ws2022",
    ):
        assert words in page
    for tab, vm, words in (
        ("lacks", lacking, ""),
        ("has", having, "2026-05-20"),
        ("failed", failing, "0x80070643"),
        ("held", holding, "yamada"),
        ("nonsense", lacking, ""),
    ):
        page = see(client, boss, f"{address}?tab={tab}")
        assert re.findall(r'<th scope="row"><a href="[^"]+">([^<]+)', page) == [vm.name], tab
        assert words in page


def test_machines_of_a_kb_come_fifty_at_a_time(client: Client) -> None:
    patch = PatchFactory(kb_number="5087424")
    some, group, site = make_set(patch), ResourceGroupFactory(), ConnectionFactory()
    for vm in VirtualMachineFactory.create_batch(60, resource_group=group, connection=site):
        lack(vm, some)
    boss = UserFactory(is_superuser=True)
    address = reverse("updates:kb", args=["5087424"])
    first = see(client, boss, address)
    more = re.search(r'rel="next" href="([^"]+)"', first)
    assert more
    second = see(client, boss, address + unescape(more.group(1)))
    assert (first.count('<th scope="row">'), second.count('<th scope="row">')) == (50, 10)


def test_a_kb_that_is_recorded_and_offered_to_nobody_has_a_page_and_an_unknown_one_has_none(client: Client) -> None:
    ReleaseFactory(kb_number="5087424")
    client.force_login(UserFactory())
    assert "to no machine yet" in client.get(reverse("updates:kb", args=["5087424"])).content.decode()
    for path in ("/updates/kb/5087425/", "/updates/kb/1/", "/updates/kb/KB5087424/", "/updates/kb/٥٠٨٧٤٢٤/"):
        assert client.get(path).status_code == 404


def test_other_pages_lead_to_it(client: Client) -> None:
    patch = PatchFactory(kb_number="5087424")
    vm = VirtualMachineFactory()
    lack(vm, make_set(patch))
    InstalledPatch.objects.create(vm=vm, patch=patch, installed_on=NOW)
    fail(vm, patch)
    boss = UserFactory(is_superuser=True)
    ours = reverse("updates:kb", args=["5087424"])
    blade = reverse("updates:blade", args=[vm.pk])
    for address in (
        f"{blade}?tab=compliance",
        f"{blade}?tab=installed",
        reverse("updates:operation", args=[PatchResult.objects.get().operation_id]),
        PENDING,
    ):
        assert f'href="{ours}"' in see(client, boss, address), address


# --- filters of the list -----------------------------------------------------------------------------------------


def test_the_list_filters_by_what_a_kb_has_to_do_with_machines() -> None:
    make_fleet(9)
    boss = UserFactory(is_superuser=True)
    for number in set(Patch.objects.exclude(kb_number="").values_list("kb_number", flat=True)):
        here = VirtualMachine.objects.filter(gone_at=None)
        week = NOW - timedelta(days=7)
        expected = {
            "has": here.filter(installed_patches__patch__kb_number=number),
            "held": here.filter(kb_holds__kb_number=number),
            "failed": here.filter(
                operations__finished_at__gt=week,
                operations__results__patch__kb_number=number,
                operations__results__state="Failed",
            ),
        }
        for name, vms in expected.items():
            for asked in (number, f"KB{number}"):
                filters = VmFilter.of(boss, {name: asked})
                assert not filters.problems()
                assert set(filters.found.values_list("pk")) == set(vms.values_list("pk")), (name, number)


@pytest.mark.parametrize("name", ["has", "failed", "held"])
@pytest.mark.parametrize("value", ["KB", "x", "123", "5087424 or 1", "12345678901", "٥٠٨٧٤٢٤"])
def test_what_is_no_kb_filters_nothing_and_is_named(name: str, value: str) -> None:
    assert [p.name for p in VmFilter.of(UserFactory(is_superuser=True), {name: value}).problems()] == [name]


@pytest.mark.parametrize(
    ("name", "indexes", "table"),
    [
        ("has", {"updates_installedpatch_patch"}, "updates_installedpatch"),
        # whichever is shorter: what went wrong lately, or what became of this KB
        ("failed", {"updates_operation_trouble", "updates_patchresult_patch"}, "updates_operation"),
        ("held", {"updates_kbhold_kb"}, "updates_kbhold"),
    ],
)
def test_what_filters_ask_is_read_through_an_index(name: str, indexes: set[str], table: str) -> None:
    patch = PatchFactory(kb_number="5087424")
    # Runs that succeeded: with them it is slower to read all runs than to use the index.
    OperationFactory.create_batch(200, vm=VirtualMachineFactory(), succeeded=True, created_at=NOW)
    rows = {
        "has": InstalledPatch.objects.order_by().filter(patch__any=array([patch.pk])).values("vm"),
        "failed": failures(NOW).filter(patch__kb_number="5087424").values("operation__vm"),
        "held": KbHold.objects.order_by().filter(kb_number="5087424").values("vm"),
    }[name]
    sql, parameters = rows.query.sql_with_params()
    asked = VmFilter.of(UserFactory(is_superuser=True), {name: "5087424"}).found.query.sql_with_params()
    assert sql[sql.index("FROM") : sql.index("WHERE")].split()[1] in asked[0]
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE updates_operation")
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {sql}", parameters)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert [index for index in indexes if index in plan], plan
    assert f"Seq Scan on {table} " not in plan


# --- what is scheduled -------------------------------------------------------------------------------------------


def judged(user: User | None = None) -> dict[str, Scheduled] | None:
    place = place_of(Grants.of(user or UserFactory(is_superuser=True)))
    counts = count_fleet(place)
    found = judge_schedules(machines_of(place, EVERYWHERE), counts, load_pending(counts), load_rules(NOW))
    return None if found is None else dict(found)


@pytest.mark.parametrize("seed", [3, 4])
def test_what_is_scheduled_is_what_runs_of_the_configurations_would_install(seed: int) -> None:
    make_fleet(seed)
    ReleaseFactory(
        type="lcu", kb_number=Patch.objects.exclude(kb_number="")[0].kb_number, released_on=date(2026, 5, 12)
    )
    own = random.Random(seed)
    everything = replace(SECURITY, classifications=frozenset(Classification))
    excluded = Patch.objects.exclude(kb_number="")[1].kb_number
    rows = [
        configure("everything", everything, 9, scope={"tag_name": "ENV", "tag_value": "prod"}),
        configure("security", SECURITY, 2),
        configure(
            "no reboot", replace(everything, exclude_kbs_requiring_reboot=True, kb_numbers_to_exclude=(excluded,)), 5
        ),
        configure("off", everything, 1, is_enabled=False, scope={"location": "japaneast"}),
        configure("unreadable", everything, 1, scope={"location": 5}),
    ]
    vms = list(VirtualMachine.objects.all())
    for row in rows[1:]:
        row.vms.set(own.sample(vms, 25))
    people = readers(own)
    for name in ("everything", "fifty", "both"):
        assert judged(people[name]) == expected_of(people[name], rows[:3]), name
    assert judged(people["everything"])


def expected_of(user: User, rows: list[MaintenanceConfiguration]) -> dict[str, Scheduled]:
    """The same, asked for one update at a time of what the engine would do in each window."""
    here = VirtualMachine.objects.visible_to(user).filter(gone_at=None, patcher=Patcher.PORTAL_BY_SCHEDULE.value)
    numbers = set(Patch.objects.exclude(kb_number="").values_list("kb_number", flat=True))
    first: dict[tuple[str, int], datetime] = {}
    for row in rows:
        tag, plan, opens_at = row.scope.get("tag_value"), plan_from_json(row.plan), row.next_run_at
        named = set(row.vms.values_list("pk", flat=True))
        members = [vm.pk for vm in here if (tag and vm.tags.get("env") == tag) or vm.pk in named]
        assert opens_at is not None
        for number in numbers | {""}:
            others = replace(
                plan,
                kb_numbers_to_exclude=(*plan.kb_numbers_to_exclude, *(numbers - {number})),
                patch_name_masks_to_exclude=("*Driver",) if number else (),
            )
            for vm_id, work in work_on(members, others, now=NOW).items():
                if work is RunWork.UPDATES:
                    key = (number or DRIVER, vm_id)
                    first[key] = min(first.get(key, opens_at), opens_at)
    found: dict[str, Scheduled] = {}
    for (key, _vm_id), opens_at in first.items():
        before = found.get(key, Scheduled(0, opens_at))
        found[key] = Scheduled(before.machines + 1, max(before.until, opens_at))
    return found


def test_a_window_on_each_machines_own_clock_is_judged_clock_by_clock() -> None:
    """Who waits because nobody knows its clock is not scheduled; until when is told by the last clock."""
    some = make_set(PatchFactory(kb_number="5087424"))
    for location in ("japaneast", "westus", "moon"):
        facts = {"location": location, "time_zone": "", "tags": {"ring": "1"}, "hotpatch_track": "not_on_train"}
        lack(VirtualMachineFactory(patcher=Patcher.PORTAL_BY_SCHEDULE.value, **facts), some)
    configure("Own", time_zone="", is_own_clock=True, scope={"tag_name": "ring"})
    pacific = datetime(2026, 5, 21, 5, tzinfo=UTC)
    assert judged() == {"5087424": Scheduled(2, pacific)}
    configure("Tokyo only", days=1, scope={"location": "japaneast"})
    assert judged() == {"5087424": Scheduled(2, pacific)}, "on its own clock it opens before that"


def test_the_page_says_how_many_are_scheduled_until_when(client: Client) -> None:
    patch = PatchFactory(kb_number="5087424")
    some = make_set(patch)
    for patcher in (Patcher.PORTAL_BY_SCHEDULE.value, Patcher.NOBODY.value):
        lack(VirtualMachineFactory(patcher=patcher, hotpatch_track="not_on_train"), some)
    configure("Saturdays", days=3, scope={"location": "japaneast"})
    boss = UserFactory(is_superuser=True)
    for address in (PENDING, reverse("updates:kb", args=["5087424"])):
        page = see(client, boss, address)
        assert "1 of them" in page
        assert "2026-05-23T12:00:00+00:00" in page


def test_where_judging_would_take_too_long_the_page_says_that_it_is_not_known(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    lack(VirtualMachineFactory(patcher=Patcher.PORTAL_BY_SCHEDULE.value), make_set(PatchFactory(kb_number="5087424")))
    boss = UserFactory(is_superuser=True)
    assert judged(boss) == {}, "there is no configuration"
    configure("Saturdays", scope={"location": "japaneast"})
    with monkeypatch.context() as patched:
        patched.setattr(pending_schedule, "MOST_JUDGED", 0)
        assert judged(boss) is None

    def slow(*_args: object) -> None:
        raise ListTooSlowError

    monkeypatch.setattr(pending_schedule, "fetch_bounded", slow)
    assert judged(boss) is None
    for address in (PENDING, reverse("updates:kb", args=["5087424"])):
        assert "not known" in see(client, boss, address)
    client.force_login(boss)
    (line,) = list(csv.DictReader(io.StringIO(exported(client))))
    assert line["scheduled"] == line["scheduled_until"] == ""


# --- as a file ---------------------------------------------------------------------------------------------------


def exported(client: Client, query: str = "") -> str:
    answer = client.get(reverse("updates:pending-export") + query)
    assert answer.status_code == 200
    text = answer.content.decode()
    assert text.startswith("\ufeff")
    return str(text.removeprefix("\ufeff"))


def test_the_file_has_every_row_and_runs_no_formula(client: Client) -> None:
    make_fleet(5)
    lack(VirtualMachineFactory(), make_set(*Patch.objects.all()))
    boss = UserFactory(is_superuser=True)
    page = see(client, boss, PENDING)
    lines = list(csv.DictReader(io.StringIO(exported(client))))
    assert len(lines) == page.count('<th scope="row"')
    assert {line["title"] for line in lines if not line["kb_number"]} == {"'=Driver"}
    for line in lines:
        if line["kb_number"]:
            assert int(line["machines"]) == listed(boss, f"{LIST}?lacks={line['kb_number']}")
    assert exported(client, "?reboot=x").startswith("# Reboot: ")


# --- what it costs -----------------------------------------------------------------------------------------------


def test_it_costs_the_same_however_many_rows_and_machines_there_are(client: Client) -> None:
    make_fleet(1)
    people = readers(random.Random(1))
    configure("all", scope={"location": "japaneast"})
    number = Patch.objects.exclude(kb_number="")[0].kb_number
    pages = {PENDING: MOST_QUERIES} | {
        f"{reverse('updates:kb', args=[number])}?tab={tab}": MOST_QUERIES_OF_A_KB for tab in ("lacks", "failed")
    }
    costs: list[dict[tuple[str, str], int]] = []
    for rows in (2, 200):
        some = make_set(*PatchFactory.create_batch(rows), *Patch.objects.filter(kb_number=number))
        group, site = ResourceGroup.objects.all()[0], ConnectionFactory()
        for vm in VirtualMachineFactory.create_batch(rows // 4 + 1, resource_group=group, connection=site):
            lack(vm, some)
        cost = {}
        for name in ("everything", "subscription", "both"):
            client.force_login(people[name])
            for address in pages:
                client.get(address)
                with CaptureQueriesContext(connection) as queries:
                    client.get(address)
                cost[name, address] = len(queries)
                assert cost[name, address] <= pages[address], (name, address, [q["sql"][:150] for q in queries])
        costs.append(cost)
    assert costs[0] == costs[1]


def test_no_machine_is_looked_at_where_nothing_is_scheduled(client: Client) -> None:
    make_fleet(2)
    boss = UserFactory(is_superuser=True)
    client.force_login(boss)
    with CaptureQueriesContext(connection) as queries:
        client.get(PENDING)
    others = [q["sql"] for q in queries if "places AS" not in q["sql"] and "updates_patchresult" not in q["sql"]]
    assert not [sql for sql in others if re.search(r'FROM "?vms_virtualmachine', sql)]
