"""Faults survived, with real workers, a real Redis and a real PostgreSQL: every operation ends, exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.urls import reverse

from patching.terms import Classification, InstallationPlan
from tests.factories import ConnectionFactory, VirtualMachineFactory
from tests.updates.world import make_vms
from updates.models import Operation, Rollout, RolloutSource, VmUpdateState
from updates.services.catalogue import import_catalogue
from updates.services.operations import database_now, request_assessments, request_installations
from updates.services.rollouts import RolloutPlan, advance_rollouts, create_rollout
from updates.tasks import sweep as sweep_task
from vms.models import VirtualMachine
from vms.selection import VmSelection

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.stack]
DATA = Path(__file__).resolve().parents[2] / "updates" / "data"
EVERYTHING = InstallationPlan(classifications=frozenset(Classification))
# A worker that died in the middle of a step holds its lease for 90 s.
PATIENCE_SECONDS = 150.0


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited in vain: {what}; {list(Operation.objects.values_list('kind', 'state', 'error_code'))}")
        time.sleep(0.05)


def state_of(operation: Operation) -> str:
    return Operation.objects.values_list("state", flat=True).get(pk=operation.pk)


@pytest.fixture
def vm() -> VirtualMachine:
    """A VM on track whose installation of everything takes about six seconds."""
    for name in ("hotpatch_releases.json", "other_updates.json"):
        import_catalogue(data=(DATA / name).read_bytes())
    row = ConnectionFactory(catalogue_date=date(2026, 5, 20), clock_factor=300.0)
    vm: VirtualMachine = VirtualMachineFactory(connection=row)
    VmUpdateState.objects.create(vm=vm, os_build="20348.5020")
    return vm


def start_installation(vm: VirtualMachine) -> Operation:
    (outcome,) = request_installations(vm_ids=[vm.pk], plan=EVERYTHING, requested_by=None)
    return Operation.objects.get(pk=outcome.operation_id)


def assert_ended_once(operation: Operation) -> None:
    operation.refresh_from_db()
    assert (operation.state, operation.verification) == ("succeeded", "confirmed")
    codes = list(operation.events.values_list("code", flat=True))
    for once in ("operation.requested", "operation.started", "operation.finished"):
        assert codes.count(once) == 1, codes
    installed = operation.results.filter(state="Installed")
    assert installed.count() == operation.installed_count == 4
    assert operation.vm.installed_patches.filter(installed_by=operation).count() == 4


def test_a_worker_killed_in_the_middle_of_an_installation(vm, worker, redis_server) -> None:
    first = worker(redis_url=redis_server.url)
    operation = start_installation(vm)
    wait_for(lambda: state_of(operation) == "in_progress", "the installation runs")
    first.kill()
    worker(redis_url=redis_server.url)
    wait_for(lambda: state_of(operation) not in {"queued", "starting", "in_progress", "rebooting"}, "it ends")
    assert_ended_once(operation)


def test_a_rollout_in_whose_second_wave_every_worker_dies(vm, worker, redis_server) -> None:
    """Each machine is asked once, whoever goes on; a wave that fails then pauses it, and nothing further starts."""
    others = [
        VirtualMachineFactory(connection=vm.connection, resource_group=vm.resource_group, tags={"simulate": wish})
        for wish in ("", "fail:any", "")
    ]
    VmUpdateState.objects.bulk_create(VmUpdateState(vm=other, os_build="20348.5020") for other in others)
    what = RolloutPlan(name="", source=RolloutSource.SCHEDULE, plan=EVERYTHING, most_failures=0, most_percent=0)
    rollout = create_rollout(
        what=what,
        selection=VmSelection.of([vm.pk, *(other.pk for other in others)]),
        now=database_now(),
        created_by=None,
    )

    def advanced(condition: Callable[[], bool]) -> bool:
        Rollout.objects.filter(pk=rollout.pk, next_step_at__isnull=False).update(next_step_at=database_now())
        advance_rollouts(now=database_now())
        return condition()

    second = others[0]
    running = Operation.objects.filter(vm=second, state__in=["in_progress", "rebooting"])
    first_worker = worker(redis_url=redis_server.url)
    wait_for(lambda: advanced(running.exists), "the second wave runs")
    first_worker.kill()
    for _ in range(3):
        advanced(bool)
    worker(redis_url=redis_server.url)
    wait_for(lambda: advanced(lambda: Rollout.objects.get(pk=rollout.pk).status != "running"), "it pauses")
    wait_for(lambda: not Operation.objects.open().exists(), "what has started ends")
    for _ in range(3):
        advanced(bool)
    states = list(rollout.members.order_by("wave").values_list("status", "code"))
    assert states == [("succeeded", ""), ("succeeded", ""), ("failed", "patch.failed"), ("waiting", "")]
    rollout.refresh_from_db()
    assert (rollout.status, rollout.reason) == ("paused", "rollout.budget_used")
    installed = Operation.objects.filter(kind="installation").values_list("vm_id", flat=True)
    assert sorted(installed) == sorted([vm.pk, others[0].pk, others[1].pk]), "each was asked once"


def test_a_broker_that_forgets_everything(vm, worker, redis_server) -> None:
    worker(redis_url=redis_server.url)
    operation = start_installation(vm)
    wait_for(lambda: state_of(operation) == "in_progress", "the installation runs")
    redis_server.flush()
    wait_for(lambda: state_of(operation) not in {"queued", "starting", "in_progress", "rebooting"}, "it ends")
    assert_ended_once(operation)


def test_assess_now_without_a_broker(vm, worker, redis_server, client: Client) -> None:
    worker(redis_url=redis_server.url)
    (warm_up,) = make_vms(1)
    request_assessments(vm_ids=[warm_up.pk], requested_by=None)
    wait_for(lambda: not Operation.objects.open().exists(), "the worker is up")
    client.force_login(User.objects.create(username="root", is_superuser=True))
    redis_server.stop()
    began = time.monotonic()
    assert client.post(reverse("updates:assess", args=[vm.pk])).status_code == 302
    assert time.monotonic() - began < 1.0
    operation = Operation.objects.get(vm=vm)
    wait_for(lambda: state_of(operation) == "succeeded", "the worker's own timer carries it out")
    redis_server.start()
    request_assessments(vm_ids=[vm.pk], requested_by=None)
    wait_for(lambda: not Operation.objects.open().exists(), "it goes on when the broker is back")


def cut_connections() -> None:
    """Everybody's but this one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )


