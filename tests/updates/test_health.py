"""Health probes in rollouts: asked before and after each VM, never in a transaction, and never without a wish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from connectors.probe import ProbeFailure, ProbeResult
from patching.terms import OperationKind
from tests.connectors.listeners import Server, closed_port, saying
from tests.factories import OperationFactory
from tests.forms import text_of
from tests.plans import no_joins_by_sets
from tests.updates.rollouts import NIGHT, NOON, advance, fleet, make
from updates.models import Operation, Rollout, RolloutMember
from updates.services import health, rollouts
from updates.services.automation import tick
from updates.services.health import LEASE, MOST_PER_STEP, ask_probes
from updates.services.operations import RequestOutcome, RequestVerdict
from updates.services.rollouts import end_rollout, pause_rollout, resume_rollout
from updates.tasks import rollouts as rollouts_task
from vms.models import ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


class Machines:
    """Stands in for the network: which targets are well, and what was asked."""

    def __init__(self) -> None:
        self.ill: set[str] = set()
        self.asked: list[str] = []

    def __call__(self, targets: Sequence[str], **_options: Any) -> list[ProbeResult]:
        self.asked += targets
        return [
            ProbeResult(t, ProbeFailure.STATUS if t in self.ill else None, "500" * (t in self.ill)) for t in targets
        ]

    def take(self) -> list[str]:
        taken, self.asked = sorted(self.asked), []
        return taken


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Machines:
    settings.PROBE_NETWORKS = ["127.0.0.0/8"]
    found = Machines()
    monkeypatch.setattr(health, "probe_all", found)
    return found


def probed(group: ResourceGroup, count: int, **facts: Any) -> list[VirtualMachine]:
    vms = fleet(group, count, **facts)
    for vm in vms:
        vm.health_probe = f"tcp://127.0.0.1:{vm.pk % 60_000 + 1}"
        vm.save(update_fields=["health_probe"])
    return vms


def end(now: datetime, state: str = "succeeded", **which: Any) -> None:
    Operation.objects.open().filter(**which).update(state=state, finished_at=now, next_step_at=None)


def step(rollout: Rollout, now: datetime = NOON) -> Rollout:
    """What the worker does every five seconds."""
    ask_probes(now=now)
    return advance(rollout, now)


def members(rollout: Rollout) -> dict[int, tuple[str, str]]:
    rows = RolloutMember.objects.filter(rollout=rollout).values_list("vm_id", "status", "code")
    return {vm: (status, code) for vm, status, code in rows}


# --- before ------------------------------------------------------------------------------------------------------


def test_who_is_well_starts_and_who_is_not_is_left_alone(
    operator: User, resource_group: ResourceGroup, machines: Machines
) -> None:
    well, ill = probed(resource_group, 2)
    (plain,) = fleet(resource_group, 1)
    machines.ill = {ill.health_probe}
    rollout = make([well, ill, plain], operator, is_availability_first=False)
    step(rollout)
    assert machines.take() == []
    assert {vm: status for vm, (status, _code) in members(rollout).items()} == {
        well.pk: "waiting",
        ill.pk: "waiting",
        plain.pk: "started",
    }, "who has no probe does not wait"
    step(rollout, NOON + timedelta(seconds=5))
    assert machines.take() == sorted([well.health_probe, ill.health_probe])
    assert members(rollout) == {
        well.pk: ("started", ""),
        ill.pk: ("skipped", "health.unhealthy_before"),
        plain.pk: ("started", ""),
    }
    assert set(Operation.objects.values_list("vm_id", flat=True)) == {well.pk, plain.pk}
    row = RolloutMember.objects.get(vm=ill)
    assert (row.probe_failure, row.probe_detail, row.probe_due_at) == ("probe.status", "500", None)


def test_an_answer_grows_stale(operator: User, resource_group: ResourceGroup, machines: Machines) -> None:
    (vm,) = probed(resource_group, 1)
    rollout = make([vm], operator, is_availability_first=False)
    step(rollout)
    ask_probes(now=NOON)
    later = NOON + 3 * MINUTE  # the worker was away
    advance(rollout, later)
    assert not Operation.objects.exists()
    step(rollout, later + timedelta(seconds=5))
    assert len(machines.take()) == 2
    assert Operation.objects.count() == 1


def test_only_who_would_start_now_is_asked(operator: User, resource_group: ResourceGroup, machines: Machines) -> None:
    vms = probed(resource_group, 8)
    rollout = make(vms, operator)
    step(rollout)
    step(rollout)
    assert len(machines.take()) == 2, "the first wave: a quarter of the subscription"
    asleep = make(probed(resource_group, 1), operator, is_availability_first=False, is_off_peak_only=True)
    step(asleep)
    step(asleep)
    assert machines.take() == [], "it is noon"
    step(asleep, NIGHT)
    step(asleep, NIGHT)
    assert len(machines.take()) == 1


def test_without_an_agent_nothing_starts(operator: User, resource_group: ResourceGroup, machines: Machines) -> None:
    (bare,) = fleet(resource_group, 1, provision_vm_agent=False, patch_mode="Manual", enable_hotpatching=False)
    rollout = make([bare], operator, is_availability_first=False)
    step(rollout)
    assert members(rollout) == {bare.pk: ("skipped", "health.no_agent")}


def test_what_may_not_be_asked_is_not_updated(
    operator: User, resource_group: ResourceGroup, settings: Any, client: Client
) -> None:
    settings.PROBE_NETWORKS = []
    (vm,) = probed(resource_group, 1)
    rollout = make([vm], operator, is_availability_first=False)
    step(rollout)
    step(rollout)
    assert members(rollout) == {vm.pk: ("skipped", "health.unhealthy_before")}
    client.force_login(operator)
    shown = text_of(client.get(reverse("updates:rollout", args=[rollout.pk])))
    assert "Its health probe was not well before the update" in shown
    assert "No network is allowed for probes (PROBE_NETWORKS)." in shown


# --- after -------------------------------------------------------------------------------------------------------


def start(rollout: Rollout, machines: Machines, now: datetime = NOON) -> None:
    step(rollout, now)
    step(rollout, now)
    machines.take()


def test_a_machine_has_ten_minutes_to_be_well_again(
    operator: User, resource_group: ResourceGroup, machines: Machines
) -> None:
    slow, broken = probed(resource_group, 2)
    rollout = make([slow, broken], operator, is_availability_first=False)
    start(rollout, machines)
    machines.ill = {slow.health_probe, broken.health_probe}
    end(NOON)
    step(rollout)
    assert set(members(rollout).values()) == {("started", "health.waiting")}
    for seconds in range(5, 305, 5):
        step(rollout, NOON + timedelta(seconds=seconds))
    assert 2 * 18 <= len(machines.take()) <= 2 * 21, "about every 15 seconds"
    machines.ill = {broken.health_probe}
    step(rollout, NOON + 6 * MINUTE)
    assert members(rollout) == {slow.pk: ("succeeded", ""), broken.pk: ("started", "health.waiting")}
    step(rollout, NOON + 10 * MINUTE - timedelta(seconds=1))
    assert members(rollout)[broken.pk][0] == "started"
    assert rollout.status == "running"
    step(rollout, NOON + 10 * MINUTE + 2 * timedelta(seconds=15))
    assert members(rollout)[broken.pk] == ("failed", "health.unhealthy_after")
    assert rollout.status == "finished", "one failure is within the budget"
    machines.take()
    step(rollout, NOON + 20 * MINUTE)
    assert machines.take() == [], "nobody wants to know any more"


def test_a_second_wave_that_turns_unhealthy_pauses_within_one_step(
    operator: User, resource_group: ResourceGroup, machines: Machines, client: Client
) -> None:
    vms = probed(resource_group, 8)
    rollout = make(vms, operator, most_failures=1, most_percent=10)
    start(rollout, machines)
    first = set(Operation.objects.values_list("vm_id", flat=True))
    end(NOON)
    for _ in range(4):
        step(rollout)
    second = set(Operation.objects.open().values_list("vm_id", flat=True))
    assert (len(first), len(second)) == (2, 2)
    machines.ill = {vm.health_probe for vm in vms if vm.pk in second}
    end(NOON)
    for minutes in range(10):
        step(rollout, NOON + minutes * MINUTE)
        assert rollout.status == "running"
        assert Operation.objects.count() == 4, "the third wave waits for the second one's health"
    step(rollout, NOON + 10 * MINUTE)
    assert (rollout.status, rollout.reason) == ("paused", "rollout.budget_used")
    for minutes in range(11, 200, 30):
        step(rollout, NOON + minutes * MINUTE)
    assert Operation.objects.count() == 4, "nothing further is started"
    client.force_login(operator)
    shown = text_of(client.get(reverse("updates:rollout", args=[rollout.pk]), {"state": "failed"}))
    for vm in vms:
        assert (vm.name in shown) is (vm.pk in second)
    assert "Its health probe was still not well 10 minutes after the update." in shown
    assert "It answered with HTTP status 500." in shown
    assert resume_rollout(rollout_id=rollout.pk, now=NOON + 300 * MINUTE, resumed_by=operator)
    start(rollout, machines, NOON + 300 * MINUTE)
    assert Operation.objects.count() == 6, "what was seen is forgiven"


def test_a_failed_installation_is_not_asked_about(
    operator: User, resource_group: ResourceGroup, machines: Machines
) -> None:
    vms = probed(resource_group, 2)
    rollout = make(vms, operator, is_availability_first=False)
    start(rollout, machines)
    end(NOON, "failed", vm=vms[0])
    end(NOON, "cancelled", vm=vms[1])
    step(rollout)
    step(rollout)
    assert [status for status, _code in members(rollout).values()] == ["failed", "skipped"]
    assert machines.take() == []


def test_a_rollback_is_asked_about_afterwards_alone(
    operator: User, resource_group: ResourceGroup, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is not well is why one rolls back; that it is well afterwards is the point."""
    (vm,) = probed(resource_group, 1)
    machines.ill = {vm.health_probe}

    def request(*, vm_ids: list[int], requested_by: User | None) -> list[RequestOutcome]:
        rows = [OperationFactory(vm=VirtualMachine.objects.get(pk=pk), kind="rollback") for pk in vm_ids]
        return [RequestOutcome(row.vm_id, RequestVerdict.ACCEPTED, row.pk) for row in rows]

    monkeypatch.setattr(rollouts, "request_rollbacks", request)
    rollout = make([vm], operator, most_failures=0, most_percent=0)
    Rollout.objects.update(kind=OperationKind.ROLLBACK.value)
    step(rollout)
    assert members(rollout)[vm.pk][0] == "started"
    end(NOON)
    step(rollout)
    step(rollout, NOON + MINUTE)
    assert members(rollout)[vm.pk] == ("started", "health.waiting")
    step(rollout, NOON + 11 * MINUTE)
    assert (members(rollout)[vm.pk], rollout.status) == (("failed", "health.unhealthy_after"), "paused")


