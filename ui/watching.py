"""Which operations a reader waits for: ids in a cookie, so that a page without any costs neither query nor poll."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

R = TypeVar("R", bound=HttpResponseBase)
WATCHING_COOKIE = "watching"
MOST = 5
_AGE_SECONDS = 24 * 60 * 60


def watched(request: HttpRequest) -> list[UUID]:
    """The operations that the reader waits for, the newest last. Values that are not ids are ignored."""
    found = []
    for part in request.COOKIES.get(WATCHING_COOKIE, "")[: MOST * 33].split("."):
        try:
            found.append(UUID(part))
        except ValueError:
            continue
    return found[-MOST:]


def watch(request: HttpRequest, response: R, operation_id: UUID | None) -> R:
    """This response; the reader is told when the operation (if there is one) has ended, wherever the reader is then."""
    if operation_id is not None:
        keep_watching(response, [*(pk for pk in watched(request) if pk != operation_id), operation_id])
    return response


def keep_watching(response: HttpResponseBase, operation_ids: Collection[UUID]) -> None:
    """Wait for these operations alone."""
    if not operation_ids:
        response.delete_cookie(WATCHING_COOKIE, samesite="Lax")
        return
    response.set_cookie(
        WATCHING_COOKIE,
        ".".join(pk.hex for pk in list(operation_ids)[-MOST:]),
        max_age=_AGE_SECONDS,
        samesite="Lax",
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
    )
