"""What pages are compared with: their own templates from what stands in memory, and a view that says hello."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any, cast
from unittest import mock

from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import User
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import include, path, resolve

from ui.pages import render_page
from vms.filters import VmFilter
from vms.models import Grants, VirtualMachine
from vms.selectors import VmPage, filter_options, vm_page


@cache
def _page(user: User) -> tuple[VmPage, Any]:
    page = vm_page(VirtualMachine.objects.all())
    filters = VmFilter({}, VirtualMachine.objects.none(), options=filter_options(Grants.of(user)))
    assert filters.qs is not None  # validates it, as the list does
    return page, filters


def ceiling(request: HttpRequest) -> HttpResponse:
    """The list's template from rows and filters in memory; the session and the user are read as everywhere."""
    page, filters = _page(cast("User", request.user))
    context = {"filters": filters, "page": page, "order": "name"}
    return render_page(request, "vms/list.html", context)  # type: ignore[arg-type]


_rendered: dict[tuple[int | None, str], tuple[tuple[Any, ...], dict[str, Any]]] = {}
_once = threading.Lock()


def memory(request: HttpRequest, page: str) -> HttpResponse:
    """Any page of the portal from what it was first rendered with, for this person and address: nothing is looked up again."""
    key = (request.user.pk, request.get_full_path())
    with _once:
        if key not in _rendered:
            found = resolve(f"/{page}")

            def keep(_request: HttpRequest, *arguments: Any, **options: Any) -> HttpResponse:
                _rendered[key] = (arguments, options)
                return render(_request, *arguments, **options)

            with mock.patch("ui.pages.render", keep):
                found.func(request, *found.args, **found.kwargs)
    arguments, options = _rendered[key]
    return render(request, *arguments, **options)


@login_not_required
def hello(_request: HttpRequest) -> HttpResponse:
    """Nothing but the middleware."""
    return HttpResponse("hello")


def count_queries(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Say in a header how many statements a page took."""

    def middleware(request: HttpRequest) -> Any:
        count = 0

        def counting(execute: Any, *args: Any) -> Any:
            nonlocal count
            count += 1
            return execute(*args)

        with connection.execute_wrapper(counting):
            response = get_response(request)
        response["X-Queries"] = str(count)
        return response

    return middleware


urlpatterns = [
    path("bench/ceiling/", ceiling),
    path("bench/hello/", hello),
    path("bench/memory/<path:page>", memory),
    path("bench/memory/", memory, {"page": ""}),
    path("", include("hotpatch_portal.urls")),
]
