"""The pages that say that something went wrong."""

from __future__ import annotations

import sys

from django.contrib.auth.decorators import login_not_required
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


@login_not_required
def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:  # noqa: ARG001 (Django's signature)
    """The form was open too long or cookies are blocked: say so, and lose nothing that was not sent."""
    return render(request, "403_csrf.html", status=403)


RETRY_SECONDS = 5


@login_not_required
def server_error(request: HttpRequest) -> HttpResponse:
    """Something went wrong; while the database is away a calm page that comes back by itself.

    Neither page asks the database for anything.
    """
    if isinstance(sys.exc_info()[1], (OperationalError, InterfaceError)):
        context = {"retry_seconds": RETRY_SECONDS if request.method == "GET" else None}
        response = render(None, "503.html", context, status=503)
        response["Retry-After"] = str(RETRY_SECONDS)
        return response
    return render(None, "500.html", status=500)
