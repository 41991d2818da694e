"""What a worker process is beside Celery's: its own timer, its connections, how it collects garbage."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any, cast

import structlog
from celery.signals import celeryd_init, task_postrun, task_prerun, worker_process_init, worker_process_shutdown
from django.conf import settings
from django.db import close_old_connections, connections
from django.db.backends.postgresql.base import DatabaseWrapper

from updates.engine.claim import STOPPING
from updates.engine.sweep import SLOW, sweep
from updates.services.workers import EVERY_SECONDS, hear
from updates.tasks import LANES
from vms.services.import_jobs import SMALL_BYTES, work_on_imports

log = structlog.get_logger(__name__)

PERIOD_SECONDS = 2.0
# How long a process that ends waits for calls that run: a call lasts 5 s, and its answer is to be written.
LAST_CALL_SECONDS = 8.0
# A sweep makes objects by the hundred thousand, and drops them by counting. Looking for cycles among them every few
# hundred took a fifth of a worker's time.
YOUNG_OBJECTS = 50_000
CONNECTION_SECONDS = 60  # how long a thread of a worker keeps its connection
_stop = threading.Event()
_name = "worker"


@celeryd_init.connect
def remember_name(sender: str, **_kwargs: Any) -> None:
    """Know the worker's name (worker-1@host) in all of its processes, which are its forks."""
    global _name
    _name = sender


def _run() -> None:
    tell_at = 0.0
    while not _stop.wait(PERIOD_SECONDS):
        try:
            close_old_connections()
            sweep(
                priorities=LANES[settings.WORKER_LANES],
                connection_kinds=settings.WORKER_KINDS,
                seconds=10,
                is_waiting=False,
            )
            # Imports come by message; with the broker away this timer takes them on.
            work_on_imports(seconds=PERIOD_SECONDS, most_bytes=None if settings.WORKER_LANES == "all" else SMALL_BYTES)
            if time.monotonic() >= tell_at:
                hear(name=_name)
                tell_at = time.monotonic() + EVERY_SECONDS
        except Exception:
            log.exception("own_sweep_failed")


@celeryd_init.connect
def give_up_the_pool(**_kwargs: Any) -> None:
    """Give each thread of a worker a database connection without a pool, kept for `CONNECTION_SECONDS`.

    Without a pool, because Celery closes the pool after each task, also while the timer's thread uses a connection of it.
    Kept, because a new connection starts a process in PostgreSQL, which reads the catalogue again.

    The connection that this process opened at its start (to check the schema's version) is closed: forks would inherit it.
    """
    default = cast(DatabaseWrapper, connections["default"])
    default.close()
    default.close_pool()
    settings.DATABASES["default"]["OPTIONS"].pop("pool", None)
    settings.DATABASES["default"]["CONN_MAX_AGE"] = CONNECTION_SECONDS


@task_prerun.connect
@task_postrun.connect
def close_what_is_old(task: Any = None, **_kwargs: Any) -> None:
    """Before and after each task: close this thread's connection if it is too old, is broken or has a transaction open.

    If it stays open, Django tests it before the next query (`CONN_HEALTH_CHECKS`). Eager tasks, as in tests, are left out.
    """
    if task is not None and not task.request.is_eager:
        close_old_connections()


@worker_process_init.connect
def collect_seldom(**_kwargs: Any) -> None:
    """What is loaded by now stays for good and need not be looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 50)


@worker_process_init.connect
def start_timer(**_kwargs: Any) -> None:
    """Sweep every few seconds, in each pool process: also while the broker is away or silent."""
    _stop.clear()
    STOPPING.clear()
    threading.Thread(target=_run, name="own-sweep", daemon=True).start()


@worker_process_shutdown.connect
def stop_timer(**_kwargs: Any) -> None:
    """Let the timer and the slow connections end with their process: no call begins, and one that runs may end.

    What was claimed and not sent goes back to the queue at once, instead of waiting in doubt until its lease ends.
    """
    _stop.set()
    STOPPING.set()
    SLOW.stop(LAST_CALL_SECONDS)
