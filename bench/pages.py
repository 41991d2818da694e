"""`python -m bench.pages`: pages at 1,000, 100,000 and 1,000,000 VMs under gunicorn, beside the ceilings.

Ratios first: every page is divided by the ceiling (the same template, 50 rows in memory) of the same run, and by itself
at the smallest fleet.
"""

from __future__ import annotations

import argparse
import http.client
import os
import statistics
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from bench.machine import OUT, free_port, manage, process, rss_mb, save, servers, table

CONNECTIONS = 8


@dataclass(frozen=True)
class Case:
    """A page to measure, and as whom."""

    name: str
    path: str
    who: str = "everything"


def measure(port: int, path: str, cookie: str, seconds: float) -> dict[str, Any]:
    """Ask for a page over 8 connections for some seconds; after a warm-up over each of them."""
    times: list[float] = []
    sample: dict[str, Any] = {}
    lock = threading.Lock()
    failures: list[str] = []

    def ask(client: http.client.HTTPConnection) -> float:
        began = time.perf_counter()
        client.request("GET", path, headers={"Cookie": cookie, "Accept-Encoding": "gzip", "Host": "127.0.0.1"})
        answer = client.getresponse()
        body = answer.read()
        took = time.perf_counter() - began
        if answer.status != 200:
            failures.append(f"{path}: {answer.status}")
        sample.update(bytes=len(body), queries=int(answer.headers.get("X-Queries", 0)))
        return took

    def client_loop() -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for _ in range(2):
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
    ordered = sorted(times)
    return {
        "p50_ms": 1000 * statistics.median(ordered),
        "p95_ms": 1000 * ordered[int(len(ordered) * 0.95)],
        "per_second": len(times) / took,
        **sample,
    }


PEOPLE = """
import json
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
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
vm = VirtualMachine.objects.order_by("pk")[VirtualMachine.objects.count() // 2]
print("RESULT " + json.dumps({"cookies": cookies, "vm": vm.pk, "name": vm.name}))
"""


def cases(vm: int, name: str) -> list[Case]:
    """Every page that DESIGN promises flat, and those beside it."""
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
    }
    sorts = ("name", "-name", "update_status", "-update_status", "critical", "-critical")
    return [
        Case("list", lists),
        *(Case(f"list, {who}", lists, who) for who in ("1 group", "50 groups", "20 VMs")),
        *(Case(f"filter: {words}", f"{lists}?{query}") for words, query in narrowed.items()),
        *(Case(f"sort: {sort}", f"{lists}?sort={sort}") for sort in sorts[1:]),
        Case("search: common prefix", f"{lists}?q=we"),
        Case("search: one machine", f"{lists}?q={name}"),
        Case("blade", f"/virtual-machines/{vm}/updates/"),
        Case("blade: compliance", f"/virtual-machines/{vm}/updates/?tab=compliance"),
        Case("blade: history", f"/virtual-machines/{vm}/updates/?tab=history"),
        Case("calendar", "/calendar/"),
    ]


def deep_page(port: int, cookie: str, depth: int) -> str:
    """The address of a page that is reached by following "Next" so many times."""
    import html
    import re

    path = "/virtual-machines/"
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(depth):
        client.request("GET", path, headers={"Cookie": cookie, "Host": "127.0.0.1"})
        text = client.getresponse().read().decode()
        found = re.search(r'rel="next" href="([^"]+)"', text)
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


