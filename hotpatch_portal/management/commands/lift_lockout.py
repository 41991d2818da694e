"""`manage.py lift_lockout`: forget how often anybody tried to sign in."""

from __future__ import annotations

from typing import Any

from django.core.cache import cache

from audit.commands import SignedCommand
from audit.services import Act, record
from audit.tags import Tag


class Command(SignedCommand):
    """Whoever typed a wrong password too often may sign in again at once."""

    help = "Lift every lock-out of the sign-in page; the counts of failures begin anew."

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Forget the counts: nothing else is kept in the cache."""
        cache.clear()
        record(acts=[Act(Tag.LOCKOUT_LIFT)])
        self.stdout.write("Nobody is locked out any more.")
