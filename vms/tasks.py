"""Celery entry points of the inventory. A message is a wake-up and carries no ids: the database is the queue."""

from __future__ import annotations

from functools import partial
from typing import Any

import structlog
from celery import current_app, shared_task
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from vms.services.import_jobs import SMALL_BYTES, begin_due_syncs, prune_imports, work_on_imports

log = structlog.get_logger(__name__)

# With Redis away a click must still answer within a second: the workers' own timer is the safety net.
WAKE_UP_TIMEOUT_SECONDS = 0.4
# A worker has other things to do, too; the next message comes in 2 seconds.
SLICE_SECONDS = 10.0


@shared_task(name="vms.tasks.imports")
def imports(*, only_small: bool = False) -> None:
    """Work on imports that are due, for a while; the interactive worker takes small files alone."""
    work_on_imports(seconds=SLICE_SECONDS, most_bytes=SMALL_BYTES if only_small else None)


@shared_task(name="vms.tasks.upkeep")
def upkeep() -> None:
    """Once a minute: ask connections whose day is over for their machines, and clear away what no import needs."""
    now = timezone.now()
    begin_due_syncs(now=now)
    removed = prune_imports(now=now, seconds=SLICE_SECONDS, keep_days=settings.KEEP_HISTORY_DAYS)
    if removed:
        log.info("imports_pruned", removed=removed)


def wake_importer(*, size: int | None = None) -> None:
    """Once the transaction has committed, tell a worker that an import is due. Never raises, never takes a second."""
    is_small = size is not None and size <= SMALL_BYTES
    queue = "interactive" if is_small else "bulk"
    transaction.on_commit(partial(send_wake_up, imports, queue=queue, only_small=is_small))


def send_wake_up(task: Any, *, queue: str, **arguments: Any) -> None:
    """Send a message that is worth something for half a minute, or none: what it tells of is recorded already."""
    timeouts = {
        "socket_connect_timeout": WAKE_UP_TIMEOUT_SECONDS,
        "socket_timeout": WAKE_UP_TIMEOUT_SECONDS,
        "retry_on_timeout": False,
        "max_retries": 1,
        "interval_start": 0,
        "connect_retries_timeout": WAKE_UP_TIMEOUT_SECONDS,
    }
    try:
        with current_app.connection_for_write(
            connect_timeout=WAKE_UP_TIMEOUT_SECONDS,
            transport_options=settings.CELERY_BROKER_TRANSPORT_OPTIONS | timeouts,
        ) as broker:
            task.apply_async(kwargs=arguments, connection=broker, retry=False, expires=30, queue=queue)
    except Exception as error:  # whatever the broker's trouble is, the click has already been recorded
        log.warning("wake_up_not_sent", error=type(error).__name__)
