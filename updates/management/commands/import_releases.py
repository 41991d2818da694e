"""`manage.py import_releases FILE`: bring recorded releases or other updates into the catalogue."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from updates.services.catalogue import CatalogueFileError, import_catalogue


class Command(BaseCommand):
    """Import a JSON list of releases or of other updates; importing it twice changes nothing."""

    help = "Import recorded releases (rows with a type) or other updates (rows with a title) from a JSON file."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """FILE."""
        parser.add_argument("file", metavar="FILE", type=Path)

    def handle(self, *_args: Any, file: Path, **_options: Any) -> None:
        """Import, or end with one sentence that says why not."""
        try:
            report = import_catalogue(data=file.read_bytes())
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}") from None
        except CatalogueFileError as error:
            raise CommandError(f"{file}: {error}") from None
        self.stdout.write(f"{report.created} created, {report.updated} updated, {report.unchanged} unchanged")
