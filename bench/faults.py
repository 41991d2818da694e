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
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.machine import OUT, ROOT, children, free_port, manage, save, table

PATIENCE_SECONDS = 60.0  # how long a fault waits for something to befall
APART_SECONDS = 40.0  # on average between two faults of one kind; some of them take 30 s
WORKER, BEAT = "celery -A hotpatch_portal --quiet worker", "celery -A hotpatch_portal --quiet beat"
# The database's clock is the only one that operations are measured by. This one can be stepped.
STEPPING_CLOCK = """
CREATE SCHEMA stepping;
CREATE TABLE stepping.clock (seconds double precision NOT NULL);
INSERT INTO stepping.clock VALUES (0);
CREATE FUNCTION stepping.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    'SELECT pg_catalog.clock_timestamp() + make_interval(secs => (SELECT seconds FROM stepping.clock))';
ALTER DATABASE {database} SET search_path = stepping, pg_catalog, public;
"""


def children_of(pid: int) -> set[int]:
    """Its children, without theirs."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return {int(word) for word in text.split()}


class Campaign:
    """One portal, its installations, and the faults that befall it."""

    def __init__(self, installations: int, of_each: int, *, is_helpful: bool, seed: int) -> None:
        self.installations, self.of_each, self.is_helpful = installations, of_each, is_helpful
        self.dice = random.Random(seed)
        self.directory = Path(tempfile.mkdtemp(prefix="hp-faults-"))
        self.directory.chmod(0o755)
        self.ledger = self.directory / "ledger"
        self.clock = self.directory / "clock"
        self.done: Counter[str] = Counter()
        self.idle = 0  # faults that came when every installation had been started

    def run(self) -> dict[str, Any]:
        """Everything, and what came of it."""
        self.clock.write_text("0")
        self.ledger.touch()
        self.ledger.with_suffix(".calm").touch()
        environment = os.environ | {
            "PORT": str(free_port()),
            "PORTAL_DIR": str(self.directory / "portal"),
            "DEMO": "0",
            "DJANGO_SETTINGS_MODULE": "bench.settings",
            "BENCH_LEDGER": str(self.ledger),
            "BENCH_CLOCK": str(self.clock),
            "BENCH_UNHELPFUL": "" if self.is_helpful else "1",
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
            self.environment = environment | json.loads(access.read_text()) | {"BENCH_CLOCK": ""}
            return self._campaign()
        finally:
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
        from django.db import connection as django_connection

        from patching.terms import Classification, InstallationPlan, OperationKind
        from updates.models import BulkRequest, Operation
        from updates.services.bulk import request_bulk
        from vms.models import Connection, VirtualMachine

        self._sql(STEPPING_CLOCK.format(database=self._database))
        self._cut()
        django_connection.close()
        Connection.objects.update(max_in_flight=5)
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
        self.ledger.with_suffix(".calm").unlink()
        self._befall()

        def is_over() -> bool:
            try:
                return (
                    not BulkRequest.objects.filter(is_handed_out=False).exists()
                    and not Operation.objects.open().exists()
                )
            except Exception:
                django_connection.close()
                return False

        self._wait(is_over, 1_200)
        return self._judge(ids, pk, time.monotonic() - began)

    def _befall(self) -> None:
        """Every kind so many times at random moments of one stretch, one upon the other; only its own kind waits.

        Installations are let in as the faults are: neither are over before the others.
        """
        kinds = [
            threading.Thread(target=self._befall_kind, args=(kind, fault, self.dice.random()), daemon=True)
            for kind, fault in self._faults().items()
        ]
        for thread in kinds:
            thread.start()
        while any(thread.is_alive() for thread in kinds):
            is_ahead = self._started() * len(kinds) * self.of_each > self.installations * self.done.total()
            self._let_in(5 if is_ahead else max(5, self.installations // 10))
            time.sleep(2)
        self._let_in(max(5, self.installations // 4))

    def _befall_kind(self, kind: str, fault: Callable[[], object], seed: float) -> None:
        dice = random.Random(seed)
        began = time.monotonic()
        for moment in sorted(dice.uniform(0, self.of_each * APART_SECONDS) for _ in range(self.of_each)):
            time.sleep(max(0.0, began + moment - time.monotonic()))
            self.idle += self._started() >= self.installations
            self._befall_one(kind, fault)
        while self.done[kind] < self.of_each:  # what it was to hit was down all the time
            self._befall_one(kind, fault)

    def _started(self) -> int:
        """How many of the installations have arrived at their machines."""
        lines = self.ledger.read_text().splitlines()
        return len({deed["request"] for line in lines if (deed := json.loads(line))["kind"] == "installation"})

    def _let_in(self, count: int) -> None:
        self._sql(f"UPDATE vms_connection SET max_in_flight = {count} WHERE max_in_flight <> {count}")

    def _befall_one(self, kind: str, fault: Callable[[], object]) -> None:
        """One fault; what it hits may be down already, then it waits until it is back."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                fault()
            except Exception as error:
                if time.monotonic() > deadline:
                    print(f"  {kind}: {error!r}"[:200], flush=True)
                    return
                time.sleep(0.2)
            else:
                self.done[kind] += 1
                return

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

    @property
    def _database(self) -> str:
        return self.environment["DATABASE_URL"].partition("?")[0].rpartition("/")[2]

    def _sql(self, statement: str) -> None:
        """Carry it out, also if the database is away for a while."""
        import psycopg

        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                with psycopg.connect(self.environment["DATABASE_URL"], autocommit=True) as connection:
                    connection.execute("SET statement_timeout = 0")
                    connection.execute(statement.encode())
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _redis(self) -> Any:
        import redis

        url = self.environment["REDIS_URL"].replace("redis+socket://", "unix://")
        return redis.Redis.from_url(url, socket_timeout=5)

    def _stop_for(self, word: str, seconds: float) -> None:
        pid = self.dice.choice(self._pids(word))
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        with suppress(ProcessLookupError):  # a supervisor may have lost patience with it
            os.kill(pid, signal.SIGCONT)

    def _two_beats(self) -> None:
        command = (
            "celery",
            "-A",
            "hotpatch_portal",
            "--quiet",
            "beat",
            "-s",
            str(self.directory / "beat2"),
            "--pidfile=",
        )
        second = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(8)
        second.kill()
        second.wait()

    def _statement_timeout(self) -> None:
        self._sql(f"ALTER DATABASE {self._database} SET statement_timeout = '30ms'")
        self._cut()
        time.sleep(4)
        self._sql(f"ALTER DATABASE {self._database} RESET statement_timeout")
        self._cut()

    def _cut(self) -> None:
        self._sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

    def _restart_postgres(self) -> None:
        """At once, with or without time to write its checkpoint: the second is a crash."""
        (postmaster,) = [pid for pid in self._pids("bin/postgres") if pid in children_of(self.portal.pid)]
        os.kill(postmaster, self.dice.choice([signal.SIGINT, signal.SIGQUIT]))

    def _restart_redis_empty(self) -> None:
        self._redis().flushall()
        self._kill("redis-server")

    def _step_clocks(self) -> None:
        """The database's clock and the processes' clocks jump, each by itself: leases end before their time, or late."""
        self._sql(f"UPDATE stepping.clock SET seconds = {self.dice.uniform(-90, 90)}")
        self.clock.write_text(str(self.dice.uniform(-45, 45)))
        time.sleep(3)

    def _full_queue(self) -> None:
        from updates.tasks import sweep

        with sweep.app.producer_pool.acquire(timeout=10) as producer:
            for number in range(3_000):
                queue = ("bulk", "interactive")[number % 2]
                sweep.apply_async(queue=queue, producer=producer, kwargs={"lanes": "interactive"}, retry=False)

    def _faults(self) -> dict[str, Callable[[], object]]:
        return {
            "kill -9 worker": lambda: self._kill(WORKER),
            "kill -9 beat": lambda: self._kill(BEAT),
            "kill -9 web": lambda: self._kill("stack.web"),
            "frozen worker": lambda: self._stop_for(WORKER, 30),
            "two beats": self._two_beats,
            "Redis flushed": lambda: self._redis().flushall(),
            "Redis stopped for 30 s": lambda: self._stop_for("redis-server", 30),
            "Redis restarted empty": self._restart_redis_empty,
            "PostgreSQL restarted": self._restart_postgres,
            "connections cut": self._cut,
            "statement timeout": self._statement_timeout,
            "clocks step": self._step_clocks,
            "full queue": self._full_queue,
        }

    # --- what came of it

    def _judge(self, ids: list[int], pk: uuid.UUID, seconds: float) -> dict[str, Any]:
        from django.db import connection
        from django.db.models import Count

        from patching.lifecycle import TERMINAL
        from updates.models import BulkOutcome, InstalledPatch, Operation, PatchResult
        from updates.services.operations import request_assessments
        from vms.models import VirtualMachine

        self.ledger.with_suffix(".calm").touch()
        self._sql("UPDATE stepping.clock SET seconds = 0")
        self.clock.write_text("0")
        deeds = [json.loads(line) for line in self.ledger.read_text().splitlines()]
        starts = [deed for deed in deeds if deed["kind"] == "installation"]
        # A machine that knows a request again does nothing the second time; one that does not does it twice.
        runs = list({deed["request"]: deed for deed in starts}.values()) if self.is_helpful else starts
        by_vm: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for deed in runs:
            by_vm[deed["vm"]].append(deed)
        patches = Counter((deed["vm"], key) for deed in runs for key in deed["patches"])
        operations = Operation.objects.filter(kind="installation")
        ended = {str(key): code for key, code in operations.values_list("pk", "error_code")}
        told: dict[str, set[str]] = defaultdict(set)
        for row in PatchResult.objects.filter(state="Installed").select_related("patch"):
            told[str(row.operation_id)].add(row.patch.key)
        unconfirmed = {key for key, code in ended.items() if code == "start.unconfirmed"}
        did = {deed["request"]: set(deed["patches"]) for deed in runs}
        troubles = self.ledger.with_suffix(".trouble")
        result: dict[str, Any] = {
            "seconds": seconds,
            **{f"fault: {kind}": count for kind, count in sorted(self.done.items())},
            "faults after the last start had arrived": self.idle,
            **{
                f"connector: {kind}": count
                for kind, count in sorted(Counter(troubles.read_text().split("\n")[:-1]).items())
                if troubles.exists()
            },
            "installations asked for": len(ids),
            "starts that arrived at machines": len(starts),
            **{f"ended: {state}": n for state, n in operations.values_list("state").annotate(n=Count("pk"))},
            "start.unconfirmed (listed, never sent again)": len(unconfirmed),
            "of these the machine had received": len(unconfirmed & did.keys()),
            "machines without an answer": len(ids) - BulkOutcome.objects.filter(request_id=pk).count(),
            "not in a final state": Operation.objects.exclude(state__in=[state.value for state in TERMINAL]).count(),
            "starts of no operation": len(did.keys() - ended.keys()),
            "machines that installed twice": sum(len(deeds) > 1 for deeds in by_vm.values()),
            "patches installed twice on a machine": sum(count > 1 for count in patches.values()),
            "extra reboots": sum(
                sum(deed["reboots"] for deed in deeds) - deeds[0]["reboots"] for deeds in by_vm.values()
            ),
            "reports that differ from what the machine did": sum(
                told[key] != did.get(key, set()) for key in ended.keys() - unconfirmed
            ),
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
    "starts of no operation",
    "machines that installed twice",
    "patches installed twice on a machine",
    "extra reboots",
    "reports that differ from what the machine did",
    "summaries that differ",
    "installed updates that differ",
)


def main() -> None:
    """Run it and print; ends with 1 if an invariant is broken."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--installations", type=int, default=2_000)
    parser.add_argument("--of-each", type=int, default=50, help="how many faults of every kind")
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
    result = Campaign(options.installations, options.of_each, is_helpful=is_helpful, seed=options.seed).run()
    title = "that can be asked again" if is_helpful else "that cannot be asked again"
    table(
        f"{options.installations} installations, {options.of_each} faults of every kind, connectors {title}",
        ["what", "figure"],
        list(result.items()),
    )
    save(f"faults-{options.only}", result)
    broken = [name for name in MUST_BE_ZERO if result[name]]
    if broken:
        print("BROKEN: " + ", ".join(broken))
        raise SystemExit(1)
    print("0 lost, 0 doubled, 0 extra reboots")


if __name__ == "__main__":
    main()
