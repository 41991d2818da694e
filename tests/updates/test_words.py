"""Stored words follow the clock, the catalogue and the facts; every page and the counters say the same of a VM."""

from __future__ import annotations

import csv
import io
import random
import re
import threading
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import Q
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from db.locks import Lock, hold
from patching.terms import HotpatchTrack, UpdateStatus
from tests.factories import (
    ConnectionFactory,
    PatchFactory,
    ResourceGroupFactory,
    UserFactory,
    VirtualMachineFactory,
)
from tests.updates.world import assessed, in_threads
from updates.engine.sweep import sweep
from updates.models import (
    PatchSet,
    PatchSetMember,
    Release,
    VmUpdateState,
    WordsClock,
)
from updates.selectors.blade import load_picture
from updates.selectors.catalogue import load_catalogue
from updates.selectors.health import find_trouble
from updates.selectors.vm_facts import load_vm_facts
from updates.selectors.words import Judge, last_patch_tuesday, read_for_judging
from updates.services import outlooks
from updates.services.catalogue import import_catalogue
from updates.services.operations import request_assessments
from updates.services.words import BLOCK, follow_changes, refresh_words
from vms.filters import VmFilter
from vms.models import (
    COUNTED,
    COUNTED_IN_FLEET,
    FleetCount,
    ImageCatalogEntry,
    Outlook,
    ResourceGroup,
    VirtualMachine,
    WordCount,
)
from vms.selectors import csv_lines, vm_page, word_totals
from vms.services.counters import fold_counters, recount_words

pytestmark = pytest.mark.django_db
DATA = Path(__file__).resolve().parents[2] / "updates" / "data"
NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)
WORDS = ("update_status", "hotpatch_status", "hotpatch_track")


@pytest.fixture
def _catalogue(db: None) -> None:
    import_catalogue(data=(DATA / "hotpatch_releases.json").read_bytes())


@pytest.fixture
def boss(db: None) -> User:
    """Sees everything."""
    return UserFactory(is_superuser=True)


def words_of(vm: VirtualMachine) -> tuple[str, ...]:
    return VirtualMachine.objects.values_list(*WORDS).get(pk=vm.pk)


def counted() -> Counter[tuple[object, ...]]:
    """What the counters say, by all that they tell apart."""
    found: Counter[tuple[object, ...]] = Counter()
    for *key, machines in WordCount.objects.values_list(*COUNTED, "machines"):
        found[tuple(key)] += machines
    totals: Counter[tuple[object, ...]] = Counter()
    for *key, machines in WordCount.objects.filter(is_total=True).values_list(*COUNTED_IN_FLEET, "machines"):
        totals[tuple(key)] += machines
    fleet = {tuple(key): machines for *key, machines in FleetCount.objects.values_list(*COUNTED_IN_FLEET, "machines")}
    assert +totals == +Counter(fleet)
    return +found


def recounted() -> Counter[tuple[object, ...]]:
    machines = VirtualMachine.objects.filter(gone_at=None).annotate(lacks_critical=Q(critical_and_security_count__gt=0))
    return Counter(machines.values_list(*COUNTED))


# --- what makes words due ----------------------------------------------------------------------------------------


def test_an_assessment_counts_for_seven_days(_catalogue: None) -> None:
    vm = assessed(VirtualMachineFactory(other_count=1), NOW, "20348.5020", "5082142")
    refresh_words(now=NOW)
    assert words_of(vm)[0] == UpdateStatus.UPDATES_AVAILABLE
    refresh_words(now=NOW + timedelta(days=7))
    assert words_of(vm)[0] == UpdateStatus.UPDATES_AVAILABLE
    refresh_words(now=NOW + timedelta(days=7, seconds=1))
    assert words_of(vm)[0] == UpdateStatus.NO_UPDATES_DATA
    refresh_words(now=NOW + timedelta(days=2))  # the clock was set back
    assert words_of(vm)[0] == UpdateStatus.UPDATES_AVAILABLE


