"""`python -m bench.operations`: assessments and installations end to end, beside an empty Celery task.

The machines are simulated with a clock so fast that they are always done: what is measured is the portal.
"""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
import uuid
from contextlib import ExitStack
from typing import Any

from bench.machine import OUT, cpu_of_tree, manage, postmaster, process, rss_mb, save, servers, table

FLOOR_TASKS = 10_000


def workers(environment: dict[str, str], bulk_processes: int) -> list[tuple[dict[str, str], tuple[str, ...]]]:
    """The two workers and the beat of the one-command stack."""
    calm = ("--without-gossip", "--without-mingle", "--loglevel", "WARNING")
    celery = ("celery", "-A", "hotpatch_portal", "--quiet")
    return [
        (
            environment | {"WORKER_LANES": "interactive"},
            (*celery, "worker", "-Q", "interactive", "-c", "1", "-n", "interactive@%h", *calm),
        ),
        (
            environment | {"WORKER_LANES": "all"},
            (*celery, "worker", "-Q", "bulk", "-c", str(bulk_processes), "-n", "bulk@%h", *calm),
        ),
        (environment, (*celery, "beat", "--loglevel", "WARNING", "-s", environment["PORTAL_DIR"] + "/beat")),
    ]


def floor() -> float:
    """Empty tasks per second over the same broker and the same two workers."""
    import redis
    from django.conf import settings

    from bench.tasks import nothing

    broker = redis.Redis.from_url(settings.REDIS_URL.replace("redis+socket://", "unix://"))
    for _ in range(200):
        nothing.apply_async(queue="bulk")
    _drain(broker)
    began = time.perf_counter()
    with nothing.app.producer_pool.acquire() as producer:
        for number in range(FLOOR_TASKS):
            nothing.apply_async(queue=("bulk", "interactive")[number % 2], producer=producer)
    _drain(broker)
    return FLOOR_TASKS / (time.perf_counter() - began)


def _drain(broker: Any) -> None:
    while broker.llen("bulk") or broker.llen("interactive") or broker.hlen("unacked"):
        time.sleep(0.01)


class Sampler(threading.Thread):
    """The largest worker while something runs, and how long one interactive Assess now takes meanwhile."""

    def __init__(self, pids: list[int], interactive: list[int]) -> None:
        super().__init__(daemon=True)
        self.pids, self.interactive = pids, interactive
        self.rss, self.latencies = 0.0, []
        self.is_over = threading.Event()

    def run(self) -> None:
        """Sample until told to stop."""
        from django.db import connection

        from updates.models import Operation
        from updates.services.operations import request_assessments
        from updates.tasks import wake_up

        number = 0
        while not self.is_over.wait(0.5):
            self.rss = max(self.rss, *(rss_mb(pid) for pid in self.pids))
            began = time.perf_counter()
            vm = self.interactive[number % len(self.interactive)]
            number += 1
            (outcome,) = request_assessments(vm_ids=[vm], requested_by=None)
            wake_up()
            while not Operation.objects.filter(pk=outcome.operation_id, finished_at__isnull=False).exists():
                time.sleep(0.02)  # often enough to see a click answered, seldom enough not to be what is measured
            self.latencies.append(time.perf_counter() - began)
        connection.close()


def run_bulk(kind: str, place: str, size: int, pids: list[int], interactive: list[int]) -> dict[str, Any]:
    """One bulk request from the click to the last end."""
    import redis
    from django.conf import settings
    from django.contrib.auth.models import User

    from patching.terms import Classification, InstallationPlan, OperationKind
    from updates.models import BulkRequest, Operation
    from updates.services.bulk import request_bulk
    from updates.tasks import wake_up
    from vms.models import VirtualMachine
    from vms.selection import VmSelection

    user, _ = User.objects.get_or_create(username="chief", is_superuser=True)
    broker = redis.Redis.from_url(settings.REDIS_URL.replace("redis+socket://", "unix://"))
    before = broker.info("commandstats").get("cmdstat_lpush", {}).get("calls", 0)
    sampler = Sampler(pids, interactive)
    plan = InstallationPlan(classifications=frozenset(Classification)) if kind == "installation" else None
    database = postmaster()
    spent = {"workers": -sum(map(cpu_of_tree, pids)), "postgres": -cpu_of_tree(database)}
    began = time.perf_counter()
    row = request_bulk(
        request_id=uuid.uuid4(),
        kind=OperationKind(kind),
        selection=VmSelection.matching(VirtualMachine.objects.filter(location=place)),
        plan=plan,
        requested_by=user,
    )
    wake_up(is_bulk=True)
    sampler.start()
    while True:
        time.sleep(0.05 if size < 10_000 else 0.2)
        if BulkRequest.objects.filter(pk=row.pk, is_handed_out=False).exists():
            continue
        if not Operation.objects.open().exclude(vm_id__in=interactive).exists():
            break
    took = time.perf_counter() - began
    spent["workers"] += sum(map(cpu_of_tree, pids))
    spent["postgres"] += cpu_of_tree(database)
    sampler.is_over.set()
    sampler.join()
    messages = broker.info("commandstats").get("cmdstat_lpush", {}).get("calls", 0) - before
    latencies = sorted(sampler.latencies)
    return {
        "seconds": took,
        "vms_per_second": size / took,
        "worker_rss_mb": sampler.rss,
        **{f"{name}_us_per_vm": 1e6 * seconds / size for name, seconds in spent.items()},
        "messages_per_vm": messages / size,
        "interactive_p50_s": statistics.median(latencies) if latencies else None,
        "interactive_p95_s": latencies[int(len(latencies) * 0.95)] if latencies else None,
        "ends": dict(
            Operation.objects.filter(kind=kind, is_bulk=True, vm__location=place)
            .values_list("state")
            .annotate(n=_count())
        ),
    }


