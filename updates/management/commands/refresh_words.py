"""`manage.py refresh_words`: bring what lists show up to this moment, without waiting for the scheduler."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from updates.services.automation import follow_schedules
from updates.services.operations import database_now
from updates.services.words import refresh_words
from vms.services.counters import recount_words

AN_HOUR = 3_600.0


class Command(BaseCommand):
    """Judge every VM whose words are due, and who patches each; after an upgrade this is part of the start."""

    help = "Bring the stored words of every VM, who patches it, and the counters up to this moment."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add `--recount`."""
        parser.add_argument(
            "--recount", action="store_true", help="count every VM anew instead of trusting the counters"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Refresh, and say how many changed."""
        if options["recount"]:
            recount_words()
        words = refresh_words(now=database_now(), seconds=AN_HOUR)
        self.stdout.write(f"{words} with other words, {follow_schedules()} patched by another than was shown")
