"""What whoever watches from outside asks for: /healthz, /readyz and /metrics, answered before anything else.

Probes come with any Host header, without TLS and without a session, so these addresses are answered by the first
middleware: no host check, no redirect, no session, no database but where they say so. They tell strangers nothing: a word.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import path
from django.views.decorators.http import require_safe

from hotpatch_portal import metrics
from hotpatch_portal.schema import compare_migrations
from updates.selectors.load import seconds_since_a_worker

log = structlog.get_logger(__name__)
GetResponse = Callable[[HttpRequest], HttpResponseBase]
# However often somebody asks, each process looks at most this often, one thread at a time.
LOOK_EVERY_SECONDS = 2.0
# While a look takes longer than this (the database is away), nobody knows, and that is "not ready".
STALE_SECONDS = 10.0
STATEMENT_SECONDS = 2.0
WORKER_SECONDS = 60.0


# --- who asks ----------------------------------------------------------------------------------------------------


def holds_token(request: HttpRequest) -> bool:
    """Whether the request brings METRICS_TOKEN. The comparison takes as long for a wrong one."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    expected: str = settings.METRICS_TOKEN
    same = hmac.compare_digest(given.strip().encode(), expected.encode())
    return bool(expected) and scheme.lower() == "bearer" and same


def _answer(text: str | bytes, *, status: int = 200, content_type: str = "text/plain; charset=utf-8") -> HttpResponse:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return HttpResponse(text, status=status, content_type=content_type, headers=headers)


# --- readiness ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look found: nothing, or reasons for not being ready, each one line."""

    reasons: tuple[str, ...]
    seen_at: float


def reasons_not_ready() -> tuple[str, ...]:
    """Ask the database: does it answer, does its schema fit this code, was a worker heard of within a minute?"""
    reasons = []
    try:
        missing, unknown = compare_migrations()
        if missing:
            reasons.append(f"migrations: {missing[0]} is not applied ({len(missing)} in all); run manage.py migrate")
        elif unknown:
            reasons.append(f"migrations: {unknown[0]} is not known; the database is of a newer version")
        else:
            silence = seconds_since_a_worker(seconds=STATEMENT_SECONDS)
            if silence is None:
                reasons.append("workers: none was ever heard of")
            elif abs(silence) > WORKER_SECONDS:
                reasons.append(f"workers: the last one was heard of {silence:.0f} s ago")
    except (DatabaseError, InterfaceError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        reasons.append(f"database: {first_line}")
    return tuple(reasons)


class Readiness:
    """The last verdict of this process. One thread looks; whoever asks meanwhile gets what was known before."""

    def __init__(self) -> None:
        self._looking = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Look anew at the next question."""
        self._last: Verdict | None = None

    def ask(self) -> tuple[str, ...]:
        """The reasons why this portal is not ready; empty: it is."""
        if self._is_old(LOOK_EVERY_SECONDS) and self._looking.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._looking.release()
        if self._last is None or self._is_old(STALE_SECONDS):
            return ("database: no answer yet",)
        return self._last.reasons

    def _is_old(self, seconds: float) -> bool:
        return self._last is None or time.monotonic() - self._last.seen_at > seconds

    def _look(self) -> None:
        before = self._last.reasons if self._last else ()
        reasons = reasons_not_ready()
        self._last = Verdict(reasons, time.monotonic())
        if reasons and reasons != before:
            log.warning("not_ready", reasons=reasons)
        elif before and not reasons:
            log.info("ready_again")


readiness = Readiness()


# --- the addresses -----------------------------------------------------------------------------------------------


@login_not_required
@require_safe
def healthz(_request: HttpRequest) -> HttpResponse:
    """200 while this process answers. It asks neither the database nor another process."""
    return _answer("ok\n")


@login_not_required
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Whether pages and operations work: 200 or 503. The reasons go to the log, and to a request with the token."""
    reasons = readiness.ask()
    text = "\n".join(("not ok", *(reasons if holds_token(request) else ()))) if reasons else "ok"
    return _answer(f"{text}\n", status=503 if reasons else 200)


@login_not_required
@require_safe
def scrape(request: HttpRequest) -> HttpResponse:
    """The metrics, for a request with the token. 404 if no token is set."""
    if not settings.METRICS_TOKEN:
        return _answer("Not found.\n", status=404)
    if not holds_token(request):
        refused = _answer("A token is needed.\n", status=401)
        refused["WWW-Authenticate"] = "Bearer"
        return refused
    return _answer(metrics.render(), content_type=metrics.CONTENT_TYPE)


urlpatterns = [
    path("healthz", healthz, name="healthz"),
    path("readyz", readyz, name="readyz"),
    path("metrics", scrape, name="metrics"),
]
_ANSWERS: dict[str, Callable[[HttpRequest], HttpResponse]] = {
    f"/{pattern.pattern}": pattern.callback for pattern in urlpatterns
}


# --- every request -----------------------------------------------------------------------------------------------

_METHODS = frozenset({"GET", "HEAD", "POST"})


def seen_from_outside(get_response: GetResponse) -> GetResponse:
    """Answer probes and scrapes first; note how long everything else takes, by the name of its view."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        answer = _ANSWERS.get(request.path_info)
        if answer is not None:
            return answer(request)
        began = time.perf_counter()
        response = get_response(request)
        match = request.resolver_match
        # Labels are names of ours, however many addresses somebody tries.
        view = match.view_name if match is not None else "none"
        method = request.method if request.method in _METHODS else "other"
        status = f"{response.status_code // 100}xx"
        metrics.REQUESTS.labels(view, method, status).observe(time.perf_counter() - began)
        return response

    return middleware
