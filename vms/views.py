"""The inventory's pages: the list, a VM's settings, the import."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.views.decorators.http import require_GET, require_http_methods

from ui.http import PortalRequest
from ui.pages import render_page
from vms.access import vm_or_404
from vms.filters import VmFilter
from vms.forms import ImportForm
from vms.models import VirtualMachine
from vms.selectors import (
    DEFAULT_ORDER,
    ORDERS,
    ListTooSlowError,
    eligibility_of,
    filter_options,
    owns_everything,
    vm_page,
)


@require_GET
def vm_list(request: PortalRequest) -> HttpResponse:
    """Every VM the reader may see: searched, filtered, sorted, a page at a time; all of it in the address."""
    visible = VirtualMachine.objects.visible_to(request.user)
    filters = VmFilter(request.GET, visible, options=filter_options(request.user))
    order = request.GET.get("sort", DEFAULT_ORDER)
    order = order if order in ORDERS else DEFAULT_ORDER
    try:
        page = vm_page(filters.qs, words=filters.words, order=order, cursor=request.GET.get("cursor", ""))
    except ListTooSlowError:
        page = None
    context = {"filters": filters, "page": page, "order": order}
    return render_page(request, "vms/list.html", context, partials={"vm-table"})


@require_GET
def vm_settings(request: PortalRequest, pk: int) -> HttpResponse:
    """The patch settings of a VM, to read."""
    vm = vm_or_404(request.user, pk)
    context = {"vm": vm, "eligibility": eligibility_of(vm)}
    return render_page(request, "vms/settings.html", context)


@require_http_methods(["GET", "POST"])
def vm_import(request: PortalRequest) -> HttpResponse:
    """Import an inventory file and answer with a report for every row."""
    if not owns_everything(request.user):
        raise PermissionDenied
    form = ImportForm(request.POST, request.FILES) if request.method == "POST" else ImportForm()
    report = form.run() if form.is_bound and form.is_valid() else None
    status = 422 if form.is_bound and form.errors else 200
    return render_page(request, "vms/import.html", {"form": form, "report": report}, status=status)