def test_a_release_changes_tracks_without_an_assessment(_catalogue: None) -> None:
    vm = assessed(
        VirtualMachineFactory(connection=ConnectionFactory(catalogue_date=None)),
        NOW,
        "20348.5074",
        "5082142",
        "5087424",
    )
    due = datetime(2026, 7, 14, 17, tzinfo=UTC)  # 10:00 Pacific time
    refresh_words(now=due - timedelta(seconds=1))
    assert words_of(vm)[2].startswith("on_track")
    refresh_words(now=due)
    assert words_of(vm)[2] == HotpatchTrack.BASELINE_DUE


def test_a_change_of_the_catalogue_reaches_every_machine_that_it_means(_catalogue: None) -> None:
    vm = assessed(VirtualMachineFactory(), NOW, "20348.5074", "5082142", "5087424")
    refresh_words(now=NOW)
    before = words_of(vm)[2]
    Release.objects.filter(product_line="ws2022", kb_number="5087424").update(type="lcu")
    refresh_words(now=NOW)
    assert words_of(vm)[2] == HotpatchTrack.OFF_TRACK_SINCE_KB != before


def test_an_image_that_comes_into_the_catalogue_reaches_its_machines(_catalogue: None) -> None:
    vm = VirtualMachineFactory(image_sku="brand-new", image_exact_version="")
    refresh_words(now=NOW)
    assert words_of(vm)[:2] == ("unsupported", "NotAvailable")
    ImageCatalogEntry.objects.create(
        publisher="microsoftwindowsserver", offer="windowsserver", sku="Brand-New", product_line="ws2025"
    )
    refresh_words(now=NOW)
    assert words_of(vm)[:2] == ("no_updates_data", "PendingEvaluation")
    assert VirtualMachine.objects.get(pk=vm.pk).product_line == "ws2025"


def test_changed_facts_are_judged_by_all_rules_whatever_door_changed_them(_catalogue: None) -> None:
    vm = assessed(VirtualMachineFactory(enable_hotpatching=False), NOW, "20348.5020", "5082142")
    refresh_words(now=NOW)
    assert words_of(vm)[1:] == ("Disabled", "not_on_train")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE vms_virtualmachine SET enable_hotpatching = true WHERE id = %s", [vm.pk])
    assert VirtualMachine.objects.get(pk=vm.pk).are_words_due
    refresh_words(now=NOW)
    assert words_of(vm)[1] == "Enabled"
    assert words_of(vm)[2] not in {"not_on_train", "unknown"}
    assert not VirtualMachine.objects.get(pk=vm.pk).are_words_due


def test_changed_facts_are_followed_between_two_ticks(_catalogue: None) -> None:
    """A person who changes a setting need not wait for the tick, and where nothing changed one small read is all."""
    vm = assessed(VirtualMachineFactory(enable_hotpatching=False), NOW, "20348.5020", "5082142")
    refresh_words(now=NOW)
    with CaptureQueriesContext(connection) as queries:
        assert follow_changes(now=NOW) == 0
    assert len(queries) == 1
    VirtualMachine.objects.filter(pk=vm.pk).update(enable_hotpatching=True)
    assert follow_changes(now=NOW) == 1
    followed = words_of(vm)
    assert followed[1] == "Enabled"
    assert followed[2] not in {"not_on_train", "unknown"}
    assert refresh_words(now=NOW) == 0
    assert words_of(vm) == followed


def test_the_build_that_an_inventory_reported_counts_until_an_assessment_tells_one(
    _catalogue: None, boss: User
) -> None:
    """An imported machine that was upgraded in place: the tick, the engine and the pages judge it by the same build."""
    vm = VirtualMachineFactory(os_build="26100.32690", image_exact_version="")
    refresh_words(now=NOW)
    vm.refresh_from_db()
    assert (vm.product_line, vm.hotpatch_status, vm.hotpatch_track) == ("ws2025", "NotAvailable", "not_on_train")
    picture = load_picture(boss, vm.pk, now=NOW)
    assert (picture.line, picture.track.track) == ("ws2025", "not_on_train")
    facts = load_vm_facts([vm.pk], load_catalogue())[vm.pk]
    assert (facts.ref.product_line, facts.ref.is_hotpatch_enabled) == ("ws2025", False)
    assert not refresh_words(now=NOW)


