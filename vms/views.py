"""The inventory's pages: the list, a VM's settings."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from audit.context import acting
from audit.tags import Door
from db.bounded import ListTooSlowError
from ui.http import PortalRequest
from ui.pages import in_a_tidy_address, render_page
from vms.access import access_or_404
from vms.choices import Role
from vms.filters import VmFilter, order_of
from vms.forms.record import CreateForm, EditForm
from vms.list_tabs import query_of, tabs_of
from vms.models import Grants, ImageCatalogEntry, VirtualMachine
from vms.selectors import (
    WAYS,
    VmPage,
    assessed_at,
    csv_lines,
    eligibility_of,
    list_head,
    may_create_vms,
    vm_page,
)
from vms.services.exports import note_export
from vms.services.records import (
    SettingsRefusedError,
    VmExistsError,
    change_record,
    create_vm,
    judge_new_vm,
    judge_record,
)
from vms.ticks import PageTicks, page_ticks, ticks_of


@require_GET
@in_a_tidy_address
def vm_list(request: PortalRequest) -> HttpResponse:
    """Every VM the reader may see: searched, filtered, sorted, a page at a time; all of it in the address."""
    filters = VmFilter.of(request.user, request.GET)
    head = list_head(request.user, Grants.last_read(request.user))
    sort = request.GET.get("sort", "") if request.GET.get("sort", "") in WAYS else ""
    order, query = order_of(filters, sort), query_of(filters, sort)
    extras, place = [column.name for column in head.columns], request.GET.get("cursor", "")
    page, gone = None, 0
    with suppress(ListTooSlowError):
        page = vm_page(filters.qs, words=filters.words, order=order, cursor=place, extras=extras)
        gone = filters.count_gone() if head.has_gone else 0
    shown = {"filters": filters, "page": page, "order": order, "sort": sort, "gone": gone, "head": head}
    context = {"ticks": _ticks_on(request, page), "tabs": tabs_of(head, query), **shown, "query": urlencode(query)}
    return render_page(request, "vms/list.html", context, partials={"vm-table", "ticks-count"})


def _ticks_on(request: PortalRequest, page: VmPage | None) -> PageTicks:
    """What is ticked on this page of the list; nothing for who may act nowhere."""
    if not Grants.last_read(request.user).at_least(Role.OPERATOR).rows:
        return PageTicks()
    ticks = ticks_of(request.user, now=timezone.now())
    return page_ticks(request.user, ticks, [vm.id for vm in page.vms] if page else [])


@require_GET
def vm_export(request: PortalRequest) -> StreamingHttpResponse:
    """Every VM that the list would show, as CSV; rows are sent as they are read."""
    filters = VmFilter.of(request.user, request.GET)
    notes = [problem.words for problem in filters.ignored]
    lines = csv_lines(filters.found, notes=notes, assessed=assessed_at())
    with acting(door=Door.PAGE, person=request.user):
        note_export(filters=request.GET.dict(), machines=filters.found.count(), by=request.user)
    name = f"virtual-machines-{timezone.localdate().isoformat()}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingHttpResponse(lines, content_type="text/csv; charset=utf-8", headers=headers)


@require_GET
def vm_settings(request: PortalRequest, pk: int) -> HttpResponse:
    """The patch settings of a VM, to read."""
    access = access_or_404(request.user, pk)
    context = {"vm": access.vm, "access": access, "eligibility": eligibility_of(access.vm)}
    return render_page(request, "vms/settings.html", context)


@require_GET
def image_catalog(request: PortalRequest) -> HttpResponse:
    """Which images can be hotpatched: for everybody who is signed in."""
    context = {"entries": ImageCatalogEntry.objects.order_by("product_line", "sku")}
    return render_page(request, "vms/images.html", context)


@require_http_methods(["GET", "POST"])
def vm_create(request: PortalRequest) -> HttpResponse:
    """Make a VM record by hand; the verdict beside the form follows what is chosen."""
    if not may_create_vms(Grants.of(request.user)):
        raise PermissionDenied
    form = CreateForm(request.POST or None, user=request.user)
    is_asked = form.is_bound and "create" in request.POST
    vm = _created(form) if is_asked and form.is_valid() else None
    if vm is not None:
        messages.success(
            request, _("%(name)s was created. Assess it to see which updates it lacks.") % {"name": vm.name}
        )
        return redirect("vms:vm-settings", vm.pk)
    verdict = judge_new_vm(new=form.new_vm) if form.is_valid() else None
    context = {"form": form, "verdict": verdict, "catalog": ImageCatalogEntry.objects.all()}
    return render_page(request, "vms/create.html", context, partials={"verdict"}, status=422 if is_asked else 200)


def _created(form: CreateForm) -> VirtualMachine | None:
    """The VM that a valid form asks for. None: it was refused; the form or the verdict beside it says why."""
    try:
        return create_vm(new=form.new_vm)
    except SettingsRefusedError:
        return None
    except VmExistsError:
        form.say_name_is_taken()
        return None


@require_http_methods(["GET", "POST"])
def vm_edit(request: PortalRequest, pk: int) -> HttpResponse:
    """Change the facts of a VM; the verdict beside the form follows what is typed."""
    access = access_or_404(request.user, pk, Role.OWNER)
    form = EditForm(request.POST or None, vm=access.vm, user=request.user)
    is_asked = form.is_bound and "save" in request.POST
    if is_asked and form.is_valid() and _changed(form):
        messages.success(request, _("The record of %(name)s was changed.") % {"name": access.vm.name})
        return redirect("updates:vm-overview", pk)
    verdict = judge_record(vm=access.vm, record=form.record) if form.is_valid() else None
    context = {"vm": access.vm, "access": access, "form": form, "verdict": verdict}
    context["catalog"] = ImageCatalogEntry.objects.all()
    return render_page(request, "vms/edit.html", context, partials={"verdict"}, status=422 if is_asked else 200)


def _changed(form: EditForm) -> bool:
    """Change the facts as a valid form says. False: refused; the verdict beside the form says why."""
    try:
        change_record(vm_id=form.vm.pk, record=form.record)
    except SettingsRefusedError:
        return False
    return True
