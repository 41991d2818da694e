"""`python -m bench.faults`: a night in production. Installations run while everything that can fail does.

The portal runs as `make up` runs it. What happened is judged by the machines' own ledger and by fresh computations,
not by what the portal believes. Runs twice: with connectors that can be asked again, and with ones that cannot.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.machine import OUT, ROOT, children, free_port, manage, save, table


class Campaign:
    """One portal, its installations, and the faults that befall it."""

    def __init__(self, installations: int, faults: int, *, is_helpful: bool, seed: int) -> None:
        self.installations, self.wanted, self.is_helpful = installations, faults, is_helpful
        self.dice = random.Random(seed)
        self.directory = Path(tempfile.mkdtemp(prefix="hp-faults-"))
        self.directory.chmod(0o755)
        self.ledger = self.directory / "ledger"
        self.done: Counter[str] = Counter()
        self.extra: list[subprocess.Popen[bytes]] = []

    def run(self) -> dict[str, Any]:
        """Everything, and what came of it."""
        environment = os.environ | {
            "PORT": str(free_port()),
            "PORTAL_DIR": str(self.directory / "portal"),
            "DEMO": "0",
            "DJANGO_SETTINGS_MODULE": "bench.settings",
            "BENCH_LEDGER": str(self.ledger),
            "BENCH_TROUBLE": "0.01",
            "BENCH_UNHELPFUL": "" if self.is_helpful else "1",
            "OPERATION_LEASE_SECONDS": "20",
        }
        self.portal = subprocess.Popen(
            [sys.executable, "manage.py", "portal"],
            cwd=ROOT,
            env=environment,
            stdout=(self.directory / "log").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            access = self.directory / "portal" / "environment.json"
            self._wait(lambda: access.exists() and "http" in (self.directory / "log").read_text(errors="replace"), 180)
            self.environment = environment | json.loads(access.read_text())
            return self._campaign()
        finally:
            for child in self.extra:
                child.kill()
            self.portal.send_signal(signal.SIGINT)
            try:
                self.portal.wait(60)
            except subprocess.TimeoutExpired:
                self.portal.kill()
            shutil.copy(self.directory / "log", OUT / f"faults-{'with' if self.is_helpful else 'without'}.log")
            shutil.rmtree(self.directory, ignore_errors=True)

    def _campaign(self) -> dict[str, Any]:
        manage(self.environment, "seed_fleet", "--vms", str(self.installations), "--clock-factor", "60")
        os.environ.update(
            {
                key: self.environment[key]
                for key in ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "PORTAL_DIR", "DJANGO_SETTINGS_MODULE")
            }
        )
        import django

        django.setup()
        from django.contrib.auth.models import User

        from patching.terms import Classification, InstallationPlan, OperationKind
        from updates.models import BulkRequest, Operation
        from updates.services.bulk import request_bulk
        from vms.models import Connection, VirtualMachine

        Connection.objects.update(max_in_flight=max(50, self.installations // 12))
        VirtualMachine.objects.update(power_state="running")
        user = User.objects.create(username="chief", is_superuser=True)
        ids = list(VirtualMachine.objects.order_by("pk").values_list("pk", flat=True))
        plan = InstallationPlan(classifications=frozenset(Classification))
        pk = uuid.uuid4()
        began = time.monotonic()
        for _ in range(3):  # whoever clicks three times asks once
            request_bulk(
                request_id=pk, kind=OperationKind.INSTALLATION, selection={"vm": ids}, plan=plan, requested_by=user
            )
        faults = self._faults()
        kinds = list(faults)
        number = 0

        def is_over() -> bool:
            try:
                return (
                    not BulkRequest.objects.filter(is_handed_out=False).exists()
                    and not Operation.objects.open().exists()
                )
            except Exception:
                from django.db import connection

                connection.close()
                return False

        while sum(self.done.values()) < self.wanted:
            kind = kinds[number % len(kinds)] if number < 2 * len(kinds) else self.dice.choice(kinds)
            number += 1
            try:
                faults[kind]()
                self.done[kind] += 1
            except Exception as error:  # what should be hit is down already
                print(f"  {kind}: {error!r}"[:200], flush=True)
            time.sleep(self.dice.uniform(1.5, 4))
        self._wait(is_over, 1_200)
        return self._judge(ids, pk, time.monotonic() - began)

    # --- faults

    def _pids(self, word: str) -> list[int]:
        found = []
        for pid in children(self.portal.pid)[1:]:
            try:
                if word in Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode():
                    found.append(pid)
            except OSError:
                continue
        if not found:
            raise RuntimeError(f"no {word} is running")
        return found

    def _kill(self, word: str, number: int = signal.SIGKILL) -> None:
        os.kill(self.dice.choice(self._pids(word)), number)

    def _sql(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.environment["DATABASE_URL"], autocommit=True) as connection:
            connection.execute(statement)

    def _redis(self) -> Any:
        import redis

        return redis.Redis.from_url(self.environment["REDIS_URL"].replace("redis+socket://", "unix://"))

    def _stop_for(self, word: str, seconds: float) -> None:
        pid = self._pids(word)[0]
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)

    def _two_beats(self) -> None:
        child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "celery",
                "-A",
                "hotpatch_portal",
                "--quiet",
                "beat",
                "-s",
                str(self.directory / "beat2"),
                "--pidfile=",
            ],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.extra.append(child)
        time.sleep(8)
        child.kill()

    def _statement_timeout(self) -> None:
        name = self.environment["DATABASE_URL"].partition("?")[0].rpartition("/")[2]
        self._sql(f"ALTER DATABASE {name} SET statement_timeout = '30ms'")
        self._cut()
        time.sleep(4)
        self._sql(f"ALTER DATABASE {name} RESET statement_timeout")
        self._cut()

    def _cut(self) -> None:
        self._sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

    def _full_queue(self) -> None:
        from updates.tasks import sweep

        with sweep.app.producer_pool.acquire() as producer:
            for number in range(3_000):
                sweep.apply_async(
                    queue=("bulk", "interactive")[number % 2], producer=producer, kwargs={"lanes": "interactive"}
                )

    def _faults(self) -> dict[str, Callable[[], object]]:
        return {
            "kill -9 worker": lambda: self._kill("celery -A hotpatch_portal --quiet worker"),
            "kill -9 beat": lambda: self._kill("celery -A hotpatch_portal --quiet beat"),
            "kill -9 web": lambda: self._kill("gunicorn"),
            "two beats": self._two_beats,
            "Redis flushed": lambda: self._redis().flushall(),
            "Redis stopped": lambda: self._stop_for("redis-server", 30 if not self.done["Redis stopped"] else 5),
            "Redis restarted empty": lambda: (self._redis().flushall(), self._kill("redis-server")),
            "PostgreSQL restarted": lambda: self._kill("bin/postgres", signal.SIGINT),
            "connections cut": self._cut,
            "statement timeout": self._statement_timeout,
            "full queue": self._full_queue,
            "frozen worker": lambda: self._stop_for("celery -A hotpatch_portal --quiet worker", 25),
        }

    # --- what came of it

    def _judge(self, ids: list[int], pk: uuid.UUID, seconds: float) -> dict[str, Any]:
        from django.db import connection
        from django.db.models import Count

        from patching.lifecycle import TERMINAL
        from updates.models import BulkOutcome, InstalledPatch, Operation, PatchResult
        from updates.services.operations import request_assessments
        from vms.models import VirtualMachine

        lines = [line.split() for line in self.ledger.read_text().splitlines()]
        starts = [line for line in lines if len(line) == 5 and line[0] == "start"]
        installations = [(request, int(vm)) for _start, request, vm, kind, _at in starts if kind == "installation"]
        per_vm = Counter(vm for _request, vm in set(installations))
        per_request = Counter(request for request, _vm in installations)
        operations = Operation.objects.filter(kind="installation")
        unconfirmed = [
            str(row) for row in operations.filter(error_code="start.unconfirmed").values_list("pk", flat=True)
        ]
        hotpatch_runs = operations.filter(state="succeeded").exclude(
            results__state="Installed",
            results__patch__reboot_behavior__in=["AlwaysRequiresReboot", "CanRequestReboot", "Unknown"],
        )
        result = {
            "seconds": seconds,
            "faults": dict(self.done),
            "connector troubles": dict(
                Counter(
                    (
                        Path(f"{self.ledger}.trouble").read_text() if Path(f"{self.ledger}.trouble").exists() else ""
                    ).split()
                )
            ),
            "starts the machines received": len(installations),
            "ends": dict(operations.values_list("state").annotate(n=Count("pk"))),
            "machines without an answer": len(ids) - BulkOutcome.objects.filter(request_id=pk).count(),
            "not in a final state": Operation.objects.exclude(state__in=[state.value for state in TERMINAL]).count(),
            "machines with two installations": sum(count > 1 for count in per_vm.values()),
            "starts sent twice": sum(count > 1 for count in per_request.values()),
            "starts of no operation": len(
                set(per_request) - {str(row) for row in operations.values_list("pk", flat=True)}
            ),
            "patches installed twice": PatchResult.objects.filter(state="Installed")
            .values("operation__vm", "patch")
            .annotate(n=Count("pk"))
            .filter(n__gt=1)
            .count(),
            "reboots without a cause": hotpatch_runs.exclude(reboot_status__in=["NotNeeded", ""]).distinct().count(),
            "start.unconfirmed": len(unconfirmed),
        }
        # Every summary equals what a fresh assessment of every machine gives.
        columns = (
            "pk",
            "update_status",
            "critical_and_security_count",
            "other_count",
            "is_reboot_pending",
            "hotpatch_status",
            "hotpatch_track",
        )
        before = set(VirtualMachine.objects.values_list(*columns))
        installed = set(InstalledPatch.objects.values_list("vm_id", "patch_id"))
        for first in range(0, len(ids), 1_000):
            request_assessments(vm_ids=ids[first : first + 1_000], requested_by=None, is_bulk=True)
        self._wait(lambda: not Operation.objects.open().exists(), 600)
        connection.close()
        result["summaries that differ"] = len(before - set(VirtualMachine.objects.values_list(*columns)))
        result["installed updates that differ"] = len(
            installed ^ set(InstalledPatch.objects.values_list("vm_id", "patch_id"))
        )
        return result

    @staticmethod
    def _wait(is_there: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not is_there():
            if time.monotonic() > deadline:
                raise RuntimeError("waited too long")
            time.sleep(0.5)


MUST_BE_ZERO = (
    "machines without an answer",
    "not in a final state",
    "machines with two installations",
    "starts of no operation",
    "patches installed twice",
    "reboots without a cause",
    "summaries that differ",
    "installed updates that differ",
)


def main() -> None:
    """Run it and print; ends with 1 if an invariant is broken."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--installations", type=int, default=2_000)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=["with", "without"])
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    if options.only is None:  # each in a process of its own: Django is set up once per process
        codes = [
            subprocess.call([sys.executable, "-m", "bench.faults", *sys.argv[1:], "--only", which])
            for which in ("with", "without")
        ]
        raise SystemExit(max(codes))
    is_helpful = options.only == "with"
    result = Campaign(options.installations, options.faults, is_helpful=is_helpful, seed=options.seed).run()
    title = "that can be asked again" if is_helpful else "that cannot be asked again"
    table(
        f"{options.installations} installations, {sum(result['faults'].values())} faults, connectors {title}",
        ["what", "figure"],
        list(result.items()),
    )
    save(f"faults-{options.only}", result)
    broken = [name for name in MUST_BE_ZERO if result[name]]
    if not is_helpful and result["starts sent twice"]:
        broken.append("starts sent twice")
    if broken:
        print("BROKEN: " + ", ".join(broken))
        raise SystemExit(1)
    print("0 lost, 0 doubled, 0 extra reboots")


if __name__ == "__main__":
    main()
