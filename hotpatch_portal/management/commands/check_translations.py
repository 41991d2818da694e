"""`manage.py check_translations [--write]`: every text of the interface has its Japanese, or this fails.

Extraction is gettext's (the `makemessages` of Django), in a copy of the sources; with `--write` the catalogue in
`locale/` gets the new texts, still to be translated.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from babel.messages.pofile import read_po
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

SOURCES = (
    "ui",
    "audit",
    "vms",
    "updates",
    "people",
    "notifications",
    "arm_api",
    "hotpatch_portal",
    "demo",
    "templates",
    "locale",
)
CATALOGUE = Path("locale/ja/LC_MESSAGES/django.po")


class Command(BaseCommand):
    """Compare the texts of the interface with the Japanese catalogue."""

    help = "Fail if a text of the interface has no Japanese, or only a fuzzy one."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add `--write`."""
        parser.add_argument("--write", action="store_true", help="write new texts into the catalogue")

    def handle(self, *_args: Any, write: bool, **_options: Any) -> None:
        """Extract, compare, and name every text that is missing."""
        if shutil.which("xgettext") is None:
            raise CommandError("Extracting texts needs gettext. Run: sudo apt-get install gettext")
        with tempfile.TemporaryDirectory() as directory:
            extracted = _extract(Path(directory))
            if write:
                shutil.copyfile(extracted, settings.BASE_DIR / CATALOGUE)
            with extracted.open("rb") as file:
                catalogue = read_po(file, abort_invalid=True)
        missing = [
            str(message.id)
            for message in catalogue
            if message.id and (message.fuzzy or not message.string or not all(message.string))
        ]
        unused = [str(message.id) for message in catalogue.obsolete.values()]
        for text in missing:
            self.stdout.write(f"no Japanese: {text}")
        for text in unused:
            self.stdout.write(f"not used any more: {text}")
        if missing or unused:
            raise CommandError(
                f"{len(missing)} texts have no Japanese and {len(unused)} are not used any more in {CATALOGUE}. "
                "Run `manage.py check_translations --write` and translate them."
            )
        self.stdout.write(f"{len(catalogue)} texts, all translated")


def _extract(copy: Path) -> Path:
    """Run makemessages on a copy of the sources; where the catalogue is afterwards."""
    (copy / CATALOGUE).parent.mkdir(parents=True)
    for name in SOURCES:
        if (settings.BASE_DIR / name).exists():
            shutil.copytree(settings.BASE_DIR / name, copy / name, dirs_exist_ok=True)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "django", "makemessages", "--locale", "ja"),
            *("--no-location", "--no-wrap"),
        ],
        cwd=copy,
        env={key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise CommandError(f"makemessages failed: {done.stderr.strip()}")
    return copy / CATALOGUE
