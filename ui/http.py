"""The request as our views get it."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.http import HttpRequest
from django_htmx.middleware import HtmxDetails


class PortalRequest(HttpRequest):
    """A request that passed our middleware: signed in (LoginRequiredMiddleware), and htmx or not."""

    user: User
    htmx: HtmxDetails
