"""`manage.py import_vms FILE [--connection NAME] [--dry-run]`: the import page's twin for the command line."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from connectors.registry import simulated_kinds
from vms.models import Connection
from vms.services.imports import ImportFileError, RowOutcome, check_size, import_vms


class Command(BaseCommand):
    """Import virtual machines and print one line per row."""

    help = "Import virtual machines from what “az vm list -o json” or Azure Resource Manager's list prints."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """FILE, and what to do with it."""
        parser.add_argument("file", metavar="FILE", type=Path)
        parser.add_argument(
            "--connection",
            metavar="NAME",
            help="connection of new VMs (default: the first simulated connection)",
        )
        parser.add_argument("--dry-run", action="store_true", help="report what would happen, change nothing")

    def handle(self, *_args: Any, file: Path, connection: str | None, dry_run: bool, **_options: Any) -> None:
        """Import, or end with one sentence that says why not."""
        try:
            check_size(file.stat().st_size)
            data = file.read_bytes()
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}") from None
        except ImportFileError as error:
            raise CommandError(f"{file}: {error}") from None
        try:
            report = import_vms(data=data, connection=_connection(connection), file_name=file.name, is_dry_run=dry_run)
        except ImportFileError as error:
            raise CommandError(f"{file}: {error}") from None
        for row in report.rows_by_urgency:
            name = row.name or row.arm_id or "-"
            self.stdout.write(f"{row.number:>6}  {row.outcome_label:<10} {name}  {row.explanation}".rstrip())
        if report.has_more_pages:
            self.stderr.write("This file is one page of a longer list (it names a next page). Import the others too.")
        counts = ", ".join(f"{count} {outcome}" for outcome, count in report.counts.items())
        self.stdout.write(f"{counts}{' (dry run: nothing was changed)' if dry_run else ''}")
        if report.total and report.counts[RowOutcome.SKIPPED] == report.total:
            raise CommandError("No row could be used.")


def _connection(name: str | None) -> Connection:
    if name is None:
        first = Connection.objects.filter(kind__in=simulated_kinds()).order_by("pk").first()
        if first is None:
            raise CommandError("There is no simulator connection. Create one in the admin site, or name a connection.")
        return first
    try:
        return Connection.objects.get(name=name)
    except Connection.DoesNotExist:
        names = ", ".join(Connection.objects.values_list("name", flat=True)) or "none"
        raise CommandError(f"There is no connection called “{name}”. There are: {names}.") from None
