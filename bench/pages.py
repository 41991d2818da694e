"""`python -m bench.pages`: pages at 1,000, 100,000 and 1,000,000 VMs under the web server of `make up`, beside the ceilings.

Ratios first: every page is divided by its ceiling, the same template rendered from memory, of the same fleet, and by itself
at the smallest fleet. The ceiling of the pages over the whole fleet is their own; that of all others is the list's. All fleets stand beside each other and every page is asked for at one after the other, so that what
disturbs the machine for a while disturbs both sides of a ratio; and all of it comes round several times, over new
connections, since a web process that happens to get more of them than the other takes longer. A ratio compares the mean
time of a request.
"""

from __future__ import annotations

import argparse
import html
import http.client
import json
import re
import statistics
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.explain import plans
from bench.machine import OUT, children, cpu_seconds, free_port, manage, process, rss_mb, save, servers, table
from bench.scans import scans
from patching.terms import Classification, InstallationPlan, OperationKind
from updates.payloads import encode

CONNECTIONS = 8


EVERYTHING = "everything"
DEPTH = 200  # pages
IN_MEMORY = "from memory: "  # the same page, rendered again from what it was rendered with before


@dataclass(frozen=True)
class Case:
    """A page to measure, and as whom. `depth`: how many times "Next" is followed first."""

    name: str
    path: str
    who: str = EVERYTHING
    depth: int = 0

    @property
    def label(self) -> str:
        """What it is called in the table."""
        return self.name if self.who == EVERYTHING else f"{self.name} · {self.who}"


@dataclass(frozen=True)
class Fleet:
    """A database with a fleet of this size, and who looks at it."""

    vms: int
    environment: dict[str, str]
    cookies: dict[str, str]
    vm: int
    name: str
    kb: str
    seed_seconds: float
    database_bytes: int
    tables: dict[str, int]


