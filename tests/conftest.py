"""What tests stand on, beside the throw-away servers of `tests.servers`.

- `redis_server`: a Redis of the test's own (`url`, `stop()`, `start()`, `flush()`).
- `worker`: start real Celery workers against the test database (`worker(queue="interactive")`); use it with
  `transaction=True` only. The handle has `kill()` (SIGKILL) and `stop()`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import hypothesis
import pytest

from hotpatch_portal.stack.embedded import EmbeddedRedis, die_with_parent

# How fast a machine is decides no test.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

pytest_plugins = ["tests.fixtures"]

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def own_language() -> Iterator[None]:
    """A request leaves its reader's language and time zone behind in the thread; no other test sees them."""
    from django.utils import timezone, translation

    yield
    translation.deactivate()
    timezone.deactivate()


class RedisServer(EmbeddedRedis):
    """A Redis that a test may stop, start and flush."""

    def flush(self) -> None:
        """Forget everything."""
        import socket

        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.socket))
            client.sendall(b"FLUSHALL\r\n")
            assert client.recv(16).startswith(b"+OK")


@pytest.fixture
def redis_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    """A Redis of this test's own; the portal's broker points at it."""
    directory = Path(tempfile.mkdtemp(prefix="hp-redis-"))
    server = RedisServer(directory)
    server.start()
    from hotpatch_portal.celery import app

    monkeypatch.setitem(app.conf, "broker_url", server.url)
    monkeypatch.setitem(app.conf, "broker_write_url", server.url)
    yield server
    server.stop()
    shutil.rmtree(directory, ignore_errors=True)


@dataclass
class Worker:
    """A running Celery worker."""

    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """Kill the worker and its pool as a power cut would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> None:
        """Ask the worker to stop; kill it if it does not."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Start real Celery workers against the test database; those still running are killed at the end."""
    from django.db import connection

    started: list[Worker] = []

    def start(*, queue: str = "interactive", lanes: str = "all", redis_url: str | None = None) -> Worker:
        address = urlsplit(os.environ["DATABASE_URL"])
        database_url = address._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
        log = tmp_path / f"worker-{len(started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    sys.executable, "-m", "celery", "-A", "hotpatch_portal", "worker",
                    "-Q", queue, "-c", "1", "--without-gossip", "--without-mingle", "--without-heartbeat",
                ],
                cwd=ROOT,
                env=os.environ
                | {
                    "DJANGO_SETTINGS_MODULE": "hotpatch_portal.settings",
                    "DATABASE_URL": database_url,
                    "REDIS_URL": redis_url or os.environ["REDIS_URL"],
                    "SECRET_KEY": "tests-0123456789-abcdefghijklmnopqrstuvwxyz-0123456789",
                    "WORKER_LANES": lanes,
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )  # fmt: skip
        started.append(Worker(process, log))
        return started[-1]

    yield start
    for handle in started:
        if handle.process.poll() is None:
            handle.kill()
