"""What every benchmark needs: servers of its own, processes that end with it, figures of the machine, a table."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hotpatch_portal.stack.embedded import EmbeddedPostgres, EmbeddedRedis

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "bench" / "results"
# What anybody with a million VMs gives PostgreSQL; everything else is as it comes, fsync too.
POSTGRES = {"shared_buffers": "1GB", "max_wal_size": "8GB"}


@contextmanager
def servers(kept: Path | None = None) -> Iterator[dict[str, str]]:
    """A PostgreSQL and a Redis, and the environment that leads to them.

    Their directory is removed afterwards, unless it is one that is to be kept.
    """
    directory = kept or Path(tempfile.mkdtemp(prefix="hp-bench-"))
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    postgres, redis = EmbeddedPostgres(directory, options=POSTGRES), EmbeddedRedis(directory)
    try:
        postgres.start()
        redis.start()
        yield {
            "DATABASE_URL": postgres.url,
            "REDIS_URL": redis.url,
            "SECRET_KEY": "bench-" + "k" * 60,
            "ALLOWED_HOSTS": "127.0.0.1",
            "DJANGO_SETTINGS_MODULE": "bench.settings",
            "PORTAL_DIR": str(directory),
            "LOG_LEVEL": "WARNING",
        }
    finally:
        redis.stop()
        postgres.stop()
        if kept is None:
            shutil.rmtree(directory, ignore_errors=True)


def manage(environment: dict[str, str], *arguments: str) -> str:
    """Run a management command; its output."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{arguments[0]} failed: {done.stderr[-2000:]}")
    return done.stdout


def timing(rows: list[list[Any]]) -> Callable[[str, Callable[[], Any]], Any]:
    """Something that does a thing, and adds what it was, how many seconds it took and how many statements; and prints that."""
    from django.db import connection

    def timed(name: str, what: Callable[[], Any]) -> Any:
        statements = 0

        def counting(execute: Any, *args: Any) -> Any:
            nonlocal statements
            statements += 1
            return execute(*args)

        began = time.perf_counter()
        with connection.execute_wrapper(counting):
            result = what()
        rows.append([name, time.perf_counter() - began, statements])
        print(f"{name}: {rows[-1][1]:.2f} s, {statements} statements", flush=True)
        return result

    return timed


@contextmanager
def process(environment: dict[str, str], *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the portal, stopped at the end."""
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
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGTERM)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def children(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            if parent in found and int(entry.name) not in found:
                found.append(int(entry.name))
    return found


def cpu_seconds(pids: list[int], *, with_ended: bool = False) -> float:
    """What these processes have used of the processor so far: other work on the machine does not change it.

    `with_ended`: what their children used that have ended and been waited for, too.
    """
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        ticks += sum(int(field) for field in fields[11 : 15 if with_ended else 13])
    return ticks / os.sysconf("SC_CLK_TCK")


def cpu_of_tree(pid: int) -> float:
    """What a process and all that descend from it have used so far, those that have ended included."""
    return cpu_seconds(children(pid), with_ended=True)


def postmaster() -> int:
    """The PostgreSQL that `servers` has started in this process."""
    for pid in children(os.getpid())[1:]:
        if b"bin/postgres\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise RuntimeError("no PostgreSQL is running")


def rss_mb(pid: int) -> float:
    """The largest resident set among a process and its children, in MB."""
    sizes = []
    for one in children(pid):
        try:
            text = Path(f"/proc/{one}/status").read_text()
        except OSError:
            continue
        sizes += [int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmRSS")]
    return max(sizes, default=0.0)


def machine() -> dict[str, str]:
    """What the figures were taken on."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024 // 1024
    import django
    import psycopg

    return {
        "processor": f"{os.cpu_count()} cores, {model}",
        "memory": f"{memory} GiB",
        "python": platform.python_version(),
        "django": django.get_version(),
        "psycopg": psycopg.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a Markdown table."""
    print(f"\n## {title}\n")
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads))
    for row in rows:
        print("| " + " | ".join(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row) + " |")
    sys.stdout.flush()


def save(name: str, document: Any) -> None:
    """Keep the figures as JSON."""
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps({"machine": machine(), "figures": document}, indent=1, default=str))
    print(f"\nwritten to bench/results/{name}.json")