def measure(port: int, path: str, cookie: str, seconds: float) -> dict[str, Any]:
    """Ask for a page over 8 new connections for some seconds; after a warm-up over each of them."""
    times: list[float] = []
    sample: dict[str, Any] = {}
    lock = threading.Lock()
    failures: list[str] = []

    def ask(client: http.client.HTTPConnection) -> float:
        began = time.perf_counter()
        headers = {"Cookie": cookie, "Accept-Encoding": "gzip", "Host": "127.0.0.1"}
        try:
            client.request("GET", path, headers=headers)
            answer = client.getresponse()
        except (http.client.RemoteDisconnected, ConnectionResetError):  # the server let an idle connection go
            client.close()
            client.request("GET", path, headers=headers)
            answer = client.getresponse()
        body = answer.read()
        took = time.perf_counter() - began
        if answer.status != 200:
            failures.append(f"{path}: {answer.status}")
        sample.update(bytes=len(body), queries=int(answer.headers.get("X-Queries", 0)))
        return took

    def client_loop() -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        ask(client)
        mine = []
        warm.wait()
        ends_at = time.perf_counter() + seconds
        while time.perf_counter() < ends_at:
            mine.append(ask(client))
        with lock:
            times.extend(mine)

    warm = threading.Barrier(CONNECTIONS + 1, timeout=120)
    threads = [threading.Thread(target=client_loop) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    warm.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    if failures:
        raise RuntimeError(failures[0])
    return {"times": times, "took": took, **sample}


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """What the rounds of one page come to."""
    last = rounds[-1]
    common = {"bytes": last["bytes"], "queries": last["queries"]}
    if "cpu_ms" in last:
        spent = statistics.fmean(figures["cpu_ms"] for figures in rounds)
        return {"cpu_ms": spent, "mean_ms": spent, **common}
    ordered = sorted(took for figures in rounds for took in figures["times"])
    return {
        "mean_ms": 1000 * statistics.fmean(ordered),
        "p50_ms": 1000 * statistics.median(ordered),
        "p95_ms": 1000 * ordered[int(len(ordered) * 0.95)],
        "per_second": len(ordered) / sum(figures["took"] for figures in rounds),
        **common,
    }


def measure_cpu(port: int, path: str, cookie: str, pids: list[int], *, requests: int = 12) -> dict[str, Any]:
    """Processor time of a request, in the web processes and in PostgreSQL: on a busy machine the only steady figure."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    began = 0.0
    for number in range(requests + 4):
        if number == 4:  # both processes are warm
            began = cpu_seconds(pids)
        client.request("GET", path, headers={"Cookie": cookie, "Accept-Encoding": "gzip", "Host": "127.0.0.1"})
        answer = client.getresponse()
        body = answer.read()
        client.close()
    spent = 1000 * (cpu_seconds(pids) - began) / requests
    return {"cpu_ms": spent, "bytes": len(body), "queries": int(answer.headers.get("X-Queries", 0))}


PEOPLE = """
import json
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.db import connection
from updates.models import PatchSetMember
from vms.models import ResourceGroup, RoleAssignment, VirtualMachine
engine = import_module(settings.SESSION_ENGINE)
groups = list(ResourceGroup.objects.order_by("pk").values_list("pk", flat=True)[:50])
vms = list(VirtualMachine.objects.order_by("pk").values_list("pk", flat=True)[:20])
places = {
    "everything": [{"scope": "everything"}],
    "1 group": [{"scope": "resource_group", "resource_group_id": pk} for pk in groups[:1]],
    "50 groups": [{"scope": "resource_group", "resource_group_id": pk} for pk in groups],
    "20 VMs": [{"scope": "vm", "vm_id": pk} for pk in vms],
}
cookies = {}
for name, scopes in places.items():
    user = User.objects.create(username=name)
    for scope in scopes:
        RoleAssignment.objects.create(user=user, role="owner", **scope)
    session = engine.SessionStore()
    session[SESSION_KEY], session[BACKEND_SESSION_KEY] = str(user.pk), settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    cookies[name] = f"{settings.SESSION_COOKIE_NAME}={session.session_key}; timezone=UTC"
cursor = connection.cursor()
for statement in STATEMENTS:
    cursor.execute(statement)
cursor.execute("VACUUM ANALYZE")
cursor.execute("SELECT pg_database_size(current_database())")
(size,) = cursor.fetchone()
cursor.execute("SELECT relname, pg_total_relation_size(oid) FROM pg_class WHERE relkind = 'r' ORDER BY 2 DESC LIMIT 8")
tables = dict(cursor.fetchall())
vm = VirtualMachine.objects.filter(operations__kind="installation").order_by("pk")[len(vms) // 2]
kb = max(PatchSetMember.objects.exclude(patch__kb_number="").values_list("patch__kb_number", flat=True))
print("RESULT " + json.dumps({
    "cookies": cookies, "vm": vm.pk, "name": vm.name, "kb": kb, "database_bytes": size, "tables": tables,
}))
"""
# What lies behind every machine: an assessment, and on every tenth an installation with what became of each patch.
_OPERATION = """
INSERT INTO updates_operation (
    id, vm_id, connection_id, kind, state, priority, is_bulk, payload, handle, created_at, started_at, finished_at, attempts,
    error_code, error_detail, reboot_status, is_maintenance_window_exceeded, installed_count, failed_count,
    pending_count, excluded_count, not_selected_count, verification, build_before, build_after
)
SELECT gen_random_uuid(), v.id, v.connection_id, '{kind}', 'succeeded', 1, true, {payload}, gen_random_uuid()::text,
    t.at, t.at + interval '5 s', t.at + interval '{length}', 0, '', '', '{reboot}', false, {installed}, 0, 0, 0, 0,
    '{verification}', '20348.5020', '20348.5074'
FROM vms_virtualmachine v, LATERAL (
    SELECT now() - make_interval(days => day, secs => (v.id * 7919) % 86400) AS at FROM unnest(ARRAY[{days}]) AS day
) t
WHERE {which}
"""
PLAN = InstallationPlan(classifications=frozenset({Classification.CRITICAL, Classification.SECURITY}))
HISTORY = (
    _OPERATION.format(
        kind="assessment",
        payload="NULL",
        length="3 min",
        reboot="",
        installed=0,
        verification="",
        days="1, 2, 3",
        which="true",
    ),
    _OPERATION.format(
        kind="installation",
        payload=f"'{json.dumps(encode(OperationKind.INSTALLATION, PLAN))}'::jsonb",
        length="25 min",
        reboot="NotNeeded",
        installed=3,
        verification="confirmed",
        days="9",
        which="v.id % 10 = 0",
    ),
    """
    INSERT INTO updates_patchresult (operation_id, patch_id, state, reason, error_code)
    SELECT o.id, p.patch_id, 'Installed', '', ''
    FROM updates_operation o JOIN updates_installedpatch p ON p.vm_id = o.vm_id WHERE o.kind = 'installation'
    """,
    """
    INSERT INTO updates_operationevent (operation_id, at, code, state, detail)
    SELECT o.id, o.created_at, code, 'in_progress', '{}'
    FROM updates_operation o, unnest(ARRAY['operation.requested', 'operation.starting', 'operation.started',
        'patch.installing', 'patch.installing', 'patch.installing', 'operation.finished']) AS code
    WHERE o.kind = 'installation'
    """,
)


def fleet_pages(kb: str) -> dict[str, str]:
    """The pages over the whole fleet, and those that its numbers lead to."""
    return {
        "overview": "/",
        "pending": "/updates/",
        "KB": f"/updates/kb/{kb}/",
        "list: lacks a KB": f"/virtual-machines/?lacks={kb}",
        "history": "/history/?period=30",
        "history: failed": "/history/?period=30&result=failed",
        "history: runs": "/history/runs/",
    }


def cases(vm: int, name: str, kb: str, *, is_thorough: bool = False) -> list[Case]:
    """Every page that is promised to be flat, and those beside it; `is_thorough`: all of it as each kind of reader."""
    lists = "/virtual-machines/"
    narrowed = {
        "update status": "update_status=updates_available",
        "hotpatch status": "hotpatch_status=Enabled",
        "hotpatch track": "hotpatch_track=on_track",
        "who patches": "patcher=portal_automatically",
        "connection": "connection=1",
        "subscription": "subscription=1",
        "resource group": "resource_group=rg-load-0000",
        "location": "location=japaneast",
        "power state": "power_state=running",
        "power state, few": "power_state=deallocated",
        "power state, none": "power_state=stopped",
    }
    sorts = ("-name", "update_status", "-update_status", "critical", "-critical", "assessed", "-assessed")
    found = [Case("ceiling", "/bench/ceiling/"), Case("hello", "/bench/hello/")]
    for who in (EVERYTHING, "1 group", "50 groups", "20 VMs"):
        # Readers of a part of the fleet meet the same indexes; of their filters and sorts those that differ most.
        is_whole = is_thorough or who == EVERYTHING
        filters = narrowed if is_whole else {word: narrowed[word] for word in ("update status", "resource group")}
        found += [
            Case("list", lists, who),
            *(Case(f"filter: {words}", f"{lists}?{query}", who) for words, query in filters.items()),
            *(Case(f"sort: {sort}", f"{lists}?sort={sort}", who) for sort in (sorts if is_whole else sorts[-1:])),
            Case("search: common prefix", f"{lists}?q=we", who),
            Case("search: one machine", f"{lists}?q={name}", who),
            Case("ceiling", "/bench/ceiling/"),
        ]
    return [
        *found,
        Case("deep page", lists, depth=DEPTH),
        Case("deep page, sort: -critical", f"{lists}?sort=-critical", depth=DEPTH),
        Case("deep page", lists, "50 groups", depth=DEPTH),
        Case("blade", f"/virtual-machines/{vm}/updates/"),
        Case("blade: compliance", f"/virtual-machines/{vm}/updates/?tab=compliance"),
        Case("blade: history", f"/virtual-machines/{vm}/updates/?tab=history"),
        Case("blade: installed", f"/virtual-machines/{vm}/updates/?tab=installed"),
        Case("VM overview", f"/virtual-machines/{vm}/"),
        Case("activity", f"/virtual-machines/{vm}/activity/"),
        Case("calendar", "/calendar/"),
        *(
            case
            for who in (EVERYTHING, "1 group", "50 groups", "20 VMs")
            for name, path in fleet_pages(kb).items()
            for case in (Case(name, path, who), Case(f"{IN_MEMORY}{name}", f"/bench/memory{path}", who))
        ),
        Case("connections", "/connections/"),
        Case("ceiling", "/bench/ceiling/"),
    ]


def deep_page(port: int, cookie: str, path: str, depth: int) -> str:
    """The address of a page that is reached by following "Next" so many times."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(depth):
        client.request("GET", path, headers={"Cookie": cookie, "Host": "127.0.0.1"})
        found = re.search(r'rel="next" href="([^"]+)"', client.getresponse().read().decode())
        if found is None:
            break
        path = "/virtual-machines/" + html.unescape(found[1])
    return path


def export(port: int, cookie: str) -> tuple[float, int]:
    """Seconds and bytes of the export of everything."""
    began = time.perf_counter()
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    client.request("GET", "/virtual-machines/export/", headers={"Cookie": cookie, "Host": "127.0.0.1"})
    answer = client.getresponse()
    size = 0
    while chunk := answer.read(1 << 16):
        size += len(chunk)
    return time.perf_counter() - began, size


def fleet_of(environment: dict[str, str], vms: int) -> Fleet:
    """The fleet of this size that an earlier run left in the directory of the servers, else a new one."""
    kept = Path(environment["PORTAL_DIR"]) / f"fleet-{vms}.json"
    if not kept.exists():
        kept.write_text(json.dumps(asdict(make_fleet(environment, vms))))
    return Fleet(**json.loads(kept.read_text()))


def make_fleet(environment: dict[str, str], vms: int) -> Fleet:
    """A database of its own with a fleet of this size, a month of history, and people."""
    shell = ("shell", "-v", "0", "-c")
    database = f"bench_{vms}"
    create = f'from django.db import connection; connection.cursor().execute("CREATE DATABASE {database}")'
    manage(environment, *shell, create)
    scheme, _, query = environment["DATABASE_URL"].partition("?")
    environment = environment | {"DATABASE_URL": scheme.rpartition("/")[0] + f"/{database}?{query}"}
    manage(environment, "migrate", "-v", "0")
    began = time.perf_counter()
    print(manage(environment, "seed_fleet", "--vms", str(vms)).splitlines()[-1], flush=True)
    seeded = time.perf_counter() - began
    said = manage(environment, *shell, f"STATEMENTS = {HISTORY!r}\n{PEOPLE}")
    known = json.loads(next(line for line in said.splitlines() if line.startswith("RESULT "))[7:])
    return Fleet(vms=vms, environment=environment, seed_seconds=seeded, **known)


def serve(stack: ExitStack, fleet: Fleet) -> tuple[int, int]:
    """The web server as `make up` runs it, in front of this fleet: its port and its process."""
    port = free_port()
    web = stack.enter_context(
        process(
            fleet.environment,
            *("hotpatch_portal.stack.web", "--port", str(port), "--processes", "2", "--threads", "4"),
        )
    )
    wait_for(port)
    return port, web.pid


def wait_for(port: int) -> None:
    """Until the web server answers."""
    for _ in range(300):
        try:
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            client.request("GET", "/bench/hello/", headers={"Host": "127.0.0.1"})
            if client.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the web server does not answer")


def measure_all(fleets: list[Fleet], options: argparse.Namespace) -> dict[int, dict[str, Any]]:
    """Every page at every size, and what is around them."""
    found: dict[int, dict[str, list[dict[str, Any]]]] = {fleet.vms: defaultdict(list) for fleet in fleets}
    results: dict[int, dict[str, Any]] = {}
    with ExitStack() as stack:
        webs = [serve(stack, fleet) for fleet in fleets]
        data = Path(fleets[0].environment["PORTAL_DIR"]) / "pg"
        postgres = int((data / "postmaster.pid").read_text().split()[0])
        chosen = [
            [
                case
                for case in cases(fleet.vm, fleet.name, fleet.kb, is_thorough=options.thorough)
                if is_chosen(case, options.only)
            ]
            for fleet in fleets
        ]
        for turn in range(options.rounds):
            for same in zip(*chosen, strict=True):
                for case, fleet, (port, pid) in zip(same, fleets, webs, strict=True):
                    cookie = fleet.cookies[case.who]
                    path = deep_page(port, cookie, case.path, case.depth)
                    if options.busy:
                        figures = measure_cpu(port, path, cookie, [*children(pid), *children(postgres)])
                    else:
                        figures = measure(port, path, cookie, options.seconds)
                    rounds = found[fleet.vms][case.label]
                    rounds.append(figures)
                    print(
                        f"{turn + 1} {case.label} at {fleet.vms:,}: {summary([figures])['mean_ms']:.1f} ms", flush=True
                    )
        for fleet in fleets:
            pages = {label: summary(rounds) for label, rounds in found[fleet.vms].items()}
            results[fleet.vms] = {"pages": pages, "ceiling_ms": pages["ceiling"]["mean_ms"]}
        for fleet, (port, pid) in zip(fleets, webs, strict=True):
            took, sent = export(port, fleet.cookies[EVERYTHING])
            results[fleet.vms]["around"] = {
                "seed_seconds": fleet.seed_seconds,
                "export_seconds": took,
                "export_bytes": sent,
                "web_rss_mb": rss_mb(pid),
                "database_bytes": fleet.database_bytes,
                "tables": fleet.tables,
            }
    return results


def is_chosen(case: Case, only: str) -> bool:
    """Whether it is to be measured; the ceiling always is."""
    return case.name == "ceiling" or re.search(only, case.label) is not None


def is_read(case: Case) -> bool:
    """Whether its queries are explained: what the product has, at its first page."""
    return not case.path.startswith("/bench/") and not case.depth


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="1000,100000,1000000")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="pages whose name this is found in (a regular expression)")
    parser.add_argument("--keep", type=Path, help="a directory whose fleets are used, and made where they are missing")
    parser.add_argument("--thorough", action="store_true", help="every filter and sort as every kind of reader")
    parser.add_argument(
        "--busy", action="store_true", help="the machine has other work: measure processor time instead"
    )
    options = parser.parse_args()
    sizes = sorted(int(size) for size in options.sizes.split(","))
    OUT.mkdir(exist_ok=True)
    with servers(options.keep) as environment:
        manage(environment, "compile_translations")
        manage(environment, "collectstatic", "--noinput", "-v", "0")
        fleets = [fleet_of(environment, vms) for vms in sizes]
        results = measure_all(fleets, options)
        hot = plans(fleets[-1].environment)
        asked = cases(fleets[-1].vm, fleets[-1].name, fleets[-1].kb)
        read = scans(fleets[-1].environment, {case.label: (case.path, case.who) for case in asked if is_read(case)})
    report(sizes, results)
    table(
        f"What the queries of a page read at {sizes[-1]:,}",
        ["page", "queries", "large tables scanned", "most rows of a large table that one part of a plan read"],
        [
            [name, found["queries"], ", ".join(found["scans"]) or "none", f"{found['rows']:,}"]
            for name, found in read.items()
        ],
    )
    for name, plan in hot.items():
        print(f"\n### {name}\n\n```\n{plan}\n```")
    save("pages", {str(vms): result for vms, result in results.items()} | {"plans": hot, "read": read})


