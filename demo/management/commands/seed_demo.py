"""`manage.py seed_demo`: the recorded catalogue and the demo fleet, once."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.management import call_command

from audit.commands import SignedCommand
from demo.fleet import seed

ADMIN = "admin"


class Command(SignedCommand):
    """Seed the demo; what is there already stays as it is."""

    help = "Import the recorded catalogue and make the demo fleet. Running it again changes nothing."

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Seed."""
        call_command("seed_catalogue", if_empty=True, stdout=self.stdout)
        admin, is_new = User.objects.get_or_create(username=ADMIN, defaults={"is_staff": True, "is_superuser": True})
        if is_new:
            admin.set_unusable_password()
            admin.save(update_fields=["password"])
        count = seed(admin)
        self.stdout.write(f"{count} virtual machines made" if count else "the demo fleet is there already")