def run_size(environment: dict[str, str], vms: int, seconds: float) -> dict[str, Any]:
    """Everything at one size of the fleet."""
    import json

    database = f"bench_{vms}"
    manage(
        environment,
        "shell",
        "-v",
        "0",
        "-c",
        f'from django.db import connection; connection.cursor().execute("CREATE DATABASE {database}")',
    )
    scheme, _, query = environment["DATABASE_URL"].partition("?")
    environment = environment | {"DATABASE_URL": scheme.rpartition("/")[0] + f"/{database}?{query}"}
    manage(environment, "migrate", "-v", "0")
    manage(environment, "compile_translations")
    manage(environment, "collectstatic", "--noinput", "-v", "0")
    began = time.perf_counter()
    print(manage(environment, "seed_fleet", "--vms", str(vms)).splitlines()[-1])
    seeded = time.perf_counter() - began
    manage(
        environment,
        "shell",
        "-v",
        "0",
        "-c",
        'from django.db import connection; connection.cursor().execute("VACUUM ANALYZE")',
    )
    said = manage(environment, "shell", "-v", "0", "-c", PEOPLE)
    known = json.loads(next(line for line in said.splitlines() if line.startswith("RESULT "))[7:])
    size = manage(
        environment,
        "shell",
        "-v",
        "0",
        "-c",
        'from django.db import connection as c; x = c.cursor(); x.execute("SELECT pg_database_size(current_database())"); print("SIZE", x.fetchone()[0])',
    )
    port = free_port()
    gunicorn = (
        "gunicorn",
        "hotpatch_portal.wsgi",
        "--bind",
        f"127.0.0.1:{port}",
        "--workers",
        "2",
        "--worker-class",
        "gthread",
        "--threads",
        "4",
        "--log-level",
        "warning",
        "--no-control-socket",
    )
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        web = stack.enter_context(process(environment, *gunicorn))
        wait_for(port)
        cookie = known["cookies"]["everything"]
        figures["hello"] = measure(port, "/bench/hello/", cookie, seconds)
        figures["ceiling"] = measure(port, "/bench/ceiling/", cookie, seconds)
        for case in cases(known["vm"], known["name"]):
            figures[case.name] = measure(port, case.path, known["cookies"][case.who], seconds)
        depth = min(200, max(1, vms // 50 - 1))
        figures["deep page"] = measure(port, deep_page(port, cookie, depth), cookie, seconds)
        took, sent = export(port, cookie)
        figures["ceiling again"] = measure(port, "/bench/ceiling/", cookie, seconds)
        extra = {
            "seed_seconds": seeded,
            "export_seconds": took,
            "export_bytes": sent,
            "web_rss_mb": rss_mb(web.pid),
            "database_bytes": int(size.rsplit("SIZE", 1)[1]),
        }
    return {"pages": figures, "extra": extra, "environment": environment}


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
    raise RuntimeError("gunicorn does not answer")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="1000,100000,1000000")
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    OUT.mkdir(exist_ok=True)
    results: dict[int, Any] = {}
    with servers() as environment:
        os.environ.update(environment)
        for vms in sizes:
            results[vms] = run_size(environment, vms, options.seconds)
        from bench.explain import plans

        hot = plans(results[sizes[-1]].pop("environment"))
    smallest = results[sizes[0]]["pages"]
    heads = [
        "page",
        *(f"{vms:,}: p50 ms (p95) · ÷ ceiling" for vms in sizes),
        f"÷ {sizes[0]:,}",
        "/s",
        "queries",
        "bytes",
    ]
    rows = []
    for name in smallest:
        row: list[Any] = [name]
        for vms in sizes:
            pages = results[vms]["pages"]
            ceiling = (pages["ceiling"]["p50_ms"] + pages["ceiling again"]["p50_ms"]) / 2
            row.append(
                f"{pages[name]['p50_ms']:.0f} ({pages[name]['p95_ms']:.0f}) · {pages[name]['p50_ms'] / ceiling:.2f}"
            )
        last = results[sizes[-1]]["pages"][name]
        row += [last["p50_ms"] / smallest[name]["p50_ms"], f"{last['per_second']:.0f}"]
        counts = sorted({results[vms]["pages"][name]["queries"] for vms in sizes})
        row += ["/".join(map(str, counts)), last["bytes"]]
        rows.append(row)
    table("Pages under gunicorn, 8 connections", heads, rows)
    table(
        "Around them",
        ["VMs", "seeding s", "export s", "export MB", "web RSS MB", "database MB", "bytes per VM"],
        [
            [
                f"{vms:,}",
                e["seed_seconds"],
                e["export_seconds"],
                e["export_bytes"] / 1e6,
                e["web_rss_mb"],
                e["database_bytes"] / 1e6,
                e["database_bytes"] // vms,
            ]
            for vms in sizes
            for e in [results[vms]["extra"]]
        ],
    )
    for name, plan in hot.items():
        print(f"\n### {name}\n\n```\n{plan}\n```")
    for vms in sizes:
        results[vms].pop("environment", None)
    save("pages", {str(vms): result for vms, result in results.items()} | {"plans": hot})


if __name__ == "__main__":
    main()