def ceiling_ms(result: dict[str, Any], name: str) -> float:
    """How long the template of this page takes from memory."""
    own = result["pages"].get(f"{IN_MEMORY}{name}")
    return float(own["mean_ms"] if own else result["ceiling_ms"])


def report(sizes: list[int], results: dict[int, dict[str, Any]]) -> None:
    """Print the tables; ratios stand first."""
    smallest, largest = sizes[0], sizes[-1]
    unit = "processor ms" if "cpu_ms" in results[smallest]["pages"]["ceiling"] else "p50 (p95) ms"
    heads = [
        "page",
        *(f"÷ ceiling at {vms:,}" for vms in sizes),
        f"{largest:,} ÷ {smallest:,}",
        *(f"{unit} at {vms:,}" for vms in sizes),
        f"/s at {largest:,}",
        "queries",
        "bytes",
    ]
    rows: list[list[Any]] = []
    for name in results[smallest]["pages"]:
        figures = {vms: results[vms]["pages"][name] for vms in sizes}
        counts = sorted({figures[vms]["queries"] for vms in sizes})
        rows.append(
            [
                name,
                *(figures[vms]["mean_ms"] / ceiling_ms(results[vms], name) for vms in sizes),
                figures[largest]["mean_ms"] / figures[smallest]["mean_ms"],
                *(
                    f"{figures[vms]['p50_ms']:.0f} ({figures[vms]['p95_ms']:.0f})"
                    if "p50_ms" in figures[vms]
                    else f"{figures[vms]['cpu_ms']:.1f}"
                    for vms in sizes
                ),
                f"{figures[largest]['per_second']:.0f}" if "per_second" in figures[largest] else "",
                "/".join(map(str, counts)),
                figures[largest]["bytes"],
            ]
        )
    table(f"Pages, {CONNECTIONS} connections", heads, rows)
    table(
        "Around them",
        ["VMs", "seeding s", "export s", "export MB", "web RSS MB", "database MB", "bytes per VM"],
        [
            [
                f"{vms:,}",
                around["seed_seconds"],
                around["export_seconds"],
                around["export_bytes"] / 1e6,
                around["web_rss_mb"],
                around["database_bytes"] / 1e6,
                around["database_bytes"] // vms,
            ]
            for vms in sizes
            for around in [results[vms]["around"]]
        ],
    )
    table(
        f"Bytes per VM at {largest:,}, by table with its indexes",
        ["table", "bytes per VM"],
        [[name, size // largest] for name, size in results[largest]["around"]["tables"].items()],
    )


if __name__ == "__main__":
    main()
