"""`manage.py portal`: the one-command stack (what `make up` runs)."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from hotpatch_portal.stack.embedded import StackError
from hotpatch_portal.stack.portal import Options, Portal


class Command(BaseCommand):
    """Run the portal: PostgreSQL, Redis, web, two workers and beat. PORT, HOST, DEMO and PORTAL_DIR steer it."""

    help = "Run the whole portal on this machine (PORT, HOST, DEMO, PORTAL_DIR, DATABASE_URL, REDIS_URL)."
    requires_system_checks: list[str] = []

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Run until Ctrl-C, or end with one sentence that says why not."""
        try:
            Portal(Options.from_environment(os.environ, base_dir=settings.BASE_DIR)).run()
        except StackError as error:
            raise CommandError(str(error)) from None
