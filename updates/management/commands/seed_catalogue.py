"""`manage.py seed_catalogue`: the releases and updates that come with the portal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from updates.services.catalogue import import_catalogue

DATA = Path(__file__).resolve().parents[2] / "data"
FILES = ("hotpatch_releases.json", "other_updates.json")


class Command(BaseCommand):
    """Import the recorded data that the portal brings; importing it twice changes nothing."""

    help = "Import the releases and other updates that come with the portal."

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Import both files."""
        for name in FILES:
            report = import_catalogue(data=(DATA / name).read_bytes())
            self.stdout.write(
                f"{name}: {report.created} created, {report.updated} updated, {report.unchanged} unchanged"
            )