def test_a_warning_stays_with_who_is_well(operator: User, resource_group: ResourceGroup, machines: Machines) -> None:
    (vm,) = probed(resource_group, 1)
    rollout = make([vm], operator, is_availability_first=False)
    start(rollout, machines)
    Operation.objects.update(error_code="reboot.required")
    end(NOON, "completed_with_warnings")
    step(rollout)
    step(rollout)
    assert members(rollout) == {vm.pk: ("succeeded", "reboot.required")}


def test_nobody_fails_because_nobody_asked(operator: User, resource_group: ResourceGroup, machines: Machines) -> None:
    """Every worker was away for an hour: the first answer after it decides."""
    well, ill = probed(resource_group, 2)
    rollout = make([well, ill], operator, is_availability_first=False)
    start(rollout, machines)
    end(NOON)
    advance(rollout)
    later = NOON + 60 * MINUTE
    advance(rollout, later)
    assert set(members(rollout).values()) == {("started", "health.waiting")}
    machines.ill = {ill.health_probe}
    step(rollout, later)
    assert members(rollout) == {well.pk: ("succeeded", ""), ill.pk: ("failed", "health.unhealthy_after")}


def test_a_probe_that_is_taken_away_stands_in_nobodys_way(
    operator: User, resource_group: ResourceGroup, machines: Machines
) -> None:
    before, after = probed(resource_group, 2)
    machines.ill = {after.health_probe}
    first, second = make([before], operator), make([after], operator, is_availability_first=False)
    step(first)
    machines.ill = set()
    start(second, machines)
    end(NOON, vm=after)
    machines.ill = {before.health_probe, after.health_probe}
    step(second)
    VirtualMachine.objects.update(health_probe="")
    step(first)
    step(second, NOON + MINUTE)
    assert members(first)[before.pk][0] == "started"
    assert members(second) == {after.pk: ("succeeded", "")}


