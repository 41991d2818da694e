"""`python -m bench.two_portals`: a portal that reaches its machines through another one, as it would through Azure.

A has simulated machines and answers as Azure Resource Manager does. B has an Azure connection to A: it lists A's machines,
assesses and patches them, while B's workers and A's web processes are killed. Then A's own record judges: nothing was done
twice, nothing is lost, and what B knows is what A knows.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.machine import OUT, ROOT, children, free_port, manage, save, servers, table

SECRET = "portal_a"
SETTLE_SECONDS = 900.0
# What a portal knows of its machines, by their resource ids; None as the database has it.
KNOWN = """
import json
from vms.models import VirtualMachine
from updates.models import PatchSetMember
sets = {}
for pk, kb, id in PatchSetMember.objects.values_list("patch_set_id", "patch__kb_number", "patch__update_id"):
    sets.setdefault(pk, []).append(kb or id)
rows = VirtualMachine.objects.filter(gone_at=None).values_list(
    "arm_id", "vm_id", "power_state", "patch_mode", "enable_hotpatching", "update_state__os_build",
    "update_state__patch_set_id", "critical_and_security_count", "other_count", "is_reboot_pending")
print("KNOWN", json.dumps({r[0].lower(): [str(r[1]), *r[2:5], r[5] or "", sorted(sets.get(r[6], [])), *r[7:]] for r in rows}, default=str))
"""
COUNT = """
import json
from updates.models import Operation
from vms.models import VirtualMachine
rows = Operation.objects.values_list("kind", "state", "error_code", "vm__arm_id")
print("KNOWN", json.dumps({"machines": VirtualMachine.objects.count(), "operations": [[*r[:3], r[3].lower()] for r in rows]}))
"""
FLEET = """
from vms.choices import ImportDoor
from vms.models import Connection
from vms.services.import_jobs import sync_inventory
one = Connection.objects.create(name="simulated", kind="simulator",
    config={"inventory_size": MACHINES, "clock_factor": 2000.0, "seed": 7}, is_patching_automatically=False)
sync_inventory(connection=one, door=ImportDoor.SCHEDULE)
"""
CONNECT = """
from vms.choices import ImportDoor
from vms.models import Connection
from vms.services.connections import save_connection
from vms.services.import_jobs import sync_inventory
one = Connection(name="portal A", kind="azure", config=CONFIG)
save_connection(connection=one)
sync_inventory(connection=one, door=ImportDoor.SCHEDULE)
"""
ASSESS = """
from updates.services.operations import request_assessments
from vms.models import VirtualMachine
request_assessments(vm_ids=list(VirtualMachine.objects.values_list("pk", flat=True)), requested_by=None, is_bulk=True)
"""
INSTALL = """
from patching.terms import Classification, InstallationPlan
from updates.services.operations import request_installations
from vms.models import VirtualMachine
pks = list(VirtualMachine.objects.order_by("pk").values_list("pk", flat=True)[:MACHINES])
plan = InstallationPlan(classifications=frozenset(Classification))
request_installations(vm_ids=pks, plan=plan, requested_by=None, is_bulk=True)
"""


class Portal:
    """One of the two: its servers are given, the rest is `manage.py portal`."""

    def __init__(self, name: str, environment: dict[str, str], **more: str) -> None:
        self.name, self.port = name, free_port()
        own = {"PORT": str(self.port), "DEMO": "0", "DJANGO_SETTINGS_MODULE": "hotpatch_portal.settings"}
        self.environment = environment | own | more
        self.log = (OUT / f"two_portals_{name}.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "portal"],
            cwd=ROOT,
            env=os.environ | self.environment,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def origin(self) -> str:
        """Where it answers."""
        scheme = "https" if self.environment.get("TLS") else "http"
        return f"{scheme}://127.0.0.1:{self.port}"

    def answers(self) -> bool:
        """Whether it is up; whose certificate it is does not matter here."""
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        with suppress(OSError), urllib.request.urlopen(f"{self.origin}/healthz", context=trusting, timeout=3) as said:
            return bool(said.status == 200)
        return False

    def shell(self, code: str, **values: object) -> Any:
        """Run this code in the portal; the JSON that it prints behind KNOWN."""
        for name, value in values.items():
            code = code.replace(name, repr(value))
        said = manage(self.environment, "shell", "-v", "0", "-c", code)
        line = next((one for one in said.splitlines() if one.startswith("KNOWN ")), "KNOWN null")
        return json.loads(line.removeprefix("KNOWN "))

    def kill(self, word: str) -> int:
        """Kill -9 the processes in whose command this word stands; how many. Its supervisor starts them anew."""
        found = 0
        for pid in children(self.process.pid)[1:]:
            with suppress(OSError):
                if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
                    found += 1
        return found

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.log.close()


@contextmanager
def portal(name: str, environment: dict[str, str], **more: str) -> Iterator[Portal]:
    """A portal that answers, until the end."""
    one = Portal(name, environment, **more)
    try:
        until(one.answers, 240, f"portal {name} answers")
        yield one
    finally:
        one.stop()


def until(is_so: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait until it is so; how long that took. Raises RuntimeError if it takes longer than this."""
    began = time.monotonic()
    while not is_so():
        if time.monotonic() - began > seconds:
            raise RuntimeError(f"not within {seconds:g} s: {what}")
        time.sleep(1.0)
    return time.monotonic() - began


