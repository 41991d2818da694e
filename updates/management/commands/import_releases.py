"""`manage.py import_releases FILE`: bring recorded releases or other updates into the catalogue."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from audit.commands import SignedCommand
from updates.services.catalogue import CatalogueFileError, RowOutcome, import_catalogue


class Command(SignedCommand):
    """Import a list of releases or of other updates (JSON or CSV); importing it twice changes nothing."""

    help = "Import recorded releases (rows with a type) or other updates (rows with a title) from a JSON or CSV file."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """FILE and `--dry-run`."""
        parser.add_argument("file", metavar="FILE", type=Path)
        parser.add_argument("--dry-run", action="store_true", help="say what would happen and change nothing")

    def handle(self, *_args: Any, file: Path, dry_run: bool = False, **_options: Any) -> None:
        """Import, or end with one sentence that says why not."""
        try:
            report = import_catalogue(
                data=file.read_bytes(), file_name=file.name, is_dry_run=dry_run, now=timezone.now()
            )
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}") from None
        except CatalogueFileError as error:
            raise CommandError(f"{file}: {error}") from None
        for row in report.rows_by_urgency:
            if row.outcome is RowOutcome.CREATED:
                self.stdout.write(f"row {row.number}, {row.name}: created")
            for field, before, after in row.changes:
                self.stdout.write(f"row {row.number}, {row.name}: {field}: {before or '–'} → {after or '–'}")
        if report.unused:
            self.stdout.write(f"fields that are not used: {', '.join(report.unused)}")
        if report.machines:
            self.stdout.write(f"machines that change their track: {report.machines}")
        self.stdout.write(f"{report.created} created, {report.updated} updated, {report.unchanged} unchanged")
        if report.is_dry_run:
            self.stdout.write("Dry run: nothing was changed.")
