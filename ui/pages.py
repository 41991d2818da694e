"""One way to answer with a page: whole for a browser, a named part of the same template for htmx."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
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
