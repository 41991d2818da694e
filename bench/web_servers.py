"""`python -m bench.web_servers`: web servers beside each other: pages, memory, and pages while clients drip their requests.

Servers that are not installed are left out. Throughput is taken in turns, so that what disturbs the machine for a
while disturbs all of them; each is then left alone with the clients that drip.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib.util
import os
import socket
import statistics
import threading
import time
from contextlib import ExitStack
from typing import Any

from bench.machine import OUT, children, cpu_seconds, free_port, manage, process, rss_mb, save, servers, table
from bench.pages import EVERYTHING, Fleet, fleet_of, measure, wait_for

PAGE = "/virtual-machines/"
PROCESSES, THREADS = "2", "4"
COMMANDS: dict[str, tuple[str, ...]] = {
    "gunicorn gthread": ("gunicorn", "hotpatch_portal.wsgi", "--bind", "127.0.0.1:{port}", "--workers", PROCESSES,
                         "--worker-class", "gthread", "--threads", THREADS, "--log-level", "warning", "--no-control-socket"),
    "waitress": ("hotpatch_portal.stack.web", "--port", "{port}", "--processes", PROCESSES, "--threads", THREADS),
    "granian": ("granian", "hotpatch_portal.wsgi:application", "--interface", "wsgi", "--port", "{port}", "--workers",
                PROCESSES, "--blocking-threads", THREADS, "--backpressure", "256", "--no-ws", "--log-level", "warning"),
    "hypercorn": ("hypercorn", "wsgi:hotpatch_portal.wsgi:application", "--bind", "127.0.0.1:{port}", "--workers", PROCESSES),
    "uvicorn": ("uvicorn", "django.core.asgi:get_asgi_application", "--factory", "--port", "{port}", "--workers", PROCESSES,
                "--log-level", "warning"),
}  # fmt: skip


def drip(port: int, *, is_body: bool, until: float, ended: list[float]) -> None:
    """One client that sends a head, or a body, a byte at a time; when it is cut off it comes again."""
    head = b"POST /accounts/login/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(head + b"Content-Length: 1000000\r\n\r\nlogin=" if is_body else head + b"X-Slow: ")
            while time.monotonic() < until:
                client.sendall(b"a")
                time.sleep(0.5)
        if time.monotonic() < until:
            ended.append(time.monotonic())
            time.sleep(0.1)


def under_drips(port: int, cookie: str, *, clients: int, seconds: float) -> dict[str, float]:
    """What a page takes while so many clients drip: half of them heads, half of them bodies."""
    until = time.monotonic() + seconds
    ended: list[float] = []
    threads = [
        threading.Thread(target=drip, args=(port,), kwargs={"is_body": number % 2 == 0, "until": until, "ended": ended})
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    time.sleep(1)
    times, failed = [], 0
    while time.monotonic() < until:
        began = time.perf_counter()
        try:
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            client.request("GET", PAGE, headers={"Cookie": cookie, "Host": "127.0.0.1"})
            failed += client.getresponse().status != 200
            client.close()
        except OSError:
            failed += 1
        times.append(time.perf_counter() - began)
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    ordered = sorted(times)
    return {
        "pages": len(times), "failed": failed, "p50": statistics.median(ordered),
        "p95": ordered[int(len(ordered) * 0.95)], "max": ordered[-1], "cut": len(ended),
    }  # fmt: skip


def start(stack: ExitStack, fleet: Fleet, name: str) -> tuple[int, int]:
    """This server in front of the fleet: its port and its process."""
    port = free_port()
    web = stack.enter_context(process(fleet.environment, *(word.format(port=port) for word in COMMANDS[name])))
    wait_for(port)
    return port, web.pid


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--vms", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round of pages")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--drip-seconds", type=float, default=60.0)
    parser.add_argument("--only", default=",".join(COMMANDS), help="names of servers, separated by commas")
    options = parser.parse_args()
    names = [name for name in options.only.split(",") if importlib.util.find_spec(name.split()[0])]
    OUT.mkdir(exist_ok=True)
    found: dict[str, dict[str, Any]] = {name: {"times": [], "cpu": 0.0, "asked": 0} for name in names}
    with servers() as environment:
        manage(environment, "compile_translations")
        manage(environment, "collectstatic", "--noinput", "-v", "0")
        fleet = fleet_of(environment, options.vms)
        cookie = fleet.cookies[EVERYTHING]
        with ExitStack() as stack:
            webs = {name: start(stack, fleet, name) for name in names}
            for _turn in range(options.rounds):
                for name, (port, pid) in webs.items():
                    before = cpu_seconds(children(pid))
                    times = measure(port, PAGE, cookie, options.seconds)["times"]
                    found[name]["cpu"] += cpu_seconds(children(pid)) - before
                    found[name]["asked"] += len(times) + 8
                    found[name]["times"].append(statistics.fmean(times))
            for name, (_port, pid) in webs.items():
                found[name]["rss"] = rss_mb(pid)
        for name in names:
            with ExitStack() as stack:
                port, _pid = start(stack, fleet, name)
                figures = under_drips(port, cookie, clients=options.clients, seconds=options.drip_seconds)
                found[name]["drips"] = figures
                print(name, figures, flush=True)
    base = found[names[0]]
    table(
        f"Web servers, {PROCESSES} processes, {options.clients} clients that drip for {options.drip_seconds:.0f} s",
        ["server", f"÷ {names[0]}", "page ms", "processor ms", "RSS MB", "p50 s", "p95 s", "max s", "failed", "pages"],
        [
            [
                name, statistics.median(a / b for a, b in zip(row["times"], base["times"], strict=True)),
                1000 * statistics.median(row["times"]), 1000 * row["cpu"] / row["asked"], row["rss"],
                *(row["drips"][key] for key in ("p50", "p95", "max")), row["drips"]["failed"], row["drips"]["pages"],
            ]
            for name, row in found.items()
        ],
    )  # fmt: skip
    save("web_servers", found)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    main()
