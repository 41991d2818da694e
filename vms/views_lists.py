"""What a person keeps of the list: its columns and views."""

from __future__ import annotations

from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from ui.http import PortalRequest
from ui.pages import render_page
from vms.filters import LIST_PARAMETERS, VmFilter
from vms.forms.lists import ColumnsForm, ViewForm
from vms.list_tabs import query_of
from vms.models import Grants, SavedView
from vms.selectors import ORDERS, list_head, visible_views
from vms.services.views import ViewExistsError, choose_columns, may_remove, may_share, remove_view, save_view


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
    order = request.GET.get("sort", "")
    query = urlencode(query_of(filters, order if order in ORDERS else ""))
    if form.is_bound and form.is_valid() and not problems and (view := _saved(request, form, query)):
        messages.success(request, _("The view “%(name)s” was saved.") % {"name": view.name})
        return redirect(f"{reverse('vms:vm-list')}?{query}".removesuffix("?"))
    context = {"form": form, "filters": filters, "problems": problems, "query": query}
    context["views"] = [view for view in visible_views(request.user) if may_remove(view=view, by=request.user)]
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


@require_POST
def view_remove(request: PortalRequest, pk: int) -> HttpResponse:
    """Forget a view."""
    view = get_object_or_404(visible_views(request.user), pk=pk)
    remove_view(view=view, by=request.user)
    messages.success(request, _("The view “%(name)s” was removed.") % {"name": view.name})
    return redirect("vms:vm-list")
