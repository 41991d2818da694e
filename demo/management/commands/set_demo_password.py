"""`manage.py set_demo_password`: give the demo administrator the password that comes on standard input."""

from __future__ import annotations

import sys
from typing import Any

from django.contrib.auth.models import User

from audit.commands import SignedCommand
from demo.management.commands.seed_demo import ADMIN


class Command(SignedCommand):
    """Set the password of the demo administrator; it never appears on a command line or in a log."""

    help = "Set the demo administrator's password (read from standard input)."

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Read it and set it."""
        admin = User.objects.get(username=ADMIN)
        admin.set_password(sys.stdin.read().strip())
        admin.save(update_fields=["password"])
