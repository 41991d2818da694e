"""Celery entry points. A message is a wake-up and carries no ids: the database is the queue."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from pathlib import Path

import structlog
from celery import shared_task
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from audit.services import prune_events
from updates.engine.sweep import ALL_PRIORITIES, INTERACTIVE_PRIORITIES
from updates.engine.sweep import sweep as sweep_operations
from updates.services.automation import tick
from updates.services.bulk import prune_assessments, prune_operations
from updates.services.bulk_ends import finish_bulk_requests
from updates.services.fleet import forget_snapshots
from updates.services.health import ask_probes
from updates.services.operations import database_now
from updates.services.rollouts import advance_rollouts
from updates.services.words import follow_changes
from updates.services.workers import forget_workers
from vms.services.ticks import forget_ticks
from vms.tasks import send_wake_up

log = structlog.get_logger(__name__)

# What a worker takes (WORKER_LANES, docs/scaling.md), as priorities.
LANES = {"interactive": INTERACTIVE_PRIORITIES, "all": ALL_PRIORITIES}
QUEUES = {"interactive": "interactive", "all": "bulk"}


@shared_task(name="updates.tasks.sweep")
def sweep(lanes: str = "interactive") -> None:
    """Work on due operations: `interactive` leaves bulk starts alone, `all` takes everything, and hands out what waits."""
    touch_heartbeat()
    sweep_operations(priorities=LANES[lanes], connection_kinds=settings.WORKER_KINDS, is_waiting=False)


@shared_task(name="updates.tasks.schedule")
def schedule() -> None:
    """Once a minute: periodic assessments, automatic guest patching, maintenance windows."""
    tick(now=database_now())


@shared_task(name="updates.tasks.rollouts")
def rollouts() -> None:
    """Every few seconds: judge VMs whose facts changed, ask due health probes, step due rollouts, end bulk requests."""
    follow_changes(now=database_now())
    ask_probes(now=database_now())
    advance_rollouts(now=database_now())
    finish_bulk_requests(now=database_now())


@shared_task(name="updates.tasks.prune")
def prune() -> None:
    """Remove history beyond `KEEP_HISTORY_DAYS`, and of this hour's slice of the fleet all but the last assessments."""
    removed = prune_operations(keep_days=settings.KEEP_HISTORY_DAYS)
    removed += prune_assessments(slice_of_day=timezone.now().hour)
    removed += forget_workers(now=database_now())
    removed += forget_snapshots(today=timezone.now().date())
    removed += forget_ticks(now=timezone.now())
    removed += prune_events(before=timezone.now() - timedelta(days=settings.KEEP_ACTIVITY_DAYS))
    log.info("history_pruned", removed=removed)


def touch_heartbeat() -> None:
    """Tell the supervisor that Celery delivered a sweep to this worker."""
    if settings.WORKER_HEARTBEAT_FILE:
        Path(settings.WORKER_HEARTBEAT_FILE).touch()


def wake_up(*, is_bulk: bool = False) -> None:
    """Once the transaction has committed, tell a worker that something is due. Never raises, never takes a second."""
    lanes = "all" if is_bulk else "interactive"
    transaction.on_commit(partial(send_wake_up, sweep, queue=QUEUES[lanes], lanes=lanes))