def test_who_was_judged_is_judged_once_more_when_assessments_of_that_time_are_over(_catalogue: None) -> None:
    vm = assessed(VirtualMachineFactory(), NOW, "20348.5020", "5082142")
    refresh_words(now=NOW)
    right = words_of(vm)
    VirtualMachine.objects.filter(pk=vm.pk).update(hotpatch_track="unknown")  # by what was known a moment before
    refresh_words(now=NOW + timedelta(minutes=2))
    assert words_of(vm) != right
    refresh_words(now=NOW + timedelta(minutes=3))
    assert words_of(vm) == right


def test_an_idle_tick_reads_no_machine_and_writes_nothing(_catalogue: None) -> None:
    for _ in range(3):
        assessed(VirtualMachineFactory(), NOW, "20348.5020", "5082142")
    for minutes in (0, 3, 4):
        refresh_words(now=NOW + timedelta(minutes=minutes))
    with CaptureQueriesContext(connection) as queries:
        assert refresh_words(now=NOW + timedelta(minutes=5)) == 0
    assert len(queries) <= 16  # nine for the words, seven for the next reboots
    assert not [q for q in queries if "UPDATE" in q["sql"] and "vms_virtualmachine" in q["sql"]]
    assert not [q for q in queries if "updates_installedpatch" in q["sql"]]


def test_next_reboots_that_run_out_of_time_go_on_and_settle(_catalogue: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlooks, "BLOCK", 2)
    for _ in range(5):
        assessed(VirtualMachineFactory(), NOW, "20348.5020", "5082142")
    untold = VirtualMachine.objects.filter(next_reboot="")
    refresh_words(now=NOW, seconds=0)
    assert untold.count() == 5
    calls = iter([False, True, True, True])
    assert outlooks.tell_outlooks(now=NOW, is_over=lambda: next(calls)) == 2
    assert untold.count() == 3
    refresh_words(now=NOW)
    assert not untold.exists()
    # Clock and catalogue move what is foreseen: all of a kind are told, and once more those that were written meanwhile.
    later = NOW + timedelta(days=70)
    refresh_words(now=later)
    said = set(VirtualMachine.objects.values_list("next_reboot", "next_reboot_outlook"))
    assert said == set(Outlook.objects.values_list("next_reboot", "next_reboot_outlook"))
    Outlook.objects.update(next_reboot="2000-01", is_told=True, settles_at=None)
    refresh_words(now=later)
    assert not Outlook.objects.filter(next_reboot="2000-01").exists()
    assert Outlook.objects.filter(is_told=True, settles_at=later + outlooks.SETTLES_AFTER).exists()
    refresh_words(now=later + outlooks.SETTLES_AFTER)
    assert not Outlook.objects.exclude(settles_at=None).exists()
    VirtualMachine.objects.all().delete()
    refresh_words(now=later)
    assert not Outlook.objects.exists()