def is_over(operation: Operation) -> bool:
    return state_of(operation) not in {"queued", "starting", "in_progress", "rebooting"}


def test_connections_that_are_cut_again_and_again(vm, worker, redis_server) -> None:
    worker(redis_url=redis_server.url)
    operation = start_installation(vm)
    wait_for(lambda: state_of(operation) == "in_progress", "the installation runs")
    for _ in range(5):
        cut_connections()
        time.sleep(0.5)
    wait_for(lambda: is_over(operation), "it ends")
    assert_ended_once(operation)


def test_a_statement_timeout_that_lets_nothing_through_for_a_while(vm, worker, redis_server) -> None:
    worker(redis_url=redis_server.url)
    operation = start_installation(vm)
    wait_for(lambda: state_of(operation) == "in_progress", "the installation runs")
    name = connection.settings_dict["NAME"]
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {name} SET statement_timeout = '1ms'")
        cut_connections()
        time.sleep(3)
        cursor.execute(f"ALTER DATABASE {name} RESET statement_timeout")
        cut_connections()
    wait_for(lambda: is_over(operation), "it ends")
    assert_ended_once(operation)


def test_a_queue_full_of_wake_ups_and_two_who_send_them(vm, worker, redis_server) -> None:
    with sweep_task.app.producer_pool.acquire() as producer:
        for _ in range(2_000):
            sweep_task.apply_async(queue="interactive", producer=producer, kwargs={"lanes": "interactive"})
    for _ in range(2):
        worker(redis_url=redis_server.url)
    operation = start_installation(vm)
    wait_for(lambda: is_over(operation), "it ends")
    assert_ended_once(operation)


def test_many_workers_share_the_work_and_do_nothing_twice(worker, redis_server) -> None:
    vms = make_vms(300)
    request_assessments(vm_ids=[vm.pk for vm in vms], requested_by=None, is_bulk=True)
    for queue in ("interactive", "bulk", "bulk"):
        worker(queue=queue, redis_url=redis_server.url)
    wait_for(lambda: not Operation.objects.open().exists(), "all are assessed")
    assert Operation.objects.filter(state="succeeded").count() == 300
    assert VmUpdateState.objects.filter(last_assessed_at__isnull=False).count() == 300
