"""`manage.py serve_metrics`: /metrics on a port of its own, which `make up` runs where METRICS_PORT is set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import structlog
import waitress
from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.core.management.base import BaseCommand, CommandError
from django.db import close_old_connections

from hotpatch_portal.checks import open_metrics
from hotpatch_portal.counting import use_directory

log = structlog.get_logger(__name__)
StartResponse = Callable[[str, list[tuple[str, str]]], object]


def application(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """One address. The token is asked for where one is set."""
    from hotpatch_portal import metrics, outside

    def answer(status: str, body: bytes, content_type: str = "text/plain; charset=utf-8") -> Iterable[bytes]:
        length = str(len(body))
        start_response(
            status, [("Content-Type", content_type), ("Content-Length", length), ("Cache-Control", "no-store")]
        )
        return [body]

    if environ.get("PATH_INFO") != "/metrics":
        return answer("404 Not Found", b"Not found.\n")
    if environ.get("REQUEST_METHOD") != "GET":
        return answer("405 Method Not Allowed", b"Only GET.\n")
    if settings.METRICS_TOKEN and not outside.holds_token(WSGIRequest(environ)):
        return answer("401 Unauthorized", b"A token is needed.\n")
    close_old_connections()
    try:
        return answer("200 OK", metrics.render(), metrics.CONTENT_TYPE)
    finally:
        close_old_connections()


class Command(BaseCommand):
    """Serve the metrics of this machine's processes until told to stop."""

    requires_system_checks: list[str] = []
    help = "Serve /metrics at METRICS_HOST:METRICS_PORT (loopback by default)."

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Serve."""
        if not settings.METRICS_PORT:
            raise CommandError("METRICS_PORT is not set: name the port to serve the metrics on.")
        for error in open_metrics():
            raise CommandError(f"{error.msg} {error.hint}")
        use_directory(settings.PORTAL_DIR)
        try:
            server = waitress.create_server(
                application, host=settings.METRICS_HOST, port=settings.METRICS_PORT, threads=2, ident=""
            )
        except OSError as error:
            raise CommandError(
                f"Cannot listen on {settings.METRICS_HOST}:{settings.METRICS_PORT} ({error.strerror}): "
                "choose another METRICS_PORT."
            ) from None
        log.info("metrics_served", host=settings.METRICS_HOST, port=settings.METRICS_PORT)
        server.run()