def test_a_pass_that_runs_out_of_time_goes_on_where_it_was(_catalogue: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("updates.services.words.BLOCK", 2)
    vms = [assessed(VirtualMachineFactory(), NOW, "20348.5020", "5082142") for _ in range(5)]
    clock = iter(range(1_000_000))
    monkeypatch.setattr("updates.services.words.time.monotonic", lambda: float(next(clock)))
    calls = 0
    while len({words_of(vm)[2] for vm in vms}) > 1 or words_of(vms[0])[2] == "unknown":
        refresh_words(now=NOW, seconds=4)
        calls += 1
        assert calls < 50
    assert calls > 1
    assert BLOCK > 2


def test_an_empty_portal_starts_its_clock(_catalogue: None) -> None:
    assert refresh_words(now=NOW) == 0
    assert WordsClock.objects.get().aged_until == NOW


@pytest.mark.django_db(transaction=True)
def test_an_assessment_that_commits_meanwhile_is_not_overwritten() -> None:
    import_catalogue(data=(DATA / "hotpatch_releases.json").read_bytes())
    vm = assessed(VirtualMachineFactory(other_count=1), NOW - timedelta(days=8), "20348.5020", "5082142")
    refresh_words(now=NOW - timedelta(days=8))
    assert words_of(vm)[0] == "updates_available"
    written, go_on = threading.Event(), threading.Event()

    def work(number: int) -> None:
        if number == 0:
            with transaction.atomic():
                VmUpdateState.objects.filter(vm=vm).update(last_assessed_at=NOW)
                written.set()
                go_on.wait(1)
        else:
            written.wait(5)
            refresh_words(now=NOW)
            go_on.set()

    in_threads(2, work)
    assert words_of(vm)[0] == "updates_available"


def test_patch_tuesdays_are_known() -> None:
    assert last_patch_tuesday(NOW) == datetime(2026, 5, 12, 17, tzinfo=UTC)
    assert last_patch_tuesday(datetime(2026, 5, 12, 16, 59, tzinfo=UTC)) == datetime(2026, 4, 14, 17, tzinfo=UTC)
    assert last_patch_tuesday(datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2025, 12, 9, 18, tzinfo=UTC)


# --- counters ----------------------------------------------------------------------------------------------------


def test_counters_follow_every_door_and_every_cascade() -> None:
    groups = [ResourceGroupFactory() for _ in range(2)]
    vms = [VirtualMachineFactory(resource_group=groups[n % 2]) for n in range(6)]
    assert counted() == recounted()
    VirtualMachine.objects.filter(pk=vms[0].pk).update(resource_group=groups[1], hotpatch_track="on_track")
    fold_counters()
    vms[1].delete()
    VirtualMachine.objects.filter(pk__in=[vm.pk for vm in vms[2:4]]).delete()
    assert counted() == recounted()
    assert fold_counters()
    assert counted() == recounted()
    assert not WordCount.objects.filter(is_total=False).exists()
    assert not WordCount.objects.filter(machines=0).exists()
    assert not fold_counters()


def test_a_statement_that_changes_no_word_adds_no_line() -> None:
    VirtualMachineFactory.create_batch(3)
    fold_counters()
    VirtualMachine.objects.update(vm_size="Standard_D8s_v5")
    assert not WordCount.objects.filter(is_total=False).exists()


def test_many_machines_in_one_statement_make_one_line_a_place() -> None:
    group, row = ResourceGroupFactory(), ConnectionFactory()
    VirtualMachineFactory.create_batch(20, resource_group=group, connection=row)
    fold_counters()
    VirtualMachine.objects.update(hotpatch_track="on_track")
    assert sorted(WordCount.objects.filter(is_total=False).values_list("machines", flat=True)) == [-20, 20]


@pytest.mark.django_db(transaction=True)
def test_counters_are_right_after_writers_that_meet() -> None:
    vms = VirtualMachineFactory.create_batch(40)
    choices = [track.value for track in HotpatchTrack]

    def work(number: int) -> None:
        own = random.Random(number)
        for _ in range(25):
            some = own.sample(vms, 4)
            # in the order of ids, as every writer of VMs locks them
            ids = sorted(vm.pk for vm in some)
            with transaction.atomic():
                list(VirtualMachine.objects.filter(pk__in=ids).order_by("pk").select_for_update().values_list("pk"))
                VirtualMachine.objects.filter(pk__in=ids).update(hotpatch_track=own.choice(choices))
                if own.random() < 0.2:
                    transaction.set_rollback(True)
            if own.random() < 0.5:
                fold_counters()

    in_threads(6, work)
    assert counted() == recounted()
    fold_counters()
    assert counted() == recounted()


def test_the_doctor_recounts_and_the_command_counts_anew() -> None:
    VirtualMachineFactory.create_batch(3)
    assert "counters_differ" not in {finding.code for finding in find_trouble()}
    fold_counters()
    WordCount.objects.update(machines=7)
    (finding,) = (finding for finding in find_trouble() if finding.code == "counters_differ")
    assert "refresh_words --recount" in finding.advice
    recount_words()
    assert counted() == recounted()


def test_two_folds_at_once_do_it_once() -> None:
    VirtualMachineFactory()
    is_held, is_done = threading.Event(), threading.Event()

    def other_worker() -> None:
        try:
            with transaction.atomic():
                hold(Lock.WORD_COUNTERS)
                is_held.set()
                is_done.wait(30)
        finally:
            connection.close()

    thread = threading.Thread(target=other_worker)
    thread.start()
    try:
        assert is_held.wait(30)
        assert not fold_counters()
    finally:
        is_done.set()
        thread.join()
    assert fold_counters()


# --- one status for every machine --------------------------------------------------------------------------------

_IMAGES = (
    ("2022-datacenter-azure-edition-core", "20348"),
    ("2025-datacenter-azure-edition-core", "26100"),
    ("2022-datacenter-azure-edition", "20348"),
    ("2022-datacenter-azure-edition-core", "26100"),  # upgraded in place
    ("ubuntu", ""),
)


def _random_fleet(own: random.Random) -> list[VirtualMachine]:
    rows = [
        ConnectionFactory(catalogue_date=None),
        ConnectionFactory(catalogue_date=date(2026, 5, 20)),
        ConnectionFactory(catalogue_date=date(2025, 10, 24), platform="azure_stack_hci"),
    ]
    groups = [ResourceGroupFactory() for _ in range(3)]
    releases = list(Release.objects.all())
    vms = []
    for _ in range(40):
        sku, prefix = own.choice(_IMAGES)
        vm = VirtualMachineFactory(
            connection=own.choice(rows),
            resource_group=own.choice(groups),
            image_sku=sku,
            image_exact_version="",
            enable_hotpatching=own.random() < 0.8,
            other_count=own.choice((0, 2)),
            is_reboot_pending=own.random() < 0.2,
        )
        vms.append(vm)
        if own.random() < 0.85 and prefix:
            line = [r for r in releases if r.product_line == ("ws2022" if prefix == "20348" else "ws2025")]
            some = own.sample(line, own.randint(0, 4))
            build = own.choice([r.build for r in some if r.build] or [f"{prefix}.1"])
            at = NOW - timedelta(days=own.choice((0, 1, 5, 6, 9, 40)), seconds=own.randint(0, 86_000))
            assessed(vm, at, build, *(r.kb_number for r in some))
            VmUpdateState.objects.filter(vm=vm).update(is_list_complete=own.random() < 0.5)
    return vms


def _shown_everywhere(boss: User, vm_ids: list[int], now: datetime) -> None:
    """Assert that list, filter, tiles, CSV, counters and blade say one thing of every machine."""
    everything = VirtualMachine.objects.all()
    page = {row.id: tuple(getattr(row, name) for name in WORDS) for row in vm_page(everything).vms}
    lines = csv.DictReader(io.StringIO("".join(csv_lines(everything)).lstrip("\ufeff")))
    exported = {line["name"]: tuple(line[name] for name in WORDS) for line in lines}
    assert counted() == recounted()
    pictures = {pk: load_picture(boss, pk, now=now) for pk in vm_ids}
    for pk, picture in pictures.items():
        on_blade = (picture.update_status, picture.hotpatch_status, picture.track_word)
        assert page[pk] == tuple(map(str, on_blade)) == exported[picture.vm.name]
        # and it is what the rules say now, of this machine by itself
        assert picture.told is not None, (picture.track, picture.track_word)
    totals = word_totals(boss)
    for number, name in enumerate(WORDS):
        for value in {words[number] for words in page.values()}:
            found = set(VmFilter.of(boss, {name: value}).found.values_list("pk", flat=True))
            assert found == {pk for pk, words in page.items() if words[number] == value}
            assert totals[name][value] == len(found)


@pytest.mark.parametrize("seed", range(4))
def test_after_one_tick_of_a_jumping_clock_everything_says_the_same(_catalogue: None, boss: User, seed: int) -> None:
    own = random.Random(seed)
    vms = _random_fleet(own)
    for _ in range(6):
        now = NOW + timedelta(days=own.uniform(-900, 400))
        for vm in own.sample(vms, 4):
            change = own.choice(("facts", "assessment", "group", "connection", "reboot"))
            mine = VirtualMachine.objects.filter(pk=vm.pk)
            if change == "facts":
                mine.update(enable_hotpatching=own.random() < 0.5)
            elif change == "assessment" and VmUpdateState.objects.filter(vm=vm).exists():
                # as an assessment writes it, by the same judge
                VmUpdateState.objects.filter(vm=vm).update(last_assessed_at=now)
                reading = read_for_judging(now)
                for row in reading.differing([vm.pk], judged={}):
                    values = dict(zip(WORDS, map(str, row.judged[1:]), strict=True))
                    mine.update(**values, product_line=row.judged.product_line or "")
            elif change == "group":
                mine.update(resource_group=own.choice(vms).resource_group)
            elif change == "connection":
                mine.update(connection=own.choice(vms).connection)
        if own.random() < 0.5:
            gone = vms.pop(own.randrange(len(vms)))
            VirtualMachine.objects.filter(pk=gone.pk).delete()
        release = own.choice(list(Release.objects.exclude(build="")))
        Release.objects.filter(pk=release.pk).update(note="read again", status=own.choice(("released", "scheduled")))
        refresh_words(now=now)
        _shown_everywhere(boss, [vm.pk for vm in vms], now)


def test_the_judge_asks_the_rules_once_for_equal_machines(_catalogue: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = Judge.track
    monkeypatch.setattr(Judge, "track", lambda self, *rest: asked.append(1) or original(self, *rest))
    row = ConnectionFactory()
    for _ in range(5):
        assessed(VirtualMachineFactory(connection=row), NOW, "20348.5020", "5082142")
    refresh_words(now=NOW)
    assert len(asked) == 1


# --- what the pages say of a verdict -----------------------------------------------------------------------------


def blade_of(client: Client, boss: User, vm: VirtualMachine, at: datetime = NOW) -> str:
    refresh_words(now=at)
    client.force_login(boss)
    with time_machine.travel(at, tick=False):
        page = client.get(reverse("updates:blade", args=[vm.pk])).content.decode()
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def today(**facts: Any) -> VirtualMachine:
    vm: VirtualMachine = VirtualMachineFactory(connection=ConnectionFactory(catalogue_date=None), **facts)
    return vm


def test_an_image_and_a_build_of_two_lines_are_told_and_nothing_is_recommended(
    _catalogue: None, client: Client, boss: User
) -> None:
    vm = assessed(today(), NOW, "26100.32690")
    wrong, right = (
        PatchFactory(product_line=line, kb_number=kb) for line, kb in (("ws2022", "9010001"), ("ws2025", "9010002"))
    )
    found = PatchSet.objects.create(digest=b"mixed")
    PatchSetMember.objects.bulk_create(PatchSetMember(patch_set=found, patch=p) for p in (wrong, right))
    VmUpdateState.objects.filter(vm=vm).update(patch_set=found)
    text = blade_of(client, boss, vm)
    assert (
        "Its image is of Windows Server 2022 Datacenter: Azure Edition and its build is of Windows Server 2025" in text
    )
    assert "Not available" in text
    assert "Not on the train" in text
    assert "KB9010002" in text
    assert "KB9010001" not in text
    assert VirtualMachine.objects.get(pk=vm.pk).product_line == "ws2025"


@pytest.mark.parametrize(
    ("build", "kbs", "words"),
    [
        ("20348.1", (), "Baseline overdue"),  # never "assess the machine" where an assessment has answered
        ("20348.5074", ("5082142", "5087424"), "Nothing newer is released."),
        ("20348.4830", ("5073457", "5082142"), "Baseline waits for its reboot"),
        ("20348.9999", (), "the catalog lacks something, not the machine"),
    ],
)
def test_a_verdict_is_told_with_its_facts(
    _catalogue: None, client: Client, boss: User, build: str, kbs: tuple[str, ...], words: str
) -> None:
    vm = assessed(today(is_reboot_pending="5082142" in kbs and build < "20348.5020"), NOW, build, *kbs)
    text = blade_of(client, boss, vm)
    assert words in text
    assert "Assess the machine to see where it stands." not in text


def test_a_machine_that_is_due_is_told_its_way_back(_catalogue: None, client: Client, boss: User) -> None:
    vm = assessed(today(), NOW, "20348.4830", "5073457")
    text = blade_of(client, boss, vm)
    assert "The baseline of 2026-04 is KB5082142. The way back, with one reboot: KB5082142, KB5087424." in text
    assert "Later Patch Tuesdays have passed" in text


def test_a_baseline_without_a_kb_is_due_and_none_is_named(_catalogue: None, client: Client, boss: User) -> None:
    later = datetime(2026, 11, 26, 12, tzinfo=UTC)
    vm = assessed(today(), later, "20348.5440", "5099540", "5120229")
    text = blade_of(client, boss, vm, later)
    assert "Baseline overdue The baseline of 2026-10 is out; its KB is not recorded" in text
    assert "Nothing newer is released" not in text


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"reboot_setting": "Never"}, "installed, waits for a reboot"),
        ({"patch_mode": "Manual"}, "due, nobody installs it"),
    ],
)
def test_the_forecast_knows_the_reboot_setting_and_who_patches(
    _catalogue: None, client: Client, boss: User, facts: dict[str, str], words: str
) -> None:
    vm = assessed(today(**facts), NOW, "20348.4830", "5073457")
    assert words in blade_of(client, boss, vm)