def _count() -> Any:
    from django.db.models import Count

    return Count("pk")


def statements_per_vm(kind: str, vm_ids: list[int]) -> float:
    """SQL statements per VM of a whole run in this process: request, start, look, end."""
    from django.db import connection

    from patching.terms import Classification, InstallationPlan
    from updates.engine.sweep import sweep
    from updates.models import Operation
    from updates.services.operations import request_assessments, request_installations

    count = 0

    def counting(execute: Any, *args: Any) -> Any:
        nonlocal count
        count += 1
        return execute(*args)

    with connection.execute_wrapper(counting):
        if kind == "assessment":
            request_assessments(vm_ids=vm_ids, requested_by=None, is_bulk=True)
        else:
            plan = InstallationPlan(classifications=frozenset(Classification))
            request_installations(vm_ids=vm_ids, plan=plan, requested_by=None, is_bulk=True)
        sweep(seconds=600)
    assert not Operation.objects.open().filter(vm_id__in=vm_ids).exists()
    return count / len(vm_ids)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--assess", default="1000,10000,100000")
    parser.add_argument("--install", default="1000,10000")
    parser.add_argument("--bulk-processes", type=int, default=1, help="of the worker for bulk work")
    options = parser.parse_args()
    assess = [int(size) for size in options.assess.split(",")]
    install = [int(size) for size in options.install.split(",")]
    OUT.mkdir(exist_ok=True)
    with servers() as environment:
        os.environ.update(environment)
        total = sum(assess) + sum(install) + 2_100
        manage(environment, "migrate", "-v", "0")
        print(manage(environment, "seed_fleet", "--vms", str(total), "--clock-factor", "1e9").splitlines()[-1])
        import django

        django.setup()
        from django.db import connection

        from vms.models import Connection, VirtualMachine

        Connection.objects.update(max_in_flight=200_000)
        VirtualMachine.objects.update(power_state="running")
        ids = list(VirtualMachine.objects.order_by("pk").values_list("pk", flat=True))
        interactive, ids = ids[-50:], ids[:-50]
        # "All that match" a place of their own: every run finds its machines as the page would.
        places: dict[tuple[str, int], str] = {}
        first = 0
        for kind, sizes in (("assessment", assess), ("installation", install)):
            for size in sizes:
                places[kind, size] = f"bench{kind}{size}"
                VirtualMachine.objects.filter(pk__range=(ids[first], ids[first + size - 1])).update(
                    location=places[kind, size]
                )
                first += size
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
        statements = {kind: statements_per_vm(kind, ids[-50:]) for kind in ("assessment",)}
        figures: list[dict[str, Any]] = []
        with ExitStack() as stack:
            children = [
                stack.enter_context(process(where, *command))
                for where, command in workers(environment, options.bulk_processes)
            ]
            pids = [child.pid for child in children[:2]]
            time.sleep(4)
            empty = floor()
            for kind, sizes in (("assessment", assess), ("installation", install)):
                for size in sizes:
                    result = run_bulk(kind, places[kind, size], size, pids, interactive)
                    ratio = result["vms_per_second"] / empty
                    figures.append({"kind": kind, "vms": size, "ratio_to_floor": ratio} | result)
                    print(figures[-1], flush=True)
        statements["installation"] = statements_per_vm("installation", ids[-50:])
        statements["assessment, block of 2,000"] = statements_per_vm("assessment", ids[-2_050:-50])
    table(
        f"Operations end to end; an empty task: {empty:.0f}/s",
        [
            "kind",
            "VMs",
            "s",
            "VMs/s",
            "÷ empty task",
            "worker RSS MB",
            "processor per VM: workers µs",
            "PostgreSQL µs",
            "messages/VM",
            "Assess now meanwhile p50 s",
            "p95 s",
        ],
        [
            [
                f["kind"],
                f["vms"],
                f["seconds"],
                f["vms_per_second"],
                f["ratio_to_floor"],
                f["worker_rss_mb"],
                f["workers_us_per_vm"],
                f["postgres_us_per_vm"],
                f"{f['messages_per_vm']:.4f}",
                f["interactive_p50_s"] or 0.0,
                f["interactive_p95_s"] or 0.0,
            ]
            for f in figures
        ],
    )
    table(
        "SQL statements per VM", ["run", "statements"], [[name, f"{value:.3f}"] for name, value in statements.items()]
    )
    save(
        "operations",
        {
            "empty_tasks_per_second": empty,
            "bulk_processes": options.bulk_processes,
            "runs": figures,
            "statements_per_vm": statements,
        },
    )


if __name__ == "__main__":
    main()
