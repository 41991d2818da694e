"""Requests that nobody could have meant are refused; times are shown in the reader's zone."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from django.contrib.admin.options import TO_FIELD_VAR
from django.core.exceptions import BadRequest, SuspiciousOperation
from django.http import HttpRequest, HttpResponseBase, QueryDict
from django.http.multipartparser import MultiPartParserError
from django.shortcuts import render
from django.utils import timezone

from ui.preferences import time_zone_of


def reader_time_zone(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Activate the reader's time zone for the length of the request."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        with timezone.override(time_zone_of(request)):
            return get_response(request)

    return middleware


# Forms come as text in UTF-8 from every browser; what Python's other codecs would make of them is nobody's business.
FORM_CHARSETS = {"utf-8", "ascii", "iso8859-1"}
ADDRESS_HEADERS = ("HTTP_HX_CURRENT_URL", "HTTP_REFERER", "HTTP_ORIGIN")


def only_sound_requests(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Answer with 400, in words, what would fail later on: in a query, in a codec, in whatever reads it first.

    That is a NUL, which no column can hold and no form sends; a form in no charset or shape; an address that is none.
    Comes before everything that reads cookies, headers or forms.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        for part in _broken_parts(request):
            return render(None, "400_broken.html", {"part": part}, status=400)
        return get_response(request)

    return middleware


def _broken_parts(request: HttpRequest) -> Iterator[str]:
    """What of a request cannot be read, as the page that refuses it names it: path, query, header or form."""
    if "\0" in request.path_info:
        yield "path"
    if _has_nul(request.GET) or request.GET.get(TO_FIELD_VAR) == "":  # the admin site looks for a field of that name
        yield "query"
    for name, value in request.META.items():
        if name.startswith("HTTP_") and "\0" in value:
            yield "header"
    if any("\0" in value or "\\000" in value for value in request.COOKIES.values()):
        yield "header"
    for name in ADDRESS_HEADERS:
        try:
            urlsplit(request.META.get(name, "")).port  # noqa: B018 (reads it, which is what fails)
        except ValueError:
            yield "header"
    if request.method in {"POST", "PUT", "PATCH", "DELETE"} and not _form_is_sound(request):
        yield "form"


def _has_nul(fields: QueryDict) -> bool:
    return any("\0" in text for name, values in fields.lists() for text in (name, *values))


def _form_is_sound(request: HttpRequest) -> bool:
    if charset := (request.content_params or {}).get("charset"):
        try:
            if codecs.lookup(charset).name not in FORM_CHARSETS:
                return False
        except LookupError:
            return False
    try:
        return not _has_nul(request.POST)
    except (BadRequest, SuspiciousOperation, MultiPartParserError, ValueError, LookupError):
        return False
