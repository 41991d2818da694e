"""What the fleet lacks, and one KB."""

from __future__ import annotations

from django.http import HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_GET

from db.bounded import ListTooSlowError
from ui.http import PortalRequest
from ui.pages import in_a_tidy_address, render_page
from updates.forms.pending import PendingForm
from updates.selectors.pending import load_pending_page, pending_csv, scope_filters
from updates.selectors.pending_kb import load_kb


@require_GET
@in_a_tidy_address
def pending(request: PortalRequest) -> HttpResponse:
    """Every update that machines lack, the most widely missing first; scope, filters and order are in the address."""
    filters, form = scope_filters(request.user, request.GET.dict()), PendingForm(request.GET.dict())
    try:
        page = load_pending_page(request.user, filters, form.asked, now=timezone.now())
    except ListTooSlowError:
        page = None
    context = {"filters": filters, "form": form, "order": form.order, "page": page}
    return render_page(request, "updates/pending.html", context)


@require_GET
def pending_export(request: PortalRequest) -> HttpResponse:
    """The same as CSV; 503 where a tag is looked for too long."""
    filters, form = scope_filters(request.user, request.GET.dict()), PendingForm(request.GET.dict())
    notes = [*(problem.words for problem in filters.ignored), *form.problems]
    try:
        text = pending_csv(load_pending_page(request.user, filters, form.asked, now=timezone.now()), notes=notes)
    except ListTooSlowError:
        return HttpResponse(status=503)
    name = f"pending-updates-{timezone.localdate().isoformat()}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return HttpResponse(text, content_type="text/csv; charset=utf-8", headers=headers)


@require_GET
def kb(request: PortalRequest, kb_number: str) -> HttpResponse:
    """One KB: its facts, and which machines lack it, have it, failed on it or hold it back."""
    page = load_kb(request.user, kb_number, request.GET.dict(), now=timezone.now())
    return render_page(request, "updates/kb.html", {"page": page})
