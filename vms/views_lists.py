"""What a person keeps of the list: its columns and views."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils.html import format_html_join
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from db.bounded import ListTooSlowError
from ui.http import PortalRequest
from ui.pages import render_page
from vms.filters import LIST_PARAMETERS, VmFilter
from vms.forms.lists import ColumnsForm, ViewForm
from vms.list_tabs import query_of
from vms.models import Grants, SavedView
from vms.selectors import OFFERING, WAYS, list_head, offers_like, visible_views
from vms.services.views import (
    ViewExistsError,
    change_view,
    choose_columns,
    may_remove,
    may_share,
    remove_view,
    replace_filters,
    save_view,
)

MAX_TYPED = 200  # characters


@require_GET
def suggestions(request: PortalRequest) -> HttpResponse:
    """What a filter's text may mean: values that contain it, of what the reader may see."""
    name = next((name for name in OFFERING if name in request.GET), "")
    offers: tuple[str, ...] = ()
    with suppress(ListTooSlowError):
        offers = offers_like(Grants.of(request.user), name, request.GET.get(name, "")[:MAX_TYPED]) if name else ()
    return HttpResponse(format_html_join("", '<option value="{}">', ((offer,) for offer in offers)))


@require_http_methods(["GET", "POST"])
def list_columns(request: PortalRequest) -> HttpResponse:
    """Which columns this person's list has, and their order."""
    head = list_head(request.user, Grants.of(request.user))
    form = ColumnsForm(request.POST if request.method == "POST" else None, shown=head.columns)
    if form.is_bound and form.is_valid():
        choose_columns(user=request.user, columns=form.columns)
        return redirect(f"{reverse('vms:vm-list')}?{request.GET.urlencode()}".removesuffix("?"))
    return render_page(request, "vms/list_columns.html", {"form": form}, status=422 if form.errors else 200)


@require_http_methods(["GET", "POST"])
def view_save(request: PortalRequest) -> HttpResponse:
    """Keep the list of this address by a name; an address that cannot be read is not kept."""
    filters = VmFilter.of(request.user, request.GET)
    shares = may_share(Grants.last_read(request.user))
    form = ViewForm(request.POST if request.method == "POST" else None, may_share=shares)
    problems = filters.problems(LIST_PARAMETERS)
    query = _query(request, filters)
    if form.is_bound and form.is_valid() and not problems and (view := _saved(request, form, query)):
        messages.success(request, _("The view “%(name)s” was saved.") % {"name": view.name})
        return redirect(f"{reverse('vms:vm-list')}?{query}".removesuffix("?"))
    context = {"form": form, "filters": filters, "problems": problems, "query": query}
    seen = visible_views(request.user).select_related("owner").order_by("name", "pk")
    context["views"] = [view for view in seen if may_remove(view=view, by=request.user)]
    return render_page(request, "vms/view_save.html", context, status=422 if form.errors or problems else 200)


def _saved(request: PortalRequest, form: ViewForm, address: str) -> SavedView | None:
    """The view that a valid form asks for. None: refused; the form says why."""
    said = form.cleaned_data
    try:
        return save_view(owner=request.user, name=said["name"], address=address, is_shared=said.get("is_shared", False))
    except ViewExistsError:
        form.say_name_is_taken()
        return None


@require_GET
def view_open(request: PortalRequest, pk: int) -> HttpResponse:
    """The list of a view; a view whose filters mean nothing any more says so, and shows no machine."""
    view = get_object_or_404(visible_views(request.user), pk=pk)
    problems = VmFilter.of(request.user, QueryDict(view.address)).problems(LIST_PARAMETERS)
    if not problems:
        return redirect(f"{reverse('vms:vm-list')}?{view.address}".removesuffix("?"))
    context = {"view": view, "problems": problems, "may_remove": may_remove(view=view, by=request.user)}
    return render_page(request, "vms/view_broken.html", context, status=422)


@require_http_methods(["GET", "POST"])
def view_edit(request: PortalRequest, pk: int) -> HttpResponse:
    """Another name for one's view, and whether everybody sees it."""
    view = _own_view(request, pk)
    data = request.POST if request.method == "POST" else None
    form = ViewForm(data, may_share=may_share(Grants.of(request.user)), view=view)
    if form.is_bound and form.is_valid() and _changed(request, view, form):
        messages.success(request, _("The view “%(name)s” was saved.") % {"name": view.name})
        return redirect("vms:view", view.pk)
    context = {"view": view, "form": form, "told": _filters_of(request, view).told}
    return render_page(request, "vms/view_edit.html", context, status=422 if form.errors else 200)


def _own_view(request: PortalRequest, pk: int) -> SavedView:
    """A view of the reader's; what belongs to others is not there to be changed."""
    return get_object_or_404(visible_views(request.user).filter(owner=request.user), pk=pk)


def _changed(request: PortalRequest, view: SavedView, form: ViewForm) -> bool:
    """Whether the view is as a valid form says now. False: refused; the form says why."""
    said = form.cleaned_data
    try:
        change_view(view=view, name=said["name"], is_shared=said.get("is_shared", False), by=request.user)
    except ViewExistsError:
        form.say_name_is_taken()
        return False
    return True


def _filters_of(request: PortalRequest, view: SavedView) -> VmFilter:
    return VmFilter.of(request.user, QueryDict(view.address))


@require_http_methods(["GET", "POST"])
def view_replace(request: PortalRequest, pk: int) -> HttpResponse:
    """One's view with the filters of this address in place of its own, once that is confirmed."""
    view, filters = _own_view(request, pk), VmFilter.of(request.user, request.GET)
    problems = filters.problems(LIST_PARAMETERS)
    query = _query(request, filters)
    if request.method == "POST" and not problems:
        replace_filters(view=view, address=query, by=request.user)
        messages.success(request, _("The view “%(name)s” was saved.") % {"name": view.name})
        return redirect("vms:view", view.pk)
    before = _filters_of(request, view).told
    context = {"view": view, "problems": problems, "query": query, "before": before, "after": filters.told}
    return render_page(request, "vms/view_replace.html", context, status=422 if problems else 200)


def _query(request: PortalRequest, filters: VmFilter) -> str:
    """What a view keeps of the list of this address: its filters, and an order that was asked for."""
    order = request.GET.get("sort", "")
    return urlencode(query_of(filters, order if order in WAYS else ""))


@require_http_methods(["GET", "POST"])
def view_remove(request: PortalRequest, pk: int) -> HttpResponse:
    """Forget a view, once that is confirmed: one's own, or as an Owner of everything a shared one."""
    view = get_object_or_404(visible_views(request.user), pk=pk)
    if not may_remove(view=view, by=request.user):
        raise Http404
    if request.method == "POST":
        remove_view(view=view, by=request.user)
        messages.success(request, _("The view “%(name)s” was removed.") % {"name": view.name})
        return redirect("vms:vm-list")
    return render_page(request, "vms/view_remove.html", {"view": view, "told": _filters_of(request, view).told})
