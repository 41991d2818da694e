"""What of people every template may use."""

from __future__ import annotations

from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest

from people.selectors.waiting import WaitingNumber


def waiting(request: HttpRequest) -> dict[str, WaitingNumber]:
    """Context processor: `waiting`, how much waits for the reader."""
    # A request that is refused early, for its host name, has nobody yet.
    return {"waiting": WaitingNumber(getattr(request, "user", None) or AnonymousUser())}
