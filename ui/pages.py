"""One way to answer with a page: whole for a browser, a named part of the same template for htmx."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import Any

from django.http import HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils.cache import patch_vary_headers

from ui.http import PortalRequest


def render_page(
    request: PortalRequest,
    template: str,
    context: Mapping[str, Any],
    *,
    partials: Collection[str] = (),
    status: int = 200,
) -> HttpResponse:
    """Render the template; for an htmx request whose target is one of `partials`, only that part of it.

    The name of a part is the id of its element and the `hx-target` that asks for it. Boosted requests, history
    restores and unknown targets get the whole page.
    """
    htmx = request.htmx
    target = htmx.target if htmx and not (htmx.boosted or htmx.history_restore_request) else None
    name = f"{template}#{target}" if target in partials else template
    response = render(request, name, dict(context), status=status)
    patch_vary_headers(response, ["HX-Request", "HX-Target"])
    return response


def path_looked_at(request: PortalRequest) -> str:
    """The path of the page that asks for a part of itself; empty if no page asks."""
    return (request.htmx.current_url_abs_path or "").partition("?")[0]


def in_a_tidy_address(view: Callable[[PortalRequest], HttpResponse]) -> Callable[[PortalRequest], HttpResponse]:
    """Parameters that say nothing, as a form sends its empty fields, do not stay in the address of this page."""

    @wraps(view)
    def tidied(request: PortalRequest) -> HttpResponse:
        tidy = QueryDict(mutable=True)
        for name, values in request.GET.lists():
            tidy.setlist(name, [value for value in values if value])
        if all(tidy.getlist(name) == values for name, values in request.GET.lists()):
            return view(request)
        address = f"{request.path}?{tidy.urlencode()}".removesuffix("?")
        if not request.htmx:
            return redirect(address)
        response = view(request)
        response["HX-Push-Url"] = address
        return response

    return tidied
