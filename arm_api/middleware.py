"""What is refused before it reaches the door, in the door's words: programs read no pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve

from arm_api import views
from arm_api.calls import Answer
from arm_api.door import respond

_CODES: Mapping[int, tuple[str, str]] = {
    400: ("BadRequest", "The request cannot be read."),
    405: ("MethodNotAllowed", "The method is not supported here."),
    413: ("RequestEntityTooLarge", "The request is too large."),
    415: ("UnsupportedMediaType", "The request must be UTF-8."),
    503: ("ServiceUnavailable", "The portal cannot answer at the moment. Please try again."),
}
_BROKEN = ("InternalServerError", "The portal could not answer; its log has the cause.")
_KEPT = ("Allow", "Retry-After")


def in_the_envelope(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponseBase]:
    """Answer an address of the door with ARM's envelope, also where a page of the portal says what went wrong."""

    def answered(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        is_page = response.status_code >= 400 and not response.get("Content-Type", "").startswith("application/json")
        if not (is_page and _is_for_programs(request.path_info)):
            return response
        code, words = _CODES.get(response.status_code, _BROKEN)
        headers = {name: response[name] for name in _KEPT if name in response}
        return respond(request, Answer({"error": {"code": code, "message": words}}, response.status_code, headers))

    return answered


def _is_for_programs(path: str) -> bool:
    try:
        return resolve(path).func.__module__ == views.__name__
    except Resolver404:
        return False
