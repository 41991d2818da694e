"""A throw-away PostgreSQL and Redis, one pair for each test run (a pytest plugin, loaded before Django's settings).

They start in the process that controls the run; workers of pytest-xdist inherit their addresses. With DATABASE_URL
and REDIS_URL set, those servers are used instead. Runs do not disturb each other.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hotpatch_portal.stack.embedded import EmbeddedPostgres, EmbeddedRedis

_servers: list[EmbeddedPostgres | EmbeddedRedis] = []
_directory: list[Path] = []


def _start_servers() -> None:
    """Start what the environment does not bring. Runs once, before Django is set up."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        return
    if os.environ.get("DATABASE_URL") and os.environ.get("REDIS_URL"):
        return
    directory = Path(tempfile.mkdtemp(prefix="hp-test-"))
    directory.chmod(0o755)
    _directory.append(directory)
    if not os.environ.get("DATABASE_URL"):
        postgres = EmbeddedPostgres(directory, is_throw_away=True)
        postgres.start()
        _servers.append(postgres)
        os.environ["DATABASE_URL"] = postgres.url
    if not os.environ.get("REDIS_URL"):
        redis = EmbeddedRedis(directory)
        redis.start()
        _servers.append(redis)
        os.environ["REDIS_URL"] = redis.url


_start_servers()


def pytest_unconfigure() -> None:
    """Stop what was started, also after Ctrl-C."""
    while _servers:
        _servers.pop().stop()
    while _directory:
        shutil.rmtree(_directory.pop(), ignore_errors=True)
