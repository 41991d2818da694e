"""A report on a part of the fleet, to print and as a file, and the machines behind its numbers."""

from __future__ import annotations

from django.http import HttpResponse, StreamingHttpResponse
from django.utils import timezone
from django.views.decorators.http import require_GET

from audit.context import acting
from audit.tags import Door
from db.bounded import ListTooSlowError
from ui.http import PortalRequest
from ui.pages import in_a_tidy_address, render_page
from updates.forms.report import ReportForm, ReportMachinesForm
from updates.selectors.pending import scope_filters
from updates.selectors.report import Report, load_machines, load_report
from updates.selectors.report_export import report_csv
from updates.services.reports import note_report_export
from vms.filters import VmFilter


def _asked(request: PortalRequest) -> tuple[VmFilter, ReportForm, bool]:
    """The part of the fleet and the form of the address, and whether all of it can be read."""
    filters, form = scope_filters(request.user, request.GET.dict()), ReportForm(request.GET.dict())
    return filters, form, not filters.ignored and form.is_valid()


def _report(request: PortalRequest, filters: VmFilter, form: ReportForm) -> Report | None:
    """The report; None: counting the machines of a tag took too long."""
    try:
        return load_report(request.user, filters, form.asked, now=timezone.now())
    except ListTooSlowError:
        return None


@require_GET
@in_a_tidy_address
def report(request: PortalRequest) -> HttpResponse:
    """The report that the address asks for; none where part of the address cannot be read."""
    filters, form, is_read = _asked(request)
    page = _report(request, filters, form) if is_read else None
    context = {"filters": filters, "form": form, "page": page, "is_read": is_read}
    return render_page(request, "updates/report.html", context, status=200 if is_read else 422)


@require_GET
def report_export(request: PortalRequest) -> HttpResponse | StreamingHttpResponse:
    """The same as CSV, with every overdue machine; that it was taken is kept. 503 where a tag takes too long."""
    filters, form, is_read = _asked(request)
    page = _report(request, filters, form) if is_read else None
    if page is None:
        context = {"filters": filters, "form": form, "page": None, "is_read": is_read}
        return render_page(request, "updates/report.html", context, status=503 if is_read else 422)
    with acting(door=Door.PAGE, person=request.user):
        note_report_export(filters=page.address, machines=page.machines.count, by=request.user)
    origin, name = f"{request.scheme}://{request.get_host()}", f"report-{timezone.localdate().isoformat()}.csv"
    lines = report_csv(page, reader=request.user, origin=origin, address=request.build_absolute_uri())
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingHttpResponse(lines, content_type="text/csv; charset=utf-8", headers=headers)


@require_GET
@in_a_tidy_address
def report_machines(request: PortalRequest) -> HttpResponse:
    """The machines that a number of a report counts."""
    filters, form = scope_filters(request.user, request.GET.dict()), ReportMachinesForm(request.GET.dict())
    page, is_read = None, not filters.ignored and form.is_valid()
    if is_read:
        try:
            cursor = request.GET.get("cursor", "")
            page = load_machines(request.user, filters, form.asked, now=timezone.now(), cursor=cursor)
        except ListTooSlowError:
            page = None
    context = {"filters": filters, "form": form, "page": page, "is_read": is_read}
    return render_page(request, "updates/report_machines.html", context, status=200 if is_read else 422)
