"""Imports as jobs: what a kill, a second worker, a second click, a lost right and a hostile file do to them; and syncs."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

import pytest
from django.contrib.auth.models import User
from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from audit.models import AuditEvent
from audit.tags import Tag
from connectors.protocol import ConnectorError, DiscoveredPage, DiscoveredVm, Unread
from connectors.simulator.inventory import discovered, document
from tests.factories import ConnectionFactory, VirtualMachineFactory
from tests.vms.importing import ImportFailedError, Report, import_file, queue_file, work
from tests.vms.inventory import az_row, edited
from vms.choices import ImportDoor
from vms.import_models import ImportAnswer, ImportJob, ImportPiece, ImportRow, InventorySync, MachineDocument
from vms.import_pages import ImportPage
from vms.models import Connection, FactsEvent, RoleAssignment, VirtualMachine
from vms.services import import_jobs
from vms.services.import_jobs import (
    LeaseLostError,
    begin_due_syncs,
    begin_import,
    cancel_import,
    prune_imports,
    sync_inventory,
    take_over,
    work_on_imports,
)
from vms.services.inventory_rows import RowProblem

pytestmark = pytest.mark.django_db
A, B, C = (str(uuid5(NAMESPACE_URL, letter)) for letter in "abc")


@pytest.fixture
def simulator() -> Connection:
    return ConnectionFactory(name="Main fleet")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_jobs, "READ_BLOCK", 3)
    monkeypatch.setattr(import_jobs, "WRITE_BLOCK", 2)


def fleet(count: int, **changes: Any) -> bytes:
    return json.dumps([az_row(f"web-{n}", **changes) for n in range(count)]).encode()


def claim(job: ImportJob) -> import_jobs._Claim:
    """Take the job in hand as a worker does."""
    lease = uuid4()
    ImportJob.objects.filter(pk=job.pk).update(lease=lease, next_step_at=timezone.now() + timedelta(minutes=1))
    return import_jobs._Claim(job.pk, lease)


def steps(job: ImportJob, until: Callable[[ImportJob], bool]) -> import_jobs._Claim:
    """One block after the other, until this holds."""
    hand = claim(job)
    while not until(job):
        assert import_jobs._step(hand)
        job.refresh_from_db()
    return hand


def let_the_lease_end(job: ImportJob) -> None:
    ImportJob.objects.filter(pk=job.pk).update(next_step_at=timezone.now())


# --- kills, seconds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("phase", "done"), [("reading", 0), ("writing", 0), ("writing", 4)])
def test_another_worker_goes_on_where_one_was_killed(simulator: Connection, phase: str, done: int) -> None:
    job = queue_file(fleet(9), simulator)
    steps(job, lambda job: job.phase == phase and job.row_count >= 3 and job.done_count >= done)
    # killed: nothing is given back
    assert not work_on_imports(seconds=5), "in hand until its lease ends"
    let_the_lease_end(job)
    work()
    job.refresh_from_db()
    assert (job.phase, job.row_count, job.done_count) == ("succeeded", 9, 9)
    assert job.counts["created"] == 9
    assert list(ImportAnswer.objects.filter(job=job).order_by("number").values_list("number", flat=True)) == [
        *range(1, 10)
    ]
    assert VirtualMachine.objects.count() == MachineDocument.objects.count() == 9
    assert FactsEvent.objects.filter(pgh_label="added").count() == 9, "each came once"


@pytest.mark.parametrize("step", range(1, len(import_jobs._PLAN)))
def test_judging_the_whole_file_goes_on_at_its_step(simulator: Connection, step: int) -> None:
    """Each step is a transaction of its own: for a million rows all of them take longer than a task may."""
    moving = VirtualMachineFactory(connection=simulator, name="old", vm_id=A)
    rows = [az_row("one", vmId=B), az_row("two", vmId=B), az_row("new", vmId=A)]
    job = queue_file(json.dumps(rows).encode(), simulator)
    steps(job, lambda job: job.cursor.get("plan") == step)
    let_the_lease_end(job)
    work()
    job.refresh_from_db()
    assert (job.phase, job.counts["moved"], job.counts["skipped"], job.counts["created"]) == ("succeeded", 1, 1, 1)
    moving.refresh_from_db()
    assert moving.name == "new"


def test_postgresql_has_looked_at_the_rows_before_it_compares_them(simulator: Connection) -> None:
    """It takes rows that have just come for a handful, and compares each of a hundred thousand with each."""
    job = queue_file(fleet(12), simulator)
    steps(job, lambda job: job.cursor.get("plan") == 1)
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT most_common_vals::text FROM pg_stats WHERE tablename = 'vms_importrow' AND attname = 'job_id'"
        )
        assert str(job.pk) in cursor.fetchone()[0]


def test_a_block_is_whole_or_not_at_all(simulator: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    job = queue_file(fleet(4), simulator)
    hand = steps(job, lambda job: job.done_count == 2)

    def power_cut(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(import_jobs, "_answer", power_cut)  # after the machines were written
    with pytest.raises(KeyboardInterrupt):
        import_jobs._step(hand)
    job.refresh_from_db()
    assert (VirtualMachine.objects.count(), job.done_count) == (2, 2)


def test_a_worker_that_was_only_slow_writes_nothing_more(simulator: Connection) -> None:
    job = queue_file(fleet(6), simulator)
    slow = steps(job, lambda job: job.done_count == 2)
    let_the_lease_end(job)
    work()
    with pytest.raises(LeaseLostError):
        import_jobs._step(slow)
    assert VirtualMachine.objects.count() == 6


def test_a_small_file_does_not_wait_for_a_large_one(simulator: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_jobs, "_TURN_SECONDS", 0.0)
    monkeypatch.setattr(import_jobs, "SMALL_BYTES", 10_000)
    large = queue_file(fleet(40), simulator)
    small = queue_file(json.dumps([az_row("small")]).encode(), simulator)
    work(most_bytes=10_000)
    large.refresh_from_db()
    small.refresh_from_db()
    assert (large.phase, small.phase) == ("reading", "succeeded")


def test_what_fails_again_and_again_ends_and_says_so(simulator: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    job = queue_file(fleet(2), simulator)
    monkeypatch.setattr(import_jobs, "write_rows", lambda **_kwargs: 1 / 0)
    for _attempt in range(import_jobs.MOST_FAILURES):
        let_the_lease_end(job)
        work_on_imports(seconds=1)
    job.refresh_from_db()
    assert (job.phase, job.error_code) == ("failed", "internal")
    assert "failed several times" in ImportPage(job).error
    let_the_lease_end(job)
    assert not VirtualMachine.objects.exists()


# --- the whole file is checked first ----------------------------------------------------------------------------------


def test_nothing_is_taken_over_before_the_last_row_was_read(simulator: Connection) -> None:
    for broken in (fleet(20)[:-5], fleet(20) + b"[", json.dumps([az_row(f"w{n % 19}") for n in range(20)]).encode()):
        with pytest.raises(ImportFailedError):
            import_file(broken, simulator)
    assert not VirtualMachine.objects.exists()


def test_ids_that_come_twice_are_named_with_their_rows(simulator: Connection) -> None:
    rows = [az_row(f"web-{n}") for n in range(7)]
    twice = az_row("web-002") | {"id": az_row("WEB-0")["id"].upper()}
    with pytest.raises(ImportFailedError, match=r"^1 resource id .*/virtualmachines/web-0 \(1, 8\)$"):
        import_file(json.dumps([*rows, twice]).encode(), simulator)
    with pytest.raises(ImportFailedError, match=r"^7 resource ids .*web-4 \(5, 12\) …$"):
        import_file(json.dumps([*rows, *rows]).encode(), simulator)


def test_moves_make_room_across_blocks_and_a_dry_run_says_the_same(simulator: Connection) -> None:
    import_file(json.dumps([az_row("one", vmId=A), az_row("two", vmId=B)]).encode(), simulator)
    names = dict(VirtualMachine.objects.values_list("name", "pk"))
    others = [az_row(f"web-{n}") for n in range(5)]
    data = json.dumps([az_row("one", vmId=C), *others, az_row("three", vmId=A), az_row("four", vmId=B)]).encode()
    dry, done = (import_file(data, simulator, is_dry_run=is_dry_run) for is_dry_run in (True, False))
    assert dry.rows == done.rows
    assert {row.name: row.outcome.value for row in done.rows if not row.name.startswith("web")} == {
        "one": "created",
        "three": "moved",
        "four": "moved",
    }
    assert VirtualMachine.objects.get(name="three").pk == names["one"]


def test_of_two_rows_with_one_vm_id_the_known_machine_stays_wherever_they_are(simulator: Connection) -> None:
    import_file(json.dumps([az_row("one", vmId=A)]).encode(), simulator)
    rows = [az_row("copy", vmId=A), *(az_row(f"web-{n}") for n in range(6)), az_row("one", vmId=A)]
    found = {row.name: row for row in import_file(json.dumps(rows).encode(), simulator).rows}
    assert found["one"].outcome.value == "unchanged"
    assert (found["copy"].problem, found["copy"].detail) == (RowProblem.SAME_VM_ID, "8")


# --- people ------------------------------------------------------------------------------------------------------


def test_who_loses_the_right_stops_at_the_next_block(simulator: Connection, chief: User) -> None:
    job = queue_file(fleet(6), simulator, by=chief)
    steps(job, lambda job: job.done_count == 2)
    RoleAssignment.objects.filter(user=chief).delete()
    let_the_lease_end(job)
    work()
    job.refresh_from_db()
    assert (job.phase, job.error_code, VirtualMachine.objects.count()) == ("stopped", "right_lost", 2)
    assert "may not import any more" in ImportPage(job).error


def test_who_is_gone_has_no_right(simulator: Connection, chief: User) -> None:
    job = queue_file(fleet(2), simulator, by=chief)
    chief.delete()
    work()
    job.refresh_from_db()
    assert (job.phase, VirtualMachine.objects.count()) == ("stopped", 0)


def test_an_import_is_cancelled_before_it_has_begun_and_never_after(
    client: Client, simulator: Connection, chief: User
) -> None:
    client.force_login(chief)
    job = queue_file(fleet(6), simulator, by=chief)
    hand = steps(job, lambda job: job.phase == "writing")
    assert not cancel_import(job_id=job.pk)
    answer = client.post(reverse("vms:import-cancel", args=[job.pk]), follow=True)
    assert "cannot be cancelled any more" in answer.content.decode()
    while import_jobs._step(hand):
        pass
    second = queue_file(fleet(8), simulator, by=chief)
    hand = steps(second, lambda job: job.row_count == 3)
    assert b"Nothing was changed" in client.post(reverse("vms:import-cancel", args=[second.pk]), follow=True).content
    with pytest.raises(LeaseLostError):
        import_jobs._step(hand)
    work()
    assert VirtualMachine.objects.count() == 6


def test_another_persons_dry_run_is_not_mine_to_take_over(simulator: Connection, chief: User, staff: User) -> None:
    job = queue_file(fleet(2), simulator, by=chief, is_dry_run=True)
    work()
    assert take_over(job_id=job.pk, requested_by=staff, connection=simulator, is_dry_run=False) is None
    newer = queue_file(fleet(3), simulator, by=chief, is_dry_run=True)
    work()
    assert take_over(job_id=job.pk, requested_by=chief, connection=simulator, is_dry_run=False) is None, "replaced"
    for _ in range(2):
        assert take_over(job_id=newer.pk, requested_by=chief, connection=simulator, is_dry_run=False) is not None
    taken = AuditEvent.objects.get(tag=Tag.INVENTORY_TAKE_OVER.value)
    assert (taken.person, taken.object_id) == ("chief", str(newer.pk)), "once, however often it is started"
    work()
    assert VirtualMachine.objects.count() == 3


def test_the_page_says_how_far_it_is(client: Client, simulator: Connection, chief: User) -> None:
    client.force_login(chief)
    job = queue_file(fleet(9), simulator, by=chief)
    page = reverse("vms:import-job", args=[job.pk])
    steps(job, lambda job: job.row_count == 3)
    ImportJob.objects.filter(pk=job.pk).update(row_count=340_000)
    shown = client.get(page).content.decode()
    assert "Checking every row" in shown
    assert "340,000 rows" in shown
    assert 'hx-trigger="every 1s"' in shown
    assert '<noscript><meta http-equiv="refresh"' in shown
    ImportJob.objects.filter(pk=job.pk).update(phase="writing", row_count=1_000_000, done_count=340_000)
    part = client.get(page, headers={"HX-Request": "true", "HX-Target": "import-progress"}).content.decode()
    assert part.strip().startswith('<div id="import-progress"')
    assert "340,000 of 1,000,000" in part


# --- cost --------------------------------------------------------------------------------------------------------


def test_the_statements_of_a_block_do_not_grow_with_its_rows(
    simulator: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_jobs, "READ_BLOCK", 1_000)
    monkeypatch.setattr(import_jobs, "WRITE_BLOCK", 1_000)

    def cost(count: int) -> int:
        data = json.dumps([az_row(f"c{count}-{n}") for n in range(count)]).encode()
        with CaptureQueriesContext(database) as queries:
            import_file(data, simulator)
        return len(queries)

    cost(1)
    assert cost(2) == cost(200)


def test_a_large_file_is_never_whole_in_memory(simulator: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """15,000 Linux rows of 2 kB, 33 MB: at no time is more than a few MB of it held."""
    monkeypatch.setattr(import_jobs, "READ_BLOCK", 1_000)
    monkeypatch.setattr(import_jobs, "WRITE_BLOCK", 1_000)
    linux = edited("storageProfile.osDisk.osType", "Linux", az_row(padding="x" * 1_500))
    texts = (
        json.dumps(linux | {"id": linux["id"].replace("web-001", f"l{n}"), "name": f"l{n}"}) for n in range(15_000)
    )
    job = queue_file(f"[{','.join(texts)}]".encode(), simulator)
    tracemalloc.start()
    work()
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    report = Report(ImportJob.objects.get(pk=job.pk))
    assert report.page.linux == 15_000
    assert peak < 20_000_000, f"{peak / 1e6:.0f} MB"


# --- clearing away -----------------------------------------------------------------------------------------------


def test_what_no_import_needs_goes_in_blocks(
    simulator: Connection, chief: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = queue_file(fleet(5), simulator, by=chief)
    dry = queue_file(fleet(5), simulator, by=chief, is_dry_run=True)
    half = begin_import(door=ImportDoor.PAGE, requested_by=chief)
    work()
    now = timezone.now()
    prune_imports(now=now)
    assert not ImportPiece.objects.exists(), "read: the rows are kept"
    assert set(ImportRow.objects.values_list("job", flat=True)) == {dry.pk}
    assert ImportJob.objects.filter(pk=half.pk).exists()
    prune_imports(now=now + timedelta(hours=2))
    assert not ImportRow.objects.exists()
    assert not ImportJob.objects.filter(pk=half.pk).exists()
    assert ImportAnswer.objects.filter(job=done).count() == 5
    prune_imports(now=now + timedelta(days=91), keep_days=90)
    assert not ImportJob.objects.exists()
    assert VirtualMachine.objects.count() == 5


# --- a connection's own inventory --------------------------------------------------------------------------------


@dataclass
class Listing:
    """What the connection lists: pages by cursor."""

    pages: dict[str, DiscoveredPage | ConnectorError | Exception]

    def discover(self, cursor: str = "") -> DiscoveredPage | ConnectorError:
        page = self.pages[cursor]
        if isinstance(page, Exception):
            raise page
        return page


def page(*rows: dict[str, Any], then: str = "") -> DiscoveredPage:
    return DiscoveredPage([DiscoveredVm(row) for row in rows], then)


@pytest.fixture
def listing(monkeypatch: pytest.MonkeyPatch) -> Listing:
    found = Listing({"": page()})
    monkeypatch.setattr("vms.services.discovery.connector_for", lambda *_args, **_kwargs: found)
    return found


def sync(connection: Connection) -> ImportPage:
    job = sync_inventory(connection=connection, door=ImportDoor.SCHEDULE)
    work()
    job.refresh_from_db()
    return ImportPage(job)


def test_a_connection_is_listed_page_by_page_and_its_documents_are_kept(
    simulator: Connection, listing: Listing
) -> None:
    listing.pages = {
        "": page(az_row("one"), az_row("two"), then="p2"),
        "p2": page(az_row("three", unknownFact={"x": 1}), {}, then="p3"),
        "p3": page(az_row("two", licenseType="later")),
    }
    found = sync(simulator)
    assert (found.phase.value, found.job.row_count, found.job.counts["created"]) == ("succeeded", 4, 3)
    assert VirtualMachine.objects.get(name="two").license_type == "later", "what was said last counts"
    kept = MachineDocument.objects.get(vm__name="three")
    assert kept.document["unknownFact"] == {"x": 1}
    assert kept.is_listed
    again = sync(simulator)
    assert again.job.counts["unchanged"] == 3
    assert MachineDocument.objects.get(vm__name="three").taken_at == kept.taken_at, "nothing new, nothing written"


def test_what_could_not_be_looked_at_is_not_gone(
    simulator: Connection, listing: Listing, client: Client, chief: User
) -> None:
    arc = az_row("arc", osType="windows", osSku="Windows Server 2025 Datacenter", osVersion="10.0.26100.4946")
    arc["id"] = arc["id"].replace("Microsoft.Compute/virtualMachines", "Microsoft.HybridCompute/machines")
    listing.pages = {"": page(az_row("one"), az_row("two"), arc)}
    sync(simulator)
    subscription = arc["id"].split("/")[2]
    unread = [Unread(subscription, "Microsoft.HybridCompute/machines", "Microsoft.HybridCompute/machines/read")]
    listing.pages = {"": page(az_row("one"), then="p2"), "p2": DiscoveredPage([], "", unread)}
    found = sync(simulator)
    assert found.job.gone_count == 1
    assert VirtualMachine.objects.get(name="two").gone_at is not None
    assert VirtualMachine.objects.get(name="arc").gone_at is None
    client.force_login(chief)
    shown = client.get(reverse("vms:import-job", args=[found.job.pk])).content.decode()
    assert "Microsoft.HybridCompute/machines/read" in shown
    listing.pages = {"": page(az_row("one"))}
    sync(simulator)
    assert VirtualMachine.objects.get(name="arc").gone_at is not None


def test_what_is_listed_no_more_is_marked_and_kept_and_comes_back(simulator: Connection, listing: Listing) -> None:
    by_hand = VirtualMachineFactory(connection=simulator)
    listing.pages = {"": page(az_row("one"), az_row("two"))}
    sync(simulator)
    listing.pages = {"": page(az_row("two"))}
    assert sync(simulator).job.gone_count == 1
    gone = VirtualMachine.objects.get(name="one")
    assert gone.gone_at is not None
    kept = FactsEvent.objects.filter(pgh_obj=gone).latest("pgh_id")
    assert (kept.pgh_label, kept.gone_at) == ("changed", None), "its history says when it went"
    by_hand.refresh_from_db()
    assert by_hand.gone_at is None, "it was never listed"
    assert sync(simulator).job.gone_count == 0
    listing.pages = {"": page()}
    assert sync(simulator).job.gone_count == 0, "an empty list is no news of machines"
    listing.pages = {"": page(az_row("one"), az_row("two"))}
    assert sync(simulator).job.counts["updated"] == 1
    gone.refresh_from_db()
    assert gone.gone_at is None


def test_half_a_list_changes_nothing_and_a_kill_goes_on_at_its_page(simulator: Connection, listing: Listing) -> None:
    listing.pages = {"": page(az_row("one"), az_row("two"))}
    sync(simulator)
    listing.pages = {"": page(az_row("one"), then="p2"), "p2": ConnectorError("connector.forbidden", "403")}
    failed = sync(simulator)
    assert failed.phase.value == "failed"
    assert "connector.forbidden 403" in failed.error
    assert VirtualMachine.objects.filter(gone_at=None).count() == 2
    listing.pages["p2"] = ConnectorError("connector.throttled", is_retryable=True, retry_after=600)
    job = sync_inventory(connection=simulator, door=ImportDoor.SCHEDULE)
    work()
    job.refresh_from_db()
    assert (job.phase, job.cursor, job.failures) == ("reading", {"page": "p2"}, 1), "asked again in ten minutes"
    assert cancel_import(job_id=job.pk)
    listing.pages["p2"] = ConnectionResetError("away")
    job = sync_inventory(connection=simulator, door=ImportDoor.SCHEDULE)
    work_on_imports(seconds=1)
    job.refresh_from_db()
    assert (job.phase, job.cursor, job.failures) == ("reading", {"page": "p2"}, 1)
    listing.pages = {"p2": page(az_row("two"))}
    let_the_lease_end(job)
    work()
    job.refresh_from_db()
    assert (job.phase, job.row_count, job.failures) == ("succeeded", 2, 0)


def test_a_second_question_finds_the_first_and_the_next_day_asks_again(simulator: Connection, listing: Listing) -> None:
    first = sync_inventory(connection=simulator, door=ImportDoor.SCHEDULE)
    assert sync_inventory(connection=simulator, door=ImportDoor.SCHEDULE) == first
    work()
    now = timezone.now()
    assert begin_due_syncs(now=now) == 0
    assert begin_due_syncs(now=now + timedelta(days=1)) == 1
    assert InventorySync.objects.get().job != first
    ConnectionFactory()
    assert begin_due_syncs(now=now + timedelta(days=1)) == 0, "never asked for: waits for a person"


def test_however_many_are_due_they_are_asked_in_three_statements(listing: Listing) -> None:
    now = timezone.now()
    rows = [ConnectionFactory() for _ in range(25)]
    open_question = sync_inventory(connection=rows[0], door=ImportDoor.PAGE)
    for row in rows[1:]:
        InventorySync.objects.create(connection=row, next_at=now - timedelta(minutes=1))
    InventorySync.objects.filter(connection=rows[0]).update(next_at=now - timedelta(minutes=1))
    InventorySync.objects.filter(connection=rows[1]).update(next_at=now + timedelta(minutes=1))
    with CaptureQueriesContext(database) as queries:
        assert begin_due_syncs(now=now) == 23
    assert len([query for query in queries if "SAVEPOINT" not in query["sql"]]) == 3
    asked = InventorySync.objects.filter(job__door=ImportDoor.SCHEDULE.value, job__phase="reading")
    assert set(asked.values_list("connection_id", "next_at")) == {(row.pk, now + timedelta(days=1)) for row in rows[2:]}
    assert InventorySync.objects.get(connection=rows[0]).job == open_question
    assert begin_due_syncs(now=now + timedelta(days=2)) == 1, "only the one that was not due then"


def test_the_simulator_lists_the_same_machines_every_time() -> None:
    first = discovered(seed=7, size=2_500, cursor="")
    last = discovered(seed=7, size=2_500, cursor="2000")
    assert (len(first.machines), first.next_cursor, len(last.machines), last.next_cursor) == (1_000, "1000", 500, "")
    assert first == discovered(seed=7, size=2_500, cursor="")
    assert document(7, 3) != document(8, 3)
    assert discovered(seed=7, size=0, cursor="").machines == []


def test_all_that_the_simulator_lists_can_be_imported(simulator: Connection) -> None:
    simulator.config |= {"inventory_size": 30}
    simulator.save()
    assert sync(simulator).job.counts["created"] == 30
    assert VirtualMachine.objects.filter(enable_hotpatching=True).count() == 27