def test_a_machine_that_is_not_back_holds_its_neighbours(
    operator: User, resource_group: ResourceGroup, machines: Machines
) -> None:
    one, other = probed(resource_group, 2, availability_set="as-1")
    first, second = make([one], operator), make([other], operator)
    start(first, machines)
    machines.ill = {one.health_probe}
    end(NOON)
    step(first)
    step(second)
    step(second)
    assert (second.reason, members(second)[other.pk][0]) == ("rollout.beside_others", "waiting")
    machines.ill = set()
    step(first, NOON + MINUTE)
    start(second, machines, NOON + MINUTE)
    assert members(second)[other.pk][0] == "started"


# --- people, workers, cost ---------------------------------------------------------------------------------------


def test_while_it_is_paused_only_what_has_started_is_watched(
    operator: User, resource_group: ResourceGroup, machines: Machines
) -> None:
    started, waiting = probed(resource_group, 2)
    rollout = make([started, waiting], operator, is_availability_first=False)
    step(rollout)
    RolloutMember.objects.filter(vm=waiting).update(probe_due_at=NOON + MINUTE)  # its answer is still to come
    step(rollout)
    end(NOON)
    advance(rollout)
    assert pause_rollout(rollout_id=rollout.pk, paused_by=operator)
    machines.take()
    ask_probes(now=NOON + 2 * MINUTE)
    assert machines.take() == [started.health_probe]
    assert members(rollout) == {started.pk: ("succeeded", ""), waiting.pk: ("waiting", "")}
    assert not RolloutMember.objects.filter(probe_due_at__isnull=False).exists()
    assert resume_rollout(rollout_id=rollout.pk, now=NOON + 3 * MINUTE, resumed_by=operator)
    start(rollout, machines, NOON + 3 * MINUTE)
    assert members(rollout)[waiting.pk][0] == "started", "who waits is asked anew"
    assert end_rollout(rollout_id=rollout.pk, now=NOON, ended_by=operator)


