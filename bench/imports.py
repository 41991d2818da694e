"""`python -m bench.imports --rows 1000000 --discover 100000`: an inventory of so many machines, and what it costs.

The file is uploaded as a browser does, the bulk worker is killed twice (once while the file is read, once while machines are
written, where no machine may be half), the job's page is read all the time for how far it is, and the private memory (USS) of
every process of the portal is looked at once a second. At the end every machine is compared with its row, and its history says
how often it was written. Then a simulator that lists machines by itself is synced.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import psycopg

from bench.machine import OUT, ROOT, children, free_port, manage, process, save, servers, table
from bench.operations import workers
from bench.pages import wait_for

MOST_MB = 250.0  # private memory of one process
SIZES = ("Standard_D2s_v5", "Standard_D4s_v5", "Standard_E8s_v5")
PREPARE = """
import json
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from vms.models import Connection, RoleAssignment
user = User.objects.create(username="importer")
RoleAssignment.objects.create(user=user, role="owner", scope="everything")
session = import_module(settings.SESSION_ENGINE).SessionStore()
session[SESSION_KEY], session[BACKEND_SESSION_KEY] = str(user.pk), settings.AUTHENTICATION_BACKENDS[0]
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.save()
connection = Connection.objects.create(name="Imported", kind="simulator", platform="azure")
lists = Connection.objects.create(name="Lists", kind="simulator", platform="azure", config={"inventory_size": DISCOVER})
print("RESULT " + json.dumps({"cookie": session.session_key, "connection": connection.pk, "lists": lists.pk}))
"""


def machine(number: int) -> dict[str, Any]:
    """The machine of this number, as `az vm list -d` prints it."""
    name = f"imp-{number:07d}"
    group = f"rg-imp-{number // 1000:04d}"
    return {
        "id": (
            f"/subscriptions/00000000-0000-4000-8000-{number // 100_000:012d}/resourceGroups/{group}"
            f"/providers/Microsoft.Compute/virtualMachines/{name}"
        ),
        "name": name,
        "type": "Microsoft.Compute/virtualMachines",
        "location": "japaneast",
        "resourceGroup": group,
        "tags": {"env": "prod", "number": str(number)},
        "vmId": str(uuid5(NAMESPACE_URL, name)),
        "powerState": "VM running",
        "provisioningState": "Succeeded",
        "licenseType": None,
        "zones": [str(number % 3 + 1)],
        "hardwareProfile": {"vmSize": SIZES[number % len(SIZES)]},
        "networkProfile": {"networkInterfaces": [{"id": f"/nic/{name}", "primary": True}]},
        "storageProfile": {
            "imageReference": {
                "publisher": "MicrosoftWindowsServer",
                "offer": "WindowsServer",
                "sku": "2022-datacenter-azure-edition-core",
                "version": "latest",
            },
            "osDisk": {"osType": "Windows", "name": f"{name}-os", "diskSizeGb": 127},
            "dataDisks": [],
        },
        "osProfile": {
            "computerName": name,
            "windowsConfiguration": {
                "provisionVmAgent": True,
                "enableAutomaticUpdates": True,
                "patchSettings": {"patchMode": "AutomaticByPlatform", "enableHotpatching": True},
            },
        },
    }


def make_file(path: Path, rows: int) -> None:
    """An inventory of so many machines."""
    with path.open("w") as file:
        file.write("[")
        for number in range(rows):
            file.write(f"{',' if number else ''}\n{json.dumps(machine(number))}")
        file.write("\n]\n")


def upload(port: int, cookie: str, connection: int, path: Path) -> str:
    """Send the file as a browser's form does; the address of its job."""
    token, border = secrets.token_hex(16), secrets.token_hex(16)
    fields = {"csrfmiddlewaretoken": token, "connection": str(connection)}
    head = "".join(
        f'--{border}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    head += (
        f'--{border}\r\nContent-Disposition: form-data; name="file"; filename="{path.name}"\r\n'
        "Content-Type: application/json\r\n\r\n"
    )
    tail = f"\r\n--{border}--\r\n"
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=1800)
    client.putrequest("POST", "/virtual-machines/import/")
    client.putheader("Cookie", f"sessionid={cookie}; csrftoken={token}")
    client.putheader("Content-Type", f"multipart/form-data; boundary={border}")
    client.putheader("Content-Length", str(len(head) + path.stat().st_size + len(tail)))
    client.endheaders()
    client.send(head.encode())
    with path.open("rb") as file:
        while piece := file.read(1024 * 1024):
            client.send(piece)
    client.send(tail.encode())
    answer = client.getresponse()
    answer.read()
    if answer.status != 302:
        raise RuntimeError(f"the upload was answered {answer.status}")
    return str(answer.headers["Location"])


def sync(port: int, cookie: str, connection: int) -> None:
    """Press "Sync now"."""
    token = secrets.token_hex(16)
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Cookie": f"sessionid={cookie}; csrftoken={token}", "Content-Type": "application/x-www-form-urlencoded"}
    client.request(
        "POST", f"/virtual-machines/import/connections/{connection}/", f"csrfmiddlewaretoken={token}", headers
    )
    if (answer := client.getresponse()).status != 302:
        raise RuntimeError(f"the sync was answered {answer.status}")


