"""What a worker process is beside Celery's: its own timer, its connections, how it collects garbage."""

from __future__ import annotations

import gc
import threading
from typing import Any

import structlog
from celery.signals import celeryd_init, worker_process_init, worker_process_shutdown
from django.conf import settings
from django.db import close_old_connections, connection

from updates.services.engine import sweep
from updates.tasks import LANES
from vms.services.import_jobs import SMALL_BYTES, work_on_imports

log = structlog.get_logger(__name__)

PERIOD_SECONDS = 2.0
# A sweep makes objects by the hundred thousand, and drops them by counting. Looking for cycles among them every few
# hundred took a fifth of a worker's time.
YOUNG_OBJECTS = 50_000
_stop = threading.Event()


def _run() -> None:
    while not _stop.wait(PERIOD_SECONDS):
        try:
            close_old_connections()
            sweep(lanes=LANES[settings.WORKER_LANES], kinds=settings.WORKER_KINDS, seconds=10)
            # Imports come by message; with the broker away this timer takes them on.
            work_on_imports(seconds=PERIOD_SECONDS, most_bytes=None if settings.WORKER_LANES == "all" else SMALL_BYTES)
        except Exception:
            log.exception("own_sweep_failed")
        finally:
            connection.close()


@celeryd_init.connect
def give_up_the_pool(**_kwargs: Any) -> None:
    """Let each thread of a worker have a connection of its own, before there is one.

    Celery closes the pool of a process after each of its tasks, whoever holds a connection: here the timer.
    """
    settings.DATABASES["default"]["OPTIONS"].pop("pool", None)


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
    threading.Thread(target=_run, name="own-sweep", daemon=True).start()


@worker_process_shutdown.connect
def stop_timer(**_kwargs: Any) -> None:
    """Let the timer end with its process."""
    _stop.set()
