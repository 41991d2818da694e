"""`manage.py seed_catalogue`: the releases and updates that come with the portal."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from audit.commands import SignedCommand
from updates.models import Release
from updates.services.catalogue import import_catalogue

DATA = Path(__file__).resolve().parents[2] / "data"
FILES = ("hotpatch_releases.json", "other_updates.json")


class Command(SignedCommand):
    """Import the recorded data that the portal brings; importing it twice changes nothing."""

    help = "Import the releases and other updates that come with the portal."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add `--if-empty` and `--keep-corrections`."""
        parser.add_argument(
            "--if-empty", action="store_true", help="do nothing where releases are recorded: corrections stay"
        )
        parser.add_argument(
            "--keep-corrections", action="store_true", help="bring in what is new, and leave what people corrected"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Import both files."""
        if options["if_empty"] and Release.objects.exists():
            return
        for name in FILES:
            report = import_catalogue(
                data=(DATA / name).read_bytes(), file_name=name, keeps_corrections=bool(options["keep_corrections"])
            )
            self.stdout.write(
                f"{name}: {report.created} created, {report.updated} updated, {report.unchanged} unchanged"
            )
