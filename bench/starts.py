"""`python -m bench.starts`: at most one start, at the real scale of time, and a slow connection that holds up no other.

Four workers as `make up` runs them, the lease of 90 s, connectors that need 0.1 s and 5 s for a start, with each capability
that helps to recover one and with none. Installations are asked for all the time while one worker after the other is killed,
whenever it is possible in the middle of a call. What the machines received is read from their own ledger, not from what the
portal believes. Then the rate of a fast connection is measured alone, beside a slow one with 1,000 waiting, and alone again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench.imports import killable
from bench.machine import OUT, children, manage, process, save, servers, table
from bench.operations import workers
from bench.sluggish import KIND

WORKERS = 4
CAPABILITIES = {"": "none", "find_by_request": "FIND_BY_REQUEST", "idempotent_start": "IDEMPOTENT_START"}
# Seconds a start takes, and how many are asked for in each wave.
PACES = {0.1: 20, 5.0: 5}
WAVE_SECONDS = 10.0
KILL_SECONDS = (6.0, 14.0)  # between two kills
SETTLE_SECONDS = 420.0  # leases end, recoveries are recovered, installations end
QUEUED_SLOW = 1_000
LEAST_SHARE = 0.8  # of its rate alone
WAITING_FAST = 3_000  # the fast connection never runs out of what is to be started


class Machines:
    """Machines that nobody has asked for anything yet."""

    def __init__(self) -> None:
        from vms.models import VirtualMachine

        self._left = iter(VirtualMachine.objects.order_by("pk").values_list("pk", flat=True))

    def install(self, connection: int, count: int) -> None:
        """Put so many of them behind this connection, and ask for an installation on each."""
        from patching.terms import Classification, InstallationPlan
        from updates.services.operations import request_installations
        from vms.models import VirtualMachine

        ids = [pk for pk, _number in zip(self._left, range(count), strict=False)]
        if len(ids) < count:
            raise RuntimeError("there are too few machines")
        VirtualMachine.objects.filter(pk__in=ids).update(connection=connection)
        plan = InstallationPlan(classifications=frozenset(Classification))
        request_installations(vm_ids=ids, plan=plan, requested_by=None, is_bulk=True)


class Ledger:
    """What the machines wrote down."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        self.deeds: list[dict[str, Any]] = []
        self._at = 0

    def read(self) -> list[dict[str, Any]]:
        """All of it; what was read before is not read again."""
        with self.path.open("rb") as file:
            file.seek(self._at)
            whole, _newline, _rest = file.read().rpartition(b"\n")
        if whole:
            self._at += len(whole) + 1
            self.deeds += map(json.loads, whole.splitlines())
        return self.deeds

    def calls_under_way(self) -> dict[str, int]:
        """Requests whose call has begun and not ended, and the process that makes it."""
        open_calls: dict[str, int] = {}
        for deed in self.read():
            if deed["what"] == "begun":
                open_calls[deed["request"]] = deed["pid"]
            elif deed["what"] == "answered":
                open_calls.pop(deed["request"], None)
        return open_calls


class Portal:
    """Four workers that may be killed, and the clock that wakes them."""

    def __init__(self, environment: dict[str, str], ledger: Ledger, seed: int) -> None:
        self._ledger, self._dice = ledger, random.Random(seed)
        self._stack = ExitStack()
        bulk, beat = workers(environment, 1)[1:]
        self._commands = [
            (bulk[0], tuple(f"bulk{number}@%h" if word == "bulk@%h" else word for word in bulk[1]))
            for number in range(WORKERS)
        ]
        self._workers = [ExitStack() for _number in range(WORKERS)]
        self.pids = [0] * WORKERS
        for number in range(WORKERS):
            self._start(number)
        self._stack.enter_context(process(beat[0], *beat[1]))
        self.kills = self.cut = 0

    def _start(self, number: int) -> None:
        environment, command = self._commands[number]
        self.pids[number] = self._workers[number].enter_context(killable(environment, *command)).pid

    def kill_one(self) -> None:
        """Kill -9 a worker with all of its processes, one in the middle of a call if there is one; start it anew."""
        making = set(self._ledger.calls_under_way().values())
        busy = [number for number, pid in enumerate(self.pids) if making & set(children(pid))]
        number = self._dice.choice(busy or range(WORKERS))
        mine = set(children(self.pids[number]))
        self._workers[number].close()
        self.kills += 1
        self.cut += sum(pid in mine for pid in self._ledger.calls_under_way().values())
        self._start(number)

    def close(self) -> None:
        """Stop everything."""
        for worker in self._workers:
            worker.close()
        self._stack.close()