def is_settled(one: Portal) -> bool:
    """Whether every operation has ended."""
    open_states = {"queued", "starting", "in_progress", "rebooting"}
    return not any(state in open_states for _kind, state, *_rest in one.shell(COUNT)["operations"])


def principal(one: Portal) -> dict[str, str]:
    """The account that B signs in with at A: tenant, client id and secret."""
    said = manage(one.environment, "service_principal", "create", "portal-b", "--role", "owner")
    told = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    return {"tenant_id": told["tenant"], "client_id": told["client id"], "secret": told["secret"]}


def settle(b: Portal, a: Portal, kills: int, every: float) -> float:
    """Wait until B has nothing open, and kill something every few seconds, as often as told."""
    began, done = time.monotonic(), 0
    while not is_settled(b):
        if done < kills:
            b.kill("celery") if done % 2 == 0 else a.kill("stack.web")
            done += 1
        if time.monotonic() - began > SETTLE_SECONDS:
            break
        time.sleep(every)
    return time.monotonic() - began


def compare(a: Portal, b: Portal) -> dict[str, int]:
    """How many machines B does not have, has beside, or knows something else of."""
    at_a, at_b = a.shell(KNOWN), b.shell(KNOWN)
    different = [arm_id for arm_id in at_a.keys() & at_b.keys() if at_a[arm_id] != at_b[arm_id]]
    for arm_id in different[:3]:
        print(f"   {arm_id}\n     A {at_a[arm_id]}\n     B {at_b[arm_id]}", flush=True)
    return {
        "machines at A": len(at_a),
        "not at B": len(at_a.keys() - at_b.keys()),
        "only at B": len(at_b.keys() - at_a.keys()),
        "different": len(different),
    }


def judge(a: Portal, b: Portal) -> dict[str, int]:
    """What A's record says of what B asked for."""
    at_a = Counter(arm_id for kind, _state, _code, arm_id in a.shell(COUNT)["operations"] if kind == "installation")
    own = [row for row in b.shell(COUNT)["operations"] if row[0] == "installation"]
    ends = Counter(f"{state} {code}".strip() for _kind, state, code, _arm_id in own)
    good = {arm_id for _kind, state, _code, arm_id in own if state in {"succeeded", "completed_with_warnings"}}
    return {
        "installations at B": len(own),
        "installations at A": sum(at_a.values()),
        "doubled at A": sum(count - 1 for count in at_a.values() if count > 1),
        "reported and not done": len(good - at_a.keys()),
        "not in a final state": sum(count for end, count in ends.items() if end.split()[0] in {"queued", "starting"}),
        **{f"ended as {end}": count for end, count in sorted(ends.items())},
    }


def main() -> None:
    """Do it, and exit with 1 where anything was doubled or lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=int, default=2_000)
    parser.add_argument("--installations", type=int, default=400)
    parser.add_argument("--kills", type=int, default=6)
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    with servers() as first, servers() as second, portal("a", first, TLS="1", ARM_LIMIT_FACTOR="10000") as a:
        account = principal(a)
        a.shell(FLEET, MACHINES=options.machines)
        until(lambda: a.shell(COUNT)["machines"] == options.machines, 300, "A has its machines")
        config = {
            "credential": "client_secret",
            "tenant_id": account["tenant_id"],
            "client_id": account["client_id"],
            "secret": SECRET,
            "endpoint": a.origin,
            "authority": a.origin,
            "ca_bundle": str(Path(first["PORTAL_DIR"]) / "tls" / "certificate.pem"),
        }
        with portal("b", second, **{f"PORTAL_SECRET_{SECRET.upper()}": account["secret"]}) as b:
            figures = measure(a, b, config, options)
    table("Two portals", ["what", "figure"], list(figures.items()))
    save("two_portals", figures)
    bad = ("not at B", "only at B", "different", "doubled at A", "reported and not done", "not in a final state")
    failed = [name for name in bad if figures[name]]
    if failed:
        sys.exit(f"FAILED: {', '.join(failed)}")


def measure(a: Portal, b: Portal, config: dict[str, str], options: argparse.Namespace) -> dict[str, Any]:
    """List, assess, install, compare."""
    figures: dict[str, Any] = {}
    b.shell(CONNECT, CONFIG=config)
    listed = until(lambda: b.shell(COUNT)["machines"] >= options.machines, 600, "B has A's machines")
    figures["seconds to list"] = listed
    b.shell(ASSESS)
    figures["seconds to assess"] = settle(b, a, options.kills, 5.0)
    figures |= compare(a, b)
    b.shell(INSTALL, MACHINES=options.installations)
    figures["seconds to install"] = settle(b, a, options.kills, 5.0)
    figures |= judge(a, b)
    b.shell(ASSESS)
    figures["seconds to assess again"] = settle(b, a, 0, 2.0)
    return figures | {f"{name}, after": count for name, count in compare(a, b).items()}


if __name__ == "__main__":
    main()