def test_a_step_asks_no_more_than_it_can_and_two_workers_not_the_same(
    operator: User, resource_group: ResourceGroup, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "MOST_PER_STEP", 2)
    no_joins_by_sets()
    rollout = make(probed(resource_group, 3), operator, is_availability_first=False)
    advance(rollout)
    own = machines

    def dies(_targets: Sequence[str], **_options: Any) -> list[ProbeResult]:
        raise SystemExit

    monkeypatch.setattr(health, "probe_all", dies)
    with pytest.raises(SystemExit):
        ask_probes(now=NOON)
    monkeypatch.setattr(health, "probe_all", own)
    assert ask_probes(now=NOON) == 1, "two belong to a worker that may still answer"
    assert ask_probes(now=NOON + LEASE) == 2, "a worker that died leaves them due"
    assert ask_probes(now=NOON + 2 * LEASE) == 0
    assert LEASE.total_seconds() / 2 > MOST_PER_STEP * 3 / 32, "the slowest batch ends long before its lease"


def test_asking_costs_the_same_however_many_and_nothing_without_probes(
    operator: User, resource_group: ResourceGroup, machines: Machines
) -> None:
    costs = []
    for count in (2, 40):
        rollout = make(probed(resource_group, count), operator, is_availability_first=False)
        with CaptureQueriesContext(connection) as captured:
            step(rollout)
            step(rollout)
            end(NOON)
            step(rollout)
            step(rollout)
        costs.append(len(captured))
        assert rollout.status == "finished"
    assert costs[0] == costs[1]
    plain = make(fleet(resource_group, 3), operator, is_availability_first=False)
    advance(plain)
    with CaptureQueriesContext(connection) as captured:
        assert ask_probes(now=NOON) == 0
    assert len(captured) == 1


def test_the_clock_and_the_task_ask_before_they_step(
    operator: User, resource_group: ResourceGroup, machines: Machines
) -> None:
    for do in (lambda: tick(now=NOON), rollouts_task):
        rollout = make(probed(resource_group, 1), operator)
        advance(rollout)
        do()
        assert len(machines.take()) == 1
        assert not RolloutMember.objects.filter(rollout=rollout, probe_due_at__isnull=False).exists()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server(saying(b"HTTP/1.1 200 OK\r\n\r\n"))
    yield found
    found.stop()


@pytest.mark.django_db(transaction=True)
def test_real_sockets_are_asked_while_no_row_is_locked(
    operator: User, resource_group: ResourceGroup, settings: Any, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PROBE_NETWORKS = ["127.0.0.0/8"]
    good, bad = fleet(resource_group, 2)
    VirtualMachine.objects.filter(pk=good.pk).update(health_probe=f"http://127.0.0.1:{server.port}/health")
    VirtualMachine.objects.filter(pk=bad.pk).update(health_probe=f"tcp://127.0.0.1:{closed_port()}")
    rollout = make([good, bad], operator, is_availability_first=False)
    advance(rollout)
    real, locked = health.probe_all, []

    def ask(*args: Any, **options: Any) -> list[ProbeResult]:
        assert not connection.in_atomic_block
        other = connections.create_connection("default")
        with other.cursor() as cursor:  # somebody else gets every row at once
            cursor.execute("SELECT id FROM updates_rollout FOR UPDATE NOWAIT")
            cursor.execute("SELECT id FROM updates_rolloutmember FOR UPDATE NOWAIT")
            locked.append(len(cursor.fetchall()))
        other.close()
        return real(*args, **options)

    monkeypatch.setattr(health, "probe_all", ask)
    step(rollout)
    assert locked == [2]
    assert members(rollout) == {good.pk: ("started", ""), bad.pk: ("skipped", "health.unhealthy_before")}
    assert RolloutMember.objects.get(vm=bad).probe_failure == "probe.refused"
