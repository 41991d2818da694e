"""Views whose uploads go somewhere in pieces, never into the memory or onto the disk of a web process.

Such a view puts an upload handler of its own in place before anything reads the form. So nothing may read it earlier: the
check for readable requests and that of the CSRF token come when the view asks for them (`form_is_sound`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.exceptions import BadRequest
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import resolve
from django.views.decorators.csrf import csrf_exempt, csrf_protect

View = Callable[..., HttpResponse]


def receives_in_pieces(view: View) -> View:
    """Let this view receive its uploads itself. What it does with the form has to be behind `form_is_sound`."""
    exempt: Any = csrf_exempt(view)
    exempt.receives_in_pieces = True
    return exempt  # type: ignore[no-any-return]  # the attribute is all that is new


def is_received_in_pieces(request: HttpRequest) -> bool:
    """Whether the view that answers this request receives its form itself."""
    if request.content_type != "multipart/form-data":
        return False
    try:
        return getattr(resolve(request.path_info).func, "receives_in_pieces", False)
    except Http404:
        return False


def form_is_sound(view: View) -> View:
    """Read the form now, through the handlers of the request: 403 without its token, 400 where a text cannot be kept."""

    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        from ui.middleware import texts_of_form

        if any("\0" in text for text in texts_of_form(request)):
            raise BadRequest("malformed")
        return view(request, *args, **kwargs)

    return csrf_protect(checked)
