"""The request as the server hands it in, and as our views get it."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest
from django.utils.http import parse_header_parameters
from django_htmx.middleware import HtmxDetails


class PortalRequest(HttpRequest):
    """A request that passed our middleware: signed in (LoginRequiredMiddleware), and htmx or not."""

    user: User
    htmx: HtmxDetails


class ServedRequest(WSGIRequest):
    """A request whose content type decides no codec: Django would fail on some of them before any middleware runs.

    Nothing is judged here. Forms are read as UTF-8, and `ui.middleware.ReadableRequest` refuses what claims to be something
    else.
    """

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        try:
            self.content_type, self.content_params = parse_header_parameters(meta.get("CONTENT_TYPE", ""))
        except (ValueError, LookupError):
            self.content_type, self.content_params = "", {"charset": "unknown"}
