"""What every command of ours that writes is made of."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from audit.context import acting, operating_system_user
from audit.tags import Door


class SignedCommand(BaseCommand):
    """A command whose changes are kept as its own: its name, and the operating system's account that ran it."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run it as Django does, signed."""
        name = type(self).__module__.rpartition(".")[2]
        with acting(door=Door.COMMAND, agent=f"{name} ({operating_system_user()})"):
            return super().execute(*args, **options)