def test_a_page_says_so_where_the_stored_word_is_not_today_s(_catalogue: None, client: Client, boss: User) -> None:
    vm = assessed(today(), NOW, "20348.5074", "5082142", "5087424")
    refresh_words(now=NOW)
    VirtualMachine.objects.filter(pk=vm.pk).update(hotpatch_track="unknown")
    text = blade_of(client, boss, vm)
    assert "Unknown Something changed just now; this follows within a minute." in text


def test_a_machine_that_is_not_ready_for_hotpatches_is_not_on_the_train(
    _catalogue: None, resource_group: ResourceGroup
) -> None:
    """Virtualization-based security is off: the machine says so at every assessment, and every word follows."""
    row = ConnectionFactory(catalogue_date=date(2026, 5, 20), clock_factor=1e9)
    made = [
        VirtualMachineFactory(resource_group=resource_group, connection=row, tags=tags)
        for tags in ({}, {"Simulate": "vbs-off"})
    ]
    for vm in made:
        VmUpdateState.objects.create(vm=vm, os_build="20348.5020")
    request_assessments(vm_ids=[vm.pk for vm in made], requested_by=None)
    sweep()
    told = dict(VmUpdateState.objects.values_list("vm_id", "is_ready_for_hotpatches"))
    assert told == {made[0].pk: True, made[1].pk: False}
    for _ in range(2):  # as the assessment wrote it, and as the tick judges it
        tracks = [VirtualMachine.objects.get(pk=vm.pk).hotpatch_track for vm in made]
        assert tracks == ["on_track", "not_on_train"]
        refresh_words(now=timezone.now())
