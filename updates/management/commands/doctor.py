"""`manage.py doctor`: finds what is not as it should be, and says what to do."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from updates.selectors.health import find_trouble


class Command(BaseCommand):
    """Look for inconsistencies; ends with an error if there are any, so that a monitor can run it."""

    help = "Find and explain inconsistencies: stuck operations, summaries that differ, requests that wait."

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Print every finding."""
        findings = list(find_trouble())
        for finding in findings:
            count = f"{finding.count}+" if finding.count >= 1_000 else str(finding.count)
            self.stdout.write(f"{finding.code} ({count}): {finding.meaning}")
            self.stdout.write(f"  e.g. {', '.join(finding.examples)}")
            self.stdout.write(f"  {finding.advice}")
        if findings:
            raise CommandError(f"{len(findings)} kind{'s' if len(findings) > 1 else ''} of trouble")
        self.stdout.write("Everything is as it should be.")
