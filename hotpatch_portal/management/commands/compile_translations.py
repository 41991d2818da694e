"""`manage.py compile_translations`: make the .mo files that Django reads, in Python."""

from __future__ import annotations

from typing import Any

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from django.conf import settings
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Compile the translations that are newer than their compiled form."""

    help = "Compile the translations (no gettext needed)."
    requires_system_checks: list[str] = []

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Compile."""
        for source in sorted((settings.BASE_DIR / "locale").glob("*/LC_MESSAGES/*.po")):
            target = source.with_suffix(".mo")
            if target.exists() and target.stat().st_mtime >= source.stat().st_mtime:
                continue
            with source.open("rb") as file:
                catalogue = read_po(file, locale=source.parts[-3], abort_invalid=True)
            unfinished = target.with_suffix(".mo.new")
            with unfinished.open("wb") as file:
                write_mo(file, catalogue)
            unfinished.replace(target)
            self.stdout.write(f"compiled {target.relative_to(settings.BASE_DIR)}")