@contextmanager
def portal(environment: dict[str, str], ledger: Ledger, seed: int) -> Iterator[Portal]:
    """The workers, until the end."""
    running = Portal(environment, ledger, seed)
    try:
        yield running
    finally:
        running.close()


def connect(name: str, **config: Any) -> int:
    """A connection of this configuration with room for everything."""
    from vms.models import Connection

    config["name"] = name
    return Connection.objects.create(name=name, kind=KIND, platform="azure", config=config, max_in_flight=200_000).pk


def wait(is_so: Callable[[], bool], seconds: float) -> bool:
    """Wait until it is so; False: it was not in time."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


# --- at most one start -----------------------------------------------------------------------------------------------


def campaign(running: Portal, machines: Machines, ledger: Ledger, seconds: float) -> dict[str, dict[str, Any]]:
    """Ask, kill, and judge what came of it, for each kind of connector."""
    from updates.models import Operation

    connections = {
        (capability, pace): connect(f"{words}, {pace:g} s", start_seconds=pace, capability=capability)
        for capability, words in CAPABILITIES.items()
        for pace in PACES
    }
    dice = random.Random(1)
    ends_at = time.monotonic() + seconds
    next_kill = time.monotonic() + 20  # whoever starts needs a while
    while time.monotonic() < ends_at:
        wave = time.monotonic()
        for (_capability, pace), pk in connections.items():
            machines.install(pk, PACES[pace])
        while time.monotonic() < wave + WAVE_SECONDS:
            if time.monotonic() >= next_kill:
                running.kill_one()
                next_kill = time.monotonic() + dice.uniform(*KILL_SECONDS)
            time.sleep(0.05)
    print(f"   {running.kills} kills, {running.cut} calls cut; now everything comes to its end", flush=True)
    wait(lambda: not Operation.objects.open().exists(), SETTLE_SECONDS)
    deeds = ledger.read()
    return {name: judge(pk, deeds) for name, pk in _by_name(connections).items()}


def _by_name(connections: dict[tuple[str, float], int]) -> dict[str, int]:
    return {f"{CAPABILITIES[capability]}, {pace:g} s": pk for (capability, pace), pk in connections.items()}


MUST_BE_ZERO = ("doubled", "disowned", "sent after being reported", "starts of no operation", "not in a final state")


def judge(connection: int, deeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The machines' ledger against what the portal says, for the installations of one connection."""
    from patching.lifecycle import TERMINAL
    from updates.models import Operation
    from vms.models import Connection

    row = Connection.objects.get(pk=connection)
    name, is_known_again = row.config["name"], row.config["capability"] == "idempotent_start"
    mine = [deed for deed in deeds if deed["connection"] == name and deed["kind"] == "installation"]
    received: dict[str, list[float]] = defaultdict(list)
    for deed in mine:
        if deed["what"] == "received":
            received[deed["request"]].append(deed["at"])
    columns = ("pk", "state", "error_code", "finished_at")
    ended = {
        str(pk): (state, code, finished_at)
        for pk, state, code, finished_at in Operation.objects.filter(
            connection=connection, kind="installation"
        ).values_list(*columns)
    }
    unconfirmed = {pk for pk, (_state, code, _at) in ended.items() if code == "start.unconfirmed"}
    # Our machines refuse nothing: whoever received a start carries it out.
    disowned = {
        pk
        for pk, (state, _code, _at) in ended.items()
        if pk in received and pk not in unconfirmed and state in {"queued", "cancelled", "failed"}
    }
    last = {pk: max(deed["at"] for deed in mine if deed["request"] == pk) for pk in unconfirmed & received.keys()}
    late = {
        pk
        for pk, times in received.items()
        if pk in ended and ended[pk][2] is not None and max(times) > ended[pk][2].timestamp()
    }
    late |= {pk for pk, at in last.items() if ended[pk][2] is not None and at > ended[pk][2].timestamp()}
    again = sum(len(times) > 1 for times in received.values())
    return {
        "installations asked for": len(ended),
        "starts that machines received": sum(map(len, received.values())),
        "calls begun": sum(deed["what"] == "begun" for deed in mine),
        "sent again to a machine that knows the request": again if is_known_again else 0,
        "ended: start.unconfirmed": len(unconfirmed),
        "of these the machine had received": len(unconfirmed & received.keys()),
        "of these no call had begun": len(unconfirmed - {deed["request"] for deed in mine}),
        **{f"ended: {state}": count for state, count in sorted(Counter(s for s, _c, _a in ended.values()).items())},
        "doubled": 0 if is_known_again else again,
        "disowned": len(disowned),
        "sent after being reported": len(late),
        "starts of no operation": len(received.keys() - ended.keys()),
        "not in a final state": sum(state not in {end.value for end in TERMINAL} for state, _c, _a in ended.values()),
    }


