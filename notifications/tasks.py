"""Celery entry points of the notifications. A message is a wake-up and carries no ids: the tables say what is due."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.conf import settings

from notifications.services import collect_mails, prune_mails, send_due
from updates.services.operations import database_now


@shared_task(name="notifications.tasks.mail")
def mail() -> None:
    """Every ten seconds: make mails of what has happened, and send those that are due."""
    collect_mails(now=database_now())
    send_due(now=database_now())


@shared_task(name="notifications.tasks.prune")
def prune() -> None:
    """Forget mails beyond `KEEP_HISTORY_DAYS`."""
    prune_mails(before=database_now() - timedelta(days=settings.KEEP_HISTORY_DAYS))