def private_mb(pid: int) -> float:
    """The private memory (USS) of one process, in MB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


class Sampler(threading.Thread):
    """The largest private memory of each process, by the name of its tree."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.trees: dict[int, str] = {}
        self.largest: dict[str, float] = {}
        self.is_over = False

    def run(self) -> None:
        """Look once a second."""
        while not self.is_over:
            for root, name in list(self.trees.items()):
                for pid in children(root):
                    self.largest[name] = max(self.largest.get(name, 0.0), private_mb(pid))
            time.sleep(1)


@contextlib.contextmanager
def killable(environment: dict[str, str], *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, so that all of it can be killed at once."""
    child = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=(OUT / "stderr.log").open("ab"),
        start_new_session=True,
    )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


STATE = "SELECT phase, row_count, done_count, error_code, counts FROM vms_importjob ORDER BY created_at DESC LIMIT 1"


def follow(database: psycopg.Connection[Any], *, until: Any, told: Progress | None = None) -> tuple[Any, ...]:
    """Look at the newest job until this holds for it, or it is over; meanwhile its page is read."""
    shown = 0.0
    while True:
        row = database.execute(STATE).fetchone()
        if row is not None and (until(*row[:3]) or row[0] in {"succeeded", "failed", "stopped", "tried"}):
            return row
        if told is not None and time.monotonic() - told.read_at > 5:
            told.read()
        if time.monotonic() - shown > 60:
            shown = time.monotonic()
            print("  ", time.strftime("%H:%M:%S"), row and row[:3], told.said[-1:] if told else "", flush=True)
        time.sleep(0.25)


class Progress:
    """What the job's page said of how far it is, as often as it was read; each new sentence is kept once."""

    def __init__(self, port: int, cookie: str, address: str) -> None:
        self.port, self.cookie, self.address = port, cookie, address
        self.said: list[str] = []
        self.seconds: list[float] = []
        self.read_at = 0.0

    def read(self) -> None:
        """Read the page once."""
        self.read_at = began = time.monotonic()
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        client.request("GET", self.address, headers={"Cookie": f"sessionid={self.cookie}", "Accept-Language": "en"})
        answer = client.getresponse()
        found = re.search(r'id="import-done">([^<]*)<', answer.read().decode())
        self.seconds.append(time.monotonic() - began)
        sentence = f"{answer.status}" if found is None else found[1].strip()
        if sentence not in self.said[-1:]:
            self.said.append(sentence)


# A machine is written whole: with what was said of it and one line of its history, and its row counts as done.
HALVES = """
SELECT count(*) FILTER (WHERE document.vm_id IS NULL OR event.pgh_obj_id IS NULL),
    count(*) - (SELECT done_count FROM vms_importjob ORDER BY created_at DESC LIMIT 1)
FROM vms_virtualmachine vm LEFT JOIN vms_machinedocument document ON document.vm_id = vm.id
LEFT JOIN (SELECT DISTINCT pgh_obj_id FROM vms_factsevent) event ON event.pgh_obj_id = vm.id"""


def halves(database: psycopg.Connection[Any]) -> list[str]:
    """What a killed worker left half: machines that lack a part, and machines whose rows do not count as done."""
    row = database.execute(HALVES).fetchone()
    assert row is not None
    return [] if row == (0, 0) else [f"after the kill {row[0]} machines were half, {row[1]} more than rows done"]


def differences(database: psycopg.Connection[Any], rows: int) -> list[str]:
    """What is not as the file has it, machine by machine."""
    wrong = []
    query = """
        SELECT vm.name, vm.vm_id::text, vm.vm_size, vm.tags ->> 'number', vm.zones ->> 0, vm.hotpatch_status,
            document.document ->> 'name', (SELECT count(*) FROM vms_factsevent event WHERE event.pgh_obj_id = vm.id)
        FROM vms_virtualmachine vm LEFT JOIN vms_machinedocument document ON document.vm_id = vm.id
        ORDER BY vm.name"""
    found = 0
    with database.transaction(), database.cursor(name="machines") as cursor:
        for row in cursor.execute(query):
            expected = machine(found)
            size, number = expected["hardwareProfile"]["vmSize"], expected["tags"]["number"]
            should_be = (
                *(expected["name"], expected["vmId"], size, number, expected["zones"][0]),
                *("PendingEvaluation", expected["name"], 1),
            )
            if row != should_be:
                wrong.append(f"{row} is not {should_be}")
            found += 1
    if found != rows:
        wrong.append(f"{found} machines, not {rows}")
    return wrong


def main() -> None:
    """Import, kill twice, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--discover", type=int, default=0, help="machines that a simulator lists by itself")
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    with ExitStack() as stack:
        environment = stack.enter_context(servers())
        manage(environment, "migrate", "-v", "0")
        manage(environment, "collectstatic", "--noinput", "-v", "0")
        said = manage(environment, "shell", "-v", "0", "-c", PREPARE.replace("DISCOVER", str(options.discover)))
        known = json.loads(next(line for line in said.splitlines() if line.startswith("RESULT "))[7:])
        path = Path(environment["PORTAL_DIR"]) / "fleet.json"
        make_file(path, options.rows)
        port, sampler = free_port(), Sampler()
        web = stack.enter_context(
            process(environment, *("hotpatch_portal.stack.web", "--port", str(port), "--processes", "2"))
        )
        wait_for(port)
        (interactive, bulk, beat) = workers(environment, 1)
        sampler.trees[web.pid] = "web"
        sampler.trees[stack.enter_context(process(interactive[0], *interactive[1])).pid] = "interactive worker"
        sampler.trees[stack.enter_context(process(beat[0], *beat[1])).pid] = "beat"
        sampler.start()
        database = stack.enter_context(psycopg.connect(environment["DATABASE_URL"], autocommit=True))
        bulk_worker = ExitStack()
        stack.callback(bulk_worker.close)

        def start_bulk_worker() -> None:
            child = bulk_worker.enter_context(killable(bulk[0], *bulk[1]))
            sampler.trees[child.pid] = "bulk worker"

        start_bulk_worker()
        began = time.perf_counter()
        told = Progress(port, known["cookie"], upload(port, known["cookie"], known["connection"], path))
        uploaded = time.perf_counter()
        wrong: list[str] = []
        kept: dict[str, int] = {}
        if options.kills:
            follow(
                database, until=lambda phase, read, _done: phase == "writing" or read > options.rows * 0.3, told=told
            )
            bulk_worker.close()
            kept["rows read when killed"] = follow(database, until=lambda *_: True)[1]
            start_bulk_worker()
            follow(
                database, until=lambda phase, read, _done: phase == "writing" or read > options.rows * 0.3, told=told
            )
        follow(database, until=lambda phase, _read, _done: phase == "writing", told=told)
        read = time.perf_counter()
        if options.kills > 1:
            follow(database, until=lambda _phase, _read, done: done > options.rows * 0.3, told=told)
            bulk_worker.close()
            kept["machines written when killed"] = follow(database, until=lambda *_: True)[2]
            wrong += halves(database)
            start_bulk_worker()
        phase, _rows, done, error, counts = follow(database, until=lambda *_: False, told=told)
        told.read()
        ended = time.perf_counter()
        wrong += differences(database, options.rows)
        imported = dict(sampler.largest)
        discovered: tuple[Any, ...] = ()
        if options.discover:
            asked = time.perf_counter()
            sync(port, known["cookie"], known["lists"])
            follow(database, until=lambda phase, read, _done: phase != "succeeded" or read != options.rows)
            discovered = (*follow(database, until=lambda *_: False), (time.perf_counter() - asked) / 60)
        sampler.is_over = True
        minutes = {
            "upload": (uploaded - began) / 60,
            "reading and checking": (read - uploaded) / 60,
            "writing": (ended - read) / 60,
            "all": (ended - began) / 60,
        }
        size = path.stat().st_size / 1e6
    table(
        f"{options.rows:,} machines, {size:.0f} MB, {options.kills} kills (each costs a lease of a minute)",
        ["part", "minutes"],
        list(minutes.items()),
    )
    table(
        "Largest private memory of a process, MB",
        ["process", "import", "import and discovery"],
        [[name, imported.get(name, 0.0), size] for name, size in sorted(sampler.largest.items())],
    )
    numbers = [sentence for sentence in told.said if re.search(r"\d", sentence)]
    print(
        f"\nits page said {len(told.said)} things in {len(told.seconds)} looks:",
        *numbers[:: len(numbers) // 5 or 1],
        sep="\n- ",
    )
    print(f"slowest look {max(told.seconds):.2f} s; {kept}")
    print(f"\n{phase} {error} {done:,} rows, {counts}; {len(wrong)} machines differ", *wrong[:5], sep="\n")
    document = {
        "rows": options.rows,
        "mb": size,
        "minutes": minutes,
        "private_mb": sampler.largest,
        "progress": {"said": len(told.said), "looks": len(told.seconds), "slowest_s": max(told.seconds)},
        "kept": kept,
        "wrong": wrong[:20],
    }
    if discovered:
        print(f"discovery: {discovered[0]}, {discovered[2]:,} machines in {discovered[-1]:.1f} minutes")
        document["discovered"] = discovered
    save(f"imports-{options.rows}", document)
    broken = {
        "it did not succeed": phase != "succeeded",
        "machines differ": bool(wrong),
        "its page did not tell how far it is": len(numbers) < 3,
        f"a process had more than {MOST_MB} MB": max(sampler.largest.values()) > MOST_MB,
        "discovery did not succeed": bool(discovered) and discovered[0] != "succeeded",
    }
    if any(broken.values()):
        print("BROKEN: " + ", ".join(name for name, is_so in broken.items() if is_so))
        raise SystemExit(1)


if __name__ == "__main__":
    main()