# --- a slow connection beside a fast one -----------------------------------------------------------------------------


def rates(machines: Machines, ledger: Ledger, seconds: float) -> dict[str, float]:
    """Starts a second of the fast connection: alone, beside a slow one with 1,000 waiting, and alone again."""
    from django.utils import timezone

    from updates.models import Operation
    from vms.models import Connection

    fast = connect("fast", start_seconds=0.1, is_endless=True)
    waiting = Operation.objects.filter(connection=fast, state__in=["queued", "starting"])

    def measured(length: float) -> float:
        began = time.time()
        while time.time() < began + length:
            if waiting.count() < WAITING_FAST:
                machines.install(fast, 1_000)
            time.sleep(1)
        ended = time.time()
        count = sum(
            deed["connection"] == "fast" and deed["what"] == "received" and began <= deed["at"] < ended
            for deed in ledger.read()
        )
        return float(count / (ended - began))

    machines.install(fast, WAITING_FAST)
    measured(20)  # until its pace is known
    found = {"alone before": measured(seconds / 3)}
    slow = connect("slow", start_seconds=5.0, is_endless=True)
    machines.install(slow, QUEUED_SLOW)
    found["beside a slow one"] = measured(seconds)
    found["waiting of the slow one at the end"] = Operation.objects.filter(connection=slow, state="queued").count()
    found["starts of the slow one meanwhile"] = Operation.objects.filter(connection=slow, state="in_progress").count()
    Connection.objects.filter(pk=slow).update(paused_until=timezone.now() + timedelta(hours=1))
    measured(20)  # until its calls are over
    found["alone after"] = measured(seconds / 3)
    alone = (found["alone before"] + found["alone after"]) / 2
    found["share of its rate alone"] = found["beside a slow one"] / alone if alone else 0.0
    return found


def main() -> None:
    """Run both and print; ends with 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=180, help="how long workers are killed")
    parser.add_argument("--rate-seconds", type=float, default=180, help="how long the slow connection is beside")
    parser.add_argument("--vms", type=int, default=30_000)
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    began = time.monotonic()
    with servers() as environment:
        environment["BENCH_STARTS"] = str(Path(environment["PORTAL_DIR"]) / "ledger")
        os.environ.update(environment)
        manage(environment, "migrate", "-v", "0")
        print(manage(environment, "seed_fleet", "--vms", str(options.vms)).splitlines()[-1], flush=True)
        import django

        django.setup()
        from django.conf import settings

        from vms.models import VirtualMachine

        VirtualMachine.objects.update(power_state="running")
        ledger, machines = Ledger(Path(environment["BENCH_STARTS"])), Machines()
        with portal(environment, ledger, seed=1) as running:
            judged = campaign(running, machines, ledger, options.seconds)
            figures = sorted({name for figure in judged.values() for name in figure}, key=_order)
            table(
                f"{WORKERS} workers, {running.kills} kills that cut {running.cut} calls; lease"
                f" {settings.OPERATION_LEASE_SECONDS} s",
                ["what", *judged],
                [[name, *(figure.get(name, 0) for figure in judged.values())] for name in figures],
            )
            found = rates(machines, ledger, options.rate_seconds)
    table("Starts a second of a connection that needs 0.1 s for each", ["when", "figure"], list(found.items()))
    save(
        "starts",
        {"kills": running.kills, "calls_cut": running.cut, "campaign": judged, "rates": found},
    )
    print(f"{(time.monotonic() - began) / 60:.1f} minutes")
    broken = [f"{name} ({which})" for which, figure in judged.items() for name in MUST_BE_ZERO if figure[name]]
    if not running.cut:
        broken.append("no kill cut a call: nothing was proven")
    if found["share of its rate alone"] < LEAST_SHARE:
        broken.append("a slow connection holds up a fast one")
    if broken:
        print("BROKEN: " + ", ".join(broken))
        raise SystemExit(1)
    print("0 doubled, 0 disowned, 0 sent after being reported")


def _order(name: str) -> tuple[bool, str]:
    return name in MUST_BE_ZERO, name


if __name__ == "__main__":
    main()
