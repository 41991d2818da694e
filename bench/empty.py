"""The floor that operations are compared with: a task that does nothing."""

from celery import shared_task


@shared_task(name="bench.empty.nothing")
def nothing() -> None:
    """Do nothing."""
