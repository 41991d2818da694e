"""What holds for every request: it can be read, its answer is nobody else's, times are shown in the reader's zone."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import structlog
from django.db import DataError
from django.http import HttpRequest, HttpResponse, QueryDict
from django.http.multipartparser import MultiPartParserError
from django.http.request import UnreadablePostError
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils import timezone
from django.utils.cache import patch_cache_control

from ui.icons import with_drawings
from ui.preferences import time_zone_of
from ui.uploads import is_received_in_pieces

GetResponse = Callable[[HttpRequest], HttpResponseBase]
log = structlog.get_logger(__name__)
# What browsers and our own pages send; another charset could hide from checks what it becomes later.
CHARSETS = frozenset({"utf-8", "ascii"})


class ReadableRequest:
    """Refuse what no page could use with 400 or 415, so that no view, form or library meets it.

    That is: NUL in a parameter, field, file name, header or cookie; a charset other than UTF-8; a malformed body. An
    HX-Current-URL that is no address counts as not sent.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer, or refuse."""
        charset = (request.content_params or {}).get("charset")
        if charset is not None and not _is_ours(charset):
            request.encoding = "utf-8"  # nobody may meet the other one on the way out
            return self.refuse(request, "charset", status=415)
        try:
            is_readable = "\0" not in "\n".join(_texts(request, with_form=not is_received_in_pieces(request)))
        except (MultiPartParserError, UnreadablePostError, UnicodeError):
            is_readable = False
        if not is_readable:
            return self.refuse(request, "malformed")
        _forget_malformed_address(request)
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """A value that the database cannot hold came with the request: it is refused like one that cannot be read."""
        if isinstance(exception, DataError):
            return self.refuse(request, str(exception).splitlines()[0])
        return None

    def refuse(self, request: HttpRequest, why: str, *, status: int = 400) -> HttpResponse:
        """Say in one line of the log and on one page that the request cannot be read."""
        log.warning("request.refused", why=why, method=request.method, path=request.path[:200], status=status)
        return render(None, "400.html", status=status)


def _is_ours(charset: str) -> bool:
    try:
        return codecs.lookup(charset).name in CHARSETS
    except (LookupError, ValueError):
        return False


def _texts(request: HttpRequest, *, with_form: bool) -> Iterator[str]:
    """What came with the request as text, but for its path: there an unknown one is 404 anyway."""
    yield from (str(value) for name, value in request.META.items() if name.startswith(("HTTP_", "CONTENT_")))
    for name, cookie in request.COOKIES.items():
        yield from (name, cookie)
    yield from _fields(request.GET)
    if with_form:
        yield from texts_of_form(request)


def _fields(query: QueryDict) -> Iterator[str]:
    for name, values in query.lists():
        yield name
        yield from (str(value) for value in values)


def texts_of_form(request: HttpRequest) -> Iterator[str]:
    """Everything that came in the body of the request as text."""
    yield from _fields(request.POST)
    for name, files in request.FILES.lists():
        yield name
        yield from (f"{file.name}{file.content_type}" for file in files)


def _forget_malformed_address(request: HttpRequest) -> None:
    """Libraries take this header apart without a guard."""
    try:
        urlsplit(request.META.get("HTTP_HX_CURRENT_URL", ""))
    except ValueError:
        del request.META["HTTP_HX_CURRENT_URL"]


def drawn_icons(get_response: GetResponse) -> GetResponse:
    """Give every page the drawings of the icons that it uses, once each (`ui.icons`)."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        is_page = response.get("Content-Type", "").startswith("text/html") and not response.has_header(
            "Content-Encoding"
        )
        if isinstance(response, HttpResponse) and is_page:
            response.content = with_drawings(response.content)
            if response.has_header("Content-Length"):
                response["Content-Length"] = str(len(response.content))
        return response

    return middleware


def private_answers(get_response: GetResponse) -> GetResponse:
    """Pages and files are the reader's own: nothing on the way keeps them, and a browser asks again.

    Static files never come here; an answer that says something about caching itself keeps it.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        if not response.has_header("Cache-Control"):
            patch_cache_control(response, private=True, no_cache=True)
        return response

    return middleware


def reader_time_zone(get_response: GetResponse) -> GetResponse:
    """Activate the reader's time zone for the length of the request."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        with timezone.override(time_zone_of(request)):
            return get_response(request)

    return middleware
