"""Each worker's own timer: it sweeps also while the broker is away or silent."""

from __future__ import annotations

import threading
from typing import Any

import structlog
from celery.signals import worker_process_init, worker_process_shutdown
from django.conf import settings
from django.db import close_old_connections, connection

from updates.services.bulk import hand_out
from updates.services.engine import sweep
from updates.tasks import LANES

log = structlog.get_logger(__name__)

PERIOD_SECONDS = 2.0
_stop = threading.Event()


def _run() -> None:
    while not _stop.wait(PERIOD_SECONDS):
        try:
            close_old_connections()
            if settings.WORKER_LANES == "all":
                hand_out()
            sweep(lanes=LANES[settings.WORKER_LANES], kinds=settings.WORKER_KINDS, seconds=10)
        except Exception:
            log.exception("own_sweep_failed")
        finally:
            connection.close()


@worker_process_init.connect
def start_timer(**_kwargs: Any) -> None:
    """Start the timer in each pool process, after the fork."""
    _stop.clear()
    threading.Thread(target=_run, name="own-sweep", daemon=True).start()


@worker_process_shutdown.connect
def stop_timer(**_kwargs: Any) -> None:
    """Let the timer end with its process."""
    _stop.set()
