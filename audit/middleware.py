"""Requests that change something are signed: who is signed in, by which door, and the reason of the form."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from pghistory.middleware import HistoryMiddleware

from audit.context import forget
from audit.tags import Door
from ui.uploads import is_received_in_pieces

MAX_REASON = 500


class SignedRequests(HistoryMiddleware):
    """A form's field `reason`, wherever there is one, is kept with what the form changes."""

    def __call__(self, request: HttpRequest) -> Any:
        """Answer; what the same transaction does afterwards is not the request's."""
        response = super().__call__(request)  # type: ignore[no-untyped-call]  # pghistory ships no types
        if request.method in settings.PGHISTORY_MIDDLEWARE_METHODS:
            forget()
        return response

    def get_context(self, request: HttpRequest) -> dict[str, Any]:
        """The facts of the request that are kept."""
        is_admin = request.path.startswith(reverse("admin:index"))
        facts: dict[str, Any] = super().get_context(request)
        facts["door"] = (Door.ADMIN if is_admin else Door.PAGE).value
        # The view reads a form that comes in pieces itself; it may not be read before.
        if not is_received_in_pieces(request) and (reason := request.POST.get("reason", "").strip()[:MAX_REASON]):
            facts["reason"] = reason
        return facts
